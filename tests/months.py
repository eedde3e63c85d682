"""A month of a task that writes what is new in logs: what jobs do meanwhile, and what happens to its runs."""

from __future__ import annotations

import random
import re
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from itertools import chain
from typing import Any, Protocol

from airflow_provider_timextender.errors import OutputRefused
from airflow_provider_timextender.model import BLANK_GUID, Execution, ExecutionState, Log

T0 = datetime(2026, 3, 1, tzinfo=timezone.utc)
HOUR, DAY = 3600.0, 86400.0

Row = tuple[Any, ...]
"""The key, line and message of a log line, or the key of an execution."""


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


# --- a month of a job's life ---


@dataclass(frozen=True)
class Course:
    """How an execution goes.

    :ivar shown: from when on the log shows it. :ivar end: ``None`` if it never ends.
    :ivar lines: the time of each line, and from when on the log shows it, in the order in which it does.
    """

    trigger_id: str
    start: float
    end: float | None
    shown: float
    lines: tuple[tuple[float, float], ...]

    def seen(self, job_id: str, now: float) -> Execution:
        lines = sum(shown <= now for _, shown in self.lines)
        return execution_of(self, job_id, lines, self.end is not None and self.end <= now)


@cache
def execution_of(course: Course, job_id: str, lines: int, over: bool) -> Execution:
    return Execution(
        job_id,
        course.trigger_id,
        ExecutionState.SUCCEEDED if over else ExecutionState.RUNNING,
        at(course.start),
        at(course.end) if over and course.end is not None else None,
        logs=tuple(
            Log(at(time), "info", f"line {n} of {course.start}", course.trigger_id, n)
            for n, (time, _) in enumerate(course.lines[:lines], 1)
        ),
        log_counts={"info": lines},
    )


def month(chance: random.Random, days: float, between: float) -> list[Course]:
    """Return a job's executions: by a trigger or by hand, some long, some late, some with late lines."""
    courses = []
    start = 0.0
    while (start := round(start + chance.uniform(0.2, 1.8) * between)) < days * DAY:
        length = chance.choice([60, 600, 2 * HOUR, 20 * HOUR])
        end = None if chance.random() < 0.01 else start + length
        lines = sorted(start + round(chance.random() * length) for _ in range(chance.randrange(6)))
        late = chance.choices([0, 600, 2 * DAY, 9 * DAY], [10, 3, 1, 1])[0]
        shows = sorted((time + (chance.random() * late), time) for time in lines)
        by_hand = chance.random() < 0.3
        courses.append(
            Course(
                BLANK_GUID if by_hand else str(chance.randbytes(16).hex()),
                start,
                end,
                start + chance.choice([0, 0, 30, HOUR, 3 * DAY]),
                tuple((time, shown) for shown, time in shows),
            )
        )
    return courses


@dataclass
class TimeXtender:
    """What some jobs do, by their ids.

    :ivar newest_first: whether their logs begin with what began last.
    """

    jobs: dict[str, list[Course]]
    newest_first: bool = False

    @classmethod
    def of(cls, chance: random.Random, days: float) -> TimeXtender:
        """Return three jobs, of which two run every few hours, and one daily."""
        courses = [month(chance, days, between) for between in (3 * HOUR, 8 * HOUR, 20 * HOUR)]
        jobs = {str(uuid.UUID(int=number)): course for number, course in enumerate(courses, 1)}
        return cls(jobs, newest_first=len(courses[0]) % 2 == 1)

    def log(self, job_id: str, now: float) -> list[Execution]:
        courses = self.jobs[job_id][:: -1 if self.newest_first else 1]
        shown = [course for course in courses if course.shown <= now]
        return [course.seen(job_id, now) for course in shown]

    def truth(self, now: float) -> Counter[Row]:
        """Return all lines there are, and the rows of all executions that have ended."""
        rows: Counter[Row] = Counter()
        for execution in chain.from_iterable(self.log(job_id, now) for job_id in self.jobs):
            rows.update(line_row(execution, n, log) for n, log in enumerate(execution.logs, 1))
            rows.update([(execution.key,)] if execution.is_over else [])
        return rows


def line_row(execution: Execution, line: int, log: Log) -> Row:
    return execution.key, line, log.message


# --- a task of it, and what happens to its runs ---


class Death(BaseException):
    """The process is killed."""


class Task(Protocol):
    """A task, whatever runs it.

    :ivar timextender: what it reads.
    :ivar keyed: whether its outputs go to a table with keys, in which nobody can see whether one is there.
    """

    timextender: TimeXtender
    keyed: bool

    def attempt(self, run: str, now: float, *, dies_at: int = 0, unreadable: str = "") -> str:
        """Run it once; return how that ends: success, failed or skipped.

        :param dies_at: the touch of its world at which its process dies. :param unreadable: a job of whose
            log half can be read.
        """

    def shown(self, run: str) -> Counter[Row]:
        """Return the rows of a run's output, as far as it can be seen."""

    def union(self) -> Counter[Row]:
        """Return the rows of all outputs."""


@dataclass
class Month:
    """A month in which all happens to runs that may.

    :ivar touches: at which touches of its world the task may die. :ivar happened: how often what has.
    """

    task: Task
    chance: random.Random
    days: float
    every: float = 6 * HOUR
    touches: int = 26

    def __post_init__(self) -> None:
        self.now = 0.0
        self.happened: Counter[str] = Counter()

    def attempt(self, what: str, run: str, **given: Any) -> str:
        before = self.task.shown(run)
        try:
            end = self.task.attempt(run, self.now, **given)
        except Death:
            end = "dead"
        except OutputRefused as error:
            end = re.split(" at out| run|,", error.reason)[0]
            if stuck := re.search("the run (.*) was about", str(error)):
                self.attempt("clear", stuck[1])
        self.happened[f"{what}: {end}"] += 1
        union, truth = self.task.union(), self.task.timextender.truth(self.now)
        assert max(union.values(), default=1) == 1, f"twice: {run} {what} {union - Counter(set(union))}"
        # Another try may write no more than the first was about to.
        assert union == truth if (what, end) == ("try", "success") else union <= truth, f"{run} {what}"
        assert self.task.keyed or self.task.shown(run) >= before, f"{run} {what}"
        return end

    def death(self, likely: float) -> int:
        return self.chance.randrange(1, self.touches) if self.chance.random() < likely else 0

    def live(self) -> None:
        runs: list[str] = []
        while self.now < self.days * DAY:
            self.now += self.chance.uniform(0.1, 1.9) * self.every
            runs.append(f"run{len(runs)}")
            unreadable = self.chance.choice([*self.task.timextender.jobs, *[""] * 27])
            end = self.attempt("try", runs[-1], dies_at=self.death(0.3), unreadable=unreadable)
            while end in ("dead", "failed") and self.chance.random() < 0.7:
                self.now += self.chance.choice([5, 300, HOUR])
                end = self.attempt("retry", runs[-1], dies_at=self.death(0.3))
            for cleared in (runs[-1], self.chance.choice(runs)):
                if self.chance.random() < 0.1:
                    self.attempt("clear", cleared, dies_at=self.death(0.3))
        ends = [self.attempt("try", "last"), self.attempt("try", "after it")]
        assert ends[1] in ("success", "skipped"), ends
        assert self.task.union() == self.task.timextender.truth(self.now)
