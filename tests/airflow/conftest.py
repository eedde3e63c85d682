"""What the tests with Airflow share."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from . import environment, running
from .stand_ins import TaskInstance, context_of


def pytest_unconfigure() -> None:
    environment.clean_up()


@pytest.fixture
def _task_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let operators and hooks write their task log where ``caplog`` sees it."""
    from airflow_provider_timextender.hooks import TimeXtenderHook
    from airflow_provider_timextender.operators import ExecuteJobOperator, JobsOperator, LogsOperator
    from airflow_provider_timextender.sensors import JobStatusSensor

    for writer in (ExecuteJobOperator, JobsOperator, LogsOperator, JobStatusSensor, TimeXtenderHook):
        monkeypatch.setattr(writer, "log", logging.getLogger("tests.task"), raising=False)


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's database, made once for each process that runs tests."""
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="session")
def dags(airflow_db: None) -> Any:
    """The example DAGs by id."""
    new, old = "airflow.dag_processing.dagbag", "airflow.models.dagbag"
    module = import_module(new if find_spec(new) else old)
    bag = module.DagBag(str(environment.EXAMPLE_DAGS))
    assert {Path(file).stem for file in bag.import_errors} == running.NOT_FOR_AIRFLOW_2
    assert sorted(bag.dags) == running.DAGS
    return bag.dags


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


@pytest.fixture
def ti() -> TaskInstance:
    return TaskInstance()


@pytest.fixture
def context(ti: TaskInstance) -> Any:
    """The part of a task's context that is used."""
    return context_of(ti)


@pytest.fixture(scope="session")  # what moto holds is there until the process ends
def s3() -> Iterator[Any]:
    """An S3 of moto with a bucket, behind the connection ``store``."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    way = {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-north-1"}
    client = boto3.client("s3", aws_access_key_id="id", aws_secret_access_key="a-secret", **way)
    client.create_bucket(
        Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": way["region_name"]}
    )
    fields = {"conn_type": "aws", "login": "id", "password": "a-secret", "extra": way}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "AIRFLOW_CONN_STORE", json.dumps(fields))
        yield client
    server.stop()
