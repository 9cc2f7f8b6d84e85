"""Laws of the metrics that :mod:`kahler_verify.geometry` makes of a derivation's kernels.

Positivity, closedness, curvature by contraction and in other charts, and curvature known exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import jacrev

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.calculus.mixture import LogSumExp
from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import EvidenceError, PropertyViolation
from kahler_verify.evidence.laws.law import (
    DoesNotApply,
    Property,
    Trial,
    agree,
    register,
)
from kahler_verify.evidence.laws.readings import (
    assumed_fields,
    coordinate_of,
    is_divergence_metric,
    multiply_axes,
)
from kahler_verify.evidence.numbers.domains import domain_value, double
from kahler_verify.evidence.numbers.samples import draw, fields_of, is_real_latent
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.metric import HermitianMetric, PartwiseMetric
from kahler_verify.geometry.mixture import MixtureMetric
from kahler_verify.geometry.potential import PotentialMetric
from kahler_verify.running.kernel_set import KernelSet

LAWS: dict[str, Property] = {}
law = partial(register, LAWS)


def _kind(der: Derivation, k: Kernel) -> str:
    """Which of the geometry's classes holds this kernel's metric: "" for none."""
    names = {kernel.name for kernel in der.kernels}
    has_real_vectors = any("real" in f.traits and f.shape[0] != 1 for f in fields_of(k))
    if is_real_latent(k) or has_real_vectors:
        return ""  # metrics of real coordinates or of real outputs
    if k.name == "metric" and {"value", "metric_d", "metric_db"} <= names:
        return "potential" if der.coordinates or coordinate_of(der) else ""
    components = [f for f in assumed_fields(k) if "component" in f.traits]
    if k.name == "metric" and len(components) == 1 and "quadratic" in components[0].traits:
        return "mixture" if {"metric_d", "metric_db"} <= names else ""
    gaussian = is_divergence_metric(der, k) and {f.name for f in fields_of(k)} == {"mu", "Sigma"}
    return "fisher" if gaussian and k.name.startswith("fisher_metric_") else ""


def _makes_metric(der: Derivation, k: Kernel) -> bool:
    return bool(_kind(der, k))


def _makes_potential(der: Derivation, k: Kernel) -> bool:
    return _kind(der, k) in ("potential", "mixture")


def _metric(trial: Trial) -> tuple[HermitianMetric, Tensor]:
    """A random metric of the derivation, and a point."""
    kind = _kind(trial.derivation, trial.kernel)
    maker = {"potential": _potential_metric, "mixture": _mixture_metric, "fisher": _fisher_metric}
    metric, z = maker[kind](trial)
    metric._geometry = trial.geometry
    return metric, z


def _potential_metric(trial: Trial) -> tuple[HermitianMetric, Tensor]:
    tensors = trial.draw()
    z = tensors["z"]
    parameters = {n: tensors[n] for n in trial.kernels.parameters}
    for f in assumed_fields(trial.kernel):  # a definite metric needs definite matrices
        if "hermitian" in f.traits and f.name in parameters and f.shape[1] != 1:
            root = parameters[f.name]
            parameters[f.name] = root @ root.mH + 0.3 * torch.eye(len(root))
    metric = PotentialMetric(trial.kernels.module, **parameters)  # type: ignore[arg-type]
    return metric, z


def _mixture_metric(trial: Trial) -> tuple[HermitianMetric, Tensor]:
    count, d = trial.sizes["K"], trial.d
    definition = trial.derivation.definition
    assert definition is not None
    (head,) = definition.atoms(LogSumExp)
    far = head.args[0].as_coeff_Mul()[0] > 0
    weights = torch.tensor([trial.rng.uniform(0.5, 2) for _ in range(count)], dtype=torch.float64)
    roots = trial.numbers(count, d, d) / (2 * d) ** 0.5
    metric = MixtureMetric(
        weights / weights.sum(),
        trial.numbers(count, d) * (0.5 if far else 0.1),  # near centres keep a density's metric PSH
        roots @ roots.mH + 0.3 * torch.eye(d),
        kind="potential" if far else "density",
    )
    metric._mixture = trial.kernels
    return metric, trial.numbers(d) * (0.5 if far else 0.1)


def _fisher_metric(trial: Trial) -> tuple[HermitianMetric, Tensor]:
    metric = FisherMetric(_decoder(trial), check=False)
    metric._fisher = trial.kernels
    return metric, trial.numbers(trial.d) * 0.3


def _decoder(trial: Trial) -> Callable[[Tensor], ComplexNormal]:
    """A smooth decoder, not holomorphic, with Σ(z) of the kernel's layout; more outputs than d."""
    d, n = trial.d, trial.d + 1
    a, b, scales = (trial.numbers(n, d) for _ in range(3))
    bend = 0.2 * trial.numbers(n, d, d)
    lower = 0.2 * trial.numbers(n, n, d)
    layout = trial.kernel.layout["Sigma"]

    def decoder(z: Tensor) -> ComplexNormal:
        mean = z @ a.mT + 0.5 * (z.conj() @ b.mT)
        mean = mean + torch.einsum("nab,...a,...b->...n", bend, z, z)
        mean = mean + torch.einsum("nab,...a,...b->...n", bend, z, z.conj())
        waves = z @ scales.mT
        deviation = (0.3 * waves.real + 0.1 * (waves * waves.conj()).real).exp()
        if layout == "scalar":
            return ComplexNormal(mean, scale=deviation[..., 0], validate_args=False)
        if layout == "diagonal":
            return ComplexNormal(mean, scale_diag=deviation, validate_args=False)
        below = torch.tril(torch.einsum("mnd,...d->...mn", lower, z), -1)
        factor = below + torch.diag_embed(deviation).to(z.dtype)
        return ComplexNormal(mean, scale_tril=factor, validate_args=False)

    return decoder


@law(
    "g is positive definite on the domain, as claimed",
    lambda der, k: der.positive and _makes_metric(der, k),
)
def positive(trial: Trial) -> None:
    """The least eigenvalue is positive."""
    metric, z = _metric(trial)
    values = torch.linalg.eigvalsh(metric.metric_matrix(z))
    if not values[0] > 0:
        raise PropertyViolation(
            f"g has the eigenvalue {values[0]:.3g}, its largest {values[-1]:.3g}"
        )


@law("the metric of a potential is closed: its defect vanishes", _makes_potential)
def kaehler(trial: Trial) -> None:
    """∂_c g_{ab̄} - ∂_a g_{cb̄} = 0 as the metric reports it."""
    metric, z = _metric(trial)
    defect, scale = metric.kahler_defect(z), metric._metric_d(z)
    floor = max(float(scale.abs().max()), 1e-3)
    agree(defect, torch.zeros_like(defect), "the defect and zero", floor=floor)


class _Held(PartwiseMetric):
    """A metric's derivatives at one point, computed once."""

    def __init__(self, g: Tensor, g_d: Tensor, g_db: Tensor, geometry: KernelSet):
        super().__init__()
        self.g, self.g_d, self.g_db, self._geometry = g, g_d, g_db, geometry

    @property
    def size(self) -> float:
        """The largest entry of all: what rounding errors are measured by."""
        return max(float(x.abs().max()) for x in (self.g, self.g_d, self.g_db))

    def _parts(self, z: Tensor) -> tuple[Tensor, None]:  # noqa: ARG002
        return self.g, None

    def _metric_d(self, z: Tensor) -> Tensor:  # noqa: ARG002
        return self.g_d

    def _metric_db(self, z: Tensor) -> Tensor:  # noqa: ARG002
        return self.g_db


def _curved(trial: Trial) -> tuple[HermitianMetric, Tensor, _Held]:
    """A metric, a point and its derivatives there; drawn again where g is not positive."""
    for _ in range(20):
        metric, z = _metric(trial)
        g = metric._parts(z)[0]
        values = torch.linalg.eigvalsh(g)
        if values[0] > 1e-3 * values[-1]:
            return metric, z, _Held(g, metric._metric_d(z), metric._metric_db(z), trial.geometry)
    if not trial.derivation.positive:
        raise DoesNotApply(f"{trial.derivation.name}: its metric is positive at no point drawn")
    raise EvidenceError(f"{trial.derivation.name}: no point with a positive metric was found")


@law(
    "R is Hermitian in its pairs, symmetric in a and c where g is Kähler; Ricci, scalar and "
    "sectional curvature are its traces, and ∂ log det g is the connection's",
    _makes_metric,
)
def curvature_consistent(trial: Trial) -> None:
    """Every geometric quantity, from the full tensor by contraction with g⁻¹."""
    _, z, metric = _curved(trial)
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
    if _makes_potential(trial.derivation, trial.kernel):
        agree(r.transpose(0, 2), r, "R_abce and R_cbae", floor=size)


@law(
    "curvature of a mixture that was contracted before it was formed is that of the full tensor",
    lambda der, k: _kind(der, k) == "mixture",
)
def curvature_contracted(trial: Trial) -> None:
    """The mixture's own kernels, against the geometry's from the metric and all its derivatives."""
    metric, z, held = _curved(trial)
    v, size = trial.numbers(trial.d), held.size
    agree(metric.ricci_tensor(z), held.ricci_tensor(z), "Ricci, contracted early", floor=size)
    early, late = metric.scalar_curvature(z), held.scalar_curvature(z)
    agree(early, late, "the scalar curvature, contracted early", floor=size)
    early, late = (m.holomorphic_sectional_curvature(z, v) for m in (metric, held))
    agree(early, late, "the sectional curvature, contracted early", floor=size)


@dataclass(frozen=True)
class Chart:
    """The holomorphic chart z = f(w) = z₀ + A(w - w₀) + ½B(w - w₀, w - w₀)."""

    origin: Tensor
    image: Tensor
    slope: Tensor  # A[p, a] = ∂_a f_p
    bend: Tensor  # B[p, a, c] = ∂_a ∂_c f_p

    def __call__(self, w: Tensor) -> Tensor:
        """f(w) for w [..., d]."""
        u = w - self.origin
        return (
            self.image
            + u @ self.slope.mT
            + torch.einsum("pac,...a,...c->...p", self.bend, u, u) / 2
        )

    def pull(self, tensor: Tensor, kinds: str) -> Tensor:
        """A tensor at z₀ in the chart's frame; ``kinds`` has "h" or "a" for each index."""
        names = ["hol" if kind == "h" else "anti" for kind in kinds]
        return multiply_axes(tensor, names, {"hol": self.slope.mT, "anti": self.slope.mH})


def _chart(trial: Trial, z: Tensor) -> Chart:
    d = trial.d
    raw = trial.numbers(d, d, d)
    return Chart(trial.numbers(d), z, trial.invertible(d), 0.3 * (raw + raw.mT))


def _pulled_back(metric: _Held, chart: Chart) -> _Held:
    """The metric in the chart's coordinates w: its derivatives by the chain rule."""
    a, b, g = chart.slope, chart.bend, metric.g
    g_b = metric.g_d.transpose(1, 2).conj()  # ∂_ē g_{pq̄} = conj(∂_e g_{qp̄})
    g_d = chart.pull(metric.g_d, "hha") + torch.einsum("pca,qb,pq->cab", b, a.conj(), g)
    g_db = (
        chart.pull(metric.g_db, "haha")
        + torch.einsum("rc,pa,qeb,rpq->ceab", a, a, b.conj(), metric.g_d)
        + torch.einsum("pca,qb,se,spq->ceab", b, a.conj(), a.conj(), g_b)
        + torch.einsum("pca,qeb,pq->ceab", b, b.conj(), g)
    )
    return _Held(chart.pull(g, "ha"), g_d, g_db, metric._geometry)


@law(
    "in a holomorphic chart log det g gains log |det J|², R and Ricci are tensors, scalar and "
    "sectional curvature are invariant",
    _makes_metric,
)
def curvature_chart_free(trial: Trial) -> None:
    """The metric's derivatives pulled back by hand, then the geometry's kernels."""
    _, z, metric = _curved(trial)
    chart = _chart(trial, z)
    other, w = _pulled_back(metric, chart), chart.origin
    size = max(metric.size, other.size)
    gain = 2 * torch.linalg.slogdet(chart.slope)[1]
    agree(other.log_det_hermitian(w), metric.log_det_hermitian(z) + gain, "log det g and its gain")
    r, ricci = metric.curvature_tensor(z), metric.ricci_tensor(z)
    agree(other.curvature_tensor(w), chart.pull(r, "haha"), "R in two charts", floor=size)
    agree(other.ricci_tensor(w), chart.pull(ricci, "ha"), "Ricci in two charts", floor=size)
    scalar = metric.scalar_curvature(z)
    agree(other.scalar_curvature(w), scalar, "scalar curvature in two charts", floor=size)
    v = trial.numbers(trial.d)
    there = other.holomorphic_sectional_curvature(w, v)
    here = metric.holomorphic_sectional_curvature(z, chart.slope @ v)
    agree(there, here, "sectional curvature in two charts", floor=size)


def _mixed_hessian(function: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    """∂_a∂_b̄ of a real function at w [d], by reverse over reverse in real coordinates."""

    def real(u: Tensor) -> Tensor:
        x, y = u.chunk(2)
        return function(torch.complex(x, y))

    h = jacrev(jacrev(real))(torch.cat([w.real, w.imag]))
    d = len(w)
    xx, xy, yx, yy = h[:d, :d], h[:d, d:], h[d:, :d], h[d:, d:]
    return torch.complex(xx + yy, xy - yx) / 4


@law(
    "the metric of the composition with a holomorphic chart is the metric's pullback, and its "
    "Ricci tensor is -∂∂̄ log det of it",
    _makes_metric,
)
def metric_chart_free(trial: Trial) -> None:
    """The function itself is composed: potentials by autograd, decoders as they are."""
    metric, z, held = _curved(trial)
    chart = _chart(trial, z)
    w = chart.origin
    if isinstance(metric, FisherMetric):
        decoder = metric.decoder
        other = FisherMetric(lambda w: decoder(chart(w)), check=False)
        other._fisher = metric._fisher
        there, k_there = other._parts(w)
        k = metric._parts(z)[1]
        assert k is not None
        assert k_there is not None
        agree(k_there, chart.pull(k, "hh"), "k in two charts")
        agree(other._metric_d(w), _pulled_back(held, chart).g_d, "∂g in two charts")
    else:
        assert isinstance(metric, PotentialMetric | MixtureMetric)
        value = metric.value
        there = _mixed_hessian(lambda w: value(chart(w)), w)
        bent = _mixed_hessian(lambda w: metric.log_det_hermitian(chart(w)), w)
        pulled = chart.pull(held.ricci_tensor(z), "ha")
        agree(pulled, -bent, "Ricci and -∂∂̄ log det g", floor=held.size)
    agree(there, chart.pull(held.g, "ha"), "g in two charts")


@law(
    "the known constant holomorphic sectional curvature c, and with it R = c/2 (gg + gg), "
    "Ric = c/2 (d+1) g and scal = c/2 d(d+1)",
    lambda der, k: "holomorphic_sectional_curvature" in der.known and _kind(der, k) == "potential",
)
def curvature_as_known(trial: Trial) -> None:
    """From the middle of the domain to its edge (1 - |z|² down to 1e-6), or to |z|² = 100."""
    metric, _ = _metric(trial)
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
