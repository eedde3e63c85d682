"""What the API's answers mean for one execution: the only place where success or failure is decided.

Two facts of the API shape everything here (both documented): a job's status says what the *job* does,
not one execution of it, and it falls back to "idle" when an execution finishes *or fails*. So only the
execution found under the trigger id says how it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from airflow_provider_timextender.api import Execution, ExecutionState, JobState, JobStatus
from airflow_provider_timextender.errors import (
    ContractError,
    JobFailed,
    JobNeverStarted,
)

ERROR_LINES = 10
"""How many of its last error lines a failed execution's message shows."""

_LINE_LENGTH = 500


@dataclass(frozen=True)
class Run:
    """One execution that was asked for: all that is needed to follow it from anywhere.

    :ivar asked_at: when its start was asked for, or when the wait for it began.
    :ivar start_timeout: seconds that an idle job may show no execution before it counts as never started.
    :ivar active_at: when the job was last seen pending or running; ``None`` if never.
    """

    job_id: str
    trigger_id: str
    asked_at: datetime
    start_timeout: float = 600
    active_at: datetime | None = None

    def seen(self, status: JobStatus, now: datetime) -> Run:
        """Return the run with what a status adds to its memory.

        A log may show an execution only after it has ended, and late; then the start timeout counts
        from the moment at which the job was last seen active, not from the submission.
        """
        return replace(self, active_at=now) if status.state in _ACTIVE else self


_ACTIVE = (JobState.PENDING, JobState.RUNNING)
_ENDED = (ExecutionState.SUCCEEDED, ExecutionState.FAILED)


@dataclass(frozen=True)
class Waiting:
    """Not over.

    :ivar state: one word: pending, running, idle, or unknown if the API's word is in no table.
    :ivar why: the whole sentence.
    """

    state: str
    why: str


@dataclass(frozen=True)
class Succeeded:
    """TimeXtender says that this execution succeeded."""

    execution: Execution


@dataclass(frozen=True)
class Failed:
    """TimeXtender says that this execution failed."""

    execution: Execution
    why: str


@dataclass(frozen=True)
class NeverStarted:
    """The job is idle and no execution has shown up for the whole start timeout."""

    why: str


Verdict = Waiting | Succeeded | Failed | NeverStarted


def wants_logs(status: JobStatus, look: int) -> bool:
    """Tell whether the execution's log is worth asking for at this look (0, 1, 2, ...).

    A busy job is usually busy with our execution, so its log is read at every second look only; that
    still shows our end within two looks when another execution keeps the job busy.
    """
    return look % 2 == 0 or status.state not in _ACTIVE


def judge(run: Run, status: JobStatus, executions: Sequence[Execution], now: datetime) -> Verdict:
    """Judge a run by what was last seen of it.

    :param status: the job's status, read *before* the executions.
    :param executions: what stands in the log under the run's trigger id; empty if nothing does, or if
        the log was not asked for.
    :param now: the time at which the status was read.
    :raises ContractError: if the execution has ended in a way that is in no table, or if several stand
        under the trigger id. Such an end is neither success nor failure.
    """
    if len(executions) > 1:
        raise ContractError(
            f"{len(executions)} executions stand under trigger id {run.trigger_id} of job {run.job_id}, "
            "where the API promises one. Their outcome is not guessed."
        )
    if executions:
        return judge_execution(executions[0])
    if (waiting := judge_job(status)) is not None:
        return waiting
    idle = (now - (run.active_at or run.asked_at)).total_seconds()
    if idle < run.start_timeout:
        return Waiting("idle", "The job is idle, and its log does not show the execution (yet).")
    return NeverStarted(
        f"TimeXtender job {run.job_id} has been idle for {for_people(idle)} and its log shows no "
        f"execution under trigger id {run.trigger_id}: it was asked for, but never started, or its log "
        "was removed. Look at the job in TimeXtender."
    )


def judge_job(status: JobStatus) -> Waiting | None:
    """Judge whether a job is busy; ``None`` means that it is idle, and nothing about any execution."""
    if status.state is None:
        return Waiting("unknown", f"The job's status was not understood: {status.problem}")
    if status.state in _ACTIVE:
        return Waiting(status.state.value, f"The job is {status.state.value}.")
    return None


def judge_execution(execution: Execution) -> Waiting | Succeeded | Failed:
    """Judge an execution by its own state alone.

    :raises ContractError: if it has ended in a way that is in no table.
    """
    if execution.state is ExecutionState.SUCCEEDED:
        return Succeeded(execution)
    if execution.state is ExecutionState.FAILED:
        return Failed(execution, _why_failed(execution))
    if execution.state is ExecutionState.RUNNING:
        return Waiting("running", "The execution is running.")
    if execution.end is None:
        return Waiting("unknown", f"The execution's state was not understood: {execution.problem}")
    raise ContractError(
        f"The execution of TimeXtender job {execution.job_id} under trigger id {execution.trigger_id} "
        f"ended at {execution.end.isoformat()}, but it is not known how: {execution.problem}"
    )


def _why_failed(execution: Execution) -> str:
    lines = [
        f"TimeXtender job {execution.job_id} failed (trigger id {execution.trigger_id}): "
        f"{(execution.message or 'TimeXtender gave no message.')[:_LINE_LENGTH]}"
    ]
    errors = [log.message[:_LINE_LENGTH] for log in execution.logs if log.level >= 40]
    if errors:
        lines.append("Its last error lines:")
        lines.extend(f"  {line}" for line in errors[-ERROR_LINES:])
    return "\n".join(lines)


def conclude(verdict: Succeeded | Failed | NeverStarted) -> Execution:
    """Return the execution of a success, and raise what else a final verdict says.

    :raises JobFailed: for :class:`Failed`. :raises JobNeverStarted: for :class:`NeverStarted`.
    """
    if isinstance(verdict, Failed):
        raise JobFailed(verdict.why)
    if isinstance(verdict, NeverStarted):
        raise JobNeverStarted(verdict.why)
    return verdict.execution


def last_completed(executions: Sequence[Execution], after: datetime) -> Execution | None:
    """Return the execution that ended last, at ``after`` or later; ``None`` if none did.

    :raises ContractError: if an execution has ended and its end time is not known.
    """
    completed = []
    for execution in executions:
        if execution.state is ExecutionState.RUNNING:
            continue
        if execution.end is None and execution.state in _ENDED:
            raise ContractError(
                f"An execution of TimeXtender job {execution.job_id} has ended, but no end time is "
                "known, so that it cannot be told whether it counts. If another member holds the time, "
                "override vocabulary.fields.execution.end in the extra of the connection."
            )
        if execution.end is not None and execution.end >= after:
            completed.append((execution.end, execution))
    return max(completed, key=lambda pair: pair[0])[1] if completed else None


def for_people(seconds: float) -> str:
    """Say a duration as people do: ``2 h 0 min``, ``3 min 20 s``, ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
