"""Activations: their values, their kind, their poles, and what is refused."""

import mpmath
import pytest
import torch

from kahler_verify.errors import InputError
from kahler_verify.networks.activations import (
    ACTIVATIONS,
    REFUSED,
    ActivationLayer,
    get_activation,
)

HOLOMORPHIC = [name for name, activation in ACTIVATIONS.items() if activation.holomorphic]
MEROMORPHIC = [name for name, activation in ACTIVATIONS.items() if activation.pole_distance]
POINTS = torch.tensor(
    [0, 0.3 - 0.2j, -1.1 + 0.7j, 2 + 1.2j, 0.5j, 40 + 0.3j, -40 - 2j], dtype=torch.complex128
)


def _split(function):
    return lambda z: mpmath.mpc(function(z.real), function(z.imag))


REFERENCE = {
    "identity": lambda z: z,
    "quadratic": lambda z: z + z**2 / 4,
    "cubic": lambda z: z + z**3 / 6,
    "sin": mpmath.sin,
    "tanh": mpmath.tanh,
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "split_tanh": _split(mpmath.tanh),
    "split_softplus": _split(lambda x: mpmath.log(1 + mpmath.exp(x))),
    "split_gelu": _split(lambda x: x * mpmath.ncdf(x)),
    "split_silu": _split(lambda x: x / (1 + mpmath.exp(-x))),
    "modulus_sigmoid": lambda z: z / (1 + mpmath.exp(-(abs(z) ** 2) - mpmath.mpf("0.4"))),
    "modulus_squash": lambda z: z / mpmath.sqrt(1 + abs(z) ** 2),
}


def _apply(name, z):
    activation = ACTIVATIONS[name]
    return activation(z, z.real.new_tensor(0.4)) if activation.biased else activation(z)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_are_those_of_the_formula(name):
    with mpmath.workdps(30):
        expected = [complex(REFERENCE[name](mpmath.mpc(complex(z)))) for z in POINTS]
    expected = torch.tensor(expected, dtype=torch.complex128)
    torch.testing.assert_close(_apply(name, POINTS), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_holomorphic_means_the_cauchy_riemann_equations_hold(name):
    x, y = POINTS.real.clone(), POINTS.imag.clone()

    def pair(x, y):
        return torch.view_as_real(_apply(name, torch.complex(x, y)))

    _, by_x = torch.func.jvp(pair, (x, y), (torch.ones_like(x), torch.zeros_like(y)))
    _, by_y = torch.func.jvp(pair, (x, y), (torch.zeros_like(x), torch.ones_like(y)))
    antiholomorphic = torch.view_as_complex(by_x) + 1j * torch.view_as_complex(by_y)
    size = torch.view_as_complex(by_x).abs() + 1
    holomorphic = bool((antiholomorphic.abs() / size).max() < 1e-13)
    assert holomorphic == ACTIVATIONS[name].holomorphic


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_are_the_real_or_complex_first_derivatives(name):
    activation = ACTIVATIONS[name]
    bias = (torch.tensor(0.4, dtype=torch.float64),) if activation.biased else ()
    value, slope, *crossed = activation.slopes(torch.stack([POINTS.real, POINTS.imag]), *bias)
    torch.testing.assert_close(torch.complex(*value), _apply(name, POINTS))
    x, y, one = POINTS.real.clone(), POINTS.imag.clone(), torch.ones_like(POINTS.real)

    def parts(x, y):
        return torch.view_as_real(_apply(name, torch.complex(x, y))).movedim(-1, 0)

    _, (p_x, q_x) = torch.func.jvp(parts, (x, y), (one, 0 * one))
    _, (p_y, q_y) = torch.func.jvp(parts, (x, y), (0 * one, one))
    diagonal = (p_x, q_x) if activation.holomorphic else (p_x, q_y)
    torch.testing.assert_close(slope, torch.stack(diagonal))
    assert len(crossed) == (not activation.holomorphic and not activation.split)
    if crossed:
        torch.testing.assert_close(crossed[0], torch.stack([p_y, q_x]))
    assert activation.split == name.startswith("split")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_third_derivatives_are_right(name):
    """Along a line through 0 and elsewhere, against mpmath's differentiation of the formula."""
    direction = 0.6 + 0.8j
    for start in (0j, 0.4 - 0.3j):

        def along(t, start=start):
            return torch.view_as_real(
                _apply(name, torch.complex(start.real + 0.6 * t, start.imag + 0.8 * t))
            )

        derivative = along
        for _ in range(3):
            derivative = torch.func.jacfwd(derivative)
        got = complex(*derivative(torch.zeros((), dtype=torch.float64)).tolist())
        with mpmath.workdps(40):
            line = lambda t, s=start: REFERENCE[name](mpmath.mpc(s) + t * mpmath.mpc(direction))  # noqa: E731
            expected = complex(mpmath.diff(line, 0, 3))
        assert got == pytest.approx(expected, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("name", MEROMORPHIC)
def test_poles_are_where_they_are_said_to_be(name):
    activation = ACTIVATIONS[name]
    period = torch.pi if name == "tanh" else 2 * torch.pi
    for k in (-2, 0, 1):
        pole = complex(0, period * (k + 0.5))
        z = torch.tensor([pole + 1e-4, pole - 1e-4j, pole + 0.3], dtype=torch.complex128)
        distance = activation.pole_distance(z)
        torch.testing.assert_close(
            distance, torch.tensor([1e-4, 1e-4, 0.3], dtype=torch.float64), rtol=1e-9, atol=0
        )
        assert float(activation(z).abs()[:2].min()) > 9e3
    assert "none" not in activation.poles


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_activations_say_why(name):
    with pytest.raises(InputError, match=r"branch cuts|C²"):
        get_activation(name, holomorphic=True)
    assert name not in ACTIVATIONS


@pytest.mark.parametrize(
    ("name", "holomorphic", "message"),
    [
        ("no_such", None, "expected an activation among identity"),
        ("split_tanh", True, "which is not holomorphic"),
        ("tanh", False, "which is holomorphic"),
    ],
)
def test_wrong_kinds_are_refused(name, holomorphic, message):
    with pytest.raises(InputError, match=message):
        get_activation(name, holomorphic=holomorphic)


def test_large_inputs_stay_finite_and_c2_in_float32():
    z = torch.complex(torch.tensor([-200.0, 0.0, 200.0]), torch.tensor([200.0, 59.9, -60.1]))
    for name in ("tanh", "split_tanh", "split_softplus", "split_gelu", "split_silu"):
        assert bool(torch.isfinite(_apply(name, z)).all()), name


def test_layers_hold_a_bias_only_where_the_activation_has_one():
    assert [name for name, _ in ActivationLayer("modulus_sigmoid", 3).named_parameters()] == [
        "bias"
    ]
    assert list(ActivationLayer("tanh", 3).parameters()) == []
