"""Plant faults: in derivations, in the rules that print kernels, and in kernels' own text.

Faults of kernels' text and of derived expressions are made by rules that run over all shipped
kernels, and are the same in every run.  Faults of rules and of definitions are edits of one source
line each; an edit whose line no longer stands there is an error: the list follows the code.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from sympy import Add, Expr, Integer, Mul

from kahler_verify import derivations
from kahler_verify.calculus.claims import Claim
from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.calculus.letters import Jet, dimension
from kahler_verify.calculus.mixture import Centred, Mean, Moment, factors_of
from kahler_verify.calculus.wirtinger import wirtinger
from kahler_verify.calculus.words import Tr
from kahler_verify.codegen import kernel as printing
from kahler_verify.codegen.registry import load_file, shipped_file
from kahler_verify.derivations import shipped_folder
from kahler_verify.errors import EvidenceError, GenerationError, KahlerVerifyError

SIGN = "sign"
CONJUGATE = "conjugate dropped or moved"
TRANSPOSED = "transposed index"
FACTOR = "factor 2"
LOST = "lost term"
AXIS = "swapped contraction axis"
UNCENTRED = "uncentred moment"
TRIANGLE = "wrong triangle"
REAL = "real part too early"
WEIGHT = "weight not normalised"
BATCH = "batch axis mixed up"
POWER = "half a whitening"
SWAPPED = "swapped arguments"  # these two in ``heads`` alone: kernels call no functions
FUNCTION = "wrong function"
FAULTS = (
    SIGN,
    CONJUGATE,
    TRANSPOSED,
    FACTOR,
    LOST,
    AXIS,
    SWAPPED,
    FUNCTION,
    UNCENTRED,
    TRIANGLE,
    REAL,
    WEIGHT,
    BATCH,
    POWER,
)
PLACES = ("derivation", "generator", "kernel", "evidence", "geometry")

# How a mutated source may fail when it is printed or run.
FAILURES = (
    KahlerVerifyError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
MOST_SITES = 2  # of one fault in one kernel's text
MOST_KERNELS = 5  # that one edited rule of the generator is tried on
LONGEST_BODY = 40  # lines of a kernel that is printed anew; text is mutated at any length


@dataclass(frozen=True)
class Body:
    """A kernel's source, one assignment a line; the last line is ("return", …)."""

    name: str
    arguments: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """A module that holds this kernel alone."""
        out = ["import torch", "", "", f"def {self.name}({', '.join(self.arguments)}):"]
        out += [f"    return {c}" if n == "return" else f"    {n} = {c}" for n, c in self.lines]
        return "\n".join(out) + "\n"

    def with_line(self, n: int, code: str) -> Body:
        """The same with other code in line n."""
        lines = list(self.lines)
        lines[n] = (lines[n][0], code)
        return replace(self, lines=tuple(lines))


@dataclass(frozen=True)
class Target:
    """A shipped kernel: its derivation, its source, and the shapes of its tensors at one point."""

    derivation: Derivation
    kernel: Kernel
    body: Body
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``derivation.kernel``."""
        return f"{self.derivation.name}.{self.kernel.name}"


@dataclass(frozen=True)
class Mutant:
    """One planted fault: where, in which kernel, and the source that came of it.

    ``definition`` is the mutated derivation where the definition itself was edited: then the kernel
    and its definition agree, and only what stands outside of both can tell.
    """

    id: str
    fault: str
    place: str
    kernel: str
    description: str
    text: str
    definition: Derivation | None = None


def body_of_kernel(text: str, name: str) -> Body:
    """The source of one kernel of a generated module."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            lines = []
            for statement in node.body:
                if isinstance(statement, ast.Assign):
                    (to,) = statement.targets
                    lines.append((ast.unparse(to), ast.unparse(statement.value)))
                elif isinstance(statement, ast.Return) and statement.value is not None:
                    lines.append(("return", ast.unparse(statement.value)))
            return Body(name, tuple(a.arg for a in node.args.args), tuple(lines))
    raise EvidenceError(f"the generated text has no kernel {name!r}")


def printed_body(
    target: Target, derived: Mapping[str, Expr], heads: Mapping[Expr, str] | None = None
) -> Body:
    """A kernel printed from derived expressions by the generator as it stands now."""
    outputs = {n: (derived[n], o.indices) for n, o in target.kernel.outputs.items()}
    latent, layout = target.derivation.latent, target.kernel.layout
    printed = printing.print_kernel(outputs, latent, layout, dict(heads or {}))
    lines = [*printed.lines, ("return", ", ".join(printed.results))]
    plain = tuple((n, ast.unparse(ast.parse(c, mode="eval"))) for n, c in lines)
    return Body(target.kernel.name, printed.arguments, plain)


def difference(old: Body, new: Body) -> str:
    """The first line that differs."""
    for (name, before), (_, after) in zip(old.lines, new.lines, strict=False):
        if before != after:
            return f"{name} = {before} → {after}"
    return f"{len(old.lines)} lines → {len(new.lines)} lines"


# ------------------------------------------------------------------ kernels' own text

Edit = tuple[int, str]  # line number, new code
Operator = Callable[[Body, Mapping[str, tuple[int, ...]]], Iterator[Edit]]
EINSUM = re.compile(r"torch\.einsum\('([^']*)', (.*)\)$")
OPERATORS: list[tuple[str, Operator]] = []


def operator(fault: str) -> Callable[[Operator], Operator]:
    """Register an operator of a fault class."""

    def register(function: Operator) -> Operator:
        OPERATORS.append((fault, function))
        return function

    return register


def terms_of(code: str) -> list[tuple[str, str]]:
    """A sum as (sign, term); a product is one term."""

    def split(node: ast.expr) -> list[tuple[str, str]]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            sign = "+" if isinstance(node.op, ast.Add) else "-"
            return [*split(node.left), (sign, ast.unparse(node.right))]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return [("-", ast.unparse(node.operand))]
        return [("+", ast.unparse(node))]

    return split(ast.parse(code, mode="eval").body)


def sum_of(terms: Sequence[tuple[str, str]]) -> str:
    """Code of a sum."""
    out = " ".join(f"{sign} {term}" for sign, term in terms)
    return out.removeprefix("+ ") if out.startswith("+ ") else f"-{out.removeprefix('- ')}"


def _sums(body: Body) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    for n, (_, code) in enumerate(body.lines):
        terms = terms_of(code)
        if len(terms) > 1 or terms[0][0] == "-":
            yield n, terms


def _einsums(body: Body) -> Iterator[tuple[int, list[str], str, list[str]]]:
    """Line, subscripts of the operands (without dots), target, operands."""
    for n, (_, code) in enumerate(body.lines):
        found = EINSUM.match(code)
        if found:
            sources, target = found[1].replace("...", "").split("->")
            yield n, sources.split(","), target, found[2].split(", ")


def einsum_code(
    sources: Sequence[str], target: str, operands: Sequence[str], dots: str = "..."
) -> str:
    """Code of an einsum; ``dots`` stands before the target."""
    left = ",".join("..." + s for s in sources)
    return f"torch.einsum('{left}->{dots}{target}', {', '.join(operands)})"


def _sizes(
    sources: Sequence[str], operands: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """How long each subscript is, where the operand's shape is known."""
    sizes: dict[str, int] = {}
    for source, code in zip(sources, operands, strict=True):
        shape = shapes.get(code.removesuffix(".conj()"), ())
        sizes |= dict(zip(source, shape, strict=False))
    return sizes


def _swapped(text: str, i: str, j: str) -> str:
    return text.translate(str.maketrans(i + j, j + i))


@operator(SIGN)
def _flip_sign(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, terms in _sums(body):
        for i, (sign, term) in enumerate(terms):
            if i or sign == "-":
                other = "-" if sign == "+" else "+"
                yield n, sum_of([*terms[:i], (other, term), *terms[i + 1 :]])


@operator(CONJUGATE)
def _drop_conjugate(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (_, code) in enumerate(body.lines):
        for found in re.finditer(r"\.conj\(\)|\.mH", code):
            plain = "" if found[0] == ".conj()" else ".mT"
            yield n, code[: found.start()] + plain + code[found.end() :]


@operator(CONJUGATE)
def _move_conjugate(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, sources, target, operands in _einsums(body):
        flipped = [
            x if x == "w" else x.removesuffix(".conj()") if x.endswith(".conj()") else f"{x}.conj()"
            for x in operands
        ]
        if any(x.endswith(".conj()") for x in operands) and "w" not in operands:
            yield n, einsum_code(sources, target, flipped)
        for i, x in enumerate(operands):
            if not x.endswith(".conj()") and x != "w":
                yield (
                    n,
                    einsum_code(sources, target, [*operands[:i], flipped[i], *operands[i + 1 :]]),
                )


@operator(TRANSPOSED)
def _transpose(body: Body, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, sources, target, operands in _einsums(body):
        sizes = _sizes(sources, operands, shapes)
        for i, j in combinations(target, 2):
            if sizes.get(i) == sizes.get(j):
                yield n, einsum_code(sources, _swapped(target, i, j), operands)
    n, (_, result) = len(body.lines) - 1, body.lines[-1]
    for found in re.finditer(r"\w+", result):
        shape = shapes.get(found[0], ())
        if len(shape) > 1 and shape[-1] == shape[-2]:
            yield n, f"{result[: found.end()]}.mT{result[found.end() :]}"


@operator(FACTOR)
def _double(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, terms in _sums(body):
        for i, (sign, term) in enumerate(terms):
            known = re.match(r"(\d+) \* (.*)", term)
            new = known[2] if known else f"2 * {term}"
            yield n, sum_of([*terms[:i], (sign, new), *terms[i + 1 :]])


@operator(FACTOR)
def _double_whole(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (name, code) in enumerate(body.lines[:-1]):
        if name[0] in "tpsx" and len(terms_of(code)) == 1:
            yield n, f"2 * ({code})" if " @ " in code else f"2 * {code}"


@operator(LOST)
def _lose_term(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, terms in _sums(body):
        if len(terms) > 1:
            for i, (sign, term) in enumerate(terms):
                rest = sum_of([*terms[:i], *terms[i + 1 :]])
                if not re.search("[a-z]", rest):  # keep a tensor
                    rest = sum_of([*terms[:i], (sign, f"0 * {term}"), *terms[i + 1 :]])
                yield n, rest


@operator(AXIS)
def _swap_axis(body: Body, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, sources, target, operands in _einsums(body):
        sizes = _sizes(sources, operands, shapes)
        for k, source in enumerate(sources):
            for i, j in combinations(sorted(set(source)), 2):
                contracted = i not in target or j not in target
                if contracted and i in sizes and sizes[i] == sizes.get(j):
                    other = [*sources[:k], _swapped(source, i, j), *sources[k + 1 :]]
                    yield n, einsum_code(other, target, operands)


CENTRED = re.compile(r"(\w+) - (\w+)\.unsqueeze\(-\d\)$")


@operator(UNCENTRED)
def _leave_mean(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (_, code) in enumerate(body.lines):
        found = CENTRED.match(code)
        if found:
            yield n, found[1]


@operator(UNCENTRED)
def _leave_mean_once(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    raw = {name: m[1] for name, code in body.lines if (m := CENTRED.match(code))}
    for n, (_, code) in enumerate(body.lines):
        for found in re.finditer(r"\bu\d+\b", code):
            if found[0] in raw:
                yield n, code[: found.start()] + raw[found[0]] + code[found.end() :]


@operator(TRIANGLE)
def _other_triangle(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (_, code) in enumerate(body.lines):
        if "upper=" in code:
            yield n, re.sub("upper=(False|True)", lambda m: f"upper={m[1] == 'False'}", code)


@operator(TRIANGLE)
def _other_half(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (_, code) in enumerate(body.lines):
        found = re.search(r"solve_triangular\((\w+)(\.mH)?, (.*), upper=(False|True)\)", code)
        if found:
            first = found[1] if found[2] else f"{found[1]}.mH"
            call = f"solve_triangular({first}, {found[3]}, upper={not found[2]})"
            yield n, code[: found.start()] + call + code[found.end() :]


@operator(REAL)
def _real_part(body: Body, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, _, _, operands in _einsums(body):
        for x in operands:
            if x != "w":
                code = body.lines[n][1]
                yield n, code.replace(x, f"({x} + {x}.conj()) / 2", 1)
    for n, (_, code) in enumerate(body.lines):
        if re.fullmatch(r"\w+", code) and code in shapes:
            yield n, f"({code} + {code}.conj()) / 2"


@operator(WEIGHT)
def _weights(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, sources, target, operands in _einsums(body):
        if "w" not in operands:
            continue
        i = operands.index("w")
        relative = "w / w.select(-1, 0).unsqueeze(-1)"
        yield n, einsum_code(sources, target, [*operands[:i], relative, *operands[i + 1 :]])
        rest = [*sources[:i], *sources[i + 1 :]]
        yield n, einsum_code(rest, target, [*operands[:i], *operands[i + 1 :]])
        yield n, einsum_code(sources, target, [*operands[:i], "w * w", *operands[i + 1 :]])


@operator(WEIGHT)
def _lose_denominator(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (name, code) in enumerate(body.lines):
        found = re.match(r"(.*) / \(?([a-z]\w*)( \* \w+)*\)?$", code)
        if found and name[0] in "st" and "einsum" not in code:
            yield n, f"{found[1]} * {found[2]} / {found[2]}" if found[1] == "1" else found[1]
        found = re.match(r"torch\.reciprocal\((\w+)\)$", code)
        if found:
            yield n, found[1]


@operator(BATCH)
def _lead_axis(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (_, code) in enumerate(body.lines):
        for found in re.finditer(r"\.unsqueeze\(-\d\)", code):
            yield n, code[: found.start()] + ".unsqueeze(0)" + code[found.end() :]


@operator(BATCH)
def _sum_over_batch(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, sources, target, operands in _einsums(body):
        yield n, einsum_code(sources, target, operands, dots="")


@operator(POWER)
def _whiten_once(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (name, code) in enumerate(body.lines):
        if name[0] == "r" and re.fullmatch(r"(\w+) \* \1", code):
            yield n, code.split(" * ")[0]
        elif name[0] == "y" and "upper=True" in code:
            inner = re.search(r"solve_triangular\([\w.]+, (\w+), upper=True\)", code)
            if inner:
                yield n, inner[1] + code[inner.end() :]


def spread(candidates: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spaced."""
    if len(candidates) <= most:
        return list(candidates)
    return [candidates[(2 * i + 1) * len(candidates) // (2 * most)] for i in range(most)]


def kernel_mutants(target: Target, most: int = MOST_SITES) -> Iterator[Mutant]:
    """Textual faults of one shipped kernel."""
    for fault in FAULTS:
        number = 0
        for function in [f for name, f in OPERATORS if name == fault]:
            for n, code in spread(list(function(target.body, target.shapes)), most):
                number += 1
                body = target.body.with_line(n, code)
                where = f"{target.body.lines[n][0]} = {target.body.lines[n][1]}"
                yield Mutant(
                    f"kernel/{target.name}/{fault}/{number}",
                    fault,
                    "kernel",
                    target.name,
                    f"{where} → {code}",
                    body.text,
                )


# ------------------------------------------------------------------ derived expressions


def _other_letter(term: Expr) -> Iterator[Expr]:
    """One ∂̄ turned into ∂, or one adjoint dropped."""
    for jet in sorted(term.atoms(Jet), key=str):
        if jet.anti:
            moved = Jet(jet.field, (*jet.hol, jet.anti[0]), jet.anti[1:], jet.dagger)
            yield term.xreplace({jet: moved})
        elif jet.hol:
            yield term.xreplace({jet: Jet(jet.field, jet.hol[1:], jet.hol[:1], jet.dagger)})


def _other_indices(term: Expr, indices: Sequence[Any]) -> Iterator[Expr]:
    for i, j in combinations(indices, 2):
        yield term.xreplace({i: j, j: i})


def _other_order(term: Expr) -> Iterator[Expr]:
    """Two letters of one word exchanged."""
    for word in sorted(term.atoms(Tr), key=str):
        letters = [x for x in word.args[0].args if isinstance(x, Jet)]
        for x, y in combinations(letters, 2):
            if x != y and x.shape == y.shape:
                yield term.xreplace({word: word.xreplace({x: y, y: x})})


def _uncentred(term: Expr) -> Iterator[Expr]:
    """E[xy] instead of E[x°y°]."""
    for moment in sorted(term.atoms(Moment), key=str):
        q, inside = moment.args
        factors = factors_of(inside)
        if len(factors) == 2 and all(isinstance(f, Centred) for f in factors):
            means = Mul(*[Mean(q, f.args[1]) for f in factors])
            yield term.xreplace({moment: moment + means})


def _sum_not_mean(term: Expr) -> Iterator[Expr]:
    if term.atoms(Mean, Moment):
        yield dimension("K") * term


def _term_edits(term: Expr, indices: Sequence[Any]) -> Iterator[tuple[str, Expr]]:
    yield SIGN, -term
    yield FACTOR, 2 * term
    yield LOST, Integer(0)
    yield from ((CONJUGATE, t) for t in _other_letter(term))
    yield from ((TRANSPOSED, t) for t in _other_indices(term, indices))
    yield from ((AXIS, t) for t in _other_order(term))
    yield from ((UNCENTRED, t) for t in _uncentred(term))
    yield from ((WEIGHT, t) for t in _sum_not_mean(term))


def derived_mutants(target: Target, heads: Mapping[Expr, str]) -> Iterator[Mutant]:
    """One fault of each class in what the calculus derived for one kernel."""
    if len(target.body.lines) > LONGEST_BODY:
        return
    derived = target.kernel.derived()
    base = printed_body(target, derived, heads)
    candidates: dict[str, list[tuple[str, Expr, Expr, Expr]]] = {}
    for name, out in target.kernel.outputs.items():
        terms = Add.make_args(derived[name])
        for n, term in enumerate(terms):
            for fault, new in _term_edits(term, out.indices):
                whole = Add(*terms[:n], new, *terms[n + 1 :])
                if whole != derived[name] and whole != 0:
                    candidates.setdefault(fault, []).append((name, term, new, whole))
    for fault, found in candidates.items():
        for number, (name, term, new, whole) in enumerate(spread(found, 1)):
            try:
                body = printed_body(target, {**derived, name: whole}, heads)
            except FAILURES:  # nothing to run: no mutant
                continue
            if body != base:
                yield Mutant(
                    f"derivation/{target.name}/{fault}/{number}",
                    fault,
                    "derivation",
                    target.name,
                    f"{name}: {_short(term)} → {_short(new)}",
                    body.text,
                )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 120 else f"{text[:117]}…"


# ------------------------------------------------------------------ rules


@dataclass(frozen=True)
class Rule:
    """An edit of one line of a function that derives or prints."""

    fault: str
    function: Callable[..., Any]
    old: str
    new: str
    place: str = "generator"


def plain_function(function: Any) -> Any:
    """What stands under decorators, whether of a method, a property or what is kept."""
    for name in ("fget", "func", "__func__"):
        function = getattr(function, name, function)
    return inspect.unwrap(function)


@contextmanager
def edited(rule: Rule) -> Iterator[None]:
    """Run with the edited function in place of the true one.

    Raises:
        EvidenceError: the line to edit does not stand there exactly once.
    """
    function = plain_function(rule.function)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(rule.old) != 1:
        raise EvidenceError(
            f"{function.__qualname__}: expected {rule.old!r} once, found it "
            f"{source.count(rule.old)} times: adapt the mutant to the code"
        )
    scope: dict[str, Any] = {}
    code = "from __future__ import annotations\n" + source.replace(rule.old, rule.new)
    if function.__code__.co_freevars:  # what a method's ``super()`` needs
        inner = textwrap.indent(source.replace(rule.old, rule.new), "    ")
        free = "".join(f"    {name} = None\n" for name in function.__code__.co_freevars)
        code = f"def outer():\n{free}{inner}\n    return {function.__name__}\n"
        code = f"from __future__ import annotations\n{code}{function.__name__} = outer()\n"
    exec(code, dict(function.__globals__), scope)
    true = function.__code__
    wirtinger.cache_clear()
    function.__code__ = plain_function(scope[function.__name__]).__code__
    try:
        yield
    finally:
        function.__code__ = true
        wirtinger.cache_clear()


def rule_mutants(
    rule: Rule,
    number: int,
    targets: Sequence[tuple[Target, Mapping[str, Expr]]],
    heads: Mapping[str, Mapping[Expr, str]],
) -> Iterator[Mutant]:
    """The kernels that an edited rule spoils, spread over derivations.

    ``targets`` come with what the true calculus derives, which the generator's rules start from.
    """
    spoilt: dict[str, list[tuple[Target, Body]]] = {}
    with edited(rule):
        for target, true in targets:
            try:
                derived = target.kernel.derived() if rule.place == "derivation" else true
                body = printed_body(target, derived, heads[target.derivation.name])
            except FAILURES:  # the generator refuses: no kernel is written
                continue
            if body.lines != target.body.lines:
                spoilt.setdefault(target.derivation.name, []).append((target, body))
    rounds = max(map(len, spoilt.values()), default=0)
    found = [of[i] for i in range(rounds) for of in spoilt.values() if i < len(of)]
    function = plain_function(rule.function).__qualname__
    for target, body in found[:MOST_KERNELS]:
        yield Mutant(
            f"{rule.place}/rule {number}/{target.name}",
            rule.fault,
            rule.place,
            target.name,
            f"{function}: {rule.old} → {rule.new or '(nothing)'}; {difference(target.body, body)}",
            body.text,
        )


# ------------------------------------------------------------------ definitions


@dataclass(frozen=True)
class Misprint:
    """An edit of a derivation file: what a mathematician would mistype."""

    fault: str
    file: str
    old: str
    new: str
    kernel: str  # derivation.kernel to judge it by


def misprinted(misprint: Misprint) -> Derivation:
    """The derivation of a mistyped file, with the kernels of the misprint's metric.

    Raises:
        EvidenceError: the line to edit does not stand there exactly once.
    """
    with tempfile.TemporaryDirectory() as folder, standing_in(Path(folder)):
        path = Path(folder) / source_of(misprint.file).relative_to(shipped_folder())
        source = path.read_text(encoding="utf-8")
        if source.count(misprint.old) != 1:
            raise EvidenceError(
                f"{misprint.file}: expected {misprint.old!r} once, found it "
                f"{source.count(misprint.old)} times: adapt the mutant to the derivation"
            )
        path.write_text(source.replace(misprint.old, misprint.new), encoding="utf-8")
        owner, name = misprint.kernel.split(".")
        derivation = {d.name: d for d in load_file(path)}[owner]
        claims = claims_about(derivation, misprint.file, Path(folder))
    return _family(replace(derivation, claims=claims), name)


def source_of(name: str) -> Path:
    """The shipped file of this name.

    Raises:
        EvidenceError: there is none.
    """
    path = shipped_file(name)
    if path is None:
        raise EvidenceError(f"{name}: no such derivation file: adapt the mutant")
    return path


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """Derivations are imported from a copy of the shipped folder, which may be edited."""
    shutil.copytree(
        shipped_folder(), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    before = derivations.__path__
    derivations.__path__ = [str(folder)]
    try:
        yield
    finally:
        derivations.__path__ = before


def claims_about(derivation: Derivation, file: str, folder: Path) -> tuple[Claim, ...]:
    """The claims beside a derivation, and those of papers that import its file."""
    papers = sorted((folder / "papers").glob("*.py"))
    imports = re.compile(rf"^from \S+\b{file} import|^from \S+ import {file}\b", re.MULTILINE)
    chosen = [p for p in papers if imports.search(p.read_text(encoding="utf-8"))]
    return derivation.claims + tuple(c for p in chosen for d in load_file(p) for c in d.claims)


def metric_of(name: str) -> str:
    """The metric's kernel that a kernel of its derivatives belongs to."""
    return re.sub(r"metric_db?(?=_|$)", "metric", name)


def _family(derivation: Derivation, name: str) -> Derivation:
    """A derivation with those kernels alone that make one metric, and that can be printed."""
    kept = []
    for kernel in derivation.kernels:
        if metric_of(kernel.name) != metric_of(name) and kernel.name not in ("value", "gradient"):
            continue
        try:
            outputs = {n: (x, kernel.outputs[n].indices) for n, x in kernel.derived().items()}
            printing.print_kernel(outputs, derivation.latent, kernel.layout)
        except GenerationError:  # a misprint may leave no kernel to write
            continue
        kept.append(kernel)
    return replace(derivation, kernels=tuple(kept))
