"""The worlds of a life: a worker's, where time passes asleep, and the triggerer's, where all share a poll."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from airflow_provider_timextender import life
from airflow_provider_timextender.errors import InvalidInput, SubmissionUncertain
from airflow_provider_timextender.inputs import span
from airflow_provider_timextender.jobs_api import Call, job_status, list_jobs
from airflow_provider_timextender.model import Job, JobStatus, canonical
from airflow_provider_timextender.naming import Named
from airflow_provider_timextender.shown import NOTHING, SHOWN_KEY, Memory, Shown
from airflow_provider_timextender.submission import Record, Tries
from airflow_provider_timextender.verdict import Run, Waiting

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_timextender.polling import Poll

T = TypeVar("T")

RECORD_KEY = "timextender_submission"
"""Where the task state store keeps the record."""

STATE_KEY = "timextender_execution"
"""Where Airflow's task state store shows what a waiting task last saw (Airflow 3.3 and later)."""

LABEL = 200
"""How many characters of a job's name a label may show: PostgreSQL and MySQL take 250 with what the template
adds, and Airflow fails a task that has succeeded if there are more."""

BACKSTOP = timedelta(minutes=5)
"""How long after its limit Airflow ends a wait that no triggerer has ended."""


def backstop(seconds: float) -> timedelta:
    """Return the limit that Airflow is given for a wait with a limit."""
    return span(seconds) + BACKSTOP


Defer = Callable[[Run, life.Limits, Shown], NoReturn]
"""Hands a wait over to a trigger, with what the task's log shows of the execution."""


class Carries(Protocol):
    """What a worker sends calls with: the hook."""

    understood: set[str]

    def send(self, call: Call[T]) -> T:
        """Carry a call once."""

    def renew(self) -> None:
        """Read the connection again."""


class Worker:
    """A worker's world; its time goes on whatever is done to the clock.

    :param memory: of what the log shows; without, that of this process.
    :param defer: ends a wait here, to go on with it in the triggerer; without, the wait goes on here.
    """

    every = 2

    def __init__(
        self, hook: Carries, log: Any, *, memory: Memory | None = None, defer: Defer | None = None
    ) -> None:
        self.log = log
        self.memory = memory or Memory(log)
        self.understood = hook.understood
        self.longest_pause = life.MAX_PAUSE
        self.hands_over = defer is not None
        self._began, self._began_at = datetime.now(timezone.utc), time.monotonic()
        self._hook = hook
        self._defer = defer

    def now(self) -> datetime:
        """Return the time."""
        return self._began + timedelta(seconds=time.monotonic() - self._began_at)

    async def send(self, call: Call[T]) -> T:
        """Carry a call once."""
        return self._hook.send(call)

    async def jobs(self) -> Sequence[Job]:
        """Ask for all jobs."""
        return await self.send(list_jobs())

    async def status(self, job_id: str) -> tuple[JobStatus, datetime]:
        """Ask what a job does."""
        status = await self.send(job_status(job_id))
        return status, self.now()

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    async def rest(self, run: Run, limits: life.Limits) -> None:
        """Defer, or let a poll interval pass."""
        if self._defer is not None:
            self._defer(run, limits, await self._shown(run))
        time.sleep(min(limits.interval, limits.left(self.now())))

    async def _shown(self, run: Run) -> Shown:
        known = run.trigger_id and await self.memory.recall(canonical(run.trigger_id))
        return known or NOTHING

    def renew(self) -> None:
        """Read the connection again."""
        self._hook.renew()

    def show(self, run: Run, seen: Waiting) -> None:
        """Show nothing but what is in the log."""


class TaskOnWorker(Worker):
    """The world of a task that queues a job; what is to last is in Airflow's task state store.

    :param tell: pushes XComs.
    """

    def __init__(
        self,
        hook: Carries,
        log: Any,
        context: Context,
        *,
        retries: int,
        tell: Callable[[Named], None],
        defer: Defer | None,
    ) -> None:
        super().__init__(hook, log, memory=memory_of(context, log, retries), defer=defer)
        self._store: Any = context.get("task_state_store")  # Airflow 3.3 and later
        self.tell = tell
        self.show_name = partial(show_name, context)
        self.tries = _tries(context, retries)

    @property
    def lasts(self) -> bool:
        """Whether a later try will know what is kept."""
        return self._store is not None

    def recall(self) -> Record | None:
        """Return what an earlier try has kept."""
        stored = None if self._store is None else self._store.get(RECORD_KEY)
        try:
            return None if stored is None else Record.from_dict(stored)
        except InvalidInput as error:
            raise SubmissionUncertain(
                f"What an earlier try has kept as {RECORD_KEY!r} in the task state store is not understood: "
                f"{error} So it is not known whether the job was queued, and it is not queued again. Look in "
                "TimeXtender; to queue it anew, delete that entry and clear the task."
            ) from None

    def keep(self, record: Record | None) -> None:
        """Keep a record for the tries to come, or forget it."""
        if self._store is None:
            return
        if record is None:
            self._store.delete(RECORD_KEY)
        else:
            from airflow.sdk.execution_time.context import NEVER_EXPIRE

            self._store.set(RECORD_KEY, record.to_dict(), retention=NEVER_EXPIRE)

    def show(self, run: Run, seen: Waiting) -> None:
        """Show in the task state store what the job does."""
        if self._store is None:
            return
        try:
            self._store.set(
                STATE_KEY,
                {
                    "job_id": run.job_id,
                    "job_name": run.job_name,
                    "trigger_id": run.trigger_id,
                    "state": seen.state,
                    "since": self.now().isoformat(),
                },
            )
        except Exception:
            self.log.warning("Could not show the state", exc_info=True)


def memory_of(context: Any, log: Any, retries: int, *, lasts: bool = True) -> Memory:
    """Return what a task on a worker knows of what its log shows.

    :param lasts: its process goes on until the wait is over or is handed over.
    """
    store, tries = context.get("task_state_store"), _tries(context, retries)
    # The first process of the first try finds nothing there.
    keeper = None if store is None else _InStore(store, tries, asks=tries.number > 1 or not lasts)
    return Memory(log, NOTHING if lasts else None, keeper)


class _InStore:
    """The task state store, which outlives the tries of a task; a cleared task shows everything again."""

    def __init__(self, store: Any, tries: Tries, *, asks: bool) -> None:
        self._store = store
        self._tries = tries
        self._asks = asks

    async def get(self) -> Any:
        """Return what this try has kept, or one before it that this one goes on with."""
        stored = self._store.get(SHOWN_KEY) if self._asks else None
        return stored if stored is not None and stored["try"] >= self._tries.first else None

    async def set(self, value: dict[str, Any]) -> None:
        """Keep it."""
        self._store.set(SHOWN_KEY, {**value, "try": self._tries.number})


def _tries(context: Any, retries: int) -> Tries:
    ti, dag_run = context["ti"], context.get("dag_run")
    return Tries(ti.try_number, ti.max_tries or 0, retries, getattr(dag_run, "clear_number", None) or 0)


def show_name(context: Any, of: Named) -> None:
    """Let ``{{ job_name }}`` stand in a task's ``map_index_template`` for the job's name, or else its id.

    Airflow renders that when the task has ended. What a DAG itself calls so keeps its meaning.
    """
    macros = getattr(context.get("dag"), "user_defined_macros", None) or {}
    name = of.job_name or of.job_id
    if name and "job_name" not in macros:
        context.setdefault("job_name", str(name)[:LABEL])


class Triggerer:
    """The triggerer's world: it only reads, and what a job does is known from a poll that all share.

    :param end: when the wait ends, for which no look of the poll is awaited.
    :param memory: of what the log shows.
    """

    hands_over = False

    def __init__(self, poll: Poll, log: Any, end: datetime, memory: Memory) -> None:
        self.log = log
        self.memory = memory
        self.understood = poll.understood
        # The pace of the poll is pause enough.
        self.longest_pause = poll.interval
        self._poll = poll
        self._end = end
        self._used = poll.looks

    @property
    def every(self) -> int:
        """At how many looks the log of a busy job is read: the more wait, the rarer each reads one."""
        return self._poll.every

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(timezone.utc)

    async def send(self, call: Call[T]) -> T:
        """Carry a call that changes nothing, over the few connections of the poll."""
        if call.method != "GET":
            raise RuntimeError(f"A trigger only reads, and was to send {call.method} {call.path}.")
        return await self._poll.send(call)

    async def jobs(self) -> Sequence[Job]:
        """Return all jobs, as the poll has them."""
        return await self._poll.jobs()

    async def status(self, job_id: str) -> tuple[JobStatus, datetime]:
        """Return what the poll has seen; where the wait ends before it looks again, ask."""
        seen = self._poll.newest
        if seen is None or seen.number <= self._used:
            return await self.send(job_status(job_id)), self.now()
        self._used = seen.number
        if seen.problem is not None:
            problem = copy.copy(seen.problem)  # one of its own, with its own traceback and its own job
            problem.of_poll = True
            raise problem
        status = seen.statuses.get(canonical(job_id))
        return await self.send(job_status(job_id)) if status is None else status, seen.at

    async def sleep(self, seconds: float) -> None:
        """Let time pass; what is repeated then is repeated at a look of the poll."""
        await asyncio.sleep(seconds)
        if seconds:
            await self.rest()

    async def rest(self, run: Run | None = None, limits: life.Limits | None = None) -> None:
        """Let time pass until the poll has looked."""
        left = max(0.0, (self._end - self.now()).total_seconds())
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                while self._poll.newest is None or self._poll.newest.number <= self._used:
                    await self._poll.next()

    def renew(self) -> None:
        """Leave that to the poll."""

    def show(self, run: Run, seen: Waiting) -> None:
        """Show nothing but what is in the log: the task state store is not at hand here."""
