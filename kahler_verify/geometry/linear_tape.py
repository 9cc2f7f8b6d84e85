"""What is linear in a vector, recorded once and run again without all that does not depend on it.

A tangent u ↦ J u through a function at a fixed point takes the function's own values, too.  Those
are the same for every u: of the torch operations that one call makes, only such as see u are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["LinearTape", "Transposed", "UnrecordableError"]

Letters = dict[str, Tensor]


class UnrecordableError(RuntimeError):
    """An operation's effect on a vector cannot be repeated."""


class _Place:
    """Where a tensor that depends on u stands, among all."""

    def __init__(self, number: int):
        self.number = number


class _Recorder(TorchDispatchMode):
    """Keeps each operation that takes what depends on u, in the order of calls."""

    def __init__(self, u: Tensor) -> None:
        super().__init__()
        self.steps: list[tuple[Callable[..., Any], Any, Any, list[int]]] = []
        self.places: Any = WeakTensorKeyDictionary({u: 0})
        self.count = 1

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to skip torch.compile's tracer is to import all of it, which takes a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        varies = any(self.place(x) is not x for x in _leaves([args, list(kwargs.values())]))
        if varies and func._schema.is_mutable:
            _require_written_varies(func._schema, args, kwargs, self.places)
        placed = [_replaced(args, self.place), {n: self.place(x) for n, x in kwargs.items()}]
        out = func(*args, **kwargs)
        if not varies or (out is None and not func._schema.is_mutable):  # nothing, or a look at it
            return out
        found = _leaves([out])
        if not all(isinstance(x, Tensor) for x in found):
            raise UnrecordableError(f"{func} returns no tensor")
        for x in found:
            if x not in self.places:
                self.places[x] = self.count
                self.count += 1
        self.steps.append((func, placed[0], placed[1], [self.places[x] for x in found]))
        return out

    def place(self, x: Any) -> Any:
        """A tensor, or where it stands if it depends on u."""
        known = self.places.get(x) if isinstance(x, Tensor) else None
        return x if known is None else _Place(known)


def _leaves(x: Any) -> list[Any]:
    """What stands in lists and tuples."""
    if isinstance(x, list | tuple):
        return [leaf for each in x for leaf in _leaves(each)]
    return [x]


def _replaced(x: Any, by: Callable[[Any], Any]) -> list[Any]:
    """Arguments with each that stands in them, or in lists of them, replaced."""
    return [_replaced(a, by) if isinstance(a, list | tuple) else by(a) for a in x]


def _require_written_varies(schema: Any, args: Any, kwargs: Any, places: Any) -> None:
    for number, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = args[number] if number < len(args) else kwargs.get(argument.name)
        for x in _leaves(given):
            if isinstance(x, Tensor) and x not in places:
                raise UnrecordableError(f"{schema.name} writes to what did not depend on u")


class _Step:
    """An operation, with what is put among its arguments before it runs again."""

    def __init__(
        self, func: Callable[..., Any], args: Any, kwargs: Any, out: list[int], spent: list[int]
    ) -> None:
        self._func, self._args, self._kwargs = func, list(args), dict(kwargs)
        self._varying = [k for k, x in enumerate(args) if _has_places(x)]
        self._named = [name for name, x in kwargs.items() if _has_places(x)]
        self._out, self._spent = out, spent

    def run(self, found: list[Any]) -> None:
        """Read from places, and write to them."""
        args, kwargs = self._args.copy(), self._kwargs

        def value(x: Any) -> Any:
            return found[x.number] if isinstance(x, _Place) else x

        for k in self._varying:
            args[k] = _replaced([args[k]], value)[0]
        if self._named:
            filled = _replaced([kwargs[name] for name in self._named], value)
            kwargs = kwargs | dict(zip(self._named, filled, strict=True))
        out = self._func(*args, **kwargs)
        for place, x in zip(self._out, _leaves(out), strict=True):
            found[place] = x
        for place in self._spent:
            found[place] = None


def _has_places(x: Any) -> bool:
    return any(isinstance(leaf, _Place) for leaf in _leaves(x))


class LinearTape:
    """J u of vectors like one u, by the operations that one call made.

    Args:
        push: u ↦ J u by name, without autograd.
        u: a vector.

    Attributes:
        first: J u of this one.

    Raises:
        UnrecordableError: the call asks for numbers of u, or writes them where nothing follows.
    """

    def __init__(self, push: Callable[[Tensor], Letters], u: Tensor):
        u = u.detach().clone()
        with torch.no_grad(), _Recorder(u) as recorder:
            self.first = push(u)
        places = recorder.places
        self._constant = {name: x for name, x in self.first.items() if x not in places}
        self._ends = {name: places[x] for name, x in self.first.items() if x in places}
        last: dict[int, int] = {}  # the step behind which a place is not read any more
        for number, (_, args, kwargs, out) in enumerate(recorder.steps):
            every = _leaves([args, list(kwargs.values())])
            read = [x.number for x in every if isinstance(x, _Place)]
            last |= dict.fromkeys([*read, *out], number)
        kept = set(self._ends.values())
        spent: list[list[int]] = [[] for _ in recorder.steps]
        for place, number in last.items():
            if place not in kept:
                spent[number].append(place)
        self._steps = [
            _Step(func, args, kwargs, out, some)
            for (func, args, kwargs, out), some in zip(recorder.steps, spent, strict=True)
        ]
        self._count = recorder.count

    @torch.no_grad()
    def __call__(self, u: Tensor) -> Letters:
        """J u."""
        return self._run(u)

    def _run(self, u: Tensor) -> Letters:
        found: list[Any] = [None] * self._count
        found[0] = u
        for step in self._steps:
            step.run(found)
        zeros = {name: torch.zeros_like(x) for name, x in self._constant.items()}
        return zeros | {name: found[place] for name, place in self._ends.items()}

    def transposed(self, u: Tensor) -> Transposed:
        """Jᵀ, by reverse mode through the operations, which run once more, on u."""
        with torch.enable_grad():
            u = u.detach().clone().requires_grad_()
            return Transposed(u, self._run(u))


class Transposed:
    """Jᵀ w by a backward pass through operations that are linear in u.

    What it keeps is what a tape keeps, and what the tape's products take of u.

    Args:
        u: where the operations ran; Jᵀ is the same anywhere.
        letters: J u by name, recorded by autograd.

    Attributes:
        letters: J u without autograd.
    """

    def __init__(self, u: Tensor, letters: Letters):
        self._u, self._ends = u, {n: x for n, x in letters.items() if x.requires_grad}
        self.letters = {name: x.detach() for name, x in letters.items()}

    def __call__(self, covectors: Mapping[str, Tensor]) -> Tensor:
        """Jᵀ w, of one covector w."""
        if not self._ends:  # nothing depends on u
            return torch.zeros_like(self._u)
        (out,) = torch.autograd.grad(
            list(self._ends.values()),
            self._u,
            [covectors[name] for name in self._ends],
            retain_graph=True,
            materialize_grads=True,
        )
        return out
