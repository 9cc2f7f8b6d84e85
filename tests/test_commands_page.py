"""The page of commands says what their JSON holds, and they hold it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kahler_verify.evidence.crosscheck import crosscheck
from kahler_verify.evidence.ledger.items import Ledger
from kahler_verify.evidence.ledger.writing import write_ledger
from kahler_verify.evidence.mutants.verdicts import MutantResult, write_mutants
from kahler_verify.models import RealVAE, RealVAEConfig, save_checkpoint
from tests.command import run

pytestmark = pytest.mark.xdist_group("commands_page")  # one worker makes what the tests share

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "commands.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE, re.MULTILINE))


def told(command: str) -> set[str]:
    """The keys that the page names, up to its first full stop, which ends the top level."""
    sentence = re.sub(r" \([^)]*\)", "", re.split(r"\. |: of each|: weights", ROWS[command])[0])
    return set(re.findall(r"`(\w+)`", sentence))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    np.save(folder / "x.npy", x.numpy())
    config = RealVAEConfig(data=str(folder / "x.npy"), data_dim=4, latent_dim=2, hidden=(5,))
    vae = RealVAE(config)
    vae.standardise(x)
    save_checkpoint(folder / "vae.safetensors", vae)
    return folder / "vae.safetensors"


CALLS = {
    "geodesic": ("0.5,-0.2", "0.1,0.9", "--json", "-"),
    "analogy": ("0.5,-0.2", "0.1,0.9", "0.4,0.3", "--json", "-"),
    "distances": (
        *("--data", "{data}", "--points", "3", "--segments", "8"),
        *("--out", "{out}", "--json", "-"),
    ),
    "diagnose": ("--data", "{data}", "--points", "3", "--json", "-"),
    "fit-land": ("--json", "-", "--sigma", "1", "--rays", "32"),
}


SLOW = {"fit-land": pytest.mark.thorough}


@pytest.mark.parametrize("command", [pytest.param(c, marks=SLOW.get(c, ())) for c in CALLS])
def test_commands_write_what_the_page_tells(command: str, model: Path, tmp_path: Path) -> None:
    data = model.with_name("x.npy")
    arguments = [each.format(data=data, out=tmp_path / "d.npz") for each in CALLS[command]]
    first = "gaussian" if command == "fit-land" else str(model)
    done = run(command, first, *arguments)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == told(command)


def test_evidence_is_written_as_the_page_tells(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_ledger(Ledger([], []), path)
    assert told("prove") - {"verdict", "evidence"} == set(json.loads(path.read_text("utf-8")))
    write_mutants(MutantResult([]), path)
    assert set(json.loads(path.read_text("utf-8"))) == told("mutate")
    kept = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "cpu.json"
    assert set(json.loads(kept.read_text("utf-8"))) == told("bench")
    assert set(crosscheck(derivations={}).to_dict()) == told("verify")


def test_every_command_with_json_is_on_the_page() -> None:
    folder = Path(__file__).resolve().parents[1] / "kahler_verify" / "cli"
    writing = {
        path.stem.replace("_", "-")
        for path in folder.glob("*.py")
        if re.search(r"^    json: Annotated", path.read_text("utf-8"), re.MULTILINE)
    }
    assert writing == set(ROWS)
