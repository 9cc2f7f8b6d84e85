"""A trained decoder at real latents, by routes that share nothing with its kernels or jets.

The metric against the Hessian of torch's own KL (two modes), against scores of samples and in
single precision; connection and curvature against textbook formulas written here, whose derivatives
are autograd's of that Hessian.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence
from torch.func import jacfwd, jacrev

from kahler_verify.evidence.finding import EPSILON, Finding, frame_error, modest_bound
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.models.checkpoint import Checkpoint, in_both_precisions
from kahler_verify.models.data import held_out_samples
from kahler_verify.models.real_vae import RealDecoder, RealVAE

SAMPLES = 20_000
STANDARD_ERRORS = 6.0  # of some thousand entries, the largest is below this but once in 10⁵ runs


@dataclass(frozen=True)
class RealDecoderTrial:
    """A decoder in float64 with its latents, [n, d] float64, by where they come from."""

    model: RealVAE
    metric: FisherRaoMetric  # on trial
    single: RealVAE  # the same weights in float32
    latents: Mapping[str, Tensor]
    held_out: Tensor | None
    seed: int

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, data: str | Path | None, seed: int, notes: list[str]
    ) -> RealDecoderTrial:
        """Encode held-out samples and draw latents from the prior."""
        config = checkpoint.config
        model, single = in_both_precisions(checkpoint)
        assert isinstance(model, RealVAE)
        assert isinstance(single, RealVAE)
        latents, held_out = {}, None
        samples = held_out_samples(config.data, config.seed, data)
        if samples is not None:
            held_out, _ = model.encoder(samples)
            latents["held-out latents"] = held_out[:6].float().double()
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(6, config.latent_dim, generator=generator, dtype=torch.float64)
        latents["random latents"] = drawn.float().double()
        notes.append(f"real latents, {config.likelihood} likelihood, d = {config.latent_dim}")
        metric = FisherRaoMetric(model.decoder)
        return cls(model, metric, single, latents, held_out, seed)

    def frame(self, z: Tensor) -> tuple[Tensor, float]:
        """√g_aa at z [d] and cond of g where its diagonal is 1."""
        g = hessian(self.model.decoder, z)
        scale = g.diagonal().sqrt()
        values = torch.linalg.eigvalsh(g / (scale[:, None] * scale))
        smallest, largest = values.min().item(), values.max().item()
        return scale, largest / smallest if smallest > 0 else math.inf


def _divergence(decoder: RealDecoder, z0: Tensor, z: Tensor) -> Tensor:
    law: Distribution = decoder(z0[None])
    return kl_divergence(law, decoder(z[None])).sum()


def hessian(decoder: RealDecoder, z: Tensor, *, mode: str = "reverse") -> Tensor:
    """∂∂ KL(p_z ‖ ·) at z [d], reverse over reverse or forward over reverse."""
    fixed = z.detach()
    outer = jacrev if mode == "reverse" else jacfwd
    out: Tensor = outer(jacrev(lambda y: _divergence(decoder, fixed, y)))(z)
    return out


def metric_at(decoder: RealDecoder, z: Tensor) -> Tensor:
    """The same as a function of z that can be differentiated: both arguments move with z."""
    out: Tensor = jacrev(jacrev(lambda y: _divergence(decoder, z, y)))(z)
    return out


def christoffels(g: Tensor, g_d: Tensor) -> Tensor:
    """Γ^e_ab = ½ g^{ef} (∂_a g_fb + ∂_b g_fa - ∂_f g_ab), from ∂_c g_ab as [c, a, b]."""
    first = (torch.einsum("afb->fab", g_d) + torch.einsum("bfa->fab", g_d) - g_d) / 2
    return torch.einsum("ef,fab->eab", torch.linalg.inv(g), first)


def scalar_curvature(decoder: RealDecoder, z: Tensor) -> Tensor:
    """R = g^{ab} (∂_c Γ^c_ab - ∂_b Γ^c_ac + Γ^c_cd Γ^d_ab - Γ^c_bd Γ^d_ac)."""

    def gamma(z: Tensor) -> Tensor:
        g_d = jacrev(lambda y: metric_at(decoder, y))(z).permute(2, 0, 1)
        return christoffels(metric_at(decoder, z), g_d)

    G, dG = gamma(z), jacrev(gamma)(z).permute(3, 0, 1, 2)
    ricci = (
        torch.einsum("ccab->ab", dG)
        - torch.einsum("bcac->ab", dG)
        + torch.einsum("ccd,dab->ab", G, G)
        - torch.einsum("cbd,dac->ab", G, G)
    )
    return torch.einsum("ab,ab->", torch.linalg.inv(metric_at(decoder, z)), ricci)


def _by_torch_kl(trial: RealDecoderTrial) -> list[Finding]:
    rows: list[Finding] = []
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        found = trial.metric.metric_matrix(latents)
        errors, conditions, complaints = [], [], []
        for i, z in enumerate(latents):
            scale, condition = trial.frame(z)
            one, other = (hessian(trial.model.decoder, z, mode=m) for m in ("reverse", "forward"))
            errors.append(frame_error(found[i], one, scale))
            apart = frame_error(one, other, scale)
            if not apart <= 1e-10:
                complaints.append(f"autograd's two modes differ by {apart:.1e}")
            conditions.append(condition)
        finding = Finding(
            tuple(errors),
            (1e-10,) * len(errors),
            tuple(conditions),
            note="Hessian of torch.distributions' KL, reverse over reverse; forward over reverse",
            complaints=tuple(complaints),
        )
        rows.append(finding.named("decoder.metric", "torch_kl", where, time.perf_counter() - begin))
    return rows


def _by_scores(trial: RealDecoderTrial) -> list[Finding]:
    """E[∂ℓ ∂ℓᵀ] over samples of x, with the error of the mean."""
    rows: list[Finding] = []
    decoder = trial.model.decoder
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        z = latents[:1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(trial.seed)
            x = decoder(z).sample((SAMPLES,))[:, 0]

        def log_density(y: Tensor, x: Tensor = x) -> Tensor:
            out: Tensor = decoder(y[None]).log_prob(x)
            return out

        scores = jacfwd(log_density)(z[0])
        products = scores[:, :, None] * scores[:, None, :]
        spread = products.std(0) / math.sqrt(SAMPLES)
        found = trial.metric.metric_matrix(z)[0]
        error = float(((products.mean(0) - found).abs() / spread).max())
        finding = Finding(
            (error,),
            (STANDARD_ERRORS,),
            (trial.frame(z[0])[1],),
            unit="standard errors",
            note=f"scores of {SAMPLES} samples",
        )
        rows.append(
            finding.named("decoder.metric", "monte_carlo", where, time.perf_counter() - begin)
        )
    return rows


def _connection_and_curvature(trial: RealDecoderTrial) -> list[Finding]:
    rows: list[Finding] = []
    decoder = trial.model.decoder
    for where, latents in trial.latents.items():
        z = latents[:2]
        begin = time.perf_counter()
        found = trial.metric.christoffels(z)
        errors, conditions = [], []
        for i, point in enumerate(z):
            scale, condition = trial.frame(point)
            g_d = jacrev(lambda y: metric_at(decoder, y))(point).permute(2, 0, 1)
            truth = christoffels(metric_at(decoder, point), g_d)
            errors.append(frame_error(found[i], truth, scale, (0,)))
            conditions.append(condition)
        bounds = tuple(map(modest_bound, conditions))
        note = "Γ from autograd's derivatives of that Hessian"
        finding = Finding(tuple(errors), bounds, tuple(conditions), note=note, scales=True)
        rows.append(
            finding.named("decoder.connection", "autograd", where, time.perf_counter() - begin)
        )
        begin = time.perf_counter()
        curvature = trial.metric.scalar_curvature(z[:1])[0]
        truth = scalar_curvature(decoder, z[0])
        size = max(1.0, abs(float(truth)))
        finding = Finding(
            (float((curvature - truth).abs()) / size,),
            (100 * EPSILON * conditions[0] ** 2 + 1e-9,),
            (conditions[0],),
            unit="relative",
            note="textbook formula over autograd's derivatives of Γ",
        )
        rows.append(
            finding.named(
                "decoder.scalar curvature", "autograd", where, time.perf_counter() - begin
            )
        )
    return rows


def _in_single_precision(trial: RealDecoderTrial) -> list[Finding]:
    rows: list[Finding] = []
    metric = FisherRaoMetric(trial.single.decoder)
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        found = metric.metric_matrix(latents.float()).double()
        errors, conditions = [], []
        for i, z in enumerate(latents):
            scale, condition = trial.frame(z)
            errors.append(frame_error(found[i], hessian(trial.model.decoder, z), scale))
            conditions.append(condition)
        note = "float32 metric against float64 autograd"
        finding = Finding(tuple(errors), (1e-4,) * len(errors), tuple(conditions), note=note)
        seconds = time.perf_counter() - begin
        rows.append(finding.named("decoder.metric (float32)", "autograd", where, seconds))
    return rows


REAL_DECODER_CHECKS: Mapping[str, Callable[[RealDecoderTrial], list[Finding]]] = {
    "torch's KL": _by_torch_kl,
    "samples": _by_scores,
    "connection and curvature": _connection_and_curvature,
    "float32": _in_single_precision,
}
