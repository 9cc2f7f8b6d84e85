"""The function ``heads`` of a module: transcendental values from the point and parameters."""

from __future__ import annotations

from collections.abc import Mapping

from sympy import Expr, Function, Pow

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.mixture import LogSumExp
from kahler_verify.calculus.words import LogDet, factor_word
from kahler_verify.codegen.heads import head_name, tensors_of
from kahler_verify.codegen.kernel import Meaning, Printed, finish_program
from kahler_verify.codegen.lowering import Lowering
from kahler_verify.codegen.program import Input, Program
from kahler_verify.codegen.transcendental import constant_code, head_code
from kahler_verify.errors import GenerationError


def heads_function(
    derivation: Derivation, heads: dict[Expr, str]
) -> tuple[str, tuple[Meaning, ...]]:
    """The function that computes all heads from z and parameters, where torch has them."""
    heads = _closed(derivation, heads)
    # Elsewhere log det and log-sum-exp are computed where their factor or weights are: by geometry.
    elsewhere = () if _is_potential(derivation) else ("log_det", "log_sum_exp")
    own = [e for e in heads if head_name(e) not in elsewhere]
    if not own:
        return "", ()
    program, computed = _heads_program(derivation, own, heads)
    printed = finish_program(program, list(computed.values()))
    return text_of_heads(printed, computed), printed.meanings


def _is_potential(derivation: Derivation) -> bool:
    """Is it a function of the point and of parameters, which is all that a metric is given?"""
    phi = derivation.definition
    return phi is not None and any("coordinate" in j.field.traits for j in phi.atoms(Jet))


def _log_det(log_det: LogDet, lowering: Lowering) -> str:
    """Code of log det of a product of parameters, from their Cholesky factors.

    Raises:
        GenerationError: one is not declared positive, or the matrix is no such product.
    """
    coefficient, word = factor_word(log_det.args[0])
    if coefficient != 1 or not all(isinstance(base, Jet) for base, _ in word):
        raise GenerationError(
            f"{log_det}: kernels have log det of products of parameters only: write "
            "LogDet(2*P) as n*log(2) + LogDet(P), and take log det of sums out"
        )
    code = ""
    for base, power in word:
        field = base.field
        if not {"constant", "positive"} <= field.traits:
            raise GenerationError(
                f"{log_det}: declare {field.name} positive=True (and constant), so that kernels "
                "take its Cholesky factor"
            )
        diagonal = lowering.program.let(
            f'torch.einsum("...aa->...a", {lowering.stored.factor(field)})'
        )
        logarithms = lowering.program.let(f"torch.log({diagonal})")
        total = lowering.program.let(f'torch.einsum("...a->...", {logarithms})')
        sign = (" + " if code else "") if power > 0 else (" - " if code else "-")
        code += f"{sign}2 * {total}"
    return code


def text_of_heads(printed: Printed, computed: Mapping[str, str]) -> str:
    """The text of a function that returns values by name; "" if there are none."""
    if not computed:
        return ""
    lines = [f"def heads({', '.join(f'{a}: torch.Tensor' for a in printed.arguments)}) -> dict:"]
    lines += [
        '    """Return the transcendental values that kernels take as inputs.',
        "",
        "    Args:",
    ]
    lines += [f"        {n}: {shape} {meaning}" for n, shape, meaning in printed.meanings]
    lines += ['    """'] + [f"    {left} = {right}" for left, right in printed.lines]
    pairs = ", ".join(f'"{name}": {code}' for name, code in computed.items())
    lines.append(f"    return {{{pairs}}}")
    return "\n".join(lines)


def _closed(derivation: Derivation, heads: dict[Expr, str]) -> dict[Expr, str]:
    """All heads, with those inside their arguments that no kernel takes."""
    heads, done = dict(heads), set()
    while todo := [e for e in heads if e not in done]:
        for e in todo:
            done.add(e)
            if head_name(e) in ("constant", "log_det", "log_sum_exp"):
                continue  # what is inside is no number
            Lowering(Program(draft=True), derivation.latent, heads=heads).arguments(e)
    return heads


def _heads_program(
    derivation: Derivation, own: list[Expr], heads: dict[Expr, str]
) -> tuple[Program, dict[str, str]]:
    """Heads in the order of their nesting, each computed by one torch function."""
    nested = sorted(own, key=lambda e: (len(e.atoms(Function, Pow)), heads[e]))
    computed: dict[str, str] = {}
    draft = Program(draft=True)
    for e in (e for e in nested if not e.is_number):
        if isinstance(e, LogDet):
            _log_det(e, Lowering(draft, derivation.latent, heads=heads))
        else:
            Lowering(draft, derivation.latent, heads=heads).arguments(e)
    program = Program(inputs=dict(draft.inputs))
    lowering = Lowering(program, derivation.latent, heads=heads)
    point = _point(derivation, program) if any(e.is_number for e in nested) else ""
    given = {heads[e] for e in own}
    program.inputs = {n: i for n, i in program.inputs.items() if n not in given}
    for e in nested:
        if e.is_number:  # a tensor of the point's batch and dtype
            value = constant_code(e, program, f"{point}.select(-1, 0)")
        elif isinstance(e, LogDet):
            value = _log_det(e, lowering)
        elif isinstance(e, LogSumExp):
            raise GenerationError(
                f"{derivation.name}: {e} needs all components at the point, which a potential is "
                "not given: use MixtureMetric"
            )
        elif not e.atoms(Jet):
            raise GenerationError(f"a head needs an argument that depends on an input, got {e}")
        else:
            value = head_code(e, _arguments(lowering, e), program)
        value = program.let(value, heads[e] + "_")
        computed[heads[e]] = value
        program.lines.append((heads[e], value))
    for n in given:  # a head inside another one is computed here, not given
        program.inputs.pop(n, None)
    return program, computed


def _point(derivation: Derivation, program: Program) -> str:
    """The name of the coordinates among the kernels' inputs."""
    outputs = [o.definition for k in derivation.kernels for o in k.outputs.values()]
    fields = {j.field for o in outputs for j in o.atoms(Jet) if "coordinate" in j.field.traits}
    if not fields:
        raise GenerationError(f"{derivation.name}: irrational numbers need a coordinate field")
    name = min(f.name for f in fields)
    program.inputs[name] = Input(name, (derivation.latent,), name)
    return name


def _arguments(lowering: Lowering, head: Expr) -> list[str]:
    """Code of a head's arguments; numbers are tensors like the others."""
    program = lowering.program
    tensors = tensors_of(head)
    varying = [a for a in tensors if not a.is_number]
    codes = {
        a: program.let(code, "x") for a, code in zip(varying, lowering.arguments(head), strict=True)
    }
    like = next(iter(codes.values()))
    for a in tensors:
        if a.is_number:
            codes[a] = program.let(constant_code(a, program, like), "k")
    return [codes[a] for a in tensors]
