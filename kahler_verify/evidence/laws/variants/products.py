"""What needs no matrix at real latents, against the kernels that make it.

Products with vectors, and geodesics' accelerations, of every layout and family: values, and their
derivatives by points and by weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Gamma, MultivariateNormal, NegativeBinomial

from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.laws.variants.compared import (
    TOLERANCE,
    beside,
    condition,
    gradients,
    numbers,
    relative,
)
from kahler_verify.geometry.fisher_rao import FisherRaoMetric

OUTPUTS = 24


def _full(x: Tensor) -> MultivariateNormal:
    mean, rest = x[:, :4], x[:, 4:16].unflatten(-1, (4, 3))
    return MultivariateNormal(mean, torch.eye(4, dtype=x.dtype) + 0.1 * rest @ rest.mT)


FAMILIES: dict[str, Callable[[Tensor], Any]] = {
    "unit variance": lambda x: x,
    "scalar Σ": lambda x: (x, 0.3 * x[:, 0]),
    "diagonal Σ": lambda x: (x, 0.3 * x),
    "full Σ": _full,
    "Bernoulli": lambda x: Bernoulli(logits=x),
    "categorical": lambda x: Categorical(logits=x.unflatten(-1, (6, 4))),
    "gamma": lambda x: Gamma(x.exp(), (-x).exp()),
    "negative binomial": lambda x: NegativeBinomial(3.0, logits=x),
}


def products() -> Iterator[Finding]:
    """Every family, where vectors go through the decoder by themselves."""
    for d in (8, 10):
        for name, law in FAMILIES.items():
            yield from _compared(f"{name}, d = {d}", law, d)


def _decoder(d: int) -> nn.Module:
    first, second = nn.Linear(d, 16).double(), nn.Linear(16, OUTPUTS).double()
    with torch.no_grad():
        for seed, layer in enumerate((first, second)):
            layer.weight.copy_(0.4 * numbers(*layer.weight.shape, seed=seed).real)
            layer.bias.copy_(0.4 * numbers(*layer.bias.shape, seed=seed + 2).real)
    return nn.Sequential(first, nn.Tanh(), second)


def _compared(name: str, law: Callable[[Tensor], Any], d: int) -> Iterator[Finding]:
    decoder = _decoder(d)
    metric = FisherRaoMetric(lambda z: law(decoder(z)))
    z, u = (0.5 * numbers(3, d, seed=seed).real for seed in (6, 7))
    jet = metric.jet(z, 1)
    assert jet.d is not None
    g = jet.g.detach()
    bound = TOLERANCE * condition(g)

    def product(z: Tensor) -> Tensor:
        return (metric.jet(z, 0).g @ u[..., None])[..., 0]

    yield beside(f"{name}: product", relative(metric.metric_vector_product(u, z), product(z)))
    with torch.no_grad():
        alone = metric.metric_vector_product(u, z)
    yield beside(f"{name}: product without a graph", relative(alone, product(z)))
    free, dense = metric.operator(z[0], method="matrix-free"), metric.operator(z[0], method="dense")
    yield beside(f"{name}: operator", relative(free.product(u), u @ g[0]))
    yield beside(f"{name}: operator's matrix", relative(dense.matrix(), g[0]))
    leaves = [z.clone().requires_grad_(), *decoder.parameters()]
    found = gradients(metric.metric_vector_product(u, leaves[0]), leaves)
    true = gradients(product(leaves[0]), leaves)
    for n, (x, y) in enumerate(zip(found, true, strict=True)):
        if n < 2:
            yield beside(f"{name}: ∂ product by {'weights' if n else 'z'}", relative(x, y))
    slope = torch.einsum("bcad,bc,bd->ba", jet.d, u, u)
    slope = slope - torch.einsum("bcad,ba,bd->bc", jet.d, u, u) / 2
    truth = -torch.linalg.solve(jet.g, slope)
    yield beside(
        f"{name}: acceleration", relative(metric.geodesic_acceleration(z, u), truth), bound
    )
