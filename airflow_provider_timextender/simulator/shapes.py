"""How the same facts look on the wire. The API's published description leaves most of it open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal

from airflow_provider_timextender.simulator.world import Execution, Job, Line

Word = str | int | None


@dataclass(frozen=True)
class Shape:
    """A way to write the API's answers.

    :ivar members: for each standard member name, what stands on the wire.
    :ivar trigger_id_on: where an execution's trigger id is written.
    :ivar vocabulary: what a connection's extra has to say about it.
    """

    name: str
    members: Literal["Pascal", "camel", "snake"] = "Pascal"
    renamed: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[str, Word] = field(
        default_factory=lambda: {"idle": "Idle", "pending": "Pending", "running": "Running"}
    )
    states: Mapping[str, Word] = field(
        default_factory=lambda: {"running": "Running", "succeeded": "Success", "failed": "Failed"}
    )
    severities: Mapping[str, Word] = field(
        default_factory=lambda: {"info": "Information", "warning": "Warning", "error": "Error"}
    )
    trigger_id_on: Literal["both", "log", "execution"] = "both"
    net_times: bool = False
    vocabulary: Mapping[str, Any] = field(default_factory=dict)

    def with_unknown_words(self, word: Word) -> Shape:
        """Return the shape with one and the same word for every status and state."""
        return replace(
            self,
            statuses=dict.fromkeys(self.statuses, word),
            states=dict.fromkeys(self.states, word),
        )

    def job(self, job: Job) -> dict[str, Any]:
        """Write a job."""
        return self._object(Id=job.id, Name=job.name)

    def status(self, job: Job, status: str) -> dict[str, Any]:
        """Write a job's status."""
        return self._object(JobId=job.id, Status=self.statuses[status])

    def receipt(self, execution: Execution) -> dict[str, Any]:
        """Write the answer to a submission."""
        return self._object(
            JobId=execution.job.id,
            Message="The job has been queued for execution.",
            TriggerId=execution.trigger_id,
        )

    def execution(self, execution: Execution, now: float) -> dict[str, Any]:
        """Write an execution with its log, as it stands at a moment."""
        ended = execution.state(now) == "ended"
        written = self._object(
            JobId=execution.job.id,
            State=self.states[execution.outcome if ended else "running"],
            StartTime=self._time(execution.started),
            EndTime=self._time(execution.ended) if ended else self._no_time(),
            Message=execution.message if ended else None,
            Logs=[self._line(execution, line) for line in execution.lines if line.at <= now],
        )
        if self.trigger_id_on != "log":
            written |= self._object(TriggerId=execution.trigger_id)
        return written

    def _line(self, execution: Execution, line: Line) -> dict[str, Any]:
        written = self._object(
            Timestamp=self._time(line.at),
            Severity=self.severities[line.severity],
            Message=line.message,
        )
        if self.trigger_id_on != "execution":
            written |= self._object(TriggerId=execution.trigger_id)
        return written

    def _object(self, **members: Any) -> dict[str, Any]:
        return {self._member(name): value for name, value in members.items()}

    def _member(self, name: str) -> str:
        name = self.renamed.get(name, name)
        if self.members == "camel":
            return name[0].lower() + name[1:]
        if self.members == "snake":
            return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        return name

    def _time(self, moment: float) -> str:
        text = datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="microseconds")
        return text.replace("+00:00", "0" if self.net_times else "Z")

    def _no_time(self) -> str | None:
        return "0001-01-01T00:00:00" if self.net_times else None


SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("documented"),
        Shape(
            "camel",
            members="camel",
            statuses={"idle": "idle", "pending": "pending", "running": "running"},
            states={"running": "running", "succeeded": "succeeded", "failed": "failed"},
            severities={"info": "info", "warning": "warn", "error": "error"},
            trigger_id_on="log",
        ),
        Shape(
            "numeric",
            members="snake",
            renamed={"State": "ResultCode", "Logs": "Entries", "Severity": "Kind"},
            statuses={"idle": 0, "pending": 1, "running": 2},
            states={"running": 0, "succeeded": 1, "failed": 2},
            severities={"info": 0, "warning": 1, "error": 2},
            trigger_id_on="execution",
            net_times=True,
            vocabulary={
                "fields": {"execution.state": "ResultCode", "log.severity": "Kind"},
                "statuses": {"idle": 0, "pending": 1, "running": 2},
                "states": {"running": 0, "succeeded": 1, "failed": 2},
                "severities": {"info": 0, "warning": 1, "error": 2},
            },
        ),
    )
}
"""The shapes by name: the one that the description suggests, and two others as plausible."""
