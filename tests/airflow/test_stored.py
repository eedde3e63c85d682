"""What earlier releases have stored outside of their processes goes on with this one.

``stored/make.py`` has written it down while it ran the releases. Each sample is put back as Airflow keeps it,
into a world as it was at that moment, and has to come to the right end there. Nothing of the package is used
here but what Airflow and a DAG use.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, TaskDeferred

from airflow_provider_timextender.simulator import Fault, Job, Simulator

from .stored.make import (
    RETRIES,
    Store,
    TaskInstance,
    absolute,
    context_of,
    event_of,
    task_of,
    trigger_of,
    watch,
)

SHARES = find_spec("airflow.triggers.shared_stream") is not None
needs_store = pytest.mark.skipif(
    not SHARES, reason="before Airflow 3.3 nothing of a task survives its process"
)

SAMPLES: dict[str, Any] = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent / "stored").glob("*.json"))
}
SUBMISSION, STATE = "timextender_submission", "timextender_execution"

Restore = Callable[..., tuple[Simulator, Any]]


def each(*keys: str) -> list[Any]:
    """Return each release with each of its samples of a kind."""
    return [
        pytest.param(release, name, id=f"{release}: {name}")
        for release, sample in SAMPLES.items()
        for key in keys
        for name in sample[key]
    ]


@pytest.fixture
def restore(monkeypatch: pytest.MonkeyPatch) -> Iterator[Restore]:
    """Let the world be as it was when a sample was taken, and return both as of now."""
    made: list[Simulator] = []

    def make(sample: Any, *, ago: float = 0) -> tuple[Simulator, Any]:
        now = datetime.now(timezone.utc) - timedelta(seconds=ago)
        sample = absolute(sample, now)
        world = sample.get("world") or {"jobs": [{"name": "load"}], "executions": []}
        simulator = Simulator([Job(**job) for job in world["jobs"]]).__enter__()
        made.append(simulator)
        for one in world["executions"]:
            put(simulator, one)
        if "log" in sample:
            simulator.fault("logs", always=Fault("body", body=json.dumps(sample["log"])))
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        for job in simulator.world.jobs.values():
            job.pickup = job.duration = 0.1
            job.log_lag = 0
        return simulator, sample

    yield make
    for simulator in made:
        simulator.__exit__(None, None, None)


def put(simulator: Simulator, one: Mapping[str, Any]) -> None:
    queued, started, ended = (
        datetime.fromisoformat(one[moment]).timestamp() for moment in ("queued", "started", "ended")
    )
    job = simulator.job(one["job"])
    execution = simulator.world.queue(job, queued, by=one["by"], trigger_id=one["trigger_id"])
    simulator.world.executions[-1] = replace(execution, started=started, ended=ended, outcome=one["outcome"])


class Life:
    """A task that goes on from what is stored of it."""

    def __init__(self, sample: Any, *, number: int = 1, most: int = RETRIES, clears: int = 0) -> None:
        self._task = sample["task"]
        self.store = Store(sample.get("store")) if SHARES else None
        self.ti = TaskInstance(number, most, sample.get("xcoms"))
        self._context = context_of(self.ti, self.store, clears)

    @property
    def stage(self) -> Any:
        """How far the submission is, as the store says; ``None`` if nothing is remembered."""
        kept = self.store.kept.get(SUBMISSION) if self.store else None
        return kept and kept["stage"]

    def execute(self) -> Any:
        return self._go_on(lambda task: task.execute(self._context))

    def resume(self, sample: Any, event: Any) -> Any:
        return self._go_on(self._resumer(sample["next_method"], {**sample["next_kwargs"], "event": event}))

    def fail(self, error: str) -> Any:
        """Resume as Airflow does when it has ended or lost a wait."""
        return self._go_on(self._resumer("__fail__", {"error": error, "traceback": ["Traceback ..."]}))

    def _resumer(self, method: str, kwargs: Mapping[str, Any]) -> Callable[[Any], Any]:
        return lambda task: task.resume_execution(method, kwargs, self._context)

    def _go_on(self, begin: Callable[[Any], Any]) -> Any:
        while True:
            try:
                return begin(task_of(self._task["kind"], self._task["arguments"]))
            except TaskDeferred as deferred:
                event = fire(trigger_of(deferred.trigger.serialize()))
                begin = self._resumer(deferred.method_name, {**(deferred.kwargs or {}), "event": event})


def fire(trigger: Any) -> Any:
    """Return what the one event of a trigger says, as a triggerer gets it."""
    if not hasattr(trigger, "shared_stream_key"):
        return event_of(trigger)
    (event,) = asyncio.run(watch(trigger, bool, 30))
    return event


def after(seconds: float, do: Callable[[], object]) -> None:
    threading.Timer(seconds, do).start()


def error_of(run: Callable[[], Any]) -> tuple[str, str]:
    """Return the name of the error's class, and what it says."""
    try:
        returned = run()
    except (Exception, AirflowTaskTimeout) as error:  # noqa: BLE001 - its class is what is asked for
        return type(error).__name__, str(error)
    return "nothing", f"It returned {returned!r}."


def deferral_of(release: str, name: str) -> Any:
    if not SHARES and name == "operator, for what it may have queued":
        pytest.skip("before Airflow 3.3 nothing of a task survives its process")
    return SAMPLES[release]["deferrals"][name]


def test_there_are_samples_of_each_release() -> None:
    assert set(SAMPLES) == {"0.1.0", "0.2.0.dev"}
    assert len({tuple(sample["deferrals"]) for sample in SAMPLES.values()}) == 1


# --- triggers ---


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
@pytest.mark.parametrize(("release", "name"), each("deferrals"))
def test_r39_a_stored_trigger_goes_on_to_its_end_and_its_task_with_it(
    restore: Restore, release: str, name: str, outcome: Any
) -> None:
    simulator, sample = restore(deferral_of(release, name))
    life = Life(sample)
    trigger = trigger_of(sample["trigger"])
    execution = simulator.world.executions[0]
    after(0.3, lambda: simulator.finish(outcome))
    event = fire(trigger)
    assert set(event) >= set(sample["events"][outcome]), "a release takes no member away"

    def resume() -> Any:
        return life.resume(sample, event)

    if name == "operator, for its turn":
        assert resume() == simulator.world.executions[-1].trigger_id != execution.trigger_id
        assert simulator.count("execute") == 1
        assert set(life.ti.xcoms) == {"trigger_id", "job_id", "job_name", "_link_TimeXtenderJobLink"}
        return
    if name == "sensor, for an idle job":
        nothing = dict.fromkeys(("trigger_id", "start", "end", "duration", "message", "problem"))
        assert resume() == {"job_id": execution.job.id, "job_name": "load", "state": "idle", **nothing}
    elif outcome == "failed":
        error, said = error_of(resume)
        assert error == "JobFailed"
        assert execution.trigger_id in said
    elif name.startswith("sensor"):
        result = resume()
        assert {"job_id", "trigger_id", "state", "start", "end", "duration"} <= set(result)
        assert (result["job_name"], result["message"], result["problem"]) == ("load", "Job completed.", None)
        assert (result["trigger_id"], result["state"]) == (execution.trigger_id, "succeeded")
    else:
        assert resume() == execution.trigger_id
        assert life.stage == ("done" if SHARES else None)
    assert simulator.count("execute") == 0


@pytest.mark.parametrize("is_over", [True, False])
@pytest.mark.parametrize(("release", "name"), each("deferrals"))
def test_r13_r15_a_stored_trigger_that_nobody_ran_until_its_limit_looks_once(
    restore: Restore, release: str, name: str, is_over: bool
) -> None:
    simulator, sample = restore(deferral_of(release, name), ago=601)
    for number, execution in enumerate(simulator.world.executions):
        ended = execution.ended - 60 if is_over else execution.ended + 60
        simulator.world.executions[number] = replace(execution, ended=ended)
    event = fire(trigger_of(sample["trigger"]))
    told = "idle" if sample["trigger"][1]["trigger_id"] is None else "succeeded"
    if sample["trigger"][1]["completed_after"]:
        told = "succeeded"
    # Whichever of its two limits is named.
    assert (event.get("error") or event["state"]) in (
        [told] if is_over else ["WaitTimeout", "ExecutionTimeout"]
    )


@needs_store
@pytest.mark.parametrize("release", SAMPLES)
def test_r39_a_stored_trigger_ends_its_task_from_the_triggerer(
    restore: Restore, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    from airflow.sdk.execution_time.xcom import XCom
    from airflow.triggers.base import TaskSuccessEvent

    pushed: dict[str, Any] = {}
    monkeypatch.setattr(XCom, "set", lambda key, value, **_: pushed.update({key: value}))
    monkeypatch.setattr(XCom, "get_one", lambda key, **_: pushed.get(key))
    simulator, sample = restore(SAMPLES[release]["deferrals"]["operator, for its execution"])
    trigger = trigger_of(sample["trigger"])
    trigger.task_instance = SimpleNamespace(dag_id="t", task_id="t", run_id="t", map_index=-1, try_number=1)
    simulator.finish()

    async def run() -> list[Any]:
        return [event async for event in trigger.run()]

    (event,) = asyncio.run(run())
    assert isinstance(event, TaskSuccessEvent)
    assert pushed["return_value"] == simulator.world.executions[0].trigger_id
    assert set(pushed) <= {"return_value", "timextender_shown"}


@needs_store
@pytest.mark.parametrize(("release", "name"), each("starts"))
def test_r39_a_sensor_that_airflow_starts_in_the_triggerer_goes_on(
    restore: Restore, release: str, name: str
) -> None:
    simulator, sample = restore(SAMPLES[release]["starts"][name])
    began = datetime.now(timezone.utc)
    execution = simulator.run("load")
    trigger = trigger_of(sample["trigger"])
    trigger.trigger_id, trigger.timeout_after = 7, None  # which Airflow sets before it renders
    conf = {"job": "load", "execution": execution.trigger_id}
    trigger.render_template_fields(
        context={"dag_run": SimpleNamespace(conf=conf), "data_interval_end": began}
    )
    result = Life(sample).resume(sample, fire(trigger))
    assert result["job_id"] == execution.job.id
    expected = (None, "idle") if name == "an idle job" else (execution.trigger_id, "succeeded")
    assert (result["trigger_id"], result["state"]) == expected


# --- events ---

FINAL = ("InvalidInput", "Refused", "ContractError", "AnswerTooLarge")
"""Errors that another try cannot heal."""

TIMEOUTS = {"WaitTimeout": "AirflowSensorTimeout", "ExecutionTimeout": "AirflowTaskTimeout"}


def expected_of(name: str, error: str) -> str:
    """Return the class of the error with which a task ends after a trigger's error."""
    if error in FINAL:
        return "AirflowFailException"
    if name.startswith("sensor"):
        return TIMEOUTS.get(error, error)
    job_error = error in ("JobFailed", "JobNeverStarted")
    if name == "operator, for its execution" and not job_error and (error in TIMEOUTS or not SHARES):
        return "AirflowFailException"
    return error


@pytest.mark.parametrize(
    ("release", "name", "error"),
    [
        pytest.param(*which.values, error, id=f"{which.id}: {error}")
        for which in each("deferrals")
        for error, event in SAMPLES[str(which.values[0])]["deferrals"][which.values[1]]["events"].items()
        if "error" in event
    ],
)
def test_r39_a_stored_event_of_an_error_is_told_as_that_error(
    restore: Restore, release: str, name: str, error: str
) -> None:
    simulator, sample = restore(deferral_of(release, name))
    life, event = Life(sample), sample["events"][error]
    error = event["error"]
    if (name, error) == ("operator, for what it may have queued", "WaitTimeout"):
        after(0.2, simulator.finish)
        assert life.resume(sample, event) == simulator.world.executions[0].trigger_id, "it looks once more"
        assert life.stage == "done"
    else:
        raised, said = error_of(lambda: life.resume(sample, event))
        assert raised == expected_of(name, error)
        assert event["message"].split(": ", 1)[-1][:40] in said
        if error in ("JobFailed", "JobNeverStarted") or "for its turn" in name or name.startswith("sensor"):
            assert life.stage is None or name.startswith("sensor")
        elif SHARES:
            assert life.stage == ("asked" if "may have queued" in name else "queued")
    assert simulator.count("execute") == 0


@pytest.mark.parametrize(("release", "name"), each("deferrals"))
def test_r39_a_stored_event_of_a_success_is_one(restore: Restore, release: str, name: str) -> None:
    simulator, sample = restore(deferral_of(release, name))
    simulator.finish()
    event = sample["events"]["succeeded"]
    result = Life(sample).resume(sample, event)
    last = simulator.world.executions[-1]
    assert result == (event if name.startswith("sensor") else last.trigger_id)
    assert last.trigger_id in (event["trigger_id"], result) or event["state"] == "idle"
    assert simulator.count("execute") == (name == "operator, for its turn")


@pytest.mark.parametrize("error", ["Trigger failure", "Trigger timeout"])
@pytest.mark.parametrize(("release", "name"), each("deferrals"))
def test_r39_a_stored_wait_that_airflow_ends_or_loses_is_told_as_that(
    restore: Restore, release: str, name: str, error: str
) -> None:
    simulator, sample = restore(deferral_of(release, name))
    life = Life(sample)
    kind = "TriggerLost" if error == "Trigger failure" else "WaitTimeout"
    if (name, kind) == ("operator, for what it may have queued", "WaitTimeout"):
        after(0.2, simulator.finish)
        assert life.fail(error) == simulator.world.executions[0].trigger_id
        return
    raised, _ = error_of(lambda: life.fail(error))
    base = "operator, for its execution" if name.startswith("operator, for its execution") else name
    assert raised == expected_of(base, kind)
    assert simulator.count("execute") == 0


# --- what is remembered of a submission ---


def retried(sample: Any) -> Life:
    """Return the try after that whose worker has died."""
    one = sample["try"]
    return Life(sample, number=one["number"] + 1, most=one["most"], clears=one["clears"])


def cleared(sample: Any) -> Life:
    """Return the first try after somebody has cleared the task."""
    one = sample["try"]
    return Life(sample, number=one["number"] + 1, most=one["number"] + RETRIES, clears=one["clears"] + 1)


def each_record(beginning: str) -> list[Any]:
    return [which for which in each("records") if str(which.values[1]).startswith(beginning)]


@needs_store
@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(("release", "name"), each_record("queued"))
def test_r03_r39_a_retry_goes_on_with_a_stored_execution(
    restore: Restore, release: str, name: str, deferrable: bool
) -> None:
    simulator, sample = restore(SAMPLES[release]["records"][name])
    sample["task"]["arguments"]["deferrable"] = deferrable
    after(0.3, simulator.finish)
    life = retried(sample)
    assert life.execute() == simulator.world.executions[0].trigger_id
    assert life.stage == "done"
    assert simulator.count("execute") == 0


@needs_store
@pytest.mark.parametrize("release", SAMPLES)
def test_r08_r39_a_retry_after_the_failure_of_a_stored_execution_runs_anew(
    restore: Restore, release: str
) -> None:
    simulator, sample = restore(SAMPLES[release]["records"]["queued"])
    simulator.finish("failed")
    assert retried(sample).execute() == simulator.world.executions[-1].trigger_id
    assert simulator.count("execute") == 1


@needs_store
@pytest.mark.parametrize(("name", "anew"), [("queued", True), ("done", True), ("queued", False)])
@pytest.mark.parametrize("release", SAMPLES)
def test_r06_r39_a_cleared_task_runs_anew_if_its_stored_execution_is_over(
    restore: Restore, release: str, name: str, anew: bool
) -> None:
    simulator, sample = restore(SAMPLES[release]["records"][name])
    (first,) = simulator.world.executions
    if anew:
        simulator.finish()
    else:
        after(0.3, simulator.finish)
    life = cleared(sample)
    assert (life.execute() != first.trigger_id) == anew
    assert life.stage == "done"
    assert simulator.count("execute") == int(anew)


@needs_store
@pytest.mark.parametrize("release", SAMPLES)
def test_r06_r39_a_clear_is_told_from_a_retry_also_by_the_number_of_clears(
    restore: Restore, release: str
) -> None:
    simulator, sample = restore(SAMPLES[release]["records"]["done"])
    sample["task"]["arguments"]["retries"] = RETRIES - 1  # so that as many tries are left as before
    assert Life(sample, number=2, clears=1).execute() == simulator.world.executions[-1].trigger_id
    assert simulator.count("execute") == 1


@needs_store
@pytest.mark.parametrize(("release", "name"), each_record("done"))
def test_r06_r39_what_is_stored_as_done_is_returned_again(restore: Restore, release: str, name: str) -> None:
    simulator, sample = restore(SAMPLES[release]["records"][name])
    assert retried(sample).execute() == simulator.world.executions[-1].trigger_id
    assert simulator.count("execute") == 0


FOUND = (
    "asked, of an empty log",
    "asked, of a log with others",
    "asked, after a clear",
    "asked, after a clear, of a late log",
)


@needs_store
@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("release", SAMPLES)
def test_r05_r39_what_is_stored_as_asked_for_is_looked_for(restore: Restore, release: str, name: str) -> None:
    simulator, sample = restore(SAMPLES[release]["records"][name])
    after(0.3, simulator.finish)
    life = retried(sample)
    assert life.execute() == simulator.world.executions[-1].trigger_id
    assert life.stage == "done"
    assert simulator.count("execute") == 0


def unsent(sample: Any) -> Any:
    """Return the sample of a worker that has died a moment earlier, before it sent the request."""
    *before, ours = sample["world"]["executions"]
    assert ours["by"] == "api"
    return {**sample, "world": {**sample["world"], "executions": before}}


@needs_store
@pytest.mark.parametrize("name", [*FOUND, "asked, and not sent, of a log without names"])
@pytest.mark.parametrize("release", SAMPLES)
def test_r05_r39_what_is_stored_as_asked_for_and_was_not_sent_is_sent(
    restore: Restore, release: str, name: str
) -> None:
    sample = SAMPLES[release]["records"][name]
    simulator, sample = restore(sample if "not sent" in name else unsent(sample))
    life = retried(sample)
    assert life.execute() == simulator.world.executions[-1].trigger_id
    assert life.stage == "done"
    assert simulator.count("execute") == 1


@needs_store
@pytest.mark.parametrize(
    "name", ["asked, beside what the log hides", "asked, of a log that could not be read", "uncertain"]
)
@pytest.mark.parametrize("release", SAMPLES)
def test_r05_r39_what_cannot_be_known_of_a_stored_record_stays_uncertain(
    restore: Restore, release: str, name: str
) -> None:
    simulator, sample = restore(SAMPLES[release]["records"][name])
    simulator.finish()
    life = retried(sample)
    raised, said = error_of(life.execute)
    assert raised == "AirflowFailException"
    assert "SubmissionUncertain" in said
    assert life.stage == "uncertain"
    assert simulator.count("execute") == 0


@needs_store
@pytest.mark.parametrize("release", SAMPLES)
def test_r05_r39_what_was_hidden_before_the_request_is_not_taken_for_it(
    restore: Restore, release: str
) -> None:
    simulator, sample = restore(unsent(SAMPLES[release]["records"]["asked, beside what the log hides"]))
    simulator.finish()
    raised, said = error_of(retried(sample).execute)
    assert raised == "AirflowFailException"
    assert "SubmissionUncertain" in said
    assert simulator.count("execute") == 0


@needs_store
@pytest.mark.parametrize("release", SAMPLES)
def test_r05_r39_who_clears_what_is_stored_as_uncertain_has_decided(restore: Restore, release: str) -> None:
    simulator, sample = restore(SAMPLES[release]["records"]["uncertain"])
    simulator.finish()
    assert cleared(sample).execute() == simulator.world.executions[-1].trigger_id
    assert simulator.count("execute") == 1


@needs_store
@pytest.mark.parametrize("release", SAMPLES)
def test_r39_what_a_waiting_task_shows_is_still_shown_so(
    restore: Restore, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator, sample = restore(SAMPLES[release]["records"]["queued"])
    shown = sample["store"].pop(STATE)
    life = retried(sample)
    assert life.store is not None
    kept, keep = life.store.kept, life.store.set

    def finish_when_shown(key: str, value: Any, **how: Any) -> None:
        keep(key, value, **how)
        if key == STATE:
            simulator.finish()

    monkeypatch.setattr(life.store, "set", finish_when_shown)
    life.execute()
    now = kept[STATE]
    assert {**now, "since": ""} == {**shown, "since": "", "job_name": "load"}
    assert all(datetime.fromisoformat(state["since"]).tzinfo for state in (shown, now))


# --- watchers ---


@pytest.mark.parametrize(("release", "name"), each("watchers"))
def test_r39_a_stored_watcher_is_stored_as_the_same(release: str, name: str) -> None:
    path, arguments = SAMPLES[release]["watchers"][name]["trigger"]
    assert trigger_of((path, arguments)).serialize() == (path, arguments)


@needs_store
@pytest.mark.parametrize(
    ("release", "name"), [which for which in each("watchers") if "has told" in str(which.values[1])]
)
def test_r16_r39_a_watcher_tells_what_a_release_has_not_told_and_nothing_else(
    restore: Restore, release: str, name: str
) -> None:
    simulator, sample = restore(SAMPLES[release]["watchers"][name])
    store = Store(sample["store"])

    def told() -> list[Any]:
        trigger = trigger_of(sample["trigger"])
        trigger.asset_state_store = store
        return asyncio.run(watch(trigger, bool, 1))

    for by in ("schedule", "hand"):
        news = simulator.run("load", by=by)
        simulator.world.executions[-1] = replace(news, started=news.queued, ended=news.queued)
        (event,) = told()
        assert event["trigger_id"] == news.trigger_id
        assert set(event) >= set(sample["told"][0])
        assert event["job_name"] == "load"
    assert told() == []
