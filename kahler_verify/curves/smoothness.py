"""A warning where a decoder has layers whose derivatives jump: curves lose their order there."""

from __future__ import annotations

import warnings

from torch import nn

from kahler_verify.geometry.riemannian import RiemannianMetric

_KINKS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish)
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_JUMPS = (nn.ELU, nn.SELU, nn.CELU)


class SmoothnessWarning(UserWarning):
    """A decoder is not C², which curves take it to be."""


def warn_of_kinks(metric: RiemannianMetric) -> None:
    """Name the first layer of a metric's decoder that is not C²."""
    function = getattr(metric, "function", getattr(metric, "decoder", None))
    for name, layer in function.named_modules() if isinstance(function, nn.Module) else ():
        if isinstance(layer, _KINKS + _POOLS):
            text = (
                "is C⁰ only: geodesics bend at its kinks, second derivatives miss them, and "
                "searches may not converge"
            )
        elif isinstance(layer, _JUMPS):
            text = "is C¹ only: curves converge slowly with their mesh, and curvature jumps"
        else:
            continue
        warnings.warn(
            f"the layer {name!r} ({layer}) {text}; tanh, softplus or SiLU are smooth",
            SmoothnessWarning,
            stacklevel=4,
        )
        return
