"""The check of a decoder: right ones of any scale pass, wrong ones are refused with their cause."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kahler_verify import FisherMetric
from kahler_verify.errors import InputError
from kahler_verify.jets import check_decoder
from kahler_verify.models import ComplexVAE, VAEConfig

Z = torch.tensor([[0.3 - 0.7j, -1.1 + 0.2j]], dtype=torch.complex128)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


W = torch.view_as_complex(normal(5, 2, 2))
REAL = normal(8, 4, seed=1) / 2
CENTRES = normal(6, 8, seed=2)


# ------------------------------------------------------------- derivatives that vanish; any scale


def bias_free(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        mean = activation(z @ W.to(z.dtype).mT)
        return mean, 0 * mean.real

    return decoder


def constant(z: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.ones(*z.shape[:-1], 3, dtype=z.dtype)
    return mean, torch.zeros_like(mean.real)


RIGHT = {
    "linear": (bias_free(lambda h: h), 0 * Z),
    "tanh": (bias_free(torch.tanh), 0 * Z),
    "cubic": (bias_free(lambda h: h * h * h), 0 * Z),
    "a saddle": (bias_free(lambda h: h * h.conj()), 0 * Z),
    "constant": (constant, 0 * Z),
    "exp(1000 z)": (lambda z: ((1000 * z).exp(), 0 * z.real), 0 * Z + 1e-3),
    "exp(-1000 z)": (lambda z: ((-1000 * z).exp(), 0 * z.real), 0 * Z + 1e-3),
    "sin(10⁵ z)": (lambda z: ((1e5 * z.real).sin().to(z.dtype), 0 * z.real), Z),
    "far out": (bias_free(lambda h: (1e-6 * h).sin()), 1e6 * Z),
    "large": (bias_free(lambda h: 1e20 * h), Z),
    "small": (bias_free(lambda h: 1e-20 * h * h), Z),
    "beside an offset": (bias_free(lambda h: 1e6 + torch.tanh(h)), Z),
}


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", RIGHT)
def test_right_decoders_pass_whatever_vanishes_and_at_any_scale(name: str, order: int) -> None:
    decoder, z = RIGHT[name]
    check_decoder(decoder, z, order=order)


@pytest.mark.parametrize("name", ["linear", "tanh", "a saddle", "constant", "beside an offset"])
def test_right_decoders_pass_in_single_precision(name: str) -> None:
    decoder, z = RIGHT[name]
    if name == "beside an offset":
        decoder = bias_free(lambda h: 10 + torch.tanh(h))
    check_decoder(decoder, z.to(torch.complex64), order=2)


# ------------------------------------------------------------- what must be caught


class Memo:
    """The last output of the same shape."""

    def __init__(self) -> None:
        self.known: dict[torch.Size, tuple[Tensor, Tensor]] = {}

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if z.shape not in self.known:
            self.known[z.shape] = z * z, z.real
        return self.known[z.shape]


def spd(z: Tensor) -> Tensor:
    """Positive definite matrices that depend on z."""
    x = torch.cat([z.real, z.imag], -1)
    return torch.diag_embed(2 + x * x) + 0.3 * (x[..., None] * x[..., None, :])


class ScriptedBackward(torch.autograd.Function):
    """A backward that is off by one part in a hundred, in every mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return 2.02 * ctx.saved_tensors[0] * grad

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return 2.02 * ctx.saved_tensors[0] * tangent


def with_mean(mean: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda z: (mean(z), z.real)


def solved(z: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.cat([z.real, z.imag], -1)
    return torch.linalg.solve(spd(z), x[..., None])[..., 0], x


def log_dets(z: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.cat([z.real, z.imag], -1)
    return x, torch.linalg.slogdet(spd(z))[1]


WRONG = {
    "detach": (with_mean(lambda z: (z.detach() * z).sin()), "differ by"),
    "detach of the variance": (lambda z: (z, z.real.detach() * z.real), "differ by"),
    "a batch's mean": (lambda z: (z - z.mean(0, keepdim=True), z.real), "influence one another"),
    "a batch's order": (lambda z: (z + z[-1:], z.real), "influence one another"),
    "a memory": (Memo(), "vmap|influence|torch cannot"),
    "random": (with_mean(lambda z: z + 1e-6 * torch.randn(z.shape)), "random|vmap"),
    "a wrong backward": (with_mean(lambda z: ScriptedBackward.apply(z.real) + 0j), "differ by"),
    "solve": (solved, "linalg.solve"),
    "slogdet": (log_dets, "slogdet"),
    "no derivative": (with_mean(lambda z: torch.special.bessel_j0(z.real) + 0j), "differ by"),
    "a straight-through estimator": (
        with_mean(lambda z: (z.real + (z.real.round() - z.real).detach()) + 0j), "differ by",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_decoders_are_refused_for_the_metric_already(name: str) -> None:
    """At one point, and at 0, where all derivatives of some vanish by chance."""
    decoder, message = WRONG[name]
    for z in (Z, 0 * Z):
        with pytest.raises(InputError, match=message):
            check_decoder(decoder, z, order=1)


# ------------------------------------------------------------- switched off


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8).double(), nn.Linear(8, 3).double()

    def through(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.last(torch.tanh(self.first(torch.cat([z.real, z.imag], -1))))
        return mean, 0.1 * mean

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.through(z)


class NoGrad(Plain):
    @torch.no_grad()
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.through(z)


class Inference(Plain):
    @torch.inference_mode()
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.through(z)


class Inside(Plain):
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.through(z)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = NoGrad()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.body(z)
        return mean + z.real.sum(-1, keepdim=True), log_variance


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (NoGrad(), "@torch.no_grad around its forward"),
        (torch.no_grad()(Plain().through), "@torch.no_grad around the decoder"),
        (Inference(), "@torch.inference_mode around its forward"),
        (Inner(), "@torch.no_grad around the forward of its layer 'body'"),
        (Inside(), "torch.no_grad, .detach"),
        (lambda z: (z.detach(), z.real.detach()), "torch.no_grad, .detach"),
    ],
)
def test_what_switches_derivatives_off_is_named(decoder: object, message: str) -> None:
    for check in (check_decoder, lambda d, z: FisherMetric(d).metric_matrix(z)):
        with pytest.raises(InputError, match=message):
            check(decoder, Z)


def test_a_vae_in_the_place_of_its_decoder_is_told_so() -> None:
    vae = ComplexVAE(VAEConfig(data_dim=3, latent_dim=2, hidden=(4,)))
    with pytest.raises(InputError, match="it is the decoder that is wanted"):
        FisherMetric(vae)

    class Theirs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(3, 4).double(), Plain()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            code = self.encoder(x)
            return code, code, code

    with pytest.raises(InputError, match="it is the decoder that is wanted"):
        FisherMetric(Theirs()).metric_matrix(Z)


# ------------------------------------------------------------- functions without forward rules


def features(z: Tensor) -> Tensor:
    return torch.cat([z.real, z.imag], -1) @ REAL.mT


GRID = torch.rand(1, 2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def attention(x: Tensor) -> Tensor:
    y = x.reshape(-1, 1, 2, 4)
    return F.scaled_dot_product_attention(y, y, y).flatten(1)


def attention_by_hand(x: Tensor) -> Tensor:
    y = x.reshape(-1, 2, 4)
    return ((y @ y.mT / 2).softmax(-1) @ y).flatten(1)


def normalised(x: Tensor) -> Tensor:
    y = x - x.mean(-1, keepdim=True)
    return y * torch.rsqrt((y * y).mean(-1, keepdim=True) + 1e-5)


def sampled(x: Tensor) -> Tensor:
    image = x.reshape(-1, 1, 2, 4)
    return F.grid_sample(
        image, 1.6 * GRID.expand(len(x), -1, -1, -1) - 0.8, align_corners=False
    ).flatten(1)


# linear in x: its matrix, by columns
MATRIX = sampled(torch.eye(8, dtype=torch.float64))

# the function, the same one by hand, whether the highest order needs another mode
RULES = {
    "silu": (F.silu, lambda x: x * torch.sigmoid(x), False),
    "mish": (F.mish, lambda x: x * torch.tanh(torch.log1p(x.exp())), False),
    "glu": (F.glu, lambda x: x[..., :4] * torch.sigmoid(x[..., 4:]), True),
    "layer_norm": (lambda x: F.layer_norm(x, (8,)), normalised, True),
    "instance_norm": (
        lambda x: F.instance_norm(x.reshape(-1, 2, 4)).flatten(1),
        lambda x: normalised(x.reshape(-1, 2, 4)).flatten(1),
        True,
    ),
    "cdist": (
        lambda x: torch.cdist(x[:, None], CENTRES[None])[:, 0],
        lambda x: (x[:, None] - CENTRES).square().sum(-1).sqrt(),
        True,
    ),
    "attention": (attention, attention_by_hand, False),
    "grid_sample": (sampled, lambda x: x @ MATRIX, True),
}


def decoder_with(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = function(features(z))
        return hidden + 0.1 * hidden * hidden, 0.2 * hidden

    return decoder


@pytest.mark.sampled(8)
@pytest.mark.parametrize("recording", [False, pytest.param(True, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", RULES)
def test_missing_and_wrong_rules_are_gone_around(name: str, recording: bool) -> None:
    function, by_hand, another = RULES[name]
    metric, known = (FisherMetric(decoder_with(f)) for f in (function, by_hand))
    with torch.set_grad_enabled(recording):
        for quantity in ("metric_matrix", "christoffels", "scalar_curvature"):
            ours = getattr(metric, quantity)(Z)
            torch.testing.assert_close(ours, getattr(known, quantity)(Z), rtol=1e-8, atol=1e-8)
            assert not ours.requires_grad
    assert ("in the mode" in repr(metric)) == another


def test_another_mode_is_said_once() -> None:
    metric = FisherMetric(decoder_with(RULES["grid_sample"][0]))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        metric.metric_matrix(Z)
        metric.christoffels(Z)
        metric.metric_matrix(Z)
    said = [str(w.message) for w in seen if "mode 'reverse'" in str(w.message)]
    assert len(said) == 1
    assert "grid_sampler" in said[0]


def test_multihead_attention_has_a_metric_in_evaluation_mode() -> None:
    """Its fast path and its fused kernel have no forward rule; neither stays switched off."""
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double().eval()

    def attended(x: Tensor) -> Tensor:
        y = x.reshape(-1, 2, 4)
        return layer(y, y, y, need_weights=False)[0].flatten(1)

    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    with torch.no_grad():
        FisherMetric(decoder_with(attended)).scalar_curvature(Z)
    assert before == (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
    )


def test_what_no_mode_can_is_refused_by_name() -> None:
    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        x = features(z)
        return torch.cdist(x[:, None], CENTRES[None], p=3.0)[:, 0], x[..., :6]

    FisherMetric(decoder).metric_matrix(Z)
    with pytest.raises(InputError, match=r"order 2.*cdist.*elementary"):
        FisherMetric(decoder).christoffels(Z)


# ------------------------------------------------------------- what it costs

LARGE = """
import sys, torch
from pathlib import Path
from torch import nn
from kahler_verify.jets.checks import examine

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

d, D = 64, 50_000
body, mean, spread = nn.Linear(2 * d, 128), nn.Linear(128, D), nn.Linear(128, D)
def decoder(z):
    hidden = torch.tanh(body(torch.cat([z.real, z.imag], -1)))
    return mean(hidden), 0.01 * spread(hidden)
examine(lambda z: (z, z.real), torch.ones(1, 2, dtype=torch.complex64), order=2)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kilobytes("VmRSS")
examine(decoder, torch.zeros(1, d, dtype=torch.complex64), order=int(sys.argv[1]))
print((kilobytes("VmHWM") - before) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("order", [pytest.param(1, marks=pytest.mark.thorough), 2])
def test_the_check_of_a_large_decoder_stays_within_its_budget(order: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(order)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 512
