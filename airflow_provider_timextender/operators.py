"""The operators: run a job, and read its log."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowTaskTimeout,
    BaseOperator,
    BaseOperatorLink,
    XCom,
    conf,
)

from airflow_provider_timextender.deferral import DefersMixin
from airflow_provider_timextender.durable import DurableSubmit, Memory
from airflow_provider_timextender.errors import (
    ContractError,
    ExecutionTimeout,
    InvalidInput,
    JobBusy,
    JobError,
    TimeXtenderError,
    TriggerLost,
    WaitTimeout,
)
from airflow_provider_timextender.hooks import TimeXtenderHook, no_vain_retry
from airflow_provider_timextender.inputs import NOT_GIVEN, NotGiven, given, span, to_bool, to_seconds
from airflow_provider_timextender.logs import LogFilter, exhaust, relay, warn_that_it_runs_on, write
from airflow_provider_timextender.verdict import (
    Failed,
    Final,
    Run,
    Succeeded,
    Waiting,
    conclude,
    for_people,
    result_of,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

MAX_XCOM_BYTES = 48 * 1024
"""The largest result that LogsOperator returns, as JSON: MySQL holds XComs of up to 64 KiB."""


IF_RUNNING = ("submit", "wait", "attach", "fail")

MAX_MOMENT = 10.0
"""Seconds at most that a task lets pass before it takes its turn."""

STATE_KEY = "timextender_execution"
"""Where Airflow's task state store shows what a waiting task last saw (Airflow 3.3 and later)."""


class TimeXtenderJobLink(BaseOperatorLink):
    """Leads from a task to its job in the TimeXtender portal."""

    name = "TimeXtender Portal"
    xcom_key = "_link_TimeXtenderJobLink"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address that the task stored, empty if it has not come so far."""
        try:
            return str(XCom.get_value(key=self.xcom_key, ti_key=ti_key) or "")
        except Exception:  # noqa: BLE001 - a page must not break because of a link
            return ""


@dataclass(frozen=True)
class _Limits:
    """The checked arguments of a wait; all but the first in seconds.

    :ivar end: when all that comes before the job is known to be queued has to be over.
    """

    wait: bool
    start_timeout: float
    interval: float
    timeout: float
    end: datetime

    @property
    def left(self) -> float:
        """What is left until ``end``."""
        return (self.end - datetime.now(timezone.utc)).total_seconds()


class ExecuteJobOperator(DefersMixin):
    """Queue a TimeXtender job; with ``wait_for_completion``, succeed or fail with that execution.

    The operator pushes the XComs ``job_id`` and ``trigger_id`` as soon as the job is queued, before it
    waits, and returns the trigger id.

    One run of the task starts one execution: another try goes on with the execution of the one before it,
    wherever that was stopped, unless that execution has failed. This needs the task state store of Airflow
    3.3 or later. Before, what goes wrong after the job is queued fails the task without a retry, and after
    the death of a worker a retry can only look whether the job seems to have run.

    :param job_id: the job's guid (templated). :param job_name: its exact name instead (templated).
    :param timextender_conn_id: the Airflow connection (templated).
    :param wait_for_completion: wait for the end of the execution (templated).
    :param deferrable: wait in the triggerer and not in the worker's slot; Airflow's ``[operators]
        default_deferrable`` unless given. Nothing is deferred where nothing is waited for.
    :param poll_interval: seconds between two looks (templated).
    :param timeout: seconds to wait for the end, from the submission on (templated); ``None`` stands for
        Airflow's ``[sensors] default_timeout``, which is seven days.
    :param start_timeout: seconds that an idle job may show no execution before it counts as never
        started (templated).
    :param max_unreachable: for how many seconds in a row the API may give no good answer during the wait
        (templated).
    :param if_running: what to do if the job is pending or running already (templated): ``submit`` it all the
        same, ``wait`` until it is idle, for ``timeout`` at most, ``attach`` to that execution and report its
        outcome, or ``fail``. The API cannot start a job only if it is idle: tasks that start in the same
        moment all see it idle, and all queue it. A pool with one slot that includes deferred tasks keeps
        them apart.
    :raises JobFailed: if the execution failed; the message holds TimeXtender's own and the last errors.
    :raises JobNeverStarted: if it did not start in time.
    :raises JobBusy: if ``if_running`` did not let it be queued.
    :raises AirflowFailException: for what a retry cannot heal, or would run the load a second time.
    """

    template_fields: Sequence[str] = (
        "job_id",
        "job_name",
        "timextender_conn_id",
        "wait_for_completion",
        "poll_interval",
        "timeout",
        "start_timeout",
        "max_unreachable",
        "if_running",
    )
    operator_extra_links = (TimeXtenderJobLink(),)
    ui_color = "#d9eef7"

    def __init__(
        self,
        *,
        job_id: str | None = None,
        job_name: str | None = None,
        timextender_conn_id: str = TimeXtenderHook.default_conn_name,
        wait_for_completion: bool | str = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 30,
        timeout: float | timedelta | None = None,
        start_timeout: float = 600,
        max_unreachable: float = 900,
        if_running: Literal["submit", "wait", "attach", "fail"] = "submit",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.job_name = job_name
        self.timextender_conn_id = timextender_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.start_timeout = start_timeout
        self.max_unreachable = max_unreachable
        self.if_running = if_running
        self._memory: Memory | None = None
        self._state = ""

    @cached_property
    def hook(self) -> TimeXtenderHook:
        """The hook for the connection."""
        return TimeXtenderHook(
            self.timextender_conn_id,
            max_unreachable=to_seconds(self.max_unreachable, "max_unreachable"),
        )

    @property
    def _given(self) -> str:
        return str(self.job_name or self.job_id)

    def execute(self, context: Context) -> str:
        """Queue the job, or go on with what an earlier try has queued, and wait for its end if asked to.

        :return: the trigger id.
        """
        return self._queue_and_wait(context)

    def execute_when_idle(self, context: Context, event: Any) -> str:
        """Go on after a deferral until the job is idle: it is the task's turn, or the end of a search."""
        with no_vain_retry():
            try:
                result_of(event, "idle")
            except TimeXtenderError as error:
                record = self._recall(context).recall()
                if record is None:
                    raise self._no_turn(error) from None
                if record.stage != "asked":
                    self._fail(error, record.job_id, record.trigger_id)
                if not isinstance(error, WaitTimeout) or isinstance(error, ExecutionTimeout):
                    error.args = (
                        f"TimeXtender job {record.given} may have been queued, and its execution was not "
                        f"found yet: {error}",
                    )
                    raise
                # The search looks once more, and says what it knows.
        time.sleep(self._moment())
        return self._queue_and_wait(context)

    def execute_complete(self, context: Context, event: Any) -> str:
        """Succeed or fail as the trigger tells."""
        memory = self._recall(context)
        try:
            trigger_id = str(result_of(event, "succeeded")["trigger_id"])
        except TimeXtenderError as error:
            told = event if isinstance(event, Mapping) else {}
            if told.get("trigger_id") is None and isinstance(error, (TriggerLost, WaitTimeout)):
                # Airflow has ended a wait for an idle job; else an XCom would tell the trigger id.
                return self.execute_when_idle(context, event)
            self._fail(error, told.get("job_id"), told.get("trigger_id"))
        memory.close()
        return trigger_id

    def on_kill(self) -> None:
        """Say that the job runs on."""
        record = self._memory.record if self._memory else None
        if record is not None:
            warn_that_it_runs_on(self.log, record.job_id, record.trigger_id)

    def _recall(self, context: Context) -> Memory:
        self._memory = Memory(context, self.log, self.retries or 0)
        return self._memory

    def _queue_and_wait(self, context: Context) -> str:
        # Apart from `execute`: Airflow 2 takes a resumed task's call of that for one by the DAG's own code.
        memory = self._recall(context)
        try:
            with no_vain_retry():
                limits = self._limits(context)
                record = memory.recall()
                if (
                    record is not None
                    and record.given == self._given
                    and not record.was_cleared(memory.tries)
                ):
                    # What has been queued is not lost because nobody can look up the job's name now.
                    job_id = record.job_id
                else:
                    job_id = self.hook.resolve_job_id(self.job_id, self.job_name)
                trigger_id = self._trigger_id(context, memory, job_id, limits)
        except AirflowTaskTimeout:
            if memory.lasts or memory.record is None:
                raise  # another try goes on from here
            raise AirflowFailException(
                f"execution_timeout ({self.execution_timeout}) was over before it was known whether the "
                "TimeXtender job was queued, so this task is not retried."
            ) from None
        try:
            self._tell(context, job_id, trigger_id)
            if limits.wait:
                now = datetime.now(timezone.utc)
                resumed = memory.record is not None and memory.record.number != memory.tries.number
                run = Run(job_id, trigger_id, now, limits.start_timeout, resumed=resumed)
                self._wait(context, run, limits)
        except AirflowTaskTimeout:
            self._fail(ExecutionTimeout("execution_timeout is over."), job_id, trigger_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job is queued
            self._fail(error, job_id, trigger_id)
        memory.close()
        return trigger_id

    def _limits(self, context: Context) -> _Limits:
        if self.if_running not in IF_RUNNING:
            raise InvalidInput(f"if_running is {self.if_running!r}; it takes {', '.join(IF_RUNNING)}.")
        timeout = (
            conf.getfloat("sensors", "default_timeout")
            if self.timeout is None
            else to_seconds(self.timeout, "timeout")
        )
        began: datetime = context["ti"].start_date or datetime.now(timezone.utc)
        return _Limits(
            wait=to_bool(self.wait_for_completion, "wait_for_completion"),
            start_timeout=to_seconds(self.start_timeout, "start_timeout"),
            interval=to_seconds(self.poll_interval, "poll_interval"),
            timeout=timeout,
            end=began + span(timeout),
        )

    def _trigger_id(self, context: Context, memory: Memory, job_id: str, limits: _Limits) -> str:
        """Return the trigger id of the one execution that is this task's."""

        def pause(busy: bool, left: float) -> None:
            if busy and self.deferrable and memory.lasts:
                self._defer_until_idle(context, job_id, limits, left)
            time.sleep(min(limits.interval, left))

        durable = DurableSubmit(
            self.hook,
            memory,
            self.log,
            job_id=job_id,
            given=self._given,
            pause=pause,
            start_timeout=limits.start_timeout,
            timeout=limits.left,
        )
        if not memory.lasts and self.retries:
            self._look_before_a_blind_retry(context, memory, durable)
        trigger_id = durable.earlier()
        while trigger_id is None:
            try:
                trigger_id = durable.submit(alone=self.if_running != "submit")
            except JobBusy:
                if self.if_running == "attach":
                    trigger_id = durable.attach()
                elif self.if_running == "wait":
                    self._wait_for_turn(context, job_id, limits)
                else:
                    raise
        return trigger_id

    def _look_before_a_blind_retry(self, context: Context, memory: Memory, durable: DurableSubmit) -> None:
        self.log.warning(
            "This Airflow keeps no state of a task over its tries (3.3 and later do). Should a worker die "
            "after it has queued the job, the next try can only look whether the job seems to have run."
        )
        if not memory.tries.is_first():
            dag_run: Any = context.get("dag_run")
            durable.refuse_if_it_seems_to_have_run(
                getattr(dag_run, "start_date", None), busy=self.if_running in ("submit", "wait")
            )

    def _wait_for_turn(self, context: Context, job_id: str, limits: _Limits) -> None:
        """Return when the job is idle, or defer until then."""
        left = limits.left
        if left <= 0:
            raise self._no_turn(WaitTimeout(f"others had the job for {for_people(limits.timeout)}."))
        if self.deferrable:
            self._defer_until_idle(context, job_id, limits, left)
        try:
            run = Run(job_id, None, datetime.now(timezone.utc))
            self._look_until_over(context, run, limits.interval, left)
        except WaitTimeout as error:
            raise self._no_turn(error) from None
        time.sleep(self._moment())

    def _no_turn(self, error: TimeXtenderError) -> TimeXtenderError:
        why = f"TimeXtender job {self._given} was not queued, as its turn did not come: {error}"
        return type(error)(why)

    def _defer_until_idle(self, context: Context, job_id: str, limits: _Limits, left: float) -> NoReturn:
        self.defer_to_trigger(
            context,
            Run(job_id, None, datetime.now(timezone.utc)),
            poll_interval=limits.interval,
            timeout=left,
            max_unreachable=self.hook.max_unreachable,
            known_key=True,
            returns=None,
            method_name="execute_when_idle",
        )

    def _moment(self) -> float:
        """Return for how many seconds others are let pass.

        All that wait for the same turn see it come in the same moment. The API cannot start a job only if
        it is idle, so they are kept from asking in the same moment as well.
        """
        return random.uniform(0, min(MAX_MOMENT, float(self.poll_interval)))

    def _tell(self, context: Context, job_id: str, trigger_id: str) -> None:
        for key, value in (
            ("trigger_id", trigger_id),
            ("job_id", job_id),
            (TimeXtenderJobLink.xcom_key, self.hook.settings.link(job_id, trigger_id)),
        ):
            try:
                context["ti"].xcom_push(key=key, value=value)
            except Exception:
                # Failing now would let a retry run the load a second time.
                self.log.warning("Could not push the XCom %s = %s", key, value, exc_info=True)

    def _wait(self, context: Context, run: Run, limits: _Limits) -> None:
        if not self.deferrable:
            verdict = self._look_until_over(context, run, limits.interval, limits.timeout)
        elif not isinstance(left := self._look_before_deferring(context, run), Run):
            verdict = left
        else:
            self.defer_to_trigger(
                context,
                left,
                poll_interval=limits.interval,
                timeout=limits.timeout,
                max_unreachable=self.hook.max_unreachable,
                known_key=True,
                returns="trigger_id",
            )
        if isinstance(verdict, (Succeeded, Failed)):
            exhaust(relay(verdict.execution, self.log))
        conclude(verdict)

    def _look_before_deferring(self, context: Context, run: Run) -> Final | Run:
        """Return what it has come to, or else what is left to wait for."""

        def remember(seen: Run) -> None:
            nonlocal run
            run = seen

        try:
            run, verdict = self.hook.look(run, patience=0, active=remember)
        except TimeXtenderError as error:
            if not error.may_pass:
                raise
            self.log.warning("The trigger will look again: %s", error)
            return run
        if not isinstance(verdict, Waiting):
            return verdict
        self._say(context, run, verdict)
        return run

    def _look_until_over(self, context: Context, run: Run, interval: float, timeout: float) -> Final:
        deadline = time.monotonic() + timeout

        def remember(seen: Run) -> None:
            nonlocal run
            run = seen

        look = partial(self.hook.look, looked=True, active=remember)
        while True:
            left = deadline - time.monotonic()
            # The last look always reads the log: what is over by then is no timeout.
            every = 1 if left <= 0 else 2
            try:
                run, verdict = look(run, every=every, patience=max(0.0, left))
            except TimeXtenderError as error:
                # With less than max_unreachable left it is the timeout that ends the wait.
                if not error.may_pass or left >= self.hook.max_unreachable:
                    raise
                verdict = Waiting("unreachable", str(error))
            if not isinstance(verdict, Waiting):
                return verdict
            self._say(context, run, verdict)
            if left <= 0:
                raise WaitTimeout(f"it was not over after {for_people(timeout)}. {verdict.why}")
            time.sleep(max(0.0, min(interval, deadline - time.monotonic())))

    def _say(self, context: Context, run: Run, verdict: Waiting) -> None:
        if verdict.state == self._state:
            return
        self._state = verdict.state
        level = logging.WARNING if verdict.state == "unknown" else logging.INFO
        self.log.log(level, "%s", verdict.why)
        store = context.get("task_state_store")  # Airflow 3.3 and later
        if store is None:
            return
        try:
            store.set(
                STATE_KEY,
                {
                    "job_id": run.job_id,
                    "trigger_id": run.trigger_id,
                    "state": verdict.state,
                    "since": datetime.now(timezone.utc).isoformat(),
                },
            )
        except Exception:
            self.log.warning("Could not show the state", exc_info=True)

    def _fail(self, error: Exception, job_id: str | None, trigger_id: str | None) -> NoReturn:
        memory = self._memory
        if isinstance(error, JobError):
            if memory is not None:
                memory.forget()
            raise error
        why = str(error)
        if not isinstance(error, WaitTimeout):
            why = f"its outcome could not be found out ({type(error).__name__}: {error})."
        stopped = f"Stopped waiting for TimeXtender job {job_id} (trigger id {trigger_id}): {why} "
        cause = None if isinstance(error, TimeXtenderError) else error
        kind = type(error) if isinstance(error, TimeXtenderError) else TimeXtenderError
        if memory is not None and memory.lasts and kind.retry_helps and not isinstance(error, WaitTimeout):
            raise kind(f"{stopped}Another try of this task goes on with this execution.") from cause
        reason = "The execution may still be running in TimeXtender"
        if isinstance(error, ContractError) and not kind.retry_helps:
            reason = "Another try would understand no more"
        raise AirflowFailException(f"{stopped}{reason}, so this task is not retried.") from cause


class LogsOperator(BaseOperator):
    """Write the filtered log of one execution, or of a whole job, to the task log, and return it.

    The result is a list of ``{"time", "severity", "message", "trigger_id"}`` with ISO 8601 times in UTC.
    Entries whose time or severity is not known pass the filters on it.

    :param job_id: the job's guid (templated). :param job_name: its exact name instead (templated).
    :param trigger_id: the execution (templated); without it, all that the job's log shows.
    :param min_severity: ``debug``, ``info``, ``warning``, ``error`` or ``critical`` (templated).
    :param since: entries of this time or later, ISO 8601 or datetime (templated). :param until: or earlier.
    :param message_pattern: a regular expression that is searched in the message (templated).
    :param timextender_conn_id: the Airflow connection (templated).
    :raises ExecutionNotFound: if the log shows no execution under the trigger id.
    :raises AirflowFailException: if the result is larger than 48 KiB of JSON: too large for an XCom on some
        databases, and never cut silently. Narrow the filters then.
    """

    template_fields: Sequence[str] = (
        "job_id",
        "job_name",
        "trigger_id",
        "min_severity",
        "since",
        "until",
        "message_pattern",
        "timextender_conn_id",
    )
    ui_color = "#eef3f7"

    def __init__(
        self,
        *,
        job_id: str | None = None,
        job_name: str | None = None,
        trigger_id: str | NotGiven | None = NOT_GIVEN,
        min_severity: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        message_pattern: str | None = None,
        timextender_conn_id: str = TimeXtenderHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.job_name = job_name
        self.trigger_id = trigger_id
        self.min_severity = min_severity
        self.since = since
        self.until = until
        self.message_pattern = message_pattern
        self.timextender_conn_id = timextender_conn_id

    @cached_property
    def hook(self) -> TimeXtenderHook:
        """The hook for the connection."""
        return TimeXtenderHook(self.timextender_conn_id)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Read, filter, write and return the log."""
        with no_vain_retry():
            wanted = LogFilter.parse(
                min_severity=self.min_severity,
                since=self.since,
                until=self.until,
                message_pattern=self.message_pattern,
            )
            trigger_id = given(self.trigger_id, "trigger_id")
            job_id = self.hook.resolve_job_id(self.job_id, self.job_name)
            logs = list(wanted.select(self.hook.iter_job_logs(job_id, trigger_id)))
            exhaust(write(logs, self.log))
            entries = [log.to_dict() for log in logs]
            size = len(json.dumps(entries).encode())
            if size > MAX_XCOM_BYTES:
                raise InvalidInput(
                    f"{len(entries)} log entries of TimeXtender job {job_id} take {size // 1024} KiB, more "
                    f"than the {MAX_XCOM_BYTES // 1024} KiB that an XCom holds everywhere. Narrow them with "
                    "trigger_id, min_severity, since, until or message_pattern."
                )
        return entries
