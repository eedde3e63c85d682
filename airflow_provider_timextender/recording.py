"""Recordings of an account's answers that can be shown to others: the shape stays, what it tells goes.

Names, messages, ids and times are replaced, the same one by the same each time. What stays is what the API is
asked about: the names of members, the words of states and severities, small numbers, and how all is nested.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

from airflow_provider_timextender.check import WORDS, Report
from airflow_provider_timextender.evidence import members
from airflow_provider_timextender.jobs_api import Raw
from airflow_provider_timextender.model import BLANK_GUID, canonical, is_guid, is_unset, parse_time

FORMAT = 1
"""Of the recording; the simulator plays the same."""

MOST = 20
"""So many items at each end of a longer list are recorded, and those between with a word not met before."""

_SMALL = 1000
"""Whole numbers below are kept: a code is one."""

_NEWEST = datetime.fromisoformat("2026-01-01T12:00:00+00:00")
"""The newest time of a recording."""

_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:([T ])(\d\d:\d\d(?::\d\d)?))?(.*)", re.DOTALL)
_NET_DATE = re.compile(r"/Date\((-?\d+)(.*)", re.DOTALL)
_NO_WORD = re.compile(r"(?=\D*\d)[\d\s/.:,+TZAPM-]+")
_UNSET = re.compile(
    r"0?|00:00:00|/Date\((0|-\d+)([+-]\d{4})?\)/|01/01/0001( 0?0:00:00)?"
    r"|(0001-01-01|9999-12-31)([T ]\d\d:\d\d(:\d\d)?(\.0+|\.9+)? *(Z|[+-]\d\d:\d\d)?)?"
)
"""Times that nobody has set yet, which tell nothing; less than what is taken for one where times are read."""


def record(report: Report) -> dict[str, Any]:
    """Return a recording of what an account answered.

    :return: ``{"timextender_recording": 1, "members": {logical field: name}, "answers": [{"path", "body"}]}``
    """
    account = report.account
    replaced = _Replaced(report)
    raws: list[Raw[Any]] = [account.jobs, account.statuses, *account.logs.values()]
    raws += [account.filtered] if account.filtered else []
    return {
        "timextender_recording": FORMAT,
        "members": {entry: found.name for entry, found in report.evidence.found.items()},
        "answers": [
            {"path": replaced.path(raw.call.path), "body": replaced.value("", raw.data)} for raw in raws
        ],
    }


def readable(recording: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what stays readable in a recording: the names of ``members``, and its ``words``."""
    names: set[str] = set()
    words: set[str] = set()
    for answer in recording["answers"]:
        for name, value in _walk(answer["body"]):
            names.add(name)
            if isinstance(value, str) and not _is_made_up(value):
                words.add(value)
    return {"members": sorted(names), "words": sorted(words)}


def _walk(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for inner, held in value.items():
            yield inner, None
            yield from _walk(held, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, name)
    else:
        yield name, value


_MADE_UP = re.compile(r"text \d+")


def _is_made_up(value: str) -> bool:
    if is_guid(value) or parse_time(value) is not None:
        return True
    return any(pattern.fullmatch(value.strip()) for pattern in (_MADE_UP, _UNSET, _NO_WORD))


class _Replaced:
    """Replaces what an account tells, the same by the same."""

    def __init__(self, report: Report) -> None:
        evidence = report.evidence
        self._zone = report.account.zone
        fields = {entry: evidence.found[entry].name for entry in WORDS.values() if entry in evidence.found}
        # What a member holds that is taken for a state may yet be messages, or names.
        tables = [
            field for field, name in fields.items()
            if evidence.members[field.split(".")[0]][name].type in ("word", "code")
        ]  # fmt: skip
        self._of_words = {fields[field] for field in tables}
        self._words = {word.word for word in report.words if WORDS[word.section] in tables}
        found = members((obj for kind in evidence.objects.values() for obj in kind), self._zone).values()
        times = [member for member in found if member.type == "time"]
        self._times = {member.name for member in times}
        moments = (parse_time(value, self._zone) for member in times for value in member.values)
        newest = max(filter(None, moments), default=_NEWEST)
        self._later = timedelta(seconds=round((_NEWEST - newest).total_seconds()))
        fields_found = {field.name for field in evidence.found.values()}
        self._jobs = {job.name for job in report.understood.jobs if job.name} - fields_found
        self._ids: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._numbers: dict[float, int] = {}

    def path(self, path: str) -> str:
        """Return the path of a call, with other ids."""
        parts = (unquote(part) for part in path.split("/"))
        return "/".join(quote(self._id(part), safe="") if is_guid(part) else part for part in parts)

    def value(self, name: str, value: Any) -> Any:
        """Return what stands for a value.

        :param name: of the member that holds it, as ``State.Name`` in an object.
        """
        if isinstance(value, dict):
            return {
                self._name(inner): self.value(f"{name}.{inner}".lstrip("."), held)
                for inner, held in value.items()
            }
        if isinstance(value, list):
            return [self.value("", item) for item in self._some(value)]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)):
            return self._number(name, value)
        return value if _UNSET.fullmatch(value.strip()) else self._text(name, value)

    def _name(self, name: str) -> str:
        """Return the name of a member, another one if it is an id or the name of a job."""
        if is_guid(name):
            return self._id(name)
        return self._text("", name) if name in self._jobs else name

    def _some(self, items: list[Any]) -> Iterator[Any]:
        met: set[tuple[str, str]] = set()
        for number, item in enumerate(items):
            told = {(name, str(held)) for name, held in _walk(item) if str(held) in self._words}
            if number < MOST or number >= len(items) - MOST or told - met:
                yield item
            met |= told

    def _text(self, name: str, text: str) -> str:
        if name in self._of_words and text in self._words:
            return text
        if is_guid(text):
            return self._id(text)
        if parse_time(text, self._zone) is not None:
            return self._time(text)
        if _NO_WORD.fullmatch(text):  # a time, say, in a way that is not understood
            return re.sub(r"\d", "1", text)
        return self._texts.setdefault(text, f"text {len(self._texts) + 1}")

    def _id(self, text: str) -> str:
        """Return another guid, written alike."""
        if canonical(text) == BLANK_GUID:
            return text
        made = uuid.uuid5(uuid.NAMESPACE_OID, str(len(self._ids)))
        new = self._ids.setdefault(canonical(text), str(made))
        new = new if "-" in text else new.replace("-", "")
        new = new.upper() if text.upper() == text else new
        return f"{{{new}}}" if text.startswith("{") else new

    def _time(self, text: str) -> str:
        """Return a later or earlier time, written alike."""
        if epoch := _NET_DATE.fullmatch(text.strip()):
            return f"/Date({int(epoch[1]) + round(self._later.total_seconds() * 1000)}{epoch[2]}"
        written = _ISO.fullmatch(text.strip())
        if written is None:
            return re.sub(r"\d", "1", text)
        day, between, hour, rest = written.groups()
        later = datetime.fromisoformat(f"{day}T{hour or '00:00'}") + self._later
        if hour is None:
            return f"{later.date().isoformat()}{rest}"
        return f"{later.isoformat(between, 'seconds' if hour.count(':') == 2 else 'minutes')}{rest}"

    def _number(self, name: str, number: float) -> float:
        if name in self._times and not is_unset(number):
            unit = 1000 if number >= 1e11 else 1
            return number + type(number)(self._later.total_seconds() * unit)
        if abs(number) < _SMALL and number == int(number):
            return number
        return type(number)(self._numbers.setdefault(number, _SMALL + len(self._numbers)))
