"""An export writes what is wanted of several jobs, whatever becomes of some of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_timextender.errors import (
    ContractError,
    InvalidInput,
    LogsIncomplete,
    Refused,
    TimeXtenderError,
    Unreachable,
)
from airflow_provider_timextender.exporting import MAX_SILENT, Export, Output, Wanted
from airflow_provider_timextender.logs import LogFilter
from airflow_provider_timextender.model import BLANK_GUID, Execution, ExecutionState, Job, Log, pick
from airflow_provider_timextender.naming import Of
from airflow_provider_timextender.tables import Column, Row

LOGGER = logging.getLogger("tests.task")
START = datetime(2026, 11, 2, 5, tzinfo=timezone.utc)
JOBS = [Job(f"aaaaaaaa-0000-0000-0000-00000000000{number}", f"Job {number}") for number in range(5)]
ALL = [Of(job.id, job.name) for job in JOBS]


class Memory(Output):
    """Keeps rows, and tells how it ended."""

    where = "memory"

    def __init__(self) -> None:
        self.columns: list[str] = []
        self.lines: list[Row] = []
        self.executions: list[Row] = []
        self.end = ""

    def begin(self, columns: Sequence[Column]) -> None:
        self.columns = [column.name for column in columns]

    def write_lines(self, rows: Iterable[Row]) -> None:
        self.lines += rows

    def write_execution(self, row: Row) -> None:
        self.executions.append(row)

    def complete(self) -> dict[str, Any]:
        assert not self.end
        self.end = "complete"
        return {"place": "memory"}

    def discard(self) -> None:
        assert not self.end
        self.end = "discarded"


def hours(number: float) -> datetime:
    return START + timedelta(hours=number)


def execution(job: Job, at: float = 0, *, logs: Sequence[Log] | None = None, **other: Any) -> Execution:
    """Return one of an hour, with a line at its start, its middle and its end."""
    if logs is None:
        severities = ("info", "warning", "error")
        logs = [Log(hours(at + i / 2), word, f"{word} at {i}", None) for i, word in enumerate(severities)]
    told = {"log.time": "time", "log.severity": "severity", "log.message": "message"}
    known: dict[str, Any] = {
        "state": ExecutionState.FAILED,
        "start": hours(at),
        "end": hours(at + 1),
        "logs": tuple(replace(log, line=line) for line, log in enumerate(logs, 1)),
        "log_counts": Counter(log.severity for log in logs),
        "log_known": {name for name, member in told.items() if any(getattr(log, member) for log in logs)},
        **other,
    }
    return Execution(job.id, f"bbbbbbbb-0000-0000-0000-{int(at):012d}", **known)


def find(of: Of) -> Job:
    return pick(JOBS, of)


def run(
    read: Any = lambda job: [execution(job)],
    *,
    asked: Sequence[Of] = ALL[:1],
    states: Iterable[ExecutionState] = (),
    **entries: Any,
) -> tuple[dict[str, Any], Memory]:
    output = Memory()
    wanted = Wanted(LogFilter(**entries), frozenset(states))

    def filtered(job: Job) -> Iterator[Execution]:
        for one in read(job):
            yield replace(one, logs=tuple(filter(wanted.entries.wants, one.logs)))

    told = Export(find, filtered, wanted, output, LOGGER).write(asked)
    assert output.end == "complete"
    assert told is not None
    return told, output


def test_all_of_several_jobs_is_written_and_counted() -> None:
    told, output = run(lambda job: [execution(job), execution(job, 5)], asked=ALL[:2])
    assert told == {
        "place": "memory",
        "jobs": 2,
        "executions": 4,
        "rows": 12,
        "first_time": hours(0).isoformat(),
        "last_time": hours(6).isoformat(),
    }
    assert [row["line"] for row in output.lines] == [1, 2, 3] * 4
    assert {(row["job_id"], row["job_name"]) for row in output.lines} == {(j.id, j.name) for j in JOBS[:2]}
    assert [(row["errors"], row["warnings"]) for row in output.executions] == [(1, 1)] * 4


def test_a_job_that_is_told_twice_is_written_once() -> None:
    told, _ = run(asked=[ALL[0], Of(job_id=JOBS[0].id.upper()), Of(job_name="Job 0")])
    assert (told["jobs"], told["rows"]) == (1, 3)


def test_lines_keep_their_place_and_executions_their_counts_whatever_is_wanted() -> None:
    told, output = run(min_severity="error")
    assert [(row["line"], row["severity"]) for row in output.lines] == [(3, "error")]
    assert [(row["errors"], row["warnings"]) for row in output.executions] == [(1, 1)]
    told, output = run(message_pattern="no such text")
    assert (told["rows"], told["executions"], told["first_time"]) == (0, 1, None)


@pytest.mark.parametrize(
    ("since", "until", "places"),
    [
        (None, None, [1, 2, 3] * 3),
        (0.5, 0.5, [2]),
        (1, 2, [3, 1]),
        (1.2, 1.8, []),
        (2.1, 2.2, []),
        (8, None, [3]),
        (None, 0, [1]),
    ],
)
def test_a_window_chooses_lines_and_the_executions_that_ran_in_it(
    since: float | None, until: float | None, places: list[int]
) -> None:
    def read(job: Job) -> list[Execution]:
        return [execution(job), execution(job, 2), execution(job, 7)]

    moments = {"since": since, "until": until}
    window: dict[str, Any] = {name: hours(at) for name, at in moments.items() if at is not None}
    _, output = run(read, **window)
    assert [row["line"] for row in output.lines] == places
    first, last = window.get("since", hours(-9)), window.get("until", hours(99))
    ran = [e["start"] for e in output.executions]
    assert ran == [hours(at) for at in (0, 2, 7) if hours(at) <= last and hours(at + 1) >= first]


def test_a_line_that_is_late_brings_its_execution_along() -> None:
    late = Log(hours(3), "info", "written later", None)
    untold = Log(None, "info", "at no time", None)
    _, output = run(lambda job: [execution(job, logs=[untold, late])], since=hours(2))
    assert [row["message"] for row in output.lines] == ["written later"]
    assert len(output.executions) == 1


def test_an_execution_without_times_is_in_a_window_by_its_log() -> None:
    line = Log(hours(3), "info", "text", None)

    def read(job: Job) -> list[Execution]:
        return [
            execution(job, 1, logs=[line], start=None, end=None),
            execution(job, 2, logs=[replace(line, time=hours(9))], start=None, end=None),
            execution(job, 3, logs=[], start=None, end=None, state=ExecutionState.RUNNING),
        ]

    _, output = run(read, since=hours(2), until=hours(4))
    assert [row["trigger_id"][-1] for row in output.executions] == ["1", "3"]


@pytest.mark.parametrize(
    ("states", "count"), [((), 3), ((ExecutionState.FAILED,), 1), (tuple(ExecutionState), 3)]
)
def test_executions_are_chosen_by_state(states: tuple[ExecutionState, ...], count: int) -> None:
    def read(job: Job) -> list[Execution]:
        return [execution(job, number, state=state) for number, state in enumerate(ExecutionState)]

    told, _ = run(read, states=states)
    assert (told["executions"], told["rows"]) == (count, 3 * count)


UNTOLD = Log(None, None, "", None)
PROBLEMS = {name: f"see vocabulary {name}" for name in ("log.time", "log.severity", "log.message")}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"since": START}, "since cannot .*vocabulary log.time"),
        ({"since": START, "until": hours(1)}, "since and until cannot .*vocabulary log.time"),
        ({"min_severity": "debug"}, "min_severity cannot .*vocabulary log.severity"),
        ({"message_pattern": "."}, "message_pattern cannot .*vocabulary log.message"),
        ({"states": [ExecutionState.FAILED]}, "state: see vocabulary"),
    ],
)
def test_r48_a_filter_on_what_no_entry_tells_is_an_error_that_names_the_override(
    arguments: dict[str, Any], says: str
) -> None:
    problems: dict[str, Any] = {"log_problems": PROBLEMS, "problem": "see vocabulary"}
    blind = execution(JOBS[0], logs=[UNTOLD], state=None, **problems)
    with pytest.raises(ContractError, match=says):
        run(lambda job: [blind], **arguments)
    run(lambda job: [blind])
    seen = execution(JOBS[0], logs=[UNTOLD, *execution(JOBS[0]).logs], **problems)
    told, _ = run(lambda job: [seen], **arguments)
    assert told["rows"]


def test_r48_a_window_is_not_chosen_by_times_that_are_not_understood() -> None:
    blind = execution(JOBS[0], logs=[], start=None, end=None, start_problem="see vocabulary")
    with pytest.raises(ContractError, match=r"since cannot tell .* see vocabulary"):
        run(lambda job: [blind], since=START)


def test_counts_are_not_known_where_no_severity_is_understood() -> None:
    _, output = run(lambda job: [execution(job, logs=[UNTOLD]), execution(job, 1, logs=[])])
    assert [(row["errors"], row["warnings"]) for row in output.executions] == [(None, None), (0, 0)]


def test_groups_of_the_pattern_are_columns() -> None:
    _, output = run(message_pattern=r"(?P<word>warning|error) at (?P<place>\d)")
    assert output.columns[-2:] == ["word", "place"]
    assert [(row["word"], row["place"]) for row in output.lines] == [("warning", "1"), ("error", "2")]
    with pytest.raises(InvalidInput, match="'line'"):
        run(message_pattern="(?P<line>x)")


def test_r48_two_executions_under_one_trigger_id_are_not_written_over_each_other() -> None:
    one = Execution(JOBS[0].id, JOBS[1].id, ExecutionState.SUCCEEDED, start=START)
    with pytest.raises(ContractError, match="several executions stand under one trigger id"):
        list(Wanted(LogFilter()).of([one, replace(one, trigger_id=JOBS[1].id.upper())]))
    by_hand = replace(one, trigger_id=BLANK_GUID)
    assert len(list(Wanted(LogFilter()).of([by_hand, by_hand]))) == 2


def test_executions_by_hand_have_a_key_and_no_trigger_id() -> None:
    by_hand = replace(execution(JOBS[0]), trigger_id=BLANK_GUID)
    _, output = run(lambda job: [by_hand])
    assert {row["execution_key"] for row in (*output.lines, *output.executions)} == {by_hand.key}
    assert output.executions[0]["started_by"] == "hand"


# --- what goes wrong ---


def failing(*names: str, error: TimeXtenderError) -> Any:
    def read(job: Job) -> Iterator[Execution]:
        yield execution(job)
        if job.name in names:
            raise type(error)(str(error))

    return read


def test_a_job_that_cannot_be_read_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    output = Memory()
    asked = [*ALL[:3], Of(job_name="Nobody")]
    read = failing("Job 1", error=Refused("HTTP 403."))
    with pytest.raises(LogsIncomplete) as raised:
        Export(find, read, Wanted(LogFilter()), output, LOGGER).write(asked)
    assert output.end == "complete"
    assert {row["job_name"] for row in output.executions} == {"Job 0", "Job 1", "Job 2"}
    said = str(raised.value)
    assert "2 of 4 jobs could not be read; the others are in memory" in said
    assert f"TimeXtender job 'Job 1': HTTP 403. (job id {JOBS[1].id})" in said
    assert "'Nobody'" in said
    assert not raised.value.retry_helps
    assert [type(failure) for failure in raised.value.failures] == [Refused, InvalidInput]
    assert caplog.text.count("Left out") == 2


@pytest.mark.parametrize(
    ("asked", "error", "raises", "says"),
    [
        (ALL[:1], Refused("no"), Refused, r"'Job 0': no \(job id"),
        (ALL[:2], Refused("no"), LogsIncomplete, r"(?s)nothing is written:\n.*'Job 0'.*'Job 1'"),
        (ALL, Unreachable("gone"), Unreachable, f"'Job {MAX_SILENT - 1}': gone"),
    ],
)
def test_nothing_is_seen_if_nothing_could_be_read(
    asked: list[Of], error: TimeXtenderError, raises: type[TimeXtenderError], says: str
) -> None:
    output = Memory()
    read = failing(*(job.name or "" for job in JOBS), error=error)
    with pytest.raises(raises, match=says):
        Export(find, read, Wanted(LogFilter()), output, LOGGER).write(asked)
    assert output.end == "discarded"


def test_an_api_that_answers_now_and_then_is_asked_for_all() -> None:
    read = failing("Job 0", "Job 1", "Job 3", "Job 4", error=Unreachable("gone"))
    with pytest.raises(LogsIncomplete, match="4 of 5") as raised:
        run(read, asked=ALL)
    assert raised.value.retry_helps


def test_an_output_that_fails_is_discarded() -> None:
    class Full(Memory):
        def write_execution(self, row: Row) -> None:
            raise OSError("no space left")

    output = Full()
    with pytest.raises(OSError, match="no space"):
        Export(find, lambda job: [execution(job)], Wanted(LogFilter()), output, LOGGER).write(ALL)
    assert output.end == "discarded"
