"""The Fisher-Rao metric of a decoder at real latents, of any registered likelihood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
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
from kahler_verify.geometry.matrix_free import LawAt, MatrixFreeMetric
from kahler_verify.geometry.plans import FOLD_RATIO, Fold, require_fold
from kahler_verify.jets import propagate
from kahler_verify.jets.gaussian_outputs import at_least_one, explained, require_decoder
from kahler_verify.likelihoods import Fields, fields_of
from kahler_verify.linear_algebra.kept import ReducedHeads
from kahler_verify.linear_algebra.products import is_transformed
from kahler_verify.running.parameters import moved_module
from kahler_verify.torch_state import alone

# On a CPU, tangents that leave its caches make convolutions up to twice as slow.
TANGENTS_AT_ONCE = 1024


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
        fold: replace the last linear layer of a Gaussian's mean, where Σ is constant, by a smaller
            one with the same metric: where it pays ("auto"), wherever possible, or never; see
            :mod:`kahler_verify.geometry.folding`.
        fold_ratio: "auto" does with at least this many times as many outputs as hidden features.
        output: which of several tensors the decoder returns, and of which law; a name, an index, a
            function or an :class:`kahler_verify.adapters.Output`.
        latent_shape: of one latent, where that is no row, such as (4, 32, 32): points and vectors
            may then be given so, and vectors are returned so.

    Raises:
        InputError: ``decoder`` is not callable, or an argument is malformed; later, where a point's
            law depends on other points.

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
    ):
        decoder = adapted(decoder, output, latent_shape)
        self.latent_shape = getattr(decoder, "latent_shape", None)
        dimension = dimension_of(self.latent_shape, dimension)
        super().__init__(dimension, validate_args=validate_args, memory_budget=memory_budget)
        require_decoder(decoder)
        require_fold(fold, fold_ratio)
        self.decoder = decoder
        self.fold = fold
        self.fold_ratio = fold_ratio
        self._unchecked = check
        self._outputs = 0
        self._layers = ReducedHeads()
        self._met: list[str] = []  # on the way through the decoder: kinks, calls without a rule

    def __repr__(self) -> str:
        return represented(self, described(self.decoder), self._met)

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:
        self.decoder = moved_module("decoder", self.decoder, move)

    def forget_heads(self) -> None:
        """Drop what is kept of weights, to free its memory."""
        self._layers.forget()

    def _width(self) -> int:
        return self._outputs

    def _points_at_once(self, z: Tensor, order: int) -> int:
        if self._outputs == 0:
            with torch.no_grad():
                # one point twice, as a normalisation over the batch would not take one
                fields, _ = self._fields_jets(at_least_one(z)[:1].expand(2, -1), 1, "never")
            self._outputs = max(x[0].numel() for x in fields.letters.values())
        fitting = super()._points_at_once(z, order)
        if order or z.is_cuda:
            return fitting
        return min(fitting, max(1, TANGENTS_AT_ONCE // z.shape[-1]))

    def _fields(self, z: Tensor) -> Fields:
        with explained(self.decoder, z):
            return fields_of(self.decoder(z), len(z))

    def _fields_jets(self, z: Tensor, order: int, fold: Fold) -> tuple[Fields, dict[str, Any]]:
        """The fields at z [B, d], and derivatives by the kernels' names: ∂_a∂_c μ is ``mu_dd``.

        Both are of a Gaussian with the same metric where a smaller last layer takes the place of
        the mean's.
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

        jets = propagate(letters, z, min(order, 2))
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
            tensors["mu_d"] = GramRows(jets["mu"].d, smaller.matrix)
        family, _, constants = found[0]
        values = {name: jet.value for name, jet in jets.items()}
        return Fields(family, values, plain(constants, family)), tensors

    def jet(self, z: Tensor, order: int) -> MetricJet:
        """See :meth:`Metric.jet`."""
        fields, derivatives = self._fields_jets(z, order + 1, self.fold)
        self._check_fields(z, fields)
        if self._unchecked and not is_transformed(z):
            require_each_point_alone("decoder", lambda z: list(self._fields(z).letters.values()), z)
            self._unchecked = False
        return metric_of(fields, derivatives, order)

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
            if not is_transformed(x) and not bool(torch.isfinite(x).all()):
                if not bool(torch.isfinite(z).all()):
                    raise InputError("z: expected finite values, but z has NaN or infinities")
                raise InputError(
                    f"decoder: expected finite parameters, but {name} of the {fields.family.name} "
                    "likelihood has NaN or infinities (a probability of 0 or 1, a rate or a "
                    "variance of 0, or z far out?)"
                )
