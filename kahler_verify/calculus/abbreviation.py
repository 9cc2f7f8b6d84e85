"""Abbreviations: letters that stand for expressions, so that the long is computed once.

The derivatives of an abbreviation are tensors of their own.  Thus the chain rule of what is nested
inside of something else is never multiplied out, and an expression that occurs at several indices
is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from sympy import Add, Expr, Function, Mul, S, Symbol, Tuple

from kahler_verify.calculus.definition import OnDiagonal, derive
from kahler_verify.calculus.indexed import Definition, Entry, free_indices
from kahler_verify.calculus.letters import Field, Index, Jet
from kahler_verify.calculus.mixture import factors_of, is_component
from kahler_verify.calculus.wirtinger import wirtinger
from kahler_verify.calculus.words import LogDet, Tr, adjoint, scalars
from kahler_verify.errors import DerivationError


def let(
    name: str,
    expr: Expr,
    *,
    of: tuple[Symbol, ...] = (),
    rows: Symbol | None = None,
    cols: Symbol | None = None,
    **traits: bool,
) -> Jet | Callable[..., Jet]:
    """A letter that abbreviates an expression: a number, or the entries of a vector or a matrix.

    Args:
        name: of the letter.
        expr: what it stands for.
        of: the free indices of ``expr``, its parameters: ``let("F", f(a, b), of=(a, b))`` is a
            function of two indices, so that F(b, c) and F(a, e) are one tensor.
        rows: the index of a vector's entries, or of a matrix's rows.
        cols: the index of a matrix's columns.
        traits: of the letter; real where all letters in ``expr`` are.

    Raises:
        DerivationError: an index of ``expr`` is not declared, or a shape is unknown.
    """
    expr = scalars(expr)
    own = tuple(i for i in (rows, cols) if i is not None)
    if any(getattr(i, "size", None) is None for i in own):
        raise DerivationError(f"let {name}: rows and columns need indices with a size")
    undeclared = free_indices(expr) - {*of, *own}
    if undeclared:
        names = ", ".join(sorted(map(str, undeclared)))
        raise DerivationError(f"let {name}: declare of=({names}), which are free in {expr}")
    if all("real" in j.field.traits for j in expr.atoms(Jet)):
        traits["real"] = True
    own_names = [_renamed(i, f"{name}_row{n}") for n, i in enumerate(own)]
    parameters = [_renamed(i, f"{name}_{n}") for n, i in enumerate(of)]
    body = expr.xreplace(dict(zip((*own, *of), (*own_names, *parameters), strict=True)))
    shape = [i.size for i in own] + [S.One] * (2 - len(own))
    given = [t for t, on in traits.items() if on]

    def at(*indices: Symbol) -> Jet:
        if len(indices) != len(of):
            raise DerivationError(f"{name}: expected {len(of)} indices, got {indices}")
        inside = body, Tuple(*own_names), Tuple(*parameters), Tuple(*indices)
        return Jet(Field(name, *shape, given, *inside))

    return at if of else at()


def _renamed(i: Symbol, name: str) -> Symbol:
    if isinstance(i, Index):
        return Index(name, i.size, real=bool(i.is_real))
    return Symbol(name)


def unfolded(jet: Jet) -> Expr:
    """What a derivative of an abbreviation (not its adjoint) stands for, by the calculus."""
    out = derive(jet.field.abbreviated[0])
    for i in jet.hol:
        out = wirtinger(out, i)
    for i in jet.anti:
        out = wirtinger(out, i, True)
    return out


def spelled_out(expr: Expr) -> Expr:
    """The expression without abbreviations of numbers."""
    inner = {
        j: adjoint(j.field.abbreviated[0]) if j.dagger else j.field.abbreviated[0]
        for j in expr.atoms(Jet)
        if j.field.abbreviated and j.field.is_scalar and not (j.hol or j.anti)
    }
    return spelled_out(expr.xreplace(inner)) if inner else expr


def staged(expr: Expr) -> Expr:
    """A definition with what is nested under its derivatives named, to go level by level.

    Arguments of functions that hold more than a linear expression are abbreviated, and so are all
    but one of the factors that hold functions.  Each level's derivatives are then those of one
    function of one letter (Faà di Bruno: 15 terms of fourth order), or of a product of two (16).
    Divergences on the diagonal stay as they are: their derivatives cancel those of what is frozen,
    and names would hide it.
    """
    return _Stages().below(expr)


class _Stages:
    def __init__(self) -> None:
        self.known: dict[Expr, Expr] = {}

    def below(self, e: Expr) -> Expr:
        """The expression with what stands under its derivatives in stages."""
        if not e.has(Definition) or isinstance(e, OnDiagonal):
            return e
        innermost = isinstance(e, Definition) and not e.args[0].has(Definition)
        change = self.visit if innermost else self.below
        args = [change(a) if isinstance(a, Expr) and not isinstance(a, Jet) else a for a in e.args]
        return e if args == list(e.args) else e.func(*args)

    def visit(self, e: Expr) -> Expr:
        """An expression under a derivative, in stages."""
        if isinstance(e, Jet | Tr | LogDet | Entry) or e.is_Atom or not e.is_commutative:
            return e
        if not _varies(e):  # no derivative falls on it, and at z₀ = z it may cancel what did
            return e
        args = [self.visit(a) for a in e.args]
        if e.is_Mul:
            return self._product(args)
        if (e.is_Pow or isinstance(e, Function)) and not _is_linear(args[0]):
            args[0] = self._named(args[0])
        return e.func(*args)

    def _product(self, factors: list[Expr]) -> Expr:
        """f g h as u h with u = f g, where all of them hold functions."""
        holding = [f for f in factors if _holds_functions(f) and _varies(f) and not is_component(f)]
        rest = [f for f in factors if f not in holding]
        while len(holding) > 1:
            first, second, *others = holding
            holding = [self._named(self._named(first) * self._named(second)), *others]
        return Mul(*rest, *holding)

    def _named(self, inner: Expr) -> Expr:
        if isinstance(inner, Jet) or inner.is_number or is_component(inner):
            return inner
        if inner not in self.known:
            free = tuple(sorted(free_indices(inner), key=str))
            traits = {"hermitian": True} if adjoint(inner) == inner else {}
            made = let(f"u{len(self.known)}", inner, of=free, **traits)
            self.known[inner] = made(*free) if free else made
        return self.known[inner]


def _varies(e: Expr) -> bool:
    """Whether a letter of it depends on z; those at the base point do not."""
    return any(not j.field.traits & {"frozen", "constant"} for j in e.atoms(Jet))


def _is_linear(e: Expr) -> bool:
    """Whether it is a sum of letters, traces and entries times numbers."""
    return all(
        sum(not f.is_number and not isinstance(f, Symbol) for f in factors_of(term)) <= 1
        and not _holds_functions(term)
        for term in Add.make_args(e)
    )


def _holds_functions(e: Expr) -> bool:
    if isinstance(e, Tr | Entry | Jet) or e.is_Atom:
        return False
    if isinstance(e, Function) or (e.is_Pow and not (e.exp.is_Integer and e.exp > 0)):
        return True
    return any(_holds_functions(a) for a in e.args)
