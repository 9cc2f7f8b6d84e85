"""Tapes of tangents: the same numbers as the calls they were made of, without their values."""

import gc
import subprocess
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric, linearised
from kahler_verify.geometry.linear_tape import LinearTape, Transposed, UnrecordableError

DOUBLE = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


A, SLOPE = draw(5, 4, seed=1), draw(5, seed=2)


def test_what_does_not_depend_on_the_vector_is_not_run_again() -> None:
    calls: list[int] = []

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            calls.append(1)
            return x.exp()

    def push(u: Tensor) -> dict[str, Tensor]:
        out = u.new_empty(len(u), 5)
        out[:, :2] = (u @ A.mT * Slow.apply(SLOPE)).tanh_()[:, :2]  # written in place, in parts
        out[:, 2:] = torch.cat([u[:, :1], *u.split(1, -1)[1:3]], -1)
        return {"x": out, "constant": SLOPE.exp()[None]}

    tape = LinearTape(push, draw(1, 4))
    for seed in range(3):
        u = draw(1, 4, seed=seed)
        found = tape(u)
        assert len(calls) == 1
        expected = push(u)
        calls.pop()
        assert torch.equal(found["x"], expected["x"])
        assert not found["constant"].any()  # its derivative


def test_numbers_of_the_vector_cannot_be_asked_for() -> None:
    def by_value(u: Tensor) -> dict[str, Tensor]:
        return {"x": u * float(u.sum())}

    def elsewhere(u: Tensor) -> dict[str, Tensor]:
        out = torch.zeros(1, 4, dtype=DOUBLE)
        out[:, :2] = u[:, :2]
        return {"x": out}

    for push, reason in ((by_value, "returns no tensor"), (elsewhere, "writes to what did not")):
        with pytest.raises(UnrecordableError, match=reason):
            LinearTape(push, draw(1, 4))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(12, 32),
                nn.Unflatten(1, (8, 2, 2)),
                nn.GroupNorm(2, 8),
                nn.SiLU(),
                nn.ConvTranspose2d(8, 3, 4, 2, 1),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(3, 2, 3, padding=1),
            ).double()

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class Attentive(Decoder):
    """With attention, whose weights a backward pass takes as they came out."""

    def forward(self, z: Tensor) -> Tensor:
        rows = super().forward(z).flatten(2)
        return nn.functional.scaled_dot_product_attention(rows, rows.sin(), rows) + z[:, :1, None]


@pytest.fixture(params=[16 * 2**20, 0], ids=["small", "large"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(linearised, "_TWICE_UP_TO", request.param)
    return int(request.param)


@pytest.mark.parametrize("kind", [Decoder, Attentive])
def test_products_by_tape_are_those_of_the_matrix(kind: type[Decoder], limit: int) -> None:
    metric, z = FisherMetric(kind()), draw(12)
    operator, g = metric.operator(z, method="matrix-free"), metric.metric_matrix(z)
    passes = []
    for seed in range(4):
        u, before = draw(12, seed=seed), operator.passes
        assert (operator.product(u) - g @ u).abs().max() < 1e-12 * g.abs().max()
        passes.append(operator.passes - before)
    # by itself, with a recording and checks, and as it goes on
    assert passes == [3, 4 if limit else 5, 2, 2]
    pair = draw(2, 12, seed=9)
    assert (operator.product(pair) - pair @ g).abs().max() < 1e-12 * g.abs().max()
    many = draw(5, 12, seed=8)
    assert (operator.product(many) - many @ g).abs().max() < 1e-12 * g.abs().max()
    assert operator.product(many[:0]).shape == (0, 12)


def test_nothing_is_kept_of_an_operator_that_is_gone(limit: int) -> None:
    seen = []

    class Watched(Attentive):
        def forward(self, z: Tensor) -> Tensor:
            weights = super().forward(z).flatten(1).softmax(-1)
            seen.append(weakref.ref(weights))
            return weights

    metric = FisherMetric(Watched(), check=False)
    for count in range(4):
        operator = metric.operator(draw(12), method="matrix-free")
        for seed in range(count):
            operator.product(draw(12, seed=seed))
        linear = weakref.ref(operator._linear)
        del operator
        gc.collect()
        assert linear() is None
        assert [x() for x in seen] == [None] * len(seen)


def test_a_large_graph_is_dropped_before_a_tape_is_made(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = FisherMetric(Decoder()).operator(draw(12), method="matrix-free")
    operator.product(draw(12))
    assert operator._linear is not None
    values, there = weakref.ref(operator._linear._transposed), []

    def watched(*arguments: Any) -> LinearTape:
        there.append(values() is not None)
        return LinearTape(*arguments)

    monkeypatch.setattr(linearised, "LinearTape", watched)
    operator.product(draw(12))
    assert there == [limit > 0]
    assert (values() is not None) is (limit > 0)


def test_a_tape_with_another_transpose_is_not_used(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an operation that autograd knows nothing of."""

    class Wrong(Transposed):
        def __call__(self, covectors: Any) -> Tensor:
            return 2 * super().__call__(covectors)

    def wrong(self: LinearTape, u: Tensor) -> Transposed:
        u = u.clone().requires_grad_()
        with torch.enable_grad():
            return Wrong(u, self._run(u))

    monkeypatch.setattr(LinearTape, "transposed", wrong)
    metric, z = FisherMetric(Decoder()), draw(12)
    operator, g = metric.operator(z, method="matrix-free"), metric.metric_matrix(z)
    for seed in range(3):
        u = draw(12, seed=seed)
        assert (operator.product(u) - g @ u).abs().max() < 1e-12 * g.abs().max()
    assert operator._linear is not None
    assert (operator._linear._tape is None) is (limit == 0)


def test_weights_are_not_counted_among_what_is_kept() -> None:
    wide = nn.Sequential(nn.Linear(12, 3), nn.Linear(3, 400), nn.Tanh(), nn.Linear(400, 3))
    operator = FisherMetric(wide.double()).operator(draw(12), method="matrix-free")
    assert operator._linear is not None
    assert operator._linear.widest == 400


def test_a_tape_that_contradicts_the_first_call_is_not_used(limit: int) -> None:
    class Counting(Decoder):
        calls = 0

        def forward(self, z: Tensor) -> Tensor:
            Counting.calls += 1
            return super().forward(z) * (1 if Counting.calls < 10 else 2)

    decoder = Counting()
    operator = FisherMetric(decoder, check=False).operator(draw(12), method="matrix-free")
    operator.product(draw(12, seed=1))
    Counting.calls = 10
    u = draw(12, seed=2)
    found = operator.product(u)
    assert operator._linear is not None
    assert operator._linear._tape is None
    assert not operator._linear._records
    fresh = FisherMetric(decoder, check=False).operator(draw(12), method="matrix-free")
    # J of what is now; J^T, too, where it had to be made again
    torch.testing.assert_close(found, fresh.product(u) / (2 if limit else 1))


def test_recording_imports_no_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from kahler_verify.geometry.linear_tape import LinearTape\n"
        "LinearTape(lambda u: {'x': 2 * u}, torch.ones(1, 2))(torch.ones(1, 2))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Reversed(torch.autograd.Function):
    """As gradient reversal layers have it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, by_out: Tensor) -> Tensor:
        return -0.5 * by_out


class Reversing(Decoder):
    def forward(self, z: Tensor) -> Tensor:
        return Reversed.apply(super().forward(z))


def test_a_backward_pass_that_is_not_the_transpose_is_refused(limit: int) -> None:
    metric, z, u = FisherMetric(Reversing()), draw(12), draw(12, seed=1)
    with pytest.raises(InputError, match=r"the transposed of its tangents.* matrix\(\)"):
        metric.operator(z, method="matrix-free").product(u)
    g = FisherMetric(Decoder()).metric_matrix(z)
    for graph in (False, True):
        with torch.set_grad_enabled(graph):  # which need not be without the matrix
            torch.testing.assert_close(metric.metric_vector_product(u, z), g @ u)
    torch.testing.assert_close(metric.operator(z, method="dense").matrix(), g)


def test_a_value_that_is_written_over_is_refused(limit: int) -> None:
    layers = nn.Linear(12, 9), nn.Sigmoid(), nn.SiLU(inplace=True), nn.Linear(9, 5)
    metric, z, u = FisherMetric(nn.Sequential(*layers).double()), draw(12), draw(12, seed=1)
    with pytest.raises(InputError, match="writes in place over a value"):
        metric.operator(z, method="matrix-free").product(u)
    g = metric.metric_matrix(z)
    with torch.no_grad():
        torch.testing.assert_close(metric.metric_vector_product(u, z), g @ u)
    torch.testing.assert_close(metric.operator(z, method="matrix-free").matrix(), g)
    torch.testing.assert_close(metric.operator(z).product(u), g @ u)


@pytest.mark.parametrize("before", [0, 1, 2, 4])
def test_an_operator_of_weights_that_changed_is_refused(before: int, limit: int) -> None:
    decoder = Decoder()
    operator = FisherMetric(decoder).operator(draw(12), method="matrix-free")
    for seed in range(before):
        operator.product(draw(12, seed=seed))
    with torch.no_grad():
        decoder.layers[4].weight.mul_(2)
    for _ in range(2):
        with pytest.raises(InputError, match="changed in place since; make a new one"):
            operator.product(draw(12))


def test_a_decoder_may_bound_its_weights_in_each_call(limit: int) -> None:
    class Bounded(Decoder):
        def forward(self, z: Tensor) -> Tensor:
            with torch.no_grad():
                self.layers[0].weight.clamp_(-0.1, 0.1)
            return super().forward(z)

    metric, z = FisherMetric(Bounded()), draw(12)
    g, operator = metric.metric_matrix(z), metric.operator(z, method="matrix-free")
    for seed in range(4):
        u = draw(12, seed=seed)
        torch.testing.assert_close(operator.product(u), g @ u)


def test_no_mode_of_the_caller_is_at_work_inside(limit: int) -> None:
    metric, z, u = FisherMetric(Decoder().float()), draw(12).float(), draw(12, seed=1).float()
    truth = metric.metric_matrix(z) @ u
    for mode in (torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        with mode:
            operator = metric.operator(z, method="matrix-free")
            inside = [operator.product(u) for _ in range(4)]
            matrix = metric.operator(z, method="dense").matrix()
            largest = operator.top(3).values
        for found in (*inside, operator.product(u), matrix @ u):
            torch.testing.assert_close(found.clone(), truth, rtol=1e-4, atol=1e-6)
        values = torch.linalg.eigvalsh(matrix.double()).flip(0)[:3]
        torch.testing.assert_close(largest, values, rtol=1e-3, atol=0)


def test_a_metric_that_is_zero_has_directions_without_errors() -> None:
    class Constant(Decoder):
        def forward(self, z: Tensor) -> Tensor:
            return 0 * super().forward(z)

    top = FisherMetric(Constant()).operator(draw(12), method="matrix-free").top(3)
    assert not top.values.any()
    assert "errors up to 0.0e+00" in repr(top)
