"""Rounding certificates: a rigorous bound on the error of a kernel's floating-point result.

:func:`certify` runs a generated kernel in torch, and the very text of the kernel over complex balls
on the same dyadic inputs.  The certificate is about the kernel *given its inputs*: jets, weights
and factors that were rounded before they came in are taken as they are.  For the transcendental
and factoring heads themselves there are :func:`enclose_cholesky`, :func:`enclose_softmax` and
:func:`enclose_log_det`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import flint
import numpy as np
import torch
from flint import acb, arb
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.errors import EvidenceError, InputError
from kahler_verify.evidence.numbers.arrays import Array, array
from kahler_verify.evidence.numbers.trees import definition_of
from kahler_verify.evidence.proofs.dyadic import (
    FIRST_BITS,
    MOST_BITS,
    UNITS,
    balls_of,
    batch_of,
    exact,
    floor_of,
    larger,
    part_at,
    rational,
    rounded_up,
    unit_of,
)
from kahler_verify.evidence.proofs.generated import (
    METRIC,
    ball_function,
    declared,
    declared_kernel,
    measure_of,
    resolve,
    upper_axes,
)
from kahler_verify.evidence.recheck import digest, positive


@dataclass(frozen=True)
class PointCertificate:
    """What is certified at one point of the batch.

    ``bounds`` gives for every output the largest error of an entry divided by √g_aa for each lower
    latent index a (times √g_aa for an upper one); ``lambda_min`` ≤ every eigenvalue of g ≤
    ``lambda_max``; ``positive_definite`` is None where the balls cannot tell.
    """

    bounds: Mapping[str, Fraction | None]
    positive_definite: bool | None
    lambda_min: Fraction | None
    lambda_max: Fraction | None
    bits: int
    certified: bool
    inputs: Mapping[str, Any]
    computed: Mapping[str, Any]
    metric: Any = None

    @property
    def condition_number(self) -> Fraction | None:
        """An upper bound of λ_max/λ_min of g, None where g is not certified positive definite."""
        if self.lambda_min is None or self.lambda_max is None:
            return None
        return self.lambda_max / self.lambda_min


@dataclass(frozen=True)
class Certificate:
    """A rigorous bound on a kernel's rounding error, given its inputs.

    ``verdict`` is ``certified``, or ``undecided`` where some enclosure stayed wide at ``most_bits``
    or some g_aa is not positive.
    """

    kernel: str
    dtype: str
    points: tuple[PointCertificate, ...]
    most_bits: int
    sizes: Mapping[str, int]
    derivation: Derivation | None = None

    @property
    def verdict(self) -> str:
        """``certified`` if the bound is informative at every point."""
        return "certified" if all(p.certified for p in self.points) else "undecided"

    @property
    def error_bound(self) -> dict[str, Fraction | None]:
        """The worst bound over the points, by output."""
        each = {n: [p.bounds[n] for p in self.points] for n in self.points[0].bounds}
        return {
            n: None if None in b else max(x for x in b if x is not None) for n, b in each.items()
        }

    @property
    def condition_number(self) -> Fraction | None:
        """The worst bound of g's condition number, None where some point has none."""
        numbers = [p.condition_number for p in self.points]
        return None if None in numbers else max(n for n in numbers if n is not None)

    @property
    def positive_definite(self) -> bool | None:
        """Is g certified positive definite at every point?  None where the balls cannot tell."""
        claims = [p.positive_definite for p in self.points]
        return False if False in claims else None if None in claims else True

    @property
    def bits(self) -> int:
        """The most bits of precision that any point needed."""
        return max(p.bits for p in self.points)

    def to_json(self) -> dict[str, Any]:
        """An item for an evidence file, with exact numbers as strings; see ``recheck``.

        The item states the definition that the kernel's outputs are derivatives of.

        Raises:
            EvidenceError: nothing is certified, or the re-checker cannot read the definition.
        """
        if self.verdict != "certified":
            raise EvidenceError(f"to_json: the certificate of {self.kernel} is undecided")
        kernel = declared_kernel(self.kernel, self.derivation)
        if kernel is None:
            raise EvidenceError(f"to_json: no derivation of {self.kernel} is known; pass one")
        definition = definition_of(kernel, self.sizes)
        layout = next(iter(kernel.layout.values()), "full")
        items = [_point_json(p, self.sizes, layout) for p in self.points]
        for name in items[0]["inputs"]:
            field = name.split("_")[0].rstrip("0")
            if field not in definition.fields | {"w"} or name == "g_factor":
                raise EvidenceError(f"to_json: the definition of {self.kernel} takes no {name}")
        item = {
            "kind": "kernel",
            "title": f"{self.kernel}, {self.dtype}, given its inputs",
            "definition": definition.tree,
            "bars": {n: list(b) for n, b in definition.bars.items()},
            "hermitian": list(definition.hermitian),
            "bits": self.bits,
            "floor": str(floor_of(UNITS[getattr(torch, self.dtype)])),
            "verdict": self.verdict,
            "points": items,
        }
        return {**item, "digest": digest(item)}

    def __str__(self) -> str:
        bounds = ", ".join(
            f"{n} unbounded" if b is None else f"{n} within {float(b):.2e}"
            for n, b in self.error_bound.items()
        )
        condition = self.condition_number
        shown = "no bound" if condition is None else f"at most {float(condition):.3g}"
        positive_text = {True: "certified", False: "refuted", None: "undecided"}
        definite = positive_text[self.positive_definite]
        return (
            f"{self.kernel} ({self.dtype}), {len(self.points)} point(s): {self.verdict}\n"
            f"  error in the frame where g has unit diagonal: {bounds}\n"
            f"  condition number of g: {shown}; positive definite: {definite}\n"
            f"  {self.bits} bits used of {self.most_bits}; about the kernel given its inputs"
        )


def certify(
    kernel: Callable[..., Any] | str,
    inputs: Mapping[str, Tensor],
    *,
    metric: Tensor | None = None,
    derivation: Derivation | None = None,
    most_bits: int = MOST_BITS,
) -> Certificate:
    """Bound the rounding error of a generated kernel at given inputs, rigorously.

    Args:
        kernel: a generated function, or its qualified name such as
            ``"gaussian_kl.fisher_metric_full"``.
        inputs: the kernel's arguments by name, float32/complex64 or float64/complex128, one point
            or a batch (leading dimensions, broadcast as torch does).  Weights ``w`` of a mixture
            are taken in proportion: what the result is compared with has them normalised exactly.
        metric: g [..., d, d], of which the Hermitian part is taken; by default the kernel's own
            output or input ``g``, L Lᴴ of an input ``g_factor``, or g of the kernel's sister
            (``metric`` for ``metric_d`` and so on).  Outputs without latent indices need none, and
            their errors are absolute.
        derivation: what the kernel was derived from, for ``to_json``; known for shipped kernels.
        most_bits: the precision at which to give up with the verdict ``undecided``.

    Raises:
        InputError: an input is missing, not finite, of another dtype, or no metric can be found.
        EvidenceError: the kernel's source cannot be read.
    """
    function = resolve(kernel)
    shapes, outputs = declared(function)
    ranks = {n: len(s) for n, s in shapes.items()}
    if missing := [n for n in ranks if n not in inputs]:
        raise InputError(f"inputs: expected {', '.join(ranks)}, got none of {', '.join(missing)}")
    tensors = {n: inputs[n] for n in ranks} | ({} if metric is None else {"metric": metric})
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if tensor.numel() == 0:
            raise InputError(
                f"{name}: expected one point at least, got the empty shape {list(tensor.shape)}"
            )
    result = function(**{n: inputs[n] for n in ranks})
    results = dict(zip(outputs, result if isinstance(result, tuple) else (result,), strict=True))
    unit = max(unit_of(name, t) for name, t in results.items())
    given = {n: inputs[n] for n in ranks}
    if metric is not None:
        given[METRIC], ranks[METRIC] = metric, 2
    measure = measure_of(function, given, outputs)
    batch = torch.broadcast_shapes(*[batch_of(n, t, ranks[n]) for n, t in given.items()])
    arguments = [n for n in ranks if n != METRIC]
    text = ball_function(function)
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    upper = upper_axes(declared_kernel(name, derivation))
    points = []
    for where in product(*map(range, batch)):
        here = {n: part_at(t, ranks[n], batch, where) for n, t in given.items()}

        def enclose(here: Mapping[str, Tensor] = here) -> tuple[dict[str, Array], Array | None]:
            balls = {n: balls_of(t) for n, t in here.items()}
            if "w" in balls:
                balls["w"] = array(np.asarray(balls["w"]) / sum(balls["w"], acb(0)))
            out = text(**{n: balls[n] for n in arguments})
            named = dict(zip(outputs, out if isinstance(out, tuple) else (out,), strict=True))
            latent_outputs = any(x.ndim for x in named.values())
            return named, measure({**balls, **named}) if latent_outputs else None

        rank = {n: x.ndim for n, x in enclose()[0].items()}
        computed = {n: part_at(t, rank[n], batch, where) for n, t in results.items()}
        points.append(
            PointCertificate(
                **_certified(enclose, computed, upper, unit, most_bits),
                inputs={n: exact(here[n]) for n in arguments},
                computed={n: exact(t) for n, t in computed.items()},
                metric=exact(metric) if metric is not None else None,
            )
        )
    return Certificate(
        kernel=name,
        dtype=str(max((t.dtype for t in results.values()), key=UNITS.__getitem__))[6:],
        points=tuple(points),
        most_bits=most_bits,
        sizes={
            letter: size
            for name, shape in shapes.items()
            for letter, size in zip(
                shape, inputs[name].shape[inputs[name].ndim - len(shape) :], strict=True
            )
        },
        derivation=derivation,
    )


def _certified(
    enclose: Callable[[], tuple[dict[str, Array], Array | None]],
    computed: Mapping[str, Tensor],
    upper: Mapping[str, set[int]],
    unit: int,
    most_bits: int,
) -> dict[str, Any]:
    """Raise the precision until enclosures say something about the error and about g.

    Where g certainly has a diagonal entry that is not positive, there is no frame to measure in.
    """
    bits, floor = FIRST_BITS, rational(floor_of(unit))
    while True:
        with flint.ctx.workprec(bits):
            values, g = enclose()
            definite = None if g is None else positive(g.tolist())
            errors = {n: _error(values[n], t, g, upper.get(n, set())) for n, t in computed.items()}
            informative = all(
                bool(e.is_finite()) and (bool(r <= e / 1024) or bool(r <= floor / 4))
                for e, r in errors.values()
            )
            settled = informative and (g is None or definite is not None)
            settled |= g is not None and any(bool(g[i, i].real < 0) for i in range(len(g)))
            if settled or bits >= most_bits:
                low, high = _eigenvalues(g) if g is not None and definite else (None, None)
                bounds = {n: rounded_up(e) for n, (e, _) in errors.items()}
                return {
                    "bounds": bounds,
                    "positive_definite": definite,
                    "lambda_min": low,
                    "lambda_max": high,
                    "bits": bits,
                    "certified": informative,
                }
        bits = min(2 * bits, most_bits)


def _error(values: Array, computed: Tensor, g: Array | None, upper: set[int]) -> tuple[Any, Any]:
    """The largest normalised error of an entry, and the largest normalised radius of a ball.

    ``upper`` are the axes of upper indices, which are normalised by √g_aa and not its reciprocal.
    """
    error = radius = arb(0)
    exact_values = balls_of(computed)
    for index in np.ndindex(values.shape):
        scale = arb(1)
        for at, a in enumerate(index):
            root = g[a, a].real.sqrt() if g is not None else arb(1)
            scale = scale / root if at in upper else scale * root
        value: Any = values[index]
        width = (value.real.rad() + value.imag.rad()) / scale
        error = larger(error, (abs(exact_values[index] - value) / scale).upper())
        radius = larger(radius, width.upper())
    return error, radius


def _eigenvalues(g: Array) -> tuple[Fraction, Fraction]:
    """Bounds of a positive definite matrix's eigenvalues, each tight to 1/32."""
    rows, each = g.tolist(), range(len(g))

    def holds(sign: int, t: Fraction) -> bool:
        shift = rational(t)
        shifted = [[sign * (rows[i][j] - shift * (i == j)) for j in each] for i in each]
        return positive(shifted) is True

    trace = sum((rows[i][i].real for i in each), arb(0))
    start = Fraction(2) ** (
        int(trace.mid().man_exp()[1]) + int(trace.mid().man_exp()[0]).bit_length()
    )
    bounds = []
    for sign in (1, -1):
        good = start * 2  # above the trace, so above every eigenvalue
        while holds(sign, good) == (sign < 0):  # down by halves, to the first below λ_min, λ_max
            good /= 2
        low, high = good, good * 2
        while high > low * Fraction(33, 32):
            middle = (low + high) / 2
            inside = holds(sign, middle)
            low, high = (middle, high) if inside == (sign > 0) else (low, middle)
        bounds.append(low if sign > 0 else high)
    return bounds[0], bounds[1]


def _as_fields(inputs: Mapping[str, Any], sizes: Mapping[str, int], layout: str) -> dict[str, Any]:
    """Inputs as the re-checker reads them.

    Every Σ is a full matrix, factors have no upper part, and coordinates z1, z2, … become a field z
    with its derivative.
    """
    zero = ["0", "0"]
    n = sizes.get("n", 1)

    def matrix(value: Any) -> Any:
        """The matrices of scalars s or of diagonals, at the depth where they stand."""
        diagonal = isinstance(value[0], str) if layout == "scalar" else isinstance(value[0][0], str)
        if not diagonal:
            return [matrix(x) for x in value]
        each = [value] * n if layout == "scalar" else value
        return [[each[i] if i == j else zero for j in range(n)] for i in range(n)]

    fields = dict(inputs)
    for name, value in inputs.items():
        if name.startswith("Sigma") and layout != "full":
            fields[name] = matrix(value)
        elif name.endswith("_factor"):
            fields[name] = [[x if j <= i else zero for j, x in enumerate(r)]
                            for i, r in enumerate(value)]  # fmt: skip
    coordinates = sorted(name for name in inputs if re.fullmatch(r"z\d+", name))
    if coordinates:
        fields = {n: v for n, v in fields.items() if n not in coordinates}
        fields["z"] = [inputs[name] for name in coordinates]
    if "z" in fields:
        d = len(fields["z"])
        fields["z_d"] = [[["1" if i == j else "0", "0"] for j in range(d)] for i in range(d)]
    return fields


def _point_json(point: PointCertificate, sizes: Mapping[str, int], layout: str) -> dict[str, Any]:
    text = lambda x: None if x is None else str(x)  # noqa: E731
    return {
        "inputs": _as_fields(point.inputs, sizes, layout),
        "metric": point.metric,
        "outputs": {
            n: {"computed": point.computed[n], "bound": str(point.bounds[n])} for n in point.bounds
        },
        "positive_definite": point.positive_definite,
        "lambda_min": text(point.lambda_min),
        "lambda_max": text(point.lambda_max),
    }
