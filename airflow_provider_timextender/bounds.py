"""What ``requests`` leaves without a limit: the time of a whole answer, and the body of a redirect."""

from __future__ import annotations

import io
import socket
import time
from http.client import HTTPResponse
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

IN_ALL = 4
"""How many timeouts a whole answer may take: it may come in drops, each of which is in time."""


class BoundedAdapter(HTTPAdapter):
    """Mounted on a session, it ends answers that take :data:`IN_ALL` timeouts, with their headers.

    A ``Location`` is only in the headers of ``response.raw``: a session reads the whole body of a redirect
    that it finds, even if it is not to follow it.
    """

    def build_response(self, *args: Any, **kwargs: Any) -> Any:
        """Return the response to a request."""
        response = super().build_response(*args, **kwargs)
        response.headers.pop("Location", None)
        return response

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool of connections for a request."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _Https if issubclass(pool.ConnectionCls, HTTPSConnection) else _Http
        return pool


class _Reader(io.RawIOBase):
    def __init__(self, connection: io.RawIOBase, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"timed out: the answer was not whole after {self._seconds:g} s")
        return self._connection.readinto(buffer)

    def close(self) -> None:
        self._connection.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        seconds = IN_ALL * (sock.gettimeout() or 0)
        self.fp = io.BufferedReader(_Reader(self.fp.detach(), seconds))


class _Http(HTTPConnection):
    response_class = _Response


class _Https(HTTPSConnection):
    response_class = _Response
