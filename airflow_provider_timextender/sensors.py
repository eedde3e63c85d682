"""The sensor: wait for an execution that somebody else started."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_timextender.api import JobStatus, guid
from airflow_provider_timextender.errors import InvalidInput, TimeXtenderError
from airflow_provider_timextender.hooks import TimeXtenderHook, no_vain_retry
from airflow_provider_timextender.inputs import to_seconds, to_time
from airflow_provider_timextender.logs import relay
from airflow_provider_timextender.verdict import (
    Failed,
    NeverStarted,
    Run,
    Succeeded,
    Verdict,
    Waiting,
    conclude,
    for_people,
    judge_execution,
    judge_job,
    last_completed,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

LOG_LAG = 30.0
"""Seconds after which a sensor without memory looks once more, before it says "never started"."""


class JobStatusSensor(BaseSensorOperator):
    """Wait for an execution of a TimeXtender job, and succeed or fail with it.

    What it waits for:

    - with ``trigger_id``: that execution, whatever else the job does;
    - with ``completed_after``: an execution of the job that ended at that time or later, however it was
      started; of several, the one that ended last counts;
    - with neither: until the job is idle, which says nothing about how its last execution ended.

    The standard sensor options keep their meaning, except that ``soft_fail`` skips the task after a timeout
    only, and never hides a failed job or an API that refuses.

    :param job_id: the job's guid (templated). :param job_name: its exact name instead (templated).
    :param trigger_id: the execution's trigger id, as ``ExecuteJobOperator`` returns it (templated).
    :param completed_after: ISO 8601 or datetime, such as ``"{{ data_interval_end }}"`` (templated).
    :param timextender_conn_id: the Airflow connection (templated).
    :param start_timeout: seconds, from the sensor's start, that an idle job may show no execution under the
        trigger id before it counts as never started (templated).
    :param max_unreachable: for how many seconds in a row the API may give no good answer (templated).
    :return: ``{"job_id", "trigger_id", "state", "start", "end", "duration"}``; times in ISO 8601 and UTC, the
        duration in seconds; ``state`` is ``"succeeded"``, or ``"idle"`` where no execution was asked for.
    :raises JobFailed: if the execution failed. :raises JobNeverStarted: if it did not start in time.
    :raises AirflowSensorTimeout: when ``timeout`` is over.
    :raises AirflowFailException: for what a retry cannot heal: a refused key, an unknown job, bad input.
    """

    template_fields: Sequence[str] = (
        "job_id",
        "job_name",
        "trigger_id",
        "completed_after",
        "timextender_conn_id",
        "start_timeout",
        "max_unreachable",
    )
    ui_color = "#e6f1f2"

    def __init__(
        self,
        *,
        job_id: str | None = None,
        job_name: str | None = None,
        trigger_id: str | None = None,
        completed_after: datetime | str | None = None,
        timextender_conn_id: str = TimeXtenderHook.default_conn_name,
        start_timeout: float = 600,
        max_unreachable: float = 900,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.job_name = job_name
        self.trigger_id = trigger_id
        self.completed_after = completed_after
        self.timextender_conn_id = timextender_conn_id
        self.start_timeout = start_timeout
        self.max_unreachable = max_unreachable
        # A template that renders to nothing must not turn into "any execution will do".
        self._given = [name for name in ("trigger_id", "completed_after") if getattr(self, name) is not None]
        self._job_id: str | None = None
        self._run: Run | None = None
        self._looks = 0
        self._seen: Waiting | None = None

    @cached_property
    def hook(self) -> TimeXtenderHook:
        """The hook for the connection."""
        return TimeXtenderHook(
            self.timextender_conn_id,
            max_unreachable=to_seconds(self.max_unreachable, "max_unreachable"),
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait, and return the result or raise the failure."""
        try:
            with no_vain_retry():
                # The base class would take a failure that is raised while poking for a failed look, which
                # `silent_fail` ignores, so a final verdict comes back as the value of the last poke.
                return self._result(super().execute(context))
        except AirflowSensorTimeout:
            raise AirflowSensorTimeout(self._timed_out()) from None
        except AirflowSkipException:
            if self.soft_fail:
                raise AirflowSkipException(self._timed_out()) from None
            raise
        except (TimeXtenderError, AirflowFailException) as error:
            if self.never_fail:
                raise AirflowSkipException(f"Skipped, as never_fail is set: {error}") from error
            raise

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        verdict = self._look(context)
        self._looks += 1
        if not isinstance(verdict, Waiting):
            return PokeReturnValue(is_done=True, xcom_value=verdict)
        if self._seen is None or verdict.state != self._seen.state:
            level = logging.WARNING if verdict.state == "unknown" else logging.INFO
            self.log.log(level, "%s: %s", self._what(), verdict.why)
        self._seen = verdict
        return PokeReturnValue(is_done=False)

    def _look(self, context: Context) -> Verdict | JobStatus:
        for name in self._given:
            if not getattr(self, name):
                raise InvalidInput(f"{name} was given, but is {getattr(self, name)!r} at run time.")
        if len(self._given) > 1:
            raise InvalidInput("Give either trigger_id or completed_after, and not both.")
        if self._job_id is None:
            self._job_id = self.hook.resolve_job_id(self.job_id, self.job_name)
        if self.trigger_id:
            return self._look_at_execution(self._job_id, self.trigger_id, context)
        if after := to_time(self.completed_after, "completed_after"):
            return self._look_for_completed(self._job_id, after)
        status = self.hook.get_job_status(self._job_id)
        return judge_job(status) or status

    def _look_at_execution(self, job_id: str, trigger_id: str, context: Context) -> Verdict:
        run = self._run or Run(
            job_id=job_id,
            trigger_id=guid(trigger_id, "trigger id"),
            asked_at=self._began(context),
            start_timeout=to_seconds(self.start_timeout, "start_timeout"),
        )
        self._run, verdict = self.hook.look(run, self._looks)
        if isinstance(verdict, NeverStarted) and self.mode == "reschedule":
            # Between two pokes nothing is remembered, not even that the job was running a minute ago; its
            # log may just be late.
            time.sleep(min(LOG_LAG, run.start_timeout))
            self._run, verdict = self.hook.look(self._run, self._looks)
        return verdict

    def _look_for_completed(self, job_id: str, after: datetime) -> Verdict:
        execution = last_completed(self.hook.get_job_logs(job_id), after)
        if execution is None:
            return Waiting("none", f"No execution has ended since {after.isoformat()}.")
        return judge_execution(execution)

    def _began(self, context: Context) -> datetime:
        now = datetime.now(timezone.utc)
        if self.mode != "reschedule":
            return now
        ti = context["ti"]
        if hasattr(ti, "get_first_reschedule_date"):
            return ti.get_first_reschedule_date(context) or now
        return ti.start_date or now  # Airflow 2 keeps the first start here

    def _result(self, outcome: Succeeded | Failed | NeverStarted | JobStatus) -> dict[str, Any]:
        if isinstance(outcome, JobStatus):
            idle = {"trigger_id": None, "start": None, "end": None, "duration": None}
            return {**outcome.to_dict(), **idle}
        if isinstance(outcome, Failed):
            relay(outcome.execution.logs, self.log)
        execution = conclude(outcome)
        self.log.info("%s: The execution succeeded.", self._what())
        return execution.to_dict()

    def _timed_out(self) -> str:
        why = self._seen.why if self._seen else "no look succeeded."
        return (
            f"Stopped waiting for {self._what()} after {for_people(self.timeout)}: {why} "
            "What runs in TimeXtender runs on."
        )

    def _what(self) -> str:
        job = f"TimeXtender job {self._job_id or self.job_id or self.job_name}"
        return f"{job} (trigger id {self.trigger_id})" if self.trigger_id else job
