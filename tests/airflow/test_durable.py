"""A job is queued exactly once over all tries of a task, against the simulator."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_timextender import errors, life
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.simulator import Fault, Simulator
from airflow_provider_timextender.simulator.faults import Kind
from airflow_provider_timextender.worlds import RECORD_KEY, TaskOnWorker

from ..conftest import after_submission
from ..waiting import comes_true
from .running import DEFERRABLE, SHARES, live
from .stand_ins import Store, TaskInstance, context_of

pytestmark = pytest.mark.usefixtures("_task_log", "_short")

needs_store = pytest.mark.skipif(not SHARES, reason="the task state store came with Airflow 3.3")
MODES = ["worker", *DEFERRABLE]


class Died(BaseException):
    """The end of a worker's process, as far as one process can play it."""


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_timextender.verdict.LOG_LAG", 0.3)
    monkeypatch.setattr(life, "LOG_LAG", 0.3)
    monkeypatch.setattr(life, "MAX_MOMENT", 0.05)


class Task:
    """One task of one DAG run: its tries, clears and what Airflow keeps of it."""

    def __init__(self, *, retries: int = 3, store: Store | None = None, **arguments: Any) -> None:
        self.retries = retries
        self.store = store
        self.arguments = {
            "job_name": "load",
            "poll_interval": 0.05,
            "start_timeout": 0.5,
            "max_unreachable": 5,
            "wait_for_completion": True,
            "retries": retries,
            **arguments,
        }
        self.tries = 0
        self.max_tries = retries
        self.clears = 0
        self.ti = TaskInstance()

    def make(self) -> ExecuteJobOperator:
        return ExecuteJobOperator(task_id="t", **self.arguments)

    def context(self) -> Any:
        self.tries += 1
        self.ti = TaskInstance()
        self.ti.try_number, self.ti.max_tries = self.tries, self.max_tries
        dag_run = SimpleNamespace(clear_number=self.clears, start_date=self.ti.start_date)
        return {**context_of(self.ti, self.store), "dag_run": dag_run}

    def run(self, mode: str = "worker") -> Any:
        """Run one try."""
        self.arguments["deferrable"] = mode in DEFERRABLE
        context = self.context()
        return live(self.make, self.ti, mode, context)

    def clear(self) -> None:
        self.max_tries = self.tries + self.retries
        self.clears += 1


def die_after_the_post(monkeypatch: pytest.MonkeyPatch) -> None:
    after_the_post(monkeypatch, die)


def after_the_post(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something when the next receipt has come, before the package has it."""
    send = TimeXtenderHook.send

    def send_and_act(self: Any, call: Any) -> Any:
        answer = send(self, call)
        if call.method == "POST":
            monkeypatch.setattr(TimeXtenderHook, "send", send)
            action()
        return answer

    monkeypatch.setattr(TimeXtenderHook, "send", send_and_act)


def die() -> None:
    raise Died


def when_first_kept(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something when it has been kept that the job is about to be queued."""
    keep = TaskOnWorker.keep

    def keep_and_act(self: Any, record: Any) -> None:
        keep(self, record)
        monkeypatch.setattr(TaskOnWorker, "keep", keep)
        action()

    monkeypatch.setattr(TaskOnWorker, "keep", keep_and_act)


def dies_when_it_looks(task: Task, monkeypatch: pytest.MonkeyPatch, mode: str = "worker") -> None:
    """Run a try that dies when it begins to wait."""
    with monkeypatch.context() as patch:
        patch.setattr(life.Wait, "look", lambda *_, **__: die())
        with pytest.raises(Died):
            task.run(mode)


def store_where_there_is_one() -> Store | None:
    return Store() if SHARES else None


def the_last(simulator: Simulator) -> str:
    return simulator.world.executions[-1].trigger_id


# --- a worker dies ---


@needs_store
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("duration", [0.0, 0.5])
def test_r03_r04_a_retry_after_a_death_right_after_the_post_goes_on_with_its_execution(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, mode: str, duration: float
) -> None:
    simulator.job("load").duration = duration
    task = Task(store=Store())
    die_after_the_post(monkeypatch)
    with pytest.raises(Died):
        task.run(mode)
    assert task.run(mode) == the_last(simulator)
    assert task.ti.xcoms["trigger_id"] == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_r03_without_waiting_as_well(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(store=Store(), wait_for_completion=False)
    die_after_the_post(monkeypatch)
    with pytest.raises(Died):
        task.run()
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_r03_a_death_before_the_post_is_no_submission(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = Task(store=Store())
    when_first_kept(monkeypatch, die)
    with pytest.raises(Died):
        task.run()
    assert simulator.count("execute") == 0
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1
    assert "TimeXtender job 'load': an earlier try was about to queue it, and did not." in caplog.text


@needs_store
def test_r03_a_death_during_the_wait(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(store=Store())
    dies_when_it_looks(task, monkeypatch)
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_r08_a_death_after_the_failure_of_the_execution_lets_the_retry_queue_it_anew(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.job("load").outcome = "failed"
    task = Task(store=Store())
    die_after_the_post(monkeypatch)
    with pytest.raises(Died):
        task.run()
    time.sleep(0.4)
    simulator.job("load").outcome = "succeeded"
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 2
    assert "TimeXtender job 'load': the execution of an earlier try has failed: " in caplog.text


@needs_store
def test_r04_a_lost_trigger_is_retried_and_followed(simulator: Simulator) -> None:
    task = Task(store=Store(), deferrable=True)
    context = task.context()
    with pytest.raises(TaskDeferred):
        task.make().execute(context)
    task.ti.xcom_pull = lambda key, **_: task.ti.xcoms[key]  # type: ignore[attr-defined]
    told = {"error": "Trigger failure", "traceback": ["boom"]}
    with pytest.raises(errors.TriggerLost, match="Another try of this task goes on with this execution"):
        task.make().resume_execution("__fail__", told, context)
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_r09_an_api_that_stays_away_for_too_long_is_a_case_for_the_next_try(simulator: Simulator) -> None:
    task = Task(store=Store(), max_unreachable=0.2)
    after_submission(simulator, lambda: simulator.fault("status", always=Fault("status", status=503)))
    with pytest.raises(errors.ServerError, match=r"HTTP 503.*goes on with this execution"):
        task.run()
    simulator.heal()
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_r03_whatever_goes_wrong_during_the_wait_is_a_case_for_the_next_try(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(store=Store())
    with monkeypatch.context() as patch:
        patch.setattr(life.Wait, "look", lambda *_, **__: [][0])
        with pytest.raises(errors.TimeXtenderError, match=r"\(IndexError: .*goes on with this execution"):
            task.run()
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_execution_timeout_before_it_is_clear_is_a_case_for_the_next_try(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(store=Store())

    def is_too_slow() -> None:
        raise AirflowTaskTimeout("Timeout")

    with monkeypatch.context() as patch:
        after_the_post(patch, is_too_slow)
        with pytest.raises(AirflowTaskTimeout):
            task.run()
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_r10_a_retry_that_cannot_look_says_what_was_queued(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(store=Store(), wait_for_completion=True, max_unreachable=0.3)
    dies_when_it_looks(task, monkeypatch)
    simulator.fault("status", always=Fault("status", status=400))
    with pytest.raises(AirflowFailException, match=f"HTTP 400.*trigger id {the_last(simulator)}"):
        task.run()
    assert simulator.count("execute") == 1


# --- clears, and retries after a failure ---


@needs_store
@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_r06_a_cleared_task_runs_anew(simulator: Simulator, mode: str, wait: bool) -> None:
    task = Task(store=Store(), wait_for_completion=wait)
    first = task.run(mode)
    task.clear()
    second = task.run(mode)
    assert [first, second] == [e.trigger_id for e in simulator.world.executions]
    assert simulator.count("execute") == 2


@needs_store
def test_r06_a_task_that_the_triggerer_has_ended_runs_anew_when_it_is_cleared(simulator: Simulator) -> None:
    task = Task(store=Store(), deferrable=True)
    with pytest.raises(TaskDeferred):
        task.make().execute(task.context())
    simulator.finish()
    task.clear()
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 2


@needs_store
def test_r06_a_try_after_success_that_was_not_cleared_returns_the_same(simulator: Simulator) -> None:
    # The worker dies when all is done, but before Airflow knows.
    task = Task(store=Store())
    assert task.run() == task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_a_task_that_is_cleared_while_its_execution_runs_goes_on_with_that(simulator: Simulator) -> None:
    simulator.job("load").duration = 60
    task = Task(store=Store(), deferrable=True)
    with pytest.raises(TaskDeferred):
        task.make().execute(task.context())
    task.clear()
    looks = simulator.count("status")

    def finish_when_followed() -> None:
        asyncio.run(comes_true(lambda: simulator.count("status") >= looks + 3))
        simulator.finish()

    following = threading.Thread(target=finish_when_followed)
    following.start()
    assert task.run() == the_last(simulator)
    following.join()
    assert simulator.count("execute") == 1


@needs_store
def test_a_clear_of_another_task_is_none_of_ours(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(store=Store())
    die_after_the_post(monkeypatch)
    with pytest.raises(Died):
        task.run()
    simulator.finish()
    task.clears += 1
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_a_cleared_task_whose_log_is_gone_runs_anew(simulator: Simulator) -> None:
    task = Task(store=Store(), deferrable=True, start_timeout=0.1)
    with pytest.raises(TaskDeferred):
        task.make().execute(task.context())
    simulator.finish()
    simulator.fault("execution logs", Fault("body", body="[]"))
    time.sleep(0.1)
    task.clear()
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 2


@needs_store
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("outcome", ["failed", "never starts"])
def test_r08_a_retry_after_a_failed_execution_queues_it_anew(
    simulator: Simulator, mode: str, outcome: Any
) -> None:
    # Had a trigger been made an interval ago, as on a busy machine, the job could have run unseen.
    task = Task(store=Store(), poll_interval=2 if outcome == "never starts" else 0.05)
    simulator.job("load").outcome = outcome
    with pytest.raises(errors.JobError):
        task.run(mode)
    assert RECORD_KEY not in (task.store or Store()).kept
    simulator.job("load").outcome = "succeeded"
    task.arguments["poll_interval"] = 0.05
    assert task.run(mode) == the_last(simulator)
    assert simulator.count("execute") == 2


@needs_store
def test_a_task_that_runs_another_job_now_does_not_wait_for_the_former(simulator: Simulator) -> None:
    from airflow_provider_timextender.simulator import Job

    other = Job("other", duration=0, pickup=0)
    simulator.world.jobs[other.id] = other
    store = Store()
    first = Task(store=store)
    with pytest.raises(TaskDeferred):
        ExecuteJobOperator(task_id="t", **{**first.arguments, "deferrable": True}).execute(first.context())
    second = Task(store=store, job_name="other")
    assert second.run() == the_last(simulator)
    assert simulator.world.executions[-1].job is other


@needs_store
@pytest.mark.parametrize("stored", ["x", {}, {"job_id": "load"}, 7])
def test_a_record_that_is_not_understood_is_not_guessed(simulator: Simulator, stored: Any) -> None:
    task = Task(store=Store())
    assert task.store is not None
    task.store.kept[RECORD_KEY] = stored
    with pytest.raises(AirflowFailException, match=r"SubmissionUncertain: .* delete that entry and clear"):
        task.run()
    assert simulator.count("execute") == 0


@needs_store
def test_nothing_is_sent_if_it_cannot_be_kept_that_it_will_be(simulator: Simulator) -> None:
    with pytest.raises(OSError, match="no space"):
        Task(store=Store(broken=True)).run()
    assert simulator.count("execute") == 0


@needs_store
def test_a_task_that_was_cleared_while_its_execution_ran_is_retried_like_any_other(
    simulator: Simulator,
) -> None:
    simulator.job("load").duration = 60
    task = Task(store=Store(), deferrable=True)
    with pytest.raises(TaskDeferred):
        task.make().execute(task.context())
    task.clear()
    with pytest.raises(TaskDeferred):
        task.make().execute(task.context())
    simulator.finish()
    # The worker that should have told it is lost, and nobody has cleared anything since: nor after a success.
    assert task.run() == task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_r03_a_success_that_airflow_was_not_told_of_survives_the_clear_of_another_task(
    simulator: Simulator,
) -> None:
    task = Task(store=Store())
    first = task.run()
    task.clears += 1
    assert task.run() == first
    assert simulator.count("execute") == 1


@needs_store
def test_r06_a_task_with_fewer_retries_than_before_runs_anew_when_it_is_cleared(simulator: Simulator) -> None:
    task = Task(store=Store(), deferrable=True, retries=1)
    with pytest.raises(TaskDeferred):
        task.make().execute(task.context())
    simulator.finish()
    task.retries = task.arguments["retries"] = 0
    task.clear()
    assert task.max_tries == 1, "as before"
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 2


@needs_store
def test_r03_nothing_was_queued_is_found_out_once(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(store=Store(), if_running="fail")
    when_first_kept(monkeypatch, die)
    with pytest.raises(Died):
        task.run()
    find = life.Life._find

    async def find_and_let_another_start(self: Any, record: Any) -> Any:
        found = await find(self, record)
        simulator.run("load")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(life.Life, "_find", find_and_let_another_start)
        with pytest.raises(errors.JobBusy):
            task.run()
    simulator.finish()
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_r05_what_could_not_be_looked_for_can_be_when_the_key_is_mended(simulator: Simulator) -> None:
    task = Task(store=Store(), max_unreachable=0.2, start_timeout=30)
    simulator.fault("execute", Fault("reset", taken=True))
    after_submission(simulator, lambda: simulator.fault("status", always=Fault("status", status=403)))
    with pytest.raises(AirflowFailException, match=r"It could not be looked for: .* HTTP 403.*looks again"):
        task.run()
    simulator.heal()
    task.clear()
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_r07_a_cleared_task_does_not_take_a_later_run_for_its_own(simulator: Simulator) -> None:
    task = Task(store=Store(), max_unreachable=0.2, start_timeout=0.3)
    simulator.fault("execute", Fault("reset"))
    seen = simulator.world.status

    def away(*args: Any) -> Any:
        if simulator.count("execute"):
            simulator.fault("status", always=Fault("status", status=503))
        return seen(*args)

    simulator.world.status = away  # type: ignore[assignment, method-assign]
    with pytest.raises(errors.ServerError, match="not known whether it was"):
        task.run()
    simulator.world.status = seen  # type: ignore[method-assign]
    simulator.heal()
    time.sleep(0.3)
    simulator.run("load")
    task.clear()
    with pytest.raises(AirflowFailException, match="SubmissionUncertain"):
        task.run()
    task.clear()
    assert task.run() == the_last(simulator)
    assert len(simulator.world.executions) == 2


@needs_store
@pytest.mark.parametrize("mode", ["worker", "deferrable"])
@pytest.mark.parametrize("if_running", ["fail", "wait"])
def test_r07_what_begins_while_a_request_cannot_be_sent_is_not_taken_for_ours(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, mode: str, if_running: str
) -> None:
    from airflow_provider_timextender.carrier import Carrier

    send = Carrier.send
    refused = iter([True])

    def refuse_once(self: Any, call: Any) -> Any:
        if call.method == "POST" and next(refused, False):
            simulator.run("load")
            raise errors.Unreachable("connection refused", sent=False)
        return send(self, call)

    monkeypatch.setattr(Carrier, "send", refuse_once)
    task = Task(store=Store(), if_running=if_running)
    if if_running == "fail":
        with pytest.raises(errors.JobBusy):
            task.run(mode)
        simulator.finish()
    assert task.run(mode) == the_last(simulator)
    assert simulator.count("execute") == 1
    assert len(simulator.world.executions) == 2


@needs_store
def test_r15_execution_timeout_ends_a_search(simulator: Simulator) -> None:
    simulator.job("load").duration = 60
    simulator.fault("execute", Fault("reset", taken=True))
    task = Task(store=Store(), execution_timeout=timedelta(seconds=0.1))
    with pytest.raises(errors.ExecutionTimeout, match="may have been queued"):
        task.run("deferrable")
    simulator.finish()
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
def test_r05_each_search_waits_for_the_whole_start_timeout(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = simulator.job("load")
    other.pickup, other.duration = 0.0, 0.3
    simulator.run("load")
    simulator.fault("execute", Fault("reset"))
    task = Task(store=Store(), start_timeout=1.0)
    assert task.run("deferrable") == the_last(simulator)
    _, second = [r.at for r in simulator.requests if r.route == "execute"]
    assert second - simulator.world.executions[0].ended >= 1.0


# --- the receipt is lost ---

LOST: tuple[Kind, ...] = ("reset", "html", "cut", "wrong type", "status", "silence")


@pytest.fixture
def _impatient(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    fields = simulator.connection()
    fields["extra"]["timeout"] = 0.3
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps(fields))


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("store", [True, False])
def test_r05_a_lost_receipt_is_made_up_for(
    simulator: Simulator, fault: Kind, store: bool, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.fault("execute", Fault(fault, taken=True, status=502 if fault == "status" else None))
    task = Task(store=store_where_there_is_one() if store else None)
    assert task.run(mode) == the_last(simulator)
    assert simulator.count("execute") == 1
    assert "is taken for the one that was asked for" in caplog.text


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("fault", LOST)
def test_r05_a_request_that_was_lost_is_sent_again_when_that_is_sure(
    simulator: Simulator, fault: Kind
) -> None:
    simulator.fault("execute", Fault(fault, status=502 if fault == "status" else None))
    taken = fault in ("cut", "wrong type")  # these faults spoil an answer that there is
    assert Task(store=store_where_there_is_one()).run() == the_last(simulator)
    assert simulator.count("execute") == (1 if taken else 2)
    assert len(simulator.world.executions) == 1


@pytest.mark.parametrize("if_running", ["submit", "wait", "attach", "fail"])
def test_r05_r44_a_submission_reads_the_whole_log_once(simulator: Simulator, if_running: str) -> None:
    job = simulator.job("load")
    job.lines = 1000
    simulator.past("load")
    job.lines = 3
    TimeXtenderHook().get_job_logs(job.id)
    size = simulator.sent["logs"]
    simulator.requests.clear()
    task = Task(store=store_where_there_is_one(), if_running=if_running)
    assert task.run() == the_last(simulator)
    assert simulator.count("logs") == 1
    assert simulator.sent["logs"] == 2 * size
    assert simulator.sent["execution logs"] < size / 10, "the wait reads its own execution's"
    routes = [request.route for request in simulator.requests]
    assert routes.index("logs") < routes.index("execute"), "what has begun since is told by what it showed"


@needs_store
def test_r05_r44_a_task_that_is_busy_with_what_it_looks_for_does_not_read_the_log_again_and_again(
    simulator: Simulator,
) -> None:
    simulator.job("load").duration = 2.0
    simulator.fault("execute", Fault("reset", taken=True))
    assert Task(store=Store(), start_timeout=10).run() == the_last(simulator)
    assert simulator.count("status") > 30
    ended = simulator.world.executions[-1].ended
    assert sum(r.route == "logs" and r.at < ended for r in simulator.requests) == 1


def test_r05_it_is_not_sent_again_and_again(simulator: Simulator) -> None:
    simulator.fault("execute", always=Fault("status", status=502))
    with pytest.raises(
        errors.ServerError, match=r"asked for twice, and TimeXtender has not queued it\. .*HTTP 502"
    ):
        Task().run()
    assert simulator.count("execute") == 2


def test_r05_what_cannot_be_told_apart_is_said(simulator: Simulator) -> None:
    simulator.fault("execute", Fault("reset", taken=True))
    queue = simulator.world.queue

    def two(*args: Any, **kwargs: Any) -> Any:
        simulator.world.queue = queue  # type: ignore[method-assign]
        simulator.run("load")
        return queue(*args, **kwargs)

    simulator.world.queue = two  # type: ignore[method-assign]
    task = Task(store=store_where_there_is_one())
    with pytest.raises(AirflowFailException) as caught:
        task.run()
    for execution in simulator.world.executions:
        assert execution.trigger_id in str(caught.value)
    assert "mark the task as success; if not, clear it" in str(caught.value)
    assert simulator.count("execute") == 1
    if SHARES:
        with pytest.raises(AirflowFailException, match="An earlier try could not find out either"):
            task.run()
        task.clear()
        assert task.run() == the_last(simulator), "whoever clears it has decided"
        assert simulator.count("execute") == 2


@pytest.mark.parametrize("at_end", [False, True])
def test_r02_r07_what_the_log_did_not_show_before_is_not_taken_for_ours(
    simulator: Simulator, at_end: bool
) -> None:
    job = simulator.job("load")
    job.pickup, job.log_at_end = 2.0, at_end
    other = simulator.run("load")
    simulator.fault("execute", Fault("reset"))
    with pytest.raises(
        AirflowFailException, match=f"one of the executions that have begun since: {other.trigger_id}"
    ):
        Task(store=store_where_there_is_one()).run()


def test_r02_one_that_somebody_queued_just_before_ours_is_not_taken_for_ours(simulator: Simulator) -> None:
    job = simulator.job("load")
    queue = simulator.world.queue

    def one_after_the_other(*args: Any, **kwargs: Any) -> Any:
        simulator.world.queue = queue  # type: ignore[method-assign]
        job.pickup, job.duration = 0.0, 0.5
        simulator.run("load")
        job.pickup, job.outcome = 0.6, "failed"
        return queue(*args, **kwargs)

    simulator.world.queue = one_after_the_other  # type: ignore[method-assign]
    simulator.fault("execute", Fault("reset", taken=True))
    with pytest.raises(AirflowFailException, match="SubmissionUncertain"):
        Task(store=store_where_there_is_one()).run()


@needs_store
def test_r05_a_deferrable_task_searches_without_a_worker(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.duration = 60
    simulator.fault("execute", Fault("reset", taken=True))
    task = Task(store=Store(), deferrable=True)
    context = task.context()
    with pytest.raises(TaskDeferred) as deferred:
        task.make().execute(context)
    assert deferred.value.method_name == "execute_complete"
    lost = {"error": "Trigger failure"}
    task.ti.xcom_pull = lambda **_: None  # type: ignore[attr-defined]
    with pytest.raises(errors.TriggerLost, match=r"may have been queued, .*not found yet: Airflow ended"):
        task.make().resume_execution("__fail__", lost, context)
    timeout = {"error": "Trigger/execution timeout"}
    task.arguments["timeout"] = 0.1
    time.sleep(0.1)
    with pytest.raises(AirflowFailException, match="It has not become clear in time"):
        task.make().resume_execution("__fail__", timeout, context)
    assert simulator.count("execute") == 1


@pytest.mark.parametrize(
    ("error", "kind"), [("Trigger failure", errors.TriggerLost), ("Trigger timeout", errors.WaitTimeout)]
)
def test_r07_a_wait_for_ones_turn_that_airflow_ends_is_retried(
    simulator: Simulator, error: str, kind: Any
) -> None:
    simulator.job("load").duration = 60
    simulator.run("load")
    task = Task(store=store_where_there_is_one(), if_running="wait", deferrable=True)
    context = task.context()
    with pytest.raises(TaskDeferred):
        task.make().execute(context)
    task.ti.xcom_pull = lambda **_: None  # type: ignore[attr-defined]
    with pytest.raises(kind, match="'load': it was not queued, as its turn did not come: Airflow ended"):
        task.make().resume_execution("__fail__", {"error": error}, context)


def test_r05_a_log_that_could_not_be_read_before_tells_nothing_after(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.fault("logs", Fault("status", status=403))
    simulator.fault("execute", Fault("reset", taken=True))
    with pytest.raises(AirflowFailException, match="What the job's log showed before is not known"):
        Task().run()
    assert simulator.count("execute") == 1
    assert "cannot be looked for" in caplog.text


@pytest.mark.parametrize("status", [403, 500])
def test_r07_a_log_that_cannot_be_read_does_not_block_a_start(
    simulator: Simulator, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "LOG_PATIENCE", 0.2)
    simulator.fault("logs", always=Fault("status", status=status))
    assert Task(wait_for_completion=False).run() == the_last(simulator)


def test_r12_a_key_that_is_refused_before_the_submission_ends_the_task(simulator: Simulator) -> None:
    simulator.fault("logs", Fault("status", status=401))
    with pytest.raises(AirflowFailException, match="The API key was refused"):
        Task().run()
    assert simulator.count("execute") == 0


def test_r11_a_job_without_any_log_yet_can_be_queued(simulator: Simulator) -> None:
    simulator.fault("logs", Fault("status", status=404))
    simulator.fault("execute", Fault("reset", taken=True))
    assert Task().run() == the_last(simulator)


@needs_store
def test_r05_an_api_that_stays_away_while_it_is_looked_for_is_a_case_for_the_next_try(
    simulator: Simulator,
) -> None:
    simulator.fault("execute", Fault("reset", taken=True))
    after_submission(simulator, lambda: simulator.fault("status", always=Fault("status", status=503)))
    task = Task(store=Store(), max_unreachable=0.2)
    with pytest.raises(errors.ServerError):
        task.run()
    simulator.heal()
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


def test_r05_without_a_store_it_is_not(simulator: Simulator) -> None:
    simulator.fault("execute", Fault("reset", taken=True))
    after_submission(simulator, lambda: simulator.fault("status", always=Fault("status", status=503)))
    with pytest.raises(AirflowFailException, match=r"SubmissionUncertain: .*could not be looked for: .*503"):
        Task(max_unreachable=0.2).run()


def test_r17_the_search_for_a_lost_receipt_is_finite(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.duration, job.log_at_end = 60, True
    simulator.fault("execute", Fault("reset", taken=True))
    with pytest.raises(AirflowFailException, match=r"no answer .*It has not become clear in time\. "):
        Task(timeout=0.4).run()


@pytest.mark.parametrize("by", ["schedule", "hand"])
def test_r02_what_ran_before_is_not_taken_for_ours(simulator: Simulator, by: Any) -> None:
    simulator.job("load").pickup = 0
    simulator.run("load", by=by)
    simulator.job("load").duration = 0.5
    simulator.run("load", by=by)
    simulator.fault("execute", Fault("html", taken=True))
    assert Task().run() == the_last(simulator)


def test_r12_a_key_that_is_changed_while_it_is_looked_for_is_picked_up(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.fault("execute", Fault("reset", taken=True))

    def change() -> None:
        simulator.api_key = "tx-another-key"
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())

    after_submission(simulator, change)
    assert Task().run() == the_last(simulator)


# --- without a state store ---


def test_r04_without_a_store_a_retry_looks_before_it_queues(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.job("load").duration = 0.2
    task = Task()
    die_after_the_post(monkeypatch)
    with pytest.raises(Died):
        task.run()
    assert caplog.text.count("keeps no state of a task over its tries") == 1
    with pytest.raises(AirflowFailException, match="an earlier try of this task may have queued it"):
        task.run()
    time.sleep(0.4)
    monkeypatch.setattr(Task, "context", began_long_ago(Task.context))
    with pytest.raises(AirflowFailException, match=r"has begun since the DAG run did, and has not failed"):
        task.run()
    assert simulator.count("execute") == 1
    task.clear()
    assert task.run() == the_last(simulator), "whoever clears it has decided"
    assert simulator.count("execute") == 2


def began_long_ago(context_of_task: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def context(self: Any) -> Any:
        made = context_of_task(self)
        made["dag_run"].start_date = datetime.now(timezone.utc) - timedelta(hours=1)
        return made

    return context


def test_r08_without_a_store_a_retry_after_a_failed_execution_queues_it_anew(simulator: Simulator) -> None:
    simulator.job("load").outcome = "failed"
    task = Task()
    with pytest.raises(errors.JobFailed):
        task.run()
    simulator.job("load").outcome = "succeeded"
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 2


def test_r07_without_a_store_a_retry_of_what_was_not_queued_is_no_suspicion(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.duration = 60
    simulator.run("load")
    job.duration = 0.2
    task = Task(if_running="fail")
    for _ in range(2):
        with pytest.raises(errors.JobBusy):
            task.run()
    simulator.finish()
    assert task.run() == the_last(simulator)


def test_without_a_store_the_first_try_is_no_retry_whatever_the_retries(simulator: Simulator) -> None:
    simulator.run("load")
    task = Task(retries=3)
    task.arguments["retries"] = 5
    assert task.run() == the_last(simulator)


def test_execution_timeout_before_anything_is_sent_is_one_like_any_other(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.job("load").duration = 60
    simulator.run("load")
    monkeypatch.setattr(life.Wait, "look", lambda *_, **__: (_ for _ in ()).throw(AirflowTaskTimeout("x")))
    with pytest.raises(AirflowTaskTimeout):
        Task(if_running="wait").run()


@pytest.mark.parametrize("store", [True, False])
def test_r09_a_connection_that_cannot_be_read_once_does_not_end_the_wait(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, store: bool
) -> None:
    get = TimeXtenderHook.get_connection
    reads = itertools.count(1)

    def get_but_once(conn_id: str) -> Any:
        if next(reads) == 2:
            raise RuntimeError("The secrets backend is restarting.")
        return get(conn_id)

    monkeypatch.setattr(TimeXtenderHook, "get_connection", staticmethod(get_but_once))
    task = Task(store=store_where_there_is_one() if store else None)
    assert task.run(DEFERRABLE[0]) == the_last(simulator)


def test_without_retries_nothing_is_said_of_them(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    Task(retries=0).run()
    assert "keeps no state" not in caplog.text


# --- if_running ---


def end_when_looked_at(simulator: Simulator) -> None:
    """Let what runs end when somebody has seen that it runs."""
    status = simulator.world.status

    def status_and_end(*args: Any) -> Any:
        seen = status(*args)
        simulator.world.status = status  # type: ignore[method-assign]
        simulator.finish()
        return seen

    simulator.world.status = status_and_end  # type: ignore[assignment, method-assign]


@pytest.mark.parametrize("mode", MODES)
def test_r07_submit_starts_it_beside_what_runs(simulator: Simulator, mode: str) -> None:
    simulator.run("load")
    assert Task().run(mode) == the_last(simulator)
    assert simulator.count("execute") == 1


@pytest.mark.parametrize("by", ["schedule", "hand"])
@pytest.mark.parametrize("wait", [True, False])
def test_r07_fail_sends_nothing_while_the_job_is_busy(simulator: Simulator, by: Any, wait: bool) -> None:
    job = simulator.job("load")
    job.duration = 60
    simulator.run("load", by=by)
    task = Task(if_running="fail", wait_for_completion=wait)
    with pytest.raises(errors.JobBusy, match=r"was not queued, as if_running says. The job is \w+\."):
        task.run()
    assert simulator.count("execute") == 0
    simulator.finish()
    job.duration = 0.2
    assert Task(if_running="fail", wait_for_completion=wait).run() == the_last(simulator)


def test_r07_a_status_that_is_not_understood_is_not_idle(simulator: Simulator) -> None:
    simulator.fault("status", Fault("unknown word"))
    with pytest.raises(errors.JobBusy, match="'Hibernating'"):
        Task(if_running="fail").run()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_r07_wait_lets_the_other_end_and_reports_its_own(
    simulator: Simulator, mode: str, wait: bool, outcome: Any
) -> None:
    simulator.job("load").outcome = outcome
    other = simulator.run("load")
    simulator.job("load").outcome = "succeeded"
    returned = Task(store=store_where_there_is_one(), if_running="wait", wait_for_completion=wait).run(mode)
    assert returned == the_last(simulator) != other.trigger_id
    (asked,) = [r for r in simulator.requests if r.route == "execute"]
    assert asked.at > other.ended


@pytest.mark.parametrize("mode", MODES)
def test_r17_waiting_for_ones_turn_is_finite(simulator: Simulator, mode: str) -> None:
    simulator.job("load").duration = 60
    simulator.run("load")
    with pytest.raises(errors.WaitTimeout, match="'load': it was not queued, as its turn did not come: "):
        Task(if_running="wait", timeout=0.4).run(mode)
    assert simulator.count("execute") == 0


@pytest.mark.parametrize("mode", MODES)
def test_r07_the_turn_may_be_lost_to_somebody_else_and_is_waited_for_again(
    simulator: Simulator, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.job("load").duration = 60
    simulator.run("load")
    simulator.job("load").duration = 0.2
    end_when_looked_at(simulator)
    passed = iter([True])

    def let_another_pass(interval: float) -> float:
        if next(passed, False):
            simulator.run("load")
        return 0

    monkeypatch.setattr(life, "moment", let_another_pass)
    assert Task(if_running="wait").run(mode) == the_last(simulator)
    assert len(simulator.world.executions) == 3
    assert simulator.world.executions[2].queued > simulator.world.executions[1].ended


def test_r17_a_turn_can_be_waited_for_beyond_the_end_of_the_calendar(simulator: Simulator) -> None:
    simulator.job("load").duration = 60
    simulator.run("load")
    simulator.job("load").duration = 0.2
    end_when_looked_at(simulator)
    assert Task(if_running="wait", timeout=1e12).run() == the_last(simulator)


@needs_store  # Airflow 2 runs no operator in a thread
def test_r07_two_tasks_that_wait_for_the_same_turn_run_one_after_the_other(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "MAX_MOMENT", 10.0)
    job = simulator.job("load")
    job.pickup, job.duration = 0.0, 0.4
    simulator.run("load")
    pauses = itertools.count(0)
    # More than it takes to look and to queue, on a busy machine as well.
    monkeypatch.setattr("random.uniform", lambda *_: 1.0 * next(pauses))
    returned: list[str] = []
    tasks = [
        threading.Thread(target=lambda: returned.append(Task(if_running="wait").run())) for _ in range(2)
    ]
    for thread in tasks:
        thread.start()
    for thread in tasks:
        thread.join()
    first, second = simulator.world.executions[1:]
    assert sorted(returned) == sorted([first.trigger_id, second.trigger_id]), "each reports its own"
    assert second.queued >= first.ended


def test_r07_a_job_that_starts_between_the_look_and_the_post_runs_beside_ours(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing can be done about that: the API cannot start a job only if it is idle. Each reports its own.
    def let_another_start() -> None:
        simulator.job("load").outcome = "failed"
        simulator.run("load")
        simulator.job("load").outcome = "succeeded"

    when_first_kept(monkeypatch, let_another_start)
    assert Task(if_running="wait").run() == the_last(simulator)
    assert len(simulator.world.executions) == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("state", ["pending", "running", "shown at its end"])
def test_r07_attach_reports_the_outcome_of_what_runs(
    simulator: Simulator, mode: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = simulator.job("load")
    job.duration = 2
    job.pickup = 0.4 if state == "pending" else 0.0
    job.log_at_end = state == "shown at its end"
    other = simulator.run("load")
    task = Task(if_running="attach")
    assert task.run(mode) == other.trigger_id == task.ti.xcoms["trigger_id"]
    assert simulator.count("execute") == 0
    assert "attaches to that execution, and reports its outcome as its own" in caplog.text


def test_r07_attach_fails_with_what_runs_and_the_retry_queues_its_own(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.outcome, job.duration = "failed", 2
    other = simulator.run("load")
    task = Task(store=store_where_there_is_one(), if_running="attach")
    with pytest.raises(errors.JobFailed, match=other.trigger_id):
        task.run()
    job.outcome, job.duration = "succeeded", 0.2
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


def test_r07_attach_queues_the_job_if_nothing_runs(simulator: Simulator) -> None:
    assert Task(if_running="attach").run() == the_last(simulator)
    assert simulator.count("execute") == 1


def test_r07_attach_says_what_it_cannot_follow(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.duration, job.pickup = 60, 0
    simulator.run("load", by="hand")
    with pytest.raises(errors.JobBusy, match=r"started by hand.*if_running='wait'"):
        Task(if_running="attach").run()
    simulator.run("load")
    with pytest.raises(errors.JobBusy, match="several of its executions are running"):
        Task(if_running="attach").run()
    job.log_at_end = True
    with pytest.raises(errors.JobBusy, match="shows no execution to attach to"):
        Task(if_running="attach", timeout=0.2).run()
    assert simulator.count("execute") == 0


def test_r07_attach_queues_the_job_if_it_was_started_by_hand_and_is_over(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup, job.duration, job.log_at_end = 0, 0.3, True
    simulator.run("load", by="hand")
    assert Task(if_running="attach").run() == the_last(simulator)
    assert simulator.count("execute") == 1


def test_r07_attach_queues_the_job_if_what_ran_has_left_no_trace(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup, job.duration, job.log_at_end = 0.3, 0.0, True
    simulator.run("load", by="hand")
    simulator.fault("logs", always=Fault("body", body="[]"))
    task = Task(if_running="attach", wait_for_completion=False)
    assert task.run() == the_last(simulator)
    assert simulator.count("execute") == 1


@needs_store
@pytest.mark.parametrize("mode", MODES)
def test_r07_a_try_that_dies_while_it_is_attached_is_retried_with_the_same_execution(
    simulator: Simulator, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = simulator.job("load")
    job.pickup, job.duration = 0, 0.8
    other = simulator.run("load")
    task = Task(store=Store(), if_running="attach")
    dies_when_it_looks(task, monkeypatch, mode)
    assert task.run(mode) == other.trigger_id
    assert simulator.count("execute") == 0


def test_if_running_is_checked_before_anything_is_sent(simulator: Simulator) -> None:
    with pytest.raises(
        AirflowFailException, match="if_running is 'skip'; it takes submit, wait, attach, fail"
    ):
        Task(if_running="skip").run()
    assert not simulator.requests
