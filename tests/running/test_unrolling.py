"""Unrolled variants: equal to their sources in exact arithmetic, shared, and complete."""

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from kahler_verify.calculus.derivation import Kernel
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.errors import GenerationError
from kahler_verify.evidence.laws.variants.unrolled import evaluate_variant, opaque, softmax
from kahler_verify.evidence.numbers.arithmetic import NAMESPACE, prime_field, run_text
from kahler_verify.evidence.numbers.arrays import Array, array
from kahler_verify.evidence.numbers.readings import is_real_latent
from kahler_verify.evidence.numbers.samples import draw
from kahler_verify.running.unrolling import Tape, Unrolled, argument_shapes, unroll, unroll_mixture

# Metrics in real coordinates run their kernels as they are: none of these is unrolled.
FUNCTIONS = [
    (name, kernel.name)
    for name, derivation in shipped().items()
    if (KERNELS / f"{name}.py").is_file()
    for kernel in derivation.kernels
    if isinstance(kernel, Kernel)
    and not is_real_latent(kernel)
    and f"def {kernel.name}(" in (KERNELS / f"{name}.py").read_text()
]
FIRST = [next(f for f in FUNCTIONS if f[0] == name) for name in {n for n, _ in FUNCTIONS}]
CONSTANT = {("flat", "metric", 1), ("flat", "metric", 2), ("flat", "metric", 3)}
CONSTANT |= {("hermitian_geometry", "kahler_defect", 1)}
JETS = ("metric", "metric_d", "metric_db")
CURVATURES = ("ricci", "scalar", "holomorphic_sectional")
SIGNS = {"potential": 1, "density": -1}


@cache
def text_of(name: str) -> str:
    return (KERNELS / f"{name}.py").read_text()


def equal(ours: list[Array], truth: list[Array]) -> bool:
    return len(ours) == len(truth) and all(
        o.shape == t.shape
        and all(x == y for x, y in zip(np.asarray(o).ravel(), np.asarray(t).ravel(), strict=True))
        for o, t in zip(ours, truth, strict=True)
    )


# ------------------------------------------------------------------ every generated kernel, exactly


@pytest.mark.sampled(40)
@pytest.mark.parametrize(
    ("name", "kernel", "d"),
    [
        # every kernel at d = 2, and one of each derivation at the other dimensions, every day
        pytest.param(
            *(name, kernel, d),
            marks=() if d == 2 or (name, kernel) in FIRST else pytest.mark.thorough,
        )
        for name, kernel in FUNCTIONS
        for d in (1, 2, 3)
        if d == 2 or name != "gaussian_kl"  # larger, and alike at any d
    ],
)
def test_a_variant_equals_its_source_over_a_prime_field(name: str, kernel: str, d: int) -> None:
    """Both texts run unpatched at a point that the tracer has not seen."""
    text, sizes = text_of(name), {"d": d, "n": 2, "K": 5}
    if (name, kernel, d) in CONSTANT:
        with pytest.raises(GenerationError, match="does not depend"):
            unroll(text, kernel, {"d": d, "n": 2})
        return
    variant = unroll(text, kernel, {"d": d, "n": 2})
    declared = next(k for k in shipped()[name].kernels if k.name == kernel)
    ring = opaque(prime_field)
    sample = draw(declared, ring, random.Random(f"{name} {kernel}"), sizes)
    scope, shapes, tensors = run_text(text, ring), argument_shapes(text), dict(sample.tensors)
    if set(shapes[kernel]) & set(scope.get("HEADS", ())):
        tensors |= scope["heads"](*[tensors[a] for a in shapes["heads"]])
    truth = scope[kernel](*[tensors[a] for a in shapes[kernel]])
    truth = list(truth) if isinstance(truth, tuple) else [truth]
    assert equal(evaluate_variant(variant, tensors, ring), truth)


# ------------------------------------------------------------------ mixtures with their components


def mixture_variant(kind: str, kernel: str, d: int, *, diagonal: bool = False) -> Unrolled:
    component, mixture = text_of("quadratic_form"), text_of(f"mixture_{kind}")
    return unroll_mixture(component, mixture, kernel, d, SIGNS[kind], diagonal=diagonal)


def mixture_tensors(
    d: int, count: int, *, diagonal: bool = False, seed: int = 0
) -> dict[str, Array]:
    """Exact parameters and a point; precisions are Hermitian."""
    rng = random.Random(seed)

    def numbers(*shape: int) -> Array:
        size = int(np.prod(shape, dtype=int))
        return array([prime_field.draw(rng) for _ in range(size)], shape)

    def real(*shape: int) -> Array:
        size = int(np.prod(shape, dtype=int))
        return array([prime_field.draw_positive(rng) for _ in range(size)], shape)

    root = numbers(count, d, d)
    precision = real(count, d) if diagonal else array(np.asarray(root + root.mH))
    return {
        "z": numbers(d),
        "centre": numbers(count, d),
        "precision": precision,
        "deviation": array(np.asarray(precision) - _mean(precision)),
        "log_weights": real(count),
        "v": numbers(d),
        "g": numbers(d, d),
        "g_d": numbers(d, d, d),
        "g_factor": _triangle(numbers(d, d), real(d)),
    }


def _triangle(values: Array, diagonal: Array) -> Array:
    """Lower triangular, with a real diagonal."""
    lower = np.tri(len(values), k=-1, dtype=int)
    return array(np.asarray(values) * lower + np.diag(np.asarray(diagonal)))


def _mean(values: Array) -> np.ndarray:
    return np.asarray(values).sum(0) / prime_field.number(len(values))


def composed(kind: str, kernel: str, tensors: dict[str, Array]) -> list[Array]:
    """The kernels of the component and of the mixture one after the other, z and c as they are."""
    ring = opaque(prime_field)
    own = run_text(text_of("quadratic_form"), ring)
    outer = run_text(text_of(f"mixture_{kind}"), ring)
    z, centre, precision = tensors["z"], tensors["centre"], tensors["precision"]
    if precision.ndim == 2:
        precision = array(np.asarray(precision)[..., None] * np.asarray(prime_field.eye(len(z))))
    value = own["value"](centre, precision, z[None])
    logits = tensors["log_weights"] + (value if kind == "potential" else -value)
    given = {
        "w": softmax(logits, ring),
        "q_d": own["gradient"](centre, precision, z[None]),
        "q_db": own["metric"](precision),
        **{name: tensors[name] for name in ("v", "g", "g_d", "g_factor")},
    }
    return [outer[kernel](*[given[a] for a in argument_shapes(text_of(f"mixture_{kind}"))[kernel]])]


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    ("kernel", "d"), [(k, d) for k in JETS for d in (1, 2, 3)] + [(k, 2) for k in CURVATURES]
)
@pytest.mark.parametrize("kind", SIGNS)
def test_a_mixture_equals_its_kernels_over_a_prime_field(
    kind: str, kernel: str, d: int, diagonal: bool
) -> None:
    """With any function in the exponential's place; centring at z - c is seen to change nothing."""
    tensors = mixture_tensors(d, 6, diagonal=diagonal)
    variant = mixture_variant(kind, kernel, d, diagonal=diagonal)
    ours = evaluate_variant(variant, tensors, opaque(prime_field))
    assert equal(ours, composed(kind, kernel, tensors))


def planted(text: str) -> Iterator[str]:
    """The text with one sign turned, one operand replaced or one conjugate part exchanged."""
    start = text.index("\n    k0 = ")
    for found in re.finditer(r" ([+-]) |\b([kt]\d+)\b(?! =)|\b\w+_\d+[ri]\b", text[start:]):
        a, b = start + found.start(), start + found.end()
        word = found.group()
        if found.group(1):
            other = {" + ": " - ", " - ": " + "}[word]
        elif found.group(2):
            other = f"(2 * {word})"
        else:
            twin = word[:-1] + ("i" if word.endswith("r") else "r")
            other = twin if re.search(rf"\b{twin}\b", text) else f"(3 * {word})"
        yield text[:a] + other + text[b:]


def test_every_fault_planted_in_a_variant_is_noticed() -> None:
    variant, ring = mixture_variant("potential", "metric", 2), opaque(prime_field)
    tensors = mixture_tensors(2, 6)
    truth = composed("potential", "metric", tensors)
    # a softmax is the same whatever is subtracted, and zeros are the same wherever they come from
    same = ("amax(", "zeros_like(")
    faults = [
        fault
        for fault in planted(variant.text)
        if not any(word in _changed(variant.text, fault) for word in same)
    ]
    assert len(faults) > 100
    survivors = [
        _changed(variant.text, fault)
        for fault in faults
        if equal(evaluate_variant(replace(variant, text=fault), tensors, ring), truth)
    ]
    assert survivors == []


def _changed(old: str, new: str) -> str:
    pairs = zip(old.splitlines(), new.splitlines(), strict=True)
    return next(y for x, y in pairs if x != y)


# ------------------------------------------------------------------ what the text is like


def test_what_agrees_is_computed_once_and_what_vanishes_is_not_computed() -> None:
    tape = Tape()
    x, y, z = tape.input("x"), tape.input("y"), tape.input("z")
    both = tape.add(tape.multiply(x, y), tape.multiply(x, z))
    assert tape.multiply(tape.add(z, y), x).node is both.node
    opposite = tape.multiply(tape.add(-y, -z), x)
    assert (opposite.node, opposite.sign) == (both.node, -1)
    assert tape.add(both, opposite).node is tape.zero.node
    assert tape.multiply(x, tape.reciprocal(x)).node is tape.one.node
    half = tape.add(tape.number(0.25), tape.number(0.25))
    assert half.node is tape.number(0.5).node
    assert (tape.number(-3).sign, tape.number(-3).node.code) == (-1, "3")


def test_sums_over_components_leave_out_what_these_share() -> None:
    tape = Tape()
    a, w, v = tape.input("a"), tape.input("w", over=True), tape.input("v", over=True)
    total = tape.total(tape.multiply(tape.multiply(a, w), v))
    assert total.node is tape.multiply(a, tape.total(tape.multiply(w, v))).node
    assert total.node.operation == "*"
    with pytest.raises(GenerationError, match="none of them has"):
        tape.total(a)


def test_a_metric_is_hermitian_in_the_text() -> None:
    """Entries below the diagonal repeat those above; the diagonal's imaginary parts are zero."""
    text = unroll(text_of("fubini_study"), "metric", {"d": 3}).text
    found = re.search(r"torch\.stack\(\[(.*)\], -1\)", text, re.DOTALL)
    assert found is not None
    codes = np.array([c.strip() for c in found[1].split(",")]).reshape(3, 3, 2)
    for a in range(3):
        assert codes[a, a, 1] == "zero"
        for b in range(a):
            assert codes[a, b, 0] == codes[b, a, 0]
            assert codes[a, b, 1].lstrip("-") == codes[b, a, 1].lstrip("-")
            assert codes[a, b, 1] != codes[b, a, 1]


@pytest.mark.parametrize(("d", "most"), [(1, (20, 12)), (2, (62, 31)), (3, (128, 60))])
def test_a_mixture_s_metric_takes_no_more_operations_than_by_hand(
    d: int, most: tuple[int, int]
) -> None:
    """Sharing is lost without an error, so that the count is kept here."""
    text = mixture_variant("potential", "metric", d).text
    found = re.search(r"(\d+) for each component, (\d+) more", text)
    assert found is not None
    assert (int(found[1]), int(found[2])) <= most


@pytest.mark.parametrize("kernel", ["metric", "metric_db"])
def test_the_text_reads_well(kernel: str) -> None:
    text = mixture_variant("potential", kernel, 3).text
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "complex" not in text
    names = re.findall(r"^    ([kt]\d+) = ", text, re.MULTILINE)
    assert len(names) == len(set(names))
    assert all(re.search(rf"\b{n}\b", text.split(f"    {n} = ", 1)[1]) for n in names)


def test_the_same_source_gives_the_same_text() -> None:
    first, again = [mixture_variant("density", "metric_d", 2).text for _ in range(2)]
    assert first == again


# ------------------------------------------------------------------ vocabulary and errors


def test_the_tracer_knows_all_that_kernels_may_call() -> None:
    from kahler_verify.running.unrolling import Tracer

    namespace = Tracer().namespace()
    for name in NAMESPACE:
        target = namespace
        for part in name.removeprefix("torch.").split("."):
            target = getattr(target, part)


SOURCE = '''
import torch

def kernel(w: torch.Tensor, z: torch.Tensor):
    """Return it.

    Args:
        w: [..., K] weights
        z: [..., d] z
    """
    return {}
'''


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("w", "axis over components"),
        ("w.select(-1, 0)", "cannot be picked out"),
        ("w.flatten(-1)", "cannot be joined"),
        ("torch.tanh(z)", "tanh of a complex number"),
        ("z / (z.select(-1, 0) - z.select(-1, 0))", "divides by an expression that is zero"),
        ("torch.zeros_like(z)", "does not depend on z"),
        ("z + None", "expected a number"),
        ("torch.stack([w, w], -1)", "not joined"),
        ("torch.erf(z)", "torch.erf is not unrolled"),
        ("torch.linalg.inv(z)", "torch.inv is not unrolled"),
        ("z.cumsum(-1)", "a tensor's cumsum is not unrolled"),
    ],
)
def test_what_has_no_rule_is_an_error(result: str, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        unroll(SOURCE.format(result), "kernel", {"d": 2}, "z")


def test_unknown_kernels_and_sizes_are_errors() -> None:
    with pytest.raises(GenerationError, match="got 'volume'"):
        unroll(text_of("fubini_study"), "volume", {"d": 2})
    with pytest.raises(GenerationError, match="expected the size of d"):
        unroll(text_of("fubini_study"), "metric", {})
    with pytest.raises(GenerationError, match="gives no shapes"):
        unroll("def kernel(z):\n    return z\n", "kernel", {"d": 2})


def test_functions_of_complex_numbers_by_their_parts() -> None:
    """exp and log of a complex argument, and powers, against torch."""
    import torch

    text = SOURCE.format("torch.exp(z) * torch.log(z) + torch.pow(z, 1 / 2)")
    variant = unroll(text, "kernel", {"d": 2})
    scope: dict = {}
    exec(variant.text, scope)
    z = torch.complex(*torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0)).double())
    out = scope["kernel"](torch.view_as_real(z).flatten(-2).mT.contiguous())
    expected = torch.exp(z) * torch.log(z) + torch.pow(z, 1 / 2)
    torch.testing.assert_close(torch.view_as_complex(out.reshape(5, 2, 2)), expected)
