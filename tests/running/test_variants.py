"""Metrics with ``compile=True``: the general kernels' numbers, one function for all batches."""

import math
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sympy import exp, log, sqrt
from torch import Tensor
from torch._dynamo.utils import counters

import kahler_verify
from kahler_verify import MixtureMetric, PotentialMetric
from kahler_verify.calculus import coordinates, dimension, parameter, potential
from kahler_verify.errors import InputError
from kahler_verify.geometry import mixture as mixture_module
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.kernels import mixture_potential, quadratic_form
from kahler_verify.running import variants as unrolled_kernels
from kahler_verify.running.kernel_set import KernelSet
from kahler_verify.running.variants import INNER_COMPONENTS, LARGEST, mixture_tracer

C, R = torch.complex128, torch.float64
QUANTITIES = (
    "metric_matrix",
    "christoffels",
    "curvature_tensor",
    "ricci_tensor",
    "scalar_curvature",
    "log_volume",
    "kahler_defect",
)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The variants' text as torch runs it, without waiting for a compiler."""
    unrolled_kernels._compiled.cache_clear()
    monkeypatch.setattr(unrolled_kernels, "compile_kernel", lambda function: function)
    yield
    unrolled_kernels._compiled.cache_clear()


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=C, generator=torch.Generator().manual_seed(seed))


def mixture(
    d: int, count: int, kind: str = "potential", *, diagonal: bool = False, seed: int = 1
) -> tuple[MixtureMetric, MixtureMetric]:
    """A metric with and without unrolled kernels; the density's is positive near its centres."""
    root = numbers(count, d, d, seed=seed) / math.sqrt(d)
    precisions = root @ root.mH + 0.5 * torch.eye(d)
    if diagonal:
        precisions = precisions.diagonal(dim1=-2, dim2=-1).real.contiguous()
    weights = torch.rand(count, dtype=R, generator=torch.Generator().manual_seed(seed)) + 0.1
    given = (weights / weights.sum(), 0.2 * numbers(count, d, seed=seed + 1), precisions)
    general = MixtureMetric(*given, kind=kind)  # type: ignore[arg-type]
    return general, MixtureMetric(*given, kind=kind, compile=True)  # type: ignore[arg-type]


def used(metric: MixtureMetric | PotentialMetric) -> set[str]:
    """The kernels of which a variant has run."""
    assert metric._unrolled is not None
    return {kernel for (kernel, _), variant in metric._unrolled._variants.items() if variant}


def assert_same(general: HermitianMetric, unrolled: HermitianMetric, z: Tensor) -> None:
    for quantity in QUANTITIES:
        expected = getattr(general, quantity)(z)
        got = getattr(unrolled, quantity)(z)
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12, msg=quantity)


# ------------------------------------------------------------------ values


@pytest.mark.usefixtures("eager")
@given(
    d=st.integers(1, 3),
    count=st.sampled_from([1, 3, INNER_COMPONENTS - 1, INNER_COMPONENTS]),
    batch=st.sampled_from([(), (1,), (5,), (2, 3)]),
    kind=st.sampled_from(["potential", "density"]),
    diagonal=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_mixture_s_geometry_is_that_of_the_general_kernels(
    d: int, count: int, batch: tuple[int, ...], kind: str, diagonal: bool, seed: int
) -> None:
    general, unrolled = mixture(d, count, kind, diagonal=diagonal, seed=seed)
    z = 0.2 * numbers(*batch, d, seed=seed + 7)
    assert_same(general, unrolled, z)
    v = numbers(*batch, d, seed=seed + 8)
    expected = general.holomorphic_sectional_curvature(z, v)
    got = unrolled.holomorphic_sectional_curvature(z, v)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)
    wanted = {"metric", "metric_d", "metric_db", "ricci", "scalar", "holomorphic_sectional"}
    assert used(unrolled) == wanted


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("d", [1, 2, 3, LARGEST])
@pytest.mark.parametrize("name", ["fubini_study", "complex_ball"])
def test_a_shipped_potential(name: str, d: int) -> None:
    general, unrolled = PotentialMetric(name), PotentialMetric(name, compile=True)
    z = 0.1 * numbers(3, 4, d)
    assert_same(general, unrolled, z)
    assert_same(general, unrolled, z[0, 0])
    assert used(unrolled) == {"metric", "metric_d", "metric_db"}
    variants = mixture_module.chern._variants
    chern = {kernel for (kernel, of), variant in variants.items() if of == d and variant}
    assert chern >= {"chern_connection"}
    assert (chern >= {"chern_curvature", "chern_ricci", "chern_scalar"}) == (d < LARGEST)


@pytest.mark.parametrize("kernel", ["metric", "metric_d"])
def test_a_variant_s_text_is_differentiable(kernel: str) -> None:
    """By point and parameters, though metrics leave gradients to the general kernels."""
    torch.manual_seed(0)
    variant = mixture_tracer(quadratic_form, mixture_potential, 1, False)(kernel, 2)
    scope: dict = {}
    exec(variant.text, scope)
    rows = [
        torch.randn(len(a.rows), 3 if a.over else 1, 1 if a.over else 2, dtype=R).requires_grad_()
        for a in variant.arguments
    ]
    assert torch.autograd.gradcheck(lambda *rows: scope[kernel](*rows, 0), rows)


D, M = dimension("d"), dimension("m")
Z = coordinates("z", D)
A, T, B = (
    parameter("A", D, D, hermitian=True),
    parameter("t", hermitian=True, positive=True),
    parameter("B", M, D),
)
USERS = {
    "a Hermitian matrix and a number": potential("user", log(2 + T + Z.H * A * Z)),
    "a matrix of other dimensions": potential("user", sqrt(2 + Z.H * B.H * B * Z) + exp(Z.H * Z)),
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("lead", [(), (1,), (4,), (3, 1)])
@pytest.mark.parametrize("definition", USERS)
def test_a_user_s_potential_with_parameters_of_any_batch(
    definition: str, lead: tuple[int, ...]
) -> None:
    """One parameter for all points, or one for each."""
    kernels = kahler_verify.compile(USERS[definition])
    root = 0.3 * numbers(*lead, 2, 2, seed=3)
    given = {
        "A": root @ root.mH,
        "t": numbers(*lead, seed=4).abs().to(C),
        "B": 0.3 * numbers(*lead, 3, 2, seed=5),
    }
    names = KernelSet(kernels).parameters
    parameters = {name: given[name] for name in names}
    general = PotentialMetric(kernels, **parameters)
    unrolled = PotentialMetric(kernels, compile=True, **parameters)
    assert_same(general, unrolled, 0.2 * numbers(3, 4, 2))
    assert used(unrolled) == {"metric", "metric_d", "metric_db"}


# ------------------------------------------------------------------ where general kernels run


@pytest.mark.usefixtures("eager")
def test_autograd_and_torch_func_follow_the_general_kernels() -> None:
    general, unrolled = mixture(2, 5)
    z = 0.2 * numbers(2)
    for f in (general, unrolled):
        assert torch.autograd.gradcheck(f.log_volume, z.clone().requires_grad_(True))
    assert used(unrolled) == set()
    x = torch.view_as_real(z)
    ours, theirs = [
        torch.func.jacrev(lambda x, f=f: f.metric_matrix(torch.view_as_complex(x)).real)(x)
        for f in (unrolled, general)
    ]
    torch.testing.assert_close(ours, theirs)
    batch = 0.2 * numbers(3, 2)
    mapped = torch.vmap(unrolled.metric_matrix)(batch)
    torch.testing.assert_close(mapped, general.metric_matrix(batch))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z, numbers(2, seed=9))
        out = torch.autograd.forward_ad.unpack_dual(unrolled.metric_matrix(dual))
        expected = torch.autograd.forward_ad.unpack_dual(general.metric_matrix(dual))
    torch.testing.assert_close(out.tangent, expected.tangent)
    assert used(unrolled) == set()
    with torch.no_grad():
        unrolled.metric_matrix(z.clone().requires_grad_(True))
    assert used(unrolled) == {"metric"}


@pytest.mark.usefixtures("eager")
def test_larger_dimensions_and_longer_kernels_are_general() -> None:
    for d, expected in ((LARGEST, {"metric", "metric_d"}), (LARGEST + 1, set())):
        general, unrolled = mixture(d, 3)
        assert_same(general, unrolled, 0.1 * numbers(4, d))
        assert used(unrolled) == expected


@pytest.mark.usefixtures("eager")
def test_input_that_is_wrong_is_found_as_ever() -> None:
    _, metric = mixture(2, 5)
    for z in (numbers(4, 3), numbers(4, 2).to(torch.complex64), numbers(4, 2) * math.nan):
        with pytest.raises(InputError, match=r"^z: expected"):
            metric.metric_matrix(z)
    weighted = PotentialMetric(
        kahler_verify.compile(USERS["a matrix of other dimensions"]), B=numbers(3, 2), compile=True
    )
    for z, words in ((numbers(4, 3), "expected shape"), (numbers(2).to(torch.complex64), "dtype")):
        with pytest.raises(InputError, match=words):
            weighted.metric_matrix(z)
    batched = PotentialMetric(
        kahler_verify.compile(USERS["a matrix of other dimensions"]),
        B=numbers(5, 3, 2),
        compile=True,
    )
    with pytest.raises(InputError, match="shapes that go with z"):
        batched.metric_matrix(numbers(4, 2))


@pytest.mark.usefixtures("eager")
def test_no_points_and_views() -> None:
    general, unrolled = mixture(2, 5)
    assert unrolled.metric_matrix(numbers(0, 2)).shape == (0, 2, 2)
    z = 0.2 * numbers(2, 6)
    for view in (z.mT, z.mH, z.mT[::2], z.mT.expand(4, 6, 2)):
        torch.testing.assert_close(unrolled.metric_matrix(view), general.metric_matrix(view))


@pytest.mark.usefixtures("eager")
def test_parameters_that_change_are_seen() -> None:
    general, unrolled = mixture(2, 5)
    z = 0.2 * numbers(3, 2)
    for change in (
        lambda m: m.centres.add_(0.3),
        lambda m: m.precisions.mul_(1.5),
        lambda m: m.weights.copy_(m.weights.flip(0)),
    ):
        before = unrolled.metric_matrix(z)
        change(unrolled)  # the tensors are those of the general metric as well
        after = unrolled.metric_matrix(z)
        assert (after - before).abs().max() > 1e-3
        torch.testing.assert_close(after, general.metric_matrix(z))
        torch.testing.assert_close(unrolled.scalar_curvature(z), general.scalar_curvature(z))


@pytest.mark.usefixtures("eager")
def test_a_large_batch_is_cut_to_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    general, unrolled = mixture(2, 5)
    z = 0.2 * numbers(23, 2)
    whole = unrolled.metric_matrix(z)
    monkeypatch.setattr(unrolled_kernels, "AT_ONCE", 5 * 4)
    torch.testing.assert_close(unrolled.metric_matrix(z), whole, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(whole, general.metric_matrix(z))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kind", ["potential", "density"])
def test_far_from_the_origin_and_close_together_digits_are_kept(kind: str) -> None:
    """Moving everything by 1e6 costs what rounding z costs; precisions may be close together."""
    general, _ = mixture(2, 5, kind)
    z, far = 0.2 * numbers(6, 2), 1e6
    moved = MixtureMetric(
        general.weights,
        general.centres + far,
        general.precisions,
        kind=kind,
        compile=True,  # type: ignore[arg-type]
    )
    expected = general.metric_matrix(z)
    torch.testing.assert_close(moved.metric_matrix(z + far), expected, rtol=1e-8, atol=1e-8)
    close = general.precisions[:1] + 1e-9 * general.precisions
    given = (general.weights, 1e-5 * general.centres, close)
    one, other = [MixtureMetric(*given, kind=kind, compile=c) for c in (False, True)]  # type: ignore[arg-type]
    for quantity in ("metric_matrix", "christoffels", "scalar_curvature"):
        a, b = getattr(one, quantity)(1e-5 * z), getattr(other, quantity)(1e-5 * z)
        torch.testing.assert_close(a, b, rtol=1e-9, atol=0)


@pytest.mark.usefixtures("eager")
def test_the_choice_travels() -> None:
    _, unrolled = mixture(2, 5, diagonal=True)
    single = unrolled.to(dtype=torch.complex64)
    got = single.metric_matrix(0.2 * numbers(3, 2).to(torch.complex64))
    assert used(single) == {"metric"}
    expected = unrolled.metric_matrix(0.2 * numbers(3, 2))
    torch.testing.assert_close(got.to(C), expected, rtol=1e-4, atol=1e-5)
    ball = PotentialMetric("complex_ball", compile=True).to(dtype=C)
    ball.metric_matrix(0.1 * numbers(3, 2))
    assert used(ball) == {"metric"}
    general, _ = mixture(2, 5)
    assert general._unrolled is None


# ------------------------------------------------------------------ errors and warnings


def test_kernels_without_a_text_are_refused() -> None:
    from kahler_verify.kernels import fubini_study

    bare = SimpleNamespace(**vars(fubini_study))
    with pytest.raises(InputError, match=r"^compile: expected kernels whose text is known"):
        PotentialMetric(bare, compile=True)


@pytest.mark.usefixtures("eager")
def test_a_kernel_that_cannot_be_unrolled_runs_as_it_is() -> None:
    """Flat space's metric is the same everywhere."""
    metric = PotentialMetric("flat", compile=True)
    with pytest.warns(UserWarning, match="the general kernel is used .*does not depend"):
        metric.metric_matrix(numbers(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(
            metric.metric_matrix(numbers(3, 2)), torch.eye(2, dtype=C).expand(3, 2, 2)
        )


def test_without_a_compiler_the_variant_runs_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    unrolled_kernels._compiled.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    general, unrolled = mixture(2, 5)
    with pytest.warns(UserWarning, match=r"needs a C\+\+ compiler"):
        got = unrolled.metric_matrix(0.2 * numbers(3, 2))
    torch.testing.assert_close(got, general.metric_matrix(0.2 * numbers(3, 2)))
    unrolled_kernels._compiled.cache_clear()


def test_geometry_loads_without_sympy() -> None:
    code = "import sys, kahler_verify.running.variants; assert 'sympy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------ compiled

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(c) for c in ("c++", "g++", "clang++")), reason="needs a C++ compiler"
)


@needs_compiler
@pytest.mark.parametrize("count", [5, INNER_COMPONENTS])
def test_one_compiled_function_serves_all_batches(count: int) -> None:
    unrolled_kernels._compiled.cache_clear()
    general, unrolled = mixture(2, count)
    counters.clear()
    for batch in ((4,), (1,), (), (7,), (2, 3), (300,)):
        z = 0.2 * numbers(*batch, 2)
        torch.testing.assert_close(unrolled.metric_matrix(z), general.metric_matrix(z))
    assert counters["stats"]["unique_graphs"] == 1


@needs_compiler
def test_a_compiled_potential_and_its_curvature() -> None:
    """Two kernels, three points each with a matrix of its own, and one with the same for all."""
    kernels = kahler_verify.compile(USERS["a Hermitian matrix and a number"])
    root = numbers(3, 2, 2)
    for lead in (root @ root.mH, root[0] @ root[0].mH):
        given = {"A": lead, "t": torch.ones(lead.shape[:-2], dtype=C)}
        general = PotentialMetric(kernels, **given)
        unrolled = PotentialMetric(kernels, compile=True, **given)
        z = numbers(3, 2)
        torch.testing.assert_close(unrolled.christoffels(z), general.christoffels(z))
        assert used(unrolled) == {"metric", "metric_d"}
