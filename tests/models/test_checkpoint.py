"""Checkpoints: what is written is read back, and nothing else is."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kahler_verify.errors import CheckpointError
from kahler_verify.models.checkpoint import FORMAT, VERSION, load_checkpoint, save_checkpoint
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.decoder import Residual

CONFIG = VAEConfig(data_dim=6, latent_dim=2, hidden=(5, 4), seed=3)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, ComplexVAE(CONFIG), report={"test_elbo": 1.5})
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"covariance": "constant"},
        {"decoder": "modulus"},
        {"decoder": "split", "likelihood": "real"},
    ],
)
def test_round_trip(changes, dtype, tmp_path):
    config = VAEConfig.from_dict({**CONFIG.to_dict(), "activation": "", **changes})
    model = ComplexVAE(config).to(dtype)
    save_checkpoint(tmp_path / "model", model, report={"seconds": 2})
    loaded = load_checkpoint(tmp_path / "model")
    assert loaded.config == config
    assert loaded.report == {"seconds": 2}
    assert not loaded.model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    z = torch.zeros(1, 2, dtype=dtype.to_complex())
    loaded.model.decoder(z).log_prob(model.decoder(z).mean).sum().backward()
    assert loaded.model.decoder.mean_head.weight_pairs.requires_grad


def test_nothing_else_stays_in_the_folder(path):
    save_checkpoint(path, ComplexVAE(CONFIG))
    assert list(path.parent.iterdir()) == [path]


def _metadata(**changes):
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": json.dumps(CONFIG.to_dict()),
        "report": "{}",
        **changes,
    }
    return {key: value for key, value in metadata.items() if value is not None}


def _config(**changes):
    return {"config": json.dumps({**CONFIG.to_dict(), **changes})}


class _Exploit:
    def __reduce__(self):
        return (os.mkdir, ("it-ran",))


HEAD = "decoder.mean_head.weight_pairs"
# Each breaks a good file: (change of the tensors, change of the metadata, what the error says).
TENSOR_FAULTS = {
    "missing": (lambda t: t.pop(HEAD), {}, "missing: 'decoder.mean_head.weight_pairs'"),
    "extra": (lambda t: t.update(extra=torch.ones(1)), {}, "unknown: 'extra'"),
    "shape": (lambda t: t.update({HEAD: torch.ones(6, 3, 2)}), {}, r"shape \(6, 4, 2\)"),
    "nan": (lambda t: t[HEAD].view(-1)[:3].fill_(torch.nan), {}, "3 of 48 entries"),
    "infinite": (lambda t: t[HEAD].view(-1)[:1].fill_(torch.inf), {}, "NaN or infinite"),
    "integers": (lambda t: t.update({HEAD: t[HEAD].long()}), {}, "float32"),
    "mixed": (lambda t: t.update({HEAD: t[HEAD].double()}), {}, "float32"),
    "half": (lambda t: t.update({k: v.half() for k, v in t.items()}), {}, "float32"),
    "scale": (lambda t: t["decoder.scale"].fill_(0.0), {}, "positive"),
    "format": (None, {"format": "other"}, "expected the format 'kahler_verify.complex_vae'"),
    "no format": (None, {"format": None}, "but got None"),
    "version": (None, {"version": "2"}, "expected version 1"),
    "no config": (None, {"config": None}, "'config' in its metadata"),
    "not JSON": (None, {"config": "{"}, "to be JSON"),
    "deep JSON": (None, {"config": "[" * 100_000}, "to be JSON"),
    "not an object": (None, {"config": "[1]"}, "a JSON object"),
    "no report": (None, {"report": None}, "'report' in its metadata"),
    "field missing": (None, {"config": json.dumps({"seed": 0})}, "missing:"),
    "field unknown": (None, _config(more=1), r"unknown: \['more'\]"),
    "field type": (None, _config(latent_dim="2"), "latent_dim"),
    "list for a string": (None, _config(decoder=["holomorphic"]), "decoder"),
    "hidden not a list": (None, _config(hidden=5), "hidden"),
    "activation": (None, _config(activation="sqrt"), "branch cuts"),
    "other widths": (None, _config(hidden=[5, 3]), "to have shape"),
    "huge": (None, _config(hidden=[1 << 20, 1 << 20]), "to have shape"),
    "other decoder": (None, _config(covariance="constant"), "constant_log_variance"),
}


@pytest.mark.parametrize("case", TENSOR_FAULTS)
def test_faulty_contents(case, path):
    change, metadata, message = TENSOR_FAULTS[case]
    tensors = load_file(path)
    if change is not None:
        change(tensors)
    save_file(tensors, path, metadata=_metadata(**metadata))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def _torch_save(path: Path) -> None:
    torch.save({"weights": torch.ones(3)}, path)


FILE_FAULTS = {
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "text": (lambda path: path.write_text("a checkpoint, honestly"), "header is not one"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "truncated"),
    "cut header": (lambda path: path.write_bytes(path.read_bytes()[:200]), "truncated to 200"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "damaged"),
    "garbled header": (
        lambda path: path.write_bytes(path.read_bytes()[:9] + b"\xff" + path.read_bytes()[10:]),
        "damaged",
    ),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(_Exploit())), "pickle"),
    "torch.save": (_torch_save, "pickle"),
    "huge header": (lambda path: path.write_bytes(b"\xff" * 7 + b"\x00{}"), "header is not one"),
    "missing": (lambda path: path.unlink(), "is not there"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "is not a file"),
}


@pytest.mark.parametrize("case", FILE_FAULTS)
def test_faulty_files(case, path, monkeypatch):
    monkeypatch.chdir(path.parent)
    change, message = FILE_FAULTS[case]
    change(path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
    assert not Path("it-ran").exists()


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_bad_weights_are_not_written(tmp_path):
    model = ComplexVAE(CONFIG)
    with torch.no_grad():
        model.decoder.mean_head.weight_pairs[0, 0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="1 of 48 entries"):
        save_checkpoint(tmp_path / "model", model)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "model", ComplexVAE(CONFIG))


def _tied(model: ComplexVAE) -> None:
    model.decoder.layers[0].bias_pairs = model.decoder.log_variance_head.bias_pairs


def _flat(model: ComplexVAE) -> None:
    """All weights in one buffer, as optimisers and data-parallel training lay them out."""
    parameters = list(model.parameters())
    buffer = torch.cat([p.detach().flatten() for p in parameters])
    start = 0
    for p in parameters:
        p.data = buffer[start : start + p.numel()].view(p.shape)
        start += p.numel()


def _non_contiguous(model: ComplexVAE) -> None:
    for p in model.parameters():
        p.data = p.data.transpose(0, -1).contiguous().transpose(0, -1)


@pytest.mark.parametrize("change", [_flat, _non_contiguous])
def test_layout_of_weights_does_not_matter(change, tmp_path):
    model = ComplexVAE(CONFIG)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(model)
    save_checkpoint(tmp_path / "model", model)
    loaded = load_checkpoint(tmp_path / "model").model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in before.items())


def _half(model: ComplexVAE) -> None:
    model.to(torch.bfloat16)


def _mixed(model: ComplexVAE) -> None:
    model.decoder.mean_head.double()


def _residual(model: ComplexVAE) -> None:
    model.decoder.layers[1] = Residual(model.decoder.layers[1])


def _residual_of_weights(model: ComplexVAE) -> None:
    model.decoder.layers[0] = Residual(model.decoder.layers[0])


def _hook(model: ComplexVAE) -> None:
    model.decoder.layers[0].register_forward_hook(lambda module, given, out: out * 2)


def _patched(model: ComplexVAE) -> None:
    model.decoder.layers[0].forward = lambda z: z


def _parametrised(model: ComplexVAE) -> None:
    torch.nn.utils.parametrizations.weight_norm(model.decoder.layers[0], "weight_pairs")


def _shared_module(model: ComplexVAE) -> None:
    model.encoder = ComplexVAE(CONFIG).encoder
    model.decoder.mean_head.weight_pairs.data = model.decoder.log_variance_head.weight_pairs.data


def _infinite(model: ComplexVAE) -> None:
    model.decoder.mean_head.bias_pairs.data[0] = torch.inf


def _on_meta(model: ComplexVAE) -> None:
    model.to("meta")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_tied, "to have shape|share theirs"),
        (_half, "float32"),
        (_mixed, "all float32 or all float64"),
        (_residual, "Residual"),
        (_residual_of_weights, "Residual"),
        (_hook, "with hooks"),
        (_patched, "forward of its own"),
        (_parametrised, "ParametrizedComplexLinear|Parametrized"),
        (_shared_module, "share theirs"),
        (_infinite, "infinite"),
        (_on_meta, "meta"),
    ],
)
def test_what_would_not_come_back_is_refused(change, message, tmp_path):
    model = ComplexVAE(CONFIG)
    change(model)
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(tmp_path / "model", model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("report", [{"elbo": float("nan")}, {"x": {1, 2}}, {(1, 2): 3}])
def test_a_report_that_is_no_json_is_refused(report, tmp_path):
    with pytest.raises(CheckpointError, match="a report of finite numbers"):
        save_checkpoint(tmp_path / "model", ComplexVAE(CONFIG), report=report)
    assert not list(tmp_path.iterdir())


def test_a_header_whose_length_looks_like_a_pickle(tmp_path):
    """Its first byte is the length modulo 256, which is 0x80 for one file in thirty-two."""
    for padding in range(256):
        save_checkpoint(tmp_path / "model", ComplexVAE(CONFIG), report={"note": "x" * padding})
        if (tmp_path / "model").read_bytes()[:1] == b"\x80":
            break
    else:
        raise AssertionError("no padding gave such a header")
    assert load_checkpoint(tmp_path / "model").config == CONFIG
