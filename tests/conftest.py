"""What all tests share, with Airflow or without: a profile, simulators, and a watch over the API key."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from airflow_provider_timextender import life
from airflow_provider_timextender.simulator import Job, Simulator

from .postgres import Postgres

for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)

# How long an example takes tells more about the machine, and what else it does, than about what is tested.
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

API_KEY = "tx-S3cret-K3y-0f-the-tests"
"""The key of every simulator here. No output of any test may show it."""

AIRFLOW_FREE = {"pure", "http"}
"""The folders of the tests that get on without Airflow."""

LAYERS = pytest.StashKey[set[str]]()

pytest_plugins = ["airflow_provider_timextender.simulator.pytest_plugin"]


def shows_key(text: str) -> bool:
    """Tell whether output shows the API key, on any line but one that is not ours.

    When Airflow 3.3 runs a DAG in one process (``dag.test()``), it logs at debug level the very request by
    which it asks itself to mask a connection's password.
    """
    return any(API_KEY in line for line in text.splitlines() if "msg=MaskSecret(value=" not in line)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, where many processes share the tests out."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    here = Path(__file__).parent
    session.config.stash[LAYERS] = {item.path.relative_to(here).parts[0] for item in session.items}


@pytest.fixture(autouse=True)
def _no_airflow(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where nothing needs Airflow, nothing may have imported it: not a test, and not its module."""
    yield
    if request.config.stash[LAYERS] <= AIRFLOW_FREE:
        assert "airflow" not in sys.modules


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Fail a test if anything that it printed, logged or raised shows the API key (R34)."""
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    shown = [text for _, text in report.sections]
    if call.excinfo is not None:
        shown.append(str(call.excinfo.value))
    if any(shows_key(text) for text in shown):
        report.outcome = "failed"
        report.longrepr = "R34: the API key appears in what this test printed, logged or raised."


@pytest.fixture(autouse=True)
def _debug_logging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


@pytest.fixture(autouse=True)
def _quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "MAX_PAUSE", 0.01)


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulator with one fast job, ``load``, behind the connection ``timextender_default``."""
    job = Job("load", duration=0.2, pickup=0.1, warnings=1)
    with Simulator([job], api_key=API_KEY) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        yield simulator


@pytest.fixture(scope="session")
def _postgres_server() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres(_postgres_server: Postgres) -> str:
    """A new database of a real PostgreSQL, as the URI of a connection of Airflow's."""
    return _postgres_server.new_database()


def after_submission(simulator: Simulator, action: Callable[[], object]) -> None:
    """Do something when a job has been queued over the API."""
    queue = simulator.world.queue

    def queue_and_act(*args: Any, **kwargs: Any) -> Any:
        queued = queue(*args, **kwargs)
        action()
        return queued

    simulator.world.queue = queue_and_act  # type: ignore[method-assign]
