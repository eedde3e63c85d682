"""The watcher of an asset, as a triggerer runs it: stopped, killed, and started again."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import Any

import pytest
import requests
from aiohttp import web

from airflow_provider_timextender import jobs_api, polling, verdict, watching
from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.simulator import BLANK_TRIGGER_ID, Dialect, Execution, Fault, Job, Simulator
from airflow_provider_timextender.simulator.server import ROUTES
from airflow_provider_timextender.triggers import JobFinishedTrigger

from ..conftest import API_KEY
from ..waiting import comes_true
from .running import SHARES, stored

OTHER = "11111111-1111-1111-1111-111111111111"
shares = pytest.mark.skipif(not SHARES, reason="before Airflow 3.3 nothing is remembered")


@pytest.fixture
def organisation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Simulator]]:
    """Make a simulator with many quick jobs behind the default connection."""
    made: list[Simulator] = []

    def make(count: int, **more: Any) -> Simulator:
        jobs = [Job(f"job {number}", pickup=0, duration=0) for number in range(count)]
        simulator = Simulator(jobs, api_key=API_KEY, **more)
        made.append(simulator.__enter__())
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        return simulator

    yield make
    for simulator in made:
        simulator.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def _log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobFinishedTrigger, "log", logging.getLogger("tests.watcher"), raising=False)


def space(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(sys.modules[JobFinishedTrigger.__module__], "SPACING", seconds)


@pytest.fixture
def _close_together(monkeypatch: pytest.MonkeyPatch) -> None:
    space(monkeypatch, 0.01)


close_together = pytest.mark.usefixtures("_close_together")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "tests.watcher"]


def answer(simulator: Simulator, with_what: Callable[[Job, list[Execution]], web.Response | None]) -> None:
    """Let logs answer something else; ``None`` stands for what is right."""
    right = type(simulator.world).log

    class Answer(web.HTTPException):
        """A response, as the server lets one through from deep within."""

        status_code = 200

        def __init__(self, response: web.Response) -> None:
            self.status_code = response.status
            headers = {name: value for name, value in response.headers.items() if name == "Retry-After"}
            super().__init__(text=response.text, headers=headers)

    def log(job: Job, *arguments: Any, **more: Any) -> list[Execution]:
        executions = right(simulator.world, job, *arguments, **more)
        other = with_what(job, executions)
        if other is not None:
            raise Answer(other)
        return executions

    simulator.world.log = log  # type: ignore[method-assign]


def spoil(simulator: Simulator, name: str, body: str, status: int = 200) -> None:
    """Let the log of one job answer something else."""
    spoilt = web.Response(text=body, status=status)
    answer(simulator, lambda job, _: spoilt if job.name == name else None)


def heal(simulator: Simulator) -> None:
    answer(simulator, lambda *_: None)


def logs_read(simulator: Simulator, name: str) -> int:
    return sum(
        request.path.endswith(f"{simulator.job(name).id}/logs") for request in list(simulator.requests)
    )


def read_log(simulator: Simulator, name: str) -> bytes:
    path = ROUTES["logs"][1].format(job_id=simulator.job(name).id)
    return requests.get(simulator.url + path, headers={"x-api-key": API_KEY}, timeout=10).content


class Store:
    """An asset's state store, as far as it is used."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def aget(self, key: str) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else None

    async def aset(self, key: str, value: Any) -> None:
        self.kept[key] = json.dumps(value)


class Watcher:
    """A triggerer with one watcher, which can be started again."""

    def __init__(self, simulator: Simulator, **arguments: Any) -> None:
        self.store = Store()
        self.queue = 1024
        self.read_when_told: list[int] = []
        self._simulator = simulator
        self._arguments = {"poll_interval": 0.05, **arguments}

    def begin(self) -> list[Any]:
        """Watch until each log has been read, and a little longer."""
        names = [job.name for job in self._simulator.world.jobs.values()]
        return self.watch(lambda _: all(logs_read(self._simulator, name) for name in names))

    def watch(self, until: Callable[[list[Any]], bool], *, stored_too: bool = True) -> list[Any]:
        """Watch until the payloads told are enough, and stop as a triggerer does that is killed."""
        told = asyncio.run(self._watch(until, stored_too))
        # What is under way then arrives all the same, and is not to be taken for the next watcher's.
        for thread in threading.enumerate():
            if "exchange" in thread.name:
                thread.join(10)
        return told

    async def _watch(self, until: Callable[[list[Any]], bool], stored_too: bool) -> list[Any]:
        one = stored(JobFinishedTrigger(**self._arguments))
        one.asset_state_store = self.store
        told: list[Any] = []
        key = one.shared_stream_key()
        manager = import_module("airflow.triggers.shared_stream").SharedStreamManager(
            max_subscriber_queue=self.queue
        )
        stream: AsyncIterator[Any] = manager.subscribe(trigger_id=1, trigger=one, key=key)

        async def run() -> None:
            async for event in one.filter_shared_stream(stream):
                told.append(event.payload)
                self.read_when_told.append(self._simulator.count("logs"))
                seq = manager.bind_pending_event(trigger_id=1, key=key)
                if stored_too:
                    manager.confirm_persisted([seq])

        task = asyncio.create_task(run())
        end = time.monotonic() + 10
        while not until(told):
            await asyncio.sleep(0.02)
            assert not task.done(), task.exception()
            assert time.monotonic() < end, told
        await asyncio.sleep(0.3)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await manager.unsubscribe(1, key)
        return told


def ids(events: list[Any]) -> list[str]:
    return [event["trigger_id"] for event in events]


# --- each once ---


@shares
@close_together
def test_r16_each_execution_that_finishes_is_told_once_through_restarts(organisation: Any) -> None:
    simulator = organisation(3)
    before = simulator.run("job 0")
    watcher = Watcher(simulator)
    assert watcher.begin() == [], f"{before.trigger_id} is history"
    first = [simulator.run("job 0"), simulator.run("job 0", by="hand"), simulator.run("job 1")]
    told = watcher.watch(lambda told: len(told) >= 3)
    second = simulator.run("job 2")
    told += watcher.watch(lambda told: len(told) >= 1)
    told += watcher.watch(lambda _: True)
    assert sorted(ids(told)) == sorted(e.trigger_id for e in [*first, second])
    assert BLANK_TRIGGER_ID in ids(told)
    assert {e["state"] for e in told} == {"succeeded"}
    assert {"job_id", "trigger_id", "state", "start", "end", "duration"} <= set(told[0])
    assert {(e["job_name"], e["message"], e["problem"]) for e in told} == {
        (f"job {number}", "Job completed.", None) for number in range(3)
    }


@shares
@close_together
@pytest.mark.parametrize("fault", [None, Fault("status", status=503)], ids=["named", "no names"])
def test_r49_a_watcher_tells_the_name_and_bears_that_there_is_none(
    organisation: Any, fault: Fault | None
) -> None:
    simulator = organisation(2)
    watcher = Watcher(simulator, poll_interval=0.5)
    if fault:
        simulator.fault("jobs", always=fault)
    watcher.begin()
    executions = [simulator.run("job 0"), simulator.run("job 1")]
    asked, began = simulator.count("jobs"), time.monotonic()
    told = watcher.watch(lambda told: len(told) >= 2)
    assert sorted(ids(told)) == sorted(e.trigger_id for e in executions)
    assert sorted(str(e["job_name"]) for e in told) == (["None"] * 2 if fault else ["job 0", "job 1"])
    most = (time.monotonic() - began) / 0.5 + 1 if fault else 1
    assert 1 <= simulator.count("jobs") - asked <= most, "once, or once an interval at most"


@shares
@close_together
def test_r16_what_airflow_has_not_stored_is_told_again(organisation: Any) -> None:
    simulator = organisation(1)
    watcher = Watcher(simulator)
    watcher.begin()
    execution = simulator.run("job 0")
    lost = watcher.watch(lambda told: bool(told), stored_too=False)
    again = watcher.watch(lambda told: bool(told))
    assert ids(lost) == ids(again) == [execution.trigger_id]


@shares
def test_r16_what_has_been_stored_is_not_told_again_when_more_is_still_to_tell(
    organisation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    space(monkeypatch, 0.5)
    simulator = organisation(1)
    watcher = Watcher(simulator, poll_interval=1)
    watcher.begin()
    several = [simulator.run("job 0").trigger_id for _ in range(3)]
    told = watcher.watch(lambda told: bool(told))
    assert len(told) == 1, "the others have not had their turn"
    told += watcher.watch(lambda told: len(told) >= 2)
    assert ids(told) == several


@shares
@close_together
def test_only_the_jobs_and_ends_that_are_asked_for_are_told(organisation: Any) -> None:
    simulator = organisation(3)
    watcher = Watcher(simulator, job_names=["job 0"], job_ids=[simulator.job("job 1").id], states=["failed"])
    watcher.watch(lambda _: bool(logs_read(simulator, "job 0") and logs_read(simulator, "job 1")))
    simulator.run("job 0")
    for name in ("job 0", "job 1", "job 2"):
        simulator.job(name).outcome = "failed"
        simulator.run(name)
    told = watcher.watch(lambda told: len(told) >= 2)
    assert {e["job_id"] for e in told} == {simulator.job("job 0").id, simulator.job("job 1").id}
    assert {e["state"] for e in told} == {"failed"}


@shares
def test_events_are_told_at_a_distance(organisation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    space(monkeypatch, 0.4)
    simulator = organisation(1)
    watcher = Watcher(simulator)
    watcher.begin()
    for _ in range(3):
        simulator.run("job 0")
    moments: list[float] = []

    def enough(told: list[Any]) -> bool:
        moments.extend([time.monotonic()] * (len(told) - len(moments)))
        return len(told) == 3

    watcher.watch(enough)
    assert moments[1] - moments[0] > 0.3
    assert moments[2] - moments[1] > 0.3


@shares
@close_together
def test_two_that_watch_the_same_jobs_share_the_reads_and_each_tells(organisation: Any) -> None:
    simulator = organisation(2)
    first, second = (
        JobFinishedTrigger(poll_interval=0.1, states=[state]) for state in ("succeeded", "failed")
    )
    assert first.shared_stream_key() == second.shared_stream_key()

    async def both() -> dict[str, list[Any]]:
        manager = import_module("airflow.triggers.shared_stream").SharedStreamManager()
        key = first.shared_stream_key()
        told: dict[str, list[Any]] = {"succeeded": [], "failed": []}

        async def run(number: int, one: Any) -> None:
            stream = manager.subscribe(trigger_id=number, trigger=one, key=key)
            async for event in one.filter_shared_stream(stream):
                told[one.states[0]].append(event.payload["job_id"])
                manager.confirm_persisted([manager.bind_pending_event(trigger_id=number, key=key)])

        tasks = [asyncio.create_task(run(number, one)) for number, one in enumerate((first, second))]
        assert await comes_true(lambda: simulator.count("logs") >= 4)
        simulator.job("job 0").outcome = "failed"
        simulator.run("job 0")
        simulator.run("job 1")
        await comes_true(lambda: all(told.values()), 10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await manager.stop_all()
        return told

    told = asyncio.run(both())
    assert told == {"failed": [simulator.job("job 0").id], "succeeded": [simulator.job("job 1").id]}


def test_before_airflow_3_3_jobs_are_watched_without_a_memory(organisation: Any) -> None:
    simulator = organisation(1)

    async def first() -> Any:
        events = JobFinishedTrigger(poll_interval=0.05).run()
        asking = asyncio.ensure_future(anext(events))
        assert await comes_true(lambda: simulator.count("logs") >= 2), "what the first one shows is history"
        simulator.run("job 0")
        return (await asyncio.wait_for(asking, 10)).payload

    assert asyncio.run(first())["state"] == "succeeded"


# --- one job's log is that job's affair ---

ANSWERS = {
    "500": ("{}", 500),
    "503": ("The service is unavailable.", 503),
    "403": ("{}", 403),
    "404": ("{}", 404),
    "429": ("{}", 429),
    "cut": ('[{"TriggerId": "7d44', 200),
    "web page": ("<html>Please sign in.</html>", 200),
    "another shape": ('{"executions": []}', 200),
}


@shares
@close_together
@pytest.mark.parametrize("spoilt", ANSWERS.values(), ids=ANSWERS)
def test_r09_one_jobs_error_is_said_once_and_the_others_are_told(
    organisation: Any, caplog: pytest.LogCaptureFixture, spoilt: tuple[str, int]
) -> None:
    simulator = organisation(3)
    bad = simulator.job("job 0").id
    watcher = Watcher(simulator)
    watcher.begin()
    spoil(simulator, "job 0", *spoilt)
    others = [simulator.run("job 1").trigger_id, simulator.run("job 2").trigger_id]
    before = logs_read(simulator, "job 0")
    caplog.clear()
    told = watcher.watch(lambda told: len(told) >= 2 and logs_read(simulator, "job 0") >= before + 2)
    assert sorted(ids(told)) == sorted(others)
    said = [text for text in warnings(caplog) if f"job {bad}: its log cannot be read" in text]
    assert len(said) == 1
    assert f"HTTP {spoilt[1]}" in said[0]


@shares
@close_together
def test_r09_a_log_that_can_be_read_again_is_told_with_all_that_ended_meanwhile(
    organisation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = organisation(2)
    watcher = Watcher(simulator)
    watcher.begin()
    spoil(simulator, "job 0", "{}", 500)
    missed = simulator.run("job 0").trigger_id
    before = logs_read(simulator, "job 0")

    def heal_in_time(told: list[Any]) -> bool:
        if logs_read(simulator, "job 0") >= before + 2:
            heal(simulator)
        return bool(told)

    assert ids(watcher.watch(heal_in_time)) == [missed]
    assert any("its log can be read again" in text for text in warnings(caplog))
    assert not any("is not told." in text for text in warnings(caplog) if "ended before" in text)


@shares
@close_together
def test_r17_what_ended_before_a_log_could_first_be_read_is_history_and_that_is_said(
    organisation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = organisation(1)
    watcher = Watcher(simulator)
    spoil(simulator, "job 0", "{}", 500)
    simulator.run("job 0")
    watcher.begin()
    heal(simulator)
    watcher.watch(lambda _: logs_read(simulator, "job 0") >= 4)
    assert not any("ended before" in text for text in warnings(caplog)), "this watcher knows of no trouble"
    execution = simulator.run("job 0")
    assert ids(watcher.watch(lambda told: bool(told))) == [execution.trigger_id]

    late = Watcher(simulator)
    spoil(simulator, "job 0", "{}", 500)
    before = logs_read(simulator, "job 0")

    def heal_in_time(_: list[Any]) -> bool:
        if logs_read(simulator, "job 0") >= before + 1:
            heal(simulator)
        return logs_read(simulator, "job 0") >= before + 3

    assert late.watch(heal_in_time) == []
    assert len([text for text in warnings(caplog) if "what ended before this look is not told" in text]) == 1


@shares
@close_together
def test_r41_a_log_that_is_too_large_is_asked_for_once(
    organisation: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_api, "STREAM_LIMIT", 20_000)
    simulator = organisation(2)
    simulator.job("job 0").lines = 1000
    simulator.run("job 0")
    watcher = Watcher(simulator)

    def look_often(told: list[Any]) -> bool:
        if logs_read(simulator, "job 1") == 2:
            simulator.run("job 1")
        return bool(told) and logs_read(simulator, "job 1") >= 6

    assert {event["job_id"] for event in watcher.watch(look_often)} == {simulator.job("job 1").id}
    assert logs_read(simulator, "job 0") == 1
    (said,) = [text for text in warnings(caplog) if simulator.job("job 0").id in text]
    assert "not asked for before this watcher is started anew" in said
    assert "have old executions removed" in said


@shares
@close_together
def test_r09_a_retry_after_of_one_log_delays_that_log_only(organisation: Any) -> None:
    simulator = organisation(2)
    watcher = Watcher(simulator)
    watcher.begin()
    again_in_an_hour = {"Retry-After": "3600"}
    answer(
        simulator,
        lambda job, _: web.Response(status=503, headers=again_in_an_hour) if job.name == "job 0" else None,
    )
    before = logs_read(simulator, "job 0")
    again = logs_read(simulator, "job 1")
    execution = simulator.run("job 1")
    told = watcher.watch(lambda told: bool(told) and logs_read(simulator, "job 1") >= again + 4)
    assert ids(told) == [execution.trigger_id]
    assert logs_read(simulator, "job 0") == before + 1


@shares
@close_together
def test_r38_a_job_that_does_not_exist_is_said_and_hides_no_other(
    organisation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = organisation(1)
    watcher = Watcher(simulator, job_ids=[OTHER, simulator.job("job 0").id])
    watcher.begin()
    execution = simulator.run("job 0")
    (told,) = watcher.watch(lambda told: bool(told))
    assert told["trigger_id"] == execution.trigger_id
    assert any(OTHER in text and "No such job" in text for text in warnings(caplog))


@shares
@close_together
def test_a_single_404_makes_no_news_of_a_history(organisation: Any) -> None:
    simulator = organisation(1)
    simulator.run("job 0")
    simulator.fault("logs", Fault("status", status=404))
    watcher = Watcher(simulator)
    assert watcher.watch(lambda _: logs_read(simulator, "job 0") >= 4) == []


@shares
@close_together
def test_a_key_that_is_refused_for_all_is_said_once(
    organisation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = organisation(3)
    simulator.api_key = "another"
    Watcher(simulator).watch(lambda _: simulator.count("statuses") >= 3)
    assert simulator.count("logs") == 0
    (said,) = warnings(caplog)
    assert "The API key was refused" in said


@shares
@close_together
def test_the_jobs_are_watched_through_faults_and_few_logs_are_read(organisation: Any) -> None:
    simulator = organisation(50)
    watcher = Watcher(simulator, poll_interval=0.1)
    watcher.begin()
    simulator.fault("statuses", Fault("reset"), Fault("html"))
    simulator.fault("logs", Fault("status", status=503))
    simulator.requests.clear()
    simulator.run("job 7")
    told = watcher.watch(lambda told: bool(told))
    assert len(told) == 1
    intervals = simulator.count("statuses")
    assert simulator.count("logs") <= 2 * 50 + intervals * polling.RECHECKS * 2


@shares
@close_together
def test_r44_an_end_costs_two_reads_of_that_log_and_idle_jobs_none(
    organisation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "SWEEP_RATE", 0.01)
    monkeypatch.setattr(watching, "LOG_LAG", 0.5)
    simulator = organisation(20)
    job = simulator.job("job 7")
    job.pickup, job.duration = 0.3, 0.3

    def run_when_all_are_known(told: list[Any]) -> bool:
        if simulator.count("logs") == 40 and not ran:
            ran.append(simulator.run("job 7"))
        return bool(told) and logs_read(simulator, "job 7") == 4

    ran: list[Execution] = []
    told = Watcher(simulator).watch(run_when_all_are_known)
    assert ids(told) == [ran[0].trigger_id]
    # Each twice when it is seen for the first time, and that one twice when its job has become idle.
    assert simulator.count("logs") == 2 * 20 + 2
    assert simulator.count("statuses") > 20


@shares
@close_together
def test_r44_what_begins_and_ends_between_two_looks_is_found_by_a_slow_sweep(
    organisation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "SWEEP_RATE", 0.01)
    monkeypatch.setattr(verdict, "SWEEP_AFTER", 2.0)
    monkeypatch.setattr(watching, "LOG_LAG", 0.1)
    simulator = organisation(10)
    moments: list[float] = []

    def run_when_all_are_known(told: list[Any]) -> bool:
        if simulator.count("logs") == 20 and not moments:
            moments.append(time.monotonic())
            simulator.run("job 3")
        return bool(told)

    (told,) = Watcher(simulator).watch(run_when_all_are_known)
    assert told["job_id"] == simulator.job("job 3").id
    assert time.monotonic() - moments[0] < 2 * 1.5 + 1
    assert simulator.count("logs") <= 3 * 10 + 10, "spread over the time"


@shares
def test_r27_what_begins_and_ends_while_others_are_told_is_found_by_its_status(
    organisation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "SWEEP_RATE", 0.01)
    monkeypatch.setattr(watching, "LOG_LAG", 0.2)
    space(monkeypatch, 0.3)
    simulator = organisation(8)
    for number in range(6):
        simulator.job(f"job {number}").duration = 0.4
    simulator.job("job 7").duration = 0.4
    ran: list[Execution] = []

    def run_while_others_are_told(told: list[Any]) -> bool:
        if simulator.count("logs") == 2 * 8 and not ran:
            ran.extend(simulator.run(f"job {number}") for number in range(6))
        if len(told) == 2 and len(ran) == 6:
            ran.append(simulator.run("job 7"))
        return len(told) == 7

    told = Watcher(simulator).watch(run_while_others_are_told)
    assert sorted(ids(told)) == sorted(execution.trigger_id for execution in ran)


@shares
@close_together
@pytest.mark.parametrize("etags", [False, True])
def test_r44_where_the_server_has_etags_a_log_is_sent_again_only_if_it_has_changed(
    organisation: Any, etags: bool
) -> None:
    simulator = organisation(2, etags=etags)
    simulator.past("job 0")
    ran: list[Execution] = []

    def run_after_some_looks(told: list[Any]) -> bool:
        reads = logs_read(simulator, "job 0")
        if reads >= 10 and not ran:
            ran.append(simulator.run("job 0"))
        return bool(told) and reads >= 20

    told = Watcher(simulator).watch(run_after_some_looks)
    assert ids(told) == [ran[0].trigger_id]
    answers = [len(read_log(simulator, name)) for name in ("job 0", "job 1")]
    reads = simulator.count("logs") - 2
    sent = simulator.sent["logs"] - sum(answers)
    assert sent <= 2 * sum(answers) if etags else sent > reads * min(answers)


@shares
@close_together
def test_r44_what_has_no_end_is_told_also_where_its_log_is_not_sent_again(organisation: Any) -> None:
    simulator = organisation(1, etags=True)
    simulator.dialect = Dialect(end_on="nowhere")
    watcher = Watcher(simulator)
    watcher.begin()
    execution = simulator.run("job 0")
    assert ids(watcher.watch(lambda told: bool(told))) == [execution.trigger_id]


@shares
@close_together
@pytest.mark.parametrize("etags", [False, True])
def test_r27_a_watcher_that_comes_to_others_is_shown_all_logs(
    organisation: Any, monkeypatch: pytest.MonkeyPatch, etags: bool
) -> None:
    monkeypatch.setattr(verdict, "SWEEP_RATE", 0.01)
    monkeypatch.setattr(watching, "LOG_LAG", 0)
    simulator = organisation(3, etags=etags)
    first, second = (JobFinishedTrigger(poll_interval=0.1, states=[s]) for s in ("succeeded", "failed"))

    async def both() -> list[Any]:
        manager = import_module("airflow.triggers.shared_stream").SharedStreamManager()
        key = first.shared_stream_key()
        told: list[Any] = []

        async def run(number: int, one: Any) -> None:
            stream = manager.subscribe(trigger_id=number, trigger=one, key=key)
            async for event in one.filter_shared_stream(stream):
                told.append(event.payload)
                manager.confirm_persisted([manager.bind_pending_event(trigger_id=number, key=key)])

        tasks = [asyncio.create_task(run(0, first))]
        assert await comes_true(lambda: simulator.count("logs") >= 3)
        await asyncio.sleep(0.5)
        assert simulator.count("logs") == 3, "nothing has changed"
        tasks.append(asyncio.create_task(run(1, second)))
        assert await comes_true(lambda: simulator.count("logs") >= 6, 5)
        await asyncio.sleep(0.5)
        assert simulator.count("logs") == 6
        job = simulator.job("job 1")
        job.outcome, job.duration = "failed", 0.3
        simulator.run("job 1")
        await comes_true(lambda: bool(told), 10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await manager.stop_all()
        return told

    assert [event["state"] for event in asyncio.run(both())] == ["failed"]


# --- job by job ---


@shares
@close_together
def test_what_one_log_shows_is_told_before_the_next_is_read(organisation: Any) -> None:
    simulator = organisation(20)
    watcher = Watcher(simulator)
    watcher.begin()
    simulator.run("job 0")
    simulator.requests.clear()
    watcher.watch(lambda told: bool(told))
    assert watcher.read_when_told == [1], "of twenty"


@shares
@close_together
def test_no_more_than_one_log_waits_to_be_told(organisation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    space(monkeypatch, 0.05)
    simulator = organisation(30)
    watcher = Watcher(simulator)
    watcher.queue = 1
    watcher.begin()
    several = [simulator.run(f"job {number}").trigger_id for number in range(30)]
    assert ids(watcher.watch(lambda told: len(told) >= 30)) == several


# --- history is what the first look shows, whatever the clocks say ---


def set_clock(simulator: Simulator, ahead: float, form: str) -> None:
    """Let a server's clock be ahead, and let it write times in its own way."""

    def written(job: Job, executions: list[Execution]) -> web.Response:
        def time_of(moment: float) -> str:
            return datetime.fromtimestamp(moment + ahead, timezone.utc).strftime(form)

        return web.json_response(
            [
                {
                    "TriggerId": execution.trigger_id,
                    "State": "Success",
                    "StartTime": time_of(execution.started),
                    "EndTime": time_of(execution.ended),
                    "Logs": [],
                }
                for execution in executions
            ]
        )

    answer(simulator, written)


UTC, LOCAL = "%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%S.%f"
CLOCKS = {
    "3 h behind": (-3, UTC),
    "3 h ahead": (3, UTC),
    "local times west of UTC": (-8, LOCAL),
    "local times east of UTC": (12, LOCAL),
}


@shares
@close_together
@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
def test_r27_what_ends_after_the_first_look_is_told_whatever_the_clock_says(
    organisation: Any, clock: tuple[float, str]
) -> None:
    simulator = organisation(2)
    set_clock(simulator, clock[0] * 3600, clock[1])
    for name in ("job 0", "job 0", "job 1"):
        simulator.run(name)
    watcher = Watcher(simulator)
    assert watcher.begin() == [], "all of that is history"
    news = [simulator.run("job 0").trigger_id, simulator.run("job 1").trigger_id]
    told = watcher.watch(lambda told: len(told) >= 2)
    news.append(simulator.run("job 0").trigger_id)
    told += watcher.watch(lambda told: bool(told))
    told += watcher.watch(lambda _: True)
    assert sorted(ids(told)) == sorted(news)


@shares
@close_together
@pytest.mark.parametrize("runs_first", [True, False])
def test_r01_r27_a_word_that_is_set_before_the_end_is_not_told_before(
    organisation: Any, runs_first: bool
) -> None:
    simulator = organisation(1)
    simulator.dialect = Dialect(unfinished_state="succeeded")
    job = simulator.job("job 0")
    before = simulator.run("job 0").trigger_id
    simulator.finish()
    job.pickup, job.duration, job.outcome = 0.0, 0.8, "failed"
    watcher = Watcher(simulator)
    if runs_first:
        ours = simulator.run("job 0").trigger_id
        assert watcher.begin() == []
    else:
        assert watcher.begin() == []
        ours = simulator.run("job 0").trigger_id
    told = watcher.watch(lambda told: bool(told))
    assert [(event["trigger_id"], event["state"]) for event in told] == [(ours, "failed")]
    assert before not in ids(told)


@shares
@close_together
def test_r17_times_that_cannot_be_read_are_said_once_a_job_and_their_executions_told_once(
    organisation: Any, caplog: pytest.LogCaptureFixture
) -> None:
    simulator = organisation(1)
    set_clock(simulator, 0, "on day %j at %H:%M:%S.%f")
    simulator.run("job 0")
    watcher = Watcher(simulator)
    assert watcher.begin() == []
    news = [simulator.run("job 0").trigger_id, simulator.run("job 0", by="hand").trigger_id]
    caplog.clear()
    told = watcher.watch(lambda told: len(told) >= 2)
    assert sorted(ids(told)) == sorted(news)
    (said,) = warnings(caplog)
    assert "is no time that is understood" in said.replace("which ", "")
    assert watcher.watch(lambda _: True) == []


@shares
@close_together
def test_r39_what_0_1_0_has_remembered_goes_on(organisation: Any) -> None:
    simulator = organisation(2)
    before, told_already, by_hand = (simulator.run("job 0", by=by) for by in ("schedule", "schedule", "hand"))
    missed = simulator.run("job 1")

    def end(execution: Execution) -> datetime:
        return datetime.fromtimestamp(execution.ended, timezone.utc)

    names = {
        told_already.trigger_id: told_already,
        f"{by_hand.job.id} {end(by_hand)} {end(by_hand)}": by_hand,
    }
    remembered = {
        "since": (end(before) + timedelta(microseconds=5)).isoformat(),
        "ends": {name: end(execution).isoformat() for name, execution in names.items()},
    }
    watcher = Watcher(simulator)
    watcher.store.kept["timextender_told"] = json.dumps(remembered)
    told = watcher.watch(lambda told: bool(told))
    later = simulator.run("job 0")
    told += watcher.watch(lambda told: bool(told))
    assert ids(told) == [missed.trigger_id, later.trigger_id]


def test_r39_a_watcher_is_stored_as_0_1_0_has_stored_it() -> None:
    one = JobFinishedTrigger(states=["failed"])
    assert one.serialize() == (
        "airflow_provider_timextender.triggers.JobFinishedTrigger",
        {
            "job_ids": None,
            "job_names": None,
            "states": ["failed"],
            "timextender_conn_id": "timextender_default",
            "poll_interval": 60,
        },
    )
    assert stored(one).serialize() == one.serialize()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"job_ids": ["x"]}, "'x' is not a guid"),
        ({"states": ["done"]}, "states has"),
        ({"poll_interval": 0}, "poll_interval is 0"),
    ],
)
def test_a_watcher_that_cannot_work_is_refused_where_it_is_written(
    arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        JobFinishedTrigger(**arguments)
