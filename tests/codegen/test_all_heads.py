"""Every function that a definition may use reaches every method of its metric."""

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kahler_verify import PotentialMetric
from kahler_verify.codegen.compiled import compile_file
from kahler_verify.codegen.heads import HEADS
from kahler_verify.codegen.writing import generate_files
from kahler_verify.running import variants as unrolled_kernels

pytestmark = pytest.mark.xdist_group("all_heads")  # one worker makes what the tests share

C = torch.complex128
Z = torch.tensor([[0.3 + 0.1j, -0.2 + 0.4j], [0.1 - 0.5j, 0.2j]], dtype=C)
V = Z.flip(0) + 1
FACTOR = torch.tensor([[2.0, 0], [0.5 - 1j, 1.5]], dtype=C)
LOG_DET = 2 * math.log(3.0)

# What is added to 40 |z|², as SymPy and as torch write it, where r = |z|² (t = 0.7 is a parameter).
HEAD = {
    "exp": ("exp(r)", torch.exp),
    "log": ("log(1 + r)", torch.log1p),
    "sqrt": ("sqrt(1 + r)", lambda r: torch.sqrt(1 + r)),
    "sin": ("sin(r)", torch.sin),
    "cos": ("cos(r)", torch.cos),
    "tan": ("tan(r / 2)", lambda r: torch.tan(r / 2)),
    "sinh": ("sinh(r)", torch.sinh),
    "cosh": ("cosh(r)", torch.cosh),
    "tanh": ("tanh(r)", torch.tanh),
    "power_of_thirds": ("(1 + r)**Rational(2, 3)", lambda r: (1 + r) ** (2 / 3)),
    "power_of_minus_half": ("1/sqrt(1 + r)", lambda r: (1 + r) ** -0.5),
    "power_of_five_halves": ("(1 + r)**Rational(5, 2)", lambda r: (1 + r) ** 2.5),
    "power_of_a_parameter": ("(1 + r)**t", lambda r: (1 + r) ** 0.7),
    "power_of_pi": ("(1 + r)**pi", lambda r: (1 + r) ** math.pi),
    "two_to_the": ("2**r", lambda r: 2**r),
    "a_third_to_the": ("Rational(1, 3)**r", lambda r: 3**-r),
    "x_to_the_x": ("(1 + r)**r", lambda r: (1 + r) ** r),
    "constants": (
        "pi*r + E*r**2 + sqrt(2)*r**3 + GoldenRatio*r + log(3)*r + r*(sqrt(2) + pi)/(1 + E)",
        lambda r: (
            math.pi * r
            + math.e * r**2
            + math.sqrt(2) * r**3
            + (1 + math.sqrt(5)) / 2 * r
            + math.log(3) * r
            + r * (math.sqrt(2) + math.pi) / (1 + math.e)
        ),
    ),
    "nested": ("log(2 + sqrt(1 + exp(r)))", lambda r: torch.log(2 + torch.sqrt(1 + torch.exp(r)))),
    "log_det": ("LogDet(P)", lambda r: torch.full_like(r, LOG_DET)),
    "log_det_inside": (
        "exp(r)*LogDet(P) + log(1 + LogDet(P))",
        lambda r: torch.exp(r) * LOG_DET + math.log1p(LOG_DET),
    ),
}
NOTATIONS = ["free", "explicit"]
CASES = [
    (name, notation)
    for name in HEAD
    for notation in NOTATIONS
    if not (name.startswith("log_det") and notation == "explicit")  # letters alone have a LogDet
]
TEXT = """
from sympy import *
from kahler_verify.calculus import (
    LogDet, coordinates, dimension, explicit_coordinates, parameter, potential,
)
d = dimension("d")
"""
FREE = """
z, t = coordinates("z", d), parameter("t", hermitian=True)
P = parameter("P", d, d, hermitian=True, positive=True)
r = z.H * z
NAME = potential("NAME", 40 * r + EXPR)
"""
EXPLICIT = """
z1, z2 = explicit_coordinates("z1 z2")
t = Symbol("t", real=True)
r = Abs(z1)**2 + Abs(z2)**2
NAME = potential("NAME", 40 * r + EXPR, coordinates=(z1, z2))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One derivation file with all potentials, and the folder of their kernels."""
    folder = tmp_path_factory.mktemp("heads")
    text = TEXT
    for name, notation in CASES:
        part = (FREE if notation == "free" else EXPLICIT).replace("EXPR", HEAD[name][0])
        text += part.replace("NAME", f"{name}_{notation}")
    (folder / "heads_of_all_kinds.py").write_text(text)
    generate_files([folder / "heads_of_all_kinds.py"])
    return {"file": folder / "heads_of_all_kinds.py", "folder": folder}


@pytest.fixture
def module(files: dict[str, Path], name: str, notation: str) -> Iterator[ModuleType]:
    """The committed kernels, imported as a user does."""
    stem = f"{name}_{notation}_kernels"
    spec = importlib.util.spec_from_file_location(stem, files["folder"] / f"{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[stem]


def parameters(module: object) -> dict[str, Tensor]:
    known = {"t": torch.tensor(0.7, dtype=C), "P_factor": FACTOR}
    taken = getattr(module, "PARAMETERS", {})
    return {n: x for n, x in known.items() if n in taken}


def _phi(name: str, x: Tensor) -> Tensor:
    """The potential of real coordinates x = (Re z, Im z)."""
    r = (x**2).sum(-1)
    return 40 * r + HEAD[name][1](r)


@cache
def _truth(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Φ, ∂Φ and g at Z by torch's autograd in real coordinates."""
    values, gradients, metrics = [], [], []
    for z in Z:
        x = torch.cat([z.real, z.imag]).requires_grad_()
        values.append(_phi(name, x).detach())
        gradient = torch.autograd.functional.jacobian(lambda x: _phi(name, x), x.detach())
        h = torch.autograd.functional.hessian(lambda x: _phi(name, x), x.detach())
        (xx, xy), (yx, yy) = (half.chunk(2, -1) for half in h.chunk(2))
        gradients.append(torch.complex(gradient[:2], -gradient[2:]) / 2)
        metrics.append(torch.complex(xx + yy, xy - yx) / 4)
    return torch.stack(values), torch.stack(gradients), torch.stack(metrics)


@pytest.mark.parametrize(("name", "notation"), CASES)
def test_every_method_of_the_committed_kernels(
    module: ModuleType,
    name: str,
    notation: str,
) -> None:
    metric = PotentialMetric(module, **parameters(module))
    value, gradient, g = _truth(name)
    torch.testing.assert_close(metric.value(Z), value)
    torch.testing.assert_close(metric.metric_matrix(Z), g)
    kernel = metric.kernels.call("gradient", {"z": Z, **metric.parameters})
    torch.testing.assert_close(kernel, gradient)
    expected = 2 * math.log(2) + torch.linalg.slogdet(g)[1]
    torch.testing.assert_close(metric.log_volume(Z), expected)
    gamma, ricci = metric.christoffels(Z), metric.ricci_tensor(Z)
    g_d = torch.stack([_slope(metric.metric_matrix, c) for c in range(2)], 1)
    torch.testing.assert_close(gamma @ g.unsqueeze(1), g_d, rtol=1e-6, atol=1e-7)
    trace = lambda z: metric.christoffels(z).diagonal(dim1=-2, dim2=-1).sum(-1)  # noqa: E731
    expected = -torch.stack([_slope(trace, e, bar=True) for e in range(2)], -1)
    torch.testing.assert_close(ricci, expected, rtol=1e-6, atol=1e-7)
    scalar = (torch.linalg.inv(g) @ ricci).diagonal(dim1=-2, dim2=-1).sum(-1).real
    torch.testing.assert_close(metric.scalar_curvature(Z), scalar, rtol=1e-9, atol=1e-12)
    curvature = metric.curvature_tensor(Z)
    above = torch.einsum("zabce,za,zb,zc,ze->z", curvature, V, V.conj(), V, V.conj()).real
    below = torch.einsum("zab,za,zb->z", g, V, V.conj()).real
    sectional = metric.holomorphic_sectional_curvature(Z, V)
    torch.testing.assert_close(sectional, above / below**2, rtol=1e-9, atol=1e-12)
    assert metric.kahler_defect(Z).abs().max() < 1e-12


def _slope(f: Callable[[Tensor], Tensor], c: int, *, bar: bool = False) -> Tensor:
    """∂_c f, or ∂_c̄ f with ``bar``, by differences."""
    along = [1e-5 * turn * torch.eye(2, dtype=C)[c] for turn in (1, 1j)]
    x, y = ((f(Z + step) - f(Z - step)) / 2e-5 for step in along)
    return (x + 1j * y) / 2 if bar else (x - 1j * y) / 2


@pytest.mark.parametrize(("name", "notation"), CASES)
def test_from_a_file_and_by_compile_it_is_the_same(
    files: dict[str, Path], module: ModuleType, name: str, notation: str
) -> None:
    compiled = compile_file(files["file"], f"{name}_{notation}")
    assert compiled.source == Path(module.__file__ or "").read_text()
    metric = PotentialMetric(compiled, **parameters(module))
    torch.testing.assert_close(metric.value(Z), _truth(name)[0])


def test_no_head_is_left_out() -> None:
    assert set(HEADS) <= set(HEAD)


@pytest.mark.parametrize(("name", "notation"), CASES)
def test_the_unrolled_variant_is_the_same(
    module: ModuleType,
    name: str,
    notation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What ``compile=True`` hands to torch.compile."""
    monkeypatch.setattr(unrolled_kernels, "compile_kernel", lambda function: function)
    unrolled_kernels._compiled.cache_clear()
    metric = PotentialMetric(module, compile=True, **parameters(module))
    torch.testing.assert_close(metric.metric_matrix(Z), _truth(name)[2])
    plain = PotentialMetric(module, **parameters(module))
    for method in ("christoffels", "ricci_tensor"):
        torch.testing.assert_close(getattr(metric, method)(Z), getattr(plain, method)(Z))
    assert metric._unrolled is not None
    assert ("metric", 2) in metric._unrolled._variants
    unrolled_kernels._compiled.cache_clear()
