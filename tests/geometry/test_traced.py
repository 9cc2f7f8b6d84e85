"""Programs of metrics at single points: the same numbers, never stale, no part of autograd."""

import copy
import pickle
import shutil
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    LogNormal,
    Normal,
    StudentT,
)

from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric, traced
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.linear_algebra import kept
from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.decoder import Decoder as ComplexDecoder

DOUBLE, D, LATENT = torch.float64, 11, 3


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


Z = draw(1, LATENT)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Programs are graphs that nothing compiles, which takes seconds; and what was traced."""
    seen: list[str] = []
    warnings.filterwarnings("error", message="compile: ")  # pytest restores what was
    monkeypatch.setattr(traced, "has_compiler", lambda: False)
    plain = traced.traced

    def watched(prepare: Callable[[], traced.Program], z: Tensor) -> traced.Program | None:
        seen.append(str(z.dtype))
        return plain(prepare, z)

    monkeypatch.setattr(traced, "traced", watched)
    return seen


class Decoder(nn.Module):
    """An MLP and what its outputs are to be taken for."""

    def __init__(self, law: Callable[[Tensor, Tensor], object], outputs: int = D) -> None:
        super().__init__()
        self.law = law
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(LATENT, 6), nn.Tanh(), nn.Linear(6, 6), nn.SiLU(), nn.Linear(6, outputs)
            )
        self.register_buffer("log_variance", draw(outputs, seed=7) / 2)
        self.double().requires_grad_(False)

    def forward(self, z: Tensor) -> object:
        return self.law(self.layers(z), self.log_variance)


LAWS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a tensor": lambda out, _: out,
    "constant Σ": lambda out, v: Independent(Normal(out, (v / 2).exp()), 1),
    "scalar Σ": lambda out, _: Normal(out[:, 1:], out[:, :1].exp()),
    "diagonal Σ": lambda out, v: (out, out.sin() + v),
    "Bernoulli": lambda out, _: Bernoulli(logits=out),
    "categorical": lambda out, _: Categorical(logits=out),
    "Student's t": lambda out, _: StudentT(3.0, out, out.exp()),
}


def both(decoder: nn.Module, compiled: traced.Compile = True) -> tuple[FisherMetric, FisherMetric]:
    """Compiled and not; a first call has looked whether points are each on their own."""
    metrics = FisherMetric(decoder, compile=compiled), FisherMetric(decoder)
    for metric in metrics:
        metric.metric_matrix(draw(2, LATENT, seed=9))
    return metrics


def close(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() < 1e-12 * b.abs().max()


@pytest.mark.parametrize("compiled", [True, "frozen"])
@pytest.mark.parametrize("law", LAWS)
def test_the_same_numbers_of_any_likelihood(
    law: str, compiled: traced.Compile, graphs: list[str]
) -> None:
    metric, plain = both(Decoder(LAWS[law]), compiled)
    for seed in range(3):
        z = draw(1, LATENT, seed=seed)
        close(metric.metric_matrix(z), plain.metric_matrix(z))
        close(metric.log_volume(z[0]), plain.log_volume(z[0]))
        close(metric.norm(draw(LATENT), z), plain.norm(draw(LATENT), z))
    assert graphs == ["torch.float64"]  # traced once


@pytest.mark.sampled(4)
@pytest.mark.parametrize("covariance", ["constant", "scalar", "diagonal"])
@pytest.mark.parametrize("activation", ["cubic", "split_tanh", "modulus_sigmoid"])
@pytest.mark.parametrize("compiled", [True, "frozen"])
def test_the_same_numbers_at_complex_latents(
    compiled: traced.Compile, covariance: str, activation: str, graphs: list[str]
) -> None:
    family = activation.split("_")[0] if "_" in activation else "holomorphic"
    config = VAEConfig(
        data_dim=D,
        latent_dim=LATENT,
        hidden=(6, 5),
        decoder=family,  # type: ignore[arg-type]
        activation=activation,
        covariance=covariance,  # type: ignore[arg-type]
    )
    decoder = ComplexDecoder(config).double().requires_grad_(False)
    metric, plain = FisherMetric(decoder, compile=compiled), FisherMetric(decoder)
    for seed in range(3):
        z = draw(LATENT, seed=seed, dtype=torch.complex128)
        close(metric.metric_matrix(z), plain.metric_matrix(z))
        close(metric.log_volume(z), plain.log_volume(z))
        close(metric.real_metric_matrix(z[None]), plain.real_metric_matrix(z[None]))
    assert graphs == ["torch.complex128"] * 2  # g, and g with k


def test_constants_are_computed_once(graphs: list[str]) -> None:
    metric, _ = both(Decoder(LAWS["constant Σ"]))
    metric.metric_matrix(Z)
    ((_, program),) = [
        kept
        for (name, _), kept in metric.on_real_latents._layers._kept.items()
        if isinstance(name, tuple)
    ]
    text = program.code
    assert "linalg_qr" not in text
    assert "_local_scalar_dense" not in text
    assert text.count("aten.exp.default") == 0  # of log variances


WRITES: dict[str, Callable[[nn.Module], object]] = {
    "in place": lambda m: m.layers[0].weight.mul_(1.5),
    "through data": lambda m: m.layers[4].weight.data.mul_(1.5),
    "by new data": lambda m: setattr(m.layers[2].bias, "data", m.layers[2].bias + 1),
    "a new parameter": lambda m: setattr(m.layers[0], "bias", nn.Parameter(draw(6), False)),
    "a buffer": lambda m: m.log_variance.add_(1),
    "a new buffer": lambda m: setattr(m, "log_variance", draw(D, seed=3)),
    "through numpy": lambda m: m.layers[4].weight.numpy().__imul__(1.5),
    "load_state_dict": lambda m: m.load_state_dict({k: 1.1 * x for k, x in m.state_dict().items()}),
}


@pytest.mark.parametrize("write", WRITES)
def test_written_weights_are_noticed(write: str, graphs: list[str]) -> None:
    decoder = Decoder(LAWS["constant Σ"])
    metric, plain = both(decoder)
    before = metric.metric_matrix(Z)
    WRITES[write](decoder)
    after = metric.metric_matrix(Z)
    assert (after - before).abs().max() > 1e-6
    close(after, plain.metric_matrix(Z))
    assert len(graphs) == 2


COUNTED = ("in place", "a buffer", "load_state_dict")


@pytest.mark.parametrize("write", WRITES)
def test_frozen_programs_notice_what_torch_counts(write: str, graphs: list[str]) -> None:
    decoder = Decoder(LAWS["constant Σ"])
    metric, plain = both(decoder, "frozen")
    before = metric.metric_matrix(Z)
    WRITES[write](decoder)
    if write not in COUNTED:
        assert torch.equal(metric.metric_matrix(Z), before)
        metric.forget_heads()
    close(metric.metric_matrix(Z), plain.metric_matrix(Z))
    assert len(graphs) == 2


def test_frozen_programs_notice_steps_of_optimisers_and_another_decoder(graphs: list[str]) -> None:
    decoder = Decoder(LAWS["Bernoulli"])
    metric, plain = both(decoder, "frozen")
    with torch.no_grad():
        before = metric.metric_matrix(Z)
    decoder.requires_grad_(True)
    plain.log_volume(Z).sum().backward()
    torch.optim.Adam(decoder.parameters(), lr=0.1).step()
    with torch.no_grad():
        after = metric.metric_matrix(Z)
        assert (after - before).abs().max() > 1e-3
        close(after, plain.metric_matrix(Z))
        metric.decoder = plain.decoder = Decoder(LAWS["a tensor"])
        metric.metric_matrix(draw(2, LATENT))
        close(metric.metric_matrix(Z), plain.metric_matrix(Z))
    assert len(graphs) == 3


def test_frozen_programs_read_no_weights(
    graphs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metric, plain = both(Decoder(LAWS["constant Σ"]), "frozen")
    expected = plain.metric_matrix(Z)
    metric.metric_matrix(Z)
    monkeypatch.setattr(kept, "_are_same", None)
    close(metric.metric_matrix(Z), expected)


def test_training_mode_is_noticed(graphs: list[str]) -> None:
    class Moody(Decoder):
        def forward(self, z: Tensor) -> object:
            return super().forward(z * (2 if self.training else 1))

    decoder = Moody(LAWS["constant Σ"])
    metric, plain = both(decoder)
    close(metric.metric_matrix(Z), plain.metric_matrix(Z))
    decoder.eval()
    close(metric.metric_matrix(Z), plain.metric_matrix(Z))
    assert len(graphs) == 2


def test_exchanged_and_hooked_layers_are_noticed(graphs: list[str]) -> None:
    decoder = Decoder(LAWS["constant Σ"])
    metric, plain = both(decoder)
    metric.metric_matrix(Z)
    decoder.layers[1] = nn.Softplus()
    close(metric.metric_matrix(Z), plain.metric_matrix(Z))
    hook = decoder.layers[0].register_forward_hook(lambda module, inputs, out: 2 * out)
    close(metric.metric_matrix(Z), plain.metric_matrix(Z))
    hook.remove()
    close(metric.metric_matrix(Z), plain.metric_matrix(Z))
    assert len(graphs) == 3


def test_a_decoder_that_cannot_be_copied_goes_without(graphs: list[str]) -> None:
    decoder = Decoder(LAWS["a tensor"])
    decoder.lock = threading.Lock()  # type: ignore[assignment]
    metric, plain = both(decoder)
    with pytest.warns(UserWarning, match="compile: this decoder cannot be compiled .*pickle"):
        close(metric.metric_matrix(Z), plain.metric_matrix(Z))


@pytest.mark.parametrize("compiled", [True, "frozen"])
def test_autograd_and_transforms_go_the_plain_way(
    compiled: traced.Compile, graphs: list[str]
) -> None:
    decoder = Decoder(LAWS["constant Σ"])
    metric, plain = both(decoder, compiled)
    for of in (metric, plain):
        of.on_real_latents.validate_args = of.validate_args = False
    z = Z.clone().requires_grad_()
    found, expected = (torch.autograd.grad(of.log_volume(z).sum(), z)[0] for of in (metric, plain))
    close(found, expected)
    slope = torch.func.jacfwd(metric.metric_matrix)(Z)
    close(slope, torch.func.jacfwd(plain.metric_matrix)(Z))
    close(
        torch.func.vmap(metric.metric_matrix)(draw(4, LATENT)), plain.metric_matrix(draw(4, LATENT))
    )
    decoder.layers[0].weight.requires_grad_()
    (by_weight,) = torch.autograd.grad(metric.log_volume(Z).sum(), decoder.layers[0].weight)
    assert by_weight.abs().max() > 0
    assert graphs == []
    with torch.no_grad():
        close(metric.metric_matrix(Z), plain.metric_matrix(Z))
    with torch.inference_mode():
        close(metric.metric_matrix(Z), plain.metric_matrix(Z))
    assert len(graphs) == 2
    (by_weight_again,) = torch.autograd.grad(metric.log_volume(Z).sum(), decoder.layers[0].weight)
    close(by_weight_again, by_weight)  # with a program at hand


@pytest.mark.parametrize(
    ("law", "compiled"), [("Bernoulli", True), ("Bernoulli", "frozen"), ("constant Σ", "frozen")]
)
def test_batches_have_a_program_of_one_size(
    law: str, compiled: traced.Compile, graphs: list[str]
) -> None:
    decoder = Decoder(LAWS[law])
    metric, plain = both(decoder, compiled)
    for count in (64, 33, 150, 100):  # whole, filled up, and with a rest that goes the plain way
        z = draw(count, LATENT, seed=count)
        close(metric.metric_matrix(z), plain.metric_matrix(z))
    assert metric.metric_matrix(draw(70, LATENT).reshape(7, 10, LATENT)).shape == (7, 10, 3, 3)
    assert graphs == ["torch.float64"]
    decoder.layers[0].weight.mul_(2)
    close(metric.metric_matrix(z), plain.metric_matrix(z))
    assert graphs == ["torch.float64"] * 2
    z[7] = torch.nan
    with pytest.raises(InputError, match="z: expected finite values"):
        metric.metric_matrix(z)


@pytest.mark.parametrize(
    "law",
    [
        lambda out, _: Normal(out, 1.0),
        lambda out, _: Normal(out, torch.ones_like(out)),
        lambda out, v: Normal(out, v[0].exp()),
        lambda out, v: (out, v.expand_as(out)),
        lambda out, v: (out, v[:1].expand(len(out))),
        lambda out, _: LogNormal(out, 0.5),
    ],
)
def test_batches_of_gaussians_have_a_program(
    law: Callable[[Tensor, Tensor], object], graphs: list[str]
) -> None:
    metric, plain = both(Decoder(law, 24))
    z = draw(64, LATENT)
    close(metric.metric_matrix(z), plain.metric_matrix(z))
    assert graphs == ["torch.float64"]


def test_where_no_program_can_be_batches_are_cut_as_ever(graphs: list[str]) -> None:
    class Branching(Decoder):
        def forward(self, z: Tensor) -> object:
            return super().forward(z if bool(z.sum() > 1e9) else 2 * z)

    metric = FisherRaoMetric(Branching(LAWS["a tensor"]), check=False, compile=True)
    z = draw(256, LATENT)
    with pytest.warns(UserWarning, match="compile: this decoder cannot be compiled"):
        metric.metric_matrix(z)
    assert metric._points_at_once(z, 0) > 64
    metric.forget_heads()
    assert metric._points_at_once(z, 0) == 64
    assert metric._points_at_once(z.clone().requires_grad_(), 0) > 64


@pytest.mark.parametrize("count", [1, 64])
def test_programs_have_no_metric_where_there_is_no_law(count: int, graphs: list[str]) -> None:
    decoder = Decoder(lambda out, _: out.log())
    options: dict[str, Any] = {"check": False, "validate_args": False}
    metric = FisherRaoMetric(decoder, compile=True, **options)
    z = draw(64, LATENT)[:count]
    lost = FisherRaoMetric(decoder, **options).metric_matrix(z).isnan()
    assert bool(lost.any())
    assert torch.equal(metric.metric_matrix(z).isnan(), lost)


def test_batches_of_convolutions_go_the_plain_way(graphs: list[str]) -> None:
    decoder = nn.Sequential(
        nn.Linear(LATENT, 8), nn.Unflatten(1, (2, 2, 2)), nn.SiLU(), nn.ConvTranspose2d(2, 1, 2, 2)
    )
    metric, plain = both(decoder.double().requires_grad_(False))
    z = draw(64, LATENT)
    assert torch.equal(metric.metric_matrix(z), plain.metric_matrix(z))
    assert graphs == []
    close(metric.metric_matrix(Z), plain.metric_matrix(Z))
    assert graphs == ["torch.float64"]


def test_derivatives_and_few_points_go_the_plain_way(graphs: list[str]) -> None:
    metric, plain = both(Decoder(LAWS["Bernoulli"]))
    assert torch.equal(metric.christoffels(Z), plain.christoffels(Z))
    assert torch.equal(metric.metric_matrix(draw(2, LATENT)), plain.metric_matrix(draw(2, LATENT)))
    assert metric.metric_matrix(Z[:0]).shape == (0, LATENT, LATENT)
    assert graphs == []


def test_what_cannot_be_traced_goes_without_and_says_so(graphs: list[str]) -> None:
    class Branching(Decoder):
        def forward(self, z: Tensor) -> object:
            return super().forward(z if bool(z.sum() > 100) else 2 * z)

    class Counting(Decoder):
        calls = 0

        def forward(self, z: Tensor) -> object:
            Counting.calls += 1
            return super().forward(z * Counting.calls)

    for kind, reason in ((Branching, "tracing tensor"), (Counting, "more than z and the weights")):
        metric = FisherRaoMetric(kind(LAWS["a tensor"]), check=False, compile=True)
        with pytest.warns(
            UserWarning, match=f"compile: this decoder cannot be compiled .*{reason}"
        ):
            g = metric.metric_matrix(Z)
        assert bool(torch.isfinite(g).all())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            metric.metric_matrix(Z)  # not tried again


def test_bad_numbers_have_the_message_that_they_have_without(graphs: list[str]) -> None:
    decoder = Decoder(LAWS["constant Σ"])
    metric, _ = both(decoder)
    for z in (Z * torch.nan, Z / 0):
        with pytest.raises(InputError, match="z: expected finite values"):
            metric.metric_matrix(z)
    decoder.log_variance.fill_(2000)  # an infinite variance, and a metric of zeros
    with pytest.raises(InputError, match="parameters, but Sigma of the Gaussian"):
        metric.metric_matrix(Z)
    with pytest.raises(InputError, match="compile: expected False, True or 'frozen', got 'thawed'"):
        FisherMetric(decoder, compile="thawed")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="compile: expected a decoder that is a module"):
        FisherMetric(lambda z: z, compile=True)
    with pytest.raises(InputError, match="compile: expected a decoder that is a module"):
        FisherRaoMetric(lambda z: z, compile=True)


def test_copies_and_pickles(graphs: list[str]) -> None:
    metric, _ = both(nn.Sequential(nn.Linear(LATENT, 4), nn.Tanh()).double().requires_grad_(False))
    g = metric.metric_matrix(Z)
    pickled = pickle.loads(pickle.dumps(metric))  # noqa: S301 - its own
    for other in (copy.deepcopy(metric), pickled, metric.double()):
        close(other.metric_matrix(Z), g)
        assert other.compile
    single = metric.float()
    assert (single.metric_matrix(Z.float()) - g).abs().max() < 1e-5
    assert not metric.metric_matrix(Z).requires_grad


@pytest.mark.skipif(
    not any(shutil.which(c) for c in ("c++", "g++", "clang++")), reason="needs a C++ compiler"
)
@pytest.mark.parametrize("complex_latents", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_compiled_programs(complex_latents: bool) -> None:
    if complex_latents:
        config = VAEConfig(data_dim=D, latent_dim=LATENT, hidden=(6,))
        decoder: nn.Module = ComplexDecoder(config).double().requires_grad_(False)
        metric, plain = FisherMetric(decoder, compile=True), FisherMetric(decoder)
    else:
        metric, plain = both(Decoder(LAWS["Bernoulli"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is compiled
        for seed in range(3):
            z = draw(1, LATENT, seed=seed, dtype=torch.complex128 if complex_latents else DOUBLE)
            close(metric.metric_matrix(z), plain.metric_matrix(z))
    assert torch.distributions.Distribution._validate_args
