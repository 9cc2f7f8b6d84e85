"""Every fold of :class:`FisherRaoMetric` against the plain kernels of the whole last layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, LogNormal, Normal

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.laws.variants.compared import (
    TOLERANCE,
    beside,
    condition,
    gradients,
    relative,
)
from kahler_verify.evidence.laws.variants.decoders import seeded
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.geometry.folding import smaller_layer
from kahler_verify.jets import propagate
from kahler_verify.linear_algebra.kept import ReducedHeads

Law = Callable[[Tensor, Tensor], Any]  # of a mean [B, D] and a log variance that broadcasts to it
LAWS: Mapping[str, tuple[str, Law]] = {  # and what the log variance is
    "a tensor": ("zero", lambda mean, _: mean),
    "a pair with constant Σ": ("constant", lambda mean, v: (mean, v.expand_as(mean))),
    "a Normal with constant Σ": ("constant", lambda mean, v: Normal(mean, (v / 2).exp())),
    "a Normal with one number": ("one number", lambda mean, v: Normal(mean, (v / 2).exp())),
    "a pair with scalar Σ": ("scalar", lambda mean, v: (mean, v[:, 0])),
    "a Normal with scalar Σ": (
        "scalar",
        lambda mean, v: Independent(Normal(mean, (v / 2).exp()), 1),
    ),
    "a LogNormal with scalar Σ": ("scalar", lambda mean, v: LogNormal(mean, (v / 2).exp())),
    "a Normal with diagonal Σ": ("diagonal", lambda mean, v: Normal(mean, (v / 2).exp())),
}
SIZES = ((2, 6, 17), (3, 9, 5))  # d, h, D
FOLDS = ("auto", "always")
Setting = tuple[str, tuple[int, int, int], str, bool]  # law, sizes, fold, recorded


class _Decoder(nn.Module):
    """Two layers, with a linear last one for the mean and one output for the log variance.

    ``plain`` lets it return a mean and all D log variances, in which nothing can be told apart.
    """

    def __init__(self, law: str, d: int, h: int, D: int):
        super().__init__()
        self.kind, self.law = LAWS[law]
        self.plain = False
        self.hidden = nn.Sequential(nn.Linear(d, h), nn.Tanh(), nn.Linear(h, h), nn.Tanh())
        self.mean, self.log_variance = nn.Linear(h, D), nn.Linear(h, 1)
        self.constant = nn.Parameter(0.3 * torch.randn(D))

    def forward(self, z: Tensor) -> Any:
        """[B, d] to the law of x."""
        h = self.hidden(z)
        mean = self.mean(h)
        log_variance = {
            "zero": torch.zeros(1, dtype=self.constant.dtype),
            "constant": self.constant,
            "one number": self.constant[:1],
            "scalar": self.log_variance(h),
            "diagonal": self.constant + self.log_variance(h),
        }[self.kind]
        if self.plain:
            return mean, log_variance.expand_as(mean) + torch.zeros_like(self.constant)
        return self.law(mean, log_variance)


def settings() -> Iterator[Setting]:
    """Everything that a fold depends on."""
    yield from product(LAWS, SIZES, FOLDS, (False, True))


def real_decoders() -> Iterator[Finding]:
    """Metric and derivatives for every setting, and gradients of the volume.

    Raises:
        EvidenceError: a kind of fold came up in no setting.
    """
    seen = set()
    with seeded():
        for setting in settings():
            fold, found = _compared(setting)
            seen.add(fold)
            yield from found
    kinds = {None, *product(("triangle", "gram"), ("constant", "varying"))}
    if kinds - seen:
        raise EvidenceError(f"folds: {kinds - seen} came up in no setting")


Kind = tuple[str, str] | None


def _compared(setting: Setting) -> tuple[Kind, list[Finding]]:
    law, (d, h, D), fold, recorded = setting
    torch.manual_seed(4)
    decoder = _Decoder(law, d, h, D).double().requires_grad_(recorded)
    whole = copy.copy(decoder)  # of the same weights
    whole.plain = True
    z = torch.randn(5, d, dtype=torch.float64)
    folded = FisherRaoMetric(decoder, fold=fold)  # type: ignore[arg-type]
    plain = FisherRaoMetric(whole, fold="never")
    kind = _kind(folded, z)
    how = "whole" if kind is None else kind[0]
    name = f"{law}, D = {D}, h = {h}, {'recorded, ' if recorded else ''}fold {fold} ({how})"
    rows = []
    for order in range(3):
        pairs = zip(folded.jet(z, order), plain.jet(z, order), strict=True)
        errors = [relative(x, y) for x, y in pairs if x is not None and y is not None]
        rows.append(beside(f"{name}: derivatives of g to order {order}", max(errors)))
    of = z.clone().requires_grad_()
    leaves = [of, *[p for p in decoder.parameters() if recorded]]
    got, truth = folded.log_volume(of), plain.log_volume(of)
    bound = TOLERANCE * condition(plain.metric_matrix(z).detach())
    rows.append(beside(f"{name}: log_volume", float((got - truth).detach().abs().max()), bound))
    found, true = gradients(got, leaves), gradients(truth, leaves)
    size = max(float(t.abs().max()) for t in true)
    for n, (x, y) in enumerate(zip(found, true, strict=True)):
        error = float((x - y).abs().max()) / size
        rows.append(beside(f"{name}: ∂ log_volume by {'weights' if n else 'z'}", error, bound))
    return kind, rows


def _kind(metric: FisherRaoMetric, z: Tensor) -> Kind:
    """What takes the place of the last layer: which matrix, and whether Σ varies."""
    kinds: list[Kind] = []

    def letters(z: Tensor) -> dict[str, Tensor]:
        fields = metric._fields(z)
        smaller = smaller_layer(fields, ReducedHeads(), metric.fold, metric.fold_ratio, 0)
        if smaller is None:
            kinds.append(None)
        else:
            matrix = "gram" if smaller.gram else "triangle"
            kinds.append((matrix, "varying" if smaller.varies else "constant"))
        return fields.letters

    propagate(letters, z)
    return kinds[0]
