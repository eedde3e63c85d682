"""A whole Airflow 3 on this machine: API server, scheduler, DAG processor and triggerer, each a process.

Each process that it starts leads a session of its own, to which all that comes of that process belongs: the
process of a task leaves the worker's process group, but not its session. So Ctrl-C in a terminal reaches none
of them, and none is missed at the end. Run as a script, this is the guardian, which ends them if whoever has
started them is killed.
"""

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
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

AIRFLOW_3 = int(version("apache-airflow").partition(".")[0]) >= 3
"""Whether that is what is installed; an import of Airflow would write to the home directory."""

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")


class Stopped(Exception):
    """It was to end, while something was waited for."""


class Died(Exception):
    """A process of Airflow has ended by itself; the message shows the last that it wrote."""


def usable_port(port: int = 0) -> int:
    """Return a port of this machine that nobody listens on.

    :param port: the one that is wanted; ``0`` for any.
    :raises OSError: if that one cannot be used.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        probe.bind(("127.0.0.1", port))
        found: int = probe.getsockname()[1]
        return found


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return what a condition comes to as soon as it is true.

    :raises TimeoutError: if it is not, in that time.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.5)
    return found


def members(sessions: Collection[int]) -> list[int]:
    """Return the processes of sessions that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return found


def end(sessions: Collection[int], patience: float = 0) -> None:
    """End all processes of sessions.

    :param patience: for how many seconds they may do so themselves.
    """
    limit = time.monotonic() + patience
    asked: set[int] = set()
    while found := members(sessions):
        how = signal.SIGTERM if time.monotonic() < limit else signal.SIGKILL
        for pid in found:
            if how == signal.SIGKILL or pid not in asked:
                asked.add(pid)
                try:
                    os.kill(pid, how)
                except ProcessLookupError:
                    continue
        time.sleep(0.1)


def guard() -> None:
    """Read which sessions begin and end, and end those that are left when nobody tells of more."""
    sessions: set[int] = set()
    for line in sys.stdin:
        what, number = line.split()
        (sessions.add if what == "+" else sessions.discard)(int(number))
    end(sessions)


class Stack:
    """Airflow's components in a home of their own, started at ``with`` and ended after it.

    :param home: an empty directory; all files are written there.
    :param connections: their fields as JSON, by id.
    :param settings: environment variables.
    :param port: the API server's; ``0`` for any free one.
    :param over: whether it is to end, say because of a signal.
    :raises OSError: if the port cannot be used.
    :raises Stopped: from everything that asks Airflow, soon after it is ``over``.
    :raises Died: from everything that asks Airflow, if a process has ended by itself.
    """

    def __init__(
        self,
        home: Path,
        dags: Path,
        connections: Mapping[str, str],
        settings: Mapping[str, str],
        *,
        port: int = 0,
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.home = home
        port = usable_port(port)
        self.url = f"http://127.0.0.1:{port}"
        own = {
            "AIRFLOW_HOME": str(home),
            "TMPDIR": str(home),
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
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            **settings,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        self._env = inherited | own
        self._over = over
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._connections = connections
        self._token = ""

    def __enter__(self) -> Self:
        self._guardian = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            self._run("db", "migrate")
            for name, value in self._connections.items():
                self._run("connections", "add", name, "--conn-json", value)
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
        end([process.pid for process in self._processes.values()], patience=5)
        for name in list(self._processes):
            self.kill(name)
        self._guardian.communicate()

    def _guard(self, what: str, number: int) -> None:
        assert self._guardian.stdin is not None
        self._guardian.stdin.write(f"{what} {number}\n")
        self._guardian.stdin.flush()

    def _launch(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", name, *arguments],
                env=self._env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes[name] = process
        self._guard("+", process.pid)
        return process

    def _run(self, name: str, *arguments: str) -> None:
        """Run a command of Airflow to its end."""
        process = self._launch(name, *arguments)
        until(lambda: self._over() or process.poll() is not None, 180, f"airflow {name}")
        if self._over() or process.returncode:
            self.check()
        self.kill(name)

    def start(self, name: str) -> None:
        """Start a component."""
        self._launch(name, *(["--skip-serve-logs"] if name in ("scheduler", "triggerer") else []))

    def kill(self, name: str) -> None:
        """Kill a component with all that came of it."""
        process = self._processes.pop(name)
        end([process.pid])
        process.wait()
        self._guard("-", process.pid)

    def session(self, name: str) -> int:
        """Return the session of a component, which is the id of its first process as well."""
        return self._processes[name].pid

    def check(self) -> None:
        """Raise :class:`Stopped` or :class:`Died` if there is reason to."""
        if self._over():
            raise Stopped
        for name, process in self._processes.items():
            if (status := process.poll()) is not None:
                last = (self.home / f"{name}.out").read_text(errors="replace").splitlines()[-20:]
                raise Died("\n  ".join([f"airflow {name} has ended, with status {status}:", *last]))

    def _healthy(self) -> bool:
        try:
            health = self.ask("/api/v2/monitor/health")
        except OSError:
            return False
        names = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all(health[name]["status"] == "healthy" for name in names)

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Send a request to Airflow's REST API."""
        self.check()
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

    def wait(self, dag_id: str, run_id: str, seconds: float) -> str:
        """Return the state in which a run ends."""

        def ended() -> str | None:
            state: str = self.ask(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"]
            return state if state in ("success", "failed") else None

        found: str = until(ended, seconds, f"the end of {dag_id}")
        return found


if __name__ == "__main__":
    guard()
