"""The lines of an execution's log in a task's log: as they come, once each, in every mode."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_timextender import worlds
from airflow_provider_timextender.errors import JobFailed
from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.sensors import JobStatusSensor
from airflow_provider_timextender.simulator import Execution, Fault, Simulator
from airflow_provider_timextender.triggers import JobExecutionTrigger

from .running import MODES, SHARES, arguments_of, live
from .stand_ins import Store, TaskInstance, context_of

pytestmark = pytest.mark.usefixtures("_task_log")

needs_store = pytest.mark.skipif(not SHARES, reason="before Airflow 3.3 nothing of a task survives its try")


@pytest.fixture(autouse=True)
def _trigger_log(monkeypatch: pytest.MonkeyPatch, simulator: Simulator) -> None:
    monkeypatch.setattr(JobExecutionTrigger, "log", logging.getLogger("tests.task"), raising=False)
    job = simulator.job("load")
    job.duration, job.lines, job.warnings = 1.6, 8, 1


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, float]]:
    """Return the lines that the task's log shows, and when it has shown them."""
    shown = [r for r in caplog.records if r.getMessage().startswith("TimeXtender: ")]
    return [(r.getMessage().partition("] ")[2], r.created) for r in shown]


def check(caplog: pytest.LogCaptureFixture, execution: Execution, *, early: bool) -> None:
    shown = lines(caplog)
    assert [text for text, _ in shown] == [line.message for line in execution.lines], "each once, in order"
    assert any(at < execution.ended - 0.2 for _, at in shown) is early, "while it runs"


def sensor(**arguments: Any) -> JobStatusSensor:
    return JobStatusSensor(**{"task_id": "t", "job_name": "load", "poke_interval": 0.05, **arguments})


def wait(**arguments: Any) -> ExecuteJobOperator:
    defaults = {"task_id": "t", "job_name": "load", "poll_interval": 0.05, "wait_for_completion": True}
    return ExecuteJobOperator(**{**defaults, **arguments})


@pytest.mark.parametrize("lasts", [False, True], ids=["without a store", "with a store"])
@pytest.mark.parametrize("mode", MODES)
def test_r31_r32_a_sensor_shows_them_as_they_come(
    simulator: Simulator, ti: TaskInstance, caplog: pytest.LogCaptureFixture, mode: str, lasts: bool
) -> None:
    execution = simulator.run("load")
    context = context_of(ti, Store() if lasts else None)
    waits = {"trigger_id": execution.trigger_id, **arguments_of(mode)}
    assert live(lambda: sensor(**waits), ti, mode, context)["state"] == "succeeded"
    # Each look of mode reschedule is a process of its own: it needs something that keeps what was shown.
    check(caplog, execution, early=lasts or mode != "reschedule")


@pytest.mark.parametrize("deferrable", [False, True])
def test_r31_r32_the_operator_shows_them_as_they_come(
    simulator: Simulator, ti: TaskInstance, caplog: pytest.LogCaptureFixture, deferrable: bool
) -> None:
    live(lambda: wait(deferrable=deferrable), ti, "", context_of(ti))
    (execution,) = simulator.world.executions
    check(caplog, execution, early=True)
    levels = {r.getMessage().partition("] ")[2]: r.levelname for r in caplog.records}
    assert levels["Transfer task 'load - Customers': 2 rows were truncated."] == "WARNING"


@needs_store
def test_r32_a_retry_that_goes_on_shows_only_what_is_new(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def rest(self: Any, *_: Any) -> Any:
        if len(lines(caplog)) >= 3:
            raise Killed
        return former(self, *_)

    former, store = worlds.Worker.rest, Store()
    with monkeypatch.context() as patched:
        patched.setattr(worlds.Worker, "rest", rest)
        with pytest.raises(Killed):
            wait(retries=2).execute(context_of(TaskInstance(), store))
    second = TaskInstance()
    second.try_number, second.max_tries = 2, 2
    assert 3 <= len(lines(caplog)) <= 7
    wait(retries=2).execute(context_of(second, store))
    (execution,) = simulator.world.executions
    check(caplog, execution, early=True)


@needs_store
def test_r32_a_cleared_task_shows_the_log_again(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    execution, store, tis = simulator.run("load"), Store(), [TaskInstance(), TaskInstance()]
    tis[1].try_number = 2
    tis[1].max_tries = 1
    for ti in tis:
        sensor(trigger_id=execution.trigger_id).execute(context_of(ti, store))
    assert [text for text, _ in lines(caplog)] == 2 * [line.message for line in execution.lines]


@needs_store
def test_r32_what_a_trigger_has_shown_is_kept_for_another_try(simulator: Simulator) -> None:
    store, ti = Store(), TaskInstance()
    with pytest.raises(TaskDeferred):
        wait(deferrable=True).execute(context_of(ti, store))
    shown = {"key": ti.xcoms["trigger_id"], "count": 2, "marks": "x" * 16, "try": 1}
    ti.xcoms["timextender_shown"] = shown
    ti.xcom_pull = lambda key, **_: ti.xcoms.get(key)  # type: ignore[attr-defined]
    told = {"job_id": simulator.job("load").id, "trigger_id": ti.xcoms["trigger_id"]}
    event = {**told, "job_name": "load", "error": "Unreachable", "message": "nobody there"}
    with pytest.raises(Exception, match="nobody there"):
        wait(deferrable=True).resume_execution("execute_complete", {"event": event}, context_of(ti, store))
    assert store.kept["timextender_shown"] == shown


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_r32_a_log_that_cannot_be_kept_track_of_changes_no_outcome(
    simulator: Simulator, ti: TaskInstance, caplog: pytest.LogCaptureFixture, outcome: Any
) -> None:
    simulator.job("load").outcome = outcome
    execution = simulator.run("load")
    simulator.fault("execution logs", *[Fault("status", status=503)] * 3)
    waits = sensor(trigger_id=execution.trigger_id)
    context = context_of(ti, Store(broken=True))
    if outcome == "succeeded":
        assert waits.execute(context)["state"] == outcome
    else:
        with pytest.raises(JobFailed):
            waits.execute(context)
    check(caplog, execution, early=True)
    assert "Could not keep which lines were shown" in caplog.text


def test_r32_live_lines_cost_no_request(simulator: Simulator, ti: TaskInstance) -> None:
    execution, began = simulator.run("load"), time.monotonic()
    sensor(trigger_id=execution.trigger_id, poke_interval=0.1).execute(context_of(ti))
    looks = (time.monotonic() - began) / 0.1 + 2
    assert simulator.count("status") <= looks
    assert simulator.count("execution logs") <= looks / 2 + 4, (
        "every second look, and where the status changes"
    )
