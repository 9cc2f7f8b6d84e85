"""The generated kernels under torch itself: autograd, vmap, dtypes, forward mode, torch.compile."""

import importlib
import inspect
import random
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from kahler_verify.calculus.derivation import Kernel
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.evidence.numbers.arithmetic import decimal
from kahler_verify.evidence.numbers.readings import fields_of, is_real_latent
from kahler_verify.evidence.numbers.samples import draw

CASES = [
    (name, kernel.name)
    for name, derivation in shipped().items()
    for kernel in derivation.kernels
    if isinstance(kernel, Kernel) and f"def {kernel.name}(" in (KERNELS / f"{name}.py").read_text()
]
# gradgradcheck of a fourth derivative's kernel takes minutes; its lines are those of the others
LIGHT = [case for case in CASES if "_db" not in case[1] and "_dd" not in case[1]]
ONE_EACH = [
    ("gaussian_kl", "fisher_metric_full"),
    ("gaussian_kl", "fisher_metric_d_diagonal"),
    ("mixture_potential", "metric_d"),
    ("mixture_density", "metric"),
    ("hermitian_geometry", "chern_scalar"),
    ("hermitian_geometry", "log_det_pullback_d"),
    ("quadratic_form", "value"),
    ("flat", "value"),
    ("fubini_study", "metric_db"),
    ("complex_ball", "metric"),
]
SINGLE = {torch.complex128: torch.complex64, torch.float64: torch.float32}
SIZES = {"d": 2, "n": 2, "K": 2}


def _some_every_day(cases: list[tuple[str, str]]) -> list:
    """The first and the last kernel of each derivation; the others in the thorough profile."""
    often = {*dict(cases).items(), *dict(reversed(cases)).items()}
    return [pytest.param(*c, marks=() if c in often else pytest.mark.thorough) for c in cases]


@cache
def _heads(name: str) -> dict:
    text = (KERNELS / f"{name}.py").read_text()
    return dict(generate_module(shipped()[name]).heads) if "def heads" in text else {}


def _function(name: str, kernel: str):
    return getattr(importlib.import_module(f"kahler_verify.kernels.{name}"), kernel)


def _inputs(name: str, kernel: str, seed: int = 0) -> list[Tensor]:
    return [x.clone() for x in _drawn(name, kernel, seed)]


@cache
def _drawn(name: str, kernel: str, seed: int) -> list[Tensor]:
    """The kernel's arguments at a random point, in double precision and of its own kind."""
    declared = next(k for k in shipped()[name].kernels if k.name == kernel)
    real = is_real_latent(declared) and all("real" in f.traits for f in fields_of(declared))
    sample = draw(declared, decimal, random.Random(seed), SIZES, _heads(name))
    out = []
    for argument in inspect.signature(_function(name, kernel)).parameters:
        values = np.asarray(sample.tensors[argument])
        flat = torch.tensor([complex(x) for x in values.ravel()], dtype=torch.complex128)
        out.append((flat.real.clone() if real else flat).reshape(values.shape))
    return out


def _tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_vmap_is_the_batch(name: str, kernel: str) -> None:
    points = [_inputs(name, kernel, seed) for seed in range(2)]
    batch = [torch.stack(each) for each in zip(*points, strict=True)]
    function = _function(name, kernel)
    mapped = _tuple(torch.vmap(function)(*batch))
    together = _tuple(function(*batch))
    for n, (one, other) in enumerate(zip(mapped, together, strict=True)):
        if other.ndim < one.ndim:  # it depends on no input but for its shape
            other = other.expand_as(one)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        for i, point in enumerate(points):
            alone = _tuple(function(*point))[n]
            torch.testing.assert_close(one[i], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_single_precision_stays_single_and_close(name: str, kernel: str) -> None:
    function, inputs = _function(name, kernel), _inputs(name, kernel, 1)
    single = _tuple(function(*[x.to(SINGLE[x.dtype]) for x in inputs]))
    for one, other in zip(single, _tuple(function(*inputs)), strict=True):
        assert other.dtype == inputs[0].dtype
        assert one.dtype == SINGLE[other.dtype]
        scale = 1 + other.abs().max().item()
        assert (one - other).abs().max().item() < 2e-3 * scale


@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_gradients(name: str, kernel: str) -> None:
    inputs = [x.requires_grad_() for x in _inputs(name, kernel)]
    function = _function(name, kernel)
    if not any(y.requires_grad for y in _tuple(function(*inputs))):
        return  # flat space's metric is an identity
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "kernel"), _some_every_day(LIGHT))
def test_second_gradients(name: str, kernel: str) -> None:
    inputs = [x.requires_grad_() for x in _inputs(name, kernel)]
    function = _function(name, kernel)
    outputs = _tuple(function(*inputs))
    if not any(y.requires_grad for y in outputs):
        return
    assert torch.autograd.gradgradcheck(
        function, inputs, fast_mode=True, rtol=1e-3, atol=1e-4, gen_non_contig_grad_outputs=True
    )


@pytest.mark.parametrize(("name", "kernel"), _some_every_day(CASES))
def test_forward_mode_agrees_with_reverse_mode(name: str, kernel: str) -> None:
    """Re⟨w, J v⟩ = Re⟨Jᴴ w, v⟩ with torch's conventions for complex tensors."""
    inputs, function = _inputs(name, kernel, 1), _function(name, kernel)
    generator = torch.Generator().manual_seed(0)
    directions = tuple(torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in inputs)
    outputs, moved = torch.func.jvp(function, tuple(inputs), directions)
    _, pull_back = torch.func.vjp(function, *inputs)
    outputs, moved = _tuple(outputs), _tuple(moved)
    weights = tuple(torch.randn(y.shape, dtype=y.dtype, generator=generator) for y in outputs)
    pulled = pull_back(weights if len(weights) > 1 else weights[0])
    forward = sum((w.conj() * m).sum().real for w, m in zip(weights, moved, strict=True))
    reverse = sum((p.conj() * v).sum().real for p, v in zip(pulled, directions, strict=True))
    torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kernel"), ONE_EACH)
def test_compiles_without_a_graph_break(name: str, kernel: str) -> None:
    """One graph, whatever a backend makes of complex numbers; aot_eager traces autograd too."""
    torch._dynamo.reset()
    function, inputs = _function(name, kernel), _inputs(name, kernel, 3)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(_tuple(compiled(*inputs)), _tuple(function(*inputs)), strict=True):
        torch.testing.assert_close(ours, expected)
    explained = torch._dynamo.explain(function)(*inputs)
    assert explained.graph_count <= 1
    assert explained.graph_break_count == 0


@pytest.mark.filterwarnings("ignore")
def test_inductor_falls_back_for_complex_numbers() -> None:
    torch._dynamo.reset()
    function, inputs = _function("fubini_study", "metric"), _inputs("fubini_study", "metric")
    torch.testing.assert_close(torch.compile(function, fullgraph=True)(*inputs), function(*inputs))


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "kernel"), CASES)
def test_gpu_agrees_with_cpu(name: str, kernel: str) -> None:
    function, inputs = _function(name, kernel), _inputs(name, kernel)
    on_gpu = _tuple(function(*[x.cuda() for x in inputs]))
    for ours, expected in zip(on_gpu, _tuple(function(*inputs)), strict=True):
        torch.testing.assert_close(ours.cpu(), expected, rtol=1e-10, atol=1e-10)
