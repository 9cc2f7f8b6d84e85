"""Krylov methods against dense linear algebra: values, vectors, and whether error bars hold."""

import math

import pytest
import torch

from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.krylov import (
    conjugate_gradients,
    lanczos,
    largest_eigenpairs,
    nystrom,
)
from kahler_verify.linear_algebra.quadrature import log_det, trace

D = torch.float64
SPECTRA = {
    "geometric": torch.logspace(0, -4, 96, dtype=D),
    "flat": torch.linspace(1, 3, 96, dtype=D),
    "knee": torch.cat([torch.logspace(3, 1, 16, dtype=D), torch.linspace(1, 2, 80, dtype=D)]),
}


def matrix(spectrum, seed=0):
    generator = torch.Generator().manual_seed(seed)
    d = len(spectrum)
    Q = torch.linalg.qr(torch.randn(d, d, dtype=D, generator=generator)).Q
    return (Q * spectrum) @ Q.mT


class Counted:
    def __init__(self, A):
        self.A, self.count = A, 0

    def __call__(self, v):
        self.count += len(v)
        return v @ self.A


@pytest.fixture(params=SPECTRA)
def spectrum(request):
    return SPECTRA[request.param]


def test_lanczos_is_a_tridiagonal_of_the_matrix(spectrum):
    A, starts = matrix(spectrum), torch.randn(3, 96, dtype=D)
    found = lanczos(Counted(A), starts, 20)
    Q = found.basis
    close = {"atol": 1e-11 * spectrum.max().item(), "rtol": 0}
    torch.testing.assert_close(
        Q @ Q.mT, torch.eye(20, dtype=D).expand(3, 20, 20), atol=1e-13, rtol=0
    )
    torch.testing.assert_close(Q @ A @ Q.mT, found.matrix(), **close)
    torch.testing.assert_close(Q[:, 0], starts / starts.norm(dim=-1, keepdim=True))


def test_lanczos_leaves_a_space_that_closes():
    A = matrix(torch.ones(12, dtype=D))
    found = lanczos(Counted(A), torch.randn(2, 12, dtype=D), 4)
    assert bool((found.beside == 0).all())
    assert bool((found.basis[:, 1:] == 0).all())


def test_largest_eigenpairs(spectrum):
    A = matrix(spectrum)
    product = Counted(A)
    found = largest_eigenpairs(product, A[0], 6)
    truth = spectrum.sort(descending=True).values[:6]
    off = (found.values - truth).abs()
    assert bool((off <= found.errors.clamp_min(1e-12 * truth[0])).all())
    assert found.products == product.count
    residuals = (found.vectors @ A - found.values[:, None] * found.vectors).norm(dim=-1)
    torch.testing.assert_close(residuals, found.residuals, atol=1e-11 * truth[0].item(), rtol=1e-6)
    torch.testing.assert_close(
        found.vectors @ found.vectors.mT, torch.eye(6, dtype=D), atol=1e-12, rtol=0
    )
    if found.converged:
        assert bool((off <= 1e-4 * truth).all())
        assert found.products < 96


@pytest.mark.sampled(4)
@pytest.mark.parametrize("k", [1, 6, 10])
def test_largest_eigenpairs_of_any_start(spectrum, k):
    """No eigenvalue is missed that a start is almost orthogonal to."""
    A, truth = matrix(spectrum), spectrum.sort(descending=True).values[:k]
    for seed in range(60):
        found = largest_eigenpairs(Counted(A), A[0], k, seed=seed, steps=96)
        assert found.converged
        assert bool(((found.values - truth).abs() <= 1e-4 * truth).all()), seed


def test_an_eigenvector_that_the_start_lacks_is_found():
    A = matrix(SPECTRA["geometric"])
    values, vectors = (x.flip(-1) for x in torch.linalg.eigh(A))
    start = torch.randn(96, dtype=D, generator=torch.Generator().manual_seed(0))
    # a matrix whose third eigenvector is orthogonal to the first start
    third = vectors[:, 2] - (vectors[:, 2] @ start) / (start @ start) * start
    basis = torch.linalg.qr(torch.cat([third[:, None], vectors[:, [0, 1, *range(3, 96)]]], 1)).Q
    order = values[[2, 0, 1, *range(3, 96)]]
    found = largest_eigenpairs(Counted((basis * order) @ basis.mT), A[0], 6)
    assert found.converged
    torch.testing.assert_close(found.values, values[:6], rtol=1e-4, atol=0)


@pytest.mark.parametrize("seed", [1, 8, 9, 10])
def test_what_a_fresh_start_finds_is_followed_up(seed):
    """The tenth is almost orthogonal to the start, and the eleventh is near: a fresh start's own
    space took 200 steps where some 70 do."""
    d, random = 200, torch.Generator().manual_seed(seed)
    start = torch.randn(d, dtype=D, generator=torch.Generator().manual_seed(0))
    start /= start.norm()
    tenth = torch.randn(d, generator=random, dtype=D)
    tenth -= (tenth @ start) * start
    tenth = tenth / tenth.norm() + 1e-4 * start
    others = torch.randn(d, d - 1, generator=random, dtype=D)
    basis = torch.linalg.qr(torch.cat([tenth[:, None], others], 1)).Q
    top = torch.linspace(5, 2.4, 10, dtype=D)
    rest = 2.37 * (1 - torch.arange(d - 10, dtype=D) / d) ** 1.5
    A = Counted((basis * torch.cat([top[9:], top[:9], rest])) @ basis.mT)
    found = largest_eigenpairs(A, start, 10, tolerance=1e-3, steps=d)
    torch.testing.assert_close(found.values, top, rtol=1e-3, atol=0)
    assert found.converged
    assert A.count <= 80


def test_eigenvalues_of_several_dimensions_are_found_as_often():
    A = matrix(
        torch.cat([torch.tensor([3.0, 3.0, 2.0], dtype=D), torch.logspace(0, -2, 40, dtype=D)])
    )
    found = largest_eigenpairs(Counted(A), A[0], 3)
    torch.testing.assert_close(
        found.values, torch.tensor([3.0, 3.0, 2.0], dtype=D), rtol=1e-4, atol=0
    )


def test_largest_eigenpairs_say_where_they_are_not_found():
    A = matrix(SPECTRA["flat"])
    found = largest_eigenpairs(Counted(A), A[0], 5, steps=8)
    assert not found.converged
    assert found.products == 8
    assert bool((found.errors > 1e-4 * found.values).any())


def test_largest_eigenpairs_of_a_small_space():
    A = matrix(torch.tensor([2.0, 1.0], dtype=D))
    found = largest_eigenpairs(Counted(A), A[0], 2)
    assert found.converged
    torch.testing.assert_close(found.values, torch.tensor([2.0, 1.0], dtype=D))
    one = largest_eigenpairs(Counted(3 * torch.eye(5, dtype=D)), A[0].new_zeros(5), 1)
    torch.testing.assert_close(one.values, torch.tensor([3.0], dtype=D))


def test_conjugate_gradients(spectrum):
    A, b = matrix(spectrum), torch.randn(3, 96, dtype=D)
    b[2] = 0
    product = Counted(A)
    found = conjugate_gradients(product, b, tolerance=1e-9)
    assert found.converged
    assert found.products == product.count
    assert bool((found.x[2] == 0).all())
    residual = (b - found.x @ A).norm(dim=-1)[:2] / b.norm(dim=-1)[:2]
    assert residual.max() <= 2e-9
    truth = torch.linalg.solve(A, b.mT).mT
    assert (found.x - truth).norm() <= 1e-8 * (spectrum.max() / spectrum.min()) * truth.norm()


def test_a_ridge_and_a_preconditioner_save_steps():
    A, b = matrix(SPECTRA["geometric"]), torch.randn(1, 96, dtype=D)
    plain = conjugate_gradients(Counted(A), b)
    sketch = nystrom(Counted(A), A[0], 32)
    better = conjugate_gradients(Counted(A), b, preconditioner=sketch.preconditioner(0.0))
    assert better.converged
    assert better.products < 0.8 * plain.products
    ridge = conjugate_gradients(Counted(A), b, ridge=1e-2)
    assert ridge.products < 0.5 * plain.products
    truth = torch.linalg.solve(A + 1e-2 * torch.eye(96, dtype=D), b.mT).mT
    torch.testing.assert_close(ridge.x, truth, atol=1e-4 * truth.abs().max().item(), rtol=0)
    stopped = conjugate_gradients(Counted(A), b, most=5)
    assert not stopped.converged
    assert stopped.residual.item() > 1e-6


def test_nystrom_finds_the_range():
    A = matrix(SPECTRA["geometric"])
    sketch = nystrom(Counted(A), A[0], 40)
    again = (sketch.vectors.mT * sketch.values) @ sketch.vectors
    tail = SPECTRA["geometric"][40:].norm()
    assert torch.linalg.matrix_norm(A - again) < 10 * tail
    assert bool((sketch.values[:10] <= SPECTRA["geometric"][:10] * (1 + 1e-9)).all())
    with pytest.raises(InputError, match="positive semidefinite"):
        nystrom(Counted(-A), A[0], 40)


def test_trace_and_its_error_bar(spectrum):
    A, truth = matrix(spectrum), spectrum.sum().item()
    hits = 0
    for seed in range(200):
        found = trace(Counted(A), A[0], probes=18, seed=seed)
        hits += abs(found.value - truth) <= found.error
    assert hits >= 172  # 95% of them nominally; 91 – 95% where 400 were drawn
    product = Counted(A)
    assert trace(product, A[0], probes=18).products == product.count
    with pytest.raises(InputError, match="probes: expected at least 6"):
        trace(Counted(A), A[0], probes=3)


@pytest.mark.parametrize("d", [3, 12, 13])
def test_trace_is_exact_where_the_probes_span_all(d):
    A = Counted(matrix(torch.linspace(0.5, 3, d, dtype=D)))
    found = trace(A, A.A[0], probes=12)
    assert math.isclose(found.value, A.A.trace().item(), rel_tol=1e-12) is (d <= 12)
    assert (found.error == 0) is (d <= 12)
    assert found.products == A.count
    assert A.count == d or d > 12


@pytest.mark.parametrize("steps", [12, 30])
def test_log_det_and_its_error_bar(spectrum, steps):
    """95% intervals hold the truth in at least 34 of 40 draws: fewer have a chance below 2%."""
    A, truth = matrix(spectrum), spectrum.log().sum().item()
    lowest = spectrum.min().item()
    hits, biases = 0, 0
    for seed in range(40):
        found = log_det(Counted(A), A[0], smallest=lowest, probes=6, steps=steps, seed=seed)
        hits += abs(found.value - truth) <= found.error
        biases += found.bias
    assert hits >= 34
    assert biases > 0


def test_quadratures_enclose_each_probe(spectrum):
    """With a true bound of the smallest eigenvalue the bias is a bound, probe by probe."""
    A, lowest = matrix(spectrum), spectrum.min().item()
    values, vectors = torch.linalg.eigh(A)
    bits = torch.randint(0, 2, (6, 96), generator=torch.Generator().manual_seed(0))
    coordinates = (2 * bits - 1).to(D) @ vectors
    truth = coordinates.square() @ values.log()
    few = log_det(Counted(A), A[0], smallest=0.9 * lowest, probes=6, steps=4)
    many = log_det(Counted(A), A[0], smallest=0.9 * lowest, probes=6, steps=96)
    torch.testing.assert_close(many.samples, truth, rtol=1e-9, atol=1e-9)
    assert (few.samples - truth).abs().mean() <= few.bias
    assert many.bias < 1e-8 < few.bias


def test_common_probes_make_differences_sharper():
    A, near = matrix(SPECTRA["geometric"]), matrix(SPECTRA["geometric"] * 1.3)
    a, b = (log_det(Counted(x), A[0], probes=8, steps=60) for x in (near, A))
    apart = a.minus(b)
    assert abs(apart.value - 96 * math.log(1.3)) <= apart.error
    assert apart.error < 0.5 * math.hypot(a.error, b.error)
    other = log_det(Counted(A), A[0], probes=8, steps=60, seed=1)
    with pytest.raises(InputError, match="same seed, probes and steps"):
        a.minus(other)


def test_log_det_of_what_is_singular_wants_a_ridge():
    spectrum = torch.cat([torch.ones(20, dtype=D), torch.zeros(4, dtype=D)])
    A = matrix(spectrum)
    with pytest.raises(InputError, match="state a ridge"):
        log_det(Counted(A - 1e-12 * torch.eye(24, dtype=D)), A[0], steps=24)
    found = log_det(Counted(A), A[0], ridge=0.1, smallest=0.0, steps=24, probes=16)
    truth = (spectrum + 0.1).log().sum().item()
    assert abs(found.value - truth) <= found.error
    with pytest.raises(InputError, match="probes: expected at least 2"):
        log_det(Counted(A), A[0], ridge=0.1, probes=1)
    with pytest.raises(InputError, match="smallest: expected a bound > 0"):
        log_det(Counted(A), A[0], ridge=0.1, smallest=-1.0)
