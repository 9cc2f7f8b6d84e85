"""Activations of complex layers, by the generated kernels of derivations/activations.py.

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
    """A function of derivations/activations.py, entry by entry."""
    if has_torch_function_variadic(z):
        out: Tensor = handle_torch_function(activation, (z,), z, name, *bias)
        return out
    return torch.complex(*getattr(kernels, name)(z.real, z.imag, *bias))


@rule("activation", python=True)
def activated(call: Any, z: Expansion, name: str, *bias: Tensor) -> Expansion:
    """∂_i f = f_u w_i + f_ū w̄_i with w = ∂h, and so on; without ū along complex directions."""
    holomorphic = kernels.FUNCTIONS[name][1]
    if not z.varies:
        return z.constant(call(z.value, name, *bias))
    order = z.frame.order
    parts = getattr(kernels, f"{name}_{order}")(z.value.real, z.value.imag, *bias)
    value, *derivatives = map(torch.complex, parts[::2], parts[1::2])
    if holomorphic:
        return chain(z, value, *derivatives)
    z = real_directions(z)
    f_u, f_v, *second = derivatives
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
    return Expansion(
        value,
        first,
        total([curved, None if bend is None else _linear(bend, f_u, f_v)]),
        z.frame,
    )


def _linear(rows: Tensor, f_u: Tensor, f_v: Tensor) -> Tensor:
    return rows * f_u + rows.conj() * f_v
