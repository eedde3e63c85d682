"""Right, or clear about why not, however the API answers: each way that has once misled a task."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_timextender import errors, jobs_api, life
from airflow_provider_timextender.operators import LogsOperator
from airflow_provider_timextender.sensors import JobStatusSensor
from airflow_provider_timextender.simulator import Dialect, Fault, Job, Simulator

from ..conftest import API_KEY, after_submission
from .running import DEFERRABLE, MODES, SHARES, arguments_of, live
from .stand_ins import Store, TaskInstance
from .test_durable import Task, _short, dies_when_it_looks, store_where_there_is_one

pytestmark = pytest.mark.usefixtures("_task_log", "_short")

needs_store = pytest.mark.skipif(not SHARES, reason="the task state store came with Airflow 3.3")
WAYS = ["worker", *DEFERRABLE]

__all__ = ["_short"]  # the fixture


@contextmanager
def speaking(monkeypatch: pytest.MonkeyPatch, dialect: Dialect, **job: Any) -> Iterator[Simulator]:
    """A simulator that speaks a dialect, with the connection that explains what can be explained of it."""
    jobs = [Job("load", **{"duration": 0.2, "pickup": 0.05, **job})]
    with Simulator(jobs, api_key=API_KEY, dialect=dialect) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        yield simulator


def run_all_tries(task: Task, way: str) -> Any:
    """Run a task as Airflow does: again after an error, as long as a retry is left and helps."""
    for left in reversed(range(task.retries + 1)):
        try:
            return task.run(way)
        except AirflowFailException:
            raise
        except errors.TimeXtenderError:
            if not left:
                raise
    return None


def sense(ti: TaskInstance, mode: str, **arguments: Any) -> Any:
    defaults = {"task_id": "t", "job_name": "load", "poke_interval": 0.05, "max_unreachable": 1}
    return live(lambda: JobStatusSensor(**{**defaults, **arguments_of(mode), **arguments}), ti, mode)


def ran_before(simulator: Simulator, *outcomes: Any) -> None:
    for outcome in outcomes:
        simulator.run("load")
        simulator.finish(outcome)


# --- whose an execution is ---

ONLY_ENTRIES = Dialect(filters="entries", trigger_id_on="entries")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", [["succeeded"], ["succeeded", "failed"]], ids=len)
def test_r01_r02_a_good_execution_whose_entries_are_filtered_out_makes_no_failed_load_green(
    monkeypatch: pytest.MonkeyPatch, way: str, before: list[Any]
) -> None:
    with speaking(monkeypatch, ONLY_ENTRIES, outcome="failed") as simulator:
        ran_before(simulator, *before)
        with pytest.raises(errors.JobFailed, match=r"CustomerKey"):
            Task(retries=0, store=store_where_there_is_one()).run(way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", [["failed"], ["failed", "succeeded"]], ids=len)
def test_r01_r02_a_bad_execution_whose_entries_are_filtered_out_makes_no_good_load_red(
    monkeypatch: pytest.MonkeyPatch, way: str, before: list[Any]
) -> None:
    with speaking(monkeypatch, ONLY_ENTRIES) as simulator:
        ran_before(simulator, *before)
        ours = run_all_tries(Task(store=store_where_there_is_one()), way)
        assert simulator.count("execute") == 1
        assert ours == simulator.world.executions[-1].trigger_id


@pytest.mark.parametrize("way", WAYS)
def test_r01_a_log_that_carries_no_trigger_id_is_a_contract_error(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with speaking(monkeypatch, Dialect(trigger_id_on="nowhere")) as simulator:
        with pytest.raises(AirflowFailException, match=r"tell one trigger id.*fields\.execution\.trigger_id"):
            run_all_tries(Task(store=store_where_there_is_one()), way)
        assert simulator.count("execute") == 1


# --- one load, whatever the filter does ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "dialect",
    [
        Dialect("upper case", ids="upper", exact_ids=True),
        Dialect("braces", ids="braces", exact_ids=True),
        Dialect("no filter", filters="404"),
        Dialect("filters nothing", filters="nothing"),
    ],
    ids=lambda dialect: dialect.name,
)
@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_r02_r05_one_load_and_its_own_end_whatever_the_filter_does(
    monkeypatch: pytest.MonkeyPatch, way: str, dialect: Dialect, outcome: Any
) -> None:
    with speaking(monkeypatch, dialect, outcome=outcome) as simulator:
        ran_before(simulator, "failed" if outcome == "succeeded" else "succeeded")
        task = Task(retries=2 if outcome == "succeeded" else 0, store=store_where_there_is_one())
        if outcome == "succeeded":
            assert run_all_tries(task, way) == as_it_came(simulator)
        else:
            with pytest.raises(errors.JobFailed):
                run_all_tries(task, way)
        assert simulator.count("execute") == 1


def as_it_came(simulator: Simulator) -> str:
    ours = simulator.world.executions[-1].trigger_id
    assert isinstance(simulator.dialect, Dialect)
    return simulator.dialect.write_id(ours)


@pytest.mark.parametrize("way", WAYS)
def test_r02_r05_a_load_that_has_run_and_left_no_trace_is_not_run_again(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with speaking(monkeypatch, Dialect(), duration=0.5) as simulator:
        simulator.fault("logs", always=Fault("body", body="[]"))
        simulator.fault("execution logs", always=Fault("body", body="[]"))
        with pytest.raises(AirflowFailException, match="not known whether that one has run"):
            run_all_tries(Task(store=store_where_there_is_one()), way)
        assert simulator.count("execute") == 1


@pytest.mark.parametrize("mode", MODES)
def test_r02_a_sensor_finds_what_the_filter_hides(
    monkeypatch: pytest.MonkeyPatch, ti: TaskInstance, mode: str
) -> None:
    with speaking(monkeypatch, Dialect(filters="404")) as simulator:
        trigger_id = simulator.run("load").trigger_id
        assert sense(ti, mode, trigger_id=trigger_id, start_timeout=0.5)["trigger_id"] == trigger_id


def test_r02_logs_are_found_that_the_filter_hides(monkeypatch: pytest.MonkeyPatch, context: Any) -> None:
    with speaking(monkeypatch, Dialect(filters="404"), pickup=0.0, duration=0.0) as simulator:
        ran_before(simulator, "succeeded", "succeeded")
        trigger_id = simulator.world.executions[0].trigger_id
        entries = LogsOperator(task_id="t", job_name="load", trigger_id=trigger_id).execute(context)
        assert {entry["trigger_id"] for entry in entries} == {trigger_id}


# --- beside a running load ---


@needs_store
@pytest.mark.parametrize("if_running", ["fail", "wait", "attach"])
def test_r07_a_log_that_takes_long_to_read_lets_no_second_load_in(
    simulator: Simulator, if_running: str
) -> None:
    simulator.job("load").duration = 1.5
    simulator.fault("logs", *[Fault("slow", seconds=0.8)] * 2)
    first = Task(store=Store(), wait_for_completion=False)
    other = Task(store=Store(), wait_for_completion=False, if_running=if_running, timeout=0.5)
    running = threading.Thread(target=first.run)
    running.start()
    time.sleep(0.3)
    if if_running == "attach":
        assert other.run() == simulator.world.executions[0].trigger_id
    else:
        with pytest.raises((errors.JobBusy, errors.WaitTimeout)):
            other.run()
    running.join()
    assert simulator.count("execute") == 1


def test_r07_the_status_is_the_last_that_is_asked_for(simulator: Simulator, context: Any) -> None:
    Task(wait_for_completion=False, if_running="fail", retries=0).make().execute(context)
    assert [request.route for request in simulator.requests[-2:]] == ["status", "execute"]


# --- too large ---


@pytest.fixture
def _small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_api, "STREAM_LIMIT", 2500)


@pytest.mark.usefixtures("_small_logs")
def test_r41_a_log_above_the_limit_is_asked_for_once_and_keeps_no_job_from_being_queued(
    simulator: Simulator, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ran_before(simulator, *["succeeded"] * 15)
    Task(retries=0).make().execute(context)
    assert (simulator.count("logs"), simulator.count("execute")) == (1, 1)
    assert "should the answer to the request get lost, the execution cannot be looked for" in caplog.text


@pytest.mark.usefixtures("_small_logs")
def test_r41_a_log_above_the_limit_fails_at_once_and_names_the_way_out(
    simulator: Simulator, context: Any
) -> None:
    ran_before(simulator, *["succeeded"] * 15)
    with pytest.raises(
        AirflowFailException, match=r"AnswerTooLarge: .*ask for one execution by its trigger id"
    ):
        LogsOperator(task_id="t", job_name="load").execute(context)
    assert simulator.count("logs") == 1


@pytest.mark.usefixtures("_small_logs")
@pytest.mark.parametrize("mode", MODES)
def test_r41_a_log_above_the_limit_ends_a_sensor_by_moment(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    ran_before(simulator, *["succeeded"] * 15)
    with pytest.raises(AirflowFailException, match="AnswerTooLarge"):
        sense(ti, mode, completed_after=datetime.now(timezone.utc), timeout=3)
    assert simulator.count("logs") <= 2, "once, and once more in the triggerer"


@pytest.mark.usefixtures("_small_logs")
@pytest.mark.parametrize("way", WAYS)
def test_r41_a_whole_log_above_the_limit_ends_no_wait_that_the_filtered_one_can_end(
    simulator: Simulator, way: str
) -> None:
    job = simulator.job("load")
    job.log_lag = 0.9
    ran_before(simulator, *["succeeded"] * 15)
    task = Task(start_timeout=1.5, store=store_where_there_is_one(), retries=0)
    assert task.run(way) == simulator.world.executions[-1].trigger_id


# --- one strange answer ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("route", ["status", "statuses", "execution logs"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=404),
        Fault("status", status=400),
        Fault("redirect", location="https://maintenance.example/"),
        Fault("status", status=403),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status or ''}",
)
def test_r09_r12_r22_one_refusal_ends_no_wait(
    simulator: Simulator, way: str, route: Any, fault: Fault
) -> None:
    simulator.job("load").duration = 0.6
    after_submission(simulator, lambda: simulator.fault(route, fault, fault))
    task = Task(retries=0, store=store_where_there_is_one())
    assert task.run(way) == simulator.world.executions[-1].trigger_id
    assert len(simulator.world.executions) == 1


@pytest.mark.parametrize("way", WAYS)
def test_r09_refusals_end_a_wait_after_max_unreachable(simulator: Simulator, way: str) -> None:
    refuse = Fault("status", status=404)
    for route in ("status", "statuses"):
        after_submission(simulator, lambda route=route: simulator.fault(route, always=refuse))  # type: ignore[misc]
    began = time.monotonic()
    task = Task(retries=0, max_unreachable=0.7, store=store_where_there_is_one())
    with pytest.raises(AirflowFailException, match=r"HTTP 404"):
        task.run(way)
    assert time.monotonic() - began > 0.5


# --- times ---


@pytest.mark.parametrize("mode", MODES)
def test_r24_an_execution_without_an_end_time_breaks_no_later_wait(
    monkeypatch: pytest.MonkeyPatch, ti: TaskInstance, mode: str
) -> None:
    with speaking(monkeypatch, Dialect(end_on="nowhere")) as simulator:
        ran_before(simulator, "failed")
        time.sleep(0.1)
        moment = datetime.now(timezone.utc)
        with pytest.raises(AirflowSensorTimeout, match=r"1 that began before.*fields\.execution\.end"):
            sense(ti, mode, completed_after=moment, timeout=0.5)
        ours = simulator.run("load")
        assert sense(ti, mode, completed_after=moment, timeout=5)["trigger_id"] == ours.trigger_id


def test_r24_what_is_passed_over_is_said_once(
    monkeypatch: pytest.MonkeyPatch, ti: TaskInstance, caplog: pytest.LogCaptureFixture
) -> None:
    with speaking(monkeypatch, Dialect(end_on="nowhere")) as simulator:
        ran_before(simulator, "failed")
        with pytest.raises(AirflowSensorTimeout):
            sense(ti, "poke", completed_after=datetime.now(timezone.utc), timeout=0.6)
    warned = [r for r in caplog.records if r.levelname == "WARNING" and "that began before" in r.message]
    assert len(warned) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", ["America/New_York", "Asia/Tokyo"])
def test_r24_local_times_are_those_of_the_connections_zone(
    monkeypatch: pytest.MonkeyPatch, ti: TaskInstance, mode: str, place: str
) -> None:
    with speaking(monkeypatch, Dialect(times="naive", timezone=place)) as simulator:
        ran_before(simulator, "failed")
        before = datetime.fromtimestamp(simulator.world.executions[0].ended, timezone.utc)
        ours = simulator.run("load")
        result = sense(ti, mode, completed_after=before + timedelta(milliseconds=1), timeout=5)
        assert result["trigger_id"] == ours.trigger_id
        assert result["end"] == datetime.fromtimestamp(ours.ended, timezone.utc).isoformat(
            timespec="microseconds"
        )


# --- what nobody can read ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "dialect",
    [
        Dialect("unknown word", states={"running": "Busy", "succeeded": "Over", "failed": "Over"}),
        Dialect("codes", states={"running": 0, "succeeded": 1, "failed": 2}),
    ],
    ids=lambda dialect: dialect.name,
)
def test_r17_a_state_that_nobody_can_read_is_no_endless_wait(
    monkeypatch: pytest.MonkeyPatch, way: str, dialect: Dialect
) -> None:
    with speaking(monkeypatch, replace(dialect, end_on="nowhere")) as simulator:
        fields = simulator.connection(explained=False)
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", str(fields).replace("'", '"'))
        task = Task(timeout=6, store=store_where_there_is_one())
        with pytest.raises(AirflowFailException, match=r"ContractError.*execution\.state is ('Over'|1)"):
            run_all_tries(task, way)
        assert simulator.count("execute") == 1


@pytest.mark.parametrize("way", WAYS)
def test_r01_the_default_of_a_code_is_no_success_before_the_end(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    codes = {"running": 2, "succeeded": 0, "failed": 1}
    dialect = Dialect(states=codes, unfinished_state="succeeded", no_time="year 1")
    with speaking(monkeypatch, dialect, outcome="failed", duration=0.4), pytest.raises(errors.JobFailed):
        Task(retries=0, store=store_where_there_is_one()).run(way)


@pytest.mark.parametrize("mode", [*WAYS, "poke", "reschedule"])
@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_r01_a_word_that_is_set_before_the_end_is_no_end(
    monkeypatch: pytest.MonkeyPatch, ti: TaskInstance, mode: str, outcome: Any
) -> None:
    lie: Any = "failed" if outcome == "succeeded" else "succeeded"
    with speaking(monkeypatch, Dialect(), outcome=outcome, duration=0.6) as simulator:
        simulator.dialect = Dialect(unfinished_state=lie)
        moment = datetime.now(timezone.utc)

        def wait() -> Any:
            if mode in WAYS:
                return run_all_tries(Task(retries=0, store=store_where_there_is_one()), mode)
            simulator.run("load")
            return sense(ti, mode, completed_after=moment, timeout=8)

        if outcome == "succeeded":
            assert wait()
        else:
            with pytest.raises(errors.JobFailed):
                wait()
        assert len(simulator.world.executions) == 1


@pytest.mark.parametrize("mode", MODES)
def test_r24_an_execution_that_never_says_its_end_is_found_in_every_mode(
    monkeypatch: pytest.MonkeyPatch, ti: TaskInstance, mode: str
) -> None:
    with speaking(monkeypatch, Dialect(end_on="nowhere")) as simulator:
        trigger_id = simulator.run("load").trigger_id
        assert sense(ti, mode, trigger_id=trigger_id, timeout=8)["state"] == "succeeded"


# --- what has been seen by somebody else ---


@pytest.mark.parametrize("way", DEFERRABLE)
def test_r02_r05_what_a_worker_saw_active_is_not_denied_by_a_trigger(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with speaking(monkeypatch, Dialect(), duration=60) as simulator:
        simulator.fault("logs", always=Fault("body", body="[]"))
        simulator.fault("execution logs", always=Fault("body", body="[]"))
        look = life.Wait.look

        async def look_and_end(*args: Any, **kwargs: Any) -> Any:
            found = await look(*args, **kwargs)
            simulator.finish()
            return found

        monkeypatch.setattr(life.Wait, "look", look_and_end)
        with pytest.raises(AirflowFailException, match="not known whether that one has run"):
            run_all_tries(Task(store=store_where_there_is_one()), way)
        assert simulator.count("execute") == 1


@needs_store
@pytest.mark.parametrize("way", WAYS)
def test_r03_r05_what_an_earlier_try_saw_is_not_denied_by_the_next(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with speaking(monkeypatch, Dialect()) as simulator:
        simulator.fault("logs", always=Fault("body", body="[]"))
        simulator.fault("execution logs", always=Fault("body", body="[]"))
        task = Task(store=Store())
        dies_when_it_looks(task, monkeypatch)
        simulator.finish()
        with pytest.raises(AirflowFailException, match="not known whether that one has run"):
            run_all_tries(task, way)
        assert simulator.count("execute") == 1


@pytest.mark.parametrize("way", WAYS)
def test_r02_r05_an_execution_under_another_id_than_its_receipt_is_not_run_again(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with speaking(monkeypatch, Dialect(), pickup=0.0, duration=0.0) as simulator:
        queue = simulator.world.queue

        def queue_under_another_id(*args: Any, **kwargs: Any) -> Any:
            queued = queue(*args, **kwargs)
            simulator.world.executions[-1] = replace(queued, trigger_id=str(uuid.uuid4()))
            return queued

        monkeypatch.setattr(simulator.world, "queue", queue_under_another_id)
        with pytest.raises(AirflowFailException, match=r"have begun since: [0-9a-f].*execution\.trigger_id"):
            run_all_tries(Task(store=store_where_there_is_one()), way)
        assert simulator.count("execute") == 1


@needs_store
@pytest.mark.parametrize("way", DEFERRABLE)
def test_r22_the_receipts_spelling_of_an_id_is_returned_in_every_mode(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with speaking(monkeypatch, Dialect(ids="upper")) as simulator:
        task = Task(store=Store(), retries=0)
        after_submission(simulator, lambda: setattr(simulator, "dialect", Dialect()))
        queue = simulator.world.queue

        def queue_then_lower(*args: Any, **kwargs: Any) -> Any:
            queued = queue(*args, **kwargs)
            simulator.dialect = Dialect(ids="upper")
            return queued

        monkeypatch.setattr(simulator.world, "queue", queue_then_lower)
        assert task.run(way) == task.ti.xcoms["trigger_id"]


@pytest.mark.parametrize("way", WAYS)
def test_r11_what_was_seen_active_is_not_denied_though_its_log_could_not_be_read(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with speaking(monkeypatch, Dialect(), duration=0.5) as simulator:

        def fail_then_forget() -> None:
            simulator.fault("execution logs", always=Fault("status", status=500))
            simulator.fault("logs", always=Fault("body", body="[]"))
            empty = Fault("body", body="[]")
            threading.Timer(1.2, lambda: simulator.fault("execution logs", always=empty)).start()

        after_submission(simulator, fail_then_forget)
        task = Task(store=store_where_there_is_one(), max_unreachable=10)
        with pytest.raises(AirflowFailException, match="not known whether that one has run"):
            run_all_tries(task, way)
        assert simulator.count("execute") == 1


# --- a clear ---


@needs_store
@pytest.mark.parametrize(
    "fault",
    [
        Fault("html"),
        Fault("body", body='[{"Timestamp": "2026-01-01", "Severity": "Info", "Message": "x"}]'),
        Fault("body", body='{"value": []}'),
    ],
    ids=["html", "flat", "wrapped"],
)
def test_r06_a_clear_loads_nothing_beside_an_execution_whose_log_cannot_be_read(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    simulator.job("load").duration = 60
    task = Task(store=Store(), retries=0, max_unreachable=0.3)
    dies_when_it_looks(task, monkeypatch)
    task.clear()
    simulator.fault("execution logs", always=fault)
    with pytest.raises((AirflowFailException, errors.TimeXtenderError)):
        task.run()
    assert simulator.count("execute") == 1


@needs_store
@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
@pytest.mark.parametrize("cleared", [True, False])
def test_r06_r08_what_is_over_without_an_end_is_over_for_the_next_try(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, cleared: bool
) -> None:
    with speaking(monkeypatch, Dialect(end_on="nowhere"), outcome=outcome) as simulator:
        task = Task(store=Store(), retries=1)
        dies_when_it_looks(task, monkeypatch)
        simulator.finish(outcome)
        simulator.job("load").outcome = "succeeded"
        if cleared:
            task.clear()
        anew = cleared or outcome == "failed"
        assert task.run() == simulator.world.executions[-1].trigger_id
        assert simulator.count("execute") == (2 if anew else 1)


def test_r07_attaching_finds_what_runs_under_a_word_that_is_set_before_the_end(
    monkeypatch: pytest.MonkeyPatch, ti: TaskInstance
) -> None:
    with speaking(monkeypatch, Dialect(unfinished_state="succeeded"), duration=2.0, pickup=0.0) as simulator:
        ours = simulator.run("load")
        task = Task(retries=0, if_running="attach", store=store_where_there_is_one())
        assert task.run() == ours.trigger_id
        assert simulator.count("execute") == 0


# --- what passes ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [504, 403])
def test_r09_a_whole_log_that_cannot_be_read_ends_no_wait_that_the_filtered_one_can_end(
    simulator: Simulator, way: str, status: int
) -> None:
    simulator.job("load").log_lag = 1.5
    after_submission(simulator, lambda: simulator.fault("logs", always=Fault("status", status=status)))
    task = Task(start_timeout=3, retries=0, max_unreachable=1, store=store_where_there_is_one())
    assert task.run(way) == simulator.world.executions[-1].trigger_id


@pytest.mark.parametrize("way", WAYS)
def test_r09_one_word_of_a_maintenance_ends_no_wait(simulator: Simulator, way: str) -> None:
    word = Fault("body", body='{"status": "maintenance"}')
    simulator.job("load").log_lag = 0.4
    empty = Fault("body", body="[]")
    words = (word, empty, empty, word)
    after_submission(simulator, lambda: simulator.fault("execution logs", *words))
    assert Task(retries=0, store=store_where_there_is_one()).run(way)


@pytest.mark.parametrize("mode", MODES)
def test_r09_one_word_of_a_maintenance_ends_no_sensor(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    simulator.job("load").duration = 0.5
    trigger_id = simulator.run("load").trigger_id
    empty, word = Fault("body", body="[]"), Fault("body", body='{"status": "maintenance"}')
    simulator.fault("execution logs", empty, word)
    assert sense(ti, mode, trigger_id=trigger_id)["state"] == "succeeded"


@pytest.mark.parametrize("mode", MODES)
def test_r22_r23_refusals_until_the_timeout_are_a_timeout_in_every_mode(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    simulator.job("load").duration = 60
    trigger_id = simulator.run("load").trigger_id
    refuse = Fault("status", status=404)

    def refuse_all_after_a_look() -> None:
        while not simulator.count("execution logs"):
            time.sleep(0.01)
        simulator.fault("status", always=refuse)
        simulator.fault("statuses", always=refuse)

    refusing = threading.Thread(target=refuse_all_after_a_look)
    refusing.start()
    with pytest.raises(AirflowSensorTimeout):
        sense(ti, mode, trigger_id=trigger_id, timeout=1.5, max_unreachable=30)
    refusing.join()


@pytest.mark.parametrize("mode", MODES)
def test_r24_one_cancelled_execution_without_times_breaks_no_wait(
    simulator: Simulator, ti: TaskInstance, mode: str
) -> None:
    ran_before(simulator, "succeeded")
    moment = datetime.fromtimestamp(simulator.world.executions[0].ended, timezone.utc)
    rows = [
        {"TriggerId": None, "State": "Canceled", "StartTime": None, "EndTime": None},
        {"TriggerId": None, "State": "Failed", "StartTime": "2020-01-01", "EndTime": "N/A"},
        {"TriggerId": str(uuid.uuid4()), "State": "Success", "StartTime": moment.isoformat(),
         "EndTime": moment.isoformat()},
    ]  # fmt: skip
    simulator.fault("logs", always=Fault("body", body=json.dumps(rows)))
    assert sense(ti, mode, completed_after=moment, timeout=5)["state"] == "succeeded"


# --- JSON of another shape ---


@pytest.mark.parametrize(
    ("dialect", "found"),
    [
        (Dialect("wrapped", nesting="wrapped"), r"expected a JSON array, found an object with the members"),
        (Dialect("one object", nesting="one object"), r"expected a JSON array, found an object"),
        (Dialect("flat", nesting="flat"), r"found a log entry among them, with the members \['TriggerId'"),
    ],
    ids=lambda value: value.name if isinstance(value, Dialect) else "",
)
def test_r14_whole_json_of_another_shape_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, context: Any, dialect: Dialect, found: str
) -> None:
    with speaking(monkeypatch, dialect, pickup=0.0, duration=0.0) as simulator:
        unexplained = json.dumps(simulator.connection(explained=False))
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", unexplained)
        ran_before(simulator, "succeeded")
        job_id = simulator.job("load").id
        with pytest.raises(AirflowFailException, match=f"ContractError: .*{found}"):
            LogsOperator(task_id="t", job_id=job_id).execute(context)
        assert simulator.count("logs") == 1


@pytest.mark.parametrize("nesting", ["wrapped", "flat"])
@pytest.mark.parametrize("way", WAYS)
def test_r48_a_shape_that_the_connection_explains_is_understood(
    monkeypatch: pytest.MonkeyPatch, way: str, nesting: Any
) -> None:
    with speaking(monkeypatch, Dialect(nesting=nesting)) as simulator:
        ran_before(simulator, "succeeded")
        trigger_id = Task().run(way)
        assert simulator.world.executions[-1].trigger_id == trigger_id
        simulator.job("load").outcome = "failed"
        with pytest.raises(errors.JobFailed, match="Invalid column name"):
            Task().run(way)


@pytest.mark.parametrize("way", WAYS)
def test_r14_a_flat_log_is_not_called_several_executions(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    with speaking(monkeypatch, Dialect(nesting="flat", trigger_id_on="entries")) as simulator:
        task = Task(job_name=None, job_id=simulator.job("load").id, store=store_where_there_is_one())
        with pytest.raises(AirflowFailException, match="found a log entry among them") as caught:
            run_all_tries(task, way)
        assert "executions stand under" not in str(caught.value)
        assert simulator.count("execute") == 1
