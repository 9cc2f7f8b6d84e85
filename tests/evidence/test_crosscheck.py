"""The cross-check as a whole: kernels, decoders of every kind, and what makes it fail."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.errors import CheckpointError, InputError
from kahler_verify.evidence.crosscheck import SCHEMA, CrossCheck, _diagnosis, crosscheck
from kahler_verify.evidence.finding import Finding, frame_error
from kahler_verify.evidence.routes import complex_decoders
from kahler_verify.evidence.routes.complex_decoder_checks import (
    COMPLEX_DECODER_CHECKS,
    ComplexDecoderTrial,
)
from kahler_verify.geometry import FisherMetric
from kahler_verify.models.checkpoint import Checkpoint, save_checkpoint
from kahler_verify.models.data import load_data
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.activations import ACTIVATIONS

FLAT_AND_ROUND = {name: shipped()[name] for name in ("flat", "fubini_study")}


def model_of(**changes) -> ComplexVAE:
    small = {"data": "toy", "data_dim": 3, "latent_dim": 2, "hidden": (5,), "seed": 1}
    model = ComplexVAE(VAEConfig(**{**small, **changes}))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, model.config.data_dim, 2, generator=generator)
    with torch.no_grad():
        model.standardise(
            torch.view_as_complex(x) if model.config.likelihood == "complex" else x[..., 0]
        )
    return model.requires_grad_(False)


def trial_of(**changes) -> ComplexDecoderTrial:
    return ComplexDecoderTrial.of(Checkpoint(model_of(**changes), {}), None, 0, [])


KINDS = {
    "holomorphic": {},
    "constant": {"covariance": "constant"},
    "scalar": {"covariance": "scalar"},
    "split, real": {"decoder": "split", "likelihood": "real", "covariance": "scalar"},
    "modulus": {"decoder": "modulus"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_of_every_kind_of_decoder_passes(kind: str) -> None:
    trial = trial_of(**KINDS[kind])
    for check in COMPLEX_DECODER_CHECKS.values():
        for row in check(trial):
            assert row.passed, row
            assert row.points > 0


def test_held_out_data_are_those_of_the_checkpoints_own_seed() -> None:
    """Split by another seed, they would be training data for the most part."""
    model = model_of(data="digits", data_dim=32, seed=7)
    trial = ComplexDecoderTrial.of(Checkpoint(model, {}), None, 0, [])
    encoded, _ = trial.model.encoder(load_data("digits", 7).test.x.to(torch.complex128))
    assert torch.equal(trial.held_out, encoded)


def test_a_degenerate_decoder_has_a_note_and_no_diagnosis() -> None:
    model = model_of(latent_dim=4, covariance="constant")  # three outputs cannot tell four apart
    notes: list[str] = []
    trial = ComplexDecoderTrial.of(Checkpoint(model, {}), None, 0, notes)
    assert _diagnosis(trial, notes) == ("random latents", None)
    assert "no diagnosis at random latents" in notes[-1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_pass_at_50_digits_knows_every_activation(activation: str) -> None:
    family = activation.split("_")[0]
    family = family if family in ("split", "modulus") else "holomorphic"
    model = model_of(decoder=family, activation=activation).double()
    for parameter in model.parameters():  # biases too
        parameter += 0.1 * torch.rand(parameter.shape, dtype=parameter.dtype)
    z = torch.tensor([0.3 - 0.4j, -0.2 + 0.1j], dtype=torch.complex128)
    truths = complex_decoders.decimal_metric(model.decoder, z)
    scale = truths[0].diagonal().real.sqrt()
    for ours, truth in zip(complex_decoders.by_autograd(model.decoder, z), truths, strict=True):
        assert frame_error(ours, truth, scale) < 1e-13


class Faulty(FisherMetric):
    """A Fisher metric with something wrong; the fault is chosen by ``fault``."""

    fault: str = ""

    def metric_matrix(self, z: Tensor) -> Tensor:
        g = super().metric_matrix(z)
        if self.fault == "transposed":
            return g.mT
        if self.fault == "a little more":
            return g * (1 + (1e-3 if z.dtype == torch.complex64 else 1e-11))
        return g

    def complementary_part(self, z: Tensor) -> Tensor:
        return super().complementary_part(z) / (2 if self.fault == "half of k" else 1)

    def _metric_d(self, z: Tensor) -> Tensor:
        return super()._metric_d(z) * (2 if self.fault == "derivatives" else 1)

    def _metric_db(self, z: Tensor) -> Tensor:
        return super()._metric_db(z) * (2 if self.fault == "derivatives" else 1)


@pytest.mark.parametrize(
    ("fault", "finders"),
    [
        ("transposed", ["autograd", "torch's KL", "50 digits", "samples", "float32"]),
        ("half of k", ["autograd", "torch's KL", "50 digits"]),
        ("a little more", ["autograd", "torch's KL", "50 digits", "float32"]),
        ("derivatives", ["third derivatives", "derivatives at 50 digits"]),
    ],
)
def test_faults_in_a_decoder_s_metric_are_found(
    fault: str, finders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "fault", fault)
    monkeypatch.setattr("kahler_verify.evidence.routes.complex_decoder_checks.FisherMetric", Faulty)
    trial = trial_of()
    for label in finders:
        assert not all(row.passed for row in COMPLEX_DECODER_CHECKS[label](trial)), label


def saved(folder: Path, **changes) -> Path:
    path = folder / "model.safetensors"
    save_checkpoint(path, model_of(**changes), report={"test_elbo": -1.5})
    return path


def test_kernels_and_a_checkpoint_pass(tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    result = crosscheck(
        saved(tmp_path, data="digits", data_dim=32),
        derivations=FLAT_AND_ROUND,
        progress=lambda *step: said.append(step),
    )
    assert result.passed, result.failed
    assert said[0][0] == 0
    assert said[-1][:2] == (said[-1][1], said[-1][1])
    assert {row.where for row in result.rows} == {
        "random points",
        "held-out latents",
        "random latents",
    }
    assert result.constant < 64
    assert result.faults


def test_the_json_form(tmp_path: Path) -> None:
    result = crosscheck(saved(tmp_path), derivations={"flat": FLAT_AND_ROUND["flat"]})
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["schema"] == SCHEMA
    assert values["passed"] is True
    assert values["checkpoint"] == "model.safetensors"
    assert set(values) == {
        "schema", "passed", "bound", "checkpoint", "seconds", "environment", "rows", "missing",
        "notes", "autograd_faults", "diagnosis",
    }  # fmt: skip
    assert values["diagnosis"]["where"] == "random latents"
    assert values["diagnosis"]["points"] == 8
    assert set(values["rows"][0]) == {
        "kernel", "route", "where", "points", "error", "bound", "condition", "unit", "passed",
        "seconds", "note", "errors", "constant",
    }  # fmt: skip
    assert any("held-out" in words for words in values["notes"])


def with_text(change: Callable[[str], str]) -> CrossCheck:
    text = (KERNELS / "fubini_study.py").read_text()
    return crosscheck(
        derivations={"fubini_study": FLAT_AND_ROUND["fubini_study"]},
        sources={"fubini_study": change(text)},
        points=1,
    )


def test_a_wrong_kernel_fails_and_the_others_pass() -> None:
    result = with_text(lambda text: text.replace("return g_0", "return g_0.mT"))
    assert not result.passed
    assert {row.what for row in result.failed} == {"fubini_study.metric"}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("def metric(", "def other("),
        lambda text: text.replace("return g_0", "return g_0[..., 0]"),
        lambda text: text.replace("return g_0", "return no_such_name"),
        lambda text: "syntax error here",
    ],
)
def test_a_kernel_that_cannot_run_is_a_failed_row(change: Callable[[str], str]) -> None:
    result = with_text(change)
    assert not result.passed
    assert any(row.points == 0 and row.story for row in result.failed)
    assert result.missing


@pytest.mark.thorough
def test_what_is_found_does_not_depend_on_processes() -> None:
    """But for the seconds."""
    one, two = (crosscheck(derivations=FLAT_AND_ROUND, processes=n) for n in (1, 2))
    assert [replace(row, seconds=0.0) for row in one.rows] == [
        replace(row, seconds=0.0) for row in two.rows
    ]
    assert one.rows
    assert one.missing == two.missing == ()


def test_fewer_than_three_routes_fail() -> None:
    derivation = replace(FLAT_AND_ROUND["flat"], routes=("autograd", "mpmath"))
    result = crosscheck(derivations={"flat": derivation})
    assert not result.failed
    assert not result.passed
    assert len(result.missing) == len(derivation.kernels)


def test_an_unknown_route_fails() -> None:
    derivation = replace(FLAT_AND_ROUND["flat"], routes=("autograd", "mpmath", "exact", "oracle"))
    result = crosscheck(derivations={"flat": derivation})
    assert {row.route for row in result.failed} == {"oracle"}


def test_a_check_of_no_sample_fails() -> None:
    assert not Finding().passed
    assert not crosscheck(derivations={}).passed
    assert not Finding((math.nan,), (1.0,)).passed
    assert not Finding((0.0,), (1.0,), complaints=("modes differ",)).passed


def test_bad_input(tmp_path: Path) -> None:
    none: dict[str, Derivation] = {}
    with pytest.raises(InputError, match="points: expected at least 1, got 0"):
        crosscheck(derivations=none, points=0)
    with pytest.raises(CheckpointError):
        crosscheck(tmp_path / "missing.safetensors", derivations=none)
    with pytest.raises(InputError):
        crosscheck(saved(tmp_path), derivations=none, data=tmp_path / "missing.npy")


def test_a_path_in_a_checkpoint_is_not_followed(tmp_path: Path) -> None:
    result = crosscheck(saved(tmp_path, data=str(tmp_path / "secret.npy")), derivations={})
    assert result.held_out is None
    assert {row.where for row in result.rows} == {"random latents"}
