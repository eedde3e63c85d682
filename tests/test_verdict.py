"""The verdict: pure tests, with the clock as an argument."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_timextender import errors
from airflow_provider_timextender.api import Execution, ExecutionState, JobState, JobStatus, Log
from airflow_provider_timextender.verdict import (
    ERROR_LINES,
    Failed,
    NeverStarted,
    Run,
    Succeeded,
    Waiting,
    conclude,
    for_people,
    judge,
    judge_job,
    last_completed,
    wants_logs,
)

JOB = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
TRIGGER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
RUN = Run(JOB, TRIGGER, START, start_timeout=600)

IDLE, PENDING, RUNNING = (JobStatus(JOB, state) for state in JobState)
UNKNOWN = JobStatus(JOB, None, "status.state is 'hibernating'")
STATUSES = (IDLE, PENDING, RUNNING, UNKNOWN)

GOOD = Execution(JOB, TRIGGER, ExecutionState.SUCCEEDED, end=START)
BAD = Execution(JOB, TRIGGER, ExecutionState.FAILED, end=START)
GOING = Execution(JOB, TRIGGER, ExecutionState.RUNNING)
ODD = Execution(JOB, TRIGGER, None, problem="execution.state is 'Completed'")


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("seconds", [0, 100_000])
def test_r01_r02_the_execution_alone_decides(status: JobStatus, seconds: float) -> None:
    assert judge(RUN, status, [GOOD], after(seconds)) == Succeeded(GOOD)
    assert isinstance(judge(RUN, status, [BAD], after(seconds)), Failed)
    assert isinstance(judge(RUN, status, [GOING], after(seconds)), Waiting)


statuses = st.sampled_from(STATUSES)
executions = st.lists(
    st.builds(
        Execution,
        job_id=st.just(JOB),
        trigger_id=st.just(TRIGGER),
        state=st.sampled_from([None, *ExecutionState]),
        end=st.sampled_from([None, START]),
        message=st.none() | st.text(),
        problem=st.text(),
    ),
    max_size=2,
)


@given(statuses, executions, st.floats(-1e6, 1e6), st.floats(0.1, 1e5))
def test_r01_success_only_if_our_execution_says_so(
    status: JobStatus, found: list[Execution], seconds: float, start_timeout: float
) -> None:
    now = after(seconds)
    run = replace(RUN, start_timeout=start_timeout).seen(status, now)
    try:
        verdict = judge(run, status, found, now)
    except errors.ContractError:
        assert len(found) > 1 or (found[0].state is None and found[0].end is not None)
        return
    says_success = len(found) == 1 and found[0].state is ExecutionState.SUCCEEDED
    assert isinstance(verdict, Succeeded) is says_success
    says_failure = len(found) == 1 and found[0].state is ExecutionState.FAILED
    assert isinstance(verdict, Failed) is says_failure
    if isinstance(verdict, NeverStarted):
        assert status is IDLE
        assert not found
        assert seconds >= start_timeout - 1e-6


@given(st.lists(st.tuples(statuses, executions), max_size=6))
def test_a_final_verdict_never_changes_back(looks: list[tuple[JobStatus, list[Execution]]]) -> None:
    """What the log shows as ended is judged alike, whatever else is seen and however late it is."""
    for number, (status, found) in enumerate(looks):
        if len(found) == 1 and found[0].state in (ExecutionState.SUCCEEDED, ExecutionState.FAILED):
            verdicts = {
                type(judge(RUN.seen(other, after(t)), other, found, after(t)))
                for other, _ in looks[number:]
                for t in (0, 1e6)
            }
            assert len(verdicts) == 1, status


@pytest.mark.parametrize(
    ("status", "word"), [(PENDING, "pending"), (RUNNING, "running"), (UNKNOWN, "unknown")]
)
def test_r11_r17_a_busy_or_unknown_job_is_waited_for_however_long(status: JobStatus, word: str) -> None:
    verdict = judge(RUN, status, [], after(1e6))
    assert isinstance(verdict, Waiting)
    assert verdict.state == word


def test_r17_an_unknown_status_is_named() -> None:
    assert judge_job(UNKNOWN) == Waiting(
        "unknown", "The job's status was not understood: status.state is 'hibernating'"
    )
    assert judge_job(IDLE) is None


def test_r11_idle_without_an_execution_waits_for_the_start_timeout_and_then_never_started() -> None:
    assert isinstance(judge(RUN, IDLE, [], after(0)), Waiting)
    assert isinstance(judge(RUN, IDLE, [], after(599)), Waiting)
    verdict = judge(RUN, IDLE, [], after(600))
    assert isinstance(verdict, NeverStarted)
    assert "idle for 10 min 0 s" in verdict.why
    assert TRIGGER in verdict.why
    assert JOB in verdict.why


def test_a_job_that_was_seen_running_gets_the_start_timeout_anew_for_its_log_to_appear() -> None:
    run = RUN.seen(RUNNING, after(7200))
    assert isinstance(judge(run, IDLE, [], after(7205)), Waiting)
    assert isinstance(judge(run, IDLE, [], after(7800)), NeverStarted)
    assert run.seen(IDLE, after(7300)) == run


def test_r17_an_odd_state_is_waited_for_and_after_its_end_is_a_contract_error() -> None:
    verdict = judge(RUN, IDLE, [ODD], after(0))
    assert verdict == Waiting(
        "unknown", "The execution's state was not understood: execution.state is 'Completed'"
    )
    with pytest.raises(errors.ContractError, match=r"ended at 2026-01-01T.* not known how: .*'Completed'"):
        judge(RUN, IDLE, [replace(ODD, end=START)], after(0))


def test_two_executions_under_one_trigger_id_are_not_guessed() -> None:
    with pytest.raises(errors.ContractError, match="2 executions stand under trigger id"):
        judge(RUN, IDLE, [GOOD, BAD], after(0))


def test_the_log_is_read_when_the_job_is_not_busy_and_else_at_every_second_look() -> None:
    wanted = {s.state: [wants_logs(s, n) for n in range(4)] for s in STATUSES}
    assert wanted == {
        JobState.IDLE: [True] * 4,
        None: [True] * 4,
        JobState.PENDING: [True, False, True, False],
        JobState.RUNNING: [True, False, True, False],
    }


def log(message: str, severity: str | None = "error") -> Log:
    return Log(START, severity, message, TRIGGER)


def test_r31_a_failure_says_why() -> None:
    logs = (log("begin", "info"), *(log(f"error {n}") for n in range(ERROR_LINES + 2)), log("x" * 9999))
    verdict = judge(RUN, IDLE, [replace(BAD, message="no space", logs=logs)], after(0))
    assert isinstance(verdict, Failed)
    assert verdict.why.startswith(f"TimeXtender job {JOB} failed (trigger id {TRIGGER}): no space\n")
    assert "error 3\n" in verdict.why
    assert "error 2\n" not in verdict.why
    assert "begin" not in verdict.why
    assert len(verdict.why) < 6500


def test_r31_a_failure_without_message_or_log_says_so() -> None:
    verdict = judge(RUN, IDLE, [BAD], after(0))
    assert isinstance(verdict, Failed)
    assert verdict.why.endswith("TimeXtender gave no message.")


def test_conclude_returns_or_raises() -> None:
    assert conclude(Succeeded(GOOD)) is GOOD
    with pytest.raises(errors.JobFailed, match="why"):
        conclude(Failed(BAD, "why"))
    with pytest.raises(errors.JobNeverStarted, match="why"):
        conclude(NeverStarted("why"))


def test_r24_the_execution_that_ended_last_counts() -> None:
    early, late = replace(BAD, end=after(10)), replace(GOOD, end=after(20))
    going = replace(GOING, end=after(99))
    assert last_completed([late, early, going], after(10)) is late
    assert last_completed([late, early], after(20)) is late
    assert last_completed([early, late], after(21)) is None
    assert last_completed([ODD], after(0)) is None
    assert last_completed([], after(0)) is None
    odd = replace(ODD, end=after(30))
    assert last_completed([late, odd], after(0)) is odd, "to be judged, not to be passed over"


def test_r24_an_end_without_a_time_is_a_contract_error() -> None:
    with pytest.raises(errors.ContractError, match=r"vocabulary\.fields\.execution\.end"):
        last_completed([replace(GOOD, end=None)], START)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.21, "0.2 s"), (9.9, "9.9 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"),
     (7200, "2 h 0 min"), (604800, "168 h 0 min")],
)  # fmt: skip
def test_r13_durations_for_people(seconds: float, text: str) -> None:
    assert for_people(seconds) == text
