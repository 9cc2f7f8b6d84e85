"""Certificates bound the true error, are informative, and say when they cannot be."""

import importlib
import inspect
from fractions import Fraction

import mpmath
import pytest
import torch
from torch import Tensor

import kahler_verify.evidence as evidence
from kahler_verify.errors import EvidenceError, InputError
from kahler_verify.evidence import recheck
from kahler_verify.evidence.proofs.certificates import Certificate, certify

FISHER = "gaussian_kl.fisher_metric_full"
GRAM = torch.eye(2, dtype=torch.complex128) + 0.25


def drawn(kernel: str, d: int = 2, n: int = 3, K: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of a kernel with consistent symmetries, rounded to complex128."""
    torch.manual_seed(seed)
    sizes = {"d": d, "n": n, "K": K}
    module, name = kernel.split(".")
    function = getattr(importlib.import_module(f"kahler_verify.kernels.{module}"), name)
    out: dict[str, Tensor] = {}
    for line in (function.__doc__ or "").splitlines():
        argument, found, shape = line.strip().partition(": [...")
        if not found:
            continue
        axes = [sizes[a] for a in shape.partition("]")[0].split(", ")[1:]]
        value = torch.randn(axes, dtype=torch.complex128)
        order = argument.split("_")[-1]
        if argument.endswith("_factor"):
            value = value.tril() if "_full" in name else value.abs().to(value.dtype)
            value = value + 2 * torch.eye(n, dtype=value.dtype) if value.ndim == 2 else value + 1
        elif argument == "w":
            value = torch.softmax(value.real, -1).to(value.dtype)
        elif order in ("dd", "bb", "ddb", "ddbb"):
            value = (
                value + value.transpose(-value.ndim, 1 - value.ndim)
                if "q" not in argument
                else value
            )
        out[argument] = value
    if "q_db" in out:
        q = out["q_db"]
        out["q_db"] = q @ q.mH + 9 * torch.eye(d, dtype=q.dtype)
    if "Sigma_db" in out:
        s = out["Sigma_db"]
        swapped = s.transpose(0, 1)
        out["Sigma_db"] = s + (swapped.mH if "_full" in name else swapped.conj())
    return out


KERNELS = [
    *[f"gaussian_kl.fisher_metric{order}_{layout}" for order in ("", "_d")
      for layout in ("full", "diagonal", "scalar")],
    "gaussian_kl.fisher_metric_full_holomorphic",
    "mixture_density.metric",
    "mixture_potential.metric",
    "mixture_potential.metric_d",
    "mixture_potential.metric_db",
    "fubini_study.metric",
    "fubini_study.metric_db",
]  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS)
def test_certificates_are_small_and_the_rechecker_derives_them_from_the_definition(
    kernel: str,
) -> None:
    certificate = certify(kernel, drawn(kernel))
    assert certificate.verdict == "certified"
    assert certificate.positive_definite is True
    bounds = [b for b in certificate.error_bound.values() if b is not None]
    assert 0 < max(bounds) < 1e-12
    assert recheck.check(certificate.to_json())


def test_the_bound_holds_and_is_tight_beside_the_error_found_in_50_digits() -> None:
    inputs = drawn("mixture_potential.metric", d=1, K=2)
    certificate = certify("mixture_potential.metric", inputs)
    with mpmath.workdps(50):
        q, p, w = (
            [mpmath.mpmathify(x) for x in inputs[n].flatten().tolist()]
            for n in ("q_d", "q_db", "w")
        )
        w = [x / sum(w) for x in w]
        mean = w[0] * q[0] + w[1] * q[1]
        exact = sum(w[k] * (p[k] + abs(q[k] - mean) ** 2) for k in (0, 1))
        module = importlib.import_module("kahler_verify.kernels.mixture_potential")
        error = abs(module.metric(**inputs).item() - exact) / abs(exact)
        bound = certificate.error_bound["g"]
        assert bound is not None
        assert error <= mpmath.mpf(bound.numerator) / bound.denominator <= 1.01 * error + 1e-20


def test_float32_kernels_have_bounds_of_their_size_at_every_point_of_a_batch() -> None:
    shape = (2, 2)
    inputs = {n: t.to(torch.complex64).expand(*shape, *t.shape) for n, t in drawn(FISHER).items()}
    inputs["mu_d"] = torch.randn(*shape, 2, 3, dtype=torch.complex64)
    certificate = certify(FISHER, inputs)
    assert certificate.dtype == "complex64"
    assert len(certificate.points) == 4
    bound = certificate.error_bound["g"]
    assert bound is not None
    assert 1e-9 < bound < 1e-5
    assert recheck.check(certificate.to_json())


def test_precision_rises_with_the_condition_of_the_inputs() -> None:
    inputs = drawn(FISHER)
    inputs["Sigma_factor"] = torch.diag(torch.tensor([1.0, 1e-9, 1e-18])).to(torch.complex128)
    certificate = certify(FISHER, inputs)
    assert certificate.verdict == "certified"
    assert recheck.check(certificate.to_json())
    low = certify("flat.metric", {"z": torch.zeros(2, dtype=torch.complex128)})
    assert low.error_bound["g"] == 0
    assert certificate.bits > low.bits


def test_a_singular_metric_is_undecided_at_the_stated_limit_but_its_error_is_bounded() -> None:
    inputs = drawn("gaussian_kl.fisher_metric_full_holomorphic")
    inputs["mu_d"] = torch.ones(2, 3, dtype=torch.complex128) / 3
    certificate = certify("gaussian_kl.fisher_metric_full_holomorphic", inputs, most_bits=256)
    assert certificate.bits == 256
    assert certificate.positive_definite is None
    assert certificate.condition_number is None
    assert certificate.verdict == "certified"
    assert recheck.check(certificate.to_json())


def test_no_verdict_where_the_limit_is_too_low_or_the_frame_is_not_positive() -> None:
    undecided = certify(FISHER, drawn(FISHER), most_bits=20)
    assert undecided.verdict == "undecided"
    assert "undecided" in str(undecided)
    inputs = drawn("mixture_density.metric")
    inputs["q_db"] = -inputs["q_db"]
    assert certify("mixture_density.metric", inputs).verdict == "undecided"
    with pytest.raises(EvidenceError, match="undecided"):
        undecided.to_json()


def test_the_condition_number_encloses_the_true_one() -> None:
    inputs = drawn(FISHER, d=3)
    certificate = certify(FISHER, inputs)
    g = importlib.import_module("kahler_verify.kernels.gaussian_kl").fisher_metric_full(**inputs)[0]
    true = float(torch.linalg.cond(g))
    condition = certificate.condition_number
    assert condition is not None
    assert true <= float(condition) * (1 + 1e-9) <= true * 1.1


def test_a_wrong_kernel_has_a_large_bound_against_the_right_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The certificate compares what torch computed, not what the text says."""
    broken = drawn("flat.metric")
    original = torch.eye
    monkeypatch.setattr(torch, "eye", lambda *a, **k: original(*a, **k) * (1 + 1e-6))
    bound = certify("flat.metric", broken).error_bound["g"]
    assert bound is not None
    assert 0.9e-6 < bound < 1.1e-6


def test_curvature_is_measured_in_the_frame_of_its_own_factor_or_of_a_given_metric() -> None:
    g_d = torch.randn(2, 2, 2, dtype=torch.complex128)
    factor = torch.linalg.cholesky(GRAM)
    inputs = {"g_d": g_d, "g_factor": factor}
    own = certify("hermitian_geometry.chern_connection", inputs)
    given = certify("hermitian_geometry.chern_connection", inputs, metric=GRAM)
    assert own.verdict == given.verdict == "certified"
    assert own.error_bound["gamma"] == pytest.approx(
        float(given.error_bound["gamma"] or 0), rel=1e-3
    )
    with pytest.raises(EvidenceError, match="not the derivative"):
        own.to_json()


def test_functions_names_and_the_package_lead_to_the_same_certificate() -> None:
    inputs = drawn(FISHER)
    module = importlib.import_module("kahler_verify.kernels.gaussian_kl")
    by_function = evidence.certify(module.fisher_metric_full, inputs)
    assert isinstance(by_function, Certificate)
    assert by_function.error_bound == certify(FISHER, inputs).error_bound
    assert "given its inputs" in str(by_function)


def test_errors_name_the_argument() -> None:
    inputs = drawn(FISHER)
    with pytest.raises(InputError, match=r"kernel: expected .* got 'flat.nothing'"):
        certify("flat.nothing", {})
    with pytest.raises(InputError, match="none of mu_d"):
        certify(FISHER, {k: v for k, v in inputs.items() if k != "mu_d"})
    with pytest.raises(InputError, match="mu_d: expected finite"):
        certify(FISHER, {**inputs, "mu_d": inputs["mu_d"] / 0})
    with pytest.raises(InputError, match="metric: expected"):
        certify("gaussian_kl.fisher_metric_db_full_holomorphic",
                drawn("gaussian_kl.fisher_metric_db_full_holomorphic"))  # fmt: skip
    with pytest.raises(InputError, match="generated kernel"):
        certify(inspect.getdoc, {})


def test_heads_are_enclosed_and_torch_is_within_a_few_roundings() -> None:
    torch.manual_seed(0)
    a = torch.randn(2, 4, 4, dtype=torch.complex128)
    s = a @ a.mH
    cholesky = evidence.enclose_cholesky(s)
    log_det = evidence.enclose_log_det(s)
    softmax = evidence.enclose_softmax(torch.randn(5) * 30)
    for found, most in ((cholesky, 1e-14), (log_det, 1e-13), (softmax, 1e-5)):
        assert found.verdict == "certified"
        assert found.error_bound is not None
        assert Fraction(0) <= found.error_bound < most
        assert "certified" in str(found)
    assert cholesky.values.shape == (2, 4, 4)
    assert abs(complex(sum(softmax.values)) - 1) < 1e-12


def test_heads_without_an_enclosure_are_undecided() -> None:
    singular = torch.ones(2, 2, dtype=torch.float64) / 3
    assert evidence.enclose_cholesky(singular, most_bits=128).verdict == "undecided"
    with pytest.raises(InputError, match="logits: expected a real"):
        evidence.enclose_softmax(torch.ones(2, dtype=torch.complex64))


@pytest.mark.parametrize("count", [0, 3])
def test_empty_batches_and_arrays_of_numpy_are_refused(count: int) -> None:
    z = torch.zeros(count, 2, dtype=torch.complex128)
    if count == 0:
        with pytest.raises(InputError, match="z: expected one point at least"):
            certify("fubini_study.metric", {"z": z})
        return
    for wrong in (z.numpy(), z.tolist(), None):
        with pytest.raises(InputError, match=r"z: expected a torch\.Tensor"):
            certify("fubini_study.metric", {"z": wrong})
    with pytest.raises(InputError, match=r"metric: expected a torch\.Tensor"):
        certify("fubini_study.metric", {"z": z}, metric=torch.eye(2).numpy())


@pytest.mark.parametrize(
    ("kernel", "output"),
    [
        ("real_geometry.christoffel", "gamma"),
        ("real_geometry.geodesic_acceleration", "acceleration"),
        ("hermitian_geometry.chern_connection", "gamma"),
        ("hermitian_geometry.log_det_pullback", "pullback"),
    ],
)
def test_bounds_are_the_same_in_other_units(kernel: str, output: str) -> None:
    """Powers of two round nothing; upper indices are those that a kernel declares."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float64 if kernel.startswith("real") else torch.complex128
    slopes = torch.randn(2, 2, 2, dtype=dtype, generator=generator)
    given = {
        "g_factor": torch.tensor([[1.3, 0], [0.4, 0.9]], dtype=dtype),
        "g_d": slopes + slopes.mT,
        "v": torch.randn(2, dtype=dtype, generator=generator),
    }

    def bound(units: list[float]) -> Fraction:
        u = torch.tensor(units, dtype=dtype)
        inputs = {
            "g_factor": u[:, None] * given["g_factor"],
            "g_d": u[:, None, None] * u[:, None] * u * given["g_d"],
            "v": given["v"] / u,
        }
        found = certify(kernel, inputs).error_bound[output]
        assert found is not None
        return found

    here, there = bound([1, 1]), bound([2.0**-30, 4])
    assert here > 0
    assert abs(there / here - 1) < Fraction(1, 1000)
