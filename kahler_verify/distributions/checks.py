"""What is checked of arguments, and what is said of those that are refused."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kahler_verify.distributions.structures import (
    ARGUMENT,
    REAL_DTYPE,
    Structure,
    is_close_to_symmetric,
)
from kahler_verify.errors import InputError

# A mask of offending entries, and what to say of the first of them.
Fault = tuple[Tensor, Callable[[tuple[int, ...]], str]]


def check_tensor(
    name: str,
    value: Tensor,
    dtype: torch.dtype,
    device: torch.device,
    *,
    reference: str = "loc",
) -> None:
    """Raise :class:`InputError` unless it is a tensor of this very dtype, on this device."""
    if not isinstance(value, Tensor):
        raise InputError(
            f"Expected {name} to be a torch.Tensor but got {name} of type {type(value).__name__}."
        )
    if value.dtype != dtype:
        raise InputError(
            f"Expected {name} to be {dtype}, to go with {reference}, but got "
            f"{name}.dtype={value.dtype}. Nothing is promoted: convert one of them with .to(...)."
        )
    if value.device != device:
        raise InputError(
            f"Expected {name} to be on {device}, with {reference}, but got "
            f"{name}.device={value.device}."
        )


def should_validate(validate_args: bool | None) -> bool:
    """Our default is True: torch's global default is turned off by its own ``torch.compile``."""
    return True if validate_args is None else validate_args


def check_loc(loc: Tensor) -> None:
    """Raise :class:`InputError` unless the mean is complex and [..., D], D ≥ 1."""
    if not isinstance(loc, Tensor):
        raise InputError(
            f"Expected loc to be a torch.Tensor but got loc of type {type(loc).__name__}."
        )
    if loc.dtype not in REAL_DTYPE:
        raise InputError(
            "Expected loc to be complex (torch.complex64 or torch.complex128) but got "
            f"loc.dtype={loc.dtype}. A real mean is not promoted: write torch.complex(re, im) or "
            "loc.to(torch.complex128)."
        )
    if loc.ndim < 1 or loc.shape[-1] == 0:
        raise InputError(
            "Expected loc to have the shape [..., D] with D ≥ 1 but got "
            f"loc.shape={list(loc.shape)}."
        )


def check_factor(
    structure: Structure,
    factor: Tensor,
    loc: Tensor,
    *,
    name: str | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Size:
    """Checks dtype, device and shape of a scale or relation; returns the common batch shape."""
    name = name or ARGUMENT[structure]
    dimension = loc.shape[-1]
    expected = {"scalar": [], "diagonal": [dimension], "full": [dimension, dimension]}[structure]
    dtype = dtype or (loc.dtype if structure == "full" else REAL_DTYPE[loc.dtype])
    check_tensor(name, factor, dtype, loc.device)
    split = factor.ndim - len(expected)
    if split < 0 or list(factor.shape[split:]) != expected:
        inner = ", ".join(map(str, ["...", *expected]))
        raise InputError(
            f"Expected {name} to have the shape [{inner}], to go with loc.shape={list(loc.shape)}, "
            f"but got {name}.shape={list(factor.shape)}."
        )
    hint = " For one scale per coordinate pass scale_diag." if structure == "scalar" else ""
    return broadcast(
        f"the batch dimensions of {name}",
        factor.shape[:split],
        "those of loc",
        loc.shape[:-1],
        hint,
    )


def broadcast(
    name: str, shape: torch.Size, other_name: str, other: torch.Size, hint: str = ""
) -> torch.Size:
    """The shape that two shapes broadcast to, or :class:`InputError` with their names."""
    try:
        return torch.broadcast_shapes(shape, other)
    except RuntimeError as error:
        raise InputError(
            f"Expected {name} to broadcast with {other_name} but got {list(shape)} and "
            f"{list(other)}.{hint}"
        ) from error


def value_faults(structure: Structure, factor: Tensor, loc: Tensor) -> Iterator[Fault]:
    """What values of a mean and a scale have to be."""
    name = ARGUMENT[structure]
    yield ~torch.isfinite(loc), not_finite("loc", loc)
    yield ~torch.isfinite(factor), not_finite(name, factor)
    if structure != "full":
        yield (
            factor <= 0,
            lambda i: f"{name} must be positive but is {factor[i].item():.3g}{at_index(i)}.",
        )
        return
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    yield (
        factor.triu(1) != 0,
        lambda i: (
            f"scale_tril must be lower triangular but has {factor[i].item():.3g} above its diagonal"
            f"{at_index(i)}. Is it an upper factor (pass its .mH), or a covariance (use "
            "ComplexNormal.from_covariance)?"
        ),
    )
    yield (
        ~((diagonal.real > 0) & (diagonal.imag == 0)),
        lambda i: (
            "scale_tril must have a real positive diagonal but has "
            f"{diagonal[i].item():.3g}{at_index((*i, i[-1]))}."
        ),
    )


def relation_faults(
    structure: Structure, relation: Tensor, factor: Tensor, real_covariance: Callable[[], Tensor]
) -> Iterator[Fault]:
    """What values of a relation have to be, beside the scale of its law.

    ``real_covariance`` is that of the law on R^{2D}, asked for only where the structure is full.
    """
    yield ~torch.isfinite(relation), not_finite("relation", relation)
    if structure != "full":
        variance = factor.square().expand(relation.shape)
        yield (
            ~(relation.abs() < variance),
            lambda i: (
                "relation must be smaller in modulus than the variance E|x-μ|² but |δ| is "
                f"{relation[i].abs().item():.3g}, where the variance is {variance[i].item():.3g}"
                f"{at_index(i)}."
            ),
        )
        return
    yield (
        ~is_close_to_symmetric(relation),
        lambda i: (
            "relation must be symmetric (R = Rᵀ, not Rᴴ) but |R - Rᵀ| is "
            f"{(relation - relation.mT)[i].abs().item():.3g}{at_index(i)}."
        ),
    )
    real = real_covariance()
    yield (
        torch.linalg.cholesky_ex(real).info != 0,
        lambda i: (
            "relation must leave [[Σ, R], [R̄, Σ̄]] positive definite but its smallest eigenvalue is "
            f"{2 * torch.linalg.eigvalsh(real[i].detach())[0].item():.3g}{at_index(i)}."
        ),
    )


def not_finite(name: str, value: Tensor) -> Callable[[tuple[int, ...]], str]:
    """What to say of an entry that is not."""
    return lambda index: f"{name} must be finite but is {value[index].item()}{at_index(index)}."


def at_index(index: tuple[int, ...]) -> str:
    """Where that is, in a message; nothing for a single number."""
    return f" at index {list(index)}" if index else ""


def raise_if_any(faults: list[Fault]) -> None:
    """Raises for the first fault whose mask has a true entry; reads one boolean from the device."""
    if torch.compiler.is_compiling():
        return
    flag = torch.stack([mask.any() for mask, _ in faults]).any()
    if flag.device.type == "meta":
        return
    try:
        found = bool(flag)
    except RuntimeError as error:
        if "vmap" in str(error):
            return
        raise
    if not found:
        return
    for mask, describe in faults:
        where = mask.nonzero()
        if len(where):
            raise InputError(describe(tuple(where[0].tolist())))
