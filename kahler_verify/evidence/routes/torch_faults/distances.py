"""Squares of moduli and norms at 0, and distances."""

import torch
from torch import Tensor
from torch.func import hessian, jacrev

from kahler_verify.evidence.routes.torch_faults.fault import (
    FIRST_ORDER,
    ORIGIN,
    POINT,
    SECOND_ORDER,
    Function,
    TorchFault,
    Transform,
    constant,
    normal,
    relative_error,
)

_ROUND = constant([[2.0, 0.0], [0.0, 2.0]])  # the Hessian of x² + y²


def _abs_squared(x: Tensor) -> Tensor:
    return torch.complex(x[0], x[1]).abs() ** 2


def _vector_norm_squared(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x) ** 2


def _safe_complex_square(x: Tensor) -> Tensor:
    z = torch.complex(x[0], x[1])
    return (z * z.conj()).real


def _safe_real_square(x: Tensor) -> Tensor:
    return (x * x).sum()


def _worst_at_origin(function: Function) -> float:
    return max(relative_error(mode(function)(ORIGIN), _ROUND) for mode in SECOND_ORDER)


_CENTRES = normal(12, 3, 2)


def _distances(x: Tensor) -> Tensor:
    return torch.cdist(x[None], _CENTRES)[0]


def _safe_distances(x: Tensor) -> Tensor:
    return ((x - _CENTRES) * (x - _CENTRES)).sum(-1).sqrt()


def _distances_error(function: Function, mode: Transform) -> float:
    steps = POINT - _CENTRES
    truth = steps / torch.linalg.vector_norm(steps, dim=-1, keepdim=True)
    return relative_error(mode(function)(POINT), truth)


ABS_SQUARED = TorchFault(
    name="Hessian of abs()**2 at 0",
    written="hessian(lambda x: torch.complex(x[0], x[1]).abs() ** 2)(torch.zeros(2))",
    explanation=(
        "The derivative of abs at 0 is taken to be 0, so that the chain rule gives 2 |z| · 0: "
        "the Hessian of x² + y² at 0 comes out as 0 instead of 2 I, in every mode. A KL at its "
        "diagonal is such a point."
    ),
    safe_alternative="(z * z.conj()).real",
    measure=lambda: relative_error(hessian(_abs_squared)(ORIGIN), _ROUND),
    measure_safe=lambda: _worst_at_origin(_safe_complex_square),
)
NORM_SQUARED = TorchFault(
    name="Hessian of vector_norm**2 at 0",
    written="hessian(lambda x: torch.linalg.vector_norm(x) ** 2)(torch.zeros(2))",
    explanation=(
        "As for abs: the norm's derivative at 0 is taken to be 0, so the Hessian of its square "
        "comes out as 0 instead of 2 I (and as NaN in reverse over reverse)."
    ),
    safe_alternative="(x * x).sum(), or (z * z.conj()).real.sum()",
    measure=lambda: relative_error(hessian(_vector_norm_squared)(ORIGIN), _ROUND),
    measure_safe=lambda: _worst_at_origin(_safe_real_square),
    upstream="https://github.com/pytorch/pytorch/issues/92075",
)
CDIST = TorchFault(
    name="jacrev of cdist",
    written="jacrev(lambda x: torch.cdist(x[None], centres)[0])(x)",
    explanation=(
        "The backward of cdist is wrong under vmap, by which jacrev goes through the outputs: "
        "with chunk_size=1, which does without, it is right. There is no forward rule."
    ),
    safe_alternative="((x - centres) * (x - centres)).sum(-1).sqrt()",
    measure=lambda: _distances_error(_distances, jacrev),
    measure_safe=lambda: max(_distances_error(_safe_distances, m) for m in FIRST_ORDER),
)
