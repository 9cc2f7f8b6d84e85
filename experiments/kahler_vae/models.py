"""Trained models, and the ways to draw their latents."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import gamma as gamma_law
from scipy.stats import spearmanr
from sklearn.mixture import GaussianMixture
from torch import Tensor

from experiments.kahler_vae import declaration, measures
from experiments.kahler_vae.declaration import Cell, MixtureOf, Sizes, Strengths
from experiments.store import fingerprint
from kahler_verify.geometry import FisherMetric
from kahler_verify.models import (
    ComplexVAE,
    Dataset,
    TrainingOptions,
    load_checkpoint,
    to_images,
    train,
)
from kahler_verify.statistics import VolumeTarget, importance_resample, run_chains

CHUNK = 2048


def trained(
    cell: Cell, seed: int, beta: float, options: TrainingOptions, data: Dataset, folder: Path
) -> ComplexVAE:
    """The trained model, from disk if it is there; an interrupted training is resumed.

    Raises:
        InputError: the training failed, which is a result: some regularizers end that way.
    """
    config = cell.config(seed, beta)
    name = fingerprint({"config": config.to_dict(), "options": asdict(options)})
    path = folder / "models" / f"{cell.name}-{seed}-{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = (
        load_checkpoint(path)
        if path.exists()
        else train(config, data, path, options=options, resume=True)
    )
    model = checkpoint.model.double()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@dataclass(frozen=True)
class Images:
    """A data set as images [n, 8, 8] in [0, 1], float64, and the judge that learnt from them."""

    source: str
    train: np.ndarray
    held_out: np.ndarray
    judge: measures.Judge

    @classmethod
    def of(cls, data: Dataset) -> Images:
        """Validation and test parts together are the held-out images: no training uses either."""
        held_out = as_images(torch.cat([data.validation.x, data.test.x]), data.source)
        assert data.train.labels is not None
        assert data.validation.labels is not None
        assert data.test.labels is not None
        labels = torch.cat([data.validation.labels, data.test.labels]).numpy()
        train_images = as_images(data.train.x, data.source)
        judge = measures.fit_judge(train_images, data.train.labels.numpy(), held_out, labels)
        return cls(data.source, train_images, held_out, judge)


def as_images(samples: Tensor, source: str) -> np.ndarray:
    """Samples [..., D] of a data set, or decoder means, as images [..., 8, 8] in [0, 1].

    k-space signals go the way back that the data came: the inverse of the packed Fourier transform.
    """
    images = to_images(samples, source)
    assert images is not None
    return images.clamp(0, 1).double().numpy()


@dataclass(frozen=True)
class Trained:
    """A trained model with its data: latents in, images and measures out."""

    model: ComplexVAE
    data: Dataset
    images: Images
    sizes: Sizes

    @property
    def dim(self) -> int:
        """The latent dimension d."""
        return self.model.config.latent_dim

    @cached_property
    def metric(self) -> FisherMetric:
        """The decoder's Fisher metric."""
        return FisherMetric(self.model.decoder, check=False, validate_args=False)

    def encode(self, x: Tensor) -> Tensor:
        """The posterior means [n, d] of data [n, D]."""
        wide = torch.complex128 if x.is_complex() else torch.float64
        return self.model.encoder(x.to(wide))[0]

    @cached_property
    def held_out_x(self) -> Tensor:
        """Held-out data [n, D] in double precision."""
        x = torch.cat([self.data.validation.x, self.data.test.x])
        return x.to(torch.complex128 if x.is_complex() else torch.float64)

    def decode(self, z: Tensor) -> np.ndarray:
        """The decoder's means at z [..., d] as images [..., 8, 8]."""
        return as_images(self.model.decoder.parameters_at(z).mean, self.data.source)

    def decode_draw(self, z: Tensor, seed: int) -> np.ndarray:
        """Draws from the decoder's likelihood at z [..., d] as images [..., 8, 8]."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return as_images(self.model.decoder(z).sample(), self.data.source)

    def latents(self, sampling: str, strengths: Strengths, seed: int) -> tuple[Tensor, dict]:
        """Latents [n, d], drawn as an :class:`~declaration.Arm` says, and how it went.

        Weighted latents come from the package's importance sampler, with the true volume.
        """
        count = self.sizes.samples
        generator = torch.Generator().manual_seed(1_000 + seed)
        match sampling:
            case "prior" | "temperature":
                z = torch.randn(count, self.dim, dtype=torch.complex128, generator=generator)
                return (z * strengths.temperature if sampling == "temperature" else z), {}
            case "mixture":
                return self._from_mixture(strengths.mixture_of, seed)
        exponent = {"ball": 0.0, "up": strengths.gamma_up, "down": strengths.gamma_down}[sampling]
        return self.weighted(exponent, strengths.mass, seed)

    def target(self, exponent: float, mass: float) -> VolumeTarget:
        """Prior × volume^exponent in the ball that has ``mass`` of the prior."""
        radius = float(np.sqrt(gamma_law.ppf(mass, self.dim)))  # |z|² ~ Gamma(d, 1)
        return VolumeTarget(self.metric, self.dim, gamma=exponent, radius=radius)

    def weighted(self, exponent: float, mass: float, seed: int) -> tuple[Tensor, dict]:
        """Latents of :meth:`target`; a low effective sample size is reported, not hidden."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draws = importance_resample(
                self.target(exponent, mass),
                self.sizes.samples,
                proposals=self.sizes.proposals,
                seed=1_000 + seed,
            )
        return draws.z, {
            "effective_sample_size": draws.effective_sample_size,
            "distinct": len({complex(z) for z in draws.z[:, 0].tolist()}) / len(draws.z),
        }

    def chains(self, exponent: float, mass: float, seed: int) -> dict[str, float]:
        """The same target by the package's NUTS chains: do two samplers agree on the log volume?

        The difference of the two mean log volumes is in standard errors of both.
        """
        target = self.target(exponent, mass)
        chains = run_chains(
            target,
            self.sizes.chain_samples,
            chains=self.sizes.chains,
            warmup=self.sizes.chain_warmup,
            seed=seed,
        )
        resampled, how = self.weighted(exponent, mass, seed)
        a, b = self.metric.log_volume(chains.z), self.metric.log_volume(resampled)
        effective = min(how["effective_sample_size"], self.sizes.samples)
        error = (a.var() / chains.effective_sample_size + b.var() / effective).sqrt()
        return {
            "effective_sample_size": chains.effective_sample_size,
            "r_hat": float(chains.r_hat or 0),
            "acceptance": float(chains.acceptance or 0),
            "difference_in_standard_errors": float((a.mean() - b.mean()) / error),
        }

    def _from_mixture(self, of: MixtureOf, seed: int) -> tuple[Tensor, dict]:
        """A mixture fitted to encoded training data, posterior means or draws.

        Ex-post density estimation, Ghosh et al. 2020 (arXiv 1903.12436).
        """
        x = self.data.train.x
        if of == "means":
            z = self.encode(x)
        else:
            wide = torch.complex128 if x.is_complex() else torch.float64
            generator = torch.Generator().manual_seed(2_000 + seed)
            z, _ = self.model.draw_latents(x.to(wide), generator=generator)
        codes = torch.view_as_real(z).flatten(1).numpy()
        fits = [
            GaussianMixture(k, reg_covar=1e-4, random_state=seed).fit(codes)
            for k in declaration.MIXTURE_COMPONENTS
        ]
        best = min(fits, key=lambda fit: fit.bic(codes))
        best.set_params(random_state=1_000 + seed)
        points = torch.from_numpy(best.sample(self.sizes.samples)[0]).double()
        # scikit-learn sorts samples by component, and measures take them batch by batch
        generator = torch.Generator().manual_seed(3_000 + seed)
        points = points[torch.randperm(len(points), generator=generator)]
        z = torch.view_as_complex(points.unflatten(1, (self.dim, 2)).contiguous())
        return z, {"components": best.n_components}

    def measure_model(self, seed: int) -> dict[str, float]:
        """What does not depend on how latents are drawn: paths and reconstruction, held-out.

        Paths are straight latent segments between the codes of random pairs of held-out images.
        The reconstruction error is the mean squared error of a pixel, of the decoder's mean at
        the posterior mean; the ELBO is over 16 posterior draws.
        """
        codes = self.encode(self.held_out_x)
        order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))
        half = min(len(codes) // 2, self.sizes.paths)
        start, end = codes[order[:half]], codes[order[-half:]]
        t = torch.linspace(0, 1, self.sizes.path_points, dtype=torch.float64)[:, None]
        paths = self.decode(start[:, None] * (1 - t) + end[:, None] * t)
        error = self.decode(codes) - self.images.held_out
        return {
            "path_roughness": 1e4 * measures.path_roughness(paths),
            "relative_path_roughness": measures.relative_path_roughness(paths),
            "reconstruction": 1e3 * float((error**2).mean()),
            "elbo": self.model.elbo(self.held_out_x, seed=seed),
        }

    def measure(self, images: np.ndarray) -> dict[str, float]:
        """What is measured of generated images."""
        return measures.of_samples(images, self.images.judge, self.images.held_out)

    def describe_volume(self, seed: int) -> dict[str, float]:
        """Where the volume is large: near the codes of held-out data, or away from them."""
        z, _ = self.latents("prior", declaration.STRENGTHS, seed)
        codes = self.encode(self.held_out_x)
        at_prior, at_codes = self.metric.log_volume(z), self.metric.log_volume(codes)
        square = z.abs().square().sum(-1)
        return {
            "log_volume_at_codes": float(at_codes.median()),
            "log_volume_at_prior": float(at_prior.median()),
            "log_det_at_codes": float(self.metric.log_det_hermitian(codes).median()),
            "rank_correlation_with_radius": float(spearmanr(at_prior, square).statistic),
            "mean_square_of_codes": float(codes.abs().square().sum(-1).mean()),
        }


def scale(images: Images, samples: int, seed: int) -> dict[str, dict[str, float]]:
    """The same measures of real digits, and of noise as a negative control.

    Real digits are the held-out ones; only recall and coverage, which compare with them, take as
    many training images instead. Noise has the right distribution of each pixel and nothing else:
    every pixel comes from a random training image.
    """
    generator = np.random.default_rng(seed)
    other = images.train[generator.permutation(len(images.train))[: len(images.held_out)]]
    real = measures.of_samples(images.held_out, images.judge, images.held_out)
    swapped = measures.of_samples(other, images.judge, images.held_out)
    rows = generator.integers(len(images.train), size=(samples, 8, 8))
    noise = images.train[rows, np.arange(8)[:, None], np.arange(8)]
    return {
        "real": {**real, "recall": swapped["recall"], "coverage": swapped["coverage"]},
        "noise": measures.of_samples(noise, images.judge, images.held_out),
    }


def metric_plane(trained_model: Trained, extent: float, points: int) -> dict[str, Any]:
    """Log volumes over the real 2-plane of the codes' greatest variance, and the codes' shadows."""
    codes = torch.view_as_real(trained_model.encode(trained_model.data.train.x)).flatten(1)
    centre = codes.mean(0)
    axes = torch.linalg.svd(codes - centre, full_matrices=False)[2][:2]
    side = torch.linspace(-extent, extent, points, dtype=torch.float64)
    x, y = torch.meshgrid(side, side, indexing="xy")
    flat = x.reshape(-1, 1) * axes[0] + y.reshape(-1, 1) * axes[1]
    z = torch.view_as_complex(flat.unflatten(1, (trained_model.dim, 2)).contiguous())
    values = torch.cat([trained_model.metric.log_volume(part) for part in z.split(CHUNK)])
    labels = trained_model.data.train.labels
    assert labels is not None
    return {
        "side": side.numpy(),
        "log_volume": values.reshape(points, points).numpy(),
        "codes": (codes @ axes.T).numpy(),
        "labels": labels.numpy(),
    }
