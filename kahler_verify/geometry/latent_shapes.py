"""Latents that are images or the like: points and vectors [..., 4, 32, 32] beside rows [..., d]."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from torch import Tensor

from kahler_verify.errors import InputError

T = TypeVar("T", bound=type)

_ARGUMENTS = ("z", "u", "v", "w", "a", "b", "x", "y")  # points and vectors, by what methods say
_SCALARS_AND_MATRICES = (
    "metric_matrix",
    "inner_product",
    "squared_norm",
    "norm",
    "log_volume",
    "christoffels",
    "riemann_tensor",
    "ricci_tensor",
    "scalar_curvature",
    "sectional_curvature",
    "curvature_tensor",
    "complementary_part",
    "real_metric_matrix",
    "log_det_hermitian",
    "holomorphic_sectional_curvature",
    "kahler_defect",
    "geodesic",
    "distance",
    "distances",
)
_VECTORS = (
    "metric_vector_product",
    "log_volume_gradient",
    "geodesic_acceleration",
    "transport_rate",
    "brownian_drift",
    "jacobi_acceleration",
    "exp",
    "log",
    "transport",
)


def keeps_latent_shape(metric: T) -> T:
    """Let the methods of a class take latents in ``self.latent_shape``, and give vectors so.

    Matrices and tensors have axes of d numbers in the order of ``flatten``, and curves are of rows.
    """
    for names, vectors in ((_SCALARS_AND_MATRICES, False), (_VECTORS, True)):
        for name in names:
            method = getattr(metric, name, None)
            if method is not None:
                setattr(metric, name, _shaped(method, vectors))
    return metric


def dimension_of(shape: tuple[int, ...] | None, dimension: int | None) -> int | None:
    """The d of a latent shape, where there is one.

    Raises:
        InputError: it is another than ``dimension``.
    """
    if shape is None:
        return dimension
    if dimension not in (None, math.prod(shape)):
        raise InputError(
            f"dimension: expected {math.prod(shape)}, as latents are {list(shape)}, got {dimension}"
        )
    return math.prod(shape)


def represented(metric: Any, decoder: list[str], met: list[str]) -> str:
    """A metric's repr: how its decoder is called and read, and what was met on the way."""
    lines = [", ".join(decoder), *met]
    return f"{type(metric).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def is_shaped(x: Any, shape: tuple[int, ...] | None) -> bool:
    """Are these latents [..., *shape], and not rows [..., d]?"""
    return (
        shape is not None
        and isinstance(x, Tensor)
        and x.ndim >= len(shape) > 1
        and x.shape[-len(shape) :] == shape
        and x.shape[-1] != math.prod(shape)
    )


def _shaped(method: Callable[..., Any], vectors: bool) -> Callable[..., Any]:
    signature = inspect.signature(method)
    names = [name for name in signature.parameters if name in _ARGUMENTS]

    @wraps(method)
    def shaped(self: Any, *args: Any, **named: Any) -> Any:
        shape = self.latent_shape
        if shape is None:
            return method(self, *args, **named)
        given = signature.bind(self, *args, **named).arguments
        latents = {name: given[name] for name in names if is_shaped(given.get(name), shape)}
        if not latents:
            return method(self, *args, **named)
        given |= {name: x.flatten(-len(shape)) for name, x in latents.items()}
        more = given.pop("options", {})
        given.pop("self")
        out = method(self, **given, **more)
        return out.unflatten(-1, shape) if vectors else out

    return shaped
