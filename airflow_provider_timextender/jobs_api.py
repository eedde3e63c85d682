"""The TimeXtender Jobs API: its calls, and what its answers say.

A call is a value (:class:`Call`); whoever carries it over the network hands the :class:`Answer` to
:func:`read`, which returns typed objects or raises one error of :mod:`~.errors`. Nothing here opens a
socket or knows Airflow; only the standard library is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone, tzinfo
from email.utils import parsedate_to_datetime
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
from airflow_provider_timextender.model import (
    BLANK_GUID,
    Execution,
    ExecutionState,
    Job,
    JobState,
    JobStatus,
    Log,
    Submission,
    canonical,
    guid,
    is_guid,
    parse_time,
    plain,
    short,
)
from airflow_provider_timextender.vocabulary import Vocabulary, fold

T = TypeVar("T")

DEFAULT_BASE_URL = "https://api.timextender.com"  # assumed

DEFAULT_API_KEY_HEADER = "x-api-key"  # assumed

_EXCERPT_LENGTH = 500

_MIB = 1024 * 1024

MAX_OBJECTS = 500_000
"""How many JSON objects an answer may hold: once understood, the smallest take more than a hundred times
their room in it. Log entries are so large that an answer reaches its limit in bytes before."""

_MAX_MEMBERS = 1000
"""How many members a JSON object may have; those of the API have about ten."""


def _found(data: Any) -> str:
    return f"an object with the members {short(list(data))}" if isinstance(data, dict) else short(data)


# --- reading -----------------------------------------------------------------------------------------


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
            f"{entry} is {short(value)}, which is no time that is understood (ISO 8601 is). If another "
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
            return None, f"{entry} is told in several ways that contradict each other: {short(words)}."
        if meaning is not None:
            return meaning, None
        table = self.vocabulary.spellings[section].items()
        known = "; ".join(f"{entry}: {', '.join(words)}" for entry, words in table)
        return None, (
            f"{entry} is {short(word)}, a word in no table (known: {known}). If you know what it "
            f'means, set {{"vocabulary": {{"{section}": ...}}}} in the extra of the connection.'
        )

    def missing(self, obj: Mapping[str, Any], entry: str) -> str:
        expected = ", ".join(self.vocabulary.spellings["fields"][entry])
        return (
            f"no value for {entry}. Found the members {short(list(obj))}, expected one of "
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
        code = f"execution.state is {short(word)}, and a number says nothing while there is no end."
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
    names = {fold(name) for name in obj}
    spelled = reader.vocabulary.names
    if any(names.intersection(spelled[entry]) for entry in _OF_EXECUTIONS):
        return
    if any(names.intersection(spelled[entry]) for entry in ("log.time", "log.severity")):
        raise ContractError(
            f"{reader.where}: expected executions, each with its log in it, and found a log entry among "
            f"them, with the members {short(list(obj))}. If it is an execution, name its members as "
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
        named = [id_ for id_ in ids if id_ and is_guid(id_) and canonical(id_) != BLANK_GUID]
        if named:
            return named[0] if len(set(map(canonical, named))) == 1 else None
    return BLANK_GUID if any(id_ and canonical(id_) == BLANK_GUID for id_ in (own_id, *entries)) else None


# --- calls -------------------------------------------------------------------------------------------


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
            f"It redirects to {short(host[1]) if host else 'another path'}, and redirects are not "
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
