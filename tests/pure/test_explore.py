"""A few lives in the virtual world (``make explore`` lives them all), and whether its judge can object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from .explore import FAMILIES, MODES, at_each_point, describe, explore, lived, table, undisturbed
from .mutations import MODULES, MUTATIONS, Mutation, catch, made_with
from .virtual import Plan

by_rule = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.rule)


def few() -> Iterator[Plan]:
    """Yield each death of some lives."""
    for mode in MODES:
        yield from at_each_point(Plan("", mode, faults=(("POST", "lost, taken"),)))
        yield from at_each_point(Plan("", mode, outcomes=("failed", "succeeded"), clear="at the end"))
        yield from at_each_point(Plan("", mode, "wait", beside="busy before", taken_for_dead=20))


def test_r03_r05_r06_r16_no_death_doubles_a_load_or_loses_it() -> None:
    explored = explore([*undisturbed(), *few()])
    assert explored.lives > 1000
    assert not explored.bad, f"{table(explored)}\n{explored.bad[:5]}"


def test_a_life_is_the_same_each_time_it_is_lived() -> None:
    plan = Plan("", "deferrable", deaths=(14,), faults=(("POST", "lost, taken"),))
    (one, bad), (other, again) = lived(plan), lived(plan)
    assert (one.points, bad) == (other.points, again)


def test_a_plan_is_described_as_it_is_made() -> None:
    plan = Plan("a death", "deferrable", deaths=(14,), faults=(("POST", "lost, taken"),), clear="at the end")
    assert eval(describe(plan), {"Plan": Plan}) == plan


@by_rule
def test_a_rule_can_be_taken_out(mutation: Mutation) -> None:
    assert set(made_with(mutation)) == set(MODULES)
    assert set(mutation.families) <= {make.__name__ for make, _ in FAMILIES}


@pytest.mark.parametrize(
    "rule",
    [
        "the record is kept before the request",
        "an idle job says nothing about the execution",
        "what is shown is kept for the next process",
        "the end shows what was not shown",
    ],
)
def test_what_is_taken_out_is_noticed(rule: str) -> None:
    (mutation,) = (mutation for mutation in MUTATIONS if mutation.rule == rule)
    assert catch(mutation).plan is not None


def test_r04_a_retry_without_a_memory_does_not_queue_what_was_busy_a_moment_ago() -> None:
    refuses = Plan("", if_running="fail", lasts=False, outcomes=("failed", "succeeded"))
    for plan in (refuses, replace(refuses, if_running="attach")):
        explored = explore(at_each_point(plan))
        assert not explored.bad, explored.bad[:3]
