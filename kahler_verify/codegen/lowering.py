"""From words and heads to index notation: each term becomes a product of tensors with named axes.

Inverses never appear: Σ⁻¹ = L⁻ᴴL⁻¹ is split, and its halves are pushed into the neighbouring
letters by triangular solves (:mod:`whitening`).  What stands for stored tensors is in
:mod:`factors`; sums, scalars and heads are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sympy import Add, Expr, Function, Integer, Mul, NumberSymbol, Pow, S, Symbol, ilcm

from kahler_verify.calculus.abbreviation import spelled_out
from kahler_verify.calculus.indexed import Contract, Entry, free_indices
from kahler_verify.calculus.letters import Index, Jet, size_of
from kahler_verify.calculus.mixture import Mean, Moment, Total, factors_of, is_component
from kahler_verify.calculus.words import Tr, distribute, factor_word, shape_of
from kahler_verify.codegen.contraction import Monomial, contract_deltas
from kahler_verify.codegen.factors import Factors, K
from kahler_verify.codegen.heads import head_name, normal_head, tensors_of
from kahler_verify.codegen.numbers import (
    fraction,
    integer_code,
    is_exact,
    is_real,
    signed_sum,
    units,
)
from kahler_verify.codegen.opening import opened
from kahler_verify.codegen.program import Axis, Operand, Program
from kahler_verify.errors import GenerationError


class Lowering(Factors):
    """Lowers expressions into one :class:`Program`."""

    def __init__(
        self,
        program: Program,
        latent: Expr,
        layouts: Mapping[str, str] | None = None,
        heads: dict[Expr, str] | None = None,
    ):
        super().__init__(program, latent, layouts)
        self.heads = heads if heads is not None else {}  # shared by the kernels of a module

    # ------------------------------------------------------------------ terms
    def monomials(
        self, expr: Expr, free: tuple[Symbol, ...], summed: tuple[Symbol, ...] = ()
    ) -> list[Monomial]:
        """Every term of a sum, in index notation; ``free`` are the output's latent indices.

        ``summed`` indices that a term lacks give a factor d.
        """
        out: list[Monomial] = []
        for term in Add.make_args(expr):
            if term == 0:
                continue
            inside = opened(term, self._fresh)
            if inside is not None:
                inner, indices = inside
                out += self.monomials(inner, free, (*summed, *indices))
                continue
            lacking = set(summed) - free_indices(term)
            sizes = Mul(*[size_of(i, self.latent) for i in lacking])
            out.append(self._monomial(term * sizes, {self.axis(i) for i in free}))
        return out

    def _monomial(self, term: Expr, free: set[Axis], k: Axis | None = None) -> Monomial:
        coefficient: Expr = Integer(1)
        operands: list[Operand] = []
        numbers: list[Expr] = []
        for factor in Mul.make_args(term):
            if is_exact(factor) or isinstance(factor.as_base_exp()[0], Symbol):
                coefficient *= factor  # a number or a power of a dimension
            elif not free_indices(factor) and not is_component(factor):
                numbers.append(factor)
            else:
                for each in factors_of(factor):
                    operands += self._indexed(each, k)
        number = Mul(*numbers)
        if number != 1:
            operands.append(Operand(self.scalar(number), (), real=is_real(number)))
        operands, factor = contract_deltas(operands, free, self.program)
        return Monomial(coefficient * factor, tuple(operands))

    def _indexed(self, factor: Expr, k: Axis | None = None) -> list[Operand]:
        """A factor as tensors; ``k`` is the axis over components inside a mean or a total."""
        if isinstance(factor, Tr):
            return self._trace(factor, k)
        if isinstance(factor, Entry):
            word = factor_word(factor.word)[1]
            rows, cols = shape_of(factor.word)
            axes = iter([self.axis(i) for i in factor.indices])
            left = next(axes) if rows != 1 else None
            right = next(axes) if cols != 1 else None
            return self._chain(word, left, right, k)
        if isinstance(factor, Total):
            k = self._dummy(K)
            return [o for f in factors_of(factor.args[0]) for o in self._indexed(f, k)]
        if isinstance(factor, Mean) and isinstance(factor.args[1], Jet):
            return [self._mean(factor.args[1])]
        if isinstance(factor, Mean | Moment):
            k = self._dummy(K)
            of_components = [self._of_component(f, k) for f in factors_of(factor.args[1])]
            return [self._weights(k), *of_components]
        if isinstance(factor, Jet) and factor.field.is_scalar:
            return [self._scalar_jet(factor, k)]
        if isinstance(factor, Contract | Function) or factor.is_Add or factor.is_Pow:
            return self._pointwise(factor, k)
        raise GenerationError(f"the printer has no rule for {type(factor).__name__}: {factor}")

    def _pointwise(self, factor: Expr, k: Axis | None) -> list[Operand]:
        """A function, entry by entry, of an expression that has axes of its own."""
        indices = sorted(free_indices(factor), key=str)
        axes = tuple(self.axis(i) for i in indices)
        if is_component(factor):
            if k is None:
                raise GenerationError(f"{factor} depends on the component outside of a sum")
            axes = (k, *axes)
        if isinstance(factor, Pow) and factor.exp.is_Integer:
            below = self.tensor(factor.base, axes, k)
            inverse = self.program.let(f"torch.reciprocal({below})", "r")
            return [Operand(inverse, axes, real=is_real(factor))] * -int(factor.exp)
        if isinstance(factor, Contract) or factor.is_Add:
            return [Operand(self.tensor(factor, axes, k), axes, real=is_real(factor))]
        same = {i: Index(f"i{n}", i.size, real=True) if isinstance(i, Index) else Symbol(f"i{n}")
                for n, i in enumerate(indices)}  # fmt: skip
        code = self.head(normal_head(factor.xreplace(same)), axes)
        return [Operand(code, axes, real=is_real(factor))]

    def tensor(self, expr: Expr, axes: tuple[Axis, ...], k: Axis | None = None) -> str:
        """Code of an expression as one tensor over the axes."""
        terms: list[tuple[Expr, Expr]] = []
        for term in Add.make_args(expr):
            inner, summed = term, ()
            if isinstance(term, Contract):
                inner, summed = term.args[0], term.indices
            for each in Add.make_args(distribute(inner)):
                lacking: set[Symbol] = set(summed) - free_indices(each)
                sizes = Mul(*[size_of(i, self.latent) for i in lacking])
                monomial = self._monomial(each * sizes, set(axes), k)
                number, symbols = monomial.coefficient.as_coeff_Mul()
                own = tuple(a for a in axes if any(a in o.axes for o in monomial.operands))
                if not monomial.operands:
                    terms.append((number, symbols))
                    continue
                code = self.finish(replace(monomial, coefficient=symbols), own)
                for place in reversed([n for n, a in enumerate(axes) if a not in own]):
                    code += f".unsqueeze({place - len(axes)})"
                terms.append((number, Symbol(code)))
        return self.program.let(signed_sum(terms, str), "s")

    # ------------------------------------------------------------------ scalars
    def scalar(self, expr: Expr) -> str:
        """Code of a number for each batch element, from +, -, *, / and integer powers."""
        if expr.is_Float:
            raise GenerationError(f"expected exact numbers, got {expr}: write it as a Rational")
        if expr.is_Integer:
            return integer_code(expr)
        if expr is S.ImaginaryUnit:
            return "1j"
        if isinstance(expr, Symbol):
            return self.symbol(expr)
        if expr.is_Add:
            # over one denominator, since 1 / 3 alone would be a rounded Python float
            below = ilcm(*[term.as_coeff_Mul()[0].q for term in expr.args])
            if below > 2**31 and not any(term.is_number for term in expr.args):
                below = 1  # each term's own fraction is exact, too, and shorter
            terms = [(below * term).as_coeff_Mul() for term in expr.args]
            above = self.program.let(signed_sum(terms, self.scalar), "s")
            return (
                above
                if below == 1
                else self.program.let(f"{above} / {integer_code(Integer(below))}", "s")
            )
        if expr.is_Mul or expr.is_Rational or (expr.is_Pow and expr.exp.is_Integer):
            above, below = expr.as_numer_denom() if expr.is_Rational else fraction(expr)
            top = " * ".join(self.scalar(f) for f in units(above)) or "1"
            bottom = " * ".join(self.scalar(f) for f in units(below))
            return self.program.let(f"{top} / ({bottom})" if bottom else top, "s")
        if isinstance(expr, Contract):
            terms = []
            for m in self.monomials(expr.args[0], (), expr.indices):
                number, symbols = m.coefficient.as_coeff_Mul()
                terms.append((number, Symbol(self.finish(replace(m, coefficient=symbols), ()))))
            return self.program.let(signed_sum(terms, str), "s")
        if isinstance(expr, Tr | Entry | Mean | Moment | Total | Jet):
            (monomial,) = self.monomials_of_scalar(expr)
            return self.finish(monomial, ())
        if isinstance(expr, Function | Pow | NumberSymbol):
            spelled = normal_head(expr)
            return self.head(expr) if spelled == expr else self.scalar(spelled)
        raise GenerationError(f"the printer has no rule for {type(expr).__name__}: {expr}")

    def symbol(self, symbol: Symbol) -> str:
        """Code of a bare symbol, which is a dimension."""
        if not symbol.is_integer:
            raise GenerationError(
                f"{symbol}: expected a dimension; write parameter('{symbol}') for a number, "
                "or pass coordinates=(z1, …) for an expression of symbols"
            )
        return self.program.size_code(symbol)

    def monomials_of_scalar(self, expr: Expr) -> list[Monomial]:
        """A scalar factor in index notation."""
        operands, factor = contract_deltas(self._indexed(expr), set(), self.program)
        return [Monomial(factor, tuple(operands))]

    def head(self, expr: Expr, axes: tuple[Axis, ...] = ()) -> str:
        """The value of a transcendental head, which the body takes as an input."""
        expr = normal_head(spelled_out(expr))
        name = head_name(expr)
        if expr not in self.heads:
            number = sum(h.startswith(f"{name}_") for h in self.heads.values())
            self.heads[expr] = f"{name}_{number}"
        sizes = tuple(a.size for a in axes)
        self.stored.input(self.heads[expr], sizes, f"the value of {expr}", expr)
        return self.heads[expr]

    def arguments(self, head: Expr) -> list[str]:
        """Code of those arguments of a head that are no numbers, over the axes that it has."""
        axes = tuple(self.axis(i) for i in sorted(free_indices(head), key=str))
        k = self._dummy(K) if is_component(head) else None
        if k is not None:
            axes = (k, *axes)
        return [
            self.tensor(a, axes, k) if axes else self.scalar(a)
            for a in tensors_of(head)
            if not a.is_number
        ]

    def finish(self, monomial: Monomial, out: tuple[Axis, ...]) -> str:
        """Contract a monomial whose coefficient is one or a dimension; the name of the result."""
        if not monomial.operands:
            return self.scalar(monomial.coefficient)
        code = self.program.arranged(self.program.contract(list(monomial.operands), out), out)
        return self.times(monomial.coefficient, code)

    def times(self, factor: Expr, code: str) -> str:
        """A tensor times a number; division comes last, since 1 / d alone would be rounded."""
        above, below = fraction(factor)
        if above != 1:
            code = self.program.let(f"{self.scalar(above)} * {code}", "t")
        return code if below == 1 else self.program.let(f"{code} / {self.scalar(below)}", "t")
