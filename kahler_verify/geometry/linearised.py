"""J, F and Jᵀ of a metric's law at points, without J: what its products with vectors are made of.

Jᵀ is a backward pass.  J u is a tangent, and from the second time on what a tape of one gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kahler_verify.errors import InputError
from kahler_verify.geometry.linear_tape import LinearTape, Transposed
from kahler_verify.jets import propagate
from kahler_verify.torch_state import alone, plain_torch

__all__ = ["LawAt", "Linearised", "NoBackwardPassError", "require_transposed"]

Letters = dict[str, Tensor]

_FEW = 2  # vectors that go without a stack
# Bytes kept for a backward pass from values, up to which a tape of tangents is kept beside it.
# Beyond, the backward pass goes through the tape, too, which keeps no more than the values' does.
_TWICE_UP_TO = 16 * 2**20
_NUMBERS = 12  # held at one time for each tangent's entry of the widest layer


class LawAt(NamedTuple):
    """The Fisher information F of laws at points, in the coordinates that their letters are.

    Attributes:
        lower: from tangents t [B, ...] of the letters to covectors F t.
        bend: to Γ(t, t) of the laws' own space.
        gram: from rows [B, r, ...] of tangents to their products, [B, r, r].
        flat: is F the same for all values of the letter mu?
    """

    lower: Callable[[Mapping[str, Tensor]], Letters]
    bend: Callable[[Mapping[str, Tensor]], Letters]
    gram: Callable[[Mapping[str, Tensor]], Tensor]
    flat: bool


class OfALaw(Protocol):
    """A metric that is pulled back from a law's parameters, as far as it is wanted here."""

    memory_budget: int
    validate_args: bool

    def _letters(self, z: Tensor) -> Letters: ...

    def _law(self, z: Tensor) -> LawAt: ...


class NoBackwardPassError(InputError):
    """The decoder has none, or one that is not that of its values."""


def require_transposed(u: Tensor, out: Tensor, tangents: Letters, covectors: Letters) -> None:
    """⟨u, Jᵀ F J u⟩ is ⟨J u, F J u⟩, or the backward pass is not that of the tangents."""
    with torch.no_grad():
        count = len(u)
        products = [
            (t * covectors[name]).reshape(count, -1).sum(-1) for name, t in tangents.items()
        ]
        pushed = torch.stack(products).sum(0)
        gap = ((u * out).sum(-1) - pushed).abs()
        size = u.norm(dim=-1) * out.norm(dim=-1) + pushed.abs()
        # convolutions of some GPUs round to three digits
        if bool((gap > torch.finfo(out.dtype).eps ** 0.25 * size).any()):
            raise NoBackwardPassError(
                "decoder: expected a backward pass that is the transposed of its tangents, but it "
                "is not (has a function a gradient of its own?); metric_matrix, and matrix() of an "
                "operator, take tangents alone"
            )


class Linearised:
    """J, F and Jᵀ at points z [B, d], for one tangent at each; or at one point, for any number.

    Attributes:
        passes: what was done, in passes through the decoder: of a value, a tangent or a cotangent.
        widest: how many numbers the widest layer has at a point.
    """

    @plain_torch()
    def __init__(self, metric: OfALaw, z: Tensor):
        self.metric, self.passes = metric, 1
        self._tape: LinearTape | None = None
        self._known: dict[str, tuple[Any, Any]] = {}  # what the first vector and covector gave
        self._is_transposed = False  # so far as is known
        with torch.no_grad():
            self._law = metric._law(z.detach())
        self.z = z.detach().clone().requires_grad_()
        kept = _Kept({}, {})
        self._transposed: Transposed | None = self._of_values(kept)
        self._weights = list(kept.weights.values())
        self._versions = self._present_versions()
        self._numbers = sum(x.numel() for x in self._transposed.letters.values())
        self._records = len(z) == 1
        self.widest = max((count // len(z) for count, _ in kept.values.values()), default=1)
        self._kept = sum(count * size for count, size in kept.values.values())

    def _of_values(self, kept: _Kept) -> Transposed:
        """Jᵀ by a backward pass from the law's parameters."""

        def keep(x: Tensor) -> tuple[Tensor, int | None]:
            # self here, or x's history, would keep the graph for ever
            weight = x if x._base is None else x._base
            if isinstance(weight, nn.Parameter):
                kept.weights[x.data_ptr()] = weight
                return x.detach(), None
            kept.values[x.data_ptr()] = x.numel(), x.element_size()
            return x.detach(), x._version

        self.passes += 1
        with (
            alone(),
            sdpa_kernel(SDPBackend.MATH),  # fused attention has no second backward pass
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(keep, _unpacked),
        ):
            return Transposed(self.z, self.metric._letters(self.z))

    def _present_versions(self) -> list[int]:
        return [weight._version for weight in self._weights]

    def _require_unchanged(self) -> None:
        if self._present_versions() != self._versions:
            raise InputError(
                "decoder: expected weights as they were when the operator was made, but some were "
                "changed in place since; make a new one with metric.operator"
            )

    @property
    def outputs(self) -> int:
        """How many numbers the law's parameters are, at a point."""
        return self._numbers // len(self.z)

    @property
    def at_once(self) -> int:
        """How many tangents fit the metric's memory budget; more than some 64 gain nothing."""
        each = _NUMBERS * self.widest * self.z.element_size()
        return max(1, min(64, self.metric.memory_budget // each))

    @plain_torch()
    @torch.no_grad()
    def push(self, u: Tensor) -> Letters:
        """J u [r, ...] of r vectors u [r, d] at the one point, or of one at each point."""
        self._require_unchanged()
        z = self.z.detach()
        at_one = len(z) == 1
        directions = u[None] if at_one else u[:, None]
        jets: dict[str, Any] = propagate(self.metric._letters, z, 1, directions)
        self.passes += 1 + len(u)
        self._versions = self._present_versions()  # some decoders bound their weights in each call
        return {name: jet.d[0] if at_one else jet.d[:, 0] for name, jet in jets.items()}

    @plain_torch()
    def lower(self, tangents: Mapping[str, Tensor]) -> Letters:
        """F t."""
        with torch.no_grad():
            return self._law.lower(tangents)

    @plain_torch()
    def pull(self, covectors: Mapping[str, Tensor]) -> Tensor:
        """Jᵀ w [r, d]."""
        if self._transposed is None:
            self._transposed = self._of_values(_Kept({}, {}))
        count = len(next(iter(covectors.values())))
        self.passes += count
        if len(self.z) > 1:
            return self._transposed(covectors)
        each = [{name: x[i : i + 1] for name, x in covectors.items()} for i in range(count)]
        rows = [self._transposed(one) for one in each]
        if self._records and self._tape is None:
            one = {name: x.clone() for name, x in each[0].items()}
            self._known.setdefault("covector", (one, rows[0]))
        return torch.cat(rows)

    def along(self, u: Tensor) -> Letters:
        """J u as :meth:`push` has it; a few vectors may go without a pass of the value.

        From the second time on J u is what a :class:`LinearTape` of such a call gives.  What the
        first ones gave has to come out the same, or there is none.
        """
        if not self._records or len(u) > _FEW:
            return self.push(u)
        if self._tape is None and len(self._known) < 2:
            out = self.push(u)
            self._known["vector"] = u[:1].detach().clone(), {n: x[:1] for n, x in out.items()}
            return out
        if self._tape is None:
            first = self._record(u[:1])
            if self._tape is None:
                return self.push(u)
            if len(u) == 1:
                return first
        self.passes += len(u)
        rows = [self._tape(row[None]) for row in u]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _record(self, u: Tensor) -> Letters:
        """Make a tape, whose J u this is; where memory is a matter, Jᵀ goes by it, too.

        If it contradicts what is known, there is none, now and later.
        """
        (vector, tangents), (covector, pulled) = self._known["vector"], self._known["covector"]
        self._known = {}
        large = self._kept > _TWICE_UP_TO
        if large:
            self._transposed = None
        agrees, first = False, {}
        # some function takes no notice of what is recorded, or asks for more
        with suppress(RuntimeError):
            tape = LinearTape(self.push, u)
            first = tape.first
            if large:
                transposed = tape.transposed(vector)
                self.passes += 2  # with a cotangent
                agrees = _agree(transposed.letters, tangents)
                agrees &= _agree({"z": transposed(covector)}, {"z": pulled})
                self._transposed = transposed if agrees else None
            else:
                self.passes += 1
                agrees = _agree(tape(vector), tangents)
            self._tape = tape if agrees else None
        self._records = agrees
        return first

    @plain_torch()
    def product(self, u: Tensor) -> Tensor:
        """G u [r, d].

        Raises:
            InputError: weights were changed in place, or the backward pass is not that of J.
        """
        self._require_unchanged()
        tangents = self.along(u)
        covectors = self.lower(tangents)
        out = self.pull(covectors)
        if self.metric.validate_args and not self._is_transposed:
            require_transposed(u, out, tangents, covectors)
            self._is_transposed = True
        return out


class _Kept(NamedTuple):
    """What a backward pass keeps, by address.

    Attributes:
        values: how many numbers, and how many bytes each.
        weights: themselves.
    """

    values: dict[int, tuple[int, int]]
    weights: dict[int, Tensor]


def _unpacked(kept: tuple[Tensor, int | None]) -> Tensor:
    """As torch checks it where nothing is packed; weights are watched by themselves."""
    x, version = kept
    if version is not None and x._version != version:
        raise NoBackwardPassError(
            "decoder: expected a backward pass through it, but it writes in place over a value "
            "that is wanted there; metric_matrix, and matrix() of an operator, take tangents alone"
        )
    return x


def _agree(found: Letters, known: Letters) -> bool:
    """Up to rounding, relative to the largest number?"""
    size = max(x.abs().max() for x in known.values())
    gap = max((found[name] - x).abs().max() for name, x in known.items())
    return bool(gap <= torch.finfo(gap.dtype).eps ** 0.5 * size)
