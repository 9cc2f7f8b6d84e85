"""Whether a potential's parameters are what its derivation says: their axes, and their values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.products import is_transformed

# Of an input: its trailing axes, by the derivation's names or as numbers, and its traits.
Expected = tuple[tuple[str, ...], tuple[str, ...]]


def check_shapes(expected: Mapping[str, Expected], tensors: Mapping[str, Tensor]) -> None:
    """Trailing axes that a derivation names alike have one size; none is broadcast.

    The first tensor fixes the size of its axes for those after it.

    Raises:
        InputError: an axis is missing, or has another size.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, x in tensors.items():
        axes, _ = expected.get(name, ((), ()))
        shape = f"[..., {', '.join(axes)}]" if axes else "[...]"
        found = x.shape[max(0, x.ndim - len(axes)) :]
        if len(found) < len(axes):
            raise InputError(f"{name}: expected shape {shape}, got {list(x.shape)}")
        for axis, size in zip(axes, found, strict=True):
            if axis.isdigit():
                wanted, reason = int(axis), ""
            elif axis.isidentifier():
                wanted, first = sizes.setdefault(axis, (size, name))
                reason = f" with {axis} = {wanted} as for {first}"
            else:  # a formula of dimensions
                continue
            if size != wanted:
                raise InputError(f"{name}: expected shape {shape}{reason}, got {list(x.shape)}")


def mover(
    device: Any, dtype: torch.dtype | None, *, complex_latents: bool
) -> Callable[[Tensor], Tensor]:
    """What moves a metric's tensors to a device and to the dtype of its latents.

    Complex tensors get its complex kind, real ones its real kind.  As in torch, either may come
    first, and so may a tensor that has both.

    Raises:
        InputError: dtype is not complex for complex latents, or not real for real ones.
    """
    if isinstance(device, torch.dtype):
        device, dtype = None, device
    elif isinstance(device, Tensor):
        device, dtype = device.device, device.dtype
    if dtype is not None and not (dtype.is_complex if complex_latents else dtype.is_floating_point):
        kind = "complex" if complex_latents else "real floating-point"
        raise InputError(f"dtype: expected a {kind} dtype, that of the latents, got {dtype}")

    def move(x: Tensor) -> Tensor:
        if dtype is None or not (x.is_complex() or x.is_floating_point()):
            return x.to(device=device)
        return x.to(device=device, dtype=dtype.to_complex() if x.is_complex() else dtype.to_real())

    return move


def moved_module(name: str, module: Any, move: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of a module, moved.

    Raises:
        InputError: it is a plain function.
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{name}: expected a module to move or to cast, got {type(module).__name__}; "
            "move what it closes over instead"
        )
    return copy.deepcopy(module)._apply(move)


def check_values(expected: Mapping[str, Expected], parameters: Mapping[str, Tensor]) -> None:
    """Finite, and Hermitian, real or positive where the derivation says so, to working precision.

    Raises:
        InputError: a parameter is not.
    """
    for name, x in parameters.items():
        axes, traits = expected.get(name, ((), ()))
        if x.device.type == "meta" or is_transformed(x) or not x.numel():
            continue
        x = x.detach()
        if not bool(torch.isfinite(x).all()):
            raise InputError(f"{name}: expected finite values, got NaN or infinities")
        noise = 100 * torch.finfo(x.dtype).eps * x.abs().max().item()
        matrix = len(axes) == 2
        if "hermitian" in traits and matrix:
            gap = (x - x.mH).abs().max().item()
            if gap > noise:
                raise InputError(
                    f"{name}: expected a Hermitian matrix, got |{name} - {name}ᴴ| up to {gap:.3g}"
                )
        if "real" in traits and x.is_complex() and x.imag.abs().max().item() > noise:
            raise InputError(
                f"{name}: expected a real value, got an imaginary part of "
                f"{x.imag.abs().max().item():.3g}"
            )
        if "positive" in traits and (not matrix or "hermitian" in traits):
            smallest = (torch.linalg.eigvalsh(x) if matrix else x.real).min().item()
            if smallest <= 0:
                what = "a positive definite matrix, got the eigenvalue" if matrix else "> 0, got"
                raise InputError(f"{name}: expected {what} {smallest:.3g}")
