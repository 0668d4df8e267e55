"""Plain convolutional encoder."""

from collections.abc import Sequence

from flax import nnx
from jax import Array


class ConvNet(nnx.Module):
    """Four 3x3 convolutions, two dense layers, no normalisation layers.

    Convolutions of 32 (stride 2), 64 (stride 2), 128 (stride 2, no padding) and 128
    channels, ReLU after each, then 256 dense units with ReLU and a linear embedding:
    the encoder of the "classification as clustering" notebooks, which use 28x28 images
    and a 2-D embedding. Its embeddings are not normalised.

    Args:
        image_shape: `(height, width, channels)`; height and width at least 9.
        width: channels of the first convolution; the others are 2, 4 and 4 times it.
        hidden: units of the dense layer.
        dim: size of the embedding.
        rngs: random streams for the initial weights.

    Example:
        >>> import jax
        >>> def embed(images):
        ...     return ConvNet(dim=2, rngs=nnx.Rngs(0))(images)
        >>> images = jax.ShapeDtypeStruct((2, 28, 28, 1), "float32")
        >>> jax.eval_shape(embed, images).shape
        (2, 2)
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int] = (28, 28, 1),
        width: int = 32,
        hidden: int = 256,
        dim: int = 64,
        rngs: nnx.Rngs,
    ):
        height, breadth, channels = image_shape
        self.conv1 = _conv(channels, width, 2, "SAME", rngs)
        self.conv2 = _conv(width, 2 * width, 2, "SAME", rngs)
        self.conv3 = _conv(2 * width, 4 * width, 2, "VALID", rngs)
        self.conv4 = _conv(4 * width, 4 * width, 1, "SAME", rngs)
        flat = 4 * width * _reduced(height) * _reduced(breadth)
        self.dense = nnx.Linear(
            flat, hidden, kernel_init=nnx.initializers.he_normal(), rngs=rngs
        )
        self.embedding = nnx.Linear(hidden, dim, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Embeddings `[batch, dim]` of images `[batch, height, width, channels]`."""
        x = images
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = nnx.relu(conv(x))
        x = nnx.relu(self.dense(x.reshape(x.shape[0], -1)))
        return self.embedding(x)


def _conv(
    inputs: int, outputs: int, stride: int, padding: str, rngs: nnx.Rngs
) -> nnx.Conv:
    return nnx.Conv(
        inputs,
        outputs,
        (3, 3),
        strides=stride,
        padding=padding,
        kernel_init=nnx.initializers.he_normal(),
        rngs=rngs,
    )


def _reduced(size: int) -> int:
    """Size after two padded halvings and one unpadded 3-wide halving."""
    quarter = -(-size // 4)
    if quarter < 3:
        raise ValueError(
            f"Expected images of at least 9 pixels a side, got {size}; "
            "enlarge the images or use encoders.MLP."
        )
    return (quarter - 3) // 2 + 1
