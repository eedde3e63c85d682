"""What the live tests do to an Airflow and read of it, beyond what anybody does."""

from __future__ import annotations

import os
import signal
import sqlite3
import urllib.error
from http import HTTPStatus
from pathlib import Path
from typing import Any

import stack


def owner_of(port: int) -> int:
    """Return the process that holds the TCP connection with a local port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = [row[9] for row in rows if int(row[1].split(":")[1], 16) == port and row[3] == "01"]
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == f"socket:[{inode}]":
                return int(link.parts[2])
        except OSError:
            continue
    raise AssertionError(f"nobody holds port {port}")


class Stack(stack.Stack):
    """An Airflow whose workers can be killed, and whose files are read."""

    def kill_worker(self, port: int) -> None:
        """Kill the task's process that holds a TCP connection, and the worker that it belongs to.

        :param port: the connection's local port.
        """
        pid = owner_of(port)
        while pid != self.session("scheduler"):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(pid, signal.SIGKILL)
            pid = parent

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask Airflow's database."""
        with sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True, timeout=60) as database:
            return database.execute(sql, values).fetchall()

    def states(self, dag_id: str, run_id: str) -> dict[str, int]:
        """Return how many task instances of a run are in which state."""
        sql = "SELECT state, count(*) FROM task_instance WHERE dag_id = ? AND run_id = ? GROUP BY state"
        return dict(self.query(sql, dag_id, run_id))

    def shown_log(self, dag_id: str, run_id: str, task_id: str) -> list[str]:
        """Return the log of a task's first try as Airflow shows it; before that, there is none."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/1?full_content=true"
        try:
            return [line["event"] for line in self.ask(path)["content"]]
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            return []

    def task_log(self, dag_id: str, run_id: str) -> str:
        """Return all that the tasks of a run have written to their logs."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}"
        return "".join(path.read_text() for path in sorted(folder.rglob("*.log")))
