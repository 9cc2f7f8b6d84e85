"""Codes of digits, and the metric that their model gives the latent space."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from experiments.generators.measures import codes_of, metrics
from experiments.generators.models import model_of
from experiments.land.declaration import MODELS, NODES, ROOM, Sizes
from experiments.oddity.grid import table
from kahler_verify.geometry import RiemannianMetric
from kahler_verify.models import RealVAE, load_data


def encoded(folder: Path, seed: int, sizes: Sizes) -> list[Tensor]:
    """Codes to fit to, to validate with and to test with, [N, 2] each.

    All are of images that the model was trained on, in an order of their own, so that none of the
    three is another kind of sample.
    """
    codes = _codes(_model(folder, seed, sizes), seed)
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))
    parts = [sizes.train, sizes.validation, sizes.test]
    return list(codes[order[: sum(parts)]].split(parts))


def expected(folder: Path, seed: int, sizes: Sizes) -> RiemannianMetric:
    """The decoder's expected metric, in a box about all codes."""
    model = _model(folder, seed, sizes)
    return table(metrics(model)["expected"], _codes(model, seed), ROOM, NODES)


def _model(folder: Path, seed: int, sizes: Sizes) -> RealVAE:
    return model_of(folder, seed, "rbf", MODELS[sizes])


def _codes(model: RealVAE, seed: int) -> Tensor:
    return codes_of(model, load_data("digits-images", seed).train.x.double())
