"""What became of random lives, written so that the lives of two versions of the package can be compared.

``python -m tests.processes.chaos --histories FILE`` and ``python -m tests.processes.dialects --histories
FILE`` write a line of JSON for each life; ``python -m tests.processes.histories BEFORE AFTER`` tells in what
two such files differ. Ids, times and what else is different each time are replaced by names, as far as that
can be: the lives take real time, and with it some of them take another course.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from airflow_provider_timextender.simulator import BLANK_TRIGGER_ID, Execution, Simulator

ID = re.compile(r"\{?\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b\}?", re.IGNORECASE)

VARIES = (
    (re.compile(r"https?://127\.0\.0\.1:\d+"), "<url>"),
    (re.compile(r"(?:host='?|port=|ssl:)?127\.0\.0\.1'?(?:, port=|:)\d+"), "<host>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"/Date\(\d+\)/|\b\d{13}\b|\b\d{10}\b"), "<time>"),
    (re.compile(r"\b(?:\d+ h \d+ min|\d+ min \d+ s|\d+(?:\.\d+)? s)\b"), "<long>"),
    (re.compile(r"\b0x[0-9a-f]+\b"), "<address>"),
)
"""What makes two equal texts differ, and what stands for it."""

MEASURED = ("start", "end", "duration", "since")
"""Members of a result whose values are measured."""

SAID = re.compile(r"\[(?:WARNING|ERROR|CRITICAL)\] (.*)", re.DOTALL)


# --- writing ---


def name_the_same(simulator: Simulator, seed: int) -> None:
    """Give executions the same trigger ids each time that a life is lived."""
    chance, queue = Random(f"ids of {seed}"), simulator.world.queue

    def queue_named(*args: Any, trigger_id: str | None = None, **kwargs: Any) -> Execution:
        named = trigger_id or str(uuid.UUID(int=chance.getrandbits(128), version=4))
        return queue(*args, trigger_id=named, **kwargs)

    simulator.world.queue = queue_named  # type: ignore[method-assign]


class Names:
    """Stands names for what is different in each run of a life."""

    def __init__(self, simulator: Simulator) -> None:
        self._names = {job.id: f"<job {job.name}>" for job in simulator.world.jobs.values()}
        numbers = {by: count(1) for by in ("api", "schedule", "hand")}
        for execution in simulator.world.executions:
            by = "ours" if execution.by == "api" else execution.by
            self._names.setdefault(execution.trigger_id, f"<{by} {next(numbers[execution.by])}>")
        self._names[BLANK_TRIGGER_ID] = "<blank>"

    def of(self, value: Any) -> Any:
        """Return the same in plain JSON, with names in it."""
        if isinstance(value, str):
            return self._of_text(value)
        if isinstance(value, Mapping):
            return {str(key): self._of_member(str(key), member) for key, member in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of(member) for member in value]
        return value

    def _of_member(self, key: str, value: Any) -> Any:
        return f"<{key}>" if key in MEASURED and value is not None else self.of(value)

    def _of_text(self, text: str) -> str:
        text = ID.sub(lambda found: self._names.get(found[0].strip("{}").lower(), "<guid>"), text)
        for pattern, name in VARIES:
            text = pattern.sub(name, text)
        return text


def drawn(value: Any) -> Any:
    """Return in plain JSON what was drawn by lot, without what is as usual."""
    if is_dataclass(value) and not isinstance(value, type):
        return drawn({f.name: getattr(value, f.name) for f in fields(value) if not _is_usual(value, f)})
    if isinstance(value, Mapping):
        return {str(key): drawn(member) for key, member in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return [drawn(member) for member in value] if isinstance(value, (list, tuple)) else value


def _is_usual(value: Any, one: Field[Any]) -> bool:
    usual = one.default if one.default_factory is MISSING else one.default_factory()
    return bool(getattr(value, one.name) == usual)


def what_happened(simulator: Simulator, tries: Sequence[float]) -> dict[str, Any]:
    """Return what TimeXtender has seen: in which tries it was asked for executions, and which there were.

    :param tries: when each began.
    """
    names = Names(simulator)
    asked = [request.at for request in simulator.requests if request.route == "execute"]
    return {
        "posts": [sum(began <= at for began in tries) for at in asked],
        "executions": [
            f"{names.of(execution.trigger_id)} {execution.outcome}"
            for execution in simulator.world.executions
        ],
    }


def stage_of(record: Any) -> Any:
    """Return as what a record of a submission ends, ``None`` if there is none."""
    return record and {name: record.get(name) for name in ("stage", "trigger_id")}


def warnings(lines: Iterable[str]) -> list[str]:
    """Return each warning of a log once."""
    return sorted({found[1] for line in lines if (found := SAID.search(line))})


def write(path: Path, histories: Iterable[Mapping[str, Any]]) -> None:
    """Write a line for each life."""
    lines = (json.dumps(history, sort_keys=True) + "\n" for history in histories)
    path.write_text("".join(lines), encoding="utf-8")


# --- comparing ---


def read(path: Path, only: Sequence[str] | None = None) -> dict[int, dict[str, Any]]:
    """Return the lives of a file by their seeds; of what became of them, the ends and some kinds only."""
    lives = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if only:
        kept = {"seed", "drawn", "timed", "ends", *only}
        lives = [{kind: life[kind] for kind in life.keys() & kept} for life in lives]
    return {life["seed"]: life for life in lives}


def ends_of(life: Mapping[str, Any]) -> str:
    """Return how a life has ended, but for the words."""
    return ", ".join(end["error"] or end.get("state", "success") for end in life["ends"]) or "nothing"


def kinds_of(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return in what two histories of a life differ."""
    kinds = [kind for kind in sorted(one.keys() | other.keys()) if one.get(kind) != other.get(kind)]
    return ["drawn"] if "drawn" in kinds else kinds  # which is another life then


def compare(before: Mapping[int, Any], after: Mapping[int, Any], *, shown: int) -> list[str]:
    """Return in what the lives differ, the kinds of differences first."""
    differ = {seed: kinds_of(before[seed], after[seed]) for seed in sorted(before.keys() & after.keys())}
    untimed = [kinds for seed, kinds in differ.items() if not before[seed].get("timed")]
    lines = [
        f"{len(differ)} lives in both, {sum(map(bool, differ.values()))} differ",
        f"{len(untimed)} of them without anything at a numbered moment, {sum(map(bool, untimed))} differ",
    ]
    for kind, number in Counter(kind for kinds in differ.values() for kind in kinds).most_common():
        where = [str(seed) for seed, kinds in differ.items() if kind in kinds]
        lines.append(f"{number:5} differ in {kind}: {' '.join(where)}")
    ways = Counter((ends_of(before[s]), ends_of(after[s])) for s, kinds in differ.items() if "ends" in kinds)
    lines += [f"{number:5} x {one}  ->  {other}" for (one, other), number in ways.most_common()]
    for seed in [seed for seed, kinds in differ.items() if kinds][:shown]:
        lines += ["", f"seed {seed}", *_show(differ[seed], before[seed], after[seed])]
    return lines


def _show(kinds: Iterable[str], one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[str]:
    for kind in kinds:
        yield f"  {kind}"
        yield f"    - {json.dumps(one.get(kind), sort_keys=True)}"
        yield f"    + {json.dumps(other.get(kind), sort_keys=True)}"


def summary(before: Mapping[int, Any], after: Mapping[int, Any]) -> list[str]:
    """Return how many lives have ended how in either, which says more where lives take another course."""
    one, other = (Counter(map(ends_of, lives.values())) for lives in (before, after))
    order = sorted(one | other, key=lambda end: -(one[end] + other[end]))
    return [f"{one[end]:5} {other[end]:5}  {end}" for end in order]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.processes.histories", description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--show", type=int, default=0, metavar="N", help="show the first N that differ")
    parser.add_argument("--only", nargs="*", metavar="KIND", help="compare no other kinds, such as ends")
    arguments = parser.parse_args()
    before, after = (read(path, arguments.only) for path in (arguments.before, arguments.after))
    print(*compare(before, after, shown=arguments.show), "", *summary(before, after), sep="\n")
    return int(before != after)


if __name__ == "__main__":
    sys.exit(main())
