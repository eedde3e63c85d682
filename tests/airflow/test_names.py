"""Names for people: in XComs, results and events, where tasks are shown, and in what a callback reads."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_timextender import errors
from airflow_provider_timextender.naming import Of
from airflow_provider_timextender.operators import ExecuteJobOperator, LogsOperator
from airflow_provider_timextender.sensors import JobStatusSensor
from airflow_provider_timextender.simulator import Fault, Job, Simulator
from airflow_provider_timextender.triggers import JobExecutionTrigger
from airflow_provider_timextender.worlds import show_name

from ..conftest import API_KEY
from .environment import AIRFLOW_HOME
from .running import DEFERRABLE, MODES, SHARES, arguments_of, fire, live
from .stand_ins import Store, TaskInstance, context_of

pytestmark = pytest.mark.usefixtures("_task_log")

OTHER = "11111111-1111-1111-1111-111111111111"
LONG = {"timeout": 30, "max_unreachable": 5}
Make = Callable[..., Any]


def operator(**arguments: Any) -> ExecuteJobOperator:
    return ExecuteJobOperator(
        **{"task_id": "t", "wait_for_completion": True, "poll_interval": 0.05, **LONG, **arguments}
    )


def sensor(**arguments: Any) -> JobStatusSensor:
    return JobStatusSensor(**{"task_id": "t", "poke_interval": 0.05, **LONG, **arguments})


def logs(**arguments: Any) -> LogsOperator:
    return LogsOperator(task_id="t", **arguments)


no_names = pytest.mark.parametrize(
    "fault",
    [Fault("status", status=503), Fault("status", status=403), Fault("html"), Fault("reset")],
    ids=["503", "403", "html", "reset"],
)


# --- the name of a job that is given by id ---


@pytest.mark.parametrize("mode", ["worker", *DEFERRABLE])
def test_r49_the_operator_asks_once_for_the_name_and_tells_it(simulator: Simulator, mode: str) -> None:
    load, ti, store = simulator.job("load"), TaskInstance(), Store()
    context = context_of(ti, store if SHARES else None)
    live(lambda: operator(job_id=load.id, deferrable=mode in DEFERRABLE), ti, mode, context)
    assert simulator.count("jobs") == 1
    assert (ti.xcoms["job_id"], ti.xcoms["job_name"]) == (load.id, "load")
    assert context["job_name"] == "load"


@no_names
@pytest.mark.parametrize("mode", ["worker", *DEFERRABLE])
def test_r49_a_name_that_cannot_be_had_changes_nothing(simulator: Simulator, mode: str, fault: Fault) -> None:
    simulator.fault("jobs", always=fault)
    load, ti = simulator.job("load"), TaskInstance()
    context = context_of(ti)
    load.outcome = "failed"
    with pytest.raises(errors.JobFailed) as caught:
        live(lambda: operator(job_id=load.id, deferrable=mode in DEFERRABLE), ti, mode, context)
    assert simulator.count("jobs") == simulator.count("execute") == 1, "one attempt"
    assert ti.xcoms["job_name"] is caught.value.job_name is None
    assert str(caught.value).startswith(f"TimeXtender job {load.id} failed: Transfer task")
    assert context["job_name"] == load.id, "people see the id then"


@pytest.mark.parametrize("mode", MODES)
def test_r49_the_sensor_tells_the_name_after_one_look_into_the_list(simulator: Simulator, mode: str) -> None:
    simulator.job("load").duration = 0.5
    execution, ti = simulator.run("load"), TaskInstance()
    given = {"job_id": execution.job.id, "trigger_id": execution.trigger_id}
    result = live(lambda: sensor(**given, **arguments_of(mode)), ti, mode)
    assert result["job_name"] == "load"
    assert simulator.count("jobs") == 1, "also where each look is a process of its own"


@no_names
@pytest.mark.parametrize("mode", MODES)
def test_r49_the_sensor_bears_that_there_is_no_name(simulator: Simulator, mode: str, fault: Fault) -> None:
    simulator.fault("jobs", always=fault)
    execution, ti = simulator.run("load"), TaskInstance()
    given = {"job_id": execution.job.id, "trigger_id": execution.trigger_id}
    result = live(lambda: sensor(**given, **arguments_of(mode)), ti, mode)
    assert (result["state"], result["job_name"]) == ("succeeded", None)
    assert simulator.count("jobs") == 1


def test_r49_a_trigger_without_a_worker_asks_for_the_name_and_bears_that_there_is_none(
    simulator: Simulator,
) -> None:
    execution = simulator.run("load")
    given: dict[str, Any] = {"job_id": execution.job.id, "trigger_id": execution.trigger_id}
    trigger = JobExecutionTrigger(**given, poll_interval=0.05)
    assert fire(trigger)["job_name"] == "load"
    simulator.fault("jobs", always=Fault("status", status=503))
    assert fire(trigger)["job_name"] is None
    assert simulator.count("jobs") == 2
    event = fire(JobExecutionTrigger(**given, job_name="Stock", poll_interval=0.05, max_unreachable=0.1))
    assert event["error"] == "ServerError", "a name that is given has to be checked"


def test_r49_what_a_worker_has_found_is_not_looked_up_again(simulator: Simulator) -> None:
    load = simulator.job("load")
    load.duration = 60
    with pytest.raises(TaskDeferred) as deferred:
        operator(job_id=load.id, job_name="load", deferrable=True).execute(context_of(TaskInstance()))
    # It was renamed in the night; whoever waits for it has found it before.
    simulator.fault("jobs", always=Fault("body", body=json.dumps([{"Id": load.id, "Name": "load v2"}])))
    simulator.finish("failed")
    assert fire(deferred.value.trigger)["job_name"] == "load"
    assert simulator.count("jobs") == 1


@pytest.mark.skipif(not SHARES, reason="before Airflow 3.3 nothing of a task survives its process")
def test_r49_a_retry_knows_the_name_from_the_try_before_it(simulator: Simulator, mocker: Any) -> None:
    load, store, ti = simulator.job("load"), Store(), TaskInstance()
    ti.max_tries = 3
    mocker.patch("airflow_provider_timextender.life.Wait.outcome", side_effect=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        operator(job_id=load.id, retries=3).execute(context_of(ti, store))
    mocker.stopall()
    simulator.fault("jobs", always=Fault("status", status=503))
    again = TaskInstance()
    again.try_number, again.max_tries = 2, 3
    operator(job_id=load.id, retries=3).execute(context_of(again, store))
    assert again.xcoms["job_name"] == "load"
    assert simulator.count("jobs") == 1


# --- a job that is given by both, or by nothing ---

AT_RUN_TIME = [
    ({"job_name": None}, "job_name was given, but is None at run time"),
    ({"job_name": " "}, "job_name was given, but is ' ' at run time"),
    ({"job_id": None}, "job_id was given, but is None at run time"),
    ({"job_id": None, "job_name": None}, "was given, but is None at run time"),
    ({}, "Give a job id or a job name"),
    ({"job_id": OTHER, "job_name": "load"}, f"no job with the id {OTHER}"),
]


@pytest.mark.parametrize(("given", "says"), AT_RUN_TIME)
@pytest.mark.parametrize("make", [operator, sensor, logs])
def test_r49_a_job_that_is_none_or_two_is_refused_before_anything_is_started(
    simulator: Simulator, context: Any, make: Make, given: dict[str, Any], says: str
) -> None:
    for more in [{}] if make is logs else [{}, {"deferrable": True}]:
        with pytest.raises(AirflowFailException, match=says):
            make(**given, **more).execute(context)
    assert simulator.count("execute") == 0


@pytest.mark.parametrize("make", [operator, sensor, logs])
def test_r49_an_id_and_a_name_that_do_not_agree_are_refused(
    simulator: Simulator, context: Any, make: Make
) -> None:
    simulator.world.jobs[OTHER] = Job("stock", id=OTHER)
    with pytest.raises(AirflowFailException, match=r"^TimeXtender job 'load': .*belong together.*'stock'"):
        make(job_id=OTHER, job_name="load").execute(context)
    assert simulator.count("execute") == 0
    twin = simulator.world.jobs[OTHER] = Job("load", id=OTHER)
    make(job_id=twin.id, job_name="load").execute(context)
    assert {r.path.split("/")[3] for r in simulator.requests if r.route != "jobs"} == {OTHER}


def test_r49_a_name_that_is_none_beside_an_id_counts_as_left_out(simulator: Simulator, context: Any) -> None:
    operator(job_id=simulator.job("load").id, job_name=None).execute(context)
    assert simulator.count("execute") == 1


@pytest.mark.parametrize("mode", MODES)
def test_r49_a_blank_name_beside_an_id_spoils_no_success(simulator: Simulator, mode: str) -> None:
    execution = simulator.run("load")
    given = {"job_id": execution.job.id, "job_name": " ", "trigger_id": execution.trigger_id}
    result = live(lambda: sensor(**given, **arguments_of(mode)), TaskInstance(), mode)
    assert (result["state"], result["job_name"]) == ("succeeded", "load")


# --- what a callback reads ---


WAYS = [*((operator, mode) for mode in ("worker", *DEFERRABLE)), *((sensor, mode) for mode in MODES)]


@pytest.mark.parametrize(("make", "mode"), WAYS)
def test_r49_a_failure_has_the_same_attributes_wherever_the_wait_was(
    simulator: Simulator, make: Make, mode: str
) -> None:
    simulator.job("load").outcome = "failed"
    given: dict[str, Any] = {"job_name": "load"}
    if make is sensor:
        given |= {"trigger_id": simulator.run("load").trigger_id, **arguments_of(mode)}
    else:
        given["deferrable"] = mode in DEFERRABLE
    with pytest.raises(errors.JobFailed) as caught:
        live(lambda: make(**given), TaskInstance(), mode)
    error, execution = caught.value, simulator.world.executions[-1]
    assert (error.job_id, error.job_name, error.trigger_id) == (
        execution.job.id, "load", execution.trigger_id
    )  # fmt: skip
    assert error.message == "Transfer task 'load - Orders' failed: column 'CustomerKey' does not exist."
    assert error.error_lines == ("Invalid column name 'CustomerKey'.", error.message)
    for moment, told in ((execution.started, error.start), (execution.ended, error.end)):
        assert told is not None
        assert told.timestamp() == pytest.approx(moment, abs=1e-5)


@pytest.mark.parametrize("mode", ["worker", *DEFERRABLE])
def test_r49_a_job_that_never_started_has_them_too(simulator: Simulator, mode: str) -> None:
    simulator.job("load").outcome = "never starts"
    ti = TaskInstance()
    with pytest.raises(errors.JobNeverStarted) as caught:
        live(
            lambda: operator(
                job_name="load", start_timeout=0.6, poll_interval=2, deferrable=mode in DEFERRABLE
            ),
            ti,
            mode,
        )
    error = caught.value
    assert (error.job_name, error.trigger_id) == ("load", ti.xcoms["trigger_id"])
    assert error.message.startswith("it has been idle for ")
    assert (error.error_lines, error.start, error.end) == ((), None, None)


# --- in a real Airflow ---

THE_DAG = """
import json
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_timextender.naming import Of
from airflow_provider_timextender.operators import ExecuteJobOperator

def note(context):
    error = context["exception"]
    told = {name: str(getattr(error, name)) for name in
            ("job_id", "job_name", "trigger_id", "message", "error_lines", "start", "end")}
    with open(NOTES, "a") as notes:
        notes.write(json.dumps({**told, "type": type(error).__name__}) + "\\n")

with DAG("names", schedule=None, user_defined_macros=MACROS) as dag:
    ExecuteJobOperator.partial(
        task_id="load", wait_for_completion=True, poll_interval=0.1, deferrable=DEFERRABLE,
        map_index_template="{{ job_name }}", on_failure_callback=note, retries=0,
    ).expand(job_id=JOBS)
"""


@pytest.fixture
def real(airflow_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Run a DAG of mapped loads; return what Airflow shows of each, and what the callbacks have noted."""
    sales, stock = Job("Load sales"), Job("Load stock", outcome="failed")
    for job in (sales, stock):
        job.pickup, job.duration = 0.1, 0.2
    with Simulator([sales, stock], api_key=API_KEY) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())

        def run(*, deferrable: bool, macros: dict[str, str]) -> tuple[Any, list[str | None], list[Any]]:
            notes, file = tmp_path / "notes", tmp_path / "names.py"
            values = {
                "JOBS": [sales.id, stock.id], "NOTES": str(notes), "DEFERRABLE": deferrable, "MACROS": macros
            }  # fmt: skip
            file.write_text("\n".join(f"{name} = {value!r}" for name, value in values.items()) + THE_DAG)
            try:
                bag = import_module("airflow.dag_processing.dagbag").DagBag
            except ImportError:
                bag = import_module("airflow.models.dagbag").DagBag
            bundle = {"name": "names", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle"}
            bundles = json.dumps([{**bundle, "kwargs": {"path": str(tmp_path)}}])
            monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", bundles)
            dag_run = bag(str(file)).dags["names"].test()
            with sqlite3.connect(AIRFLOW_HOME / "airflow.db") as database:
                shown = database.execute(
                    "SELECT rendered_map_index FROM task_instance WHERE run_id = ? ORDER BY map_index",
                    (dag_run.run_id,),
                ).fetchall()
            noted = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
            return simulator, [one for (one,) in shown], noted

        yield run


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_r49_a_mapped_task_shows_the_name_and_a_callback_reads_the_failure(
    real: Make, deferrable: bool
) -> None:
    simulator, shown, noted = real(deferrable=deferrable, macros={})
    assert shown == ["Load sales", "Load stock"]
    (error,) = noted
    failed = next(e for e in simulator.world.executions if e.outcome == "failed")
    assert (error["type"], error["job_name"], error["job_id"]) == ("JobFailed", "Load stock", failed.job.id)
    assert error["trigger_id"] == failed.trigger_id
    assert "CustomerKey" in error["message"]
    assert "Invalid column name" in error["error_lines"]
    assert error["start"] < error["end"]


def test_r49_what_a_dag_itself_calls_job_name_keeps_its_meaning(real: Make) -> None:
    _, shown, _ = real(deferrable=False, macros={"job_name": "mine"})
    assert shown == ["mine", "mine"]


def test_r49_a_long_name_leaves_room_in_the_250_characters_of_a_label() -> None:
    context: dict[str, Any] = {}
    show_name(context, Of(OTHER, "load" * 99))
    assert context == {"job_name": "load" * 50}


def test_r49_what_the_context_has_is_not_overwritten() -> None:
    context: dict[str, Any] = {"job_name": "mine"}
    show_name(context, Of(OTHER, "load"))
    assert context == {"job_name": "mine"}


@pytest.mark.parametrize(
    ("template", "end_with"), [("{{ job_name }}", None), ("{{ task.job_name }}", "trigger_id")]
)
def test_r49_a_name_that_a_worker_has_to_show_is_not_left_to_the_triggerer(
    simulator: Simulator, template: str, end_with: str | None
) -> None:
    simulator.job("load").duration = 60
    one = operator(job_name="load", deferrable=True, map_index_template=template)
    with pytest.raises(TaskDeferred) as deferred:
        one.execute(context_of(TaskInstance()))
    assert deferred.value.trigger.arguments["end_with"] == (end_with if SHARES else None)


# --- what people read ---


@pytest.mark.skipif(not SHARES, reason="before Airflow 3.3 nothing of a task survives its process")
def test_r49_a_task_that_waits_for_its_turn_tells_of_no_job_that_it_ran_before(simulator: Simulator) -> None:
    store, ti = Store(), TaskInstance()
    operator(job_id=simulator.job("load").id, wait_for_completion=False).execute(context_of(ti, store))
    stock = simulator.world.jobs[OTHER] = Job("stock", id=OTHER, duration=60)
    simulator.world.queue(stock, time.time() - 1)
    again = TaskInstance()
    again.try_number, again.max_tries = 2, 1  # cleared
    again.xcom_pull = lambda **_: None  # type: ignore[attr-defined]
    turn = {"job_id": stock.id, "if_running": "wait", "deferrable": True, "timeout": 60}
    with pytest.raises(TaskDeferred) as deferred:
        operator(**turn).execute(context_of(again, store))
    told = {**deferred.value.trigger.arguments, "error": "WaitTimeout", "message": "it runs."}
    lost: dict[str, Any] = {"error": "Trigger timeout", "traceback": None}
    for method, kwargs in (("execute_complete", {"event": told}), ("__fail__", lost)):
        context = context_of(again, store)
        with pytest.raises(errors.WaitTimeout, match=f"^TimeXtender job ('stock'|{OTHER}): ") as over:
            operator(**turn).resume_execution(method, kwargs, context)
        assert over.value.job_id == stock.id
        assert context["job_name"] in ("stock", stock.id)


def test_r49_each_line_of_a_task_and_each_warning_begins_with_the_name(
    simulator: Simulator, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.job("load").duration = 0.3
    operator(job_name="load").execute(context)
    lines = [r.getMessage() for r in caplog.records if r.name == "tests.task" and r.levelno >= logging.INFO]
    ours = [line for line in lines if line.startswith("TimeXtender job 'load': ")]
    assert [line.split(": ")[1].split(",")[0].split(". ")[0] for line in ours if "pending" not in line] == [
        "queued", "The execution is running.", "its log follows as it comes", "the execution succeeded"
    ]  # fmt: skip
    ids = f"(job id {simulator.job('load').id}, trigger id {simulator.world.executions[0].trigger_id})"
    assert ours[0].endswith(ids)
    assert ours[-1].endswith(ids)
    about = [line for line in lines if not line.startswith("TimeXtender: ") and "execute cannot" not in line]
    assert [line for line in about if line not in ours and not line.startswith("this Airflow")] == []
