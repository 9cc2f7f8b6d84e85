"""The complex normal distribution, circular or not, in the style of ``torch.distributions``.

``x ~ CN(μ, Σ)`` on C^D has the density ``π^{-D} det(Σ)^{-1} exp(-(x-μ)ᴴ Σ^{-1} (x-μ))`` with
respect to Lebesgue measure on R^{2D}. ``E[(x-μ)(x-μ)ᴴ] = Σ``, and the relation matrix
``R = E[(x-μ)(x-μ)ᵀ]`` is 0: the distribution is circular. With a relation ``R ≠ 0`` it is improper.

Every formula here keeps its derivatives in every mode of autograd, because the verifier and users
differentiate through it, at ``p = q`` in particular: a squared modulus is ``(x * x.conj()).real``
(never ``abs()**2``, whose Hessian is 0 at 0), a linear system is ``solve_triangular``, and a
log-determinant is read off a Cholesky diagonal. See docs/what-autograd-gets-wrong.md.
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal, Self

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.distributions.constraints import Constraint
from torch.distributions.distribution import Distribution
from torch.distributions.kl import register_kl
from torch.types import _size

from kahler_verify.errors import InputError
from kahler_verify.torch_state import outside_autocast

__all__ = ["ComplexNormal", "Structure", "complex_lower_cholesky", "complex_vector"]

Structure = Literal["scalar", "diagonal", "full"]

_ARGUMENT: dict[Structure, str] = {
    "scalar": "scale",
    "diagonal": "scale_diag",
    "full": "scale_tril",
}
_EVENT_DIM: dict[Structure, int] = {"scalar": 0, "diagonal": 1, "full": 2}
_ONE_SAMPLE = torch.Size()
_REAL_DTYPE = {torch.complex64: torch.float32, torch.complex128: torch.float64}


class _ComplexVector(Constraint):
    """Vectors of finite complex numbers."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return torch.isfinite(value).all(-1) & value.is_complex()


class _ComplexNumber(Constraint):
    """Finite complex numbers."""

    def check(self, value: Tensor) -> Tensor:
        return torch.isfinite(value) & value.is_complex()


class _ComplexSymmetric(Constraint):
    """Complex symmetric (not Hermitian) matrices of finite numbers."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        return (torch.isfinite(value) & _is_close_to_symmetric(value)).flatten(-2).all(-1)


class _PositiveFinite(Constraint):
    """Real numbers in (0, ∞)."""

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & torch.isfinite(value)


class _PositiveFiniteVector(_PositiveFinite):
    """Vectors of real numbers in (0, ∞)."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return super().check(value).all(-1)


class _ComplexLowerCholesky(Constraint):
    """Complex lower-triangular matrices whose diagonal is real and positive."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        diagonal = value.diagonal(dim1=-2, dim2=-1)
        triangular = (value.triu(1) == 0) & torch.isfinite(value)
        return triangular.flatten(-2).all(-1) & ((diagonal.real > 0) & (diagonal.imag == 0)).all(-1)


complex_vector = _ComplexVector()
complex_lower_cholesky = _ComplexLowerCholesky()
_CONSTRAINT: dict[Structure, Constraint] = {
    "scalar": _PositiveFinite(),
    "diagonal": _PositiveFiniteVector(),
    "full": complex_lower_cholesky,
}
_RELATION_CONSTRAINT: dict[Structure, Constraint] = {
    "scalar": _ComplexNumber(),
    "diagonal": complex_vector,
    "full": _ComplexSymmetric(),
}


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
        _check_loc(loc)
        if isinstance(scale, int | float) and not isinstance(scale, bool):
            scale = torch.full((), scale, dtype=_REAL_DTYPE[loc.dtype], device=loc.device)
        given: dict[Structure, Tensor | None] = {
            "scalar": scale,  # type: ignore[dict-item]  # a bool goes on to _check_tensor, which refuses it
            "diagonal": scale_diag,
            "full": scale_tril,
        }
        chosen = [structure for structure, value in given.items() if value is not None]
        if len(chosen) != 1:
            got = " and ".join(_ARGUMENT[structure] for structure in chosen) or "none of them"
            raise InputError(
                f"Expected exactly one of scale, scale_diag and scale_tril but got {got}."
            )
        self._structure = chosen[0]
        factor = given[self._structure]
        assert factor is not None
        batch_shape = _check_factor(self._structure, factor, loc)
        self._factor = factor
        number = isinstance(relation, int | float | complex) and not isinstance(relation, bool)
        if number and self._structure == "scalar":
            relation = torch.tensor(relation, dtype=loc.dtype, device=loc.device)
        self._relation = None
        if relation is not None:
            self._relation = relation  # type: ignore[assignment]  # a number is refused right here
            own = _check_factor(
                self._structure,
                relation,  # type: ignore[arg-type]
                loc,
                name="relation",
                dtype=loc.dtype,
            )
            batch_shape = _broadcast(
                "the batch dimensions of relation", own, "those of the scale and loc", batch_shape
            )
        self.loc = loc.expand(batch_shape + loc.shape[-1:])
        # The base class checks one argument at a time, each with its own read-out: we read once.
        super().__init__(batch_shape, loc.shape[-1:], validate_args=False)
        self._validate_args = _should_validate(validate_args)
        if self._validate_args:
            faults = list(_value_faults(self._structure, factor, loc))
            _raise_if_any([*faults, *_relation_faults(self)])

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
        _check_loc(loc)
        _check_factor("full", covariance, loc, name="covariance")
        hermitian = (covariance + covariance.mH) / 2
        factor, info = torch.linalg.cholesky_ex(hermitian)
        failed = info != 0
        factor = torch.where(failed[..., None, None], math.nan, factor)
        if _should_validate(validate_args):
            size = covariance.detach().abs().amax((-2, -1))
            skew = (covariance - covariance.mH).detach().abs().amax((-2, -1))
            allowed = 64 * loc.shape[-1] * torch.finfo(covariance.dtype).eps * size

            def not_hermitian(index: tuple[int, ...]) -> str:
                return (
                    f"covariance must be Hermitian but max |Σ - Σᴴ| is {skew[index].item():.3g}, "
                    f"where the largest entry is {size[index].item():.3g}{_at(index)}."
                )

            def not_positive(index: tuple[int, ...]) -> str:
                smallest = torch.linalg.eigvalsh(hermitian[index].detach())[0].item()
                return (
                    "covariance must be positive definite but its smallest eigenvalue is "
                    f"{smallest:.3g}, where the largest entry is {size[index].item():.3g}"
                    f"{_at(index)}."
                )

            _raise_if_any(
                [
                    (~torch.isfinite(loc), _not_finite("loc", loc)),
                    (~torch.isfinite(covariance), _not_finite("covariance", covariance)),
                    (skew > allowed, not_hermitian),
                    (failed, not_positive),
                ]
            )
        distribution = cls(loc, scale_tril=factor, relation=relation, validate_args=False)
        distribution._validate_args = _should_validate(validate_args)
        if distribution._validate_args and relation is not None:
            _raise_if_any(list(_relation_faults(distribution)))
        return distribution

    # ------------------------------------------------------------------ what it is made of

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        """The constraints of the arguments that this instance was given."""
        constraints = {
            "loc": complex_vector,
            _ARGUMENT[self._structure]: _CONSTRAINT[self._structure],
        }
        if self._relation is not None:
            constraints["relation"] = _RELATION_CONSTRAINT[self._structure]
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
        event_dim = _EVENT_DIM[self._structure]
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
            variance = _squared_modulus(self._factor).sum(-1)
        else:
            variance = self._deviations().square()
        return variance.expand(self._batch_shape + self._event_shape)

    def _factor_batch(self) -> torch.Size:
        return self._factor.shape[: self._factor.ndim - _EVENT_DIM[self._structure]]

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
        return _on_columns(_solve_lower, self._factor, vectors)

    def _colour(self, vectors: Tensor) -> Tensor:
        """``L v`` for vectors of shape ``[..., *batch_shape, D]``."""
        if self._structure != "full":
            return vectors * self._deviations()
        return _on_columns(torch.matmul, self._factor, vectors)

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
            a = ((1 + (1 - _squared_modulus(coherence)).sqrt()) / 2).sqrt()
            noise = a * noise + coherence / (2 * a) * noise.conj()
        return self.loc + self._colour(noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density at ``value``, real, with respect to Lebesgue measure on R^{2D}."""
        _check_tensor("value", value, self.loc.dtype, self.loc.device, reference="the distribution")
        if value.ndim < 1 or value.shape[-1:] != self._event_shape:
            raise InputError(
                f"Expected value to have the shape [..., {self._event_shape[0]}] but got "
                f"value.shape={list(value.shape)}."
            )
        _broadcast("value", value.shape[:-1], "the batch", self._batch_shape)
        if self._validate_args:
            _raise_if_any([(~torch.isfinite(value), _not_finite("value", value))])
        constant = -self._event_shape[0] * math.log(math.pi) - self._log_det()
        if self._relation is None:
            return constant - _squared_modulus(self._whiten(value - self.loc)).sum(-1)
        if self._structure == "full":
            return self.to_real().log_prob(torch.cat([value.real, value.imag], -1))
        coherence = self._coherence()
        gap = 1 - _squared_modulus(coherence)
        whitened = self._whiten(value - self.loc)
        quadratic = _improper_square(whitened, coherence) / gap
        return constant - (quadratic + gap.log() / 2).sum(-1)

    def entropy(self) -> Tensor:
        """The differential entropy on R^{2D}: ``D (1 + log π) + log det Σ`` if circular.

        A relation with coherences ρ_i < 1 adds ``½ Σ_i log(1 - ρ_i²)``, which is negative.
        """
        if self._relation is not None and self._structure == "full":
            return self.to_real().entropy()
        entropy = self._event_shape[0] * (1 + math.log(math.pi)) + self._log_det()
        if self._relation is not None:
            gap = 1 - _squared_modulus(self._coherence())
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
        if dtype not in _REAL_DTYPE:
            raise InputError(
                f"Expected dtype to be torch.complex64 or torch.complex128 but got dtype={dtype}."
            )
        factor_dtype = dtype if self._structure == "full" else _REAL_DTYPE[dtype]
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
        return _real_blocks(plus, minus)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(batch_shape={list(self._batch_shape)}, "
            f"event_shape={list(self._event_shape)}, structure={self._structure!r}, "
            f"{'' if self._relation is None else 'improper, '}dtype={self.loc.dtype})"
        )


@register_kl(ComplexNormal, ComplexNormal)
def _kl_complex_normal(p: ComplexNormal, q: ComplexNormal) -> Tensor:
    """``log det Σ_q - log det Σ_p - D + tr(Σ_q^{-1} Σ_p) + (μ_p-μ_q)ᴴ Σ_q^{-1} (μ_p-μ_q)``.

    The trace is the squared norm of ``A = L_q^{-1} L_p``. No inverse is formed; where q is scalar
    or diagonal nothing is solved either. Source: Gracyk, arXiv 2511.15172 (claims G1 and, for
    improper p or q, G9 of the ledger).

    Summed as ``Σ_i (|A_ii|² - 1 - log |A_ii|²) + Σ_{i>j} |A_ij|²``, whose terms are all ≥ 0, from
    ``A - I = L_q^{-1} (L_p - L_q)``: so it is never negative, and keeps its relative accuracy where
    p and q are nearly equal.

    Returns:
        Real, the shape that the two batch shapes broadcast to.
    """
    _check_tensor("q.loc", q.loc, p.loc.dtype, p.loc.device, reference="p.loc")
    if p.event_shape != q.event_shape:
        raise InputError(
            "Expected p and q to have the same event_shape but got "
            f"p.event_shape={list(p.event_shape)} and q.event_shape={list(q.event_shape)}."
        )
    _broadcast("p's batch", p.batch_shape, "q's batch", q.batch_shape)
    if not (p.is_circular and q.is_circular):
        return _kl_improper(p, q)
    quadratic = _squared_modulus(q._whiten(p.loc - q.loc)).sum(-1)
    if "full" in (p.structure, q.structure):
        a, b = p._factor_matrix(), q._factor_matrix()
        apart = a - b  # exact where p and q are close
        if q.structure == "full":
            apart = _solve_lower(b, apart)
        else:
            apart = apart / q._deviations()[..., None]
        mixing = _squared_modulus(apart.tril(-1)).sum((-2, -1))
        ours, theirs = (x.diagonal(dim1=-2, dim2=-1).real for x in (a, b))
        return _spread_excess(ours, theirs).sum(-1) + mixing + quadratic
    excess = _spread_excess(p._deviations(), q._deviations())
    copies = p.event_shape[0] // excess.shape[-1]
    return copies * excess.sum(-1) + quadratic


def _spread_excess(ours: Tensor, theirs: Tensor) -> Tensor:
    """``r² - 1 - log r²`` of ratios of deviations, as ``t² + 2 (t - log(1 + t))``, t = r - 1."""
    t = (ours - theirs) / theirs
    excess = log_excess(t, _log_ratio(ours, theirs))
    # what is not positive has no logarithm: NaN, on the diagonal p = q too
    return t.square() + 2 * torch.where(theirs > 0, excess, theirs.log())


def _kl_improper(p: ComplexNormal, q: ComplexNormal) -> Tensor:
    """KL(p ‖ q) where p or q has a relation.

    With variances σ, relations δ and ``r = μ_p - μ_q``, the sum over dimensions of
    ``½ log(σ_q²-|δ_q|²) - ½ log(σ_p²-|δ_p|²) - 1
    + (σ_q (σ_p + |r|²) - Re δ̄_q (δ_p + r²)) / (σ_q²-|δ_q|²)``.
    Derived in derivations/likelihoods/improper_gaussian.py (claim G9).

    It is summed as the chain rule of divergences has it, for the real part and for the imaginary
    part given that: all terms are ≥ 0.  In units of q's deviation the real part's variance is
    ``½ a = ½ (σ + Re δ)``, the other's slope on it ``b = Im δ / a`` and conditional variance
    ``½ c = ½ (σ²-|δ|²) / a``.

    Where p or q is full, the divergence of the real Gaussians.
    """
    if "full" in (p.structure, q.structure):
        return _kl_real(p, q)
    ours, theirs = p._deviations(), q._deviations()
    coherence_p, coherence_q = p._coherence(), q._coherence()
    # x → ix changes the sign of relations, and here leaves the real part q's larger half
    turned = coherence_q.real < 0
    sign = torch.where(turned, -1.0, 1.0).to(theirs.dtype)
    coherence_p, coherence_q = sign * coherence_p, sign * coherence_q
    whitened = q._whiten(p.loc - q.loc)
    whitened = torch.where(turned, 1j * whitened, whitened)
    ratio, t = ours / theirs, (ours - theirs) / theirs
    scale = ratio.square()
    spread = t * (2 + t)  # differences of variances and of relations, exact where p and q are close
    relation = sign * ((p._own_relation() - q._own_relation()) / theirs / theirs)
    a_p, a_q = scale * (1 + coherence_p.real), 1 + coherence_q.real
    gap_p, gap_q = (1 - _squared_modulus(c) for c in (coherence_p, coherence_q))
    c_p, c_q = scale * gap_p / (1 + coherence_p.real), gap_q / a_q
    growth = spread + relation.real
    determinant = spread * (scale + 1)
    determinant = determinant - (relation * (scale * coherence_p + coherence_q).conj()).real
    first = growth / a_q
    close = (determinant / gap_q - first) * a_q / a_p
    second = torch.where(first.abs() < NEAR, close, c_p / c_q - 1)
    slope = (relation.imag * a_q - coherence_q.imag * growth) / (a_p * a_q)
    shapes = (
        log_excess(first, _log_ratio(a_p, a_q))
        + log_excess(second, _log_ratio(c_p, c_q))
        + slope.square() * a_p / c_q
    )
    along, across = whitened.real, whitened.imag
    quadratic = along.square() / a_q + (across - coherence_q.imag / a_q * along).square() / c_q
    # logarithms of what is not positive are NaN, on the diagonal p = q too
    nowhere = torch.where((theirs > 0) & (c_q > 0), 0.0, math.nan).to(theirs.dtype)
    return (shapes / 2 + quadratic + nowhere).sum(-1)


def _kl_real(p: ComplexNormal, q: ComplexNormal) -> Tensor:
    """KL of the real Gaussians: ``½ Σ_i (y_i - log(1 + y_i) + s_i)`` and the means' part.

    With ``K Kᵀ = L_q^{-1} C_p L_q^{-T}`` these are ``y_i = K_ii² - 1`` and ``s_i``, the sum of
    ``K_ij²`` over j < i.  Where p and q are close K factors I + N, and N, of the difference of the
    covariances, says what rounding would take from K: ``y_i = N_ii - s_i``.
    """
    ours, theirs = p.to_real(), q.to_real()
    a, b = p._factor_matrix(), q._factor_matrix()
    covariance = (a - b) @ a.mH + b @ (a - b).mH
    relation = _relation_or_zeros(p, covariance) - _relation_or_zeros(q, covariance)
    difference = _real_blocks(covariance + relation, covariance - relation)
    factor = theirs.scale_tril
    half = _solve_lower(factor, difference)
    n = _solve_lower(factor, half.mT)
    n = (n + n.mT) / 2
    near = (n.square().sum((-2, -1), keepdim=True) < NEAR**2).detach()
    eye = torch.eye(n.shape[-1], dtype=n.dtype, device=n.device)
    k, _ = torch.linalg.cholesky_ex(eye + torch.where(near, n, torch.zeros_like(n)))
    k = torch.where(near, k, _solve_lower(factor, ours.scale_tril))
    mixing = k.tril(-1).square().sum(-1)
    pivots = k.diagonal(dim1=-2, dim2=-1)
    growth = n.diagonal(dim1=-2, dim2=-1) - mixing
    growth = torch.where(near[..., 0], growth, pivots.square() - 1)
    shift = _on_columns(_solve_lower, factor, ours.loc - theirs.loc)
    excess = log_excess(growth, 2 * pivots.log())
    return ((excess + mixing).sum(-1) + shift.square().sum(-1)) / 2


# ---------------------------------------------------------------------- arithmetic


# Up to here y - log(1 + y) is summed as a series.
NEAR = 0.4


def log_excess(y: Tensor, logarithm: Tensor) -> Tensor:
    """``y - log(1 + y)``, ≥ 0, to full relative accuracy; ``logarithm`` is that of 1 + y.

    Near 0 it is ``u (y - 2 (u²/3 + u⁴/5 + …))`` with ``u = y / (2 + y)``, as log(1 + y) is
    2 artanh u; the logarithm is not used there.
    """
    near = y.detach().abs() < NEAR
    inner = torch.where(near, y, torch.zeros_like(y))
    u = inner / (2 + inner)
    square, series = u * u, torch.zeros_like(u)
    for k in reversed(range(13 if y.dtype == torch.float64 else 6)):
        series = series * square + 2 / (2 * k + 3)
    return torch.where(near, u * (inner - square * series), y - logarithm)


def _log_ratio(a: Tensor, b: Tensor) -> Tensor:
    """``log(a / b)``, where the quotient leaves the range of numbers too."""
    ratio = a / b
    usual = (ratio > torch.finfo(ratio.dtype).tiny) & torch.isfinite(ratio)
    return torch.where(usual, torch.where(usual, ratio, 1.0).log(), a.log() - b.log())


def _relation_or_zeros(distribution: ComplexNormal, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if distribution.is_circular else distribution.relation_matrix


def _real_blocks(plus: Tensor, minus: Tensor) -> Tensor:
    """``½ [[Re P, -Im M], [Im P, Re M]]`` of P = Σ + R and M = Σ - R."""
    upper = torch.cat([plus.real, -minus.imag], -1)
    lower = torch.cat([plus.imag, minus.real], -1)
    return torch.cat([upper, lower], -2) / 2


def _improper_square(whitened: Tensor, coherence: Tensor) -> Tensor:
    """``|w|² - Re ρ̄ w²``."""
    return _squared_modulus(whitened) - (coherence.conj() * whitened * whitened).real


def _is_close_to_symmetric(x: Tensor) -> Tensor:
    """Per entry, up to rounding (``64 D ε`` of the largest)."""
    size = x.detach().abs().amax((-2, -1), keepdim=True)
    return (x - x.mT).detach().abs() <= 64 * x.shape[-1] * torch.finfo(x.dtype).eps * size


def _squared_modulus(x: Tensor) -> Tensor:
    return (x * x.conj()).real


def _solve_lower(factor: Tensor, columns: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, columns, upper=False)


def _on_columns(
    operation: Callable[[Tensor, Tensor], Tensor], factor: Tensor, vectors: Tensor
) -> Tensor:
    """Applies ``operation(factor, columns)`` to vectors ``[..., D]``.

    Dimensions that the factor does not have become columns of one call: the factor is not copied
    for each sample.
    """
    extra = vectors.ndim - 1 - (factor.ndim - 2)
    if extra <= 0:
        return operation(factor, vectors[..., None])[..., 0]
    columns = vectors.flatten(0, extra - 1).movedim(0, -1)
    result = operation(factor, columns).movedim(-1, 0)
    return result.reshape(vectors.shape[:extra] + result.shape[1:])


# ---------------------------------------------------------------------- checks

# A mask of offending entries, and what to say of the first of them.
_Fault = tuple[Tensor, Callable[[tuple[int, ...]], str]]


def _check_tensor(
    name: str,
    value: Tensor,
    dtype: torch.dtype,
    device: torch.device,
    *,
    reference: str = "loc",
) -> None:
    if not isinstance(value, Tensor):
        raise InputError(
            f"Expected {name} to be a torch.Tensor but got {name} of type {type(value).__name__}."
        )
    if value.dtype != dtype:
        raise InputError(
            f"Expected {name} to be {dtype}, to go with {reference}, but got "
            f"{name}.dtype={value.dtype}. Nothing is promoted: convert one of them with .to(...)."
        )
    if value.device != device:
        raise InputError(
            f"Expected {name} to be on {device}, with {reference}, but got "
            f"{name}.device={value.device}."
        )


def _should_validate(validate_args: bool | None) -> bool:
    """Our default is True: torch's global default is turned off by its own ``torch.compile``."""
    return True if validate_args is None else validate_args


def _check_loc(loc: Tensor) -> None:
    if not isinstance(loc, Tensor):
        raise InputError(
            f"Expected loc to be a torch.Tensor but got loc of type {type(loc).__name__}."
        )
    if loc.dtype not in _REAL_DTYPE:
        raise InputError(
            "Expected loc to be complex (torch.complex64 or torch.complex128) but got "
            f"loc.dtype={loc.dtype}. A real mean is not promoted: write torch.complex(re, im) or "
            "loc.to(torch.complex128)."
        )
    if loc.ndim < 1 or loc.shape[-1] == 0:
        raise InputError(
            "Expected loc to have the shape [..., D] with D ≥ 1 but got "
            f"loc.shape={list(loc.shape)}."
        )


def _check_factor(
    structure: Structure,
    factor: Tensor,
    loc: Tensor,
    *,
    name: str | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Size:
    """Checks dtype, device and shape of a scale or relation; returns the common batch shape."""
    name = name or _ARGUMENT[structure]
    dimension = loc.shape[-1]
    expected = {"scalar": [], "diagonal": [dimension], "full": [dimension, dimension]}[structure]
    dtype = dtype or (loc.dtype if structure == "full" else _REAL_DTYPE[loc.dtype])
    _check_tensor(name, factor, dtype, loc.device)
    split = factor.ndim - len(expected)
    if split < 0 or list(factor.shape[split:]) != expected:
        inner = ", ".join(map(str, ["...", *expected]))
        raise InputError(
            f"Expected {name} to have the shape [{inner}], to go with loc.shape={list(loc.shape)}, "
            f"but got {name}.shape={list(factor.shape)}."
        )
    hint = " For one scale per coordinate pass scale_diag." if structure == "scalar" else ""
    return _broadcast(
        f"the batch dimensions of {name}",
        factor.shape[:split],
        "those of loc",
        loc.shape[:-1],
        hint,
    )


def _broadcast(
    name: str, shape: torch.Size, other_name: str, other: torch.Size, hint: str = ""
) -> torch.Size:
    try:
        return torch.broadcast_shapes(shape, other)
    except RuntimeError as error:
        raise InputError(
            f"Expected {name} to broadcast with {other_name} but got {list(shape)} and "
            f"{list(other)}.{hint}"
        ) from error


def _value_faults(structure: Structure, factor: Tensor, loc: Tensor) -> Iterator[_Fault]:
    name = _ARGUMENT[structure]
    yield ~torch.isfinite(loc), _not_finite("loc", loc)
    yield ~torch.isfinite(factor), _not_finite(name, factor)
    if structure != "full":
        yield (
            factor <= 0,
            lambda i: f"{name} must be positive but is {factor[i].item():.3g}{_at(i)}.",
        )
        return
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    yield (
        factor.triu(1) != 0,
        lambda i: (
            f"scale_tril must be lower triangular but has {factor[i].item():.3g} above its diagonal"
            f"{_at(i)}. Is it an upper factor (pass its .mH), or a covariance (use "
            "ComplexNormal.from_covariance)?"
        ),
    )
    yield (
        ~((diagonal.real > 0) & (diagonal.imag == 0)),
        lambda i: (
            "scale_tril must have a real positive diagonal but has "
            f"{diagonal[i].item():.3g}{_at((*i, i[-1]))}."
        ),
    )


def _relation_faults(distribution: ComplexNormal) -> Iterator[_Fault]:
    relation = distribution.relation
    if relation is None:
        return
    yield ~torch.isfinite(relation), _not_finite("relation", relation)
    if distribution.structure != "full":
        variance = distribution._factor.square().expand(relation.shape)
        yield (
            ~(relation.abs() < variance),
            lambda i: (
                "relation must be smaller in modulus than the variance E|x-μ|² but |δ| is "
                f"{relation[i].abs().item():.3g}, where the variance is {variance[i].item():.3g}"
                f"{_at(i)}."
            ),
        )
        return
    yield (
        ~_is_close_to_symmetric(relation),
        lambda i: (
            "relation must be symmetric (R = Rᵀ, not Rᴴ) but |R - Rᵀ| is "
            f"{(relation - relation.mT)[i].abs().item():.3g}{_at(i)}."
        ),
    )
    real = distribution._real_covariance()
    yield (
        torch.linalg.cholesky_ex(real).info != 0,
        lambda i: (
            "relation must leave [[Σ, R], [R̄, Σ̄]] positive definite but its smallest eigenvalue is "
            f"{2 * torch.linalg.eigvalsh(real[i].detach())[0].item():.3g}{_at(i)}."
        ),
    )


def _not_finite(name: str, value: Tensor) -> Callable[[tuple[int, ...]], str]:
    return lambda index: f"{name} must be finite but is {value[index].item()}{_at(index)}."


def _at(index: tuple[int, ...]) -> str:
    return f" at index {list(index)}" if index else ""


def _raise_if_any(faults: list[_Fault]) -> None:
    """Raises for the first fault whose mask has a true entry; reads one boolean from the device."""
    if torch.compiler.is_compiling():
        return
    flag = torch.stack([mask.any() for mask, _ in faults]).any()
    if flag.device.type == "meta":
        return
    try:
        found = bool(flag)
    except RuntimeError as error:
        if "vmap" in str(error):
            return
        raise
    if not found:
        return
    for mask, describe in faults:
        where = mask.nonzero()
        if len(where):
            raise InputError(describe(tuple(where[0].tolist())))
