"""How much of a result is rounding error: measured by repeating it with other rounding.

A potential's kernels are differences near its poles and far out, and where large terms cancel, what
is left is noise.  Nothing in the result shows it, but noise is not smooth: of f at z and at two
points some units in the last place to either side, the second difference f₊ + f₋ - 2 f is that of
the rounding errors, as f itself is linear there.

It is taken at a few points of a batch: those with the largest and the least results, and those
farthest out and farthest in; and only where these lie beyond all that were found sound before.  So
most calls cost two reductions, and others one more evaluation, of at most 36 points.

Infinities inside a formula leave no noise: 1/∞ is a clean 0.  The farthest point of a batch, where
it lies beyond those before, is evaluated while each operation is asked for infinities.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kahler_verify.errors import InputError

PAIRS = 4
STEP = 8  # units in the last place of z
TOLERATED = 1e-3  # of a result, before anything is said


# Infinite where they should be: at poles.
POLES = {"log", "log1p", "log2", "div", "reciprocal", "rsqrt", "pow", "atanh", "digamma", "lgamma"}


class RoundingWarning(UserWarning):
    """A result is rounding error to more than a thousandth, or an infinity was lost inside it."""


# From g's size and |z| to that of a quantity where curvature is one; None for logarithms.
UNITS: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "log_det_hermitian": None,
    "log_volume": None,
    "chern_connection": lambda _, length: 1 / length.clamp_min(1),
    "chern_curvature": lambda g, _: g * g,
    "chern_ricci": lambda g, _: g,
    "chern_scalar": lambda g, _: torch.ones_like(g),
    "holomorphic_sectional": lambda g, _: torch.ones_like(g),
}


@dataclass(frozen=True)
class Rounding:
    """Whether a quantity of a metric g is rounding error.

    Attributes:
        quantity: a key of ``UNITS``.
        compute: the quantity [n, …] of points [n, d] and of vectors like them, without checks.
        metric: g of points.
        plain: the same by operations that can be watched one by one.
        sound: the ranges of results and of lengths that were found sound, by quantity and dtype;
            kept from call to call, and added to.
    """

    quantity: str
    compute: Callable[..., Tensor]
    metric: Callable[[Tensor], Tensor]
    plain: Callable[[Tensor], Tensor]
    sound: dict[Hashable, list[float]]

    @torch.no_grad()
    def watch(self, z: Tensor, out: Tensor, *vectors: Tensor) -> None:
        """Warn where ``out`` [..., …], of z [..., d], is noise to more than a thousandth.

        Raises:
            InputError: g itself is nothing but noise.
        """
        d = z.shape[-1]
        batch = torch.broadcast_shapes(z.shape[:-1], *[v.shape[:-1] for v in vectors])
        if out.shape[: len(batch)] != batch or out.numel() == 0:
            return
        z, out = z.detach().expand(*batch, d).reshape(-1, d), out.detach()
        sizes = out.abs().reshape(len(z), -1).amax(-1)
        lengths = z.abs().amax(-1)
        key = (self.quantity, z.dtype, d)
        extremes = torch.stack([-sizes.amin(), sizes.amax(), -lengths.amin(), lengths.amax()])
        reached = extremes.tolist()
        if key in self.sound and all(x <= y for x, y in zip(reached, self.sound[key], strict=True)):
            return
        watch_range(self.quantity, self.plain, z, self.sound)
        some = torch.stack([f(x) for x in (sizes, lengths) for f in (torch.argmax, torch.argmin)])
        some = some.unique()
        z, sizes, lengths = z[some], sizes[some], lengths[some]
        others = [v.detach().expand(*batch, d).reshape(-1, d)[some] for v in vectors]
        around = _around(z)
        noise = _noise(self.compute(_joined(z, around), *[_repeated(v) for v in others]), len(z))
        allowed = torch.full_like(noise, TOLERATED)
        units = UNITS[self.quantity]
        suspicious = ~(noise <= (allowed if units is None else allowed * sizes))
        if not bool(suspicious.any()):
            before = self.sound.get(key, reached)
            self.sound[key] = [max(x, y) for x, y in zip(reached, before, strict=True)]
            return
        g = self.metric(z)
        scale = g.diagonal(dim1=-2, dim2=-1).real
        if units is not None:
            least = 10 * torch.finfo(z.dtype).eps ** 0.5 * units(scale.amax(-1), lengths)
            allowed = torch.maximum(allowed * sizes, least)
        suspicious = ~(noise <= allowed)
        if not bool(suspicious.any()):
            return
        self._require_more_than_noise(g, scale, around, noise)
        worst = int(torch.where(suspicious, noise.nan_to_num(torch.inf) / allowed, 0).argmax())
        where = "" if not batch else f" (point {int(some[worst])} of {batch.numel()})"
        warnings.warn(
            f"{self.quantity}: of {sizes[worst].item():.3g}, about {noise[worst].item():.2g} is "
            f"rounding error{where}: large terms cancel at this z",
            RoundingWarning,
            stacklevel=5,
        )

    def _require_more_than_noise(
        self, g: Tensor, scale: Tensor, around: Tensor, of_quantity: Tensor
    ) -> None:
        """Not if g changes as much as it is, nor if it is degenerate so near to z."""
        roots = scale.rsqrt()
        roots = roots.unsqueeze(-1) * roots.unsqueeze(-2)
        least = torch.linalg.eigvalsh(roots * g)[:, 0]
        again = self.metric(around.flatten(0, 2)).unflatten(0, around.shape[:3])
        again = (roots[:, None, None] * again).flatten(0, 2)
        noise = _noise(torch.cat([roots * g, again]), len(g))
        bad = ~(noise < 0.5 * least) | of_quantity.isnan()
        if bool(bad.any()):
            i = int(bad.nonzero()[0, 0])
            raise InputError(
                f"z: {self.quantity} needs a metric, but at z it is only rounding noise: its least "
                f"eigenvalue is {least[i].item():.2g} and its rounding error {noise[i].item():.2g},"
                " in units of its diagonal (do large terms cancel there, or is it degenerate?)"
            )


@torch.no_grad()
def watch_range(
    quantity: str,
    metric: Callable[[Tensor], Tensor],
    z: Tensor,
    sound: dict[Hashable, list[float]],
) -> None:
    """Warn where numbers overflow while g is computed, as seen at the farthest of z [..., d]."""
    points = z.detach().reshape(-1, z.shape[-1])
    if len(points) == 0:
        return
    lengths = points.abs().amax(-1)
    farthest = lengths.argmax()
    length = float(lengths[farthest])
    key = ("range", z.dtype, z.shape[-1])
    if length <= sound.get(key, [0.0])[0]:
        return
    with _Overflow() as seen:
        metric(points[farthest : farthest + 1])
    if seen.where is None:
        sound[key] = [length]
        return
    warnings.warn(
        f"{quantity}: numbers overflow inside the metric's formula (in {seen.where}) at |z| = "
        f"{length:.2g} in {z.dtype}, and the result may be wrong there: take latents of "
        "smaller size" + (", or complex128" if z.dtype == torch.complex64 else ""),
        RoundingWarning,
        stacklevel=5,
    )


class _Overflow(TorchDispatchMode):
    """Where infinities first come from finite numbers, poles apart; None where nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.where: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        arises = _is_infinite(out) and not any(_is_infinite(x) for x in args)
        if arises and self.where is None and name not in POLES:
            self.where = name
        return out


def _is_infinite(x: object) -> bool:
    return (
        isinstance(x, Tensor)
        and x.dtype.is_floating_point | x.is_complex()
        and bool(x.isinf().any())
    )


def _around(z: Tensor) -> Tensor:
    """Pairs of points [n, PAIRS, 2, d] to either side of z [n, d]."""
    generator = torch.Generator("cpu").manual_seed(0)
    shape = (PAIRS, z.shape[-1])
    turns = torch.randn(shape, dtype=torch.complex128, generator=generator, device="cpu")
    step = STEP * torch.finfo(z.dtype).eps * (turns / turns.abs()).to(z.device, z.dtype)
    moved = z.unsqueeze(1) * step
    return torch.stack([z.unsqueeze(1) + moved, z.unsqueeze(1) - moved], 2)


def _joined(z: Tensor, around: Tensor) -> Tensor:
    """Points [n, d], and then those around them, in one row."""
    return torch.cat([z, around.flatten(0, 2)])


def _repeated(v: Tensor) -> Tensor:
    """Vectors [n, d] that go with joined points."""
    return torch.cat([v, v.repeat_interleave(2 * PAIRS, 0)])


def _noise(joined: Tensor, count: int) -> Tensor:
    """Half of the largest second difference of f at joined points, [count]."""
    at, around = joined[:count].reshape(count, 1, -1), joined[count:]
    around = around.reshape(count, PAIRS, 2, -1)
    apart = (around[:, :, 0] - at) + (around[:, :, 1] - at)
    return apart.abs().amax((-2, -1)) / 2
