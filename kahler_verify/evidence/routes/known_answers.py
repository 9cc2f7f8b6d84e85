"""Known answers: closed forms typed from textbooks, for kernels of the shipped derivations.

Each answer runs a kernel on inputs written by hand and gives pairs (what came, what is right).
A user's derivation adds its own as ``known={"metric": function of z [..., d]}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.running.kernel_set import KernelSet

Pair = tuple[Tensor, Tensor]
Answer = Callable[[KernelSet], Iterator[Pair]]
SPACE_FORMS = {"fubini_study": 1, "complex_ball": -1}


def known_answer(derivation: Derivation, kernel: str) -> Answer | None:
    """The known answer for a kernel, if there is one."""
    expected = derivation.known.get(kernel)
    if callable(expected):
        return lambda kernels: _user_answer(kernels, kernel, expected)
    return ANSWERS.get((derivation.name, kernel))


def _user_answer(
    kernels: KernelSet, kernel: str, expected: Callable[[Tensor], Tensor]
) -> Iterator[Pair]:
    z = _points(2)
    yield kernels.call(kernel, {"z": z}), expected(z)


def _points(d: int, count: int = 4) -> Tensor:
    """Points with |z| < 0.8, the same in every run."""
    generator = torch.Generator().manual_seed(d)
    pairs = torch.rand(count, d, 2, generator=generator, dtype=torch.float64) - 0.5
    return torch.view_as_complex(pairs) * (1.1 / d**0.5)


# ------------------------------------------------------- space forms ±log(1 ± |z|²), s = ±1


def space_form(z: Tensor, s: int) -> dict[str, Tensor]:
    """Φ, g and their derivatives for s·log(1 + s|z|²), by hand; curvature is s·(g g + g g)."""
    eye = torch.eye(z.shape[-1], dtype=z.dtype)
    t = 1 + s * (z * z.conj()).sum(-1)
    t2, t4 = t[:, None, None], t[:, None, None, None]
    bar = z.conj()
    g = eye / t2 - s * torch.einsum("ia,ib->iab", bar, z) / t2**2
    g_d = (
        -s * torch.einsum("ab,ic->icab", eye, bar) / t4**2
        - s * torch.einsum("cb,ia->icab", eye, bar) / t4**2
        + 2 * torch.einsum("ia,ib,ic->icab", bar, z, bar) / t4**3
    )
    inverse = t2 * (eye + s * torch.einsum("ia,ib->iab", bar, z))  # G⁻¹ of the matrix g[a, b]
    # G_{cē} = G_c G⁻¹ G_ē - R_{cē} with G_ē = (G_e)ᴴ
    curvature = s * _pairs_of(g)
    g_db = torch.einsum("icax,ixy,ieby->iceab", g_d, inverse, g_d.conj())
    g_db = g_db - curvature.permute(0, 3, 4, 1, 2)
    return {
        "value": s * t.log(),
        "gradient": bar / t[:, None],
        "metric": g,
        "metric_d": g_d,
        "metric_db": g_db,
        "R": curvature,
        "inverse": inverse,
    }


def _pairs_of(g: Tensor) -> Tensor:
    """g_{ab̄}g_{cē} + g_{aē}g_{cb̄} as [..., a, b, c, e]."""
    return torch.einsum("iab,ice->iabce", g, g) + torch.einsum("iae,icb->iabce", g, g)


def _potential(name: str, kernel: str) -> Answer:
    def answer(kernels: KernelSet) -> Iterator[Pair]:
        for d in (1, 2, 3, 5):
            z = _points(d)
            expected = space_form(z, SPACE_FORMS[name])[kernel]
            yield kernels.call(kernel, {"z": z}), expected

    return answer


def _geometry(kernel: str) -> Answer:
    """Both space forms: R = s(gg + gg), Ric = s(d+1)g, scal = sd(d+1), s = ±1."""

    def answer(kernels: KernelSet) -> Iterator[Pair]:
        for s in SPACE_FORMS.values():
            for d in (1, 2, 3, 5):
                z = _points(d)
                form = space_form(z, s)
                g = form["metric"]
                t = 1 + s * (z * z.conj()).sum(-1)
                eye = torch.eye(d, dtype=z.dtype)
                ones = torch.ones(len(z), dtype=z.dtype)
                slope = -s * z.conj() / t[:, None]
                expected = {
                    "log_det_gradient": (d + 1) * slope,
                    "log_det_pullback": form["inverse"],
                    "log_det_pullback_d": -torch.einsum(
                        "iax,icxy,iyb->icab", form["inverse"], form["metric_d"], form["inverse"]
                    ),
                    "chern_connection": torch.einsum("ic,ae->icae", slope, eye)
                    + torch.einsum("ia,ce->icae", slope, eye),
                    "chern_curvature": form["R"],
                    "chern_ricci": s * (d + 1) * g,
                    "chern_scalar": s * d * (d + 1) * ones,
                    "holomorphic_sectional": 2 * s * ones,
                    "kahler_defect": torch.zeros_like(form["metric_d"]),
                }[kernel]
                tensors = {
                    "g": g,
                    "g_factor": torch.linalg.cholesky(g),
                    "g_d": form["metric_d"],
                    "g_db": form["metric_db"],
                    "v": _points(d, 5)[1:] + 1,
                }
                yield kernels.call(kernel, tensors), expected

    return answer


# ------------------------------------------------------------------------------- flat and quadratic


def _flat(kernel: str) -> Answer:
    def answer(kernels: KernelSet) -> Iterator[Pair]:
        for d in (1, 3):
            z = _points(d)
            expected = {
                "value": (z * z.conj()).sum(-1),
                "gradient": z.conj(),
                "metric": torch.eye(d, dtype=z.dtype),
            }[kernel]
            value = kernels.call(kernel, {"z": z})
            yield value, expected.expand(value.shape)

    return answer


def _quadratic(d: int) -> tuple[Tensor, Tensor, Tensor]:
    z, centre = _points(d), _points(d, 5)[1:] * 2
    root = torch.complex(torch.eye(d), torch.full((d, d), 0.3)).to(torch.complex128)
    return z, centre, root @ root.mH + torch.diag(torch.arange(d) * 0.5)


def _quadratic_form(kernel: str) -> Answer:
    """(z - c)ᴴP(z - c): ∂_a = conj(P(z - c))_a and g = Pᵀ."""

    def answer(kernels: KernelSet) -> Iterator[Pair]:
        for d in (1, 3):
            z, centre, precision = _quadratic(d)
            step = z - centre
            pulled = step @ precision.T
            expected = {
                "value": (step.conj() * pulled).sum(-1),
                "gradient": pulled.conj(),
                "metric": precision.mT,
            }[kernel]
            tensors = {"z": z, "centre": centre, "precision": precision}
            value = kernels.call(kernel, tensors)
            yield value, expected.expand(value.shape)

    return answer


def _single_component(kernel: str) -> Answer:
    """A mixture of one component, or of two equal ones, has its metric Pᵀ, which is flat."""

    def answer(kernels: KernelSet) -> Iterator[Pair]:
        for count in (1, 2):
            for d in (1, 3):
                z, centre, precision = _quadratic(d)
                pulled = ((z - centre) @ precision.T).conj()
                tensors = {
                    "w": torch.full((len(z), count), 1 / count, dtype=z.dtype),
                    "q_d": pulled[:, None].expand(-1, count, -1),
                    "q_db": precision.mT.expand(len(z), count, d, d),
                    "q_dd": z.new_zeros(len(z), count, d, d),
                    "q_ddb": z.new_zeros(len(z), count, d, d, d),
                    "q_ddbb": z.new_zeros(len(z), count, d, d, d, d),
                    "g": precision.mT,
                    "g_factor": torch.linalg.cholesky(precision.mT),
                    "g_d": z.new_zeros(d, d, d),
                    "v": z[0] + 1,
                }
                value = kernels.call(kernel, tensors)
                metric = kernel in ("metric", "metric_within")
                expected = precision.mT if metric else torch.zeros_like(value)
                yield value, expected.expand(value.shape)

    return answer


def _two_components(sign: int) -> Answer:
    """Weights w₁, w₂, equal P, centres apart: g = Pᵀ ± w₁w₂ δδᴴ with δ = ∂q₁ - ∂q₂, by hand.

    With one component, or with equal ones, the sign of the covariance could not be seen.
    """

    def answer(kernels: KernelSet) -> Iterator[Pair]:
        yield from _single_component("metric")(kernels)
        for d in (1, 3):
            z, centre, precision = _quadratic(d)
            first, second = (((z - c) @ precision.T).conj() for c in (centre, 0.4 - centre))
            share = 0.3
            tensors = {
                "w": z.new_tensor([share, 1 - share]).expand(len(z), 2),
                "q_d": torch.stack([first, second], 1),
                "q_db": precision.mT.expand(len(z), 2, d, d),
            }
            apart = first - second
            spread = torch.einsum("ia,ib->iab", apart, apart.conj()) * share * (1 - share)
            yield kernels.call("metric", tensors), precision.mT + sign * spread

    return answer


# ------------------------------------------------------------------------------- Gaussians


def _layout(variance: Tensor, layout: str) -> Tensor:
    """Derivatives [..., d × axes] of one variance as scalar, diagonal [1] or full [1, 1]."""
    for _ in range({"scalar": 0, "diagonal": 1, "full": 2}[layout]):
        variance = variance[..., None]
    return variance


def _wave(kernel: str, layout: str) -> Answer:
    """μ = z₁, Σ = e^{2 Re z₂}: g = diag(e^{-2 Re z₂}, 1), k = diag(0, 1), and not closed."""

    def answer(kernels: KernelSet) -> Iterator[Pair]:
        z, z0 = _points(2), _points(2, 5)[1:]
        s, s0 = (2 * z[:, 1].real).exp() + 0j, (2 * z0[:, 1].real).exp() + 0j
        one = torch.ones_like(s)
        tensors = {
            "mu": z[:, :1],
            "mu0": z0[:, :1],
            "mu_d": torch.stack([one, 0 * one], -1)[..., None],
            "Sigma_factor": _layout(s.sqrt(), layout),
            "Sigma0_factor": _layout(s0.sqrt(), layout),
            "Sigma": _layout(s, layout),
            "Sigma0": _layout(s0, layout),
        }
        for name in ("b", "dd", "db", "bb", "ddb", "dbb", "ddbb"):
            tensors[f"mu_{name}"] = z.new_zeros(len(z), *[2] * len(name), 1)
        for name in ("d", "b", "dd", "db", "bb", "ddb", "dbb", "ddbb"):
            jet = z.new_zeros(len(z), *[2] * len(name))
            jet.reshape(len(z), -1)[:, -1] = s  # all indices are 2
            tensors[f"Sigma_{name}"] = _layout(jet, layout)
        expected: list[Tensor]
        if kernel == "fisher_metric":
            g, k = z.new_zeros(len(z), 2, 2), z.new_zeros(len(z), 2, 2)
            g[:, 0, 0], g[:, 1, 1], k[:, 1, 1] = 1 / s, 1, 1
            expected = [g, k]
        elif kernel == "fisher_metric_d":
            expected = [z.new_zeros(len(z), 2, 2, 2)]
            expected[0][:, 1, 0, 0] = -1 / s
        elif kernel == "fisher_metric_db":
            expected = [z.new_zeros(len(z), 2, 2, 2, 2)]
            expected[0][:, 1, 1, 0, 0] = 1 / s
        else:
            h = z.new_zeros(len(z), 2, 2)
            step = (z - z0)[:, 0]
            h[:, 0, 0], h[:, 0, 1] = 1 / s, -step.conj() / s
            h[:, 1, 0], h[:, 1, 1] = -step / s, s0 / s + (step * step.conj()) / s
            expected = [h]
        out = kernels.call(f"{kernel}_{layout}", tensors)
        yield from zip(out if isinstance(out, tuple) else (out,), expected, strict=True)

    return answer


def _product_map(kernel: str, layout: str) -> Answer:
    """μ = (z₁, z₁z₂) with Σ = s I: g = JᵀJ̄ / s by hand."""

    def answer(kernels: KernelSet) -> Iterator[Pair]:
        z, s = _points(2), 0.7
        z1, z2 = z.unbind(-1)
        b1, b2, one = z1.conj(), z2.conj(), torch.ones_like(z1)
        jacobian, second = z.new_zeros(len(z), 2, 2), z.new_zeros(len(z), 2, 2, 2)
        jacobian[:, 0, 0], jacobian[:, 0, 1], jacobian[:, 1, 1] = one, z2, z1
        second[:, 0, 1, 1] = second[:, 1, 0, 1] = 1
        scale = torch.tensor(s**0.5, dtype=z.dtype)
        factor = {
            "scalar": scale,
            "diagonal": scale.expand(2),
            "full": scale * torch.eye(2, dtype=z.dtype),
        }[layout]
        tensors = {
            "mu_d": jacobian,
            "mu_dd": second,
            "Sigma_factor": factor.expand(len(z), *factor.shape),
        }
        if kernel == "fisher_metric":
            expected = z.new_zeros(len(z), 2, 2)
            expected[:, 0, 0], expected[:, 1, 1] = 1 + z2 * b2, z1 * b1
            expected[:, 0, 1], expected[:, 1, 0] = z2 * b1, z1 * b2
        elif kernel == "fisher_metric_d":
            expected = z.new_zeros(len(z), 2, 2, 2)
            expected[:, 0, 1, 0], expected[:, 0, 1, 1] = b2, b1
            expected[:, 1, 0, 0], expected[:, 1, 0, 1] = b2, b1
        else:
            expected = z.new_zeros(len(z), 2, 2, 2, 2)
            expected[:, 0, 0, 1, 1] = expected[:, 0, 1, 1, 0] = 1
            expected[:, 1, 0, 0, 1] = expected[:, 1, 1, 0, 0] = 1
        yield kernels.call(f"{kernel}_{layout}_holomorphic", tensors), expected / s

    return answer


def _table() -> dict[tuple[str, str], Answer]:
    table: dict[tuple[str, str], Answer] = {}
    for name in SPACE_FORMS:
        for kernel in ("value", "gradient", "metric", "metric_d", "metric_db"):
            table[name, kernel] = _potential(name, kernel)
    for kernel in ("value", "gradient", "metric"):
        table["flat", kernel] = _flat(kernel)
        table["quadratic_form", kernel] = _quadratic_form(kernel)
    for kernel in (
        "log_det_gradient",
        "log_det_pullback",
        "log_det_pullback_d",
        "chern_connection",
        "chern_curvature",
        "chern_ricci",
        "chern_scalar",
        "holomorphic_sectional",
        "kahler_defect",
    ):
        table["hermitian_geometry", kernel] = _geometry(kernel)
    for mixture in ("mixture_density", "mixture_potential"):
        for kernel in (
            "metric",
            "metric_within",
            "metric_between",
            "metric_d",
            "metric_db",
            "ricci",
            "scalar",
            "holomorphic_sectional",
        ):
            table[mixture, kernel] = _single_component(kernel)
    table["mixture_density", "metric"] = _two_components(-1)
    table["mixture_potential", "metric"] = _two_components(1)
    for kernel in ("metric_d_general", "metric_db_general"):
        table["mixture_potential", kernel] = _single_component(kernel)
    for layout in ("full", "diagonal", "scalar"):
        for kernel in ("fisher_metric", "fisher_metric_d", "fisher_metric_db"):
            table["gaussian_kl", f"{kernel}_{layout}"] = _wave(kernel, layout)
            name = f"{kernel}_{layout}_holomorphic"
            table["gaussian_kl", name] = _product_map(kernel, layout)
        table["gaussian_kl", f"kl_hessian_{layout}"] = _wave("kl_hessian", layout)
    return table


ANSWERS: Mapping[tuple[str, str], Answer] = _table()
