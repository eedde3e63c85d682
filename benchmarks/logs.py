"""What it costs to read a job's whole log, for this provider and for others, in one Markdown table.

Each row has two processes of its own, so that nothing of another row is in its figures: a server, which makes
the log while it sends it, and a reader. The reader has read the log of one execution before, so that all is
imported. What it uses from then on is counted: CPU seconds, those of its children included, and the highest
memory above what it had. Of several runs the least CPU counts, as other programs can only add to it.

The limit is ijson, which all that streams stands on, when it does nothing but parse the same answer.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import printed

MB = 1_000_000
PACKAGES = (
    "airflow-provider-timextender",
    "apache-airflow",
    "apache-airflow-providers-http",
    "ijson",
    "pyarrow",
    "requests",
)

# --- the server ---

LINES, LINE = 100, 300
"""How many lines an execution has, and how many bytes a line, with the comma that follows it."""

PACE = 10 * MB
"""Bytes a second that a slow network carries."""

ID, HOUR = "i" * 36, "h" * 13  # in a template, where each execution has something else of the same length


def packed(data: Any) -> bytes:
    """Return JSON without spaces."""
    return json.dumps(data, separators=(",", ":")).encode()


TIMES = {"StartTime": f"{HOUR}:00:00.000Z", "EndTime": f"{HOUR}:50:00.000Z"}
HEAD, TAIL = packed({"TriggerId": ID, "State": "Succeeded", **TIMES, "Logs": []})[:-2], b"]}"


@cache
def templates() -> list[bytes]:
    """Return the lines of some executions, with other texts, all of the same length."""
    words = random.Random(12)
    return [b",".join(_line(number, words) for number in range(LINES)) for _ in range(16)]


def _line(number: int, words: random.Random) -> bytes:
    line = {
        "TriggerId": ID,
        "Timestamp": f"{HOUR}:{number // 2:02}:{number % 2 * 30:02}.{words.randrange(1000):03}Z",
        "Severity": "Error" if number == LINES // 2 else "Information",
        "Message": f"Transfer {words.randrange(400)}: {words.randrange(10**9)} rows were read. ",
    }
    more = "".join(words.choices("abcdefghijklmnopqrstuvwxyz_. ", k=LINE - 1 - len(packed(line))))
    return packed({**line, "Message": line["Message"] + more})


def executions_in(size: int) -> int:
    """Return how many executions a log of about so many bytes has, if each has as many lines as usual."""
    return size // (len(HEAD) + len(templates()[0]) + len(TAIL) + 1)


def whole_log(size: int, in_one: bool = False) -> Iterator[bytes]:
    """Yield a log of about so many bytes, made while it is sent: an execution an hour, the oldest first.

    :param in_one: whether there is one execution only, which has all the lines.
    """
    count = executions_in(size)
    yield b"["
    for number in range(count):
        hour = datetime(2022, 1, 1, tzinfo=timezone.utc) + timedelta(hours=number)
        piece = b"," * (number > 0)
        piece += HEAD * (number == 0 or not in_one)
        piece += templates()[number % len(templates())]
        piece += TAIL * (number == count - 1 or not in_one)
        piece = piece.replace(ID.encode(), str(uuid.UUID(int=2 if in_one else 2 + number)).encode())
        yield piece.replace(HOUR.encode(), f"{hour:%Y-%m-%dT%H}".encode())
    yield b"]"


def zipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces as gzip."""
    packer = zlib.compressobj(level=1, wbits=16 + zlib.MAX_WBITS)
    yield from filter(None, map(packer.compress, pieces))
    yield packer.flush()


def slowly(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces as a slow network carries them."""
    began, sent = time.monotonic(), 0
    for piece in pieces:
        yield piece
        sent += len(piece)
        time.sleep(max(0, began + sent / PACE - time.monotonic()))


ANSWERS: dict[str, Callable[[int], Iterable[bytes]]] = {
    "": whole_log,
    "slow": lambda size: slowly(whole_log(size)),
    "gzip": lambda size: zipped(whole_log(size)),
    "one execution": lambda size: whole_log(size, in_one=True),
}
"""How a log comes."""

SMALL, JOB = str(uuid.UUID(int=0xE)), str(uuid.UUID(int=0xF))


class Handler(BaseHTTPRequestHandler):
    """The API with two idle jobs: one that has run once, and one whose log has the size that is asked for."""

    protocol_version = "HTTP/1.1"
    size: int
    way: str

    def do_GET(self) -> None:
        if self.path.endswith("/logs"):
            size = self.size if JOB in self.path else (LINES + 1) * LINE
            self._send(ANSWERS[self.way](size))
        elif self.path.endswith("/status"):
            self._send([packed({"JobId": self.path.split("/")[-2], "Status": "Idle"})])
        else:
            self._send([packed([{"Id": SMALL, "Name": "Small"}, {"Id": JOB, "Name": "Load"}])])

    def do_POST(self) -> None:
        receipt = {"JobId": self.path.split("/")[-2], "TriggerId": str(uuid.uuid4()), "Message": "Queued."}
        self._send([packed(receipt)])

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, pieces: Iterable[bytes]) -> None:
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            if self.way == "gzip" and self.path.endswith("/logs"):
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            for piece in chain(pieces, [b""]):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        except ConnectionError:  # whoever asked wants no more
            self.close_connection = True


def serve(size: int, way: str) -> None:
    """Be the server, and print the port."""
    Handler.size, Handler.way = size * MB, way
    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(service.server_port, flush=True)
    service.serve_forever()


# --- the readers ---

Read = Callable[[str, Callable[[], None]], int | None]
"""Reads the log of a job, calls what it is given when the first line is there, and returns how many lines it
gave; ``None`` for a reader that gives none."""


def count(items: Iterable[Any], begun: Callable[[], None]) -> int:
    """Go through items, and return how many they are."""
    number = 0
    for number, _ in enumerate(items, 1):
        if number == 1:
            begun()
    return number


def only_parse(url: str, _: Path, events: bool = False) -> Read:
    """Let ijson parse, to the lines, or to the events that they are made of."""
    import ijson
    import requests

    backend = ijson.get_backend("yajl2_c")

    def read(job: str, begun: Callable[[], None]) -> int | None:
        with requests.get(f"{url}/public/jobs/{job}/logs", stream=True, timeout=600) as response:
            if not events:
                return count(backend.items(response.raw, "item.Logs.item"), begun)
            count(backend.parse(response.raw), begun)
            return None

    return read


def write_errors(executions: Iterable[dict[str, Any]], file: Path, begun: Callable[[], None]) -> int:
    """Write the errors of executions as JSON Lines."""
    errors = (line for execution in executions for line in execution["Logs"] if line["Severity"] == "Error")
    with file.open("w") as out:
        return count((out.write(json.dumps(line) + "\n") for line in errors), begun)


def by_hand(url: str, folder: Path) -> Read:
    """Do what people write by hand, with requests and json."""
    import requests

    def read(job: str, begun: Callable[[], None]) -> int:
        response = requests.get(f"{url}/public/jobs/{job}/logs", timeout=600)
        response.raise_for_status()
        return write_errors(json.loads(response.content), folder / "errors.jsonl", begun)

    return read


def http_operator(_: str, folder: Path) -> Read:
    """Let the HTTP provider's operator do it, with a filter."""
    from airflow.providers.http.operators.http import HttpOperator

    def read(job: str, begun: Callable[[], None]) -> int:
        written: int = HttpOperator(
            task_id="task",
            method="GET",
            http_conn_id="bench_http",
            endpoint=f"/public/jobs/{job}/logs",
            response_filter=lambda response: write_errors(response.json(), folder / "errors.jsonl", begun),
        ).execute(context())
        return written

    return read


def context() -> Any:
    """Return what an operator has to know of its task where there is no scheduler."""
    ti = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=-1, try_number=1, max_tries=0)
    ti.start_date, ti.xcom_push = datetime.now(timezone.utc), lambda key, value: None
    return {"ti": ti}


def to_file(_: str, folder: Path, name: str, **filters: Any) -> Read:
    """Let this provider's operator write a file."""
    from airflow_provider_timextender.operators import LogsOperator

    def read(job: str, begun: Callable[[], None]) -> int:
        operator: Any = LogsOperator(task_id="task", job_id=job, output_path=str(folder / name), **filters)
        iter_executions = operator.hook.iter_executions

        def noted(*args: Any, **kwargs: Any) -> Iterator[Any]:
            for execution in iter_executions(*args, **kwargs):
                begun()
                yield execution

        operator.hook.iter_executions = noted
        written: int = operator.execute(context())["rows"]
        return written

    return read


def iterate(_: str, __: Path, executions: bool) -> Read:
    """Go through the lines that this provider's hook yields, or those of the executions that it yields."""
    from airflow_provider_timextender.hooks import TimeXtenderHook

    hook = TimeXtenderHook()

    def read(job: str, begun: Callable[[], None]) -> int:
        if executions:
            return count((line for one in hook.iter_executions([job]) for line in one.logs), begun)
        return count(hook.iter_job_logs(job), begun)

    return read


def submit(_: str, __: Path) -> Read:
    """Queue the job with this provider's operator, which does not wait."""
    from airflow_provider_timextender.operators import ExecuteJobOperator

    def read(job: str, begun: Callable[[], None]) -> None:
        ExecuteJobOperator(task_id="task", job_id=job).execute(context())

    return read


@dataclass(frozen=True)
class Reader:
    """A row of the table, for each size.

    :ivar make: returns what reads, given the server's URL and a folder for files.
    :ivar gives: the part of the lines that is given.
    :ivar holds: how many bytes of memory it takes for each byte of the answer, if it holds the whole.
    :ivar way: how the log comes. :ivar sizes: which are measured, in MB; all, if none are named.
    """

    name: str
    make: Callable[[str, Path], Read]
    gives: float = 1
    holds: int = 0
    way: str = ""
    sizes: tuple[int, ...] = ()


ERRORS = partial(to_file, name="errors.jsonl", min_severity="error")
LIMIT = Reader("ijson `items` alone", only_parse)
READERS = (
    LIMIT,
    Reader("ijson `parse` alone", partial(only_parse, events=True)),
    Reader("LogsOperator, errors to .jsonl", ERRORS, 1 / LINES),
    Reader("LogsOperator, errors to .jsonl", ERRORS, 1 / LINES, way="slow", sizes=(100,)),
    Reader("LogsOperator, errors to .jsonl", ERRORS, 1 / LINES, way="gzip", sizes=(100,)),
    Reader("LogsOperator, errors to .jsonl", ERRORS, 1 / LINES, way="one execution"),
    Reader("LogsOperator, all to .jsonl", partial(to_file, name="all.jsonl")),
    Reader("LogsOperator, all to .jsonl.gz", partial(to_file, name="all.jsonl.gz"), sizes=(100,)),
    Reader("LogsOperator, all to .csv", partial(to_file, name="all.csv"), sizes=(100,)),
    Reader("LogsOperator, all to .parquet", partial(to_file, name="all.parquet")),
    Reader("`hook.iter_executions`", partial(iterate, executions=True)),
    Reader("`hook.iter_job_logs`", partial(iterate, executions=False), sizes=(100,)),
    Reader("ExecuteJobOperator, not waiting", submit),
    Reader("requests + json, errors to .jsonl", by_hand, 1 / LINES, holds=6),
    Reader("HttpOperator, errors to .jsonl", http_operator, 1 / LINES, holds=6),
)


def read(number: int, port: int, folder: Path) -> None:
    """Be a reader, and print as JSON what it took."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Airflow prints is no part of the answer
    reader = READERS[number].make(f"http://127.0.0.1:{port}", folder)
    reader(SMALL, lambda: None)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory is what it has now
    idle, cpu, began, first = kilobytes("self/status", "VmHWM"), cpu_seconds(), time.monotonic(), 0.0

    def begun() -> None:
        nonlocal first
        first = first or time.monotonic() - began

    gave = reader(JOB, begun)
    took = {
        "seconds": time.monotonic() - began,
        "cpu": cpu_seconds() - cpu,
        "memory": (kilobytes("self/status", "VmHWM") - idle) * 1024 / MB,
        "first": first,
    }
    out.write(json.dumps([gave, took]))
    out.flush()
    os._exit(0)


def cpu_seconds() -> float:
    """Return what this process and its children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def kilobytes(file: str, name: str) -> int:
    """Return a figure that the system shows in /proc."""
    (found,) = re.findall(rf"^{name}:\s+(\d+) kB", Path("/proc", file).read_text(), re.MULTILINE)
    return int(found)


# --- the parent ---


@contextmanager
def served(size: int, way: str) -> Iterator[str]:
    """Have a server, and return its port."""
    command = [sys.executable, __file__, "--serve", str(size), way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def measure(reader: Reader, size: int) -> dict[str, float]:
    """Run a reader once, and return what it took.

    :raises RuntimeError: if it has given other lines than it should.
    """
    with tempfile.TemporaryDirectory(prefix="bench-logs-") as home, served(size, reader.way) as port:
        host = f"http://127.0.0.1:{port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        environment.update(
            AIRFLOW_HOME=home,
            AIRFLOW_CONN_BENCH_HTTP=json.dumps({"conn_type": "http", "host": host}),
            AIRFLOW_CONN_TIMEXTENDER_DEFAULT=json.dumps(
                {"conn_type": "timextender", "host": host, "password": "simulated-api-key"}
            ),
            no_proxy="*",
        )
        command = [sys.executable, __file__, "--read", str(READERS.index(reader)), port, home]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    gave, took = json.loads(done.stdout)
    if gave not in (None, round(executions_in(size * MB) * LINES * reader.gives)):
        raise RuntimeError(f"{reader.name} gave {gave} lines of {size} MB")
    return {**took, "lines": executions_in(size * MB) * LINES if gave is not None else 0}


COLUMNS = ("log", "reader", "CPU s", "CPU, limit = 1", "memory MB", "seconds", "first line s", "lines / s")


def row(reader: Reader, size: int, runs: list[dict[str, float]], limit: float) -> list[str]:
    """Return the cells of a row."""
    log = ", ".join(filter(None, (f"{size // 1000} GB" if size % 1000 == 0 else f"{size} MB", reader.way)))
    if not runs:
        return [log, f"{reader.name}: not run, as it would hold some {reader.holds * size} MB", *[""] * 6]
    best = {name: min(run[name] for run in runs) for name in runs[0]}
    return [
        log,
        reader.name,
        f"{best['cpu']:.2f}",
        f"{best['cpu'] / limit:.2f}",
        f"{max(run['memory'] for run in runs):.1f}",
        f"{best['seconds']:.2f}",
        f"{best['first']:.3f}" if best["first"] else "",
        f"{best['lines'] / best['seconds']:.0f}" if best["lines"] else "",
    ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 100, 1000], metavar="MB")
    parser.add_argument("--runs", type=int, default=1, help="of each row: the best counts")
    parser.add_argument(
        "--readers", default="", help="only those that have this regular expression in their name"
    )
    given = parser.parse_args()
    rows = []
    for size in given.sizes:
        found: dict[Reader, list[dict[str, float]]] = {
            reader: []
            for reader in READERS
            if reader is LIMIT or (size in (reader.sizes or [size]) and re.search(given.readers, reader.name))
        }
        for run in range(given.runs):  # in turn, so that what else the machine does hits all
            for reader, took in found.items():
                if reader.holds * size * MB > kilobytes("meminfo", "MemAvailable") * 1024:
                    continue
                print(f"{size} MB, run {run + 1}: {reader.name} {reader.way}...", file=sys.stderr, flush=True)
                took.append(measure(reader, size))
        limit = min(run["cpu"] for run in found[LIMIT])
        rows += [row(reader, size, took, limit) for reader, took in found.items()]
    print(printed.table(COLUMNS, rows, ("log", "reader")))
    print(f"\nRuns of each row: {given.runs}; the least CPU and time and the highest memory count.")
    print(f"A line has {LINE} bytes, an execution {LINES} lines. Slow is {PACE // MB} MB a second.")
    print(f"\n{printed.machine(PACKAGES)}")
    print(f"\nAgain: python benchmarks/logs.py {' '.join(sys.argv[1:])}".rstrip())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), sys.argv[3])
    elif sys.argv[1:2] == ["--read"]:
        read(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
