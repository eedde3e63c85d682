"""What raw answers show of the API's words: which members there are, and which may stand for what.

Nothing is taken for granted here but JSON. A proposal is made by the type of a member's values and by the
likeness of its name, and is for a person to confirm; what an end state means is never proposed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import cached_property
from typing import Any

from airflow_provider_timextender.model import BLANK_GUID, canonical, is_guid, is_unset, parse_time
from airflow_provider_timextender.vocabulary import Vocabulary, flattened, fold

Object = Mapping[str, Any]

_OF_EXECUTIONS = ("execution.state", "execution.start", "execution.end")
_OF_ENTRIES = ("log.time", "log.severity")

_BY_NAME = ("status.state", "execution.state", "log.severity")
"""Fields of words: texts are of every kind, so that being the only one tells nothing."""

_LIMITS = {"execution.start": "execution.end", "execution.end": "execution.start"}

SAMPLE = 2000
"""From so many values of a member its type is told."""

FEW = 12
"""So many different words at most are taken for those of a table, and not for names or texts."""

_LONGEST_WORD = 40


@dataclass
class Member:
    """A member of JSON objects of one kind.

    :ivar values: a sample of what it holds, without null.
    """

    name: str
    zone: tzinfo
    values: list[Any] = field(default_factory=list)

    @cached_property
    def type(self) -> str:
        """What it holds: ``guid time list object code word text``, or ``nothing``."""
        values = [value for value in self.values if value != ""]
        if not values:
            return "nothing"
        if any(isinstance(value, (list, dict)) for value in values):
            return "list" if all(isinstance(value, list) for value in values) else "object"
        if all(is_guid(str(value)) for value in values):
            return "guid"
        times = [parse_time(value, self.zone) for value in values]
        if any(times) and all(time or is_unset(value) for time, value in zip(times, values, strict=True)):
            return "time"
        if all(isinstance(value, (int, float)) for value in values):
            return "code"
        short = all(isinstance(value, str) and len(value) <= _LONGEST_WORD for value in values)
        return "word" if short and len(set(values)) <= FEW else "text"


def members(objects: Iterable[Object], zone: tzinfo) -> dict[str, Member]:
    """Return the members of objects by name.

    :param zone: that of times without an offset.
    """
    found: dict[str, Member] = {}
    for obj in objects:
        for name, value in flattened(obj):
            member = found.get(name) or found.setdefault(name, Member(name, zone))
            if value is not None and len(member.values) < SAMPLE:
                member.values.append(value)
    return found


@dataclass(frozen=True)
class Trait:
    """By what a member may be known that stands for a logical field.

    :ivar types: what it holds, the most telling first. :ivar hints: what its name may have in it.
    """

    types: tuple[str, ...]
    hints: tuple[str, ...]


TRAITS: Mapping[str, Trait] = {
    "job.id": Trait(("guid",), ("id", "key", "guid")),
    "job.name": Trait(("text", "word"), ("name", "title", "caption", "label")),
    "status.job_id": Trait(("guid",), ("job", "id", "key")),
    "status.state": Trait(("word", "code", "text"), ("status", "state", "doing", "activity", "phase")),
    "execution.job_id": Trait(("guid",), ("job",)),
    "execution.trigger_id": Trait(("guid",), ("trigger", "run", "execution")),
    "execution.state": Trait(("word", "code", "text"), ("state", "status", "result", "outcome")),
    "execution.start": Trait(("time",), ("start", "begin", "began", "from", "launch")),
    "execution.end": Trait(("time",), ("end", "finish", "stop", "complete", "until", "done")),
    "execution.message": Trait(("text", "word"), ("message", "note", "text", "error", "reason", "detail")),
    "execution.logs": Trait(("list",), ("log", "line", "entr", "event", "record")),
    "log.trigger_id": Trait(("guid",), ("trigger", "run", "execution")),
    "log.time": Trait(("time",), ("time", "stamp", "date", "when", "logged")),
    "log.severity": Trait(
        ("word", "code", "text"), ("sever", "level", "kind", "type", "class", "importance")
    ),
    "log.message": Trait(("text", "word"), ("message", "text", "note", "description", "line")),
}
"""The logical fields that answers show without a load being started."""


@dataclass(frozen=True)
class Found:
    """A member that stands for a logical field.

    :ivar known_from: ``documented``, ``assumed``, ``connection``, or ``proposed``.
    """

    name: str
    known_from: str
    example: Any
    why: str = ""


class Evidence:
    """The objects of an account's answers, by what they are, and the vocabulary that would explain them.

    :ivar vocabulary: the one in force, with what is proposed.
    :ivar found: logical field -> the member that stands for it.
    :ivar objects: ``job``, ``status``, ``execution`` and ``log`` -> objects.
    :ivar members: likewise -> the members of these by name.
    """

    def __init__(self, vocabulary: Vocabulary, zone: tzinfo) -> None:
        self.vocabulary = vocabulary
        self.zone = zone
        self.found: dict[str, Found] = {}
        self.objects: dict[str, list[Object]] = {}
        self.members: dict[str, dict[str, Member]] = {}

    @property
    def proposals(self) -> dict[str, str]:
        """Logical field -> the member that is proposed for it."""
        return {entry: found.name for entry, found in self.found.items() if found.known_from == "proposed"}

    def add(self, kind: str, data: Iterable[Any]) -> None:
        """Take in the objects of one kind, out of the lists that answers are."""
        self._explain(kind, [obj for answer in data for obj in self.items(answer)])

    def add_logs(self, data: Iterable[Any]) -> None:
        """Take in the executions and log entries of jobs' logs."""
        objects = [obj for answer in data for obj in self.items(answer)]
        executions, entries = self._apart(objects)
        self._explain("execution", executions)
        if not entries and (logs := self.found.get("execution.logs")):
            nested = (execution.get(logs.name) for execution in executions)
            entries = [entry for answer in nested for entry in self.items(answer)]
        self._explain("log", entries)
        self._explain_trigger_id()
        if entries and "execution.logs" not in self.found:
            self._join()

    def items(self, data: Any) -> list[Object]:
        """Return the objects of a list, out of the object that holds it if need be."""
        if isinstance(data, dict):
            data = data.get(self._wrapped_in(data))
        return [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []

    def _wrapped_in(self, wrapper: Object) -> str:
        lists = {name: value for name, value in wrapper.items() if isinstance(value, list)}
        name = self.vocabulary.spelling(lists, "list.items")
        if name is not None:
            if "list.items" not in self.found:
                self._note("list.items", name, f"a list of {len(lists[name])}")
        elif len(lists) == 1:  # each kind of answer may have a name of its own for its list
            ((name, items),) = lists.items()
            self._note("list.items", name, f"a list of {len(items)}", "it is the one list in the object")
        return name or ""

    def _note(self, entry: str, name: str, example: Any, why: str = "") -> None:
        known_from = "proposed" if why else self.vocabulary.known_from(name, entry)
        self.found[entry] = Found(name, known_from, example, why)
        if why:
            self.vocabulary = self.vocabulary.adding({entry: name})

    def _explain(self, kind: str, objects: list[Object]) -> None:
        """Find the fields of objects: by the names that are known, then by likeness."""
        self.objects[kind] = objects
        there = self.members[kind] = members(objects, self.zone)
        wanted = [entry for entry in TRAITS if entry.startswith(f"{kind}.") and entry not in self.found]
        for entry in list(wanted):
            names = [name for name, member in there.items() if self._may_be(entry, member)]
            name = self.vocabulary.spelling(names, entry)
            if name is not None:
                wanted.remove(entry)
                self._note(entry, name, _example(there[name]))
        self._propose(kind, [entry for entry in wanted if not entry.endswith("trigger_id")])

    def _explain_trigger_id(self) -> None:
        """Find the trigger id, which is either on executions or on their log entries, or on both."""
        fields = ("execution.trigger_id", "log.trigger_id")
        for entry in fields:
            if not any(field in self.found for field in fields):
                self._propose(entry.split(".")[0], [entry])
        for entry in fields:
            found = self.found.get(entry)
            if found and self.vocabulary.spelling([found.name], "submission.trigger_id") is None:
                why = f"executions have it as {entry}, and a receipt may, too"
                self._note("submission.trigger_id", found.name, found.example, why)

    def _propose(self, kind: str, wanted: Sequence[str]) -> None:
        taken = {found.name for entry, found in self.found.items() if entry.startswith(f"{kind}.")}
        free = [member for name, member in self.members[kind].items() if name not in taken]
        for entry, member, why in self._likely(wanted, free):
            self._note(entry, member.name, _example(member), why)

    def _may_be(self, entry: str, member: Member) -> bool:
        # What a null will hold one day is told by its name alone; any text may be a word or a name.
        kind, types = member.type, TRAITS[entry].types
        return kind in (*types, "nothing") or ("text" in types and kind not in ("list", "object"))

    def _fits(self, entry: str, member: Member) -> bool:
        if member.type not in TRAITS[entry].types:
            return False
        if entry in _LIMITS:
            return self._may_limit(entry, member.name)
        if entry == "execution.trigger_id":
            ids = [canonical(str(value)) for value in member.values]
            if len(set(ids)) < len(ids) - max(0, ids.count(BLANK_GUID) - 1):
                return False  # each execution has one of its own
        if entry == "job.id" or "guid" not in TRAITS[entry].types:
            return True
        of_jobs = self._job_ids.issuperset(canonical(str(value)) for value in member.values)
        return of_jobs is entry.endswith("job_id")

    def _may_limit(self, entry: str, name: str) -> bool:
        """Tell whether a time may be the start or end: what runs has no end, and starts are before ends."""
        other = self.found.get(_LIMITS[entry])
        in_order = []
        for execution in self.objects["execution"][:SAMPLE]:
            held = dict(flattened(execution))
            time = parse_time(held.get(name), self.zone)
            limit = parse_time(held.get(other.name), self.zone) if other else None
            state = self.vocabulary.member(execution, "execution.state")
            if time and entry == "execution.end" and self.vocabulary.meaning("states", state) == "running":
                return False
            if time and limit:
                in_order.append(limit < time if entry == "execution.end" else time < limit)
        return any(in_order) or not in_order

    @cached_property
    def _job_ids(self) -> set[str]:
        found = self.found.get("job.id")
        return {canonical(str(job.get(found.name))) for job in self.objects["job"]} if found else set()

    def _likely(self, wanted: Sequence[str], free: Sequence[Member]) -> Iterator[tuple[str, Member, str]]:
        """Yield which member is likely to stand for which field, and why."""
        fitting = {entry: [member for member in free if self._fits(entry, member)] for entry in wanted}
        scores = {
            (entry, member.name): self._score(entry, member, fitting[entry])
            for entry in wanted
            for member in fitting[entry]
        }
        left = {member.name: member for member in free}
        for (entry, name), score in sorted(scores.items(), key=lambda item: -item[1]):
            if entry not in fitting or name not in left:
                continue  # it is found already
            others = (member.name for member in fitting[entry] if member.name in left)
            rivals = [scores[entry, other] for other in others if other != name]
            if (rivals or entry in _BY_NAME) and (score < 1 or score <= max(rivals, default=0)):
                continue  # nobody can tell
            if entry == "execution.state" and any(
                scores[entry, other.name] >= 1 and other.name.split(".")[0] != name.split(".")[0]
                for other in fitting[entry]
            ):
                continue  # each may decide whether a task is green
            del fitting[entry]
            member, only = left.pop(name), "the likeliest" if rivals else "the only one"
            yield entry, member, f"it holds a {member.type}, and is {only} of that type"

    def _score(self, entry: str, member: Member, rivals: Sequence[Member]) -> float:
        trait, kind = TRAITS[entry], member.type
        score = 1.0 if any(hint in fold(member.name) for hint in trait.hints) else 0.0
        if kind == trait.types[0]:
            score += 0.3
        if kind == "time" and len(rivals) > 1:
            latest = max(rivals, key=self._mean_time)
            score += 0.5 if (member is latest) is (entry == "execution.end") else 0.0
        if kind == "guid" and any(canonical(str(value)) == BLANK_GUID for value in member.values):
            score += 0.5 if entry.endswith("trigger_id") else 0.0
        return score

    def _mean_time(self, member: Member) -> float:
        times = [
            time.timestamp() for time in (parse_time(value, self.zone) for value in member.values) if time
        ]
        return sum(times) / len(times) if times else 0.0

    def _apart(self, objects: Sequence[Object]) -> tuple[list[Object], list[Object]]:
        """Tell executions from log entries that lie beside them: these have few members in common."""
        shapes = Counter(frozenset(obj) for obj in objects)
        if not shapes:
            return [], []
        biggest = max(shapes, key=len)
        alike = {shape for shape in shapes if 2 * len(shape & biggest) >= len(shape | biggest)}
        if len(alike) == len(shapes):
            return list(objects), []
        groups = (
            [obj for obj in objects if frozenset(obj) in alike],
            [obj for obj in objects if frozenset(obj) not in alike],
        )
        executions, entries = sorted(groups, key=self._like_executions, reverse=True)
        return executions, entries

    def _like_executions(self, objects: Sequence[Object]) -> tuple[int, int]:
        there = members(objects, self.zone)
        known = sum(self.vocabulary.spelling(there, entry) is not None for entry in _OF_EXECUTIONS)
        known -= sum(self.vocabulary.spelling(there, entry) is not None for entry in _OF_ENTRIES)
        # An execution has a start and an end, an entry a time.
        return known, sum(member.type == "time" for member in there.values())

    def _join(self) -> None:
        """Find the members by which flat entries tell to which execution they belong."""
        if self.vocabulary.adds("log.execution_id"):
            return
        best, pair = 0, None
        for of_entry in self.members["log"].values():
            owners = {canonical(str(value)) for value in of_entry.values}
            for of_execution in self.members["execution"].values():
                keys = [canonical(str(value)) for value in of_execution.values]
                # A key tells one execution from all others.
                shared = len(owners & set(keys)) if len(set(keys)) == len(keys) else 0
                if shared == len(owners) and shared > best:
                    best, pair = shared, (of_entry, of_execution)
        if pair is None:
            return
        of_entry, of_execution = pair
        why = f"its {best} values are those of {of_execution.name} of the executions"
        self._note("log.execution_id", of_entry.name, _example(of_entry), why)
        trigger_id = self.found.get("execution.trigger_id")
        if trigger_id is None or trigger_id.name != of_execution.name:
            why = f"entries name it as {of_entry.name}"
            self._note("execution.id", of_execution.name, _example(of_execution), why)


def _example(member: Member) -> Any:
    shown = next(iter(member.values), None)
    return f"a list of {len(shown)}" if isinstance(shown, list) else shown
