"""What the answers of the TimeXtender Jobs API say: typed objects out of JSON, as it arrives.

Of a log that passes, only that is kept which somebody wants of it. Nothing here knows a request.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone, tzinfo
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from airflow_provider_timextender import errors, model
from airflow_provider_timextender.arriving import Arriving, members_of
from airflow_provider_timextender.vocabulary import Vocabulary, is_code, override_hint

T = TypeVar("T")

LOG_LIMIT = 64 * 1024 * 1024
"""How much of logs may be in memory: two hundred thousand entries of 300 bytes each."""

_MAX_MEMBERS = 1000
"""How many members a JSON object may have; those of the API have about ten."""


class Entry:
    """A log entry that has arrived, and is understood when somebody asks.

    :ivar at: how many bytes of the answer have arrived with it.
    """

    __slots__ = ("_line", "_log", "_raw", "_understand", "at")

    def __init__(
        self,
        raw: Mapping[str, Any],
        line: int,
        at: int,
        understand: Callable[[Mapping[str, Any], int], model.Log],
    ) -> None:
        self.at = at
        self._raw = raw
        self._line = line
        self._understand = understand
        self._log: model.Log | None = None

    @property
    def log(self) -> model.Log:
        """What it says."""
        if self._log is None:
            self._log = self._understand(self._raw, self._line)
        return self._log


class Keeper(Protocol):
    """What is kept of the log of one execution while it passes.

    :ivar min_level: entries below are not offered; one whose severity is not known is.
    """

    min_level: int

    def add(self, entry: Entry) -> None:
        """Take an entry, or leave it."""

    def kept(self, execution: model.Execution) -> Sequence[model.Log]:
        """Return what is kept, now that the execution is known."""


class AllEntries:
    """Keeps all entries in memory."""

    min_level = 0

    def __init__(self) -> None:
        self._logs: list[model.Log] = []

    def add(self, entry: Entry) -> None:
        """Take an entry."""
        self._logs.append(entry.log)

    def kept(self, execution: model.Execution) -> Sequence[model.Log]:
        """Return all."""
        return tuple(self._logs)


class Last:
    """Keeps the last entries of a log: the first ones, if by their times it has the newest first.

    :ivar entries: what is kept.
    :param count: how many at most. :param size: how many bytes of an answer they may take together.
    """

    def __init__(self, count: int, size: float = math.inf) -> None:
        self.entries: deque[Entry] = deque(maxlen=count)
        self._size = size
        self._newest_first: bool | None = None

    def add(self, entry: Entry) -> None:
        """Take an entry, in the place of the oldest if there are too many."""
        entries = self.entries
        if entries and (len(entries) == entries.maxlen or entry.at - entries[0].at > self._size):
            if self._newest_first is None:
                first, later = entries[0].log.time, entry.log.time
                self._newest_first = first is not None and later is not None and later < first
            if self._newest_first:
                return
            while entries and entry.at - entries[0].at > self._size:
                entries.popleft()
        entries.append(entry)


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

_OF_EXECUTION = ("execution.message", "execution.trigger_id", "execution.start", "execution.end")

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
class Parser:
    """Takes typed objects out of one answer, and knows what to say when they are not there."""

    vocabulary: Vocabulary
    zone: tzinfo
    where: str
    levels: dict[Any, int] = field(default_factory=dict)
    shapes: dict[tuple[str, ...], _Shape] = field(default_factory=dict)
    etag: str | None = None

    # What a JSON object stands for

    def job(self, obj: Mapping[str, Any]) -> model.Job:
        """Return a job."""
        name = _text(self.vocabulary.member(obj, "job.name"))
        problem = None if name else self.vocabulary.missing(obj, "job.name")
        return model.Job(self.needed_guid(obj, "job.id"), name, problem, obj)

    def status(self, obj: Mapping[str, Any], job_id: str | None = None) -> model.JobStatus:
        """Return what a job does."""
        job_id = job_id or self.needed_guid(obj, "status.job_id")
        state, problem = self.meaning(obj, "status.state", "statuses")
        return model.JobStatus(job_id, model.JobState(state) if state else None, problem, obj)

    def submission(self, obj: Mapping[str, Any], job_id: str) -> model.Submission:
        """Return a receipt."""
        trigger_id = self.needed_guid(obj, "submission.trigger_id")
        message = _text(self.vocabulary.member(obj, "submission.message"))
        return model.Submission(job_id, trigger_id, message and model.plain(message[:1000]), obj)

    def log(self, obj: Mapping[str, Any], line: int) -> model.Log:
        """Return a log entry; `line` is its place in the log."""
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
        """Return an execution with what has been kept of its log."""
        message, trigger_id, began, ended = self.vocabulary.each(obj, *_OF_EXECUTION)
        start, start_problem = self.time(began, "execution.start")
        end, end_problem = self.time(ended, "execution.end")
        if start is not None and end is not None and end < start:
            # When clocks are set back, an hour of local times comes twice; this end is in the second then, or
            # is none: a date that nobody has set yet.
            second = model.parse_time(ended, self.zone, fold=1)
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
        """Return the state of an execution, or None and why it is not known."""
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
        """Refuse an object that holds several lists for one field."""
        found = self.vocabulary.members(obj, entry)
        if sum(isinstance(one, _Passed) and one.count > 0 for one in found) > 1:
            raise errors.ContractError(
                f"{self.where}: several members hold a list for {entry}, with the members "
                f"{model.short(list(obj))}. {override_hint('the right one', entry)}"
            )

    def refuse_half(self, wrapper: Mapping[str, Any], items: Any) -> None:
        """Refuse a list of which the objects around it say that there is more."""
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

    def half(self, why: str) -> errors.ContractError:
        """Return the error of a list of which there is more."""
        return errors.ContractError(
            f"{self.where}: the answer is a page of a longer list ({why}). The published API has no pages, "
            "so the rest cannot be read, and half a list is not taken for the whole."
        )

    def object(self, data: Any) -> Mapping[str, Any]:
        """Return an object.

        :raises ContractError: if it is none, or one of very many members.
        """
        if not isinstance(data, dict):
            raise self.unexpected("object", data)
        if len(data) > _MAX_MEMBERS:
            raise errors.ContractError(
                f"{self.where}: a JSON object has {len(data)} members, more than {_MAX_MEMBERS}."
            )
        return data

    def unexpected(self, wanted: str, data: Any) -> errors.ContractError:
        """Return the error of a value that is something else than was wanted."""
        members = "an object with the members " if isinstance(data, dict) else ""
        found = members + model.short(list(data) if members else data)
        hint = f" {_WRAPPED}" if members and any(isinstance(value, list) for value in data.values()) else ""
        return errors.ContractError(f"{self.where}: expected a JSON {wanted}, found {found}.{hint}")

    def needed_guid(self, obj: Mapping[str, Any], entry: str) -> str:
        """Return a guid without which an answer tells nothing."""
        value = self.vocabulary.member(obj, entry)
        if value is None:
            raise errors.ContractError(f"{self.where}: {self.vocabulary.missing(obj, entry)}")
        try:
            return model.guid(value, entry)
        except errors.InvalidInput as error:
            raise errors.ContractError(f"{self.where}: {error} {override_hint('it', entry)}") from None

    def time(self, value: Any, entry: str) -> tuple[datetime | None, str | None]:
        """Return a time, or None and why one that is there is not understood."""
        moment = self.moment(value)
        if moment is not None or model.is_unset(value) or model.parse_time(value, self.zone) is not None:
            return moment, None
        said = f"{entry} is {model.short(value)}, which is no time that is understood (ISO 8601 is)."
        return None, f"{said} {override_hint('it', entry)}"

    def moment(self, value: Any) -> datetime | None:
        """Return a time, ``None`` if there is none that is understood."""
        time = model.parse_time(value, self.zone)
        return time if time is not None and time >= _FIRST_TIME else None

    def words(self, obj: Mapping[str, Any], entry: str) -> list[Any]:
        """Return all that is told of a word."""
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


class _Reader:
    """Understands the entries of a log that somebody asks for, and takes note of what they do not tell.

    Apart from the log, as entries hold it: those that a log holds would keep it in memory.

    :ivar problems: what is not understood, by the logical field. :ivar known: fields of which an entry tells
        something.
    """

    def __init__(self, parser: Parser) -> None:
        self.problems: dict[str, str] = {}
        self.known: set[str] = set()
        self._parser = parser
        self._first: Mapping[str, Any] | None = None

    def log(self, entry: Mapping[str, Any], line: int) -> model.Log:
        """Return an entry, understood."""
        parser, log = self._parser, self._parser.log(entry, line)
        if log.time is not None:
            self.known.add("log.time")
        elif "log.time" not in self.problems:
            problem = parser.time(parser.vocabulary.member(entry, "log.time"), "log.time")[1]
            self.problems["log.time"] = problem or parser.vocabulary.missing(entry, "log.time")
        if log.severity is None and "log.severity" not in self.problems:
            self.problems["log.severity"] = str(parser.meaning(entry, "log.severity", "severities")[1])
        if log.message or parser.vocabulary.has(entry, "log.message"):
            self.known.add("log.message")
        self._first = self._first or entry
        return log

    def finish(self) -> None:
        """Take note of what none of the entries has told."""
        if self._first is not None and "log.message" not in self.known:
            self.problems["log.message"] = self._parser.vocabulary.missing(self._first, "log.message")


class _Log(_Passed):
    """What remains of the log of an execution.

    :ivar trigger_ids: the ids that its entries tell. :ivar nested: whether it was in the execution.
    """

    def __init__(self, parser: Parser, keep: Keep | None, *, nested: bool = True) -> None:
        super().__init__()
        self.count = 0
        self.trigger_ids: dict[str | None, None] = {}
        self.nested = nested
        self._parser = parser
        self._keeper = None if keep is None else keep()
        self._levels = dict.fromkeys(_LEVELS, 0)
        self._errors = Last(model.LAST_ERRORS)
        self._reader = _Reader(parser)

    def take(self, entries: Iterable[tuple[list[str], list[Any], int]]) -> None:
        """Take in entries: their trigger ids and severities, and as a whole those that are to be kept.

        All entries of all logs come through here, so it does as little as it can for each.

        :param entries: the names and the values of the members of each, and how many bytes have arrived.
        """
        parser, counts, levels, keeper = self._parser, self._levels, self._parser.levels, self._keeper
        offered = () if keeper is None else {n for n in _LEVELS if n >= keeper.min_level or n == _UNKNOWN}
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
            if keeper is not None and level in offered:
                self._keep(keeper, Entry(members_of(names, values), line, at, self._reader.log), level)
        self.count = sum(counts.values())

    def _note_id(self, id_: Any) -> None:
        if len(self.trigger_ids) < _MOST_KNOWN:
            self.trigger_ids[_id(id_)] = None

    def _keep(self, keeper: Keeper, entry: Entry, level: int) -> None:
        if level >= model.SEVERITY_LEVELS["error"]:
            self._errors.add(entry)
        keeper.add(entry)

    @property
    def counts(self) -> Mapping[str | None, int]:
        """How many entries have each severity, ``None`` for one that is not known."""
        return {_LEVELS[level]: count for level, count in self._levels.items() if count}

    @property
    def known(self) -> frozenset[str]:
        """The logical fields of which an entry tells something, among those that are offered to be kept."""
        # Of severities, those of all entries are looked at.
        severities = {"log.severity"} if self.counts.keys() - {None} else set()
        return frozenset(self._reader.known | severities)

    def kept(self, execution: model.Execution) -> tuple[Sequence[model.Log], tuple[model.Log, ...]]:
        """Return what is kept of the entries, and the last errors of all."""
        if self._keeper is None:
            return (), ()
        return self._keeper.kept(execution), tuple(entry.log for entry in self._errors.entries)

    def tell(self, entry: str, problem: str) -> None:
        """Take note of what is not understood of it."""
        self._reader.problems[entry] = problem

    def problems_in(self, execution: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what is not understood of what is kept, or why nothing is there."""
        vocabulary = self._parser.vocabulary
        if not self.count and self.nested and not vocabulary.has(execution, "execution.logs"):
            return {"execution.logs": vocabulary.missing(execution, "execution.logs")}
        self._reader.finish()
        return self._reader.problems


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
