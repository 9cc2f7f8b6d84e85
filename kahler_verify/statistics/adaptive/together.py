"""Work that wants fans of geodesics, side by side: rays that are wanted at once are traced at once.

A ray costs little beside the calls that it shares with others: five components that step together
take about a third of the time that they take one after another.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics.adaptive.fans import Aim
from kahler_verify.statistics.adaptive.rays import Rays, trace

T = TypeVar("T")
Work = Generator[Aim, Rays, T]


def together(metric: RiemannianMetric, works: Sequence[Work[T]], *, tolerance: float) -> list[T]:
    """What each work returns that yields where its rays are to go, and is sent the rays.

    Args:
        metric: of the latent space.
        works: of any number of fans each.
        tolerance: see :func:`trace`.
    """
    answers: dict[int, T] = {}
    rays: dict[int, Rays | None] = dict.fromkeys(range(len(works)))
    while rays:
        aims: dict[int, Aim] = {}
        for k, one in rays.items():
            try:
                aims[k] = next(works[k]) if one is None else works[k].send(one)
            except StopIteration as end:
                answers[k] = end.value
        rays = dict(zip(aims, _traced(metric, list(aims.values()), tolerance), strict=True))
    return [answers[k] for k in range(len(works))]


def _traced(metric: RiemannianMetric, aims: list[Aim], tolerance: float) -> list[Rays]:
    if not aims:
        return []
    sizes, counts = [len(aim.directions) for aim in aims], [len(aim.times) for aim in aims]
    times = torch.full((len(aims), max(counts)), torch.nan).to(aims[0].times)
    for row, aim, n in zip(times, aims, counts, strict=True):
        row[:n] = aim.times

    def each(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts)).repeat_interleave(torch.tensor(sizes), 0)

    traced = trace(
        metric,
        each([aim.mean for aim in aims]),
        each([aim.frame for aim in aims]),
        torch.cat([aim.directions for aim in aims]),
        each(list(times)),
        tolerance=tolerance,
    )
    return traced.split(sizes, [n - 1 for n in counts])
