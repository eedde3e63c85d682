"""Writes down what a release leaves outside of its processes, so that later releases can be held against it.

Run as a script on Airflow 3.3 or later, with the release on the path, and keep what it prints:
``PYTHONPATH=RELEASE python tests/airflow/stored/make.py > tests/airflow/stored/VERSION.json``. It only uses
what Airflow and the users of the package use, so that it can run any release, and it shares what plays
Airflow with ``test_stored.py``. Times that are near to its own are written as the seconds that have passed
since or are left (``[T-1.5]``), so that whoever loads them can go on from there.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from importlib import import_module
from types import SimpleNamespace
from typing import Any

RETRIES = 2

PAST = 1767261600.0
"""A day long ago, for what no later day makes a difference to."""


# --- what plays Airflow ---


class Died(BaseException):
    """The death of a worker."""


def lives_on(value: Any) -> str:
    """Let nobody die."""
    return ""


class Store:
    """What keeps the state of a task over its tries, or that of an asset.

    :ivar dies: whether the worker dies ``before`` or ``after`` something is kept, empty if it does not.
    """

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        self.kept: dict[str, Any] = dict(kept or {})
        self.dies: Callable[[Any], str] = lives_on

    def get(self, key: str, default: Any = None) -> Any:
        return self.kept.get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        dies = self.dies(value)
        if dies != "before":
            self.kept[key] = json.loads(json.dumps(value))
        if dies:
            raise Died

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)

    async def aget(self, key: str) -> Any:
        return self.get(key)

    async def aset(self, key: str, value: Any) -> None:
        self.set(key, value)


class TaskInstance:
    """The part of a task instance that a task uses."""

    map_index = -1
    dag_id = task_id = run_id = "t"

    def __init__(self, number: int = 1, most: int = RETRIES, xcoms: Mapping[str, Any] | None = None) -> None:
        self.try_number = number
        self.max_tries = most
        self.start_date = datetime.now(timezone.utc)
        self.xcoms: dict[str, Any] = dict(xcoms or {})

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def xcom_pull(self, task_ids: Any = None, key: str = "return_value", **_: Any) -> Any:
        return self.xcoms.get(key)

    def get_first_reschedule_date(self, context: Any) -> Any:
        return None


def context_of(ti: TaskInstance, store: Store | None, clears: int = 0) -> Any:
    dag_run = SimpleNamespace(clear_number=clears, start_date=ti.start_date)
    context: dict[str, Any] = {"ti": ti, "task_instance": ti, "dag_run": dag_run}
    return context if store is None else {**context, "task_state_store": store}


def task_of(kind: str, arguments: Mapping[str, Any]) -> Any:
    """Make a task as a DAG does."""
    module = "operators" if kind == "ExecuteJobOperator" else "sensors"
    more = dict(arguments)
    if "execution_timeout" in more:
        more["execution_timeout"] = timedelta(seconds=more["execution_timeout"])
    if "outlets" in more:
        asset = import_module("airflow.providers.common.compat.sdk").Asset
        more["outlets"] = [asset(name) for name in more["outlets"]]
    made = getattr(import_module(f"airflow_provider_timextender.{module}"), kind)
    return made(task_id="t", **{"retries": RETRIES, **more})


def trigger_of(stored: tuple[str, Mapping[str, Any]], **changed: Any) -> Any:
    """Make a trigger of what Airflow has stored, as a triggerer does."""
    path, arguments = stored
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)(**{**json.loads(json.dumps(arguments)), **changed})


def event_of(trigger: Any) -> Any:
    """Run a trigger, and return what its one event says."""

    async def run() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(asyncio.wait_for(run(), 60))
    return json.loads(json.dumps(payload))


async def watch(trigger: Any, until: Callable[[list[Any]], bool], seconds: float) -> list[Any]:
    """Run a watcher on a poll that Airflow shares out, and return what its events say."""
    told: list[Any] = []
    manager = import_module("airflow.triggers.shared_stream").SharedStreamManager()
    key = trigger.shared_stream_key()
    stream: AsyncIterator[Any] = manager.subscribe(trigger_id=1, trigger=trigger, key=key)

    async def run() -> None:
        async for event in trigger.filter_shared_stream(stream):
            told.append(json.loads(json.dumps(event.payload)))
            manager.confirm_persisted([manager.bind_pending_event(trigger_id=1, key=key)])

    running = asyncio.create_task(run())
    end = time.monotonic() + seconds
    while time.monotonic() < end and not running.done() and not until(told):  # noqa: ASYNC110 - it is elsewhere
        await asyncio.sleep(0.02)
    await asyncio.wait([running], timeout=0.3)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await manager.unsubscribe(1, key)
    return told


# --- times ---

TIME = re.compile(r"(\d{4}-\d\d-\d\d)([T ])(\d\d:\d\d:\d\d(?:\.\d{1,6})?\+00:00)")
MARK = re.compile(r"\[([T ])([+-][\d.]+)\]")


def relative(stored: Any, now: datetime) -> Any:
    """Return the same with each time of these days as the seconds that it is away."""

    def mark(found: re.Match[str]) -> str:
        away = (datetime.fromisoformat(f"{found[1]}T{found[3]}") - now).total_seconds()
        return f"[{found[2]}{away:+.6f}]" if abs(away) < 20 * 24 * 3600 else found[0]

    return json.loads(_in_values(stored, lambda text: TIME.sub(mark, text)))


def absolute(stored: Any, now: datetime) -> Any:
    """Return the same with the times that its marks stand for."""

    def unmark(found: re.Match[str]) -> str:
        return (now + timedelta(seconds=float(found[2]))).isoformat(found[1])

    return json.loads(_in_values(stored, lambda text: MARK.sub(unmark, text)))


def _in_values(stored: Any, change: Callable[[str], str]) -> str:
    return change(json.dumps(stored))


# --- the world at a moment ---


def world_of(simulator: Any) -> dict[str, Any]:
    """Write down the jobs and all that ran."""

    def moment(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat()

    jobs = simulator.world.jobs.values()
    course = ("name", "duration", "outcome", "pickup", "log_lag", "log_at_end")
    return {
        "jobs": [{name: getattr(job, name) for name in course} for job in jobs],
        "executions": [
            {
                "job": e.job.name,
                "trigger_id": e.trigger_id,
                "by": e.by,
                "outcome": e.outcome,
                "queued": moment(e.queued),
                "started": moment(e.started),
                "ended": moment(e.ended),
            }
            for e in simulator.world.executions
        ],
    }


def now_of() -> datetime:
    return datetime.now(timezone.utc)


@contextmanager
def simulated(*names: str, **course: Any) -> Iterator[Any]:
    """Simulate jobs behind the default connection."""
    from airflow_provider_timextender.simulator import Job, Simulator

    with Simulator([Job(name, **{"pickup": 0.0, **course}) for name in names or ("load",)]) as simulator:
        fields = json.loads(simulator.connection_json())
        fields["extra"] = {**(fields["extra"] or {}), "timeout": 1}
        os.environ["AIRFLOW_CONN_TIMEXTENDER_DEFAULT"] = json.dumps(fields)
        yield simulator


# --- what the operator and the sensor hand over to a trigger ---

OPERATOR = {
    "job_name": "load",
    "wait_for_completion": True,
    "deferrable": True,
    "poll_interval": 0.05,
    "start_timeout": 0.3,
    "timeout": 600,
    "max_unreachable": 5,
}
SENSOR = {
    "job_name": "load",
    "deferrable": True,
    "poke_interval": 0.05,
    "start_timeout": 0.3,
    "timeout": 600,
    "max_unreachable": 5,
}

LONG_AGO = "2026-01-01T00:00:00+00:00"


def deferral(
    kind: str,
    arguments: Mapping[str, Any],
    before: Callable[[Any], Mapping[str, Any] | None],
    tell: Callable[[Any, tuple[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Let a task defer, and write down what is left of it then, and what its trigger may tell."""
    from airflow.providers.common.compat.sdk import TaskDeferred

    with simulated(duration=600) as simulator:
        arguments = {**arguments, **(before(simulator) or {})}
        ti, store = TaskInstance(), Store()
        try:
            task_of(kind, arguments).execute(context_of(ti, store))
        except TaskDeferred as deferred:
            path, told = deferred.trigger.serialize()
            stored = {
                "task": {"kind": kind, "arguments": arguments},
                "world": world_of(simulator),
                "trigger": [path, told],
                "next_method": deferred.method_name,
                "next_kwargs": deferred.kwargs or {},
                "timeout": deferred.timeout.total_seconds() if deferred.timeout else None,
                "store": store.kept,
                "xcoms": ti.xcoms,
            }
            now = now_of()
            told_of = (tell or ends)(simulator, (path, told))
            return {**relative(stored, now), "events": told_of}
    raise AssertionError(f"{kind} did not defer")


def lose_the_receipt(simulator: Any) -> None:
    from airflow_provider_timextender.simulator import Fault

    simulator.fault("execute", Fault("reset", taken=True))


def somebody_runs_it(simulator: Any) -> dict[str, Any]:
    return {"if_running": "wait"} if simulator.run("load") else {}


def wait_for_it(simulator: Any) -> dict[str, Any]:
    return {"trigger_id": simulator.run("load").trigger_id}


def wait_for_idle(simulator: Any) -> None:
    simulator.run("load")


def deferrals() -> dict[str, Any]:
    """Return each way in which a task defers."""
    operator, sensor = ("ExecuteJobOperator", OPERATOR), ("JobStatusSensor", SENSOR)
    since = {**SENSOR, "completed_after": LONG_AGO}
    return {
        "operator, for its execution": deferral(*operator, lambda _: None, everything),
        "operator, for its execution, with limits of Airflow": deferral(
            operator[0], {**OPERATOR, "execution_timeout": 600, "outlets": ["loaded"]}, lambda _: None
        ),
        "operator, for its turn": deferral(*operator, somebody_runs_it, everything),
        "operator, for what it may have queued": deferral(*operator, lose_the_receipt, everything),
        "sensor, for an execution": deferral(
            sensor[0], {**SENSOR, "execution_timeout": 600}, wait_for_it, everything
        ),
        "sensor, since a moment": deferral(sensor[0], since, wait_for_idle),
        "sensor, for an idle job": deferral(*sensor, wait_for_idle),
    }


# --- what starts in the triggerer ---


def starts() -> dict[str, Any]:
    """Return what Airflow is told of a sensor that it can start in the triggerer."""
    by_id = {**SENSOR, "job_name": "{{ dag_run.conf['job'] }}", "trigger_id": "{{ dag_run.conf.execution }}"}
    since = {**SENSOR, "completed_after": "{{ data_interval_end }}"}
    found = {}
    for name, arguments in (("an execution", by_id), ("since a moment", since), ("an idle job", SENSOR)):
        told = task_of("JobStatusSensor", arguments).start_trigger_args
        assert told is not None
        found[name] = {
            "task": {"kind": "JobStatusSensor", "arguments": arguments},
            "trigger": [told.trigger_cls, told.trigger_kwargs],
            "next_method": told.next_method,
            "next_kwargs": told.next_kwargs or {},
            "timeout": told.timeout.total_seconds() if told.timeout else None,
        }
    return found


# --- what triggers tell ---


def ends(simulator: Any, stored: tuple[str, Any]) -> dict[str, Any]:
    """Return what a trigger tells at the end of what it waits for; the world is over then."""
    simulator.finish("failed")
    told = {"failed": event_of(trigger_of(stored))}
    undo(simulator)
    simulator.finish()
    return {**told, "succeeded": event_of(trigger_of(stored))}


def everything(simulator: Any, stored: tuple[str, Any]) -> dict[str, Any]:
    """Return what a trigger tells at the end of what it waits for, and each error that it tells."""
    from airflow_provider_timextender.simulator import Fault

    soon = (now_of() + timedelta(seconds=0.01)).isoformat()
    told = [
        event_of(trigger_of(stored, timeout=0.01)),
        event_of(trigger_of(stored, execution_deadline=soon)),
        event_of(trigger_of(stored, max_unreachable="soon")),
    ]
    for fault in (
        Fault("status", status=401),
        Fault("status", status=429),
        Fault("status", status=503),
        Fault("reset"),
        Fault("html"),
        Fault("body", body="[" + " " * (17 << 20) + "]"),
    ):
        for route in ("status", "statuses"):
            simulator.fault(route, always=fault)
        told.append(event_of(trigger_of(stored, max_unreachable=0.1, known_key=False)))
        simulator.heal()
    with not_trusted():
        told.append(event_of(trigger_of(stored, max_unreachable=0.1, known_key=False)))
    found = ends(simulator, stored)
    for route in ("execution logs", "logs"):
        simulator.fault(route, always=Fault("unknown word"))
    told.append(event_of(trigger_of(stored)))
    simulator.heal()
    undo(simulator, outcome="never starts")
    told.append(event_of(trigger_of(stored, asked_at=now_of().isoformat())))
    return {**found, **{event["error"]: event for event in told if "error" in event}}


def undo(simulator: Any, outcome: str = "succeeded") -> None:
    """Let everything run again, or never have run."""
    from dataclasses import replace

    executions = simulator.world.executions
    executions[:] = [replace(e, ended=e.started + 600, outcome=outcome) for e in executions]


@contextmanager
def not_trusted() -> Iterator[None]:
    """Let the connection lead to a server whose certificate nobody trusts."""
    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    former = os.environ["AIRFLOW_CONN_TIMEXTENDER_DEFAULT"]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with suppress(OSError), context.wrap_socket(connection, server_side=True):
                        pass

        threading.Thread(target=serve, daemon=True).start()
        fields = {**json.loads(former), "host": f"https://127.0.0.1:{server.getsockname()[1]}"}
        os.environ["AIRFLOW_CONN_TIMEXTENDER_DEFAULT"] = json.dumps(fields)
        yield
        os.environ["AIRFLOW_CONN_TIMEXTENDER_DEFAULT"] = former


# --- what is remembered of a submission ---


class Task:
    """A task with a memory, whose worker can die."""

    def __init__(self, simulator: Any, **arguments: Any) -> None:
        self.simulator = simulator
        self.arguments = {**OPERATOR, "deferrable": False, **arguments}
        self.store = Store()
        self.number, self.most, self.clears = 0, RETRIES, 0
        self.ti = TaskInstance()

    def run(self, dies: Callable[[Any], str] = lives_on) -> str:
        """Run one try, and return how it ended."""
        self.number += 1
        self.ti = TaskInstance(self.number, self.most)
        self.store.dies = dies
        try:
            context = context_of(self.ti, self.store, self.clears)
            task_of("ExecuteJobOperator", self.arguments).execute(context)
        except Died:
            return "died"
        except Exception as error:  # noqa: BLE001 - it is told
            return str(error)
        return "succeeded"

    def clear(self) -> None:
        self.most, self.clears = self.number + RETRIES, self.clears + 1

    def written(self) -> Any:
        stored = {
            "task": {"kind": "ExecuteJobOperator", "arguments": self.arguments},
            "try": {"number": self.number, "most": self.most, "clears": self.clears},
            "world": world_of(self.simulator),
            "store": self.store.kept,
        }
        return relative(stored, now_of())


def before_queued(value: Any) -> str:
    """Die when the answer to the request has come, and nobody knows of it."""
    return "before" if value.get("stage") == "queued" else ""


def after_asked(value: Any) -> str:
    """Die before the request is sent."""
    return "after" if value.get("stage") == "asked" else ""


def after_seen(value: Any) -> str:
    """Die after a look at the execution."""
    return "after" if value.get("state") == "running" else ""


def records() -> dict[str, Any]:
    """Return each record that a submission leaves when its worker dies or its task ends."""
    from airflow_provider_timextender.simulator import Fault

    found = {}
    with simulated(duration=600) as simulator:
        task = Task(simulator)
        assert task.run(before_queued) == "died"
        found["asked, of an empty log"] = task.written()
    with simulated(duration=0) as simulator:
        simulator.run("load")
        simulator.run("load", by="hand")
        task = Task(simulator)
        simulator.job("load").duration = 600
        assert task.run(before_queued) == "died"
        found["asked, of a log with others"] = task.written()
    with simulated(duration=600, log_at_end=True) as simulator:
        simulator.run("load")
        task = Task(simulator)
        assert task.run(before_queued) == "died"
        found["asked, beside what the log hides"] = task.written()
    with simulated(duration=600) as simulator:
        simulator.fault("logs", always=Fault("status", status=400))
        task = Task(simulator)
        assert task.run(before_queued) == "died"
        found["asked, of a log that could not be read"] = task.written()
        simulator.heal()
        assert "SubmissionUncertain" in task.run()
        found["uncertain"] = task.written()
    with simulated(duration=600) as simulator:
        task = Task(simulator)
        assert task.run(after_seen) == "died"
        found["queued"] = task.written()
    with simulated(duration=600) as simulator:
        simulator.run("load")
        task = Task(simulator, if_running="attach")
        assert task.run(after_seen) == "died"
        found["queued, by somebody else"] = task.written()
    with simulated(duration=600) as simulator:
        task = Task(simulator)
        nameless = [{"JobId": simulator.job("load").id, "State": "Success", "Logs": []}]
        simulator.fault("logs", always=Fault("body", body=json.dumps(nameless)))
        assert task.run(after_asked) == "died"
        found["asked, and not sent, of a log without names"] = {**task.written(), "log": nameless}
    with simulated(duration=0) as simulator:
        task = Task(simulator)
        assert task.run() == "succeeded"
        found["done"] = task.written()
        task.clear()
        simulator.job("load").duration = 600
        assert task.run(before_queued) == "died"
        found["asked, after a clear"] = task.written()
        simulator.finish()
        assert task.run() == "succeeded"
        found["done, after a clear"] = task.written()
    with simulated(duration=0) as simulator:
        task = Task(simulator)
        assert task.run() == "succeeded"
        task.clear()
        simulator.job("load").duration = simulator.job("load").log_lag = 600
        assert task.run(before_queued) == "died"
        found["asked, after a clear, of a late log"] = task.written()
    return found


# --- what a watcher remembers ---


def watchers() -> dict[str, Any]:
    """Return what watchers are stored as, and remember."""
    found: dict[str, Any] = {}
    for name, arguments in (
        ("all jobs", {}),
        ("jobs by id", {"job_ids": ["11111111-1111-1111-1111-111111111111"], "states": ["succeeded"]}),
        ("jobs by name", {"job_names": ["load"], "poll_interval": 5}),
    ):
        found[name] = {"trigger": watcher()(**arguments).serialize()}
    # What began long ago is history for a release that goes by its own clock; others go by the server's.
    found["that has told"] = remembered(PAST) or remembered(time.time())
    watching: Any = import_module(watcher().__module__)
    if hasattr(watching, "MAX_KNOWN"):
        watching.MAX_KNOWN = 3
        found["that has told more than it remembers"] = remembered(PAST)
    return found


def watcher() -> Any:
    return import_module("airflow_provider_timextender.triggers").JobFinishedTrigger


def remembered(began: float) -> dict[str, Any] | None:
    """Let a watcher tell two executions of a job, one of them started by hand; ``None`` if it does not."""
    with simulated("load", "other", duration=0) as simulator:
        for number, (name, by) in enumerate(
            [("load", "schedule"), ("load", "hand"), ("other", "schedule"), ("load", "schedule")]
        ):
            simulator.world.queue(simulator.job(name), began - 600 + 60 * number, by=by)
        stored, store = watcher()(poll_interval=0.05).serialize(), Store()
        one = trigger_of(stored)
        one.asset_state_store = store
        happens = threading.Timer(1, lambda: news(simulator, began))
        happens.start()
        told = asyncio.run(watch(one, lambda told: len(told) == 2, 12))
        happens.join()
        written = {"trigger": stored, "told": told, "world": world_of(simulator), "store": store.kept}
        return relative(written, now_of()) if len(told) == 2 else None


def news(simulator: Any, began: float) -> None:
    at = began if began == PAST else time.time()
    simulator.world.queue(simulator.job("load"), at, by="schedule")
    simulator.world.queue(simulator.job("load"), at + 0.01, by="hand")


def main() -> None:
    """Print what is stored."""
    home = tempfile.mkdtemp(prefix="airflow-timextender-stored-")
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        del os.environ[name]
    os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    import airflow

    made = {
        "airflow": airflow.__version__,
        "deferrals": deferrals(),
        "starts": starts(),
        "records": records(),
        "watchers": watchers(),
    }
    json.dump(made, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
