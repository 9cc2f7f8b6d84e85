"""The structures that a scale may have, and the constraints that go with them."""

from typing import Literal

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint

Structure = Literal["scalar", "diagonal", "full"]
ARGUMENT: dict[Structure, str] = {
    "scalar": "scale",
    "diagonal": "scale_diag",
    "full": "scale_tril",
}
EVENT_DIM: dict[Structure, int] = {"scalar": 0, "diagonal": 1, "full": 2}
REAL_DTYPE = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class _ComplexVector(Constraint):
    """Vectors of finite complex numbers."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return torch.isfinite(value).all(-1) & value.is_complex()


class _ComplexNumber(Constraint):
    """Finite complex numbers."""

    def check(self, value: Tensor) -> Tensor:
        return torch.isfinite(value) & value.is_complex()


class _ComplexSymmetric(Constraint):
    """Complex symmetric (not Hermitian) matrices of finite numbers."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return (torch.isfinite(value) & is_close_to_symmetric(value)).flatten(-2).all(-1)


class _PositiveFinite(Constraint):
    """Real numbers in (0, ∞)."""

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & torch.isfinite(value)


class _PositiveFiniteVector(_PositiveFinite):
    """Vectors of real numbers in (0, ∞)."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return super().check(value).all(-1)


class _ComplexLowerCholesky(Constraint):
    """Complex lower-triangular matrices whose diagonal is real and positive."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        diagonal = value.diagonal(dim1=-2, dim2=-1)
        triangular = (value.triu(1) == 0) & torch.isfinite(value)
        return triangular.flatten(-2).all(-1) & ((diagonal.real > 0) & (diagonal.imag == 0)).all(-1)


complex_vector = _ComplexVector()
complex_lower_cholesky = _ComplexLowerCholesky()
CONSTRAINT: dict[Structure, Constraint] = {
    "scalar": _PositiveFinite(),
    "diagonal": _PositiveFiniteVector(),
    "full": complex_lower_cholesky,
}
RELATION_CONSTRAINT: dict[Structure, Constraint] = {
    "scalar": _ComplexNumber(),
    "diagonal": complex_vector,
    "full": _ComplexSymmetric(),
}


def is_close_to_symmetric(x: Tensor) -> Tensor:
    """Per entry, up to rounding (``64 D ε`` of the largest)."""
    size = x.detach().abs().amax((-2, -1), keepdim=True)
    return (x - x.mT).detach().abs() <= 64 * x.shape[-1] * torch.finfo(x.dtype).eps * size
