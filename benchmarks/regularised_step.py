"""What geometry in the loss costs a training step: ``python -m benchmarks.regularised_step``.

Whole steps (encoder, ELBO, backward, Adam), one thread, float32, interleaved CPU times.  The term
is taken of the decoder's metric, and of the closed-form mixture at 8 centres.  The same
term by autograd: the Hessian of the divergence by forward over reverse mode, which is what the
definition says, and the Jacobian of (μ, log Σ) by forward mode, which an expert would write.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.func import hessian, jacfwd, vmap

from benchmarks.timing import interleave
from kahler_verify.geometry import FisherMetric
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.decoder import Decoder
from kahler_verify.statistics.proxy import closed_form_mixture

CELLS = (  # D, h, d, Σ
    (32, 64, 4, "diagonal"),
    (32, 64, 4, "constant"),
    (512, 256, 8, "diagonal"),
)
BATCH = 64

COMPONENTS = 8

LogDensity = Callable[[Tensor], Tensor]  # of all latents of a step [n, d]


def _complex(u: Tensor) -> Tensor:
    x, y = u.chunk(2, -1)
    return torch.complex(x.contiguous(), y.contiguous())


def _log_volume(fisher: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """½ log det of a real metric [n, 2d, 2d] at z [n, d]."""
    factor = torch.linalg.cholesky(vmap(fisher)(torch.cat([z.real, z.imag], -1)))
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def by_mixture(metric: FisherMetric, points: int, z: Tensor) -> Tensor:
    """The mixture's log volume at the first points; the last latents are its centres."""
    return closed_form_mixture(metric, z[-COMPONENTS:], detach=False).log_volume(z[:points])


def by_hessian(decoder: Decoder, z: Tensor) -> Tensor:
    """The log volume [n] from the Hessian of KL(p_u ‖ p_v) in v at v = u."""

    def fisher(u: Tensor) -> Tensor:
        def divergence(v: Tensor) -> Tensor:
            return kl_divergence(decoder(_complex(u)), decoder(_complex(v)))

        out: Tensor = hessian(divergence)(u)
        return out

    return _log_volume(fisher, z)


def by_jacobian(decoder: Decoder, z: Tensor) -> Tensor:
    """The log volume [n] from 2 Re JᴴΣ⁻¹J of the mean, plus JᵀJ of log Σ."""

    def outputs(u: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        mean, log_variance = decoder.parameters_at(_complex(u))
        return (torch.cat([mean.real, mean.imag]), log_variance), log_variance

    def fisher(u: Tensor) -> Tensor:
        (mean, spread), log_variance = jacfwd(outputs, has_aux=True)(u)
        whitened = mean * (-log_variance / 2).exp().repeat(2)[:, None]
        return 2 * whitened.mT @ whitened + spread.mT @ spread

    return _log_volume(fisher, z)


def _step(
    model: ComplexVAE,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    log_density: LogDensity | None,
) -> None:
    z, divergence = model.draw_latents(x)
    loss = (divergence - model.decoder(z).log_prob(x)).mean()
    if log_density is not None:
        loss = loss + 1e-3 * log_density(z).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def measure(D: int, h: int, d: int, covariance: str, points: int, seconds: float) -> str:
    """A row of the table: the cost of each step over the plain one, and ours in milliseconds."""
    config = VAEConfig(
        data="noise",
        data_dim=D,
        latent_dim=d,
        hidden=(h, h),
        covariance=covariance,  # type: ignore[arg-type]
    )
    model = ComplexVAE(config)
    x = torch.randn(BATCH, D, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    model.standardise(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
    metric = FisherMetric(model.decoder, check=False, validate_args=False)
    terms: dict[str, LogDensity] = {
        "log volume": lambda z: metric.log_volume(z[:points]),
        "log det g": lambda z: metric.log_det_hermitian(z[:points]),
        "mixture": partial(by_mixture, metric, points),
        "Jacobian": lambda z: by_jacobian(model.decoder, z[:points]),
        "KL Hessian": lambda z: by_hessian(model.decoder, z[:points]),
    }
    z = model.draw_latents(x)[0].detach()
    reference = metric.log_volume(z[:points])
    for name in ("Jacobian", "KL Hessian"):
        torch.testing.assert_close(terms[name](z), reference, rtol=1e-3, atol=1e-2)
    steps = {name: partial(_step, model, optimizer, x, term) for name, term in terms.items()}
    plain = partial(_step, model, optimizer, x, None)
    pairs = interleave(plain, steps, seconds=seconds)
    cells = []
    for pair in pairs.values():
        low, high = pair.spread
        cells.append(f"{pair.ratio:.2f} ({low:.2f}-{high:.2f})")
    ours = 1e3 * sorted(pairs["log volume"].ours)[len(pairs["log volume"].ours) // 2]
    return f"| {D} | {h} | {d} | {covariance} | {points} | {ours:.1f} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of measurement for each row")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        "| D | h | d | Σ | latents | plain step, ms | + log volume | + log det g | + the mixture's "
        "| + the same, Jacobian | + the same, KL Hessian |"
    )
    print("|" + "---|" * 11)
    for cell in CELLS:
        for points in (16, BATCH):
            print(measure(*cell, points, seconds), flush=True)


if __name__ == "__main__":
    main()
