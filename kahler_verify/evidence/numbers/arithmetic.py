"""Other number systems for the very text of generated kernels: one source, many arithmetics.

A kernel imports torch and calls a dozen functions.  :func:`run_text` executes its unpatched source
with an array namespace in torch's place, over numpy object arrays of exact or rigorous numbers:

- ``rational``: Q(i), exact (python-flint's fmpq);
- ``prime_field``: F_p[i] with p of 61 bits, where conjugation is the Frobenius map x ↦ x^p;
- ``ball``: complex balls (python-flint's acb), rigorous enclosures;
- ``decimal``: mpmath at 50 digits.
"""

from __future__ import annotations

import builtins
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from math import factorial
from types import CodeType, SimpleNamespace
from typing import Any

import flint
import mpmath
import numpy as np
from sympy import primefactors

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arrays import Array, array, einsum, solve_triangular
from kahler_verify.evidence.numbers.gaussian import Gaussian

# p ≡ 3 mod 4, so that x² + 1 is irreducible and F_p[i] is a field.  (p - 1)/2 is a prime, so that
# squares are like positive numbers: each has one square root, and one q-th root, that is a square
# itself.  (p + 1)/120 has no small factors, so that few numbers of F_p[i] are without such roots;
# and 2, 3, 5, … 43 are squares.
PRIME = 1944345696685086119

SMALL_PRODUCT = 32  # below so many entries of both factors numpy is faster than FLINT's matrices

# What a kernel may call.  A test keeps the generated files inside this list.
NAMESPACE = (
    "torch.einsum",
    "torch.linalg.solve_triangular",
    "torch.eye",
    "torch.cat",
    "torch.stack",
    "torch.zeros_like",
    "torch.reciprocal",
)
# What their module's ``heads`` may call besides, where numbers have functions: of torch, and by the
# name that the function has in the calculus.
TRANSCENDENTAL = {
    f"torch.{name}": name
    for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")
} | {
    "torch.pow": "power",
    "torch.sigmoid": "logistic",
    "torch.lgamma": "loggamma",
    "torch.digamma": "digamma",
    "torch.special.zeta": "zeta",
    "torch.nn.functional.softplus": "log1pexp",
}
METHODS = ("conj", "unsqueeze", "squeeze", "flatten", "unflatten", "select", "mT", "mH", "shape")


class NotASquare(EvidenceError):
    """A number without a square root in this field was drawn."""


@dataclass(frozen=True)
class Arithmetic:
    """A number system: integers lifted, random elements, transcendental functions if any."""

    name: str
    number: Callable[[Any], Any]  # from int, Fraction-like pair or complex
    draw: Callable[[random.Random], Any]
    draw_positive: Callable[[random.Random], Any]
    function: Callable[[str, Any], Any] | None = None  # None: heads are drawn
    inverse: Callable[[Array], Array] | None = None  # None: Gauss-Jordan elimination
    matmul: Callable[[Array, Array], Array] | None = None  # None: numpy over objects
    root: Callable[[Any, Fraction], Any] | None = None  # x^c; may raise NotASquare
    fraction: Callable[[Any], Fraction | None] = lambda _: None  # that a number is, if a small one
    bound: Callable[[Fraction], Any] | None = None  # of a letter's c-th power, where numbers bound

    def zeros(self, *shape: int) -> Array:
        """An array of zeros."""
        return array([self.number(0) for _ in range(int(np.prod(shape, dtype=int)))], shape)

    def eye(self, n: int) -> Array:
        """The identity matrix."""
        out = self.zeros(n, n)
        for i in range(n):
            out[i, i] = self.number(1)
        return out

    def product(self, x: Array, y: Array) -> Array:
        """The product of two matrices."""
        if self.matmul is not None and x.size + y.size >= SMALL_PRODUCT:
            return self.matmul(x, y)
        return array(np.matmul(np.asarray(x), np.asarray(y)))

    def namespace(self) -> SimpleNamespace:
        """The stand-in for torch."""
        torch = SimpleNamespace(
            einsum=einsum,
            linalg=SimpleNamespace(solve_triangular=solve_triangular),
            eye=lambda n, **_: self.eye(n),
            cat=lambda parts, axis: np.concatenate(parts, axis=axis).view(Array),
            stack=lambda parts, axis: np.stack(parts, axis=axis).view(Array),
            zeros_like=lambda x: x - x,
            reciprocal=lambda x: 1 / x,
        )
        if self.function is not None:
            for name, own in TRANSCENDENTAL.items():
                *folders, last = name.split(".")[1:]
                place = torch
                for folder in folders:
                    if not hasattr(place, folder):
                        setattr(place, folder, SimpleNamespace())
                    place = getattr(place, folder)
                setattr(place, last, partial(self._entrywise, own))
        return torch

    def _entrywise(self, name: str, *tensors: Any, **_: Any) -> Array:
        """A function of each entry; options, such as a threshold, are about rounding."""
        assert self.function is not None
        spread = np.broadcast_arrays(*[np.asarray(x, dtype=object) for x in tensors])
        entries = zip(*[x.ravel() for x in spread], strict=True)
        return array([self.function(name, *x) for x in entries], spread[0].shape)


def run_text(text: str, arithmetic: Arithmetic) -> Mapping[str, Any]:
    """Execute the unpatched source of a generated module with this arithmetic in torch's place."""
    namespace = arithmetic.namespace()

    def stand_in(name: str, *args: Any, **kwargs: Any) -> Any:
        return namespace if name == "torch" else builtins.__import__(name, *args, **kwargs)

    scope: dict[str, Any] = {"__builtins__": {**vars(builtins), "__import__": stand_in}}
    exec(_code_of(text), scope)
    return scope


@lru_cache(maxsize=64)
def _code_of(text: str) -> CodeType:
    return compile(text, "<generated kernel>", "exec")


def flint_matmul(lift: Callable[[int, int, list[Any]], Any]) -> Callable[[Array, Array], Array]:
    """Products of matrices of :class:`Gaussian` by four real products of FLINT matrices."""

    def parts(x: Array) -> tuple[Any, Any]:
        (rows, columns), flat = x.shape, x.ravel().tolist()
        return lift(rows, columns, [v.x for v in flat]), lift(rows, columns, [v.y for v in flat])

    def matmul(x: Array, y: Array) -> Array:
        (a, b), (c, d) = parts(x), parts(y)
        real, imaginary = (a * c - b * d).entries(), (a * d + b * c).entries()
        return array(list(map(Gaussian, real, imaginary)), (x.shape[0], y.shape[1]))

    return matmul


def flint_inverse(lift: Callable[[int, int, list[Any]], Any]) -> Callable[[Array], Array]:
    """Inverses of matrices X + iY of :class:`Gaussian`, by that of the real [[X, -Y], [Y, X]]."""

    def inverse(matrix: Array) -> Array:
        n = len(matrix)
        rows = matrix.tolist()
        upper = [[v.x for v in row] + [-v.y for v in row] for row in rows]
        lower = [[v.y for v in row] + [v.x for v in row] for row in rows]
        try:
            found = lift(2 * n, 2 * n, [v for row in upper + lower for v in row]).inv()
        except ZeroDivisionError as error:
            raise EvidenceError("a sampled matrix is singular") from error
        real, imaginary = (found.entries()[2 * n * n * part :] for part in (0, 1))
        places = [2 * n * i + j for i in range(n) for j in range(n)]
        return array([Gaussian(real[k], imaginary[k]) for k in places], (n, n))

    return inverse


def _residues(rows: int, columns: int, entries: list[Any]) -> flint.nmod_mat:
    return flint.nmod_mat(rows, columns, list(map(int, entries)), PRIME)


def _rational(value: Any) -> Gaussian:
    if isinstance(value, complex):
        return Gaussian(flint.fmpq(int(value.real)), flint.fmpq(int(value.imag)))
    return Gaussian(flint.fmpq(int(value)), flint.fmpq(0))


def _draw_rational(rng: random.Random) -> Gaussian:
    part = lambda: flint.fmpq(rng.randint(-9, 9), rng.randint(1, 5))  # noqa: E731
    return Gaussian(part(), part())


SMALL = 2**10  # numerators and denominators of fractions that are told from other numbers


def _small_rational(x: Gaussian) -> Fraction | None:
    if x.y != 0 or abs(int(x.x.p)) > SMALL or int(x.x.q) > SMALL:
        return None
    return Fraction(int(x.x.p), int(x.x.q))


def _rational_root(x: Gaussian, c: Fraction) -> Gaussian:
    """x^c of a ratio of perfect powers.

    Raises:
        EvidenceError: x has no such root in Q.
    """
    parts = [int(x.x.p), int(x.x.q)]
    roots = [flint.fmpz(n).root(c.denominator) if n > 0 else 0 for n in parts]
    if x.y != 0 or any(int(r) ** c.denominator != n for r, n in zip(roots, parts, strict=True)):
        raise EvidenceError(f"{x} has no root of order {c.denominator} in Q(i): use a prime field")
    top, below = [flint.fmpq(int(r) ** abs(c.numerator)) for r in roots]
    return Gaussian(top / below if c > 0 else below / top, x.y)


rational = Arithmetic(
    "Q(i)",
    _rational,
    _draw_rational,
    lambda rng: Gaussian(flint.fmpq(rng.randint(1, 9), rng.randint(1, 5)), flint.fmpq(0)),
    inverse=flint_inverse(flint.fmpq_mat),
    matmul=flint_matmul(flint.fmpq_mat),
    root=_rational_root,
    fraction=_small_rational,
)


def _residue(value: Any) -> Gaussian:
    if isinstance(value, complex):
        return Gaussian(flint.nmod(int(value.real), PRIME), flint.nmod(int(value.imag), PRIME))
    return Gaussian(flint.nmod(int(value), PRIME), flint.nmod(0, PRIME))


def _root(x: Gaussian, c: Fraction) -> Gaussian:
    """The one value of x^(a/b) in the largest group of powers in which b-th roots are unique.

    There (xy)^c = x^c y^c, (x^c)^e = x^ce, and conj x^c = x̄^c; a real x has a real root.

    Raises:
        NotASquare: x is not in this group; draw another point.
    """
    order = PRIME**2 - 1
    for factor in primefactors(c.denominator):
        while order % factor == 0:
            order //= factor
    if x == 0 or x**order != 1:
        raise NotASquare(f"{x} has no unique root of order {c.denominator}")
    return x ** (c.numerator * pow(c.denominator, -1, order) % order)


def _small_fraction(x: Gaussian) -> Fraction | None:
    """The fraction a/b of small numbers that a residue is, by the extended Euclidean algorithm."""
    if x.y != 0:
        return None
    a, b, s, t = PRIME, int(x.x), 0, 1
    while b > SMALL:
        a, b, s, t = b, a % b, t, s - a // b * t
    return Fraction(b, t) if t and abs(t) <= SMALL else None


prime_field = Arithmetic(
    f"F_p[i], p = {PRIME}",
    _residue,
    lambda rng: Gaussian(
        flint.nmod(rng.randrange(PRIME), PRIME), flint.nmod(rng.randrange(PRIME), PRIME)
    ),
    lambda rng: Gaussian(flint.nmod(rng.randrange(1, PRIME), PRIME), flint.nmod(0, PRIME)),
    root=_root,
    fraction=_small_fraction,
    inverse=flint_inverse(_residues),
    matmul=flint_matmul(_residues),
)

DIGITS = 50
_context = mpmath.mp.clone()
_context.dps = DIGITS


def _decimal_function(name: str, *x: Any) -> Any:
    """A function, by its name in the calculus, at 50 digits."""
    if name == "polygamma":
        return _context.psi(int(x[0].real), x[1])
    if name == "logistic":
        return 1 / (1 + _context.exp(-x[0]))
    if name == "log1pexp":
        return _context.log(1 + _context.exp(x[0]))
    return getattr(_context, name)(*x)


decimal = Arithmetic(
    "mpmath, 50 digits",
    lambda value: _context.mpc(value),
    lambda rng: _context.mpc(rng.gauss(0, 1), rng.gauss(0, 1)),
    lambda rng: _context.mpc(rng.uniform(0.5, 2)),
    lambda name, *x: _decimal_function(name, *x),
)


def _ball_function(name: str, *x: Any) -> Any:
    """A function, by its name in the calculus, over balls."""
    last = flint.acb(x[-1])
    if name == "polygamma":
        order = int(x[0].real)
        if order == 0:
            return last.digamma()
        return (-1) ** (order + 1) * factorial(order) * flint.acb(order + 1).zeta(last)
    if name == "zeta":
        return flint.acb(x[0]).zeta(last)
    if name == "power":
        return flint.acb(x[0]).pow(last)
    if name == "logistic":
        return 1 / (1 + (-last).exp())
    if name == "log1pexp":
        return (1 + last.exp()).log()
    return getattr(last, {"loggamma": "lgamma"}.get(name, name))()


ball = Arithmetic(
    "complex balls",
    lambda value: (
        flint.acb(value.real, value.imag) if isinstance(value, complex) else flint.acb(value)
    ),
    lambda rng: flint.acb(rng.gauss(0, 1), rng.gauss(0, 1)),
    lambda rng: flint.acb(rng.uniform(0.5, 2)),
    lambda name, *x: _ball_function(name, *x),
)
