"""The register of rules: one for each torch function, by the name torch gives it.

A rule takes the torch function itself, to call it on values and on rows, and then that function's
arguments, with :class:`~kahler_verify.rules.expansion.Expansion` in the place of tensors that vary.
``torch.tanh``, ``Tensor.tanh`` and ``torch.special``'s aliases are one function under one name;
``tanh_`` and ``__iadd__`` are what they are without writing in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from kahler_verify.errors import KahlerVerifyError
from kahler_verify.rules.expansion import Expansion

__all__ = ["RULES", "NotCovered", "Rule", "find", "rule"]


class NotCovered(Exception):
    """A rule's answer to arguments that it does not know: autograd takes that call."""


@dataclass(frozen=True)
class Rule:
    """How derivatives go through a torch function.

    Attributes:
        function: from (torch function, *its arguments) to expansions, or to plain tensors.
        several: more than the first argument may vary; else such calls go to autograd.
        holomorphic: the rule also holds along complex directions.
        python: the rule stands for a function that torch composes in Python of others; such a one
            is opened where no rule stands for it.
    """

    function: Callable[..., Any]
    several: bool
    holomorphic: bool
    python: bool

    def covers(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
        """Does the rule say something about these arguments?"""
        if self.several:
            return True
        first = isinstance(arguments[0], Expansion) if arguments else False
        return first and not any(map(_varies, (*arguments[1:], *named.values())))


def _varies(argument: Any) -> bool:
    if isinstance(argument, tuple | list):
        return any(map(_varies, argument))
    return isinstance(argument, Expansion)


_RULES: dict[str, Rule] = {}
RULES: Mapping[str, Rule] = MappingProxyType(_RULES)
"""The rules by the names of torch's functions."""


def rule(
    *names: str, several: bool = False, holomorphic: bool = True, python: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a rule under the names of all torch functions that it is right for."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            if name in _RULES:
                raise KahlerVerifyError(f"there are two rules for torch's {name}")
            _RULES[name] = Rule(function, several, holomorphic, python)
        return function

    return register


_OTHER_NAMES = {
    **{f"__{name}__": name for name in ("add", "sub", "mul", "matmul", "pow", "neg", "abs")},
    **{f"__r{name}__": name for name in ("add", "mul")},
    **{f"__{name}__": name for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{f"__{name}__": f"logical_{name}" for name in ("and", "or", "xor")},
    "__invert__": "logical_not",
    "__truediv__": "div",
    "__div__": "div",
    "true_divide": "div",
    "divide": "div",
    "multiply": "mul",
    "subtract": "sub",
    "negative": "neg",
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctanh": "atanh",
    "log_sigmoid": "logsigmoid",
    "special_expit": "sigmoid",
    "special_log_softmax": "log_softmax",
    "special_softmax": "softmax",
    **{
        f"special_{name}": name
        for name in ("erf", "erfc", "exp2", "expm1", "log1p", "logit", "logsumexp", "digamma")
    },
    "special_gammaln": "lgamma",
    "special_psi": "digamma",
    "concat": "cat",
    "concatenate": "cat",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "moveaxis": "movedim",
    "adjoint": "mH",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "not_equal": "ne",
    "clip": "clamp",
}


def canonical(name: str) -> str:
    """The one name of a function that has several."""
    return _OTHER_NAMES.get(name, name)


def find(name: str) -> Rule | None:
    """The rule for a torch function's name."""
    return _RULES.get(canonical(name))
