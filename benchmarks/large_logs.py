"""What it costs the tasks of a job, and those that wait or watch, that its log is large: one Markdown table.

A server makes the logs while it sends them, and counts what is asked for and sent. Each row but those of the
watcher is a process of its own that talks to it: a task that queues the job, one that waits for an execution,
and a sensor that waits an hour for one of an idle job. The watcher looks at 500 jobs for a day. Its answers
are smaller by a factor, and so is the pace that is counted in bytes; the table tells what they stand for.

Hours pass at once. Only the executions of the waits by trigger id take their few seconds.

To compare with another version, run this file with a checkout of it in ``PYTHONPATH``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import resource
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from io import BytesIO
from statistics import median
from types import SimpleNamespace
from typing import Any

JOB = str(uuid.UUID(int=1))
MB = 1_000_000
LINES = 100  # in the log of each execution
PICKUP, DURATION = 1.0, 3.0  # of an execution that somebody waits for
HOUR = 3600.0
SUBMITS, WAITS, SENSES, WATCHES = "ExecuteJobOperator", "wait by trigger id", "completed_after", "watcher"
TASKS = (
    f"{SUBMITS}",
    f"{SUBMITS}, if_running=wait",
    f"{SUBMITS}, if_running=attach",
    f"{SUBMITS}, if_running=fail",
    f"{SUBMITS}, wait_for_completion",
    f"{WAITS}, worker",
    f"{WAITS}, triggerer",
    f"{SENSES}, an hour, poke",
    f"{SENSES}, an hour, triggerer",
    f"{WATCHES}, 500 jobs, a day",
    f"{WATCHES}, the same, with ETags",
)
ROW = "| {:>6} | {:<39} | {:>8} | {:>6} | {:>9} | {:>10} | {:>7} | {:>6} | {:>7} | {} |"
HEADS = (
    "log MB",
    "who",
    "statuses",
    "logs",
    "whole",
    "MB sent",
    "POST s",
    "CPU s",
    "peak MB",
    "how it ended",
)
ID, WHEN = "i" * 36, "h" * 13  # in an execution, where another has something else of the same length


def written(state: str | None, ended: bool) -> bytes:
    """Return an execution with its log, to be filled in."""
    times = {"StartTime": f"{WHEN}:01:00Z", "EndTime": f"{WHEN}:03:00Z" if ended else None}
    entry = {"TriggerId": ID, "Timestamp": f"{WHEN}:02:00Z", "Severity": "Information", "Message": "m" * 180}
    return json.dumps({"TriggerId": ID, "State": state, **times, "Logs": [entry] * LINES}).encode()


def filled(execution: bytes, trigger_id: str, hour: datetime) -> bytes:
    """Return an execution of its own."""
    return execution.replace(ID.encode(), trigger_id.encode()).replace(
        WHEN.encode(), f"{hour:%Y-%m-%dT%H}".encode()
    )


def whole_log(size: int, last: bytes | None) -> Iterator[bytes]:
    """Yield a log of about so many bytes, made while it is sent, the oldest execution first."""
    execution = written("Succeeded", ended=True)
    count = (size - 1) // (len(execution) + 1)
    for number in range(count):
        hour = datetime.now(timezone.utc) - timedelta(hours=count - number + 1)
        yield (b"," if number else b"[") + filled(execution, str(uuid.UUID(int=2 + number)), hour)
    yield b"]".rjust(size - count * (len(execution) + 1)) if last is None else b"," + last + b"]"


class Service(ThreadingHTTPServer):
    """The API with one job, which has run every hour until its log was so large."""

    daemon_threads = False

    def __init__(self, size: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.size = size
        self.counts = {"statuses": 0, "logs": 0, "whole": 0, "sent": 0, "posted": 0.0}
        self.queued_at: float | None = None
        self.trigger_id = str(uuid.uuid4())

    def execution(self) -> bytes | None:
        """Return what has been queued, as the log shows it."""
        ran = time.monotonic() - self.queued_at - PICKUP if self.queued_at is not None else -1
        if ran < 0:
            return None
        over = ran >= DURATION
        body = written("Succeeded" if over else "Running", ended=over)
        return filled(body, self.trigger_id, datetime.now(timezone.utc))

    def status(self) -> str:
        """Return what the job does."""
        since = time.monotonic() - self.queued_at if self.queued_at is not None else PICKUP + DURATION
        return "Pending" if since < PICKUP else "Running" if since < PICKUP + DURATION else "Idle"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: Service

    def do_GET(self) -> None:
        """Answer, and count."""
        parts = self.path.strip("/").split("/")
        counts, execution = self.server.counts, self.server.execution()
        if parts[-1] == "reset":
            counts.update(dict.fromkeys(counts, 0))
            self._send([b"{}"])
        elif "logs" in parts:
            whole = parts[-1] == "logs"
            counts["whole" if whole else "logs"] += 1
            found = [b"[", execution, b"]"] if execution else [b"[]"]
            self._send(whole_log(self.server.size, execution) if whole else found)
        else:
            counts["statuses"] += parts[-1] == "status"
            status = {"JobId": JOB, "Id": JOB, "Name": "job", "Status": self.server.status()}
            alone = parts[-1] == "status" and parts[-2] != "jobs"
            self._send([json.dumps(status if alone else [status]).encode()])

    def do_POST(self) -> None:
        """Queue the job."""
        self.server.queued_at = self.server.counts["posted"] = time.monotonic()
        receipt = {"JobId": JOB, "TriggerId": self.server.trigger_id, "Message": "Queued."}
        self._send([json.dumps(receipt).encode()])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _send(self, body: Iterable[bytes]) -> None:
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in body:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.server.counts["sent"] += len(piece)
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:  # whoever asked wants no more
            self.close_connection = True


# --- time that passes at once ---


class Time:
    """A clock that goes on by what is slept."""

    def __init__(self) -> None:
        self.skipped = 0.0
        real, clock = time.monotonic, datetime

        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return clock.now(tz) + timedelta(seconds=self.skipped)

        time.monotonic = lambda: real() + self.skipped
        time.sleep = self.skip  # type: ignore[assignment]
        for room in ("worlds", "polling", "triggers", "watching"):
            import_module(f"airflow_provider_timextender.{room}").datetime = Clock  # type: ignore[attr-defined]

    def skip(self, seconds: float) -> None:
        """Let time pass."""
        self.skipped += seconds

    def run(self, main: Any) -> Any:
        """Run a coroutine in an event loop of which nobody waits for a timer."""
        skip = self.skip

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                found = super().select(0.01 if timeout is None else 0)
                if timeout and not found:
                    skip(timeout)
                return found

        from airflow_provider_timextender.carrier import Carrier

        async def send(carrier: Carrier, call: Any) -> Any:
            return carrier.send(call)

        async def to_thread(do: Any, *arguments: Any) -> Any:
            return do(*arguments)

        Carrier.send_in_thread = send  # type: ignore[method-assign, assignment]
        asyncio.to_thread = to_thread  # type: ignore[assignment]
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Selector())) as runner:
            return runner.run(main)


# --- the processes ---


def operator(task: str, trigger_id: str | None) -> Callable[[Any], Any]:
    """Return what runs a task on a worker."""
    from airflow_provider_timextender.operators import ExecuteJobOperator
    from airflow_provider_timextender.sensors import JobStatusSensor

    names: dict[str, Any] = {"task_id": "task", "job_id": JOB}
    made: Any
    if task.startswith(SUBMITS):
        if_running: Any = task.partition("if_running=")[2] or "submit"
        waits = task.endswith("wait_for_completion")
        made = ExecuteJobOperator(**names, if_running=if_running, wait_for_completion=waits, poll_interval=1)
    elif task.startswith(WAITS):
        made = JobStatusSensor(**names, mode="poke", trigger_id=trigger_id, poke_interval=1)
    else:
        Time()
        moment: dict[str, Any] = {"completed_after": in_an_hour(), "poke_interval": 60, "timeout": HOUR}
        made = JobStatusSensor(**names, mode="poke", **moment)
    return made.execute  # type: ignore[no-any-return]


def in_an_hour() -> datetime:
    """Return a moment after which nothing ends."""
    return datetime.now(timezone.utc) + timedelta(hours=1)


def trigger(task: str, trigger_id: str | None) -> Callable[[Any], Any]:
    """Return what runs a task in a triggerer."""
    from airflow_provider_timextender.triggers import JobExecutionTrigger

    senses = task.startswith(SENSES)
    waited = {"completed_after": in_an_hour().isoformat()} if senses else {"trigger_id": trigger_id}
    interval, limit = (60, HOUR) if senses else (1, 60)
    one = JobExecutionTrigger(job_id=JOB, **waited, poll_interval=interval, timeout=limit)

    async def first() -> Any:
        return (await anext(one.run())).payload

    return lambda _: (Time().run if senses else asyncio.run)(first())


def run(task: str) -> None:
    """Run a task, and print as JSON when it began, how much memory it took and how it ended."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Airflow prints is no part of the answer
    import requests

    import airflow_provider_timextender.carrier
    import airflow_provider_timextender.triggers  # noqa: F401 - so that no import counts
    from airflow_provider_timextender.hooks import TimeXtenderHook

    hook, trigger_id = TimeXtenderHook(), None
    hook.get_all_job_statuses()
    if task.startswith(WAITS):
        trigger_id = hook.execute_job(JOB).trigger_id
    ti = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=-1, try_number=1, max_tries=0)
    ti.start_date, ti.xcom_push = datetime.now(timezone.utc), lambda key, value: None
    execute = (trigger if task.endswith("triggerer") else operator)(task, trigger_id)
    requests.get(f"{hook.settings.base_url}/reset", timeout=10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, used = time.monotonic(), time.process_time()
    try:
        result = execute({"ti": ti})
        ended = str(result)
    except Exception as error:  # noqa: BLE001 - whatever it is, the table tells it
        ended = f"{type(error).__name__}: {error}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    used = time.process_time() - used
    out.write(json.dumps({"began": began, "used": used, "peak": peak * 1024, "ended": ended}))
    out.flush()
    os._exit(0)


# --- the watcher ---


class Organisation:
    """Many jobs, each with an execution every four hours: of five minutes, or for one job of ten 20 seconds.

    :param size: bytes of each log, by its declaration. :param scale: by how much less is made of it.
    """

    JOBS, KEPT, EVERY = 500, 24, 4 * HOUR

    def __init__(self, size: int, scale: int, now: Callable[[], float]) -> None:
        self.size, self.now, self.epoch = size // scale, now, time.time()
        self.ids = [str(uuid.UUID(int=number + 1)) for number in range(self.JOBS)]
        chance = random.Random(1)
        self.phases = [chance.uniform(0, self.EVERY) for _ in self.ids]
        self.counts = {"statuses": 0, "whole": 0, "sent": 0}

    def duration(self, number: int) -> float:
        """Return the seconds of each execution of a job."""
        return 20.0 if number % 10 == 0 else 300.0

    def status(self, number: int) -> str:
        """Return what a job does."""
        ran = (self.now() - self.phases[number]) % self.EVERY
        return "Running" if ran < self.duration(number) else "Idle"

    def log(self, number: int) -> bytes:
        """Return the log of a job."""
        phase, now = self.phases[number], self.now()
        last = int((now - phase) // self.EVERY)
        shown: list[dict[str, Any]] = []
        for count in range(last - self.KEPT, last + 1):
            start = count * self.EVERY + phase
            end = start + self.duration(number)
            shown.append(
                {
                    "TriggerId": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{number} {count}")),
                    "State": "Succeeded" if end <= now else "Running",
                    "StartTime": self._time(start),
                    "EndTime": self._time(end) if end <= now else None,
                    "Logs": [],
                }
            )
        return json.dumps(shown).encode().ljust(self.size)

    def _time(self, moment: float) -> str:
        return datetime.fromtimestamp(self.epoch + moment, timezone.utc).isoformat()

    def answer(self, path: str) -> bytes:
        """Return the answer to a request."""
        if path.endswith("/logs"):
            self.counts["whole"] += 1
            return self.log(self.ids.index(path.split("/")[-2]))
        self.counts["statuses"] += path.endswith("/status")
        return json.dumps(
            [
                {"JobId": id_, "Id": id_, "Name": "job", "Status": self.status(number)}
                for number, id_ in enumerate(self.ids)
            ]
        ).encode()


def watch(size: int, scale: int, day: float, etags: bool) -> None:
    """Be a watcher for a day, and print what it took."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPHeaderDict, HTTPResponse

    from airflow_provider_timextender import carrier, jobs_api, verdict, watching

    skipping, begun = Time(), datetime.now(timezone.utc).timestamp()
    organisation = Organisation(
        size * MB, scale, lambda: datetime.now(timezone.utc).timestamp() + skipping.skipped - begun
    )
    watching.SPACING = 0.0
    # In the versions that have such a limit, and such a pace.
    for room, name in ((jobs_api, "LOG_LIMIT"), (verdict, "SWEEP_RATE")):
        if hasattr(room, name):
            setattr(room, name, getattr(room, name) // scale)

    def send(self: HTTPAdapter, request: Any, **_: Any) -> Any:
        headers = HTTPHeaderDict({"Content-Type": "application/json"})
        body, status = organisation.answer(request.path_url), 200
        if etags:
            headers["ETag"] = hashlib.sha256(body).hexdigest()
            if request.headers.get("If-None-Match") == headers["ETag"]:
                body, status = b"", 304
        organisation.counts["sent"] += len(body) if request.path_url.endswith("/logs") else 0
        raw = HTTPResponse(BytesIO(body), headers=headers, status=status, preload_content=False)
        return HTTPAdapter.build_response(self, request, raw)

    carrier._Adapter.send = send  # type: ignore[method-assign, assignment]
    delays: dict[float, list[float]] = {20.0: [], 300.0: []}

    async def tell() -> None:
        async for event in watching.JobFinishedTrigger(poll_interval=60).run():
            end = datetime.fromisoformat(event.payload["end"]).timestamp() - organisation.epoch
            delays[event.payload["duration"]].append(organisation.now() - end)

    async def main() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(day):
                await tell()

    before, used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    skipping.run(main())
    used = time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    said = [
        f"{len(late)} of {duration:g} s told {median(late):.0f} s after the end, {max(late):.0f} at most"
        for duration, late in delays.items()
        if late
    ]
    counts = organisation.counts
    counts["sent"] *= scale
    found: dict[str, Any] = {**counts, "logs": 0, "posted": 0, "began": 0, "used": used, "peak": peak * 1024}
    found["ended"] = "; ".join(said)
    out.write(json.dumps(found))
    out.flush()
    os._exit(0)


def measure(size: int, task: str, day: float) -> str:
    """Return a row."""
    me = [sys.executable, __file__]
    with tempfile.TemporaryDirectory(prefix="bench-logs-") as home, Service(size * MB) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{service.server_port}"
        connection = json.dumps({"conn_type": "timextender", "host": host, "password": "simulated-api-key"})
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        environment.update(AIRFLOW_HOME=home, AIRFLOW_CONN_TIMEXTENDER_DEFAULT=connection, no_proxy="*")
        scale = 100 if size < 10 else 10_000
        numbers = [str(size), str(scale), str(day), str(int(task.endswith("ETags")))]
        command = numbers if task.startswith(WATCHES) else [task]
        role = "--watch" if task.startswith(WATCHES) else "--run"
        done = subprocess.run([*me, role, *command], env=environment, stdout=subprocess.PIPE, check=True)
        service.shutdown()
    found = {**service.counts, **json.loads(done.stdout)}
    posted = f"{found['posted'] - found['began']:.2f}" if task.startswith(SUBMITS) and found["posted"] else ""
    sent, peak = f"{found['sent'] / MB:,.1f}", f"{found['peak'] / MB:.0f}"
    used, ended = f"{found['used']:.2f}", str(found["ended"])[:120]
    return ROW.format(
        size, task, found["statuses"], found["logs"], found["whole"], sent, posted, used, peak, ended
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 60, 600], metavar="MB")
    parser.add_argument("--tasks", default="", help="only those whose name begins like this")
    parser.add_argument("--day", type=float, default=24 * HOUR, help="seconds that the watcher watches")
    given = parser.parse_args()
    print(ROW.format(*HEADS))
    print(ROW.format(*("-" * max(3, len(head)) for head in HEADS)), flush=True)
    for size in given.sizes:
        for task in TASKS:
            if task.startswith(given.tasks):
                print(measure(size, task, given.day), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2])
    elif sys.argv[1:2] == ["--watch"]:
        watch(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5] == "1")
    else:
        main()
