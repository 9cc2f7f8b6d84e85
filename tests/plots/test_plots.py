"""What is drawn is what the geometry says: data of artists, never pixels."""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from kahler_verify import FisherMetric, RiemannianMetric
from kahler_verify.curves import Curve
from kahler_verify.errors import InputError
from kahler_verify.plots import (
    CLASSES,
    QUANTITIES,
    Plane,
    Quantity,
    plot_codes,
    plot_field,
    plot_frames,
    plot_geodesics,
    plot_indicatrices,
    plot_values,
)
from tests.manifolds import DOUBLE, SPHERE, draw, lift

A, B = torch.tensor([[0.3, -0.2], [-0.8, 0.9]], dtype=DOUBLE)
HALF_PLANE = RiemannianMetric.from_function(
    lambda z: torch.eye(2, dtype=z.dtype) / z[:, 1, None, None] ** 2
)
STRIP = Plane.coordinates(2, extent=(-1.0, 1.0, 0.5, 2.0))


def _decoder(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = torch.stack([z[..., 0], z[..., 1], z[..., 0] * z[..., 1]], -1)
    return mean, (z.real[..., :1] / 2).expand(mean.shape)


COMPLEX = FisherMetric(_decoder)


def _new() -> Axes:
    return Figure().subplots()


def _map(axes: Axes) -> np.ndarray:
    (mesh,) = axes.collections
    return np.asarray(mesh.get_array()).reshape(-1)


# ---------------------------------------------------------------- planes


def test_a_plane_gives_its_points_and_takes_their_shadows() -> None:
    first, second = draw(2, 5, seed=1)
    plane = Plane(draw(5), first, second, (-2, 1, 0, 3), ("a", "b"))
    s, t = draw(2, 7, seed=2)
    z = plane.points(s, t)
    assert torch.allclose(plane.shadow(z), torch.stack([s, t], -1))
    off = draw(5, seed=3)
    basis = torch.stack([first, second], -1)
    off = off - basis @ torch.linalg.pinv(basis) @ off
    assert torch.allclose(plane.shadow(z + off), torch.stack([s, t], -1))
    grid = plane.grid(31)
    assert grid.shape == (31, 31, 5)
    assert torch.allclose(plane.shadow(grid[0, -1]), torch.tensor([1.0, 0.0], dtype=DOUBLE))
    assert torch.allclose(plane.shadow(grid[-1, 0]), torch.tensor([-2.0, 3.0], dtype=DOUBLE))


def test_the_longer_side_has_the_resolution() -> None:
    assert STRIP.grid(41).shape == (31, 41, 2)


def test_the_plane_of_codes_is_that_in_which_they_vary_most() -> None:
    frame = torch.linalg.qr(draw(6, 6, seed=4)).Q
    codes = draw(200, 6) * torch.tensor([0.1, 5, 0.1, 2, 0.1, 0.1], dtype=DOUBLE) @ frame.mT
    plane = Plane.of(codes)
    assert abs(float(plane.first @ frame[:, 1])) > 0.99
    assert abs(float(plane.second @ frame[:, 3])) > 0.99
    left, right, bottom, top = plane.extent
    s, t = plane.shadow(codes).mT
    assert left < s.min()
    assert s.max() < right
    assert bottom < t.min()
    assert t.max() < top
    whole = Plane.of(codes[:, :2])
    assert torch.equal(whole.shadow(codes[:, :2]), codes[:, :2])


def test_complex_codes_and_their_real_coordinates_have_one_shadow() -> None:
    codes = torch.complex(draw(20, 3), draw(20, 3, seed=5))
    for plane in (Plane.of(codes), Plane.complex_coordinate(3, 1)):
        x = torch.cat([codes.real, codes.imag], -1)
        assert torch.equal(plane.shadow(codes), plane.shadow(x))
        assert plane.grid(5).is_complex()
    assert torch.allclose(Plane.complex_coordinate(3, 1).shadow(codes)[:, 1], codes[:, 1].imag)


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("name", ["log_volume", "condition", "scalar_curvature"])
def test_a_map_has_the_metrics_own_values(name: str) -> None:
    axes = plot_field(HALF_PLANE, name, axes=_new(), plane=STRIP, resolution=9)
    y = STRIP.grid(9)[..., 1].flatten()
    closed = {"log_volume": -2 * y.log(), "condition": y**0, "scalar_curvature": -2 * y**0}
    assert np.allclose(_map(axes), closed[name].numpy())
    assert axes.get_xlim() == (-1, 1)
    assert axes.get_ylim() == (0.5, 2)
    bar = axes.figure.axes[1]
    assert QUANTITIES[name].label == bar.get_ylabel()


def test_scales_of_colours() -> None:
    signed = plot_field(HALF_PLANE, "scalar_curvature", plane=STRIP, resolution=5)
    norm = signed.collections[0].norm
    assert (norm.vmin, norm.vmax) == pytest.approx((-2, 2))
    log = plot_field(SPHERE, "condition", resolution=5).collections[0].norm
    assert isinstance(log, LogNorm)
    chosen = plot_field(SPHERE, resolution=5, vmin=0, vmax=3).collections[0].norm
    assert type(chosen) is Normalize
    assert (chosen.vmin, chosen.vmax) == (0, 3)


def test_a_map_at_complex_latents() -> None:
    plane = Plane.complex_coordinate(
        2, 1, origin=torch.tensor([0.3 + 0.1j, 0], dtype=torch.complex128)
    )
    z = plane.grid(5).flatten(0, 1)
    axes = plot_field(COMPLEX, "log_volume", plane=plane, resolution=5)
    assert np.allclose(_map(axes), COMPLEX.log_volume(z).numpy())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Re z₂", "Im z₂")
    axes = plot_field(COMPLEX, "condition", plane=plane, resolution=5)
    eigenvalues = torch.linalg.eigvalsh(COMPLEX.real_metric_matrix(z))
    assert np.allclose(_map(axes), (eigenvalues[:, -1] / eigenvalues[:, 0]).numpy())


def test_the_defect_is_the_same_in_other_coordinates() -> None:
    plane = Plane.complex_coordinate(2, origin=torch.tensor([0, 0.5j], dtype=torch.complex128))
    axes = plot_field(COMPLEX, "kahler_defect", plane=plane, resolution=5)
    turn = torch.linalg.qr(torch.complex(draw(2, 2), draw(2, 2, seed=1))).Q
    scale = 1.7
    turned = FisherMetric(lambda z: _decoder(scale * z @ turn.mT))
    first, second, origin = (
        torch.linalg.solve(scale * turn, x) for x in (plane.first, plane.second, plane.origin)
    )
    same = plot_field(
        turned,
        "kahler_defect",
        plane=replace(plane, origin=origin, first=first, second=second),
        resolution=5,
    )
    assert _map(axes).max() > 0.1
    assert np.allclose(_map(axes), _map(same))


def test_a_real_decoder_through_the_common_name() -> None:
    def decoder(z: torch.Tensor) -> torch.Tensor:
        return lift(z)

    axes = plot_field(FisherMetric(decoder), plane=Plane.coordinates(2), resolution=5)
    grid = Plane.coordinates(2).grid(5).flatten(0, 1)
    assert np.allclose(_map(axes), SPHERE.log_volume(grid).numpy())


def test_where_nothing_is_defined_the_map_is_grey() -> None:
    axes = plot_field(
        HALF_PLANE, lambda z: z[:, 1].log(), plane=Plane.coordinates(2, extent=1), resolution=5
    )
    values = axes.collections[0].get_array()
    assert values.mask.sum() == 15
    assert axes.collections[0].get_array().shape == (5, 5)


def test_a_condition_is_grey_where_the_metric_is_not_known() -> None:
    """LAPACK refuses a whole batch for one matrix of NaN, from three coordinates on."""
    metric = RiemannianMetric.from_function(
        lambda z: torch.diag_embed(
            torch.stack([z[:, 1].log(), 1 + z[:, 0] ** 2, 0 * z[:, 2] + 1], -1)
        )
    )
    axes = plot_field(metric, "condition", plane=Plane.coordinates(3, extent=2), resolution=5)
    values = np.ma.masked_invalid(axes.collections[0].get_array()).reshape(5, 5)
    assert values.mask[:4].all()  # the logarithm is NaN, -inf, or 0
    assert np.allclose(values[4], np.array([5, 2, 1, 2, 5]) / math.log(2))


def test_a_quantity_of_ones_own() -> None:
    drawn = Quantity(
        "first", "g₁₁", lambda metric, z: metric.metric_matrix(z)[:, 0, 0], scale="log"
    )
    axes = plot_field(HALF_PLANE, drawn, plane=STRIP, resolution=5, legend=False, cmap="magma")
    assert np.allclose(_map(axes), (STRIP.grid(5)[..., 1].flatten() ** -2).numpy())
    assert axes.collections[0].get_cmap().name == "magma"
    assert len(axes.figure.axes) == 1


# ---------------------------------------------------------------- unit balls


@pytest.mark.parametrize("radius", [1.0, 0.25])
def test_corners_of_an_indicatrix_are_at_that_distance(radius: float) -> None:
    points = 0.5 * draw(4, 2)
    axes = plot_indicatrices(SPHERE, points, radius=radius)
    paths = axes.collections[0].get_paths()
    assert len(paths) == 4
    for z, path in zip(points, paths, strict=True):
        v = torch.from_numpy(path.vertices[:-1]) - z
        assert torch.allclose(SPHERE.norm(v, z), torch.full((len(v),), radius, dtype=DOUBLE))
    assert axes.get_legend_handles_labels()[1] == [f"|v| = {radius:g} under g"]


def test_an_indicatrix_in_a_plane_of_many_complex_dimensions() -> None:
    first, second = torch.complex(draw(2, 2), draw(2, 2, seed=1))
    plane = Plane(torch.zeros_like(first), first, second)
    z = plane.points(*torch.tensor([[0.3], [0.2]], dtype=DOUBLE))
    (path,) = plot_indicatrices(COMPLEX, z, plane=plane).collections[0].get_paths()
    s, t = (torch.from_numpy(path.vertices[:-1]) - plane.shadow(z)).mT
    v = s[:, None] * first + t[:, None] * second
    x = torch.cat([v.real, v.imag], -1)
    g = COMPLEX.real_metric_matrix(z[0])
    assert torch.allclose(torch.einsum("na,ab,nb->n", x, g, x), torch.ones_like(s))


def test_so_many_indicatrices_lie_inside() -> None:
    axes = plot_indicatrices(HALF_PLANE, 3, plane=STRIP, radius=0.1)
    centres = [path.vertices[:-1].mean(0) for path in axes.collections[0].get_paths()]
    assert len(centres) > 3
    assert all(-1 < s < 1 and 0.5 < t < 2 for s, t in centres)


# ---------------------------------------------------------------- curves


def test_a_curve_is_drawn_where_it_is() -> None:
    path = SPHERE.geodesic(A, B)
    axes = plot_geodesics(path, axes=_new(), label="geodesic", lengths=True, color="black")
    line, ends = axes.lines
    t = torch.linspace(0, 1, len(line.get_xdata()), dtype=DOUBLE)
    assert np.allclose(line.get_xydata(), path(t).numpy())
    assert np.allclose(ends.get_xydata(), torch.stack([A, B]).numpy())
    assert line.get_label() == f"geodesic, length {float(path.length):.4g}"
    assert ends.get_color() == "black"


def test_curves_that_were_not_found_are_left_out_of_a_batch() -> None:
    path = SPHERE.geodesic(torch.stack([A, A]), torch.stack([B, -B]))
    path.nodes[0] = torch.nan
    axes = plot_geodesics(path, label="two", ends=False)
    assert len(axes.lines) == 1
    assert axes.lines[0].get_label() == "two"


def test_the_shadow_of_a_curve_in_a_plane() -> None:
    metric = COMPLEX.riemannian()
    a, b = draw(2, 4, seed=6) / 2
    line = Curve.through(metric, lambda t: a + t[:, None] * (b - a))
    plane = Plane.complex_coordinate(2, 1)
    axes = plot_geodesics(line, plane=plane, ends=False)
    ends = axes.lines[0].get_xydata()[[0, -1]]
    assert np.allclose(ends, torch.stack([a, b])[:, [1, 3]].numpy())
    assert axes.get_xlabel() == "Re z₂"


def test_in_one_dimension_against_time() -> None:
    metric = RiemannianMetric.from_function(lambda z: 1 + z[..., None] ** 2)
    path = metric.geodesic(*torch.tensor([[0.0], [2.0]], dtype=DOUBLE))
    axes = plot_geodesics(path)
    t, z = axes.lines[0].get_xydata().T
    assert np.allclose(z, path(torch.from_numpy(t.copy()))[:, 0].numpy())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("t", "z₁")


# ---------------------------------------------------------------- codes and frames


def test_codes_by_class() -> None:
    codes = draw(30, 2)
    labels = torch.arange(30) % 3
    axes = plot_codes(codes, labels)
    assert [c.get_label() for c in axes.collections] == ["0", "1", "2"]
    for n, points in enumerate(axes.collections):
        assert np.allclose(points.get_offsets(), codes[labels == n].numpy())
    assert len(set(CLASSES)) == len(CLASSES) == 10
    looks = [p.get_facecolor().tolist() for p in axes.collections]
    assert len({str(x) for x in looks}) == 3
    shapes = [p.get_paths()[0].vertices.tolist() for p in axes.collections]
    assert len({str(x) for x in shapes}) == 3  # told apart without colours, too
    alike = plot_codes(codes, axes=_new())
    assert len(alike.collections) == 1


def test_many_classes_are_all_told_apart() -> None:
    axes = plot_codes(draw(60, 2), torch.arange(60) % 30, legend=False)
    looks = {
        (str(p.get_facecolor().tolist()), str(p.get_paths()[0].vertices.tolist()))
        for p in axes.collections
    }
    assert len(looks) == 30


def test_frames_are_decoded_at_equal_times() -> None:
    path = SPHERE.geodesic(A, B)
    axes = plot_frames(path, lift, image=(1, 3), count=5, gap=0)
    shown = np.asarray(axes.images[0].get_array())
    t = torch.linspace(0, 1, 5, dtype=DOUBLE)
    assert np.allclose(shown, lift(path(t)).numpy().reshape(1, 15))
    apart = np.ma.masked_invalid(plot_frames(path, lift, image=(1, 3)).images[0].get_array())
    assert apart.shape == (1, 9 * 3 + 8)
    assert apart.mask.sum() == 8


def test_frames_of_squares_of_colours_and_of_latents_of_any_shape() -> None:
    z = draw(3, 4, 2, 2)
    axes = plot_frames(z, lambda z: z.abs().clamp(0, 1)[:, :3], gap=1)
    shown = np.asarray(axes.images[0].get_array())
    assert shown.shape == (2, 8, 3)
    first = z[0, :3].abs().clamp(0, 1).permute(1, 2, 0)
    assert np.allclose(shown[:, :2], first.numpy())
    assert np.allclose(shown[:, 2], 1)
    grey = plot_frames(z, lambda z: z.flatten(1), gap=0)
    assert grey.images[0].get_array().shape == (4, 12)


# ---------------------------------------------------------------- nothing hidden, and bad input


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = (
        "import sys, torch, kahler_verify, kahler_verify.plots as plots; "
        "plots.Plane.of(torch.eye(3)); "
        "assert 'matplotlib' not in sys.modules and 'sympy' not in sys.modules; "
        "plots.plot_codes(torch.eye(3)[:, :2]); "
        "assert 'matplotlib.pyplot' not in sys.modules and 'matplotlib' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_hidden_state() -> None:
    import matplotlib as mpl
    from matplotlib import pyplot

    before = dict(mpl.rcParams)
    axes = _new()
    for again in range(2):
        plot_field(SPHERE, axes=axes, resolution=3, legend=False)
        plot_geodesics(SPHERE.geodesic(A, B), axes=axes)
        assert len(axes.collections) == again + 1
        assert len(axes.lines) == 2 * (again + 1)
    assert pyplot.get_fignums() == []
    assert dict(mpl.rcParams) == before
    axes.figure.savefig(_Nowhere(), format="png")


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None: ...


PATH = SPHERE.geodesic(A, B)
NAN = torch.full((3, 3), math.nan)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "quantity": (
        lambda: plot_field(SPHERE, "volume"),
        "quantity: expected log_volume, det, condition",
    ),
    "defect of a real metric": (lambda: plot_field(SPHERE, "kahler_defect"), "complex latents"),
    "no metric": (lambda: plot_field(lift), "metric: expected a metric, got function"),
    "axes": (lambda: plot_field(SPHERE, axes=Figure()), "axes: expected matplotlib axes"),
    "no plane": (lambda: plot_field(COMPLEX), "plane: expected one where the latent space"),
    "other plane": (
        lambda: plot_field(SPHERE, plane=Plane.complex_coordinate(2)),
        "plane: expected a real floating-point tensor",
    ),
    "values of a function": (
        lambda: plot_field(SPHERE, lambda z: z, resolution=3),
        "quantity: expected a value for each of 9 points",
    ),
    "nothing": (lambda: plot_values(NAN, STRIP, label="it"), "values: it is defined nowhere"),
    "resolution": (lambda: plot_field(SPHERE, resolution=1), "resolution: expected a whole number"),
    "scale": (lambda: plot_values(NAN, STRIP, scale="x"), "scale: expected linear, log, signed"),
    "radius": (lambda: plot_indicatrices(SPHERE, radius=0), "radius: expected a positive number"),
    "points": (lambda: plot_indicatrices(SPHERE, A), "points: expected a tensor"),
    "degenerate": (
        lambda: plot_indicatrices(
            RiemannianMetric.from_function(lambda z: torch.diag_embed(z**2)), torch.zeros(2, 2)
        ),
        "points: the metric is not positive definite at 2 of 2",
    ),
    "no curve": (lambda: plot_geodesics(A), "curve: expected a Curve, got Tensor"),
    "plane of a curve": (
        lambda: plot_geodesics(PATH, plane=Plane.coordinates(3)),
        "z: expected latents of the plane's space",
    ),
    "codes": (lambda: plot_codes(A), r"codes: expected a tensor \[N, d\]"),
    "labels": (lambda: plot_codes(draw(3, 2), [1, 2]), "labels: expected 3"),
    "count": (lambda: plot_frames(PATH, lift, image=(1, 3), count=1), "count: expected at least 2"),
    "image": (lambda: plot_frames(PATH, lift, image=(2, 2)), "image: expected the size"),
    "no square": (lambda: plot_frames(PATH, lift), "image: expected the size"),
    "channels": (lambda: plot_frames(draw(2, 2, 3, 3), lambda z: z), "expected 1, 3 or 4 channels"),
    "what is decoded": (lambda: plot_frames(PATH, lambda z: z[:1]), "decode: expected images for"),
    "along": (lambda: plot_frames(3, lift), "along: expected a curve or latents"),
    "a batch": (
        lambda: plot_frames(SPHERE.geodesic(torch.stack([A, B]), B), lift),
        "along: expected one curve",
    ),
    "extent": (lambda: Plane.coordinates(2, extent=(1, 0, 0, 1)), "extent: expected left < right"),
    "extent's numbers": (lambda: Plane.coordinates(2, extent=(1, 0)), "extent: expected a half"),
    "coordinates": (lambda: Plane.coordinates(3, (0, 3)), "axes: expected distinct coordinates"),
    "one line": (lambda: Plane(A, B, 2 * B), "first, second: expected directions that span"),
    "origin": (lambda: Plane.coordinates(3, origin=A), r"origin: expected \[3\]"),
    "too few codes": (lambda: Plane.of(draw(1, 2)), "codes: expected two or more"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()
