"""Copies: pickled, saved, deep and shallow, in this process or another; moved and cast."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from kahler_verify import ComplexNormal, FisherMetric, MixtureMetric, PotentialMetric
from kahler_verify.errors import InputError
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.linear_algebra.kept import ReducedHeads
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.activations import ACTIVATIONS, Activation, ActivationLayer
from kahler_verify.running import variants as unrolled_kernels
from kahler_verify.running.kernel_set import KernelSet
from kahler_verify.running.variants import UnrolledKernels
from tests.states import METRICS, ComplexWeights, Z, decoder, mixture, numbers, potential, single


def _pickled(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))  # noqa: S301 - its own


def _saved(x: Any) -> Any:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": _pickled,
    "torch.save": _saved,
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "twice": lambda x: _pickled(copy.copy(_pickled(x))),
}
PICKLED = [name for name in METRICS if name != "a layer by autograd"]  # whose class is local


def _caches(metric: HermitianMetric) -> list[object]:
    return [x for x in vars(metric).values() if isinstance(x, ReducedHeads | UnrolledKernels)]


def _same(one: HermitianMetric, other: HermitianMetric) -> None:
    with torch.no_grad():
        for name in ("metric_matrix", "log_volume", "christoffels"):
            assert torch.equal(getattr(one, name)(Z), getattr(other, name)(Z))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PICKLED)
def test_metrics(name: str, way: str) -> None:
    metric = METRICS[name]()
    metric.memory_budget = 2**20
    with torch.no_grad():
        metric.metric_matrix(Z)
    other = WAYS[way](metric)
    assert type(other) is type(metric)
    assert other.memory_budget == 2**20
    _same(other, metric)
    mine = {id(x) for x in _caches(metric)}
    assert not mine & {id(x) for x in _caches(other)}


@pytest.mark.parametrize("way", WAYS)
def test_copies_of_a_used_metric_go_their_own_way(way: str) -> None:
    metric = FisherMetric(decoder(), fold="always")
    with torch.no_grad():
        before = metric.metric_matrix(Z)
    other = WAYS[way](metric)
    if other.decoder is metric.decoder:  # a shallow copy
        other.decoder = copy.deepcopy(metric.decoder)
    with torch.no_grad():
        other.decoder.mean_head.weight_pairs.mul_(2)
        assert (other.metric_matrix(Z) - before).abs().max() > 0.1
        assert torch.equal(metric.metric_matrix(Z), before)
    z = Z.clone().requires_grad_()
    other.log_volume(z).sum().backward()
    assert other.decoder.mean_head.weight_pairs.grad is not None


@pytest.mark.parametrize("way", WAYS)
def test_unrolled_kernels(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrolled_kernels, "compile_kernel", lambda kernel: kernel)
    unrolled_kernels._compiled.cache_clear()
    for metric in (mixture(compile=True), potential(compile=True)):
        before = metric.metric_matrix(Z)
        other = WAYS[way](metric)
        assert other._unrolled is not metric._unrolled
        assert torch.equal(other.metric_matrix(Z), before)
    unrolled_kernels._compiled.cache_clear()


FILE = """
from kahler_verify.calculus import coordinates, dimension, parameter, potential
from sympy import log
n = dimension("d")
z, p = coordinates("z", n), parameter("P", n, n, hermitian=True, positive=True)
mine = potential("mine", log(1 + z.H * p * z) + z.H * z)
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_derivation_from_a_file_that_is_gone(way: str, tmp_path: Any) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    metric = PotentialMetric.from_file(path, P=torch.eye(2, dtype=torch.complex128))
    path.unlink()
    _same(WAYS[way](metric), metric)


@pytest.mark.parametrize("way", WAYS)
def test_a_generated_module_that_is_gone(way: str, tmp_path: Any) -> None:
    """The text of its kernels travels with it."""
    import importlib.util

    path = tmp_path / "kernels_of_mine.py"
    kernels = potential().kernels.module
    path.write_text(kernels.source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    metric = PotentialMetric(module, P=torch.eye(2, dtype=torch.complex128))
    _same(WAYS[way](metric), metric)


@pytest.mark.parametrize("way", WAYS)
def test_what_compile_returns(way: str) -> None:
    kernels = potential().kernels.module
    other = WAYS[way](kernels)
    assert type(other) is type(kernels)
    assert repr(other) == repr(kernels)
    assert other._repr_latex_() == kernels._repr_latex_()
    assert other.source == kernels.source
    assert other.derivation == kernels.derivation
    tensors = {"z": Z, "P": torch.eye(2, dtype=torch.complex128)}
    got, right = (KernelSet(each).call("metric", tensors) for each in (other, kernels))
    assert torch.equal(got, right)


def _from_plain(z: Tensor) -> Tensor:
    return z * z


@pytest.mark.parametrize("way", WAYS)
def test_models_and_their_parts(way: str) -> None:
    for activation in ACTIVATIONS.values():
        assert WAYS[way](activation) is activation
        layer = WAYS[way](ActivationLayer(activation.name, 3))
        assert layer.activation is activation
    own = Activation("own", "z²", _from_plain, True)
    assert WAYS[way](own) == own
    for covariance in ("constant", "scalar", "diagonal"):
        config = VAEConfig(data_dim=6, latent_dim=2, hidden=(5,), covariance=covariance)
        model = ComplexVAE(config)
        other = WAYS[way](model)
        x = numbers(4, 6, dtype=torch.complex64)
        z = Z.to(torch.complex64)
        assert other.config == config
        assert torch.equal(other.decoder(z).mean, model.decoder(z).mean)
        assert other.elbo(x, samples=1) == model.elbo(x, samples=1)


@pytest.mark.parametrize("way", WAYS)
def test_distributions(way: str) -> None:
    loc, eye = numbers(3, 2), torch.eye(2, dtype=torch.complex128)
    for law in (
        ComplexNormal(loc, scale=2.0),
        ComplexNormal(loc, scale_diag=torch.ones(3, 2, dtype=torch.float64)),
        ComplexNormal(loc, scale_tril=eye),
        ComplexNormal.from_covariance(loc, eye, relation=0.3 * eye),
    ):
        other = WAYS[way](law)
        assert torch.equal(other.log_prob(loc + 1), law.log_prob(loc + 1))
        assert other._validate_args == law._validate_args
        assert other.event_shape == law.event_shape


class Metrics(Dataset):
    """A data set that computes with metrics in its workers."""

    def __init__(self, metrics: list[HermitianMetric]) -> None:
        self.metrics = metrics

    def __len__(self) -> int:
        return len(self.metrics)

    def __getitem__(self, index: int) -> Tensor:
        return self.metrics[index].log_volume(Z).detach()


def test_workers_that_are_spawned() -> None:
    metrics = [METRICS[name]() for name in PICKLED]
    with torch.no_grad():
        right = [metric.log_volume(Z) for metric in metrics]
    loader = DataLoader(
        Metrics(metrics), batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    for got, own in zip(loader, right, strict=True):
        torch.testing.assert_close(got, own)


# ------------------------------------------------------------------ moving and casting


def _cast(metric: HermitianMetric, dtype: torch.dtype) -> list[HermitianMetric]:
    return [
        metric.to(dtype=dtype),
        metric.to(dtype),
        metric.to("cpu", dtype),
        metric.to(torch.zeros(1, dtype=dtype)),
        metric.double() if dtype is torch.complex128 else metric.float(),
    ]


def test_complex_weights_keep_their_imaginary_parts() -> None:
    model = ComplexWeights()
    metric, z = FisherMetric(model), Z.to(torch.complex64)
    right = metric.metric_matrix(z)
    for double in _cast(metric, torch.complex128):
        for name, x in double.decoder.state_dict().items():
            own = model.state_dict()[name]
            assert torch.equal(x, own.to(x.dtype))
            assert x.is_complex() == own.is_complex()
            assert x.dtype == (
                torch.complex128 if own.is_complex() else
                torch.float64 if own.is_floating_point() else own.dtype
            )  # fmt: skip
        torch.testing.assert_close(double.metric_matrix(z.to(torch.complex128)).to(z.dtype), right)
        back = double.float()
        for name, x in back.decoder.state_dict().items():
            assert torch.equal(x, model.state_dict()[name])
    half = metric.half().decoder
    assert half.weight.dtype == torch.complex32
    assert float(half.weight.detach().to(z.dtype).imag.abs().min()) > 0
    assert half.gain.dtype == torch.float16
    with pytest.raises(InputError, match="complex32"):
        metric.half().metric_matrix(Z.to(torch.complex32))
    for device in (metric.to("cpu"), metric.to(torch.device("cpu")), metric.to(device="cpu")):
        assert device.decoder is not model
        assert torch.equal(device.decoder.weight, model.weight)
    assert metric.to("meta").decoder.first.weight.is_meta


@pytest.mark.parametrize("name", METRICS)
def test_all_metrics_are_cast_alike(name: str) -> None:
    metric, z = METRICS[name](), Z.to(torch.complex64)
    right = metric.metric_matrix(Z)
    if isinstance(metric, FisherMetric):
        assert single(metric).decoder is not metric.decoder
    for lower in _cast(metric, torch.complex64):
        got = lower.metric_matrix(z)
        assert got.dtype == torch.complex64
        assert (got - right).abs().max() < 1e-4 * right.abs().max()
    for real in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for given in ((None, real), (real,), (torch.zeros(1, dtype=real),)):
            with pytest.raises(InputError, match="complex dtype"):
                metric.to(*given)
    assert torch.equal(metric.metric_matrix(Z), right)


def test_mixtures_keep_real_weights_real() -> None:
    for diagonal in (False, True):
        lower: MixtureMetric = mixture(diagonal=diagonal).float()
        assert lower.weights.dtype == torch.float32
        assert lower.centres.dtype == torch.complex64
        assert lower.precisions.dtype == (torch.float32 if diagonal else torch.complex64)


def test_a_real_layer_stays_real() -> None:
    model = nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64), nn.Linear(2, 2))
    moved = FisherMetric(model).double().decoder
    assert moved[0].weight.dtype == torch.complex128
    assert moved[1].weight.dtype == torch.float64
    assert model[0].weight.dtype == torch.complex64
