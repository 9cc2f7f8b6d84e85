"""The inputs of kernels."""

from __future__ import annotations

from collections.abc import Mapping
from keyword import iskeyword

from sympy import Basic, Expr

from kahler_verify.calculus.letters import Field
from kahler_verify.codegen.program import Axis, Input, Program
from kahler_verify.errors import GenerationError


class Storage:
    """The inputs of one program: how fields are stored, and what kernels call them.

    Args:
        program: whose inputs these are.
        latent: the dimension d of the latent space.
        layouts: of fields by name: "full" [n, n], "diagonal" [n], or "scalar" [] (a multiple of the
            identity); full where they are not named.
    """

    def __init__(self, program: Program, latent: Expr, layouts: Mapping[str, str]):
        self.program, self.latent, self.layouts = program, latent, layouts

    def layout(self, field: Field) -> str:
        """How a field is stored: full, diagonal or scalar (vectors are always full)."""
        rows, cols = field.shape
        return self.layouts.get(field.name, "full") if 1 not in (rows, cols) else "full"

    def factor(self, field: Field) -> str:
        """The input that holds the Cholesky factor of a positive field."""
        layout, n = self.layout(field), field.shape[0]
        sizes = {"full": (n, n), "diagonal": (n,), "scalar": ()}[layout]
        meaning = {
            "full": f"Cholesky factor L of {field.name} = L Lᴴ, lower triangular",
            "diagonal": f"s > 0 with {field.name} = diag(s²)",
            "scalar": f"s > 0 with {field.name} = s² I",
        }[layout]
        if "constant" in field.traits:
            self.program.constants.add(f"{stored_name(field)}_factor")
        return self.input(f"{stored_name(field)}_factor", sizes, meaning, field)

    def jet(self, field: Field, hol: int, anti: int, axes: tuple[Axis, ...]) -> str:
        """The input that holds a derivative of a field, of ``hol`` ∂ and ``anti`` ∂̄."""
        name = stored_name(field)
        if "constant" in field.traits:
            self.program.constants.add(name)
        marks = "d" * hol + "b" * anti
        what = "∂" * hol + "∂̄" * anti + field.name
        layout = self.layout(field)
        if layout != "full":
            what += (
                f" ({layout}: what multiplies the identity)"
                if layout == "scalar"
                else (f" ({layout}: its diagonal)")
            )
        stored = f"{name}_{marks}" if marks else name
        return self.input(stored, tuple(a.size for a in axes), what, field)

    def input(
        self, name: str, sizes: tuple[Expr, ...], meaning: str, owner: Basic | None = None
    ) -> str:
        """The name of an input, which must be the same wherever it is met."""
        known = self.program.inputs.setdefault(name, Input(name, sizes, meaning))
        if known.sizes != sizes:
            raise GenerationError(f"{name}: is used with shapes {known.sizes} and {sizes}")
        if self.program.owners.setdefault(name, owner) != owner:
            raise GenerationError(
                f"two different fields would be passed as the argument {name}: rename one of them"
            )
        check_name(name)
        return name


def check_name(name: str) -> None:
    """Arguments of kernels need names that Python allows and kernels do not use themselves."""
    if not name.isidentifier() or iskeyword(name) or name in ("torch", "delta"):
        raise GenerationError(f"{name!r} cannot name an argument in Python: rename that letter")


def stored_name(field: Field) -> str:
    """What kernels call a field; 0 marks its value at the base point."""
    return field.name + ("0" if "frozen" in field.traits else "")
