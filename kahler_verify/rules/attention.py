"""Attention: softmax(q kᵀ/√n) v, composed of the rules for products and softmax."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kahler_verify.rules.arithmetic import plus, times
from kahler_verify.rules.expansion import Expansion, linear
from kahler_verify.rules.linear import matrix_product
from kahler_verify.rules.reductions import softmax
from kahler_verify.rules.registry import NotCovered, rule

Varying = Expansion | Tensor


@rule("scaled_dot_product_attention", several=True, holomorphic=False)
def attention(
    call: Any,
    query: Varying,
    key: Varying,
    value: Varying,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Expansion:
    """A boolean mask says what takes part; another one is added to the scores."""
    if dropout_p or enable_gqa:
        raise NotCovered
    plain = [x.value if isinstance(x, Expansion) else x for x in (query, key, value)]
    scale = 1 / math.sqrt(plain[0].shape[-1]) if scale is None else scale
    transposed = linear(_transposed, key) if isinstance(key, Expansion) else _transposed(key)
    scores = _product(times(query, scale), transposed)
    if is_causal:
        rows, columns = plain[0].shape[-2], plain[1].shape[-2]
        ones = torch.ones(rows, columns, dtype=torch.bool, device=plain[0].device)
        attn_mask = ones.tril()
    if attn_mask is not None:
        scores = _masked(scores, attn_mask)
    weights = softmax(None, scores, -1) if isinstance(scores, Expansion) else scores.softmax(-1)
    out = _product(weights, value)
    return out.with_value(call(*plain, _plain(attn_mask), scale=scale))


def _transposed(t: Tensor) -> Tensor:
    return t.transpose(-1, -2)


def _plain(mask: Any) -> Any:
    return mask.value if isinstance(mask, Expansion) else mask


def _product(a: Varying, b: Varying) -> Any:
    if isinstance(a, Expansion) or isinstance(b, Expansion):
        return matrix_product(torch.matmul, a, b)
    return a @ b


def _masked(scores: Any, mask: Any) -> Any:
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=_plain(scores).dtype).masked_fill(~mask, -math.inf)
    both = isinstance(scores, Expansion) or isinstance(mask, Expansion)
    return plus(scores, mask) if both else scores + mask
