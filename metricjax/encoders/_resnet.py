"""Small residual encoder for grey images."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax import Array


class ResNet(nnx.Module):
    """Three residual blocks behind a stride-2 stem: the default for small images.

    A 5x5 convolution with stride 2, then blocks of 2, 4 and 8 times `width` channels,
    the last two halving the image; flattened (not pooled: strokes have places), then
    a linear embedding with batch norm. The stem makes it about twice as fast on a CPU
    as the usual four 3x3 convolutions with pooling. On 28x28 images with `width=16`
    it takes about 9 million multiply-adds an image.

    Pictures of sounds have frequencies that mean something, but times that depend on
    the speaker's pace: `pool_time` replaces the columns of the last feature map by
    their mean and their maximum, and keeps its rows apart.

    Args:
        image_shape: `(height, width, channels)` of one image.
        width: channels of the stem.
        dim: size of the embedding.
        pool_time: whether columns are frames of time, to be pooled.
        rngs: random streams for the initial weights.

    Example:
        >>> import jax
        >>> def embed(images):
        ...     return ResNet(width=4, rngs=nnx.Rngs(0))(images)
        >>> images = jax.ShapeDtypeStruct((2, 28, 28, 1), "float32")
        >>> jax.eval_shape(embed, images).shape
        (2, 128)

    References:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
        arXiv:1512.03385; the pooled shortcut is from He et al., "Bag of Tricks for
        Image Classification", CVPR 2019, arXiv:1812.01187, section 4.1.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int] = (28, 28, 1),
        width: int = 16,
        dim: int = 128,
        pool_time: bool = False,
        rngs: nnx.Rngs,
    ):
        height, breadth, channels = image_shape
        self.pool_time = pool_time
        self.stem = _conv(channels, width, size=5, stride=2, rngs=rngs)
        self.stem_norm = _norm(width, rngs)
        self.block1 = Residual(width, 2 * width, stride=1, rngs=rngs)
        self.block2 = Residual(2 * width, 4 * width, stride=2, rngs=rngs)
        self.block3 = Residual(4 * width, 8 * width, stride=2, rngs=rngs)
        columns = 2 if pool_time else -(-breadth // 8)
        flat = 8 * width * -(-height // 8) * columns
        self.embedding = nnx.Linear(flat, dim, use_bias=False, rngs=rngs)
        self.embedding_norm = _norm(dim, rngs)

    def __call__(self, images: Array) -> Array:
        """Embeddings `[batch, dim]` of images `[batch, height, width, channels]`."""
        x = nnx.relu(_normed(self.stem_norm, self.stem(images)))
        x = self.block3(self.block2(self.block1(x)))
        if self.pool_time:
            x = jnp.stack([x.mean(axis=2), x.max(axis=2)], axis=2)
        x = self.embedding(x.reshape(x.shape[0], -1))
        return self.embedding_norm(x)


class Residual(nnx.Module):
    """Two 3x3 convolutions with batch norm, added to a projected shortcut.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: 2 to halve the image, rounding up; else 1.
        rngs: random streams for the initial weights.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs):
        self.stride = stride
        self.conv1 = _conv(inputs, outputs, size=3, stride=stride, rngs=rngs)
        self.norm1 = _norm(outputs, rngs)
        self.conv2 = _conv(outputs, outputs, size=3, stride=1, rngs=rngs)
        self.norm2 = _norm(outputs, rngs)
        self.shortcut = _conv(inputs, outputs, size=1, stride=1, rngs=rngs)
        self.shortcut_norm = _norm(outputs, rngs)

    def __call__(self, x: Array) -> Array:
        """Feature maps `[batch, height, width, outputs]`."""
        y = nnx.relu(_normed(self.norm1, self.conv1(x)))
        y = _normed(self.norm2, self.conv2(y))
        shortcut = self.shortcut(self._pool(x))
        return nnx.relu(y + _normed(self.shortcut_norm, shortcut))

    def _pool(self, x: Array) -> Array:
        if self.stride == 1:
            return x
        window = (self.stride, self.stride)
        # Windows that stick out average only the pixels that exist.
        pooled = nnx.avg_pool(
            x, window, strides=window, padding="SAME", count_include_pad=False
        )
        # They are counted in float32.
        return pooled.astype(x.dtype)


def _conv(
    inputs: int, outputs: int, *, size: int, stride: int, rngs: nnx.Rngs
) -> nnx.Conv:
    # No bias: batch norm follows and would subtract it.
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        use_bias=False,
        kernel_init=nnx.initializers.he_normal(),
        rngs=rngs,
    )


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    # Statistics of about the last 20 steps: short runs are evaluated too.
    return nnx.BatchNorm(channels, momentum=0.9, rngs=rngs)


def _normed(norm: nnx.BatchNorm, x: Array) -> Array:
    # Its statistics are float32, and a bfloat16 net would go on in float32 after it.
    return norm(x).astype(x.dtype)
