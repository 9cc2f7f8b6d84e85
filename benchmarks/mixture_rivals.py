"""Metrics and Ricci tensors of mixture potentials: ours, and torch's rivals.

Rivals evaluate all quadratic forms by one flat real matrix product, [2Kd, 2d]: the natural einsum
is thousands of times slower under vmap, and would be a strawman.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, vmap

from benchmarks.floors import mixture_operations
from benchmarks.networks import as_real, hermitian_part, latent_points
from benchmarks.problem import Problem, Rival
from benchmarks.timing import Run, warm_up
from kahler_verify.geometry import MixtureMetric

CHUNK_BYTES = 32e6  # of a rival's largest intermediate result; about where each is fastest
CHUNKS = (
    16,
    64,
    256,
    1024,
    4096,
)  # points, of which those that keep up with ours are given the best
LARGEST_BYTES = 6e8  # of an intermediate result among these


class Mixture(NamedTuple):
    """π [K], c [K, d] and P [K, d, d]."""

    weights: Tensor
    centres: Tensor
    precisions: Tensor


def build_mixture(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Mixture:
    """K overlapping components: many of them carry weight at a typical point."""
    d, count = sizes["d"], sizes["K"]
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        pairs = torch.randn(*shape, 2, generator=generator, dtype=torch.float64)
        return torch.view_as_complex(pairs) / 2**0.5

    weights = torch.softmax(torch.randn(count, generator=generator, dtype=torch.float64), 0)
    root = draw(count, d, d)
    precisions = (root @ root.mH / d + torch.eye(d, dtype=torch.complex128)) / d
    complex_dtype = dtype.to_complex()
    return Mixture(
        weights.to(device, dtype),
        draw(count, d).to(device, complex_dtype),
        precisions.to(device, complex_dtype),
    )


def flat_parameters(mixture: Mixture) -> tuple[Tensor, ...]:
    """Real [2Kd, 2d] matrix, its shift -P c, centres [K, 2d], log weights [K]."""
    p = mixture.precisions
    blocks = torch.cat([torch.cat([p.real, -p.imag], -1), torch.cat([p.imag, p.real], -1)], -2)
    centres = as_real(mixture.centres)
    shift = -(blocks @ centres.unsqueeze(-1)).flatten()
    return blocks.flatten(0, 1).contiguous(), shift, centres, mixture.weights.log()


def _logits(parameters: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, Tensor]:
    matrix, shift, centres, log_weights = parameters
    v = torch.nn.functional.linear(x, matrix, shift).view(centres.shape)
    return v, (v * (x - centres)).sum(-1) + log_weights


def potential(parameters: tuple[Tensor, ...], x: Tensor) -> Tensor:
    """Φ at one point x [2d]."""
    return torch.logsumexp(_logits(parameters, x)[1], 0)


def gradient(parameters: tuple[Tensor, ...], x: Tensor) -> Tensor:
    """Its real gradient, by hand."""
    v, q = _logits(parameters, x)
    return 2 * (torch.softmax(q, 0) @ v)


def closed_form(mixture: Mixture, z: Tensor) -> Tensor:
    """Σ w_k P_k + the covariance of P_k(z - c_k), by einsum, as one would write it: z [b, d]."""
    offset = z.unsqueeze(1) - mixture.centres
    v = torch.einsum("kij,bkj->bki", mixture.precisions, offset)
    q = torch.einsum("bki,bki->bk", offset.conj(), v).real + mixture.weights.log()
    w = torch.softmax(q, -1)
    centred = v.conj() - torch.einsum("bk,bki->bi", w.to(v.dtype), v.conj()).unsqueeze(1)
    within = torch.einsum("bk,kij->bji", w.to(v.dtype), mixture.precisions)
    weighted = w.unsqueeze(-1) * centred
    return within + torch.einsum("bka,bkc->bac", weighted, centred.conj())


def _in_chunks(function: Callable[[Tensor], Tensor], points: Tensor, size: int) -> Run:
    chunks = points.split(size)

    def run() -> list[Tensor]:
        with torch.no_grad():
            return [function(chunk) for chunk in chunks]

    return run


def _size(x: Tensor, numbers: int) -> int:
    """Points per chunk where each point needs so many numbers; larger chunks on a GPU."""
    room = CHUNK_BYTES * (64 if x.is_cuda else 1)
    return max(1, min(len(x), int(room / (numbers * x.element_size()))))


def _tuned(build: Callable[[int], Run], x: Tensor, numbers: int) -> Rival:
    """The rival with that number of points per chunk which is fastest here."""
    fits = [c for c in CHUNKS if c * numbers * x.element_size() < LARGEST_BYTES] or [CHUNKS[0]]
    sizes = sorted({min(c, len(x)) for c in fits} | {_size(x, numbers)})

    def best() -> Run:
        runs = [build(size) for size in sizes]
        return min(runs, key=lambda run: warm_up(run, x.device)[1])

    return Rival(best)


def mixture_problem(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Problem:
    """∂∂̄ log Σ π_k exp q_k at B points; sizes: d, K, B."""
    mixture = build_mixture(sizes, dtype, device)
    z = latent_points(sizes, dtype, device)
    x, parameters = as_real(z), flat_parameters(mixture)
    metric = MixtureMetric(*mixture, validate_args=False)

    def ours() -> Tensor:
        with torch.no_grad():
            return metric.metric_matrix(z)

    d, count = sizes["d"], sizes["K"]
    wide = _size(x, count * 4 * d * d)  # Hessians keep 2d tangents of K 2d numbers
    narrow = _size(x, count * 4 * d)
    value, slope = partial(potential, parameters), partial(gradient, parameters)
    seconds: dict[str, Callable[[Tensor], Tensor]] = {
        "Hessian, vmap(hessian)": hessian(value),
        "Hessian, reverse over reverse": jacrev(jacrev(value)),
        "jacfwd of the hand-written gradient": jacfwd(slope),
    }
    maps = {
        name: (lambda chunk, second=second: hermitian_part(vmap(second)(chunk)))
        for name, second in seconds.items()
    }
    rivals = {name: Rival(partial(_in_chunks, f, x, wide)) for name, f in maps.items()}
    by_hand = "jacfwd of the hand-written gradient"
    rivals[by_hand] = _tuned(partial(_in_chunks, maps[by_hand], x), x, count * 4 * d * d)
    rivals["closed form, einsum"] = Rival(
        partial(_in_chunks, partial(closed_form, mixture), z, narrow)
    )
    name = "Hessian, reverse over reverse"
    if d <= 8:  # beyond, compilation alone takes minutes
        rivals[f"{name}, torch.compile"] = Rival(
            lambda: _in_chunks(torch.compile(maps[name], dynamic=False), x, wide), compiled=True
        )
    if device.type == "cpu":
        from benchmarks import jax_rivals

        jax = jax_rivals.mixture(parameters, x, (wide, wide))
        if jax:
            jax[f"{by_hand}, JAX jit"] = _tuned(
                lambda size: jax_rivals.mixture(parameters, x, (wide, size))[
                    f"{by_hand}, JAX jit"
                ].build(),
                x,
                count * 4 * d * d,
            )
        rivals |= jax
    return Problem(sizes["B"], ours, rivals, sizes["B"] * mixture_operations(sizes))


def ricci_problem(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Problem:
    """The Ricci tensor -∂∂̄ log det g at B points, by nested differentiation and by ours."""
    mixture = build_mixture(sizes, dtype, device)
    z = latent_points(sizes, dtype, device)
    x, parameters = as_real(z), flat_parameters(mixture)
    metric = MixtureMetric(*mixture, validate_args=False)
    d, count = sizes["d"], sizes["K"]

    def ours() -> Tensor:
        with torch.no_grad():
            return metric.ricci_tensor(z)

    def log_det(second: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        g = hermitian_part(second(x))
        real = torch.cat([torch.cat([g.real, -g.imag], 1), torch.cat([g.imag, g.real], 1)])
        return torch.linalg.cholesky(real).diagonal().log().sum()

    def ricci(second: Callable[[Tensor], Tensor], chunk: Tensor) -> Tensor:
        return -hermitian_part(vmap(hessian(partial(log_det, second)))(chunk))

    metrics: dict[str, Callable[[Tensor], Tensor]] = {
        "nested Hessians": hessian(partial(potential, parameters)),
        "Hessian of log det of jacfwd of the gradient": jacfwd(partial(gradient, parameters)),
    }
    size = _size(x, count * (2 * d) ** 4)
    rivals = {
        name: Rival(partial(_in_chunks, partial(ricci, second), x, size))
        for name, second in metrics.items()
    }
    if device.type == "cpu":
        from benchmarks import jax_rivals

        rivals |= jax_rivals.mixture_ricci(parameters, x, size)
    return Problem(sizes["B"], ours, rivals, 0.0)
