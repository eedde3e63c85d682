"""An export to a database that is killed changes nothing; its retry writes what an undisturbed one does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ..airflow.running import sqlite_at
from .exporting import EXECUTIONS, Tries, nothing, serving, write_log

pytestmark = pytest.mark.long

SIZE = 1_000_000
"""Bytes of the log: some thousand rows, which are several batches."""

OUTPUT = {"output_conn_id": "dwh"}

TABLES = {"timextender_lines": "execution_key, line", "timextender_executions": "execution_key"}


def die_at_row(number: int) -> None:
    """Kill this process when it has been given so many rows."""
    from airflow_provider_timextender.databases import _Rows

    put, rows = _Rows.put, count(1)

    def put_and_die(self: _Rows, row: dict[str, Any]) -> None:
        put(self, row)
        if next(rows) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    _Rows.put = put_and_die  # type: ignore[method-assign]


def die_at_the_end(before: bool) -> None:
    """Kill this process when it is to let all be seen, or when it has."""
    from airflow_provider_timextender.databases import Tables

    complete = Tables.complete

    def complete_and_die(self: Tables) -> dict[str, Any]:
        if not before:
            complete(self)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    Tables.complete = complete_and_die  # type: ignore[method-assign]


@pytest.fixture(params=["postgres", "sqlite"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database, as the URI of a connection of Airflow's."""
    return str(request.getfixturevalue("postgres")) if request.param == "postgres" else sqlite_at(tmp_path)


@pytest.fixture
def engine(uri: str, tmp_path: Path) -> Iterator[sa.engine.Engine]:
    of_sqlite = f"sqlite:///{tmp_path}/logs.db"
    engine = sa.create_engine(
        of_sqlite if uri.startswith("sqlite") else uri.replace("postgres:", "postgresql+psycopg2:")
    )
    yield engine
    engine.dispose()


def test_r44_a_try_that_is_killed_changes_nothing_and_its_retry_writes_all(
    uri: str, engine: sa.engine.Engine, tmp_path: Path
) -> None:
    write_log(tmp_path / "log.json", SIZE)
    with serving(tmp_path / "log.json") as server:
        tries = Tries(server.server_port, {"AIRFLOW_CONN_DWH": uri})

        def ends(prepare: Callable[[], None] = nothing) -> int | None:
            with tries.begin(OUTPUT, prepare) as process:
                pass
            ended: int | None = process.exitcode
            return ended

        assert ends() == 0
        whole = rows(engine)
        number = sum(map(len, whole))
        assert len(whole[1]) == EXECUTIONS
        assert number > 2000
        for tenth in range(1, 11):
            before = make_old(engine)
            assert ends(partial(die_at_row, number * tenth // 10)) == -signal.SIGKILL
            assert rows(engine) == before, tenth
            assert ends() == 0
            assert rows(engine) == whole, tenth
        before = make_old(engine)
        assert ends(partial(die_at_the_end, before=True)) == -signal.SIGKILL
        assert rows(engine) == before
        assert ends(partial(die_at_the_end, before=False)) == -signal.SIGKILL
        assert rows(engine) == whole
        assert ends() == 0
        assert rows(engine) == whole


def rows(engine: sa.engine.Engine) -> list[list[tuple[object, ...]]]:
    with engine.connect() as connection:
        return [
            [tuple(row) for row in connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY {key}"))]
            for table, key in TABLES.items()
        ]


def make_old(engine: sa.engine.Engine) -> list[list[tuple[object, ...]]]:
    """Let the tables be as an earlier export may have left them, and return their rows."""
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE timextender_lines SET message = 'old'"))
        connection.execute(sa.text("DELETE FROM timextender_lines WHERE line > 20"))
        connection.execute(sa.text("DELETE FROM timextender_executions WHERE execution_key LIKE '%5'"))
    return rows(engine)
