"""Other people's models as decoders: what is called, which tensor is meant, of which law."""

import math
import pickle
import sys

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, NegativeBinomial, Normal, kl_divergence
from torch.func import hessian, jacrev

from benchmarks.peoples_models import (
    AutoencoderKL,
    BaseAE,
    DecoderSCVI,
    LightningModule,
    LitVAE,
    ModelOutput,
    dcgan,
)
from kahler_verify import FisherMetric, FisherRaoMetric, PulledBackMetric
from kahler_verify.adapters import AdaptedDecoder, Output, adapted, negative_binomial
from kahler_verify.errors import InputError

D = torch.float64


def latents(*shape, seed=0):
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def close(a, b, tolerance=1e-12):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance * b.abs().max()


def pulled_back(f, z):
    """JᵀJ by torch's reverse mode, at z of any shape."""
    J = jacrev(lambda z: f(z[None])[0].flatten())(z).flatten(1)
    return J.mT @ J


def hessian_of_kl(law, z):
    return hessian(lambda y: kl_divergence(law(z[None]), law(y[None])).sum())(z)


# ------------------------------------------------------------- by type


@pytest.mark.parametrize("kind", [FisherMetric, FisherRaoMetric, PulledBackMetric])
def test_diffusers_autoencoder_is_decoded_at_latents_of_its_shape(kind):
    model = AutoencoderKL(channels=8, groups=2).double()
    metric, z = kind(model), latents(4, 4, 4)
    g = metric.metric_matrix(z)
    close(g, pulled_back(lambda z: model.decode(z).sample, z))
    close(metric.metric_matrix(z.flatten()), g)
    close(metric.metric_vector_product(z, z), (g @ z.flatten()).reshape(4, 4, 4))


def test_sizes_of_diffusers_latents_may_be_said():
    model = AutoencoderKL(channels=8, groups=2).double()
    metric = FisherMetric(model, latent_shape=(4, 2, 3))
    z = latents(2, 4, 2, 3)
    close(metric.metric_matrix(z)[1], pulled_back(lambda z: model.decode(z).sample, z[1]))
    assert "AutoencoderKL.decode" in repr(metric)
    assert "[4, 2, 3]" in repr(metric)


def test_pythae_model_has_the_law_of_its_loss():
    z = latents(3, 8)
    gaussian = BaseAE(8).double()
    close(
        FisherMetric(gaussian).metric_matrix(z)[0],
        pulled_back(lambda z: gaussian.decoder(z).reconstruction, z[0]),
    )
    binary = BaseAE(8, "bce").double()
    truth = hessian_of_kl(lambda z: Bernoulli(binary.decoder(z).reconstruction), z[0])
    close(FisherMetric(binary).metric_matrix(z)[0], truth, 1e-9)
    # a decoder by itself has no loss; what it returns says which tensor is meant
    close(FisherMetric(gaussian.decoder).metric_matrix(z), FisherMetric(gaussian).metric_matrix(z))
    close(
        PulledBackMetric(gaussian.decoder).metric_matrix(z), FisherMetric(gaussian).metric_matrix(z)
    )


def test_lightning_module_is_its_decoder():
    model, z = LitVAE().double(), latents(2, 8)
    metric = FisherMetric(model)
    close(metric.metric_matrix(z)[1], pulled_back(model.decoder, z[1]), 1e-11)
    assert "LitVAE.decoder" in repr(metric)

    class WithDecode(LitVAE):
        def decode(self, z):
            return Bernoulli(logits=self.decoder(z))

    model = WithDecode().double()
    truth = hessian_of_kl(lambda z: model.decode(z), z[0])
    close(FisherMetric(model).metric_matrix(z)[0], truth, 1e-9)

    class Alone(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 3)

        def forward(self, z):
            return self.layer(z)

    alone = Alone().double()
    assert adapted(alone) is alone


def test_counts_of_scvi():
    model, theta = DecoderSCVI().double(), torch.rand(30, dtype=D) + 0.5
    library = torch.tensor([[7.0]], dtype=D)

    def decode(z):
        return model("gene", z, library)

    def law(z):
        mean = decode(z)[2]
        return NegativeBinomial(theta, logits=(mean / theta).log())

    z = latents(3, 8)
    metric = FisherMetric(decode, output=Output(2, negative_binomial(theta)))
    for i in range(3):
        mean, slope = decode(z[i : i + 1])[2][0], jacrev(lambda z: decode(z[None])[2][0])(z[i])
        truth = slope.mT @ ((1 / (mean + mean**2 / theta))[:, None] * slope)
        close(metric.metric_matrix(z)[i], truth, 1e-10)
    close(FisherMetric(law).metric_matrix(z), metric.metric_matrix(z), 1e-10)
    assert "output 2, negative_binomial" in repr(metric)


class ScviNegativeBinomial(torch.distributions.Distribution):
    def __init__(self, mu, theta):
        self.mu, self.theta = mu, theta
        super().__init__(mu.shape, validate_args=False)


ScviNegativeBinomial.__name__, ScviNegativeBinomial.__module__ = (
    "NegativeBinomial",
    "scvi.distributions._negative_binomial",
)


def test_laws_of_scvi_are_torchs():
    model, theta = DecoderSCVI().double(), torch.rand(30, dtype=D) + 0.5
    library, z = torch.tensor([[7.0]], dtype=D), latents(2, 8)

    def decode(z):
        return {"px": ScviNegativeBinomial(model("gene", z, library)[2], theta), "pl": None}

    expected = FisherMetric(
        lambda z: model("gene", z, library), output=Output(2, negative_binomial(theta))
    )
    close(FisherMetric(decode, output="px").metric_matrix(z), expected.metric_matrix(z))

    class ZeroInflated(ScviNegativeBinomial):
        pass

    ZeroInflated.__name__ = "ZeroInflatedNegativeBinomial"
    ZeroInflated.__module__ = "scvi.distributions._negative_binomial"
    inflated = FisherMetric(lambda z: ZeroInflated(model("gene", z, library)[2], theta))
    with pytest.raises(InputError, match=r"zero-inflated.*output="):
        inflated.metric_matrix(z)
    cell = FisherMetric(
        lambda z: ScviNegativeBinomial(model("gene", z, library)[2], theta * z[:, :1].exp())
    )
    with pytest.raises(InputError, match="count of a negative binomial likelihood not to depend"):
        cell.metric_matrix(z)


def test_no_library_is_imported():
    assert not {"diffusers", "pythae", "scvi", "lightning"} & set(sys.modules)


def test_models_that_round_their_latents_are_refused():
    class VQModel(AutoencoderKL):
        pass

    VQModel.__module__ = "diffusers.models.autoencoders.vq_model"
    with pytest.raises(InputError, match="VQModel rounds its latents"):
        FisherMetric(VQModel(channels=8, groups=2))


# ------------------------------------------------------------- outputs


def several(net):
    def decode(z):
        x = net(z)
        return {"logits": x, "mean": x.tanh(), "steps": 3}

    return decode


def test_which_tensor_and_which_law():
    net, z = nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 6)).double(), latents(2, 3)
    decode = several(net)
    truth = hessian_of_kl(lambda z: Bernoulli(logits=net(z)), z[0])
    for output in (
        Output("logits", "bernoulli_logits"),
        Output("logits", lambda x: Bernoulli(logits=x)),
        lambda out: Bernoulli(logits=out["logits"]),
        Output(lambda out: out["logits"].sigmoid(), "bernoulli_probs"),
    ):
        close(FisherMetric(decode, output=output).metric_matrix(z)[0], truth, 1e-9)
    mean = pulled_back(lambda z: net(z).tanh(), z[0])
    close(FisherMetric(decode, output="mean").metric_matrix(z)[0], mean)
    close(PulledBackMetric(decode, output="mean").metric_matrix(z)[0], mean)
    rates = FisherMetric(decode, output=Output("logits", "poisson_log_rates"))
    J = jacrev(lambda z: net(z[None])[0])(z[0])
    close(rates.metric_matrix(z)[0], J.mT @ (net(z)[0].exp()[:, None] * J), 1e-11)
    classes = Output(lambda out: out["logits"].unflatten(-1, (2, 3)), "categorical_logits")
    w = net(z)[0].unflatten(-1, (2, 3)).softmax(-1)
    J3 = J.unflatten(0, (2, 3))
    truth = torch.einsum("mk,mka,mkb->ab", w, J3, J3) - torch.einsum(
        "mk,ml,mka,mlb->ab", w, w, J3, J3
    )
    close(FisherMetric(decode, output=classes).metric_matrix(z)[0], truth, 1e-10)


def test_outputs_that_are_not_clear_are_said():
    net, z = nn.Linear(3, 6).double(), latents(2, 3)
    with pytest.raises(InputError, match=r"dict with 'logits' .*say which with output="):
        FisherMetric(several(net)).metric_matrix(z)
    with pytest.raises(InputError, match="returned no 'rate' but dict with 'logits'"):
        FisherMetric(several(net), output="rate").metric_matrix(z)
    with pytest.raises(InputError, match="no 4 but tuple with 0"):
        FisherMetric(lambda z: (net(z), net(z), net(z)), output=4).metric_matrix(z)
    with pytest.raises(InputError, match="expected a law out of gaussian"):
        Output("x", "gauss")
    with pytest.raises(InputError, match="output: expected the name"):
        FisherMetric(net, output=1.5)
    with pytest.raises(InputError, match="expected a tensor for the law"):
        FisherMetric(
            lambda z: {"x": Normal(net(z), 1.0)}, output=Output("x", "poisson_rates")
        ).norm(z, z)
    with pytest.raises(InputError, match="latent_shape: expected whole numbers"):
        FisherMetric(net, latent_shape=(3, 0))
    with pytest.raises(InputError, match="adapted already"):
        adapted(adapted(net, latent_shape=(3,)), output=0)


# ------------------------------------------------------------- latents' shapes


def test_dcgan_at_latents_of_its_shape():
    model = dcgan(8, 4, nn.SiLU).double()
    metric, z = FisherMetric(model, latent_shape=(8, 1, 1)), latents(2, 8, 1, 1)
    g = metric.metric_matrix(z)
    assert g.shape == (2, 8, 8)
    close(g[1], pulled_back(model, z[1]), 1e-11)
    assert metric.log_volume(z).shape == (2,)
    assert metric.norm(z, z).shape == (2,)
    assert metric.log_volume_gradient(z).shape == z.shape
    close(
        metric.geodesic_acceleration(z, z).flatten(1),
        metric.geodesic_acceleration(z.flatten(1), z.flatten(1)),
    )
    assert metric.exp(z[0], 0.1 * z[1]).shape == (8, 1, 1)


def test_rows_of_another_length_are_refused():
    metric = FisherMetric(dcgan(8, 4), latent_shape=(8, 1, 1))
    with pytest.raises(InputError, match=r"expected shape \[\.\.\., 8\]"):
        metric.metric_matrix(torch.zeros(2, 9))
    with pytest.raises(InputError, match=r"does not take rows \[2, 8\].*say latent_shape="):
        FisherMetric(dcgan(8, 4)).metric_matrix(torch.zeros(2, 8))
    with pytest.raises(InputError, match="dimension: expected 8"):
        FisherRaoMetric(dcgan(8, 4), 9, latent_shape=(8, 1, 1))


# ------------------------------------------------------------- precision and compilation


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float8_e5m2])
def test_weights_in_half_precision_are_computed_in_that_of_z(kind):
    low = nn.Sequential(nn.Linear(5, 20), nn.SiLU(), nn.Linear(20, 9)).to(kind)
    same = nn.Sequential(nn.Linear(5, 20), nn.SiLU(), nn.Linear(20, 9)).to(kind)
    same.load_state_dict(low.state_dict())
    same.double()
    metric, z = FisherMetric(low), latents(3, 5)
    assert str(kind).removeprefix("torch.") in repr(metric)
    assert "computed in the precision of z" in repr(metric)
    close(metric.metric_matrix(z), FisherMetric(same).metric_matrix(z))
    single = metric.metric_matrix(z.float())
    assert single.dtype == torch.float32
    close(single.double(), metric.metric_matrix(z), 1e-5)
    # weights are read anew in each call, and stay what they are
    assert low[0].weight.dtype == kind
    with torch.no_grad():
        low[2].weight.copy_((2 * low[2].weight.float()).to(kind))
    close(metric.metric_matrix(z), 4 * FisherMetric(same).metric_matrix(z))
    # a cast metric has weights that are computed in as they are
    close(metric.on_real_latents.double().metric_matrix(z), metric.metric_matrix(z))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_integer_weights_are_the_numbers_they_stand_for():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 20), nn.SiLU(), nn.Sequential(nn.Linear(20, 9, bias=False)))
    rounded = torch.ao.quantization.quantize_dynamic(net.eval(), {nn.Linear}, dtype=torch.qint8)
    metric, z = FisherMetric(rounded), latents(3, 5).float()
    assert "integer weights" in repr(metric)
    same = nn.Sequential(nn.Linear(5, 20), nn.SiLU(), nn.Linear(20, 9, bias=False))
    with torch.no_grad():
        for layer, own in ((rounded[0], same[0]), (rounded[2][0], same[2])):
            own.weight.copy_(layer.weight().dequantize())
        same[0].bias.copy_(rounded[0].bias())
    close(metric.metric_matrix(z), FisherMetric(same).metric_matrix(z), 1e-6)
    near = FisherMetric(net).metric_matrix(z)
    assert 0 < (metric.metric_matrix(z) - near).abs().max() < 0.05 * near.abs().max()
    single = FisherMetric(rounded[0]).metric_matrix(z)
    close(single, FisherMetric(same[0]).metric_matrix(z), 1e-6)
    assert type(rounded[0]).__module__.startswith("torch.ao")  # the user's own is left alone


def test_compiled_models_are_run_as_what_they_were_made_of():
    net = nn.Sequential(nn.Linear(5, 20), nn.SiLU(), nn.Linear(20, 9)).double()
    z = latents(3, 5)
    expected = FisherMetric(net).metric_matrix(z)
    whole = FisherMetric(torch.compile(net))
    assert "uncompiled" in repr(whole)
    close(whole.metric_matrix(z), expected)
    parts = nn.Sequential(torch.compile(net[0]), net[1], net[2])
    close(FisherMetric(parts).metric_matrix(z), expected)
    in_place = nn.Sequential(net[0], net[1], net[2])
    in_place.compile()
    close(FisherMetric(in_place).metric_matrix(z), expected)
    close(FisherMetric(torch.compile(lambda z: net(z))).metric_matrix(z), expected)


def test_a_decoder_that_needs_nothing_stays_itself():
    net = nn.Linear(3, 4)
    assert adapted(net) is net
    assert FisherMetric(net).decoder is net
    assert isinstance(adapted(net, latent_shape=(3,)), AdaptedDecoder)


def test_adapted_metrics_are_copied_and_moved():
    model = AutoencoderKL(channels=8, groups=2).double()
    metric, z = FisherMetric(model), latents(4, 4, 4)
    g = metric.metric_matrix(z)
    single = metric.on_real_latents.float()
    close(single.metric_matrix(z.float()).double(), g, 1e-4)
    assert next(model.parameters()).dtype == D
    with pytest.raises(InputError, match="move what it closes over"):
        FisherRaoMetric(lambda z: z, latent_shape=(2, 2)).float()
    plain = FisherMetric(nn.Conv2d(4, 2, 1).double(), latent_shape=(4, 2, 2))
    again = pickle.loads(pickle.dumps(plain))  # noqa: S301
    z = latents(4, 2, 2)
    close(again.metric_matrix(z), plain.metric_matrix(z))


def test_what_was_met_on_the_way_is_in_the_repr():
    metric = FisherRaoMetric(lambda z: z.relu())
    assert "relu" not in repr(metric)
    metric.metric_matrix(latents(2, 3))
    assert "relu: has kinks" in repr(metric)
    pulled = PulledBackMetric(lambda z: torch.special.erfcx(z))
    pulled.metric_matrix(latents(2, 3))
    assert "erfcx" in repr(pulled)
    shaped = FisherMetric(dcgan(8, 4).double(), latent_shape=(8, 1, 1))
    shaped.norm(latents(8, 1, 1), latents(8, 1, 1))
    assert "relu: has kinks" in repr(shaped)
    assert "differentiated by autograd" in repr(pulled)


def test_model_outputs_have_keys_that_are_attributes():
    out = ModelOutput()
    out["reconstruction"] = torch.ones(math.prod((2, 3)))
    assert out.reconstruction is out["reconstruction"]
