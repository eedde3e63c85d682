"""What `check` finds out about an account that speaks otherwise, without starting anything."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_timextender import check, errors
from airflow_provider_timextender.carrier import Carrier
from airflow_provider_timextender.connection import settings
from airflow_provider_timextender.simulator import Dialect, Fault, Job, Simulator

from ..shapes import SHAPES, answered, give_a_past


def look(simulator: Simulator, extra: dict[str, Any]) -> check.Report:
    connection: Any = SimpleNamespace(
        conn_id="c", host=simulator.url, port=None, schema=None, password=simulator.api_key,
        extra=json.dumps(extra),
    )  # fmt: skip
    read = settings(connection)
    with Carrier(read) as carrier:
        account = check.Account(carrier.send, read.vocabulary, read.timezone)
        for job in account.choose():
            account.read_log(job.id)
    return check.report(account)


def simulated(dialect: Dialect) -> Simulator:
    return Simulator([Job("Load sales"), Job("Load finance"), Job("Load stock")], dialect=dialect)


@pytest.mark.parametrize("shape", SHAPES)
def test_r47_the_past_tells_all_that_a_shape_needs(shape: str) -> None:
    with simulated(SHAPES[shape]) as simulator:
        give_a_past(simulator)
        before = look(simulator, {})
        assert before.problems
        told = before.to_dict()
        after = look(simulator, answered(SHAPES[shape], told["vocabulary"], told["questions"]))
        assert after.problems == []
        assert after.questions == []
        assert after.evidence.proposals == {}
        assert {request.method for request in simulator.requests} == {"GET"}


def test_r47_what_is_understood_needs_no_word() -> None:
    with simulated(Dialect()) as simulator:
        give_a_past(simulator)
        report = look(simulator, {})
    told = report.to_dict()
    assert (told["problems"], told["questions"], told["vocabulary"]) == ([], [], {})
    assert told["fields"]["job.id"]["known_from"] == "documented"
    assert told["fields"]["execution.end"]["spelling"] == "EndTime"
    assert told["words"]["states"]["Success"] == {"count": 6, "meaning": "succeeded"}
    assert told["reached"]["executions"] == 10
    json.dumps(told)


def test_r47_an_outcome_is_asked_for_and_never_proposed() -> None:
    with simulated(SHAPES["end states"]) as simulator:
        give_a_past(simulator)
        told = look(simulator, {}).to_dict()
    assert told["vocabulary"] == {}
    good, bad = told["questions"]
    assert (good["section"], good["word"], good["count"]) == ("states", "Completed", 6)
    assert good["evidence"].startswith("6 of 6 have an end, 0 have error lines; the last one ended 20")
    assert bad["evidence"].startswith("4 of 4 have an end, 4 have error lines")
    assert "CustomerKey" in bad["evidence"]


def test_r47_what_cannot_be_told_is_missing_and_not_proposed() -> None:
    """Two members that may equally well be the end: a person has to say."""
    executions = [
        {"TriggerId": "7d444840-9dc0-11d1-b245-5ffdce74fad2", "State": "Success",
         "StartTime": "2026-01-01T00:00:00Z", "Alpha": "2026-01-01T01:00:00Z",
         "Beta": "2026-01-01T01:00:00Z", "Logs": []},
    ]  # fmt: skip
    with simulated(Dialect()) as simulator:
        simulator.fault("logs", always=Fault("body", body=json.dumps(executions)))
        report = look(simulator, {})
    assert report.missing == ["execution.end"]
    assert report.evidence.proposals == {}
    assert any("no value for execution.end" in problem for problem in report.problems)


def test_a_new_account_has_nothing_to_show() -> None:
    with simulated(Dialect()) as simulator:
        report = look(simulator, {})
    assert (report.problems, report.missing) == ([], [])


def test_a_log_that_cannot_be_read_is_a_problem_and_the_others_are_read() -> None:
    with simulated(Dialect()) as simulator:
        give_a_past(simulator)
        simulator.fault("logs", Fault("status", status=500))
        report = look(simulator, {})
    assert ["HTTP 500" in problem for problem in report.problems] == [True]
    assert len(report.account.logs) == 2


def test_jobs_are_chosen_by_id_and_name() -> None:
    with simulated(Dialect(ids="braces")) as simulator:
        account = look(simulator, {}).account
        chosen = account.choose(["Load stock", simulator.job("Load sales").id])
        assert [job.name for job in chosen] == ["Load stock", "Load sales"]
        with pytest.raises(errors.InvalidInput, match=r"Did you mean .*'Load stock'"):
            account.choose(["load stock"])


def test_times_to_come_are_told() -> None:
    with simulated(Dialect(times="naive", timezone="Asia/Kolkata")) as simulator:
        simulator.past("Load sales", ago=60)
        report = look(simulator, {})
        assert ['"timezone"' in problem for problem in report.problems] == [True]
        assert look(simulator, {"timezone": "Asia/Kolkata"}).problems == []


@pytest.mark.parametrize(
    ("value", "zoned"),
    [
        ("2026-01-01T00:00:00Z", True),
        ("2026-01-01 00:00:00 +01:00", True),
        ("2026-01-01T00:00:00", False),
        ("2026-01-01", False),
        ("/Date(1764057600000)/", True),
        (1764057600, True),
    ],
)
def test_whether_a_time_has_a_zone(value: Any, zoned: bool) -> None:
    assert check.has_zone(value) is zoned


def test_one_execution_is_chosen_to_try_the_filter() -> None:
    with simulated(Dialect()) as simulator:
        give_a_past(simulator)
        report = look(simulator, {})
        chosen = check.one_to_ask_for(report.account, report.evidence)
    assert chosen is not None
    assert chosen[1] in {execution.trigger_id for execution in simulator.world.executions}
