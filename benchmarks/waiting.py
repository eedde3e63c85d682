"""What it costs that N tasks wait in one triggerer, for this provider and for others, in one Markdown table.

Each row has two processes of its own, so that nothing of another row is in its figures: a fake of the
service, and a waiting process that does with N triggers what Airflow's triggerer does
(``TriggerRunner.run_trigger``). The triggers are those of the installed packages, unmodified, each waiting
for an execution of its own. All fakes speak HTTPS over one certificate, as dbt Cloud's trigger knows nothing
else, and as the services do.

A row goes like this: the triggers start, spread evenly over one interval, as tasks do not come all at once;
when each execution has been asked about, one interval passes; then CPU and requests are measured; then the
lag of the event loop (apart, as looking for it takes CPU); then all executions end at the same moment, which
is a random one, as a wait that all share hears of it at one time only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import printed
from aiohttp import web

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

CONNECTION = "bench_waiting"
HOST = "127.0.0.1"
PACKAGES = (
    "airflow-provider-timextender",
    "apache-airflow",
    "apache-airflow-providers-dbt-cloud",
    "apache-airflow-providers-http",
    "apache-airflow-providers-airbyte",
    "airbyte-api",
    "aiohttp",
    "httpx",
)
LAG_STEP = 0.005
WEEK = 7 * 24 * 3600

# --- the triggers, and how their services say that an execution goes on and that it is over ---


def _job_name(number: int) -> str:
    return f"Load {number}"


def _execution_id(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def _ours(number: int, interval: float) -> BaseTrigger:
    # The others load their HTTP library with the trigger, this one with the first wait.
    import airflow_provider_timextender.carrier  # noqa: F401
    from airflow_provider_timextender.simulator import Job
    from airflow_provider_timextender.triggers import JobExecutionTrigger

    return JobExecutionTrigger(
        timextender_conn_id=CONNECTION,
        job_id=Job(_job_name(number)).id,
        trigger_id=_execution_id(number),
        poll_interval=interval,
    )


def _dbt(number: int, interval: float) -> BaseTrigger:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    trigger: BaseTrigger = DbtCloudRunJobTrigger(
        conn_id=CONNECTION, run_id=number, end_time=time.time() + WEEK, poll_interval=interval, account_id=1
    )
    return trigger


def _http(number: int, interval: float) -> BaseTrigger:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    trigger: BaseTrigger = HttpSensorTrigger(
        endpoint=f"executions/{number}", http_conn_id=CONNECTION, poke_interval=interval
    )
    return trigger


def _airbyte(number: int, interval: float) -> BaseTrigger:
    from airflow.providers.airbyte.triggers.airbyte import AirbyteSyncTrigger

    trigger: BaseTrigger = AirbyteSyncTrigger(
        conn_id=CONNECTION, job_id=number, end_time=time.time() + WEEK, poll_interval=interval
    )
    return trigger


def _dbt_answer(path: str, over: bool) -> web.Response:
    return web.json_response({"data": {"status": 10 if over else 3}})  # a DbtCloudJobRunStatus


def _http_answer(path: str, over: bool) -> web.Response:
    # The sensor waits as long as the answer is a 404.
    return web.Response(status=200 if over else 404)


def _airbyte_answer(path: str, over: bool) -> web.Response:
    return web.json_response(
        {
            "jobId": int(path.rsplit("/", 1)[1]),
            "status": "succeeded" if over else "running",
            "jobType": "sync",
            "startTime": "2026-01-01T00:00:00Z",
            "connectionId": str(uuid.UUID(int=1)),
        }
    )


@dataclass(frozen=True)
class Kind:
    """A row's trigger.

    :ivar trigger: returns the trigger for an execution's number and an interval.
    :ivar connection: returns the Airflow connection to a fake at a port.
    :ivar package: what has to be installed.
    :ivar answer: how its fake answers; ``None`` if that is the provider's own simulator.
    """

    name: str
    trigger: Callable[[int, float], BaseTrigger]
    connection: Callable[[int], dict[str, Any]]
    package: str
    answer: Callable[[str, bool], web.Response] | None = None


def _timextender_connection(port: int) -> dict[str, Any]:
    return {"conn_type": "timextender", "host": f"https://{HOST}:{port}", "password": "simulated-api-key"}


KINDS = {
    "ours": Kind("TimeXtender", _ours, _timextender_connection, "airflow-provider-timextender"),
    "dbt": Kind(
        "dbt Cloud",
        _dbt,
        lambda port: {"conn_type": "dbt_cloud", "host": f"{HOST}:{port}", "password": "token"},
        "apache-airflow-providers-dbt-cloud",
        _dbt_answer,
    ),
    "http": Kind(
        "HTTP sensor",
        _http,
        lambda port: {"conn_type": "http", "host": f"https://{HOST}", "port": port},
        "apache-airflow-providers-http",
        _http_answer,
    ),
    "airbyte": Kind(
        "Airbyte",
        _airbyte,
        lambda port: {"conn_type": "airbyte", "host": f"https://{HOST}:{port}"},
        "apache-airflow-providers-airbyte",
        _airbyte_answer,
    ),
}

# --- both child processes: they answer a word on stdin with a line of JSON on stdout ---


def _converse(answers: dict[str, Callable[[], Any]]) -> None:
    # Airflow and the libraries may print; what they say goes where a crash is told.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    out.write("{}\n")  # ready
    out.flush()
    for word in sys.stdin:
        out.write(json.dumps(answers[word.strip()]()) + "\n")
        out.flush()
    os._exit(0)


class Fake:
    """A service that says of every execution that it is running, until it is told to finish."""

    def __init__(self, answer: Callable[[str, bool], web.Response]) -> None:
        self.over = False
        self.requests: Counter[str] = Counter()
        app = web.Application()
        app.router.add_get("/{path:.*}", self._handle)
        self.runner = web.AppRunner(app, access_log=None)
        self._answer = answer

    async def _handle(self, request: web.Request) -> web.Response:
        self.requests[request.path] += 1
        return self._answer(request.path, self.over)

    def counts(self) -> dict[str, int]:
        """Return how many requests came, and about how many executions."""
        return {"status": self.requests.total(), "asked": len(self.requests)}

    def finish(self) -> None:
        """End all executions."""
        self.over = True


class FakeTimeXtender:
    """The provider's simulator with as many jobs as executions, each of them running."""

    def __init__(self, size: int) -> None:
        from airflow_provider_timextender.simulator import Job, Simulator

        jobs = [Job(_job_name(number), pickup=0, duration=WEEK) for number in range(size)]
        self.simulator = Simulator(jobs).__enter__()
        for number, job in enumerate(jobs):
            self.simulator.world.queue(job, time.time(), trigger_id=_execution_id(number))
        runner = self.simulator._runner
        assert runner is not None
        self.runner = runner

    def counts(self) -> dict[str, int]:
        """Return how many requests came to each route, and about how many executions."""
        requests = list(self.simulator.requests)
        asked = len({request.path for request in requests if request.route == "execution logs"})
        return {**Counter(request.route for request in requests), "asked": asked}

    def finish(self) -> None:
        """End all executions."""
        self.simulator.finish()


def serve(kind: Kind, size: int, certificate: Path) -> None:
    """Be the service."""
    import ssl

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    fake = FakeTimeXtender(size) if kind.answer is None else Fake(kind.answer)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def do(coroutine: Coroutine[Any, Any, None]) -> None:
        # The simulator has a loop of its own, and its requests belong to that.
        its = fake.simulator._loop if isinstance(fake, FakeTimeXtender) else loop
        asyncio.run_coroutine_threadsafe(coroutine, its).result()

    if isinstance(fake, Fake):
        do(fake.runner.setup())
    site = web.TCPSite(fake.runner, HOST, 0, ssl_context=tls, backlog=4096)
    do(site.start())
    port = fake.runner.addresses[-1][1]
    server = fake.runner.server
    assert server is not None
    opened = 0
    connection_made = server.connection_made

    def count(*arguments: Any) -> None:
        nonlocal opened
        opened += 1
        connection_made(*arguments)

    server.connection_made = count  # type: ignore[assignment,method-assign]

    def finish() -> float:
        fake.finish()
        return time.time()

    _converse(
        {
            "port": lambda: port,
            "counts": lambda: {**fake.counts(), "opened": opened, "open": len(server.connections)},
            "finish": finish,
        }
    )


class Waiting:
    """The waiting process: triggers run as Airflow's triggerer runs them."""

    def __init__(self, kind: Kind, size: int, interval: float, spread: float) -> None:
        self.events: list[tuple[float, str]] = []
        self.lags: list[float] = []
        self._kind, self._size, self._interval, self._spread = kind, size, interval, spread
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lag: asyncio.Task[None] | None = None
        self._asleep_since = 0.0
        kind.trigger(0, interval)  # for its imports, which are not the cost of a wait

    def begin(self) -> None:
        """Start the triggers."""
        self._loop.call_soon_threadsafe(lambda: self._tasks.add(self._loop.create_task(self._start())))

    def lag(self) -> None:
        """Begin to look for lag."""
        self._asleep_since = time.monotonic()
        self._loop.call_soon_threadsafe(self._look_for_lag)

    def lags_seen(self) -> list[float]:
        """Return the lags in seconds since then, with the one that has not ended yet, and look no more."""
        seen = [*self.lags, time.monotonic() - self._asleep_since - LAG_STEP]
        self._loop.call_soon_threadsafe(lambda: self._lag and self._lag.cancel())
        return seen

    def used(self) -> dict[str, float]:
        """Return what the process has used so far."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"at": time.monotonic(), "cpu": time.process_time(), "rss": pages * resource.getpagesize()}

    def run(self) -> None:
        """Run the event loop, for ever."""
        self._loop.run_forever()

    def _look_for_lag(self) -> None:
        self._lag = self._loop.create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(LAG_STEP)
            now = time.monotonic()
            self.lags.append(now - self._asleep_since - LAG_STEP)
            self._asleep_since = now

    async def _start(self) -> None:
        began = self._loop.time()
        for number in range(self._size):
            trigger = self._kind.trigger(number, self._interval)
            self._tasks.add(self._loop.create_task(self._wait(trigger)))
            await asyncio.sleep(max(0, began + self._spread * (number + 1) / self._size - self._loop.time()))

    async def _wait(self, trigger: Any) -> None:
        with suppress(ImportError):  # Airflow 2 has no portals
            import greenback

            await greenback.ensure_portal()
        try:
            async for event in trigger.run():
                self.events.append((time.time(), self._problem(event.payload)))
        except Exception as error:  # noqa: BLE001 - whatever a package raises is told in the table
            self.events.append((time.time(), repr(error)))

    @staticmethod
    def _problem(payload: Any) -> str:
        if payload is True or payload.get("state", payload.get("status")) in ("succeeded", "success"):
            return ""
        return str(payload.get("message"))


def wait(kind: Kind, size: int, interval: float, spread: float) -> None:
    """Be the waiting process."""
    waiting = Waiting(kind, size, interval, spread)
    answers: dict[str, Callable[[], Any]] = {
        "begin": waiting.begin,
        "used": waiting.used,
        "lag": waiting.lag,
        "lags": waiting.lags_seen,
        "fired": lambda: len(waiting.events),
        "events": lambda: waiting.events,
    }
    # In a thread, so that questions are answered also while a trigger blocks the loop.
    threading.Thread(target=_converse, args=(answers,), daemon=True).start()
    waiting.run()


# --- the parent: it tells the two what to do, and looks on ---


class Child:
    """A child process of this script, to be asked."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors
        self._hear()

    def ask(self, word: str) -> Any:
        """Return the answer to a word."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"A child process ended: {self._errors.read()[-2000:]}")
        return json.loads(line)


@contextmanager
def child(*arguments: object, **environment: str) -> Iterator[Child]:
    """Start this script as a child process, and kill it in the end."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with process:
            try:
                yield Child(process, errors)
            finally:
                process.kill()


@dataclass(frozen=True)
class Options:
    """How to measure."""

    interval: float
    intervals: int
    burst: bool
    patience: float
    cap: float


@dataclass(frozen=True)
class Row:
    """What was measured."""

    kind: Kind
    size: int
    requests: float
    opened: float
    open: int
    cpu: float
    lags: list[float]
    delays: list[float]
    rss: float
    notes: list[str]

    def cells(self, best: float) -> list[str]:
        """Return the cells of the table, given the least CPU time of all rows with that size."""
        ordered = sorted(self.lags)
        lags = [ordered[round(q * (len(ordered) - 1))] for q in (0.5, 0.99, 1)]
        ends = [min(self.delays), statistics.median(self.delays), max(self.delays)] if self.delays else []
        return [
            str(self.size),
            self.kind.name,
            f"{self.requests:.1f}",
            f"{self.opened:.1f}",
            str(self.open),
            f"{self.cpu:.3f}",
            f"{self.cpu / self.size * 1e6:.0f}",
            f"{self.cpu / best:.1f}",
            " / ".join(f"{lag * 1000:.1f}" for lag in lags),
            " / ".join(f"{end:.2f}" for end in ends) or "-",
            f"{self.rss / 2**20:.1f}",
            "; ".join(self.notes),
        ]


HEAD = (
    "N",
    "trigger",
    "requests / interval",
    "new connections / interval",
    "open connections",
    "CPU s / interval",
    "CPU µs / task and interval",
    "CPU, best = 1",
    "loop lag ms: p50 / p99 / max",
    "end to event s: first / median / last",
    "RSS growth MB",
    "notes",
)


def measure(name: str, size: int, options: Options, home: Path) -> Row:
    """Measure one row."""
    kind, interval = KINDS[name], options.interval
    notes = []
    with ExitStack() as children:
        server = children.enter_context(child("--serve", name, size, home / "server.pem"))
        spread = 0 if options.burst else interval
        environment = {
            "AIRFLOW_HOME": str(home),
            # Most of the triggers say each time that they look; Airflow would write that to files.
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            f"AIRFLOW_CONN_{CONNECTION.upper()}": json.dumps(kind.connection(server.ask("port"))),
            "SSL_CERT_FILE": str(home / "bundle.pem"),
            "REQUESTS_CA_BUNDLE": str(home / "bundle.pem"),
        }
        waiter = children.enter_context(child("--wait", name, size, interval, spread, **environment))

        began = waiter.ask("used")
        waiter.ask("begin")
        until = time.monotonic() + spread + options.patience
        while (asked := server.ask("counts")["asked"]) < size and time.monotonic() < until:
            time.sleep(min(0.5, interval / 4))
        if asked < size:
            notes.append(f"after {spread + options.patience:g} s {asked} of {size} had been asked about")
        time.sleep(interval)

        counts, used = server.ask("counts"), waiter.ask("used")
        time.sleep(interval * options.intervals)
        then, used_then = server.ask("counts"), waiter.ask("used")
        passed = (used_then["at"] - used["at"]) / interval
        requests = sum(then[r] - counts.get(r, 0) for r in then if r not in ("asked", "opened", "open"))

        waiter.ask("lag")
        time.sleep(2 * interval)
        lags = waiter.ask("lags")

        time.sleep(random.uniform(0, interval))
        over = server.ask("finish")
        until = time.monotonic() + options.cap
        while waiter.ask("fired") < size and time.monotonic() < until:
            time.sleep(0.1)
        events = waiter.ask("events")
    good = [at - over for at, problem in events if not problem]
    problems = [problem for _, problem in events if problem]
    if len(events) < size:
        notes.append(f"{size - len(events)} not within {options.cap:g} s")
    if problems:
        notes.append(f"{len(problems)} events were errors ({problems[0][:80]})")
    return Row(
        kind=kind,
        size=size,
        requests=requests / passed,
        opened=(then["opened"] - counts["opened"]) / passed,
        open=then["open"],
        cpu=(used_then["cpu"] - used["cpu"]) / passed,
        lags=lags,
        delays=good,
        rss=used_then["rss"] - began["rss"],
        notes=notes,
    )


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    best = {row.size: min(r.cpu for r in rows if r.size == row.size) for row in rows}
    return printed.table(HEAD, [row.cells(best[row.size]) for row in rows], ("trigger", "notes"))


def certify(home: Path) -> None:
    """Make a certificate for the fakes, and a bundle of usual size to trust it with."""
    import certifi
    import trustme

    authority = trustme.CA()
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(home / "server.pem"))
    bundle = Path(certifi.where()).read_bytes() + authority.cert_pem.bytes()
    (home / "bundle.pem").write_bytes(bundle)


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100, 500, 2000, 10000], metavar="N")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS), help="whose triggers")
    parser.add_argument("--interval", type=float, default=5, help="seconds between two looks")
    parser.add_argument("--intervals", type=int, default=4, help="how many are measured")
    parser.add_argument(
        "--burst", action="store_true", help="start all at once, as after a triggerer's restart"
    )
    parser.add_argument("--patience", type=float, default=120, help="seconds for the first look of all")
    parser.add_argument("--cap", type=float, default=60, help="seconds for all events after the end")
    given = parser.parse_args()
    kinds = [name for name in given.kinds if printed.installed_version(KINDS[name].package)]
    options = Options(given.interval, given.intervals, given.burst, given.patience, given.cap)

    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-waiting-") as home:
        certify(Path(home))
        for size in given.sizes:
            for name in kinds:
                print(f"N={size}: {KINDS[name].name} ...", file=sys.stderr, flush=True)
                rows.append(measure(name, size, options, Path(home)))
    print(table(rows))
    print(f"\nInterval {options.interval:g} s, measured over {options.intervals} of them; ", end="")
    print("all started at once." if options.burst else "starts spread over one.")
    print("CPU, lag and memory are the waiting process's. One process is one triggerer.")
    if missing := [KINDS[name].name for name in given.kinds if name not in kinds]:
        print(f"Without {' and '.join(missing)}, as not installed here.")
    print(f"\n{printed.machine(PACKAGES)}")
    print(f"\nAgain: python benchmarks/waiting.py {' '.join(sys.argv[1:])}".rstrip())
    return 0


def child_main(role: str, name: str, size: str, *more: str) -> None:
    """Be a child process."""
    # The HTTP sensor opens a connection per look and task.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if role == "--serve":
        serve(KINDS[name], int(size), Path(more[0]))
    else:
        wait(KINDS[name], int(size), float(more[0]), float(more[1]))


if __name__ == "__main__":
    if sys.argv[1:2] in (["--serve"], ["--wait"]):
        child_main(*sys.argv[1:])
    else:
        sys.exit(main())
