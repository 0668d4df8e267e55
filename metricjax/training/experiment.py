"""What a recipe builds: how to start, how to step, and how to draw batches."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from metricjax import encoders, heads, similarities, transforms
from metricjax.reductions import Terms, mean
from metricjax.training import (
    _encoding,
    _whitening,
    finetune,
    inputs,
    optimizers,
    parallel,
    state,
    step,
    views,
)
from metricjax.training.evaluate import Similarity
from metricjax.training.settings import BatchSettings, ClassSettings, Settings

__all__ = [
    "Experiment",
    "assemble",
    "check_square",
    "class_weights",
    "classifier",
    "encoder",
    "supervised",
]

# So many numbers are drawn by a generator of which each device makes its part. XLA's
# own, which compiles faster, makes all of them on every device.
_MANY = 2**22


class Experiment(NamedTuple):
    """A training problem, made once for all splits so that it is compiled once.

    Attributes:
        init: `key -> State` before the first step.
        step: `(state, batch) -> (state, metrics)`, compiled.
        batches: `(examples, seed) -> (t -> batch)`, the batch of each step, a pure
            function of t; the labels are `[n]` int in `[0, classes)`.
        apply: the encoder, with parameters `state.params["encoder"]`.
        similarity: by which its embeddings are compared.
        class_sharded: `mesh -> Experiment`, the same problem with the class weights of
            `params["head"]` divided among devices; None if it has none, or a loss that
            needs all of them at once.
    """

    init: Callable[[Array], state.State]
    step: step.Step
    batches: inputs.Batches
    apply: encoders.Apply
    similarity: Similarity = similarities.cosine
    class_sharded: "Callable[[Mesh], Experiment] | None" = None


def supervised(
    settings: Settings,
    image_shape: tuple[int, ...],
    loss: Callable[..., Any],
    *,
    batches: inputs.Batches,
    init_head: Callable[[Array], Mapping[str, Any]] | None = None,
    memory: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    prepare: step.Prepare | None = None,
    reduction: Callable[[Terms], Array] = mean,
    similarity: Similarity = similarities.cosine,
) -> Experiment:
    """The training problem of a loss of embeddings and labels.

    Images are turned and mapped at random as the settings say, each symmetry of a class
    being a class of its own.

    Args:
        settings: of the recipe.
        image_shape: `(height, width, channels)`.
        loss: `(embeddings, params, labels) -> Terms`, a loss with `reduction=None`.
        batches: such as `inputs.shuffled_batches(...)` or
            `inputs.pk_batches(...)`.
        init_head: `key -> {name: parameters}` that are trained beside the encoder.
        memory: what the loss keeps from step to step, at its start; the loss is then
            `(embeddings, params, labels, memory) -> (Terms, memory)`.
        optimizer: an optax gradient transformation; `optimizers.adamw` by default.
        prepare: `(key, images, labels) -> (images, labels)` before the encoder;
            `inputs.preparation` by default.
        reduction: from terms to the loss that is minimised.
        similarity: by which embeddings are compared in evaluation.

    Returns:
        What `metricjax.training.run` trains.

    Raises:
        ValueError: if symmetries are wanted of images that are not square.

    Example:
        >>> from metricjax import losses
        >>> def loss(embeddings, params, labels):
        ...     return losses.supcon(embeddings, labels, reduction=None)
        >>> settings = Settings(width=2, dim=4)
        >>> batches = inputs.pk_batches(settings, classes=2, examples=2)
        >>> problem = supervised(settings, (28, 28, 1), loss, batches=batches)
        >>> int(problem.init(jax.random.key(0)).step)
        0
    """
    check_square(settings, image_shape)
    model = encoder(settings, image_shape)
    function = step.supervised(
        model.apply,
        loss,
        reduction=reduction,
        prepare=prepare or inputs.preparation(settings),
        has_memory=memory is not None,
    )
    return assemble(
        settings,
        model,
        function,
        batches=batches,
        init_head=init_head,
        memory=memory,
        optimizer=optimizer,
        similarity=similarity,
    )


def assemble(
    settings: Settings,
    model: encoders.Deferred,
    loss_function: step.LossFunction,
    *,
    batches: inputs.Batches,
    init_head: Callable[[Array], Mapping[str, Any]] | None = None,
    memory: Any = None,
    optimizer: optax.GradientTransformation | None = None,
    similarity: Similarity = similarities.cosine,
) -> Experiment:
    """The training problem of any loss function; what the others here end in.

    Args:
        settings: of the recipe; its optimiser and what it freezes.
        model: the encoder, from `encoder`.
        loss_function: as `step.make_step` takes it.
        batches: `(examples, seed) -> (t -> batch)`.
        init_head: `key -> {name: parameters}` that are trained beside the encoder.
        memory: the loss's state at its start.
        optimizer: an optax gradient transformation; `optimizers.adamw` by default.
        similarity: by which embeddings are compared in evaluation.

    Returns:
        What `metricjax.training.run` trains.

    Raises:
        ValueError: if what is to be frozen does not exist, or views are to be averaged
            or whitened of embeddings that are not compared by cosine.

    Example:
        >>> def loss_function(params, model_state, loss_state, batch, key):
        ...     x, model_state = model.apply(
        ...         params["encoder"], model_state, batch, train=True, key=key
        ...     )
        ...     return jnp.mean(x**2), step.Outputs(model_state, loss_state, {})
        >>> settings = Settings(encoder="mlp", width=1, dim=2)
        >>> model = encoder(settings, (4, 4, 1))
        >>> images = jnp.ones((2, 4, 4, 1))
        >>> problem = assemble(
        ...     settings, model, loss_function, batches=lambda *_: lambda t: images
        ... )
        >>> after, metrics = problem.step(problem.init(jax.random.key(0)), images)
        >>> int(after.step)
        1
    """
    if similarity is not similarities.cosine:
        _check_plain(settings)

    def init_params(key: Array) -> tuple[dict[str, Any], Any]:
        encoder_key, head_key = jax.random.split(key)
        params, model_state = model.init(encoder_key)
        head = {} if init_head is None else init_head(head_key)
        return {"encoder": params, **head}, model_state

    rule = optimizers.adamw(settings) if optimizer is None else optimizer
    if settings.freeze:
        shapes = jax.eval_shape(init_params, jax.random.key(0))[0]
        rule = finetune.freeze(rule, _frozen(settings), shapes)
    if settings.accumulate > 1:
        rule = optimizers.accumulated(rule, settings.accumulate)

    def init(key: Array) -> state.State:
        run_key, params_key = jax.random.split(key)
        params, model_state = init_params(params_key)
        # Copies: a step donates its state, and there may be another split.
        loss_state = jax.tree.map(jnp.array, memory)
        return state.init(
            run_key,
            params,
            optimizer=rule,
            model_state=model_state,
            loss_state=loss_state,
        )

    update = step.make_step(loss_function, rule)
    batches = inputs.streamed(batches, steps=settings.steps)
    return Experiment(init, update, batches, model.apply, similarity)


def _check_plain(settings: Settings) -> None:
    """Raise if embeddings are changed in a way that cosines alone are made for."""
    if settings.average_views > 1:
        raise ValueError(
            "Expected --average-views 1 where embeddings are not compared by cosine, "
            f"got {settings.average_views}: their lengths would be lost."
        )
    if settings.whiten is not None:
        raise ValueError(
            "Expected no --whiten where embeddings are not compared by cosine, got "
            f"{settings.whiten}; leave it out."
        )


def _frozen(settings: Settings) -> list[str]:
    """The frozen paths, in the parameters as a whole; `!` stays in front."""
    return [
        f"!encoder/{path[1:]}" if path.startswith("!") else f"encoder/{path}"
        for path in settings.freeze
    ]


def classifier(
    settings: BatchSettings,
    image_shape: tuple[int, ...],
    classes: int,
    loss: Callable[..., Any],
    *,
    subcenters: int | None = None,
    memory: Any = None,
    advance: Callable[[Any, Array], tuple[Any, Any]] | None = None,
    mesh: Mesh | None = None,
) -> Experiment:
    """The training problem of a margin softmax: one weight vector for each class.

    Args:
        settings: of the recipe.
        image_shape: `(height, width, channels)`.
        classes: number of training classes, before symmetries multiply them.
        loss: `(embeddings, class_weights, labels, given, **options) -> Terms`, which
            passes its options on to a loss that takes `losses.SoftmaxOptions`.
        subcenters: weight vectors of each class, if there are several.
        memory: what is kept from step to step, at its start; by default the number of
            the step.
        advance: `(memory, embeddings) -> (memory, given)`; by default `given` is the
            share of the margin that is in force, which grows from 0 to 1 during the
            warm-up.
        mesh: of devices among which the class weights are divided; by default each has
            all of them.

    Returns:
        What `metricjax.training.run` trains.

    Example:
        >>> from metricjax import losses
        >>> def loss(x, class_weights, y, share, **options):
        ...     return losses.cosface(
        ...         x, class_weights, y, margin=0.2 * share, reduction=None, **options
        ...     )
        >>> problem = classifier(ClassSettings(dim=4), (28, 28, 1), 7, loss)
        >>> jax.eval_shape(problem.init, jax.random.key(0)).params["head"].shape
        (56, 4)
    """
    rows, chosen, padding = classes * settings.symmetries, loss, 0
    if mesh is not None:
        chosen = parallel.class_sharded(loss, mesh, classes=rows)
        padding = parallel.padded_classes(rows, mesh) - rows
    move = advance or functools.partial(_share, settings)

    def remembering(x: Array, params: Any, labels: Array, memory: Any) -> Any:
        memory, given = move(memory, x)
        return chosen(x, params["head"], labels, given), memory

    def divided(mesh: Mesh) -> Experiment:
        return classifier(
            settings,
            image_shape,
            classes,
            loss,
            subcenters=subcenters,
            memory=memory,
            advance=advance,
            mesh=mesh,
        )

    problem = supervised(
        settings,
        image_shape,
        remembering,
        batches=inputs.shuffled_batches(settings, batch=settings.batch),
        init_head=class_weights(
            settings, classes, subcenters=subcenters, padding=padding
        ),
        memory={"step": np.int32(0)} if memory is None else memory,
    )
    return problem._replace(class_sharded=divided)


def _share(settings: Settings, memory: Any, embeddings: Array) -> tuple[Any, Any]:
    """The next number of the step, and the share of the margin in this one."""
    del embeddings
    warm_up = settings.warm_up if isinstance(settings, ClassSettings) else 0.0
    steps = warm_up * settings.steps
    share = jnp.minimum(memory["step"] / steps, 1.0) if steps else 1.0
    return {"step": memory["step"] + 1}, share


def class_weights(
    settings: Settings,
    classes: int,
    *,
    name: str = "head",
    subcenters: int | None = None,
    padding: int = 0,
) -> Callable[[Array], dict[str, Array]]:
    """The `init_head` of losses that have a vector for each class.

    Args:
        settings: its `symmetries` and `dim` are used.
        classes: number of training classes, before symmetries multiply them.
        name: of these parameters.
        subcenters: vectors of each class, if there are several.
        padding: rows of zeros at the end.

    Returns:
        `key -> {name: class_weights}`.

    Example:
        >>> init_head = class_weights(Settings(dim=4), 7)
        >>> init_head(jax.random.key(0))["head"].shape
        (56, 4)
    """

    def init_head(key: Array) -> dict[str, Array]:
        rows = classes * settings.symmetries
        if rows * (subcenters or 1) * settings.dim >= _MANY:
            data = jax.random.key_data(key)[:2]
            key = jax.random.wrap_key_data(data, impl="threefry2x32")
        dim = settings.dim
        weights = heads.init_class_weights(key, rows, dim, subcenters=subcenters)
        edges = [(0, padding)] + [(0, 0)] * (weights.ndim - 1)
        return {name: jnp.pad(weights, edges) if padding else weights}

    return init_head


def encoder(settings: Settings, image_shape: tuple[int, ...]) -> encoders.Deferred:
    """The encoder that the settings name.

    Args:
        settings: its `encoder`, `width`, `dim` and `input_size` are used, and what
            it says of `content`, `compute`, `freeze`, `chunk`, `average_views`,
            `join_symmetries` and `whiten`.
        image_shape: `(height, width, channels)` of the data.

    Returns:
        The encoder as a pure function, to be initialised by a key. It resamples images
        that do not have the size of its input.

    Example:
        >>> chosen = encoder(Settings(encoder="mlp", dim=3), (4, 4, 1))
        >>> sorted(jax.eval_shape(chosen.init, jax.random.key(0))[0])
        ['embedding', 'hidden']
    """
    size = settings.input_size
    if size is not None:
        image_shape = (size, size, image_shape[2])
    model = _encoding.named(settings, image_shape)
    apply = model.apply
    if settings.compute != "float32":
        apply = transforms.compute_in(apply, settings.compute)
    if size is not None:
        apply = _encoding.resampling(apply, size)
    if settings.content == "vectors":
        apply = _encoding.of_counts(apply)
    if settings.freeze:
        apply = finetune.frozen_encoder(apply, _frozen(settings))
    if settings.chunk is not None:
        apply = _encoding.in_chunks(apply, settings.chunk)
    if settings.average_views > 1:
        seen = views.of_content(settings.content, settings.average_views, size=size)
        apply = views.averaged(apply, seen)
    parts = settings.symmetries if settings.join_symmetries else 1
    if parts > 1:
        apply = views.joined(apply, parts)
    model = model._replace(apply=apply)
    if settings.whiten is None:
        return model
    return _whitening.added(model, settings.dim, parts=parts)


def check_square(settings: Settings, image_shape: tuple[int, ...]) -> None:
    """Raise if symmetries are wanted of images that are not square.

    Args:
        settings: its `symmetries` is used.
        image_shape: `(height, width, channels)`.

    Raises:
        ValueError: if they are.

    Example:
        >>> check_square(Settings(symmetries=1), (4, 5, 1))
    """
    if settings.symmetries > 1 and image_shape[0] != image_shape[1]:
        raise ValueError(
            f"Expected square images for {settings.symmetries} symmetries, got "
            f"{image_shape[0]} x {image_shape[1]}; give --image-size or --symmetries 1."
        )
