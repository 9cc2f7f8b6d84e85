"""The Fisher metric of a Gaussian by torch.distributions' KL, and by scores of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import jacfwd, jacrev

from kahler_verify.calculus.definition import OnDiagonal, Partial
from kahler_verify.calculus.derivation import Output
from kahler_verify.calculus.letters import Jet
from kahler_verify.evidence.finding import EPSILON, Finding
from kahler_verify.evidence.numbers.readings import fields_of
from kahler_verify.evidence.routes.autograd import Place, evaluate
from kahler_verify.evidence.routes.cases import Case, RandomPoint, case_error, finding_at

STANDARD_ERRORS = 5.0
# Numbers of samples: with fewer steps the rate of a kernel with few entries strays by chance.
LADDER = (1_000, 4_000, 16_000, 64_000)


def is_fisher(case: Case) -> bool:
    """Whether all outputs are second derivatives of a divergence of Gaussians on the diagonal."""
    return is_hessian(case) and all(
        isinstance(o.definition, OnDiagonal) for o in case.kernel.outputs.values()
    )


def is_hessian(case: Case) -> bool:
    """Whether all outputs are second derivatives of a divergence of Gaussians."""
    names = {f.name for f in fields_of(case.kernel)}
    return names == {"mu", "Sigma"} and all(
        _partial_of(o) is not None and _partial_of(o).args[0] == case.derivation.definition
        and len(o.indices) == 2
        for o in case.kernel.outputs.values()
    )  # fmt: skip


def _partial_of(out: Output) -> Any:
    inner = out.definition.args[0] if isinstance(out.definition, OnDiagonal) else out.definition
    return inner if isinstance(inner, Partial) else None


def _gaussian(at: RandomPoint, u: Tensor, *, frozen: bool = False) -> tuple[Tensor, Tensor]:
    """μ [n, 1] and Σ [n, n] at z + u, or where they are frozen at a base point z₀ of its own."""
    letters = {f.name: Jet(f) for f in at.fields.jets if ("frozen" in f.traits) == frozen}
    place = Place(at.fields, u)
    return evaluate(letters["mu"], place).value, evaluate(letters["Sigma"], place).value


def wirtinger_hessian(real: Tensor) -> tuple[Tensor, Tensor]:
    """∂_a∂_b̄ f and ∂_a∂_b f [..., d, d] of a real f from its Hessian in (x, y), [..., 2d, 2d]."""
    d = real.shape[-1] // 2
    xx, xy = real[..., :d, :d], real[..., :d, d:]
    yx, yy = real[..., d:, :d], real[..., d:, d:]
    mixed = torch.complex(xx + yy, xy - yx) / 4
    return mixed, torch.complex(xx - yy, -(xy + yx)) / 4


def realified(mean: Tensor, covariance: Tensor) -> MultivariateNormal:
    """The law of [Re x, Im x] for x ~ CN(mean [D], covariance [D, D])."""
    top = torch.cat([covariance.real, -covariance.imag], -1)
    bottom = torch.cat([covariance.imag, covariance.real], -1)
    loc = torch.cat([mean.real, mean.imag], -1)
    joint = torch.cat([top, bottom], -2) / 2
    return MultivariateNormal(loc, (joint + joint.mT) / 2, validate_args=False)


def _has_real_outputs(case: Case) -> bool:
    """Whether the Gaussian is one over real vectors."""
    return all("real" in f.traits for f in fields_of(case.kernel))


def by_torch_kl(case: Case) -> Finding:
    """The Hessian of torch's own KL along the case's fields."""
    errors = []
    law = _real_normal if _has_real_outputs(case) else realified
    for at in case.points:
        zero = at.fields.start
        mean0, covariance0 = _gaussian(at, zero, frozen=not is_fisher(case))
        fixed = law(mean0[:, 0], covariance0)

        def divergence(u: Tensor, at: RandomPoint = at, fixed: Any = fixed) -> Tensor:
            mean, covariance = _gaussian(at, u)
            return kl_divergence(fixed, law(mean[:, 0], covariance))

        hessian = jacrev(jacrev(divergence))(zero)
        mixed, pure = (hessian, hessian) if at.fields.real else wirtinger_hessian(hessian)
        errors.append(case_error(case, at, _named(case, mixed, pure)))
    return finding_at(case.points, errors, note="torch.distributions, realified")


def _real_normal(mean: Tensor, covariance: Tensor) -> MultivariateNormal:
    """The law of a real Gaussian whose numbers are held as complex ones."""
    covariance = (covariance.real + covariance.real.mT) / 2
    return MultivariateNormal(mean.real, covariance, validate_args=False)


def _named(case: Case, mixed: Tensor, pure: Tensor) -> dict[str, Tensor]:
    """A kernel's outputs among ∂_a∂_b̄ and ∂_a∂_b."""
    return {n: mixed if _partial_of(o).anti else pure for n, o in case.kernel.outputs.items()}


def by_sampling(case: Case) -> Finding:
    """Means of products of scores, at rising numbers of samples."""
    generator = torch.Generator().manual_seed(case.seed)
    weight = 0.5 if _has_real_outputs(case) else 1.0  # of the exponent of a Gaussian's density
    levels = []
    for at in case.points[:2]:
        zero = at.fields.start
        mean, covariance = _gaussian(at, zero)
        factor = torch.linalg.cholesky(covariance)

        def log_density(u: Tensor, x: Tensor, at: RandomPoint = at) -> Tensor:
            """Log p(x; μ, Σ) + const of samples [N, n] by the formula of the density."""
            moved, spread = _gaussian(at, u)
            root = torch.linalg.cholesky(spread)
            white = torch.linalg.solve_triangular(root, x.mT - moved, upper=False)
            squares = (white * white.conj()).real.sum(0)
            return weight * (-squares - 2 * root.diagonal().real.log().sum())

        def scores(
            count: int,
            zero: Tensor = zero,
            mean: Tensor = mean,
            factor: Tensor = factor,
            log_density: Callable[[Tensor, Tensor], Tensor] = log_density,
        ) -> Tensor:
            noise = torch.randn(count, len(mean), 2, generator=generator, dtype=torch.float64)
            x = noise[..., 0] + 0j if weight < 1 else torch.view_as_complex(noise) / 2**0.5
            x = x @ factor.mT + mean.mT
            return jacfwd(lambda u: log_density(u, x))(zero)

        found = {}
        for n, o in case.kernel.outputs.items():
            found["g" if at.fields.real or _partial_of(o).anti else "k"] = at.computed[n]
        levels.append(fisher_deviations(scores, found, real=at.fields.real))
    return sampling_finding(levels, tuple(p.condition for p in case.points[:2]))


def fisher_deviations(
    scores: Callable[[int], Tensor], found: Mapping[str, Tensor], *, real: bool = False
) -> list[Tensor]:
    """For each number of samples, all entries' deviations from ``found`` in standard errors.

    ``scores`` gives ∂ log p in (x, y) for N fresh samples, [N, 2d]; g = E[s s̄ᵀ] and k = E[s sᵀ] for
    s = ½(∂_x - i∂_y) log p.  With ``real`` it gives them along real coordinates, [N, d].
    """
    levels = []
    for count in LADDER:
        gradient = scores(count)
        if real:
            s = gradient + 0j
        else:
            x, y = gradient.chunk(2, -1)
            s = torch.complex(x, -y) / 2
        deviations = []
        for name, value in found.items():
            other = s.conj() if name == "g" else s
            products = torch.einsum("na,nb->nab", s, other)
            for part, truth in ((products.real, value.real), (products.imag, value.imag)):
                spread = part.std(0) / count**0.5
                rounding = 100 * EPSILON * value.abs().max()
                deviations.append(((part.mean(0) - truth) / (spread + rounding)).flatten())
        levels.append(torch.cat(deviations))
    return levels


def sampling_finding(levels: Sequence[Sequence[Tensor]], conditions: tuple[float, ...]) -> Finding:
    """Deviations in standard errors, and whether errors shrink like N^-1/2.

    A right kernel's deviations stay of order 1 while the standard error falls as N^-1/2; a wrong
    kernel's grow as N^1/2.
    """
    errors = tuple(max(x.abs().max().item() for x in point) for point in levels)
    rms = [
        torch.cat([p[n] for p in levels]).square().mean().sqrt().item() for n in range(len(LADDER))
    ]
    logs = np.log(np.maximum(rms, 1e-300)) - 0.5 * np.log(LADDER)
    slope = float(np.polyfit(np.log(LADDER), logs, 1)[0])
    complaints: tuple[str, ...] = ()
    if not -0.85 < slope < -0.15:
        complaints = (f"the error goes as N^{slope:.2f}, expected N^-0.50",)
    note = f"{LADDER[0]} to {LADDER[-1]} samples, error ~ N^{slope:.2f}"
    bounds = (STANDARD_ERRORS,) * len(errors)
    return Finding(errors, bounds, conditions, "standard errors", note, complaints)
