"""The Fisher-Rao metric of ordinary decoders of real latents: ours, and torch's rivals.

Rivals work in chunks of about 512 tangent rows, on weights laid out beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.func import jacfwd, jvp, vmap

from benchmarks.decoder_rivals import chunks_of
from benchmarks.problem import Problem, Rival
from benchmarks.programs import FOLDED, FROZEN, compiled_programs
from benchmarks.timing import Run
from kahler_verify.geometry import FisherMetric

# By D: channels and side of the first image of a convolutional decoder, and channels after that;
# each transposed convolution doubles the side.
IMAGES = {64: (32, 4, (1,)), 784: (64, 7, (32, 1)), 3072: (64, 4, (32, 16, 3))}
Route = Callable[["RealDecoder", Tensor], Tensor]  # decoder, points to the metric [b, d, d]


class RealDecoder(nn.Module):
    """z [B, d] to a Gaussian of constant diagonal Σ, or to Bernoulli outputs.

    Attributes:
        layers: to the mean, or to logits: linear layers and tanh ("mlp"), or as in DCGAN transposed
            convolutions of 4 × 4, batch norms and SiLU ("conv").
        log_variance: [D] of the Gaussian, else None.
    """

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        d, D = sizes["d"], sizes["D"]
        if sizes["network"] == "mlp":
            h = sizes["h"]
            self.layers = nn.Sequential(
                nn.Linear(d, h), nn.Tanh(), nn.Linear(h, h), nn.Tanh(), nn.Linear(h, D)
            )
        else:
            channels, side, after = IMAGES[D]
            layers: list[nn.Module] = [
                nn.Linear(d, channels * side * side),
                nn.Unflatten(1, (channels, side, side)),
            ]
            for outer in after:
                layers += [
                    nn.BatchNorm2d(channels),
                    nn.SiLU(),
                    nn.ConvTranspose2d(channels, outer, 4, 2, 1),
                ]
                channels = outer
            self.layers = nn.Sequential(*layers, nn.Flatten())
        gaussian = sizes["likelihood"] == "gaussian"
        self.log_variance = nn.Parameter(0.3 * torch.randn(D)) if gaussian else None

    def forward(self, z: Tensor) -> Distribution:
        """The law of x [B, D]."""
        out = self.layers(z)
        if self.log_variance is None:
            return Independent(Bernoulli(logits=out, validate_args=False), 1, validate_args=False)
        scale = (self.log_variance / 2).exp()
        return Independent(Normal(out, scale, validate_args=False), 1, validate_args=False)

    def weights(self, out: Tensor) -> Tensor:
        """√F of each output [B or 1, D], F its Fisher information: 1/Σ, or p(1 - p)."""
        if self.log_variance is None:
            p = out.sigmoid()
            return (p * (1 - p)).sqrt()
        return (-self.log_variance / 2).exp()[None]


def build_real_decoder(
    sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> RealDecoder:
    """A decoder with random weights, the same in every dtype, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = RealDecoder(sizes).eval().requires_grad_(False)
        for layer in decoder.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for numbers in (layer.running_mean, layer.bias):
                    assert numbers is not None
                    numbers.normal_(0, 0.1)
                assert layer.running_var is not None
                layer.running_var.uniform_(0.5, 1.5)
    return decoder.to(device, dtype)


# ------------------------------------------------------------------------------ metrics of a chunk
def contracted(decoder: RealDecoder, jacobian: Tensor, out: Tensor) -> Tensor:
    """g [b, d, d] of ∂ of the outputs as rows [b, d, D]."""
    rows = jacobian * decoder.weights(out).unsqueeze(1)
    return rows @ rows.mT


def jacfwd_metric(decoder: RealDecoder, z: Tensor) -> Tensor:
    """JᵀFJ by vmap(jacfwd)."""

    def outputs(z: Tensor) -> tuple[Tensor, Tensor]:
        out = decoder.layers(z[None])[0]
        return out, out

    jacobian, out = vmap(jacfwd(outputs, has_aux=True))(z)
    return contracted(decoder, jacobian.mT, out)


def jvp_metric(decoder: RealDecoder, z: Tensor) -> Tensor:
    """The same by one forward-mode pass for each direction."""
    basis = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)

    def along(v: Tensor) -> tuple[Tensor, Tensor]:
        out, tangent = jvp(decoder.layers, (z,), (v.expand_as(z),))
        return tangent, out

    jacobian, out = vmap(along, out_dims=(1, None))(basis)
    return contracted(decoder, jacobian, out)


def hidden_tangents(layers: list[nn.Module], z: Tensor) -> tuple[Tensor, Tensor]:
    """Values [b, ...] and tangents [b, d, ...], multiplied layer by layer."""
    rows: Tensor | None = None
    for layer in layers:
        if isinstance(layer, nn.Linear):
            z = layer(z)
            rows = (
                layer.weight.mT.expand(len(z), -1, -1) if rows is None else rows @ layer.weight.mT
            )
            continue
        assert rows is not None
        if isinstance(layer, nn.Tanh):
            z = torch.tanh(z)
            rows = rows * (1 - z * z).unsqueeze(1)
        elif isinstance(layer, nn.SiLU):
            p = z.sigmoid()
            rows = rows * (p * (1 + z * (1 - p))).unsqueeze(1)
            z = z * p
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.running_var is not None
            z = layer(z)
            slope = layer.weight * (layer.running_var + layer.eps).rsqrt()
            rows = rows * slope[:, None, None]
        elif isinstance(layer, nn.ConvTranspose2d):
            z = layer(z)
            flat = torch.nn.functional.conv_transpose2d(
                rows.flatten(0, 1), layer.weight, None, layer.stride, layer.padding
            )
            rows = flat.unflatten(0, rows.shape[:2])
        elif isinstance(layer, nn.Unflatten | nn.Flatten):
            z = layer(z)
            rows = rows.reshape(*rows.shape[:2], *z.shape[1:])
    assert rows is not None
    return z, rows


def layerwise_metric(decoder: RealDecoder, z: Tensor) -> Tensor:
    """Jacobians multiplied layer by layer (as stochman does), tangents as rows, then contracted."""
    out, rows = hidden_tangents(list(decoder.layers), z)
    return contracted(decoder, rows, out)


def folded_metric(decoder: RealDecoder, z: Tensor, gram: Tensor) -> Tensor:
    """J_hᵀ (WᵀΣ⁻¹W) J_h, of hidden features alone, with the matrix made beforehand."""
    _, rows = hidden_tangents(list(decoder.layers)[:-1], z)
    return rows @ gram @ rows.mT


# ------------------------------------------------------------------------------ whole batches
def _in_chunks(route: Route, decoder: RealDecoder, z: Tensor) -> Run:
    chunks = chunks_of(z, z.shape[-1], 512)

    def run() -> list[Tensor]:
        with torch.no_grad():
            return [route(decoder, chunk) for chunk in chunks]

    return run


def _folded(decoder: RealDecoder, z: Tensor) -> Run:
    last = decoder.layers[-1]
    assert isinstance(last, nn.Linear)
    assert decoder.log_variance is not None
    rows = last.weight * (-decoder.log_variance / 2).exp()[:, None]
    return _in_chunks(partial(folded_metric, gram=rows.mT @ rows), decoder, z)


def real_operations(sizes: Mapping[str, Any]) -> float:
    """Real operations for one point, with the full Jacobian: values, d tangents, contraction."""
    d, D = sizes["d"], sizes["D"]
    if sizes["network"] == "mlp":
        layer, last = 2 * sizes["h"] ** 2, 2 * sizes["h"] * D
        first = 2 * d * sizes["h"]
    else:
        channels, side, after = IMAGES[D]
        layer, last, first = 0, 0, 2 * d * channels * side * side
        for outer in after:
            layer += 2 * 16 * channels * outer * side * side
            channels, side = outer, 2 * side
    return first + (d + 1) * (layer + last) + 2 * d * d * D


def real_problem(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Problem:
    """The metric at B points; sizes: d, D, B, h of an MLP, network, likelihood."""
    decoder = build_real_decoder(sizes, dtype, device)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(sizes["B"], sizes["d"], generator=generator, dtype=torch.float64)
    z = z.to(device, dtype)
    metric = FisherMetric(decoder, check=False, validate_args=False)

    def ours() -> Tensor:
        with torch.no_grad():
            return metric.metric_matrix(z)

    routes: dict[str, Route] = {
        "Jacobian, vmap(jacfwd)": jacfwd_metric,
        "Jacobian, vmap(jvp)": jvp_metric,
        "layer-wise Jacobians": layerwise_metric,
    }
    rivals = {n: Rival(partial(_in_chunks, route, decoder, z)) for n, route in routes.items()}
    if sizes["network"] == "mlp" and sizes["likelihood"] == "gaussian":
        rivals[FOLDED] = Rival(partial(_folded, decoder, z))
    if sizes["B"] == 1 or sizes["network"] == "mlp":
        found = compiled_programs(decoder, z, partial(layerwise_metric, decoder), z)
        rivals |= found if sizes["B"] == 1 else {FROZEN: found[FROZEN]}
    return Problem(sizes["B"], ours, rivals, sizes["B"] * real_operations(sizes))
