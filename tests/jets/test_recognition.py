"""The closed form is taken only where a module's call is what the closed form computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize, weight_norm

from kahler_verify import FisherMetric
from kahler_verify.distributions import ComplexNormal
from kahler_verify.models import ComplexVAE, VAEConfig
from kahler_verify.networks import ComplexLinear, Decoder
from kahler_verify.networks.decoder import DecoderFields

Z = torch.tensor([[0.3 - 0.7j, -1.1 + 0.2j], [0.5j, 0.4]], dtype=torch.complex128)


def decoder_of(kind: type[Decoder] = Decoder) -> Decoder:
    config = VAEConfig(data_dim=3, latent_dim=2, hidden=(4,), seed=5)
    decoder = kind(config).double()
    decoder.load_state_dict(ComplexVAE(config).double().decoder.state_dict())
    return decoder


class OwnForward(Decoder):
    def forward(self, z: Tensor) -> ComplexNormal:
        law = super().forward(z * z)
        assert isinstance(law, ComplexNormal)
        return ComplexNormal(3 * law.loc, scale_diag=law.scale_diag, validate_args=False)


class OwnParameters(Decoder):
    def parameters_at(self, z: Tensor) -> DecoderFields:
        mean, log_variance = super().parameters_at(z * z)
        return DecoderFields(3 * mean, log_variance)


class Doubled(ComplexLinear):
    def forward(self, z: Tensor) -> Tensor:
        return 2 * super().forward(z)


@contextmanager
def patched(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    yield
    setattr(owner, name, before)


def own_forward(decoder: Decoder) -> None:
    decoder.forward = lambda z: Decoder.forward(decoder, 2 * z)  # type: ignore[method-assign]


def layer_forward(decoder: Decoder) -> None:
    layer = decoder.layers[0]
    layer.forward = lambda z: 2 * ComplexLinear.forward(layer, z)  # type: ignore[arg-type]


def layers_forward(decoder: Decoder) -> None:
    layers = decoder.layers
    layers.forward = lambda z: nn.Sequential.forward(layers, 2 * z)  # type: ignore[method-assign]


def head_class(decoder: Decoder) -> None:
    head = Doubled(4, 3).double()
    head.load_state_dict(decoder.mean_head.state_dict())
    decoder.mean_head = head


class Twice(nn.Module):
    def forward(self, pairs: Tensor) -> Tensor:
        return 2 * pairs


ALTERATIONS: dict[str, Callable[[Decoder], object]] = {
    "forward of the instance": own_forward,
    "forward of a layer": layer_forward,
    "forward of the layers": layers_forward,
    "another class of head": head_class,
    "a hook": lambda d: d.register_forward_pre_hook(lambda m, args: (2 * args[0],)),
    "a layer's hook": lambda d: d.layers[0].register_forward_hook(lambda m, args, out: 2 * out),
    "an activation's pre-hook": lambda d: d.layers[1].register_forward_pre_hook(
        lambda m, args: (2 * args[0],)
    ),
    "a head's hook": lambda d: d.mean_head.register_forward_hook(lambda m, args, out: 2 * out),
    "weight_norm": lambda d: weight_norm(d.layers[0], "weight_pairs").weight_pairs_g.data.mul_(2),
    "weight_norm, parametrised": lambda d: parametrizations.weight_norm(
        d.mean_head, "weight_pairs"
    ).parametrizations.weight_pairs.original0.data.mul_(2),
    "a parametrization": lambda d: parametrize.register_parametrization(
        d.layers[0], "weight_pairs", Twice()
    ),
}


def by_call(decoder: nn.Module) -> FisherMetric:
    return FisherMetric(lambda z: decoder(z), check=False)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_decoders_have_the_geometry_of_their_call(name: str) -> None:
    decoder = decoder_of()
    metric = FisherMetric(decoder)
    plain = metric.metric_matrix(Z)
    ALTERATIONS[name](decoder)
    for quantity in ("metric_matrix", "scalar_curvature"):
        expected = getattr(by_call(decoder), quantity)(Z)
        torch.testing.assert_close(getattr(metric, quantity)(Z), expected)
    assert not torch.allclose(metric.metric_matrix(Z), plain)


@pytest.mark.parametrize("kind", [OwnForward, OwnParameters])
def test_subclasses_have_the_geometry_of_their_call(kind: type[Decoder]) -> None:
    decoder = decoder_of(kind)
    metric = FisherMetric(decoder)
    torch.testing.assert_close(metric.metric_matrix(Z), by_call(decoder).metric_matrix(Z))
    plain = FisherMetric(decoder_of()).metric_matrix(Z)
    assert not torch.allclose(metric.metric_matrix(Z), plain)


def test_global_hooks_are_seen_while_they_are_there() -> None:
    decoder = decoder_of()
    metric = FisherMetric(decoder)
    plain = metric.metric_matrix(Z)

    def doubled(module: nn.Module, args: object, out: object) -> object:
        return 2 * out if isinstance(module, ComplexLinear) else out  # type: ignore[operator]

    handle = torch_module.register_module_forward_hook(doubled)
    try:
        hooked = metric.metric_matrix(Z)
        torch.testing.assert_close(hooked, by_call(decoder).metric_matrix(Z))
    finally:
        handle.remove()
    assert not torch.allclose(hooked, plain)
    assert torch.equal(metric.metric_matrix(Z), plain)


@pytest.mark.parametrize("owner", [ComplexLinear, Decoder])
def test_patched_classes_are_seen(owner: type[nn.Module]) -> None:
    decoder = decoder_of()
    metric = FisherMetric(decoder)
    plain = metric.metric_matrix(Z)
    forward = owner.forward
    with patched(owner, "forward", lambda self, z: forward(self, 2 * z)):
        twice = metric.metric_matrix(Z)
        torch.testing.assert_close(twice, by_call(decoder).metric_matrix(Z))
    assert not torch.allclose(twice, plain)
