"""Which cases of a large family run every day: tests marked ``sampled(n)``."""

import random
from collections.abc import Sequence

import pytest


def not_sampled(items: Sequence[pytest.Item]) -> set[pytest.Item]:
    """What is not chosen of marked tests; always the same for a test with the same cases."""
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
