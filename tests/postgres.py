"""A PostgreSQL of the tests' own, in a folder that is removed again, on a free port of this machine alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NEEDED = "TIMEXTENDER_TESTS_NEED_POSTGRES"
"""Where this is set, as it is in CI, tests that need PostgreSQL fail without one, and are not skipped."""


def programs() -> Path:
    """Return the folder of the newest server's programs; without one, skip or fail the test that asks."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = [Path(shutil.which("initdb") or "/"), *debian]
    if found[-1].name == "initdb":
        return found[-1].parent
    why = "no PostgreSQL server is installed (on Debian: apt-get install postgresql)"
    if os.environ.get(NEEDED):
        pytest.fail(why)
    pytest.skip(why)


class Postgres:
    """A server that runs while it is entered; as another user if this one is root, whom it refuses."""

    def __init__(self) -> None:
        self._programs = programs()
        self._home = Path(tempfile.mkdtemp(prefix="postgres-timextender-tests-"))
        self._databases = 0
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self._home, "postgres", "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]

    def __enter__(self) -> Postgres:
        data = f"--pgdata={self._home}/data"
        self._run(
            "initdb", data, "--auth=trust", "--username=tests", "--encoding=UTF8", "--locale=C", "--no-sync"
        )
        options = f"-h 127.0.0.1 -p {self._port} -k '' -c fsync=off"
        self._run("pg_ctl", data, "--wait", f"--log={self._home}/log", f"--options={options}", "start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("pg_ctl", f"--pgdata={self._home}/data", "--wait", "--mode=immediate", "stop")
        shutil.rmtree(self._home)

    def new_database(self) -> str:
        """Make a database, and return the URI of a connection of Airflow's to it."""
        self._databases += 1
        name = f"test_{self._databases}"
        server = "--host=127.0.0.1", f"--port={self._port}", "--username=tests"
        self._run("createdb", *server, name)
        return f"postgres://tests:tests@127.0.0.1:{self._port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._home, **self._as)
