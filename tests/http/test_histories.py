"""Whether the histories of two lives are equal if the lives are, and are told apart if not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_timextender.simulator import BLANK_TRIGGER_ID, Job, Simulator

from ..processes import histories


@contextmanager
def simulator(seed: int = 1) -> Iterator[Simulator]:
    with Simulator([Job("load")]) as one:
        histories.name_the_same(one, seed)
        one.world.queue(one.job("load"), 0.0)
        one.run("load")
        one.run("load", by="hand")
        one.world.queue(one.job("load"), 0.0)
        yield one


def ids_of(seed: int) -> list[str]:
    with simulator(seed) as one:
        return [e.trigger_id for e in one.world.executions if e.by != "hand"]


def test_executions_have_the_same_ids_each_time() -> None:
    first, again, other = ids_of(1), ids_of(1), ids_of(2)
    assert first == again
    assert len({*first, *other}) == 6


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("{ours} and {other}, {blank}", "<ours 2> and <schedule 1>, <blank>"),
        ("{{{upper}}}", "<ours 2>"),
        ("of {job} 11111111-1111-1111-1111-111111111111", "of <job load> <guid>"),
        ("GET http://127.0.0.1:4711/public/jobs: host 127.0.0.1:4711", "GET <url>/public/jobs: host <host>"),
        ("HTTPPool(host='127.0.0.1', port=4711)", "HTTPPool(<host>)"),
        ("idle for 1.9 s, 2 h 0 min, 3 min 20 s", "idle for <long>, <long>, <long>"),
        ("at 2026-01-01T10:00:00.123456+00:00, 2026-01-01 10:00:00Z", "at <time>, <time>"),
        ("/Date(1767261600000)/ 1767261600 HTTP 503, 16 KiB", "<time> <time> HTTP 503, 16 KiB"),
        ("<object at 0x7f00aa>", "<object at <address>>"),
    ],
)
def test_what_varies_has_a_name(text: str, plain: str) -> None:
    with simulator() as one:
        ids = [e.trigger_id for e in one.world.executions]
        text = text.format(
            ours=ids[3], other=ids[1], blank=BLANK_TRIGGER_ID, upper=ids[3].upper(), job=one.job("load").id
        )
        assert histories.Names(one).of({"a": [text]}) == {"a": [plain]}


def test_what_is_measured_has_a_name() -> None:
    result = {"state": "succeeded", "start": "x", "end": None, "duration": 0.3}
    named = {"state": "succeeded", "start": "<start>", "end": None, "duration": "<duration>"}
    with simulator() as one:
        assert histories.Names(one).of(result) == named


def test_what_is_drawn_is_written_without_what_is_usual() -> None:
    @dataclass
    class Inner:
        kind: str
        usual: int = 3
        words: dict[str, str] = field(default_factory=dict)

    assert histories.drawn({"a": (Inner("x"), Inner("y", 4)), "b": frozenset({2, 1})}) == {
        "a": [{"kind": "x"}, {"kind": "y", "usual": 4}],
        "b": [1, 2],
    }


def test_what_happened_is_told_by_try() -> None:
    with simulator() as one:
        happened = histories.what_happened(one, [])
    assert happened == {
        "posts": [],
        "executions": [
            "<ours 1> succeeded",
            "<schedule 1> succeeded",
            "<blank> succeeded",
            "<ours 2> succeeded",
        ],
    }


def life(seed: int, **other: Any) -> dict[str, Any]:
    end = {"state": "success", "error": "", "message": "", "returned": "<ours 1>"}
    return {"seed": seed, "drawn": {}, "timed": False, "posts": [1], "ends": [end], **other}


def test_differences_are_told_by_kind(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    failed = [{"state": "failed", "error": "JobFailed", "message": "x", "returned": None}]
    histories.write(before, [life(0), life(1, timed=True), life(2), life(3)])
    histories.write(
        after, [life(0), life(1, timed=True, posts=[1, 2]), life(2, ends=failed), life(3, drawn=1)]
    )
    one, other = histories.read(before), histories.read(after)
    lines = histories.compare(one, other, shown=1)
    assert lines == [
        "4 lives in both, 3 differ",
        "3 of them without anything at a numbered moment, 2 differ",
        "    1 differ in posts: 1",
        "    1 differ in ends: 2",
        "    1 differ in drawn: 3",
        "    1 x success  ->  JobFailed",
        "",
        "seed 1",
        "  posts",
        "    - [1]",
        "    + [1, 2]",
    ]
    assert histories.summary(one, other) == ["    4     3  success", "    0     1  JobFailed"]
    assert histories.compare(one, one, shown=1)[0] == "4 lives in both, 0 differ"
    assert set(histories.read(before, ["ends"])[0]) == {"seed", "drawn", "timed", "ends"}
