"""An answer while it arrives: unpacked and collected within a limit, whoever carries it."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping

from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.jobs_api import Answer

ERROR_LIMIT = 16 * 1024
"""Bytes that are read of an answer which is no success: its message shows the first few hundred."""

_GZIP = 16 + zlib.MAX_WBITS


class Incoming:
    """Collects an answer.

    It unpacks gzip itself, and nothing else is offered to the server: not every supported version of the HTTP
    libraries limits what it unpacks. No repr shows what it holds, as a server may have quoted the API key.

    :param limit: bytes of a success, both as they are sent and unpacked.
    """

    def __init__(self, where: str, status: int, headers: Mapping[str, str], limit: int) -> None:
        self._where = where
        self._status = status
        self._headers = {name.lower(): value for name, value in headers.items()}
        self._limit = limit if 200 <= status < 300 else ERROR_LIMIT
        packed = self._headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")
        self._gzip = zlib.decompressobj(_GZIP) if packed else None
        self._sent = 0
        self._body = bytearray()
        self._problem: str | None = None
        self._too_large = False

    def add(self, piece: bytes) -> bool:
        """Add what has arrived, and tell whether more is wanted."""
        self._sent += len(piece)
        if self._gzip is None:
            self._body += piece
        else:
            try:
                self._body += self._gzip.decompress(piece, self._limit + 1 - len(self._body))
            except zlib.error as error:
                self._problem = f"its gzip is broken ({error})"
            if self._gzip.unused_data:
                self._problem = "something follows its gzip"
        # What is sent counts as well: gzip can be endless and unpack to nothing.
        if max(self._sent, len(self._body)) > self._limit:
            self._too_large = True
            self._problem = (
                f"it is larger than {self._limit} bytes, the limit for this call "
                f"({self._sent} bytes were read, {len(self._body)} unpacked)"
            )
        return self._problem is None

    @property
    def size(self) -> int:
        """Bytes, unpacked."""
        return len(self._body)

    def answer(self, settings: Settings) -> Answer:
        """Return the answer as UTF-8 and without the API key, which a server may quote."""
        if self._problem is None and self._gzip is not None and self._sent and not self._gzip.eof:
            self._problem = "its gzip breaks off"
        headers = {name: without_key(value, settings.api_key) for name, value in self._headers.items()}
        if self._problem is None:
            body = _without(settings.api_key, _utf8(bytes(self._body)))
        else:
            body = _without(settings.api_key, _utf8(bytes(self._body[:ERROR_LIMIT])))
            # Where it was cut, a part of the key may be left.
            body = body[: -len(settings.api_key) * _ESCAPE]
        return Answer(self._where, self._status, headers, body, self._problem, self._too_large)


_ESCAPE = len(r"\u0000")


def _utf8(body: bytes) -> bytes:
    encoding = json.detect_encoding(body)
    return body if encoding.startswith("utf-8") else body.decode(encoding, "replace").encode()


def without_key(text: str, key: str) -> str:
    """Return a text in which a server, a proxy or a library may have quoted the API key, without it."""
    return _without(key, text.encode(errors="replace")).decode()


def _without(key: str, body: bytes) -> bytes:
    body = body.replace(key.encode(), b"***")
    # Most answers have neither, and this is on the way of each.
    if (b"\\" not in body and b"%" not in body) or _escaped(key).search(body) is None:
        return body
    return re.sub("".join(f"(?:{re.escape(c)}|{_escapes(c)})" for c in key).encode(), b"***", body)


def _escaped(key: str) -> re.Pattern[bytes]:
    """Find any letter of the key that is escaped: few bodies have one, and looking for the key takes long."""
    return re.compile("|".join(_escapes(c) for c in sorted(set(key))).encode())


def _escapes(letter: str) -> str:
    # Encoders of JSON write "+", "<" or "/" as \u002B, \u003c or \/, those of URLs as %2B, %3c or %2F.
    code = rf"(?:\\u00|%)(?i:{ord(letter):02x})"
    return code if letter.isalnum() else rf"{code}|\\{re.escape(letter)}"
