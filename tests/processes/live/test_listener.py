"""A live Airflow with a plugin that listens: what it hears of the tasks, and what an example does there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_timextender.simulator import Job, Simulator
from airflow_provider_timextender.simulator.server import example_jobs
from stack import until

from ...airflow.environment import EXAMPLE_DAGS
from ...airflow.running import SHARES
from ...conftest import API_KEY
from .stack import Stack

pytestmark = [
    pytest.mark.live,
    pytest.mark.long,
    pytest.mark.skipif(not SHARES, reason="before Airflow 3.3 each task starts and ends on a worker"),
]

TASKS = ("worker", "deferrable", "sensor")
EXAMPLE = "example_timextender_deferrable"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    jobs = [Job(name, pickup=0.2, duration=3600) for name in TASKS]
    with Simulator([*jobs, *example_jobs()], api_key=API_KEY) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the listener writes."""
    return tmp_path_factory.mktemp("heard") / "heard.txt"


@pytest.fixture(scope="module")
def airflow(simulator: Simulator, heard: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    here = Path(__file__).parent / "listener"
    dags = tmp_path_factory.mktemp("dags")
    for file in (here / "dags/heard.py", EXAMPLE_DAGS / f"{EXAMPLE}.py"):
        shutil.copy(file, dags)
    settings = {"AIRFLOW__CORE__PLUGINS_FOLDER": str(here / "plugins"), "LIVE_HEARD": str(heard)}
    connections = {"timextender_default": simulator.connection_json()}
    with Stack(tmp_path_factory.mktemp("live"), dags, connections, settings) as stack:
        yield stack


def lives(heard: Path, run_id: str) -> dict[str, list[str]]:
    """Return what the listener heard of each task of a run, in turn."""
    found: dict[str, list[str]] = {}
    for line in heard.read_text().splitlines():
        run, task, what = line.split()
        if run == run_id:
            found.setdefault(task, []).append(what)
    return found


def all_lives(heard: Path, run_id: str, end: str) -> dict[str, list[str]]:
    """Return the same, with the three ends; Airflow tells a listener of an end just after it has happened."""
    until(lambda: [life[-1] for life in lives(heard, run_id).values()] == [end] * 3, 30, "what is heard")
    return lives(heard, run_id)


@pytest.mark.parametrize(("outcome", "end"), [("succeeded", "succeeds"), ("failed", "fails")])
def test_r42_a_listener_hears_of_each_start_and_each_end(
    airflow: Stack, simulator: Simulator, heard: Path, outcome: Any, end: str
) -> None:
    run_id = airflow.trigger("live_heard", trigger_id=simulator.run("sensor").trigger_id)

    def all_wait() -> bool:
        busy = [e for e in simulator.world.executions if e.state(time.time()) == "running"]
        return len(busy) == 3 and airflow.states("live_heard", run_id) == {"running": 1, "deferred": 2}

    until(all_wait, 120, "all wait")
    assert lives(heard, run_id) == {f"{task}[-1]": ["starts"] for task in TASKS}
    simulator.finish(outcome)
    assert airflow.wait("live_heard", run_id, 120) == {"succeeds": "success", "fails": "failed"}[end]
    assert all_lives(heard, run_id, end) == {
        "worker[-1]": ["starts", end],
        # Airflow tells a listener also when a worker goes on with a task.
        "deferrable[-1]": ["starts", "starts", end],
        "sensor[-1]": ["starts", "starts", end],
    }


def test_r42_the_deferrable_example_runs_as_it_stands(airflow: Stack, heard: Path) -> None:
    run_id = airflow.trigger(EXAMPLE)
    assert airflow.wait(EXAMPLE, run_id, 120) == "success"
    found = all_lives(heard, run_id, "succeeds")
    assert set(found) == {"load[0]", "load[1]", "wait_for_stock[-1]"}
    assert {life[0] for life in found.values()} == {"starts"}
