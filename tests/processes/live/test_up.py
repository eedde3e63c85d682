"""``make up``: what it shows, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO
from urllib.request import Request, urlopen

import psutil
import pytest

from stack import members, until

from ...airflow.running import SHARES

pytestmark = [
    pytest.mark.live,
    pytest.mark.long,
    pytest.mark.skipif(not SHARES, reason="the live tests are written for Airflow 3.3 and later"),
]

ROOT = Path(__file__).parents[3]


class Up:
    """One that runs, with a home and a directory for temporary files of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "up.py", *arguments],
            cwd=ROOT,
            env={**inherited, "HOME": str(folder), "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.sessions: dict[int, str] = {}

    @property
    def out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def ready(self) -> str:
        """Return what it says when all runs."""
        said = ""
        for line in self.out:
            said += line
            if "Ctrl-C" in line:
                break
        self.remember()
        return said

    def remember(self) -> None:
        """Note which sessions its processes lead."""
        for process in psutil.Process(self.process.pid).children():
            self.sessions[process.pid] = " ".join(process.cmdline())

    def ended_runs(self, dag_id: str) -> list[str]:
        (home,) = self.folder.glob("airflow-*")
        sql = "SELECT state FROM dag_run WHERE dag_id = ? AND state IN ('success', 'failed')"
        with closing(sqlite3.connect(f"file:{home}/airflow.db?mode=ro", uri=True, timeout=60)) as database:
            return [state for (state,) in database.execute(sql, (dag_id,))]

    def tasks(self) -> list[int]:
        """Return the processes of tasks: each has a process group of its own."""
        return [pid for pid in members(self.sessions) if os.getpgid(pid) not in self.sessions]

    def left(self) -> list[object]:
        """Return the processes and files that are left of it."""
        return [*members(self.sessions), *self.folder.iterdir()]


def start_a_run(airflow: str, dag_id: str) -> None:
    with urlopen(f"{airflow}/auth/token", timeout=30) as answer:
        token = json.load(answer)["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    run = json.dumps({"logical_date": None}).encode()
    urlopen(Request(f"{airflow}/api/v2/dags/{dag_id}/dagRuns", run, headers), timeout=30).close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Up, Up]]:
    started = (Up(tmp_path / "one"), Up(tmp_path / "other"))
    yield started
    for up in started:
        up.process.kill()
        up.process.communicate()


def test_two_run_at_once_and_nothing_is_left_by_ctrl_c_or_the_death_of_a_component(
    two: tuple[Up, Up],
) -> None:
    one, other = two
    addresses = [re.findall(r"http://127\.0\.0\.1:\d+", up.ready()) for up in two]
    assert len({address for found in addresses for address in found[:2]}) == 4, "each has its own"
    assert {name for name in one.sessions.values() if "airflow" in name}
    until(lambda: one.ended_runs("example_timextender_job_finished"), 120, "a run that a job has started")
    assert set(one.ended_runs("example_timextender_job_finished")) == {"success"}
    start_a_run(addresses[0][0], "example_timextender_run_job")
    until(one.tasks, 60, "a task that waits on a worker")
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(30) == 0
    assert one.left() == []

    (scheduler,) = [pid for pid, command in other.sessions.items() if "scheduler" in command]
    os.kill(scheduler, signal.SIGKILL)
    assert other.process.wait(30) == 1
    assert "airflow scheduler has ended, with status -9" in other.process.communicate()[1]
    assert other.left() == []


def test_nothing_is_left_by_a_signal_while_it_starts(tmp_path: Path) -> None:
    up = Up(tmp_path / "one")
    assert "starts" in up.out.readline()
    until(lambda: list(up.folder.glob("*/*.out")), 30, "the first of Airflow's commands")
    up.remember()
    up.process.terminate()
    said, errors = up.process.communicate(timeout=30)
    assert (up.process.returncode, said, errors) == (0, "\nAirflow ends.\n", "")
    assert len(up.sessions) == 2, "the guardian and the command"
    assert up.left() == []


def test_a_port_that_is_taken_is_an_error_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = Up(tmp_path / "one", "--port", str(port))
        said, errors = up.process.communicate(timeout=60)
    assert (up.process.returncode, said) == (2, "")
    assert f"--port {port}: " in errors
    assert "make up PORT=" in errors
    assert up.left() == []
