"""What the project set out to reach, and how much of it a run reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
LATENTS = 16  # smaller batches are overhead, and have targets of their own


@dataclass(frozen=True)
class Target:
    """A ratio, or a fraction of the floor, to reach in every cell of a kind.

    Attributes:
        what: in words.
        least: the ratio (rival over ours), or the fraction of the floor.
        quantity: of the cells.
        cells: which of them, by sizes.
        rivals: which of them; None for the floor.
        dtype: of the cells.
    """

    what: str
    least: float
    quantity: str
    cells: Callable[[Row], bool]
    rivals: Callable[[str], bool] | None
    dtype: str = "float32"

    def found(self, report: Mapping[str, Any]) -> list[float]:
        """What the run has for it: in each cell the strongest rival's ratio, or the fraction."""
        if self.rivals is None:
            rows = [(row, row["fraction"]) for row in report["floors"]]
        else:
            rows = [(row, row["ratio"]) for row in report["results"] if self.rivals(row["rival"])]
        least: dict[str, float] = {}
        for row, value in rows:
            kind = row["quantity"], row["dtype"]
            if kind == (self.quantity, self.dtype) and self.cells(row["sizes"]):
                key = str(row["sizes"])
                if value is not None:
                    least[key] = min(value, least.get(key, value))
        return list(least.values())


def _decoder(
    family: str, *sigma: str, wide: bool | None = None, least: int = LATENTS
) -> Callable[[Row], bool]:
    def cells(sizes: Row) -> bool:
        return (
            sizes["family"] == family
            and sizes["sigma"] in (sigma or ("diagonal",))
            and sizes["B"] >= least
            and (wide is None or (sizes["D"] >= 784) == wide)
            and (not sigma or sizes["D"] >= 3 * sizes["h"])
        )

    return cells


def _hessian(compiled: bool) -> Callable[[str], bool]:
    return lambda r: "KL Hessian" in r and ("compile" in r or "jit" in r) == compiled


def _general_jacobian(rival: str) -> bool:
    return "KL" not in rival and "layer-wise" not in rival


def _layerwise(rival: str) -> bool:
    return rival.startswith("layer-wise Jacobians") and "package" not in rival


def _jax(rival: str) -> bool:
    return "JAX jit" in rival


FISHER, TRAINING, MIXTURE = "Fisher metric", "training step", "mixture metric"
WIDE, NARROW = _decoder("holomorphic", wide=True), _decoder("holomorphic", wide=False)

TARGETS = (
    Target("holomorphic, D ≥ 784: eager KL Hessian", 7, FISHER, WIDE, _hessian(False)),
    Target("holomorphic, D ≥ 784: compiled KL Hessian", 5, FISHER, WIDE, _hessian(True)),
    Target("holomorphic, D ≥ 784: any general Jacobian", 2.3, FISHER, WIDE, _general_jacobian),
    Target("holomorphic, D ≥ 784: layer-wise Jacobians", 1.7, FISHER, WIDE, _layerwise),
    Target("holomorphic, D = 64: any general Jacobian", 1.3, FISHER, NARROW, _general_jacobian),
    Target("holomorphic, D = 64: layer-wise Jacobians", 1.3, FISHER, NARROW, _layerwise),
    Target("holomorphic, D ≥ 784: the floor", 0.95, FISHER, WIDE, None),
    Target("holomorphic, D = 64: the floor", 0.85, FISHER, NARROW, None),
    Target(
        "constant or scalar Σ, D ≥ 3h: the full Jacobian's floor",
        2,
        FISHER,
        _decoder("holomorphic", "constant", "scalar"),
        None,
    ),
    Target("split: JAX, B = 1 included", 1, FISHER, _decoder("split", least=1), _jax),
    Target("split: the floor", 0.95, FISHER, _decoder("split"), None),
    Target("training, D ≥ 784: KL Hessian", 6.5, TRAINING, WIDE, lambda r: "KL Hessian" in r),
    Target("training, D ≥ 784: jacfwd", 3.2, TRAINING, WIDE, lambda r: "jacfwd" in r),
    Target(
        "training, D ≥ 784: autograd through layer-wise Jacobians",
        1.4,
        TRAINING,
        WIDE,
        lambda r: r.startswith("autograd through"),
    ),
    Target(
        "training, D = 64: autograd through layer-wise Jacobians",
        1,
        TRAINING,
        NARROW,
        lambda r: r.startswith("autograd through"),
    ),
    Target("training: the floor", 0.85, TRAINING, _decoder("holomorphic"), None),
    Target("mixture: the best JAX form", 3, MIXTURE, lambda _: True, _jax),
    Target("mixture, d ≥ 8: the floor", 0.3, MIXTURE, lambda sizes: sizes["d"] >= 8, None),
    Target(
        "mixture, d ≤ 3, compiled: complex einsum",
        5,
        "mixture metric, compiled",
        lambda sizes: sizes["d"] <= 3,
        lambda r: r == "closed form, einsum",
    ),
    Target(
        "mixture, d ≤ 3, compiled: the best JAX form",
        3,
        "mixture metric, compiled",
        lambda sizes: sizes["d"] <= 3,
        _jax,
    ),
    *(
        Target(
            f"{quantity}: torch's nested Hessians",
            100,
            quantity,
            lambda _: True,
            lambda r: r == "nested Hessians",
            "float64",
        )
        for quantity in ("mixture Ricci", "mixture Ricci, compiled")
    ),
    Target(
        "log det and gradient, d ≤ 8, B ≥ 256: Cholesky and autograd",
        3,
        "log det, gradient",
        lambda sizes: sizes["d"] <= 8 and sizes["B"] >= 256,
        lambda r: r.startswith("cholesky_ex, autograd"),
    ),
)


def target_table(report: Mapping[str, Any]) -> str:
    """A Markdown line for each target: what was asked, what was found, in how many cells."""
    lines = ["| target | at least | found | met in |", "| --- | --- | --- | --- |"]
    for target in TARGETS:
        found = target.found(report)
        if not found:
            continue
        met = sum(value >= target.least for value in found)
        low, high = f"{min(found):.2g}", f"{max(found):.2g}"
        both = low if low == high else f"{low} – {high}"
        lines.append(f"| {target.what} | {target.least:g} | {both} | {met} of {len(found)} |")
    return "\n".join(lines)
