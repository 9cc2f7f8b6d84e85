"""JAX's rivals, jit-compiled, on one thread; none where JAX is not installed.

Points and weights lie on JAX's side before the clock starts; a run waits for its last result.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import lru_cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks.networks import Named, Shape, as_real
from benchmarks.problem import Rival
from benchmarks.timing import Run


@lru_cache
def load() -> ModuleType | None:
    """JAX in double precision on the CPU, with as many threads as torch, or None."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if torch.get_num_threads() == 1:
        os.environ.setdefault(
            "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        )
    try:
        import jax
    except ModuleNotFoundError:
        return None
    jax.config.update("jax_enable_x64", True)
    return jax


def _array(x: Tensor) -> Any:
    import jax.numpy as jnp

    return jnp.asarray(x.detach().cpu().numpy())


def _chunked(function: Callable[..., Any], points: Tensor, size: int, *before: Any) -> Run:
    import jax

    chunks = [_array(chunk) for chunk in points.split(size)]
    run_chunk = jax.jit(function)

    def run() -> list[Any]:
        return [jax.block_until_ready(run_chunk(*before, chunk)) for chunk in chunks]

    return run


def hermitian_part(hessian: Any) -> Any:
    """∂_a∂_b̄ f from the real Hessian."""
    d = hessian.shape[-1] // 2
    diagonal = hessian[..., :d, :d] + hessian[..., d:, d:]
    return diagonal / 4 + 1j * (hessian[..., :d, d:] - hessian[..., d:, :d]) / 4


# ------------------------------------------------------------------------------ decoders
def _block(weight: Any, bias: Any) -> tuple[Any, Any]:
    import jax.numpy as jnp

    re, im = weight[..., 0], weight[..., 1]
    matrix = jnp.concatenate([jnp.concatenate([re, -im], 1), jnp.concatenate([im, re], 1)])
    return matrix, jnp.concatenate([bias[:, 0], bias[:, 1]])


def _real_layers(weights: dict[str, Any]) -> list[tuple[Any, Any]]:
    import jax.numpy as jnp

    layers = [
        _block(weights[f"{n}.weight_pairs"], weights[f"{n}.bias_pairs"])
        for n in ("layers.0", "layers.2", "mean_head")
    ]
    if "log_variance_head.weight_pairs" in weights:
        rows, shift = _block(
            weights["log_variance_head.weight_pairs"], weights["log_variance_head.bias_pairs"]
        )
        count = rows.shape[0] // 2
        matrix, bias = layers[-1]
        layers[-1] = (
            jnp.concatenate([matrix, rows[:count]]),
            jnp.concatenate([bias, shift[:count]]),
        )
    return layers


def _forward(layers: list[tuple[Any, Any]], shape: Shape, x: Any) -> Any:
    import jax.numpy as jnp

    *hidden, (matrix, bias) = layers
    for w, b in hidden:
        x = x @ w.T + b
        if shape.holomorphic:
            p, q = jnp.split(x, 2, -1)
            pp, qq = p * p, q * q
            x = jnp.concatenate([p + p * (pp - 3 * qq) / 6, q + q * (3 * pp - qq) / 6], -1)
        else:
            x = jnp.tanh(x)
    return x @ matrix.T + bias


def _hessian_metric(shape: Shape, weights: dict[str, Any], x: Any) -> Any:
    import jax
    import jax.numpy as jnp

    layers, count = _real_layers(weights), shape.outputs
    constant = weights.get("constant_log_variance")

    def divergence(x: Any, at: Any) -> Any:
        out = _forward(layers, shape, x)
        step = out[: 2 * count] - at[: 2 * count]
        square = step[:count] ** 2 + step[count:] ** 2
        phi, phi_0 = (
            (out[2 * count :], at[2 * count :]) if constant is None else (constant, constant)
        )
        spread = phi - phi_0 + jnp.exp(phi_0 - phi)
        return (square * jnp.exp(-phi)).sum() + shape.multiplicity * spread.sum()

    return hermitian_part(jax.vmap(jax.hessian(divergence))(x, _forward(layers, shape, x)))


def _jacobian_metric(shape: Shape, weights: dict[str, Any], x: Any) -> Any:
    import jax
    import jax.numpy as jnp

    layers, count = _real_layers(weights), shape.outputs

    def outputs(x: Any) -> tuple[Any, Any]:
        out = _forward(layers, shape, x)
        return out, out

    jacobian, out = jax.vmap(jax.jacfwd(outputs, has_aux=True))(x)
    phi = weights.get("constant_log_variance", out[:, 2 * count :])
    scale = math.sqrt(2) * jnp.broadcast_to(jnp.exp(-phi / 2), (len(out), count))[..., None]
    parts = [jacobian[:, :count] * scale, jacobian[:, count : 2 * count] * scale]
    if shape.sigma != "constant":
        parts.append(jacobian[:, 2 * count :] * math.sqrt(shape.multiplicity))
    rows = jnp.concatenate(parts, 1)
    return hermitian_part(jnp.einsum("bia,bic->bac", rows, rows))


def _tangent_metric(shape: Shape, weights: dict[str, Any], z: Any) -> Any:
    import jax
    import jax.numpy as jnp

    names = ["layers.0", "layers.2", "mean_head", "log_variance_head"]
    (w0, b0), (w1, b1), *heads = [
        tuple(
            weights[f"{n}.{part}"][..., 0] + 1j * weights[f"{n}.{part}"][..., 1]
            for part in ("weight_pairs", "bias_pairs")
        )
        for n in names
        if f"{n}.weight_pairs" in weights
    ]

    def outputs(z: Any) -> tuple[Any, Any]:
        for w, b in ((w0, b0), (w1, b1)):
            u = z @ w.T + b
            z = u + u * u * u / 6
        out = tuple(z @ w.T + b for w, b in heads)
        return out, out

    jacobian, out = jax.vmap(jax.jacfwd(outputs, has_aux=True, holomorphic=True))(z)
    phi = out[1].real if len(out) > 1 else weights["constant_log_variance"]
    scale = jnp.broadcast_to(jnp.exp(-phi / 2), out[0].shape)[..., None]
    rows = jacobian[0] * scale
    if len(out) > 1:
        rows = jnp.concatenate([rows, jacobian[1] * (math.sqrt(shape.multiplicity) / 2)], 1)
    return jnp.einsum("bia,bic->bac", rows, rows.conj())


def fisher(weights: Named, shape: Shape, z: Tensor) -> dict[str, Rival]:
    """Rivals for the metric at points z [B, d]."""
    if load() is None:
        return {}
    size = min(len(z), max(4, 512 // z.shape[-1]))
    arrays = {name: _array(weight) for name, weight in weights.items()}

    def rival(metric: Callable[..., Any], points: Tensor) -> Rival:
        return Rival(lambda: _chunked(partial(metric, shape), points, size, arrays))

    rivals = {
        "KL Hessian, JAX jit": rival(_hessian_metric, as_real(z)),
        "Jacobian, JAX jit": rival(_jacobian_metric, as_real(z)),
    }
    if shape.holomorphic:
        rivals["complex tangents, JAX jit"] = rival(_tangent_metric, z)
    return rivals


def training(weights: Named, shape: Shape, z: Tensor) -> dict[str, Rival]:
    """Rivals for the gradient of E[log det g] in the weights."""
    jax = load()
    if jax is None:
        return {}
    import jax.numpy as jnp

    size = min(len(z), max(4, 256 // z.shape[-1]))
    arrays = {name: _array(weight) for name, weight in weights.items()}
    chunks = [_array(chunk) for chunk in as_real(z).split(size)]

    def rival(metric: Callable[..., Any]) -> Rival:
        def loss(arrays: dict[str, Any], x: Any) -> Any:
            factor = jnp.linalg.cholesky(metric(shape, arrays, x))
            diagonal = jnp.diagonal(factor, axis1=-2, axis2=-1).real
            return 2 * jnp.log(diagonal).sum() / len(z)

        def build() -> Run:
            step = jax.jit(jax.grad(loss))

            def run() -> list[Any]:
                total = step(arrays, chunks[0])
                for chunk in chunks[1:]:
                    total = jax.tree.map(jnp.add, total, step(arrays, chunk))
                return [jax.block_until_ready(total[name]) for name in arrays]

            return run

        return Rival(build)

    return {
        "KL Hessian, JAX jit": rival(_hessian_metric),
        "Jacobian, JAX jit": rival(_jacobian_metric),
    }


# ------------------------------------------------------------------------------ mixtures
def _mixture(parameters: tuple[Any, ...]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    import jax

    matrix, shift, centres, log_weights = parameters

    def logits(x: Any) -> tuple[Any, Any]:
        v = (matrix @ x + shift).reshape(centres.shape)
        return v, (v * (x - centres)).sum(-1) + log_weights

    def potential(x: Any) -> Any:
        return jax.nn.logsumexp(logits(x)[1])

    def gradient(x: Any) -> Any:
        v, q = logits(x)
        return 2 * (jax.nn.softmax(q) @ v)

    return potential, jax.jacfwd(gradient)


def mixture(parameters: tuple[Tensor, ...], x: Tensor, sizes: tuple[int, int]) -> dict[str, Rival]:
    """Rivals for the metric; ``sizes``: points per chunk of the Hessian, and of the Jacobian."""
    jax = load()
    if jax is None:
        return {}
    potential, hessian = _mixture(tuple(_array(p) for p in parameters))

    def rival(second: Callable[[Any], Any], size: int) -> Rival:
        return Rival(lambda: _chunked(lambda c: hermitian_part(jax.vmap(second)(c)), x, size))

    return {
        "Hessian, JAX jit": rival(jax.hessian(potential), sizes[0]),
        "jacfwd of the hand-written gradient, JAX jit": rival(hessian, sizes[1]),
    }


def mixture_ricci(parameters: tuple[Tensor, ...], x: Tensor, size: int) -> dict[str, Rival]:
    """Rivals for the Ricci tensor -∂∂̄ log det g."""
    jax = load()
    if jax is None:
        return {}
    import jax.numpy as jnp

    potential, hand_written = _mixture(tuple(_array(p) for p in parameters))

    def rival(second: Callable[[Any], Any]) -> Rival:
        def log_det(x: Any) -> Any:
            g = hermitian_part(second(x))
            real = jnp.concatenate(
                [
                    jnp.concatenate([g.real, -g.imag], 1),
                    jnp.concatenate([g.imag, g.real], 1),
                ]
            )
            return jnp.log(jnp.diagonal(jnp.linalg.cholesky(real))).sum()

        return Rival(
            lambda: _chunked(lambda c: -hermitian_part(jax.vmap(jax.hessian(log_det))(c)), x, size)
        )

    return {
        "nested Hessians, JAX jit": rival(jax.hessian(potential)),
        "Hessian of log det of jacfwd of the gradient, JAX jit": rival(hand_written),
    }
