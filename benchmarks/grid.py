"""Which cells are run, the important ones first."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from benchmarks.decoder_rivals import fisher_problem, training_problem
from benchmarks.mixture_rivals import mixture_problem, ricci_problem
from benchmarks.problem import Cell
from benchmarks.real_rivals import real_problem
from benchmarks.small_rivals import kernel_problem, log_det_problem
from benchmarks.unrolled_rivals import unrolled_problem, unrolled_ricci_problem

SINGLE, DOUBLE = torch.float32, torch.float64
SMALL_DECODER = {"d": 3, "h": 10, "D": 14, "B": 4}


def fisher(
    d: int,
    h: int,
    D: int,
    B: int,
    family: str = "holomorphic",
    sigma: str = "diagonal",
    dtype: torch.dtype = SINGLE,
    *,
    compiled: bool = True,
) -> Cell:
    """The Fisher metric of a decoder d → h → h → D."""
    sizes: dict[str, Any] = {"d": d, "h": h, "D": D, "B": B, "family": family, "sigma": sigma}
    return Cell("Fisher metric", fisher_problem, sizes, dtype, SMALL_DECODER, compiled)


def training(
    d: int, h: int, D: int, B: int, dtype: torch.dtype = SINGLE, *, compiled: bool = True
) -> Cell:
    """The gradient of E[log det g] in a holomorphic decoder's weights, diagonal Σ(z)."""
    sizes: dict[str, Any] = {"d": d, "h": h, "D": D, "B": B}
    sizes |= {"family": "holomorphic", "sigma": "diagonal"}
    return Cell("training step", training_problem, sizes, dtype, SMALL_DECODER, compiled)


def mixture(d: int, K: int, B: int, dtype: torch.dtype = SINGLE, *, compiled: bool = True) -> Cell:
    """The metric of a mixture potential."""
    sizes = {"d": d, "K": K, "B": B}
    small = {"d": min(d, 3), "K": 5, "B": 4}
    return Cell("mixture metric", mixture_problem, sizes, dtype, small, compiled)


def unrolled(d: int, K: int, B: int) -> Cell:
    """The same by ``compile=True``, for small d."""
    sizes, small = {"d": d, "K": K, "B": B}, {"d": d, "K": 5, "B": 4}
    return Cell("mixture metric, compiled", unrolled_problem, sizes, SINGLE, small, False)


def ricci(d: int, K: int, B: int) -> Cell:
    """The Ricci tensor of a mixture potential: in float64, as it is a fourth derivative."""
    sizes, small = {"d": d, "K": K, "B": B}, {"d": 2, "K": 5, "B": 3}
    return Cell("mixture Ricci", ricci_problem, sizes, DOUBLE, small)


def unrolled_ricci(d: int, K: int, B: int) -> Cell:
    """The same by ``compile=True``; d = 2, as compiling more takes minutes."""
    sizes, small = {"d": d, "K": K, "B": B}, {"d": d, "K": 5, "B": 3}
    return Cell("mixture Ricci, compiled", unrolled_ricci_problem, sizes, DOUBLE, small, False)


def log_det(d: int, B: int, dtype: torch.dtype = SINGLE) -> Cell:
    """log det and its gradient."""
    return Cell("log det, gradient", log_det_problem, {"d": d, "B": B}, dtype, {"B": 8})


def kernel(d: int, D: int, B: int, dtype: torch.dtype = SINGLE) -> Cell:
    """The generated kernel alone, on jets that are at hand."""
    sizes: dict[str, Any] = {"d": d, "h": 16, "D": D, "B": B}
    sizes |= {"family": "split", "sigma": "diagonal"}
    return Cell("Fisher kernel on jets", kernel_problem, sizes, dtype, SMALL_DECODER)


def real(d: int, D: int, B: int, network: str = "mlp", likelihood: str = "gaussian") -> Cell:
    """The Fisher-Rao metric of an ordinary decoder, d → h → h → D or convolutional."""
    sizes: dict[str, Any] = {"d": d, "D": D, "B": B}
    if network == "mlp":
        sizes["h"] = {64: 128, 784: 256, 3072: 512}[D]
    sizes |= {"network": network, "likelihood": likelihood}
    small = {"d": 2, "D": 64, "B": 3} | ({"h": 10} if network == "mlp" else {})
    return Cell("real Fisher metric", real_problem, sizes, SINGLE, small)


def real_grid() -> list[Cell]:
    """Decoders of real latents, and what can be had at single points of complex ones as well."""
    networks, sizes = ("mlp", "conv"), list(product((8, 32, 2), (784, 3072, 64)))
    sizes.sort(key=lambda size: abs(size[1] - 784) > 0)  # all d at the middle D before others
    cells = [real(8, 784, B, n) for B, n in product((64, 1, 1024), networks)]
    cells += [real(8, 784, 64, n, "bernoulli") for n in networks]
    cells += single_points()
    for B in (64, 1, 1024):
        fitting = [(d, D) for d, D in sizes if B * d * D <= 2**25]
        cells += [real(d, D, B, n) for (d, D), n in product(fitting, networks)]
    seen: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        seen.setdefault(_key(cell), cell)
    return list(seen.values())


def single_points() -> list[Cell]:
    """Where calls take longer than numbers, and programs are for: d = 2 and 8, D = 784."""
    cells = [
        real(d, 784, 1, n, law)
        for n, law, d in product(("mlp", "conv"), ("gaussian", "bernoulli"), (2, 8))
    ]
    families = ("holomorphic", "split")
    return cells + [fisher(d, 256, 784, 1, f, compiled=False) for f, d in product(families, (2, 8))]


def quick_grid() -> list[Cell]:
    """One typical cell for each quantity."""
    return [
        fisher(8, 256, 784, 64),
        fisher(8, 256, 784, 64, "split", compiled=False),
        fisher(8, 256, 784, 64, sigma="constant", compiled=False),
        fisher(8, 256, 784, 1, compiled=False),
        training(8, 256, 784, 32, compiled=False),
        mixture(2, 128, 1024, compiled=False),
        mixture(8, 128, 256, compiled=False),
        unrolled(2, 128, 4096),
        ricci(3, 32, 32),
        log_det(2, 4096),
        log_det(8, 4096),
        kernel(8, 784, 64),
    ]


def full_grid() -> list[Cell]:
    """The table of the targets first, then the rest of the grid for as long as time allows.

    Compiling a rival takes half a minute and more, so that one cell of each kind does it.
    """
    wide = [(256, 784), (256, 64), (512, 3072)]
    families = ("holomorphic", "split")
    mixtures = list(product((2, 8, 32), (16, 128, 1024)))
    cells = [fisher(8, 256, 784, 64), training(8, 256, 784, 128)]
    cells += [
        fisher(d, h, D, _decoder_points(d), f, compiled=(d, D, f) == (8, 784, "split"))
        for (h, D), d, f in product(wide, (8, 2, 32), families)
        if (d, D, f) != (8, 784, "holomorphic")
    ]
    cells += [fisher(d, 256, 784, 1, f, compiled=False) for d, f in product((8, 2, 32), families)]
    cells += [
        fisher(8, h, D, 256, f, s, compiled=False)
        for (h, D), s, f in product(wide[::2], ("constant", "scalar"), families)
    ]
    cells += [
        training(d, h, D, B, compiled=False)
        for d, h, D, B in (
            (2, 256, 784, 256),
            (32, 256, 784, 32),
            (8, 512, 3072, 32),
            (32, 256, 64, 32),
        )
    ]
    cells += [
        mixture(d, K, _mixture_points(d, K), compiled=(d, K) in ((2, 1024), (8, 128)))
        for d, K in mixtures
    ]
    cells += [unrolled(d, K, 4096) for d, K in product((2, 3), (16, 128, 1024))]
    cells += [unrolled(2, 16, 1024)]
    tensors = ((2, 16), (2, 256), (4, 64), (8, 16))
    cells += [ricci(d, K, B) for B, (d, K) in product((16, 256), tensors)] + [ricci(16, 256, 16)]
    cells += [unrolled_ricci(2, K, 256) for K in (16, 256)]
    cells += [log_det(d, B) for d, B in product((2, 3, 4, 8), (256, 4096))]
    cells += [log_det(d, B) for d, B in ((8, 1), (2, 65536), (8, 65536), (16, 4096), (32, 4096))]
    cells += [kernel(d, D, 64) for d, D in ((2, 784), (8, 784), (32, 3072))]
    cells += [fisher(8, 256, 784, 256, f, dtype=DOUBLE, compiled=False) for f in families]
    cells += [training(8, 256, 784, 128, DOUBLE, compiled=False)]
    cells += [fisher(d, 256, 784, 4096, f, compiled=False) for d, f in product((2, 8), families)]
    rest = [
        fisher(d, h, D, B, f, s, t, compiled=False)
        for t, s, B, f, h, D, d in product(
            (SINGLE, DOUBLE),
            ("diagonal", "constant", "scalar"),
            (256, 1, 4096),
            families,
            (256, 512),
            (64, 784, 3072),
            (2, 8, 32),
        )
    ]
    rest += [mixture(d, K, _mixture_points(d, K), DOUBLE, compiled=False) for d, K in mixtures]
    seen = {_key(cell) for cell in cells}
    return cells + [cell for cell in rest if _key(cell) not in seen]


def gpu_grid(*, quick: bool = False) -> list[Cell]:
    """Large batches, where a card has work for all of its parts."""
    cells = [
        fisher(8, 256, 784, 4096),
        mixture(8, 128, 4096, compiled=False),
        log_det(8, 65536),
        fisher(8, 256, 784, 4096, "split", compiled=False),
        fisher(8, 512, 3072, 4096, sigma="constant", compiled=False),
        training(8, 256, 784, 1024, compiled=False),
        ricci(4, 64, 256),
    ]
    if quick:
        return cells[:3]
    return [
        *cells,
        fisher(32, 256, 784, 1024),
        fisher(32, 512, 3072, 256, compiled=False),
        fisher(8, 256, 784, 1, compiled=False),
        fisher(8, 256, 784, 4096, dtype=DOUBLE, compiled=False),
        mixture(32, 1024, 256, compiled=False),
    ]


def _decoder_points(d: int) -> int:
    """One or two chunks of 512 tangents, in which every rival is at its steady rate."""
    return max(512 // d, 32)


def _mixture_points(d: int, K: int) -> int:
    """A batch that the slowest rival can finish."""
    return max(32, min(4096, 2**23 // (K * d * d * 8)))


def _key(cell: Cell) -> tuple[Any, ...]:
    return cell.quantity, tuple(cell.sizes.items()), cell.dtype
