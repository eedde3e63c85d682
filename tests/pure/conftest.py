"""What keeps these tests pure."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

# An audit hook can never be taken away again, so there is one for all tests, which heeds this thread only.
pure_thread: int | None = None


def _refuse_sockets(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.__new__" and threading.get_ident() == pure_thread:
        raise AssertionError("A test in tests/pure opens a socket; its place is tests/http.")


sys.addaudithook(_refuse_sockets)


@pytest.fixture(autouse=True)
def _no_sockets() -> Iterator[None]:
    global pure_thread
    pure_thread = threading.get_ident()
    yield
    pure_thread = None
