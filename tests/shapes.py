"""Shapes of the API that differ from the default in one to six ways, and what a person knows of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_timextender.simulator import DIALECTS, Dialect, Simulator

_COMPLETED = {"running": "Busy", "succeeded": "Completed", "failed": "CompletedWithErrors"}
_CODES = {"running": 0, "succeeded": 1, "failed": 2}

SHAPES: Mapping[str, Dialect] = {
    "the end": Dialect(renamed={"EndTime": "Stop"}),
    "start and end": Dialect(renamed={"StartTime": "From", "EndTime": "To"}),
    "id and name": Dialect(renamed={"Id": "Key", "Name": "Title"}),
    "status and its job": Dialect(renamed={"Status": "Doing", "JobId": "Job"}),
    "all of the log": Dialect(
        renamed={"Logs": "Lines", "Message": "Note", "Severity": "Kind", "Timestamp": "At"}
    ),
    "the state": Dialect(renamed={"State": "ResultCode"}),
    "the trigger id": Dialect(renamed={"TriggerId": "RunKey"}),
    "the trigger id on executions": Dialect(renamed={"TriggerId": "RunKey"}, trigger_id_on="execution"),
    "the trigger id on entries": Dialect(renamed={"TriggerId": "RunKey"}, trigger_id_on="entries"),
    "end states": Dialect(states=_COMPLETED),
    "codes": Dialect(
        statuses={"idle": 0, "pending": 1, "running": 2},
        states=_CODES,
        severities={"info": 0, "warning": 1, "error": 2},
    ),
    "letters": Dialect(
        statuses={"idle": "I", "pending": "P", "running": "R"},
        states={"running": "R", "succeeded": "S", "failed": "F"},
        severities={"info": "I", "warning": "W", "error": "E"},
    ),
    "states in objects": Dialect(states_as="object", statuses_as="object", states=_COMPLETED),
    "wrapped": Dialect(nesting="wrapped"),
    "wrapped, the end": Dialect(nesting="wrapped", renamed={"Value": "items", "EndTime": "Stop"}),
    "flat": Dialect(nesting="flat"),
    "flat, all times": Dialect(
        nesting="flat", renamed={"StartTime": "Begin", "EndTime": "Done", "Timestamp": "Logged"}
    ),
    "flat, the trigger id": Dialect(nesting="flat", renamed={"TriggerId": "RunKey"}),
    "local times": Dialect(times="naive", timezone="Europe/Copenhagen"),
    "local times of the east": Dialect(times="seven digits", timezone="Asia/Kolkata"),
    "milliseconds": Dialect(times="epoch ms", renamed={"EndTime": "Stop"}),
    "dates of .NET": Dialect(times="/Date()/", renamed={"StartTime": "Launched", "EndTime": "Ceased"}),
    "ids in braces": Dialect(ids="braces", exact_ids=True, renamed={"TriggerId": "ExecutionKey"}),
    "snake": Dialect(members="snake", order="newest", unfinished="hidden", states=_COMPLETED),
    "a code before the end": Dialect(
        no_time="year 1",
        unfinished_state="succeeded",
        states={"running": None, "succeeded": 0, "failed": 1},
    ),
    "messages on entries": Dialect(
        message_on="entries",
        trigger_id_on="entries",
        filters="entries",
        renamed={"Message": "Text", "Severity": "Importance"},
    ),
    "by hand without an id": Dialect(
        hand_ids="null", empty="404", filters="404", renamed={"Status": "Activity"}
    ),
    "six ways": Dialect(
        members="camel",
        renamed={"Name": "Title", "State": "Outcome", "EndTime": "Stop", "Logs": "Lines"},
        ids="upper",
        times="naive",
        nesting="wrapped",
        states=_COMPLETED,
    ),
    "numeric": DIALECTS["numeric"],
}


def give_a_past(simulator: Simulator) -> None:
    """Let each job have run: well, badly, well again; and once by hand."""
    names = [job.name for job in simulator.world.jobs.values()]
    for name in names:
        simulator.past(name, "succeeded", ago=7200)
        simulator.past(name, "failed", ago=5400)
        simulator.past(name, "succeeded", ago=3600, by="schedule")
    simulator.past(names[0], "failed", ago=900, by="hand")


def answered(
    dialect: Dialect, vocabulary: Mapping[str, Any], questions: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the extra of a person who pastes a vocabulary, and who knows what the words asked about mean."""
    sections = {section: dict(entries) for section, entries in vocabulary.items()}
    for question in questions:
        words: Mapping[str, Any] = getattr(dialect, question["section"])
        (meaning,) = (entry for entry, word in words.items() if str(word) == question["word"])
        sections.setdefault(question["section"], {})[meaning] = question["word"]
    zone = {"timezone": dialect.timezone} if dialect.timezone != "UTC" else {}
    return {"vocabulary": sections, **zone}
