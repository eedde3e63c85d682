"""Where the processes of a task's life come from: one that has imported everything, and forks.

``python -m tests.processes.nursery FD`` takes sockets over its own and forks a process for each. Whatever
survives such a process is kept by whoever holds the other end, so that its death loses what the death of a
worker or a triggerer loses. It also asks before and after everything that leaves a trace outside: those are
the boundaries, and the answer may be to die there.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from types import SimpleNamespace
from typing import Any, NoReturn

import urllib3.connection
from airflow.providers.common.compat import connection as compat
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    Connection,
    TaskDeferred,
)
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import TaskSuccessEvent

import airflow_provider_timextender.carrier  # noqa: F401 - it is imported late, and once is enough for all lives
from airflow_provider_timextender import life, triggers
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.operators import ExecuteJobOperator

from ..airflow.running import events_of, stored

LONGEST = 90
"""Seconds after which a process is taken for stuck, and ended."""

GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Keeper:
    """The other end: it keeps all that survives this process."""

    def __init__(self, end: socket.socket) -> None:
        self._lines = end.makefile("rw", encoding="utf-8")
        # A trigger pushes its result from a thread, and sends its requests from two.
        self._turn = threading.RLock()

    def ask(self, what: str, **details: Any) -> Any:
        """Return the answer to a question."""
        with self._turn:
            self._lines.write(json.dumps([what, details]) + "\n")
            self._lines.flush()
            answer = self._lines.readline()
        if not answer:
            os._exit(1)
        return json.loads(answer)

    def at(self, boundary: str) -> None:
        """Come to a boundary, and die there if that is the plan."""
        with self._turn:  # so that no other thread leaves a trace once the death is known
            if self.ask("at", boundary=boundary):
                os.kill(os.getpid(), signal.SIGKILL)

    def leave_trace(self, what: str, **details: Any) -> Any:
        """Do what survives this process: between two boundaries."""
        name = " ".join((what, *([details["key"]] if "key" in details else [])))
        with self._turn:
            self.at(f"before {name}")
            answer = self.ask(what, **details)
            self.at(f"after {name}")
        if isinstance(answer, str):
            raise OSError(answer)
        (value,) = answer
        return value

    def end(self, how: str, **details: Any) -> NoReturn:
        """Tell the end, and end."""
        self.at(f"before {how}")
        self.ask(how, **details)
        os._exit(0)


class Store:
    """The task state store."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def get(self, key: str, default: Any = None) -> Any:
        found = self._keeper.leave_trace("store.get", key=key)
        return default if found is None else found

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if value is None:
            raise ValueError("Cannot set value as None")
        self._keeper.leave_trace("store.set", key=key, value=value)

    def delete(self, key: str) -> None:
        self._keeper.leave_trace("store.delete", key=key)


class TaskInstance:
    """The part of a task instance that the operators use."""

    map_index = -1
    dag_id = task_id = run_id = "t"

    def __init__(self, keeper: Keeper, *, try_number: int, max_tries: int, start_date: str) -> None:
        self._keeper = keeper
        self.try_number = try_number
        self.max_tries = max_tries
        self.start_date = datetime.fromisoformat(start_date)

    def xcom_push(self, key: str, value: Any) -> None:
        self._keeper.leave_trace("xcom.push", key=key, value=value)

    def xcom_pull(self, task_ids: Any = None, key: str = "return_value", **_: Any) -> Any:
        return self._keeper.leave_trace("xcom.pull", key=key)

    def get_first_reschedule_date(self, context: Any) -> Any:
        return None


class ToldLog(logging.Handler):
    """Tells the keeper what is logged."""

    def __init__(self, keeper: Keeper) -> None:
        super().__init__(logging.INFO)
        self._keeper = keeper

    def emit(self, record: logging.LogRecord) -> None:
        self._keeper.ask("log", level=record.levelname, text=record.getMessage())


def watch_requests(keeper: Keeper) -> None:
    """Make a boundary of each moment of a request, whoever sends it."""

    def named(method: str, path: str) -> str:
        # A triggerer sends from threads, so that its event loop goes on.
        beside = "" if threading.current_thread() is threading.main_thread() else "async "
        return f"{beside}{method} {GUID.sub('*', path.split('public/')[-1])}"

    connection = urllib3.connection.HTTPConnection
    request, getresponse = connection.request, connection.getresponse

    def watched_request(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        self.boundary = named(method, url)
        keeper.at(f"{self.boundary}: before")
        return request(self, method, url, *args, **kwargs)

    def watched_getresponse(self: Any) -> Any:
        keeper.at(f"{self.boundary}: sent")
        try:
            return getresponse(self)
        finally:
            keeper.at(f"{self.boundary}: answered")

    patch(connection, request=watched_request, getresponse=watched_getresponse)


def patch(target: Any, **members: Any) -> None:
    """Replace members for the rest of this process."""
    for name, member in members.items():
        setattr(target, name, member)


def settle(keeper: Keeper) -> None:
    """Let the package find here what it finds in Airflow's processes."""
    log = logging.getLogger("tests.task")
    logging.basicConfig(level=logging.INFO, handlers=[ToldLog(keeper)], force=True)
    watch_requests(keeper)

    def connection(*_: Any, **__: Any) -> Connection:
        fields = keeper.ask("connection")
        return Connection(conn_id="timextender_default", **{**fields, "extra": json.dumps(fields["extra"])})

    async def async_connection(*_: Any, **__: Any) -> Connection:
        return connection()

    patch(TimeXtenderHook, get_connection=connection)
    patch(compat, get_async_connection=async_connection)
    patch(
        XCom,
        set=lambda key, value, **_: keeper.leave_trace("xcom.push", key=key, value=value),
        get_one=lambda key, **_: keeper.leave_trace("xcom.pull", key=key),
    )
    patch(life, MAX_PAUSE=0.01)
    patch(ExecuteJobOperator, log=log)
    patch(triggers.JobExecutionTrigger, log=log)


class Derived(ExecuteJobOperator):
    """Somebody else's operator, which may do more at the end, so that a worker has to end it."""


def work(keeper: Keeper, task: dict[str, Any]) -> NoReturn:
    """Do a worker's part of a try."""
    ti = TaskInstance(keeper, **task["ti"])
    dag_run = SimpleNamespace(**task["dag_run"])
    dag_run.start_date = datetime.fromisoformat(dag_run.start_date)
    context: Any = {"ti": ti, "task_instance": ti, "dag_run": dag_run, "task_state_store": Store(keeper)}
    operator = (Derived if task["derived"] else ExecuteJobOperator)(task_id="t", **task["arguments"])
    try:
        if task["resume"] is None:
            result = operator.execute(context)
        else:
            method, kwargs = task["resume"]
            result = operator.resume_execution(method, kwargs, context)
        if result is not None:
            ti.xcom_push("return_value", result)
    except TaskDeferred as deferred:
        keeper.end(
            "defer",
            trigger=deferred.trigger.serialize(),
            method=deferred.method_name,
            kwargs=deferred.kwargs or {},
        )
    except BaseException as error:  # noqa: BLE001 - as Airflow does
        keeper.end(
            "raise",
            kind=type(error).__name__,
            message=str(error),
            retries=not isinstance(error, (AirflowFailException, AirflowSkipException)),
            traceback=traceback.format_exc(),
        )
    keeper.end("return", value=result)


def wait(keeper: Keeper, task: dict[str, Any]) -> NoReturn:
    """Do a triggerer's part."""
    classpath, arguments = task["trigger"]
    trigger = stored(SimpleNamespace(serialize=lambda: (classpath, arguments)))
    trigger.task_instance = SimpleNamespace(dag_id="t", task_id="t", run_id="t", map_index=-1, **task["ti"])
    (event,) = asyncio.run(events_of(trigger))
    keeper.end("event", succeeds=isinstance(event, TaskSuccessEvent), payload=event.payload)


def be(do: Callable[[Keeper, dict[str, Any]], NoReturn], keeper: Keeper, task: dict[str, Any]) -> NoReturn:
    """Be a worker or a triggerer until the end."""
    signal.alarm(LONGEST)
    random.seed(task.get("seed"))
    try:
        settle(keeper)
        do(keeper, task)
    except BaseException:  # noqa: BLE001 - it is told
        keeper.ask("broken", traceback=traceback.format_exc())
    os._exit(1)


def main() -> None:
    """Fork for each socket that comes, until nobody is left who could send one."""
    door = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who has died is not to be waited for
    gc.collect()
    gc.freeze()
    door.sendall(b"!")
    while True:
        text, ends, _, _ = socket.recv_fds(door, 1, 1)
        if not text:
            return
        with socket.socket(fileno=ends[0]) as end:
            if os.fork() == 0:
                door.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                keeper = Keeper(end)
                task = keeper.ask("task")
                be(wait if "trigger" in task else work, keeper, task)


if __name__ == "__main__":
    main()
