"""The TimeXtender Jobs API: its calls, and what its answers say.

A call is a value (:class:`Call`); whoever carries it over the network hands the :class:`Answer` to
:func:`read`, which returns typed objects or raises one error of :mod:`~.errors`. Nothing here opens a
socket or knows Airflow; only the standard library is used.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone, tzinfo
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from airflow_provider_timextender import errors, model
from airflow_provider_timextender.vocabulary import Vocabulary, is_code, override_hint

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


_FIRST_TIME = datetime(1990, 1, 1, tzinfo=timezone.utc)
"""No execution is older; what is earlier is what a date has before somebody sets it, 1900 or 1970, say."""

_OF_EXECUTIONS = ("execution.start", "execution.end", "execution.logs")

_WRAPPED = (
    'If a member of it holds the list, set {"vocabulary": {"fields": {"list.items": "..."}}} in the extra of '
    "the connection."
)

_FLAT = (
    "If entries tell to which execution they belong, set "
    '{"vocabulary": {"fields": {"log.execution_id": "..."}}} in the extra of the connection, and '
    "execution.id likewise if it is not the trigger id. If it is an execution, name its members as "
    f"{', '.join(_OF_EXECUTIONS)} there."
)


@dataclass(frozen=True)
class _Parser:
    """Takes typed objects out of one answer, and knows what to say when they are not there."""

    vocabulary: Vocabulary
    zone: tzinfo
    where: str
    size: int = 0

    # What a JSON object stands for

    def job(self, obj: Mapping[str, Any]) -> model.Job:
        name = self.text(obj, "job.name")
        problem = None if name else self.vocabulary.missing(obj, "job.name")
        return model.Job(self.needed_guid(obj, "job.id"), name, problem, obj)

    def status(self, obj: Mapping[str, Any], job_id: str | None = None) -> model.JobStatus:
        job_id = job_id or self.needed_guid(obj, "status.job_id")
        state, problem = self.meaning(obj, "status.state", "statuses")
        return model.JobStatus(job_id, model.JobState(state) if state else None, problem, obj)

    def submission(self, obj: Mapping[str, Any], job_id: str) -> model.Submission:
        trigger_id = self.needed_guid(obj, "submission.trigger_id")
        message = self.text(obj, "submission.message")
        return model.Submission(job_id, trigger_id, message and model.plain(message[:1000]), obj)

    def log(self, obj: Mapping[str, Any]) -> model.Log:
        return model.Log(
            time=self.time(obj, "log.time")[0],
            severity=self.vocabulary.meaning("severities", self.vocabulary.member(obj, "log.severity")),
            message=self.text(obj, "log.message") or "",
            trigger_id=self.trigger_id(obj, "log.trigger_id"),
            raw=obj,
        )

    def executions(self, data: Any, job_id: str) -> list[model.Execution]:
        objects = self.objects(data)
        flat = [obj for obj in objects if self.is_entry(obj)]
        if not flat:
            return [self.execution(obj, job_id) for obj in objects]
        return self.joined([obj for obj in objects if not self.is_entry(obj)], flat, job_id)

    def is_entry(self, obj: Mapping[str, Any]) -> bool:
        """Tell whether an object of a list of executions is a log entry."""
        of_entry = self.vocabulary.has(obj, "log.time", "log.severity")
        return of_entry and not self.vocabulary.has(obj, *_OF_EXECUTIONS)

    def joined(
        self, objects: Sequence[Mapping[str, Any]], flat: Sequence[Mapping[str, Any]], job_id: str
    ) -> list[model.Execution]:
        """Return executions with the log entries that lie beside them."""
        if not self.vocabulary.adds("log.execution_id"):
            raise errors.ContractError(
                f"{self.where}: expected executions, each with its log in it, and found a log entry among "
                f"them, with the members {model.short(list(flat[0]))}. {_FLAT}"
            )
        logs: dict[str, list[Mapping[str, Any]]] = {}
        for entry in flat:
            logs.setdefault(self.key(entry, "log.execution_id"), []).append(entry)
        keys = [self.key(obj, "execution.id", "execution.trigger_id") for obj in objects]
        if objects and logs.keys().isdisjoint(keys):
            raise errors.ContractError(
                f"{self.where}: none of {len(flat)} log entries belongs to one of {len(objects)} executions. "
                f"{_FLAT}"
            )
        # Several under one key were started by hand: which of them an entry belongs to, nobody knows.
        count = Counter(keys)
        return [
            self.execution(obj, job_id, logs.get(key, []) if count[key] == 1 else [])
            for key, obj in zip(keys, objects, strict=True)
        ]

    def key(self, obj: Mapping[str, Any], *entries: str) -> str:
        """Return what joins executions and entries: the first of several fields that holds something."""
        found = (self.vocabulary.member(obj, entry) for entry in entries)
        return model.canonical(str(next((value for value in found if value is not None), "")))

    def execution(
        self, obj: Mapping[str, Any], job_id: str, flat: Sequence[Mapping[str, Any]] | None = None
    ) -> model.Execution:
        logs = tuple(map(self.log, self.entries(obj) if flat is None else flat))
        start, start_problem = self.time(obj, "execution.start")
        end, end_problem = self.time(obj, "execution.end")
        if start is not None and end is not None and end < start:
            # When clocks are set back, an hour of local times comes twice; this end is in the second then, or
            # is none: a date that nobody has set yet.
            second = model.parse_time(self.vocabulary.member(obj, "execution.end"), self.zone, fold=1)
            end = second if second is not None and second >= start else None
        state, problem = self.execution_state(obj, ended=end is not None)
        return model.Execution(
            job_id=job_id,
            trigger_id=_trigger_id_of(self.trigger_id(obj, "execution.trigger_id"), logs),
            state=state,
            start=start,
            end=end,
            message=self.text(obj, "execution.message"),
            logs=logs,
            log_problems=self.log_problems(obj, logs, nested=flat is None),
            problem=problem,
            start_problem=start_problem,
            end_problem=end_problem,
            raw=obj,
        )

    def entries(self, obj: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        held = self.vocabulary.member(obj, "execution.logs")
        for outer in obj.values():  # a list that is named as Logs.Items has been taken out of its wrapper
            if (
                isinstance(outer, dict)
                and isinstance(held, list)
                and any(it is held for it in outer.values())
            ):
                self.refuse_half(outer, held)
        return self.objects(held)

    def log_problems(
        self, obj: Mapping[str, Any], logs: Sequence[model.Log], *, nested: bool
    ) -> Mapping[str, str]:
        if not logs:
            there = not nested or self.vocabulary.has(obj, "execution.logs")
            return {} if there else {"execution.logs": self.vocabulary.missing(obj, "execution.logs")}
        problems = {}
        if untimed := next((log.raw for log in logs if log.time is None), None):
            problems["log.time"] = self.time(untimed, "log.time")[1] or self.vocabulary.missing(
                untimed, "log.time"
            )
        if unknown := next((log.raw for log in logs if log.severity is None), None):
            problem = self.meaning(unknown, "log.severity", "severities")[1]
            problems["log.severity"] = str(problem)
        if not any(self.vocabulary.has(log.raw, "log.message") for log in logs):
            problems["log.message"] = self.vocabulary.missing(logs[0].raw, "log.message")
        return problems

    def execution_state(
        self, obj: Mapping[str, Any], *, ended: bool
    ) -> tuple[model.ExecutionState | None, str | None]:
        word, problem = self.meaning(obj, "execution.state", "states")
        if word is None:
            return None, problem
        state = model.ExecutionState(word)
        code = self.words(obj, "execution.state")[0]
        if state is model.ExecutionState.RUNNING or ended or not is_code(str(code)):
            return state, None
        # It may be the default of a number that nobody has set yet.
        said = f"execution.state is {model.short(code)}, and a number says nothing while there is no end."
        return None, f"{said} {self.vocabulary.missing(obj, 'execution.end')}"

    # What one of its members holds

    def objects(self, data: Any) -> list[Mapping[str, Any]]:
        if isinstance(data, dict):
            data = self.unwrapped(data)
        if data is None:  # how a server may say "nothing"; never a final answer about an execution
            return []
        if not isinstance(data, list):
            raise self.unexpected("array", data)
        return [self.object(item) for item in data]

    def unwrapped(self, wrapper: Mapping[str, Any]) -> Any:
        """Return the list that an object holds.

        :raises ContractError: if the object says that there is more of it.
        """
        items = self.vocabulary.member(wrapper, "list.items")
        self.refuse_half(wrapper, items)
        if not self.vocabulary.has(wrapper, "list.items"):
            raise self.unexpected("array", wrapper)
        return items

    def refuse_half(self, wrapper: Mapping[str, Any], items: Any) -> None:
        for place in (wrapper, *(value for value in wrapper.values() if isinstance(value, dict))):
            if following := self.vocabulary.member(place, "list.next"):
                raise self.half(f"the next page is {model.short(following)}")
            total = self.vocabulary.member(place, "list.total")
            if isinstance(items, list) and is_code(str(total)) and int(total) > len(items):
                raise self.half(f"it holds {len(items)} of {total} items")

    def half(self, why: str) -> errors.ContractError:
        return errors.ContractError(
            f"{self.where}: the answer is a page of a longer list ({why}). The published API has no pages, "
            "so the rest cannot be read, and half a list is not taken for the whole."
        )

    def object(self, data: Any) -> Mapping[str, Any]:
        if not isinstance(data, dict):
            raise self.unexpected("object", data)
        if len(data) > _MAX_MEMBERS:
            raise errors.ContractError(
                f"{self.where}: a JSON object has {len(data)} members, more than {_MAX_MEMBERS}."
            )
        return data

    def unexpected(self, wanted: str, data: Any) -> errors.ContractError:
        members = "an object with the members " if isinstance(data, dict) else ""
        found = members + model.short(list(data) if members else data)
        hint = f" {_WRAPPED}" if members and any(isinstance(value, list) for value in data.values()) else ""
        return errors.ContractError(f"{self.where}: expected a JSON {wanted}, found {found}.{hint}")

    def text(self, obj: Mapping[str, Any], entry: str) -> str | None:
        value = self.vocabulary.member(obj, entry)
        # JSON can hold half of a surrogate pair, which no log and no database can.
        return None if value is None else str(value).encode(errors="replace").decode()

    def trigger_id(self, obj: Mapping[str, Any], entry: str) -> str | None:
        """Return a trigger id as it is written, as far as it can stand in messages; ``None`` for none."""
        value = self.vocabulary.member(obj, entry)
        return None if value is None else ascii(str(value).strip()[:200])[1:-1] or None

    def needed_guid(self, obj: Mapping[str, Any], entry: str) -> str:
        value = self.vocabulary.member(obj, entry)
        if value is None:
            raise errors.ContractError(f"{self.where}: {self.vocabulary.missing(obj, entry)}")
        try:
            return model.guid(value, entry)
        except errors.InvalidInput as error:
            raise errors.ContractError(f"{self.where}: {error} {override_hint('it', entry)}") from None

    def time(self, obj: Mapping[str, Any], entry: str) -> tuple[datetime | None, str | None]:
        """Return a time, or None and why one that is there is not understood."""
        value = self.vocabulary.member(obj, entry)
        time = model.parse_time(value, self.zone)
        if time is not None:
            return (time if time >= _FIRST_TIME else None), None
        if model.is_unset(value):
            return None, None
        said = f"{entry} is {model.short(value)}, which is no time that is understood (ISO 8601 is)."
        return None, f"{said} {override_hint('it', entry)}"

    def words(self, obj: Mapping[str, Any], entry: str) -> list[Any]:
        return [word for word in self.vocabulary.members(obj, entry) if word != ""]

    def meaning(self, obj: Mapping[str, Any], entry: str, section: str) -> tuple[str | None, str | None]:
        """Return the meaning of a word, or None and the problem with it."""
        words = self.words(obj, entry)
        if not words:
            return None, self.vocabulary.missing(obj, entry)
        meaning, *others = (self.vocabulary.meaning(section, word) for word in words)
        if set(others) - {meaning, None}:
            return None, f"{entry} is told in several ways that contradict each other: {model.short(words)}."
        if meaning is not None:
            return meaning, None
        return None, self.vocabulary.unknown(words[0], entry, section)


def _trigger_id_of(own: str | None, logs: Sequence[model.Log]) -> str | None:
    # The trigger id is "attached to the created logs" (documented); whether the execution itself carries it
    # too is not said. Where it does, that decides, unless it is the blank one that stands for none.
    # Entries that do not agree on one tell nothing.
    entries = dict.fromkeys(log.trigger_id for log in logs)
    for ids in ([own], entries):
        named = [
            id_ for id_ in ids if id_ and model.is_guid(id_) and model.canonical(id_) != model.BLANK_GUID
        ]
        if named:
            return named[0] if len(set(map(model.canonical, named))) == 1 else None
    blank = any(id_ and model.canonical(id_) == model.BLANK_GUID for id_ in (own, *entries))
    return model.BLANK_GUID if blank else None


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
    parse: Callable[[_Parser, Any], T] = field(repr=False)
    absent: Callable[[], T] | None = field(repr=False, default=None)
    limit: int = _MIB


LIST_OF = "list of "
"""Stands before the subject of a call of which it is only known that it is answered with a list."""

_LIST_LIMIT = 16 * _MIB
"""Fifty thousand jobs of 300 bytes each."""

LOG_LIMIT = 64 * _MIB
"""Two hundred thousand log entries of 300 bytes each: a job's log comes whole, whatever its age."""


def list_jobs() -> Call[list[model.Job]]:
    """All jobs of the organisation."""

    def parse(parser: _Parser, data: Any) -> list[model.Job]:
        return [parser.job(obj) for obj in parser.objects(data)]

    return Call("GET", "/public/jobs", "jobs", parse, limit=_LIST_LIMIT)


def execute_job(job_id: str) -> Call[model.Submission]:
    """Queue a job. Not idempotent: sent twice, it runs the load twice."""

    def parse(parser: _Parser, data: Any) -> model.Submission:
        return parser.submission(parser.object(data), job_id)

    return Call("POST", f"{_path(job_id)}/execute", "receipt", parse)


def job_status(job_id: str) -> Call[model.JobStatus]:
    """What one job is doing."""

    def parse(parser: _Parser, data: Any) -> model.JobStatus:
        return parser.status(parser.object(data), job_id)

    return Call("GET", f"{_path(job_id)}/status", "status", parse)


def all_job_statuses() -> Call[list[model.JobStatus]]:
    """What every job of the organisation is doing, in one answer."""

    def parse(parser: _Parser, data: Any) -> list[model.JobStatus]:
        return [parser.status(obj) for obj in parser.objects(data)]

    return Call("GET", "/public/jobs/status", "statuses", parse, limit=_LIST_LIMIT)


def job_logs(job_id: str, trigger_id: str | None = None) -> Call[list[model.Execution]]:
    """A job's executions with their logs; with a trigger id, what the API shows when asked for that one.

    It is not documented whether the filter leaves out executions, or only entries of them. So whoever wants
    the one execution asks each whether it is (:meth:`~.model.Execution.is_under`).
    """

    def parse(parser: _Parser, data: Any) -> list[model.Execution]:
        return parser.executions(data, job_id)

    path = f"{_path(job_id)}/logs"
    if trigger_id is not None:
        path += f"/{_in_path(trigger_id, 'trigger id')}"
    return Call("GET", path, "log", parse, limit=LOG_LIMIT)


def executions_so_far(job_id: str) -> Call[list[model.Execution]]:
    """A job's executions without their logs, which take most of the memory; a 404 means that it has none."""

    def parse(parser: _Parser, data: Any) -> list[model.Execution]:
        return [replace(execution, logs=(), raw={}) for execution in parser.executions(data, job_id)]

    return replace(job_logs(job_id), parse=parse, absent=list)


def if_any(call: Call[list[model.Execution]]) -> Call[list[model.Execution]]:
    """A call for executions that may not show yet: a 404 means that, too."""
    return replace(call, absent=list)


@dataclass(frozen=True)
class Raw(Generic[T]):
    """An answer as it came, to be understood later.

    :ivar data: its JSON. :ivar size: bytes of its body, unpacked.
    """

    call: Call[T]
    where: str
    data: Any = field(repr=False)
    size: int

    def read(self, vocabulary: Vocabulary, zone: tzinfo) -> T:
        """Return what it says.

        :raises ContractError: if that is not what the vocabulary describes.
        """
        return self.call.parse(_Parser(vocabulary, zone, self.where), self.data)


def raw(call: Call[T]) -> Call[Raw[T]]:
    """A call whose answer is only looked at."""

    def parse(parser: _Parser, data: Any) -> Raw[T]:
        return Raw(call, parser.where, data, parser.size)

    nothing = None if call.absent is None else lambda: Raw(call, call.path, None, 0)
    return Call(call.method, call.path, call.subject, parse, nothing, call.limit)


def _path(job_id: str) -> str:
    return f"/public/jobs/{_in_path(job_id, 'job id')}"


def _in_path(id_: str, what: str) -> str:
    return quote(model.guid(id_, what), safe="")


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
        kind = errors.AnswerTooLarge if answer.too_large or many else errors.UnreadableAnswer
        advice = _LOG_ADVICE if call.subject == "log" else ""
        raise kind(
            f"{answer.where}: HTTP {answer.status}, but the body is not read: {problem}. "
            f"{advice}It begins: {excerpt(answer)}"
        )
    try:
        data = None if answer.status == 204 else json.loads(answer.body, object_pairs_hook=_object)
        parser = _Parser(vocabulary, zone, answer.where, len(answer.body))
        if _NEXT.search(answer.headers.get("link", "")):
            raise parser.half("its Link header names the next one")
        return call.parse(parser, data)
    except errors.ContractError as error:
        error.args = (f"{error} The answer was HTTP {answer.status}: {excerpt(answer)}",)
        raise
    except (ValueError, RecursionError):
        raise errors.UnreadableAnswer(
            f"{answer.where}: HTTP {answer.status}, but the body is not JSON: {excerpt(answer)}"
        ) from None


_NEXT = re.compile(r"""\brel\s*=\s*["']?[^"',;]*\bnext\b""", re.IGNORECASE)
"""A link to the next page, as https://www.rfc-editor.org/rfc/rfc8288 writes it."""

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


def error_for(answer: Answer) -> errors.TimeXtenderError:
    """Choose the error for an answer whose status is no success."""
    status = answer.status
    if status == 429:
        return errors.RateLimited(_said(answer, "Too many requests."), retry_after=_retry_after(answer))
    if status < 200 or status in _UNFINISHED or status >= 500:
        hint = "The server failed." if status >= 500 else "It is no final answer."
        return errors.ServerError(_said(answer, hint), retry_after=_retry_after(answer))
    hint = _redirects(answer) if status < 400 else _HINTS.get(status, "The request was refused.")
    return errors.Refused(_said(answer, hint), status=status)


def _redirects(answer: Answer) -> str:
    host = _HOST.match(answer.headers.get("location", ""))
    return (
        f"It redirects to {model.short(host[1]) if host else 'another path'}, and redirects are not "
        "followed, so that the API key stays with its host. Check the Domain of the connection."
    )


_HINTS = {
    401: "The API key was refused. Check the API key (password) of the connection.",
    403: "The API key was refused. Check the API key (password) of the connection.",
    404: "No such job, or the Domain of the connection is not that of the TimeXtender API.",
}

MAX_RETRY_AFTER = 900.0
"""The longest ``Retry-After`` in seconds that is believed; some servers send a date's number there."""

_UNFINISHED = (408, 425, 499)
"""Statuses with which a gateway gives up on a request that may have gone on."""

_HOST = re.compile(r"(?:[a-z]+:)?//(?:[^/?#@]*@)?([^/?#]+)", re.IGNORECASE)


def _said(answer: Answer, hint: str) -> str:
    return f"{answer.where}: HTTP {answer.status}. {hint} The server said: {excerpt(answer)}"


def excerpt(answer: Answer) -> str:
    """The first 500 characters of a body, for messages."""
    text = model.plain(answer.body[: 8 * _EXCERPT_LENGTH].decode("utf-8", errors="replace").strip())
    return (text[:_EXCERPT_LENGTH] + "...") if len(text) > _EXCERPT_LENGTH else text or "(nothing)"


def _retry_after(answer: Answer) -> float | None:
    value = answer.headers.get("retry-after", "").strip()
    now = datetime.now(timezone.utc)
    try:
        wait = float(value) if value.isdecimal() else (parsedate_to_datetime(value) - now).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, wait), MAX_RETRY_AFTER)
