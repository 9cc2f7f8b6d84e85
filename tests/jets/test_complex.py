"""Jets of complex latents: along complex directions while holomorphic, ∂ and ∂̄ in any case."""

import pytest
import torch
from torch import nn

from kahler_verify.errors import InputError
from kahler_verify.jets import parameters, propagate
from kahler_verify.jets.fields import decoder_jets
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.activations import ACTIVATIONS, ActivationLayer
from kahler_verify.networks.decoder import ComplexLinear, Residual

C = torch.complex128
TYPES = {"d": (1, 0), "b": (0, 1), "dd": (2, 0), "db": (1, 1), "bb": (0, 2)}


def points(d=2, batch=3):
    return torch.randn(batch, d, dtype=C, generator=torch.Generator().manual_seed(3)) * 0.7


def assert_agrees(jet, f, z):
    """With nested autograd in real coordinates."""
    names = [f"mu_{name}" for name in TYPES]
    law = lambda z: (f(z), torch.zeros_like(f(z).real))  # noqa: E731
    want = decoder_jets(law, z, names, mode="forward")
    got = jet.wirtinger()
    for name, each in TYPES.items():
        part, expected = got[each], want[f"mu_{name}"]
        if part is None:
            assert float(expected.abs().max()) < 1e-12
        else:
            torch.testing.assert_close(part.to(C), expected, rtol=1e-11, atol=1e-11)


FUNCTIONS = {
    "holomorphic": (lambda z: torch.tanh(z) @ z.mT + z[:, :1] ** 3 / 6, True),
    "elementary": (lambda z: torch.exp(z) * torch.sin(z) + torch.sigmoid(z) / (3 + z), True),
    "modulus": (lambda z: z * torch.sigmoid(z.abs()), False),
    "squared modulus": (lambda z: z / torch.sqrt(1 + z.real**2 + z.imag**2), False),
    "conjugate products": (lambda z: z * z.conj() + 1j * z**2, False),
    "late": (lambda z: torch.cat([z**2, (z**2).conj()], -1), False),
    "split": (lambda z: torch.complex(torch.tanh(z.real), torch.tanh(z.imag)), False),
    "autograd": (lambda z: torch.cumprod(z, -1), False),
}
FUNCTIONS["holomorphic"] = (lambda z: torch.tanh(z) * z.flip(-1) + z[:, :1] ** 3 / 6, True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    f, holomorphic = FUNCTIONS[name]
    jet = propagate(f, points(), 2)
    assert jet.expansion.frame.holomorphic is holomorphic
    assert (jet.wirtinger()[0, 1] is None) is holomorphic
    assert_agrees(jet, f, points())


def test_real_functions_of_complex_latents():
    def f(z):
        return (z * z.conj()).real.sum(-1, keepdim=True).log1p()

    jet = propagate(f, points(), 2)
    got = jet.wirtinger()
    z = points()
    rest = 1 + (z.abs() ** 2).sum(-1)[:, None, None]
    g = torch.eye(2, dtype=C) / rest - z.conj()[:, :, None] * z[:, None, :] / rest**2
    torch.testing.assert_close(got[1, 1][..., 0], g)  # Fubini and Study's metric
    torch.testing.assert_close(got[0, 1], got[1, 0].conj())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_one_rule(name):
    layer = ActivationLayer(name, 2).double()
    if layer.bias is not None:
        layer.bias.data = torch.tensor([0.3, -0.2], dtype=torch.float64)
    jet = propagate(layer, points(), 2)
    assert jet.expansion.frame.holomorphic is layer.activation.holomorphic
    assert_agrees(jet, layer, points())


CONFIGURATIONS = {
    "holomorphic": {"decoder": "holomorphic"},
    "holomorphic, scalar": {"decoder": "holomorphic", "covariance": "scalar"},
    "split": {"decoder": "split", "activation": "split_gelu"},
    "modulus": {"decoder": "modulus", "covariance": "constant"},
    "real data": {"decoder": "split", "likelihood": "real"},
}


def decoder_of(name):
    torch.manual_seed(0)
    config = VAEConfig(data_dim=5, latent_dim=2, hidden=(6, 7), **CONFIGURATIONS[name])
    decoder = ComplexVAE(config).decoder.double()
    for weight in decoder.parameters():
        weight.data = torch.randn_like(weight) * 0.4
    return decoder


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_our_own_decoders_as_they_stand(name):
    decoder, z = decoder_of(name), points()
    mean, log_variance = propagate(decoder.parameters_at, z, 2)
    names = [f"{field}_{each}" for field in ("mu", "Sigma") for each in TYPES]
    want = decoder_jets(decoder, z, names)
    variance = propagate(lambda z: decoder.parameters_at(z)[1].exp(), z, 2)
    for jet, field in ((mean, "mu"), (variance, "Sigma")):
        for each, part in zip(TYPES, map(jet.wirtinger().get, TYPES.values()), strict=True):
            expected = want[f"{field}_{each}"]
            part = torch.zeros_like(expected) if part is None else part
            torch.testing.assert_close(part.to(C), expected, rtol=1e-11, atol=1e-11)
    holomorphic = name.startswith("holomorphic")
    assert mean.expansion.frame.holomorphic is holomorphic
    for jet in (mean, log_variance):  # last linear maps wait, real parts and scales included
        if jet.varies and jet.value.ndim == 2:
            head = jet.head
            value = head.hidden.value @ head.weight.mT + head.bias
            torch.testing.assert_close(value.real if head.real else value, jet.value)
            hidden = propagate(decoder.layers, z, 2)
            torch.testing.assert_close(head.hidden.first, hidden.tangents)
    law = parameters(propagate(decoder, z))
    assert any(jet.shape == (3, 5) for jet in law.values() if jet is not None)


def test_residual_and_complex_linear():
    torch.manual_seed(1)
    module = nn.Sequential(
        ComplexLinear(2, 4), ActivationLayer("cubic", 4), Residual(ComplexLinear(4, 4))
    ).double()
    jet = propagate(module, points(), 2)
    assert jet.expansion.frame.holomorphic
    assert_agrees(jet, module, points())


def test_along_a_curve_directions_are_real():
    def f(z):
        return z * z.conj() + z**3

    z, v, a = points(), points(2, 3)[:, None], points(2, 3)[:, None] * 0.3j
    jet = propagate(f, z, 2, v, along=True, acceleration=a)
    h = 1e-3
    curve = lambda t: f(z + t * v[:, 0] + t**2 / 2 * a[:, 0])  # noqa: E731
    torch.testing.assert_close(jet.d[:, 0], (curve(h) - curve(-h)) / (2 * h), rtol=1e-5, atol=1e-5)
    bend = (curve(h) + curve(-h) - 2 * f(z)) / h**2
    torch.testing.assert_close(jet.dd[:, 0], bend, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="without along"):
        jet.wirtinger()


def test_given_complex_directions():
    def f(z):
        return torch.tanh(z) * z.conj()

    z = points()
    v = torch.randn(1, 3, 2, dtype=C, generator=torch.Generator().manual_seed(5))
    mine, all_of_them = propagate(f, z, 2, v).wirtinger(), propagate(f, z, 2).wirtinger()
    w = v[0]
    expected = {
        (1, 0): torch.einsum("bin,ri->brn", all_of_them[1, 0], w),
        (0, 1): torch.einsum("bin,ri->brn", all_of_them[0, 1], w.conj()),
        (2, 0): torch.einsum("bijn,ri,sj->brsn", all_of_them[2, 0], w, w),
        (1, 1): torch.einsum("bijn,ri,sj->brsn", all_of_them[1, 1], w, w.conj()),
        (0, 2): torch.einsum("bijn,ri,sj->brsn", all_of_them[0, 2], w.conj(), w.conj()),
    }
    for each, part in expected.items():
        torch.testing.assert_close(mine[each], part)
