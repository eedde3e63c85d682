"""The verdict: pure tests, with the clock as an argument."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_timextender import errors
from airflow_provider_timextender.model import (
    LAST_ERRORS,
    Execution,
    ExecutionState,
    JobState,
    JobStatus,
    Log,
)
from airflow_provider_timextender.verdict import (
    LOG_LAG,
    Failed,
    Idle,
    NeverStarted,
    Run,
    Succeeded,
    Waiting,
    conclude,
    for_people,
    judge,
    judge_job,
    last_completed,
    may_have_ended,
    result_of,
    say_passed_over,
    shorten,
)

JOB = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
TRIGGER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
OTHER = "11111111-1111-1111-1111-111111111111"
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
    run = replace(RUN, start_timeout=start_timeout).after(status, now, read=True)
    try:
        verdict = judge(run, status, found, now)
    except errors.ContractError:
        assert len(found) > 1 or (found[0].state is None and found[0].end is not None)
        return
    ended = len(found) == 1 and found[0].end is not None
    assert isinstance(verdict, Succeeded) is (ended and found[0].state is ExecutionState.SUCCEEDED)
    assert isinstance(verdict, Failed) is (ended and found[0].state is ExecutionState.FAILED)
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
                type(judge(RUN.after(other, after(t), read=True), other, found, after(t)))
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
    run = RUN.after(IDLE, after(0), read=True)
    assert isinstance(judge(run, IDLE, [], after(0)), Waiting)
    assert isinstance(judge(run, IDLE, [], after(599)), Waiting)
    verdict = judge(run, IDLE, [], after(600))
    assert isinstance(verdict, NeverStarted)
    assert "idle for 10 min 0 s" in verdict.why


def test_r11_a_first_look_after_a_long_time_gives_the_log_a_moment() -> None:
    now = after(7200)
    run = RUN.after(IDLE, now, read=True)
    assert isinstance(judge(run, IDLE, [], now), Waiting)
    assert isinstance(judge(run, IDLE, [], now + timedelta(seconds=LOG_LAG - 1)), Waiting)
    assert isinstance(judge(run, IDLE, [], now + timedelta(seconds=LOG_LAG)), NeverStarted)
    assert run.after(PENDING, now, read=True).idle_since is None


def test_a_job_that_was_seen_running_gets_the_start_timeout_anew_for_its_log_to_appear() -> None:
    run = RUN.after(RUNNING, after(7200), read=True).after(IDLE, after(7202), read=True)
    assert isinstance(judge(run, IDLE, [], after(7205)), Waiting)
    with pytest.raises(errors.ContractError, match=r"it has run since.*not known whether that one has run"):
        judge(run, IDLE, [], after(7800))
    assert run.active_at == after(7200)


def test_r17_an_odd_state_is_waited_for_and_after_its_end_is_a_contract_error() -> None:
    verdict = judge(RUN, IDLE, [ODD], after(0))
    assert verdict == Waiting(
        "unknown", "The execution's state was not understood: execution.state is 'Completed'"
    )
    with pytest.raises(errors.ContractError, match=r"ended at 2026-01-01T.* not known how: .*'Completed'"):
        judge(RUN, IDLE, [replace(ODD, end=START)], after(0))


def test_two_executions_under_one_trigger_id_are_not_guessed() -> None:
    with pytest.raises(errors.ContractError, match="2 executions stand under its trigger id"):
        judge(RUN, IDLE, [GOOD, BAD], after(0))


def reads(run: Run, every: int, *statuses: JobStatus) -> list[bool]:
    """Tell at which of some looks the log is read."""
    read = []
    for status in statuses:
        read.append(run.wants_log(status, every, START))
        run = run.after(status, START, read=read[-1])
    return read


def test_the_log_of_a_busy_job_is_read_at_every_so_many_looks() -> None:
    assert reads(RUN, 2, *[RUNNING] * 5) == [True, False, True, False, True]
    assert reads(RUN, 4, *[PENDING] * 6) == [True, False, False, False, True, False]
    assert reads(RUN, 1, *[RUNNING] * 3) == [True] * 3


def test_the_log_is_read_at_once_when_the_job_is_not_busy_or_does_something_else() -> None:
    assert reads(RUN, 9, *[IDLE] * 3, *[UNKNOWN] * 2) == [True] * 5
    assert reads(RUN, 9, PENDING, PENDING, RUNNING, RUNNING, PENDING, PENDING) == [True, False] * 3


@given(st.lists(statuses, max_size=30), st.integers(1, 5))
def test_r02_an_end_is_never_hidden_for_longer(seen: list[JobStatus], every: int) -> None:
    read = reads(RUN, every, *seen)
    assert all(any(read[n : n + every]) for n in range(len(read) - every + 1))


def test_an_idle_job_is_waited_for_without_its_log() -> None:
    run = Run(JOB, None, START)
    assert reads(run, 1, IDLE, RUNNING, UNKNOWN) == [False] * 3
    assert judge(run, IDLE, [], after(0)) == Idle(JOB)
    assert isinstance(judge(run, PENDING, [], after(1e6)), Waiting)
    assert judge(run, UNKNOWN, [], after(0)) == judge_job(UNKNOWN)


def test_r24_a_completed_execution_is_waited_for() -> None:
    run = Run(JOB, None, START, completed_after=after(10))
    seen = (IDLE, RUNNING, RUNNING, RUNNING, IDLE, IDLE)
    assert reads(run, 2, *seen) == [True, False, True, False, True, False]
    assert judge(run, IDLE, [replace(GOOD, end=after(9))], after(0)) == Waiting(
        "idle",
        "No execution has ended since 2026-01-01T00:00:10+00:00. The last end that the log shows is "
        "2026-01-01T00:00:09+00:00. If that is not so, and the API's times have no offset, set timezone in "
        "the extra of the connection.",
    )
    nothing = judge(run, IDLE, [], after(0))
    assert nothing == Waiting("idle", "No execution has ended since 2026-01-01T00:00:10+00:00.")
    assert judge(run, RUNNING, [], after(0)) == judge_job(RUNNING)
    late = replace(BAD, end=after(10))
    assert isinstance(judge(run, RUNNING, [late], after(0)), Failed)


def test_r44_what_can_only_be_a_beginning_is_no_end() -> None:
    states = (JobState.IDLE, JobState.PENDING, JobState.RUNNING, None)
    changes = {(before, now) for before in states for now in states if may_have_ended(before, now)}
    idle, pending, running = states[:3]
    assert changes == {
        (pending, idle), (running, idle), (None, idle), (running, pending), (None, pending), (None, running),
        (idle, None), (pending, None), (running, None),
    }  # fmt: skip


def test_r44_the_larger_a_whole_log_is_the_less_often_it_is_read_while_nothing_has_changed() -> None:
    def reads_at(size: int, status: JobStatus, *moments: float, looks: int = 2) -> list[float]:
        run = Run(JOB, None, START, completed_after=after(1e9))
        read = []
        for moment in moments:
            wanted = run.wants_log(status, looks, after(moment))
            run = run.after(status, after(moment), read=wanted)
            if wanted:
                read.append(moment)
                run = replace(run.after_log([], after(moment)), size=size)
        return read

    hour = [60.0 * minute for minute in range(61)]
    assert reads_at(1_000_000, RUNNING, *hour) == hour[::2], "as often as a small one"
    assert reads_at(60_000_000, RUNNING, *hour) == hour[::10], "100 KB a second"
    assert reads_at(60_000_000, IDLE, *hour) == [0, 60, *(60 + moment for moment in hour[10:-1:10])]
    assert reads_at(10**15, IDLE, *hour, 86_400 + 59, 86_400 + 60) == [0, 60, 86_400 + 60]
    assert reads_at(10**15, IDLE, *hour[:5], looks=1) == hour[:5], "the last look always reads it"


def test_r44_of_our_own_execution_the_size_is_no_matter() -> None:
    large = replace(RUN.after(IDLE, START, read=True), read_at=START, size=10**15)
    assert large.wants_log(IDLE, 9, after(1))


def log(message: str, severity: str | None = "error") -> Log:
    return Log(START, severity, message, TRIGGER)


def test_r31_a_failure_says_why() -> None:
    errors_ = [log(f"error {n}") for n in range(7)]
    last = (*errors_, log("\U0001f4a5" * 9999))[-LAST_ERRORS:]
    verdict = judge(RUN, IDLE, [replace(BAD, message="no space", last_errors=last)], after(0))
    assert isinstance(verdict, Failed)
    assert verdict.why == "no space"
    *lines, end = verdict.error_lines
    assert lines == ["error 3", "error 4", "error 5", "error 6"]
    assert end.endswith("\U0001f4a5...")
    assert 1350 < len(json.dumps([verdict.why, *verdict.error_lines])) < 1410, "it fits an event"


def test_r31_a_failure_without_message_or_log_says_so() -> None:
    verdict = judge(RUN, IDLE, [BAD], after(0))
    assert isinstance(verdict, Failed)
    assert verdict.why.endswith("TimeXtender gave no message.")


def test_conclude_returns_or_raises() -> None:
    good = {**GOOD.to_dict(), "job_name": "load"}
    assert conclude(Succeeded(GOOD), "load") == good
    assert conclude(Idle(JOB), "load") == {
        **dict.fromkeys(good), "job_id": JOB, "job_name": "load", "state": "idle"
    }  # fmt: skip
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


def test_r24_an_end_without_a_time_counts_by_its_start() -> None:
    before, since = replace(BAD, start=after(9), end=None), replace(GOOD, start=after(11), end=None)
    assert last_completed([before], after(10)) is None
    assert last_completed([before, since], after(10)) is since
    assert last_completed([before, replace(GOOD, end=after(10))], after(10)) is not None
    late = replace(BAD, start=after(12), end=after(13))
    with pytest.raises(
        errors.ContractError, match=r"cannot be told which of them ended last.*execution\.end"
    ):
        last_completed([since, late], after(10))
    assert last_completed([since, replace(late, state=since.state)], after(10)) is not None
    assert "1 that began before, or nobody knows when, have no end time, and do not count" in str(
        say_passed_over([before], after(10))
    )
    assert say_passed_over([since, GOING, GOOD], after(10)) is None
    assert say_passed_over([replace(ODD, start=after(9))], after(10)) is not None


def test_r24_ends_of_which_no_time_is_known_are_a_contract_error() -> None:
    timeless = replace(GOOD, start=None, end=None)
    with pytest.raises(errors.ContractError, match=r"vocabulary\.fields\.execution\.start and \.end"):
        last_completed([timeless, GOING], START)
    unread = replace(timeless, end_problem="execution.end is 'noon', which is no time")
    with pytest.raises(errors.ContractError, match="'noon', which is no time"):
        last_completed([unread], START)
    assert last_completed([timeless, replace(GOOD, end=after(10))], after(9)) is not None


def test_r24_one_end_that_cannot_be_read_is_said_and_does_not_count() -> None:
    unread = replace(GOOD, start=after(9), end=None, end_problem="execution.end is 'noon', which is no time")
    assert last_completed([unread], after(10)) is None
    assert "'noon', which is no time" in str(say_passed_over([unread], after(10)))
    assert last_completed([unread], after(9)) is unread, "it began later, so it ended later"


@pytest.mark.parametrize("state", [ExecutionState.SUCCEEDED, ExecutionState.FAILED, None])
def test_r01_a_state_without_an_end_counts_only_when_the_job_stays_idle(state: ExecutionState | None) -> None:
    over = replace(GOOD, trigger_id=TRIGGER, state=state, start=after(1), end=None)
    if state is None:
        over = replace(over, end_problem="execution.end is 'N/A', which is no time", problem="it is 'Done'")
    for run in (RUN, replace(RUN, trigger_id=None, completed_after=START)):
        busy = run.after(RUNNING, after(2), read=True).after_log([over], after(2))
        idle = run.after(IDLE, after(2), read=True).after_log([over], after(2))
        watched = run.after(IDLE, after(-9999), read=True).after_log([], after(-9999))
        just_shown = watched.after(IDLE, after(2), read=True).after_log([over], after(2))
        assert isinstance(judge(just_shown, IDLE, [over], after(3)), Waiting), "the job may have begun since"
        assert judge(busy, RUNNING, [over], after(2)).state == "ending"  # type: ignore[union-attr]
        early = judge(idle, IDLE, [over], after(2 + LOG_LAG - 1))
        assert isinstance(early, Waiting)
        assert early.settles
        if state is None:
            with pytest.raises(errors.ContractError, match="it is 'Done'"):
                judge(idle, IDLE, [over], after(2 + LOG_LAG))
        else:
            verdict = judge(idle, IDLE, [over], after(2 + LOG_LAG))
            assert isinstance(verdict, Succeeded if state is ExecutionState.SUCCEEDED else Failed)


def test_r24_equal_ends_and_different_outcomes_are_not_told_apart() -> None:
    good, bad = replace(GOOD, end=after(9)), replace(BAD, end=after(9))
    for both in ([good, bad], [bad, good]):
        with pytest.raises(errors.ContractError, match="which of them ended last"):
            last_completed(both, after(1))
    assert last_completed([good, bad, replace(BAD, end=after(10))], after(1)) is not None


def test_r24_a_running_load_breaks_no_wait_by_moment() -> None:
    run = replace(RUN, trigger_id=None, completed_after=START)
    failed, early = replace(BAD, start=after(1), end=after(2)), replace(GOOD, start=after(5), end=None)
    seen = run.after(RUNNING, after(6), read=True).after_log([failed, early], after(6))
    assert isinstance(judge(seen, RUNNING, [failed, early], after(6)), Waiting)
    idle = seen.after(IDLE, after(7), read=True).after_log([failed, early], after(7))
    with pytest.raises(errors.ContractError, match="which of them ended last"):
        judge(idle, IDLE, [failed, early], after(7 + LOG_LAG))


def test_r02_r05_what_the_log_has_shown_is_not_denied() -> None:
    ours = replace(GOING, trigger_id=TRIGGER)
    shown = RUN.after(IDLE, after(1), read=True).after_log([ours], after(600))
    assert isinstance(judge(shown, IDLE, [], after(700)), Waiting), "one odd answer ends no wait"
    with pytest.raises(errors.ContractError, match="or may have"):
        judge(shown, IDLE, [], after(1300))


def test_r08_nothing_that_may_have_run_is_said_to_have_never_started() -> None:
    seen = RUN.after(IDLE, after(1), read=True)
    theirs = replace(GOOD, trigger_id=OTHER, start=after(5), end=after(6))
    with pytest.raises(errors.ContractError, match=f"may have begun since: {OTHER}"):
        judge(seen, IDLE, [theirs], after(700))
    with pytest.raises(errors.ContractError, match="or may have"):
        judge(replace(seen, resumed=True), IDLE, [], after(700))
    before = replace(theirs, start=after(-65), end=after(-61))
    assert isinstance(judge(seen, IDLE, [before], after(700)), NeverStarted)


def test_the_whole_log_is_compared_once_a_wait_and_again_before_an_end() -> None:
    idle = RUN.after(IDLE, after(1), read=True)
    assert not idle.doubts_the_filter(after(2))
    assert idle.doubts_the_filter(after(1 + LOG_LAG))
    compared = replace(idle, compared_at=after(1 + LOG_LAG))
    assert not compared.doubts_the_filter(after(500))
    assert compared.doubts_the_filter(after(700))
    busy = RUN.after(RUNNING, after(1), read=True)
    assert not busy.doubts_the_filter(after(500))
    assert busy.doubts_the_filter(after(700)), "others may keep the job busy"
    assert not replace(busy, compared_at=after(700)).doubts_the_filter(after(9999))
    again = replace(busy, compared_at=after(700)).after(IDLE, after(800), read=True)
    assert again.doubts_the_filter(after(800 + LOG_LAG))


def test_r17_an_execution_that_nobody_can_read_is_waited_for_until_the_job_is_idle_for_long() -> None:
    odd = replace(ODD, trigger_id=TRIGGER, start=after(1))
    for run in (RUN, replace(RUN, trigger_id=None, completed_after=START)):
        seen = run.after(IDLE, after(1), read=True).after_log([odd], after(1))
        assert judge(seen, IDLE, [odd], after(599)).state == "unknown"  # type: ignore[union-attr]
        fresh = run.after(IDLE, after(1), read=True).after_log([], after(1)).after_log([odd], after(699))
        begun = judge(fresh, IDLE, [odd], after(700))
        assert isinstance(begun, Waiting), "it has only just begun, and the status is older than the log"
        assert begun.settles
        assert isinstance(judge(seen, RUNNING, [odd], after(700)), Waiting)
        with pytest.raises(errors.ContractError, match=str(ODD.problem)):
            judge(seen, IDLE, [odd], after(700))


def test_r01_what_carries_no_trigger_id_is_nobodys_and_no_start_is_denied_then() -> None:
    seen = RUN.after(IDLE, after(1), read=True)
    nameless = replace(GOOD, trigger_id=None, start=after(5))
    assert isinstance(judge(seen, IDLE, [nameless], after(500)), Waiting)
    with pytest.raises(errors.ContractError, match=r"1 of which neither the execution nor its entries"):
        judge(seen, IDLE, [nameless], after(700))
    long_ago = replace(nameless, start=START - timedelta(days=2))
    assert isinstance(judge(seen, IDLE, [long_ago], after(700)), NeverStarted)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.21, "0.2 s"), (9.9, "9.9 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"),
     (7200, "2 h 0 min"), (604800, "168 h 0 min")],
)  # fmt: skip
def test_r13_durations_for_people(seconds: float, text: str) -> None:
    assert for_people(seconds) == text


@given(st.text(), st.integers(3, 50))
def test_a_shortened_text_fits(text: str, size: int) -> None:
    short = shorten(text, size)
    assert len(json.dumps(short)) - 2 <= size
    assert short == text if len(json.dumps(text)) - 2 <= size else short.endswith("...")


# --- events ---


@given(st.none() | st.booleans() | st.text() | st.dictionaries(st.text(), st.text() | st.none()))
def test_r01_only_an_event_that_says_so_is_a_success(event: object) -> None:
    with pytest.raises(errors.TimeXtenderError):
        result_of(event, "succeeded")


def test_r01_the_state_of_an_event_must_be_one_that_was_waited_for() -> None:
    event = conclude(Succeeded(GOOD))
    assert result_of(event, "succeeded") == event
    with pytest.raises(errors.ContractError, match="not understood"):
        result_of(conclude(Idle(JOB)), "succeeded")
    with pytest.raises(errors.ContractError, match="not understood"):
        result_of({**event, "state": "failed"}, "succeeded", "idle")


@pytest.mark.parametrize("kind", [errors.JobFailed, errors.Refused, errors.RateLimited, errors.WaitTimeout])
def test_an_event_brings_back_its_error(kind: type[errors.TimeXtenderError]) -> None:
    with pytest.raises(kind, match="why") as caught:
        result_of({"error": kind.__name__, "message": "why", "state": "succeeded"}, "succeeded")
    assert type(caught.value) is kind


def test_an_event_of_another_version_brings_back_the_base_error() -> None:
    with pytest.raises(errors.TimeXtenderError, match="NewerError: why"):
        result_of({"error": "NewerError", "message": "why"}, "succeeded")
