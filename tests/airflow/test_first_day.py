"""The first day with an account that speaks otherwise: from its past to the first load; none is wasted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_timextender import check, errors
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.recording import record
from airflow_provider_timextender.simulator import Recording, Simulator
from airflow_provider_timextender.simulator.server import example_jobs

from ..conftest import API_KEY
from ..shapes import SHAPES, answered, give_a_past
from .running import live, run_dag
from .stand_ins import TaskInstance, context_of


def point_to(monkeypatch: pytest.MonkeyPatch, simulator: Simulator, extra: dict[str, Any]) -> None:
    fields = {**simulator.connection(explained=False), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps(fields))


def look() -> check.Report:
    hook = TimeXtenderHook()
    with hook.get_conn() as carrier:
        account = check.Account(carrier.send, hook.settings.vocabulary, hook.settings.timezone)
        for job in account.choose():
            account.read_log(job.id)
    return check.report(account)


def learnt(monkeypatch: pytest.MonkeyPatch, simulator: Simulator, shape: str) -> check.Report:
    """Paste what the check says into the connection, and answer what it asks."""
    point_to(monkeypatch, simulator, {})
    report = look()
    told = report.to_dict()
    point_to(monkeypatch, simulator, answered(SHAPES[shape], told["vocabulary"], told["questions"]))
    good, message = TimeXtenderHook().test_connection()
    assert good, message
    assert simulator.count("execute") == 0
    return report


@pytest.mark.parametrize("shape", SHAPES)
def test_r47_the_first_load_is_understood(monkeypatch: pytest.MonkeyPatch, dags: Any, shape: str) -> None:
    jobs = example_jobs()
    for job in jobs:
        job.pickup, job.duration = 0.05, 0.1
    with Simulator(jobs, api_key=API_KEY, dialect=SHAPES[shape]) as simulator:
        give_a_past(simulator)
        learnt(monkeypatch, simulator, shape)
        before = len(simulator.world.executions)
        state, _, xcoms = run_dag(dags["example_timextender_sensor_and_logs"])
        assert state == "success"
        (execution,) = simulator.world.executions[before:]
        assert xcoms["wait[-1].return_value"]["trigger_id"] == xcoms["execute[-1].trigger_id"]
        lines = [(e["severity"], e["message"]) for e in xcoms["read_log[-1].return_value"]]
        assert lines == [(line.severity, line.message) for line in execution.lines]

        simulator.job("Load sales").outcome = "failed"
        state, states, _ = run_dag(dags["example_timextender_sensor_and_logs"])
        assert (state, states["wait[-1]"]) == ("failed", "failed")
        assert simulator.count("execute") == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_r47_a_recording_is_enough_to_learn_from(monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    with Simulator(example_jobs(), api_key=API_KEY, dialect=SHAPES[shape]) as simulator:
        for job in simulator.world.jobs.values():
            simulator.past(job.name, "succeeded", ago=7200)
            simulator.past(job.name, "failed", ago=3600)
        point_to(monkeypatch, simulator, {})
        recording = Recording(json.loads(json.dumps(record(look()))))

    with Simulator(recording.jobs, dialect=recording) as replayed:
        for job in replayed.world.jobs.values():
            job.pickup, job.duration = 0.0, 0.05
        learnt(monkeypatch, replayed, shape)
        outcomes = []
        for _ in range(2):
            ti = TaskInstance()

            def make() -> ExecuteJobOperator:
                return ExecuteJobOperator(
                    task_id="t",
                    job_name=recording.jobs[0].name,
                    wait_for_completion=True,
                    poll_interval=0.05,
                    start_timeout=5,
                )

            try:
                live(make, ti, "poke", context_of(ti))
                outcomes.append("succeeded")
            except errors.JobFailed:
                outcomes.append("failed")
        newest_first = SHAPES[shape].order == "newest"
        assert outcomes == (["failed", "succeeded"] if newest_first else ["succeeded", "failed"])
        assert replayed.count("execute") == 2
