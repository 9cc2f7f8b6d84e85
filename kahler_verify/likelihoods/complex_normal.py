"""Circular complex Gaussians at real latents."""

import torch
from torch.distributions import Normal

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


def of_real_parts(law: ComplexNormal) -> Normal | None:
    """The law of (Re x, Im x), of halves of Σ each; None unless x is circular and Σ diagonal."""
    if not law.is_circular or law.scale_diag is None:
        return None
    mean = torch.cat([law.loc.real, law.loc.imag], -1)
    scale = law.scale_diag.expand_as(law.loc.real) * 0.5**0.5
    return Normal(mean, torch.cat([scale, scale], -1))
