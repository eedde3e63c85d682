"""How the same facts look on the wire. The API's published description leaves most of it open."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from datetime import timezone as fixed_timezone
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo

from airflow_provider_timextender.simulator.world import BLANK_TRIGGER_ID, Execution, Job, Line

Word = str | int | None
Written = Literal["plain", "object"]

_ABSENT: Any = object()
"""The value of a member that is not written at all."""

_YEAR_1 = datetime(1, 1, 1, tzinfo=fixed_timezone.utc)

_ENTRIES: Mapping[str, Sequence[str]] = {
    "Id": ("job.id",),
    "Name": ("job.name",),
    "JobId": ("status.job_id", "submission.job_id", "execution.job_id"),
    "Status": ("status.state",),
    "TriggerId": ("submission.trigger_id", "execution.trigger_id", "log.trigger_id"),
    "Message": ("submission.message", "execution.message", "log.message"),
    "State": ("execution.state",),
    "StartTime": ("execution.start",),
    "EndTime": ("execution.end",),
    "Logs": ("execution.logs",),
    "Timestamp": ("log.time",),
    "Severity": ("log.severity",),
}
"""For each standard member, where a connection's vocabulary says that it is called otherwise."""

_MEANINGS: Mapping[str, Sequence[str]] = {
    "statuses": ("idle", "pending", "running"),
    "states": ("running", "succeeded", "failed"),
    "severities": ("info", "warning", "error"),
}
"""What a dialect has words for."""

_PLAIN: Mapping[str, Sequence[str]] = {
    "idle": ("idle",),
    "pending": ("pending",),
    "running": ("running",),
    "succeeded": ("succeeded", "success"),
    "failed": ("failed",),
    "info": ("info", "information"),
    "warning": ("warning", "warn"),
    "error": ("error",),
}
"""Words that a connection need not be told."""


class Reply(NamedTuple):
    """What is sent back: JSON, and the status of HTTP."""

    data: Any
    status: int = 200


def folded(id_: str) -> str:
    """Return an id in the one spelling that is compared."""
    return id_.strip("{}").lower()


@dataclass(frozen=True)
class Dialect:
    """A way to write the API's answers, put together from independent traits.

    The defaults are what the published description suggests. Everything that a reader can be told in the
    connection is in :attr:`extra`; some traits no setting can heal.

    :ivar members: how the names of members are written.
    :ivar renamed: for each standard member name, what stands on the wire instead.
    :ivar trigger_id_on: where an execution's trigger id is written.
    :ivar filters: what ``logs/{trigger_id}`` does: it answers only the ``executions`` with that id, all
        executions with the matching ``entries`` only, everything (``nothing``), or always ``404``.
    :ivar ids: how guids are written; ``braces`` are around upper case.
    :ivar exact_ids: ids in a URL are compared letter by letter, and not without regard to case and braces.
    :ivar hand_ids: what is written for the trigger id of an execution that was started by hand.
    :ivar order: of the executions in a log.
    :ivar statuses: the word for each status of a job; ``states`` and ``severities`` likewise.
    :ivar statuses_as: ``object`` for ``{"Id": 1, "Name": word}``; ``states_as`` likewise.
    :ivar unfinished: whether the log shows an execution that has not ended.
    :ivar unfinished_state: what is written for the state of such an execution; ``succeeded`` or ``failed`` as
        where a code, or a word, has its default value until the end.
    :ivar no_time: what is written for the end of such an execution.
    :ivar message_on: where it says what became of an execution: on itself, or in its log entries only.
    :ivar end_on: whether an execution says when it ended.
    :ivar times: how times are written; ``naive`` and ``seven digits`` have no zone.
    :ivar timezone: in which zone such times, and those with an ``offset``, are written.
    :ivar nesting: ``flat`` puts log entries beside their execution, ``wrapped`` each list of an answer into
        an object; with ``one object`` a list of one is that one.
    :ivar empty: what an empty log is.
    :ivar receipt: the answer to a submission; ``202`` is its status then.
    :raises ValueError: for a value that a trait does not take, naming those that it takes.
    """

    name: str = "custom"
    members: Literal["Pascal", "camel", "snake", "UPPER"] = "Pascal"
    renamed: Mapping[str, str] = field(default_factory=dict)
    trigger_id_on: Literal["both", "execution", "entries", "nowhere"] = "both"
    filters: Literal["executions", "entries", "nothing", "404"] = "executions"
    ids: Literal["lower", "upper", "braces"] = "lower"
    exact_ids: bool = False
    hand_ids: Literal["blank", "null", "absent", "empty"] = "blank"
    order: Literal["oldest", "newest", "shuffled"] = "oldest"
    statuses: Mapping[str, Word] = field(
        default_factory=lambda: {"idle": "Idle", "pending": "Pending", "running": "Running"}
    )
    states: Mapping[str, Word] = field(
        default_factory=lambda: {"running": "Running", "succeeded": "Success", "failed": "Failed"}
    )
    severities: Mapping[str, Word] = field(
        default_factory=lambda: {"info": "Information", "warning": "Warning", "error": "Error"}
    )
    statuses_as: Written = "plain"
    states_as: Written = "plain"
    unfinished: Literal["shown", "hidden"] = "shown"
    unfinished_state: Literal["running", "absent", "null", "succeeded", "failed"] = "running"
    no_time: Literal["null", "absent", "year 1"] = "null"
    message_on: Literal["execution", "entries"] = "execution"
    end_on: Literal["execution", "nowhere"] = "execution"
    times: Literal["Z", "offset", "naive", "seven digits", "epoch", "epoch ms", "/Date()/"] = "Z"
    timezone: str = "UTC"
    nesting: Literal["nested", "flat", "wrapped", "one object"] = "nested"
    empty: Literal["[]", "null", "204", "404"] = "[]"
    receipt: Literal["whole", "no id", "in a list", "202"] = "whole"

    def __post_init__(self) -> None:
        for trait, values in choices().items():
            _refuse_unknown(trait, [getattr(self, trait)], values)
        _refuse_unknown("renamed", self.renamed, [*_ENTRIES, "Value"])
        for section, meanings in _MEANINGS.items():
            _refuse_unknown(section, getattr(self, section), meanings)
            if missing := set(meanings) - set(getattr(self, section)):
                raise ValueError(f"{section} has no word for {', '.join(sorted(missing))}.")
        try:
            ZoneInfo(self.timezone)
        except (ValueError, OSError, LookupError):  # ZoneInfoNotFoundError is a KeyError
            raise ValueError(f"timezone: {self.timezone!r} is no name of the IANA database.") from None

    @property
    def extra(self) -> dict[str, Any]:
        """What the extra of a connection has to say so that all is understood that can be."""
        sections: dict[str, dict[str, Word]] = {
            "fields": {
                entry: written for name, written in self.renamed.items() for entry in _ENTRIES.get(name, ())
            },
            "statuses": _unusual(self.statuses),
            "states": _unusual(self.states),
            "severities": _unusual(self.severities),
        }
        if self.statuses_as == "object":
            sections["fields"]["status.state"] = f"{self._member('Status')}.{self._member('Name')}"
        if self.states_as == "object":
            sections["fields"]["execution.state"] = f"{self._member('State')}.{self._member('Name')}"
        if self.nesting == "wrapped":
            sections["fields"]["list.items"] = self._member("Value")
        if self.nesting == "flat" and self.trigger_id_on == "both":
            sections["fields"]["log.execution_id"] = self._member("TriggerId")
        vocabulary = {section: entries for section, entries in sections.items() if entries}
        extra: dict[str, Any] = {"vocabulary": vocabulary} if vocabulary else {}
        if self.times in ("naive", "seven digits") and self.timezone != "UTC":
            extra["timezone"] = self.timezone
        return extra

    def with_unknown_words(self, word: Word) -> Dialect:
        """Return the dialect with one and the same word for every status and state."""
        return replace(
            self,
            statuses=dict.fromkeys(self.statuses, word),
            states=dict.fromkeys(self.states, word),
        )

    def means(self, asked: str, id_: str) -> bool:
        """Tell whether an id in a URL is that one."""
        return asked == self.write_id(id_) if self.exact_ids else folded(asked) == folded(id_)

    def write_jobs(self, jobs: Sequence[Job]) -> Reply:
        """Write the list of jobs."""
        return Reply(self._list([self._object(Id=self.write_id(job.id), Name=job.name) for job in jobs]))

    def write_statuses(self, statuses: Sequence[tuple[Job, str]]) -> Reply:
        """Write what jobs are doing."""
        return Reply(self._list([self._status(job, status) for job, status in statuses]))

    def write_status(self, job: Job, status: str) -> Reply:
        """Write what a job is doing."""
        return Reply(self._status(job, status))

    def write_receipt(self, execution: Execution) -> Reply:
        """Write the answer to a submission."""
        written = self._object(
            JobId=self.write_id(execution.job.id),
            Message="The job has been queued for execution.",
            TriggerId=_ABSENT if self.receipt == "no id" else self.write_id(execution.trigger_id),
        )
        return Reply(
            [written] if self.receipt == "in a list" else written, 202 if self.receipt == "202" else 200
        )

    def write_log(
        self, job: Job, executions: Sequence[Execution], now: float, asked: str | None = None
    ) -> Reply:
        """Write executions of a job, oldest first, with their log entries, as they stand at a moment.

        :param asked: the trigger id in the URL, if there is one.
        """
        if asked is not None and self.filters == "404":
            return Reply({"message": "Not found"}, 404)
        objects: list[dict[str, Any]] = []
        for execution in self._ordered(executions):
            matches = asked is None or self.filters == "nothing" or self.means(asked, execution.trigger_id)
            hidden = self.unfinished == "hidden" and execution.state(now) != "ended"
            if hidden or not (matches or self.filters == "entries"):
                continue
            lines = [self._line(execution, line) for line in execution.lines if matches and line.at <= now]
            if self.nesting == "flat":
                objects += [self._execution(execution, now), *lines]
            else:
                objects.append(self._execution(execution, now) | self._object(Logs=lines))
        if objects or self.empty == "[]":
            return Reply(self._list(objects))
        if self.empty == "404":
            return Reply({"message": "Not found"}, 404)
        return Reply(None, 204 if self.empty == "204" else 200)

    def _status(self, job: Job, status: str) -> dict[str, Any]:
        return self._object(
            JobId=self.write_id(job.id), Status=self._word(self.statuses, status, self.statuses_as)
        )

    def _ordered(self, executions: Sequence[Execution]) -> Sequence[Execution]:
        if self.order == "shuffled":
            return sorted(executions, key=lambda execution: execution.trigger_id)  # that is random
        return executions if self.order == "oldest" else executions[::-1]

    def _execution(self, execution: Execution, now: float) -> dict[str, Any]:
        ended = execution.state(now) == "ended"
        return self._object(
            JobId=self.write_id(execution.job.id),
            TriggerId=self._trigger_id(execution, "execution"),
            State=self._state(execution.outcome if ended else self.unfinished_state),
            StartTime=self._time(execution.started),
            EndTime=self._end(execution.ended if ended else None),
            Message=_ABSENT if self.message_on == "entries" else execution.message if ended else None,
        )

    def _line(self, execution: Execution, line: Line) -> dict[str, Any]:
        return self._object(
            TriggerId=self._trigger_id(execution, "entries"),
            Timestamp=self._time(line.at),
            Severity=self.severities[line.severity],
            Message=line.message,
        )

    def _list(self, objects: list[dict[str, Any]]) -> Any:
        if self.nesting == "wrapped":
            return self._object(Value=objects)
        return objects[0] if self.nesting == "one object" and len(objects) == 1 else objects

    def _object(self, **members: Any) -> dict[str, Any]:
        return {self._member(name): value for name, value in members.items() if value is not _ABSENT}

    def _member(self, name: str) -> str:
        name = self.renamed.get(name, name)
        if self.members == "camel":
            return name[0].lower() + name[1:]
        if self.members == "snake":
            return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        return name.upper() if self.members == "UPPER" else name

    def write_id(self, id_: str) -> str:
        """Write a guid."""
        if self.ids == "lower":
            return id_
        return f"{{{id_.upper()}}}" if self.ids == "braces" else id_.upper()

    def _trigger_id(self, execution: Execution, place: Literal["execution", "entries"]) -> Any:
        if self.trigger_id_on not in ("both", place):
            return _ABSENT
        if execution.trigger_id == BLANK_TRIGGER_ID and self.hand_ids != "blank":
            return {"null": None, "absent": _ABSENT, "empty": ""}[self.hand_ids]
        return self.write_id(execution.trigger_id)

    def _state(self, state: str) -> Any:
        if state in ("absent", "null"):
            return _ABSENT if state == "absent" else None
        return self._word(self.states, state, self.states_as)

    def _word(self, words: Mapping[str, Word], meaning: str, written: Written) -> Any:
        word = words[meaning]
        return word if written == "plain" else self._object(Id=list(words).index(meaning), Name=word)

    def _end(self, moment: float | None) -> Any:
        if self.end_on == "nowhere" or (moment is None and self.no_time == "absent"):
            return _ABSENT
        if moment is None:
            return None if self.no_time == "null" else self._write(_YEAR_1, _YEAR_1)
        return self._time(moment)

    def _time(self, moment: float) -> str | int:
        utc = datetime.fromtimestamp(moment, fixed_timezone.utc)
        return self._write(utc, utc.astimezone(ZoneInfo(self.timezone)))

    def _write(self, utc: datetime, local: datetime) -> str | int:
        if self.times in ("naive", "seven digits"):
            naive = local.replace(tzinfo=None).isoformat(timespec="microseconds")
            return naive if self.times == "naive" else f"{naive}0"
        if self.times in ("Z", "offset"):
            written = utc.replace(tzinfo=None) if self.times == "Z" else local
            return written.isoformat(timespec="microseconds") + ("Z" if self.times == "Z" else "")
        milliseconds = round(utc.timestamp() * 1000)
        if self.times == "/Date()/":
            return f"/Date({milliseconds})/"
        return milliseconds if self.times == "epoch ms" else milliseconds // 1000


@cache
def choices() -> Mapping[str, tuple[Any, ...]]:
    """Return the traits of a dialect that take one of some values, with those values."""
    hints = get_type_hints(Dialect).items()
    return {
        trait: get_args(hint) or (False, True)
        for trait, hint in hints
        if get_origin(hint) is Literal or hint is bool
    }


def _refuse_unknown(trait: str, given: Iterable[Any], possible: Sequence[Any]) -> None:
    for value in given:
        if value not in possible:
            raise ValueError(f"{trait}: there is no {value!r}, only {', '.join(map(str, possible))}.")


def _unusual(words: Mapping[str, Word]) -> dict[str, Word]:
    """Return the words of a table, unless each of them is understood as it is."""
    told: dict[str, Word] = {meaning: word for meaning, word in words.items() if word is not None}
    usual = all(str(word).lower() in _PLAIN[meaning] for meaning, word in told.items())
    return {} if usual else told


DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("documented"),
        Dialect(
            "camel",
            members="camel",
            statuses={"idle": "idle", "pending": "pending", "running": "running"},
            states={"running": "running", "succeeded": "succeeded", "failed": "failed"},
            severities={"info": "info", "warning": "warn", "error": "error"},
            trigger_id_on="entries",
        ),
        Dialect(
            "numeric",
            members="snake",
            renamed={"State": "ResultCode", "Logs": "Entries", "Severity": "Kind"},
            statuses={"idle": 0, "pending": 1, "running": 2},
            states={"running": 0, "succeeded": 1, "failed": 2},
            severities={"info": 0, "warning": 1, "error": 2},
            trigger_id_on="execution",
            times="seven digits",
            no_time="year 1",
        ),
    )
}
"""Dialects by name: the one that the description suggests, and two others as plausible."""
