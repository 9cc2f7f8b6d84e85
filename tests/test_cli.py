"""The command as a user meets it: what it prints, writes, and says when something is wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.derivations import shipped_folder
from kahler_verify.models import (
    ComplexVAE,
    QuantisedVAE,
    VAEConfig,
    load_checkpoint,
    save_checkpoint,
)
from tests.command import run

POTENTIAL = """
from sympy import log
from kahler_verify.calculus import coordinates, dimension, parameter, potential

z = coordinates("z", dimension("d"))
A = parameter("A", dimension("d"), dimension("d"), hermitian=True)
mine = potential("mine", log(1 + z.H * A * z))
"""


def run_in_a_new_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "kahler_verify", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "200"} | environment,
        check=False,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(POTENTIAL)
    return path


def test_derive_lists_shows_and_prints_latex() -> None:
    assert "fubini_study" in run("derive").stdout
    shown = run("derive", "gaussian_kl").stdout
    assert "Tr(Sigma**(-1)*∂aSigma*Sigma**(-1)*∂b̄Sigma)" in shown
    assert r"\operatorname{tr}" in run("derive", "gaussian_kl", "--latex").stdout


def test_derive_of_something_unknown_names_what_there_is() -> None:
    done = run("derive", "nonsense")
    assert done.returncode == 2
    assert "fubini_study" in done.stderr


def test_generate_writes_beside_the_users_file(file: Path) -> None:
    done = run("generate", str(file))
    assert done.returncode == 0, done.stderr
    target = file.with_name("mine_kernels.py")
    assert "def metric(" in target.read_text()
    assert "unchanged" in run("generate", str(file)).stdout
    assert run("generate", "--check", str(file)).returncode == 0


def test_generate_to_a_folder(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "kernels"
    assert run("generate", str(file), "--out", str(out)).returncode == 0
    assert [p.name for p in out.iterdir()] == ["mine_kernels.py"]


@pytest.mark.thorough  # CI runs this very command beside the tests
def test_check_agrees_with_what_is_shipped() -> None:
    done = run("generate", "--check")
    assert done.returncode == 0, done.stdout
    assert "agree" in done.stdout


def test_check_finds_a_sign_changed_in_a_derivation(file: Path) -> None:
    run("generate", str(file))
    file.write_text(POTENTIAL.replace("log(1 +", "log(1 -"))
    done = run("generate", "--check", str(file))
    assert done.returncode == 1
    assert "mine: kernels differ from their derivation" in done.stdout
    assert "\n-" in done.stdout
    assert "\n+" in done.stdout


def test_check_finds_a_kernel_edited_by_hand(file: Path) -> None:
    run("generate", str(file))
    target = file.with_name("mine_kernels.py")
    target.write_text(target.read_text().replace(".conj()", "", 1))
    done = run("generate", "--check", str(file))
    assert done.returncode == 1
    assert "mine" in done.stdout


def test_check_finds_missing_and_stray_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: shipped()[name] for name in ("flat", "quadratic_form")}
    monkeypatch.setattr("kahler_verify.codegen.writing.shipped", lambda: few)
    monkeypatch.setattr("kahler_verify.codegen.writing.shipped_pointwise", list)
    shutil.copy(KERNELS / "quadratic_form.py", tmp_path)
    (tmp_path / "stray.py").write_text("")
    done = run("generate", "--check", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "flat" in done.stdout
    assert "quadratic_form" not in done.stdout
    assert "stray.py: no derivation generates this file" in done.stdout


def test_output_does_not_depend_on_the_hash_seed(file: Path) -> None:
    texts = set()
    for seed in ("0", "1", "4242"):
        done = run_in_a_new_process("generate", str(file), PYTHONHASHSEED=seed)
        assert done.returncode == 0
        texts.add(file.with_name("mine_kernels.py").read_bytes())
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "declares no Derivation"),
        ("from kahler_verify.calculus import *\nz = coordinates('z', d)\n", "NameError"),
        ("def f(:\n", "SyntaxError"),
        (POTENTIAL.replace("log(1 +", "gamma(1 +").replace("import log", "import gamma"), "gamma"),
        (POTENTIAL.replace('"mine"', '"not a name"'), "identifier"),
    ],
)
def test_a_faulty_file_gets_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "faulty.py"
    path.write_text(text)
    done = run("generate", str(path))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*_kernels.py"))


def test_prove_by_id_writes_json(tmp_path: Path) -> None:
    out = tmp_path / "ledger.json"
    done = run("prove", "G2", "O9", "--json", str(out), KAHLER_VERIFY_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    verdicts = {c["id"]: c["verdict"] for c in json.loads(out.read_text())["claims"]}
    assert verdicts == {"G2": "holds", "O9": "refuted"}
    again = run("prove", "G2", KAHLER_VERIFY_CACHE=str(tmp_path / "cache"))
    assert "holds" in again.stdout


def test_prove_of_an_unknown_claim(tmp_path: Path) -> None:
    done = run("prove", "G99")
    assert done.returncode == 2
    assert "G99" in done.stderr


def test_train_refuses_bad_choices(tmp_path: Path) -> None:
    out = str(tmp_path / "model.safetensors")
    for arguments, message in (
        (("--hidden", "a,b"), "hidden"),
        (("--decoder", "cubist"), "decoder"),
        (("--data", "missing.npz"), "missing.npz"),
        (("--activation", "log"), "log"),
        (("--regularizer", "log-volume"), "weight: expected a number other than 0"),
        (("--early-stopping", "3", "--epochs", "5"), "early_stopping: expected a warm-up"),
        (("--metric", "mixture"), "metric: expected a regularizer"),
        (("--quantised", "8"), "quantised: expected none at complex latents"),
        (("--latent", "real", "--positions", "2"), "positions: expected --quantised"),
    ):
        done = run("train", "--out", out, *arguments)
        assert done.returncode == 2, done.stdout
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_train_writes_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    small = ("--epochs", "2", "--hidden", "8", "--latent-dim", "2")
    geometry = ("--regularizer", "log-volume", "--weight", "-0.1", "--regularizer-batch", "4")
    done = run("train", "--out", str(out), *small, *geometry)
    assert done.returncode == 0, done.stderr
    assert "ELBO" in done.stdout
    assert out.is_file()


def test_train_rounds_latents(tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    small = ("--epochs", "2", "--hidden", "8", "--latent-dim", "4", "--latent", "real")
    done = run("train", "--out", str(out), *small, "--quantised", "8", "--positions", "2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"of 8 codes in use", done.stdout)
    model = load_checkpoint(out).model
    assert isinstance(model, QuantisedVAE)
    assert (model.config.codes, model.config.positions) == (8, 2)


def test_train_stops_early(tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    small = ("--epochs", "6", "--hidden", "8", "--latent-dim", "2", "--warmup", "1")
    geometry = ("--regularizer", "log-volume", "--weight", "0.1", "--metric", "mixture")
    stopping = ("--components", "4", "--early-stopping", "1", "--clip", "1e-9")
    done = run("train", "--out", str(out), *small, *geometry, *stopping)
    assert done.returncode == 0, done.stderr
    assert re.search(r"weights of epoch \d+ of \d+, with the least held-out loss", done.stdout)
    options = load_checkpoint(out).report["options"]
    assert (options["clip"], options["components"], options["warmup_epochs"]) == (1e-9, 4, 1)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained decoder of a user's file."""
    x = torch.randn(40, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "signals.npy", x.numpy())
    source = str(tmp_path / "signals.npy")
    model = ComplexVAE(VAEConfig(data=source, data_dim=3, latent_dim=2, hidden=(4,), seed=3))
    model.standardise(x)
    save_checkpoint(tmp_path / "model.safetensors", model)
    return tmp_path / "model.safetensors"


def test_diagnose_prints_and_writes(checkpoint: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "diagnosis.json", checkpoint.with_name("signals.npy")
    done = run("diagnose", str(checkpoint), "--data", str(data), "--json", str(out), COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "4 encoded points, d = 2" in done.stdout
    assert "curvature" in done.stdout
    found = json.loads(out.read_text())
    assert found["quantities"]["identifiability"]["median"] > 0
    assert "4 held-out samples as balls" in " ".join(done.stdout.split())
    assert (found["balls"]["points"], found["balls"]["dimension"]) == (4, 4)  # of C²
    assert 0 <= found["balls"]["quantities"]["ball overlap"]["maximum"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--points", "-1"), "points: expected at least 1, got -1"),
        (("--points", "0"), "points: expected at least 1, got 0"),
        ((), "data: expected --data with the file that"),
        (("--data", "nothing.npy"), "nothing.npy"),
    ],
)
def test_diagnose_refuses_bad_choices(
    checkpoint: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run("diagnose", str(checkpoint), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_without_kernels_checks_the_decoder_alone(checkpoint: Path, tmp_path: Path) -> None:
    data, page, out = checkpoint.with_name("signals.npy"), tmp_path / "r.html", tmp_path / "r.json"
    choices = ("--no-kernels", "--data", str(data), "--html", str(page), "--json", str(out))
    done = run("verify", str(checkpoint), *choices)
    assert done.returncode == 0, done.stdout
    assert "Kernels against" not in done.stdout
    rows = json.loads(out.read_text())["rows"]
    assert rows
    assert all(row["kernel"].startswith("decoder.") for row in rows)
    assert "<h1>Cross-check of a trained decoder</h1>" in page.read_text()
    done = run("verify", "--no-kernels")
    assert done.returncode == 2
    assert "checkpoint: expected one where kernels are not checked" in done.stderr


def test_shipped_folder_is_the_checkouts() -> None:
    assert (shipped_folder() / "likelihoods" / "gaussian_kl.py").is_file()
