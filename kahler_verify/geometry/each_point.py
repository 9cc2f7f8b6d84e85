"""Whether a function of a batch acts on each point alone; else no point has its own metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.jets.gaussian_outputs import at_least_one

AGREEMENT = 1e4  # units in the last place: a product of a batch rounds otherwise than one of a row


def require_each_point_alone(
    name: str, values: Callable[[Tensor], Sequence[Tensor]], z: Tensor
) -> None:
    """Compare a batch of a few points of z [B, d] with each of them.

    Raises:
        InputError: values [B, ...] differ, so that no point has a metric of its own.
    """
    with torch.no_grad():
        some = at_least_one(z.detach())[:3]
        some = torch.cat([some, some[:1] * 1.125 + 0.125])
        together = values(some)
        for i in range(len(some)):
            for batch, single in zip(together, values(some[i : i + 1]), strict=True):
                gap = (batch[i] - single[0]).abs().amax()
                size = torch.maximum(batch[i].abs().amax(), single[0].abs().amax())
                if bool(gap > AGREEMENT * torch.finfo(batch.dtype).eps * size):
                    raise InputError(
                        f"{name}: expected a function of each point alone that is the same in each "
                        f"call, but at a point in a batch of {len(some)} and at the point by itself"
                        f" it differs by {gap.item():.3g} (does it use other points of the batch, "
                        "as a mean or a normalisation over it, or is it random?)"
                    )
