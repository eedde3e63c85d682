"""Values that people type or templates render, checked before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from typing import Any, NamedTuple, TypeVar

from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.model import ExecutionState, JobState, guid, parse_time
from airflow_provider_timextender.naming import Of
from airflow_provider_timextender.verdict import Run

T = TypeVar("T")
S = TypeVar("S", ExecutionState, JobState)


class NotGiven(Enum):
    """The default of an argument for which ``None`` would be a mistake: an XCom that is not there."""

    NOT_GIVEN = "not given"

    def __str__(self) -> str:
        """Return the same in every process: Airflow compares how DAGs are written."""
        return str(self.value)


NOT_GIVEN = NotGiven.NOT_GIVEN


def given(value: T | NotGiven, what: str) -> T | None:
    """Return a value, ``None`` if it was not given.

    :raises InvalidInput: if it was given and is ``None`` or blank: what a template renders of nothing must
        not turn into "any execution will do".
    """
    if isinstance(value, NotGiven):
        return None
    if not is_there(value):
        raise InvalidInput(f"{what} was given, but is {value!r} at run time.")
    return value


def unless_none(value: T | None) -> T | NotGiven:
    """Return a value of which ``None`` says that it was not given."""
    return NOT_GIVEN if value is None else value


def is_there(value: Any) -> bool:
    """Tell whether something is given that is neither ``None`` nor blank."""
    return value is not None and value is not NOT_GIVEN and bool(str(value).strip())


def to_bool(value: Any, what: str) -> bool:
    """Return a truth value, from one or from the text that a template renders of it.

    :raises InvalidInput: for anything else.
    """
    flag = {"true": True, "false": False}.get(str(value).strip().lower())
    if flag is None:
        raise InvalidInput(f"{what} is {value!r}; it takes true or false.")
    return flag


def to_seconds(value: Any, what: str) -> float:
    """Return a positive, finite number of seconds, from a number, its text, or a ``timedelta``.

    :raises InvalidInput: for anything else.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidInput(f"{what} is {value!r}; it takes a number of seconds above 0.")
    return seconds


def span(seconds: float) -> timedelta:
    """Return a limit as a span of time, of ten years at most, so that its end is a date."""
    return timedelta(seconds=min(seconds, 10 * 365 * 24 * 3600))


def to_time(value: datetime | str | None, what: str) -> datetime | None:
    """Return a time in UTC; without an offset it is taken as UTC. Blank text counts as not given.

    :raises InvalidInput: for text that is no ISO 8601 time.
    """
    if value is None or value == "":
        return None
    time = parse_time(value.isoformat() if isinstance(value, datetime) else value)
    if time is None:
        raise InvalidInput(f"{what} is {value!r}, which is not an ISO 8601 time.")
    return time


def to_pattern(value: Any, what: str) -> re.Pattern[str]:
    """Return a regular expression.

    :raises InvalidInput: if it is none.
    """
    try:
        return re.compile(str(value))
    except re.error as error:
        raise InvalidInput(f"{what} {value!r} is not a regular expression: {error}.") from None


def to_job(job_id: str | NotGiven | None, job_name: str | NotGiven | None) -> Of:
    """Return what tells a job: its checked id, its name, or both.

    What is ``None`` or blank beside the other one counts as not given: a job can be told by either.

    :raises InvalidInput: if neither is there, or if the id is none.
    """
    values = {"job_id": job_id, "job_name": job_name}
    there = {what: str(value) for what, value in values.items() if is_there(value)}
    for what, value in values.items() if not there else ():
        given(value, what)
    if not there:
        raise InvalidInput("Give a job id or a job name.")
    return Of(guid(there["job_id"], "job id") if "job_id" in there else None, there.get("job_name"))


class Asked(NamedTuple):
    """Which jobs a task is given: one, or several; neither of them stands for all."""

    one: Of | None = None
    several: tuple[Of, ...] = ()


def to_jobs(*, job_id: Any, job_name: Any, job_ids: Any, job_names: Any, all_jobs: Any) -> Asked:
    """Return which jobs are asked for: one by id or name, several by ids and names, or all.

    :raises InvalidInput: if that is told in no way or in several, if a list is none or is empty, or if
        anything in it is ``None`` or blank.
    """
    one = job_id is not NOT_GIVEN or job_name is not NOT_GIVEN
    several = job_ids is not NOT_GIVEN or job_names is not NOT_GIVEN
    if one + several + to_bool(all_jobs, "all_jobs") != 1:
        raise InvalidInput(
            "Give a job id or a job name, several (job_ids, job_names) or all_jobs=True; only one of these."
        )
    if one:
        return Asked(to_job(job_id, job_name))
    ids, names = _listed(job_ids, "job_ids"), _listed(job_names, "job_names")
    return Asked(
        several=(*(to_job(id_, NOT_GIVEN) for id_ in ids), *(to_job(NOT_GIVEN, name) for name in names))
    )


def to_states(state: Any, known: type[S]) -> frozenset[S]:
    """Return the states that one word or several name; none if it is not given.

    :param known: those of jobs, or those of executions.
    :raises InvalidInput: if a word is no state.
    """
    words = [state] if isinstance(state, str) else _listed(state, "state")
    try:
        return frozenset(map(known, words))
    except ValueError:
        hint = _NATIVE if isinstance(state, str) and state.lstrip().startswith(("[", "(")) else ""
        raise InvalidInput(f"state is {state!r}; it takes {', '.join(known)}, or several.{hint}") from None


_NATIVE = " A template renders a text, unless the DAG has render_template_as_native_obj=True."


def _listed(values: Any, what: str) -> list[Any]:
    if isinstance(values, NotGiven):
        return []
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable) or not (items := list(values)):
        hint = _NATIVE if isinstance(values, str) else ""
        raise InvalidInput(
            f"{what} was given, but is {values!r} at run time; it takes a list that is not empty.{hint}"
        )
    return items


def to_run(
    *,
    trigger_id: str | NotGiven | None,
    completed_after: datetime | str | NotGiven | None,
    start_timeout: Any,
    asked_at: datetime,
) -> Callable[..., Run]:
    """Return what is to be waited for, but for its job: id and ``job_name``, which may have to be looked up.

    :raises InvalidInput: for an unusable value, and for both an execution and a moment.
    """
    execution = given(trigger_id, "trigger_id")
    after = given(completed_after, "completed_after")
    if execution is not None and after is not None:
        raise InvalidInput("Give either trigger_id or completed_after, and not both.")
    return partial(
        Run,
        trigger_id=None if execution is None else guid(execution, "trigger id"),
        asked_at=asked_at,
        start_timeout=to_seconds(start_timeout, "start_timeout"),
        completed_after=to_time(after, "completed_after"),
    )
