"""The life of a task: queue a job once, and follow its execution to the end.

Every loop in which a task waits stands here, and so does the one retry rule. They are coroutines that touch
the world only through a :class:`World`: a worker's never suspends, so that :func:`run_through` drives them
there; a triggerer's does; and tests have one in which time is a number.

Of what a life knows, only the :class:`~.submission.Record` outlives its process. So a deferral is a planned
death: whatever way a task comes back, :meth:`Life.live` begins again with what was kept.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, Literal, Protocol, TypeVar

from airflow_provider_timextender.errors import (
    ContractError,
    ExecutionTimeout,
    JobBusy,
    JobError,
    Refused,
    ServerError,
    SubmissionUncertain,
    TimeXtenderError,
    Unreachable,
    WaitTimeout,
    about,
)
from airflow_provider_timextender.inputs import span
from airflow_provider_timextender.jobs_api import (
    LIST_OF,
    Call,
    execute_job,
    executions_so_far,
    if_any,
    job_logs,
    job_status,
    known,
)
from airflow_provider_timextender.logs import LastLines
from airflow_provider_timextender.model import (
    BLANK_GUID,
    Execution,
    ExecutionState,
    Job,
    JobState,
    JobStatus,
    Submission,
    canonical,
    find_job,
    job_with,
)
from airflow_provider_timextender.naming import Named, Of, called, said
from airflow_provider_timextender.shown import Shows, show_new, show_rest
from airflow_provider_timextender.submission import (
    Adopted,
    NotQueued,
    Outcome,
    Record,
    Search,
    Tries,
    check_move,
    is_unended,
    last_started,
)
from airflow_provider_timextender.verdict import (
    LOG_LAG,
    Failed,
    Final,
    Run,
    Succeeded,
    Verdict,
    Waiting,
    conclude,
    for_people,
    judge,
    judge_job,
    result_of,
    say_passed_over,
)

T = TypeVar("T")

MAX_PAUSE = 30.0
"""Seconds that pass at most before a worker repeats a read, unless the server asks for more."""

MAX_MOMENT = 10.0
"""Seconds at most that a task lets pass before it takes its turn."""

LOG_PATIENCE = 60.0
"""Seconds for which a log is tried to be read before a job is queued; then it is queued without."""

HOW_TO_DECIDE = (
    "Look in TimeXtender whether the load has run. If it has, mark the task as success; if not, clear it, "
    "which queues the job anew."
)


class World(Shows, Protocol):
    """What a wait may touch.

    :ivar understood: the subjects of calls that have been answered in the right shape before.
    :ivar every: the log of a busy job is read at every so many-th look.
    :ivar longest_pause: seconds that pass at most before a read is repeated, unless the server asks for more.
    :ivar hands_over: the first rest of a wait is its end here, as it goes on in the triggerer.
    """

    understood: set[str]
    longest_pause: float

    @property
    def every(self) -> int: ...  # noqa: D102

    @property
    def hands_over(self) -> bool: ...  # noqa: D102

    def now(self) -> datetime:
        """Return the time, in UTC."""

    async def send(self, call: Call[T]) -> T:
        """Carry a call once."""

    async def jobs(self) -> Sequence[Job]:
        """Ask for all jobs, once."""

    async def status(self, job_id: str) -> tuple[JobStatus, datetime]:
        """Return what a job does, and when that was asked for."""

    async def rest(self, run: Run, limits: Limits) -> None:
        """Let time pass until the next look: a poll interval, or what is left of the wait if that is less."""

    def renew(self) -> None:
        """Read the connection again: its key may have been changed."""

    def show(self, run: Run, seen: Waiting) -> None:
        """Show what is waited for, and what it does now."""


class TaskWorld(World, Protocol):
    """What a life may touch besides.

    :ivar lasts: whether a later try will know what is kept. :ivar tries: which try this is.
    """

    tries: Tries

    @property
    def lasts(self) -> bool: ...  # noqa: D102

    def recall(self) -> Record | None:
        """Return what was kept last, if it was not forgotten.

        :raises SubmissionUncertain: if it cannot be understood.
        """

    def keep(self, record: Record | None) -> None:
        """Keep a record for whoever comes back; ``None`` forgets it."""

    def tell(self, of: Named) -> None:
        """Tell other tasks, and people, what was queued."""

    def show_name(self, of: Named) -> None:
        """Show people which job it is."""


def run_through(life: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose world never suspends: that is all it takes on a worker."""
    try:
        life.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise RuntimeError("A worker's world may not suspend.")


async def repeat(
    world: World,
    attempt: Callable[[], Awaitable[T]],
    *,
    bears: Callable[[TimeXtenderError], bool],
    patience: float,
) -> T:
    """Try something until it succeeds: the retry rule of the package.

    The pauses grow, with full jitter, so that those who fail together do not come back together
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/); a ``Retry-After`` is obeyed.

    :param bears: tells which errors may pass. :param patience: seconds after which none is borne any more.
    """
    end = world.now() + span(patience)
    told = ""
    for number in itertools.count():
        try:
            return await attempt()
        except TimeXtenderError as error:
            pause = max(
                random.uniform(0, min(world.longest_pause, 2.0 ** min(number, 10))), error.retry_after or 0
            )
            if not bears(error) or world.now() + timedelta(seconds=pause) >= end:
                raise
            if str(error) != told:
                told = str(error)
                world.log.warning("Asking again in %.1f s: %s", pause, error)
            if isinstance(error, Refused) and error.of_the_key:
                world.renew()
        await world.sleep(pause)
    raise AssertionError("It is tried without an end.")


def passes(error: TimeXtenderError) -> bool:
    """Tell whether the same read may succeed a moment later."""
    return error.transient


def passes_once_looked(error: TimeXtenderError) -> bool:
    """Tell the same where a look has succeeded before: then a refusal, too, may be that of a maintenance."""
    return error.may_pass


def surely_unsent(error: TimeXtenderError) -> bool:
    """Tell whether nothing of a request can have reached the server, and the next one may."""
    return isinstance(error, Unreachable) and error.transient and not error.sent


def may_have_arrived(error: TimeXtenderError) -> bool:
    """Tell whether a request that was answered with this error may have been taken all the same."""
    return isinstance(error, (ServerError, ContractError)) or (isinstance(error, Unreachable) and error.sent)


async def read(world: World, call: Call[T], *, patience: float) -> T:
    """Carry a call that changes nothing, and repeat it while its error is a passing one.

    :param patience: seconds for which that is done.
    """
    return await repeat(world, partial(world.send, call), bears=passes, patience=patience)


async def submit(world: World, call: Call[T], *, patience: float) -> T:
    """Carry a call that must happen at most once, and repeat it while surely nothing of it has arrived.

    :param patience: seconds for which that is done.
    :raises SubmissionUncertain: if it may have arrived, and the answer does not tell.
    """

    async def ask() -> T:
        try:
            return await world.send(call)
        except TimeXtenderError as error:
            if not may_have_arrived(error):
                raise
            problem = str(error)
        raise SubmissionUncertain(f"It is not known whether the job was queued: {problem}")

    return await repeat(world, ask, bears=surely_unsent, patience=patience)


async def identify(
    world: World,
    given: Of,
    *,
    patience: float,
    bears: Callable[[TimeXtenderError], bool] = passes,
) -> Job:
    """Return the job that is told by an id, a name, or both.

    With an id alone, its name is only for people: it is asked for once, and whatever that comes to is borne.

    :param patience: seconds for which a name is looked for. :param bears: which errors may pass then.
    :raises InvalidInput: unless there is one such job.
    """
    if given.job_name is None:
        with suppress(TimeXtenderError):
            return replace(job_with(await world.jobs(), str(given.job_id)), id=str(given.job_id))
        return Job(str(given.job_id), None)
    jobs = await repeat(world, world.jobs, bears=bears, patience=patience)
    return find_job(jobs, given.job_name, given.job_id)


# --- the wait ---


@dataclass(frozen=True)
class Limits:
    """The limits of a wait.

    :ivar interval: seconds between two looks. :ivar max_unreachable: seconds without one good answer.
    :ivar end: when the last look comes. :ivar over: what is raised if it is not over then.
    """

    interval: float
    max_unreachable: float
    end: datetime
    over: WaitTimeout

    def left(self, now: datetime) -> float:
        """Return the seconds that are left, at least 0."""
        return max(0.0, (self.end - now).total_seconds())


class Wait:
    """A wait for an execution, for one that ends at a given time or later, or for an idle job.

    :ivar run: what is waited for, and what is remembered of it.
    :param looked: a look has succeeded before, here or elsewhere. :param just: it was a moment ago, so that
        the log of a busy job is not worth another look at once.
    :param here: it goes on here until it is over, and is not handed over.
    """

    def __init__(
        self,
        world: World,
        run: Run,
        limits: Limits,
        *,
        looked: bool = False,
        just: bool = False,
        here: bool = False,
    ) -> None:
        self.run = run
        self.looked = looked
        self.seen: Waiting | None = None
        self._ours: Execution | None = None
        self._world = world
        self._limits = limits
        self._just = just
        self._hands_over = world.hands_over and not here
        self._every = 1

    @property
    def left(self) -> float:
        """The seconds that are left of the wait."""
        return self._limits.left(self._world.now())

    async def outcome(self) -> dict[str, Any]:
        """Wait until it is over, and return the result of a success.

        :raises JobError: for all else that it can come to. :raises WaitTimeout: when the wait is over first.
        """
        with about(lambda: self.run):
            return await self.tell(await self.follow())

    async def tell(self, verdict: Final) -> dict[str, Any]:
        """Show what is left of an execution's log, and return or raise what it has come to."""
        if isinstance(verdict, (Succeeded, Failed)):
            await show_rest(self._world, verdict.execution, self.run.job_name)
        return conclude(verdict, self.run.job_name)

    async def follow(self) -> Final:
        """Look until it is over."""
        while True:
            last = not self.left
            # The last look always reads the log: what is over by then is no timeout.
            verdict = await self.look(every=1 if last else self._turn())
            if not isinstance(verdict, Waiting):
                return verdict
            await self.say(verdict)
            if last and not self._hands_over:
                over = self._limits.over
                raise type(over)(f"{over} {verdict.why}")
            await self._world.rest(self.run, self._limits)

    async def look(self, *, every: int, settle: bool = False) -> Verdict:
        """Look once, and judge.

        :param every: at how many looks the log of a busy job is read; 1 for always.
        :param settle: look once more if only that shows whether an idle job's log is late.
        """
        left = self.left
        try:
            verdict = await self._look(every)
            if settle and isinstance(verdict, Waiting) and verdict.settles:
                await self._world.sleep(min(LOG_LAG, self.run.start_timeout))
                verdict = await self._look(1)
        except TimeXtenderError as error:
            # With less than max_unreachable left it is the timeout that ends the wait.
            ends_elsewhere = self._hands_over or left < self._limits.max_unreachable
            if not (self.bears(error) and ends_elsewhere):
                raise
            if error.retry_after and not self._hands_over:
                await self._world.sleep(min(error.retry_after, left))
            return Waiting("unreachable", str(error))
        return verdict

    def bears(self, error: TimeXtenderError) -> bool:
        """Tell whether an error may pass."""
        return passes_once_looked(error) if self.looked else passes(error)

    async def say(self, seen: Waiting) -> None:
        """Write what has changed, and what the execution's log shows of it."""
        if self.seen is None or seen.state != self.seen.state:
            level = logging.WARNING if seen.state == "unknown" else logging.INFO
            self._world.log.log(level, "%s: %s", called(self.run), seen.why)
            self._world.show(self.run, seen)
        self.seen = seen
        ours, self._ours = self._ours, None
        if ours is not None:
            await show_new(self._world, ours, self.run.job_name)

    async def _look(self, every: int) -> Verdict:
        # The status comes first: a job that is idle by then has written its log before it is read.
        status, at = await self._repeat(partial(self._world.status, self.run.job_id))
        # A look elsewhere a moment ago counts as having seen this state: else each trigger would read the log
        # of a busy job when it begins, and all of them would when a triggerer is started again.
        before = replace(self.run, state=status.state) if self._just else self.run
        self._just = False
        wanted = before.wants_log(status, every, at)
        run = before.after(status, at, read=wanted)
        executions: Sequence[Execution] = ()
        if wanted:
            # That the job was active counts even if its log cannot be read.
            self.run = replace(before, active_at=run.active_at)
            run, executions = await self._log(run, at)
            run = run.after_log(executions, at)
        if run.completed_after is not None and not run.warned:
            passed_over = say_passed_over(executions, run.completed_after)
            if passed_over is not None:
                self._world.log.warning("%s", said(f"of its executions, {passed_over}", run))
                run = replace(run, warned=True)
        self.run, self.looked = run, True
        # Of those since a moment, the one that counts is known when it is over.
        id_ = run.trigger_id
        self._ours = next((e for e in executions if id_ is not None and e.is_under(id_)), None)
        return judge(run, status, executions, at)

    async def _log(self, run: Run, at: datetime) -> tuple[Run, list[Execution]]:
        lines = LastLines(run.trigger_id, run.completed_after)
        whole_log = if_any(job_logs(run.job_id, keep=lines))
        if run.trigger_id is None or run.whole:
            read_now = await self._read(known(whole_log))
            return replace(run, size=read_now.size), read_now.said
        executions = await self._read(if_any(job_logs(run.job_id, run.trigger_id, keep=lines)))
        if any(e.is_under(run.trigger_id) for e in executions) or not run.doubts_the_filter(at):
            return run, executions
        in_vain = run.has_waited_in_vain(at)
        try:
            executions = await self._read(whole_log, patience=math.inf if in_vain else 0)
        except TimeXtenderError:
            # While there is time, the filtered log may still show the execution.
            if in_vain:
                raise
        whole = any(e.is_under(run.trigger_id) for e in executions)
        return replace(run, compared_at=at, whole=whole), executions

    def _turn(self) -> int:
        every = self._world.every
        if every > 2 and every >= 2 * self._every and self.run.state is not None:
            # Waits that began together would all read their logs at the same look: each begins to count
            # somewhere else, and anew when many more have come. Not before the first look, which reads the
            # log and counts from there.
            self._every = every
            self.run = replace(self.run, unread=random.randrange(every))
        return every

    async def _read(self, call: Call[T], *, patience: float = math.inf) -> T:
        return await self._repeat(partial(self._world.send, call), patience=patience)

    async def _repeat(self, attempt: Callable[[], Awaitable[T]], *, patience: float = math.inf) -> T:
        left = 0 if self._hands_over else self.left
        patience = min(patience, self._limits.max_unreachable, left)
        return await repeat(self._world, attempt, bears=self.bears, patience=patience)


# --- the life ---


@dataclass(frozen=True)
class Task:
    """What a task is to do, checked; its limits are in seconds.

    :ivar job: what tells it. :ivar wait: for the end of the execution.
    :ivar began: when this try did. :ivar since: when its DAG run did.
    :ivar timeout: of the wait, and counted from ``began``, of all that comes before the job is queued.
    :ivar decide: what a person is to do if nobody can know whether the job was queued.
    """

    job: Of
    wait: bool
    if_running: Literal["submit", "wait", "attach", "fail"]
    interval: float
    timeout: float
    start_timeout: float
    max_unreachable: float
    began: datetime
    since: datetime | None
    decide: str = HOW_TO_DECIDE

    @property
    def given(self) -> str:
        """The job, as people have given it."""
        return " ".join(filter(None, (self.job.job_name, self.job.job_id)))

    @property
    def end(self) -> datetime:
        """When all that comes before the job is known to be queued has to be over."""
        return self.began + span(self.timeout)


class Life:
    """Queues a job once for all tries of a task, whatever breaks in between, and follows the execution.

    It is queued anew only after that execution has failed, or has never started, or the task was cleared.

    Before the request is sent, it is kept that it will be, and what the job's log shows by then; after it,
    the trigger id. So a later try knows what the one before it has done, or can find out.

    Airflow's own ``ResumableJobMixin`` is not used: it stores an id only when it has one, so that a worker
    that dies between the two starts the job again, and after such a death it returns something else than an
    undisturbed task does.

    :param task: makes it of what was given; not called where that is of no use any more.
    :ivar record: what is kept. :ivar job_id: the job, once it is known, and ``job_name`` its name.
    :ivar trigger_id: the execution, once it is known to be this task's.
    """

    def __init__(self, task: Callable[[], Task], world: TaskWorld) -> None:
        self.record: Record | None = None
        self._stored: Record | None = None
        self.job_id = ""
        self.job_name: str | None = None
        self.trigger_id: str | None = None
        self._make_task = task
        self._world = world
        self._former: tuple[str, ...] = ()
        self._unread = self._lost = ""

    @cached_property
    def _task(self) -> Task:
        return self._make_task()

    async def live(self) -> str:
        """Queue the job, or go on with what an earlier try has queued, and follow it if that is asked for.

        :return: the trigger id.
        """
        while True:
            try:
                with about(lambda: self):
                    return await self._live()
            except _Overtaken:
                self._warn(
                    "another try of the task has gone on meanwhile: this one begins again, and follows."
                )

    async def _live(self) -> str:
        record = self._stored = self._world.recall()
        await self._identify(record)
        trigger_id = await self._inherit(record)
        if not self._world.lasts and self._world.tries.retries:
            trigger_id = await self._look_before_a_blind_retry()
        while trigger_id is None:
            trigger_id = await self._queue()
        self.trigger_id = trigger_id
        self._world.tell(self)
        if self._task.wait:
            await self._follow(trigger_id)
        self._finish()
        return trigger_id

    async def resume(self, event: Any) -> str:
        """Go on after a deferral with what the triggerer has told; else as :meth:`live`."""
        with about(lambda: self):
            return await self._resume(event)

    async def _resume(self, event: Any) -> str:
        try:
            self.record = self._stored = self._world.recall()
        except Exception:
            self._world.log.warning("Could not read the record of the submission", exc_info=True)
        try:
            told = result_of(event, ExecutionState.SUCCEEDED.value, JobState.IDLE.value)
        except TimeXtenderError as error:
            if isinstance(event, Mapping):
                self._is_told_of(event)
            # An error without a trigger id is one of a wait for an idle job.
            if not isinstance(event, Mapping) or "error" not in event or self.trigger_id is not None:
                if isinstance(error, JobError):
                    self._forget()
                raise
            self._without_turn(error)
        else:
            self._is_told_of(told)
            if self.trigger_id is not None:
                self._finish()
                return self.trigger_id
        await self._world.sleep(moment(self._task.interval))
        return await self.live()

    def _is_told_of(self, event: Mapping[str, Any]) -> None:
        self.trigger_id = event.get("trigger_id")
        self.job_id, self.job_name = str(event.get("job_id") or ""), event.get("job_name")
        if not self.job_id:
            # Airflow has ended the wait, and no XCom tells of which job.
            kept: Named = self.record if self.record and self._is_for(self.record) else self._task.job
            self.job_id, self.job_name = kept.job_id or "", kept.job_name
        self._world.show_name(self)

    def _without_turn(self, error: TimeXtenderError) -> None:
        """Raise what the end of a wait for an idle job means, be it that of a turn or that of a search.

        It returns where that wait was a search's and is over by its own limit: then :meth:`live` looks once
        more, and says what it knows.
        """
        record = self.record
        if record is None or record.stage == "done" or record.was_cleared(self._world.tries):
            raise no_turn(error) from None
        if record.stage != "asked":
            self.trigger_id = record.trigger_id
            raise error
        # An ExecutionTimeout is a WaitTimeout, too, but leaves no time for another look.
        if not isinstance(error, WaitTimeout) or isinstance(error, ExecutionTimeout):
            error.args = (f"it may have been queued, and its execution was not found yet: {error.reason}",)
            raise error

    def _finish(self) -> None:
        """Keep that the task has succeeded, so that it runs anew when it is cleared."""
        if self.record is not None and self.record.stage == "queued":
            self._keep(replace(self.record, stage="done"), or_go_on=True)

    def _is_for(self, record: Record) -> bool:
        """Tell whether a record is one of what the task is to do now."""
        return record.given == self._task.given and not record.was_cleared(self._world.tries)

    async def _identify(self, record: Record | None) -> None:
        if record is not None and self._is_for(record):
            # What has been queued is not lost because nobody can look up the job's name now.
            self.job_id, self.job_name = record.job_id, record.job_name or self._task.job.job_name
        else:
            self.job_id, self.job_name = self._task.job.job_id or "", self._task.job.job_name
            job = await identify(self._world, self._task.job, patience=self._task.max_unreachable)
            self.job_id, self.job_name = job.id, job.name
        self._world.show_name(self)

    async def _follow(self, trigger_id: str) -> None:
        now, task = self._world.now(), self._task
        resumed = self.record is not None and self.record.number != self._world.tries.number
        run = replace(self._run(trigger_id, now), resumed=resumed)
        over = WaitTimeout(f"it was not over after {for_people(task.timeout)}.")
        try:
            await self._wait(run, now + span(task.timeout), over).outcome()
        except JobError:
            self._forget()
            raise

    def _run(self, trigger_id: str | None, now: datetime) -> Run:
        return Run(self.job_id, trigger_id, now, self._task.start_timeout, job_name=self.job_name)

    def _wait(self, run: Run, end: datetime, over: WaitTimeout, *, here: bool = False) -> Wait:
        limits = Limits(self._task.interval, self._task.max_unreachable, end, over)
        return Wait(self._world, run, limits, looked=True, here=here)

    # --- what an earlier try has left ---

    async def _inherit(self, record: Record | None) -> str | None:
        """Return the trigger id of an earlier try's execution, if this try is to go on with that.

        :raises SubmissionUncertain: if an earlier try may have queued the job, and it cannot be found out.
        """
        if record is None:
            return None
        if record.known is not None:  # whoever has kept it had read the status and the log
            self._world.understood |= {"status", f"{LIST_OF}log"}
        self.record = record
        trigger_id = await self._left_by(record)
        if trigger_id is None:
            # Its log may show what it has queued only later, which is then not to be taken for ours.
            self._former = (*record.former, *([record.trigger_id] if record.trigger_id else ()))
            self.record = None
            return None
        self._warn("it is not queued again: this try goes on with an earlier one's execution.", trigger_id)
        return trigger_id

    async def _left_by(self, record: Record) -> str | None:
        """Return the execution that an earlier try has left to this one, ``None`` if there is none."""
        tries = self._world.tries
        cleared = record.was_cleared(tries)
        if canonical(record.job_id) != canonical(self.job_id):
            self._warn(f"an earlier try of this task ran another job: {called(record)}.")
            return None
        if record.stage == "done":
            return None if cleared else record.trigger_id
        if record.stage == "uncertain":
            if cleared:
                return None
            raise SubmissionUncertain(self._unknown(record, "An earlier try could not find out either."))
        late = (self._world.now() - record.asked_at).total_seconds() >= self._task.start_timeout
        if cleared and late:
            # An execution that has begun since may be anybody's after so long: none is taken for ours.
            record = replace(record, hidden=True)
        trigger_id = record.trigger_id or await self._find(record)
        if trigger_id is None:
            self._warn("an earlier try was about to queue it, and did not.")
            return None
        if record.number == tries.number:
            return trigger_id  # it was looked for over a deferral of this very try
        try:
            # The task has never succeeded with an execution whose receipt is missing, so that its clear is no
            # wish to run that once more.
            if await self._is_over(trigger_id, cleared=cleared and record.stage == "queued", late=late):
                return None
        except TimeXtenderError as error:
            queued = "an earlier try has queued it, and its execution could not be looked at"
            error.args = (f"{queued}: {error.reason}",)
            error.about(Of(trigger_id=trigger_id))
            raise
        # Kept with this try's clears: only another clear lets the job be queued anew.
        self._keep(replace(record, stage="queued", trigger_id=trigger_id))
        return trigger_id

    async def _is_over(self, trigger_id: str, *, cleared: bool, late: bool) -> bool:
        """Tell whether an execution that an earlier try has left is of no use to this one.

        One that has succeeded is, unless the task was cleared to run it once more.

        :param late: it would have shown up in the log by now.
        """
        now = self._world.now()
        run = self._run(trigger_id, now)
        # What decides whether the job is queued anew is not left to a trigger.
        wait = self._wait(run, now + span(math.inf), WaitTimeout(), here=True)
        try:
            verdict = await wait.look(every=1, settle=True)
        except ContractError as error:
            # Whatever an idle job's log says of it, it has ended somehow.
            if cleared and not error.transient and await self._is_idle():
                return True
            raise
        if isinstance(verdict, Failed):
            self._warn(f"the execution of an earlier try has failed: {verdict.why}", trigger_id)
            return True
        gone = isinstance(verdict, Waiting) and verdict.state == "idle"
        return cleared and (isinstance(verdict, Succeeded) or (gone and late))

    async def _look_before_a_blind_retry(self) -> str | None:
        """Look at the job before another try without any memory queues it.

        :return: the execution that it attaches to, if it is to do that.
        :raises JobBusy: if it is busy, and is not to be queued then.
        :raises SubmissionUncertain: if it is busy and would be queued all the same, or if the last
            execution since the DAG run began has not failed. It may be that of an earlier try whose worker
            has died.
        """
        self._warn(
            "this Airflow keeps no state of a task over its tries (3.3 and later do). Should a worker die "
            "after it has queued the job, the next try can only look whether the job seems to have run."
        )
        if self._world.tries.is_first():
            return None
        while True:
            status, executions, _ = await self._survey()
            waiting = judge_job(status)
            if waiting is None or self._task.if_running in ("submit", "wait"):
                break
            # A busy job is no sign, as nothing is queued beside it: but if it has ended by now, it is.
            if self._task.if_running == "fail":
                raise self._busy(waiting)
            if (trigger_id := await self._attach()) is not None:
                return trigger_id
        why = waiting.why if waiting else None
        last = last_started(executions, self._task.since)
        if why is None and last is not None and last.state is not ExecutionState.FAILED:
            begun = "has begun since the DAG run did" if last.start else "has begun nobody knows when"
            why = f"Execution {last.trigger_id} {begun}, and has not failed."
        if why is not None:
            raise SubmissionUncertain(
                f"an earlier try of this task may have queued it, or have ended before. {why} It is not "
                f"queued again, as that could run the load twice. {self._task.decide}"
            )
        return None

    # --- queueing ---

    async def _queue(self) -> str | None:
        """Queue the job, as ``if_running`` says; ``None`` if it is to be asked for once more."""
        try:
            return await self._submit()
        except JobBusy:
            if self._task.if_running == "attach":
                return await self._attach()
            if self._task.if_running != "wait":
                raise
        await self._wait_for_turn()
        return None

    async def _submit(self) -> str:
        """Ask for the job, and return the trigger id of its execution.

        :raises JobBusy: if it is to be alone, and is not. :raises SubmissionUncertain: if it may have been
            queued, and it cannot be found out. An error that kept a search from looking says so as well. All
            others mean that nothing was queued.
        """
        for _ in range(2):
            told = await repeat(
                self._world,
                self._ask,
                bears=surely_unsent,
                patience=self._task.max_unreachable,
            )
            if isinstance(told, Submission):
                what = f"queued. {told.message or ''}".rstrip()
                self._world.log.info("%s", said(what, Of(self.job_id, self.job_name, told.trigger_id)))
                return told.trigger_id
            self._lost = f"{told} "
            self._warn(f"it is not known whether it was queued: {told} Its execution is looked for.")
            assert self.record is not None  # noqa: S101 - no request is sent without
            if (trigger_id := await self._find(self.record)) is not None:
                return trigger_id
        raise ServerError(f"it was asked for twice, and TimeXtender has not queued it. {told}")

    async def _ask(self) -> Submission | str:
        """Ask once; return the receipt, or why it is missing if the job may have been queued.

        The log may take a minute to read, and a job that is to be alone may begin meanwhile. So its status is
        asked for once more, as the last thing before the request.
        """
        alone = self._task.if_running != "submit"
        if alone:
            await self._refuse_if_busy()
        executions = await self._executions_before()
        record = self._record_of(executions, busy=not alone and not await self._is_idle())
        if self._is_overtaken():
            raise _Overtaken
        self._keep(record)
        try:
            if alone:
                await self._refuse_if_busy()
        except TimeXtenderError:
            self._forget()
            raise
        try:
            receipt = await self._world.send(execute_job(self.job_id))
        except TimeXtenderError as error:
            if may_have_arrived(error):
                return str(error)
            self._forget()
            raise
        self._keep(replace(record, stage="queued", trigger_id=receipt.trigger_id), or_go_on=True)
        return receipt

    async def _executions_before(self) -> list[Execution] | None:
        try:
            return await self._read(executions_so_far(self.job_id), patience=LOG_PATIENCE)
        except TimeXtenderError as error:
            if isinstance(error, Refused) and error.status == 401:
                raise
            self._unread = str(error)
            self._warn(
                f"should the answer to the request get lost, the execution cannot be looked for: {error}"
            )
            return None

    async def _is_idle(self) -> bool:
        return (await self._read(job_status(self.job_id))).state is JobState.IDLE

    async def _refuse_if_busy(self) -> None:
        if (busy := judge_job(await self._read(job_status(self.job_id)))) is not None:
            raise self._busy(busy)

    def _busy(self, seen: Waiting) -> JobBusy:
        return JobBusy(f"it was not queued, as if_running says. {seen.why}")

    async def _wait_for_turn(self) -> None:
        """Return when the job is idle."""
        now, end = self._world.now(), self._task.end
        over = WaitTimeout(f"it was not over after {for_people(self._task.timeout)}.")
        if now >= end:
            others = WaitTimeout(f"others had the job for {for_people(self._task.timeout)}.")
            raise no_turn(others)
        try:
            await self._wait(self._run(None, now), end, over).outcome()
        except WaitTimeout as error:
            raise no_turn(error) from None
        await self._world.sleep(moment(self._task.interval))

    # --- a missing receipt, and an execution of somebody else ---

    async def _find(self, record: Record) -> str | None:
        """Return the trigger id of a request whose receipt is missing, ``None`` if nothing was queued."""
        if record.known is None:
            raise self._uncertain(record, f"What the job's log showed before is not known. {self._unread}")
        try:
            outcome = await self._search(record)
        except TimeXtenderError as error:
            raise self._not_looked_for(record, error) from None
        if isinstance(outcome, NotQueued):
            self._forget()
            return None
        if isinstance(outcome, Adopted):
            self._warn(
                "the receipt of the request is missing. One execution has begun since, and is taken for the "
                "one that was asked for.",
                outcome.trigger_id,
            )
            self._keep(replace(record, stage="queued", trigger_id=outcome.trigger_id), or_go_on=True)
            return outcome.trigger_id
        raise self._uncertain(
            record,
            outcome
            if isinstance(outcome, str)
            else "It cannot be told whether it has led to one of the executions that have begun since: "
            f"{', '.join(outcome.trigger_ids)}.",
        )

    async def _search(self, record: Record) -> Outcome | str:
        """Look until a search has come to something; a text says why it has not in time."""
        search = Search.of(record, self._task.start_timeout, self._world.now())
        while True:
            left = max(0.0, (self._task.end - self._world.now()).total_seconds())
            # While the job is busy, whatever its log shows decides nothing: ours may wait behind that.
            status, executions, at = await self._survey(patience=left, if_busy=not left)
            search, outcome = search.after(status, executions, at)
            if outcome is not None:
                return outcome
            busy = judge_job(status)
            if not left:
                return f"It has not become clear in time.{f' {busy.why}' if busy else ''}"
            if busy is not None and self._world.lasts:
                limits = Limits(
                    self._task.interval, self._task.max_unreachable, self._task.end, WaitTimeout()
                )
                await self._world.rest(self._run(None, self._world.now()), limits)
            else:
                await self._world.sleep(min(self._task.interval, left))

    def _not_looked_for(self, record: Record, error: TimeXtenderError) -> TimeXtenderError:
        if isinstance(error, ContractError) and not error.transient:
            return self._uncertain(record, str(error))
        why = f"It could not be looked for: {error}"
        if not self._world.lasts:
            return SubmissionUncertain(self._unknown(record, why))
        if error.transient:
            error.args = (self._unknown(record, why, "Another try looks again."),)
            return error
        return SubmissionUncertain(
            self._unknown(record, why, "Clear the task when that is mended, and it looks again.")
        )

    def _uncertain(self, record: Record, why: str) -> SubmissionUncertain:
        self._keep(replace(record, stage="uncertain"), or_go_on=True)
        return SubmissionUncertain(self._unknown(record, why))

    def _unknown(self, record: Record, why: str, what_next: str | None = None) -> str:
        return (
            f"it was to be queued at {record.asked_at.isoformat(timespec='seconds')}, and it is not known "
            f"whether it was. {self._lost}{why} It is not queued again, as that could run the load twice. "
            f"{what_next or self._task.decide}"
        )

    async def _attach(self) -> str | None:
        """Return the trigger id of the execution that the job is busy with, ``None`` if it is idle by now.

        :raises JobBusy: if that execution cannot be told, or followed.
        """
        before: set[str] | None = None
        run = self._run(None, self._world.now())
        while True:
            status, executions, at = await self._survey()
            ids = {canonical(e.trigger_id) for e in executions if e.trigger_id}
            before = ids if before is None else before
            shown = _attachable(executions, busy=judge_job(status) is not None, before=before)
            if len(shown) > 1:
                raise JobBusy(
                    "several of its executions are running, and it is not clear which of them to attach to: "
                    f"{', '.join(map(str, shown))}."
                )
            if shown and shown != {None}:
                return self._attached(self._record_of(executions, busy=True), shown.pop())
            run = run.after(status, at, read=True)
            if run.is_settled(at):
                return None
            left = (self._task.end - self._world.now()).total_seconds()
            if left <= 0:
                raise JobBusy("it is busy, and its log shows no execution to attach to.")
            await self._world.sleep(min(self._task.interval, left))

    def _attached(self, record: Record, trigger_id: str | None) -> str:
        if trigger_id is None or canonical(trigger_id) == BLANK_GUID:
            raise JobBusy(
                "its running execution was started by hand. It has no trigger id, so that its outcome cannot "
                "be told; if_running='wait' waits for its end."
            )
        self._warn(
            "it is running already. The task attaches to that execution, and reports its outcome as its own.",
            trigger_id,
        )
        self._keep(replace(record, stage="queued", trigger_id=trigger_id))
        return trigger_id

    # --- small things ---

    def _warn(self, what: str, trigger_id: str | None = None) -> None:
        self._world.log.warning("%s", said(what, Of(self.job_id, self.job_name, trigger_id)))

    async def _read(self, call: Call[T], *, patience: float = math.inf) -> T:
        return await read(self._world, call, patience=min(patience, self._task.max_unreachable))

    async def _survey(
        self, *, patience: float = math.inf, if_busy: bool = True
    ) -> tuple[JobStatus, list[Execution], datetime]:
        """Look at all that the job does: its status, its executions, and when the status was read.

        :param if_busy: whether its executions are of use if it is busy.
        """
        repeated = partial(
            repeat,
            self._world,
            bears=passes_once_looked,
            patience=min(patience, self._task.max_unreachable),
        )
        status, at = await repeated(partial(self._world.status, self.job_id))
        if not if_busy and judge_job(status) is not None:
            return status, [], at
        return status, await repeated(partial(self._world.send, executions_so_far(self.job_id))), at

    def _record_of(self, executions: Sequence[Execution] | None, *, busy: bool) -> Record:
        return Record.of(
            self.job_id,
            executions,
            self._world.tries,
            self._world.now(),
            busy=busy,
            given=self._task.given,
            former=self._former,
            job_name=self.job_name,
        )

    def _keep(self, record: Record | None, *, or_go_on: bool = False) -> None:
        """Keep a record of this try, or raise what keeps it from being kept.

        :param or_go_on: warn instead, as the task has to go on without: another try then has to find out.
        """
        check_move(self.record.stage if self.record else None, record.stage if record else None)
        if record is not None:
            tries = self._world.tries
            record = replace(record, keeper=tries.number, most=tries.most, clears=tries.clears)
        try:
            self._world.keep(record)
            self._stored = record
        except Exception:
            if not or_go_on:
                raise
            self._world.log.warning("Could not keep the record of the submission", exc_info=True)
        self.record = record

    def _forget(self) -> None:
        """Let the next try queue the job anew, unless that has gone on already."""
        with suppress(Exception):  # of a store that is told of below
            if self._is_overtaken():
                self.record = None
        if self.record is not None:
            self._keep(None, or_go_on=True)

    def _is_overtaken(self) -> bool:
        """Tell whether another try has kept something since this one has: Airflow takes this one for dead.

        A worker that Airflow does not hear of for a while is given up, and may work on beside the next try.
        """
        return self._world.lasts and self._world.recall() != self._stored


class _Overtaken(Exception):
    """Another try of the task has gone on."""


def _attachable(executions: Sequence[Execution], *, busy: bool, before: set[str]) -> set[str | None]:
    """Return which executions a job may be busy with, ``None`` for one that does not tell its trigger id."""
    # What a busy job's log shows as over without an end may run: its state may be set before.
    running = {e.trigger_id for e in executions if is_unended(e) or (busy and e.is_over and e.end is None)}
    # What a log shows only at its end, or late, is found there then.
    ended = {e.trigger_id for e in executions if e.trigger_id and canonical(e.trigger_id) not in before}
    return running or {id_ for id_ in ended if id_ is not None and canonical(id_) != BLANK_GUID}


def moment(interval: float) -> float:
    """Return for how many seconds others are let pass.

    All that wait for the same turn see it come in the same moment. The API cannot start a job only if it is
    idle, so they are kept from asking in the same moment as well.
    """
    return random.uniform(0, min(MAX_MOMENT, interval))


def no_turn(error: TimeXtenderError) -> TimeXtenderError:
    """Return the error of a task whose turn did not come."""
    return type(error)(f"it was not queued, as its turn did not come: {error.reason}")
