"""What the tests of whole processes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..airflow import environment
from .lives import Nursery


def pytest_unconfigure() -> None:
    environment.clean_up()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where processes that can die come from, made once for each process that runs tests."""
    with Nursery() as nursery:
        yield nursery
