"""What it costs to watch many jobs with large logs, in one Markdown table.

A server plays the API in a process of its own, with logs of a given size. The watcher runs in another, as in
a triggerer that starts again: it has looked at all logs, and one execution of each job has ended since. The
memory is that of the whole process, some 160 MB of which is Airflow. To compare with another version, run
this file with a checkout of it in ``PYTHONPATH``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import Any

from aiohttp import web

EXECUTIONS = 50
STATUSES, LOGS = "/public/jobs/status", "/public/jobs/{job_id}/logs"
BEGAN = datetime.now(timezone.utc) - timedelta(days=EXECUTIONS)


def job_id(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def log_of(job: str, size: int, ended: int) -> bytes:
    """Return a log with as many executions and about as many bytes."""
    entry = {"Timestamp": BEGAN.isoformat(), "Severity": "Information", "Message": "m" * 240}
    entries = [entry] * max(1, size // EXECUTIONS // len(json.dumps(entry)))

    def execution(number: int) -> dict[str, Any]:
        time = (BEGAN + timedelta(days=number)).isoformat()
        trigger_id = str(uuid.uuid5(uuid.UUID(job), str(number)))
        return {
            "TriggerId": trigger_id,
            "State": "Success",
            "StartTime": time,
            "EndTime": time,
            "Logs": entries,
        }

    return json.dumps([execution(number) for number in range(ended)]).encode()


async def serve(jobs: int, size: int) -> None:
    """Be the API: each log shows one execution more from the second time on. The port is printed."""
    sent: dict[str, int] = {}

    async def statuses(_: web.Request) -> web.Response:
        return web.json_response([{"JobId": job_id(number), "Status": "Idle"} for number in range(jobs)])

    async def log(request: web.Request) -> web.Response:
        job = request.match_info["job_id"]
        again = job in sent
        # Made anew each time, as hundreds of them would not fit into this process.
        body = log_of(job, size, EXECUTIONS + again)
        sent[job] = sent.get(job, 0) + len(body)
        return web.Response(body=body, content_type="application/json")

    async def bytes_sent(_: web.Request) -> web.Response:
        return web.json_response(sum(sent.values()))

    app = web.Application()
    app.add_routes([web.get(STATUSES, statuses), web.get(LOGS, log), web.get("/sent", bytes_sent)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


class Store:
    """An asset's state store."""

    value: Any = None

    async def aget(self, key: str) -> Any:
        return json.loads(self.value) if self.value else None

    async def aset(self, key: str, value: Any) -> None:
        self.value = json.dumps(value)


async def watch(url: str, jobs: int) -> None:
    """Be the triggerer: look once, start again, and print what it took until the events were told."""
    import aiohttp

    from airflow_provider_timextender.triggers import JobFinishedTrigger

    room = sys.modules[JobFinishedTrigger.__module__]
    room.SPACING = 0.0  # type: ignore[attr-defined] # the distance between events is no cost
    streams = import_module("airflow.triggers.shared_stream")
    store = Store()

    async def bytes_sent() -> int:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/sent") as answer:
            return int(await answer.json())

    async def look_is_over() -> None:
        sent = 0
        while sent == 0 or sent != await bytes_sent():
            sent = await bytes_sent()
            await asyncio.sleep(3)

    async def run(events: int) -> float:
        """Watch until so many events are told, or one look is over, and return when the first was told."""
        trigger = JobFinishedTrigger(job_ids=[job_id(number) for number in range(jobs)], poll_interval=600)
        trigger.asset_state_store = store
        manager, key, first = streams.SharedStreamManager(), trigger.shared_stream_key(), 0.0
        began, told = time.monotonic(), asyncio.Event()

        async def listen() -> None:
            nonlocal first, events
            stream = manager.subscribe(trigger_id=1, trigger=trigger, key=key)
            async for _ in trigger.filter_shared_stream(stream):
                first = first or time.monotonic() - began
                manager.confirm_persisted([manager.bind_pending_event(trigger_id=1, key=key)])
                events -= 1
                if events == 0:
                    told.set()

        task = asyncio.create_task(listen())
        if events:
            await told.wait()
        else:
            await look_is_over()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await manager.unsubscribe(1, key)
        return first

    await run(0)
    # 0.1.0 goes by a clock: for it, all that the first look has shown is a minute old.
    before, began = await bytes_sent(), time.monotonic()
    if isinstance(remembered := json.loads(store.value), dict) and "since" in remembered:
        since = BEGAN + timedelta(days=EXECUTIONS - 1, minutes=1)
        store.value = json.dumps({**remembered, "since": since.isoformat()})
    first = await run(jobs)
    found = {
        "first": first,
        "all": time.monotonic() - began,
        "sent": await bytes_sent() - before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "stored": len(store.value),
    }
    print(json.dumps(found))


def measure(jobs: int, size: int) -> dict[str, float]:
    """Run the two processes."""
    me = [sys.executable, __file__, "--jobs", str(jobs), "--megabytes", str(size)]
    with subprocess.Popen([*me, "--role", "server"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        connection = json.dumps({"conn_type": "timextender", "host": url, "password": "k"})
        environment = {**os.environ, "AIRFLOW_CONN_TIMEXTENDER_DEFAULT": connection, "URL": url}
        try:
            out = subprocess.run(
                [*me, "--role", "watcher"], env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
        finally:
            server.kill()
    found: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 10, 60])
    parser.add_argument("--megabytes", type=int, default=5, help="size of each log")
    parser.add_argument("--role", choices=["server", "watcher"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role == "server":
        asyncio.run(serve(given.jobs[0], given.megabytes * 1_000_000))
    elif given.role == "watcher":
        asyncio.run(watch(os.environ["URL"], given.jobs[0]))
    else:
        print("| jobs | peak memory, MB | first event, s | all events, s | read, MB | remembered, KB |")
        print("|---|---|---|---|---|---|")
        for jobs in given.jobs:
            found = measure(jobs, given.megabytes)
            print(
                f"| {jobs} | {found['peak'] / 1e6:.0f} | {found['first']:.1f} | {found['all']:.1f} | "
                f"{found['sent'] / 1e6:.0f} | {found['stored'] / 1e3:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
