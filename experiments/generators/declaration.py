"""What was fixed before the experiment was run; the page prints it.

Whoever changes a value here must run the experiment again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from experiments.paired import LEVEL
from experiments.store import Json
from kahler_verify.models import RealVAEConfig

SEEDS = tuple(range(8))
CENTRES = 48
TRIPLES = ((0, 1, 2), (3, 4, 7), (5, 6, 9))
FAR = 3.0  # times the largest distance of a code from the codes' mean
VARIANCE = 0.03  # of the decoder, fixed, in the ablation: else it follows the noise

# measures, by cell: what they are, and how many digits the page gives
MEASURES = {
    "variance": {
        "log_likelihood": ("log p(x) of held-out images, nats", 2),
        "rise": ("log₁₀ of the mean σ far from data, least direction, over that at data", 2),
    },
    "flatness": {
        "excess": ("median of straight over geodesic length, minus 1", 4),
        "largest_excess": ("the largest such excess", 3),
        "curvature": ("5 – 95% range of K ℓ², ℓ the median geodesic length", 2),
    },
    "clusters": {"f": ("F of the best matching of 3 clusters to 3 classes, mean of triples", 4)},
    "uniformity": {
        "variation": ("coefficient of variation of whitened codes' nearest distances", 4),
        "sliced": ("sliced 2-Wasserstein distance of whitened codes to N(0, I)", 4),
        "holes": ("part of N(0, I) farther than ¼ from every whitened code", 4),
        "deviation": ("the posterior's σ over the codes' deviation", 4),
    },
}
# arms against a baseline: by cell
ARMS = {
    "variance": ("mlp", {"rbf": "a precision of radial basis functions", "constant": "constant σ"}),
    "flatness": ("flat", {"mean": "pull-back of the mean", "expected": "expected metric, RBF σ"}),
    "uniformity": ("neither", {"noise": "noise alone", "kl": "KL alone", "both": "both"}),
    "clusters": (
        "euclidean",
        {
            "riemannian": "geodesic k-means, expected metric, RBF σ",
            "euclidean_mlp": "Euclidean k-means on the codes of an MLP-variance VAE",
        },
    ),
}
TITLES = {
    "variance": "O5 and O8: what gives the variance",
    "flatness": "S4: are straight lines geodesics, and is the manifold flat?",
    "clusters": "O7: k-means",
    "uniformity": "P2: noise and KL, each alone",
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        epochs: of every training of a VAE.
        ablation_epochs: of every training of the ablation.
        draws: of the marginal likelihood's estimate, for each image.
        held_out: images that it is of.
        pairs: of held-out codes that geodesics join.
        points: of each class that are clustered.
        runs: of k-means, from other first centres.
    """

    epochs: int = 300
    ablation_epochs: int = 150
    draws: int = 500
    held_out: int = 180
    pairs: int = 60
    points: int = 12
    runs: int = 1


FULL = Sizes()
QUICK = Sizes(epochs=2, ablation_epochs=2, draws=50, held_out=20, pairs=4, points=4, runs=1)


def config(seed: int, variance: str) -> RealVAEConfig:
    """The model: two latents, Gaussian images, the package's defaults."""
    constant = variance == "constant"
    return RealVAEConfig(
        data="digits-images",
        data_dim=64,
        latent_dim=2,
        likelihood="gaussian",
        covariance="constant" if constant else "diagonal",
        variance="rbf" if variance == "rbf" else "mlp",
        centres=CENTRES if variance == "rbf" else 0,
        seed=seed,
    )


def as_json(sizes: Sizes) -> Json:
    """All of it, for the report."""
    return {
        "level": LEVEL,
        "seeds": list(SEEDS),
        "centres": CENTRES,
        "triples": [list(t) for t in TRIPLES],
        "far": FAR,
        "variance": VARIANCE,
        "sizes": asdict(sizes),
        "model": config(0, "rbf").to_dict(),
    }


def words(declared: Json) -> str:
    """For the page."""
    sizes, model = declared["sizes"], declared["model"]
    return (
        f"Digits as images in [0, 1], 8 × 8; d = {model['latent_dim']}, hidden layers "
        f"{model['hidden']}, {model['activation']}, {sizes['epochs']} epochs; "
        f"{declared['centres']} centres. {sizes['draws']} draws for each of {sizes['held_out']} "
        f"held-out images; {sizes['pairs']} pairs; {sizes['points']} points of each class, triples "
        f"{', '.join(''.join(map(str, t)) for t in declared['triples'])}, {sizes['runs']} runs of "
        f"k-means. In the ablation σ² = {declared['variance']}. Each seed has its own split."
    )
