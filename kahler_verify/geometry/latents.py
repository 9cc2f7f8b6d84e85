"""One name for two metrics, that of complex and that of real latents; and each point alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.jets.gaussian_outputs import at_least_one

R = TypeVar("R")
AGREEMENT = 1e4  # units in the last place: a product of a batch rounds otherwise than one of a row


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
        out: R = found(owner, *args, **named)
        return out

    return dispatched


def require_each_point_alone(
    name: str, values: Callable[[Tensor], Sequence[Tensor]], z: Tensor
) -> None:
    """Compare a batch of a few points of z [B, d] with each of them.

    Raises:
        InputError: values [B, ...] differ, so that no point has a metric of its own.
    """
    with torch.no_grad():
        some = at_least_one(z.detach())[:3]
        some = torch.cat([some, some[:1] * 1.125 + 0.125])
        together = values(some)
        for i in range(len(some)):
            for batch, single in zip(together, values(some[i : i + 1]), strict=True):
                gap = (batch[i] - single[0]).abs().amax()
                size = torch.maximum(batch[i].abs().amax(), single[0].abs().amax())
                if bool(gap > AGREEMENT * torch.finfo(batch.dtype).eps * size):
                    raise InputError(
                        f"{name}: expected a function of each point alone that is the same in each "
                        f"call, but at a point in a batch of {len(some)} and at the point by itself"
                        f" it differs by {gap.item():.3g} (does it use other points of the batch, "
                        "as a mean or a normalisation over it, or is it random?)"
                    )
