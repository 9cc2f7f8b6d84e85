"""A precision of radial basis functions: its fit, its derivatives, and what it does to a VAE."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.func import hessian, jacrev, vmap

from kahler_verify.errors import CheckpointError, InputError
from kahler_verify.evidence.routes.real_decoders import REAL_DECODER_CHECKS, RealDecoderTrial
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.jets import propagate
from kahler_verify.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from kahler_verify.models.data import Dataset, load_data
from kahler_verify.models.precision import fit_precision, nonnegative_precision
from kahler_verify.models.real_vae import RealVAE, RealVAEConfig
from kahler_verify.models.training import TrainingOptions, train
from kahler_verify.networks.precision import RadialPrecision
from kahler_verify.running.kernel_set import KernelSet
from tests.command import run
from tests.manifolds import DOUBLE, draw

pytestmark = pytest.mark.xdist_group("precision")  # one worker makes what the tests share

Trained = dict[str, tuple[Checkpoint, Dataset, Path]]


def config(**changes) -> RealVAEConfig:
    own = {"variance": "rbf", "centres": 24} | changes
    if own["variance"] != "rbf":
        own["centres"] = 0
    return RealVAEConfig(hidden=(32,), **own)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    """Ordinary VAEs of digits with either variance, trained for a few epochs."""
    data, out = load_data("digits-images"), {}
    for variance in ("rbf", "mlp"):
        place = tmp_path_factory.mktemp(variance) / "model.safetensors"
        options = TrainingOptions(epochs=12, warmup_epochs=4)
        out[variance] = train(config(variance=variance), data, place, options=options), data, place
    return out


# ------------------------------------------------------------------------------ the convex problem
def objective(features: Tensor, errors: Tensor, floor: Tensor, w: Tensor) -> Tensor:
    b = features @ w + floor
    return (errors * b - b.log()).mean(0) / 2


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_the_fit_satisfies_the_conditions_that_are_enough(size: float) -> None:
    """The problem is convex: ∂f = 0 where w > 0 and ∂f ≥ 0 where w = 0 make w its minimum."""
    z, centres = draw(400, 2), draw(9, 2, seed=1)
    features = torch.exp(-torch.cdist(z, centres).square())
    errors = size * draw(400, 5, seed=2).square() * (1 + z[:, :1].square())
    floor = torch.full((5,), 1e-3, dtype=DOUBLE) / size
    fit = nonnegative_precision(features, errors, floor)
    w = fit.weights.clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(features, errors, floor, w).sum(), w)
    slope = slope / errors.mean(0)  # of weights in units of 1/⟨E⟩
    assert bool((fit.weights >= 0).all())
    assert bool((fit.weights == 0).any())
    assert bool((fit.weights > 0).any())
    assert slope[fit.weights > 0].abs().max() < 1e-7
    assert slope[fit.weights == 0].min() > -1e-7
    assert math.isclose(
        fit.residual, float(torch.where(w > 0, slope.abs(), -slope).max()), rel_tol=1e-3
    )
    least = objective(features, errors, floor, fit.weights)
    for seed in range(20):
        other = fit.weights * (1 + 0.3 * draw(9, 5, seed=seed)).clamp_min(0)
        assert bool((objective(features, errors, floor, other) >= least).all())


@pytest.mark.parametrize("floor", [0.01, 10.0])
def test_one_feature_has_a_solution_in_closed_form(floor: float) -> None:
    """With Φ = 1 the minimum is b = 1/⟨E⟩, or the floor where that is larger."""
    errors = draw(50, 3).square()
    fit = nonnegative_precision(
        torch.ones(50, 1).double(), errors, torch.tensor([floor] * 3).double()
    )
    expected = (1 / errors.mean(0) - floor).clamp_min(0)
    assert torch.allclose(fit.weights[0], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": draw(4, 2)}, "features: expected finite numbers that are not negative"),
        ({"features": torch.ones(3, 2).double()}, r"features, errors: expected \[N, K\] and"),
        ({"errors": torch.zeros(4, 3).double()}, "errors: expected .* take noise > 0"),
        ({"errors": draw(4, 3)}, "errors: expected finite numbers"),
        ({"errors": torch.ones(4, 3).double() / 0}, "errors: expected finite numbers"),
        ({"floor": torch.zeros(3).double()}, "floor: expected 3 positive numbers"),
        ({"floor": torch.ones(2).double()}, "floor: expected 3 positive numbers"),
    ],
)
def test_problems_that_are_none(change: dict[str, Tensor], message: str) -> None:
    given = {"features": torch.ones(4, 2).double(), "errors": torch.ones(4, 3).double()}
    given["floor"] = torch.ones(3).double()
    with pytest.raises(InputError, match=message):
        nonnegative_precision(**(given | change))


# ------------------------------------------------------------------------------ derivatives
def random_precision() -> RadialPrecision:
    module = RadialPrecision(3, 5, 7).double().requires_grad_(False)
    module.centres.copy_(draw(7, 3))
    module.bandwidths.copy_(draw(7, seed=1).exp())
    module.weights.copy_(draw(7, 5, seed=2).square())
    module.log_floor.copy_(draw(5, seed=3))
    return module


def test_jets_of_the_log_variance_are_autograds() -> None:
    module, z = random_precision(), draw(6, 3, seed=4)

    def log_variance(z: Tensor) -> Tensor:
        return -module(z).log()

    jet = propagate(log_variance, z, 2)
    assert jet.record.lines() == []  # every function has its rule
    for found, expected in (
        (jet.d, vmap(jacrev(log_variance))(z).movedim(-1, 1)),
        (jet.dd, vmap(hessian(log_variance))(z).movedim(1, -1)),
    ):
        assert (found - expected).abs().max() < 1e-12 * expected.abs().max()


def test_jets_are_those_of_the_proved_kernels() -> None:
    module, z = random_precision(), draw(6, 3, seed=4)
    tensors = {
        "r": z[:, None] - module.centres,
        "W": module.weights,
        "bandwidth": module.bandwidths,
        "zeta": module.log_floor.exp(),
    }
    jet = propagate(module, z, 2)
    third = jacrev(lambda y: propagate(module, y, 2).dd.sum(0))(z).movedim((-2, -1), (0, 1))
    kernels = KernelSet("rbf_precision")
    for suffix, found in (("", jet.value), ("_d", jet.d), ("_dd", jet.dd), ("_ddd", third)):
        expected = kernels.call("precision" + suffix, tensors)
        assert (found - expected).abs().max() < 1e-12 * expected.abs().max(), suffix


# ------------------------------------------------------------------------------ trained models
def deviation(checkpoint: Checkpoint, z: Tensor) -> Tensor:
    return checkpoint.model.decoder(z).stddev.mean(-1).detach()


def test_the_variance_rises_away_from_data_and_that_of_an_mlp_does_not(trained: Trained) -> None:
    """Claim O5, at three times the radius of the data in 64 directions."""
    angle = torch.arange(64) * (2 * math.pi / 64)
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    grown = {}
    for variance, (checkpoint, data, _) in trained.items():
        z = checkpoint.model.encoder(data.train.x)[0].detach()
        radius = (z - z.mean(0)).norm(dim=1).max()
        far = deviation(checkpoint, z.mean(0) + 3 * radius * circle)
        grown[variance] = far.min() / deviation(checkpoint, z).mean()
    assert grown["rbf"] > 100
    assert grown["mlp"] < 10


def test_it_explains_data_better_than_the_constant_variance_it_began_with(trained: Trained) -> None:
    checkpoint, data, _ = trained["rbf"]
    constant = RealVAE(checkpoint.config)
    constant.load_state_dict(checkpoint.model.state_dict())
    precision = constant.decoder.precision
    assert precision is not None
    z = checkpoint.model.encoder(data.train.x)[0].detach()
    precision.weights.zero_()
    precision.log_floor.data = checkpoint.model.decoder.precision(z).mean(0).log().detach()  # type: ignore[operator,union-attr]
    assert checkpoint.report["test_elbo"] > constant.elbo(data.test.x) + 5
    assert checkpoint.report["precision_residual"] < 1e-6
    assert checkpoint.report["precision_evaluations"] > 1


def test_the_fit_gives_the_same_bits_again(trained: Trained) -> None:
    checkpoint, data, _ = trained["rbf"]
    again = RealVAE(checkpoint.config)
    again.load_state_dict(checkpoint.model.state_dict())
    fit_precision(again.eval(), data.train.x)
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_its_geometry_agrees_with_every_route(trained: Trained) -> None:
    trial = RealDecoderTrial.of(trained["rbf"][0], None, 0, [])
    for check in REAL_DECODER_CHECKS.values():
        for finding in check(trial):
            assert finding.passed, finding


def test_the_wall_is_where_the_metric_of_an_expectation_is_largest(trained: Trained) -> None:
    """On a ray from the data out, √det g of E[JᵀJ] rises above all data, and falls behind."""
    from kahler_verify.geometry.pulled_back import ExpectedMetric

    checkpoint, data, _ = trained["rbf"]
    model = checkpoint.model.double()
    z = model.encoder(data.train.x.double())[0].detach()
    ray = z.mean(0) + torch.linspace(0, 12, 200, dtype=DOUBLE)[:, None] * draw(2)
    volume = ExpectedMetric(model.decoder).log_volume(torch.cat([z, ray])).detach()
    top = volume[len(z) :].argmax()
    assert volume[len(z) :][top] > volume[: len(z)].max() + 2
    assert volume[-1] < volume[len(z) :][top] - 5
    checkpoint.model.float()


# ------------------------------------------------------------------------------ files
@pytest.mark.parametrize("covariance", ["scalar", "diagonal"])
def test_round_trip(covariance: str, tmp_path: Path) -> None:
    model = RealVAE(config(covariance=covariance)).double()
    precision = model.decoder.precision
    assert precision is not None
    precision.centres.copy_(draw(24, 2))
    precision.weights.copy_(draw(*precision.weights.shape).square())
    save_checkpoint(tmp_path / "model", model)
    loaded = load_checkpoint(tmp_path / "model")
    assert loaded.config == model.config
    z = draw(3, 2)
    assert torch.equal(loaded.model.decoder(z).stddev, model.decoder(z).stddev)
    g = FisherRaoMetric(loaded.model.decoder).metric_matrix(z)
    assert bool(torch.isfinite(g).all())
    with torch.no_grad():
        precision.weights[0, 0] = -1
    with pytest.raises(
        CheckpointError, match=r"expected decoder\.precision\.weights not to be neg"
    ):
        save_checkpoint(tmp_path / "model", model)


def test_files_from_before_there_was_a_choice(tmp_path: Path) -> None:
    model = RealVAE(config(variance="mlp"))
    save_checkpoint(tmp_path / "model", model)
    with safe_open(tmp_path / "model", framework="pt") as opened:
        metadata = opened.metadata()
    older = json.loads(metadata["config"])
    del older["variance"], older["centres"]
    metadata["config"] = json.dumps(older)
    save_file(model.state_dict(), tmp_path / "older", metadata=metadata)
    assert load_checkpoint(tmp_path / "older").config == model.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variance": "gp"}, "variance among mlp, rbf, but got 'gp'"),
        (
            {"covariance": "constant"},
            "variance: expected 'rbf' of a Gaussian likelihood with a dia",
        ),
        ({"likelihood": "bernoulli"}, "variance: expected 'rbf' of a Gaussian likelihood"),
        ({"centres": 0}, "centres to be from 1 to 4096 for an rbf variance"),
        ({"centres": 2.5}, "centres to be from 1 to 4096"),
    ],
)
def test_bad_configurations(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**changes)


def test_bad_configurations_without_centres() -> None:
    with pytest.raises(InputError, match="and 0 for others, but got 3 for mlp"):
        RealVAEConfig(centres=3)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_models_that_have_nothing_to_fit() -> None:
    with pytest.raises(InputError, match="model: expected one of variance 'rbf', got 'mlp'"):
        fit_precision(RealVAE(config(variance="mlp")), torch.zeros(3, 64))
    few = torch.rand(5, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(
        InputError, match="centres: expected at most as many as training samples, 5"
    ):
        RealVAE(config()).standardise(few)
    model = RealVAE(config())
    with pytest.raises(InputError, match="centres: expected at most as many as samples, 5, got 24"):
        fit_precision(model, few)
    with pytest.raises(InputError, match="centres: expected more different codes than 24 centres"):
        fit_precision(model, few[:1].expand(30, 64))


# ------------------------------------------------------------------------------ commands
@pytest.mark.parametrize("variance", ["rbf", "mlp", "constant"])
def test_commands_on_each_variance(variance: str, tmp_path: Path) -> None:
    out = str(tmp_path / "model.safetensors")
    own = ("--latent-dim", "2", "--hidden", "6", "--epochs", "1", "--centres", "8")
    done = run("train", "--latent", "real", "--variance", variance, *own, "--out", out)
    assert done.returncode == 0, done.stderr
    found = load_checkpoint(out).config
    assert isinstance(found, RealVAEConfig)
    expected = {"rbf": ("diagonal", "rbf", 8), "mlp": ("diagonal", "mlp", 0)}
    assert (found.covariance, found.variance, found.centres) == expected.get(
        variance, ("constant", "mlp", 0)
    )
    for command in (
        ("verify", out, "--no-kernels", "--html", str(tmp_path / "report.html")),
        ("diagnose", out, "--points", "4"),
        ("sample", out, "--count", "5", "--out", str(tmp_path / "samples.npz")),
        ("geodesic", out, "#1", "#2"),
    ):
        done = run(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (("--latent", "real", "--variance", "gp"), "variance: expected mlp, rbf or constant"),
        (("--variance", "rbf"), "variance: expected none at complex latents"),
        (
            ("--latent", "real", "--variance", "constant", "--covariance", "scalar"),
            "variance: expected mlp or rbf with --covariance scalar",
        ),
        (
            ("--latent", "real", "--variance", "rbf", "--covariance", "constant"),
            "variance: expected 'rbf' of a Gaussian likelihood with a diagonal or scalar",
        ),
        (
            ("--latent", "real", "--variance", "rbf", "--likelihood", "poisson"),
            "variance: expected 'rbf' of a Gaussian likelihood",
        ),
        (("--latent", "real", "--variance", "rbf", "--centres", "0"), "centres to be from 1"),
        (
            ("--latent", "real", "--variance", "rbf", "--centres", "4000"),
            "centres: expected at most as many as training samples, 1437, got 4000",
        ),
    ],
)
def test_train_refuses_bad_choices(choices: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run("train", *choices, "--out", str(tmp_path / "model.safetensors"))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
