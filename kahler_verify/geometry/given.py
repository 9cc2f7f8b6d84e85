"""A metric that is given as a function z ↦ g(z), with derivatives by checked autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import MetricJet
from kahler_verify.geometry.each_point import require_each_point_alone
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.linear_algebra.products import is_transformed
from kahler_verify.running.parameters import moved_module
from kahler_verify.torch_state import alone

STEP = 1e-3  # of the second differences, times the scale of z
DIFFERENCE = 1e-3  # relative, that differences of a smooth function may be off by
AGREEMENT = 1e-6  # relative, between two modes of autograd in double precision


class GivenMetric(RiemannianMetric):
    """See :meth:`RiemannianMetric.from_function`."""

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        *,
        check: bool,
        validate_args: bool,
        memory_budget: int,
    ):
        super().__init__(validate_args=validate_args, memory_budget=memory_budget)
        if not callable(function):
            raise InputError(
                f"function: expected a callable z ↦ g(z), got {type(function).__name__}"
            )
        self.function = function
        self._unchecked = check  # its derivatives
        self._points_unchecked = check

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:
        self.function = moved_module("function", self.function, move)

    @alone()  # forward-mode levels belong to the process
    def jet(self, z: Tensor, order: int) -> MetricJet:
        """The function's values at z [B, d], and derivatives of each along the coordinates."""
        known = len(z) == 0 or is_transformed(z)  # or the check is made in a later call
        if self._points_unchecked and not known:
            require_each_point_alone("function", lambda z: [self._value(z)], z)
            self._points_unchecked = False
        g = self._value(z)
        if self._unchecked and order and not known:
            sound = g.detach().isfinite().all(-1).all(-1).nonzero().flatten()
            if len(sound):  # outside its domain a function has nothing to be checked
                self._check(z[sound[:1]])
        if order == 0:
            return MetricJet(g)
        axes = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        along = [axis.expand_as(z) for axis in axes]
        if order == 1:
            return MetricJet(g, torch.stack([self._slope(z, e) for e in along], -3))
        d, dd = [], [[g] * len(along) for _ in along]
        for c, first in enumerate(along):
            for e in range(c + 1):
                slope, second = jvp(lambda z, by=first: self._slope(z, by), (z,), (along[e],))[:2]
                dd[c][e] = dd[e][c] = second
            d.append(slope)
        return MetricJet(
            g, torch.stack(d, -3), torch.stack([torch.stack(row, -3) for row in dd], -4)
        )

    def _value(self, z: Tensor) -> Tensor:
        g = self.function(z)
        expected = (*z.shape, z.shape[-1])
        if not isinstance(g, Tensor) or g.shape != expected or g.dtype != z.dtype:
            got = f"{g.dtype} {list(g.shape)}" if isinstance(g, Tensor) else type(g).__name__
            raise InputError(
                f"function: expected g(z) of {z.dtype} and shape {list(expected)} for z of shape "
                f"{list(z.shape)}, got {got}"
            )
        if self.validate_args and g.numel() and not is_transformed(g):
            gap = (g - g.mT).abs().amax()
            if bool(gap > 1e3 * torch.finfo(g.dtype).eps * g.abs().amax()):
                raise InputError(
                    f"function: expected symmetric matrices, got |g - gᵀ| up to {gap.item():.3g}"
                )
        return g

    def _slope(self, z: Tensor, direction: Tensor) -> Tensor:
        slope: Tensor = jvp(self._value, (z,), (direction,))[1]
        return slope

    def _check(self, z: Tensor) -> None:
        """First and second derivatives along one direction: two modes, and differences."""
        z, function = z.detach().double(), self.function
        if isinstance(function, nn.Module):
            function = copy.deepcopy(function).double()
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(z.shape[-1], dtype=z.dtype, generator=generator).to(z.device)
        v = (v / (v * v).sum().sqrt()).expand_as(z)
        try:
            value = function(z)
            weights = torch.randn(value.shape, dtype=z.dtype, generator=generator).to(z.device)

            def along(t: Tensor) -> Tensor:
                return (function(z + t * v) * weights).sum()

            def reverse(t: Tensor) -> Tensor:
                slope: Tensor = vjp(along, t)[1](torch.ones_like(t))[0]
                return slope

            zero, one = z.new_zeros(()), z.new_ones(())
            first, second = jvp(lambda t: jvp(along, (t,), (one,))[1], (zero,), (one,))[:2]
            first_back, second_back = vjp(reverse, zero)[0], vjp(reverse, zero)[1](one)[0]
            scale = (value.abs() * weights.abs()).sum()
            step = STEP * max(1.0, float(z.abs().max()))
            ahead, behind = along(zero + step), along(zero - step)
        except RuntimeError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                "function: expected g(z) to be made by operations that torch differentiates twice "
                f"forwards and backwards, also in double precision, but {error}"
            ) from error
        difference = (ahead - behind) / (2 * step)
        bend = (ahead - 2 * along(zero) + behind) / step**2
        for what, one_way, other, allowed in (
            ("first derivatives, forward and reverse mode", first, first_back, AGREEMENT),
            ("second derivatives, forward and reverse mode", second, second_back, AGREEMENT),
            ("first derivatives and differences", first, difference, DIFFERENCE),
            ("second derivatives and differences", second, bend, DIFFERENCE / STEP * 10),
        ):
            size = scale + one_way.abs() + other.abs()
            if not bool((one_way - other).abs() <= allowed * size):
                raise InputError(
                    f"function: torch's derivatives of g(z) contradict each other: {what} are "
                    f"{one_way.item():.6g} and {other.item():.6g} (is something detached, computed "
                    "from other points of the batch, or not differentiable there?)"
                )
        self._unchecked = False
