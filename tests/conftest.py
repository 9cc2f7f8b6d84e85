"""Settings shared by all tests: threads, Hypothesis profiles, markers that skip."""

import os
import random

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch.distributions import Distribution

# One worker per core: more threads per worker would fight over them. The variables reach the
# programs that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"

# The profiles run the same properties; they differ in how many examples they try, and only the
# thorough one tries new examples each time.
_SLOW_IS_FINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=20, derandomize=True, **_SLOW_IS_FINE)
settings.register_profile("ci", max_examples=50, derandomize=True, print_blob=True, **_SLOW_IS_FINE)
settings.register_profile("thorough", max_examples=1000, print_blob=True, **_SLOW_IS_FINE)
settings.load_profile(os.environ.get("KAHLER_PROFILE", "default"))


@pytest.fixture(autouse=True)
def validated_distributions() -> None:
    """Torch's compiler switches the validation of distributions off for the whole process."""
    Distribution.set_default_validate_args(True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that this machine or this profile cannot run, and say so."""
    profile = config.getoption("hypothesis_profile") or os.environ.get("KAHLER_PROFILE")
    if profile != "thorough":
        left = {i for i in items if "thorough" in i.keywords} | _not_sampled(items)
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _not_sampled(items: list[pytest.Item]) -> set[pytest.Item]:
    """What is not chosen of tests that are marked ``sampled(n)``; always the same for a test."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if "sampled" in item.keywords and "thorough" not in item.keywords:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left: set[pytest.Item] = set()
    for name, own in cases.items():
        mark = own[0].get_closest_marker("sampled")
        assert mark is not None
        chosen = random.Random(name).sample(own, min(mark.args[0], len(own)))
        left |= set(own) - set(chosen)
    return left
