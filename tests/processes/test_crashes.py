"""A load runs exactly once, wherever a process dies and whatever answer is lost.

The boundaries at which a process can die are not listed here: an undisturbed life shows them (see
:mod:`tests.processes.nursery`), and then a life is lived for each of them in which a process dies there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement
from typing import Any

import pytest

from airflow_provider_timextender.simulator import Fault, Job, Simulator

from ..airflow.running import SHARES
from ..conftest import API_KEY
from .lives import Boundary, Broken, End, Life, Nursery, never

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not SHARES, reason="before Airflow 3.3 nothing of a task survives its process"),
]

AT_A_TIME = 12
"""Lives that are lived at the same time: they mostly wait."""


@dataclass(frozen=True)
class Case:
    """A task, its job, and what comes of it if nothing goes wrong.

    :ivar retries: those that an undisturbed life needs. :ivar once: executions by then.
    :ivar faults: route and fault, in the order in which they come.
    :ivar busy: somebody else's execution is running at first.
    """

    arguments: dict[str, Any]
    job: dict[str, Any] = field(default_factory=dict)
    life: dict[str, Any] = field(default_factory=dict)
    retries: int = 0
    once: int = 1
    faults: tuple[tuple[Any, Fault], ...] = ()
    busy: bool = False

    @property
    def waits(self) -> bool:
        return bool(self.arguments.get("wait_for_completion"))


WORKER = {"wait_for_completion": True}
DEFERRED = {"wait_for_completion": True, "deferrable": True}
OFTEN = {**WORKER, "poll_interval": 0.05}
FAILS_FIRST = {"outcomes": ["failed"]}
ENDLESS = {"duration": 60}

CASES = {
    "not waiting": Case({}),
    "waiting": Case(WORKER),
    "deferrable": Case(DEFERRED),
    "deferrable, ended by a worker": Case(DEFERRED, life={"derived": True}),
    "waiting, late log": Case(WORKER, job={"log_at_end": True, "log_lag": 0.1}),
    "waiting, fails first": Case(WORKER, job=FAILS_FIRST, retries=1, once=2),
    "deferrable, fails first": Case(DEFERRED, job=FAILS_FIRST, retries=1, once=2),
    "waiting, in turn": Case({**WORKER, "if_running": "wait"}, busy=True),
    "deferrable, in turn": Case({**DEFERRED, "if_running": "wait"}, busy=True),
    "waiting, attached": Case({**WORKER, "if_running": "attach"}, job=ENDLESS, busy=True, once=0),
    "deferrable, attached": Case({**DEFERRED, "if_running": "attach"}, job=ENDLESS, busy=True, once=0),
}


@contextmanager
def born(
    nursery: Nursery, case: Case, *, deaths: int = 0, dies: Callable[[Boundary], bool] = never, **life: Any
) -> Iterator[Life]:
    """Make a life with a simulator of its own, and a retry for each death."""
    job = Job("load", **{"pickup": 0.05, "duration": 0.1, **case.job})
    job.outcomes = list(job.outcomes)
    arguments = {
        "job_name": "load",
        "poll_interval": 0.1,
        "start_timeout": 0.4,
        "max_unreachable": 3,
        **case.arguments,
    }
    with Simulator([job], api_key=API_KEY) as simulator:
        for route, fault in case.faults:
            simulator.fault(route, fault)
        if case.busy:
            simulator.run("load")

        def passes(boundary: Boundary) -> None:
            # What is attached to must not end before, however slow the machine is.
            if case.job is ENDLESS and boundary.name == "after xcom.push job_id":
                simulator.finish()

        yield Life(
            nursery,
            simulator,
            arguments,
            **{
                "retries": case.retries + deaths,
                "dies": dies,
                "passes": passes,
                **case.life,
                **life,
            },
        )


@dataclass(frozen=True)
class Row:
    """A line of the table: a life, and what is wrong with it."""

    disturbed: str
    executions: int
    end: End | None
    wrong: str

    def __str__(self) -> str:
        end = f"{self.end.state} {self.end.error} {self.end.message[:150]}" if self.end else ""
        return f"{self.disturbed:60} {self.executions:3} {end} <- {self.wrong}"


def lived(nursery: Nursery, case: Case, disturbed: str, **life: Any) -> tuple[Row, Life]:
    """Live a life, and judge it by what TimeXtender has seen."""
    with born(nursery, case, **life) as one:
        end, wrong = None, ""
        try:
            end = one.run()
            wrong = "; ".join(faults_of(one, end, case))
        except Broken as broken:
            wrong = str(broken)
        if one.deaths:
            disturbed = f"{disturbed} {', '.join(f'{b.number}. {b.name} ({b.process})' for b in one.deaths)}"
        return Row(disturbed, len(one.ours), end, wrong), one


def faults_of(life: Life, end: End, case: Case) -> Iterator[str]:
    """Tell what is wrong with how a life has ended."""
    if len(life.ours) != case.once:
        yield f"{len(life.ours)} executions, not {case.once}"
    if doubles := life.doubles():
        yield f"{len(doubles)} too many"
    executions = life.simulator.world.executions
    if end.state != "success":
        yield f"it ended as {end.state}"
    elif not executions or end.returned != executions[-1].trigger_id:
        yield f"it returned {end.returned}"
    elif (life.xcoms.get("trigger_id"), life.xcoms.get("job_id")) != (end.returned, executions[-1].job.id):
        yield f"the last try pushed {life.xcoms}"
    if case.waits and any(execution.ended > end.at for execution in executions):
        yield "it did not wait"
    if case.busy and any(execution.queued < executions[0].ended for execution in life.ours):
        yield "it did not let the other pass"


Lives = Iterator[tuple[Case, str, dict[str, Any]]]
"""Lives to live: the task, what disturbs it in words, and by what means."""


def explore(nursery: Nursery, lives: Lives) -> list[Row]:
    """Live many lives at a time."""

    def one(what: tuple[Case, str, dict[str, Any]]) -> Row:
        case, disturbed, life = what
        return lived(nursery, case, disturbed, **life)[0]

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(one, lives))


def at(*numbers: int) -> Callable[[Boundary], bool]:
    """Die at boundaries by number."""
    return lambda boundary: boundary.number in numbers


def when(name: str) -> Callable[[Boundary], bool]:
    """Die at the first boundary of a name."""
    left = [name]

    def dies(boundary: Boundary) -> bool:
        if boundary.name not in left:
            return False
        left.clear()
        return True

    return dies


def dying_at(case: Case, count: int, *, what: str = "dies at") -> Lives:
    """Yield a life for each boundary, in which a process dies there."""
    for number in range(1, count + 1):
        yield case, what, {"deaths": 1, "dies": at(number)}


def check(rows: list[Row]) -> None:
    """Fail with a table of what went wrong."""
    wrong = [row for row in rows if row.wrong]
    table = "\n".join(map(str, wrong))
    assert not wrong, f"{len(wrong)} of {len(rows)} lives went wrong:\n{table}"


# --- a death, anywhere ---


@pytest.mark.parametrize("name", CASES)
def test_r03_r04_r08_r16_a_death_anywhere_changes_nothing(nursery: Nursery, name: str) -> None:
    case = CASES[name]
    undisturbed, life = lived(nursery, case, "undisturbed")
    check([undisturbed, *explore(nursery, dying_at(case, len(life.boundaries)))])


@pytest.mark.parametrize("first", ["POST jobs/*/execute: before", "POST jobs/*/execute: sent"])
def test_r03_nor_does_a_second_death_during_the_search_for_what_the_first_has_left(
    nursery: Nursery, first: str
) -> None:
    case = CASES["waiting"]
    once, life = lived(nursery, case, "dies", deaths=1, dies=when(first))
    check([once])

    def twice(number: int) -> Callable[[Boundary], bool]:
        one = when(first)
        return lambda boundary: one(boundary) or boundary.number == number

    after = range(life.deaths[0].number + 1, len(life.boundaries) + 1)
    check(explore(nursery, ((case, "dies at", {"deaths": 2, "dies": twice(n)}) for n in after)))


def test_without_a_memory_the_load_runs_twice_and_this_harness_sees_it(nursery: Nursery) -> None:
    rows = explore(nursery, dying_at(CASES["waiting"], 22))
    assert not any("too many" in row.wrong for row in rows)
    lives = (
        (case, what, {**life, "remembers": False}) for case, what, life in dying_at(CASES["waiting"], 22)
    )
    rows = explore(nursery, lives)
    assert sum("too many" in row.wrong for row in rows) >= 5, "\n".join(map(str, rows))


# --- a lost answer, with and without a death ---

FAULTS: dict[str, tuple[Any, Fault]] = {
    "execute 503": ("execute", Fault("status")),
    "execute 503 and taken": ("execute", Fault("status", taken=True)),
    "execute 429": ("execute", Fault("status", status=429, retry_after="0")),
    "execute reset": ("execute", Fault("reset")),
    "execute reset and taken": ("execute", Fault("reset", taken=True)),
    "execute html and taken": ("execute", Fault("html", taken=True)),
    "execute cut": ("execute", Fault("cut")),
    "status 503": ("status", Fault("status")),
    "status reset": ("status", Fault("reset")),
    "logs 503": ("logs", Fault("status")),
    "logs cut": ("logs", Fault("cut")),
    "execution logs reset": ("execution logs", Fault("reset")),
}


@pytest.mark.parametrize("name", ["waiting", "deferrable"])
def test_r05_r09_two_faults_in_a_row_change_nothing(nursery: Nursery, name: str) -> None:
    check(
        explore(
            nursery,
            (
                # What has surely not been queued is left to Airflow's own retries.
                (replace(CASES[name], faults=(FAULTS[one], FAULTS[other]), retries=2), f"{one}, {other}", {})
                for one, other in combinations_with_replacement(FAULTS, 2)
            ),
        )
    )


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("waiting", "execute reset and taken"),
        ("waiting", "execute 503"),
        ("deferrable", "execute cut"),
        ("not waiting", "execute 503 and taken"),
    ],
)
def test_r03_r05_nor_does_a_lost_answer_and_a_death_anywhere(nursery: Nursery, name: str, fault: str) -> None:
    case = replace(CASES[name], faults=(FAULTS[fault],))
    once, life = lived(nursery, case, fault)
    check([once, *explore(nursery, dying_at(case, len(life.boundaries), what=f"{fault}, dies at"))])


# --- cleared ---

WAITING = ["waiting", "deferrable", "deferrable, ended by a worker"]


@pytest.mark.parametrize("name", ["not waiting", *WAITING])
def test_r06_after_a_success_a_cleared_task_submits_anew(nursery: Nursery, name: str) -> None:
    with born(nursery, CASES[name]) as life:
        first, second = life.run(), life.clear()
    assert [first.state, second.state] == ["success", "success"]
    assert [first.returned, second.returned] == [execution.trigger_id for execution in life.ours]


@pytest.mark.parametrize("name", ["not waiting", *WAITING])
def test_r03_r06_after_a_success_in_the_second_try_too(nursery: Nursery, name: str) -> None:
    with born(nursery, CASES[name], deaths=1, dies=when("after xcom.push trigger_id")) as life:
        first, second = life.run(), life.clear()
    assert [first.returned, second.returned] == [execution.trigger_id for execution in life.ours]


@pytest.mark.parametrize("name", ["not waiting", *WAITING])
def test_r06_a_cleared_task_is_as_safe_as_any(nursery: Nursery, name: str) -> None:
    # What was queued before is over, so that it cannot be taken for what is queued now.
    with born(nursery, replace(CASES[name], job={"pickup": 0, "duration": 0}), retries=1) as life:
        life.run()
        life.dies = when("POST jobs/*/execute: sent")
        second = life.clear()
    assert second.returned == life.ours[-1].trigger_id
    assert len(life.ours) == 2


@pytest.mark.parametrize("name", WAITING)
def test_r06_a_cleared_task_follows_what_still_runs(nursery: Nursery, name: str) -> None:
    case = replace(CASES[name], job={"duration": 1.0})
    with born(nursery, case, dies=when("after xcom.push trigger_id")) as life:
        first, second = life.run(), life.clear()
    assert first.error == "died", "no retry is left"
    assert second.returned == life.ours[0].trigger_id
    assert len(life.ours) == 1


@pytest.mark.parametrize("name", WAITING)
def test_r06_a_cleared_task_does_not_follow_what_has_failed(nursery: Nursery, name: str) -> None:
    with born(nursery, replace(CASES[name], job=FAILS_FIRST)) as life:
        first, second = life.run(), life.clear()
    assert first.error == "JobFailed"
    assert second.returned == life.ours[1].trigger_id
    assert len(life.ours) == 2


@pytest.mark.parametrize("name", WAITING)
def test_r08_a_retry_after_a_failed_execution_submits_anew(nursery: Nursery, name: str) -> None:
    with born(nursery, replace(CASES[name], job=FAILS_FIRST), retries=1) as life:
        end = life.run()
    assert end.returned == life.ours[1].trigger_id
    assert [this.end.error for this in life.tries if this.end] == ["JobFailed", ""]


def test_r06_what_was_queued_before_a_clear_is_not_taken_for_what_is_queued_after(nursery: Nursery) -> None:
    # It has not begun when the task is cleared, so that no log shows it by then.
    with born(nursery, replace(CASES["not waiting"], job={"pickup": 0.3}), retries=1) as life:
        life.run()
        life.dies = when("POST jobs/*/execute: before")
        second = life.clear()
    assert len(life.ours) == 2
    assert second.returned == life.ours[1].trigger_id


# --- what is known must not be forgotten ---


def refuse_at(life: Life, name: str) -> None:
    """Let the next look for the job's name be refused, from a boundary on."""
    reached = when(name)

    def passes(boundary: Boundary) -> None:
        if reached(boundary):
            life.simulator.fault("jobs", Fault("status", status=401))

    life.passes = passes


def test_r03_r10_a_retry_that_is_refused_says_what_was_queued(nursery: Nursery) -> None:
    with born(nursery, CASES["waiting"], deaths=1, dies=when("after xcom.push trigger_id")) as life:
        refuse_at(life, "after xcom.push trigger_id")
        end = life.run()
    assert end.state == "success" or life.ours[0].trigger_id in end.message
    assert len(life.ours) == 1


@pytest.mark.parametrize("name", ["not waiting", "waiting", "deferrable, ended by a worker"])
def test_r03_a_success_is_one_even_if_the_trigger_id_could_not_be_stored(nursery: Nursery, name: str) -> None:
    with born(nursery, CASES[name], deaths=1, dies=when("before return"), fails=second_record()) as life:
        end = life.run()
    assert end.returned == life.ours[0].trigger_id
    assert len(life.ours) == 1


def second_record() -> Callable[[Boundary], bool]:
    """Fail where the trigger id is to be stored."""
    seen: list[Boundary] = []

    def fails(boundary: Boundary) -> bool:
        if boundary.name == "before store.set timextender_submission":
            seen.append(boundary)
        return len(seen) == 2 and boundary is seen[1]

    return fails


def test_r05_what_others_queue_between_the_look_and_the_request_is_not_ours(nursery: Nursery) -> None:
    faults: tuple[tuple[Any, Fault], ...] = (
        ("logs", Fault("slow", seconds=0.25)),
        ("execute", Fault("reset", taken=True)),
    )
    case = replace(CASES["waiting"], arguments=OFTEN, job={"pickup": 0.3, "duration": 0.3}, faults=faults)
    reached = when("GET jobs/*/logs: sent")
    with born(nursery, case) as life:
        life.passes = lambda boundary: reached(boundary) and life.simulator.run("load")
        end = life.run()
    assert end.returned in (life.ours[0].trigger_id, None)


def test_r05_what_others_queue_later_and_begins_earlier_is_not_ours(nursery: Nursery) -> None:
    case = replace(
        CASES["waiting"],
        arguments=OFTEN,
        job={"pickup": 0.4, "duration": 0.3},
        faults=(("execute", Fault("reset", taken=True)),),
    )
    reached = when("POST jobs/*/execute: answered")

    with born(nursery, case) as life:

        def passes(boundary: Boundary) -> None:
            if reached(boundary):
                life.simulator.job("load").pickup = 0.05
                life.simulator.run("load")

        life.passes = passes
        end = life.run()
    assert end.returned in (life.ours[0].trigger_id, None)


def test_r05_r11_what_others_queue_before_is_not_ours_when_the_log_is_late(nursery: Nursery) -> None:
    case = replace(
        CASES["waiting"],
        arguments=OFTEN,
        job={"log_at_end": True, "log_lag": 0.3},
        faults=(("logs", Fault("slow", seconds=0.2)), ("execute", Fault("reset", taken=True))),
    )
    reached = when("GET jobs/*/status: before")
    with born(nursery, case) as life:
        life.passes = lambda boundary: reached(boundary) and life.simulator.run("load")
        end = life.run()
    assert end.returned in (life.ours[0].trigger_id, None)


@pytest.mark.parametrize("name", WAITING)
def test_r05_r08_what_is_found_to_have_failed_is_not_run_again_without_a_retry(
    nursery: Nursery, name: str
) -> None:
    case = replace(CASES[name], job=FAILS_FIRST, faults=(FAULTS["execute reset and taken"],))
    with born(nursery, case) as life:
        end = life.run()
    assert len(life.ours) == 1
    assert end.error == "JobFailed"
