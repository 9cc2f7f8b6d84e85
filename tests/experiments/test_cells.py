"""What experiments share: their reports and pages, what is kept, and the ledger that reads them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import cells, page
from experiments.cells import Experiment
from experiments.generators.__main__ import EXPERIMENT as GENERATORS
from experiments.oddity.__main__ import EXPERIMENT as ODDITY
from experiments.rgdgm.__main__ import EXPERIMENT as RGDGM
from experiments.spheres.__main__ import EXPERIMENT as SPHERES
from experiments.store import Json
from kahler_verify.calculus.claims import Comparison
from kahler_verify.errors import InputError
from kahler_verify.evidence.ledger.measurements import comparison
from kahler_verify.fields.sweeps import of_function

ROOT = Path(__file__).resolve().parents[2]


def made_up(experiment: Experiment) -> Experiment:
    """The same of values that nobody measured: arm k of a measure is k, and a little noise."""

    def compute(folder: Path, seed: int, cell: str, sizes: object) -> Json:
        baseline, others = experiment.declaration.ARMS[cell]
        measures = experiment.declaration.MEASURES[cell]
        return {
            arm: dict.fromkeys(measures, k + 0.01 * k * (seed % 3))
            for k, arm in enumerate([baseline, *others])
        }

    return replace(experiment, compute=compute)


def reported(experiment: Experiment, folder: Path) -> Json:
    quick = experiment.declaration.QUICK
    return made_up(experiment).report(folder, range(8), quick, lambda _: None)


@pytest.mark.parametrize("experiment", [GENERATORS, SPHERES, RGDGM, ODDITY], ids=lambda e: e.name)
def test_reports_make_the_page(experiment: Experiment, tmp_path: Path) -> None:
    report = reported(experiment, tmp_path)
    json.dumps(report, allow_nan=False)
    path = tmp_path / "page.md"
    path.write_text((ROOT / "docs" / experiment.page).read_text("utf-8"), "utf-8")
    page.rewrite(path, experiment.name, experiment.blocks(report))
    text = path.read_text("utf-8")
    assert "8 seeds" in text
    for cell, (_, others) in experiment.declaration.ARMS.items():
        _, digits = next(iter(experiment.declaration.MEASURES[cell].values()))
        words = next(iter(others.values()))
        (row,) = {
            r for r in text.splitlines() if r.startswith(f"| {words} | {1.00875:.{digits}f} |")
        }
        assert f"+{1.00875:.{digits}f} (" in row


def test_the_ledger_reads_the_report(tmp_path: Path) -> None:
    part = Comparison(
        results="generators.json",
        command="python -m experiments.generators",
        cell="variance",
        baseline="mlp",
        arms=(("rbf", "RBF"),),
        measures=(("rise", "no rise"),),
    )
    items = comparison(part, json.loads(json.dumps(reported(GENERATORS, tmp_path))))
    assert any("higher, +1.01" in item.outcome for item in items)


def test_state_on_disk_is_taken_up(tmp_path: Path) -> None:
    def kept() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}

    first, files = reported(GENERATORS, tmp_path), kept()
    assert len(files) == 8 * len(GENERATORS.declaration.ARMS)
    assert reported(GENERATORS, tmp_path)["cells"] == first["cells"]
    assert kept() == files
    made_up(GENERATORS).report(tmp_path, [0], GENERATORS.declaration.FULL, lambda _: None)
    assert len(kept()) > len(files)  # of another declaration


def test_a_sweep_computes_what_the_command_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "ROOT", tmp_path)
    experiment = made_up(RGDGM)
    row = experiment.one(3, "paths", quick=True)
    (file,) = experiment.folder(quick=True).glob("paths-3-*.json")
    before = file.stat().st_mtime_ns
    found = experiment.report(
        experiment.folder(quick=True), [3, 4], experiment.declaration.QUICK, lambda _: None
    )
    assert file.stat().st_mtime_ns == before
    assert found["cells"]["paths"]["values"]["line"]["excess"][0] == row["line"]["excess"]
    with pytest.raises(
        InputError, match="cell: expected one of directions, convolutional, paths, got 'path'"
    ):
        experiment.one(3, "path")
    asked = {"seed": 0, "cell": "clusters"}
    of_function("experiments.generators.__main__:EXPERIMENT.one", asked)  # as the page has it
