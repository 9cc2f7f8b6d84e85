"""Halves of inverses, pushed into the neighbouring letters."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sympy import Expr

from kahler_verify.calculus.letters import Field, Jet
from kahler_verify.codegen.numbers import is_real
from kahler_verify.codegen.program import Program
from kahler_verify.codegen.storage import Storage
from kahler_verify.errors import GenerationError

SOLVE = "torch.linalg.solve_triangular"


@dataclass(frozen=True)
class Letter:
    """A letter between inverses: which factors of Σ⁻¹ = L⁻ᴴL⁻¹ are pushed into it, on which side.

    A side is "" (nothing), "half" (one triangular solve) or "whole" (both).
    """

    jet: Jet | None  # None: the identity
    field: Field  # whose factor is pushed in, or the jet's own
    left: str = ""
    right: str = ""


def whitened(word: list[tuple[Expr, int]], *, cyclic: bool) -> list[Letter]:
    """Push the halves of every inverse into its neighbours."""
    out: list[Letter] = []
    pending: tuple[Field, str] | None = None
    if cyclic:
        pending = (invertible(word[-1][0]), "half")
    for n, (base, power) in enumerate(word):
        last = n == len(word) - 1
        if power > 0:
            if not isinstance(base, Jet):
                raise GenerationError(f"expected a letter, got the compound matrix {base}")
            letter = Letter(base, pending[0] if pending else base.field)
            out.append(replace(letter, left=pending[1]) if pending else letter)
            pending = None
            continue
        owner = invertible(base)
        if pending is not None:  # two inverses in a row: an identity stands between them
            out.append(Letter(None, pending[0], left=pending[1]))
            pending = None
        if not out:  # the word begins with an inverse: nothing to its left takes a half
            pending = (owner, "whole")
            if last:
                out.append(Letter(None, owner, left="whole"))
                pending = None
            continue
        side = "whole" if last and not cyclic else "half"
        previous = out[-1]
        if previous.left and previous.field != owner:
            raise GenerationError("a letter between two different inverses is not supported")
        out[-1] = replace(previous, field=owner, right=side)
        pending = None if last else (owner, "half")
    return out


def spared(letters: list[Letter]) -> list[Letter]:
    """Tr(Σ⁻¹X Σ⁻¹Y) = Tr((Σ⁻¹XΣ⁻¹) Y): whole inverses go into the letter of lower order.

    Each derivative multiplies a letter by d, and so what its halves cost.  A letter without one is
    left alone: its fellows are whitened for other words anyway.
    """
    if len(letters) != 2 or any((x.left, x.right) != ("half", "half") for x in letters):
        return letters
    orders = [_order(x.jet) for x in letters]
    if orders[0] == orders[1] or 0 in orders or letters[0].field != letters[1].field:
        return letters
    low = orders.index(min(orders))
    sides = ["whole" if n == low else "" for n in (0, 1)]
    return [replace(x, left=side, right=side) for x, side in zip(letters, sides, strict=True)]


def _order(jet: Jet | None) -> int:
    return 0 if jet is None else len(jet.hol) + len(jet.anti)


def invertible(base: Expr) -> Field:
    """The field whose inverse a word has, one that is declared positive."""
    if isinstance(base, Jet) and "positive" in base.field.traits and not (base.hol or base.anti):
        return base.field
    raise GenerationError(
        f"only fields declared positive=True have an inverse in kernels, got ({base})⁻¹"
    )


def solve_into(
    stored: Storage, letter: Letter, x: str, latents: int, dagger: bool
) -> tuple[str, str]:
    """Multiply a stored tensor by halves of the inverse; a dagger swaps the sides."""
    left, right = (letter.right, letter.left) if dagger else (letter.left, letter.right)
    field, let = letter.field, stored.program.let
    layout = stored.layout(field)
    n = field.shape[0]
    factor = stored.factor(field)
    is_vector = letter.jet is not None and 1 in letter.jet.field.shape
    if letter.jet is not None and not is_vector and layout != "scalar":
        neighbour = stored.layout(letter.jet.field)
        if neighbour != layout:
            raise GenerationError(
                f"{field.name} is stored as {layout}, its neighbour {letter.jet.field.name} as "
                f"{neighbour}: give both the same layout"
            )
    if layout != "full":
        halves = sum({"": 0, "half": 1, "whole": 2}[side] for side in (left, right))
        own = (
            1
            if is_vector
            else len(
                {"full": "ij", "diagonal": "i", "scalar": ""}[
                    "full" if letter.jet is None else stored.layout(letter.jet.field)
                ]
            )
        )
        if layout == "diagonal" and own == 2:
            raise GenerationError(f"{field.name} is diagonal next to a full matrix")
        # a complex tensor is divided by a real one as if both were complex: ten times as slow
        s = let(f"torch.reciprocal({factor})", "r")
        s = s + ".unsqueeze(-1)" * (own if layout == "scalar" else 0)
        s = let(s + f".unsqueeze({-1 - own})" * latents, "r")
        return let(f"{x} * {s if halves == 1 else let(f'{s} * {s}', 'r')}", "v"), layout
    real = "real" in field.traits and (letter.jet is None or is_real(letter.jet))
    adjoint = "mT" if real else "mH"
    work = (1 if real else 4) * n * n * (1 if is_vector else n) * stored.latent**latents
    if is_vector:
        if right:
            raise GenerationError("an inverse stands on the wrong side of a vector")
        matrix, back, spare = (f"{x}.mT", ".mT", latents - 1)
        if not latents:
            matrix, back, spare = f"{x}.unsqueeze(-1)", ".squeeze(-1)", 0
        factor = spread(stored.program, factor, spare)
        solved = solve(stored.program, factor, matrix, left, work, adjoint)
        return let(f"{solved}{back}", "v", work), layout
    factor = spread(stored.program, factor, latents)
    if (left, right) == ("whole", "whole"):
        return _both_whole(stored.program, factor, x, work, adjoint), layout
    if left:
        x = let(solve(stored.program, factor, x, left, work, adjoint), "y", work)
    if right:
        solved = solve(stored.program, factor, f"{x}.{adjoint}", right, work, adjoint)
        x = let(f"{solved}.{adjoint}", "y", work)
    return x, layout


def _both_whole(program: Program, factor: str, x: str, work: Expr, adjoint: str) -> str:
    """Σ⁻¹XΣ⁻¹: the halves L⁻¹XL⁻ᴴ first, which other words may have too."""
    for triangle, upper in ((factor, False), (f"{factor}.{adjoint}", True)):
        x = program.let(f"{SOLVE}({triangle}, {x}, upper={upper})", "y", work)
        turned = f"{SOLVE}({triangle}, {x}.{adjoint}, upper={upper})"
        x = program.let(f"{turned}.{adjoint}", "y", work)
    return x


def spread(program: Program, factor: str, latents: int) -> str:
    """A factor [..., n, n] with an axis of length one for each latent index."""
    if latents == 0:
        return factor
    return program.let(factor + ".unsqueeze(-3)" * latents, "f")


def solve(program: Program, factor: str, x: str, side: str, work: Expr, adjoint: str = "mH") -> str:
    """Code of L⁻¹ X, or of L⁻ᴴL⁻¹ X for the whole inverse."""
    half = f"{SOLVE}({factor}, {x}, upper=False)"
    if side == "half":
        return half
    half = program.let(half, "y", work)
    return f"{SOLVE}({factor}.{adjoint}, {half}, upper=True)"
