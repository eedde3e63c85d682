"""What people read of a job, and what their callbacks read: its name, then the reason, and the ids last."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_timextender import errors
from airflow_provider_timextender.inputs import NOT_GIVEN, to_job
from airflow_provider_timextender.model import Execution, ExecutionState, Job, Log, find_job
from airflow_provider_timextender.naming import Of, said
from airflow_provider_timextender.verdict import (
    Failed,
    Succeeded,
    conclude,
    event_of,
    judge_execution,
    result_of,
)

JOB, OTHER = "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "11111111-1111-1111-1111-111111111111"
TRIGGER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
BOTH = Of(JOB, "Load sales", TRIGGER)
START, END = datetime(2026, 1, 1, 10, tzinfo=timezone.utc), datetime(2026, 1, 1, 11, tzinfo=timezone.utc)
IDS = f"(job id {JOB}, trigger id {TRIGGER})"


def failure(message: str, *lines: str) -> errors.JobError:
    """Return the error of an execution that ended like this."""
    logs = tuple(Log(END, "error", line, TRIGGER) for line in lines)
    failed = Execution(JOB, TRIGGER, ExecutionState.FAILED, START, END, message, last_errors=logs)
    return raised(failed, "Load sales")


def raised(execution: Execution, job_name: str | None) -> errors.JobError:
    failed = judge_execution(execution)
    assert isinstance(failed, Failed)
    with pytest.raises(errors.JobFailed) as caught:
        conclude(failed, job_name)
    return caught.value


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (BOTH, f"TimeXtender job 'Load sales': it is idle. {IDS}"),
        (Of(JOB, "Load sales"), f"TimeXtender job 'Load sales': it is idle. (job id {JOB})"),
        (Of(JOB, None, TRIGGER), f"TimeXtender job {JOB}: it is idle. (trigger id {TRIGGER})"),
        (Of(JOB), f"TimeXtender job {JOB}: it is idle."),
        (Of("", "Load sales"), "TimeXtender job 'Load sales': it is idle."),
        (Of(), "it is idle."),
    ],
)
def test_r49_a_message_begins_with_the_name_and_the_reason_and_the_ids_come_last(of: Of, text: str) -> None:
    assert said("it is idle.", of) == text
    assert str(errors.ContractError("it is idle.").about(of)) == text


def test_r49_a_name_is_shown_like_one_and_cut() -> None:
    text = said("it is idle.", Of(JOB, "x\n" * 99))
    assert text.startswith(r"TimeXtender job 'x\nx\n")
    assert "\n" not in text
    assert len(text) < 200


def test_r49_what_is_no_id_is_cut_as_well() -> None:
    lines = "x\n" * 9999
    text = said("is not a guid.", Of(lines, None, lines))
    assert "\n" not in text
    assert len(text) < 250
    event = event_of(errors.InvalidInput("\U0001f4a5" * 5000).about(Of(lines, lines, lines)))
    assert len(json.dumps(event)) <= 2048
    assert event_of(errors.InvalidInput("is not a guid").about(Of(7)))["job_id"] == "7"  # type: ignore[arg-type]


def test_r49_an_error_tells_of_the_first_job_that_it_is_said_to_be_about() -> None:
    error = errors.Refused("no", status=404).about(Of(trigger_id=TRIGGER))
    with pytest.raises(errors.Refused), errors.about(lambda: Of(JOB, "Load sales", OTHER)):
        raise error
    assert (error.job_id, error.job_name, error.trigger_id) == BOTH
    assert error.about(Of(OTHER, "Stock")).job_name == "Load sales"
    assert error.reason == "no"


def test_r49_a_failure_reads_as_people_read_and_has_attributes() -> None:
    error = failure("no space", "disk full", "stopped")
    lines = "\nIts last error lines:\n  disk full\n  stopped\n  "
    assert str(error) == f"TimeXtender job 'Load sales' failed: no space{lines}{IDS}"
    assert (error.job_id, error.job_name, error.trigger_id) == BOTH
    assert (error.message, error.error_lines) == ("no space", ("disk full", "stopped"))
    assert (error.start, error.end) == (START, END)
    assert str(failure("no space")) == f"TimeXtender job 'Load sales' failed: no space {IDS}"


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_r49_the_attributes_survive_a_copy(again: Any) -> None:
    error = failure("no space", "disk full")
    assert vars(again(error)) == vars(error)
    assert str(again(error)) == str(error)


texts = st.text(st.characters(codec="utf-8"), max_size=3000)


@given(texts, st.lists(texts, max_size=9), st.none() | texts, st.none() | st.just(END))
def test_r34_r49_a_failure_survives_an_event_of_at_most_2_kb(
    message: str, lines: list[str], job_name: str | None, end: datetime | None
) -> None:
    logs = tuple(Log(END, "error", line, TRIGGER) for line in lines)
    execution = Execution(f"{{{JOB}}}", f"{{{TRIGGER}}}", ExecutionState.FAILED, START, end, message, logs)
    error = raised(execution, job_name)
    event = event_of(error)
    assert len(json.dumps(event)) <= 2048
    with pytest.raises(errors.JobFailed) as told:
        result_of(json.loads(json.dumps(event)))
    expected = vars(error)
    if job_name is not None and len(json.dumps(job_name)) > 300:
        expected = {**expected, "job_name": event["job_name"]}
    assert vars(told.value) == expected


@given(texts, st.none() | texts, st.none() | texts)
def test_r34_r49_a_result_holds_message_and_problem_and_at_most_2_kb(
    message: str, job_name: str | None, problem: str | None
) -> None:
    execution = Execution(
        f"{{{JOB}}}", f"{{{TRIGGER}}}", ExecutionState.SUCCEEDED, START, END, message, problem=problem
    )
    result = conclude(Succeeded(execution), job_name)
    assert list(result)[:3] == ["job_id", "job_name", "trigger_id"]
    assert set(result) == {*execution.to_dict(), "job_name"}
    assert len(json.dumps(result)) <= 2048
    short = conclude(Succeeded(replace(execution, message="Done.", problem=None)), "Load sales")
    assert (short["job_name"], short["message"], short["problem"]) == ("Load sales", "Done.", None)


@given(texts)
def test_r34_r49_another_error_survives_an_event_of_at_most_2_kb(job_name: str) -> None:
    of = Of(f"{{{JOB}}}", job_name, f"{{{TRIGGER}}}")
    event = event_of(errors.WaitTimeout("\U0001f4a5" * 5000).about(of))
    assert len(json.dumps(event)) <= 2048
    with pytest.raises(errors.WaitTimeout) as told:
        result_of(event)
    assert (told.value.job_id, told.value.trigger_id) == (of.job_id, of.trigger_id)


def test_r39_r49_what_0_1_0_has_told_of_a_failure_is_told_once() -> None:
    lines = "\nIts last error lines:\n  x"
    before = {
        "job_id": JOB,
        "trigger_id": TRIGGER,
        "error": "JobFailed",
        "message": f"TimeXtender job {JOB} failed (trigger id {TRIGGER}): no space{lines}",
    }
    with pytest.raises(errors.JobFailed) as told:
        result_of(before)
    error = told.value
    assert str(error) == f"TimeXtender job {JOB} failed: no space{lines}\n  (trigger id {TRIGGER})"
    assert (error.job_name, error.error_lines, error.start, error.end) == (None, (), None, None)


def test_r49_an_error_that_is_of_no_class_of_ours_keeps_its_name() -> None:
    with pytest.raises(errors.TimeXtenderError, match=f"TimeXtender job {JOB}: Odd: no"):
        result_of({"job_id": JOB, "trigger_id": None, "error": "Odd", "message": "no"})


# --- how a job is given ---


@pytest.mark.parametrize(
    ("job_id", "job_name", "says"),
    [
        (NOT_GIVEN, None, "job_name was given, but is None at run time"),
        (NOT_GIVEN, " ", "job_name was given, but is ' ' at run time"),
        (None, NOT_GIVEN, "job_id was given, but is None at run time"),
        (None, None, "job_id was given, but is None at run time"),
        (NOT_GIVEN, NOT_GIVEN, "Give a job id or a job name"),
        ("7", "Load sales", "job id '7' is not a guid"),
    ],
)
def test_r49_a_job_that_is_none_at_run_time_is_said_to_be(job_id: Any, job_name: Any, says: str) -> None:
    with pytest.raises(errors.InvalidInput, match=says):
        to_job(job_id, job_name)


@pytest.mark.parametrize("nothing", [NOT_GIVEN, None, "", " "])
def test_r49_a_job_can_be_told_by_either(nothing: Any) -> None:
    assert to_job(JOB, nothing) == Of(JOB)
    assert to_job(nothing, "Load sales") == Of(None, "Load sales")
    assert to_job(JOB, "Load sales") == Of(JOB, "Load sales")


def test_r49_an_id_and_a_name_have_to_agree() -> None:
    jobs = [Job(JOB, "Load sales"), Job(OTHER, None, "job.name is missing.")]
    assert find_job(jobs, "Load sales", f"{{{JOB.upper()}}}") is jobs[0]
    for job_id, name, says in (
        (JOB, "Load Sales", "do not belong together.*'Load sales'"),
        (OTHER, "Load sales", "no name is understood: job.name is missing"),
        (TRIGGER, "Load sales", "no job with the id"),
    ):
        with pytest.raises(errors.InvalidInput, match=says):
            find_job(jobs, name, job_id)


def test_r49_the_verdict_of_a_failure_holds_its_message_and_lines() -> None:
    last = (Log(END, "error", "disk full", TRIGGER),)
    execution = Execution(JOB, TRIGGER, ExecutionState.FAILED, message="no space", last_errors=last)
    assert judge_execution(execution) == Failed(execution, "no space", ("disk full",))
