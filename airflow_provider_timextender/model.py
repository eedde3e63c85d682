"""Jobs, their executions and their logs, whatever wire layer tells of them.

Only the standard library is used.
"""

from __future__ import annotations

import re
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone, tzinfo
from difflib import get_close_matches
from enum import Enum, StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, ClassVar

from airflow_provider_timextender.errors import ContractError, InvalidInput
from airflow_provider_timextender.naming import Of
from airflow_provider_timextender.naming import short as short

BLANK_GUID = "00000000-0000-0000-0000-000000000000"
"""What the API shows as trigger id of an execution that was started by hand (documented)."""


class JobState(StrEnum):
    """What a *job* is doing. Idle means "not running", never "succeeded"."""

    IDLE = "idle"
    PENDING = "pending"
    RUNNING = "running"


class ExecutionState(StrEnum):
    """How far one *execution* of a job is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


SEVERITY_LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""Severities of log entries, lowest first, with their level in Python's ``logging``."""

LAST_ERRORS = 5
"""How many errors of an execution's log are known of one of which only the end is kept."""

_KEYS = uuid.UUID("6f9a3c52-7d0b-4c8e-9a41-2be5d1f0c7a3")
"""The namespace of the keys of executions without a trigger id; a new one would make new keys of old rows."""

_GUID = re.compile(r"(\{)?[0-9a-f]{8}(-?)([0-9a-f]{4}\2){3}[0-9a-f]{12}(?(1)\})", re.IGNORECASE)


def is_guid(text: str) -> bool:
    """Tell whether a text is a guid, with hyphens or without, in braces or not."""
    return _GUID.fullmatch(text) is not None


def guid(value: Any, what: str) -> str:
    """Return a guid as it is written, the only kind of id that is ever put into a URL.

    A server may compare ids letter by letter, so that its own spelling is kept: in upper case, or in braces.
    Ids are compared by :func:`canonical`.

    :param value: the id, as text or :class:`uuid.UUID`.
    :param what: what the id names, for the error: ``"job id"`` or ``"trigger id"``.
    :raises InvalidInput: if it is not a guid, or the blank one.
    """
    text = str(value)
    if not is_guid(text):
        raise InvalidInput(
            f"The {what} {short(value)} is not a guid "
            "(expected 8-4-4-4-12 hexadecimal digits, like 3f2504e0-4f89-11d3-9a0c-0305e82c3301)."
        )
    if canonical(text) == BLANK_GUID:
        raise InvalidInput(
            f"The {what} is the blank guid {BLANK_GUID}, which names nothing: TimeXtender shows it "
            "as trigger id of executions that were started by hand, and these cannot be told apart."
        )
    return text


@lru_cache(maxsize=4096)
def canonical(id_: str) -> str:
    """Return the one spelling of a guid by which it is compared: 8-4-4-4-12 digits in lower case.

    Kept, as a triggerer asks for the same ids again at each look of each task that waits: by default it has
    a thousand of them at most, each with a trigger id and a job id.
    """
    try:
        return str(uuid.UUID(id_))
    except ValueError:
        return id_


def checksum(text: str) -> str:
    """Return eight characters that tell a text from others, where many are remembered."""
    return urlsafe_b64encode(blake2b(text.encode(errors="replace"), digest_size=6).digest()).decode()


class AsDict:
    """A dataclass that can be had as plain JSON values."""

    _in_dict: ClassVar[tuple[str, ...]] = ()
    """The names of what is in it; all fields, if none are named."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: times as ISO 8601, states as their words, tuples as lists."""
        names = self._in_dict or [f.name for f in fields(self)]  # type: ignore[arg-type]
        return {name: _plain_value(getattr(self, name)) for name in names}


def _plain_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Job(AsDict):
    """A job of the organisation.

    :ivar id: its guid. :ivar name: ``None`` if the API sent none; ``problem`` then says so.
    :ivar raw: all that was sent.
    """

    _in_dict = ("id", "name")

    id: str
    name: str | None
    problem: str | None = field(repr=False, compare=False, default=None)
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)


@dataclass(frozen=True)
class JobStatus(AsDict):
    """What a job is doing now. It is the job's status, not that of one execution.

    :ivar state: ``None`` if the API's word is missing or in no table; ``problem`` then says so.
    """

    _in_dict = ("job_id", "state")

    job_id: str
    state: JobState | None
    problem: str | None = None
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)


@dataclass(frozen=True)
class Submission(AsDict):
    """The API's receipt for a queued job.

    :ivar trigger_id: unique to this one execution. :ivar message: its first thousand characters, as
        :func:`plain` shows them.
    """

    _in_dict = ("job_id", "trigger_id", "message")

    job_id: str
    trigger_id: str
    message: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)


@dataclass(frozen=True)
class Log(AsDict):
    """One log entry of an execution.

    :ivar time: when, in UTC; ``None`` if unknown.
    :ivar severity: a key of :data:`SEVERITY_LEVELS`; ``None`` if the API's word is in no table.
    :ivar line: its place in the whole log of its execution, from 1 on.
    """

    _in_dict = ("time", "severity", "message", "trigger_id")

    time: datetime | None
    severity: str | None
    message: str
    trigger_id: str | None
    line: int | None = field(compare=False, default=None)
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @property
    def level(self) -> int:
        """The level in Python's ``logging``; an unknown severity counts as info."""
        return SEVERITY_LEVELS[self.severity or "info"]

    @property
    def is_error(self) -> bool:
        """Whether it tells of an error."""
        return self.level >= SEVERITY_LEVELS["error"]


@dataclass(frozen=True)
class Execution(AsDict):
    """One execution of a job, with its log.

    :ivar trigger_id: the guid under which it was started, as the execution or else its entries tell it; the
        blank one if it was started by hand, ``None`` if the API told none.
    :ivar state: ``None`` if the API's word is missing or in no table; ``problem`` then says so.
    :ivar start: in UTC; ``None`` if unknown. :ivar end: likewise; ``None`` also while it runs.
    :ivar message: what TimeXtender says of it, as it came; ``None`` if nothing.
    :ivar logs: what is kept of its log: all, what a filter wants, or the end; it has a length, and may be
        gone through several times. :ivar last_errors: the last errors of all of it.
    :ivar log_counts: how many entries of all of it have each severity, ``None`` for one that is not known.
    :ivar log_known: the logical fields, such as ``log.time``, of which some entry tells what is understood.
    :ivar start_problem: why a start that is there is not understood. :ivar end_problem: likewise.
    :ivar log_problems: what is not understood of its log, by the logical field.
    """

    _in_dict = ("job_id", "trigger_id", "state", "start", "end", "duration", "message", "problem")

    job_id: str
    trigger_id: str | None
    state: ExecutionState | None
    start: datetime | None = None
    end: datetime | None = None
    message: str | None = None
    logs: Sequence[Log] = field(repr=False, default=())
    last_errors: tuple[Log, ...] = field(repr=False, default=())
    log_counts: Mapping[str | None, int] = field(repr=False, default_factory=dict)
    log_known: frozenset[str] = field(repr=False, compare=False, default=frozenset())
    log_problems: Mapping[str, str] = field(repr=False, compare=False, default_factory=dict)
    problem: str | None = None
    start_problem: str | None = None
    end_problem: str | None = None
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    def is_under(self, trigger_id: str) -> bool:
        """Tell whether it is the one that was started under a trigger id."""
        return self.trigger_id is not None and canonical(self.trigger_id) == canonical(trigger_id)

    @property
    def log_count(self) -> int:
        """How many entries its log has, kept or not."""
        return sum(self.log_counts.values())

    @property
    def key(self) -> str:
        """A guid that tells it from other executions, and stays the same: its trigger id, if it has one.

        One without, as one by hand is, has a key made of its job and its start: of its end, where no start is
        known, and of all else that is told of it, where neither is (see :attr:`key_stays`). Two of a job that
        began by hand in the same moment share it.
        """
        if self.trigger_id is not None and not self.by_hand:
            return canonical(self.trigger_id)
        # A start does not change, as an end does that is not known yet.
        told = self.start or self.end or sorted((name, str(value)) for name, value in self.raw.items())
        return str(uuid.uuid5(_KEYS, f"{canonical(self.job_id)} {told}"))

    @property
    def key_stays(self) -> bool:
        """Whether its key is that which it will have: it changes when a start or an end is told at last."""
        named = self.trigger_id is not None and not self.by_hand
        return named or self.start is not None or self.is_over

    @property
    def by_hand(self) -> bool:
        """Whether its trigger id says that it was started by hand."""
        return self.trigger_id is not None and canonical(self.trigger_id) == BLANK_GUID

    @property
    def is_over(self) -> bool:
        """Whether it has ended, whether or not it is known how and when."""
        if self.state is None:
            return self.end is not None or self.end_problem is not None
        return self.state is not ExecutionState.RUNNING

    @property
    def duration(self) -> float | None:
        """Seconds from start to end, ``None`` if either is unknown."""
        if self.start is None or self.end is None:
            return None
        return (self.end - self.start).total_seconds()


def job_with(jobs: Sequence[Job], job_id: str) -> Job:
    """Return the job with an id.

    :raises InvalidInput: if there is none.
    """
    for job in jobs:
        if canonical(job.id) == canonical(job_id):
            return job
    raise InvalidInput(f"The organisation has no job with the id {job_id}.")


def pick(jobs: Sequence[Job], given: Of) -> Job:
    """Return the one job that is told by an id, by an exact name, or by both.

    :raises InvalidInput: unless exactly one job matches what is given.
    """
    if given.job_name is None:
        return job_with(jobs, str(given.job_id))
    return find_job(jobs, given.job_name, given.job_id)


def find_job(jobs: Sequence[Job], name: str, job_id: str | None = None) -> Job:
    """Return the one job of that name.

    :param job_id: the id that it must have, if that is given as well.
    :raises InvalidInput: if none or several have it; the message names those that it may be. If it has
        another id.
    :raises ContractError: if none of the jobs has a name that is understood.
    """
    if job_id is not None:
        job = job_with(jobs, job_id)
        if job.name == str(name):
            return job
        named = f"named {short(job.name)}." if job.name else f"of which no name is understood: {job.problem}"
        raise InvalidInput(
            f"The job name {short(name)} and the job id that was given with it do not belong together, so "
            f"one of them is to be corrected, or left out. The id {job_id} is that of a job {named}"
        )
    matches = [job for job in jobs if job.name == str(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = listed([job.id for job in matches])
        raise InvalidInput(f"{len(matches)} jobs are named {name!r}: {ids}. Give the job id instead.")
    names = sorted({job.name for job in jobs if job.name})
    problem = next((job.problem for job in jobs if job.problem), None)
    if problem and not names:
        raise ContractError(f"No job can be found by name, {name!r}: {problem}")
    alike = get_close_matches(str(name).casefold(), [one.casefold() for one in names])
    near = [short(one) for one in names if one.casefold() in alike]
    raise InvalidInput(
        f"No job is named {name!r}. {f'Did you mean {listed(near)}? ' if near else ''}"
        f"Jobs: {listed([short(one) for one in names])}.{f' Of others: {problem}' if problem else ''}"
    )


def listed(items: Sequence[str]) -> str:
    """Return the first twenty of some items in words."""
    shown = ", ".join(items[:20]) or "none"
    return f"{shown} and {len(items) - 20} more" if len(items) > 20 else shown


_UNSET = re.compile(r"|0|00:00:00|(0001|9999)(-|W|\d{4}(\D|$)).*|01/01/0001.*|/Date\((0|-\d+)\).*", re.DOTALL)
"""What says of a time that nobody has set it yet: nothing, zero, or the first or last year of .NET."""

_NET_DATE = re.compile(r"/Date\((-?\d{1,17})(?:[+-]\d{4})?\)/")

_FIRST_EPOCH = 100_000_000
"""Seconds since 1970 (March 1973) from which on a number is taken for a time."""


def is_unset(value: Any) -> bool:
    """Tell whether what stands for a time says that there is none yet."""
    if isinstance(value, (int, float)):
        return value <= 0
    return value is None or _UNSET.fullmatch(str(value).strip()) is not None


def parse_time(value: Any, zone: tzinfo = timezone.utc, *, fold: int = 0) -> datetime | None:
    """Return a time in UTC, ``None`` for what is no time or says that there is none yet.

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
        time = _usual_time(value)
        if time is None:
            if is_unset(value):
                return None
            if epoch := _NET_DATE.fullmatch(value.strip()):
                return _from_epoch(float(epoch[1]) / 1000)
            # Python reads no "z", and no space between a fraction and the offset, as SQL Server writes it.
            text = re.sub(r"[zZ]$", "+00:00", value.strip())
            time = datetime.fromisoformat(re.sub(r"(\.\d+) +(?=[+-])", r"\1", text))
        if time.tzinfo is timezone.utc:
            return time
        return time.replace(tzinfo=time.tzinfo or zone, fold=fold).astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):  # OSError: a number that the platform has no date for
        return None


def _usual_time(value: str) -> datetime | None:
    """Return a time that comes as nearly all do; the other ways take five times as long to read."""
    if value[:2] not in ("19", "20"):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def _from_epoch(number: float) -> datetime | None:
    # Seconds up to the year 5138, and milliseconds from 1973 on: no number can be read as both.
    seconds = number / 1000 if number >= 1000 * _FIRST_EPOCH else number
    return datetime.fromtimestamp(seconds, timezone.utc) if seconds >= _FIRST_EPOCH else None


def plain(text: str) -> str:
    """Return a text that cannot look like more than one: lines indented, control characters shown."""
    lines = (
        "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line)
        for line in text.splitlines()
    )
    return "\n    ".join(lines)
