"""Each line of an execution's log is shown once, however the log grows and whoever shows it."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_timextender.life import run_through
from airflow_provider_timextender.logs import RELAY_LIMIT
from airflow_provider_timextender.model import Execution, ExecutionState, Log
from airflow_provider_timextender.shown import Memory, Shown, show_new, show_rest

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
JOB, TRIGGER = "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "3f2504e0-4f89-11d3-9a0c-0305e82c3302"


@dataclass
class Kept:
    """What outlives a process."""

    value: str = "null"
    broken: bool = False
    asked: int = 0

    async def get(self) -> Any:
        self.asked += 1
        if self.broken:
            raise OSError("no space")
        return json.loads(self.value)

    async def set(self, value: dict[str, Any]) -> None:
        if self.broken:
            raise OSError("no space")
        self.value = json.dumps(value)


@dataclass
class Place:
    """A process that writes to a task's log."""

    log: Any
    keeper: Kept | None = None
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = Memory(self.log, keeper=self.keeper)

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""

    def show(self, *logs: Log, over: bool = False) -> None:
        state = ExecutionState.SUCCEEDED if over else ExecutionState.RUNNING
        run_through((show_rest if over else show_new)(self, execution(logs, state), "load"))


def execution(logs: Sequence[Log], state: ExecutionState = ExecutionState.RUNNING) -> Execution:
    counts = Counter(entry.severity for entry in logs)
    return Execution(JOB, TRIGGER, state, logs=tuple(logs)[-RELAY_LIMIT:], log_counts=counts)


def entries(*texts: object) -> list[Log]:
    return [Log(None, "info", str(text), None) for text in texts]


@pytest.fixture
def place(caplog: pytest.LogCaptureFixture) -> Place:
    caplog.set_level(logging.INFO)
    return Place(logging.getLogger("tests.task"))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [m.removeprefix("TimeXtender: ") for m in caplog.messages if m.startswith("TimeXtender: ")]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what is said about the lines."""
    texts = (m for m in caplog.messages if not m.startswith("TimeXtender: "))
    return [text.removeprefix("TimeXtender job 'load': ").partition(" (job id")[0] for text in texts]


def test_r31_r32_lines_are_shown_once_as_they_come(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.show()
    assert told(caplog) == []
    place.show(*entries("a", "a"))
    place.show(*entries("a", "a"))
    place.show(*entries("a", "a", "b", "a"))
    assert lines(caplog) == ["a", "a", "b", "a"]
    place.show(*entries("a", "a", "b", "a", "c"), over=True)
    assert lines(caplog) == ["a", "a", "b", "a", "c"]
    assert told(caplog) == [
        "its log follows as it comes.",
        "the execution succeeded, and the rest of its log follows.",
    ]


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (0, "the execution succeeded, and its log follows."),
        (2, "the execution succeeded, and its log has been shown."),
    ],
)
def test_the_end_says_what_is_left_of_the_log(
    place: Place, caplog: pytest.LogCaptureFixture, before: int, says: str
) -> None:
    place.show(*entries("a", "b")[:before])
    place.show(*entries("a", "b"), over=True)
    assert lines(caplog) == ["a", "b"]
    assert told(caplog)[-1] == says


texts = st.sampled_from(["a", "b", "c"])
growth = st.lists(st.lists(texts, max_size=4), min_size=1, max_size=6)


@given(growth, st.sampled_from(["oldest first", "newest first", "shuffled"]), st.randoms())
def test_r32_no_order_hides_a_line_or_shows_it_twice(
    batches: list[list[str]], order: str, chance: random.Random
) -> None:
    shown, log = Shown("k"), list[Log]()
    seen = Counter[Log]()
    for number, batch in enumerate(batches):
        # What comes at the same time looks the same; what is said twice is there twice.
        log = [*log, *(replace(entry, time=NOON + timedelta(seconds=number)) for entry in entries(*batch))]
        answer = log[::-1] if order == "newest first" else list(log)
        if order == "shuffled":
            chance.shuffle(answer)
        missing = shown.missing(execution(answer))
        shown = Shown.from_dict(json.loads(json.dumps(shown.after(missing, left_out=0).to_dict())))
        seen.update(missing)
    assert seen == Counter(log)


def test_r32_a_log_that_is_cut_once_is_not_shown_again(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    for logs in (["a", "b"], [], ["b"], ["a", "b", "c"]):
        place.show(*entries(*logs))
    place.show(*entries("x", "a", "b", "c", "d"), over=True)
    assert sorted(lines(caplog)) == ["a", "b", "c", "d", "x"]


def test_r32_r34_a_long_log_shows_its_first_part_and_its_last(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    log = entries(*range(3 * RELAY_LIMIT + 5))
    for count in (RELAY_LIMIT - 1, RELAY_LIMIT + 1, 2 * RELAY_LIMIT):
        place.show(*log[:count])
    assert lines(caplog) == [str(number) for number in range(RELAY_LIMIT)]
    assert told(caplog)[-1].startswith("so many lines are shown while it runs")
    place.show(*log, over=True)
    assert lines(caplog)[RELAY_LIMIT:] == [str(n) for n in range(2 * RELAY_LIMIT + 5, 3 * RELAY_LIMIT + 5)]
    left_out = f"{RELAY_LIMIT + 5} of {2 * RELAY_LIMIT + 5} log lines are left out here"
    assert any(message.startswith(left_out) for message in caplog.messages)


@pytest.mark.parametrize("more", [5, RELAY_LIMIT + 5])
def test_r32_of_a_long_log_with_the_newest_first_the_newest_are_shown_at_the_end(
    place: Place, caplog: pytest.LogCaptureFixture, more: int
) -> None:
    log = entries(*range(RELAY_LIMIT + more, 0, -1))
    place.show(*log[more:])
    over = replace(execution(log, ExecutionState.SUCCEEDED), logs=tuple(log[:RELAY_LIMIT]))
    run_through(show_rest(place, over, "load"))
    assert lines(caplog)[RELAY_LIMIT:] == [entry.message for entry in log[: min(more, RELAY_LIMIT)]]
    assert "the execution succeeded, and the rest of its log follows." in told(caplog)
    assert (f"5 of {more} log lines are left out here" in caplog.text) == (more > RELAY_LIMIT)


def test_r32_who_takes_over_shows_only_what_is_new(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    keeper, log = Kept(), logging.getLogger("tests.task")
    Place(log, keeper).show(*entries("a", "b"))
    assert "a" not in json.loads(keeper.value)["marks"], "R34: nothing of the log is kept"
    second = Place(log, keeper)
    second.show(*entries("a", "b", "c"))
    second.show(*entries("a", "b", "c", "d"))
    Place(log, keeper).show(*entries("a", "b", "c", "d"), over=True)
    assert lines(caplog) == ["a", "b", "c", "d"]
    assert keeper.asked == 3, "each asks once"


@pytest.mark.parametrize(
    "value", ["7", '{"key": "k"}', '{"key": "k", "count": "x", "marks": ""}', '{"count": 1}']
)
def test_r32_what_is_not_understood_hides_nothing(caplog: pytest.LogCaptureFixture, value: str) -> None:
    caplog.set_level(logging.INFO)
    Place(logging.getLogger("tests.task"), Kept(value)).show(*entries("a"), over=True)
    assert lines(caplog) == ["a"]


def test_r32_a_keeper_that_fails_hides_nothing_and_doubles_nothing_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    place = Place(logging.getLogger("tests.task"), Kept(broken=True))
    place.show(*entries("a"))
    place.show(*entries("a", "b"), over=True)
    assert lines(caplog) == ["a", "b"]
    assert "Lines may be shown again" in caplog.text
    assert "Could not keep which lines were shown" in caplog.text


@pytest.mark.parametrize("fails", ["get", "set"])
def test_r32_a_keeper_that_holds_up_the_wait_is_left_alone(
    caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    caplog.set_level(logging.INFO)
    asked: list[str] = []

    class Slow(Kept):
        async def get(self) -> Any:
            asked.append("get")
            if fails == "get":
                raise TimeoutError

        async def set(self, value: dict[str, Any]) -> None:
            asked.append("set")
            raise TimeoutError

    place = Place(logging.getLogger("tests.task"), Slow())
    place.show(*entries("a"))
    place.show(*entries("a", "b"))
    place.show(*entries("a", "b", "c"), over=True)
    assert lines(caplog) == ["a", "b", "c"]
    assert asked == ["get", "set"][: 1 + (fails == "set")]


def test_another_executions_log_begins_anew(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.show(*entries("a"))
    other = replace(execution(entries("a")), trigger_id=JOB)
    run_through(show_new(place, other, "load"))
    assert lines(caplog) == ["a", "a"]


def test_where_nothing_can_be_kept_all_is_shown_at_the_end(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.memory = Memory(place.log, None)
    place.show(*entries("a"))
    assert not caplog.messages
    place.show(*entries("a", "b"), over=True)
    assert lines(caplog) == ["a", "b"]
