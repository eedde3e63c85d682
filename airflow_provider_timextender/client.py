"""Repeats what a carrier sends: reads while an error may pass, a submission while it is surely unsent."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Self, TypeVar

import tenacity

from airflow_provider_timextender.carrier import Carrier
from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.errors import (
    ContractError,
    ServerError,
    SubmissionUncertain,
    TimeXtenderError,
    Unavailable,
    Unreachable,
)
from airflow_provider_timextender.jobs_api import Call

T = TypeVar("T")

log = logging.getLogger(__name__)

BACKOFF = tenacity.wait_random_exponential(multiplier=1, max=30)
"""The wait before a repeated read, with full jitter, so that many tasks do not come back at once."""


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked_for = error.retry_after if isinstance(error, Unavailable) else None
    return max(BACKOFF(state), asked_for or 0)


def _log_repeat(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0
    log.warning("Asking again in %.1f s: %s", pause, error)


def _repeat_rule(max_unreachable: float) -> dict[str, Any]:
    """Return when a read is repeated, for ``tenacity``."""
    return {
        "retry": tenacity.retry_if_exception(lambda e: isinstance(e, TimeXtenderError) and e.transient),
        "wait": _wait,
        "stop": tenacity.stop_before_delay(max_unreachable),
        "before_sleep": _log_repeat,
        "reraise": True,
    }


class Client:
    """Carries calls for a worker.

    :param settings: the checked connection.
    :param max_unreachable: seconds for which a read that could not be served is repeated.
    :param understood: the subjects of calls that have been answered in the right shape before.
    """

    def __init__(
        self, settings: Settings, *, max_unreachable: float, understood: set[str] | None = None
    ) -> None:
        self._carrier = Carrier(settings, understood)
        self._max_unreachable = max_unreachable
        self._repeat = tenacity.Retrying(**_repeat_rule(max_unreachable))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._carrier.close()

    def send(self, call: Call[T]) -> T:
        """Carry a call once."""
        if call.method == "GET":
            return self._send(call, self._session)
        # Not on the pooled session: a connection that was kept alive may be closed by the server at the
        # moment of sending, and then nobody knows whether the request was read.
        with requests.Session() as session:
            return self._send(call, session)

    def close(self) -> None:
        """Close what is open."""
        self._session.close()

    def read(self, call: Call[T], *, patience: float = math.inf) -> T:
        """Carry a call that changes nothing, again and again while the error is a passing one.

        :param patience: seconds for which it is repeated, if fewer than ``max_unreachable``.
        :raises TimeXtenderError: the last error, when ``max_unreachable`` is over or at once if
            repeating cannot help.
        """
        limit = tenacity.stop_before_delay(min(patience, self._max_unreachable))
        answer: T = self._repeat.copy(stop=limit)(self._carrier.send, call)
        return answer

    def submit(self, call: Call[T], before: Callable[[], object] | None = None) -> T:
        """Carry a call that must happen at most once.

        It is repeated only as long as nothing of it can have reached the server.

        :param before: called each time before the request is sent; an exception of it ends the submission.
        :raises SubmissionUncertain: if it may have arrived and the answer does not tell.
        """
        only_unsent = self._repeat.copy(
            retry=tenacity.retry_if_exception(
                lambda e: isinstance(e, Unreachable) and e.transient and not e.sent
            )
        )
        answer: T = only_unsent(self._submit, call, before)
        return answer

    def _submit(self, call: Call[T], before: Callable[[], object] | None) -> T:
        if before is not None:
            before()
        try:
            return self._carrier.send(call)
        except (Unreachable, ServerError, ContractError) as error:
            if isinstance(error, Unreachable) and not error.sent:
                raise
            problem = str(error)
        raise SubmissionUncertain(f"It is not known whether the job was queued: {problem}")


class AsyncClient:
    """Carries calls that change nothing, as :class:`Client` does, for an event loop.

    :param settings: the checked connection.
    :param max_unreachable: seconds for which a read that could not be served is repeated.
    :param understood: the subjects of calls that have been answered in the right shape before.
    """

    def __init__(
        self, settings: Settings, *, max_unreachable: float, understood: set[str] | None = None
    ) -> None:
        self._carrier = Carrier(settings, understood)
        self._repeat = tenacity.AsyncRetrying(**_repeat_rule(max_unreachable))
        self.settings = settings
        self.understood = self._carrier.understood

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._carrier.close()

    async def send(self, call: Call[T]) -> T:
        """Carry a call once."""
        return await self._send(call)

    async def read(self, call: Call[T]) -> T:
        """Carry a call, again and again while the error is a passing one.

        :raises TimeXtenderError: as :meth:`Client.read`.
        """
        answer: T = await self._repeat(self._carrier.send_in_thread, call)
        return answer
