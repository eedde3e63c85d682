"""A pytest fixture for tests of your own DAGs.

Load it in ``conftest.py``::

    pytest_plugins = ["airflow_provider_timextender.simulator.pytest_plugin"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_timextender.simulator import Simulator


@pytest.fixture
def timextender_simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulator with example jobs, to which the connection ``timextender_default`` leads."""
    with Simulator() as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        yield simulator
