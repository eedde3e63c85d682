"""One poll for all that wait in the triggerer: the status of all jobs, with one request an interval."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from airflow_provider_timextender.errors import TimeXtenderError, Unavailable, Unreachable
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.inputs import span
from airflow_provider_timextender.jobs_api import all_job_statuses, job_status
from airflow_provider_timextender.model import JobStatus, canonical

if TYPE_CHECKING:
    from airflow_provider_timextender.client import AsyncClient

RECHECKS = 10
"""How many logs of busy jobs a poll reads in one interval, about, or one a second if that is more, whatever
the number of waiting tasks."""

JITTER = 1.05
"""Up to so many intervals pass between two looks, so that several triggerers do not come together."""

BACKSTOP = timedelta(minutes=5)
"""How long after its limit Airflow ends a wait that no triggerer has ended."""

MIN_INTERVAL = 1.0
"""Seconds between two looks where none were wanted."""


def backstop(seconds: float) -> timedelta:
    """Return the limit that Airflow is given for a wait with a limit."""
    return span(seconds) + BACKSTOP


@dataclass
class Shared:
    """What all that wait for a poll have in common.

    :ivar sharers: who they are, so that rare reads can be shared out among them.
    :ivar newest: when the newest snapshot was taken; an older one is not worth a look.
    """

    sharers: set[object] = field(default_factory=set)
    newest: datetime | None = None


@dataclass(frozen=True)
class Snapshot:
    """What a poll saw at one moment.

    :ivar at: when the statuses were asked for. :ivar statuses: canonical job id -> status.
    :ivar problem: why they could not be had.
    :ivar client: for further reads, over the poll's own few connections; ``None`` if the Airflow connection
        has never been usable.
    """

    at: datetime
    statuses: Mapping[str, JobStatus]
    problem: TimeXtenderError | None
    client: AsyncClient | None
    shared: Shared = field(repr=False)


def every(sharers: int, interval: float) -> int:
    """Return at how many looks the log of a busy job is read, if so many share the reads of a poll."""
    return max(3, math.ceil(sharers / max(RECHECKS, interval)))


async def poll(
    timextender_conn_id: str, interval: float, only: str | None = None
) -> AsyncGenerator[Snapshot, None]:
    """Yield a snapshot an interval, for ever: of all jobs, or of one if nobody shares the poll.

    What goes wrong is told in a snapshot and never raised, as an exception would end the wait of all that
    share the poll. After a failure the connection is read again: the key may have been changed in it.
    """
    hook = TimeXtenderHook(timextender_conn_id, max_unreachable=0)
    client: AsyncClient | None = None
    problem: TimeXtenderError | None = None
    statuses: Mapping[str, JobStatus] = {}
    shared = Shared()
    resting_until = datetime.min.replace(tzinfo=timezone.utc)
    async with AsyncExitStack() as clients:
        while True:
            at = datetime.now(timezone.utc)
            # A Retry-After is obeyed; snapshots still come, as those who wait have limits of their own.
            if at >= resting_until:
                try:
                    if client is None or problem is not None:
                        fresh = await hook.get_async_conn()
                        if client is None or fresh.settings != client.settings:
                            # The old one is closed at the end: somebody may be reading a log over it.
                            client = await clients.enter_async_context(fresh)
                    if only is None:
                        statuses = {canonical(s.job_id): s for s in await client.read(all_job_statuses())}
                    else:
                        statuses = {canonical(only): await client.read(job_status(only))}
                    problem = None
                except Exception as error:  # noqa: BLE001 - nothing may end the wait of all that share the poll
                    said = f"Something unexpected happened ({type(error).__name__}: {error})."
                    problem = error if isinstance(error, TimeXtenderError) else Unreachable(said)
                    if isinstance(error, Unavailable) and error.retry_after:
                        resting_until = at + timedelta(seconds=error.retry_after)
            shared.newest = at
            yield Snapshot(at, statuses, problem, client, shared)
            await asyncio.sleep(interval * random.uniform(1, JITTER))
