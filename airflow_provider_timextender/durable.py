"""Queueing a job exactly once over all tries of a task, whatever breaks in between.

Before the request is sent, Airflow's task state store (Airflow 3.3 and later) is told that it will be, and
what the job's log shows by then; after it, the trigger id. So a later try knows what the one before it has
done, or can find out. Airflow's own ``ResumableJobMixin`` is not used: it stores an id only when it has one,
so that a worker that dies between the two starts the job again, and after such a death it returns something
else than an undisturbed task does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_timextender.errors import (
    ContractError,
    InvalidInput,
    JobBusy,
    Refused,
    ServerError,
    SubmissionUncertain,
    TimeXtenderError,
)
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.jobs_api import LIST_OF
from airflow_provider_timextender.model import BLANK_GUID, Execution, ExecutionState, JobState, canonical
from airflow_provider_timextender.submission import (
    Adopted,
    NotQueued,
    Record,
    Search,
    Tries,
    is_unended,
    last_started,
)
from airflow_provider_timextender.verdict import (
    LOG_LAG,
    Failed,
    Run,
    Succeeded,
    Waiting,
    judge_job,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

KEY = "timextender_submission"
"""Where the task state store keeps the record."""

LOG_PATIENCE = 60.0
"""Seconds for which a log is tried to be read before a job is queued; then it is queued without."""

HOW_TO_DECIDE = (
    "Look in TimeXtender whether the load has run. If it has, mark the task as success; if not, clear it, "
    "which queues the job anew."
)


class Memory:
    """The record of a task's submission: in the task state store, if there is one, else for this try only."""

    def __init__(self, context: Context, logger: Any, retries: int) -> None:
        ti: Any = context["ti"]
        dag_run: Any = context.get("dag_run")
        self._store: Any = context.get("task_state_store")
        self.log = logger
        self.record: Record | None = None
        self.tries = Tries(
            ti.try_number, ti.max_tries or 0, retries, getattr(dag_run, "clear_number", None) or 0
        )

    @property
    def lasts(self) -> bool:
        """Whether a later try will know it."""
        return self._store is not None

    def recall(self) -> Record | None:
        """Return what an earlier try has kept.

        :raises SubmissionUncertain: if it cannot be read.
        """
        if self._store is None:
            return None
        stored = self._store.get(KEY)
        try:
            self.record = None if stored is None else Record.from_dict(stored)
            return self.record
        except InvalidInput as error:
            raise SubmissionUncertain(
                f"What an earlier try has kept as {KEY!r} in the task state store is not understood: {error} "
                "So it is not known whether the job was queued, and it is not queued again. Look in "
                "TimeXtender; to queue it anew, delete that entry and clear the task."
            ) from None

    def keep(self, record: Record) -> None:
        """Keep a record of this try, or raise what keeps it from being kept."""
        record = replace(record, most=self.tries.most, clears=self.tries.clears)
        if self._store is not None:
            from airflow.sdk.execution_time.context import NEVER_EXPIRE

            self._store.set(KEY, record.to_dict(), retention=NEVER_EXPIRE)
        self.record = record

    def try_to_keep(self, record: Record) -> None:
        """Keep a record where the task has to go on without: another try then has to find out."""
        try:
            self.keep(record)
        except Exception:
            self.log.warning("Could not keep the record of the submission", exc_info=True)
            self.record = record

    def close(self) -> None:
        """Note that the task has succeeded, so that it runs anew when it is cleared."""
        try:
            record = self.record or self.recall()
        except Exception:
            self.log.warning("Could not read the record of the submission", exc_info=True)
            return
        if record is not None and record.stage == "queued":
            self.try_to_keep(replace(record, stage="done"))

    def forget(self) -> None:
        """Let the next try queue the job anew."""
        self.record = None
        if self._store is not None:
            try:
                self._store.delete(KEY)
            except Exception:
                self.log.warning("Could not delete the record of the submission", exc_info=True)


class DurableSubmit:
    """Queues a job for a task.

    :param memory: what the tries of the task know of each other; it has recalled the last record.
    :param given: the job's id or name, as the task was given it.
    :param pause: called between two looks for an execution, with whether the job is busy and for how many
        seconds it may be looked for; it lets time pass.
    :param start_timeout: seconds that the job must have been idle to be sure that nothing was queued.
    :param timeout: seconds after which a search is given up.
    """

    def __init__(
        self,
        hook: TimeXtenderHook,
        memory: Memory,
        logger: Any,
        *,
        job_id: str,
        given: str,
        pause: Callable[[bool, float], object],
        start_timeout: float,
        timeout: float,
    ) -> None:
        self._hook = hook
        self._memory = memory
        self.log = logger
        self._job_id = job_id
        self._given = given
        self._job = (
            f"TimeXtender job {job_id}" if given == job_id else f"TimeXtender job {given!r} ({job_id})"
        )
        self._former: tuple[str, ...] = ()
        self._unread = ""
        self._pause = pause
        self._start_timeout = start_timeout
        self._end = time.monotonic() + timeout

    def earlier(self) -> str | None:
        """Return the trigger id of an earlier try's execution, if this try is to go on with that.

        :raises SubmissionUncertain: if an earlier try may have queued the job, and it cannot be found out.
        """
        record = self._memory.record
        if record is None:
            return None
        if record.known is not None:  # whoever has kept it had read both
            self._hook.understood |= {"status", f"{LIST_OF}log"}
        trigger_id = self._left_by(record)
        if trigger_id is None:
            # What it has queued may still be to show up in the log.
            self._former = (*record.former, *([record.trigger_id] if record.trigger_id else ()))
            return None
        self.log.warning(
            "%s is not queued again: this try goes on with an earlier one's execution (trigger id %s).",
            self._job,
            trigger_id,
        )
        return trigger_id

    def _left_by(self, record: Record) -> str | None:
        """Return the execution that an earlier try has left to this one, ``None`` if there is none."""
        cleared = record.was_cleared(self._memory.tries)
        if canonical(record.job_id) != canonical(self._job_id):
            self.log.warning("An earlier try of this task ran another job: %s.", record.job_id)
            return None
        if record.stage == "done":
            return None if cleared else record.trigger_id
        if record.stage == "uncertain":
            if cleared:
                return None
            raise SubmissionUncertain(self._unknown(record, "An earlier try could not find out either."))
        age = (datetime.now(timezone.utc) - record.asked_at).total_seconds()
        late = age >= self._start_timeout
        if cleared and late:
            # By now, one that has begun since may as well be that of a later run.
            record = replace(record, hidden=True)
        trigger_id = record.trigger_id or self._find(record)
        if trigger_id is None:
            self.log.warning("An earlier try was about to queue %s, and did not.", self._job)
            self._memory.forget()
            return None
        if record.number == self._memory.tries.number:
            return trigger_id  # it was looked for over a deferral of this very try
        try:
            # Whose receipt is missing has never succeeded, so that a clear is no wish to run it once more.
            if self._is_over(trigger_id, cleared=cleared and record.stage == "queued", late=late):
                return None
        except TimeXtenderError as error:
            queued = f"An earlier try has queued {self._job} (trigger id {trigger_id})"
            error.args = (f"{queued}, and its execution could not be looked at: {error}",)
            raise
        # From now on it is this try's, which only another clear would undo.
        self._memory.keep(replace(record, stage="queued", trigger_id=trigger_id))
        return trigger_id

    def _is_over(self, trigger_id: str, *, cleared: bool, late: bool) -> bool:
        """Tell whether an execution that an earlier try has left is of no use to this one.

        :param late: it would have shown up in the log by now.
        """
        run = Run(self._job_id, trigger_id, datetime.now(timezone.utc), self._start_timeout)
        try:
            run, verdict = self._hook.look(run, every=1, looked=True)
            if isinstance(verdict, Waiting) and verdict.state == "ending" and verdict.settles:
                time.sleep(min(LOG_LAG, self._start_timeout))
                run, verdict = self._hook.look(run, every=1, looked=True)
        except ContractError as error:
            # Whatever an idle job's log says of it, it has ended somehow.
            if cleared and not error.transient and self._is_idle():
                return True
            raise
        if isinstance(verdict, Failed):
            self.log.warning("The execution of an earlier try has failed: %s", verdict.why)
            return True
        gone = isinstance(verdict, Waiting) and verdict.state == "idle"
        return cleared and (isinstance(verdict, Succeeded) or (gone and late))

    def refuse_if_it_seems_to_have_run(self, since: datetime | None, *, busy: bool) -> None:
        """Look at the job before another try without any memory queues it.

        :param since: when the DAG run began.
        :param busy: whether a busy job is a sign; it is none if nothing is queued then anyway.
        :raises SubmissionUncertain: if the job is busy, or the last execution since then has not failed. It
            may be that of an earlier try whose worker has died.
        """
        status, executions, _ = self._hook.survey(self._job_id)
        waiting = judge_job(status)
        if waiting is not None and not busy:
            return
        why = waiting.why if waiting else None
        last = last_started(executions, since)
        if why is None and last is not None and last.state is not ExecutionState.FAILED:
            begun = "has begun since the DAG run did" if last.start else "has begun nobody knows when"
            why = f"Execution {last.trigger_id} {begun}, and has not failed."
        if why is not None:
            raise SubmissionUncertain(
                f"An earlier try of this task may have queued {self._job}, or have ended before. {why} It is "
                f"not queued again, as that could run the load twice. {HOW_TO_DECIDE}"
            )

    def submit(self, *, alone: bool) -> str:
        """Queue the job, and return the trigger id of its execution.

        :param alone: only if the job is idle.
        :raises JobBusy: if it is not. :raises SubmissionUncertain: if it may have been queued, and it cannot
            be found out. All other errors say that it was not.
        """
        for _ in range(2):
            try:
                receipt = self._hook.execute_job(self._job_id, before=lambda: self._prepare(alone))
            except SubmissionUncertain as error:
                problem = str(error)
            except TimeXtenderError:
                # Nothing was taken, also if a request that surely did not arrive had been prepared.
                if self._memory.record is not None:
                    self._memory.forget()
                raise
            else:
                self._memory.try_to_keep(replace(self._asked, stage="queued", trigger_id=receipt.trigger_id))
                self.log.info(
                    "Queued %s, trigger id %s. %s",
                    self._job,
                    receipt.trigger_id,
                    receipt.message or "",
                )
                return receipt.trigger_id
            self.log.warning("%s Its execution is looked for.", problem)
            if (trigger_id := self._find(self._asked)) is not None:
                return trigger_id
            self._memory.forget()
        raise ServerError(f"{self._job} was asked for twice, and TimeXtender has not queued it. {problem}")

    @property
    def _asked(self) -> Record:
        assert self._memory.record is not None  # noqa: S101 - no request is sent without
        return self._memory.record

    def _prepare(self, alone: bool) -> None:
        """Look at the job and keep that it is about to be queued.

        The log may take a minute to read, and a job that is to be alone must not have begun meanwhile: its
        status is asked for last, so that nothing but this and the request itself can come between.
        """
        if alone:
            self._refuse_if_busy()
        executions = None
        try:
            executions = self._hook.executions_so_far(self._job_id, patience=LOG_PATIENCE)
        except TimeXtenderError as error:
            if isinstance(error, Refused) and error.status == 401:
                raise
            self._unread = str(error)
            self.log.warning(
                "Should the answer to the request get lost, the execution cannot be looked for: %s", error
            )
        self._memory.keep(self._record(executions, busy=not alone and not self._is_idle()))
        if alone:
            self._refuse_if_busy()

    def _is_idle(self) -> bool:
        return self._hook.get_job_status(self._job_id).state is JobState.IDLE

    def _refuse_if_busy(self) -> None:
        if (busy := judge_job(self._hook.get_job_status(self._job_id))) is not None:
            raise JobBusy(f"{self._job} was not queued, as if_running says. {busy.why}")

    def _record(self, executions: Sequence[Execution] | None, *, busy: bool) -> Record:
        return Record.of(
            self._job_id,
            executions,
            self._memory.tries,
            datetime.now(timezone.utc),
            busy=busy,
            given=self._given,
            former=self._former,
        )

    def _find(self, record: Record) -> str | None:
        """Return the trigger id of a request whose receipt is missing, ``None`` if nothing was queued."""
        if record.known is None:
            raise self._uncertain(record, f"What the job's log showed before is not known. {self._unread}")
        search = Search.of(record, self._start_timeout, datetime.now(timezone.utc))
        outcome = None
        while outcome is None:
            left = self._end - time.monotonic()
            try:
                status, executions, now = self._hook.survey(self._job_id, patience=max(0.0, left))
                search, outcome = search.after(status, executions, now)
            except TimeXtenderError as error:
                raise self._not_looked_for(record, error) from None
            if outcome is None:
                busy = judge_job(status)
                if left <= 0:
                    raise self._uncertain(
                        record, f"It has not become clear in time. {busy.why if busy else ''}"
                    )
                self._pause(busy is not None, left)
        if isinstance(outcome, NotQueued):
            return None
        if not isinstance(outcome, Adopted):
            raise self._uncertain(
                record,
                "It cannot be told whether it has led to one of the executions that have begun since: "
                f"{', '.join(outcome.trigger_ids)}.",
            )
        self.log.warning(
            "The receipt of the request for %s is missing. One execution has begun since, and is taken "
            "for the one that was asked for (trigger id %s).",
            self._job,
            outcome.trigger_id,
        )
        self._memory.try_to_keep(replace(record, stage="queued", trigger_id=outcome.trigger_id))
        return outcome.trigger_id

    def _not_looked_for(self, record: Record, error: TimeXtenderError) -> TimeXtenderError:
        if isinstance(error, ContractError) and not error.transient:
            return self._uncertain(record, str(error))
        why = f"It could not be looked for: {error}"
        if not self._memory.lasts:
            return SubmissionUncertain(self._unknown(record, why))
        if error.transient:
            error.args = (self._unknown(record, why, "Another try looks again."),)
            return error
        return SubmissionUncertain(
            self._unknown(record, why, "Clear the task when that is mended, and it looks again.")
        )

    def _uncertain(self, record: Record, why: str) -> SubmissionUncertain:
        self._memory.try_to_keep(replace(record, stage="uncertain"))
        return SubmissionUncertain(self._unknown(record, why))

    def _unknown(self, record: Record, why: str, what_next: str = HOW_TO_DECIDE) -> str:
        return (
            f"{self._job} was to be queued at {record.asked_at.isoformat(timespec='seconds')}, and it is not "
            f"known whether it was. {why} It is not queued again, as that could run the load twice. "
            f"{what_next}"
        )

    def attach(self) -> str | None:
        """Return the trigger id of the execution that the job is busy with, ``None`` if it is idle by now.

        :raises JobBusy: if that execution cannot be told, or followed.
        """
        before: set[str] | None = None
        run = Run(self._job_id, None, datetime.now(timezone.utc), self._start_timeout)
        while True:
            status, executions, now = self._hook.survey(self._job_id)
            named = {canonical(e.trigger_id): e.trigger_id for e in executions if e.trigger_id}
            before = set(named) if before is None else before
            # What a log shows only at its end, or late, is found there then.
            busy = judge_job(status) is not None
            # What a busy job's log shows as over without an end may run: its state may be set before.
            running = [e for e in executions if is_unended(e) or (busy and e.is_over and e.end is None)]
            shown = {e.trigger_id for e in running} or {
                id_ for key, id_ in named.items() if key not in before and key != BLANK_GUID
            }
            if len(shown) > 1:
                raise JobBusy(
                    f"Several executions of {self._job} are running, and it is not clear which of "
                    f"them to attach to: {', '.join(map(str, shown))}."
                )
            if shown and shown != {None}:
                return self._attached(self._record(executions, busy=True), shown.pop())
            run = run.after(status, now, read=True)
            if run.is_settled(now):
                return None
            left = self._end - time.monotonic()
            if left <= 0:
                raise JobBusy(f"{self._job} is busy, and its log shows no execution to attach to.")
            self._pause(False, left)

    def _attached(self, record: Record, trigger_id: str | None) -> str:
        if trigger_id is None or canonical(trigger_id) == BLANK_GUID:
            raise JobBusy(
                f"The running execution of {self._job} was started by hand. It has no trigger id, so "
                "that its outcome cannot be told; if_running='wait' waits for its end."
            )
        self.log.warning(
            "%s is running already. This task attaches to that execution, and reports its outcome as its "
            "own (trigger id %s).",
            self._job,
            trigger_id,
        )
        self._memory.keep(replace(record, stage="queued", trigger_id=trigger_id))
        return trigger_id
