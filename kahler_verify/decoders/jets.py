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
``check_decoder`` compares its modes with one another and with finite differences.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.func import jacfwd, jacrev

from kahler_verify.decoders.models import Decoder
from kahler_verify.decoders.propagation import (
    decoder_field_jets,
    has_linear_heads,
    is_holomorphic,
    is_propagated,
)
from kahler_verify.distributions import ComplexNormal, Structure
from kahler_verify.errors import InputError
from kahler_verify.torch_state import alone, outside_autocast, without_validation

__all__ = ["LikelihoodStructure", "check_decoder", "decoder_jets", "likelihood_structure"]

DecoderFunction = Callable[[Tensor], Any]
Orders = tuple[int, int]
_FIELDS = ("mu", "Sigma")
_NAME = re.compile(r"(mu|Sigma)(?:_(d*)(b*))?")
_FACTOR = "Sigma_factor"
_HIGHEST_ORDER = 4


@dataclass(frozen=True)
class LikelihoodStructure:
    """What kind of Gaussian a decoder returns.

    Attributes:
        likelihood: CN(μ, Σ) on C^D, or N(μ, Σ) on R^D. A real Gaussian's Fisher metric is half of
            what the complex formula gives for the same fields.
        covariance: the structure of Σ(z).
        data_dim: D; for an improper ``ComplexNormal``, which is taken as the real Gaussian on
            R^(2D) that it is, 2D.
        holomorphic_mean: ∂̄μ = 0 is known from the decoder's construction.
        constant_covariance: ∂Σ = 0 is known from the decoder's construction.
    """

    likelihood: Literal["complex", "real"]
    covariance: Structure
    data_dim: int
    holomorphic_mean: bool = False
    constant_covariance: bool = False


class _Fields(NamedTuple):
    """Mean, covariance and the covariance's factor at [..., d], in their structure's shapes."""

    structure: LikelihoodStructure
    mu: Tensor
    sigma: Tensor
    factor: Tensor


def _structure_of(decoder: Decoder) -> LikelihoodStructure:
    config = decoder.config
    return LikelihoodStructure(
        config.likelihood,
        "scalar" if config.covariance == "scalar" else "diagonal",
        decoder.mean_head.out_features,
        is_holomorphic(decoder.layers) and config.likelihood == "complex",
        config.covariance == "constant",
    )


@outside_autocast()
def likelihood_structure(decoder: DecoderFunction, z: Tensor) -> LikelihoodStructure:
    """The kind of Gaussian that ``decoder`` returns at z [..., d].

    Raises:
        InputError: it returns something else.
    """
    points = _points(z)
    if has_linear_heads(decoder):
        decoder._check(_at_least_one(points)[:1])
        return _structure_of(decoder)
    return _evaluate(decoder, _at_least_one(points)[:1]).structure


@outside_autocast()
def decoder_jets(
    decoder: DecoderFunction,
    z: Tensor,
    names: Iterable[str],
    *,
    mode: Literal["forward", "reverse"] | None = None,
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
            ``propagation.routes``), and nested forward mode elsewhere. "forward" and "reverse" ask
            for autograd; nested forward mode is faster by far, nested reverse mode is for decoders
            whose layers have a wrong forward derivative, as torch's LayerNorm has.
        chunk_size: how many points to differentiate at once; None takes all.

    Raises:
        InputError: z, a name or the decoder's output is malformed.
    """
    if mode not in (None, "forward", "reverse"):
        raise InputError(f"expected mode to be 'forward' or 'reverse' or None, but got {mode!r}")
    wanted = {name: _parse(name) for name in names}
    points = _points(z)
    rows = _at_least_one(points)  # vmap refuses empty batches
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
    nested = _nested(decoder, order, jacrev if mode == "reverse" else jacfwd)
    with alone():
        derivatives, factor = torch.vmap(nested, chunk_size=chunk_size)(_to_real(rows))
    real = _evaluate(decoder, rows[:1])
    values = {"mu": real.mu.is_complex(), "Sigma": real.sigma.is_complex()}

    jets = {}
    for name, (field, orders) in wanted.items():
        if name == _FACTOR:
            jet = factor
        else:
            jet = _combine(derivatives[sum(orders)][_FIELDS.index(field)], *orders)
            if orders == (0, 0) and not values[field]:
                jet = jet.real
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


# Evaluation


def _points(z: Tensor) -> Tensor:
    if not isinstance(z, Tensor) or not z.is_complex() or z.ndim == 0 or z.shape[-1] == 0:
        got = f"{z.dtype} of shape {tuple(z.shape)}" if isinstance(z, Tensor) else repr(type(z))
        raise InputError(f"expected z to be a complex tensor [..., d] with d ≥ 1, but got {got}")
    return z.reshape(-1, z.shape[-1])


def _at_least_one(points: Tensor) -> Tensor:
    return points if len(points) else points.new_zeros(1, points.shape[1])


def _mu_and_sigma(fields: _Fields) -> tuple[Tensor, Tensor]:
    return fields.mu, fields.sigma


def _at_point(decoder: DecoderFunction, z: Tensor) -> _Fields:
    """The fields at one point z [d], as a batch of one: some layers take nothing but batches."""
    structure, mu, sigma, factor = _evaluate(decoder, z[None])
    return _Fields(structure, mu[0], sigma[0], factor[0])


def _evaluate(decoder: DecoderFunction, z: Tensor) -> _Fields:
    """The fields at z [..., d]; knows every output that a decoder may have."""
    holomorphic = constant = False
    if isinstance(decoder, Decoder):
        known = has_linear_heads(decoder)
        holomorphic = known and _structure_of(decoder).holomorphic_mean
        constant = known and _structure_of(decoder).constant_covariance
        output: Any = decoder.parameters_at(z)
    else:
        output = _called(decoder, z)
    batch = z.shape[:-1]
    likelihood: Literal["complex", "real"] = "complex"
    covariance: Structure = "diagonal"
    if isinstance(output, ComplexNormal) and not output.is_circular:
        output = output.to_real()  # the same law, as a real Gaussian on R^(2D)
    if isinstance(output, ComplexNormal):
        mean, covariance = output.loc, output.structure
        given = {
            "scalar": output.scale,
            "diagonal": output.scale_diag,
            "full": output.scale_tril if covariance == "full" else None,
        }[covariance]
        assert given is not None
        factor = given
    elif isinstance(output, MultivariateNormal):
        likelihood, covariance = "real", "full"
        mean, factor = output.loc, output.scale_tril
    elif (
        isinstance(output, Independent)
        and isinstance(output.base_dist, Normal)
        and output.reinterpreted_batch_ndims == 1
    ):
        likelihood = "real"
        mean, factor = output.base_dist.loc, output.base_dist.scale
    elif isinstance(output, tuple | list) and len(output) == 2:
        mean, log_variance = output
        if not isinstance(mean, Tensor) or not isinstance(log_variance, Tensor):
            raise InputError(
                "expected a decoder's pair (mean, log variance) to be tensors, but got "
                f"{type(mean).__name__} and {type(log_variance).__name__}"
            )
        _check_mean(mean, z)
        if log_variance.is_complex() or log_variance.shape not in (batch, mean.shape):
            raise InputError(
                "expected a decoder's log variance to be real, of shape "
                f"{tuple(mean.shape)} or {tuple(batch)}, but got {log_variance.dtype} of shape "
                f"{tuple(log_variance.shape)}"
            )
        likelihood = "complex" if mean.is_complex() else "real"
        covariance = "scalar" if log_variance.ndim < mean.ndim else "diagonal"
        factor = (log_variance / 2).exp()
    else:
        raise InputError(
            "expected a decoder to return a ComplexNormal, an Independent(Normal, 1), a "
            "MultivariateNormal or a pair (mean, log variance), but got "
            f"{type(output).__name__}"
        )
    named = isinstance(output, Distribution) and likelihood == "real"
    if named and (mean.is_complex() or factor.is_complex()):
        kind = "MultivariateNormal" if covariance == "full" else "Normal"
        raise InputError(
            f"expected a decoder's {kind} to have a real mean and scale, but got {mean.dtype} and "
            f"{factor.dtype}: the law of complex data is a ComplexNormal"
        )
    _check_mean(mean, z)
    real, expected = mean.real if mean.is_complex() else mean, z.real
    if real.dtype != expected.dtype or real.device != expected.device:
        raise InputError(
            f"expected a decoder to keep the precision and device of z ({expected.dtype}, "
            f"{expected.device}), but its mean is {mean.dtype} on {mean.device}"
        )
    structure = LikelihoodStructure(likelihood, covariance, mean.shape[-1], holomorphic, constant)
    sigma = factor @ factor.mH if covariance == "full" else factor * factor
    return _Fields(structure, mean, sigma, factor)


def _called(decoder: DecoderFunction, z: Tensor) -> Any:
    """The decoder's output; an error of torch's for want of one dtype or device is said to be."""
    try:
        with without_validation():
            return decoder(z)
    except RuntimeError as error:
        module = decoder if isinstance(decoder, nn.Module) else nn.Module()
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            inexact = tensor.is_floating_point() or tensor.is_complex()
            if tensor.device != z.device or (
                inexact and tensor.dtype.to_real() != z.dtype.to_real()
            ):
                raise InputError(
                    f"z: expected the precision and device of the decoder's {name} "
                    f"({tensor.dtype}, {tensor.device}), got {z.dtype} on {z.device}: torch says "
                    f"{error}; cast either"
                ) from error
        raise


def _check_mean(mean: Tensor, z: Tensor) -> None:
    if mean.ndim != z.ndim or mean.shape[:-1] != z.shape[:-1]:
        raise InputError(
            f"expected a decoder's mean to be {[*z.shape[:-1], 'D']} for z of shape "
            f"{tuple(z.shape)}, but got {tuple(mean.shape)}"
        )


# Differentiation


def _to_real(points: Tensor) -> Tensor:
    return torch.cat([points.real, points.imag], dim=-1)


def _to_complex(u: Tensor) -> Tensor:
    real, imaginary = u.chunk(2, dim=-1)
    return torch.complex(real, imaginary)


def _pairs(field: Tensor) -> Tensor:
    if field.is_complex():
        return torch.view_as_real(field.resolve_conj())
    return torch.stack([field, torch.zeros_like(field)], dim=-1)


# Per order, the real derivatives of (mu, Sigma): [*field, 2, 2d, ..., 2d].
_Derivatives = tuple[tuple[Tensor, Tensor], ...]
# The derivatives of the highest order so far, then those of all orders and the factor.
_Level = Callable[[Tensor], tuple[tuple[Tensor, Tensor], tuple[_Derivatives, Tensor]]]


def _nested(
    decoder: DecoderFunction, order: int, jacobian: Callable[..., Any]
) -> Callable[[Tensor], tuple[_Derivatives, Tensor]]:
    """From u = (x, y) [2d] of one point to the derivatives of orders 0 ... ``order``."""

    def value(u: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[_Derivatives, Tensor]]:
        fields = _at_point(decoder, _to_complex(u))
        pairs = (_pairs(fields.mu), _pairs(fields.sigma))
        return pairs, ((pairs,), fields.factor)

    def differentiate(inner: _Level) -> _Level:
        def outer(u: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[_Derivatives, Tensor]]:
            highest, (lower, factor) = jacobian(inner, has_aux=True)(u)
            return highest, ((*lower, highest), factor)

        return outer

    level: _Level = value
    for _ in range(order):
        level = differentiate(level)
    return lambda u: level(u)[1]


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


# Checks

# Functions that are not C² somewhere, by the names autograd gives them.
_NOT_SMOOTH = {
    "Relu": "ReLU has a kink at 0",
    "LeakyRelu": "leaky ReLU has a kink at 0",
    "PreluKernel": "PReLU has a kink at 0",
    "Rrelu": "RReLU has a kink at 0",
    "Elu": "ELU's second derivative (SELU's and CELU's too) jumps at 0",
    "Hardtanh": "hardtanh and ReLU6 have kinks",
    "Hardswish": "hardswish has kinks",
    "Hardsigmoid": "hardsigmoid has kinks",
    "Softshrink": "softshrink has kinks",
    "Hardshrink": "hardshrink jumps",
    "Threshold": "a threshold jumps",
    "Abs": "abs has a corner at 0, and torch's Hessian of abs(z)**2 is 0 there; write z*z.conj()",
    "LinalgVectorNorm": "a norm has a corner at 0; write the sum of z*z.conj()",
    "Norm": "a norm has a corner at 0; write the sum of z*z.conj()",
    "Sgn": "the phase z/|z| is not continuous at 0",
    "Sign": "the sign jumps at 0",
    "Angle": "the phase is not continuous at 0",
    "Clamp": "clamp has kinks",
    "ClampMin": "clamp has a kink",
    "ClampMax": "clamp has a kink",
    "Maximum": "a maximum has kinks",
    "Minimum": "a minimum has kinks",
    "Max": "a maximum has kinks",
    "Min": "a minimum has kinks",
    "Amax": "a maximum has kinks",
    "Amin": "a minimum has kinks",
    "MaxPool1D": "max pooling has kinks",
    "MaxPool2DWithIndices": "max pooling has kinks",
    "Round": "rounding jumps",
    "Floor": "rounding jumps",
    "Ceil": "rounding jumps",
}


@outside_autocast()
@alone()
def check_decoder(decoder: DecoderFunction, z: Tensor) -> LikelihoodStructure:
    """Make sure that ``decoder`` can be differentiated at z, and that autograd does it right.

    A handful of points suffices: this costs much more than ``decoder_jets``. It checks that

    - values and jets to second order are finite;
    - the function is C²: nothing with kinks or jumps stands in autograd's graph;
    - the decoder is deterministic and acts on each point alone (a batch, single points and vmap
      give the same);
    - forward mode, reverse over reverse and central differences agree on the jets to second order.

    Raises:
        InputError: one of these fails; the message says which jet, and by how much.
    """
    points = _points(z).detach()
    if len(points) == 0:
        raise InputError("expected at least one point to check the decoder at, but got none")
    _check_mode(decoder)
    with torch.enable_grad():
        _check_smooth(decoder, points)
    structure = _check_batching(decoder, points)
    _check_factor(decoder, points)
    with torch.no_grad():  # functional derivatives are taken all the same; only weights' are not
        forward, _ = torch.vmap(_nested(decoder, 2, jacfwd))(_to_real(points))
        reverse = [_nested(decoder, 2, jacrev)(u)[0] for u in _to_real(points)]
        stacked = tuple(
            (torch.stack([mu for mu, _ in level]), torch.stack([sigma for _, sigma in level]))
            for level in zip(*reverse, strict=True)
        )
    epsilon = torch.finfo(points.real.dtype).eps
    _compare(forward, stacked, "reverse over reverse", 1e5 * epsilon)
    # Second differences at step h = ε^(1/4) err by h² and by ε/h², both √ε.
    tolerance = min(2e4 * epsilon**0.5, 0.05)
    _compare(forward, _differences(decoder, points), "central differences", tolerance)
    return structure


def _check_mode(decoder: DecoderFunction) -> None:
    if not isinstance(decoder, nn.Module):
        return
    for name, module in decoder.named_modules():
        random = isinstance(module, nn.modules.dropout._DropoutNd)
        mixing = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if module.training and (random or mixing):
            why = "is random" if random else "mixes the points of a batch"
            raise InputError(
                f"the decoder's layer {name!r} ({module}) {why} while training; call .eval()"
            )


def _check_smooth(decoder: DecoderFunction, points: Tensor) -> None:
    fields = _evaluate(decoder, points[:1].clone().requires_grad_(True))
    pending = [field.grad_fn for field in (fields.mu, fields.sigma)]
    seen: set[Any] = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kind = node.name().removeprefix("torch::autograd::").split("Backward")[0]
        if kind in _NOT_SMOOTH:
            raise InputError(
                f"the metric needs a C² decoder, but {_culprit(decoder, kind)} is not: "
                f"{_NOT_SMOOTH[kind]}"
            )
        pending.extend(parent for parent, _ in node.next_functions)


def _culprit(decoder: DecoderFunction, kind: str) -> str:
    if isinstance(decoder, nn.Module):
        for name, module in decoder.named_modules():
            if type(module).__name__.lower() == kind.lower():
                return f"the layer {name!r} ({module})"
    return f"the operation {kind} in it"


def _check_batching(decoder: DecoderFunction, points: Tensor) -> LikelihoodStructure:
    tolerance = 1e4 * torch.finfo(points.real.dtype).eps
    rows = torch.cat([points, points.flip(0)]) if len(points) == 1 else points
    with torch.no_grad():
        batched = _evaluate(decoder, rows)
        again = _evaluate(decoder, rows)
        single = [_at_point(decoder, row) for row in rows]
        try:
            mapped = torch.vmap(lambda row: _mu_and_sigma(_at_point(decoder, row)))(rows)
        except RuntimeError as error:
            raise InputError(f"the decoder does not work under torch.vmap: {error}") from error
    for index, name in enumerate(_FIELDS):
        whole = _mu_and_sigma(batched)[index]
        if not bool(torch.isfinite(whole).all()):
            raise InputError(f"the decoder's {name} is not finite at the points z it is checked at")
        size = max(float(whole.abs().max()), torch.finfo(whole.dtype).tiny)
        for other, what in (
            (_mu_and_sigma(again)[index], "a second call: it is random"),
            (
                torch.stack([_mu_and_sigma(fields)[index] for fields in single]),
                "calls with single points: the points of a batch influence one another",
            ),
            (mapped[index], "torch.vmap over single points"),
        ):
            gap = float((whole - other).abs().max()) / size
            if not gap <= tolerance:
                raise InputError(
                    f"the decoder's {name} in a batch differs by {gap:.1e} (relative) from {what}"
                )
    return batched.structure


def _check_factor(decoder: DecoderFunction, points: Tensor) -> None:
    """The likelihood's scale is one: torch's own checks are off, as they read values."""
    with torch.no_grad():
        structure, _, _, factor = _evaluate(decoder, points)
    name = {"full": "scale_tril", "diagonal": "scale", "scalar": "scale"}[structure.covariance]
    diagonal = factor
    if structure.covariance == "full":
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        above = float(factor.triu(1).abs().max())
        if above > 0:
            raise InputError(
                f"expected the decoder's {name} at z to be lower triangular, but an entry above "
                f"its diagonal is {above:.3g}"
            )
    if not bool((diagonal.real > 0).all()):
        raise InputError(
            f"expected the decoder's {name} at z to be positive"
            f"{' on its diagonal' if structure.covariance == 'full' else ''}, but got a minimum of "
            f"{float(diagonal.real.min()):.3g}"
        )


def _differences(decoder: DecoderFunction, points: Tensor) -> _Derivatives:
    """Central differences of orders 0 to 2, shaped like the nested derivatives."""
    u = _to_real(points)
    step = torch.finfo(u.dtype).eps ** 0.25
    units = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device) * step

    def fields(shifted: Tensor) -> list[Tensor]:
        """From [..., B, 2d] to the pairs of mu and Sigma, [B, *field, 2, ...]."""
        flat = _evaluate(decoder, _to_complex(shifted.reshape(-1, shifted.shape[-1])))
        batch = shifted.shape[:-1]
        results = []
        for field in (flat.mu, flat.sigma):
            pairs = _pairs(field)
            pairs = pairs.reshape(*batch, *pairs.shape[1:])
            shifts = len(batch) - 1
            results.append(pairs.movedim(list(range(shifts)), list(range(-shifts, 0))))
        return results

    with torch.no_grad():
        values = fields(u)
        plus, minus = fields(u + units[:, None]), fields(u - units[:, None])
        first = [(p - m) / (2 * step) for p, m in zip(plus, minus, strict=True)]
        left, right = units[:, None, None], units[None, :, None]
        corners = [
            (sign_l * sign_r, fields(u + sign_l * left + sign_r * right))
            for sign_l in (1, -1)
            for sign_r in (1, -1)
        ]
        second = [sum(sign * corner[i] for sign, corner in corners) / (4 * step**2) for i in (0, 1)]
    return tuple((level[0], level[1]) for level in (values, first, second))


def _compare(ours: _Derivatives, theirs: _Derivatives, route: str, tolerance: float) -> None:
    for index, field in enumerate(_FIELDS):
        value_size = float(ours[0][index].abs().max())
        for order, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            our_real, their_real = our[index], their[index]
            if not bool(torch.isfinite(our_real).all()):
                point = int(torch.nonzero(~torch.isfinite(our_real))[0, 0])
                raise InputError(
                    f"the derivatives of order {order} of the decoder's {field} are not finite at "
                    f"point {point}"
                )
            # One yardstick per order: jets that vanish have no scale of their own.
            size = max(float(our_real.abs().max()), value_size)
            for holomorphic in range(order, -1, -1):
                orders = (holomorphic, order - holomorphic)
                gap = float(
                    (_combine(our_real, *orders) - _combine(their_real, *orders)).abs().max()
                )
                if not gap <= tolerance * size:
                    raise InputError(
                        f"autograd contradicts itself on this decoder: the jet "
                        f"{_jet_name(field, orders)} by forward mode and by {route} differ by "
                        f"{gap:.1e}, where the jets of that order reach {size:.1e}. Known causes: "
                        "linalg.solve, det, slogdet and cholesky_inverse (use cholesky and "
                        "solve_triangular), layer_norm (write it out, or take mode='reverse'), "
                        "abs(z)**2 (use z*z.conj()), or a custom backward"
                    )


def _jet_name(field: str, orders: Orders) -> str:
    return f"{field}_{'d' * orders[0]}{'b' * orders[1]}".removesuffix("_")
