"""Folders in the Hub's layout: models come back, others can read them, damage is said."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from kahler_verify.errors import CheckpointError
from kahler_verify.models import (
    ComplexVAE,
    RealVAE,
    RealVAEConfig,
    VAEConfig,
    from_pretrained,
    save_pretrained,
)

CONFIGS = {
    "real": RealVAEConfig(data="x", data_dim=4, latent_dim=2, hidden=(5,), seed=3),
    "counts": RealVAEConfig(
        data="x", data_dim=4, latent_dim=2, hidden=(5,), seed=3, likelihood="poisson"
    ),
    "complex": VAEConfig(data="x", data_dim=4, latent_dim=2, hidden=(5,), seed=3),
}


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> ComplexVAE | RealVAE:
    return CONFIGS[request.param].build()


def test_models_come_back(model: ComplexVAE | RealVAE, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "model"
    save_pretrained(folder, model, report={"elbo": -1.5})
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    found = from_pretrained(folder)
    assert type(found.model) is type(model)
    assert found.config == model.config
    assert found.report == {"elbo": -1.5}
    assert not found.model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor)
    save_pretrained(folder, found.model.double())
    assert from_pretrained(folder).model.decoder.scale.dtype == torch.float64


def test_others_read_them_without_this_package(tmp_path: Path) -> None:
    """By plain safetensors and JSON, and by the documented names."""
    model = CONFIGS["real"].build()
    save_pretrained(tmp_path, model)
    tensors = load_file(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as opened:
        assert opened.metadata()["format"] == "pt"
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "kahler_verify.real_vae"
    assert config["architectures"] == ["RealVAE"]
    assert config["config"]["latent_dim"] == 2
    z = torch.randn(3, 2)
    h = torch.tanh(z @ tensors["decoder.layers.0.weight"].mT + tensors["decoder.layers.0.bias"])
    if CONFIGS["real"].activation != "tanh":
        h = model.decoder.layers(z)
    mean = h @ tensors["decoder.head.weight"].mT + tensors["decoder.head.bias"]
    mean = tensors["decoder.location"] + tensors["decoder.scale"] * mean
    torch.testing.assert_close(mean, model.decoder.mean(z))


def broken(folder: Path, name: str, text: str | None) -> None:
    path = folder / name
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


DAMAGE = {
    "no config": ("config.json", None, "expected a configuration as JSON"),
    "no json": ("config.json", "{", "expected a configuration as JSON"),
    "no object": ("config.json", "[1]", "expected a JSON object, got list"),
    "no version": ("config.json", "{}", "expected version 1"),
    "no weights": ("model.safetensors", None, "expected a checkpoint at"),
    "no safetensors": ("model.safetensors", "PK\x03\x04 pickled", "pickle or a torch.save"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_said(name: str, tmp_path: Path) -> None:
    save_pretrained(tmp_path, CONFIGS["real"].build())
    file, text, message = DAMAGE[name]
    broken(tmp_path, file, text)
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(tmp_path)


def test_other_models_and_sizes_are_refused(tmp_path: Path) -> None:
    save_pretrained(tmp_path, CONFIGS["real"].build())
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key, value, message in (
        ("model_type", "bert", "its configuration is not valid|model_type of this package"),
        ("config", config["config"] | {"latent_dim": 3}, "expected .* to have shape"),
        ("config", config["config"] | {"latent_dim": -1}, "its configuration is not valid"),
        ("config", config["config"] | {"extra": 1}, "its configuration is not valid"),
    ):
        path.write_text(json.dumps(config | {key: value}))
        with pytest.raises(CheckpointError, match=message):
            from_pretrained(tmp_path)


def test_what_would_not_come_back_is_not_written(tmp_path: Path) -> None:
    model = CONFIGS["real"].build()
    with pytest.raises(CheckpointError, match="expected a report"):
        save_pretrained(tmp_path / "a", model, report={"x": float("nan")})
    model.decoder.layers[1] = torch.nn.ELU(2.0)
    with pytest.raises(CheckpointError, match="expected the model that its configuration makes"):
        save_pretrained(tmp_path / "b", model)
    assert not list(tmp_path.iterdir())
