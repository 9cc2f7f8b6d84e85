"""Divergences between complex normals, exact where the two are nearly equal."""

import math

import torch
from torch import Tensor
from torch.distributions.kl import register_kl

from kahler_verify.distributions.arithmetic import (
    on_columns,
    real_blocks,
    solve_lower,
    squared_modulus,
)
from kahler_verify.distributions.checks import broadcast, check_tensor
from kahler_verify.distributions.complex_normal import ComplexNormal
from kahler_verify.distributions.logarithms import NEAR, log_excess, log_ratio
from kahler_verify.errors import InputError


@register_kl(ComplexNormal, ComplexNormal)
def kl_complex_normal(p: ComplexNormal, q: ComplexNormal) -> Tensor:
    """``log det Σ_q - log det Σ_p - D + tr(Σ_q^{-1} Σ_p) + (μ_p-μ_q)ᴴ Σ_q^{-1} (μ_p-μ_q)``.

    The trace is the squared norm of ``A = L_q^{-1} L_p``. No inverse is formed; where q is scalar
    or diagonal nothing is solved either. Source: Gracyk, arXiv 2511.15172 (claims G1 and, for
    improper p or q, G9 of the ledger).

    Summed as ``Σ_i (|A_ii|² - 1 - log |A_ii|²) + Σ_{i>j} |A_ij|²``, whose terms are all ≥ 0, from
    ``A - I = L_q^{-1} (L_p - L_q)``: so it is never negative, and keeps its relative accuracy where
    p and q are nearly equal.

    Returns:
        Real, the shape that the two batch shapes broadcast to.
    """
    check_tensor("q.loc", q.loc, p.loc.dtype, p.loc.device, reference="p.loc")
    if p.event_shape != q.event_shape:
        raise InputError(
            "Expected p and q to have the same event_shape but got "
            f"p.event_shape={list(p.event_shape)} and q.event_shape={list(q.event_shape)}."
        )
    broadcast("p's batch", p.batch_shape, "q's batch", q.batch_shape)
    if not (p.is_circular and q.is_circular):
        return _kl_improper(p, q)
    quadratic = squared_modulus(q._whiten(p.loc - q.loc)).sum(-1)
    if "full" in (p.structure, q.structure):
        a, b = p._factor_matrix(), q._factor_matrix()
        apart = a - b  # exact where p and q are close
        if q.structure == "full":
            apart = solve_lower(b, apart)
        else:
            apart = apart / q._deviations()[..., None]
        mixing = squared_modulus(apart.tril(-1)).sum((-2, -1))
        ours, theirs = (x.diagonal(dim1=-2, dim2=-1).real for x in (a, b))
        return _spread_excess(ours, theirs).sum(-1) + mixing + quadratic
    excess = _spread_excess(p._deviations(), q._deviations())
    copies = p.event_shape[0] // excess.shape[-1]
    return copies * excess.sum(-1) + quadratic


def _spread_excess(ours: Tensor, theirs: Tensor) -> Tensor:
    """``r² - 1 - log r²`` of ratios of deviations, as ``t² + 2 (t - log(1 + t))``, t = r - 1."""
    t = (ours - theirs) / theirs
    excess = log_excess(t, log_ratio(ours, theirs))
    # what is not positive has no logarithm: NaN, on the diagonal p = q too
    return t.square() + 2 * torch.where(theirs > 0, excess, theirs.log())


def _kl_improper(p: ComplexNormal, q: ComplexNormal) -> Tensor:
    """KL(p ‖ q) where p or q has a relation.

    With variances σ, relations δ and ``r = μ_p - μ_q``, the sum over dimensions of
    ``½ log(σ_q²-|δ_q|²) - ½ log(σ_p²-|δ_p|²) - 1
    + (σ_q (σ_p + |r|²) - Re δ̄_q (δ_p + r²)) / (σ_q²-|δ_q|²)``.
    Derived in derivations/likelihoods/improper_gaussian.py (claim G9).

    It is summed as the chain rule of divergences has it, for the real part and for the imaginary
    part given that: all terms are ≥ 0.  In units of q's deviation the real part's variance is
    ``½ a = ½ (σ + Re δ)``, the other's slope on it ``b = Im δ / a`` and conditional variance
    ``½ c = ½ (σ²-|δ|²) / a``.

    Where p or q is full, the divergence of the real Gaussians.
    """
    if "full" in (p.structure, q.structure):
        return _kl_real(p, q)
    ours, theirs = p._deviations(), q._deviations()
    coherence_p, coherence_q = p._coherence(), q._coherence()
    # x → ix changes the sign of relations, and here leaves the real part q's larger half
    turned = coherence_q.real < 0
    sign = torch.where(turned, -1.0, 1.0).to(theirs.dtype)
    coherence_p, coherence_q = sign * coherence_p, sign * coherence_q
    whitened = q._whiten(p.loc - q.loc)
    whitened = torch.where(turned, 1j * whitened, whitened)
    ratio, t = ours / theirs, (ours - theirs) / theirs
    scale = ratio.square()
    spread = t * (2 + t)  # differences of variances and of relations, exact where p and q are close
    relation = sign * ((p._own_relation() - q._own_relation()) / theirs / theirs)
    a_p, a_q = scale * (1 + coherence_p.real), 1 + coherence_q.real
    gap_p, gap_q = (1 - squared_modulus(c) for c in (coherence_p, coherence_q))
    c_p, c_q = scale * gap_p / (1 + coherence_p.real), gap_q / a_q
    growth = spread + relation.real
    determinant = spread * (scale + 1)
    determinant = determinant - (relation * (scale * coherence_p + coherence_q).conj()).real
    first = growth / a_q
    close = (determinant / gap_q - first) * a_q / a_p
    second = torch.where(first.abs() < NEAR, close, c_p / c_q - 1)
    slope = (relation.imag * a_q - coherence_q.imag * growth) / (a_p * a_q)
    shapes = (
        log_excess(first, log_ratio(a_p, a_q))
        + log_excess(second, log_ratio(c_p, c_q))
        + slope.square() * a_p / c_q
    )
    along, across = whitened.real, whitened.imag
    quadratic = along.square() / a_q + (across - coherence_q.imag / a_q * along).square() / c_q
    # logarithms of what is not positive are NaN, on the diagonal p = q too
    nowhere = torch.where((theirs > 0) & (c_q > 0), 0.0, math.nan).to(theirs.dtype)
    return (shapes / 2 + quadratic + nowhere).sum(-1)


def _kl_real(p: ComplexNormal, q: ComplexNormal) -> Tensor:
    """KL of the real Gaussians: ``½ Σ_i (y_i - log(1 + y_i) + s_i)`` and the means' part.

    With ``K Kᵀ = L_q^{-1} C_p L_q^{-T}`` these are ``y_i = K_ii² - 1`` and ``s_i``, the sum of
    ``K_ij²`` over j < i.  Where p and q are close K factors I + N, and N, of the difference of the
    covariances, says what rounding would take from K: ``y_i = N_ii - s_i``.
    """
    ours, theirs = p.to_real(), q.to_real()
    a, b = p._factor_matrix(), q._factor_matrix()
    covariance = (a - b) @ a.mH + b @ (a - b).mH
    relation = _relation_or_zeros(p, covariance) - _relation_or_zeros(q, covariance)
    difference = real_blocks(covariance + relation, covariance - relation)
    factor = theirs.scale_tril
    half = solve_lower(factor, difference)
    n = solve_lower(factor, half.mT)
    n = (n + n.mT) / 2
    near = (n.square().sum((-2, -1), keepdim=True) < NEAR**2).detach()
    eye = torch.eye(n.shape[-1], dtype=n.dtype, device=n.device)
    k, _ = torch.linalg.cholesky_ex(eye + torch.where(near, n, torch.zeros_like(n)))
    k = torch.where(near, k, solve_lower(factor, ours.scale_tril))
    mixing = k.tril(-1).square().sum(-1)
    pivots = k.diagonal(dim1=-2, dim2=-1)
    growth = n.diagonal(dim1=-2, dim2=-1) - mixing
    growth = torch.where(near[..., 0], growth, pivots.square() - 1)
    shift = on_columns(solve_lower, factor, ours.loc - theirs.loc)
    excess = log_excess(growth, 2 * pivots.log())
    return ((excess + mixing).sum(-1) + shift.square().sum(-1)) / 2


def _relation_or_zeros(distribution: ComplexNormal, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if distribution.is_circular else distribution.relation_matrix
