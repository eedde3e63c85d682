"""The rooms of the package: their arrows go one way, and the documentation shows what is so."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from airflow_provider_timextender.submission import MOVES
from docs import pictures

PAGE = (Path(__file__).parents[2] / "docs/architecture.md").read_text()
ALL = [room for rooms in pictures.LAYERS.values() for room in rooms]
LAYER = {room: number for number, rooms in enumerate(pictures.LAYERS.values()) for room in rooms}


def test_each_room_stands_in_one_layer() -> None:
    files = {path.stem for path in pictures.PACKAGE.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in pictures.PACKAGE.glob("*/__init__.py")}
    assert sorted(ALL) == sorted(files | folders)


def test_no_arrow_goes_up_or_round() -> None:
    arrows = pictures.arrows()
    up = [(room, other) for room in arrows for other in arrows[room] if LAYER[other] < LAYER[room]]
    round_ = [room for room in arrows if room in pictures._reached(room, arrows)]
    assert (up, round_) == ([], [])
    assert sum(map(len, arrows.values())) > 50


def test_arrows_that_go_round_or_up_cannot_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    arrows = pictures.arrows()
    monkeypatch.setattr(pictures, "arrows", lambda: {**arrows, "errors": {"model": False}})
    with pytest.raises(ValueError, match=r"import each other: .*errors.*model"):
        pictures.picture()
    monkeypatch.setattr(pictures, "arrows", lambda: {**arrows, "life": {"polling": True}})
    with pytest.raises(ValueError, match=r"go up: life to polling\."):
        pictures.picture()


def test_what_is_below_the_worlds_knows_no_airflow_also_not_in_a_function() -> None:
    below = [room for room in ALL if LAYER[room] > LAYER["worlds"]]
    knowing = [room for room in [*below, "carrier"] if pictures.airflow_in(room)]
    assert knowing == []
    assert pictures.airflow_in("worlds"), "a function's import is not found"


def test_the_simulator_and_the_package_do_not_know_each_other() -> None:
    arrows = pictures.arrows()
    assert not arrows["simulator"]
    assert not [room for room in arrows if "simulator" in arrows[room]]


def test_what_is_only_for_type_checkers_is_no_arrow_and_what_is_late_is_a_dashed_one() -> None:
    arrows = pictures.arrows()
    assert "polling" not in arrows["worlds"]
    assert arrows["deferral"] == {**arrows["deferral"], "triggers": True, "worlds": False}


def test_the_picture_shows_each_room_once_and_each_arrow_that_does_not_follow_from_others() -> None:
    svg = ElementTree.fromstring(pictures.picture())
    drawn = [text.text for text in svg.iterfind(".//{*}text") if text.get("class") == "room"]
    assert sorted(drawn, key=str) == sorted(map(pictures._label, ALL))
    arrows = pictures.arrows()
    shown = pictures.not_implied(arrows)
    for room in ALL:
        assert pictures._reached(room, shown) == pictures._reached(room, arrows)
    lines = [path for path in svg.iterfind(".//{*}path") if str(path.get("class")).startswith("arrow")]
    assert len(lines) == sum(map(len, shown.values()))


def test_each_room_says_in_its_first_line_what_it_is_for() -> None:
    table = pictures.rooms()
    for _, room, reason in pictures.reasons():
        assert reason.endswith("."), room
        assert f"| `{pictures._label(room)}` | {reason} |" in table


def test_the_table_of_stages_has_each_move() -> None:
    assert [row.split(" | ")[1] for row in pictures.stages().splitlines()[2:]] == [move.by for move in MOVES]


def test_each_name_on_the_page_is_in_the_code() -> None:
    code = "\n".join(file.read_text() for file in pictures.PACKAGE.rglob("*.py"))
    words = set(re.findall(r"\w+", code)) | set(ALL)
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    named = set(re.findall(r"(?<!\})`([A-Za-z_][\w./]*)(?:\(\))?`", text))
    assert len(named) > 60
    for name in sorted(named):
        parts = re.split(r"[./]", re.sub(r"\.(py|md)$", "", name))
        root = Path(pictures.__file__).parents[1]
        assert (root / name).exists() or words.issuperset(filter(None, parts)), name
