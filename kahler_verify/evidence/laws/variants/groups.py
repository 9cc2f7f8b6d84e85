"""What runs against the kernels that it is made from: every layout, every plan, every product.

Geometry does not always hand plain complex tensors to a kernel.  A mixture's kernels run on layouts
and join blocks; a decoder's run on real planes, on reduced heads or on Gram matrices, and on the
mean's and the covariance's part apart.  Here each of these runs beside the plain kernel, which the
proofs are about, and has to agree with it to 1e-12 in float64, in the frame where g has unit
diagonal; gradients, which take g⁻¹, to 1e-12 cond(g).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.laws.variants.decoders import decoders
from kahler_verify.evidence.laws.variants.mixtures import mixtures
from kahler_verify.evidence.laws.variants.planes import planes
from kahler_verify.evidence.laws.variants.products import products
from kahler_verify.evidence.laws.variants.real_decoders import real_decoders
from kahler_verify.evidence.laws.variants.volumes import volumes

GROUPS: dict[str, Callable[[], Iterator[Finding]]] = {
    "mixtures": mixtures,
    "decoders": decoders,
    "real decoders": real_decoders,
    "planes": planes,
    "volumes": volumes,
    "products": products,
}


def compared(group: str) -> list[Finding]:
    """All comparisons of a group.

    Raises:
        EvidenceError: a plan, an elimination or a number of blocks that is to be tried never was.
    """
    with torch.enable_grad():
        return list(GROUPS[group]())


__all__ = ["GROUPS", "compared"]
