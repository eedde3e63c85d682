"""The simulator, asked with plain ``requests``: the contract as it states it."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import pytest
import requests

import airflow_provider_timextender.simulator as package
from airflow_provider_timextender.simulator import (
    BLANK_TRIGGER_ID,
    DIALECTS,
    Dialect,
    Fault,
    Job,
    Simulator,
)
from airflow_provider_timextender.simulator.__main__ import main
from airflow_provider_timextender.simulator.faults import KINDS, Kind
from airflow_provider_timextender.simulator.world import World

from ..conftest import API_KEY
from ..pure.test_documentation import ROOT, blocks


def ask(simulator: Simulator, path: str, method: str = "GET", **headers: str) -> requests.Response:
    return requests.request(
        method,
        simulator.url + path,
        headers={"x-api-key": API_KEY, **headers},
        timeout=2,
        allow_redirects=False,
    )


def get(simulator: Simulator, path: str) -> Any:
    return ask(simulator, path).json()


def test_the_documented_life_of_an_execution(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup = job.duration = 0.2
    path = f"/public/jobs/{job.id}"
    assert get(simulator, "/public/jobs") == [{"Id": job.id, "Name": "load"}]
    assert get(simulator, f"{path}/status") == {"JobId": job.id, "Status": "Idle"}
    receipt = ask(simulator, f"{path}/execute", "POST").json()
    assert set(receipt) == {"JobId", "Message", "TriggerId"}
    seen: list[str] = []
    while not seen or seen[-1] != "Idle":
        status = get(simulator, f"{path}/status")["Status"]
        if not seen or seen[-1] != status:
            seen.append(status)
    assert seen == ["Pending", "Running", "Idle"]
    assert get(simulator, "/public/jobs/status") == [{"JobId": job.id, "Status": "Idle"}]
    (execution,) = get(simulator, f"{path}/logs/{receipt['TriggerId']}")
    assert execution["State"] == "Success"
    assert execution["TriggerId"] == receipt["TriggerId"]
    assert [line["Severity"] for line in execution["Logs"]] == ["Information"] * 3 + ["Warning"]
    assert get(simulator, f"{path}/logs") == [execution]


def test_with_etags_an_answer_that_the_client_knows_is_not_sent_again() -> None:
    with Simulator([Job("load")], api_key=API_KEY, etags=True) as simulator:
        simulator.past("load")
        path = f"/public/jobs/{simulator.job('load').id}/logs"
        first = ask(simulator, path)
        again = ask(simulator, path, **{"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert simulator.sent["logs"] == len(first.content)
        simulator.past("load")
        changed = ask(simulator, path, **{"If-None-Match": first.headers["ETag"]})
        assert (changed.status_code, len(changed.json())) == (200, 2)
        assert simulator.sent["logs"] == len(first.content) + len(changed.content)


def test_without_them_it_is_as_the_published_api(simulator: Simulator) -> None:
    answer = ask(simulator, "/public/jobs", **{"If-None-Match": "*"})
    assert (answer.status_code, "ETag" in answer.headers) == (200, False)


def test_idle_again_after_a_failure_and_the_log_tells(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.outcome, job.duration, job.pickup = "failed", 0, 0
    simulator.run("load")
    assert get(simulator, f"/public/jobs/{job.id}/status")["Status"] == "Idle"
    (execution,) = get(simulator, f"/public/jobs/{job.id}/logs")
    assert execution["State"] == "Failed"
    assert execution["Logs"][-1]["Severity"] == "Error"
    assert execution["Logs"][-1]["Message"] == execution["Message"]


def test_log_lag_and_log_at_end(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup, job.duration, job.log_lag, job.log_at_end = 0, 0.1, 0.2, True
    execution = simulator.run("load")
    path = f"/public/jobs/{job.id}/logs/{execution.trigger_id}"
    assert get(simulator, path) == []
    while time.time() < execution.ended + 0.25:
        time.sleep(0.01)
    assert len(get(simulator, path)) == 1


def test_a_job_that_never_starts_stays_idle_and_shows_nothing(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.outcome = "never starts"
    simulator.run("load")
    assert get(simulator, f"/public/jobs/{job.id}/status")["Status"] == "Idle"
    assert get(simulator, f"/public/jobs/{job.id}/logs") == []


def test_executions_by_hand_have_the_blank_trigger_id(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup = 0
    simulator.run("load", by="hand")
    assert get(simulator, f"/public/jobs/{job.id}/logs")[0]["TriggerId"] == BLANK_TRIGGER_ID


def test_executions_know_who_started_them_and_only_those_of_the_api_take_their_turn(
    simulator: Simulator,
) -> None:
    job = simulator.job("load")
    job.outcomes = ["failed"]
    simulator.run("load")
    for _ in range(2):
        ask(simulator, f"/public/jobs/{job.id}/execute", "POST")
    ends = [(execution.by, execution.outcome) for execution in simulator.world.executions]
    assert ends == [("schedule", "succeeded"), ("api", "failed"), ("api", "succeeded")]


def test_past_executions_have_ended_and_stand_in_the_order_of_time(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup, job.duration, job.outcomes = 0, 60, ["failed"]
    newest = simulator.run("load")
    later = simulator.past("load", "failed", ago=3600, by="schedule")
    first = simulator.past("load", ago=7200)
    path = f"/public/jobs/{job.id}"
    assert get(simulator, f"{path}/status")["Status"] == "Running"  # that is the one that was run
    shown = get(simulator, f"{path}/logs")
    assert [one["State"] for one in shown] == ["Success", "Failed", "Running"]
    assert [one["TriggerId"] for one in shown] == [e.trigger_id for e in (first, later, newest)]
    assert first.ended == pytest.approx(time.time() - 7200, abs=10)
    assert first.ended - first.started == 60
    assert shown[1]["Logs"][-1]["Severity"] == "Error"
    assert (first.by, later.by, job.outcomes) == ("api", "schedule", ["failed"])
    assert simulator.past("load", by="hand").trigger_id == BLANK_TRIGGER_ID


@pytest.mark.parametrize("ago", [-1, float("nan")])
def test_a_past_that_is_none_is_refused(simulator: Simulator, ago: float) -> None:
    with pytest.raises(ValueError, match=r"ago is .*; it takes the seconds since the execution ended"):
        simulator.past("load", ago=ago)


def test_two_executions_at_the_same_time(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup, job.duration = 0, 0
    first = simulator.run("load")
    job.duration = 30
    simulator.run("load")
    assert get(simulator, f"/public/jobs/{job.id}/status")["Status"] == "Running"
    assert get(simulator, f"/public/jobs/{job.id}/logs/{first.trigger_id}")[0]["State"] == "Success"
    assert len(get(simulator, f"/public/jobs/{job.id}/logs")) == 2


def test_dialects_differ_and_say_the_same() -> None:
    written = {}
    for dialect in DIALECTS:
        job = Job("load", pickup=0, duration=0, id="11111111-1111-1111-1111-111111111111")
        with Simulator([job], api_key=API_KEY, dialect=dialect) as simulator:
            simulator.run("load")
            written[dialect] = get(simulator, f"/public/jobs/{job.id}/logs")[0]
    assert written["camel"]["state"] == "succeeded"
    assert "triggerId" not in written["camel"]
    assert "triggerId" in written["camel"]["logs"][0]
    assert written["numeric"]["result_code"] == 1
    assert "trigger_id" not in written["numeric"]["entries"][0]
    assert not written["numeric"]["end_time"].endswith("Z")


JOB_ID = "abcdef01-1111-1111-1111-111111111111"


def log_in(dialect: Dialect, *, by: Any = "schedule", duration: float = 0, asked: str | None = None) -> Any:
    """Return the log of a job that has run once, as its HTTP answer."""
    job = Job("load", pickup=0, duration=duration, outcome="failed", id=JOB_ID)
    with Simulator([job], api_key=API_KEY, dialect=dialect) as simulator:
        execution = simulator.run("load", by=by)
        path = f"/public/jobs/{JOB_ID}/logs" + ("" if asked is None else f"/{asked}")
        return ask(simulator, path.format(execution.trigger_id)), execution


@pytest.mark.parametrize(
    ("dialect", "member", "value"),
    [
        (Dialect(members="UPPER"), "STATE", "Failed"),
        (Dialect(ids="upper"), "JobId", JOB_ID.upper()),
        (Dialect(ids="braces"), "JobId", f"{{{JOB_ID.upper()}}}"),
        (Dialect(trigger_id_on="nowhere"), "TriggerId", "absent"),
        (Dialect(states_as="object"), "State", {"Id": 2, "Name": "Failed"}),
        (Dialect(states={"running": 1, "succeeded": 2, "failed": None}), "State", None),
        (Dialect(message_on="entries"), "Message", "absent"),
        (Dialect(end_on="nowhere"), "EndTime", "absent"),
        (Dialect(nesting="flat"), "Logs", "absent"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_trait_changes_a_member(dialect: Dialect, member: str, value: Any) -> None:
    answer, _ = log_in(dialect)
    assert answer.json()[0].get(member, "absent") == value


@pytest.mark.parametrize(
    ("dialect", "state", "end"),
    [
        (Dialect(), "Running", None),
        (Dialect(unfinished_state="absent", no_time="absent"), "absent", "absent"),
        (Dialect(unfinished_state="null", no_time="year 1"), None, "0001-01-01T00:00:00.000000Z"),
        (Dialect(unfinished_state="succeeded", no_time="year 1", times="epoch"), "Success", -62135596800),
    ],
    ids=lambda value: "",
)
def test_what_is_written_before_the_end(dialect: Dialect, state: Any, end: Any) -> None:
    (execution,) = log_in(dialect, duration=9)[0].json()
    assert (execution.get("State", "absent"), execution.get("EndTime", "absent")) == (state, end)


@pytest.mark.parametrize(
    ("hand_ids", "written"), [("blank", BLANK_TRIGGER_ID), ("null", None), ("absent", "-"), ("empty", "")]
)
def test_what_is_written_for_a_start_by_hand(hand_ids: Any, written: Any) -> None:
    (execution,) = log_in(Dialect(hand_ids=hand_ids), by="hand")[0].json()
    assert execution.get("TriggerId", "-") == execution["Logs"][0].get("TriggerId", "-") == written


@pytest.mark.parametrize(
    ("times", "written"),
    [
        ("Z", "2026-07-01T10:00:00.500000Z"),
        ("offset", "2026-07-01T12:00:00.500000+02:00"),
        ("naive", "2026-07-01T12:00:00.500000"),
        ("seven digits", "2026-07-01T12:00:00.5000000"),
        ("epoch", 1782900000),
        ("epoch ms", 1782900000500),
        ("/Date()/", "/Date(1782900000500)/"),
    ],
)
def test_how_times_are_written(times: Any, written: Any) -> None:
    dialect = Dialect(times=times, timezone="Europe/Copenhagen")
    world = World([Job("load", pickup=0, duration=0)])
    (job,) = world.jobs.values()
    world.queue(job, 1782900000.5)
    (execution,) = dialect.write_log(job, world.log(job, 1782900009), 1782900009).data
    assert execution["EndTime"] == written


@pytest.mark.parametrize(
    ("filters", "lines"), [("executions", [0, 5]), ("entries", [0, 5]), ("nothing", [5, 5]), ("404", [])]
)
def test_what_the_filter_filters(filters: Any, lines: list[int]) -> None:
    job = Job("load", pickup=0, duration=0, lines=5, id=JOB_ID)
    with Simulator([job], api_key=API_KEY, dialect=Dialect(filters=filters)) as simulator:
        simulator.run("load")
        asked = simulator.run("load").trigger_id
        answer = ask(simulator, f"/public/jobs/{JOB_ID}/logs/{asked}")
    assert answer.ok == (filters != "404")
    shown = [len(execution["Logs"]) for execution in answer.json()] if answer.ok else []
    assert shown == (lines[1:] if filters == "executions" else lines)


@pytest.mark.parametrize("ids", ["lower", "upper", "braces"])
@pytest.mark.parametrize("exact_ids", [False, True])
def test_ids_in_urls_are_folded_or_compared_letter_by_letter(ids: Any, exact_ids: bool) -> None:
    job = Job("load", pickup=0, duration=0, id=JOB_ID)
    spellings = {"lower": JOB_ID, "upper": JOB_ID.upper(), "braces": f"%7B{JOB_ID.upper()}%7D"}
    with Simulator([job], api_key=API_KEY, dialect=Dialect(ids=ids, exact_ids=exact_ids)) as simulator:
        trigger_id = simulator.run("load").trigger_id
        for spelling, job_id in spellings.items():
            own = spelling == ids or not exact_ids
            assert ask(simulator, f"/public/jobs/{job_id}/status").status_code == (200 if own else 404)
            asked = job_id.replace(JOB_ID, trigger_id).replace(JOB_ID.upper(), trigger_id.upper())
            log = get(simulator, f"/public/jobs/{spellings[ids]}/logs/{asked}")
            assert len(log) == own


def test_the_order_of_executions() -> None:
    job = Job("load", pickup=0, duration=0, id=JOB_ID)
    with Simulator([job], api_key=API_KEY) as simulator:
        expected = [simulator.run("load").trigger_id for _ in range(9)]
        for order in ("oldest", "newest", "shuffled"):
            simulator.dialect = Dialect(order=order)
            path = f"/public/jobs/{JOB_ID}/logs"
            found = [execution["TriggerId"] for execution in get(simulator, path)]
            assert found == [execution["TriggerId"] for execution in get(simulator, path)]
            assert sorted(found) == sorted(expected)
            assert (found == expected) == (order == "oldest")
            assert (found == expected[::-1]) == (order == "newest")


def test_how_answers_are_nested(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup, job.duration, job.lines, job.warnings = 0, 0, 1, 0
    simulator.run("load")
    path = f"/public/jobs/{job.id}/logs"
    (nested,) = get(simulator, path)
    simulator.dialect = Dialect(nesting="wrapped")
    assert get(simulator, path) == {"Value": [nested]}
    assert get(simulator, "/public/jobs") == {"Value": [{"Id": job.id, "Name": "load"}]}
    simulator.dialect = Dialect(nesting="one object")
    assert get(simulator, path) == nested
    assert get(simulator, "/public/jobs/status") == {"JobId": job.id, "Status": "Idle"}
    simulator.dialect = Dialect(nesting="flat")
    entries = nested.pop("Logs")
    assert get(simulator, path) == [nested, *entries]


@pytest.mark.parametrize(
    ("empty", "status", "body"),
    [("[]", 200, "[]"), ("null", 200, "null"), ("204", 204, ""), ("404", 404, "{")],
)
def test_how_an_empty_log_is_answered(simulator: Simulator, empty: Any, status: int, body: str) -> None:
    simulator.dialect = Dialect(empty=empty)
    job = simulator.job("load")
    answer = ask(simulator, f"/public/jobs/{job.id}/logs")
    assert (answer.status_code, answer.text[: len(body)]) == (status, body)
    job.pickup = job.duration = 0
    simulator.run("load")
    assert len(get(simulator, f"/public/jobs/{job.id}/logs")) == 1


def test_receipts(simulator: Simulator) -> None:
    path = f"/public/jobs/{simulator.job('load').id}/execute"
    simulator.dialect = Dialect(receipt="no id")
    assert "TriggerId" not in ask(simulator, path, "POST").json()
    simulator.dialect = Dialect(receipt="in a list")
    assert "TriggerId" in ask(simulator, path, "POST").json()[0]
    simulator.dialect = Dialect(receipt="202")
    answer = ask(simulator, path, "POST")
    assert (answer.status_code, "TriggerId" in answer.json()) == (202, True)


def test_the_log_that_hides_what_has_not_ended() -> None:
    assert log_in(Dialect(unfinished="hidden"), duration=9)[0].json() == []
    assert len(log_in(Dialect(unfinished="hidden"))[0].json()) == 1


@pytest.mark.parametrize(
    ("dialect", "extra"),
    [
        (Dialect(), {}),
        (DIALECTS["camel"], {}),
        (Dialect(members="snake", ids="braces", filters="404"), {}),
        (Dialect(nesting="wrapped"), {"vocabulary": {"fields": {"list.items": "Value"}}}),
        (
            Dialect(nesting="flat", members="snake"),
            {"vocabulary": {"fields": {"log.execution_id": "trigger_id"}}},
        ),
        (Dialect(nesting="flat", trigger_id_on="execution"), {}),
        (
            Dialect(renamed={"Message": "Text", "EndTime": "Until"}),
            {
                "vocabulary": {
                    "fields": {
                        "submission.message": "Text",
                        "execution.message": "Text",
                        "log.message": "Text",
                        "execution.end": "Until",
                    }
                }
            },
        ),
        (
            Dialect(states={"running": None, "succeeded": 3, "failed": 4}),
            {"vocabulary": {"states": {"succeeded": 3, "failed": 4}}},
        ),
        (
            Dialect(states_as="object", members="camel"),
            {"vocabulary": {"fields": {"execution.state": "state.name"}}},
        ),
        (Dialect(times="naive", timezone="Europe/Copenhagen"), {"timezone": "Europe/Copenhagen"}),
        (Dialect(times="offset", timezone="Europe/Copenhagen"), {}),
    ],
    ids=lambda value: "",
)
def test_the_connection_explains_what_it_can(dialect: Dialect, extra: dict[str, Any]) -> None:
    with Simulator([], dialect=dialect) as simulator:
        assert simulator.connection()["extra"] == extra
        assert simulator.connection(explained=False)["extra"] == {}


def test_a_wrong_key_and_unknown_things(simulator: Simulator) -> None:
    assert ask(simulator, "/public/jobs", **{"x-api-key": "wrong"}).status_code == 401
    assert ask(simulator, "/public/jobs/11111111-1111-1111-1111-111111111111/status").status_code == 404
    assert ask(simulator, "/private").status_code == 404
    assert ask(simulator, "/public/jobs", "POST").status_code == 405 or simulator.count("jobs") == 1


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        (Fault("status", status=429, retry_after="7"), 429, "unavailable"),
        (Fault("status"), 503, "unavailable"),
        (Fault("html"), 200, "<html>"),
        (Fault("wrong type"), 200, '{"value": ['),
        (Fault("redirect", location="https://elsewhere.example/"), 302, ""),
        (Fault("body", body="[]"), 200, "[]"),
        (Fault("body", status=401, body="[]"), 401, "[]"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_faults_that_answer(simulator: Simulator, fault: Fault, status: int, says: str) -> None:
    simulator.fault("jobs", fault)
    answer = ask(simulator, "/public/jobs")
    assert answer.status_code == status
    assert says in answer.text
    assert answer.headers.get("Retry-After") == fault.retry_after
    assert answer.headers.get("Location", "") == fault.location
    assert ask(simulator, "/public/jobs").ok, "once"


def test_cut_json(simulator: Simulator) -> None:
    simulator.fault("jobs", Fault("cut"))
    with pytest.raises(ValueError, match="line 1"):
        get(simulator, "/public/jobs")


@pytest.mark.parametrize("taken", [False, True])
def test_a_reset_before_or_after_the_request_was_taken(simulator: Simulator, taken: bool) -> None:
    simulator.fault("execute", Fault("reset", taken=taken))
    with pytest.raises(requests.ConnectionError):
        ask(simulator, f"/public/jobs/{simulator.job('load').id}/execute", "POST")
    assert len(simulator.world.executions) == taken


def test_silence(simulator: Simulator) -> None:
    simulator.fault("jobs", always=Fault("silence"))
    with pytest.raises(requests.ReadTimeout):
        requests.get(simulator.url + "/public/jobs", timeout=0.1)
    simulator.heal()
    assert ask(simulator, "/public/jobs").ok


def test_unknown_words(simulator: Simulator) -> None:
    simulator.fault("status", Fault("unknown word", word="Napping"))
    assert get(simulator, f"/public/jobs/{simulator.job('load').id}/status")["Status"] == "Napping"


def test_the_table_of_faults_is_whole() -> None:
    assert list(KINDS) == list(get_args(Kind))
    used = {name for use in KINDS.values() for name in use.fields}
    assert used == {field.name for field in fields(Fault)} - {"kind"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kind": "timeout"}, "no fault 'timeout'; the kinds are status, reset, "),
        ({"kind": "status", "location": "/"}, "'status' does not use location; it uses status, body, retry"),
        ({"kind": "reset", "retry_after": "7", "status": 503}, "'reset' does not use status, retry_after"),
        ({"kind": "unknown word", "taken": True}, "'unknown word' does not use taken; it uses word"),
        ({"kind": "status", "status": 200}, "status is 200; 'status' takes 300 to 599"),
        ({"kind": "redirect", "location": "/", "status": 200}, "'redirect' takes 300 to 399"),
        ({"kind": "body", "status": "401"}, "status is '401'"),
        ({"kind": "status", "retry_after": 7}, "retry_after is 7; it takes text"),
        ({"kind": "redirect"}, "needs a location"),
        ({"kind": "slow", "seconds": -1}, "seconds is -1; it takes a number above 0"),
        ({"kind": "drip", "seconds": float("nan")}, "seconds is nan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_that_makes_no_sense_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Fault(**arguments)


@pytest.mark.parametrize(
    ("route", "fault", "says"),
    [
        ("log", Fault("reset"), "no route 'log'; the routes are jobs, statuses, "),
        ("jobs", Fault("unknown word"), "spoils nothing of 'jobs', only of status, "),
        ("execute", Fault("unknown word"), "spoils nothing of 'execute'"),
        ("status", Fault("reset", taken=True), "the request of 'status' only reads"),
    ],
)
@pytest.mark.parametrize("always", [False, True])
def test_a_fault_that_makes_no_sense_on_its_route_is_refused(
    simulator: Simulator, route: Any, fault: Fault, says: str, always: bool
) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        simulator.fault(route, *([] if always else [fault]), always=fault if always else None)
    assert ask(simulator, "/public/jobs").ok


def test_a_job_that_is_none_is_refused(simulator: Simulator) -> None:
    with pytest.raises(ValueError, match="no job 'Load'; there is load"):
        simulator.run("Load")


def test_every_request_is_recorded(simulator: Simulator) -> None:
    with requests.Session() as session:
        for _ in range(2):
            session.get(
                simulator.url + "/public/jobs", headers={"x-api-key": API_KEY, "X-Mark": "7"}, timeout=2
            )
    ask(simulator, "/nowhere")
    assert [r.route for r in simulator.requests] == ["jobs", "jobs", "unknown"]
    first, second, third = simulator.requests
    assert (first.method, first.path, first.headers["X-Mark"]) == ("GET", "/public/jobs", "7")
    assert first.connection == second.connection != third.connection
    assert simulator.count("jobs") == 2


def test_it_shares_no_code_with_the_rest_of_the_package() -> None:
    """The contract is stated twice, so that a mistake in one place shows."""
    own = "airflow_provider_timextender.simulator"
    for file in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, file
                module = node.module or ""
                assert not module.startswith("airflow") or module.startswith(own), (file, module)
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("airflow") for alias in node.names), file


@contextmanager
def command(*arguments: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run the simulator as a command; its address, and the connection that it prints."""
    whole = [sys.executable, "-m", own_module(), "--api-key", API_KEY, *arguments]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split(" at ")[1].split()[0]
            (assignment,) = shlex.split(process.stdout.readline().removeprefix("export "))
            name, _, connection = assignment.partition("=")
            assert name == "AIRFLOW_CONN_TIMEXTENDER_DEFAULT"
            yield url, json.loads(connection)
        finally:
            process.terminate()
        assert process.wait(10) == 0


def asked(url: str, path: str) -> Any:
    return requests.get(url + path, headers={"x-api-key": API_KEY}, timeout=5).json()


def test_as_a_command() -> None:
    with command("--job", "A b", "--fail", "A b", "--duration", "0", "--history", "0") as (url, connection):
        (job,) = asked(url, "/public/jobs")
        assert job["Name"] == "A b"
        assert asked(url, f"/public/jobs/{job['Id']}/logs") == []
    assert connection == {"conn_type": "timextender", "host": url, "password": API_KEY, "extra": {}}


def test_the_jobs_of_the_command_have_run_before() -> None:
    with command("--fail", "Load sales") as (url, _):
        jobs = asked(url, "/public/jobs")
        logs = [asked(url, f"/public/jobs/{job['Id']}/logs") for job in jobs]
    assert [len(jobs), *map(len, logs)] == [3, 3, 3, 3]
    assert [execution["State"] for execution in logs[0]] == ["Success", "Failed", "Success"]
    ends = [datetime.fromisoformat(execution["EndTime"]) for execution in logs[0]]
    now = datetime.now(timezone.utc)
    assert [round((now - end) / timedelta(days=1), 2) for end in ends] == [3, 2, 1]


SHAPE = (
    "--dialect", "camel", "--shape", "nesting=wrapped", "--shape", "times=NAIVE", "--shape", "exact_ids=true",
    "--shape", "timezone=Europe/Copenhagen", "--rename", "EndTime=Stop", "--word", "succeeded=Completed",
    "--word", "failed=7", "--word", "running=Busy", "--word", "states.running=-1",
)  # fmt: skip


def test_the_command_renames_members_and_words_and_explains_them() -> None:
    with command("--job", "A", "--history", "1", *SHAPE) as (url, connection):
        (job,) = asked(url, "/public/jobs")["value"]
        assert requests.get(f"{url}/public/jobs/{job['id'].upper()}/logs", timeout=5).status_code != 200
        (execution,) = asked(url, f"/public/jobs/{job['id']}/logs")["value"]
    assert execution["state"] == "Completed"
    assert datetime.fromisoformat(execution["stop"]).tzinfo is None
    assert "endTime" not in execution
    assert connection["extra"]["timezone"] == "Europe/Copenhagen"
    vocabulary = connection["extra"]["vocabulary"]
    assert vocabulary["fields"]["execution.end"] == "Stop"
    assert vocabulary["statuses"]["running"] == "Busy"
    assert vocabulary["states"] == {"running": -1, "succeeded": "Completed", "failed": 7}


def test_the_command_that_the_guide_shows_runs() -> None:
    (line,) = [line for line in blocks(ROOT / "docs/testing.md", "bash") if "--shape" in line]
    with command(*shlex.split(line.replace("\\\n", ""))[3:]) as (_, connection):
        assert connection["extra"]["vocabulary"]["states"] == {
            "running": 2,
            "succeeded": "Completed",
            "failed": "Failed",
        }


def test_the_command_replays_a_recording(tmp_path: Path) -> None:
    file = tmp_path / "recording.json"
    job_id = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
    answers = {
        "/public/jobs": [{"Id": job_id, "Name": "text 1"}],
        "/public/jobs/status": [],
        f"/public/jobs/{job_id}/logs": [],
    }
    recorded = [{"path": path, "body": body} for path, body in answers.items()]
    names = {"job.id": "Id", "job.name": "Name"}
    file.write_text(json.dumps({"timextender_recording": 1, "members": names, "answers": recorded}))
    with command("--replay", str(file)) as (url, connection):
        assert {path: asked(url, path) for path in answers} == answers
        assert requests.post(
            f"{url}/public/jobs/{job_id}/execute", headers={"x-api-key": API_KEY}, timeout=5
        ).ok
        assert asked(url, f"/public/jobs/{job_id}/logs") == [], (
            "no execution is recorded that could be played"
        )
    assert connection["extra"] == {}


def test_the_command_leaves_the_explanation_to_be_found_out() -> None:
    with command("--word", "succeeded=Completed", "--unexplained") as (_, connection):
        assert connection["extra"] == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--fail Lod", "--fail names no job: Lod"),
        (
            "--job Twin --job Other --job Twin",
            "Several jobs have the id of 'Twin', as jobs of one name have.",
        ),
        ("--duration -1", "argument --duration: '-1' is not a number of seconds, 0 or more"),
        ("--duration nan", "'nan' is not a number of seconds"),
        ("--history -2", "argument --history: '-2' is not a whole number, 0 or more"),
        ("--shape nest=wrapped", "There is no trait 'nest'; there is members, "),
        ("--shape nesting=wrap", "nesting: there is no 'wrap', only nested, flat, wrapped, one object."),
        ("--shape exact_ids=maybe", "exact_ids: there is no 'maybe', only False, True."),
        ("--shape timezone=Mars", "timezone: 'Mars' is no name of the IANA database."),
        ("--shape nesting", "argument --shape: 'nesting' is not of the form NAME=VALUE"),
        ("--rename Until=Stop", "renamed: there is no 'Until', only Id, Name, "),
        ("--word won=Completed", "There is no word for 'won'; there is statuses.idle, "),
        ("--word states.idle=x", "There is no word for 'states.idle'"),
        ("--replay nowhere.json", "--replay nowhere.json: [Errno 2] No such file"),
        (f"--replay {__file__}", "test_simulator.py: Extra data"),
        (f"--replay {__file__} --rename EndTime=Stop", "has the jobs and the shape of its recording"),
        ("--word failed=success", "Two of the states have the same word"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, says: str
) -> None:
    # The port is none, so that a command that is not refused ends as well.
    monkeypatch.setattr(sys, "argv", ["simulator", "--port", "70000", *arguments.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("port", ["70000", "taken"])
def test_the_command_says_so_if_it_cannot_have_the_port(simulator: Simulator, port: str) -> None:
    whole = [
        sys.executable,
        "-m",
        own_module(),
        "--port",
        port.replace("taken", simulator.url.split(":")[-1]),
    ]
    done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert re.search("error: .*(port must be 0-65535|address already in use)", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("traits", "says"),
    [
        ({"times": "naiv"}, "times: there is no 'naiv', only Z, offset, "),
        ({"renamed": {"Until": "Stop"}}, "renamed: there is no 'Until', only Id, "),
        ({"states": {"succeeded": 1, "failed": 2}}, "states has no word for running"),
        (
            {"severities": {"info": 1, "warning": 2, "error": 3, "fatal": 4}},
            "severities: there is no 'fatal'",
        ),
        ({"timezone": "Mars"}, "timezone: 'Mars'"),
    ],
)
def test_a_dialect_that_makes_no_sense_is_refused(traits: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Dialect(**traits)


def test_two_jobs_of_one_name_need_ids_of_their_own() -> None:
    with pytest.raises(ValueError, match="Several jobs have the id of 'Twin'"):
        World([Job("Twin"), Job("Twin")])
    twins = [Job("Twin"), Job("Twin", id="3f2504e0-4f89-11d3-9a0c-0305e82c3301")]
    assert len(World(twins).jobs) == 2


def own_module() -> str:
    return "airflow_provider_timextender.simulator"
