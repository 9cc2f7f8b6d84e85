"""Solving, determinants and inverses: rules that broadcast or nest wrongly, and ties."""

import torch
from torch import Tensor
from torch.func import jacfwd

from kahler_verify.evidence.routes.torch_faults.fault import (
    BY_TRIANGLES,
    DET_BY_CHOLESKY,
    FIRST_ORDER,
    IDENTITY,
    LOG_DET_BY_CHOLESKY,
    ORIGIN,
    POINTS,
    SECOND_ORDER,
    SIZE,
    Function,
    TorchFault,
    Transform,
    at_all_points,
    constant,
    normal,
    relative_error,
    reverse_over_reverse,
    symmetric,
)

# ---------------------------------------------------------------------- a family of covariances
# S(x) = C + x_1 E_1 + x_2 E_2, real symmetric, positive definite at the four points used: the
# smallest case of a covariance that depends on a latent. Its derivatives have closed forms in
# P = S(x)^{-1}.

_CENTRE = symmetric(normal(0, SIZE, SIZE)) + 5 * IDENTITY
_DIRECTIONS = symmetric(normal(1, 2, SIZE, SIZE))
_RIGHT_SIDE = normal(2, SIZE)


def _covariance(x: Tensor) -> Tensor:
    return _CENTRE + torch.einsum("i,ijk->jk", x, _DIRECTIONS)


def _solve(x: Tensor) -> Tensor:
    return torch.linalg.solve(_covariance(x), _RIGHT_SIDE)


def _det(x: Tensor) -> Tensor:
    return torch.linalg.det(_covariance(x))


def _logdet(x: Tensor) -> Tensor:
    return torch.linalg.slogdet(_covariance(x))[1]


def _inverse(x: Tensor) -> Tensor:
    return torch.cholesky_inverse(torch.linalg.cholesky(_covariance(x)))


def _safe_solve(x: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(_covariance(x))
    half = torch.linalg.solve_triangular(factor, _RIGHT_SIDE[:, None], upper=False)
    return torch.linalg.solve_triangular(factor.mH, half, upper=True)[:, 0]


def _safe_logdet(x: Tensor) -> Tensor:
    return 2 * torch.linalg.cholesky(_covariance(x)).diagonal().log().sum()


def _safe_det(x: Tensor) -> Tensor:
    return _safe_logdet(x).exp()


def _safe_inverse(x: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(_covariance(x))
    whitener = torch.linalg.solve_triangular(factor, IDENTITY, upper=False)
    return whitener.mH @ whitener


def _precision_and_steps(x: Tensor) -> tuple[Tensor, Tensor]:
    """``P`` and ``P E_i``."""
    precision = torch.linalg.inv(_covariance(x))
    return precision, precision @ _DIRECTIONS


def _traces(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)


def _solve_gradient(x: Tensor) -> Tensor:
    precision, steps = _precision_and_steps(x)
    return -(steps @ precision @ _RIGHT_SIDE).mT


def _det_gradient(x: Tensor) -> Tensor:
    return torch.linalg.det(_covariance(x)) * _traces(_precision_and_steps(x)[1])


def _logdet_gradient(x: Tensor) -> Tensor:
    return _traces(_precision_and_steps(x)[1])


def _inverse_gradient(x: Tensor) -> Tensor:
    precision, steps = _precision_and_steps(x)
    return -(steps @ precision).movedim(0, -1)


def _solve_hessian(x: Tensor) -> Tensor:
    precision, steps = _precision_and_steps(x)
    ordered = torch.einsum("iab,jbc,c->aij", steps, steps, precision @ _RIGHT_SIDE)
    return ordered + ordered.mT


def _logdet_hessian(x: Tensor) -> Tensor:
    steps = _precision_and_steps(x)[1]
    return -torch.einsum("iab,jba->ij", steps, steps)


def _det_hessian(x: Tensor) -> Tensor:
    traces = _traces(_precision_and_steps(x)[1])
    return torch.linalg.det(_covariance(x)) * (torch.outer(traces, traces) + _logdet_hessian(x))


def _at_one_point(function: Function, truth: Function) -> float:
    return relative_error(function(POINTS[1]), truth(POINTS[1]))


def _vmapped_forward_fault(
    name: str, call: str, bare: Function, safe: Function, truth: Function, instead: str
) -> TorchFault:
    return TorchFault(
        name=f"vmap(jacfwd) of {name}",
        written=f"vmap(jacfwd(lambda x: {call}))(points)",
        explanation=(
            f"The forward derivative of {name} calls lu_solve with an LU of batch shape "
            "[points, 1] against one tangent per direction, and lu_solve broadcasts wrongly: only "
            "the first point is right. Without vmap, or with jacrev, the same derivative is right."
        ),
        safe_alternative=instead,
        measure=lambda: at_all_points(jacfwd(bare), truth),
        measure_safe=lambda: max(at_all_points(mode(safe), truth) for mode in FIRST_ORDER),
        upstream="the same cause as: lu_solve with a broadcast LU",
    )


def _nested_forward_fault(
    name: str,
    call: str,
    bare: Function,
    safe: Function,
    truth: Function,
    instead: str,
    upstream: str,
) -> TorchFault:
    return TorchFault(
        name=f"nested forward mode over {name}",
        written=f"jacfwd(jacfwd(lambda x: {call}))(x)",
        explanation=(
            f"The forward derivative of {name} uses the LU factors of the primal computation as if "
            "they were constants, so that differentiating it again (jacfwd, jvp or jacrev over it) "
            "loses terms."
        ),
        safe_alternative=instead,
        measure=lambda: _at_one_point(jacfwd(jacfwd(bare)), truth),
        measure_safe=lambda: max(_at_one_point(mode(safe), truth) for mode in SECOND_ORDER),
        upstream=upstream,
    )


# ---------------------------------------------------------------------- lu_solve

_SYSTEMS = normal(3, 4, SIZE, SIZE) + 3 * IDENTITY
_SOLUTIONS = normal(4, 4, 5, SIZE, 2)


def _lu_solve_error(*, contiguous: bool) -> float:
    """The right sides are made from known solutions: those are the truth."""
    factors, pivots = torch.linalg.lu_factor(_SYSTEMS)
    factors, pivots = factors[:, None], pivots[:, None]
    if contiguous:
        factors = factors.expand(4, 5, SIZE, SIZE).contiguous()
        pivots = pivots.expand(4, 5, SIZE).contiguous()
    right_sides = _SYSTEMS[:, None] @ _SOLUTIONS
    return relative_error(torch.linalg.lu_solve(factors, pivots, right_sides), _SOLUTIONS)


def _safe_triangular_error() -> float:
    positive = _SYSTEMS @ _SYSTEMS.mT
    factor = torch.linalg.cholesky(positive)[:, None]
    half = torch.linalg.solve_triangular(factor, positive[:, None] @ _SOLUTIONS, upper=False)
    solved = torch.linalg.solve_triangular(factor.mH, half, upper=True)
    return relative_error(solved, _SOLUTIONS)


# ---------------------------------------------------------------------- cholesky_solve
# The covariances at three points, shifted together by t; three right sides of size three.

_RIGHT_SIDES = normal(9, 3, SIZE)


def _shifted(t: Tensor) -> Tensor:
    return torch.stack([_covariance(x) for x in POINTS[:3]]) + t * _DIRECTIONS[0]


def _cholesky_solve(t: Tensor) -> Tensor:
    return torch.cholesky_solve(_RIGHT_SIDES, torch.linalg.cholesky(_shifted(t)))


def _safe_cholesky_solve(t: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(_shifted(t))
    half = torch.linalg.solve_triangular(factor, _RIGHT_SIDES, upper=False)
    return torch.linalg.solve_triangular(factor.mH, half, upper=True)


def _cholesky_solve_error(function: Function, mode: Transform) -> float:
    t = torch.zeros((), dtype=torch.float64)
    precision = torch.linalg.inv(_shifted(t))
    truth = -precision @ _DIRECTIONS[0] @ precision @ _RIGHT_SIDES
    return relative_error(mode(function)(t), truth)


# ---------------------------------------------------------------------- tied singular values

# A covariance with eigenvalues 1, 1, 2 (all but always: of a decoder with a scalar or diagonal Σ).
_BASIS = torch.linalg.qr(normal(8, SIZE, SIZE))[0]
_TIED = symmetric(_BASIS @ torch.diag(constant([1.0, 1.0, 2.0])) @ _BASIS.mT)


def _tied_covariance(x: Tensor) -> Tensor:
    return _TIED + torch.einsum("i,ijk->jk", x, _DIRECTIONS)


def _tied_truth() -> Tensor:
    precision = torch.linalg.inv(_TIED)
    steps = precision @ _DIRECTIONS
    traces = _traces(steps)
    ordered = torch.einsum("iab,jba->ij", steps, steps)
    return torch.linalg.det(_TIED) * (torch.outer(traces, traces) - ordered)


def _tied_error() -> float:
    def det(x: Tensor) -> Tensor:
        return torch.linalg.det(_tied_covariance(x))

    return relative_error(reverse_over_reverse(det)(ORIGIN), _tied_truth())


def _safe_tied_error() -> float:
    def det(x: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(_tied_covariance(x))
        return (2 * factor.diagonal().log().sum()).exp()

    return max(relative_error(mode(det)(ORIGIN), _tied_truth()) for mode in SECOND_ORDER)


BROADCAST = TorchFault(
    name="lu_solve with a broadcast LU",
    written="torch.linalg.lu_solve(LU[:, None], pivots[:, None], B)  # LU [4, 1], B [4, 5]",
    explanation=(
        "With an LU that broadcasts against B, batch entries after the first are solved with "
        "wrong factors. No derivative is involved; those of solve, det and slogdet inherit it."
    ),
    safe_alternative=(
        "expand LU and pivots to the batch of B before the call; for a positive definite "
        f"matrix, {BY_TRIANGLES} (which broadcast rightly)"
    ),
    measure=lambda: _lu_solve_error(contiguous=False),
    measure_safe=lambda: max(_lu_solve_error(contiguous=True), _safe_triangular_error()),
)
VMAPPED_SOLVE = _vmapped_forward_fault(
    "solve",
    "torch.linalg.solve(S(x), b)",
    _solve,
    _safe_solve,
    _solve_gradient,
    BY_TRIANGLES,
)
VMAPPED_DET = _vmapped_forward_fault(
    "det", "torch.linalg.det(S(x))", _det, _safe_det, _det_gradient, DET_BY_CHOLESKY
)
VMAPPED_SLOGDET = _vmapped_forward_fault(
    "slogdet",
    "torch.linalg.slogdet(S(x))[1]",
    _logdet,
    _safe_logdet,
    _logdet_gradient,
    LOG_DET_BY_CHOLESKY,
)
NESTED_SOLVE = _nested_forward_fault(
    "solve",
    "torch.linalg.solve(S(x), b)",
    _solve,
    _safe_solve,
    _solve_hessian,
    BY_TRIANGLES,
    "https://github.com/pytorch/pytorch/issues/192540",
)
NESTED_DET = _nested_forward_fault(
    "det",
    "torch.linalg.det(S(x))",
    _det,
    _safe_det,
    _det_hessian,
    DET_BY_CHOLESKY,
    "https://github.com/pytorch/pytorch/issues/192540",
)
NESTED_SLOGDET = _nested_forward_fault(
    "slogdet",
    "torch.linalg.slogdet(S(x))[1]",
    _logdet,
    _safe_logdet,
    _logdet_hessian,
    LOG_DET_BY_CHOLESKY,
    "https://github.com/pytorch/pytorch/issues/192540",
)
CHOLESKY_INVERSE = TorchFault(
    name="forward derivative of cholesky_inverse",
    written="jacfwd(lambda x: torch.cholesky_inverse(torch.linalg.cholesky(S(x))))(x)",
    explanation=(
        "The forward rule multiplies its factors in the wrong order. The first derivative is "
        "already wrong; jacrev of the same line is right, hessian of it is not."
    ),
    safe_alternative=(
        "W = solve_triangular(cholesky(S), I, upper=False), then W.mH @ W; better, solve for "
        "what the inverse is to be applied to"
    ),
    measure=lambda: _at_one_point(jacfwd(_inverse), _inverse_gradient),
    measure_safe=lambda: max(
        _at_one_point(mode(_safe_inverse), _inverse_gradient) for mode in FIRST_ORDER
    ),
    upstream="https://github.com/pytorch/pytorch/issues/196682",
)
CHOLESKY_SOLVE = TorchFault(
    name="forward derivative of cholesky_solve, shared right side",
    written="jacfwd(lambda t: cholesky_solve(B, cholesky(S(t))))(t)  # S [3, 3, 3], B [3, 3]",
    explanation=(
        "Where the shape of B is that of S less its last dimension, the forward rule takes the "
        "shared matrix B for a batch of vectors. Other shapes, and jacrev, are right."
    ),
    safe_alternative=BY_TRIANGLES,
    measure=lambda: _cholesky_solve_error(_cholesky_solve, jacfwd),
    measure_safe=lambda: max(
        _cholesky_solve_error(_safe_cholesky_solve, mode) for mode in FIRST_ORDER
    ),
    upstream="https://github.com/pytorch/pytorch/issues/196694",
)
TIED_DET = TorchFault(
    name="second derivative of det where singular values tie",
    written="jacrev(jacrev(lambda x: torch.linalg.det(S(x))))(x)  # S with eigenvalues 1, 1, 2",
    explanation=(
        "Under torch.func the backward of det goes through an SVD, whose derivative divides by "
        "the gaps between singular values. Where two of them tie, the second derivative is "
        "noise or NaN, in reverse over reverse too."
    ),
    safe_alternative=DET_BY_CHOLESKY,
    measure=_tied_error,
    measure_safe=_safe_tied_error,
    upstream="https://github.com/pytorch/pytorch/issues/192521",
)
