"""A recording of an account's answers, played as the API: for a bug report, or to learn its shape."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from airflow_provider_timextender.simulator.dialects import Dialect, Reply, folded
from airflow_provider_timextender.simulator.world import Execution, Job

FORMAT = 1

Object = dict[str, Any]

_ISO = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(.*)", re.DOTALL)
_NET_DATE = re.compile(r"/Date\((-?\d+)(.*)", re.DOTALL)


class Recording:
    """What an account answered, with a life of its own: each new execution is the copy of a recorded one.

    A job's recorded executions are played again in their order, each under a new trigger id and at the
    present time. A log shows an execution when it has ended; the statuses are always the recorded ones.

    :param recording: as ``check --record`` writes it.
    :raises ValueError: if it is none.
    """

    extra: Mapping[str, Any] = {}
    """What the extra of a connection has to say: nothing, as it is the shape that is to be found out."""

    def __init__(self, recording: Any) -> None:
        if not isinstance(recording, dict) or recording.get("timextender_recording") != FORMAT:
            raise ValueError(f"It is no recording of format {FORMAT}, which check --record writes.")
        try:
            self._names = {field: str(name) for field, name in recording["members"].items()}
            answers = {str(answer["path"]): answer["body"] for answer in recording["answers"]}
            self._jobs = answers["/public/jobs"]
            self._statuses = answers["/public/jobs/status"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"It is no whole recording; it was cut or changed: {error!r}.") from None
        parts = {path: [folded(unquote(part)) for part in path.split("/")[3:]] for path in answers}
        self._logs = {part[0]: answers[path] for path, part in parts.items() if part[1:] == ["logs"]}
        self._filtered = {part[0]: answers[path] for path, part in parts.items() if len(part) == 3}

    @classmethod
    def read(cls, file: Path) -> Recording:
        """Return the recording that a file holds.

        :raises ValueError: if it holds none. :raises OSError: if it cannot be read.
        """
        return cls(json.loads(file.read_text()))

    @property
    def jobs(self) -> list[Job]:
        """The recorded jobs whose ids are understood."""
        found = ((self._get(job, "job.id"), self._get(job, "job.name")) for job in self._items(self._jobs))
        jobs = {folded(str(id_)): str(name or id_) for id_, name in found if id_ is not None}
        return [Job(name, id=id_) for id_, name in jobs.items()]

    def means(self, asked: str, id_: str) -> bool:
        """Tell whether an id in a URL is that one."""
        return folded(asked) == folded(id_)

    def with_unknown_words(self, word: Any) -> Dialect:
        """Refuse: the words are the recorded ones."""
        raise ValueError("A recording says what it says; it has no other words.")

    def write_jobs(self, jobs: Sequence[Job]) -> Reply:
        """Write the list of jobs."""
        return Reply(self._jobs)

    def write_statuses(self, statuses: Sequence[tuple[Job, str]]) -> Reply:
        """Write what jobs were doing."""
        return Reply(self._statuses)

    def write_status(self, job: Job, status: str) -> Reply:
        """Write what a job was doing."""
        items = self._items(self._statuses)
        return Reply(next((it for it in items if self._is(job.id, self._get(it, "status.job_id"))), {}))

    def write_receipt(self, execution: Execution) -> Reply:
        """Write the answer to a submission: documented, but for the name of the trigger id."""
        return Reply(
            {
                "JobId": execution.job.id,
                "Message": "The job has been queued for execution.",
                self._names.get("submission.trigger_id", "TriggerId"): self._styled(execution.trigger_id),
            }
        )

    def write_log(
        self, job: Job, executions: Sequence[Execution], now: float, asked: str | None = None
    ) -> Reply:
        """Write what was recorded of a job, and the copies that have ended since.

        :param asked: the trigger id in the URL, if there is one.
        """
        log = self._logs.get(job.id)
        recorded = list(self._items(log))
        ended = (execution for execution in executions if execution.state(now) == "ended")
        copies = [item for number, one in enumerate(ended) for item in self._copy(job, number, one)]
        shown = [*recorded, *copies]
        if asked is not None:
            alone = list(self._items(self._filtered.get(job.id, recorded[:1])))
            if recorded and not alone:
                return Reply(self._filtered[job.id])  # it shows nothing under any id
            if not 1 < len(recorded) == len(alone):  # else it leaves out nothing
                shown = [item for item in shown if self._is(asked, *self._trigger_ids(item))]
        if log is not None and not recorded and not copies:
            return Reply(log)  # it is none that is understood, or shows nothing
        like: Any = next((one for one in (log, *self._logs.values()) if one is not None), [])
        return Reply({**like, self._list_in(like): shown} if isinstance(like, dict) else shown)

    # --- the copy of an execution ---

    def _copy(self, job: Job, number: int, execution: Execution) -> Iterator[Object]:
        """Yield the copy of a recorded execution, and of its log entries if they lie beside it."""
        log = list(self._items(self._logs.get(job.id)))
        if not log:
            log = [item for other in self._logs.values() for item in self._items(other)]
        templates = [item for item in log if not self._is_entry(item)]
        if not templates:
            return
        template = templates[number % len(templates)]
        key = self._key(template, "execution")
        flat = [item for item in log if self._is_entry(item) and self._key(item, "log") == key]
        made, *beside = deepcopy([template, *flat])
        entries = [*beside, *self._items(self._get(made, "execution.logs"))]
        new_key = str(uuid.UUID(execution.trigger_id)) if isinstance(key, str) else number + 1_000_000
        self._set(made, "execution.id", new_key)
        self._set(made, "execution.trigger_id", self._styled(execution.trigger_id))
        for entry in entries:
            self._set(entry, "log.execution_id", new_key)
            self._set(entry, "log.trigger_id", self._styled(execution.trigger_id))
            if self._names.get("log.execution_id") == self._names.get("execution.trigger_id"):
                self._set(entry, "log.execution_id", self._styled(execution.trigger_id))
        self._move(made, entries, execution.ended)
        yield from (made, *beside)

    def _is_entry(self, item: Object) -> bool:
        """Tell whether an item of a log is an entry that lies beside executions."""
        of_executions = ("execution.state", "execution.start", "execution.end")
        return "log.execution_id" in self._names and all(
            self._get(item, name) is None for name in of_executions
        )

    def _key(self, item: Object, kind: str) -> Any:
        field = "log.execution_id" if kind == "log" else "execution.id"
        return self._get(item, field if field in self._names else "execution.trigger_id")

    def _move(self, made: Object, entries: Iterable[Object], end: float) -> None:
        """Let a copy end at a moment, and all else of it happen as long before that as it did."""
        places = [
            (made, "execution.start"),
            (made, "execution.end"),
            *((entry, "log.time") for entry in entries),
        ]
        moments = [moment for item, name in places if (moment := _moment(self._get(item, name))) is not None]
        for item, name in places if moments else []:
            self._set(item, name, _moved(self._get(item, name), end - max(moments)))

    # --- members ---

    def _items(self, answer: Any) -> Iterator[Object]:
        if isinstance(answer, dict):
            answer = answer.get(self._list_in(answer))
        return (item for item in (answer if isinstance(answer, list) else ()) if isinstance(item, dict))

    def _list_in(self, wrapper: Object) -> str:
        """Return the member that holds a list: the one that is named, or the only one."""
        lists = [name for name, held in wrapper.items() if isinstance(held, list)]
        named = self._names.get("list.items", "")
        return lists[0] if len(lists) == 1 else named

    def _get(self, item: Object, field: str) -> Any:
        value: Any = item
        for name in self._names.get(field, "").split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def _set(self, item: Object, field: str, value: Any) -> None:
        """Set a member that is there already."""
        *outer, name = self._names.get(field, "").split(".")
        for part in outer:
            item = item.get(part) or {}
        if name in item:
            item[name] = value

    def _is(self, id_: str, *others: Any) -> bool:
        return folded(id_) in (folded(str(other)) for other in others)

    def _trigger_ids(self, item: Object) -> list[Any]:
        entries = self._items(self._get(item, "execution.logs"))
        own = (self._get(item, name) for name in ("execution.trigger_id", "log.trigger_id"))
        return [*own, *(self._get(entry, "log.trigger_id") for entry in entries)]

    def _styled(self, id_: str) -> str:
        """Return an id as the recorded ones are written."""
        logs = (item for log in self._logs.values() for item in self._items(log))
        example = next((str(one) for item in logs for one in self._trigger_ids(item) if one), "")
        id_ = id_ if "-" in example else id_.replace("-", "")
        id_ = id_.upper() if example != example.lower() else id_
        return f"{{{id_}}}" if example.startswith("{") else id_


def _moment(value: Any) -> float | None:
    """Return the epoch seconds of a time as it is recorded; one without a zone is taken as UTC."""
    if isinstance(value, int):
        return value / 1000 if value > 10**11 else value
    if match := _NET_DATE.fullmatch(str(value)):
        return int(match[1]) / 1000
    match = _ISO.fullmatch(str(value))
    return datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc).timestamp() if match else None


def _moved(value: Any, seconds: float) -> Any:
    """Return a time as much later, written alike."""
    if isinstance(value, int):
        return value + round(seconds * 1000 if value > 10**11 else seconds)
    if match := _NET_DATE.fullmatch(str(value)):
        return f"/Date({int(match[1]) + round(seconds * 1000)}{match[2]}"
    if match := _ISO.fullmatch(str(value)):
        later = datetime.fromisoformat(match[1]) + timedelta(seconds=round(seconds))
        return later.isoformat(match[1][10]) + match[2]
    return value
