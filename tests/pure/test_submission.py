"""What a record of a submission tells when its receipt is missing: pure functions of what was seen."""

from __future__ import annotations

import itertools
import json
import uuid
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_timextender.errors import ContractError, InvalidInput
from airflow_provider_timextender.model import BLANK_GUID, Execution, ExecutionState, JobState, JobStatus
from airflow_provider_timextender.submission import (
    MOVES,
    Adopted,
    NotQueued,
    Outcome,
    Record,
    Search,
    Stage,
    Tries,
    Unclear,
    check_move,
    last_started,
)

JOB = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
T0 = datetime(2026, 1, 1, tzinfo=timezone.utc)
START_TIMEOUT = 600.0

TRIES = Tries(number=1, most=2, retries=2, clears=1)

guids = st.uuids().map(str)


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def status(state: JobState | None) -> JobStatus:
    return JobStatus(JOB, state)


def execution(trigger_id: str | None, start: float | None = 10, **given: Any) -> Execution:
    begun = None if start is None else after(start)
    return Execution(JOB, trigger_id, given.pop("state", ExecutionState.RUNNING), start=begun, **given)


def record(*known: Execution, state: JobState | None = JobState.IDLE) -> Record:
    return Record.of(JOB, list(known), TRIES, T0, busy=state is not JobState.IDLE, given="load")


def found(kept: Record, *looks: tuple[float, JobState, list[Execution]]) -> Outcome | None:
    """Return what the last of some looks comes to; those before it must have come to nothing."""
    search, outcome = Search.of(kept, START_TIMEOUT, T0), None
    for seconds, state, executions in looks:
        assert outcome is None
        search, outcome = search.after(status(state), executions, after(seconds))
    return outcome


OURS, THEIRS = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


@given(
    st.builds(
        Record,
        job_id=guids,
        asked_at=st.datetimes(timezones=st.just(timezone.utc)),
        known=st.none() | st.lists(guids).map(tuple),
        stage=st.sampled_from(get_args(Stage)),
        trigger_id=guids,
    )
)
def test_a_record_comes_back_from_json_as_it_was(kept: Record) -> None:
    assert Record.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept


def test_r39_a_record_is_stored_in_these_words() -> None:
    # Tasks that wait while this package is upgraded have stored it in them.
    kept = record(execution(THEIRS), execution(None), execution(BLANK_GUID))
    assert kept.to_dict() == {
        "job_id": JOB,
        "asked_at": "2026-01-01T00:00:00+00:00",
        "hidden": False,
        "known": [THEIRS],
        "unnamed": 1,
        "given": "load",
        "number": 1,
        "most": 2,
        "clears": 1,
        "stage": "asked",
        "trigger_id": None,
        "since": "2025-12-31T00:00:10+00:00",
        "former": [],
        "keeper": 1,
        "job_name": None,
    }


def test_r39_a_record_that_0_1_0_stored_goes_on() -> None:
    stored = {
        "job_id": JOB,
        "asked_at": "2026-01-01T00:00:00+00:00",
        "hidden": False,
        "known": [THEIRS],
        "unnamed": 0,
        "given": "load",
        "number": 1,
        "most": 2,
        "clears": 1,
        "stage": "asked",
        "trigger_id": None,
    }
    kept = Record.from_dict(stored)
    shown = [execution(THEIRS.upper()), execution(f"{{{OURS}}}")]
    assert found(kept, (0, JobState.IDLE, shown), (31, JobState.IDLE, shown)) == Adopted(f"{{{OURS}}}")


@pytest.mark.parametrize(
    ("tries", "cleared"),
    [
        (Tries(2, 2, 2, 1), False),  # a retry
        (Tries(2, 3, 2, 2), True),
        (Tries(2, 2, 2, 5), False),  # other tasks were cleared
        (Tries(2, 2, 1, 2), True),  # it has fewer retries since
        (Tries(3, 2, 1, 2), True),  # and the first try since the clear died before it kept anything
        (Tries(2, 2, 1, 1), False),
    ],
)
def test_r06_a_clear_is_told_from_a_retry(tries: Tries, cleared: bool) -> None:
    assert record().was_cleared(tries) is cleared


@pytest.mark.parametrize(
    "stored",
    [
        None,
        1,
        "x",
        [],
        {},
        {"job_id": JOB},
        {**record().to_dict(), "asked_at": "yesterday"},
        {**record().to_dict(), "stage": "lost"},
        {**record().to_dict(), "stage": "done"},
    ],
)
def test_what_is_no_record_is_not_taken_for_one(stored: Any) -> None:
    with pytest.raises(InvalidInput, match="no record of a submission"):
        Record.from_dict(stored)


def test_what_started_days_before_needs_not_be_remembered() -> None:
    for late in (0, -2 * 24 * 3600):  # by the server's clock, which may be days behind
        yesterday, long_ago = execution(OURS, start=late), execution(THEIRS, start=late - 2 * 24 * 3600)
        kept = record(long_ago, yesterday)
        assert kept.known == (OURS,)
        third = execution(str(uuid.UUID(int=3)), start=late + 10)
        seen = [long_ago, yesterday, third]
        assert found(kept, (0, JobState.IDLE, seen), (31, JobState.IDLE, seen)) == Adopted(
            str(third.trigger_id)
        )
        assert found(kept, (0, JobState.IDLE, [long_ago])) is None
    assert record(execution(THEIRS, start=None)).known == (THEIRS,), "it may have started at any time"


def test_r05_what_had_no_id_yet_when_the_request_was_sent_is_not_taken_for_new() -> None:
    before, named = execution(None, start=-5), execution(THEIRS, start=-5)
    for state in (JobState.IDLE, JobState.RUNNING):
        kept = record(before, state=state)
        assert kept.hidden is (state is JobState.RUNNING), "what runs cannot be told from ours without an id"
        looks = [(0.0, JobState.IDLE, [named]), (31.0, JobState.IDLE, [named])]
        assert found(kept, looks[0]) == Unclear((THEIRS,))


def test_r05_what_has_been_running_for_weeks_hides_nothing() -> None:
    stuck = execution(THEIRS, start=-30 * 24 * 3600, state=ExecutionState.RUNNING)
    recent = execution(OURS, start=-5, state=ExecutionState.SUCCEEDED, end=after(-1))
    assert record(stuck, recent, state=JobState.PENDING).hidden


def test_r05_many_starts_of_the_same_moment_are_not_told_apart() -> None:
    many = [execution(str(uuid.UUID(int=n)), start=0) for n in range(3, 3000)]
    assert record(*many).known is None


def test_a_log_that_was_not_read_is_not_an_empty_one() -> None:
    assert Record.of(JOB, None, TRIES, T0, busy=False, given="load").known is None


def test_r05_a_record_stays_small_however_many_executions_a_day_has() -> None:
    many = [execution(str(uuid.UUID(int=n)), start=-n) for n in range(3, 20_000)]
    kept = record(*many)
    assert len(json.dumps(kept.to_dict()).encode()) < 60_000
    assert kept.known is not None
    shown = [*many, execution(OURS)]
    assert found(kept, (0, JobState.IDLE, shown), (31, JobState.IDLE, shown)) == Adopted(OURS)
    assert found(kept, (0, JobState.IDLE, many), (700, JobState.IDLE, many)) == NotQueued()
    stored = Record.from_dict(json.loads(json.dumps(kept.to_dict())))
    assert stored == kept

    timeless = [execution(str(uuid.UUID(int=n)), start=None) for n in range(3, 20_000)]
    assert record(*timeless).known is None, "it cannot be told which of them are old"
    assert len(json.dumps(record(*timeless).to_dict()).encode()) < 60_000


def test_r05_one_that_has_begun_since_is_adopted_when_the_job_is_idle() -> None:
    ours = [execution(THEIRS), execution(BLANK_GUID), execution(OURS)]
    busy = [(0.0, JobState.PENDING, ours[:2]), *((30.0 * n, JobState.RUNNING, ours) for n in range(1, 9))]
    assert found(record(*ours[:2]), *busy) is None, "ours may wait behind it"
    idle = [(300.0, JobState.IDLE, ours), (320.0, JobState.IDLE, ours)]
    assert found(record(*ours[:2]), *busy, *idle) is None, "the log may be late"
    assert found(record(*ours[:2]), *busy, *idle, (330.0, JobState.IDLE, ours)) == Adopted(OURS)
    theirs_as_well = [*ours, execution(str(uuid.UUID(int=3)))]
    assert isinstance(found(record(*ours[:2]), *busy, *idle, (330.0, JobState.IDLE, theirs_as_well)), Unclear)


def test_r05_a_clock_that_is_wrong_by_hours_changes_nothing() -> None:
    for start in (-14 * 3600, 14 * 3600, None):
        ours = [execution(OURS, start=start)]
        assert found(record(), (0, JobState.IDLE, ours), (30, JobState.IDLE, ours)) == Adopted(OURS)


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING, None])
def test_r02_what_was_hidden_before_is_not_taken_for_ours(state: Any) -> None:
    ended = execution(BLANK_GUID, state=ExecutionState.SUCCEEDED, end=after(5))
    kept = record(ended, state=state)
    assert kept.hidden
    new = [ended, execution(OURS)]
    assert found(kept, (0, JobState.RUNNING, new)) == Unclear((OURS,))
    looks: Any = [(float(n), JobState.IDLE, [ended]) for n in range(0, 601, 100)]
    assert found(kept, *looks) == NotQueued(), "it was started by hand"
    assert not record(execution(BLANK_GUID), state=JobState.RUNNING).hidden, "here it is"


def test_r05_nothing_was_queued_if_the_job_stays_idle_for_the_whole_start_timeout() -> None:
    looks: list[tuple[float, JobState, list[Execution]]] = [
        (float(n), JobState.IDLE, []) for n in range(0, 600, 30)
    ]
    assert found(record(), *looks) is None
    assert found(record(), *looks, (600, JobState.IDLE, [])) == NotQueued()


def test_r05_it_counts_from_when_the_job_was_last_busy() -> None:
    other = execution(THEIRS)
    kept = record(other, state=JobState.RUNNING)
    looks = [(float(n), JobState.RUNNING, [other]) for n in range(0, 3600, 300)]
    looks += [(float(n), JobState.IDLE, [other]) for n in range(3600, 3900, 30)]
    assert found(kept, *looks) is None
    assert found(kept, *looks, (4200, JobState.IDLE, [other])) == NotQueued()


def test_r05_nobody_has_looked_for_hours_so_the_log_gets_a_moment() -> None:
    assert found(record(), (7200, JobState.IDLE, [])) is None
    assert found(record(), (7200, JobState.IDLE, []), (7231, JobState.IDLE, [])) == NotQueued()


def test_r05_a_log_that_tells_no_trigger_ids_is_no_empty_one() -> None:
    unnamed = execution(None)
    looks = [(0.0, JobState.IDLE, [unnamed]), (700.0, JobState.IDLE, [unnamed])]
    with pytest.raises(ContractError, match=r"vocabulary\.fields\.execution\.trigger_id"):
        found(record(), *looks)
    assert found(record(unnamed), *looks) == NotQueued(), "it was there before"


@given(
    known=st.lists(guids, max_size=4, unique=True),
    new=st.lists(guids, max_size=3, unique=True),
    before=st.sampled_from([*JobState, None]),
    states=st.lists(st.sampled_from([*JobState, None]), min_size=1, max_size=8),
    pause=st.floats(1, 2000),
)
def test_r05_whatever_is_seen_only_one_that_is_new_and_alone_is_adopted(
    known: list[str], new: list[str], before: JobState | None, states: list[JobState | None], pause: float
) -> None:
    old = [execution(id_, start=-5) for id_ in known]
    kept = record(*old, state=before)
    search = Search.of(kept, START_TIMEOUT, T0)
    fresh = tuple(id_ for id_ in new if id_ not in known)
    shown = [*old, *(execution(id_) for id_ in fresh), execution(BLANK_GUID)]
    for number, state in enumerate(states):
        search, outcome = search.after(status(state), shown, after(number * pause))
        if outcome is None:
            continue
        if isinstance(outcome, NotQueued):
            assert not fresh
            assert state is JobState.IDLE
            assert number * pause >= START_TIMEOUT
        elif isinstance(outcome, Adopted):
            assert (outcome.trigger_id,) == fresh
            assert state is JobState.IDLE
            assert not kept.hidden
        else:
            assert outcome.trigger_ids == fresh
        break


def test_which_execution_started_last() -> None:
    one, two = execution(OURS, start=5), execution(THEIRS, start=9)
    failed = execution(OURS, start=None, state=ExecutionState.FAILED)
    others = [execution(BLANK_GUID, start=99), execution(BLANK_GUID, start=None), failed]
    assert last_started([two, one, *others], None) is two
    assert last_started([one, two], after(9)) is two
    assert last_started([one, two], after(10)) is None
    assert last_started(others, None) is None
    nameless, timeless = execution(None, start=99), execution(OURS, start=None)
    assert last_started([one, nameless], None) is nameless
    assert last_started([timeless, one], None) is timeless, "it may be ours"


def test_any_move_that_is_not_in_the_table_is_refused() -> None:
    stages = (None, *get_args(Stage))
    allowed = {(move.before, move.after) for move in MOVES}
    for move in itertools.product(stages, stages):
        with nullcontext() if move in allowed else pytest.raises(RuntimeError, match="cannot go from"):
            check_move(*move)
    assert ("asked", "asked") not in allowed
