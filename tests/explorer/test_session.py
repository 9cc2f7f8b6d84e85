"""What the explorer computes, against the engine's own calls."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kahler_verify.curves import Curve, Status, transport
from kahler_verify.errors import CurveError, InputError
from kahler_verify.explorer import clusters
from kahler_verify.explorer.arrows import ball, exponential
from kahler_verify.explorer.reading import plane as read_plane
from kahler_verify.explorer.session import Session
from kahler_verify.explorer.subject import Subject, of_metric, of_model, shaped
from kahler_verify.explorer.work import Cancelled, Job
from kahler_verify.geometry import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.models import ComplexVAE, VAEConfig
from kahler_verify.plots.maps import colour_range
from tests.explorer.conftest import asked, tensor
from tests.manifolds import SPHERE, network

pytestmark = pytest.mark.xdist_group("explorer")  # one worker makes what the tests share

WINDOW = [-2.0, 2.0, -2.0, 2.0]


def result(session: Session, kind: str, /, **body: Any) -> Any:
    job = asked(session, kind, **body)
    if isinstance(job.outcome, BaseException):
        raise job.outcome
    json.dumps(job.outcome, allow_nan=False)  # whatever it is, a page can be sent it
    return job.outcome


@pytest.fixture(scope="module")
def ends(session: Session) -> tuple[list[float], list[float]]:
    codes = session.subject.codes
    assert codes is not None
    return codes[0].tolist(), codes[7].tolist()


def test_it_describes_the_subject(session: Session) -> None:
    about = session.describe()
    json.dumps(about, allow_nan=False)
    assert about["dimension"] == 2
    assert len(about["codes"]) == len(about["labels"]) == 180
    assert set(about["layers"]) == {"log_volume", "condition", "scalar_curvature"}
    axes = np.array(about["bases"][1]["axes"])
    assert np.allclose(axes @ axes.T, np.eye(2))


@pytest.mark.parametrize("layer", ["log_volume", "condition", "scalar_curvature"])
def test_a_map_has_the_layers_values(session: Session, plane: dict, layer: str) -> None:
    job = asked(session, "map", layer=layer, plane=plane, window=WINDOW, size=25)
    fine, coarse = job.outcome, job.news[0]
    assert (coarse["size"], fine["size"]) == (21, 25)
    at = tensor([[-2.0 + 4 * 5 / 24, -2.0 + 4 * 17 / 24]])  # column 5, row 17
    metric = session.subject.metric
    g = metric.metric_matrix(at)[0]
    known = {
        "log_volume": metric.log_volume(at),
        "condition": torch.linalg.cond(g).log10(),
        "scalar_curvature": metric.scalar_curvature(at),
    }[layer]
    assert np.isclose(fine["values"][17 * 25 + 5], float(known), rtol=1e-4)
    g = metric.metric_matrix(tensor([[-1.0, 0.4]]))[0]
    shown = np.array(fine["metric"]).reshape(21, 21, 3)[12, 5]
    assert abs(float(g[0, 1])) > 1e-2 * float(g[0, 0])
    assert np.allclose(shown, [g[0, 0], g[0, 1], g[1, 1]], rtol=1e-4)


def test_a_metric_on_a_plane_measures_its_vectors() -> None:
    where = read_plane({"origin": [0, 0, 0], "axes": [[1, 2, 0], [0, 1, -1]]}, 3)
    g, w = torch.diag(tensor([1.0, 10.0, 100.0])), tensor([0.3, -2.0])
    v = where.at(w[None])[0] - where.origin
    assert torch.isclose(w @ where.pulled_back(g[None])[0] @ w, v @ g @ v)


def test_a_path_is_the_engines_geodesic(session: Session, ends: tuple) -> None:
    a, b = ends
    job = asked(session, "path", a=a, b=b)
    known = session.subject.metric.geodesic(tensor(a), tensor(b))
    found = job.outcome
    assert [news["stage"] for news in job.news] == ["rough", "exact"]
    assert found["status"] == "MINIMUM"
    assert np.isclose(found["length"], float(known.length), rtol=1e-7)
    assert abs(job.news[0]["length"] / found["length"] - 1) < 1e-3
    line = Curve.through(
        session.subject.metric, lambda t: tensor(a) + t[:, None] * (tensor(b) - tensor(a))
    )
    assert np.isclose(found["line"]["length"], float(line.length), rtol=1e-9)
    assert found["bounds"]["lower"] <= found["length"] * (1 + 1e-9)
    assert found["bounds"]["upper"] >= found["length"] * (1 - 1e-9)
    assert np.allclose([found["points"][0], found["points"][-1]], [a, b])
    assert found["frames"]["shape"] == [8, 8]
    assert len(found["frames"]["frames"]) == 9


def test_bounds_are_proved_where_layers_are_known() -> None:
    session = Session(of_metric(PulledBackMetric(network()), "tanh", (2,)))
    found = result(session, "path", a=[0.5, 0.1], b=[-0.4, 0.3])
    assert found["bounds"]["proved"]
    assert 0 < found["bounds"]["lower"] <= found["length"] <= found["bounds"]["upper"]


def test_a_moving_path_follows_the_last(session: Session, ends: tuple) -> None:
    a, b = ends
    asked(session, "path", a=a, b=b)
    for step in range(1, 4):
        near = [b[0] + 0.05 * step, b[1]]
        found = result(session, "path", a=a, b=near, moving=True)
        known = session.subject.metric.distance(tensor(a), tensor(near))
        assert found["moving"]
        assert abs(found["length"] / float(known) - 1) < 2e-3


def test_a_lower_bound_is_one(session: Session, ends: tuple) -> None:
    a, b = ends
    found = result(session, "tighten", a=a, b=b)
    length = float(session.subject.metric.distance(tensor(a), tensor(b)))
    assert 0.5 * length < found["inside"] <= length * (1 + 1e-9)


def test_other_geodesics_are_listed() -> None:
    """Round a hill there are two ways."""

    def hill(z: torch.Tensor) -> torch.Tensor:
        height = 1 + 15 * (-(z**2).sum(-1) / 0.3).exp()
        return height[:, None, None] * torch.eye(2).to(z)

    metric = RiemannianMetric.from_function(hill)
    session = Session(of_metric(metric, "hill", (2,)))
    a, b = [-1.2, 0.05], [1.2, 0.05]
    found = result(session, "path", a=a, b=b)
    assert np.isclose(found["length"], float(metric.distance(tensor(a), tensor(b))), rtol=1e-6)
    assert np.array(found["points"])[48, 1] > 0.3
    minima = [other for other in found["others"] if other["status"] == "MINIMUM"]
    assert len(minima) == 1
    assert np.array(minima[0]["points"])[48, 1] < -0.3
    assert minima[0]["length"] > found["length"] * 1.01


def test_a_ball_on_a_sphere_is_a_cap() -> None:
    plane_ = read_plane({"origin": [0.0, 0.0], "axes": [[1.0, 0.0], [0.0, 1.0]]}, 2)
    sphere, centre = SPHERE, tensor([0.3, -0.2])
    found = ball(sphere, centre, 0.9, plane_)
    assert found["lost"] == 0
    for radius, ring in zip(found["radii"], found["rings"], strict=True):
        away = sphere.distance(centre.expand(12, 2), tensor(ring)[::4])
        assert np.allclose(away, radius, rtol=1e-5)


def test_exp_and_transport_are_the_engines(session: Session, ends: tuple) -> None:
    a, b = ends
    metric, u = session.subject.metric, tensor([0.2, -0.1])
    found = result(session, "exp", a=a, vector=u.tolist())
    assert np.allclose(found["end"], metric.exp(tensor(a), u), atol=1e-3)
    carried = result(session, "transport", a=a, b=b, vector=u.tolist())
    known = transport(metric.geodesic(tensor(a), tensor(b)), u).vector
    assert np.allclose(carried["vectors"][-1], known, atol=1e-5)
    assert np.ptp(carried["norms"]) < 1e-5 * carried["norms"][0]


def test_an_analogy_in_a_flat_space_is_arithmetic() -> None:
    flat = RiemannianMetric.from_function(lambda z: torch.eye(2).to(z).expand(len(z), 2, 2))
    found = result(
        Session(of_metric(flat, "flat", (2,))), "analogy", a=[0, 0], b=[1, 0.5], c=[0, 1]
    )
    assert np.allclose(found["answer"], [1, 1.5], atol=1e-6)
    assert found["arithmetic"] == [1, 1.5]


def test_k_means_tells_how_far_it_is_and_draws_borders(session: Session) -> None:
    job = asked(session, "cluster", kind="kmeans", components=2, window=WINDOW)
    assert not isinstance(job.outcome, BaseException), job.outcome
    found = job.outcome
    assert len(found["centres"]) == 2
    assert set(found["labels"]) == {0, 1}
    assert any("step 1" in news["words"] for news in job.news)
    metric = session.subject.metric
    border = tensor(found["lines"][0]["line"])[5]
    away = metric.distance(border.expand(2, 2), tensor(found["centres"]))
    assert abs(float(away[0] / away[1]) - 1) < 0.1


@pytest.mark.thorough
def test_laws_are_drawn_by_the_mass_that_contours_hold(session: Session) -> None:
    found = result(session, "cluster", kind="land", components=1, window=WINDOW)
    assert {line["level"] for line in found["lines"]} <= set(clusters.MASSES)
    assert np.isfinite(found["likelihood"])


def test_a_fit_of_laws_ends_where_it_is_told_to(session: Session) -> None:
    """It is fitted on a table of its own, which asks as the metric does."""
    asks = iter(range(1_000_000))
    job = Job(lambda job: session.cluster({"kind": "land", "components": 1, "window": WINDOW}, job))
    check = job.check

    def counted() -> None:
        if job.news and next(asks) == 5:  # it has begun, and is far from its first iteration
            job.cancel()
        check()

    job.check = counted  # type: ignore[method-assign]
    job.run()
    assert isinstance(job.outcome, Cancelled)
    assert [news["words"] for news in job.news] == ["first laws of 60 codes"]


def test_work_ends_where_it_is_told_to(session: Session, ends: tuple) -> None:
    asks = iter(range(10_000))
    job = Job(lambda job: session.path({"a": ends[0], "b": ends[1]}, job))
    check = job.check

    def counted() -> None:
        if next(asks) == 5:
            job.cancel()
        check()

    job.check = counted  # type: ignore[method-assign]
    job.run()
    assert isinstance(job.outcome, Cancelled)
    assert next(asks) <= 12


BAD = {
    "layer": ("map", {"layer": "beauty"}, "layer: expected one of log_volume"),
    "defect of real latents": ("map", {"layer": "kahler_defect"}, "layer: expected one of"),
    "window": (
        "map",
        {"layer": "log_volume", "window": [1, 0, 0, 1]},
        "window: expected left < right",
    ),
    "plane": (
        "map",
        {"layer": "log_volume", "plane": {"origin": [0, 0], "axes": [[1, 0], [2, 0]]}},
        "plane: expected two axes",
    ),
    "point": ("path", {"a": [0.0], "b": [0, 1]}, "a: expected 2 coordinates"),
    "number": ("path", {"a": [0, "x"], "b": [0, 1]}, "a: expected finite numbers"),
    "truth": ("path", {"a": [0, True], "b": [0, 1]}, "a: expected finite numbers"),
    "radius": ("ball", {"centre": [0, 0], "radius": -1}, "radius: expected a number"),
    "kind": ("cluster", {"kind": "magic", "components": 2}, "kind: expected one of"),
    "components": ("cluster", {"kind": "kmeans", "components": 99}, "components: expected a whole"),
    "size": ("map", {"layer": "log_volume", "size": 10_000}, "size: expected a whole number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_questions_get_an_error(session: Session, plane: dict, case: str) -> None:
    kind, body, message = BAD[case]
    with pytest.raises(InputError, match=re.escape(message)):
        result(session, kind, **{"plane": plane, "window": WINDOW, **body})


def test_the_python_lines_give_the_same_length(
    session: Session, ends: tuple, plane: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = ends
    monkeypatch.chdir(tmp_path)
    view = {"plane": plane, "window": WINDOW, "layer": "log_volume"}
    lines = result(session, "recipe", tool="path", a=a, b=b, **view)["lines"]
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(lines, "lines", "exec"), {})
    printed = re.search(r"length ([\d.]+)", out.getvalue())
    assert printed is not None
    found = result(session, "path", a=a, b=b)
    assert np.isclose(float(printed[1]), found["length"], rtol=1e-7)
    assert (tmp_path / "latent-plane.png").read_bytes().startswith(b"\x89PNG")


def test_complex_latents_are_looked_at_in_real_coordinates() -> None:
    config = VAEConfig(latent_dim=1, hidden=(4,))
    model = ComplexVAE(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        x = torch.randn(9, 32, dtype=torch.complex64, generator=generator)
        model.standardise(x)
    model = model.double().requires_grad_(False)
    codes = model.encoder(x.to(torch.complex128))[0]
    session = Session(of_model(model, "complex", codes, None))
    about = session.describe()
    assert about["coordinates"] == ["Re z1", "Im z1"]
    assert np.allclose(about["codes"], torch.cat([codes.real, codes.imag], -1))
    plane_ = {"origin": [0.0] * 2, "axes": [[1, 0], [0, 1]]}
    found = result(session, "map", layer="kahler_defect", plane=plane_, window=WINDOW, size=9)
    assert max(found["values"]) < 1e-9  # a holomorphic decoder of one latent is Kähler
    a, b = about["codes"][:2]
    path = result(session, "path", a=a, b=b)
    known = session.subject.metric.distance(tensor(a), tensor(b))
    assert np.isclose(path["length"], float(known), rtol=1e-7)
    assert path["frames"]["shape"] == [8, 8]


def test_a_field_is_a_layer(session: Session, plane: dict) -> None:
    points = torch.cartesian_prod(*[torch.linspace(-1, 1, 21, dtype=torch.float64)] * 2)
    shown = Session(session.subject.with_field(points, points[:, 0] ** 2, "a square"))
    found = result(shown, "map", layer="field", plane=plane, window=WINDOW, size=21)
    values = np.array(found["values"], dtype=float).reshape(21, 21)
    assert np.isnan(values[0, 0])
    assert np.isclose(values[10, 15], 1.0)
    with pytest.raises(InputError, match="field: expected points"):
        session.subject.with_field(points[:, :1], points[:, 0], "")


def test_decoded_numbers_become_pictures_or_profiles() -> None:
    assert shaped(torch.rand(3, 25)).shape == (3, 5, 5)
    assert shaped(torch.randn(3, 25)).shape == (3, 25)
    assert shaped(torch.rand(2, 3, 16, 16)).shape == (2, 16, 16, 3)
    assert shaped(2 * torch.rand(2, 1, 9, 9) - 1).min() >= 0
    subject = Subject("x", SPHERE, 2, decode=lambda z: torch.cat([z, 5 * z], 1))
    found = subject.frames(tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert found is not None
    assert found["high"] == 5.0
    assert found["frames"][0] == [0, 51, 0, 255]
    assert Subject("x", SPHERE, 2).frames(tensor([[0.0, 0.0]])) is None


def test_colours_leave_outliers_out_and_are_centred_where_signed() -> None:
    values = np.append(np.linspace(0, 1, 99), 1e9)
    assert colour_range(values, "linear")[1] < 1
    assert colour_range(-values, "linear")[0] > -1
    low, high = colour_range(np.linspace(-1, 3, 50), "signed")
    assert low == -high
    assert colour_range(np.array([np.nan]), "linear") == (0.0, 1.0)


def test_a_line_of_latents_has_no_plane() -> None:
    line = RiemannianMetric.from_function(lambda z: torch.ones(len(z), 1, 1).to(z))
    with pytest.raises(InputError, match="at least 2 real coordinates"):
        of_metric(line, "line", (1,))


def test_exp_says_when_a_geodesic_does_not_arrive(session: Session) -> None:
    with pytest.raises(InputError, match="vector: the geodesic"):
        exponential(session.subject.metric, tensor([0.0, 0.0]), tensor([1e4, 0.0]))


def test_paths_of_checkpoints_are_literals_in_python_lines(
    checkpoint: Path, session: Session
) -> None:
    lines = result(session, "recipe", tool="path", a=[0, 0], b=[1, 1])["lines"]
    assert repr(str(checkpoint)) in lines


def test_codes_that_no_geodesic_reaches_are_left_out_and_counted() -> None:
    class Fit:
        """As of a mixture that cannot reach codes beyond 1."""

        def fit(self, x: torch.Tensor) -> "Fit":
            far = x[:, 0] > 1
            if bool(far.any()):
                status = torch.where(far, int(Status.LEFT_DOMAIN), int(Status.MINIMUM))
                raise CurveError("not reached", status)
            self.law_ = x
            return self

    x = tensor([[0.0, 0], [2, 0], [0.5, 0], [3, 0]])
    job = Job(lambda job: None)
    law, left_out = clusters._without_unreached(Fit(), x, 2, job)
    assert left_out.tolist() == [False, True, False, True]
    assert law.tolist() == x[[0, 2]].tolist()
    assert "without 2 codes" in job.news[-1]["words"]
    with pytest.raises(CurveError):
        clusters._without_unreached(Fit(), x, 3, job)


def test_a_map_of_many_coordinates_is_as_fine_as_time_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metric = RiemannianMetric.from_function(
        lambda z: torch.diag_embed((1 + z.square().sum(-1, keepdim=True)).expand(-1, 4))
    )
    session = Session(of_metric(metric, "four", (4,)))
    axes = torch.eye(4)[:2].tolist()
    asked_ = {"plane": {"origin": [0.0] * 4, "axes": axes}, "window": WINDOW, "size": 31}
    sizes = {}
    for patience in (1e-9, 1e9):
        monkeypatch.setattr("kahler_verify.explorer.session.PATIENCE", patience)
        sizes[patience] = result(session, "map", layer="log_volume", **asked_)["size"]
    assert sizes == {1e-9: 21, 1e9: 31}
