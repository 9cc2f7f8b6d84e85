"""Faults planted in hand-written geometry: layouts, blocks, folds, planes and log det.

None of this is generated, so that no proof of a kernel notices it.  Each fault is an edit of one
line; what must notice it are the comparisons of :mod:`kahler_verify.evidence.laws.variants`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from kahler_verify.evidence.laws.variants.groups import GROUPS
from kahler_verify.evidence.mutants.faults import (
    BATCH,
    CONJUGATE,
    FACTOR,
    FAILURES,
    LOST,
    POWER,
    REAL,
    SIGN,
    TRANSPOSED,
    UNCENTRED,
    WEIGHT,
)
from kahler_verify.evidence.mutants.rules import Rule, edited, plain_function
from kahler_verify.geometry import families, folding, layouts, summands
from kahler_verify.geometry.components import Components, DiagonalComponents, FullComponents
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.linearised import Linearised
from kahler_verify.geometry.matrix_free import MatrixFreeMetric
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.mixture import MixtureMetric
from kahler_verify.geometry.operators import MetricOperator
from kahler_verify.jets import tangents
from kahler_verify.likelihoods import normal
from kahler_verify.linear_algebra import cholesky, degeneracy, elimination, heads, planes, rows

__all__ = ["GEOMETRY_RULES", "Noticed", "first_difference"]

Full, Diagonal, Mixture, Fisher = FullComponents, DiagonalComponents, MixtureMetric, FisherMetric
MatrixFree = MatrixFreeMetric

GEOMETRY_RULES: dict[str, tuple[Rule, ...]] = {
    "mixtures": (
        Rule(SIGN, layouts.Gram.added_to, "alpha=-1j * sign", "alpha=1j * sign"),
        Rule(SIGN, layouts.Gram.added_to, "of_x, alpha=sign", "of_x, alpha=1"),
        Rule(
            LOST,
            layouts.Gram.added_to,
            "torch.add(torch.add(other, of_x, alpha=sign), of_y, alpha=-1j * sign)",
            "torch.add(other, of_x, alpha=sign)",
        ),
        Rule(SIGN, layouts.Sum.__sub__, "self.tensor(), -1", "self.tensor(), 1"),
        Rule(SIGN, layouts.Gram.__add__, "else other, 1", "else other, -1"),
        Rule(TRANSPOSED, layouts.Sum.tensor, "out if self.precisions", "out.mT if self.precisions"),
        Rule(UNCENTRED, layouts.Slopes.__sub__, "self.pairs - mean.pairs.mT", "self.pairs"),
        Rule(SIGN, layouts.Slopes.__sub__, "self.pairs - mean", "self.pairs + mean"),
        Rule(CONJUGATE, layouts.Slopes.tensor, "-y if self.conjugated else y", "y"),
        Rule(CONJUGATE, layouts.Mean.tensor, "out.conj() if self.conjugated else out", "out"),
        Rule(WEIGHT, layouts._mean, "weights.unsqueeze(-2) @", "weights.square().unsqueeze(-2) @"),
        Rule(
            WEIGHT, layouts._weighted, "weights.unsqueeze(-2) *", "weights.sqrt().unsqueeze(-2) *"
        ),
        Rule(LOST, layouts._weighted, "weights.unsqueeze(-2) * slopes.pairs", "1 * slopes.pairs"),
        Rule(CONJUGATE, layouts._gram, "conjugated=right.conjugated", "conjugated=left.conjugated"),
        Rule(SIGN, Components.jets, "alpha=self.sign", "alpha=-self.sign"),
        Rule(FACTOR, Components.jets, "alpha=self.sign", "alpha=2 * self.sign"),
        Rule(LOST, Components.log_weights, "log_weights + self._log_det(some)", "log_weights"),
        Rule(SIGN, Components.log_weights, "log_weights + self", "log_weights - self"),
        Rule(WEIGHT, Components.log_weights, "self.weights[some].log()", "self.weights[some]"),
        Rule(UNCENTRED, Components.deviations, "second - second.mean(0)", "second * 0"),
        Rule(FACTOR, Full._log_det, "2 * factor", "factor"),
        Rule(LOST, Full._map, "-(matrix @ c)", "0 * (matrix @ c)"),
        Rule(SIGN, Full._map, "-(matrix @ c)", "(matrix @ c)"),
        Rule(CONJUGATE, Full._real, "precisions.flatten", "precisions.conj().flatten"),
        Rule(LOST, Full._levels, "c.mT @ matrix @ c", "0 * (c.mT @ matrix @ c)"),
        Rule(SIGN, Full._levels, "-(matrix.mT @ c)", "(matrix.mT @ c)"),
        Rule(LOST, Full.forms, "levels + (x.unsqueeze", "(x.unsqueeze"),
        Rule(
            LOST,
            Full.forms,
            "torch.baddbmm(levels.unsqueeze(-2),",
            "torch.baddbmm(0 * levels.unsqueeze(-2),",
        ),
        Rule(LOST, Full.forms, "(offsets.pairs * v)", "(x.unsqueeze(-1) * v)"),
        Rule(TRANSPOSED, Full._second, "[some].mT)", "[some])"),
        Rule(POWER, Diagonal.forms, "offsets.pairs * offsets.slopes", "offsets.slopes.square()"),
        Rule(BATCH, Diagonal._doubled, "repeat_interleave(2, -1)", "repeat(1, 2)"),
        Rule(
            LOST,
            layouts.Offsets.pairs,
            "- self.components.centres_of(self.some)",
            "- 0 * self.components.centres_of(self.some)",
        ),
        Rule(LOST, Mixture._parts, "others, first()", "others[1:], first()"),
        Rule(WEIGHT, Mixture._joined, "torch.softmax(masses, -1)", "torch.softmax(0 * masses, -1)"),
        Rule(
            WEIGHT,
            Mixture._joined,
            "torch.softmax(masses, -1)",
            "torch.softmax(masses, -1).flip(-1)",
        ),
        Rule(LOST, Mixture._joined, "kernel(q_d, q_db,", "kernel(0 * q_d, q_db,"),
        Rule(CONJUGATE, Mixture._joined, "kernel(q_d, q_db,", "kernel(q_d.conj(), q_db,"),
        Rule(
            WEIGHT,
            Mixture._joined,
            "_Block(torch.logsumexp(masses, -1),",
            "_Block(masses.amax(-1),",
        ),
        Rule(LOST, Mixture._joined, "-1), gradient, metric)", "-1), q_d[:, 0], metric)"),
        Rule(WEIGHT, Mixture._block, "torch.logsumexp(logits, -1)", "logits.mean(-1)"),
        Rule(CONJUGATE, Mixture._block, "gradient.tensor()", "gradient.tensor().conj()"),
        Rule(SIGN, Mixture.value, 'self.kind == "potential"', 'self.kind == "density"'),
        Rule(
            LOST,
            Mixture.value,
            "for logits in self._logits(z)",
            "for logits in self._logits(z)[:1]",
        ),
        Rule(BATCH, Mixture._blocks, "range(0, count, size)", "range(0, max(1, count - 1), size)"),
    ),
    "decoders": (
        Rule(FACTOR, Fisher._split, "0.5 * part if heads", "part if heads"),
        Rule(LOST, Fisher._split, "g + dg, dk if k", "g, dk if k"),
        Rule(LOST, Fisher._split, "else k + dk", "else k"),
        Rule(FACTOR, summands.from_mean, "(constant / 2).exp()", "constant.exp()"),
        Rule(FACTOR, summands.from_mean, "2 * sigma", "sigma"),
        Rule(CONJUGATE, summands.from_mean, "mu_d.conj()", "mu_d"),
        Rule(
            REAL,
            summands.from_mean,
            "reduced_real(weight) if real else reduced(weight)",
            "reduced(weight)",
        ),
        Rule(LOST, summands.from_mean, "weight / (constant / 2).exp()[:, None]", "weight"),
        Rule(
            FACTOR,
            summands.from_covariance,
            "math.sqrt(2 / math.sqrt(copies))",
            "math.sqrt(2 / copies)",
        ),
        Rule(FACTOR, summands.from_covariance, "math.sqrt(2 / ", "math.sqrt(1 / "),
        Rule(
            LOST,
            summands.from_covariance,
            'covariance == "scalar" else 1',
            'covariance == "none" else 1',
        ),
        Rule(
            REAL,
            summands.from_covariance,
            "not complementary and hidden.holomorphic",
            "hidden.holomorphic",
        ),
        Rule(CONJUGATE, Fisher._inner, "k[..., 0, 1].real", "k[..., 0, 0].real"),
        Rule(FACTOR, Fisher._inner, "2 * g[..., 0, 1].real", "g[..., 0, 1].real"),
        Rule(CONJUGATE, Fisher._inner, "torch.stack([u, v], -2)", "torch.stack([u, v.conj()], -2)"),
        Rule(
            SIGN, tangents._wirtinger, "torch.stack([a + q, b - p])", "torch.stack([a + q, b + p])"
        ),
        Rule(SIGN, tangents.Tangents.real, "torch.stack([y, -x])", "torch.stack([-y, x])"),
        Rule(FACTOR, tangents.deviation, "mul_(0.5)", "mul_(1.0)"),
        Rule(
            LOST,
            tangents.deviation,
            "torch.add(real_part_product(tangents.value, weight), shift)",
            "real_part_product(tangents.value, weight)",
        ),
        Rule(
            LOST,
            tangents.activated,
            "new = new + rows.flip(0) * crossed",
            "new = new + 0 * crossed",
        ),
        Rule(CONJUGATE, heads.reduced_real, "torch.complex(x, -y)", "torch.complex(x, y)"),
        Rule(CONJUGATE, heads.reduced, "torch.linalg.qr(weight)", "torch.linalg.qr(weight.conj())"),
        Rule(
            CONJUGATE,
            HermitianMetric._covector,
            '"...ab,...a->...b", k, u).conj()',
            '"...ab,...a->...b", k, u)',
        ),
        Rule(FACTOR, HermitianMetric._covector, "return 2 * out", "return out"),
        Rule(CONJUGATE, planes.Weight.gram, "conjugated=True", "conjugated=False"),
        Rule(SIGN, planes.Weight.real_part, "-self.matrix.imag", "self.matrix.imag"),
        Rule(LOST, planes.Image.__matmul__, "out * factor", "out"),
        Rule(SIGN, rows._Scaled.backward, "im * x - re * y", "im * x + re * y"),
    ),
    "real decoders": (
        Rule(LOST, folding.smaller_layer, "rest[0].rsqrt().unsqueeze(-1)", "1"),
        Rule(POWER, folding.smaller_layer, "rsqrt()", "reciprocal()"),
        Rule(TRANSPOSED, folding.smaller_layer, "weight.mT @ weight", "weight @ weight.mT"),
        Rule(FACTOR, folding.Smaller.lacking.fget, "self.outputs - len(self.matrix)", "0"),  # type: ignore[attr-defined]
        Rule(FACTOR, folding.Smaller.lacking.fget, "- len(self.matrix)", ""),  # type: ignore[attr-defined]
        Rule(FACTOR, families.metric_of, "part + lacking *", "part +"),
        Rule(LOST, folding.of_the_variance, "x.new_zeros(*x.shape[:-1], 1)", "x"),
        Rule(LOST, folding.GramRows.__mul__, "self.rows * factor", "self.rows"),
        Rule(LOST, folding.GramRows.__matmul__, "(self.rows @ self.gram)", "self.rows"),
        Rule(FACTOR, folding.GramRows.shape.fget, "self.outputs", "self.rows.shape[-1]"),  # type: ignore[attr-defined]
        Rule(LOST, folding.with_smaller_layer, "if smaller.varies", "if False"),
        Rule(LOST, folding.with_smaller_layer, "@ smaller.matrix.mT", "@ smaller.matrix"),
        Rule(POWER, normal.with_one_variance, "Tensor.square", "Tensor.abs"),
        Rule(LOST, normal.with_one_variance, "[1:]", "[2:]"),
    ),
    "planes": (
        Rule(SIGN, planes.Pairs.__matmul__, "yu - sign * xv", "yu + sign * xv"),
        Rule(CONJUGATE, planes.Pairs.__matmul__, "-im if self.conjugated else im", "im"),
        Rule(SIGN, planes.Pairs.__matmul__, "1 if with_conjugate else -1", "1"),
        Rule(SIGN, rows.gram_parts, "yx - yx.mT", "yx + yx.mT"),
        Rule(LOST, planes._three_products, "xa.add_(yb)", "xa"),
        Rule(SIGN, planes._four_products, "xa - yb", "xa + yb"),
        Rule(
            SIGN,
            planes._real_part_product,
            "real_product(x, a) - real",
            "real_product(x, a) + real",
        ),
        Rule(CONJUGATE, planes.Weight.adjoint_parts, "-b.mT, (a - b).mT", "b.mT, (a + b).mT"),
        Rule(LOST, planes._PairProduct.backward, "- gx + hy)", "- gx)"),
        Rule(
            CONJUGATE,
            planes._RealPartProduct.backward,
            "torch.complex(x, -y)",
            "torch.complex(x, y)",
        ),
    ),
    "volumes": (
        Rule(SIGN, cholesky._inverse_along, "v.unsqueeze(-3)", "-v.unsqueeze(-3)"),
        Rule(LOST, cholesky._scaled, "w[..., None, None] * inverse", "inverse.mT"),
        Rule(FACTOR, elimination.factor_and_pivots, "roots * roots", "roots"),
        Rule(CONJUGATE, elimination._written_out, "u, -v, q, zero", "u, v, q, zero"),
        Rule(SIGN, elimination._written_out, "c - torch.addcmul", "c + torch.addcmul"),
        Rule(CONJUGATE, elimination._batch_last, "column.conj().resolve_conj()", "column"),
        Rule(SIGN, elimination._batch_last, "m.neg_()", "m"),
        Rule(CONJUGATE, elimination._batch_last, "torch.conj_physical(x, out=row)", "row.copy_(x)"),
        Rule(TRANSPOSED, cholesky._LogDet.backward, "_scaled(inverse,", "_scaled(inverse.mT,"),
        Rule(LOST, degeneracy.are_large, "math.e * limit(", "0 * limit("),
        Rule(LOST, degeneracy.are_positive, "pivots > floor", "pivots < torch.inf"),
        Rule(FACTOR, degeneracy.limit, "torch.finfo(dtype).eps", "torch.finfo(dtype).eps ** 2"),
        Rule(SIGN, degeneracy.Closer.log_det, "+ scale", "- scale"),
        Rule(FACTOR, degeneracy.Closer.log_det, "2 * roots", "roots"),
        Rule(LOST, degeneracy.Closer.inverse, "* roots[:, None]", ""),
        Rule(POWER, degeneracy.Closer.inverse, "rsqrt()", "reciprocal()"),
        Rule(POWER, degeneracy.Closer.of, "roots = units.rsqrt()", "roots = units.reciprocal()"),
        Rule(LOST, elimination.eliminated, "out[few] = closer", "out[few] = 0 * closer"),
        Rule(SIGN, elimination.eliminated, "degenerate[few] = ~closer", "degenerate[few] = closer"),
        Rule(
            SIGN, cholesky.factored, "index_put(few, ~closer.sound)", "index_put(few, closer.sound)"
        ),
        Rule(POWER, degeneracy.Closer.factor, ".sqrt()", ""),
    ),
    "products": (
        Rule(FACTOR, families.bent, "a - b / 2", "a - b"),
        Rule(SIGN, families.bent, "a - b / 2", "a + b / 2"),
        Rule(UNCENTRED, families.bent, "x.clone() if", "x if"),
        Rule(LOST, families.lowered, "g[:, 0, 1]", "g[:, 0, 0]"),
        Rule(SIGN, MatrixFree._accelerated, "out = -torch", "out = torch"),
        Rule(LOST, MatrixFree._accelerated, "pushed[name] + turned[name]", "pushed[name]"),
        Rule(LOST, Linearised.product, "self.lower(tangents)", "tangents"),
        Rule(FACTOR, MetricOperator._made, "(g + g.mT) / 2", "g + g.mT"),
    ),
}


@dataclass(frozen=True)
class Noticed:
    """A fault and the first comparison that it failed; none where it lives."""

    rule: Rule
    group: str
    by: str
    runs: bool
    seconds: float

    @property
    def function(self) -> str:
        """What was edited, by module and name."""
        function = plain_function(self.rule.function)
        return f"{function.__module__.removeprefix('kahler_verify.')}.{function.__qualname__}"


def first_difference(group: str, rule: Rule) -> Noticed:
    """Run a group's comparisons with the fault, up to the first that fails.

    Raises:
        EvidenceError: the line to edit does not stand there exactly once.
    """
    started, by, runs = time.perf_counter(), "", True
    with edited(rule):
        try:
            by = next((c.what for c in GROUPS[group]() if not c.passed), "")
        except FAILURES as error:
            by, runs = f"{type(error).__name__}: {error}", False
    return Noticed(rule, group, by, runs, time.perf_counter() - started)
