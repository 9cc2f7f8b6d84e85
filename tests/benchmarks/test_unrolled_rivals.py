"""The benchmark of unrolled kernels compares what agrees."""

from collections.abc import Callable

import pytest
import torch

from benchmarks.problem import Problem, deviation, flatten
from benchmarks.unrolled_rivals import GENERAL, unrolled_problem, unrolled_ricci_problem
from kahler_verify.running import variants as unrolled_kernels


@pytest.mark.parametrize("make", [unrolled_problem, unrolled_ricci_problem])
def test_ours_agrees_with_the_general_kernels_and_a_rival(
    make: Callable[..., Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    unrolled_kernels._compiled.cache_clear()
    monkeypatch.setattr(unrolled_kernels, "compile_kernel", lambda function: function)
    problem = make({"d": 2, "K": 3, "B": 2}, torch.float64, torch.device("cpu"))
    reference = flatten(problem.ours())
    torchs = [name for name in problem.rivals if "JAX" not in name and "compile" not in name]
    assert GENERAL in torchs
    assert len(torchs) > 1
    for name in torchs:
        assert deviation(problem.rivals[name].build()(), reference) < 1e-9
    unrolled_kernels._compiled.cache_clear()
