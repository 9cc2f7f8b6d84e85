"""A Gaussian's last layer folded into its metric: equal to the plain layer, and never stale."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, LogNormal, Normal

from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.linear_algebra import heads
from kahler_verify.models.real_vae import RealVAEConfig
from kahler_verify.rules.expansion import Head
from tests.manifolds import draw

D, HIDDEN, LATENT = 60, 8, 3


Z = draw(5, LATENT)


def network(outputs: int = D, hidden: int = HIDDEN, latent: int = LATENT) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Softplus(),
            nn.Linear(hidden, outputs),
        )
    return layers.double().requires_grad_(False)


class Decoder(nn.Module):
    """A network with a constant Σ, in the form that ``law`` gives it."""

    def __init__(self, law: Callable[[Tensor, Tensor], object], layers: nn.Module, outputs: int):
        super().__init__()
        self.layers, self.law = layers, law
        self.log_variance = nn.Parameter(draw(outputs, seed=7) / 2, requires_grad=False)

    def forward(self, z: Tensor) -> object:
        return self.law(self.layers(z), self.log_variance)


LAWS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "the mean alone": lambda mean, _: mean,
    "a pair": lambda mean, v: (mean, v.expand_as(mean)),
    "a pair with one variance": lambda mean, v: (mean, v[:1].expand(len(mean))),
    "Normal": lambda mean, v: Normal(mean, (v / 2).exp()),
    "Independent of Normal": lambda mean, v: Independent(Normal(mean, (v / 2).exp()), 1),
    "Normal with one scale": lambda mean, _: Normal(mean, 0.3),
    "LogNormal": lambda mean, v: LogNormal(mean, (v / 2).exp()),
    "scaled and shifted": lambda mean, v: Normal(1 + v * (2 * mean - v), 0.5),
    "Normal with a varying scale": lambda mean, _: Normal(mean, (mean[:, :1] / 9).exp()),
    "LogNormal with a varying scale": lambda mean, _: LogNormal(mean, (mean[:, 1:2] / 9).exp()),
    "as it stands": lambda mean, v: (mean.reshape(len(mean), -1).flatten(1), v.expand_as(mean)),
}


def both(decoder: nn.Module) -> tuple[FisherRaoMetric, FisherRaoMetric]:
    return FisherRaoMetric(decoder, fold="always"), FisherRaoMetric(decoder, fold="never")


def close(a: Tensor | None, b: Tensor | None) -> None:
    assert a is not None
    assert b is not None
    assert (a - b).abs().max() < 1e-12 * b.abs().max()


@pytest.fixture
def reductions(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of the layers that were reduced."""
    seen: list[torch.Size] = []

    def watched(weight: Tensor) -> Tensor:
        seen.append(weight.shape)
        return heads.reduced(weight)

    monkeypatch.setattr("kahler_verify.geometry.folding.reduced", watched)
    return seen


@pytest.mark.parametrize(("outputs", "hidden", "latent"), [(D, 8, 3), (40, 20, 2), (9, 20, 4)])
@pytest.mark.parametrize("law", LAWS)
def test_the_folded_layer_has_the_same_jet(
    law: str, outputs: int, hidden: int, latent: int, reductions: list[torch.Size]
) -> None:
    folded, plain = both(Decoder(LAWS[law], network(outputs, hidden, latent), outputs))
    z = draw(4, latent)
    for order in (0, 1, 2):
        for a, b in zip(folded.jet(z, order), plain.jet(z, order), strict=True):
            if b is not None:
                close(a, b)
    assert reductions == [(outputs, hidden)]  # kept from then on


@pytest.mark.parametrize("covariance", ["constant", "scalar", "diagonal"])
def test_decoders_of_real_vaes(covariance: str, reductions: list[torch.Size]) -> None:
    config = RealVAEConfig(data_dim=D, latent_dim=LATENT, hidden=(8, 8), covariance=covariance)  # type: ignore[arg-type]
    vae = config.build().double().requires_grad_(False)
    vae.standardise(draw(50, D))
    folded, plain = both(vae.decoder)
    close(folded.metric_matrix(Z), plain.metric_matrix(Z))
    close(folded.scalar_curvature(Z), plain.scalar_curvature(Z))
    assert len(reductions) == (covariance != "diagonal")


@pytest.mark.parametrize("law", LAWS)
def test_the_gram_matrix_of_recorded_weights_and_its_gradients(law: str) -> None:
    decoder = Decoder(LAWS[law], network(), D).requires_grad_()
    gradients = []
    for metric in both(decoder):
        decoder.zero_grad()
        z = Z.clone().requires_grad_()
        g = metric.metric_matrix(z)
        torch.logdet(g).sum().backward()
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in decoder.parameters()]
        gradients.append([g.detach(), z.grad, *found])
        metric.christoffels(Z)  # has no such form
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-11)


def test_gradients_by_latents_alone() -> None:
    gradients = []
    for metric in both(network()):
        z = Z.clone().requires_grad_()
        gradients.append(torch.autograd.grad(metric.log_volume(z).sum(), z)[0])
    close(*gradients)


WRITES: dict[str, Callable[[nn.Linear, Tensor], object]] = {
    "in place": lambda layer, new: layer.weight.copy_(new),
    "through data": lambda layer, new: layer.weight.data.copy_(new),
    "by new data": lambda layer, new: setattr(layer.weight, "data", new.clone()),
    "one entry": lambda layer, new: layer.weight[3, 2].mul_(2.0),
    "load_state_dict": lambda layer, new: layer.load_state_dict(
        {"weight": new, "bias": layer.bias}
    ),
    "through numpy": lambda layer, new: layer.weight.numpy().__imul__(1.5),
}


@pytest.mark.parametrize("write", WRITES)
def test_written_weights_are_noticed(write: str) -> None:
    decoder = Decoder(LAWS["Normal"], network(), D)
    folded, plain = both(decoder)
    before = folded.metric_matrix(Z)
    WRITES[write](decoder.layers[-1], draw(D, HIDDEN, seed=3))  # type: ignore[index,arg-type]
    after = folded.metric_matrix(Z)
    assert (after - before).abs().max() > 1e-6
    close(after, plain.metric_matrix(Z))


def test_a_written_variance_is_noticed() -> None:
    decoder = Decoder(LAWS["a pair"], network(), D)
    folded, plain = both(decoder)
    before = folded.metric_matrix(Z)
    decoder.log_variance.data[5] += 1
    assert not torch.equal(folded.metric_matrix(Z), before)
    close(folded.metric_matrix(Z), plain.metric_matrix(Z))


def test_what_is_not_the_same_for_all_points_is_not_folded(reductions: list[torch.Size]) -> None:
    layers = network()

    def detached(z: Tensor) -> tuple[Tensor, Tensor]:
        mean = layers(z)
        return mean, z.detach().sum(-1, keepdim=True).expand_as(mean)

    def varying(z: Tensor) -> tuple[Tensor, Tensor]:
        mean = layers(z)
        return mean, mean / 9

    def nonlinear(z: Tensor) -> Tensor:
        return layers(z).sin()

    for decoder in (detached, varying, nonlinear):
        folded, plain = (FisherRaoMetric(decoder, fold=f) for f in ("always", "never"))
        assert torch.equal(folded.metric_matrix(Z), plain.metric_matrix(Z))
    assert not reductions


def test_one_variance_for_all_is_seen_and_written_ones_are_not_taken_for_it() -> None:
    layers = network()
    own = draw(D, seed=5).exp()

    def layout(decoder: Callable[[Tensor], object]) -> str:
        return FisherRaoMetric(decoder)._fields(Z).family.layout

    assert layout(lambda z: Normal(layers(z), layers(z)[:, :1].exp())) == "scalar"
    assert layout(lambda z: Normal(layers(z), 0.3)) == "scalar"
    assert layout(lambda z: Normal(layers(z), own)) == "diagonal"
    assert layout(lambda z: Normal(layers(z), layers(z).exp())) == "diagonal"
    assert layout(lambda z: Normal(layers(z)[:, :1], 0.3)) == "diagonal"  # one output


def test_it_is_folded_where_it_pays(
    reductions: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    FisherRaoMetric(network(9, 8)).metric_matrix(Z)
    assert not reductions
    multiplied: list[torch.Size] = []
    plain = Head.multiplied_out

    def watched(self: Head) -> object:
        multiplied.append(self.weight.shape)
        return plain(self)

    monkeypatch.setattr(Head, "multiplied_out", watched)
    metric = FisherMetric(network(), check=False)
    metric.metric_matrix(Z)
    assert reductions == [(D, HIDDEN)]
    multiplied.clear()
    metric.metric_matrix(Z)
    assert (D, HIDDEN) not in multiplied  # the last layer meets no tangent
    metric.forget_heads()
    metric.metric_matrix(Z)
    assert len(reductions) == 2
    metric.fold = "never"
    metric.metric_matrix(Z)
    assert (D, HIDDEN) in multiplied


@pytest.mark.parametrize("law", ["the mean alone", "Normal with a varying scale"])
def test_transforms_of_torch_func(law: str) -> None:
    decoder = Decoder(LAWS[law], network(), D)
    folded, plain = (
        FisherRaoMetric(decoder, fold=f, check=False, validate_args=False)
        for f in ("always", "never")
    )
    assert torch.allclose(
        torch.func.vmap(lambda z: folded.metric_matrix(z[None])[0])(Z), plain.metric_matrix(Z)
    )
    slope = torch.func.jacfwd(folded.metric_matrix)(Z[:1]).squeeze(0, -2).movedim(-1, 0)
    assert torch.allclose(slope[:, :, :].squeeze(), plain.jet(Z[:1], 1).d.squeeze())  # type: ignore[union-attr]
    with torch.inference_mode():
        close(folded.metric_matrix(Z), plain.metric_matrix(Z))


def test_bad_numbers_are_named_as_before() -> None:
    decoder = Decoder(LAWS["Normal"], network(), D)
    folded, plain = both(decoder)
    decoder.layers[-1].bias.data[0] = torch.nan  # type: ignore[index,union-attr]
    for metric in (plain, folded):
        with pytest.raises(InputError, match="parameters, but mu of the Gaussian likelihood has"):
            metric.metric_matrix(Z)
    with pytest.raises(InputError, match="fold: expected 'auto'"):
        FisherRaoMetric(decoder, fold="sometimes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fold_ratio: expected a positive"):
        FisherRaoMetric(decoder, fold_ratio=0)


def test_a_folded_mean_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(2, 8), nn.Tanh()).double()
    last = nn.Linear(8, 64).double()
    z = torch.randn(5, 2, dtype=torch.float64)

    def law(z: Tensor) -> Independent:
        return Independent(Normal(last(hidden(z)), torch.linspace(1, 2, 64).double()), 1)

    metric = FisherRaoMetric(law, check=False)
    wanted = FisherRaoMetric(law, fold="never").metric_matrix(z)
    computed, value = [], Head.value
    monkeypatch.setattr(Head, "value", lambda head: computed.append(head.weight) or value(head))
    with torch.no_grad():
        torch.testing.assert_close(metric.metric_matrix(z), wanted)
    assert [len(weight) for weight in computed] == [8]


def test_variances_that_are_constant_in_each_chunk_alone() -> None:
    hidden = nn.Sequential(nn.Linear(2, 4), nn.Tanh()).double().requires_grad_(False)
    last = nn.Linear(4, 64).double().requires_grad_(False)

    def law(z: Tensor) -> Independent:
        return Independent(Normal(last(hidden(z)), z.detach()[:, :1].exp().expand(-1, 64)), 1)

    z = draw(4, 2)
    folded, whole = (
        FisherRaoMetric(law, check=False, memory_budget=1, fold=fold).metric_matrix(z)
        for fold in ("auto", "never")
    )
    torch.testing.assert_close(folded, whole)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_constant_scale_of_nan_is_named(*, recorded: bool) -> None:
    scale = torch.ones(D).double()
    scale[3] = torch.nan
    decoder = Decoder(lambda out, _: Normal(out, scale), network().requires_grad_(recorded), D)
    metric = FisherRaoMetric(decoder, check=False)
    with pytest.raises(InputError, match="finite parameters, but Sigma of the Gaussian"):
        metric.metric_matrix(Z)


def test_a_last_layer_that_is_written_behind_its_call_is_refused() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.last = nn.Linear(LATENT, 4), nn.Linear(4, D)
            self.double().requires_grad_(False)

        def forward(self, z: Tensor) -> Normal:
            h = self.hidden(z).tanh()
            self.last.weight.mul_(2)
            mean = self.last(h)
            self.last.weight.div_(2)
            return Normal(mean, 1.3)

    with pytest.raises(InputError, match="weights of a linear layer to stay as they are"):
        FisherRaoMetric(Written(), check=False).metric_matrix(Z)
