"""Who sends calls: a worker, and an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from airflow_provider_timextender import life
from airflow_provider_timextender.carrier import Carrier
from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.jobs_api import Call
from airflow_provider_timextender.worlds import Worker

T = TypeVar("T")

log = logging.getLogger(__name__)


class Caller:
    """Sends from a worker, as a hook does.

    :param max_unreachable: seconds for which a call is repeated.
    """

    def __init__(self, settings: Settings, *, max_unreachable: float = 0) -> None:
        self.carrier = Carrier(settings)
        self.understood = self.carrier.understood
        self._patience = max_unreachable
        self._world = self._make_world()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.carrier.close()

    def renew(self) -> None:
        """Keep the connection: there is no Airflow that could know another one."""

    def send(self, call: Call[T]) -> T:
        """Carry a call once."""
        return self.carrier.send(call)

    def read(self, call: Call[T]) -> T:
        """Carry a call that changes nothing, and repeat it while its error is a passing one."""
        return self._run(life.read(self._world, call, patience=self._patience))

    def submit(self, call: Call[T]) -> T:
        """Carry a call at most once."""
        return self._run(life.submit(self._world, call, patience=self._patience))

    def _make_world(self) -> Worker:
        return Worker(self, log)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return life.run_through(work)


class LoopCaller(Caller):
    """Sends from an event loop of its own, as a triggerer does."""

    def __init__(self, settings: Settings, *, max_unreachable: float = 0) -> None:
        super().__init__(settings, max_unreachable=max_unreachable)
        self._loop = asyncio.Runner()

    def close(self) -> None:
        super().close()
        self._loop.close()

    def send(self, call: Call[T]) -> T:
        return self._run(self.carrier.send_in_thread(call))

    def _make_world(self) -> Worker:
        return _World(self, log)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(work)


class _World(Worker):
    """A world that waits in an event loop."""

    def __init__(self, caller: LoopCaller, log: Any) -> None:
        super().__init__(caller, log)
        self._carrier = caller.carrier

    async def send(self, call: Call[T]) -> T:
        return await self._carrier.send_in_thread(call)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


CALLERS = {"worker": Caller, "event loop": LoopCaller}
