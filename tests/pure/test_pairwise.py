"""Each value of a parameter meets each value of each other one."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from ..pairwise import all_pairs


@pytest.mark.parametrize(("sizes", "most"), [((3, 7, 5), 40), ((2, 2, 8), 18), ((2, 3), 6), ((1, 1), 1)])
def test_all_pairs_are_there_and_few_cases(sizes: tuple[int, ...], most: int) -> None:
    cases = all_pairs(*sizes)
    assert len(cases) <= most
    for (one, size), (other, of) in combinations(enumerate(sizes), 2):
        assert {(case[one], case[other]) for case in cases} == set(product(range(size), range(of)))
