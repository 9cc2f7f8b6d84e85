"""How a Fisher metric sees the heads of a decoder: whole, or through smaller matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.heads import AffineHeads
from kahler_verify.linear_algebra.kept import is_recorded

Fold = Literal["auto", "always", "never"]

# Measured with one thread on x86 with AVX-512 (complex128 and complex64, h = 64 … 512): a reduced
# head pays as soon as it has clearly fewer rows than the head itself.
FOLD_RATIO = 1.25
# Where weights are being trained their Gram matrix is computed anew in each call, and takes as long
# as a head's product with h tangents: it has to save this much more.
GRAM_RATIO = 1.25


def require_fold(fold: Any, fold_ratio: Any) -> None:
    """Raise :class:`InputError` unless these are a plan of folding and a positive ratio."""
    if fold not in ("auto", "always", "never"):
        raise InputError(f"fold: expected 'auto', 'always' or 'never', got {fold!r}")
    if not fold_ratio > 0:
        raise InputError(f"fold_ratio: expected a positive number, got {fold_ratio!r}")


@dataclass(frozen=True)
class Plan:
    """How a metric without derivatives is computed; see :meth:`FisherMetric.plan`.

    Attributes:
        route: "closed form", or "autograd" where heads are not known to be linear.
        mean: "full", "reduced" to a triangle, or seen through its "gram" matrix alone, which is
            what training does; and how many rows the mean's head has then.
        covariance: the same of the log variance's head; "none" where Σ is constant, or where
            everything comes from whole jets.
        points: in a chunk.
        reason: in words.
    """

    route: Literal["closed form", "autograd"]
    mean: Literal["full", "reduced", "gram"]
    mean_rows: int
    covariance: Literal["none", "full", "reduced", "gram"]
    covariance_rows: int
    points: int = 0
    reason: str = ""


def planned(
    heads: AffineHeads,
    points: int,
    *,
    complementary: bool,
    holomorphic: bool,
    fold: Fold,
    fold_ratio: float,
) -> Plan:
    """How heads are seen by the metric at so many points.

    Args:
        heads: of the decoder.
        points: of the call.
        complementary: whether k is wanted besides g.
        holomorphic: whether the hidden layer is.
        fold: replace heads where it pays ("auto"), wherever possible, or never.
        fold_ratio: see :class:`FisherMetric`.
    """
    D, h = heads.mean.shape
    # what a triangle or a Gram matrix must keep, in rows: products without conjugates as well?
    real = {"mean": heads.real, "covariance": complementary or not holomorphic}
    rows = {part: min(D, 2 * h if real[part] else h) for part in real}
    weights = (heads.mean, heads.log_variance, heads.constant)
    recorded = is_recorded([weight for weight in weights if weight is not None])

    def folded(part: str, possible: bool) -> tuple[Literal["full", "reduced", "gram"], int]:
        tangents = points * heads.latent * (1 if holomorphic else 2)
        few = rows[part]
        pays = fold_ratio * few <= D
        if recorded:
            pays = tangents * D >= GRAM_RATIO * (tangents + D) * few
        if fold == "never" or not possible or not (pays or fold == "always"):
            return "full", D
        return ("gram", few) if recorded else ("reduced", few)

    mean, mean_rows = folded("mean", heads.covariance != "diagonal")
    covariance: Literal["none", "full", "reduced", "gram"] = "none"
    covariance_rows = 0
    if heads.covariance == "scalar":
        covariance, covariance_rows = "full", 1
    elif heads.covariance == "diagonal":
        covariance, covariance_rows = folded("covariance", True)
    return Plan("closed form", mean, mean_rows, covariance, covariance_rows)
