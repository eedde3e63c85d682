"""Write `openapi.yaml`, the API as the package understands it: ``make pages``.

The calls come from `jobs_api.py`, the members and words from the tables of `vocabulary.py`. Schemas show the
first spelling of each member, so that they describe answers that use it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from airflow_provider_timextender import __version__, jobs_api, model
from airflow_provider_timextender.vocabulary import FIELDS, SEVERITIES, STATES, STATUSES, Names

FILE = Path(__file__).with_name("openapi.yaml")
BY_HAND = Path(__file__).with_name("openapi.in.yaml")

LINKS = {
    "execute_job": {
        "execution": {
            "operationId": "job_logs_by_trigger_id",
            "parameters": {
                "job_id": "$request.path.job_id",
                "trigger_id": f"$response.body#/{FIELDS['submission.trigger_id'].all[0]}",
            },
        }
    }
}
"""What an answer is good for, by the call."""

IDS = {"job_id": "11111111-1111-1111-1111-111111111111", "trigger_id": "22222222-2222-2222-2222-222222222222"}
"""What stands for the ids while a call is made, to find them in its path."""

OBJECTS = {
    "Job": "job",
    "JobStatus": "status",
    "Submission": "submission",
    "Execution": "execution",
    "Log": "log",
}
"""The classes of `model.py` that stand in answers, and what their entries in the table begin with."""

WORDS = {"JobState": STATUSES, "ExecutionState": STATES, "Severity": SEVERITIES}

REQUIRED = ("job.id", "status.job_id", "status.state", "submission.trigger_id")
"""Without one of these, an answer tells nothing. An execution that runs may lack anything."""

VALUES = {
    "job.id": "Guid", "job_id": "Guid", "submission.trigger_id": "Guid", "trigger_id": "TriggerId",
    "name": "Text", "message": "Text", "start": "Time", "end": "Time", "time": "Time", "logs": "Logs",
    "status.state": "JobState", "execution.state": "ExecutionState", "severity": "Severity",
}  # fmt: skip
"""The schema of a value, by its entry or the last part of that. Any other may be anything."""


@dataclass(frozen=True)
class Operation:
    """A request that the package can send, with the type of what its answer is read as."""

    name: str
    method: str
    path: str
    ids: tuple[str, ...]
    reason: str
    answer: Any


def operations() -> list[Operation]:
    """Return each request once: of calls that send the same, the first."""
    found: dict[tuple[str, str], Operation] = {}
    for function in filter(inspect.isfunction, vars(jobs_api).values()):
        parameters = inspect.signature(function).parameters
        result = get_type_hints(function).get("return")
        needed = tuple(id_ for id_, one in parameters.items() if one.default is one.empty)
        if get_origin(result) is not jobs_api.Call or not IDS.keys() >= set(needed):
            continue
        for ids in (needed, tuple(id_ for id_ in parameters if id_ in IDS)):
            call = function(**{id_: IDS[id_] for id_ in ids})
            name, path = "_by_".join([function.__name__, *ids[len(needed) :]]), call.path
            for id_ in ids:
                path = path.replace(IDS[id_], f"{{{id_}}}")
            operation = Operation(name, call.method, path, ids, _reason(function), *get_args(result))
            found.setdefault((call.method, path), operation)
    return list(found.values())


def document() -> dict[str, Any]:
    """Return the document."""
    whole: dict[str, Any] = yaml.safe_load(BY_HAND.read_text())
    whole["info"]["version"] = __version__
    whole["servers"][0]["url"] = jobs_api.DEFAULT_BASE_URL
    parts = whole["components"]
    parts["securitySchemes"]["key"]["name"] = jobs_api.DEFAULT_API_KEY_HEADER
    parts["schemas"] = {
        **{name: _object(name, prefix) for name, prefix in OBJECTS.items()},
        **{name: _words(table) for name, table in WORDS.items()},
        **parts["schemas"],
    }
    parts["parameters"] = {
        id_: {"name": id_, "in": "path", "required": True, "schema": _ref("schemas", "Guid")} for id_ in IDS
    }
    for operation in operations():
        path = whole["paths"].setdefault(operation.path, {})
        path[operation.method.lower()] = _operation(operation, parts["responses"])
    return whole


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _reason(of: Any) -> str:
    return (inspect.getdoc(of) or "").splitlines()[0]


def _operation(operation: Operation, refusals: Mapping[str, Any]) -> dict[str, Any]:
    listed = get_args(operation.answer)
    schema = _ref("schemas", (listed[0] if listed else operation.answer).__name__)
    answer = {
        "description": "As the schema says, if the API speaks with the first spellings.",
        "content": {"application/json": {"schema": {"type": "array", "items": schema} if listed else schema}},
        "links": LINKS.get(operation.name, {}),
    }
    return {
        "operationId": operation.name,
        "summary": operation.reason,
        "x-known-from": "documented",
        "parameters": [_ref("parameters", id_) for id_ in operation.ids],
        "responses": {
            "200": answer,
            **{s: _ref("responses", s) for s in refusals if s != "404" or operation.ids},
        },
    }


def _object(name: str, prefix: str) -> dict[str, Any]:
    # One without a spelling is looked for only where a connection gives it one.
    entries = {e: names for e, names in FIELDS.items() if e.partition(".")[0] == prefix and names.all}
    return {
        "type": "object",
        "description": _reason(getattr(model, name)),
        "required": [names.all[0] for entry, names in entries.items() if entry in REQUIRED],
        "properties": {names.all[0]: _member(entry, names) for entry, names in entries.items()},
    }


def _member(entry: str, names: Names) -> dict[str, Any]:
    value = VALUES.get(entry) or VALUES.get(entry.partition(".")[2])
    return {
        **(_ref("schemas", value) if value else {}),
        "description": _said(names),
        "x-known-from": "documented" if names.documented else "assumed",
        "x-entry": f"fields.{entry}",
        "x-spellings": _spellings(names),
    }


def _words(table: Mapping[str, Names]) -> dict[str, Any]:
    words = [word.replace(" ", "[ _-]?") for names in table.values() for word in names.all]
    return {
        "type": "string" if table is STATUSES else ["string", "null"],
        "pattern": f"^(?i:{'|'.join(words)})$",
        "description": "; ".join(f"{meaning}: {_said(names)}" for meaning, names in table.items()),
        "x-words": {meaning: _spellings(names) for meaning, names in table.items()},
    }


def _said(names: Names) -> str:
    return ", ".join(f"{spelling} ({how})" for how, all_ in _spellings(names).items() for spelling in all_)


def _spellings(names: Names) -> dict[str, list[str]]:
    both = {"documented": list(names.documented), "assumed": list(names.assumed)}
    return {how: spellings for how, spellings in both.items() if spellings}


def calls() -> str:
    """Return the calls as a table in Markdown."""
    lines = ["| call | what it is for | answer |", "|---|---|---|"]
    for operation in operations():
        listed = get_args(operation.answer)
        answer = f"array of `{listed[0].__name__}`" if listed else f"`{operation.answer.__name__}`"
        lines.append(f"| `{operation.method} {operation.path}` | {operation.reason} | {answer} |")
    return "\n".join(lines) + "\n"


def text() -> str:
    """Return the document as YAML."""
    whole = yaml.safe_dump(document(), sort_keys=False, width=110, allow_unicode=True)
    return f"# Made from the package by docs/contract.py: make pages\n{whole}"
