"""What was fixed before the experiment was run; the page prints it.

Whoever changes a value here must run the experiment again.  The reach σ of the data metric comes
from a pilot: of FACTORS, that which validated best with two components on half a circle at
PILOT_SEED, which is none of the seeds that are reported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from experiments.generators import declaration as models
from experiments.paired import LEVEL
from experiments.store import Json

SEEDS = tuple(range(8))
PILOT_SEED = 100
FACTORS = (1.0, 2.0, 4.0, 8.0)  # of the mean distance to the NEIGHBOUR-th neighbour
FACTOR = 2.0  # what the pilot chose: -.618, -.561, -.642 and -.879 nats
NEIGHBOUR = 8
WIDTHS = tuple(0.02 * 1.25**k for k in range(16))  # of the kernel density estimate
FLOOR = -30.0  # log density of a point that no geodesic is found to, nats

# By data set: its words, and the most components of a LAND
DATA = {
    "semicircle": ("half a circle", 6),
    "moons": ("two moons", 10),
    "spirals": ("two spirals", 5),
    "gaussian": ("a Gaussian", 3),
    "digits": ("digits' codes", 4),
}
CODES = "digits"  # in the expected metric of a VAE's decoder; the others in a data metric
ROOM = 0.15  # of the codes' extent, about them: the box that is their whole space
NODES = 600  # of the table of their metric, along the box's longer side
EQUAL = (1, 2)  # numbers of components at which both are compared

ARMS = {
    "free": (
        "mixture",
        {
            "land": "mixture of LANDs, K by validation",
            "either": "the one of both that validates better",
            "kernel": "kernel density estimate, width by validation",
        },
    ),
    "equal": ("mixture", {"land": "mixture of LANDs, the same K"}),
}
MEASURES = {
    "free": {name: (f"log density of {words}, nats", 3) for name, (words, _) in DATA.items()},
    "equal": {
        f"{name}_{k}": (f"log density of {words}, K = {k}, nats", 3)
        for name, (words, _) in DATA.items()
        for k in EQUAL
    },
}
TITLES = {
    "free": "L6: held-out log density per point, K by validation",
    "equal": "L6: held-out log density per point at equal K",
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        train, validation, test: points.
        gaussians: the most components of a Gaussian mixture.
        starts: of each of these.
        rays: geodesics in a fan.
        precision: of geodesics.
        tolerance: of the mean log-likelihood's gain, below which a LAND's fit ends.
        most_iterations: of that fit.
    """

    train: int = 200
    validation: int = 200
    test: int = 1000
    gaussians: int = 12
    starts: int = 5
    rays: int = 48
    precision: float = 1e-5
    tolerance: float = 2e-3
    most_iterations: int = 12


FULL = Sizes()
QUICK = Sizes(60, 40, 60, gaussians=2, starts=1, rays=24, tolerance=0.1, most_iterations=1)
MODELS = {FULL: models.FULL, QUICK: models.QUICK}  # what digits' VAEs are trained by


def as_json(sizes: Sizes) -> Json:
    """All of it, for the report."""
    return {
        "level": LEVEL,
        "seeds": list(SEEDS),
        "pilot": {"seed": PILOT_SEED, "factors": list(FACTORS)},
        "factor": FACTOR,
        "neighbour": NEIGHBOUR,
        "widths": list(WIDTHS),
        "floor": FLOOR,
        "data": {name: list(row) for name, row in DATA.items()},
        "equal": list(EQUAL),
        "sizes": asdict(sizes),
        "codes": {
            "room": ROOM,
            "nodes": NODES,
            "epochs": MODELS[sizes].epochs,
            "model": models.config(0, "rbf").to_dict(),
        },
    }


def words(declared: Json) -> str:
    """For the page."""
    sizes, codes = declared["sizes"], declared["codes"]
    most = ", ".join(f"{row[1]} ({name})" for name, row in declared["data"].items())
    return (
        f"{sizes['train']} points to fit to, {sizes['validation']} to validate with, "
        f"{sizes['test']} to test with. Gaussian mixtures have up to {sizes['gaussians']} "
        f"components, each of {sizes['starts']} starts. LANDs have up to {most} in the data "
        f"metric, σ {declared['factor']:g} times the mean distance to the "
        f"{declared['neighbour']}th neighbour, as a pilot chose on half a "
        "circle; digits' codes are those of a VAE with "
        f"{codes['model']['centres']} radial basis functions, d = {codes['model']['latent_dim']}, "
        f"{codes['epochs']} epochs, in its expected metric. {sizes['rays']} "
        f"geodesics in a fan; a fit ends where an iteration gains less than "
        f"{sizes['tolerance']:g} nats. A point that no geodesic reaches counts "
        f"{declared['floor']:g} nats."
    )
