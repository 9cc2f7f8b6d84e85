"""From words and heads to index notation: each term becomes a product of tensors with named axes.

Inverses never appear: Σ⁻¹ = L⁻ᴴL⁻¹ is split, and its halves are pushed into the neighbouring
letters by triangular solves (whitening).  A field's layout says how it is stored: ``full`` [n, n],
``diagonal`` [n], or ``scalar`` [] (a multiple of the identity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from keyword import iskeyword

from sympy import (
    Add,
    Basic,
    Expr,
    Function,
    Integer,
    Mul,
    NumberSymbol,
    Pow,
    Rational,
    S,
    Symbol,
    ilcm,
)
from sympy.utilities.iterables import subsets

from kahler_verify.calculus.abbreviation import spelled_out, unfolded
from kahler_verify.calculus.indexed import Contract, Entry, free_indices
from kahler_verify.calculus.letters import Field, Index, Jet, is_real_index, size_of
from kahler_verify.calculus.mixture import (
    Centred,
    LogSumExp,
    Mean,
    Moment,
    Total,
    factors_of,
    is_component,
)
from kahler_verify.calculus.words import LogDet, Tr, distribute, factor_word, shape_of
from kahler_verify.codegen.program import COMPONENTS, Axis, Input, Operand, Program
from kahler_verify.errors import GenerationError

K = COMPONENTS
SOLVE = "torch.linalg.solve_triangular"
# Functions that a `heads` function may compute; bodies take their values as inputs.
HEADS = {
    name: f"torch.{name}({{}})"
    for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")
}
REAL_HEADS = {  # torch has them for real numbers alone
    "log1pexp": "torch.nn.functional.softplus({}, threshold=60.0)",
    "loggamma": "torch.lgamma({})",
    "logistic": "torch.sigmoid({})",
    "polygamma": "torch.polygamma({})",
}


@dataclass(frozen=True)
class Letter:
    """A letter between inverses: which factors of Σ⁻¹ = L⁻ᴴL⁻¹ are pushed into it, on which side.

    A side is "" (nothing), "half" (one triangular solve) or "whole" (both).
    """

    jet: Jet | None  # None: the identity
    field: Field  # whose factor is pushed in, or the jet's own
    left: str = ""
    right: str = ""


@dataclass(frozen=True)
class Monomial:
    """coefficient × operands, summed over the axes that are not in the output."""

    coefficient: Expr
    operands: tuple[Operand, ...]


class Lowering:
    """Lowers expressions into one :class:`Program`."""

    def __init__(
        self,
        program: Program,
        latent: Expr,
        layouts: Mapping[str, str] | None = None,
        heads: dict[Expr, str] | None = None,
    ):
        self.program = program
        self.latent = latent
        self.layouts = layouts or {}
        self.heads = heads if heads is not None else {}  # shared by the kernels of a module
        self._dummies = 0
        self._abbreviated: dict[Expr, str] = {}  # tensors of abbreviations and their derivatives

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
            opened = self._opened(term)
            if opened is not None:
                inner, indices = opened
                out += self.monomials(inner, free, (*summed, *indices))
                continue
            lacking = set(summed) - free_indices(term)
            sizes = Mul(*[size_of(i, self.latent) for i in lacking])
            out.append(self._monomial(term * sizes, {self.axis(i) for i in free}))
        return out

    def _opened(self, term: Expr) -> tuple[Expr, tuple[Symbol, ...]] | None:
        """A term that holds a sum as (the sum of products that it is, what they are summed over).

        Such are sums over indices, but for numbers, and moments of what does not depend on the
        point; None for all other terms.
        """
        for factor in Mul.make_args(term):
            if isinstance(factor, Contract) and free_indices(factor):
                rest = term / factor
                inner, indices = factor.args[0], factor.indices
                if set(indices) & rest.free_symbols:  # a summed index has no meaning outside
                    fresh = {i: self._fresh(i) for i in indices}
                    inner, indices = inner.xreplace(fresh), tuple(fresh.values())
                return distribute(rest * inner), indices
            if isinstance(factor, Moment) and any(
                _is_constant(f.args[1]) for f in factors_of(factor.args[1])
            ):
                terms = _with_constants_outside(factor)
                return distribute(term / factor * terms), ()
        return None

    def axis(self, i: Symbol) -> Axis:
        """The axis of a latent index."""
        return Axis(str(i), size_of(i, self.latent))

    def _fresh(self, i: Symbol) -> Index:
        self._dummies += 1
        return Index(f"_{i}{self._dummies}", getattr(i, "size", None), real=bool(i.is_real))

    def _dummy(self, size: Expr) -> Axis:
        self._dummies += 1
        return Axis(f"_{self._dummies}", size)

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
        operands, factor = self._contract_deltas(operands, free)
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

    def _contract_deltas(
        self, operands: list[Operand], free: set[Axis]
    ) -> tuple[list[Operand], Expr]:
        """Rename axes that an identity joins; an identity between two free axes stays."""
        coefficient: Expr = Integer(1)
        deltas = [o.axes for o in operands if o.tensor == "delta"]
        rest = [o for o in operands if o.tensor != "delta"]
        while deltas:
            i, j = deltas.pop()
            if i == j:
                if not any(i in axes for axes in [o.axes for o in rest] + deltas):
                    coefficient *= i.size  # the trace of an identity
                continue
            if i in free and j in free:
                rest.append(Operand(self.program.eye(i.size), (i, j)))
                continue
            old, new = (j, i) if i in free else (i, j)
            if new not in free and not any(
                {i, j} & set(axes) for axes in [o.axes for o in rest] + deltas
            ):
                coefficient *= new.size  # Σ_ij δ_ij
            rest = [replace(o, axes=tuple(new if a == old else a for a in o.axes)) for o in rest]
            deltas = [tuple(new if a == old else a for a in axes) for axes in deltas]
        return rest, coefficient

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
            above, below = expr.as_numer_denom() if expr.is_Rational else _fraction(expr)
            top = " * ".join(self.scalar(f) for f in _units(above)) or "1"
            bottom = " * ".join(self.scalar(f) for f in _units(below))
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
        operands, factor = self._contract_deltas(self._indexed(expr), set())
        return [Monomial(factor, tuple(operands))]

    def head(self, expr: Expr, axes: tuple[Axis, ...] = ()) -> str:
        """The value of a transcendental head, which the body takes as an input."""
        expr = normal_head(spelled_out(expr))
        name = head_name(expr)
        if expr not in self.heads:
            number = sum(h.startswith(f"{name}_") for h in self.heads.values())
            self.heads[expr] = f"{name}_{number}"
        sizes = tuple(a.size for a in axes)
        self._input(self.heads[expr], sizes, f"the value of {expr}", expr)
        return self.heads[expr]

    def arguments(self, head: Expr) -> list[str]:
        """Code of those arguments of a head that are no numbers, over the axes that it has."""
        axes = tuple(self.axis(i) for i in sorted(free_indices(head), key=str))
        k = self._dummy(K) if is_component(head) else None
        if k is not None:
            axes = (k, *axes)
        return [
            self.tensor(a, axes, k) if axes else self.scalar(a)
            for a in head.args
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
        above, below = _fraction(factor)
        if above != 1:
            code = self.program.let(f"{self.scalar(above)} * {code}", "t")
        return code if below == 1 else self.program.let(f"{code} / {self.scalar(below)}", "t")

    # ------------------------------------------------------------------ mixtures
    def _weights(self, k: Axis) -> Operand:
        name = self._input("w", (K,), "weights of the components at z, normalised")
        return Operand(name, (k,), real=True)

    def _component_jet(self, jet: Expr, k: Axis) -> Operand:
        if not (isinstance(jet, Jet) and jet.field.is_scalar):
            raise GenerationError(f"expected a derivative of a component potential, got {jet}")
        return self._scalar_jet(jet, k)

    def _mean(self, jet: Expr) -> Operand:
        k = self._dummy(K)
        stored = self._component_jet(jet, k)
        out = tuple(a for a in stored.axes if a != k)
        plain = replace(stored, conj=False)
        mean = self.program.contract([self._weights(k), plain], out)
        return replace(mean, conj=mean.conj != stored.conj and not stored.real, real=stored.real)

    def _of_component(self, factor: Expr, k: Axis) -> Operand:
        if isinstance(factor, Centred):
            return self._centred(factor, k)
        return self._component_jet(factor, k)

    def _centred(self, centred: Centred, k: Axis) -> Operand:
        stored = self._component_jet(centred.args[1], k)
        mean = self._mean(centred.args[1])
        conj = mean.conj != stored.conj and not stored.real
        code = self.program.arranged(replace(mean, conj=conj), stored.axes[1:])
        position = -len(stored.axes)
        name = self.program.let(f"{stored.tensor} - {code}.unsqueeze({position})", "u")
        return replace(stored, tensor=name)

    def _scalar_jet(self, jet: Jet, k: Axis | None = None) -> Operand:
        if "component" not in jet.field.traits:
            k = None
        elif k is None:
            raise GenerationError(f"{jet} depends on the component outside of a sum")
        hol, anti, conj = jet.hol, jet.anti, jet.dagger
        if "hermitian" in jet.field.traits and len(anti) > len(hol):
            hol, anti, conj = anti, hol, True
        lead = (k,) if k is not None else ()
        if jet.field.abbreviated:
            name, free = self._abbreviation(Jet(jet.field, hol, anti))
            axes = (*free, *[self.axis(i) for i in (*hol, *anti)])
            return Operand(name, axes, conj, is_real(jet))
        axes = (*lead, *[self.axis(i) for i in (*hol, *anti)])
        name = self._jet_input(jet.field, len(hol), len(anti), axes)
        if _is_constant(jet):
            self.program.constants.add(name)
        return Operand(name, axes, conj, is_real(jet))

    # ------------------------------------------------------------------ words
    def _trace(self, trace: Tr, k: Axis | None = None) -> list[Operand]:
        word = factor_word(trace.args[0])[1]
        if shape_of(_plain(word[0]))[0] == 1:
            return self._chain(word, None, None, k)
        inverses = [i for i, (_, power) in enumerate(word) if power < 0]
        if inverses:  # turn the cycle so that it ends with an inverse, whose halves join
            turn = inverses[-1] + 1
            word = word[turn:] + word[:turn]
        joint = self._dummy(shape_of(_plain(word[0]))[0])
        return self._chain(word, joint, joint, k, cyclic=bool(inverses))

    def _chain(
        self,
        word: list[tuple[Expr, int]],
        left: Axis | None,
        right: Axis | None,
        k: Axis | None = None,
        *,
        cyclic: bool = False,
    ) -> list[Operand]:
        letters = self._whitened(word, cyclic=cyclic)
        operands, here = [], left
        for n, letter in enumerate(letters):
            rows, cols = (
                letter.jet.shape if letter.jet is not None else (letter.field.shape[0],) * 2
            )
            row = here if rows != 1 else None
            col = None
            if cols != 1:
                col = right if n == len(letters) - 1 else self._dummy(cols)
            operands += self._letter(letter, row, col, k)
            here = col
        return operands

    def _whitened(self, word: list[tuple[Expr, int]], *, cyclic: bool) -> list[Letter]:
        """Push the halves of every inverse into its neighbours."""
        out: list[Letter] = []
        pending: tuple[Field, str] | None = None
        if cyclic:
            pending = (self._invertible(word[-1][0]), "half")
        for n, (base, power) in enumerate(word):
            last = n == len(word) - 1
            if power > 0:
                if not isinstance(base, Jet):
                    raise GenerationError(f"expected a letter, got the compound matrix {base}")
                letter = Letter(base, pending[0] if pending else base.field)
                out.append(replace(letter, left=pending[1]) if pending else letter)
                pending = None
                continue
            owner = self._invertible(base)
            if pending is not None:  # two inverses in a row: an identity stands between them
                out.append(Letter(None, pending[0], left=pending[1]))
                pending = None
            if not out:  # the word begins with an inverse: nothing to its left takes a half
                pending = (owner, "whole")
                if last:
                    out.append(Letter(None, owner, left="whole"))
                    pending = None
                continue
            side = "whole" if last and not cyclic else "half"
            previous = out[-1]
            if previous.left and previous.field != owner:
                raise GenerationError("a letter between two different inverses is not supported")
            out[-1] = replace(previous, field=owner, right=side)
            pending = None if last else (owner, "half")
        return out

    def _invertible(self, base: Expr) -> Field:
        if (
            isinstance(base, Jet)
            and "positive" in base.field.traits
            and not (base.hol or base.anti)
        ):
            return base.field
        raise GenerationError(
            f"only fields declared positive=True have an inverse in kernels, got ({base})⁻¹"
        )

    def layout(self, field: Field) -> str:
        """How a field is stored: full, diagonal or scalar (vectors are always full)."""
        rows, cols = field.shape
        return self.layouts.get(field.name, "full") if 1 not in (rows, cols) else "full"

    def _letter(
        self, letter: Letter, row: Axis | None, col: Axis | None, k: Axis | None = None
    ) -> list[Operand]:
        jet = letter.jet
        if jet is None:
            tensor, _ = self._solve_into(letter, self.program.eye(letter.field.shape[0]), 0, False)
            real = "real" in letter.field.traits
            own = _present(row, col)
            return [Operand(tensor, _sorted(own) if real else own, real=real)]
        lead: tuple[Axis, ...] = ()
        if "component" in jet.field.traits and not (jet.hol and "coordinate" in jet.field.traits):
            if k is None:
                raise GenerationError(f"{jet} depends on the component outside of a sum")
            lead = (k,)
        if "coordinate" in jet.field.traits and jet.hol:
            (i,) = jet.hol
            own = _present(row, col)
            lead = (self._dummy(K),) if "component" in jet.field.traits else ()
            self._jet_input(jet.field, 0, 0, (*lead, self.axis(i)))  # tells the dimension
            if not letter.left and not letter.right:
                return [Operand("delta", (self.axis(i), *own))]
            side = letter.right if jet.dagger else letter.left
            columns = Letter(None, letter.field, left=side)  # Σ⁻¹e_a is a column of Σ⁻¹
            tensor, _ = self._solve_into(columns, self.program.eye(jet.field.shape[0]), 0, False)
            real = is_real(jet)
            return [Operand(tensor, (*own, self.axis(i)), jet.dagger and not real, real)]
        hol, anti, dagger = jet.hol, jet.anti, jet.dagger
        real = is_real(jet)
        barred = False  # whether the conjugate of a real field's derivative is stored
        if "hermitian" in jet.field.traits and len(anti) > len(hol):
            hol, anti, dagger = anti, hol, True
        elif {"real"} <= jet.field.traits & letter.field.traits and len(anti) > len(hol):
            hol, anti, barred = anti, hol, True
        latent = tuple(self.axis(i) for i in (*hol, *anti))
        layout = self.layout(jet.field)
        if layout == "full":  # a vector has one axis: a row's, or a column's when daggered
            own = _present(col, row) if dagger else _present(row, col)
        else:
            own = _present(row) if layout == "diagonal" else ()
        if jet.field.abbreviated:
            name, free = self._abbreviation(Jet(jet.field, hol, anti))
            lead = (*lead, *free)
        else:
            name = self._jet_input(jet.field, len(hol), len(anti), (*lead, *latent, *own))
            free = ()
        if letter.left or letter.right:
            if lead != free:
                raise GenerationError(f"an inverse next to {jet}, which depends on the component")
            name, _ = self._solve_into(letter, name, len(lead) + len(latent), dagger)
        symmetric = {"real", "hermitian"} <= jet.field.traits and letter.left == letter.right
        symmetric &= "real" in letter.field.traits
        if symmetric:
            own = _sorted(own)
        axes = (*lead, *latent, *own)
        conj = dagger != barred and not real
        operands = [Operand(name, axes, conj, real, symmetric and len(own) == 2)]
        if layout != "full":
            operands.append(Operand("delta", _present(row, col)))
        return operands

    def _abbreviation(self, jet: Jet) -> tuple[str, tuple[Axis, ...]]:
        """The tensor of an abbreviation's derivative, and the axes of its arguments."""
        field = jet.field.at_parameters()
        hol, anti = (
            tuple(Index(f"_{mark}{n}", getattr(i, "size", None), real=is_real_index(i)) for n, i in
                  enumerate(indices)) for mark, indices in (("d", jet.hol), ("b", jet.anti))
        )  # fmt: skip
        canonical = Jet(field, hol, anti)
        if canonical not in self._abbreviated:  # one tensor for all arguments and directions
            own = field.abbreviated[1]
            axes = tuple(self.axis(i) for i in (*field.arguments, *hol, *anti, *own))
            self._abbreviated[canonical] = self.tensor(unfolded(canonical), axes)
        return self._abbreviated[canonical], tuple(self.axis(i) for i in jet.field.arguments)

    def _solve_into(self, letter: Letter, x: str, latents: int, dagger: bool) -> tuple[str, str]:
        """Multiply a stored tensor by halves of the inverse; a dagger swaps the sides."""
        left, right = (letter.right, letter.left) if dagger else (letter.left, letter.right)
        field, let = letter.field, self.program.let
        layout = self.layout(field)
        n = field.shape[0]
        factor = self.factor(field)
        is_vector = letter.jet is not None and 1 in letter.jet.field.shape
        if letter.jet is not None and not is_vector and layout != "scalar":
            neighbour = self.layout(letter.jet.field)
            if neighbour != layout:
                raise GenerationError(
                    f"{field.name} is stored as {layout}, its neighbour {letter.jet.field.name} as "
                    f"{neighbour}: give both the same layout"
                )
        if layout != "full":
            halves = sum({"": 0, "half": 1, "whole": 2}[side] for side in (left, right))
            own = (
                1
                if is_vector
                else len(
                    {"full": "ij", "diagonal": "i", "scalar": ""}[
                        "full" if letter.jet is None else self.layout(letter.jet.field)
                    ]
                )
            )
            if layout == "diagonal" and own == 2:
                raise GenerationError(f"{field.name} is diagonal next to a full matrix")
            # a complex tensor is divided by a real one as if both were complex: ten times as slow
            s = let(f"torch.reciprocal({factor})", "r")
            s = s + ".unsqueeze(-1)" * (own if layout == "scalar" else 0)
            s = let(s + f".unsqueeze({-1 - own})" * latents, "r")
            return let(f"{x} * {s if halves == 1 else let(f'{s} * {s}', 'r')}", "v"), layout
        real = "real" in field.traits and (letter.jet is None or is_real(letter.jet))
        adjoint = "mT" if real else "mH"
        work = (1 if real else 4) * n * n * (1 if is_vector else n) * self.latent**latents
        if is_vector:
            if right:
                raise GenerationError("an inverse stands on the wrong side of a vector")
            matrix, back, spare = (f"{x}.mT", ".mT", latents - 1)
            if not latents:
                matrix, back, spare = f"{x}.unsqueeze(-1)", ".squeeze(-1)", 0
            factor = self._spread(factor, spare)
            solved = self._solve(factor, matrix, left, work, adjoint)
            return let(f"{solved}{back}", "v", work), layout
        factor = self._spread(factor, latents)
        if left:
            x = let(self._solve(factor, x, left, work, adjoint), "y", work)
        if right:
            solved = self._solve(factor, f"{x}.{adjoint}", right, work, adjoint)
            x = let(f"{solved}.{adjoint}", "y", work)
        return x, layout

    def factor(self, field: Field) -> str:
        """The input that holds the Cholesky factor of a positive field."""
        layout, n = self.layout(field), field.shape[0]
        sizes = {"full": (n, n), "diagonal": (n,), "scalar": ()}[layout]
        meaning = {
            "full": f"Cholesky factor L of {field.name} = L Lᴴ, lower triangular",
            "diagonal": f"s > 0 with {field.name} = diag(s²)",
            "scalar": f"s > 0 with {field.name} = s² I",
        }[layout]
        if "constant" in field.traits:
            self.program.constants.add(f"{_stored_name(field)}_factor")
        return self._input(f"{_stored_name(field)}_factor", sizes, meaning, field)

    def _spread(self, factor: str, latents: int) -> str:
        if latents == 0:
            return factor
        return self.program.let(factor + ".unsqueeze(-3)" * latents, "f")

    def _solve(self, factor: str, x: str, side: str, work: Expr, adjoint: str = "mH") -> str:
        half = f"{SOLVE}({factor}, {x}, upper=False)"
        if side == "half":
            return half
        half = self.program.let(half, "y", work)
        return f"{SOLVE}({factor}.{adjoint}, {half}, upper=True)"

    # ------------------------------------------------------------------ inputs
    def _jet_input(self, field: Field, hol: int, anti: int, axes: tuple[Axis, ...]) -> str:
        name = _stored_name(field)
        if "constant" in field.traits:
            self.program.constants.add(name)
        marks = "d" * hol + "b" * anti
        what = "∂" * hol + "∂̄" * anti + field.name
        layout = self.layout(field)
        if layout != "full":
            what += (
                f" ({layout}: what multiplies the identity)"
                if layout == "scalar"
                else (f" ({layout}: its diagonal)")
            )
        stored = f"{name}_{marks}" if marks else name
        return self._input(stored, tuple(a.size for a in axes), what, field)

    def _input(
        self, name: str, sizes: tuple[Expr, ...], meaning: str, owner: Basic | None = None
    ) -> str:
        known = self.program.inputs.setdefault(name, Input(name, sizes, meaning))
        if known.sizes != sizes:
            raise GenerationError(f"{name}: is used with shapes {known.sizes} and {sizes}")
        if self.program.owners.setdefault(name, owner) != owner:
            raise GenerationError(
                f"two different fields would be passed as the argument {name}: rename one of them"
            )
        check_name(name)
        return name


def _with_constants_outside(moment: Moment) -> Expr:
    """E[X° Y°] as E[X Y°], E[X° Y° Z°] as E[X Y° Z°] - E[X] E[Y° Z°], for constants X.

    All points share one tensor of what does not depend on them, such as ∂∂̄ of quadratic q_k, and
    to centre it would make a copy for each.
    """
    q, product = moment.args
    factors = factors_of(product)
    constants = [f.args[1] for f in factors if _is_constant(f.args[1])]
    centred = [f for f in factors if not _is_constant(f.args[1])]
    out = S.Zero
    for taken in subsets(range(len(constants))):
        inside = [x for n, x in enumerate(constants) if n not in taken]
        if not inside and len(centred) == 1:
            continue  # E[Y°] = 0
        means = [-Mean(q, constants[n]) for n in taken]
        whole = Mean(q, Mul(*inside, *centred)) if inside else Moment(q, Mul(*centred))
        out += Mul(*means, whole)
    return out


def _is_constant(expr: Expr) -> bool:
    """The second derivative of a component that has no further ones."""
    if not isinstance(expr, Jet) or "quadratic" not in expr.field.traits:
        return False
    mixed = len(expr.hol) == len(expr.anti) == 1
    real = len(expr.hol) == 2 and all(map(is_real_index, expr.hol))
    return "component" in expr.field.traits and (mixed or real)


def is_real(expr: Expr) -> bool:
    """Whether real letters, real indices and rational numbers alone make it up."""
    if expr.has(S.ImaginaryUnit):
        return False
    return all(
        "real" in j.field.traits and not j.anti and all(map(is_real_index, j.hol))
        for j in expr.atoms(Jet)
    )


def is_exact(expr: Expr) -> bool:
    """Is it i, or a rational number?"""
    return expr.is_Rational or expr is S.ImaginaryUnit


def check_name(name: str) -> None:
    """Arguments of kernels need names that Python allows and kernels do not use themselves."""
    if not name.isidentifier() or iskeyword(name) or name in ("torch", "delta"):
        raise GenerationError(f"{name!r} cannot name an argument in Python: rename that letter")


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
    if name in HEADS or (name in REAL_HEADS and is_real(expr)):
        return name
    of_real = " for complex arguments" if name in REAL_HEADS else ""
    raise GenerationError(
        f"the printer has no rule for the function {name} in {expr}{of_real}; "
        f"expected one of {', '.join(HEADS)}"
    )


def head_call(expr: Expr, arguments: list[str]) -> str:
    """The call of the torch function that computes a head."""
    code = "torch.pow({})" if isinstance(expr, Pow) else (HEADS | REAL_HEADS)[type(expr).__name__]
    return code.format(", ".join(arguments))


def _present(*axes: Axis | None) -> tuple[Axis, ...]:
    return tuple(a for a in axes if a is not None)


def _sorted(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    return tuple(sorted(axes, key=lambda a: (len(a.name), a.name)))


def _stored_name(field: Field) -> str:
    return field.name + ("0" if "frozen" in field.traits else "")


def _plain(letter: tuple[Expr, int]) -> Expr:
    return letter[0]


def _fraction(expr: Expr) -> tuple[Expr, Expr]:
    above, below = [], []
    for f in Mul.make_args(expr):
        base, power = f.as_base_exp()
        if f.is_Rational:
            above.append(Integer(f.p))
            below.append(Integer(f.q))
        elif power.is_Integer and power < 0:
            below.append(base ** (-power))
        else:
            above.append(f)
    return Mul(*above), Mul(*below)


def _units(product: Expr) -> list[Expr]:
    return [f for f in factors_of(product) if f != 1] if product != 1 else []


def integer_code(number: Expr) -> str:
    """An integer as torch takes it: of 64 bits.

    Raises:
        GenerationError: it is larger.
    """
    if abs(int(number)) >= 2**63:
        raise GenerationError(
            f"expected integers below 2^63, which torch can multiply tensors by, got {number}: "
            "make it a parameter, or write the potential in explicit coordinates"
        )
    return str(number)


def signed_sum(terms: list[tuple[Expr, Expr]], code: Callable[[Expr], str]) -> str:
    """Code of Σ coefficient × term with rational coefficients, signs in front."""
    out = ""
    for coefficient, term in sorted(terms, key=lambda t: (bool(t[0] < 0), str(t[1]))):
        size = abs(Rational(coefficient))
        body = code(term) if term != 1 else ""
        if size.p != 1 or not body:
            above = integer_code(Integer(size.p))
            body = f"{above} * {body}" if body else above
        if size.q != 1:
            body = f"{body} / {integer_code(Integer(size.q))}"
        sign = "-" if coefficient < 0 else "+"
        out += f" {sign} {body}" if out else (f"-{body}" if coefficient < 0 else body)
    return out
