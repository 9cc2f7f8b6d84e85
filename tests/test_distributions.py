"""ComplexNormal against the realified Gaussian, its own samples, and every mode of autograd."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import grad, jacfwd, jacrev, jvp, vmap

from kahler_verify.distributions import ComplexNormal, complex_lower_cholesky, complex_vector
from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric

STRUCTURES = ["scalar", "diagonal", "full"]
PAIRS = [(p, q) for p in STRUCTURES for q in STRUCTURES]
D = 3
C128 = torch.complex128
F64 = torch.float64


def make(
    structure: str,
    seed: int = 0,
    batch: tuple[int, ...] = (),
    scale_batch: tuple[int, ...] | None = None,
    dimension: int = D,
    **options: Any,
) -> ComplexNormal:
    """A distribution of the given structure, all numbers drawn from the seed, float64."""
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(*batch, dimension, dtype=C128, generator=generator)
    inner = batch if scale_batch is None else scale_batch
    if structure == "full":
        root = torch.randn(*inner, dimension, dimension, dtype=C128, generator=generator)
        covariance = root @ root.mH + torch.eye(dimension)
        return ComplexNormal.from_covariance(loc, covariance, **options)
    shape = inner if structure == "scalar" else (*inner, dimension)
    deviations = 0.5 + torch.rand(shape, dtype=F64, generator=generator)
    name = "scale" if structure == "scalar" else "scale_diag"
    return ComplexNormal(loc, **{name: deviations}, **options)


def stack_parts(x: Tensor) -> Tensor:
    return torch.cat([x.real, x.imag], -1)


# ------------------------------------------------------------------ against the realified Gaussian


def realify_by_hand(p: ComplexNormal) -> MultivariateNormal:
    """Column by column, from the real-linear map y ↦ Σ y: not by `to_real`'s block formula."""
    sigma = p.covariance_matrix
    columns = [sigma[..., i] for i in range(D)] + [1j * sigma[..., i] for i in range(D)]
    covariance = torch.stack([stack_parts(column) for column in columns], -1) / 2
    return MultivariateNormal(stack_parts(p.mean), covariance)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(
    ("batch", "scale_batch"), [((), ()), ((4,), (4,)), ((2, 1), (3,)), ((), (5,)), ((5,), ())]
)
def test_log_prob_and_entropy(structure: str, batch: tuple, scale_batch: tuple) -> None:
    p = make(structure, 1, batch, scale_batch)
    by_hand = realify_by_hand(p)
    x = p.sample((7, 2))
    assert x.shape == (7, 2, *p.batch_shape, D)
    for real in (by_hand, p.to_real()):
        torch.testing.assert_close(p.log_prob(x), real.log_prob(stack_parts(x)))
        torch.testing.assert_close(p.entropy(), real.entropy())
        torch.testing.assert_close(stack_parts(p.mean), real.mean)
        torch.testing.assert_close(by_hand.covariance_matrix, real.covariance_matrix)
    assert p.log_prob(x).dtype == F64
    assert p.entropy().shape == p.batch_shape


@pytest.mark.parametrize(("left", "right"), PAIRS)
@pytest.mark.parametrize(
    ("batch_p", "batch_q"), [((), ()), ((4,), (4,)), ((4, 1), (2,)), ((), (3,))]
)
@pytest.mark.parametrize("shared_scale", [False, True])
def test_kl(left: str, right: str, batch_p: tuple, batch_q: tuple, shared_scale: bool) -> None:
    p = make(left, 2, batch_p, () if shared_scale else batch_p)
    q = make(right, 3, batch_q, () if shared_scale else batch_q)
    kl = kl_divergence(p, q)
    assert kl.shape == torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    assert kl.dtype == F64
    torch.testing.assert_close(kl, kl_divergence(realify_by_hand(p), realify_by_hand(q)))
    assert (kl > 0).all()
    same = kl_divergence(p, p)
    torch.testing.assert_close(same, torch.zeros_like(same), atol=1e-13, rtol=0)


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_kl_does_not_depend_on_how_the_covariance_is_given(left: str, right: str) -> None:
    p, q = make(left, 4, (2,)), make(right, 5, (2,))
    p_full = ComplexNormal.from_covariance(p.loc, p.covariance_matrix)
    q_full = ComplexNormal.from_covariance(q.loc, q.covariance_matrix)
    torch.testing.assert_close(kl_divergence(p, q), kl_divergence(p_full, q_full))
    x = p.sample((3,))
    torch.testing.assert_close(p.log_prob(x), p_full.log_prob(x))


@pytest.mark.parametrize("dimension", [1, 2, 40])
def test_one_dimension_and_many(dimension: int) -> None:
    """At D = 1 the three structures are one; a width of 1 must not be taken for a scalar scale."""
    for left, right in PAIRS:
        p, q = make(left, 6, (2,), dimension=dimension), make(right, 7, dimension=dimension)
        expected = kl_divergence(p.to_real(), q.to_real())
        torch.testing.assert_close(kl_divergence(p, q), expected)


def test_known_values() -> None:
    unit = ComplexNormal(torch.zeros(1, dtype=C128), scale=1.0)
    zero = torch.zeros(1, dtype=C128)
    assert unit.log_prob(zero).item() == pytest.approx(-math.log(math.pi))
    assert unit.entropy().item() == pytest.approx(1 + math.log(math.pi))
    # CLAIMS, G9 with δ = 0: |μ|² + σ - 1 - log σ, σ the variance.
    p = ComplexNormal(torch.tensor([0.3 - 0.4j], dtype=C128), scale=math.sqrt(2))
    assert kl_divergence(p, unit).item() == pytest.approx(0.25 + 2 - 1 - math.log(2))
    # The phase of x - μ does not matter: circular.
    x = torch.tensor([1.0 + 2.0j], dtype=C128)
    torch.testing.assert_close(unit.log_prob(x), unit.log_prob(x * 1j))


# ------------------------------------------------------------------ what it is made of


@pytest.mark.parametrize("structure", STRUCTURES)
def test_properties(structure: str) -> None:
    p = make(structure, 8, (2, 1), (4,))
    sigma = p.covariance_matrix
    assert p.structure == structure
    assert p.batch_shape == (2, 4)
    assert p.event_shape == (D,)
    assert p.scale_tril.shape == sigma.shape == (2, 4, D, D)
    assert p.scale_tril.dtype == sigma.dtype == C128
    assert bool(complex_lower_cholesky.check(p.scale_tril).all())
    torch.testing.assert_close(p.scale_tril @ p.scale_tril.mH, sigma)
    assert p.variance.dtype == F64
    torch.testing.assert_close(p.variance, sigma.diagonal(dim1=-2, dim2=-1).real)
    torch.testing.assert_close(p.stddev, p.variance.sqrt())
    assert p.mean is p.loc
    assert p.mode is p.loc
    assert (p.scale is None) == (structure != "scalar")
    assert (p.scale_diag is None) == (structure == "full")
    if p.scale_diag is not None:
        torch.testing.assert_close(p.scale_diag, p.stddev)
    for name, constraint in p.arg_constraints.items():
        assert bool(constraint.check(getattr(p, name)).all())
    assert p.support is complex_vector
    assert bool(p.support.check(p.sample((3,))).all())
    assert structure in repr(p)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_expand(structure: str) -> None:
    p = make(structure, 9, (2, 1))
    wide = p.expand((5, 2, 3))
    assert wide.batch_shape == (5, 2, 3)
    x = wide.sample()
    assert x.shape == (5, 2, 3, D)
    torch.testing.assert_close(wide.log_prob(x), p.log_prob(x))
    torch.testing.assert_close(wide.entropy(), p.entropy().expand(5, 2, 3))
    torch.testing.assert_close(kl_divergence(wide, p), torch.zeros(5, 2, 3, dtype=F64))
    assert wide.covariance_matrix.shape == (5, 2, 3, D, D)
    assert wide.to_real().batch_shape == (5, 2, 3)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_to_and_copy(structure: str) -> None:
    p = make(structure, 10, (2,))
    single = p.to(torch.complex64)
    assert single.loc.dtype == torch.complex64
    assert single.variance.dtype == torch.float32
    assert p.to("cpu", torch.complex64).loc.dtype == torch.complex64
    assert p.to("cpu").loc.dtype == C128
    x = p.sample((4,))
    tolerance = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(
        single.log_prob(x.to(torch.complex64)).double(), p.log_prob(x), **tolerance
    )
    q = make("full", 11, (2,))
    for left, right in ((p, q), (q, p)):
        low = kl_divergence(left.to(torch.complex64), right.to(torch.complex64))
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), kl_divergence(left, right), **tolerance)
    torch.testing.assert_close(copy.deepcopy(p).entropy(), p.entropy())


def test_a_number_for_scale() -> None:
    loc = torch.zeros(2, D, dtype=torch.complex64)
    p = ComplexNormal(loc, scale=2)
    assert p.scale is not None
    assert p.scale.dtype == torch.float32
    torch.testing.assert_close(p.variance, torch.full((2, D), 4.0))


def test_empty_batch() -> None:
    for structure in STRUCTURES:
        p = make(structure, 0, (0,))
        assert p.sample((2,)).shape == (2, 0, D)
        assert p.log_prob(p.sample((2,))).shape == (2, 0)
        assert p.entropy().shape == (0,)
        assert all(kl_divergence(p, make(right)).shape == (0,) for right in STRUCTURES)
        assert p.covariance_matrix.shape == (0, D, D)
        assert p.to_real().batch_shape == (0,)  # its own log_prob fails on an empty batch
        assert p.sample((0,)).shape == (0, 0, D)


def test_extreme_scales_keep_their_digits() -> None:
    """Ratios are taken before squares: what float64 can hold comes out right."""
    loc = torch.zeros(2, dtype=C128)
    p = ComplexNormal(loc, scale=1e-200)
    q = ComplexNormal(loc, scale=2e-200)
    expected = 2 * (2 * math.log(2) - 1 + 0.25)
    assert kl_divergence(p, q).item() == pytest.approx(expected)
    assert kl_divergence(p.to("cpu"), ComplexNormal(loc, scale=1e200)).isfinite()


# ------------------------------------------------------------------ samples


@pytest.mark.parametrize("structure", STRUCTURES)
def test_moments_of_samples(structure: str) -> None:
    """Mean, covariance, relation matrix and log density, each within 5 standard errors."""
    p = make(structure, 12)
    torch.manual_seed(20240)
    n = 100_000
    x = p.sample((n,))
    centred = x - p.mean

    def within(values: Tensor, expected: Tensor) -> None:
        for part in (torch.real, torch.imag) if values.is_complex() else (lambda t: t,):
            error = part(values).mean(0) - part(expected)
            allowed = 5 * part(values).std(0) / math.sqrt(n)
            assert (error.abs() <= allowed + 1e-12).all()

    within(x, p.mean)
    within(torch.einsum("ni,nj->nij", centred, centred.conj()), p.covariance_matrix)
    within(torch.einsum("ni,nj->nij", centred, centred), torch.zeros(D, D, dtype=C128))
    within(-p.log_prob(x), p.entropy())
    q = make("full", 13)
    within(p.log_prob(x) - q.log_prob(x), kl_divergence(p, q))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_rsample_is_reparametrised(structure: str) -> None:
    """A sample is affine in loc and in the scale, with the noise held fixed by the seed."""
    p = make(structure, 14)
    factor = p._factor

    def draw(loc: Tensor, factor: Tensor) -> Tensor:
        torch.manual_seed(5)
        name = {"scalar": "scale", "diagonal": "scale_diag", "full": "scale_tril"}[structure]
        q = ComplexNormal(loc, **{name: factor}, validate_args=False)
        return q.rsample((2,))

    inputs = (p.loc.clone().requires_grad_(), factor.clone().requires_grad_())
    assert gradcheck(draw, inputs, check_forward_ad=True)
    assert not p.expand((2,)).sample().requires_grad
    torch.manual_seed(5)
    noise = torch.randn(2, D, dtype=C128)
    expected = p.loc + torch.einsum("ij,nj->ni", p.scale_tril, noise)
    torch.testing.assert_close(draw(p.loc, factor), expected)


def test_gradient_of_an_expectation() -> None:
    """d/dσ E|x|² = 2 D σ and ∂E|x|²/∂μ̄ = μ, by reparametrised samples."""
    torch.manual_seed(6)
    loc = torch.tensor([1.0 + 1.0j, -2.0j], dtype=C128, requires_grad=True)
    scale = torch.tensor(0.7, dtype=F64, requires_grad=True)
    x = ComplexNormal(loc, scale=scale).rsample((200_000,))
    (x * x.conj()).real.sum(-1).mean().backward()
    assert scale.grad is not None
    assert loc.grad is not None
    assert scale.grad.item() == pytest.approx(2 * 2 * 0.7, rel=0.02)
    torch.testing.assert_close(loc.grad, 2 * loc.detach(), rtol=0.02, atol=0.02)  # 2 ∂/∂z̄


# ------------------------------------------------------------------ derivatives


def decode(structure: str) -> Callable[[Tensor], ComplexNormal]:
    """A smooth map from R^2 to distributions on C^3, non-holomorphic, of the given structure."""
    generator = torch.Generator().manual_seed(15)
    mean = torch.randn(D, 2, dtype=C128, generator=generator)
    deviation = torch.randn(D, 2, dtype=F64, generator=generator) / 3
    root = torch.randn(2, D, D, dtype=C128, generator=generator)

    def at(x: Tensor) -> ComplexNormal:
        z = x.to(C128)
        loc = mean @ (z + z * z)
        if structure == "scalar":
            return ComplexNormal(loc, scale=(deviation[0] @ x).exp())
        if structure == "diagonal":
            return ComplexNormal(loc, scale_diag=(deviation @ x).exp())
        factor = torch.eye(D, dtype=C128) + torch.einsum("i,ijk->jk", z, root)
        return ComplexNormal.from_covariance(loc, factor @ factor.mH + torch.eye(D))

    return at


POINT = torch.tensor([0.3, -0.2], dtype=F64)


def finite_difference_hessian(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Second central differences of fourth order, from values alone."""
    h = 2e-3
    n = len(x)
    steps = torch.eye(n, dtype=x.dtype) * h
    weights = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
    hessian = torch.zeros(n, n, dtype=x.dtype)
    for i in range(n):
        for j in range(n):
            for a, wa in weights.items():
                for b, wb in weights.items():
                    hessian[i, j] += wa * wb * f(x + a * steps[i] + b * steps[j])
    return hessian / h**2


MODES = {
    "reverse over reverse": lambda f: jacrev(jacrev(f)),
    "forward over reverse": lambda f: jacfwd(jacrev(f)),
    "forward over forward": lambda f: jacfwd(jacfwd(f)),
    "reverse over forward": lambda f: jacrev(jacfwd(f)),
    "torch.autograd": lambda f: lambda x: torch.autograd.functional.hessian(f, x),
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize(("left", "right"), PAIRS)
@pytest.mark.parametrize("where", ["off the diagonal", "on the diagonal"])
def test_second_derivatives_of_kl_agree_in_every_mode(left: str, right: str, where: str) -> None:
    """Also at μ_p = μ_q, where abs()**2 would lose the mean's part of the Fisher metric."""
    p = decode(left)(POINT if where == "on the diagonal" else POINT + 0.1)
    q = decode(right)

    def kl(y: Tensor) -> Tensor:
        return kl_divergence(p, q(y))

    truth = finite_difference_hessian(kl, POINT)
    reference = MODES["reverse over reverse"](kl)(POINT)
    torch.testing.assert_close(reference, truth, rtol=1e-7, atol=1e-7)
    for name, mode in MODES.items():
        torch.testing.assert_close(mode(kl)(POINT), reference, msg=lambda m, n=name: f"{n}: {m}")
    points = torch.stack([POINT, POINT + 0.05, POINT - 0.1])
    for mode in list(MODES.values())[:4]:
        batched = vmap(mode(kl))(points)
        torch.testing.assert_close(batched, torch.stack([mode(kl)(x) for x in points]))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_kl_hessian_on_the_diagonal_is_the_fisher_metric(structure: str) -> None:
    """E[∂_iℓ ∂_jℓ] = tr(P ∂_iΣ P ∂_jΣ) + 2 Re (∂_iμ)ᴴ P ∂_jμ, in every mode."""
    at = decode(structure)
    mean_steps = torch.complex(
        jacfwd(lambda x: at(x).mean.real)(POINT), jacfwd(lambda x: at(x).mean.imag)(POINT)
    )
    cov_steps = torch.complex(
        jacfwd(lambda x: at(x).covariance_matrix.real)(POINT),
        jacfwd(lambda x: at(x).covariance_matrix.imag)(POINT),
    ).movedim(-1, 0)
    precision = torch.linalg.inv(at(POINT).covariance_matrix)
    steps = precision @ cov_steps
    fisher = torch.einsum("iab,jba->ij", steps, steps).real
    fisher = fisher + 2 * (mean_steps.mH @ precision @ mean_steps).real
    for mode in MODES.values():
        p = at(POINT)
        torch.testing.assert_close(mode(lambda y, p=p: kl_divergence(p, at(y)))(POINT), fisher)


def rebuild(
    structure: str,
    loc: Tensor,
    factor: Tensor,
    relation: Tensor | None = None,
    validate_args: bool = False,
) -> ComplexNormal:
    if structure == "full":
        # Finite differences move every entry, and a diagonal off the reals: project.
        off_diagonal = factor.tril(-1)
        diagonal = torch.diag_embed(factor.diagonal(dim1=-2, dim2=-1).real).to(factor.dtype)
        factor = off_diagonal + diagonal
        relation = None if relation is None else (relation + relation.mT) / 2
    name = {"scalar": "scale", "diagonal": "scale_diag", "full": "scale_tril"}[structure]
    return ComplexNormal(loc, relation=relation, validate_args=validate_args, **{name: factor})


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_gradcheck_of_kl(left: str, right: str) -> None:
    p, q = make(left, 16), make(right, 17)

    def kl(*inputs: Tensor) -> Tensor:
        return kl_divergence(rebuild(left, *inputs[:2]), rebuild(right, *inputs[2:]))

    inputs = [t.clone().requires_grad_() for t in (p.loc, p._factor, q.loc, q._factor)]
    assert gradcheck(kl, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(kl, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_gradcheck_of_the_rest(structure: str) -> None:
    p = make(structure, 18)
    x = p.sample((2,))

    def outputs(loc: Tensor, factor: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        q = rebuild(structure, loc, factor)
        return q.log_prob(value), q.entropy(), q.covariance_matrix, q.variance, q.scale_tril

    inputs = [t.clone().requires_grad_() for t in (p.loc, p._factor, x)]
    assert gradcheck(outputs, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(outputs, inputs, check_fwd_over_rev=True)


def test_gradcheck_of_from_covariance() -> None:
    """The derivative sees both triangles, as the value does."""
    p = make("full", 19)

    def log_prob(loc: Tensor, covariance: Tensor) -> Tensor:
        q = ComplexNormal.from_covariance(loc, covariance, validate_args=False)
        return q.log_prob(p.loc + 1)

    inputs = [t.clone().requires_grad_() for t in (p.loc, p.covariance_matrix)]
    assert gradcheck(log_prob, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(log_prob, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("validate", [False, True])
def test_vmap(structure: str, validate: bool) -> None:
    """With validation too: inside vmap values cannot be read, so they are passed over."""
    p = make(structure, 20, (4,))
    q = make("full", 21)
    x = p.sample()

    def one(loc: Tensor, factor: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        name = {"scalar": "scale", "diagonal": "scale_diag", "full": "scale_tril"}[structure]
        r = ComplexNormal(loc, **{name: factor}, validate_args=validate)
        return r.log_prob(value), r.entropy(), kl_divergence(r, q), kl_divergence(q, r), r.variance

    batched = vmap(one)(p.loc, p._factor, x)
    looped = (p.log_prob(x), p.entropy(), kl_divergence(p, q), kl_divergence(q, p), p.variance)
    for got, expected in zip(batched, looped, strict=True):
        torch.testing.assert_close(got, expected)
    gradients = vmap(grad(lambda *a: one(*a)[0].real), (0, 0, 0))(p.loc, p._factor, x)
    assert gradients.shape == p.loc.shape
    samples = vmap(lambda loc: ComplexNormal(loc, scale=1.0).rsample(), randomness="different")(
        p.loc
    )
    assert samples.shape == p.loc.shape


def test_transforms_see_through_a_distribution_made_outside() -> None:
    """A property first read inside a transform is the same outside of it afterwards."""
    p = make("full", 22, (2,))
    before = p.covariance_matrix
    p_again = make("full", 22, (2,))

    def f(t: Tensor) -> Tensor:
        return (p_again.covariance_matrix.real.sum() + p_again.to_real().entropy().sum()) * t

    jvp(grad(f), (torch.tensor(1.0),), (torch.tensor(1.0),))
    with torch.no_grad():
        assert torch.equal(p_again.covariance_matrix, before)


def test_compiles_without_a_graph_break() -> None:
    q = make("scalar", 23)

    def f(loc: Tensor, deviations: Tensor) -> Tensor:
        return kl_divergence(ComplexNormal(loc, scale_diag=deviations), q)

    p = make("diagonal", 24, (5,))
    assert p.scale_diag is not None
    compiled = torch.compile(f, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(p.loc, p.scale_diag), kl_divergence(p, q))
    # torch.compile has switched off validation for every torch distribution; ours stays.
    with pytest.raises(InputError):
        ComplexNormal(p.loc, scale=-1.0)


# ------------------------------------------------------------------ improper


def make_improper(structure: str, seed: int, batch: tuple[int, ...] = ()) -> ComplexNormal:
    """A distribution with a relation of every coherence, by the factors of a real Gaussian."""
    p = make(structure, seed, batch)
    generator = torch.Generator().manual_seed(seed + 1000)
    if structure != "full":
        phase = torch.randn(p._factor.shape, dtype=C128, generator=generator)
        shrink = 0.95 * torch.rand(p._factor.shape, dtype=F64, generator=generator)
        relation = shrink * p._factor.square() * phase / phase.abs()
        return rebuild(structure, p.loc, p._factor, relation, validate_args=True)
    root = torch.randn(*batch, 2 * D, 2 * D, dtype=F64, generator=generator)
    real = root @ root.mT + torch.eye(2 * D)
    xx, xy = real[..., :D, :D], real[..., :D, D:]
    yx, yy = real[..., D:, :D], real[..., D:, D:]
    covariance = torch.complex(xx + yy, yx - xy)
    relation = torch.complex(xx - yy, yx + xy)
    return ComplexNormal.from_covariance(p.loc, covariance, relation=relation)


def realify_improper_by_hand(p: ComplexNormal) -> MultivariateNormal:
    """From E[Re(ū x) Re(v̄ x)] = ½ Re(ūᵀ Σ v + ūᵀ R v̄) on u, v = e_i, i e_i."""
    basis = torch.cat([torch.eye(D), 1j * torch.eye(D)]).to(C128)
    sigma, relation = p.covariance_matrix, p.relation_matrix
    covariance = (basis.conj() @ sigma @ basis.mT + basis.conj() @ relation @ basis.mH).real / 2
    return MultivariateNormal(stack_parts(p.mean), covariance)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_improper_against_the_real_gaussian(structure: str, batch: tuple) -> None:
    p = make_improper(structure, 30, batch)
    assert not p.is_circular
    assert "improper" in repr(p)
    by_hand = realify_improper_by_hand(p)
    x = p.sample((7,))
    for real in (by_hand, p.to_real()):
        torch.testing.assert_close(p.log_prob(x), real.log_prob(stack_parts(x)))
        torch.testing.assert_close(p.entropy(), real.entropy())
        torch.testing.assert_close(by_hand.covariance_matrix, real.covariance_matrix)
    wide = p.expand((5, *batch))
    assert wide.relation_matrix.shape == (5, *batch, D, D)
    torch.testing.assert_close(wide.log_prob(x[:5]), p.log_prob(x[:5]))
    single = p.to(torch.complex64)
    assert single.relation is not None
    assert single.relation.dtype == torch.complex64
    torch.testing.assert_close(single.entropy().double(), p.entropy(), atol=1e-4, rtol=1e-4)
    for name, constraint in p.arg_constraints.items():
        assert bool(constraint.check(getattr(p, name)).all())


@pytest.mark.parametrize(("left", "right"), PAIRS)
@pytest.mark.parametrize(("batch_p", "batch_q"), [((), ()), ((4,), ()), ((2, 1), (3,))])
def test_improper_kl(left: str, right: str, batch_p: tuple, batch_q: tuple) -> None:
    p, q = make_improper(left, 31, batch_p), make_improper(right, 32, batch_q)
    for one, other in ((p, q), (p, make(right, 33, batch_q)), (make(left, 34, batch_p), q)):
        reals = [
            realify_by_hand(r) if r.is_circular else realify_improper_by_hand(r)
            for r in (one, other)
        ]
        torch.testing.assert_close(kl_divergence(one, other), kl_divergence(*reals))
    same = kl_divergence(p, p)
    torch.testing.assert_close(same, torch.zeros_like(same), atol=1e-12, rtol=0)


def test_improper_kl_is_that_of_claim_g9() -> None:
    mu, sigma, delta = 0.3 - 0.4j, 1.7, 0.8 + 0.9j
    unit = ComplexNormal(torch.zeros(D, dtype=C128), scale=1.0)
    p = ComplexNormal(torch.full((D,), mu, dtype=C128), scale=math.sqrt(sigma), relation=delta)
    each = abs(mu) ** 2 + sigma - 1 - math.log(sigma**2 - abs(delta) ** 2) / 2
    assert each == pytest.approx(0.25 + 0.7 - 0.5 * math.log(2.89 - 1.45))
    assert kl_divergence(p, unit).item() == pytest.approx(D * each)
    assert kl_divergence(p.to_real(), unit.to_real()).item() == pytest.approx(D * each)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_relation_of_zero_changes_nothing(structure: str) -> None:
    p, q = make(structure, 35, (2,)), make("diagonal", 36)
    zero = rebuild(structure, p.loc, p._factor, torch.zeros_like(p._factor, dtype=C128))
    x = q.sample((3, 2))
    torch.testing.assert_close(zero.log_prob(x), p.log_prob(x))
    torch.testing.assert_close(zero.entropy(), p.entropy())
    torch.testing.assert_close(kl_divergence(zero, q), kl_divergence(p, q))
    torch.testing.assert_close(kl_divergence(q, zero), kl_divergence(q, p))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_moments_of_improper_samples(structure: str) -> None:
    p = make_improper(structure, 37)
    torch.manual_seed(38)
    count = 40_000
    r = p.rsample((count,)) - p.loc
    products = r[:, :, None] * r[:, None, :]
    error = 5 * products.abs().std(0) / math.sqrt(count)
    assert bool(((products.mean(0) - p.relation_matrix).abs() < error).all())
    hermitian = r[:, :, None] * r.conj()[:, None, :]
    assert bool(((hermitian.mean(0) - p.covariance_matrix).abs() < error).all())
    entropy = -p.log_prob(r + p.loc)
    assert entropy.mean().item() == pytest.approx(
        p.entropy().item(), abs=5 * entropy.std().item() / math.sqrt(count)
    )


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("circular", [False, True])
def test_gradcheck_of_improper(structure: str, circular: bool) -> None:
    """At a relation of 0 too."""
    p, q = make_improper(structure, 39), make_improper(structure, 40)
    x = q.sample()
    assert p.relation is not None
    start = torch.zeros_like(p.relation) if circular else p.relation

    def outputs(loc: Tensor, factor: Tensor, relation: Tensor) -> tuple[Tensor, ...]:
        r = rebuild(structure, loc, factor, relation)
        torch.manual_seed(41)
        draw = r.rsample()
        return r.log_prob(x), r.entropy(), kl_divergence(r, q), kl_divergence(q, r), draw

    inputs = [t.clone().requires_grad_() for t in (p.loc, p._factor, start)]
    assert gradcheck(outputs, inputs)


def test_improper_in_vmap_and_without_values() -> None:
    for structure in STRUCTURES:
        p, q = make_improper(structure, 42, (4,)), make_improper("diagonal", 43)
        x = p.sample()

        def one(
            loc: Tensor,
            factor: Tensor,
            relation: Tensor,
            value: Tensor,
            s: str = structure,
            o: ComplexNormal = q,
        ) -> tuple[Tensor, Tensor]:
            r = rebuild(s, loc, factor, relation, validate_args=s != "full")
            return r.log_prob(value), kl_divergence(r, o)

        log_prob, kl = vmap(one)(p.loc, p._factor, p.relation, x)
        torch.testing.assert_close(log_prob, p.log_prob(x))
        torch.testing.assert_close(kl, kl_divergence(p, q))
        meta = p.to("meta")
        assert meta.rsample((2,)).shape == (2, 4, D)
        assert kl_divergence(meta, meta).shape == (4,)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_fisher_metric_of_improper_outputs_is_the_hessian_of_kl(structure: str) -> None:
    """With a relation that depends on z, too."""
    q = make_improper(structure, 44)
    assert q.relation is not None
    start = torch.cat([q.loc.real, q.loc.imag])

    def decoder(z: Tensor) -> ComplexNormal:
        loc = z * z + z.conj()[..., [1, 2, 0]]
        size = (z * z.conj()).real.sum(-1)
        stretch = (1 + 0.1 * size).reshape((*size.shape, *[1] * q._factor.ndim))
        turn = torch.polar(torch.ones_like(size), size).reshape(stretch.shape)
        relation = q._relation * turn * stretch.square()
        return rebuild(structure, loc, q._factor * stretch, relation)

    def divergence(u: Tensor) -> Tensor:
        at = [decoder(torch.complex(*v.chunk(2))) for v in (start, u)]
        return kl_divergence(*at)

    expected = torch.autograd.functional.hessian(divergence, start)
    metric = FisherMetric(decoder)
    torch.testing.assert_close(metric.real_metric_matrix(q.loc), expected)
    batch = torch.stack([q.loc, q.loc * 1j])
    torch.testing.assert_close(metric.real_metric_matrix(batch)[0], expected)


# ------------------------------------------------------------------ validation


@pytest.mark.parametrize("structure", STRUCTURES)
def test_without_validation_no_value_is_read(structure: str) -> None:
    """The meta device has no values: whatever would synchronise a GPU fails there."""
    shapes = {"scalar": (4,), "diagonal": (4, D), "full": (4, D, D)}
    loc = torch.empty(4, D, dtype=C128, device="meta")
    dtype = C128 if structure == "full" else F64
    factor = torch.empty(shapes[structure], dtype=dtype, device="meta")
    name = {"scalar": "scale", "diagonal": "scale_diag", "full": "scale_tril"}[structure]
    p = ComplexNormal(loc, **{name: factor}, validate_args=False)
    q = ComplexNormal.from_covariance(loc, p.covariance_matrix, validate_args=False)
    assert p.log_prob(p.rsample((2,))).shape == (2, 4)
    assert p.entropy().shape == (4,)
    for left, right in ((p, q), (q, p), (p, p)):
        assert kl_divergence(left, right).shape == (4,)
    assert q.to_real().entropy().shape == (4,)


def test_without_validation_bad_values_give_nan() -> None:
    loc = torch.zeros(2, dtype=C128)
    negative = ComplexNormal(loc, scale=-1.0, validate_args=False)
    assert negative.log_prob(loc).isnan()
    assert negative.entropy().isnan()
    indefinite = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=C128)
    batch = torch.stack([torch.eye(2, dtype=C128), indefinite])
    p = ComplexNormal.from_covariance(loc, batch, validate_args=False)
    assert p.entropy().isnan().tolist() == [False, True]
    assert kl_divergence(p, negative).isnan().all()


def test_validation_remembers() -> None:
    p = make("full", 25, validate_args=False)
    assert p._validate_args is False
    assert p.expand((2,))._validate_args is False
    assert p.to(torch.complex64)._validate_args is False
    assert make("full", 25)._validate_args is True
    bad = torch.full((D,), math.nan, dtype=C128)
    assert p.log_prob(bad).isnan()
    with pytest.raises(InputError, match="value must be finite"):
        make("full", 25).log_prob(bad)


def test_a_matrix_hermitian_up_to_rounding_is_accepted() -> None:
    for dtype in (torch.complex64, C128):
        root = torch.randn(50, 50, dtype=dtype, generator=torch.Generator().manual_seed(26))
        covariance = root @ root.mH + torch.eye(50)
        noise = 4 * torch.finfo(dtype).eps * covariance.abs().max()
        covariance[0, 1] += noise
        p = ComplexNormal.from_covariance(torch.zeros(50, dtype=dtype), covariance)
        assert p.entropy().isfinite()


LOC = torch.zeros(D, dtype=C128)
EYE = torch.eye(D, dtype=C128)
ONES = torch.ones(D, dtype=F64)
SKEWED = EYE + torch.tensor([[0, 0.1j, 0], [0.1j, 0, 0], [0, 0, 0]], dtype=C128)
INDEFINITE = torch.diag(torch.tensor([1.0, 1.0, -0.5])).to(C128)
UNIT = ComplexNormal(LOC, scale=1.0)
new = ComplexNormal
cov = ComplexNormal.from_covariance


def changed(tensor: Tensor, index: tuple[int, ...], value: complex) -> Tensor:
    result = tensor.clone()
    result[index] = value
    return result


BAD_INPUT: list[tuple[str, Callable[[], Any], str]] = [
    ("no scale", lambda: new(LOC), "exactly one of scale, .* got none"),
    ("two scales", lambda: new(LOC, scale=1.0, scale_diag=ONES), "got scale and scale_diag"),
    ("three", lambda: new(LOC, scale=1.0, scale_diag=ONES, scale_tril=EYE), "and scale_tril"),
    ("loc no tensor", lambda: new([0j, 0j], scale=1.0), "loc to be a torch.Tensor .* list"),
    ("loc real", lambda: new(ONES, scale=1.0), "loc to be complex .*=torch.float64"),
    ("loc integer", lambda: new(torch.zeros(3, dtype=torch.int64), scale=1.0), "loc.*torch.int64"),
    ("loc half", lambda: new(torch.empty(3, dtype=torch.complex32), scale=1.0), "complex32"),
    ("loc no vector", lambda: new(torch.zeros((), dtype=C128), scale=1.0), r"loc.*\[\.\.\., D\]"),
    ("D = 0", lambda: new(torch.zeros(2, 0, dtype=C128), scale=1.0), r"D ≥ 1 .*\[2, 0\]"),
    ("loc NaN", lambda: new(changed(LOC, (1,), math.nan), scale=1.0), r"loc must be finite.*\[1\]"),
    ("loc inf", lambda: new(changed(LOC, (2,), 1j * math.inf), scale=1.0), "loc must be finite"),
    ("scale string", lambda: new(LOC, scale="1"), "scale to be a torch.Tensor .* str"),
    ("scale bool", lambda: new(LOC, scale=True), "scale to be a torch.Tensor .* bool"),
    ("scale zero", lambda: new(LOC, scale=0.0), "scale must be positive but is 0"),
    ("scale negative", lambda: new(LOC, scale=-2.0), "scale must be positive but is -2"),
    ("scale NaN", lambda: new(LOC, scale=math.nan), "scale must be finite but is nan"),
    ("scale inf", lambda: new(LOC, scale=math.inf), "scale must be finite but is inf"),
    ("scale float32", lambda: new(LOC, scale=torch.ones(())), "scale to be torch.float64"),
    ("scale complex", lambda: new(LOC, scale=EYE[0, 0]), "scale to be torch.float64"),
    ("scale batch", lambda: new(LOC.expand(2, 3), scale=ONES), "broadcast .* pass scale_diag"),
    ("loc complex64", lambda: new(LOC.to(torch.complex64), scale_diag=ONES), "torch.float32"),
    ("diag shape", lambda: new(LOC, scale_diag=ONES[:2]), r"scale_diag .*\[\.\.\., 3\].*\[2\]"),
    ("diag scalar", lambda: new(LOC, scale_diag=ONES[0]), "scale_diag to have the shape"),
    ("diag batch", lambda: new(LOC.expand(2, 3), scale_diag=ONES.expand(4, 3)), "broadcast"),
    ("diag zero", lambda: new(LOC, scale_diag=changed(ONES, (1,), 0)), r"scale_diag.* index \[1\]"),
    ("diag device", lambda: new(LOC, scale_diag=ONES.to("meta")), "scale_diag to be on cpu"),
    ("tril real", lambda: new(LOC, scale_tril=EYE.real), "scale_tril to be torch.complex128"),
    ("tril vector", lambda: new(LOC, scale_tril=EYE[0]), "scale_tril to have the shape"),
    ("tril not square", lambda: new(LOC, scale_tril=EYE[:, :2]), r"\[\.\.\., 3, 3\].*\[3, 2\]"),
    ("tril too big", lambda: new(LOC[:2], scale_tril=EYE), r"\[\.\.\., 2, 2\].*\[3, 3\]"),
    ("tril upper", lambda: new(LOC, scale_tril=changed(EYE, (0, 2), 1)), r"lower .*\[0, 2\]"),
    ("tril zero", lambda: new(LOC, scale_tril=changed(EYE, (1, 1), 0)), r"diagonal.*\[1, 1\]"),
    ("tril negative", lambda: new(LOC, scale_tril=changed(EYE, (2, 2), -1)), "positive diagonal"),
    ("tril imaginary", lambda: new(LOC, scale_tril=changed(EYE, (2, 2), 1 + 1j)), "real positive"),
    ("tril NaN", lambda: new(LOC, scale_tril=changed(EYE, (1, 0), math.nan)), "must be finite"),
    ("Σ not Hermitian", lambda: cov(LOC, SKEWED), r"Hermitian but max \|Σ - Σᴴ\| is 0\.2"),
    ("Σ indefinite", lambda: cov(LOC, INDEFINITE), "positive definite .* eigenvalue is -0.5"),
    ("Σ in a batch", lambda: cov(LOC, torch.stack([EYE, INDEFINITE])), r"index \[1\]"),
    ("Σ singular", lambda: cov(LOC, torch.zeros_like(EYE)), "smallest eigenvalue is 0"),
    ("Σ NaN", lambda: cov(LOC, changed(EYE, (0, 0), math.nan)), "covariance must be finite"),
    ("Σ not square", lambda: cov(LOC, EYE[:2]), "covariance to have the shape"),
    ("Σ dtype", lambda: cov(LOC, EYE.to(torch.complex64)), "covariance to be torch.complex128"),
    ("Σ real", lambda: cov(LOC, EYE.real), "covariance to be torch.complex128"),
    ("Σ and loc NaN", lambda: cov(changed(LOC, (0,), math.nan), EYE), "loc must be finite"),
    ("value shape", lambda: UNIT.log_prob(LOC[:2]), r"value .*\[\.\.\., 3\].*\[2\]"),
    ("value dtype", lambda: UNIT.log_prob(ONES), "value to be torch.complex128"),
    ("value batch", lambda: UNIT.expand((2,)).log_prob(LOC.expand(5, 3)), "value to broadcast"),
    ("value NaN", lambda: UNIT.log_prob(changed(LOC, (0,), math.nan)), "value must be finite"),
    ("expand", lambda: UNIT.expand((2,)).expand((3,)), "batch_shape to be an expansion"),
    ("δ = σ", lambda: new(LOC, scale=1.0, relation=1j), r"\|δ\| is 1, where the variance is 1\."),
    ("δ > σ", lambda: new(LOC, scale=2.0, relation=-4.5), r"variance E.* 4\.5.* variance is 4"),
    ("δ of one", lambda: new(LOC, scale_diag=ONES, relation=changed(LOC, (1,), 3)), r"index \[1\]"),
    ("δ NaN", lambda: new(LOC, scale=1.0, relation=math.nan), "relation must be finite"),
    ("δ real", lambda: new(LOC, scale_diag=ONES, relation=ONES), "relation to be torch.complex128"),
    ("δ bool", lambda: new(LOC, scale=1.0, relation=True), "relation to be a torch.Tensor .* bool"),
    ("δ number", lambda: new(LOC, scale_diag=ONES, relation=0.5), "relation to be a .* float"),
    ("δ shape", lambda: new(LOC, scale_diag=ONES, relation=LOC[:2]), r"relation .*\[2\]"),
    ("δ batch", lambda: new(LOC.expand(2, 3), scale=1.0, relation=LOC), "relation to broadcast"),
    ("R large", lambda: cov(LOC, EYE, relation=2 * EYE), r"smallest eigenvalue is -1\."),
    ("R with L", lambda: new(LOC, scale_tril=EYE, relation=1.5j * EYE), "eigenvalue is -0.5"),
    ("R not symmetric", lambda: cov(LOC, EYE, relation=EYE.tril(-1) + EYE[[1, 2, 0]] / 3), "= Rᵀ"),
    ("to real", lambda: UNIT.to(F64), "dtype to be torch.complex64 or"),
    ("kl events", lambda: kl_divergence(UNIT, new(LOC[:2], scale=1.0)), "same event_shape"),
    ("kl dtypes", lambda: kl_divergence(UNIT, UNIT.to(torch.complex64)), "q.loc to be"),
    ("kl batches", lambda: kl_divergence(UNIT.expand((2,)), UNIT.expand((3,))), "broadcast"),
]


@pytest.mark.parametrize(
    ("call", "message"), [row[1:] for row in BAD_INPUT], ids=[row[0] for row in BAD_INPUT]
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
