"""A task that exports a large log, in a process that can be killed, and the server that it reads from."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

JOB = {"Id": "aaaaaaaa-0000-0000-0000-000000000001", "Name": "Load all"}
EXECUTIONS = 100
PIECE = 64 * 1024


def write_log(path: Path, size: int) -> None:
    """Write a job's log of about so many bytes, as the API answers."""
    entry = json.dumps(_entry(0, 0))
    count = size // (len(entry) + 1) // EXECUTIONS
    with path.open("w") as file:
        for number in range(EXECUTIONS):
            execution = {
                "TriggerId": _guid(number),
                "State": "Success",
                "StartTime": f"{_day(number)}T05:00:00Z",
                "EndTime": f"{_day(number)}T06:00:00Z",
            }
            file.write(f'{"[" if number == 0 else ","}{json.dumps(execution)[:-1]}, "Logs": [')
            for line in range(count):
                file.write(f"{',' if line else ''}{json.dumps(_entry(number, line))}")
            file.write("]}")
        file.write("]")


def _day(number: int) -> str:
    return f"2026-{number // 28 + 1:02d}-{number % 28 + 1:02d}"


def _guid(number: int) -> str:
    return f"bbbbbbbb-0000-0000-0000-{number:012d}"


def _entry(number: int, line: int) -> dict[str, str]:
    return {
        "TriggerId": _guid(number),
        "Timestamp": f"{_day(number)}T05:{line // 60 % 60:02d}:{line % 60:02d}Z",
        "Severity": "Warning" if line % 10 == 0 else "Information",
        "Message": f"Transfer task 'Load all - Orders {line:06d}' finished in 6.7 s. {'.' * 170}",
    }


class Server(ThreadingHTTPServer):
    """Answers with the log, and tells how much of it it has sent.

    :ivar passed: is called with the share of the log that has been sent, after each piece.
    """

    def __init__(self, log: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.log = log
        self.passed: Callable[[float], None] = lambda share: None


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if not self.path.endswith("/logs"):
            self.wfile.write(json.dumps([JOB]).encode())
            return
        size, sent = self.server.log.stat().st_size, 0
        with self.server.log.open("rb") as file:
            try:
                while piece := file.read(PIECE):
                    self.wfile.write(piece)
                    sent += len(piece)
                    self.server.passed(sent / size)
            except ConnectionError:
                pass  # who asked has been killed

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def serving(log: Path) -> Iterator[Server]:
    """Serve a log until the end."""
    with Server(log) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def nothing() -> None:
    """Prepare nothing."""


class Tries:
    """Makes the tries of a task, each in a process of its own that has imported everything."""

    def __init__(self, port: int, environment: Mapping[str, str] | None = None) -> None:
        self._port = port
        self._environment = environment or {}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["airflow_provider_timextender.operators", "airflow_provider_timextender.carrier", __name__]
        )

    @contextmanager
    def begin(self, output: Mapping[str, Any], prepare: Callable[[], None] = nothing) -> Iterator[Any]:
        """Begin a try, whose process is yielded.

        :param output: the operator's arguments that say where to.
        :param prepare: is called in the process, to let it be killed at some moment.
        """
        arguments = (self._port, self._environment, output, prepare)
        process = self._context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        try:
            yield process
            process.join()
        finally:
            process.kill()
            process.join()


def _work(
    port: int, environment: Mapping[str, str], output: Mapping[str, Any], prepare: Callable[[], None]
) -> None:
    from airflow_provider_timextender.operators import LogsOperator

    fields = {
        "conn_type": "timextender",
        "host": f"http://127.0.0.1:{port}",
        "password": "a-key",
        "extra": {"allow_http": True},
    }
    os.environ.update(environment, AIRFLOW_CONN_TIMEXTENDER_DEFAULT=json.dumps(fields))
    prepare()
    context: Any = {"ti": SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1)}
    LogsOperator(task_id="t", job_name=JOB["Name"], **output).execute(context)


def die_after_file(name: str) -> None:
    """Kill this process when a file of that name is to be seen."""
    replace = Path.replace

    def replace_and_die(self: Path, target: Any) -> Path:
        replaced = replace(self, target)
        if replaced.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return replaced

    Path.replace = replace_and_die  # type: ignore[method-assign,assignment]
