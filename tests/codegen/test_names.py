"""Names that users give never meet the package's own: they work, or generation refuses them."""

import builtins
import inspect
import keyword
import math
from pathlib import Path

import pytest
import torch
from sympy import Abs, E, Expr, Symbol, conjugate, exp, log, pi, sqrt

import kahler_verify
from kahler_verify import PotentialMetric
from kahler_verify.calculus import (
    Derivation,
    Kernel,
    LogSumExp,
    Output,
    Partial,
    coordinates,
    dimension,
    explicit_coordinates,
    field,
    index,
    parameter,
    potential,
)
from kahler_verify.calculus.pointwise import Pointwise
from kahler_verify.codegen.heads import HEADS
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.names import OF_COMPILED, OF_METRICS, OF_MODULES, check_argument
from kahler_verify.codegen.pointwise import generate_pointwise
from kahler_verify.codegen.registry import load_file
from kahler_verify.errors import DerivationError, GenerationError

C = torch.complex128
Z = torch.tensor([[0.3 + 0.1j, -0.2 + 0.4j]], dtype=C)
POINT = torch.tensor([[0.3 + 0.1j, -0.2 + 0.4j, 1.1 - 0.3j]], dtype=C)
T = torch.tensor(1.7, dtype=C)
U = Symbol("z", complex=True)
d = dimension("d")
z = coordinates("z", d)

HEAD_LIKE = [f"{kind}_0" for kind in (*HEADS, "power", "constant", "log_det", "log_sum_exp")]
TEMPORARY = [f"{hint}0" for hint in "zbestpqrnkxvyufo"] + ["zb0", "one0", "zero0", "root0", "out0"]
TEMPORARY += ["identity0", "phi_0", "g_0", "z_d", "z_bar", "z0r", "z_0r", "z_0i", "t0_r", "axis"]
TEMPORARY += [
    "zero",
    "g",
    "g_d",
    "g_db",
    "dtype",
    "device",
    "dim",
    "upper",
    "w",
    "d",
    "n",
    "K",
    "L",
]
TEMPORARY += [
    "a",
    "b",
    "c",
    "e",
    "i",
    "_1",
    "_",
    "__name__",
    "__class__",
    "args",
    "kwargs",
    "match",
]
INTERNAL = sorted({*OF_METRICS, *OF_MODULES, *OF_COMPILED, *HEAD_LIKE, *TEMPORARY})
INTERNAL += sorted(keyword.kwlist)
INTERNAL += ["torch", "delta", "z", "value", "gradient", "metric", "metric_d", "metric_db", "dict"]
INTERNAL += sorted(n for n in vars(builtins) if n.isidentifier() and not keyword.iskeyword(n))[::9]
ODD = ["t'", "my t", "", "2t", "t-t", "ﬁ", "\u212b", "t\n", "__debug__"]
UNICODE = ["λ", "été", "σ_ζ", "数"]


def test_the_lists_are_what_the_package_has() -> None:
    taken = {*inspect.signature(PotentialMetric.__init__).parameters}
    taken |= {*inspect.signature(PotentialMetric.from_file).parameters} | {"cls"}
    assert taken - {"parameters"} == set(OF_METRICS)
    module = generate_module(potential("p", exp(parameter("s") * z.H * z)))
    scope: dict = {}
    exec(module.text, scope)
    kernels = {"value", "gradient", "metric", "metric_d", "metric_db"}
    assert set(scope) - {"__builtins__", "__all__", "__doc__"} - kernels <= set(OF_MODULES)
    compiled = kahler_verify.compile(exp(z.H * z))
    known = {n for n in vars(compiled) if not n.startswith("__")} - kernels
    assert known <= {*OF_MODULES, *OF_COMPILED}


def _is_taken(name: str) -> bool:
    try:
        check_argument(name, "parameter")
    except GenerationError as error:
        assert repr(name) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return False
    return True


NAMES = list(dict.fromkeys([*INTERNAL, *UNICODE]))
TAKEN = [name for name in NAMES if _is_taken(name) and name != "z"]
VALUES = {name: torch.tensor(1 + n / 7, dtype=C) for n, name in enumerate(TAKEN)}


def test_what_is_refused() -> None:
    refused = {*OF_METRICS, *HEAD_LIKE, *keyword.kwlist, "torch", "delta", "z", "__debug__"}
    assert set(NAMES) - set(TAKEN) == refused


def test_parameters_of_all_other_names_work_together() -> None:
    """In explicit coordinates, beside log, exp and temporaries; the value decides."""
    z1, z2 = explicit_coordinates("z1 z2")
    total = sum((n + 1) * Symbol(name, real=True) for n, name in enumerate(TAKEN))
    phi = total * log(1 + Abs(z1) ** 2) + exp(total * Abs(z2) ** 2 / 10**5)
    metric = PotentialMetric(kahler_verify.compile(phi, coordinates=(z1, z2)), **VALUES)
    t = sum((n + 1) * VALUES[name].real for n, name in enumerate(TAKEN))
    x, y = (Z.abs() ** 2)[0]
    s = t / 10**5
    expected = torch.stack([t / (1 + x) ** 2, s * (1 + s * y) * torch.exp(s * y)])
    torch.testing.assert_close(metric.metric_matrix(Z)[0].diagonal().real, expected)
    torch.testing.assert_close(metric.value(Z)[0], t * torch.log(1 + x) + torch.exp(s * y))


def test_fields_of_all_other_names_work_together() -> None:
    """In any dimension."""
    total = sum((n + 1) * parameter(name, hermitian=True) for n, name in enumerate(TAKEN))
    metric = PotentialMetric(kahler_verify.compile(total * z.H * z + log(1 + z.H * z)), **VALUES)
    t = sum((n + 1) * VALUES[name].real for n, name in enumerate(TAKEN))
    r = (Z.abs() ** 2).sum()
    outer = Z[0].conj()[:, None] * Z[0]
    expected = (t + 1 / (1 + r)) * torch.eye(2) - outer / (1 + r) ** 2
    torch.testing.assert_close(metric.metric_matrix(Z)[0], expected)
    torch.testing.assert_close(metric.value(Z)[0], t * r + torch.log(1 + r))


@pytest.mark.thorough
@pytest.mark.parametrize("name", TAKEN)
def test_a_parameter_works_by_itself(name: str) -> None:
    z1, z2 = explicit_coordinates("z1 z2")
    t = Symbol(name, real=True)
    phi = t * log(1 + Abs(z1) ** 2) + exp(t * Abs(z2) ** 2)
    metric = PotentialMetric(kahler_verify.compile(phi, coordinates=(z1, z2)), **{name: T})
    x, y = (Z.abs() ** 2)[0]
    t = T.real
    expected = torch.stack([t / (1 + x) ** 2, t * (1 + t * y) * torch.exp(t * y)])
    torch.testing.assert_close(metric.metric_matrix(Z)[0].diagonal().real, expected)


@pytest.mark.parametrize("kind", ["explicit", "free"])
@pytest.mark.parametrize("name", ["self", "kernels", "log_0", "class", "z"])
def test_generation_refuses_what_is_refused(name: str, kind: str) -> None:
    z1, z2 = explicit_coordinates("z1 z2")
    of = {
        "explicit": potential("p", Symbol(name, real=True) * Abs(z1) ** 2, coordinates=(z1, z2)),
        "free": potential("p", parameter(name, hermitian=True) * z.H * z),
    }
    with pytest.raises(GenerationError, match=name):
        generate_module(of[kind])


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_refused(name: str) -> None:
    z1, z2 = explicit_coordinates("z1 z2")
    with pytest.raises(GenerationError):
        generate_module(
            potential("p", Symbol(name, real=True) * Abs(z1) ** 2, coordinates=(z1, z2))
        )
    with pytest.raises(GenerationError):
        generate_module(potential("p", parameter(name, hermitian=True) * z.H * z))


@pytest.mark.parametrize(
    "pair", ["z z_bar", "z w", "z_bar z", "z1 z1_bar", "log_0 torch", "self z0"]
)
def test_coordinates_may_have_any_names(pair: str) -> None:
    """|a|² + 2|b|²: diag(1, 2)."""
    a, b = explicit_coordinates(pair)
    kernels = kahler_verify.compile(Abs(a) ** 2 + 2 * Abs(b) ** 2, coordinates=(a, b))
    g = PotentialMetric(kernels).metric_matrix(Z)[0]
    torch.testing.assert_close(g, torch.diag(torch.tensor([1, 2], dtype=C)))


@pytest.mark.parametrize("group", range(4))
def test_coordinates_may_have_internal_names(group: int) -> None:
    names = ["z", "z_bar", "zb0", "out0", "self", "torch", "log_0", "exp_0", "class", "", "t'", "é"]
    symbols = tuple(Symbol(name, complex=True) for name in names[3 * group : 3 * group + 3])
    phi = sum((n + 1) * Abs(s) ** 2 for n, s in enumerate(symbols)) + log(1 + Abs(symbols[0]) ** 2)
    g = PotentialMetric(kahler_verify.compile(phi, coordinates=symbols)).metric_matrix(POINT)[0]
    x = POINT.abs()[0, 0] ** 2
    expected = torch.stack([1 + (1 + x) ** -2, torch.tensor(2.0), torch.tensor(3.0)])
    torch.testing.assert_close(g.diagonal().real, expected, check_dtype=False)


def test_parameters_and_coordinates_named_like_constants_are_no_constants() -> None:
    """π, E and √2 beside symbols that print as they do."""
    a, b = Symbol("E", complex=True), Symbol("sqrt(2)", complex=True)
    t = Symbol("pi", real=True)
    phi = (t - pi) * Abs(a) ** 2 + (E - sqrt(2)) * Abs(b) ** 2 + 2 * sqrt(2) * Abs(b) ** 2
    g = PotentialMetric(kahler_verify.compile(phi, coordinates=(a, b)), pi=T).metric_matrix(Z)[0]
    expected = [1.7 - math.pi, math.e + math.sqrt(2)]
    torch.testing.assert_close(g, torch.diag(torch.tensor(expected, dtype=C)))


def test_two_symbols_of_one_name_are_refused() -> None:
    z1, z2 = explicit_coordinates("z1 z2")
    real, positive = Symbol("t", real=True), Symbol("t", positive=True)
    for phi, message in [
        (real * Abs(z1) ** 2 + positive * Abs(z2) ** 2, "two inputs would be named t"),
        (Symbol("z1", real=True) * Abs(z2) ** 2, "'z1' is named like a coordinate"),
        (Abs(z1) ** 2 * Symbol("z", real=True), "two inputs would be named z"),
    ]:
        with pytest.raises(GenerationError, match=message):
            generate_module(potential("p", phi, coordinates=(z1, z2)))
    with pytest.raises(GenerationError, match="expected different names"):
        generate_module(potential("p", Abs(z1) ** 2, coordinates=(z1, z1)))


def test_two_fields_of_one_name_are_refused_in_different_kernels_too() -> None:
    """P_factor is the Cholesky factor of P in some kernels, and a parameter in others."""
    P = parameter("P", d, d, hermitian=True, positive=True)
    other = parameter("P_factor", d, d)
    phi = z.H * P**-1 * z + z.H * (other + other.H) * z
    with pytest.raises(GenerationError, match=r"two different fields.* P_factor"):
        generate_module(potential("p", phi))


def test_the_point_is_named_z() -> None:
    x = coordinates("x", d)
    with pytest.raises(GenerationError, match="expected the name 'z'"):
        generate_module(potential("p", log(1 + x.H * x)))


def test_weights_of_a_mixture_keep_their_name() -> None:
    q = field("q", component=True, hermitian=True)
    w = parameter("w", hermitian=True)
    with pytest.raises(GenerationError, match="'w' names the weights"):
        generate_module(potential("p", LogSumExp(q) + w * z.H * z))


@pytest.mark.parametrize("name", [*OF_MODULES, *OF_COMPILED, "class", "__all__"])
def test_kernels_and_derivations_have_names_of_their_own(name: str) -> None:
    a, b = index("a b")
    kernel = Kernel(name, {"g": Output(Partial(z.H * z, a), (a,))})
    with pytest.raises(GenerationError, match="kernel"):
        generate_module(Derivation("x", "x", (kernel,), d))
    if keyword.iskeyword(name):
        with pytest.raises(GenerationError, match="name"):
            generate_module(potential(name, z.H * z))
    assert b is not a


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"torch": U}, "'torch' is a name of generated modules"),
        ({"class": U}, "'class' cannot name"),
        ({"f": U, "f_1": U * 2}, "two functions would be named 'f_1'"),
        ({"f": U * conjugate(U), "f_real": U}, "two functions would be named 'f_real'"),
        ({"f": U * Symbol("lambda", real=True)}, "'lambda' cannot name"),
        ({"f": U * Symbol("x", real=True)}, "x"),
    ],
)
def test_pointwise_functions_have_names_of_their_own(
    functions: dict[str, Expr], message: str
) -> None:
    with pytest.raises((GenerationError, DerivationError), match=message):
        generate_pointwise(Pointwise("family", "A family", U, functions, order=1))


@pytest.mark.parametrize("stem", ["torch", "sympy", "my file", "a.b", "class", "2x", "été", "x-y"])
def test_files_may_have_any_name(stem: str, tmp_path: Path) -> None:
    path = tmp_path / f"{stem}.py"
    path.write_text(
        "from kahler_verify.calculus import coordinates, dimension, potential\n"
        "z = coordinates('z', dimension('d'))\n"
        "torch = potential('torch', z.H * z)\n",
        encoding="utf-8",
    )
    (derivation,) = load_file(path)
    g = PotentialMetric.from_file(path).metric_matrix(Z)[0]
    torch.testing.assert_close(g, torch.eye(2, dtype=C))
    assert derivation.name == "torch"


def test_errors_name_the_argument_and_are_one_line() -> None:
    with pytest.raises(GenerationError, match="parameter: 'self' cannot name an argument"):
        check_argument("self", "parameter")
    with pytest.raises(GenerationError, match="Python reads 'ﬁ' as 'fi'"):
        check_argument("ﬁ", "parameter")
    with pytest.raises(DerivationError, match="expected a Python identifier"):
        potential("my-potential", z.H * z)
