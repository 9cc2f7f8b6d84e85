"""The numbers that are compared."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import f1_score
from torch import Tensor, nn

from experiments.generators.declaration import FAR, MEASURES, TRIPLES, Sizes
from experiments.store import Json
from kahler_verify.curves import Curve, connect
from kahler_verify.geometry import ExpectedMetric, PulledBackMetric, RiemannianMetric
from kahler_verify.models import RealVAE, marginal_log_likelihood
from kahler_verify.models.data import Split
from kahler_verify.statistics import RiemannianKMeans


def log_likelihood(model: RealVAE, x: Tensor, sizes: Sizes) -> Json:
    """The mean of log p(x), and its error by the draws."""
    found = marginal_log_likelihood(model, x[: sizes.held_out], sizes.draws)
    return {"log_likelihood": found.mean, "log_likelihood_error": found.error}


def rise(model: RealVAE, codes: Tensor) -> float:
    """log₁₀ of the mean σ at FAR radii from the codes' mean over that at codes.

    The least of 32 directions: one in which σ does not rise is a way out of the data.
    """
    angle = torch.linspace(0, 2 * torch.pi, 33, dtype=codes.dtype)[:-1]
    centre = codes.mean(0)
    radius = FAR * (codes - centre).norm(dim=-1).max()
    far = centre + radius * torch.stack([angle.cos(), angle.sin()], -1)
    with torch.no_grad():
        at_data = model.decoder(codes).base_dist.scale.mean()
        away = model.decoder(far).base_dist.scale.mean(-1).min()
    return float((away / at_data).log10())


class Mean(nn.Module):
    """The decoder's mean alone."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        """[B, d] to [B, D]."""
        return self.decoder.mean(z)


def flatness_of(model: RealVAE, codes: Tensor, pairs: int, seed: int) -> Json:
    """Of the mean's pull-back and of the expected metric, beside a flat manifold's."""
    found = {name: flatness(own, codes, pairs, seed) for name, own in metrics(model).items()}
    return {**found, "flat": dict.fromkeys(MEASURES["flatness"], 0.0)}


def flatness(metric: RiemannianMetric, codes: Tensor, pairs: int, seed: int) -> Json:
    """How much longer straight lines are than geodesics, and curvature over lengths squared."""
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))
    a, b = codes[order[: 2 * pairs]].chunk(2)
    path = connect(metric, a, b, raise_on_failure=False)
    line = Curve.through(metric, lambda t: a[:, None] + t[:, None] * (b - a)[:, None]).length
    found = path.length.isfinite()
    excess = (line / path.length - 1)[found]
    curvature = metric.scalar_curvature(codes) / 2  # sectional, in two dimensions
    low, high = torch.quantile(curvature * path.length[found].median() ** 2, TAILS)
    return {
        "excess": float(excess.median()),
        "largest_excess": float(excess.max()),
        "curvature": float(high - low),
        "not_found": int((~found).sum()),
    }


TAILS = torch.tensor([0.05, 0.95], dtype=torch.float64)


def metrics(model: RealVAE) -> dict[str, RiemannianMetric]:
    """The pull-back of the mean, and the expected metric."""
    decoder = model.decoder.requires_grad_(False)
    return {"mean": PulledBackMetric(Mean(decoder)), "expected": ExpectedMetric(decoder)}


def clustering(
    metric: RiemannianMetric, codes: Tensor, others: Tensor, labels: Tensor, sizes: Sizes, seed: int
) -> Json:
    """Mean F over the triples: geodesic and Euclidean on the same codes, Euclidean on others."""
    found: dict[str, list[float]] = {"riemannian": [], "euclidean": [], "euclidean_mlp": []}
    for triple in TRIPLES:
        rows = torch.cat([(labels == c).nonzero()[: sizes.points, 0] for c in triple])
        truth, x, y = labels[rows].numpy(), codes[rows], others[rows].numpy()
        ours = RiemannianKMeans(metric, 3, n_init=sizes.runs, random_state=seed).fit(x)
        found["riemannian"].append(f_score(truth, ours.labels_))
        for name, z in (("euclidean", x.numpy()), ("euclidean_mlp", y)):
            flat = KMeans(3, n_init=10, random_state=seed).fit(z)
            found[name].append(f_score(truth, flat.labels_))
    return {name: {"f": float(np.mean(values))} for name, values in found.items()}


def f_score(truth: np.ndarray, clusters: np.ndarray) -> float:
    """Macro F of the matching of clusters to classes that has most points right."""
    classes = np.unique(truth)
    table = np.array([[np.sum(clusters[truth == c] == k) for k in range(3)] for c in classes])
    rows, columns = linear_sum_assignment(-table)
    name = dict(zip(columns, classes[rows], strict=True))
    return float(f1_score(truth, [name[k] for k in clusters], average="macro"))


def codes_of(model: RealVAE, x: Tensor) -> Tensor:
    """Mean codes, in double precision."""
    with torch.no_grad():
        return model.encoder(x)[0]


def joined(*splits: Split) -> tuple[Tensor, Tensor]:
    """Images, in double precision, and labels of parts of the data."""
    labels = [split.labels for split in splits if split.labels is not None]
    return torch.cat([split.x for split in splits]).double(), torch.cat(labels)
