"""All pairs of the values of parameters, in few combinations."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations, product
from typing import Any

import pytest


def all_pairs(*sizes: int) -> list[tuple[int, ...]]:
    """Choose combinations, as indexes, so that each value meets each value of each other parameter."""

    def pairs_of(case: tuple[int, ...]) -> set[Any]:
        return set(combinations(enumerate(case), 2))

    cases = list(product(*map(range, sizes)))
    left = set().union(*map(pairs_of, cases))
    chosen = []
    while left:
        chosen.append(max(cases, key=lambda case: len(left & pairs_of(case))))
        left -= pairs_of(chosen[-1])
    return chosen


def pairwise(**parameters: Collection[Any] | Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrize a test with all pairs; the values of a mapping are known by its keys."""
    values = [list(given.values() if isinstance(given, Mapping) else given) for given in parameters.values()]
    names = [[str(value) for value in given] for given in parameters.values()]
    cases = [
        pytest.param(
            *(of[index] for of, index in zip(values, case, strict=True)),
            id="-".join(of[index] for of, index in zip(names, case, strict=True)),
        )
        for case in all_pairs(*map(len, values))
    ]
    return pytest.mark.parametrize(list(parameters), cases)
