"""Jets of decoders against polynomials differentiated by hand, and the checks of decoders."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import InputError
from kahler_verify.jets.fields import check_decoder, decoder_jets, likelihood_structure
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.decoder import ComplexLinear

POINTS = torch.tensor([[0, 0], [0.3 - 0.7j, -1.1 + 0.2j], [1j, 2.0]], dtype=torch.complex128)


def _mean(z):
    """μ = (z₁ z̄₂, z₂² z̄₁): every kind of derivative up to order 3 is there."""
    z1, z2 = z[..., 0], z[..., 1]
    return torch.stack([z1 * z2.conj(), z2 * z2 * z1.conj()], dim=-1)


def _exponent(z):
    """φ = z₁ z̄₁ + 2 Re(z₂)."""
    return (z[..., 0] * z[..., 0].conj()).real + 2 * z[..., 1].real


def _log_variance(z):
    phi = _exponent(z)
    return torch.stack([phi, -phi], dim=-1)


def _by_pair(z):
    return _mean(z), _log_variance(z)


def _by_diagonal(z):
    return ComplexNormal(_mean(z), scale_diag=(_log_variance(z) / 2).exp())


def _by_scalar(z):
    return ComplexNormal(_mean(z), scale=(_exponent(z) / 2).exp())


def _factor(z):
    """L with polynomial entries and a positive diagonal."""
    z1, z2 = z[..., 0], z[..., 1]
    one = torch.ones_like(z1)
    rows = [[one, 0 * one], [z1 * z2.conj(), one * (1 + (z2 * z2.conj()).real)]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _by_full(z):
    return ComplexNormal(_mean(z), scale_tril=_factor(z))


def _indices(d, *orders):
    return [
        tuple(index)
        for index in torch.cartesian_prod(*[torch.arange(d)] * sum(orders))
        .reshape(-1, sum(orders))
        .tolist()
    ]


def _monomial(powers, hol, anti, z):
    """∂^hol ∂̄^anti of z₁^a z̄₁^b z₂^c z̄₂^e, with powers = ((a, b), (c, e))."""
    value = 1.0 + 0j
    for coordinate, (power, conjugate_power) in enumerate(powers):
        for variable, exponent, count in (
            (z[coordinate], power, hol.count(coordinate)),
            (z[coordinate].conjugate(), conjugate_power, anti.count(coordinate)),
        ):
            if count > exponent:
                return 0j
            value *= math.perm(exponent, count) * variable ** (exponent - count)
    return value


ORDERS = [(p, q) for p in range(4) for q in range(4 - p)]
MU_POWERS = [((1, 0), (0, 1)), ((0, 1), (2, 0))]


def _name(field, p, q):
    return f"{field}_{'d' * p}{'b' * q}" if p + q else field


@pytest.mark.parametrize(("p", "q"), ORDERS)
@pytest.mark.parametrize("decoder", [_by_pair, _by_diagonal, _by_scalar, _by_full])
def test_mean_jets_of_a_polynomial(decoder, p, q):
    name = _name("mu", p, q)
    jet = decoder_jets(decoder, POINTS, [name])[name]
    assert jet.shape == (3, *[2] * (p + q), 2)
    for row, z in enumerate(POINTS.tolist()):
        for index in _indices(2, p, q) if p + q else [()]:
            for entry, powers in enumerate(MU_POWERS):
                expected = _monomial(powers, index[:p], index[p:], z)
                assert complex(jet[(row, *index, entry)]) == pytest.approx(expected, abs=1e-13)


def _exponential(sign, hol, anti, z):
    """∂^hol ∂̄^anti exp(sign φ): as ∂₂ and ∂̄₂ give a factor, only z₁ z̄₁ needs care."""
    second = sign ** (hol.count(1) + anti.count(1))
    p, q = hol.count(0), anti.count(0)
    first = sum(
        math.comb(p, j)
        * math.perm(q, j)
        * sign ** (q + p - j)
        * z[0] ** (q - j)
        * z[0].conjugate() ** (p - j)
        for j in range(min(p, q) + 1)
    )
    return second * first * math.exp(sign * (abs(z[0]) ** 2 + 2 * z[1].real))


@pytest.mark.parametrize(("p", "q"), ORDERS)
@pytest.mark.parametrize("decoder", [_by_pair, _by_diagonal, _by_scalar])
def test_variance_jets_of_an_exponential(decoder, p, q):
    name = _name("Sigma", p, q)
    jet = decoder_jets(decoder, POINTS, [name])[name]
    if decoder is _by_scalar:
        jet = jet[..., None]
    for row, z in enumerate(POINTS.tolist()):
        for index in _indices(2, p, q) if p + q else [()]:
            for entry in range(jet.shape[-1]):
                expected = _exponential(1 - 2 * entry, index[:p], index[p:], z)
                got = complex(jet[(row, *index, entry)])
                assert got == pytest.approx(expected, rel=1e-12, abs=1e-11)


@pytest.mark.parametrize(("p", "q"), ORDERS)
def test_full_covariance_jets_of_a_polynomial(p, q):
    """Σ = L Lᴴ = [[1, z̄₁ z₂], [z₁ z̄₂, |z₁|²|z₂|² + (1 + |z₂|²)²]]."""
    powers = [
        [[(1, ((0, 0), (0, 0)))], [(1, ((0, 1), (1, 0)))]],
        [
            [(1, ((1, 0), (0, 1)))],
            [
                (1, ((1, 1), (1, 1))),
                (1, ((0, 0), (0, 0))),
                (2, ((0, 0), (1, 1))),
                (1, ((0, 0), (2, 2))),
            ],
        ],
    ]
    name = _name("Sigma", p, q)
    jet = decoder_jets(_by_full, POINTS, [name])[name]
    assert jet.shape == (3, *[2] * (p + q), 2, 2)
    for row, z in enumerate(POINTS.tolist()):
        for index in _indices(2, p, q) if p + q else [()]:
            for i in (0, 1):
                for j in (0, 1):
                    expected = sum(
                        c * _monomial(m, index[:p], index[p:], z) for c, m in powers[i][j]
                    )
                    got = complex(jet[(row, *index, i, j)])
                    assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("decoder", "covariance", "factor"),
    [
        (_by_pair, "diagonal", lambda z: (_log_variance(z) / 2).exp()),
        (_by_diagonal, "diagonal", lambda z: (_log_variance(z) / 2).exp()),
        (_by_scalar, "scalar", lambda z: (_exponent(z) / 2).exp()),
        (_by_full, "full", _factor),
    ],
)
def test_factor_and_structure(decoder, covariance, factor):
    structure = likelihood_structure(decoder, POINTS)
    assert (structure.likelihood, structure.covariance) == ("complex", covariance)
    assert structure.data_dim == 2
    jets = decoder_jets(decoder, POINTS, ["Sigma_factor", "Sigma"])
    torch.testing.assert_close(jets["Sigma_factor"], factor(POINTS))
    square = jets["Sigma_factor"]
    square = square @ square.mH if covariance == "full" else square * square
    torch.testing.assert_close(jets["Sigma"], square)


def _real_mean(z):
    return torch.stack([z[..., 0].real * z[..., 1].imag, (z[..., 0] * z[..., 0].conj()).real], -1)


@pytest.mark.parametrize(
    ("decoder", "covariance"),
    [
        (lambda z: Independent(Normal(_real_mean(z), (_log_variance(z) / 2).exp()), 1), "diagonal"),
        (lambda z: (_real_mean(z), _log_variance(z)), "diagonal"),
        (lambda z: (_real_mean(z), _exponent(z)), "scalar"),
        (
            lambda z: MultivariateNormal(
                _real_mean(z), scale_tril=torch.diag_embed((_log_variance(z) / 2).exp())
            ),
            "full",
        ),
    ],
)
def test_real_likelihoods(decoder, covariance):
    structure = likelihood_structure(decoder, POINTS)
    assert (structure.likelihood, structure.covariance) == ("real", covariance)
    jets = decoder_jets(decoder, POINTS, ["mu", "mu_d", "mu_b", "mu_db", "Sigma", "Sigma_db"])
    assert not jets["mu"].is_complex()
    assert not jets["Sigma"].is_complex()
    torch.testing.assert_close(jets["mu_b"], jets["mu_d"].conj())
    z = POINTS
    torch.testing.assert_close(jets["mu_d"][:, 0, 0], z[:, 1].imag / 2 + 0j)
    torch.testing.assert_close(jets["mu_d"][:, 1, 0], -0.5j * z[:, 0].real)
    torch.testing.assert_close(jets["mu_db"][:, 0, 0, 1], torch.ones(3, dtype=z.dtype))
    check_decoder(decoder, POINTS)


def test_batches_of_every_shape_agree():
    names = ["mu_db", "Sigma_ddb", "Sigma_factor", "mu"]
    whole = decoder_jets(_by_full, POINTS, names)
    single = decoder_jets(_by_full, POINTS[1], names)
    nested = decoder_jets(_by_full, POINTS.reshape(1, 3, 1, 2), names)
    chunked = decoder_jets(_by_full, POINTS, names, chunk_size=1)
    empty = decoder_jets(_by_full, POINTS[:0], names)
    for name in names:
        torch.testing.assert_close(single[name], whole[name][1])
        torch.testing.assert_close(nested[name], whole[name][None, :, None])
        torch.testing.assert_close(chunked[name], whole[name])
        assert empty[name].shape == (0, *whole[name].shape[1:])


@pytest.mark.parametrize("covariance", ["constant", "scalar", "diagonal"])
@pytest.mark.parametrize("decoder", ["holomorphic", "split", "modulus"])
def test_gradients_reach_the_weights(decoder, covariance):
    """The derivative of a jet by a weight is the difference quotient's."""
    config = VAEConfig(
        data_dim=3, latent_dim=2, hidden=(4,), decoder=decoder, covariance=covariance
    )
    model = ComplexVAE(config).double().decoder
    weight = model.layers[0].weight_pairs

    def loss():
        jets = decoder_jets(model, POINTS, ["mu_d", "mu_db", "Sigma_d", "Sigma_db"])
        return sum((jet * jet.conj()).real.sum() for jet in jets.values())

    (gradient,) = torch.autograd.grad(loss(), weight)
    direction = torch.randn(
        weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    step = 1e-5
    with torch.no_grad():
        weight += step * direction
        plus = float(loss())
        weight -= 2 * step * direction
        minus = float(loss())
    assert float((gradient * direction).sum()) == pytest.approx(
        (plus - minus) / (2 * step), rel=1e-6
    )


@pytest.mark.parametrize("covariance", ["constant", "scalar", "diagonal"])
@pytest.mark.parametrize(
    ("decoder", "likelihood"),
    [("holomorphic", "complex"), ("split", "real"), ("modulus", "complex")],
)
def test_own_decoders_pass_the_check_and_say_what_they_are(decoder, likelihood, covariance):
    config = VAEConfig(
        data_dim=3,
        latent_dim=2,
        hidden=(4,),
        decoder=decoder,
        likelihood=likelihood,
        covariance=covariance,
    )
    model = ComplexVAE(config).double().decoder
    structure = check_decoder(model, POINTS)
    assert structure.holomorphic_mean == (decoder == "holomorphic")
    assert structure.constant_covariance == (covariance == "constant")
    assert structure.covariance == ("scalar" if covariance == "scalar" else "diagonal")
    jets = decoder_jets(model, POINTS, ["mu_d", "mu_b", "Sigma_d"])
    by_function = decoder_jets(lambda z: model(z), POINTS, ["mu_d", "mu_b", "Sigma_d"])
    for name, jet in jets.items():
        if by_function[name].ndim > jet.ndim:  # torch's Normal has no scalar structure
            jet = jet[..., None].expand(by_function[name].shape)
        torch.testing.assert_close(by_function[name], jet)
    jets = {name: jet.detach() for name, jet in jets.items()}
    assert (float(jets["mu_b"].abs().max()) < 1e-14) == structure.holomorphic_mean
    assert (float(jets["Sigma_d"].abs().max()) == 0) == structure.constant_covariance


def test_float32_decoders_pass_the_check():
    model = ComplexVAE(VAEConfig(data_dim=3, latent_dim=2, hidden=(4,))).decoder
    check_decoder(model, POINTS.to(torch.complex64))


class _Realified(nn.Module):
    """A real network on (x, y), as users bring them."""

    def __init__(self, *layers, event=4):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), *layers, nn.Linear(8, event)).double()

    def forward(self, z):
        out = self.net(torch.cat([z.real, z.imag], dim=-1))
        return torch.complex(out[..., :2], out[..., 2:]), 0.1 * out[..., :2]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.ReLU(), r"C² decoder, but the layer 'net.1' \(ReLU\(\)\)"),
        (nn.ELU(), "second derivative"),
        (nn.LeakyReLU(), "kink"),
        (nn.Hardtanh(), "kink"),
        (nn.Dropout(0.5), r"is random while training; call .eval\(\)"),
        (nn.BatchNorm1d(8), r"mixes the points of a batch while training"),
    ],
)
def test_layers_that_have_no_metric_are_refused(layer, message):
    torch.manual_seed(0)
    with pytest.raises(InputError, match=message):
        check_decoder(_Realified(layer), POINTS)


def test_smooth_layers_and_evaluation_mode_pass():
    torch.manual_seed(0)
    for layer in (
        nn.Tanh(),
        nn.GELU(),
        nn.Softplus(),
        nn.GroupNorm(2, 8),
        nn.Dropout(0.5),
        nn.BatchNorm1d(8),
    ):
        check_decoder(_Realified(layer).eval(), POINTS)


class _WrittenOut(nn.Module):
    """Layer normalisation in elementary operations."""

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)


def test_layer_norm_is_right_in_reverse_mode_and_caught_in_forward_mode():
    """torch's forward derivative of layer_norm cannot be differentiated again (torch 2.13)."""
    torch.manual_seed(0)
    fused = _Realified(nn.LayerNorm(8, elementwise_affine=False))
    plain = _Realified(_WrittenOut())
    plain.load_state_dict(fused.state_dict())
    names = ["mu_dd", "mu_db", "Sigma_dd"]
    expected = decoder_jets(plain, POINTS, names)
    reverse = decoder_jets(fused, POINTS, names, mode="reverse")
    forward = decoder_jets(fused, POINTS, names)
    for name in names:
        torch.testing.assert_close(reverse[name], expected[name])
    check_decoder(plain, POINTS)
    if float((forward["mu_dd"] - expected["mu_dd"]).detach().abs().max()) > 1e-9:
        with pytest.raises(
            InputError, match=r"of its mu by forward mode and by central diff.*layer_norm"
        ):
            check_decoder(fused, POINTS, mode="forward")
        with pytest.warns(UserWarning, match="'forward, written out'"):
            check_decoder(fused, POINTS)


class _WrongForward(torch.autograd.Function):
    """x² whose forward mode forgets the factor 2."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad

    @staticmethod
    def jvp(ctx, tangent):
        return ctx.saved_tensors[0] * tangent


def _with_mean(extra):
    return lambda z: (_mean(z) + extra(z), _log_variance(z))


def _mixing(z):
    return _mean(z) + (z.mean(0, keepdim=True) if z.ndim == 2 else z), _log_variance(z)


DISHONEST = {
    "custom function": (_with_mean(lambda z: _WrongForward.apply(z.real) + 0j), "differ by"),
    "detached": (_with_mean(lambda z: (z.detach() * z).sin()), "central differences differ by"),
    "abs": (_with_mean(lambda z: z.abs() ** 2 + 0j), r"write z\*z.conj"),
    "norm": (
        _with_mean(lambda z: torch.linalg.vector_norm(z, dim=-1, keepdim=True) ** 2 + 0j),
        "corner at 0",
    ),
    "functional relu": (_with_mean(lambda z: torch.relu(z.real) + 0j), "operation Relu"),
    "random": (_with_mean(lambda z: torch.rand(z.shape, dtype=torch.float64) + z), "vmap|random"),
    "mixing": (_mixing, "influence one another"),
    "not finite": (_with_mean(lambda z: (z.real - z.real).sqrt() + 0j), "not finite"),
}


@pytest.mark.parametrize("case", DISHONEST)
def test_decoders_that_autograd_gets_wrong_are_refused(case):
    decoder, message = DISHONEST[case]
    with pytest.raises(InputError, match=message):
        check_decoder(decoder, POINTS)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (lambda z: z, "but got Tensor"),
        (lambda z: (_mean(z), None), "to be tensors"),
        (lambda z: (_mean(z), _mean(z)), "log variance to be real"),
        (lambda z: (_mean(z), torch.zeros(5)), "log variance to be real, of shape"),
        (lambda z: (_mean(z)[0], _log_variance(z)[0]), "mean to be"),
        (lambda z: (_mean(z).to(torch.complex64), _log_variance(z).float()), "precision"),
        (lambda z: Normal(_real_mean(z), 1.0), "but got Normal"),
    ],
)
def test_outputs_that_are_no_gaussian(decoder, message):
    with pytest.raises(InputError, match=message):
        likelihood_structure(decoder, POINTS)


@pytest.mark.parametrize(
    "name", ["nu", "mu_", "mu_bd", "mu_dx", "Sigma_ddddd", "", "Sigma_factor_d"]
)
def test_names_that_are_no_jet(name):
    with pytest.raises(InputError, match="names: expected"):
        decoder_jets(_by_pair, POINTS, [name])


def test_modes_that_are_none():
    with pytest.raises(InputError, match="'forward' or 'reverse'"):
        decoder_jets(_by_pair, POINTS, ["mu"], mode="backward")


@pytest.mark.parametrize("z", [POINTS.real, POINTS[:, :0], torch.tensor(1j), 3.0])
def test_points_that_are_none(z):
    with pytest.raises(InputError, match="expected z to be a complex tensor"):
        decoder_jets(_by_pair, z, ["mu"])


def test_the_check_needs_a_point():
    with pytest.raises(InputError, match="at least one point"):
        check_decoder(_by_pair, POINTS[:0])


def test_complex_linear_decoders_of_users():
    """A module that returns a ComplexNormal and validates it goes through vmap."""
    layer = ComplexLinear(2, 3).double()

    def decoder(z):
        return ComplexNormal(layer(z), scale=1.0, validate_args=True)

    jets = decoder_jets(decoder, POINTS, ["mu_d", "mu_b", "Sigma_d"])
    torch.testing.assert_close(jets["mu_d"], layer.weight.mT.expand(3, 2, 3))
    assert float(jets["mu_b"].detach().abs().max()) < 1e-15
    assert float(jets["Sigma_d"].abs().max()) == 0


class _Real(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, z):
        mean, log_variance = self.layer(torch.cat([z.real, z.imag], -1)).chunk(2, -1)
        return mean, log_variance


def _tril(z, *rows):
    matrix = torch.tensor(rows, dtype=z.real.dtype)
    return MultivariateNormal(z.real, scale_tril=(matrix + 0 * z.real[..., None]))


@pytest.mark.parametrize(
    ("decoder", "dtype", "message"),
    [
        (
            lambda z: _tril(z, [1.0, 0.25], [0.5, 1.0]),
            torch.complex128,
            "scale_tril at z to be lower triangular, but an entry above its diagonal is 0.25",
        ),
        (
            lambda z: _tril(z, [1.0, 0.0], [0.5, -2.0]),
            torch.complex128,
            "scale_tril at z to be positive on its diagonal, but got a minimum of -2",
        ),
        (
            lambda z: Independent(Normal(z * z, torch.ones_like(z.real)), 1),
            torch.complex128,
            "Normal to have a real mean and scale, but got torch.complex128 and torch.float64",
        ),
        (
            lambda z: Independent(Normal(z.real, z), 1),
            torch.complex128,
            "Normal to have a real mean and scale, but got torch.float64 and torch.complex128",
        ),
        (
            lambda z: MultivariateNormal(z, scale_tril=torch.eye(2, dtype=z.dtype).expand(3, 2, 2)),
            torch.complex128,
            "MultivariateNormal to have a real mean and scale",
        ),
        (
            lambda z: Independent(Normal(z.real, z.real - 9), 1),
            torch.complex128,
            "scale at z to be positive, but got a minimum of -",
        ),
        (
            _Real(),
            torch.complex128,
            "z: expected the precision .* the decoder's layer.weight .*float32, .*complex128",
        ),
        (
            _Real().double(),
            torch.complex64,
            r"layer.weight \(torch.float64, cpu\), got torch.complex64",
        ),
    ],
)
def test_laws_that_are_none_are_refused(decoder, dtype, message):
    z = torch.randn(3, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).to(
        dtype
    )
    with pytest.raises(InputError, match=message):
        check_decoder(decoder, z)


def test_errors_of_a_decoder_s_own_are_passed_on():
    class Broken(_Real):
        def forward(self, z):
            return self.layer(z.real)  # two features instead of four

    z = torch.randn(3, 2, dtype=torch.complex64)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        check_decoder(Broken(), z)
