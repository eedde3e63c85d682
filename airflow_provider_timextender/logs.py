"""Logs of executions: choosing the entries that are wanted, and writing them to a task's log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.inputs import to_time
from airflow_provider_timextender.model import SEVERITY_LEVELS, Execution, Log, plain
from airflow_provider_timextender.naming import Named, Of, said

RELAY_LIMIT = 1000
"""How many lines of an execution's log an operator repeats in its task log: the last ones."""

MAX_LINE = 20_000
"""How many characters of one entry are repeated there."""


class LogFilter:
    """Which log entries are wanted. What cannot be told of an entry never excludes it.

    It checks what a user typed or a template rendered; blank text counts as not given.

    :param min_severity: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
    :param since: ISO 8601, inclusive; without an offset it is UTC. :param until: likewise.
    :param message_pattern: a regular expression, searched in the message.
    :raises InvalidInput: if one of them is unusable.
    """

    def __init__(
        self,
        *,
        min_severity: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        message_pattern: str | None = None,
    ) -> None:
        if min_severity and min_severity not in SEVERITY_LEVELS:
            raise InvalidInput(f"min_severity is {min_severity!r}; it takes {', '.join(SEVERITY_LEVELS)}.")
        try:
            self._pattern = re.compile(message_pattern or "")
        except re.error as error:
            raise InvalidInput(
                f"message_pattern {message_pattern!r} is not a regular expression: {error}."
            ) from None
        self._min_level = SEVERITY_LEVELS[min_severity] if min_severity else 0
        self._since = to_time(since, "since") or datetime.min.replace(tzinfo=timezone.utc)
        self._until = to_time(until, "until") or datetime.max.replace(tzinfo=timezone.utc)

    def wants(self, log: Log) -> bool:
        """Tell whether an entry is wanted."""
        if log.severity is not None and log.level < self._min_level:
            return False
        if log.time is not None and not self._since <= log.time <= self._until:
            return False
        return self._pattern.search(log.message) is not None


def write(logs: Sequence[Log], logger: Any) -> Iterator[None]:
    """Write entries to a task's log, each at its own level; of very many, the last ones.

    It yields after each entry, so that the triggerer can do something else in between.
    """
    if len(logs) > RELAY_LIMIT:
        logger.info(
            "The first %d of %d log lines are left out here; LogsOperator reads them all.",
            len(logs) - RELAY_LIMIT,
            len(logs),
        )
    for entry in logs[-RELAY_LIMIT:]:
        stamp = f"[{entry.time.isoformat(timespec='seconds')}] " if entry.time else ""
        more = "..." if len(entry.message) > MAX_LINE else ""
        logger.log(entry.level, "TimeXtender: %s%s%s", stamp, plain(entry.message[:MAX_LINE]), more)
        yield


def relay(execution: Execution, job_name: str | None, logger: Any) -> Iterator[None]:
    """Write how an execution ended, and its log, as :func:`write` does."""
    state = execution.state.value if execution.state else "over"
    of = Of(execution.job_id, job_name, execution.trigger_id)
    logger.info("%s", said(f"the execution {state}, and its log follows.", of))
    warn_of_problems([execution], logger)
    yield from write(execution.logs, logger)


def warn_of_problems(executions: Iterable[Execution], logger: Any) -> None:
    """Tell once what of some executions' logs is not understood."""
    for problem in {text: None for one in executions for text in one.log_problems.values()}:
        logger.warning("The log is not understood as a whole: %s", problem)


def warn_that_it_runs_on(logger: Any, of: Named) -> None:
    """Tell whoever kills a task that its job runs on, or may, if no trigger id is known."""
    runs_on = "Its execution runs on" if of.trigger_id else "If it has been queued, it runs on"
    logger.warning("%s", said(f"was not stopped: the API has no way to. {runs_on}.", of, joint=" "))
