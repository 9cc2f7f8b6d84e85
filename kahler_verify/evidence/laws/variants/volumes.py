"""Log det by every elimination, its gradient and the gradient's, against the kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import torch

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.laws.variants.compared import TOLERANCE, C, R, beside, numbers, relative
from kahler_verify.kernels import hermitian_geometry
from kahler_verify.linear_algebra import cholesky, elimination


def volumes() -> Iterator[Finding]:
    """Log det by every elimination, its gradient and the gradient's, against the kernels."""
    used = set()
    sizes = ((1, 7), (2, 5), (2, 300), (3, 4), (3, 700), (6, 400), (20, 3))
    for (n, count), real in product(sizes, (False, True)):
        root = numbers(count, n, n, seed=n)
        root = root.real.to(C).real if real else root
        g = root @ root.mH + 0.5 * torch.eye(n)
        factor, truth = torch.linalg.cholesky(g), torch.linalg.slogdet(g)[1]
        inverse = hermitian_geometry.log_det_pullback(factor)
        for with_inverse in (False, True):
            method = elimination._method(g, inverse=with_inverse)
            used.add(method)
            name = f"{method.__name__.strip('_')}, n = {n}{', real' if real else ''}"
            pivots, found = method(g, with_inverse)
            bound = TOLERANCE * float(torch.linalg.cond(g).max())
            value = pivots.log().sum(0)
            yield beside(f"{name}: log det", float((value - truth).abs().max()), bound)
            if with_inverse:
                yield beside(f"{name}: inverse", relative(found, inverse), bound)
        x = g.clone().requires_grad_()
        (slope,) = torch.autograd.grad(cholesky.log_det(x)[0].sum(), x, create_graph=True)
        yield beside(f"n = {n}: ∂ log det", relative(slope, inverse), bound)
        v = numbers(count, n, n, seed=9)
        v = v + v.mH if not real else (v + v.mH).real
        (twice,) = torch.autograd.grad((slope * v.conj()).real.sum(), x)
        second = hermitian_geometry.log_det_pullback_d(v.unsqueeze(-3), factor).squeeze(-3)
        yield beside(f"n = {n}: ∂∂ log det", relative(twice, second), bound)
        phase = root[..., :1] / root[..., :1].abs()
        singular = (torch.eye(n) - 1 / n) * (phase @ phase.mH)  # whose last pivot is rounding
        bad, degenerate = cholesky.log_det(singular, if_degenerate=-math.inf)
        missed = len(bad) if degenerate is None else int((~degenerate).sum())
        yield beside(f"n = {n}: degenerate", float((bad != -math.inf).sum() + missed), 0.0)
        yield from _small_eigenvalues(n, count, real=real)
    methods = {elimination._written_out, elimination._batch_last, elimination._by_library}
    if used != methods:
        raise EvidenceError("log det: an elimination was chosen for no size")


def _small_eigenvalues(n: int, count: int, *, real: bool) -> Iterator[Finding]:
    """Matrices that take a closer look: their pivots are small, and no eigenvalue is degenerate."""
    if n < 3:
        return
    eigenvalues = torch.tensor([1.0] + (n - 1) * [1e-7], dtype=R)
    frame = torch.linalg.qr(numbers(count, n, n, seed=n).real if real else numbers(count, n, n))[0]
    units = 1 + torch.rand(n, dtype=R, generator=torch.Generator().manual_seed(n))
    g = units[:, None] * (frame * eigenvalues @ frame.mH) * units
    h = (frame / eigenvalues @ frame.mH) / units / units[:, None]
    truth = (eigenvalues.log() + 2 * units.log()).sum().expand(count)
    bound = 1e7 * TOLERANCE * n
    x = g.clone().requires_grad_()
    value, degenerate = cholesky.log_det(x)
    yield beside(f"n = {n}: small eigenvalues", float((value - truth).detach().abs().max()), bound)
    flagged = 0 if degenerate is None else int(degenerate.sum())
    yield beside(f"n = {n}: small eigenvalues are no fault", float(flagged), 0.0)
    (slope,) = torch.autograd.grad(value.sum(), x)
    yield beside(f"n = {n}: ∂ log det at small eigenvalues", relative(slope, h), bound)
    factor, flags = cholesky.factored(g)
    yield beside(f"n = {n}: factors at small eigenvalues", relative(factor @ factor.mH, g), bound)
    yield beside(f"n = {n}: small eigenvalues factor", float(flags.sum()), 0.0)
    signs = torch.tensor([-1.0, -1.0] + (n - 2) * [1.0], dtype=R)
    found = cholesky.log_det(frame * signs @ frame.mH)[1]  # two pivots are negative, or fewer
    missed = count if found is None else int((~found).sum())
    yield beside(f"n = {n}: indefinite", float(missed), 0.0)
