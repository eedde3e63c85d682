"""The operators, run as Airflow runs them, against the simulator."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_timextender import errors, life
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.operators import (
    MAX_XCOM_BYTES,
    ExecuteJobOperator,
    LogsOperator,
    TimeXtenderJobLink,
)
from airflow_provider_timextender.simulator import Fault, Job, Simulator

from ..conftest import API_KEY, after_submission
from .stand_ins import TaskInstance, context_of

pytestmark = pytest.mark.usefixtures("_task_log")

OTHER = "11111111-1111-1111-1111-111111111111"


def execute(**arguments: Any) -> ExecuteJobOperator:
    defaults: dict[str, Any] = {"task_id": "t", "poll_interval": 0.05, "max_unreachable": 5}
    if not {"job_id", "job_name"} & set(arguments):
        defaults["job_name"] = "load"
    return ExecuteJobOperator(**{**defaults, **arguments})


def wait(**arguments: Any) -> ExecuteJobOperator:
    return execute(wait_for_completion=True, **arguments)


# --- ExecuteJobOperator ---


def test_r25_without_waiting_it_returns_the_trigger_id_at_once(
    simulator: Simulator, context: Any, ti: TaskInstance
) -> None:
    returned = execute().execute(context)
    (execution,) = simulator.world.executions
    assert returned == execution.trigger_id
    assert ti.xcoms == {
        "trigger_id": execution.trigger_id,
        "job_id": execution.job.id,
        "job_name": "load",
        TimeXtenderJobLink.xcom_key: "https://portal.timextender.com",
    }
    assert [r.route for r in simulator.requests] == ["jobs", "logs", "status", "execute"]


def test_r25_waiting_it_returns_the_same_after_success(simulator: Simulator, context: Any) -> None:
    load = simulator.job("load")
    returned = wait(job_id=load.id, job_name=None).execute(context)
    (execution,) = simulator.world.executions
    assert returned == execution.trigger_id
    assert time.time() >= execution.ended
    assert simulator.count("execute") == 1


def test_r33_xcoms_and_link_are_there_before_the_wait(
    simulator: Simulator, context: Any, ti: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = simulator.connection()
    fields["extra"]["portal_url"] = "https://portal.example/{job_id}/{trigger_id}"
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps(fields))
    simulator.job("load").duration = 60
    after_submission(simulator, lambda: simulator.fault("status", always=Fault("status", status=401)))
    with pytest.raises(AirflowFailException):
        wait(max_unreachable=0.1).execute(context)
    (execution,) = simulator.world.executions
    link = f"https://portal.example/{execution.job.id}/{execution.trigger_id}"
    assert set(ti.xcoms) == {"trigger_id", "job_id", "job_name", TimeXtenderJobLink.xcom_key}
    assert ti.xcoms[TimeXtenderJobLink.xcom_key] == link


def test_r31_a_failure_tells_why_and_shows_the_log(
    simulator: Simulator, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job = simulator.job("load")
    job.outcome, job.message = "failed", "Data area 'DW' could not be deployed."
    with pytest.raises(errors.JobFailed) as caught:
        wait().execute(context)
    (execution,) = simulator.world.executions
    for part in (job.id, execution.trigger_id, job.message, "Invalid column name 'CustomerKey'."):
        assert part in str(caught.value)
    levels = {r.getMessage().split("] ")[-1]: r.levelno for r in caplog.records}
    assert levels["Invalid column name 'CustomerKey'."] == logging.ERROR
    assert levels["Transfer task 'load - Customers': 2 rows were truncated."] == logging.WARNING
    assert levels["Transfer task 'load - Customers' finished."] == logging.INFO


def test_r08_after_a_failed_job_another_try_submits_anew(simulator: Simulator, context: Any) -> None:
    simulator.job("load").outcome = "failed"
    with pytest.raises(errors.JobFailed):
        wait().execute(context)
    simulator.job("load").outcome = "succeeded"
    returned = wait().execute(context_of(TaskInstance()))
    assert returned == simulator.world.executions[1].trigger_id
    assert simulator.count("execute") == 2


def test_r11_a_late_start_and_a_late_log_are_waited_for(simulator: Simulator, context: Any) -> None:
    job = simulator.job("load")
    job.pickup, job.log_lag, job.log_at_end = 0.3, 0.3, True
    wait().execute(context)


def test_r11_a_404_for_a_log_that_is_not_there_yet_is_waited_for(simulator: Simulator, context: Any) -> None:
    simulator.fault("execution logs", *[Fault("status", status=404)] * 2)
    wait().execute(context)
    assert simulator.count("execution logs") >= 3


def test_r11_a_late_log_after_a_long_execution_is_no_never_started(
    simulator: Simulator, context: Any
) -> None:
    job = simulator.job("load")
    job.duration, job.log_lag, job.log_at_end = 1.0, 0.4, True
    wait(start_timeout=0.8).execute(context)


def test_r17_a_job_that_never_starts_is_said_to(simulator: Simulator, context: Any) -> None:
    simulator.job("load").outcome = "never starts"
    with pytest.raises(errors.JobNeverStarted, match="never started"):
        wait(start_timeout=0.3).execute(context)


@pytest.mark.parametrize("other", ["schedule", "hand"])
def test_r02_another_execution_before_and_beside_ours_changes_nothing(
    simulator: Simulator, context: Any, other: Any
) -> None:
    job = simulator.job("load")
    job.outcome, job.duration = "failed", 0.0
    simulator.run("load", by=other)
    job.outcome, job.duration = "succeeded", 30
    simulator.run("load", by=other)
    job.duration = 0.3
    began = time.monotonic()
    returned = wait().execute(context)
    assert returned == simulator.world.executions[-1].trigger_id
    assert time.monotonic() - began < 10, "it did not wait for the other execution"


def test_r02_it_ends_within_two_polls_of_its_own_end(simulator: Simulator, context: Any) -> None:
    job = simulator.job("load")
    job.duration = 30
    simulator.run("load")
    job.duration = 0.5
    wait(poll_interval=0.2).execute(context)
    ours = simulator.world.executions[-1]
    looks = [r for r in simulator.requests if r.route == "status" and r.at > ours.ended]
    assert len(looks) <= 2


@pytest.mark.parametrize("fault", ["unknown word", "wrong type"])
def test_r01_a_status_that_is_not_understood_is_no_success(
    simulator: Simulator, context: Any, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    after_submission(simulator, lambda: simulator.fault("status", always=Fault(fault)))
    simulator.job("load").outcome = "never starts"
    with pytest.raises(AirflowFailException, match="may still be running"):
        wait(timeout=0.5, max_unreachable=0.2).execute(context)
    warnings = [r for r in caplog.records if "'Hibernating'" in r.getMessage()]
    assert len(warnings) == (fault == "unknown word"), "R17: said once"


def test_r01_a_status_that_is_not_understood_does_not_hide_a_success(
    simulator: Simulator, context: Any
) -> None:
    simulator.fault("status", always=Fault("unknown word"))
    wait().execute(context)


def test_r01_an_end_that_is_not_understood_is_neither_success_nor_retried(
    simulator: Simulator, context: Any
) -> None:
    simulator.fault("execution logs", always=Fault("unknown word"))
    with pytest.raises(AirflowFailException, match=r"ContractError: .*'Hibernating'.*\"states\""):
        wait().execute(context)


def test_r13_a_timeout_says_how_long_and_that_the_job_runs_on(simulator: Simulator, context: Any) -> None:
    simulator.job("load").duration = 60
    with pytest.raises(AirflowFailException) as caught:
        wait(timeout=timedelta(seconds=0.4)).execute(context)
    (execution,) = simulator.world.executions
    said = str(caught.value)
    assert said.startswith("TimeXtender job 'load': stopped waiting: it was not over after 0.4 s. The ")
    assert said.endswith(f"(job id {execution.job.id}, trigger id {execution.trigger_id})")
    assert "may still be running in TimeXtender, so this task is not retried" in str(caught.value)


def test_r13_what_is_over_at_the_deadline_is_no_timeout(simulator: Simulator, context: Any) -> None:
    # The first look sees it running; the next would come long after the deadline.
    wait(poll_interval=60, timeout=1).execute(context)


def test_r17_the_default_wait_is_finite(
    simulator: Simulator, context: Any, mocker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SENSORS__DEFAULT_TIMEOUT", "0.3")
    simulator.job("load").duration = 60
    with pytest.raises(AirflowFailException, match=r"not over after 0\.3 s"):
        wait().execute(context)


def test_r09_faults_during_the_wait_are_survived(simulator: Simulator, context: Any) -> None:
    faults = [Fault("status", status=503), Fault("reset"), Fault("html"), Fault("cut")]
    simulator.fault("status", *faults)
    simulator.fault("execution logs", *faults)
    wait(max_unreachable=60).execute(context)
    assert simulator.count("execute") == 1


def test_r10_not_being_able_to_look_is_not_a_failed_job_and_not_retried(
    simulator: Simulator, context: Any
) -> None:
    after_submission(simulator, lambda: simulator.fault("status", always=Fault("status", status=502)))
    with pytest.raises(AirflowFailException, match=r"could not be found out \(ServerError: .*HTTP 502") as e:
        wait(max_unreachable=0.2).execute(context)
    assert simulator.world.executions[0].trigger_id in str(e.value)
    assert {r.method for r in simulator.requests if r.route != "execute"} == {"GET"}


def test_execution_timeout_during_the_wait_is_not_retried(
    simulator: Simulator, context: Any, mocker: Any
) -> None:
    mocker.patch.object(life.Wait, "look", side_effect=AirflowTaskTimeout("Timeout"))
    operator = wait(execution_timeout=timedelta(hours=1))
    with pytest.raises(AirflowFailException, match=r"execution_timeout is over.*not retried"):
        operator.execute(context)


def test_execution_timeout_during_the_submission_is_not_retried(
    simulator: Simulator, context: Any, mocker: Any
) -> None:
    send = TimeXtenderHook.send

    def too_slow(self: Any, call: Any) -> Any:
        if call.method == "POST":
            raise AirflowTaskTimeout("Timeout")
        return send(self, call)

    mocker.patch.object(TimeXtenderHook, "send", autospec=True, side_effect=too_slow)
    with pytest.raises(AirflowFailException, match="was queued, so this task is not retried"):
        execute(execution_timeout=timedelta(hours=1)).execute(context)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_r08_a_refused_submission_ends_the_task_without_retry(
    simulator: Simulator, context: Any, status: int
) -> None:
    simulator.fault("execute", Fault("status", status=status))
    with pytest.raises(AirflowFailException, match=f"Refused: POST .* HTTP {status}"):
        execute().execute(context)


def test_r08_a_wrong_key_ends_the_task_without_retry(simulator: Simulator, context: Any) -> None:
    simulator.api_key = "another"
    with pytest.raises(AirflowFailException, match="API key was refused"):
        execute().execute(context)


def test_an_unreachable_api_before_the_submission_may_be_retried(simulator: Simulator, context: Any) -> None:
    simulator.fault("jobs", always=Fault("status", status=503))
    with pytest.raises(errors.ServerError):
        execute(max_unreachable=0.1).execute(context)
    assert simulator.count("execute") == 0


def test_r30_a_failing_push_does_not_fail_a_task_whose_job_is_queued(
    simulator: Simulator, context: Any, mocker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mocker.patch.object(TaskInstance, "xcom_push", side_effect=RuntimeError("409"))
    assert execute().execute(context) == simulator.world.executions[0].trigger_id
    assert "Could not push the XCom trigger_id" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"job_name": None}, "job_name was given, but is None at run time"),
        ({"job_id": OTHER, "job_name": "load"}, f"no job with the id {OTHER}"),
        ({"job_id": "None", "job_name": None}, "job id 'None' is not a guid"),
        ({"job_id": "00000000-0000-0000-0000-000000000000", "job_name": None}, "blank guid"),
        ({"job_name": "Lod"}, "No job is named 'Lod'. Did you mean 'load'?"),
        ({"poll_interval": 0}, "poll_interval is 0"),
        ({"timeout": "never"}, "timeout is 'never'"),
        ({"start_timeout": -1}, "start_timeout is -1"),
        ({"max_unreachable": None}, "max_unreachable is None"),
    ],
)
def test_bad_arguments_end_the_task_before_the_job_is_queued(
    simulator: Simulator, context: Any, arguments: dict[str, Any], says: str
) -> None:
    operator = execute(**{"job_name": "load", **arguments})
    with pytest.raises(AirflowFailException, match=says):
        operator.execute(context)
    assert simulator.count("execute") == 0


def test_r37_init_only_assigns() -> None:
    strange: Any = object()
    operator = ExecuteJobOperator(task_id="t", job_id=strange, timeout=strange, poll_interval=strange)
    LogsOperator(task_id="t", since=strange, message_pattern=strange, incremental=strange)
    assert operator.job_id is strange


@pytest.mark.parametrize("operator", [ExecuteJobOperator, LogsOperator])
def test_r37_ids_and_connection_are_templated(operator: Any) -> None:
    assert {"job_id", "job_name", "timextender_conn_id"} <= set(operator.template_fields)


def test_r19_one_look_per_interval_and_one_line_per_change(
    simulator: Simulator, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.job("load").duration = 0.8
    began = time.monotonic()
    wait(poll_interval=0.2).execute(context)
    before_the_submission = 1
    assert simulator.count("status") - before_the_submission <= (time.monotonic() - began) / 0.2 + 1
    said = [r.getMessage() for r in caplog.records if r.getMessage().endswith("is running.")]
    assert len(said) == 1


# --- the link ---


def test_r33_the_link_reads_what_the_task_stored(mocker: Any) -> None:
    get = mocker.patch(
        "airflow_provider_timextender.operators.XCom.get_value", return_value="https://portal.example/x"
    )
    link = TimeXtenderJobLink()
    key: Any = object()
    assert link.get_link(execute(), ti_key=key) == "https://portal.example/x"
    get.assert_called_once_with(key=link.xcom_key, ti_key=key)


@pytest.mark.parametrize("stored", [None, RuntimeError("no such XCom")])
def test_r33_the_link_never_raises(mocker: Any, stored: Any) -> None:
    mocker.patch("airflow_provider_timextender.operators.XCom.get_value", side_effect=[stored])
    key: Any = object()
    assert TimeXtenderJobLink().get_link(execute(), ti_key=key) == ""


# --- LogsOperator ---


@pytest.fixture
def trigger_id(simulator: Simulator) -> str:
    job = simulator.job("load")
    job.outcome, job.pickup, job.duration = "failed", 0, 0
    simulator.run("load", by="hand")
    execution = simulator.run("load")
    return execution.trigger_id


def logs(**arguments: Any) -> LogsOperator:
    return LogsOperator(**{"task_id": "t", "job_name": "load", **arguments})


def test_logs_of_one_execution(
    simulator: Simulator, context: Any, trigger_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    entries = logs(trigger_id=trigger_id, min_severity="warning").execute(context)
    assert json.loads(json.dumps(entries)) == entries
    assert [(e["severity"], e["trigger_id"]) for e in entries] == [
        ("warning", trigger_id), ("error", trigger_id), ("error", trigger_id)
    ]  # fmt: skip
    assert set(entries[0]) == {"time", "severity", "message", "trigger_id"}
    assert "Invalid column name" in caplog.text


def test_logs_of_a_whole_job(simulator: Simulator, context: Any, trigger_id: str) -> None:
    entries = logs(message_pattern="Invalid column").execute(context)
    assert len(entries) == 2


def test_logs_of_an_execution_that_is_not_there(simulator: Simulator, context: Any) -> None:
    with pytest.raises(errors.ExecutionNotFound):
        logs(trigger_id=OTHER).execute(context)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"trigger_id": "None"}, "trigger id 'None' is not a guid"),
        ({"trigger_id": "00000000-0000-0000-0000-000000000000"}, "blank guid"),
        ({"min_severity": "loud"}, "min_severity is 'loud'"),
        ({"job_name": None}, "job_name was given, but is None at run time"),
    ],
)
def test_bad_arguments_of_logs(
    simulator: Simulator, context: Any, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(AirflowFailException, match=says):
        logs(**arguments).execute(context)
    assert not [r for r in simulator.requests if r.route.endswith("logs")]


def test_r34_a_large_log_is_a_clear_error_and_not_a_cut_xcom(simulator: Simulator, context: Any) -> None:
    simulator.job("load").lines = 1000
    simulator.job("load").duration = simulator.job("load").pickup = 0
    simulator.run("load")
    told = r"The first (\d+) log entries alone take more than 48 KiB"
    with pytest.raises(AirflowFailException, match=told) as failed:
        logs().execute(context)
    found = re.search(told, str(failed.value))
    assert found
    assert int(found[1]) < 1000, "R44: what is more is not held"
    entries = logs(min_severity="warning").execute(context)
    assert len(json.dumps(entries)) < MAX_XCOM_BYTES


# --- the key ---


def test_r34_the_key_is_in_no_xcom_and_no_state_of_the_operator(
    simulator: Simulator, context: Any, ti: TaskInstance
) -> None:
    operator = wait()
    operator.execute(context)
    assert API_KEY not in json.dumps(ti.xcoms)
    assert API_KEY not in repr(vars(operator))
    assert API_KEY not in repr(vars(operator.hook))


def test_r18_a_server_that_falls_silent_does_not_hang_the_task(
    simulator: Simulator, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = simulator.connection()
    fields["extra"]["timeout"] = 0.2
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps(fields))
    after_submission(simulator, lambda: simulator.fault("status", always=Fault("silence")))
    thread = threading.Timer(20, simulator.heal)
    thread.daemon = True
    thread.start()
    with pytest.raises(AirflowFailException, match="timed out"):
        wait(max_unreachable=0.3).execute(context)
    assert thread.is_alive(), "it ended by itself"
    thread.cancel()


def test_jobs_with_odd_names(simulator: Simulator, context: Any) -> None:
    job = Job("Läden {0} %s {{x}} 'q'", duration=0, pickup=0)
    simulator.world.jobs[job.id] = job
    wait(job_name=job.name).execute(context)


def test_r01_a_log_that_is_asked_for_by_nothing_is_not_that_of_the_whole_job(
    simulator: Simulator, context: Any
) -> None:
    with pytest.raises(AirflowFailException, match="trigger_id was given, but is None"):
        LogsOperator(task_id="t", job_name="load", trigger_id=None).execute(context)


def test_r32_half_a_surrogate_pair_in_a_log_ends_nothing(simulator: Simulator, context: Any) -> None:
    simulator.job("load").message = "broken \ud800 text"
    assert wait().execute(context) == simulator.world.executions[0].trigger_id
