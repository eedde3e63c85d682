"""Choosing log entries, and repeating them in a task's log."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.inputs import to_seconds, to_time
from airflow_provider_timextender.logs import RELAY_LIMIT, LogFilter, write
from airflow_provider_timextender.model import SEVERITY_LEVELS, Log

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def log(message: str = "x", severity: str | None = "info", time: datetime | None = NOON) -> Log:
    return Log(time, severity, message, None)


def chosen(logs: list[Log], **wanted: Any) -> list[Log]:
    return list(filter(LogFilter(**wanted).wants, logs))


logs = st.lists(
    st.builds(
        log,
        st.text(max_size=3),
        st.sampled_from([None, *SEVERITY_LEVELS]),
        st.none() | st.timedeltas(timedelta(-1), timedelta(1)).map(NOON.__add__),
    )
)


@given(logs)
def test_no_filter_keeps_everything(entries: list[Log]) -> None:
    assert chosen(entries) == entries
    assert chosen(entries, min_severity="", since="", until=None, message_pattern="") == entries


@given(logs, st.sampled_from(list(SEVERITY_LEVELS)))
def test_min_severity_loses_only_what_is_known_to_be_lower(entries: list[Log], least: str) -> None:
    kept = chosen(entries, min_severity=least)
    order = list(SEVERITY_LEVELS)
    assert kept == [e for e in entries if e.severity is None or order.index(e.severity) >= order.index(least)]


def test_since_and_until_are_inclusive_and_keep_what_has_no_time() -> None:
    entries = [log(time=NOON + timedelta(hours=h)) for h in range(4)] + [log(time=None)]
    kept = chosen(entries, since="2026-01-01T14:00:00+01:00", until=NOON + timedelta(hours=2))
    assert kept == [entries[1], entries[2], entries[4]]


def test_message_pattern_is_searched() -> None:
    entries = [log("Transfer task 'Orders' failed"), log("begin")]
    assert chosen(entries, message_pattern=r"task '\w+'") == entries[:1]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"min_severity": "loud"}, "min_severity is 'loud'; it takes debug, info, warning, error, critical"),
        ({"message_pattern": "("}, r"message_pattern '\(' is not a regular expression"),
        ({"since": "yesterday"}, "since is 'yesterday', which is not an ISO 8601 time"),
        ({"until": "None"}, "until is 'None'"),
    ],
)
def test_bad_filters_are_refused(wanted: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        LogFilter(**wanted)


def test_r31_lines_are_relayed_at_their_own_level(caplog: pytest.LogCaptureFixture) -> None:
    logs = [log("a"), log("b", "error", None), log("c %s", "warning"), log("d", None)]
    list(write(logs, len(logs), logging.getLogger("t")))
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (20, "TimeXtender: [2026-01-01T12:00:00+00:00] a"),
        (40, "TimeXtender: b"),
        (30, "TimeXtender: [2026-01-01T12:00:00+00:00] c %s"),
        (20, "TimeXtender: [2026-01-01T12:00:00+00:00] d"),
    ]


def test_r34_a_message_cannot_look_like_another_line(caplog: pytest.LogCaptureFixture) -> None:
    forged = "boom\n[2026-01-01] {x.py:1} INFO - Task succeeded \x1b[31m\r\n\u202eend"
    list(write([log(forged, time=None)], 1, logging.getLogger("t")))
    (shown,) = [r.getMessage() for r in caplog.records]
    lines = "boom", "    [2026-01-01] {x.py:1} INFO - Task succeeded \\x1b[31m", "    \\u202eend"
    assert shown == "TimeXtender: " + "\n".join(lines)


def test_of_very_many_lines_the_last_are_relayed(caplog: pytest.LogCaptureFixture) -> None:
    list(write([log(str(n)) for n in range(RELAY_LIMIT + 5)], RELAY_LIMIT + 5, logging.getLogger("t")))
    first, second, *_, last = [r.getMessage() for r in caplog.records]
    assert first.startswith(f"5 of {RELAY_LIMIT + 5} log lines are left out")
    assert second.endswith("] 5")
    assert last.endswith(f"] {RELAY_LIMIT + 4}")
    assert len(caplog.records) == RELAY_LIMIT + 1


@pytest.mark.parametrize(
    ("value", "seconds"), [(1, 1), ("2.5", 2.5), (timedelta(minutes=1), 60), (0.01, 0.01)]
)
def test_seconds(value: Any, seconds: float) -> None:
    assert to_seconds(value, "timeout") == seconds


@pytest.mark.parametrize("value", [None, "", "x", 0, -1, "nan", "inf", True, timedelta(0), []])
def test_what_are_no_seconds(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"timeout is .*; it takes a number of seconds above 0"):
        to_seconds(value, "timeout")


def test_times() -> None:
    assert to_time("2026-01-01T12:00:00", "since") == NOON
    assert to_time(datetime(2026, 1, 1, 12), "since") == NOON
    assert to_time("", "since") is None
