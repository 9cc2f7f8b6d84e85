"""The gallery's scripts run and draw, and its page shows the very text that is run."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread

from kahler_verify import models
from kahler_verify.models import TrainingOptions

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SCRIPTS = sorted(path for path in (DOCS / "gallery").glob("*.py") if path.stem != "__main__")
GALLERY = (DOCS / "gallery.md").read_text("utf-8")
HELD_OUT = "first_picture"  # on the first page, not in the gallery
# what takes most of a script's time, and in how little of it the script still runs
SHORTER = {
    "range(1200)": "range(40)",
    "range(800)": "range(40)",
    "resolution=161": "resolution=21",
    "cells=128": "cells=8",
    "segments=128": "segments=16",
    "expand(2000, 2)": "expand(200, 2)",
}
SLOW = {"land": pytest.mark.thorough}  # a fit has no smaller size that says anything


def _pictures(script: Path) -> list[str]:
    if script.stem == HELD_OUT:
        return [f"{HELD_OUT}-{mode}.png" for mode in ("light", "dark")]
    return [f"{script.stem}.png"]


@pytest.mark.parametrize(
    "script",
    [pytest.param(path, marks=SLOW.get(path.stem, ()), id=path.stem) for path in SCRIPTS],
)
def test_script_runs_at_a_reduced_size(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few epochs of training; that pictures are good is looked at, not tested."""
    train = models.train

    def shortly(*arguments: Any, options: TrainingOptions, **named: Any) -> Any:
        assert options.epochs > 2
        return train(*arguments, options=TrainingOptions(epochs=2, warmup_epochs=1), **named)

    text = script.read_text("utf-8")
    for whole, short in SHORTER.items():
        text = text.replace(whole, short)
    (tmp_path / script.name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(models, "train", shortly)
    monkeypatch.chdir(tmp_path)
    generator = torch.get_rng_state()
    try:
        runpy.run_path(str(tmp_path / script.name))
    finally:
        torch.set_rng_state(generator)
    for name in _pictures(script):
        drawn, committed = imread(tmp_path / name), imread(DOCS / "assets" / name)
        assert drawn.shape[2] == 4
        assert drawn.std() > 0.02  # something is drawn
        assert abs(drawn.shape[1] - committed.shape[1]) < 40  # of the committed size


def test_what_is_shortened_is_there() -> None:
    every = "".join(path.read_text("utf-8") for path in SCRIPTS)
    assert [text for text in SHORTER if text not in every] == []


@pytest.mark.thorough
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs_in_a_minute(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("*.png")} == set(_pictures(script))


def test_the_page_shows_every_script_and_its_picture() -> None:
    shown = re.findall(r'--8<-- "gallery/(\w+)\.py"', GALLERY)
    assert sorted(shown) == [path.stem for path in SCRIPTS if path.stem != HELD_OUT]
    assert len(shown) == 8
    for name in shown:
        assert f"](assets/{name}.png)" in GALLERY
