"""What a watcher remembers: pure tests, in which only the server has a clock."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_timextender.model import BLANK_GUID, Execution, ExecutionState
from airflow_provider_timextender.watching import LATE, MAX_KNOWN, Told, ends_of

JOB = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
NOW = START + timedelta(days=10)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def ended(number: int, end: float | None, *, by_hand: bool = False, job_id: str = JOB) -> Execution:
    time = None if end is None else after(end)
    trigger_id = BLANK_GUID if by_hand else str(uuid.UUID(int=number + 1))
    start = None if end is None else after(end - 3600 - number)
    return Execution(job_id, trigger_id, ExecutionState.SUCCEEDED, start=start, end=time)


def restarted(told: Told) -> Told:
    return Told.from_dict(json.loads(json.dumps(told.to_dict())))


def look(told: Told, log: Sequence[Execution], job_id: str = JOB) -> tuple[Told, list[Execution]]:
    """Look at a job's log, tell all that is news, and start anew."""
    ends = ends_of(log, NOW)
    told = told.begun(job_id, ends)
    news = told.news(job_id, ends)
    for end in news:
        told = told.and_told(job_id, end)
    return restarted(told), [end.execution for end in news]


@st.composite
def histories(draw: st.DrawFn) -> list[Execution]:
    """Executions in the order in which the log comes to show them: some later than younger ones."""
    clock, made = draw(st.floats(-14 * 3600, 14 * 3600)), []
    for number in range(draw(st.integers(0, 12))):
        clock += draw(st.floats(0.001, 48 * 3600))
        late = draw(st.sampled_from([0, 0, draw(st.floats(0, LATE / 2))]))
        timeless = draw(st.booleans()) and draw(st.booleans())
        by_hand = not timeless and draw(st.booleans())
        made.append(ended(number, None if timeless else clock - late, by_hand=by_hand))
    return made


@given(histories(), st.data())
def test_r27_each_that_ends_after_the_first_look_is_told_once(
    history: list[Execution], data: st.DataObject
) -> None:
    told, heard = Told(), []
    first = shown = data.draw(st.integers(0, len(history)))
    while True:
        log = data.draw(st.permutations([*history[:shown], *history[shown // 2 : shown]]))
        told, news = look(told, log)
        heard.extend(news)
        if shown == len(history):
            break
        shown = data.draw(st.integers(shown + 1, len(history)))
    assert sorted(heard, key=history.index) == history[first:]


def test_r27_news_come_oldest_first_and_what_runs_is_none() -> None:
    told, _ = look(Told(), [])
    running = replace(ended(3, None), state=ExecutionState.RUNNING)
    assert look(told, [ended(2, 20), running, ended(1, 10)])[1] == [ended(1, 10), ended(2, 20)]


def test_an_end_that_is_not_understood_is_an_end() -> None:
    told, _ = look(Told(), [])
    odd = replace(ended(1, 10), state=None, problem="'Completed' is in no table")
    unreadable = replace(ended(2, None), state=None, end_problem="'noon' is no time")
    going = replace(ended(3, None), state=None)
    told, news = look(told, [odd, unreadable, going])
    assert news == [unreadable, odd]


def test_ids_are_compared_whatever_their_case_and_braces() -> None:
    told, _ = look(Told(), [])
    one = ended(0xABC, 10)
    told, news = look(told, [one])
    assert news == [one]
    assert one.trigger_id is not None
    written = [f"{{{one.trigger_id.upper()}}}", one.trigger_id.upper(), f"{{{BLANK_GUID}}}"]
    again = [replace(one, trigger_id=trigger_id) for trigger_id in written]
    assert look(told, again, f"{{{JOB.upper()}}}")[1] == again[2:], "that one was started by hand"


def test_executions_by_hand_are_told_apart_by_their_times_even_if_these_cannot_be_read() -> None:
    told, _ = look(Told(), [])
    by_hand = [ended(0, seconds, by_hand=True) for seconds in (1, 2)]
    nameless = replace(by_hand[0], trigger_id=None, start=after(3), end=after(4))
    odd = [replace(ended(0, None, by_hand=True), end_problem=f"{hour} is no time") for hour in (1, 2)]
    told, news = look(told, [*by_hand, nameless, *odd])
    assert news == [*odd, *by_hand, nameless]
    assert look(told, news)[1] == []


def test_what_shows_up_late_is_news_but_not_for_ever() -> None:
    told, _ = look(Told(), [ended(0, 0)])
    told, _ = look(told, [ended(1, 7 * 24 * 3600)])
    oldest = 7 * 24 * 3600 - LATE
    assert look(told, [ended(2, oldest), ended(3, oldest - 1)])[1] == [ended(2, oldest)]


def test_an_end_in_a_far_future_hides_nothing() -> None:
    told, _ = look(Told(), [])
    far = replace(ended(1, None), end=NOW + timedelta(days=999))
    told, news = look(told, [far])
    assert news == [far]
    told, news = look(told, [far, ended(2, 0)])
    assert news == [ended(2, 0)]


def test_an_end_before_computers_is_none() -> None:
    told, _ = look(Told(), [ended(1, 0)])
    default = replace(ended(2, None), end=datetime(1900, 1, 1, tzinfo=timezone.utc))
    told, news = look(told, [ended(1, 0), default])
    assert news == [default]
    assert look(told, [ended(1, 0), default])[1] == []


# --- bounds ---


def size(told: Told) -> int:
    return len(json.dumps(told.to_dict()))


def test_the_memory_of_500_jobs_with_long_histories_stays_small_and_exact() -> None:
    told = Told()
    jobs = [str(uuid.UUID(int=number)) for number in range(1, 501)]
    history = [ended(number, 600.123457 * number) for number in range(300)]
    for job_id in jobs:
        told, _ = look(told, history, job_id)
        assert size(told) < 48 * 1024
    news = ended(300, 600.123457 * 300)
    for job_id in jobs:
        told, found = look(told, [*history, news], job_id)
        assert found == [news]
        assert size(told) < 48 * 1024
    assert all(look(told, [*history, news], job_id)[1] == [] for job_id in jobs)


def test_the_bound_costs_what_is_late_but_no_history_becomes_news() -> None:
    crowd = [ended(number, number) for number in range(3 * MAX_KNOWN)]
    told, _ = look(Told(), crowd)
    late = ended(9999, len(crowd) - 1.5 - MAX_KNOWN)
    latest = ended(9998, len(crowd) - 0.5)
    told, news = look(told, [*crowd, late, latest])
    assert news == [latest]


def test_r17_more_without_a_time_than_can_be_remembered_are_not_told_and_that_can_be_said() -> None:
    few = [ended(number, None) for number in range(MAX_KNOWN)]
    told, _ = look(Told(), few)
    assert not told.hides(JOB, ends_of(few, NOW))
    many = [*few, ended(MAX_KNOWN, None), ended(MAX_KNOWN + 1, 0)]
    told, news = look(told, many)
    assert news == many[MAX_KNOWN:], "it is told when it comes"
    assert look(told, [*many, ended(9999, None), ended(9998, 1)])[1] == [ended(9998, 1)]
    assert told.hides(JOB, ends_of(many, NOW))


# --- what 0.1.0 has stored ---


def test_r39_one_memory_for_all_jobs_becomes_one_for_each() -> None:
    hand = ended(0, 50, by_hand=True)
    old = {
        "since": after(10).isoformat(),
        "ends": {
            str(ended(1, 0).trigger_id): after(40).isoformat(),
            f"{JOB} {hand.start} {hand.end}": after(50).isoformat(),
        },
    }
    log = [ended(7, 9), ended(1, 40), hand, ended(2, 10), ended(3, 45), ended(4, None)]
    told = Told.from_dict(old)
    assert told.knows(JOB)
    told, news = look(told, log)
    assert news == [ended(2, 10), ended(3, 45)]
    assert look(told, log)[1] == []
    assert look(told, [*log, ended(5, None)])[1] == [ended(5, None)]
    other = str(uuid.UUID(int=5))
    assert look(told, [ended(8, 9), ended(9, 10)], other)[1] == [ended(9, 10)]


def test_r39_a_large_memory_of_0_1_0_shrinks_and_tells_nothing_anew() -> None:
    log = [ended(number, 7 * number) for number in range(3000)]
    ends = {str(execution.trigger_id): str(execution.end) for execution in log}
    told, news = look(Told.from_dict({"since": str(START), "ends": ends}), log)
    assert news == []
    assert size(told) < 48 * 1024
    assert look(told, [*log, ended(3000, 7 * 3000)])[1] == [ended(3000, 7 * 3000)]
