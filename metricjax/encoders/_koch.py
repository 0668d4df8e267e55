"""The convolutional siamese encoder of Koch et al."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
from flax import nnx
from jax import Array
from jax.typing import DTypeLike


class _Initial(NamedTuple):
    convolution: nnx.Initializer
    dense: nnx.Initializer
    bias: nnx.Initializer


def _bias(key: Array, shape: Sequence[int], dtype: DTypeLike = "float32") -> Array:
    return 0.5 + 0.01 * jax.random.normal(key, shape, dtype)


_PAPER = _Initial(nnx.initializers.normal(0.01), nnx.initializers.normal(0.2), _bias)
_BY_INPUTS = _Initial(
    nnx.initializers.he_normal(),
    nnx.initializers.glorot_normal(),
    nnx.initializers.zeros_init(),
)


class Koch(nnx.Module):
    """Four convolutions, the first three pooled, and dense units with a sigmoid.

    Convolutions of 64, 128, 128 and 256 channels with ReLU; 2x2 maximum pooling after
    each but the last; then 4,096 dense units with a sigmoid, which are the embedding.
    The defaults are the paper's, for 105x105 drawings: 38,947,648 parameters, and
    38,951,745 with the weighted L1 head of `metricjax.heads` that it is trained with.
    Its embeddings are not normalised, and lie in 0..1.

    Initial values are the paper's: kernels of convolutions `N(0, 0.01^2)`, dense
    kernel `N(0, 0.2^2)`, biases `N(0.5, 0.01^2)`. These do not depend on the number of
    inputs, so they fit no other size: in the light form below, embeddings of different
    digits start out equal to 1e-4. `paper_init=False` draws kernels by the number of
    inputs (He; Glorot for the dense layer), with biases zero.

    A light form, for 28x28 images and a CPU, of 753,216 parameters:

        Koch(image_shape=(28, 28, 1), width=32, units=512, kernels=(5, 5, 3, 3),
             padding="SAME", paper_init=False, rngs=rngs)

    Args:
        image_shape: `(height, width, channels)` of one image.
        width: channels of the first convolution; the others are 2, 2 and 4 times it.
        units: size of the embedding.
        kernels: sides of the four convolutions' kernels, in pixels.
        padding: "VALID", as in the paper, shrinks an image at each convolution; "SAME"
            keeps its size, so that small images fit.
        paper_init: initial values as in the paper; else by the number of inputs.
        rngs: random streams for the initial weights.

    Raises:
        ValueError: if there are not four kernels, or the images are too small for them.

    Example:
        >>> def embed(images):
        ...     return Koch(rngs=nnx.Rngs(0))(images)
        >>> images = jax.ShapeDtypeStruct((2, 105, 105, 1), "float32")
        >>> jax.eval_shape(embed, images).shape
        (2, 4096)

    References:
        Koch, Zemel and Salakhutdinov, "Siamese Neural Networks for One-shot Image
        Recognition", ICML Deep Learning Workshop 2015, sections 3.1 and 3.2, figure 4.
    """

    def __init__(
        self,
        *,
        image_shape: Sequence[int] = (105, 105, 1),
        width: int = 64,
        units: int = 4096,
        kernels: Sequence[int] = (10, 7, 4, 4),
        padding: Literal["VALID", "SAME"] = "VALID",
        paper_init: bool = True,
        rngs: nnx.Rngs,
    ):
        if len(kernels) != 4:
            raise ValueError(
                f"Expected `kernels` of the four convolutions, got {tuple(kernels)}."
            )
        initial = _PAPER if paper_init else _BY_INPUTS
        height, breadth, channels = image_shape
        outputs = (width, 2 * width, 2 * width, 4 * width)
        inputs = (channels, *outputs[:3])
        self.convolutions = nnx.List(
            nnx.Conv(
                *(before, after, (kernel, kernel)),
                padding=padding,
                kernel_init=initial.convolution,
                bias_init=initial.bias,
                rngs=rngs,
            )
            for before, after, kernel in zip(inputs, outputs, kernels, strict=True)
        )
        flat = outputs[-1]
        for side in (height, breadth):
            flat *= _reduced(side, kernels, padding)
        self.embedding = nnx.Linear(
            *(flat, units),
            kernel_init=initial.dense,
            bias_init=initial.bias,
            rngs=rngs,
        )

    def __call__(self, images: Array) -> Array:
        """Embeddings `[batch, units]` of images `[batch, height, width, channels]`."""
        x = images
        for index, convolution in enumerate(self.convolutions):
            x = nnx.relu(convolution(x))
            if index < 3:
                x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        return nnx.sigmoid(self.embedding(x.reshape(x.shape[0], -1)))


def _reduced(size: int, kernels: Sequence[int], padding: str) -> int:
    """Size after four convolutions, the first three followed by a halving."""
    left = size
    for index, kernel in enumerate(kernels):
        left -= kernel - 1 if padding == "VALID" else 0
        left = left // 2 if index < 3 else left
        if left < 1:
            raise ValueError(
                f"Expected images large enough for kernels {tuple(kernels)} with "
                f"padding {padding}, got a side of {size} pixels; enlarge the images, "
                'choose smaller `kernels` or padding "SAME".'
            )
    return left
