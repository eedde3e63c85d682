"""Outputs hold together all that the API shows, and each row once, whatever is retried and cleared."""

from __future__ import annotations

import itertools
import json
import logging
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from airflow_provider_timextender import increments
from airflow_provider_timextender.errors import InvalidInput, LogsIncomplete, OutputRefused, ServerError
from airflow_provider_timextender.exporting import Export, Wanted
from airflow_provider_timextender.increments import (
    LASTING,
    MOST,
    Extent,
    Increment,
    Known,
    Ledger,
    Reading,
    Seen,
)
from airflow_provider_timextender.logs import LogFilter
from airflow_provider_timextender.model import BLANK_GUID, Execution, ExecutionState, Job, Log
from airflow_provider_timextender.naming import Of
from airflow_provider_timextender.tables import Column

from ..months import DAY, HOUR, Course, Death, Month, Row, TimeXtender, at


@dataclass
class Airflow:
    """Runs of a task, what is remembered of them, and the outputs that can be seen.

    :ivar owns: whether a run has a memory of its own, as from Airflow 3.3 on.
    :ivar path: that of each output; empty if each run has one of its own.
    :ivar beside: what another process does at a touch of the world.
    :ivar dies_at: the touch of the world at which the process dies.
    :ivar most: how many characters of JSON are never remembered of a job.
    """

    timextender: TimeXtender
    owns: bool
    keyed: bool = False
    most: int = 48 * 1024
    newest: dict[str, str] = field(default_factory=dict)
    own: dict[tuple[str, str], str] = field(default_factory=dict)
    outputs: dict[str, Counter[Row]] = field(default_factory=dict)
    path: str = ""
    beside: dict[int, Callable[[], Any]] = field(default_factory=dict)
    dies_at: int = 0
    touches: int = 0

    def touch(self) -> None:
        self.touches += 1
        self.beside.pop(self.touches, bool)()
        if self.touches == self.dies_at:
            raise Death

    def shown(self, run: str) -> Counter[Row]:
        paths = (f"out/{run}.executions", f"out/{run}")
        return sum((self.outputs.get(path, Counter()) for path in paths), Counter())

    def union(self) -> Counter[Row]:
        rows: Counter[Row] = sum(self.outputs.values(), Counter())
        return Counter(set(rows)) if self.keyed else rows

    def seen(self, path: str) -> Seen:
        if self.keyed or f"{path}.executions" not in self.outputs:
            return "nothing"
        return "all" if path in self.outputs else "a part"

    def show(self, path: str, rows: Counter[Row]) -> None:
        """Let an output be seen: files replace what is there, first that of executions; a table adds."""
        if self.keyed:
            self.outputs[path] = self.outputs.get(path, Counter()) | rows
        else:
            executions = Counter({row: count for row, count in rows.items() if len(row) == 1})
            self.outputs[f"{path}.executions"] = executions
            self.touch()
            self.outputs[path] = rows - executions
        self.touch()

    def attempt(self, run: str, now: float, *, dies_at: int = 0, unreadable: str = "") -> str:
        self.dies_at, self.touches = dies_at, 0
        output = Rows(self, self.path or f"out/{run}")
        ledger = Ledger(Remembered(self, run), run, output.where, self.seen)
        asked = [Of(job_id) for job_id in self.timextender.jobs]

        def read(job: Job) -> Iterator[Execution]:
            executions = self.timextender.log(job.id, now)
            yield from executions[: len(executions) // 2] if job.id == unreadable else executions
            if job.id == unreadable:
                raise ServerError("The server answered 500.")

        def find(of: Of) -> Job:
            return Job(str(of.job_id), None)

        try:
            export = Export(find, read, Wanted(LogFilter()), output, logging.getLogger("task"), ledger)
            told = export.write(asked)
        except LogsIncomplete:
            return "failed"
        return "success" if told else "skipped"


@dataclass
class Rows:
    """An output of rows."""

    airflow: Airflow
    where: str
    rows: Counter[Row] = field(default_factory=Counter)

    def seen(self, where: str) -> Seen:
        return self.airflow.seen(where)

    def begin(self, columns: Sequence[Column]) -> None:
        pass

    def write_lines(self, rows: Iterable[dict[str, Any]]) -> None:
        self.rows.update((row["execution_key"], row["line"], row["message"]) for row in rows)

    def write_execution(self, row: dict[str, Any]) -> None:
        self.rows.update([(row["execution_key"],)])

    def complete(self) -> dict[str, Any]:
        self.airflow.touch()
        self.airflow.show(self.where, self.rows)
        return {"where": self.where}

    def discard(self) -> None:
        pass


@dataclass
class Remembered:
    airflow: Airflow
    run: str

    @property
    def owns(self) -> bool:
        return self.airflow.owns

    def place(self, job_id: str) -> str:
        return job_id

    def newest(self, job_id: str) -> Any:
        self.airflow.touch()
        return json.loads(self.airflow.newest.get(job_id, "null"))

    def own(self, job_id: str) -> Any:
        self.airflow.touch()
        return json.loads(self.airflow.own.get((self.run, job_id), "null"))

    def forget_own(self, job_id: str) -> None:
        self.airflow.touch()
        del self.airflow.own[self.run, job_id]

    def keep(self, job_id: str, newest: Any, own: Any) -> None:
        self.airflow.touch()
        self.airflow.newest[job_id] = json.dumps(newest)
        self.airflow.touch()
        if self.airflow.owns:
            self.airflow.own[self.run, job_id] = json.dumps(own)
        assert len(json.dumps(newest)) < self.airflow.most


def written(reading: Reading, execution: Execution) -> int:
    """Return how many rows are written of an execution."""
    part = reading.part(execution)
    return 0 if part is None else sum(map(part.takes, execution.logs)) + part.row


@pytest.fixture
def _few_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let less be remembered than runs in a month; the latest lines and executions come within a hundred."""
    monkeypatch.setattr(increments, "MOST", 150)
    monkeypatch.setattr(increments, "LASTING", 100)  # of a log that breaks off, that is too few now and then


@pytest.mark.usefixtures("_few_known")
@pytest.mark.parametrize("seed", range(8))
def test_r44_outputs_of_thirty_days_hold_the_whole_truth_and_no_row_twice(seed: int) -> None:
    chance = random.Random(seed)
    task = Airflow(TimeXtender.of(chance, days=30), owns=chance.random() < 0.6, keyed=seed % 4 == 3)
    month = Month(task, chance, days=30)
    month.live()
    assert month.happened.keys() > {"retry: success", "clear: success", "try: failed", "retry: dead"}


JOB, OTHER = str(uuid.UUID(int=7)), str(uuid.UUID(int=8))


def course(number: int, *, start: float = 0.0, lines: int = 3) -> Course:
    shown = tuple((start, start) for _ in range(lines))
    return Course(str(uuid.UUID(int=number)), start, start + 60, start, shown)


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("owns", [True, False])
@pytest.mark.parametrize("retried", [True, False])
def test_r44_a_run_that_died_at_any_moment_is_made_up_for(retried: bool, owns: bool, keyed: bool) -> None:
    for dies_at in itertools.count(1):
        one, other = [course(1)], [course(2)]
        task = Airflow(TimeXtender({JOB: one, OTHER: other}), owns=owns, keyed=keyed)
        task.attempt("a", HOUR)
        one.append(course(3, start=HOUR))
        other.append(course(4, start=HOUR))
        with suppress(Death):
            task.attempt("b", 2 * HOUR, dies_at=dies_at)
            assert dies_at > 15
            return
        if retried:
            task.attempt("b", 3 * HOUR)
        one.append(course(5, start=3 * HOUR))
        try:
            task.attempt("c", 5 * HOUR)
        except OutputRefused:  # the table of executions can be seen, and that of lines cannot
            assert ("out/b.executions" in task.outputs) > ("out/b" in task.outputs)
            task.attempt("b", 6 * HOUR)
            task.attempt("c", 6 * HOUR)
        if owns and not keyed and task.shown("b"):
            assert task.attempt("b", 6 * HOUR) == "success"
        assert task.union() == task.timextender.truth(6 * HOUR), dies_at


@pytest.mark.parametrize("unreadable", [JOB, OTHER])
def test_r44_a_retry_makes_up_for_a_job_that_was_read_in_part(unreadable: str) -> None:
    for dies_at in itertools.count():
        jobs = {JOB: [course(n) for n in (1, 2, 3)], OTHER: [course(n) for n in (4, 5, 6)]}
        task = Airflow(TimeXtender(jobs), owns=True)
        assert task.attempt("a", HOUR, unreadable=unreadable) == "failed"
        assert task.union() < task.timextender.truth(HOUR)
        with suppress(Death):
            assert task.attempt("a", HOUR, dies_at=dies_at) == "success"
            assert task.union() == task.timextender.truth(HOUR)
            assert dies_at == 0 or dies_at > 12
        if dies_at > 12:
            return
        jobs[JOB].append(course(7, start=HOUR))
        try:
            task.attempt("b", 3 * HOUR)
        except OutputRefused:  # its output was there before the retry, and may be of either
            task.attempt("a", 3 * HOUR)
            task.attempt("b", 3 * HOUR)
        assert task.union() == task.timextender.truth(3 * HOUR), dies_at


def test_r44_a_retry_that_dies_as_well_is_made_up_for_by_the_next() -> None:
    for dies_at in range(1, 20):
        one, other = [course(1)], [course(2)]
        task = Airflow(TimeXtender({JOB: one, OTHER: other}), owns=True)
        task.attempt("a", HOUR)
        one.append(course(3))
        with pytest.raises(Death):
            task.attempt("b", HOUR, dies_at=10)
        assert task.shown("b")
        other.append(course(4))
        with suppress(Death):
            task.attempt("b", HOUR, dies_at=dies_at)
        task.attempt("b", HOUR)
        other.append(course(5))
        task.attempt("c", HOUR)
        assert task.union() == task.timextender.truth(HOUR), dies_at


def test_what_was_not_read_is_no_history_whatever_came_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(increments, "MOST", 2)
    newest_first = [course(n, start=60.0 * n) for n in range(9, 0, -1)]
    task = Airflow(TimeXtender({JOB: newest_first, OTHER: []}), owns=True)
    assert task.attempt("a", HOUR, unreadable=JOB) == "failed"
    assert task.attempt("b", HOUR) == "success"
    assert task.union() == task.timextender.truth(HOUR)


def test_r44_what_was_not_read_is_no_history_if_the_next_output_was_never_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(increments, "MOST", 2)
    newest_first = [course(n, start=60.0 * n) for n in range(9, 0, -1)]
    for dies_at in range(1, 20):
        task = Airflow(TimeXtender({JOB: newest_first, OTHER: []}), owns=True)
        assert task.attempt("a", HOUR, unreadable=JOB) == "failed"
        with suppress(Death):
            task.attempt("b", HOUR, dies_at=dies_at)
        try:
            task.attempt("c", HOUR)
        except OutputRefused:  # it is not known how far it has come
            task.attempt("b", HOUR)
            task.attempt("c", HOUR)
        assert task.union() == task.timextender.truth(HOUR), dies_at


def test_without_a_memory_of_its_own_a_run_of_which_others_have_followed_a_part_stays() -> None:
    jobs = {JOB: [course(1)], OTHER: [course(2)]}
    task = Airflow(TimeXtender(jobs), owns=False)
    for run, job_id in (("a", OTHER), ("b", JOB), ("c", JOB)):
        task.attempt(run, HOUR)
        jobs[job_id].append(course(len(task.outputs) + 3))
    with pytest.raises(OutputRefused, match="stays as it is"):
        task.attempt("b", HOUR)
    task.attempt("d", HOUR)
    assert task.union() == task.timextender.truth(HOUR)


def test_what_a_run_was_to_hold_and_others_hold_is_not_its_own_any_more() -> None:
    jobs = {JOB: [course(1)], OTHER: [course(2)]}
    task = Airflow(TimeXtender(jobs), owns=True)
    with pytest.raises(Death):
        task.attempt("a", HOUR, dies_at=11)
    assert set(task.own) == {("a", JOB), ("a", OTHER)}
    assert not task.outputs
    task.attempt("b", HOUR)
    jobs[JOB].append(course(3))
    for _ in range(2):
        assert task.attempt("a", 2 * HOUR) == "success"
        assert task.union() == task.timextender.truth(2 * HOUR)


@pytest.mark.parametrize("owns", [True, False])
def test_r44_a_cleared_run_writes_again_what_it_wrote_and_no_more(owns: bool) -> None:
    courses = [course(1)]
    task = Airflow(TimeXtender({JOB: courses}), owns=owns)
    task.attempt("a", HOUR)
    first = task.shown("a")
    courses.append(course(2, start=HOUR))
    assert task.attempt("a", 3 * HOUR) == "success"
    assert task.shown("a") == first
    task.attempt("b", 4 * HOUR)
    second = task.shown("b")
    assert len(second) == 4
    courses.append(course(3, start=5 * HOUR))
    if owns:
        task.outputs.clear()
        task.attempt("a", 6 * HOUR)
        task.attempt("b", 6 * HOUR)
        assert (task.shown("a"), task.shown("b")) == (first, second)
    else:
        with pytest.raises(OutputRefused, match="stays as it is"):
            task.attempt("a", 6 * HOUR)


@pytest.mark.parametrize("keyed", [True, False])
def test_r44_a_cleared_run_loses_nothing_that_the_log_does_not_show_any_more(keyed: bool) -> None:
    courses = [course(1), course(2)]
    task = Airflow(TimeXtender({JOB: courses}), owns=True, keyed=keyed)
    task.attempt("a", HOUR)
    before = task.union()
    courses.append(course(3, start=HOUR))
    task.attempt("b", 3 * HOUR)
    for left in ([course(2)], [course(1, lines=2), course(2)]):
        courses[:] = left
        with nullcontext() if keyed else pytest.raises(OutputRefused, match="shows 1 executions no more"):
            task.attempt("a", 4 * HOUR)
        assert task.union() >= before


def test_r44_a_retry_of_what_could_not_be_seen_loses_nothing_that_the_log_does_not_show_then() -> None:
    for dies_at in range(1, 22):
        courses = [course(1)]
        task = Airflow(TimeXtender({JOB: courses, OTHER: [course(2)]}), owns=True)
        with suppress(Death):
            task.attempt("a", HOUR, dies_at=dies_at)
        hidden = courses.pop()
        with suppress(OutputRefused):  # all can be seen, and would be lost
            task.attempt("a", HOUR)
        courses.append(hidden)
        task.attempt("b", HOUR)
        assert task.union() == task.timextender.truth(HOUR), dies_at


def test_another_runs_output_is_not_replaced() -> None:
    courses = [course(1)]
    task = Airflow(TimeXtender({JOB: courses}), owns=True, path="out/same")
    task.attempt("a", HOUR)
    courses.append(course(2, start=HOUR))
    with pytest.raises(OutputRefused, match=r"let output_path differ for each run, as with \{\{ run_id \}\}"):
        task.attempt("b", 3 * HOUR)


@pytest.mark.parametrize("at_touch", range(1, 4))
def test_a_run_beside_another_writes_nothing_twice(at_touch: int) -> None:
    task = Airflow(TimeXtender({JOB: [course(1)]}), owns=True)
    task.beside = {at_touch: lambda: task.attempt("b", HOUR)}
    with nullcontext() if at_touch == 1 else pytest.raises(OutputRefused, match="max_active_tis_per_dag=1"):
        task.attempt("a", HOUR)
    assert task.union() == task.timextender.truth(HOUR)
    assert task.attempt("a", 2 * HOUR) == "skipped"


def test_mapped_instances_that_go_through_one_job_are_told() -> None:
    task = Airflow(TimeXtender({JOB: [course(1)]}), owns=True)
    task.attempt("a[0]", HOUR)
    with pytest.raises(OutputRefused, match="two mapped instances"):
        task.attempt("a[1]", HOUR)


def test_lines_of_a_running_execution_come_once_and_its_row_when_it_has_ended() -> None:
    running = Course(str(uuid.UUID(int=1)), 0, 4 * HOUR, 0, tuple((h * HOUR, h * HOUR) for h in (0, 1, 2, 9)))
    task = Airflow(TimeXtender({JOB: [running]}), owns=True)
    assert [task.attempt(run, hour * HOUR) for run, hour in (("a", 1.5), ("b", 5), ("c", 6), ("d", 10))] == [
        "success", "success", "skipped", "success",
    ]  # fmt: skip
    assert [len(task.outputs.get(f"out/{run}", ())) for run in "abcd"] == [2, 1, 0, 1]
    assert [len(task.outputs.get(f"out/{run}.executions", ())) for run in "abcd"] == [0, 1, 0, 0]


def test_an_execution_without_an_end_counts_as_over_when_nothing_has_come_since_the_last_output() -> None:
    one = Execution(JOB, "1" * 32, ExecutionState.SUCCEEDED, at(0), log_counts={"info": 1})
    new = increments.New(increments.Start({}, 0))
    part = new.part(one)
    assert part == increments.Part(0, 1, row=False)
    held = new.increment("a", "", whole=True, replaces=False)
    assert held is not None
    assert increments.New(held.after()).part(one) == increments.Part(1, 1, row=True)


def test_an_execution_by_hand_waits_for_its_start_as_its_key_is_made_of_that() -> None:
    queued = Execution(JOB, BLANK_GUID, ExecutionState.RUNNING, log_counts={"info": 1})
    first = increments.New(increments.Start({}, 0))
    assert first.part(queued) is None
    assert first.increment("a", "", whole=True, replaces=False) is None
    begun = replace(queued, start=at(0))
    assert increments.New(increments.Start({}, 0)).part(begun) == increments.Part(0, 1, row=False)
    named = replace(queued, trigger_id="1" * 32)
    assert increments.New(increments.Start({}, 0)).part(named) == increments.Part(0, 1, row=False)


def test_an_execution_whose_earlier_lines_have_changed_is_put_out_again_as_a_whole() -> None:
    one = Execution(JOB, "1" * 32, ExecutionState.SUCCEEDED, at(0), at(9))
    new = increments.New(increments.Start({}, 0))
    assert written(new, with_log(one, "bc")) == 3
    held = new.increment("a", "", whole=True, replaces=False)
    assert held is not None
    for texts, wanted, expected, changed in (
        ("abc", "abc", 3, 1),
        ("bcde", "bcde", 2, 0),
        ("b", "b", 0, 0),
        ("xbc", "b", 1, 1),
        ("bcd", "cd", 1, 0),
    ):
        new = increments.New(held.after())
        assert written(new, with_log(one, texts, wanted)) == expected
        assert new.changed == changed


def test_r44_a_log_that_shows_less_for_a_while_is_not_put_out_twice() -> None:
    one = Execution(JOB, "1" * 32, ExecutionState.RUNNING, at(0))
    start = increments.Start({}, 0)
    for texts, expected in (("abcd", 4), ("ab", 0), ("abcd", 0), ("a", 0), ("abcde", 1)):
        new = increments.New(start)
        other = replace(one, trigger_id=str(uuid.uuid4()))
        assert written(new, with_log(one, texts)) == expected
        assert written(new, with_log(other, "x")) == 1
        assert new.changed == 0
        held = new.increment("a", "", whole=True, replaces=False)
        assert held is not None
        start = Increment.from_dict(json.loads(json.dumps(held.to_dict()))).after()


def test_r44_lines_that_never_could_be_seen_do_not_tell_what_has_changed() -> None:
    one = Execution(JOB, "1" * 32, ExecutionState.RUNNING, at(0))
    new = increments.New(increments.Start({}, 0))
    assert written(new, with_log(one, "abc")) == 3
    held = new.increment("a", "", whole=True, replaces=False)
    assert held is not None
    new = increments.New(held.after())
    assert written(new, with_log(one, "abce")) == 1
    lost = new.increment("b", "", whole=True, replaces=False)
    assert lost is not None
    new = increments.New(lost.instead())
    assert written(new, with_log(one, "abcde")) == 2
    assert new.changed == 0


def with_log(execution: Execution, texts: str, wanted: str | None = None) -> Execution:
    """Return an execution whose log has a line for each letter, of which a filter keeps some."""
    logs = [Log(at(0), "info", text, None, line) for line, text in enumerate(texts, 1)]
    kept = tuple(log for log in logs if wanted is None or log.message in wanted)
    return replace(execution, logs=kept, log_counts={"info": len(texts)})


def test_two_by_hand_that_began_in_the_same_moment_are_both_put_out() -> None:
    twins = [course(0, lines=2), course(0, lines=4)]
    task = Airflow(TimeXtender({JOB: twins}), owns=True)
    task.attempt("a", HOUR)
    assert task.attempt("b", 2 * HOUR) == "skipped"
    twins[0] = course(0, lines=3)
    task.attempt("c", 3 * HOUR)
    assert sum(task.union().values()) == sum(task.timextender.truth(3 * HOUR).values()) == 9


def test_what_is_remembered_is_small_and_comes_back_as_it_was() -> None:
    courses = [course(n, start=60.0 * n) for n in range(1, 2001)]
    task = Airflow(TimeXtender({JOB: courses}), owns=True)
    task.attempt("a" * 250, 3 * DAY)
    courses += [course(n, start=60.0 * n) for n in range(2001, 2501)]
    task.attempt("b" * 250, 3 * DAY)
    text = task.newest[JOB]
    assert 30_000 < len(text) < 48 * 1024
    held = Increment.from_dict(json.loads(text))
    assert Increment.from_dict(json.loads(json.dumps(held.to_dict()))) == held
    assert len(held.known) == 2 * MOST
    courses.append(course(2501, start=2 * DAY))
    task.attempt("c", 3 * DAY)
    assert task.union() == task.timextender.truth(3 * DAY)
    another = str(uuid.UUID(int=9999))
    courses.append(Course(another, 3 * DAY, 9 * DAY, 3.5 * DAY, ((3.5 * DAY, 3.5 * DAY),)))
    assert task.attempt("a" * 250, 4 * DAY) == task.attempt("b" * 250, 4 * DAY) == "success"
    assert task.union() == task.timextender.truth(3 * DAY)


class Timeless(Course):
    """An execution of which no time is told."""

    def seen(self, job_id: str, now: float) -> Execution:
        return replace(super().seen(job_id, now), start=None, end=None)


def running(number: int) -> Course:
    return replace(course(number), end=None)


def timeless(number: int) -> Course:
    return Timeless(**vars(course(number)))


@pytest.mark.parametrize("lasting", [running, timeless, course])
def test_more_than_can_be_remembered_is_refused_and_no_row_is_lost_or_twice(
    lasting: Callable[[int], Course],
) -> None:
    breaks = lasting is course  # then half of the job's log is read, and none of that may be forgotten
    unreadable = JOB if breaks else ""
    says = "have ended, and its log broke off" if breaks else "show no end"
    jobs = {OTHER: [course(0)], JOB: [lasting(n) for n in range(1, LASTING * (1 + breaks) + 1)]}
    jobs[JOB] += [] if breaks else [course(9999)]  # which tells when it was, and is no trouble
    task = Airflow(TimeXtender(jobs), owns=True, most=200 * 1024)
    assert task.attempt("a", HOUR, unreadable=unreadable) == ("failed" if breaks else "success")
    assert len(Increment.from_dict(json.loads(task.newest[JOB])).lasting) == LASTING
    before = task.union(), dict(task.newest)
    jobs[OTHER].append(course(20_000))
    jobs[JOB] += map(lasting, (10_000, 10_001))
    for _ in range(2):
        with pytest.raises(
            OutputRefused, match=rf"{JOB}: nothing is.* {LASTING + 1 + (not breaks)} {says}"
        ) as told:
            task.attempt("b", HOUR, unreadable=unreadable)
        assert told.value.retry_helps == breaks
    assert (task.union(), task.newest) == before
    jobs[JOB][-2:] = [course(10_000), course(10_001)]
    task.attempt("b", HOUR)
    task.attempt("c", HOUR)
    assert task.union() == task.timextender.truth(HOUR)


def test_what_is_remembered_is_never_large() -> None:
    jobs = {JOB: [course(n, start=60.0 * n) for n in range(1, 2 * LASTING + 1)], OTHER: []}
    task = Airflow(TimeXtender(jobs), owns=True, most=200 * 1024)
    assert task.attempt("a", 3 * DAY, unreadable=JOB) == "failed"
    jobs[JOB] += map(running, range(10_000, 10_000 + LASTING))
    assert task.attempt("b", 3 * DAY) == "success"
    assert len(Increment.from_dict(json.loads(task.newest[JOB])).known) == 2 * LASTING + MOST
    assert task.union() == task.timextender.truth(3 * DAY)


def test_what_this_release_remembers_is_understood() -> None:
    stored = {
        "run": "scheduled__2026-03-01T00:00:00+00:00",
        "where": "s3://aws@bucket/logs/a.jsonl",
        "known": {
            "l7tF0abc": [1772362273, 3, 1, 3, "wgQ7frMw"],
            "uUN7_HYs": [0, 2, 0, 2, "u5UAdVsq", 1, 0],
        },
        "floor": 1772362000,
        "floor_before": 1772361000,
        "whole": True,
        "complete": True,
        "replaces": False,
        "number": 7,
    }
    held = Increment.from_dict(stored)
    assert held.to_dict() == stored
    assert held.known == {
        "l7tF0abc": Known(1772362273, Extent(3, True), Extent(3, True), (3, "wgQ7frMw")),
        "uUN7_HYs": Known(0, Extent(2), Extent(1), (2, "u5UAdVsq")),
    }


@pytest.mark.parametrize("stored", [None, [], {}, {"run": "a"}, "x"])
def test_what_is_not_understood_of_it_is_an_error(stored: Any) -> None:
    with pytest.raises(InvalidInput, match="what is remembered of its outputs is not understood"):
        Increment.from_dict(stored)
