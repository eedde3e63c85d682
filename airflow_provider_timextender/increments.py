"""What the outputs of a task hold of a job's log, so that the next one holds only what is new.

An output is what one run of a task writes. What it holds of one job is an :class:`Increment`: a part of each
execution, from the lines that were out before to those that it adds. Increments are a chain, each run begins
where the newest of them ended, and a run that is repeated holds again what its own increment says. So no line
stands in two outputs, and none is left out between two, whatever is retried or cleared.

No clock decides: an execution is known by its key, its lines by their number. Times of the server only tell
which executions are so old that they need not be remembered.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

from airflow_provider_timextender.errors import InvalidInput, OutputRefused
from airflow_provider_timextender.model import Execution, Log, checksum

MOST = 400
"""How many ended executions of a job are remembered, those that ended last. Of older ones, what comes late is
not put out. With as many new ones in an output, an increment takes less than 48 KB."""

LASTING = 1000
"""How many executions of a job are remembered that cannot be forgotten by their age: those that have not
ended, those without any time, and all of a log that broke off. An output that needs more is refused, as rows
would be lost, or be in two outputs, so that an increment never takes more than 200 KB."""


class Extent(NamedTuple):
    """How much of an execution is out: so many of its lines, and its row once it has ended."""

    lines: int = 0
    row: bool = False


NOTHING = Extent()
NO_LINE = (0, "")


class Known(NamedTuple):
    """What is remembered of an execution.

    :ivar moment: when it ended, or began if no end is told, in seconds since 1970 by the server's clock; 0
        while its row is not out, and if neither is known.
    :ivar out: what is out with this output. :ivar before: what was out before it.
    :ivar last: the last line that a filter has kept of those that are out, with its checksum; line 0 if there
        is none, or it is not known.
    """

    moment: int
    out: Extent
    before: Extent = NOTHING
    last: tuple[int, str] = NO_LINE

    @property
    def last_before(self) -> tuple[int, str]:
        """The last line of those that were out before; it is not known if this output adds some."""
        return self.last if self.last[0] <= self.before.lines else NO_LINE


@dataclass
class Part:
    """What an output is to hold of an execution.

    :ivar before: how many of its lines are left out, and how many there are with those that are not.
    :ivar row: whether the execution's row is to be written.
    :ivar last: the last line that was to be written, of those that have been asked for.
    """

    before: int
    lines: float
    row: bool
    last: Log | None = field(default=None, compare=False)

    def takes(self, log: Log) -> bool:
        """Tell whether a line is to be written; asked for each that a filter keeps, in their order."""
        takes = self.before < (log.line or 0) <= self.lines
        if takes:
            self.last = log
        return takes


@dataclass(frozen=True)
class Increment:
    """What one output holds of one job, as it is remembered.

    :ivar run: the run of the task that has written it. :ivar where: the output's path.
    :ivar known: executions by the checksum of their key.
    :ivar floor: what ended before is out, unless :attr:`known` says more. :ivar floor_before: likewise, but
        before this output.
    :ivar whole: whether all executions of the job could be read.
    :ivar complete: whether it is known that the output could be seen.
    :ivar replaces: whether another output of this run could be seen there before.
    :ivar number: greater than those of all outputs before, whichever jobs they hold.
    """

    run: str
    where: str
    known: Mapping[str, Known] = field(default_factory=dict)
    floor: int = 0
    floor_before: int = 0
    whole: bool = True
    complete: bool = False
    replaces: bool = False
    number: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "known": {name: _listed(known) for name, known in self.known.items()}}

    @classmethod
    def from_dict(cls, stored: Any) -> Increment:
        """Return what :meth:`to_dict` has returned, in this release or an earlier one.

        :raises InvalidInput: if it is something else.
        """
        try:
            return cls(
                run=str(stored["run"]),
                where=str(stored["where"]),
                known={str(name): _known(known) for name, known in stored["known"].items()},
                floor=int(stored["floor"]),
                floor_before=int(stored["floor_before"]),
                whole=bool(stored["whole"]),
                complete=bool(stored["complete"]),
                replaces=bool(stored["replaces"]),
                number=int(stored["number"]),
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"what is remembered of its outputs is not understood ({type(error).__name__}: {error})."
            ) from None

    @property
    def lasting(self) -> list[Known]:
        """What cannot be forgotten by its age."""
        # What has not been read is no history, however old.
        return [one for one in self.known.values() if not (self.whole and one.moment)]

    def own(self) -> Increment:
        """Return no more than it takes to repeat this output."""
        kept = {name: one for name, one in self.known.items() if one.out != one.before}
        below = {name: one for name, one in self.known.items() if 0 < one.moment < self.floor}
        return replace(self, known=kept | below)

    def after(self) -> Start:
        """Return where the next output begins if this one could be seen."""
        known = {name: one._replace(before=one.out) for name, one in self.known.items()}
        return Start.of(known, self.floor) if self.whole else Start(known, self.floor)

    def instead(self) -> Start:
        """Return where the next output begins if this one never could be seen."""
        known = {
            name: Known(one.before.row * one.moment, one.before, one.before, one.last_before)
            for name, one in self.known.items()
            if one.before != NOTHING
        }
        return Start(known, self.floor_before)  # no more than where this one began


def _refuse_too_much(increment: Increment) -> None:
    lasting = increment.lasting
    if len(lasting) <= LASTING:
        return
    ended = sum(one.moment > 0 for one in lasting)
    told = (
        (ended, "have ended, and its log broke off: another try may come to the end of it"),
        (
            len(lasting) - ended,
            "show no end: if they never will, let state=['succeeded', 'failed'] leave such out; if they have "
            "ended, tell in the vocabulary of the connection's extra what execution.start, execution.end "
            "and execution.state are called",
        ),
    )
    raise OutputRefused(
        f"nothing is written, as {len(lasting)} executions would have to be remembered whatever their age, "
        f"and {LASTING} are the most. Of them, {'; '.join(f'{n} {what}' for n, what in told if n)}. If that "
        "cannot be mended, leave the job out.",
        retry_helps=not increment.whole,
    )


def _listed(known: Known) -> list[Any]:
    listed = [known.moment, known.out.lines, int(known.out.row), *known.last]
    return listed if known.out == known.before else [*listed, known.before.lines, int(known.before.row)]


def _known(stored: list[Any]) -> Known:
    moment, lines, row, line, mark, *before = stored
    out = Extent(int(lines), bool(row))
    return Known(
        int(moment),
        out,
        Extent(int(before[0]), bool(before[1])) if before else out,
        (int(line), str(mark)),
    )


class Start(NamedTuple):
    """Where an output begins."""

    known: Mapping[str, Known]
    floor: int

    @classmethod
    def of(cls, known: Mapping[str, Known], floor: int) -> Start:
        """Return a start that remembers no more than it may."""
        floor = max(floor, _floor(known))
        return cls({name: one for name, one in known.items() if not 0 < one.moment < floor}, floor)


def _floor(known: Mapping[str, Known]) -> int:
    """Return the moment before which executions are too old to be remembered; 0 if none is."""
    moments = sorted((one.moment for one in known.values() if one.moment), reverse=True)
    return moments[MOST - 1] + (moments[MOST] == moments[MOST - 1]) if len(moments) > MOST else 0


EVERYTHING = Part(0, math.inf, row=True)
"""All of an execution."""


class Reading(ABC):
    """What an output is to hold of a job, decided execution by execution as they are read."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def part(self, execution: Execution) -> Part | None:
        """Return what the output is to hold of an execution, ``None`` for nothing.

        The part is to be asked for its lines before there is a next one.
        """
        if not execution.key_stays:  # else its lines would be put out again, under another key
            return None
        name = checksum(execution.key)
        self._seen[name] += 1
        # Two that were started by hand in the same moment have the same key.
        return self._part(name if self._seen[name] == 1 else f"{name} {self._seen[name]}", execution)

    @abstractmethod
    def _part(self, name: str, execution: Execution) -> Part | None: ...


class Repeated(Reading):
    """An output that holds again what it held before.

    :ivar increment: what that was.
    """

    def __init__(self, increment: Increment) -> None:
        super().__init__()
        self.increment = increment
        self._missing = {name for name, one in increment.known.items() if one.out != one.before}

    @property
    def lacking(self) -> int:
        """How many executions the log does not show any more as far as they have been written."""
        return len(self._missing)

    def _part(self, name: str, execution: Execution) -> Part | None:
        increment = self.increment
        known = increment.known.get(name)
        if known is not None and execution.log_count >= known.out.lines:
            self._missing.discard(name)
        if known is None:
            if not max(1, increment.floor_before) <= _moment(execution) < increment.floor:
                return None
            return EVERYTHING
        if known.out == known.before:
            return None
        return Part(known.before.lines, known.out.lines, known.out.row and not known.before.row)


class New(Reading):
    """An output that holds what is new since a start.

    :ivar changed: how many executions are put out again as a whole, as earlier lines of their logs changed.
    """

    def __init__(self, start: Start) -> None:
        super().__init__()
        self.changed = 0
        self._start = start
        self._known = dict(start.known)
        self._part_of: tuple[str, Part] | None = None

    def _part(self, name: str, execution: Execution) -> Part | None:
        self._remember_last()
        self._part_of = None
        old = self._start.known.get(name)
        if old is None and 0 < _moment(execution) < self._start.floor:
            return None
        before, last = (old.out, old.last) if old else (NOTHING, NO_LINE)
        lines = execution.log_count
        # A state may be set before the end: without an end it counts if nothing has come since an output.
        ended = execution.end is not None or (old is not None and lines <= before.lines)
        row = before.row or (execution.is_over and ended)
        before = before._replace(lines=min(lines, before.lines))
        if lines > before.lines and last != NO_LINE:
            changed = last != _kept(execution, last[0])
            self.changed += changed
            # Before the last output the log may have shown less than is out, and shows it again.
            before = before._replace(lines=0 if changed else max(last[0], before.lines))
        out = Extent(lines, row)
        self._known[name] = Known(row * _moment(execution), out, before, last)
        if out == before:
            return None
        part = Part(before.lines, lines, row and not before.row)
        self._part_of = name, part
        return part

    def _remember_last(self) -> None:
        """Remember the last line of the newest part; not the line itself, which may be long."""
        if self._part_of is not None:
            name, part = self._part_of
            if part.last is not None:
                self._known[name] = self._known[name]._replace(last=_with_checksum(part.last))

    def increment(
        self, run: str, where: str, *, whole: bool, replaces: bool, instead: bool = False
    ) -> Increment | None:
        """Return what is to be remembered of the output, ``None`` if it holds nothing of this job.

        :param whole: whether all executions of the job have been read.
        :param instead: it stands for one that this run was to hold, so that it is to be remembered anyway.
        """
        self._remember_last()
        if not instead and all(one.out == one.before for one in self._known.values()):
            return None
        new = {name: one for name, one in self._known.items() if name not in self._start.known}
        floor = max(self._start.floor, _floor(new)) if whole else self._start.floor
        known = {n: one for n, one in self._known.items() if n not in new or not 0 < one.moment < floor}
        return Increment(run, where, known, floor, self._start.floor, whole=whole, replaces=replaces)


def _moment(execution: Execution) -> int:
    """Return when an execution ended, or began if no end is told; 0 while it runs or if neither is known."""
    time = execution.end or execution.start
    return int(time.timestamp()) if time is not None and execution.is_over else 0


def _kept(execution: Execution, line: int) -> tuple[int, str]:
    """Return a line as it is now, with its checksum, if a filter keeps it."""
    log = next((log for log in execution.logs if (log.line or 0) >= line), None)
    return NO_LINE if log is None else _with_checksum(log)


def _with_checksum(log: Log) -> tuple[int, str]:
    return log.line or 0, checksum(f"{log.time} {log.severity} {log.message}")


Seen = Literal["all", "a part", "nothing"]
"""What can be seen of an output: it may be of several files, the last of which is seen last."""


class Memory(Protocol):
    """Where increments are kept, as plain JSON.

    :ivar owns: whether those of each run are kept beside the newest of all.
    """

    @property
    def owns(self) -> bool: ...  # noqa: D102

    def place(self, job_id: str) -> str:
        """Return where the newest of a job is kept, for people."""

    def newest(self, job_id: str) -> Any:
        """Return the newest increment of a job, whichever run has written it; ``None`` if there is none."""

    def own(self, job_id: str) -> Any:
        """Return the increment of a job that this run has written; ``None`` if none is kept."""

    def forget_own(self, job_id: str) -> None:
        """Forget the increment of a job that this run has written."""

    def keep(self, job_id: str, newest: Any, own: Any) -> None:
        """Keep an increment of a job as the newest, and then as this run's own.

        In this order: of what is a run's own, it must be certain that it was the newest.
        """


class Ledger:
    """Tells for each job what an output is to hold, and remembers it once the output is complete.

    :param run: the run of the task, as ``run_id`` or, mapped, ``run_id[index]``.
    :param where: the output's path. :param seen: tells what can be seen of an output at a path.
    """

    def __init__(self, memory: Memory, run: str, where: str, seen: Callable[[str], Seen]) -> None:
        self._memory = memory
        self._run = run
        self._where = where
        self._seen = seen
        self._replaces = seen(where) == "all"
        self._mine = 0
        self._others = 0
        self._began: dict[str, str] = {}
        self._kept: dict[str, str] = {}

    @property
    def repeats(self) -> bool:
        """Whether the output is one that this run has written before, or was about to."""
        return self._mine > 0

    def reading(self, job_id: str) -> Reading:
        """Return what tells of each execution of a job what the output is to hold of it.

        :raises OutputRefused: if that cannot be told.
        """
        newest = self._recall(job_id, self._memory.newest(job_id))
        own = self._recall(job_id, self._memory.own(job_id))
        self._began[job_id] = newest.run if newest else ""
        if newest is not None and newest.run == self._run:
            self._mine = max(self._mine, newest.number)
            return Repeated(newest) if newest.whole and self._could_be_seen(newest) else New(newest.instead())
        if own is not None and self._could_be_seen(own):
            self._mine = max(self._mine, own.number)
            return Repeated(own)
        start = self._after(newest) if newest else Start({}, 0)
        self._others = max(self._others, newest.number if newest else 0)
        if own is not None:  # it never could be seen, and others have put out what it was to hold
            self._memory.forget_own(job_id)
        return New(start)

    def _could_be_seen(self, increment: Increment) -> bool:
        return increment.complete or self._seen(increment.where) == "all"

    def _recall(self, job_id: str, stored: Any) -> Increment | None:
        try:
            return None if stored is None else Increment.from_dict(stored)
        except InvalidInput as error:
            raise OutputRefused(
                f"{error} It is kept as {self._memory.place(job_id)}. Delete it to begin anew, with all that "
                "the job's log shows."
            ) from None

    def _after(self, newest: Increment) -> Start:
        if newest.run.partition("[")[0] == self._run.partition("[")[0]:
            raise OutputRefused(
                f"two mapped instances of this task go through the same job: {newest.run} and {self._run}. "
                "What is new is kept for each task and job: use two tasks, or one instance for each job."
            )
        if newest.complete:
            return newest.after()
        seen = self._seen(newest.where)
        if seen == "a part" or (seen == "all" and newest.replaces):
            raise OutputRefused(
                f"the run {newest.run} was about to complete its output {newest.where}, and it is not known "
                "how far it has come. Clear its task first: it writes that output again."
            )
        return newest.after() if seen == "all" else newest.instead()

    def add(self, job_id: str, reading: Reading, *, whole: bool) -> None:
        """Take note of what the output holds of a job, before it is complete.

        :param whole: whether all executions of the job have been read.
        :raises OutputRefused: if it holds less than the output that it would replace, or if more would have
            to be remembered than :data:`LASTING`.
        """
        if isinstance(reading, Repeated) and whole and self._replaces and reading.lacking:
            raise OutputRefused(
                f"the job's log shows {reading.lacking} executions no more, or not all of their lines, that "
                f"are in {self._where}. It stays as it is, as they would be lost."
            )
        held: Increment | None = None
        if isinstance(reading, New):
            instead = self._began[job_id] == self._run
            held = reading.increment(
                self._run, self._where, whole=whole, replaces=self._replaces, instead=instead
            )
        elif isinstance(reading, Repeated) and self._began[job_id] == self._run:
            held = reading.increment
        if held is not None and not held.complete:
            _refuse_too_much(held)
            self._kept[job_id] = json.dumps(held.to_dict())  # which takes a tenth of the memory

    def about_to_complete(self) -> None:
        """Keep what the output will hold: another try will write the same.

        :raises OutputRefused: if there is another output at its path, or if another run has put something
            out meanwhile.
        """
        # Without a memory of its own, a run knows no more of jobs of which others have put out more.
        if self._replaces and (not self._mine or (not self._memory.owns and self._others > self._mine)):
            raise OutputRefused(
                f"there is an output at {self._where} already, which is not known to be of this run. An "
                "incremental output never replaces that of another run, whose rows would be lost: let "
                "output_path differ for each run, as with {{ run_id }}. If it is of this run, and others "
                "have followed, it stays as it is."
            )
        for job_id in self._kept:
            newest = self._recall(job_id, self._memory.newest(job_id))
            if (newest.run if newest else "") != self._began[job_id]:
                raise OutputRefused(
                    f"{newest.run if newest else 'Somebody'} has changed what counts as put out while "
                    f"{self._run} was reading, so that rows would be put out twice. Another try begins anew "
                    "after that; with max_active_tis_per_dag=1 runs do not meet.",
                    retry_helps=True,
                )
            self._keep(job_id, complete=False)

    def completed(self) -> None:
        """Remember that the output can be seen."""
        for job_id in self._kept:
            self._keep(job_id, complete=True)

    def _keep(self, job_id: str, *, complete: bool) -> None:
        held = Increment.from_dict(json.loads(self._kept[job_id]))
        number = held.number or max(self._mine, self._others) + 1
        increment = replace(held, complete=complete, number=number)
        self._memory.keep(job_id, increment.to_dict(), increment.own().to_dict())
