"""What the API's answers mean for one execution: the only place where success or failure is decided.

Two facts of the API shape everything here (both documented): a job's status says what the *job* does,
not one execution of it, and it falls back to "idle" when an execution finishes *or fails*. So only the
execution found under the trigger id says how it ended.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from airflow_provider_timextender import errors
from airflow_provider_timextender.model import (
    Execution,
    ExecutionState,
    JobState,
    JobStatus,
    parse_time,
    plain,
)
from airflow_provider_timextender.naming import Of
from airflow_provider_timextender.vocabulary import override_hint

LOG_LAG = 30.0
"""Seconds by which a log may be late: for so long an idle job is watched before its log is believed."""

SWEEP_RATE = 100_000
"""Bytes a second that are read at most, on average, of logs of which nothing tells that they show more."""

SWEEP_AFTER = 24 * 3600.0
"""Seconds after which such a log is read again whatever it takes."""

_WHY_BYTES = 1400
"""The longest explanation of a failure: it also travels in a trigger's event, which has to stay small."""

_TEXT_BYTES = 500
"""The longest message of TimeXtender's, or problem with it, in a result."""

_NAME_BYTES = 300
"""The longest name of a job in a result: with all else, an event stays below 2 KB."""

_ID_BYTES = 80
"""The longest id in an event: people may have taken anything for one."""

_ACTIVE = (JobState.PENDING, JobState.RUNNING)


def may_have_ended(before: JobState | None, now: JobState | None) -> bool:
    """Tell whether a change of a job's status may be the end of an execution, and not just a beginning."""
    begins = before in (JobState.IDLE, JobState.PENDING) and now in _ACTIVE
    return before is not now and not begins


def rest_of(size: int, sharers: int = 1) -> float:
    """Return for how many seconds a log of so many bytes is left alone while its job's status is the same.

    :param sharers: how many such logs are read in turn.
    """
    return min(size * sharers / SWEEP_RATE, SWEEP_AFTER)


@dataclass(frozen=True)
class Run:
    """What is waited for, from wherever, and what is remembered of it between two looks.

    With ``trigger_id`` it is that execution; with ``completed_after`` an execution of the job that ends at
    that time or later; with neither, an idle job.

    :ivar asked_at: when its start was asked for, or when the wait for it began.
    :ivar start_timeout: seconds that an idle job may show no execution before it counts as never started.
    :ivar active_at: when the job was last seen pending or running; ``None`` if never.
    :ivar idle_since: from when on every look has seen it idle; ``None`` if the last one has not.
    :ivar state: what the job was last seen doing; ``None`` before the first look.
    :ivar unread: how many looks in a row went without the log.
    :ivar read_at: when it was read last; ``None`` if never. :ivar size: how many bytes it had then.
    :ivar whole: the job's whole log shows the execution, and the one that is filtered by it does not.
    :ivar compared_at: when the whole log was read as well; ``None`` if never.
    :ivar warned: it has been said which executions do not count.
    :ivar resumed: somebody else has waited before, so that the job may have been active unseen.
    :ivar shown_at: when the log last showed the execution; ``None`` if never.
    :ivar endless: what the log shows as over, or cannot be understood, and of which no end is known.
    :ivar endless_since: from when on it has shown just these to an idle job; ``None`` if the job is not idle.
    :ivar job_name: for people; ``None`` if it is not known.
    """

    job_id: str
    trigger_id: str | None
    asked_at: datetime
    start_timeout: float = 600
    completed_after: datetime | None = None
    active_at: datetime | None = None
    idle_since: datetime | None = None
    state: JobState | None = None
    unread: int = 0
    read_at: datetime | None = None
    size: int = 0
    whole: bool = False
    compared_at: datetime | None = None
    warned: bool = False
    resumed: bool = False
    shown_at: datetime | None = None
    endless: tuple[str, ...] = ()
    endless_since: datetime | None = None
    job_name: str | None = None

    def wants_log(self, status: JobStatus, looks: int, now: datetime) -> bool:
        """Tell whether the log is worth asking for, now that the job's status has been read.

        That of our execution is whenever the job's status has changed, and while the execution should show
        up in it. The whole log is when something may have ended, and once more when it is late no longer.

        Else it is read after so many looks only, and the larger it is, the less often. That still shows an
        end when another execution keeps the job busy, and what begins and ends between two looks.
        """
        if self.trigger_id is None:
            if self.completed_after is None:
                return False
            wanted = may_have_ended(self.state, status.state) or self._is_late_no_longer(status, now)
        else:
            wanted = status.state is not self.state or status.state not in _ACTIVE
        rests = self.read_at is not None and (now - self.read_at).total_seconds() < rest_of(self.size)
        return wanted or looks == 1 or (self.unread + 1 >= looks and not rests)

    def _is_late_no_longer(self, status: JobStatus, now: datetime) -> bool:
        """Tell whether the log of an idle job, which may have been late when it was read, is not any more."""
        settled = status.state is JobState.IDLE and self._has_lasted(self.idle_since, now)
        return settled and not (self.read_at and self._has_lasted(self.idle_since, self.read_at))

    def after(self, status: JobStatus, now: datetime, *, read: bool) -> Run:
        """Return the run with what a look adds to its memory.

        A log may show an execution only after it has ended, and late; then the start timeout counts
        from the moment at which the job was last seen active, not from the submission.
        """
        return replace(
            self,
            active_at=now if status.state in _ACTIVE else self.active_at,
            idle_since=(self.idle_since or now) if status.state is JobState.IDLE else None,
            state=status.state,
            unread=0 if read else self.unread + 1,
            endless_since=self.endless_since if status.state is JobState.IDLE else None,
        )

    def after_log(self, executions: Sequence[Execution], now: datetime) -> Run:
        """Return the run with what a look into the log adds to its memory."""
        ours = [e for e in executions if self.trigger_id is not None and e.is_under(self.trigger_id)]
        endless = tuple(
            f"{e.trigger_id} {e.start}"
            for e in (executions if self.trigger_id is None else ours)
            if e.end is None and e.state is not ExecutionState.RUNNING and self.counts(e)
        )
        same = endless == self.endless and self.endless_since is not None
        since = None if self.idle_since is None else self.endless_since if same else now
        return replace(
            self,
            read_at=now,
            shown_at=now if ours else self.shown_at,
            endless=endless,
            endless_since=since,
        )

    def counts(self, execution: Execution) -> bool:
        """Tell whether an execution without an end may be one that is waited for, by its start."""
        after = self.completed_after
        return after is None or execution.start is None or execution.start >= after

    def _has_lasted(self, since: datetime | None, now: datetime) -> bool:
        """Tell whether something has been so for as long as a log may be late."""
        return since is not None and (now - since).total_seconds() >= min(self.start_timeout, LOG_LAG)

    def is_over_without_end(self, now: datetime) -> bool:
        """Tell whether what has no end has been shown to an idle job for so long that it will get none."""
        return self._has_lasted(self.endless_since, now)

    def doubts_the_filter(self, now: datetime) -> bool:
        """Tell whether a log that shows nothing under the trigger id is to be compared with the whole one.

        A server may compare ids in its own way, or not serve the filtered log at all.
        """
        if self.compared_at is None:
            # Others may keep the job busy for hours when ours is long over.
            late = (now - self.asked_at).total_seconds() >= self.start_timeout
            return late or self.is_settled(now)
        once_more = self.idle_since is not None and self.compared_at < self.idle_since
        return self.has_waited_in_vain(now) or (once_more and self.is_settled(now))

    def idle_for(self, now: datetime) -> float:
        """Return for how many seconds the job has done nothing, as far as is known."""
        return (now - (self.active_at or self.asked_at)).total_seconds()

    def is_settled(self, now: datetime) -> bool:
        """Tell whether a job has been watched idle for so long that its log is no longer late."""
        return self._has_lasted(self.idle_since, now)

    def has_waited_in_vain(self, now: datetime) -> bool:
        """Tell whether an idle job would have shown an execution by now."""
        # Nobody may have looked for a long time; then the log gets a moment to show what it is late with.
        # What it has shown before may be hidden by one odd answer.
        missed = (now - (self.shown_at or self.asked_at)).total_seconds()
        long = min(self.idle_for(now), missed) >= self.start_timeout
        return long and self.is_settled(now)


@dataclass(frozen=True)
class Waiting:
    """Not over.

    :ivar state: one word: pending, running, idle, or unknown if the API's word is in no table.
    :ivar why: the whole sentence.
    :ivar settles: it only has to be seen whether the job stays idle for :data:`LOG_LAG`.
    """

    state: str
    why: str
    settles: bool = False


@dataclass(frozen=True)
class Succeeded:
    """TimeXtender says that this execution succeeded."""

    execution: Execution


@dataclass(frozen=True)
class Failed:
    """TimeXtender says that this execution failed.

    :ivar why: its own message, and ``error_lines`` the last of the log: as much as an event takes.
    """

    execution: Execution
    why: str
    error_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class NeverStarted:
    """The job is idle and no execution has shown up for the whole start timeout."""

    why: str


@dataclass(frozen=True)
class Idle:
    """The job does nothing, where only that was waited for. It says nothing about any execution."""

    job_id: str


Final = Succeeded | Failed | NeverStarted | Idle
Verdict = Waiting | Final


def judge(run: Run, status: JobStatus, executions: Sequence[Execution], now: datetime) -> Verdict:
    """Judge a run by what was last seen of it.

    :param status: the job's status, read *before* the executions.
    :param executions: what the job's log shows: the whole log if the job was asked for in vain; empty if it
        was not read.
    :param now: the time at which the status was read.
    :raises ContractError: if nothing that the log shows can be understood as the end that it must be, or if
        several executions stand under the trigger id. Such an end is neither success nor failure.
    """
    if run.completed_after is not None:
        return _judge_since(run, run.completed_after, status, executions, now)
    if run.trigger_id is None:
        return judge_job(status) or Idle(run.job_id)
    ours = [execution for execution in executions if execution.is_under(run.trigger_id)]
    if len(ours) > 1:
        raise errors.ContractError(
            f"{len(ours)} executions stand under its trigger id, where the API promises one. Their outcome "
            "is not guessed."
        )
    idle_long = status.state is JobState.IDLE and run.idle_for(now) >= run.start_timeout
    if ours:
        # A server may spell the id otherwise than it has in its receipt.
        execution = replace(ours[0], trigger_id=run.trigger_id)
        return _judge_early(run, status, execution, now) or _judge_ours(run, execution, idle_long, now)
    if (waiting := judge_job(status)) is not None:
        return waiting
    if not run.has_waited_in_vain(now):
        why = "The job is idle, and its log does not show the execution (yet)."
        return Waiting("idle", why, idle_long and run.shown_at is None)
    return _judge_absence(run, executions, now)


def _judge_ours(run: Run, execution: Execution, idle_long: bool, now: datetime) -> Verdict:
    """Judge an execution by its state, which a job that does nothing may leave open for ever."""
    verdict = judge_execution(execution)
    if not (idle_long and isinstance(verdict, Waiting) and verdict.state == "unknown"):
        return verdict
    if not run.is_over_without_end(now):
        return replace(verdict, settles=True)
    raise errors.ContractError(
        f"it has been idle for {for_people(run.idle_for(now))}, so that its execution is over, but it is not "
        f"known how: {execution.problem}"
    )


def _judge_early(run: Run, status: JobStatus, execution: Execution, now: datetime) -> Waiting | None:
    """Judge an execution that is over by its state alone, which may be set before the end."""
    if not execution.is_over or execution.end is not None or run.is_over_without_end(now):
        return None
    said = execution.state.value if execution.state else "over"
    why = (
        f"The execution is said to be {said}, and no end is known: it counts when the job stays idle. "
        f"{_why_no_end([execution])}"
    )
    if status.state is None:
        return Waiting("unknown", f"{why} The job's status was not understood: {status.problem}")
    return Waiting("ending", why, run.idle_since is not None)


def _why_no_end(executions: Sequence[Execution]) -> str:
    """Say why no end is known of some executions, as far as they tell, or what may be done."""
    told = (execution.end_problem for execution in executions if execution.end_problem)
    return next(told, override_hint("the end", "execution.end"))


def _judge_since(
    run: Run, after: datetime, status: JobStatus, executions: Sequence[Execution], now: datetime
) -> Verdict:
    """Judge by the execution that ended last since a moment."""
    try:
        completed = last_completed(executions, after)
    except errors.ContractError as error:
        if run.is_over_without_end(now):
            raise
        return Waiting("ending", str(error), run.idle_since is not None)
    if completed is not None:
        return _judge_early(run, status, completed, now) or judge_execution(completed)
    if (waiting := judge_job(status)) is not None:
        return waiting
    why = f"No execution has ended since {after.isoformat()}."
    if unclear := [e for e in executions if e.state is None and not e.is_over and run.counts(e)]:
        why += f" One has begun whose state was not understood: {unclear[0].problem}"
        late = run.idle_for(now) >= run.start_timeout
        if late and run.is_over_without_end(now):
            raise errors.ContractError(f"it is idle. {why}")
        return Waiting("unknown", why, late)
    if ends := [execution.end for execution in executions if execution.end is not None]:
        why += (
            f" The last end that the log shows is {max(ends).isoformat()}. If that is not so, and the API's "
            "times have no offset, set timezone in the extra of the connection."
        )
    return Waiting("idle", " ".join(filter(None, (why, say_passed_over(executions, after)))))


def _judge_absence(run: Run, executions: Sequence[Execution], now: datetime) -> NeverStarted:
    """Judge that the whole log of an idle job shows no execution under the trigger id."""
    idle = f"it has been idle for {for_people(run.idle_for(now))}"
    nothing = "its log shows no execution under the trigger id"
    recent = [e for e in executions if e.start is None or e.start > run.asked_at - LONG_BEFORE]
    nameless = [e for e in recent if e.trigger_id is None]
    if nameless:
        raise errors.ContractError(
            f"{idle}, and {nothing}, but {len(nameless)} of which neither the execution nor its entries tell "
            "one trigger id. So it is not known whether one of them is the one that was asked for. "
            f"{override_hint('the id', 'execution.trigger_id or .log.trigger_id')}"
        )
    begun = [e for e in recent if e.start is None or e.start >= run.asked_at - ASKED_BEFORE]
    if run.active_at is not None or run.shown_at is not None or run.resumed or begun:
        others = ", ".join(str(e.trigger_id) for e in begun[-5:]) or "none"
        raise errors.ContractError(
            f"{idle}, but it has run since the execution was asked for, or may have, and {nothing}. What may "
            f"have begun since: {others}. So it is not known whether that one has run, nor how it ended. "
            f"Look in TimeXtender. {override_hint('the trigger id', 'execution.trigger_id')}"
        )
    return NeverStarted(
        f"{idle} and {nothing}: it was asked for, but never started, or its log was removed. Look at the job "
        "in TimeXtender."
    )


ASKED_BEFORE = timedelta(minutes=1)
"""For how long a request may have been on its way before its receipt, two clocks included."""

LONG_BEFORE = timedelta(days=1)
"""What started so long before a request, or before the youngest execution then, has not come of it."""


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
        return _failed(execution)
    if execution.state is ExecutionState.RUNNING:
        return Waiting("running", "The execution is running.")
    if not execution.is_over:
        return Waiting("unknown", f"The execution's state was not understood: {execution.problem}")
    ended = f" at {execution.end.isoformat()}" if execution.end else ""
    raise errors.ContractError(
        f"the execution ended{ended}, but it is not known how: {execution.problem}"
    ).about(Of(trigger_id=execution.trigger_id))


def _failed(execution: Execution) -> Failed:
    why = _shown(execution.message or "TimeXtender gave no message.", _TEXT_BYTES)
    errors = [log.message for log in execution.last_errors]
    lines: list[str] = []
    for number, line in enumerate(errors):
        left = _WHY_BYTES - len(json.dumps([why, *lines]))
        lines.append(_shown(line, left // (len(errors) - number) - len('"", ')))
    return Failed(execution, why, tuple(lines))


def _shown(text: str, size: int) -> str:
    """Return a text as a message shows it, of at most so many bytes as JSON."""
    return shorten(plain(text[:_WHY_BYTES]), size)


def shorten(text: str, size: int) -> str:
    """Return the start of a text that takes at most so many bytes as JSON."""
    used = list(accumulate(len(json.dumps(character)) - 2 for character in text))
    return text[: bisect_right(used, size - 3)] + "..." if used and used[-1] > size else text


def conclude(verdict: Final, job_name: str | None = None) -> dict[str, Any]:
    """Return as plain JSON what a success is, and raise what else a final verdict says.

    :return: as :func:`result`.
    :raises JobFailed: for :class:`Failed`. :raises JobNeverStarted: for :class:`NeverStarted`.
    """
    if isinstance(verdict, Failed):
        one = verdict.execution
        failed = errors.JobFailed(verdict.why, error_lines=verdict.error_lines, start=one.start, end=one.end)
        raise failed.about(Of(one.job_id, job_name, one.trigger_id))
    if isinstance(verdict, NeverStarted):
        raise errors.JobNeverStarted(verdict.why)
    if isinstance(verdict, Idle):
        nothing = Execution(verdict.job_id, None, None)
        return {**result(nothing, job_name), "state": JobState.IDLE.value}
    return result(verdict.execution, job_name)


def result(execution: Execution, job_name: str | None) -> dict[str, Any]:
    """Return as plain JSON what is told of an execution, with texts of a limited length.

    :return: ``{"job_id", "job_name", "trigger_id", "state", "start", "end", "duration", "message",
        "problem"}``.
    """
    told = execution.to_dict()
    texts = {name: told[name] and _shown(told[name], _TEXT_BYTES) for name in ("message", "problem")}
    return {"job_id": told.pop("job_id"), "job_name": _cut(job_name, _NAME_BYTES), **told, **texts}


def _cut(text: str | None, size: int) -> str | None:
    return text and shorten(str(text), size)


def event_of(error: errors.TimeXtenderError) -> dict[str, Any]:
    """Return as plain JSON what a trigger tells of an error: :func:`result_of` raises it."""
    told: dict[str, Any] = {
        "job_id": _cut(error.job_id, _ID_BYTES),
        "job_name": _cut(error.job_name, _NAME_BYTES),
        "trigger_id": _cut(error.trigger_id, _ID_BYTES),
        "error": type(error).__name__,
        "message": shorten(error.reason, _WHY_BYTES),
    }
    if isinstance(error, errors.JobError):
        told["error_lines"] = list(error.error_lines)
        for name, time in (("start", error.start), ("end", error.end)):
            told[name] = time.isoformat() if time else None
    return told


def _error_of(event: Mapping[str, Any]) -> errors.TimeXtenderError:
    kind, message = errors.named(str(event["error"])), str(event.get("message"))
    of = Of(event.get("job_id"), event.get("job_name"), event.get("trigger_id"))
    if kind is None:
        return errors.TimeXtenderError(f"{event['error']}: {message}").about(of)
    if not issubclass(kind, errors.JobError):
        return kind(message).about(of)
    # 0.1.0 has told the message with the job and the ids in it.
    message = message.removeprefix(f"TimeXtender job {of.job_id} failed (trigger id {of.trigger_id}): ")
    start, end = (parse_time(event.get(name)) for name in ("start", "end"))
    return kind(message, error_lines=event.get("error_lines", ()), start=start, end=end).about(of)


def result_of(event: Any, *states: str) -> dict[str, Any]:
    """Return the result that a trigger's event tells, and raise the error that it tells.

    :param states: which states are a success for whoever waited.
    :raises ContractError: if the event is none of ours.
    """
    if isinstance(event, Mapping):
        if "error" in event:
            raise _error_of(event)
        if event.get("state") in states and {"job_id", "trigger_id"} <= set(event):
            return dict(event)
    raise errors.ContractError(f"The trigger's event is not understood: {event!r}.")


def last_completed(executions: Sequence[Execution], after: datetime) -> Execution | None:
    """Return the execution that ended last, at ``after`` or later; ``None`` if none did.

    One that began later has ended later, too, whatever is known of its end. One that began before, and of
    which no end is known, does not count (:func:`say_passed_over`).

    :raises ContractError: if no time of any execution is known, or if it cannot be told which of several with
        different outcomes ended last.
    """
    over = [execution for execution in executions if execution.is_over]
    if over and not any(execution.end or execution.start for execution in executions):
        hint = over[0].end_problem or override_hint("their times", "execution.start and .end")
        raise errors.ContractError(f"{len(over)} of its executions have ended, and nobody knows when. {hint}")
    timed = [(execution.end or execution.start, execution) for execution in over]
    completed = [(moment, execution) for moment, execution in timed if moment and moment >= after]
    last = max((moment for moment, _ in completed), default=None)
    latest = [execution for moment, execution in completed if moment == last]
    # An end that is not known may be the last; of equal ends, each may be.
    unknown = any(execution.end is None for _, execution in completed)
    candidates = [execution for _, execution in completed] if unknown else latest
    if len({execution.state for execution in candidates}) > 1:
        raise errors.ContractError(
            f"{len(completed)} of its executions have begun or ended since {after.isoformat()}, and their "
            "ends are not known, or equal, so that it cannot be told which of them ended last. "
            f"{override_hint('the ends', 'execution.end')}"
        )
    return latest[-1] if latest else None  # of which the log is kept


def say_passed_over(executions: Sequence[Execution], after: datetime) -> str | None:
    """Say which executions do not count because no end is known of them; ``None`` if there are none."""
    without_end = [
        e
        for e in executions
        if e.state is not ExecutionState.RUNNING and e.end is None and not (e.start and e.start >= after)
    ]
    if not without_end:
        return None
    return (
        f"{len(without_end)} that began before, or nobody knows when, have no end time, and do not count. "
        f"{_why_no_end(without_end)}"
    )


def for_people(seconds: float) -> str:
    """Say a duration as people do: ``2 h 0 min``, ``3 min 20 s``, ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
