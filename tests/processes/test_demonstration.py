"""The demonstration, which uses Airflow's own commands in an Airflow of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

import demo
from airflow_provider_timextender.simulator import Simulator
from airflow_provider_timextender.simulator.server import example_jobs

from ..conftest import API_KEY, shows_key

pytestmark = pytest.mark.long


@pytest.mark.parametrize("fail", [[], ["--fail", "Load sales"]], ids=["succeeds", "fails"])
def test_r34_the_demonstration_tells_people_what_happened_and_the_key_to_nobody(
    fail: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs at debug level, where Airflow and its libraries say all that they can."""
    ran: list[demo.DagRun] = []
    run_dag = demo.run_dag

    def run(dag_id: str, env: Mapping[str, str], on_line: Callable[[str], None]) -> demo.DagRun:
        ran.append(run_dag(dag_id, {**env, "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}, on_line))
        files = [path for path in Path(env["AIRFLOW_HOME"]).rglob("*") if path.is_file()]
        assert any(path.name == "airflow.db" for path in files)
        for path in files:
            assert not shows_key(path.read_bytes().decode(errors="replace")), path
        return ran[0]

    jobs = example_jobs()
    for job in jobs:  # a busy machine must not miss what they do
        job.pickup, job.duration = 4, 4
    monkeypatch.setattr(demo, "example_jobs", lambda: jobs)
    monkeypatch.setattr(demo, "Simulator", partial(Simulator, api_key=API_KEY))
    monkeypatch.setattr(demo, "run_dag", run)
    monkeypatch.setattr("sys.argv", ["demo.py", *fail])
    monkeypatch.setattr("os.environ", dict(os.environ))
    assert demo.main() == bool(fail)
    shown = capfd.readouterr().out
    for part in (
        "Jobs found:",
        "TimeXtender job 'Load sales': queued.",
        "pending",
        "running",
        "Task states:",
    ):
        assert part in shown
    if fail:
        assert "Transfer task 'Load sales - Orders' failed: column 'CustomerKey' does not exist." in shown
        assert "JobFailed: TimeXtender job" in shown
        assert "DAG run: FAILED" in shown
    else:
        assert "Transfer task 'Load sales - Customers': 2 rows were truncated." in shown
        assert "DAG run: success" in shown
    (whole,) = ran
    assert whole.states["wait"] == ("failed" if fail else "success")
    assert "POST /public/jobs/" in whole.output, "it was at debug level"
    assert not shows_key(whole.output)
    assert "outside TaskInstance" not in whole.output, "Airflow 2 has no complaint"
