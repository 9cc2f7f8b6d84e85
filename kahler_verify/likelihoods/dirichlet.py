"""Dirichlet outputs."""

from torch.distributions import Dirichlet

from kahler_verify.likelihoods.register import Likelihood, likelihood

likelihood(
    Dirichlet,
    Likelihood(
        "Dirichlet",
        "dirichlet",
        lambda law: {"alpha": law.concentration},
        axes={"alpha": 1},
        positive=("alpha",),
    ),
)
