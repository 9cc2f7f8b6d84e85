"""Object arrays with the tensor methods and functions that generated kernels use."""

from __future__ import annotations

from typing import Any

import numpy as np


class Array(np.ndarray):
    """An object array with the tensor methods that generated kernels use."""

    @property
    def mT(self) -> Array:
        """Transpose of the last two axes."""
        return self.swapaxes(-1, -2)

    @property
    def mH(self) -> Array:
        """Adjoint of the last two axes."""
        return self.conj().swapaxes(-1, -2)

    @property
    def device(self) -> None:  # type: ignore[override]
        """Object arrays have no device."""
        return None

    def conj(self) -> Array:
        """Element-wise conjugate."""
        return array([x.conjugate() for x in self.ravel()], self.shape)

    def unsqueeze(self, axis: int) -> Array:
        """Insert an axis of length one."""
        return np.expand_dims(self, axis).view(Array)

    def squeeze(self, axis: int) -> Array:  # type: ignore[override]
        """Remove an axis of length one."""
        return np.squeeze(np.asarray(self), axis).view(Array)

    def flatten(self, start: int) -> Array:  # type: ignore[override]
        """Join the axes from ``start`` to the last."""
        return array(self.reshape(*self.shape[:start], -1))

    def unflatten(self, axis: int, sizes: tuple[int, ...]) -> Array:
        """Split the last axis."""
        return array(self.reshape(*self.shape[:axis], *sizes))

    def select(self, axis: int, position: int) -> Array:
        """One slice of an axis."""
        return array(np.take(np.asarray(self), position, axis=axis))


def array(values: Any, shape: tuple[int, ...] | None = None) -> Array:
    """An object array of numbers."""
    if isinstance(values, np.ndarray):
        return values.view(Array)
    flat = list(values) if shape is not None else [values]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out.reshape(shape if shape is not None else ()).view(Array)


def einsum(equation: str, *operands: Array) -> Array:
    """torch.einsum with leading ellipses, by numpy over objects."""
    left, target = equation.split("->")
    sources = left.split(",")
    batch = [o.ndim - len(s.removeprefix("...")) for o, s in zip(operands, sources, strict=True)]
    letters = "ZYXWVUTSRQ"[: max(batch)]
    spelled = []
    for count, source in zip(batch, sources, strict=True):
        spelled.append(letters[len(letters) - count :] + source.removeprefix("..."))
    # numpy wants equal sizes where torch broadcasts ones
    sizes: dict[str, int] = {}
    for o, s in zip(operands, spelled, strict=True):
        for size, letter in zip(o.shape, s, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    full = [
        np.broadcast_to(np.asarray(o), [sizes[c] for c in s])
        for o, s in zip(operands, spelled, strict=True)
    ]
    kept = letters if target.startswith("...") else ""  # torch sums over batches not kept
    out = np.einsum(",".join(spelled) + "->" + kept + target.removeprefix("..."), *full)
    return array(out)


def solve_triangular(factor: Array, right: Array, *, upper: bool) -> Array:
    """Forward or backward substitution, batched with broadcasting."""
    n = factor.shape[-1]
    batch = np.broadcast_shapes(factor.shape[:-2], right.shape[:-2])
    triangle = np.broadcast_to(np.asarray(factor), batch + factor.shape[-2:])
    target = np.broadcast_to(np.asarray(right), batch + right.shape[-2:])
    out = np.empty(target.shape, dtype=object)
    for i in reversed(range(n)) if upper else range(n):
        rest = target[..., i, :]
        for j in range(i + 1, n) if upper else range(i):
            rest = rest - triangle[..., i, j][..., None] * out[..., j, :]
        out[..., i, :] = rest / triangle[..., i, i][..., None]
    return out.view(Array)
