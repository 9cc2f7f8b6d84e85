"""What torch differentiates wrongly without an error, measured on the torch that is installed.

Each fault is a derivative (once: a plain solution) that a user would write in good faith, next to
the closed form of the same number and to a way of writing it that is right. Nothing is assumed of
any version: `run_self_test` measures, and a fault that the installed torch no longer has is
reported as absent. docs/what-autograd-gets-wrong.md tells the story, with the numbers of one run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import hessian, jacfwd, jacrev, vmap

__all__ = ["FAULTS", "PRESENT_ABOVE", "AutogradFault", "FaultReport", "run_self_test"]

PRESENT_ABOVE = 1e-6
"""A fault is present if torch's number is off by more than this, relatively, in float64."""

Function = Callable[[Tensor], Tensor]
Transform = Callable[[Function], Function]


@dataclass(frozen=True)
class AutogradFault:
    """One way to get a wrong number without an error.

    Attributes:
        name: Short, for tables.
        written: What a user would write.
        explanation: What goes wrong, in a sentence or two.
        safe_alternative: What to write instead.
        measure: The relative error of what the user wrote, against a closed form.
        measure_safe: The relative error of the alternative, in every mode that it is advised for.
        upstream: Where torch's developers track it, if we know.
    """

    name: str
    written: str
    explanation: str
    safe_alternative: str
    measure: Callable[[], float]
    measure_safe: Callable[[], float]
    upstream: str = ""


@dataclass(frozen=True)
class FaultReport:
    """What the installed torch does with one `AutogradFault`.

    Attributes:
        name: The fault's name.
        present: Whether torch returned a wrong number.
        relative_error: How wrong; inf where torch's number is NaN, NaN where torch refused.
        explanation: What goes wrong, or that it no longer does.
        safe_alternative: What to write instead.
        safe_relative_error: How far that is from the truth.
        written: What a user would write.
        upstream: Where torch's developers track it, if we know.
        torch_version: The torch that was measured.
    """

    name: str
    present: bool
    relative_error: float
    explanation: str
    safe_alternative: str
    safe_relative_error: float
    written: str
    upstream: str
    torch_version: str


def run_self_test() -> list[FaultReport]:
    """Measure every fault on the installed torch, on the CPU; takes about a second."""
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
        return [_report(fault) for fault in FAULTS]


def _report(fault: AutogradFault) -> FaultReport:
    try:
        error = fault.measure()
    except RuntimeError as refusal:
        # A torch that refuses is loud: that is no silent fault.
        error = math.nan
        explanation = f"torch {torch.__version__} refuses: {str(refusal).splitlines()[0]}"
    else:
        explanation = fault.explanation
        if error <= PRESENT_ABOVE:
            explanation = f"torch {torch.__version__} gets this right. Elsewhere: {explanation}"
    return FaultReport(
        name=fault.name,
        present=error > PRESENT_ABOVE,
        relative_error=error,
        explanation=explanation,
        safe_alternative=fault.safe_alternative,
        safe_relative_error=fault.measure_safe(),
        written=fault.written,
        upstream=fault.upstream,
        torch_version=torch.__version__,
    )


def _relative_error(number: Tensor, truth: Tensor) -> float:
    error = ((number - truth).abs().max() / truth.abs().max()).item()
    return math.inf if math.isnan(error) else error


# ---------------------------------------------------------------------- modes


def _reverse_over_reverse(function: Function) -> Function:
    return jacrev(jacrev(function))


def _forward_over_reverse(function: Function) -> Function:
    return jacfwd(jacrev(function))


def _forward_over_forward(function: Function) -> Function:
    return jacfwd(jacfwd(function))


_FIRST_ORDER: tuple[Transform, ...] = (jacfwd, jacrev)
_SECOND_ORDER = (_reverse_over_reverse, _forward_over_reverse, _forward_over_forward)


# ---------------------------------------------------------------------- a family of covariances
# S(x) = C + x_1 E_1 + x_2 E_2, real symmetric, positive definite at the four points used: the
# smallest case of a covariance that depends on a latent. Its derivatives have closed forms in
# P = S(x)^{-1}.

_SIZE = 3


# The data lie on the CPU whatever the default device is when this module is imported.
def _constant(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def _normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, dtype=dtype, device="cpu", generator=generator)


_IDENTITY = _constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
_POINTS = _constant([[0.0, 0.0], [0.3, -0.2], [-0.4, 0.1], [0.2, 0.5]])


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


_CENTRE = _symmetric(_normal(0, _SIZE, _SIZE)) + 5 * _IDENTITY
_DIRECTIONS = _symmetric(_normal(1, 2, _SIZE, _SIZE))
_RIGHT_SIDE = _normal(2, _SIZE)


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
    whitener = torch.linalg.solve_triangular(factor, _IDENTITY, upper=False)
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


def _at_all_points(function: Function, truth: Function) -> float:
    """The worst error of ``vmap(function)``; the truth is computed point by point."""
    return _relative_error(vmap(function)(_POINTS), torch.stack([truth(x) for x in _POINTS]))


def _at_one_point(function: Function, truth: Function) -> float:
    return _relative_error(function(_POINTS[1]), truth(_POINTS[1]))


def _vmapped_forward_fault(
    name: str, call: str, bare: Function, safe: Function, truth: Function, instead: str
) -> AutogradFault:
    return AutogradFault(
        name=f"vmap(jacfwd) of {name}",
        written=f"vmap(jacfwd(lambda x: {call}))(points)",
        explanation=(
            f"The forward derivative of {name} calls lu_solve with an LU of batch shape "
            "[points, 1] against one tangent per direction, and lu_solve broadcasts wrongly: only "
            "the first point is right. Without vmap, or with jacrev, the same derivative is right."
        ),
        safe_alternative=instead,
        measure=lambda: _at_all_points(jacfwd(bare), truth),
        measure_safe=lambda: max(_at_all_points(mode(safe), truth) for mode in _FIRST_ORDER),
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
) -> AutogradFault:
    return AutogradFault(
        name=f"nested forward mode over {name}",
        written=f"jacfwd(jacfwd(lambda x: {call}))(x)",
        explanation=(
            f"The forward derivative of {name} uses the LU factors of the primal computation as if "
            "they were constants, so that differentiating it again (jacfwd, jvp or jacrev over it) "
            "loses terms."
        ),
        safe_alternative=instead,
        measure=lambda: _at_one_point(jacfwd(jacfwd(bare)), truth),
        measure_safe=lambda: max(_at_one_point(mode(safe), truth) for mode in _SECOND_ORDER),
        upstream=upstream,
    )


# ---------------------------------------------------------------------- lu_solve

_SYSTEMS = _normal(3, 4, _SIZE, _SIZE) + 3 * _IDENTITY
_SOLUTIONS = _normal(4, 4, 5, _SIZE, 2)


def _lu_solve_error(*, contiguous: bool) -> float:
    """The right sides are made from known solutions: those are the truth."""
    factors, pivots = torch.linalg.lu_factor(_SYSTEMS)
    factors, pivots = factors[:, None], pivots[:, None]
    if contiguous:
        factors = factors.expand(4, 5, _SIZE, _SIZE).contiguous()
        pivots = pivots.expand(4, 5, _SIZE).contiguous()
    right_sides = _SYSTEMS[:, None] @ _SOLUTIONS
    return _relative_error(torch.linalg.lu_solve(factors, pivots, right_sides), _SOLUTIONS)


def _safe_triangular_error() -> float:
    positive = _SYSTEMS @ _SYSTEMS.mT
    factor = torch.linalg.cholesky(positive)[:, None]
    half = torch.linalg.solve_triangular(factor, positive[:, None] @ _SOLUTIONS, upper=False)
    solved = torch.linalg.solve_triangular(factor.mH, half, upper=True)
    return _relative_error(solved, _SOLUTIONS)


# ---------------------------------------------------------------------- cholesky_solve
# The covariances at three points, shifted together by t; three right sides of size three.

_RIGHT_SIDES = _normal(9, 3, _SIZE)


def _shifted(t: Tensor) -> Tensor:
    return torch.stack([_covariance(x) for x in _POINTS[:3]]) + t * _DIRECTIONS[0]


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
    return _relative_error(mode(function)(t), truth)


# ---------------------------------------------------------------------- a textbook Gaussian KL
# x ↦ CN(M x, A(x) A(x)ᴴ + I) with A(x) = A_0 + x_1 A_1 + x_2 A_2; two real coordinates x.

_MEAN_MAP = _normal(5, _SIZE, 2, dtype=torch.complex128)
_ROOT_CENTRE = _normal(6, _SIZE, _SIZE, dtype=torch.complex128)
_ROOT_DIRECTIONS = _normal(7, 2, _SIZE, _SIZE, dtype=torch.complex128)


def _gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    z = x.to(torch.complex128)
    root = _ROOT_CENTRE + torch.einsum("i,ijk->jk", z, _ROOT_DIRECTIONS)
    return _MEAN_MAP @ z, root @ root.mH + _IDENTITY


def _textbook_kl(x: Tensor, y: Tensor) -> Tensor:
    mean_0, covariance_0 = _gaussian(x)
    mean_1, covariance_1 = _gaussian(y)
    residual = mean_1 - mean_0
    logdet_0 = torch.linalg.slogdet(covariance_0)[1]
    logdet_1 = torch.linalg.slogdet(covariance_1)[1]
    trace = torch.linalg.solve(covariance_1, covariance_0).diagonal().sum().real
    quadratic = (residual.conj() @ torch.linalg.solve(covariance_1, residual)).real
    return logdet_1 - logdet_0 - _SIZE + trace + quadratic


def _safe_kl(x: Tensor, y: Tensor) -> Tensor:
    mean_0, covariance_0 = _gaussian(x)
    mean_1, covariance_1 = _gaussian(y)
    factor_0 = torch.linalg.cholesky(covariance_0)
    factor_1 = torch.linalg.cholesky(covariance_1)
    columns = torch.cat([factor_0, (mean_1 - mean_0)[:, None]], 1)
    white = torch.linalg.solve_triangular(factor_1, columns, upper=False)
    logdet_0 = 2 * factor_0.diagonal().real.log().sum()
    logdet_1 = 2 * factor_1.diagonal().real.log().sum()
    return logdet_1 - logdet_0 - _SIZE + (white * white.conj()).real.sum()


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


# ---------------------------------------------------------------------- squares at zero

_ORIGIN = _constant([0.0, 0.0])
_ROUND = _constant([[2.0, 0.0], [0.0, 2.0]])  # the Hessian of x² + y²


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
    return max(_relative_error(mode(function)(_ORIGIN), _ROUND) for mode in _SECOND_ORDER)


# ---------------------------------------------------------------------- tied singular values

# A covariance with eigenvalues 1, 1, 2 (all but always: of a decoder with a scalar or diagonal Σ).
_BASIS = torch.linalg.qr(_normal(8, _SIZE, _SIZE))[0]
_TIED = _symmetric(_BASIS @ torch.diag(_constant([1.0, 1.0, 2.0])) @ _BASIS.mT)


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

    return _relative_error(_reverse_over_reverse(det)(_ORIGIN), _tied_truth())


def _safe_tied_error() -> float:
    def det(x: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(_tied_covariance(x))
        return (2 * factor.diagonal().log().sum()).exp()

    return max(_relative_error(mode(det)(_ORIGIN), _tied_truth()) for mode in _SECOND_ORDER)


# ---------------------------------------------------------------------- normalisation
# y = c q^(-1/2) with c = H(M x + b) linear in x (H takes the mean away) and q = mean(c²) + ε.

_FEATURES = 4
_SPREAD = _normal(10, _FEATURES, 2)
_OFFSET = _normal(11, _FEATURES)
_EPSILON = 1e-5
_POINT = _constant([0.3, -0.2])


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
    c = _features(_POINT) - _features(_POINT).mean()
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
    return _relative_error(function(_POINT), _norm_derivative(order))


def _safe_norm_error() -> float:
    third = (jacfwd(jacfwd(jacfwd(_safe_norm))), jacrev(jacrev(jacrev(_safe_norm))))
    errors = [_norm_error(mode(_safe_norm), 2) for mode in _SECOND_ORDER]
    return max(*errors, *[_norm_error(function, 3) for function in third])


def _nested_norm_fault(name: str, call: str, bare: Function) -> AutogradFault:
    return AutogradFault(
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


# ---------------------------------------------------------------------- distances

_CENTRES = _normal(12, 3, 2)


def _distances(x: Tensor) -> Tensor:
    return torch.cdist(x[None], _CENTRES)[0]


def _safe_distances(x: Tensor) -> Tensor:
    return ((x - _CENTRES) * (x - _CENTRES)).sum(-1).sqrt()


def _distances_error(function: Function, mode: Transform) -> float:
    steps = _POINT - _CENTRES
    truth = steps / torch.linalg.vector_norm(steps, dim=-1, keepdim=True)
    return _relative_error(mode(function)(_POINT), truth)


# ---------------------------------------------------------------------- the register

_WRITTEN_OUT = (
    "c * rsqrt((c * c).mean(-1, keepdim=True) + eps) with c = x - x.mean(-1, keepdim=True)"
)
_CHOLESKY_SOLVE = "two solve_triangular calls on cholesky(S)"
_CHOLESKY_LOGDET = "2 * cholesky(S).diagonal().real.log().sum()"
_CHOLESKY_DET = f"exp of {_CHOLESKY_LOGDET}"

FAULTS: tuple[AutogradFault, ...] = (
    AutogradFault(
        name="lu_solve with a broadcast LU",
        written="torch.linalg.lu_solve(LU[:, None], pivots[:, None], B)  # LU [4, 1], B [4, 5]",
        explanation=(
            "With an LU that broadcasts against B, batch entries after the first are solved with "
            "wrong factors. No derivative is involved; those of solve, det and slogdet inherit it."
        ),
        safe_alternative=(
            "expand LU and pivots to the batch of B before the call; for a positive definite "
            f"matrix, {_CHOLESKY_SOLVE} (which broadcast rightly)"
        ),
        measure=lambda: _lu_solve_error(contiguous=False),
        measure_safe=lambda: max(_lu_solve_error(contiguous=True), _safe_triangular_error()),
    ),
    _vmapped_forward_fault(
        "solve",
        "torch.linalg.solve(S(x), b)",
        _solve,
        _safe_solve,
        _solve_gradient,
        _CHOLESKY_SOLVE,
    ),
    _vmapped_forward_fault(
        "det", "torch.linalg.det(S(x))", _det, _safe_det, _det_gradient, _CHOLESKY_DET
    ),
    _vmapped_forward_fault(
        "slogdet",
        "torch.linalg.slogdet(S(x))[1]",
        _logdet,
        _safe_logdet,
        _logdet_gradient,
        _CHOLESKY_LOGDET,
    ),
    AutogradFault(
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
        measure=lambda: _at_all_points(_kl_hessian(_textbook_kl, hessian), _fisher),
        measure_safe=lambda: max(
            _at_all_points(_kl_hessian(_safe_kl, mode), _fisher) for mode in _SECOND_ORDER
        ),
        upstream="the same cause as: lu_solve with a broadcast LU",
    ),
    _nested_forward_fault(
        "solve",
        "torch.linalg.solve(S(x), b)",
        _solve,
        _safe_solve,
        _solve_hessian,
        _CHOLESKY_SOLVE,
        "https://github.com/pytorch/pytorch/issues/192540",
    ),
    _nested_forward_fault(
        "det",
        "torch.linalg.det(S(x))",
        _det,
        _safe_det,
        _det_hessian,
        _CHOLESKY_DET,
        "https://github.com/pytorch/pytorch/issues/192540",
    ),
    _nested_forward_fault(
        "slogdet",
        "torch.linalg.slogdet(S(x))[1]",
        _logdet,
        _safe_logdet,
        _logdet_hessian,
        _CHOLESKY_LOGDET,
        "https://github.com/pytorch/pytorch/issues/192540",
    ),
    AutogradFault(
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
            _at_one_point(mode(_safe_inverse), _inverse_gradient) for mode in _FIRST_ORDER
        ),
        upstream="https://github.com/pytorch/pytorch/issues/196682",
    ),
    AutogradFault(
        name="forward derivative of cholesky_solve, shared right side",
        written="jacfwd(lambda t: cholesky_solve(B, cholesky(S(t))))(t)  # S [3, 3, 3], B [3, 3]",
        explanation=(
            "Where the shape of B is that of S less its last dimension, the forward rule takes the "
            "shared matrix B for a batch of vectors. Other shapes, and jacrev, are right."
        ),
        safe_alternative=_CHOLESKY_SOLVE,
        measure=lambda: _cholesky_solve_error(_cholesky_solve, jacfwd),
        measure_safe=lambda: max(
            _cholesky_solve_error(_safe_cholesky_solve, mode) for mode in _FIRST_ORDER
        ),
        upstream="https://github.com/pytorch/pytorch/issues/196694",
    ),
    AutogradFault(
        name="Hessian of abs()**2 at 0",
        written="hessian(lambda x: torch.complex(x[0], x[1]).abs() ** 2)(torch.zeros(2))",
        explanation=(
            "The derivative of abs at 0 is taken to be 0, so that the chain rule gives 2 |z| · 0: "
            "the Hessian of x² + y² at 0 comes out as 0 instead of 2 I, in every mode. A KL at its "
            "diagonal is such a point."
        ),
        safe_alternative="(z * z.conj()).real",
        measure=lambda: _relative_error(hessian(_abs_squared)(_ORIGIN), _ROUND),
        measure_safe=lambda: _worst_at_origin(_safe_complex_square),
    ),
    AutogradFault(
        name="Hessian of vector_norm**2 at 0",
        written="hessian(lambda x: torch.linalg.vector_norm(x) ** 2)(torch.zeros(2))",
        explanation=(
            "As for abs: the norm's derivative at 0 is taken to be 0, so the Hessian of its square "
            "comes out as 0 instead of 2 I (and as NaN in reverse over reverse)."
        ),
        safe_alternative="(x * x).sum(), or (z * z.conj()).real.sum()",
        measure=lambda: _relative_error(hessian(_vector_norm_squared)(_ORIGIN), _ROUND),
        measure_safe=lambda: _worst_at_origin(_safe_real_square),
        upstream="https://github.com/pytorch/pytorch/issues/92075",
    ),
    AutogradFault(
        name="second derivative of det where singular values tie",
        written="jacrev(jacrev(lambda x: torch.linalg.det(S(x))))(x)  # S with eigenvalues 1, 1, 2",
        explanation=(
            "Under torch.func the backward of det goes through an SVD, whose derivative divides by "
            "the gaps between singular values. Where two of them tie, the second derivative is "
            "noise or NaN, in reverse over reverse too."
        ),
        safe_alternative=_CHOLESKY_DET,
        measure=_tied_error,
        measure_safe=_safe_tied_error,
        upstream="https://github.com/pytorch/pytorch/issues/192521",
    ),
    _nested_norm_fault("layer_norm", "layer_norm(M @ x + b, (4,))", _layer_norm),
    _nested_norm_fault("instance_norm", "instance_norm((M @ x + b)[None, None])", _instance_norm),
    AutogradFault(
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
    ),
    AutogradFault(
        name="jacrev of cdist",
        written="jacrev(lambda x: torch.cdist(x[None], centres)[0])(x)",
        explanation=(
            "The backward of cdist is wrong under vmap, by which jacrev goes through the outputs: "
            "with chunk_size=1, which does without, it is right. There is no forward rule."
        ),
        safe_alternative="((x - centres) * (x - centres)).sum(-1).sqrt()",
        measure=lambda: _distances_error(_distances, jacrev),
        measure_safe=lambda: max(_distances_error(_safe_distances, m) for m in _FIRST_ORDER),
    ),
)
