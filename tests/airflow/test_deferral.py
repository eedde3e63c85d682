"""The operator and the sensor, deferred: the same end as on a worker, and the least use of one."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    Asset,
    TaskDeferred,
    task,
)

from airflow_provider_timextender import errors, life, worlds
from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.sensors import JobStatusSensor
from airflow_provider_timextender.simulator import Fault, Simulator

from ..conftest import after_submission
from .running import DEFERRABLE, SHARES, fire, live, stored
from .stand_ins import Store, TaskInstance, context_of

pytestmark = pytest.mark.usefixtures("_task_log")

OTHER = "11111111-1111-1111-1111-111111111111"
starts_in_triggerer = pytest.mark.skipif(
    not SHARES, reason="before Airflow 3.3 no template is rendered there"
)


def operator(**arguments: Any) -> ExecuteJobOperator:
    defaults: dict[str, Any] = {"task_id": "t", "job_name": "load", "poll_interval": 0.05}
    return ExecuteJobOperator(**{**defaults, "wait_for_completion": True, **arguments})


def sensor(**arguments: Any) -> JobStatusSensor:
    defaults: dict[str, Any] = {"task_id": "t", "job_name": "load", "poke_interval": 0.05, "deferrable": True}
    return JobStatusSensor(**{**defaults, **arguments})


def deferred_by(task: Any, ti: TaskInstance | None = None) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context_of(ti or TaskInstance()))
    return caught.value


needs_store = pytest.mark.skipif(not SHARES, reason="the task state store came with Airflow 3.3")

# --- the same end in every mode ---

ENDS = ("finished before", "succeeds", "fails", "never starts", "unknown end", "times out", "unreachable")


def head_for(simulator: Simulator, end: str) -> dict[str, float]:
    """Let the next execution come to an end, and return which arguments it takes to see that soon."""
    job = simulator.job("load")
    if end == "finished before":
        job.pickup = job.duration = 0
    elif end == "fails":
        job.outcome = "failed"
    elif end == "never starts":
        job.outcome = "never starts"
        # Had the trigger been made an interval ago, as on a busy machine, the job could have run unseen.
        return {"poll_interval": 2}
    elif end == "unknown end":
        job.log_at_end = True
        simulator.fault("execution logs", always=Fault("unknown word"))
    elif end == "times out":
        job.duration = 60
        return {"timeout": 0.5}
    elif end == "unreachable":

        def spoil() -> None:
            simulator.fault("status", always=Fault("status", status=503))
            simulator.fault("statuses", always=Fault("status", status=503))

        after_submission(simulator, spoil)
    return {}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("mode", ["worker", *DEFERRABLE])
def test_r22_r26_the_operator_ends_alike_in_every_mode(simulator: Simulator, mode: str, end: str) -> None:
    """Each mode is held against the same words, so that they say the same as each other."""
    limits = {"timeout": 30.0, "start_timeout": 0.6, "max_unreachable": 0.3, **head_for(simulator, end)}
    job, ti = simulator.job("load"), TaskInstance()

    def run() -> Any:
        return live(lambda: operator(deferrable=mode in DEFERRABLE, **limits), ti, mode)

    if end in ("finished before", "succeeds"):
        returned = run()
        assert returned == ti.xcoms["trigger_id"] == simulator.world.executions[0].trigger_id
    else:
        with pytest.raises((errors.JobError, AirflowFailException)) as caught:
            run()
        (execution,) = simulator.world.executions
        stopped = "TimeXtender job 'load': stopped waiting: "
        ids = rf"\s+\(job id {job.id}, trigger id {execution.trigger_id}\)"
        unknown = rf"{stopped}its outcome could not be found out"
        runs_on = r"The execution may still be running in TimeXtender, so this task is not retried\."
        expected = {
            "fails": r"TimeXtender job 'load' failed: Transfer task .*\n"
            r"Its last error lines:\n  Invalid column .*",
            "never starts": r"TimeXtender job 'load': it has been idle for .* and its log shows no .*",
            "unknown end": rf"{unknown} \(ContractError: .*'Hibernating'.*would understand no more, .*",
            "times out": rf"{stopped}it was not over after 0\.5 s\. The \w+ is running\. {runs_on}",
            "unreachable": rf"{unknown} \(ServerError: .*HTTP 503.*{runs_on}",
        }[end]
        kind = {"fails": errors.JobFailed, "never starts": errors.JobNeverStarted}.get(
            end, AirflowFailException
        )
        assert type(caught.value) is kind
        assert re.fullmatch(expected + ids, str(caught.value), re.DOTALL), str(caught.value)
    assert simulator.count("execute") == 1
    assert {r.method for r in simulator.requests if r.route != "execute"} == {"GET"}
    assert set(ti.xcoms) == {"trigger_id", "job_id", "job_name", "_link_TimeXtenderJobLink"}


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("wait", [False, True, "False", "{{ true }}"[3:7]])
def test_r25_without_a_wait_nothing_is_deferred(simulator: Simulator, deferrable: bool, wait: Any) -> None:
    simulator.job("load").duration = 0.3
    one = operator(deferrable=deferrable, wait_for_completion=wait)
    if deferrable and str(wait).lower() == "true":
        deferred_by(one)
    else:
        returned = one.execute(context_of(TaskInstance()))
        assert returned == simulator.world.executions[0].trigger_id


def test_r10_what_cannot_be_looked_at_before_deferring_is_deferred_all_the_same(simulator: Simulator) -> None:
    after_submission(simulator, lambda: simulator.fault("status", always=Fault("status", status=401)))
    deferred_by(operator(deferrable=True))
    assert simulator.count("status") == 2, "one before the submission, one after it"
    assert simulator.count("execute") == 1


def test_r33_xcoms_are_there_before_the_task_is_deferred(simulator: Simulator) -> None:
    simulator.job("load").duration = 60
    ti = TaskInstance()
    deferred = deferred_by(operator(deferrable=True), ti)
    (execution,) = simulator.world.executions
    assert ti.xcoms["trigger_id"] == execution.trigger_id
    assert deferred.trigger.arguments["trigger_id"] == execution.trigger_id


def test_r29_every_setting_that_affects_the_wait_goes_with_it(simulator: Simulator) -> None:
    simulator.job("load").duration = 60
    ti = TaskInstance()
    one = operator(
        deferrable=True,
        poll_interval="7",
        timeout=timedelta(hours=1),
        start_timeout="70",
        max_unreachable="80",
        execution_timeout=timedelta(hours=2),
    )
    deferred = deferred_by(one, ti)
    told = stored(deferred.trigger).arguments
    assert (told["poll_interval"], told["timeout"], told["start_timeout"], told["max_unreachable"]) == (
        7,
        3600,
        70,
        80,
    )
    assert datetime.fromisoformat(told["execution_deadline"]) == ti.start_date + timedelta(hours=2)
    assert datetime.now(timezone.utc) - datetime.fromisoformat(told["asked_at"]) < timedelta(seconds=10)
    assert deferred.timeout > timedelta(hours=1), "Airflow's own limit is the later one"


@pytest.mark.parametrize(
    "bad", [{"poll_interval": object()}, {"start_timeout": "x"}, {"wait_for_completion": "x"}]
)
def test_r29_a_setting_that_cannot_be_stored_is_refused_before_the_submission(
    simulator: Simulator, bad: dict[str, Any]
) -> None:
    with pytest.raises(AirflowFailException, match="InvalidInput"):
        operator(deferrable=True, **bad).execute(context_of(TaskInstance()))
    assert simulator.count("execute") == 0


# --- the sensor ---


def test_r22_r23_a_limit_that_airflow_enforces_is_a_sensor_timeout_too(simulator: Simulator) -> None:
    told = {"error": "Trigger timeout"}
    for soft_fail, kind in ((False, AirflowSensorTimeout), (True, AirflowSkipException)):
        with pytest.raises(kind, match=r"^TimeXtender job 'load': stopped waiting: Airflow ended the wait"):
            sensor(soft_fail=soft_fail).resume_execution("__fail__", told, context_of(TaskInstance()))


@pytest.mark.parametrize("soft_fail", [False, True])
def test_r10_r23_a_trigger_that_is_lost_says_nothing_about_the_job(soft_fail: bool) -> None:
    told = {"error": "Trigger failure", "traceback": ["Traceback ...\n", "ImportError: x\n"]}
    with pytest.raises(errors.TriggerLost, match="Trigger failure"):
        sensor(soft_fail=soft_fail).resume_execution("__fail__", told, context_of(TaskInstance()))
    with pytest.raises(AirflowFailException, match=r"could not be found out \(TriggerLost.*not retried"):
        operator(deferrable=True).resume_execution("__fail__", told, context_of(TaskInstance()))


def test_r15_the_sensors_execution_timeout_is_one_when_deferred(simulator: Simulator) -> None:
    event = {
        "job_id": OTHER,
        "trigger_id": OTHER,
        "error": "ExecutionTimeout",
        "message": "execution_timeout is over.",
    }
    with pytest.raises(AirflowTaskTimeout, match="execution_timeout is over"):
        sensor().execute_complete(context_of(TaskInstance()), event)


@pytest.mark.parametrize("timeout", [0, 1e12])
@pytest.mark.parametrize("poke_interval", [0, 0.05])
def test_what_airflow_allows_does_not_break_the_triggerer(
    simulator: Simulator, timeout: float, poke_interval: float
) -> None:
    simulator.job("load").duration = 60
    simulator.run("load")
    trigger = deferred_by(sensor(timeout=timeout, poke_interval=poke_interval)).trigger
    if timeout:
        simulator.finish()
        assert fire(trigger)["state"] == "idle"
    else:
        assert fire(trigger)["error"] == "WaitTimeout"


def test_r10_a_lost_trigger_is_told_with_what_was_pushed(simulator: Simulator) -> None:
    ti: Any = TaskInstance()
    ti.xcom_pull = lambda key, **_: {"job_id": OTHER, "trigger_id": OTHER, "job_name": "load"}[key]
    with pytest.raises(AirflowFailException, match=rf"^TimeXtender job 'load': .*job id {OTHER}, .* {OTHER}"):
        operator(deferrable=True).resume_execution("__fail__", {"error": "Trigger timeout"}, context_of(ti))


@pytest.mark.parametrize(
    "event", [None, {}, "success", {"state": "failed"}, {"state": "idle"}, {"status": "success"}]
)
def test_r01_an_event_that_does_not_say_so_is_no_success(event: Any) -> None:
    with pytest.raises(AirflowFailException, match="not understood"):
        operator(deferrable=True).resume_execution(
            "execute_complete", {"event": event}, context_of(TaskInstance())
        )
    if event != {"state": "idle"}:
        with pytest.raises(AirflowFailException, match="not understood"):
            sensor().resume_execution("execute_complete", {"event": event}, context_of(TaskInstance()))


# --- no worker that is not needed ---


def end_with(task: Any) -> Any:
    return deferred_by(task).trigger.arguments["end_with"]


def where_possible(returned: str) -> str | None:
    """Before Airflow 3.3 every task resumes on a worker."""
    return returned if SHARES else None


def test_a_success_ends_in_the_triggerer_unless_a_worker_has_something_to_do(simulator: Simulator) -> None:
    simulator.job("load").duration = 60
    assert end_with(operator(deferrable=True)) == where_possible("trigger_id")
    assert end_with(operator(deferrable=True, do_xcom_push=False)) == where_possible("nothing")
    assert end_with(operator(deferrable=True, outlets=[Asset("x")])) is None
    assert end_with(operator(deferrable=True, post_execute=lambda *_: None)) is None
    assert end_with(sensor(trigger_id=simulator.run("load").trigger_id)) == where_possible("result")

    class More(ExecuteJobOperator):
        pass

    more = More(task_id="t", job_name="load", wait_for_completion=True, deferrable=True)
    assert end_with(more) is None, "it may do more at the end"


def test_a_task_whose_result_is_mapped_over_resumes_on_a_worker(simulator: Simulator) -> None:
    execution = simulator.run("load")
    simulator.job("load").duration = 60

    @task
    def show(value: Any) -> None:
        pass

    with DAG("d", schedule=None):
        plain = operator(task_id="plain", deferrable=True)
        mapped = sensor(task_id="mapped", trigger_id=execution.trigger_id, completed_after="2026-01-01")
        mapped.trigger_id, mapped.completed_after = simulator.run("load").trigger_id, sensor().completed_after
        show.expand(value=mapped.output)
    assert end_with(plain) == where_possible("trigger_id")
    assert end_with(mapped) is None


@starts_in_triggerer
@pytest.mark.parametrize(
    "arguments",
    [
        {"trigger_id": OTHER},
        {"trigger_id": "{{ dag_run.conf.id }}", "job_name": None, "job_id": "{{ dag_run.conf.job }}"},
        {"completed_after": "{{ data_interval_end }}"},
        {"completed_after": datetime(2026, 1, 1, tzinfo=timezone.utc)},
        {},
    ],
)
def test_the_sensor_starts_in_the_triggerer(arguments: dict[str, Any]) -> None:
    one = sensor(**arguments)
    assert one.start_from_trigger
    told = one.start_trigger_args
    assert told is not None
    assert told.next_method == "execute_complete"
    module, name = told.trigger_cls.rsplit(".", 1)
    assert (module, name) == ("airflow_provider_timextender.triggers", "JobExecutionTrigger")
    assert json.loads(json.dumps(told.trigger_kwargs)) == told.trigger_kwargs


@starts_in_triggerer
def test_a_trigger_renders_what_the_sensor_was_told(simulator: Simulator) -> None:
    execution = simulator.run("load")
    one = sensor(trigger_id="{{ dag_run.conf.trigger_id }}", job_name="{{ dag_run.conf['job'] }}")
    assert one.start_trigger_args is not None
    from airflow_provider_timextender.triggers import JobExecutionTrigger

    trigger = JobExecutionTrigger(**(one.start_trigger_args.trigger_kwargs or {}))
    trigger.trigger_id = 7  # what Airflow sets before it renders
    run = {"conf": {"trigger_id": execution.trigger_id, "job": "load"}}
    trigger.render_template_fields({"dag_run": run})
    assert trigger.arguments["trigger_id"] == execution.trigger_id
    assert trigger.arguments["job_name"] == "load"
    assert trigger.arguments["timeout"] == one.timeout


@pytest.mark.parametrize(
    "arguments",
    [
        {"trigger_id": "{{ ti.xcom_pull(task_ids='execute') }}"},
        {"job_name": "{{ var.value.job }}"},
        {"trigger_id": "{{ unclosed"},
        {"trigger_id": None},
        {"execution_timeout": timedelta(hours=1)},
        {"params": {"trigger_id": OTHER}},
        {"pre_execute": lambda *_: None},
        {"on_execute_callback": lambda *_: None},
        {"deferrable": False},
    ],
)
def test_the_sensor_starts_on_a_worker_where_a_triggerer_could_not_do(arguments: dict[str, Any]) -> None:
    assert not sensor(**arguments).start_from_trigger


@starts_in_triggerer
def test_r22_the_limits_of_a_sensor_that_started_in_the_triggerer_count_from_its_start(
    simulator: Simulator,
) -> None:
    from airflow_provider_timextender.triggers import JobExecutionTrigger
    from airflow_provider_timextender.worlds import BACKSTOP

    def trigger(end: datetime, execution_timeout: timedelta | None = None) -> Any:
        one: Any = JobExecutionTrigger(job_id=OTHER, timeout=600)
        one.timeout_after = end  # how a triggerer knows
        task = SimpleNamespace(template_ext=(), execution_timeout=execution_timeout)
        one.task_instance = SimpleNamespace(task_id="t", task=task)
        return one

    began = datetime.now(timezone.utc) - timedelta(seconds=100)
    asked_at, limits = trigger(began + timedelta(seconds=600) + BACKSTOP)._limits(30)
    assert (asked_at, limits.end) == (began, began + timedelta(seconds=600))
    brought_forward = trigger(began + timedelta(seconds=300), timedelta(seconds=300))
    asked_at, limits = brought_forward._limits(30)
    assert asked_at == began, "by an execution_timeout that came later than the sensor"
    assert limits.end == began + timedelta(seconds=300 - 1.5 * 30), "the next look would come after it"
    assert type(limits.over) is errors.ExecutionTimeout


HOOKS = {
    "on_task_instance_running": True,
    "on_task_instance_success": True,
    "on_task_instance_failed": False,  # failed and skipped tasks end on a worker in any case
    "on_task_instance_skipped": False,
    "on_starting": False,
}
"""What a listener may wait for, and whether a task that a trigger starts or ends would not tell it."""


@starts_in_triggerer
@pytest.mark.parametrize(("hook", "waits"), HOOKS.items())
def test_r42_a_task_starts_and_ends_on_a_worker_if_a_listener_waits_for_it(
    simulator: Simulator, listen: Callable[[str], None], hook: str, waits: bool
) -> None:
    listen(hook)
    simulator.job("load").duration = 60
    assert sensor().start_from_trigger is not waits
    assert (end_with(operator(deferrable=True)) is None) is waits
    assert (end_with(sensor(trigger_id=simulator.run("load").trigger_id)) is None) is waits


@starts_in_triggerer
def test_r42_a_listener_that_does_not_fit_this_airflow_breaks_no_dag_and_leaves_the_ends_to_a_worker(
    simulator: Simulator, mocker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.listeners import hookimpl
    from airflow.sdk import listener

    class OfAirflow2:
        @hookimpl
        def on_task_instance_success(self, previous_state: Any, task_instance: Any, session: Any) -> None:
            pass

    listener.get_listener_manager.cache_clear()
    plugin = SimpleNamespace(name="old", listeners=[OfAirflow2()])
    mocker.patch("airflow.sdk.plugins_manager._get_plugins", return_value=([plugin], {}))
    simulator.job("load").duration = 60
    assert not sensor().start_from_trigger
    assert end_with(operator(deferrable=True)) is None
    assert "whether a listener waits" in caplog.text


# --- where a task is ---


@needs_store
@pytest.mark.parametrize("deferrable", [False, True])
def test_the_state_store_shows_where_the_execution_is(simulator: Simulator, deferrable: bool) -> None:
    store, job = Store(), simulator.job("load")
    job.pickup, job.duration = (60, 0) if deferrable else (0, 1.5)
    one = operator(deferrable=deferrable)
    context = context_of(TaskInstance(), store)
    if deferrable:
        with pytest.raises(TaskDeferred):
            one.execute(context)
    else:
        one.execute(context)
    (execution,) = simulator.world.executions
    shown = store.kept[worlds.STATE_KEY]
    assert shown["trigger_id"] == execution.trigger_id
    assert shown["state"] == ("pending" if deferrable else "running")
    assert datetime.fromisoformat(shown["since"]) <= datetime.now(timezone.utc)


@needs_store
def test_r30_a_state_that_cannot_be_shown_ends_nothing(simulator: Simulator) -> None:
    store = Store()
    after_submission(simulator, lambda: setattr(store, "broken", True))
    assert operator().execute(context_of(TaskInstance(), store)) == simulator.world.executions[0].trigger_id


def test_r16_r28_killing_the_task_says_that_the_job_runs_on(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    one = operator(wait_for_completion=False)
    one.on_kill()
    assert "not stopped" not in caplog.text, "nothing has been started"
    trigger_id = one.execute(context_of(TaskInstance()))
    one.on_kill()
    (warning,) = [r for r in caplog.records if "not stopped" in r.getMessage()]
    assert trigger_id in warning.getMessage()
    assert warning.levelno == logging.WARNING
    assert simulator.count("execute") == 1


# --- after the submission nothing is retried unless TimeXtender says how the execution ended ---


@pytest.mark.parametrize("where", ["settings", "look"])
def test_r10_whatever_goes_wrong_after_the_submission_is_not_retried(
    simulator: Simulator, mocker: Any, where: str
) -> None:
    if where == "look":
        mocker.patch.object(life.Wait, "look", side_effect=RuntimeError("a bug"))
    else:
        mocker.patch(
            "airflow_provider_timextender.connection.Settings.link", side_effect=RuntimeError("a bug")
        )
    with pytest.raises(AirflowFailException, match=r"RuntimeError: a bug.*not retried"):
        operator().execute(context_of(TaskInstance()))
    assert simulator.count("execute") == 1


def test_execution_timeout_while_xcoms_are_pushed_is_not_retried(simulator: Simulator, mocker: Any) -> None:
    ti = TaskInstance()
    mocker.patch.object(ti, "xcom_push", side_effect=AirflowTaskTimeout("Timeout"))
    with pytest.raises(AirflowFailException, match=r"execution_timeout is over.*not retried"):
        operator(wait_for_completion=False).execute(context_of(ti))


def test_r13_the_last_look_always_reads_the_log(simulator: Simulator, mocker: Any) -> None:
    simulator.job("load").duration = 60
    look = mocker.spy(life.Wait, "look")
    with pytest.raises(AirflowFailException, match="it was not over"):
        operator(timeout=0.3, poll_interval=0.05).execute(context_of(TaskInstance()))
    every = [call.kwargs["every"] for call in look.call_args_list]
    assert every[-1] == 1
    assert set(every[:-1]) == {2}
