"""Searches for geodesics of many pairs, each from what was found of its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from kahler_verify.curves.connect import Nearby, Solver, Spectral, Starts, connect
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.report import CurveReport
from kahler_verify.curves.tour import Tour
from kahler_verify.geometry.riemannian import RiemannianMetric

KEPT = Mesh(8, 4)  # of the curves that neighbours begin from, in float32
TIMES = 65  # points of a guess
ROUNDS = 4  # in which what neighbours know better is mended
LONGER = 1e-6  # relative, that a length may be above that of two curves together
FORESEEN = 1e-3  # relative, that a length may be above what a neighbour's lets expect,
BENT = 0.5  # and times the square of the step to it, over the length: what curvature does
ASKED = 6  # one in as many pairs is searched from all starts, for what no neighbour knows
FAR = 0.15  # of the length, a step that is too long for a neighbour to be trusted
AT_ONCE = 2048  # pairs that are mended


class PairSearch:
    """Pairs in the order of a tour, what is found of them so far, and their curves, coarsely."""

    def __init__(
        self,
        metric: RiemannianMetric,
        x: Tensor,
        y: Tensor | None,
        solver: Solver | None,
        starts: Starts | None,
        *,
        warm: bool,
        segments: int = 0,
    ):
        self.metric, self.solver, self.starts = metric, solver, starts
        self.segments = segments
        self.tour = Tour(metric, x, y)
        # a curve that ends at a period's translate is no neighbour's
        self.warm = warm and not (starts is not None and starts.periods)
        self.warm &= max(self.tour.place.shape) > 1
        self.near = solver or Nearby()
        if type(self.near) is Spectral and self.near.levels == Spectral.levels:
            self.near = Nearby(tolerance=self.near.tolerance)
        self.reports: list[CurveReport] = []
        self.curves: list[Tensor] = []

    @property
    def done(self) -> int:
        """How many pairs have reports."""
        return sum(report.status.numel() for report in self.reports)

    def report(self) -> CurveReport:
        """Reports of pairs as matrices."""
        report = _joined(self.reports)
        place = self.tour.place.to(report.status.device)
        return CurveReport(*[getattr(report, n)[place] for n in CurveReport.__dataclass_fields__])

    # ------------------------------------------------------------- the search
    def solve(self, cut: slice) -> None:
        """The next pairs: from their neighbours, and from several starts where that fails."""
        pairs = torch.arange(cut.start, cut.stop)
        if not (self.warm and self.reports):
            report, curves = self._connected(pairs)
        else:
            guess, foreseen, step = self._guesses(pairs, self._lengths(), torch.cat(self.curves))
            near = (step <= FAR * foreseen).cpu()  # never where nothing is foreseen
            near &= pairs % ASKED > 0
            order = torch.cat([pairs[near], pairs[~near]]).argsort()
            parts = []
            if bool(near.any()):
                parts.append(self._connected(pairs[near], guess[near]))
            if not bool(near.all()):
                parts.append(self._connected(pairs[~near]))
            report = _joined([part[0] for part in parts])
            report = CurveReport(*[value[order] for value in vars(report).values()])
            curves = torch.cat([part[1] for part in parts])[order]
            lost = (near & ~report.converged.cpu()).nonzero().squeeze(-1)
            if len(lost):
                _improve(report, curves, lost, *self._connected(pairs[lost]))
        self.reports.append(report)
        self.curves.append(curves)

    def _ends(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        x, y = (side.x for side in self.tour.sides)
        return x[self.tour.rows[pairs]], y[self.tour.columns[pairs]]

    def _connected(self, pairs: Tensor, start: Tensor | None = None) -> tuple[CurveReport, Tensor]:
        """Reports, and curves [B, n, d] as they are kept, of searches from all starts or one."""
        warm = start is not None
        with torch.no_grad():
            curve = connect(
                self.metric,
                *self._ends(pairs),
                solver=self.near if warm else self.solver,
                start=start,
                starts=None if warm else self.starts,
                segments=self.segments,
                raise_on_failure=False,
            )
        assert curve.report is not None
        return curve.report, curve.mesh.refined(curve.nodes, KEPT).float()

    def _lengths(self) -> Tensor:
        """Of what is found so far, infinite for what is not, [P]."""
        return torch.cat([torch.where(r.converged, r.length, torch.inf) for r in self.reports])

    def _guesses(
        self, pairs: Tensor, lengths: Tensor, curves: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Neighbours' curves, moved to the pairs' own ends.

        Returns:
            [B, T, d] at equal times, lines where no neighbour is known; the lengths that they
            foresee, infinite there, and the steps to the neighbours, [B].
        """
        rows, columns, _ = self.tour.neighbours(pairs)
        foreseen, steps = self._foreseen(pairs, lengths, curves)
        slot = (foreseen + BENT * steps**2 / foreseen).nan_to_num(torch.inf).argmin(1)
        every = torch.arange(len(pairs))
        least = foreseen[every, slot]
        i, k = rows[every, slot.cpu()], columns[every, slot.cpu()]
        path = self._oriented(curves, i, k)
        a, b = self._ends(pairs)
        x, y = (side.x for side in self.tour.sides)
        times = KEPT.times.to(a)[:, None]
        path = path + (1 - times) * (a - x[i])[:, None] + times * (b - y[k])[:, None]
        line = a[:, None] + times * (b - a)[:, None]
        path = torch.where(least.isfinite()[:, None, None], path, line)
        points = KEPT.evaluate(path, torch.linspace(0, 1, TIMES, dtype=torch.float64))
        return points, least, steps[every, slot]

    def _oriented(self, curves: Tensor, i: Tensor, k: Tensor) -> Tensor:
        """The curves [B, n, d] from x_i to y_k; anything where there is none yet."""
        place = self.tour.place[i, k]
        path = curves[place.clamp_max(len(curves) - 1).to(curves.device)]
        turned = ((i > k) & self.tour.mirrored)[:, None, None].to(curves.device)
        return torch.where(turned, path.flip(1), path).to(self.tour.sides[0].x)

    def _foreseen(self, pairs: Tensor, lengths: Tensor, curves: Tensor) -> tuple[Tensor, Tensor]:
        """The lengths that each neighbour's curve lets expect of pairs, and the steps, [B, S].

        A geodesic of length L whose end moves by Δ, of which p is along it, then has length
        √((L + p)² + |Δ|² - p²): exact where space is flat, right to first order elsewhere.
        """
        rows, columns, split = self.tour.neighbours(pairs)
        mine = (self.tour.rows[pairs], self.tour.columns[pairs])
        out, steps = [], []
        for slot in range(rows.shape[1]):
            i, k = rows[:, slot], columns[:, slot]
            side, moved = (0, (i, mine[0])) if slot < split else (1, (k, mine[1]))
            place = self.tour.place[i, k]
            known = (place < len(lengths)).to(lengths.device)
            length = lengths[place.clamp_max(len(lengths) - 1).to(lengths.device)]
            path = self._oriented(curves, i, k)
            velocity = KEPT.evaluate(path, torch.tensor([float(side)], dtype=torch.float64), 1)
            velocity = velocity[:, 0] * (2 * side - 1)  # outwards
            points, g = self.tour.sides[side].x, self.tour.sides[side].g[moved[0]]
            step = points[moved[1]] - points[moved[0]]
            form = (g @ step[..., None])[..., 0]
            size = (velocity * (g @ velocity[..., None])[..., 0]).sum(-1).sqrt()
            along = (velocity * form).sum(-1) / torch.where(size > 0, size, 1)
            squared = (step * form).sum(-1)
            expected = ((length + along) ** 2 + (squared - along**2).clamp_min(0)).sqrt()
            out.append(torch.where(known & expected.isfinite(), expected, torch.inf))
            steps.append(squared.sqrt())
        return torch.stack(out, 1), torch.stack(steps, 1)

    # ------------------------------------------------------------- what is mended
    def mend(self) -> None:
        """Search again where neighbours' curves, or two curves together, promise a shorter one."""
        report, curves = _joined(self.reports), torch.cat(self.curves)
        self.reports, self.curves = [report], [curves]
        tried = torch.full_like(report.length, torch.inf)
        for _ in range(ROUNDS):
            improved = self._mended(report, curves, tried)
            if self.tour.mirrored:
                improved |= self._triangles(report, curves, tried)
            if not improved:
                break

    def _mended(self, report: CurveReport, curves: Tensor, tried: Tensor) -> bool:
        lengths, improved = self._lengths(), False
        for pairs in torch.arange(len(lengths)).split(AT_ONCE):
            foreseen, steps = self._foreseen(pairs, lengths, curves)
            least = (foreseen + BENT * steps**2 / foreseen).amin(1)
            wanted = least < torch.minimum(lengths[pairs], tried[pairs]) * (1 - FORESEEN)
            some = pairs[wanted.cpu()]
            if len(some):
                tried[some] = least[wanted]
                guess = self._guesses(some, lengths, curves)[0]
                improved |= _improve(report, curves, some, *self._connected(some, guess))
        return improved

    def _triangles(self, report: CurveReport, curves: Tensor, tried: Tensor) -> bool:
        """Search again where two curves together are shorter than a third one."""
        tour, lengths, improved = self.tour, self._lengths(), False
        whole = lengths[tour.place.to(lengths.device)]
        shortest, through = whole.clone(), torch.full_like(tour.place, -1)
        for middle in range(len(whole)):
            detour = whole[:, middle : middle + 1] + whole[middle : middle + 1]
            better = detour < shortest
            shortest = torch.where(better, detour, shortest)
            through[better.cpu()] = middle
        best = shortest[tour.rows, tour.columns]
        wrong = best < torch.minimum(lengths, tried) * (1 - LONGER)
        for some in wrong.cpu().nonzero().squeeze(-1).split(AT_ONCE):
            if len(some) == 0:
                continue
            tried[some] = best[some]
            i, k = tour.rows[some], tour.columns[some]
            guess = self._through(curves, lengths, i, through[i, k], k)
            improved |= _improve(report, curves, some, *self._connected(some, guess))
            left = some[(~(report.length[some] <= best[some] * (1 + LONGER))).cpu()]
            if len(left):
                improved |= _improve(report, curves, left, *self._connected(left))
        return improved

    def _through(self, curves: Tensor, lengths: Tensor, i: Tensor, m: Tensor, k: Tensor) -> Tensor:
        """Curves from i to m and on to k, [B, T, d], at one speed."""
        times = torch.linspace(0, 1, TIMES, dtype=torch.float64)
        first, second = (
            KEPT.evaluate(self._oriented(curves, *ends), times) for ends in ((i, m), (m, k))
        )
        sizes = [lengths[self.tour.place[pair].to(lengths.device)] for pair in ((i, m), (m, k))]
        return _one_after_the_other(first, second, sizes[0] / (sizes[0] + sizes[1]))


def _one_after_the_other(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Points [B, T, d] along two polygons of as many, at one speed; the first's share of it [B]."""
    polygon, last = torch.cat([first, second[:, 1:]], 1), first.shape[1] - 1
    times = torch.linspace(0, 1, last + 1, dtype=torch.float64).to(polygon)
    bend = share[:, None]
    local = torch.where(times < bend, times / bend, 1 + (times - bend) / (1 - bend))
    position = last * local.nan_to_num(0).clamp(0, 2)
    before = position.floor().long().clamp_max(2 * last - 1)
    part = (position - before)[..., None]
    rows = torch.arange(len(polygon), device=polygon.device)[:, None]
    return (1 - part) * polygon[rows, before] + part * polygon[rows, before + 1]


def over_third(
    metric: RiemannianMetric, a: Tensor, m: Tensor, b: Tensor, *, segments: int = 0
) -> CurveReport:
    """Reports of searches from a to b [B, d], each from the curves that go to m and on to b.

    Evaluations are of all three searches; a pair whose curve to m or on is not found is not either.
    """
    times = torch.linspace(0, 1, TIMES, dtype=torch.float64)
    with torch.no_grad():
        first, second = (
            connect(metric, *ends, raise_on_failure=False) for ends in ((a, m), (m, b))
        )
        share = first.length / (first.length + second.length)
        start = _one_after_the_other(first(times), second(times), share)
        report = connect(
            metric,
            a,
            b,
            solver=Nearby(),
            start=start,
            segments=segments,
            raise_on_failure=False,
        ).report
    assert report is not None
    for part in (first, second):
        assert part.report is not None
        report.evaluations.add_(part.report.evaluations)
    return report


def _joined(reports: list[CurveReport]) -> CurveReport:
    names = CurveReport.__dataclass_fields__
    return CurveReport(*[torch.cat([getattr(report, n) for report in reports]) for n in names])


def _improve(
    report: CurveReport, curves: Tensor, rows: Tensor, again: CurveReport, others: Tensor
) -> bool:
    """Take over, in place, what a second search of some rows found better; whether any is."""
    rows = rows.to(curves.device)
    found, shorter = report.converged[rows], again.length < report.length[rows]
    better = (again.converged & (shorter | ~found)) | (~found & ~again.converged)
    for total in ("iterations", "evaluations"):
        getattr(again, total).add_(getattr(report, total)[rows])
        getattr(report, total)[rows] = getattr(again, total)
    for name in CurveReport.__dataclass_fields__:
        kept = getattr(report, name)
        kept[rows[better]] = getattr(again, name)[better]
    curves[rows[better]] = others[better]
    return bool((again.converged & better).any())
