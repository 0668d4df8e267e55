"""One optimisation step as one compiled program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from metricjax import encoders, numerics
from metricjax.reductions import Terms, mean
from metricjax.training.state import State

__all__ = ["Outputs", "make_step", "supervised"]

Tree = Any
Prepare = Callable[[Array, Array, Array], tuple[Array, Array]]


class Outputs(NamedTuple):
    """What a loss function returns beside its value.

    Attributes:
        model_state: the encoder's state after the step.
        loss_state: the loss's state after the step.
        metrics: scalars to log.
    """

    model_state: Tree
    loss_state: Tree
    metrics: dict[str, Array]


LossFunction = Callable[[Tree, Tree, Tree, Any, Array], tuple[Array, Outputs]]
Step = Callable[[State, Any], tuple[State, dict[str, Array]]]


def make_step(
    loss_function: LossFunction, optimizer: optax.GradientTransformation
) -> Step:
    """Compile `(state, batch) -> (state, metrics)` for a loss and an optimiser.

    The state that is passed in is donated: its buffers are reused and it must not be
    read again. The metrics are those of the loss function, "loss", and
    "gradient_norm" (over all parameters, before the optimiser clips or scales). Parts
    of the parameters may have their own rules through `optax.multi_transform`.

    Args:
        loss_function: `(params, model_state, loss_state, batch, key) ->
            (loss, Outputs)`; the key differs from step to step.
        optimizer: an optax gradient transformation.

    Returns:
        The compiled step; it compiles again only for a batch of another shape.

    Example:
        >>> from metricjax.training.state import init
        >>> def loss_function(params, model_state, loss_state, batch, key):
        ...     loss = jnp.sum((params["center"] - batch) ** 2)
        ...     return loss, Outputs(model_state, loss_state, {})
        >>> optimizer = optax.sgd(0.5)
        >>> params = {"center": jnp.zeros(2)}
        >>> state = init(jax.random.key(0), params, optimizer=optimizer)
        >>> state, metrics = make_step(loss_function, optimizer)(state, jnp.ones(2))
        >>> state.params["center"].tolist(), float(metrics["loss"])
        ([1.0, 1.0], 2.0)
    """

    def step(state: State, batch: Any) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, outputs), gradients = jax.value_and_grad(loss_function, has_aux=True)(
            state.params, state.model_state, state.loss_state, batch, key
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        norm = optax.tree.norm(gradients)
        state = State(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=outputs.model_state,
            opt_state=opt_state,
            loss_state=outputs.loss_state,
            key=state.key,
        )
        return state, {"loss": loss, "gradient_norm": norm, **outputs.metrics}

    return jax.jit(step, donate_argnums=0)


def supervised(
    apply: encoders.Apply,
    loss: Callable[..., Any],
    *,
    reduction: Callable[[Terms], Array] = mean,
    prepare: Prepare | None = None,
    has_memory: bool = False,
) -> LossFunction:
    """The loss function of labelled images for `make_step`, from any loss here.

    Logs "active", the share of the loss's terms that are not zero.

    Args:
        apply: the encoder, see `metricjax.encoders.functional`; its parameters are
            `params["encoder"]`.
        loss: `(embeddings, params, labels) -> Terms` of `metricjax.reductions`, such as
            `lambda e, params, y: losses.arcface(e, params["head"], y, reduction=None)`.
        reduction: from terms to the loss that is minimised.
        prepare: `(key, images, labels) -> (images, labels)` before the encoder, for
            random augmentation; the images come in as floats in 0..1.
        has_memory: the loss keeps something from step to step (centers, statistics,
            the number of the step): it is `(embeddings, params, labels, memory) ->
            (Terms, memory)`. No gradient flows into memory.

    Returns:
        `(params, model_state, loss_state, batch, key) -> (loss, Outputs)`, where the
        batch is a pair (images, labels) and the loss state is the memory.

    Example:
        >>> from metricjax import losses
        >>> def apply(params, state, images, *, train, key=None):
        ...     return images.reshape(len(images), -1) @ params, state
        >>> def loss(embeddings, params, labels):
        ...     return losses.triplet_semihard(embeddings, labels, reduction=None)
        >>> function = supervised(apply, loss)
        >>> batch = (jnp.ones((4, 2, 2, 1)), jnp.array([0, 0, 1, 1]))
        >>> params = {"encoder": jnp.ones((4, 3))}
        >>> value, outputs = function(params, {}, {}, batch, jax.random.key(0))
        >>> sorted(outputs.metrics)
        ['active']
    """

    def loss_function(
        params: Tree, model_state: Tree, loss_state: Tree, batch: Any, key: Array
    ) -> tuple[Array, Outputs]:
        images, labels = batch
        prepare_key, encoder_key = jax.random.split(key)
        images = encoders.as_float(images)
        if prepare is not None:
            images, labels = prepare(prepare_key, images, labels)
        embeddings, model_state = apply(
            params["encoder"], model_state, images, train=True, key=encoder_key
        )
        if has_memory:
            terms, loss_state = loss(embeddings, params, labels, loss_state)
        else:
            terms = loss(embeddings, params, labels)
        active = numerics.divide(jnp.sum(terms.active), jnp.sum(terms.count))
        loss_state = jax.lax.stop_gradient(loss_state)
        outputs = Outputs(model_state, loss_state, {"active": active})
        return reduction(terms), outputs

    return loss_function
