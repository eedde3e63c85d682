"""What waits, or has just been asked for, outlives the triggerers and the workers that are killed."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest

from airflow_provider_timextender.simulator import Simulator
from stack import until

from ...airflow.running import SHARES
from ...conftest import after_submission
from .conftest import COUNT, CRASHES, PATIENCE, last_queued, xcoms
from .stack import Stack

pytestmark = [
    pytest.mark.live,
    pytest.mark.long,
    pytest.mark.skipif(not SHARES, reason="the live tests are written for Airflow 3.3 and later"),
]

SETTINGS = {
    # A worker that dies is missed after seconds, and not after minutes; so is one that is slow to start.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
}


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
        assert ("load", number, "job_name") in found
        assert ("load", number, "_link_TimeXtenderJobLink") in found
    log = airflow.task_log("live_many", run_id)
    assert log.count(": the execution succeeded, and ") == COUNT, "R32"


def test_r32_each_line_is_shown_once_as_it_comes_through_the_death_of_the_triggerer(
    airflow: Stack, simulator: Simulator
) -> None:
    def shown(where: str) -> list[str]:
        events = airflow.shown_log("live_lines", run_id, where)
        return [event.partition("] ")[2] for event in events if event.startswith("TimeXtender: ")]

    run_id = airflow.trigger("live_lines")
    places = ("worker", "triggerer")
    until(lambda: all(len(shown(where)) >= 4 for where in places), 60, "lines while it runs")
    airflow.kill("triggerer")
    before = shown("triggerer")
    airflow.start("triggerer")
    until(lambda: len(shown("triggerer")) > len(before), 60, "lines of the new triggerer")
    assert airflow.states("live_lines", run_id) == {"running": 1, "deferred": 1}, "not only at the end"
    assert airflow.wait("live_lines", run_id, 120) == "success"
    for where in places:
        (execution,) = [e for e in simulator.world.executions if e.job.name == f"lines {where}"]
        assert shown(where) == [line.message for line in execution.lines], where
    log = airflow.task_log("live_lines", run_id)
    assert "shown again" not in log
    assert "Could not keep" not in log


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
