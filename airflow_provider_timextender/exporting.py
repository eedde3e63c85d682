"""Exports of logs: the rows of what is wanted of several jobs, on their way to an output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Any, Protocol

from airflow_provider_timextender.errors import ContractError, LogsIncomplete, OutputRefused, TimeXtenderError
from airflow_provider_timextender.increments import EVERYTHING, Ledger, New, Part, Reading, Seen
from airflow_provider_timextender.logs import LogFilter
from airflow_provider_timextender.model import Execution, ExecutionState, Job, canonical
from airflow_provider_timextender.naming import Of, said
from airflow_provider_timextender.tables import Column, Row, execution_row, line_columns, line_rows
from airflow_provider_timextender.vocabulary import override_hint


class Output(Protocol):
    """Where rows go: they are seen when all of them are there, and not before."""

    @property
    def where(self) -> str:
        """Where that is, for people."""

    def seen(self, where: str) -> Seen:
        """Tell what can be seen of an output of this kind that has gone somewhere.

        Nothing is what is told of an output in which the same row cannot be twice.
        """
        return "nothing"

    def begin(self, columns: Sequence[Column]) -> None:
        """Make ready for rows; nothing has been read yet.

        :param columns: those of the table of lines.
        """

    def write_lines(self, rows: Iterable[Row]) -> None:
        """Write the rows of some lines of one execution."""

    def write_execution(self, row: Row) -> None:
        """Write the row of the execution whose lines have been written last."""

    def complete(self) -> dict[str, Any]:
        """Let all be seen, and return what is to be told of it, as JSON values."""

    def discard(self) -> None:
        """Leave nothing of it, after an error at any moment."""


@dataclass(frozen=True)
class Wanted:
    """Which executions are wanted, and which entries of their logs.

    :ivar entries: what is wanted of each log. An execution is wanted if it ran at a time that this asks for,
        or if an entry of its log is wanted.
    :ivar states: those of the executions; none for all.
    """

    entries: LogFilter
    states: frozenset[ExecutionState] = frozenset()

    def of(self, executions: Iterable[Execution], reading: Reading | None = None) -> Iterator[Chosen]:
        """Yield the executions that are wanted.

        :param executions: each with the entries of its log that are wanted.
        :param reading: tells which part of each; ``None`` for all of it.
        :raises ContractError: if nothing is understood of a value that decides what is wanted, or if two
            executions stand under one trigger id.
        """
        known: set[bytes] = set()
        for execution in executions:
            if not self.states or _state_of(execution) in self.states:
                _refuse_blind(execution, self.entries)
                _refuse_twin(execution, known)
                part = reading.part(execution) if reading else EVERYTHING
                if part is not None:
                    chosen = Chosen(execution, self.entries, part)
                    if chosen.counts:
                        yield chosen


class Chosen:
    """An execution, and the entries of its log that are wanted.

    :ivar execution: itself, with these entries only.
    :ivar lines: the entries, each with its place in the whole log; they come once.
    :ivar has_row: whether its row is wanted. :ivar counts: whether anything of the execution is.
    """

    def __init__(self, execution: Execution, entries: LogFilter, part: Part) -> None:
        self.execution = execution
        self.has_row = part.row
        ran = entries.spans(execution)
        # An entry without a time may be from when its execution ran, and from no other time.
        logs = (log for log in execution.logs if ran or log.time is not None)
        lines = ((log.line or 0, log) for log in (logs if part is EVERYTHING else filter(part.takes, logs)))
        first = next(lines, None)
        self.counts = (ran and part.row) or first is not None
        self.lines = lines if first is None else chain([first], lines)

    def row(self, job_name: str | None) -> Row:
        """Return the row of the execution."""
        of = self.execution.log_counts
        if of.keys() == {None}:  # nothing is understood of any severity
            return execution_row(self.execution, job_name)
        errors, warnings = of.get("error", 0) + of.get("critical", 0), of.get("warning", 0)
        return execution_row(self.execution, job_name, errors=errors, warnings=warnings)


@dataclass
class Exported:
    """What has come of an export.

    :ivar jobs: how many jobs were read. :ivar rows: how many lines were written.
    :ivar first: the time of the earliest line, :ivar last: of the latest; ``None`` if no line has one.
    """

    jobs: int = 0
    executions: int = 0
    rows: int = 0
    first: datetime | None = None
    last: datetime | None = None

    def counting(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield rows of lines, and count them."""
        first, last, count = self.first, self.last, 0
        for row in rows:
            count += 1
            time = row["time"]
            if time is not None:
                if first is None or time < first:
                    first = time
                if last is None or time > last:
                    last = time
            yield row
        self.first, self.last = first, last
        self.rows += count

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "jobs": self.jobs,
            "executions": self.executions,
            "rows": self.rows,
            "first_time": self.first and self.first.isoformat(),
            "last_time": self.last and self.last.isoformat(),
        }


MAX_SILENT = 3
"""After so many jobs in a row for which the API had no answer, the rest is not asked for any more."""


@dataclass
class Export:
    """Writes once what is wanted of some jobs.

    :ivar find: returns the job that is meant. :ivar read: returns the executions of a job.
    :ivar ledger: tells what is new since the last output; ``None`` if all is written.
    """

    find: Callable[[Of], Job]
    read: Callable[[Job], Iterable[Execution]]
    wanted: Wanted
    output: Output
    logger: Any
    ledger: Ledger | None = None
    exported: Exported = field(init=False, default_factory=Exported)

    def write(self, asked: Iterable[Of]) -> dict[str, Any] | None:
        """Write all of it, and return what has come of it, as JSON values.

        A job that cannot be read does not hide the others: it is told when these have been written. Of its
        executions, those are written that came before the error.

        :param asked: which jobs; looked at when the output is ready.
        :return: ``None`` if there is no output, as nothing is new.
        :raises LogsIncomplete: if several jobs were asked for, and not all of them could be read. If none
            could, nothing is to be seen of the output.
        :raises TimeXtenderError: if a job could not be read and is the only one, or if the API has no answer
            any more. Nothing is to be seen of the output then.
        """
        try:
            self.output.begin(line_columns(self.wanted.entries.pattern))
            failures = self._write_all(list(asked))
            told = self._complete(failures)
        except BaseException:
            self.output.discard()
            raise
        if failures:
            others = f"are in {self.output.where}" if told else "show nothing new"
            raise self._incomplete(failures, f"the others {others}")
        return told and {**told, **self.exported.to_dict()}

    def _write_all(self, asked: Sequence[Of]) -> list[TimeXtenderError]:
        """Write what is wanted of each job, and return why some of them could not be read."""
        failures: list[TimeXtenderError] = []
        done: set[str] = set()
        silent = 0
        for of in asked:
            try:
                job = self.find(of)
                of = Of(job.id, job.name)
                if canonical(job.id) in done:
                    continue  # it is told twice, by id and by name, say
                done.add(canonical(job.id))
                self._write_job(job)
            except OutputRefused as error:
                error.about(of)
                raise
            except TimeXtenderError as error:
                failures.append(error.about(of))
                silent = silent + 1 if error.transient else 0
                if len(asked) == 1 or silent == MAX_SILENT:
                    raise
                self.logger.warning("Left out: %s", error)
            else:
                silent = 0
                self.exported.jobs += 1
        if failures and not self.exported.jobs:
            raise LogsIncomplete("No job could be read, and nothing is written:", failures)
        return failures

    def _write_job(self, job: Job) -> None:
        if self.ledger is None:
            self._write_executions(job)
            return
        job_id = canonical(job.id)
        reading = self.ledger.reading(job_id)
        whole = False
        try:
            self._write_executions(job, reading)
            whole = True
        finally:
            self.ledger.add(job_id, reading, whole=whole)
        if isinstance(reading, New) and reading.changed:
            what = (
                f"{reading.changed} executions are written again as a whole, as earlier lines of their logs "
                "have changed. Of rows with the same execution_key and line, the newest count."
            )
            self.logger.warning("%s", said(what, Of(job.id, job.name)))

    def _write_executions(self, job: Job, reading: Reading | None = None) -> None:
        executions = self.read(job) if reading is None else _refuse_timeless(self.read(job))
        for chosen in self.wanted.of(executions, reading):
            rows = line_rows(chosen.execution, job.name, chosen.lines, self.wanted.entries.pattern)
            self.output.write_lines(self.exported.counting(rows))
            if chosen.has_row:
                self.output.write_execution(chosen.row(job.name))
                self.exported.executions += 1

    def _complete(self, failures: Sequence[TimeXtenderError]) -> dict[str, Any] | None:
        """Let the output be seen, and tell of it; where nothing is new, leave nothing of it."""
        if self.ledger is None:
            return self.output.complete()
        if failures and self.ledger.repeats:
            # It would hold less than before, and what it held of these jobs counts as put out.
            raise self._incomplete(failures, f"what was in {self.output.where} stays as it is")
        if not (self.exported.rows or self.exported.executions or self.ledger.repeats):
            self.output.discard()
            return None
        self.ledger.about_to_complete()
        told = self.output.complete()
        self.ledger.completed()
        return told

    def _incomplete(self, failures: Sequence[TimeXtenderError], others: str) -> LogsIncomplete:
        count = f"{len(failures)} of {len(failures) + self.exported.jobs} jobs"
        return LogsIncomplete(f"{count} could not be read; {others}:", failures)


def _state_of(execution: Execution) -> ExecutionState:
    if execution.state is None:
        raise ContractError(f"an execution cannot be chosen by its state: {execution.problem}")
    return execution.state


def _refuse_timeless(executions: Iterable[Execution]) -> Iterator[Execution]:
    """Refuse a log that tells of no execution when it was: none of them could ever be forgotten."""
    ended, timed, problem = 0, False, None
    for execution in executions:
        ended += execution.is_over
        timed = timed or (execution.start or execution.end) is not None
        problem = problem or execution.end_problem or execution.start_problem
        yield execution
    if ended and not timed:
        hint = problem or override_hint("their times", "execution.start and .end")
        raise ContractError(
            f"incremental needs times, and of {ended} executions that have ended nobody knows when. {hint}"
        )


def _refuse_twin(execution: Execution, known: set[bytes]) -> None:
    """Refuse a second execution under a trigger id: the rows of both would have the same keys."""
    if execution.trigger_id is None or execution.by_hand:
        return
    key = bytes.fromhex(execution.key.replace("-", ""))
    if key in known:
        raise ContractError(
            "several executions stand under one trigger id, where the API promises one, so that their rows "
            "could not be told apart."
        ).about(Of(trigger_id=execution.trigger_id))
    known.add(key)


def _refuse_blind(execution: Execution, entries: LogFilter) -> None:
    """Refuse to choose by what no entry of a log tells."""
    by_message = "message_pattern" if entries.pattern else ""
    for asked, entry in (
        (entries.by_time, "log.time"),
        (entries.by_severity, "log.severity"),
        (by_message, "log.message"),
    ):
        problem = execution.log_problems.get(entry)
        if asked and problem and entry not in execution.log_known:
            raise ContractError(f"{asked} cannot choose among log entries of which none tells it: {problem}")
    problem = execution.start_problem or execution.end_problem
    told = execution.start or execution.end or execution.log_count
    if entries.by_time and problem and not told:
        raise ContractError(f"{entries.by_time} cannot tell when an execution ran: {problem}")
