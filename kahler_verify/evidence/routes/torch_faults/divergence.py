"""The Hessian of a Gaussian divergence as textbooks write it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import hessian

from kahler_verify.evidence.routes.torch_faults.fault import (
    IDENTITY,
    SECOND_ORDER,
    SIZE,
    Function,
    TorchFault,
    Transform,
    at_all_points,
    normal,
)

# x ↦ CN(M x, A(x) A(x)ᴴ + I) with A(x) = A_0 + x_1 A_1 + x_2 A_2; two real coordinates x.

_MEAN_MAP = normal(5, SIZE, 2, dtype=torch.complex128)
_ROOT_CENTRE = normal(6, SIZE, SIZE, dtype=torch.complex128)
_ROOT_DIRECTIONS = normal(7, 2, SIZE, SIZE, dtype=torch.complex128)


def _gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    z = x.to(torch.complex128)
    root = _ROOT_CENTRE + torch.einsum("i,ijk->jk", z, _ROOT_DIRECTIONS)
    return _MEAN_MAP @ z, root @ root.mH + IDENTITY


def _textbook_kl(x: Tensor, y: Tensor) -> Tensor:
    mean_0, covariance_0 = _gaussian(x)
    mean_1, covariance_1 = _gaussian(y)
    residual = mean_1 - mean_0
    logdet_0 = torch.linalg.slogdet(covariance_0)[1]
    logdet_1 = torch.linalg.slogdet(covariance_1)[1]
    trace = torch.linalg.solve(covariance_1, covariance_0).diagonal().sum().real
    quadratic = (residual.conj() @ torch.linalg.solve(covariance_1, residual)).real
    return logdet_1 - logdet_0 - SIZE + trace + quadratic


def _safe_kl(x: Tensor, y: Tensor) -> Tensor:
    mean_0, covariance_0 = _gaussian(x)
    mean_1, covariance_1 = _gaussian(y)
    factor_0 = torch.linalg.cholesky(covariance_0)
    factor_1 = torch.linalg.cholesky(covariance_1)
    columns = torch.cat([factor_0, (mean_1 - mean_0)[:, None]], 1)
    white = torch.linalg.solve_triangular(factor_1, columns, upper=False)
    logdet_0 = 2 * factor_0.diagonal().real.log().sum()
    logdet_1 = 2 * factor_1.diagonal().real.log().sum()
    return logdet_1 - logdet_0 - SIZE + (white * white.conj()).real.sum()


def _fisher(x: Tensor) -> Tensor:
    """The Hessian of the KL at its diagonal: ``tr(P ∂_iΣ P ∂_jΣ) + 2 Re (∂_iμ)ᴴ P ∂_jμ``."""
    covariance = _gaussian(x)[1]
    root = _ROOT_CENTRE + torch.einsum("i,ijk->jk", x.to(torch.complex128), _ROOT_DIRECTIONS)
    half = _ROOT_DIRECTIONS @ root.mH
    precision = torch.linalg.inv(covariance)
    steps = precision @ (half + half.mH)
    mean_part = (_MEAN_MAP.mH @ precision @ _MEAN_MAP).real
    return torch.einsum("iab,jba->ij", steps, steps).real + 2 * mean_part


def _kl_hessian(kl: Callable[[Tensor, Tensor], Tensor], mode: Transform) -> Function:
    return lambda x: mode(lambda y: kl(x, y))(x)


TEXTBOOK_KL = TorchFault(
    name="vmap(hessian) of a textbook Gaussian KL",
    written="vmap(lambda x: hessian(lambda y: kl(x, y))(x))(points)  # by slogdet and solve",
    explanation=(
        "hessian is jacfwd(jacrev(f)): under vmap its forward half meets the broadcast "
        "lu_solve. It is the obvious way to compute the Fisher metric of a decoder."
    ),
    safe_alternative=(
        "reverse over reverse, jacrev(jacrev(f)), of a KL written with cholesky and "
        "solve_triangular; confirm in forward over reverse"
    ),
    measure=lambda: at_all_points(_kl_hessian(_textbook_kl, hessian), _fisher),
    measure_safe=lambda: max(
        at_all_points(_kl_hessian(_safe_kl, mode), _fisher) for mode in SECOND_ORDER
    ),
    upstream="the same cause as: lu_solve with a broadcast LU",
)
