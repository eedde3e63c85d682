"""What is remembered of a submission, and what that tells when its receipt is missing.

The API has no way to submit a job at most once: a request that is sent twice runs the load twice, and whoever
loses the answer to it, or dies before the answer is kept, cannot ask for it again. What helps is that each
execution has a trigger id of its own (documented): what the job's log shows later, and did not show before
the request, has begun since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from airflow_provider_timextender.api import (
    BLANK_GUID,
    Execution,
    ExecutionState,
    JobState,
    JobStatus,
    guid,
)
from airflow_provider_timextender.errors import ContractError, InvalidInput
from airflow_provider_timextender.verdict import Run

_LONG_AGO = timedelta(days=1)
"""What started so long before the request is not its execution, whatever the server's clock and time zone."""


Stage = Literal["asked", "queued", "done", "uncertain"]
"""How far a submission is: about to be sent, known to be queued, over with success, or unclear for good."""

_STAGES: Mapping[str, Stage] = {stage: stage for stage in get_args(Stage)}


@dataclass(frozen=True)
class Tries:
    """Which try of a task this is, as far as its worker can see.

    :ivar number: from 1 on. :ivar most: how many there will be at most, which clearing the task changes
        unless it runs: to the number at that time and the task's retries.
    :ivar retries: how many retries the task has now. :ivar clears: how often tasks of the DAG run have been
        cleared, this one or another; 0 where Airflow does not tell.
    """

    number: int
    most: int
    retries: int
    clears: int = 0

    def is_first(self) -> bool:
        """Tell whether it is the first since the task was cleared, or the first of all."""
        return self.number == 1 or self.number == self.most - self.retries + 1


@dataclass(frozen=True)
class Record:
    """A submission, as it is kept over the tries of a task.

    :ivar asked_at: the moment before the request was sent.
    :ivar hidden: the job was busy then with something that its log did not show.
    :ivar known: the trigger ids of its log then; ``None`` if the log could not be read.
    :ivar unnamed: how many executions in it had none.
    :ivar given: the job's id or name, as the task was given it.
    :ivar number: the try that has sent the request; see :class:`Tries`.
    :ivar most, clears: likewise, but of the try that has kept the record last.
    :ivar trigger_id: the execution, if ``stage`` is ``"queued"`` or ``"done"``.
    """

    job_id: str
    asked_at: datetime
    hidden: bool
    known: tuple[str, ...] | None
    unnamed: int
    given: str
    number: int
    most: int
    clears: int
    stage: Stage = "asked"
    trigger_id: str | None = None

    @classmethod
    def of(
        cls,
        status: JobStatus,
        executions: Sequence[Execution] | None,
        tries: Tries,
        now: datetime,
        *,
        given: str,
        former: Sequence[str] = (),
    ) -> Record:
        """Return the record of a request that is about to be sent, after a look at its job.

        :param former: trigger ids that are known besides those that the log shows.
        """
        ids = None if executions is None else _ids_since(executions, now)
        return cls(
            job_id=status.job_id,
            asked_at=now,
            hidden=status.state is not JobState.IDLE and not any(map(is_unended, executions or ())),
            known=None if ids is None else tuple({*former, *(id_ for id_ in ids if id_ is not None)}),
            unnamed=(ids or []).count(None),
            given=given,
            number=tries.number,
            most=tries.most,
            clears=tries.clears,
        )

    def was_cleared(self, tries: Tries) -> bool:
        """Tell whether somebody has cleared the task since the record was kept."""
        # The number of clears alone may be another task's; the number of tries alone may be the same as
        # before, if the task has fewer retries now.
        return self.most != tries.most or (
            self.clears != tries.clears and tries.number > 1 and tries.is_first()
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **asdict(self),
            "asked_at": self.asked_at.isoformat(),
            "known": None if self.known is None else list(self.known),
        }

    @classmethod
    def from_dict(cls, stored: Any) -> Record:
        """Return what :meth:`to_dict` stored.

        :raises InvalidInput: if it is something else.
        """
        try:
            record = cls(
                job_id=guid(stored["job_id"], "job id"),
                asked_at=datetime.fromisoformat(stored["asked_at"]),
                hidden=bool(stored["hidden"]),
                known=None if stored["known"] is None else tuple(map(str, stored["known"])),
                unnamed=int(stored["unnamed"]),
                given=str(stored["given"]),
                number=int(stored["number"]),
                most=int(stored["most"]),
                clears=int(stored["clears"]),
                stage=_STAGES[stored["stage"]],
                trigger_id=stored["trigger_id"],
            )
            if record.stage in ("queued", "done"):
                guid(record.trigger_id, "trigger id")
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"it is no record of a submission ({type(error).__name__}: {error})."
            ) from None
        return record


@dataclass(frozen=True)
class Adopted:
    """This is the execution."""

    trigger_id: str


@dataclass(frozen=True)
class NotQueued:
    """Surely nothing was queued."""


@dataclass(frozen=True)
class Unclear:
    """These may be the execution, or none of them."""

    trigger_ids: tuple[str, ...]


Outcome = Adopted | NotQueued | Unclear


@dataclass(frozen=True)
class Search:
    """The search for the execution of a request whose receipt is missing, between two looks.

    :ivar run: what is remembered of the job's status.
    """

    record: Record
    run: Run

    @classmethod
    def of(cls, record: Record, start_timeout: float, now: datetime) -> Search:
        """Return a search that begins now.

        :param start_timeout: seconds that the job must have been idle to be sure that nothing was queued;
            what it has done before the search is not known.
        """
        return cls(record, Run(record.job_id, None, now, start_timeout))

    def after(
        self, status: JobStatus, executions: Sequence[Execution], now: datetime
    ) -> tuple[Search, Outcome | None]:
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
        search = replace(self, run=run)
        if len(new) > 1 or (new and self.record.hidden):
            return search, Unclear(new)
        # While the job is busy, ours may still wait behind one that somebody else has queued just before it.
        if new and run.is_settled(now):
            return search, Adopted(new[0])
        if new or not run.has_waited_in_vain(now):
            return search, None
        if ids.count(None) > self.record.unnamed:
            raise ContractError(
                f"The log of job {self.record.job_id} shows an execution without a trigger id. If a member "
                "holds it, override vocabulary.fields.execution.trigger_id in the extra of the connection."
            )
        return search, NotQueued()


def is_unended(execution: Execution) -> bool:
    """Tell whether an execution still runs, as far as its log says."""
    return execution.end is None and execution.state in (ExecutionState.RUNNING, None)


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
