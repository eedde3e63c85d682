"""Going through executions, and on from where an answer broke off."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_timextender import errors
from airflow_provider_timextender.jobs_api import each_execution
from airflow_provider_timextender.model import Execution, ExecutionState
from airflow_provider_timextender.reading import each

JOB = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
CALL = each_execution(JOB, keep=None)


class World:
    """Time is a number here."""

    log = logging.getLogger("t")
    longest_pause = 1.0

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Hook:
    """Answers with so many executions each time, and then breaks off unless they are all."""

    def __init__(self, answers: Sequence[tuple[Sequence[int], bool]]) -> None:
        self.answers = list(answers)
        self.open = self.asked = 0

    def stream(self, call: Any) -> Generator[Execution, None, None]:
        self.asked += 1
        keys, whole = self.answers.pop(0)
        self.open += 1
        try:
            yield from map(execution, keys)
            if not whole:
                raise errors.Unreachable("the connection broke")
        finally:
            self.open -= 1


def execution(number: int) -> Execution:
    # Those that were started by hand have a key by their start.
    return Execution(JOB, None, ExecutionState.SUCCEEDED, start=NOON + timedelta(hours=number))


def read(hook: Hook, patience: float = 60) -> Iterator[Execution]:
    return each(hook, World(), CALL, patience=patience)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 6), max_size=6))
def test_r09_r44_each_execution_comes_once_however_often_the_log_breaks_off(cuts: list[int]) -> None:
    whole = [0, 1, 1, 2, 3, 3]
    hook = Hook([*((whole[:cut], False) for cut in cuts), (whole, True)])
    assert [one.start for one in read(hook)] == [execution(number).start for number in whole]
    assert (hook.asked, hook.open) == (len(cuts) + 1, 0)


@pytest.mark.parametrize("then", [[1, 0, 2], [0], [], [5, 0, 1, 2], [0, 2, 1]])
def test_r44_a_log_that_begins_with_others_then_is_an_error_and_not_gone_on_with(then: list[int]) -> None:
    found = read(Hook([([0, 1], False), (then, True)]))
    assert [next(found).start, next(found).start] == [execution(0).start, execution(1).start]
    with pytest.raises(errors.ContractError, match="broke off after 2 executions") as failed:
        next(found)
    assert failed.value.retry_helps


def test_r09_patience_has_an_end_and_begins_anew_with_each_execution() -> None:
    hook = Hook([([0], False), ([0, 1], False), *[([0, 1], False)] * 400])
    found = read(hook, patience=30)
    assert [next(found).start, next(found).start] == [execution(0).start, execution(1).start]
    with pytest.raises(errors.Unreachable):
        next(found)
    assert hook.asked > 10


def test_who_wants_no_more_releases_the_connection() -> None:
    hook = Hook([([0, 1, 2], True)])
    found = read(hook)
    next(found)
    next(found)
    assert hook.open == 1
    found.close()  # type: ignore[attr-defined]
    assert hook.open == 0


def test_what_no_retry_heals_is_raised_at_once() -> None:
    class Refusing(Hook):
        def stream(self, call: Any) -> Generator[Execution, None, None]:
            yield from super().stream(call)
            raise errors.Refused("no", status=403)

    hook = Refusing([([0, 1], True)])
    with pytest.raises(errors.Refused):
        list(read(hook))
    assert hook.asked == 1
