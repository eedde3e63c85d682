"""The triggers: what waits in the triggerer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_timextender.ending import can_end_task
from airflow_provider_timextender.errors import ExecutionTimeout, TimeXtenderError, WaitTimeout
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.inputs import span, to_job, to_run, to_seconds, to_time, unless_none
from airflow_provider_timextender.jobs_api import LIST_OF
from airflow_provider_timextender.life import Limits, Wait, identify, passes, passes_once_looked
from airflow_provider_timextender.logs import warn_that_it_runs_on
from airflow_provider_timextender.model import Job
from airflow_provider_timextender.naming import Of
from airflow_provider_timextender.polling import shared_poll
from airflow_provider_timextender.shown import Memory, Shown
from airflow_provider_timextender.verdict import event_of, for_people
from airflow_provider_timextender.watching import JobFinishedTrigger as JobFinishedTrigger
from airflow_provider_timextender.worlds import BACKSTOP, Triggerer
from airflow_provider_timextender.xcoms import CAN_BE_HAD, InXCom


class JobExecutionTrigger(BaseTrigger):
    """Fires once, when what is waited for has ended, or cannot be waited for any longer.

    What is waited for is told by ``trigger_id`` and ``completed_after`` as in
    :class:`~airflow_provider_timextender.sensors.JobStatusSensor`. It sends nothing but GETs.

    The event is plain JSON of at most 2 KB. After a success it is ``{"job_id", "job_name", "trigger_id",
    "state", "start", "end", "duration", "message", "problem"}``, else ``{"job_id", "job_name", "trigger_id",
    "error", "message"}`` with the class name of an error out of :mod:`~airflow_provider_timextender.errors`,
    and of a :class:`~airflow_provider_timextender.errors.JobError` also ``"error_lines"``, ``"start"`` and
    ``"end"``. Nothing is raised: Airflow would take an exception for a failed job, when only nobody could
    look.

    :param timextender_conn_id: the Airflow connection.
    :param job_id: the job's guid. :param job_name: its exact name, instead or as well.
    :param known_job: id and name have been looked up before, and the name is ``None`` if it cannot be had.
    :param trigger_id: the execution. :param completed_after: ISO 8601, instead of a trigger id.
    :param asked_at: ISO 8601: when the wait began, from which on its limits count; ``None`` for now.
    :param start_timeout: seconds that an idle job may show no execution before it counts as never started.
    :param poll_interval: seconds between two looks.
    :param timeout: seconds to wait, at most.
    :param execution_deadline: ISO 8601: when Airflow will end the task; the trigger forestalls it.
    :param max_unreachable: seconds without one good look after which the wait is given up.
    :param known_key: a look has succeeded before, so that a refusal, of the key or whatever, may pass.
    :param resumed: somebody has waited before, so that the job may have been active unseen.
    :param shown: what the task's log shows of the execution already, as :class:`~.shown.Shown` is stored.
    :param end_with: after a success, end the task from here, without a worker: ``"trigger_id"`` or
        ``"result"`` is its return value then, ``"nothing"`` if it has none; ``None`` resumes the task.
    """

    def __init__(
        self,
        *,
        timextender_conn_id: str = TimeXtenderHook.default_conn_name,
        job_id: str | None = None,
        job_name: str | None = None,
        known_job: bool = False,
        trigger_id: str | None = None,
        completed_after: str | None = None,
        asked_at: str | None = None,
        start_timeout: float | str = 600,
        poll_interval: float | str = 30,
        timeout: float = 7 * 24 * 3600,
        execution_deadline: str | None = None,
        max_unreachable: float | str = 900,
        known_key: bool = False,
        resumed: bool = False,
        shown: Mapping[str, Any] | None = None,
        end_with: Literal["trigger_id", "result", "nothing"] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Kept as they came: they may still be templates, and `trigger_id` is an id of Airflow's own.
        self.arguments: dict[str, Any] = {
            "timextender_conn_id": timextender_conn_id,
            "job_id": job_id,
            "job_name": job_name,
            "known_job": known_job,
            "trigger_id": trigger_id,
            "completed_after": completed_after,
            "asked_at": asked_at,
            "start_timeout": start_timeout,
            "poll_interval": poll_interval,
            "timeout": timeout,
            "execution_deadline": execution_deadline,
            "max_unreachable": max_unreachable,
            "known_key": known_key,
            "resumed": resumed,
            "shown": shown,
            "end_with": end_with,
        }
        # Nothing is checked here: Airflow 3.3.2 lets the whole triggerer fail if a trigger cannot be made.
        self._made = datetime.now(timezone.utc)
        self._of = Of(job_id, job_name, trigger_id)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores."""
        return f"{__name__}.{type(self).__name__}", dict(self.arguments)

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Render the arguments, where Airflow has started the task here and not on a worker."""
        self.arguments = self.render_template(self.arguments, context, jinja_env or self.get_template_env())
        self._of = Of(*(self.arguments[name] for name in Of._fields))

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and tell what it has come to."""
        try:
            result = await self._outcome()
        except TimeXtenderError as error:
            yield TriggerEvent(event_of(error.about(self._of)))
            return
        ends = await can_end_task(self, result, self.arguments["end_with"])
        yield TaskSuccessEvent() if ends else TriggerEvent(result)

    async def on_kill(self) -> None:
        """Say that the job runs on (Airflow 3.3 and later)."""
        if self._of.trigger_id is not None:
            warn_that_it_runs_on(self.log, self._of)

    async def _outcome(self) -> dict[str, Any]:
        given, now = self.arguments, datetime.now(timezone.utc)
        interval = to_seconds(given["poll_interval"], "poll_interval")
        began, limits = self._limits(interval)
        job_given = to_job(unless_none(given["job_id"]), unless_none(given["job_name"]))
        run_of = to_run(
            trigger_id=unless_none(given["trigger_id"]),
            completed_after=unless_none(given["completed_after"]),
            start_timeout=given["start_timeout"],
            asked_at=began,
        )
        # A trigger that was moved here from elsewhere has looked before, too.
        moved = given["asked_at"] is not None and (now - began).total_seconds() > interval
        looked = given["known_key"] or moved
        async with shared_poll(given["timextender_conn_id"], interval) as poll:
            world = Triggerer(poll, self.log, limits.end, self._memory())
            await world.rest()
            for warning in () if looked else poll.warnings:  # which no worker has told this task
                self.log.warning("Airflow connection %r: %s", given["timextender_conn_id"], warning)
            if given["known_job"]:
                job = Job(str(job_given.job_id), job_given.job_name)
            else:
                bears = passes_once_looked if looked else passes
                patience = min(limits.max_unreachable, limits.left(now))
                job = await identify(world, job_given, patience=patience, bears=bears)
            if looked:
                poll.understood.add(f"{LIST_OF}log")  # by a worker, or in another triggerer
            self._of = Of(job.id, job.name, given["trigger_id"])
            run = replace(run_of(job.id, job_name=job.name), resumed=given["resumed"] or moved)
            return await Wait(world, run, limits, looked=looked, just=looked).outcome()

    def _memory(self) -> Memory:
        # `dag.test()` runs triggers without their task.
        keeper = InXCom(self.task_instance) if CAN_BE_HAD and self.task_instance is not None else None
        return Memory(self.log, Shown.from_dict(self.arguments["shown"]), keeper)

    def _limits(self, interval: float) -> tuple[datetime, Limits]:
        """Return when the wait began, and its limits."""
        given = self.arguments
        # A sensor may have a timeout of 0, for a single look.
        timeout = span(given["timeout"] and to_seconds(given["timeout"], "timeout"))
        # That of the task, where Airflow has started it here; before Airflow 3 no trigger knows its task.
        of_task: timedelta | None = getattr(getattr(self, "task", None), "execution_timeout", None)
        began = to_time(given["asked_at"], "asked_at")
        if began is None:
            # Airflow has started the task here and keeps only the end, which an execution_timeout has brought
            # forward if a policy, say, has set one.
            kept: datetime | None = getattr(self, "timeout_after", None)
            began = kept - min(timeout + BACKSTOP, of_task or timedelta.max) if kept else self._made
        deadline = began + of_task if of_task else to_time(given["execution_deadline"], "execution_deadline")
        over = WaitTimeout(f"it was not over after {for_people(timeout.total_seconds())}.")
        end = began + timeout
        # The next look would come after an interval, its jitter, and the time that a look takes.
        forestalled = deadline - timedelta(seconds=1.5 * interval) if deadline else end
        if forestalled < end:
            end, over = forestalled, ExecutionTimeout("execution_timeout is over.")
        return began, Limits(interval, to_seconds(given["max_unreachable"], "max_unreachable"), end, over)
