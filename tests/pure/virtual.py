"""A virtual world: Airflow and TimeXtender as data, in which a task lives a night in a millisecond.

The task's life is the package's own (:mod:`airflow_provider_timextender.life`); what it touches is here. Time
is a number that jumps to whoever wakes next. Each touch of the world is a *point*, and at a point something
may happen: the process dies, Airflow takes it for dead, or the task is cleared. What becomes of a task after
a death, an error or a deferral is Airflow's part, and stands in :class:`Airflow`.
"""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import random
import types
from collections.abc import Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from types import ModuleType
from typing import Any, Literal

from airflow_provider_timextender import errors, life, shown, submission, verdict
from airflow_provider_timextender.jobs_api import Answer, Call, job_status, list_jobs, read
from airflow_provider_timextender.logs import LastLines
from airflow_provider_timextender.model import JobStatus, canonical
from airflow_provider_timextender.naming import Named, Of
from airflow_provider_timextender.simulator.dialects import DIALECTS, Dialect, Reply, folded
from airflow_provider_timextender.simulator.world import Execution, Job, Outcome, World
from airflow_provider_timextender.vocabulary import Vocabulary

INTERVAL, START_TIMEOUT, MAX_UNREACHABLE, TIMEOUT = 10.0, 60.0, 300.0, 3600.0
"""The limits of each task, in seconds."""

BEGINNING = 1_800_000_000.0
WAY = 0.05
"""Seconds that a request takes, and its answer."""

RETRY_DELAY, TAKEOVER, LATE, UNTIL_BESIDE = 4.0, 5.0, 20.0, 1.0
"""Seconds until the next try of a task, until a trigger is taken over, by which an answer is late, and from
taking a worker for dead to its next try."""

Mode = Literal["worker", "deferrable", "ends in triggerer"]
IfRunning = Literal["submit", "wait", "attach", "fail"]
Beside = Literal["nothing", "busy before", "begins beside", "by hand"]
Fault = Literal[
    "surely unsent", "lost", "lost, taken", "arrives late", "503", "503, taken", "429", "html", "cut, taken",
    "400", "401", "404", "answered late",
]  # fmt: skip

TAKEN: tuple[Fault, ...] = ("lost, taken", "503, taken", "cut, taken", "answered late")
"""Faults of an answer whose request has its effect."""

Made = Mapping[str, ModuleType]
"""The modules with the rules of a life, by name."""

AS_IT_IS: Made = {"life": life, "shown": shown, "submission": submission, "verdict": verdict}


@dataclass(frozen=True)
class Plan:
    """A life as it will be.

    :ivar family: of which part of the exploration it is.
    :ivar lasts: there is a task state store (Airflow 3.3 and later).
    :ivar retries: of the task. :ivar after_clear: how many it has after it was cleared.
    :ivar outcomes: how the executions that the API is asked for go; the last one stands for all to come.
    :ivar log_lag: seconds by which the log is late; with ``log_at_end`` it shows only what has ended.
    :ivar beside: what somebody else runs in the same job.
    :ivar deaths: at which points a process dies.
    :ivar faults: number of a request, or ``"POST"`` for the first of these -> what happens to it.
    :ivar store_fails: which access to the task state store fails, from 1 on.
    :ivar clear: ``"at the end"``, or at which point the task is cleared.
    :ivar taken_for_dead: at which point Airflow gives a worker up that works on.
    :ivar twin: after how many seconds another task begins to ask for the same job; ``None`` for none.
    """

    family: str
    mode: Mode = "worker"
    if_running: IfRunning = "submit"
    wait: bool = True
    lasts: bool = True
    retries: int = 5
    after_clear: int = 5
    outcomes: tuple[Outcome, ...] = ("succeeded",)
    duration: float = 40.0
    log_lag: float = 0.0
    log_at_end: bool = False
    beside: Beside = "nothing"
    deaths: tuple[int, ...] = ()
    faults: tuple[tuple[int | Literal["POST"], Fault], ...] = ()
    store_fails: int | None = None
    clear: int | Literal["at the end"] | None = None
    taken_for_dead: int | None = None
    twin: float | None = None
    dialect: str = "documented"


class Died(BaseException):
    """The process is gone."""


class Cleared(BaseException):
    """Airflow ends the process, as somebody has cleared the task."""


class Deferred(BaseException):
    """The task goes on in the triggerer."""

    def __init__(self, run: Any, limits: Any, shown: Any) -> None:
        super().__init__()
        self.run = run
        self.limits = limits
        self.shown = shown


@types.coroutine
def until(moment: float) -> Generator[float, None, None]:
    """Let time pass."""
    yield moment


@cache
def vocabulary_of(dialect: str) -> Vocabulary:
    """Return the vocabulary that a connection to an API in this dialect has."""
    return Vocabulary.of(_dialect(dialect).extra.get("vocabulary", {}))


@cache
def _dialect(name: str) -> Dialect:
    return DIALECTS[name] if name in DIALECTS else SAMPLE[name]


SAMPLE: Mapping[str, Dialect] = {
    "id on entries, filter by entries": Dialect(trigger_id_on="entries", filters="entries"),
    "no filter, braces": Dialect(filters="nothing", ids="braces"),
    "filter 404, exact upper ids": Dialect(filters="404", ids="upper", exact_ids=True),
    "ended only, newest first": Dialect(unfinished="hidden", order="newest"),
    "state before the end": Dialect(unfinished_state="succeeded", no_time="year 1"),
    "empty is 404": Dialect(empty="404", hand_ids="absent"),
    "naive times": Dialect(times="naive", message_on="entries"),
}
"""Dialects beside the named ones."""


@dataclass
class Log:
    """A task's log, of all its tries: what was warned of, and which lines of TimeXtender's it shows."""

    warnings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def warning(self, text: str, *values: object, exc_info: bool = False) -> None:
        self.warnings.append(text % values if values else text)

    def info(self, text: str, *values: object) -> None:
        """Write nothing."""

    def log(self, level: int, text: str, *values: object) -> None:
        if text.startswith("TimeXtender: "):
            self.lines.append("".join(map(str, values)))
        elif level >= logging.WARNING:
            self.warning(text, *values)


class Universe:
    """All that there is, as a plan has it.

    :ivar clock: seconds since 1970. :ivar points: the names of the points that were passed.
    :ivar requests: how many were sent, and ``posts`` how many of them were to queue the job.
    :ivar endless: it would go on for ever.
    :ivar owners: trigger id -> the task that has asked for that execution, ``tries`` -> its try's number.
    """

    def __init__(self, plan: Plan, made: Made = AS_IT_IS) -> None:
        random.seed(repr(plan))
        self.plan = plan
        self.made = made
        self.clock = BEGINNING
        self.points: list[str] = []
        self.requests = self.posts = self.accesses = 0
        self.owners: dict[str, Airflow] = {}
        self.tries: dict[str, int] = {}
        self.job = Job(
            "load",
            duration=plan.duration,
            pickup=8.0,
            outcome=plan.outcomes[-1],
            outcomes=list(plan.outcomes),
            log_lag=plan.log_lag,
            log_at_end=plan.log_at_end,
            lines=1,
        )
        self.world = World([self.job])
        self.dialect = _dialect(plan.dialect)
        self._numbers = itertools.count(1)
        self.endless = True
        self._waking: list[tuple[float, int, Coroutine[Any, Any, None]]] = []
        put_beside = {"busy before": "schedule", "by hand": "hand"}.get(plan.beside)
        if put_beside is not None:
            self.put(put_beside, self.clock - 15)
        self.task = Airflow(self, fragile=True)
        self.tasks = [self.task]
        if plan.twin is not None:
            self.tasks.append(Airflow(self, fragile=False, after=plan.twin))

    def put(self, by: Any, at: float, outcome: Outcome = "succeeded") -> None:
        """Let somebody else start the job."""
        other = replace(self.job, outcome=outcome, outcomes=[], duration=30.0)
        self.world.queue(other, at, by=by, trigger_id=self._new_id())

    def _new_id(self) -> str:
        return f"00000000-0000-0000-0000-{next(self._numbers):012x}"

    def spawn(self, process: Coroutine[Any, Any, None], at: float) -> None:
        """Begin a process."""
        heapq.heappush(self._waking, (at, next(self._numbers), process))

    def run(self) -> None:
        """Let all happen that will."""
        for _ in range(MOST_STEPS):
            if not self._waking:
                self.endless = False
                return
            at, _, process = heapq.heappop(self._waking)
            self.clock = max(self.clock, at)
            try:
                wakes_at = process.send(None)
            except StopIteration:
                continue
            self.spawn(process, wakes_at)

    # --- the API ---

    async def exchange(self, call: Call[Any], point: Callable[[str], None], owner: Airflow) -> Any:
        """Carry a call there, and its answer back."""
        self.requests += 1
        is_post = call.method == "POST"
        self.posts += is_post
        faults = dict(self.plan.faults)
        fault = faults.get("POST") if is_post and self.posts == 1 else faults.get(self.requests)
        point(f"before {call.method} {call.subject}")
        if is_post:
            owner.asked.append(self.clock)
        await until(self.clock + WAY)
        if fault == "surely unsent":
            raise errors.Unreachable("no connection", sent=False)
        if fault == "arrives late" and is_post:
            self.spawn(self._later(call, owner, owner.tries.number), self.clock + LATE)
        carried = fault is None or fault in TAKEN
        if carried and not is_post:
            found = self._look(call)
        elif carried:
            found = self._queue(call, owner, owner.tries.number)
        point("arrived")
        await until(self.clock + (LATE if fault == "answered late" else WAY))
        if fault in ("lost", "lost, taken", "arrives late"):
            raise errors.Unreachable("the connection broke")
        point("answered")
        if fault is None or fault == "answered late":
            return found
        status = 200 if fault in ("html", "cut, taken") else int(fault[:3])
        headers = {"retry-after": "30"} if status == 429 else {}
        return self._read(call, status, b"<html>", headers)

    def _read(self, call: Call[Any], status: int, body: bytes, headers: Mapping[str, str]) -> Any:
        answer = Answer(f"{call.method} {call.path}", status, headers, body)
        return read(call, answer, vocabulary_of(self.plan.dialect))

    def _understand(self, call: Call[Any], reply: Reply) -> Any:
        return self._read(call, reply.status, json.dumps(reply.data).encode(), {})

    async def _later(self, call: Call[Any], owner: Airflow, number: int) -> None:
        self._queue(call, owner, number)

    def _queue(self, call: Call[Any], owner: Airflow, number: int) -> Any:
        execution = self.world.queue(self.job, self.clock, trigger_id=self._new_id())
        self.owners[execution.trigger_id] = owner
        self.tries[execution.trigger_id] = number
        if self.plan.beside == "begins beside" and self.posts == 1:
            self.put("schedule", self.clock + 0.01, outcome="failed")
        return self._understand(call, self.dialect.write_receipt(execution))

    def _look(self, call: Call[Any]) -> Any:
        """Answer a GET; what it says is read once, as long as nothing of it changes."""
        now = self.clock
        logged = self.clock - self.job.log_lag
        seen = tuple(
            (
                e.trigger_id,
                e.started,
                e.ended,
                e.state(now),
                e.state(logged),
                sum(line.at <= logged for line in e.lines),
            )
            for e in self.world.executions
        )
        # Of the same log, each that waits keeps the lines of its own execution.
        kept = (call.keep.trigger_id, call.keep.since) if isinstance(call.keep, LastLines) else call.keep
        key = (self.plan.dialect, call.path, call.parse.__qualname__, kept, self.job.log_at_end, seen)
        if key not in _LOOKS:
            if len(_LOOKS) > MOST_LOOKS:
                _LOOKS.clear()
            _LOOKS[key] = self._understand(call, self._serve(call.path))
        found = _LOOKS[key]
        return list(found) if isinstance(found, list) else found

    def _serve(self, path: str) -> Reply:
        _, _, _, *rest = path.split("/")
        job, now, dialect = self.job, self.clock, self.dialect
        if not rest:
            return dialect.write_jobs([job])
        if rest[1] == "status":
            return dialect.write_status(job, self.world.status(job, now))
        log = self.world.log(job, now)
        return dialect.write_log(job, log, now - job.log_lag, rest[2] if len(rest) > 2 else None)


MOST_STEPS, MOST_LOOKS = 20_000, 20_000
"""After how many steps a life counts as endless, and how many answers are remembered."""

_LOOKS: dict[Any, Any] = {}


@dataclass
class Ended:
    """How a task ended, before it was cleared or for good.

    :ivar error: the class of what was raised, ``"died"`` for a death without another try; empty for success.
    :ivar result: the trigger id that was returned. :ivar xcom: the one that other tasks see.
    """

    at: float
    error: str = ""
    message: str = ""
    result: str | None = None
    xcom: str | None = None


class Airflow:
    """What Airflow does with one task: its tries, its store, its XComs and its trigger.

    :param fragile: whether what the plan lets happen at points happens to this task.
    :ivar ended: how it ended. :ivar began: when each of its tries did.
    :ivar cleared: when it was, and at which stage its submission was then.
    :ivar errors: how many tries have ended with one, and not with a death.
    :ivar foreign: errors that are none of the package's.
    :ivar asked: when it has sent a request for the job.
    :ivar told: when it has told other tasks of which execution.
    :ivar shown: what the store keeps of the lines that the log shows, and an XCom of this try.
    """

    def __init__(self, universe: Universe, *, fragile: bool, after: float = 0.0) -> None:
        self.universe = universe
        self.plan = universe.plan
        self.fragile = fragile
        self.tries = universe.made["submission"].Tries(1, self.plan.retries, self.plan.retries)
        self.stored: str | None = None
        self.shown: dict[str, Any] = {}
        self.xcom: str | None = None
        self.log = Log()
        self.ended: list[Ended] = []
        self.began: list[float] = []
        self.cleared: list[tuple[float, str | None]] = []
        self.told: list[tuple[float, str]] = []
        self.asked: list[float] = []
        self.foreign: list[str] = []
        self.errors = self.heeded = 0
        self._start(0, universe.clock + after)

    # --- tries ---

    def _start(self, more: int, at: float, *, cleared: bool = False) -> None:
        """Begin the first or another try."""
        tries = replace(self.tries, number=self.tries.number + more)
        if cleared:
            retries = self.plan.after_clear
            tries = replace(tries, most=tries.number - 1 + retries, retries=retries, clears=tries.clears + 1)
            stage = json.loads(self.stored)["stage"] if self.stored else None
            self.cleared.append((at, stage))
        self.tries = tries
        self.began.append(at)
        self.xcom = None
        self.shown.pop("xcom", None)
        if cleared:
            self.shown.clear()
        self._go_on(at)

    def _go_on(self, at: float, event: Any = ...) -> None:
        self.heeded += 1
        if "xcom" in self.shown and self.plan.lasts:  # as a worker does first when it resumes a task
            self.shown["store"] = self.shown["xcom"]
        self.universe.spawn(self._work(self.heeded, event), at)

    async def _work(self, process: int, event: Any) -> None:
        """Do what a worker does, as the operator does it."""
        one = self.universe.made["life"].Life(self._task, _OnWorker(self, process))
        try:
            result = await (one.live() if event is ... else one.resume(event))
        except Died:
            how: Any = Ended(self.universe.clock, "died")
        except Cleared:
            self._start(1, self.universe.clock + RETRY_DELAY, cleared=True)
            return
        except Deferred as deferred:
            how = deferred
        except Exception as error:  # noqa: BLE001 - as Airflow does
            how = self._failed(one, error, process)
        else:
            how = Ended(self.universe.clock, result=folded(result))
        if process != self.heeded:
            return  # Airflow has given this worker up
        if isinstance(how, Deferred):
            self._defer(how)
        else:
            self._end(how)

    def _failed(self, one: Any, error: Exception, process: int) -> Ended:
        """Return how a try has failed, as ``no_vain_retry`` and ``ExecuteJobOperator`` tell it to Airflow."""
        expected = (errors.TimeXtenderError, OSError)  # that of a store that fails
        if not isinstance(error, expected):
            self.foreign.append(f"{type(error).__name__}: {error}")
        retries = getattr(error, "retry_helps", True)
        if one.trigger_id is not None and not isinstance(error, errors.JobError):
            retries = retries and self.plan.lasts and not isinstance(error, errors.WaitTimeout)
            error = type(error)(f"Stopped waiting (trigger id {one.trigger_id}): {error}")
        ended = Ended(self.universe.clock, type(error).__name__, str(error))
        if not retries and process == self.heeded:
            self.tries = replace(self.tries, most=min(self.tries.most, self.tries.number - 1))
        return ended

    def _end(self, ended: Ended) -> None:
        self.heeded += 1
        self.errors += ended.error not in ("", "died")
        if ended.error and self.tries.number <= self.tries.most:
            self._start(1, self.universe.clock + RETRY_DELAY)
            return
        self.ended.append(replace(ended, xcom=self.xcom))
        if self.fragile and self.plan.clear == "at the end" and not self.cleared:
            self._start(1, self.universe.clock + RETRY_DELAY, cleared=True)

    def point(self, process: int, name: str) -> None:
        """Let happen what is to happen here."""
        if not self.fragile:
            return
        plan, points = self.plan, self.universe.points
        points.append(name)
        if len(points) in plan.deaths:
            raise Died(name)
        if process != self.heeded:
            return
        if len(points) == plan.clear:
            raise Cleared(name)
        if len(points) == plan.taken_for_dead and self.tries.number <= self.tries.most:
            self._start(1, self.universe.clock + UNTIL_BESIDE)

    def _task(self) -> Any:
        return self.universe.made["life"].Task(
            job=Of(job_name="load"),
            wait=self.plan.wait,
            if_running=self.plan.if_running,
            interval=INTERVAL,
            timeout=TIMEOUT,
            start_timeout=START_TIMEOUT,
            max_unreachable=MAX_UNREACHABLE,
            began=_time(self.began[-1]),
            since=_time(BEGINNING),
        )

    # --- the triggerer ---

    def _defer(self, deferred: Deferred) -> None:
        self.heeded += 1
        self.universe.spawn(self._wait_in_triggerer(self.heeded, deferred), self.universe.clock + WAY)

    async def _wait_in_triggerer(self, process: int, deferred: Deferred) -> None:
        """Do what a trigger does; dead, it is taken over by another triggerer."""
        made = self.universe.made
        asked, moved = deferred.run, False
        while True:
            resumed = asked.resumed or asked.active_at is not None or moved
            run = made["verdict"].Run(
                asked.job_id, asked.trigger_id, asked.asked_at, START_TIMEOUT, resumed=resumed
            )
            world = _InTriggerer(self, process, deferred.limits.end, deferred.shown)
            try:
                wait = made["life"].Wait(world, run, deferred.limits, looked=True, just=True)
                event = await wait.outcome()
            except Died:
                moved = True
                await until(self.universe.clock + TAKEOVER)
                continue
            except Cleared:
                self._start(1, self.universe.clock + RETRY_DELAY, cleared=True)
                return
            except errors.TimeXtenderError as error:
                event = made["verdict"].event_of(error)
            break
        if process != self.heeded:
            return
        ends = self.plan.mode == "ends in triggerer" and run.trigger_id is not None and "error" not in event
        if ends:
            self._end(Ended(self.universe.clock, result=folded(event["trigger_id"])))
        else:
            self._go_on(self.universe.clock + WAY, json.loads(json.dumps(event)))


class _Place:
    """Where a process runs, as far as that is the same for all."""

    longest_pause = 30.0
    every = 2
    hands_over = False

    def __init__(self, task: Airflow, process: int, shown: Any, keeper: Any) -> None:
        self.log = task.log
        self.memory = task.universe.made["shown"].Memory(task.log, shown, keeper)
        self.understood: set[str] = set()
        self._task = task
        self._process = process
        self._universe = task.universe

    def point(self, name: str) -> None:
        self._task.point(self._process, name)

    def now(self) -> datetime:
        return _time(self._universe.clock)

    async def send(self, call: Call[Any]) -> Any:
        found = await self._universe.exchange(call, self.point, self._task)
        self.understood.add(call.subject)
        return found

    async def jobs(self) -> Any:
        return await self.send(list_jobs())

    async def status(self, job_id: str) -> tuple[JobStatus, datetime]:
        at = self.now()
        return await self.send(job_status(job_id)), at

    async def sleep(self, seconds: float) -> None:
        await until(self._universe.clock + seconds)
        self.point("slept" if seconds else LINES_SHOWN)

    async def rest(self, run: Any, limits: Any) -> None:
        await self.sleep(min(limits.interval, limits.left(self.now())))

    def renew(self) -> None:
        self.point("renew")

    def show(self, run: Any, seen: Any) -> None:
        self.point("show")


class _Keeper:
    """Keeps what the log shows, in the task state store or in an XCom."""

    def __init__(self, task: Airflow, process: int, where: str) -> None:
        self._task = task
        self._process = process
        self._where = where

    async def get(self) -> Any:
        return self._task.shown.get(self._where)

    async def set(self, value: Any) -> None:
        self._task.point(self._process, LINES_SHOWN)
        self._task.shown[self._where] = json.loads(json.dumps(value))


LINES_SHOWN = "lines shown"
"""The point at which lines are in the log, and nothing has kept yet that they are."""


class _OnWorker(_Place):
    """A worker's world."""

    def __init__(self, task: Airflow, process: int) -> None:
        keeper = _Keeper(task, process, "store") if task.plan.lasts else None
        super().__init__(task, process, task.universe.made["shown"].NOTHING, keeper)
        self.hands_over = task.plan.mode != "worker"
        self.lasts = task.plan.lasts
        self.tries = task.tries

    async def rest(self, run: Any, limits: Any) -> None:
        if self.hands_over:
            self.point("defer")
            raise Deferred(run, limits, await self.memory.recall(canonical(str(run.trigger_id))))
        await super().rest(run, limits)

    def recall(self) -> Any:
        if not self.lasts:
            return None
        self._access("recall")
        stored = self._task.stored
        return (
            None if stored is None else self._universe.made["submission"].Record.from_dict(json.loads(stored))
        )

    def keep(self, record: Any) -> None:
        if not self.lasts:
            return
        self._access("keep" if record else "forget")
        self._task.stored = None if record is None else json.dumps(record.to_dict())
        self.point("kept")

    def show_name(self, of: Named) -> None:
        """Show nothing."""

    def tell(self, of: Named) -> None:
        assert of.trigger_id is not None
        self.point("tell")
        self._task.told.append((self._universe.clock, folded(of.trigger_id)))
        if self._process == self._task.heeded:
            self._task.xcom = folded(of.trigger_id)
        self.point("told")

    def _access(self, what: str) -> None:
        self.point(what)
        if self._task.fragile:
            self._universe.accesses += 1
            if self._universe.accesses == self._task.plan.store_fails:
                raise OSError("the task state store is not at hand")


class _InTriggerer(_Place):
    """The triggerer's world, in which the next snapshot of the poll is a request of one's own."""

    longest_pause = INTERVAL
    every = 3

    def __init__(self, task: Airflow, process: int, end: datetime, known: Any) -> None:
        keeper = _Keeper(task, process, "xcom") if task.plan.lasts else None
        super().__init__(task, process, known, keeper)
        self._end = end

    async def send(self, call: Call[Any]) -> Any:
        assert call.method == "GET", "a trigger only reads"
        return await super().send(call)

    async def sleep(self, seconds: float) -> None:
        if seconds:
            await super().sleep(min(seconds + INTERVAL, max(0.0, (self._end - self.now()).total_seconds())))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def execution_of(universe: Universe, trigger_id: str | None) -> Execution | None:
    """Return an execution by its trigger id in lower case."""
    found = (e for e in universe.world.executions if e.trigger_id == trigger_id)
    return next(found, None)
