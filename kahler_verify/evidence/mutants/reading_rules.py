"""Faults in how definitions are read: by the generator's functions, and by evidence's own.

The generator reads z̄, re, im, |·| and heads before it differentiates; evidence reads the same
notation by itself.
"""

from __future__ import annotations

from kahler_verify.codegen import circuit, circuit_printer, module
from kahler_verify.codegen.circuit import Circuit, Gaussian
from kahler_verify.codegen.circuit_printer import CircuitPrinter
from kahler_verify.codegen.explicit import Reading, conjugated, polarised, printing, reading
from kahler_verify.evidence.mutants.faults import (
    AXIS,
    CONJUGATE,
    FACTOR,
    LOST,
    POWER,
    SIGN,
    TRANSPOSED,
)
from kahler_verify.evidence.mutants.rules import Rule
from kahler_verify.evidence.numbers import functions, means, nilpotent, powers, series, taylor
from kahler_verify.evidence.numbers.points import Scope

# Rules of the generator that rewrite what a user wrote.
WRITTEN = (
    Rule(SIGN, polarised, "(inner - other) / (2 * I)", "(other - inner) / (2 * I)"),
    Rule(FACTOR, polarised, "(inner + other) / 2", "inner + other"),
    Rule(FACTOR, polarised, "(2 * I)", "I"),
    Rule(LOST, polarised, "/ (2 * I)", "/ 2"),
    Rule(POWER, polarised, "sqrt(inner * other)", "inner * other"),
    Rule(CONJUGATE, polarised, "sqrt(inner * other)", "sqrt(inner * inner)"),
    Rule(POWER, polarised, "** (power / 2)", "** power"),
    Rule(
        CONJUGATE,
        polarised,
        "(inner * conjugated(inner, coordinates)) ** (power / 2)",
        "inner ** power",
    ),
    Rule(
        CONJUGATE,
        polarised,
        "return conjugated(polarised(expr.args[0], coordinates), coordinates)",
        "return polarised(expr.args[0], coordinates)",
    ),
    Rule(CONJUGATE, conjugated, "return bar(z)", "return z"),
    Rule(
        CONJUGATE,
        conjugated,
        "if expr == bar(z):\n                return z",
        "if expr == bar(z):\n                return bar(z)",
    ),
    Rule(CONJUGATE, conjugated, "return conjugate(expr)", "return expr"),
    Rule(SIGN, conjugated, "return conjugate(expr)", "return -conjugate(expr)"),
    Rule(
        CONJUGATE,
        conjugated,
        "in HEADS:\n        return expr.func(*[conjugated(a, coordinates) for a in expr.args])",
        "in HEADS:\n        return expr",
    ),
    Rule(
        LOST,
        conjugated,
        "or expr.is_Pow:\n"
        "        return expr.func(*[conjugated(a, coordinates) for a in expr.args])",
        "or expr.is_Pow:\n        return expr.func(conjugated(expr.args[0], coordinates), "
        "*expr.args[1:])",
    ),
    Rule(
        TRANSPOSED,
        module._explicit_kernel,
        "by.index(i) for i in out.indices",
        "n for n in range(len(by))[::-1]",
    ),
    Rule(CONJUGATE, module._declared, "bar(z): conjugate(z)", "bar(z): z"),
    Rule(SIGN, module._declared, "bar(z): conjugate(z)", "bar(z): -conjugate(z)"),
    Rule(
        AXIS,
        module._declared,
        "bar(z): conjugate(z)",
        "bar(z): conjugate(derivation.coordinates[0])",
    ),
)

# Rules by which an expression becomes a circuit, and the circuit its derivatives.
CIRCUIT = (
    Rule(
        LOST,
        Circuit._slope,
        "self.multiply(self.derivative(x, by), y), ",
        "",
    ),
    Rule(
        LOST,
        Circuit._slope,
        "self.multiply(self.derivative(x, by), y), self.multiply(x, self.derivative(y, by))",
        "self.multiply(self.derivative(x, by), y)",
    ),
    Rule(SIGN, Circuit._slope, "Term(exact(-1), node)", "Term(exact(1), node)"),
    Rule(LOST, Circuit._slope, "self.add(self.divide(own, y), drag)", "self.divide(own, y)"),
    Rule(LOST, Circuit._slope, "self.add(self.divide(own, y), drag)", "drag"),
    Rule(POWER, Circuit._slope, "self.divide(other, y))", "other)"),
    Rule(LOST, Circuit._slope, "for term in node.operands]", "for term in node.operands[:1]]"),
    Rule(FACTOR, Circuit._slope, "self.number(exact(1))", "self.number(exact(2))"),
    Rule(FACTOR, Circuit.derivative, ".scaled(a.coefficient)", ""),
    Rule(POWER, Circuit.power, "if n % 2 else square", "if n % 4 == 1 else square"),
    Rule(POWER, Circuit.power, "self.multiply(half, half)", "half"),
    Rule(
        POWER,
        Circuit.power,
        "self.divide(self.number(exact(1)), self.power(a, -n))",
        "self.power(a, -n)",
    ),
    Rule(LOST, Circuit.add, "c.plus(collected.get(node, exact(0)))", "c"),
    Rule(FACTOR, Circuit.add, ".scaled(content)", ""),
    Rule(FACTOR, Circuit.add, "content.inverse()", "content"),
    Rule(FACTOR, Circuit.multiply, "a.coefficient.times(b.coefficient)", "a.coefficient"),
    Rule(FACTOR, Circuit.multiply, "slope(by).scaled(coefficient.inverse())", "slope(by)"),
    Rule(FACTOR, Circuit.divide, ".times(b.coefficient.inverse())", ".times(b.coefficient)"),
    Rule(SIGN, Gaussian.times, "self.x * other.x - self", "self.x * other.x + self"),
    Rule(LOST, Gaussian.times, "self.x * other.y + self.y * other.x", "self.x * other.y"),
    Rule(FACTOR, Gaussian.inverse, "self.x / norm", "self.x"),
    Rule(LOST, Gaussian.plus, "self.y + other.y", "self.y"),
    Rule(CONJUGATE, circuit.conjugate, "-a[1] % PRIME", "a[1]"),
    Rule(CONJUGATE, Reading._read, "exact(0, 1)", "exact(0, -1)"),
    Rule(POWER, Reading._read, "int(expr.exp))", "int(expr.exp) + 1)"),
    Rule(LOST, Reading._read, "self.term(a) for a in expr.args]", "self.term(expr.args[0])]"),
    Rule(LOST, Reading._read, "circuit.multiply(out, self.term(a))", "self.term(a)"),
    Rule(LOST, Reading._slope, "circuit.divide(moved, argument)", "moved"),
    Rule(SIGN, Reading._slope, "else head.fdiff()", "else -head.fdiff()"),
    Rule(LOST, Reading._slope, "circuit.multiply(self.term(slope), moved)", "self.term(slope)"),
    Rule(FACTOR, Reading._slope_of_power, "circuit.multiply(power, lower)", "lower"),
    Rule(POWER, Reading._slope_of_power, "head.base ** (head.exp - 1)", "head.base ** head.exp"),
    Rule(LOST, Reading._slope_of_power, "circuit.divide(moved, base)", "moved"),
    Rule(LOST, Reading._slope_of_power, "circuit.multiply(self.term(head), ratio)", "ratio"),
    Rule(
        LOST,
        Reading._slope_of_power,
        "circuit.multiply(self.term(head), logarithm)",
        "logarithm",
    ),
    Rule(LOST, Reading._slope_of_power, "self.term(log(head.base))", "self.term(head.base)"),
    Rule(
        CONJUGATE,
        Reading._of_modulus,
        "root if excess > 0 else other",
        "other if excess > 0 else root",
    ),
    Rule(FACTOR, Reading._slope_of_modulus, "power + max(k, 0)", "power"),
    Rule(POWER, Reading._slope_of_modulus, "power if k > 0 else power - 1", "power"),
    Rule(CONJUGATE, Reading._slope_of_modulus, "excess + step", "excess - step"),
    Rule(CONJUGATE, Reading._slope_of_modulus, "-excess, 1)", "excess, 1)"),
    Rule(LOST, Reading._slope_of_modulus, "circuit.add(*parts)", "circuit.add(*parts[:1])"),
    Rule(TRANSPOSED, Reading.components, "entry[order.index(n)]", "entry[order[n]]"),
    Rule(
        CONJUGATE,
        Reading.components,
        "*sorted(by[:hol]), *sorted(by[hol:])",
        "*sorted(by[hol:]), *sorted(by[:hol])",
    ),
    Rule(
        LOST,
        Reading.components,
        "derivative(out, self.node(symbol))",
        "derivative(self.term(phi), self.node(symbol))",
    ),
    Rule(
        CONJUGATE,
        Reading._symbols,
        "(bar(self.coordinates[i]) for i in anti)",
        "(self.coordinates[i] for i in anti)",
    ),
    Rule(
        CONJUGATE,
        Reading._symbols,
        "(self.coordinates[i] for i in hol)",
        "(bar(self.coordinates[i]) for i in hol)",
    ),
    Rule(
        CONJUGATE,
        reading._value_of_head,
        "conjugate_residue(random_residue((name, mirrored)))",
        "random_residue((name, mirrored))",
    ),
)

# Rules by which a circuit is printed.
PRINTED = (
    Rule(
        AXIS, printing.begin, 'f"z.select(-1, {i})"', 'f"z.select(-1, {len(coordinates) - 1 - i})"'
    ),
    Rule(CONJUGATE, printing.begin, "{names[reading.node(z)]}.conj()", "{names[reading.node(z)]}"),
    Rule(
        CONJUGATE,
        printing.print_explicit,
        "{program.let(code, 'e')}.conj()",
        "{program.let(code, 'e')}",
    ),
    Rule(
        TRANSPOSED,
        printing.print_explicit,
        "codes[t.value] for t in entries.values()",
        "codes[t.value] for t in list(entries.values())[::-1]",
    ),
    Rule(LOST, printing._entry, "{zero} + {printer.code(term)}", "{zero}"),
    Rule(
        FACTOR,
        CircuitPrinter.code,
        "self._scaled(c, *self._texts[term.node])[0]",
        "self._texts[term.node][0]",
    ),
    Rule(POWER, CircuitPrinter._text, "/ {below}", "* {below}"),
    Rule(LOST, CircuitPrinter._text, 'text if kind == NAME else f"({text})"', "text"),
    Rule(
        POWER,
        CircuitPrinter._text,
        "torch.reciprocal({self._texts[y.node][0]})",
        "{self._texts[y.node][0]}",
    ),
    Rule(LOST, CircuitPrinter._text, "[*self._factors_of(x.node), inverse]", "[inverse]"),
    Rule(
        LOST,
        CircuitPrinter._text,
        "*self._factors_of(x.node), *self._factors_of(y.node)",
        "*self._factors_of(x.node), *self._factors_of(x.node)",
    ),
    Rule(LOST, CircuitPrinter._factors_of, 'f"({text})" if kind == SUM else text', "text"),
    Rule(FACTOR, CircuitPrinter._sum, "c.times(content.inverse())", "c"),
    Rule(FACTOR, CircuitPrinter._sum, "items.append((content,", "items.append((exact(1),"),
    Rule(
        LOST,
        CircuitPrinter._sum,
        "in items if common not in factors",
        "in items[1:] if common not in factors",
    ),
    Rule(SIGN, CircuitPrinter._sum_of, '"-" if negative else "+"', '"+"'),
    Rule(SIGN, CircuitPrinter._scaled, 'f"-{text}" if kind == NAME else f"-({text})"', "text"),
    Rule(POWER, CircuitPrinter._scaled, "{inner} / {self", "{inner} * {self"),
    Rule(FACTOR, CircuitPrinter._scaled, "if below != 1:", "if below > 2:"),
    Rule(LOST, CircuitPrinter._scaled, "{self._number(above)} * {inner}", "{inner}"),
    Rule(
        LOST,
        CircuitPrinter._scaled,
        "{self._number(above)} * {inner}",
        "{self._number(above)} * {text}",
    ),
    Rule(CONJUGATE, CircuitPrinter._number, 'sign = "-" if y < 0 else "+"', 'sign = "+"'),
    Rule(LOST, CircuitPrinter._number, "({x} {sign} {abs(y)}j)", "({x})"),
    Rule(LOST, CircuitPrinter._large, "* {LIMB} + {low}", "* {LIMB}"),
    Rule(FACTOR, CircuitPrinter._large, "* {LIMB} + {low}", "* {LIMB // 2} + {low}"),
    Rule(CONJUGATE, CircuitPrinter._large, "{real} + 1j * {im", "{real} - 1j * {im"),
    Rule(FACTOR, circuit_printer._flattened, "c.times(d)", "d"),
    Rule(LOST, circuit_printer._flattened, ".plus(collected.get(each, exact(0)))", ""),
    Rule(
        LOST,
        circuit_printer._without,
        "factors[:place] + factors[place + 1 :]",
        "factors[:place]",
    ),
)

GENERATOR = (*WRITTEN, *CIRCUIT, *PRINTED)

# Rules by which evidence reads.
EVIDENCE = (
    Rule(CONJUGATE, Scope.mirrored, "not bar", "bar", "evidence"),
    Rule(CONJUGATE, series._conjugates, "mirrored.conjugate()", "mirrored", "evidence"),
    Rule(CONJUGATE, series._conjugates, "scope.mirrored())", "scope)", "evidence"),
    Rule(SIGN, series._conjugates, "number(-1j)", "number(1j)", "evidence"),
    Rule(FACTOR, series._conjugates, "(one + other).scaled(1, 2)", "(one + other)", "evidence"),
    Rule(
        FACTOR,
        series._conjugates,
        "number(ring.number(-1j), ring).scaled(1, 2)",
        "number(ring.number(-1j), ring)",
        "evidence",
    ),
    Rule(POWER, series._conjugates, "Fraction(1, 2)", "Fraction(1)", "evidence"),
    Rule(CONJUGATE, series._conjugates, "one * other", "one * one", "evidence"),
    Rule(CONJUGATE, taylor.symbol_of, "and not bar", "and bar", "evidence"),
    Rule(LOST, taylor.symbol_of, "and not bar", "and bar is None", "evidence"),
    Rule(AXIS, taylor.symbol_of, "direction == own", "direction != own", "evidence"),
    Rule(
        CONJUGATE,
        series._derivative,
        "(i, True) for i in anti",
        "(i, False) for i in anti",
        "evidence",
    ),
    Rule(
        CONJUGATE,
        series._derivative,
        "None if is_real_index(i) else bar",
        "True if is_real_index(i) else bar",
        "evidence",
    ),
    Rule(
        CONJUGATE, series._letter, "scope.mirrored() if jet.dagger else scope", "scope", "evidence"
    ),
    Rule(
        CONJUGATE,
        taylor.field_of,
        "for i, bar in chosen if not bar",
        "for i, bar in chosen if bar",
        "evidence",
    ),
    Rule(TRANSPOSED, nilpotent.Series.adjoint, "array(x).mH", "array(x).mT", "evidence"),
    Rule(CONJUGATE, series._terms, "[(c, v.conjugate()) for c, v in inner]", "inner", "evidence"),
    Rule(SIGN, series._terms, "(c / 2, -i * v)", "(c / 2, i * v)", "evidence"),
    Rule(FACTOR, series._terms, "return [(c / 2, v)", "return [(c, v)", "evidence"),
    Rule(
        LOST,
        series._terms,
        "out = [(c * e, v * w) for c, v in out for e, w in more]",
        "out = more",
        "evidence",
    ),
    Rule(SIGN, powers.rational_power, "power - i", "power + i", "evidence"),
    Rule(LOST, powers.rational_power, "value * below *", "value *", "evidence"),
    Rule(FACTOR, powers.rational_power, "/ ring.number(factorial(j))", "", "evidence"),
    Rule(POWER, series._power, "(whole // 2)", "whole", "evidence"),
    Rule(CONJUGATE, series._power, "inner * conjugate(inner)", "inner * inner", "evidence"),
    Rule(SIGN, series._function, "(up + down.scaled(-1))", "(up + down)", "evidence"),
    Rule(SIGN, series._function, "scope, -factor)", "scope, factor)", "evidence"),
    Rule(
        LOST,
        series._function,
        "turned = kind in (sin, cos, tan, cot)",
        "turned = kind in (cos,)",
        "evidence",
    ),
    Rule(SIGN, nilpotent.Series.log, "(-1) ** (j + 1)", "(-1) ** j", "evidence"),
    Rule(FACTOR, nilpotent.Series.log, "/ ring.number(j)", "", "evidence"),
    Rule(LOST, nilpotent.Series.exp_of_nilpotent, ".scaled(1, j)", "", "evidence"),
    Rule(CONJUGATE, nilpotent.Series.conjugate, "array(x).conj()", "array(x)", "evidence"),
    Rule(POWER, functions.Functions.power, "c - whole", "(c - whole) / 2", "evidence"),
    Rule(
        POWER,
        functions.Functions.power,
        "self._whole(x, whole)",
        "self._whole(x, whole + 1)",
        "evidence",
    ),
    Rule(FACTOR, means.normal_nodes, "Fraction(1, 12)", "Fraction(1, 6)", "evidence"),
    Rule(FACTOR, means.normal_nodes, "Fraction(1, 4)", "Fraction(1, 2)", "evidence"),
    Rule(LOST, means.normal_nodes, " - 4 * twice", "", "evidence"),
    Rule(SIGN, means.normal_nodes, "for x in (1, -1, 2, -2)", "for x in (1, 1, 2, 2)", "evidence"),
)
