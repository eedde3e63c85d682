"""A whole Airflow on this machine: API server, scheduler, DAG processor and triggerer, each a process."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return what a condition comes to as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.5)
    return found


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


GUARDIAN = """
import os, signal, sys

groups = set()
for line in sys.stdin:
    what, number = line.split()
    (groups.add if what == "+" else groups.discard)(int(number))
for number in groups:
    try:
        os.killpg(number, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""
"""Ends what it was told of when nobody can tell it of more: whoever has started it may be killed."""


class Stack:
    """Airflow's components in a home of their own, started at ``with`` and ended after it."""

    def __init__(self, home: Path, dags: Path, connections: Mapping[str, str], **settings: str) -> None:
        self.home = home
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        own = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "10000",
            "AIRFLOW__CORE__MAX_MAP_LENGTH": "10000",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            **settings,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        self._env = inherited | own
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._connections = connections
        self._token = ""

    def __enter__(self) -> Stack:
        self._guardian = subprocess.Popen(
            [sys.executable, "-c", GUARDIAN], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            self._airflow("db", "migrate")
            for name, value in self._connections.items():
                self._airflow("connections", "add", name, "--conn-json", value)
            for name in COMPONENTS:
                self.start(name)
            until(self._healthy, 180, "a healthy Airflow")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in list(self._processes):
            self.kill(name, signal.SIGTERM)
        self._guardian.communicate()

    def _guard(self, what: str, number: int) -> None:
        assert self._guardian.stdin is not None
        self._guardian.stdin.write(f"{what} {number}\n")
        self._guardian.stdin.flush()

    def _airflow(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "airflow", *arguments], env=self._env, capture_output=True, check=True
        )

    def start(self, name: str) -> None:
        """Start a component, as the leader of a process group of its own."""
        command = [sys.executable, "-m", "airflow", name]
        if name in ("scheduler", "triggerer"):
            command.append("--skip-serve-logs")
        with (self.home / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command, env=self._env, stdout=output, stderr=output, start_new_session=True
            )
        self._guard("+", self._processes[name].pid)

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End a component with all its children."""
        process = self._processes.pop(name)
        for number in (how, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                continue
        process.wait()
        self._guard("-", process.pid)

    def kill_worker(self, port: int) -> None:
        """Kill the task's process that holds a TCP connection, and the worker that it belongs to.

        :param port: the connection's local port.
        """
        pid = owner_of(port)
        while pid != self._processes["scheduler"].pid:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(pid, signal.SIGKILL)
            pid = parent

    def _healthy(self) -> bool:
        try:
            health = self.ask("/api/v2/monitor/health")
        except OSError:
            return False
        names = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all(health[name]["status"] == "healthy" for name in names)

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Send a request to Airflow's REST API."""
        if not self._token:
            with urllib.request.urlopen(f"{self.url}/auth/token", timeout=30) as answer:
                self._token = json.load(answer)["access_token"]
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def trigger(self, dag_id: str, **conf: str) -> str:
        """Start a run of a DAG, and return its id."""
        until(lambda: dag_id in self.dag_ids(), 120, f"DAG {dag_id}")
        run = {"logical_date": None, "conf": conf}
        run_id: str = self.ask(f"/api/v2/dags/{dag_id}/dagRuns", run)["dag_run_id"]
        return run_id

    def dag_ids(self) -> set[str]:
        """Return the DAGs that Airflow knows."""
        return {dag["dag_id"] for dag in self.ask("/api/v2/dags?limit=100")["dags"]}

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of a DAG."""
        found: list[dict[str, Any]] = self.ask(f"/api/v2/dags/{dag_id}/dagRuns?limit=100")["dag_runs"]
        return found

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask Airflow's database."""
        import sqlite3

        with sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True, timeout=60) as database:
            return database.execute(sql, values).fetchall()

    def states(self, dag_id: str, run_id: str) -> dict[str, int]:
        """Return how many task instances of a run are in which state."""
        sql = "SELECT state, count(*) FROM task_instance WHERE dag_id = ? AND run_id = ? GROUP BY state"
        return dict(self.query(sql, dag_id, run_id))

    def wait(self, dag_id: str, run_id: str, seconds: float) -> str:
        """Return the state in which a run ends."""

        def ended() -> str | None:
            state: str = self.ask(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"]
            return state if state in ("success", "failed") else None

        found: str = until(ended, seconds, f"the end of {dag_id}")
        return found

    def task_log(self, dag_id: str, run_id: str) -> str:
        """Return all that the tasks of a run have written to their logs."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}"
        return "".join(path.read_text() for path in sorted(folder.rglob("*.log")))
