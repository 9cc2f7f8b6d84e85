"""Faults in the functions that derive, print and read: edits of one source line each.

An edit whose line no longer stands there is an error: the list follows the code.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sympy import Expr

from kahler_verify.calculus.wirtinger import wirtinger
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.mutants.faults import (
    FAILURES,
    Body,
    Mutant,
    Target,
    difference,
    printed_body,
)

MOST_KERNELS = 5  # that one edited rule of the generator is tried on


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
