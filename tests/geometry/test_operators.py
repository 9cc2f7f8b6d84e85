"""Metrics as operators against dense truth, what they cost, and what they say of themselves."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Gamma,
    MultivariateNormal,
    NegativeBinomial,
    Poisson,
)

from benchmarks.peoples_models import AutoencoderKL
from kahler_verify import FisherMetric, FisherRaoMetric, PulledBackMetric, RiemannianMetric
from kahler_verify.errors import InputError
from kahler_verify.geometry.linearised import Linearised
from kahler_verify.linear_algebra import quadrature

pytestmark = pytest.mark.xdist_group("operators")  # one worker makes what the tests share

D = torch.float64
ROOT = Path(__file__).resolve().parents[2]


def latents(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def net(d=12, outputs=20, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(d, 30), nn.Tanh(), nn.Linear(30, outputs)).double()


LAWS = {
    "unit variance": lambda x: x,
    "diagonal": lambda x: (x, 0.3 * x),
    "scalar": lambda x: (x, x[:, 0]),
    "Bernoulli": lambda x: Bernoulli(logits=x),
    "categorical": lambda x: Categorical(logits=x.unflatten(-1, (5, 4))),
    "Poisson": lambda x: Poisson(x.exp()),
    "gamma": lambda x: Gamma(x.exp(), (-x).exp()),
    "negative binomial": lambda x: NegativeBinomial(3.0, logits=x),
    "full": lambda x: MultivariateNormal(
        x[:, :4], torch.eye(4, dtype=x.dtype) * (1 + x[:, 4:5, None] ** 2)
    ),
}


@pytest.fixture(params=LAWS)
def metric(request):
    module, law = net(), LAWS[request.param]
    return FisherRaoMetric(lambda z: law(module(z)))


@pytest.fixture(scope="module")
def images():
    """An AutoencoderKL's look-alike, d = 64, in double precision."""
    return FisherMetric(AutoencoderKL(channels=8, groups=2, sample_size=8).double())


@pytest.fixture(scope="module")
def larger(images):
    """The same model at d = 256."""
    return FisherMetric(images.decoder.model, latent_shape=(4, 8, 8))


def close(a, b, tolerance=1e-11):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance * b.abs().max()


# ------------------------------------------------------------- products


def test_products_of_each_law_need_no_matrix(metric):
    z, u = latents(3, 12), latents(3, 12, seed=1)
    g = metric.metric_matrix(z)
    wanted = (g @ u[..., None])[..., 0]
    close(metric.metric_vector_product(u, z), wanted)
    with torch.no_grad():
        close(metric.metric_vector_product(u, z), wanted)
    operator = metric.operator(z[1], method="matrix-free")
    close(operator.product(u), u @ g[1])
    close(metric.operator(z[1]).matrix(), g[1])
    close(metric.inner_product(u, u, z), (wanted * u).sum(-1))


def test_products_are_differentiated_by_points_vectors_and_weights():
    """As the product with the matrix is: by z, by u, and by the decoder's weights."""
    for law in ("unit variance", "diagonal", "Bernoulli"):
        module = net()
        metric = FisherRaoMetric(lambda z, law=law, module=module: LAWS[law](module(z)))
        z, u = latents(2, 12).requires_grad_(), latents(2, 12, seed=1).requires_grad_()
        inputs = [z, u, *module.parameters()]
        weights = latents(2, 12, seed=2)
        found = torch.autograd.grad(
            (metric.metric_vector_product(u, z) * weights).sum(), inputs, materialize_grads=True
        )
        dense = (metric.metric_matrix(z) @ u[..., None])[..., 0]
        wanted = torch.autograd.grad((dense * weights).sum(), inputs, materialize_grads=True)
        for a, b in zip(found, wanted, strict=True):
            assert (a - b).abs().max() <= 1e-11 * max(1, b.abs().max())


def test_a_product_does_not_keep_a_graph_that_nobody_asked_for():
    metric = FisherRaoMetric(net().requires_grad_(False))
    z = latents(2, 12)
    assert not metric.metric_vector_product(z, z).requires_grad


def test_products_under_transforms_and_inference_mode():
    metric = FisherRaoMetric(net().requires_grad_(False))
    z, u = latents(3, 12), latents(3, 12, seed=1)
    wanted = metric.metric_vector_product(u, z)
    with torch.inference_mode():
        close(metric.metric_vector_product(u, z), wanted)
    close(
        torch.func.vmap(lambda u, z: metric.metric_vector_product(u[None], z[None])[0])(u, z),
        wanted,
    )


def test_a_law_that_does_not_vary_has_no_metric():
    metric = FisherRaoMetric(lambda z: torch.zeros(len(z), 3, dtype=D) * z[:, :1].detach())
    z = latents(2, 9)
    assert bool((metric.metric_vector_product(z, z) == 0).all())
    assert bool((metric.operator(z[0], method="matrix-free").product(z) == 0).all())


def by_all_second_derivatives(metric, z, v):
    """-Γ(v, v) by the kernel that takes all of them."""
    jet = metric.jet(z, 1)
    moved = torch.einsum("bcad,bc,bd->ba", jet.d, v, v)
    covector = moved - torch.einsum("bcad,ba,bd->bc", jet.d, v, v) / 2
    return -torch.linalg.solve(jet.g, covector)


@pytest.mark.parametrize("law", [name for name in LAWS if name != "full"])  # its g is degenerate
def test_accelerations_take_one_second_derivative(law):
    module = net()
    metric = FisherRaoMetric(lambda z: LAWS[law](module(z)))
    z, v = latents(3, 12), latents(3, 12, seed=1)
    assert metric._goes_along(z, v)
    close(metric.geodesic_acceleration(z, v), by_all_second_derivatives(metric, z, v), 1e-10)
    with torch.no_grad():
        close(metric.geodesic_acceleration(z, v), by_all_second_derivatives(metric, z, v), 1e-10)


def test_accelerations_of_a_full_covariance():
    """At d = 6, where what the law has of numbers is enough for a metric."""
    module = net(6, 16)

    def law(z):
        x = module(z)
        factor = 0.3 * x[:, 4:].unflatten(-1, (3, 4)).mT
        return MultivariateNormal(x[:, :4], torch.eye(4, dtype=D) + factor @ factor.mT)

    metric, z, v = FisherRaoMetric(law), latents(5, 6), latents(5, 6, seed=1)
    assert metric._goes_along(z, v)
    close(metric.geodesic_acceleration(z, v), by_all_second_derivatives(metric, z, v), 1e-8)


@pytest.mark.parametrize("law", ["unit variance", "diagonal", "Bernoulli"])
def test_accelerations_are_differentiated_too(law):
    module = net(8)
    metric = FisherRaoMetric(lambda z: LAWS[law](module(z)))
    z, v = latents(3, 8).requires_grad_(), latents(3, 8, seed=1).requires_grad_()
    inputs, weights = [z, v, *module.parameters()], latents(3, 8, seed=2)
    options = {"materialize_grads": True}
    out = metric.geodesic_acceleration(z, v)
    found = torch.autograd.grad((out * weights).sum(), inputs, **options)
    dense = by_all_second_derivatives(metric, z, v)
    wanted = torch.autograd.grad((dense * weights).sum(), inputs, **options)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() <= 1e-9 * max(1, b.abs().max())


def test_accelerations_of_pull_backs():
    metric = PulledBackMetric(net())
    z, v = latents(3, 12), latents(3, 12, seed=1)
    close(metric.geodesic_acceleration(z, v), by_all_second_derivatives(metric, z, v), 1e-10)


def constant_variance(x):
    return x, torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype).expand_as(x)


@pytest.mark.parametrize("method", ["dense", "matrix-free"])
@pytest.mark.parametrize("law", [lambda x: x, constant_variance])
def test_sectional_curvature_by_gauss(law, method):
    module = net(6)
    metric = FisherRaoMetric(lambda z: law(module(z)))
    z, u, v = latents(3, 6)
    truth = metric.sectional_curvature(z, u, v).item()
    found = metric.operator(z, method=method).sectional_curvature(u, v, tolerance=1e-9)
    assert abs(found.value - truth) <= max(found.error, 1e-9 * abs(truth))
    assert found.error < 1e-4 * abs(truth)
    assert found.value == pytest.approx(truth, rel=1e-6)
    loose = metric.operator(z, method="matrix-free").sectional_curvature(u, v, tolerance=1e-3)
    assert abs(loose.value - truth) <= loose.error
    same = PulledBackMetric(module).operator(z, method=method).sectional_curvature(u, v)
    assert same.value == pytest.approx(
        PulledBackMetric(module).sectional_curvature(z, u, v).item(), rel=1e-5
    )


def test_sectional_curvature_of_an_image_decoder(images):
    z, u, v = latents(3, 4, 4, 4)
    free = images.operator(z, method="matrix-free").sectional_curvature(u, v, tolerance=1e-8)
    dense = images.operator(z, method="dense").sectional_curvature(u, v)
    assert abs(free.value - dense.value) <= free.error + dense.error
    assert free.value == pytest.approx(dense.value, rel=1e-4)
    assert free.passes > dense.passes


def test_sectional_curvature_of_other_laws_is_refused():
    module, (z, u, v) = net(6), latents(3, 6)
    for law in ("diagonal", "Bernoulli"):
        operator = FisherRaoMetric(lambda z, law=law: LAWS[law](module(z))).operator(z)
        with pytest.raises(InputError, match="Gaussian with a constant covariance"):
            operator.sectional_curvature(u, v)
    operator = FisherRaoMetric(module).operator(z)
    with pytest.raises(InputError, match="span a plane"):
        operator.sectional_curvature(u, 2 * u)
    with pytest.raises(InputError, match="one vector each"):
        operator.sectional_curvature(torch.stack([u, v]), v)


# ------------------------------------------------------------- an image decoder, in full


def test_image_decoder_against_dense_truth(images):
    z = latents(4, 4, 4)
    free = images.operator(z, method="matrix-free")
    dense = images.metric_matrix(z)
    values, vectors = (x.flip(-1) for x in torch.linalg.eigh(dense))
    u = latents(5, 4, 4, 4, seed=1)
    close(free.product(u).flatten(1), u.flatten(1) @ dense)

    top = free.top(6, tolerance=1e-4)
    assert top.converged
    assert bool(((top.values - values[:6]).abs() <= 1e-4 * values[:6]).all())
    assert top.directions.shape == (6, 4, 4, 4)
    overlap = (top.directions.flatten(1) @ vectors[:, :6]).square().sum(-1)
    assert overlap.min() > 0.99

    solved = free.solve(u[0], tolerance=1e-9)
    assert solved.converged
    close(solved.x.flatten(), torch.linalg.solve(dense, u[0].flatten()), 1e-5)
    ridge = values[0].item() * 1e-2
    damped = free.solve(u, ridge=ridge, rank=16)
    close(
        damped.x.flatten(1).mT,
        torch.linalg.solve(dense + ridge * torch.eye(64, dtype=D), u.flatten(1).mT),
        1e-4,
    )
    assert "rank 16" in repr(damped)
    assert damped.ridge == ridge

    # the same probes of the dense matrix; whether error bars hold is asked in test_krylov.py
    trace, wanted = free.trace(), quadrature.trace(lambda v: v @ dense, dense[0], probes=18)
    assert math.isclose(trace.value, wanted.value, rel_tol=1e-9)
    assert math.isclose(trace.error, wanted.error, rel_tol=1e-6)
    volume = free.log_volume(probes=4, steps=40)
    logdet = quadrature.log_det(lambda v: v @ dense, dense[0], probes=4, steps=40)
    assert math.isclose(volume.value, logdet.value / 2, rel_tol=1e-7)
    assert math.isclose(volume.error, logdet.error / 2, rel_tol=1e-5)
    assert volume.passes == 4 * 40 * 2 + 40
    assert "matrix-free" in repr(free)


def test_the_matrix_is_exact_with_and_without_a_jacobian(images):
    z = latents(4, 4, 4)
    truth = images.metric_matrix(z)
    operator = images.operator(z)
    close(operator.matrix(), truth)
    small = FisherMetric(images.decoder.model, memory_budget=4 * 64 * 64 * 8)
    blocked = small.operator(z)
    assert blocked.dense
    assert not blocked._jacobian_fits
    assert blocked.dense_passes > operator.dense_passes
    before = blocked.passes
    close(blocked.matrix(), truth)
    assert 2 * 64 < blocked.passes - before <= blocked.dense_passes  # transposes take less
    tight = FisherMetric(images.decoder.model, memory_budget=2**16).operator(z)
    assert not tight.dense
    assert "matrix-free" in repr(tight)


def test_dense_answers(images):
    z = latents(4, 4, 4)
    g = images.metric_matrix(z)
    values = torch.linalg.eigvalsh(g).flip(0)
    dense = images.operator(z, method="dense")
    top = dense.top(3)
    torch.testing.assert_close(top.values, values[:3])
    assert top.how == "dense"
    volume = dense.log_volume()
    assert abs(volume.value - images.log_volume(z).item()) <= 1e-9
    assert volume.useful
    assert 0 < volume.error < 1e-6
    assert abs(dense.trace().value - values.sum().item()) <= 1e-9 * values.sum().item()
    u = latents(4, 4, 4, seed=1)
    solved = dense.solve(u)
    close(solved.x.flatten(), torch.linalg.solve(g, u.flatten()), 1e-8)
    assert solved.residual < 1e-9
    shifted = dense.log_volume(ridge=0.1)
    assert math.isclose(shifted.value, (values + 0.1).log().sum().item() / 2, rel_tol=1e-9)


def test_the_planner_takes_lanczos_for_a_few_directions(larger):
    operator = larger.operator(latents(4, 8, 8))
    assert operator.dense  # all of it would be made
    few = operator.top(2, tolerance=1e-4)
    assert few.how.startswith("Lanczos")
    assert few.passes < operator.dense_passes
    values = torch.linalg.eigvalsh(operator.matrix()).flip(0)
    torch.testing.assert_close(few.values, values[:2], rtol=1e-4, atol=0)
    assert operator.top(2).how == "dense"  # as g is there now
    assert operator.top(200).how == "dense"


def test_costs_are_counted():
    calls = []
    module = net()

    def decode(z):
        calls.append(len(z))
        return module(z)

    metric = FisherRaoMetric(decode)
    operator = metric.operator(latents(12), method="matrix-free")
    assert operator.passes == 2
    assert len(calls) == 2
    operator.product(latents(12))
    assert operator.passes == 5  # a value and a tangent, and a cotangent
    assert len(calls) == 3
    operator.product(latents(4, 12))
    assert operator.passes == 5 + 1 + 4 + 4
    top = operator.top(2)
    # J u is a tape of tangents now, which is made and compared once
    assert top.passes == 2 + 2 * int(top.how.split()[1])
    assert len(calls) == 5
    assert f"{operator.passes} passes so far" in repr(operator)


def test_a_tape_gives_the_tangents(metric):
    linear = Linearised(metric, latents(12)[None])
    linear.product(latents(2, 12))
    u = latents(2, 12, seed=1)
    found = linear.along(u)
    # a recorded one, and a first one again, to be compared
    assert linear.passes == 2 + (1 + 2 + 2) + 2 + 1 + 2
    want = linear.push(u)
    assert found.keys() == want.keys()
    for name, t in want.items():
        close(found[name], t)


def test_a_tape_goes_through_attention(images):
    linear = Linearised(images.on_real_latents, latents(64)[None])
    u = latents(1, 64, seed=1)
    linear.product(latents(1, 64))
    assert linear.passes == 2 + 3
    want = linear.pull(linear.lower(linear.push(u)))
    before = linear.passes
    close(linear.product(u), want)
    assert linear.passes == before + 2 + 2


def test_tangents_at_once_fit_the_budget(images):
    z = latents(64)[None]
    wide = Linearised(images.on_real_latents, z)
    assert wide.widest >= 8 * 8 * 8
    each = 12 * wide.widest * 8
    small = FisherMetric(images.decoder.model, memory_budget=3 * each).on_real_latents
    assert Linearised(small, z).at_once == 3
    assert wide.at_once == 64


def test_differences_of_volumes_have_common_probes(images):
    z = latents(4, 4, 4)
    near = z + 0.02 * latents(4, 4, 4, seed=1)
    free, truth = [], []
    for point in (z, near):
        operator = images.operator(point, method="matrix-free")
        free.append(operator.log_volume(probes=6, steps=40))
        truth.append(images.log_volume(point).item())
    apart = free[0].minus(free[1])
    assert abs(apart.value - (truth[0] - truth[1])) <= apart.error
    assert not free[0].useful
    assert "useless for comparisons" in repr(free[0])
    alone = images.operator(z, method="matrix-free").log_volume(probes=6, steps=40, seed=1)
    with pytest.raises(InputError, match="same seed"):
        free[0].minus(alone)
    dense = images.operator(z, method="dense").log_volume()
    assert dense.minus(dense).value == 0
    with pytest.raises(InputError, match="log volumes of two points"):
        dense.minus(images.operator(z).trace())


def test_a_metric_without_a_decoder_is_dense():
    metric = RiemannianMetric.from_function(lambda z: torch.diag_embed(1 + z**2) + 0.1, check=False)
    z = latents(3)
    operator = metric.operator(z)
    close(operator.product(z), metric.metric_vector_product(z, z))
    close(operator.top(3).values, torch.linalg.eigvalsh(metric.metric_matrix(z)).flip(0))
    assert operator.passes == 1


def test_pull_backs_too():
    metric = PulledBackMetric(net())
    z, u = latents(12), latents(12, seed=1)
    g = metric.metric_matrix(z)
    close(metric.operator(z, method="matrix-free").product(u), g @ u)
    close(metric.metric_vector_product(u, z), g @ u)


@pytest.mark.parametrize("method", ["dense", "matrix-free"])
def test_a_degenerate_metric_wants_a_ridge(method):
    metric = FisherRaoMetric(nn.Linear(12, 5).double())
    operator = metric.operator(latents(12), method=method)
    with pytest.raises(InputError, match="ridge"):
        operator.log_volume(steps=12)
    solved = operator.solve(latents(12), ridge=0.1)
    assert solved.converged
    assert operator.log_volume(ridge=0.1).value < 0


def test_bad_arguments():
    metric = FisherRaoMetric(net())
    with pytest.raises(InputError, match="one finite point"):
        metric.operator(latents(2, 12))
    with pytest.raises(InputError, match="one finite point"):
        metric.operator(latents(12) * math.inf)
    with pytest.raises(InputError, match="method: expected"):
        metric.operator(latents(12), method="sparse")
    operator = metric.operator(latents(12))
    for k in (0, 13, 1.5):
        with pytest.raises(InputError, match=r"k: expected 1 … 12"):
            operator.top(k)
    with pytest.raises(InputError, match="ridge: expected"):
        operator.solve(latents(12), ridge=-1.0)
    with pytest.raises(InputError, match="u: expected"):
        operator.product(latents(11))
    with pytest.raises(InputError, match="b: expected"):
        operator.solve(latents(12).float())


LARGE = """
import resource, torch
from benchmarks.peoples_models import AutoencoderKL
from kahler_verify import FisherMetric
torch.set_num_threads(1)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def operator(size):
    model = AutoencoderKL(channels=16, groups=4, sample_size=2 * size)
    z = torch.randn(4, size, size, generator=torch.Generator().manual_seed(0))
    return FisherMetric(model).operator(z, method="matrix-free"), z
small, z = operator(2)
small.top(2), small.solve(z, ridge=1.0)
before = peak()
large, z = operator(32)
top = large.top(2)
solved = large.solve(z, ridge=0.3 * top.values[0].item(), tolerance=1e-3)
print(large.d, int(top.converged and solved.converged), large.passes, peak() - before)
"""


def test_thousands_of_dimensions_take_no_matrix():
    """At d = 4096 the Jacobian alone would be 192 MiB, and g in double precision 128."""
    run = [sys.executable, "-c", LARGE]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    d, converged, passes, memory = map(float, done.stdout.split())
    assert d == 4096
    assert converged
    assert passes < 150
    assert memory < 96


@pytest.mark.gpu
def test_operators_on_a_gpu(images):
    z = latents(4, 4, 4)
    cpu = images.operator(z, method="matrix-free")
    for method in ("dense", "matrix-free"):
        metric = images.on_real_latents.to("cuda")
        gpu = metric.operator(z.cuda(), method=method)
        close(gpu.product(z.cuda()).cpu(), cpu.product(z), 1e-9)
        torch.testing.assert_close(gpu.top(4).values.cpu(), cpu.top(4).values, rtol=1e-3, atol=0)
        found, wanted = gpu.solve(z.cuda(), ridge=0.1), cpu.solve(z, ridge=0.1)
        close(found.x.cpu(), wanted.x, 1e-4)
        assert math.isfinite(gpu.trace().value)
        assert math.isfinite(gpu.log_volume(ridge=0.1).value)
