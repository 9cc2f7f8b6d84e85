"""Works that shoot their fans side by side come to what they come to alone."""

from collections.abc import Generator
from typing import Any

import pytest
import torch

from kahler_verify.errors import InputError
from kahler_verify.statistics.adaptive.fans import aimed, fan, shot
from kahler_verify.statistics.adaptive.rays import trace
from kahler_verify.statistics.adaptive.together import together
from tests.statistics.adaptive.metrics import DOUBLE, SpaceForm

TOLERANCE = 1e-6
EYE = torch.eye(2, dtype=DOUBLE)
SPHERE = SpaceForm(1)
ASKED = (((0.3, 0.2), 0.36, 3.2, 6), ((-0.5, 0.1), 0.02, 1.0, 9))


def asked(place: tuple[float, float], variance: float, reach: float, panels: int) -> Any:
    mean = torch.tensor(place, dtype=DOUBLE)
    aim = aimed(SPHERE, mean, variance * EYE, reach, rays=8, panels=panels, seed=0)
    traced = yield aim
    return shot(SPHERE, aim, traced, periods=(), tolerance=TOLERANCE)


def test_fans_that_are_shot_together_are_those_shot_alone() -> None:
    """Of other reaches and numbers of panels, one of which ends before conjugate points."""
    made = together(SPHERE, [asked(*one) for one in ASKED], tolerance=TOLERANCE)
    for one, (place, variance, reach, panels) in zip(made, ASKED, strict=True):
        mean = torch.tensor(place, dtype=DOUBLE)
        alone = fan(SPHERE, mean, variance * EYE, reach, rays=8, panels=panels, tolerance=TOLERANCE)
        assert one.rays.times.shape == alone.rays.times.shape == (8, panels + 1)
        assert one.evaluations == alone.evaluations
        assert torch.equal(one.reasons, alone.reasons)
        for name in ("v", "weights", "ends", "hessians"):
            assert torch.allclose(getattr(one, name), getattr(alone, name), rtol=1e-10, atol=1e-12)


def test_works_of_many_fans_and_of_none() -> None:
    """Answers come in order, whoever ends first; what is raised in a work may be caught there."""

    def work(number: int, times: int) -> Generator[Any, Any, int]:
        evaluations = 0
        for _ in range(times):
            try:
                evaluations += (yield from asked(*ASKED[1])).evaluations
                if number == 2:
                    raise InputError("a fan that was no good")
            except InputError:
                evaluations = -1
        return number if evaluations else -number

    counts = {1: 2, 2: 1, 3: 0}
    assert together(SPHERE, [work(*one) for one in counts.items()], tolerance=TOLERANCE) == [
        1,
        2,
        -3,
    ]

    def bad() -> Generator[Any, Any, int]:
        yield from asked(*ASKED[1])
        raise InputError("no law")

    with pytest.raises(InputError, match="no law"):
        together(SPHERE, [work(1, 1), bad()], tolerance=TOLERANCE)


def test_a_ray_does_not_wait_for_another() -> None:
    """One beside another that needs smaller steps has as many evaluations as alone."""
    u = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=DOUBLE)
    times = torch.linspace(0, 2.5, 3, dtype=DOUBLE)
    mean = torch.tensor([0.4, 0.0], dtype=DOUBLE)
    both = trace(
        SPHERE, mean, EYE, u * torch.tensor([[1.0], [0.1]]), times, stop=False, tolerance=TOLERANCE
    )
    each = [
        trace(SPHERE, mean, EYE, v[None], times, stop=False, tolerance=TOLERANCE)
        for v in (u[0], 0.1 * u[1])
    ]
    assert both.evaluations.tolist() == [int(one.evaluations) for one in each]
    assert both.evaluations[0] > both.evaluations[1]
