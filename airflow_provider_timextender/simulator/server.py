"""The simulator as a server: a thread with an HTTP server on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

try:
    from aiohttp import web
except ImportError as error:
    raise ImportError(
        "The simulator needs aiohttp: pip install 'airflow-provider-timextender[simulator]'"
    ) from error

from airflow_provider_timextender.simulator.dialects import DIALECTS, Dialect, Reply, folded
from airflow_provider_timextender.simulator.faults import KINDS, Fault
from airflow_provider_timextender.simulator.replay import Recording
from airflow_provider_timextender.simulator.world import Ending, Execution, Job, Starter, World

Route = Literal["jobs", "execute", "status", "statuses", "logs", "execution logs"]

ROUTES: dict[Route, tuple[str, str]] = {
    "jobs": ("GET", "/public/jobs"),
    "statuses": ("GET", "/public/jobs/status"),
    "execute": ("POST", "/public/jobs/{job_id}/execute"),
    "status": ("GET", "/public/jobs/{job_id}/status"),
    "logs": ("GET", "/public/jobs/{job_id}/logs"),
    "execution logs": ("GET", "/public/jobs/{job_id}/logs/{trigger_id}"),
}

DAY = 24 * 60 * 60

Speech = Dialect | Recording

Answer = Callable[[web.Request, Speech, float], Reply]

HTML = "<html><head><title>Sign in</title></head><body>Please sign in.</body></html>"


@dataclass(frozen=True)
class Request:
    """A request that arrived, whatever became of it.

    :ivar route: its name, ``"unknown"`` for a path that the API does not have. :ivar at: epoch seconds.
    :ivar connection: the client's port: the same for requests over the same TCP connection.
    """

    route: str
    method: str
    path: str
    headers: dict[str, str]
    at: float
    connection: int


class Simulator:
    """The API of one organisation, over HTTP on this machine.

    Use it as a context manager; everything may be called while it runs, from any thread.

    :param jobs: the jobs; ``None`` for a small set of examples.
    :param api_key: what the ``x-api-key`` header must say.
    :param dialect: a name out of :data:`DIALECTS`, a dialect of your own, or a recording.
    :param port: ``0`` for any free one.
    :param etags: whether answers have an ``ETag``, and one that the client knows is not sent again. The
        published API says nothing of it.
    :ivar sent: how many bytes of answers to each route were sent, those that a fault spoils left out.
    """

    def __init__(
        self,
        jobs: list[Job] | None = None,
        *,
        api_key: str = "simulated-api-key",
        dialect: str | Speech = "documented",
        port: int = 0,
        etags: bool = False,
    ) -> None:
        self.world = World(example_jobs() if jobs is None else jobs)
        self.api_key = api_key
        self.dialect: Speech = DIALECTS[dialect] if isinstance(dialect, str) else dialect
        self.requests: list[Request] = []
        self.sent: Counter[str] = Counter()
        self.url = ""
        self._port = port
        self._etags = etags
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="simulator")
        self._over = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Simulator:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # --- what a test arranges and asks ---

    def job(self, name: str) -> Job:
        """Return a job by name, to change how its next executions go.

        :raises ValueError: if there is none.
        """
        for job in self.world.jobs.values():
            if job.name == name:
                return job
        names = ", ".join(job.name for job in self.world.jobs.values())
        raise ValueError(f"There is no job {name!r}; there is {names or 'none'}.")

    def run(self, name: str, *, by: Literal["schedule", "hand"] = "schedule") -> Execution:
        """Start an execution outside Airflow; one by hand has the blank trigger id."""
        return self.world.queue(self.job(name), time.time(), by=by)

    def past(
        self, name: str, outcome: Ending = "succeeded", *, ago: float = 3600.0, by: Starter = "api"
    ) -> Execution:
        """Add an execution that has ended, as if it had run before the simulator was there.

        :param name: of the job, whose ``outcomes`` it leaves alone.
        :param ago: how many seconds before now it ended.
        :param by: what it was started by; one by ``hand`` has the blank trigger id.
        :raises ValueError: if that is no moment of the past.
        """
        if not ago >= 0:
            raise ValueError(f"ago is {ago!r}; it takes the seconds since the execution ended, 0 or more.")
        return self.world.past(self.job(name), time.time() - ago, outcome, by=by)

    def past_days(self, count: int) -> None:
        """Let each job have run once on each of some days before; one of three times it failed."""
        for job in self.world.jobs.values():
            for days in range(count, 0, -1):
                self.past(job.name, "failed" if days % 3 == 2 else "succeeded", ago=days * DAY, by="schedule")

    def finish(self, outcome: Ending = "succeeded") -> None:
        """End everything that is pending or running, now."""
        self.world.finish(time.time(), outcome)

    def fault(self, route: Route, *faults: Fault, always: Fault | None = None) -> None:
        """Spoil the next answers of a route, one fault each, or all of them from then on.

        :raises ValueError: for an unknown route, or a fault that makes no sense there.
        """
        if route not in ROUTES:
            raise ValueError(f"There is no route {route!r}; the routes are {', '.join(ROUTES)}.")
        for fault in (*faults, *([always] if always else [])):
            fault.refuse_elsewhere(route, ROUTES[route][0])
        self._faults[route].extend(faults)
        if always is not None:
            self._always[route] = always

    def heal(self) -> None:
        """Take all faults back."""
        self._faults.clear()
        self._always.clear()

    def count(self, route: Route) -> int:
        """Return how many requests came to a route."""
        return sum(request.route == route for request in self.requests)

    def connection(self, *, explained: bool = True) -> dict[str, Any]:
        """Return the fields of the Airflow connection that leads here.

        :param explained: whether its extra explains the dialect, as far as that is possible.
        """
        return {
            "conn_type": "timextender",
            "host": self.url,
            "password": self.api_key,
            "extra": self.dialect.extra if explained else {},
        }

    def connection_json(self, *, explained: bool = True) -> str:
        """Return that connection as the value of an ``AIRFLOW_CONN_...`` environment variable."""
        return json.dumps(self.connection(explained=explained))

    # --- the server ---

    async def _start(self) -> None:
        app = web.Application()
        answers: dict[Route, Answer] = {
            "jobs": self._jobs,
            "statuses": self._statuses,
            "execute": self._execute,
            "status": self._status,
            "logs": self._logs,
            "execution logs": self._logs,
        }
        for route, (method, described) in ROUTES.items():
            # By default no id with braces would match.
            path = described.replace("_id}", "_id:[^/]+}")
            app.router.add_route(method, path, self._handler(route, answers[route]))
        app.router.add_route("*", "/{path:.*}", self._unknown)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def _stop(self) -> None:
        self._over.set()
        if self._runner is not None and self._runner.server is not None:
            server = self._runner.server
            connections = server.connections
            await self._runner.cleanup()
            await asyncio.sleep(0.01)  # in which those come that were accepted meanwhile
            for connection in {*connections, *server.connections}:
                if connection.transport is not None:
                    connection.transport.abort()  # its client may not read what is left
            await asyncio.sleep(0)

    def _handler(
        self, route: Route, answer: Answer
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._record(route, request)
            queue = self._faults[route]
            fault = queue.popleft() if queue else self._always.get(route)
            if (
                fault is not None
                and not fault.taken
                and fault.kind not in ("cut", "wrong type", "unknown word", "slow")
            ):
                return await self._spoil(fault, request, None)
            if request.headers.get("x-api-key") != self.api_key:
                return web.json_response({"message": "Unauthorized"}, status=401)
            if "job_id" in request.match_info and self._find(request) is None:
                return web.json_response({"message": "Job not found"}, status=404)
            dialect: Speech = self.dialect
            if fault is not None and fault.kind == "unknown word":
                dialect = dialect.with_unknown_words(fault.word)
            reply = answer(request, dialect, time.time())
            if fault is not None and fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
            if fault is None or fault.kind in ("unknown word", "slow"):
                return self._whole(route, request, reply)
            return await self._spoil(fault, request, reply.data)

        return handle

    def _whole(self, route: Route, request: web.Request, reply: Reply) -> web.Response:
        if reply.status == 204:
            return web.Response(status=204)
        response = web.json_response(reply.data, status=reply.status)
        body = response.body
        if self._etags and isinstance(body, bytes):
            response.etag = etag = hashlib.sha256(body).hexdigest()
            if etag in {known.value for known in request.if_none_match or ()}:
                return web.Response(status=304, headers={"ETag": response.headers["ETag"]})
        self.sent[route] += len(body) if isinstance(body, bytes) else 0
        return response

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        self._record("unknown", request)
        return web.json_response({"message": "Not found"}, status=404)

    def _record(self, route: str, request: web.Request) -> None:
        self.requests.append(
            Request(
                route=route,
                method=request.method,
                path=request.path,
                headers=dict(request.headers),
                at=time.time(),
                connection=request.transport.get_extra_info("peername")[1] if request.transport else 0,
            )
        )

    def _find(self, request: web.Request) -> Job | None:
        asked = request.match_info["job_id"]
        job = self.world.jobs.get(folded(asked))
        return job if job is not None and self.dialect.means(asked, job.id) else None

    def _job(self, request: web.Request) -> Job:
        return self.world.jobs[folded(request.match_info["job_id"])]

    def _jobs(self, request: web.Request, dialect: Speech, now: float) -> Reply:
        return dialect.write_jobs(list(self.world.jobs.values()))

    def _statuses(self, request: web.Request, dialect: Speech, now: float) -> Reply:
        return dialect.write_statuses(
            [(job, self.world.status(job, now)) for job in self.world.jobs.values()]
        )

    def _execute(self, request: web.Request, dialect: Speech, now: float) -> Reply:
        return dialect.write_receipt(self.world.queue(self._job(request), now))

    def _status(self, request: web.Request, dialect: Speech, now: float) -> Reply:
        job = self._job(request)
        return dialect.write_status(job, self.world.status(job, now))

    def _logs(self, request: web.Request, dialect: Speech, now: float) -> Reply:
        job = self._job(request)
        asked = request.match_info.get("trigger_id")
        return dialect.write_log(job, self.world.log(job, now), now - job.log_lag, asked)

    async def _spoil(self, fault: Fault, request: web.Request, data: Any) -> web.StreamResponse:
        text = json.dumps(data)
        status = fault.status or KINDS[fault.kind].status
        if fault.kind == "status":
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return web.Response(text=fault.body, status=status, headers=headers)
        if fault.kind == "reset":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if fault.kind in ("silence", "drip"):
            return await self._dawdle(fault, request)
        if fault.kind == "html":
            return web.Response(text=HTML, content_type="text/html")
        if fault.kind == "cut":
            return web.Response(text=text[: len(text) // 2], content_type="application/json")
        if fault.kind == "wrong type":
            return web.json_response({"value": data} if isinstance(data, list) else [data])
        if fault.kind == "redirect":
            return web.Response(status=status, headers={"Location": fault.location})
        return web.Response(text=fault.body, status=status, content_type="application/json")

    async def _dawdle(self, fault: Fault, request: web.Request) -> web.StreamResponse:
        if fault.kind == "silence":
            await self._over.wait()
            return web.Response()
        response = web.StreamResponse()
        await response.prepare(request)
        while not self._over.is_set():
            await response.write(b" ")
            await asyncio.sleep(fault.seconds)
        return response


def example_jobs() -> list[Job]:
    """Return the jobs that the example DAGs name."""
    return [
        Job("Load sales", duration=2.0, pickup=1.0, warnings=1),
        Job("Load finance", duration=1.0, pickup=0.5),
        Job("Load stock", duration=1.5, pickup=0.5, lines=2),
    ]
