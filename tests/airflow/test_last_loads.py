"""The recipe that tells when each transfer task last succeeded and failed: in PostgreSQL and as Parquet."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from airflow_provider_timextender.databases import _engine
from airflow_provider_timextender.model import parse_time
from airflow_provider_timextender.simulator import Job, Simulator
from airflow_provider_timextender.simulator.world import Ending

from ..conftest import API_KEY
from ..pure.test_documentation import ROOT, blocks
from .running import run_dag, sqlite_at

PAGE = ROOT / "docs/databases.md"

Rows = list[tuple[Any, ...]]


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two jobs with a past: a task that succeeds always, one that failed last, and one that only failed."""
    sales, stock = Job("Load sales", lines=3, duration=60), Job("Load stock", lines=0, duration=30)
    with Simulator([sales, stock], api_key=API_KEY) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        outcomes: list[tuple[int, Ending]] = [
            (5, "succeeded"),
            (4, "failed"),
            (3, "succeeded"),
            (2, "failed"),
        ]
        for hours, outcome in outcomes:
            sales.duration = 60 * hours
            simulator.past("Load sales", outcome, ago=3600 * hours, by="hand" if hours == 3 else "schedule")
        simulator.past("Load stock", "failed", ago=3600)
        yield simulator


def truth(simulator: Simulator) -> Rows:
    """Return the table as it follows from what has happened."""
    found: dict[str, list[Any]] = {}
    for execution in sorted(simulator.world.executions, key=lambda e: e.started):
        for line in execution.lines:
            for word, place in (("finished", 0), ("failed", 1)):
                if line.message.startswith("Transfer task") and f"' {word}" in line.message:
                    row = found.setdefault(line.message.split("'")[1], [None, None, None])
                    row[place] = datetime.fromtimestamp(line.at, timezone.utc)
                    if word == "finished":
                        row[2] = execution.ended - execution.started
    return [(task.split(" - ")[0], task, *row) for task, row in sorted(found.items())]


def same(rows: Rows, others: Rows) -> bool:
    return [rounded(row) for row in rows] == [rounded(row) for row in others]


def rounded(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row with times and durations in whole milliseconds, which is what the API tells."""
    times = [value and round(parse_time(str(value)).timestamp(), 2) for value in row[2:4]]  # type: ignore[union-attr]
    return (*row[:2], *times, row[4] and round(row[4], 2))


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_the_table_of_last_loads_is_the_truth_in_a_database_and_as_parquet(
    kind: str,
    dags: Any,
    history: Simulator,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = sqlite_at(tmp_path) if kind == "sqlite" else request.getfixturevalue("postgres")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", uri)
    in_files = dags["example_timextender_last_loads"]
    monkeypatch.setattr(in_files.get_task("logs"), "output_path", f"file://{tmp_path}/logs.parquet")
    in_sql = dags["example_timextender_last_loads_sql"]
    assert run_dag(in_sql)[0] == run_dag(in_files)[0] == "success"

    engine = _engine("warehouse")
    query = in_sql.get_task("last_loads").sql
    with engine.begin() as connection:
        of_database = [tuple(row) for row in connection.execute(sa.text(query))]
        view, *_ = query.rpartition("ORDER BY transfer_task")
        connection.execute(sa.text(f"CREATE VIEW timextender_last_loads AS {view}"))
        by_source = [row[:2] for row in connection.execute(sa.text(blocks(PAGE, "sql")[-1]))]
    engine.dispose()
    table = pq.read_table(tmp_path / "last_loads.parquet")
    of_file = [tuple(row.values()) for row in table.to_pylist()]

    expected = truth(history)
    assert [row[1] for row in expected] == [
        "Load sales - Customers", "Load sales - Order lines", "Load sales - Orders", "Load stock - Orders"
    ]  # fmt: skip
    assert same(of_database, expected)
    oldest = min(row[2] for row in of_database if row[0] == "Load sales")
    assert sorted(map(tuple, by_source)) == [("Load sales", oldest), ("Load stock", None)]
    assert same(of_file, expected)
    assert table.column_names == ["data_source", "transfer_task", "last_success", "last_failure", "duration"]
