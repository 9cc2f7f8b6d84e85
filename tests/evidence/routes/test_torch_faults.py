"""The self-test of torch: what it must find, and that its truths and its advice are right."""

import math
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kahler_verify.evidence.routes.torch_faults import divergence, self_test
from kahler_verify.evidence.routes.torch_faults.fault import POINTS, TorchFault, relative_error
from kahler_verify.evidence.routes.torch_faults.self_test import FAULTS, FaultReport, run_self_test

pytestmark = pytest.mark.xdist_group("torch_faults")  # one worker makes what the tests share

PAGE = Path(__file__).resolve().parents[3] / "docs" / "what-autograd-gets-wrong.md"

# Everything that DESIGN lists, and two more that were met on the way.
NAMES = {
    "lu_solve with a broadcast LU",
    "vmap(jacfwd) of solve",
    "vmap(jacfwd) of det",
    "vmap(jacfwd) of slogdet",
    "vmap(hessian) of a textbook Gaussian KL",
    "nested forward mode over solve",
    "nested forward mode over det",
    "nested forward mode over slogdet",
    "forward derivative of cholesky_inverse",
    "forward derivative of cholesky_solve, shared right side",
    "Hessian of abs()**2 at 0",
    "Hessian of vector_norm**2 at 0",
    "second derivative of det where singular values tie",
    "nested forward mode over layer_norm",
    "nested forward mode over instance_norm",
    "third derivative of layer_norm",
    "jacrev of cdist",
}


@pytest.fixture(scope="module")
def reports() -> dict[str, FaultReport]:
    return {report.name: report for report in run_self_test()}


def test_there_is_a_report_for_each(reports: dict[str, FaultReport]) -> None:
    assert set(reports) == NAMES == {fault.name for fault in FAULTS}
    assert len(FAULTS) == len(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_advice_is_right(reports: dict[str, FaultReport], name: str) -> None:
    """In every mode it is advised for: closed form and safe alternative confirm each other."""
    report = reports[name]
    assert report.safe_relative_error < 1e-12
    assert report.explanation
    assert report.safe_alternative
    assert report.written
    assert report.torch_version == torch.__version__


@pytest.mark.parametrize("name", sorted(NAMES))
def test_known_faults_are_found(reports: dict[str, FaultReport], name: str) -> None:
    """Torch 2.13.0 is known to have every one; of other versions nothing is demanded."""
    known = torch.__version__.startswith("2.13.0")
    assert reports[name].relative_error > 0.01 or not known


def test_present_means_wrong(reports: dict[str, FaultReport]) -> None:
    for report in reports.values():
        assert report.present == (report.relative_error > self_test.PRESENT_ABOVE)


def test_it_is_quick_and_repeats_and_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    start = time.process_time()
    first, second = run_self_test(), run_self_test()
    assert time.process_time() - start < 40
    assert torch.equal(torch.get_rng_state(), state)
    assert [r.name for r in first if r.present] == [r.name for r in second if r.present]


def test_it_imports_under_another_default_device() -> None:
    program = (
        "import torch; torch.set_default_device('meta'); "
        "from kahler_verify.evidence.routes.torch_faults.self_test import run_self_test; "
        "assert all(report.safe_relative_error < 1e-12 for report in run_self_test())"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PAGE.parents[1])


def test_it_works_wherever_it_is_called() -> None:
    """Under no_grad, in inference mode, and with another default dtype."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            reports = run_self_test()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        again = run_self_test()
    for report, other in zip(reports, again, strict=True):
        assert report.safe_relative_error < 1e-12
        assert other.safe_relative_error < 1e-12
        assert report.present == other.present


def stub(measure: float | Exception) -> TorchFault:
    def run() -> float:
        if isinstance(measure, Exception):
            raise measure
        return measure

    return TorchFault("stub", "f(x)", "It is wrong.", "g(x)", run, lambda: 0.0)


def test_a_fault_that_torch_no_longer_has_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = RuntimeError("not supported\nand more")
    faults = (stub(1e-15), stub(0.5), stub(math.inf), stub(refused))
    monkeypatch.setattr(self_test, "FAULTS", faults)
    right, wrong, nan, loud = run_self_test()
    assert [r.present for r in (right, wrong, nan, loud)] == [False, True, True, False]
    assert "gets this right" in right.explanation
    assert wrong.explanation == "It is wrong."
    assert math.isnan(loud.relative_error)
    assert loud.explanation.endswith("refuses: not supported")


def test_nan_counts_as_wrong() -> None:
    one = torch.ones(2)
    assert relative_error(torch.tensor([1.0, math.nan]), one) == math.inf
    assert relative_error(torch.tensor([1.0, 1.5]), one) == 0.5


def test_the_fisher_metric_that_serves_as_truth_matches_finite_differences() -> None:
    """From values of the textbook KL alone: forward evaluation is not at fault."""
    x = POINTS[1]
    h = 1e-3
    steps = h * torch.eye(2, dtype=torch.float64)

    def kl(y: Tensor) -> Tensor:
        return divergence._textbook_kl(x, y)

    for i in range(2):
        for j in range(2):
            corners = [
                (a, b, kl(x + a * steps[i] + b * steps[j])) for a in (1, -1) for b in (1, -1)
            ]
            second = sum(a * b * value for a, b, value in corners) / (4 * h * h)
            assert second.item() == pytest.approx(divergence._fisher(x)[i, j].item(), rel=1e-4)


# ------------------------------------------------------------------ the page that tells of it


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_page_lists_the_fault(fault: TorchFault) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"[{fault.name}]" in text
    if fault.upstream.startswith("https"):
        assert fault.upstream in text


def test_the_snippets_of_the_page_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 8
    names: dict[str, object] = {}
    try:
        for block in blocks:
            exec(compile(block, PAGE.name, "exec"), names)  # in one namespace, as the page says
    finally:
        torch.set_default_dtype(torch.float32)


# ------------------------------------------------------------------ conventions, not faults
# docs/what-autograd-gets-wrong.md states these; they are asserted so that the page stays true.


def test_grad_is_twice_the_derivative_by_the_conjugate() -> None:
    z = torch.tensor(0.3 + 0.4j, dtype=torch.complex128, requires_grad=True)
    (z * z.conj()).real.backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, 2 * z.detach())  # ∂|z|²/∂z̄ = z


@pytest.mark.parametrize("transform", [torch.func.jacfwd, torch.func.jacrev, torch.func.hessian])
def test_jacobians_refuse_complex_inputs(transform) -> None:
    z = torch.ones(2, dtype=torch.complex128)
    with pytest.raises(RuntimeError, match="real"):
        transform(lambda z: (z * z.conj()).real.sum())(z)


def test_jvp_vjp_grad_and_vmap_take_them() -> None:
    z = torch.tensor([0.3 + 0.4j, 1.0j], dtype=torch.complex128)

    def square(z: Tensor) -> Tensor:
        return (z * z.conj()).real.sum()

    torch.testing.assert_close(torch.func.grad(square)(z), 2 * z)
    torch.testing.assert_close(torch.func.vjp(square, z)[1](torch.ones(()).double())[0], 2 * z)
    slope = torch.func.jvp(square, (z,), (torch.ones_like(z),))[1]
    torch.testing.assert_close(slope, 2 * z.real.sum())
    assert torch.func.vmap(torch.func.grad(square))(z[:, None]).shape == (2, 1)


def test_view_as_real_needs_resolve_conj() -> None:
    z = torch.tensor([1.0 + 2.0j]).conj()
    with pytest.raises(RuntimeError, match="resolve_conj"):
        torch.view_as_real(z)
    torch.testing.assert_close(torch.view_as_real(z.resolve_conj()), torch.tensor([[1.0, -2.0]]))


def test_cholesky_reads_the_lower_triangle_only() -> None:
    matrix = torch.tensor([[2.0, 100.0], [1.0, 2.0]], dtype=torch.float64)
    factor = torch.linalg.cholesky(matrix)
    torch.testing.assert_close(factor @ factor.mT, matrix.tril() + matrix.tril(-1).mT)
