"""Independent routes to the Fisher geometry of a trained decoder, through its layers.

The definition here is KL(p_z ‖ p_{z'}) between the decoder's likelihoods.  It is differentiated by
autograd in real coordinates, by torch.distributions' own KL, by samples, and at 50 digits by a
forward pass of our own through the decoder's weights, over numbers with nilpotents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import jacfwd, jacrev

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arithmetic import DIGITS
from kahler_verify.evidence.routes.autograd import Mode, wirtinger_jet
from kahler_verify.evidence.routes.gaussians import fisher_deviations, realified, wirtinger_hessian
from kahler_verify.networks.activations import ActivationLayer
from kahler_verify.networks.decoder import ComplexLinear, Decoder

mp: Any = mpmath.mp.clone()
mp.dps = DIGITS


# ------------------------------------------------------------------------------- autograd


def _complex(u: Tensor) -> Tensor:
    x, y = u.chunk(2, -1)
    return torch.complex(x, y)


def _likelihood(decoder: Decoder, z: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and log variances [D] at one point z [d]."""
    fields = decoder.parameters_at(z[None])
    mean = fields.mean[0]
    return mean, fields.log_variance.reshape(-1).expand(mean.shape)


def _share(decoder: Decoder) -> float:
    """A real Gaussian's KL and log density are half of the complex expression."""
    return 0.5 if decoder.config.likelihood == "real" else 1.0


def _squares(x: Tensor) -> Tensor:
    return x.real * x.real + x.imag * x.imag if x.is_complex() else x * x


def divergence(decoder: Decoder, z: Tensor, u0: Tensor, u: Tensor) -> Tensor:
    """KL(p_{z+u₀} ‖ p_{z+u}) for displacements in real coordinates [2d]."""
    mean0, log0 = _likelihood(decoder, z + _complex(u0))
    mean, log = _likelihood(decoder, z + _complex(u))
    terms = log - log0 - 1 + (log0 - log).exp() + _squares(mean - mean0) * (-log).exp()
    return _share(decoder) * terms.sum()


def by_autograd(
    decoder: Decoder, z: Tensor, *, third: bool = False, mode: Mode = "reverse"
) -> list[Tensor]:
    """g and k [d, d] at z [d], and with ``third`` also g_d [c, a, b]."""
    zero = torch.zeros(2 * len(z), dtype=torch.float64)
    outer = jacfwd if mode == "forward" else jacrev

    def real_metric(v: Tensor, last: Any = jacrev) -> Tensor:
        return last(jacrev(lambda u: divergence(decoder, z, v, u)))(v)

    g, k = wirtinger_hessian(real_metric(zero, outer))
    found = [g, k]

    def mixed(v: Tensor) -> Tensor:
        value, _ = wirtinger_hessian(real_metric(v))
        return torch.stack([value.real, value.imag], -1)

    if third:
        found.append(wirtinger_jet(outer(mixed)(zero), 1, 0))
    return found


def by_torch_kl(decoder: Decoder, z: Tensor) -> list[Tensor]:
    """g and k by torch.distributions' KL of real normals, reverse over reverse."""

    def law(point: Tensor) -> MultivariateNormal:
        mean, log = _likelihood(decoder, point)
        if decoder.config.likelihood == "real":
            return MultivariateNormal(mean, torch.diag(log.exp()), validate_args=False)
        return realified(mean, torch.diag(log.exp()).to(mean.dtype))

    fixed = law(z)
    zero = torch.zeros(2 * len(z), dtype=torch.float64)
    hessian = jacrev(jacrev(lambda u: kl_divergence(fixed, law(z + _complex(u)))))(zero)
    return list(wirtinger_hessian(hessian))


def by_sampling(
    decoder: Decoder, z: Tensor, g: Tensor, k: Tensor, generator: torch.Generator
) -> list[Tensor]:
    """Deviations of g and k from the Fisher information of samples, in standard errors."""
    mean, log = _likelihood(decoder, z)
    zero = torch.zeros(2 * len(z), dtype=torch.float64)

    def draw(count: int) -> Tensor:
        deviation = (log / 2).exp()
        if decoder.config.likelihood == "real":
            noise = torch.randn(count, len(mean), generator=generator, dtype=torch.float64)
        else:
            pairs = torch.randn(count, len(mean), 2, generator=generator, dtype=torch.float64)
            noise = torch.view_as_complex(pairs) / 2**0.5
        return mean + noise * deviation

    def scores(count: int) -> Tensor:
        x = draw(count)

        def log_density(u: Tensor) -> Tensor:
            moved, spread = _likelihood(decoder, z + _complex(u))
            return -_share(decoder) * (spread + _squares(x - moved) * (-spread).exp()).sum(-1)

        return jacfwd(log_density)(zero)

    with torch.no_grad():
        return fisher_deviations(scores, {"g": g, "k": k})


# ------------------------------------------------------------------------------- 50 digits

Key = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A nilpotent that moves z (z̄, with ``bar``) in one of some directions; ``base``: z₀ too."""

    directions: tuple[int, ...]
    bar: bool = False
    base: bool = False


@dataclass(frozen=True)
class Nilpotent:
    """Numbers [units] with nilpotents: for each slot a direction, or none.

    Key (2, 0) is the coefficient of the first slot's second direction, and of nothing of the second
    slot.  The product of two uses of one slot is zero, so that coefficients are derivatives.
    """

    parts: dict[Key, np.ndarray]

    def __add__(self, other: Nilpotent) -> Nilpotent:
        parts = dict(self.parts)
        for key, value in other.parts.items():
            parts[key] = parts[key] + value if key in parts else value
        return Nilpotent(parts)

    def __sub__(self, other: Nilpotent) -> Nilpotent:
        return self + other.times(-1)

    def __mul__(self, other: Nilpotent) -> Nilpotent:
        parts: dict[Key, np.ndarray] = {}
        for k, x in self.parts.items():
            for m, y in other.parts.items():
                if any(i and j for i, j in zip(k, m, strict=True)):
                    continue
                key = tuple(i or j for i, j in zip(k, m, strict=True))
                value = x * y
                parts[key] = parts[key] + value if key in parts else value
        return Nilpotent(parts)

    def times(self, number: Any) -> Nilpotent:
        """A multiple, by a number or by numbers [units]."""
        return Nilpotent({k: x * number for k, x in self.parts.items()})

    def plus(self, number: Any) -> Nilpotent:
        """Add to the part without nilpotents."""
        return Nilpotent({k: x if any(k) else x + number for k, x in self.parts.items()})

    @property
    def here(self) -> np.ndarray:
        """The part without nilpotents."""
        return next(x for k, x in self.parts.items() if not any(k))

    def apply(self, taylor: Callable[[Any, int], Any]) -> Nilpotent:
        """f of every unit, from f's Taylor coefficients ``taylor(c, j)`` = f^(j)(c)/j!."""
        here = self.here
        rest = Nilpotent({k: x for k, x in self.parts.items() if any(k)})
        order = len(next(iter(self.parts)))
        coefficients = [
            np.array([taylor(c, j) for c in here], dtype=object) for j in range(order + 1)
        ]
        zero = (0,) * order
        total, power = Nilpotent({zero: coefficients[0]}), rest
        for j in range(1, order + 1):
            if not power.parts:
                break
            total = total + power.times(coefficients[j])
            power = power * rest
        return total

    def linear(self, weight: np.ndarray, bias: np.ndarray) -> Nilpotent:
        """W x + b."""
        return Nilpotent({k: weight.dot(x) for k, x in self.parts.items()}).plus(bias)

    def exp(self) -> Nilpotent:
        """e^x."""
        return self.apply(lambda c, j: mp.exp(c) / mp.factorial(j))

    def reciprocal(self) -> Nilpotent:
        """1/x."""
        return self.apply(lambda c, j: (-1) ** j / c ** (j + 1))


def _tanh(x: Nilpotent) -> Nilpotent:
    return (x.times(2).exp().plus(1).reciprocal()).times(-2).plus(1)


def _sigmoid(x: Nilpotent) -> Nilpotent:
    return x.times(-1).exp().plus(1).reciprocal()


def _sin(x: Nilpotent) -> Nilpotent:
    return x.apply(lambda c, j: mp.sin(c + j * mp.pi / 2) / mp.factorial(j))


def _softplus(x: Nilpotent) -> Nilpotent:
    grown = x.exp().plus(1)
    return grown.apply(lambda c, j: (-1) ** (j + 1) / (j * c**j) if j else mp.log(c))


def _gelu(x: Nilpotent) -> Nilpotent:
    def erf(c: Any, j: int) -> Any:
        if j == 0:
            return mp.erf(c)
        slope = 2 / mp.sqrt(mp.pi) * mp.exp(-c * c)
        return (-1) ** (j - 1) * mp.hermite(j - 1, c) * slope / mp.factorial(j)

    return x * x.times(1 / mp.sqrt(2)).apply(erf).plus(1).times(mp.mpf(1) / 2)


HOLOMORPHIC: dict[str, Callable[[Nilpotent], Nilpotent]] = {
    "identity": lambda x: x,
    "quadratic": lambda x: x + (x * x).times(mp.mpf(1) / 4),
    "cubic": lambda x: x + (x * x * x).times(mp.mpf(1) / 6),
    "sin": _sin,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
}
SPLIT: dict[str, Callable[[Nilpotent], Nilpotent]] = {
    "split_tanh": _tanh,
    "split_softplus": _softplus,
    "split_gelu": _gelu,
    "split_silu": lambda x: x * _sigmoid(x),
}

Polarised = tuple[Nilpotent, Nilpotent]  # a function of (z, z̄), and its conjugate


def _activate(layer: ActivationLayer, x: Polarised) -> Polarised:
    name = layer.activation.name
    if name in HOLOMORPHIC:  # all of them have real Taylor coefficients
        return HOLOMORPHIC[name](x[0]), HOLOMORPHIC[name](x[1])
    if name in SPLIT:
        real = SPLIT[name](_real(x))
        imaginary = SPLIT[name]((x[0] - x[1]).times(mp.mpc(0, -0.5))).times(mp.mpc(0, 1))
        return real + imaginary, real - imaginary
    if name == "modulus_sigmoid":
        scale = _sigmoid((x[0] * x[1]).plus(_numbers(layer.bias)))
        return x[0] * scale, x[1] * scale
    if name == "modulus_squash":
        grown = (x[0] * x[1]).plus(1)
        scale = grown.apply(lambda c, j: mp.binomial(mp.mpf(-1) / 2, j) * c ** (-mp.mpf(1) / 2 - j))
        return x[0] * scale, x[1] * scale
    raise EvidenceError(f"no 50-digit rule for the activation {name!r}")


def _real(x: Polarised) -> Nilpotent:
    return (x[0] + x[1]).times(mp.mpf(1) / 2)


def _numbers(values: Any) -> np.ndarray:
    """A tensor's exact values at 50 digits."""
    flat = values.detach().to(torch.complex128).reshape(-1).tolist()
    out = np.empty(len(flat), dtype=object)
    out[:] = [mp.mpc(v) for v in flat]
    return out.reshape(values.shape)


def _conjugate(values: np.ndarray) -> np.ndarray:
    return np.array([mp.conj(v) for v in values.ravel()], dtype=object).reshape(values.shape)


def _linear(layer: ComplexLinear, x: Polarised) -> Polarised:
    weight, bias = _numbers(layer.weight), _numbers(layer.bias)
    return x[0].linear(weight, bias), x[1].linear(_conjugate(weight), _conjugate(bias))


def decimal_likelihood(
    decoder: Decoder, z: Tensor, slots: Sequence[Slot]
) -> tuple[Polarised, Nilpotent]:
    """The mean and the log variances at 50 digits, with a nilpotent for each slot."""
    zero = (0,) * len(slots)
    here = _numbers(z)
    x: list[Nilpotent] = []
    for bar in (False, True):
        parts = {zero: _conjugate(here) if bar else here}
        for n, slot in enumerate(slots):
            if slot.bar == bar:
                for i, direction in enumerate(slot.directions):
                    key = tuple(i + 1 if m == n else 0 for m in range(len(slots)))
                    unit = [mp.mpc(j == direction) for j in range(len(here))]
                    parts[key] = np.array(unit, dtype=object)
        x.append(Nilpotent(parts))
    h: Polarised = (x[0], x[1])
    for layer in decoder.layers:
        h = _linear(layer, h) if isinstance(layer, ComplexLinear) else _activate(layer, h)  # type: ignore[arg-type]
    scale = _numbers(decoder.scale.reshape(1))[0]
    mean = tuple(m.times(scale) for m in _linear(decoder.mean_head, h))
    if decoder.config.likelihood == "complex":
        location = _numbers(torch.view_as_complex(decoder.location))
        mean = (mean[0].plus(location), mean[1].plus(_conjugate(location)))
    else:
        real = _real((mean[0], mean[1])).plus(_numbers(decoder.location))
        mean = (real, real)
    if decoder.log_variance_head is not None:
        log = _real(_linear(decoder.log_variance_head, h))
    else:
        log = Nilpotent({zero: _numbers(decoder.constant_log_variance)})
    return (mean[0], mean[1]), log.plus(2 * mp.log(scale))


def by_decimals(decoder: Decoder, z: Tensor, slots: Sequence[Slot]) -> Tensor:
    """KL's derivative in all slots at 50 digits, [directions of each slot], rounded to complex128.

    Slots with ``base`` move z and z₀ together, the others z alone.
    """
    mean, log = decimal_likelihood(decoder, z, slots)

    def at_base(x: Nilpotent) -> Nilpotent:
        fits = lambda key: all(s.base for i, s in zip(key, slots, strict=True) if i)  # noqa: E731
        return Nilpotent({k: v for k, v in x.parts.items() if fits(k)})

    log0 = at_base(log)
    steps = [m - at_base(m) for m in mean]
    inverse = log.times(-1).exp()
    spread = log - log0 + (log0 - log).exp()
    squares = steps[0] * steps[1] * inverse
    outputs = decoder.config.data_dim
    share = mp.mpf(_share(decoder))
    shape = [len(s.directions) for s in slots]
    out = torch.zeros(shape, dtype=torch.complex128)
    for entry in product(*[range(n) for n in shape]):
        key = tuple(i + 1 for i in entry)
        total = mp.mpc(0)
        for part, times in ((spread, outputs), (squares, outputs)):
            value = part.parts.get(key)
            if value is not None:
                total += reduce(lambda x, y: x + y, value) * times / len(value)
        out[entry] = torch.tensor(complex(share * total), dtype=out.dtype)
    return out


def decimal_metric(decoder: Decoder, z: Tensor) -> list[Tensor]:
    """g and k at 50 digits."""
    all_of = tuple(range(len(z)))
    g = by_decimals(decoder, z, [Slot(all_of), Slot(all_of, bar=True)])
    k = by_decimals(decoder, z, [Slot(all_of), Slot(all_of)])
    return [g, k]


def decimal_derivatives(
    decoder: Decoder, z: Tensor, directions: tuple[int, ...], entries: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """∂_c g_{ab̄} [c, a, b] and ∂_c∂_ē g_{ab̄} [c, e, a, b] at 50 digits.

    c and e run over ``directions``; a and b over ``entries`` in the second, over all in the first.
    """
    all_of = tuple(range(len(z)))
    along = Slot(directions, base=True)
    first = by_decimals(decoder, z, [along, Slot(all_of), Slot(all_of, bar=True)])
    slots = [along, Slot(directions, bar=True, base=True), Slot(entries), Slot(entries, bar=True)]
    return first, by_decimals(decoder, z, slots)
