"""The hook: from an Airflow connection to the calls of the API."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException, BaseHook

from airflow_provider_timextender import jobs_api, model
from airflow_provider_timextender.answers import Keep
from airflow_provider_timextender.errors import (
    ExecutionNotFound,
    InvalidInput,
    TimeXtenderError,
    Unreachable,
    about,
)
from airflow_provider_timextender.inputs import to_job, unless_none
from airflow_provider_timextender.jobs_api import Call
from airflow_provider_timextender.life import identify, read, run_through, submit
from airflow_provider_timextender.logs import LogFilter, WantedLines, warn_of_problems
from airflow_provider_timextender.naming import Of, said
from airflow_provider_timextender.provider_info import get_provider_info
from airflow_provider_timextender.reading import each
from airflow_provider_timextender.worlds import Worker

if TYPE_CHECKING:
    from airflow_provider_timextender.carrier import Carrier
    from airflow_provider_timextender.connection import ConnectionFields, Settings

T = TypeVar("T")

ADVICE = (
    "To find out what to set, run: airflow timextender check (before Airflow 3.2: python -m "
    "airflow_provider_timextender check). It starts nothing."
)

LOGS_TO_TRY = 3
"""Of so many jobs *Test Connection* reads the log, until one shows an execution."""

# The carrier and the connection reader are imported where they are used: they load an HTTP library, which
# nobody needs when a DAG is parsed.


class TimeXtenderHook(BaseHook):
    """Talks to the TimeXtender Jobs API with the API key of an Airflow connection.

    Reads are repeated with growing, jittered waits while the API cannot be reached, answers 429 or 5xx,
    or sends something that is not its JSON; a ``Retry-After`` is obeyed. All methods raise
    :class:`~airflow_provider_timextender.errors.TimeXtenderError`, whose subclasses tell what happened.

    :param timextender_conn_id: the Airflow connection, of type ``timextender``.
    :param max_unreachable: for how many seconds a read is repeated without one good answer.
    """

    conn_name_attr = "timextender_conn_id"
    default_conn_name = "timextender_default"
    conn_type = "timextender"
    hook_name = "TimeXtender"

    def __init__(self, timextender_conn_id: str = default_conn_name, *, max_unreachable: float = 60) -> None:
        super().__init__()
        self.timextender_conn_id = timextender_conn_id
        self.max_unreachable = max_unreachable
        self.understood: set[str] = set()
        """The subjects of calls to which the API has answered in the right shape, whoever carried them."""
        self.warnings: tuple[str, ...] = ()
        """What is odd about the connection as it was last read."""

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The connection form, for Airflow versions that do not read it from the provider info."""
        behaviour = get_provider_info()["connection-types"][0]["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    @cached_property
    def settings(self) -> Settings:
        """The checked connection.

        :raises InvalidInput: if a field of it is unusable.
        :raises Unreachable: if Airflow cannot say what the connection is.
        """
        try:
            return self._check(self.get_connection(self.timextender_conn_id))
        except Exception as error:  # noqa: BLE001 - whatever keeps a connection in a secrets backend may raise it
            problem = self._no_connection(error)
        # Raised out here, without the frames in which the API key can be seen.
        raise problem

    def _check(self, connection: ConnectionFields) -> Settings:
        """Return a checked connection; what is odd about it is logged when it is first seen."""
        from airflow_provider_timextender.connection import settings

        found = settings(connection)
        for warning in found.warnings:
            if warning not in self.warnings:
                self.log.warning("Airflow connection %r: %s", self.timextender_conn_id, warning)
        self.warnings = found.warnings
        return found

    def _no_connection(self, error: Exception) -> TimeXtenderError:
        if isinstance(error, InvalidInput):
            return error
        if isinstance(error, AirflowNotFoundException):
            return InvalidInput(f"{error}.")
        what = f"The Airflow connection {self.timextender_conn_id!r} could not be read: "
        return Unreachable(f"{what}{type(error).__name__}: {error}", sent=False)

    @cached_property
    def _carrier(self) -> Carrier:
        return self.get_conn()

    def _read(self, call: Call[T]) -> T:
        return run_through(read(Worker(self, self.log), call, patience=self.max_unreachable))

    def send(self, call: Call[T]) -> T:
        """Carry a call once, whatever comes of it."""
        return self._carrier.send(call)

    def renew(self) -> None:
        """Read the connection again when it is needed next: its key may have been changed."""
        self.__dict__.pop("settings", None)
        carrier: Carrier | None = self.__dict__.pop("_carrier", None)
        if carrier is not None:
            carrier.close()

    def get_conn(self) -> Carrier:
        """Return a new carrier; the methods of this hook share one of their own."""
        from airflow_provider_timextender.carrier import Carrier

        return Carrier(self.settings, self.understood)

    async def get_async_conn(self) -> Carrier:
        """Return a new carrier for an event loop; the connection is read without blocking it.

        :raises Unreachable: if Airflow cannot say what the connection is.
        """
        # In a thread: the first time it takes long enough to hold up the event loop.
        await asyncio.to_thread(import_module, "airflow_provider_timextender.carrier")
        from airflow.providers.common.compat.connection import get_async_connection

        from airflow_provider_timextender.carrier import Carrier

        try:
            settings = self._check(await get_async_connection(self.timextender_conn_id))
            return Carrier(settings, self.understood)
        except Exception as error:  # noqa: BLE001 - whatever keeps a connection may raise it
            problem = self._no_connection(error)
        raise problem

    def get_jobs(self) -> list[model.Job]:
        """Return all jobs of the organisation."""
        return self._read(jobs_api.list_jobs())

    def get_job(self, job_id: str | None = None, job_name: str | None = None) -> model.Job:
        """Return one job, by id, by exact name, or by both.

        :raises InvalidInput: unless exactly one job matches what is given.
        """
        given = to_job(unless_none(job_id), unless_none(job_name))
        return model.pick(self.get_jobs(), given)

    def resolve_job(self, given: Of) -> model.Job:
        """Return a job as a task is given it; the name of one given by id is ``None`` if it cannot be had.

        :raises InvalidInput: as :meth:`get_job`, except that an id alone need not be known.
        """
        with about(lambda: given):
            return run_through(identify(Worker(self, self.log), given, patience=self.max_unreachable))

    def execute_job(self, job_id: str) -> model.Submission:
        """Queue a job, at most once: the request is repeated only while nothing of it can have arrived.

        :raises SubmissionUncertain: if it may have arrived, and the answer does not tell.
        """
        call = jobs_api.execute_job(job_id)
        return run_through(submit(Worker(self, self.log), call, patience=self.max_unreachable))

    def get_job_status(self, job_id: str) -> model.JobStatus:
        """Return what a job is doing now. Idle says nothing about how its last execution ended."""
        return self._read(jobs_api.job_status(job_id))

    def get_all_job_statuses(self) -> list[model.JobStatus]:
        """Return what every job of the organisation is doing now, with one request."""
        return self._read(jobs_api.all_job_statuses())

    def get_job_logs(self, job_id: str, trigger_id: str | None = None) -> list[model.Execution]:
        """Return a job's executions with their logs, or only the one under a trigger id.

        If the API shows nothing under the trigger id when asked for it, the job's whole log decides.
        """
        if trigger_id is None:
            return self._read(jobs_api.job_logs(job_id))
        filtered = self._read(jobs_api.if_any(jobs_api.job_logs(job_id, trigger_id)))
        found = [e for e in filtered if e.is_under(trigger_id)]
        return found or [e for e in self._read(jobs_api.job_logs(job_id)) if e.is_under(trigger_id)]

    def iter_job_logs(
        self, job_id: str, trigger_id: str | None = None, *, wanted: LogFilter | None = None
    ) -> Iterator[model.Log]:
        """Yield the log entries of a job's executions, or of the one under a trigger id, as they arrive.

        The size of the log costs no memory. Closing the generator ends the read.

        :param wanted: which entries; ``None`` for all.
        :raises ExecutionNotFound: if nothing stands under the trigger id.
        :raises ContractError: also if the answer broke off, and could not be gone on with.
        """
        told: set[str] = set()
        for execution in self._executions(job_id, trigger_id, WantedLines(wanted or LogFilter())):
            warn_of_problems(execution, self.log, told)
            yield from execution.logs

    def iter_executions(
        self,
        jobs: Iterable[str | model.Job] | str | model.Job | None = None,
        *,
        trigger_id: str | None = None,
        logs: bool = True,
        wanted: LogFilter | None = None,
    ) -> Iterator[model.Execution]:
        """Yield the executions of jobs as they arrive, each with the entries of its log that are wanted.

        Only one is in memory at a time, and of its log about two megabytes; more of it lies in a temporary
        file as long as somebody has the execution.

        :param jobs: ids, exact names, or what :meth:`get_jobs` returns, or one of these; ``None`` for all
            jobs.
        :param trigger_id: the one execution that is wanted, of one job.
        :param logs: ``False`` leaves out all entries.
        :param wanted: which entries are kept; ``None`` for all.
        :raises ExecutionNotFound: if nothing stands under the trigger id.
        :raises ContractError: also if the answer broke off, and could not be gone on with.
        """
        if trigger_id is not None:
            model.guid(trigger_id, "trigger id")
        keep = WantedLines(wanted or LogFilter()) if logs else None
        if isinstance(jobs, (str, model.Job)):
            jobs = (jobs,)
        for job in self.get_jobs() if jobs is None else jobs:
            yield from self._executions(
                job.id if isinstance(job, model.Job) else self._id_of(job), trigger_id, keep
            )

    def _executions(
        self, job_id: str, trigger_id: str | None, keep: Keep | None
    ) -> Iterator[model.Execution]:
        """Yield executions; if the API shows nothing under the trigger id, the job's whole log decides."""
        if trigger_id is None:
            yield from self._each(jobs_api.each_execution(job_id, keep=keep))
            return
        asked = jobs_api.each_execution(job_id, trigger_id, keep=keep)
        for call in (replace(asked, absent=lambda: iter(())), jobs_api.each_execution(job_id, keep=keep)):
            found = False
            for execution in self._each(call):
                if execution.is_under(trigger_id):
                    found = True
                    yield execution
            if found:
                return
        raise ExecutionNotFound(
            "its log shows no execution under the trigger id, neither when it is asked for that one nor as a "
            "whole. If another member holds the trigger id, override vocabulary.fields.execution.trigger_id "
            "or .log.trigger_id in the extra of the connection."
        ).about(Of(job_id, trigger_id=trigger_id))

    def _each(self, call: Call[Iterator[model.Execution]]) -> Iterator[model.Execution]:
        return each(self, Worker(self, self.log), call, patience=self.max_unreachable)

    def stream(self, call: Call[Iterator[T]]) -> Generator[T, None, None]:
        """Carry a call once, and yield what the answer says as it arrives."""
        return self._carrier.stream(call)

    def _id_of(self, job: str) -> str:
        return job if model.is_guid(job) else self.get_job(job_name=job).id

    def test_connection(self) -> tuple[bool, str]:
        """Read the jobs, their statuses and the log of one that has run; it ends within ten seconds.

        :return: whether a task would understand what it needs, and what was found.
        """
        found: list[tuple[bool, str]] = []
        # In a thread, as a server can send its answer so slowly that no timeout of a socket ends it.
        asking = Thread(target=lambda: found.append(self._try_connection()), daemon=True)
        asking.start()
        asking.join(9)
        good, what = found[0] if found else (False, "No complete answer came within 9 seconds.")
        return good, " ".join([what, *self.warnings])

    def _try_connection(self) -> tuple[bool, str]:
        from airflow_provider_timextender.carrier import Carrier
        from airflow_provider_timextender.check import Account, not_understood

        try:
            quick = replace(self.settings, timeout=min(self.settings.timeout, 4))
            with Carrier(quick) as carrier:
                account = Account(carrier.send, quick.vocabulary, quick.timezone)
                # Until one shows an execution.
                any(account.read_log(job.id, 2**20) for job in account.choose()[:LOGS_TO_TRY])
        except TimeXtenderError as error:
            return False, str(error)
        if problems := not_understood(account):
            # The button shows it for some seconds, in a narrow box; the command tells the rest.
            briefly = "; ".join(re.split(r" \(|\. ", problem, maxsplit=1)[0] for problem in problems)
            return False, f"Connected, but a task would not understand the answers. {ADVICE} {briefly}."
        seen = account.understand(quick.vocabulary)
        count = f"{len(seen.jobs)} job{'' if len(seen.jobs) == 1 else 's'} found."
        unseen = "" if seen.executions else " No execution was found, so how one ends is not known yet."
        return True, f"Connected to {quick.base_url}: {count}{unseen}"


@contextmanager
def no_vain_retry(unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Fail an Airflow task at once if another try could not heal the error, or would do harm.

    :param unless: tells, when there is an error, whether it is to be raised as it is.
    """
    try:
        yield
        return
    except TimeXtenderError as error:
        if error.retry_helps or unless():
            raise
        message = said(f"{type(error).__name__}: {error.reason}", error)
    raise AirflowFailException(message)
