"""What runs every day of a large family: as many cases as it says, always the same."""

from typing import Any, NamedTuple

import pytest

from tests.sampled import not_sampled


class Item(NamedTuple):
    nodeid: str
    keywords: frozenset[str] = frozenset({"sampled"})
    count: int = 3

    def get_closest_marker(self, name: str) -> pytest.Mark:
        return getattr(pytest.mark, name)(self.count).mark


def test_as_many_as_it_says_and_always_the_same() -> None:
    first = [Item(f"a.py::test_one[{k}]") for k in range(10)]
    second = [Item(f"a.py::test_two[{k}]", count=20) for k in range(4)]
    slow = Item("a.py::test_one[slow]", frozenset({"sampled", "thorough"}))
    plain = [Item(f"b.py::test[{k}]", frozenset()) for k in range(5)]
    items: Any = [*first, *second, slow, *plain]
    left = not_sampled(items)
    assert len(left) == 7
    assert left < set(first)
    assert not_sampled(items) == left
    other: Any = [Item(f"a.py::test_three[{k}]") for k in range(10)]
    assert {x.nodeid[-2] for x in not_sampled(other)} != {x.nodeid[-2] for x in left}
