"""A few lives in random dialects (``make dialects`` lives more), and whether their judge can object."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_timextender.simulator import Dialect, Execution, Job, Simulator

from ..airflow.running import SHARES
from .dialects import Life, Mode, Outcome, Plan, Try, judge, live_all, table


@pytest.mark.skipif(not SHARES, reason="before Airflow 3.3 nothing of a task survives its process")
def test_r01_r02_r05_r17_in_any_dialect_nothing_false_no_double_load_and_no_endless_wait() -> None:
    # Few at a time: what lasts long is to tell of a task, and not of what else the machine does.
    lives = live_all(range(60), jobs=6)
    assert not any(life.wrong for life in lives), table(lives)


def judged(
    mode: Mode,
    outcome: Outcome,
    *tries: Try,
    told: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    queued: int = 1,
    **dialect: Any,
) -> list[str]:
    """Return by what the judge is disturbed about a life with one execution, or more, five seconds ago."""
    explained = dialect.pop("explained", True)
    one = Plan(0, Dialect(**dialect), "succeeds", mode, outcome, explained, "id", "poke", variant=False)
    now = time.time()
    job = Job("load", pickup=0, duration=1, outcome=outcome)
    with Simulator([job]) as simulator:
        by: Any = "api" if mode in ("worker", "deferrable") else "schedule"
        queued_at = [now - 5 + number / 2 for number in range(queued)]
        executions = [simulator.world.queue(job, at, by=by) for at in queued_at]
        life = Life(one, simulator, since=now - 6, ours=executions[0], notes=list(notes))
        life.told = [(now, _event(executions[0], state)) for state in told]
        for this in tries:
            result = this.result and this.result.format(executions[-1].trigger_id)
            life.tries.append(replace(this, began=now + this.began, at=now, result=result))
        judge(life)
    return life.wrong


def _event(execution: Execution, state: str) -> Any:
    return {"trigger_id": execution.trigger_id, "state": state}


def ended(error: str = "", message: str = "", result: Any = None, *, took: float = 6) -> Try:
    return Try(-took, 0, result, error, message)


GREEN = "{}"
TIMED_OUT = "it was not over after 5 s. The job is idle."


@pytest.mark.parametrize("mode", ["worker", "deferrable"])
@pytest.mark.parametrize(
    ("outcome", "end", "objection"),
    [
        ("succeeded", ended(result=GREEN), None),
        ("failed", ended(result=GREEN), "wrong: told as succeeded, and it failed"),
        ("succeeded", ended(result="another"), "wrong: the trigger id another is not that"),
        ("failed", ended("JobFailed", "It failed."), None),
        ("succeeded", ended("JobFailed", "It failed."), "wrong: told as failed, and it succeeded"),
        ("never starts", ended("JobNeverStarted", "It is idle."), None),
        ("succeeded", ended("JobNeverStarted", "It is idle."), "wrong: told as never starts"),
        ("failed", ended("JobNeverStarted", "It is idle."), "wrong: told as never starts"),
        ("succeeded", ended("KeyError", "'State'"), "wrong: foreign: KeyError"),
        ("succeeded", ended("AirflowFailException", "Oh dear."), "wrong: foreign"),
        ("succeeded", ended("AirflowFailException", f"WaitTimeout: {TIMED_OUT}"), "endless: WaitTimeout"),
        ("succeeded", ended("AirflowFailException", "ContractError: it is strange."), "wrong: mute"),
        ("succeeded", ended("AirflowFailException", "ContractError: found 'x'; set vocabulary."), None),
    ],
)
def test_the_judge_of_an_end(mode: Mode, outcome: Outcome, end: Try, objection: str | None) -> None:
    assert_objection(judged(mode, outcome, end), objection)


def test_the_judge_wants_a_setting_to_be_named_where_one_heals() -> None:
    strange = ended("AirflowFailException", "ContractError: found 'x'.")
    words = {"succeeded": "Done", "failed": "Bad", "running": "Busy"}
    assert_objection(judged("worker", "succeeded", strange, states=words), None)
    assert_objection(judged("worker", "succeeded", strange, states=words, explained=False), "wrong: mute")


@pytest.mark.parametrize(("outcome", "objection"), [("succeeded", "double"), ("never starts", None)])
def test_the_judge_of_loads(outcome: Outcome, objection: str | None) -> None:
    end = ended(result=GREEN) if outcome == "succeeded" else ended("JobNeverStarted", "It is idle.")
    assert_objection(judged("worker", outcome, end, queued=2), objection)


def test_the_judge_of_a_wait_that_is_too_long() -> None:
    assert_objection(judged("worker", "succeeded", ended(result=GREEN, took=60)), "endless: a try took 60")


@pytest.mark.parametrize(
    ("told", "notes", "objection"),
    [
        (["failed"], [], None),
        (["succeeded"], [], "wrong: told of what is none"),
        (["failed", "failed"], [], "wrong: told of what is none that has just ended, or a second time"),
        ([], [], "endless: nothing told of"),
        ([], ["[WARNING] no value for execution.state; set vocabulary"], None),
    ],
)
def test_the_judge_of_a_watcher(told: list[str], notes: list[str], objection: str | None) -> None:
    assert_objection(judged("watcher", "failed", ended(), told=tuple(told), notes=tuple(notes)), objection)


def assert_objection(wrong: list[str], objection: str | None) -> None:
    assert bool(wrong) == (objection is not None), wrong
    if objection is not None:
        assert any(text.startswith(objection) for text in wrong), wrong
