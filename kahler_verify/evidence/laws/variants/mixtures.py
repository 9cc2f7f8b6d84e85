"""Layouts, products and blocks of mixtures against the kernels on plain tensors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.laws.variants.compared import (
    TOLERANCE,
    C,
    PlainMetric,
    R,
    beside,
    condition,
    framed,
    gradients,
    numbers,
    relative,
)
from kahler_verify.geometry.mixture import MixtureMetric
from kahler_verify.running.kernel_set import KernelSet


def mixture_metric(count: int, d: int, kind: str, diagonal: bool, budget: int) -> MixtureMetric:
    """Near centres, so that a density's metric is positive; the leaves are recorded."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(count, dtype=R, generator=generator) + 0.1
    root = numbers(count, d, d, seed=2) / (2 * d) ** 0.5
    precisions = root @ root.mH + 0.5 * torch.eye(d)
    if diagonal:
        precisions = precisions.diagonal(dim1=-2, dim2=-1).real.contiguous()
    return MixtureMetric(
        (weights / weights.sum()),
        0.3 * numbers(count, d, seed=3),
        precisions,
        kind=kind,  # type: ignore[arg-type]
        memory_budget=budget,
        validate_args=False,
    )


def _plain_jets(metric: MixtureMetric, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and jets of all components at z [b, d], by the kernels of ``quadratic_form``."""
    form, p = KernelSet("quadratic_form"), metric.precisions
    full = p if p.is_complex() else torch.diag_embed(p).to(C)
    inputs = {"z": z.unsqueeze(-2), "centre": metric.centres, "precision": full}
    value = form.call("value", inputs).real
    logits = metric.weights.log() + value
    if metric.kind == "density":
        logits = metric.weights.log() + torch.linalg.slogdet(full)[1] - value
    jets = {"q_d": form.call("gradient", inputs), "q_db": form.call("metric", inputs)}
    return logits, {**jets, "w": torch.softmax(logits, -1).to(C)}


def mixtures() -> Iterator[Finding]:
    """Layouts, products and blocks of mixtures against the kernels on plain tensors."""
    sizes = ((5, 3, 2**29), (5, 3, 1), (70, 2, 2**29), (70, 2, 200_000))
    for kind, diagonal, (count, d, budget) in product(
        ("potential", "density"), (False, True), sizes
    ):
        metric = mixture_metric(count, d, kind, diagonal, budget)
        blocks = len(metric._blocks())
        name = f"{kind}, {'diagonal' if diagonal else 'full'}, K = {count} in {blocks} blocks"
        if (blocks > 1) != (budget < 2**29):
            raise EvidenceError(f"{name}: a small budget makes several blocks, a large one makes 1")
        yield from _mixture_compared(metric, name)


def _mixture_compared(metric: MixtureMetric, name: str) -> Iterator[Finding]:
    kernels, d = KernelSet(f"mixture_{metric.kind}"), metric.centres.shape[-1]
    z = 0.3 * numbers(4, d, seed=4)
    logits, jets = _plain_jets(metric, z)
    g = kernels.call("metric", jets)
    sign = 1 if metric.kind == "potential" else -1
    yield beside(f"{name}: metric_matrix", framed(metric.metric_matrix(z), g, g))
    value = sign * torch.logsumexp(logits, -1)
    yield beside(f"{name}: value", relative(metric.value(z), value))
    yield beside(f"{name}: responsibilities", relative(metric.responsibilities(z), jets["w"].real))
    for kernel in ("metric_d", "metric_db"):
        truth = kernels.call(kernel, jets)
        got = getattr(metric, f"_{kernel}")(z)
        yield beside(f"{name}: {kernel}", relative(got, truth))
    u = numbers(4, d, seed=5)
    plain = PlainMetric(lambda z: (kernels.call("metric", _plain_jets(metric, z)[1]), None))
    covector = plain.metric_vector_product(u, z)
    got = metric.metric_vector_product(u, z)
    yield beside(f"{name}: metric_vector_product", relative(got, covector))
    leaves = [z, metric.centres, metric.precisions, metric.weights]
    for leaf in leaves:
        leaf.requires_grad_()
    truths = gradients(plain.log_volume(z), leaves)
    founds = gradients(metric.log_volume(z), leaves)
    bound = TOLERANCE * condition(g)
    names = ("z", "centres", "precisions", "weights")
    for of, got, truth in zip(names, founds, truths, strict=True):
        if of == "precisions" and got.is_complex():  # along Hermitian matrices, as they must stay
            got, truth = got + got.mH, truth + truth.mH
        yield beside(f"{name}: ∂ log_volume by {of}", relative(got, truth), bound)
