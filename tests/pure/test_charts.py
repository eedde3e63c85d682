"""The charts of the documentation show what the tables of the page say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs import charts

CHARTS: dict[str, Callable[[], str]] = {
    "waiting.svg": charts.waiting,
    "reading-logs.svg": charts.reading_logs,
}


def drawn(chart: Callable[[], str]) -> list[tuple[float, str]]:
    """Return the length of each bar of a chart, and what is written behind it."""
    shapes = list(ElementTree.fromstring(chart()))
    return [
        (float(shape.attrib["width"]), str(shapes[number + 1].text))
        for number, shape in enumerate(shapes)
        if shape.get("class") in ("ours", "other")
    ]


@pytest.mark.parametrize("file", CHARTS)
def test_a_bar_is_as_long_as_the_value_behind_it_says(file: str) -> None:
    bars = drawn(CHARTS[file])
    for column in (bars[::2], bars[1::2]):
        scale = max(length for length, _ in column) / max(float(value.strip("*")) for _, value in column)
        for length, value in column:
            assert length == pytest.approx(max(1, float(value.strip("*")) * scale), abs=0.1)


@pytest.mark.parametrize("file", CHARTS)
def test_a_chart_tells_whoever_does_not_see_it_what_the_page_does(file: str) -> None:
    label = ElementTree.fromstring(CHARTS[file]()).attrib["aria-label"]
    assert f"![{label}]({file})" in charts.PAGE.read_text()


PAGE = """\
|   N | trigger     | requests / interval | CPU s / interval |
| --: | ----------- | ------------------: | ---------------: |
|  10 | dbt Cloud   |                10.0 |            0.043 |
| 100 | TimeXtender |                 5.5 |            0.013 |
| 100 | dbt Cloud   |               100.0 |            0.434 |
| 500 | TimeXtender |                 8.0 |            0.053 |
| 500 | dbt Cloud   |               444.4 |            1.466 |

After the table.

| log          | reader                         | CPU s | memory MB |
| ------------ | ------------------------------ | ----: | --------: |
| 1 MB         | LogsOperator, errors to .jsonl |  0.01 |       1.0 |
| 100 MB       | ijson `items` alone            |  0.33 |       0.3 |
| 100 MB       | LogsOperator, errors to .jsonl |  0.50 |       3.4 |
| 100 MB, slow | LogsOperator, errors to .jsonl |  0.60 |       3.4 |
| 100 MB       | LogsOperator, all to .jsonl    |  3.50 |       3.6 |
| 1 GB         | HttpOperator, errors to .jsonl |  8.47 |    4243.0 |
"""


@pytest.fixture
def small_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE)
    monkeypatch.setattr(charts, "PAGE", page)


@pytest.mark.usefixtures("small_page")
def test_the_chart_of_waiting_shows_what_the_table_says_and_which_trigger_was_late() -> None:
    values = [value for _, value in drawn(charts.waiting)]
    assert values == ["0.013", "5.5", "0.434", "100.0", "0.053", "8.0", "1.466*", "444.4*"]


@pytest.mark.usefixtures("small_page")
def test_the_chart_of_logs_shows_the_readers_that_do_the_same_and_the_limit() -> None:
    values = [value for _, value in drawn(charts.reading_logs)]
    assert values == ["0.33", "0.3", "0.50", "3.4", "8.47", "4243.0"]


def test_a_table_that_is_not_there_is_an_error_that_names_its_columns() -> None:
    with pytest.raises(ValueError, match=re.escape("No table of performance.md has the columns N, colour.")):
        charts.table("N", "colour")
