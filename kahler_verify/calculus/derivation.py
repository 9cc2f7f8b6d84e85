"""What a derivation file declares: a definition, the kernels wanted from it, claims and sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sympy import Expr, Symbol

from kahler_verify.calculus.abbreviation import staged
from kahler_verify.calculus.claims import Claim
from kahler_verify.calculus.definition import Partial, assume, derive
from kahler_verify.calculus.letters import Bar, Index, Jet, dimension, index
from kahler_verify.calculus.words import scalars
from kahler_verify.errors import DerivationError


@dataclass(frozen=True)
class Output:
    """One result of a kernel: its unevaluated definition and the order of its latent indices.

    ``upper`` are those of the indices that are upper ones; all others are lower.
    """

    definition: Expr
    indices: tuple[Symbol, ...] = ()
    upper: tuple[Symbol, ...] = ()

    def __post_init__(self) -> None:
        if stray := set(self.upper) - set(self.indices):
            raise DerivationError(f"upper: expected some of {self.indices}, got {stray}")

    def derived(self, *assumptions: tuple[Jet, str]) -> Expr:
        """The definition evaluated by the calculus, under further assumptions on fields.

        What is nested inside of functions goes by abbreviations, see :func:`staged`.
        """
        return assume(derive(staged(self.definition)), *assumptions)


@dataclass(frozen=True)
class Kernel:
    """A function to generate: named outputs, a layout for matrix fields, and assumptions.

    ``layout`` maps a field's name to ``full``, ``diagonal`` or ``scalar``; ``assumptions`` are
    pairs such as ``(mu, "holomorphic")``; ``known`` gives expected values in the same notation,
    for checks.
    """

    name: str
    outputs: Mapping[str, Output]
    layout: Mapping[str, str] = field(default_factory=dict)
    assumptions: tuple[tuple[Jet, str], ...] = ()
    coordinates: tuple[Symbol, ...] = ()  # of explicit potentials: z1, z2, …
    least: Mapping[str, int] = field(default_factory=dict)  # sizes below which it is not defined

    @cached_property
    def letters(self) -> frozenset[Jet]:
        """All letters in the definitions of its outputs."""
        return frozenset().union(*(out.definition.atoms(Jet) for out in self.outputs.values()))

    @cached_property
    def indices(self) -> frozenset[Index]:
        """All indices of its outputs and in their definitions."""
        inside = (out.definition.atoms(Index) for out in self.outputs.values())
        return frozenset().union(*inside, *(out.indices for out in self.outputs.values()))

    def derived(self) -> dict[str, Expr]:
        """Every output evaluated by the calculus."""
        return {name: out.derived(*self.assumptions) for name, out in self.outputs.items()}


# Independent routes that any derivation has; kahler_verify.evidence.routes.kernel has all of them.
ROUTES = ("autograd", "mpmath", "exact", "componentwise", "known")


@dataclass(frozen=True)
class Derivation:
    """One subject: what a file of derivations/ declares."""

    name: str
    title: str
    kernels: tuple[Kernel, ...]
    latent: Expr
    source: str = ""
    assumptions: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    definition: Expr | None = None
    written: Expr | None = None  # the definition as its user wrote it, before any normal form
    coordinates: tuple[Symbol, ...] = ()  # of explicit potentials: z1, z2, …
    domain: Expr | None = None  # real, and positive exactly where the derivation is defined
    inside: Expr | tuple[Expr, ...] | None = None  # a point of it: all coordinates, or each
    positive: bool = False  # claims that its metric is positive definite on the domain
    known: Mapping[str, Any] = field(default_factory=dict)  # constants that evidence compares with
    routes: tuple[str, ...] = ROUTES  # which of them apply to its kernels; at least three must

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise DerivationError(f"name: expected a Python identifier, got {self.name!r}")
        names = [k.name for k in self.kernels]
        if len(set(names)) != len(names):
            raise DerivationError(f"{self.name}: kernels need different names, got {names}")


def explicit_coordinates(names: str) -> tuple[Symbol, ...]:
    """Coordinates z1, z2, … of a fixed dimension; write z̄ as ``conjugate(z1)``."""
    return tuple(Symbol(name, complex=True) for name in names.split())


def paper(name: str, title: str, source: str, claims: tuple[Claim, ...]) -> Derivation:
    """A paper: claims alone, about what files of derivations define."""
    return Derivation(
        name=name, title=title, source=source, claims=claims, kernels=(), latent=dimension("d")
    )


def potential(
    name: str,
    expr: Expr,
    *,
    title: str = "",
    source: str = "",
    coordinates: tuple[Symbol, ...] = (),
    assumptions: tuple[str, ...] = (),
    claims: tuple[Claim, ...] = (),
    domain: Expr | None = None,
    inside: Expr | tuple[Expr, ...] | None = None,
    positive: bool = False,
    known: Mapping[str, Any] | None = None,
) -> Derivation:
    """A Kähler potential Φ and the kernels its geometry needs.

    ``value`` Φ, ``gradient`` ∂_aΦ, ``metric`` g_{ab̄} = ∂_a∂_b̄Φ, ``metric_d`` ∂_c g_{ab̄} and
    ``metric_db`` ∂_c∂_ē g_{ab̄} (outputs [a, b], [c, a, b] and [c, e, a, b]).  With ``coordinates``
    from :func:`explicit_coordinates` the kernels are unrolled for that fixed dimension; otherwise
    ``expr`` is built from letters and holds in every dimension.

    ``domain`` is a real expression in the same notation, positive exactly where Φ is defined (``1
    - z.H * z`` for the unit ball); evidence draws its points there, and around the point ``inside``
    where one is named: a number for each coordinate, or one for all, such as ``I`` for the upper
    half-plane. ``positive`` claims that g is positive definite on it, and ``known`` gives constants
    of its geometry, such as ``{"holomorphic_sectional_curvature": 2}``; evidence checks both.
    """
    a, b, c, e = index("a b c e")
    phi = expr if coordinates else scalars(expr)
    if not phi.is_commutative:
        raise DerivationError(
            f"potential {name}: expected a number, got the vector or matrix {phi}: "
            "write z.H * z for |z|², Tr(X) or LogDet(X) for a matrix"
        )
    derivatives = {
        "gradient": ("phi_d", (a,), (a,)),
        "metric": ("g", (a, Bar(b)), (a, b)),
        "metric_d": ("g_d", (a, c, Bar(b)), (c, a, b)),
        "metric_db": ("g_db", (a, c, Bar(b), Bar(e)), (c, e, a, b)),
    }
    kernels = [Kernel("value", {"phi": Output(phi)}, coordinates=coordinates)]
    for kernel, (out, by, order) in derivatives.items():
        definition = Partial(phi, *by)
        output = Output(definition, order)
        kernels.append(Kernel(kernel, {out: output}, coordinates=coordinates))
    latent = dimension("d")
    letters = [j for j in phi.atoms(Jet) if "coordinate" in j.field.traits]
    if not coordinates and not letters:
        raise DerivationError(
            f"potential {name}: expected an expression of coordinates('z', d) or "
            f"coordinates=(z1, …), got {phi}"
        )
    if letters:
        latent = letters[0].field.shape[0]
    return Derivation(
        name=name,
        title=title or name.replace("_", " "),
        kernels=tuple(kernels),
        latent=latent,
        source=source,
        assumptions=assumptions,
        claims=claims,
        definition=phi,
        written=expr,
        coordinates=coordinates,
        domain=domain if domain is None or coordinates else scalars(domain),
        inside=inside,
        positive=positive,
        known=known or {},
    )
