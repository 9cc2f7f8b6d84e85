"""Every derivation has every property that applies to it, and every property can fail.

The properties are those of ``kahler_verify.evidence.laws.properties``; here they meet all shipped
derivations and two that a user could have written.
"""

import importlib
import inspect
import random
import re as regex
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType, SimpleNamespace

import pytest
import torch
from _pytest.mark import ParameterSet
from hypothesis import given
from hypothesis import strategies as st
from sympy import Abs, I, Min, exp, im, log, re
from torch import Tensor

import kahler_verify
from kahler_verify.calculus import (
    Derivation,
    LogDet,
    adjoint,
    coordinates,
    dimension,
    explicit_coordinates,
    parameter,
    potential,
)
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.registry import shipped
from kahler_verify.errors import EvidenceError, PropertyViolation
from kahler_verify.evidence.laws.law import agree
from kahler_verify.evidence.laws.metrics import known_curvature
from kahler_verify.evidence.laws.register import LAWS, applicable, check, check_all
from kahler_verify.evidence.numbers.domains import domain_value, double, point_inside
from kahler_verify.evidence.numbers.readings import is_real_latent
from kahler_verify.evidence.numbers.samples import draw
from kahler_verify.evidence.routes.cases import Subject, prepare
from kahler_verify.geometry import PotentialMetric
from kahler_verify.running.kernel_set import KernelSet


def in_any_dimension() -> Derivation:
    """A user's potential with parameters and nested transcendental functions."""
    d = dimension("d")
    z, centre = coordinates("z", d), parameter("centre", d)
    width = parameter("width", d, d, hermitian=True)
    shifted = adjoint(z - centre) * width * width * (z - centre)
    return potential("mine", log(1 + exp(z.H * z) + shifted) + z.H * z, positive=True)


def in_two_dimensions() -> Derivation:
    """A user's potential in explicit coordinates: -log of a Hartogs domain's defining function."""
    z = z1, z2 = explicit_coordinates("z1 z2")
    inside = exp(-(Abs(z1) ** 2)) - Abs(z2) ** 2
    return potential(
        "hartogs", Abs(z1) ** 2 - log(inside), coordinates=z, domain=inside, positive=True
    )


USERS = {d.name: d for d in (in_any_dimension(), in_two_dimensions())}
DERIVATIONS = {name: d for name, d in shipped().items() if d.kernels} | USERS


@cache
def kernels(name: str) -> KernelSet:
    return KernelSet(kahler_verify.compile(USERS[name]) if name in USERS else name)


APPLICABLE = {
    name: {law.name: chosen for law, chosen in applicable(derivation, kernels(name))}
    for name, derivation in DERIVATIONS.items()
}
CASES = [
    pytest.param(name, law, id=f"{name}-{law}") for name, laws in APPLICABLE.items() for law in laws
]
MANY = {True: 1, False: 4}  # laws with many examples by default, of real and of other latents


def _with_many_examples() -> list[ParameterSet]:
    """All cases; of each derivation a seeded choice, and the rest where thorough."""
    out = []
    for name, derivation in DERIVATIONS.items():
        own = [case for case in CASES if case.values[0] == name]
        most = MANY[all(map(is_real_latent, derivation.kernels))]
        chosen = random.Random(name).sample(own, min(most, len(own)))
        out += [
            case if case in chosen else pytest.param(*case.values, id=case.id, marks=THOROUGH)
            for case in own
        ]
    return out


THOROUGH = pytest.mark.thorough
SIZES = st.fixed_dictionaries(
    {"d": st.integers(1, 3), "n": st.integers(1, 4), "K": st.integers(1, 4)}
)


@pytest.mark.sampled(80)
@pytest.mark.parametrize(("name", "law"), _with_many_examples())
@given(data=st.data())
def test_property(name: str, law: str, data: st.DataObject) -> None:
    derivation = DERIVATIONS[name]
    kernel = data.draw(st.sampled_from(APPLICABLE[name][law]), label="kernel")
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    sizes = data.draw(SIZES, label="sizes")
    check(LAWS[law], derivation, kernel, kernels(name), seed=seed, sizes=sizes)


@pytest.mark.sampled(120)
@pytest.mark.parametrize(("name", "law"), CASES)
def test_property_of_every_kernel(name: str, law: str) -> None:
    """Hypothesis may leave out some of many kernels; here each has one trial."""
    for seed, kernel in enumerate(APPLICABLE[name][law]):
        check(LAWS[law], DERIVATIONS[name], kernel, kernels(name), seed=seed)


def test_what_applies_to_whom() -> None:
    """The registry decides by itself; this table makes a change of its mind visible."""
    found = {name: set(laws) for name, laws in APPLICABLE.items()}
    general = {"batched", "vmapped", "precise_in_single"}
    everywhere = general | {"unrolled"}
    curved = {"kaehler", "curvature_consistent", "curvature_chart_free", "metric_chart_free"}
    potentials = everywhere | curved | {"hermitian", "symmetric", "unitary_equivariant"}
    mixtures = potentials - {"unitary_equivariant"} | {
        "affine_chart", "component_order_free", "component_split_free", "curvature_contracted"
    }  # fmt: skip
    assert found["hermitian_geometry"] == everywhere
    assert found["fubini_study"] == potentials | {"positive", "curvature_as_known"}
    assert found["complex_ball"] == found["fubini_study"]
    assert found["flat"] == found["fubini_study"] - {"symmetric"}  # its derivatives vanish
    assert found["quadratic_form"] == potentials - {"symmetric"} | {"translation_free"}
    assert found["mine"] == potentials | {"positive"}
    assert found["hartogs"] == potentials - {"unitary_equivariant"} | {"positive"}
    assert found["mixture_potential"] == mixtures | {"positive"}
    assert found["mixture_density"] == mixtures
    assert found["gaussian_kl"] == general | curved - {"kaehler"} | {
        "hermitian", "symmetric", "augmented_positive", "affine_chart", "output_basis_free",
        "additive", "translation_free", "expands_divergence", "closed_when_pluriharmonic",
    }  # fmt: skip
    assert set.union(*found.values()) == set(LAWS)


# ------------------------------------------------------------------ every property can fail


def mutants_of(module: ModuleType | SimpleNamespace, function: str) -> Iterator[SimpleNamespace]:
    """The module with one conjugate dropped, one sign turned or one 2 made 3 in one function."""
    source = inspect.getsource(module) if isinstance(module, ModuleType) else module.source
    start = source.index(f"def {function}(")
    start = source.index('"""\n', source.index('"""', start) + 3)  # past the docstring
    end = source.find("\ndef ", start)
    end = len(source) if end < 0 else end
    edits = [(r"\.conj\(\)", ""), (r" - ", " + "), (r" \+ ", " - "), (r"= 2 \*", "= 3 *")]
    for pattern, replacement in edits:
        for match in regex.finditer(pattern, source[start:end]):
            a, b = start + match.start(), start + match.end()
            scope: dict = {"__name__": f"mutant of {function}"}
            exec(source[:a] + replacement + source[b:], scope)
            yield SimpleNamespace(**scope)


def wrapped(change: Callable[..., Tensor]) -> Callable[..., Iterator[SimpleNamespace]]:
    """The module with one function replaced by ``change(function, **its arguments)``."""

    def mutants(module: ModuleType, function: str) -> Iterator[SimpleNamespace]:
        original = getattr(module, function)
        names = list(inspect.signature(original).parameters)

        def mutant(*args: Tensor) -> Tensor:
            return change(original, **dict(zip(names, args, strict=True)))

        mutant.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
        yield SimpleNamespace(**{**vars(module), function: mutant})

    return mutants


def beside_its_text(change: Callable) -> Callable[..., Iterator[SimpleNamespace]]:
    """A function that is not the one that the module's text has."""

    def mutants(module: ModuleType, function: str) -> Iterator[SimpleNamespace]:
        for mutant in wrapped(change)(module, function):
            yield SimpleNamespace(**vars(mutant), source=inspect.getsource(module))

    return mutants


def weighted_by_position(f: Callable, w: Tensor, **rest: Tensor) -> Tensor:
    return f(w=w * (1 + torch.arange(w.shape[-1])), **rest)


def squared_weights(f: Callable, w: Tensor, **rest: Tensor) -> Tensor:
    return f(w=w * w / (w * w).sum(-1, keepdim=True), **rest)


def first_of_batch(f: Callable, z: Tensor) -> Tensor:
    return f(z[:1].expand_as(z) if z.ndim > 1 else z)


def looks_at_values(f: Callable, z: Tensor) -> Tensor:
    ndim = z.ndim if not torch._C._functorch.is_batchedtensor(z) else z.ndim + 1
    return f(z) if ndim == 1 else 2 * f(z)


def coarse_in_single(f: Callable, z: Tensor) -> Tensor:
    return f(z) * (1 + 2.0**-4 if z.dtype == torch.complex64 else 1)


def squared(f: Callable, **tensors: Tensor) -> Tensor:
    return f(**tensors) ** 2


MUTANTS: dict[str, tuple[str, str, Callable[..., Iterator[SimpleNamespace]]]] = {
    "hermitian": ("fubini_study", "metric", mutants_of),
    "symmetric": ("fubini_study", "metric_d", mutants_of),
    "augmented_positive": ("gaussian_kl", "fisher_metric_full", mutants_of),
    "affine_chart": ("mixture_potential", "metric", mutants_of),
    "unitary_equivariant": ("complex_ball", "metric_db", mutants_of),
    "output_basis_free": ("gaussian_kl", "fisher_metric_d_full", mutants_of),
    "additive": ("gaussian_kl", "fisher_metric_d_diagonal", wrapped(squared)),
    "component_order_free": ("mixture_density", "metric", wrapped(weighted_by_position)),
    "component_split_free": ("mixture_potential", "metric_d", wrapped(squared_weights)),
    "translation_free": ("gaussian_kl", "kl_hessian_scalar", mutants_of),
    "batched": ("fubini_study", "metric", wrapped(first_of_batch)),
    "vmapped": ("fubini_study", "metric", wrapped(looks_at_values)),
    "precise_in_single": ("fubini_study", "metric", wrapped(coarse_in_single)),
    "unrolled": ("fubini_study", "metric", beside_its_text(squared)),
    "expands_divergence": ("gaussian_kl", "fisher_metric_diagonal", mutants_of),
    "closed_when_pluriharmonic": ("gaussian_kl", "fisher_metric_d_full", mutants_of),
    "positive": ("fubini_study", "metric", mutants_of),
    "kaehler": ("mixture_potential", "metric_d", mutants_of),
    "curvature_consistent": ("hermitian_geometry", "chern_ricci", mutants_of),
    "curvature_chart_free": ("hermitian_geometry", "chern_curvature", mutants_of),
    "metric_chart_free": ("fubini_study", "metric", mutants_of),
    "curvature_contracted": ("mixture_potential", "ricci", mutants_of),
    "curvature_as_known": ("complex_ball", "metric_db", mutants_of),
}


def is_killed(law: str, name: str, function: str, mutant: SimpleNamespace) -> bool:
    """Whether a mutated module fails the property within a few trials."""
    geometry = KernelSet(mutant) if name == "hermitian_geometry" else None
    subject = "complex_ball" if geometry else name
    derivation = DERIVATIONS[subject]
    tested = kernels(subject) if geometry else KernelSet(mutant)
    chosen = {p.name: ks for p, ks in applicable(derivation, tested)}[law]
    by_name = [k for k in chosen if k.name == function] or chosen
    for seed in range(4):
        try:
            sizes = {"d": 2 + seed % 2, "n": 3, "K": 3}
            check(
                LAWS[law], derivation, by_name[0], tested,
                seed=seed, sizes=sizes, geometry=geometry,
            )  # fmt: skip
        except PropertyViolation:
            return True
        except (EvidenceError, ValueError):
            continue  # the mutant's metric is no metric: not this property's merit
    return False


@pytest.mark.parametrize("law", LAWS)
def test_property_can_fail(law: str) -> None:
    """One planted fault at least in an otherwise right module makes it fail."""
    name, function, mutate = MUTANTS[law]
    module = importlib.import_module(f"kahler_verify.kernels.{name}")
    assert any(is_killed(law, name, function, mutant) for mutant in mutate(module, function))


def test_every_sign_and_conjugate_of_the_fisher_metric_matters() -> None:
    """All mutants of the metric's kernel fall to some property."""
    module = importlib.import_module("kahler_verify.kernels.gaussian_kl")
    laws = ("expands_divergence", "hermitian", "augmented_positive")
    for function in ("fisher_metric_full", "fisher_metric_diagonal", "fisher_metric_scalar"):
        mutants = list(mutants_of(module, function))
        assert mutants
        for mutant in mutants:
            assert any(is_killed(law, "gaussian_kl", function, mutant) for law in laws)


def test_a_violation_carries_the_numbers() -> None:
    with pytest.raises(PropertyViolation, match=r"x and y differ by 1, where .* is 2") as caught:
        agree(torch.tensor([1.0]), torch.tensor([2.0]), "x and y")
    assert isinstance(caught.value, AssertionError)
    with pytest.raises(PropertyViolation, match="nan"):
        agree(torch.tensor([torch.nan]), torch.tensor([2.0]), "x and y")
    with pytest.raises(PropertyViolation, match="shapes"):
        agree(torch.zeros(1), torch.zeros(2), "x and y")


def test_all_properties_of_a_users_file() -> None:
    results = check_all(DERIVATIONS["hartogs"], kernels("hartogs"), examples=2)
    assert results["positive"].passed
    assert results["positive"].trials == 2
    assert all(found.passed for found in results.values())


def test_properties_of_a_potential_with_a_log_det_of_a_parameter() -> None:
    """Kernels take its Cholesky factor; UPUᴴ has another one than ULUᴴ."""
    d = dimension("d")
    z, p = coordinates("z", d), parameter("P", d, d, hermitian=True, positive=True)
    phi = potential("with_log_det", log(1 + z.H * p**-1 * z) + LogDet(p), positive=True)
    results = check_all(phi, KernelSet(kahler_verify.compile(phi)), examples=1)
    assert "unitary_equivariant" in results
    assert [found for found in results.values() if not found.passed] == []


def test_a_false_claim_is_found() -> None:
    z = coordinates("z", dimension("d"))
    wrong = potential("wrong", -log(1 + z.H * z), positive=True)
    results = check_all(wrong, KernelSet(kahler_verify.compile(wrong)), examples=2)
    assert results["positive"].trials == 1
    assert "g has the eigenvalue -" in results["positive"].story


# ------------------------------------------------------------------ known answers to d = 8


@pytest.mark.sampled(12)
@pytest.mark.parametrize("d", range(1, 9))
@pytest.mark.parametrize(
    ("name", "curvature", "squares"),
    [
        ("fubini_study", 2, [0, 1e-8, 0.01, 1, 10, 100]),
        ("complex_ball", -2, [0, 1e-8, 0.5, 0.9, 0.99, 0.9999, 0.999999]),
        ("flat", 0, [0, 1, 100]),
    ],
)
def test_known_curvature(name: str, curvature: int, squares: list[float], d: int) -> None:
    """R = ±(gg + gg), Ric = ±(d+1)g, scal = ±d(d+1), HSC = ±2, from 0 to |z|² = 100 or 0.999999."""
    generator = torch.Generator().manual_seed(d)
    metric = PotentialMetric(name)
    for square in squares:
        for _ in range(3):
            z, v = torch.randn(2, d, dtype=torch.complex128, generator=generator)
            z = z * (square / (z * z.conj()).real.sum()) ** 0.5
            edge = 1 / (1 - square) if name == "complex_ball" else 1 + square
            known_curvature(metric, z, curvature, v, edge)


def away_from_the_origin() -> list[Derivation]:
    """Domains that do not hold 0, or not along every line through it."""
    z1, z2 = explicit_coordinates("z1 z2")
    d = dimension("d")
    z, centre = coordinates("z", d), parameter("centre", d)
    upper, ball = im(z1), 1 - Abs(z1 - 30) ** 2
    siegel, both = im(z1) - Abs(z2) ** 2, Min(im(z1), re(z2) - 1)
    strip = (re(z1) - 5) * (6 - re(z1))
    around = 1 - adjoint(z - 7 * centre) * (z - 7 * centre)
    of = {
        "half_plane": (-log(upper), upper, (z1,), None),
        "two_half_planes": (-log(im(z1)) - log(re(z2) - 1), both, (z1, z2), None),
        "siegel": (-log(siegel), siegel, (z1, z2), None),
        "shifted_ball": (-log(ball), ball, (z1,), None),
        "strip": (-log(strip) + re(z1) ** 2, strip, (z1,), None),
        "around_a_parameter": (-log(around), around, (), None),
        "named": (-log(upper), upper - 1000, (z1,), (2000 * I,)),
        "named_for_all": (-log(1 - Abs(z1 - 9) ** 2), 1 - Abs(z1 - 9) ** 2, (z1,), 9),
    }
    return [
        potential(name, phi, domain=where, coordinates=own, inside=inside)
        for name, (phi, where, own, inside) in of.items()
    ]


@pytest.mark.parametrize("derivation", away_from_the_origin(), ids=lambda x: x.name)
def test_points_are_found_in_domains_that_do_not_hold_the_origin(derivation: Derivation) -> None:
    d = len(derivation.coordinates) or 2
    places = set()
    for seed in range(10):
        rng = random.Random(seed)
        sample = draw(derivation.kernels[0], double, rng, {"d": d, "n": 1, "K": 1})
        z = point_inside(derivation, sample.point, rng, d)
        assert domain_value(derivation, sample.point, z) > 0
        places.add(tuple(z))
    assert len(places) == 10


def test_a_half_plane_has_every_property() -> None:
    z = (z1,) = explicit_coordinates("z1")
    known = {"holomorphic_sectional_curvature": -2}
    half_plane = potential(
        "half_plane", -log(im(z1)), coordinates=z, domain=im(z1), positive=True, known=known
    )
    results = check_all(half_plane, KernelSet(kahler_verify.compile(half_plane)), examples=3)
    assert {"positive", "kaehler", "curvature_as_known"} <= set(results)
    assert [found for found in results.values() if not found.passed] == []
    subject = Subject.of(half_plane, generate_module(half_plane).text)
    points = prepare(subject, half_plane.kernels[2]).points
    assert all(complex(p.point.values[z1]).imag > 0 for p in points)


def test_a_named_point_outside_and_an_empty_domain_are_errors() -> None:
    z = (z1,) = explicit_coordinates("z1")
    outside = potential("x", -log(im(z1)), coordinates=z, domain=im(z1), inside=-I)
    empty = potential("x", -log(im(z1)), coordinates=z, domain=-1 - Abs(z1) ** 2)
    several = potential("x", -log(im(z1)), coordinates=z, domain=im(z1), inside=(I, I))
    for derivation, message in (
        (outside, "is not in its domain"),
        (empty, "name one by inside"),
        (several, "expected 1 numbers, or one, got 2"),
    ):
        sample = draw(derivation.kernels[0], double, random.Random(0), {"d": 1, "n": 1, "K": 1})
        with pytest.raises(EvidenceError, match=message):
            point_inside(derivation, sample.point, random.Random(0), 1)
