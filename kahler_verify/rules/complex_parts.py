"""Complex tensors and their real parts: what is linear over R, and not over C."""

from __future__ import annotations

from typing import Any

import torch

from kahler_verify.rules.arithmetic import by_kernel, plus, times
from kahler_verify.rules.expansion import (
    Expansion,
    aligned,
    linear,
    real_directions,
)
from kahler_verify.rules.registry import rule


@rule("real")
def real_part(call: Any, x: Expansion) -> Expansion:
    """Re z; that of a head waits with it."""
    if x.waiting_head is not None:
        frame = x.frame.real() if x.frame.holomorphic else x.frame
        return Expansion(call(x.value), None, None, frame, x.waiting_head.changed(real=True))
    return linear(call, real_directions(x))


@rule("imag", "conj", "conj_physical", "view_as_real", "mH", "H", holomorphic=False)
def real_linear(call: Any, x: Expansion, *arguments: Any) -> Expansion:
    """Parts, conjugates and pairs."""
    if call.__name__ == "view_as_real":
        return linear(lambda t: torch.view_as_real(t.resolve_conj()), x)
    return linear(lambda t: call(t, *arguments), x)


@rule("view_as_complex", "resolve_conj", "resolve_neg")
def complex_linear(call: Any, x: Expansion) -> Expansion:
    """A pair of real tensors as a complex one; conjugates that are carried out."""
    return linear(call, x)


def _complex(x: Any) -> Any:
    return linear(lambda t: t.to(t.dtype.to_complex()), x) if isinstance(x, Expansion) else x


@rule("complex", several=True, holomorphic=False)
def from_parts(call: Any, real: Any, imag: Any) -> Expansion:
    """X + iy of real x and y."""
    real, imag = aligned([real, imag])
    if isinstance(imag, Expansion):
        imaginary: Any = linear(lambda t: torch.complex(torch.zeros_like(t), t), imag)
    else:
        imaginary = torch.complex(torch.zeros_like(imag), imag)
    value = call(*[x.value if isinstance(x, Expansion) else x for x in (real, imag)])
    return plus(_complex(real), imaginary).with_value(value)


def squared_modulus(x: Expansion) -> Expansion:
    """Z z̄, real; x² of a real x."""
    if not x.value.is_complex():
        return by_kernel(x, "square")
    x = real_directions(x)
    parts = linear(lambda t: torch.view_as_real(t.resolve_conj()), x)
    return linear(lambda t: t.sum(-1), by_kernel(parts, "square"))


@rule("angle", holomorphic=False)
def angle(call: Any, x: Expansion) -> Expansion:
    """Im log z; of a real x it jumps from 0 to π."""
    if not x.value.is_complex():
        x.frame.record.kink("angle", -1)
        return x.constant(call(x.value))
    return linear(lambda t: t.imag, by_kernel(x, "log"))


@rule("polar", several=True, holomorphic=False)
def polar(call: Any, modulus: Any, phase: Any) -> Expansion:
    """R (cos φ + i sin φ)."""

    def part(name: str) -> Any:
        f = getattr(torch, name)
        return by_kernel(phase, name) if isinstance(phase, Expansion) else f(phase)

    return from_parts(torch.complex, times(modulus, part("cos")), times(modulus, part("sin")))
