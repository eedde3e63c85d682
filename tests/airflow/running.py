"""Runs an operator to its end as Airflow does, in every mode in which a task can wait."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import quote

from airflow.providers.common.compat.sdk import TaskDeferred

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:
    from airflow.exceptions import AirflowRescheduleException

from .environment import AIRFLOW_HOME, EXAMPLE_DAGS

if TYPE_CHECKING:
    from .stand_ins import TaskInstance

SHARES = find_spec("airflow.triggers.shared_stream") is not None
"""Whether this is Airflow 3.3 or later: a task's state outlives its tries, and watchers share a poll."""

NOT_FOR_AIRFLOW_2 = set() if find_spec("airflow.sdk") else {"example_timextender_job_finished"}
"""What needs an asset's watcher."""

DAGS = sorted({path.stem for path in EXAMPLE_DAGS.glob("example_*.py")} - NOT_FOR_AIRFLOW_2)

DEFERRABLE = ("deferrable",)
MODES = ("poke", "reschedule", *DEFERRABLE)


def arguments_of(mode: str) -> dict[str, Any]:
    """Return what a sensor is told so that it waits in a mode."""
    return {"deferrable": True} if mode in DEFERRABLE else {"mode": mode}


def live(make: Callable[[], Any], ti: TaskInstance, mode: str, context: Any = None) -> Any:
    """Run a task to its end: anew after each reschedule and each deferral, with no memory."""
    began = datetime.now(timezone.utc)
    context = context or {"ti": ti}

    resumed: tuple[str, dict[str, Any]] | None = None
    while True:
        try:
            with first_start_of(ti):
                if resumed is not None:
                    return make().resume_execution(*resumed, context)
                return make().execute(context)
        except AirflowRescheduleException as again:
            ti.first_reschedule = began
            time.sleep(max(0, (again.reschedule_date - datetime.now(timezone.utc)).total_seconds()))
            ti.start_date = datetime.now(timezone.utc)
        except TaskDeferred as deferred:
            resumed = (deferred.method_name, {"event": fire(deferred.trigger)})


def first_start_of(ti: TaskInstance) -> AbstractContextManager[Any]:
    """Let Airflow 2 know when a task began that is rescheduled: it asks its database, and not the ``ti``."""
    if hasattr(ti, "get_first_reschedule_date"):
        return nullcontext()
    base = import_module("airflow.sensors.base")
    return mock.patch.object(base, "_orig_start_date", return_value=ti.first_reschedule)


def stored(trigger: Any) -> Any:
    """Return a trigger as a triggerer makes it from what Airflow stores."""
    classpath, arguments = trigger.serialize()
    module, name = classpath.rsplit(".", 1)
    return getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))


def fire(trigger: Any) -> Any:
    """Return the event's payload, as it comes out of Airflow's database."""
    events = asyncio.run(events_of(stored(trigger)))
    assert len(events) == 1, "R27: exactly one event"
    text = json.dumps(events[0].payload)
    assert len(text) <= 2048, "R34"
    return json.loads(text)


async def events_of(trigger: Any) -> list[Any]:
    """Run a trigger until it ends."""
    return [event async for event in trigger.run()]


def sqlite_at(folder: Path) -> str:
    """Return the URI of a connection of Airflow's to a database in a folder."""
    return f"sqlite://{quote(str(folder / 'logs.db'), safe='')}"


def run_dag(dag: Any) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Run a DAG in this process; return its state, its tasks' states and all XComs."""
    dag_run = dag.test()
    states = {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in dag_run.get_task_instances()}
    with sqlite3.connect(AIRFLOW_HOME / "airflow.db") as database:
        rows = database.execute(
            "SELECT task_id, map_index, key, value FROM xcom WHERE run_id = ? AND dag_id = ?",
            (dag_run.run_id, dag.dag_id),
        ).fetchall()
    xcoms = {
        f"{task}[{index}].{key}": json.loads(value) if isinstance(value, (str, bytes)) else value
        for task, index, key, value in rows
    }
    return str(dag_run.state), states, xcoms
