"""Closed-form jets of decoders: stacked tangents, propagated layer by layer.

The state between two layers is a value [B, n] and its Wirtinger derivatives by z, one tensor
[B, P, Q, n] for each type (p, q) of p ∂'s and q ∂̄'s: derivatives commute, so that the rows are the
multisets of p holomorphic and of q antiholomorphic indices. What vanishes identically (∂̄ of a
holomorphic layer, second derivatives before the first activation) is left out, and costs nothing.

A linear layer is one matrix product for all rows together. An activation is the chain rule: with
∂_s(f∘h) = f_u ∂_s h + f_ū ∂_s h̄ and Leibniz's rule for the remaining indices,
∂_S ∂_s (f∘h) = Σ_{T ⊆ S} [∂_T(f_u∘h) ∂_{S∖T}∂_s h + ∂_T(f_ū∘h) ∂_{S∖T}∂_s h̄],
with the derivatives of f from the generated kernels. Any other module is differentiated by
autograd, along the Taylor polynomial of its input: as if it had d inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, combinations_with_replacement, product
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.func import jacfwd

from kahler_verify.jets.differentiation import differentiate, refusal
from kahler_verify.jets.recognition import is_propagated, is_recognised
from kahler_verify.linear_algebra.products import complex_product, real_product
from kahler_verify.networks.activations import ActivationLayer
from kahler_verify.networks.decoder import ComplexLinear, Decoder, Residual
from kahler_verify.torch_state import alone

__all__ = [
    "Jets",
    "decoder_field_jets",
    "is_closed_form",
    "is_propagated",
    "is_recognised",
    "propagate",
    "routes",
]

Type = tuple[int, int]  # how many ∂ and how many ∂̄
VALUE: Type = (0, 0)


@dataclass(frozen=True)
class Jets:
    """A function of z at B points, with those of its derivatives that do not vanish.

    Attributes:
        latent: d.
        wanted: the types that are propagated; closed under taking away indices.
        value: [B, n].
        parts: derivatives by type, [B, P, Q, n] each (B = 1 where all points have the same).
    """

    latent: int
    wanted: frozenset[Type]
    value: Tensor
    parts: Mapping[Type, Tensor]

    def get(self, each: Type) -> Tensor | None:
        """A derivative, or the value, as [B or 1, P, Q, n]; None where it vanishes."""
        return self.value[:, None, None] if each == VALUE else self.parts.get(each)

    def conjugate(self, each: Type) -> Tensor | None:
        """The same of the conjugate function: ∂_A ∂̄_B h̄ is the conjugate of ∂_B ∂̄_A h."""
        part = self.get(each[::-1])
        return None if part is None else part.transpose(1, 2).conj()

    def dense(self, each: Type) -> Tensor:
        """A derivative with an axis for every index, [B, d, …, d, n]."""
        hol, anti = each
        shape = (len(self.value), *[self.latent] * (hol + anti), self.value.shape[-1])
        part = self.get(each)
        if part is None:
            zero = torch.zeros((), dtype=self.value.dtype.to_complex(), device=self.value.device)
            return zero.expand(shape)
        part = _rows(_rows(part, 1, _unpacking(self.latent, hol)), 2, _unpacking(self.latent, anti))
        part = part.reshape(len(part), *shape[1:])
        return part if len(part) == shape[0] else part.expand(shape)


def closure(types: Iterable[Type], *, holomorphic: bool) -> frozenset[Type]:
    """All types that propagation needs on the way to the given ones.

    Conjugates come in with each real part and each activation that is not holomorphic.
    """
    out = set()
    for hol, anti in types:
        for smaller in product(range(hol + 1), range(anti + 1)):
            out |= {smaller, smaller[::-1]}
    out.discard(VALUE)
    return frozenset(t for t in out if not (holomorphic and t[1]))


def coordinates(z: Tensor, wanted: frozenset[Type]) -> Jets:
    """The jets of z [B, d] by itself."""
    directions = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)[None]
    return Jets(z.shape[-1], wanted, z, {(1, 0): directions[:, :, None]})


# Rows: multisets of indices


@cache
def _multisets(d: int, size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(combinations_with_replacement(range(d), size))


@cache
def _selection(d: int, size: int, positions: tuple[int, ...]) -> tuple[int, ...] | None:
    """For every multiset the row of its part at some positions; None where that is itself."""
    if len(positions) == size:
        return None
    rows = {row: i for i, row in enumerate(_multisets(d, len(positions)))}
    return tuple(rows[tuple(each[p] for p in positions)] for each in _multisets(d, size))


@cache
def _unpacking(d: int, size: int) -> tuple[int, ...] | None:
    """For every tuple of indices the row of its multiset; None where there is nothing to do."""
    if size < 2:
        return None
    rows = {row: i for i, row in enumerate(_multisets(d, size))}
    return tuple(rows[tuple(sorted(each))] for each in product(range(d), repeat=size))


def _rows(x: Tensor, axis: int, selection: tuple[int, ...] | None) -> Tensor:
    if selection is None or x.shape[axis] == 1:
        return x  # all rows, or one that broadcasts
    kept = x.is_cuda and not torch.compiler.is_compiling()
    index = _on_device(selection, x.device) if kept else torch.tensor(selection, device=x.device)
    return x.index_select(axis, index)


@cache
def _on_device(selection: tuple[int, ...], device: torch.device) -> Tensor:
    """Indices on a GPU, brought there once: each time a copy would wait for what runs there."""
    with torch.inference_mode(False):
        return torch.tensor(selection, device=device)


# The chain rule


def compose(jets: Jets, derivatives: Mapping[Type, Tensor]) -> Jets:
    """f∘h from h's jets and the values [B, n] of f's derivatives by (u, ū), in any order of types.

    Those of f that are missing are taken to vanish.
    """
    chain = _Chain(jets, derivatives, {})
    parts = {each: chain.jet(VALUE, each) for each in sorted(jets.wanted, key=sum)}
    present = {each: part for each, part in parts.items() if part is not None}
    return replace(jets, value=derivatives[VALUE], parts=present)


@dataclass(frozen=True)
class _Chain:
    """The chain rule, with what it has computed. Closures would outlive it, as garbage."""

    jets: Jets
    derivatives: Mapping[Type, Tensor]
    known: dict[tuple[Type, Type], Tensor | None]

    def jet(self, f: Type, each: Type) -> Tensor | None:
        """∂ of type ``each`` of the derivative ``f`` of f, along h."""
        if f not in self.derivatives:
            return None
        if each == VALUE:
            return self.derivatives[f][:, None, None]
        if (f, each) not in self.known:
            self.known[f, each] = self._differentiate(f, each)
        return self.known[f, each]

    def _differentiate(self, f: Type, each: Type) -> Tensor | None:
        hol, anti = each
        last = (1, 0) if hol else (0, 1)
        before = (hol - last[0], anti - last[1])
        by_u, by_v = (f[0] + 1, f[1]), (f[0], f[1] + 1)
        total = None
        for left, right, inner, outer in _splittings(self.jets.latent, before, last):
            for of, factor in ((by_u, self.jets.get(outer)), (by_v, self.jets.conjugate(outer))):
                weight = self.jet(of, inner) if factor is not None else None
                if factor is None or weight is None:
                    continue
                for axis in (1, 2):
                    weight = _rows(weight, axis, left[axis - 1])
                    factor = _rows(factor, axis, right[axis - 1])
                term = weight * factor
                total = term if total is None else total + term
        return total


_Selections = tuple[tuple[int, ...] | None, tuple[int, ...] | None]


@cache
def _splittings(
    d: int, before: Type, last: Type
) -> tuple[tuple[_Selections, _Selections, Type, Type], ...]:
    """Leibniz's rule: the subsets T of ``before``, and its complement together with ``last``.

    Given as selections of rows (holomorphic, antiholomorphic) out of those of before + last.
    """
    out = []
    hol, anti = before[0] + last[0], before[1] + last[1]
    for p, q in product(range(before[0] + 1), range(before[1] + 1)):
        for inner in product(combinations(range(before[0]), p), combinations(range(before[1]), q)):
            rest = tuple(
                tuple(i for i in range(size) if i not in taken)
                for size, taken in zip((hol, anti), inner, strict=True)
            )
            left = (_selection(d, hol, inner[0]), _selection(d, anti, inner[1]))
            right = (_selection(d, hol, rest[0]), _selection(d, anti, rest[1]))
            out.append((left, right, (p, q), (len(rest[0]), len(rest[1]))))
    return tuple(out)


# Layers


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


def _real_head(head: nn.Module, hidden: Jets) -> Jets:
    if isinstance(head, ComplexLinear | nn.Linear) and is_recognised(head):
        return real_affine(hidden, head.weight, head.bias)
    return real_part(propagate(head, hidden))


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
        where = [sum(i * d ** (size - 1 - n) for n, i in enumerate(m)) for m in _multisets(d, size)]
        flat = _rows(flat, axis, tuple(where) if size > 1 else None)
    return flat


# Modules


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


def routes(decoder: Any) -> dict[str, str]:
    """Which route the jets take through each layer of a decoder: "closed form" or "autograd"."""
    if not is_propagated(decoder):
        return {type(decoder).__name__: "autograd"}
    found = dict(_layer_routes("layers", decoder.layers))
    for name in ("mean_head", "log_variance_head"):
        head = getattr(decoder, name)
        if head is not None:
            found |= dict(_layer_routes(name, head))
    return found


def _layer_routes(name: str, module: nn.Module) -> Iterable[tuple[str, str]]:
    if is_recognised(module) and isinstance(module, nn.Sequential | Residual):
        for child_name, child in module.named_children():
            yield from _layer_routes(f"{name}.{child_name}", child)
    else:
        yield name, "closed form" if is_recognised(module) else "autograd"


# Decoders


def hidden_jets(decoder: Decoder, z: Tensor, types: Iterable[Type]) -> Jets:
    """The jets of the last hidden layer at z [B, d]."""
    decoder._check(z)
    wanted = closure(types, holomorphic=is_holomorphic(decoder.layers))
    return propagate(decoder.layers, coordinates(z, wanted))


def is_holomorphic(module: nn.Module) -> bool:
    """Is it known to be, layer by layer?"""
    if isinstance(module, nn.Sequential | Residual):
        return is_recognised(module) and all(map(is_holomorphic, module.children()))
    if isinstance(module, ActivationLayer):
        return is_recognised(module) and module.activation.holomorphic
    return is_recognised(module)


def has_linear_heads(decoder: Any) -> TypeGuard[Decoder]:
    """Is it a decoder whose mean and log variance are affine in the last hidden layer?"""
    if not is_propagated(decoder):
        return False
    heads = (decoder.mean_head, decoder.log_variance_head)
    return all(h is None or (type(h) is ComplexLinear and is_recognised(h)) for h in heads)


def is_closed_form(decoder: Any) -> bool:
    """Are all of its layers, and its heads?"""
    return has_linear_heads(decoder) and _is_known(decoder.layers)


def _is_known(module: nn.Module) -> bool:
    if not is_recognised(module):
        return False
    within = isinstance(module, nn.Sequential | Residual)
    return not within or all(map(_is_known, module.children()))


def mean_jets(decoder: Decoder, hidden: Jets) -> Jets:
    """μ = location + scale · head(h), or its real part."""
    real = decoder.config.likelihood == "real"
    head = decoder.mean_head
    jets = _real_head(head, hidden) if real else propagate(head, hidden)
    location = decoder.location if real else torch.view_as_complex(decoder.location)
    parts = {t: part * decoder.scale for t, part in jets.parts.items()}
    return replace(jets, value=jets.value * decoder.scale + location, parts=parts)


def log_variance_jets(decoder: Decoder, hidden: Jets) -> Jets:
    """φ = Re head(h) + 2 log scale, [B, D] or [B, 1]; without derivatives where Σ is constant."""
    shift = 2 * decoder.scale.log()
    if decoder.log_variance_head is None:
        assert decoder.constant_log_variance is not None
        value = (decoder.constant_log_variance + shift).expand(len(hidden.value), -1)
        return replace(hidden, value=value, parts={})
    jets = _real_head(decoder.log_variance_head, hidden)
    return replace(jets, value=jets.value + shift)


def decoder_field_jets(
    decoder: Decoder, z: Tensor, wanted: Mapping[str, tuple[str, Type]]
) -> dict[str, Tensor]:
    """The named jets at z [B, d]: name to field ("mu", "Sigma" or "factor") and type."""
    hidden = hidden_jets(decoder, z, {t for _, t in wanted.values()})
    fields = {field for field, _ in wanted.values()}
    out = {}
    scalar = decoder.config.covariance == "scalar"
    mean = mean_jets(decoder, hidden) if "mu" in fields else None
    log_variance = log_variance_jets(decoder, hidden) if fields - {"mu"} else None
    types = [t for field, t in wanted.values() if field == "Sigma"]
    sigma = exponential(log_variance, types) if log_variance is not None and types else None
    for name, (field, each) in wanted.items():
        if field == "factor":
            assert log_variance is not None
            jet = (log_variance.value / 2).exp()
        else:
            jets = mean if field == "mu" else sigma
            assert jets is not None
            jet = jets.value if each == VALUE else jets.dense(each)
        out[name] = jet[..., 0] if scalar and field != "mu" else jet
    return out
