"""The demonstration, which uses Airflow's own commands in an Airflow of its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

import demo
from airflow_provider_timextender.simulator import Simulator
from airflow_provider_timextender.simulator.server import example_jobs

from ..airflow.running import SHARES
from ..conftest import API_KEY, shows_key

pytestmark = pytest.mark.long


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["demo.py", *arguments])
    monkeypatch.setattr("os.environ", dict(os.environ))
    return demo.main()


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
        job.pickup, job.duration, job.lines = 4, 4, 4
    monkeypatch.setattr(demo, "example_jobs", lambda: jobs)
    monkeypatch.setattr(demo, "Simulator", partial(Simulator, api_key=API_KEY))
    monkeypatch.setattr(demo, "run_dag", run)
    assert run_main(monkeypatch, *fail) == bool(fail)
    shown = capfd.readouterr().out
    for part in (
        "Jobs found:",
        "TimeXtender job 'Load sales': queued.",
        "pending",
        "running",
        "Task states:",
    ):
        assert part in shown
    assert shown.count("Transfer task 'Load sales - Products' finished.") == 1, "each log once"
    assert shown.partition(" read_log:\n")[2].count(demo.AS_ABOVE) == 1
    if fail:
        assert "Transfer task 'Load sales - Orders' failed: column 'CustomerKey' does not exist." in shown
        assert "JobFailed: TimeXtender job" in shown
        assert "DAG run: FAILED" in shown
    else:
        assert "Transfer task 'Load sales - Customers': 2 rows were truncated." in shown
        assert "DAG run: success" in shown
    (whole,) = ran
    assert whole.states["read_log"] == "success", "also after a failure"
    assert whole.states["wait"] == ("failed" if fail else "success")
    assert "POST /public/jobs/" in whole.output, "it was at debug level"
    assert not shows_key(whole.output)
    assert "outside TaskInstance" not in whole.output, "Airflow 2 has no complaint"


@pytest.mark.live
@pytest.mark.skipif(not SHARES, reason="the live tests are written for Airflow 3.3 and later")
def test_the_demonstration_of_events_shows_one_that_starts_a_dag(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_main(monkeypatch, "--dag", demo.ON_EVENT) == 0
    shown = capfd.readouterr().out
    (trigger_id,) = re.findall(r"The job runs on its own schedule, trigger id (\S+)\.", shown)
    (event,) = [json.loads(line) for line in shown.splitlines() if line.startswith("  {")]
    assert event["payload"]["trigger_id"] == trigger_id
    assert "started DAG run asset_triggered__" in shown
    assert re.search(r"refresh_reports +success", shown)
    assert "Executions queued by Airflow: 0" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fail", "Load sale"], "there is no job 'Load sale'"),
        (
            ["--dag", demo.ON_EVENT, "--fail", "Load sales"],
            "only a job that succeeds" if SHARES else "Airflow 3",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as refused:
        run_main(monkeypatch, *arguments)
    assert refused.value.code == 2
    assert said in capfd.readouterr().err
