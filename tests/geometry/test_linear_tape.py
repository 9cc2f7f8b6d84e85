"""Tapes of tangents: the same numbers as the calls they were made of, without their values."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.geometry import FisherMetric
from kahler_verify.geometry.linear_tape import LinearTape, UnrecordableError

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


def test_products_by_tape_are_those_of_the_matrix() -> None:
    metric, z = FisherMetric(Decoder()), draw(12)
    operator, g = metric.operator(z, method="matrix-free"), metric.metric_matrix(z)
    passes = []
    for seed in range(4):
        u, before = draw(12, seed=seed), operator.passes
        assert (operator.product(u) - g @ u).abs().max() < 1e-12 * g.abs().max()
        passes.append(operator.passes - before)
    assert passes == [3, 4, 2, 2]  # by itself, with a recording and a check, and as it goes on
    pair = draw(2, 12, seed=9)
    assert (operator.product(pair) - pair @ g).abs().max() < 1e-12 * g.abs().max()


def test_a_tape_that_contradicts_the_first_call_is_not_used() -> None:
    class Counting(Decoder):
        calls = 0

        def forward(self, z: Tensor) -> Tensor:
            Counting.calls += 1
            return super().forward(z) * (1 if Counting.calls < 10 else 2)

    decoder = Counting()
    operator = FisherMetric(decoder, check=False).operator(draw(12), method="matrix-free")
    operator.product(draw(12, seed=1))
    Counting.calls = 10
    operator.product(draw(12, seed=2))
    assert operator._linear is not None
    assert operator._linear._tape is None
    assert not operator._linear._records


def test_recording_imports_no_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from kahler_verify.geometry.linear_tape import LinearTape\n"
        "LinearTape(lambda u: {'x': 2 * u}, torch.ones(1, 2))(torch.ones(1, 2))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
