"""The experiment's measures against examples by hand, its statistics, and its memory."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from experiments import paired, store
from experiments.kahler_vae import declaration, measures, page, plots, statistics
from experiments.kahler_vae.__main__ import run
from experiments.kahler_vae.declaration import ARMS, FULL, MEASURES, PRIMARY, Sizes
from experiments.kahler_vae.experiment import Workshop, choose, score, weighted_name
from experiments.kahler_vae.models import Images, scale
from kahler_verify.errors import InputError
from kahler_verify.models import load_data, to_images

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)


# Measures


def test_total_variation_by_hand() -> None:
    assert measures.total_variation(np.full((3, 8, 8), 0.7)) == 0
    board = np.indices((8, 8)).sum(0) % 2
    assert measures.total_variation(board[None].astype(float)) == 1
    stripes = np.tile([0.0, 1.0], (8, 4))[None]  # every step across, none down
    assert measures.total_variation(stripes) == 0.5


def test_high_frequencies_by_hand() -> None:
    x = np.arange(8)
    for cycles, expected in ((1, 0), (2, 0), (3, 1), (4, 1)):
        wave = np.broadcast_to(np.cos(2 * np.pi * cycles * x / 8), (1, 8, 8))
        assert measures.high_frequency(wave) == pytest.approx(expected, abs=1e-12)
    both = np.cos(2 * np.pi * x / 8)[None, :, None] + np.cos(6 * np.pi * x / 8)[None, None, :]
    assert measures.high_frequency(both) == pytest.approx(0.5)
    assert measures.high_frequency(np.full((1, 8, 8), 0.3)) == 0


def test_paths_by_hand() -> None:
    t = np.linspace(0, 1, 17)
    image = RNG.random((8, 8))
    affine = (t[:, None, None] * image)[None]
    assert measures.path_roughness(affine) == pytest.approx(0, abs=1e-25)
    assert measures.relative_path_roughness(affine) == pytest.approx(0, abs=1e-20)
    bent = (t[:, None, None] ** 2 * image)[None]  # ẍ = 2 image: second differences 2/16² image
    assert measures.path_roughness(bent) == pytest.approx((2 / 256) ** 2 * (image**2).mean())
    # 15 of the 16 steps' share of ∫‖ẍ‖² = 4‖image‖², over ‖image‖²
    assert measures.relative_path_roughness(bent) == pytest.approx(4 * 15 / 16)
    assert measures.relative_path_roughness(bent / 10) == pytest.approx(4 * 15 / 16)


def test_class_entropy_at_its_extremes() -> None:
    assert measures.class_entropy(np.repeat(np.arange(10), 7)) == pytest.approx(math.log(10))
    assert measures.class_entropy(np.full(20, 3)) == 0
    assert measures.class_entropy(np.array([1, 2])) == pytest.approx(math.log(2))


def test_recall_and_coverage_of_identical_and_disjoint_sets() -> None:
    points = RNG.random((50, 6))
    assert measures.recall(points, points) == 1
    assert measures.coverage(points, points) == 1
    assert measures.recall(points, points + 100) == 0
    assert measures.coverage(points, points + 100) == 0


def test_recall_and_coverage_by_hand() -> None:
    # Balls to the 3rd neighbour among generated points 0, 1, 2, 3 reach 3, 2, 2, 3.
    generated = np.arange(4.0)[:, None]
    real = np.array([[-2.9], [-3.1], [5.9], [6.1], [1.5]])
    assert measures.recall(real, generated) == 3 / 5
    # Balls to the 5th neighbour of real points 0 … 5 reach 5, 4, 3, 3, 4, 5.
    real = np.arange(6.0)[:, None]
    assert (
        measures.coverage(real, np.array([[7.9]])) == 2 / 6
    )  # it is 2.9 from 5, 3.9 from 4, 4.9 from 3
    assert measures.coverage(real, np.array([[9.5]])) == 1 / 6


def test_recall_is_fooled_by_far_points_and_coverage_is_not() -> None:
    real = RNG.normal(size=(60, 4))
    far = 50 * RNG.normal(size=(60, 4))
    assert measures.recall(real, far) > 0.9
    assert measures.coverage(real, far) == 0


@pytest.fixture(scope="module")
def images() -> Images:
    return Images.of(load_data("digits", 5))


def test_images_of_kspace_are_the_digits_and_held_out_parts_are_unseen(images: Images) -> None:
    data = load_data("digits-images", 5)
    expected = to_images(data.train.x, "digits-images")
    assert expected is not None
    assert np.allclose(images.train, expected.numpy(), atol=1e-6)
    assert len(images.held_out) == 360
    assert images.train.min() >= 0
    assert images.train.max() <= 1


def test_the_judge_knows_digits_from_noise(images: Images) -> None:
    assert images.judge.accuracy > 0.96
    of_real = images.judge.judge(images.held_out)
    assert of_real["unsure"] <= 0.05  # by construction, as are
    assert of_real["far"] == pytest.approx(0.05, abs=0.003)
    rows = scale(images, 1080, 0)
    assert rows["real"]["outliers"] <= 0.05
    assert rows["real"]["coverage"] > 0.9
    assert rows["noise"]["outliers"] > 0.9
    assert rows["noise"]["coverage"] < 0.1
    assert rows["noise"]["total_variation"] > rows["real"]["total_variation"]
    blend = images.train[:200] / 2 + images.train[200:400] / 2
    assert images.judge.judge(blend)["unsure"] > 0.4


def test_outliers_are_unsure_and_far(images: Images) -> None:
    rates = images.judge.judge(images.train[:300] ** 2)
    assert rates["outliers"] <= min(rates["unsure"], rates["far"])
    assert images.judge.judge(images.train[:50])["far"] == 0


def test_samples_of_a_mixture_are_in_random_order(tmp_path: Path) -> None:
    """scikit-learn sorts them by component, and recall and coverage take them batch by batch."""
    sizes = replace(FULL, epochs=1)
    workshop = Workshop(PRIMARY, 5, tmp_path, sizes)
    model = workshop.model(1.0, declaration.options(1))
    z, how = model.latents("mixture", declaration.STRENGTHS, 5)
    assert how["components"] > 1
    x = torch.view_as_real(z).flatten(1)
    x = (x - x.mean(0)) / x.std(0)
    assert (x[1:] * x[:-1]).mean(0).abs().max() < 0.15  # 0.6 and more if they are sorted


# Statistics


def test_interval_is_scipys() -> None:
    for n in (2, 3, 8):
        x = RNG.normal(0.4, 1, n)
        mean, low, high, p = paired.interval(list(x))
        error = stats.sem(x)
        assert (low, high) == pytest.approx(stats.t.interval(0.95, n - 1, mean, error))
        assert p == pytest.approx(stats.ttest_1samp(x, 0).pvalue)
    assert paired.interval([2.0, 2.0]) == (2, 2, 2, 0)
    assert paired.interval([0.0, 0.0]) == (0, 0, 0, 1)
    assert math.isnan(paired.interval([1.0])[1])


def test_holm_by_hand() -> None:
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert paired.holm([0.5, 0.9]) == [1, 1]
    assert paired.holm([]) == []


def _cell(shift: dict[str, dict[str, float]], seeds: int = 8) -> dict:
    noise = np.random.default_rng(1).normal(0, 1e-3, (len(ARMS), len(MEASURES), seeds))
    values = {
        arm: {
            m: [1 + shift.get(arm, {}).get(m, 0) + float(e) for e in noise[i, j]]
            for j, m in enumerate(MEASURES)
        }
        for i, arm in enumerate(ARMS)
    }
    cell = {"seeds": list(range(seeds)), "values": values}
    return {**cell, "differences": statistics.differences(cell)}


def test_finding_follows_its_rule() -> None:
    smooth = {"total_variation": -0.5}
    cell = _cell(
        {
            "regularised+": smooth,
            "weighted+": {"outliers": 0.5},
            "regularised+weighted+": {**smooth, "coverage": -0.5, "outliers": -0.4},
            "mixture": {"outliers": -0.9},
        }
    )
    assert statistics.direction(statistics.find(cell, "regularised+", "total_variation")) == "lower"
    assert statistics.direction(statistics.find(cell, "weighted+", "outliers")) == "higher"
    unclear = statistics.find(cell, "beta", "outliers")
    assert statistics.direction(unclear) == "no clear change"
    text = statistics.finding(cell)
    assert "total variation was lower than vanilla's in 2 of 3" in text
    assert "rate of outliers in 1 of 3 (and 1 higher)" in text
    assert "coverage 1 of 3, recall 0 of 3, entropy 0 of 3 lower" in text
    assert "λ > 0, γ > 0): outliers lower, -0.4" in text
    assert "needs no geometry: outliers lower, -0.9" in text


def test_claim_has_the_ledgers_form() -> None:
    claim = statistics.claim(_cell({}))
    assert claim["verdict"] == "measured"
    assert json.loads(json.dumps(claim, allow_nan=False)) == claim
    for number in claim["numbers"]:
        assert number["low"] <= number["difference"] <= number["high"]
        assert number["seeds"] == 8
    # a model's own measures are not compared with themselves
    assert not [n for n in claim["numbers"] if (n["arm"], n["measure"]) == ("weighted+", "elbo")]


def test_seeds_of_failed_trainings_are_left_out_and_counted() -> None:
    cell = _cell({})
    cell["values"]["regularised+"]["outliers"][2:5] = [None] * 3
    cell["differences"] = statistics.differences(cell)
    row = statistics.find(cell, "regularised+", "outliers")
    assert (row["seeds"], row["failed"]) == (5, 3)


# The pilot's rule


def test_score_is_a_harmonic_mean() -> None:
    assert score({"outliers": 0.2, "coverage": 0.4}) == pytest.approx(2 * 0.8 * 0.4 / 1.2)
    assert score({"outliers": 1.0, "coverage": 0.0}) == 0


def _pilot_table() -> dict:
    names = ["vanilla", *(f"λ = {w:g}" for w in declaration.WEIGHTS)]
    names += [f"β = {b:g}" for b in declaration.BETAS]
    names += [f"τ = {t:g}" for t in declaration.TEMPERATURES]
    names += [f"mixture of {of}" for of in declaration.MIXTURES]
    gammas = (*declaration.GAMMAS, *declaration.NEGATIVE_GAMMAS)
    names += [weighted_name(g, m) for g in gammas for m in declaration.MASSES]
    return {name: {"failed": 0, "score": 0.5} for name in names}


def test_the_rule_takes_the_best_that_never_failed() -> None:
    table = _pilot_table()
    table["λ = 1"] = {"failed": 1, "score": 0.99}
    table["λ = 0.3"]["score"] = 0.7
    table["λ = -0.1"]["score"] = 0.6
    table["vanilla"]["score"] = 0.8
    table["τ = 0.8"]["score"] = 0.6
    table[weighted_name(0.5, 0.9)]["score"] = 0.9
    table[weighted_name(-1.0, 0.9)]["score"] = 0.6
    table[weighted_name(-0.5, 0.5)]["score"] = 0.7  # of another ball than γ > 0 has
    table["mixture of draws"]["score"] = 0.6
    assert choose(table) == {
        "weight_up": 0.3,
        "weight_down": -0.1,
        "gamma_up": 0.5,
        "mass": 0.9,
        "gamma_down": -1.0,
        "beta": 1.0,
        "temperature": 0.8,
        "mixture_of": "draws",
    }


def test_what_is_reported_is_what_the_pilot_chose() -> None:
    report = json.loads((ROOT / "benchmarks/results/kahler_vae.json").read_text("utf-8"))
    assert report["pilot"]["chosen"] == report["declaration"]["chosen"]
    assert report["declaration"] == json.loads(json.dumps(declaration.as_json()))
    amended = {**report["declaration"]["chosen"], "weight_up": 0.3}
    assert report["declaration"]["strengths"] == amended
    assert choose(report["pilot"]["table"]) == report["pilot"]["chosen"]
    assert not set(report["pilot"]["seeds"]) & set(report["cells"][PRIMARY.name]["seeds"])


def test_the_committed_numbers_give_the_committed_page_and_claim() -> None:
    report = json.loads((ROOT / "benchmarks/results/kahler_vae.json").read_text("utf-8"))
    for cell in report["cells"].values():
        assert json.dumps(statistics.differences(cell)) == json.dumps(cell["differences"])
    assert statistics.claim(report["cells"][PRIMARY.name]) == report["claims"]["G8"]
    text = (ROOT / "docs/does-geometry-help.md").read_text("utf-8")
    for name, block in page.blocks(report).items():
        assert f"<!-- kahler_vae {name} -->\n\n{block}\n\n<!-- end -->" in text


# State on disk


def test_no_file_is_ever_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    store.write_json(path, {"n": 1})

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write_json(path, {"n": 2, "long": "x" * 100_000})
    with pytest.raises(KeyboardInterrupt):
        store.write_json(tmp_path / "b.json", {})
    assert json.loads(path.read_text("utf-8")) == {"n": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_work_is_done_once_for_one_input(tmp_path: Path) -> None:
    calls = []

    def work() -> dict:
        calls.append(1)
        return {"value": 0.1 + 0.2}

    first = store.remembered(tmp_path, "unit", {"a": 1}, work)
    assert store.remembered(tmp_path, "unit", {"a": 1}, work) == first
    assert len(calls) == 1
    store.remembered(tmp_path, "unit", {"a": 2}, work)
    assert len(calls) == 2


TINY = Sizes(epochs=1, samples=360, proposals=400, paths=4, path_points=5, chain_seeds=())


def _numbers(report: dict) -> dict:
    """A report without the time that it took."""
    cells = {
        name: {key: value for key, value in cell.items() if key != "cpu_seconds"}
        for name, cell in report["cells"].items()
    }
    return {"cells": cells, "claims": report["claims"]}


@pytest.mark.thorough
def test_an_interrupted_run_is_taken_up_and_gives_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        declaration,
        "trainings",
        lambda strengths, epochs: {
            "plain": (1.0, declaration.options(epochs)),
            "logdet_up": (1.0, declaration.options(epochs, "logdet-hermitian", 0.1)),
            "logdet_down": (1.0, declaration.options(epochs)),
            "volume_up": (1.0, declaration.options(epochs)),
            "logdet_stronger": (1.0, declaration.options(epochs, "logdet-hermitian", 0.2)),
            "beta": (2.0, declaration.options(epochs)),
        },
    )
    monkeypatch.setattr(declaration, "MIXTURE_COMPONENTS", (1, 2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cells = [replace(PRIMARY, seeds=(0, 1))]
    said: list[str] = []

    def stop_late(line: str) -> None:
        said.append(line)
        if line == "kspace-4 1: beta":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", cells, TINY, stop_late, with_pilot=False)
    resumed: list[str] = []
    report = run(tmp_path / "a", cells, TINY, resumed.append, with_pilot=False)
    assert {line.split(":")[0] for line in resumed} == {"kspace-4 1"}  # seed 0 was on disk
    again: list[str] = []
    assert run(tmp_path / "a", cells, TINY, again.append, with_pilot=False) == report
    assert again == []
    (file,) = (tmp_path / "a").glob("kspace-4-1-*.json")
    file.unlink()  # measured anew from the models on disk
    anew = run(tmp_path / "a", cells, TINY, said.append, with_pilot=False)
    assert json.dumps(_numbers(anew)) == json.dumps(_numbers(report))
    torch.set_num_threads(threads)

    shutil.copyfile(ROOT / "docs/does-geometry-help.md", tmp_path / "page.md")
    page.rewrite(tmp_path / "page.md", report)
    assert "2 seeds" in (tmp_path / "page.md").read_text("utf-8")
    plots.draw_forest(report["cells"][PRIMARY.name], tmp_path / "forest.png")
    assert (tmp_path / "forest.png").stat().st_size > 10_000


def test_a_page_without_its_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("<!-- kahler_vae finding -->\n<!-- end -->\n", "utf-8")
    report = json.loads((ROOT / "benchmarks/results/kahler_vae.json").read_text("utf-8"))
    with pytest.raises(InputError, match="expected the markers"):
        page.rewrite(tmp_path / "page.md", report)


def test_full_run_is_as_declared() -> None:
    assert FULL.samples % 360 == 0
    assert len(PRIMARY.seeds) == 8
    assert not set(PRIMARY.seeds) & set(declaration.PILOT_SEEDS)
