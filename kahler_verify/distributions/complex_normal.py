"""The law CN(μ, Σ), circular or with a relation.

Long, because it is one class, of which a third says how its arguments are given.
"""

import math
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.distributions.constraints import Constraint
from torch.distributions.distribution import Distribution
from torch.types import _size

from kahler_verify.distributions.arithmetic import (
    improper_square,
    on_columns,
    real_blocks,
    solve_lower,
    squared_modulus,
)
from kahler_verify.distributions.checks import (
    Fault,
    at_index,
    broadcast,
    check_factor,
    check_loc,
    check_tensor,
    not_finite,
    raise_if_any,
    relation_faults,
    should_validate,
    value_faults,
)
from kahler_verify.distributions.structures import (
    ARGUMENT,
    CONSTRAINT,
    EVENT_DIM,
    REAL_DTYPE,
    RELATION_CONSTRAINT,
    Structure,
    complex_vector,
)
from kahler_verify.errors import InputError
from kahler_verify.torch_state import outside_autocast

_ONE_SAMPLE = torch.Size()


class ComplexNormal(Distribution):
    """The complex normal ``CN(loc, Σ)`` on ``C^D``, with a scalar, diagonal or full ``Σ``.

    The scale is a *standard deviation*, as everywhere in ``torch.distributions``; give exactly one:

    * ``scale`` (real, shape ``[...]``, or a number): ``Σ = scale² I``. It has no event dimension:
      to pair one scale with each of ``B`` means ``[B, D]``, its shape is ``[B]``, not ``[B, 1]``.
    * ``scale_diag`` (real, shape ``[..., D]``): ``Σ = diag(scale_diag²)``.
    * ``scale_tril`` (complex, shape ``[..., D, D]``): ``Σ = L Lᴴ``, ``L`` lower triangular with a
      real positive diagonal, as ``torch.linalg.cholesky`` returns it. `from_covariance` takes
      ``Σ`` itself.

    It is circular unless a ``relation`` is given, which has the structure of the scale:
    ``R = E[(x-μ)(x-μ)ᵀ]`` is ``relation · I`` (complex, ``[...]``, or a number),
    ``diag(relation)`` (complex, ``[..., D]``) or ``relation`` itself (complex symmetric,
    ``[..., D, D]``). The law exists if and only if ``[[Σ, R], [R̄, Σ̄]]`` is positive definite; for
    a scalar or diagonal structure that is ``|relation| < scale²``, elementwise. Scalar and diagonal
    relations are computed with elementwise; a full one through the real Gaussian on R^{2D}.

    The batch dimensions ``...`` of all arguments broadcast against each other.

    **Dtypes**: ``loc`` must be complex (complex64 or complex128); a real scale has its precision
    (float32 with complex64, float64 with complex128); a matrix, and a relation, has its very dtype.
    Nothing is promoted: any other pair is an error.

    **Validation**: shapes, dtypes and devices are always checked; that reads no value. With
    ``validate_args`` values are checked too, in one read-out. Without, nothing synchronises a GPU,
    and bad values give meaningless numbers: NaN wherever the scale is negative, NaN or ±inf where
    it is zero. Inside ``torch.vmap`` and ``torch.compile`` values cannot be read, so they are not
    checked there. The default is to validate, whatever torch's own default is at the moment:
    ``torch.compile`` switches that off for the whole process.

    **Edges**: an empty batch gives empty results; ``D = 0`` is an error.

    Args:
        loc: The mean, complex, shape ``[..., D]``.
        scale: See above.
        scale_diag: See above.
        scale_tril: See above.
        relation: See above; None means 0.
        validate_args: Whether to check values; None means True.

    Raises:
        InputError: Whenever an argument breaks these rules; the message names it.
    """

    support = complex_vector
    has_rsample = True

    loc: Tensor
    _factor: Tensor  # the scale as given, batch dimensions not broadcast
    _relation: Tensor | None  # likewise
    _structure: Structure

    def __init__(
        self,
        loc: Tensor,
        *,
        scale: Tensor | float | None = None,
        scale_diag: Tensor | None = None,
        scale_tril: Tensor | None = None,
        relation: Tensor | complex | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_loc(loc)
        if isinstance(scale, int | float) and not isinstance(scale, bool):
            scale = torch.full((), scale, dtype=REAL_DTYPE[loc.dtype], device=loc.device)
        given: dict[Structure, Tensor | None] = {
            "scalar": scale,  # type: ignore[dict-item]  # a bool goes on to check_tensor, which refuses it
            "diagonal": scale_diag,
            "full": scale_tril,
        }
        chosen = [structure for structure, value in given.items() if value is not None]
        if len(chosen) != 1:
            got = " and ".join(ARGUMENT[structure] for structure in chosen) or "none of them"
            raise InputError(
                f"Expected exactly one of scale, scale_diag and scale_tril but got {got}."
            )
        self._structure = chosen[0]
        factor = given[self._structure]
        assert factor is not None
        batch_shape = check_factor(self._structure, factor, loc)
        self._factor = factor
        number = isinstance(relation, int | float | complex) and not isinstance(relation, bool)
        if number and self._structure == "scalar":
            relation = torch.tensor(relation, dtype=loc.dtype, device=loc.device)
        self._relation = None
        if relation is not None:
            self._relation = relation  # type: ignore[assignment]  # a number is refused right here
            own = check_factor(
                self._structure,
                relation,  # type: ignore[arg-type]
                loc,
                name="relation",
                dtype=loc.dtype,
            )
            batch_shape = broadcast(
                "the batch dimensions of relation", own, "those of the scale and loc", batch_shape
            )
        self.loc = loc.expand(batch_shape + loc.shape[-1:])
        # The base class checks one argument at a time, each with its own read-out: we read once.
        super().__init__(batch_shape, loc.shape[-1:], validate_args=False)
        self._validate_args = should_validate(validate_args)
        if self._validate_args:
            faults = value_faults(self._structure, factor, loc)
            raise_if_any([*faults, *self._relation_faults()])

    @classmethod
    def from_covariance(
        cls,
        loc: Tensor,
        covariance: Tensor,
        *,
        relation: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> Self:
        """The distribution with the mean ``loc`` and the full covariance ``Σ``.

        The Hermitian part of ``covariance`` is what gets factored, so that values and derivatives
        depend on both triangles (Cholesky alone reads the lower one). With ``validate_args``, a
        matrix that is not Hermitian beyond rounding (``64 D ε`` of its largest entry) or not
        positive definite is an error. Without, one that is not positive definite gives NaN.

        Args:
            loc: The mean, complex, shape ``[..., D]``.
            covariance: Hermitian positive definite, dtype of ``loc``, shape ``[..., D, D]``.
            relation: ``E[(x-μ)(x-μ)ᵀ]``, complex symmetric, of the same shape; None means 0.
            validate_args: Whether to check values; None means True.

        Raises:
            InputError: If an argument is malformed; it tells how far from Hermitian the matrix is,
                or its smallest eigenvalue.
        """
        check_loc(loc)
        check_factor("full", covariance, loc, name="covariance")
        hermitian = (covariance + covariance.mH) / 2
        factor, info = torch.linalg.cholesky_ex(hermitian)
        failed = info != 0
        factor = torch.where(failed[..., None, None], math.nan, factor)
        if should_validate(validate_args):
            size = covariance.detach().abs().amax((-2, -1))
            skew = (covariance - covariance.mH).detach().abs().amax((-2, -1))
            allowed = 64 * loc.shape[-1] * torch.finfo(covariance.dtype).eps * size

            def not_hermitian(index: tuple[int, ...]) -> str:
                return (
                    f"covariance must be Hermitian but max |Σ - Σᴴ| is {skew[index].item():.3g}, "
                    f"where the largest entry is {size[index].item():.3g}{at_index(index)}."
                )

            def not_positive(index: tuple[int, ...]) -> str:
                smallest = torch.linalg.eigvalsh(hermitian[index].detach())[0].item()
                return (
                    "covariance must be positive definite but its smallest eigenvalue is "
                    f"{smallest:.3g}, where the largest entry is {size[index].item():.3g}"
                    f"{at_index(index)}."
                )

            raise_if_any(
                [
                    (~torch.isfinite(loc), not_finite("loc", loc)),
                    (~torch.isfinite(covariance), not_finite("covariance", covariance)),
                    (skew > allowed, not_hermitian),
                    (failed, not_positive),
                ]
            )
        distribution = cls(loc, scale_tril=factor, relation=relation, validate_args=False)
        distribution._validate_args = should_validate(validate_args)
        if distribution._validate_args and relation is not None:
            raise_if_any(list(distribution._relation_faults()))
        return distribution

    def _relation_faults(self) -> Iterator[Fault]:
        relation = self.relation
        if relation is None:
            return iter(())
        return relation_faults(self._structure, relation, self._factor, self._real_covariance)

    # ------------------------------------------------------------------ what it is made of

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        """The constraints of the arguments that this instance was given."""
        constraints = {
            "loc": complex_vector,
            ARGUMENT[self._structure]: CONSTRAINT[self._structure],
        }
        if self._relation is not None:
            constraints["relation"] = RELATION_CONSTRAINT[self._structure]
        return constraints

    @property
    def structure(self) -> Structure:
        """``"scalar"``, ``"diagonal"`` or ``"full"``, by the argument that was given."""
        return self._structure

    @property
    def scale(self) -> Tensor | None:
        """The scalar standard deviation, shape ``batch_shape``; None for other structures."""
        return self._factor.expand(self._batch_shape) if self._structure == "scalar" else None

    @property
    def scale_diag(self) -> Tensor | None:
        """The standard deviations, shape ``batch_shape + [D]``; None for a full structure."""
        if self._structure == "full":
            return None
        return self._deviations().expand(self._batch_shape + self._event_shape)

    # Not cached: a tensor that is first computed under no_grad or inside a functional transform
    # must not be met again outside of it.
    @property
    def scale_tril(self) -> Tensor:
        """The Cholesky factor ``L`` of Σ, complex, for every structure; computed when asked for."""
        return self._factor_matrix().expand(
            self._batch_shape + self._event_shape + self._event_shape
        )

    @property
    def covariance_matrix(self) -> Tensor:
        """Σ, complex, ``batch_shape + [D, D]``, for every structure; computed when asked for."""
        if self._structure == "full":
            covariance = self._factor @ self._factor.mH
        else:
            variances = (
                self._deviations().square().expand(*self._factor_batch(), *self._event_shape)
            )
            covariance = torch.diag_embed(variances).to(self.loc.dtype)
        return covariance.expand(self._batch_shape + self._event_shape + self._event_shape)

    @property
    def is_circular(self) -> bool:
        """Whether no relation was given (one that was given may still be 0)."""
        return self._relation is None

    @property
    def relation(self) -> Tensor | None:
        """The relation as given, ``batch_shape`` and then as the scale; None if it was not."""
        if self._relation is None:
            return None
        event_dim = EVENT_DIM[self._structure]
        inner = self._relation.shape[self._relation.ndim - event_dim :]
        return self._relation.expand(self._batch_shape + inner)

    @property
    def relation_matrix(self) -> Tensor:
        """``R = E[(x-μ)(x-μ)ᵀ]``, complex symmetric, ``batch_shape + [D, D]``; 0 if circular."""
        relation = self.relation
        if relation is None:
            return torch.zeros_like(self.covariance_matrix)
        if self._structure == "full":
            return relation
        if self._structure == "scalar":
            relation = relation[..., None].expand(self._batch_shape + self._event_shape)
        return torch.diag_embed(relation)

    @property
    def mean(self) -> Tensor:
        """``E[x]``, complex."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The point of largest density, complex: the mean."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """``E|x_i - μ_i|²``, real: the diagonal of Σ, real and imaginary part together."""
        if self._structure == "full":
            variance = squared_modulus(self._factor).sum(-1)
        else:
            variance = self._deviations().square()
        return variance.expand(self._batch_shape + self._event_shape)

    def _factor_batch(self) -> torch.Size:
        return self._factor.shape[: self._factor.ndim - EVENT_DIM[self._structure]]

    def _deviations(self) -> Tensor:
        """Standard deviations of a scalar or diagonal Σ, shape ``[..., 1]`` or ``[..., D]``."""
        return self._factor[..., None] if self._structure == "scalar" else self._factor

    def _factor_matrix(self) -> Tensor:
        if self._structure == "full":
            return self._factor
        deviations = self._deviations().expand(*self._factor_batch(), *self._event_shape)
        return torch.diag_embed(deviations).to(self.loc.dtype)

    def _log_det(self) -> Tensor:
        """``log det Σ``, with the batch dimensions of the factor."""
        if self._structure == "scalar":
            return 2 * self._event_shape[0] * self._factor.log()
        if self._structure == "diagonal":
            return 2 * self._factor.log().sum(-1)
        return 2 * self._factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)

    def _coherence(self) -> Tensor:
        """``ρ = δ / σ``, |ρ| < 1, of a scalar or diagonal structure, ``[..., 1]`` or ``[..., D]``.

        It is the relation of the whitened variable, whose covariance is I.
        """
        deviations = self._deviations()
        return self._own_relation() / deviations / deviations

    def _own_relation(self) -> Tensor:
        """The relation of a scalar or diagonal structure, ``[..., 1]`` or ``[..., D]``."""
        if self._relation is None:
            return torch.zeros_like(self._deviations(), dtype=self.loc.dtype)
        return self._relation[..., None] if self._structure == "scalar" else self._relation

    def _whiten(self, vectors: Tensor) -> Tensor:
        """``L^{-1} v`` for vectors of shape ``[..., *batch_shape, D]``."""
        if self._structure != "full":
            return vectors / self._deviations()
        return on_columns(solve_lower, self._factor, vectors)

    def _colour(self, vectors: Tensor) -> Tensor:
        """``L v`` for vectors of shape ``[..., *batch_shape, D]``."""
        if self._structure != "full":
            return vectors * self._deviations()
        return on_columns(torch.matmul, self._factor, vectors)

    # ------------------------------------------------------------------ what it does

    @outside_autocast()
    def rsample(self, sample_shape: _size = _ONE_SAMPLE) -> Tensor:
        """Draws ``loc + L ε``, ``ε ~ CN(0, I)`` if circular: differentiable in all arguments."""
        shape = self._extended_shape(sample_shape)
        # torch's complex standard normal has E|ε|² = 1, half in each part: it is CN(0, 1).
        if self._relation is not None and self._structure == "full":
            real, imaginary = self.to_real().rsample(sample_shape).chunk(2, -1)
            return torch.complex(real.contiguous(), imaginary.contiguous())
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        if self._relation is not None:
            # a ε + b ε̄ has the variance a² + |b|² = 1 and the relation 2ab = ρ; smooth at ρ = 0.
            coherence = self._coherence()
            a = ((1 + (1 - squared_modulus(coherence)).sqrt()) / 2).sqrt()
            noise = a * noise + coherence / (2 * a) * noise.conj()
        return self.loc + self._colour(noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density at ``value``, real, with respect to Lebesgue measure on R^{2D}."""
        check_tensor("value", value, self.loc.dtype, self.loc.device, reference="the distribution")
        if value.ndim < 1 or value.shape[-1:] != self._event_shape:
            raise InputError(
                f"Expected value to have the shape [..., {self._event_shape[0]}] but got "
                f"value.shape={list(value.shape)}."
            )
        broadcast("value", value.shape[:-1], "the batch", self._batch_shape)
        if self._validate_args:
            raise_if_any([(~torch.isfinite(value), not_finite("value", value))])
        constant = -self._event_shape[0] * math.log(math.pi) - self._log_det()
        if self._relation is None:
            return constant - squared_modulus(self._whiten(value - self.loc)).sum(-1)
        if self._structure == "full":
            return self.to_real().log_prob(torch.cat([value.real, value.imag], -1))
        coherence = self._coherence()
        gap = 1 - squared_modulus(coherence)
        whitened = self._whiten(value - self.loc)
        quadratic = improper_square(whitened, coherence) / gap
        return constant - (quadratic + gap.log() / 2).sum(-1)

    def entropy(self) -> Tensor:
        """The differential entropy on R^{2D}: ``D (1 + log π) + log det Σ`` if circular.

        A relation with coherences ρ_i < 1 adds ``½ Σ_i log(1 - ρ_i²)``, which is negative.
        """
        if self._relation is not None and self._structure == "full":
            return self.to_real().entropy()
        entropy = self._event_shape[0] * (1 + math.log(math.pi)) + self._log_det()
        if self._relation is not None:
            gap = 1 - squared_modulus(self._coherence())
            copies = self._event_shape[0] // gap.shape[-1]
            entropy = entropy + copies * gap.log().sum(-1) / 2
        return entropy.expand(self._batch_shape)

    def expand(self, batch_shape: _size, _instance: Self | None = None) -> Self:
        """The same distribution with its batch dimensions expanded; copies no memory."""
        new = self._get_checked_instance(ComplexNormal, _instance)
        batch_shape = torch.Size(batch_shape)
        try:
            new.loc = self.loc.expand(batch_shape + self._event_shape)
        except RuntimeError as error:
            raise InputError(
                f"Expected batch_shape to be an expansion of {list(self._batch_shape)} but got "
                f"batch_shape={list(batch_shape)}."
            ) from error
        new._factor = self._factor
        new._relation = self._relation
        new._structure = self._structure
        super(ComplexNormal, new).__init__(batch_shape, self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def to(
        self,
        device: torch.device | str | int | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
    ) -> "ComplexNormal":
        """The same distribution on another device or in another complex dtype, as ``Tensor.to``.

        ``dtype`` is that of ``loc``; a real scale takes the matching precision.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        dtype = self.loc.dtype if dtype is None else dtype
        if dtype not in REAL_DTYPE:
            raise InputError(
                f"Expected dtype to be torch.complex64 or torch.complex128 but got dtype={dtype}."
            )
        factor_dtype = dtype if self._structure == "full" else REAL_DTYPE[dtype]
        new = self._get_checked_instance(ComplexNormal)
        new.loc = self.loc.to(device=device, dtype=dtype)
        new._factor = self._factor.to(device=device, dtype=factor_dtype)
        new._relation = None
        if self._relation is not None:
            new._relation = self._relation.to(device=device, dtype=dtype)
        new._structure = self._structure
        super(ComplexNormal, new).__init__(
            self._batch_shape, self._event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def to_real(self) -> MultivariateNormal:
        """The same law on R^{2D}, over ``[Re x, Im x]``.

        Its covariance is ``½ [[Re(Σ + R), -Im(Σ - R)], [Im(Σ + R), Re(Σ - R)]]``. The result does
        not check its arguments again, so that nothing synchronises; where this covariance is
        numerically singular it holds NaN.
        """
        factor, info = torch.linalg.cholesky_ex(self._real_covariance())
        factor = torch.where((info != 0)[..., None, None], math.nan, factor)
        loc = torch.cat([self.loc.real, self.loc.imag], -1)
        return MultivariateNormal(loc, scale_tril=factor, validate_args=False)

    def _real_covariance(self) -> Tensor:
        plus = minus = self.covariance_matrix
        if self._relation is not None:
            plus, minus = plus + self.relation_matrix, minus - self.relation_matrix
        return real_blocks(plus, minus)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(batch_shape={list(self._batch_shape)}, "
            f"event_shape={list(self._event_shape)}, structure={self._structure!r}, "
            f"{'' if self._relation is None else 'improper, '}dtype={self.loc.dtype})"
        )
