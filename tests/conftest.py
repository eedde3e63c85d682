"""What all tests share: simulators, an Airflow of their own, and a watch over the API key."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Airflow reads its configuration when it is first imported, so this comes before any such import.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-timextender-tests-"))
EXAMPLE_DAGS = Path(__file__).parent.parent / "example_dags"
for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)
os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(EXAMPLE_DAGS),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{AIRFLOW_HOME}/airflow.db",
    AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS="False",
    # Only pytest keeps to itself what is printed; a campaign that is run as a command does not.
    AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG" if "PYTEST_VERSION" in os.environ else "ERROR",
)

import pytest  # noqa: E402
import tenacity  # noqa: E402

from airflow_provider_timextender.simulator import Job, Simulator  # noqa: E402

from .processes.lives import Nursery  # noqa: E402

API_KEY = "tx-S3cret-K3y-0f-the-tests"
"""The key of every simulator here. No output of any test may show it."""

pytest_plugins = ["airflow_provider_timextender.simulator.pytest_plugin"]


def shows_key(text: str) -> bool:
    """Tell whether output shows the API key, on any line but one that is not ours.

    When Airflow 3.3 runs a DAG in one process (``dag.test()``), it logs at debug level the very request by
    which it asks itself to mask a connection's password.
    """
    return any(API_KEY in line for line in text.splitlines() if "msg=MaskSecret(value=" not in line)


def pytest_unconfigure() -> None:
    logging.raiseExceptions = False  # Airflow logs at exit, when pytest has closed the streams
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


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
    from airflow_provider_timextender import client, life

    monkeypatch.setattr(client, "BACKOFF", tenacity.wait_fixed(0.01))
    monkeypatch.setattr(life, "MAX_PAUSE", 0.01)


@pytest.fixture
def _task_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let operators and hooks write their task log where ``caplog`` sees it."""
    from airflow_provider_timextender.hooks import TimeXtenderHook
    from airflow_provider_timextender.operators import ExecuteJobOperator, LogsOperator
    from airflow_provider_timextender.sensors import JobStatusSensor

    for writer in (ExecuteJobOperator, LogsOperator, JobStatusSensor, TimeXtenderHook):
        monkeypatch.setattr(writer, "log", logging.getLogger("tests.task"), raising=False)


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulator with one fast job, ``load``, behind the connection ``timextender_default``."""
    job = Job("load", duration=0.2, pickup=0.1, warnings=1)
    with Simulator([job], api_key=API_KEY) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        yield simulator


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's database, made once."""
    from airflow.utils.db import initdb

    initdb()


class Store:
    """A task state store in memory, which survives the tries of a task; it keeps JSON."""

    def __init__(self, *, broken: bool = False) -> None:
        self.kept: dict[str, Any] = {}
        self.broken = broken

    def get(self, key: str, default: Any = None) -> Any:
        return self.kept.get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.broken:
            raise OSError("no space")
        self.kept[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        if self.broken:
            raise OSError("no space")
        self.kept.pop(key, None)


def after_submission(simulator: Simulator, action: Callable[[], object]) -> None:
    """Do something when a job has been queued over the API."""
    queue = simulator.world.queue

    def queue_and_act(*args: Any, **kwargs: Any) -> Any:
        queued = queue(*args, **kwargs)
        action()
        return queued

    simulator.world.queue = queue_and_act  # type: ignore[method-assign]


@pytest.fixture
def listen() -> Iterator[Callable[[str], None]]:
    """A way to let a listener wait for something, as a plugin does, until the test is over."""
    from airflow.listeners import hookimpl
    from airflow.sdk.listener import get_listener_manager

    manager, listeners = get_listener_manager(), []

    def wait_for(hook: str) -> None:
        listener = type("Listener", (), {hook: hookimpl(lambda self: None)})()
        manager.pm.register(listener)
        listeners.append(listener)

    yield wait_for
    for listener in listeners:
        manager.pm.unregister(listener)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where processes that can die come from."""
    with Nursery() as nursery:
        yield nursery


class TaskInstance:
    """The part of a task instance that the operators use; it keeps what they push."""

    map_index = -1
    try_number = 1
    max_tries = 0
    dag_id = task_id = run_id = "t"

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}
        self.start_date = datetime.now(timezone.utc)
        self.first_reschedule: datetime | None = None

    def xcom_push(self, key: str, value: Any) -> None:
        assert key not in self.xcoms, f"R30: {key} is pushed twice"
        self.xcoms[key] = value

    if find_spec("airflow.sdk"):

        def get_first_reschedule_date(self, context: Any) -> Any:
            return self.first_reschedule


def context_of(ti: TaskInstance, store: Store | None = None) -> Any:
    return {"ti": ti} if store is None else {"ti": ti, "task_state_store": store}


@pytest.fixture
def ti() -> TaskInstance:
    return TaskInstance()


@pytest.fixture
def context(ti: TaskInstance) -> Any:
    """The part of a task's context that is used."""
    return context_of(ti)
