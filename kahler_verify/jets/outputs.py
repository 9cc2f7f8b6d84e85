"""What modules return: tensors in tuples, dictionaries, dataclasses and distributions."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from kahler_verify.errors import InputError
from kahler_verify.jets.tensor import Jet
from kahler_verify.rules.expansion import Expansion

__all__ = ["joined", "parameters", "transform", "values"]


def transform(outputs: Any, leaf: Callable[[Tensor], Any]) -> Any:
    """The same structure with another thing in the place of each tensor."""
    return _together([outputs], lambda tensors: leaf(tensors[0]))


def values(outputs: Any) -> Any:
    """What the module returns for plain tensors: distributions are such of plain tensors again."""
    return transform(outputs, lambda t: t.value if isinstance(t, Jet) else t)


def parameters(law: Distribution) -> dict[str, Any]:
    """The parameters that a distribution was made of, by torch's names for them."""
    own = {name: vars(law)[name] for name in law.arg_constraints if name in vars(law)}
    for name, part in vars(law).items():
        if isinstance(part, Distribution):
            own |= {f"{name}.{inner}": each for inner, each in parameters(part).items()}
    return own


def joined(pieces: list[Any]) -> Any:
    """The outputs for a whole batch, from those for its pieces."""
    return pieces[0] if len(pieces) == 1 else _together(pieces, _cat)


def _cat(tensors: list[Tensor]) -> Any:
    if not isinstance(tensors[0], Jet):
        return torch.cat(tensors)
    expansions = [jet.expansion for jet in tensors]  # type: ignore[attr-defined]
    if len({x.frame for x in expansions}) > 1:
        raise InputError("expected the module to be holomorphic at all points, or at none")

    def rows(k: int) -> Tensor | None:
        each = [x.rows[k] for x in expansions]
        count = next((len(t) for t in each if t is not None), None)
        if count is None:
            return None
        return torch.cat(
            [
                x.value.new_zeros(count, *x.value.shape) if t is None else t
                for t, x in zip(each, expansions, strict=True)
            ],
            1,
        )

    value = torch.cat([x.value for x in expansions])
    return Jet(Expansion(value, rows(0), rows(1), expansions[0].frame))


def _together(pieces: list[Any], leaf: Callable[[list[Tensor]], Any]) -> Any:
    """Pieces of one structure, each set of tensors made one thing."""
    one = pieces[0]
    if isinstance(one, Tensor):
        return leaf(pieces)
    if isinstance(one, torch.Size) and len(one) and len({p[0] for p in pieces}) >= 1:
        return torch.Size([sum(p[0] for p in pieces), *one[1:]]) if len(pieces) > 1 else one
    if isinstance(one, tuple | list) and not isinstance(one, torch.Size):
        parts = [_together(list(each), leaf) for each in zip(*pieces, strict=True)]
        return type(one)(*parts) if hasattr(one, "_fields") else type(one)(parts)
    if isinstance(one, Mapping) and not dataclasses.is_dataclass(one):
        out = copy.copy(one)
        for key in one:
            out[key] = _together([p[key] for p in pieces], leaf)  # type: ignore[index]
        return out
    if isinstance(one, Distribution) or (
        dataclasses.is_dataclass(one) and not isinstance(one, type)
    ):
        return _of_attributes(pieces, leaf)
    return one


def _of_attributes(pieces: list[Any], leaf: Callable[[list[Tensor]], Any]) -> Any:
    one = pieces[0]
    out = copy.copy(one)
    for name, attribute in vars(one).items():
        if name == "_event_shape":
            continue
        new = _together([vars(p)[name] for p in pieces if name in vars(p)], leaf)
        if new is not attribute:
            object.__setattr__(out, name, new)
            if isinstance(out, Mapping):  # as transformers' and diffusers' outputs are
                dict.__setitem__(out, name, new)  # type: ignore[index]
    return out
