"""What runs against the kernels that it is made from: every layout, every plan, every product.

Geometry does not always hand plain complex tensors to a kernel.  A mixture's kernels run on layouts
and join blocks; a decoder's run on real planes, on reduced heads or on Gram matrices, and on the
mean's and the covariance's part apart.  Here each of these runs beside the plain kernel, which the
proofs are about, and has to agree with it to 1e-12 in float64, in the frame where g has unit
diagonal; gradients, which take g⁻¹, to 1e-12 cond(g).

Plans of :class:`FisherMetric` are not listed: all settings that a planner sees are tried, and each
kind of plan that its annotations name has to come up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from kahler_verify.errors import EvidenceError
from kahler_verify.geometry import fisher
from kahler_verify.geometry.fisher import FisherMetric, Plan
from kahler_verify.geometry.metric import PartwiseMetric
from kahler_verify.geometry.mixture import MixtureMetric
from kahler_verify.kernels import gaussian_kl, hermitian_geometry
from kahler_verify.linear_algebra import cholesky, elimination
from kahler_verify.linear_algebra.planes import (
    Image,
    Pairs,
    Weight,
    pair_product,
    planes_of,
    real_part_product,
)
from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.decoder import Decoder
from kahler_verify.running.kernel_set import KernelSet

__all__ = ["GROUPS", "Compared", "compared", "plans_chosen"]

C, R = torch.complex128, torch.float64
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Compared:
    """A variant beside its kernel: what was compared, the error, and what it may be."""

    what: str
    error: float
    bound: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether the error is within its bound; NaN is not."""
        return self.error <= self.bound


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=C, generator=torch.Generator().manual_seed(seed))


def _relative(got: Tensor, truth: Tensor) -> float:
    """The largest error, relative to the largest entry."""
    if got.shape != truth.shape:
        return math.inf
    error = (got - truth).detach().abs().max()
    return float(error / truth.detach().abs().max().clamp_min(1e-300))


def _framed(got: Tensor, truth: Tensor, g: Tensor) -> float:
    """The largest error of covariant tensors [..., d, d] or [..., d], each index by √g_aa."""
    if got.shape != truth.shape:
        return math.inf
    norm = g.diagonal(dim1=-2, dim2=-1).real.sqrt()
    error = (got - truth).detach().abs() / norm.unsqueeze(-2)
    return float((error / norm.unsqueeze(-1) if got.ndim == g.ndim else error[..., 0, :]).max())


def _condition(g: Tensor) -> float:
    norm = g.diagonal(dim1=-2, dim2=-1).real.sqrt()
    return float(torch.linalg.cond(g / norm.unsqueeze(-1) / norm.unsqueeze(-2)).max())


def _gradients(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


class _Plain(PartwiseMetric):
    """A metric from its parts as plain kernels give them."""

    def __init__(self, parts: Callable[[Tensor], tuple[Tensor, Tensor | None]]):
        super().__init__()
        self.parts = parts

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.parts(z)

    def _metric_d(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    _metric_db = _metric_d


# ------------------------------------------------------------------ mixtures


def _mixture(count: int, d: int, kind: str, diagonal: bool, budget: int) -> MixtureMetric:
    """Near centres, so that a density's metric is positive; the leaves are recorded."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(count, dtype=R, generator=generator) + 0.1
    root = _numbers(count, d, d, seed=2) / (2 * d) ** 0.5
    precisions = root @ root.mH + 0.5 * torch.eye(d)
    if diagonal:
        precisions = precisions.diagonal(dim1=-2, dim2=-1).real.contiguous()
    return MixtureMetric(
        (weights / weights.sum()),
        0.3 * _numbers(count, d, seed=3),
        precisions,
        kind=kind,  # type: ignore[arg-type]
        memory_budget=budget,
        validate_args=False,
    )


def _plain_jets(metric: MixtureMetric, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and jets of all components at z [b, d], by the kernels of ``quadratic_form``."""
    form, p = KernelSet("quadratic_form"), metric.precisions
    full = p if p.is_complex() else torch.diag_embed(p).to(C)
    inputs = {"z": z.unsqueeze(-2), "centre": metric.centres, "precision": full}
    value = form.call("value", inputs).real
    logits = metric.weights.log() + value
    if metric.kind == "density":
        logits = metric.weights.log() + torch.linalg.slogdet(full)[1] - value
    jets = {"q_d": form.call("gradient", inputs), "q_db": form.call("metric", inputs)}
    return logits, {**jets, "w": torch.softmax(logits, -1).to(C)}


def mixtures() -> Iterator[Compared]:
    """Layouts, products and blocks of mixtures against the kernels on plain tensors."""
    sizes = ((5, 3, 2**29), (5, 3, 1), (70, 2, 2**29), (70, 2, 200_000))
    for kind, diagonal, (count, d, budget) in product(
        ("potential", "density"), (False, True), sizes
    ):
        metric = _mixture(count, d, kind, diagonal, budget)
        blocks = len(metric._blocks())
        name = f"{kind}, {'diagonal' if diagonal else 'full'}, K = {count} in {blocks} blocks"
        if (blocks > 1) != (budget < 2**29):
            raise EvidenceError(f"{name}: a small budget makes several blocks, a large one makes 1")
        yield from _mixture_compared(metric, name)


def _mixture_compared(metric: MixtureMetric, name: str) -> Iterator[Compared]:
    kernels, d = KernelSet(f"mixture_{metric.kind}"), metric.centres.shape[-1]
    z = 0.3 * _numbers(4, d, seed=4)
    logits, jets = _plain_jets(metric, z)
    g = kernels.call("metric", jets)
    sign = 1 if metric.kind == "potential" else -1
    yield Compared(f"{name}: metric_matrix", _framed(metric.metric_matrix(z), g, g))
    value = sign * torch.logsumexp(logits, -1)
    yield Compared(f"{name}: value", _relative(metric.value(z), value))
    yield Compared(
        f"{name}: responsibilities", _relative(metric.responsibilities(z), jets["w"].real)
    )
    for kernel in ("metric_d", "metric_db"):
        truth = kernels.call(kernel, jets)
        got = getattr(metric, f"_{kernel}")(z)
        yield Compared(f"{name}: {kernel}", _relative(got, truth))
    u = _numbers(4, d, seed=5)
    plain = _Plain(lambda z: (kernels.call("metric", _plain_jets(metric, z)[1]), None))
    covector = plain.metric_vector_product(u, z)
    got = metric.metric_vector_product(u, z)
    yield Compared(f"{name}: metric_vector_product", _relative(got, covector))
    leaves = [z, metric.centres, metric.precisions, metric.weights]
    for leaf in leaves:
        leaf.requires_grad_()
    truths = _gradients(plain.log_volume(z), leaves)
    founds = _gradients(metric.log_volume(z), leaves)
    bound = TOLERANCE * _condition(g)
    names = ("z", "centres", "precisions", "weights")
    for of, got, truth in zip(names, founds, truths, strict=True):
        if of == "precisions" and got.is_complex():  # along Hermitian matrices, as they must stay
            got, truth = got + got.mH, truth + truth.mH
        yield Compared(f"{name}: ∂ log_volume by {of}", _relative(got, truth), bound)


# ------------------------------------------------------------------ decoders

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
def _seeded() -> Iterator[None]:
    """Torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        yield


Setting = tuple[str, str, str, str, bool]  # activation, likelihood, covariance, fold, recorded


def _settings() -> Iterator[Setting]:
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
    with _seeded():
        for setting in _settings():
            for complementary in (False, True):
                plan = _metric_of(setting)[1].plan(7, complementary=complementary)
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


def _metric_of(setting: Setting, *, budget: int = 2**29) -> tuple[Decoder, FisherMetric]:
    activation, likelihood, covariance, fold, recorded = setting
    decoder = _decoder(activation, likelihood, covariance, 2, 17).requires_grad_(recorded)
    metric = FisherMetric(decoder, fold=fold, memory_budget=budget)  # type: ignore[arg-type]
    return decoder, metric


def decoders() -> Iterator[Compared]:
    """Every plan, with both parts or g alone, recorded or not, in chunks or not, along vectors."""
    plans_chosen()
    with _seeded():
        for setting in _settings():
            for budget in (2**29, 1) if setting[3:] == ("auto", False) else (2**29,):
                yield from _decoder_compared(setting, budget)


def _decoder_compared(setting: Setting, budget: int) -> Iterator[Compared]:
    decoder, metric = _metric_of(setting, budget=budget)
    recorded = setting[-1]
    z = 0.5 * _numbers(5, 3, seed=6)
    u, v = _numbers(2, 5, 3, seed=7)
    plan = metric.plan(len(z))
    name = f"{setting[0]}, {setting[1]}, {setting[2]} Σ, fold {setting[3]}"
    name += f" ({plan.mean}, {plan.covariance}{', chunked' if budget == 1 else ''})"

    def parts(z: Tensor) -> tuple[Tensor, Tensor | None]:
        out, flat, factor = metric._evaluate("fisher_metric", z, 1)
        return (factor * out, None) if flat else (factor * out[0], factor * out[1])

    plain = _Plain(parts)
    g, k = plain.metric_matrix(z).detach(), plain.complementary_part(z).detach()
    yield Compared(f"{name}: metric_matrix", _framed(metric.metric_matrix(z), g, g))
    yield Compared(f"{name}: g of both", _framed(metric._parts(z)[0], g, g))
    yield Compared(f"{name}: complementary_part", _framed(metric.complementary_part(z), k, g))
    bound = TOLERANCE * _condition(plain.real_metric_matrix(z).detach())
    inner = plain.inner_product(u, v, z)
    yield Compared(f"{name}: inner_product", _relative(metric.inner_product(u, v, z), inner))
    covector = plain.metric_vector_product(u, z)
    for threshold in (1, 99):
        with _threshold(threshold):
            got = metric.metric_vector_product(u, z)
        yield Compared(f"{name}: metric_vector_product", _relative(got, covector))
    for quantity in ("log_volume", "log_det_hermitian"):
        of = z.clone().requires_grad_()
        leaves = [of, *[p for p in decoder.parameters() if recorded and p.requires_grad]]
        got, truth = getattr(metric, quantity)(of), getattr(plain, quantity)(of)
        yield Compared(f"{name}: {quantity}", float((got - truth).detach().abs().max()), bound)
        found, true = _gradients(got, leaves), _gradients(truth, leaves)
        size = max(float(t.abs().max()) for t in true)
        for n, (x, y) in enumerate(zip(found, true, strict=True)):
            error = float((x - y).abs().max()) / size
            yield Compared(f"{name}: ∂ {quantity} by {'weights' if n else 'z'}", error, bound)


@contextmanager
def _threshold(d: int) -> Iterator[None]:
    """Products with a vector go through two tangents from this d on."""
    before, fisher.COVECTOR_FROM = fisher.COVECTOR_FROM, d
    try:
        yield
    finally:
        fisher.COVECTOR_FROM = before


# ------------------------------------------------------------------ planes


def planes() -> Iterator[Compared]:
    """Kernels on real planes and on images that are not multiplied out; every product of both."""
    first_order = [
        n
        for n in gaussian_kl.__all__
        if n.startswith(("fisher_metric_diagonal", "hermitian_part_diagonal"))
    ]
    for name in first_order:
        kernel: Callable[..., Any] = getattr(gaussian_kl, name)
        arguments = kernel.__code__.co_varnames[: kernel.__code__.co_argcount]
        rows = {a: _numbers(5, 3, 8, seed=n) for n, a in enumerate(arguments)}
        sigma = 0.5 + rows.pop("Sigma_factor")[:, 0].abs()
        truth = kernel(**rows, Sigma_factor=sigma)
        got = kernel(**{a: Pairs(planes_of(x)) for a, x in rows.items()}, Sigma_factor=sigma)
        truths, gots = (x if isinstance(x, tuple) else (x,) for x in (truth, got))
        for t, g in zip(truths, gots, strict=True):
            yield Compared(f"{name} on planes", _relative(g, t))
    for rows_of, (m, n) in product((3, 200), ((70, 90), (90, 70), (5, 4))):
        x, w = _numbers(rows_of, n), _numbers(m, n, seed=1)
        for recorded in (False, True):
            x, w = x.detach().requires_grad_(recorded), w.detach().requires_grad_(recorded)
            name, truth = f"{rows_of} rows by [{m}, {n}]", x @ w.mT
            pairs, weight = planes_of(x), Weight(w)
            got = torch.complex(*pair_product(pairs, weight))
            real = real_part_product(pairs, weight)
            yield Compared(f"{name}: product", _relative(got, truth))
            yield Compared(f"{name}: real part", _relative(real, truth.real))
            if recorded:
                by = _numbers(*truth.shape, seed=2)
                for out, true, cotangent in ((got, truth, by), (real, truth.real, by.real)):
                    pulled = torch.autograd.grad(out, (x, w), cotangent, retain_graph=True)
                    trues = torch.autograd.grad(true, (x, w), cotangent, retain_graph=True)
                    for a, b in zip(pulled, trues, strict=True):
                        yield Compared(f"{name}: pullback", _relative(a, b))
    yield from _transposes()


def _transposes() -> Iterator[Compared]:
    x, y, w = _numbers(4, 3, 6), _numbers(4, 3, 6, seed=1), _numbers(9, 6, seed=2)
    s = torch.rand(4, 1, 1, dtype=R, generator=torch.Generator().manual_seed(0)) + 0.5
    t = _numbers(2, 4, 3, 6, seed=3)
    weight, flags = Weight(w), (False, True)
    real_rows = torch.cat([t.real, t.imag], -1)
    for of_x, of_y, adjoint, same in product(flags, flags, flags, flags):
        left, right = Pairs(planes_of(x)), Pairs(planes_of(y))
        subjects = [(left, x, left if same else right, x if same else y, "planes")]
        if adjoint != (of_x != of_y):
            image = Image(planes_of(x), weight, real=False) * s
            other = image if same else Image(planes_of(y), weight, real=False)
            of_other = (x @ w.mT) * s if same else y @ w.mT
            subjects.append((image, (x @ w.mT) * s, other, of_other, "images"))  # type: ignore[arg-type]
        real = Image(real_rows, weight, real=True)
        stands_for = torch.complex(*(t @ w.mT).real)
        subjects.append((real, stands_for, real, stands_for, "real images"))  # type: ignore[arg-type]
        for a, plain_a, b, plain_b, name in subjects:
            if of_x:
                a, plain_a = a.conj(), plain_a.conj()
            if of_y:
                b, plain_b = (a if same and of_x else b.conj()), plain_b.conj()
            elif same and not of_x:
                b = a
            truth = plain_a @ (plain_b.mH if adjoint else plain_b.mT)
            got = a @ (b.mH if adjoint else b.mT)
            yield Compared(
                f"{name}: products with conjugates and transposes", _relative(got, truth)
            )


# ------------------------------------------------------------------ volumes


def volumes() -> Iterator[Compared]:
    """Log det by every elimination, its gradient and the gradient's, against the kernels."""
    used = set()
    sizes = ((1, 7), (2, 5), (2, 300), (3, 4), (3, 700), (6, 400), (20, 3))
    for (n, count), real in product(sizes, (False, True)):
        root = _numbers(count, n, n, seed=n)
        root = root.real.to(C).real if real else root
        g = root @ root.mH + 0.5 * torch.eye(n)
        factor, truth = torch.linalg.cholesky(g), torch.linalg.slogdet(g)[1]
        inverse = hermitian_geometry.log_det_pullback(factor)
        for with_inverse in (False, True):
            method = elimination._method(g, inverse=with_inverse)
            used.add(method)
            name = f"{method.__name__.strip('_')}, n = {n}{', real' if real else ''}"
            pivots, found = method(g, with_inverse)
            bound = TOLERANCE * float(torch.linalg.cond(g).max())
            value = pivots.log().sum(0)
            yield Compared(f"{name}: log det", float((value - truth).abs().max()), bound)
            if with_inverse:
                yield Compared(f"{name}: inverse", _relative(found, inverse), bound)
        x = g.clone().requires_grad_()
        (slope,) = torch.autograd.grad(cholesky.log_det(x)[0].sum(), x, create_graph=True)
        yield Compared(f"n = {n}: ∂ log det", _relative(slope, inverse), bound)
        v = _numbers(count, n, n, seed=9)
        v = v + v.mH if not real else (v + v.mH).real
        (twice,) = torch.autograd.grad((slope * v.conj()).real.sum(), x)
        second = hermitian_geometry.log_det_pullback_d(v.unsqueeze(-3), factor).squeeze(-3)
        yield Compared(f"n = {n}: ∂∂ log det", _relative(twice, second), bound)
        phase = root[..., :1] / root[..., :1].abs()
        singular = (torch.eye(n) - 1 / n) * (phase @ phase.mH)  # whose last pivot is rounding
        bad, degenerate = cholesky.log_det(singular, if_degenerate=-math.inf)
        missed = len(bad) if degenerate is None else int((~degenerate).sum())
        yield Compared(f"n = {n}: degenerate", float((bad != -math.inf).sum() + missed), 0.0)
        yield from _small_eigenvalues(n, count, real=real)
    methods = {elimination._written_out, elimination._batch_last, elimination._by_library}
    if used != methods:
        raise EvidenceError("log det: an elimination was chosen for no size")


def _small_eigenvalues(n: int, count: int, *, real: bool) -> Iterator[Compared]:
    """Matrices that take a closer look: their pivots are small, and no eigenvalue is degenerate."""
    if n < 3:
        return
    eigenvalues = torch.tensor([1.0] + (n - 1) * [1e-7], dtype=R)
    frame = torch.linalg.qr(_numbers(count, n, n, seed=n).real if real else _numbers(count, n, n))[
        0
    ]
    units = 1 + torch.rand(n, dtype=R, generator=torch.Generator().manual_seed(n))
    g = units[:, None] * (frame * eigenvalues @ frame.mH) * units
    h = (frame / eigenvalues @ frame.mH) / units / units[:, None]
    truth = (eigenvalues.log() + 2 * units.log()).sum().expand(count)
    bound = 1e7 * TOLERANCE * n
    x = g.clone().requires_grad_()
    value, degenerate = cholesky.log_det(x)
    yield Compared(
        f"n = {n}: small eigenvalues", float((value - truth).detach().abs().max()), bound
    )
    flagged = 0 if degenerate is None else int(degenerate.sum())
    yield Compared(f"n = {n}: small eigenvalues are no fault", float(flagged), 0.0)
    (slope,) = torch.autograd.grad(value.sum(), x)
    yield Compared(f"n = {n}: ∂ log det at small eigenvalues", _relative(slope, h), bound)
    factor, flags = cholesky.factored(g)
    yield Compared(
        f"n = {n}: factors at small eigenvalues", _relative(factor @ factor.mH, g), bound
    )
    yield Compared(f"n = {n}: small eigenvalues factor", float(flags.sum()), 0.0)
    signs = torch.tensor([-1.0, -1.0] + (n - 2) * [1.0], dtype=R)
    found = cholesky.log_det(frame * signs @ frame.mH)[1]  # two pivots are negative, or fewer
    missed = count if found is None else int((~found).sum())
    yield Compared(f"n = {n}: indefinite", float(missed), 0.0)


GROUPS: dict[str, Callable[[], Iterator[Compared]]] = {
    "mixtures": mixtures,
    "decoders": decoders,
    "planes": planes,
    "volumes": volumes,
}


def compared(group: str) -> list[Compared]:
    """All comparisons of a group.

    Raises:
        EvidenceError: a plan, an elimination or a number of blocks that is to be tried never was.
    """
    with torch.enable_grad():
        return list(GROUPS[group]())
