"""The triggers, as a triggerer runs them: many at the same time, moved, killed, and rebuilt."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook
from airflow.triggers.base import TaskSuccessEvent

from airflow_provider_timextender import polling
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.shown import SHOWN_KEY, Shown
from airflow_provider_timextender.simulator import Fault, Job, Simulator
from airflow_provider_timextender.triggers import JobExecutionTrigger, JobFinishedTrigger

from ..conftest import API_KEY
from ..waiting import comes_true
from .running import SHARES, events_of, fire, stored

OTHER = "11111111-1111-1111-1111-111111111111"
ends_tasks = pytest.mark.skipif(not SHARES, reason="before Airflow 3.3 no trigger ends a task")


def trigger(**arguments: Any) -> JobExecutionTrigger:
    defaults = {"job_name": None if "job_id" in arguments else "load", "poll_interval": 0.05}
    return JobExecutionTrigger(**{**defaults, **arguments})


def ago(seconds: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat()


async def all_events(ones: list[Any]) -> list[Any]:
    """Run triggers at the same time, in one event loop, as a triggerer does."""
    return [event for events in await asyncio.gather(*map(_own, ones)) for event in events]


async def _own(one: Any) -> list[Any]:
    return [event async for event in one.run()]


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Simulator]]:
    """Make a simulator with many jobs behind the default connection."""
    made: list[Simulator] = []

    def make(count: int, timeout: float = 5, **course: Any) -> Simulator:
        jobs = [Job(f"job {number}", **{"pickup": 0.1, "duration": 0.5, **course}) for number in range(count)]
        simulator = Simulator(jobs, api_key=API_KEY)
        made.append(simulator.__enter__())
        fields = simulator.connection()
        fields["extra"]["timeout"] = timeout
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps(fields))
        return simulator

    yield make
    for simulator in made:
        simulator.__exit__(None, None, None)


def wait_for_all(simulator: Simulator, **arguments: Any) -> list[JobExecutionTrigger]:
    """Start each job once, and return what waits for it."""
    return [
        trigger(job_id=job.id, trigger_id=simulator.run(job.name).trigger_id, **arguments)
        for job in simulator.world.jobs.values()
    ]


@pytest.mark.parametrize("fault", [None, Fault("status", status=503)], ids=["named", "no names"])
def test_r49_those_who_wait_together_share_one_look_into_the_list_of_jobs(
    crowd: Callable[..., Simulator], fault: Fault | None
) -> None:
    simulator = crowd(20)
    if fault:
        simulator.fault("jobs", always=fault)
    events = asyncio.run(all_events(wait_for_all(simulator, poll_interval=2)))
    names = {event.payload["job_name"] for event in events}
    assert names == ({None} if fault else {job.name for job in simulator.world.jobs.values()})
    assert {event.payload["state"] for event in events} == {"succeeded"}
    assert simulator.count("jobs") == 1


def test_r38_r49_a_job_that_was_made_a_minute_ago_is_found_whatever_the_interval_is(
    simulator: Simulator,
) -> None:
    async def look() -> list[list[str | None]]:
        loop = asyncio.get_running_loop()
        clock, seen = loop.time, []
        async with polling.shared_poll("timextender_default", 3600) as poll:
            for late in (0, 1, 60):
                loop.time = lambda late=late: clock() + late  # type: ignore[method-assign, misc]
                seen.append([job.name for job in await poll.jobs()])
                simulator.world.jobs[OTHER] = Job("new", id=OTHER)
        return seen

    assert asyncio.run(look()) == [["load"], ["load"], ["load", "new"]]


# --- the event ---


def test_r34_a_success_is_a_small_event(simulator: Simulator) -> None:
    execution = simulator.run("load")
    event = fire(trigger(trigger_id=execution.trigger_id))
    assert event["trigger_id"] == execution.trigger_id
    assert event["job_id"] == execution.job.id
    assert event["state"] == "succeeded"
    assert event["duration"] == pytest.approx(0.2, abs=1e-3)


def test_r34_a_failure_is_a_small_event_however_much_there_is_to_say(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.outcome, job.message, job.lines = "failed", "\U0001f4a5" * 5000, 3000
    event = fire(trigger(trigger_id=simulator.run("load").trigger_id))
    assert event["error"] == "JobFailed"
    assert event["job_name"] == "load"
    assert "Invalid column name" in " ".join(event["error_lines"])
    assert event["start"] < event["end"]


def test_r39_what_a_release_has_stored_still_rebuilds() -> None:
    classpath, arguments = trigger(job_id=OTHER, job_name=None, trigger_id=OTHER).serialize()
    assert classpath == "airflow_provider_timextender.triggers.JobExecutionTrigger"
    of_0_1_0 = {
        "timextender_conn_id", "job_id", "job_name", "trigger_id", "completed_after", "asked_at",
        "start_timeout", "poll_interval", "timeout", "execution_deadline", "max_unreachable", "known_key",
        "end_with",
    }  # fmt: skip
    assert set(arguments) == of_0_1_0 | {"resumed", "known_job", "shown"}
    assert JobExecutionTrigger(**{name: arguments[name] for name in of_0_1_0}).arguments == arguments
    assert set(JobFinishedTrigger().serialize()[1]) == {
        "job_ids", "job_names", "states", "timextender_conn_id", "poll_interval"
    }  # fmt: skip
    assert stored(JobFinishedTrigger(states=["failed"])).serialize()[1]["states"] == ["failed"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"job_name": None}, "a job id or a job name"),
        ({"job_id": OTHER, "job_name": "load"}, f"no job with the id {OTHER}"),
        ({"job_name": "Lod"}, "No job is named 'Lod'"),
        ({"trigger_id": "None"}, "'None' is not a guid"),
        ({"trigger_id": " "}, "trigger_id was given, but is ' '"),
        ({"completed_after": ""}, "completed_after was given, but is ''"),
        ({"poll_interval": "soon"}, "poll_interval is 'soon'"),
        ({"max_unreachable": 0}, "max_unreachable is 0"),
        ({"start_timeout": "x", "trigger_id": OTHER}, "start_timeout is 'x'"),
        ({"timextender_conn_id": "nowhere", "max_unreachable": 0.1}, "`nowhere` isn't defined"),
    ],
)
def test_r01_what_cannot_be_waited_for_is_told_and_not_raised(
    simulator: Simulator, arguments: dict[str, Any], says: str
) -> None:
    event = fire(trigger(**arguments))
    assert says in event["message"]
    assert event["error"] in ("InvalidInput", "Unreachable")
    assert "state" not in event


def test_an_unknown_job_is_refused_at_once(simulator: Simulator) -> None:
    event = fire(trigger(job_id=OTHER, job_name=None, trigger_id=OTHER))
    assert event["error"] == "Refused"
    assert "No such job" in event["message"]


# --- one poll for all ---


def test_the_requests_of_an_interval_do_not_depend_on_how_many_wait(crowd: Any) -> None:
    simulator = crowd(60, duration=60)
    several = wait_for_all(simulator, poll_interval=0.3)

    async def wait() -> tuple[int, int, float]:
        waiting = asyncio.create_task(all_events(several))
        await asyncio.sleep(1)  # all have looked at their log once
        before, logs, began = simulator.count("statuses"), simulator.count("execution logs"), time.monotonic()
        await asyncio.sleep(2.4)
        seen = simulator.count("statuses") - before, simulator.count("execution logs") - logs
        elapsed = time.monotonic() - began
        simulator.finish()
        assert {event.payload["state"] for event in await waiting} == {"succeeded"}
        return *seen, elapsed

    statuses, logs, elapsed = asyncio.run(wait())
    assert statuses <= elapsed / 0.3 + 1, "R19"
    assert logs <= (elapsed / 0.3 + 1) * polling.RECHECKS * 2
    assert simulator.count("status") == simulator.count("execute") == 0


def test_r21_many_that_wait_open_few_connections(crowd: Any) -> None:
    simulator = crowd(100)
    events = asyncio.run(all_events(wait_for_all(simulator, poll_interval=0.2)))
    assert [event.payload["state"] for event in events] == ["succeeded"] * 100
    # The last one may be a look that had begun when the last wait ended, carried over another connection.
    assert len({request.connection for request in list(simulator.requests)[:-1]}) <= 2


def test_how_often_a_busy_jobs_log_is_read() -> None:
    assert [polling.every(count, 5) for count in (1, 30, 31, 1000)] == [3, 3, 4, 100]
    assert [polling.every(count, 30) for count in (90, 91, 3000)] == [3, 4, 100]


def test_r09_ten_minutes_of_faults_end_no_wait(crowd: Any) -> None:
    # A hundred intervals, as ten minutes have them at six seconds each; the limits are the default ones.
    count, interval = 100, 0.1
    simulator = crowd(count, timeout=0.2, duration=100)
    route: Any = "statuses"
    faults = [
        Fault("status", status=500),
        Fault("status", status=502, body="<html>Bad gateway</html>"),
        Fault("status", status=503, retry_after="1"),
        Fault("status", status=429),
        Fault("reset"),
        Fault("silence"),
        Fault("html"),
        Fault("cut"),
    ] * 2
    simulator.fault(route, *faults)
    simulator.fault("execution logs", *faults)
    several = wait_for_all(simulator, poll_interval=interval)

    async def wait() -> list[Any]:
        waiting = asyncio.create_task(all_events(several))
        while simulator._faults[route]:
            await asyncio.sleep(0.1)
            assert not waiting.done()
        simulator.finish()
        return await waiting

    events = asyncio.run(wait())
    assert [event.payload.get("state") for event in events] == ["succeeded"] * count, events[0].payload
    assert {request.method for request in simulator.requests} == {"GET"}


def test_r19_a_server_that_errs_is_not_asked_more_often(crowd: Any) -> None:
    simulator = crowd(1, duration=60)
    simulator.fault("statuses", always=Fault("status", status=500))
    began = time.monotonic()
    event = fire(wait_for_all(simulator, poll_interval=0.2, max_unreachable=1)[0])
    assert event["error"] == "ServerError"
    assert simulator.count("statuses") <= (time.monotonic() - began) / 0.2 + 1


@pytest.mark.parametrize("route", ["statuses", "execution logs"])
def test_r09_a_retry_after_is_obeyed_while_limits_still_count(crowd: Any, route: Any) -> None:
    simulator = crowd(1)
    simulator.fault(route, Fault("status", status=429, retry_after="3600"))
    began = time.monotonic()
    event = fire(wait_for_all(simulator, timeout=1)[0])
    assert event["error"] == "WaitTimeout" if route == "statuses" else event["state"] == "succeeded"
    assert 1 <= time.monotonic() - began < 10
    assert simulator.count(route) <= 2, "asked again at the limit only"


def test_r10_a_log_that_stays_unreadable_is_no_failed_job(crowd: Any) -> None:
    simulator = crowd(1)
    simulator.fault("execution logs", always=Fault("status", status=502))
    event = fire(wait_for_all(simulator, max_unreachable=0.3)[0])
    assert (event["error"], "HTTP 502" in event["message"]) == ("ServerError", True)


def test_r11_a_trigger_that_is_rebuilt_gives_a_late_log_a_moment(crowd: Any) -> None:
    simulator = crowd(1, duration=0.1, log_lag=1, log_at_end=True)
    (one,) = wait_for_all(simulator, asked_at=ago(7200), start_timeout=600)
    assert fire(one)["state"] == "succeeded"


def test_looks_that_take_longer_than_an_interval_do_not_pile_up(crowd: Any) -> None:
    simulator = crowd(1, pickup=3600)
    simulator.fault("execution logs", always=Fault("slow", seconds=0.5))
    for route in ("status", "statuses"):
        simulator.fault(route, always=Fault("unknown word"))  # so that each look reads the log
    one = wait_for_all(simulator, timeout=2)[0]
    began = time.monotonic()
    assert fire(one)["error"] == "WaitTimeout"
    assert time.monotonic() - began < 5


def test_r18_an_answer_that_comes_in_drops_holds_nobody_up(crowd: Any) -> None:
    simulator = crowd(1, timeout=0.2, duration=60)
    simulator.fault("statuses", always=Fault("drip", seconds=0.1))
    began = time.monotonic()
    event = fire(wait_for_all(simulator, max_unreachable=1)[0])
    assert event["error"] == "Unreachable"
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("looked", [True, False])
def test_r09_what_keeps_a_poll_from_looking_is_borne_by_who_has_looked(crowd: Any, looked: bool) -> None:
    simulator = crowd(1)
    simulator.fault("statuses", Fault("wrong type"))
    event = fire(wait_for_all(simulator, known_key=looked)[0])
    assert event.get("state" if looked else "error") == ("succeeded" if looked else "ContractError")


@pytest.mark.parametrize("retry_after", ["1767225600000", "9" * 30])
def test_r09_a_senseless_retry_after_ends_no_poll(crowd: Any, retry_after: str) -> None:
    simulator = crowd(1, duration=60)
    simulator.fault("statuses", Fault("status", status=503, retry_after=retry_after))
    event = fire(wait_for_all(simulator, timeout=0.5)[0])
    assert event["error"] == "WaitTimeout"


# --- the key ---


def test_r12_a_key_that_is_changed_in_the_meantime_is_picked_up(
    crowd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = crowd(20, duration=60)
    several = wait_for_all(simulator)

    async def wait() -> list[Any]:
        waiting = asyncio.create_task(all_events(several))
        assert await comes_true(lambda: simulator.count("execution logs") >= len(several))
        simulator.api_key = "a-new-one"
        refused = len(simulator.requests)
        assert await comes_true(lambda: len(simulator.requests) >= refused + 3)
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        simulator.finish()
        return await waiting

    events = asyncio.run(wait())
    assert {event.payload.get("state") for event in events} == {"succeeded"}, events[0].payload


def test_r12_a_key_that_was_never_accepted_ends_the_wait_at_once(crowd: Any) -> None:
    simulator = crowd(1)
    simulator.api_key = "another"
    one = wait_for_all(simulator)[0]
    assert fire(one)["error"] == "Refused"
    assert simulator.count("statuses") == 1
    one.arguments.update(known_key=True, max_unreachable=0.3)
    assert fire(one)["error"] == "Refused"
    assert simulator.count("statuses") > 2, "the submission had been accepted, so it was a passing refusal"


# --- limits ---


def test_r13_r15_a_trigger_that_is_rebuilt_after_its_limit_looks_once_and_fires(crowd: Any) -> None:
    simulator = crowd(2, duration=60)
    late, over = wait_for_all(simulator, poll_interval=60, timeout=5, asked_at=ago(6))
    began = time.monotonic()
    event = asyncio.run(events_of(late))[0].payload
    assert event["error"] == "WaitTimeout"
    assert event["message"].startswith("it was not over after 5.0 s. ")
    simulator.finish()
    assert fire(over)["state"] == "succeeded", "what is over by then is no timeout"
    assert time.monotonic() - began < 10


def test_r15_execution_timeout_is_forestalled(crowd: Any) -> None:
    simulator = crowd(1, duration=60)
    deadline = datetime.now(timezone.utc) + timedelta(seconds=1)
    event = fire(wait_for_all(simulator, poll_interval=0.2, execution_deadline=deadline.isoformat())[0])
    assert datetime.now(timezone.utc) < deadline
    assert event["error"] == "ExecutionTimeout"
    assert event["message"].startswith("execution_timeout is over. ")


# --- the event loop ---


def test_r20_nothing_holds_up_the_event_loop(crowd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = crowd(20, duration=0.1)
    simulator.fault("statuses", always=Fault("slow", seconds=2))
    several = wait_for_all(simulator, poll_interval=0.5)
    if hasattr(BaseHook, "aget_connection"):

        def refuse(*_: Any, **__: Any) -> Any:
            raise AssertionError("R20: a connection is read in the way that blocks")

        monkeypatch.setattr(BaseHook, "get_connection", refuse)
    gaps: list[float] = []

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    async def wait() -> list[Any]:
        ticking = asyncio.create_task(tick())
        events = await all_events(several)
        ticking.cancel()
        return events

    events = asyncio.run(wait())
    assert {event.payload["state"] for event in events} == {"succeeded"}
    gaps.sort()
    # One in a hundred may be the machine's: what this guards against would show in every answer.
    assert gaps[int(len(gaps) * 0.99) - 1] <= 0.05, gaps[-5:]


# --- killed, moved, doubled ---


def test_r16_moving_a_trigger_sends_nothing_and_loses_nothing(crowd: Any) -> None:
    simulator = crowd(1, duration=60)
    one = wait_for_all(simulator)[0]

    async def run_for_a_while() -> list[Any]:
        events: list[Any] = []

        async def run() -> None:
            async for event in stored(one).run():
                events.append(event)

        task = asyncio.create_task(run())
        await asyncio.sleep(0.5)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled(), "the cancellation is not caught"
        return events

    assert asyncio.run(run_for_a_while()) == []
    assert {request.method for request in simulator.requests} == {"GET"}
    simulator.finish()
    assert fire(one)["state"] == "succeeded"


def test_r16_a_kill_says_that_the_job_runs_on(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobExecutionTrigger, "log", logging.getLogger("tests.trigger"), raising=False)
    one = trigger(job_id=OTHER, job_name=None, trigger_id=OTHER)
    asyncio.run(one.on_kill())
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (
        f"not stopped: the API has no way to. Its execution runs on. (trigger id {OTHER})"
        in record.getMessage()
    )
    assert simulator.requests == []


def test_r27_two_copies_side_by_side_tell_the_same(crowd: Any) -> None:
    simulator = crowd(1)
    one = wait_for_all(simulator)[0]

    async def both() -> list[Any]:
        return await all_events([stored(one), stored(one)])

    first, second = asyncio.run(both())
    assert first.payload == second.payload
    assert first.payload["state"] == "succeeded"


# --- the end of the task ---


class DeferredTask:
    """What a triggerer knows of a task."""

    dag_id, task_id, run_id, map_index = "d", "t", "r", 3

    def __init__(self, try_number: int = 1) -> None:
        self.try_number = try_number


def ended_by(one: JobExecutionTrigger, try_number: int = 1) -> Any:
    known: Any = DeferredTask(try_number)
    one.task_instance = known
    (event,) = asyncio.run(_own(one))
    return event


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The XComs of the task that is deferred."""
    from airflow.sdk.execution_time.xcom import XCom

    pushed: dict[str, Any] = {}

    def push(*, key: str, value: Any, **of: Any) -> None:
        assert of == {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": 3}
        pushed[key] = json.loads(json.dumps(value))

    monkeypatch.setattr(XCom, "set", push)
    monkeypatch.setattr(XCom, "get_one", lambda *, key, **of: pushed.get(key))
    return pushed


@ends_tasks
@pytest.mark.parametrize("end_with", ["trigger_id", "result", "nothing", None])
def test_a_success_ends_the_task_where_a_triggerer_runs(
    simulator: Simulator, xcoms: dict[str, Any], end_with: Any
) -> None:
    execution = simulator.run("load")
    event = ended_by(trigger(trigger_id=execution.trigger_id, end_with=end_with))
    assert isinstance(event, TaskSuccessEvent) is (end_with is not None)
    if end_with in (None, "nothing"):
        assert "return_value" not in xcoms
    else:
        result = xcoms["return_value"]
        returned = result if end_with == "trigger_id" else result["trigger_id"]
        assert returned == execution.trigger_id
    plain = trigger(trigger_id=execution.trigger_id, end_with=end_with)
    assert fire(plain)["state"] == "succeeded", "dag.test() cannot end a task from a trigger"


@ends_tasks
@pytest.mark.parametrize(("try_number", "times"), [(1, 1), (2, 2)])
def test_r32_a_cleared_task_that_a_triggerer_starts_shows_the_log_again(
    simulator: Simulator,
    xcoms: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    try_number: int,
    times: int,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(JobExecutionTrigger, "log", logging.getLogger("tests.task"), raising=False)
    execution = simulator.run("load")
    for number in (1, try_number):
        ended_by(trigger(trigger_id=execution.trigger_id, end_with="nothing"), number)
    lines = [text for text in caplog.messages if text.startswith("TimeXtender: ")]
    assert len(lines) == times * len(execution.lines) > 0


@ends_tasks
def test_a_result_that_cannot_be_pushed_is_left_to_a_worker(simulator: Simulator, mocker: Any) -> None:
    mocker.patch("airflow.sdk.execution_time.xcom.XCom.set", side_effect=OSError("no space"))
    event = ended_by(trigger(trigger_id=simulator.run("load").trigger_id, end_with="result"))
    assert event.payload["state"] == "succeeded"


@ends_tasks
@pytest.mark.parametrize("end_with", ["trigger_id", "result", "nothing"])
def test_r42_a_wait_that_began_before_a_listener_was_installed_ends_on_a_worker(
    simulator: Simulator, xcoms: dict[str, Any], listen: Callable[[str], None], end_with: Any
) -> None:
    listen("on_task_instance_success")
    event = ended_by(trigger(trigger_id=simulator.run("load").trigger_id, end_with=end_with))
    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["state"] == "succeeded"
    assert "return_value" not in xcoms, "a worker pushes it"


def test_a_failure_resumes_the_task(simulator: Simulator) -> None:
    simulator.job("load").outcome = "failed"
    event = ended_by(trigger(trigger_id=simulator.run("load").trigger_id, end_with="trigger_id"))
    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["error"] == "JobFailed"


# --- what the task's log shows ---


def test_r31_r32_the_executions_log_is_shown_once_at_its_own_level(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobExecutionTrigger, "log", logging.getLogger("tests.trigger"), raising=False)
    simulator.job("load").outcome = "failed"
    fire(trigger(trigger_id=simulator.run("load").trigger_id))
    shown = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "tests.trigger"]
    assert len([1 for level, text in shown if level == "ERROR" and "Invalid column name" in text]) == 1
    assert len([1 for level, text in shown if level == "WARNING" and "were truncated" in text]) == 1
    assert len([1 for _, text in shown if text.endswith("is running.")]) <= 2, "on change only"


def shown_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = (record.getMessage() for record in caplog.records if record.name == "tests.trigger")
    return [text.partition("] ")[2] for text in texts if text.startswith("TimeXtender: ")]


@ends_tasks
def test_r32_a_trigger_that_takes_over_shows_only_what_is_new(
    simulator: Simulator,
    xcoms: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(JobExecutionTrigger, "log", logging.getLogger("tests.trigger"), raising=False)
    job = simulator.job("load")
    job.duration, job.lines = 1.5, 12
    execution = simulator.run("load")
    waits = trigger(trigger_id=execution.trigger_id, poll_interval=0.05, end_with="nothing")

    async def die_after(count: int) -> None:
        one = stored(waits)
        one.task_instance = DeferredTask()
        waiting = asyncio.create_task(events_of(one))
        assert await comes_true(lambda: xcoms.get(SHOWN_KEY, {}).get("count", 0) >= count, pause=0.01)
        waiting.cancel()

    for count in (2, 4):
        asyncio.run(die_after(count))
    assert 4 <= len(shown_lines(caplog)) < job.lines
    ended_by(stored(waits))
    assert shown_lines(caplog) == [line.message for line in execution.lines]
    assert xcoms[SHOWN_KEY]["count"] == len(execution.lines)


def test_r32_a_trigger_goes_on_where_the_worker_has_stopped(
    simulator: Simulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobExecutionTrigger, "log", logging.getLogger("tests.trigger"), raising=False)
    execution = simulator.run("load")
    assert asyncio.run(comes_true(lambda: execution.state(time.time()) == "running"))
    (before,) = TimeXtenderHook().get_job_logs(execution.job.id, execution.trigger_id)
    shown = Shown(before.key).after(before.logs, left_out=0)
    fire(trigger(trigger_id=execution.trigger_id, shown=shown.to_dict()))
    assert shown_lines(caplog) == [line.message for line in execution.lines][len(before.logs) :]
