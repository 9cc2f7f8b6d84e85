"""Jets through a module as it stands: its own forward runs once, on a tensor with derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from kahler_verify.errors import InputError
from kahler_verify.jets.outputs import joined, transform
from kahler_verify.jets.tensor import Jet
from kahler_verify.rules.expansion import Expansion
from kahler_verify.rules.frame import Frame, Record

__all__ = ["propagate"]


def propagate(
    module: Callable[[Tensor], Any],
    z: Tensor,
    order: int = 1,
    directions: Tensor | None = None,
    *,
    along: bool = False,
    acceleration: Tensor | None = None,
    chunk_size: int | None = None,
) -> Any:
    """What ``module`` returns at z, with derivatives by z.

    The module's own code is run: subclasses, hooks and parametrisations count.  Results can be
    differentiated with respect to its weights, and to z.

    Args:
        module: any module or function that acts on each point of a batch alone.
        z: [B, ...] real or complex, of any shape behind the batch.
        order: 1, or 2 for second derivatives as well.
        directions: [B or 1, r, ...] to differentiate along; all coordinates of z by default.
        along: with order 2, the second derivative along each direction alone, not of all pairs: of
            z(t) with velocity ``directions``.  Directions of complex z are real ones then.
        acceleration: [B or 1, r, ...] of z(t), 0 by default; with ``along``.
        chunk_size: how many points go through at once; all by default.  Convolutions are fastest
            where points times directions are about a hundred, which stay in a processor's cache.

    Returns:
        The module's own structure (tuples, dictionaries, dataclasses, distributions) with a
        :class:`Jet` in the place of each tensor.

    Raises:
        InputError: an argument is malformed, a layer is random or mixes points, or the module does
            what jets cannot follow.
    """
    _check(z, order, directions, along, acceleration)
    record = Record(gradients_wanted=torch.is_grad_enabled())
    if len(z) == 0 or chunk_size is None or chunk_size >= len(z):
        return _through(module, z, order, directions, along, acceleration, record)
    pieces = []
    for start in range(0, len(z), chunk_size):
        cut = slice(start, start + chunk_size)
        own = [t if t is None or len(t) == 1 else t[cut] for t in (directions, acceleration)]
        pieces.append(_through(module, z[cut], order, own[0], along, own[1], record))
    return joined(pieces)


def _check(z: Any, order: int, directions: Any, along: bool, acceleration: Any) -> None:
    if not isinstance(z, Tensor) or isinstance(z, Jet) or z.ndim < 2:
        got = f"shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise InputError(f"z: expected a tensor [B, ...] with at least two axes, got {got}")
    if not (z.is_floating_point() or z.is_complex()):
        raise InputError(f"z: expected real or complex numbers, got {z.dtype}")
    if order not in (1, 2):
        raise InputError(f"order: expected 1 or 2, got {order!r}")
    if along and (order != 2 or directions is None):
        raise InputError("along: expected order=2 and directions with it")
    if acceleration is not None and not along:
        raise InputError("acceleration: expected along=True with it")
    for name, rows in (("directions", directions), ("acceleration", acceleration)):
        if rows is None:
            continue
        fits = isinstance(rows, Tensor) and rows.ndim == z.ndim + 1 and len(rows) in (1, len(z))
        if not fits or rows.shape[2:] != z.shape[1:] or rows.dtype != z.dtype:
            got = f"{tuple(rows.shape)}, {rows.dtype}" if isinstance(rows, Tensor) else repr(rows)
            raise InputError(
                f"{name}: expected [{len(z)} or 1, r, {', '.join(map(str, z.shape[1:]))}], "
                f"{z.dtype}, got {got}"
            )
    if acceleration is not None and acceleration.shape[1] != directions.shape[1]:
        raise InputError(
            f"acceleration: expected one for each of {directions.shape[1]} directions, "
            f"got {acceleration.shape[1]}"
        )


def _through(
    module: Callable[[Tensor], Any],
    z: Tensor,
    order: int,
    directions: Tensor | None,
    along: bool,
    acceleration: Tensor | None,
    record: Record,
) -> Any:
    first = _coordinates(z) if directions is None else _rows(directions, z)
    second = None if acceleration is None else _rows(acceleration, z)
    kind: Any = "none" if order == 1 else "along" if along else "all"
    frame = Frame(len(first), kind, z.is_complex() and not along, record)
    seed = Jet(Expansion(z, first, second, frame))
    try:
        with _without_validation():
            outputs = module(seed)
    except InputError as error:
        raise InputError(f"{error}{_training_layer(module)}") from error
    return transform(outputs, lambda t: _complete(t) if isinstance(t, Jet) else _constant(t, frame))


def _complete(jet: Jet) -> Jet:
    """With all that waited: whoever gets it may ask under other circumstances."""
    _ = jet.value, jet.expansion.rows
    return jet


@contextmanager
def _without_validation() -> Iterator[None]:
    """Checks of torch's distributions read values, and would be taken for what the module does."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def _constant(t: Tensor, frame: Frame) -> Any:
    return Jet(Expansion(t, None, None, frame)) if t.is_floating_point() or t.is_complex() else t


def _coordinates(z: Tensor) -> Tensor:
    n = z[0].numel() if len(z) else z.new_empty(z.shape[1:]).numel()
    rows = torch.eye(n, dtype=z.dtype, device=z.device).reshape(n, 1, *z.shape[1:])
    return rows.expand(n, *z.shape)


def _rows(directions: Tensor, z: Tensor) -> Tensor:
    rows = directions.movedim(1, 0)
    return rows.expand(len(rows), *z.shape)


def _training_layer(module: Any) -> str:
    """The first layer that is random, or mixes points, in training mode."""
    if isinstance(module, nn.Module):
        kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
        for name, layer in module.named_modules():
            if layer.training and isinstance(layer, kinds):
                return f" (the layer {name!r}: {layer})"
    return ""
