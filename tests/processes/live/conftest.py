"""A live Airflow, each component a process; each module has one of its own.

``LIVE_TASKS=500 make test-live`` has more tasks wait. A task's start takes Airflow much longer than its end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_timextender.simulator import Job, Simulator

from ...conftest import API_KEY, shows_key
from .stack import Stack

COUNT = int(os.environ.get("LIVE_TASKS", "12"))
PATIENCE = 60 + 2 * COUNT
CRASHES = 5


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    jobs = [Job(f"job {number}", pickup=0.2, duration=3600) for number in range(COUNT)]
    jobs += [Job(name, pickup=0.1, duration=0.1) for name in ("watched", "retried")]
    jobs += [Job(f"lines {where}", pickup=0.1, duration=60, lines=30) for where in ("worker", "triggerer")]
    for number in range(CRASHES):
        # Some are over before the next try looks, others are not.
        jobs += [Job(f"{name} {number}", duration=10 * number) for name in ("worker", "deferrable")]
    with Simulator(jobs, api_key=API_KEY) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def airflow(
    request: pytest.FixtureRequest, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    settings: dict[str, str] = dict(getattr(request.module, "SETTINGS", {}))
    home = tmp_path_factory.mktemp("live")
    dags = Path(__file__).parent / "dags"
    connections = {"timextender_default": simulator.connection_json()}
    settings |= {"LIVE_TASKS": str(COUNT), "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}
    with Stack(home, dags, connections, settings) as stack:
        yield stack
    files = [path for path in home.rglob("*") if path.is_file()]
    assert {"airflow.db", "scheduler.out", "triggerer.out"} <= {path.name for path in files}
    for path in files:  # the connection stands in the database, encrypted
        assert not shows_key(path.read_bytes().decode(errors="replace")), f"R34: {path}"


def xcoms(airflow: Stack, run_id: str) -> dict[tuple[str, int, str], Any]:
    rows = airflow.query("SELECT task_id, map_index, key, value FROM xcom WHERE run_id = ?", run_id)
    return {(task, index, key): json.loads(value) for task, index, key, value in rows}


def last_queued(airflow: Stack, run_id: str, task_id: str) -> float:
    """Return when a worker was last asked for."""
    sql = "SELECT max(queued_dttm) FROM task_instance WHERE run_id = ? AND task_id = ?"
    ((text,),) = airflow.query(sql, run_id, task_id)
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
