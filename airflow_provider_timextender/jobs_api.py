"""The TimeXtender Jobs API: its calls, and what its answers say.

A call is a value (:class:`Call`); whoever carries it over the network hands the :class:`Answer` to
:func:`read`, which returns typed objects or raises one error of :mod:`~.errors`. It reads while the answer
arrives, so that of a log only that is in memory which is wanted of it. Nothing here opens a socket or knows
Airflow.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone, tzinfo
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

from airflow_provider_timextender import errors, model
from airflow_provider_timextender.arriving import MAX_OBJECTS, Arriving, members_of
from airflow_provider_timextender.vocabulary import Vocabulary, is_code, override_hint

T = TypeVar("T")

DEFAULT_BASE_URL = "https://api.timextender.com"  # assumed

DEFAULT_API_KEY_HEADER = "x-api-key"  # assumed

_EXCERPT_LENGTH = 500

_EXCERPT_BYTES = 8 * _EXCERPT_LENGTH

_MIB = 1024 * 1024

OBJECT_LIMIT = 4 * _MIB
"""Bytes of the largest JSON object of a list: a job, a log entry, or an execution without its log."""

_MAX_MEMBERS = 1000
"""How many members a JSON object may have; those of the API have about ten."""


# --- reading -----------------------------------------------------------------------------------------


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


class Keeper(Protocol):
    """What is kept of the log of one execution while it passes.

    :ivar min_level: entries below are not offered; one whose severity is not known is.
    """

    min_level: int

    def add(self, entry: Mapping[str, Any], log: Callable[[Mapping[str, Any]], model.Log], at: int) -> None:
        """Take an entry, or leave it.

        :param log: understands it. :param at: how many bytes of the answer have arrived.
        """

    def kept(
        self, execution: model.Execution, log: Callable[[Mapping[str, Any]], model.Log]
    ) -> Sequence[model.Log]:
        """Return what is kept, now that the execution is known."""


class AllEntries:
    """Keeps all entries in memory."""

    min_level = 0

    def __init__(self) -> None:
        self._logs: list[model.Log] = []

    def add(self, entry: Mapping[str, Any], log: Callable[[Mapping[str, Any]], model.Log], at: int) -> None:
        """Take an entry."""
        self._logs.append(log(entry))

    def kept(self, execution: model.Execution, log: Any) -> Sequence[model.Log]:
        """Return all."""
        return tuple(self._logs)


Keep = Callable[[], Keeper]
"""Makes what keeps something of the log of each execution."""


class _Passed(list[Any]):
    """Stands for a list that has passed, and holds nothing of it.

    :ivar count: how many items it had.
    """

    count: int = 0  # type: ignore[assignment]

    # Of two that are empty here, nobody knows whether they were alike.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]


_FIRST_TIME = datetime(1990, 1, 1, tzinfo=timezone.utc)
"""No execution is older; what is earlier is what a date has before somebody sets it, 1900 or 1970, say."""

_OF_LOG = ("log.time", "log.severity", "log.message", "log.trigger_id")

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
    levels: dict[Any, int] = field(default_factory=dict)
    shapes: dict[tuple[str, ...], _Shape] = field(default_factory=dict)
    etag: str | None = None

    # What a JSON object stands for

    def job(self, obj: Mapping[str, Any]) -> model.Job:
        name = _text(self.vocabulary.member(obj, "job.name"))
        problem = None if name else self.vocabulary.missing(obj, "job.name")
        return model.Job(self.needed_guid(obj, "job.id"), name, problem, obj)

    def status(self, obj: Mapping[str, Any], job_id: str | None = None) -> model.JobStatus:
        job_id = job_id or self.needed_guid(obj, "status.job_id")
        state, problem = self.meaning(obj, "status.state", "statuses")
        return model.JobStatus(job_id, model.JobState(state) if state else None, problem, obj)

    def submission(self, obj: Mapping[str, Any], job_id: str) -> model.Submission:
        trigger_id = self.needed_guid(obj, "submission.trigger_id")
        message = _text(self.vocabulary.member(obj, "submission.message"))
        return model.Submission(job_id, trigger_id, message and model.plain(message[:1000]), obj)

    def log(self, obj: Mapping[str, Any], line: int | None = None) -> model.Log:
        time, severity, message, trigger_id = self.vocabulary.each(obj, *_OF_LOG)
        return model.Log(
            time=self.moment(time),
            severity=self.vocabulary.meaning("severities", severity),
            message=_text(message) or "",
            trigger_id=_id(trigger_id),
            line=line,
            raw=obj,
        )

    def executions(self, json: Arriving, job_id: str, keep: Keep | None) -> Iterator[model.Execution]:
        """Yield executions as they arrive; where entries lie flat beside them, when all have."""
        flat: list[Mapping[str, Any]] = []
        held: list[tuple[Mapping[str, Any], _Log]] = []
        holds = self.vocabulary.adds("log.execution_id")
        for obj, log in self.objects(json, partial(self.with_log, json, keep)):
            if not self.is_entry(obj):
                if not holds:
                    yield self.execution(obj, job_id, log)
                held += [(obj, log)] * holds
            elif holds:
                flat.append(obj)
            else:
                raise errors.ContractError(
                    f"{self.where}: expected executions, each with its log in it, and found a log entry "
                    f"among them, with the members {model.short(list(obj))}. {_FLAT}"
                )
            if holds and json.size > LOG_LIMIT:
                raise errors.AnswerTooLarge(
                    f"it is larger than {LOG_LIMIT} bytes, and has entries beside the executions, which can "
                    "only be understood as a whole"
                )
        if flat:
            if any(log.count for _, log in held):
                raise errors.ContractError(
                    f"{self.where}: executions have entries in them, and {len(flat)} more lie beside, so "
                    "that it cannot be told which are their logs."
                )
            held = self.joined([obj for obj, _ in held], flat, keep)
        for obj, log in held:
            yield self.execution(obj, job_id, log)

    def with_log(self, json: Arriving, keep: Keep | None) -> tuple[Mapping[str, Any], _Log]:
        """Take an execution that has begun off the stream, and of its log what is kept of it."""

        def take(member: str) -> _Log | None:
            outer, _, inner = member.partition(".")
            if not self.vocabulary.has({member: None}, "execution.logs") and not (
                self.vocabulary.has({outer: None}, "execution.logs")
                and self.vocabulary.has({inner: None}, "list.items")
            ):
                return None
            return self.log_of(json, keep)

        obj = self.object(json.members(take))
        held = self.vocabulary.member(obj, "execution.logs")
        self.refuse_two(obj, "execution.logs")
        if isinstance(held, dict) and self.vocabulary.has(held, "list.items"):
            held = self.vocabulary.member(held, "list.items")
        if held is not None and not isinstance(held, _Log):
            raise self.unexpected("array", held)
        for outer in obj.values():  # a list that is named as Logs.Items has been taken out of its wrapper
            if isinstance(outer, dict) and any(it is held for it in outer.values() if held is not None):
                self.refuse_half(outer, held)
        return obj, _Log(self, keep) if held is None else held

    def log_of(self, json: Arriving, keep: Keep | None) -> _Log:
        """Take a log that has begun off the stream."""
        log = _Log(self, keep)
        log.take(json.objects(partial(self.unexpected, "object")))
        return log

    def is_entry(self, obj: Mapping[str, Any]) -> bool:
        """Tell whether an object of a list of executions is a log entry."""
        of_entry = self.vocabulary.has(obj, "log.time", "log.severity")
        return of_entry and not self.vocabulary.has(obj, *_OF_EXECUTIONS)

    def joined(
        self, objects: Sequence[Mapping[str, Any]], flat: Sequence[Mapping[str, Any]], keep: Keep | None
    ) -> list[tuple[Mapping[str, Any], _Log]]:
        """Return executions with the log entries that lie beside them."""
        logs: dict[str, list[Mapping[str, Any]]] = {}
        for entry in flat:
            logs.setdefault(self.key(entry, "log.execution_id"), []).append(entry)
        keys = [self.key(obj, "execution.id", "execution.trigger_id") for obj in objects]
        if logs.keys().isdisjoint(keys):
            raise errors.ContractError(
                f"{self.where}: none of {len(flat)} log entries belongs to one of {len(objects)} executions. "
                f"{_FLAT}"
            )
        # Several under one key were started by hand: which of them an entry belongs to, nobody knows.
        count = Counter(keys)
        lost = sum(len(entries) for key, entries in logs.items() if not count[key])
        found = []
        for key, obj in zip(keys, objects, strict=True):
            log = _Log(self, keep, nested=False)
            if count[key] == 1:
                log.take(([*entry], [*entry.values()], 0) for entry in logs.get(key, []))
            if lost:
                of = f"of {len(flat)} log entries beside the executions"
                log.tell("log.execution_id", f"{of}, {lost} belong to none, and are left out.")
            found.append((obj, log))
        return found

    def key(self, obj: Mapping[str, Any], *entries: str) -> str:
        """Return what joins executions and entries: the first of several fields that holds something."""
        found = (self.vocabulary.member(obj, entry) for entry in entries)
        return model.canonical(str(next((value for value in found if value is not None), "")))

    def execution(self, obj: Mapping[str, Any], job_id: str, log: _Log) -> model.Execution:
        message, trigger_id = self.vocabulary.each(obj, "execution.message", "execution.trigger_id")
        start, start_problem = self.time(obj, "execution.start")
        end, end_problem = self.time(obj, "execution.end")
        if start is not None and end is not None and end < start:
            # When clocks are set back, an hour of local times comes twice; this end is in the second then, or
            # is none: a date that nobody has set yet.
            second = model.parse_time(self.vocabulary.member(obj, "execution.end"), self.zone, fold=1)
            end = second if second is not None and second >= start else None
        state, problem = self.execution_state(obj, ended=end is not None)
        found = model.Execution(
            job_id=job_id,
            trigger_id=_trigger_id_of(_id(trigger_id), log.trigger_ids),
            state=state,
            start=start,
            end=end,
            message=_text(message),
            log_counts=log.counts,
            problem=problem,
            start_problem=start_problem,
            end_problem=end_problem,
            raw=_without_entries(obj),
        )
        logs, last_errors = log.kept(found)
        return replace(
            found,
            logs=logs,
            last_errors=last_errors,
            log_known=log.known,
            log_problems=log.problems_in(obj),
        )

    def shape_of(self, names: list[str]) -> _Shape:
        """Return where an entry with such members has what is asked of each entry."""
        key = tuple(names)
        if key in self.shapes:
            return self.shapes[key]
        fields = ("log.trigger_id", "log.severity")
        ids, severities = ([names.index(n) for n in self.vocabulary.places(key, field)] for field in fields)
        dotted = any("." in word for field in fields for word in self.vocabulary.spellings["fields"][field])
        # Where several may be meant, or one stands twice, the whole entry has to be looked at.
        plain = not dotted and len(ids) <= 1 and len(severities) <= 1
        shape = _Shape(next(iter(ids), None), next(iter(severities), None), plain)
        # An object of very many members is none of the API's, and is not kept.
        if len(self.shapes) < _MOST_KNOWN and len(names) <= _MAX_MEMBERS:
            self.shapes[key] = shape
        return shape

    def level_of(self, word: Any) -> int:
        """Return the level of a severity as the API writes it."""
        level = model.SEVERITY_LEVELS.get(str(self.vocabulary.meaning("severities", word)), _UNKNOWN)
        # Only of texts: to a dictionary, true is the same as 1.
        if isinstance(word, str) and len(word) < 100 and len(self.levels) < _MOST_KNOWN:
            self.levels[word] = level
        return level

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

    def objects(self, json: Arriving, take: Callable[[], T]) -> Iterator[T]:
        """Yield what is made of each object of a list, or of the list that an object holds.

        :param take: takes the object that has begun off the stream.
        :raises ContractError: if there is more of the list elsewhere.
        """
        event, held = next(json.events)
        if event == "start_array":
            yield from self.items(json, take)
        elif event == "start_map":
            wrapper: dict[str, Any] = {}
            yield from self.unwrapped(json, take, wrapper)
            items = self.vocabulary.member(wrapper, "list.items")
            self.refuse_two(wrapper, "list.items")
            self.refuse_half(wrapper, items)
            if not self.vocabulary.has(wrapper, "list.items"):
                raise self.unexpected("array", wrapper)
            if items is not None and not isinstance(items, _Passed):
                raise self.unexpected("array", items)
        elif held is not None:  # null is how a server may say "nothing"; it is no final answer
            raise self.unexpected("array", json.value(event, held))

    def items(self, json: Arriving, take: Callable[[], T]) -> Iterator[T]:
        """Yield what is made of each object of the list that has begun."""

        def item(event: str, held: Any) -> T:
            if event != "start_map":
                raise self.unexpected("object", json.value(event, held))
            return take()

        for found in json.items(item):
            json.passed()
            yield found

    def unwrapped(
        self, json: Arriving, take: Callable[[], T], wrapper: dict[str, Any], within: str = ""
    ) -> Iterator[T]:
        """Yield the objects of the list in the object that has begun; `wrapper` gets what else it has."""
        while (member := next(json.events))[0] != "end_map":
            name = member[1]
            event, held = next(json.events)
            if event == "start_array":
                wanted = self.vocabulary.has({f"{within}{name}": None}, "list.items")
                if wanted and isinstance(wrapper.get(name), _Passed):
                    raise self.unexpected("array", [[], []])
                passed = wrapper[name] = _Passed()
                for found in self.items(json, take) if wanted else json.items(json.value):
                    passed.count += 1
                    json.passed()
                    if wanted:
                        yield found
            elif event == "start_map" and not within:
                inner = wrapper[name] = {}
                yield from self.unwrapped(json, take, inner, f"{name}.")
            else:
                wrapper[name] = json.value(event, held)

    def refuse_two(self, obj: Mapping[str, Any], entry: str) -> None:
        found = self.vocabulary.members(obj, entry)
        if sum(isinstance(one, _Passed) and one.count > 0 for one in found) > 1:
            raise errors.ContractError(
                f"{self.where}: several members hold a list for {entry}, with the members "
                f"{model.short(list(obj))}. {override_hint('the right one', entry)}"
            )

    def refuse_half(self, wrapper: Mapping[str, Any], items: Any) -> None:
        inner = [value for value in wrapper.values() if isinstance(value, dict)]
        # Deeper than that, a total may be of anything, and a next page is one all the same.
        innermost = [value for obj in inner for value in obj.values() if isinstance(value, dict)]
        for place in (wrapper, *inner, *innermost):
            if following := self.vocabulary.member(place, "list.next"):
                raise self.half(f"the next page is {model.short(following)}")
        for place in (wrapper, *inner):
            total = self.vocabulary.member(place, "list.total")
            if isinstance(items, _Passed) and is_code(str(total)) and int(total) > items.count:
                raise self.half(f"it holds {items.count} of {total} items")

    def refuse_next(self, headers: Mapping[str, str]) -> None:
        if _NEXT.search(headers.get("link", "")):
            raise self.half("its Link header names the next one")

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
        moment = self.moment(value)
        if moment is not None or model.is_unset(value) or model.parse_time(value, self.zone) is not None:
            return moment, None
        said = f"{entry} is {model.short(value)}, which is no time that is understood (ISO 8601 is)."
        return None, f"{said} {override_hint('it', entry)}"

    def moment(self, value: Any) -> datetime | None:
        time = model.parse_time(value, self.zone)
        return time if time is not None and time >= _FIRST_TIME else None

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


def _text(value: Any) -> str | None:
    # JSON can hold half of a surrogate pair, which no log and no database can.
    return None if value is None else str(value).encode(errors="replace").decode()


def _id(value: Any) -> str | None:
    """Return a trigger id as it is written, as far as it can stand in messages; ``None`` for none."""
    return None if value is None else ascii(str(value).strip()[:200])[1:-1] or None


class _Shape(NamedTuple):
    """At which places entries with the same members have what is asked of each, ``None`` for nowhere.

    :ivar plain: whether it can be taken from there as it is.
    """

    trigger_id: int | None
    severity: int | None
    plain: bool


_NOWHERE: Any = object()

_UNKNOWN = 0
"""The level of entries whose severity is not known."""

_LEVELS: Mapping[int, str | None] = {
    _UNKNOWN: None,
    **{level: name for name, level in model.SEVERITY_LEVELS.items()},
}
"""The severities by their level."""

_MOST_KNOWN = 1000
"""How many words and shapes of objects are remembered while an answer is read."""


class _Log(_Passed):
    """What remains of the log of an execution.

    :ivar trigger_ids: the ids that its entries tell. :ivar nested: whether it was in the execution.
    """

    def __init__(self, parser: _Parser, keep: Keep | None, *, nested: bool = True) -> None:
        super().__init__()
        self.count = 0
        self.trigger_ids: dict[str | None, None] = {}
        self.nested = nested
        self._parser = parser
        self._keeper = None if keep is None else keep()
        self._min_level = math.inf if self._keeper is None else self._keeper.min_level
        self._levels = dict.fromkeys(_LEVELS, 0)
        self._errors: deque[Mapping[str, Any]] = deque(maxlen=model.LAST_ERRORS)
        self._problems: dict[str, str] = {}
        self._first: Mapping[str, Any] | None = None
        self._says_something = self._has_times = False
        self._line: int | None = None

    def take(self, entries: Iterable[tuple[list[str], list[Any], int]]) -> None:
        """Take in entries: their trigger ids and severities, and as a whole those that are to be kept.

        All entries of all logs come through here, so it does as little as it can for each.

        :param entries: the names and the values of the members of each, and how many bytes have arrived.
        """
        parser, counts, levels, min_level = self._parser, self._levels, self._parser.levels, self._min_level
        known, last_id = None, _NOWHERE
        id_place = word_place = plain = None
        for line, (names, values, at) in enumerate(entries, 1):
            if names != known:
                known = names
                id_place, word_place, plain = parser.shape_of(names)
            if plain:
                id_ = None if id_place is None else values[id_place]
                word = None if word_place is None else values[word_place]
            else:
                id_, word = parser.vocabulary.each(
                    members_of(names, values), "log.trigger_id", "log.severity"
                )
            if id_ != last_id:
                last_id = id_
                self._note_id(id_)
            try:
                level = levels[word]
            except (KeyError, TypeError):
                level = parser.level_of(word)
            counts[level] += 1
            if level >= min_level or level == _UNKNOWN:
                self._line = line
                self._keep(members_of(names, values), level, at)
        self.count = sum(counts.values())
        self._line = None  # of what is understood later, nobody knows which entry it is

    def _note_id(self, id_: Any) -> None:
        if len(self.trigger_ids) < _MOST_KNOWN:
            self.trigger_ids[_id(id_)] = None

    def _keep(self, entry: Mapping[str, Any], level: int, at: int) -> None:
        if self._keeper is not None:
            if level >= model.SEVERITY_LEVELS["error"]:
                self._errors.append(entry)
            self._keeper.add(entry, self._understand, at)

    def _understand(self, entry: Mapping[str, Any]) -> model.Log:
        parser, log = self._parser, self._parser.log(entry, self._line)
        self._has_times = self._has_times or log.time is not None
        if log.time is None and "log.time" not in self._problems:
            problem = parser.time(entry, "log.time")[1]
            self._problems["log.time"] = problem or parser.vocabulary.missing(entry, "log.time")
        if log.severity is None and "log.severity" not in self._problems:
            self._problems["log.severity"] = str(parser.meaning(entry, "log.severity", "severities")[1])
        self._first = self._first or entry
        self._says_something = (
            self._says_something or bool(log.message) or parser.vocabulary.has(entry, "log.message")
        )
        return log

    @property
    def counts(self) -> Mapping[str | None, int]:
        """How many entries have each severity, ``None`` for one that is not known."""
        return {_LEVELS[level]: count for level, count in self._levels.items() if count}

    @property
    def known(self) -> frozenset[str]:
        """The logical fields of which an entry tells something, among those that are offered to be kept."""
        told = {
            "log.time": self._has_times,
            "log.severity": any(name is not None for name in self.counts),
            "log.message": self._says_something,
        }
        return frozenset(name for name, is_told in told.items() if is_told)

    def kept(self, execution: model.Execution) -> tuple[Sequence[model.Log], tuple[model.Log, ...]]:
        """Return what is kept of the entries, and the last errors of all."""
        if self._keeper is None:
            return (), ()
        return self._keeper.kept(execution, self._understand), tuple(map(self._understand, self._errors))

    def tell(self, entry: str, problem: str) -> None:
        """Take note of what is not understood of it."""
        self._problems[entry] = problem

    def problems_in(self, execution: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what is not understood of what is kept, or why nothing is there."""
        vocabulary = self._parser.vocabulary
        if not self.count and self.nested and not vocabulary.has(execution, "execution.logs"):
            return {"execution.logs": vocabulary.missing(execution, "execution.logs")}
        if self._first is not None and not self._says_something:
            self._problems["log.message"] = vocabulary.missing(self._first, "log.message")
        return self._problems


def _without_entries(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object with an empty list where its log was."""
    return {
        name: []
        if isinstance(value, _Passed)
        else _without_entries(value)
        if isinstance(value, dict)
        else value
        for name, value in obj.items()
    }


def _trigger_id_of(own: str | None, entries: Iterable[str | None]) -> str | None:
    # The trigger id is "attached to the created logs" (documented); whether the execution itself carries it
    # too is not said. Where it does, that decides, unless it is the blank one that stands for none.
    # Entries that do not agree on one tell nothing.
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
    parse: Callable[[_Parser, Arriving], T] = field(repr=False)
    absent: Callable[[], T] | None = field(repr=False, default=None)
    limit: int = _MIB
    keep: Keep | None = None
    same: tuple[str, Callable[[], T]] | None = field(repr=False, default=None)


LIST_OF = "list of "
"""Stands before the subject of a call of which it is only known that it is answered with a list."""

_LIST_LIMIT = 16 * _MIB
"""Fifty thousand jobs of 300 bytes each."""

LOG_LIMIT = 64 * _MIB
"""How much of logs may be in memory: two hundred thousand entries of 300 bytes each."""

STREAM_LIMIT = 64 * 1024 * _MIB
"""How much of a log passes at most where little of it is kept: a server may send for ever."""


def list_jobs() -> Call[list[model.Job]]:
    """All jobs of the organisation."""

    def parse(parser: _Parser, json: Arriving) -> list[model.Job]:
        return [parser.job(obj) for obj in parser.objects(json, partial(_whole, parser, json))]

    return Call("GET", "/public/jobs", "jobs", parse, limit=_LIST_LIMIT)


def _whole(parser: _Parser, json: Arriving) -> Mapping[str, Any]:
    return parser.object(json.members())


def execute_job(job_id: str) -> Call[model.Submission]:
    """Queue a job. Not idempotent: sent twice, it runs the load twice."""

    def parse(parser: _Parser, json: Arriving) -> model.Submission:
        return parser.submission(parser.object(json.next_value()), job_id)

    return Call("POST", f"{_path(job_id)}/execute", "receipt", parse)


def job_status(job_id: str) -> Call[model.JobStatus]:
    """What one job is doing."""

    def parse(parser: _Parser, json: Arriving) -> model.JobStatus:
        return parser.status(parser.object(json.next_value()), job_id)

    return Call("GET", f"{_path(job_id)}/status", "status", parse)


def all_job_statuses() -> Call[list[model.JobStatus]]:
    """What every job of the organisation is doing, in one answer."""

    def parse(parser: _Parser, json: Arriving) -> list[model.JobStatus]:
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

    def parse(parser: _Parser, json: Arriving) -> list[model.Execution]:
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

    def parse(parser: _Parser, json: Arriving) -> Iterator[model.Execution]:
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

    def parse(parser: _Parser, json: Arriving) -> Known[T]:
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
        return self.call.parse(_Parser(vocabulary, zone, self.where), Arriving.again(self.data))


def raw(call: Call[T]) -> Call[Raw[T]]:
    """A call whose answer is only looked at."""

    def parse(parser: _Parser, json: Arriving) -> Raw[T]:
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
    if not 200 <= answer.status < 300:
        raise error_for(answer)
    with _understanding(call, answer, vocabulary, zone) as (parser, json):
        return call.parse(parser, json)


def read_each(
    call: Call[Iterator[T]], answer: Answer, vocabulary: Vocabulary, zone: tzinfo = timezone.utc
) -> Iterator[T]:
    """Yield what an answer says as it arrives; the errors are those of :func:`read`."""
    if answer.status == 404 and call.absent is not None:
        return
    if not 200 <= answer.status < 300:
        raise error_for(answer)
    with _understanding(call, answer, vocabulary, zone) as (parser, json):
        yield from call.parse(parser, json)


@contextmanager
def _understanding(
    call: Call[Any], answer: Answer, vocabulary: Vocabulary, zone: tzinfo
) -> Iterator[tuple[_Parser, Arriving]]:
    """Let each error tell of the answer that it is about."""
    parser = _Parser(vocabulary, zone, answer.where, etag=answer.headers.get("etag"))
    try:
        parser.refuse_next(answer.headers)
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
