"""What is remembered of a submission, and what that tells when its receipt is missing.

The API has no way to submit a job at most once: a request that is sent twice runs the load twice, and whoever
loses the answer to it, or dies before the answer is kept, cannot ask for it again. What helps is that each
execution has a trigger id of its own (documented): what the job's log shows later, and did not show before
the request, has begun since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple, get_args

from airflow_provider_timextender.errors import ContractError, InvalidInput
from airflow_provider_timextender.model import AsDict, Execution, ExecutionState, JobStatus, canonical, guid
from airflow_provider_timextender.verdict import LONG_BEFORE, Run
from airflow_provider_timextender.vocabulary import override_hint

MOST_KNOWN = 1000
"""How many trigger ids a record holds: it stays below the 64 KB that Airflow takes in any database."""


Stage = Literal["asked", "queued", "done", "uncertain"]
"""How far a submission is: about to be sent, known to be queued, over with success, or unclear for good."""


class Move(NamedTuple):
    """A way of a submission from one stage to another; ``None`` is that of nothing queued."""

    before: Stage | None
    by: str
    after: Stage | None


MOVES = (
    Move(None, "the request is about to be sent", "asked"),
    Move("asked", "its receipt, or a search that finds one execution begun since", "queued"),
    Move("asked", "refused, surely not sent, or a search that finds nothing begun", None),
    Move("asked", "a search that cannot tell", "uncertain"),
    Move(None, "attached to a running execution", "queued"),
    Move("queued", "another try goes on with it", "queued"),
    Move("queued", "succeeded, or not waited for", "done"),
    Move("queued", "failed, or never started", None),
    Move("done", "cleared", None),
    Move("uncertain", "cleared", None),
)
"""All ways that there are: :func:`check_move` refuses any other."""


def check_move(before: Stage | None, after: Stage | None) -> None:
    """Refuse a way that is not in :data:`MOVES`: it would lose or double an execution.

    :raises RuntimeError: if it is none.
    """
    if not any((move.before, move.after) == (before, after) for move in MOVES):
        raise RuntimeError(f"A submission cannot go from {before or 'nothing'} to {after or 'nothing'}.")


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

    @property
    def first(self) -> int:
        """The number of the first since the task was cleared, or of the first of all."""
        return self.most - self.retries + 1

    def is_first(self) -> bool:
        """Tell whether it is that one."""
        return self.number in (1, self.first)


@dataclass(frozen=True)
class Record(AsDict):
    """A submission, as it is kept over the tries of a task.

    :ivar asked_at: the moment before the request was sent.
    :ivar hidden: the job was busy then with something that its log did not show.
    :ivar known: the trigger ids of its log then; ``None`` if the log could not be read, or shows too many.
    :ivar unnamed: how many executions in it had none.
    :ivar since: what started then or before, by the server's clock, is older than ``known``; ``None`` if all
        is in there.
    :ivar former: the trigger ids of what earlier tries have queued.
    :ivar given: the job's id or name, as the task was given it.
    :ivar number: the try that has sent the request; see :class:`Tries`.
    :ivar keeper, most, clears: likewise, but of the try that has kept the record last.
    :ivar job_name: the job's name, if it was known.
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
    since: datetime | None = None
    former: tuple[str, ...] = ()
    keeper: int = 0
    job_name: str | None = None

    @classmethod
    def of(
        cls,
        job_id: str,
        executions: Sequence[Execution] | None,
        tries: Tries,
        now: datetime,
        *,
        busy: bool,
        given: str,
        former: Sequence[str] = (),
        job_name: str | None = None,
    ) -> Record:
        """Return the record of a request that is about to be sent, after a look at its job.

        :param busy: whether the job was busy when its log had been read.
        :param former: the trigger ids of what earlier tries have queued: the log may be to show them yet.
        """
        starts = sorted(e.start for e in executions or () if e.start is not None)
        since = starts[-1] - LONG_BEFORE if starts else None
        recent = _younger(executions or (), since)
        possible = _possible(recent, since)
        if len(possible) > MOST_KNOWN and len(starts) > MOST_KNOWN and starts[-1] > starts[-1 - MOST_KNOWN]:
            # By its own clock, what a server starts next starts after all that it has started before.
            since = max(starts[-1] - LONG_BEFORE, starts[-1 - MOST_KNOWN])
            possible = _possible(possible, since)
        known = executions is not None and len(possible) <= MOST_KNOWN
        ids = dict.fromkeys(canonical(e.trigger_id) for e in possible if e.trigger_id is not None)
        return cls(
            job_id=job_id,
            asked_at=now,
            hidden=busy and not any(is_unended(e) and e.trigger_id for e in recent),
            known=tuple(ids) if known else None,
            unnamed=sum(e.trigger_id is None for e in possible),
            given=given,
            number=tries.number,
            keeper=tries.number,
            most=tries.most,
            clears=tries.clears,
            since=since,
            former=tuple(former),
            job_name=job_name,
        )

    def was_cleared(self, tries: Tries) -> bool:
        """Tell whether somebody has cleared the task since the record was kept."""
        # The number of clears alone may be another task's; the number of tries alone may be the same as
        # before, if the task has fewer retries now.
        return self.most != tries.most or (
            self.clears != tries.clears and self.keeper < tries.first <= tries.number
        )

    @classmethod
    def from_dict(cls, stored: Any) -> Record:
        """Return what :meth:`~AsDict.to_dict` stored.

        :raises InvalidInput: if it is something else.
        """
        try:
            asked_at = datetime.fromisoformat(stored["asked_at"])
            if "since" not in stored:  # nor was it, or `former`, in 0.1.0, which took its own clock
                stored = {**stored, "since": (asked_at - LONG_BEFORE).isoformat()}
            since = stored["since"]
            record = cls(
                job_id=guid(stored["job_id"], "job id"),
                asked_at=asked_at,
                hidden=bool(stored["hidden"]),
                known=None if stored["known"] is None else tuple(map(str, stored["known"])),
                unnamed=int(stored["unnamed"]),
                given=str(stored["given"]),
                number=int(stored["number"]),
                most=int(stored["most"]),
                clears=int(stored["clears"]),
                stage=_STAGES[stored["stage"]],
                trigger_id=stored["trigger_id"],
                since=None if since is None else datetime.fromisoformat(since),
                former=tuple(map(str, stored.get("former", ()))),
                keeper=int(stored.get("keeper", stored["number"])),
                job_name=stored.get("job_name"),
            )
            if record.stage in ("queued", "done"):
                guid(record.trigger_id, "trigger id")
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
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
        possible = _possible(executions, self.record.since)
        nameless = sum(e.trigger_id is None for e in possible)
        known = {*(self.record.known or ()), *map(canonical, self.record.former)}
        new = tuple(
            e.trigger_id
            for e in possible
            if e.trigger_id is not None and canonical(e.trigger_id) not in known
        )
        search = replace(self, run=run)
        # One that had no id in the log when the request was sent, and has one now, looks new.
        if len(new) > 1 or (new and (self.record.hidden or nameless < self.record.unnamed)):
            return search, Unclear(new)
        # While the job is busy, ours may still wait behind one that somebody else has queued just before it.
        if new and run.is_settled(now):
            return search, Adopted(new[0])
        if new or not run.has_waited_in_vain(now):
            return search, None
        if nameless > self.record.unnamed:
            raise ContractError(
                "its log shows an execution without a trigger id. "
                f"{override_hint('it', 'execution.trigger_id')}"
            )
        return search, NotQueued()


def is_unended(execution: Execution) -> bool:
    """Tell whether an execution still runs, as far as its log says."""
    return execution.end is None and execution.state in (ExecutionState.RUNNING, None)


def last_started(executions: Sequence[Execution], since: datetime | None) -> Execution | None:
    """Return the execution that started last and not by hand, ``None`` if none did since a moment.

    One of which it is not known when comes last, unless it has failed.
    """
    for timeless in executions:
        if timeless.start is None and not timeless.by_hand and timeless.state is not ExecutionState.FAILED:
            return timeless
    started = [(e.start, e) for e in executions if not e.by_hand and e.start is not None]
    last, execution = max(started, key=lambda pair: pair[0], default=(None, None))
    return execution if last is not None and (since is None or last >= since) else None


def _possible(executions: Sequence[Execution], since: datetime | None) -> list[Execution]:
    """Return the executions that may have come of a request, or be taken for one that has."""
    return [execution for execution in _younger(executions, since) if not execution.by_hand]


def _younger(executions: Sequence[Execution], since: datetime | None) -> list[Execution]:
    """Return the executions that are not known to have started by a moment of the server's clock."""
    return [e for e in executions if since is None or e.start is None or e.start > since]
