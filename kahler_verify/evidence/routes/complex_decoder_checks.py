"""A trained complex decoder on trial: its latents, and every route to its geometry there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kahler_verify.evidence.finding import Finding, frame_error, modest_bound
from kahler_verify.evidence.routes import complex_decoders
from kahler_verify.evidence.routes.gaussians import sampling_finding
from kahler_verify.geometry import FisherMetric
from kahler_verify.models.checkpoint import Checkpoint, in_both_precisions
from kahler_verify.models.data import held_out_samples
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.decoder import Decoder

METRIC_FLOAT64, METRIC_FLOAT32 = 1e-12, 1e-4


@dataclass(frozen=True)
class ComplexDecoderTrial:
    """A decoder in float64 with its latents, [n, d] complex128, by where they come from."""

    model: ComplexVAE
    metric: FisherMetric  # on trial
    single: ComplexVAE  # the same weights in float32
    latents: Mapping[str, Tensor]
    held_out: Tensor | None
    seed: int

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, data: str | Path | None, seed: int, notes: list[str]
    ) -> ComplexDecoderTrial:
        """Encode held-out samples and draw latents from the prior."""
        config = checkpoint.config
        assert isinstance(config, VAEConfig)
        model, single = in_both_precisions(checkpoint)
        assert isinstance(model, ComplexVAE)
        assert isinstance(single, ComplexVAE)
        latents, held_out = {}, None
        samples = held_out_samples(config.data, config.seed, data)
        if samples is not None:
            held_out, _ = model.encoder(samples)
            latents["held-out latents"] = _single_precision(held_out[:8])
        generator = torch.Generator().manual_seed(seed)
        pairs = torch.randn(8, config.latent_dim, 2, generator=generator, dtype=torch.float64)
        latents["random latents"] = _single_precision(torch.view_as_complex(pairs) / 2**0.5)
        family = f"{config.decoder} decoder, {config.covariance} covariance"
        notes.append(f"{family}, {config.likelihood} likelihood, d = {config.latent_dim}")
        return cls(model, FisherMetric(model.decoder), single, latents, held_out, seed)

    @property
    def decoder(self) -> Decoder:
        """The decoder in float64."""
        return self.model.decoder

    def frame(self, z: Tensor) -> tuple[Tensor, float]:
        """√g_aa at z [d] and cond of g where its diagonal is 1."""
        g = complex_decoders.by_autograd(self.decoder, z)[0]
        scale = g.diagonal().real.sqrt()
        values = torch.linalg.eigvalsh(g / (scale[:, None] * scale))
        smallest, largest = values.min().item(), values.max().item()
        return scale, largest / smallest if smallest > 0 else math.inf


def _single_precision(z: Tensor) -> Tensor:
    """Latents that float32 holds exactly, so that both precisions see the same points."""
    return z.to(torch.complex64).to(torch.complex128)


Truth = Callable[[ComplexDecoderTrial, Tensor], list[list[Tensor]]]


def _metric_rows(trial: ComplexDecoderTrial, route: str, count: int, truth: Truth) -> list[Finding]:
    """G and k at some points of each kind against what a route says, once for each of its modes."""
    rows = []
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        z = latents[:count]
        found = (trial.metric.metric_matrix(z), trial.metric.complementary_part(z))
        errors: list[list[float]] = [[], []]
        conditions, complaints = [], []
        for i, point in enumerate(z):
            scale, condition = trial.frame(point)
            answers = truth(trial, point)
            for n in range(2):
                errors[n].append(max(frame_error(found[n][i], a[n], scale) for a in answers))
                apart = frame_error(answers[0][n], answers[-1][n], scale)
                if not apart <= METRIC_FLOAT64:
                    complaints.append(f"autograd's two modes differ by {apart:.1e}")
            conditions.append(condition)
        seconds = (time.perf_counter() - begin) / 2
        for n, quantity in enumerate(("metric", "complementary part")):
            finding = Finding(
                tuple(errors[n]),
                (METRIC_FLOAT64,) * len(errors[n]),
                tuple(conditions),
                note=DECODER_NOTES[route],
                complaints=tuple(complaints),
            )
            rows.append(finding.named(f"decoder.{quantity}", route, where, seconds))
    return rows


DECODER_NOTES = {
    "autograd": "KL through the decoder, reverse over reverse; forward over reverse",
    "mpmath": "forward pass of our own at 50 digits",
    "torch_kl": "torch.distributions, realified, through the decoder",
}


def _by_autograd(trial: ComplexDecoderTrial) -> list[Finding]:
    def truth(trial: ComplexDecoderTrial, z: Tensor) -> list[list[Tensor]]:
        reverse = complex_decoders.by_autograd(trial.decoder, z)
        return [reverse, complex_decoders.by_autograd(trial.decoder, z, mode="forward")]

    return _metric_rows(trial, "autograd", 6, truth)


def _by_torch_kl(trial: ComplexDecoderTrial) -> list[Finding]:
    def truth(trial: ComplexDecoderTrial, z: Tensor) -> list[list[Tensor]]:
        return [complex_decoders.by_torch_kl(trial.decoder, z)]

    return _metric_rows(trial, "torch_kl", 4, truth)


def _by_decimals(trial: ComplexDecoderTrial) -> list[Finding]:
    def truth(trial: ComplexDecoderTrial, z: Tensor) -> list[list[Tensor]]:
        return [complex_decoders.decimal_metric(trial.decoder, z)]

    return _metric_rows(trial, "mpmath", 2 if trial.decoder.is_holomorphic else 1, truth)


def _by_sampling(trial: ComplexDecoderTrial) -> list[Finding]:
    rows = []
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        z = latents[:1]
        g, k = trial.metric.metric_matrix(z), trial.metric.complementary_part(z)
        generator = torch.Generator().manual_seed(trial.seed)
        levels = [
            complex_decoders.by_sampling(trial.decoder, z[i], g[i], k[i], generator)
            for i in range(len(z))
        ]
        conditions = tuple(trial.frame(point)[1] for point in z)
        finding = sampling_finding(levels, conditions)
        seconds = time.perf_counter() - begin
        rows.append(finding.named("decoder.metric", "monte_carlo", where, seconds))
    return rows


def _derivatives(trial: ComplexDecoderTrial) -> list[Finding]:
    """∂_c g, the connection and the closedness defect, from autograd's third derivatives."""
    rows = []
    metric = trial.metric
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        z = latents[:2]
        found = {
            "derivative": metric._metric_d(z),
            "connection": metric.christoffels(z),
            "closedness defect": metric.kahler_defect(z),
        }
        errors: dict[str, list[float]] = {name: [] for name in found}
        conditions = []
        for i, point in enumerate(z):
            scale, condition = trial.frame(point)
            g, _, g_d = complex_decoders.by_autograd(trial.decoder, point, third=True)
            truths = {
                "derivative": g_d,
                "connection": torch.linalg.solve(g.mT, g_d.mT).mT,
                "closedness defect": g_d - g_d.transpose(0, 1),
            }
            for name, truth in truths.items():
                raised = (2,) if name == "connection" else ()
                errors[name].append(frame_error(found[name][i], truth, scale, raised))
            conditions.append(condition)
        seconds = (time.perf_counter() - begin) / len(found)
        for name, each in errors.items():
            bounds = tuple(map(modest_bound, conditions))
            note = "third derivatives of KL through the decoder"
            finding = Finding(tuple(each), bounds, tuple(conditions), note=note, scales=True)
            rows.append(finding.named(f"decoder.{name}", "autograd", where, seconds))
    return rows


def _decimal_derivatives(trial: ComplexDecoderTrial) -> list[Finding]:
    """∂_c g and ∂_c∂_ē g in some directions, and the curvature made of them, at 50 digits."""
    begin = time.perf_counter()
    where, latents = next(iter(trial.latents.items()))
    z = latents[:1]
    d = z.shape[-1]
    cheap = trial.decoder.is_holomorphic
    directions = (0,)
    entries = tuple(range(d)) if cheap else (0,)
    scale, condition = trial.frame(z[0])
    g_d, g_db = complex_decoders.decimal_derivatives(trial.decoder, z[0], directions, entries)
    g = complex_decoders.decimal_metric(trial.decoder, z[0])[0]
    moves, size = len(directions), len(entries)
    first, second = trial.metric._metric_d(z)[0], trial.metric._metric_db(z)[0]
    compared = {
        "derivative": (first[:moves], g_d, 1),
        "second derivative": (second[:moves, :moves, :size, :size], g_db, 2),
    }
    if cheap:  # R_{ab̄cē} = G_c G⁻¹ G_ē - G_{cē}
        solved = torch.linalg.solve(g, g_d.mH)
        curvature = torch.einsum("cax,exb->abce", g_d, solved) - g_db.permute(2, 3, 0, 1)
        found = trial.metric.curvature_tensor(z)[0][..., :moves, :moves]
        compared["curvature"] = (found.permute(2, 3, 0, 1), curvature.permute(2, 3, 0, 1), 2)
    seconds = (time.perf_counter() - begin) / len(compared)
    rows = []
    for name, (value, truth, leading) in compared.items():
        for axis in range(value.ndim):
            own = scale[: moves if axis < leading else value.shape[axis]]
            shape = [-1 if n == axis else 1 for n in range(value.ndim)]
            value, truth = value / own.reshape(shape), truth / own.reshape(shape)
        error = frame_error(value, truth, torch.ones(0))  # in the frame already
        bounds = (modest_bound(condition),)
        note = f"50 digits through the decoder, {moves} of {d} directions"
        finding = Finding((error,), bounds, (condition,), note=note, scales=True)
        rows.append(finding.named(f"decoder.{name}", "mpmath", where, seconds))
    return rows


def _in_single_precision(trial: ComplexDecoderTrial) -> list[Finding]:
    rows = []
    metric = FisherMetric(trial.single.decoder, check=False)  # checked in float64
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        found = metric.metric_matrix(latents.to(torch.complex64)).to(torch.complex128)
        errors, conditions = [], []
        for i, point in enumerate(latents):
            scale, condition = trial.frame(point)
            truth = complex_decoders.by_autograd(trial.decoder, point)[0]
            errors.append(frame_error(found[i], truth, scale))
            conditions.append(condition)
        bounds = (METRIC_FLOAT32,) * len(errors)
        note = "float32 metric against float64 autograd"
        finding = Finding(tuple(errors), bounds, tuple(conditions), note=note)
        seconds = time.perf_counter() - begin
        rows.append(finding.named("decoder.metric (float32)", "autograd", where, seconds))
    return rows


COMPLEX_DECODER_CHECKS: Mapping[str, Callable[[ComplexDecoderTrial], list[Finding]]] = {
    "autograd": _by_autograd,
    "torch's KL": _by_torch_kl,
    "50 digits": _by_decimals,
    "samples": _by_sampling,
    "third derivatives": _derivatives,
    "derivatives at 50 digits": _decimal_derivatives,
    "float32": _in_single_precision,
}
