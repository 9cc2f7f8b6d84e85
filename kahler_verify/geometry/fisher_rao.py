"""The Fisher-Rao metric of a decoder at real latents, of any registered likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp

from kahler_verify.adapters import Output, adapted, described
from kahler_verify.errors import InputError
from kahler_verify.geometry.base import MEMORY_BUDGET, MetricJet
from kahler_verify.geometry.each_point import require_each_point_alone
from kahler_verify.geometry.families import bent, lowered, metric_of, plain
from kahler_verify.geometry.folding import (
    GramRows,
    Smaller,
    smaller_layer,
    with_smaller_layer,
)
from kahler_verify.geometry.latent_shapes import dimension_of, keeps_latent_shape, represented
from kahler_verify.geometry.linearised import LawAt
from kahler_verify.geometry.matrix_free import MatrixFreeMetric
from kahler_verify.geometry.plans import FOLD_RATIO, Fold, require_fold
from kahler_verify.geometry.traced import Compile, Program, program_for, require_compile
from kahler_verify.jets import propagate
from kahler_verify.jets.domain import all_finite, nowhere
from kahler_verify.jets.gaussian_outputs import at_least_one, explained, require_decoder
from kahler_verify.jets.kinks import never_smooth, require_twice_differentiable
from kahler_verify.likelihoods import Fields, Likelihood, fields_of
from kahler_verify.linear_algebra.kept import ReducedHeads, is_recorded
from kahler_verify.linear_algebra.products import is_transformed
from kahler_verify.running.parameters import moved_module
from kahler_verify.torch_state import alone, without_validation

# On a CPU, tangents that leave its caches make convolutions up to twice as slow.
TANGENTS_AT_ONCE = 1024
# Of a compiled program for batches, which wants one size: points, and tangents.
PROGRAM_POINTS, PROGRAM_TANGENTS = 64, 2048


@keeps_latent_shape
class FisherRaoMetric(MatrixFreeMetric):
    """g_ab = E[∂_a log p(x|z) ∂_b log p(x|z)], the Hessian of KL(p_z ‖ ·) at z.

    Args:
        decoder: a module or function from z [B, d] real to a tensor (the mean of a Gaussian of unit
            variance: the pull-back JᵀJ), to a pair (mean, log variance), or to a torch
            distribution of a registered family; see :mod:`kahler_verify.likelihoods`.  Whole models
            of diffusers, pythae and Lightning are taken too, compiled ones, and such with weights
            in half precision; see :mod:`kahler_verify.adapters`.
        dimension: d; None where any will do.
        check: compare a few points in a batch with each of them, once; derivatives by autograd are
            checked in any case, see :mod:`kahler_verify.jets`.
        validate_args: see :class:`Metric`.
        memory_budget: see :class:`Metric`.
        fold: replace the last linear layer of a Gaussian's mean, where Σ is constant or one number
            for all outputs, by a smaller one with the same metric: where it pays ("auto"), wherever
            possible, or never; see :mod:`kahler_verify.geometry.folding`.
        fold_ratio: "auto" does with at least this many times as many outputs as hidden features.
        output: which of several tensors the decoder returns, and of which law; a name, an index, a
            function or an :class:`kahler_verify.adapters.Output`.
        latent_shape: of one latent, where that is no row, such as (4, 32, 32): points and vectors
            may then be given so, and vectors are returned so.
        compile: compute g by a compiled program, at single points and, where the decoder has no
            convolutions, in batches of 64; "frozen" with less care for changed weights, see
            :class:`FisherMetric`.  The first call of each takes seconds.

    Raises:
        InputError: ``decoder`` is not callable (or with ``compile`` no module), or an argument is
            malformed; later, where a point's law depends on other points.

    Source: Arvanitidis et al., arXiv 2106.05367; derived in
    derivations/likelihoods/.
    """

    def __init__(
        self,
        decoder: Callable[[Tensor], Any],
        dimension: int | None = None,
        *,
        check: bool = True,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
        fold: Fold = "auto",
        fold_ratio: float = FOLD_RATIO,
        output: Output | str | int | Callable[[Any], Any] | None = None,
        latent_shape: tuple[int, ...] | None = None,
        compile: Compile = False,  # noqa: A002 - as in torch
    ):
        decoder = adapted(decoder, output, latent_shape)
        self.latent_shape = getattr(decoder, "latent_shape", None)
        dimension = dimension_of(self.latent_shape, dimension)
        super().__init__(dimension, validate_args=validate_args, memory_budget=memory_budget)
        require_decoder(decoder)
        require_fold(fold, fold_ratio)
        require_compile(compile, decoder)
        self.compile = compile
        self.decoder = decoder
        self.fold = fold
        self.fold_ratio = fold_ratio
        self._unchecked = self._smoothness_unchecked = check
        self._outputs = 0
        self._layers = ReducedHeads()
        self._traceable = True  # as far as is known, in batches
        self._met: list[str] = []  # on the way through the decoder: kinks, calls without a rule

    def __repr__(self) -> str:
        return represented(self, described(self.decoder), self._met)

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:
        self.decoder = moved_module("decoder", self.decoder, move)

    def forget_heads(self) -> None:
        """Drop what is kept of weights, to free its memory."""
        self._layers.forget()
        self._traceable = True

    def _width(self) -> int:
        return self._outputs

    def _points_at_once(self, z: Tensor, order: int) -> int:
        if self._outputs == 0:
            with torch.no_grad(), without_validation():
                # one point twice, as a normalisation over the batch would not take one
                fields = self._fields(at_least_one(z)[:1].expand(2, -1))
            self._outputs = max(x[0].numel() for x in fields.letters.values())
        fitting = super()._points_at_once(z, order)
        if order or z.is_cuda:
            return fitting
        count = math.prod(z.shape[:-1])
        size = self._program_points(z) if count > 1 else 0
        if 0 < size <= fitting and 2 * count > size:
            return size
        return min(fitting, max(1, TANGENTS_AT_ONCE // z.shape[-1]))

    def _program_points(self, z: Tensor) -> int:
        """How many a compiled program for batches takes; 0 where there is none.

        Convolutions are faster without, by more ways than the compiler has.
        """
        if not (self.compile and isinstance(self.decoder, nn.Module) and self._traceable):
            return 0
        if self._follows(z) or any(
            isinstance(x, nn.modules.conv._ConvNd) for x in self.decoder.modules()
        ):
            return 0
        return max(1, min(PROGRAM_POINTS, PROGRAM_TANGENTS // z.shape[-1]))

    def _follows(self, z: Tensor) -> bool:
        """Does autograd or a transform?"""
        assert isinstance(self.decoder, nn.Module)
        return is_recorded([z, *self.decoder.parameters()])

    def _fields(self, z: Tensor) -> Fields:
        with explained(self.decoder, z):
            return fields_of(self.decoder(z), len(z))

    def _parameters(self, z: Tensor) -> Tensor:
        """All that the law depends on, as [B, n]."""
        letters = self._fields(z).letters.values()
        return torch.cat([x[:, None].flatten(1) for x in letters], -1)

    def _kinks(self, z: Tensor) -> list[tuple[str, int]]:
        """See :meth:`RiemannianMetric._kinks`."""
        return never_smooth(self._parameters, z, self.decoder)

    def _require_smooth(self, z: Tensor) -> None:
        if self._smoothness_unchecked:
            require_twice_differentiable(self._parameters, z, self.decoder)
            self._smoothness_unchecked = False

    def _fields_jets(
        self, z: Tensor, order: int, fold: Fold, directions: Tensor | None = None
    ) -> tuple[Fields, dict[str, Any], int]:
        """The fields at z [B, d], and derivatives by the kernels' names: ∂_a∂_c μ is ``mu_dd``.

        Both are of a Gaussian with the same metric where a smaller last layer takes the place of
        the mean's, but for that of so many outputs without a mean.  First derivatives may be along
        directions [B, r, d] in place of the coordinates'.
        """
        found: list[Fields] = []
        smaller: Smaller | None = None

        def letters(z: Tensor) -> dict[str, Tensor]:
            nonlocal smaller
            fields = self._fields(z)
            if not found:
                smaller = smaller_layer(fields, self._layers, fold, self.fold_ratio, order - 1)
            found.append(fields if smaller is None else with_smaller_layer(fields, smaller))
            return found[-1].letters

        def highest(z: Tensor) -> dict[str, Tensor]:
            return {name: x.dd for name, x in propagate(letters, z, 2).items()}

        jets = propagate(letters, z, min(order, 2), directions)
        self._met = next(iter(jets.values())).record.lines()
        tensors: dict[str, Any] = {}
        for name, jet in jets.items():
            tensors[f"{name}_d"] = jet.d
            if order > 1:
                tensors[f"{name}_dd"] = jet.dd
        if order > 2:
            axes = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
            with alone():  # forward-mode levels belong to the process
                slopes = [jvp(highest, (z,), (axis.expand_as(z),))[1] for axis in axes]
            for name in jets:
                tensors[f"{name}_ddd"] = torch.stack([slope[name] for slope in slopes], 1)
        if smaller is not None and smaller.gram:
            tensors["mu_d"] = GramRows(jets["mu"].d, smaller.matrix, smaller.outputs)
        family, _, constants = found[0]
        values = {name: jet.value for name, jet in jets.items()}
        lacking = 0 if smaller is None else smaller.lacking
        return Fields(family, values, plain(constants, family)), tensors, lacking

    def jet(self, z: Tensor, order: int) -> MetricJet:
        """See :meth:`Metric.jet`."""
        g = self._by_program(z) if self.compile and order == 0 and not self._unchecked else None
        return self._jet(z, order) if g is None else MetricJet(g)

    def _by_program(self, z: Tensor) -> Tensor | None:
        """G by a compiled program, at one point or at about as many as a batch of it has."""
        if len(z) == 1:
            return self._compiled(z)
        count, size = len(z), self._program_points(z)
        if not count <= size < 2 * count:
            return None
        rest = z[-1:].expand(size - count, -1)
        g = self._compiled(torch.cat([z, rest]) if count < size else z)
        return None if g is None else g[:count]

    def _compiled(self, z: Tensor) -> Tensor | None:
        """G by a program, or None where only the plain way, or its message, will do."""
        fold, fold_ratio = self.fold, self.fold_ratio

        def compute(decoder: Any) -> Program:
            metric = FisherRaoMetric(
                decoder, check=False, validate_args=False, fold=fold, fold_ratio=fold_ratio
            )

            def g(z: Tensor) -> tuple[Tensor, Tensor]:
                found = metric._fields_jets(z, 1, fold)
                sound = [x.all() for x in _in_domain(found[0])]
                fields, derivatives, lacking = found
                g = metric_of(fields, derivatives, lacking=lacking).g
                return g, torch.stack(sound).all()

            return g

        program = program_for(
            ("g", fold, fold_ratio),
            z,
            self.decoder,  # type: ignore[arg-type]
            self._layers,
            compute,
            compile=self.compile,
        )
        if program is None:
            if len(z) > 1 and not self._follows(z):
                self._traceable = False
            return None
        with torch.no_grad():
            out, sound = program(z)
        return out if bool(sound) else None

    def _inner(self, u: Tensor, v: Tensor, z: Tensor) -> Tensor:
        """Along u and v alone, where d > 2."""
        if z.shape[-1] <= 2:
            return super()._inner(u, v, z)
        return self._jet(z, 0, torch.stack([u, v], 1)).g[:, 0, 1]

    def _jet(self, z: Tensor, order: int, directions: Tensor | None = None) -> MetricJet:
        fields, derivatives, lacking = self._fields_jets(z, order + 1, self.fold, directions)
        self._check_fields(z, fields)
        if self._unchecked and not is_transformed(z):
            require_each_point_alone("decoder", self._letters_of(fields.family), z)
            self._unchecked = False
        found = metric_of(fields, derivatives, order, lacking=lacking)
        return found._replace(g=nowhere(found.g, fields.letters.values()))

    def _letters(self, z: Tensor) -> dict[str, Tensor]:
        return dict(self._fields(z).letters)

    def _law(self, z: Tensor) -> LawAt:
        fields = self._fields(z)
        if not is_transformed(z):
            self._check_fields(z, fields)
        fields = fields._replace(constants=plain(fields.constants, fields.family))

        def gram(rows: Mapping[str, Tensor]) -> Tensor:
            return metric_of(fields, {f"{name}_d": x for name, x in rows.items()}).g

        flat = fields.family.independent_gaussian
        return LawAt(partial(lowered, fields), partial(bent, fields), gram, flat)

    def _chords(self, z: Tensor) -> Tensor:
        fields = self._fields(z)
        half = {name: (x[1:] + x[:-1]) / 2 for name, x in fields.letters.items()}
        chords = {f"{name}_d": x.diff(dim=0)[:, None] for name, x in fields.letters.items()}
        constants = {name: x[1:] for name, x in plain(fields.constants, fields.family).items()}
        return metric_of(Fields(fields.family, half, constants), chords).g[:, 0, 0]

    def _check_fields(self, z: Tensor, fields: Fields) -> None:
        if not self.validate_args:
            return
        for name, x in fields.letters.items():
            if not is_transformed(x) and not all_finite(x):
                if not all_finite(z):
                    raise InputError("z: expected finite values, but z has NaN or infinities")
                raise InputError(
                    f"decoder: expected finite parameters, but {name} of the {fields.family.name} "
                    "likelihood has NaN or infinities (a probability of 0 or 1, a rate or a "
                    "variance of 0, or z far out?)"
                )
        for name, x in {**fields.letters, **fields.constants}.items():
            if name in fields.family.positive and not is_transformed(x) and not bool((x > 0).all()):
                raise InputError(
                    f"decoder: expected a positive {name} of the {fields.family.name} likelihood, "
                    f"got {x.min().item():.3g}, of which there is no law (a variance or a rate "
                    "of 0?)"
                )

    def _letters_of(self, family: Likelihood) -> Callable[[Tensor], list[Tensor]]:
        """The letters of the law at z, which has to be of this family."""

        def letters(z: Tensor) -> list[Tensor]:
            fields = self._fields(z)
            if fields.family.name != family.name:
                raise InputError(
                    "decoder: expected each point alone to have a law, of the same family at all, "
                    f"got a {family.name} and a {fields.family.name} likelihood at others"
                )
            return list(fields.letters.values())

        return letters


def _in_domain(fields: Fields) -> list[Tensor]:
    """Where parameters are those of a law."""
    out = [torch.isfinite(x) for x in fields.letters.values()]
    everything = {**fields.letters, **fields.constants}
    return out + [everything[name] > 0 for name in fields.family.positive if name in everything]
