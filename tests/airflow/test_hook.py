"""The hook: from an Airflow connection to typed results."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import requests_mock
import rich.pretty

from airflow_provider_timextender import errors, model
from airflow_provider_timextender.carrier import Carrier
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.life import Limits, Wait, run_through
from airflow_provider_timextender.logs import LogFilter
from airflow_provider_timextender.model import JobState
from airflow_provider_timextender.naming import Of
from airflow_provider_timextender.simulator import DIALECTS, Dialect, Fault, Job, Simulator
from airflow_provider_timextender.triggers import JobExecutionTrigger
from airflow_provider_timextender.verdict import Run
from airflow_provider_timextender.worlds import Worker

from ..conftest import API_KEY
from .running import fire


@pytest.fixture(params=DIALECTS)
def any_dialect(
    request: pytest.FixtureRequest, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.dialect = DIALECTS[request.param]
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())


def until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.mark.usefixtures("any_dialect")
def test_all_endpoints_give_the_same_in_every_dialect(simulator: Simulator) -> None:
    hook = TimeXtenderHook()
    load = simulator.job("load")
    load.pickup = 1  # time enough for a busy machine to see it pending
    assert [(job.id, job.name) for job in hook.get_jobs()] == [(load.id, "load")]
    assert hook.get_job(job_name="load") == hook.get_job(load.id)
    receipt = hook.execute_job(load.id)
    assert hook.get_job_status(load.id).state is JobState.PENDING
    assert [s.to_dict() for s in hook.get_all_job_statuses()] == [{"job_id": load.id, "state": "pending"}]
    until(lambda: hook.get_job_status(load.id).state is JobState.IDLE)
    simulator.run("load", by="hand")
    simulator.run("load")
    until(lambda: len(hook.get_job_logs(load.id)) == 3)
    (execution,) = hook.get_job_logs(load.id, receipt.trigger_id)
    assert execution.to_dict() == {
        "job_id": load.id,
        "trigger_id": receipt.trigger_id,
        "state": "succeeded",
        "start": execution.start.isoformat() if execution.start else None,
        "end": execution.end.isoformat() if execution.end else None,
        "duration": pytest.approx(load.duration, abs=1e-3),
        "message": "Job completed.",
        "problem": None,
    }
    assert [log.severity for log in execution.logs] == ["info"] * 3 + ["warning"]
    assert list(hook.iter_job_logs(load.id, receipt.trigger_id)) == list(execution.logs)
    results: list[Any] = [*hook.get_jobs(), receipt, execution, *execution.logs]
    json.dumps([result.to_dict() for result in results])


def test_iter_job_logs_of_a_whole_job_and_of_no_execution(simulator: Simulator) -> None:
    hook, load = TimeXtenderHook(), simulator.job("load")
    assert list(hook.iter_job_logs(load.id)) == []
    with pytest.raises(errors.ExecutionNotFound, match=f"job {load.id}: its log shows no execution"):
        next(hook.iter_job_logs(load.id, load.id))


def test_r44_executions_of_jobs_come_one_by_one_with_the_entries_that_are_wanted(
    simulator: Simulator,
) -> None:
    hook, load = TimeXtenderHook(), simulator.job("load")
    other = Job("other")
    simulator.world.jobs[other.id] = other
    good, bad = simulator.past("load", ago=60), simulator.past("load", "failed", ago=30)
    by_hand = simulator.past("other", ago=20, by="hand")

    def found(*jobs: Any, **named: Any) -> list[tuple[str | None, int, int]]:
        return [(e.trigger_id, len(e.logs), e.log_count) for e in hook.iter_executions(*jobs, **named)]

    of_load = [(good.trigger_id, 4, 4), (bad.trigger_id, 6, 6)]
    assert found() == [*of_load, (by_hand.trigger_id, 3, 3)]
    for jobs in ("load", load.id, hook.get_job(load.id), ["load"], [hook.get_job(load.id)]):
        assert found(jobs) == of_load
    errors_only = LogFilter(min_severity="error")
    assert found("load", wanted=errors_only) == [(good.trigger_id, 0, 4), (bad.trigger_id, 2, 6)]
    assert found("load", logs=False) == [(good.trigger_id, 0, 4), (bad.trigger_id, 0, 6)]
    assert found("load", trigger_id=bad.trigger_id) == of_load[1:]
    (execution,) = hook.iter_executions("load", trigger_id=bad.trigger_id, wanted=errors_only)
    assert [log.message for log in execution.logs] == [log.message for log in execution.last_errors]
    assert [log.line for log in execution.logs] == [5, 6]
    assert list(execution.logs) == list(execution.logs), "they can be gone through again"


def test_r09_r44_executions_go_on_where_the_answer_broke_off(simulator: Simulator) -> None:
    simulator.job("load").lines = 2000
    past = [simulator.past("load", ago=100.0 - n) for n in range(4)]
    simulator.fault("logs", Fault("cut"), Fault("reset"), Fault("cut"))
    found = [e.trigger_id for e in TimeXtenderHook(max_unreachable=30).iter_executions("load")]
    assert found == [execution.trigger_id for execution in past]
    assert simulator.count("logs") == 4


def test_r38_what_tells_no_execution_and_no_job_is_refused_before_anything_is_sent(
    simulator: Simulator,
) -> None:
    with pytest.raises(errors.InvalidInput, match="The trigger id 'x' is not a guid"):
        next(TimeXtenderHook().iter_executions(trigger_id="x"))
    assert simulator.requests == []


@pytest.mark.parametrize(
    "given", [{}, {"job_id": None}, {"job_id": None, "job_name": None}], ids=["nothing", "None", "twice None"]
)
def test_r38_a_job_is_given_by_id_or_name(simulator: Simulator, given: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidInput, match="Give a job id or a job name"):
        TimeXtenderHook().get_job(**given)
    assert simulator.requests == []


def test_r38_no_or_several_matches(simulator: Simulator) -> None:
    hook = TimeXtenderHook()
    twin = Job("load", id="11111111-1111-1111-1111-111111111111")
    simulator.world.jobs[twin.id] = twin
    with pytest.raises(errors.InvalidInput, match="2 jobs are named 'load'"):
        hook.get_job(job_name="load")
    with pytest.raises(errors.InvalidInput, match=r"No job is named 'Load'\. Did you mean 'load'\?"):
        hook.get_job(job_name="Load")
    with pytest.raises(errors.InvalidInput, match="no job with the id 2222"):
        hook.get_job("22222222-2222-2222-2222-222222222222")


def test_r49_a_job_may_be_given_by_both_if_they_agree(simulator: Simulator) -> None:
    hook, load = TimeXtenderHook(), simulator.job("load")
    assert hook.get_job(load.id.upper(), "load").name == "load"
    twin = Job("load", id="11111111-1111-1111-1111-111111111111")
    simulator.world.jobs[twin.id] = twin
    assert hook.get_job(twin.id, "load").id == twin.id, "the id tells two of one name apart"
    with pytest.raises(errors.InvalidInput, match=f"'Stock' .*do not belong together.* {load.id} .*'load'"):
        hook.get_job(load.id, "Stock")
    with pytest.raises(errors.InvalidInput, match="no job with the id 2222"):
        hook.get_job("22222222-2222-2222-2222-222222222222", "load")


def test_r49_the_name_of_a_job_given_by_id_is_asked_for_once_and_need_not_be_there(
    simulator: Simulator,
) -> None:
    hook, load = TimeXtenderHook(max_unreachable=60), simulator.job("load")
    upper = load.id.upper()
    assert hook.resolve_job(Of(upper)) == model.Job(upper, "load"), "the id is kept as it was given"
    assert hook.resolve_job(Of("22222222-2222-2222-2222-222222222222")).name is None
    for fault in (Fault("status", status=503), Fault("html"), Fault("status", status=401), Fault("reset")):
        before = simulator.count("jobs")
        simulator.fault("jobs", always=fault)
        assert hook.resolve_job(Of(upper)) == model.Job(upper, None)
        assert simulator.count("jobs") == before + 1


@pytest.mark.parametrize("bad", ["7", "../jobs", "00000000-0000-0000-0000-000000000000"])
def test_bad_ids_are_refused_before_anything_is_sent(simulator: Simulator, bad: str) -> None:
    hook, good = TimeXtenderHook(), simulator.job("load").id
    for call in (
        lambda: hook.execute_job(bad),
        lambda: hook.get_job_status(bad),
        lambda: hook.get_job_logs(bad),
        lambda: hook.get_job_logs(good, bad),
        lambda: hook.get_job(bad),
        lambda: hook.get_job(bad, "load"),
    ):
        with pytest.raises(errors.InvalidInput):
            call()
    assert simulator.requests == []


def test_a_bad_connection_is_refused_before_anything_is_sent(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = simulator.connection()
    monkeypatch.setenv("AIRFLOW_CONN_TX", json.dumps({**fields, "password": ""}))
    with pytest.raises(errors.InvalidInput, match="'tx': there is no API key"):
        TimeXtenderHook("tx").get_jobs()
    monkeypatch.setenv("AIRFLOW_CONN_TX", json.dumps({**fields, "extra": {"vocabulary": {"words": {}}}}))
    with pytest.raises(errors.InvalidInput, match="'tx': vocabulary has no entry 'words'"):
        TimeXtenderHook("tx").get_jobs()
    assert simulator.requests == []


def test_r08_a_missing_connection_is_a_clear_error() -> None:
    with pytest.raises(errors.InvalidInput, match="no_such_connection"):
        TimeXtenderHook("no_such_connection").get_jobs()


def test_the_connection_as_uri(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    host = simulator.url.removeprefix("http://")
    monkeypatch.setenv("AIRFLOW_CONN_TX", f"timextender://:{API_KEY}@{host}/http?timeout=5")
    hook = TimeXtenderHook("tx")
    assert len(hook.get_jobs()) == 1
    assert hook.settings.timeout == 5


def test_one_hook_keeps_one_connection_open(simulator: Simulator) -> None:
    hook = TimeXtenderHook()
    for _ in range(3):
        hook.get_jobs()
        hook.get_all_job_statuses()
    assert len({request.connection for request in simulator.requests}) == 1


# --- test_connection ---


def test_r40_test_connection_changes_nothing_and_looks_at_an_execution(simulator: Simulator) -> None:
    connected = f"Connected to {simulator.url}: 1 job found."
    unknown = f"{connected} No execution was found, so how one ends is not known yet."
    assert TimeXtenderHook().test_connection() == (True, unknown)
    simulator.job("load").pickup = simulator.job("load").duration = 0
    simulator.run("load")
    assert TimeXtenderHook().test_connection() == (True, connected)
    assert {request.method for request in simulator.requests} == {"GET"}
    assert [request.route for request in simulator.requests] == ["jobs", "statuses", "logs"] * 2


@pytest.mark.parametrize(
    ("dialect", "says"),
    [
        ({"renamed": {"Name": "Caption"}}, "no value for job.name."),
        (
            {"statuses": {"idle": "Ready", "pending": "P", "running": "R"}},
            "status.state is 'Ready', a word in",
        ),
        (
            {"states": {"succeeded": "Completed", "failed": "F", "running": "R"}},
            "state is 'Completed', a word",
        ),
        ({"renamed": {"EndTime": "Stop"}}, "no value for execution.end."),
        ({"renamed": {"Logs": "Zeilen"}}, "no value for execution.logs."),
        (
            {"severities": {"info": "I", "warning": "W", "error": "E"}},
            "log.severity is 'I', a word in no table.",
        ),
        ({"renamed": {"Severity": "Kind"}}, "no value for log.severity."),
        ({"trigger_id_on": "nowhere"}, "no value for execution.trigger_id."),
        ({"nesting": "wrapped"}, "expected a JSON array, found an object with the members"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(*value),
)
def test_r40_test_connection_is_red_if_a_task_would_not_understand(
    monkeypatch: pytest.MonkeyPatch, dialect: dict[str, Any], says: str
) -> None:
    with Simulator([Job("load", pickup=0, duration=0)], dialect=Dialect(**dialect)) as simulator:
        simulator.run("load")
        monkeypatch.setenv(
            "AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps(simulator.connection(explained=False))
        )
        good, message = TimeXtenderHook().test_connection()
        assert not good
        assert says in message
        assert "airflow timextender check" in message
        assert len(message) < 600, "a toast is small"
        if dialect != {"trigger_id_on": "nowhere"}:
            monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
            assert TimeXtenderHook().test_connection()[0], "explained in the connection, it is understood"


def test_r40_test_connection_reads_no_large_log_and_few_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(f"load {number}", pickup=0, duration=0, lines=12_000) for number in range(5)]
    with Simulator(jobs) as simulator:
        for job in jobs:
            simulator.run(job.name)
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        good, message = TimeXtenderHook().test_connection()
    assert good
    assert "No execution was found" in message
    assert simulator.count("logs") == 3


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("status", status=401), "API key was refused"),
        (Fault("status", status=503), "server failed"),
        (Fault("html"), "body is not JSON: <html>"),
        (Fault("reset"), "no answer"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_r40_test_connection_says_why_not(simulator: Simulator, fault: Fault, says: str) -> None:
    simulator.fault("jobs", always=fault)
    good, message = TimeXtenderHook().test_connection()
    assert not good
    assert says in message
    assert simulator.count("jobs") == 1


def test_r40_test_connection_reports_a_bad_field(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps({"conn_type": "timextender"}))
    good, message = TimeXtenderHook().test_connection()
    assert not good
    assert "there is no API key" in message


def misspell(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the connection an extra with a key that is not known, and return what is said of it."""
    for one in (TimeXtenderHook, JobExecutionTrigger):
        # Not all that Airflow 3 logs goes through Python's own loggers.
        monkeypatch.setattr(one, "log", logging.getLogger(one.__name__))
    fields = {**simulator.connection(), "extra": {"vocablary": {"states": {"succeeded": "s3cret"}}}}
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps(fields))
    return "The extra has the unknown key 'vocablary', which is ignored. Did you mean 'vocabulary'?"


LOGGED = "Airflow connection 'timextender_default': "


def test_r48_an_unknown_key_of_the_extra_is_logged_once(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = misspell(simulator, monkeypatch)
    hook = TimeXtenderHook()
    for _ in range(2):
        hook.get_jobs()
        hook.renew()
    assert [(r.message, r.levelname) for r in caplog.records if "vocablary" in r.message] == [
        (LOGGED + said, "WARNING")
    ]
    assert "s3cret" not in caplog.text


def test_r48_an_unknown_key_of_the_extra_is_shown_by_the_test_button(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = misspell(simulator, monkeypatch)
    good, message = TimeXtenderHook().test_connection()
    assert good
    assert message.endswith(f" {said}")
    assert LOGGED not in message  # there, Airflow makes up an id
    simulator.fault("jobs", Fault("status", status=401))
    good, message = TimeXtenderHook().test_connection()
    assert not good
    assert message.endswith(f" {said}")
    assert LOGGED not in message  # there, Airflow makes up an id


@pytest.mark.parametrize("known_key", [False, True])
def test_r48_a_task_that_starts_in_the_triggerer_is_told_of_an_unknown_key(
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    known_key: bool,
) -> None:
    said = misspell(simulator, monkeypatch)
    trigger_id = simulator.past("load").trigger_id
    fire(JobExecutionTrigger(job_name="load", trigger_id=trigger_id, poll_interval=0.05, known_key=known_key))
    told = [record.name for record in caplog.records if record.message == LOGGED + said]
    assert told == ["TimeXtenderHook"] + ["JobExecutionTrigger"] * (not known_key)


def test_r38_a_name_that_a_template_rendered_to_a_number(simulator: Simulator) -> None:
    twin = Job("2024", id="11111111-1111-1111-1111-111111111111")
    simulator.world.jobs[twin.id] = twin
    number: Any = 2024
    assert TimeXtenderHook().get_job(job_name=number).id == twin.id


def test_r12_a_key_that_is_changed_in_the_meantime_is_picked_up(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = simulator.run("load")
    now = datetime.now(timezone.utc)
    limits = Limits(0.05, 20, now + timedelta(minutes=1), errors.WaitTimeout())
    run = Run(execution.job.id, execution.trigger_id, now)
    hook = TimeXtenderHook()
    simulator.api_key = "a-new-one"
    with pytest.raises(errors.Refused):
        run_through(Wait(Worker(hook, hook.log), run, limits).look(every=2))
    renew, asked = hook.renew, []

    def change() -> None:
        asked.append(simulator.count("status"))
        if len(asked) == 3:
            monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        renew()

    monkeypatch.setattr(hook, "renew", change)
    run_through(Wait(Worker(hook, hook.log), run, limits, looked=True).look(every=2))
    assert len(asked) == 3


def test_r40_test_connection_ends_in_time(simulator: Simulator) -> None:
    simulator.fault("jobs", always=Fault("silence"))
    began = time.monotonic()
    good, message = TimeXtenderHook().test_connection()
    assert time.monotonic() - began < 10
    assert not good
    assert "timed out" in message


def test_requests_go_where_the_connection_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_TX",
        json.dumps({"conn_type": "timextender", "host": "https://gw.example/tx/", "password": API_KEY}),
    )
    with requests_mock.Mocker() as mock:
        mock.get("https://gw.example/tx/public/jobs", json=[])
        assert TimeXtenderHook("tx").get_jobs() == []


def test_r34_no_object_shows_the_key(simulator: Simulator) -> None:
    hook = TimeXtenderHook()
    hook.get_jobs()
    settings = hook.settings
    things: list[Any] = [hook, settings, hook.get_conn(), vars(hook), vars(hook.get_conn())]
    carrier = Carrier(settings)
    things += [
        carrier,
        carrier._mask,
        carrier._kept,
        carrier._kept.headers,
        vars(carrier),
        vars(carrier._kept),
    ]
    for thing in things:
        assert API_KEY not in repr(thing)
        assert API_KEY not in rich.pretty.pretty_repr(thing)


def test_the_fixture_for_users(timextender_simulator: Simulator) -> None:
    names = [job.name for job in TimeXtenderHook().get_jobs()]
    assert names == ["Load sales", "Load finance", "Load stock"]
