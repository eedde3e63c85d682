"""The words of the API: what its JSON members are called, and what it says in them.

The published description of the API names the endpoints but only a few JSON members, and none of the
end states. So every name and word that this package relies on stands in the tables :data:`FIELDS`,
:data:`STATUSES`, :data:`STATES` and :data:`SEVERITIES`, marked as *documented* or *assumed*, and an
Airflow connection can add its own (:meth:`Vocabulary.of`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.model import short


@dataclass(frozen=True)
class Names:
    """The spellings accepted for one meaning, by where they are known from."""

    documented: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every spelling, the documented ones first."""
        return self.documented + self.assumed


# Spellings are compared without regard to case, "_", "-" and spaces.

FIELDS: Mapping[str, Names] = {
    "job.id": Names(documented=("Id",), assumed=("JobId",)),
    "job.name": Names(assumed=("Name", "JobName", "DisplayName")),
    "status.job_id": Names(assumed=("JobId", "Id")),
    "status.state": Names(assumed=("Status", "JobStatus", "State", "JobState")),
    "submission.job_id": Names(documented=("JobId",)),
    "submission.message": Names(documented=("Message",)),
    "submission.trigger_id": Names(documented=("TriggerId",)),
    # For log entries that lie flat beside executions: named in the connection, they join the two.
    "execution.id": Names(),
    "log.execution_id": Names(),
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
    # A list may come in an object. It is taken out only if the connection names the member that holds it.
    "list.items": Names(),
    "list.next": Names(
        assumed=(
            "nextLink", "@odata.nextLink", "next", "nextPage", "nextPageUrl", "nextToken", "nextPageToken",
            "nextCursor", "continuationToken", "hasMore", "hasNext", "hasNextPage",
        )
    ),
    "list.total": Names(assumed=("total", "totalCount", "totalItems", "count", "@odata.count")),
}  # fmt: skip

_REFERENCES = ("execution.id", "log.execution_id")
"""What may stand in the same member as another field: a trigger id, say."""

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

_SECTIONS: Mapping[str, Mapping[str, Names]] = {
    "fields": FIELDS,
    "statuses": STATUSES,
    "states": STATES,
    "severities": SEVERITIES,
}


def override_hint(value: str, entry: str) -> str:
    """Say what to do if the API holds a value under a name that is not in the table."""
    return (
        f"If another member holds {value}, override vocabulary.fields.{entry} in the extra of the connection."
    )


def is_code(word: str) -> bool:
    """Tell whether a word is a whole number."""
    return re.fullmatch(r"\s*-?\d+\s*", word) is not None


def is_word(value: Any) -> bool:
    """Tell whether a value may stand in a table: a text that is not blank, or a whole number."""
    return isinstance(value, (str, int)) and not isinstance(value, bool) and fold(str(value)) != ""


def fold(word: str) -> str:
    """Return a word as it is compared: without regard to case, ``_``, ``-`` and spaces."""
    # A long one is no name of the API's, and is not kept.
    return (_folded if len(word) <= 100 else _folded.__wrapped__)(word)


@lru_cache(maxsize=4096)
def _folded(word: str) -> str:
    # In a code, the sign means something.
    return word.strip() if is_code(word) else re.sub(r"[\s_-]", "", word).lower()


@dataclass(frozen=True)
class Vocabulary:
    """The tables in force: the defaults, and before them what a connection adds.

    :ivar given: section -> entry -> the spellings that a connection adds.
    """

    given: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, overrides: Mapping[str, Any]) -> Vocabulary:
        """Return the vocabulary of a connection.

        :param overrides: section -> entry -> one spelling or a list of them, for example
            ``{"states": {"succeeded": ["Completed", 3]}}``. Sections are ``fields``, ``statuses``,
            ``states`` and ``severities``.
        :raises InvalidInput: for an unknown section or entry, a spelling that is neither text nor a
            whole number, or a word that is given under two entries of its section.
        """
        given: dict[str, dict[str, tuple[str, ...]]] = {}
        for section, entries in overrides.items():
            _refuse_unknown(section, _SECTIONS, "vocabulary")
            where = f"vocabulary.{section}"
            if not isinstance(entries, Mapping):
                raise InvalidInput(f"{where} must be an object of entries, not {short(entries)}.")
            for entry, spellings in entries.items():
                _refuse_unknown(entry, _SECTIONS[section], where)
                given.setdefault(section, {})[entry] = _spellings(spellings, f"{where}.{entry}")
            if section != "fields":
                _refuse_shared_words(section, given.get(section, {}))
        return cls(given)

    @cached_property
    def spellings(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Section -> entry -> all spellings, the connection's first."""
        return {
            section: {entry: self._given(entry, section) + self._rest(entry, section) for entry in table}
            for section, table in _SECTIONS.items()
        }

    def adds(self, field: str) -> bool:
        """Tell whether the connection names a member for a logical field."""
        return bool(self._given(field))

    def _given(self, entry: str, section: str = "fields") -> tuple[str, ...]:
        return self.given.get(section, {}).get(entry, ())

    def _rest(self, entry: str, section: str = "fields") -> tuple[str, ...]:
        """Return the default spellings of an entry but those that a connection gives, for whatever entry."""
        given = self.given.get(section, {}).items()
        # In the fields, "job" stands before a dot, say: members of other objects may be called the same.
        kin = (
            words
            for other, words in given
            if other.split(".")[:-1] == entry.split(".")[:-1] and other not in _REFERENCES
        )
        moved = {fold(word) for words in kin for word in words}
        return tuple(word for word in _SECTIONS[section][entry].all if fold(word) not in moved)

    @cached_property
    def _names(self) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """Logical field -> the connection's spellings and the others, folded for comparison."""
        return {
            entry: tuple(tuple(map(fold, spelled(entry))) for spelled in (self._given, self._rest))
            for entry in FIELDS
        }

    @cached_property
    def _words(self) -> Mapping[str, Mapping[str, str]]:
        return {
            section: {fold(word): entry for entry, words in entries.items() for word in words}
            for section, entries in self.spellings.items()
        }

    def has(self, obj: Mapping[str, Any], *entries: str) -> bool:
        """Tell whether a JSON object has a member for one of several logical fields."""
        places = self._places(tuple(_flat(obj)))
        return any(places[entry] for entry in entries)

    def spelling(self, names: Iterable[str], entry: str) -> str | None:
        """Return which of some member names is taken for a logical field, ``None`` if none is."""
        written = {fold(name): name for name in names}
        wanted = (name for spelled in self._names[entry] for name in spelled)
        return next((written[name] for name in wanted if name in written), None)

    def known_from(self, name: str, entry: str) -> str:
        """Return where a spelling is known from: ``connection``, ``documented`` or ``assumed``."""
        if fold(name) in map(fold, self._given(entry)):
            return "connection"
        return "documented" if fold(name) in map(fold, FIELDS[entry].documented) else "assumed"

    def adding(self, proposals: Mapping[str, str]) -> Vocabulary:
        """Return the vocabulary with more spellings of fields, before those that a connection adds."""
        fields = dict(self.given.get("fields", {}))
        for entry, name in proposals.items():
            fields[entry] = (name, *(other for other in fields.get(entry, ()) if other != name))
        return Vocabulary({**self.given, "fields": fields} if fields else self.given)

    def to_dict(self) -> dict[str, dict[str, str | list[str]]]:
        """Return what a connection adds, as it stands in its extra."""
        return {
            section: {entry: words[0] if len(words) == 1 else list(words) for entry, words in entries.items()}
            for section, entries in self.given.items()
        }

    def members(self, obj: Mapping[str, Any], entry: str) -> list[Any]:
        """Return all that a JSON object holds for a logical field, in the order of preference.

        A member that the connection names decides alone, also where it holds nothing.
        """
        flat = _flat(obj)
        return [flat[name] for name in self.places(tuple(flat), entry) if flat[name] is not None]

    def places(self, names: tuple[str, ...], entry: str) -> tuple[str, ...]:
        """Return which of some names of members are those of a logical field, in the order of preference."""
        return self._places(names)[entry]

    def _places(self, names: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
        known = self._known.get(names)
        if known is None:
            known = _Places(self._names, names)
            # A long name is none of the API's, and is not kept.
            if len(self._known) < 256 and sum(map(len, names)) < 1000:
                self._known[names] = known
        return known

    @cached_property
    def _known(self) -> dict[tuple[str, ...], _Places]:
        """The places of each logical field among some names, as objects of an answer are alike."""
        return {}

    def member(self, obj: Mapping[str, Any], entry: str) -> Any:
        """Return what a JSON object holds for a logical field, ``None`` if it holds nothing."""
        return self.each(obj, entry)[0]

    def each(self, obj: Mapping[str, Any], *entries: str) -> list[Any]:
        """Return what a JSON object holds for each of several logical fields, as :meth:`member`."""
        flat = _flat(obj)
        places = self._places(tuple(flat))
        found: list[Any] = []
        for entry in entries:
            value = None
            for place in places[entry]:
                value = flat[place]
                if value is not None:
                    break
            found.append(value)
        return found

    def meaning(self, section: str, word: Any) -> str | None:
        """Return the entry of a section under which a word or code stands, ``None`` if none."""
        if isinstance(word, bool) or not isinstance(word, (str, int)):
            return None
        return self._words[section].get(fold(str(word)))

    def missing(self, obj: Mapping[str, Any], entry: str) -> str:
        """Say that a JSON object holds nothing for a logical field, and what to do if it does."""
        expected = ", ".join(self.spellings["fields"][entry])
        return (
            f"no value for {entry}. Found the members {short(list(obj))}, expected one of {expected}. "
            f'If it is called otherwise, set {{"vocabulary": {{"fields": {{"{entry}": "..."}}}}}} in the '
            "extra of the connection."
        )

    def unknown(self, word: Any, entry: str, section: str) -> str:
        """Say that a word is in no table, and what to do about it."""
        table = self.spellings[section]
        known = "; ".join(f"{meaning}: {', '.join(spellings)}" for meaning, spellings in table.items())
        return (
            f"{entry} is {short(word)}, a word in no table (known: {known}). If you know what it means "
            f"({', '.join(table)}), add it under that name in the extra of the connection: "
            f'{{"vocabulary": {{"{section}": {{"...": {json.dumps(word)[:80]}}}}}}}.'
        )


class _Places(dict[str, tuple[str, ...]]):
    """Which of some names are those of a logical field, looked for when it is asked for."""

    def __init__(self, spelled: Mapping[str, tuple[tuple[str, ...], ...]], names: tuple[str, ...]) -> None:
        self._spelled = spelled
        self._written = [(fold(name), name) for name in names]

    def __missing__(self, entry: str) -> tuple[str, ...]:
        for wanted in self._spelled[entry]:
            found = tuple(name for word in wanted for folded, name in self._written if folded == word)
            if found:
                break
        self[entry] = found
        return found


def flattened(obj: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the members of a JSON object, and those of objects in it as ``State.Name``."""
    for name, value in obj.items():
        yield name, value
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", held) for inner, held in value.items())


def _flat(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a JSON object as :func:`flattened`; most have no object in them."""
    return dict(flattened(obj)) if dict in map(type, obj.values()) else obj


def _refuse_unknown(name: Any, table: Mapping[str, Any], where: str) -> None:
    if name not in table:
        raise InvalidInput(f"{where} has no entry {name!r}; it has {', '.join(table)}.")


def _spellings(one_or_more: Any, where: str) -> tuple[str, ...]:
    values = one_or_more if isinstance(one_or_more, list) else [one_or_more]
    for value in values:
        if not is_word(value):
            raise InvalidInput(f"{where} takes names or whole numbers, not {short(value)}.")
    if not values:
        raise InvalidInput(f"{where} is an empty list; name at least one spelling.")
    return tuple(str(value) for value in values)


def _refuse_shared_words(section: str, entries: Mapping[str, tuple[str, ...]]) -> None:
    seen: dict[str, str] = {}
    for entry, spellings in entries.items():
        for spelling in spellings:
            other = seen.setdefault(fold(spelling), entry)
            if other != entry:
                raise InvalidInput(
                    f"The word {spelling!r} stands under {other} and {entry} of "
                    f"vocabulary.{section}; name it under one."
                )
