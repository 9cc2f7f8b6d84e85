"""What commands on curves share: a checkpoint's metric on real coordinates, and points of it."""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kahler_verify.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from kahler_verify.cli.user_models import UserModel
    from kahler_verify.geometry.riemannian import RiemannianMetric
    from kahler_verify.models.checkpoint import Checkpoint


class Latents(NamedTuple):
    """A model's latent space: in real coordinates (x, y) where it is complex."""

    checkpoint: Checkpoint | None  # none of a user's model
    metric: RiemannianMetric
    dimension: int
    complex: bool
    name: str

    @property
    def model(self) -> Any:
        """A checkpoint's model, in double precision."""
        assert self.checkpoint is not None
        return self.checkpoint.model

    def held_out(self, data: Path | None) -> Tensor | None:
        """The data that a checkpoint was not trained on, None where they are not known."""
        from kahler_verify.models.data import held_out_samples

        if self.checkpoint is None:
            return None
        config = self.checkpoint.config
        return held_out_samples(config.data, config.seed, data)

    def encoded(self, samples: Tensor) -> Tensor:
        """Mean codes of data, in real coordinates."""
        import torch

        with torch.no_grad():
            z = self.model.encoder(samples)[0]
        return torch.cat([z.real, z.imag], -1) if z.is_complex() else z

    def images(self, x: Tensor) -> Tensor | None:
        """Decoded means as images [B, h, w], at real coordinates [B, d]; None where they are none.

        Data of a square number of reals are taken for images; a user's model may decode anything.
        """
        from kahler_verify.models.data import to_images

        if self.checkpoint is None:
            return None
        mean = self._mean(x)
        images = to_images(mean, self.checkpoint.config.data)
        side = isqrt(mean.shape[-1])
        if images is None and side**2 == mean.shape[-1]:
            return mean.real.unflatten(-1, (side, side))
        return images

    def _mean(self, x: Tensor) -> Tensor:
        """Means of data, real or complex, at real coordinates [B, d]."""
        import torch

        decoder: Any = self.model.decoder
        with torch.no_grad():
            if self.complex:
                mean: Tensor = decoder.parameters_at(torch.complex(*x.chunk(2, -1))).mean
                return mean
            law = decoder(x)
        if isinstance(law, tuple):
            return law[0]  # of a pair (mean, log variance)
        return law.mean if hasattr(law, "mean") and not isinstance(law, torch.Tensor) else law


def open_latents(path: Path) -> Latents:
    """The Fisher-Rao metric of a checkpoint's decoder."""
    from kahler_verify.geometry import FisherMetric
    from kahler_verify.geometry.fisher_rao import FisherRaoMetric
    from kahler_verify.models import ComplexVAE, load_checkpoint

    loaded = load_checkpoint(path)
    model = loaded.model.double().requires_grad_(False)
    d = loaded.config.latent_dim
    if isinstance(model, ComplexVAE):
        return Latents(loaded, FisherMetric(model.decoder).riemannian(), 2 * d, True, path.name)
    return Latents(loaded, FisherRaoMetric(model.decoder, d), d, False, path.name)


def of_user(user: UserModel) -> Latents:
    """The latent space of a user's model."""
    return Latents(None, user.metric, user.dimension, False, user.name)


def point(name: str, text: str, latents: Latents, samples: Tensor | None) -> Tensor:
    """A latent by its coordinates, ``0.5,-1`` or ``1+2j,0``, or ``#3`` for encoded data."""
    import torch

    if text.startswith("#"):
        if samples is None or not text[1:].isdigit() or int(text[1:]) >= len(samples):
            held = "none" if samples is None else f"{len(samples)}"
            raise InputError(
                f"{name}: expected # and the number of a held-out sample ({held} are known), "
                f"got {text!r}"
            )
        return latents.encoded(samples[int(text[1:])][None])[0]
    try:
        values = [complex(part.replace(" ", "")) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"{name}: expected coordinates such as 0.5,-1 or a sample such as #3, got {text!r}"
        ) from None
    z = torch.tensor(values, dtype=torch.complex128)
    expected = latents.dimension // (2 if latents.complex else 1)
    if len(values) != expected:
        raise InputError(f"{name}: expected {expected} coordinates, got {len(values)} in {text!r}")
    if latents.complex:
        return torch.cat([z.real, z.imag])
    if bool((z.imag != 0).any()):
        raise InputError(f"{name}: expected real coordinates, got {text!r}")
    return z.real
