"""Parameters of potentials: a wrong shape or a wrong value is named, and never broadcast."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from sympy import Abs, Symbol, exp, log
from torch import Tensor

import kahler_verify
from kahler_verify import PotentialMetric
from kahler_verify.calculus import coordinates, dimension, explicit_coordinates, parameter
from kahler_verify.codegen.compiled import Compiled
from kahler_verify.errors import InputError

C = torch.complex128
d = 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=C, generator=torch.Generator().manual_seed(seed))


def hermitian(*batch: int) -> Tensor:
    root = numbers(*batch, d, d, seed=1)
    return root @ root.mH + torch.eye(d)


Z = 0.3 * numbers(5, d)
GOOD = {
    "A": hermitian(),
    "B": numbers(2, d, seed=2),
    "c": numbers(d, seed=3),
    "P": hermitian(),
    "s": torch.tensor(0.7, dtype=C),
    "t": torch.tensor(0.4, dtype=C),
}


@pytest.fixture(scope="module")
def kernels() -> Compiled:
    n, m = dimension("d"), dimension("m")
    z, c = coordinates("z", n), parameter("c", n)
    A, B = parameter("A", n, n, hermitian=True), parameter("B", m, n)
    P = parameter("P", n, n, hermitian=True, positive=True)
    t, s = parameter("t", hermitian=True), parameter("s", hermitian=True, positive=True)
    phi = log(1 + z.H * P * z) + exp(t * z.H * z) + z.H * c + c.H * z
    return kahler_verify.compile(phi + z.H * B.H * B * z + z.H * A * z * s)


@pytest.fixture(scope="module")
def explicit() -> Compiled:
    z = z1, z2 = explicit_coordinates("z1 z2")
    return kahler_verify.compile(
        exp(Symbol("s", real=True) * Abs(z1) ** 2) + Abs(z2) ** 2, coordinates=z
    )


def test_what_is_right_is_taken(kernels: Compiled) -> None:
    one = PotentialMetric(kernels, **GOOD).metric_matrix(Z)
    batched = {name: x.expand(5, *x.shape) for name, x in GOOD.items()}
    torch.testing.assert_close(PotentialMetric(kernels, **batched).metric_matrix(Z), one)
    mapped = torch.vmap(lambda s: PotentialMetric(kernels, **{**GOOD, "s": s}).metric_matrix(Z))
    torch.testing.assert_close(mapped(GOOD["s"][None])[0], one)
    single = {name: x.to(torch.complex64) for name, x in GOOD.items()}
    PotentialMetric(kernels, **single).metric_matrix(Z.to(torch.complex64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"A": torch.tensor(2.0, dtype=C)}, r"A: expected shape \[..., d, d\], got \[\]"),
        ({"A": numbers(d)}, r"A: expected shape \[..., d, d\], got \[3\]"),
        ({"A": hermitian()[:2]}, r"A: expected shape .* with d = 2 as for A, got \[2, 3\]"),
        ({"c": numbers(1)}, r"c: expected shape \[..., d\] with d = 3 as for \w, got \[1\]"),
        ({"P": hermitian()[:1, :1]}, r"P: expected shape \[..., d, d\] with d = 3 as for \w"),
        ({"B": numbers(2, 1)}, r"B: expected shape \[..., m, d\] with d = 3 as for \w"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(
    kernels: Compiled, changes: dict[str, Tensor], message: str
) -> None:
    for validate in (True, False):
        with pytest.raises(InputError, match=message):
            PotentialMetric(kernels, validate_args=validate, **{**GOOD, **changes})


def test_shapes_have_to_go_with_z(kernels: Compiled) -> None:
    one = {"A": hermitian()[:1, :1], "P": hermitian()[:1, :1], "B": numbers(2, 1), "c": numbers(1)}
    metric = PotentialMetric(kernels, **{**GOOD, **one})
    assert metric.metric_matrix(Z[:, :1]).shape == (5, 1, 1)
    with pytest.raises(InputError, match=r"A: expected shape .* with d = 3 as for z, got \[1, 1\]"):
        metric.metric_matrix(Z)
    with pytest.raises(InputError, match=r"with d = 2 as for z, got \[3, 3\]"):
        PotentialMetric(kernels, **GOOD).metric_matrix(Z[:, :2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"A": numbers(d, d)}, r"A: expected a Hermitian matrix, got \|A - Aᴴ\| up to \d"),
        ({"P": -hermitian()}, "P: expected a positive definite matrix, got the eigenvalue -"),
        ({"t": torch.tensor(1 + 0.5j)}, "t: expected a real value, got an imaginary part of 0.5"),
        ({"s": torch.tensor(-2.0)}, "s: expected > 0, got -2"),
        ({"c": numbers(d) * float("nan")}, "c: expected finite values"),
    ],
)
def test_values_are_those_of_the_derivation(
    kernels: Compiled, changes: dict[str, Tensor], message: str
) -> None:
    values = {**GOOD, **{name: x.to(C) for name, x in changes.items()}}
    with pytest.raises(InputError, match=message):
        PotentialMetric(kernels, **values)
    PotentialMetric(kernels, validate_args=False, **values)
    PotentialMetric(kernels, **{name: x.to("meta") for name, x in values.items()})


def test_parameters_of_explicit_potentials(explicit: Compiled) -> None:
    make = partial(PotentialMetric, explicit)
    assert make(s=torch.tensor(0.5, dtype=C)).metric_matrix(Z[:, :2]).shape == (5, 2, 2)
    per_point = make(s=torch.linspace(0, 1, 5, dtype=torch.float64).to(C))
    assert per_point.metric_matrix(Z[:, :2]).shape == (5, 2, 2)
    with pytest.raises(InputError, match="s: expected a real value, got an imaginary part of 1"):
        make(s=torch.tensor(1j, dtype=C))


def test_a_file_that_says_nothing_of_its_inputs_is_taken(kernels: Compiled) -> None:
    """One that an earlier version has generated."""
    older = {k: v for k, v in vars(kernels).items() if k != "PARAMETERS"}
    metric = PotentialMetric(SimpleNamespace(**older), **GOOD)
    expected = PotentialMetric(kernels, **GOOD).metric_matrix(Z)
    torch.testing.assert_close(metric.metric_matrix(Z), expected)
