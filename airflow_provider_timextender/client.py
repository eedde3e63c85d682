"""The two carriers of a call, for workers and for the triggerer: the only place where sockets are opened.

They differ in the library that they call, and share the rest: what is sent, which errors come of it, and when
a read is repeated.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import ssl
import traceback
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import requests
import tenacity
from requests.auth import AuthBase
from urllib3 import exceptions as urllib3

from airflow_provider_timextender import __version__
from airflow_provider_timextender.bounds import IN_ALL, BoundedAdapter
from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.errors import (
    AnswerTooLarge,
    BadCertificate,
    ContractError,
    InvalidInput,
    ServerError,
    SubmissionUncertain,
    TimeXtenderError,
    Unavailable,
    Unreachable,
    UnreadableAnswer,
)
from airflow_provider_timextender.incoming import Incoming, without_key
from airflow_provider_timextender.jobs_api import LIST_OF, Call, read
from airflow_provider_timextender.model import plain

if TYPE_CHECKING:
    import aiohttp

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


_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip",  # what Incoming unpacks
    "User-Agent": f"airflow-provider-timextender/{__version__}",
}

_PIECE = 64 * 1024


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
    :param understood: the subjects of calls that have been answered in the right shape before.
    """

    def __init__(
        self, settings: Settings, *, max_unreachable: float, understood: set[str] | None = None
    ) -> None:
        self._settings = settings
        self._auth = _ApiKey(settings)
        self._session = requests.Session()
        self._max_unreachable = max_unreachable
        self._understood = set() if understood is None else understood
        self._repeat = tenacity.Retrying(**_repeat_rule(max_unreachable))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._session.close()

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
        answer: T = self._repeat.copy(stop=limit)(self._send, call, self._session)
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
            # Not on the pooled session: a connection that was kept alive may be closed by the server at the
            # moment of sending, and then nobody knows whether the request was read.
            with requests.Session() as session:
                return self._send(call, session)
        except (Unreachable, ServerError, ContractError) as error:
            if isinstance(error, Unreachable) and not error.sent:
                raise
            problem = str(error)
        raise SubmissionUncertain(f"It is not known whether the job was queued: {problem}")

    def _send(self, call: Call[T], session: requests.Session) -> T:
        where = f"{call.method} {self._settings.base_url}{call.path}"
        try:
            incoming = self._ask(call, session, where)
        except Exception as error:  # noqa: BLE001 - a library may raise anything for a strange answer
            failure = _failure(error, where, self._settings)
        else:
            return _read(call, incoming, self._settings, self._understood)
        # Raised out here, so that the request, whose headers hold the key, is not in its context.
        raise failure

    def _ask(self, call: Call[T], session: requests.Session, where: str) -> Incoming:
        url = f"{self._settings.base_url}{call.path}"
        if not isinstance(session.get_adapter(url), BoundedAdapter):
            session.mount(self._settings.base_url, BoundedAdapter())
            # Nothing of one answer may show in the next request.
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        with session.request(
            call.method,
            url,
            auth=self._auth,
            headers=_HEADERS,
            timeout=self._settings.timeout,
            # Given here because a CA bundle from the environment overrides a session's `verify`.
            verify=self._settings.verify,
            proxies=dict(self._settings.proxies),
            allow_redirects=False,
            stream=True,
        ) as response:
            incoming = Incoming(where, response.status_code, response.raw.headers, call.limit)
            for piece in response.raw.stream(_PIECE, decode_content=False):
                if not incoming.add(piece):
                    break
            return incoming


CONNECTIONS = 2
"""How many connections an :class:`AsyncClient` has open at the same time, at most."""

_LARGE = 64 * 1024
"""Bytes of an answer from which on it is parsed in a thread, as it would hold up the event loop."""


class AsyncClient:
    """Carries calls that change nothing over one pooled ``aiohttp`` session, as :class:`Client` does.

    :param settings: the checked connection.
    :param max_unreachable: seconds for which a read that could not be served is repeated.
    :param understood: the subjects of calls that have been answered in the right shape before.
    """

    def __init__(
        self, settings: Settings, *, max_unreachable: float, understood: set[str] | None = None
    ) -> None:
        self.settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._repeat = tenacity.AsyncRetrying(**_repeat_rule(max_unreachable))
        self._proxy = _proxy_for(settings)
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self.understood = set() if understood is None else understood

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, call: Call[T]) -> T:
        """Carry a call once."""
        return await self._send(call)

    async def read(self, call: Call[T]) -> T:
        """Carry a call, again and again while the error is a passing one.

        :raises TimeXtenderError: as :meth:`Client.read`.
        """
        answer: T = await self._repeat(self._send, call)
        return answer

    async def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            # A CA bundle is read from disk, which must not hold up the event loop.
            trust = await asyncio.to_thread(_trust, self.settings.verify)
            timeout = self.settings.timeout
            # Not by asyncio.wait_for, which before Python 3.12 can swallow a cancellation, so that whoever
            # ends a poll would wait for ever.
            limits = aiohttp.ClientTimeout(total=IN_ALL * timeout, sock_connect=timeout, sock_read=timeout)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=trust),
                timeout=limits,
                headers=_HEADERS,
                auto_decompress=False,
                # Nothing of one answer may show in the next request, nor anything of the environment:
                # `trust_env` would also send the credentials of a .netrc.
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    async def _send(self, call: Call[T]) -> T:
        where = f"{call.method} {self.settings.base_url}{call.path}"
        session = await self._open()
        failure: Unreachable | InvalidInput
        try:
            incoming = await self._ask(call, session, where)
        except Exception as error:  # noqa: BLE001 - as above
            failure = _async_failure(error, where, self.settings)
        else:
            parse = partial(_read, call, incoming, self.settings, self.understood)
            return await asyncio.to_thread(parse) if incoming.size > _LARGE else parse()
        # As in Client: raised out here, without the request in its context.
        raise failure

    async def _ask(self, call: Call[T], session: aiohttp.ClientSession, where: str) -> Incoming:
        # The wait for one's turn is no fault of the server's, and does not count.
        async with (
            self._turns,
            session.request(
                call.method,
                f"{self.settings.base_url}{call.path}",
                headers={self.settings.api_key_header: self.settings.api_key},
                proxy=self._proxy,
                allow_redirects=False,
            ) as response,
        ):
            incoming = Incoming(where, response.status, response.headers, call.limit)
            async for piece in response.content.iter_any():
                if not incoming.add(piece):
                    break
            return incoming


def _proxy_for(settings: Settings) -> str | None:
    """Return the proxy that ``requests`` would take."""
    found = {**requests.utils.get_environ_proxies(settings.base_url), **settings.proxies}
    proxy: str | None = requests.utils.select_proxy(settings.base_url, found)
    if not proxy:
        return None
    return str(requests.utils.prepend_scheme_if_needed(proxy, "http"))  # type: ignore[no-untyped-call]


def _trust(verify: bool | str) -> ssl.SSLContext | bool:
    """Return whom to trust, as ``requests`` does."""
    if verify is False:
        return False
    if verify is True:
        environment = (os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))
        verify = next(filter(None, environment), None) or requests.utils.DEFAULT_CA_BUNDLE_PATH
    try:
        return _context(verify, Path(verify).stat().st_mtime)
    except OSError as error:  # an SSLError is one, too
        raise InvalidInput(f"The CA bundle {verify!r} cannot be read: {error}.") from None


@lru_cache(maxsize=8)
def _context(bundle: str, changed: float) -> ssl.SSLContext:
    """Read a CA bundle once until it changes: it takes half a megabyte and some milliseconds."""
    return ssl.create_default_context(**{"capath" if Path(bundle).is_dir() else "cafile": bundle})  # type: ignore[arg-type]


def _read(call: Call[T], incoming: Incoming, settings: Settings, understood: set[str]) -> T:
    """Return what an answer says.

    :param understood: the subjects of calls that have been answered in the right shape before. JSON of
        another shape is then a passing oddity, such as a gateway's word about its maintenance. An empty list
        says only that it is a list.
    """
    answer = incoming.answer(settings)
    is_list = answer.body[:100].lstrip()[:1] == b"["
    try:
        found = read(call, answer, settings.vocabulary, settings.timezone)
    except ContractError as error:
        oddity = call.subject in understood or (LIST_OF + call.subject in understood and not is_list)
        if isinstance(error, AnswerTooLarge) or not oddity:
            raise
        problem = str(error)
    else:
        if found:
            understood.add(call.subject)
        if is_list:
            understood.add(LIST_OF + call.subject)
        return found
    raise UnreadableAnswer(problem)


def _async_failure(error: Exception, where: str, settings: Settings) -> Unreachable | InvalidInput:
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _bad_certificate(where, error, settings)
    if isinstance(error, aiohttp.InvalidURL):
        return _unusable(where, error, settings)
    unsent = isinstance(
        error, (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.ConnectionTimeoutError)
    )
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return _unreachable(where, cause, settings, sent=not unsent)


def _failure(error: Exception, where: str, settings: Settings) -> Unreachable | InvalidInput:
    causes = list(_causes(error))
    last = causes[-1]
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return _bad_certificate(where, last, settings)
    if type(error) is OSError or "X509" in str(last):  # how `requests` says it, before it opens a socket
        return InvalidInput(f"The CA bundle {settings.verify!r} cannot be read: {last}.")
    if isinstance(error, _UNUSABLE):
        return _unusable(where, error, settings)
    unsent = isinstance(error, requests.ConnectTimeout) or any(
        # NameResolutionError is a NewConnectionError; a proxy that could not be reached is one too.
        isinstance(cause, urllib3.NewConnectionError)
        or str(cause).startswith("Tunnel connection failed")
        or _in_handshake(cause)
        for cause in causes
    )
    return _unreachable(where, last, settings, sent=not unsent)


def _in_handshake(error: BaseException) -> bool:
    # An error of TLS does not tell by its type whether it came before the request or after.
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name == "do_handshake" for frame, _ in frames)


_UNUSABLE = (
    requests.exceptions.InvalidURL,  # a proxy's, too
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.LocationValueError,
)


def _unreachable(where: str, error: BaseException, settings: Settings, *, sent: bool) -> Unreachable:
    return Unreachable(f"{where}: no answer ({type(error).__name__}: {_said(error, settings)}).", sent=sent)


def _unusable(where: str, error: Exception, settings: Settings) -> InvalidInput:
    return InvalidInput(
        f"{where}: {_said(error, settings)}. Check the host, `proxies` and `verify` of the connection."
    )


def _bad_certificate(where: str, error: BaseException, settings: Settings) -> BadCertificate:
    return BadCertificate(
        f"{where}: the server's certificate is not trusted ({_said(error, settings)}). Nothing was sent. "
        "Set the path of your CA bundle as `verify` in the extra of the connection."
    )


def _said(error: BaseException, settings: Settings) -> str:
    """Return a library's message, which may quote the server, or a proxy with its password."""
    text = plain(_USER.sub("//***@", without_key(str(error), settings.api_key)))
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


_LONGEST = 500

_USER = re.compile(r"//[^\s/@]*@")


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
