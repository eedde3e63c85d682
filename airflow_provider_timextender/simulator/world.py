"""Jobs and their executions: what happens behind the API. Time is real, and passed in."""

from __future__ import annotations

import itertools
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

BLANK_TRIGGER_ID = str(uuid.UUID(int=0))
"""The trigger id that the API shows for an execution that was started by hand."""

Ending = Literal["succeeded", "failed"]
Outcome = Literal[Ending, "never starts"]
Starter = Literal["api", "schedule", "hand"]


@dataclass
class Job:
    """A job, and how its next executions go.

    :ivar duration: seconds from start to end. :ivar pickup: seconds from queued to started.
    :ivar log_lag: seconds by which the log is late. :ivar log_at_end: the log shows ended executions only.
    :ivar lines: lines of information in the log; ``warnings`` and, on failure, two errors come on top.
    :ivar message: the execution's message when it ends; ``None`` for a standard one.
    :ivar outcomes: how the next executions that the API is asked for go, one each; then ``outcome`` counts.
    """

    name: str
    duration: float = 1.0
    outcome: Outcome = "succeeded"
    pickup: float = 0.2
    log_lag: float = 0.0
    log_at_end: bool = False
    lines: int = 3
    warnings: int = 0
    message: str | None = None
    id: str = ""
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        # The same name has the same id in every run, so that examples can be repeated.
        self.id = self.id or str(uuid.uuid5(uuid.NAMESPACE_DNS, f"job.{self.name}"))


@dataclass(frozen=True)
class Line:
    """A log line."""

    at: float
    severity: Literal["info", "warning", "error"]
    message: str


@dataclass(frozen=True)
class Execution:
    """One execution; its course is fixed when it is queued.

    :ivar queued: epoch seconds, as are ``started`` and ``ended``. :ivar by: what it was started by.
    """

    job: Job
    trigger_id: str
    queued: float
    started: float
    ended: float
    outcome: Outcome
    message: str
    lines: tuple[Line, ...] = field(repr=False)
    by: Starter = "api"

    def state(self, now: float) -> Literal["pending", "running", "ended", "lost"]:
        """Return where it stands at a moment."""
        if self.outcome == "never starts":
            return "lost"
        if now < self.started:
            return "pending"
        return "running" if now < self.ended else "ended"


class World:
    """All jobs of an organisation and everything that ran.

    :raises ValueError: if two jobs have the same id, as two of one name have unless each is given its own.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = {job.id: job for job in jobs}
        twins = sorted({job.name for job in jobs if self.jobs[job.id] is not job})
        if twins:
            raise ValueError(
                f"Several jobs have the id of {twins[0]!r}, as jobs of one name have. Name each once, or "
                "give it an id of its own."
            )
        self.executions: list[Execution] = []
        # Where in the list a job's executions are: the status of all jobs must not look at each for each job.
        self._places: defaultdict[str, list[int]] = defaultdict(list)

    def queue(self, job: Job, now: float, *, by: Starter = "api", trigger_id: str | None = None) -> Execution:
        """Start an execution beside whatever runs already; one by hand has the blank trigger id."""
        outcome = job.outcomes.pop(0) if by == "api" and job.outcomes else job.outcome
        return self._add(job, now, outcome, by, trigger_id)

    def past(self, job: Job, ended: float, outcome: Ending, *, by: Starter) -> Execution:
        """Add an execution that ended at a moment; it began as long before as the job takes."""
        return self._add(job, ended - job.duration - job.pickup, outcome, by)

    def _add(
        self, job: Job, queued: float, outcome: Outcome, by: Starter, trigger_id: str | None = None
    ) -> Execution:
        started = queued + job.pickup
        ended = started + job.duration
        failed = outcome == "failed"
        message = job.message or (
            f"Transfer task '{job.name} - Orders' failed: column 'CustomerKey' does not exist."
            if failed
            else "Job completed."
        )
        execution = Execution(
            job=job,
            trigger_id=BLANK_TRIGGER_ID if by == "hand" else trigger_id or str(uuid.uuid4()),
            queued=queued,
            started=started,
            ended=ended,
            outcome=outcome,
            message=message,
            lines=tuple(_lines(job, started, ended, message, outcome)),
            by=by,
        )
        self._places[job.id].append(len(self.executions))
        self.executions.append(execution)
        return execution

    def finish(self, now: float, outcome: Ending = "succeeded") -> None:
        """End everything that is pending or running."""
        for number, execution in enumerate(self.executions):
            if execution.state(now) in ("pending", "running"):
                started = min(execution.started, now)
                self.executions[number] = replace(execution, started=started, ended=now, outcome=outcome)

    def status(self, job: Job, now: float) -> Literal["idle", "pending", "running"]:
        """Return what the job is doing; idle also after a failure."""
        states = {e.state(now) for e in self._of(job)}
        if "running" in states:
            return "running"
        return "pending" if "pending" in states else "idle"

    def log(self, job: Job, now: float) -> list[Execution]:
        """Return the executions that the log shows, oldest first."""
        shown = {"ended"} if job.log_at_end else {"running", "ended"}
        seen = [e for e in self._of(job) if e.state(now - job.log_lag) in shown]
        return sorted(seen, key=lambda e: e.queued)  # a past one may have been added late

    def _of(self, job: Job) -> Iterator[Execution]:
        return (self.executions[place] for place in self._places[job.id])


_TASKS = ("Customers", "Orders", "Order lines", "Products", "Stock")


def _lines(job: Job, started: float, ended: float, message: str, outcome: Outcome) -> Iterator[Line]:
    count = job.lines + job.warnings + 2
    moments = itertools.cycle(started + (ended - started) * i / count for i in range(count))
    for number in range(job.lines):
        yield Line(next(moments), "info", f"Transfer task '{job.name} - {_task(number)}' finished.")
    for number in range(job.warnings):
        text = f"Transfer task '{job.name} - {_task(number)}': 2 rows were truncated."
        yield Line(next(moments), "warning", text)
    if outcome == "failed":
        yield Line(next(moments), "error", "Invalid column name 'CustomerKey'.")
        yield Line(ended, "error", message)


def _task(number: int) -> str:
    name = _TASKS[number % len(_TASKS)]
    return name if number < len(_TASKS) else f"{name} {number // len(_TASKS) + 1}"
