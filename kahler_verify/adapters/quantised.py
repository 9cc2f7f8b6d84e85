"""Linear layers whose weights are rounded to integers, as layers of the numbers they stand for.

Such layers round what goes through them too, and a rounded function has no derivatives: the
geometry is that of the weights, without that.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from kahler_verify.adapters.types import is_of

__all__ = ["dequantised"]


def dequantised(model: Any) -> Any:
    """A copy with ordinary layers in the place of torch's quantised linear ones.

    The model itself where it has none.  The copy's weights are those of now.
    """
    if not isinstance(model, nn.Module) or not any(map(_is_quantised, model.modules())):
        return model
    if _is_quantised(model):
        return _ordinary(model)
    out = copy.deepcopy(model)
    for module in list(out.modules()):
        for name, child in module.named_children():
            if _is_quantised(child):
                setattr(module, name, _ordinary(child))
    return out.train(model.training)


def _is_quantised(module: nn.Module) -> bool:
    return is_of(module, "torch.ao.nn.quantized", "Linear")


def _ordinary(module: Any) -> nn.Linear:
    weight: Tensor = module.weight().dequantize()
    bias: Tensor | None = module.bias()
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer
