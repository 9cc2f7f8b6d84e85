"""Closed-form jets against nested autograd, for every family, activation and covariance."""

import itertools

import pytest
import torch
from torch import nn

from kahler_verify.jets.decoders import routes
from kahler_verify.jets.fields import decoder_jets
from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.activations import ACTIVATIONS, ActivationLayer
from kahler_verify.networks.decoder import ComplexLinear, Decoder, Residual

NAMES = [
    "Sigma_factor",
    *[
        field + suffix
        for field in ("mu", "Sigma")
        for suffix in ("", "_d", "_b", "_dd", "_db", "_bb", "_ddb", "_dbb")
    ],
]
FIRST = ["Sigma_factor", "mu", "mu_d", "mu_b", "Sigma_d"]


def _family(activation):
    if ACTIVATIONS[activation].holomorphic:
        return "holomorphic"
    return activation.split("_")[0]


def _decoder(activation="cubic", *, d=2, D=3, hidden=(5, 4), seed=0, **more):
    torch.manual_seed(seed)
    config = VAEConfig(
        data_dim=D,
        latent_dim=d,
        hidden=hidden,
        decoder=_family(activation),
        activation=activation,
        **more,
    )
    decoder = Decoder(config).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        decoder.location.add_(torch.randn_like(decoder.location))
        decoder.scale.fill_(1.7)
    return decoder


def _points(d=2, count=3, seed=1):
    torch.manual_seed(seed)
    z = 0.6 * torch.randn(count, d, dtype=torch.complex128)
    z[0] = 0
    return z


def _assert_same(ours, theirs, tolerance=1e-12):
    assert set(ours) == set(theirs)
    for name, jet in ours.items():
        assert jet.dtype == theirs[name].dtype, name
        size = 1 + theirs[name].abs().max().item()
        gap = (jet - theirs[name]).abs().max().item()
        assert gap <= tolerance * size, (name, gap, size)


@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a != "identity"])
def test_third_order_jets_are_those_of_autograd(activation):
    decoder, z = _decoder(activation), _points()
    _assert_same(decoder_jets(decoder, z, NAMES), decoder_jets(decoder, z, NAMES, mode="forward"))


@pytest.mark.parametrize("covariance", ["constant", "scalar", "diagonal"])
@pytest.mark.parametrize(
    ("activation", "likelihood"),
    [
        ("tanh", "complex"),
        ("split_gelu", "complex"),
        ("split_gelu", "real"),
        ("modulus_sigmoid", "real"),
    ],
)
def test_every_likelihood_and_covariance(activation, likelihood, covariance):
    decoder = _decoder(activation, likelihood=likelihood, covariance=covariance, d=3)
    z = _points(d=3)
    names = ["Sigma_factor", "mu", "mu_d", "mu_b", "mu_db", "Sigma", "Sigma_d", "Sigma_db"]
    _assert_same(decoder_jets(decoder, z, names), decoder_jets(decoder, z, names, mode="forward"))


def test_shapes_chunks_and_one_dimension():
    decoder = _decoder("split_tanh", d=1)
    z = _points(d=1, count=6)
    whole = decoder_jets(decoder, z, NAMES)
    _assert_same(whole, decoder_jets(decoder, z, NAMES, mode="forward"))
    _assert_same(decoder_jets(decoder, z, NAMES, chunk_size=4), whole, 1e-15)
    shaped = decoder_jets(decoder, z.reshape(2, 3, 1), NAMES)
    single = decoder_jets(decoder, z[2], NAMES)
    empty = decoder_jets(decoder, z[:0], NAMES)
    for name, jet in whole.items():
        assert torch.equal(shaped[name].flatten(0, 1), jet)
        torch.testing.assert_close(single[name], jet[2], rtol=1e-14, atol=1e-14)
        assert empty[name].shape == (0, *jet.shape[1:])


def test_gradients_reach_all_weights():
    for activation in ("tanh", "modulus_sigmoid"):
        decoder, z = _decoder(activation), _points()
        weights = list(decoder.parameters())

        def loss(mode, decoder=decoder, z=z):
            jets = decoder_jets(decoder, z, ["mu", "mu_d", "mu_ddb", "Sigma_db"], mode=mode)
            return sum((jet * jet.conj()).real.sum() for jet in jets.values())

        ours = torch.autograd.grad(loss(None), weights)
        theirs = torch.autograd.grad(loss("forward"), weights)
        for g, h in zip(ours, theirs, strict=True):
            torch.testing.assert_close(g, h, rtol=1e-10, atol=1e-11)


class _Residual(nn.Module):
    """A layer that is not known; not holomorphic."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, z):
        return z + torch.complex(self.layer(z).real.sin(), z.imag * z.real)


def test_an_unknown_layer_alone_goes_through_autograd():
    decoder = _decoder("modulus_squash", hidden=(4, 4))
    torch.manual_seed(5)
    decoder.layers.insert(2, _Residual(ComplexLinear(4, 4).double()))
    z = _points()
    assert routes(decoder) == {
        "layers.0": "closed form",
        "layers.1": "closed form",
        "layers.2": "autograd",
        "layers.3": "closed form",
        "layers.4": "closed form",
        "mean_head": "closed form",
        "log_variance_head": "closed form",
    }
    _assert_same(decoder_jets(decoder, z, NAMES), decoder_jets(decoder, z, NAMES, mode="forward"))


def test_torch_linear_and_nested_sequential_are_known():
    decoder = _decoder("split_silu", hidden=(4, 4))
    torch.manual_seed(6)
    inner = nn.Sequential(nn.Linear(4, 4, dtype=torch.complex128), ActivationLayer("identity", 4))
    decoder.layers.insert(2, inner)
    z = _points()
    assert set(routes(decoder).values()) == {"closed form"}
    assert "layers.2.0" in routes(decoder)
    _assert_same(decoder_jets(decoder, z, NAMES), decoder_jets(decoder, z, NAMES, mode="forward"))


@pytest.mark.parametrize("activation", ["cubic", "split_silu"])
def test_residual_sums_are_known(activation):
    decoder = _decoder(activation, hidden=(4, 4))
    torch.manual_seed(6)
    body = nn.Sequential(ComplexLinear(4, 4).double(), ActivationLayer(activation, 4))
    decoder.layers.insert(2, Residual(body))
    decoder.layers.insert(2, nn.Flatten())
    decoder.layers.insert(0, Residual(ComplexLinear(2, 2).double()))
    z = _points()
    assert set(routes(decoder).values()) == {"closed form"}
    assert {"layers.0.body", "layers.4.body.0", "layers.4.body.1"} <= set(routes(decoder))
    jets = decoder_jets(decoder, z, NAMES)
    _assert_same(jets, decoder_jets(decoder, z, NAMES, mode="forward"))
    assert bool(jets["mu_b"].any()) == (activation != "cubic")


def test_a_flatten_that_mixes_points_is_not_taken_for_the_identity():
    decoder = _decoder("cubic")
    decoder.layers.insert(2, nn.Flatten(0))
    assert routes(decoder)["layers.2"] == "autograd"


def test_a_non_holomorphic_layer_in_a_holomorphic_decoder_is_seen():
    decoder = _decoder("cubic")
    decoder.layers[1] = ActivationLayer("split_tanh", 5)
    z = _points()
    names = ["mu_d", "mu_b", "mu_db", "Sigma_db"]
    _assert_same(decoder_jets(decoder, z, names), decoder_jets(decoder, z, names, mode="forward"))


def test_altered_modules_are_not_taken_for_the_known_ones():
    decoder, z = _decoder("cubic"), _points()
    plain = decoder_jets(decoder, z, ["mu_d"])["mu_d"]
    hook = decoder.layers[0].register_forward_hook(lambda module, args, out: 2 * out)
    assert routes(decoder)["layers.0"] == "autograd"
    hooked = decoder_jets(decoder, z, ["mu_d"])
    _assert_same(hooked, decoder_jets(decoder, z, ["mu_d"], mode="forward"))
    assert not torch.allclose(hooked["mu_d"], plain)
    hook.remove()

    class Doubled(Decoder):
        def parameters_at(self, z):
            mean, log_variance = super().parameters_at(z)
            return type(super().parameters_at(z))(2 * mean, log_variance)

    doubled = Doubled(decoder.config).double()
    doubled.load_state_dict(decoder.state_dict())
    assert set(routes(doubled).values()) == {"autograd"}
    torch.testing.assert_close(decoder_jets(doubled, z, ["mu_d"])["mu_d"], 2 * plain)


def test_holomorphic_decoders_skip_what_vanishes():
    decoder, z = _decoder("sin", d=3), _points(d=3)
    jets = decoder_jets(decoder, z, ["mu_b", "mu_db", "mu_bb", "mu_ddb"])
    for name, jet in jets.items():
        assert not jet.any(), name
        assert jet.untyped_storage().nbytes() == 16, name  # one number, expanded


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_jets_of_mixed_types_are_symmetric(dtype):
    decoder = _decoder("split_tanh", d=3).to(torch.empty(0, dtype=dtype).real.dtype)
    jet = decoder_jets(decoder, _points(d=3).to(dtype), ["mu_ddb"])["mu_ddb"]
    assert jet.dtype == dtype
    for a, c in itertools.product(range(3), repeat=2):
        assert torch.equal(jet[:, a, c], jet[:, c, a])
