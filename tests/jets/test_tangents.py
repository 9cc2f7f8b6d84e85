"""First derivatives in real planes are those of the jets, through every kind of layer."""

import pytest
import torch
from torch import nn

from kahler_verify.jets.layers import propagate
from kahler_verify.jets.stacked import coordinates
from kahler_verify.jets.tangents import deviation, hidden_tangents, image, real_image
from kahler_verify.linear_algebra.kept import ReducedHeads
from kahler_verify.linear_algebra.planes import Image, Weight
from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.activations import ACTIVATIONS, ActivationLayer
from kahler_verify.networks.decoder import ComplexLinear, Decoder, Residual

BOTH = frozenset({(1, 0), (0, 1)})


class Unknown(nn.Module):
    def forward(self, h):
        return h * h.abs().square() + h


def _linear(inner, outer):
    return nn.Linear(inner, outer, dtype=torch.complex128, bias=outer != 6)


LAYERS = {
    **{name: lambda name=name: [_linear(3, 5), ActivationLayer(name, 5)] for name in ACTIVATIONS},
    "holomorphic behind split": lambda: [
        ComplexLinear(3, 5),
        ActivationLayer("split_gelu", 5),
        _linear(5, 6),
        ActivationLayer("tanh", 6),
    ],
    "residual": lambda: [
        _linear(3, 5),
        Residual(nn.Sequential(_linear(5, 5), ActivationLayer("cubic", 5))),
        Residual(nn.Sequential(ActivationLayer("modulus_squash", 5))),
    ],
    "unknown": lambda: [_linear(3, 5), Unknown(), nn.Identity(), ActivationLayer("sin", 5)],
    "affine": lambda: [_linear(3, 5)],
    "nothing": list,
}


def _decoder(name):
    torch.manual_seed(0)
    decoder = Decoder(VAEConfig(data_dim=4, latent_dim=3, hidden=(5,))).double()
    decoder.layers = nn.Sequential(*LAYERS[name]()).double()
    decoder.scale.fill_(1.3)
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.4)
    return decoder


def _points(count=4):
    torch.manual_seed(1)
    z = 0.6 * torch.randn(count, 3, dtype=torch.complex128)
    z[0] = 0
    return z


def _both(name):
    decoder, z = _decoder(name), _points()
    jets = propagate(decoder.layers, coordinates(z, BOTH))
    return decoder, jets, hidden_tangents(decoder, z, ReducedHeads())


def _dense(rows, count=4):
    dense = torch.complex(*rows.planes)
    return dense.expand(count, *dense.shape[1:])


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_tangents_are_the_first_order_of_the_jets(name, wide):
    _, jets, tangents = _both(name)
    torch.testing.assert_close(torch.complex(*tangents.value), jets.value)
    n = jets.value.shape[-1]
    w = torch.randn(n + 2 if wide else n - 1, n, dtype=torch.complex128)
    d, b = image(tangents, Weight(w), multiply=True)
    twice = 1 if tangents.holomorphic else 2
    torch.testing.assert_close(_dense(d), twice * jets.dense((1, 0)) @ w.mT)
    expected = 2 * jets.dense((0, 1)) @ w.mT
    assert (b is None) == tangents.holomorphic
    torch.testing.assert_close(_dense(b) if b else torch.zeros_like(expected), expected)
    phi = real_image(tangents, Weight(w), multiply=True)
    conjugate = (jets.dense((0, 1)) @ w.mT).conj()  # ∂ of the conjugate function
    torch.testing.assert_close(_dense(phi), jets.dense((1, 0)) @ w.mT + conjugate)


@pytest.mark.parametrize("name", LAYERS)
def test_holomorphic_layers_have_one_tangent_for_each_direction(name):
    decoder, _, tangents = _both(name)
    kinds = [m.activation.holomorphic for m in decoder.modules() if isinstance(m, ActivationLayer)]
    assert tangents.holomorphic == (all(kinds) and name != "unknown")


@pytest.mark.parametrize("name", ["cubic", "split_tanh", "modulus_sigmoid", "residual"])
def test_along_directions(name):
    decoder, jets, _ = _both(name)
    v = torch.randn(4, 2, 3, dtype=torch.complex128)
    tangents = hidden_tangents(decoder, _points(), ReducedHeads(), v)
    w = torch.randn(7, jets.value.shape[-1], dtype=torch.complex128)
    d, b = image(tangents, Weight(w), multiply=True)
    twice = 1 if b is None else 2
    torch.testing.assert_close(_dense(d), twice * v @ jets.dense((1, 0)) @ w.mT)
    if b is not None:
        torch.testing.assert_close(_dense(b), 2 * v.conj() @ jets.dense((0, 1)) @ w.mT)


@pytest.mark.parametrize("name", ["cubic", "split_tanh"])
def test_images_that_are_not_multiplied_have_the_same_products(name):
    _, _, tangents = _both(name)
    weight = Weight(torch.randn(9, tangents.value.shape[-1], dtype=torch.complex128))
    for make in (
        lambda m: image(tangents, weight, multiply=m)[0],
        lambda m: real_image(tangents, weight, multiply=m),
    ):
        rows, unmultiplied = make(True), make(False)
        assert isinstance(unmultiplied, Image)
        torch.testing.assert_close(unmultiplied @ unmultiplied.mH, rows @ rows.mH)


@pytest.mark.parametrize("name", ["cubic", "split_tanh"])
def test_the_deviation_is_that_of_the_decoder(name):
    decoder, _, tangents = _both(name)
    with torch.no_grad():
        expected = (decoder.parameters_at(_points()).log_variance / 2).exp() / decoder.scale
        got = deviation(decoder.heads(), tangents, ReducedHeads())
    torch.testing.assert_close(got, expected)
