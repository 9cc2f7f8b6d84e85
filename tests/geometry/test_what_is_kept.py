"""Whatever writes weights or parameters, what was made of them before is not used again."""

from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, parametrize, vector_to_parameters
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kahler_verify import FisherMetric, MixtureMetric, PotentialMetric
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.linear_algebra.kept import ReducedHeads
from kahler_verify.running import variants as unrolled_kernels
from tests.states import Z, decoder, mixture, potential

Write = Callable[[Tensor, Tensor], None]


def _in_place(x: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        x.copy_(value)


def _through_a_view_of_numpy(x: Tensor, value: Tensor) -> None:
    x.detach().numpy()[...] = value.numpy()


def _by_a_new_tensor(x: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        x.set_(value.clone())


def _by_swapping(x: Tensor, value: Tensor) -> None:
    like = nn.Parameter(value.clone()) if isinstance(x, nn.Parameter) else value.clone()
    torch.utils.swap_tensors(x, like)


def _in_shared_memory(x: Tensor, value: Tensor) -> None:
    """By another process, which inherits the memory."""
    x.data = x.detach().clone().share_memory_()
    _in_a_child(partial(x.detach().copy_, value))


def _in_a_child(write: Callable[[], object]) -> None:
    child = get_context("fork").Process(target=write)
    child.start()
    child.join(30)
    assert child.exitcode == 0


WRITES: dict[str, Write] = {
    "in place": _in_place,
    "through data": lambda x, value: x.data.copy_(value),
    "through detach": lambda x, value: x.detach().copy_(value),
    "by new data": lambda x, value: setattr(x, "data", value.clone()),
    "to the storage": lambda x, value: x.untyped_storage().copy_(value.clone().untyped_storage()),
    "by another storage": _by_a_new_tensor,
    "by swapping": _by_swapping,
    "through numpy": _through_a_view_of_numpy,
    "through dlpack": lambda x, value: torch.from_dlpack(x.detach()).copy_(value),
    "foreach": lambda x, value: torch._foreach_copy_([x.detach()], [value]),
    "in shared memory": _in_shared_memory,
}


def _check(
    metric: HermitianMetric, fresh: Callable[[], HermitianMetric], write: Callable[[], object]
) -> None:
    """The metric follows what is written, with gradients and without, and follows it back."""
    with torch.no_grad():
        before = [metric.metric_matrix(Z), metric.log_volume(Z), metric.scalar_curvature(Z)]
        metric.metric_matrix(Z)
    write()
    with torch.no_grad():
        after = [metric.metric_matrix(Z), metric.log_volume(Z), metric.scalar_curvature(Z)]
        other = fresh()
        expected = [other.metric_matrix(Z), other.log_volume(Z), other.scalar_curvature(Z)]
    for now, right, old in zip(after, expected, before, strict=True):
        torch.testing.assert_close(now, right, rtol=1e-10, atol=1e-10)
        assert (now - old).abs().max() > 1e-4
    slopes = []
    for each in (metric, other):
        z = Z.clone().requires_grad_()
        slopes += torch.autograd.grad(each.log_volume(z).sum(), z)
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        *[("mean_head.weight_pairs", way) for way in WRITES],
        ("log_variance_head.weight_pairs", "through data"),
        ("log_variance_head.bias_pairs", "through numpy"),
        ("layers.0.weight_pairs", "to the storage"),
        ("layers.2.weight_pairs", "through data"),
        ("layers.2.bias_pairs", "through detach"),
    ],
)
def test_a_decoders_weights(name: str, way: str) -> None:
    model = decoder()
    x = model.get_parameter(name)
    value = x.detach().clone() * 1.3 + 0.1
    metric = FisherMetric(model, fold="always")
    _check(metric, lambda: FisherMetric(model), lambda: WRITES[way](x, value))


@pytest.mark.parametrize("way", WRITES)
def test_a_constant_variance(way: str) -> None:
    model = decoder("cubic", covariance="constant")
    x = model.get_parameter("constant_log_variance")
    value = torch.linspace(-0.5, 0.7, 24, dtype=torch.float64)
    metric = FisherMetric(model, fold="always")
    _check(metric, lambda: FisherMetric(model), lambda: WRITES[way](x, value))


@pytest.fixture
def _uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Unrolled kernels as they stand: compilers do not touch what is kept."""
    monkeypatch.setattr(unrolled_kernels, "compile_kernel", lambda kernel: kernel)
    unrolled_kernels._compiled.cache_clear()
    yield
    unrolled_kernels._compiled.cache_clear()


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("way", WRITES)
@pytest.mark.parametrize(
    ("name", "diagonal", "unrolled"),
    [
        ("weights", False, True),
        ("centres", False, False),
        ("precisions", False, True),
        ("precisions", True, False),
    ],
)
def test_a_mixtures_parameters(name: str, diagonal: bool, unrolled: bool, way: str) -> None:
    metric = mixture(diagonal=diagonal, compile=unrolled)
    x = getattr(metric, name)
    factor = torch.tensor([0.5, 1.5, 1.2], dtype=torch.float64)
    value = x * factor.view(-1, *[1] * (x.ndim - 1))

    def fresh() -> MixtureMetric:
        parts = metric.weights, metric.centres, metric.precisions
        return MixtureMetric(*parts, validate_args=False)

    _check(metric, fresh, lambda: WRITES[way](x, value))


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("way", WRITES)
@pytest.mark.parametrize("unrolled", [False, True])
def test_a_potentials_parameters(unrolled: bool, way: str) -> None:
    metric = potential(compile=unrolled)
    x = metric.parameters["P"]
    value = 1.7 * x + torch.eye(2)

    def fresh() -> PotentialMetric:
        return PotentialMetric(metric.kernels.module, **metric.parameters)

    _check(metric, fresh, lambda: WRITES[way](x, value))


# Whole modules


def _by_vector(model: nn.Module) -> None:
    vector_to_parameters(
        1.2 * parameters_to_vector(model.parameters()).detach(), model.parameters()
    )


def _by_assigned_state(model: nn.Module) -> None:
    state = {name: 1.2 * x for name, x in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def _by_optimizer(kind: type[torch.optim.Optimizer], model: nn.Module, **options: bool) -> None:
    for x in model.parameters():
        x.grad = torch.full_like(x, 0.3)
    kind(model.parameters(), lr=0.1, **options).step()


MODULES: dict[str, Callable[[nn.Module], None]] = {
    "vector_to_parameters": _by_vector,
    "load_state_dict, assigned": _by_assigned_state,
    "SGD, fused": lambda model: _by_optimizer(torch.optim.SGD, model, fused=True),
    "Adam, fused": lambda model: _by_optimizer(torch.optim.Adam, model, fused=True),
    "AdamW, foreach": lambda model: _by_optimizer(torch.optim.AdamW, model, foreach=True),
    "Adagrad, fused": lambda model: _by_optimizer(torch.optim.Adagrad, model, fused=True),
}


@pytest.mark.parametrize("way", MODULES)
@pytest.mark.parametrize("covariance", ["constant", "scalar", "diagonal"])
def test_all_weights_of_a_decoder(covariance: str, way: str) -> None:
    model = decoder(covariance=covariance)
    metric = FisherMetric(model, fold="always")
    _check(metric, lambda: FisherMetric(model), lambda: MODULES[way](model))


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.5)])
def test_averaged_weights(average: Callable[..., None] | None) -> None:
    model = decoder()
    averaged = AveragedModel(model, multi_avg_fn=average)
    averaged.update_parameters(model)

    def update() -> None:
        with torch.no_grad():
            for x in model.parameters():
                x.mul_(1.3)
        averaged.update_parameters(model)

    metric = FisherMetric(averaged.module, fold="always")
    _check(metric, lambda: FisherMetric(averaged.module), update)


def test_weights_that_a_call_replaces() -> None:
    """torch.func.functional_call, around a module that asks for a metric."""

    class Volume(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder()
            self.metric = FisherMetric(self.decoder, fold="always")

        def forward(self, z: Tensor) -> Tensor:
            return self.metric.log_volume(z)

    module = Volume()
    weights = {name: x.detach() for name, x in module.named_parameters()}
    others = {name: 1.2 * x for name, x in weights.items()}
    with torch.no_grad():
        own = module(Z)
        replaced = torch.func.functional_call(module, others, (Z,))
        assert (replaced - own).abs().max() > 1e-3
        torch.testing.assert_close(module(Z), own)
        module.load_state_dict(others, strict=False)
        torch.testing.assert_close(module(Z), replaced)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(module, weights, (Z,)).sum()

    slopes = torch.func.grad(loss)(others)
    module.zero_grad()
    module(Z).sum().backward()
    for name, x in module.named_parameters():
        torch.testing.assert_close(slopes[name], torch.zeros_like(x) if x.grad is None else x.grad)


def test_parametrized_weights() -> None:
    class Halved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 2

    model = decoder()
    metric = FisherMetric(model, fold="always")

    def write() -> None:
        parametrize.register_parametrization(model.mean_head, "weight_pairs", Halved())

    _check(metric, lambda: FisherMetric(model), write)
    raw = model.mean_head.parametrizations["weight_pairs"].original
    _check(metric, lambda: FisherMetric(model), lambda: raw.data.mul_(1.5))


def test_tied_weights() -> None:
    model = decoder()
    model.log_variance_head.weight_pairs = model.mean_head.weight_pairs
    metric = FisherMetric(model, fold="always")
    write = partial(model.log_variance_head.weight_pairs.data.mul_, 1.3)
    _check(metric, lambda: FisherMetric(model), write)


def test_weights_in_a_file_that_others_write(tmp_path: Path) -> None:
    model = decoder()
    weight = model.mean_head.weight_pairs
    path = tmp_path / "weights"
    weight.detach().numpy().tofile(path)
    mapped = torch.from_file(str(path), shared=True, size=weight.numel(), dtype=torch.float64)
    weight.data = mapped.view_as(weight)
    elsewhere = np.memmap(path, dtype=np.float64, mode="r+")

    def write() -> None:
        elsewhere[:] *= 1.4

    _check(FisherMetric(model, fold="always"), lambda: FisherMetric(model), write)


# What keeps things


def test_values_are_compared_as_they_stand_in_memory() -> None:
    kept, made = ReducedHeads(), []

    def look(x: Tensor) -> float:
        return kept.get("x", [x], lambda x: made.append(0) or float(x.real.flatten()[0]))

    x = torch.tensor([[1.0, torch.nan], [3.0, 4.0]])
    for same in (x, x, x.clone(), x.mT.contiguous().mT):
        look(same)
    assert len(made) == 1
    for n, other in enumerate([x.double(), x.flatten(), x + 1, x.to(torch.complex64)], 2):
        look(other)
        assert len(made) == n
    z = torch.tensor([1 + 2j, 3 - 1j])
    look(z)
    look(z.conj())
    assert len(made) == 7
    look(z.conj().resolve_conj())
    assert len(made) == 7


def test_what_is_kept_does_not_read_weights_later() -> None:
    """Forms that are made late are made of the weights that were compared."""
    model = decoder("cubic")
    metric, z = FisherMetric(model, fold="always"), Z.clone().requires_grad_()
    model.requires_grad_(False)
    expected = torch.autograd.grad(metric.log_volume(z).sum(), z)[0]
    volume = metric.log_volume(z).sum()
    own = {name: x.clone() for name, x in model.named_parameters()}
    for x in model.parameters():
        x.data.mul_(3)
    volume.backward()
    for name, x in model.named_parameters():
        x.data.copy_(own[name])
    torch.testing.assert_close(z.grad, expected)
    z.grad = None
    metric.log_volume(z).sum().backward()
    torch.testing.assert_close(z.grad, expected)
