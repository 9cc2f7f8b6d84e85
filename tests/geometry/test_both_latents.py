"""One class for complex and for real latents, and what all metrics share: copies, casts, chunks."""

import copy
import inspect
import math
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from kahler_verify import (
    ExpectedMetric,
    FisherMetric,
    FisherRaoMetric,
    LocalVarianceMetric,
    PotentialMetric,
    PrecisionWeightedMetric,
    PulledBackMetric,
    RiemannianMetric,
)
from kahler_verify.errors import InputError
from kahler_verify.geometry import HermitianMetric, Metric
from kahler_verify.models.vae import ComplexVAE, VAEConfig

DOUBLE = torch.float64


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class Network(nn.Module):
    """Mean and log variance from real latents; a smooth function of complex ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Parameter(draw(5, 2, seed=1))
        self.outer = nn.Parameter(draw(3, 5, seed=2) / 2)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """A pair."""
        if z.is_complex():
            z = z.real + 0.4 * z.imag
        hidden = torch.tanh(z @ self.inner.mT)
        mean = hidden @ self.outer.mT
        return mean, 0.3 * mean


NETWORK = Network()
Z, U, V, W = draw(4, 3, 2, seed=3)
METHODS = [
    name
    for name, f in vars(FisherMetric).items()
    if hasattr(f, "__wrapped__") and "z" in inspect.signature(f).parameters and name != "operator"
]
PUBLIC = {
    kind: {
        name
        for name, f in inspect.getmembers(kind, inspect.isfunction)
        if name[0] != "_"
        and "z" in inspect.signature(f).parameters
        and name not in ("jet", "operator")
    }
    for kind in (HermitianMetric, RiemannianMetric)
}


def _call(metric: Metric, name: str, z: Tensor) -> Tensor:
    points = {"z": z, "u": U.to(z.dtype), "v": V.to(z.dtype), "w": W.to(z.dtype)}
    method = getattr(metric, name)
    named = {p: points[p] for p in inspect.signature(method).parameters if p != "options"}
    out: Tensor = method(*named.values())
    assert torch.equal(out, method(**named))
    return out


def test_every_method_of_both_is_a_method_of_the_one() -> None:
    assert set(METHODS) == PUBLIC[HermitianMetric] | PUBLIC[RiemannianMetric]


@pytest.mark.sampled(10)
@pytest.mark.parametrize("name", METHODS)
def test_the_kind_of_z_decides(name: str) -> None:
    metric = FisherMetric(NETWORK, check=False)
    if name in PUBLIC[RiemannianMetric]:
        expected = _call(FisherRaoMetric(NETWORK), name, Z)
        assert not expected.is_complex()
        assert torch.equal(_call(metric, name, Z), expected)
    else:
        with pytest.raises(InputError, match=f"z: {name} .* complex latents alone, got real"):
            _call(metric, name, Z)
    z = torch.complex(Z, W)
    if name not in PUBLIC[HermitianMetric]:
        with pytest.raises(InputError, match=f"z: {name} .* real latents alone, got complex"):
            _call(metric, name, z)
    elif name in ("metric_matrix", "complementary_part", "norm"):  # others: degenerate here
        assert _call(metric, name, z).shape[0] == 3


def test_the_metric_at_real_latents_is_the_formula() -> None:
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: NETWORK(z)[0]))(Z)
    precision = (-NETWORK(Z)[1]).exp()
    weighted = torch.einsum("bia,bi,bic->bac", jacobian, precision, jacobian)
    expected = weighted + 0.5 * 0.3**2 * jacobian.mT @ jacobian
    metric = FisherMetric(NETWORK)
    assert torch.allclose(metric.metric_matrix(Z), expected)
    assert torch.allclose(metric.log_volume(Z), expected.logdet() / 2)
    assert torch.allclose(metric.norm(V, Z) ** 2, torch.einsum("ba,bac,bc->b", V, expected, V))


def test_both_kinds_measure_the_same_lengths() -> None:
    """A decoder of Re z alone: 2 Re g(u, ū) + 2 Re k(u, u) of real u is the real metric."""

    def real_part(z: Tensor) -> tuple[Tensor, Tensor]:
        return NETWORK(z.real if z.is_complex() else z)

    metric = FisherMetric(real_part)
    for method in (metric.norm, metric.squared_norm):
        assert torch.allclose(method(V + 0j, Z + 0j), method(V, Z))
    covector = metric.metric_vector_product(U + 0j, Z + 0j)
    assert torch.allclose(covector.real, metric.metric_vector_product(U, Z))


def test_the_real_metric_is_made_once_and_follows() -> None:
    metric = FisherMetric(NETWORK, memory_budget=10**6)
    real = metric.on_real_latents
    assert real is metric.on_real_latents
    assert isinstance(real, FisherRaoMetric)
    assert real.decoder is NETWORK
    assert (real.validate_args, real.memory_budget) == (True, 10**6)
    metric.validate_args = False
    assert metric.metric_matrix(Z * math.nan).isnan().all()
    metric.validate_args = True
    with pytest.raises(InputError, match="z has NaN"):
        metric.metric_matrix(Z * math.nan)
    metric.decoder = Network()
    assert metric.on_real_latents.decoder is metric.decoder


WRONG_KIND = {
    "real z, a decoder of ours": (
        ComplexVAE(VAEConfig(data_dim=3, latent_dim=2, hidden=(4,))).decoder,
        Z.float(),
        ("complex64", "real", "float32"),
    ),
    "real z, complex weights": (
        nn.Linear(2, 3, dtype=torch.complex128),
        Z,
        ("z", "complex latents", "weight", "real", "float64"),
    ),
    "complex z, real weights": (
        nn.Sequential(nn.Linear(2, 3), nn.Tanh()).double(),
        Z + 0j,
        ("z", "real latents", "0.weight", "complex128"),
    ),
    "whole numbers": (NETWORK, torch.ones(3, 2, dtype=torch.long), ("complex", "real", "int64")),
    "booleans": (NETWORK, torch.ones(3, 2, dtype=torch.bool), ("complex", "real", "bool")),
    "a list": (NETWORK, [0.1, 0.2], ("complex", "real", "list")),
    "half precision": (NETWORK, Z.half(), ("z", "float32 or float64", "float16")),
    "bfloat16": (NETWORK, Z.bfloat16(), ("z", "float32 or float64", "bfloat16")),
    "another precision": (NETWORK, Z.float(), ("z", "float64", "float32")),
}


@pytest.mark.parametrize("case", WRONG_KIND)
def test_z_of_a_kind_that_the_decoder_does_not_take(case: str) -> None:
    decoder, z, fragments = WRONG_KIND[case]
    for call in (FisherMetric(decoder).metric_matrix, FisherMetric(decoder).scalar_curvature):
        with pytest.raises(InputError) as caught:
            call(z)
        for fragment in fragments:
            assert fragment in str(caught.value)


def test_a_call_without_z_is_an_error_of_python() -> None:
    with pytest.raises(TypeError, match="'z'"):
        FisherMetric(NETWORK).metric_matrix()


# ------------------------------------------------------------------ points alone


def _centred(z: Tensor) -> Tensor:
    return z - z.mean(0)


def _random(z: Tensor) -> Tensor:
    return z + torch.rand(z.shape, dtype=z.dtype)


def _of_matrices(f: Callable[[Tensor], Tensor]) -> RiemannianMetric:
    return RiemannianMetric.from_function(lambda z: torch.diag_embed(1 + f(z) ** 2))


@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("function", [_centred, _random])
@pytest.mark.parametrize(
    "kind", [FisherMetric, FisherRaoMetric, PulledBackMetric, lambda f: _of_matrices(f)]
)
def test_points_of_a_batch_are_independent(kind: Callable, function: Callable, points: int) -> None:
    with pytest.raises(InputError, match=r"random|each point alone|every point"):
        kind(function).metric_matrix(Z[:points])


def test_batch_normalisation_is_named() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    with pytest.raises(InputError, match=r"eval\(\)"):
        FisherMetric(model).metric_matrix(Z)
    assert FisherMetric(model.eval()).metric_matrix(Z).shape == (3, 2, 2)


def test_the_check_may_be_left_out() -> None:
    for kind in (FisherMetric, FisherRaoMetric, PulledBackMetric):
        assert kind(_centred, check=False).metric_matrix(Z).shape == (3, 2, 2)


# ------------------------------------------------------------------ all real metrics


def _given() -> RiemannianMetric:
    class Sphere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.four = nn.Parameter(torch.tensor(4.0, dtype=DOUBLE))

        def forward(self, z: Tensor) -> Tensor:
            eye = torch.eye(2, dtype=z.dtype)
            return self.four / (1 + (z * z).sum(-1))[:, None, None] ** 2 * eye

    return RiemannianMetric.from_function(Sphere())


class Mean(Network):
    """The mean alone."""

    def forward(self, z: Tensor) -> Tensor:
        """The first of the pair."""
        return super().forward(z)[0]


FACTORS = draw(4, 2, 2, seed=7)
REAL: dict[str, Callable[[], RiemannianMetric]] = {
    "FisherRao": lambda: FisherRaoMetric(Network()),
    "pulled back": lambda: PulledBackMetric(Mean()),
    "expected": lambda: ExpectedMetric(Network()),
    "local variance": lambda: LocalVarianceMetric(draw(9, 2, seed=5), 1.0, 0.1),
    "precision weighted": lambda: PrecisionWeightedMetric(draw(4, 2, seed=6), FACTORS),
    "given": _given,
}


@pytest.mark.parametrize("name", REAL)
def test_chunks_empty_batches_and_autocast(name: str) -> None:
    metric = REAL[name]()
    z = draw(4, 5, 2, seed=9)
    right = [metric.metric_matrix(z), metric.scalar_curvature(z), metric.norm(z[0], z)]
    small = copy.copy(metric)
    small.memory_budget = 1
    with torch.autocast("cpu"):
        again = [small.metric_matrix(z), small.scalar_curvature(z), small.norm(z[0], z)]
    for x, y in zip(right, again, strict=True):
        assert y.dtype == DOUBLE
        assert torch.allclose(x, y, rtol=1e-9, atol=1e-9)
    assert metric.scalar_curvature(z[:0]).shape == (0, 5)
    assert REAL[name]().christoffels(z[0, :0]).shape == (0, 2, 2, 2)


@pytest.mark.parametrize("name", REAL)
def test_one_metric_in_many_threads(name: str) -> None:
    metric, z = REAL[name](), draw(3, 2)
    right = REAL[name]().scalar_curvature(z)
    start = threading.Barrier(4)

    def work(_: int) -> None:
        start.wait()
        for _ in range(3):
            assert torch.allclose(metric.scalar_curvature(z), right)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@pytest.mark.parametrize("name", ["FisherRao", "local variance"])
def test_no_backward_pass_under_autocast(name: str) -> None:
    z = draw(3, 2).requires_grad_()
    volume = REAL[name]().log_volume(z).sum()
    with torch.autocast("cpu"), pytest.raises(InputError, match="outside of autocast"):
        volume.backward()


@pytest.mark.parametrize("name", REAL)
def test_copies_and_casts(name: str) -> None:
    metric, z = REAL[name](), draw(3, 2, seed=8)
    right = metric.metric_matrix(z)
    for same in (copy.copy(metric), copy.deepcopy(metric), metric.double()):
        assert torch.equal(same.metric_matrix(z), right)
    if name != "given":  # of a class inside a function
        assert torch.equal(pickle.loads(pickle.dumps(metric)).metric_matrix(z), right)  # noqa: S301
    for lower in (metric.float(), metric.to(torch.float32), metric.to(z.float())):
        got = lower.metric_matrix(z.float())
        assert got.dtype == torch.float32
        assert torch.allclose(got.double(), right, rtol=1e-4, atol=1e-4)
        assert lower.scalar_curvature(z.float()).dtype == torch.float32
    assert torch.equal(metric.metric_matrix(z), right)
    with pytest.raises(InputError, match="real floating-point dtype"):
        metric.to(torch.complex64)


def test_casts_and_copies_of_the_one_class() -> None:
    metric = FisherMetric(NETWORK)
    right = metric.metric_matrix(Z)
    for same in (copy.copy(metric), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):  # noqa: S301
        assert torch.equal(same.metric_matrix(Z), right)
        assert same.on_real_latents is not metric.on_real_latents
    lower = metric.float()
    assert torch.allclose(lower.metric_matrix(Z.float()).double(), right, rtol=1e-4)
    with pytest.raises(InputError, match="z: expected the precision"):
        lower.metric_matrix(Z)


def test_plain_functions_cannot_be_cast() -> None:
    for metric in (FisherRaoMetric(lambda z: z), PulledBackMetric(lambda z: z)):
        with pytest.raises(InputError, match="expected a module to move"):
            metric.float()


@pytest.mark.parametrize("exponent", [-800, -300, 300, 800])
def test_lengths_of_any_size(exponent: int) -> None:
    for metric, z, v in (
        (FisherMetric(NETWORK), Z, V),
        (PotentialMetric("fubini_study"), torch.complex(Z, W), torch.complex(V, U)),
    ):
        right = metric.norm(v, z)
        scale = 2.0**exponent
        assert torch.allclose(metric.norm(v * scale, z) / scale, right, rtol=1e-13)
        assert torch.allclose(metric.norm(v, z) ** 2, metric.inner_product(v, v, z))


@pytest.mark.parametrize("exponent", [-600, 600])
def test_covectors_of_any_size(exponent: int) -> None:
    metric, scale = FisherMetric(NETWORK), 2.0**exponent
    right = metric.metric_vector_product(U, Z)
    assert torch.allclose(metric.metric_vector_product(U * scale, Z) / scale, right, rtol=1e-13)
    both = metric.inner_product(U * scale, V / scale, Z)
    assert torch.allclose(both, metric.inner_product(U, V, Z), rtol=1e-13)


def test_a_degenerate_volume_is_zero_and_has_no_gradient() -> None:
    metric = FisherMetric(
        lambda z: torch.sin(z.sum(-1, keepdim=True) * torch.ones(1, 5, dtype=z.dtype))
    )
    z = Z.clone().requires_grad_()
    volume = metric.log_volume(z)
    assert (volume == -torch.inf).all()
    with pytest.raises(InputError, match="no gradient"):
        volume.sum().backward()
    metric.validate_args = False
    assert torch.autograd.grad(metric.log_volume(z).sum(), z)[0].isnan().all()


def test_geodesics_at_real_latents() -> None:
    metric, real = FisherMetric(NETWORK), FisherRaoMetric(NETWORK)
    a, b = Z[:1] / 3, W[:1] / 3
    path = metric.geodesic(a, b)
    assert torch.equal(path.length, real.geodesic(a, b).length)
    assert torch.equal(metric.distance(a, b), real.distance(a, b))
    assert metric.transport(path, U[:1]).shape == (1, 2)
    assert metric.distances(torch.cat([a, b])).shape == (2, 2)
    with pytest.raises(InputError, match=r"a: geodesic .* real latents alone, got complex"):
        metric.geodesic(a + 0j, b + 0j)
