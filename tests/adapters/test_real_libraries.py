"""The adapters against the libraries themselves, where these are installed.

Run by hand, as CONTRIBUTING.md says, with diffusers 0.42.1, pythae 0.1.2 and lightning 2.6.6.
"""

import importlib.util

import pytest
import torch
from torch import nn
from torch.func import jacrev

from benchmarks.peoples_models import AutoencoderKL as looks_alike
from kahler_verify import FisherMetric
from kahler_verify.errors import InputError


def installed(name: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed")


def close(g: torch.Tensor, J: torch.Tensor, weight: torch.Tensor | None = None) -> None:
    weighted = J if weight is None else weight[:, None] * J
    truth = J.mT @ weighted
    assert (g - truth).abs().max() <= 1e-5 * truth.abs().max()


def number(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@installed("diffusers")
def test_diffusers() -> None:
    from diffusers import AutoencoderKL, AutoencoderTiny, VQModel

    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        latent_channels=4,
        sample_size=16,
    ).eval()
    ours = looks_alike(channels=(32, 64), groups=32, sample_size=16)  # of what is measured
    assert number(ours.decoder) == number(model.decoder)
    z = torch.randn(4, 8, 8)
    metric = FisherMetric(model)
    J = jacrev(lambda z: model.decode(z[None]).sample.flatten())(z).flatten(1)
    close(metric.metric_matrix(z), J)
    assert "autograd" not in repr(metric.on_real_latents)
    top = metric.operator(z, method="matrix-free").top(5)
    values = torch.linalg.eigvalsh(metric.metric_matrix(z)).flip(0)[:5]
    torch.testing.assert_close(top.values.float(), values, rtol=1e-3, atol=0)
    low = FisherMetric(model.bfloat16())
    assert "bfloat16" in repr(low)
    assert low.metric_matrix(z).dtype == torch.float32
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(32, 32),
        decoder_block_out_channels=(32, 32),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()
    z = torch.randn(4, 4, 4)
    J = jacrev(lambda z: tiny.decode(z[None]).sample.flatten())(z).flatten(1)
    close(FisherMetric(tiny, latent_shape=(4, 4, 4)).metric_matrix(z), J)
    with pytest.raises(InputError, match="VQModel rounds its latents"):
        FisherMetric(VQModel())


@installed("pythae")
@pytest.mark.parametrize("loss", ["mse", "bce"])
@pytest.mark.parametrize("name", ["VAE", "BetaVAE", "IWAE"])
def test_pythae(name: str, loss: str) -> None:
    import pythae.models as theirs

    config = getattr(theirs, f"{name}Config")(
        input_dim=(1, 8, 8), latent_dim=5, reconstruction_loss=loss
    )
    model = getattr(theirs, name)(config).eval()
    z, metric = torch.randn(5), FisherMetric(model)

    def mean(z: torch.Tensor) -> torch.Tensor:
        return model.decoder(z[None]).reconstruction.flatten()

    p = mean(z)
    close(metric.metric_matrix(z), jacrev(mean)(z), 1 / (p * (1 - p)) if loss == "bce" else None)


@installed("lightning")
def test_lightning() -> None:
    import lightning.pytorch as pl

    class Lit(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(6, 3)
            self.decoder = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 6))

    model, z = Lit(), torch.randn(3)
    metric = FisherMetric(model)
    assert "Lit.decoder" in repr(metric)
    close(metric.metric_matrix(z), jacrev(lambda z: model.decoder(z[None])[0])(z))
