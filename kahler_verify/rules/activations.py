"""Activations of complex layers, by the generated kernels of derivations/functions/activations.py.

Composed of real functions of Re z and Im z, as its kernel is, a holomorphic activation would not be
known to be one, and each product of the kernel would be a rule of its own.  So it is one function
here, which asks its arguments whether they want to answer it, as torch's own functions do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from kahler_verify.kernels import activations as kernels
from kahler_verify.rules.expansion import Expansion, chain, real_directions, total
from kahler_verify.rules.registry import rule

__all__ = ["activation"]


def activation(z: Tensor, name: str, *bias: Tensor) -> Tensor:
    """A function of derivations/functions/activations.py, entry by entry."""
    if has_torch_function_variadic(z):
        out: Tensor = handle_torch_function(activation, (z,), z, name, *bias)
        return out
    return torch.complex(*getattr(kernels, name)(z.real, z.imag, *bias))


@rule("activation", python=True)
def activated(call: Any, z: Expansion, name: str, *bias: Tensor) -> Expansion:
    """∂_i f = f_u w_i + f_ū w̄_i with w = ∂h, and so on; without ū along complex directions."""
    _, holomorphic, _, split = kernels.FUNCTIONS[name]
    if not z.varies:
        return z.constant(call(z.value, name, *bias))
    if not holomorphic:
        z = real_directions(z)
        if split and z.frame.order == 1:
            return _by_planes(z, *getattr(kernels, f"{name}_real")(_planes(z.value)))
    order = z.frame.order
    parts = getattr(kernels, f"{name}_{order}")(z.value.real, z.value.imag, *bias)
    value, *derivatives = map(torch.complex, parts[::2], parts[1::2])
    if holomorphic:
        return chain(z, value, *derivatives)
    f_u, f_v, *second = derivatives
    if split:  # f = p(x) + i p(y) has f_u ± f_ū = p′(x), p′(y) and 4 f_uu = p″(x) - i p″(y)
        slopes = torch.stack([(f_u + f_v).real, (f_u - f_v).real], -1)
        return _by_planes(z, _planes(value), slopes, 4 * _planes(second[0].conj()))
    w, bend = z.rows
    assert w is not None
    first = _linear(w, f_u, f_v)
    if order == 1:
        return Expansion(value, first, None, z.frame)
    f_uu, f_uv, f_vv = second
    i, j = z.frame.pair_up(w)
    mixed = 2 * (i * j.conj()).real
    square = i * j
    curved = square * f_uu + mixed * f_uv + square.conj() * f_vv
    moved = None if bend is None else _linear(bend, f_u, f_v)
    return Expansion(value, first, total([curved, moved]), z.frame)


def _planes(t: Tensor) -> Tensor:
    return torch.view_as_real(t.resolve_conj())


def _by_planes(z: Expansion, value: Tensor, *derivatives: Tensor) -> Expansion:
    """One real function on the real and the imaginary part: real products alone."""
    first, second = (None if t is None else _planes(t) for t in z.rows)
    real = chain(Expansion(_planes(z.value), first, second, z.frame), value, *derivatives)
    first, second = (None if t is None else torch.view_as_complex(t) for t in real.rows)
    return Expansion(torch.view_as_complex(real.value), first, second, z.frame)


def _linear(rows: Tensor, f_u: Tensor, f_v: Tensor) -> Tensor:
    return rows * f_u + rows.conj() * f_v
