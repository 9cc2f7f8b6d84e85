"""Tensors of a mixture's components in the layouts that multiply fastest, for kernels to run on.

A generated kernel names axes and says nothing of memory: slopes are [..., K, d].  Here they are
real pairs with the components last, [b, 2d, K], so that whatever is summed over components is one
real matrix product along memory.

:func:`on_layouts` runs the very code of a kernel with another ``torch``, whose ``einsum`` knows
these layouts.  Each product that it knows is one function below; every other one is torch's, of the
complex tensors that the layouts stand for.  So a kernel computes the same on layouts as on tensors,
up to rounding: evidence compares the two (``kahler_verify.evidence.laws.variants``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from types import FunctionType
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Gram", "Layout", "Mean", "Offsets", "Precisions", "Slopes", "Sum", "on_layouts"]


class Forms(Protocol):
    """The quadratic forms (z - c_k)ᴴP_k(z - c_k) that layouts are of; ``some`` of all k."""

    def centres_of(self, some: slice) -> Tensor:
        """Coordinates of the centres [2d, k]."""

    def slopes(self, offsets: Offsets) -> Tensor:
        """The pairs of P_k(z - c_k) [b, 2d, k]."""

    def forms(self, offsets: Offsets) -> Tensor:
        """Their values, real [b, k]."""

    def matrices(self, some: slice) -> Tensor:
        """P_k as complex matrices [k, d, d]."""

    def mean_metric(self, w: Tensor, some: slice) -> Tensor:
        """Σ_k w_k P_kᵀ [b, d, d] for real w [b, k]."""


class Layout:
    """What a kernel takes for a complex tensor."""

    def tensor(self) -> Tensor:
        """The tensor that it stands for."""
        raise NotImplementedError


class Offsets(Layout):
    """z - c_k [b, k, d], formed only where a product wants them."""

    def __init__(
        self, components: Forms, x: Tensor, some: slice, *, conjugate_of: Offsets | None = None
    ):
        self.components, self.x, self.some = components, x, some
        self.conjugate_of = conjugate_of

    @property
    def conjugated(self) -> bool:
        """Whether these are conjugates."""
        return self.conjugate_of is not None

    @property
    def plain(self) -> Offsets:
        """Those that are not, which keep what is made of them."""
        return self.conjugate_of or self

    def conj(self) -> Offsets:
        """The conjugates."""
        if self.conjugate_of is not None:
            return self.conjugate_of
        return Offsets(self.components, self.x, self.some, conjugate_of=self)

    @cached_property
    def rows(self) -> Tensor:
        """The points with a one behind them [b, 2d + 1], of which affine maps make the rest."""
        return torch.nn.functional.pad(self.x, (0, 1), value=1.0)

    @cached_property
    def pairs(self) -> Tensor:
        """The offsets as pairs [b, 2d, k]."""
        return self.x.unsqueeze(-1) - self.components.centres_of(self.some)

    @cached_property
    def slopes(self) -> Tensor:
        """The pairs of P_k(z - c_k) [b, 2d, k]."""
        return self.components.slopes(self)

    @cached_property
    def forms(self) -> Tensor:
        """The real numbers (z - c_k)ᴴP_k(z - c_k) [b, k]."""
        return self.components.forms(self)

    def tensor(self) -> Tensor:
        """Complex [b, k, d]."""
        return Slopes(self.pairs, conjugated=self.conjugated).tensor()


class Precisions(Layout):
    """P_k [k, d, d], or P_kᵀ, which is its conjugate."""

    def __init__(self, components: Forms, some: slice, *, transposed: bool = False):
        self.components, self.some, self.transposed = components, some, transposed

    @property
    def mT(self) -> Precisions:
        """The transposes."""
        return Precisions(self.components, self.some, transposed=not self.transposed)

    def conj(self) -> Precisions:
        """The conjugates: Hermitian matrices' transposes."""
        return self.mT

    def tensor(self) -> Tensor:
        """Complex [k, d, d]."""
        out = self.components.matrices(self.some)
        return out.mT if self.transposed else out


class Slopes(Layout):
    """One vector for each component, [b, k, d], as pairs [b, 2d, k].

    Attributes:
        pairs: (Re s_1, Im s_1, Re s_2, …) of s.
        conjugated: whether the vectors are s̄.
        weighted: pairs of the vectors that these are real multiples of, one for each component.
    """

    def __init__(self, pairs: Tensor, *, conjugated: bool, weighted: Tensor | None = None):
        self.pairs, self.conjugated, self.weighted = pairs, conjugated, weighted

    def conj(self) -> Slopes:
        """The conjugates."""
        return Slopes(self.pairs, conjugated=not self.conjugated, weighted=self.weighted)

    def __sub__(self, mean: Mean) -> Slopes:
        assert mean.conjugated == self.conjugated
        return Slopes(self.pairs - mean.pairs.mT, conjugated=self.conjugated)

    def tensor(self) -> Tensor:
        """Complex [b, k, d]."""
        x, y = self.pairs.unflatten(-2, (-1, 2)).unbind(-2)
        return torch.complex(x, -y if self.conjugated else y).mT


class Mean(Layout):
    """One vector for each point, [b, d], as pairs [b, 1, 2d]."""

    def __init__(self, pairs: Tensor, *, conjugated: bool):
        self.pairs, self.conjugated = pairs, conjugated

    def unsqueeze(self, axis: int) -> Mean:
        """The same for every component."""
        assert axis == -2
        return self

    def tensor(self) -> Tensor:
        """Complex [b, d]."""
        out = torch.view_as_complex(self.pairs.squeeze(-2).unflatten(-1, (-1, 2)))
        return out.conj() if self.conjugated else out


class Gram(Layout):
    """Σ_k w_k s̄ sᵀ [b, d, d] of s = x + iy, from the real Σ_k w_k (x, y)(x, y)ᵀ [b, 2d, 2d].

    It is Hermitian, Σ w (x_a x_b + y_a y_b) + i Σ w (x_a y_b - y_a x_b); or its conjugate.
    """

    def __init__(self, real: Tensor, *, conjugated: bool):
        self.real, self.conjugated = real, conjugated

    @property
    def mT(self) -> Gram:
        """The transpose: its conjugate."""
        return Gram(self.real, conjugated=not self.conjugated)

    def conj(self) -> Gram:
        """The conjugate."""
        return self.mT

    def added_to(self, other: Tensor, sign: int) -> Tensor:
        """The other, plus or minus this."""
        b, d = len(self.real), self.real.shape[-1] // 2
        of_x, of_y = torch.view_as_complex(self.real.reshape(b, d, 2, d, 2)).unbind(2)
        if self.conjugated:
            of_x, of_y = of_x.conj(), -of_y.conj()
        return torch.add(torch.add(other, of_x, alpha=sign), of_y, alpha=-1j * sign)

    def __add__(self, other: Tensor | Sum) -> Tensor:
        return self.added_to(other.tensor() if isinstance(other, Sum) else other, 1)

    __radd__ = __add__

    def __rsub__(self, other: Tensor) -> Tensor:
        return self.added_to(other, -1)

    def tensor(self) -> Tensor:
        """Complex [b, d, d]."""
        d = self.real.shape[-1] // 2
        return self.added_to(self.real.new_zeros(d, d, dtype=self.real.dtype.to_complex()), 1)


class Sum(Layout):
    """Σ_k w_k X_k [b, d, d] of precisions X, formed when a :class:`Gram` is added to it.

    By then the slopes have left the cache, where they would have been in the way before.
    """

    def __init__(self, weights: Tensor, precisions: Precisions):
        self.weights, self.precisions = weights, precisions

    def __add__(self, gram: Gram) -> Tensor:
        return gram.added_to(self.tensor(), 1)

    def __sub__(self, gram: Gram) -> Tensor:
        return gram.added_to(self.tensor(), -1)

    def tensor(self) -> Tensor:
        """Complex [b, d, d]."""
        out = self.precisions.components.mean_metric(self.weights, self.precisions.some)
        return out if self.precisions.transposed else out.mT


# ------------------------------------------------------------------ products that layouts know


def _by_precision(offsets: Offsets, precisions: Precisions, transposed: bool) -> Slopes | None:
    """Σ_a u_a X[a, b] with X = P, or with its transpose: P u where X is Pᵀ."""
    if offsets.conjugated or precisions.transposed == transposed:
        return None
    return Slopes(offsets.plain.slopes, conjugated=False)


def _form(slopes: Slopes, offsets: Offsets) -> Tensor | None:
    """Σ_a (P u)_a ū_a, which is real."""
    own = slopes.pairs is offsets.plain.slopes
    return offsets.plain.forms if own and offsets.conjugated and not slopes.conjugated else None


def _mean(weights: Tensor, slopes: Slopes) -> Mean:
    mean = weights.unsqueeze(-2) @ slopes.pairs.mT
    return Mean(mean, conjugated=slopes.conjugated)


def _weighted(weights: Tensor, slopes: Slopes) -> Slopes:
    multiples = weights.unsqueeze(-2) * slopes.pairs
    return Slopes(multiples, conjugated=slopes.conjugated, weighted=slopes.pairs)


def _gram(left: Slopes, right: Slopes) -> Gram | None:
    """Σ_k left_a right_b, of vectors and their own multiples' conjugates alone."""
    if left.conjugated == right.conjugated or left.weighted is not right.pairs:
        return None
    return Gram(left.pairs @ right.pairs.mT, conjugated=right.conjugated)


Product = Callable[..., Any]  # None where it does not know these operands

_KINDS: dict[type, type] = {t: t for t in (Offsets, Precisions, Slopes, Mean, Gram, Sum)}
_PRODUCTS: dict[tuple[str | type, ...], Product] = {
    ("...a,...ba->...b", Offsets, Precisions): lambda u, p: _by_precision(u, p, True),
    ("...a,...ab->...b", Offsets, Precisions): lambda u, p: _by_precision(u, p, False),
    ("...a,...a->...", Slopes, Offsets): _form,
    ("...a,...ab->...b", Tensor, Slopes): _mean,
    ("...a,...ab->...ab", Tensor, Slopes): _weighted,
    ("...ab,...ac->...bc", Slopes, Slopes): _gram,
    ("...a,...abc->...bc", Tensor, Precisions): Sum,
    ("...ab->...ba", Precisions): lambda p: p.mT,
    ("...ab->...ba", Gram): lambda g: g.mT,
}


class _Torch:
    """What kernels on layouts call ``torch``."""

    @staticmethod
    def einsum(equation: str, *operands: Any) -> Any:
        """torch.einsum of tensors and layouts."""
        known = _PRODUCTS.get((equation, *[_KINDS.get(type(o), Tensor) for o in operands]))
        found = None if known is None else known(*operands)
        return torch.einsum(equation, *map(_plain, operands)) if found is None else found

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _plain(x: Tensor | Layout) -> Tensor:
    return x.tensor() if isinstance(x, Layout) else x


@lru_cache(maxsize=256)
def on_layouts(kernel: FunctionType) -> Callable[..., Any]:
    """The kernel, its very code, for layouts in place of some of its tensors."""
    return FunctionType(kernel.__code__, {**kernel.__globals__, "torch": _Torch()})
