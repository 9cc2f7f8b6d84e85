"""The table of docs/peoples-decoders.md: ``python -m benchmarks.models [--page PAGE] [--quick]``.

Decoders of each kind are built here with random weights.  Costs are CPU time over that of one
decoding without a graph, each the least of a few that were measured in turn; errors are against
torch's reverse mode in double precision.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli
from torch.func import jacfwd, jacrev, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import jax_rivals, large_models
from benchmarks.jax_networks import array, translated
from benchmarks.page import put
from benchmarks.peoples_models import (
    AutoencoderKL,
    BaseAE,
    DecoderSCVI,
    LitVAE,
    dcgan,
    prepared,
)
from kahler_verify import FisherMetric
from kahler_verify.adapters import Output, negative_binomial
from kahler_verify.jets import propagate

REPEATS = 5
DIRECTIONS = 10


@dataclass(frozen=True)
class Case:
    """A decoder as a user hands it over, and what it returns for one latent.

    Attributes:
        name: in the table.
        model: as :class:`FisherMetric` takes it.
        options: of :class:`FisherMetric`.
        mean: from one latent in its shape to numbers whose Jacobian is J.
        weight: of these numbers, the diagonal of the law's Fisher information.
        shape: of one latent.
    """

    name: str
    model: Any
    options: dict[str, Any]
    mean: Callable[[Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]


def conv28(latent: int) -> nn.Module:
    """Latents to 28 × 28 images, as tutorials have it."""
    torch.manual_seed(0)
    return prepared(
        nn.Sequential(
            nn.Linear(latent, 128 * 49),
            nn.Unflatten(1, (128, 7, 7)),
            nn.BatchNorm2d(128),
            nn.SiLU(),
            nn.ConvTranspose2d(128, 64, 4, 2, 1),
            nn.BatchNorm2d(64),
            nn.SiLU(),
            nn.ConvTranspose2d(64, 1, 4, 2, 1),
        )
    )


def cases(quick: bool) -> list[Case]:
    """Decoders of each kind."""
    one = torch.ones_like
    size = 8 if quick else 16
    kl = AutoencoderKL(channels=16 if quick else 64, groups=8, sample_size=size)
    gan, conv = dcgan(100, 8 if quick else 32), conv28(16)
    ae, binary, lit, scvi = BaseAE(16), BaseAE(16, "bce"), LitVAE(16), DecoderSCVI(10, 200)
    theta, library = torch.linspace(0.5, 3, 200), torch.tensor([[7.0]])

    def counts(z: Tensor) -> Any:
        return scvi("gene", z, library.to(z))

    def precision(mean: Tensor) -> Tensor:
        return 1 / (mean + mean * mean / theta.to(mean))

    def bernoulli(z: Tensor) -> Bernoulli:
        return Bernoulli(logits=conv(z))

    def variance(logits: Tensor) -> Tensor:
        return logits.sigmoid() * (-logits).sigmoid()

    half = size // 2
    return [
        Case("28 × 28, BatchNorm, Bernoulli", bernoulli, {}, conv, variance, (16,)),
        Case("DCGAN, ConvTranspose, BatchNorm", gan, {"latent_shape": (100, 1, 1)}, gan, one,
             (100, 1, 1)),
        Case("AutoencoderKL (diffusers)", kl, {}, lambda z: kl.decode(z).sample, one,
             (4, half, half)),
        Case("VAE, mse (pythae)", ae, {}, lambda z: ae.decoder(z).reconstruction, one, (16,)),
        Case("VAE, bce (pythae)", binary, {}, lambda z: binary.decoder(z).reconstruction,
             lambda p: 1 / (p * (1 - p)), (16,)),
        Case("negative binomial (scVI)", counts,
             {"output": Output(2, negative_binomial(theta))},
             lambda z: counts(z)[2], precision, (10,)),
        Case("LayerNorm, GELU (Lightning)", lit, {}, lit.decoder, one, (16,)),
    ]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What was measured of one decoder."""

    name: str
    dimension: int
    outputs: int
    milliseconds: float
    tangent: float
    theirs: float
    again: float
    product: float
    matrix: float
    top: float
    top_passes: int
    error: float
    top_error: float


def cpu(call: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def ratios(calls: dict[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, float]:
    """The least CPU time of each, of calls in turn."""
    for call in calls.values():
        call()
    rounds = [{name: cpu(call) for name, call in calls.items()} for _ in range(repeats)]
    return {name: min(each[name] for each in rounds) for name in calls}


def truth(case: Case, z: Tensor) -> Tensor:
    """Jᵀ F J by reverse mode, of z in its shape."""
    with sdpa_kernel(SDPBackend.MATH):
        J = jacrev(lambda z: case.mean(z[None])[0].flatten())(z).flatten(1)
        mean = case.mean(z[None])[0].flatten()
    return J.mT @ (case.weight(mean)[:, None] * J)


def row(case: Case) -> Row:
    """Measure one decoder, at one point."""
    z = torch.randn(case.shape, generator=torch.Generator().manual_seed(0))
    metric = FisherMetric(case.model, **case.options).on_real_latents
    operator = metric.operator(z, method="matrix-free")
    u, flat = torch.randn_like(z), z.flatten()[None]
    linear = operator._linear
    assert linear is not None
    for _ in range(3):  # the second has a recording
        operator.product(u)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # jvp has no other attention
        taken = ratios(
            {
                "decode": lambda: case.mean(z[None]),
                "tangent": lambda: propagate(metric._letters, flat, 1, u.flatten()[None, None]),
                "theirs": lambda: jvp(case.mean, (z[None],), (u[None],)),
                "again": lambda: linear.along(u.flatten()[None]),
                "product": lambda: operator.product(u),
                "matrix": lambda: metric.metric_matrix(flat),
            }
        )
    begin = time.process_time()
    fresh = metric.operator(z, method="matrix-free")
    top = fresh.top(min(DIRECTIONS, flat.shape[-1]))
    spent = time.process_time() - begin
    exact = _in_double(case, z)
    values = torch.linalg.eigvalsh(exact[1]).flip(0)[: len(top.values)]
    unit = taken["decode"]
    return Row(
        case.name,
        flat.shape[-1],
        sum(x.numel() for x in metric._letters(flat).values()),
        1e3 * unit,
        taken["tangent"] / unit,
        taken["theirs"] / unit,
        taken["again"] / unit,
        taken["product"] / unit,
        taken["matrix"] / unit,
        spent / unit,
        fresh.passes,
        ((exact[0] - exact[1]).abs().max() / exact[1].abs().max()).item(),
        ((top.values - values).abs() / values).max().item(),
    )


def _in_double(case: Case, z: Tensor) -> tuple[Tensor, Tensor]:
    """Our g and torch's, [d, d], with the model in double precision for a while."""
    modules = _modules(case)
    for module in modules:
        module.double()
    try:
        wide = z.double()
        found = FisherMetric(case.model, **case.options).metric_matrix(wide)
        return found, truth(case, wide)
    finally:
        for module in modules:
            module.float()


def _modules(case: Case) -> list[nn.Module]:
    """What a case is made of, which functions close over."""
    found = [case.model] if isinstance(case.model, nn.Module) else []
    for function in (case.model, case.mean):
        for cell in getattr(function, "__closure__", None) or ():
            if isinstance(cell.cell_contents, nn.Module):
                found.append(cell.cell_contents)
            elif callable(cell.cell_contents):
                inner = getattr(cell.cell_contents, "__closure__", None) or ()
                found += [c.cell_contents for c in inner if isinstance(c.cell_contents, nn.Module)]
    return list({id(module): module for module in found}.values())


def table(rows: list[Row]) -> str:
    """Markdown."""
    head = (
        "| model | d | outputs | one decoding | a tangent | torch's jvp | a tangent, again | G·v | "
        "g, whole | top directions (passes) | error of g | of the top |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    lines = [
        f"| {r.name} | {r.dimension} | {r.outputs} | {r.milliseconds:.2g} ms | {r.tangent:.1f} | "
        f"{r.theirs:.1f} | {r.again:.1f} | {r.product:.1f} | {r.matrix:.0f} | "
        f"{r.top:.0f} ({r.top_passes}) | {r.error:.0e} | {r.top_error:.0e} |"
        for r in rows
    ]
    return "\n".join([head, *lines])


def jacobians(quick: bool) -> str:
    """J of the 28 × 28 decoder at one point, by five ways, JAX's where it is installed."""
    lines = [
        "| d | stacked tangents | vmap(jvp) | jacfwd | jacrev | JAX, jit | its decoding |",
        "|---|---|---|---|---|---|---|",
    ]
    for d in (16, 32) if quick else (16, 32, 128, 256):
        net, z = conv28(d), torch.randn(1, d, generator=torch.Generator().manual_seed(0))
        axes = torch.eye(d)

        def along(u: Tensor, net: nn.Module = net, z: Tensor = z) -> Tensor:
            return jvp(net, (z,), (u[None],))[1]

        def flat(z: Tensor, net: nn.Module = net) -> Tensor:
            return net(z[None])[0].flatten()

        with torch.no_grad():
            taken = ratios(
                {
                    "decode": lambda net=net, z=z: net(z),
                    "stacked": lambda net=net, z=z: propagate(net, z, 1),
                    "vmap": lambda along=along, axes=axes: vmap(along)(axes),
                    "jacfwd": lambda flat=flat, z=z: jacfwd(flat)(z[0]),
                    **by_jax(net, z, flat),
                },
                3,
            )
        taken |= ratios({"jacrev": lambda flat=flat, z=z: jacrev(flat)(z[0])}, 2)
        ways = ("stacked", "vmap", "jacfwd", "jacrev", "jax")
        cells = [two_digits(taken[k] / taken["decode"]) if k in taken else "–" for k in ways]
        own = f"{taken['jax decode'] / taken['decode']:.1f}" if "jax" in taken else "–"
        lines.append(f"| {d} | {' | '.join(cells)} | {own} |")
    return "\n".join(lines)


def two_digits(x: float) -> str:
    """The number, rounded to two digits."""
    return f"{float(f'{x:.2g}'):g}"


def by_jax(
    net: nn.Module, z: Tensor, flat: Callable[[Tensor], Tensor]
) -> dict[str, Callable[[], Any]]:
    """The same Jacobian and decoding under JAX's jit, compared with torch's; {} without JAX."""
    jax = jax_rivals.load()
    if jax is None:
        return {}
    assert isinstance(net, nn.Sequential)
    run, point = translated(net), array(z)
    jacobian = jax.jit(jax.jacfwd(lambda x: run(x[None])[0].ravel()))
    decode = jax.jit(run)
    found, wanted = torch.from_numpy(np.array(jacobian(point[0]))), jacfwd(flat)(z[0])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    return {
        "jax": lambda: jax.block_until_ready(jacobian(point[0])),
        "jax decode": lambda: jax.block_until_ready(decode(point)),
    }


def main() -> None:
    """Measure, print, and rewrite a page's blocks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="whose <!-- models NAME --> blocks to rewrite")
    parser.add_argument("--quick", action="store_true", help="smaller decoders, in seconds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    blocks = {
        "table": table([row(case) for case in cases(arguments.quick)]),
        "jacobians": jacobians(arguments.quick),
    }
    if not arguments.quick:
        blocks["large"] = large_models.table()
    for block in blocks.values():
        print(block, end="\n\n")
    if arguments.page is not None:
        put(arguments.page, blocks, "models")


if __name__ == "__main__":
    main()
