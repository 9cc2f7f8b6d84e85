"""What is looked at: a metric on real coordinates, codes of data, and what latents decode to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric, HermitianMetric, MetricJet
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.geometry.real_form import RealForm
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.models.data import to_images
from kahler_verify.models.vae import ComplexVAE

MOST_CODES = 2000  # that a page draws without delay
MOST_VALUES = 512  # of a decoded vector that is drawn as a profile
MOST_PIXELS = 128  # along the side of a decoded image
FEW = 1000  # points of a field, from which their distance is taken


class Unknown(RiemannianMetric):
    """What a stored field says of the metric that it is of: nothing."""

    def jet(self, z: Tensor, order: int) -> MetricJet:  # noqa: ARG002
        """Refused, in words for the page."""
        raise InputError(
            "metric: a stored field has none to go by; name its model too, as in "
            "explore CHECKPOINT --field STORE"
        )


@dataclass(frozen=True)
class Stored:
    """A field that was stored: values [N] at points [N, d] of a quantity, in words."""

    points: Tensor
    values: Tensor
    quantity: str

    @cached_property
    def _near(self) -> tuple[Any, float]:
        """A search tree, and how far apart the points are."""
        from scipy.spatial import cKDTree

        places = self.points.numpy()
        tree = cKDTree(places)
        some = places[:: -(-len(places) // FEW)]
        return tree, float(np.median(tree.query(some, min(2, len(places)))[0][:, -1]))

    def at(self, z: Tensor) -> Tensor:
        """The value at the nearest point, [B]; NaN farther away than they are apart."""
        tree, apart = self._near
        gap, row = tree.query(z.numpy())
        near = torch.from_numpy(gap) <= 2 * apart + 1e-12
        return torch.where(near, self.values[torch.from_numpy(row)].double(), torch.nan)


@dataclass(frozen=True)
class Subject:
    """A latent space to look at.

    Attributes:
        name: shown as it is, never as markup.
        metric: on R^d.
        dimension: d.
        complex: whether coordinates are x_1 … x_m, y_1 … y_m of z = x + iy.
        codes: encoded data, [N, d].
        labels: their classes, [N] whole numbers.
        decode: latents [B, d] to images [B, h, w] or [B, h, w, 3] in [0, 1], or to vectors [B, n].
        source: Python lines that make ``metric``; none where nobody can say.
        field: to colour by.
    """

    name: str
    metric: RiemannianMetric
    dimension: int
    complex: bool = False
    codes: Tensor | None = None
    labels: Tensor | None = None
    decode: Callable[[Tensor], Tensor] | None = None
    source: tuple[str, ...] = ()
    field: Stored | None = None

    def __post_init__(self) -> None:
        if self.dimension < 2:
            raise InputError(
                "latents: expected at least 2 real coordinates to show a plane of, got "
                f"{self.dimension}"
            )

    @property
    def known(self) -> bool:
        """Whether there is a metric, and not a field alone."""
        return not isinstance(self.metric, Unknown)

    @property
    def hermitian(self) -> HermitianMetric | None:
        """The metric that this one is the real form of."""
        return self.metric.hermitian if isinstance(self.metric, RealForm) else None

    @property
    def coordinates(self) -> list[str]:
        """Names of the coordinates."""
        if not self.complex:
            return [f"z{n + 1}" for n in range(self.dimension)]
        m = self.dimension // 2
        return [f"{part} z{n + 1}" for part in ("Re", "Im") for n in range(m)]

    def with_field(self, points: Tensor, values: Tensor, quantity: str) -> Subject:
        """The same with a field's values [N] at points [N, d].

        Raises:
            InputError: they are not of this latent space.
        """
        if points.ndim != 2 or points.shape[1] != self.dimension:
            raise InputError(
                f"field: expected points [N, {self.dimension}], got {list(points.shape)}"
            )
        if values.shape != points.shape[:1]:
            raise InputError(f"field: expected values [{len(points)}], got {list(values.shape)}")
        return replace(self, field=Stored(points, values, quantity))

    def frames(self, z: Tensor) -> dict[str, Any] | None:
        """What latents [B, d] decode to, as whole numbers from 0 to 255; None of no decoder.

        Images keep their scale; vectors are scaled together, to their least and largest values.
        """
        if self.decode is None:
            return None
        with torch.no_grad():
            out = self.decode(z).detach().double()
        if out.ndim >= 3:
            step = -(-max(out.shape[1:3]) // MOST_PIXELS)
            images = out[:, ::step, ::step]
            shape, low, high = list(images.shape[1:]), 0.0, 1.0
        else:
            step = -(-out.shape[1] // MOST_VALUES)
            images = out[:, ::step]
            shape = [images.shape[1]]
            finite = images[images.isfinite()]
            low, high = (float(x) for x in finite.aminmax()) if len(finite) else (0.0, 1.0)
        scaled = ((images - low) / ((high - low) or 1.0)).nan_to_num(0).clamp(0, 1)
        rows = (255 * scaled).round().long().flatten(1).tolist()
        return {"shape": shape, "low": low, "high": high, "frames": rows}


def of_field(name: str, is_complex: bool, points: Tensor, values: Tensor, quantity: str) -> Subject:
    """A field's values [N] at points [N, d] alone: what can be seen, and no geometry."""
    subject = Subject(name, Unknown(points.shape[1]), points.shape[1], is_complex)
    return subject.with_field(points, values, quantity)


def of_model(
    model: Any, name: str, codes: Tensor | None, labels: Tensor | None, source: tuple[str, ...] = ()
) -> Subject:
    """The latent space of a trained model of this package, in double precision."""
    config = model.config
    if isinstance(model, ComplexVAE):
        metric: RiemannianMetric = FisherMetric(model.decoder).riemannian()
    else:
        metric = FisherRaoMetric(model.decoder, config.latent_dim)
    is_complex = isinstance(model, ComplexVAE)

    def decode(x: Tensor) -> Tensor:
        z = torch.complex(*x.chunk(2, -1)) if is_complex else x
        mean: Tensor = model.decoder.mean(z)
        images = to_images(mean, config.data)
        if images is not None:
            return images
        return shaped(mean.abs() if mean.is_complex() else mean)

    if codes is not None:
        if codes.is_complex():
            codes = torch.cat([codes.real, codes.imag], -1)
        codes = codes[:MOST_CODES].double()
        labels = None if labels is None else labels[:MOST_CODES]
    d = config.latent_dim * (2 if is_complex else 1)
    return Subject(name, metric, d, is_complex, codes, labels, decode, source)


def of_metric(
    metric: RiemannianMetric, name: str, shape: tuple[int, ...], source: tuple[str, ...] = ()
) -> Subject:
    """The latent space of a user's metric, and of its decoder where it has one."""
    decoder = getattr(metric, "decoder", getattr(metric, "function", None))

    def decode(x: Tensor) -> Tensor:
        assert decoder is not None
        return shaped(_mean(decoder(x.reshape(len(x), *shape))))

    d = math.prod(shape)
    return Subject(name, metric, d, decode=None if decoder is None else decode, source=source)


def shaped(out: Tensor) -> Tensor:
    """Decoded numbers [B, ...] as grey or coloured images where they look like such, else [B, n].

    Squares of at least 5 × 5 that lie in [0, 1] are images; so is what has height and width.
    """
    if out.ndim == 4 and out.shape[1] in (1, 3):
        images = out.movedim(1, -1)
        return _stretched(images[..., 0] if images.shape[-1] == 1 else images)
    if out.ndim == 3 and min(out.shape[1:]) > 1:
        return _stretched(out)
    flat = out.reshape(len(out), -1)
    side = round(flat.shape[1] ** 0.5)
    if side >= 5 and side**2 == flat.shape[1] and bool((flat > -0.05).all()):
        return _stretched(flat.unflatten(1, (side, side)))
    return flat


def _stretched(images: Tensor) -> Tensor:
    """Images in [0, 1]: as they are where they lie there, else from -1 … 1, else by their range."""
    low, high = float(images.min()), float(images.max())
    if low >= -0.05 and high <= 1.05:
        return images
    if low >= -1.05 and high <= 1.05:
        return (images + 1) / 2
    return (images - low) / ((high - low) or 1.0)


def _mean(law: Any) -> Tensor:
    """Of what a decoder returns: a tensor, a pair (mean, log variance), or a distribution."""
    if isinstance(law, tuple | list):
        return law[0]
    if isinstance(law, Tensor):
        return law
    base = getattr(law, "base_dist", law)
    if getattr(base, "probs", None) is not None and law.mean.isnan().any():
        return base.probs  # a categorical law has no mean
    mean: Tensor = law.mean
    return mean
