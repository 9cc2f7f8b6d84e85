"""The Fisher metric of a decoder, and a training step with log det g: ours, and torch's rivals.

All rivals work in chunks of about 512 tangent rows (256 where Hessians or graphs are kept), where
each is fastest, on weights laid out beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

from benchmarks.floors import fisher_operations, fisher_traffic, training_operations
from benchmarks.networks import (
    Named,
    Shape,
    as_real,
    build_decoder,
    forward,
    hermitian_part,
    latent_points,
    real_layers,
    shape_of,
    weights_of,
)
from benchmarks.problem import Problem, Rival
from benchmarks.programs import compiled_programs
from benchmarks.timing import Run
from kahler_verify.geometry import FisherMetric
from kahler_verify.linear_algebra.products import complex_product, real_product

Route = Callable[[Named, Shape, Tensor], Tensor]  # weights, shape, points to the metric [b, d, d]


# ------------------------------------------------------------------------------ metrics of a chunk
def hessian_metric(
    weights: Named, shape: Shape, x: Tensor, second: Callable[..., Any] = hessian
) -> Tensor:
    """The Hessian of KL(p_x₀ ‖ p_x) at x = x₀."""
    layers = real_layers(weights)
    constant = weights.get("constant_log_variance")
    outputs = shape.outputs

    def divergence(x: Tensor, at: Tensor) -> Tensor:
        out = forward(layers, shape, x)
        step = out[: 2 * outputs] - at[: 2 * outputs]
        square = step[:outputs] ** 2 + step[outputs:] ** 2
        phi, phi_0 = (
            (out[2 * outputs :], at[2 * outputs :]) if constant is None else (constant, constant)
        )
        spread = phi - phi_0 + (phi_0 - phi).exp()
        return (square * (-phi).exp()).sum() + shape.multiplicity * spread.sum()

    return hermitian_part(vmap(second(divergence))(x, forward(layers, shape, x)))


def reverse_over_reverse(function: Callable[..., Any]) -> Callable[..., Any]:
    """The Hessian, by reverse mode twice."""
    return jacrev(jacrev(function))


def jacobian_metric(weights: Named, shape: Shape, x: Tensor) -> Tensor:
    """JᵀFJ with the real Jacobian of (Re μ, Im μ, φ) by vmap(jacfwd), and F the Fisher matrix."""
    layers = real_layers(weights)

    def outputs(x: Tensor) -> tuple[Tensor, Tensor]:
        out = forward(layers, shape, x)
        return out, out

    jacobian, out = vmap(jacfwd(outputs, has_aux=True))(x)
    return _contract_columns(weights, shape, jacobian, out)


def tangent_metric(weights: Named, shape: Shape, x: Tensor) -> Tensor:
    """The same by one forward-mode pass for each real direction: the form that torch.compile takes.

    (It fails on vmap(jacfwd), and leaves forward mode broken for the rest of the process.)
    """
    outputs = partial(forward, real_layers(weights), shape)
    basis = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    jacobian = vmap(lambda v: jvp(outputs, (x,), (v.expand_as(x),))[1], out_dims=-1)(basis)
    return _contract_columns(weights, shape, jacobian, outputs(x))


def _contract_columns(weights: Named, shape: Shape, jacobian: Tensor, out: Tensor) -> Tensor:
    count = shape.outputs
    phi = weights.get("constant_log_variance", out[:, 2 * count :])
    scale = (-phi / 2).exp().expand(len(out), count).unsqueeze(-1) * math.sqrt(2)
    parts = [jacobian[:, :count] * scale, jacobian[:, count : 2 * count] * scale]
    if shape.sigma != "constant":
        parts.append(jacobian[:, 2 * count :] * math.sqrt(shape.multiplicity))
    rows = torch.cat(parts, 1)
    return hermitian_part(rows.mT @ rows)


def complex_layers(weights: Named) -> list[tuple[Tensor, Tensor]]:
    """Complex matrices and biases: two hidden layers, the mean's, and the log variance's if any."""
    names = ["layers.0", "layers.2", "mean_head", "log_variance_head"]
    return [
        (
            torch.view_as_complex(weights[f"{n}.weight_pairs"]),
            torch.view_as_complex(weights[f"{n}.bias_pairs"]),
        )
        for n in names
        if f"{n}.weight_pairs" in weights
    ]


def complex_jvp_metric(weights: Named, shape: Shape, x: Tensor) -> Tensor:
    """Holomorphic only: d complex tangents by forward mode."""
    (w0, b0), (w1, b1), *heads = complex_layers(weights)
    z = torch.complex(*x.chunk(2, -1))

    def outputs(z: Tensor) -> tuple[Tensor, ...]:
        for w, b in ((w0, b0), (w1, b1)):
            u = torch.nn.functional.linear(z, w, b)
            z = u + u * u * u / 6
        return tuple(torch.nn.functional.linear(z, w, b) for w, b in heads)

    basis = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    out = outputs(z)
    tangents = vmap(lambda v: jvp(outputs, (z,), (v.expand_as(z),))[1], out_dims=1)(basis)
    return _contract_rows(weights, shape, tangents, out)


def _contract_rows(
    weights: Named, shape: Shape, tangents: tuple[Tensor, ...], out: tuple[Tensor, ...]
) -> Tensor:
    phi = out[1].real if len(out) > 1 else weights["constant_log_variance"].expand(out[0].shape)
    rows = tangents[0] * (-phi / 2).exp().unsqueeze(1)
    if len(out) > 1:
        rows = torch.cat([rows, tangents[1] * (math.sqrt(shape.multiplicity) / 2)], -1)
    return rows @ rows.mH


def matmul_product(rows: Tensor, weight: Tensor) -> Tensor:
    """X Wᵀ as anyone writes it."""
    return rows @ weight.mT


def package_product(rows: Tensor, weight: Tensor) -> Tensor:
    """X Wᵀ by the package's choice of library."""
    product = complex_product if rows.is_complex() else real_product
    return product(rows.flatten(0, -2), weight).unflatten(0, rows.shape[:-1])


def layerwise_metric(
    weights: Named,
    shape: Shape,
    x: Tensor,
    product: Callable[[Tensor, Tensor], Tensor] = matmul_product,
) -> Tensor:
    """Jacobians multiplied layer by layer (as stochman does), tangents as rows, then contracted.

    Complex tangents where the decoder is holomorphic, 2d real ones elsewhere.
    """
    if not shape.holomorphic:
        layers = real_layers(weights)
        *hidden, (matrix, bias) = layers
        rows = None
        for w, b in hidden:
            x = torch.tanh(torch.nn.functional.linear(x, w, b))
            rows = (w.T if rows is None else product(rows, w)) * (1 - x * x).unsqueeze(1)
        assert rows is not None
        out = torch.nn.functional.linear(x, matrix, bias)
        return _contract_columns(weights, shape, product(rows, matrix).mT, out)
    hidden_complex, heads = complex_layers(weights)[:2], complex_layers(weights)[2:]
    z = torch.complex(*x.chunk(2, -1))
    rows = None
    for w, b in hidden_complex:
        u = torch.nn.functional.linear(z, w, b)
        square = u * u
        z = u + u * square / 6
        rows = (w.T if rows is None else product(rows, w)) * (1 + square / 2).unsqueeze(1)
    assert rows is not None
    outs = tuple(torch.nn.functional.linear(z, w, b) for w, b in heads)
    return _contract_rows(weights, shape, tuple(product(rows, w) for w, _ in heads), outs)


# ------------------------------------------------------------------------------ whole batches
def chunks_of(points: Tensor, d: int, rows: int) -> tuple[Tensor, ...]:
    """Chunks of so many tangent rows each: of 64 times as many on a GPU, which needs more work."""
    return points.split(max(4, rows * (64 if points.is_cuda else 1) // d))


def _in_chunks(
    route: Route,
    weights: Named,
    shape: Shape,
    x: Tensor,
    rows: int,
    wrap: Callable[..., Any] = lambda route: route,
) -> Run:
    chunks = chunks_of(x, x.shape[-1] // 2, rows)
    metric = wrap(route)

    def run() -> list[Tensor]:
        with torch.no_grad():
            return [metric(weights, shape, chunk) for chunk in chunks]

    return run


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compile`` for the very shapes it is called with."""
    return torch.compile(function, dynamic=False)


ROUTES: dict[str, tuple[Route, int]] = {
    "KL Hessian, vmap(hessian)": (hessian_metric, 512),
    "KL Hessian, reverse over reverse": (
        partial(hessian_metric, second=reverse_over_reverse),
        512,
    ),
    "Jacobian, vmap(jacfwd)": (jacobian_metric, 512),
    "Jacobian, vmap(jvp)": (tangent_metric, 512),
    "layer-wise Jacobians": (layerwise_metric, 512),
    # what of a ratio is owed to the library that multiplies
    "layer-wise Jacobians, the package's product": (
        partial(layerwise_metric, product=package_product),
        512,
    ),
}
COMPILED = ("KL Hessian, reverse over reverse", "Jacobian, vmap(jvp)")


def fisher_problem(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Problem:
    """The metric at B points; sizes as in ``build_decoder``, and B."""
    decoder = build_decoder(sizes, dtype, device).requires_grad_(False)
    z = latent_points(sizes, dtype, device)
    shape, weights, x = shape_of(sizes), weights_of(decoder), as_real(z)
    metric = FisherMetric(decoder, check=False, validate_args=False)

    def ours() -> Tensor:
        with torch.no_grad():
            return metric.metric_matrix(z)

    rivals = {
        name: Rival(partial(_in_chunks, route, weights, shape, x, rows))
        for name, (route, rows) in ROUTES.items()
    }
    if shape.holomorphic:
        rivals["complex jvp"] = Rival(
            partial(_in_chunks, complex_jvp_metric, weights, shape, x, 512)
        )
    for name in COMPILED:
        route, rows = ROUTES[name]
        rivals[f"{name}, torch.compile"] = Rival(
            partial(_in_chunks, route, weights, shape, x, rows, wrap=compiled), compiled=True
        )
    if sizes["B"] == 1:
        layerwise = partial(layerwise_metric, weights, shape)
        rivals |= compiled_programs(decoder, z, layerwise, x)
    if device.type == "cpu":
        from benchmarks import jax_rivals

        rivals |= jax_rivals.fisher(weights, shape, z)
    operations = sizes["B"] * fisher_operations(sizes)
    return Problem(sizes["B"], ours, rivals, operations, fisher_traffic(sizes, dtype))


# ------------------------------------------------------------------------------ training
def log_det(g: Tensor) -> Tensor:
    """log det of Hermitian matrices, by Cholesky."""
    factor, _ = torch.linalg.cholesky_ex(g)
    return 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)


class AnalyticLogDet(torch.autograd.Function):
    """log det with the gradient g⁻¹, which saves the backward pass through Cholesky."""

    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        """The value [...]."""
        factor, _ = torch.linalg.cholesky_ex(g)
        ctx.save_for_backward(factor)
        return 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        """The cotangent of g."""
        (factor,) = ctx.saved_tensors
        return cotangent[..., None, None] * torch.cholesky_inverse(factor)


def _training_run(
    route: Route,
    weights: Named,
    shape: Shape,
    x: Tensor,
    rows: int,
    log_det: Callable[[Tensor], Tensor] = log_det,
    wrap: Callable[..., Any] = lambda loss: loss,
) -> Run:
    """The gradient of the mean of log det g with respect to all weights, chunk by chunk."""
    chunks = chunks_of(x, x.shape[-1] // 2, rows)
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}

    def loss(leaves: Named, chunk: Tensor) -> Tensor:
        return log_det(route(leaves, shape, chunk)).sum() / len(x)

    step = wrap(loss)

    def run() -> list[Tensor]:
        for leaf in leaves.values():
            leaf.grad = None
        for chunk in chunks:
            step(leaves, chunk).backward()
        return [_gradient(leaf) for leaf in leaves.values()]

    return run


def _gradient(leaf: Tensor) -> Tensor:
    """A weight's gradient: zero, not None, where it has no effect (the biases of the heads)."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def training_problem(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Problem:
    """The gradient of E[log det g] in the decoder's weights."""
    decoder = build_decoder(sizes, dtype, device)
    z = latent_points(sizes, dtype, device)
    shape, weights, x = shape_of(sizes), weights_of(decoder), as_real(z)
    metric = FisherMetric(decoder, check=False, validate_args=False)
    chunks = chunks_of(z, z.shape[-1], 2048)  # a larger share of a call's fixed cost than rivals'
    parameters = list(decoder.parameters())

    def ours() -> list[Tensor]:
        decoder.zero_grad(set_to_none=True)
        for chunk in chunks:
            (metric.log_det_hermitian(chunk).sum() / len(z)).backward()
        return [_gradient(p) for p in parameters]

    reverse = ROUTES["KL Hessian, reverse over reverse"][0]
    plain: dict[str, tuple[Route, int]] = {
        "KL Hessian, vmap(hessian)": (hessian_metric, 256),
        "KL Hessian, reverse over reverse": (reverse, 256),
        "Jacobian, vmap(jacfwd)": (jacobian_metric, 256),
        "autograd through layer-wise Jacobians": (layerwise_metric, 512),
        "the same, the package's product": (
            partial(layerwise_metric, product=package_product),
            512,
        ),
    }
    rivals = {
        name: Rival(partial(_training_run, route, weights, shape, x, rows))
        for name, (route, rows) in plain.items()
    }
    rivals["autograd through layer-wise Jacobians, analytic log det gradient"] = Rival(
        partial(
            _training_run, layerwise_metric, weights, shape, x, 512, log_det=AnalyticLogDet.apply
        )
    )
    for name in ("KL Hessian, reverse over reverse", "autograd through layer-wise Jacobians"):
        route, rows = plain[name]
        rivals[f"{name}, torch.compile"] = Rival(
            partial(_training_run, route, weights, shape, x, rows, wrap=compiled), compiled=True
        )
    if device.type == "cpu":
        from benchmarks import jax_rivals

        rivals |= jax_rivals.training(weights, shape, z)
    operations = sizes["B"] * training_operations(sizes)
    return Problem(sizes["B"], ours, rivals, operations)
