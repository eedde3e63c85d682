"""The operators: list jobs, run one, and read its log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property, partial
from typing import Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    Asset,
    BaseOperator,
    BaseOperatorLink,
    Context,
    ObjectStoragePath,
    XCom,
    conf,
)

from airflow_provider_timextender import errors
from airflow_provider_timextender.deferral import DefersMixin
from airflow_provider_timextender.exporting import Chosen, Export, Output, Wanted
from airflow_provider_timextender.hooks import TimeXtenderHook, no_vain_retry
from airflow_provider_timextender.increments import Ledger
from airflow_provider_timextender.inputs import (
    NOT_GIVEN,
    Asked,
    NotGiven,
    given,
    to_bool,
    to_job,
    to_jobs,
    to_pattern,
    to_seconds,
    to_states,
)
from airflow_provider_timextender.life import Life, Limits, Task, run_through
from airflow_provider_timextender.logs import LogFilter, warn_of_problems, warn_that_it_runs_on, write
from airflow_provider_timextender.model import (
    Execution,
    ExecutionState,
    Job,
    JobState,
    Log,
    canonical,
    guid,
    listed,
    pick,
)
from airflow_provider_timextender.naming import Named, Of, said, short
from airflow_provider_timextender.shown import Shown
from airflow_provider_timextender.verdict import Run
from airflow_provider_timextender.worlds import TaskOnWorker, show_name

MAX_XCOM_BYTES = 48 * 1024
"""The largest result that LogsOperator returns, as JSON: MySQL holds XComs of up to 64 KiB."""


IF_RUNNING = ("submit", "wait", "attach", "fail")


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


class ExecuteJobOperator(DefersMixin):
    """Queue a TimeXtender job; with ``wait_for_completion``, succeed or fail with that execution.

    The operator pushes the XComs ``job_id``, ``job_name`` and ``trigger_id`` as soon as the job is queued,
    before it waits, and returns the trigger id. While it waits, the execution's log lines appear in the task
    log as they come. A ``map_index_template`` may use ``{{ job_name }}``.

    One run of the task starts one execution: another try goes on with the execution of the one before it,
    wherever that was stopped, unless that execution has failed. This needs the task state store of Airflow
    3.3 or later. Before, what goes wrong after the job is queued fails the task without a retry, and after
    the death of a worker a retry can only look whether the job seems to have run.

    :param job_id: the job's guid (templated). :param job_name: its exact name, instead or beside (templated).
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
    :raises JobFailed: if the execution failed; the message holds TimeXtender's own and the last errors, and
        its attributes the same for a callback.
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
        job_id: str | NotGiven | None = NOT_GIVEN,
        job_name: str | NotGiven | None = NOT_GIVEN,
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
        self._life: Life | None = None

    def execute(self, context: Context) -> str:
        """Queue the job, or go on with what an earlier try has queued, and wait for its end if asked to.

        :return: the trigger id.
        """
        return self._live(context)

    def execute_complete(self, context: Context, event: Any) -> str:
        """Go on with what the trigger tells: of the execution, or that the job is idle."""
        return self._live(context, event)

    execute_when_idle = execute_complete
    """Under this name 0.1.0 has deferred waits for an idle job."""

    def on_kill(self) -> None:
        """Say that the job runs on."""
        record = self._life.record if self._life else None
        if record is not None:
            warn_that_it_runs_on(self.log, record)

    def _live(self, context: Context, event: Any = ...) -> str:
        # Apart from `execute`: Airflow 2 takes a resumed task's call of that for one by the DAG's own code.
        with no_vain_retry():
            world = TaskOnWorker(
                self.hook,
                self.log,
                context,
                retries=self.retries or 0,
                tell=partial(self._tell, context),
                defer=partial(self._defer, context) if self.deferrable else None,
            )
        life = self._life = Life(partial(self._task, context), world)
        try:
            with no_vain_retry(unless=lambda: life.trigger_id is not None):
                return run_through(life.live() if event is ... else life.resume(event))
        except (Exception, AirflowTaskTimeout) as error:
            if life.trigger_id is not None:
                self._stop(life, error, lasts=world.lasts)
            if not isinstance(error, AirflowTaskTimeout) or world.lasts or life.record is None:
                raise  # another try goes on from here
            why = (
                f"execution_timeout ({self.execution_timeout}) was over before it was known whether it was "
                "queued, so this task is not retried."
            )
            raise AirflowFailException(said(why, life)) from None

    def _task(self, context: Context) -> Task:
        if self.if_running not in IF_RUNNING:
            raise errors.InvalidInput(f"if_running is {self.if_running!r}; it takes {', '.join(IF_RUNNING)}.")
        dag_run: Any = context.get("dag_run")
        default = conf.getfloat("sensors", "default_timeout")
        return Task(
            job=to_job(self.job_id, self.job_name),
            wait=to_bool(self.wait_for_completion, "wait_for_completion"),
            if_running=self.if_running,
            interval=to_seconds(self.poll_interval, "poll_interval"),
            timeout=default if self.timeout is None else to_seconds(self.timeout, "timeout"),
            start_timeout=to_seconds(self.start_timeout, "start_timeout"),
            max_unreachable=self.hook.max_unreachable,
            began=context["ti"].start_date or datetime.now(timezone.utc),
            since=getattr(dag_run, "start_date", None),
        )

    def _tell(self, context: Context, of: Named) -> None:
        for key, value in (
            ("trigger_id", of.trigger_id),
            ("job_id", of.job_id),
            ("job_name", of.job_name),
            (TimeXtenderJobLink.xcom_key, self.hook.settings.link(str(of.job_id), str(of.trigger_id))),
        ):
            try:
                context["ti"].xcom_push(key=key, value=value)
            except Exception:
                # Failing now would let a retry run the load a second time.
                self.log.warning("Could not push the XCom %s = %s", key, value, exc_info=True)

    def _defer(self, context: Context, run: Run, limits: Limits, shown: Shown) -> NoReturn:
        returns: Literal["trigger_id"] | None = None if run.trigger_id is None else "trigger_id"
        self.defer_to_trigger(context, run, limits, shown, known_key=True, returns=returns)

    def _stop(self, life: Life, error: BaseException, *, lasts: bool) -> NoReturn:
        """Raise what the end of a wait for an execution means for this task.

        :param lasts: whether another try would go on with that execution.
        """
        if isinstance(error, errors.JobError):
            raise error
        if isinstance(error, AirflowTaskTimeout):
            error = errors.ExecutionTimeout("execution_timeout is over.")
        why = error.reason if isinstance(error, errors.TimeXtenderError) else str(error)
        if not isinstance(error, errors.WaitTimeout):
            why = f"its outcome could not be found out ({type(error).__name__}: {why})."
        stopped = f"stopped waiting: {why} "
        cause = None if isinstance(error, errors.TimeXtenderError) else error
        kind = type(error) if isinstance(error, errors.TimeXtenderError) else errors.TimeXtenderError
        if lasts and kind.retry_helps and not isinstance(error, errors.WaitTimeout):
            again = "Another try of this task goes on with this execution."
            raise kind(f"{stopped}{again}").about(life) from cause
        reason = "The execution may still be running in TimeXtender"
        if isinstance(error, errors.ContractError) and not kind.retry_helps:
            reason = "Another try would understand no more"
        raise AirflowFailException(said(f"{stopped}{reason}, so this task is not retried.", life)) from cause


class JobsOperator(BaseOperator):
    """List the organisation's jobs, ready to be mapped over.

    The result is a list of ``{"job_id", "job_name"}``, which every operator here takes: one task for each job
    is ``ExecuteJobOperator.partial(...).expand_kwargs(jobs.output)``. Its order is the API's. It is empty if
    no job is wanted, and Airflow then skips what is mapped over it.

    :param job_name_pattern: a regular expression that is searched in the job's name (templated): ``"^Load "``
        keeps the names that begin so. Any job is kept unless given.
    :param state: what the job is doing now (templated): ``idle``, ``pending``, ``running``, or a list of
        these. Any job is kept unless given, and the API is not asked for it.
    :param timextender_conn_id: the Airflow connection (templated).
    :raises AirflowFailException: if an argument is unusable, or blank at run time; if the name, or the state,
        that is to be compared is not understood of any job.
    """

    template_fields: Sequence[str] = ("job_name_pattern", "state", "timextender_conn_id")
    ui_color = "#f3eef7"

    def __init__(
        self,
        *,
        job_name_pattern: str | NotGiven | None = NOT_GIVEN,
        state: str | Sequence[str] | NotGiven | None = NOT_GIVEN,
        timextender_conn_id: str = TimeXtenderHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name_pattern = job_name_pattern
        self.state = state
        self.timextender_conn_id = timextender_conn_id

    @cached_property
    def hook(self) -> TimeXtenderHook:
        """The hook for the connection."""
        return TimeXtenderHook(self.timextender_conn_id)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the jobs that are wanted."""
        with no_vain_retry():
            pattern = given(self.job_name_pattern, "job_name_pattern")
            named = None if pattern is None else to_pattern(pattern, "job_name_pattern")
            states = to_states(self.state, JobState)
            jobs = wanted = self.hook.get_jobs()
            if named is not None:
                self._understand("job name", [job.problem for job in jobs])
                wanted = [job for job in wanted if job.name and named.search(job.name)]
            if states:
                statuses = self.hook.get_all_job_statuses()
                self._understand("state", [status.problem for status in statuses])
                ids = {canonical(status.job_id) for status in statuses if status.state in states}
                wanted = [job for job in wanted if canonical(job.id) in ids]
        shown = listed([short(job.name or job.id) for job in wanted])
        self.log.info("%d of %d jobs: %s", len(wanted), len(jobs), shown)
        return [{"job_id": job.id, "job_name": job.name} for job in wanted]

    def _understand(self, what: str, problems: Sequence[str | None]) -> None:
        """Warn if what is compared is not understood of some jobs.

        :raises ContractError: if it is understood of none, so that whatever is looked for would not be found.
        """
        found = [problem for problem in problems if problem]
        if found and len(found) == len(problems):
            raise errors.ContractError(f"The {what} is understood of no job: {found[0]}")
        if found:
            some = f"{len(found)} of {len(problems)} jobs, which are left out"
            self.log.warning("The %s is not understood of %s: %s", what, some, found[0])


class LogsOperator(BaseOperator):
    """Write the filtered logs of jobs to files or a database, or that of one job to the task log and an XCom.

    With ``output_path``, a table of log lines becomes that file, and a table of executions one beside it:
    ``logs.jsonl`` and ``logs.executions.jsonl``. Both are seen when they are complete, and not before;
    another try, or a later run with the same path, replaces them. The result is a dict with ``path``,
    ``executions_path``, ``bytes``, ``jobs``, ``executions``, ``rows``, ``first_time`` and ``last_time``.

    With ``output_conn_id``, the same rows go to two tables of a database, ``timextender_lines`` and
    ``timextender_executions``, in one transaction. Each takes the place of the row with the same key, and no
    other row is touched. The result has the names of both as ``tables``, in the place of paths and bytes.

    Without both, the entries are written to the task log, and the result is a list of ``{"time", "severity",
    "message", "trigger_id"}``. Times are ISO 8601 in UTC.

    Entries whose time or severity is not known pass the filters on it, if others of the same log have one.

    :param job_id: the job's guid (templated). :param job_name: its exact name, instead or beside (templated).
    :param job_ids: several jobs, instead (templated). :param job_names: the same by name, instead or beside
        (templated).
    :param all_jobs: whether all jobs of the organisation are read, instead (templated).
    :param trigger_id: the execution (templated); without it, all that the job's log shows.
    :param state: ``running``, ``succeeded`` or ``failed``, or several of them: of executions (templated).
    :param min_severity: ``debug``, ``info``, ``warning``, ``error`` or ``critical`` (templated).
    :param since: entries of this time or later, ISO 8601 or datetime, UTC without an offset (templated).
    :param until: or earlier.
    :param message_pattern: a regular expression that is searched in the message (templated). Each of its
        named groups is a column of the table of lines.
    :param output_path: the file for lines, as an ``ObjectStoragePath`` takes it, whose name ends with
        ``.jsonl``, ``.jsonl.gz``, ``.csv``, ``.csv.gz`` or ``.parquet`` (templated).
    :param output_conn_id: the Airflow connection of a database, instead (templated): of any type whose hook
        is a ``DbApiHook``. Tables that are missing are created.
    :param output_schema: the schema of the tables; what the connection's user has by default, unless given
        (templated).
    :param incremental: write only what no earlier run of this task has written (templated); the task is
        skipped where nothing is new. An ``output_path`` has to differ for each run, ``trigger_id`` and
        ``until`` are refused, and ``max_active_tis_per_dag`` is 1 unless given.
    :param timextender_conn_id: the Airflow connection (templated).
    :raises ExecutionNotFound: if the log shows no execution under the trigger id.
    :raises LogsIncomplete: if some of several jobs could not be read, when the others have been written.
    :raises AirflowFailException: for what a retry cannot heal, a filter by what no entry of a log has among
        it; without an output if the result is larger than 48 KiB of JSON: too large for an XCom on
        some databases, and never cut silently.
    """

    template_fields: Sequence[str] = (
        "job_id",
        "job_name",
        "job_ids",
        "job_names",
        "all_jobs",
        "trigger_id",
        "state",
        "min_severity",
        "since",
        "until",
        "message_pattern",
        "output_path",
        "output_conn_id",
        "output_schema",
        "incremental",
        "timextender_conn_id",
    )
    ui_color = "#eef3f7"

    def __init__(
        self,
        *,
        job_id: str | NotGiven | None = NOT_GIVEN,
        job_name: str | NotGiven | None = NOT_GIVEN,
        job_ids: Sequence[str] | NotGiven | None = NOT_GIVEN,
        job_names: Sequence[str] | NotGiven | None = NOT_GIVEN,
        all_jobs: bool | str = False,
        trigger_id: str | NotGiven | None = NOT_GIVEN,
        state: str | Sequence[str] | NotGiven | None = NOT_GIVEN,
        min_severity: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        message_pattern: str | None = None,
        output_path: Any = NOT_GIVEN,
        output_conn_id: str | NotGiven | None = NOT_GIVEN,
        output_schema: str | None = None,
        incremental: bool | str = False,
        timextender_conn_id: str = TimeXtenderHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        if incremental:  # a text counts, as nobody knows yet what it renders
            kwargs.setdefault("max_active_tis_per_dag", 1)
        super().__init__(**kwargs)
        self.job_id = job_id
        self.job_name = job_name
        self.job_ids = job_ids
        self.job_names = job_names
        self.all_jobs = all_jobs
        self.trigger_id = trigger_id
        self.state = state
        self.min_severity = min_severity
        self.since = since
        self.until = until
        self.message_pattern = message_pattern
        self.output_path = output_path
        self.output_conn_id = output_conn_id
        self.output_schema = output_schema
        self.incremental = incremental
        self.timextender_conn_id = timextender_conn_id

    @cached_property
    def hook(self) -> TimeXtenderHook:
        """The hook for the connection."""
        return TimeXtenderHook(self.timextender_conn_id)

    def execute(self, context: Context) -> Any:
        """Read and filter the logs, and write them."""
        with no_vain_retry():
            wanted = Wanted(
                LogFilter(
                    min_severity=self.min_severity,
                    since=self.since,
                    until=self.until,
                    message_pattern=self.message_pattern,
                ),
                to_states(self.state, ExecutionState),
            )
            asked = to_jobs(
                job_id=self.job_id,
                job_name=self.job_name,
                job_ids=self.job_ids,
                job_names=self.job_names,
                all_jobs=self.all_jobs,
            )
            trigger_id = given(self.trigger_id, "trigger_id")
            if trigger_id is not None:
                if asked.one is None:
                    raise errors.InvalidInput("Give the one job to which the trigger_id belongs.")
                guid(trigger_id, "trigger id")
            incremental = to_bool(self.incremental, "incremental")
            output = self._output(context)
            if output is not None:
                find = self._find if asked.one is None else self.hook.resolve_job
                read = partial(self._read, trigger_id, wanted)
                ledger = self._ledger(context, output) if incremental else None
                return self._export(context, asked, Export(find, read, wanted, output, self.log, ledger))
            if incremental:
                raise errors.InvalidInput("incremental is given without an output_path or output_conn_id.")
            if asked.one is None:
                raise errors.InvalidInput(
                    "Give an output_path or an output_conn_id: several logs are no XCom."
                )
            job = self.hook.resolve_job(asked.one)
            of = Of(job.id, job.name, trigger_id)
            show_name(context, of)
            with errors.about(lambda: of):
                return self._entries(wanted.of(self._read(trigger_id, wanted, job)))

    def _output(self, context: Context) -> Output | None:
        path = given(self.output_path, "output_path")
        conn_id = given(self.output_conn_id, "output_conn_id")
        if path is not None and conn_id is not None:
            raise errors.InvalidInput("Give either output_path or output_conn_id, and not both.")
        if conn_id is not None:
            from airflow_provider_timextender.databases import Tables

            return Tables(conn_id, self.output_schema or None)
        if self.output_schema:
            raise errors.InvalidInput("output_schema is given without an output_conn_id.")
        if path is None:
            return None
        from airflow_provider_timextender.files import Files

        ti = context["ti"]
        return Files(_to_path(path), (ti.dag_id, ti.task_id, ti.run_id, ti.map_index))

    def _export(self, context: Context, asked: Asked, export: Export) -> dict[str, Any]:
        zone = self.hook.settings.timezone
        assumed = " (assumed; the connection's extra may name another timezone)" if zone is UTC else ""
        self.log.info("Times that come without an offset are taken to be in %s%s.", zone, assumed)
        done = export.write(self._jobs(asked))
        if done is None:
            raise AirflowSkipException("Nothing is new since the last output, and nothing is written.")
        counts = ", ".join(f"{name} {done[name]}" for name in ("jobs", "executions", "rows"))
        self.log.info("Written to %s: %s.", export.output.where, counts)
        for outlet in self.outlets or ():
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra.update(done)
        return done

    @cached_property
    def _known(self) -> list[Job]:
        return self.hook.get_jobs()

    def _jobs(self, asked: Asked) -> Iterator[Of]:
        if asked.one is not None:
            yield asked.one
        else:
            yield from asked.several or [Of(job.id, job.name) for job in self._known]

    def _find(self, of: Of) -> Job:
        return pick(self._known, of)

    def _ledger(self, context: Context, output: Output) -> Ledger:
        if self.trigger_id is not NOT_GIVEN or self.until:
            raise errors.InvalidInput(
                "incremental goes with neither trigger_id nor until: what they leave out would count as "
                "written, and what comes late never be."
            )
        from airflow_provider_timextender.remembering import TaskMemory

        ti = context["ti"]
        mapped = "" if ti.map_index in (None, -1) else f"[{ti.map_index}]"
        return Ledger(TaskMemory(context), f"{ti.run_id}{mapped}", output.where, output.seen)

    def _read(self, trigger_id: str | None, wanted: Wanted, job: Job) -> Iterator[Execution]:
        told: set[str] = set()
        for execution in self.hook.iter_executions([job], trigger_id=trigger_id, wanted=wanted.entries):
            warn_of_problems(execution, self.log, told)
            yield execution

    def _entries(self, chosen: Iterable[Chosen]) -> list[dict[str, Any]]:
        logs: list[Log] = []
        size = 0
        for log in (log for one in chosen for _, log in one.lines):
            logs.append(log)
            size += len(json.dumps(log.to_dict())) + len(", ")
            if size > MAX_XCOM_BYTES:  # whatever else comes is not to be held
                break
        for _ in write(logs, len(logs), self.log):
            pass  # a worker has nothing else to do in between
        if size > MAX_XCOM_BYTES:
            raise errors.InvalidInput(
                f"The first {len(logs)} log entries alone take more than {MAX_XCOM_BYTES // 1024} KiB, which "
                "not every XCom can hold. Narrow them with trigger_id, min_severity, since, until "
                "or message_pattern, or give an output_path or an output_conn_id."
            )
        return [log.to_dict() for log in logs]


def _to_path(value: Any) -> ObjectStoragePath:
    if not re.match(r"/|\w+://", str(value)):
        raise errors.InvalidInput(
            f"output_path is {str(value)!r}; it takes an absolute path, or an address such as "
            "s3://connection@bucket/logs.jsonl: nobody knows in which folder a worker runs."
        )
    try:
        path = ObjectStoragePath(value)
        path.fs  # noqa: B018 - only now is it looked for
    except (ImportError, ValueError) as error:
        raise errors.InvalidInput(
            f"output_path is {str(value)!r}, and nothing that is installed writes there ({error}). Install "
            "the provider of the store with its file system, as apache-airflow-providers-amazon[s3fs] is one."
        ) from None
    return path
