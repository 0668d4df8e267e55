"""Training problems of losses that compare embeddings, with a memory if it is wanted.

What a batch is compared with: itself, and a queue of embeddings of earlier batches
(cross-batch memory, XBM); or a queue that a teacher fills, which follows the encoder
slowly (MoCo). Queue and teacher are the loss's state, saved with each checkpoint.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metricjax import encoders, memory, numerics
from metricjax.reductions import Terms, mean
from metricjax.training import experiment, inputs, step
from metricjax.training.experiment import Experiment
from metricjax.training.settings import MemorySettings, PairSettings

__all__ = ["Kept", "pairwise", "remembering"]

Project = Callable[[Array, Any], Array]


class Kept(NamedTuple):
    """The state of a loss with a memory.

    Attributes:
        step: int32 scalar, the number of steps taken.
        queue: what each batch is compared with.
        teacher: parameters that follow those in training; `{}` without a teacher.
    """

    step: Array
    queue: memory.Queue
    teacher: Any


def pairwise(
    settings: PairSettings,
    image_shape: tuple[int, ...],
    loss: Callable[..., Any],
    *,
    teacher: float = 0.0,
) -> Experiment:
    """The training problem of a loss of unit embeddings, in batches of P x K images.

    Args:
        settings: of the recipe.
        image_shape: `(height, width, channels)`.
        loss: `(embeddings, labels, **references) -> Terms`, of embeddings of length
            one; with a memory or a teacher the references are options of pair losses,
            see `remembering`.
        teacher: see `remembering`.

    Returns:
        What `metricjax.training.run` trains.

    Raises:
        ValueError: if the memory is smaller than a batch.

    Example:
        >>> from metricjax import losses
        >>> def loss(x, y, **references):
        ...     return losses.supcon(x, y, reduction=None, **references)
        >>> problem = pairwise(PairSettings(dim=4), (28, 28, 1), loss)
        >>> sorted(jax.eval_shape(problem.init, jax.random.key(0)).params)
        ['encoder']
    """
    remembers = bool(settings.memory or teacher)
    classes, examples = settings.batch_classes, settings.batch_examples
    batches = inputs.pk_batches(
        settings, classes=classes, examples=examples, with_ids=remembers
    )
    if remembers:
        return remembering(
            settings,
            image_shape,
            loss,
            project=lambda x, params: numerics.l2_normalize(x),
            batches=batches,
            rows=classes * examples,
            dim=settings.dim,
            teacher=teacher,
        )

    def of_units(embeddings: Array, params: Any, labels: Array) -> Any:
        return loss(numerics.l2_normalize(embeddings), labels)

    return experiment.supervised(settings, image_shape, of_units, batches=batches)


def remembering(
    settings: MemorySettings,
    image_shape: tuple[int, ...],
    loss: Callable[..., Any],
    *,
    project: Project,
    batches: inputs.Batches,
    rows: int,
    dim: int,
    init_head: Callable[[Array], Mapping[str, Any]] | None = None,
    prepare: step.Prepare | None = None,
    teacher: float = 0.0,
) -> Experiment:
    """The training problem of a pair loss whose batches are compared with a queue too.

    Without a teacher each batch enters the queue, and the loss of the batch within
    itself and that of the batch against the queue are added, each reduced on its own.
    The second counts from step `memory_start` on.

    With a teacher `t <- d t + (1 - d) p` follows all parameters p, from those of the
    first step; then it embeds the batch, for the queue, and the loss is that of the
    encoder's embeddings against the queue alone. The teacher's layers are in training
    mode; their state is not kept. Without a size the queue holds the batch and no more.

    No row is compared with an embedding of the same id, its own or an older one.

    Args:
        settings: of the recipe; the size of its memory, and when it starts.
        image_shape: `(height, width, channels)`.
        loss: `(embeddings, labels, **references) -> Terms`, a pair loss with
            `reduction=None`; the references are `ids` and what `memory.references`
            gives.
        project: `(embeddings, params) -> vectors` that are compared.
        batches: `(examples, seed) -> (t -> (images, (labels, ids)))`.
        rows: vectors of a batch.
        dim: of a vector.
        init_head: `key -> {name: parameters}` that `project` uses.
        prepare: `(key, images, (labels, ids)) -> (images, (labels, ids))` before the
            encoder; `inputs.preparation` of images and labels by default.
        teacher: `d`; 0 for none.

    Returns:
        What `metricjax.training.run` trains; its loss state is `Kept`.

    Raises:
        ValueError: if the memory is smaller than a batch.

    Example:
        >>> from metricjax import losses
        >>> def loss(x, y, **references):
        ...     return losses.contrastive(x, y, reduction=None, **references)
        >>> settings = MemorySettings(dim=4, memory=100)
        >>> batches = inputs.pk_batches(settings, classes=3, examples=2, with_ids=True)
        >>> problem = remembering(
        ...     settings,
        ...     (28, 28, 1),
        ...     loss,
        ...     project=lambda x, params: x,
        ...     batches=batches,
        ...     rows=6,
        ...     dim=4,
        ... )
        >>> state = jax.eval_shape(problem.init, jax.random.key(0))
        >>> state.loss_state.queue.embeddings.shape
        (100, 4)

    References:
        Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020,
        arXiv:1912.06798, algorithm 1; the sum with the loss of the batch: the authors'
        code. He et al., "Momentum Contrast for Unsupervised Visual Representation
        Learning", CVPR 2020, arXiv:1911.05722, eq. 1 and 2.
    """
    if settings.memory and settings.memory < rows:
        raise ValueError(
            f"Expected --memory of at least {rows}, the embeddings of a batch, got "
            f"{settings.memory}."
        )
    experiment.check_square(settings, image_shape)
    model = experiment.encoder(settings, image_shape)
    function = _loss_function(
        model.apply,
        loss,
        project,
        prepare or _labels_alone(inputs.preparation(settings)),
        memory_start=settings.memory_start,
        teacher=teacher,
    )

    def init_params(key: Array) -> dict[str, Any]:
        head = {} if init_head is None else init_head(key)
        return {"encoder": model.init(key)[0], **head}

    shapes = jax.eval_shape(init_params, jax.random.key(0)) if teacher else {}
    kept = Kept(
        step=jnp.zeros((), jnp.int32),
        queue=memory.init_queue(settings.memory or rows, dim),
        # In the first step it becomes what is trained, which may be loaded until then.
        teacher=jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes),
    )
    return experiment.assemble(
        settings, model, function, batches=batches, init_head=init_head, memory=kept
    )


def _labels_alone(prepare: step.Prepare) -> step.Prepare:
    """The same for `(labels, ids)` in the place of labels; ids stay."""

    def prepared(key: Array, images: Array, items: Any) -> tuple[Array, Any]:
        images, labels = prepare(key, images, items[0])
        return images, (labels, items[1])

    return prepared


def _loss_function(
    apply: encoders.Apply,
    loss: Callable[..., Any],
    project: Project,
    prepare: step.Prepare,
    *,
    memory_start: int,
    teacher: float,
) -> step.LossFunction:
    def loss_function(
        params: Any, model_state: Any, loss_state: Any, batch: Any, key: Array
    ) -> tuple[Array, step.Outputs]:
        kept, (images, items) = Kept(*loss_state), batch
        prepare_key, encoder_key = jax.random.split(key)
        images = encoders.as_float(images)
        images, (labels, ids) = prepare(prepare_key, images, items)

        def embed(params: Any, key: Array) -> tuple[Array, Any]:
            x, state = apply(
                params["encoder"], model_state, images, train=True, key=key
            )
            return project(x, params), state

        x, after = embed(params, encoder_key)
        taught, keys = kept.teacher, x
        if teacher:
            decay = jnp.where(kept.step == 0, 0.0, teacher)
            taught = memory.ema(kept.teacher, params, decay=decay)
            keys, _ = embed(taught, jax.random.fold_in(encoder_key, 1))
        queue = memory.push(kept.queue, keys, labels, ids)
        terms = loss(x, labels, ids=ids, **memory.references(queue))
        if not teacher:
            started = kept.step >= memory_start
            terms = jax.tree.map(lambda v: jnp.where(started, v, 0.0), terms)
            terms = _beside(loss(x, labels), terms)
        active = numerics.divide(jnp.sum(terms.active), jnp.sum(terms.count))
        kept = jax.lax.stop_gradient(Kept(kept.step + 1, queue, taught))
        return mean(terms), step.Outputs(after, kept, {"active": active})

    return loss_function


def _beside(first: Terms, second: Terms) -> Terms:
    """The parts of both."""

    def join(*fields: Array) -> Array:
        return jnp.concatenate([x.reshape(x.shape[0], -1) for x in fields], axis=1)

    return jax.tree.map(join, first, second)
