"""Kernels by name, and torch.compile with and without a compiler."""

import pytest
import torch

from kahler_verify.errors import InputError
from kahler_verify.running.kernel_set import KernelSet, compile_kernel


def test_parameters_are_what_a_user_has_to_give() -> None:
    assert KernelSet("quadratic_form").parameters == {"centre", "precision"}
    assert KernelSet("fubini_study").parameters == set()


def test_heads_are_computed_from_z() -> None:
    z = torch.tensor([[3 + 4j, 0j]], dtype=torch.complex128)
    value = KernelSet("fubini_study").call("value", {"z": z})
    assert value.real.item() == pytest.approx(torch.tensor(26.0).log().item())


def test_missing_tensors_and_kernels_are_named() -> None:
    kernels = KernelSet("quadratic_form")
    with pytest.raises(InputError, match="precision"):
        kernels.call("value", {"z": torch.zeros(2, dtype=torch.complex128)})
    with pytest.raises(InputError, match="nonsense"):
        kernels.function("nonsense")
    with pytest.raises(InputError, match="no_such_module"):
        KernelSet("no_such_module")


def test_without_a_compiler_the_eager_kernel_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    function = KernelSet("fubini_study").function("metric")
    with pytest.warns(UserWarning, match="C\\+\\+ compiler"):
        assert compile_kernel(function) is function


def test_a_compiled_kernel_agrees() -> None:
    function = KernelSet("fubini_study").function("metric")
    z = torch.randn(3, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    compiled = compile_kernel(function)
    torch.testing.assert_close(compiled(z), function(z), rtol=1e-12, atol=1e-12)
