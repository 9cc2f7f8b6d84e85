"""What is logged of a decoder's geometry in training, and that training does not feel it."""

import importlib.util
import math
import sys
import types

import pytest
import torch
from torch import nn

from benchmarks.peoples_models import AutoencoderKL
from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric, diagnose
from kahler_verify.guests import GeometryLog, lightning_callback
from kahler_verify.models import ComplexVAE, VAEConfig

D = torch.float64
INSTALLED = importlib.util.find_spec("lightning") is not None


def decoder() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(0.5), nn.Linear(12, 6)
    return nn.Sequential(nn.Linear(3, 12), *layers).to(D)


def points(n: int = 4, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, dtype=D, generator=torch.Generator().manual_seed(1))


def test_medians_are_those_of_a_diagnosis_in_evaluation_mode() -> None:
    net, z = decoder(), points()
    net.train()
    net[3].eval()  # some user's own choice
    log = GeometryLog(net, z, curvature=True)
    found = log.measure()
    assert [layer.training for layer in net] == [True, True, True, False, True]
    expected = diagnose(FisherMetric(net.eval()).on_real_latents, z)
    names = {"log volume", "condition number", "scalar curvature", "drift"}
    assert {f"geometry/{name}" for name in names} < set(found)
    for q in expected.quantities:
        assert found[f"geometry/{q.name}"] == pytest.approx(q.summary()["median"])
    assert found["geometry/degenerate"] == 0


def test_the_present_weights_are_measured_every_so_many_steps() -> None:
    net, z, written = decoder(), points(), []
    log = GeometryLog(net, z, every=2, write=lambda found, step: written.append((step, found)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001)
    for step in range(4):
        net(points(8)).square().sum().backward()
        before = [p.grad.clone() for p in net.parameters()]
        out = log(step)
        assert (out is None) == bool(step % 2)
        assert all(torch.equal(a, p.grad) for a, p in zip(before, net.parameters(), strict=True))
        optimizer.step()
        optimizer.zero_grad()
    assert [step for step, _ in written] == [0, 2]
    first, second = (found["geometry/log volume"] for _, found in written)
    assert first != second
    expected = diagnose(FisherMetric(net.eval()).on_real_latents, z, curvature=False)
    assert log(4)["geometry/log volume"] == pytest.approx(
        next(q.summary()["median"] for q in expected.quantities if q.name == "log volume")
    )


def test_training_goes_the_same_with_and_without_a_look() -> None:
    losses = []
    for look in (False, True):
        net = decoder().train()
        log = GeometryLog(net, points(), every=1)
        torch.manual_seed(5)
        for step in range(3):
            loss = net(points(8)).square().sum()
            loss.backward()
            if look:
                log(step)
            with torch.no_grad():
                for p in net.parameters():
                    p.sub_(0.01 * p.grad)
                    p.grad = None
        losses.append((loss.item(), net[1].running_mean.clone()))
    assert losses[0][0] == losses[1][0]
    assert torch.equal(losses[0][1], losses[1][1])


def test_closedness_at_complex_latents() -> None:
    model = ComplexVAE(VAEConfig(data="x", data_dim=4, latent_dim=2, hidden=(5,), seed=3)).double()
    z = torch.randn(3, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    found = GeometryLog(model.decoder, z).measure()
    assert "geometry/closedness defect" in found
    assert math.isfinite(found["geometry/log det g"])


def test_large_latents_by_their_spectrum() -> None:
    model = AutoencoderKL(8, 2, sample_size=8).double()
    log = GeometryLog(model, torch.randn(2, 4, 4, 4, dtype=D))
    found = log.measure()
    assert found["geometry/effective dimension"] > 1
    with pytest.raises(InputError, match="at most 32"):
        GeometryLog(model, torch.randn(2, 4, 4, 4, dtype=D), curvature=True)


def test_a_degenerate_metric_does_not_end_a_training() -> None:
    found = GeometryLog(nn.Linear(3, 2).to(D), points()).measure()
    assert found["geometry/degenerate"] == 1
    assert math.isnan(found["geometry/log volume"])


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="every: expected"):
        GeometryLog(decoder(), points(), every=0)
    with pytest.raises(InputError, match="z: expected points"):
        GeometryLog(decoder(), points()[0])


class Trainer:
    global_step = 4


class Module:
    def __init__(self) -> None:
        self.logged: list[dict] = []

    def log_dict(self, found: dict) -> None:
        self.logged.append(found)


def test_lightning_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Lightning's interface, which a stand-in has where the library is not installed."""
    if not INSTALLED:
        monkeypatch.setitem(sys.modules, "lightning", types.ModuleType("lightning"))
        stand_in = types.ModuleType("lightning.pytorch")
        stand_in.Callback = type("Callback", (), {})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lightning.pytorch", stand_in)
    from lightning.pytorch import Callback

    module, callback = Module(), lightning_callback(GeometryLog(decoder(), points(), every=4))
    assert isinstance(callback, Callback)
    callback.on_train_batch_end(Trainer(), module, None, None, 0)
    assert math.isfinite(module.logged[0]["geometry/log volume"])
    Trainer.global_step = 5
    callback.on_train_batch_end(Trainer(), module, None, None, 1)
    assert len(module.logged) == 1


@pytest.mark.skipif(INSTALLED, reason="lightning is installed")
def test_without_lightning_it_is_said() -> None:
    with pytest.raises(InputError, match="lightning: expected it to be installed"):
        lightning_callback(GeometryLog(decoder(), points()))


@pytest.mark.skipif(not INSTALLED, reason="lightning is not installed")
def test_under_lightnings_own_trainer(tmp_path) -> None:
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader, TensorDataset

    class Lit(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder().float()

        def training_step(self, batch, index):
            return self.decoder(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    model = Lit()
    log = GeometryLog(model.decoder, points().float(), every=2)
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = pl.Trainer(
        max_steps=4,
        callbacks=[lightning_callback(log)],
        default_root_dir=tmp_path,
        accelerator="cpu",
        **options,
    )
    trainer.fit(model, DataLoader(TensorDataset(points(32).float()), batch_size=8))
    assert math.isfinite(float(trainer.callback_metrics["geometry/log volume"]))
    assert FisherMetric(model.eval()).metric_matrix(points().float()).shape == (4, 3, 3)
