"""One name for two metrics, that of complex and that of real latents."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.riemannian import RiemannianMetric

R = TypeVar("R")


def by_latents(method: Callable[..., R], point: str = "z") -> Callable[..., R]:
    """The method of that name of the metric on a point's space, by the dtype of that argument.

    Complex z is answered by the method of ``HermitianMetric``, real z by that of
    ``RiemannianMetric`` on ``self.on_real_latents``; where one has no such method, z of that kind
    raises :class:`InputError`.

    Args:
        method: of either class; its name, signature and description are taken.
        point: the name of the argument that decides.
    """
    name = method.__name__
    of_complex = getattr(HermitianMetric, name, None)
    of_real = getattr(RiemannianMetric, name, None)
    place = list(inspect.signature(method).parameters).index(point) - 1  # behind self

    @wraps(method)
    def dispatched(self: Any, *args: Any, **named: Any) -> R:
        if point not in named and place >= len(args):
            return method(self, *args, **named)  # which Python refuses
        z = named[point] if point in named else args[place]
        if not isinstance(z, Tensor) or not (z.is_complex() or z.is_floating_point()):
            got = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise InputError(
                f"{point}: expected a complex tensor [..., d], or a real floating-point one, "
                f"got {got}"
            )
        found, owner = (of_complex, self) if z.is_complex() else (of_real, self.on_real_latents)
        if found is None:
            kinds = ("complex", "real") if z.is_complex() else ("real", "complex")
            raise InputError(
                f"{point}: {name} is defined at {kinds[1]} latents alone, got {kinds[0]} ones, "
                f"{z.dtype}"
            )
        if owner is not self:
            return getattr(owner, name)(*args, **named)
        out: R = found(owner, *args, **named)
        return out

    return dispatched
