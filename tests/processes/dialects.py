"""Tasks that meet the API in a random dialect: none may say a falsehood, run a load twice or wait for ever.

``python -m tests.processes.dialects --seeds 2000`` lives as many lives, and judges each by what the simulated
TimeXtender did; ``--seed N`` shows one of them, ``--histories FILE`` writes down what became of each (see
:mod:`tests.processes.histories`). The judge knows nothing of the package but the names of its errors and of
the settings that its messages have to name.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from airflow_provider_timextender.simulator import BLANK_TRIGGER_ID, Dialect, Execution, Job, Simulator

from ..airflow.environment import clean_up  # before any import of Airflow
from ..airflow.running import live, stored
from ..airflow.stand_ins import Store, TaskInstance, context_of
from ..waiting import comes_true
from . import histories

INTERVAL, START_TIMEOUT, MAX_UNREACHABLE, TIMEOUT, RETRIES = 0.05, 0.6, 1.5, 5.0, 2

MARGIN = 4.0
"""Seconds by which a wait may be longer than its timeout: many lives share few cores."""

LONG_AGO = 1.5
"""For so many seconds an execution has ended before one may ask why nobody has noticed."""

LOOKS = 8
"""After so many looks at the status of all jobs a watcher has read each log, if it can."""

AGO = 100.0
"""Seconds since the executions of former days."""

# --- what is random ---

Scenario = Literal[
    "succeeds", "fails", "fails once", "never starts", "late log", "older", "beside", "by hand", "long"
]
Mode = Literal["worker", "deferrable", "sensor by id", "sensor by moment", "watcher"]
Outcome = Literal["succeeded", "failed", "never starts"]

SCENARIOS: Sequence[Scenario] = Scenario.__args__  # type: ignore[attr-defined]
MODES: Sequence[Mode] = Mode.__args__  # type: ignore[attr-defined]

TRAITS: Mapping[str, Sequence[Any]] = {
    "members": ["camel", "snake", "UPPER"],
    "renamed": [
        {"State": "ResultCode"},
        {"State": "Outcome", "EndTime": "Until"},
        {"TriggerId": "ExecutionId"},
        {"Status": "Doing", "JobId": "Job"},
        {"Id": "Key", "Name": "Title"},
        {"Logs": "Lines", "Message": "Note", "Severity": "Kind", "Timestamp": "At"},
        {"StartTime": "From", "EndTime": "To"},
    ],
    "trigger_id_on": ["execution", "entries", "entries", "entries", "nowhere"],
    "filters": ["entries", "entries", "entries", "nothing", "404"],
    "ids": ["upper", "braces"],
    "exact_ids": [True],
    "hand_ids": ["null", "absent", "empty"],
    "order": ["newest", "shuffled"],
    "statuses": [
        {"idle": "Ready", "pending": "Waiting", "running": "Active"},
        {"idle": 0, "pending": 1, "running": 2},
        {"idle": "I", "pending": "P", "running": "R"},
        {"idle": None, "pending": "Pending", "running": "Running"},
    ],
    "states": [
        {"running": "Busy", "succeeded": "Completed", "failed": "CompletedWithErrors"},
        {"running": 0, "succeeded": 1, "failed": 2},
        {"running": 2, "succeeded": 0, "failed": 1},
        {"running": "R", "succeeded": "S", "failed": "F"},
        {"running": None, "succeeded": 0, "failed": -1},
        {"running": "Running", "succeeded": "Finished", "failed": "Error"},
    ],
    "severities": [{"info": 0, "warning": 1, "error": 2}, {"info": "I", "warning": "W", "error": "E"}],
    "statuses_as": ["object"],
    "states_as": ["object"],
    "unfinished": ["hidden"],
    "unfinished_state": ["absent", "null", "succeeded", "failed"],
    "no_time": ["absent", "year 1"],
    "message_on": ["entries"],
    "end_on": ["nowhere"],
    "times": ["offset", "naive", "naive", "seven digits", "epoch", "epoch ms", "/Date()/"],
    "timezone": ["Europe/Copenhagen", "America/New_York", "Asia/Kolkata"],
    "nesting": ["flat", "wrapped", "one object"],
    "empty": ["null", "204", "404"],
    "receipt": ["no id", "in a list", "202"],
}
"""The values of each trait that differ from the default."""

OFTEN = ("trigger_id_on", "filters", "ids", "exact_ids", "states", "times")
"""Traits by which an execution is found and understood, and which are more telling than others."""

SELDOM = ("nesting", "statuses_as", "states_as", "receipt")
"""Traits on which so much fails that little else shows."""

assert set(TRAITS) == {trait.name for trait in fields(Dialect)} - {"name"}

TOLD = {"members", "renamed", "statuses", "states", "severities", "timezone", "order", "message_on"}
"""Traits that are understood, or can be told to be: whoever fails on these alone has to name the setting."""


@dataclass(frozen=True)
class Plan:
    """A life as it will be.

    :ivar outcome: how the execution that counts ends, and ``other`` how somebody else's does.
    :ivar explained: whether the connection's extra explains the dialect.
    :ivar job_by: how the task names the job.
    :ivar waits: how a sensor waits.
    :ivar variant: another course of the scenario: what is started by hand begins during the wait, and not
        before; what runs beside ends first; there are two older executions, and not only one.
    """

    seed: int
    dialect: Dialect
    scenario: Scenario
    mode: Mode
    outcome: Outcome
    explained: bool
    job_by: Literal["name", "id"]
    waits: Literal["poke", "reschedule", "deferrable"]
    variant: bool

    @property
    def other(self) -> Outcome:
        return "succeeded" if self.outcome == "failed" else "failed"

    @property
    def unusual(self) -> dict[str, Any]:
        """The traits that differ from the default."""
        usual = Dialect()
        return {t: getattr(self.dialect, t) for t in TRAITS if getattr(self.dialect, t) != getattr(usual, t)}

    @property
    def is_misread(self) -> bool:
        """Whether local times are taken for what they are not, as nobody has said whose they are."""
        return "timezone" in self.dialect.extra and not self.explained

    @property
    def timeout(self) -> float:
        # Nothing ends then, and it is enough to see that once.
        return 1.5 if (self.mode, self.scenario) == ("sensor by moment", "never starts") else TIMEOUT


def plan(seed: int) -> Plan:
    """Return the life of a seed."""
    chance = random.Random(seed)
    scenario = chance.choice([*SCENARIOS, "older", "older", "beside"])
    either: Sequence[Outcome] = ("succeeded", "failed")
    possible: dict[str, Sequence[Outcome]] = {
        "succeeds": ["succeeded"],
        "fails": ["failed"],
        "fails once": ["failed"],
        "never starts": ["never starts"],
    }
    return Plan(
        seed,
        _dialect(chance),
        scenario,
        chance.choice(MODES),
        chance.choice(possible.get(scenario, either)),
        explained=chance.random() < 0.6,
        job_by=chance.choice(["name", "id"]),
        waits=chance.choice(["poke", "reschedule", "deferrable"]),
        variant=chance.random() < 0.5,
    )


def _dialect(chance: random.Random) -> Dialect:
    count = chance.choices([0, 1, 2, 3, 5, 8, 16], [1, 10, 6, 4, 3, 2, 1])[0]
    lots = [trait for trait in TRAITS for _ in range(6 if trait in OFTEN else 1 if trait in SELDOM else 2)]
    chance.shuffle(lots)
    dialect = Dialect(**{trait: chance.choice(TRAITS[trait]) for trait in list(dict.fromkeys(lots))[:count]})
    if dialect.times in ("naive", "seven digits") and chance.random() < 0.5:  # where a zone matters
        dialect = replace(dialect, timezone=chance.choice(TRAITS["timezone"]))
    return dialect


# --- what happens ---

NOTES: ContextVar[list[str]] = ContextVar("NOTES")
"""What the package has logged in the life that goes on."""


class Notes(logging.Handler):
    """Keeps what is logged with the life in which it is."""

    def emit(self, record: logging.LogRecord) -> None:
        if (notes := NOTES.get(None)) is not None:
            notes.append(f"[{record.levelname}] {record.getMessage()}")


@dataclass
class Try:
    """One try, or the whole life of a watcher: when it began and how it ended.

    :ivar result: what was returned; ``None`` if ``error``, the class of what was raised, is set.
    """

    began: float
    at: float = 0.0
    result: Any = None
    error: str = ""
    message: str = ""
    retries: bool = True


@dataclass
class Life:
    """A life, and the judgement on it.

    :ivar since: when the wait began, for which only what ends later counts.
    :ivar ours: the execution that a sensor waits for. :ivar told: what a watcher told, and when.
    :ivar end: ``"right"``, or the class of the error with which it ended.
    :ivar wrong: what is bad about it, by kind.
    :ivar store: what the tries know of each other. :ivar xcoms: what the last one has pushed.
    """

    plan: Plan
    simulator: Simulator
    since: float = field(default_factory=time.time)
    ours: Execution | None = None
    tries: list[Try] = field(default_factory=list)
    told: list[tuple[float, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    end: str = ""
    wrong: list[str] = field(default_factory=list)
    store: Store = field(default_factory=Store)
    xcoms: dict[str, Any] = field(default_factory=dict)

    @property
    def world(self) -> list[Execution]:
        return self.simulator.world.executions


def put(simulator: Simulator, outcome: Outcome, at: float, *, by: Any = "schedule", **job: Any) -> Execution:
    """Let somebody else start the job."""
    of = replace(simulator.job("load"), outcome=outcome, outcomes=[], **job)
    return simulator.world.queue(of, at, by=by)


def set_up(life: Life) -> None:
    """Let happen what happens before the task begins, and arrange for what happens meanwhile."""
    one, simulator = life.plan, life.simulator
    if one.scenario == "older":
        put(simulator, one.other, time.time() - AGO)
        if one.variant:
            put(simulator, one.outcome, time.time() - AGO / 2)
    if one.scenario == "by hand" and not one.variant:
        put(simulator, one.other, time.time() - AGO / 2, by="hand")
    queue = simulator.world.queue

    def queue_and_go_on(job: Job, now: float, *, by: Any = "api", trigger_id: str | None = None) -> Execution:
        queued = queue(job, now, by=by, trigger_id=trigger_id)
        if by == "api":
            meanwhile(life)
        return queued

    simulator.world.queue = queue_and_go_on  # type: ignore[method-assign]


def meanwhile(life: Life) -> None:
    """Let happen what happens beside the execution that counts."""
    one, now = life.plan, time.time()
    if one.scenario == "beside":
        put(life.simulator, one.other, now, pickup=0.1, duration=0.1 if one.variant else 0.5)
    if one.scenario == "by hand" and one.variant:
        put(life.simulator, one.other, now, by="hand", pickup=0.1, duration=0.1)


def begin(life: Life) -> None:
    """Let somebody else start the execution that a sensor or a watcher waits for."""
    life.ours = put(life.simulator, life.plan.outcome, time.time())
    meanwhile(life)


def job_of(one: Plan) -> Job:
    """Return the job, and how its executions go."""
    job = Job("load", pickup=0.05, duration=0.1, outcome=one.outcome)
    if one.scenario == "late log":
        job.log_lag = 0.3
    if one.scenario in ("long", "beside"):
        job.duration = 1.2 if one.scenario == "long" else 0.3
    if one.scenario == "fails once":
        job.outcome, job.outcomes = "succeeded", ["failed"]
    return job


def live_one(one: Plan) -> Life:
    """Live a life, and judge it."""
    with Simulator([job_of(one)], dialect=one.dialect) as simulator:
        histories.name_the_same(simulator, one.seed)
        name = f"AIRFLOW_CONN_DIALECT_{one.seed}"
        connection = simulator.connection(explained=one.explained)
        connection["extra"] = {**connection["extra"], "timeout": 1}
        os.environ[name] = json.dumps(connection)
        life = Life(one, simulator)
        # In a thread of its own: who waits for ever must not keep the others waiting.
        living = threading.Thread(target=_live, args=[life], daemon=True)
        living.start()
        living.join((RETRIES + 1) * (one.timeout + MARGIN))
        if living.is_alive():
            life.wrong.append("endless: it still waits")
            life.end = "endless"
        else:
            judge(life)
        del os.environ[name]
        return life


def _live(life: Life) -> None:
    NOTES.set(life.notes)
    set_up(life)
    if life.plan.mode == "watcher":
        _live_as_watcher(life)
    elif life.plan.mode.startswith("sensor"):
        begin(life)
        _try(life, _sensor(life), 1, life.plan.waits, None)
    else:
        for number in range(1, RETRIES + 2):
            this = _try(life, _operator(life), number, life.plan.mode, life.store)
            if not this.error or not this.retries:
                break


def _job_arguments(life: Life) -> dict[str, Any]:
    job = life.simulator.job("load")
    named = {"job_name": "load"} if life.plan.job_by == "name" else {"job_id": _typed(life, job.id)}
    return {**named, "timextender_conn_id": f"dialect_{life.plan.seed}"}


def _typed(life: Life, id_: str) -> str:
    """Return an id as a person copies it: with its braces only where it is not known without."""
    written = life.plan.dialect.write_id(id_)
    return written if life.plan.dialect.exact_ids else written.strip("{}")


def _operator(life: Life) -> Callable[[], Any]:
    from airflow_provider_timextender.operators import ExecuteJobOperator

    arguments: dict[str, Any] = {
        **_job_arguments(life),
        "wait_for_completion": True,
        "deferrable": life.plan.mode == "deferrable",
        "poll_interval": INTERVAL,
        "timeout": life.plan.timeout,
        "start_timeout": START_TIMEOUT,
        "max_unreachable": MAX_UNREACHABLE,
        "retries": RETRIES,
    }
    return lambda: ExecuteJobOperator(task_id="t", **arguments)


def _sensor(life: Life) -> Callable[[], Any]:
    from airflow_provider_timextender.sensors import JobStatusSensor

    assert life.ours is not None
    deferrable = life.plan.waits == "deferrable"
    arguments: dict[str, Any] = {
        **_job_arguments(life),
        "deferrable": deferrable,
        "poke_interval": INTERVAL,
        "timeout": life.plan.timeout,
        "start_timeout": START_TIMEOUT,
        "max_unreachable": MAX_UNREACHABLE,
        **({} if deferrable else {"mode": life.plan.waits}),
    }
    if life.plan.mode == "sensor by id":
        arguments["trigger_id"] = _typed(life, life.ours.trigger_id)
    else:
        arguments["completed_after"] = datetime.fromtimestamp(life.since, timezone.utc).isoformat()
    return lambda: JobStatusSensor(task_id="t", **arguments)


def _try(life: Life, make: Callable[[], Any], number: int, mode: str, store: Store | None) -> Try:
    """Run one try to its end, as Airflow does."""
    from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

    ti = TaskInstance()
    ti.try_number, ti.max_tries = number, RETRIES
    life.xcoms = ti.xcoms
    this = Try(time.time())
    life.tries.append(this)
    try:
        this.result = live(make, ti, mode, context_of(ti, store))
    except Exception as error:  # noqa: BLE001 - the judge wants to know of each
        this.error, this.message = type(error).__name__, str(error)
        this.retries = not isinstance(error, (AirflowFailException, AirflowSensorTimeout))
    this.at = time.time()
    return this


def _live_as_watcher(life: Life) -> None:
    from airflow_provider_timextender.triggers import JobFinishedTrigger

    one, job = life.plan, life.simulator.job("load")
    this = Try(time.time())
    life.tries.append(this)
    chosen: dict[str, Any] = {"job_names": ["load"]} if one.job_by == "name" else {}
    if one.job_by == "id" and one.variant:
        chosen = {"job_ids": [_typed(life, job.id)]}
    try:
        trigger = JobFinishedTrigger(
            timextender_conn_id=f"dialect_{one.seed}", poll_interval=INTERVAL, **chosen
        )
        asyncio.run(_watch(life, stored(trigger)))
    except Exception as error:  # noqa: BLE001 - the judge wants to know of each
        this.error, this.message = type(error).__name__, str(error)
    this.at = time.time()


async def _watch(life: Life, trigger: Any) -> None:
    """Watch until all that ended has been told, or it has had time enough."""

    async def listen() -> None:
        async for event in trigger.run():
            life.told.append((time.time(), json.loads(json.dumps(event.payload))))

    listening = asyncio.create_task(listen())
    simulator = life.simulator
    # The second read of a log begins when the first, which shows what is history, is done with.
    await comes_true(
        lambda: simulator.count("logs") > 1 or simulator.count("statuses") >= LOOKS or listening.done(),
        pause=0.01,
    )
    await asyncio.sleep(3 * INTERVAL)
    life.since = time.time()
    begin(life)
    due = _ended(life, float("inf"))
    end = max((e.ended for e in due), default=life.since) + simulator.job("load").log_lag + LONG_AGO

    def is_told() -> bool:
        return len(life.told) >= max(1, len(due)) or listening.done()

    await comes_true(is_told, end - time.time(), pause=INTERVAL)
    # On a busy machine the watcher may have had its time and no chance.
    looks = simulator.count("statuses") + LOOKS
    await comes_true(lambda: is_told() or simulator.count("statuses") >= looks, pause=INTERVAL)
    await asyncio.sleep(4 * INTERVAL)  # for what is told twice
    if listening.done():
        await listening
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


def _ended(life: Life, at: float) -> list[Execution]:
    """Return what has ended between the beginning of the wait and a moment."""
    return [e for e in life.world if e.outcome != "never starts" and life.since <= e.ended <= at]


# --- what it was worth ---

ERRORS = (
    "InvalidInput", "Unreachable", "BadCertificate", "Refused", "RateLimited", "ServerError", "ContractError",
    "UnreadableAnswer", "SubmissionUncertain", "JobBusy", "ExecutionNotFound", "ExecutionTimeout",
    "WaitTimeout", "TriggerLost", "JobNeverStarted", "JobFailed", "TimeXtenderError",
)  # fmt: skip
"""The names of the package's errors, which are a part of its interface."""

TIMEOUTS = ("WaitTimeout", "AirflowSensorTimeout")

SETTING = re.compile(r"vocabulary|timezone")
"""What a message names that says what to set."""

FOUND = re.compile(
    r"[Ff]ound |expected |no value for|in no table|is no guid|not a guid|not understood|HTTP \d|no end time"
    r"|without a trigger id|no trigger id|executions stand under|several ways|no ISO|begun since"
)
"""What a message holds that says what was found."""


def error_of(this: Try) -> str:
    """Return the name of the error that a try ended with; empty for one that is none of the package's."""
    if this.error in (*ERRORS, "AirflowSensorTimeout"):
        return this.error
    if this.error != "AirflowFailException":
        return ""
    if named := re.search(rf"\b({'|'.join(ERRORS)})\b", this.message):
        return named[1]
    return "WaitTimeout" if ": stopped waiting: " in this.message else ""


def judge(life: Life) -> None:
    """Hold what the task said against what TimeXtender did."""
    life.wrong += _doubles(life)
    for this in life.tries:
        if life.plan.mode != "watcher" and this.at - this.began > life.plan.timeout + MARGIN:
            life.wrong.append(f"endless: a try took {this.at - this.began:.1f} s")
    if life.plan.mode == "watcher":
        life.wrong += _judge_watcher(life)
    else:
        for this in life.tries:
            life.end, wrong = _judge_try(life, this)
            life.wrong += wrong
    if any(wrong.startswith(("wrong", "endless")) for wrong in life.wrong):
        life.end = "bad"


def _doubles(life: Life) -> Iterator[str]:
    """Find loads that nothing justified: the one before was not undone, or no other try had come."""
    for former, latter in pairwise([e for e in life.world if e.by == "api"]):
        failed = former.outcome == "failed" and former.ended <= latter.queued
        again = any(former.queued < this.began <= latter.queued for this in life.tries)
        # What never starts may be asked for again at once: without its receipt, it leaves no trace.
        if former.outcome != "never starts" and not (failed and again):
            yield f"double: {latter.trigger_id} beside or after {former.trigger_id} ({former.outcome})"


def _judge_try(life: Life, this: Try) -> tuple[str, list[str]]:
    error = error_of(this)
    if not this.error:
        wrong = list(_judge_success(life, this))
    elif not error:
        wrong = [f"wrong: foreign: {this.error}: {this.message}"]
    elif error in ("JobFailed", "JobNeverStarted"):
        wrong = list(_judge_red(life, this, error))
    else:
        if error in TIMEOUTS and life.plan.mode == "sensor by moment" and not _ended(life, this.at):
            return "right", []
        return error, list(_judge_error(life, this, error))
    return "right", wrong


def _candidates(life: Life, this: Try) -> Iterator[Execution]:
    """Yield the executions of which a try should have told the end."""
    if life.plan.mode == "sensor by moment":
        yield from _ended(life, this.at)
    elif life.plan.mode == "sensor by id":
        assert life.ours is not None
        yield life.ours
    else:
        queued = [e for e in life.world if e.by == "api" and e.queued <= this.at]
        yield from queued[-1:]


def _judge_success(life: Life, this: Try) -> Iterator[str]:
    told = this.result if isinstance(this.result, dict) else {"trigger_id": this.result, "state": "succeeded"}
    if told.get("state") != "succeeded":
        yield f"wrong: a success that says {told}"
    yield from _judge_outcome(life, this, "succeeded", told.get("trigger_id"))


def _judge_red(life: Life, this: Try, error: str) -> Iterator[str]:
    outcome: Outcome = "failed" if error == "JobFailed" else "never starts"
    yield from (f"{wrong} [{this.message[:300]}]" for wrong in _judge_outcome(life, this, outcome, None))


def _judge_outcome(life: Life, this: Try, outcome: Outcome, trigger_id: Any) -> Iterator[str]:
    """Find what is not so about an outcome that a try has told."""
    if life.plan.mode == "sensor by moment":
        yield from _judge_moment(life, this, outcome, trigger_id)
        return
    expected = list(_candidates(life, this))
    if not expected:
        yield f"wrong: {outcome}, and nothing was queued"
        return
    (execution,) = expected
    if execution.outcome != outcome:
        yield f"wrong: told as {outcome}, and it {execution.outcome}"
    elif outcome != "never starts" and execution.ended > this.at:
        yield f"wrong: told as {outcome} before its end"
    elif trigger_id is not None and _folded(trigger_id) != execution.trigger_id:
        yield f"wrong: the trigger id {trigger_id} is not that of {execution.trigger_id}"


def _judge_moment(life: Life, this: Try, outcome: Outcome, trigger_id: Any) -> Iterator[str]:
    """Find whether the execution that had ended last when the sensor looked, ended otherwise."""
    lag = life.simulator.job("load").log_lag
    looks = [r.at for r in life.simulator.requests if r.route == "logs" and r.at <= this.at]
    if not looks:
        yield f"wrong: {outcome} without a look at the log"
        return
    lasts: list[Execution] = []
    for moment in (looks[-1] - lag, looks[-1] - lag + 0.1):  # an answer takes its time
        lasts += sorted(_ended(life, moment), key=lambda e: e.ended)[-1:]
    if life.plan.is_misread:
        lasts += life.world
    id_ = _folded(trigger_id or BLANK_TRIGGER_ID)
    if not any(e.outcome == outcome and id_ in (BLANK_TRIGGER_ID, e.trigger_id) for e in lasts):
        yield f"wrong: told as {outcome} ({trigger_id}), and the last was {lasts[-1:]}"


def _judge_error(life: Life, this: Try, error: str) -> Iterator[str]:
    """Find an error that does not say what was found and what to set, though it could have been told."""
    if says_why(life.plan, this.message):
        return
    over = [
        e for e in _candidates(life, this) if e.outcome != "never starts" and e.ended < this.at - LONG_AGO
    ]
    kind = "endless" if error in TIMEOUTS and over else "wrong: mute"
    yield f"{kind}: {error}: {this.message}"


def says_why(one: Plan, message: str) -> bool:
    """Tell whether a message names what was found and, where that would heal it, what to set."""
    if not one.explained and one.dialect.extra and set(one.unusual) <= TOLD | {"times"}:
        return bool(SETTING.search(message))
    return bool(SETTING.search(message) or FOUND.search(message))


def _judge_watcher(life: Life) -> Iterator[str]:
    """Hold what a watcher told against what ended while it watched."""
    (this,) = life.tries
    life.end = "right"
    if this.error:
        life.end = error_of(this)
        if not life.end:
            yield f"wrong: foreign: {this.error}: {this.message}"
        elif not says_why(life.plan, this.message):
            yield f"wrong: mute: {this.error}: {this.message}"
        return
    left = list(life.world)
    for at, event in life.told:
        execution = _told(life, left, at, event)
        if execution is None:
            if not life.plan.is_misread:
                yield f"wrong: told of what is none that has just ended, or a second time: {event}"
            continue
        left.remove(execution)
        if event["state"] is None:
            life.end = "no state"
    missed = [e for e in left if e in _ended(life, this.at - LONG_AGO / 2)]
    if missed:
        said = " ".join(note for note in life.notes if note.startswith(("[WARNING]", "[ERROR]")))
        life.end = "said in its log"
        if not says_why(life.plan, said):
            name = f"{missed[0].trigger_id} ({missed[0].outcome})"
            yield f"endless: nothing told of {name}; it says {said[:300]!r}"


def _told(life: Life, left: list[Execution], at: float, event: Mapping[str, Any]) -> Execution | None:
    """Return the execution of which an event tells, if all that it tells is so."""
    id_ = _folded(event["trigger_id"] or BLANK_TRIGGER_ID)
    for execution in left:
        named = id_ in (BLANK_TRIGGER_ID, execution.trigger_id)
        true = event["state"] in (None, execution.outcome)
        if named and true and life.since <= execution.ended <= at:
            return execution
    return None


def _folded(id_: Any) -> str:
    return str(id_).strip("{}").lower()


def table(lives: Sequence[Life]) -> str:
    """Return the figures."""
    ends = Counter(life.end for life in lives)
    wrong = Counter(wrong.split(":")[0] for life in lives for wrong in life.wrong)
    dialects = {repr(life.plan.dialect) for life in lives}
    rows: list[tuple[str, int]] = [
        ("dialects", len(dialects)),
        ("lives", len(lives)),
        ("right", ends.pop("right", 0)),
        *(ends.most_common()),
        *((kind, wrong[kind]) for kind in BAD),
    ]
    lines = [f"{name:24}{figure:>8}" for name, figure in rows]
    lines += ["", *examples(lives), "", *unhealed(lives), ""]
    lines += [f"{life.plan.seed}: {describe(life.plan)}: {wrong}" for life in lives for wrong in life.wrong]
    if wrong:
        lines.append("Replay one with: python -m tests.processes.dialects --seed N")
    return "\n".join(lines)


BAD = ("wrong", "double", "endless")
"""What may not be."""


def examples(lives: Iterable[Life]) -> Iterator[str]:
    """Yield the first life of each kind of end that is neither right nor bad."""
    seen = {"right", "bad"}
    for life in lives:
        if life.end not in seen:
            seen.add(life.end)
            said = life.tries[-1].message or "; ".join(life.notes[-1:])
            yield f"{life.end}, for example {life.plan.seed}: {describe(life.plan)}: {said[:400]}"


def unhealed(lives: Iterable[Life]) -> Iterator[str]:
    """Yield each value of a trait with which alone an explained life did not end right, and how many did."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for life in lives:
        if life.plan.explained and len(life.plan.unusual) == 1:
            for trait, value in life.plan.unusual.items():
                found[f"{trait}={value}"][life.end] += 1
    yield f"Not always understood, though explained, of {len(found)} values of traits that stood alone:"
    for name, ends in sorted(found.items()):
        if set(ends) != {"right"}:
            yield f"  {name}: {', '.join(f'{end} {count}' for end, count in ends.most_common())}"


def describe(one: Plan) -> str:
    """Return what a life was, in a line."""
    unusual = ", ".join(f"{trait}={value!r}" for trait, value in one.unusual.items())
    how = f"{one.mode}, job by {one.job_by}" + (f", {one.waits}" if one.mode.startswith("sensor") else "")
    explained = "explained" if one.explained else "not explained"
    return f"{one.scenario} ({one.outcome}, variant={one.variant}), {how}, {explained}, Dialect({unusual})"


@contextmanager
def hurry() -> Iterator[None]:
    """Let the package repeat a read at once, and log where the lives are kept."""
    from airflow_provider_timextender import life, operators, sensors, triggers, watching

    log = logging.getLogger("tests.processes.dialects.task")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [Notes()]
    with ExitStack() as patches:
        logging.disable(logging.DEBUG)
        patches.callback(logging.disable, logging.NOTSET)
        patches.enter_context(mock.patch.object(life, "MAX_PAUSE", 0.02))
        patches.enter_context(mock.patch.object(watching, "SPACING", 0.01))
        for kind in (
            operators.ExecuteJobOperator,
            sensors.JobStatusSensor,
            triggers.JobExecutionTrigger,
            triggers.JobFinishedTrigger,
        ):
            patches.enter_context(mock.patch.object(kind, "log", log))
        yield


def history(life: Life) -> dict[str, Any]:
    """Return what became of a life, so that two versions of the package can be compared."""
    ends = [
        {
            "returned": this.result,
            "error": this.error,
            "message": this.message,
            "retries": this.retries,
        }
        for this in life.tries
    ]
    seen = {
        "ends": ends,
        "told": [event for _, event in life.told],
        "judged": life.end,
        "xcoms": life.xcoms,
        "record": histories.stage_of(life.store.kept.get("timextender_submission")),
        "wrong": life.wrong,
        "warnings": histories.warnings(life.notes),
    }
    return {
        "seed": life.plan.seed,
        "drawn": histories.drawn(life.plan),
        **histories.what_happened(life.simulator, [this.began for this in life.tries]),
        **histories.Names(life.simulator).of(seen),
    }


def live_all(seeds: Iterable[int], jobs: int) -> list[Life]:
    """Live the lives of some seeds."""
    with hurry(), ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda seed: live_one(plan(seed)), seeds))


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.processes.dialects", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many lives")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="show the life of this one")
    parser.add_argument("--jobs", type=int, default=24, help="lives at a time")
    parser.add_argument("--histories", type=Path, metavar="FILE", help="write what became of each to it")
    arguments = parser.parse_args()
    began = time.monotonic()
    logging.getLogger().handlers = [Notes()]
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    lives = live_all(seeds if arguments.seed is None else [arguments.seed], arguments.jobs)
    if arguments.seed is not None:
        show(lives[0])
    if arguments.histories:
        histories.write(arguments.histories, map(history, lives))
    print(table(lives))
    print(f"{time.monotonic() - began:.0f} s")
    clean_up()
    return int(any(life.wrong for life in lives))


def show(life: Life) -> None:
    """Print all of a life."""
    print(
        describe(life.plan),
        f"extra: {life.simulator.connection(explained=life.plan.explained)['extra']}",
        sep="\n",
    )
    print(*life.world, *life.notes, *life.told, *life.tries, sep="\n")
    for request in life.simulator.requests[-5:]:
        print(f"{request.at:.3f} {request.method} {request.path}")


if __name__ == "__main__":
    sys.exit(main())
