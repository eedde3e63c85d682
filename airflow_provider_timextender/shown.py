"""What of an execution's log stands in the task's log already: each line is shown once, as it comes.

A log grows at its end, as a rule, so that a number of entries tells what is new. A mark of each entry that is
shown is kept beside that number. Where a log does not begin with these, say because it has the newest first,
each of its entries is compared with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from airflow_provider_timextender.logs import RELAY_LIMIT, warn_of_problems, write
from airflow_provider_timextender.model import AsDict, Execution, Log, checksum
from airflow_provider_timextender.naming import Of, said

SHOWN_KEY = "timextender_shown"
"""Where a task's state store, and an XCom that only a trigger writes, keep it."""

_MARK = len(checksum(""))
"""How many characters the mark of an entry has."""


@dataclass(frozen=True)
class Shown(AsDict):
    """How much of an execution's log a task's log shows.

    :ivar key: the execution's. :ivar count: how many of its entries have been shown or left out.
    :ivar marks: the marks of those that were shown, one after the other, of the last thousand.
    """

    key: str = ""
    count: int = 0
    marks: str = ""

    @classmethod
    def from_dict(cls, stored: Any) -> Self:
        """Return what :meth:`~AsDict.to_dict` stored; of anything else, that nothing has been shown."""
        try:
            return cls(str(stored["key"]), int(stored["count"]), str(stored["marks"]))
        except (KeyError, TypeError, ValueError):
            return cls()

    @property
    def room(self) -> int:
        """How many lines may still be shown while the execution runs."""
        return RELAY_LIMIT - len(self.marks) // _MARK

    def missing(self, execution: Execution) -> Sequence[Log]:
        """Return the entries that have not been shown."""
        marks = [_mark(entry) for entry in execution.logs]
        known = self.count - (execution.log_count - len(marks))
        if 0 <= known <= len(marks) and self.marks.endswith("".join(marks[:known])):
            return execution.logs[known:]
        left = Counter(self.marks[at : at + _MARK] for at in range(0, len(self.marks), _MARK))
        missing = []
        for entry, mark in zip(execution.logs, marks, strict=True):
            if left[mark]:
                left[mark] -= 1
            else:
                missing.append(entry)
        return missing

    def after(self, entries: Sequence[Log], *, left_out: int) -> Shown:
        """Return what is shown when some more entries are."""
        marks = self.marks + "".join(map(_mark, entries))
        return Shown(self.key, self.count + left_out + len(entries), marks[-RELAY_LIMIT * _MARK :])


NOTHING = Shown()
"""What is shown in the beginning."""


def _mark(entry: Log) -> str:
    return checksum(f"{entry.time} {entry.severity} {len(entry.message)} {entry.message[:1000]}")


class Keeper(Protocol):
    """What keeps it for longer than a process lives."""

    async def get(self) -> Any:
        """Return what was set last, ``None`` for nothing."""

    async def set(self, value: dict[str, Any]) -> None:
        """Keep plain JSON."""


class Memory:
    """Knows what a task's log shows; trouble with whatever keeps it is a warning.

    :param shown: what is known before anybody is asked; ``None`` if nothing is.
    :param keeper: what is asked, once and when it matters, and told of everything.
    """

    def __init__(self, log: Any, shown: Shown | None = NOTHING, keeper: Keeper | None = None) -> None:
        self._log = log
        # By the execution's key; empty while nobody has told anything, not even that nothing is shown.
        self._known = {} if shown is None else {shown.key: shown}
        self._keeper = keeper
        self._asked = False

    async def recall(self, key: str) -> Shown | None:
        """Return what is shown of an execution; ``None`` if nobody knows: then wait for the end."""
        if self._keeper is not None and not self._asked:
            self._asked = True
            try:
                kept = Shown.from_dict(await self._keeper.get())
                # It may be older than what is known: a triggerer that was given up may work on.
                self._known[kept.key] = max(self._known.get(kept.key, kept), kept, key=lambda one: one.count)
            except Exception as error:  # noqa: BLE001 - whatever Airflow has kept it in
                self._bear(error, "Lines may be shown again, as nobody tells which were")
        return self._known.get(key, Shown(key)) if self._known else None

    async def keep(self, shown: Shown) -> None:
        """Remember it."""
        self._known = {shown.key: shown}
        if self._keeper is not None:
            try:
                await self._keeper.set(shown.to_dict())
            except Exception as error:  # noqa: BLE001
                self._bear(error, "Could not keep which lines were shown")

    def _bear(self, error: Exception, what: str) -> None:
        self._log.warning("%s", what, exc_info=True)
        if isinstance(error, TimeoutError):
            self._keeper = None  # the wait is held up for as long each time, and may be late for its end


class Shows(Protocol):
    """What has a task's log.

    :ivar log: the log itself. :ivar memory: what it shows.
    """

    log: Any
    memory: Memory

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""


async def show_new(place: Shows, execution: Execution, job_name: str | None) -> None:
    """Show what has come to the log of an execution that runs: a thousand lines at most until it is over."""
    shown = await place.memory.recall(execution.key)
    missing = shown.missing(execution) if shown is not None and shown.room else ()
    if shown is None or not missing:
        return
    of = Of(execution.job_id, job_name, execution.trigger_id)
    if not shown.count:
        place.log.info("%s", said("its log follows as it comes.", of))
    left_out = max(0, execution.log_count - shown.count - len(missing))
    shown = await _show(place, shown, missing[: shown.room], left_out)
    if not shown.room:
        place.log.info("%s", said("so many lines are shown while it runs; the last follow at its end.", of))


async def show_rest(place: Shows, execution: Execution, job_name: str | None) -> None:
    """Show how an execution ended, and of its log what has not been shown: the last thousand lines."""
    shown = await place.memory.recall(execution.key) or Shown(execution.key)
    missing = shown.missing(execution)[-RELAY_LIMIT:]
    left_out = max(0, execution.log_count - shown.count - len(missing))
    state = execution.state.value if execution.state else "over"
    rest = missing or left_out
    if not shown.count:
        log = "and its log follows."
    else:
        log = "and the rest of its log follows." if rest else "and its log has been shown."
    of = Of(execution.job_id, job_name, execution.trigger_id)
    place.log.info("%s", said(f"the execution {state}, {log}", of))
    warn_of_problems(execution, place.log, set())
    if rest:
        await _show(place, shown, missing, left_out)


async def _show(place: Shows, shown: Shown, entries: Sequence[Log], left_out: int) -> Shown:
    for _ in write(entries, left_out + len(entries), place.log):
        await place.sleep(0)  # the triggerer has others to do something for
    shown = shown.after(entries, left_out=left_out)
    await place.memory.keep(shown)
    return shown
