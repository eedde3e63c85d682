"""The triggers: what waits in the triggerer.

Airflow 3.3 and later run one poll for all triggers that share a connection and an interval; on older versions
each trigger runs its own. Everything else is the same on all of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from airflow.providers.common.compat.triggers import BaseEventTrigger
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_timextender import jobs_api, model
from airflow_provider_timextender.deferral import worker_has_to_tell
from airflow_provider_timextender.errors import (
    ExecutionTimeout,
    InvalidInput,
    TimeXtenderError,
    Unavailable,
    WaitTimeout,
    named,
)
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.inputs import NOT_GIVEN, span, to_run, to_seconds, to_time
from airflow_provider_timextender.logs import relay, warn_that_it_runs_on
from airflow_provider_timextender.looking import look
from airflow_provider_timextender.polling import BACKSTOP, Snapshot, every, poll
from airflow_provider_timextender.verdict import (
    Failed,
    Run,
    Succeeded,
    Verdict,
    Waiting,
    conclude,
    for_people,
    shorten,
)
from airflow_provider_timextender.watching import JobFinishedTrigger as JobFinishedTrigger

if TYPE_CHECKING:
    from airflow_provider_timextender.client import AsyncClient

T = TypeVar("T")

MESSAGE_BYTES = 1500
"""The longest message in an event: with all else, an event stays below 2 KB."""

PUSH_TIMEOUT = 60
"""Seconds that the XCom of a task's result may take."""


class JobExecutionTrigger(BaseEventTrigger):
    """Fires once, when what is waited for has ended, or cannot be waited for any longer.

    What is waited for is told by ``trigger_id`` and ``completed_after`` as in
    :class:`~airflow_provider_timextender.sensors.JobStatusSensor`. It sends nothing but GETs.

    The event is plain JSON of at most 2 KB: ``{"job_id", "trigger_id", "state", "start", "end", "duration"}``
    after a success, else ``{"job_id", "trigger_id", "error", "message"}`` with the class name of an error out
    of :mod:`~airflow_provider_timextender.errors`. Nothing is raised: Airflow would take an exception for a
    failed job, when only nobody could look.

    :param timextender_conn_id: the Airflow connection.
    :param job_id: the job's guid. :param job_name: its exact name instead.
    :param trigger_id: the execution. :param completed_after: ISO 8601, instead of a trigger id.
    :param asked_at: ISO 8601: when the wait began, from which on its limits count; ``None`` for now.
    :param start_timeout: seconds that an idle job may show no execution before it counts as never started.
    :param poll_interval: seconds between two looks.
    :param timeout: seconds to wait, at most.
    :param execution_deadline: ISO 8601: when Airflow will end the task; the trigger forestalls it.
    :param max_unreachable: seconds without one good look after which the wait is given up.
    :param known_key: a look has succeeded before, so that a refusal, of the key or whatever, may pass.
    :param resumed: somebody has waited before, so that the job may have been active unseen.
    :param end_with: after a success, end the task from here, without a worker: ``"trigger_id"`` or
        ``"result"`` is its return value then, ``"nothing"`` if it has none; ``None`` resumes the task.
    """

    # An event trigger leaves its task's triggerer queue, as most have no task; this one has.
    supports_triggerer_queue = True

    def __init__(
        self,
        *,
        timextender_conn_id: str = TimeXtenderHook.default_conn_name,
        job_id: str | None = None,
        job_name: str | None = None,
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
        end_with: Literal["trigger_id", "result", "nothing"] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Kept as they came: they may still be templates, and `trigger_id` is an id of Airflow's own.
        self.arguments: dict[str, Any] = {
            "timextender_conn_id": timextender_conn_id,
            "job_id": job_id,
            "job_name": job_name,
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
            "end_with": end_with,
        }
        # Nothing is checked here: Airflow 3.3.2 lets the whole triggerer fail if a trigger cannot be made.
        self._made = datetime.now(timezone.utc)
        self._run: Run | None = None
        self._looked = self._resumed = False
        self._every = 1
        self._waiting: Waiting | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores."""
        return f"{__name__}.{type(self).__name__}", dict(self.arguments)

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Render the arguments, where Airflow has started the task here and not on a worker."""
        self.arguments = self.render_template(self.arguments, context, jinja_env or self.get_template_env())

    def shared_stream_key(self) -> Hashable:
        """Tell with whom the poll is shared (Airflow 3.3 and later): it is all that a poll depends on."""
        return (__name__, self.arguments["timextender_conn_id"], self._interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Snapshot]:
        """Poll for all triggers with the same key."""
        async with aclosing(cls(**kwargs)._poll()) as snapshots:
            async for snapshot in snapshots:
                yield snapshot

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[Snapshot]
    ) -> AsyncIterator[TriggerEvent]:
        """Wait on a shared poll."""
        try:
            over = self._limit(datetime.now(timezone.utc)) is not None
        except InvalidInput:
            over = True
        if over:
            # The next snapshot may be an interval away, and a triggerer that was down has cost time enough.
            async for event in self.run():
                yield event
        else:
            yield await self._event(shared_stream)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait on a poll of one's own."""
        job_id = self.arguments["job_id"] if self.arguments["job_name"] is None else None
        try:
            snapshots = self._poll(only=None if job_id is None else model.guid(job_id, "job id"))
        except InvalidInput as error:
            yield TriggerEvent(self._failure(error))
            return
        async with aclosing(snapshots):
            event = await self._event(snapshots)
        yield event

    async def on_kill(self) -> None:
        """Say that the job runs on (Airflow 3.3 and later)."""
        if self.arguments["trigger_id"] is not None:
            job_id = self._run.job_id if self._run else self.arguments["job_id"]
            warn_that_it_runs_on(self.log, job_id, self.arguments["trigger_id"])

    @cached_property
    def _interval(self) -> float:
        return to_seconds(self.arguments["poll_interval"], "poll_interval")

    def _poll(self, only: str | None = None) -> AsyncGenerator[Snapshot, None]:
        return poll(self.arguments["timextender_conn_id"], self._interval, only)

    async def _event(self, snapshots: AsyncIterator[Snapshot]) -> TriggerEvent:
        try:
            result = await self._wait(snapshots)
        except TimeXtenderError as error:
            return TriggerEvent(self._failure(error))
        if await self._can_end_task(result):
            return TaskSuccessEvent()
        return TriggerEvent(result)

    async def _can_end_task(self, result: dict[str, Any]) -> bool:
        """Tell whether nothing is left to do for a worker; what the task returns has been pushed then."""
        end_with = self.arguments["end_with"]
        ti: Any = self.task_instance
        # `dag.test()` runs triggers without their task, and cannot end it from here.
        if end_with is None or ti is None:
            return False
        # Where Airflow has started the task here, nobody has asked yet whether tasks are mapped over its
        # result, which a worker has to tell.
        if self.task is not None and any(True for _ in self.task.iter_mapped_dependants()):
            return False
        # Asked once more, as the wait may have begun where the listener is not installed, or long ago; in a
        # thread, as the first to ask imports all plugins.
        if await asyncio.to_thread(worker_has_to_tell):
            return False
        if end_with == "nothing":
            return True
        # Not by the event: Airflow 3 would encode the value once more than a worker does, and would pass by a
        # custom XCom backend, which may also be slow; hence the thread.
        from airflow.sdk.execution_time.xcom import XCom

        push = partial(
            XCom.set,
            key="return_value",
            value=result["trigger_id"] if end_with == "trigger_id" else result,
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=ti.map_index,
        )
        try:
            await asyncio.wait_for(asyncio.to_thread(push), PUSH_TIMEOUT)
        except Exception:
            self.log.warning("The task ends on a worker, as its result could not be pushed", exc_info=True)
            return False
        return True

    def _failure(self, error: TimeXtenderError) -> dict[str, Any]:
        return {
            "job_id": self._run.job_id if self._run else self.arguments["job_id"],
            "trigger_id": self.arguments["trigger_id"],
            "error": type(error).__name__,
            "message": shorten(str(error), MESSAGE_BYTES),
        }

    async def _wait(self, snapshots: AsyncIterator[Snapshot]) -> dict[str, Any]:
        """Return the result of a success, and raise everything else that a wait can end with."""
        patience = span(to_seconds(self.arguments["max_unreachable"], "max_unreachable"))
        good_at = datetime.now(timezone.utc)
        # A trigger that was moved here from elsewhere has looked before, too.
        moved = self.arguments["asked_at"] and (good_at - self._began).total_seconds() > self._interval
        self._looked = bool(self.arguments["known_key"] or moved)
        self._resumed = bool(self.arguments["resumed"] or moved)
        sharers: set[object] = set()
        rests_until = good_at
        try:
            async for snapshot in snapshots:
                sharers = snapshot.shared.sharers
                sharers.add(self)
                if snapshot.at != snapshot.shared.newest:
                    continue  # it is old, as a look has taken longer than an interval
                now = datetime.now(timezone.utc)
                limit = self._limit(now)
                if limit is None and now < rests_until:
                    continue
                problem, client = snapshot.problem, snapshot.client
                if problem is None and client is not None:
                    try:
                        verdict = await self._look(
                            snapshot, client, 1 if limit else every(len(sharers), self._interval)
                        )
                    except TimeXtenderError as error:
                        problem = error
                        # One log may be refused where the statuses are not.
                        rests_until = min(now + _rest(error), good_at + patience)
                if problem is None:
                    good_at, self._looked = now, True
                    if not isinstance(verdict, Waiting):
                        await self._show_log(verdict)
                        return conclude(verdict)
                    self._say(verdict)
                elif not self._may_pass(problem, snapshot) or now - good_at > patience:
                    raise named(type(problem).__name__, str(problem))  # the poll's own is shared
                if limit is not None:
                    why = self._waiting.why if self._waiting else str(problem)
                    limit.args = (f"{limit} {why}",)
                    raise limit
        finally:
            sharers.discard(self)
        raise AssertionError("A poll does not end.")

    async def _look(self, snapshot: Snapshot, client: AsyncClient, every: int) -> Verdict:
        run = self._run or await self._begin(client)
        status = snapshot.statuses.get(model.canonical(run.job_id))
        if status is None:
            status = await client.read(jobs_api.job_status(run.job_id))
        if self._run is None and self._resumed:
            run = replace(run, resumed=True)
        if self._run is None and self._looked:
            # Somebody has looked before, so that this is not the moment to read the log of a busy job.
            run = replace(run, state=status.state)
        if every >= 2 * self._every:
            # The reads of those that came together are not to come together, the more so the more they are.
            self._every = every
            run = replace(run, unread=random.randrange(every))
        self._run = run
        if self._looked:
            client.understood.add(f"{jobs_api.LIST_OF}log")  # whoever has looked before has read it

        async def read(call: jobs_api.Call[T], *, once: bool = False) -> T:
            return await client.read(call)  # which never repeats; the next snapshot does

        self._run, verdict = await look(
            run,
            read,
            every=every,
            warn=self.log.warning,
            active=self._remember,
            status=status,
            at=snapshot.at,
        )
        return verdict

    def _remember(self, run: Run) -> None:
        self._run = run

    async def _begin(self, client: AsyncClient) -> Run:
        given = self.arguments
        run_of = to_run(
            trigger_id=NOT_GIVEN if given["trigger_id"] is None else given["trigger_id"],
            completed_after=NOT_GIVEN if given["completed_after"] is None else given["completed_after"],
            start_timeout=given["start_timeout"],
            asked_at=self._began,
        )
        if (given["job_id"] is None) == (given["job_name"] is None):
            raise InvalidInput("Give either a job id or a job name, and not both.")
        if given["job_id"] is not None:
            return run_of(model.guid(given["job_id"], "job id"))
        jobs = await client.read(jobs_api.list_jobs())
        return run_of(model.find_job(jobs, given["job_name"]).id)

    @cached_property
    def _began(self) -> datetime:
        if (asked_at := to_time(self.arguments["asked_at"], "asked_at")) is not None:
            return asked_at
        end: datetime | None = getattr(self, "timeout_after", None)
        if end is None:
            return self._made
        # Airflow has started the task here and keeps only the end, which an execution_timeout has brought
        # forward if a policy, say, has set one.
        waits = self._timeout + BACKSTOP
        return end - min(waits, self._execution_timeout or waits)

    @property
    def _execution_timeout(self) -> timedelta | None:
        """That of the task, where Airflow has started it here; before Airflow 3 no trigger knows its task."""
        found: timedelta | None = getattr(getattr(self, "task", None), "execution_timeout", None)
        return found

    @cached_property
    def _timeout(self) -> timedelta:
        # A sensor may have a timeout of 0, for a single look.
        seconds = self.arguments["timeout"]
        return timedelta(0) if seconds == 0 else span(to_seconds(seconds, "timeout"))

    @cached_property
    def _deadline(self) -> datetime | None:
        if self._execution_timeout is not None:
            return self._began + self._execution_timeout
        return to_time(self.arguments["execution_deadline"], "execution_deadline")

    def _limit(self, at: datetime) -> WaitTimeout | None:
        """Return with what the wait ends if it is not over at this look."""
        if at >= self._began + self._timeout:
            return WaitTimeout(f"it was not over after {for_people(self._timeout.total_seconds())}.")
        # The next look would come after an interval, its jitter, and the time that a look takes.
        if self._deadline is not None and at + timedelta(seconds=self._interval * 1.5) >= self._deadline:
            return ExecutionTimeout("execution_timeout is over.")
        return None

    def _may_pass(self, problem: TimeXtenderError, snapshot: Snapshot) -> bool:
        if problem.transient:
            return True
        # What has worked before can be made to work again: a key, the connection that holds it, a gateway.
        return self._looked and (problem.may_pass or problem is snapshot.problem)

    def _say(self, verdict: Waiting) -> None:
        if self._waiting is None or verdict.state != self._waiting.state:
            level = logging.WARNING if verdict.state == "unknown" else logging.INFO
            self.log.log(level, "%s", verdict.why)
        self._waiting = verdict

    async def _show_log(self, verdict: Verdict) -> None:
        if isinstance(verdict, (Succeeded, Failed)):
            for _ in relay(verdict.execution, self.log):
                await asyncio.sleep(0)


def _rest(error: TimeXtenderError) -> timedelta:
    """Return for how long the server has asked to be left alone."""
    return timedelta(seconds=(error.retry_after or 0) if isinstance(error, Unavailable) else 0)
