"""Many chains at once: laws that are known, the law of Pyro's NUTS, and what tunes them."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from kahler_verify import RiemannianMetric
from kahler_verify.errors import InputError
from kahler_verify.geometry import PotentialMetric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.statistics import Draws, VolumeTarget, run_chains, vectorised_chains
from kahler_verify.statistics.vectorised import van_der_corput
from tests.statistics.test_real_sampling import FLAT, SPHERE, _conformal

THOROUGH = pytest.mark.thorough


def square(draws: Draws) -> Tensor:
    return (draws.z * draws.z.conj()).real.sum(-1)


def thinned(draws: Draws, values: Tensor) -> Tensor:
    """As many as there are effective samples, from all chains."""
    return values[:: max(1, math.ceil(len(values) / draws.effective_sample_size))]


def p_value(draws: Draws, values: Tensor, law) -> float:
    return float(stats.kstest(thinned(draws, values).numpy(), law.cdf).pvalue)


FUBINI_STUDY = PotentialMetric("fubini_study")
BALL = PotentialMetric("complex_ball")
LAWS = {  # a target, what is looked at of |z|², and its law
    "prior on R^3": (VolumeTarget(FLAT, 3, gamma=0.0), lambda s: s, stats.chi2(3)),
    "uniform in a ball of R^3": (
        VolumeTarget(FLAT, 3, prior=False, radius=2.0),
        lambda s: (s.sqrt() / 2) ** 3,
        stats.uniform,
    ),
    "sphere": (
        VolumeTarget(SPHERE, 2, 1.5, prior=False),
        lambda s: s / (1 + s),
        stats.beta(1, 2),
    ),
    "Fubini-Study on C^2": (
        VolumeTarget(FUBINI_STUDY, 2, 2.0, prior=False),
        lambda s: s / (1 + s),
        stats.beta(2, 4),
    ),
    "ball of C^2": (
        VolumeTarget(BALL, 2, gamma=-1, prior=False, radius=1),
        lambda s: s,
        stats.beta(2, 4),
    ),
}


SLOW = ("sphere", "uniform in a ball of R^3")


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=THOROUGH if x in SLOW else ()) for x in LAWS]
)
def test_laws_that_are_known(name: str) -> None:
    target, of, law = LAWS[name]
    draws = vectorised_chains(target, 60, warmup=100, seed=1)
    assert draws.z.shape == (64 * 60, target.dimension)
    assert p_value(draws, of(square(draws)), law) > 1e-3
    assert draws.effective_sample_size > 300  # a KS test of so many sees errors of .1
    assert draws.r_hat is not None
    assert draws.r_hat < 1.2


def test_a_wrong_power_of_the_volume_is_seen() -> None:
    """Laws of γ = -½ and -1 are told apart by so few draws."""
    target, of, law = LAWS["ball of C^2"]
    draws = vectorised_chains(target, 60, warmup=100, seed=1)
    assert p_value(draws, of(square(draws)), stats.beta(2, 2.5)) < 1e-3
    other = VolumeTarget(BALL, 2, gamma=-0.5, prior=False, radius=1)
    drawn = vectorised_chains(other, 60, warmup=100, seed=1)
    assert p_value(drawn, of(square(drawn)), law) < 1e-3


@pytest.mark.filterwarnings("ignore::kahler_verify.statistics.ImproperTargetWarning")  # 1/0 far out
def test_units_of_coordinates_are_found() -> None:
    """A normal law with deviations 1 and 0.1: γ = -1 and √g = e^{(100 - 1) y²/2}."""

    def function(z: Tensor) -> Tensor:
        factor = (99 / 2 * z[..., 1].square()).exp()
        return factor[..., None, None] * torch.eye(2, dtype=z.dtype)

    target = VolumeTarget(RiemannianMetric.from_function(function), 2, gamma=-1.0)
    draws = vectorised_chains(target, 60, warmup=100, seed=0)
    for x in (draws.z[:, 0], 10 * draws.z[:, 1]):
        assert p_value(draws, x, stats.norm) > 1e-3
    # in one unit for both coordinates, a step could not be longer than .2
    assert draws.details["step"] > 0.5
    assert draws.statistics["n_steps"].double().mean() < 5
    assert draws.effective_sample_size > 1000


def oval() -> RiemannianMetric:
    """√det g = 1 + 3x² + (y - 1)²."""

    def function(z: Tensor) -> Tensor:
        x, y = z.unbind(-1)
        return (1 + 3 * x * x + (y - 1) ** 2)[..., None, None] * torch.eye(2, dtype=z.dtype)

    return RiemannianMetric.from_function(function)


def decoder() -> FisherRaoMetric:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 6)).double()
    return FisherRaoMetric(net.requires_grad_(False), 2, validate_args=False)


@pytest.mark.parametrize(
    ("metric", "gamma"),
    [(oval, 1.0), *(pytest.param(decoder, x, marks=THOROUGH) for x in (1.0, -1.0))],
)
def test_it_is_the_law_of_nuts(metric, gamma: float) -> None:
    """Two samples, and their moments."""
    target = VolumeTarget(metric(), 2, gamma)
    ours = vectorised_chains(target, 60, warmup=100, seed=3)
    theirs = run_chains(target, 150, chains=2, warmup=60, seed=3)
    for of in (square, lambda x: x.z[:, 0], lambda x: x.z[:, 1]):
        a, b = of(ours), of(theirs)
        assert stats.ks_2samp(thinned(ours, a), thinned(theirs, b)).pvalue > 1e-3
        variance = a.var() / ours.effective_sample_size + b.var() / theirs.effective_sample_size
        assert abs(a.mean() - b.mean()) < 4 * variance.sqrt()


def test_places_without_volume_are_walls() -> None:
    """√g = 1 for |z| < 1 and 0 beyond: no chain leaves, and starts beyond are drawn again."""
    metric = _conformal(lambda s: torch.where(s < 1, torch.ones_like(s), 0 * s))
    draws = vectorised_chains(VolumeTarget(metric, 1), 60, warmup=60)
    assert float(square(draws).max()) < 1
    normal = stats.truncnorm(-1, 1)
    assert p_value(draws, draws.z[:, 0], normal) > 1e-3
    assert draws.details["divergences"] > 0
    assert bool((draws.statistics["acceptance_rate"][draws.statistics["diverging"]] == 0).all())


def test_no_density_is_an_error() -> None:
    metric = _conformal(lambda s: torch.where(s > 1e4, torch.ones_like(s), 0 * s))
    with pytest.raises(InputError, match="positive and finite density near the origin"):
        vectorised_chains(VolumeTarget(metric, 1), 10, warmup=10)


def test_seeds_decide_and_single_precision_is_kept() -> None:
    net = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 5)).requires_grad_(False)
    target = VolumeTarget(FisherRaoMetric(net, 2), 2, 0.5)
    first, second, third = (
        vectorised_chains(target, 10, chains=4, warmup=10, seed=seed) for seed in (4, 4, 5)
    )
    assert first.z.dtype == torch.float32
    assert torch.equal(first.z, second.z)
    assert not torch.equal(first.z, third.z)


def test_what_is_said_of_draws() -> None:
    target = VolumeTarget(FLAT, 2, gamma=0.0)
    draws = vectorised_chains(target, 12, chains=5, warmup=20)
    assert draws.by_chain.shape == (5, 12, 2)
    assert torch.equal(draws.by_chain[1, 0], draws.z[12])
    assert {k: tuple(v.shape) for k, v in draws.statistics.items()} == dict.fromkeys(
        ("lp", "acceptance_rate", "diverging", "n_steps"), (5, 12)
    )
    torch.testing.assert_close(draws.statistics["lp"].flatten(), target.log_density(draws.z))
    nuts = run_chains(target, 10, chains=2, warmup=10)
    torch.testing.assert_close(nuts.statistics["lp"].flatten(), target.log_density(nuts.z))


@pytest.mark.parametrize("arguments", [{"samples": 9}, {"chains": 1}, {"warmup": 9}])
def test_too_few(arguments: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected at least 10, 2, 10"):
        vectorised_chains(VolumeTarget(FLAT, 2), **{"samples": 10, **arguments})


def test_van_der_corput() -> None:
    assert [van_der_corput(n) for n in range(1, 8)] == [x / 8 for x in (4, 2, 6, 1, 5, 3, 7)]
