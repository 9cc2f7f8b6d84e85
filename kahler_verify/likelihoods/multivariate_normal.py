"""Real Gaussians with a full covariance."""

from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal
from torch.linalg import cholesky

from kahler_verify.likelihoods.register import Letters, Likelihood, likelihood


def _fields(law: MultivariateNormal) -> Letters:
    factor: Tensor = law._unbroadcasted_scale_tril
    Sigma = (factor @ factor.mT).expand(*law.batch_shape, -1, -1)  # one for all points, maybe
    return {"mu": law.loc, "Sigma": Sigma}


def _low_rank(law: LowRankMultivariateNormal) -> Letters:
    return {"mu": law.loc, "Sigma": law.covariance_matrix}


for kind, fields in ((MultivariateNormal, _fields), (LowRankMultivariateNormal, _low_rank)):
    likelihood(
        kind,
        Likelihood(
            "Gaussian with a full covariance",
            "real_gaussian_kl",
            fields,
            values=lambda letters: {"Sigma_factor": cholesky(letters["Sigma"])},
            layout="full",
            axes={"mu": 1, "Sigma": 2},
        ),
    )
