"""One poll for all that wait in a process: the status of all jobs, with one request an interval.

All triggers of a triggerer live in one event loop, so that those with the same connection and interval can
share it on every Airflow. It begins with the first that waits, and ends with the last.
"""

from __future__ import annotations

import asyncio
import copy
import math
import random
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_timextender.errors import TimeXtenderError, Unreachable
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.jobs_api import Call, all_job_statuses, list_jobs
from airflow_provider_timextender.model import Job, JobStatus, canonical

if TYPE_CHECKING:
    from airflow_provider_timextender.carrier import Carrier

T = TypeVar("T")

RECHECKS = 10
"""How many logs of busy jobs a poll reads in one interval, about, or one a second if that is more, whatever
the number of waiting tasks."""

JITTER = 1.05
"""Up to so many intervals pass between two looks, so that several triggerers do not come together."""

FRESH = 10.0
"""Seconds at most for which a list of jobs is as good as a new one, however long the interval is: whoever
makes or renames a job, and then waits for it by name, has to find it."""

WOKEN_AT_ONCE = 50
"""How many that wait are told of a look before other tasks of the event loop have their turn."""


@dataclass(frozen=True)
class Snapshot:
    """What a poll saw at one moment.

    :ivar number: of the look, from 1 on. :ivar at: when the statuses were asked for.
    :ivar statuses: canonical job id -> status. :ivar problem: why they could not be had.
    """

    number: int
    at: datetime
    statuses: Mapping[str, JobStatus]
    problem: TimeXtenderError | None


def every(sharers: int, interval: float) -> int:
    """Return at how many looks the log of a busy job is read, if so many share the reads of a poll."""
    return max(3, math.ceil(sharers / max(RECHECKS, interval)))


class Poll:
    """Looks once an interval, for ever.

    What goes wrong is told in a snapshot and never raised, as it concerns all that share the poll. After a
    failure the connection is read again: the key may have been changed in it.

    :ivar newest: the last snapshot; ``None`` before the first. :ivar sharers: how many wait.
    :ivar looks: how many looks have begun. :ivar interval: seconds between them.
    :ivar understood: the subjects of calls that have been answered in the right shape before.
    """

    def __init__(self, timextender_conn_id: str, interval: float) -> None:
        self.newest: Snapshot | None = None
        self.sharers = self.looks = 0
        self.interval = interval
        self._hook = TimeXtenderHook(timextender_conn_id)
        self.understood = self._hook.understood
        self._carrier: Carrier | None = None
        self._waiters: list[asyncio.Future[Snapshot]] = []
        self._asking_for_jobs = asyncio.Lock()
        self._jobs: list[Job] | TimeXtenderError = []
        self._jobs_until = -math.inf

    @property
    def every(self) -> int:
        """At how many looks each that waits reads the log of a busy job."""
        return every(self.sharers, self.interval)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the connection."""
        return self._hook.warnings

    async def next(self) -> Snapshot:
        """Return the next snapshot when it is taken."""
        waiter: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return await waiter

    async def send(self, call: Call[T]) -> T:
        """Carry a call that changes nothing, once.

        :raises TimeXtenderError: also if the Airflow connection has never been usable.
        """
        if self._carrier is None:
            seen = self.newest or await self.next()
            if self._carrier is None:
                problem = seen.problem or Unreachable("The Airflow connection is not known.", sent=False)
                raise copy.copy(problem)  # as each tells of its own job
        return await self._carrier.send_in_thread(call)

    async def jobs(self) -> list[Job]:
        """Return all jobs; those who ask in the same moment share the answer, and its failure an interval."""
        clock = asyncio.get_running_loop().time
        async with self._asking_for_jobs:
            if clock() >= self._jobs_until:
                try:
                    self._jobs, age = await self.send(list_jobs()), min(self.interval, FRESH)
                except TimeXtenderError as error:
                    self._jobs, age = error, self.interval
                self._jobs_until = clock() + age
        if isinstance(self._jobs, TimeXtenderError):
            raise copy.copy(self._jobs)
        return self._jobs

    async def run(self) -> None:
        """Look until it is cancelled."""
        problem: TimeXtenderError | None = None
        statuses: Mapping[str, JobStatus] = {}
        resting_until = datetime.min.replace(tzinfo=timezone.utc)
        with ExitStack() as carriers:
            while True:
                at = datetime.now(timezone.utc)
                self.looks += 1
                # A Retry-After is obeyed; snapshots still come, as those who wait have limits of their own.
                if at >= resting_until:
                    try:
                        statuses, problem = await self._look(carriers, again=problem is not None), None
                    except Exception as error:  # noqa: BLE001 - nothing may end the wait of all that share it
                        said = f"Something unexpected happened ({type(error).__name__}: {error})."
                        problem = error if isinstance(error, TimeXtenderError) else Unreachable(said)
                        if problem.retry_after:
                            resting_until = at + timedelta(seconds=problem.retry_after)
                self.newest = snapshot = Snapshot(self.looks, at, statuses, problem)
                await self._wake(snapshot)
                await asyncio.sleep(self.interval * random.uniform(1, JITTER))

    async def _look(self, carriers: ExitStack, *, again: bool) -> Mapping[str, JobStatus]:
        if self._carrier is None or again:
            fresh = await self._hook.get_async_conn()
            if self._carrier is None or fresh.settings != self._carrier.settings:
                # The old one is closed at the end: somebody may be reading a log over it.
                self._carrier = carriers.enter_context(fresh)
        statuses = await self._carrier.send_in_thread(all_job_statuses())
        return {canonical(status.job_id): status for status in statuses}

    async def _wake(self, snapshot: Snapshot) -> None:
        waiters, self._waiters = self._waiters, []
        for number, waiter in enumerate(waiters, 1):
            if not waiter.done():
                waiter.set_result(snapshot)
            if number % WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)


_POLLS: dict[Hashable, tuple[Poll, asyncio.Task[None]]] = {}


@asynccontextmanager
async def shared_poll(timextender_conn_id: str, interval: float) -> AsyncIterator[Poll]:
    """Share the poll of a connection: it begins with the first that needs it, and ends with the last."""
    loop = asyncio.get_running_loop()
    key = (loop, timextender_conn_id, interval)
    if key not in _POLLS:
        poll = Poll(timextender_conn_id, interval)
        # In a context of its own, as its log lines belong to no single task.
        _POLLS[key] = poll, loop.create_task(poll.run(), context=Context())
    poll, looking = _POLLS[key]
    poll.sharers += 1
    try:
        yield poll
    finally:
        poll.sharers -= 1
        if not poll.sharers:
            del _POLLS[key]
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
