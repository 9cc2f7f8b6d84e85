"""Every error that kahler_verify raises on purpose, one class per stage."""

__all__ = [
    "CheckpointError",
    "CompilationError",
    "CurveError",
    "DerivationError",
    "EvidenceError",
    "FieldError",
    "GenerationError",
    "InputError",
    "KahlerVerifyError",
    "PropertyViolation",
]


class KahlerVerifyError(Exception):
    """Base class: catching it catches every error of this package."""


class DerivationError(KahlerVerifyError):
    """A definition is malformed, or the calculus cannot differentiate it."""


class GenerationError(KahlerVerifyError):
    """An expression cannot be printed, or kernels and derivations disagree."""


class CompilationError(GenerationError):
    """``torch.compile`` was asked for and cannot work on this machine."""


class InputError(KahlerVerifyError, ValueError):
    """An argument has the wrong shape, dtype, device or value."""


class CurveError(KahlerVerifyError):
    """A curve was not found; ``report`` says for each pair how its search ended."""

    def __init__(self, message: str, report: object = None):
        super().__init__(message)
        self.report = report


class FieldError(KahlerVerifyError):
    """Work in many tasks could not be finished; what is done of it is kept."""


class CheckpointError(KahlerVerifyError):
    """A checkpoint is foreign, truncated, or inconsistent with its configuration."""


class EvidenceError(KahlerVerifyError):
    """A check could not be carried out, or a claim exercised no sample."""


class PropertyViolation(EvidenceError, AssertionError):
    """A property that was checked does not hold; the message carries the numbers."""
