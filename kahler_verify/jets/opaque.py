"""Calls that no rule knows: nested autograd of that call alone, and a check that it is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vjp
from torch.utils._pytree import tree_flatten, tree_unflatten

from kahler_verify.errors import InputError
from kahler_verify.rules.expansion import Expansion, total
from kahler_verify.torch_state import alone

__all__ = ["by_autograd"]

Plain = Callable[..., tuple[Tensor, ...]]


def by_autograd(call: Callable[..., Any], name: str, arguments: Any, named: dict[str, Any]) -> Any:
    """The outputs of ``call`` with their derivatives, by forward mode, twice for second order.

    Raises:
        InputError: forward mode and reverse mode differ, or torch has neither.
    """
    try:
        with alone():  # forward-mode levels belong to the process
            return _by_autograd(call, name, arguments, named)
    except NotImplementedError as error:
        raise InputError(
            f"torch's {name} has no rule, and torch does not differentiate it twice: {error}"
        ) from error


def _by_autograd(call: Callable[..., Any], name: str, arguments: Any, named: dict[str, Any]) -> Any:
    leaves, structure = tree_flatten((arguments, named), is_leaf=_is_expansion)
    where = [k for k, leaf in enumerate(leaves) if _is_expansion(leaf) and leaf.varies]
    known = [leaf.value if _is_expansion(leaf) else leaf for leaf in leaves]
    some = next(leaf for leaf in leaves if _is_expansion(leaf))
    frame, record = some.frame, some.frame.record

    def whole(*values: Tensor) -> Any:
        filled = list(known)
        for k, value in zip(where, values, strict=True):
            filled[k] = value
        positional, keywords = tree_unflatten(filled, structure)
        return call(*positional, **keywords)

    inputs: list[Any] = [leaves[k] for k in where]
    values = [x.value.contiguous() for x in inputs]  # forward mode refuses what was only expanded
    outputs, out_structure = tree_flatten(whole(*values))
    smooth = [k for k, out in enumerate(outputs) if _is_continuous(out)]

    def plain(*values: Tensor) -> tuple[Tensor, ...]:
        each = tree_flatten(whole(*values))[0]
        return tuple(each[k] for k in smooth)

    first: list[Any] = [None] * len(smooth)
    second: list[Any] = [None] * len(smooth)
    if where and smooth:
        known_to_agree = record.autograd[name] or torch._C._functorch.peek_interpreter_stack()
        tangents = [x.first for x in inputs]
        first = list(_along(plain, values, tangents))
        if not known_to_agree:
            _check_first(plain, name, values, _last(tangents), _last(first))
        if frame.order == 2:
            sides = [frame.pair_up(t) for t in tangents]
            left, right = [s[0] for s in sides], [s[1] for s in sides]
            second = list(_twice(plain, values, left, right))
            if not known_to_agree:
                size = _size(_last(first))
                _check_second(plain, name, values, _last(left), _last(right), _last(second), size)
            curved = [x.second for x in inputs]
            count = next((len(t) for t in curved if t is not None), None)
            if count is not None:
                zeros = [v.new_zeros(()).expand(count, *v.shape) for v in values]
                full = [z if t is None else t for t, z in zip(curved, zeros, strict=True)]
                moved = _along(plain, values, full)
                second = [total(pair) for pair in zip(second, moved, strict=True)]
        record.autograd[name] += 1
    for k, position in enumerate(smooth):
        outputs[position] = Expansion(outputs[position], first[k], second[k], frame)
    wrapped = [some.constant(out) if isinstance(out, Tensor) else out for out in outputs]
    return tree_unflatten(wrapped, out_structure)


def _last(rows: Sequence[Tensor]) -> list[Tensor]:
    """One row of each stack: not the first, which torch's faults with broadcast stacks spare."""
    return [t[-1] for t in rows]


def _size(parts: Sequence[Tensor]) -> float:
    out = 0.0
    for t in parts:
        out += float(t.detach().abs().sum())
    return out


def _is_expansion(x: Any) -> bool:
    return isinstance(x, Expansion)


def _is_continuous(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def _derivative(plain: Plain, values: Any, tangents: Any) -> tuple[Tensor, ...]:
    """D f along tangents by forward mode, or by reverse mode twice where torch has none."""
    try:
        return jvp(plain, tuple(values), tuple(tangents))[1]
    except NotImplementedError:
        outputs, back = _pull_back(plain, values)
        _, forth = _pull_back(back, [tuple(map(torch.zeros_like, outputs))])
        return forth(tuple(tangents))[0]


def _pull_back(f: Callable[..., Any], values: Sequence[Any]) -> tuple[Any, Callable[..., Any]]:
    """F's value, and the linear map of cotangents."""
    value, back, *_ = vjp(f, *values)
    return value, back


def _along(plain: Plain, values: Sequence[Tensor], rows: Sequence[Any]) -> tuple[Tensor, ...]:
    """D f for each row."""
    return torch.vmap(lambda *ts: _derivative(plain, values, ts))(*rows)


def _twice(
    plain: Plain, values: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """D²f for each pair of rows."""
    n = len(values)

    def along(*sides: Tensor) -> tuple[Tensor, ...]:
        return _derivative(lambda *xs: _derivative(plain, xs, sides[:n]), values, sides[n:])

    return torch.vmap(along)(*left, *right)


# Forward mode is a witness: reverse mode is asked as well, the first time a function is met


def _check_first(
    plain: Plain, name: str, values: Any, tangents: Any, forward: Sequence[Tensor]
) -> None:
    with torch.enable_grad():
        outputs, back = _pull_back(plain, values)
        weights = tuple(_weights(out) for out in outputs)
        reverse = _pairing(back(weights), tangents)
    _compare(name, "first", _pairing(weights, forward), reverse, forward, _size(outputs))


def _check_second(
    plain: Plain,
    name: str,
    values: Any,
    left: Any,
    right: Any,
    forward: Sequence[Tensor],
    size: float,
) -> None:
    weights = tuple(_weights(out) for out in forward)

    def slope(*xs: Tensor) -> Tensor:
        return _pairing(_pull_back(plain, xs)[1](weights), left)

    with torch.enable_grad():
        value, back = _pull_back(slope, values)
        reverse = _pairing(back(torch.ones_like(value)), right)
    _compare(name, "second", _pairing(weights, forward), reverse, forward, size)


def _weights(out: Tensor) -> Tensor:
    """Something without symmetries, and without a random generator's state."""
    n = torch.arange(1, out.numel() + 1, device=out.device, dtype=torch.float64)
    w = torch.cos(n * n * 0.7548776662466927).to(out.real.dtype if out.is_complex() else out.dtype)
    return (w.to(out.dtype) * (1 + 0.5j) if out.is_complex() else w).reshape(out.shape)


def _pairing(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Re Σ ā b."""
    terms = [(x.conj() * y).sum() for x, y in zip(a, b, strict=True)]
    real = [t.real if t.is_complex() else t for t in terms]
    return torch.stack(real).sum()


def _compare(
    name: str, order: str, forward: Tensor, reverse: Tensor, parts: Any, size: float
) -> None:
    """``size`` is that of what is differentiated, so that derivatives may vanish."""
    size = max(_size(parts), float(reverse.detach().abs()), size)
    gap = float((forward - reverse).detach().abs())
    if not gap <= 1e5 * torch.finfo(forward.dtype).eps * size:
        raise InputError(
            f"torch's {name} has no rule, and its {order} derivatives by forward and by reverse "
            f"mode differ by {gap:.1e}, where their entries add up to {size:.1e}: one of them is "
            "wrong. Write the function out of others"
        )
