"""The command ``train``: a model, from data to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kahler_verify.cli.consoles import console, say
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable

if TYPE_CHECKING:
    from kahler_verify.models.data import Dataset
    from kahler_verify.models.real_vae import RealVAEConfig


def train(
    out: Annotated[Path, typer.Option(help="Where the checkpoint (.safetensors) goes.")],
    data: Annotated[
        str, typer.Option(help="digits, digits-images, or the path of a .npy or .npz file.")
    ] = "digits",
    latent: Annotated[str, typer.Option(help="complex, or real for an ordinary VAE.")] = "complex",
    likelihood: Annotated[
        str,
        typer.Option(
            help="At real latents: gaussian, bernoulli, categorical or poisson. At complex ones "
            "the data decide."
        ),
    ] = "",
    decoder: Annotated[
        str, typer.Option(help="At complex latents: holomorphic, split or modulus.")
    ] = "holomorphic",
    latent_dim: Annotated[int, typer.Option(help="Dimension of the latent space.")] = 4,
    hidden: Annotated[str, typer.Option(help="Widths of the hidden layers.")] = "64,64",
    activation: Annotated[str, typer.Option(help="Activation; empty: the family's default.")] = "",
    covariance: Annotated[str, typer.Option(help="constant, scalar or diagonal.")] = "diagonal",
    variance: Annotated[
        str,
        typer.Option(
            help="At real latents, of a Gaussian: mlp, rbf (grows away from data) or constant."
        ),
    ] = "",
    quantised: Annotated[
        int, typer.Option(help="At real latents: a VQ-VAE with so many codes; 0: none.")
    ] = 0,
    positions: Annotated[int, typer.Option(help="Codes that a latent of it is made of.")] = 1,
    centres: Annotated[int, typer.Option(help="Radial basis functions of --variance rbf.")] = 48,
    beta: Annotated[
        float, typer.Option(help="Weight of the KL term; of a VQ-VAE's commitment.")
    ] = 1.0,
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 300,
    seed: Annotated[int, typer.Option(help="Of weights, split, batches and noise.")] = 0,
    resume: Annotated[bool, typer.Option(help="Go on from an interrupted run.")] = False,
    regularizer: Annotated[
        str, typer.Option(help="Log density in the loss: none, logdet-hermitian or log-volume.")
    ] = "none",
    weight: Annotated[
        float, typer.Option(help="The regularizer's factor, of either sign; not 0.")
    ] = 0.0,
    regularizer_batch: Annotated[
        int, typer.Option(help="Latents of each step at which the regularizer is taken.")
    ] = 16,
    metric: Annotated[
        str, typer.Option(help="Whose density: fisher, or mixture, its closed-form proxy.")
    ] = "fisher",
    components: Annotated[
        int, typer.Option(help="Centres of the mixture, drawn from each step's latents.")
    ] = 8,
    warmup: Annotated[
        int, typer.Option(help="Epochs over which beta and the weight rise from 0.")
    ] = 20,
    clip: Annotated[float, typer.Option(help="Greatest norm of the gradient.")] = 10.0,
    early_stopping: Annotated[
        int,
        typer.Option(
            metavar="PATIENCE",
            help="Stop after so many epochs without a lower held-out loss; 0: never.",
        ),
    ] = 0,
) -> None:
    """Train a VAE, of complex or of real latents, and write it as a checkpoint."""
    from kahler_verify.models.data import load_data
    from kahler_verify.models.progress import training_bar
    from kahler_verify.models.training import TrainingOptions
    from kahler_verify.models.training import train as run
    from kahler_verify.models.vae import VAEConfig

    require_writable("out", out)
    try:
        widths = tuple(int(width) for width in hidden.split(","))
    except ValueError as error:
        raise InputError(f"hidden: expected widths such as 64,64, got {hidden!r}") from error
    if latent not in ("complex", "real"):
        raise InputError(f"latent: expected complex or real, got {latent!r}")
    config: RealVAEConfig | VAEConfig
    if latent == "real":
        config, dataset = _real(
            data,
            likelihood,
            seed,
            latent_dim=latent_dim,
            hidden=widths,
            activation=activation or "tanh",
            beta=beta,
            **_variance(variance, covariance, centres),
            **_codes(quantised, positions),
        )
    else:
        if quantised:
            raise InputError(
                f"quantised: expected none at complex latents, got {quantised}; or --latent real"
            )
        if likelihood:
            raise InputError(
                "likelihood: expected none at complex latents, where the data decide between a "
                f"complex and a real Gaussian, got {likelihood!r}; or --latent real"
            )
        if variance:
            raise InputError(
                "variance: expected none at complex latents, whose decoders have heads of their "
                f"own (see --covariance), got {variance!r}; or --latent real"
            )
        dataset = load_data(data, seed)
        config = VAEConfig(
            data=dataset.source,
            data_dim=dataset.dim,
            latent_dim=latent_dim,
            hidden=widths,
            decoder=decoder,  # type: ignore[arg-type]  # VAEConfig checks the strings
            activation=activation,
            covariance=covariance,  # type: ignore[arg-type]
            likelihood=dataset.kind,
            beta=beta,
            seed=seed,
        )
    options = TrainingOptions(
        epochs=epochs,
        regularizer=regularizer,  # type: ignore[arg-type]  # TrainingOptions checks the string
        weight=weight,
        regularizer_batch=regularizer_batch,
        metric=metric,  # type: ignore[arg-type]
        components=components,
        warmup_epochs=warmup,
        clip=clip,
        early_stopping=early_stopping,
    )
    with training_bar(console) as on_progress:
        checkpoint = run(
            config,
            dataset,
            out,
            options=options,
            resume=resume,
            on_progress=on_progress,
        )
    report = checkpoint.report
    if "best_epoch" in report:
        say(
            f"weights of epoch {report['best_epoch']} of {report['epochs']}, with the least "
            f"held-out loss, {report['held_out_loss']:.2f}"
        )
    if "test_perplexity" in report:
        say(f"{report['test_perplexity']:.1f} of {quantised} codes in use (perplexity)")
    say(
        f"{out}: held-out ELBO {report['test_elbo']:.2f} nats per sample, {report['seconds']:.0f} s"
    )


# What the shipped digits are to each likelihood.
_DIGITS = {"gaussian": "digits-images", "bernoulli": "digits-images"}


def _variance(variance: str, covariance: str, centres: int) -> dict[str, Any]:
    """The fields of a configuration that say what a Gaussian's variance is."""
    if variance not in ("", "mlp", "rbf", "constant"):
        raise InputError(f"variance: expected mlp, rbf or constant, got {variance!r}")
    if variance == "constant" and covariance == "scalar":
        raise InputError("variance: expected mlp or rbf with --covariance scalar, got 'constant'")
    if variance == "constant":
        return {"covariance": "constant"}
    radial = variance == "rbf"
    return {
        "covariance": covariance,
        "variance": variance or "mlp",
        "centres": centres if radial else 0,
    }


def _codes(quantised: int, positions: int) -> dict[str, Any]:
    """The fields of a configuration that say how its latents are rounded."""
    if quantised:
        return {"codes": quantised, "positions": positions}
    if positions != 1:
        raise InputError(f"positions: expected --quantised with it, got {positions}")
    return {}


def _real(data: str, likelihood: str, seed: int, **shape: Any) -> tuple[RealVAEConfig, Dataset]:
    """The configuration of an ordinary VAE, or VQ-VAE, of this shape, and its data."""
    from kahler_verify.models.data import load_data
    from kahler_verify.models.quantised import QuantisedVAEConfig
    from kahler_verify.models.real_vae import RealVAEConfig

    likelihood = likelihood or "gaussian"
    source = _DIGITS.get(likelihood, "digits-counts") if data == "digits" else data
    dataset = load_data(source, seed)
    if dataset.kind != "real":
        raise InputError(f"data: expected real numbers for real latents, got complex ones: {data}")
    classes = 0
    if likelihood == "categorical":
        parts = (dataset.train, dataset.validation, dataset.test)
        classes = 1 + int(max(part.x.max().item() for part in parts))
    config = (QuantisedVAEConfig if "codes" in shape else RealVAEConfig)(
        data=dataset.source,
        data_dim=dataset.dim,
        likelihood=likelihood,  # type: ignore[arg-type]  # RealVAEConfig checks the strings
        categories=classes,
        seed=seed,
        **shape,
    )
    return config, dataset
