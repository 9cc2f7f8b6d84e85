"""Letters: the fields that definitions are written in, carrying their Wirtinger derivatives.

z and z̄ are independent (polarisation).  A field is a matrix, a vector or a scalar that may depend
on them; a :class:`Jet` is a field together with the indices of the ∂ and ∂̄ that were taken of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sympy import Basic, Expr, Integer, S, Symbol, Tuple
from sympy.core.symbol import Str
from sympy.logic.boolalg import BooleanAtom, false, true

from kahler_verify.errors import DerivationError

TRAITS = {
    "component": "one value for each component k of a mixture",
    "constant": "does not depend on z",
    "coordinate": "is the latent coordinate z itself",
    "frozen": "is held at the base point z₀",
    "hermitian": "equals its own adjoint (a Hermitian matrix or a real scalar)",
    "holomorphic": "its ∂̄ vanishes",
    "positive": "is positive definite, so that it has a Cholesky factor; a vector, entry by entry",
    "quadratic": "second ∂ and second ∂̄ vanish, as for (z - c)ᴴP(z - c)",
    "real": "equals its own conjugate, so that its adjoint is its transpose",
}
SUGAR = {"symmetric": ("real", "hermitian")}


class Index(Symbol):
    """An index with the dimension that it runs over (None: the latent one).

    A real index stands for a real coordinate: it is its own bar.
    """

    __slots__ = ("size",)

    def __new__(cls, name: str, size: Expr | None = None, *, real: bool = False) -> Index:
        obj = Symbol.__xnew__(cls, name, **({"real": True} if real else {}))
        obj.size = size
        return obj

    def __getnewargs_ex__(self) -> tuple[tuple, dict]:
        return (self.name, self.size), {"real": bool(self.is_real)}

    def _hashable_content(self) -> tuple:
        return (*Symbol._hashable_content(self), str(self.size))


def index(names: str, size: Expr | None = None, *, real: bool = False) -> tuple[Symbol, ...]:
    """Indices, one for each name: ``a, b = index("a b")`` run over the latent space C^d.

    With ``real`` they run over the real coordinates of R^d; with ``size`` over another dimension,
    such as ``index("j", n)`` over outputs.
    """
    if size is None and not real:
        return tuple(Symbol(name) for name in names.split())
    return tuple(Index(name, size, real=real) for name in names.split())


def is_real_index(i: Basic) -> bool:
    """Whether it stands for a real coordinate."""
    return isinstance(i, Index) and bool(i.is_real)


def size_of(i: Symbol, latent: Expr) -> Expr:
    """The dimension that an index runs over."""
    size = getattr(i, "size", None)
    return latent if size is None else size


def dimension(name: str) -> Symbol:
    """A symbolic dimension; it stays a symbol until a kernel meets tensors."""
    return Symbol(name, integer=True, positive=True)


class Bar(Basic):
    """Marks an index as antiholomorphic, as the bar in ∂_b̄; a real index is its own bar."""

    def __new__(cls, i: Symbol) -> Basic:
        return i if is_real_index(i) else Basic.__new__(cls, i)

    @property
    def index(self) -> Symbol:
        return self.args[0]


class Field(Basic):
    """What a letter stands for: a name, a shape and its traits (see ``TRAITS``)."""

    def __new__(
        cls, name: str | Str, rows: Expr, cols: Expr, traits: Iterable = (), *abbreviated: Basic
    ) -> Field:
        names = sorted({own for t in traits for own in SUGAR.get(str(t), (str(t),))})
        for unknown in set(names) - set(TRAITS):
            raise DerivationError(
                f"field {name}: expected traits among {', '.join(TRAITS)}, got {unknown!r}"
            )
        traits_arg = Tuple(*[Str(t) for t in names])
        return Basic.__new__(cls, Str(str(name)), S(rows), S(cols), traits_arg, *abbreviated)

    @property
    def abbreviated(self) -> tuple[Basic, ...]:
        """Of an abbreviation (expression, indices of rows and columns); () of other fields."""
        if len(self.args) == 4:
            return ()
        body, own, parameters, arguments = self.args[4:]
        return body.xreplace(dict(zip(parameters, arguments, strict=True))), own

    @property
    def arguments(self) -> tuple[Symbol, ...]:
        """The indices that an abbreviation is taken at, as a and b of F(a, b)."""
        return tuple(self.args[7]) if self.args[4:] else ()

    def at_parameters(self) -> Field:
        """The abbreviation at its own parameters, which is one for all arguments."""
        return Field(*self.args[:7], self.args[6])

    @property
    def name(self) -> str:
        return self.args[0].name

    @property
    def shape(self) -> tuple[Expr, Expr]:
        return self.args[1], self.args[2]

    @property
    def traits(self) -> frozenset[str]:
        return frozenset(t.name for t in self.args[3])

    @property
    def is_scalar(self) -> bool:
        return self.shape == (1, 1)

    def with_traits(self, *traits: str) -> Field:
        return Field(self.name, *self.shape, self.traits | set(traits), *self.args[4:])

    def without_traits(self, *traits: str) -> Field:
        return Field(self.name, *self.shape, self.traits - set(traits), *self.args[4:])


class Jet(Expr):
    """∂^hol ∂̄^anti of a field; ``dagger`` marks the adjoint of the whole.

    Matrices and vectors do not commute, scalars do.  A jet that a trait makes zero is zero.
    """

    def __new__(
        cls,
        field: Field,
        hol: Iterable[Symbol] = (),
        anti: Iterable[Symbol] = (),
        dagger: bool | BooleanAtom = False,
    ) -> Expr:
        traits = field.traits
        if dagger and ("hermitian" in traits or ("real" in traits and field.is_scalar)):
            hol, anti, dagger = anti, hol, False  # (∂_a ∂_b̄ S)ᴴ = ∂_ā ∂_b S
        real = [i for i in anti if is_real_index(i)]  # ∂_a is its own conjugate there
        hol = tuple(sorted((*hol, *real), key=str))
        anti = tuple(sorted((i for i in anti if i not in real), key=str))
        if (hol or anti) and traits & {"constant", "frozen"}:
            return S.Zero
        if anti and traits & {"holomorphic", "coordinate"}:
            return S.Zero
        if len(hol) > 1 and "coordinate" in traits:
            return S.Zero
        if "quadratic" in traits:
            count = sum(map(is_real_index, hol))
            if max(len(hol) - count, len(anti)) > 1 or count > 2 or (count == 2 and len(hol) > 2):
                return S.Zero
        return Expr.__new__(cls, field, Tuple(*hol), Tuple(*anti), true if dagger else false)

    @property
    def field(self) -> Field:
        return self.args[0]

    @property
    def hol(self) -> tuple[Symbol, ...]:
        return tuple(self.args[1])

    @property
    def anti(self) -> tuple[Symbol, ...]:
        return tuple(self.args[2])

    @property
    def dagger(self) -> bool:
        return self.args[3] is true

    @property
    def shape(self) -> tuple[Expr, Expr]:
        rows, cols = self.field.shape
        return (cols, rows) if self.dagger else (rows, cols)

    @property
    def H(self) -> Expr:
        """The adjoint."""
        return Jet(self.field, self.hol, self.anti, not self.dagger)

    @property
    def T(self) -> Expr:
        """The transpose of a real field's jet: (∂_a X)ᵀ = (∂_ā X)ᴴ."""
        if "real" not in self.field.traits:
            raise DerivationError(f"{self}: only fields declared real=True have a transpose")
        return Jet(self.field, self.anti, self.hol, not self.dagger)

    def at_base(self) -> Expr:
        """The same field held at the base point z₀ (written with a subscript 0)."""
        return Jet(self.field.with_traits("frozen"), self.hol, self.anti, self.dagger)

    def partial(self, i: Symbol, *, bar: bool) -> Expr:
        """∂_i, or ∂_ī with ``bar``; of an adjoint, the adjoint of the conjugate derivative."""
        if bar != self.dagger and not is_real_index(i):
            return Jet(self.field, self.hol, (*self.anti, i), self.dagger)
        return Jet(self.field, (*self.hol, i), self.anti, self.dagger)

    def _eval_is_commutative(self) -> bool:
        return self.field.is_scalar

    def _eval_adjoint(self) -> Expr:
        return self.H

    def _eval_conjugate(self) -> Expr | None:
        return self.H if self.field.is_scalar else None

    def _latex(self, printer: Any) -> str:
        name = printer._print(Symbol(self.field.name))
        if "frozen" in self.field.traits:
            name = f"{{{name}}}_{{0}}"
        subscripts = [str(i) for i in self.hol] + [rf"\bar{{{i}}}" for i in self.anti]
        if subscripts:
            name = rf"\partial_{{{''.join(subscripts)}}}{name}"
        return rf"\left({name}\right)^{{H}}" if self.dagger else name

    def _sympystr(self, _printer: Any) -> str:
        name = self.field.name + ("₀" if "frozen" in self.field.traits else "")
        subscripts = "".join([str(i) for i in self.hol] + [f"{i}\u0304" for i in self.anti])
        name = f"∂{subscripts}{name}" if subscripts else name
        if not self.dagger:
            return name
        return f"({name})ᴴ" if subscripts else f"{name}ᴴ"


def field(name: str, rows: Expr | int = 1, cols: Expr | int = 1, **traits: bool) -> Jet:
    """A field that definitions can use: ``field("Sigma", n, n, hermitian=True, positive=True)``.

    Shapes are ``rows × cols`` (a vector has one column); traits are those of ``TRAITS``.
    """
    return Jet(Field(name, S(rows), S(cols), [t for t, on in traits.items() if on]))


def coordinates(name: str, d: Expr, **traits: bool) -> Jet:
    """The latent coordinate vector z ∈ C^d itself: ∂_a z = e_a, ∂_ā z = 0."""
    return field(name, d, coordinate=True, **traits)


def parameter(name: str, rows: Expr | int = 1, cols: Expr | int = 1, **traits: bool) -> Jet:
    """A constant that kernels take as an input: a scalar, a vector or a matrix."""
    return field(name, rows, cols, constant=True, **traits)


ONE = Integer(1)
