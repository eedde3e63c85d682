"""The TimeXtender Jobs API: its calls, and which error an answer is.

A call is a value (:class:`Call`); whoever carries it over the network hands the :class:`Answer` to
:func:`read`, which returns typed objects or raises one error of :mod:`~.errors`. It reads while the answer
arrives, so that of a log only that is in memory which is wanted of it. Nothing here opens a socket or knows
Airflow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone, tzinfo
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from airflow_provider_timextender import errors, model
from airflow_provider_timextender.answers import LOG_LIMIT, AllEntries, Keep, Parser
from airflow_provider_timextender.arriving import MAX_OBJECTS, Arriving
from airflow_provider_timextender.vocabulary import Vocabulary

T = TypeVar("T")

DEFAULT_BASE_URL = "https://api.timextender.com"  # assumed

DEFAULT_API_KEY_HEADER = "x-api-key"  # assumed

_EXCERPT_LENGTH = 500

_EXCERPT_BYTES = 8 * _EXCERPT_LENGTH

_MIB = 1024 * 1024

OBJECT_LIMIT = 4 * _MIB
"""Bytes of the largest JSON object of a list: a job, a log entry, or an execution without its log."""


@dataclass
class Answer:
    """An HTTP answer as a carrier hands it over.

    :ivar where: method and URL, for messages. :ivar headers: with names in lower case.
    :ivar body: what is there of it, for messages.
    :ivar more: what follows when it is read on. What is wrong with it is raised there, as an
        :class:`~.errors.UnreadableAnswer` or an :class:`~.errors.AnswerTooLarge` that says why.
    :ivar size: how many bytes of it have arrived.
    """

    where: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    more: Iterable[bytes] = ()
    size: int = 0

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives."""
        self.size = len(self.body)
        yield self.body
        for piece in self.more:
            self.size += len(piece)
            self.body += piece[: max(0, _EXCERPT_BYTES - len(self.body))]
            yield piece


# --- calls -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request as a value: what to send, and how to understand the answer.

    :ivar subject: what it asks for: the answers to all calls with the same one look alike.
    :ivar parse: takes it off what arrives.
    :ivar absent: makes what a 404 stands for, ``None`` where it is an error.
    :ivar limit: bytes of an answer, beyond which it is not read on. One about a single job takes a few
        hundred.
    :ivar keep: what is kept of the entries of a log, ``None`` for nothing.
    :ivar same: the ETag of an answer that need not be sent again, and what makes what stands for it.
    """

    method: str
    path: str
    subject: str
    parse: Callable[[Parser, Arriving], T] = field(repr=False)
    absent: Callable[[], T] | None = field(repr=False, default=None)
    limit: int = _MIB
    keep: Keep | None = None
    same: tuple[str, Callable[[], T]] | None = field(repr=False, default=None)


LIST_OF = "list of "
"""Stands before the subject of a call of which it is only known that it is answered with a list."""

_LIST_LIMIT = 16 * _MIB
"""Fifty thousand jobs of 300 bytes each."""

STREAM_LIMIT = 64 * 1024 * _MIB
"""How much of a log passes at most where little of it is kept: a server may send for ever."""


def list_jobs() -> Call[list[model.Job]]:
    """All jobs of the organisation."""

    def parse(parser: Parser, json: Arriving) -> list[model.Job]:
        return [parser.job(obj) for obj in parser.objects(json, partial(_whole, parser, json))]

    return Call("GET", "/public/jobs", "jobs", parse, limit=_LIST_LIMIT)


def _whole(parser: Parser, json: Arriving) -> Mapping[str, Any]:
    return parser.object(json.members())


def execute_job(job_id: str) -> Call[model.Submission]:
    """Queue a job. Not idempotent: sent twice, it runs the load twice."""

    def parse(parser: Parser, json: Arriving) -> model.Submission:
        return parser.submission(parser.object(json.next_value()), job_id)

    return Call("POST", f"{_path(job_id)}/execute", "receipt", parse)


def job_status(job_id: str) -> Call[model.JobStatus]:
    """What one job is doing."""

    def parse(parser: Parser, json: Arriving) -> model.JobStatus:
        return parser.status(parser.object(json.next_value()), job_id)

    return Call("GET", f"{_path(job_id)}/status", "status", parse)


def all_job_statuses() -> Call[list[model.JobStatus]]:
    """What every job of the organisation is doing, in one answer."""

    def parse(parser: Parser, json: Arriving) -> list[model.JobStatus]:
        return [parser.status(obj) for obj in parser.objects(json, partial(_whole, parser, json))]

    return Call("GET", "/public/jobs/status", "statuses", parse, limit=_LIST_LIMIT)


def job_logs(
    job_id: str, trigger_id: str | None = None, *, keep: Keep | None = AllEntries
) -> Call[list[model.Execution]]:
    """A job's executions with their logs; with a trigger id, what the API shows when asked for that one.

    It is not documented whether the filter leaves out executions, or only entries of them. So whoever wants
    the one execution asks each whether it is (:meth:`~.model.Execution.is_under`).

    :param keep: what is kept of the entries; ``None`` for nothing. Unless it is all, ``raw`` is empty.
    """
    each = each_execution(job_id, trigger_id, keep=keep)

    def parse(parser: Parser, json: Arriving) -> list[model.Execution]:
        found = each.parse(parser, json)
        # Where little is kept of logs, what else there is would take most of the memory.
        light = found if keep is AllEntries else (replace(one, raw={}) for one in found)
        return list(_bounded(light))

    limit = LOG_LIMIT if keep is AllEntries else STREAM_LIMIT
    return Call(each.method, each.path, each.subject, parse, limit=limit, keep=keep)


def each_execution(
    job_id: str, trigger_id: str | None = None, *, keep: Keep | None
) -> Call[Iterator[model.Execution]]:
    """The same as :func:`job_logs`, one by one as they arrive."""

    def parse(parser: Parser, json: Arriving) -> Iterator[model.Execution]:
        return parser.executions(json, job_id, keep)

    path = f"{_path(job_id)}/logs"
    if trigger_id is not None:
        path += f"/{_in_path(trigger_id, 'trigger id')}"
    return Call("GET", path, "log", parse, limit=STREAM_LIMIT, keep=keep)


def _bounded(executions: Iterator[model.Execution]) -> Iterator[model.Execution]:
    """Yield executions until their number or their texts are too large for memory."""
    size = 0
    for count, execution in enumerate(executions, 1):
        size += len(execution.message or "")
        if count > MAX_OBJECTS or size > LOG_LIMIT:
            raise errors.AnswerTooLarge(f"it has {count} executions, with {size} characters of messages")
        yield execution


def executions_so_far(job_id: str) -> Call[list[model.Execution]]:
    """A job's executions without their logs, which take most of the memory; a 404 means that it has none."""
    return if_any(job_logs(job_id, keep=None))


def if_any(call: Call[list[model.Execution]]) -> Call[list[model.Execution]]:
    """A call for executions that may not show yet: a 404 means that, too."""
    return replace(call, absent=list)


@dataclass(frozen=True)
class Known(Generic[T]):
    """An answer that may come again.

    :ivar said: what it says. :ivar size: bytes of its body, unpacked.
    :ivar etag: what a server that does so calls it, ``None`` for one that does not.
    """

    said: T
    size: int
    etag: str | None

    def __bool__(self) -> bool:
        """Tell whether it says anything: an empty list does not."""
        return bool(self.said)


def known(call: Call[T]) -> Call[Known[T]]:
    """A call that is answered with what it takes not to be sent all of it again."""

    def parse(parser: Parser, json: Arriving) -> Known[T]:
        return Known(call.parse(parser, json), json.size, parser.etag)

    absent = call.absent
    nothing = None if absent is None else lambda: Known(absent(), 0, None)
    return Call(call.method, call.path, call.subject, parse, nothing, call.limit, call.keep)


def unless(call: Call[T], etag: str | None) -> Call[T | None]:
    """A call that is answered with ``None``, and without a body, if the server calls its answer still so.

    :param etag: what it has called it before; ``None`` if it has not.
    """
    same = None if etag is None else (etag, lambda: None)
    return Call(call.method, call.path, call.subject, call.parse, call.absent, call.limit, call.keep, same)


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
        return self.call.parse(Parser(vocabulary, zone, self.where), Arriving.again(self.data))


def raw(call: Call[T]) -> Call[Raw[T]]:
    """A call whose answer is only looked at."""

    def parse(parser: Parser, json: Arriving) -> Raw[T]:
        data = json.next_value()
        json.finish()
        return Raw(call, parser.where, data, json.size)

    nothing = None if call.absent is None else lambda: Raw(call, call.path, None, 0)
    return Call(call.method, call.path, call.subject, parse, nothing, min(call.limit, LOG_LIMIT))


def _path(job_id: str) -> str:
    return f"/public/jobs/{_in_path(job_id, 'job id')}"


def _in_path(id_: str, what: str) -> str:
    return quote(model.guid(id_, what), safe="")


def read(call: Call[T], answer: Answer, vocabulary: Vocabulary, zone: tzinfo = timezone.utc) -> T:
    """Return what an answer says.

    :param zone: that of times without an offset.
    :raises TimeXtenderError: the one of the tree that fits; see :func:`error_for` for error statuses.
    :raises UnreadableAnswer: if the status is a success and the body is not JSON, or not whole. What breaks
        it off while it arrives is raised as it is.
    :raises AnswerTooLarge: if the body is larger than what is read of it.
    :raises ContractError: if it is JSON, but not what the vocabulary describes.
    """
    if answer.status == 404 and call.absent is not None:
        return call.absent()
    if answer.status == 304 and call.same is not None:
        return call.same[1]()
    with _understanding(call, answer, vocabulary, zone) as (parser, json):
        return call.parse(parser, json)


def read_each(
    call: Call[Iterator[T]], answer: Answer, vocabulary: Vocabulary, zone: tzinfo = timezone.utc
) -> Iterator[T]:
    """Yield what an answer says as it arrives; the errors are those of :func:`read`."""
    if answer.status == 404 and call.absent is not None:
        return
    with _understanding(call, answer, vocabulary, zone) as (parser, json):
        yield from call.parse(parser, json)


@contextmanager
def _understanding(
    call: Call[Any], answer: Answer, vocabulary: Vocabulary, zone: tzinfo
) -> Iterator[tuple[Parser, Arriving]]:
    """Let each error tell of the answer that it is about."""
    if not 200 <= answer.status < 300:
        raise error_for(answer)
    parser = Parser(vocabulary, zone, answer.where, etag=answer.headers.get("etag"))
    try:
        _refuse_next(parser, answer.headers)
        if answer.status == 204:
            yield parser, Arriving.again(None)
            return
        json = Arriving(answer.pieces(), min(call.limit, OBJECT_LIMIT))
        yield parser, json
        json.finish()
    except (errors.UnreadableAnswer, errors.AnswerTooLarge) as error:
        advice = _LOG_ADVICE if call.subject == "log" and isinstance(error, errors.AnswerTooLarge) else ""
        raise type(error)(
            f"{answer.where}: HTTP {answer.status}, but the body is not read: {error}. "
            f"{advice}It begins: {excerpt(answer)}"
        ) from None
    except errors.ContractError as error:
        error.args = (f"{error} The answer was HTTP {answer.status}: {excerpt(answer)}",)
        raise
    except Exception as error:
        deep = isinstance(error, RecursionError)
        if not deep and not type(error).__module__.startswith("ijson"):
            raise
        what = "but the body is nested too deep" if deep else "but the body is not JSON"
        raise errors.UnreadableAnswer(
            f"{answer.where}: HTTP {answer.status}, {what}: {excerpt(answer)}"
        ) from None


def _refuse_next(parser: Parser, headers: Mapping[str, str]) -> None:
    if _NEXT.search(headers.get("link", "")):
        raise parser.half("its Link header names the next one")


_NEXT = re.compile(r"""\brel\s*=\s*["']?[^"',;]*\bnext\b""", re.IGNORECASE)
"""A link to the next page, as https://www.rfc-editor.org/rfc/rfc8288 writes it."""

_LOG_ADVICE = (
    "A job's log comes whole and grows: ask for one execution by its trigger id, or have old executions "
    "removed in TimeXtender. "
)


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
    text = model.plain(answer.body[:_EXCERPT_BYTES].decode("utf-8", errors="replace").strip())
    return (text[:_EXCERPT_LENGTH] + "...") if len(text) > _EXCERPT_LENGTH else text or "(nothing)"


def _retry_after(answer: Answer) -> float | None:
    value = answer.headers.get("retry-after", "").strip()
    now = datetime.now(timezone.utc)
    try:
        wait = float(value) if value.isdecimal() else (parsedate_to_datetime(value) - now).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, wait), MAX_RETRY_AFTER)
