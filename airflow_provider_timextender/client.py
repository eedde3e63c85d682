"""The carrier of a call on a worker: the only place where sockets are opened."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

import requests
import tenacity
from requests.auth import AuthBase
from urllib3 import exceptions as urllib3

from airflow_provider_timextender import __version__
from airflow_provider_timextender.api import Answer, Call, read
from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.errors import (
    BadCertificate,
    ContractError,
    InvalidInput,
    ServerError,
    SubmissionUncertain,
    TimeXtenderError,
    Unavailable,
    Unreachable,
)

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


class _ApiKey(AuthBase):
    """Sets the key's header on a request.

    As an ``auth`` object, and not a header of the session, it shows in no repr, and ``requests`` does
    not put credentials of a ``.netrc`` in its place.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers[self._settings.api_key_header] = self._settings.api_key
        return request


class Client:
    """Carries calls over one pooled ``requests`` session.

    :param settings: the checked connection.
    :param max_unreachable: seconds for which a read that could not be served is repeated.
    """

    def __init__(self, settings: Settings, *, max_unreachable: float) -> None:
        self._settings = settings
        self._auth = _ApiKey(settings)
        self._session = requests.Session()
        self._repeat = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, TimeXtenderError) and e.transient),
            wait=_wait,
            stop=tenacity.stop_before_delay(max_unreachable),
            before_sleep=_log_repeat,
            reraise=True,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session.close()

    def read(self, call: Call[T]) -> T:
        """Carry a call that changes nothing, again and again while the error is a passing one.

        :raises TimeXtenderError: the last error, when ``max_unreachable`` is over or at once if
            repeating cannot help.
        """
        answer: T = self._repeat(self._send, call, self._session)
        return answer

    def submit(self, call: Call[T]) -> T:
        """Carry a call that must happen at most once.

        It is repeated only as long as nothing of it can have reached the server.

        :raises SubmissionUncertain: if it may have arrived and the answer does not tell.
        """
        only_unsent = self._repeat.copy(
            retry=tenacity.retry_if_exception(
                lambda e: isinstance(e, Unreachable) and e.transient and not e.sent
            )
        )
        try:
            answer: T = only_unsent(self._submit, call)
            return answer
        except (Unreachable, ServerError, ContractError) as error:
            if isinstance(error, Unreachable) and not error.sent:
                raise
            problem = str(error)
        raise SubmissionUncertain(
            f"It is not known whether the job was queued: {problem} It is not sent again, as that could "
            "run the load twice. Look in TimeXtender whether an execution has begun, and clear the task "
            "only if none has."
        )

    def _submit(self, call: Call[T]) -> T:
        # Not on the pooled session: a connection that was kept alive may be closed by the server at the
        # moment of sending, and then nobody knows whether the request was read.
        with requests.Session() as session:
            return self._send(call, session)

    def _send(self, call: Call[T], session: requests.Session) -> T:
        url = f"{self._settings.base_url}{call.path}"
        where = f"{call.method} {url}"
        try:
            response = session.request(
                call.method,
                url,
                auth=self._auth,
                headers={
                    "Accept": "application/json",
                    "User-Agent": f"airflow-provider-timextender/{__version__}",
                },
                timeout=self._settings.timeout,
                # Given here because a CA bundle from the environment overrides a session's `verify`.
                verify=self._settings.verify,
                proxies=dict(self._settings.proxies),
                allow_redirects=False,
            )
        except (requests.RequestException, OSError) as error:
            failure = _failure(error, where)
        else:
            return self._read(call, response, where)
        # Raised out here, so that the request, whose headers hold the key, is not in its context.
        raise failure

    def _read(self, call: Call[T], response: requests.Response, where: str) -> T:
        key = self._settings.api_key
        body = response.content
        if not response.ok:  # a server may quote the key that it refuses
            body = body.replace(key.encode(), b"***")
        headers = {name.lower(): value for name, value in response.headers.items()}
        try:
            return read(call, Answer(where, response.status_code, headers, body), self._settings.vocabulary)
        except TimeXtenderError as error:
            error.args = tuple(str(arg).replace(key, "***") for arg in error.args)
            raise


def _failure(error: Exception, where: str) -> Unreachable | InvalidInput:
    if isinstance(error, ValueError) or not isinstance(error, requests.RequestException):
        # What `requests` says before it opens a socket: an unusable URL, proxy or CA bundle.
        return InvalidInput(f"{where}: {error}. Check the host, `proxies` and `verify` of the connection.")
    causes = list(_causes(error))
    why = f"{where}: no answer ({type(causes[-1]).__name__}: {causes[-1]})."
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return BadCertificate(
            f"{where}: the server's certificate is not trusted ({causes[-1]}). Nothing was sent. "
            "Set the path of your CA bundle as `verify` in the extra of the connection."
        )
    unsent = isinstance(error, requests.ConnectTimeout) or any(
        # NameResolutionError is a NewConnectionError; a proxy that could not be reached is one too.
        isinstance(cause, urllib3.NewConnectionError)
        for cause in causes
    )
    return Unreachable(why, sent=not unsent)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it wraps, as ``requests`` and urllib3 wrap it, down to the cause."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = getattr(current, "reason", None) or next(
            (arg for arg in current.args if isinstance(arg, BaseException)), None
        )
        current = inner if isinstance(inner, BaseException) else current.__cause__
