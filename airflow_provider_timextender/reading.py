"""Goes through the executions of a job while its log arrives, and on from where that broke off."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Protocol

from airflow_provider_timextender.errors import ContractError, TimeXtenderError
from airflow_provider_timextender.jobs_api import Call
from airflow_provider_timextender.life import World, passes, repeat, run_through
from airflow_provider_timextender.model import Execution


class Streams(Protocol):
    """What asks: the hook."""

    def stream(self, call: Call[Iterator[Execution]]) -> Generator[Execution, None, None]:
        """Carry a call once, and yield what the answer says as it arrives."""


def each(
    hook: Streams, world: World, call: Call[Iterator[Execution]], *, patience: float
) -> Iterator[Execution]:
    """Yield executions; what is asked for again after it has broken off goes on with the next one.

    :param patience: seconds for which the next one is asked for again and again.
    :raises ContractError: if that is not possible, as the log begins with others then.
    """
    reading = _Reading(hook, call, world)
    with closing(reading):
        while True:
            execution = run_through(repeat(world, reading.next, bears=passes, patience=patience))
            if execution is None:
                return
            yield execution
            # The rule is asked only when there is trouble.
            yield from reading.until_it_breaks_off()


class _Reading:
    """Remembers of what it has yielded only how many there were, and a checksum, whatever their number."""

    def __init__(self, hook: Streams, call: Call[Iterator[Execution]], world: World) -> None:
        self._hook = hook
        self._world = world
        self._call = call
        self._count = 0
        self._checksum = hashlib.blake2b()
        self._going: Generator[Execution, None, None] | None = None

    async def next(self) -> Execution | None:
        """Return the next execution, ``None`` at the end."""
        self._going = self._going or self._go_on()
        try:
            return next(self._going, None)
        except Exception:
            self._going = None
            raise

    def until_it_breaks_off(self) -> Iterator[Execution]:
        """Yield what follows; what goes wrong is left to :meth:`next`, which asks again."""
        try:
            yield from self._going or ()
        except TimeXtenderError as error:
            self._going = None
            if not passes(error):
                raise
            self._world.log.warning("Asking again, for what follows %d executions: %s", self._count, error)

    def close(self) -> None:
        """Release the connection."""
        if self._going is not None:
            self._going.close()

    def _go_on(self) -> Generator[Execution, None, None]:
        checksum = hashlib.blake2b()
        before = self._checksum.digest()
        number = 0
        with closing(self._hook.stream(self._call)) as stream:
            for number, execution in enumerate(stream, 1):
                checksum.update(execution.key.encode())
                if number > self._count:
                    self._count, self._checksum = number, checksum
                    yield execution
                elif number == self._count and checksum.digest() != before:
                    raise self._other()
        if number < self._count:
            raise self._other()

    def _other(self) -> ContractError:
        error = ContractError(
            f"its log broke off after {self._count} executions, and when it was asked for again, it did not "
            "begin with the same, so that it cannot be told where to go on."
        )
        error.retry_helps = True  # whoever reads the whole of it anew need not go on
        return error
