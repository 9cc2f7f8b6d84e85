"""Functions of the latents to first or second order: a value with its derivatives along directions.

Derivatives are stacked in front: along r directions v_1, …, v_r they are ``first`` [r, *value's
shape], and those of second order one row for each pair of directions that is wanted, ``second``
[p, *value's shape].  So a linear map acts on all rows at once.  What vanishes identically (second
derivatives before the first activation) is None, and costs nothing.

Derivatives that are the same for all points of the batch, as those behind first linear layers are,
stay one row that is expanded along the batch axis, without memory; maps that act on each point
alone are applied to that one row.

Of complex latents, directions are complex as long as everything is holomorphic: f has one row
f′(z) v for each v.  The first function that is not makes them real directions, v and iv.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.products import in_forward_mode, is_transformed, product
from kahler_verify.rules.frame import Frame, pairs
from kahler_verify.torch_state import in_autocast, outside_autocast

__all__ = ["Expansion", "Head", "aligned", "real_directions", "realigned"]


@dataclass(frozen=True)
class Head:
    """A last linear map h ↦ h Wᵀ + b that is not multiplied out, or its real part.

    Attributes:
        hidden: h [..., n].
        weight: W [m, n].
        bias: b [m].
        real: is it the real part?
    """

    hidden: Expansion
    weight: Tensor
    bias: Tensor | None
    real: bool = False
    _written: list[int] = field(init=False, compare=False, repr=False)
    _cast: bool = field(init=False, compare=False, repr=False)  # was it called under autocast?

    def __post_init__(self) -> None:
        object.__setattr__(self, "_written", self._writes())
        object.__setattr__(self, "_cast", in_autocast(self.weight.device))

    def _writes(self) -> list[int]:
        """How often torch has written the weights; tensors of inference mode have no count."""
        own = [self.weight] if self.bias is None else [self.weight, self.bias]
        return [0 if t.is_inference() else t._version for t in own]

    def changed(self, **parts: Any) -> Head:
        """One of these with other parts."""
        self.require_unwritten()
        return replace(self, **parts)

    def require_unwritten(self) -> None:
        """Raise :class:`InputError` where torch has counted a write of the weights since."""
        if self._writes() != self._written:
            raise InputError(
                "expected the weights of a linear layer to stay as they are until what it gave has "
                "been read, but they were written in place meanwhile"
            )

    def _as_called(self) -> AbstractContextManager[None]:
        self.require_unwritten()
        return nullcontext() if self._cast else outside_autocast()

    @property
    def outside(self) -> Tensor:
        """A tensor of the value's shape and kind, without its numbers."""
        value = self.hidden.outside
        number = value.new_zeros(())
        return number.expand(*value.shape[:-1], len(self.weight))

    @torch.no_grad()
    def value(self) -> Tensor:
        """W h + b, of a head that is not a real part."""
        with self._as_called():
            return functional.linear(self.hidden.value, self.weight, self.bias)

    def multiplied_out(self) -> tuple[Tensor | None, Tensor | None]:
        """First and second derivatives of W h."""
        hidden = self.hidden
        through = by_point(lambda t: product(t, self.weight))
        with self._as_called():
            first, second = (None if r is None else through(r) for r in hidden.rows)
        if not self.real:
            return first, second
        whole = real_directions(Expansion(hidden.value, first, second, hidden.frame))
        first, second = (None if r is None else r.real for r in whole.rows)
        return first, second


class Expansion:
    """A value with its derivatives; behind a linear map these wait until someone asks for them.

    There the value may wait as well (None), if it is to have no graph.  A constant that multiplies
    first derivatives may wait too, for the slope of an activation that does.

    Attributes:
        frame: which derivatives there are.
        head: the linear map that the value came from, where it did.
    """

    __slots__ = ("_factor", "_first", "_second", "_value", "frame", "head")

    def __init__(
        self,
        value: Tensor | None,
        first: Tensor | None,
        second: Tensor | None,
        frame: Frame,
        head: Head | None = None,
        factor: Tensor | None = None,
    ) -> None:
        self._value, self.frame, self.head = value, frame, head
        self._first, self._second, self._factor = first, second, factor

    @property
    def value(self) -> Tensor:
        """Of any shape."""
        if self._value is None:
            assert self.head is not None
            self._value = self.head.value()
        return self._value

    @property
    def outside(self) -> Tensor:
        """A tensor of the value's shape, dtype and place: the value, unless that waits."""
        if self._value is None:
            assert self.head is not None
            return self.head.outside
        return self._value

    def _multiply_out(self) -> None:
        if self.head is not None and self._first is None:
            self._first, self._second = self.head.multiplied_out()
        if self._factor is not None:
            first, second = (
                None if r is None else r * self._factor for r in (self._first, self._second)
            )
            self._first, self._second, self._factor = first, second, None

    @property
    def rows_before_factor(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """First and second derivatives, and what they are still to be multiplied with, if any."""
        if self._factor is None:
            return *self.rows, None
        return self._first, self._second, self._factor

    @property
    def first(self) -> Tensor | None:
        """[r, *shape]."""
        self._multiply_out()
        return self._first

    @property
    def second(self) -> Tensor | None:
        """[p, *shape]."""
        self._multiply_out()
        return self._second

    @property
    def varies(self) -> bool:
        """Is a derivative known not to vanish?"""
        return self._first is not None or (self.head is not None and self.head.hidden.varies)

    @property
    def waiting_head(self) -> Head | None:
        """The head, where derivatives still wait for it."""
        return self.head if self._first is None else None

    @property
    def rows(self) -> tuple[Tensor | None, Tensor | None]:
        """First and second derivatives."""
        return self.first, self.second

    def with_value(self, value: Tensor) -> Expansion:
        """The same derivatives of another value: the very one that torch has, to the last bit."""
        return Expansion(value, self._first, self._second, self.frame, self.head, self._factor)

    def constant(self, value: Tensor) -> Expansion:
        """A value whose derivatives vanish."""
        return Expansion(value, None, None, self.frame)


Rows = Callable[[Callable[[Tensor], Any]], Callable[[Tensor], Any]]


def by_vmap(f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """A linear map of values, for rows of them."""
    return torch.vmap(f)


def by_point(f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """The same of a map that acts on each entry of a value's first axis alone: rows join it."""

    def act(rows: Tensor) -> Tensor:
        same = rows.shape[1] > 1 and rows.stride(1) == 0
        lean = rows[:, :1] if same else rows
        out = f(lean.flatten(0, 1)).unflatten(0, lean.shape[:2])
        return out.expand(-1, rows.shape[1], *out.shape[2:]) if same else out

    return act


def lifted(rows: Tensor, ndim: int) -> Tensor:
    """Rows of a stack that is to be broadcast against one of more axes."""
    for _ in range(ndim + 1 - rows.ndim):
        rows = rows.unsqueeze(1)
    return rows


def linear(
    f: Callable[[Tensor], Any], x: Expansion, rows: Rows = by_vmap, value: Any = None
) -> Any:
    """A linear map, or the linear part of an affine one whose value is given."""
    value = f(x.value) if value is None else value
    first, second = (None if r is None else rows(f)(r) for r in x.rows)
    if isinstance(value, Tensor):
        return Expansion(value, first, second, x.frame)
    none = [None] * len(value)
    parts = zip(
        value, none if first is None else first, none if second is None else second, strict=True
    )
    return tuple(Expansion(v, d, dd, x.frame) for v, d, dd in parts)


def chain(x: Expansion, value: Tensor, slope: Tensor, curvature: Tensor | None = None) -> Expansion:
    """f∘x entry by entry, from the values of f, f′ and f″ (None where that vanishes) at x."""
    first, second, factor = x.rows_before_factor
    if first is None:
        return x.constant(value)
    slope = _lying_like(first, slope if factor is None else slope * factor)
    out = None if second is None else second * slope
    if x.frame.order == 2 and curvature is not None:
        left, right = x.frame.pair_up(first)
        square = left * right * _lying_like(first, curvature)
        out = square if out is None else out + square
    return Expansion(value, first * slope, out, x.frame)


def without_graph(*tensors: Tensor) -> bool:
    """Is there neither autograd nor a transform that follows what is made of these?"""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    return not (is_transformed(*tensors) or in_forward_mode())


def _lying_like(rows: Tensor, factor: Tensor) -> Tensor:
    """A factor of all rows, with channels last where theirs are: passes over both are faster."""
    last = rows.ndim == 5 and rows.stride(2) == 1 < rows.stride(4)
    if last and factor.shape == rows.shape[1:] and not is_transformed(rows, factor):
        return factor.contiguous(memory_format=torch.channels_last)
    return factor


def multilinear(
    f: Callable[..., Tensor], *factors: Expansion | Tensor, rows: Any = None
) -> Expansion:
    """Leibniz's rule: f is linear in each of its arguments.

    ``rows`` applies f where some arguments have rows in front; without it that is left to vmap.
    """
    terms = aligned(factors)
    frame = next(x.frame for x in terms if isinstance(x, Expansion))
    values = [x.value if isinstance(x, Expansion) else x for x in terms]
    varying = {k: x for k, x in enumerate(terms) if isinstance(x, Expansion)}
    first = {k: x.first for k, x in varying.items() if x.first is not None}
    rows = rows or _by_vmap_of_several

    def at(changes: dict[int, Any]) -> Tensor:
        return rows(f, [changes.get(k, v) for k, v in enumerate(values)], set(changes))

    sums = [at({k: v}) for k, v in first.items()]
    if frame.order == 1 or not first:
        return Expansion(f(*values), total(sums), None, frame)
    bent = [at({k: terms[k].second}) for k in first if terms[k].second is not None]
    for a, b in combinations(first, 2):
        (i, j), (p, q) = frame.pair_up(first[a]), frame.pair_up(first[b])
        if frame.second == "along":
            bent.append(2 * at({a: i, b: p}))
        else:
            bent += [at({a: i, b: q}), at({a: j, b: p})]
    return Expansion(f(*values), total(sums), total(bent), frame)


def _by_vmap_of_several(
    f: Callable[..., Tensor], arguments: list[Any], with_rows: set[int]
) -> Tensor:
    dims = tuple(0 if k in with_rows else None for k in range(len(arguments)))
    return torch.vmap(f, in_dims=dims)(*arguments)


def total(terms: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of what does not vanish."""
    present = [t for t in terms if t is not None]
    if not present:
        return None
    out = present[0]
    for each in present[1:]:
        out = out + each
    return out


# Complex and real directions


def real_directions(x: Expansion) -> Expansion:
    """Derivatives along v and iv, from those of a holomorphic function along v."""
    if not x.frame.holomorphic:
        return x
    first, second = x.rows
    frame = x.frame.real()
    if first is not None:
        first = torch.cat([first, 1j * first])
    if second is not None and frame.second == "all":
        r = x.frame.directions
        i, j = pairs(2 * r, second.device)
        low, high = torch.minimum(i % r, j % r), torch.maximum(i % r, j % r)
        row = low * r - low * (low - 1) // 2 + high - low  # of the pair among those of r
        turned = torch.tensor([1, 1j, -1], dtype=second.dtype, device=second.device)
        phase = turned[(i >= r).long() + (j >= r).long()]
        second = second.index_select(0, row) * phase.reshape(-1, *[1] * (second.ndim - 1))
    return Expansion(x.value, first, second, frame)


def aligned(arguments: Sequence[Any]) -> list[Any]:
    """The same with all expansions along the same directions: real ones if some are."""
    frames = {x.frame for x in arguments if isinstance(x, Expansion)}
    if len(frames) < 2:
        return list(arguments)
    return realigned(arguments)


def realigned(arguments: Sequence[Any]) -> list[Any]:
    """The same with all expansions along real directions."""
    return [real_directions(x) if isinstance(x, Expansion) else x for x in arguments]
