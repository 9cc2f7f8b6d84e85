"""Calling unrolled kernels: rows of real numbers in, complex tensors out, compiled once.

See :mod:`kahler_verify.running.unrolling` for what is called.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache, partial
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import GenerationError, InputError
from kahler_verify.kernels import hermitian_geometry
from kahler_verify.linear_algebra.kept import ReducedHeads
from kahler_verify.linear_algebra.products import in_forward_mode, is_transformed
from kahler_verify.running.kernel_set import KernelSet, compile_kernel, text_of
from kahler_verify.running.unrolling import Argument, Unrolled, unroll, unroll_mixture

__all__ = ["UnrolledKernels", "geometry_tracer", "mixture_tracer", "potential_tracer", "text_of"]

Tracer = Callable[[str, int], Unrolled]

LARGEST = 4  # dimension
MOST_OPERATIONS = 3000  # of a variant: compiling more takes minutes
# Fewer components than these are the outer axis, so that loops run along points; more of them are
# the inner axis, so that the sums over them stay in registers.
INNER_COMPONENTS = 64
AT_ONCE = 2**18  # points times components: what is kept of each stays in the cache


class UnrolledKernels:
    """A metric's kernels for points of small dimension, each traced and compiled when first used.

    One compiled function serves every batch size.  Results are those of the general kernels but for
    rounding.

    Args:
        trace: the variant of a kernel for a dimension.
    """

    def __init__(self, trace: Tracer):
        self.trace = trace
        self._variants: dict[tuple[str, int], Unrolled | None] = {}
        self._fixed = ReducedHeads()  # by kernel: what does not move with the points

    def __reduce__(self) -> tuple[type[UnrolledKernels], tuple[Tracer]]:
        return UnrolledKernels, (self.trace,)

    def __call__(self, kernel: str, z: Tensor, parameters: Mapping[str, Tensor]) -> Tensor | None:
        """The kernel at z [..., d], complex [..., d, …], or None where the general one should run.

        That is: above d = 4, where a variant would have more than 3000 operations, and where
        somebody follows what is computed.  Autograd and torch.func follow the general kernels,
        which have derivatives of every order.

        Args:
            kernel: its name.
            z: points; where the kernel takes none, any tensor of their shape.
            parameters: by the names of the kernel's arguments; components come first in the shapes
                of those that have them, and batches broadcast to that of z in all others.
        """
        given = {**parameters, "z": z}
        if z.shape[-1] > LARGEST or z.numel() == 0 or _is_followed(given.values()):
            return None
        kinds = z.dtype, z.dtype.to_real()
        if any(t.device != z.device or t.dtype not in kinds for t in given.values()):
            return None
        variant = self._variant(kernel, z.shape[-1])
        if variant is None or not all(_fits(a, z, parameters) for a in variant.arguments):
            return None
        components = next((given[a.name].shape[0] for a in variant.arguments if a.over), 1)
        inner = components >= INNER_COMPONENTS
        axis = (1 if inner else 0,) if variant.over else ()
        function = _compiled(variant.text, variant.name, components, z.dtype, z.device)
        along = _along_points(variant, given)
        fixed = self._rows_of_all(kernel, variant, given, along, inner)

        def run(*some: Tensor) -> Tensor:
            rows = {
                **fixed,
                **{
                    a.name: _rows(x, a, variant.over, inner)
                    for a, x in zip(along, some, strict=True)
                },
            }
            out: Tensor = function(*[rows[a.name] for a in variant.arguments], *axis)
            out = out.reshape(-1, *variant.shapes[0], 2)
            return out if len(some[0]) > 1 else out[:1]

        batch = z.shape[:-1]
        moving = [given[a.name].expand(*batch, *a.shape).reshape(-1, *a.shape) for a in along]
        pieces = math.ceil(len(moving[0]) * components / AT_ONCE)
        if pieces == 1:
            out = run(*moving)
        else:
            parts = zip(*[value.chunk(pieces) for value in moving], strict=True)
            out = torch.cat([run(*some) for some in parts])
        return torch.view_as_complex(out).reshape((*batch, *variant.shapes[0]))

    def _rows_of_all(
        self,
        kernel: str,
        variant: Unrolled,
        given: Mapping[str, Tensor],
        along: Sequence[Argument],
        inner: bool,
    ) -> dict[str, Tensor]:
        """Arguments that all points share as rows, [rows, K, 1], [rows, 1, K], or [rows, 1].

        They are kept until a number in one of the tensors is another one.
        """
        own = {a.name for a in along}
        shared = [a for a in variant.arguments if a.name not in own]

        def make(*sources: Tensor) -> dict[str, Tensor]:
            rows = {}
            for a, x in zip(shared, sources, strict=True):
                entries = _entries(x, a).unsqueeze(1 if a.over and inner else -1)
                rows[a.name] = entries.unsqueeze(-1) if variant.over and not a.over else entries
            return rows

        return self._fixed.get(f"{kernel} {inner}", [given[a.name] for a in shared], make)

    def _variant(self, kernel: str, d: int) -> Unrolled | None:
        if (kernel, d) not in self._variants:
            try:
                variant = self.trace(kernel, d)
                enough = variant.operations <= MOST_OPERATIONS
                self._variants[kernel, d] = variant if enough else None
            except GenerationError as error:
                warnings.warn(f"{kernel}: the general kernel is used ({error})", stacklevel=5)
                self._variants[kernel, d] = None
        return self._variants[kernel, d]


def _is_followed(tensors: Collection[Tensor]) -> bool:
    if is_transformed(*tensors) or in_forward_mode():
        return True
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _fits(argument: Argument, z: Tensor, parameters: Mapping[str, Tensor]) -> bool:
    """Has an argument the shape that the variant was traced for?"""
    if argument.name == "z":
        return True
    shape = parameters[argument.name].shape
    lead = len(shape) - len(argument.shape)
    if lead < 0 or shape[lead:] != argument.shape:
        return False
    if argument.over:
        return lead == 1
    batch = z.shape[len(z.shape) - 1 - lead : -1]
    return lead < z.ndim and all(n in (1, m) for n, m in zip(shape[:lead], batch, strict=True))


def _along_points(variant: Unrolled, given: Mapping[str, Tensor]) -> list[Argument]:
    """The arguments that may be others at each point."""
    several = [a for a in variant.arguments if not a.over]
    if all(a.name != "z" for a in several):
        return several
    return [a for a in several if a.name == "z" or given[a.name].ndim > len(a.shape)]


def _entries(value: Tensor, argument: Argument) -> Tensor:
    """The rows of an argument [*lead, …] that are needed, [rows, *lead]."""
    lead = value.shape[: value.ndim - len(argument.shape)]
    parts = value if argument.real else torch.view_as_real(value.resolve_conj())
    flat = parts.reshape(*lead, -1)
    wanted = list(argument.rows.values())
    if len(wanted) < flat.shape[-1]:
        flat = flat[..., wanted]
    return flat.movedim(-1, 0).contiguous()


def _rows(value: Tensor, argument: Argument, over: bool, inner: bool) -> Tensor:
    """An argument at every point as [rows, B], with an axis for components if ``over``.

    The number of points is left open to the compiler, which would make another function for one.
    """
    rows = _entries(value, argument)
    if len(value) == 1:
        rows = rows.expand(-1, 2).contiguous()
    if over:
        rows = rows.unsqueeze(-1 if inner else 1)
    torch._dynamo.mark_dynamic(rows, 2 if over and not inner else 1)
    return rows


@lru_cache(maxsize=256)
def _compiled(
    text: str,
    name: str,
    components: int,  # noqa: ARG001 - one function for each number of components,
    dtype: torch.dtype,  # noqa: ARG001 - dtype
    device: torch.device,  # noqa: ARG001 - and device
) -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(compile(text, f"<unrolled {name}>", "exec"), scope)
    return compile_kernel(scope[name])


def potential_tracer(kernels: KernelSet, parameters: Mapping[str, Tensor]) -> Tracer:
    """Variants of the kernels of a potential, from the text of its module.

    Args:
        kernels: the module.
        parameters: of the potential, which fix the sizes of all dimensions but the latent one.

    Raises:
        InputError: the module's text is not known.
    """
    text = text_of(kernels.module)
    if text is None:
        raise InputError(
            "compile: expected kernels whose text is known (a generated module, or what "
            f"kahler_verify.compile returns), got {kernels.module.__name__}"
        )
    sizes: dict[str, int] = {}
    for name, value in parameters.items():
        axes, _ = kernels.inputs.get(name, ((), ()))
        sizes |= zip(axes, value.shape[value.ndim - len(axes) :], strict=True)
    return partial(_of_potential, text, tuple(sorted(sizes.items())))


def mixture_tracer(
    component: ModuleType, mixture: ModuleType | SimpleNamespace, sign: int, diagonal: bool
) -> Tracer:
    """Variants of the kernels of a mixture together with those of its components."""
    return partial(_of_mixture, text_of(component) or "", text_of(mixture) or "", sign, diagonal)


def geometry_tracer() -> Tracer:
    """Variants of the kernels of Chern geometry, which have no point among their arguments."""
    return partial(_of_geometry, inspect.getsource(hermitian_geometry))


@lru_cache(maxsize=64)
def _of_geometry(text: str, kernel: str, d: int) -> Unrolled:
    return unroll(text, kernel, {"d": d})


@lru_cache(maxsize=64)
def _of_potential(text: str, sizes: tuple[tuple[str, int], ...], kernel: str, d: int) -> Unrolled:
    return unroll(text, kernel, {**dict(sizes), "d": d}, "z")


@lru_cache(maxsize=64)
def _of_mixture(
    component: str, mixture: str, sign: int, diagonal: bool, kernel: str, d: int
) -> Unrolled:
    return unroll_mixture(component, mixture, kernel, d, sign, diagonal=diagonal)
