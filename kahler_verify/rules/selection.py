"""Maxima, sorting and what is constant by pieces: derivatives are those of the piece at hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.rules.arithmetic import plus, times
from kahler_verify.rules.expansion import Expansion, linear
from kahler_verify.rules.registry import NotCovered, rule

_COMPARISONS = (
    *("eq", "ne", "lt", "le", "gt", "ge", "isclose", "logical_and", "logical_or", "logical_xor"),
    *("logical_not", "isnan", "isinf", "isfinite", "isposinf", "isneginf", "all", "any"),
    *("argmax", "argmin", "argsort", "bool", "int", "long", "count_nonzero", "nonzero", "signbit"),
    *("bitwise_and", "bitwise_or", "bitwise_not", "bitwise_xor", "bucketize", "searchsorted"),
)
_STEPS = ("sign", "sgn", "round", "floor", "ceil", "trunc", "fix", "heaviside", "floor_divide")
_FILLED = (
    *("zeros_like", "ones_like", "full_like", "empty_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"),
)
_RANDOM = (
    *("rand_like", "randn_like", "randint_like", "normal", "bernoulli", "multinomial", "poisson"),
    *("uniform_", "normal_", "exponential_", "bernoulli_", "random_", "cauchy_", "geometric_"),
    *("log_normal_", "_standard_gamma", "_sample_dirichlet", "binomial"),
)


def _plain(argument: Any) -> Any:
    if isinstance(argument, tuple | list):
        return type(argument)(_plain(a) for a in argument)
    return argument.value if isinstance(argument, Expansion) else argument


def _some(arguments: tuple[Any, ...]) -> Expansion:
    return next(a for a in arguments if isinstance(a, Expansion))


@rule(*_COMPARISONS, several=True)
def compared(call: Any, *arguments: Any, **named: Any) -> Any:
    """Truth values and integers, which have no derivatives."""
    value = call(*_plain(arguments), **{k: _plain(v) for k, v in named.items()})
    return _some((*arguments, *named.values())).constant(value)


@rule(*_STEPS, several=True)
def stepped(call: Any, *arguments: Any, **named: Any) -> Expansion:
    """Constant by pieces."""
    x = _some(arguments)
    if x.value.is_complex():
        raise NotCovered
    x.frame.record.kink(call.__name__, -1)
    return x.constant(call(*_plain(arguments), **named))


@rule("frac", holomorphic=False)
def fraction(call: Any, x: Expansion) -> Expansion:
    """X - trunc x, which jumps."""
    x.frame.record.kink("frac", -1)
    return x.with_value(call(x.value))


@rule("remainder", "fmod", "__mod__", holomorphic=False)
def remainder(call: Any, x: Expansion, divisor: Any) -> Expansion:
    """By a constant: it jumps."""
    x.frame.record.kink(call.__name__, -1)
    return x.with_value(call(x.value, divisor))


@rule(*_FILLED)
def filled(call: Any, x: Expansion, *arguments: Any, **named: Any) -> Expansion:
    """A tensor like another, which does not vary with it; but it may be written into."""
    return x.constant(call(x.value, *arguments, **named))


@rule(*_RANDOM, several=True)
def random(call: Any, *arguments: Any, **named: Any) -> Any:
    """Refused: a decoder is a function."""
    raise InputError(
        f"expected the module to compute the same each time, but it calls torch's random "
        f"{call.__name__}"
    )


@rule("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "native_dropout")
def dropout(call: Any, x: Expansion, p: float, train: bool) -> Expansion:
    """Nothing, once training is over."""
    if train and p > 0:
        raise InputError(
            "expected the module to compute the same each time, but dropout is random in training "
            "mode: call .eval() on the module"
        )
    return x


# One of several entries


def _picked(x: Expansion, name: str, pick: Any) -> Any:
    x.frame.record.kink(name, 0)
    return linear(pick, x)


@rule(
    "max",
    "min",
    "median",
    "nanmedian",
    "mode",
    "kthvalue",
    "cummax",
    "cummin",
    "sort",
    "topk",
    several=True,
    holomorphic=False,
)
def ordered(call: Any, x: Any, *arguments: Any, **named: Any) -> Any:
    """Entries by their order along an axis, and where they stood."""
    name = call.__name__
    if name in ("max", "min") and (arguments or named):
        other = arguments[0] if arguments else next(iter(named.values()))
        if isinstance(other, Expansion | Tensor):
            return larger(torch.maximum if name == "max" else torch.minimum, x, other)
    if not isinstance(x, Expansion):
        raise NotCovered
    result = call(x.value, *arguments, **named)
    if isinstance(result, Tensor):  # over all entries
        if name not in ("max", "min"):
            raise NotCovered
        index = getattr(torch, f"arg{name}")(x.value)
        return _picked(x, name, lambda t: t.flatten()[index])
    values, indices = result
    defaults = {"sort": -1, "topk": -1, "median": -1, "nanmedian": -1, "mode": -1, "kthvalue": -1}
    position = 1 if name in ("topk", "kthvalue") else 0
    dim = named.get("dim", arguments[position] if len(arguments) > position else None)
    dim = defaults.get(name, -1) if dim is None else dim
    flat = indices if indices.ndim == x.value.ndim else indices.unsqueeze(dim)
    picked = _picked(x, name, lambda t: t.gather(dim, flat).reshape(values.shape))
    return type(result)((picked.with_value(values), x.constant(indices)))


@rule("amax", "amin", holomorphic=False)
def extreme(call: Any, x: Expansion, dim: Any = (), keepdim: bool = False) -> Expansion:
    """The largest or smallest entry; shared where several are, as in torch."""
    value = call(x.value, dim, keepdim)
    full = call(x.value, dim, True)
    mask = (x.value == full).to(x.value.dtype)
    weights = mask / mask.sum(dim or None, keepdim=True)
    return _picked(
        x, call.__name__, lambda t: (t * weights).sum(dim or None, keepdim=keepdim)
    ).with_value(value)


@rule("maximum", "minimum", "fmax", "fmin", several=True, holomorphic=False)
def larger(call: Any, a: Any, b: Any) -> Expansion:
    """Of two: ½ of each where they are equal, as in torch."""
    x = _some((a, b))
    x.frame.record.kink(call.__name__, 0)
    value = call(_plain(a), _plain(b))
    dtype = x.value.dtype
    weights = [(_plain(t) == value).to(dtype) for t in (a, b)]
    share = weights[0] + weights[1]
    terms = [
        times(t, w / share)
        for t, w in zip((a, b), weights, strict=True)
        if isinstance(t, Expansion)
    ]
    out = terms[0] if len(terms) == 1 else plus(*terms)
    return out.with_value(value)


@rule(
    *(f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)),
    *(f"{kind}max_pool{n}d_with_indices" for kind in ("", "adaptive_") for n in (1, 2, 3)),
    python=True,
    holomorphic=False,
)
def max_pool(
    call: Any, x: Expansion, *arguments: Any, return_indices: bool = False, **named: Any
) -> Any:
    """The largest entry of each window."""
    name = call.__name__.removesuffix("_with_indices")
    spatial = int(name[-2])
    pool = getattr(functional, name)
    value, indices = pool(x.value, *arguments, **named, return_indices=True)
    flat = indices.flatten(-spatial)

    def pick(t: Tensor) -> Tensor:
        return t.flatten(-spatial).gather(-1, flat).reshape(indices.shape)

    picked = _picked(x, name, pick).with_value(value)
    several = return_indices or call.__name__ != name
    return (picked, x.constant(indices)) if several else picked
