"""What was fixed before the experiment was run; the page prints it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from experiments.paired import LEVEL
from experiments.store import Json
from kahler_verify.models import QuantisedVAEConfig

SEEDS = tuple(range(8))
RADII = (2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)  # of the median distance of a code to the nearest

ARMS = {"limit": ("vq", {f"r{k}": f"balls of radius {r:g}" for k, r in enumerate(RADII)})}
MEASURES = {
    "limit": {
        "mixture": ("bound of the mixture prior less the VQ-VAE's, nats", 3),
        "divergence": ("log K - KL, prior of all balls, nats", 3),
        "reconstruction": ("E log p(x|z) less log p(x|c), nats", 3),
        "fixed": ("KL to N(0, I) less log K, nats", 2),
    }
}
TITLES = {"limit": "P3: a VQ-VAE as the limit of balls"}


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        epochs: of every training.
        codes: K.
        draws: of each ball.
    """

    epochs: int = 200
    codes: int = 64
    draws: int = 256


FULL = Sizes()
QUICK = Sizes(epochs=3, codes=8, draws=32)


def config(seed: int, sizes: Sizes) -> QuantisedVAEConfig:
    """The model: two latents, one code each, Gaussian images."""
    return QuantisedVAEConfig(codes=sizes.codes, seed=seed)


def as_json(sizes: Sizes) -> Json:
    """All of it, for the report."""
    return {
        "level": LEVEL,
        "seeds": list(SEEDS),
        "radii": list(RADII),
        "sizes": asdict(sizes),
        "model": config(0, sizes).to_dict(),
    }


def words(declared: Json) -> str:
    """For the page."""
    sizes = declared["sizes"]
    return (
        f"Digits as images, one code of {sizes['codes']} in the plane for each, {sizes['epochs']} "
        f"epochs; {sizes['draws']} draws of each ball. Radii are in units of the median distance "
        "of a code to the nearest other."
    )
