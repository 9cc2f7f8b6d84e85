"""Diagnoses of metrics whose geometry is known."""

import json

import pytest
import torch

from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric, PotentialMetric, diagnose

Z = torch.randn(5, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))


def _values(diagnosis, name: str) -> torch.Tensor:
    return next(q.values for q in diagnosis.quantities if q.name == name)


def test_fubini_study_is_kahler_and_evenly_curved() -> None:
    diagnosis = diagnose(PotentialMetric("fubini_study"), Z)
    assert _values(diagnosis, "closedness defect").max() < 1e-12
    assert _values(diagnosis, "complementary part").max() == 0
    torch.testing.assert_close(_values(diagnosis, "identifiability"), torch.ones(5).double())
    torch.testing.assert_close(
        _values(diagnosis, "scalar curvature"), torch.full((5,), 6.0).double()
    )
    sectional = _values(diagnosis, "holomorphic sectional curvature")
    torch.testing.assert_close(sectional, torch.full((5,), 2.0).double())
    assert _values(diagnosis, "log volume gap").abs().max() < 1e-12
    torch.testing.assert_close(
        _values(diagnosis, "real condition number"), _values(diagnosis, "condition number")
    )


def test_the_real_part_has_one_real_direction_only() -> None:
    metric = FisherMetric(lambda z: (z.real.to(z.dtype), torch.zeros_like(z.real)))
    diagnosis = diagnose(metric, Z[:, :1], curvature=False)
    torch.testing.assert_close(_values(diagnosis, "complementary part"), torch.ones(5).double())
    assert _values(diagnosis, "identifiability").abs().max() < 1e-12
    assert torch.isneginf(_values(diagnosis, "log volume gap")).all()
    assert _values(diagnosis, "real condition number").min() > 1e12
    written = diagnosis.to_json()["quantities"]["log volume gap"]
    assert written["minimum"] is None  # JSON has no infinities
    json.dumps(written, allow_nan=False)


def test_the_defect_does_not_depend_on_units() -> None:
    def decoder(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = torch.stack([z[..., 0] * z[..., 1].conj(), z[..., 1]], -1)
        return mean, torch.zeros_like(mean.real)

    def rescaled(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return decoder(z * torch.tensor([10.0, 0.1], dtype=torch.float64).to(z))

    scale = torch.tensor([10.0, 0.1], dtype=torch.float64)
    one = _values(diagnose(FisherMetric(decoder), Z, curvature=False), "closedness defect")
    two = _values(diagnose(FisherMetric(rescaled), Z / scale, curvature=False), "closedness defect")
    assert one.min() > 1e-3
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_a_decoder_of_ones_own_in_training_leaves_no_graph() -> None:
    layer = torch.nn.Linear(4, 6, dtype=torch.float64)

    def decoder(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = layer(torch.cat([z.real, z.imag.sin()], -1)).tanh().chunk(2, -1)
        return mean, log_variance

    diagnosis = diagnose(FisherMetric(decoder), Z)
    assert not any(q.values.requires_grad for q in diagnosis.quantities)
    assert _values(diagnosis, "scalar curvature").abs().max() > 0


def test_json_and_bad_points() -> None:
    data = diagnose(PotentialMetric("flat"), Z).to_json()
    assert data["points"] == 5
    assert data["quantities"]["condition number"]["median"] == 1
    for bad in (Z[0], Z[:0]):
        with pytest.raises(InputError, match="points"):
            diagnose(PotentialMetric("flat"), bad)
