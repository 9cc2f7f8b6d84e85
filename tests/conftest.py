"""Settings shared by all tests: threads, Hypothesis profiles, markers that leave out."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch.distributions import Distribution

from tests.sampled import not_sampled

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
        left = {i for i in items if "thorough" in i.keywords} | not_sampled(items)
        config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
