"""The precision that fits second moments: a concave problem, with no new geodesics.

-½ tr(ΓS) - log C(Γ) is concave in Γ, with the gradient ½ (E[vvᵀ] - S) and the negative covariance
of the entries of ½ vvᵀ as its Hessian.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 100
ARMIJO = 1e-4


class Fit(NamedTuple):
    """A precision and its value.

    Attributes:
        precision: Γ [d, d]; not positive definite where no normal law has these moments.
        value: -½ tr(ΓS) - log C.
        log_normaliser: log C.
        probabilities: of the nodes, [Q].
    """

    precision: Tensor
    value: Tensor
    log_normaliser: Tensor
    probabilities: Tensor


def log_normaliser(v: Tensor, weights: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """log ∫ exp(-½ vᵀΓv) by nodes v [Q, d] and weights [Q], and the nodes' probabilities."""
    exponent = -((v @ precision) * v).sum(-1) / 2
    most = exponent.max()
    mass = weights * (exponent - most).exp()
    total = mass.sum()
    return most + total.log(), mass / total


def fit_precision(v: Tensor, weights: Tensor, moments: Tensor) -> Fit:
    """Γ with E[vvᵀ] = S by Newton's method.

    Args:
        v: nodes [Q, d].
        weights: [Q].
        moments: S [d, d], positive definite.
    """
    d = v.shape[-1]
    root = torch.linalg.cholesky(moments)
    white = torch.linalg.solve_triangular(root, v.mT, upper=False).mT
    rows, columns = torch.tril_indices(d, d)
    twice = torch.where(rows == columns, 1.0, 2.0).to(v)
    features = -white[:, rows] * white[:, columns] * twice / 2  # the exponent is features @ θ
    goal = -(rows == columns).to(v) / 2

    def value(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        exponent = features @ theta
        most = exponent.max()
        mass = weights * (exponent - most).exp()
        total = mass.sum()
        log_c = most + total.log()
        return goal @ theta - log_c, log_c, mass / total

    theta = (rows == columns).to(v)
    best, log_c, p = value(theta)
    for _ in range(STEPS):
        mean = p @ features
        gradient = goal - mean
        information = (features * p[:, None]).mT @ features - torch.outer(mean, mean)
        ridge = 1e-14 * information.diagonal().sum() * torch.eye(len(theta)).to(v)
        step, singular = torch.linalg.solve_ex(information + ridge, gradient)
        slope, size = gradient @ step, 1.0
        # where nodes cannot have S, the mass ends at one of them, and Γ is not positive definite
        if bool(singular) or not float(slope) >= 1e-15:
            break
        while True:
            there = value(theta + size * step)
            if float(there[0] - best) >= ARMIJO * size * float(slope) or size < 1e-6:
                break
            size /= 2
        if not float(there[0]) > float(best):
            break
        theta = theta + size * step
        best, log_c, p = there
    whole = torch.zeros(d, d).to(v)
    whole[rows, columns] = theta
    whole = whole + whole.tril(-1).mT
    half = torch.linalg.solve_triangular(root.mT, whole, upper=True)
    precision = torch.linalg.solve_triangular(root.mT, half.mT, upper=True).mT
    return Fit((precision + precision.mT) / 2, best, log_c, p)
