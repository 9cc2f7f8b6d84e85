"""Unrolled variants at one point, in float64 and in exact arithmetic: their text runs as it is.

In exact arithmetic transcendental functions become random ones: a number that depends on the
argument alone stands for its exponential.  What holds for them holds for the functions, because no
rule of theirs is used.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kahler_verify.evidence.numbers.arithmetic import Arithmetic, run_text
from kahler_verify.evidence.numbers.arrays import Array, array
from kahler_verify.evidence.numbers.gaussian import Gaussian
from kahler_verify.running.unrolling import Argument, Unrolled

__all__ = ["evaluate_in_double", "evaluate_variant", "opaque", "softmax"]


class _Reduced(Arithmetic):
    """With the reductions over components that unrolled text calls."""

    def namespace(self) -> SimpleNamespace:
        out = super().namespace()
        out.sum = lambda x, axis, keep: array(np.sum(np.asarray(x), axis=axis, keepdims=keep))
        out.amax = lambda x, axis, _: array(np.asarray(x).take([0], axis=axis))
        return out


def opaque(arithmetic: Arithmetic) -> Arithmetic:
    """The arithmetic with random functions in place of transcendental ones."""

    def call(name: str, x: Any) -> Any:
        digest = hashlib.sha256(f"{name} {x}".encode()).digest()
        return arithmetic.number(1 + int.from_bytes(digest[:4]))

    return replace(arithmetic, function=call)


def softmax(logits: Array, arithmetic: Arithmetic) -> Array:
    """Weights [K] as a variant computes them, with the stand-ins for maximum and exponential."""
    namespace = arithmetic.namespace()
    weights = namespace.exp(array(np.asarray(logits - logits[0])))
    return array(np.asarray(weights / np.sum(np.asarray(weights))))


def evaluate_variant(
    variant: Unrolled, tensors: Mapping[str, Array], arithmetic: Arithmetic
) -> list[Array]:
    """The results of a variant's text at one point.

    Args:
        variant: what to run.
        tensors: its arguments in the shapes of the general kernel, those of components with them in
            front, over Q(i) or a prime field's F_p[i].
        arithmetic: theirs.
    """
    fields = {f: getattr(arithmetic, f) for f in arithmetic.__dataclass_fields__}
    function = run_text(variant.text, _Reduced(**fields))[variant.name]
    rows = [_rows(tensors[a.name], a) for a in variant.arguments]
    axis = (0,) if variant.over else ()
    parts = np.asarray(function(*rows, *axis)).ravel()
    entries = [
        re + arithmetic.number(1j) * im for re, im in zip(parts[::2], parts[1::2], strict=True)
    ]
    out = []
    for shape in variant.shapes:
        size = int(np.prod(shape, dtype=int))
        out.append(array(entries[:size], shape))
        entries = entries[size:]
    return out


def evaluate_in_double(variant: Unrolled, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The same in torch, complex128."""
    scope: dict[str, Any] = {}
    exec(compile(variant.text, f"<unrolled {variant.name}>", "exec"), scope)
    rows = []
    for a in variant.arguments:
        value = tensors[a.name].resolve_conj()
        parts = value if a.real else torch.view_as_real(value)
        flat = parts.reshape(len(value) if a.over else 1, -1)
        rows.append(flat[:, list(a.rows.values())].mT.unsqueeze(-1))
    out = scope[variant.name](*rows, *((0,) if variant.over else ())).reshape(-1, 2)
    sizes = [math.prod(shape) for shape in variant.shapes]
    parts = torch.view_as_complex(out.contiguous()).split(sizes)
    return [x.reshape(shape) for x, shape in zip(parts, variant.shapes, strict=True)]


def _rows(values: Array, argument: Argument) -> Array:
    """The real numbers that a variant takes, [rows, K, 1] or [rows, 1, 1]."""
    if argument.over:
        each = [_rows(array(v), replace(argument, over=False)) for v in np.asarray(values)]
        return array(np.concatenate(each, axis=1))
    flat = [part for x in np.asarray(values).ravel() for part in _parts(x, argument.real)]
    return array([flat[i] for i in argument.rows.values()], (len(argument.rows), 1, 1))


def _parts(x: Gaussian, real: bool) -> list[Gaussian]:
    zero = x.x - x.x
    re, im = Gaussian(x.x, zero), Gaussian(x.y, zero)
    return [re] if real else [re, im]
