"""Complex expressions as real code: every complex value is a pair (re, im)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sympy import (
    Add,
    Expr,
    Function,
    Integer,
    Mul,
    Rational,
    S,
    Symbol,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atanh,
    cos,
    cosh,
    cse,
    erf,
    exp,
    log,
    loggamma,
    polygamma,
    sin,
    sinh,
    sympify,
    tan,
    tanh,
)

from kahler_verify.calculus.pointwise import (
    absolute,
    expm1,
    log1p,
    positive,
    power,
    sigmoid,
    signum,
    softplus,
    step,
)
from kahler_verify.codegen.explicit import bar
from kahler_verify.codegen.kernel import Printed, _live
from kahler_verify.codegen.numbers import signed_sum
from kahler_verify.codegen.program import Program
from kahler_verify.codegen.storage import check_name
from kahler_verify.errors import GenerationError

Pair = tuple[Expr, Expr]  # real and imaginary part, in real symbols
X, Y = Symbol("x", real=True), Symbol("y", real=True)


def _tanh(x: Expr, y: Expr) -> Pair:
    # overflows nowhere; its denominator vanishes at the poles alone
    t, s, c = tanh(x), sin(y), cos(y)
    scale = 1 / (c**2 + t**2 * s**2)
    return t * scale, s * c * (1 - t) * (1 + t) * scale


def _sigmoid(x: Expr, y: Expr) -> Pair:
    a, b = _tanh(x / 2, y / 2)
    return (1 + a) / 2, b / 2


# Values at x + iy of the functions that have a complex argument somewhere.
COMPLEX: dict[type[Function], Callable[[Expr, Expr], Pair]] = {
    tanh: _tanh,
    sigmoid: _sigmoid,
    sin: lambda x, y: (sin(x) * cosh(y), cos(x) * sinh(y)),
    cos: lambda x, y: (cos(x) * cosh(y), -sin(x) * sinh(y)),
    sinh: lambda x, y: (sinh(x) * cos(y), cosh(x) * sin(y)),
    cosh: lambda x, y: (cosh(x) * cos(y), sinh(x) * sin(y)),
    exp: lambda x, y: (exp(x) * cos(y), exp(x) * sin(y)),
}
# The same and others at a real argument.
REAL: dict[type[Function], str] = {
    tanh: "torch.tanh({})",
    sigmoid: "torch.sigmoid({})",
    # torch's threshold of 20 leaves a kink of 2e-9 in the derivative; at 60 it is 1e-26
    softplus: "torch.nn.functional.softplus({}, threshold=60.0)",
    sin: "torch.sin({})",
    cos: "torch.cos({})",
    sinh: "torch.sinh({})",
    cosh: "torch.cosh({})",
    exp: "torch.exp({})",
    erf: "torch.erf({})",
    log: "torch.log({})",
    log1p: "torch.log1p({})",
    expm1: "torch.expm1({})",
    tan: "torch.tan({})",
    asin: "torch.asin({})",
    acos: "torch.acos({})",
    atan: "torch.atan({})",
    asinh: "torch.asinh({})",
    acosh: "torch.acosh({})",
    atanh: "torch.atanh({})",
    loggamma: "torch.lgamma({})",
    positive: "torch.relu({})",
    absolute: "torch.abs({})",
    signum: "torch.sign({})",
    step: "({0} > 0).to({0}.dtype)",
}


def print_pointwise(
    values: list[Expr],
    z: Symbol,
    parameters: tuple[Symbol, ...],
    kept: tuple[int, ...] | None = None,
) -> Printed:
    """Print complex expressions of z, z̄ and real parameters as real code of x, y.

    ``kept`` says which of the results are returned, of Re and Im of each value in turn.
    """
    for symbol in parameters:
        check_name(symbol.name)
        if not symbol.is_real or symbol.name in ("x", "y"):
            raise GenerationError(f"{symbol}: expected a real parameter, other than x and y")
    reals: dict[Expr, Pair] = {p: (p, Integer(0)) for p in (X, Y, *parameters)}
    pairs = Pairs({z: (X, Y), bar(z): (X, -Y), **reals})
    shared, reduced = cse(values, order="canonical")
    for symbol, value in shared:
        pairs.known[symbol] = pairs.pair(value)
    parts = enumerate(part for value in reduced for part in pairs.pair(value))
    results = [pairs.result(part) for i, part in parts if kept is None or i in kept]
    lines = _live(pairs.program, results)
    names = ("x", "y", *[p.name for p in parameters])
    meanings = ("the real part of z", "the imaginary part of z", *["a real parameter"] * len(names))
    count = sum(code.count(sign) for _, code in lines for sign in (" + ", " - ", " * ", " / ", "("))
    return Printed(
        arguments=names,
        meanings=tuple((n, "[...]", m) for n, m in zip(names, meanings, strict=False)),
        lines=tuple(lines),
        results=tuple(results),
        operations=Integer(count),
    )


@dataclass
class Pairs:
    """Lowers complex expressions to pairs of real ones; shared parts are lines of a program."""

    known: dict[Expr, Pair]
    program: Program = field(default_factory=Program)

    def pair(self, expr: Expr) -> Pair:
        """Real and imaginary part."""
        if expr not in self.known:
            self.known[expr] = self._pair(expr)
        return self.known[expr]

    def _pair(self, expr: Expr) -> Pair:
        if expr.is_Float:
            raise GenerationError(f"expected exact numbers, got {expr}: write it as a Rational")
        if expr is S.ImaginaryUnit:
            return Integer(0), Integer(1)
        if expr.is_number and expr.is_real:
            return expr, Integer(0)
        if expr.is_Add:
            parts = [self.pair(a) for a in expr.args]
            return self.named(Add(*[p[0] for p in parts])), self.named(Add(*[p[1] for p in parts]))
        if expr.is_Mul:
            parts = [self.pair(a) for a in expr.args]
            real = self.named(Mul(*[a for a, b in parts if b == 0]))
            out: Pair = (Integer(1), Integer(0))
            for each in (p for p in parts if p[1] != 0):
                out = self._product(out, each)
            return self.named(real * out[0]), self.named(real * out[1])
        if expr.is_Pow:
            return self._power(expr.base, expr.exp)
        if isinstance(expr, power | polygamma):
            return self._of_two(expr), Integer(0)
        if type(expr) in REAL:
            (argument,) = expr.args
            a, b = self.pair(argument)
            if b == 0:
                code = REAL[type(expr)].format(self.code(a))
                return self._symbol(code), Integer(0)
            if type(expr) in COMPLEX:
                real, imaginary = COMPLEX[type(expr)](self.named(a), self.named(b))
                return self.pair(real)[0], self.pair(imaginary)[0]
        if isinstance(expr, Symbol) and expr.is_real:  # a line of the program
            return expr, Integer(0)
        raise _no_rule(expr)

    def _of_two(self, expr: Expr) -> Expr:
        """A power of a real argument with a constant exponent, or ψ^(n)."""
        argument, constant = expr.args if isinstance(expr, power) else reversed(expr.args)
        a, b = self.pair(argument)
        if b != 0 or not (constant.is_Integer or isinstance(expr, power)):
            raise _no_rule(expr)
        if isinstance(expr, power):
            exponent = self.code(self.pair(constant)[0])
            return self._symbol(f"torch.pow({self.code(a)}, {exponent})")
        return self._symbol(f"torch.special.polygamma({constant}, {self.code(a)})")

    def _product(self, p: Pair, q: Pair) -> Pair:
        (a, b), (c, e) = p, q
        return self.named(a * c - b * e), self.named(a * e + b * c)

    def _power(self, base: Expr, power: Expr) -> Pair:
        a, b = self.pair(base)
        a, b = self.named(a), self.named(b)
        if b == 0 and (2 * power).is_Integer and not power.is_Integer:
            name = "rsqrt" if power < 0 else "sqrt"
            root = self._symbol(f"torch.{name}({self.code(a)})")
            return self.named(root ** abs(2 * power)), Integer(0)
        if not power.is_Integer:
            raise _no_rule(base**power)
        if power < 0:
            if b == 0:
                inverse = self._symbol(f"torch.reciprocal({self.code(a)})")
                return self.named(inverse**-power), Integer(0)
            scale = self.pair((a**2 + b**2) ** -1)[0]
            a, b, power = self.named(a * scale), self.named(-b * scale), -power
        if b == 0:
            return self.named(a**power), Integer(0)
        out: Pair = (a, b)
        for _ in range(int(power) - 1):
            out = self._product(out, (a, b))
        return out

    def named(self, expr: Expr) -> Expr:
        """The expression, or the symbol of the line that computes it when it is compound."""
        expr = sympify(expr)
        if expr.is_number or isinstance(expr, Symbol) or isinstance(-expr, Symbol):
            return expr
        return self._symbol(self.code(expr))

    def _symbol(self, code: str) -> Symbol:
        return Symbol(self.program.let(code), real=True)

    def result(self, expr: Expr) -> str:
        """A name for an output."""
        if expr.is_number:
            return self.program.let(f"torch.full_like(x, {_number(expr)})")
        return self.program.let(self.code(expr))

    def code(self, expr: Expr) -> str:
        """Code of a real expression in names of lines."""
        if isinstance(expr, Symbol):
            return str(expr.name)
        if expr.is_number:
            return _number(expr)
        if expr.is_Add or expr.is_Mul:
            return signed_sum([a.as_coeff_Mul() for a in Add.make_args(expr)], self._factors)
        if expr.is_Pow and expr.exp.is_Integer and expr.exp > 0:
            return self._factors(expr)
        raise _no_rule(expr)

    def _factors(self, product: Expr) -> str:
        numbers, names = [], []
        for f in Mul.make_args(product):
            if f.is_number:
                numbers.append(f)
            else:
                names += list(self._repeated(*f.as_base_exp()))
        return " * ".join([_number(Mul(*numbers)), *names] if numbers else names)

    def _repeated(self, base: Expr, power: Expr) -> Iterator[str]:
        if not (power.is_Integer and power > 0):
            raise _no_rule(base**power)
        code = self.code(base)
        for _ in range(int(power)):
            yield code if isinstance(base, Symbol) else f"({code})"


def _no_rule(expr: Expr) -> GenerationError:
    return GenerationError(f"the pointwise printer has no rule for {type(expr).__name__}: {expr}")


def _number(number: Expr) -> str:
    """A literal; what is not a ratio of small whole numbers is rounded to the nearest float."""
    if isinstance(number, Rational):
        return f"{number.p} / {number.q}" if number.q != 1 else f"{number.p}"
    return repr(float(number.evalf(25)))
