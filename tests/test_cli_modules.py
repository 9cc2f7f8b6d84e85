"""``--module package.file:factory``: a user's own model on the command line, and clear errors."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kahler_verify import FisherRaoMetric
from kahler_verify.cli.user_models import open_module
from kahler_verify.evidence.crosscheck import crosscheck
from kahler_verify.evidence.routes.users_decoders import UsersDecoder
from kahler_verify.geometry import diagnose
from kahler_verify.geometry.large_diagnosis import diagnose_spectrum
from tests.command import run

FILE = """
import torch
from torch import nn
from torch.distributions import Bernoulli
from benchmarks.peoples_models import AutoencoderKL, dcgan
from kahler_verify import FisherMetric, FisherRaoMetric, RiemannianMetric
from kahler_verify.models import ComplexVAE, RealVAE, RealVAEConfig, VAEConfig

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 20), nn.LayerNorm(20), nn.SiLU(), nn.Linear(20, 30))

class Binary(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small()
    def forward(self, z):
        return Bernoulli(logits=self.net(z))

class Wrong(FisherRaoMetric):
    def jet(self, z, order):
        jet = super().jet(z, order)
        return jet if order < 1 else jet._replace(d=1.001 * jet.d)

def images(): return AutoencoderKL(8, 2, sample_size=8)
def gan(): return dcgan(8, 4, nn.SiLU)
def function():
    net = small().double()
    return lambda z: net(z)
def metric(): return FisherMetric(small(), latent_shape=(2,))
def wrong(): return Wrong(small(), 2)
def plane(): return RiemannianMetric.from_function(lambda z: torch.diag_embed(1 + z**2))
def vae(): return RealVAE(RealVAEConfig(data_dim=4, latent_dim=2, hidden=(5,), seed=3))
def complex_metric(): return __import__("kahler_verify").MixtureMetric
def unfrozen():
    layers = nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 4)
    return nn.Sequential(nn.Linear(2, 8), *layers)
def fails(): raise OSError("no weights here")
def number(): return 3
def wants(x): return x
value = 7
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("users")
    (folder / "mine").mkdir()
    (folder / "mine" / "nets.py").write_text(FILE)
    (folder / "mine" / "broken.py").write_text("import nothing_of_that_name\n")
    (folder / "mine" / "faulty.py").write_text("1 / 0\n")
    return folder


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user stands in a folder of the user's own."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


def test_diagnose_a_module(tmp_path: Path) -> None:
    out = tmp_path / "diagnosis.json"
    arguments = ("--latents", "2", "--points", "5", "--json", str(out))
    done = run("diagnose", "--module", "mine.nets:small", *arguments)
    assert done.returncode == 0, done.stderr
    assert "mine.nets:small: 5 points drawn from N(0, I), d = 2" in done.stdout
    user = open_module("mine.nets:small", "2")
    expected = diagnose(user.metric, user.draws(5)).to_json()
    found = json.loads(out.read_text())
    assert found["quantities"] == json.loads(json.dumps(expected["quantities"]))


def test_diagnose_many_dimensions_by_their_spectrum() -> None:
    done = run("diagnose", "--module", "mine.nets:images", "--points", "2")
    assert done.returncode == 0, done.stderr
    assert "effective dimension" in done.stdout
    user = open_module("mine.nets:images", None)
    assert user.shape == (4, 4, 4)
    z = user.draws(1)
    found = {q.name: q.values.item() for q in diagnose_spectrum(user.metric, z).quantities}
    values = torch.linalg.eigvalsh(user.metric.metric_matrix(z)[0]).flip(0)
    assert found["log volume"] == pytest.approx(values.log().sum().item() / 2)
    assert found["condition number"] == pytest.approx((values[0] / values[-1]).item())
    share = (values[:10].sum() / values.sum()).item()
    assert found["share of the first 10"] == pytest.approx(share)
    user.metric.memory_budget = 2**16  # g is not made
    free = {q.name: q.values.item() for q in diagnose_spectrum(user.metric, z).quantities}
    assert free["largest eigenvalue"] == pytest.approx(values[0].item(), rel=1e-3)
    assert free["share of the first 10"] == pytest.approx(share, rel=0.2)
    assert free["log volume"] != free["log volume"]


def test_verify_a_module(tmp_path: Path) -> None:
    out, page = tmp_path / "rows.json", tmp_path / "page.html"
    arguments = ("--no-kernels", "--module", "mine.nets:Binary", "--latents", "2")
    done = run("verify", *arguments, "--json", str(out), "--html", str(page))
    assert done.returncode == 0, done.stderr + done.stdout
    rows = json.loads(out.read_text())["rows"]
    assert {row["kernel"] for row in rows} == {
        "decoder.metric",
        "decoder.connection",
        "decoder.metric (float32)",
    }
    assert all(row["passed"] for row in rows)
    assert "mine.nets:Binary" in page.read_text()


@pytest.mark.parametrize("made", ["images", "function", "vae", "metric"])
def test_verify_models_of_each_kind(made: str) -> None:
    latents = ("--latents", "2") if made == "function" else ()
    arguments = ("--no-kernels", "--points", "1", *latents)
    done = run("verify", "--module", f"mine.nets:{made}", *arguments)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "passed" in done.stdout


def test_verify_finds_a_wrong_connection() -> None:
    user = open_module("mine.nets:wrong", None)
    assert isinstance(user.metric, FisherRaoMetric)
    result = crosscheck(UsersDecoder("wrong", user.metric, user.draws(1)), derivations={})
    assert [row.what for row in result.failed] == ["decoder.connection"]
    assert not result.passed


def test_geodesic_of_a_module(tmp_path: Path) -> None:
    out = tmp_path / "curve.json"
    arguments = ("--module", "mine.nets:metric", "0.1,0.2", "1,0.5", "--json", str(out))
    done = run("geodesic", *arguments)
    assert done.returncode == 0, done.stderr
    answer = json.loads(out.read_text())
    assert answer["status"] == "MINIMUM"
    assert answer["checkpoint"] == "mine.nets:metric"
    assert answer["curve"][0] == [0.1, 0.2]
    flat = run("geodesic", "--module", "mine.nets:plane", "--latents", "2", "0.1,0.2", "1,0.5")
    assert flat.returncode == 2
    assert "does not say" in flat.stderr or "dimension" in flat.stderr


def test_a_module_in_training_mode_is_evaluated() -> None:
    done = run("diagnose", "--module", "mine.nets:unfrozen", "--latents", "2", "--points", "2")
    assert done.returncode == 0, done.stderr


NAMES = "module: expected package.file:factory"
ERRORS = {
    "no colon": ("mine.nets", None, NAMES),
    "no factory": ("mine.nets:", None, NAMES),
    "no name": ("a b:c", None, NAMES),
    "no such module": ("mine.nobody:x", None, "there is no 'mine.nobody'"),
    "no such package": ("nobody.at:x", None, "there is no 'nobody'"),
    "imports what is not there": ("mine.broken:x", None, "No module named 'nothing_of_that_name'"),
    "fails on import": ("mine.faulty:x", None, "ZeroDivisionError"),
    "no such function": ("mine.nets:smal", None, "has no 'smal'; functions and classes there"),
    "no function": ("mine.nets:value", None, "a function without arguments, got a int"),
    "wants arguments": ("mine.nets:wants", None, "wants() missing 1 required"),
    "raises": ("mine.nets:fails", None, "mine.nets:fails() raised OSError: no weights here"),
    "no decoder": ("mine.nets:number", None, "return a decoder, a model or a metric, got int"),
    "no dimension": ("mine.nets:small", None, "latents: expected --latents"),
    "wrong dimension": ("mine.nets:small", "3", "does not decode latents [3]"),
    "wrong shape": ("mine.nets:gan", "8", "does not decode latents [8]: RuntimeError: Expected 3D"),
    "no shape": ("mine.nets:small", "2,x", "latents: expected whole numbers"),
    "a class": ("mine.nets:complex_metric", "2", "does not decode latents"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line(name: str) -> None:
    module, latents, message = ERRORS[name]
    more = () if latents is None else ("--latents", latents)
    done = run("diagnose", "--module", module, *more)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_checkpoint_or_a_module() -> None:
    for arguments, message in (
        (("diagnose",), "expected a checkpoint or --module, got none"),
        (("diagnose", "x", "--module", "mine.nets:small"), "got both"),
        (("verify", "x", "--module", "mine.nets:small"), "got both"),
        (("geodesic", "0.1,0.2", "1,2"), "got 2 arguments"),
        (("geodesic", "x", "0,1", "1,0", "--module", "mine.nets:metric"), "got 3 arguments"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr


def test_checkpoints_run_no_code(folder: Path) -> None:
    done = run("diagnose", "mine.nets:fails")
    assert done.returncode == 2
    assert "expected a checkpoint at mine.nets:fails, but it is not there" in done.stderr
    assert "mine.nets" not in sys.modules
