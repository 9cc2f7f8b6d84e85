"""Marginal likelihoods: exact where the model is linear, and as far off as they say elsewhere."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import InputError
from kahler_verify.models import RealVAE, RealVAEConfig, load_data, marginal_log_likelihood
from kahler_verify.models.autoencoder import Autoencoder
from kahler_verify.models.checkpoint import save_checkpoint
from tests.command import run

D, NOISE = 7, 0.3
ROTATION = torch.linalg.qr(
    torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
)[0]
LOADINGS = ROTATION[:, :2] * torch.tensor([1.5, 0.4], dtype=torch.float64)  # orthogonal columns


class Linear(Autoencoder):
    """x = W z + σ ε, whose posterior is known, with an encoder that may miss it.

    Args:
        circular: latents and data, both circular.
        shift: of the encoder's mean, in its standard deviations.
        widen: of its standard deviations.
    """

    def __init__(self, circular: bool = False, shift: float = 0.0, widen: float = 1.0) -> None:
        super().__init__()
        self.circular, self.shift, self.widen = circular, shift, widen

    def encoder(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        variance = 1 / (1 + LOADINGS.square().sum(0) / NOISE**2)
        mean = (x @ LOADINGS.to(x.dtype)) * variance / NOISE**2 + self.shift * variance.sqrt()
        return mean, (self.widen**2 * variance).log().expand(mean.shape)

    def draw_latents(self, x: Tensor, *, generator: torch.Generator | None = None) -> None:  # type: ignore[override]
        raise NotImplementedError

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        mean = z @ LOADINGS.mT.to(z.dtype)
        if self.circular:
            return ComplexNormal(
                mean, scale=torch.full((len(z),), NOISE, dtype=torch.float64)
            ).log_prob(x)
        return Independent(Normal(mean, NOISE), 1).log_prob(x)

    def data(self, count: int) -> Tensor:
        kind = torch.complex128 if self.circular else torch.float64
        return 1.2 * torch.randn(count, D, dtype=kind, generator=torch.Generator().manual_seed(1))

    def exact(self, x: Tensor) -> Tensor:
        sigma = LOADINGS @ LOADINGS.mT + NOISE**2 * torch.eye(D).double()
        if self.circular:
            return ComplexNormal(
                torch.zeros_like(x), scale_tril=torch.linalg.cholesky(sigma.to(x.dtype))
            ).log_prob(x)
        return MultivariateNormal(torch.zeros(D).double(), sigma).log_prob(x)


@pytest.mark.parametrize("circular", [False, True])
def test_it_is_exact_where_the_encoder_is(circular: bool) -> None:
    model = Linear(circular)
    x = model.data(20)
    found = marginal_log_likelihood(model, x, 4, rounds=0, defensive=0)
    assert torch.allclose(found.each, model.exact(x), rtol=1e-12)
    assert found.errors.max() < 1e-12
    assert found.effective.min() > 4 - 1e-9


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize(
    ("shift", "widen", "rounds"),
    [(0.0, 1.0, 0), (0.0, 3.0, 0), (0.0, 1.0, 2), (1.5, 1.0, 2), (0.5, 0.6, 2), (3.0, 0.5, 3)],
)
def test_it_is_as_far_off_as_it_says(
    circular: bool, shift: float, widen: float, rounds: int
) -> None:
    model = Linear(circular, shift, widen)
    x = model.data(250)
    found = marginal_log_likelihood(model, x, 1000, rounds=rounds)
    off = (found.each - model.exact(x)) / found.errors
    assert 0.8 < off.square().mean().sqrt() < 1.25
    assert abs(found.mean - model.exact(x).mean()) < 4 * found.error + found.bias
    assert found.doubtful <= 1
    assert math.isclose(found.spread, float(model.exact(x).std()) / 250**0.5, rel_tol=0.02)


def test_rounds_mend_an_encoder_that_misses() -> None:
    model = Linear(shift=6.0, widen=0.3)
    x = model.data(50)
    without, moved = (marginal_log_likelihood(model, x, 500, rounds=r) for r in (0, 4))
    assert moved.error < without.error / 3
    assert moved.effective.min() > 100


def test_without_the_prior_light_tails_deceive() -> None:
    """What the defensive part is for: with a narrow q the stated error is far too small."""
    model = Linear(widen=0.25)
    x = model.data(200)
    rms = {}
    for alpha in (0.0, 0.3):
        found = marginal_log_likelihood(model, x, 2000, rounds=0, defensive=alpha)
        rms[alpha] = ((found.each - model.exact(x)) / found.errors).square().mean().sqrt()
    assert rms[0.0] > 3 * rms[0.3]


@pytest.fixture(scope="module")
def vae() -> RealVAE:
    """With random weights, and as broad a law of x as data have."""
    model = RealVAE(RealVAEConfig(hidden=(8,), seed=1)).double().requires_grad_(False)
    model.standardise(load_data("digits-images").train.x)
    return model.eval()


@pytest.mark.thorough
def test_an_ordinary_vae_against_quadrature(vae: RealVAE) -> None:
    x = load_data("digits-images").test.x[:40].double()
    axis = torch.linspace(-7, 7, 281, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    joint = torch.stack([vae.log_likelihood(z, one.expand(len(z), -1)) for one in x])
    prior = -z.square().sum(-1) / 2 - math.log(2 * math.pi)
    exact = (joint + prior + 2 * (axis[1] - axis[0]).log()).logsumexp(1)
    found = marginal_log_likelihood(vae, x, 1000)
    assert 0.6 < ((found.each - exact) / found.errors).square().mean().sqrt() < 1.4
    assert found.error < 0.02
    assert found.mean > vae.elbo(x) + 0.01


def test_seeds_and_blocks(vae: RealVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    x = load_data("digits-images").test.x[:10].double()
    found = marginal_log_likelihood(vae, x, 100)
    assert torch.equal(found.each, marginal_log_likelihood(vae, x, 100).each)
    assert not torch.equal(found.each, marginal_log_likelihood(vae, x, 100, seed=1).each)
    monkeypatch.setattr("kahler_verify.models.marginal.ROWS", 70)
    assert torch.allclose(found.each, marginal_log_likelihood(vae, x, 100).each)
    monkeypatch.setattr("kahler_verify.models.marginal.BLOCK", 3)
    cut = marginal_log_likelihood(vae, x, 100)
    assert torch.equal(cut.each[:1] == found.each[:1], torch.tensor([False]))
    assert bool(((cut.each - found.each).abs() < 6 * (cut.errors + found.errors)).all())
    assert math.isnan(marginal_log_likelihood(vae, x[:1], 10).spread)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": torch.nn.Linear(1, 1)}, "model: expected an autoencoder, got Linear"),
        (
            {"x": torch.zeros(0, D).double()},
            r"x: expected samples \[n, D\] with n ≥ 1, got \[0, 7\]",
        ),
        ({"x": torch.zeros(D).double()}, r"x: expected samples \[n, D\]"),
        ({"x": [0.0]}, "x: expected samples .* got list"),
        (
            {"x": torch.full((2, D), math.nan).double()},
            "x: expected finite values, got NaN",
        ),
        (
            {"x": torch.full((2, D), 1e200, dtype=torch.float64)},
            "x: expected samples of positive likelihood",
        ),
        ({"draws": 1}, "draws: expected a whole number from 2, got 1"),
        ({"draws": 3}, "draws: expected at least 2 from prior and proposal each, got 3"),
        ({"draws": 10.0}, "draws: expected a whole number"),
        ({"rounds": -1}, "rounds: expected a whole number from 0"),
        ({"defensive": 1.0}, r"defensive: expected a number in \[0, 1\), got 1.0"),
        ({"defensive": math.nan}, "defensive: expected a number"),
    ],
)
def test_bad_input(arguments: dict, message: str) -> None:
    given = {"model": Linear(), "x": Linear().data(3), "draws": 20} | arguments
    with pytest.raises(InputError, match=message):
        marginal_log_likelihood(given.pop("model"), given.pop("x"), given.pop("draws"), **given)


def test_diagnose_says_it(tmp_path: Path, vae: RealVAE) -> None:
    save_checkpoint(tmp_path / "model", vae)
    out = tmp_path / "out.json"
    own = ("--no-curvature", "--points", "2", "--draws", "50", "--json", str(out))
    done = run("diagnose", str(tmp_path / "model"), *own)
    assert done.returncode == 0, done.stderr
    assert "nats by 50 draws each" in done.stdout
    found = json.loads(out.read_text())["log_marginal_likelihood"]
    assert (found["draws"], found["samples"]) == (50, 180)
    assert found["error"] > 0
    done = run("diagnose", str(tmp_path / "model"), "--draws", "-1")
    assert done.returncode == 2
    assert "draws: expected 0 or more, got -1" in done.stderr
