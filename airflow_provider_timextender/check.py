"""Whether what the API says is understood, by what it says of the past: nothing is started for that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from airflow_provider_timextender.model import Execution, Job, JobStatus, Log
from airflow_provider_timextender.vocabulary import Vocabulary

_OF_EXECUTIONS = ("execution.state", "execution.start", "execution.end", "execution.logs")
_OF_ENTRIES = ("log.time", "log.severity", "log.message")


def not_understood(
    vocabulary: Vocabulary,
    jobs: Iterable[Job],
    statuses: Iterable[JobStatus],
    executions: Sequence[Execution],
) -> list[str]:
    """Return what a task could not understand, each thing once, and what to do about it.

    :param executions: as the logs of jobs show them. None is no problem: a new job has none.
    """
    told = [*(job.problem for job in jobs), *(status.problem for status in statuses)]
    for execution in executions:
        told += [execution.start_problem, execution.end_problem]
        if execution.end is not None:  # until then a state may be anything, and is waited on
            told.append(execution.problem)
    entries = [entry for execution in executions for entry in execution.logs]
    told += _without(vocabulary, executions, _OF_EXECUTIONS)
    told += _without(vocabulary, entries, _OF_ENTRIES)
    if executions and all(execution.trigger_id is None for execution in executions):
        told.append(vocabulary.missing(executions[0].raw, "execution.trigger_id"))
    for entry in entries:
        word = vocabulary.member(entry.raw, "log.severity")
        if word is not None and entry.severity is None:
            told.append(vocabulary.unknown(word, "log.severity", "severities"))
    return list(dict.fromkeys(filter(None, told)))


def _without(
    vocabulary: Vocabulary, things: Sequence[Execution | Log], fields: Iterable[str]
) -> Iterator[str]:
    """Say which fields none of several things has, whatever it may be called."""
    for field in fields:
        if things and not any(vocabulary.has(thing.raw, field) for thing in things):
            members: dict[str, Any] = {name: None for thing in things for name in thing.raw}
            yield vocabulary.missing(members, field)
