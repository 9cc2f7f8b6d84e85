"""Complex Gaussians at real latents: real Gaussians of twice as many numbers."""

import torch
from torch.distributions import MultivariateNormal, Normal

from kahler_verify.distributions import ComplexNormal


def of_real_parts(law: ComplexNormal) -> Normal | MultivariateNormal:
    """The law of (Re x, Im x): independent, of Σ/2 each, where x is circular and Σ diagonal.

    Its metric is that of derivations/likelihoods/real_gaussian_kl.py, complex_gaussian_of_real.
    """
    if not law.is_circular or law.scale_diag is None:
        return law.to_real()
    mean = torch.cat([law.loc.real, law.loc.imag], -1)
    scale = law.scale_diag.expand_as(law.loc.real) * 0.5**0.5
    return Normal(mean, torch.cat([scale, scale], -1))
