"""Higher derivatives of layer and instance normalisation."""

import torch
from torch import Tensor
from torch.func import jacfwd, jacrev

from kahler_verify.evidence.routes.torch_faults.fault import (
    POINT,
    SECOND_ORDER,
    Function,
    TorchFault,
    normal,
    relative_error,
)

# y = c q^(-1/2) with c = H(M x + b) linear in x (H takes the mean away) and q = mean(c²) + ε.

_FEATURES = 4
_SPREAD = normal(10, _FEATURES, 2)
_OFFSET = normal(11, _FEATURES)
_EPSILON = 1e-5


def _features(x: Tensor) -> Tensor:
    return _SPREAD @ x + _OFFSET


def _layer_norm(x: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(_features(x), (_FEATURES,), eps=_EPSILON)


def _instance_norm(x: Tensor) -> Tensor:
    return torch.nn.functional.instance_norm(_features(x)[None, None], eps=_EPSILON)[0, 0]


def _safe_norm(x: Tensor) -> Tensor:
    centred = _features(x) - _features(x).mean()
    return centred * torch.rsqrt((centred * centred).mean() + _EPSILON)


def _norm_derivative(order: int) -> Tensor:
    """∂∂y [n, 2, 2], or ∂∂∂y [n, 2, 2, 2], by the product rule."""
    c = _features(POINT) - _features(POINT).mean()
    c_i = _SPREAD - _SPREAD.mean(0)
    q = (c * c).mean() + _EPSILON
    q_i, q_ij = 2 * (c @ c_i) / _FEATURES, 2 * (c_i.mT @ c_i) / _FEATURES
    s_i = -q_i * q**-1.5 / 2
    s_ij = 0.75 * torch.outer(q_i, q_i) * q**-2.5 - q_ij * q**-1.5 / 2
    if order == 2:
        mixed = torch.einsum("ni,j->nij", c_i, s_i)
        return mixed + mixed.mT + torch.einsum("n,ij->nij", c, s_ij)
    triple = torch.einsum("i,j,k->ijk", q_i, q_i, q_i)
    pair = torch.einsum("ij,k->ijk", q_ij, q_i)
    s_ijk = -15 / 8 * triple * q**-3.5 + 0.75 * _three(pair) * q**-2.5
    mixed = torch.einsum("nk,ij->nijk", c_i, s_ij)
    return _three(mixed) + torch.einsum("n,ijk->nijk", c, s_ijk)


def _three(x: Tensor) -> Tensor:
    """The sum over which of the last three indices stands last."""
    return x + x.transpose(-1, -2) + x.transpose(-1, -3)


def _norm_error(function: Function, order: int) -> float:
    return relative_error(function(POINT), _norm_derivative(order))


def _safe_norm_error() -> float:
    third = (jacfwd(jacfwd(jacfwd(_safe_norm))), jacrev(jacrev(jacrev(_safe_norm))))
    errors = [_norm_error(mode(_safe_norm), 2) for mode in SECOND_ORDER]
    return max(*errors, *[_norm_error(function, 3) for function in third])


def _nested_norm_fault(name: str, call: str, bare: Function) -> TorchFault:
    return TorchFault(
        name=f"nested forward mode over {name}",
        written=f"jacfwd(jacfwd(lambda x: {call}))(x)",
        explanation=(
            f"The forward derivative of {name} takes the saved mean and deviation as if they were "
            "constants, so that differentiating it again, in either mode, loses terms. Forward "
            "over reverse and reverse over reverse are right. batch_norm in training is another."
        ),
        safe_alternative=_WRITTEN_OUT,
        measure=lambda: _norm_error(jacfwd(jacfwd(bare)), 2),
        measure_safe=_safe_norm_error,
    )


_WRITTEN_OUT = (
    "c * rsqrt((c * c).mean(-1, keepdim=True) + eps) with c = x - x.mean(-1, keepdim=True)"
)
NESTED_LAYER_NORM = _nested_norm_fault("layer_norm", "layer_norm(M @ x + b, (4,))", _layer_norm)
NESTED_INSTANCE_NORM = _nested_norm_fault(
    "instance_norm", "instance_norm((M @ x + b)[None, None])", _instance_norm
)
THIRD_LAYER_NORM = TorchFault(
    name="third derivative of layer_norm",
    written="jacrev(jacrev(jacrev(lambda x: layer_norm(M @ x + b, (4,)))))(x)",
    explanation=(
        "The second backward takes what the first has saved as if it were constant, so that a "
        "third derivative loses terms: by torch.func as by torch.autograd.grad. The curvature "
        "of a decoder's metric is made of such."
    ),
    safe_alternative=_WRITTEN_OUT,
    measure=lambda: _norm_error(jacrev(jacrev(jacrev(_layer_norm))), 3),
    measure_safe=_safe_norm_error,
)
