"""Transcendental values, heads, which kernels take as inputs and ``heads`` functions compute."""

from __future__ import annotations

from math import factorial

from sympy import Expr, Function, Integer, Pow, polygamma

from kahler_verify.calculus.mixture import LogSumExp
from kahler_verify.calculus.words import LogDet, distribute
from kahler_verify.codegen.numbers import integer_code, is_real
from kahler_verify.errors import GenerationError

# Functions that a `heads` function may compute; bodies take their values as inputs.
HEADS = {
    name: f"torch.{name}({{}})"
    for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")
}
REAL_HEADS = {  # torch has them for real numbers alone
    "log1pexp": "torch.nn.functional.softplus({}, threshold=60.0)",
    "loggamma": "torch.lgamma({})",
    "logistic": "torch.sigmoid({})",
    "polygamma": "torch.digamma({})",  # of order 0; see polygamma_code for the others
}


def normal_head(expr: Expr) -> Expr:
    """One spelling for heads: SymPy writes both f((x - y)/2) and f(x/2 - y/2)."""
    if isinstance(expr, Pow) or type(expr).__name__ in HEADS | REAL_HEADS:
        return expr.func(*[distribute(a) for a in expr.args])
    return expr


def head_name(expr: Expr) -> str:
    """The kind of a head, or an error for a function that no printer lists."""
    if expr.is_number:
        for function in expr.atoms(Function):
            if type(function).__name__ not in HEADS:
                raise GenerationError(f"the printer has no rule for the number {expr}")
        return "constant"
    if isinstance(expr, LogSumExp):
        return "log_sum_exp"
    if isinstance(expr, LogDet):
        return "log_det"
    if isinstance(expr, Pow):
        return "power"
    name = type(expr).__name__
    if isinstance(expr, polygamma) and not (expr.args[0].is_Integer and expr.args[0] >= 0):
        raise GenerationError(
            f"the printer has no rule for {expr}: expected polygamma(n, …) with n = 0, 1, 2, …"
        )
    if name in HEADS or (name in REAL_HEADS and is_real(expr)):
        return name
    of_real = " for complex arguments" if name in REAL_HEADS else ""
    raise GenerationError(
        f"the printer has no rule for the function {name} in {expr}{of_real}; "
        f"expected one of {', '.join(HEADS)}"
    )


def head_call(expr: Expr, arguments: list[str]) -> str:
    """The call of the torch function that computes a head from its :func:`tensors_of`."""
    if isinstance(expr, polygamma) and expr.args[0] > 0:
        return polygamma_code(int(expr.args[0]), *arguments)
    code = "torch.pow({})" if isinstance(expr, Pow) else (HEADS | REAL_HEADS)[type(expr).__name__]
    return code.format(", ".join(arguments))


def tensors_of(head: Expr) -> tuple[Expr, ...]:
    """The arguments of a head that are tensors: all but the order of a polygamma function."""
    return head.args[1:] if isinstance(head, polygamma) else head.args


def polygamma_code(order: int, argument: str) -> str:
    """ψ⁽ⁿ⁾(x) = (-1)ⁿ⁺¹ n! ζ(n + 1, x), n ≥ 1, from Hurwitz's zeta function.

    ``torch.polygamma(1, x)`` is off by up to 5e-10 of the value in float64; this is not.
    """
    factor = (-1) ** (order + 1) * factorial(order)
    zeta = f"torch.special.zeta({order + 1}, {argument})"
    return zeta if factor == 1 else f"{integer_code(Integer(factor))} * {zeta}"
