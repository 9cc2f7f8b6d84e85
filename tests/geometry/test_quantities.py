"""One table of quantities: a row of it is a field, a layer, a map, and a line of a command."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kahler_verify import fields
from kahler_verify.errors import InputError
from kahler_verify.explorer.session import Session
from kahler_verify.explorer.subject import of_metric
from kahler_verify.geometry import RiemannianMetric
from kahler_verify.geometry.quantities import QUANTITIES, Quantity, quantity
from kahler_verify.plots import Plane, plot_field
from kahler_verify.spaces import Space
from tests.manifolds import SPHERE


def test_a_row_more_is_all_that_one_more_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Quantity(
        "trace",
        "Trace",
        lambda metric, z: metric.metric_matrix(z).diagonal(dim1=-2, dim2=-1).sum(-1).real,
        unit="tr g",
        meaning="trace of g in these coordinates",
        scale="log",
    )
    monkeypatch.setitem(QUANTITIES, "trace", trace)  # type: ignore[arg-type]
    source = fields.of_metric(SPHERE, 2)
    place = fields.grid(source.space, [3, 4], [-1], [1])
    plan = fields.plan_for(source, "trace", lambda _: place)
    fields.compute(source, plan, tmp_path / "t.zarr", engine=fields.Array())
    stored = fields.open_field(tmp_path / "t.zarr")
    g = SPHERE.metric_matrix(torch.from_numpy(stored.points))
    known = (g[:, 0, 0] + g[:, 1, 1]).numpy()
    assert np.allclose(stored.values.ravel(), known)
    assert stored.attributes["long_name"] == trace.meaning

    subject = of_metric(SPHERE, "sphere", (2,))
    about = Session(subject).describe()["layers"]["trace"]
    assert about == {"title": "Trace", "unit": "log₁₀ of tr g", "colours": "cividis"}

    axes = plot_field(SPHERE, "trace", plane=Plane.coordinates(2), resolution=5)
    assert axes.figure.axes[1].get_ylabel() == "Trace (tr g)"


def test_names_are_those_that_users_say() -> None:
    assert all(name == each.name for name, each in QUANTITIES.items())
    with pytest.raises(InputError, match="quantity: expected one of log_volume, det, condition"):
        quantity("volume")
    real = Space(complex=False, dimension=2)
    with pytest.raises(InputError, match="plane: expected 2 vectors with sectional_curvature"):
        quantity("sectional_curvature").require(real)
    with pytest.raises(InputError, match="kahler_defect is defined at complex latents alone"):
        quantity("kahler_defect").require(real)


def test_a_condition_is_infinite_where_degenerate_and_nan_where_unknown() -> None:
    metric = RiemannianMetric.from_function(
        lambda z: torch.diag_embed(torch.stack([z[:, 0].log(), 1 + 0 * z[:, 0]], -1)),
        validate_args=False,
    )
    z = torch.tensor([[4.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    found = quantity("condition").value(metric, z)
    assert torch.isclose(found[0], torch.tensor(4.0, dtype=torch.float64).log())
    assert found[1] == torch.inf
    assert found[2].isnan()
