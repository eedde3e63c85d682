"""Each folder of tests needs what it says, and no more."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def test_nothing_here_opens_a_socket() -> None:
    with pytest.raises(AssertionError, match="its place is tests/http"):
        socket.socket()
    with pytest.raises(AssertionError, match="its place is tests/http"):
        socket.create_connection(("127.0.0.1", 9))


def test_neither_pure_nor_http_imports_airflow() -> None:
    files = [
        file.relative_to(TESTS.parent) for part in ("pure", "http") for file in (TESTS / part).glob("*.py")
    ]
    modules = [".".join(file.with_suffix("").parts) for file in files]
    assert len(modules) > 5
    script = f"import sys, {', '.join(modules)}\nprint('airflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=TESTS.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
