"""Threads, autocast, default dtypes and devices: nothing around a call changes what it says."""

import asyncio
import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.distributions import Distribution, Normal

from kahler_verify import ComplexNormal, FisherMetric
from kahler_verify.errors import InputError
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.jets.fields import check_decoder, decoder_jets, likelihood_structure
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.torch_state import alone
from tests.states import METRICS, RealLikelihood, RealNetwork, Z, answers, decoder, numbers, single

HALVES = [torch.bfloat16, torch.float16]


@cache
def expected(name: str) -> dict[str, Tensor]:
    return answers(METRICS[name](), Z)


FEW = ("metric_matrix", "log_volume", "christoffels")


def _few(metric: HermitianMetric, z: Tensor) -> dict[str, Tensor]:
    return {each: getattr(metric, each)(z) for each in FEW}


def _agree(got: dict[str, Tensor], right: dict[str, Tensor], tolerance: float = 1e-9) -> None:
    assert got.keys() == right.keys()
    for name, x in right.items():
        assert got[name].dtype == x.dtype
        torch.testing.assert_close(got[name], x, rtol=tolerance, atol=tolerance, msg=name)


@contextmanager
def unchanged() -> Iterator[None]:
    """All that torch keeps for the process or the thread is left as it was."""

    def state() -> tuple[object, ...]:
        return (
            Distribution._validate_args,
            forward_ad._current_level,
            torch._functorch.eager_transforms.JVP_NESTING,
            torch._C._functorch.maybe_current_level(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.get_float32_matmul_precision(),
            torch.backends.mkldnn.enabled,
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().sum().item(),
            random.getstate(),
            list(warnings.filters),
        )

    before = state()
    try:
        yield
    finally:
        assert state() == before


# ------------------------------------------------------------------ threads


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", METRICS)
def test_one_metric_in_many_threads(name: str) -> None:
    metric, right = METRICS[name](), expected(name)
    start = threading.Barrier(4)

    def work(_: int) -> None:
        start.wait()
        _agree(answers(metric, Z), right)
        z = Z.clone().requires_grad_()
        metric.log_volume(z).sum().backward()
        assert bool(torch.isfinite(z.grad).all())

    with unchanged(), ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_many_metrics_in_many_threads() -> None:
    metrics = {name: METRICS[name]() for name in METRICS}

    def work(name: str) -> None:
        _agree(answers(metrics[name], Z), expected(name))

    with unchanged(), ThreadPoolExecutor(8) as pool:
        list(pool.map(work, list(metrics)))


def test_a_metric_in_tasks() -> None:
    metric, right = METRICS["a user's decoder"](), expected("a user's decoder")

    async def both() -> list[Tensor]:
        loop = asyncio.get_running_loop()
        tasks = [loop.run_in_executor(None, metric.metric_matrix, Z) for _ in range(3)]
        return [*await asyncio.gather(*tasks), await asyncio.to_thread(metric.metric_matrix, Z)]

    with unchanged():
        for g in asyncio.run(both()):
            torch.testing.assert_close(g, right["metric_matrix"])


def test_weights_that_change_meanwhile_are_seen_by_all_threads() -> None:
    model = decoder("cubic", covariance="constant")
    metric, weight = FisherMetric(model, fold="always"), model.mean_head.weight_pairs
    with torch.no_grad():
        right = metric.metric_matrix(Z)

    def look(factor: float) -> None:
        with torch.no_grad():
            torch.testing.assert_close(metric.metric_matrix(Z), factor**2 * right)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            weight.data.mul_(2)
            list(pool.map(look, 4 * [2.0]))
            weight.data.div_(2)
            list(pool.map(look, 4 * [1.0]))


def test_pole_distances_in_many_threads() -> None:
    model = decoder("tanh")
    points = [0.3 * numbers(n, 2, seed=n) for n in range(1, 9)]
    right = [model.pole_distance(z) for z in points]

    def work(_: int) -> None:
        for z, distance in zip(points, right, strict=True):
            torch.testing.assert_close(model.pole_distance(z), distance)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_models_made_in_many_threads_are_those_of_their_seeds() -> None:
    def weights(seed: int) -> Tensor:
        config = VAEConfig(data_dim=20, latent_dim=2, hidden=(30,), seed=seed)
        return torch.cat([x.detach().flatten() for x in ComplexVAE(config).parameters()])

    right = [weights(seed) for seed in range(4)]
    with unchanged(), ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, own in zip(pool.map(weights, range(4)), right, strict=True):
                assert torch.equal(got, own)


def test_a_child_may_fork_while_another_thread_differentiates() -> None:
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with alone():
            inside.set()
            done.wait(30)

    def compute() -> None:
        METRICS["a user's decoder"]().metric_matrix(Z)
        os._exit(0)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    child = get_context("fork").Process(target=compute)
    child.start()
    child.join(30)
    done.set()
    holder.join()
    assert child.exitcode == 0


class Failing(RealNetwork):
    """Fails from its third call on, inside of whatever differentiates it."""

    calls = 0

    def forward(self, z: Tensor) -> ComplexNormal:
        self.calls += 1
        if self.calls > 2:
            raise ZeroDivisionError
        return super().forward(z)


def test_after_an_error_all_is_as_before() -> None:
    for check in (True, False):
        metric = FisherMetric(Failing().double(), check=check)
        with unchanged(), pytest.raises(ZeroDivisionError):
            [metric.metric_matrix(Z) for _ in range(3)]
    with unchanged(), pytest.raises(InputError), torch.autocast("cpu"):
        METRICS["mixture"]().metric_matrix(Z * torch.nan)
    _agree(answers(METRICS["a user's decoder"](), Z), expected("a user's decoder"))


def test_validation_of_others_comes_back_after_the_last_thread() -> None:
    class Slow(RealLikelihood):
        def forward(self, z: Tensor) -> Distribution:
            time.sleep(random.Random(len(z)).random() / 50)
            return super().forward(z)

    metric = FisherMetric(Slow().double(), check=False)
    threads = [threading.Thread(target=metric.metric_matrix, args=(Z,)) for _ in range(4)]
    for n, thread in enumerate(threads):
        thread.start()
        time.sleep(0.01 * n)
    for thread in threads:
        thread.join()
    with pytest.raises(ValueError, match="scale"):
        Normal(0.0, -1.0)


# ------------------------------------------------------------------ autocast


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "half"),
    [*[(name, torch.bfloat16) for name in METRICS], ("mixture", torch.float16)],
)
def test_autocast_is_left(name: str, half: torch.dtype) -> None:
    make, z = METRICS[name], Z.to(torch.complex64)
    right = answers(single(make()), z)
    with unchanged(), torch.autocast("cpu", dtype=half):
        got, double = answers(single(make()), z), answers(make(), Z)
        assert torch.is_autocast_enabled("cpu")
    _agree(got, right, 1e-6)
    _agree(double, expected(name))


@pytest.mark.parametrize("name", METRICS)
def test_gradients_are_not_cast_to_half_precision(name: str) -> None:
    """Not of a call under autocast; and a backward pass under autocast is refused."""
    metric, z = single(METRICS[name]()), Z.to(torch.complex64).requires_grad_()
    (right,) = torch.autograd.grad(metric.log_volume(z).sum(), z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        volume = metric.log_volume(z).sum()
        with pytest.raises(InputError, match="autocast"):
            volume.backward(retain_graph=True)
    (got,) = torch.autograd.grad(volume, z)
    torch.testing.assert_close(got, right)


def test_jets_and_models_leave_autocast() -> None:
    network, z = RealNetwork(), Z.to(torch.complex64)
    model = ComplexVAE(VAEConfig(data_dim=6, latent_dim=2, hidden=(8,), seed=2))
    x = numbers(4, 6, dtype=torch.complex64)
    improper = ComplexNormal.from_covariance(
        x, torch.eye(6, dtype=x.dtype), relation=0.3j * torch.eye(6, dtype=x.dtype)
    )

    def all_of() -> list[Tensor]:
        torch.manual_seed(0)
        return [
            *decoder_jets(network, z, ["mu_d", "Sigma_db"]).values(),
            *decoder_jets(model.decoder, z, ["mu_d", "Sigma_db"]).values(),
            *model.encoder(x),
            *model.decoder.parameters_at(z),
            model.decoder.pole_distance(z),
            *model.elbo_terms(x, generator=torch.Generator().manual_seed(0)),
            improper.rsample(),
        ]

    right = all_of()
    for half in HALVES:
        with torch.autocast("cpu", dtype=half):
            assert likelihood_structure(network, z) == check_decoder(network, z[:1])
            for got, own in zip(all_of(), right, strict=True):
                assert got.dtype == own.dtype
                torch.testing.assert_close(got, own)


# ------------------------------------------------------------------ defaults and modes


def _default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _matmul_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


MODES: dict[str, Callable[[], object]] = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "default device": lambda: torch.device("meta"),
    "default dtype": contextmanager(_default_dtype),
    "matmul precision": contextmanager(_matmul_precision),
}


@pytest.mark.sampled(20)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", METRICS)
def test_modes(name: str, mode: str) -> None:
    fresh, used = METRICS[name](), METRICS[name]()
    lower, z = single(METRICS[name]()), Z.to(torch.complex64)
    _few(used, Z)
    right = {each: expected(name)[each] for each in FEW}
    with MODES[mode]():
        got, again, low = _few(fresh, Z), _few(used, Z), _few(lower, z)
    _agree(got, right)
    _agree(again, right)
    _agree(_few(fresh, Z), right)
    assert low["metric_matrix"].dtype == torch.complex64
    for each, x in low.items():
        assert (x - right[each]).abs().max() < 1e-3 * right[each].abs().max()


def test_models_do_not_depend_on_defaults() -> None:
    config = VAEConfig(data_dim=6, latent_dim=2, hidden=(8,), seed=2)
    right = ComplexVAE(config).state_dict()
    with unchanged(), torch.device("meta"):
        assert ComplexVAE(config).decoder.scale.is_meta
    torch.set_default_device("cpu")
    try:
        for name, x in ComplexVAE(config).state_dict().items():
            assert torch.equal(x, right[name])
    finally:
        torch.set_default_device(None)


def test_the_seed_of_a_model_leaves_generators_alone() -> None:
    with unchanged():
        ComplexVAE(VAEConfig(data_dim=6, latent_dim=2, hidden=(8,)))
