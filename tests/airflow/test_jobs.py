"""JobsOperator: which jobs there are, as other tasks are mapped over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_timextender.operators import ExecuteJobOperator, JobsOperator
from airflow_provider_timextender.sensors import JobStatusSensor
from airflow_provider_timextender.simulator import Dialect, Job, Simulator

from ..conftest import API_KEY

pytestmark = pytest.mark.usefixtures("_task_log")


@pytest.fixture
def three_jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    jobs = [Job("Load sales"), Job("Load stock", duration=60, pickup=0), Job("Clean up", pickup=60)]
    with Simulator(jobs, api_key=API_KEY) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        simulator.run("Load stock")
        simulator.run("Clean up")
        yield simulator


def listed(**arguments: Any) -> list[dict[str, Any]]:
    context: Any = {}
    return JobsOperator(task_id="t", **arguments).execute(context)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, ["Load sales", "Load stock", "Clean up"]),
        ({"job_name_pattern": "^Load "}, ["Load sales", "Load stock"]),
        ({"job_name_pattern": "S"}, []),
        ({"job_name_pattern": "(?i)STOCK$"}, ["Load stock"]),
        ({"state": "idle"}, ["Load sales"]),
        ({"state": ["running", "pending"]}, ["Load stock", "Clean up"]),
        ({"state": "running", "job_name_pattern": "^Clean"}, []),
    ],
)
def test_jobs_are_listed_by_name_and_state(
    three_jobs: Simulator, wanted: dict[str, Any], names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert listed(**wanted) == [{"job_id": three_jobs.job(name).id, "job_name": name} for name in names]
    assert f"{len(names)} of 3 jobs: " in caplog.text
    assert [r.route for r in three_jobs.requests] == ["jobs", "statuses"][: 1 + ("state" in wanted)]


def test_each_of_them_is_what_other_operators_take(three_jobs: Simulator, context: Any) -> None:
    for job in listed(job_name_pattern="sales"):
        ExecuteJobOperator(task_id="t", wait_for_completion=True, poll_interval=0.05, **job).execute(context)
        done = JobStatusSensor(task_id="t", **job).execute(context)
        assert done["job_name"] == "Load sales"


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"job_name_pattern": "Load ("}, "job_name_pattern 'Load \\(' is not a regular expression"),
        ({"job_name_pattern": "*"}, "job_name_pattern '\\*' is not a regular expression"),
        ({"job_name_pattern": " "}, "job_name_pattern was given, but is ' ' at run time"),
        ({"job_name_pattern": None}, "job_name_pattern was given, but is None at run time"),
        ({"state": None}, "state was given, but is None at run time"),
        ({"state": "Idle"}, "state is 'Idle'; it takes idle, pending, running, or several"),
        ({"state": ["idle", "done"]}, "state is .'idle', 'done'.; it takes .* or several\\.$"),
        ({"state": "['idle']"}, "state is .*A template .* render_template_as_native_obj=True"),
        ({"state": []}, "state was given, but is \\[\\] at run time"),
        ({"state": 3}, "state was given, but is 3 at run time"),
    ],
)
def test_r08_a_bad_argument_fails_before_anything_is_sent(
    three_jobs: Simulator, argument: dict[str, Any], says: str
) -> None:
    with pytest.raises(AirflowFailException, match=says):
        listed(**argument)
    assert three_jobs.requests == []


def test_r48_a_filter_on_what_is_not_understood_is_an_error_that_names_the_override(
    three_jobs: Simulator,
) -> None:
    three_jobs.dialect = Dialect(renamed={"Name": "Called", "Status": "Mood"})
    assert [job["job_name"] for job in listed()] == [None] * 3
    with pytest.raises(AirflowFailException, match=r"The job name is understood of no job: .*job\.name"):
        listed(job_name_pattern="Load")
    with pytest.raises(AirflowFailException, match=r"The state is understood of no job: .*status\.state"):
        listed(state="idle")


def test_r48_a_job_of_which_it_is_not_understood_is_left_out_with_a_warning(
    three_jobs: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(three_jobs.job("Load sales"), "name", "")
    assert [job["job_name"] for job in listed(job_name_pattern="^")] == ["Load stock", "Clean up"]
    assert "The job name is not understood of 1 of 3 jobs, which are left out: no value for" in caplog.text


def test_r37_its_arguments_are_templated_and_only_assigned() -> None:
    strange: Any = object()
    operator = JobsOperator(task_id="t", job_name_pattern=strange, state=strange)
    assert (operator.job_name_pattern, operator.state) == (strange, strange)
    assert {"job_name_pattern", "state", "timextender_conn_id"} == set(operator.template_fields)
