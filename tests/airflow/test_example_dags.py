"""The example DAGs, run by real Airflow against the simulator over real HTTP."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from airflow.models.pool import Pool

from airflow_provider_timextender.simulator import DIALECTS, Simulator
from airflow_provider_timextender.simulator.server import example_jobs

from ..conftest import API_KEY
from .environment import AIRFLOW_HOME
from .running import DAGS, NOT_FOR_AIRFLOW_2, SHARES, sqlite_at
from .running import run_dag as run


@pytest.fixture
def any_dialect(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Simulator]:
    """Return a simulator; each example meets one dialect if its loads succeed, and another if one fails."""
    jobs = example_jobs()
    for job in jobs:
        job.pickup, job.duration = 0.05, 0.1
    number = DAGS.index(request.getfixturevalue("dag_id")) + ("fails" in request.node.name)
    dialect = list(DIALECTS)[number % len(DIALECTS)]
    with Simulator(jobs, api_key=API_KEY, dialect=dialect) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", sqlite_at(tmp_path))
        yield simulator


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """Return a simulator with executions of this week, and one of last month."""
    with Simulator(api_key=API_KEY) as simulator:
        simulator.past("Load sales", "failed", ago=3600)
        simulator.past("Load sales", ago=7200)
        simulator.past("Load sales", ago=30 * 24 * 3600)
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        yield simulator


def log_of(xcoms: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the task that reads the log has returned."""
    return [(entry["severity"], entry["message"]) for entry in xcoms["read_log[-1].return_value"]]


EXPECTED = {
    "example_timextender_run_job": {"load_sales[-1]"},
    "example_timextender_sensor_and_logs": {
        "execute[-1]", "wait[-1]", "read_log[-1]", "refresh_reports[-1]"
    },
    "example_timextender_many_jobs": {
        "extract[-1]", "load[0]", "load[1]", "load[2]", "refresh_reports[-1]"
    },
    "example_timextender_exactly_once": {"load_sales[-1]"},
    "example_timextender_deferrable": {"load[0]", "load[1]", "wait_for_stock[-1]"},
    "example_timextender_new_logs": {"load_sales[-1]", "write_new_logs[-1]"},
    "example_timextender_job_finished": {"refresh_reports[-1]"},
    "example_timextender_export_logs": {"export_logs[-1]", "list_failures[-1]"},
    "example_timextender_last_loads": {"logs[-1]", "last_loads[-1]"},
    "example_timextender_last_loads_sql": {"logs[-1]", "last_loads[-1]"},
}  # fmt: skip


READING = {
    "example_timextender_export_logs",
    "example_timextender_job_finished",
    "example_timextender_last_loads",
    "example_timextender_last_loads_sql",
}
STARTING = [dag_id for dag_id in DAGS if dag_id not in READING]
"""Those that start a job."""


def test_every_example_is_expected() -> None:
    assert set(EXPECTED) == {*DAGS, *NOT_FOR_AIRFLOW_2}


@pytest.mark.parametrize("dag_id", DAGS)
def test_r21_no_example_waits_for_a_pool_that_a_new_airflow_does_not_have(dags: Any, dag_id: str) -> None:
    # `dag.test()` knows no pools; a scheduler starts no task whose pool does not exist.
    assert {task.pool for task in dags[dag_id].tasks} == {Pool.DEFAULT_POOL_NAME}


@pytest.mark.parametrize("dag_id", DAGS)
def test_each_example_gives_the_same_in_any_dialect(dags: Any, any_dialect: Simulator, dag_id: str) -> None:
    state, states, xcoms = run(dags[dag_id])
    assert state == "success"
    assert states == dict.fromkeys(EXPECTED[dag_id], "success")
    executions = {e.trigger_id: e for e in any_dialect.world.executions}
    starts = {"example_timextender_many_jobs": 3, "example_timextender_deferrable": 2}
    starts |= dict.fromkeys(READING, 0)
    assert any_dialect.count("execute") == len(executions) == starts.get(dag_id, 1)
    for task in EXPECTED[dag_id]:
        if f"{task}.trigger_id" in xcoms:
            execution = executions[xcoms[f"{task}.trigger_id"]]
            assert xcoms[f"{task}.return_value"] == execution.trigger_id
            assert xcoms[f"{task}.job_id"] == execution.job.id
            link = xcoms.get(f"{task}._link_TimeXtenderJobLink")
            assert link == "https://portal.timextender.com"
    if "wait[-1].return_value" in xcoms:
        (execution,) = executions.values()
        assert xcoms["wait[-1].return_value"]["state"] == "succeeded"
        assert xcoms["wait[-1].return_value"]["trigger_id"] == execution.trigger_id
        assert log_of(xcoms) == [(line.severity, line.message) for line in execution.lines]
    assert API_KEY not in json.dumps(xcoms)


@pytest.mark.parametrize("dag_id", STARTING)
def test_r01_each_example_fails_when_a_load_fails(dags: Any, any_dialect: Simulator, dag_id: str) -> None:
    any_dialect.job("Load sales").outcome = "failed"
    state, states, xcoms = run(dags[dag_id])
    assert state == "failed"
    assert "failed" in states.values()
    assert states.get("refresh_reports[-1]", "upstream_failed") == "upstream_failed"
    if "read_log[-1]" in states:
        (execution,) = any_dialect.world.executions
        assert log_of(xcoms) == [(line.severity, line.message) for line in execution.lines]


def test_r44_each_run_adds_what_is_new_and_tells_it_with_the_asset(dags: Any, past: Simulator) -> None:
    for job in past.world.jobs.values():
        job.pickup, job.duration = 0.05, 0.1
    told = []
    dag = dags["example_timextender_new_logs"]
    if not find_spec("airflow.sdk"):
        dag.sync_to_db()  # Airflow 2 tells nothing with a dataset that it does not know
    for executions in (4, 1):
        state, _, xcoms = run(dag)
        assert state == "success"
        told.append(xcoms["write_new_logs[-1].return_value"])
        assert told[-1]["executions"] == executions
    paths = [one["path"] for one in told]
    keys = [json.loads(row)["execution_key"] for path in paths for row in Path(path).read_text().splitlines()]
    assert len(set(keys)) == 5
    assert len(keys) == sum(len(execution.lines) for execution in past.world.executions)
    asset = "asset" if find_spec("airflow.sdk") else "dataset"
    with sqlite3.connect(AIRFLOW_HOME / "airflow.db") as database:
        events = database.execute(f"SELECT extra FROM {asset}_event ORDER BY id DESC LIMIT 2").fetchall()
        (kept,) = database.execute(
            f"SELECT count(*) FROM {'asset_state_store' if SHARES else 'variable'} WHERE key LIKE ?",
            ("timextender_increment:example_timextender_new_logs.write_new_logs:%",),
        ).fetchone()
    assert [json.loads(extra) for (extra,) in reversed(events)] == told
    assert kept == 1


def test_the_exported_executions_tell_the_failures(dags: Any, past: Simulator) -> None:
    state, _, xcoms = run(dags["example_timextender_export_logs"])
    assert state == "success"
    exported = xcoms["export_logs[-1].return_value"]
    assert (exported["jobs"], exported["executions"]) == (len(past.world.jobs), 2)
    (failure,) = xcoms["list_failures[-1].return_value"]
    assert failure.endswith(" Load sales")
