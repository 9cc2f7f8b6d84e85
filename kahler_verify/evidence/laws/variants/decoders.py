"""Every plan of :class:`FisherMetric` against the plain kernels.

Plans are not listed: all settings that a planner sees are tried, and each kind of plan that its
annotations name has to come up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import get_args, get_type_hints

import torch
from torch import Tensor

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.laws.variants.compared import (
    TOLERANCE,
    PlainMetric,
    beside,
    condition,
    framed,
    gradients,
    numbers,
    relative,
)
from kahler_verify.geometry import fisher
from kahler_verify.geometry.fisher import FisherMetric, Plan
from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.decoder import Decoder

FAMILIES = (
    ("cubic", "complex"),
    ("split_tanh", "complex"),
    ("modulus_sigmoid", "complex"),
    ("split_gelu", "real"),
)


def _decoder(activation: str, likelihood: str, covariance: str, depth: int, wide: int) -> Decoder:
    torch.manual_seed(3)
    family = activation.split("_")[0] if "_" in activation else "holomorphic"
    config = VAEConfig(
        data_dim=wide,
        latent_dim=3,
        hidden=(6,) * depth,
        decoder=family,  # type: ignore[arg-type]
        activation=activation,
        covariance=covariance,  # type: ignore[arg-type]
        likelihood=likelihood,  # type: ignore[arg-type]
    )
    decoder = Decoder(config).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        decoder.scale.fill_(1.3)
    return decoder


@contextmanager
def seeded() -> Iterator[None]:
    """Torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


Setting = tuple[str, str, str, str, bool]  # activation, likelihood, covariance, fold, recorded


def settings() -> Iterator[Setting]:
    """Everything that a planner sees."""
    folds, recorded = get_args(fisher.Fold), (False, True)
    covariances = get_args(get_type_hints(VAEConfig)["covariance"])
    for (activation, likelihood), *rest in product(FAMILIES, covariances, folds, recorded):
        yield (activation, likelihood, *rest)


def plans_chosen() -> dict[tuple[str, str, str], int]:
    """Each (route, mean, covariance) that the planner chose, and how often, over all settings.

    Raises:
        EvidenceError: a kind that :class:`Plan` names was never chosen.
    """
    chosen: dict[tuple[str, str, str], int] = {}
    with seeded():
        for setting in settings():
            for complementary in (False, True):
                plan = fisher_metric(setting)[1].plan(7, complementary=complementary)
                key = plan.route, plan.mean, plan.covariance
                chosen[key] = chosen.get(key, 0) + 1
        opaque = FisherMetric(lambda z: z, check=False).plan()
        chosen[opaque.route, opaque.mean, opaque.covariance] = 1
    hints = get_type_hints(Plan)
    for place, name in enumerate(("route", "mean", "covariance")):
        unseen = set(get_args(hints[name])) - {key[place] for key in chosen}
        if unseen:
            raise EvidenceError(f"plans: {name} {sorted(unseen)} came up in no setting")
    return chosen


def fisher_metric(setting: Setting, *, budget: int = 2**29) -> tuple[Decoder, FisherMetric]:
    """A setting's decoder and its metric."""
    activation, likelihood, covariance, fold, recorded = setting
    decoder = _decoder(activation, likelihood, covariance, 2, 17).requires_grad_(recorded)
    metric = FisherMetric(decoder, fold=fold, memory_budget=budget)  # type: ignore[arg-type]
    return decoder, metric


def decoders() -> Iterator[Finding]:
    """Every plan, with both parts or g alone, recorded or not, in chunks or not, along vectors."""
    plans_chosen()
    with seeded():
        for setting in settings():
            for budget in (2**29, 1) if setting[3:] == ("auto", False) else (2**29,):
                yield from _decoder_compared(setting, budget)


def _decoder_compared(setting: Setting, budget: int) -> Iterator[Finding]:
    decoder, metric = fisher_metric(setting, budget=budget)
    recorded = setting[-1]
    z = 0.5 * numbers(5, 3, seed=6)
    u, v = numbers(2, 5, 3, seed=7)
    plan = metric.plan(len(z))
    name = f"{setting[0]}, {setting[1]}, {setting[2]} Σ, fold {setting[3]}"
    name += f" ({plan.mean}, {plan.covariance}{', chunked' if budget == 1 else ''})"

    def parts(z: Tensor) -> tuple[Tensor, Tensor | None]:
        out, flat, factor = metric._evaluate("fisher_metric", z, 1)
        return (factor * out, None) if flat else (factor * out[0], factor * out[1])

    plain = PlainMetric(parts)
    g, k = plain.metric_matrix(z).detach(), plain.complementary_part(z).detach()
    yield beside(f"{name}: metric_matrix", framed(metric.metric_matrix(z), g, g))
    yield beside(f"{name}: g of both", framed(metric._parts(z)[0], g, g))
    yield beside(f"{name}: complementary_part", framed(metric.complementary_part(z), k, g))
    bound = TOLERANCE * condition(plain.real_metric_matrix(z).detach())
    inner = plain.inner_product(u, v, z)
    yield beside(f"{name}: inner_product", relative(metric.inner_product(u, v, z), inner))
    covector = plain.metric_vector_product(u, z)
    for threshold in (1, 99):
        with _threshold(threshold):
            got = metric.metric_vector_product(u, z)
        yield beside(f"{name}: metric_vector_product", relative(got, covector))
    for quantity in ("log_volume", "log_det_hermitian"):
        of = z.clone().requires_grad_()
        leaves = [of, *[p for p in decoder.parameters() if recorded and p.requires_grad]]
        got, truth = getattr(metric, quantity)(of), getattr(plain, quantity)(of)
        yield beside(f"{name}: {quantity}", float((got - truth).detach().abs().max()), bound)
        found, true = gradients(got, leaves), gradients(truth, leaves)
        size = max(float(t.abs().max()) for t in true)
        for n, (x, y) in enumerate(zip(found, true, strict=True)):
            error = float((x - y).abs().max()) / size
            yield beside(f"{name}: ∂ {quantity} by {'weights' if n else 'z'}", error, bound)


@contextmanager
def _threshold(d: int) -> Iterator[None]:
    """Products with a vector go through two tangents from this d on."""
    before, fisher.COVECTOR_FROM = fisher.COVECTOR_FROM, d
    try:
        yield
    finally:
        fisher.COVECTOR_FROM = before
