"""Student's t outputs with degrees of freedom that do not depend on z; Cauchy ones."""

import torch
from torch.distributions import Cauchy, StudentT

from kahler_verify.likelihoods.register import Letters, Likelihood, likelihood


def _fields(law: StudentT | Cauchy) -> Letters:
    return {"location": law.loc, "scale": law.scale}


likelihood(
    StudentT,
    Likelihood(
        "Student's t",
        "student_t",
        _fields,
        constants=lambda law: {"nu": law.df},
        positive=("scale", "nu"),
    ),
)
likelihood(
    Cauchy,
    Likelihood(
        "Cauchy",
        "student_t",
        _fields,
        constants=lambda law: {"nu": torch.ones_like(law.scale)},
        positive=("scale",),
    ),
)
