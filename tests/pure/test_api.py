"""The wire contract: pure tests, no network."""

from __future__ import annotations

import itertools
import json
import re
import string
import tracemalloc
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_timextender import answers, arriving, errors, model, vocabulary
from airflow_provider_timextender import jobs_api as api
from airflow_provider_timextender.jobs_api import Answer, read, read_each
from airflow_provider_timextender.logs import RELAY_LIMIT, LastLines, LogFilter, WantedLines
from airflow_provider_timextender.model import ExecutionState, JobState
from airflow_provider_timextender.vocabulary import Vocabulary

JOB = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
TRIGGER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
OTHER = "aaaaaaaa-9dc0-11d1-b245-5ffdce74fad2"


def answer(data: Any, status: int = 200, **headers: str) -> Answer:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Answer("GET http://x/y", status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


def say(call: api.Call[Any], data: Any, vocabulary: Vocabulary | None = None) -> Any:
    return read(call, answer(data), vocabulary or Vocabulary())


# --- calls and ids ---


@pytest.mark.parametrize(
    ("call", "method", "path"),
    [
        (api.list_jobs(), "GET", "/public/jobs"),
        (api.execute_job(JOB), "POST", f"/public/jobs/{JOB}/execute"),
        (api.job_status(JOB), "GET", f"/public/jobs/{JOB}/status"),
        (api.all_job_statuses(), "GET", "/public/jobs/status"),
        (api.job_logs(JOB), "GET", f"/public/jobs/{JOB}/logs"),
        (api.job_logs(JOB, TRIGGER), "GET", f"/public/jobs/{JOB}/logs/{TRIGGER}"),
    ],
)
def test_each_call_is_a_value(call: api.Call[Any], method: str, path: str) -> None:
    assert (call.method, call.path) == (method, path)


@given(st.uuids().filter(lambda u: u.int))
def test_a_guid_is_kept_as_it_is_written_and_compared_in_one_spelling(value: uuid.UUID) -> None:
    for spelling in (str(value), str(value).upper(), f"{{{str(value).upper()}}}", value.hex):
        assert model.guid(spelling, "job id") == spelling
        assert model.canonical(spelling) == str(value)
    assert model.guid(value, "job id") == str(value)


def test_braces_are_encoded_in_a_path() -> None:
    call = api.job_logs(f"{{{JOB}}}", TRIGGER.upper())
    assert call.path == f"/public/jobs/%7B{JOB}%7D/logs/{TRIGGER.upper()}"


@given(st.text())
def test_no_other_text_can_get_into_a_path(value: str) -> None:
    for make in (api.execute_job, api.job_status, api.job_logs, lambda v: api.job_logs(JOB, v)):
        with pytest.raises(errors.InvalidInput, match="is not a guid"):
            make(value)


@pytest.mark.parametrize(
    "value", [None, 7, f"{JOB}\n", f" {JOB}", f"{{{JOB}", f"{JOB}}}", f"{JOB}/../x", JOB[:-1]]
)
def test_malformed_guids_are_refused_with_the_expected_form(value: Any) -> None:
    with pytest.raises(errors.InvalidInput, match=r"job id .* is not a guid \(expected 8-4-4-4-12"):
        model.guid(value, "job id")


def test_blank_guid_is_refused_with_the_reason() -> None:
    with pytest.raises(errors.InvalidInput, match="started by hand"):
        api.job_logs(JOB, model.BLANK_GUID)


# --- reading ---


def test_jobs() -> None:
    jobs = say(api.list_jobs(), [{"Id": JOB.upper(), "Name": "Load", "Extra": [1]}, {"id": TRIGGER}])
    assert jobs == [model.Job(JOB.upper(), "Load"), model.Job(TRIGGER, None)]
    assert jobs[0].raw == {"Id": JOB.upper(), "Name": "Load", "Extra": [1]}
    assert json.loads(json.dumps(jobs[0].to_dict())) == {"id": JOB.upper(), "name": "Load"}


@pytest.mark.parametrize("word", ["pending", "Pending", "PENDING", "pen_ding", "Pen ding"])
def test_status_words_are_compared_without_case_and_separators(word: str) -> None:
    status = say(api.job_status(JOB), {"Status": word})
    assert status == model.JobStatus(JOB, JobState.PENDING)
    assert status.to_dict() == {"job_id": JOB, "state": "pending"}


@pytest.mark.parametrize("word", ["hibernating", 3, 1.0, True, [], "idle?"])
def test_unknown_status_is_not_guessed_and_says_what_to_do(word: Any) -> None:
    status = say(api.job_status(JOB), {"Status": word})
    assert status.state is None
    assert repr(word) in status.problem
    assert "idle: idle; pending: pending; running: running" in status.problem
    assert '"statuses"' in status.problem
    assert status.to_dict()["state"] is None


@pytest.mark.parametrize("data", [{}, {"Status": None}, {"Status": ""}, {"Zustand": "idle"}])
def test_missing_status_is_not_guessed_and_says_what_to_do(data: Any) -> None:
    status = say(api.job_status(JOB), data)
    assert status.state is None
    assert "no value for status.state" in status.problem
    assert "expected one of Status, JobStatus" in status.problem
    assert '{"vocabulary": {"fields": {"status.state": "..."}}}' in status.problem


def test_all_statuses_and_one_odd_one_does_not_spoil_the_others() -> None:
    statuses = say(
        api.all_job_statuses(), [{"JobId": JOB, "Status": "idle"}, {"jobId": TRIGGER, "Status": "?"}]
    )
    assert [(s.job_id, s.state) for s in statuses] == [(JOB, JobState.IDLE), (TRIGGER, None)]


def test_submission() -> None:
    call = api.execute_job(JOB)
    receipt = say(call, {"JobId": JOB, "Message": "queued", "TriggerId": TRIGGER.upper()})
    assert receipt == model.Submission(JOB, TRIGGER.upper(), "queued")
    assert receipt.to_dict() == {"job_id": JOB, "trigger_id": TRIGGER.upper(), "message": "queued"}


@pytest.mark.parametrize("data", [{"JobId": JOB}, {"TriggerId": "17"}, {"TriggerId": model.BLANK_GUID}])
def test_submission_without_a_trigger_id_is_a_contract_error(data: Any) -> None:
    with pytest.raises(errors.ContractError, match=r"submission\.trigger_id"):
        say(api.execute_job(JOB), data)


ENDED = {
    "State": "Failed",
    "StartTime": "2026-01-01T10:00:00Z",
    "EndTime": "2026-01-01T10:02:30.5Z",
    "Message": "no space",
    "Logs": [
        {"Time": "2026-01-01T12:00:00+02:00", "Level": "Warn", "Text": "slow", "TriggerId": TRIGGER},
        {"Severity": "Loud", "Message": None},
    ],
}


def test_execution_and_its_log() -> None:
    (execution,) = say(api.job_logs(JOB), [ENDED])
    assert execution.trigger_id == TRIGGER, "found on a log entry, as the execution carries none"
    assert execution.state is ExecutionState.FAILED
    assert execution.duration == 150.5
    first, second = execution.logs
    assert (first.severity, first.level, first.message) == ("warning", 30, "slow")
    assert (second.severity, second.level, second.message, second.time) == (None, 20, "", None)
    assert execution.to_dict() == {
        "job_id": JOB,
        "trigger_id": TRIGGER,
        "state": "failed",
        "start": "2026-01-01T10:00:00+00:00",
        "end": "2026-01-01T10:02:30.500000+00:00",
        "duration": 150.5,
        "message": "no space",
        "problem": None,
    }
    assert first.to_dict() == {
        "time": "2026-01-01T10:00:00+00:00",
        "severity": "warning",
        "message": "slow",
        "trigger_id": TRIGGER,
    }
    assert execution.raw is not None


def test_an_unknown_execution_state_is_not_guessed() -> None:
    (execution,) = say(api.job_logs(JOB), [{"State": "Completed"}])
    assert execution.state is None
    assert execution.duration is None
    assert "'Completed'" in execution.problem
    assert execution.to_dict()["state"] is None


@pytest.mark.parametrize("word", ["Completed", "Finished", "Done", "OK", "0", 0, 1, 2, True])
def test_r01_no_ambiguous_word_or_code_stands_for_success(word: Any) -> None:
    (execution,) = say(api.job_logs(JOB), [{"State": word}])
    assert execution.state is not ExecutionState.SUCCEEDED


@pytest.mark.parametrize(
    ("execution", "ours"),
    [
        ({"TriggerId": TRIGGER.upper()}, True),
        ({"Logs": [{"TriggerId": TRIGGER}]}, True),
        ({"Logs": []}, False),  # the filter may have left out the entries and not the execution
        ({"TriggerId": OTHER}, False),
        ({"TriggerId": OTHER, "Logs": [{"TriggerId": TRIGGER}]}, False),
        ({"TriggerId": model.BLANK_GUID}, False),
        ({"Logs": [{"TriggerId": OTHER}]}, False),
    ],
)
def test_r02_only_an_execution_under_our_trigger_id_is_ours(execution: Any, ours: bool) -> None:
    (found,) = say(api.job_logs(JOB, TRIGGER), [execution])
    assert found.is_under(TRIGGER) is ours


def test_r11_a_404_for_an_execution_that_may_not_show_yet_is_an_empty_list() -> None:
    call = api.if_any(api.job_logs(JOB, TRIGGER))
    assert call.path == api.job_logs(JOB, TRIGGER).path
    assert read(call, answer(b"", 404), Vocabulary()) == []
    with pytest.raises(errors.Refused):
        read(api.job_logs(JOB, TRIGGER), answer(b"", 404), Vocabulary())


def test_r14_nothing_said_is_an_empty_list() -> None:
    assert say(api.job_logs(JOB, TRIGGER), None) == []
    assert read(api.job_logs(JOB), answer(b"", 204), Vocabulary()) == []
    assert say(api.job_logs(JOB), [{"Logs": None}])[0].logs == ()


@pytest.mark.parametrize(
    ("call", "data"),
    [
        (api.list_jobs(), {"value": []}),
        (api.list_jobs(), ["x"]),
        (api.job_status(JOB), [{"Status": "idle"}]),
        (api.job_status(JOB), "idle"),
        (api.job_logs(JOB), [{"Logs": {"Message": "x"}}]),
    ],
)
def test_r14_json_of_another_shape_is_a_contract_error(call: api.Call[Any], data: Any) -> None:
    with pytest.raises(
        errors.ContractError, match=r"GET http://x/y: expected a JSON (array|object)"
    ) as caught:
        say(call, data)
    assert not caught.value.transient


@pytest.mark.parametrize(
    "body", [b"<html>Sign in</html>", b'{"Status": "id', b"", b"\xff\xfe", b"[" * 100_000]
)
def test_r14_what_is_not_json_keeps_status_and_excerpt(body: bytes) -> None:
    with pytest.raises(
        errors.UnreadableAnswer, match=r"but the body is (not JSON|nested too deep)"
    ) as caught:
        read(api.list_jobs(), answer(body), Vocabulary())
    assert caught.value.transient
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (400, errors.Refused, "refused"),
        (401, errors.Refused, "API key was refused"),
        (403, errors.Refused, "API key was refused"),
        (404, errors.Refused, "No such job"),
        (302, errors.Refused, "redirects are not followed"),
        (429, errors.RateLimited, "Too many requests"),
        (500, errors.ServerError, "server failed"),
        (502, errors.ServerError, "server failed"),
    ],
)
def test_r14_each_error_status_has_its_error_with_the_body(
    status: int, kind: type[errors.TimeXtenderError], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught:
        read(api.list_jobs(), answer(b"<h1>" + b"x" * 1000, status), Vocabulary())
    assert f"HTTP {status}" in str(caught.value)
    assert "<h1>xxx" in str(caught.value)
    assert str(caught.value).count("x" * 490) == 1
    assert len(str(caught.value)) < 900
    if isinstance(caught.value, errors.Refused):
        assert caught.value.status == status


def test_redirect_names_the_host_only() -> None:
    error = api.error_for(answer(b"", 307, location="https://me:pw@evil.example:81/steal?x=1"))
    assert "redirects to 'evil.example:81', and" in str(error)
    for location in ("", "/login", "http://["):
        error = api.error_for(answer(b"", 307, location=location))
        assert "another path" in str(error) or "'['" in str(error)


@pytest.mark.parametrize("value", ["", "soon", "-5", "1.5", "٣", f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"])
def test_unusable_retry_after_is_none(value: str) -> None:
    error = api.error_for(answer(b"", 503, retry_after=value))
    assert isinstance(error, errors.Unavailable)
    assert error.retry_after in (None, 3.0)


def test_retry_after_in_seconds_or_as_date() -> None:
    later = (datetime.now(timezone.utc) + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    past = "Thu, 01 Jan 1970 00:00:00 GMT"
    for value, expected in (("7", 7), (later, 90), (past, 0), ("1767225600", 900), ("9" * 30, 900)):
        error = api.error_for(answer(b"", 429, retry_after=value))
        assert isinstance(error, errors.RateLimited)
        assert error.retry_after == pytest.approx(expected, abs=3)


def test_errors_know_whether_another_try_helps() -> None:
    helpless = {
        errors.InvalidInput, errors.Refused, errors.ContractError, errors.AnswerTooLarge,
        errors.SubmissionUncertain,
    }  # fmt: skip
    for kind in _tree(errors.TimeXtenderError):
        assert kind.retry_helps is (kind not in helpless), kind


def _tree(kind: type[errors.TimeXtenderError]) -> set[type[errors.TimeXtenderError]]:
    return {kind}.union(*(_tree(sub) for sub in kind.__subclasses__()))


# --- answers that nobody expects ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["Id", "JobId", "Status", "State", "TriggerId", "StartTime", "EndTime", "Logs", "Time"]
            )
            | st.text(max_size=3),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)
CALLS = (
    api.list_jobs(), api.execute_job(JOB), api.job_status(JOB), api.all_job_statuses(), api.job_logs(JOB),
    api.job_logs(JOB, TRIGGER), api.executions_so_far(JOB),
)  # fmt: skip


@given(st.sampled_from(CALLS), json_values)
def test_r14_whatever_json_comes_is_read_or_is_one_of_our_errors(call: api.Call[Any], data: Any) -> None:
    try:
        say(call, data)
    except errors.ContractError as error:
        assert "HTTP 200" in str(error)


def test_r14_json_that_is_nested_deeply_is_one_of_our_errors() -> None:
    for depth in (900, 990, 5000):
        nested = b"[" * depth + b"]" * depth
        with pytest.raises(errors.ContractError):
            read(api.execute_job(JOB), answer(b'{"TriggerId": ' + nested + b"}"), Vocabulary())


def say_text(call: api.Call[Any], text: str) -> Any:
    return read(call, answer(text.encode()), Vocabulary())


def test_r01_a_state_that_is_given_twice_is_not_guessed() -> None:
    (execution,) = say_text(api.job_logs(JOB), '[{"State": "Failed", "State": "Succeeded"}]')
    assert execution.state is None
    assert "['Failed', 'Succeeded'], a word in no table" in execution.problem
    (execution,) = say_text(api.job_logs(JOB), '[{"State": "Failed", "x": 1, "State": "Failed", "x": 2}]')
    assert execution.state is ExecutionState.FAILED
    assert execution.raw["x"] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        '[{"Logs": [{"Message": "a"}], "Logs": [{"Message": "b"}]}]',
        '[{"Logs": [{"Message": "a"}], "logs": [{"Message": "b"}]}]',
        '[{"Logs": [{"Message": "a"}], "Entries": [{"Message": "b"}]}]',
        '[{"Logs": {"Items": [{"Message": "a"}], "Items": [{"Message": "b"}]}}]',
        '{"Items": [{"Logs": []}], "Items": [{"Logs": []}]}',
        '{"Items": [{"Logs": []}], "items": [{"Logs": []}]}',
    ],
)
def test_r48_of_two_lists_none_is_chosen(text: str) -> None:
    told = Vocabulary.of({"fields": {"list.items": "Items"}})
    with pytest.raises(errors.ContractError):
        read(api.job_logs(JOB), answer(text.encode()), told)


def test_r02_an_id_that_is_given_twice_is_none() -> None:
    with pytest.raises(errors.ContractError, match=r"submission\.trigger_id .* is not a guid"):
        say_text(api.execute_job(JOB), f'{{"TriggerId": "{TRIGGER}", "TriggerId": "{OTHER}"}}')
    (execution,) = say_text(api.job_logs(JOB), f'[{{"TriggerId": "{OTHER}", "TriggerId": "{TRIGGER}"}}]')
    assert execution.trigger_id is None


@pytest.mark.parametrize(
    ("entry", "kept"),
    [
        ('{"Severity": "Error", "Message": "m"}', True),
        ('{"Severity": "Information", "Message": "m"}', False),
        ('{"Severity": "Information", "Message": "m", "Severity": "Information"}', False),
        ('{"Severity": "Information", "Message": "m", "Severity": "Error"}', True),
        ('{"Severity": "Error", "Message": "m", "Severity": "Information"}', True),
        ('{"Severity": "Information", "Message": "m", "Level": "Information"}', False),
        ('{"Level": {"Name": "Information"}, "Message": "m"}', True),
        ('{"Message": "m"}', True),
    ],
)
def test_a_filter_drops_entries_only_by_one_severity_that_is_understood(entry: str, kept: bool) -> None:
    call = api.each_execution(JOB, keep=WantedLines(LogFilter(min_severity="error")))
    # Between others, of another shape.
    info = '{"Severity": "Information", "Timestamp": "2026-01-01T00:00:00Z"}'
    log = f'[{{"Logs": [{info}, {entry}, {info}]}}]'
    (execution,) = read_each(call, answer(log.encode()), Vocabulary(), timezone.utc)
    assert len(execution.logs) == kept
    assert execution.log_count == 3


@pytest.mark.parametrize("number", ["0." + "1" * 10**5, "1" * 18, "1e99", "-0"])
def test_r01_no_strange_number_stands_for_a_state(number: str) -> None:
    assert say_text(api.job_status(JOB), f'{{"Status": {number}}}').state is None
    (execution,) = say_text(api.job_logs(JOB), f'[{{"State": {number}, "EndTime": null}}]')
    assert execution.state is None
    assert len(execution.problem) < 700


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" * 20, "1" * 4000, "1" * 5000])
def test_r14_what_is_no_number_of_this_machine_is_unreadable(number: str) -> None:
    with pytest.raises(errors.UnreadableAnswer):
        say_text(api.job_status(JOB), f'{{"Status": "idle", "x": {number}}}')


def test_r41_an_object_of_very_many_members_is_not_read() -> None:
    many = ", ".join(f'"{number}": 0' for number in range(1001))
    with pytest.raises(errors.ContractError, match="a JSON object has 1001 members, more than 1000"):
        say_text(api.job_status(JOB), f"{{{many}}}")


def test_r41_lists_within_lists_are_counted_as_well() -> None:
    call = replace(api.job_status(JOB), limit=api.OBJECT_LIMIT)
    with pytest.raises(errors.AnswerTooLarge, match="more than 500000 JSON objects and lists"):
        say_text(call, "[" + "[]," * arriving.MAX_OBJECTS + "[]]")


def test_r41_no_name_of_a_member_is_kept_for_ever() -> None:
    say(api.job_status(JOB), {"Status": "idle"})
    before = vocabulary._folded.cache_info().currsize
    say(api.job_status(JOB), {"Status": "idle", "x" * 101: 1})
    say(api.job_status(JOB), {"Status": "y" * 101})
    assert vocabulary._folded.cache_info().currsize <= before + 1
    assert model.parse_time("2026-01-01" + "0" * 10**6) is None


def breaks_off() -> Iterator[bytes]:
    raise errors.UnreadableAnswer("it broke")
    yield b""


def test_r14_a_body_that_is_not_whole_is_unreadable_and_an_error_status_is_what_it_is() -> None:
    for status, kind in ((200, errors.UnreadableAnswer),
                         (500, errors.ServerError), (401, errors.Refused)):  # fmt: skip
        cut = Answer("GET x", status, {}, b'[{"JobId": ', breaks_off())
        with pytest.raises(kind, match=r'\[\{"JobId":') as caught:
            read(api.all_job_statuses(), cut, Vocabulary())
        assert ("it broke" in str(caught.value)) is (status < 300)


def test_r14_a_contract_error_keeps_what_was_said() -> None:
    with pytest.raises(errors.ContractError, match=r"HTTP 200.*The job is already running since noon"):
        say(api.execute_job(JOB), {"Message": "The job is already running since noon"})


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    (execution,) = say(api.job_logs(JOB), [{"Message": "a\ud800", "Logs": [{"Message": "b\ud800"}]}])
    assert (execution.message, execution.logs[0].message) == ("a?", "b?")


@pytest.mark.parametrize(
    "spelling",
    [f"{{{TRIGGER}}}", TRIGGER.replace("-", ""), f" {TRIGGER}", TRIGGER.upper()],
)
def test_r02_our_trigger_id_in_another_spelling_is_ours(spelling: str) -> None:
    for told in ({"TriggerId": spelling}, {"Logs": [{"TriggerId": spelling}]}):
        (execution,) = say(api.job_logs(JOB, TRIGGER), [told])
        assert execution.is_under(TRIGGER)
        assert execution.trigger_id == spelling.strip(), "it is sent as it came"


def test_r02_a_blank_guid_does_not_hide_our_trigger_id_on_a_log_entry() -> None:
    logs = [{"TriggerId": model.BLANK_GUID}, {"TriggerId": TRIGGER}]
    for told in ({"TriggerId": model.BLANK_GUID, "Logs": logs}, {"Logs": logs}):
        assert say(api.job_logs(JOB, TRIGGER), [told])[0].is_under(TRIGGER)
    by_hand = say(api.job_logs(JOB), [{"TriggerId": f"{{{model.BLANK_GUID}}}"}])[0]
    assert by_hand.by_hand
    assert not by_hand.is_under(TRIGGER)


def test_r02_an_execution_is_nobodys_while_no_one_trigger_id_is_told() -> None:
    theirs = {"TriggerId": OTHER, "Logs": [{"TriggerId": TRIGGER}]}
    entries = [{"TriggerId": TRIGGER}, {"TriggerId": OTHER}]
    nobodys: list[Any] = [{}, {"TriggerId": 17}, {"TriggerId": ""}, {"Logs": []}, {"Logs": entries}]
    for told in nobodys:
        assert say(api.job_logs(JOB, TRIGGER), [told])[0].trigger_id is None
    assert say(api.job_logs(JOB, TRIGGER), [theirs])[0].is_under(OTHER), "its own id decides"
    assert say(api.job_logs(JOB), [{"TriggerId": 17, "Logs": [{"TriggerId": TRIGGER}]}])[0].is_under(TRIGGER)


def test_r01_an_end_that_cannot_be_read_is_an_end() -> None:
    for end in ("01/02/2024 10:00:00", 17, {"Ticks": 1}, "N/A", "-"):
        (execution,) = say(api.job_logs(JOB), [{"State": "Completed", "EndTime": end}])
        assert execution.is_over
        assert (execution.state, execution.end) == (None, None)
        assert "execution.end is" in (execution.end_problem or "")
    for no_end in (
        None,
        "",
        0,
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59.9999999",
        -62135596800,
        "0",
        "00:00:00",
        "/Date(0)/",
        "1900-01-01T00:00:00",
        "1970-01-01T00:00:00Z",
        "1753-01-01",
        "01/01/0001 00:00:00",
        "/Date(-62135596800000)/",
    ):
        (execution,) = say(api.job_logs(JOB), [{"State": "Completed", "EndTime": no_end}])
        assert not execution.is_over
        assert (execution.end, execution.end_problem) == (None, None)


def test_r01_a_code_says_nothing_while_there_is_no_end() -> None:
    codes = Vocabulary.of({"states": {"succeeded": 0, "failed": 1, "running": 2}})
    ends = ("0001-01-01T00:00:00", "1900-01-01", "N/A", "2026-01-01T09:59:59")
    for code, end in itertools.product((0, "0", 1), ends):
        told: dict[str, Any] = {"State": code, "StartTime": "2026-01-01T10:00:00", "EndTime": end}
        (execution,) = say(api.job_logs(JOB), [told], codes)
        assert execution.state is None
        assert execution.end is None
        assert execution.is_over is (end == "N/A"), "it may be over, and nobody knows how"
        assert "a number says nothing while there is no end" in (execution.problem or "")
        assert say(api.job_logs(JOB), [{**told, "EndTime": "2026-01-02"}], codes)[0].state is not None
    two = {"State": "", "Status": 0, "EndTime": None}
    assert say(api.job_logs(JOB), [two], codes)[0].state is None
    assert say(api.job_logs(JOB), [{"State": 2}], codes)[0].state is ExecutionState.RUNNING
    assert say(api.job_logs(JOB), [{"State": "Success"}])[0].state is ExecutionState.SUCCEEDED


def test_r14_a_log_entry_is_no_execution() -> None:
    entry = {"Timestamp": "2026-01-01T00:00:00Z", "Severity": "Error", "Message": "x", "TriggerId": TRIGGER}
    execution = {"TriggerId": TRIGGER, "State": "Success"}
    for told in ([entry, entry], [execution, entry]):
        with pytest.raises(errors.ContractError, match=r"found a log entry among them.*Timestamp") as caught:
            say(api.job_logs(JOB, TRIGGER), told)
        assert not caught.value.transient
    for alone in ({**execution, **entry}, {**entry, "Status": "Success"}):
        with pytest.raises(errors.ContractError, match="found a log entry among them"):
            say(api.job_logs(JOB, TRIGGER), [alone])
    whole = {**execution, **entry, "StartTime": "2026-01-01"}
    assert len(say(api.job_logs(JOB, TRIGGER), [execution, whole])) == 2


def test_r48_a_list_in_an_object_is_taken_out_if_the_connection_names_its_member() -> None:
    job = {"Id": JOB, "Name": "Load"}
    for wrapper in ({"Value": [job]}, {"value": [job], "count": 1, "nextLink": None}):
        with pytest.raises(errors.ContractError, match=r'set .*"list.items"'):
            say(api.list_jobs(), wrapper)
        assert say(api.list_jobs(), wrapper, Vocabulary.of({"fields": {"list.items": "value"}}))[0].id == JOB
    whole = Vocabulary.of({"fields": {"list.items": "items"}})
    logs = {"items": [{"Message": "x"}]}
    (execution,) = say(api.job_logs(JOB), {"items": [{"Logs": logs}]}, whole)
    assert execution.logs[0].message == "x"
    assert say(api.job_logs(JOB), {"items": None}, whole) == []
    with pytest.raises(errors.ContractError, match="expected a JSON array, found 1"):
        say(api.job_logs(JOB), {"items": 1}, whole)


@pytest.mark.parametrize(
    "page",
    [
        {"nextLink": "/public/jobs?page=2"},
        {"@odata.nextLink": "x"},
        {"has_more": True},
        {"paging": {"next": "x"}},
        {"total": 3},
        {"total": "3"},
        {"meta": {"total": 3}},
        {"meta": {"paging": {"next": "x"}}},
    ],
    ids=str,
)
def test_r48_a_page_of_a_longer_list_is_an_error(page: dict[str, Any]) -> None:
    wrapped = {"value": [{"Id": JOB, "Name": "Load"}], **page}
    explained = Vocabulary.of({"fields": {"list.items": "value"}})
    for words in [explained] if "total" in str(page) else [explained, Vocabulary()]:
        with pytest.raises(errors.ContractError, match="page of a longer list"):
            say(api.list_jobs(), wrapped, words)


@pytest.mark.parametrize("page", [{"nextLink": "x"}, {"total": 3}], ids=str)
def test_r48_a_page_of_a_longer_log_is_an_error_though_the_connection_names_its_list(page: Any) -> None:
    explained = Vocabulary.of({"fields": {"execution.logs": "Log.Items"}})
    whole = {"State": "Success", "Log": {"Items": [{"Message": "x"}]}}
    (execution,) = say(api.job_logs(JOB), [whole], explained)
    assert execution.logs[0].message == "x"
    with pytest.raises(errors.ContractError, match="page of a longer list"):
        say(
            api.job_logs(JOB), [{"State": "Success", "Log": {"Items": [{"Message": "x"}], **page}}], explained
        )


@pytest.mark.parametrize(("link", "is_page"), [('<x?page=2>; rel="next"', True), ('<x>; rel="self"', False)])
def test_r48_a_link_to_a_next_page_is_an_error(link: str, is_page: bool) -> None:
    told = replace(answer(b"[]"), headers={"link": link})
    if not is_page:
        assert read(api.list_jobs(), told, Vocabulary()) == []
        return
    with pytest.raises(errors.ContractError, match="page of a longer list"):
        read(api.list_jobs(), told, Vocabulary())


def test_r48_log_entries_beside_executions_are_joined_by_the_id_that_the_connection_names() -> None:
    def entry(key: Any, text: str) -> dict[str, Any]:
        return {"Run": key, "Timestamp": "2026-01-01T00:00:00Z", "Severity": "Error", "Message": text}

    by_key = Vocabulary.of({"fields": {"log.execution_id": "Run", "execution.id": "Key"}})
    told = [
        {"Key": 1, "TriggerId": TRIGGER, "State": "Failed", "EndTime": "2026-01-01"},
        entry(2, "b"),
        {"Key": 2, "TriggerId": OTHER, "State": "Success", "EndTime": "2026-01-01"},
        entry(1, "a"),
        entry(9, "of one that is not shown"),
        entry(1, "aa"),
    ]
    first, second = say(api.job_logs(JOB), told, by_key)
    assert [log.message for log in first.logs] == ["a", "aa"]
    assert [log.message for log in second.logs] == ["b"]
    assert first.log_problems == {
        "log.execution_id": "of 4 log entries beside the executions, 1 belong to none, and are left out."
    }
    assert not say(api.job_logs(JOB), told[:4], by_key)[0].log_problems
    with pytest.raises(
        errors.ContractError, match=r"none of 1 log entries belongs to one of 2.*execution.id"
    ):
        say(api.job_logs(JOB), [told[0], entry(7, "x"), told[2]], by_key)
    with pytest.raises(errors.ContractError, match=r"none of 1 log entries belongs to one of 0"):
        say(api.job_logs(JOB), [entry(7, "x")], by_key)
    with pytest.raises(errors.ContractError, match=r"have entries in them, and 1 more lie beside"):
        say(api.job_logs(JOB), [{**told[0], "Logs": [entry(1, "x")]}, entry(1, "y")], by_key)

    by_trigger = Vocabulary.of({"fields": {"log.execution_id": "TriggerId"}})
    flat = [
        {"TriggerId": id_, "State": "Success", "EndTime": "2026-01-01"}
        for id_ in (TRIGGER, model.BLANK_GUID, model.BLANK_GUID)
    ]
    flat += [{**entry(None, "x"), "TriggerId": id_} for id_ in (TRIGGER.upper(), model.BLANK_GUID)]
    ours, *by_hand = say(api.job_logs(JOB), flat, by_trigger)
    assert [log.message for log in ours.logs] == ["x"]
    assert ours.logs[0].trigger_id == TRIGGER.upper(), "the member keeps its other meaning"
    assert [one.logs for one in by_hand] == [(), ()], "nobody knows whose the entry is"


def test_r44_what_can_only_be_understood_as_a_whole_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "LOG_LIMIT", 300)
    monkeypatch.setattr(answers, "LOG_LIMIT", 300)
    by_key = Vocabulary.of({"fields": {"log.execution_id": "Run", "execution.id": "Key"}})
    told = [{"Key": 1, "EndTime": "2026-01-01"}, {"Run": 1, "Severity": "Error", "Message": "x" * 400}]
    with pytest.raises(errors.AnswerTooLarge, match="larger than 300 bytes, and has entries beside"):
        say(api.job_logs(JOB, keep=None), told, by_key)
    wordy = [{"Message": "x" * 200}, {"Message": "x" * 200}]
    with pytest.raises(errors.AnswerTooLarge, match="2 executions, with 400 characters of messages"):
        say(api.executions_so_far(JOB), wordy)
    assert len(say(api.executions_so_far(JOB), wordy[:1])) == 1


def test_r44_of_very_many_shapes_and_ids_not_all_are_remembered() -> None:
    entries = [{f"member {n}": n, "TriggerId": str(uuid.UUID(int=n + 1))} for n in range(1100)]
    (execution,) = say(api.job_logs(JOB), [{"State": "Success", "Logs": entries}])
    assert (execution.log_count, execution.trigger_id) == (1100, None)
    words = Vocabulary()
    for n in range(1100):
        assert words.member({f"member {n}": 0, "Severity": n}, "log.severity") == n
    assert len(words._known) == 256


def test_r44_what_is_read_one_by_one_has_the_same_errors() -> None:
    call = api.each_execution(JOB, keep=None)
    assert [e.state for e in api.read_each(call, answer([{"State": "Success"}]), Vocabulary())] == [
        ExecutionState.SUCCEEDED
    ]
    with pytest.raises(errors.Refused, match="HTTP 404"):
        next(api.read_each(call, answer(b"", 404), Vocabulary()))
    assert list(api.read_each(replace(call, absent=lambda: iter(())), answer(b"", 404), Vocabulary())) == []
    found = api.read_each(call, answer([{"State": "Success"}, 1]), Vocabulary())
    assert next(found).state is ExecutionState.SUCCEEDED
    with pytest.raises(errors.ContractError, match="expected a JSON object, found 1"):
        next(found)


def test_r48_what_is_not_understood_of_a_log_is_kept_with_the_execution() -> None:
    entry = {"Timestamp": "2026-01-01T00:00:00Z", "Severity": "Error", "Message": "x"}
    for change, field, says in (
        ({"Severity": "Hmm"}, "log.severity", "a word in no table"),
        ({"Severity": None, "Kind": 1}, "log.severity", "no value for log.severity.*'Kind'"),
        ({"Timestamp": "noon"}, "log.time", "'noon', which is no time"),
        ({"Timestamp": None}, "log.time", "no value for log.time"),
    ):
        (execution,) = say(api.job_logs(JOB), [{"Logs": [entry, {**entry, **change}]}])
        assert list(execution.log_problems) == [field]
        assert re.search(says, execution.log_problems[field])
    (execution,) = say(api.job_logs(JOB), [{"Logs": [{**entry, "Message": None}, entry]}])
    assert not execution.log_problems, "an empty line"
    nameless = {"Note" if name == "Message" else name: value for name, value in entry.items()}
    (execution,) = say(api.job_logs(JOB), [{"Logs": [nameless]}])
    assert "'Note'" in execution.log_problems["log.message"]
    (execution,) = say(api.job_logs(JOB), [{"State": "Success", "Lines": [entry]}])
    assert "'Lines'" in execution.log_problems["execution.logs"]
    assert not say(api.job_logs(JOB), [{"Logs": []}])[0].log_problems


ENTRIES = [
    {"Severity": "Info", "Message": "one"},
    {"Severity": "Error", "Message": "two", "Timestamp": "2026-11-02T05:00:00Z"},
    {"Severity": "?", "Message": "three"},
]


@pytest.mark.parametrize(
    ("filters", "lines", "known"),
    [
        ({}, [1, 2, 3], {"log.time", "log.severity", "log.message"}),
        ({"min_severity": "error"}, [2, 3], {"log.time", "log.severity", "log.message"}),
        ({"message_pattern": "three"}, [3], {"log.time", "log.severity", "log.message"}),
        ({"min_severity": "critical"}, [3], {"log.severity", "log.message"}),
    ],
)
def test_the_place_of_each_entry_and_what_any_tells_are_known_whatever_is_kept(
    filters: dict[str, str], lines: list[int], known: set[str]
) -> None:

    def kept(keep: answers.Keep, entries: Any = ENTRIES) -> model.Execution:
        call = api.each_execution(JOB, keep=keep)
        told = answer([{"TriggerId": TRIGGER, "Logs": entries}])
        (execution,) = api.read_each(call, told, Vocabulary())
        return execution

    execution = kept(WantedLines(LogFilter(**filters)))
    assert [log.line for log in execution.logs] == lines
    assert execution.log_known == known
    assert kept(WantedLines(LogFilter(**filters)), [{}]).log_known == set()
    assert [log.line for log in kept(LastLines(TRIGGER)).logs] == [1, 2, 3]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("size", "most"), [(0, RELAY_LIMIT), (2**20, 8)])
def test_r31_the_last_lines_and_errors_are_kept_whether_the_oldest_or_the_newest_come_first(
    order: int, size: int, most: int
) -> None:
    times = [datetime(2026, 11, 2, 5, tzinfo=timezone.utc) + timedelta(seconds=n) for n in range(most + 20)]

    def pieces() -> Iterator[bytes]:
        for number, time in enumerate(times[::order]):
            entry = {"Severity": "Error", "Timestamp": time.isoformat(), "Message": "x" * size}
            yield b"," * (number > 0) + json.dumps(entry).encode()
        yield b"]}]"

    call = api.each_execution(JOB, keep=LastLines(TRIGGER))
    told = replace(answer(b'[{"TriggerId": "%s", "Logs": [' % TRIGGER.encode()), more=pieces())
    (execution,) = read_each(call, told, Vocabulary())
    assert [log.time for log in execution.logs][::order] == times[-most:]
    assert [log.time for log in execution.last_errors][::order] == times[-model.LAST_ERRORS :]


def test_of_a_log_without_times_the_last_lines_are_kept_as_it_has_them() -> None:
    logs = [{"Message": str(number)} for number in range(RELAY_LIMIT + 20)]
    call = api.each_execution(JOB, keep=LastLines(TRIGGER))
    (execution,) = read_each(call, answer([{"TriggerId": TRIGGER, "Logs": logs}]), Vocabulary())
    assert [log.message for log in execution.logs] == [log["Message"] for log in logs[20:]]


def test_r44_entries_that_are_large_for_other_members_than_their_message_do_not_stay_in_memory() -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(60):
            yield b'%s{"Message": "%d", "Details": "%s"}' % (b"," * (number > 0), number, b"x" * 10**6)
        yield b"]}]"

    call = api.each_execution(JOB, keep=WantedLines(LogFilter()))
    arriving = replace(answer(b'[{"Logs": ['), more=pieces())
    tracemalloc.start()
    (execution,) = api.read_each(call, arriving, Vocabulary())
    count = sum(1 for log in execution.logs if len(log.raw["Details"]) == 10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 60
    assert peak < 20 * 2**20


def test_times_without_an_offset_are_those_of_the_zone_across_a_change_of_clocks() -> None:
    zone = ZoneInfo("Europe/Copenhagen")
    call = api.job_logs(JOB)

    def duration(start: str, end: str) -> float | None:
        body = json.dumps([{"StartTime": start, "EndTime": end}]).encode()
        return read(call, answer(body), Vocabulary(), zone)[0].duration

    assert duration("2026-07-01T10:00:00", "2026-07-01T08:00:01Z") == 1
    assert duration("2026-03-29T01:59:00", "2026-03-29T03:01:00") == 120, "an hour is left out"
    assert duration("2026-10-25T02:50:00", "2026-10-25T02:10:00") == 20 * 60, "an hour comes twice"
    assert duration("2026-10-25T02:10:00", "2026-10-25T02:50:00") == 40 * 60


@pytest.mark.parametrize("fraction", ["", ".5", ".500", ".5000000", ".500000000"])
@pytest.mark.parametrize("offset", ["Z", "z", "+02:00", "+0200", " +02:00"])
def test_times_are_read_as_iso_8601_net_and_sql_server_write_them(fraction: str, offset: str) -> None:
    hour = 10 if offset in "Zz" else 12
    told = model.parse_time(f"2026-01-01T{hour}:00:00{fraction}{offset}")
    assert told == datetime(2026, 1, 1, 10, 0, 0, 500_000 if fraction else 0, timezone.utc)


@given(st.datetimes(datetime(1974, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone.utc)))
def test_times_as_numbers_are_read_like_those_in_words(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    milliseconds = round(moment.timestamp() * 1000)
    assert model.parse_time(moment.isoformat()) == moment
    for value in (
        milliseconds,
        milliseconds / 1000,
        f"/Date({milliseconds})/",
        f"/Date({milliseconds}+0200)/",
    ):
        told = model.parse_time(value)
        assert told is not None
        assert abs((told - moment).total_seconds()) < 0.001


def test_r01_words_that_contradict_each_other_are_not_guessed() -> None:
    (execution,) = say(api.job_logs(JOB), [{"State": "Succeeded", "Status": "Failed"}])
    assert execution.state is None
    assert "contradict each other: ['Succeeded', 'Failed']" in execution.problem
    (agreed,) = say(api.job_logs(JOB), [{"State": "Succeeded", "Status": "Success", "ExecutionState": "?"}])
    assert agreed.state is ExecutionState.SUCCEEDED


def test_r01_the_sign_of_a_code_means_something() -> None:
    vocabulary = Vocabulary.of({"states": {"succeeded": 1, "failed": [-1, "-2"]}})
    told = [{"State": code, "EndTime": "2026-01-01"} for code in (1, "1", -1, "-1", -2, 2)]
    states = say(api.job_logs(JOB), told, vocabulary)
    good, bad = ExecutionState.SUCCEEDED, ExecutionState.FAILED
    assert [execution.state for execution in states] == [good, good, bad, bad, bad, None]


@pytest.mark.parametrize("status", [100, 103, 408, 425, 499])
def test_r05_what_is_no_final_answer_may_be_repeated_and_says_nothing_of_a_submission(status: int) -> None:
    error = api.error_for(answer(b"", status))
    assert isinstance(error, errors.ServerError)
    assert error.transient


# --- vocabulary ---


def test_every_entry_is_marked() -> None:
    only_by_connection = {"list.items", "execution.id", "log.execution_id"}
    for table in (vocabulary.FIELDS, vocabulary.STATUSES, vocabulary.STATES, vocabulary.SEVERITIES):
        for entry, names in table.items():
            assert names.all == names.documented + names.assumed
            assert (names.all == ()) is (entry in only_by_connection)


@given(st.sampled_from(["JobId", "jobId", "job_id", "JOB ID", "job-id"]), st.uuids().filter(lambda u: u.int))
def test_member_names_are_compared_without_case_and_separators(name: str, value: uuid.UUID) -> None:
    (status,) = say(api.all_job_statuses(), [{name: str(value), "status": "idle"}])
    assert status.job_id == str(value)


def test_r14_what_a_connection_adds_comes_first_and_the_default_spellings_stay() -> None:
    vocabulary = Vocabulary.of(
        {
            "fields": {"execution.state": "result", "log.severity": ["kind", "sort"]},
            "states": {"succeeded": ["Completed", 3], "failed": 4},
            "severities": {"error": 2},
        }
    )
    codes: list[dict[str, Any]] = [
        {"Result": 3, "State": "Failed", "Logs": [{"Sort": 2, "Severity": "Warning"}]},
        {"result": "completed"},
        {"result": 4},
        {"State": "Success", "Logs": [{"Severity": "Warning"}]},
        {"Result": None, "State": "Success"},
    ]
    data = [{**told, "EndTime": "2026-01-01"} for told in codes]
    first, second, third, default, unset = say(api.job_logs(JOB), data, vocabulary)
    assert first.state is second.state is default.state is ExecutionState.SUCCEEDED
    assert third.state is ExecutionState.FAILED
    assert (first.logs[0].severity, default.logs[0].severity) == ("error", "warning")
    assert unset.state is None, "a member that the connection names decides alone"
    assert unset.problem is not None


def test_a_word_that_a_connection_gives_to_another_entry_moves_there() -> None:
    vocabulary = Vocabulary.of(
        {
            "fields": {"execution.state": "Message", "execution.message": "State"},
            "states": {"failed": "Success", "succeeded": ["Stopped"]},
        }
    )
    data = [{"Message": word, "State": "said", "EndTime": "2026-01-01"} for word in ("success", "STOPPED")]
    failed, succeeded = say(api.job_logs(JOB), data, vocabulary)
    assert failed.state is ExecutionState.FAILED
    assert succeeded.state is ExecutionState.SUCCEEDED
    assert failed.message == "said"
    assert vocabulary.spellings["states"]["succeeded"] == ("Stopped", "succeeded", "successful")
    assert "Message" in vocabulary.spellings["fields"]["log.message"], "a member of another object"


def test_r14_what_a_message_prints_can_be_pasted() -> None:
    execution = say(api.job_logs(JOB), [{"State": 'Done "so"', "EndTime": "2026-01-01"}])[0]
    assert execution.problem is not None
    pasted = execution.problem[execution.problem.index('{"vocabulary"') : -1].replace("...", "succeeded")
    vocabulary = Vocabulary.of(json.loads(pasted)["vocabulary"])
    assert say(api.job_logs(JOB), [{**execution.raw}], vocabulary)[0].state is ExecutionState.SUCCEEDED


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"field": {}}, "vocabulary has no entry 'field'; it has fields, statuses, states, severities"),
        ({"fields": {"job.idd": "x"}}, r"vocabulary.fields has no entry 'job.idd'; it has job.id,"),
        ({"states": {"cancelled": "x"}}, "it has running, succeeded, failed"),
        ({"states": ["x"]}, "must be an object"),
        ({"states": {"failed": []}}, "empty list"),
        ({"states": {"failed": [True]}}, "not True"),
        ({"states": {"failed": {"a": 1}}}, "names or whole numbers"),
        ({"states": {"failed": " "}}, "names or whole numbers"),
        ({"states": {"failed": "_"}}, "names or whole numbers"),
        ({"states": {"failed": ["x" * 200], "succeeded": ["X" * 200]}}, "stands under failed and succeeded"),
        ({"statuses": {"idle": 1, "pending": [2, "1"]}}, "stands under idle and pending"),
        ({"fields": {"job.id": [None] * 100}}, "not None"),
        ({"fields": {"job.id": [["x" * 200]]}}, r"xxx\.\.\."),
    ],
)
def test_bad_overrides_are_refused_with_the_place(overrides: Any, says: str) -> None:
    with pytest.raises(errors.InvalidInput, match=says):
        Vocabulary.of(overrides)


# --- times ---


@given(
    st.datetimes(min_value=datetime(2, 1, 2), max_value=datetime(9998, 1, 1)),
    st.sampled_from(["Z", "z", "+00:00", "", "+02:00", "-05:30"]),
    st.integers(0, 7),
)
def test_times_of_net_are_read(moment: datetime, offset: str, digits: int) -> None:
    fraction = f"{moment.microsecond:06d}0"[:digits]
    text = f"{moment:%H:%M:%S}" + (f".{fraction}" if digits else "") + offset
    read_back = model.parse_time(f"{moment.date().isoformat()}T{text}")
    assert read_back is not None
    expected = moment.replace(microsecond=int(f"{fraction or 0:<06}"[:6] if digits else 0))
    aware = datetime.fromisoformat(expected.isoformat() + (offset.upper().replace("Z", "") or "+00:00"))
    aware = aware if aware.tzinfo else aware.replace(tzinfo=timezone.utc)
    assert read_back == aware
    assert read_back.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value",
    [None, 7, 1e20, 1e300, "", "soon", "0001-01-01T00:00:00", "9999-12-31T23:59:59-10:00", "99991231"],
)
def test_what_is_no_time_is_none(value: Any) -> None:
    assert model.parse_time(value) is None


# --- names ---


def test_r38_find_job_by_exact_name() -> None:
    jobs = [model.Job(JOB, "Load"), model.Job(TRIGGER, "load"), model.Job(OTHER, None)]
    assert model.find_job(jobs, "Load") is jobs[0]
    with pytest.raises(errors.InvalidInput, match=r"named 'x'. Jobs: 'Load', 'load'\."):
        model.find_job(jobs, "x")
    with pytest.raises(errors.InvalidInput, match=rf"2 jobs are named 'Load': {JOB}, {OTHER}"):
        model.find_job([*jobs, model.Job(OTHER, "Load")], "Load")
    with pytest.raises(errors.InvalidInput, match="Jobs: none"):
        model.find_job([], "Load")
    many = [model.Job(JOB, letter) for letter in string.ascii_letters]
    with pytest.raises(errors.InvalidInput, match="and 32 more"):
        model.find_job(many, "Load")


@pytest.mark.parametrize("given", ["Load Sales", "LOAD SALES", "Load sale", "load_sales"])
def test_r38_a_near_miss_is_named_among_all_jobs(given: str) -> None:
    jobs = [model.Job(JOB, f"A {number}") for number in range(30)] + [model.Job(OTHER, "Load sales")]
    with pytest.raises(errors.InvalidInput, match=rf"named '{given}'\. Did you mean 'Load sales'\? Jobs: "):
        model.find_job(jobs, given)


def test_r14_names_that_are_not_understood_are_no_job_list_without_the_name() -> None:
    jobs = say(api.list_jobs(), [{"Id": JOB, "Caption": "Load"}, {"Id": OTHER, "Caption": "Stock"}])
    with pytest.raises(
        errors.ContractError, match=r"'Load': no value for job.name. Found .*'Caption'"
    ) as caught:
        model.find_job(jobs, "Load")
    pasted = re.search(r"\{.*\}", str(caught.value))
    assert pasted is not None
    vocabulary = Vocabulary.of(json.loads(pasted[0].replace("...", "Caption"))["vocabulary"])
    jobs = say(api.list_jobs(), [{"Id": JOB, "Caption": "Load"}, {"Id": OTHER}], vocabulary)
    assert model.find_job(jobs, "Load").id == JOB
    with pytest.raises(
        errors.InvalidInput, match=r"Did you mean 'Load'\?.* Of others: no value for job.name"
    ):
        model.find_job(jobs, "Loads")


# --- whatever comes ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Id", "JobId", "TriggerId", "Status", "State", "Logs", "EndTime", "Message"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from([200, 201, 204, 301, 400, 401, 404, 429, 500, 503]))
def test_r14_whatever_comes_is_read_or_ends_in_one_of_our_errors(data: Any, status: int) -> None:
    calls: tuple[api.Call[Any], ...] = (
        api.list_jobs(),
        api.execute_job(JOB),
        api.job_status(JOB),
        api.all_job_statuses(),
        api.job_logs(JOB),
        api.job_logs(JOB, TRIGGER),
    )
    for call in calls:
        try:
            read(call, answer(data, status), Vocabulary())
        except errors.TimeXtenderError as error:
            assert len(str(error)) < 2000


# --- answers that are known ---


def test_r44_what_is_known_is_not_sent_again_and_no_other_call_takes_that_for_an_answer() -> None:
    log = api.known(api.executions_so_far(JOB))
    first = read(log, answer([{"TriggerId": TRIGGER}], etag='"1"'), Vocabulary())
    assert ([each.trigger_id for each in first.said], first.size, first.etag) == ([TRIGGER], 55, '"1"')
    again = api.unless(log, first.etag)
    assert again.same is not None
    assert again.same[0] == '"1"'
    assert read(again, answer(None, 304), Vocabulary()) is None
    assert read(again, answer([], etag='"2"'), Vocabulary()) == api.Known([], 2, '"2"')
    assert read(again, answer(None, 404), Vocabulary()) == api.Known([], 0, None)
    calls: tuple[api.Call[Any], ...] = (log, api.unless(log, None))
    for call in calls:
        with pytest.raises(errors.Refused, match="HTTP 304"):
            read(call, answer(None, 304), Vocabulary())


def test_r14_an_empty_list_says_only_that_it_is_one_if_its_size_is_told_as_well() -> None:
    assert not api.Known([], 2, None)
    assert api.Known([0], 2, None)
