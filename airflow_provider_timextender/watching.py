"""The watcher of an asset: it tells each execution that ends, whoever started it, and tells it once.

One poll reads the logs, job by job, for all watchers of the same jobs (:meth:`JobFinishedTrigger._watch`).
Each of them sorts out what is news to it (:class:`Told`), tells one execution, and remembers it when Airflow
has stored the event. Only then does the poll go on, so that no more than one log is in memory.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, NamedTuple

from airflow.providers.common.compat.triggers import BaseEventTrigger
from airflow.triggers.base import TriggerEvent

from airflow_provider_timextender import errors, jobs_api, model
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.inputs import to_seconds
from airflow_provider_timextender.naming import Named, Of, said
from airflow_provider_timextender.polling import Poll, Snapshot, every, shared_poll
from airflow_provider_timextender.verdict import LOG_LAG, may_have_ended, rest_of, result

CLASS_PATH = "airflow_provider_timextender.triggers.JobFinishedTrigger"
"""Under which name Airflow has stored this trigger since 0.1.0."""

SPACING = 5.0
"""Seconds between two events of a watcher: for events that come closer together Airflow starts one run only,
and may show it the first of them only."""

STORE_KEY = "timextender_told"
"""Where an asset's state store keeps what has been told."""

LATE = 6 * 3600.0
"""Seconds by which an execution may have ended before the newest known one of its job, and still be news."""

MAX_KNOWN = 800
"""How many executions a watcher remembers, the newest ones: with the times of 500 jobs that takes less than
48 KB, and Airflow wants less than 64 KB."""

AHEAD = timedelta(days=1)
"""By how much a server's clock may be ahead, in whatever zone; a later end is none, as it would make history
of all others."""


# --- what is remembered: the only clock in it is the server's ---


class End(NamedTuple):
    """An execution that has ended.

    :ivar moment: when, in seconds since 1970 by the server's clock; its start if no end is known, else 0.
    :ivar name: what tells it from the others of its job, in eight characters.
    """

    moment: float
    name: str
    execution: model.Execution


def ends_of(executions: Sequence[model.Execution], now: datetime) -> list[End]:
    """Return what has ended, oldest first."""
    ends = {}
    for execution in executions:
        if execution.is_over:
            time = execution.end or execution.start
            moment = max(0.0, time.timestamp()) if time and time < now + AHEAD else 0.0
            name = model.checksum(_name(execution))
            ends[name] = End(moment, name, execution)
    return sorted(ends.values(), key=lambda end: end.moment)


def _name(execution: model.Execution) -> str:
    if execution.trigger_id is not None and not execution.by_hand:
        return model.canonical(execution.trigger_id)
    # Executions that were started by hand all carry the same id.
    times: tuple[object, object] = (execution.start, execution.end)
    if times == (None, None):
        times = (execution.start_problem, execution.end_problem)
    return f"{model.canonical(execution.job_id)} {times[0]} {times[1]}"


class Seen(NamedTuple):
    """What one read of a job's log shows.

    :ivar ends: what has ended, oldest first.
    :ivar times: why a time of it is not understood; ``None`` if all are.
    :ivar state: why it is not known of an execution whether it has ended; ``None`` if it is of all.
    """

    ends: Sequence[End]
    times: str | None
    state: str | None


def seen_of(job_id: str, etag: str | None) -> jobs_api.Call[jobs_api.Known[Seen] | None]:
    """Ask what a job's log shows; a long one is sorted where it is parsed, off the event loop.

    :param etag: of what it has shown before, which need not be sent again: then there is nothing.
    """
    log = jobs_api.executions_so_far(job_id)

    def parse(parser: Any, json: Any) -> Seen:
        executions = log.parse(parser, json)
        times = filter(None, (e.end_problem or e.start_problem for e in executions))
        states = (e.problem for e in executions if e.state is None and not e.is_over)
        now = datetime.now(timezone.utc)
        return Seen(ends_of(executions, now), next(times, None), next(states, None))

    seen = jobs_api.Call(log.method, log.path, log.subject, parse, limit=log.limit)
    return jobs_api.unless(jobs_api.known(seen), etag)


@dataclass(frozen=True)
class Known:
    """Which ended executions of one job are no news.

    :ivar floor: what ended before is history, and if it is not 0, also what has no time.
    :ivar ends: name -> moment of those that ended since :attr:`since`, or that have no time.
    """

    floor: float = 0.0
    ends: Mapping[str, float] = field(default_factory=dict)

    @property
    def since(self) -> float:
        """From when on an end can be news."""
        return max(self.floor, max(self.ends.values(), default=0.0) - LATE)

    def news(self, ends: Sequence[End]) -> list[End]:
        """Return those that are not known."""
        since = self.since
        young = (end for end in ends if end.moment >= (since if end.moment else self.floor))
        return [end for end in young if end.name not in self.ends]

    def plus(self, ends: Sequence[End]) -> Known:
        """Return what is known with more; what is history by then needs no name any more."""
        more = Known(self.floor, {**self.ends, **{end.name: end.moment for end in ends}})
        since = more.since
        return replace(more, ends={n: moment for n, moment in more.ends.items() if not 0 < moment < since})

    def after(self, moment: float) -> Known:
        """Return what is known if all that ended up to a moment is history."""
        floor = max(self.floor, math.nextafter(moment, math.inf))
        return Known(floor, {name: end for name, end in self.ends.items() if end > moment})


ANY = "*"
"""Stands for all jobs without an entry of their own, in what 0.1.0 has stored."""


@dataclass(frozen=True)
class Told:
    """What a watcher remembers: of each job what is known, by the checksum of its id."""

    jobs: Mapping[str, Known] = field(default_factory=dict)

    def knows(self, job_id: str) -> bool:
        """Tell whether it is known what is history in a job's log."""
        return not self.jobs.keys().isdisjoint((_job(job_id), ANY))

    def begun(self, job_id: str, ends: Sequence[End]) -> Told:
        """Return the memory after a look at a job's log: what the first one shows is history."""
        if _job(job_id) in self.jobs:
            return self
        known = self.jobs.get(ANY)
        if known is None:
            return self._with(job_id, Known().plus(ends))
        moment = {name: end for name, end in known.ends.items() if name == ANY}
        # What has no time 0.1.0 has neither told nor remembered.
        history = [end for end in ends if end.name in known.ends or not end.moment]
        return self._with(job_id, Known(known.floor, moment).plus(history))

    def news(self, job_id: str, ends: Sequence[End]) -> list[End]:
        """Return what has ended and was not told, oldest first."""
        return self.jobs[_job(job_id)].news(ends)

    def hides(self, job_id: str, ends: Sequence[End]) -> bool:
        """Tell whether executions are passed over as they have no time and there are too many to remember."""
        return self.jobs[_job(job_id)].floor > 0 and any(not end.moment for end in ends)

    def and_told(self, job_id: str, end: End) -> Told:
        """Return the memory when one more has been told."""
        return self._with(job_id, self.jobs[_job(job_id)].plus([end]))

    def _with(self, job_id: str, known: Known) -> Told:
        jobs = {**self.jobs, _job(job_id): known}
        surplus = sum(len(known.ends) for known in jobs.values()) - MAX_KNOWN
        if surplus > 0:
            oldest = sorted((end, job) for job, known in jobs.items() for end in known.ends.values())
            for job, moment in {job: end for end, job in oldest[:surplus]}.items():
                jobs[job] = jobs[job].after(moment)
        return Told(jobs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"jobs": {job: [known.floor, dict(known.ends)] for job, known in self.jobs.items()}}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Told:
        """Return what :meth:`to_dict` stored, or what 0.1.0 did: one memory for all jobs."""
        if "since" not in stored:
            return cls({job: Known(floor, ends) for job, (floor, ends) in stored["jobs"].items()})
        ends = {model.checksum(name): _seconds(end) for name, end in stored["ends"].items()}
        # As if one had been told that makes history of all before that moment.
        return cls({ANY: Known(0.0, {**ends, ANY: _seconds(stored["since"]) + LATE})})


def _job(job_id: str) -> str:
    return model.checksum(model.canonical(job_id))


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


# --- the poll that all watchers of the same jobs share ---


@dataclass(eq=False)
class Found:
    """What one read of a job's log shows as ended, on its way to the watchers.

    :ivar job_id: ``None`` if nothing was read, and a watcher only gets the time to tell one more.
    :ivar job_name: ``None`` if it is not known.
    :ivar ends: all that has ended. :ivar early: the names of those that may be said to have ended too early.
    :ivar running: the one of these that a busy job is probably busy with.
    :ivar healed: the log could not be read before.
    :ivar newcomer: it is the first that a watcher gets: for that one all logs are to be read.
    :ivar more: a watcher has more to tell. :ivar when_stored: what is to be done when its event is stored.
    :ivar passed: all watchers are done with it.
    """

    job_id: str | None = None
    ends: Sequence[End] = ()
    early: frozenset[str] = frozenset()
    running: str | None = None
    healed: bool = False
    job_name: str | None = None
    newcomer: bool = False
    more: bool = False
    when_stored: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    passed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Turn:
    """When a job's log is read, in the time of the event loop.

    :ivar state: what the job did at the last look. :ivar due: from when on its log is to be read.
    :ivar size: how many bytes its log had; 0 if it could not be read.
    :ivar etag: what the server calls it, if it does, and nothing in it may mean something else later.
    :ivar settles: when it is no longer late with what has ended by the last change of the status.
    :ivar rests_until: before then it is not read, whatever the job does.
    :ivar trouble: why it could not be read, as far as that has been said.
    :ivar said: what has been said of what it shows.
    :ivar endless: the names of what it showed as over without an end, while the job was idle.
    """

    state: model.JobState | None = None
    due: float = -math.inf
    settles: float = -math.inf
    size: int = 0
    etag: str | None = None
    rests_until: float = -math.inf
    trouble: str = ""
    said: set[str] = field(default_factory=set)
    endless: frozenset[str] = frozenset()

    def see(self, state: model.JobState | None, now: float) -> None:
        """Take note of what the job does now: its log is to be read if an execution may have ended."""
        if self.due == -math.inf or may_have_ended(self.state, state):
            self.due, self.settles = now, now + LOG_LAG
        self.state = state

    def has_come(self, now: float) -> bool:
        """Tell whether the log is to be read now."""
        return now >= max(self.due, self.rests_until)

    def rest(self, now: float, seconds: float) -> None:
        """Let the log alone for so many seconds, about: until it is no longer late, at most."""
        # Those that are read together now are not to come together again.
        due = now + seconds * random.uniform(0.5, 1.5)
        self.due = min(due, self.settles) if self.settles > now else due


def _due(
    turns: dict[str, Turn], jobs: Mapping[str, model.JobStatus | None], now: float
) -> list[tuple[str, int]]:
    """Return the jobs whose logs are to be read, those first of which one may have ended.

    :return: their ids, each with how many jobs are idle as it is, or are not.
    """
    states = {job_id: status.state if status else None for job_id, status in jobs.items()}
    sharers = Counter(state is model.JobState.IDLE for state in states.values())
    for job_id, state in states.items():
        turns.setdefault(job_id, Turn()).see(state, now)
    due = [job_id for job_id in states if turns[job_id].has_come(now)]
    due.sort(key=lambda job_id: turns[job_id].due, reverse=True)
    return [(job_id, sharers[states[job_id] is model.JobState.IDLE]) for job_id in due]


@asynccontextmanager
async def _noticing(poll: Poll, turns: Mapping[str, Turn]) -> AsyncIterator[None]:
    """Take note of what the jobs do at every look of the poll.

    What is found may take minutes to be told, and what begins and ends meanwhile shows in no later look.
    """
    clock = asyncio.get_running_loop().time

    async def notice() -> None:
        while True:
            snapshot = await poll.next()
            for status in () if snapshot.problem else snapshot.statuses.values():
                if status.job_id in turns:
                    turns[status.job_id].see(status.state, clock())

    noticing = asyncio.create_task(notice())
    try:
        yield
    finally:
        noticing.cancel()
        with suppress(asyncio.CancelledError):
            await noticing


Backlog = dict[tuple[str, str], tuple[End, str | None]]
"""What is to be told: the job's id and the name of the end, with that end and the job's name."""


class JobFinishedTrigger(BaseEventTrigger):
    """Fires for each execution that finishes, whoever started it: for an asset's watcher (Airflow 3).

    The event, which a DAG finds as ``payload`` in the extra of the asset's event, is ``{"job_id", "job_name",
    "trigger_id", "state", "start", "end", "duration", "message", "problem"}`` with times in ISO 8601 and UTC
    and the duration in seconds. ``state`` is ``"succeeded"``, ``"failed"``, or ``None`` if the API's word is
    in no table, and then ``problem`` says so; ``message`` is TimeXtender's own. The trigger id is the blank
    guid for an execution that was started by hand, and ``job_name`` is ``None`` if it could not be had.

    On Airflow 3.3 and later the executions that have been told are remembered with the asset, and only after
    Airflow has stored the event: a restart loses none, and tells one twice if it happens within the second
    or two in between, or if the memory could not be stored. On older versions the trigger begins anew with
    each restart.

    :param job_ids: the jobs to watch. :param job_names: the same by exact name. Neither stands for all jobs.
    :param states: the ends to fire for, for example ``["succeeded"]``; ``None`` for any.
    :param timextender_conn_id: the Airflow connection.
    :param poll_interval: seconds between two looks at the status of all jobs. A job's log is read when its
        status says that an execution may have ended, and in turn, the larger the logs the less often, so that
        what begins and ends between two looks is found as well.
    """

    asset_state_store: Any = None
    """Set by Airflow 3.3 and later."""

    def __init__(
        self,
        *,
        job_ids: Sequence[str] | None = None,
        job_names: Sequence[str] | None = None,
        states: Sequence[str] | None = None,
        timextender_conn_id: str = TimeXtenderHook.default_conn_name,
        poll_interval: float = 60,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.job_ids = [model.guid(job_id, "job id") for job_id in job_ids] if job_ids else None
        self.job_names = list(job_names) if job_names else None
        if unknown := set(states or ()) - {"succeeded", "failed"}:
            raise errors.InvalidInput(f"states has {sorted(unknown)}; it takes 'succeeded' and 'failed'.")
        self.states = sorted(set(states)) if states else None
        self.timextender_conn_id = timextender_conn_id
        self.poll_interval = to_seconds(poll_interval, "poll_interval")
        self._named: list[str] | None = None if job_names else []
        self._names: dict[str, str | None] = {}
        self._hidden: set[str] = set()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores."""
        return CLASS_PATH, {
            "job_ids": self.job_ids,
            "job_names": self.job_names,
            "states": self.states,
            "timextender_conn_id": self.timextender_conn_id,
            "poll_interval": self.poll_interval,
        }

    def shared_stream_key(self) -> Hashable:
        """Tell with whom the poll is shared (Airflow 3.3 and later)."""
        jobs = (tuple(self.job_ids or ()), tuple(self.job_names or ()))
        return (CLASS_PATH, self.timextender_conn_id, self.poll_interval, jobs)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Any:
        """Return what polls, and hears when events have been stored (Airflow 3.3 and later)."""
        from airflow.triggers.shared_stream import SharedStreamProducer

        class Producer(SharedStreamProducer):
            async def open_stream(self) -> AsyncIterator[tuple[Found, Found]]:
                async with aclosing(cls(**kwargs)._watch()) as stream:
                    async for found in stream:
                        yield found, found
                        await found.passed.wait()

            async def advance(self, batch: Sequence[Any]) -> None:
                for item in batch:
                    if not item.outcome.failed:
                        for store in item.broker_payload.when_stored:
                            await store()
                    item.broker_payload.passed.set()

        return Producer()

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch with a poll of one's own, and without a memory (Airflow 3.0 to 3.2)."""
        async with aclosing(self._watch()) as stream:
            async for event in self.filter_shared_stream(stream):
                yield event

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Found]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each execution that has not been told yet, at most one for each thing found."""
        told = remembered = await self._recall()
        backlog: Backlog = {}
        clock = asyncio.get_running_loop().time
        last = -math.inf
        newcomer = True
        async for found in shared_stream:
            found.newcomer = found.newcomer or newcomer
            newcomer = False
            if found.job_id is not None:
                told = self._take(told, found.job_id, found, backlog)
            for (job_id, name), (end, job_name) in list(backlog.items()):
                event = result(end.execution, job_name)
                wanted = self.states is None or event["state"] in self.states
                if wanted:
                    await asyncio.sleep(max(0.0, last + SPACING - clock()))
                    last = clock()
                    yield TriggerEvent(event)
                told = told.and_told(job_id, end)
                del backlog[job_id, name]
                if wanted:
                    break
            found.more = found.more or bool(backlog)
            if told is not remembered:
                found.when_stored.append(partial(self._remember, told))
                remembered = told

    def _take(self, told: Told, job_id: str, found: Found, backlog: Backlog) -> Told:
        """Put what is news into the backlog."""
        of = Of(job_id, found.job_name)
        if found.healed and not told.knows(job_id):
            self._warn(of, "what ended before this look is not told.")
        told = told.begun(job_id, [end for end in found.ends if end.name != found.running])
        if told.hides(job_id, found.ends) and job_id not in self._hidden:
            self._hidden.add(job_id)
            self._warn(
                of,
                "its executions without a readable time are not told, as there are more of them than can be "
                "remembered.",
            )
        for end in told.news(job_id, [end for end in found.ends if end.name not in found.early]):
            backlog.setdefault((job_id, end.name), (end, found.job_name))
        return told

    def _warn(self, of: Named, text: str) -> None:
        self.log.warning("%s", said(text, of))

    async def _recall(self) -> Told:
        try:
            stored: Any = await self.asset_state_store.aget(STORE_KEY) if self.asset_state_store else None
        except ValueError as error:
            # Two assets with equal watchers share one trigger, and then there is no one place to remember.
            self.log.warning("Nothing is remembered over a restart: %s", error)
            self.asset_state_store = None
            stored = None
        return Told.from_dict(stored) if stored else Told()

    async def _remember(self, told: Told) -> None:
        if self.asset_state_store:
            try:
                await self.asset_state_store.aset(STORE_KEY, told.to_dict())
            except Exception:
                # The next time stores all of it; an exception would end the watch of all that share the poll.
                self.log.warning("What has been told could not be remembered", exc_info=True)

    async def _watch(self) -> AsyncGenerator[Found, None]:
        """Look for ever; a watcher that comes to those that there are sees each log as they did."""
        turns: dict[str, Turn] = {}
        begun = False
        async with aclosing(self._look(turns)) as looks:
            async for found in looks:
                yield found
                if found.newcomer and begun:
                    for turn in turns.values():
                        turn.due, turn.etag = -math.inf, None
                begun = True

    async def _look(self, turns: dict[str, Turn]) -> AsyncGenerator[Found, None]:
        """Read the logs whose turn has come, look for look."""
        clock = asyncio.get_running_loop().time
        warned = ""
        shared = shared_poll(self.timextender_conn_id, self.poll_interval)
        async with shared as poll, _noticing(poll, turns):
            while True:
                snapshot, found = await poll.next(), Found()
                jobs: Mapping[str, model.JobStatus | None] = {}
                problem = ""
                try:
                    jobs = await self._jobs(poll, snapshot)
                except errors.TimeXtenderError as error:
                    problem = str(error)
                if problem != warned:
                    warned = problem
                    self.log.warning("%s", warned or "The jobs can be looked at again.")
                least = every(len(jobs), self.poll_interval) * self.poll_interval
                for job_id, sharers in _due(turns, jobs, clock()):
                    turn = turns[job_id]
                    read = await self._read(poll, job_id, jobs[job_id], turn)
                    turn.rest(clock(), max(least, rest_of(turn.size, sharers)))
                    if read is not None:
                        found = read
                        found.job_name = await self._name_of(poll, job_id) if read.ends else None
                        yield found
                if found.job_id is None:
                    yield found  # as a watcher may have come, and is not to wait for a log
                while found.more:
                    found = Found()
                    yield found

    async def _jobs(self, poll: Poll, snapshot: Snapshot) -> dict[str, model.JobStatus | None]:
        """Return the jobs to look at, each with its status if there is one."""
        if snapshot.problem is not None:
            raise snapshot.problem
        if self._named is None:
            jobs = await poll.jobs()
            self._names |= {model.canonical(job.id): job.name for job in jobs}
            self._named = [model.find_job(jobs, name).id for name in self.job_names or ()]
        watched = [*(self.job_ids or ()), *self._named] or [s.job_id for s in snapshot.statuses.values()]
        by_id = {model.canonical(job_id): job_id for job_id in watched}
        found = ((job_id, snapshot.statuses.get(key)) for key, job_id in by_id.items())
        # Asked for as the API itself writes it, which may compare letter by letter.
        return {status.job_id if status else job_id: status for job_id, status in found}

    async def _name_of(self, poll: Poll, job_id: str) -> str | None:
        """Return a job's name; it is only for people, so that it is borne if the list cannot be had."""
        key = model.canonical(job_id)
        if key not in self._names:
            with suppress(errors.TimeXtenderError):
                names = {model.canonical(job.id): job.name for job in await poll.jobs()}
                self._names |= {key: None, **names}
        return self._names.get(key)

    async def _read(
        self, poll: Poll, job_id: str, status: model.JobStatus | None, turn: Turn
    ) -> Found | None:
        """Read one job's log; what is wrong with it keeps no other job from being told."""
        try:
            known = await poll.send(seen_of(job_id, turn.etag))
        except errors.TimeXtenderError as error:
            turn.size, turn.etag = 0, None
            return self._pass_over(job_id, status, error, turn)
        if known is None:
            return None
        seen, turn.size = known.said, known.size
        healed = bool(turn.trouble)
        of = Of(job_id, self._names.get(model.canonical(job_id)))
        if healed:
            self._warn(of, "its log can be read again.")
            turn.trouble = ""
        idle = status is None or status.state is model.JobState.IDLE
        # A state without an end may be set before the end: it counts when two looks at an idle job show it.
        endless = frozenset(end.name for end in seen.ends if end.execution.end is None)
        early = endless - turn.endless if idle else endless
        turn.endless = endless if idle else frozenset()
        turn.etag = None if endless or seen.state else known.etag
        candidates = (end.name for end in reversed(seen.ends) if end.name in endless)
        running = None if idle else next(candidates, None)
        unclear = status.problem if status else None
        problems = {
            "Its executions are told without.": seen.times,
            "What has no end is told when the job is idle.": unclear if early else None,
            "An execution of which this is all that is known is not told.": (
                seen.state if idle or unclear else None
            ),
        }
        for what, problem in problems.items():
            if problem and what not in turn.said:
                turn.said.add(what)
                self._warn(of, f"{problem} {what}")
        return Found(job_id, seen.ends, early, running, healed)

    def _pass_over(
        self, job_id: str, status: model.JobStatus | None, error: errors.TimeXtenderError, turn: Turn
    ) -> Found | None:
        """Say once why a log cannot be read, and let it rest for as long as the server has asked for."""
        too_large = isinstance(error, errors.AnswerTooLarge)
        rest = math.inf if too_large else error.retry_after or 0.0
        turn.rests_until = asyncio.get_running_loop().time() + rest
        again = str(error) == turn.trouble
        if not again:
            turn.trouble = str(error)
            until = "this watcher is started anew" if too_large else "its turn comes again"
            self._warn(
                Of(job_id, self._names.get(model.canonical(job_id))),
                "its log cannot be read, so that what has ended is not told. It is not asked for before "
                f"{until}. {error}",
            )
        # A single 404 may be a gateway's: taken for an empty log, it would make news of a whole history.
        # Twice, it stands for the log of a job that has never run.
        missing = isinstance(error, errors.Refused) and error.status == 404 and status is not None
        return Found(job_id, healed=True) if missing and again else None
