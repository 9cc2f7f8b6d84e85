"""The ``kahler-verify`` command."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kahler_verify.errors import InputError, KahlerVerifyError

commands = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Derive, generate, prove and use kernels for the complex geometry of decoders.",
)
console = Console()
errors = Console(stderr=True)


def app() -> None:
    """Run the command; errors of this package are one line, not a traceback."""
    try:
        commands()
    except (KahlerVerifyError, OSError) as error:  # an OSError names the file and what failed
        errors.print(f"error: {error}", style="bold red", markup=False, highlight=False)
        sys.exit(2)


@commands.command()
def derive(
    name: Annotated[
        str | None, typer.Argument(help="A shipped derivation or a file; without it, the list.")
    ] = None,
    latex: Annotated[bool, typer.Option(help="Print LaTeX.")] = False,
) -> None:
    """Show a definition and what the calculus derives from it."""
    from kahler_verify.codegen.registry import load_file, shipped, shipped_folder

    if name is None:
        for path in sorted(shipped_folder().glob("[!_]*.py")):
            console.print(f"[bold]{path.stem}[/bold]")
            for derivation in load_file(path):
                console.print(f"  {derivation.name}: {derivation.title}", highlight=False)
        return
    from kahler_verify.codegen.listing import describe

    known = shipped()
    subject = shipped_folder() / f"{name}.py"  # the list names files too
    if name in known:
        chosen = [known[name]]
    elif subject.is_file() or Path(name).suffix == ".py":
        chosen = load_file(subject if subject.is_file() else name)
    else:
        raise typer.BadParameter(f"expected a file or one of {', '.join(known)}, got {name!r}")
    for derivation in chosen:
        for line in describe(derivation, latex=latex):
            print(line)


@commands.command()
def generate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Derivation files; without them, the shipped ones.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the kernels.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail, with a diff, where files differ.")
    ] = False,
) -> None:
    """Generate kernels: of the shipped derivations in place, of a user's file beside it.

    A derivation file is Python code and is executed: name only files that you trust.
    """
    from kahler_verify.codegen.writing import generate_files

    report = generate_files(paths or [], out, check=check)
    for line in report.lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if report.failed:
        raise typer.Exit(1)


@commands.command()
def train(
    out: Annotated[Path, typer.Option(help="Where the checkpoint (.safetensors) goes.")],
    data: Annotated[
        str, typer.Option(help="digits, digits-images, or the path of a .npy or .npz file.")
    ] = "digits",
    decoder: Annotated[str, typer.Option(help="holomorphic, split or modulus.")] = "holomorphic",
    latent_dim: Annotated[int, typer.Option(help="Complex dimension of the latent space.")] = 4,
    hidden: Annotated[str, typer.Option(help="Widths of the hidden layers.")] = "64,64",
    activation: Annotated[str, typer.Option(help="Activation; empty: the family's default.")] = "",
    covariance: Annotated[str, typer.Option(help="constant, scalar or diagonal.")] = "diagonal",
    beta: Annotated[float, typer.Option(help="Weight of the KL term.")] = 1.0,
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
    """Train a complex VAE and write it as a checkpoint."""
    from kahler_verify.decoders.data import load_data
    from kahler_verify.decoders.models import VAEConfig
    from kahler_verify.decoders.progress import training_bar
    from kahler_verify.decoders.training import TrainingOptions
    from kahler_verify.decoders.training import train as run
    from kahler_verify.errors import InputError

    dataset = load_data(data, seed)
    try:
        widths = tuple(int(width) for width in hidden.split(","))
    except ValueError as error:
        raise InputError(f"hidden: expected widths such as 64,64, got {hidden!r}") from error
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
        console.print(
            f"weights of epoch {report['best_epoch']} of {report['epochs']}, with the least "
            f"held-out loss, {report['held_out_loss']:.2f}",
            highlight=False,
        )
    console.print(
        f"{out}: held-out ELBO {report['test_elbo']:.2f} nats per sample, "
        f"{report['seconds']:.0f} s",
        highlight=False,
    )


@commands.command()
def verify(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A checkpoint; without it, kernels alone.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained report.")] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Show the silent faults of the installed torch.")
    ] = False,
) -> None:
    """Cross-check every kernel by independent routes, and a trained decoder's geometry."""
    from kahler_verify.evidence import report
    from kahler_verify.evidence.crosscheck import crosscheck
    from kahler_verify.evidence.listing import checking_bar, print_faults

    if self_test:
        from kahler_verify.evidence.autograd_faults import run_self_test

        print_faults(console, run_self_test())
        return
    with checking_bar(errors) as progress:
        result = crosscheck(checkpoint, data=data, progress=progress)
    report.print_table(console, result)
    if json is not None:
        report.write_json(result, json)
    if html is not None:
        report.write_html(result, html)
        console.print(f"report: {html}", highlight=False)
    if not result.passed:
        raise typer.Exit(1)


@commands.command()
def diagnose(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.")],
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    points: Annotated[int, typer.Option(help="How many encoded test samples to look at.")] = 32,
    curvature: Annotated[bool, typer.Option(help="Evaluate curvatures, which cost most.")] = True,
    json: Annotated[Path | None, typer.Option(help="Write the diagnosis as JSON.")] = None,
) -> None:
    """How Kähler, how degenerate and how curved a trained decoder is, at encoded data."""
    from json import dumps

    from kahler_verify.codegen.module import write_atomically
    from kahler_verify.decoders import load_checkpoint
    from kahler_verify.decoders.data import held_out_samples
    from kahler_verify.evidence.description import diagnosis_table
    from kahler_verify.geometry import FisherMetric
    from kahler_verify.geometry import diagnose as measure

    if points < 1:
        raise InputError(f"points: expected at least 1, got {points}")
    loaded = load_checkpoint(checkpoint)
    model = loaded.model.double()
    samples = held_out_samples(loaded.config.data, loaded.config.seed, data)
    if samples is None:
        raise InputError(
            f"data: expected --data with the file that {checkpoint} was trained on, as its data "
            f"have no name but {loaded.config.data!r}, which is not followed"
        )
    z = model.encoder(samples[:points])[0].detach()
    result = measure(FisherMetric(model.decoder), z, curvature=curvature)
    title = f"{checkpoint.name}: {result.points} encoded points, d = {result.dimension}"
    console.print(diagnosis_table(title, result))
    if json is not None:
        text = dumps({"checkpoint": checkpoint.name, **result.to_json()}, indent=1, allow_nan=False)
        write_atomically(json, text)


@commands.command()
def sample(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.")],
    out: Annotated[Path, typer.Option(help="Where samples (.npz) go.")],
    count: Annotated[int, typer.Option(help="How many samples.")] = 64,
    gamma: Annotated[float, typer.Option(help="Power of the volume, of either sign.")] = -1.0,
    volume: Annotated[str, typer.Option(help="log_volume or log_det_hermitian.")] = "log_volume",
    prior: Annotated[bool, typer.Option(help="Multiply by the standard normal prior.")] = True,
    radius: Annotated[float | None, typer.Option(help="Restrict to |z| < radius.")] = None,
    method: Annotated[str, typer.Option(help="importance or chains.")] = "importance",
    seed: Annotated[int, typer.Option(help="Of proposals, starts and momenta.")] = 0,
) -> None:
    """Draw latents in proportion to prior × volume^γ, and decode them."""
    import numpy as np
    import torch

    from kahler_verify.decoders import load_checkpoint
    from kahler_verify.errors import InputError
    from kahler_verify.geometry import FisherMetric
    from kahler_verify.sampling import VolumeTarget, importance_resample, run_chains

    loaded = load_checkpoint(checkpoint)
    model = loaded.model.double()
    target = VolumeTarget(
        FisherMetric(model.decoder),
        loaded.config.latent_dim,
        gamma,
        volume,  # type: ignore[arg-type]  # VolumeTarget checks the string
        prior,
        radius,
    )
    if method == "importance":
        draws = importance_resample(target, count, seed=seed)
    elif method == "chains":
        draws = run_chains(target, max(10, -(-count // 4)), seed=seed)
    else:
        raise InputError(f"method: expected importance or chains, got {method!r}")
    z = draws.z[:count]
    with torch.no_grad():
        mean = model.decoder.parameters_at(z).mean
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial.npz")
    np.savez(partial, z=z.numpy(), mean=mean.numpy())
    partial.replace(out)
    extra = f", acceptance {draws.acceptance:.2f}, R-hat {draws.r_hat:.3f}" if draws.r_hat else ""
    console.print(
        f"{out}: {len(z)} samples, effective sample size {draws.effective_sample_size:.0f}{extra}",
        highlight=False,
    )


@commands.command()
def prove(
    what: Annotated[
        list[str] | None, typer.Argument(help="Claim ids or derivation files; without, all.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the ledger as JSON.")] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="Write witnesses and region proofs for the re-checker.")
    ] = None,
    profile: Annotated[str, typer.Option(help="default or thorough.")] = "default",
    cache: Annotated[bool, typer.Option(help="Reuse verdicts whose inputs did not change.")] = True,
) -> None:
    """Judge claims: print the ledger of verdicts with their evidence."""
    from kahler_verify.evidence.ledger import prove as judge
    from kahler_verify.evidence.ledger import write_evidence, write_ledger
    from kahler_verify.evidence.listing import print_ledger

    ledger = judge(what or [], profile=profile, use_cache=cache, console=errors)
    print_ledger(console, ledger)
    if json is not None:
        write_ledger(ledger, json)
    if evidence is not None:
        count = write_evidence(ledger, evidence)
        console.print(f"{evidence}: {count} items that can be re-checked", highlight=False)
        if count:
            console.print(f"  python -m kahler_verify.evidence.recheck {evidence}", highlight=False)
    if not ledger.passed:
        raise typer.Exit(1)


@commands.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="One cell for each quantity, under 3 minutes.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu (one thread) or cuda.")] = "cpu",
    minutes: Annotated[
        float, typer.Option(help="After so many, begin no further cell of the grid.")
    ] = 35.0,
    json: Annotated[Path | None, typer.Option(help="Write the results as JSON.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for the plots.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="A Markdown page whose marked numbers are rewritten.")
    ] = None,
) -> None:
    """Time the kernels against autograd, JAX and others, in a checkout of the repository."""
    root = Path(__file__).resolve().parents[1]
    if not (root / "benchmarks" / "decoder_rivals.py").exists():
        raise InputError(
            "bench: expected the folder benchmarks/ beside the package, as in a checkout of the "
            "repository, but this installation has none; clone it and run `pip install -e .[bench]`"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    run = import_module("benchmarks.command").bench
    run(
        quick=quick,
        device=device,
        minutes=minutes,
        json=json,
        plots=plots,
        page=page,
        console=console,
    )


@commands.command()
def mutate(
    json: Annotated[Path | None, typer.Option(help="Write the table as JSON.")] = None,
) -> None:
    """Plant faults in derivations, generator and kernels; the evidence must kill them all."""
    from kahler_verify.evidence.listing import print_mutants
    from kahler_verify.evidence.mutants import run_mutants, write_mutants

    result = run_mutants(console=errors)
    print_mutants(console, result)
    if json is not None:
        write_mutants(result, json)
    if not result.passed:
        raise typer.Exit(1)
