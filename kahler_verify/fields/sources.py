"""Whose metric a field is of, so that any process can load it and know that it is the same."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kahler_verify.errors import CheckpointError, InputError
from kahler_verify.spaces import Space

if TYPE_CHECKING:
    from kahler_verify.geometry.base import Metric

DTYPES = ("float64", "float32")
MEMORY = 512 * 2**20  # bytes of a worker's metric
_kept: dict[tuple[str, ...], Any] = {}  # a process loads a model once


@dataclass(frozen=True)
class Source:
    """A model's metric.

    Attributes:
        kind: checkpoint, module or metric.
        name: for readers; a checkpoint's may change where its weights do not.
        fingerprint: of a checkpoint's bytes, or of a module's text.
        space: of the latents.
        load: a metric in double precision, in whatever process.
    """

    kind: str
    name: str
    fingerprint: str
    space: Space
    load: Callable[[], Metric]

    def metric(self, dtype: str = "float64", memory: int = MEMORY) -> Metric:
        """The metric, loaded once in a process."""
        key = (self.kind, self.name, self.fingerprint, dtype)
        if self.kind == "metric" or key not in _kept:
            metric = copy.copy(self.load())  # its budget is set below, and a user's is the user's
            if dtype == "float32":
                metric = metric.float()
            _kept.clear()
            _kept[key] = metric
        found: Metric = _kept[key]
        found.memory_budget = memory
        return found

    def to_json(self, metric: Metric, dtype: str) -> dict[str, Any]:
        """What a plan says of it: other weights have another probe."""
        return {
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "latents": str(self.space),
            "probe": probe(self.space, metric, dtype),
        }


def probe(space: Space, metric: Any, dtype: str) -> float | None:
    """The square of a fixed vector's length at a fixed point; None where it is not finite."""
    import torch

    d = space.real_dimension
    assert d is not None
    random = np.random.default_rng(0)
    z, v = (
        space.from_real(torch.from_numpy(random.standard_normal(d)).to(getattr(torch, dtype)))
        for _ in range(2)
    )
    try:
        with torch.no_grad():
            found = float(metric.squared_norm(v, 0.1 * z))
    except InputError:
        return None
    return found if math.isfinite(found) else None


# ------------------------------------------------------------- kinds of sources
def of_checkpoint(path: str | Path) -> Source:
    """A checkpoint's decoder: its Fisher-Rao metric, or its Hermitian Fisher metric.

    Raises:
        CheckpointError: it is none.
    """
    path = Path(path)
    from kahler_verify.models import ComplexVAE, load_checkpoint

    loaded = load_checkpoint(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    space = Space(isinstance(loaded.model, ComplexVAE), loaded.config.latent_dim)
    return Source(
        "checkpoint", path.name, digest, space, partial(_checkpoint, path.resolve(), digest)
    )


def _checkpoint(path: Path, digest: str) -> Metric:
    from kahler_verify.geometry import FisherMetric
    from kahler_verify.geometry.fisher_rao import FisherRaoMetric
    from kahler_verify.models import ComplexVAE, load_checkpoint

    loaded = load_checkpoint(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise CheckpointError(f"{path}: expected the checkpoint that the work began with")
    model = loaded.model.double().requires_grad_(False)
    if isinstance(model, ComplexVAE):
        return FisherMetric(model.decoder)
    return FisherRaoMetric(model.decoder, loaded.config.latent_dim)


def of_metric(metric: Metric, dimension: int | None = None, name: str = "") -> Source:
    """A metric that is at hand, which has to be picklable for engines with other processes.

    Args:
        metric: on real or on complex latents.
        dimension: d, where the metric does not know it.
        name: for readers.
    """
    own = metric.space.dimension or dimension
    if own is None:
        raise InputError("dimension: expected the dimension of the latents, got none")
    space = Space(metric.space.complex, own)
    kind = type(metric).__name__
    return Source("metric", name or kind, kind, space, partial(_itself, metric))


def _itself(metric: Metric) -> Metric:
    return metric
