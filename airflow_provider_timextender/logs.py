"""Logs of executions: choosing the entries that are wanted, and writing them to a task's log."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from tempfile import TemporaryFile
from typing import Any, overload

from airflow_provider_timextender.answers import Entry, Last
from airflow_provider_timextender.errors import InvalidInput, TimeXtenderError
from airflow_provider_timextender.inputs import to_pattern, to_time
from airflow_provider_timextender.model import SEVERITY_LEVELS, Execution, Log, plain
from airflow_provider_timextender.naming import Named, said

RELAY_LIMIT = 1000
"""How many lines of an execution's log an operator repeats in its task log: the last ones."""

RELAY_BYTES = 8 * 1024 * 1024
"""How many bytes of an answer the last lines may take together."""

HELD = 2 * 1024 * 1024
"""How many bytes of an answer are held in memory as entries, about, before they are put in a file."""

MAX_LINE = 20_000
"""How many characters of one entry are repeated there."""


class LogFilter:
    """Which log entries are wanted. What cannot be told of an entry never excludes it.

    It checks what a user typed or a template rendered; blank text counts as not given.

    :param min_severity: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
    :param since: ISO 8601, inclusive; without an offset it is UTC. :param until: likewise.
    :param message_pattern: a regular expression, searched in the message.
    :ivar pattern: the same, compiled; ``None`` if not given.
    :ivar by_time: the names of the arguments by which a time decides, for messages; empty if none is given.
    :ivar by_severity: likewise of a severity.
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
        if min_severity and str(min_severity) not in SEVERITY_LEVELS:
            raise InvalidInput(f"min_severity is {min_severity!r}; it takes {', '.join(SEVERITY_LEVELS)}.")
        self.pattern = to_pattern(message_pattern, "message_pattern") if message_pattern else None
        self.min_level = SEVERITY_LEVELS[min_severity] if min_severity else 0
        self._since = to_time(since, "since")
        self._until = to_time(until, "until")
        if self._since and self._until and self._since > self._until:
            raise InvalidInput(f"since is {since!r}, which is after until, {until!r}: no time is both.")
        self.by_severity = "min_severity" if min_severity else ""
        self.by_time = " and ".join(
            name for name, moment in (("since", self._since), ("until", self._until)) if moment
        )

    def wants(self, log: Log) -> bool:
        """Tell whether an entry is wanted."""
        if self.min_level and log.severity is not None and log.level < self.min_level:
            return False
        if log.time is not None:
            if self._since is not None and log.time < self._since:
                return False
            if self._until is not None and log.time > self._until:
                return False
        return self.pattern is None or self.pattern.search(log.message) is not None

    def spans(self, execution: Execution) -> bool:
        """Tell whether an execution ran at a time that is wanted.

        Of one without times, its log tells that, if it has one.
        """
        start, end = execution.start, execution.end
        if start is None and end is None:
            return not self.by_time or not execution.log_count
        too_late = self._until is not None and start is not None and start > self._until
        too_early = self._since is not None and end is not None and end < self._since
        return not too_late and not too_early


@dataclass
class LastLines:
    """Keeps the last entries of the log of the execution that counts.

    :ivar trigger_id: the execution that counts, or else the one that ends last, at ``since`` or later.
    """

    trigger_id: str | None
    since: datetime | None = None
    _latest: datetime | None = field(default=None, init=False)
    _held: list[Log] = field(default_factory=list, init=False)

    def __call__(self) -> _LastLines:
        """Return what keeps them of one execution."""
        return _LastLines(self._place)

    def _place(self, execution: Execution) -> list[Log] | None:
        """Return where the entries of an execution go, ``None`` if it does not count."""
        if self.trigger_id is not None:
            return [] if execution.is_under(self.trigger_id) else None
        time = execution.end or execution.start
        if self.since is None or time is None or not execution.is_over or time < self.since:
            return None
        if self._latest is not None and time < self._latest:
            return None
        self._held.clear()  # else those of each that has ended since were in memory
        self._latest, self._held = time, []
        return self._held


class _LastLines(Last):
    min_level = 0

    def __init__(self, place: Callable[[Execution], list[Log] | None]) -> None:
        super().__init__(RELAY_LIMIT, RELAY_BYTES)
        self._place = place

    def kept(self, execution: Execution) -> Sequence[Log]:
        place = self._place(execution)
        if place is None:
            return ()
        place.extend(entry.log for entry in self.entries)
        return place


@dataclass(frozen=True)
class WantedLines:
    """Keeps the entries that a filter wants, of whatever number: what is much goes to a temporary file."""

    filter: LogFilter

    def __call__(self) -> _WantedLines:
        """Return what keeps them of one execution."""
        return _WantedLines(self.filter)


class _WantedLines:
    def __init__(self, wanted: LogFilter) -> None:
        self.min_level = wanted.min_level
        self._wants = wanted.wants
        self._logs = Spool()
        self._at: int | None = None

    def add(self, entry: Entry) -> None:
        if self._wants(entry.log):
            # Whatever makes an entry large counts: of those that came in one piece, the first does for all.
            self._logs.append(entry.log, 0 if self._at is None else entry.at - self._at)
            self._at = entry.at

    def kept(self, execution: Execution) -> Sequence[Log]:
        return self._logs


class Spool(Sequence[Log]):
    """Log entries in the order in which they are appended; what is much lies in a temporary file."""

    def __init__(self) -> None:
        self._held: list[Log] = []
        self._size = self._in_file = 0
        self._file: Any = None

    def append(self, log: Log, size: int) -> None:
        """Add an entry, of so many bytes, about."""
        self._held.append(log)
        self._size += 500 + size
        if self._size > HELD:
            try:
                self._put_in_file()
            except OSError as error:  # which would look like one of the connection
                raise TimeXtenderError(
                    f"Log lines cannot be kept in a temporary file: {error}. Let TMPDIR name one with room."
                ) from None

    def _put_in_file(self) -> None:
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115 - closed when this is gone
        self._file.seek(0, 2)
        pickle.dump(self._held, self._file, pickle.HIGHEST_PROTOCOL)
        self._file.flush()
        self._in_file += len(self._held)
        self._held, self._size = [], 0

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()  # else Python warns that nobody has

    def __len__(self) -> int:
        return self._in_file + len(self._held)

    def __iter__(self) -> Iterator[Log]:
        at = count = 0
        while count < self._in_file:
            self._file.seek(at)  # somebody else may go through it as well
            some = pickle.load(self._file)  # noqa: S301 - written here
            at, count = self._file.tell(), count + len(some)
            yield from some
        yield from self._held

    @overload
    def __getitem__(self, index: int) -> Log: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Log]: ...
    def __getitem__(self, index: Any) -> Any:
        return tuple(self)[index]


def write(logs: Sequence[Log], count: int, logger: Any) -> Iterator[None]:
    """Write entries to a task's log, each at its own level; of very many, the last ones.

    It yields after each entry, so that the triggerer can do something else in between.

    :param count: how many there are, kept or not.
    """
    if count > min(len(logs), RELAY_LIMIT):
        logger.info(
            "%d of %d log lines are left out here; LogsOperator reads them all.",
            count - min(len(logs), RELAY_LIMIT),
            count,
        )
    for entry in logs[-RELAY_LIMIT:]:
        stamp = f"[{entry.time.isoformat(timespec='seconds')}] " if entry.time else ""
        more = "..." if len(entry.message) > MAX_LINE else ""
        logger.log(entry.level, "TimeXtender: %s%s%s", stamp, plain(entry.message[:MAX_LINE]), more)
        yield


def warn_of_problems(execution: Execution, logger: Any, told: set[str]) -> None:
    """Tell what of an execution's log is not understood, and has not been told before."""
    for problem in execution.log_problems.values():
        if problem not in told:
            told.add(problem)
            logger.warning("The log is not understood as a whole: %s", problem)


def warn_that_it_runs_on(logger: Any, of: Named) -> None:
    """Tell whoever kills a task that its job runs on, or may, if no trigger id is known."""
    runs_on = "Its execution runs on" if of.trigger_id else "If it has been queued, it runs on"
    logger.warning("%s", said(f"was not stopped: the API has no way to. {runs_on}.", of, joint=" "))
