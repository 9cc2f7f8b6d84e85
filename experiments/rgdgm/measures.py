"""The encoder's Jacobian against the gradient, and the paths that both lead to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from experiments.generators.measures import Mean
from experiments.rgdgm.declaration import Sizes
from experiments.store import Json
from kahler_verify.curves import Curve, Mesh, Relaxation, connect
from kahler_verify.curves.connect.relaxation import pushed
from kahler_verify.geometry import PulledBackMetric
from kahler_verify.jets import propagate
from kahler_verify.models import RealVAE


def mean_metric(model: RealVAE) -> PulledBackMetric:
    """The pull-back of the decoder's mean."""
    return PulledBackMetric(Mean(model.decoder))


def pairs(codes: Tensor, sizes: Sizes, seed: int) -> tuple[Tensor, Tensor]:
    """Codes that are joined, [pairs, d] each."""
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))
    a, b = codes[order[: 2 * sizes.pairs]].chunk(2)
    return a, b


def directions(model: RealVAE, a: Tensor, b: Tensor, sizes: Sizes) -> Json:
    """At inner nodes of straight lines, J_h y and J⁺y against Jᵀy."""
    metric = mean_metric(model)
    times = torch.linspace(0, 1, sizes.chords + 1, dtype=a.dtype)[:, None]
    line = a[:, None] + times * (b - a)[:, None]
    x = metric.embed(line.flatten(0, 1)).unflatten(0, line.shape[:2])
    y = (x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2]).flatten(0, 1)
    z, at = line[:, 1:-1].flatten(0, 1), x[:, 1:-1].flatten(0, 1)
    slopes = propagate(metric.embed, z, 1).d
    down = (slopes @ y.unsqueeze(-1)).squeeze(-1)
    found = {
        "encoder": pushed(lambda x: model.encoder(x)[0], at, y),
        "inverse": torch.linalg.solve(slopes @ slopes.mT, down),
    }
    return {name: _against(down, each) for name, each in found.items()}


def _against(down: Tensor, found: Tensor) -> Json:
    cosine = torch.nn.functional.cosine_similarity(found, down).clamp(-1, 1)
    return {
        "climbing": float((cosine < 0).double().mean()),
        "angle": math.degrees(float(cosine.acos().median())),
    }


def paths(model: RealVAE, a: Tensor, b: Tensor, sizes: Sizes) -> Json:
    """Lengths of straight lines and of what both descents come to, over the geodesics'."""
    metric = mean_metric(model)
    best = connect(metric, a, b, raise_on_failure=False).length
    mesh = Mesh(sizes.chords, 1)
    start = a[:, None] + mesh.times[:, None] * (b - a)[:, None]
    shared = {"chords": sizes.chords, "most_iterations": sizes.sweeps}
    solvers = {
        "descent": Relaxation(**shared),  # type: ignore[arg-type]
        "shortcut": Relaxation(encoder=lambda x: model.encoder(x)[0], **shared),  # type: ignore[arg-type]
    }
    nodes = {"line": start}
    nodes |= {name: solver.relaxed(metric, start)[0] for name, solver in solvers.items()}
    values = {name: _excess(Curve(metric, mesh, own).length, best) for name, own in nodes.items()}
    return {**values, "geodesic": {"excess": 0.0, "largest": 0.0}}


def _excess(length: Tensor, best: Tensor) -> Json:
    found = (length / best - 1)[best.isfinite()]
    lost = ~found.isfinite()
    return {
        "excess": float(found[~lost].median()),
        "largest": float(found[~lost].max()),
        "lost": int(lost.sum()),
    }
