"""A training step of a convolutional encoder with ArcFace, by Adam.

Both libraries start from the same weights. Compared before timing are the loss and the
embeddings of the first step, and the gradient of the first and of the last layer.
"""

import functools
from typing import Any

import numpy as np

from benchmarks.cases import Call, Case

CLASSES, DIM, RATE = 964, 64, 1e-3
MARGIN, SCALE = 0.5, 30.0
SHAPES = {
    "conv1": (3, 3, 1, 32),
    "conv2": (3, 3, 32, 64),
    "conv3": (3, 3, 64, 128),
    "conv4": (3, 3, 128, 128),
    "dense": (1152, 256),
    "embedding": (256, DIM),
}


def _weights() -> dict[str, np.ndarray]:
    """Kernels in the layout of JAX; and class weights."""
    rng = np.random.default_rng(0)
    shapes = {**SHAPES, "classes": (CLASSES, DIM)}
    return {
        name: (rng.normal(size=shape) * (2 / np.prod(shape[:-1])) ** 0.5).astype("f4")
        for name, shape in shapes.items()
    }


def _batch(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    images = rng.uniform(size=(batch, 28, 28, 1)).astype("f4")
    return images, rng.integers(CLASSES, size=batch).astype("i4")


def _jax(batch: int) -> Call:
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from metricjax import encoders, losses

    apply, encoder, model_state = encoders.functional(
        encoders.ConvNet(dim=DIM, rngs=nnx.Rngs(0))
    )
    weights = _weights()
    for name in SHAPES:
        encoder[name]["kernel"] = jnp.asarray(weights[name])
        encoder[name]["bias"] = jnp.zeros_like(encoder[name]["bias"])
    params = {"encoder": encoder, "classes": jnp.asarray(weights["classes"])}
    optimizer = optax.adam(RATE)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, images, labels):
        def loss(params):
            embeddings, _ = apply(params["encoder"], model_state, images, train=True)
            value = losses.arcface(
                embeddings, params["classes"], labels, margin=MARGIN, scale=SCALE
            )
            return value, embeddings

        (value, embeddings), slopes = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(slopes, state, params)
        ends = slopes["encoder"]["conv1"]["kernel"], slopes["classes"]
        return optax.apply_updates(params, updates), state, (value, embeddings, *ends)

    images, labels = map(jnp.asarray, _batch(batch))
    held: dict[str, Any] = {"params": params, "state": optimizer.init(params)}

    def call() -> tuple[Any, ...]:
        found = step(held["params"], held["state"], images, labels)
        held["params"], held["state"], results = jax.block_until_ready(found)
        return results

    return call


def _torch(batch: int) -> Call:
    import math

    import torch
    from torch.nn import functional

    from benchmarks.inputs import torch_device

    device = torch_device()
    kernels = {
        name: torch.tensor(w.transpose(3, 2, 0, 1) if w.ndim == 4 else w, device=device)
        for name, w in _weights().items()
    }
    # A convolution that reads its weights in the order of its input is the faster one.
    kernels = {name: w.contiguous().requires_grad_() for name, w in kernels.items()}
    biases = {
        name: torch.zeros(shape[-1], device=device, requires_grad=True)
        for name, shape in SHAPES.items()
    }
    optimizer = torch.optim.Adam([*kernels.values(), *biases.values()], lr=RATE)

    def embed(x):
        for name, stride, padding in (
            # "SAME" pads an even side by one, behind.
            ("conv1", 2, (0, 1, 0, 1)),
            ("conv2", 2, (0, 1, 0, 1)),
            ("conv3", 2, (0, 0, 0, 0)),
            ("conv4", 1, (1, 1, 1, 1)),
        ):
            x = functional.pad(x, padding)
            x = functional.conv2d(x, kernels[name], biases[name], stride=stride)
            x = functional.relu(x)
        x = x.permute(0, 2, 3, 1).reshape(batch, -1)
        x = functional.relu(x @ kernels["dense"] + biases["dense"])
        return x @ kernels["embedding"] + biases["embedding"]

    def arcface(x, w, y):
        cosine = functional.normalize(x) @ functional.normalize(w).T
        c = cosine.gather(1, y[:, None])
        sine = ((1 - c) * (1 + c)).clamp(min=1e-12).sqrt()
        moved = c * math.cos(MARGIN) - sine * math.sin(MARGIN)
        beyond = c - MARGIN * math.sin(MARGIN)
        moved = torch.where(c > -math.cos(MARGIN), moved, beyond)
        return functional.cross_entropy(SCALE * cosine.scatter(1, y[:, None], moved), y)

    images, labels = _batch(batch)
    images = torch.tensor(images.transpose(0, 3, 1, 2), device=device)
    target = torch.tensor(labels, device=device, dtype=torch.int64)

    def call() -> tuple[Any, ...]:
        optimizer.zero_grad(set_to_none=True)
        embeddings = embed(images)
        value = arcface(embeddings, kernels["classes"], target)
        value.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        gradients = {name: kernel.grad for name, kernel in kernels.items()}
        assert gradients["conv1"] is not None, "it was trained"
        first = gradients["conv1"].permute(2, 3, 1, 0)
        return value, embeddings, first, gradients["classes"]

    return call


def _flops(batch: int) -> float:
    """Of the products: one forwards, two backwards but for the slope of the images."""
    sides = {"conv1": 14, "conv2": 7, "conv3": 3, "conv4": 3}
    forward = {
        name: 2.0 * batch * np.prod(shape) * sides.get(name, 1) ** 2
        for name, shape in SHAPES.items()
    }
    head = 2.0 * batch * CLASSES * DIM
    return float(3 * (sum(forward.values()) + head) - forward["conv1"])


def case(batch: int) -> Case:
    """One training step at one size."""
    return Case(
        "encoder_step",
        batch,
        {
            "jax": functools.partial(_jax, batch),
            "torch": functools.partial(_torch, batch),
        },
        quick=True,
        gradient_tolerance=1e-3,
        flops=_flops(batch),
    )


CASES = [case(128)]
