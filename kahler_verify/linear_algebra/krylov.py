"""Spectra of a symmetric matrix that is known by its products alone, and solutions with it.

Rows are vectors: a product takes [r, d] to [r, d], so that several vectors may go together.  Every
answer says what it took, in vectors multiplied, and how far it may be off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kahler_verify.errors import InputError

__all__ = [
    "Nystrom",
    "Product",
    "Solution",
    "TopEigen",
    "Tridiagonal",
    "conjugate_gradients",
    "generator",
    "lanczos",
    "largest_eigenpairs",
    "nystrom",
]

Product = Callable[[Tensor], Tensor]
_FRESH_STEPS = 8  # of a start that has to find nothing new


@dataclass(frozen=True)
class TopEigen:
    """The largest eigenvalues of a matrix.

    Attributes:
        values: [k], the largest first.
        vectors: [k, d], orthonormal rows.
        errors: [k], estimated, of the values: min(r, r²/gap) of the residual norms r.
        residuals: [k], |A v - λ v|: so near is some eigenvalue.
        products: vectors that were multiplied.
        converged: are the errors within the tolerance?
    """

    values: Tensor
    vectors: Tensor
    errors: Tensor
    residuals: Tensor
    products: int
    converged: bool


@dataclass(frozen=True)
class Solution:
    """Of (A + ridge) x = b.

    Attributes:
        x: [r, d].
        residual: [r], |b - (A + ridge) x| / |b|.
        products: vectors that were multiplied.
        converged: are all residuals within the tolerance?
    """

    x: Tensor
    residual: Tensor
    products: int
    converged: bool


def generator(seed: int) -> torch.Generator:
    """Of random vectors that are the same on any device."""
    return torch.Generator().manual_seed(seed)


# Lanczos


@dataclass(frozen=True)
class Tridiagonal:
    """A = Qᵀ T Q on Krylov spaces of p starts.

    Attributes:
        diagonal: [p, m].
        beside: [p, m], the last of which leads out of the space.
        basis: [p, m, d].
    """

    diagonal: Tensor
    beside: Tensor
    basis: Tensor

    def matrix(self) -> Tensor:
        """T, [p, m, m]."""
        off = self.beside[:, :-1]
        return (
            torch.diag_embed(self.diagonal) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
        )


def lanczos(product: Product, starts: Tensor, steps: int) -> Tridiagonal:
    """Lanczos' method from several starts at once, each orthogonalised twice against its own basis.

    A space that closes is left as it is: what follows is zero, and touches nothing.

    Args:
        product: of the matrix.
        starts: [p, d], not zero.
        steps: m ≤ d.

    Source: Golub and Van Loan, Matrix Computations, 10.1.
    """
    q = starts / starts.norm(dim=-1, keepdim=True)
    basis, diagonal, beside = [q], [], []
    for step in range(steps):
        w = product(basis[-1])
        diagonal.append((w * basis[-1]).sum(-1))
        known = torch.stack(basis, 1)
        scale = w.norm(dim=-1)
        for _ in range(2):
            w = w - torch.einsum("pmd,pm->pd", known, torch.einsum("pmd,pd->pm", known, w))
        size = w.norm(dim=-1)
        closed = size <= 32 * torch.finfo(w.dtype).eps * scale
        beside.append(torch.where(closed, 0, size))
        if step + 1 < steps:
            basis.append(torch.where(closed[:, None], 0, w / size.clamp_min(1e-300)[:, None]))
    return Tridiagonal(torch.stack(diagonal, 1), torch.stack(beside, 1), torch.stack(basis, 1))


def largest_eigenpairs(
    product: Product,
    like: Tensor,
    k: int,
    *,
    tolerance: float = 1e-4,
    steps: int | None = None,
    seed: int = 0,
) -> TopEigen:
    """The k largest eigenvalues with their vectors, by Lanczos' method from a random start.

    A start that is almost orthogonal to an eigenvector misses it, and an eigenvalue of several
    dimensions is found once: as soon as the estimated errors are within ``tolerance`` of the
    values, a fresh start behind all that is known has to leave the values as they are.

    Args:
        product: of a symmetric matrix.
        like: [d], whose dtype and device vectors have.
        k: how many, at most d.
        tolerance: relative.
        steps: at most; 5k + 30 by default.
        seed: of the starts.
    """
    d = like.shape[-1]
    most = min(d, 5 * k + 30 if steps is None else max(steps, k))
    random = generator(seed)
    basis, images, m = like.new_empty(most, d), like.new_empty(most, d), 0
    lead = basis[0]
    fresh, settled, since, several = True, None, -1, False  # steps since a fresh start, or -1
    while True:
        q = torch.randn(d, generator=random, dtype=torch.float64).to(like) if fresh else lead
        size = q.norm()
        for _ in range(2):
            q = q - basis[:m].mT @ (basis[:m] @ q)
        if q.norm() <= 32 * torch.finfo(q.dtype).eps * size and not fresh:
            fresh = True  # the space has closed
            continue
        basis[m] = q / q.norm()
        lead = images[m] = product(basis[m : m + 1])[0]
        fresh, m = False, m + 1
        if m < k:
            continue
        found, worst = _ritz(basis[:m], images[:m], k, tolerance)
        if m == d:
            return replace(found, converged=True)
        steady = settled is not None and bool(
            ((found.values - settled).abs() <= tolerance * found.values.abs()).all()
        )
        if found.converged and steady and since + 1 >= _FRESH_STEPS:
            return found
        if m == most:
            return replace(found, converged=False)
        if found.converged and steady:
            fresh, since = since < 0, since + 1
        else:
            several, since = several or since >= 0, -1
            settled = found.values if found.converged else None
            if several:  # starts, of which no image leads on, but what is left of the worst vector
                lead = worst


def _ritz(basis: Tensor, images: Tensor, k: int, tolerance: float) -> tuple[TopEigen, Tensor]:
    """The k largest values and vectors that a space [m, d] has, of the matrix's images of it.

    Besides, the residual [d] of the worst.
    """
    T = images @ basis.mT
    values, coordinates = (x.flip(-1) for x in torch.linalg.eigh((T + T.mT) / 2))
    first, largest = coordinates[:, :k].mT, values[:k]
    vectors = first @ basis
    residuals = first @ images - largest[:, None] * vectors
    sizes = residuals.norm(dim=-1)
    errors = _errors(values, sizes)
    done = bool((errors <= tolerance * largest.abs()).all())
    found = TopEigen(largest, vectors, errors, sizes, len(basis), done)
    return found, residuals[(errors / largest.abs()).argmax()]


def _errors(values: Tensor, residuals: Tensor) -> Tensor:
    """Of the first Ritz values, from their residuals and the gaps to others (Kato and Temple)."""
    if len(values) < 2:
        return residuals
    gap = values.diff().abs()
    nearest = torch.cat([gap[:1], torch.minimum(gap[:-1], gap[1:]), gap[-1:]])[: len(residuals)]
    tiny = torch.finfo(values.dtype).tiny
    return torch.minimum(residuals, residuals.square() / (nearest - residuals).clamp_min(tiny))


# Solutions


@dataclass(frozen=True)
class Nystrom:
    """A ≈ Uᵀ diag(λ) U by a random sketch.

    Attributes:
        values: [k], the largest first.
        vectors: [k, d], orthonormal rows.
        products: vectors that were multiplied.
    """

    values: Tensor
    vectors: Tensor
    products: int

    def preconditioner(self, ridge: float) -> Product:
        """P⁻¹ of conjugate gradients on A + ridge: flat where the sketch knows A, 1 elsewhere."""
        shift = self.values[-1] + ridge
        weights = shift / (self.values + ridge) - 1

        def apply(r: Tensor) -> Tensor:
            return r + ((r @ self.vectors.mT) * weights) @ self.vectors

        return apply


def nystrom(product: Product, like: Tensor, rank: int, *, seed: int = 0) -> Nystrom:
    """A randomised Nyström approximation of a positive semidefinite matrix.

    Source: Frangella, Tropp, Udell, arXiv 2110.02820, algorithm 2.1.
    """
    d = like.shape[-1]
    rank = min(rank, d)
    test = torch.randn(d, rank, generator=generator(seed), dtype=torch.float64).to(like)
    test = torch.linalg.qr(test).Q
    image = product(test.mT).mT
    shift = torch.finfo(image.dtype).eps * torch.linalg.matrix_norm(image)
    image = image + shift * test
    core = test.mT @ image
    factor, info = torch.linalg.cholesky_ex((core + core.mT) / 2)
    if bool(info > 0):
        raise InputError("product: expected one of a positive semidefinite matrix")
    half = torch.linalg.solve_triangular(factor.mT, image, upper=True, left=False)
    vectors, roots, _ = torch.linalg.svd(half, full_matrices=False)
    return Nystrom((roots.square() - shift).clamp_min(0), vectors.mT, rank)


def conjugate_gradients(
    product: Product,
    b: Tensor,
    *,
    ridge: float = 0.0,
    tolerance: float = 1e-6,
    most: int | None = None,
    preconditioner: Product | None = None,
) -> Solution:
    """(A + ridge)⁻¹ b of several right-hand sides b [r, d] at once, each by its own iteration.

    Args:
        product: of a symmetric positive semidefinite matrix.
        b: [r, d].
        ridge: added to the matrix.
        tolerance: of |residual| / |b|.
        most: iterations; 10 d by default.
        preconditioner: r ↦ P⁻¹ r.

    Source: Golub and Van Loan, Matrix Computations, 11.5.
    """
    apply: Product = preconditioner or (lambda r: r)
    most = 10 * b.shape[-1] if most is None else most
    size = b.norm(dim=-1).clamp_min(torch.finfo(b.dtype).tiny)
    x, r = torch.zeros_like(b), b.clone()
    y = apply(r)
    p, ry = y.clone(), (r * y).sum(-1, keepdim=True)
    products = 0
    active = r.norm(dim=-1) > tolerance * size
    for _ in range(most):
        if not bool(active.any()):
            break
        some = active.nonzero()[:, 0]
        image = product(p[some]) + ridge * p[some]
        products += len(some)
        step = ry[some] / (p[some] * image).sum(-1, keepdim=True)
        x[some] += step * p[some]
        r[some] -= step * image
        y = apply(r[some])
        new = (r[some] * y).sum(-1, keepdim=True)
        p[some] = y + new / ry[some] * p[some]
        ry[some] = new
        active = r.norm(dim=-1) > tolerance * size
    residual = r.norm(dim=-1) / size
    return Solution(x, residual, products, not bool(active.any()))
