"""Every route agrees with the generated kernels, and fails on kernels that are wrong."""

from dataclasses import replace

import pytest
import torch
from sympy import Abs, I, conjugate, exp, im, log, re

from kahler_verify.calculus import coordinates, dimension, explicit_coordinates, potential
from kahler_verify.calculus.derivation import Derivation
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.readings import kernel_of
from kahler_verify.evidence.routes import register
from kahler_verify.evidence.routes.cases import Case, Subject, prepare
from kahler_verify.evidence.routes.gaussians import LADDER, sampling_finding
from kahler_verify.evidence.routes.known_answers import ANSWERS
from kahler_verify.evidence.routes.register import ROUTES

DERIVATIONS = shipped()


def case(derivation: str, kernel: str, *fault: str, count: int = 2) -> Case:
    """A shipped kernel, with one text replaced by another inside its own function."""
    text = (KERNELS / f"{derivation}.py").read_text()
    if fault:
        old, new = fault
        before, start, rest = text.partition(f"def {kernel}(")
        body, end, after = rest.partition("\n\n\ndef ")
        assert old in body
        text = before + start + body.replace(old, new) + end + after
    subject = Subject.of(DERIVATIONS[derivation], text)
    return prepare(subject, kernel_of(subject.derivation, kernel), count=count)


GRAM = "fisher_metric_full_holomorphic"
FAULTS = {
    "a conj dropped": ("@ v0.mH", "@ v0.mT"),
    "a transposed index": ("return t0", "return t0.mT"),
    "a factor 2": ("return t0", "return 2 * t0"),
    "a sign": ("return t0", "return -t0"),
}


@pytest.fixture(scope="module")
def right() -> Case:
    return case("gaussian_kl", GRAM)


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_applies_to_the_fisher_metric_and_agrees(right: Case, route: str) -> None:
    assert ROUTES[route].applies(right)
    assert ROUTES[route].run(right).passed


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_route_fails_on_a_planted_fault(route: str, fault: str) -> None:
    wrong = case("gaussian_kl", GRAM, *FAULTS[fault])
    assert not ROUTES[route].run(wrong).passed


@pytest.mark.parametrize(
    ("derivation", "kernel", "fault"),
    [
        ("gaussian_kl", "kl_hessian_diagonal", ("v1 = mu0", "v1 = mu")),
        ("gaussian_kl", "fisher_metric_d_full_holomorphic", ("->...cba", "->...abc")),
        ("hermitian_geometry", "chern_curvature", ("R_0 = p1 - p0", "R_0 = p1 + p0")),
        (
            "hermitian_geometry",
            "chern_connection",
            ("f0.mH, y0, upper=True", "f0, y0, upper=False"),
        ),
        ("mixture_density", "metric", ("t1 - p0", "t1 + p0")),
        ("mixture_potential", "metric_db", ("...abcd->...cbad", "...abcd->...abcd")),
        ("fubini_study", "metric_d", (".conj()", "")),
        ("laplace", "fisher_metric_d", ("- 2 * t6", "+ 2 * t6")),
        ("student_t", "fisher_metric", ("3 * t0 + t2", "2 * t0 + t2")),
        ("von_mises_fisher", "fisher_metric", ("return g_0", "return g_0.mT / 2")),
    ],
)
def test_the_routes_of_every_user_find_faults_of_every_derivation(
    derivation: str, kernel: str, fault: tuple[str, str]
) -> None:
    right, wrong = case(derivation, kernel), case(derivation, kernel, *fault)
    for route in ("autograd", "mpmath", "exact"):
        assert ROUTES[route].run(right).passed, route
        assert not ROUTES[route].run(wrong).passed, route


@pytest.mark.parametrize(
    ("derivation", "kernel", "fault"),
    [
        ("gaussian_kl", "fisher_metric_diagonal", ("return g_0, k_0", "return k_0, g_0")),
        ("gaussian_kl", "fisher_metric_diagonal_holomorphic", ("return t0", "return t0 / 2")),
        ("hermitian_geometry", "chern_ricci", ("t0 - t1", "t1 - t0")),
        ("hermitian_geometry", "holomorphic_sectional", ("/ (t7 * t7)", "/ t7")),
        ("mixture_density", "metric", ("t1 - p0", "t1 + 1 - p0")),
        ("complex_ball", "gradient", ("return ", "return -")),
    ],
)
def test_known_answers_find_faults(derivation: str, kernel: str, fault: tuple[str, str]) -> None:
    assert ROUTES["known"].run(case(derivation, kernel)).passed
    assert not ROUTES["known"].run(case(derivation, kernel, *fault)).passed


def test_one_part_in_a_billion_is_found() -> None:
    wrong = case("gaussian_kl", GRAM, "return t0", "return t0 * (1 + 1e-9)")
    for route in ("autograd", "mpmath", "torch_kl", "known"):
        assert not ROUTES[route].run(wrong).passed, route


def test_every_known_answer_belongs_to_a_kernel() -> None:
    for derivation, kernel in ANSWERS:
        assert kernel_of(DERIVATIONS[derivation], kernel)


def test_every_shipped_kernel_has_three_routes() -> None:
    for derivation in DERIVATIONS.values():
        general = {"autograd", "mpmath", "exact"}
        assert general <= set(derivation.routes)
        assert set(derivation.routes) <= set(ROUTES)


def test_a_kernel_that_is_wrongly_said_to_vanish_is_found() -> None:
    text = (KERNELS / "fubini_study.py").read_text()
    text = text.replace("def metric_d(", "def _metric_d(") + "\nVANISHING = ['metric_d']\n"
    subject = Subject.of(DERIVATIONS["fubini_study"], text)
    wrong = prepare(subject, kernel_of(subject.derivation, "metric_d"))
    for route in ("autograd", "mpmath", "exact"):
        assert not ROUTES[route].run(wrong).passed, route


def test_modes_of_autograd_that_differ_are_reported(
    right: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = register.differentiate

    def faulty(definition, indices, fields, mode="reverse"):
        value = honest(definition, indices, fields, mode)
        return value * (1 + 1e-6) if mode == "forward" else value

    monkeypatch.setattr(register, "differentiate", faulty)
    finding = ROUTES["autograd"].run(right)
    assert any("modes differ" in words for words in finding.complaints)


def test_the_error_of_samples_must_shrink() -> None:
    generator = torch.Generator().manual_seed(0)
    honest = [torch.randn(30, generator=generator, dtype=torch.float64) for _ in LADDER]
    stuck = [x * n**0.5 / 100 for x, n in zip(honest, LADDER, strict=True)]
    assert sampling_finding([honest], (1.0,)).passed
    assert any("N^" in words for words in sampling_finding([stuck], (1.0,)).complaints)


def test_a_text_without_the_kernel_is_an_error() -> None:
    subject = Subject.of(DERIVATIONS["flat"], "__all__ = []\n")
    with pytest.raises(EvidenceError, match="no kernel 'metric'"):
        prepare(subject, kernel_of(subject.derivation, "metric"))


def test_points_are_the_same_in_float64_and_at_50_digits(right: Case) -> None:
    for at in right.points:
        for own, table in at.point.jets.items():
            if "positive" in own.traits:
                continue  # Σ = L Lᴴ; kernels take L
            for order, values in table.items():
                assert all(complex(x) == x for x in values.ravel()), (own, order)


def user_potentials() -> list[Derivation]:
    z = coordinates("z", dimension("d"))
    z1, z2 = explicit_coordinates("z1 z2")
    free = potential("free", exp(z.H * z) + log(1 + z.H * z), known={"gradient": _gradient})
    square = z1 * conjugate(z1) + Abs(z2) ** 4
    explicit = potential(
        "explicit",
        log(1 + square) + re(z1) ** 2 + im(I * z2 * z1) ** 2 + 3 * Abs(z2) ** 2,
        coordinates=(z1, z2),
    )
    return [free, explicit]


def _gradient(z: torch.Tensor) -> torch.Tensor:
    r = (z * z.conj()).sum(-1, keepdim=True)
    return z.conj() * (r.exp() + 1 / (1 + r))


@pytest.mark.parametrize("derivation", user_potentials(), ids=lambda d: d.name)
def test_a_user_s_potential_has_the_general_routes_for_nothing(derivation: Derivation) -> None:
    text = generate_module(derivation).text
    subject = Subject.of(derivation, text)
    for kernel in derivation.kernels:
        trial = prepare(subject, kernel, count=2)
        applied = [r for r in derivation.routes if ROUTES[r].applies(trial)]
        assert {"autograd", "mpmath", "exact", "componentwise"} <= set(applied)
        for route in applied:
            if trial.order < 4 or route in ("mpmath", "exact"):
                assert ROUTES[route].run(trial).passed, (kernel.name, route)
    wrong = Subject.of(derivation, text.replace("def metric(", "def other(") + FALSE_METRIC)
    trial = prepare(wrong, kernel_of(derivation, "metric"), count=2)
    for route in ("autograd", "mpmath"):
        assert not ROUTES[route].run(trial).passed, route


FALSE_METRIC = """

def metric(z):
    return torch.einsum("...a,...b->...ab", z, z.conj())
"""


def test_a_user_s_known_answer_is_compared() -> None:
    free = user_potentials()[0]
    subject = Subject.of(free, generate_module(free).text)
    assert ROUTES["known"].run(prepare(subject, kernel_of(free, "gradient"))).passed
    false = replace(free, known={"gradient": lambda z: 2 * _gradient(z)})
    subject = replace(subject, derivation=false)
    assert not ROUTES["known"].run(prepare(subject, kernel_of(false, "gradient"))).passed
