"""VQ-VAEs: the codebook's law, straight-through gradients, revival, checkpoints, balls."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kahler_verify.errors import CheckpointError, InputError
from kahler_verify.models import (
    Codebook,
    QuantisedVAE,
    QuantisedVAEConfig,
    RealVAEConfig,
    TrainingOptions,
    ball_divergence,
    from_pretrained,
    load_checkpoint,
    load_data,
    marginal_log_likelihood,
    save_checkpoint,
    save_pretrained,
    train,
)
from kahler_verify.models.checkpoint import read_tensors, write_tensors

pytestmark = pytest.mark.xdist_group("quantised")  # one worker makes what the tests share

SMALL = QuantisedVAEConfig(latent_dim=4, positions=2, codes=8, hidden=(8,))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> QuantisedVAE:
    path = tmp_path_factory.mktemp("quantised") / "model.safetensors"
    config = QuantisedVAEConfig(codes=32, hidden=(32,), decay=0.95)
    found = train(config, load_data("digits-images", 0), path, options=TrainingOptions(epochs=25))
    assert isinstance(found.model, QuantisedVAE)
    report = found.report
    assert report["test_perplexity"] > 16  # most codes are in use
    return found.model


def test_moving_averages_in_closed_form() -> None:
    """After T steps of the same points N = γᵀN₀ + (1 - γᵀ)n, m likewise; codes → the means."""
    book = Codebook(2, 2, decay=0.9, rare=0.0)
    counts, sums = book.counts.clone(), book.sums.clone()
    points = torch.tensor([[0.0, 1.0], [2.0, 3.0], [5.0, 5.0]])
    numbers = torch.tensor([0, 0, 1])
    for _ in range(7):
        book.update(points, numbers)
    kept = 0.9**7
    n, m = torch.tensor([2.0, 1.0]), torch.tensor([[2.0, 4.0], [5.0, 5.0]])
    torch.testing.assert_close(book.counts, kept * counts + (1 - kept) * n)
    torch.testing.assert_close(book.sums, kept * sums + (1 - kept) * m)
    for _ in range(300):
        book.update(points, numbers)
    torch.testing.assert_close(book.codes, torch.tensor([[1.0, 2.0], [5.0, 5.0]]))


def test_codes_are_the_nearest() -> None:
    book = Codebook(5, 3, decay=0.9, rare=0.0)
    points = normal(20, 2, 3)
    every = (points[..., None, :] - book.codes).norm(dim=-1)
    numbers = book.nearest(points)
    assert numbers.shape == (20, 2)
    torch.testing.assert_close(every.gather(-1, numbers[..., None])[..., 0], every.amin(-1))


def test_dead_codes_are_placed_on_points() -> None:
    book = Codebook(3, 2, decay=0.5, rare=0.2)
    book.counts.copy_(torch.tensor([4.0, 0.3, 2.0]))
    book.sums.copy_(torch.tensor([[4.0, 0.0], [30.0, 30.0], [2.0, 2.0]]))
    points = torch.tensor([[1.0, 0.5], [1.0, 1.5]])
    book.update(points, torch.tensor([0, 2]), torch.Generator().manual_seed(0))
    assert book.counts[1] == 1
    assert (book.codes[1] == points).all(-1).any()
    torch.testing.assert_close(book.counts[0], torch.tensor(2.5))  # the living are not touched
    again = Codebook(3, 2, decay=0.5, rare=0.0)
    again.counts.copy_(torch.tensor([4.0, 0.3, 2.0]))
    again.sums.copy_(torch.tensor([[4.0, 0.0], [30.0, 30.0], [2.0, 2.0]]))
    again.update(points, torch.tensor([0, 2]))
    torch.testing.assert_close(again.codes[1], torch.tensor([100.0, 100.0]))  # it stays away


def test_perplexity() -> None:
    book = Codebook(8, 2, decay=0.9, rare=0.0)
    assert math.isclose(book.perplexity(torch.arange(8)), 8)
    assert book.perplexity(torch.zeros(9, dtype=torch.long)) == 1
    uneven = torch.tensor([0, 0, 0, 1])
    assert math.isclose(book.perplexity(uneven), 4 / 3**0.75)


def test_gradients_go_straight_through() -> None:
    """∂loss/∂e(x) is the decoder's gradient at the code, and 2(e - c) of the commitment."""
    model = SMALL.build().eval()
    x = normal(6, 64)
    seen: list[Tensor] = []
    model.encoder.layers.register_forward_hook(
        lambda *arguments: (arguments[2].retain_grad(), seen.append(arguments[2]))[1]
    )
    z, commitment = model.draw_latents(x)
    codes = model.encoder(x)[0].detach()
    torch.testing.assert_close(z, codes)
    (-model.log_likelihood(z, x) + 0.25 * commitment).sum().backward()
    at = codes.clone().requires_grad_()
    (own,) = torch.autograd.grad(-model.log_likelihood(at, x).sum(), at)
    exact = seen[0]
    assert exact.grad is not None
    torch.testing.assert_close(exact.grad, own + 0.5 * (exact - codes).detach())
    assert not any(name.startswith("encoder.codebook") for name, _ in model.named_parameters())


def test_only_training_moves_the_codebook() -> None:
    model = SMALL.build()
    before = model.encoder.codebook.sums.clone()
    model.eval().draw_latents(normal(6, 64))
    assert torch.equal(before, model.encoder.codebook.sums)
    model.train().draw_latents(normal(6, 64))
    assert not torch.equal(before, model.encoder.codebook.sums)


def test_the_bound_is_reconstruction_less_log_k(trained: QuantisedVAE) -> None:
    """And log p(x) of the mixture prior without radius, summed over all codes, lies above it."""
    x = load_data("digits-images", 0).test.x[:50]
    with torch.no_grad():
        codes = trained.encoder.codebook.codes
        every = torch.stack([trained.log_likelihood(c.expand(len(x), -1), x) for c in codes], -1)
    log_p = every.logsumexp(-1) - math.log(len(codes))
    bound = trained.elbo(x)
    likelihood = every.gather(-1, trained.encoder.numbers(x)).mean()
    assert math.isclose(bound, float(likelihood) - math.log(32), rel_tol=1e-5)
    assert bound < float(log_p.mean())
    assert trained.sample_means(5).shape == (5, 64)


def test_it_learns(trained: QuantisedVAE) -> None:
    """A code tells more of x than the best single mean does."""
    data = load_data("digits-images", 0)
    x = data.test.x
    with torch.no_grad():
        error = (trained.decoder.mean(trained.encoder(x)[0]) - x).square().mean()
    assert error < 0.75 * (data.train.x.mean(0) - x).square().mean()


def test_balls_between_their_bounds() -> None:
    """0 ≤ log K - KL ≤ Σ exp(-|c_j - c_k|²/8s²), and N(0, I)'s KL is torch's, without bound."""
    codes = normal(6, 2, seed=3).double()
    generator = torch.Generator().manual_seed(0)
    for radius in (1.0, 0.3, 0.1):
        found = ball_divergence(codes, radius, draws=4000, generator=generator)
        rest, slack = math.log(6) - found.value, 4 * found.error + 1e-15  # log 6 is rounded
        assert bool((rest > -slack).all())
        assert bool((rest < found.gap + slack).all())
        ball = torch.distributions.Normal(codes, radius)
        prior = torch.distributions.Normal(0.0, 1.0)
        torch.testing.assert_close(
            found.fixed, torch.distributions.kl_divergence(ball, prior).sum(-1)
        )
    small = ball_divergence(codes, 1e-3, generator=generator)
    torch.testing.assert_close(small.value, torch.full_like(small.value, math.log(6)))
    smaller = ball_divergence(codes, 1e-6, generator=generator)
    torch.testing.assert_close(
        smaller.fixed - small.fixed,
        torch.full_like(small.fixed, 2 * math.log(1e3)),
        rtol=1e-6,
        atol=0,
    )


def test_two_balls_by_quadrature() -> None:
    """KL = ∫ N(u; 0, 1) log 2/(1 + e^{δu/s - δ²/2s²}) du along the line of the two."""
    gap, radius = 1.5, 0.8
    codes = torch.tensor([[0.0, 0.0], [gap, 0.0]])
    u = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    weight = (-(u**2) / 2).exp() / math.sqrt(2 * math.pi)
    excess = torch.nn.functional.softplus(gap * u / radius - gap**2 / (2 * radius**2))
    exact = float(torch.trapezoid(weight * (math.log(2) - excess), u))
    found = ball_divergence(codes, radius, draws=20_000, generator=torch.Generator().manual_seed(1))
    assert bool(((found.value - exact).abs() < 4 * found.error).all())
    assert float(found.error.max()) < 5e-3


def test_round_trips(trained: QuantisedVAE, tmp_path: Path) -> None:
    x = load_data("digits-images", 0).test.x[:20]
    save_checkpoint(tmp_path / "a.safetensors", trained)
    save_pretrained(tmp_path / "folder", trained)
    for found in (
        load_checkpoint(tmp_path / "a.safetensors"),
        from_pretrained(tmp_path / "folder"),
    ):
        assert isinstance(found.model, QuantisedVAE)
        assert found.config == trained.config
        assert torch.equal(found.model.encoder(x)[0], trained.encoder(x)[0])
        assert found.model.elbo(x) == trained.elbo(x)


def test_counts_that_are_not_positive_are_refused(trained: QuantisedVAE, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, trained)
    metadata, tensors = read_tensors(path, ("kahler_verify.quantised_vae",), 1)
    tensors["encoder.codebook.counts"][3] = 0.0
    write_tensors(path, tensors, metadata)
    with pytest.raises(CheckpointError, match="counts to be positive"):
        load_checkpoint(path)


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    data = load_data("digits-images", 0)
    options = TrainingOptions(epochs=4, save_every=2, warmup_epochs=1)
    whole = train(SMALL, data, tmp_path / "a", options=options).model

    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        if getattr(progress, "epoch", 0) == 3:
            raise Stop

    with pytest.raises(Stop):
        train(SMALL, data, tmp_path / "b", options=options, on_progress=stop)
    again = train(SMALL, data, tmp_path / "b", options=options, resume=True).model
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codes": 1}, "codes: expected from 2"),
        ({"positions": 3}, "positions: expected a divisor of latent_dim 4"),
        ({"positions": 0}, "positions: expected a divisor"),
        ({"decay": 1.0}, r"decay: expected in \[0, 1\)"),
        ({"rare": -0.1}, r"rare: expected in \[0, 1\)"),
        ({"variance": "rbf", "covariance": "diagonal", "centres": 4}, "variance: expected 'mlp'"),
    ],
)
def test_bad_configurations(change: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(SMALL, **change)


def test_bad_input(trained: QuantisedVAE) -> None:
    x = load_data("digits-images", 0).test.x[:3]
    with pytest.raises(InputError, match="expected a posterior with a density"):
        marginal_log_likelihood(trained, x, 10)
    with pytest.raises(InputError, match="expected x to be"):
        trained.encoder.numbers(x[:, :5])
    codes = torch.zeros(2, 2)
    for arguments, words in (
        ((codes[0], 1.0), "codes: expected finite"),
        ((codes * math.nan, 1.0), "codes: expected finite"),
        ((codes, 0.0), "radius: expected a positive"),
        ((codes, math.inf), "radius: expected a positive"),
    ):
        with pytest.raises(InputError, match=words):
            ball_divergence(*arguments)
    with pytest.raises(InputError, match="draws: expected at least 2"):
        ball_divergence(codes, 1.0, draws=1)


def test_configurations_as_json() -> None:
    assert QuantisedVAEConfig.from_dict(SMALL.to_dict()) == SMALL
    with pytest.raises(InputError, match="codes"):
        RealVAEConfig.from_dict(SMALL.to_dict())
