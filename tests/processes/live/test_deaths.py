"""A live Airflow, each component a process, with triggerers that are killed.

``LIVE_TASKS=500 make test-live`` has more tasks wait. A task's start takes Airflow much longer than its end.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_timextender.simulator import Job, Simulator

from ..airflow.running import SHARES
from ..conftest import API_KEY, after_submission, shows_key
from .stack import Stack, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.long,
    pytest.mark.skipif(not SHARES, reason="the live tests are written for Airflow 3.3 and later"),
]

COUNT = int(os.environ.get("LIVE_TASKS", "12"))
PATIENCE = 60 + 2 * COUNT
CRASHES = 5


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    jobs = [Job(f"job {number}", pickup=0.2, duration=3600) for number in range(COUNT)]
    jobs += [Job(name, pickup=0.1, duration=0.1) for name in ("watched", "retried")]
    for number in range(CRASHES):
        # Some are over before the next try looks, others are not.
        jobs += [Job(f"{name} {number}", duration=10 * number) for name in ("worker", "deferrable")]
    with Simulator(jobs, api_key=API_KEY) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def airflow(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("live")
    dags = Path(__file__).parent / "live_dags"
    connections = {"timextender_default": simulator.connection_json()}
    with Stack(home, dags, connections, LIVE_TASKS=str(COUNT)) as stack:
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


def test_r16_many_tasks_wait_on_one_poll_through_the_death_of_their_triggerer(
    airflow: Stack, simulator: Simulator
) -> None:
    run_id = airflow.trigger("live_many")
    until(lambda: airflow.states("live_many", run_id).get("deferred") == COUNT, PATIENCE, "all deferred")
    time.sleep(5)
    before, began = Counter(r.route for r in simulator.requests), time.monotonic()
    time.sleep(20)
    elapsed = time.monotonic() - began
    seen = Counter(r.route for r in simulator.requests) - before
    # One for all tasks, every two seconds, and that of the watcher, every second.
    assert seen["statuses"] <= elapsed / 2 + elapsed + 2
    assert seen["statuses"] >= elapsed / 2, "and they go on"
    assert seen["execution logs"] <= 20 * elapsed / 2, "few logs of busy jobs"

    airflow.kill("triggerer")
    airflow.start("triggerer")
    polls = simulator.count("statuses")
    until(lambda: simulator.count("statuses") > polls + 2, 90, "polls of the new triggerer")
    assert airflow.states("live_many", run_id)["deferred"] == COUNT, "nothing is lost"
    released = time.time()
    simulator.finish()
    assert airflow.wait("live_many", run_id, PATIENCE) == "success"
    assert airflow.states("live_many", run_id) == {"success": COUNT + 1}
    assert simulator.count("execute") == COUNT, "no load is started twice"
    assert last_queued(airflow, run_id, "load") < released, "no worker was needed to end the waits"

    found = xcoms(airflow, run_id)
    started = {execution.trigger_id for execution in simulator.world.executions}
    assert {found["load", number, "return_value"] for number in range(COUNT)} == started
    assert set(found["pull", -1, "return_value"]) == started, "as a task downstream gets them"
    for number in range(COUNT):
        assert found["load", number, "trigger_id"] == found["load", number, "return_value"]
        assert ("load", number, "job_id") in found
        assert ("load", number, "_link_TimeXtenderJobLink") in found
    log = airflow.task_log("live_many", run_id)
    assert log.count("succeeded. Its log:") == COUNT, "R32"


def test_a_sensor_waits_from_the_triggerer_and_from_a_worker(airflow: Stack, simulator: Simulator) -> None:
    run_id = airflow.trigger("live_sensor")
    until(lambda: airflow.states("live_sensor", run_id).get("deferred") == 2, 90, "both deferred")
    (execution,) = [e for e in simulator.world.executions if e.state(time.time()) == "running"]
    time.sleep(3)
    assert airflow.states("live_sensor", run_id)["deferred"] == 2
    simulator.finish()
    assert airflow.wait("live_sensor", run_id, 60) == "success"
    found = xcoms(airflow, run_id)
    assert found["for_execution", -1, "return_value"]["trigger_id"] == execution.trigger_id
    assert found["for_execution", -1, "return_value"]["state"] == "succeeded"
    assert found["for_idle", -1, "return_value"]["state"] == "idle"
    (row,) = airflow.query(
        "SELECT queued_dttm FROM task_instance WHERE run_id = ? AND task_id = 'for_idle'", run_id
    )
    assert row == (None,), "no worker has seen it"


def test_r31_a_failure_resumes_on_a_worker_that_says_why(airflow: Stack, simulator: Simulator) -> None:
    run_id = airflow.trigger("live_failure")
    until(lambda: airflow.states("live_failure", run_id).get("deferred") == 1, 90, "deferred")
    simulator.finish("failed")
    assert airflow.wait("live_failure", run_id, 90) == "failed"
    execution = simulator.world.executions[-1]
    log = airflow.task_log("live_failure", run_id)
    assert f"TimeXtender job {execution.job.id} failed (trigger id {execution.trigger_id})" in log
    assert "JobFailed" in log


def test_r21_a_pool_that_includes_deferred_tasks_limits_what_runs(
    airflow: Stack, simulator: Simulator
) -> None:
    pool = {"name": "two", "slots": 2, "include_deferred": True}
    airflow.ask("/api/v2/pools", pool)
    started = simulator.count("execute")
    run_id = airflow.trigger("live_pool")
    until(lambda: airflow.states("live_pool", run_id).get("deferred") == 2, 90, "two deferred")
    time.sleep(5)
    assert simulator.count("execute") == started + 2, "the others wait for a slot"

    def over() -> bool:
        simulator.finish()
        return airflow.states("live_pool", run_id).get("success") == 4

    until(over, 120, "all four")
    assert simulator.count("execute") == started + 4


def test_each_execution_outside_airflow_starts_one_run_through_the_death_of_the_triggerer(
    airflow: Stack, simulator: Simulator
) -> None:
    def told() -> list[str]:
        rows = airflow.query("SELECT value FROM xcom WHERE dag_id = 'live_watched' AND key = 'return_value'")
        return [trigger_id for (value,) in rows for trigger_id in json.loads(value)]

    until(lambda: "live_watched" in airflow.dag_ids(), 60, "the DAG")
    log = f"/{simulator.job('watched').id}/logs"
    until(
        lambda: any(request.path.endswith(log) for request in list(simulator.requests)),
        60,
        "the watcher's look at what there was",
    )
    time.sleep(1)
    executions = [simulator.run("watched")]
    until(lambda: len(told()) == 1, 60, "the first run")
    executions.append(simulator.run("watched"))
    until(lambda: len(told()) == 2, 60, "the second run")
    time.sleep(3)
    airflow.kill("triggerer")
    executions += [simulator.run("watched") for _ in range(2)]  # while nobody watches
    time.sleep(1)
    airflow.start("triggerer")
    until(lambda: len(told()) >= 4, 120, "the runs after the restart")
    executions.append(simulator.run("watched"))
    until(lambda: len(told()) >= 5, 60, "one more run")
    time.sleep(5)
    assert sorted(told()) == sorted(execution.trigger_id for execution in executions)
    assert len(airflow.runs("live_watched")) == len(executions), "each has a run of its own"


def test_r03_r04_workers_that_are_killed_right_after_the_post_start_no_load_twice(
    airflow: Stack, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulator.world, "queue", simulator.world.queue)  # is put back
    killed: list[str] = []

    def kill() -> None:
        request = simulator.requests[-1]
        if request.path not in killed:
            killed.append(request.path)
            airflow.kill_worker(request.connection)

    after_submission(simulator, kill)
    started = len(simulator.world.executions)
    run_id = airflow.trigger("live_crash")
    assert airflow.wait("live_crash", run_id, 240) == "success"
    executions = simulator.world.executions[started:]
    assert len(killed) == len(executions) == 2 * CRASHES, "each worker was killed, and no load started twice"
    assert airflow.states("live_crash", run_id) == {"success": 2 * CRASHES}
    found = xcoms(airflow, run_id)
    for task in ("worker", "deferrable"):
        for number in range(CRASHES):
            (execution,) = [e for e in executions if e.job.name == f"{task} {number}"]
            for key in ("return_value", "trigger_id"):
                assert found[task, number, key] == execution.trigger_id, "as if nothing had happened"
    tries = airflow.query("SELECT DISTINCT try_number FROM task_instance WHERE run_id = ?", run_id)
    assert tries == [(2,)]
    assert airflow.task_log("live_crash", run_id).count("is taken for the one that was asked for") == len(
        killed
    )


def test_r06_r08_a_failed_execution_is_retried_and_a_cleared_task_runs_anew(
    airflow: Stack, simulator: Simulator
) -> None:
    def executions() -> list[str]:
        return [e.trigger_id for e in simulator.world.executions if e.job.name == "retried"]

    simulator.job("retried").outcome = "failed"
    run_id = airflow.trigger("live_retry")
    until(executions, 60, "the first try")
    simulator.job("retried").outcome = "succeeded"
    assert airflow.wait("live_retry", run_id, 90) == "success"
    assert len(executions()) == 2, "R8: a failed execution and a retry are two"
    assert xcoms(airflow, run_id)["load", -1, "return_value"] == executions()[1]

    clear = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "reset_dag_runs": True}
    airflow.ask("/api/v2/dags/live_retry/clearTaskInstances", clear)
    until(lambda: len(executions()) == 3, 60, "the cleared task's execution")
    assert airflow.wait("live_retry", run_id, 90) == "success"
    assert len(executions()) == 3, "R6: success and clear are one more"
    assert xcoms(airflow, run_id)["load", -1, "return_value"] == executions()[2]
