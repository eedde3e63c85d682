"""The tables that logs are written as: their columns, and the rows of an execution.

A row is a dict with a value for each column, in their order; only the standard library is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.model import Execution, Log, canonical

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table; whatever its kind, it holds ``None`` where the value is not known.

    :ivar kind: ``text`` holds str, ``integer`` int, ``number`` float, ``time`` an aware datetime in UTC.
    :ivar meaning: what it holds, for people.
    """

    name: str
    kind: Literal["text", "integer", "number", "time"]
    meaning: str


_SHARED = (
    Column("job_id", "text", "the job's guid, in lower case"),
    Column("job_name", "text", "the job's name"),
    Column("execution_key", "text", "a guid that tells the execution from others, and stays the same"),
    Column("trigger_id", "text", "the trigger id, in lower case; none if it was started by hand"),
)

LINES = (
    *_SHARED,
    Column("line", "integer", "the place of the entry in the execution's whole log, from 1 on"),
    Column("time", "time", "when, in UTC"),
    Column("severity", "text", "debug, info, warning, error or critical"),
    Column("message", "text", "the message as it came"),
)
"""One row for each log entry; ``execution_key`` and ``line`` tell it from all others."""

EXECUTIONS = (
    *_SHARED,
    Column("started_by", "text", "trigger (a schedule or an API call) or hand"),
    Column("state", "text", "running, succeeded or failed"),
    Column("start", "time", "when it began, in UTC"),
    Column("end", "time", "when it ended, in UTC"),
    Column("duration", "number", "seconds from start to end"),
    Column("message", "text", "what TimeXtender says of the execution"),
    Column("errors", "integer", "how many entries of its whole log are of severity error or critical"),
    Column("warnings", "integer", "how many are of severity warning"),
)
"""One row for each execution; ``execution_key`` tells it from all others."""


def line_columns(pattern: re.Pattern[str] | None = None) -> tuple[Column, ...]:
    """Return the columns of the table of lines.

    :param pattern: each of its named groups is one more column.
    :raises InvalidInput: if a group has the name of another column.
    """
    groups = tuple(pattern.groupindex) if pattern else ()
    if taken := {column.name for column in LINES}.intersection(groups):
        raise InvalidInput(
            f"message_pattern has a group named {min(taken)!r}, which is the name of a column of the table "
            "already. Give the group another name."
        )
    return LINES + tuple(Column(name, "text", f"what the group {name} has found") for name in groups)


def line_rows(
    execution: Execution,
    job_name: str | None,
    entries: Iterable[tuple[int, Log]],
    pattern: re.Pattern[str] | None = None,
) -> Iterator[Row]:
    """Yield the rows of some entries of an execution's log.

    :param entries: each with its place in the whole log, from 1 on.
    :param pattern: searched in each message; what its named groups found stands in the row.
    """
    shared = _shared(execution, job_name)
    nothing = dict.fromkeys(pattern.groupindex) if pattern else {}
    for line, log in entries:
        row = {
            **shared,
            "line": line,
            "time": log.time,
            "severity": log.severity,
            "message": log.message,
        }
        if pattern is not None and nothing:
            found = pattern.search(log.message)
            row.update(found.groupdict() if found else nothing)
        yield row


def execution_row(
    execution: Execution, job_name: str | None, *, errors: int | None = None, warnings: int | None = None
) -> Row:
    """Return the row of an execution.

    :param errors: how many entries of its whole log tell of an error; ``None`` if that is not known.
    :param warnings: likewise of a warning.
    """
    shared = _shared(execution, job_name)
    return {
        **shared,
        "started_by": "hand" if execution.by_hand else shared["trigger_id"] and "trigger",
        "state": execution.state and execution.state.value,
        "start": execution.start,
        "end": execution.end,
        "duration": execution.duration,
        "message": execution.message,
        "errors": errors,
        "warnings": warnings,
    }


def _shared(execution: Execution, job_name: str | None) -> Row:
    told = execution.trigger_id is not None and not execution.by_hand
    return {
        "job_id": canonical(execution.job_id),
        "job_name": job_name,
        "execution_key": execution.key,
        "trigger_id": canonical(str(execution.trigger_id)) if told else None,
    }
