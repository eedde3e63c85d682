"""Carries a call to the API and its answer back: one exchange, within limits of size and time.

The only place where sockets are opened. Nothing is repeated here; by the error, whoever sends decides that.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import itertools
import json
import re
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cache, cached_property, partial
from http.client import HTTPResponse
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Self, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import LocationValueError

from airflow_provider_timextender import __version__, errors
from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.jobs_api import LIST_OF, Answer, Call, read, read_each
from airflow_provider_timextender.model import plain

T = TypeVar("T")

CONNECTIONS = 2
"""How many connections :meth:`Carrier.send_in_thread` has open at the same time, at most."""

IN_ALL = 4
"""How many timeouts a whole answer may take, with its headers: each of the drops it comes in is in time."""

PACE = 64 * 1024
"""For so many bytes of an answer it may take a second more; what whoever reads it does in between is not
counted."""

STEP = 256 * 1024
"""Bytes that are unpacked at once."""

ERROR_LIMIT = 16 * 1024
"""Bytes that are read of an answer which is no success: its message shows the first few hundred."""

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip",  # what receive() unpacks
    "User-Agent": f"airflow-provider-timextender/{__version__}",
}


class Carrier:
    """Sends calls with the API key of a connection; may be used by several threads at the same time.

    :param settings: the checked connection.
    :param understood: the subjects of calls that have been answered in the right shape, added to here.
    """

    def __init__(self, settings: Settings, understood: set[str] | None = None) -> None:
        self.settings = settings
        self.understood = set() if understood is None else understood
        self._mask = Mask(settings.api_key)
        self._kept = _session(settings)
        self._threads = _Threads()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept; the threads end with what they were given."""
        self._threads.end()
        self._kept.close()

    def send(self, call: Call[T]) -> T:
        """Send one request, once, and return what the answer says.

        :raises Unreachable: if no whole answer came; its ``sent`` tells whether the request may have arrived.
        :raises InvalidInput: if the host, ``proxies`` or ``verify`` of the connection cannot be used.
        :raises TimeXtenderError: for what an answer says, as :func:`~.jobs_api.read`.
        """
        try:
            with self._answer(call) as answer, self._understanding(call, answer) as found:
                said = read(call, answer, self.settings.vocabulary, self.settings.timezone)
                found.append(said)
            return said
        except Exception as error:  # noqa: BLE001 - a library may raise anything for a strange answer
            failure = self._told(error, call)
        # Raised out here, so that the request, whose headers hold the key, is not in its context.
        raise failure

    def stream(self, call: Call[Iterator[T]]) -> Generator[T, None, None]:
        """Send one request, once, and yield what the answer says as it arrives.

        The connection is in use until the end, or until whoever asks for more closes this generator.

        :raises TimeXtenderError: as :meth:`send`, also after some of it.
        """
        try:
            with self._answer(call) as answer, self._understanding(call, answer) as found:
                for one in read_each(call, answer, self.settings.vocabulary, self.settings.timezone):
                    found[:] = [one]
                    yield one
            return
        except Exception as error:  # noqa: BLE001 - likewise
            failure = self._told(error, call)
        raise failure

    async def send_in_thread(self, call: Call[T]) -> T:
        """Send one request, as :meth:`send`, without holding up the event loop.

        Two are sent at the same time; the others wait for their turn, which has no limit, as it is no fault
        of the server's. When the wait is cancelled it ends at once, and a request that has begun at its own
        limit of time.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[T] = loop.create_future()

        def exchange() -> None:
            if answered.cancelled():  # before its turn
                return
            try:
                tell = partial(answered.set_result, self.send(call))
            except BaseException as error:  # noqa: BLE001 - told to whoever waits
                tell = partial(answered.set_exception, error)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(end, tell)
            del tell  # so that the traceback of an error does not hold the error

        def end(tell: Callable[[], None]) -> None:
            if not answered.done():  # cancelled
                tell()

        try:
            self._threads.do(exchange)
        except RuntimeError as error:
            raise errors.Unreachable(f"Nothing could be sent ({error}).", sent=False) from None
        return await answered

    @cached_property
    def _way(self) -> Mapping[str, Any]:
        """The proxy to take and whom to trust, by the connection or as requests reads the environment."""
        how = self.settings
        # Asked here, as a CA bundle of the environment would override a session's `verify`.
        way = self._kept.merge_environment_settings(how.base_url, dict(how.proxies), True, how.verify, None)
        if isinstance(way["verify"], str):
            _check_bundle(way["verify"])
        return way

    @contextmanager
    def _answer(self, call: Call[Any]) -> Iterator[Answer]:
        """Send a request; what its answer holds arrives while it is read."""
        way, url = self._way, f"{self.settings.base_url}{call.path}"
        headers = {**_HEADERS, self.settings.api_key_header: self.settings.api_key}
        if call.same is not None:
            headers["If-None-Match"] = call.same[0]
        # A connection that was kept may be closed by the server at the moment of sending, and then nobody
        # knows whether the request was read. So what must not be sent twice goes over a new one.
        with nullcontext(self._kept) if call.method == "GET" else _session(self.settings) as session:
            # Not prepared by the session, which would add its cookies, and the credentials of a .netrc.
            request = requests.Request(call.method, url, headers=headers).prepare()
            with session.send(
                request, timeout=self.settings.timeout, allow_redirects=False, **way
            ) as response:
                begun = Answer(f"{call.method} {url}", response.status_code, response.raw.headers, b"")
                pieces = _paced(response.raw)
                answer = receive(begun, pieces, call.limit, self._mask)
                try:
                    yield answer
                except errors.TimeXtenderError:
                    raise
                except Exception as error:
                    raise _BrokenOff(answer.size) from error

    @contextmanager
    def _understanding(self, call: Call[Any], answer: Answer) -> Iterator[list[Any]]:
        """Remember whether an answer has had the right shape: whoever understands it adds something.

        Where the right shape has come before, JSON of another one is a passing oddity, such as a gateway's
        word about its maintenance. An empty list says only that it is a list.
        """
        found: list[Any] = []
        whole = False
        try:
            yield found
            whole = True
        except errors.ContractError as error:
            found.clear()
            known = {call.subject} if _is_list(answer) else {call.subject, LIST_OF + call.subject}
            if isinstance(error, errors.AnswerTooLarge) or self.understood.isdisjoint(known):
                raise
            raise errors.UnreadableAnswer(str(error)) from None
        finally:
            if any(found):  # also if it broke off after that
                self.understood.add(call.subject)
            if whole and _is_list(answer):
                self.understood.add(LIST_OF + call.subject)

    def _told(self, error: Exception, call: Call[Any]) -> errors.TimeXtenderError:
        return _failure(error, f"{call.method} {self.settings.base_url}{call.path}", self._mask)


def _is_list(answer: Answer) -> bool:
    return answer.body[:100].lstrip()[:1] == b"["


class _Threads:
    """A thread for each connection, which do in turn what they are given, from the first of it on.

    They are daemons, so that a silent server does not hold up the end of the process; Python waits for those
    of a ThreadPoolExecutor, even if it has been shut down.
    """

    def __init__(self) -> None:
        self._given: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._begun = 0

    def __del__(self) -> None:
        self.end()

    def do(self, work: Callable[[], None]) -> None:
        """Let a thread do something when it comes to it.

        :raises RuntimeError: if no thread can be started.
        """
        while self._begun < CONNECTIONS:
            # It knows the queue only, so that whoever forgets to end it leaves no thread behind.
            Thread(target=_do_all, args=(self._given,), daemon=True).start()
            self._begun += 1
        self._given.put(work)

    def end(self) -> None:
        """Let the threads end when they have done what they were given."""
        for _ in range(self._begun):
            self._given.put(None)
        self._begun = 0


def _do_all(given: SimpleQueue[Callable[[], None] | None]) -> None:
    while (work := given.get()) is not None:
        work()
        del work  # and with it, what was answered


# --- what arrives ---


def receive(begun: Answer, pieces: Iterable[bytes], limit: int, mask: Mask) -> Answer:
    """Return an answer whose body arrives in pieces: unpacked, as UTF-8, and without the API key.

    gzip is unpacked here, and nothing else is offered to the server: not every supported version of urllib3
    limits what it unpacks.

    :param limit: bytes of a success, both as they are sent and unpacked.
    """
    headers = {name.lower(): mask.text(value) for name, value in begun.headers.items()}
    packed = headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")
    gzip = zlib.decompressobj(16 + zlib.MAX_WBITS) if packed else None
    begun = replace(begun, headers=headers)
    success = 200 <= begun.status < 300
    more = mask.pieces(_utf8(_unpacked(pieces, limit if success else ERROR_LIMIT, gzip)))
    if success:
        return replace(begun, more=more)
    body = bytearray()
    with suppress(errors.ContractError):  # the start is enough to say what went wrong
        for piece in more:
            body += piece
    return replace(begun, body=bytes(body))


def _unpacked(pieces: Iterable[bytes], limit: int, gzip: Any) -> Iterator[bytes]:
    """Yield what is sent, unpacked.

    :raises UnreadableAnswer: if it is broken. :raises AnswerTooLarge: if there is more of it than the limit.
    """
    sent = unpacked = 0
    for piece in pieces:
        sent += len(piece)
        try:
            for part in (piece,) if gzip is None else _unpack(gzip, piece, limit - unpacked):
                unpacked += len(part)
                # What is sent counts as well: gzip can be endless and unpack to nothing.
                if max(sent, unpacked) > limit:
                    raise errors.AnswerTooLarge(
                        f"it is larger than {limit} bytes, the limit for this call ({sent} bytes were read, "
                        f"{unpacked} unpacked)"
                    )
                yield part
        except zlib.error as error:
            raise errors.UnreadableAnswer(f"its gzip is broken ({error})") from None
        if gzip is not None and gzip.unused_data:
            raise errors.UnreadableAnswer("something follows its gzip")
    if gzip is not None and sent and not gzip.eof:
        raise errors.UnreadableAnswer("its gzip breaks off")


def _unpack(gzip: Any, piece: bytes, left: int) -> Iterator[bytes]:
    """Yield in steps what a piece holds, and at most one byte more than is left."""
    while True:
        part = gzip.decompress(piece, min(STEP, left + 1))
        left -= len(part)
        yield part
        piece = gzip.unconsumed_tail
        if left < 0 or not (piece or len(part) == STEP):
            return


def _utf8(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield UTF-8, whatever Unicode comes: its first four bytes tell which."""
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= 4:
            break
    encoding = json.detect_encoding(start)
    if encoding == "utf-8":
        yield start
        yield from pieces
        return
    # It may begin with a mark, which is no part of the text.
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for piece in itertools.chain([start], pieces):
        yield decoder.decode(piece).encode()
    yield decoder.decode(b"", final=True).encode()


class Mask:
    """Hides the API key in what a server, a proxy or a library says, also where JSON or a URL escapes it.

    :ivar longest: how many bytes a spelling of the key takes, at most.
    """

    def __init__(self, key: str) -> None:
        self.longest = len(key) * len(r"\u0000")
        self._spelled = re.compile("".join(map(_spellings, key)).encode())
        # Where the key is, the longest row of letters and digits in it is there as it is, or one of them is
        # escaped, which hardly anybody does with letters and digits.
        row = max(re.findall("[0-9A-Za-z]+", key), key=len, default="")
        codes = "|".join(f"{ord(letter):02x}" for letter in {*row})
        self._row = row.encode()
        # Apart, as a search for what begins in one way only is much faster.
        self._escapes = (
            (b"\\", re.compile(rf"\\u00(?i:{codes})".encode())),
            (b"%", re.compile(rf"%(?i:{codes})".encode())),
        )

    def __call__(self, said: bytes) -> bytes:
        """Return bytes without the key."""
        # A search with the whole pattern takes ten times as long as all the rest of reading, and hardly an
        # answer has the key in it.
        return self._hidden(said) if self._may_be_in(said) else said

    def _may_be_in(self, said: bytes) -> bool:
        # From the end, Python finds it in a fourth of the time.
        return said.rfind(self._row) >= 0 or any(
            mark in said and escape.search(said) for mark, escape in self._escapes
        )

    def _hidden(self, said: bytes) -> bytes:
        # A search holds up all threads, so it is done in steps.
        steps = range(0, len(said), STEP)
        if any(self._spelled.search(said, at, at + STEP + self.longest) for at in steps):
            return self._spelled.sub(b"***", said)
        return said

    def pieces(self, said: Iterator[bytes]) -> Iterator[bytes]:
        """Yield without the key what comes in pieces, where it may be cut in two as well."""
        held = b""  # until it is known how it goes on
        for piece in said:
            seam = held[-self.longest :] + piece[: self.longest]
            if len(piece) < self.longest or self._may_be_in(seam):
                held = self(held + piece)
                yield held[: -self.longest]
                held = held[-self.longest :]
            else:
                yield self(held)
                held = piece
        yield self(held)

    def text(self, said: str) -> str:
        """Return a text without the key."""
        return self(said.encode(errors="replace")).decode()


def _spellings(letter: str) -> str:
    # Encoders of JSON write "+", "<" or "/" as \u002B, \u003c or \/, those of URLs as %2B, %3c or %2F.
    bare = re.escape(letter) if letter.isalnum() else rf"\\?{re.escape(letter)}"
    return rf"(?:{bare}|(?:\\u00|%)(?i:{ord(letter):02x}))"


# --- what goes wrong ---


class _BrokenOff(Exception):
    """An answer broke off, or what is wrong with it was found while it arrived.

    :ivar size: how many bytes had arrived.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class _NotConnected(Exception):
    """No connection could be made, to the server or a proxy, so that nothing of the request was sent."""


_UNUSABLE = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, LocationValueError)

_UNTRUSTED = (
    "the server's certificate is not trusted ({1}). Nothing was sent. "
    "Set the path of your CA bundle as `verify` in the extra of the connection."
)

_FAILURES: tuple[tuple[Any, Callable[[str], errors.TimeXtenderError], str], ...] = (
    (ssl.SSLCertVerificationError, errors.BadCertificate, _UNTRUSTED),
    (_UNUSABLE, errors.InvalidInput, "{1}. Check the host, `proxies` and `verify` of the connection."),
    (_NotConnected, partial(errors.Unreachable, sent=False), "no answer ({0}: {1})."),
    # What is not surely unsent counts as sent.
    (Exception, errors.Unreachable, "no answer ({0}: {1})."),
)
"""What a library raises, what it means, and what is said of its cause; the first that fits counts."""


def _failure(error: Exception, where: str, mask: Mask) -> errors.TimeXtenderError:
    if isinstance(error, errors.TimeXtenderError):
        error.__context__ = None  # in whose frames the key can be seen, as in its own
        return error.with_traceback(None)
    cause = _cause(error)
    # A library may quote the server, or a proxy with its password.
    said = plain(re.sub(r"//[^\s/@]*@", "//***@", mask.text(str(cause))))[:500]
    make, how = next(
        (m, how) for kind, m, how in _FAILURES if isinstance(error, kind) or isinstance(cause, kind)
    )
    arrived = (
        f" {error.size} bytes of it had arrived." if isinstance(error, _BrokenOff) and error.size else ""
    )
    return make(f"{where}: {how.format(type(cause).__name__, said)}{arrived}")


def _cause(error: BaseException) -> BaseException:
    """Return what an error is about, out of those of requests and urllib3 in which it is wrapped."""
    wrapped = [error.__cause__, getattr(error, "reason", None), *error.args]
    inner = next((each for each in wrapped if isinstance(each, BaseException)), None)
    return error if inner is None else _cause(inner)


def _check_bundle(bundle: str) -> None:
    """Refuse a CA bundle that cannot be read: while connecting, that looks like an error of the server."""
    try:
        ssl.create_default_context(**{"capath" if Path(bundle).is_dir() else "cafile": bundle})  # type: ignore[arg-type]
    except OSError as error:  # an SSLError is one, too
        raise errors.InvalidInput(f"The CA bundle {bundle!r} cannot be read: {error}.") from None


# --- what the libraries do not tell or limit ---


def _session(settings: Settings) -> requests.Session:
    session = requests.Session()
    session.mount(settings.base_url, _Adapter())
    return session


class _Adapter(HTTPAdapter):
    def build_response(self, *args: Any, **kwargs: Any) -> Any:
        # A session reads the whole body of a redirect that it finds, even if it is not to follow it.
        response = super().build_response(*args, **kwargs)
        response.headers.pop("Location", None)
        return response

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _own(pool.ConnectionCls)
        return pool


@cache
def _own(kind: type) -> type:
    """Return a kind of connection, for http, https or a SOCKS proxy, with what is our own in it."""
    return kind if issubclass(kind, _Connection) else type(kind.__name__, (_Connection, kind), {})


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.in_time = _InTime(self.fp.detach(), IN_ALL * (sock.gettimeout() or 0))
        self.fp = io.BufferedReader(self.in_time)


def _paced(raw: Any) -> Iterator[bytes]:
    """Yield what is sent, which earns more time: what is in headers, or between chunks, does not."""
    in_time = getattr(raw._original_response, "in_time", None)  # a mock has none
    for piece in raw.stream(64 * 1024, decode_content=False):
        if in_time is not None:
            in_time.left += len(piece) / PACE
        yield piece


class _Connection:
    response_class = _Response

    def connect(self) -> None:
        """Connect to the server, through the proxy and with TLS if there are."""
        try:
            super().connect()  # type: ignore[misc]
        except Exception as error:
            # Neither urllib3 nor requests knows this error, so that it arrives as it is.
            raise _NotConnected from error


class _InTime(io.RawIOBase):
    def __init__(self, connection: io.RawIOBase, seconds: float) -> None:
        self._connection = connection
        self.left = seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.left < 0:
            raise TimeoutError(f"timed out: the answer was not whole after {IN_ALL} timeouts")
        began = time.monotonic()
        count = self._connection.readinto(buffer)
        self.left -= time.monotonic() - began
        return count

    def close(self) -> None:
        self._connection.close()
        super().close()
