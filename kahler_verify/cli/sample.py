"""The command ``sample``: latents in proportion to a volume."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Annotated

import typer

from kahler_verify.cli.consoles import beside, say
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable, write_bytes, write_with
from kahler_verify.memory import require_memory


def sample(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.")],
    out: Annotated[Path, typer.Option(help="Where samples (.npz) go.")],
    count: Annotated[int, typer.Option(help="How many samples.")] = 64,
    gamma: Annotated[float, typer.Option(help="Power of the volume, of either sign.")] = -1.0,
    volume: Annotated[
        str, typer.Option(help="log_volume, or log_det_hermitian of complex latents.")
    ] = "log_volume",
    prior: Annotated[bool, typer.Option(help="Multiply by the standard normal prior.")] = True,
    radius: Annotated[float | None, typer.Option(help="Restrict to |z| < radius.")] = None,
    method: Annotated[
        str, typer.Option(help="importance, chains (64 at once) or nuts (Pyro's).")
    ] = "importance",
    seed: Annotated[int, typer.Option(help="Of proposals, starts and momenta.")] = 0,
    inference_data: Annotated[
        Path | None, typer.Option(help="Where all draws go for ArviZ (.nc, netCDF).")
    ] = None,
) -> None:
    """Draw latents in proportion to prior × volume^γ, and decode them."""
    import numpy as np
    import torch

    from kahler_verify.geometry import FisherMetric
    from kahler_verify.geometry.fisher_rao import FisherRaoMetric
    from kahler_verify.guests.arviz import require_arviz, to_inference_data
    from kahler_verify.models import ComplexVAE, load_checkpoint
    from kahler_verify.statistics import (
        VolumeTarget,
        importance_resample,
        run_chains,
        vectorised_chains,
    )

    require_writable("out", out)
    if inference_data is not None:
        require_writable("inference_data", inference_data, ".nc")
        if inference_data.resolve() in (out.resolve(), checkpoint.resolve()):
            raise InputError(f"inference_data: expected a file of its own, got {inference_data}")
        require_arviz()
    loaded = load_checkpoint(checkpoint)
    config, model = loaded.config, loaded.model.double()
    metric = (FisherMetric if isinstance(model, ComplexVAE) else FisherRaoMetric)(model.decoder)
    require_memory("count", count, 16 * config.data_dim)
    target = VolumeTarget(
        metric,
        config.latent_dim,
        gamma,
        volume,  # type: ignore[arg-type]  # VolumeTarget checks the string
        prior,
        radius,
    )
    if method == "importance":
        draws = importance_resample(target, count, seed=seed)
    elif method == "chains":
        draws = vectorised_chains(target, max(50, -(-count // 64)), seed=seed)
    elif method == "nuts":
        draws = run_chains(target, max(10, -(-count // 4)), seed=seed)
    else:
        raise InputError(f"method: expected importance, chains or nuts, got {method!r}")
    # of all chains' draws as many as are wanted, evenly
    z = draws.z[torch.linspace(0, len(draws.z) - 1, count).round().long()]
    with torch.no_grad():
        mean = model.decoder.mean(z)
    archive = BytesIO()
    np.savez(archive, z=z.numpy(), mean=mean.numpy())
    write_bytes(out, archive.getvalue())
    if inference_data is not None:
        write_with(inference_data, lambda path: to_inference_data(draws).to_netcdf(str(path)))
    said = f"{out}: {len(z)} samples, effective sample size {draws.effective_sample_size:.0f}"
    if draws.r_hat:
        drawn = f" of {len(draws.z)} draws, acceptance {draws.acceptance:.2f}"
        said += f"{drawn}, R-hat {draws.r_hat:.3f}"
    say(said, to=beside(out))
