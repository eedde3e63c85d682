"""What `check` finds out about an account that speaks otherwise, without starting anything."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from rich.console import Console

from airflow_provider_timextender import check, errors, jobs_api
from airflow_provider_timextender.carrier import Carrier
from airflow_provider_timextender.connection import Settings, settings
from airflow_provider_timextender.model import is_guid
from airflow_provider_timextender.recording import readable, record
from airflow_provider_timextender.reporting import show
from airflow_provider_timextender.simulator import BLANK_TRIGGER_ID, Dialect, Fault, Job, Recording, Simulator

from ..shapes import SHAPES, answered, give_a_past


@contextmanager
def carrying(simulator: Simulator, extra: dict[str, Any]) -> Iterator[tuple[Carrier, Settings]]:
    connection: Any = SimpleNamespace(
        conn_id="c", host=simulator.url, port=None, schema=None, password=simulator.api_key,
        extra=json.dumps(extra),
    )  # fmt: skip
    read = settings(connection)
    with Carrier(read) as carrier:
        yield carrier, read


def look(simulator: Simulator, extra: dict[str, Any], *, filtered: bool = False) -> check.Report:
    with carrying(simulator, extra) as (carrier, read):
        account = check.Account(carrier.send, read.vocabulary, read.timezone)
        for job in account.choose():
            account.read_log(job.id)
        report = check.report(account)
        if filtered and (chosen := check.one_to_ask_for(report)):
            account.read_filtered(*chosen)
    return report


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


def test_r47_executions_are_told_from_entries_beside_them_though_neither_is_whole() -> None:
    """Executions without an end, an id or a message, beside entries: each has one time."""
    dialect = Dialect(
        nesting="flat", trigger_id_on="entries", message_on="entries", end_on="nowhere", states_as="object"
    )
    with simulated(dialect) as simulator:
        give_a_past(simulator)
        report = look(simulator, {})
    assert report.evidence.proposals == {"execution.state": "State.Name"}
    assert len(report.evidence.objects["execution"]) == 10


def test_a_word_that_no_setting_can_explain_is_no_question() -> None:
    dialect = Dialect(statuses_as="object", statuses={"idle": 0, "pending": 1, "running": 2})
    with simulated(dialect) as simulator:
        report = look(simulator, {})
    assert report.questions == []
    assert ["status.state" in problem for problem in report.unexplained] == [True]


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
        chosen = check.one_to_ask_for(report)
    assert chosen is not None
    assert chosen[1] in {execution.trigger_id for execution in simulator.world.executions}


TRIGGER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"


def execution(number: int = 0, **others: Any) -> dict[str, Any]:
    """An execution as a server may write it, without what is given as ``None``."""
    usual = {
        "TriggerId": f"{TRIGGER[:-1]}{number}", "State": "Success", "StartTime": "2026-01-01T00:00:00Z",
        "EndTime": "2026-01-01T01:00:00Z", "Message": "Job completed.",
        "Logs": [{"Timestamp": "2026-01-01T00:00:00Z", "Severity": "Information", "Message": "It began."}],
    }  # fmt: skip
    return {name: value for name, value in {**usual, **others}.items() if value is not None}


def saying(dialect: Dialect | None = None, **answers: Any) -> Simulator:
    """A simulator that answers to some calls what nobody expects."""
    simulator = Simulator([Job("Load sales"), Job("Load stock")], dialect=dialect or Dialect())
    for route, answer in answers.items():
        simulator.fault(route, always=Fault("body", body=json.dumps(answer)))  # type: ignore[arg-type]
    return simulator


def printed(report: check.Report) -> str:
    file = io.StringIO()
    show(report, Console(file=file, width=100), "http://127.0.0.1")
    return file.getvalue()


@pytest.mark.parametrize("word", ["-", "  ", True, 1.5])
def test_r47_what_no_setting_can_name_is_told_and_not_asked(word: Any) -> None:
    with saying(logs=[execution(State=word)]) as simulator:
        report = look(simulator, {})
    assert report.questions == []
    assert ["execution.state" in problem for problem in report.unexplained] == [True]


def test_r47_each_kind_of_answer_may_have_a_name_of_its_own_for_its_list() -> None:
    with simulated(Dialect()) as simulator:
        give_a_past(simulator)
        jobs = [{"Id": job.id, "Name": job.name} for job in simulator.world.jobs.values()]
        statuses = [{"JobId": job["Id"], "Status": "Idle"} for job in jobs]
        for route, answer in {
            "jobs": {"jobs": jobs},
            "statuses": {"statuses": statuses, "errors": None},
            "logs": {"executions": [execution(), execution(1)]},
        }.items():
            simulator.fault(route, always=Fault("body", body=json.dumps(answer)))  # type: ignore[arg-type]
        told = look(simulator, {}).to_dict()
        assert look(simulator, {"vocabulary": told["vocabulary"]}).problems == []
        recording = Recording(recorded(simulator))
    with Simulator(recording.jobs, dialect=recording) as replayed:
        assert look(replayed, {}).to_dict()["vocabulary"] == told["vocabulary"]
        assert look(replayed, {"vocabulary": told["vocabulary"]}).problems == []


def test_of_sentences_that_stand_for_states_only_some_are_shown() -> None:
    with saying(logs=[execution(State=f"It ended as number {n}") for n in range(150)]) as simulator:
        report = look(simulator, {})
        shown = printed(report)
    assert len(report.to_dict()["questions"]) == 150
    assert shown.count("with running or succeeded") == 100
    assert "and 50 more, which --output json shows." in shown


def test_two_jobs_of_one_name_are_told_apart() -> None:
    ids = ["02515f84-8677-4f47-9379-2d099197deb9", TRIGGER]
    with saying(jobs=[{"Id": id_, "Name": "Twin"} for id_ in ids], logs=[]) as simulator:
        logs = look(simulator, {}).to_dict()["reached"]["logs"]
    assert list(logs) == [f"Twin ({id_})" for id_ in ids]


MOVED = "2026-01-01T02:00:00Z"


@pytest.mark.parametrize(
    ("field", "executions"),
    [
        ("execution.state", [execution(State=None, Delivery="Success")]),
        ("execution.state", [execution(State=None, EndStatus=3, MailResult="Success")]),
        ("execution.end", [execution(EndTime=None, State="Running", Modified=MOVED)]),
        ("execution.end", [execution(EndTime=None, QueuedAt="2025-12-31T23:00:00Z")]),
        ("execution.start", [execution(StartTime=None, Modified=MOVED)]),
        ("execution.trigger_id", [execution(n, TriggerId=None, Package=TRIGGER) for n in range(2)]),
        ("log.severity", [execution(Logs=[{"Timestamp": MOVED, "Message": "Done.", "User": "ann"}])]),
    ],
    ids=[
        "a sideline",
        "two results",
        "while it runs",
        "before the start",
        "after the end",
        "shared",
        "a name",
    ],
)
def test_r47_what_the_past_contradicts_is_not_proposed(field: str, executions: list[Any]) -> None:
    """Pasted without a thought, it would make a task green that has failed, or wait for nothing."""
    with saying(logs=executions) as simulator:
        report = look(simulator, {})
    assert report.evidence.proposals == {}
    assert field in report.missing
    assert report.problems


def test_r48_a_success_with_error_lines_is_doubted() -> None:
    with simulated(Dialect()) as simulator:
        give_a_past(simulator)
        assert "Is their word a success?" not in printed(look(simulator, {}))
        report = look(simulator, {"vocabulary": {"states": {"succeeded": "Failed"}}})
    assert "4 of 10 executions that are taken for a success have error lines" in printed(report).replace(
        "\n", " "
    )


def test_ids_in_braces_are_shown() -> None:
    with simulated(Dialect(ids="braces")) as simulator:
        give_a_past(simulator)
        report = look(simulator, {}, filtered=True)
    assert "where that was tried" in printed(report)


# --- recordings ---


def recorded(simulator: Simulator) -> dict[str, Any]:
    """What ``check --record`` writes down, as it is read again from its file."""
    made: dict[str, Any] = json.loads(json.dumps(record(look(simulator, {}, filtered=True))))
    return made


@pytest.mark.parametrize("shape", SHAPES)
def test_r47_a_recording_tells_as_much_as_the_account(shape: str) -> None:
    with simulated(SHAPES[shape]) as simulator:
        give_a_past(simulator)
        told = look(simulator, {}).to_dict()
        recording = Recording(recorded(simulator))
    with Simulator(recording.jobs, dialect=recording) as replayed:
        again = look(replayed, {}).to_dict()
        assert again["vocabulary"] == told["vocabulary"]
        assert again["words"] == told["words"]
        assert [(one["section"], one["word"]) for one in again["questions"]] == [
            (one["section"], one["word"]) for one in told["questions"]
        ]
        assert {entry: field["spelling"] for entry, field in again["fields"].items()} == {
            entry: field["spelling"] for entry, field in told["fields"].items()
        }
        explained = answered(SHAPES[shape], again["vocabulary"], again["questions"])
        assert look(replayed, explained).problems == []


@pytest.mark.parametrize("shape", SHAPES)
def test_r34_a_recording_holds_no_name_message_id_or_time_of_the_account(shape: str) -> None:
    with simulated(SHAPES[shape]) as simulator:
        give_a_past(simulator)
        text = json.dumps(recorded(simulator))
        world = simulator.world
    private = {"Load", "sales", "Customer", "Transfer", simulator.api_key}
    for execution in world.executions:
        private |= {execution.trigger_id, *(line.message for line in execution.lines)} - {BLANK_TRIGGER_ID}
        private.add(datetime.fromtimestamp(execution.ended, timezone.utc).isoformat()[:16])
    private |= {job.id for job in world.jobs.values()}
    assert [one for one in private if one.lower() in text.lower()] == []


PRIVATE, NUMBER = "ACME", "4711234567"


@pytest.mark.parametrize(
    "answers",
    [
        {"logs": [execution(Message=f"0001-{PRIVATE}"), execution(Message=f"/Date(0) {PRIVATE}")]},
        {"logs": [execution(Amount=PRIVATE, Message=f"9999-01-01 {PRIVATE}", Ref=f"0001-01-01T{NUMBER}")]},
        {"logs": [execution(State=f"Failed, as column {n} is not in the table {PRIVATE}") for n in range(3)]},
        {"logs": [execution(**{PRIVATE: 5, TRIGGER: 6})]},
    ],
    ids=["unset", "unset, too", "sentences as states", "names and ids of members"],
)
def test_r34_a_recording_holds_nothing_that_looks_like_what_is_kept(answers: dict[str, Any]) -> None:
    jobs = [{"Id": "02515f84-8677-4f47-9379-2d099197deb9", "Name": PRIVATE}]
    with saying(jobs=jobs, **answers) as simulator:
        text = json.dumps(recorded(simulator))
    assert [one for one in (PRIVATE, NUMBER, TRIGGER) if one in text] == []


def test_r34_of_numbers_a_recording_holds_whole_and_small_ones_and_times_that_are_not_set() -> None:
    first = execution(StartTime=1764057600, EndTime=1764057660, Rows=12, Amount=123.25, Customer=4711)
    with saying(logs=[first, execution(1, StartTime=1764057600, EndTime=0)]) as simulator:
        made = recorded(simulator)
    one, other = next(one["body"] for one in made["answers"] if one["path"].endswith("/logs"))
    assert (one["Rows"], other["EndTime"]) == (12, 0)
    assert (one["Amount"], one["Customer"]) == (1000.0, 1001)


def test_a_long_number_in_a_message_takes_no_long_time() -> None:
    with saying(logs=[execution(Message="1" * 200_000 + "x")]) as simulator:
        began = time.process_time()
        recorded(simulator)
    assert time.process_time() - began < 5


def test_what_stays_readable_is_told() -> None:
    with simulated(SHAPES["end states"]) as simulator:
        give_a_past(simulator)
        told = readable(recorded(simulator))
    assert {"TriggerId", "EndTime", "State"} <= set(told["members"])
    assert told["words"] == ["Completed", "CompletedWithErrors", "Error", "Idle", "Information"]


def test_of_a_long_log_a_recording_holds_both_ends_and_each_word() -> None:
    with simulated(Dialect()) as simulator:
        for number in range(60):
            simulator.past("Load sales", "failed" if number == 30 else "succeeded", ago=9000 - 100 * number)
        made = recorded(simulator)
    (log,) = (one["body"] for one in made["answers"] if one["path"].endswith("/logs") and one["body"])
    assert len(log) == 41
    assert [one["State"] for one in log].count("Failed") == 1


def test_the_same_is_replaced_by_the_same() -> None:
    with simulated(Dialect(ids="braces", nesting="flat")) as simulator:
        give_a_past(simulator)
        made = recorded(simulator)
    answers = {one["path"]: one["body"] for one in made["answers"]}
    ids = [job["Id"] for job in answers["/public/jobs"]]
    assert [one["JobId"] for one in answers["/public/jobs/status"]] == ids
    log = answers[f"/public/jobs/{quote(ids[1], safe='')}/logs"]
    assert {entry["TriggerId"] for entry in log if "Severity" in entry} == {
        execution["TriggerId"] for execution in log if "State" in execution
    }
    assert all(is_guid(id_) and id_.startswith("{") for id_ in ids)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_recording_runs_its_executions_again(shape: str) -> None:
    with simulated(SHAPES[shape]) as simulator:
        give_a_past(simulator)
        told = look(simulator, {}).to_dict()
        made = recorded(simulator)
    recording = Recording(made)
    with Simulator(recording.jobs, dialect=recording) as replayed:
        explained = answered(SHAPES[shape], told["vocabulary"], told["questions"])
        with carrying(replayed, explained) as (carrier, _):
            (job, *_) = carrier.send(jobs_api.list_jobs())
            for job_ in replayed.world.jobs.values():
                job_.pickup = job_.duration = 0
            receipts = [carrier.send(jobs_api.execute_job(job.id)).trigger_id for _ in range(3)]
            ended = []
            for receipt in receipts:
                call = jobs_api.if_any(jobs_api.job_logs(job.id, receipt))
                found = [e for e in carrier.send(call) if e.is_under(receipt)]
                found = found or [e for e in carrier.send(jobs_api.job_logs(job.id)) if e.is_under(receipt)]
                ended += found
        order = ["succeeded", "failed", "succeeded"]
        if SHAPES[shape].order == "newest":
            order = ["failed", "succeeded", "failed"]  # the newest of all was by hand
        assert [str(one.state) for one in ended] == order
        late = [datetime.now(timezone.utc) - one.end for one in ended if one.end]
        assert all(abs(lag) < timedelta(hours=15) for lag in late)


@pytest.mark.parametrize(
    "answers",
    [
        {"jobs": [{"Id": 1, "Name": "a"}, {"Id": 1, "Name": "b"}], "statuses": 5},
        {"jobs": [{"Nr": None}, {"Nr": None}], "statuses": [[{}]]},
        {"logs": {"Data": {"Items": [execution()]}}},
        {"logs": True},
        {"jobs": []},
    ],
    ids=["numbers", "no ids", "wrapped twice", "no list", "no job"],
)
def test_r47_an_account_that_is_not_understood_can_be_recorded_and_replayed(answers: dict[str, Any]) -> None:
    with saying(**answers) as simulator:
        report = look(simulator, {})
        recording = Recording(recorded(simulator))
    with Simulator(recording.jobs, dialect=recording) as replayed:
        again = look(replayed, {})
    assert [one.partition(": ")[2][:60] for one in again.problems] == [
        one.partition(": ")[2][:60] for one in report.problems
    ]


@pytest.mark.parametrize(
    "changed",
    [{"members": None}, {"members": []}, {"answers": None}, {"answers": [{"path": "/public/jobs"}]},
     {"answers": []}, {"answers": ["x"]}],
    ids=str,
)  # fmt: skip
def test_a_recording_that_was_cut_or_changed_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cut or changed"):
        Recording({"timextender_recording": 1, "members": {}, "answers": [], **changed})


@pytest.mark.parametrize("text", ["{}", "[]", '{"timextender_recording": 2}'])
def test_what_is_no_recording_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no recording of format 1"):
        Recording(json.loads(text))
