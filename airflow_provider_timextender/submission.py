"""What is remembered of a submission, and what that tells when its receipt is missing.

The API has no way to submit a job at most once: a request that is sent twice runs the load twice, and whoever
loses the answer to it, or dies before the answer is kept, cannot ask for it again. What helps is that each
execution has a trigger id of its own (documented): what the job's log shows later, and did not show before
the request, has begun since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_timextender.api import BLANK_GUID, Execution, JobState, JobStatus, guid
from airflow_provider_timextender.errors import ContractError, InvalidInput
from airflow_provider_timextender.verdict import Run

_LONG_AGO = timedelta(days=1)
"""What started so long before the request is not its execution, whatever the server's clock and time zone."""


@dataclass(frozen=True)
class Clears:
    """How often Airflow has been told to run a task again, as far as its worker can see.

    :ivar max_tries: changes when the task is cleared, unless it is running.
    :ivar of_the_run: changes when any task of the DAG run is cleared; 0 where Airflow does not tell.
    """

    max_tries: int
    of_the_run: int = 0


@dataclass(frozen=True)
class Record:
    """A submission, as it is kept over the tries of a task.

    :ivar asked_at: the moment before the request was sent.
    :ivar idle: the job was idle then: nobody else's execution was waiting to start.
    :ivar known: the trigger ids of its log then; ``None`` if the log could not be read.
    :ivar unnamed: how many executions in it had none.
    :ivar trigger_id: the execution, ``None`` until that is known.
    :ivar closed: nothing is left to find out: the task has succeeded, or has said that it cannot know.
    """

    job_id: str
    asked_at: datetime
    idle: bool
    known: tuple[str, ...] | None
    unnamed: int
    clears: Clears
    trigger_id: str | None = None
    closed: bool = False

    @classmethod
    def of(
        cls, status: JobStatus, executions: Sequence[Execution] | None, clears: Clears, now: datetime
    ) -> Record:
        """Return the record of a request that is about to be sent, after a look at its job."""
        ids = None if executions is None else _ids_since(executions, now)
        return cls(
            job_id=status.job_id,
            asked_at=now,
            idle=status.state is JobState.IDLE,
            known=None if ids is None else tuple(id_ for id_ in ids if id_ is not None),
            unnamed=(ids or []).count(None),
            clears=clears,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "job_id": self.job_id,
            "asked_at": self.asked_at.isoformat(),
            "idle": self.idle,
            "known": None if self.known is None else list(self.known),
            "unnamed": self.unnamed,
            "max_tries": self.clears.max_tries,
            "clear_number": self.clears.of_the_run,
            "trigger_id": self.trigger_id,
            "closed": self.closed,
        }

    @classmethod
    def from_dict(cls, stored: Any) -> Record:
        """Return what :meth:`to_dict` stored.

        :raises InvalidInput: if it is something else.
        """
        try:
            return cls(
                job_id=guid(stored["job_id"], "job id"),
                asked_at=datetime.fromisoformat(stored["asked_at"]),
                idle=bool(stored["idle"]),
                known=None if stored["known"] is None else tuple(map(str, stored["known"])),
                unnamed=int(stored["unnamed"]),
                clears=Clears(int(stored["max_tries"]), int(stored["clear_number"])),
                trigger_id=None if stored["trigger_id"] is None else guid(stored["trigger_id"], "trigger id"),
                closed=bool(stored["closed"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"it is no record of a submission ({type(error).__name__}: {error})."
            ) from None


@dataclass(frozen=True)
class Found:
    """What a search has come to.

    :ivar trigger_ids: one: the execution; none: surely nothing was queued; several: it cannot be told which.
    """

    trigger_ids: tuple[str, ...]


@dataclass(frozen=True)
class Search:
    """The search for the execution of a request whose receipt is missing, between two looks.

    :ivar run: what is remembered of the job's status.
    :ivar seen: the trigger ids that were unknown at the last look.
    """

    record: Record
    run: Run
    seen: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: Record, start_timeout: float) -> Search:
        """Return a search.

        :param start_timeout: seconds that the job must have been idle to be sure that nothing was queued.
        """
        return cls(record, Run(record.job_id, None, record.asked_at, start_timeout))

    def after(
        self, status: JobStatus, executions: Sequence[Execution], now: datetime
    ) -> tuple[Search, Found | None]:
        """Return the search for the next look, and what it has come to; ``None`` while that is open.

        Times decide nothing between an execution and the next: the server's clock may be wrong, and its
        times may be local ones.

        :param status: the job's status, read *before* the executions.
        :raises ContractError: if an execution has begun of which the log does not tell the trigger id.
        """
        run = self.run.after(status, now, read=True)
        ids = _ids_since(executions, self.record.asked_at)
        known = self.record.known or ()
        new = tuple(id_ for id_ in ids if id_ is not None and id_ not in known)
        search = replace(self, run=run, seen=new)
        if len(new) > 1:
            return search, Found(new)
        # One alone may be somebody else's that was queued before ours, which shows up after it: in the same
        # moment as ours, so that a second look tells, or, if the job was busy, at any time until it is idle.
        if new and new == self.seen and (self.record.idle or status.state is JobState.IDLE):
            return search, Found(new)
        if new or not run.has_waited_in_vain(now):
            return search, None
        if ids.count(None) > self.record.unnamed:
            raise ContractError(
                f"The log of job {self.record.job_id} shows an execution without a trigger id. If a member "
                "holds it, override vocabulary.fields.execution.trigger_id in the extra of the connection."
            )
        return search, Found(())


def last_started(executions: Sequence[Execution], since: datetime | None) -> Execution | None:
    """Return the execution with a trigger id that started last, ``None`` if none did since a moment."""
    started = [
        (execution.start, execution)
        for execution in executions
        if execution.trigger_id not in (None, BLANK_GUID) and execution.start is not None
    ]
    last, execution = max(started, key=lambda pair: pair[0], default=(None, None))
    return execution if last is not None and (since is None or last >= since) else None


def _ids_since(executions: Sequence[Execution], moment: datetime) -> list[str | None]:
    """Return the trigger ids of the executions that did not start long before a moment, nor by hand."""
    return [
        execution.trigger_id
        for execution in executions
        if execution.trigger_id != BLANK_GUID
        and (execution.start is None or execution.start > moment - _LONG_AGO)
    ]
