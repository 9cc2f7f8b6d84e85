"""The convolutional models of S4: kept, read again, and measured by the mean's own derivatives."""

from pathlib import Path

import pytest
import torch
from torch.func import jacrev, vmap

from experiments.generators.measures import Mean, metrics
from experiments.rgdgm import convolutional
from kahler_verify.models import load_data


def test_a_model_is_trained_once_and_its_metric_is_that_of_its_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data("digits-images", 0)
    model = convolutional.model_of(tmp_path, data, 0, epochs=1)
    monkeypatch.setattr(convolutional, "minimised", None)
    again = convolutional.model_of(tmp_path, data, 0, epochs=1)
    z = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.decoder.mean(z), again.decoder.mean(z))
    mean = Mean(again.decoder)
    slopes = vmap(jacrev(lambda each: mean(each[None])[0]))(z)
    found = metrics(again)["mean"].metric_matrix(z)
    torch.testing.assert_close(found, slopes.mT @ slopes, rtol=1e-10, atol=0)
    assert bool(
        (metrics(again)["expected"].log_volume(z) > metrics(again)["mean"].log_volume(z)).all()
    )
