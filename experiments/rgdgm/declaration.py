"""What was fixed before the experiment was run; the page prints it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from experiments.generators import declaration as generators
from experiments.paired import LEVEL
from experiments.store import Json

SEEDS = tuple(range(8))

ARMS = {
    "directions": ("inverse", {"encoder": "the encoder's Jacobian J_h"}),
    "convolutional": generators.ARMS["flatness"],
    "paths": (
        "geodesic",
        {
            "line": "straight lines",
            "descent": "the paper's descent along Jᵀy",
            "shortcut": "its shortcut along J_h y",
        },
    ),
}
MEASURES = {
    "directions": {
        "climbing": ("part of the nodes of straight lines where ⟨·, Jᵀy⟩ < 0", 3),
        "angle": ("median angle to Jᵀy, degrees", 1),
    },
    "convolutional": generators.MEASURES["flatness"],
    "paths": {
        "excess": ("median of length over the geodesic's, minus 1", 4),
        "largest": ("the largest such excess", 3),
    },
}
TITLES = {
    "directions": "S2: where the encoder's Jacobian points",
    "convolutional": "S4: is the manifold of a convolutional decoder flat?",
    "paths": "S2: where the descents come to rest",
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        epochs: of every training.
        pairs: of held-out codes.
        chords: of the paths.
        sweeps: the most of a descent.
        lines: pairs of held-out codes, for the convolutional decoder.
    """

    epochs: int = 300
    pairs: int = 24
    chords: int = 16
    sweeps: int = 300
    lines: int = 16


FULL = Sizes()
QUICK = Sizes(epochs=2, pairs=4, chords=4, sweeps=20, lines=4)


def as_json(sizes: Sizes) -> Json:
    """All of it, for the report."""
    return {"level": LEVEL, "seeds": list(SEEDS), "sizes": asdict(sizes)}


def words(declared: Json) -> str:
    """For the page."""
    sizes = declared["sizes"]
    return (
        "The models of the experiment on generators, of MLP variance; their decoders' means. "
        f"{sizes['pairs']} pairs of held-out codes, {sizes['chords']} chords, at most "
        f"{sizes['sweeps']} sweeps from straight lines. Convolutional decoders: a linear layer to "
        "32 channels of 2 × 2, transposed convolutions to 16 of 4 × 4 and to the image; tanh; "
        f"{sizes['epochs']} epochs, {generators.CENTRES} centres; "
        f"{sizes['lines']} pairs."
    )
