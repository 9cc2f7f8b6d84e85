"""Region claims of the ledger: two-component mixtures at a given distance δᴴPδ."""

from __future__ import annotations

from fractions import Fraction

from kahler_verify.calculus.claims import Region
from kahler_verify.evidence.ledger.items import Item
from kahler_verify.evidence.proofs.potentials import Mixture
from kahler_verify.evidence.proofs.regions import prove_plurisubharmonic


def mixture_of(region: Region) -> Mixture:
    """Components at ±1 on the first axis with P = (δᴴPδ/4) I, so that all data are rational."""
    precision = Fraction(region.distance) / 4
    d = region.dimension
    centres = [[sign if i == 0 else 0 for i in range(d)] for sign in (1, -1)]
    identity = [[precision if i == j else 0 for j in range(d)] for i in range(d)]
    return Mixture("density", [Fraction(w) for w in region.weights], centres, [identity, identity])


def judge_region(region: Region) -> tuple[Item, str, str]:
    """The evidence of a region claim, its verdict, and the region in words."""
    result = prove_plurisubharmonic(mixture_of(region))
    sides = " × ".join(f"[{low}, {high}]" for low, high in result.box)
    weights = ", ".join(region.weights)
    what = f"δᴴPδ = {region.distance}, weights {weights}, d = {region.dimension} on {sides}"
    samples = max(len(result.leaves), 1)
    proved = result.verdict == "proved"
    if result.verdict == "refuted":
        at = ", ".join(f"{x} + {y}i" for x, y in result.point)
        outcome = f"an eigenvalue is at most {float(result.value or 0):.2g} < 0 at z = ({at})"
        data = {"value": str(result.value), "recheck": result.to_json()}
        item = Item("exact witness", what, outcome, False, samples, None, data)
    else:
        outcome = f"{result.verdict} with {len(result.leaves)} boxes"
        data = {"recheck": result.to_json()} if proved else {}
        item = Item("branch and bound", what, outcome, proved, samples, None, data)
    return item, result.verdict, what
