"""The sensor: wait for an execution that somebody else started."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cached_property, partial
from importlib import import_module
from inspect import unwrap
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_timextender.deferral import DefersMixin, worker_has_to_tell
from airflow_provider_timextender.errors import ExecutionTimeout, TimeXtenderError, WaitTimeout
from airflow_provider_timextender.hooks import TimeXtenderHook, no_vain_retry
from airflow_provider_timextender.inputs import NOT_GIVEN, NotGiven, to_run, to_seconds
from airflow_provider_timextender.jobs_api import LIST_OF
from airflow_provider_timextender.logs import exhaust, relay
from airflow_provider_timextender.polling import MIN_INTERVAL, backstop
from airflow_provider_timextender.verdict import (
    LOG_LAG,
    Failed,
    Final,
    Run,
    Succeeded,
    Verdict,
    Waiting,
    conclude,
    for_people,
    result_of,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

KNOWN_IN_TRIGGERER = {
    "ds", "ds_nodash", "ts", "ts_nodash", "logical_date", "data_interval_start",
    "data_interval_end", "dag_run", "run_id",
}  # fmt: skip
"""What a template may use that is rendered in the triggerer, which asks for nothing while it renders.

Airflow 3.3.2 never answers a triggerer that asks for an XCom as ``ti.xcom_pull(task_ids=...)`` does.
"""


class JobStatusSensor(DefersMixin, BaseSensorOperator):
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
    :param deferrable: wait in the triggerer and not on a worker; Airflow's ``[operators] default_deferrable``
        unless given. It then looks every ``poke_interval``, whatever ``mode`` is.
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
        trigger_id: str | NotGiven | None = NOT_GIVEN,
        completed_after: datetime | str | NotGiven | None = NOT_GIVEN,
        timextender_conn_id: str = TimeXtenderHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
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
        self.deferrable = deferrable
        self.start_timeout = start_timeout
        self.max_unreachable = max_unreachable
        self._run: Run | None = None
        self._seen: Waiting | None = None
        if deferrable:
            self._start_in_triggerer()

    def _start_in_triggerer(self) -> None:
        """Let Airflow start the sensor in the triggerer, without a worker, where it can.

        It cannot before Airflow 3.3, which renders templates there; nor if a value depends on what a
        triggerer cannot ask for, as an XCom is; if a worker has something to do or a listener to call; or if
        the task is mapped.
        """
        from airflow.triggers.base import BaseTrigger, StartTriggerArgs

        arguments = {
            "timextender_conn_id": self.timextender_conn_id,
            "job_id": self.job_id,
            "job_name": self.job_name,
            "start_timeout": self.start_timeout,
            "poll_interval": self.poke_interval or MIN_INTERVAL,
            "timeout": self.timeout,
            "max_unreachable": self.max_unreachable,
        }
        if self.trigger_id is not NOT_GIVEN:
            arguments["trigger_id"] = self.trigger_id
        if self.completed_after is not NOT_GIVEN:
            after = self.completed_after
            arguments["completed_after"] = after.isoformat() if isinstance(after, datetime) else after
        worker_is_needed = (
            self.execution_timeout is not None
            or self.on_execute_callback
            or self._pre_execute_hook is not None
            or self.params  # Airflow 3.3.2 lets the whole triggerer fail if one of them is invalid
            or not type(self).__module__.startswith(__package__)
        )
        missing = self.trigger_id is None or self.completed_after is None  # a worker says so
        possible = hasattr(BaseTrigger, "render_template_fields") and not worker_is_needed and not missing
        if possible and all(map(_is_known_in_triggerer, arguments.values())) and not worker_has_to_tell():
            arguments["end_with"] = self.end_with("result")
            self.start_from_trigger = True
            self.start_trigger_args = StartTriggerArgs(
                trigger_cls=f"{__package__}.triggers.JobExecutionTrigger",
                trigger_kwargs=arguments,
                next_method="execute_complete",
                timeout=backstop(self.timeout),
            )

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
                # Unwrapped, as Airflow 2 takes a call through the wrapper for one by the DAG's own code.
                poke_until_over = partial(unwrap(BaseSensorOperator.execute), self)
                verdict = (self._wait_in_triggerer if self.deferrable else poke_until_over)(context)
                if isinstance(verdict, (Succeeded, Failed)):
                    exhaust(relay(verdict.execution, self.log))
                return conclude(verdict)
        except AirflowSensorTimeout:
            raise AirflowSensorTimeout(self._timed_out(self._why())) from None
        except AirflowSkipException:
            if self.soft_fail:
                raise AirflowSkipException(self._timed_out(self._why())) from None
            raise
        except (TimeXtenderError, AirflowFailException) as error:
            self._skip_if_never_fail(error)
            raise

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Succeed or fail as the trigger tells."""
        try:
            with no_vain_retry():
                return result_of(event, "succeeded", "idle")
        except WaitTimeout as error:
            message = self._timed_out(str(error), event)
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(message) from None
            if isinstance(error, ExecutionTimeout):
                raise AirflowTaskTimeout(message) from None
            raise AirflowSensorTimeout(message) from None
        except (TimeXtenderError, AirflowFailException) as error:
            self._skip_if_never_fail(error)
            raise

    def _skip_if_never_fail(self, error: Exception) -> None:
        if self.never_fail:
            raise AirflowSkipException(f"Skipped, as never_fail is set: {error}") from error

    def _wait_in_triggerer(self, context: Context) -> Final:
        run, _ = self._begin(context)
        seen: Verdict
        try:
            run, seen = self.hook.look(run, patience=0)
        except TimeXtenderError as error:
            if not error.transient:
                raise
            seen = Waiting("unreachable", str(error))
        self._run = run
        if isinstance(seen, Waiting):
            self._say(seen)
            self.defer_to_trigger(
                context,
                run,
                poll_interval=self.poke_interval or MIN_INTERVAL,
                timeout=self.timeout,
                max_unreachable=self.hook.max_unreachable,
                known_key=seen.state != "unreachable",
                returns="result",
            )
        return seen

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        verdict = self._look(context)
        if not isinstance(verdict, Waiting):
            return PokeReturnValue(is_done=True, xcom_value=verdict)
        self._say(verdict)
        return PokeReturnValue(is_done=False)

    def _say(self, verdict: Waiting) -> None:
        if self._seen is None or verdict.state != self._seen.state:
            level = logging.WARNING if verdict.state == "unknown" else logging.INFO
            self.log.log(level, "%s", verdict.why)
        self._seen = verdict

    def _look(self, context: Context) -> Verdict:
        run, looked = (self._run, True) if self._run else self._begin(context)
        if looked:
            self.hook.understood.add(f"{LIST_OF}log")  # by the poke before, perhaps in another process
        self._run = run
        left = self.timeout - (datetime.now(timezone.utc) - run.asked_at).total_seconds()
        near_the_end = left <= 2 * self.poke_interval
        look = partial(self.hook.look, patience=max(0.0, left), every=1 if near_the_end else 2)
        try:
            self._run, verdict = look(run, looked=looked)
            if self.mode == "reschedule" and isinstance(verdict, Waiting) and verdict.settles:
                # Between two pokes nothing is remembered, not even that the job was running a minute ago; its
                # log may just be late.
                time.sleep(min(LOG_LAG, run.start_timeout))
                self._run, verdict = look(self._run, looked=True, every=1)
        except TimeXtenderError as error:
            # With less than max_unreachable left it is the timeout that ends the wait.
            if not (error.transient or (looked and error.may_pass)) or left >= self.hook.max_unreachable:
                raise
            verdict = Waiting("unreachable", str(error))
        return verdict

    def _begin(self, context: Context) -> tuple[Run, bool]:
        """Return what is waited for, and whether a sensor before this process has looked for it."""
        now = datetime.now(timezone.utc)
        began = self._first_start(context, now)
        run_of = to_run(
            trigger_id=self.trigger_id,
            completed_after=self.completed_after,
            start_timeout=self.start_timeout,
            asked_at=began,
        )
        run = run_of(self.hook.resolve_job_id(self.job_id, self.job_name))
        return run, (now - began).total_seconds() >= max(self.poke_interval, 0.001)

    def _first_start(self, context: Context, now: datetime) -> datetime:
        if self.mode != "reschedule" or self.deferrable:
            return now
        ti = context["ti"]
        if hasattr(ti, "get_first_reschedule_date"):
            return ti.get_first_reschedule_date(context) or now
        # Airflow 2, where `ti.start_date` is the start of this look.
        first_try = (ti.max_tries or 0) - (self.retries or 0) + 1
        first_start = import_module("airflow.sensors.base")._orig_start_date
        return first_start(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, first_try) or now

    def _why(self) -> str:
        seen = self._seen.why if self._seen else "no look succeeded."
        return f"it was not over after {for_people(self.timeout)}. {seen}"

    def _timed_out(self, why: str, event: Any = None) -> str:
        job_id = (
            self._run.job_id if self._run else (event or {}).get("job_id") or self.job_id or self.job_name
        )
        execution = "" if self.trigger_id is NOT_GIVEN else f" (trigger id {self.trigger_id})"
        return (
            f"Stopped waiting for TimeXtender job {job_id}{execution}: {why} "
            "What runs in TimeXtender runs on."
        )


def _is_known_in_triggerer(value: Any) -> bool:
    if not isinstance(value, str):
        return value is None or isinstance(value, (int, float))
    from jinja2 import Environment, TemplateError, meta

    try:
        names = meta.find_undeclared_variables(Environment(autoescape=True).parse(value))
    except TemplateError:
        return False
    return names <= KNOWN_IN_TRIGGERER
