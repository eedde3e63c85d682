"""The sensor, with Airflow's own base class around it, against the simulator."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

from airflow_provider_timextender import errors, life, verdict
from airflow_provider_timextender.sensors import JobStatusSensor
from airflow_provider_timextender.simulator import Fault, Simulator

from .running import DEFERRABLE, MODES, arguments_of, first_start_of, live
from .stand_ins import TaskInstance, context_of

pytestmark = pytest.mark.usefixtures("_task_log")

OTHER = "11111111-1111-1111-1111-111111111111"


def sensor(**arguments: Any) -> JobStatusSensor:
    defaults = {"task_id": "t", "job_name": "load", "poke_interval": 0.05, "max_unreachable": 1}
    return JobStatusSensor(**{**defaults, **arguments})


def run(ti: TaskInstance, mode: str = "poke", **arguments: Any) -> Any:
    return live(lambda: sensor(**arguments_of(mode), **arguments), ti, mode)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


# --- with a trigger id ---


def test_success_is_a_dict_with_what_the_execution_was(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    execution = simulator.run("load")
    result = run(ti, trigger_id=execution.trigger_id, mode=mode)
    assert result == {
        "job_id": execution.job.id,
        "trigger_id": execution.trigger_id,
        "state": "succeeded",
        "start": datetime.fromtimestamp(execution.started, timezone.utc).isoformat(timespec="microseconds"),
        "end": datetime.fromtimestamp(execution.ended, timezone.utc).isoformat(timespec="microseconds"),
        "duration": pytest.approx(0.2, abs=1e-3),
        "job_name": "load",
        "message": "Job completed.",
        "problem": None,
    }


OUTCOMES = ("succeeds", "fails", "never starts", "unknown end", "times out", "unreachable", "refused")


@pytest.mark.parametrize("soft_fail", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_r22_r23_one_table_for_all_modes_and_only_a_timeout_skips(
    simulator: Simulator, ti: TaskInstance, mode: str, outcome: str, soft_fail: bool
) -> None:
    job = simulator.job("load")
    timeout = 30.0
    if outcome == "fails":
        job.outcome = "failed"
    elif outcome == "never starts":
        job.outcome = "never starts"
    elif outcome == "unknown end":
        simulator.fault("execution logs", always=Fault("unknown word"))
    elif outcome == "times out":
        job.duration, timeout = 60, 0.4
    elif outcome == "unreachable":
        simulator.fault("status", always=Fault("status", status=503))
        simulator.fault("statuses", always=Fault("status", status=503))
    elif outcome == "refused":
        simulator.fault("status", always=Fault("status", status=401))
    arguments = {
        "trigger_id": simulator.run("load").trigger_id,
        "soft_fail": soft_fail,
        "timeout": timeout,
        "start_timeout": 0.4,
        "max_unreachable": 0.2,
    }
    if outcome == "never starts" and mode in DEFERRABLE:
        # Had the trigger been made an interval ago, as on a busy machine, the job could have run unseen.
        arguments["poke_interval"] = 2
    if outcome == "succeeds":
        assert run(ti, mode, **arguments)["state"] == "succeeded"
        return
    expected: dict[str, tuple[type[Exception], str]] = {
        "fails": (errors.JobFailed, "Invalid column name"),
        "never starts": (errors.JobNeverStarted, "never started"),
        "unknown end": (AirflowFailException, "ContractError: .*'Hibernating'"),
        "times out": (
            AirflowSkipException if soft_fail else AirflowSensorTimeout,
            r"^TimeXtender job 'load': stopped waiting: it was not over after 0\.4 s\. "
            r"The (job|execution) is running",
        ),
        "unreachable": (errors.ServerError, "HTTP 503"),
        "refused": (AirflowFailException, "API key was refused"),
    }
    kind, says = expected[outcome]
    with pytest.raises(kind, match=says) as caught:
        run(ti, mode, **arguments)
    assert isinstance(caught.value, AirflowSkipException) is (soft_fail and outcome == "times out")
    assert {r.method for r in simulator.requests} == {"GET"}


def test_r26_finished_before_the_first_look(simulator: Simulator, ti: TaskInstance, mode: str) -> None:
    job = simulator.job("load")
    job.duration = job.pickup = 0
    good = simulator.run("load")
    job.outcome = "failed"
    bad = simulator.run("load")
    assert run(ti, trigger_id=good.trigger_id, mode=mode)["state"] == "succeeded"
    assert simulator.count("execution logs") == 1
    with pytest.raises(errors.JobFailed):
        run(ti, trigger_id=bad.trigger_id, mode=mode)


def test_r02_it_ends_within_few_polls_of_its_own_end(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    job = simulator.job("load")
    job.duration = 30
    simulator.run("load")
    job.duration = 0.4
    ours = simulator.run("load")
    run(ti, trigger_id=ours.trigger_id, mode=mode, poke_interval=0.2)
    # While another keeps the job busy, its log is read at every second look, in the triggerer at every third.
    looks = [r for r in simulator.requests if r.route == "status" and r.at > ours.ended]
    assert len(looks) <= (3 if mode in DEFERRABLE else 2)


def test_r02_another_execution_that_succeeds_is_not_ours(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    simulator.job("load").outcome = "failed"
    ours = simulator.run("load")
    simulator.job("load").outcome = "succeeded"
    simulator.run("load", by="hand")
    simulator.run("load")
    with pytest.raises(errors.JobFailed):
        run(ti, trigger_id=ours.trigger_id, mode=mode)


def test_r11_a_late_log_is_no_never_started(simulator: Simulator, ti: TaskInstance, mode: str) -> None:
    job = simulator.job("load")
    job.duration, job.log_lag, job.log_at_end = 0.8, 0.3, True
    execution = simulator.run("load")
    assert run(ti, trigger_id=execution.trigger_id, mode=mode, start_timeout=0.6)["state"] == "succeeded"


def test_r31_the_log_of_a_failure_is_in_the_task_log(
    simulator: Simulator, ti: TaskInstance, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.job("load").outcome = "failed"
    with pytest.raises(errors.JobFailed):
        run(ti, trigger_id=simulator.run("load").trigger_id)
    assert any(r.levelname == "ERROR" and "Invalid column" in r.getMessage() for r in caplog.records)


# --- Airflow's own options ---


def test_silent_fail_ignores_failed_looks_and_not_a_failed_job(
    simulator: Simulator, ti: TaskInstance
) -> None:
    simulator.job("load").outcome = "failed"
    simulator.fault("status", *[Fault("status", status=401)] * 3)
    with pytest.raises(errors.JobFailed):
        run(ti, trigger_id=simulator.run("load").trigger_id, silent_fail=True, timeout=30)


@pytest.mark.parametrize("outcome", ["failed", "refused"])
def test_never_fail_skips(simulator: Simulator, ti: TaskInstance, mode: str, outcome: str) -> None:
    if outcome == "failed":
        simulator.job("load").outcome = "failed"
    else:
        simulator.fault("status", always=Fault("status", status=401))
    with pytest.raises(AirflowSkipException):
        run(ti, trigger_id=simulator.run("load").trigger_id, never_fail=True, mode=mode)


def test_exponential_backoff_works(simulator: Simulator, ti: TaskInstance) -> None:
    simulator.job("load").duration = 0.5
    execution = simulator.run("load")
    result = run(ti, trigger_id=execution.trigger_id, exponential_backoff=True, max_wait=timedelta(seconds=1))
    assert result["state"] == "succeeded"


# --- without a trigger id ---


def test_without_a_trigger_id_it_waits_until_the_job_is_idle(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    simulator.job("load").outcome = "failed"
    execution = simulator.run("load", by="hand")
    result = run(ti, mode=mode)
    assert time.time() >= execution.ended
    assert result == {
        "job_id": execution.job.id,
        "state": "idle",
        "trigger_id": None,
        "start": None,
        "end": None,
        "duration": None,
        "job_name": "load",
        "message": None,
        "problem": None,
    }
    assert simulator.count("logs") == simulator.count("execution logs") == 0


@pytest.mark.parametrize("word", ["", None, "Hibernating", 7])
def test_r01_a_status_that_is_not_understood_is_not_idle(
    simulator: Simulator, ti: TaskInstance, mode: str, word: Any
) -> None:
    route: Any
    for route in ("status", "statuses"):
        simulator.fault(route, always=Fault("unknown word", word=word))
    with pytest.raises(AirflowSensorTimeout, match="status was not understood"):
        run(ti, mode=mode, timeout=0.2)


# --- since a moment ---


def test_r24_what_ended_before_the_sensor_began_is_found_at_the_first_look(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    job = simulator.job("load")
    job.duration = job.pickup = 0
    job.outcome = "failed"
    simulator.run("load")
    time.sleep(0.01)
    job.outcome = "succeeded"
    execution = simulator.run("load", by="hand")
    since = datetime.fromtimestamp(execution.ended - 3600, timezone.utc)
    for after in (since, since.isoformat()):
        result = run(ti, completed_after=after, mode=mode)
        assert result["state"] == "succeeded", "the execution that ended last counts"
    assert simulator.count("logs") == 2


@pytest.mark.parametrize("mode", ["poke", "deferrable"])  # rescheduled, each look knows of no other
@pytest.mark.parametrize("large", [False, True], ids=["small log", "large log"])
def test_r44_a_large_log_of_an_idle_job_is_read_when_it_may_show_more_and_rarely_else(
    simulator: Simulator,
    ti: TaskInstance,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    large: bool,
) -> None:
    monkeypatch.setattr(verdict, "LOG_LAG", 0.3)
    if large:
        monkeypatch.setattr(verdict, "SWEEP_RATE", 0.1)
    with pytest.raises(AirflowSensorTimeout):
        run(ti, mode, completed_after=datetime.now(timezone.utc) + timedelta(hours=1), timeout=2)
    looks = simulator.count("status" if mode == "poke" else "statuses")
    assert looks >= 20
    most, least = (6, 3) if large else (looks, looks // 4)
    assert least <= simulator.count("logs") <= most, "at the first look, half a minute later, and at the end"
    # What begins and ends between two looks is found all the same.
    monkeypatch.setattr(verdict, "SWEEP_AFTER", 0.5)
    simulator.job("load").pickup = simulator.job("load").duration = 0
    now = datetime.now(timezone.utc)
    threading.Timer(0.7, simulator.run, ["load"]).start()
    assert run(ti, mode, completed_after=now, timeout=20)["state"] == "succeeded"
    assert datetime.now(timezone.utc) - now < timedelta(seconds=10)


def test_r24_what_ended_too_early_does_not_count_and_what_comes_does(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    job = simulator.job("load")
    job.duration = job.pickup = 0
    early = simulator.run("load")
    job.pickup, job.outcome = 0.3, "failed"
    simulator.run("load")
    after = datetime.fromtimestamp(early.ended + 0.001, timezone.utc)
    with pytest.raises(errors.JobFailed):
        run(ti, completed_after=after, mode=mode)
    with pytest.raises(AirflowSensorTimeout, match="No execution has ended since"):
        run(ti, completed_after=after + timedelta(hours=1), mode=mode, timeout=0.1)


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"job_name": None}, "job_name was given, but is None at run time"),
        ({"job_id": OTHER}, f"no job with the id {OTHER}"),
        ({"trigger_id": "None"}, "trigger id 'None' is not a guid"),
        ({"trigger_id": "00000000-0000-0000-0000-000000000000"}, "blank guid"),
        ({"trigger_id": ""}, "trigger_id was given, but is '' at run time"),
        ({"trigger_id": OTHER, "completed_after": "2026-01-01"}, "either trigger_id or completed_after"),
        ({"completed_after": "soon"}, "completed_after is 'soon'"),
        ({"trigger_id": OTHER, "start_timeout": 0}, "start_timeout is 0"),
        ({"max_unreachable": "x"}, "max_unreachable is 'x'"),
    ],
)
@pytest.mark.parametrize("soft_fail", [False, True], ids=["hard", "soft"])
def test_bad_arguments_fail_the_task_at_once(
    simulator: Simulator, ti: TaskInstance, mode: str, arguments: Any, says: str, soft_fail: bool
) -> None:
    with pytest.raises(AirflowFailException, match=says):
        run(ti, mode=mode, soft_fail=soft_fail, **arguments)
    assert {r.route for r in simulator.requests} <= {"jobs"}


@pytest.mark.parametrize("name", ["trigger_id", "completed_after"])
def test_r01_a_template_that_renders_to_nothing_is_not_any_execution(
    simulator: Simulator, context: Any, name: str
) -> None:
    operator = sensor(**{name: "{{ a template }}"})
    setattr(operator, name, None)  # what native rendering makes of an XCom that is not there
    with pytest.raises(AirflowFailException, match=f"{name} was given, but is None"):
        operator.execute(context)


def test_r37_init_only_assigns() -> None:
    strange: Any = object()
    assert sensor(trigger_id=strange, start_timeout=strange).trigger_id is strange
    templated = {"job_id", "job_name", "trigger_id", "completed_after", "timextender_conn_id"}
    assert templated <= set(JobStatusSensor.template_fields)


# --- traffic ---


def test_r19_one_look_per_interval_and_one_line_per_change(
    simulator: Simulator, ti: TaskInstance, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.job("load").duration = 0.8
    execution = simulator.run("load")
    began = time.monotonic()
    run(ti, trigger_id=execution.trigger_id, poke_interval=0.2)
    assert simulator.count("status") <= (time.monotonic() - began) / 0.2 + 1
    assert simulator.count("jobs") == 1, "the name is looked up once"
    assert len([r for r in caplog.records if r.getMessage().endswith("is running.")]) == 1


def test_without_memory_it_looks_twice_before_it_says_never_started(
    simulator: Simulator, ti: TaskInstance, mocker: Any
) -> None:
    for module in (life, verdict):
        mocker.patch.object(module, "LOG_LAG", 0.01)
    look = mocker.spy(life.Wait, "_look")
    ti.first_reschedule = datetime.now(timezone.utc) - timedelta(hours=1)
    simulator.job("load").outcome = "never starts"
    trigger_id = simulator.run("load").trigger_id
    with first_start_of(ti), pytest.raises(errors.JobNeverStarted):
        sensor(trigger_id=trigger_id, mode="reschedule").execute(context_of(ti))
    assert look.call_count == 2


@pytest.mark.parametrize("name", ["trigger_id", "completed_after"])
def test_r01_a_mapped_none_is_not_any_execution(simulator: Simulator, context: Any, name: str) -> None:
    # What is mapped over arrives in the constructor, as an XCom that is not there does.
    with pytest.raises(AirflowFailException, match=f"{name} was given, but is None"):
        sensor(**{name: None}).execute(context)


def test_r22_a_timeout_is_one_even_if_the_api_cannot_be_reached(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    execution = simulator.run("load")
    simulator.job("load").duration = 60
    simulator.fault("statuses", always=Fault("status", status=503))
    simulator.fault("status", always=Fault("status", status=503))
    began = time.monotonic()
    with pytest.raises((AirflowSensorTimeout, errors.ServerError)) as caught:
        run(ti, mode, trigger_id=execution.trigger_id, timeout=0.6, max_unreachable=60)
    assert isinstance(caught.value, AirflowSensorTimeout), caught.value
    assert "HTTP 503" in str(caught.value)
    assert time.monotonic() - began < 10
