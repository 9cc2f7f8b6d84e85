"""Convolutions of many images, as tangents are, by what is fastest on a CPU.

oneDNN takes vectors over channels of the output, most of whose lanes idle where an image has one or
three.  There one product of matrices multiplies, and shifted sums place what it gave.  Transposed
convolutions with strides are faster on images whose channels lie side by side in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kahler_verify.linear_algebra.products import in_forward_mode, is_transformed

__all__ = ["by_products", "convolution"]

# Measured with one thread at 16 – 64 channels of 7 × 7 to 64 × 64: .15 – .8 of the time.
FEW_OUTPUTS = 4
MANY_IMAGES = 8
# Strides of 2, kernels of 3 and 4, 16 – 256 channels of 4 × 4 to 32 × 32: .3 – .95 of the time.
CHANNELS_LAST_FROM = 64  # images
_AT_ONCE = 2**18  # numbers of a product, which stay in the cache until they are summed

Pair = tuple[int, int]


def convolution(
    call: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    *rest: Any,
    as_torch_has_it: bool = False,
    **named: Any,
) -> Tensor:
    """``call(x, weight, None, *rest, **named)`` of a convolution.

    Args:
        call: ``conv2d`` or ``conv_transpose2d`` of torch; any other is simply called.
        x: images [n, c, h, w].
        weight: as torch has it.
        rest: of its arguments.
        as_torch_has_it: also in memory; otherwise the result may have channels last.
        named: of its arguments.
    """
    found = None
    many = len(x) >= CHANNELS_LAST_FROM and x.dtype == weight.dtype == torch.float32
    many = many and not as_torch_has_it
    if call is functional.conv2d and _many(x, weight):
        found = _direct(x, weight, *rest, **named)
    elif call is functional.conv_transpose2d and _many(x, weight):
        found = _transposed(x, weight, *rest, **named)
        strides = _pair(rest[0] if rest else named.get("stride", 1))
        if found is None and many and min(strides) > 1 and min(x.shape[2:]) > 1:
            x = x.contiguous(memory_format=torch.channels_last)
    return call(x, weight, None, *rest, **named) if found is None else found


def _many(x: Tensor, weight: Tensor) -> bool:
    if x.ndim != 4 or len(x) < MANY_IMAGES or x.device.type != "cpu":
        return False
    if not torch.backends.mkldnn.enabled:  # as where the inductor is to choose; sums in place
        return False  # of parts take it minutes to compile
    return x.is_floating_point() and not (is_transformed(x, weight) or in_forward_mode())


def _pair(value: Any) -> Pair:
    first, *others = value if isinstance(value, list | tuple) else (value,)
    return first, others[0] if others else first


def _direct(
    x: Tensor,
    weight: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """One with few outputs: the transposed one by the kernel turned round."""
    if isinstance(padding, str) or groups != 1 or len(weight) > FEW_OUTPUTS:
        return None
    (p, q), (k, l) = _pair(padding), weight.shape[2:]  # noqa: E741
    if _pair(stride) != (1, 1) or _pair(dilation) != (1, 1) or p >= k or q >= l:
        return None
    turned = weight.flip(2, 3).transpose(0, 1)
    return by_products(x, turned, (1, 1), (k - 1 - p, l - 1 - q), (0, 0))


def _transposed(
    x: Tensor,
    weight: Tensor,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor | None:
    if groups != 1 or _pair(dilation) != (1, 1) or weight.shape[1] > FEW_OUTPUTS:
        return None
    return by_products(x, weight, _pair(stride), _pair(padding), _pair(output_padding))


def by_products(
    x: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    more: Pair,
) -> Tensor:
    """y[s i + k - p] = Σ x[i] W[k], with k = s a + b: a product for all k, then a sum for each a.

    Args:
        x: images [n, c, h, w].
        weight: W [c, outputs, k, l].
        stride: s.
        padding: p.
        more: rows and columns that the output has besides (``output_padding``).
    """
    (s, t), (c, outputs, k, l) = stride, weight.shape  # noqa: E741
    m, o = -(-k // s), -(-l // t)
    whole = functional.pad(weight, (0, o * t - l, 0, m * s - k))
    rows = whole.reshape(c, outputs, m, s, o, t).permute(2, 4, 3, 5, 1, 0).reshape(-1, c)
    h, w = x.shape[2:]
    size = [(h - 1) * s + k + more[0] - 2 * padding[0], (w - 1) * t + l + more[1] - 2 * padding[1]]

    def some(x: Tensor) -> Tensor:
        terms = torch.matmul(rows, x.flatten(2).contiguous())
        terms = terms.view(len(x), m, o, s, t, outputs, h, w)
        # rows and columns of zeros, where more of them are wanted than W reaches
        spare = [max(0, -(-(n + p) // r) - (e - 1 + i)) for n, p, r, e, i in
                 zip(size, padding, stride, (m, o), (h, w), strict=True)]  # fmt: skip
        out = x.new_zeros(len(x), s, t, outputs, h + m - 1 + spare[0], w + o - 1 + spare[1])
        for a in range(m):
            for b in range(o):
                out[..., a : a + h, b : b + w] += terms[:, a, b]
        image = out.permute(0, 3, 4, 1, 5, 2).flatten(4).flatten(2, 3)
        return image[..., padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]

    at_once = max(1, _AT_ONCE // (len(rows) * h * w))
    return torch.cat([some(part) for part in x.split(at_once)])
