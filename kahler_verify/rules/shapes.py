"""Functions that move entries about: each is linear, and vmap knows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kahler_verify.rules.arithmetic import plus
from kahler_verify.rules.expansion import Expansion, aligned, by_point, by_vmap, linear
from kahler_verify.rules.registry import NotCovered, rule

_VIEWS = (
    *("reshape", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "transpose"),
    *("permute", "movedim", "t", "T", "mT", "diagonal", "linalg_diagonal", "unfold"),
)
_RESHAPES = ("reshape", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze")
_SELECTIONS = ("select", "narrow", "unbind", "tensor_split", "hsplit", "vsplit", "dsplit")
_COPIES = (
    *("repeat", "tile", "repeat_interleave", "roll", "flip", "fliplr", "flipud", "rot90", "tril"),
    *("triu", "diag", "diag_embed", "diff", "index_select", "gather", "take_along_dim", "take"),
    *("masked_select", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
    *("native_channel_shuffle", "im2col", "col2im"),
)
_FOURIER = tuple(f"fft_{name}" for name in ("fft", "ifft", "fft2", "ifft2", "fftn", "ifftn"))
_REAL_FOURIER = tuple(
    f"fft_{name}"
    for name in ("rfft", "irfft", "rfft2", "irfft2", "rfftn", "irfftn", "hfft", "ihfft")
)
_SHIFTS = ("fft_fftshift", "fft_ifftshift")


@rule(*_VIEWS, *_COPIES, *_FOURIER, *_SHIFTS)
def moved(call: Any, x: Expansion, *arguments: Any, **named: Any) -> Any:
    """Linear over C; itself where a shape stays what it is, so that a head stays one."""
    name = getattr(call, "__name__", "")
    if name in _RESHAPES and call(x.outside, *arguments, **named).shape == x.outside.shape:
        return x
    return linear(lambda t: call(t, *arguments, **named), x)


@rule("expand", "broadcast_to")
def expanded(call: Any, x: Expansion, *shape: Any, **named: Any) -> Expansion:
    """Broadcast; itself where it has that shape, so that a head stays one."""
    shape = call(x.outside, *shape, **named).shape
    if shape == x.outside.shape:
        return x
    return linear(lambda t: t.expand(shape), x)


@rule("view")
def viewed(call: Any, x: Expansion, *shape: Any, **named: Any) -> Any:
    """Rows may lie in memory in another way than the value does."""
    if named or any(isinstance(each, torch.dtype) for each in shape):
        raise NotCovered
    value = call(x.value, *shape)
    if value.shape == x.value.shape:
        return x
    return linear(lambda t: t.reshape(*shape), x, value=value)


@rule(*_REAL_FOURIER, holomorphic=False)
def moved_over_the_reals(call: Any, x: Expansion, *arguments: Any, **named: Any) -> Any:
    """Linear over R."""
    return linear(lambda t: call(t, *arguments, **named), x)


@rule("chunk", "split", "split_with_sizes", "__getitem__", *_SELECTIONS)
def parts(call: Any, x: Expansion, *arguments: Any, **named: Any) -> Any:
    """Parts of a tensor; of a head's outputs they are those of its weights."""

    def part(t: Tensor) -> Any:
        return call(t, *arguments, **named)

    heads = _parts_of_head(part, x, (*arguments, *named.values()))
    if heads is not None:
        return heads
    return linear(part, x)


def _parts_of_head(part: Any, x: Expansion, arguments: tuple[Any, ...]) -> Any:
    """Where only outputs are selected, and points are left as they stand: W's rows instead."""
    head = x.waiting_head
    if head is None or x.value.ndim != 2 or not _keeps_points(arguments):
        return None
    value, weight = part(x.value), part(head.weight.mT)
    several = isinstance(value, tuple | list)
    values, weights = (value, weight) if several else ([value], [weight])
    if any(v.ndim != 2 or len(v) != len(x.value) for v in values):
        return None
    zero = head.weight.new_zeros(1, len(head.weight))
    bias = part(zero if head.bias is None else head.bias.expand(1, -1))
    out = tuple(
        Expansion(v, None, None, x.frame, head.changed(weight=w.mT, bias=b[0]))
        for v, w, b in zip(values, weights, bias if several else [bias], strict=True)
    )
    return out if several else out[0]


def _keeps_points(arguments: tuple[Any, ...]) -> bool:
    """Is the first axis untouched by construction: an index [:, …], or an axis that is the last?"""
    index = arguments[0] if arguments else None
    if isinstance(index, tuple):
        first = index[0] if index else None
        return len(index) > 1 and (first is Ellipsis or first == slice(None))
    return len(arguments) > 1 and arguments[1] in (1, -1)


@rule(
    "clone",
    "contiguous",
    "float",
    "double",
    "half",
    "bfloat16",
    "type",
    "cpu",
    "cuda",
    "cfloat",
    "cdouble",
    "requires_grad_",
    "pin_memory",
)
def cast(call: Any, x: Expansion, *arguments: Any, **named: Any) -> Expansion:
    """Another dtype or place for the same; itself where nothing changes."""
    value = call(x.value, *arguments, **named)
    if value is x.value:
        return x
    if not (value.is_floating_point() or value.is_complex()):
        x.frame.record.kink(call.__name__, -1)
        return x.constant(value)
    if x.value.is_complex() and not value.is_complex():
        raise NotCovered
    first, second = (None if t is None else t.to(value.dtype).to(value.device) for t in x.rows)
    return Expansion(value, first, second, x.frame)


@rule("to", several=True)
def to(call: Any, x: Any, *arguments: Any, **named: Any) -> Any:
    """To another dtype or place, or to those of a tensor that may vary itself."""
    plain = [a.outside if isinstance(a, Expansion) else a for a in arguments]
    named = {k: a.outside if isinstance(a, Expansion) else a for k, a in named.items()}
    if isinstance(x, Expansion):
        return cast(call, x, *plain, **named)
    return call(x, *plain, **named)


@rule("view_as", "reshape_as", "expand_as", several=True)
def like_another(call: Any, x: Any, other: Any) -> Any:
    """In the shape of a tensor that may vary itself."""
    if not isinstance(x, Expansion):
        return call(x, other.value)
    shape = (other.outside if isinstance(other, Expansion) else other).shape
    names: dict[str, Any] = {
        "view_as": Tensor.view,
        "reshape_as": Tensor.reshape,
        "expand_as": Tensor.expand,
    }
    if shape == x.outside.shape:
        return x
    return linear(lambda t: names[call.__name__](t, shape), x)


@rule("type_as", several=True)
def as_type_of_another(call: Any, x: Any, other: Any) -> Any:
    """In the dtype of a tensor that may vary itself."""
    other = other.value if isinstance(other, Expansion) else other
    return cast(Tensor.to, x, other.dtype) if isinstance(x, Expansion) else x.to(other.dtype)


@rule("masked_fill")
def masked_fill(call: Any, x: Expansion, mask: Tensor, value: Any) -> Expansion:
    """Affine: a constant that is filled in has no derivatives."""
    return linear(lambda t: call(t, mask, 0), x, value=call(x.value, mask, value))


@rule("broadcast_tensors", several=True)
def broadcast_tensors(call: Any, *tensors: Any) -> Any:
    """All in one shape."""
    if len(tensors) == 1 and isinstance(tensors[0], tuple | list):
        tensors = tuple(tensors[0])
    shapes = [(x.outside if isinstance(x, Expansion) else x).shape for x in tensors]
    if all(shape == shapes[0] for shape in shapes):  # as of one tensor alone
        return tuple(tensors)
    whole = torch.broadcast_shapes(*shapes)
    return tuple(
        x
        if shape == whole
        else linear(lambda t: t.expand(whole), x)
        if isinstance(x, Expansion)
        else x.expand(whole)
        for x, shape in zip(tensors, shapes, strict=True)
    )


@rule("cat", "stack", "hstack", "vstack", "dstack", "column_stack", "row_stack", several=True)
def joined(call: Any, tensors: Any, *arguments: Any, **named: Any) -> Expansion:
    """Linear in all of them together."""
    tensors = aligned(list(tensors))
    frame = next(x.frame for x in tensors if isinstance(x, Expansion))
    values = [x.value if isinstance(x, Expansion) else x for x in tensors]
    value = call(values, *arguments, **named)

    def rows(k: int) -> Tensor | None:
        each = [x.rows[k] if isinstance(x, Expansion) else None for x in tensors]
        count = next((len(t) for t in each if t is not None), None)
        if count is None:
            return None
        full = [
            v.new_zeros(()).expand(count, *v.shape) if t is None else t
            for t, v in zip(each, values, strict=True)
        ]
        return torch.vmap(lambda *ts: call(list(ts), *arguments, **named))(*full)

    return Expansion(value, rows(0), rows(1), frame)


@rule(
    "pad",
    "constant_pad_nd",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "_pad_circular",
)
def padded(
    call: Any, x: Expansion, pad: Any, mode: Any = "constant", value: Any = None
) -> Expansion:
    """Affine: a constant that is padded with has no derivatives."""
    if call.__name__ in ("pad", "_pad_enum"):
        result = call(x.value, pad, mode, value)
        return linear(lambda t: call(t, pad, mode, None), x, _rows(x, pad), result)
    if call.__name__ == "constant_pad_nd":
        fill = 0 if mode == "constant" else mode
        return linear(lambda t: call(t, pad, 0), x, _rows(x, pad), call(x.value, pad, fill))
    return linear(lambda t: call(t, pad), x, _rows(x, pad))


def _rows(x: Expansion, pad: Any) -> Any:
    """Points are left alone where their axis is not padded."""
    return by_point if len(pad) <= 2 * (x.value.ndim - 2) else by_vmap


@rule("where", several=True)
def where(call: Any, condition: Any, a: Any = None, b: Any = None) -> Expansion:
    """Linear in both, where the condition does not vary; else it is joined of pieces."""
    if a is None:
        raise NotCovered
    varying = [x for x in (condition, a, b) if isinstance(x, Expansion)]
    if isinstance(condition, Expansion):
        condition.frame.record.kink("where", -1)
        condition = condition.value
    plain = [x.value if isinstance(x, Expansion) else x for x in (a, b)]
    value = torch.where(condition, plain[0], plain[1])
    terms = [
        _masked(x, mask)
        for x, mask in ((a, condition), (b, ~condition))
        if isinstance(x, Expansion)
    ]
    if not terms:
        return varying[0].constant(value)
    out = terms[0] if len(terms) == 1 else plus(terms[0], terms[1])
    return out.with_value(value)


def _masked(x: Expansion, mask: Tensor) -> Expansion:
    return linear(
        lambda t: torch.where(mask, t, torch.zeros((), dtype=t.dtype, device=t.device)), x
    )


@rule("__setitem__", several=True)
def assigned(call: Any, x: Any, index: Any, new: Any) -> Expansion:
    """X with some entries replaced (the caller puts it in x's place)."""
    if _has_expansion(index):
        raise NotCovered

    def put(t: Tensor, n: Any) -> Tensor:
        out = t.clone()
        out[index] = n
        return out

    return replaced(x, new, put)


def replaced(x: Expansion, new: Any, put: Any) -> Expansion:
    """X with some entries replaced by new ones: put(x, new), linear in both together."""
    x, new = aligned([x, new])
    fresh = new if isinstance(new, Expansion) else None
    value = put(x.value, new if fresh is None else fresh.value)

    def rows(old: Tensor | None, more: Tensor | None) -> Tensor | None:
        if more is None:
            return (
                None
                if old is None
                else torch.vmap(lambda t: put(t, torch.zeros((), dtype=t.dtype, device=t.device)))(
                    old
                )
            )
        if old is None:
            old = value.new_zeros(()).expand(len(more), *value.shape)
        return torch.vmap(put)(old, more)

    pairs = zip(x.rows, (None, None) if fresh is None else fresh.rows, strict=True)
    first, second = (rows(old, more) for old, more in pairs)
    return Expansion(value, first, second, x.frame)


def _has_expansion(index: Any) -> bool:
    if isinstance(index, tuple | list):
        return any(map(_has_expansion, index))
    return isinstance(index, Expansion)
