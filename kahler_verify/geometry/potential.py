"""Metrics of Kähler potentials, from generated kernels and from files."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import MEMORY_BUDGET
from kahler_verify.geometry.metric import PartwiseMetric
from kahler_verify.moved import moved_names
from kahler_verify.running.kernel_set import RANK, KernelSet
from kahler_verify.running.parameters import check_shapes, check_values
from kahler_verify.running.variants import UnrolledKernels, geometry_tracer, potential_tracer

__getattr__ = moved_names(__name__, {"MixtureMetric": "geometry.mixture"})

chern = UnrolledKernels(geometry_tracer())


class PotentialMetric(PartwiseMetric):
    """g_{ab̄} = ∂_a∂_b̄Φ for a potential Φ whose kernels were generated.

    Args:
        kernels: the name of a shipped module ("fubini_study"), a generated module, or what
            ``kahler_verify.compile`` returns.
        validate_args: see :class:`HermitianMetric`.
        memory_budget: see :class:`HermitianMetric`.
        compile: for d ≤ 4, unroll the kernels and compile them with ``torch.compile``, which takes
            seconds to a minute for each when it is first used; one function serves all batch
            sizes.  Where autograd or ``torch.func`` follow the call, and above d = 4, the general
            kernels run as ever.
        **parameters: the potential's parameters as tensors, by the names its derivation gives them;
            leading dimensions broadcast against those of z.  Trailing ones have to be those of the
            derivation, and with ``validate_args`` values what it says: Hermitian, real, positive.

    Raises:
        InputError: a parameter is missing or unknown, or not as above.
    """

    def __init__(
        self,
        kernels: str | ModuleType | SimpleNamespace,
        *,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
        compile: bool = False,  # noqa: A002 - as in torch
        **parameters: Tensor,
    ):
        super().__init__(validate_args=validate_args, memory_budget=memory_budget)
        self.kernels = KernelSet(kernels)
        missing = [name for name in RANK if name not in self.kernels]
        if missing:
            raise InputError(
                f"kernels: expected those of a potential ({', '.join(RANK)}), got "
                f"{self.kernels.module.__name__} without {', '.join(missing)}"
            )
        expected = self.kernels.parameters
        if set(parameters) != expected:
            raise InputError(
                f"parameters: expected {sorted(expected) or 'none'}, "
                f"got {sorted(parameters) or 'none'}"
            )
        for name, p in parameters.items():
            if not isinstance(p, Tensor):
                raise InputError(f"parameters: expected {name} as a tensor, got {type(p).__name__}")
        check_shapes(self.kernels.inputs, parameters)
        if validate_args:
            check_values(self.kernels.inputs, parameters)
        self.parameters = parameters
        self._unrolled: UnrolledKernels | None = None
        if compile:
            self._unrolled = UnrolledKernels(potential_tracer(self.kernels, parameters))

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        name: str | None = None,
        *,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
        compile: bool = False,  # noqa: A002 - as in torch
        **parameters: Tensor,
    ) -> PotentialMetric:
        """Derive the potential of a derivation file and use it at once.

        A derivation file is Python code and is executed: use only files that you trust.  ``name``
        chooses among several derivations in one file.

        Raises:
            DerivationError: the file cannot be read, or the choice is not unique.
        """
        from kahler_verify.codegen.compiled import compile_file

        return cls(
            compile_file(path, name),
            validate_args=validate_args,
            memory_budget=memory_budget,
            compile=compile,
            **parameters,
        )

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:
        self.parameters = {name: move(p) for name, p in self.parameters.items()}

    def _width(self) -> int:
        return max((len(p) for p in self.parameters.values() if p.ndim), default=1)

    def _points_at_once(self, z: Tensor, order: int) -> int:
        size = super()._points_at_once(z, order)
        if math.prod(z.shape[:-1]) <= size or "metric" in self.kernels.vanishing:
            return size
        # parameters with a batch of their own cannot be cut together with z
        one = self.kernels.call("metric", {"z": z.reshape(-1, z.shape[-1])[:1], **self.parameters})
        return size if math.prod(one.shape[:-2]) == 1 else math.prod(z.shape[:-1])

    def _point(self, z: Tensor) -> Tensor:
        z = super()._point(z)
        if self.kernels.dimension not in (None, z.shape[-1]):
            raise InputError(
                f"z: expected shape [..., {self.kernels.dimension}], one entry for each coordinate "
                f"of {self.kernels.module.__name__}, got {list(z.shape)}"
            )
        return z

    def value(self, z: Tensor) -> Tensor:
        """Φ(z), real [...]."""
        z = self._point(z)
        return self._checked(z, self._by_chunks(partial(self._evaluate, "value"), 0, z).real)

    def _evaluate(self, kernel: str, z: Tensor, *, plainly: bool = False) -> Tensor:
        d, batch = z.shape[-1], z.shape[:-1]
        shape = (*batch, *[d] * RANK[kernel])
        if kernel in self.kernels.vanishing:
            return z.new_zeros(shape)
        for n, p in self.parameters.items():
            if p.dtype != z.dtype or p.device != z.device:
                raise InputError(
                    f"parameters: expected {n} with z's dtype and device ({z.dtype}, {z.device}), "
                    f"got {p.dtype} on {p.device}"
                )
        check_shapes(self.kernels.inputs, {"z": z, **self.parameters})
        if self._unrolled is not None and kernel != "value" and not plainly:
            unrolled = self._unrolled(kernel, z, self.parameters)
            if unrolled is not None:
                return unrolled
        try:
            return self.kernels.call(kernel, {"z": z, **self.parameters}).expand(shape)
        except RuntimeError as error:
            if not self.parameters or isinstance(error, torch.OutOfMemoryError):
                raise
            shapes = {n: list(p.shape) for n, p in self.parameters.items()}
            raise InputError(
                f"parameters: expected shapes that go with z {list(z.shape)}, got {shapes} "
                f"({error})"
            ) from error

    @property
    def _cancels(self) -> bool:
        """Unknown of a formula; where parameters go with points, these are not picked out."""
        axes = {name: len(axes) for name, (axes, _) in self.kernels.inputs.items()}
        return all(p.ndim == axes.get(name) for name, p in self.parameters.items())

    def _parts(self, z: Tensor) -> tuple[Tensor, None]:
        return self._evaluate("metric", z), None

    @property
    def _made_of(self) -> Hashable:
        return tuple((p.data_ptr(), p._version) for p in self.parameters.values())

    def _in_plain_torch(self, z: Tensor) -> Tensor:
        return self._evaluate("metric", z, plainly=True)

    def _metric_d(self, z: Tensor) -> Tensor:
        return self._evaluate("metric_d", z)

    def _metric_db(self, z: Tensor) -> Tensor:
        return self._evaluate("metric_db", z)

    def _curvature(self, kernel: str, tensors: dict[str, Tensor]) -> Tensor:
        unrolled = chern(kernel, tensors["g"][..., 0], tensors) if self._unrolled else None
        return super()._curvature(kernel, tensors) if unrolled is None else unrolled
