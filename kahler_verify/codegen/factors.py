"""Factors of a term as tensors with named axes: scalar jets, moments of components, words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

from sympy import Expr, Symbol

from kahler_verify.calculus.abbreviation import unfolded
from kahler_verify.calculus.letters import Index, Jet, is_real_index, size_of
from kahler_verify.calculus.mixture import Centred
from kahler_verify.calculus.words import Tr, factor_word, shape_of
from kahler_verify.codegen.numbers import (
    is_real,
)
from kahler_verify.codegen.opening import is_constant
from kahler_verify.codegen.program import COMPONENTS, Axis, Operand, Program
from kahler_verify.codegen.storage import Storage
from kahler_verify.codegen.whitening import Letter, solve_into, spared, whitened
from kahler_verify.errors import GenerationError

K = COMPONENTS


class Factors(ABC):
    """Lowers the factors that stand for stored tensors, of one program.

    Args:
        program: what the lines go to.
        latent: the dimension d of the latent space.
        layouts: how fields are stored, by name; see :class:`Storage`.
    """

    def __init__(self, program: Program, latent: Expr, layouts: Mapping[str, str] | None = None):
        self.program = program
        self.latent = latent
        self.stored = Storage(program, latent, layouts or {})
        self._dummies = 0
        self._abbreviated: dict[Expr, str] = {}  # tensors of abbreviations and their derivatives

    @abstractmethod
    def tensor(self, expr: Expr, axes: tuple[Axis, ...], k: Axis | None = None) -> str:
        """Code of an expression as one tensor over the axes."""

    # ------------------------------------------------------------------ axes
    def axis(self, i: Symbol) -> Axis:
        """The axis of a latent index."""
        return Axis(str(i), size_of(i, self.latent))

    def _fresh(self, i: Symbol) -> Index:
        self._dummies += 1
        return Index(f"_{i}{self._dummies}", getattr(i, "size", None), real=bool(i.is_real))

    def _dummy(self, size: Expr) -> Axis:
        self._dummies += 1
        return Axis(f"_{self._dummies}", size)

    # ------------------------------------------------------------------ mixtures
    def _weights(self, k: Axis) -> Operand:
        name = self.stored.input("w", (K,), "weights of the components at z, normalised")
        return Operand(name, (k,), real=True)

    def _component_jet(self, jet: Expr, k: Axis) -> Operand:
        if not (isinstance(jet, Jet) and jet.field.is_scalar):
            raise GenerationError(f"expected a derivative of a component potential, got {jet}")
        return self._scalar_jet(jet, k)

    def _mean(self, jet: Expr) -> Operand:
        k = self._dummy(K)
        stored = self._component_jet(jet, k)
        out = tuple(a for a in stored.axes if a != k)
        plain = replace(stored, conj=False)
        mean = self.program.contract([self._weights(k), plain], out)
        return replace(mean, conj=mean.conj != stored.conj and not stored.real, real=stored.real)

    def _of_component(self, factor: Expr, k: Axis) -> Operand:
        if isinstance(factor, Centred):
            return self._centred(factor, k)
        return self._component_jet(factor, k)

    def _centred(self, centred: Centred, k: Axis) -> Operand:
        stored = self._component_jet(centred.args[1], k)
        mean = self._mean(centred.args[1])
        conj = mean.conj != stored.conj and not stored.real
        code = self.program.arranged(replace(mean, conj=conj), stored.axes[1:])
        position = -len(stored.axes)
        name = self.program.let(f"{stored.tensor} - {code}.unsqueeze({position})", "u")
        return replace(stored, tensor=name)

    def _scalar_jet(self, jet: Jet, k: Axis | None = None) -> Operand:
        if "component" not in jet.field.traits:
            k = None
        elif k is None:
            raise GenerationError(f"{jet} depends on the component outside of a sum")
        hol, anti, conj = jet.hol, jet.anti, jet.dagger
        if "hermitian" in jet.field.traits and len(anti) > len(hol):
            hol, anti, conj = anti, hol, True
        lead = (k,) if k is not None else ()
        if jet.field.abbreviated:
            name, free = self._abbreviation(Jet(jet.field, hol, anti))
            axes = (*free, *[self.axis(i) for i in (*hol, *anti)])
            return Operand(name, axes, conj, is_real(jet))
        axes = (*lead, *[self.axis(i) for i in (*hol, *anti)])
        name = self.stored.jet(jet.field, len(hol), len(anti), axes)
        if is_constant(jet):
            self.program.constants.add(name)
        return Operand(name, axes, conj, is_real(jet))

    # ------------------------------------------------------------------ words
    def _trace(self, trace: Tr, k: Axis | None = None) -> list[Operand]:
        word = factor_word(trace.args[0])[1]
        if shape_of(_plain(word[0]))[0] == 1:
            return self._chain(word, None, None, k)
        inverses = [i for i, (_, power) in enumerate(word) if power < 0]
        if inverses:  # turn the cycle so that it ends with an inverse, whose halves join
            turn = inverses[-1] + 1
            word = word[turn:] + word[:turn]
        joint = self._dummy(shape_of(_plain(word[0]))[0])
        return self._chain(word, joint, joint, k, cyclic=bool(inverses))

    def _chain(
        self,
        word: list[tuple[Expr, int]],
        left: Axis | None,
        right: Axis | None,
        k: Axis | None = None,
        *,
        cyclic: bool = False,
    ) -> list[Operand]:
        letters = whitened(word, cyclic=cyclic)
        if cyclic and self.stored.layout(letters[0].field) == "full":
            letters = spared(letters)
        operands, here = [], left
        for n, letter in enumerate(letters):
            rows, cols = (
                letter.jet.shape if letter.jet is not None else (letter.field.shape[0],) * 2
            )
            row = here if rows != 1 else None
            col = None
            if cols != 1:
                col = right if n == len(letters) - 1 else self._dummy(cols)
            operands += self._letter(letter, row, col, k)
            here = col
        return operands

    def _letter(
        self, letter: Letter, row: Axis | None, col: Axis | None, k: Axis | None = None
    ) -> list[Operand]:
        jet = letter.jet
        if jet is None:
            tensor, _ = solve_into(
                self.stored, letter, self.program.eye(letter.field.shape[0]), 0, False
            )
            real = "real" in letter.field.traits
            own = _present(row, col)
            return [Operand(tensor, _sorted(own) if real else own, real=real)]
        lead: tuple[Axis, ...] = ()
        if "component" in jet.field.traits and not (jet.hol and "coordinate" in jet.field.traits):
            if k is None:
                raise GenerationError(f"{jet} depends on the component outside of a sum")
            lead = (k,)
        if "coordinate" in jet.field.traits and jet.hol:
            (i,) = jet.hol
            own = _present(row, col)
            lead = (self._dummy(K),) if "component" in jet.field.traits else ()
            self.stored.jet(jet.field, 0, 0, (*lead, self.axis(i)))  # tells the dimension
            if not letter.left and not letter.right:
                return [Operand("delta", (self.axis(i), *own))]
            side = letter.right if jet.dagger else letter.left
            columns = Letter(None, letter.field, left=side)  # Σ⁻¹e_a is a column of Σ⁻¹
            tensor, _ = solve_into(
                self.stored, columns, self.program.eye(jet.field.shape[0]), 0, False
            )
            real = is_real(jet)
            return [Operand(tensor, (*own, self.axis(i)), jet.dagger and not real, real)]
        hol, anti, dagger = jet.hol, jet.anti, jet.dagger
        real = is_real(jet)
        barred = False  # whether the conjugate of a real field's derivative is stored
        if "hermitian" in jet.field.traits and len(anti) > len(hol):
            hol, anti, dagger = anti, hol, True
        elif {"real"} <= jet.field.traits & letter.field.traits and len(anti) > len(hol):
            hol, anti, barred = anti, hol, True
        latent = tuple(self.axis(i) for i in (*hol, *anti))
        layout = self.stored.layout(jet.field)
        if layout == "full":  # a vector has one axis: a row's, or a column's when daggered
            own = _present(col, row) if dagger else _present(row, col)
        else:
            own = _present(row) if layout == "diagonal" else ()
        if jet.field.abbreviated:
            name, free = self._abbreviation(Jet(jet.field, hol, anti))
            lead = (*lead, *free)
        else:
            name = self.stored.jet(jet.field, len(hol), len(anti), (*lead, *latent, *own))
            free = ()
        if letter.left or letter.right:
            if lead != free:
                raise GenerationError(f"an inverse next to {jet}, which depends on the component")
            name, _ = solve_into(self.stored, letter, name, len(lead) + len(latent), dagger)
        symmetric = {"real", "hermitian"} <= jet.field.traits and letter.left == letter.right
        symmetric &= "real" in letter.field.traits
        if symmetric:
            own = _sorted(own)
        axes = (*lead, *latent, *own)
        conj = dagger != barred and not real
        operands = [Operand(name, axes, conj, real, symmetric and len(own) == 2)]
        if layout != "full":
            operands.append(Operand("delta", _present(row, col)))
        return operands

    def _abbreviation(self, jet: Jet) -> tuple[str, tuple[Axis, ...]]:
        """The tensor of an abbreviation's derivative, and the axes of its arguments."""
        field = jet.field.at_parameters()
        hol, anti = (
            tuple(Index(f"_{mark}{n}", getattr(i, "size", None), real=is_real_index(i)) for n, i in
                  enumerate(indices)) for mark, indices in (("d", jet.hol), ("b", jet.anti))
        )  # fmt: skip
        canonical = Jet(field, hol, anti)
        if canonical not in self._abbreviated:  # one tensor for all arguments and directions
            own = field.abbreviated[1]
            axes = tuple(self.axis(i) for i in (*field.arguments, *hol, *anti, *own))
            self._abbreviated[canonical] = self.tensor(unfolded(canonical), axes)
        return self._abbreviated[canonical], tuple(self.axis(i) for i in jet.field.arguments)


def _present(*axes: Axis | None) -> tuple[Axis, ...]:
    return tuple(a for a in axes if a is not None)


def _sorted(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    return tuple(sorted(axes, key=lambda a: (len(a.name), a.name)))


def _plain(letter: tuple[Expr, int]) -> Expr:
    return letter[0]
