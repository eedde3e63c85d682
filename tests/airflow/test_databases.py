"""Logs in a database: a real PostgreSQL, and SQLite."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_timextender import databases
from airflow_provider_timextender.databases import Tables
from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.inputs import NOT_GIVEN
from airflow_provider_timextender.model import parse_time
from airflow_provider_timextender.operators import LogsOperator
from airflow_provider_timextender.simulator import Fault, Job, Simulator
from airflow_provider_timextender.tables import EXECUTIONS, LINES, Column, Row

from .running import sqlite_at

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
KEY = "0b8f2a6e-5d4c-4d8c-9d38-6f1f0c3a7e51"
OTHER = "7c1de0a4-1f0b-4a37-8a53-2d0a3d3b9f10"

pytestmark = pytest.mark.usefixtures("_task_log")

ONLY_A_SERVER = pytest.mark.parametrize("database", ["postgres"], indirect=True)


@dataclass(frozen=True)
class Database:
    """What the connection ``dwh`` leads to."""

    engine: sa.engine.Engine

    def rows(self, table: str, order: str = "execution_key") -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            found = connection.execute(sa.text(f"SELECT * FROM {table} ORDER BY {order}"))
            return [dict(row._mapping) for row in found]

    def lines(self) -> list[dict[str, Any]]:
        return self.rows("timextender_lines", "execution_key, line")

    def run(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))


@pytest.fixture(params=["postgres", "sqlite"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    uri = sqlite_at(tmp_path)
    if request.param == "postgres":
        uri = request.getfixturevalue("postgres")
    monkeypatch.setenv("AIRFLOW_CONN_DWH", uri)
    engine = databases._engine("dwh")
    yield Database(engine)
    engine.dispose()


def lines(key: str, numbers: Iterable[int], **values: Any) -> list[Row]:
    row = {column.name: None for column in LINES} | {"job_id": OTHER, "execution_key": key, "message": "m"}
    return [{**row, "line": number, "time": NOON + timedelta(seconds=number), **values} for number in numbers]


def execution(key: str, **values: Any) -> Row:
    return {column.name: None for column in EXECUTIONS} | {"job_id": OTHER, "execution_key": key, **values}


def write(*written: tuple[list[Row], Row], columns: Sequence[Column] = LINES, **where: Any) -> dict[str, Any]:
    tables = Tables("dwh", **where)
    try:
        tables.begin(columns)
        for rows, of in written:
            tables.write_lines(rows)
            tables.write_execution(of)
        return tables.complete()
    except BaseException:
        tables.discard()
        raise


def test_rows_are_read_back_as_they_were_written(database: Database) -> None:
    row = execution(
        KEY, job_name="Load sales", state="failed", start=NOON, duration=1.25, errors=2, message=""
    )
    told = write((lines(KEY, [1, 3], severity="info", message="å\n'\";--"), row))
    assert told == {"tables": ["timextender_lines", "timextender_executions"]}
    first, third = database.lines()
    assert (first["line"], third["line"]) == (1, 3)
    assert (first["message"], first["severity"], first["job_name"]) == ("å\n'\";--", "info", None)
    (found,) = database.rows("timextender_executions")
    assert (found["state"], found["duration"], found["errors"], found["message"]) == ("failed", 1.25, 2, "")
    if database.engine.dialect.name == "postgresql":
        assert (found["start"], found["end"]) == (NOON, None)
        assert found == row
    else:
        assert found["start"] == "2026-03-01 12:00:00.123456"  # in UTC


def test_a_repeat_changes_nothing(database: Database) -> None:
    everything = (lines(KEY, range(1, 1000)), execution(KEY)), (lines(OTHER, [1]), execution(OTHER))
    write(*everything)
    before = database.lines(), database.rows("timextender_executions")
    write(*everything)
    assert (database.lines(), database.rows("timextender_executions")) == before
    assert len(before[0]) == 1000


def test_a_row_takes_the_place_of_the_one_with_its_key_and_of_no_other(database: Database) -> None:
    write((lines(KEY, [1, 2, 3, 4]), execution(KEY, state="running")), (lines(OTHER, [2]), execution(OTHER)))
    write((lines(KEY, [2, 4, 5], message="new"), execution(KEY, state="succeeded")))
    assert [(row["execution_key"], row["line"], row["message"]) for row in database.lines()] == [
        (KEY, 1, "m"), (KEY, 2, "new"), (KEY, 3, "m"), (KEY, 4, "new"), (KEY, 5, "new"), (OTHER, 2, "m")
    ]  # fmt: skip
    assert [row["state"] for row in database.rows("timextender_executions")] == ["succeeded", None]


def test_what_is_told_twice_in_one_output_is_written_once(database: Database) -> None:
    write((lines(KEY, [1, 1, 2]), execution(KEY)), (lines(KEY, [2], message="last"), execution(KEY)))
    assert [(row["line"], row["message"]) for row in database.lines()] == [(1, "m"), (2, "last")]


def test_r44_rows_go_by_batches_however_long_their_messages(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    flush = databases._Rows.flush

    def counted(rows: databases._Rows) -> None:
        batches.append(len(rows._waiting))
        flush(rows)

    monkeypatch.setattr(databases._Rows, "flush", counted)
    long = databases.BATCH_CHARACTERS // 2
    write(
        (lines(KEY, range(1, 900)), execution(KEY)),
        (lines(OTHER, [1, 2, 3], message="x" * long), execution(OTHER)),
    )
    assert batches == [400, 400, 101, 1, 2]
    assert len(database.lines()) == 902


def test_a_batch_may_hold_as_many_executions_as_rows(database: Database) -> None:
    keys = [f"{number:08}-5d4c-4d8c-9d38-6f1f0c3a7e51" for number in range(2 * databases.BATCH_ROWS)]
    everything = [(lines(key, [1]), execution(key)) for key in keys]
    write(*everything)
    write(*everything)
    assert [row["execution_key"] for row in database.lines()] == keys


def test_nothing_is_seen_before_all_is_there_nor_after_it_was_discarded(database: Database) -> None:
    write((lines(KEY, [1]), execution(KEY, state="running")))
    before = database.lines()
    tables = Tables("dwh")
    tables.begin(LINES)
    tables.write_lines(lines(KEY, range(1, 1000), message="new"))
    tables.write_execution(execution(KEY))
    assert database.lines() == before
    tables.discard()
    assert database.lines() == before
    assert database.rows("timextender_executions")[0]["state"] == "running"


def test_r41_what_no_database_takes_for_text_is_replaced(database: Database) -> None:
    message = json.loads('"a\\u0000b\\ud800c"')
    write((lines(KEY, [1], message=message), execution(KEY, message=message)))
    assert database.lines()[0]["message"] == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


def test_columns_of_named_groups_are_made_with_the_table(database: Database) -> None:
    write((lines(KEY, [1], task="Load"), execution(KEY)), columns=(*LINES, Column("task", "text", "")))
    write((lines(KEY, [2]), execution(KEY)))
    assert [row["task"] for row in database.lines()] == ["Load", None]


def test_a_column_that_a_table_lacks_is_an_error_that_tells_how_to_add_it(database: Database) -> None:
    write((lines(KEY, [1]), execution(KEY)))
    columns = (*LINES, Column("task", "text", ""), Column("end", "text", ""))
    with pytest.raises(InvalidInput, match="timextender_lines has no column task, end") as caught:
        write((lines(KEY, [1], task="Load", end="x"), execution(KEY)), columns=columns)
    (statements,) = [str(caught.value).partition("To add what is missing: ")[2]]
    database.run(*statements.split("; "))
    write((lines(KEY, [1], task="Load", end="x"), execution(KEY)), columns=columns)
    assert database.lines()[0]["task"] == "Load"


def test_a_table_of_the_users_own_is_kept_as_it_is(database: Database) -> None:
    write()
    database.run("DROP TABLE timextender_executions")
    kinds = {"text": "VARCHAR(200)", "integer": "SMALLINT", "number": "REAL", "time": "TIMESTAMP"}
    columns = ", ".join(f'"{column.name}" {kinds[column.kind]}' for column in EXECUTIONS)
    database.run(f"CREATE TABLE timextender_executions (load_no INTEGER, {columns})")
    write((lines(KEY, [1]), execution(KEY, state="failed")))
    assert database.rows("timextender_executions")[0]["load_no"] is None


@ONLY_A_SERVER
def test_another_schema(database: Database) -> None:
    database.run("CREATE SCHEMA logs")
    told = write((lines(KEY, [1]), execution(KEY)), schema="logs")
    assert told == {"tables": ["logs.timextender_lines", "logs.timextender_executions"]}
    assert len(database.rows("logs.timextender_lines")) == 1
    with pytest.raises(
        RuntimeError, match=r'nowhere\.timextender_lines .* failed: schema "nowhere" does not'
    ):
        write(schema="nowhere")


def test_two_tasks_that_begin_at_the_same_time_both_find_the_tables(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = sa.Table.create

    def created_by_another(table: sa.Table, bind: Any, **options: Any) -> None:
        with database.engine.begin() as other:
            create(table, other)
        create(table, bind, checkfirst=False)

    monkeypatch.setattr(sa.Table, "create", created_by_another)
    write((lines(KEY, [1]), execution(KEY)))
    assert len(database.lines()) == 1


def everything(message: str) -> tuple[list[Row], Row]:
    return lines(KEY, range(1, 1000), message=message), execution(KEY, message=message)


@ONLY_A_SERVER
@pytest.mark.parametrize("there", [False, True], ids=["new rows", "rows that are there"])
@pytest.mark.parametrize("ends", ["complete", "discard"])
def test_of_two_that_write_the_same_at_the_same_time_one_waits_and_can_try_again(
    database: Database, there: bool, ends: str
) -> None:
    def left() -> list[str]:
        both = [*database.lines(), *database.rows("timextender_executions")]
        return [row["message"] for row in both]

    write(*[everything("before")] * there)
    first = Tables("dwh")
    first.begin(LINES)
    first.write_lines(everything("first")[0])
    first.write_execution(everything("first")[1])
    with ThreadPoolExecutor() as threads:
        second = threads.submit(write, everything("second"))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not database.rows(f"({waiting}) AS waiting", "1")[0]["count"]:
            assert not second.done()
        getattr(first, ends)()
        failed = second.exception()
    if ends == "complete":
        assert "duplicate key" in str(failed)
        assert left() == ["first"] * 1000, "the second has left nothing, and taken nothing away"
        write(everything("second"))
    assert left() == ["second"] * 1000


@ONLY_A_SERVER
def test_a_database_that_breaks_off_is_a_short_error_and_leaves_nothing(database: Database) -> None:
    tables = Tables("dwh")
    tables.begin(LINES)
    tables.write_lines(lines(KEY, range(1, 1000)))
    writers = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state LIKE 'idle in%'"
    database.run(f"SELECT pg_terminate_backend(pid) {writers}")
    with pytest.raises(RuntimeError) as caught:
        tables.complete()
    assert str(caught.value).startswith(
        "Writing to the tables timextender_lines and timextender_executions of the"
    )
    assert "DELETE" not in str(caught.value)
    tables.discard()
    assert database.lines() == []


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        (None, "output_conn_id: .*dwh.* isn't defined"),
        ("timextender://:key@host", "'dwh' is of type 'timextender', which is no database"),
        ("nosuchtype://host", "'dwh' cannot be used: .*nosuchtype.* The provider of"),
    ],
)
def test_a_connection_that_is_no_database(
    uri: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if uri is not None:
        monkeypatch.setenv("AIRFLOW_CONN_DWH", uri)
    with pytest.raises(InvalidInput, match=says):
        write()


@pytest.mark.parametrize(
    ("dialect", "text", "time"),
    [
        ("postgresql", "TEXT", "TIMESTAMP WITH TIME ZONE"),
        ("mssql", "NVARCHAR(max)", "DATETIMEOFFSET"),
        ("mysql", "LONGTEXT", "DATETIME(6)"),
        ("sqlite", "TEXT", "DATETIME"),
    ],
)
def test_the_tables_can_be_defined_for(dialect: str, text: str, time: str) -> None:
    kind = sa.engine.url.URL.create(dialect).get_dialect()()
    defined, _ = databases.definitions(LINES, dialect)
    shown = str(sa.schema.CreateTable(defined).compile(dialect=kind))
    assert "PRIMARY KEY (execution_key, line)" in shown
    assert f" message {text}" in shown.replace("\t", " ")
    assert f" time {time}" in shown.replace("\t", " ")


# --- LogsOperator ---


@pytest.fixture
def two_jobs(simulator: Simulator) -> Simulator:
    """Two jobs that have run: one by schedule, twice, with a failure, and one by hand."""
    other = Job("other", warnings=2)
    simulator.world.jobs[other.id] = other
    simulator.past("load", ago=7200)
    simulator.past("load", "failed", ago=3600)
    simulator.past("other", by="hand")
    return simulator


def export(context: Any, **arguments: Any) -> dict[str, Any]:
    told: dict[str, Any] = LogsOperator(
        **{"task_id": "t", "all_jobs": True, "output_conn_id": "dwh", **arguments}
    ).execute(context)
    assert json.loads(json.dumps(told)) == told
    return told


@pytest.mark.usefixtures("two_jobs")
def test_the_tables_hold_the_rows_of_the_files(database: Database, context: Any, tmp_path: Path) -> None:
    arguments = {"message_pattern": r"Transfer task '(?P<transfer_task>[^']+)'"}
    told = export(context, **arguments)
    path = tmp_path / "logs.jsonl"
    of_files = export(context, output_conn_id=NOT_GIVEN, output_path=str(path), **arguments)
    for key in ("jobs", "executions", "rows", "first_time", "last_time"):
        assert told[key] == of_files[key], key
    assert told["tables"] == ["timextender_lines", "timextender_executions"]
    for file, table, order in (
        (path, "timextender_lines", "execution_key, line"),
        (path.with_name("logs.executions.jsonl"), "timextender_executions", "execution_key"),
    ):
        written = [json.loads(line) for line in file.read_text().splitlines()]
        written.sort(key=lambda row: (row["execution_key"], row.get("line")))
        assert [plain(row) for row in database.rows(table, order)] == [plain(row) for row in written]
    assert {row["transfer_task"] for row in database.lines()} >= {"load - Orders", "other - Customers"}


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its times in one spelling."""
    times = {name: str(row[name]) for name in ("time", "start", "end") if row.get(name)}
    return {**row, **{name: parse_time(text) for name, text in times.items()}}


def test_a_job_that_cannot_be_read_does_not_hide_the_others(
    database: Database, two_jobs: Simulator, context: Any
) -> None:
    two_jobs.fault("logs", Fault("status", status=404))
    with pytest.raises(
        AirflowFailException, match="1 of 2 jobs could not be read; the others are in the tables"
    ):
        export(context)
    assert {row["job_name"] for row in database.rows("timextender_executions")} == {"other"}


def test_an_error_leaves_the_tables_as_they_were(
    database: Database, two_jobs: Simulator, context: Any
) -> None:
    export(context, job_name="load", all_jobs=False)
    before = database.lines()
    two_jobs.past("load")
    two_jobs.fault("logs", always=Fault("status", status=404))
    with pytest.raises(AirflowFailException):
        export(context, job_name="load", all_jobs=False)
    assert database.lines() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"output_path": "x.csv"}, "Give either output_path or output_conn_id"),
        ({"output_conn_id": " "}, "output_conn_id was given, but is ' ' at run time"),
        ({"output_conn_id": "nowhere"}, "nowhere.* isn't defined"),
        ({"message_pattern": "(?P<line>.)"}, "has a group named 'line'"),
    ],
)
def test_r08_a_bad_argument_fails_before_a_log_is_read(
    two_jobs: Simulator, context: Any, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(AirflowFailException, match=says):
        export(context, **arguments)
    assert two_jobs.count("logs") == 0
