"""What the TimeXtender Jobs API says: its calls, its words and its objects.

A call is a value (:class:`Call`); whoever carries it over the network hands the :class:`Answer` to
:func:`read`, which returns typed objects or raises one error of :mod:`~.errors`. Nothing here opens a
socket or knows Airflow; only the standard library is used.

The published description of the API names the endpoints but only a few JSON members, and none of the
end states. So every name and word that this package relies on stands in the tables :data:`FIELDS`,
:data:`STATUSES`, :data:`STATES` and :data:`SEVERITIES`, marked as *documented* or *assumed*, and each
entry can be overridden from the Airflow connection (:meth:`Vocabulary.override`).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone, tzinfo
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from airflow_provider_timextender.errors import (
    AnswerTooLarge,
    ContractError,
    InvalidInput,
    RateLimited,
    Refused,
    ServerError,
    TimeXtenderError,
    UnreadableAnswer,
)

T = TypeVar("T")

DEFAULT_BASE_URL = "https://api.timextender.com"  # assumed
DEFAULT_API_KEY_HEADER = "x-api-key"  # assumed

BLANK_GUID = "00000000-0000-0000-0000-000000000000"
"""What the API shows as trigger id of an execution that was started by hand (documented)."""

_EXCERPT_LENGTH = 500

_MIB = 1024 * 1024

MAX_OBJECTS = 500_000
"""How many JSON objects an answer may hold: once understood, the smallest take more than a hundred times
their room in it. Log entries are so large that an answer reaches its limit in bytes before."""

_MAX_MEMBERS = 1000
"""How many members a JSON object may have; those of the API have about ten."""


# --- vocabulary -----------------------------------------------------------------------------------


class JobState(str, Enum):
    """What a *job* is doing. Idle means "not running", never "succeeded"."""

    IDLE = "idle"
    PENDING = "pending"
    RUNNING = "running"


class ExecutionState(str, Enum):
    """How far one *execution* of a job is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


SEVERITY_LEVELS: Mapping[str, int] = {
    "debug": 10,
    "info": 20,
    "warning": 30,
    "error": 40,
    "critical": 50,
}
"""Severities of log entries, lowest first, with their level in Python's ``logging``."""


@dataclass(frozen=True)
class Names:
    """The spellings accepted for one meaning, by where they are known from."""

    documented: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every spelling, the documented ones first."""
        return self.documented + self.assumed


# [vocabulary: begin]
# Spellings are compared without regard to case, "_", "-" and spaces.

FIELDS: Mapping[str, Names] = {
    "job.id": Names(documented=("Id",), assumed=("JobId",)),
    "job.name": Names(assumed=("Name", "JobName", "DisplayName")),
    "status.job_id": Names(assumed=("JobId", "Id")),
    "status.state": Names(assumed=("Status", "JobStatus", "State", "JobState")),
    "submission.job_id": Names(documented=("JobId",)),
    "submission.message": Names(documented=("Message",)),
    "submission.trigger_id": Names(documented=("TriggerId",)),
    "execution.job_id": Names(assumed=("JobId",)),
    "execution.trigger_id": Names(assumed=("TriggerId",)),
    "execution.state": Names(assumed=("State", "Status", "ExecutionState", "ExecutionStatus")),
    "execution.start": Names(assumed=("StartTime", "Start", "Started", "StartedAt", "StartDate")),
    "execution.end": Names(
        assumed=("EndTime", "End", "Ended", "EndedAt", "EndDate", "Finished", "FinishedAt")
    ),
    "execution.message": Names(assumed=("Message", "ErrorMessage", "Error")),
    "execution.logs": Names(assumed=("Logs", "ExecutionLogs", "LogEntries", "Entries")),
    "log.trigger_id": Names(assumed=("TriggerId",)),
    "log.time": Names(assumed=("Timestamp", "Time", "Created", "CreatedAt", "LogTime", "Date")),
    "log.severity": Names(assumed=("Severity", "Level", "LogLevel", "Type")),
    "log.message": Names(assumed=("Message", "Text", "Description")),
}

STATUSES: Mapping[str, Names] = {
    "idle": Names(documented=("idle",)),
    "pending": Names(documented=("pending",)),
    "running": Names(documented=("running",)),
}

# Only words that plainly claim success stand for success: "finished" or "completed" may well be said
# of an execution that ended with errors, and a number says nothing at all. Whoever knows what such a
# word means at their site adds it in the connection.
STATES: Mapping[str, Names] = {
    "running": Names(
        assumed=("running", "pending", "queued", "started", "starting", "executing", "in progress")
    ),
    "succeeded": Names(assumed=("succeeded", "success", "successful")),
    "failed": Names(
        assumed=(
            "failed", "failure", "error", "faulted", "aborted", "canceled", "cancelled",
            "stopped", "terminated", "timed out",
        )
    ),
}  # fmt: skip

SEVERITIES: Mapping[str, Names] = {
    "debug": Names(assumed=("debug", "trace", "verbose")),
    "info": Names(assumed=("info", "information", "informational")),
    "warning": Names(assumed=("warning", "warn")),
    "error": Names(assumed=("error", "err")),
    "critical": Names(assumed=("critical", "fatal")),
}
# [vocabulary: end]

_SECTIONS: Mapping[str, Mapping[str, Names]] = {
    "fields": FIELDS,
    "statuses": STATUSES,
    "states": STATES,
    "severities": SEVERITIES,
}


def _fold(word: str) -> str:
    # A long one is no name of the API's, and is not kept.
    return (_folded if len(word) <= 100 else _folded.__wrapped__)(word)


@lru_cache(maxsize=4096)
def _folded(word: str) -> str:
    if re.fullmatch(r"\s*-?\d+\s*", word):  # in a code, the sign means something
        return word.strip()
    return re.sub(r"[\s_-]", "", word).lower()


@dataclass(frozen=True)
class Vocabulary:
    """The tables in force: the defaults, or those with a connection's overrides.

    :ivar spellings: section -> entry -> accepted spellings, in order of preference.
    """

    spellings: Mapping[str, Mapping[str, tuple[str, ...]]] = field(
        default_factory=lambda: {
            section: {entry: names.all for entry, names in table.items()}
            for section, table in _SECTIONS.items()
        }
    )

    def override(self, overrides: Mapping[str, Any]) -> Vocabulary:
        """Return a vocabulary in which the named entries are replaced.

        :param overrides: section -> entry -> one spelling or a list of them, for example
            ``{"states": {"succeeded": ["Completed", 3]}}``. Sections are ``fields``, ``statuses``,
            ``states`` and ``severities``.
        :raises InvalidInput: for an unknown section or entry, a spelling that is neither text nor a
            whole number, or a word that then stands under two entries of its section.
        """
        merged = {section: dict(entries) for section, entries in self.spellings.items()}
        for section, entries in overrides.items():
            _known(section, merged, "vocabulary")
            if not isinstance(entries, Mapping):
                raise InvalidInput(
                    f"vocabulary.{section} must be an object of entries, not {_short(entries)}."
                )
            for entry, given in entries.items():
                _known(entry, merged[section], f"vocabulary.{section}")
                merged[section][entry] = _spellings(given, f"vocabulary.{section}.{entry}")
        for section in ("statuses", "states", "severities"):
            _refuse_shared_words(section, merged[section])
        return replace(self, spellings=merged)

    @cached_property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Logical field -> its spellings, folded for comparison."""
        return {entry: tuple(map(_fold, names)) for entry, names in self.spellings["fields"].items()}

    @cached_property
    def _words(self) -> Mapping[str, Mapping[str, str]]:
        return {
            section: {_fold(word): entry for entry, words in entries.items() for word in words}
            for section, entries in self.spellings.items()
        }

    def members(self, obj: Mapping[str, Any], entry: str) -> list[Any]:
        """Return all that a JSON object holds for a logical field, in the order of preference."""
        found = [(_fold(name), value) for name, value in obj.items() if value is not None]
        return [value for wanted in self.names[entry] for name, value in found if name == wanted]

    def member(self, obj: Mapping[str, Any], entry: str) -> Any:
        """Return what a JSON object holds for a logical field, ``None`` if it holds nothing."""
        return next(iter(self.members(obj, entry)), None)

    def meaning(self, section: str, word: Any) -> str | None:
        """Return the entry of a section under which a word or code stands, ``None`` if none."""
        if isinstance(word, bool) or not isinstance(word, (str, int)):
            return None
        return self._words[section].get(_fold(str(word)))


def _known(name: Any, table: Mapping[str, Any], where: str) -> None:
    if name not in table:
        raise InvalidInput(f"{where} has no entry {name!r}; it has {', '.join(table)}.")


def _spellings(given: Any, where: str) -> tuple[str, ...]:
    values = given if isinstance(given, list) else [given]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not _fold(str(value)):
            raise InvalidInput(f"{where} takes names or whole numbers, not {_short(value)}.")
    if not values:
        raise InvalidInput(f"{where} is an empty list; name at least one spelling.")
    return tuple(str(value) for value in values)


def _refuse_shared_words(section: str, entries: Mapping[str, tuple[str, ...]]) -> None:
    seen: dict[str, str] = {}
    for entry, spellings in entries.items():
        for spelling in spellings:
            other = seen.setdefault(_fold(spelling), entry)
            if other != entry:
                raise InvalidInput(
                    f"The word {spelling!r} stands under {other} and {entry} of "
                    f"vocabulary.{section}; override both entries, so that it stands under one."
                )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _found(data: Any) -> str:
    return f"an object with the members {_short(list(data))}" if isinstance(data, dict) else _short(data)


def plain(text: str) -> str:
    """Return a text that cannot look like more than one: lines indented, control characters shown."""
    lines = (
        "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line)
        for line in text.splitlines()
    )
    return "\n    ".join(lines)


# --- ids ------------------------------------------------------------------------------------------

_GUID = re.compile(r"(\{)?[0-9a-f]{8}(-?)([0-9a-f]{4}\2){3}[0-9a-f]{12}(?(1)\})", re.IGNORECASE)


def guid(value: Any, what: str) -> str:
    """Return a guid as it is written, the only kind of id that is ever put into a URL.

    A server may compare ids letter by letter, so that its own spelling is kept: in upper case, or in braces.
    Ids are compared by :func:`canonical`.

    :param value: the id, as text or :class:`uuid.UUID`.
    :param what: what the id names, for the error: ``"job id"`` or ``"trigger id"``.
    :raises InvalidInput: if it is not a guid, or the blank one.
    """
    text = str(value)
    if not _GUID.fullmatch(text):
        raise InvalidInput(
            f"The {what} {_short(value)} is not a guid "
            "(expected 8-4-4-4-12 hexadecimal digits, like 3f2504e0-4f89-11d3-9a0c-0305e82c3301)."
        )
    if canonical(text) == BLANK_GUID:
        raise InvalidInput(
            f"The {what} is the blank guid {BLANK_GUID}, which names nothing: TimeXtender shows it "
            "as trigger id of executions that were started by hand, and these cannot be told apart."
        )
    return text


def canonical(id_: str) -> str:
    """Return the one spelling of a guid by which it is compared: 8-4-4-4-12 digits in lower case."""
    try:
        return str(uuid.UUID(id_))
    except ValueError:
        return id_


# --- objects --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A job of the organisation.

    :ivar id: its guid. :ivar name: its name, ``None`` if the API sent none. :ivar raw: all that was sent.
    """

    id: str
    name: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without ``raw``."""
        return {"id": self.id, "name": self.name}


@dataclass(frozen=True)
class JobStatus:
    """What a job is doing now. It is the job's status, not that of one execution.

    :ivar state: ``None`` if the API's word is missing or in no table; ``problem`` then says so.
    """

    job_id: str
    state: JobState | None
    problem: str | None = None
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without ``raw``."""
        return {"job_id": self.job_id, "state": self.state.value if self.state else None}


@dataclass(frozen=True)
class Submission:
    """The API's receipt for a queued job.

    :ivar trigger_id: unique to this one execution. :ivar message: its first thousand characters, as
        :func:`plain` shows them.
    """

    job_id: str
    trigger_id: str
    message: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without ``raw``."""
        return {"job_id": self.job_id, "trigger_id": self.trigger_id, "message": self.message}


@dataclass(frozen=True)
class Log:
    """One log entry of an execution.

    :ivar time: when, in UTC; ``None`` if unknown.
    :ivar severity: a key of :data:`SEVERITY_LEVELS`; ``None`` if the API's word is in no table.
    """

    time: datetime | None
    severity: str | None
    message: str
    trigger_id: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @property
    def level(self) -> int:
        """The level in Python's ``logging``; an unknown severity counts as info."""
        return SEVERITY_LEVELS[self.severity or "info"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without ``raw``."""
        return {
            "time": iso(self.time),
            "severity": self.severity,
            "message": self.message,
            "trigger_id": self.trigger_id,
        }


@dataclass(frozen=True)
class Execution:
    """One execution of a job, with its log.

    :ivar trigger_id: the guid under which it was started, as the execution or else its entries tell it; the
        blank one if it was started by hand, ``None`` if the API told none.
    :ivar state: ``None`` if the API's word is missing or in no table; ``problem`` then says so.
    :ivar start: in UTC; ``None`` if unknown. :ivar end: likewise; ``None`` also while it runs.
    :ivar start_problem: why a start that is there is not understood. :ivar end_problem: likewise.
    """

    job_id: str
    trigger_id: str | None
    state: ExecutionState | None
    start: datetime | None = None
    end: datetime | None = None
    message: str | None = None
    logs: tuple[Log, ...] = field(repr=False, default=())
    problem: str | None = None
    start_problem: str | None = None
    end_problem: str | None = None
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    def is_under(self, trigger_id: str) -> bool:
        """Tell whether it is the one that was started under a trigger id."""
        return self.trigger_id is not None and canonical(self.trigger_id) == canonical(trigger_id)

    @property
    def by_hand(self) -> bool:
        """Whether its trigger id says that it was started by hand."""
        return self.trigger_id is not None and canonical(self.trigger_id) == BLANK_GUID

    @property
    def is_over(self) -> bool:
        """Whether it has ended, whether or not it is known how and when."""
        ended = self.state is not None and self.state is not ExecutionState.RUNNING
        return ended or (self.state is None and not (self.end is None and self.end_problem is None))

    @property
    def duration(self) -> float | None:
        """Seconds from start to end, ``None`` if either is unknown."""
        if self.start is None or self.end is None:
            return None
        return (self.end - self.start).total_seconds()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without the log and ``raw``."""
        return {
            "job_id": self.job_id,
            "trigger_id": self.trigger_id,
            "state": self.state.value if self.state else None,
            "start": iso(self.start),
            "end": iso(self.end),
            "duration": self.duration,
        }


def iso(time: datetime | None) -> str | None:
    """Return a time as ISO 8601, and nothing for none."""
    return time.isoformat() if time else None


def parse_time(value: Any, zone: tzinfo = timezone.utc, *, fold: int = 0) -> datetime | None:
    """Return a time in UTC, ``None`` for what is no time, the years 1 and 9999 of .NET among that.

    :param value: ISO 8601; or as JSON of .NET and JavaScript has it: ``/Date(1764057600000)/``, or a number
        of seconds or milliseconds since 1970.
    :param zone: that of a time without an offset.
    :param fold: which of the two it is when clocks are set back: 0 for the first, 1 for the second.
    """
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _from_epoch(float(value))
        if not isinstance(value, str) or len(value) > 100:
            return None
        if epoch := _NET_DATE.fullmatch(value.strip()):
            return _from_epoch(float(epoch[1]) / 1000)
        # Python 3.10 reads neither "Z" nor the seven fractional digits of .NET.
        text = re.sub(r"(\.\d{6})\d+", r"\1", value.strip())
        text = re.sub(r"\.(\d{1,5})(?!\d)", lambda m: "." + m[1].ljust(6, "0"), text)
        text = re.sub(r"[zZ]$", "+00:00", text)
        time = datetime.fromisoformat(text)
        if time.year in (1, 9999):
            return None
        return time.replace(tzinfo=time.tzinfo or zone, fold=fold).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


_NET_DATE = re.compile(r"/Date\((-?\d{1,17})(?:[+-]\d{4})?\)/")

_FIRST_EPOCH = 100_000_000
"""Seconds since 1970 (March 1973) from which on a number is taken for a time."""


def _from_epoch(number: float) -> datetime | None:
    # Seconds up to the year 5138, and milliseconds from 1973 on: no number can be read as both.
    seconds = number / 1000 if number >= 1000 * _FIRST_EPOCH else number
    return datetime.fromtimestamp(seconds, timezone.utc) if seconds >= _FIRST_EPOCH else None


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """An HTTP answer as a carrier hands it over.

    :ivar where: method and URL, for messages. :ivar headers: with names in lower case.
    :ivar problem: why the body is not whole; ``None`` if it is.
    :ivar too_large: whether that is so because it is larger than what is read of it.
    """

    where: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    problem: str | None = None
    too_large: bool = False


@dataclass(frozen=True)
class _Reader:
    """Takes values out of one answer, and knows what to say when they are not there."""

    vocabulary: Vocabulary
    zone: tzinfo
    where: str

    def objects(self, data: Any) -> list[Mapping[str, Any]]:
        if data is None:  # how a server may say "nothing"; never a final answer about an execution
            return []
        if not isinstance(data, list):
            raise ContractError(f"{self.where}: expected a JSON array, found {_found(data)}.")
        return [self.object(item) for item in data]

    def object(self, data: Any) -> Mapping[str, Any]:
        if not isinstance(data, dict):
            raise ContractError(f"{self.where}: expected a JSON object, found {_found(data)}.")
        if len(data) > _MAX_MEMBERS:
            raise ContractError(
                f"{self.where}: a JSON object has {len(data)} members, more than {_MAX_MEMBERS}."
            )
        return data

    def get(self, obj: Mapping[str, Any], entry: str) -> Any:
        return self.vocabulary.member(obj, entry)

    def text(self, obj: Mapping[str, Any], entry: str) -> str | None:
        value = self.get(obj, entry)
        # JSON can hold half of a surrogate pair, which no log and no database can.
        return None if value is None else str(value).encode(errors="replace").decode()

    def time(self, obj: Mapping[str, Any], entry: str) -> tuple[datetime | None, str | None]:
        """Return a time, or None and why one that is there is not understood."""
        value = self.get(obj, entry)
        time = parse_time(value, self.zone)
        if _is_no_time(value) or (time is not None and time < _FIRST_TIME):
            return None, None
        if time is not None:
            return time, None
        return None, (
            f"{entry} is {_short(value)}, which is no time that is understood (ISO 8601 is). If another "
            f'member holds it, set {{"vocabulary": {{"fields": {{"{entry}": "..."}}}}}} in the extra of the '
            "connection."
        )

    def needed_guid(self, obj: Mapping[str, Any], entry: str) -> str:
        value = self.get(obj, entry)
        if value is None:
            raise ContractError(f"{self.where}: {self.missing(obj, entry)}")
        try:
            return guid(value, entry)
        except InvalidInput as error:
            raise ContractError(
                f"{self.where}: {error} If another member holds it, "
                f"override vocabulary.fields.{entry} in the extra of the connection."
            ) from None

    def meaning(self, obj: Mapping[str, Any], entry: str, section: str) -> tuple[str | None, str | None]:
        """Return the meaning of a word, or None and the problem with it."""
        words = [word for word in self.vocabulary.members(obj, entry) if word != ""]
        if not words:
            return None, self.missing(obj, entry)
        word, meaning = words[0], self.vocabulary.meaning(section, words[0])
        if {meaning, *(self.vocabulary.meaning(section, other) for other in words)} - {meaning, None}:
            return None, f"{entry} is told in several ways that contradict each other: {_short(words)}."
        if meaning is not None:
            return meaning, None
        table = self.vocabulary.spellings[section].items()
        known = "; ".join(f"{entry}: {', '.join(words)}" for entry, words in table)
        return None, (
            f"{entry} is {_short(word)}, a word in no table (known: {known}). If you know what it "
            f'means, set {{"vocabulary": {{"{section}": ...}}}} in the extra of the connection.'
        )

    def missing(self, obj: Mapping[str, Any], entry: str) -> str:
        expected = ", ".join(self.vocabulary.spellings["fields"][entry])
        return (
            f"no value for {entry}. Found the members {_short(list(obj))}, expected one of "
            f'{expected}. If it is called otherwise, set {{"vocabulary": {{"fields": '
            f'{{"{entry}": "..."}}}}}} in the extra of the connection.'
        )


def _job(obj: Mapping[str, Any], reader: _Reader) -> Job:
    return Job(reader.needed_guid(obj, "job.id"), reader.text(obj, "job.name"), obj)


def _job_status(obj: Mapping[str, Any], reader: _Reader, job_id: str | None = None) -> JobStatus:
    found = job_id or reader.needed_guid(obj, "status.job_id")
    state, problem = reader.meaning(obj, "status.state", "statuses")
    return JobStatus(found, JobState(state) if state else None, problem, obj)


def _submission(obj: Mapping[str, Any], reader: _Reader, job_id: str) -> Submission:
    message = reader.text(obj, "submission.message")
    return Submission(
        job_id=job_id,
        trigger_id=reader.needed_guid(obj, "submission.trigger_id"),
        message=plain(message[:1000]) if message is not None else None,
        raw=obj,
    )


def _log(obj: Mapping[str, Any], reader: _Reader) -> Log:
    return Log(
        time=reader.time(obj, "log.time")[0],
        severity=reader.vocabulary.meaning("severities", reader.get(obj, "log.severity")),
        message=reader.text(obj, "log.message") or "",
        trigger_id=_trigger_id(reader.get(obj, "log.trigger_id")),
        raw=obj,
    )


def _execution(obj: Mapping[str, Any], reader: _Reader, job_id: str) -> Execution:
    _refuse_an_entry(obj, reader)
    logs = tuple(_log(item, reader) for item in reader.objects(reader.get(obj, "execution.logs")))
    start, start_problem = reader.time(obj, "execution.start")
    end, end_problem = reader.time(obj, "execution.end")
    if start is not None and end is not None and end < start:
        # When clocks are set back, an hour of local times comes twice; this end is in the second then, or is
        # none: a date that nobody has set yet.
        second = parse_time(reader.get(obj, "execution.end"), reader.zone, fold=1)
        end = second if second is not None and second >= start else None
    state, problem = reader.meaning(obj, "execution.state", "states")
    word = next((w for w in reader.vocabulary.members(obj, "execution.state") if w != ""), None)
    if state not in (None, "running") and end is None and _is_code(word):
        # It may be the default of a number that nobody has set yet.
        code = f"execution.state is {_short(word)}, and a number says nothing while there is no end."
        state, problem = None, f"{code} {reader.missing(obj, 'execution.end')}"
    return Execution(
        job_id=job_id,
        trigger_id=_trigger_id_of(reader.get(obj, "execution.trigger_id"), logs),
        state=ExecutionState(state) if state else None,
        start=start,
        end=end,
        message=reader.text(obj, "execution.message"),
        logs=logs,
        problem=problem,
        start_problem=start_problem,
        end_problem=end_problem,
        raw=obj,
    )


_OF_EXECUTIONS = ("execution.start", "execution.end", "execution.logs")


def _refuse_an_entry(obj: Mapping[str, Any], reader: _Reader) -> None:
    """Refuse a log entry that stands where an execution is expected."""
    names = {_fold(name) for name in obj}
    spelled = reader.vocabulary.names
    if any(names.intersection(spelled[entry]) for entry in _OF_EXECUTIONS):
        return
    if any(names.intersection(spelled[entry]) for entry in ("log.time", "log.severity")):
        raise ContractError(
            f"{reader.where}: expected executions, each with its log in it, and found a log entry among "
            f"them, with the members {_short(list(obj))}. If it is an execution, name its members as "
            f"vocabulary.fields.{', .'.join(_OF_EXECUTIONS)} in the extra of the connection."
        )


def _is_code(word: Any) -> bool:
    return re.fullmatch(r"\s*-?\d+\s*", str(word)) is not None


_FIRST_TIME = datetime(1990, 1, 1, tzinfo=timezone.utc)
"""No execution is older; what is earlier is what a date has before somebody sets it, 1900 or 1970, say."""


def _is_no_time(value: Any) -> bool:
    """Tell whether a value says "not yet": nothing, zero, or the first or last year of .NET."""
    if isinstance(value, (int, float)):
        return value <= 0
    return value is None or str(value).strip() in ("", "0", "00:00:00") or bool(_NO_TIME.match(str(value)))


_NO_TIME = re.compile(r"0001-|9999-|01/01/0001|/Date\((0|-\d+)\)")


def _trigger_id(value: Any) -> str | None:
    """Return a trigger id as it is written, as far as it can stand in messages; ``None`` for none."""
    text = ascii(str(value).strip()[:200])[1:-1]
    return text if value is not None and text else None


def _trigger_id_of(own: Any, logs: Sequence[Log]) -> str | None:
    # The trigger id is "attached to the created logs" (documented); whether the execution itself carries it
    # too is not said. Where it does, that decides, unless it is the blank one that stands for none.
    # Entries that do not agree on one tell nothing.
    own_id, entries = _trigger_id(own), dict.fromkeys(log.trigger_id for log in logs)
    for ids in ([own_id], entries):
        named = [id_ for id_ in ids if id_ and _GUID.fullmatch(id_) and canonical(id_) != BLANK_GUID]
        if named:
            return named[0] if len(set(map(canonical, named))) == 1 else None
    return BLANK_GUID if any(id_ and canonical(id_) == BLANK_GUID for id_ in (own_id, *entries)) else None


# --- calls ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request as a value: what to send, and how to understand the answer.

    :ivar subject: what it asks for: the answers to all calls with the same one look alike.
    :ivar absent: makes what a 404 stands for, ``None`` where it is an error.
    :ivar limit: bytes of an answer, beyond which it is not read on. One about a single job takes a few
        hundred.
    """

    method: str
    path: str
    subject: str
    parse: Callable[[Any, _Reader], T] = field(repr=False)
    absent: Callable[[], T] | None = field(repr=False, default=None)
    limit: int = _MIB


LIST_OF = "list of "
"""Stands before the subject of a call of which it is only known that it is answered with a list."""

_LIST_LIMIT = 16 * _MIB
"""Fifty thousand jobs of 300 bytes each."""

_LOG_LIMIT = 64 * _MIB
"""Two hundred thousand log entries of 300 bytes each: a job's log comes whole, whatever its age."""


def list_jobs() -> Call[list[Job]]:
    """All jobs of the organisation."""
    return Call(
        "GET",
        "/public/jobs",
        "jobs",
        lambda data, r: [_job(o, r) for o in r.objects(data)],
        limit=_LIST_LIMIT,
    )


def execute_job(job_id: str) -> Call[Submission]:
    """Queue a job. Not idempotent: sent twice, it runs the load twice."""
    return Call(
        "POST",
        f"{_job_path(job_id)}/execute",
        "receipt",
        lambda data, r: _submission(r.object(data), r, job_id),
    )


def job_status(job_id: str) -> Call[JobStatus]:
    """What one job is doing."""
    return Call(
        "GET",
        f"{_job_path(job_id)}/status",
        "status",
        lambda data, r: _job_status(r.object(data), r, job_id),
    )


def all_job_statuses() -> Call[list[JobStatus]]:
    """What every job of the organisation is doing, in one answer."""
    return Call(
        "GET",
        "/public/jobs/status",
        "statuses",
        lambda data, r: [_job_status(o, r) for o in r.objects(data)],
        limit=_LIST_LIMIT,
    )


def job_logs(job_id: str, trigger_id: str | None = None) -> Call[list[Execution]]:
    """A job's executions with their logs; with a trigger id, what the API shows when asked for that one.

    It is not documented whether the filter leaves out executions, or only entries of them. So whoever wants
    the one execution asks each whether it is (:meth:`Execution.is_under`).
    """
    path = f"{_job_path(job_id)}/logs"
    if trigger_id is not None:
        path += f"/{_in_path(trigger_id, 'trigger id')}"
    return Call(
        "GET",
        path,
        "log",
        lambda data, r: [_execution(o, r, job_id) for o in r.objects(data)],
        limit=_LOG_LIMIT,
    )


def executions_so_far(job_id: str) -> Call[list[Execution]]:
    """A job's executions without their logs, which take most of the memory; a 404 means that it has none."""

    def parse(data: Any, reader: _Reader) -> list[Execution]:
        return [replace(_execution(o, reader, job_id), logs=(), raw={}) for o in reader.objects(data)]

    return replace(job_logs(job_id), parse=parse, absent=list)


def if_any(call: Call[list[Execution]]) -> Call[list[Execution]]:
    """A call for executions that may not show yet: a 404 means that, too."""
    return replace(call, absent=list)


def _job_path(job_id: str) -> str:
    return f"/public/jobs/{_in_path(job_id, 'job id')}"


def _in_path(id_: str, what: str) -> str:
    return quote(guid(id_, what), safe="")


def read(call: Call[T], answer: Answer, vocabulary: Vocabulary, zone: tzinfo = timezone.utc) -> T:
    """Return what an answer says.

    :param zone: that of times without an offset.
    :raises TimeXtenderError: the one of the tree that fits; see :func:`error_for` for error statuses.
    :raises UnreadableAnswer: if the status is a success and the body is not JSON, or not whole.
    :raises AnswerTooLarge: if the body is larger than what is read of it.
    :raises ContractError: if it is JSON, but not what the vocabulary describes.
    """
    if answer.status == 404 and call.absent is not None:
        return call.absent()
    if not 200 <= answer.status < 300:
        raise error_for(answer)
    many = _too_many(answer.body)
    if (problem := answer.problem or many) is not None:
        kind = AnswerTooLarge if answer.too_large or many else UnreadableAnswer
        raise kind(
            f"{answer.where}: HTTP {answer.status}, but the body is not read: {problem}. "
            f"{_LOG_ADVICE if call.subject == 'log' else ''}It begins: {excerpt(answer)}"
        )
    try:
        data = None if answer.status == 204 else json.loads(answer.body, object_pairs_hook=_object)
        return call.parse(data, _Reader(vocabulary, zone, answer.where))
    except ContractError as error:
        error.args = (f"{error} The answer was HTTP {answer.status}: {excerpt(answer)}",)
        raise
    except (ValueError, RecursionError):
        raise UnreadableAnswer(
            f"{answer.where}: HTTP {answer.status}, but the body is not JSON: {excerpt(answer)}"
        ) from None


_LOG_ADVICE = (
    "A job's log comes whole and grows: ask for one execution by its trigger id, or have old executions "
    "removed in TimeXtender. "
)


def _too_many(body: bytes) -> str | None:
    # A list that is empty takes less room than an object, and brackets are common in messages with SQL.
    if body.count(b"{") <= MAX_OBJECTS and body.count(b"[") <= 8 * MAX_OBJECTS:
        return None
    return f"it has {len(body)} bytes with more than {MAX_OBJECTS} JSON objects, or eight times as many lists"


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) == len(members):
        return found
    # Which one of two states or ids counts is not guessed: what is told in several ways becomes their list.
    told: dict[str, list[Any]] = {}
    for name, value in members:
        told.setdefault(name, []).append(value)
    return {name: v[0] if v.count(v[0]) == len(v) else v for name, v in told.items()}


def error_for(answer: Answer) -> TimeXtenderError:
    """Choose the error for an answer whose status is no success."""
    if answer.status == 429:
        return RateLimited(_said(answer, "Too many requests."), retry_after=_retry_after(answer))
    if answer.status < 200 or answer.status in _UNFINISHED:
        return ServerError(_said(answer, "It is no final answer."), retry_after=_retry_after(answer))
    if answer.status >= 500:
        return ServerError(_said(answer, "The server failed."), retry_after=_retry_after(answer))
    if 300 <= answer.status < 400:
        host = _HOST.match(answer.headers.get("location", ""))
        hint = (
            f"It redirects to {_short(host[1]) if host else 'another path'}, and redirects are not "
            "followed, so that the API key stays with its host. Check the Domain of the connection."
        )
    elif answer.status in (401, 403):
        hint = "The API key was refused. Check the API key (password) of the connection."
    elif answer.status == 404:
        hint = "No such job, or the Domain of the connection is not that of the TimeXtender API."
    else:
        hint = "The request was refused."
    return Refused(_said(answer, hint), status=answer.status)


MAX_RETRY_AFTER = 900.0
"""The longest ``Retry-After`` in seconds that is believed; some servers send a date's number there."""

_UNFINISHED = (408, 425, 499)
"""Statuses with which a gateway gives up on a request that may have gone on."""

_HOST = re.compile(r"(?:[a-z]+:)?//(?:[^/?#@]*@)?([^/?#]+)", re.IGNORECASE)


def _said(answer: Answer, hint: str) -> str:
    return f"{answer.where}: HTTP {answer.status}. {hint} The server said: {excerpt(answer)}"


def excerpt(answer: Answer) -> str:
    """The first 500 characters of a body, for messages."""
    text = plain(answer.body[: 8 * _EXCERPT_LENGTH].decode("utf-8", errors="replace").strip())
    return (text[:_EXCERPT_LENGTH] + "...") if len(text) > _EXCERPT_LENGTH else text or "(nothing)"


def _retry_after(answer: Answer) -> float | None:
    value = answer.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        wait = parsedate_to_datetime(value) - datetime.now(timezone.utc)
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, wait.total_seconds()), MAX_RETRY_AFTER)


def find_job(jobs: Sequence[Job], name: str) -> Job:
    """Return the one job of that name.

    :raises InvalidInput: if none or several have it; the message lists the candidates.
    """
    matches = [job for job in jobs if job.name == str(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = _some([job.id for job in matches])
        raise InvalidInput(f"{len(matches)} jobs are named {name!r}: {ids}. Give the job id instead.")
    raise InvalidInput(f"No job is named {name!r}. Jobs: {_names(jobs) or 'none'}.")


def _names(jobs: Iterable[Job]) -> str:
    return _some([_short(name) for name in sorted({job.name for job in jobs if job.name})])


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
