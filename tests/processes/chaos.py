"""Random lives of a task: every kind of fault and death, in any order.

``python -m tests.processes.chaos --seeds 2000`` lives them, and judges each by what TimeXtender has seen;
``--seed N`` shows one of them, ``--histories FILE`` writes down what became of each (see
:mod:`tests.processes.histories`). The judge knows nothing of the package but the names of its errors.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow_provider_timextender.simulator import DIALECTS, Execution, Fault, Job, Simulator

from . import histories
from .lives import SHOWN, Boundary, Broken, End, Life, Nursery

OLD_KEY, NEW_KEY = "tx-k3y-0f-the-ch4os", "tx-renewed-k3y-0f-the-ch4os"

VARIES = re.compile(
    r"http://[^/]*|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[\d:T+-]{19,}|\(trigger id None\)"
)
"""What makes two equal messages differ."""

ADOPTED = "is taken for the one that was asked for"
"""What the package says of an execution whose receipt is missing. It counts in no judgement."""

GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


# --- what is random ---


@dataclass(frozen=True)
class Plan:
    """A life as it will be.

    :ivar faults: at which boundary which route gets which fault; 0 for the very beginning.
    :ivar deaths: at which boundaries a process dies, by number or by name.
    :ivar others: at which boundaries somebody else starts the job, by number or by name, and how.
    :ivar failures: after which boundaries Airflow fails to keep, or give, something.
    :ivar rotation: the boundaries from which on TimeXtender and the connection have a new key.
    """

    seed: int
    arguments: dict[str, Any]
    job: dict[str, Any]
    life: dict[str, Any]
    dialect: str
    faults: list[tuple[int, Any, Fault]] = field(default_factory=list)
    deaths: list[int | str] = field(default_factory=list)
    others: list[tuple[int | str, Any]] = field(default_factory=list)
    failures: frozenset[int] = frozenset()
    rotation: tuple[int, int] | None = None
    clears: int = 0
    history: int = 0


PAST_LINES = 1200
"""How many lines each execution of a history has in its log: 200 KB."""

PLACES = (
    *(f"POST jobs/*/execute: {moment}" for moment in ("before", "sent", "answered")),
    "after store.set timextender_submission",
    "before store.delete timextender_submission",
    "before defer",
    "async GET jobs/*/status: answered",
    "async GET jobs/status: answered",
    "async GET jobs/*/logs/*: answered",
    "before event",
    "before xcom.push return_value",
    "after xcom.push return_value",
    "after xcom.push timextender_shown",
    "after store.set timextender_shown",
    "before raise",
    "before return",
)
"""Where a death is worth more than anywhere."""


AROUND = (
    "GET jobs/*/status: answered",
    "GET jobs/*/logs: sent",
    "POST jobs/*/execute: before",
    "POST jobs/*/execute: answered",
)
"""Where it is worth most that somebody else starts the job."""


def plan(seed: int) -> Plan:
    """Return the life of a seed."""
    chance = random.Random(seed)
    arguments: dict[str, Any] = {
        "job_name": "load",
        "poll_interval": 0.05,
        "start_timeout": 0.8,
        "max_unreachable": 3,
        "wait_for_completion": chance.random() < 0.85,
        "deferrable": chance.random() < 0.5,
        "if_running": chance.choices(["submit", "wait", "attach", "fail"], [7, 1, 1, 1])[0],
    }
    slow = chance.random() < 0.3
    log_lag = chance.choice([0, 0, 0, 0.1, 0.2])
    job = {
        "pickup": 0.4 if slow else 0.05,
        "duration": chance.choice([0.0, 0.05, 0.1, 0.1, 0.3, 0.6]),
        "log_lag": log_lag,
        "log_at_end": chance.random() < 0.3,
        "outcomes": chance.choices([[], ["failed"], ["failed", "failed"], ["never starts"]], [80, 14, 3, 3])[
            0
        ],
    }
    life = {
        "retries": chance.choices([0, 1, 2, 3, 5], [1, 2, 3, 3, 3])[0],
        "poll": chance.choice(["deferrable", "shared poll"]),
        "derived": chance.random() < 0.2,
        "extra": {"timeout": 0.3},
    }
    one = Plan(seed, arguments, job, life, chance.choice(sorted(DIALECTS)))
    for _ in range(chance.choices([0, 1, 2, 4, 8], [3, 3, 2, 2, 1])[0]):
        one.faults.append(_fault(chance))
    for _ in range(chance.choices([0, 1, 2, 3], [2, 4, 3, 1])[0]):
        places: list[int | str] = [
            chance.randint(1, 40),
            chance.randint(1, 120),
            chance.choice(PLACES),
            chance.choice(PLACES),
        ]
        one.deaths.append(chance.choice(places))
    if chance.random() < 0.3:
        for _ in range(chance.randint(1, 2)):
            by = chance.choice(["schedule", "schedule", "hand"])
            where: list[int | str] = [1, chance.randint(1, 60), chance.choice(AROUND)]
            one.others.append((chance.choice(where), by))
    rotation = None
    if chance.random() < 0.15:
        begins = chance.randint(5, 50)
        rotation = (begins, begins + chance.randint(-3, 15))
    failures: frozenset[int] = frozenset()
    if chance.random() < 0.15:
        failures = frozenset(chance.sample(range(1, 60), 15))
    clears = int(chance.random() < 0.15)
    # By chances of its own, so that a seed has the life that it had before there were histories.
    history = random.Random(f"history of {seed}").choices([0, 1, 4], [90, 5, 5])[0]
    if history:  # the simulator needs a moment to write it down
        one.life["extra"] = {"timeout": 1.5}
    rest = {"rotation": rotation, "failures": failures, "clears": clears, "history": history}
    return Plan(**{**vars(one), **rest})


def _fault(chance: random.Random) -> tuple[int, Any, Fault]:
    route = chance.choices(
        ["execute", "status", "statuses", "execution logs", "logs", "jobs"], [6, 4, 2, 4, 2, 1]
    )[0]
    fault: Callable[[], Fault] = chance.choices(
        [
            lambda: Fault("status", status=chance.choice([500, 502, 503, 504])),
            lambda: Fault("status", status=chance.choice([503, 429]), retry_after="0.1"),
            lambda: Fault("status", status=chance.choice([500, 502, 503]), taken=True),
            lambda: Fault("reset", taken=chance.random() < 0.5),
            lambda: Fault("html", taken=chance.random() < 0.5),
            lambda: Fault("cut"),
            lambda: Fault("wrong type"),
            lambda: Fault("slow", seconds=0.1),
            lambda: Fault("slow", seconds=0.5),  # longer than the connection's timeout
            lambda: Fault("silence", taken=chance.random() < 0.5),
            lambda: Fault("redirect", location="https://elsewhere.example/"),
        ],
        [6, 3, 4, 6, 3, 3, 2, 3, 2, 3, 0.3],
    )[0]
    at = 0 if route in ("execute", "jobs") and chance.random() < 0.7 else chance.randint(0, 60)
    # A request that only reads has no effect that its answer could hide.
    return at, route, fault() if route == "execute" else replace(fault(), taken=False)


# --- what happens ---


class Once:
    """Boundaries by number or by name, each of which is reached once."""

    def __init__(self, places: Iterable[int | str]) -> None:
        self._left = list(places)

    def __call__(self, boundary: Boundary) -> bool:
        for place in self._left:
            if place in (boundary.number, boundary.name):
                self._left.remove(place)
                return True
        return False


@dataclass
class Lived:
    """A life, and the judgement on it."""

    plan: Plan
    life: Life
    wrong: list[str]
    notes: list[str]
    faults: int


class Surroundings:
    """What happens around a life while it passes its boundaries."""

    def __init__(self, one: Plan, simulator: Simulator) -> None:
        self._plan = one
        self._simulator = simulator
        self._others = [(Once([place]), by) for place, by in one.others]
        self.go_wrong(0)

    def go_wrong(self, number: int) -> None:
        """Let the requests fail that are to fail after so many boundaries."""
        for at, route, fault in self._plan.faults:
            if at == number:
                self._simulator.fault(route, fault)

    def pass_by(self, life: Life, boundary: Boundary) -> None:
        """Let happen what is to happen at a boundary."""
        self.go_wrong(boundary.number)
        for reached, by in self._others:
            if reached(boundary):
                self._simulator.run("load", by=by)
        if self._plan.rotation is not None:
            begins, ends = self._plan.rotation
            if boundary.number == begins:
                self._simulator.api_key = NEW_KEY
            if boundary.number == ends:
                life.api_key = NEW_KEY


def live(nursery: Nursery, one: Plan) -> Lived:
    """Live a life."""
    job = Job("load", **{**one.job, "outcomes": list(one.job["outcomes"])})
    with Simulator([job], api_key=OLD_KEY, dialect=one.dialect) as simulator:
        job.lines, usual = PAST_LINES, job.lines
        for number in range(one.history):
            simulator.past("load", "succeeded", ago=86400.0 + number, by="schedule")
        job.lines = usual
        around = Surroundings(one, simulator)
        histories.name_the_same(simulator, one.seed)
        life = Life(
            nursery,
            simulator,
            one.arguments,
            dies=Once(one.deaths),
            passes=lambda boundary: around.pass_by(life, boundary),
            fails=lambda boundary: boundary.number in one.failures,
            seed=one.seed,
            **one.life,
        )
        lived = Lived(one, life, [], [], 0)
        try:
            life.run()
            for _ in range(one.clears):
                life.clear()
        except Broken as broken:
            lived.wrong.append(f"broken: {broken}")
        else:
            judge(lived)
        return lived


# --- what it was worth ---


def judge(lived: Lived) -> None:
    """Hold what the task said against what TimeXtender has seen."""
    life = lived.life
    lived.wrong += [f"double: {execution.trigger_id}" for execution in life.doubles()]
    lived.wrong += _judge_manners(lived)
    lived.wrong += _judge_lines(lived)
    begins = [0.0, *life.clears]
    for end, since in zip(life.ends, begins, strict=True):
        if end.state == "success":
            lived.wrong += _judge_success(lived, end, since)
        else:
            lived.wrong += _judge_failure(lived, end, since)


def _judge_manners(lived: Lived) -> Iterator[str]:
    """Find a job that was queued beside somebody else's execution, though that was not wanted."""
    if lived.plan.arguments["if_running"] == "submit" or any(
        route == "logs" for _, route, _ in lived.plan.faults
    ):
        return
    for ours in lived.life.ours:
        for other in lived.life.simulator.world.executions:
            # The API cannot queue a job only if it is idle, so what begins in between is not seen.
            if other.by != "api" and other.queued < ours.queued - 0.5 and other.ended > ours.queued:
                yield f"wrong: {ours.trigger_id} was queued beside {other.trigger_id}"


def _judge_lines(lived: Lived) -> Iterator[str]:
    """Find lines of TimeXtender's that the task's log shows twice, or never."""
    plan, life = lived.plan, lived.life
    texts = (line.split(" ", 2)[2] for line in life.history if "] TimeXtender: " in line)
    shown = Counter(text.removeprefix("TimeXtender: ").rpartition("+00:00] ")[2] for text in texts)
    lived_through = life.simulator.world.executions[plan.history :]
    there = Counter(line.message for one in lived_through for line in one.lines)
    # Of lines that are shown, nobody can know if the process dies before it has kept that they are.
    unknown = any(death.name.endswith(SHOWN) or death.process == "triggerer" for death in life.deaths)
    if not plan.failures and any("which lines were shown" in line for line in life.history):
        yield "wrong: it could not be kept which lines were shown"
    if not (unknown or plan.failures or plan.clears) and (twice := shown - there):
        yield f"wrong: lines are shown twice: {twice}"
    if life.ends[-1].state == "success" and plan.arguments["wait_for_completion"]:
        execution = _seen(life, str(life.ends[-1].returned))
        if execution is not None and (never := {line.message for line in execution.lines} - set(shown)):
            yield f"wrong: lines are never shown: {never}"


def _seen(life: Life, trigger_id: str) -> Execution | None:
    found = [e for e in life.simulator.world.executions if e.trigger_id == trigger_id]
    return found[0] if len(found) == 1 else None


def _judge_success(lived: Lived, end: End, since: float) -> Iterator[str]:
    life = lived.life
    execution = _seen(life, str(end.returned))
    if execution is None:
        yield f"wrong: it returned {end.returned}, which is no execution"
        return
    if lived.plan.arguments["wait_for_completion"]:
        if execution.outcome != "succeeded":
            yield f"wrong: a success, but the execution {execution.outcome}"
        elif execution.ended > end.at:
            yield "wrong: a success before the end"
    attaches = lived.plan.arguments["if_running"] == "attach"
    if execution.by != "api" and not attaches:
        before = next((e.message for e in reversed(life.ends) if e.at < end.at), "")
        undecided = "SubmissionUncertain" in before  # whoever has cleared it then has decided
        last = max((this.began for this in life.tries if this.began <= end.at), default=since)
        began = [
            e
            for e in life.ours
            if e.outcome != "never starts"
            and e.queued < end.at
            and (e.queued >= since or (e.ended > since and not undecided))
            and not (e.outcome == "failed" and e.ended < last)
        ]
        if began:
            yield f"wrong: it returned another's execution, though {began[-1].trigger_id} is ours"
        else:
            lived.notes.append("another's: nothing of ours ever began, and one of somebody else did")
    if (
        end.returned in {e.returned for e in life.ends if e.at < end.at}
        and not attaches
        and not lived.plan.failures
    ):
        yield f"wrong: it was cleared after a success, and returned {end.returned} again"
    if end is life.ends[-1] and not lived.plan.failures:
        pushed = (life.xcoms.get("trigger_id"), life.xcoms.get("job_id"))
        if pushed != (execution.trigger_id, execution.job.id):
            yield f"wrong: it pushed {pushed}"


@dataclass(frozen=True)
class Failure:
    """How a task failed, what it said, and the executions that it named."""

    lived: Lived
    end: End
    said: str
    named: list[Execution]

    @property
    def faults(self) -> set[str]:
        return {fault.kind for _, _, fault in self.lived.plan.faults}

    @property
    def missed(self) -> bool:
        """Whether the job may have run unseen: a trigger may take a wait up later than an interval."""
        plan, life = self.lived.plan, self.lived.life
        return bool(plan.others or life.deaths or len(life.tries) > 1 or plan.arguments["deferrable"])


REASONS: list[tuple[str, Callable[[Failure], Any]]] = [
    ("OSError: Airflow could not", lambda it: it.lived.plan.failures),
    ("JobBusy", lambda it: it.lived.plan.others or it.lived.life.clears),  # what was cleared may still run
    (r"HTTP 30\d|redirect", lambda it: "redirect" in it.faults),
    # At once, unless the right shape has come before, which would let it pass.
    ("expected a JSON", lambda it: "wrong type" in it.faults),
    (
        "it has run since the execution was asked for",
        lambda it: it.missed and it.named and it.named[-1].outcome == "never starts",
    ),
    (r"HTTP 40[13]", lambda it: it.lived.plan.rotation is not None),
    ("", lambda it: it.faults - {"redirect"} and it.end.retries),
]
"""What is said, and when that is true; the first that fits counts."""

OUTCOMES = {"JobFailed": "failed", "JobNeverStarted": "never starts"}


def _judge_failure(lived: Lived, end: End, since: float) -> Iterator[str]:
    said = f"{end.error}: {end.message}"
    named = [e for e in (_seen(lived.life, guid) for guid in GUID.findall(said)) if e is not None]
    reason = VARIES.sub("*", said)[:400]
    if end.error == "died":
        lived.notes.append("failed: its last process died")
    elif end.error in OUTCOMES:
        if [e.outcome for e in named] != [OUTCOMES[end.error]]:
            yield f"wrong: {said}"
        lived.notes.append(f"failed: {end.error}")
    elif "SubmissionUncertain" in said:
        lived.notes.append(f"uncertain: {reason}")
        if not _is_uncertain(lived, end, said, named):
            yield f"wrong: it could have been known: {said}"
    else:
        lived.notes.append(f"failed: {reason}")
        is_true = next(is_true for words, is_true in REASONS if re.search(words, said))
        if not is_true(Failure(lived, end, said, named)):
            yield f"wrong: without a reason: {said}"
        if end is lived.life.ends[-1] and "OSError" not in said:  # without its store Airflow can name nothing
            yield from _judge_last_words(lived, said, since)


def _judge_last_words(lived: Lived, said: str, since: float) -> Iterator[str]:
    """Find an execution that has succeeded, and of which a task that has failed tells nobody."""
    life = lived.life
    # A store that fails may lose it; nothing else may.
    xcoms = " ".join(str(value) for key, value in life.xcoms.items() if key != SHOWN)
    told = said + xcoms + " ".join(life.history) * bool(lived.plan.failures)
    for execution in life.ours:
        good = execution.outcome == "succeeded" and execution.queued >= since
        if good and execution.trigger_id not in told:
            yield f"lost: {execution.trigger_id}, and all that was said is {said}"


def _is_uncertain(lived: Lived, end: End, said: str, named: list[Execution]) -> bool:
    """Tell whether nobody could have known which execution is the task's."""
    life = lived.life
    if re.search(r"showed before is not known|could not be looked for|GET \S+: expected a JSON", said):
        refusals = any(fault.kind in ("redirect", "wrong type") for _, _, fault in lived.plan.faults)
        return refusals or lived.plan.rotation is not None
    late = end.at - lived.plan.arguments["start_timeout"]
    cleared = bool(life.clears) and life.clears[0] < end.at
    if named and cleared and any(at < late for at in _asked_at(life, said)):
        return True  # to who is cleared so late, it may as well be that of a later run
    returned = {end.returned for end in life.ends if end.state == "success"}
    candidates = named or [e for e in life.simulator.world.executions if e.by != "hand"]
    # Somebody else's that was waiting at the time of the request is one, too, though it may be long over, and
    # so is a former one of the task's own: a log that does not show it yet hides whose it is.
    first = candidates[0].queued
    waiting = any(e.queued < first < e.ended for e in life.ours) or bool(lived.plan.others)
    return len({e.trigger_id for e in candidates} - returned) + waiting >= 2


def _asked_at(life: Life, said: str) -> Iterator[float]:
    """Yield when the request of which an error speaks was recorded; faults may delay its arrival."""
    for text in set(re.findall(r'"asked_at": "([^"]+)"', "".join(life.history))):
        at = datetime.fromisoformat(text)
        if at.isoformat(timespec="seconds") in said:
            yield at.timestamp()


def table(lives: list[Lived]) -> str:
    """Return the figures."""
    deaths = Counter(b.process for lived in lives for b in lived.life.deaths)
    ends = Counter(end.state for lived in lives for end in lived.life.ends)
    notes = Counter(note for lived in lives for note in lived.notes)
    wrong = Counter(wrong.split(":")[0] for lived in lives for wrong in lived.wrong)
    rows: list[tuple[str, Any]] = [
        ("lives", len(lives)),
        ("boundaries", sum(len(lived.life.boundaries) for lived in lives)),
        ("tries", sum(len(lived.life.tries) for lived in lives)),
        ("kills of workers", deaths["worker"]),
        ("kills of triggerers", deaths["triggerer"]),
        ("faults", sum(len(lived.plan.faults) for lived in lives)),
        ("lives with store errors", sum(bool(lived.plan.failures) for lived in lives)),
        ("key rotations", sum(lived.plan.rotation is not None for lived in lives)),
        ("executions of others", sum(len(lived.plan.others) for lived in lives)),
        ("clears", sum(lived.plan.clears for lived in lives)),
        ("large logs", sum(bool(lived.plan.history) for lived in lives)),
        ("succeeded", ends["success"]),
        ("failed", ends["failed"]),
        ("adopted", sum(ADOPTED in "".join(lived.life.history) for lived in lives)),
        ("another's", sum(n for note, n in notes.items() if note.startswith("another's"))),
        ("uncertain", sum(n for note, n in notes.items() if note.startswith("uncertain"))),
        ("lost", wrong["lost"]),
        ("double", wrong["double"]),
        ("wrong", wrong.total() - wrong["double"] - wrong["lost"]),
    ]
    lines = [f"{name:24}{figure:>8}" for name, figure in rows]
    lines += ["", *(f"{count:5} x {note}" for note, count in notes.most_common())]
    for lived in lives:
        lines += [f"seed {lived.plan.seed}: {wrong}" for wrong in lived.wrong]
    if wrong:
        lines.append("Replay one with: python -m tests.processes.chaos --seed N")
    return "\n".join(lines)


def history(lived: Lived) -> dict[str, Any]:
    """Return what became of a life, so that two versions of the package can be compared."""
    one, life = lived.plan, lived.life
    names = histories.Names(life.simulator)
    numbered = [place for place in (*one.deaths, *(at for at, _ in one.others)) if isinstance(place, int)]
    ends = [
        {
            "state": end.state,
            "returned": end.returned,
            "error": end.error,
            "message": end.message,
            "retries": end.retries,
        }
        for end in life.ends
    ]
    record = json.loads(life.store.get("timextender_submission", "null"))
    seen = {
        "tries": [this.end and (this.end.error or this.end.state) for this in life.tries],
        "ends": ends,
        "xcoms": life.xcoms,
        "record": histories.stage_of(record),
        "wrong": lived.wrong,
        "warnings": histories.warnings(life.history),
    }
    return {
        "seed": one.seed,
        "drawn": histories.drawn(one),
        # Whether something happens at a moment that is counted, and so depends on how often is looked.
        "timed": bool(numbered or one.rotation or one.failures or any(at for at, _, _ in one.faults)),
        **histories.what_happened(life.simulator, [this.began for this in life.tries]),
        **names.of(seen),
    }


def live_all(nursery: Nursery, seeds: Iterable[int], jobs: int) -> list[Lived]:
    """Live the lives of some seeds."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda seed: live(nursery, plan(seed)), seeds))


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.processes.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many lives")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="show the life of this one")
    parser.add_argument("--jobs", type=int, default=16, help="lives at a time")
    parser.add_argument("--histories", type=Path, metavar="FILE", help="write what became of each to it")
    arguments = parser.parse_args()
    began = time.monotonic()
    logging.disable()  # the simulators' event loops talk a lot
    with Nursery() as nursery:
        if arguments.seed is not None:
            lives = [live(nursery, plan(arguments.seed))]
            print(lives[0].plan, *lives[0].life.history, sep="\n")
            print(*lives[0].life.simulator.world.executions, sep="\n")
        else:
            seeds = range(arguments.first, arguments.first + arguments.seeds)
            lives = live_all(nursery, seeds, arguments.jobs)
    if arguments.histories:
        histories.write(arguments.histories, map(history, lives))
    print(table(lives))
    print(f"{time.monotonic() - began:.0f} s")
    return int(any(lived.wrong for lived in lives))


if __name__ == "__main__":
    sys.exit(main())
