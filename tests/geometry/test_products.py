"""Products of a real decoder's metric with vectors, which build no matrix."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, MultivariateNormal, Normal

from kahler_verify.geometry import matrix_free
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from tests.manifolds import draw

DOUBLE, B, LATENT, HIDDEN = torch.float64, 4, 14, 9


Z, U, V = draw(B, LATENT), draw(B, LATENT, seed=1), draw(B, LATENT, seed=2)
LAWS = {
    "a tensor": lambda out: out,
    "scalar Σ": lambda out: Normal(out[:, 1:], out[:, :1].exp()),
    "diagonal Σ": lambda out: (out, out.sin()),
    "full Σ": lambda out: MultivariateNormal(
        out[:, :2], torch.diag_embed(1 + out[:, 2:4] ** 2) + 0.1
    ),
    "Bernoulli": lambda out: Bernoulli(logits=out),
    "categorical": lambda out: Categorical(logits=out.unflatten(1, (-1, 5))),
}


class Decoder(nn.Module):
    def __init__(self, law: str) -> None:
        super().__init__()
        self.law = LAWS[law]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 30))
        self.double()

    def forward(self, z: Tensor) -> object:
        return self.law(self.layers(z))


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("law", LAWS)
def test_products_are_those_of_the_matrix(
    law: str, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(law).requires_grad_(recorded)
    metric = FisherRaoMetric(decoder)
    g = metric.metric_matrix(Z).detach()
    matrices = []
    plain = FisherRaoMetric.jet
    monkeypatch.setattr(
        FisherRaoMetric, "jet", lambda self, *at: matrices.append(at) or plain(self, *at)
    )
    covector = torch.einsum("bij,bj->bi", g, U)
    torch.testing.assert_close(metric.metric_vector_product(U, Z).detach(), covector)
    torch.testing.assert_close(metric.inner_product(U, V, Z).detach(), (covector * V).sum(-1))
    torch.testing.assert_close(metric.norm(U, Z).detach(), (covector * U).sum(-1).sqrt())
    cut = FisherRaoMetric(decoder, memory_budget=1)
    torch.testing.assert_close(cut.metric_vector_product(U, Z).detach(), covector)
    assert matrices == []
    with torch.inference_mode():
        torch.testing.assert_close(metric.metric_vector_product(U, Z), covector)
    torch.testing.assert_close(
        torch.func.vmap(lambda u, z: metric.metric_vector_product(u[None], z[None])[0])(U, Z),
        covector,
    )


def test_gradients_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder("Bernoulli")
    metric = FisherRaoMetric(decoder)
    gradients = []
    for threshold in (1, 99):
        monkeypatch.setattr(matrix_free, "COVECTOR_FROM", threshold)
        z, u = Z.clone().requires_grad_(), U.clone().requires_grad_()
        loss = (metric.metric_vector_product(u, z) * V).sum()
        gradients.append(torch.autograd.grad(loss, [z, u, *decoder.parameters()]))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)
