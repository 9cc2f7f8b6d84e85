"""Independent real Gaussians, and what is one up to a map of x that does not depend on z."""

from torch.distributions import LogNormal, Normal

from kahler_verify.likelihoods.register import Letters, Likelihood, likelihood


def _factor(letters: Letters) -> Letters:
    return {"Sigma_factor": letters["Sigma"].sqrt()}


SCALAR = Likelihood(
    "Gaussian with one variance",
    "real_gaussian_kl",
    lambda law: {"mu": law.loc, "Sigma": law.variance},
    values=_factor,
    layout="scalar",
    independent_gaussian=True,
)
DIAGONAL = likelihood(
    Normal,
    Likelihood(
        "Gaussian",
        "real_gaussian_kl",
        lambda law: {"mu": law.loc, "Sigma": law.scale * law.scale},
        values=_factor,
        layout="diagonal",
        independent_gaussian=True,
    ),
)
likelihood(
    LogNormal,
    Likelihood(
        "log-normal",
        "real_gaussian_kl",
        lambda law: {"mu": law.loc, "Sigma": law.scale * law.scale},
        values=_factor,
        layout="diagonal",
        independent_gaussian=True,
    ),
)
