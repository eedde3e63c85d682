"""The sensor: wait for an execution that somebody else started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from importlib import import_module
from inspect import unwrap
from typing import Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    Context,
    PokeReturnValue,
    conf,
)

from airflow_provider_timextender.deferral import DefersMixin
from airflow_provider_timextender.ending import StartFromTrigger, StartTriggerArguments
from airflow_provider_timextender.errors import ExecutionTimeout, TimeXtenderError, WaitTimeout, about
from airflow_provider_timextender.hooks import TimeXtenderHook, no_vain_retry
from airflow_provider_timextender.inputs import NOT_GIVEN, NotGiven, is_there, span, to_job, to_run
from airflow_provider_timextender.jobs_api import LIST_OF
from airflow_provider_timextender.life import Limits, Wait, run_through
from airflow_provider_timextender.model import Job
from airflow_provider_timextender.naming import Named, Of, said
from airflow_provider_timextender.shown import Shown
from airflow_provider_timextender.verdict import Run, Waiting, for_people, result_of
from airflow_provider_timextender.worlds import Worker, memory_of, show_name

MIN_INTERVAL = 1.0
"""Seconds between two looks of the triggerer where none were wanted."""


class JobStatusSensor(DefersMixin, BaseSensorOperator):
    """Wait for an execution of a TimeXtender job, and succeed or fail with it.

    What it waits for:

    - with ``trigger_id``: that execution, whatever else the job does; its log lines appear in the task log as
      they come;
    - with ``completed_after``: an execution of the job that ended at that time or later, however it was
      started; of several, the one that ended last counts;
    - with neither: until the job is idle, which says nothing about how its last execution ended.

    The standard sensor options keep their meaning, except that ``soft_fail`` skips the task after a timeout
    only, and never hides a failed job or an API that refuses.

    :param job_id: the job's guid (templated). :param job_name: its exact name, instead or beside (templated).
    :param trigger_id: the execution's trigger id, as ``ExecuteJobOperator`` returns it (templated).
    :param completed_after: ISO 8601 or datetime, such as ``"{{ data_interval_end }}"`` (templated).
    :param timextender_conn_id: the Airflow connection (templated).
    :param deferrable: wait in the triggerer and not on a worker; Airflow's ``[operators] default_deferrable``
        unless given. It then looks every ``poke_interval``, whatever ``mode`` is.
    :param start_timeout: seconds, from the sensor's start, that an idle job may show no execution under the
        trigger id before it counts as never started (templated).
    :param max_unreachable: for how many seconds in a row the API may give no good answer (templated).
    :return: ``{"job_id", "job_name", "trigger_id", "state", "start", "end", "duration", "message",
        "problem"}``; times in ISO 8601 and UTC, the duration in seconds; ``state`` is ``"succeeded"``, or
        ``"idle"`` where no execution was asked for; ``job_name`` is ``None`` if the job was given by id and
        its name could not be had. A ``map_index_template`` may use ``{{ job_name }}``.
    :raises JobFailed: if the execution failed; its attributes tell a callback why.
    :raises JobNeverStarted: if it did not start in time.
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
    start_from_trigger = StartFromTrigger()
    start_trigger_args = StartTriggerArguments()

    def __init__(
        self,
        *,
        job_id: str | NotGiven | None = NOT_GIVEN,
        job_name: str | NotGiven | None = NOT_GIVEN,
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
        self.start_timeout = start_timeout
        self.max_unreachable = max_unreachable
        self._wait: Wait | None = None
        self._found: Named = Of()
        # Last, as Airflow asks for `start_trigger_args` while this is being made.
        self.deferrable = deferrable

    @property
    def trigger_arguments(self) -> dict[str, Any]:
        """What a trigger is given that Airflow starts without a worker; it renders what is templated."""
        after = self.completed_after
        arguments = {
            "timextender_conn_id": self.timextender_conn_id,
            "job_id": self.job_id,
            "job_name": self.job_name,
            "trigger_id": self.trigger_id,
            "completed_after": after.isoformat() if isinstance(after, datetime) else after,
            "start_timeout": self.start_timeout,
            "poll_interval": self.poke_interval or MIN_INTERVAL,
            "timeout": self.timeout,
            "max_unreachable": self.max_unreachable,
        }
        return {name: value for name, value in arguments.items() if value is not NOT_GIVEN}

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait, and return the result or raise the failure."""
        with self._ending(context):
            wait = self._wait = self._begin(context)
            if self.deferrable:
                verdict = run_through(wait.follow())
            else:
                # The base class would take a failure that is raised while poking for a failed look, which
                # `silent_fail` ignores, so a final verdict comes back as the value of the last poke.
                # Unwrapped, as Airflow 2 takes a call through the wrapper for one by the DAG's own code.
                verdict = unwrap(BaseSensorOperator.execute)(self, context)
                if self._forgets and wait.run.job_name is None:
                    self._found = wait.run = replace(wait.run, job_name=self.hook.resolve_job(self._of).name)
            return run_through(wait.tell(verdict))

    def execute_complete(self, context: Context, event: Any) -> dict[str, Any]:
        """Succeed or fail as the trigger tells."""
        if isinstance(event, Mapping):
            self._found = Of(*map(event.get, Of._fields))
        with self._ending(context):
            return result_of(event, "succeeded", "idle")

    @property
    def _of(self) -> Of:
        """Which job it is, and which execution, as found or else as given."""
        both = ((getattr(self._found, name), getattr(self, name)) for name in Of._fields)
        return Of(*(found or (given if is_there(given) else None) for found, given in both))

    @contextmanager
    def _ending(self, context: Context) -> Iterator[None]:
        """Raise what an error means, by the options of a sensor."""
        try:
            with no_vain_retry(), about(lambda: self._of):
                yield
        except (AirflowSensorTimeout, AirflowSkipException) as error:  # of the base class
            if isinstance(error, AirflowSkipException) and not self.soft_fail:
                raise
            seen = self._wait.seen.why if self._wait and self._wait.seen else "no look succeeded."
            why = f"it was not over after {for_people(self.timeout)}. {seen}"
            raise type(error)(self._timed_out(why)) from None
        except WaitTimeout as error:
            message = self._timed_out(error.reason)
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(message) from None
            if isinstance(error, ExecutionTimeout):
                raise AirflowTaskTimeout(message) from None
            raise AirflowSensorTimeout(message) from None
        except (TimeXtenderError, AirflowFailException) as error:
            if self.never_fail:
                raise AirflowSkipException(f"{error} Skipped, as never_fail is set.") from error
            raise
        finally:
            show_name(context, self._of)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        wait = self._wait = self._wait or self._begin(context)
        near_the_end = wait.left <= 2 * self.poke_interval
        # Between two pokes in mode reschedule nothing is remembered, not even that the job was running a
        # minute ago; its log may just be late.
        verdict = run_through(wait.look(every=1 if near_the_end else 2, settle=self._forgets))
        if not isinstance(verdict, Waiting):
            return PokeReturnValue(is_done=True, xcom_value=verdict)
        run_through(wait.say(verdict))
        return PokeReturnValue(is_done=False)

    def _begin(self, context: Context) -> Wait:
        now = datetime.now(timezone.utc)
        began = self._first_start(context, now)
        run_of = to_run(
            trigger_id=self.trigger_id,
            completed_after=self.completed_after,
            start_timeout=self.start_timeout,
            asked_at=began,
        )
        given = to_job(self.job_id, self.job_name)
        # Where each look begins anew, a name that only people read is left for the last one.
        unnamed = self._forgets and given.job_name is None
        job = Job(str(given.job_id), None) if unnamed else self.hook.resolve_job(given)
        self._found = run = run_of(job.id, job_name=job.name)
        end = began + span(self.timeout)
        # The interval counts in the triggerer only; on a worker, the base class lets it pass.
        limits = Limits(self.poke_interval or MIN_INTERVAL, self.hook.max_unreachable, end, WaitTimeout())
        world = Worker(
            self.hook,
            self.log,
            memory=memory_of(context, self.log, self.retries or 0, lasts=not self._forgets),
            defer=partial(self._defer, context) if self.deferrable else None,
        )
        # A sensor before this process may have looked for it, and has read the log then.
        looked = (now - began).total_seconds() >= max(self.poke_interval, 0.001)
        if looked:
            world.understood.add(f"{LIST_OF}log")
        return Wait(world, run, limits, looked=looked)

    def _defer(self, context: Context, run: Run, limits: Limits, shown: Shown) -> NoReturn:
        looked = self._wait is not None and self._wait.looked
        self.defer_to_trigger(context, run, limits, shown, known_key=looked, returns="result")

    @property
    def _forgets(self) -> bool:
        """Whether each look is a process of its own."""
        return self.mode == "reschedule" and not self.deferrable

    def _first_start(self, context: Context, now: datetime) -> datetime:
        if not self._forgets:
            return now
        ti = context["ti"]
        if hasattr(ti, "get_first_reschedule_date"):
            return ti.get_first_reschedule_date(context) or now
        # Airflow 2, where `ti.start_date` is the start of this look.
        first_try = (ti.max_tries or 0) - (self.retries or 0) + 1
        first_start = import_module("airflow.sensors.base")._orig_start_date
        return first_start(ti.dag_id, ti.task_id, ti.run_id, ti.map_index, first_try) or now

    def _timed_out(self, why: str) -> str:
        return said(f"stopped waiting: {why} What runs in TimeXtender runs on.", self._of)
