"""Circular complex Gaussians at real latents."""

import torch

from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import InputError
from kahler_verify.likelihoods.register import Letters, Likelihood, likelihood


def _fields(law: ComplexNormal) -> Letters:
    if not law.is_circular:
        raise InputError("decoder: expected a circular ComplexNormal at real latents")
    if law.scale_diag is None:
        raise InputError(
            f"decoder: expected a ComplexNormal of diagonal structure at real latents, got "
            f"{law.structure}"
        )
    return {"mu": law.loc, "Sigma": law.scale_diag * law.scale_diag}


likelihood(
    ComplexNormal,
    Likelihood(
        "circular complex Gaussian",
        "complex_gaussian_of_real",
        _fields,
        values=lambda letters: {"Sigma_factor": torch.sqrt(letters["Sigma"])},
        layout="diagonal",
        positive=("Sigma",),
    ),
)
