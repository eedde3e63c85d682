"""What it costs that a job's log is large, even beyond the limit, in one Markdown table.

The job is idle, and has run every hour until its log was as large as is asked for. Nothing ends while it is
looked at, so that the sensor looks until its timeout unless an error ends it. The operator that reads the log
asks for errors and finds none, as all entries would be too many for an XCom. Each row has its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

JOB = str(uuid.UUID(int=1))
TASKS = ("ExecuteJobOperator, not waiting", "JobStatusSensor, completed_after", "LogsOperator, whole job")
POKE_INTERVAL = 5
MB = 1_000_000
ROW = "| {:>6} | {:<32} | {:>15} | {:>7} | {:>7} | {:<82} |"
RULE = ROW.format("-----:", "-" * 32, "-" * 14 + ":", "------:", "------:", "-" * 82)
ID, HOUR = "i" * 36, "h" * 13  # in an execution, where another has something else of the same length


def whole_log(size: int) -> Iterator[bytes]:
    """Yield a log of exactly so many bytes, made while it is sent, the oldest execution first."""
    times = {"StartTime": f"{HOUR}:01:00Z", "EndTime": f"{HOUR}:03:00Z"}
    entry = {"TriggerId": ID, "Timestamp": f"{HOUR}:02:00Z", "Severity": "Information", "Message": "m" * 180}
    execution = json.dumps({"TriggerId": ID, "State": "Succeeded", **times, "Logs": [entry] * 100}).encode()
    count = (size - 1) // (len(execution) + 1)
    for number in range(count):
        hour = datetime.now(timezone.utc) - timedelta(hours=count - number)
        piece = execution.replace(ID.encode(), str(uuid.UUID(int=2 + number)).encode())
        yield b"," if number else b"["
        yield piece.replace(HOUR.encode(), f"{hour:%Y-%m-%dT%H}".encode())
    yield b"]".rjust(size - count * (len(execution) + 1))


class Service(ThreadingHTTPServer):
    """The API with one idle job. Once closed, it has counted all that was taken from it."""

    daemon_threads = False

    def __init__(self, size: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.size, self.gets, self.sent = size, 0, 0


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        if self.path == f"/public/jobs/{JOB}/logs":
            self.server.gets += 1
            self._send(self.server.size, whole_log(self.server.size))
        else:
            self._send_json({"JobId": JOB, "Status": "Idle"})

    def do_POST(self) -> None:
        self._send_json({"JobId": JOB, "TriggerId": str(uuid.uuid4()), "Message": "Queued."})

    def log_message(self, *_: Any) -> None:
        pass

    def _send_json(self, data: Any) -> None:
        body = json.dumps(data).encode()
        self._send(len(body), [body])

    def _send(self, size: int, body: Iterable[bytes]) -> None:
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            for piece in body:
                self.wfile.write(piece)
                self.server.sent += len(piece)
        except ConnectionError:  # whoever asked wants no more
            self.close_connection = True


def run(task: str, timeout: float, cap: float) -> None:
    """Run a task, and print as JSON for how many seconds it ran and how it ended."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Airflow prints is no part of the answer
    import airflow_provider_timextender.carrier  # noqa: F401 - so that no import counts
    from airflow_provider_timextender.operators import ExecuteJobOperator, LogsOperator
    from airflow_provider_timextender.sensors import JobStatusSensor

    now = datetime.now(timezone.utc)
    began = time.monotonic()
    names: dict[str, Any] = {"task_id": "task", "job_id": JOB}
    wait: dict[str, Any] = {"poke_interval": POKE_INTERVAL, "timeout": timeout, "mode": "poke"}
    operators: tuple[Any, ...] = (  # in the order of TASKS
        ExecuteJobOperator(**names),
        JobStatusSensor(**names, **wait, completed_after=now),
        LogsOperator(**names, min_severity="error"),
    )
    ti = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=-1, try_number=1, max_tries=0)
    ti.start_date, ti.xcom_push = now, lambda key, value: None

    def tell(ended: str) -> None:
        out.write(json.dumps([time.monotonic() - began, ended]))
        out.flush()
        os._exit(0)

    watch = threading.Timer(cap, tell, [f"still running after {cap:g} s"])
    watch.start()
    try:
        result = operators[TASKS.index(task)].execute({"ti": ti})
        ended = f"returned {type(result).__name__}: {str(result)[:60]}"
    except Exception as error:  # noqa: BLE001 - whatever it is, the table tells it
        ended = f"{type(error).__name__}: {str(error)[:60]}"
    watch.cancel()
    tell(ended)


def measure(size: int, task: str, timeout: float, cap: float) -> str:
    """Return a row."""
    with tempfile.TemporaryDirectory(prefix="bench-logs-") as home, Service(size * MB) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{service.server_port}"
        connection = json.dumps({"conn_type": "timextender", "host": host, "password": "simulated-api-key"})
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        environment.update(AIRFLOW_HOME=home, AIRFLOW_CONN_TIMEXTENDER_DEFAULT=connection, no_proxy="*")
        command = [sys.executable, __file__, "--run", task, str(timeout), str(cap)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        service.shutdown()
    seconds, ended = json.loads(done.stdout)
    return ROW.format(size, task, service.gets, f"{service.sent / MB:.1f}", f"{seconds:.1f}", ended)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 60, 100], metavar="MB")
    parser.add_argument("--timeout", type=float, default=60, help="seconds until the sensor's timeout")
    parser.add_argument("--cap", type=float, default=70, help="seconds until a task is stopped")
    given = parser.parse_args()
    print(ROW.format("log MB", "task", "GETs of the log", "MB sent", "seconds", "how it ended"))
    print(RULE, flush=True)
    for size in given.sizes:
        for task in TASKS:
            print(measure(size, task, given.timeout, given.cap), flush=True)
    print(f"\nThe sensor looks every {POKE_INTERVAL} s, for {given.timeout:g} s.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
