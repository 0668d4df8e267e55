"""SimCLR: two views of each image, to be told from all others; no labels are used.

Command:

    python train.py --recipe simclr

The loss is on a projection of the embedding, a small network that is thrown away after
training. Labels serve evaluation alone. As in MoCo, with keys by a teacher and a queue:

    python train.py --recipe simclr --memory 4096 --teacher 0.99

Measured on digits never seen, mean of 3 splits: Recall@1 0.964 (raw pixels 0.983),
MAP@R 0.487 (raw pixels 0.482), EER 0.331 (raw pixels 0.342) (118 s in all, on two cores
with other work beside it).

References:
    Chen et al., "A Simple Framework for Contrastive Learning of Visual
    Representations", ICML 2020, arXiv:2002.05709, eq. 1. Teacher and queue: He et al.,
    CVPR 2020, arXiv:1911.05722.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from metricjax import losses, numerics
from metricjax.training import contrast, experiment, inputs, settings

__all__ = ["EXAMPLES", "Settings", "build"]

EXAMPLES = "views"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.BatchSettings, settings.TeacherSettings):
    """SimCLR: two views of each image, to be told from all others; without labels."""

    symmetries: Literal[1, 4, 8] = 1

    views: int = 2
    """Views of each image."""

    temperature: float = 0.2
    """Divides the cosines."""

    projection: int = 64
    """Size of the projection."""

    def __post_init__(self):
        super().__post_init__()
        settings.check_positive(self, "temperature", "projection")
        if self.views < 2:
            raise ValueError(f"Expected --views of at least 2, got {self.views}.")


def build(
    settings: Settings, image_shape: tuple[int, ...], classes: int
) -> experiment.Experiment:
    """The training problem; arguments as in `metricjax.training.recipes`."""
    change = inputs.preparation(settings)

    def views(key: Array, images: Array, labels: Array) -> tuple[Array, Array]:
        items = jnp.tile(jnp.arange(len(images)), settings.views)
        return change(key, jnp.tile(images, (settings.views, 1, 1, 1)), items)

    def views_of_items(key: Array, images: Array, items: Any) -> tuple[Array, Any]:
        # Batches meet in the memory: an image is an item by its place in the data set,
        # and its views have numbers of their own.
        count = settings.views
        images, _ = views(key, images, items[0])
        numbers = items[1] * count + jnp.arange(count, dtype=jnp.int32)[:, None]
        return images, (jnp.tile(items[1], count), numbers.reshape(-1))

    def init_head(key: Array) -> dict[str, Any]:
        hidden, out = jax.random.split(key)
        kernel = jax.nn.initializers.he_normal()
        dims = settings.dim, settings.projection
        return {
            "hidden": {"kernel": kernel(hidden, (dims[0], dims[0]))},
            "projection": {"kernel": kernel(out, dims)},
        }

    def project(x: Array, params: Any) -> Array:
        x = jax.nn.relu(x @ params["hidden"]["kernel"])
        return numerics.l2_normalize(x @ params["projection"]["kernel"])

    def loss(x: Array, items: Array, **references: Any) -> Any:
        return losses.ntxent(
            x, items, temperature=settings.temperature, reduction=None, **references
        )

    remembers = bool(settings.memory or settings.teacher)
    batches = inputs.shuffled_batches(
        settings, batch=settings.batch, with_ids=remembers
    )
    if remembers:
        return contrast.remembering(
            settings,
            image_shape,
            loss,
            project=project,
            batches=batches,
            rows=settings.batch * settings.views,
            dim=settings.projection,
            init_head=init_head,
            prepare=views_of_items,
            teacher=settings.teacher,
        )
    return experiment.supervised(
        settings,
        image_shape,
        lambda x, params, items: loss(project(x, params), items),
        batches=batches,
        init_head=init_head,
        prepare=views,
    )
