"""Potentials and heads as terms of one arithmetic circuit, which knows their derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations_with_replacement, product

from sympy import Expr, Function, Integer, Mul, NumberSymbol, Pow, Rational, S, Symbol, log

from kahler_verify.codegen.circuit import Circuit, Node, Residue, Slope, Term, exact, random_residue
from kahler_verify.codegen.circuit import conjugate as conjugate_residue
from kahler_verify.codegen.circuit_printer import live
from kahler_verify.codegen.explicit.conjugation import bar, conjugated
from kahler_verify.codegen.heads import normal_head
from kahler_verify.codegen.lowering import Lowering
from kahler_verify.codegen.program import Program
from kahler_verify.errors import GenerationError

# Functions with f(conj x) = conj f(x) everywhere; log and roots have cuts.
REAL = ("exp", "sin", "cos", "tan", "sinh", "cosh", "tanh")


class Reading:
    """A potential, its parts and its derivatives as terms of one circuit.

    Args:
        coordinates: z_1, …, z_d.
        heads: names of transcendental values, by expression; those that are met are added.
    """

    def __init__(self, coordinates: tuple[Symbol, ...], heads: dict[Expr, str]):
        self.coordinates, self.heads = coordinates, heads
        self.circuit = Circuit()
        self.inputs: dict[Node, Expr] = {}  # z_i, z̄_i, parameters and heads
        self._terms: dict[Expr, Term] = {}
        for z in coordinates:
            value = random_residue(("coordinate", z.name))
            self._input(z, value)
            self._input(bar(z), conjugate_residue(value))

    def _input(self, expr: Expr, value: Residue, slope: Slope | None = None) -> Term:
        term = self.circuit.input(value, slope)
        self.inputs[term.node] = expr
        self._terms[expr] = term
        return term

    def node(self, symbol: Symbol) -> Node:
        """The node of a coordinate or of its conjugate."""
        return self._terms[symbol].node

    def term(self, expr: Expr) -> Term:
        """A polarised expression as a term of the circuit."""
        if expr not in self._terms:
            self._terms[expr] = self._read(expr)
        return self._terms[expr]

    def _read(self, expr: Expr) -> Term:
        circuit = self.circuit
        if expr.has(S.NaN, S.Infinity, S.NegativeInfinity, S.ComplexInfinity):
            raise GenerationError(f"expected finite numbers, got {expr}")
        if expr.is_Float:
            raise GenerationError(f"expected exact numbers, got {expr}: write it as a Rational")
        if expr.is_Rational:
            return circuit.number(exact(_fraction(expr)))
        if expr is S.ImaginaryUnit:
            return circuit.number(exact(0, 1))
        if isinstance(expr, Symbol):
            value = random_residue(("parameter", expr.name), real=bool(expr.is_real))
            return self._input(expr, value)
        if expr.is_Add:
            return circuit.add(*[self.term(a) for a in expr.args])
        if expr.is_Mul:
            out = circuit.number(exact(1))
            for a in expr.args:
                out = circuit.multiply(out, self.term(a))
            return out
        if expr.is_Pow and expr.exp.is_Integer:
            return circuit.power(self.term(expr.base), int(expr.exp))
        if isinstance(expr, Function | Pow | NumberSymbol):
            spelled = normal_head(expr)
            if type(spelled) is not type(expr) or spelled.is_number:
                return self._head(spelled, spelled) if spelled == expr else self.term(spelled)
            return self._terms.get(spelled) or self._head(expr, spelled)
        raise GenerationError(f"the printer has no rule for {type(expr).__name__}: {expr}")

    # ------------------------------------------------------------------ heads
    def _head(self, expr: Expr, spelled: Expr) -> Term:
        """A transcendental value, which kernels take as an input; its derivative is known.

        Kernels know it by its normal form ``spelled``, which multiplies arguments out; the circuit
        computes it, and its derivatives, as ``expr`` stands.
        """
        Lowering(Program(), Integer(1), heads=self.heads).head(spelled)
        if expr.is_number:
            value = random_residue(("constant", str(expr)), real=bool(expr.is_real))
            return self._input(spelled, value)
        arguments = [self.term(a) for a in expr.args]
        value = _value_of_head(type(expr).__name__, [a.value for a in arguments])
        slope = self._slope
        if isinstance(expr, Pow):
            slope = self._slope_of_power
            root = _modulus(expr.base, self.coordinates) if expr.exp.is_Rational else None
            if root is not None:
                value = random_residue(("power", str(expr)), real=True)
                power = expr.exp
                return self._input(
                    spelled, value, slope=lambda by: self._slope_of_modulus(root, power, 0, by)
                )
        return self._input(spelled, value, slope=lambda by: slope(expr, by))

    def _slope(self, head: Expr, by: Node) -> Term:
        """The chain rule, written as a recurrence where a function has one."""
        circuit, argument = self.circuit, self.term(head.args[0])
        moved = circuit.derivative(argument, by)
        if moved.is_zero:
            return moved
        if isinstance(head, log):
            return circuit.divide(moved, argument)
        slope = head if type(head).__name__ == "exp" else head.fdiff()
        return circuit.multiply(self.term(slope), moved)

    def _slope_of_power(self, head: Pow, by: Node) -> Term:
        circuit, base, power = self.circuit, self.term(head.base), self.term(head.exp)
        moved, turned = (circuit.derivative(a, by) for a in (base, power))
        out = circuit.zero
        if not moved.is_zero and head.exp.is_Rational and head.exp > 1:
            lower = self.term(head.base ** (head.exp - 1))  # has a value where the base is 0
            out = circuit.multiply(circuit.multiply(power, lower), moved)
        elif not moved.is_zero:
            ratio = circuit.multiply(power, circuit.divide(moved, base))
            out = circuit.multiply(self.term(head), ratio)
        if not turned.is_zero:
            logarithm = circuit.multiply(self.term(log(head.base)), turned)
            out = circuit.add(out, circuit.multiply(self.term(head), logarithm))
        return out

    def _of_modulus(self, root: Expr, power: Rational, excess: int) -> Term:
        """|f|^{2p} f^k, or |f|^{2p} f̄^{-k} for k < 0.

        Its derivatives are of that form again, (p + k) |f|^{2p} f^{k-1} ∂f and p |f|^{2p-2} f^{k+1}
        ∂f̄ for k > 0, and so have values where f is 0 as long as p does not become negative.
        """
        circuit, other = self.circuit, conjugated(root, self.coordinates)
        size = self.term((root * other) ** power)
        if excess == 0:
            return size
        factor = circuit.power(self.term(root if excess > 0 else other), abs(excess))
        return circuit.multiply(
            size, factor, lambda by: self._slope_of_modulus(root, power, excess, by)
        )

    def _slope_of_modulus(self, root: Expr, power: Rational, excess: int, by: Node) -> Term:
        circuit = self.circuit
        parts = []
        for of, k, step in (
            (root, excess, -1),
            (conjugated(root, self.coordinates), -excess, 1),
        ):
            moved = circuit.derivative(self.term(of), by)
            factor = power + max(k, 0)
            if moved.is_zero or factor == 0:
                continue
            lower = power if k > 0 else power - 1
            rest = self._of_modulus(root, lower, excess + step)
            parts.append(circuit.multiply(self.term(factor), circuit.multiply(rest, moved)))
        return circuit.add(*parts)

    # ------------------------------------------------------------------ derivatives
    def components(
        self, phi: Expr, hol: int, anti: int, order: tuple[int, ...]
    ) -> dict[tuple[int, ...], Term]:
        """All ∂^hol ∂̄^anti Φ; ``order`` says which derivative each output axis belongs to."""
        each = range(len(self.coordinates))
        derivatives: dict[tuple[int, ...], Term] = {}
        for by_hol in combinations_with_replacement(each, hol):
            for by_anti in combinations_with_replacement(each, anti):
                out = self.term(phi)
                for symbol in self._symbols(by_hol, by_anti):
                    out = self.circuit.derivative(out, self.node(symbol))
                derivatives[(*by_hol, *by_anti)] = out
        entries = {}
        for entry in product(each, repeat=hol + anti):
            by = [entry[order.index(n)] for n in range(hol + anti)]
            entries[entry] = derivatives[(*sorted(by[:hol]), *sorted(by[hol:]))]
        return entries

    def _symbols(self, hol: tuple[int, ...], anti: tuple[int, ...]) -> Iterator[Symbol]:
        yield from (self.coordinates[i] for i in hol)
        yield from (bar(self.coordinates[i]) for i in anti)

    # ------------------------------------------------------------------ inputs
    def is_running(self, term: Term) -> bool:
        """Does a term move with the point?"""
        own = {*self.coordinates, *map(bar, self.coordinates)}
        inputs = [self.inputs[n] for n in live([term.node]) if n in self.inputs]
        return any(e.free_symbols & own for e in inputs)


def _fraction(number: Rational) -> Fraction:
    return Fraction(int(number.p), int(number.q))


def _modulus(base: Expr, coordinates: tuple[Symbol, ...]) -> Expr | None:
    """f, where the base is f f̄ as it stands."""
    left, root = list(Mul.make_args(base)), []
    while left:
        factor = left.pop()
        try:
            other = conjugated(factor, coordinates)
        except GenerationError:
            return None
        if other not in left:
            return None
        left.remove(other)
        root.append(factor)
    return Mul(*root)


def _value_of_head(name: str, arguments: list[Residue]) -> Residue:
    """A value that depends on the arguments; conj f(x) = f(conj x) for functions without cuts."""
    mirrored = [conjugate_residue(a) for a in arguments]
    if name not in REAL:
        return random_residue((name, arguments))
    if arguments == mirrored:
        return random_residue((name, arguments), real=True)
    if arguments < mirrored:
        return random_residue((name, arguments))
    return conjugate_residue(random_residue((name, mirrored)))
