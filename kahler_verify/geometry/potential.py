"""Metrics of Kähler potentials: from generated kernels, from files, and from mixtures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.kernel_set import RANK, KernelSet
from kahler_verify.geometry.metric import MEMORY_BUDGET, HermitianMetric


class PotentialMetric(HermitianMetric):
    """g_{ab̄} = ∂_a∂_b̄Φ for a potential Φ whose kernels were generated.

    Args:
        kernels: the name of a shipped module ("fubini_study"), a generated module, or what
            ``kahler_verify.compile`` returns.
        validate_args: see :class:`HermitianMetric`.
        memory_budget: see :class:`HermitianMetric`.
        **parameters: the potential's parameters as tensors, by the names its derivation gives them;
            leading dimensions broadcast against those of z.

    Raises:
        InputError: a parameter is missing or unknown.
    """

    def __init__(
        self,
        kernels: str | ModuleType | SimpleNamespace,
        *,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
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
        self.parameters = parameters

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        name: str | None = None,
        *,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
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
            **parameters,
        )

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> PotentialMetric:
        """The same metric with its parameters on another device, or in another complex dtype."""
        moved = {
            name: p.to(device=device, dtype=dtype or p.dtype) for name, p in self.parameters.items()
        }
        return PotentialMetric(
            self.kernels.module,
            validate_args=self.validate_args,
            memory_budget=self.memory_budget,
            **moved,
        )

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
        return self._checked(z, self._evaluate("value", z).real)

    def _evaluate(self, kernel: str, z: Tensor) -> Tensor:
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

    def _parts(self, z: Tensor) -> tuple[Tensor, None]:
        return self._evaluate("metric", z), None

    def _metric_d(self, z: Tensor) -> Tensor:
        return self._evaluate("metric_d", z)

    def _metric_db(self, z: Tensor) -> Tensor:
        return self._evaluate("metric_db", z)


class MixtureMetric(HermitianMetric):
    """∂∂̄ of a mixture of quadratic forms q_k = (z - c_k)ᴴP_k(z - c_k).

    ``kind="potential"``: Φ = log Σ_k π_k e^{q_k}, plurisubharmonic; its weights favour FAR centres,
    and its metric is at least as large as the smallest of the P_k.
    ``kind="density"``: Ψ = -log Σ_k π_k det P_k e^{-q_k}, minus the log density of a mixture of
    circular complex Gaussians up to d log π; not plurisubharmonic in general.

    Args:
        weights: π_k > 0, real [K], summing to one.
        centres: c_k, complex [K, d].
        precisions: P_k, Hermitian positive definite, complex [K, d, d].
        kind: which of the two potentials.
        validate_args: see :class:`HermitianMetric`.
        memory_budget: see :class:`HermitianMetric`.

    Raises:
        InputError: shapes, dtypes or values are not as above.
    """

    _component = KernelSet("quadratic_form")

    def __init__(
        self,
        weights: Tensor,
        centres: Tensor,
        precisions: Tensor,
        *,
        kind: Literal["potential", "density"] = "potential",
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
    ):
        super().__init__(validate_args=validate_args, memory_budget=memory_budget)
        if kind not in ("potential", "density"):
            raise InputError(f"kind: expected 'potential' or 'density', got {kind!r}")
        _check_mixture(weights, centres, precisions, validate_args)
        self.weights, self.centres, self.precisions = weights, centres, precisions
        self.kind = kind
        self._mixture = KernelSet(f"mixture_{kind}")
        factor, info = torch.linalg.cholesky_ex(precisions)
        if validate_args and bool((info > 0).any()):
            smallest = torch.linalg.eigvalsh(precisions).min().item()
            raise InputError(
                "precisions: expected positive definite matrices, "
                f"got the eigenvalue {smallest:.3g}"
            )
        log_det = 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
        self._log_weights = weights.log() + (log_det if kind == "density" else 0)

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> MixtureMetric:
        """The same metric on another device, or in another complex dtype."""
        complex_dtype = dtype or self.centres.dtype
        real = torch.empty(0, dtype=complex_dtype).real.dtype
        return MixtureMetric(
            self.weights.to(device=device, dtype=real),
            self.centres.to(device=device, dtype=complex_dtype),
            self.precisions.to(device=device, dtype=complex_dtype),
            kind=self.kind,
            validate_args=self.validate_args,
            memory_budget=self.memory_budget,
        )

    def _width(self) -> int:
        return len(self.weights)

    def value(self, z: Tensor) -> Tensor:
        """Φ(z) or Ψ(z), real [...]."""
        z = self._point(z)
        logits = self._logits(z)
        out = torch.logsumexp(logits, -1)
        return self._checked(z, out if self.kind == "potential" else -out)

    def responsibilities(self, z: Tensor) -> Tensor:
        """The weights w_k ∝ π_k e^{±q_k} at z, real [..., K]."""
        z = self._point(z)
        return self._checked(z, torch.softmax(self._logits(z), -1))

    def _logits(self, z: Tensor) -> Tensor:
        if z.dtype != self.centres.dtype or z.shape[-1] != self.centres.shape[-1]:
            raise InputError(
                f"z: expected {self.centres.dtype} [..., {self.centres.shape[-1]}] like the "
                f"centres, got {z.dtype} {list(z.shape)}"
            )
        q = self._component.call("value", self._component_inputs(z)).real
        return self._log_weights + (q if self.kind == "potential" else -q)

    def _component_inputs(self, z: Tensor) -> dict[str, Tensor]:
        return {"z": z.unsqueeze(-2), "centre": self.centres, "precision": self.precisions}

    def _evaluate(self, kernel: str, z: Tensor) -> Tensor:
        w = torch.softmax(self._logits(z), -1).to(z.dtype)
        inputs = self._component_inputs(z)
        q_d = self._component.call("gradient", inputs)
        q_db = self._component.call("metric", inputs)
        return self._mixture.call(kernel, {"w": w, "q_d": q_d, "q_db": q_db})

    def _parts(self, z: Tensor) -> tuple[Tensor, None]:
        return self._evaluate("metric", z), None

    def _metric_d(self, z: Tensor) -> Tensor:
        return self._evaluate("metric_d", z)

    def _metric_db(self, z: Tensor) -> Tensor:
        return self._evaluate("metric_db", z)


def _check_mixture(weights: Tensor, centres: Tensor, precisions: Tensor, values: bool) -> None:
    for name, x in (("weights", weights), ("centres", centres), ("precisions", precisions)):
        if not isinstance(x, Tensor):
            raise InputError(f"{name}: expected a tensor, got {type(x).__name__}")
        if x.device != centres.device:
            raise InputError(
                f"{name}: expected a tensor on {centres.device} like the centres, got {x.device}"
            )
    if centres.ndim != 2 or not centres.is_complex() or 0 in centres.shape:
        raise InputError(
            f"centres: expected a complex tensor [K, d] with K, d ≥ 1, "
            f"got {centres.dtype} {list(centres.shape)}"
        )
    count, d = centres.shape
    _expect("weights", weights, (count,), centres.real.dtype)
    _expect("precisions", precisions, (count, d, d), centres.dtype)
    if not values or centres.device.type == "meta":
        return
    for name, x in (("weights", weights), ("centres", centres), ("precisions", precisions)):
        if not bool(torch.isfinite(x).all()):
            raise InputError(f"{name}: expected finite values, got NaN or infinities")
    tolerance = 100 * torch.finfo(weights.dtype).eps
    if bool((weights <= 0).any()) or abs(weights.sum().item() - 1) > tolerance * count:
        raise InputError(
            f"weights: expected positive values that sum to one, got minimum "
            f"{weights.min().item():.3g} and sum {weights.sum().item():.6g}"
        )
    gap = (precisions - precisions.mH).abs().max().item()
    if gap > tolerance * precisions.abs().max().item():
        raise InputError(f"precisions: expected Hermitian matrices, got |P - Pᴴ| up to {gap:.3g}")


def _expect(name: str, x: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    if tuple(x.shape) != tuple(shape) or x.dtype != dtype:
        raise InputError(f"{name}: expected {dtype} {list(shape)}, got {x.dtype} {list(x.shape)}")
