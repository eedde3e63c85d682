"""The demonstration, which uses Airflow's own commands in an Airflow of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import demo
from airflow_provider_timextender.simulator import Simulator
from airflow_provider_timextender.simulator.server import example_jobs

from ..conftest import API_KEY, shows_key

pytestmark = pytest.mark.long


@pytest.mark.parametrize("fail", [False, True], ids=["succeeds", "fails"])
def test_r34_a_whole_run_at_debug_level_shows_the_key_nowhere(tmp_path: Path, fail: bool) -> None:
    jobs = example_jobs()
    jobs[0].outcome = "failed" if fail else "succeeded"
    told: list[str] = []
    with Simulator(jobs, api_key=API_KEY) as simulator:
        env = {**demo.environment(tmp_path, simulator), "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}
        ran = demo.run_dag("example_timextender_sensor_and_logs", env, told.append)
    assert ran.succeeded is not fail
    assert ran.states["wait"] == ("failed" if fail else "success")
    if fail:
        (execution,) = simulator.world.executions
        assert any(execution.trigger_id in line and execution.message in line for line in told)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "airflow.db" for path in files)
    assert "POST /public/jobs/" in ran.output, "it was at debug level"
    assert not shows_key(ran.output)
    assert "outside TaskInstance" not in ran.output, "Airflow 2 has no complaint"
    for path in files:
        assert not shows_key(path.read_bytes().decode(errors="replace")), path


@pytest.mark.parametrize("fail", [[], ["--fail", "Load sales"]], ids=["succeeds", "fails"])
def test_the_demonstration_tells_people_what_happened(
    fail: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = example_jobs()
    for job in jobs:  # a busy machine must not miss what they do
        job.pickup, job.duration = 4, 4
    monkeypatch.setattr(demo, "example_jobs", lambda: jobs)
    monkeypatch.setattr("sys.argv", ["demo.py", *fail])
    monkeypatch.setattr("os.environ", dict(os.environ))
    assert demo.main() == bool(fail)
    shown = capfd.readouterr().out
    for part in ("Jobs found:", "Queued TimeXtender job 'Load sales'", "pending", "running", "Task states:"):
        assert part in shown
    if fail:
        assert "Transfer task 'Load sales - Orders' failed: column 'CustomerKey' does not exist." in shown
        assert "JobFailed: TimeXtender job" in shown
        assert "DAG run: FAILED" in shown
    else:
        assert "Transfer task 'Load sales - Customers': 2 rows were truncated." in shown
        assert "DAG run: success" in shown
