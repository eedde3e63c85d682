"""One look at what is waited for: what is asked, in which order, and what the log of an idle job may hide.

It is written once for workers and the triggerer: on a worker ``read`` never suspends (:func:`run_through`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Protocol, TypeVar

from airflow_provider_timextender.errors import TimeXtenderError
from airflow_provider_timextender.jobs_api import Call, if_any, job_logs, job_status
from airflow_provider_timextender.model import Execution, JobStatus
from airflow_provider_timextender.verdict import Run, Verdict, judge, say_passed_over

T = TypeVar("T")


class Read(Protocol):
    """Carries a call that changes nothing."""

    async def __call__(self, call: Call[T], /, *, once: bool = False) -> T:
        """Return what the answer says, or raise an error of :mod:`~.errors`; ``once`` without repeats."""


def run_through(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise RuntimeError("The coroutine has suspended.")


async def look(
    run: Run,
    read: Read,
    *,
    every: int,
    warn: Callable[[str], object],
    active: Callable[[Run], object],
    status: JobStatus | None = None,
    at: datetime | None = None,
) -> tuple[Run, Verdict]:
    """Look once at what is waited for, and judge it.

    :param every: the log of a busy job is read at every so many looks; 1 for always.
    :param warn: is told, once, what does not count.
    :param active: is given the run with when the job was last active, which counts even if its log cannot be
        read.
    :param status: the job's status, if it is known already. :param at: and when it was asked for.
    :return: the run to look at next time, and the verdict.
    """
    # The status comes first: a job that is idle by then has written its log before it is read.
    if status is None:
        status = await read(job_status(run.job_id))
    at = at or datetime.now(timezone.utc)
    wanted = run.wants_log(status, every)
    before, run = run, run.after(status, at, read=wanted)
    active(replace(before, active_at=run.active_at))
    executions: list[Execution] = []
    if wanted:
        run, executions = await _read_log(run, read, at)
        run = run.after_log(executions, at)
    if run.completed_after is not None and not run.warned:
        passed_over = say_passed_over(executions, run.completed_after)
        if passed_over is not None:
            warn(f"TimeXtender job {run.job_id}: of its executions, {passed_over}")
            run = replace(run, warned=True)
    return run, judge(run, status, executions, at)


async def _read_log(run: Run, read: Read, at: datetime) -> tuple[Run, list[Execution]]:
    whole_log = if_any(job_logs(run.job_id))
    if run.trigger_id is None or run.whole:
        return run, await read(whole_log)
    executions = await read(if_any(job_logs(run.job_id, run.trigger_id)))
    if any(e.is_under(run.trigger_id) for e in executions) or not run.doubts_the_filter(at):
        return run, executions
    in_vain = run.has_waited_in_vain(at)
    try:
        executions = await read(whole_log, once=not in_vain)
    except TimeXtenderError:
        # While there is time, the filtered log may still show the execution.
        if in_vain:
            raise
    whole = any(e.is_under(run.trigger_id) for e in executions)
    return replace(run, compared_at=at, whole=whole), executions
