"""Exports of logs: the rows of what is wanted of several jobs, on their way to an output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, NoReturn, Protocol

from airflow_provider_timextender.errors import ContractError, LogsIncomplete, OutputRefused, TimeXtenderError
from airflow_provider_timextender.increments import EVERYTHING, Ledger, New, Part, Reading, Seen
from airflow_provider_timextender.logs import LogFilter
from airflow_provider_timextender.model import Execution, ExecutionState, Job, canonical
from airflow_provider_timextender.naming import Of, said
from airflow_provider_timextender.tables import Column, Row, execution_row, line_columns, line_rows


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


def export(
    asked: Iterable[Of],
    find: Callable[[Of], Job],
    read: Callable[[Job], Iterable[Execution]],
    wanted: Wanted,
    output: Output,
    logger: Any,
    ledger: Ledger | None = None,
) -> dict[str, Any] | None:
    """Write what is wanted of some jobs, and return what has come of it, as JSON values.

    A job that cannot be read does not hide the others: it is told when these have been written. Of its
    executions, those are written that came before the error.

    :param asked: which jobs; looked at when the output is ready. :param find: returns the one that is meant.
    :param read: returns the executions of a job.
    :param ledger: tells what is new since the last output; ``None`` if all is written. Where nothing is new,
        there is no output, and the result is ``None``.
    :raises LogsIncomplete: if several jobs were asked for, and not all of them could be read. If none could,
        nothing is to be seen of the output.
    :raises TimeXtenderError: if a job could not be read and is the only one, or if the API has no answer any
        more. Nothing is to be seen of the output then.
    """
    exported = Exported()
    try:
        output.begin(line_columns(wanted.entries.pattern))
        failures = _write_all(list(asked), find, read, wanted, output, exported, logger, ledger)
        if failures and ledger is not None and ledger.repeats:
            # It would hold less than before, and what it held of these jobs counts as put out.
            _tell(failures, exported, f"what was in {output.where} stays as it is")
        told = _complete(output, exported, ledger)
    except BaseException:
        output.discard()
        raise
    if failures:
        _tell(
            failures, exported, f"the others are in {output.where}" if told else "the others show nothing new"
        )
    return told and {**told, **exported.to_dict()}


def _tell(failures: Sequence[TimeXtenderError], exported: Exported, others: str) -> NoReturn:
    count = f"{len(failures)} of {len(failures) + exported.jobs} jobs"
    raise LogsIncomplete(f"{count} could not be read; {others}:", failures)


def _complete(output: Output, exported: Exported, ledger: Ledger | None) -> dict[str, Any] | None:
    """Let the output be seen, and tell of it; where nothing is new, leave nothing of it."""
    if ledger is None:
        return output.complete()
    if not (exported.rows or exported.executions or ledger.repeats):
        output.discard()
        return None
    ledger.about_to_complete()
    told = output.complete()
    ledger.completed()
    return told


def _write_all(
    asked: Sequence[Of],
    find: Callable[[Of], Job],
    read: Callable[[Job], Iterable[Execution]],
    wanted: Wanted,
    output: Output,
    exported: Exported,
    logger: Any,
    ledger: Ledger | None,
) -> list[TimeXtenderError]:
    """Write what is wanted of each job, and return why some of them could not be read."""
    failures: list[TimeXtenderError] = []
    done: set[str] = set()
    silent = 0
    for of in asked:
        try:
            job = find(of)
            of = Of(job.id, job.name)
            if canonical(job.id) in done:
                continue  # it is told twice, by id and by name, say
            done.add(canonical(job.id))
            if ledger is None:
                _write(job.name, wanted.of(read(job)), wanted, output, exported)
            else:
                _write_new(job, read, wanted, output, exported, logger, ledger)
        except OutputRefused:
            raise
        except TimeXtenderError as error:
            failures.append(error.about(of))
            silent = silent + 1 if error.transient else 0
            if len(asked) == 1 or silent == MAX_SILENT:
                raise
            logger.warning("Left out: %s", error)
        else:
            silent = 0
            exported.jobs += 1
    if failures and not exported.jobs:
        raise LogsIncomplete("No job could be read, and nothing is written:", failures)
    return failures


def _write_new(
    job: Job,
    read: Callable[[Job], Iterable[Execution]],
    wanted: Wanted,
    output: Output,
    exported: Exported,
    logger: Any,
    ledger: Ledger,
) -> None:
    job_id = canonical(job.id)
    reading = ledger.reading(job_id)
    whole = False
    try:
        _write(job.name, wanted.of(read(job), reading), wanted, output, exported)
        whole = True
    finally:
        ledger.add(job_id, reading, whole=whole)
    if isinstance(reading, New) and reading.changed:
        logger.warning(
            "%s",
            said(
                f"{reading.changed} executions are written again as a whole, as earlier lines of their logs "
                "have changed. Of rows with the same execution_key and line, the newest count.",
                Of(job.id, job.name),
            ),
        )


def _write(
    job_name: str | None, chosen: Iterable[Chosen], wanted: Wanted, output: Output, exported: Exported
) -> None:
    for one in chosen:
        rows = line_rows(one.execution, job_name, one.lines, wanted.entries.pattern)
        output.write_lines(_counted(rows, exported))
        if one.has_row:
            output.write_execution(one.row(job_name))
            exported.executions += 1


def _counted(rows: Iterable[Row], exported: Exported) -> Iterator[Row]:
    first, last, count = exported.first, exported.last, 0
    for row in rows:
        count += 1
        time = row["time"]
        if time is not None:
            if first is None or time < first:
                first = time
            if last is None or time > last:
                last = time
        yield row
    exported.first, exported.last = first, last
    exported.rows += count


def _state_of(execution: Execution) -> ExecutionState:
    if execution.state is None:
        raise ContractError(f"an execution cannot be chosen by its state: {execution.problem}")
    return execution.state


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
