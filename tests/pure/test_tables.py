"""The tables that logs are written as: each row has the columns, in their order, and their kinds."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.model import BLANK_GUID, Execution, ExecutionState, Log
from airflow_provider_timextender.tables import EXECUTIONS, LINES, execution_row, line_columns, line_rows

START = datetime(2026, 11, 2, 5, tzinfo=timezone.utc)
TRIGGER = "3F2504E0-4F89-11D3-9A0C-0305E82C3301"
LOG = Log(START, "error", "Transfer of Customer failed after 12 s", TRIGGER)
EXECUTION = Execution(
    "{AAAAAAAA-0000-0000-0000-000000000001}",
    TRIGGER,
    ExecutionState.FAILED,
    START,
    START + timedelta(seconds=90),
    "No disk space",
    (LOG, replace(LOG, severity=None, time=None)),
)


def test_a_row_of_lines_has_its_columns_and_ids_as_they_are_compared() -> None:
    rows = list(line_rows(EXECUTION, "Load sales", enumerate(EXECUTION.logs, 1)))
    assert [list(row) for row in rows] == [[column.name for column in LINES]] * 2
    assert rows[0] == {
        "job_id": "aaaaaaaa-0000-0000-0000-000000000001",
        "job_name": "Load sales",
        "execution_key": TRIGGER.lower(),
        "trigger_id": TRIGGER.lower(),
        "line": 1,
        "time": START,
        "severity": "error",
        "message": LOG.message,
    }
    assert (rows[1]["line"], rows[1]["time"], rows[1]["severity"]) == (2, None, None)


def test_a_row_of_executions_has_its_columns() -> None:
    row = execution_row(EXECUTION, None, errors=3, warnings=0)
    assert list(row) == [column.name for column in EXECUTIONS]
    assert row["started_by"] == "trigger"
    assert (row["state"], row["duration"], row["errors"], row["warnings"]) == ("failed", 90.0, 3, 0)


@pytest.mark.parametrize(("trigger_id", "started_by"), [(BLANK_GUID, "hand"), (None, None)])
def test_who_started_an_execution_is_told_as_far_as_it_is_known(
    trigger_id: str | None, started_by: str | None
) -> None:
    execution = replace(EXECUTION, trigger_id=trigger_id, state=None)
    row = execution_row(execution, None)
    assert (row["started_by"], row["trigger_id"], row["state"]) == (started_by, None, None)
    assert row["execution_key"] == execution.key


def test_named_groups_of_a_pattern_become_columns() -> None:
    pattern = re.compile(r"Transfer of (?P<task>\w+) (?P<how>failed|done)(?: by (?P<who>\w+))?")
    columns = line_columns(pattern)
    assert [(c.name, c.kind) for c in columns[len(LINES) :]] == [
        ("task", "text"), ("how", "text"), ("who", "text"),
    ]  # fmt: skip
    (row,) = line_rows(EXECUTION, None, [(1, LOG)], pattern)
    assert list(row) == [column.name for column in columns]
    assert (row["task"], row["how"], row["who"]) == ("Customer", "failed", None)
    assert line_columns() == line_columns(re.compile("(no) name")) == LINES


def test_a_group_may_not_be_named_as_a_column() -> None:
    with pytest.raises(InvalidInput, match="'severity'"):
        line_columns(re.compile("(?P<severity>x)"))
