"""Laws of the metrics that :mod:`kahler_verify.geometry` makes of a derivation's kernels.

Positivity, closedness, curvature by contraction, and curvature known exactly.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from kahler_verify.errors import PropertyViolation
from kahler_verify.evidence.laws.drawn_metrics import (
    curved,
    drawn_metric,
    kind_of,
    makes_metric,
    makes_potential,
)
from kahler_verify.evidence.laws.law import Law, Trial, agree, register
from kahler_verify.evidence.numbers.domains import domain_value, double
from kahler_verify.evidence.numbers.samples import draw
from kahler_verify.geometry.metric import HermitianMetric

LAWS: dict[str, Law] = {}
law = partial(register, LAWS)


@law(
    "g is positive definite on the domain, as claimed",
    lambda der, k: der.positive and makes_metric(der, k),
)
def positive(trial: Trial) -> None:
    """The least eigenvalue is positive."""
    metric, z = drawn_metric(trial)
    values = torch.linalg.eigvalsh(metric.metric_matrix(z))
    if not values[0] > 0:
        raise PropertyViolation(
            f"g has the eigenvalue {values[0]:.3g}, its largest {values[-1]:.3g}"
        )


@law("the metric of a potential is closed: its defect vanishes", makes_potential)
def kaehler(trial: Trial) -> None:
    """∂_c g_{ab̄} - ∂_a g_{cb̄} = 0 as the metric reports it."""
    metric, z = drawn_metric(trial)
    defect, scale = metric.kahler_defect(z), metric._metric_d(z)
    floor = max(float(scale.abs().max()), 1e-3)
    agree(defect, torch.zeros_like(defect), "the defect and zero", floor=floor)


@law(
    "R is Hermitian in its pairs, symmetric in a and c where g is Kähler; Ricci, scalar and "
    "sectional curvature are its traces, and ∂ log det g is the connection's",
    makes_metric,
)
def curvature_consistent(trial: Trial) -> None:
    """Every geometric quantity, from the full tensor by contraction with g⁻¹."""
    _, z, metric = curved(trial)
    g, size = metric.g, metric.size
    r, ricci = metric.curvature_tensor(z), metric.ricci_tensor(z)
    inverse = torch.linalg.inv(g)
    agree(r.permute(1, 0, 3, 2).conj(), r, "R_abce and conj R_baec", floor=size)
    agree(torch.einsum("fa,afce->ce", inverse, r), ricci, "tr g⁻¹R and Ricci", floor=size)
    scalar = torch.einsum("ec,ce->", inverse, ricci).real
    agree(scalar, metric.scalar_curvature(z), "tr g⁻¹Ric and the scalar curvature", floor=size)
    v = trial.numbers(trial.d)
    along = torch.einsum("abce,a,b,c,e->", r, v, v.conj(), v, v.conj()).real
    length = torch.einsum("ab,a,b->", g, v, v.conj()).real
    sectional = metric.holomorphic_sectional_curvature(z, v)
    agree(along / length**2, sectional, "R(v, v̄, v, v̄) and the sectional curvature", floor=size)
    gamma = metric.christoffels(z)
    agree(torch.einsum("cae,eb->cab", gamma, g), metric.g_d, "Γ_c G and ∂_c G", floor=size)
    tensors = {"g_d": metric.g_d, "g_factor": torch.linalg.cholesky(g)}
    gradient = trial.geometry.call("log_det_gradient", tensors)
    agree(torch.einsum("caa->c", gamma), gradient, "tr Γ and ∂ log det g", floor=size)
    if makes_potential(trial.derivation, trial.kernel):
        agree(r.transpose(0, 2), r, "R_abce and R_cbae", floor=size)


@law(
    "curvature of a mixture that was contracted before it was formed is that of the full tensor",
    lambda der, k: kind_of(der, k) == "mixture",
)
def curvature_contracted(trial: Trial) -> None:
    """The mixture's own kernels, against the geometry's from the metric and all its derivatives."""
    metric, z, held = curved(trial)
    v, size = trial.numbers(trial.d), held.size
    agree(metric.ricci_tensor(z), held.ricci_tensor(z), "Ricci, contracted early", floor=size)
    early, late = metric.scalar_curvature(z), held.scalar_curvature(z)
    agree(early, late, "the scalar curvature, contracted early", floor=size)
    early, late = (m.holomorphic_sectional_curvature(z, v) for m in (metric, held))
    agree(early, late, "the sectional curvature, contracted early", floor=size)


@law(
    "the known constant holomorphic sectional curvature c, and with it R = c/2 (gg + gg), "
    "Ric = c/2 (d+1) g and scal = c/2 d(d+1)",
    lambda der, k: (
        "holomorphic_sectional_curvature" in der.known and kind_of(der, k) == "potential"
    ),
)
def curvature_as_known(trial: Trial) -> None:
    """From the middle of the domain to its edge (1 - |z|² down to 1e-6), or to |z|² = 100."""
    metric, _ = drawn_metric(trial)
    sample = draw(trial.kernel, double, trial.rng, trial.sizes)
    if trial.derivation.domain is None:
        z = trial.point(sample)
        z = z / torch.linalg.vector_norm(z) * 10 ** trial.rng.uniform(-2, 1)
    else:
        z = trial.point(sample, reach=(1 - 10 ** trial.rng.uniform(-6, -0.3)) ** 0.5)
    edge = max(
        float(1 + (z * z.conj()).real.sum()),
        1 / domain_value(trial.derivation, sample.point, z.tolist()),
    )
    known = trial.derivation.known["holomorphic_sectional_curvature"]
    known_curvature(metric, z, known, trial.numbers(trial.d), edge)


def known_curvature(
    metric: HermitianMetric, z: Tensor, c: float, v: Tensor, edge: float
) -> dict[str, float]:
    """Compare all curvatures at z [d] with those of constant holomorphic sectional curvature c.

    Tensors are taken in the g-normalised frame (each index divided by √g_aa); with κ the larger of
    cond(g) and ``edge`` (1 + |z|², or how near the edge of the domain is), errors must stay below
    100 ε κ.  The scalar curvature, which contracts with g⁻¹, and d = 1, where g is the difference
    of two nearly equal terms, lose κ once more: 100 ε κ².  Returns the errors in these units.
    """
    g, d = metric.metric_matrix(z), z.shape[-1]
    norm = g.diagonal().real.sqrt()
    kappa = max(float(torch.linalg.cond(g)), edge)
    unit = torch.finfo(norm.dtype).eps * (kappa if d > 1 else kappa**2)
    pairs = torch.einsum("ab,ce->abce", g, g) + torch.einsum("ae,cb->abce", g, g)
    sizes = torch.einsum("a,b,c,e->abce", norm, norm, norm, norm)
    half = c / 2
    scalar = metric.scalar_curvature(z) - half * d * (d + 1)
    errors = {
        "R": (metric.curvature_tensor(z) - half * pairs) / sizes,
        "Ric": (metric.ricci_tensor(z) - half * (d + 1) * g) / (d + 1) / torch.outer(norm, norm),
        "scal": scalar / (d * (d + 1)) / (kappa if d > 1 else 1),
        "HSC": metric.holomorphic_sectional_curvature(z, v) - c,
    }
    worst = {name: float(e.abs().max()) / unit for name, e in errors.items()}
    for name, error in worst.items():
        if not error <= 100:
            raise PropertyViolation(
                f"{name} is off by {error:.3g} times the rounding unit {unit:.1e} (allowed: 100)"
            )
    return worst
