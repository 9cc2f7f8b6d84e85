"""Closed-form jets of layers: stacked tangents, propagated from one to the next.

A linear layer is one matrix product for all rows of :class:`Jets` together. An activation is the
chain rule, with the derivatives of f from the generated kernels. Any other module is differentiated
by autograd, along the Taylor polynomial of its input: as if it had d inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import jacfwd

from kahler_verify.jets.differentiation import differentiate, refusal
from kahler_verify.jets.recognition import is_recognised
from kahler_verify.jets.stacked import Jets, Type, closure, compose, multisets, selected_rows
from kahler_verify.linear_algebra.products import complex_product, real_product
from kahler_verify.networks.activations import ActivationLayer
from kahler_verify.networks.decoder import ComplexLinear, Residual
from kahler_verify.torch_state import alone


def affine(jets: Jets, weight: Tensor, bias: Tensor | None) -> Jets:
    """h ↦ h Wᵀ + b, W [m, n]."""
    value = complex_product(jets.value, weight)
    return replace(
        jets,
        value=value if bias is None else value + bias,
        parts=linear_parts(jets, weight),
    )


def linear_parts(jets: Jets, weight: Tensor) -> dict[Type, Tensor]:
    """The derivatives of h Wᵀ: one matrix product for all, tangents as rows."""
    if not jets.parts:
        return {}
    rows = [part.flatten(0, -2) for part in jets.parts.values()]
    stacked = complex_product(rows[0] if len(rows) == 1 else torch.cat(rows), weight)
    pieces = stacked.split([len(r) for r in rows])
    return {
        each: out.reshape(*part.shape[:-1], len(weight))
        for (each, part), out in zip(jets.parts.items(), pieces, strict=True)
    }


def real_affine(jets: Jets, weight: Tensor, bias: Tensor | None) -> Jets:
    """h ↦ Re(h Wᵀ + b), W [m, n] complex."""
    pairs = torch.view_as_real(jets.value.resolve_conj()).flatten(-2)
    value = real_product(pairs, _real_rows(weight))
    return replace(
        jets,
        value=value if bias is None else value + bias.real,
        parts=real_linear_parts(jets, weight),
    )


def _real_rows(weight: Tensor) -> Tensor:
    """The matrix [m, 2n] of Re(h Wᵀ) by interleaved pairs (Re h_1, Im h_1, …)."""
    return torch.stack([weight.real, -weight.imag], -1).flatten(-2)


def real_linear_parts(jets: Jets, weight: Tensor) -> dict[Type, Tensor]:
    """The derivatives of φ = Re(h Wᵀ): in real arithmetic wherever that halves the work.

    ∂φ = ½(W u + conj(W v)) with u = ∂h, v = ∂̄h has the real part ½ Re W(u + v) and the imaginary
    part ½ Re W(iv - iu); where v vanishes, one complex product does both.
    """
    parts: dict[Type, Tensor] = {}
    for each, u in jets.parts.items():
        if each in parts:
            continue  # came as the conjugate of another
        v = jets.conjugate(each)
        if v is None:
            rows = complex_product(u.flatten(0, -2) / 2, weight)
            part = rows.reshape(*u.shape[:-1], len(weight))
        else:
            v = v.conj()
            both = torch.view_as_real(torch.stack([u + v, 1j * (v - u)]) / 2).flatten(-2)
            rows = real_product(both.flatten(0, -2), _real_rows(weight))
            part = torch.complex(*rows.reshape(*both.shape[:-1], len(weight)))
        parts[each] = part
        if each[0] != each[1]:
            parts[each[::-1]] = part.transpose(1, 2).conj()
    return parts


def real_part(jets: Jets) -> Jets:
    """Re h = (h + h̄)/2, for a head that is not known to be linear."""
    parts = {}
    for each in closure(jets.parts, holomorphic=False):
        both = [p for p in (jets.parts.get(each), jets.conjugate(each)) if p is not None]
        if both:
            parts[each] = (both[0] + both[1]) / 2 if len(both) > 1 else both[0] / 2
    return replace(jets, value=jets.value.real, parts=parts)


def exponential(jets: Jets, types: Iterable[Type]) -> Jets:
    """exp h of a real h, with all that the given types need."""
    jets = replace(jets, wanted=closure(types, holomorphic=False))
    order = max((sum(t) for t in jets.wanted), default=0)
    value = jets.value.exp()
    return compose(jets, {(n, 0): value for n in range(order + 1)})


def activated(jets: Jets, layer: ActivationLayer) -> Jets:
    """A registered activation, by its generated derivatives."""
    order = max((sum(t) for t in jets.wanted), default=0)
    bias = () if layer.bias is None else (layer.bias,)
    return compose(jets, layer.activation.derivatives(order, jets.value, *bias))


def total(first: Jets, second: Jets) -> Jets:
    """The jets of a sum."""
    parts = dict(first.parts)
    for each, part in second.parts.items():
        parts[each] = parts[each] + part if each in parts else part
    return replace(first, value=first.value + second.value, parts=parts)


def by_autograd(jets: Jets, module: nn.Module) -> Jets:
    """A module that is not known: autograd in ε ∈ C^d of it behind h(z + ε)'s Taylor polynomial."""
    order = max((sum(t) for t in jets.wanted), default=0)
    d = jets.latent
    dense = {t: jets.dense(t) for t in jets.parts}
    origin = torch.zeros(2 * d, dtype=jets.value.real.dtype, device=jets.value.device)

    def levels(value: Tensor, coefficients: dict[Type, Tensor]) -> list[Tensor]:
        """Real derivatives of orders 1, 2, … at one point, by ε = (u_1 + i u_{d+1}, …)."""

        def along(u: Tensor) -> Tensor:
            epsilon = torch.complex(u[:d], u[d:])
            total = value
            for (hol, anti), term in coefficients.items():
                for vector in [epsilon] * hol + [epsilon.conj()] * anti:
                    term = torch.tensordot(vector, term, dims=([0], [0]))
                total = total + term / (math.factorial(hol) * math.factorial(anti))
            out = module(total[None])[0]
            if not out.is_complex():
                return torch.stack([out, 0 * out], -1)
            return torch.view_as_real(out.resolve_conj())

        nested = [along]
        for _ in range(order):
            nested.append(jacfwd(nested[-1]))
        return [f(origin) for f in nested[1:]]

    try:
        with alone():
            derivatives = differentiate(lambda: torch.vmap(levels)(jets.value, dense))
    except (NotImplementedError, RuntimeError) as error:
        module(jets.value)  # its own errors come from here, as they are
        raise refusal(error, order) from error
    parts = {t: _packed(_wirtinger(derivatives[sum(t) - 1], t), d, t) for t in jets.wanted}
    return replace(jets, value=module(jets.value), parts=parts)


def _wirtinger(derivative: Tensor, each: Type) -> Tensor:
    """Real derivatives [B, n, 2, 2d, …, 2d] to [B, d, …, d, n]."""
    order = sum(each)
    jet = torch.view_as_complex(derivative.movedim(2, -1).contiguous())  # [B, n, 2d, …]
    for axis in range(2, 2 + order):
        x, y = jet.chunk(2, dim=axis)
        jet = (x - 1j * y) / 2 if axis - 2 < each[0] else (x + 1j * y) / 2
    return jet.movedim(1, -1)


def _packed(dense: Tensor, d: int, each: Type) -> Tensor:
    """[B, d, …, d, n] to [B, P, Q, n]."""
    hol, anti = each
    flat = dense.reshape(len(dense), d**hol, d**anti, -1)
    for axis, size in ((1, hol), (2, anti)):
        where = [sum(i * d ** (size - 1 - n) for n, i in enumerate(m)) for m in multisets(d, size)]
        flat = selected_rows(flat, axis, tuple(where) if size > 1 else None)
    return flat


def propagate(module: nn.Module, jets: Jets) -> Jets:
    """The jets behind a module, from those before it."""
    if not is_recognised(module):
        return by_autograd(jets, module)
    if isinstance(module, ComplexLinear | nn.Linear):
        return affine(jets, module.weight, module.bias)
    if isinstance(module, ActivationLayer):
        return activated(jets, module)
    if isinstance(module, Residual):
        return total(jets, propagate(module.body, jets))
    if isinstance(module, nn.Sequential):
        for child in module:
            jets = propagate(child, jets)
    return jets


def is_holomorphic(module: nn.Module) -> bool:
    """Is it known to be, layer by layer?"""
    if isinstance(module, nn.Sequential | Residual):
        return is_recognised(module) and all(map(is_holomorphic, module.children()))
    if isinstance(module, ActivationLayer):
        return is_recognised(module) and module.activation.holomorphic
    return is_recognised(module)


def are_known(module: nn.Module) -> bool:
    """Is it known in closed form, with all modules inside?"""
    if not is_recognised(module):
        return False
    within = isinstance(module, nn.Sequential | Residual)
    return not within or all(map(are_known, module.children()))
