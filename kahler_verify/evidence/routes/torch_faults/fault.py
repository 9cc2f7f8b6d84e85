"""What a silent fault of torch is, and what its measurements share: modes, points and numbers."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

Function = Callable[[Tensor], Tensor]
Transform = Callable[[Function], Function]


@dataclass(frozen=True)
class TorchFault:
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


def relative_error(number: Tensor, truth: Tensor) -> float:
    """Relative to the largest entry of the truth; inf for what is NaN."""
    error = ((number - truth).abs().max() / truth.abs().max()).item()
    return math.inf if math.isnan(error) else error


def reverse_over_reverse(function: Function) -> Function:
    """The Hessian by jacrev twice."""
    return jacrev(jacrev(function))


def forward_over_reverse(function: Function) -> Function:
    """The Hessian as torch.func.hessian takes it."""
    return jacfwd(jacrev(function))


def forward_over_forward(function: Function) -> Function:
    """The Hessian by jacfwd twice."""
    return jacfwd(jacfwd(function))


FIRST_ORDER: tuple[Transform, ...] = (jacfwd, jacrev)
SECOND_ORDER = (reverse_over_reverse, forward_over_reverse, forward_over_forward)


SIZE = 3


# The data lie on the CPU whatever the default device is when this module is imported.
def constant(values: list) -> Tensor:
    """A float64 tensor on the CPU."""
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers, the same in every run."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, dtype=dtype, device="cpu", generator=generator)


IDENTITY = constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
POINTS = constant([[0.0, 0.0], [0.3, -0.2], [-0.4, 0.1], [0.2, 0.5]])


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part."""
    return (matrix + matrix.mT) / 2


def at_all_points(function: Function, truth: Function) -> float:
    """The worst error of ``vmap(function)``; the truth is computed point by point."""
    return relative_error(vmap(function)(POINTS), torch.stack([truth(x) for x in POINTS]))


ORIGIN = constant([0.0, 0.0])
POINT = constant([0.3, -0.2])
BY_TRIANGLES = "two solve_triangular calls on cholesky(S)"
LOG_DET_BY_CHOLESKY = "2 * cholesky(S).diagonal().real.log().sum()"
DET_BY_CHOLESKY = f"exp of {LOG_DET_BY_CHOLESKY}"
