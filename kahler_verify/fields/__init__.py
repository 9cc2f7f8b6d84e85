"""Fields of metrics over many points, matrices of distances, and sweeps, on an engine, resumable.

Names are loaded when they are first used: an engine's processes import no more than they need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kahler_verify.fields.engines import Array, Dask, Processes, engine
    from kahler_verify.fields.field import compute
    from kahler_verify.fields.matrices import DistanceMatrix, compute_distances, open_distances
    from kahler_verify.fields.plan import Plan, plan_for
    from kahler_verify.fields.points import box, codes, grid, prior
    from kahler_verify.fields.reading import Field, open_field
    from kahler_verify.fields.reductions import Reduction, reduce_field
    from kahler_verify.fields.sources import Source, of_checkpoint, of_metric
    from kahler_verify.fields.sweeps import sweep
    from kahler_verify.fields.work import Progress, Summary
    from kahler_verify.geometry.quantities import QUANTITIES, Quantity

_HOMES = {
    "Array": "engines",
    "Dask": "engines",
    "DistanceMatrix": "matrices",
    "Field": "reading",
    "Plan": "plan",
    "Processes": "engines",
    "Progress": "work",
    "QUANTITIES": "kahler_verify.geometry.quantities",
    "Quantity": "kahler_verify.geometry.quantities",
    "Reduction": "reductions",
    "Source": "sources",
    "Summary": "work",
    "box": "points",
    "codes": "points",
    "compute": "field",
    "compute_distances": "matrices",
    "engine": "engines",
    "grid": "points",
    "of_checkpoint": "sources",
    "of_metric": "sources",
    "open_distances": "matrices",
    "open_field": "reading",
    "plan_for": "plan",
    "prior": "points",
    "reduce_field": "reductions",
    "sweep": "sweeps",
}

__all__ = [
    "QUANTITIES",
    "Array",
    "Dask",
    "DistanceMatrix",
    "Field",
    "Plan",
    "Processes",
    "Progress",
    "Quantity",
    "Reduction",
    "Source",
    "Summary",
    "box",
    "codes",
    "compute",
    "compute_distances",
    "engine",
    "grid",
    "of_checkpoint",
    "of_metric",
    "open_distances",
    "open_field",
    "plan_for",
    "prior",
    "reduce_field",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = _HOMES[name]
        return getattr(import_module(home if "." in home else f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
