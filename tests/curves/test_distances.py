"""Distance matrices: searches that begin from neighbours find what searches from all starts do."""

import pytest
import torch
from torch import Tensor

from kahler_verify.curves import Nearby, Status, connect, distances
from kahler_verify.curves.pairs import PairSearch
from kahler_verify.curves.tour import Tour
from kahler_verify.geometry.pulled_back import PulledBackMetric
from tests.manifolds import DOUBLE, SPHERE, draw, lift
from tests.manifolds import rough as decoder


def great_circle(a: Tensor, b: Tensor) -> Tensor:
    x, y = lift(a), lift(b)
    return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))


@pytest.mark.parametrize("several", [False, True])
def test_a_tour_passes_each_pair_once_and_neighbours_first(*, several: bool) -> None:
    x, y = draw(9, 2), draw(6, 2, seed=1)
    tour = Tour(SPHERE, x, y if several else None)
    pairs = list(zip(tour.rows.tolist(), tour.columns.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs) == (54 if several else 45)
    assert [tour.place[i, k].item() for i, k in pairs] == list(range(len(pairs)))
    pieces = tour.batches(3, 4)
    assert [n for piece in pieces for n in range(piece.start, piece.stop)] == list(
        range(3, len(pairs))
    )
    assert all(piece.stop - piece.start <= 4 for piece in pieces)
    # the tree's next point is the last of each side's neighbours
    rows, columns, split = tour.neighbours(torch.arange(len(pairs)))
    wave = torch.bucketize(torch.arange(len(pairs)), torch.tensor(tour.ends), right=True)
    for slot in (split - 1, rows.shape[1] - 1):
        there = wave[tour.place[rows[:, slot], columns[:, slot]]]
        apart = (
            tour.rows != tour.columns if not several else torch.ones_like(wave, dtype=torch.bool)
        )
        depth = tour.sides[slot >= split].depth[tour.columns if slot >= split else tour.rows]
        assert bool((there < wave)[apart & (depth > 0)].all())


def test_lengths_are_foreseen_where_space_is_flat() -> None:
    """Exactly there, whichever end moves; on a sphere to second order in the step."""
    flat = PulledBackMetric(lambda z: z @ torch.tensor([[2.0, 0.3], [0.0, 1.0]], dtype=DOUBLE))
    x = draw(7, 2)
    for metric, tolerance in ((flat, 0), (SPHERE, 0.3)):
        search = PairSearch(metric, 0.2 * x, None, None, None, warm=False)
        for cut in search.tour.batches(0, 100):
            search.solve(cut)
        order = torch.arange(search.done)
        lengths, curves = search._lengths(), torch.cat(search.curves)
        foreseen, steps = search._foreseen(order, lengths, curves)
        error = (foreseen - lengths[:, None]).abs()
        # curves are kept in float32, whose rounding their slopes make forty times larger
        assert bool((error <= tolerance * steps**2 + 1e-5).all())


@pytest.mark.parametrize("dense", [False, True])
def test_neighbours_help_and_lose_nothing(*, dense: bool) -> None:
    """Never longer than from all starts; in far fewer evaluations where points are dense."""
    metric, middle = decoder(0.8 if dense else 1.3), torch.tensor([[0.9, -0.4]], dtype=DOUBLE)
    sets = [middle + 0.1 * draw(8, 2), -middle + 0.1 * draw(10, 2, seed=1)]
    if not dense:
        sets = [draw(10, 2)]
    warm, cold = (
        distances(metric, *sets, warm=warm, raise_on_failure=False) for warm in (True, False)
    )
    found = cold.lengths.isfinite()
    assert bool((warm.lengths <= cold.lengths * (1 + 1e-7))[found].all())
    if dense:
        spent = [found.report.evaluations.median() for found in (warm, cold)]
        assert spent[0] < 0.6 * spent[1]
    else:
        length = warm.lengths.nan_to_num(0)
        detours = length[:, :, None] + length[None]
        assert bool((length[:, None] <= detours * (1 + 2e-6)).all())


def test_a_warm_start_takes_few_evaluations() -> None:
    metric = decoder(1.0)
    a, b = 0.7 * draw(2, 8, 2)
    path = metric.geodesic(a, b)
    near = connect(metric, a + 0.02 * draw(8, 2, seed=3), b, solver=Nearby(), start=path)
    cold = metric.geodesic(a + 0.02 * draw(8, 2, seed=3), b)
    assert torch.allclose(near.length, cold.length, rtol=1e-9)
    assert near.report.evaluations.median() <= 150
    assert near.report.evaluations.sum() < 0.4 * cold.report.evaluations.sum()
    assert bool((near.report.gap <= 1e-8).all())


def test_a_longer_curve_is_mended_by_what_others_know() -> None:
    """Some pairs are given the other great circle's long arc, the rest are right."""
    x = torch.cat([0.5 * draw(9, 2), torch.tensor([[1.0, 0.1]], dtype=DOUBLE)])
    exact = great_circle(x[:, None], x[None])
    search = PairSearch(SPHERE, x, None, None, None, warm=True)
    for cut in search.tour.batches(0, 100):
        search.solve(cut)
    report = search.reports[-1]
    report.length.mul_(1.5)
    for name in ("length", "energy"):
        assert bool(getattr(report, name).isfinite().all())
    assert not torch.allclose(search.report().length, exact, rtol=1e-3)
    search.mend()
    assert torch.allclose(search.report().length, exact, rtol=1e-9)
    assert bool((search.report().status == Status.MINIMUM).all())


def test_a_matrix_of_two_sets_and_of_points_far_apart() -> None:
    x, y = 0.6 * draw(5, 2), torch.cat([0.6 * draw(4, 2, seed=1), torch.tensor([[4.0, 3.0]])])
    found = distances(SPHERE, x, y, pairs_at_once=3)
    assert torch.allclose(found.lengths, great_circle(x[:, None], y[None]), rtol=1e-10)
    same = distances(SPHERE, torch.cat([x, x[:2]]))
    assert same.lengths[0, 5] == 0
    assert torch.allclose(same.lengths[5], same.lengths[0], rtol=1e-9)
    assert distances(SPHERE, x[:1]).lengths.tolist() == [[0.0]]
