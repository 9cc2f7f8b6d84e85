"""Is a decoder C²? Kinks and jumps, by the names in autograd's graph and by behaviour.

Behaviour is looked at along a few seeded lines across the latent region. On an interval of a line,
values, slopes and second derivatives at both ends predict those in the middle; where the prediction
is worst, the interval is halved. What is smooth is predicted after a few halvings, however steep.
At a kink the prediction stays wrong until the interval is as short as the precision allows; and
what jumps across that interval, and not beside it, is a kink.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.jets.analytic import is_analytic
from kahler_verify.jets.differentiation import Mode, differentiate, nested
from kahler_verify.jets.gaussian_outputs import DecoderFunction, at_point, evaluate

__all__ = ["SmoothnessWarning", "require_smooth", "require_smooth_operations", "search"]


class SmoothnessWarning(UserWarning):
    """A decoder is not C², which connection, curvature and curves take it to be."""


# Functions that are not C² somewhere, by the names autograd gives them.
_NOT_SMOOTH = {
    "Relu": "ReLU has a kink at 0",
    "LeakyRelu": "leaky ReLU has a kink at 0",
    "PreluKernel": "PReLU has a kink at 0",
    "Rrelu": "RReLU has a kink at 0",
    "RreluWithNoise": "RReLU has a kink at 0",
    "Elu": "ELU's second derivative (SELU's and CELU's too) jumps at 0",
    "Celu": "CELU's second derivative jumps at 0",
    "Hardtanh": "hardtanh and ReLU6 have kinks",
    "Hardswish": "hardswish has kinks",
    "Hardsigmoid": "hardsigmoid has kinks",
    "Softshrink": "softshrink has kinks",
    "Hardshrink": "hardshrink jumps",
    "Threshold": "a threshold jumps",
    "Abs": "abs has a corner at 0, and torch's Hessian of abs(z)**2 is 0 there; write z*z.conj()",
    "LinalgVectorNorm": "a norm has a corner at 0; write the sum of z*z.conj()",
    "Norm": "a norm has a corner at 0; write the sum of z*z.conj()",
    "Sgn": "the phase z/|z| is not continuous at 0",
    "Sign": "the sign jumps at 0",
    "Angle": "the phase is not continuous at 0",
    "MaxPool1D": "max pooling has kinks",
    "MaxPool2DWithIndices": "max pooling has kinks",
    "MaxPool3DWithIndices": "max pooling has kinks",
    "AdaptiveMaxPool2D": "max pooling has kinks",
    "AdaptiveMaxPool3D": "max pooling has kinks",
    "FractionalMaxPool2D": "max pooling has kinks",
    "FractionalMaxPool3D": "max pooling has kinks",
    "Round": "rounding jumps",
    "Floor": "rounding jumps",
    "Ceil": "rounding jumps",
    "Trunc": "truncation jumps",
}
# Functions that are smooth as they are often used (a clamp that is never reached, the maximum in a
# log-sum-exp, a case distinction between two forms of one function): behaviour decides.
_SUSPECT = {
    "Clamp", "ClampMin", "ClampMax", "Maximum", "Minimum", "Max", "Min", "Amax", "Amin", "Fmax",
    "Fmin", "Where", "Sort", "Topk", "Kthvalue", "Median", "Nanmedian", "Mode", "Cummax", "Cummin",
    "Fmod", "Remainder", "Frac", "Copysign", "SmoothL1Loss", "HuberLoss", "L1Loss", "MaskedFill",
    "Index", "Gather", "GridSampler2D", "GridSampler3D", "Cdist", "EuclideanDist", "ToCopy",
    "Heaviside", "Searchsorted", "Bucketize", "Linalgvectornorm", "Sqrt", "Pow", "Log",
}  # fmt: skip

LINES = 3
REGION = 3.0  # standard deviations of a standard normal latent
INTERVALS = 6  # of each line, to begin with; their middles are looked at, too
KEPT = 2  # intervals of each line that are halved
_FIRST_POINT = 0.382  # of an interval, so that 0 is not a point: the kink of many a function


def require_smooth_operations(decoder: DecoderFunction, points: Tensor) -> None:
    """Refuse a decoder in whose graph a function stands that is never C².

    Raises:
        InputError: names the layer or the operation.
    """
    for kind in _operations(decoder, points):
        if kind in _NOT_SMOOTH:
            raise InputError(
                f"connection and curvature need a C² decoder, but {_culprit(decoder, kind)} is "
                f"not: {_NOT_SMOOTH[kind]}"
            )


def _operations(decoder: DecoderFunction, points: Tensor) -> list[str]:
    """The kinds of operations in autograd's graph, nearest to the output first."""
    with torch.enable_grad():
        fields = evaluate(decoder, points[:1].clone().requires_grad_(True))
    pending: list[Any] = [field.grad_fn for field in (fields.mu, fields.factor)]
    seen: set[Any] = set()
    kinds: dict[str, None] = {}
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kinds[node.name().removeprefix("torch::autograd::").split("Backward")[0]] = None
        pending.extend(parent for parent, _ in node.next_functions)
    return list(kinds)


def _culprit(decoder: DecoderFunction, kind: str) -> str:
    if isinstance(decoder, nn.Module):
        for name, module in decoder.named_modules():
            if type(module).__name__.lower() == kind.lower():
                return f"the layer {name!r} ({module})"
    return f"the operation {kind} in it"


# Behaviour


class Lines(Protocol):
    """Weighted sums of a function's outputs along lines z + t v, and their derivatives by t.

    Attributes:
        start: z of each, [L, d].
        direction: v of each, [L, d].
        reach: largest |t| of each, [L].
        magnitude: of the two sums' terms, [2].
    """

    start: Tensor
    direction: Tensor
    reach: Tensor
    magnitude: Tensor

    def at(self, t: Tensor, lines: Tensor) -> Tensor:
        """Derivatives of orders 0, 1, 2 of both sums at t [k, n] of k lines, [3, k, n, 2]."""


class _Samples(NamedTuple):
    """Places t [L, n] on lines and what is there: values, slopes, second derivatives [L, n, 2]."""

    t: Tensor
    derivatives: Tensor  # [3, L, n, 2]: of each order, of the mean and of the log scale


class _Lines:
    """A weighted sum of a decoder's outputs along lines z + t v, and its derivatives by t."""

    def __init__(self, decoder: DecoderFunction, points: Tensor, mode: Mode, chunk: int) -> None:
        self.decoder, self.mode, self.chunk = decoder, mode, chunk
        d, kind = points.shape[-1], points.real
        origin = torch.zeros_like(points[:1])
        start = points[torch.arange(1, LINES) % len(points)]
        self.start = torch.cat([origin, start])
        self.direction = _seeded(points, LINES, d)
        self.reach = torch.full((LINES,), REGION, dtype=kind.dtype, device=kind.device)
        self.reach[-1] /= 8
        with torch.no_grad():
            fields = evaluate(decoder, points[:1])
        self.diagonal = fields.structure.covariance != "full"
        scale = fields.factor.log() if self.diagonal else fields.factor
        self.weights = [
            _seeded(points, *field.shape[1:], seed=5 + n)
            for n, field in enumerate((fields.mu, scale))
        ]
        # what rounding is relative to: terms may cancel, and log s is as inexact as s is
        terms = [
            w.abs() * f.abs() for w, f in zip(self.weights, (fields.mu[0], scale[0]), strict=True)
        ]
        self.magnitude = torch.stack([terms[0].sum(), (terms[1] + self.weights[1].abs()).sum()])

    def sums(self, z: Tensor) -> Tensor:
        """At one point z [d]: of the mean and of the log scale (or of L), [2]."""
        fields = at_point(self.decoder, z)
        scale = fields.factor.log() if self.diagonal else fields.factor
        return torch.stack(
            [_real_sum(w, f) for w, f in zip(self.weights, (fields.mu, scale), strict=True)]
        )

    def at(self, t: Tensor, lines: Tensor) -> Tensor:
        """Derivatives of orders 0, 1, 2 at t [L, n] of the given lines, [3, L, n, 2]."""
        start, direction = (
            x[lines][:, None].expand(*t.shape, -1).reshape(t.numel(), -1)
            for x in (self.start, self.direction)
        )

        def one(t: Tensor, start: Tensor, direction: Tensor) -> tuple[Tensor, ...]:
            def value(t: Tensor) -> tuple[tuple[Tensor], Tensor]:
                step = torch.complex(t * direction.real, t * direction.imag)
                return (self.sums(start + step),), t

            levels = nested(lambda u: value(u[0]), 2, self.mode)(t[None])[0]
            return tuple(level[0].reshape(2) for level in levels)

        def all_of_them() -> tuple[Tensor, ...]:
            function = torch.vmap(one, chunk_size=self.chunk)
            found: tuple[Tensor, ...] = function(t.reshape(-1), start, direction)
            return found

        with torch.no_grad():
            found = differentiate(all_of_them)
        return torch.stack([level.reshape(*t.shape, 2) for level in found])


def _seeded(like: Tensor, *shape: int, seed: int = 4) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    pairs = torch.randn(*shape, 2, dtype=torch.float64, device="cpu", generator=generator)
    return torch.view_as_complex(pairs).to(like)


def _real_sum(weights: Tensor, field: Tensor) -> Tensor:
    """Re Σ w̄ f, whose parts w.real and w.imag no symmetry of f knows."""
    if field.is_complex():
        return (weights.real * field.real + weights.imag * field.imag).sum()
    return (weights.real * field).sum()


def require_smooth(decoder: DecoderFunction, points: Tensor, mode: Mode, chunk: int) -> None:
    """Refuse a decoder that has a kink or a jump on one of the lines.

    One that is composed of analytic operations alone has none, and is not searched.

    Raises:
        InputError: says where, which derivative jumps, by how much, and what may be the cause.
    """
    if is_analytic(decoder, points):
        return
    found = search(_Lines(decoder, points, mode, chunk))
    if found is None:
        return
    what, place, jump = found
    kinds = [k for k in _operations(decoder, points) if k in _SUSPECT]
    suspects = " or ".join(_culprit(decoder, k).removesuffix(" in it") for k in kinds[:4])
    cause = f": look at {suspects}" if suspects else ""
    raise InputError(
        f"connection and curvature need a C² decoder, but {what} near z = {place}, by {jump:.1e} "
        f"of its size{cause}"
    )


def _shown(z: Tensor) -> str:
    head = ", ".join(f"{value:.4g}" for value in z[:4].tolist())
    return f"[{head}{', …' if len(z) > 4 else ''}]"


def search(lines: Lines) -> tuple[str, str, float] | None:
    """What jumps, where, and by how much relatively; None where everything is smooth."""
    chosen, grid = _finite_grids(lines)
    if len(chosen) == 0:
        return None
    double = lines.reach.dtype == torch.float64
    depth, tolerance = (32, 1e-5) if double else (19, 1e-3)
    reach = lines.reach[chosen][:, None, None]
    rounding = 20 * torch.finfo(reach.dtype).eps / tolerance * lines.magnitude
    size = _sizes(grid.derivatives, reach, rounding)
    left, middle, right = grid.t[:, :-2:2], grid.t[:, 1::2], grid.t[:, 2::2]
    at_left, at_middle, at_right = (
        grid.derivatives[:, :, places]
        for places in (slice(0, -2, 2), slice(1, None, 2), slice(2, None, 2))
    )
    calm = torch.zeros(len(chosen), dtype=torch.long, device=left.device)
    for _ in range(depth):
        size = torch.maximum(size, _sizes(at_middle, reach, rounding))
        rough, unsure = _residuals(at_left, at_middle, at_right, (right - left)[..., None])
        rough = (rough / size).nan_to_num(nan=0.0).amax((0, -1))  # [L, n]
        unsure = (unsure / size).nan_to_num(nan=0.0).amax((0, -1))
        worst = rough.topk(min(KEPT, rough.shape[-1]), dim=-1).indices
        calm = torch.where(unsure.amax(-1) <= tolerance, calm + 1, 0)
        active = calm < 2
        if not bool(active.any()):
            return None
        chosen, reach, size, calm = chosen[active], reach[active], size[:, active], calm[active]
        worst = worst[active]
        left, middle, right = (_pick(x[active], worst) for x in (left, middle, right))
        at_left, at_middle, at_right = (
            _pick(x[:, active], worst.expand(3, *worst.shape))
            for x in (at_left, at_middle, at_right)
        )
        left, right = torch.cat([left, middle], -1), torch.cat([middle, right], -1)
        at_left = torch.cat([at_left, at_middle], -2)
        at_right = torch.cat([at_middle, at_right], -2)
        middle = (left + right) / 2
        at_middle = lines.at(middle, chosen)
    return _jump(lines, chosen, size, (left, right), (at_left, at_right), tolerance)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """Some of the places: x [..., n] or [..., n, 2] by index [..., k]."""
    if x.ndim == index.ndim:
        return x.gather(-1, index)
    return x.gather(-2, index[..., None].expand(*index.shape, x.shape[-1]))


def _finite_grids(lines: Lines) -> tuple[Tensor, _Samples]:
    """Points on each line, within a reach where the decoder is finite."""
    chosen = torch.arange(LINES, device=lines.start.device)
    count = 2 * INTERVALS + 1
    fractions = (torch.arange(count, device=lines.start.device) + _FIRST_POINT) / count
    fractions = (2 * fractions - 1).to(lines.reach)
    for _ in range(10):
        grid = lines.reach[:, None] * fractions
        found = lines.at(grid, chosen)
        bad = ~torch.isfinite(found).all(0).all(-1).all(-1)
        if not bool(bad.any()):
            break
        lines.reach = torch.where(bad, lines.reach / 4, lines.reach)
    return chosen[~bad], _Samples(grid[~bad], found[:, ~bad])


def _sizes(derivatives: Tensor, reach: Tensor, rounding: Tensor) -> Tensor:
    """The size of each order along each line, [3, L, 1, 2]: at least that of a slow change.

    That of values is so large, besides, that the tolerance times it is more than rounding.
    """
    values = derivatives[0]
    change = values.amax(1, keepdim=True) - values.amin(1, keepdim=True)
    sizes = [torch.maximum(change, rounding.expand_as(change))]
    for order in (1, 2):
        largest = derivatives[order].abs().amax(1, keepdim=True)
        sizes.append(torch.maximum(largest, sizes[-1] / reach))
    return torch.stack(sizes).clamp(min=torch.finfo(values.dtype).tiny)


def _residuals(left: Tensor, middle: Tensor, right: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """How far values, slopes and second derivatives are from what both ends predict.

    By Hermite's interpolation, of errors h⁶, h⁴, h²; and once more with h⁴ for the last, which a
    jump at one place of the interval can escape.
    """
    (f0, g0, c0), (f1, g1, c1) = left, right
    by_values = (f0 + f1) / 2 + 5 * h / 32 * (g0 - g1) + h * h / 64 * (c0 + c1)
    by_slopes = (g0 + g1) / 2 + h / 8 * (c0 - c1)
    sharp = torch.stack([middle[0] - by_values, middle[1] - by_slopes, middle[2] - (c0 + c1) / 2])
    finer = 3 * (g1 - g0) / (2 * h) - (c0 + c1) / 4
    sure = torch.stack([sharp[0], sharp[1], middle[2] - finer])
    return sharp.abs(), torch.minimum(sure.abs(), sharp.abs())


_WHAT = ("it jumps", "it has a kink (its first derivative jumps)", "its second derivative jumps")


def _jump(
    lines: Lines,
    chosen: Tensor,
    size: Tensor,
    places: tuple[Tensor, Tensor],
    ends: tuple[Tensor, Tensor],
    tolerance: float,
) -> tuple[str, str, float] | None:
    """What changes across a shortest interval and not on either side of it."""
    left, right = places
    at_left, at_right = ends
    h = right - left
    before, behind = lines.at(left - h, chosen), lines.at(right + h, chosen)
    across = (at_right - at_left).abs()
    beside = torch.maximum((at_left - before).abs(), (behind - at_right).abs())
    relative = across / size
    jumps = (across > 10 * beside) & (relative > tolerance)
    for order, what in enumerate(_WHAT):
        where = torch.nonzero(jumps[order].any(-1))
        if len(where):
            line, place = where[0].tolist()
            t = (left + right)[line, place] / 2
            number = chosen[line]
            z = lines.start[number] + t * lines.direction[number]
            return what, _shown(z), float(relative[order, line, place].max())
    return None
