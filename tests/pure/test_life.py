"""What a wait does in a world of its own."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_timextender import life
from airflow_provider_timextender.errors import WaitTimeout
from airflow_provider_timextender.model import JobState, JobStatus
from airflow_provider_timextender.shown import Memory
from airflow_provider_timextender.verdict import Run

BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
JOB, TRIGGER = "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "3f2504e0-4f89-11d3-9a0c-0305e82c3302"


class Busy:
    """A world in which the job is busy whenever it is looked at, once a second.

    :ivar reads: the looks at which the log was read.
    """

    every = 100
    longest_pause = 1.0
    hands_over = False
    log = logging.getLogger(__name__)

    def __init__(self) -> None:
        self.looks = 0
        self.reads: list[int] = []
        self.understood: set[str] = set()
        self.memory = Memory(self.log)

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.looks)

    async def status(self, job_id: str) -> tuple[JobStatus, datetime]:
        return JobStatus(job_id, JobState.RUNNING), self.now()

    async def send(self, call: Any) -> Any:
        self.reads.append(self.looks)
        return []

    async def jobs(self) -> Any:
        return []

    async def rest(self, run: Run, limits: life.Limits) -> None:
        self.looks += 1

    async def sleep(self, seconds: float) -> None: ...

    def renew(self) -> None: ...

    def show(self, run: Run, seen: Any) -> None: ...


@pytest.mark.parametrize("looked", [False, True], ids=["nobody has looked", "somebody has looked"])
def test_waits_that_begin_together_read_their_logs_apart(looked: bool) -> None:
    turns = set()
    for _ in range(20):
        world = Busy()
        limits = life.Limits(1, 60, BEGAN + timedelta(seconds=250), WaitTimeout("It was not over."))
        wait = life.Wait(world, Run(JOB, TRIGGER, BEGAN), limits, looked=looked, just=looked)
        with pytest.raises(WaitTimeout):
            life.run_through(wait.follow())
        first, *reads = world.reads if looked else world.reads[1:]
        assert looked or world.reads[0] == 0
        assert reads == [*range(first + 100, 250, 100), 250], "every 100 looks, and at the last one"
        turns.add(first)
    assert len(turns) > 5, turns
