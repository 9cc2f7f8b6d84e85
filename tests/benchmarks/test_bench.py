"""The harness: pairs, medians, wrong rivals, what is written; nothing depends on speed."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import floors, growth, machine, programs, timing
from benchmarks.command import bench, fraction, table
from benchmarks.decoder_rivals import fisher_problem, training_problem
from benchmarks.grid import full_grid, gpu_grid, quick_grid, real_grid
from benchmarks.mixture_rivals import mixture_problem, ricci_problem
from benchmarks.page import cpu_blocks, gpu_block, program_table, rewrite
from benchmarks.plots import draw
from benchmarks.problem import Bench, Cell, Floor, Problem, Rival, as_json, deviation, flatten
from benchmarks.real_rivals import real_problem
from benchmarks.small_rivals import kernel_problem, log_det_problem
from benchmarks.targets import TARGETS, target_table
from kahler_verify.errors import InputError

pytestmark = pytest.mark.xdist_group("bench")  # one worker makes what the tests share

CPU = torch.device("cpu")
DECODER = {"d": 3, "h": 10, "D": 14, "B": 4}
ROW = {
    "quantity": str,
    "rival": str,
    "sizes": dict,
    "dtype": str,
    "ratio": float,
    "ours_seconds": float,
    "rival_seconds": float,
    "spread": list,
    "agrees": bool,
    "error": type(None),
}


def _toy(sizes: Any, dtype: torch.dtype, device: torch.device) -> Problem:
    x = torch.linspace(1, 2, sizes["n"], dtype=torch.float64).to(dtype)

    def fails() -> Tensor:
        raise RuntimeError("not implemented for this")

    def right_in_float64() -> Tensor:
        return x * x if x.dtype == torch.float64 else x * x + 1

    rivals = {
        "right": Rival(lambda: lambda: [x**2]),
        "wrong": Rival(lambda: lambda: x * x * 1.001),
        "wrong in float32": Rival(lambda: right_in_float64),
        "of another shape": Rival(lambda: lambda: (x * x)[1:]),
        "not a number": Rival(lambda: lambda: x * x * torch.nan),
        "broken": Rival(lambda: fails),
        "a compiled one": Rival(lambda: lambda: x**2, compiled=True),
        "right, torch.compile": Rival(lambda: fails, compiled=True),
    }
    return Problem(len(x), lambda: x * x, rivals, operations=2.0 * len(x))


def _cell(**changes: Any) -> Cell:
    settings: dict[str, Any] = {
        "quantity": "toy",
        "make": _toy,
        "sizes": {"d": 2, "n": 50},
        "dtype": torch.float32,
        "small": {"n": 5},
        "compiled": False,
    }
    return Cell(**settings | changes)


def _slow(seconds: float) -> Tensor:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return torch.zeros(1)


def test_ours_and_rivals_take_turns() -> None:
    calls: list[str] = []

    def run(name: str) -> Any:
        return lambda: (calls.append(name), _slow(2 * timing.SHORTEST_SAMPLE))

    pairs = timing.interleave(run("o"), {"a": run("a"), "b": run("b")}, seconds=0.0, rounds=(3, 3))
    warm_up = 6
    assert "".join(calls[warm_up:]) == "oaob" + "oboa" + "oaob"
    assert [len(pair.ours) for pair in pairs.values()] == [3, 3]
    assert all(len(pair.ours) == len(pair.rival) for pair in pairs.values())


def test_rounds_stop_when_time_is_up() -> None:
    pairs = timing.interleave(
        lambda: _slow(2e-3), {"a": lambda: _slow(2e-3)}, seconds=0.05, rounds=(2, 10_000)
    )
    assert 2 <= len(pairs["a"].ours) < 100


def test_fast_calls_are_repeated_within_a_sample() -> None:
    repeats, _ = timing.warm_up(lambda: None, CPU)
    assert repeats > 1


def test_medians_and_quartiles() -> None:
    pairs = timing.Pairs(ours=[1.0, 2.0, 9.0], rival=[4.0, 6.0, 9.0])
    assert pairs.ratio == 3.0
    assert pairs.spread == (2.0, 3.5)
    assert timing.quartiles([5.0]) == (5.0, 5.0)


def test_a_call_past_its_limit_is_broken_off() -> None:
    with pytest.raises(timing.TimeLimitError, match="over the time limit"), timing.time_limit(0.05):
        time.sleep(5)
    time.sleep(0.06)  # the alarm is off again


def test_wrong_rivals_are_flagged_and_not_timed() -> None:
    rows, floor = Bench(seconds=0.01).run(_cell())
    found = {row.rival: row for row in rows}
    assert "right, torch.compile" not in found
    for name in ("right", "a compiled one"):
        assert found[name].agrees
        assert found[name].ratio is not None
        assert found[name].ratio > 0
        assert found[name].error is None
    for name, message in {
        "wrong": "wrong by 1.0e-03 relative in float64",
        "wrong in float32": "wrong by",
        "of another shape": "wrong by inf",
        "not a number": "wrong by inf",
        "broken": "does not run: RuntimeError: not implemented for this",
    }.items():
        assert found[name].agrees is False
        assert found[name].ratio is None
        assert message in str(found[name].error)
    assert floor.seconds > 0


def test_a_rival_that_takes_too_long_is_left_out() -> None:
    def make(sizes: Any, dtype: torch.dtype, device: torch.device) -> Problem:
        def slow() -> Tensor:
            if sizes["n"] > 5:
                time.sleep(5)
            return torch.ones(2)

        return Problem(1, lambda: torch.ones(2), {"slow": Rival(lambda: slow)}, operations=0.0)

    ((row,), _) = Bench(seconds=0.01, limit=0.1).run(_cell(make=make))
    assert (row.agrees, row.ratio) == (None, None)
    assert "over the time limit" in str(row.error)


def test_deviation_is_relative_and_takes_lists() -> None:
    reference = flatten([torch.tensor([3.0, 4.0j]), torch.tensor([[1.0]])])
    assert deviation([torch.tensor([3.0, 4.0j, 1.0])], reference) == 0
    assert deviation(torch.tensor([3.0, 4.4j, 1.0]), reference) == pytest.approx(0.1)


@pytest.mark.parametrize("family", ["holomorphic", "split"])
@pytest.mark.parametrize("sigma", ["diagonal", "scalar", "constant"])
def test_rivals_of_the_fisher_metric_agree(family: str, sigma: str) -> None:
    sizes = DECODER | {"family": family, "sigma": sigma}
    _all_agree(fisher_problem(sizes, torch.float64, CPU))


@pytest.mark.parametrize("family", ["holomorphic", "split"])
def test_rivals_of_the_training_step_agree(family: str) -> None:
    sizes = DECODER | {"family": family, "sigma": "diagonal"}
    _all_agree(training_problem(sizes, torch.float64, CPU))


@pytest.mark.parametrize("make", [mixture_problem, ricci_problem])
def test_rivals_of_mixtures_agree(make: Any) -> None:
    _all_agree(make({"d": 2, "K": 4, "B": 3}, torch.float64, CPU))


def test_rivals_of_small_problems_agree() -> None:
    for points in (5, 600):
        _all_agree(log_det_problem({"d": 3, "B": points}, torch.float64, CPU))
    sizes = DECODER | {"family": "split", "sigma": "diagonal"}
    _all_agree(kernel_problem(sizes, torch.float64, CPU))


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("outputs", [64, 784])
def test_rivals_of_real_decoders_agree(network: str, likelihood: str, outputs: int) -> None:
    sizes = {"d": 3, "h": 10, "D": outputs, "B": 4, "network": network, "likelihood": likelihood}
    _all_agree(real_problem(sizes, torch.float64, CPU))


def test_programs_at_single_points_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kahler_verify.geometry.traced.has_compiler", lambda: False)
    one = DECODER | {"B": 1, "family": "holomorphic", "sigma": "diagonal"}
    real = {"d": 3, "h": 10, "D": 14, "B": 1, "network": "mlp", "likelihood": "bernoulli"}
    for problem in (
        fisher_problem(one, torch.float64, CPU),
        real_problem(real, torch.float64, CPU),
    ):
        reference = flatten(problem.ours())
        for name in (programs.COMPILED, programs.FROZEN, programs.BY_LAYERS):
            run = problem.rivals[name].build()
            run()
            assert deviation(run(), reference) < 1e-12, name


def _all_agree(problem: Problem) -> None:
    """Those that are quick to build; JAX's and compiled ones are checked by every run."""
    reference = flatten(problem.ours())
    eager = {n: r for n, r in problem.rivals.items() if not r.compiled and "JAX" not in n}
    assert eager
    for name, rival in eager.items():
        assert deviation(rival.build()(), reference) < 1e-9, name


def test_grids_are_distinct_and_cover_the_quantities() -> None:
    for grid in (quick_grid(), full_grid(), gpu_grid(), real_grid()):
        keys = [(c.quantity, tuple(c.sizes.items()), c.dtype) for c in grid]
        assert len(keys) == len(set(keys))
    quick, full = ({c.quantity for c in grid} for grid in (quick_grid(), full_grid()))
    assert quick < full
    assert full - quick == {"mixture Ricci, compiled"}  # compiling it takes more than a minute


def test_exponents_and_counts() -> None:
    assert floors.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    sizes = {"d": 8, "h": 256, "D": 784, "family": "holomorphic", "sigma": "diagonal"}
    assert floors.fisher_operations(sizes) < floors.fisher_operations(sizes | {"family": "split"})
    assert floors.fisher_operations(sizes | {"sigma": "scalar"}) < floors.fisher_operations(sizes)


def test_the_fraction_of_the_floor() -> None:
    floor = Floor("x", {}, "float32", 2.0, [2.0, 2.0], operations=1e9, traffic=1.0)
    assert fraction(floor, {"complex64": 1.0}) == 0.5
    floor.operations = 0.0
    assert fraction(floor, {"complex64": 1.0}) is None


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A whole run of the command on one small cell, as it was written to disk."""
    small = DECODER | {"family": "holomorphic", "sigma": "diagonal"}
    cells = [
        _cell(),
        _cell(
            quantity="Fisher metric",
            make=fisher_problem,
            sizes=small,
            small=DECODER,
        ),
    ]
    series = [
        {
            "quantity": "Fisher metric",
            "in": "B",
            "values": [1, 2],
            "seconds": [1.0, 2.0],
            "exponent": 1.0,
            "count_exponent": 1.0,
        }
    ]
    rates = {**dict.fromkeys(machine.PRODUCTS, 100.0), "memory": 30.0}
    monkeypatch.setattr("benchmarks.command.quick_grid", lambda: cells)
    monkeypatch.setattr("benchmarks.command._one_thread", lambda device: None)
    monkeypatch.setattr(growth, "measure", lambda device, quick: series)
    monkeypatch.setattr(machine, "peaks", lambda device: rates)
    monkeypatch.setattr("benchmarks.jax_rivals.load", lambda: None)
    returned = bench(quick=True, json=tmp_path / "out" / "bench.json")
    written = json.loads((tmp_path / "out" / "bench.json").read_text("utf-8"))
    assert written == json.loads(json.dumps(returned))
    return written


def test_json_schema(report: dict[str, Any]) -> None:
    assert {"results", "floors", "peaks", "growth", "machine", "not_run"} <= report.keys()
    timed = [row for row in report["results"] if row["ratio"] is not None]
    assert timed
    for row in report["results"]:
        assert row.keys() == ROW.keys()
    for row in timed:
        for name, kind in ROW.items():
            assert isinstance(row[name], kind), name
        assert row["ratio"] == pytest.approx(row["rival_seconds"] / row["ours_seconds"])
        assert len(row["spread"]) == 2
    assert {"threads", "torch", "device", "quick", "minutes"} <= report["machine"].keys()


def test_plots_and_page(report: dict[str, Any], tmp_path: Path) -> None:
    for path in draw(report, tmp_path / "plots"):
        assert path.stat().st_size > 5000
    page = tmp_path / "page.md"
    names = [*cpu_blocks(report), "gpu"]
    page.write_text("\n".join(f"<!-- bench {n} -->\nold\n<!-- end -->" for n in names), "utf-8")
    rewrite(page, report)
    once = page.read_text("utf-8")
    assert "| toy, float32 | right |" in once
    assert once.count("old") == 1  # the GPU's block is left for a run on a GPU
    rewrite(page, report)
    assert page.read_text("utf-8") == once
    page.write_text("nothing", "utf-8")
    with pytest.raises(InputError, match="expected one block"):
        rewrite(page, report)
    report["machine"]["gpu"] = "a card"
    assert "a card" in gpu_block(report)


def test_programs_are_in_units_of_layers_by_hand() -> None:
    row = {"quantity": "real Fisher metric", "dtype": "float32", "sizes": {"d": 2, "B": 1}}
    ratios = {"layer-wise Jacobians": 0.5, programs.COMPILED: 0.4, programs.FROZEN: 0.3}
    rows = [row | {"rival": name, "ratio": ratio} for name, ratio in ratios.items()]
    plain = rows[0] | {"sizes": {"d": 2, "B": 64}}  # of a cell without a program
    found = program_table([*rows, plain], programs.PROGRAMS)
    assert found.splitlines()[2:] == [
        "| real Fisher metric: d = 2, B = 1, float32 | 2 | 0.8 | 0.6 | – |"
    ]


def test_a_table_shows_errors() -> None:
    cell = _cell()
    rows, floor = Bench(seconds=0.01).run(cell)
    assert table(cell, rows, floor).row_count == len(rows)
    assert json.dumps([as_json(row) for row in rows])


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_a_missing_device_is_an_error(device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        device = "xpu"
    with pytest.raises(InputError, match="device: expected"):
        bench(device=device)


def test_the_documentation_has_every_marker() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "how-fast-and-why.md"
    text = page.read_text("utf-8")
    for name in ("machine", "targets", "ratios", "losses", "floors", "growth", "faults", "gpu"):
        assert text.count(f"<!-- bench {name} -->\n") == 1
    text = page.with_name("real-latents.md").read_text("utf-8")
    for name in ("machine", "single points", "programs of batches", "real ratios"):
        assert text.count(f"<!-- bench {name} -->\n") == 1


def test_a_target_is_met_where_the_strongest_rival_of_its_kind_is_slow_enough() -> None:
    sizes = {"d": 8, "h": 256, "D": 784, "B": 64, "family": "holomorphic", "sigma": "diagonal"}
    rivals = {"KL Hessian, vmap(hessian)": 9.0, "KL Hessian, reverse over reverse": 6.5}
    both = [sizes, sizes | {"B": 128}]
    rows = [
        {"quantity": "Fisher metric", "rival": r, "sizes": s, "dtype": "float32", "ratio": t + n}
        for n, s in enumerate(both)
        for r, t in rivals.items()
    ]
    rows.append(rows[0] | {"sizes": sizes | {"B": 1}, "ratio": 0.5})  # another target's
    rows.append(rows[0] | {"ratio": None})  # not timed
    table = target_table({"results": rows, "floors": []})
    assert "| holomorphic, D ≥ 784: eager KL Hessian | 7 | 6.5 – 7.5 | 1 of 2 |" in table
    assert table.count("\n") == 2  # nothing is said of what was not run


def test_every_target_has_cells_in_the_full_grid() -> None:
    cells = full_grid()
    for target in TARGETS:
        assert any(
            cell.quantity == target.quantity
            and str(cell.dtype) == f"torch.{target.dtype}"
            and target.cells(cell.sizes)
            for cell in cells
        ), target.what
