"""KL of nearly equal and of far distributions, against mpmath on the very numbers given."""

import itertools
import math

import mpmath
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from kahler_verify.distributions import ComplexNormal

D = 3
C64, C128 = torch.complex64, torch.complex128
KINDS = ["scalar", "diagonal", "full", "scalar improper", "diagonal improper", "full improper"]


def nearby(kind: str, step: float, seed: int, dtype: torch.dtype = C128) -> ComplexNormal:
    """A distribution ``step`` away from one of variance 1.44 and relation 0.5 + 0.3i, or 0."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int, of: torch.dtype = torch.float64) -> Tensor:
        return step * torch.randn(shape, dtype=of, generator=generator)

    structure, _, improper = kind.partition(" ")
    real = torch.empty((), dtype=dtype).real.dtype
    loc = (0.7 - 0.2j + noise(D, of=C128)).to(dtype)
    scale: dict[str, Tensor] = {}
    if structure == "scalar":
        scale["scale"] = (1.2 + noise()).to(real)
        relation = 0.5 + 0.3j + noise(of=C128)
    elif structure == "diagonal":
        scale["scale_diag"] = (1.2 + noise(D)).to(real)
        relation = 0.5 + 0.3j + noise(D, of=C128)
    else:
        lower = noise(D, D, of=C128).tril(-1) + torch.diag_embed(noise(D)) + 1.2 * torch.eye(D)
        scale["scale_tril"] = lower.to(dtype)
        relation = noise(D, D, of=C128)
        relation = (relation + relation.mT) / 2 + (0.5 + 0.3j) * torch.eye(D)
    return ComplexNormal(loc, **scale, relation=relation.to(dtype) if improper else None)


def exactly(p: ComplexNormal, q: ComplexNormal) -> float:
    """KL of the real Gaussians at 60 digits, from the factors and relations as they are."""

    def real(r: ComplexNormal) -> tuple[mpmath.matrix, mpmath.matrix]:
        n = r.event_shape[0]
        factor = mpmath.matrix([[mpmath.mpc(x) for x in row] for row in r.scale_tril.tolist()])
        sigma = factor * factor.transpose_conj()
        if r.relation is None:
            relation = mpmath.zeros(n)
        else:
            rows = r.relation_matrix.tolist()
            relation = mpmath.matrix([[mpmath.mpc(x) for x in row] for row in rows])
        out = mpmath.zeros(2 * n)
        for i, j in itertools.product(range(n), repeat=2):
            plus, minus = sigma[i, j] + relation[i, j], sigma[i, j] - relation[i, j]
            out[i, j], out[i, n + j] = plus.real / 2, -minus.imag / 2
            out[n + i, j], out[n + i, n + j] = plus.imag / 2, minus.real / 2
        loc = [mpmath.mpc(x) for x in r.loc.tolist()]
        return mpmath.matrix([x.real for x in loc] + [x.imag for x in loc]), out

    with mpmath.workdps(60):
        (mean_p, cov_p), (mean_q, cov_q) = real(p), real(q)
        inverse, shift = cov_q**-1, mean_p - mean_q
        trace = sum((inverse * cov_p)[i, i] for i in range(cov_p.rows))
        log_det = mpmath.log(mpmath.det(cov_q)) - mpmath.log(mpmath.det(cov_p))
        value = (trace - cov_p.rows + log_det + (shift.T * inverse * shift)[0]) / 2
        return float(value)


@pytest.mark.parametrize(("left", "right"), list(itertools.product(KINDS, repeat=2)))
def test_nearly_equal_distributions_keep_relative_accuracy(left: str, right: str) -> None:
    if ("improper" in left) != ("improper" in right):  # these are not nearly equal
        steps: dict[torch.dtype, tuple[float, ...]] = {C64: (1e-2,), C128: (1e-4,)}
    else:
        steps = {C64: (1e-1, 1e-3, 1e-5), C128: (1e-2, 1e-6, 1e-10, 1e-13)}
    for dtype, some in steps.items():
        eps = torch.finfo(dtype).eps
        for step in some:
            p, q = nearby(left, step, 1, dtype), nearby(right, step, 2, dtype)
            got, truth = kl_divergence(p, q).item(), exactly(p, q)
            assert truth > 0
            assert abs(got - truth) <= 200 * eps * truth, (dtype, step, got, truth)


@pytest.mark.parametrize(("left", "right"), list(itertools.product(KINDS, repeat=2)))
def test_far_distributions_are_right(left: str, right: str) -> None:
    for seed, shrink in itertools.product(range(3), (1e-6, 0.03, 1.0, 40.0, 1e6)):
        p, q = nearby(left, 0.15, seed), nearby(right, 0.15, seed + 9)
        p._factor = p._factor * shrink
        p._relation = None if p._relation is None else p._relation * shrink**2
        truth = exactly(p, q)
        assert kl_divergence(p, q).item() == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [C64, C128])
def test_from_itself_it_is_exactly_zero(kind: str, dtype: torch.dtype) -> None:
    p = nearby(kind, 0.1, 3, dtype)
    assert kl_divergence(p, p).item() == 0


@pytest.mark.parametrize("dimension", [784, 65536])
@pytest.mark.parametrize("structures", list(itertools.product(["scalar", "diagonal"], repeat=2)))
@pytest.mark.parametrize("improper", [False, True])
def test_many_outputs_in_single_precision(
    dimension: int, structures: tuple[str, str], improper: bool
) -> None:
    """Against double precision, which the tests above hold to mpmath."""
    generator = torch.Generator().manual_seed(dimension)
    made = []
    for structure in structures:
        shape = () if structure == "scalar" else (dimension,)
        deviation = 3 + 1e-6 * torch.randn(shape, generator=generator)
        name = "scale" if structure == "scalar" else "scale_diag"
        relation = torch.full(shape, 1 + 2j) * deviation if improper else None
        loc = torch.full((dimension,), 1 - 1j)
        made.append(ComplexNormal(loc, **{name: deviation}, relation=relation))
    p, q = made
    got = kl_divergence(p, q)
    truth = kl_divergence(p.to(C128), q.to(C128))
    assert got >= 0
    torch.testing.assert_close(got.double(), truth, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_never_negative_one_ulp_away(kind: str) -> None:
    p = nearby(kind, 0.1, 5, C64)
    for part in range(4):
        q = nearby(kind, 0.1, 5, C64)
        pieces = [torch.view_as_real(q._factor) if q._factor.is_complex() else q._factor]
        pieces += [] if q._relation is None else [torch.view_as_real(q._relation)]
        for piece in pieces:
            inside = piece != 0
            moved = torch.nextafter(piece, torch.full_like(piece, math.inf if part % 2 else -9))
            piece.copy_(
                torch.where(inside, moved, piece) if part < 2 else piece * (1 + part * 6e-8)
            )
        if q._relation is not None and q.structure == "full":
            q._relation = (q._relation + q._relation.mT) / 2
        got, truth = kl_divergence(p, q).item(), exactly(p, q)
        assert got >= 0
        assert got == pytest.approx(truth, rel=1e-3, abs=1e-20)


def test_extreme_deviations_neither_overflow_nor_vanish() -> None:
    loc = torch.zeros(2, dtype=C64)
    for one, other in ((1e-30, 1e30), (1e-20, 1.5e-20), (1.5e15, 1e15)):
        p, q = (ComplexNormal(loc, scale=torch.tensor(s)) for s in (one, other))
        truth = kl_divergence(p.to(C128), q.to(C128)).item()
        assert kl_divergence(p, q).item() == pytest.approx(truth, rel=1e-6)
