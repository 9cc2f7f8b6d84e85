"""Jets of decoders: the Wirtinger derivatives of mean and covariance that kernels take as input.

A decoder maps z to a Gaussian with mean μ(z) and covariance Σ(z). Their jets are named as the
kernels' arguments: a field, "mu" or "Sigma", an underscore, one "d" for each ∂ and one "b" for each
∂̄. ``Sigma_ddb`` is ∂_a ∂_c ∂̄_e Σ, a tensor [..., a, c, e, *field]: batch dimensions first, then the
holomorphic indices, then the antiholomorphic ones. A field is [D] for μ; for Σ it is [D, D] (full),
[D] (diagonal: the variances) or [] (scalar: the variance). ``Sigma_factor`` is L, s or s with
Σ = L Lᴴ, diag(s²) or s² I.

A ``Decoder`` has them in closed form (see ``propagation``). Those of other decoders come from
nested forward-mode differentiation in real coordinates (x, y), since torch.func refuses complex
inputs, and are combined into Wirtinger derivatives. Autograd is a witness and not the truth:
``check_decoder`` compares its derivatives with differences, and finds the mode that is right.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.jets.checks import check_decoder
from kahler_verify.jets.decoders import decoder_field_jets
from kahler_verify.jets.differentiation import MODES, Mode, differentiate, nested, refusal
from kahler_verify.jets.domain import nowhere
from kahler_verify.jets.gaussian_outputs import (
    DecoderFunction,
    LikelihoodStructure,
    at_least_one,
    at_point,
    evaluate,
    likelihood_structure,
    points_of,
)
from kahler_verify.jets.recognition import is_propagated
from kahler_verify.torch_state import alone, outside_autocast

__all__ = ["LikelihoodStructure", "check_decoder", "decoder_jets", "likelihood_structure"]

Orders = tuple[int, int]
_FIELDS = ("mu", "Sigma")
_NAME = re.compile(r"(mu|Sigma)(?:_(d*)(b*))?")
_FACTOR = "Sigma_factor"
_HIGHEST_ORDER = 4


@outside_autocast()
def decoder_jets(
    decoder: DecoderFunction,
    z: Tensor,
    names: Iterable[str],
    *,
    mode: Mode | None = None,
    chunk_size: int | None = None,
) -> dict[str, Tensor]:
    """The named jets at z [..., d]; see the module's text for the names.

    Differentiable with respect to whatever weights ``decoder`` closes over. Derivatives are
    complex; values are as the decoder gives them (variances and real means are real).

    Args:
        decoder: from z [..., d] complex to a ``ComplexNormal``, an ``Independent`` ``Normal`` with
            one event dimension, a ``MultivariateNormal``, or a pair (mean [..., D], log E|x-μ|²
            [..., D] or [...]), where the mean's dtype decides between complex and real. It must act
            on each point alone; ``check_decoder`` checks that.
        z: complex points.
        names: which jets, for example ``["Sigma_factor", "mu_d", "mu_b", "Sigma_d"]``.
        mode: None takes the closed form where a ``Decoder`` is recognised (see
            ``propagation.routes``), and nested forward mode elsewhere. "forward", "forward over
            reverse", "reverse" and "reverse by output" ask for autograd. Forward mode is faster by
            far; the others are for decoders for which torch's forward rules are missing, or wrong
            as layer_norm's are; a ``FisherMetric`` chooses by :func:`check_decoder`.
        chunk_size: how many points to differentiate at once; None takes all.

    Raises:
        InputError: z, a name or the decoder's output is malformed, or torch has no rule for one of
            the decoder's operations in this mode.
    """
    if mode is not None and mode not in MODES:
        raise InputError(
            f"expected mode to be 'forward' or 'reverse' or None (or one of {MODES}), "
            f"but got {mode!r}"
        )
    wanted = {name: _parse(name) for name in names}
    points = points_of(z)
    rows = at_least_one(points)  # vmap refuses empty batches
    order = max((sum(orders) for _, orders in wanted.values()), default=0)
    if mode is None and is_propagated(decoder) and order <= 3:
        pieces = [
            decoder_field_jets(decoder, some, wanted)
            for some in rows.split(chunk_size or len(rows))
        ]
        closed = pieces[0] if len(pieces) == 1 else _joined(pieces)
        return {
            name: jet[: len(points)].reshape((*z.shape[:-1], *jet.shape[1:]))
            for name, jet in closed.items()
        }
    real = evaluate(decoder, rows[:1])  # the decoder's own errors come from here, as they are

    def value(u: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        fields = at_point(decoder, _to_complex(u))
        return (_pairs(fields.mu), _pairs(fields.sigma)), fields.factor

    def all_points() -> tuple[tuple[tuple[Tensor, ...], ...], Tensor]:
        derivatives = nested(value, order, mode or "forward")
        inputs = _to_real(rows.clone() if rows.is_inference() else rows)
        return torch.vmap(derivatives, chunk_size=chunk_size)(inputs)

    try:
        with alone():
            derivatives, factor = differentiate(all_points)
    except (NotImplementedError, RuntimeError) as error:
        raise refusal(error, order) from error
    values = {"mu": real.mu.is_complex(), "Sigma": real.sigma.is_complex()}

    jets = {}
    for name, (field, orders) in wanted.items():
        if name == _FACTOR:
            jet = factor
        else:
            jet = _combine(derivatives[sum(orders)][_FIELDS.index(field)], *orders)
            if orders == (0, 0) and not values[field]:
                jet = jet.real
        jet = nowhere(jet, derivatives[0]) if orders != (0, 0) else jet
        jets[name] = jet[: len(points)].reshape((*z.shape[:-1], *jet.shape[1:]))
    return jets


def _joined(pieces: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def _parse(name: str) -> tuple[str, Orders]:
    if name == _FACTOR:
        return "factor", (0, 0)
    match = _NAME.fullmatch(name)
    orders = (len(match[2] or ""), len(match[3] or "")) if match else (0, 0)
    if match is None or name.endswith("_") or sum(orders) > _HIGHEST_ORDER:
        raise InputError(
            "names: expected 'Sigma_factor', or 'mu' or 'Sigma' followed by nothing or by '_', d's "
            f"and b's, at most {_HIGHEST_ORDER} in all (as in 'mu_ddb'), but got {name!r}"
        )
    return match[1], orders


def _to_real(points: Tensor) -> Tensor:
    return torch.cat([points.real, points.imag], dim=-1)


def _to_complex(u: Tensor) -> Tensor:
    real, imaginary = u.chunk(2, dim=-1)
    return torch.complex(real, imaginary)


def _pairs(field: Tensor) -> Tensor:
    if field.is_complex():
        return torch.view_as_real(field.resolve_conj())
    return torch.stack([field, torch.zeros_like(field)], dim=-1)


def _combine(derivative: Tensor, holomorphic: int, antiholomorphic: int) -> Tensor:
    """Real derivatives [B, *field, 2, 2d, ..., 2d] to the jet [B, d, ..., d, *field]."""
    order = holomorphic + antiholomorphic
    field_axes = derivative.ndim - order - 2  # all but the batch, the pair and the u axes
    pair = 1 + field_axes
    jet = torch.view_as_complex(derivative.movedim(pair, -1).contiguous())
    jet = jet.movedim(list(range(pair, pair + order)), list(range(1, 1 + order)))
    for axis in range(1, 1 + order):
        x, y = jet.chunk(2, dim=axis)
        jet = (x - 1j * y) / 2 if axis <= holomorphic else (x + 1j * y) / 2
    return jet
