"""How tasks wait, fail, and are run again in a live Airflow."""

from __future__ import annotations

import time

import pytest

from airflow_provider_timextender.simulator import Simulator
from stack import until

from ...airflow.running import SHARES
from .conftest import xcoms
from .stack import Stack

pytestmark = [
    pytest.mark.live,
    pytest.mark.long,
    pytest.mark.skipif(not SHARES, reason="the live tests are written for Airflow 3.3 and later"),
]


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
    assert f"TimeXtender job '{execution.job.name}' failed: " in log
    assert f"(job id {execution.job.id}, trigger id {execution.trigger_id})" in log
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
