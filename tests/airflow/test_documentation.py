"""Every snippet of the documentation that needs Airflow is run here, or is a part of a file that is."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import Any

import pytest
from aiohttp import web
from airflow.models.pool import Pool
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_timextender import model
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.jobs_api import Call, _Parser, _path
from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.sensors import JobStatusSensor
from airflow_provider_timextender.simulator import Dialect, Fault, Job, Simulator

from ..pure.test_documentation import ROOT, blocks


def test_hook_snippet(timextender_simulator: Simulator) -> None:
    # [hook: begin]
    hook = TimeXtenderHook("timextender_default")

    job = hook.get_job(job_name="Load sales")
    submission = hook.execute_job(job.id)
    status = hook.get_job_status(job.id)  # of the job, not of this execution

    for execution in hook.get_job_logs(job.id, submission.trigger_id):
        print(execution.state, execution.duration)
    for log in hook.iter_job_logs(job.id):
        print(log.time, log.severity, log.message)

    statuses = [status.to_dict() for status in hook.get_all_job_statuses()]
    # [hook: end]
    assert status.state is not None
    assert len(statuses) == 3


# [testing: begin]
def test_the_load_is_started_once(timextender_simulator, context):
    timextender_simulator.job("Load sales").duration = 0.1

    trigger_id = ExecuteJobOperator(
        task_id="load", job_name="Load sales", wait_for_completion=True, poll_interval=0.1
    ).execute(context)  # or run your whole DAG with dag.test()

    assert timextender_simulator.count("execute") == 1
    assert trigger_id == timextender_simulator.world.executions[0].trigger_id


# [testing: end]


# [context manager: begin]
def test_a_load_that_a_person_started(monkeypatch, context):
    with Simulator([Job("Load HR", duration=0.2, warnings=1)]) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_HR", simulator.connection_json())
        simulator.run("Load HR", by="hand")

        result = JobStatusSensor(
            task_id="wait", job_name="Load HR", timextender_conn_id="timextender_hr", poke_interval=0.1
        ).execute(context)

    assert result["state"] == "idle"


# [context manager: end]


@pytest.mark.long  # it looks for the load until no log can be late any more
# [faults: begin]
def test_a_lost_reply_does_not_start_the_load_again(timextender_simulator, context):
    timextender_simulator.fault("execute", Fault("reset", taken=True))

    load = ExecuteJobOperator(task_id="load", job_name="Load sales", poll_interval=0.1)

    assert load.execute(context) == timextender_simulator.world.executions[0].trigger_id
    assert timextender_simulator.count("execute") == 1


# [faults: end]


# [dialect: begin]
def test_the_load_in_a_dialect_of_ones_own(monkeypatch, context):
    states = {"running": 0, "succeeded": 1, "failed": 2}
    dialect = Dialect(ids="upper", renamed={"State": "Result"}, states=states)
    with Simulator([Job("Load HR", duration=0.1)], dialect=dialect) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())

        ExecuteJobOperator(
            task_id="load", job_name="Load HR", wait_for_completion=True, poll_interval=0.1
        ).execute(context)

    assert simulator.count("execute") == 1


# [dialect: end]


# [one job: begin]
def one_job(job_id: str) -> Call[model.Job]:
    """One job."""

    def parse(parser: _Parser, data: Any) -> model.Job:
        return parser.job(parser.object(data))

    return Call("GET", _path(job_id), "job", parse)


# [one job: end]


class HookWithOneMore(TimeXtenderHook):
    # [hook method: begin]
    def get_one_job(self, job_id: str) -> model.Job:
        """Return one job, with one request."""
        return self._read(one_job(job_id))

    # [hook method: end]


class SimulatorWithOneMore(Simulator):
    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        self._record("unknown", request)
        return web.json_response(self.dialect.write_jobs([self.job("Load HR")]).data[0])


def test_an_endpoint_more_is_a_call_and_a_line_of_the_hook(monkeypatch):
    with SimulatorWithOneMore([Job("Load HR")]) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        job_id = simulator.job("Load HR").id

        job = HookWithOneMore().get_one_job(job_id)

    assert (job.id, job.name) == (job_id, "Load HR")
    assert [request.path for request in simulator.requests] == [f"/public/jobs/{job_id}"]


def test_r21_the_pool_that_is_recommended_includes_deferred_tasks(airflow_db: None) -> None:
    (command,) = blocks(ROOT / "docs/waiting.md", "bash")
    subprocess.run(shlex.split(f"{sys.executable} -m {command}"), check=True)
    with DAG("pool", schedule=None):
        # [pool: begin]
        load = ExecuteJobOperator.partial(
            task_id="load", wait_for_completion=True, deferrable=True, pool="timextender"
        ).expand(job_name=["Load sales", "Load finance"])
        # [pool: end]
    pool = Pool.get_pool(load.pool)
    assert pool is not None
    assert (pool.slots, pool.include_deferred) == (8, True)
    Pool.delete_pool(load.pool)
