"""Kernels on real planes and on images that are not multiplied out; every product of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch

from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.laws.variants.compared import R, beside, numbers, relative
from kahler_verify.kernels import gaussian_kl
from kahler_verify.linear_algebra.planes import (
    Image,
    Pairs,
    Weight,
    pair_product,
    planes_of,
    real_part_product,
)


def planes() -> Iterator[Finding]:
    """Kernels on real planes and on images that are not multiplied out; every product of both."""
    first_order = [
        n
        for n in gaussian_kl.__all__
        if n.startswith(("fisher_metric_diagonal", "hermitian_part_diagonal"))
    ]
    for name in first_order:
        kernel: Callable[..., Any] = getattr(gaussian_kl, name)
        arguments = kernel.__code__.co_varnames[: kernel.__code__.co_argcount]
        rows = {a: numbers(5, 3, 8, seed=n) for n, a in enumerate(arguments)}
        sigma = 0.5 + rows.pop("Sigma_factor")[:, 0].abs()
        truth = kernel(**rows, Sigma_factor=sigma)
        got = kernel(**{a: Pairs(planes_of(x)) for a, x in rows.items()}, Sigma_factor=sigma)
        truths, gots = (x if isinstance(x, tuple) else (x,) for x in (truth, got))
        for t, g in zip(truths, gots, strict=True):
            yield beside(f"{name} on planes", relative(g, t))
    for rows_of, (m, n) in product((3, 200), ((70, 90), (90, 70), (5, 4))):
        x, w = numbers(rows_of, n), numbers(m, n, seed=1)
        for recorded in (False, True):
            x, w = x.detach().requires_grad_(recorded), w.detach().requires_grad_(recorded)
            name, truth = f"{rows_of} rows by [{m}, {n}]", x @ w.mT
            pairs, weight = planes_of(x), Weight(w)
            got = torch.complex(*pair_product(pairs, weight))
            real = real_part_product(pairs, weight)
            yield beside(f"{name}: product", relative(got, truth))
            yield beside(f"{name}: real part", relative(real, truth.real))
            if recorded:
                by = numbers(*truth.shape, seed=2)
                for out, true, cotangent in ((got, truth, by), (real, truth.real, by.real)):
                    pulled = torch.autograd.grad(out, (x, w), cotangent, retain_graph=True)
                    trues = torch.autograd.grad(true, (x, w), cotangent, retain_graph=True)
                    for a, b in zip(pulled, trues, strict=True):
                        yield beside(f"{name}: pullback", relative(a, b))
    yield from _transposes()


def _transposes() -> Iterator[Finding]:
    x, y, w = numbers(4, 3, 6), numbers(4, 3, 6, seed=1), numbers(9, 6, seed=2)
    s = torch.rand(4, 1, 1, dtype=R, generator=torch.Generator().manual_seed(0)) + 0.5
    t = numbers(2, 4, 3, 6, seed=3)
    weight, flags = Weight(w), (False, True)
    real_rows = torch.cat([t.real, t.imag], -1)
    for of_x, of_y, adjoint, same in product(flags, flags, flags, flags):
        left, right = Pairs(planes_of(x)), Pairs(planes_of(y))
        subjects = [(left, x, left if same else right, x if same else y, "planes")]
        if adjoint != (of_x != of_y):
            image = Image(planes_of(x), weight, real=False) * s
            other = image if same else Image(planes_of(y), weight, real=False)
            of_other = (x @ w.mT) * s if same else y @ w.mT
            subjects.append((image, (x @ w.mT) * s, other, of_other, "images"))  # type: ignore[arg-type]
        real = Image(real_rows, weight, real=True)
        stands_for = torch.complex(*(t @ w.mT).real)
        subjects.append((real, stands_for, real, stands_for, "real images"))  # type: ignore[arg-type]
        for a, plain_a, b, plain_b, name in subjects:
            if of_x:
                a, plain_a = a.conj(), plain_a.conj()
            if of_y:
                b, plain_b = (a if same and of_x else b.conj()), plain_b.conj()
            elif same and not of_x:
                b = a
            truth = plain_a @ (plain_b.mH if adjoint else plain_b.mT)
            got = a @ (b.mH if adjoint else b.mT)
            yield beside(f"{name}: products with conjugates and transposes", relative(got, truth))
