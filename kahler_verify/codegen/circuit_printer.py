"""An arithmetic circuit as lines of torch: each shared node once, every constant exact.

Python rounds ``1j / 18`` and torch refuses integers of 64 bits and more.  So numbers are printed as
integers, Gaussian ones too, which multiply or divide a tensor: each arithmetic in which the text is
run has them exactly.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import lcm

from kahler_verify.codegen.circuit import Gaussian, Node, Term, common_factor, exact
from kahler_verify.codegen.program import Program

LONGEST = 60  # characters of a node that is used once, before it gets a line of its own
EXACT_FLOAT = 2**53  # Python's imaginary numbers are floats
EXACT_INTEGER = 2**63  # torch's integers
LIMB = 2**60  # of a larger one
# Real operations of a complex sum, of a product with a number, of a product and of a reciprocal.
ADD, SCALE, MULTIPLY, DIVIDE = 2, 2, 6, 11

NUMBER = r"(?:(?<![\w.])\d+j?|\d+j\))"  # before a product sign

SUM, PRODUCT, NAME = range(3)  # what a text is, in the order in which parentheses are needed


class CircuitPrinter:
    """Code of terms of a circuit.

    Args:
        program: takes the lines.
        names: the variables that hold inputs.
        like: code of a tensor of the point's batch, for numbers that are tensors.
        outputs: nodes that are printed; what they need is printed before them.
    """

    def __init__(
        self, program: Program, names: Mapping[Node, str], like: str, outputs: Iterable[Node]
    ):
        self.program, self.names, self.like = program, names, like
        outputs = list(outputs)
        self._operands, self._uses = _flattened(outputs)
        needed = sorted(self._operands, key=lambda node: node.number)
        divisors = [self._operands[n][1].node for n in needed if n.operation == "quotient"]
        self._divisions = Counter(divisors)
        self._texts: dict[Node, tuple[str, int]] = {}
        self._factors: dict[Node, list[str]] = {}  # of products that are written where used
        for node in needed:
            self._texts[node] = self._named(node, *self._text(node))

    def code(self, term: Term) -> str:
        """The term, an exact number times a node; parentheses around it are not needed."""
        c = term.coefficient
        if term.node.operation == "one":
            one = self.program.let(f"torch.zeros_like({self.like}) + 1", "one")
            return self._scaled(c, one, NAME)[0]
        return self._scaled(c, *self._texts[term.node])[0]

    # ------------------------------------------------------------------ nodes
    def _named(self, node: Node, text: str, kind: int) -> tuple[str, int]:
        if kind == NAME or (self._uses[node] == 1 and len(text) <= LONGEST):
            return text, kind
        return self.program.let(text, {"sum": "s", "product": "p"}.get(node.operation, "q")), NAME

    def _text(self, node: Node) -> tuple[str, int]:
        if node.operation == "one":
            return "1", NAME
        if node.operation == "input":
            return self.names[node], NAME
        if node.operation == "sum":
            return self._sum(self._operands[node]), SUM
        x, y = self._operands[node]
        if node.operation == "product":
            return self._product(node, [*self._factors_of(x.node), *self._factors_of(y.node)])
        alone = self._divisions[y.node] == 1
        if alone and x.node.operation != "one":
            text, kind = self._texts[y.node]
            below = text if kind == NAME else f"({text})"
            return f"{' * '.join(self._factors_of(x.node))} / {below}", PRODUCT
        inverse = self.program.let(f"torch.reciprocal({self._texts[y.node][0]})", "r")
        if x.node.operation == "one":
            return inverse, NAME
        return self._product(node, [*self._factors_of(x.node), inverse])

    def _product(self, node: Node, factors: list[str]) -> tuple[str, int]:
        self._factors[node] = factors
        return " * ".join(factors), PRODUCT

    def _factors_of(self, node: Node) -> list[str]:
        """Codes of the factors of a product that is written where it is used, or of the node."""
        text, kind = self._texts[node]
        if kind == PRODUCT:
            return self._factors.get(node, [text])
        return [f"({text})" if kind == SUM else text]

    def _sum(self, terms: tuple[Term, ...]) -> str:
        """Code of a sum, in which factors that terms have in common stand outside."""
        items = []
        for c, node in terms:
            items.append((c, [] if node.operation == "one" else self._factors_of(node)))
        while (common := _most_common(items)) is not None:
            with_it = [(c, _without(factors, common)) for c, factors in items if common in factors]
            items = [(c, factors) for c, factors in items if common not in factors]
            content = common_factor([c for c, _ in with_it])
            inner = [(c.times(content.inverse()), factors) for c, factors in with_it]
            items.append((content, [common, f"({self._sum_of(inner)})"]))
        return self._sum_of(items)

    def _sum_of(self, items: list[tuple[Gaussian, list[str]]]) -> str:
        out = ""
        for c, factors in items:
            negative = c.x < 0 if c.y == 0 else c.x == 0 and c.y < 0
            size = Gaussian(-c.x, -c.y) if negative else c
            body = " * ".join(factors)
            body = self._scaled(size, body, PRODUCT)[0] if factors else self._number(size)
            sign = "-" if negative else "+"
            out += f" {sign} {body}" if out else (f"-{body}" if negative else body)
        return out

    # ------------------------------------------------------------------ numbers
    def _scaled(self, c: Gaussian, text: str, kind: int) -> tuple[str, int]:
        """Code of a rational number times what a text computes."""
        below = lcm(c.x.denominator, c.y.denominator)
        above = c.times(exact(below))
        if above == exact(-1):
            text, kind = f"-{text}" if kind == NAME else f"-({text})", PRODUCT
        elif above != exact(1):
            inner = f"({text})" if kind == SUM else text
            text, kind = f"{self._number(above)} * {inner}", PRODUCT
        if below != 1:
            inner = f"({text})" if kind == SUM else text
            text, kind = f"{inner} / {self._number(exact(below))}", PRODUCT
        return text, kind

    def _number(self, c: Gaussian) -> str:
        """A Gaussian integer."""
        x, y = int(c.x), int(c.y)
        if y == 0 and abs(x) < EXACT_INTEGER:
            return str(x)
        if max(abs(x), abs(y)) < EXACT_FLOAT:
            sign = "-" if y < 0 else "+"
            return f"{y}j" if x == 0 else f"({x} {sign} {abs(y)}j)"
        return self.program.let(self._large(x, y), "n")

    def _large(self, x: int, y: int) -> str:
        """A tensor that holds a large integer, from limbs."""
        if y:
            imaginary = self.program.let(self._large(y, 0), "n")
            real = self.program.let(self._large(x, 0), "n")
            return f"{real} + 1j * {imaginary}"
        if abs(x) < EXACT_INTEGER:
            return f"torch.zeros_like({self.like}) + {x}"
        high, low = divmod(x, LIMB)
        return f"{self.program.let(self._large(high, 0), 'n')} * {LIMB} + {low}"


def _most_common(items: list[tuple[Gaussian, list[str]]]) -> str | None:
    """The factor that saves most products outside of a sum, if any saves one."""
    saved: Counter[str] = Counter()
    for _, factors in items:
        saved.update({f: 1 if len(factors) > 1 else 0 for f in factors})
    best = max(saved, key=lambda f: (saved[f], f), default=None)
    return best if best is not None and saved[best] > 1 else None


def _without(factors: list[str], one: str) -> list[str]:
    place = factors.index(one)
    return factors[:place] + factors[place + 1 :]


def operations_of(lines: Iterable[tuple[str, str]]) -> int:
    """Real operations of lines of complex numbers."""
    text = "\n".join(code for _, code in lines)
    by_numbers = len(re.findall(NUMBER + r" \*", text)), len(re.findall(r" / \d", text))
    products, quotients = text.count(" * ") - by_numbers[0], text.count(" / ") - by_numbers[1]
    quotients += text.count("torch.reciprocal(")
    sums = text.count(" + ") + text.count(" - ") + len(re.findall(r"(?<![\w\s])-\(?[a-z]", text))
    return SCALE * sum(by_numbers) + MULTIPLY * products + DIVIDE * quotients + ADD * sums


def _flattened(outputs: Iterable[Node]) -> tuple[dict[Node, tuple[Term, ...]], Counter[Node]]:
    """Operands of all live nodes, where sums that are used once have joined theirs; and uses."""
    outputs = list(outputs)
    operands = {node: node.operands for node in live(outputs)}
    uses = Counter(outputs)
    for terms in operands.values():
        uses.update(term.node for term in terms)
    for node in sorted(operands, key=lambda n: -n.number):
        if node not in operands or node.operation != "sum":
            continue
        while inner := [
            t for t in operands[node] if t.node.operation == "sum" and uses[t.node] == 1
        ]:
            collected: dict[Node, Gaussian] = {}
            for c, part in operands[node]:
                opened = Term(c, part) in inner
                terms = operands.pop(part) if opened else (Term(exact(1), part),)
                for d, each in terms:
                    uses[each] -= each in collected
                    collected[each] = c.times(d).plus(collected.get(each, exact(0)))
            operands[node] = tuple(Term(c, n) for n, c in collected.items() if c != exact(0))
    return operands, uses


def live(outputs: Iterable[Node]) -> list[Node]:
    """All nodes that the given ones are computed from, and these, operands first."""
    found, todo = set(), list(outputs)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += [term.node for term in node.operands]
    return sorted(found, key=lambda node: node.number)
