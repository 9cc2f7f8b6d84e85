"""What torch differentiates wrongly without an error, measured on the torch that is installed.

Each fault is a derivative (once: a plain solution) that a user would write in good faith, next to
the closed form of the same number and to a way of writing it that is right. Nothing is assumed of
any version: `run_self_test` measures, and a fault that the installed torch no longer has is
reported as absent. docs/what-autograd-gets-wrong.md tells the story, with the numbers of one run.
"""

import math
from dataclasses import dataclass

import torch

from kahler_verify.evidence.routes.torch_faults.distances import ABS_SQUARED, CDIST, NORM_SQUARED
from kahler_verify.evidence.routes.torch_faults.divergence import TEXTBOOK_KL
from kahler_verify.evidence.routes.torch_faults.fault import TorchFault
from kahler_verify.evidence.routes.torch_faults.linear_algebra import (
    BROADCAST,
    CHOLESKY_INVERSE,
    CHOLESKY_SOLVE,
    NESTED_DET,
    NESTED_SLOGDET,
    NESTED_SOLVE,
    TIED_DET,
    VMAPPED_DET,
    VMAPPED_SLOGDET,
    VMAPPED_SOLVE,
)
from kahler_verify.evidence.routes.torch_faults.normalisation import (
    NESTED_INSTANCE_NORM,
    NESTED_LAYER_NORM,
    THIRD_LAYER_NORM,
)

PRESENT_ABOVE = 1e-6
"""A fault is present if torch's number is off by more than this, relatively, in float64."""


@dataclass(frozen=True)
class FaultReport:
    """What the installed torch does with one `TorchFault`.

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


def _report(fault: TorchFault) -> FaultReport:
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


FAULTS: tuple[TorchFault, ...] = (
    BROADCAST,
    VMAPPED_SOLVE,
    VMAPPED_DET,
    VMAPPED_SLOGDET,
    TEXTBOOK_KL,
    NESTED_SOLVE,
    NESTED_DET,
    NESTED_SLOGDET,
    CHOLESKY_INVERSE,
    CHOLESKY_SOLVE,
    ABS_SQUARED,
    NORM_SQUARED,
    TIED_DET,
    NESTED_LAYER_NORM,
    NESTED_INSTANCE_NORM,
    THIRD_LAYER_NORM,
    CDIST,
)


__all__ = ["FAULTS", "PRESENT_ABOVE", "FaultReport", "run_self_test"]
