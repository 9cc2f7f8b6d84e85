"""A random metric of a derivation, as :mod:`kahler_verify.geometry` makes it, and a point."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.calculus.mixture import LogSumExp
from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.laws.law import DoesNotApply, Trial
from kahler_verify.evidence.laws.readings import assumed_fields, is_divergence_metric
from kahler_verify.evidence.numbers.readings import coordinate_of, fields_of, is_real_latent
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.metric import HermitianMetric, PartwiseMetric
from kahler_verify.geometry.mixture import MixtureMetric
from kahler_verify.geometry.potential import PotentialMetric
from kahler_verify.running.kernel_set import KernelSet


def kind_of(der: Derivation, k: Kernel) -> str:
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


def makes_metric(der: Derivation, k: Kernel) -> bool:
    """Whether one of the geometry's classes holds it."""
    return bool(kind_of(der, k))


def makes_potential(der: Derivation, k: Kernel) -> bool:
    """Whether that class has the metric of a potential."""
    return kind_of(der, k) in ("potential", "mixture")


def drawn_metric(trial: Trial) -> tuple[HermitianMetric, Tensor]:
    """A random metric of the derivation, and a point."""
    kind = kind_of(trial.derivation, trial.kernel)
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


class Held(PartwiseMetric):
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


def curved(trial: Trial) -> tuple[HermitianMetric, Tensor, Held]:
    """A metric, a point and its derivatives there; drawn again where g is not positive."""
    for _ in range(20):
        metric, z = drawn_metric(trial)
        g = metric._parts(z)[0]
        values = torch.linalg.eigvalsh(g)
        if values[0] > 1e-3 * values[-1]:
            return metric, z, Held(g, metric._metric_d(z), metric._metric_db(z), trial.geometry)
    if not trial.derivation.positive:
        raise DoesNotApply(f"{trial.derivation.name}: its metric is positive at no point drawn")
    raise EvidenceError(f"{trial.derivation.name}: no point with a positive metric was found")
