"""The charts of `performance.md`, drawn from the tables of the page itself; `snippets.py` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

PAGE = Path(__file__).parent / "performance.md"


# --- what is shown ---


def waiting() -> str:
    """Return what it costs to wait, as SVG."""
    shown = [row for row in table("N", "trigger", *_WAITING) if row["N"] in ("100", "500", "2000")]
    bars = [
        Bar(
            f"{row['N']} waiting tasks",
            row["trigger"],
            [row[column] for column in _WAITING],
            ours=row["trigger"] == "TimeXtender",
            mark="*" if _is_late(row) else "",
        )
        for row in shown
    ]
    return chart(
        "CPU seconds and requests an interval of tasks that wait, by trigger and number of tasks",
        ("CPU seconds an interval", "requests an interval"),
        bars,
    )


def _is_late(row: Mapping[str, str]) -> bool:
    """Tell whether the triggers, of which each sends a request of its own, could not keep their interval."""
    return row["trigger"] != "TimeXtender" and float(row["requests / interval"]) < 0.95 * int(row["N"])


_WAITING = ("CPU s / interval", "requests / interval")


def reading_logs() -> str:
    """Return what it costs to write the errors of a log to a file, as SVG."""
    shown = [
        row
        for row in table("log", "reader", *_READING)
        if row["log"] in ("100 MB", "1 GB") and re.search("errors to|alone", row["reader"])
    ]
    bars = [
        Bar(
            f"a log of {row['log']}",
            row["reader"].replace("`", "").replace(", errors to .jsonl", ""),
            [row[column] for column in _READING],
            ours=row["reader"].startswith("LogsOperator"),
        )
        for row in shown
    ]
    return chart(
        "CPU seconds and memory that it takes to write the errors of a log to a file, by reader and size",
        ("CPU seconds", "memory, MB"),
        bars,
    )


_READING = ("CPU s", "memory MB")


def table(*columns: str) -> list[dict[str, str]]:
    """Return the rows of the first table of the page that has some columns, each by column.

    :raises ValueError: if there is none.
    """
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    for number, head in enumerate(lines):
        if set(columns) <= set(head):
            body = lines[number + 2 :]
            end = next((n for n, line in enumerate(body) if len(line) != len(head)), len(body))
            return [dict(zip(head, line, strict=True)) for line in body[:end]]
    raise ValueError(f"No table of {PAGE.name} has the columns {', '.join(columns)}.")


# --- how it is drawn ---


@dataclass(frozen=True)
class Bar:
    """A line of a chart: a bar in each of its columns.

    :ivar group: the heading under which it stands. :ivar values: as the table has them.
    :ivar mark: what follows the values.
    """

    group: str
    name: str
    values: Sequence[str]
    ours: bool
    mark: str = ""


WIDTH, MARGIN, LINE, THICK = 760, 12, 24, 14
NAMES = 190
"""How much of the width the names take."""
SHOWN = 70
"""How much of a column the value behind its longest bar takes."""


def chart(said: str, columns: Sequence[str], bars: Sequence[Bar]) -> str:
    """Return bars as SVG.

    :param said: what the chart shows, for whoever does not see it.
    """
    room = (WIDTH - NAMES - 2 * MARGIN) / len(columns)
    most = [max(float(bar.values[n]) for bar in bars) for n in range(len(columns))]
    left = [MARGIN + NAMES + n * room for n in range(len(columns))]
    y = MARGIN + LINE
    drawn = [
        f'<text class="head" x="{x:.0f}" y="{y - 8}">{escape(c)}</text>'
        for x, c in zip(left, columns, strict=True)
    ]
    for group, members in groupby(bars, lambda bar: bar.group):
        drawn.append(f'<text class="group" x="{MARGIN}" y="{y + 17}">{escape(group)}</text>')
        y += LINE
        for bar in members:
            drawn.append(
                f'<text class="name" x="{MARGIN + NAMES - 10}" y="{y + 17}">{escape(bar.name)}</text>'
            )
            drawn += _drawn(bar, y, left, [(room - SHOWN) / each for each in most])
            y += LINE
        y += LINE // 3
    return _SVG.format(width=WIDTH, height=y + MARGIN, said=escape(said), drawn="\n".join(drawn))


def _drawn(bar: Bar, y: float, left: Sequence[float], scales: Sequence[float]) -> Iterator[str]:
    for x, value, scale in zip(left, bar.values, scales, strict=True):
        long = max(1, float(value) * scale)
        kind = "ours" if bar.ours else "other"
        yield f'<rect class="{kind}" x="{x:.0f}" y="{y + 5}" width="{long:.1f}" height="{THICK}"/>'
        yield f'<text x="{x + long + 6:.0f}" y="{y + 17}">{escape(value + bar.mark)}</text>'


_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{said}">
<style>
.page {{ fill: #fff; }}
text {{ fill: #000; font-size: 13px; font-family: sans-serif; }}
.head {{ font-weight: bold; }}
.group {{ fill: #5a5c63; font-style: italic; }}
.name {{ text-anchor: end; }}
.ours {{ fill: #0a4bff; }}
.other {{ fill: #8a8f98; }}
@media (prefers-color-scheme: dark) {{
.page {{ fill: #1a1c1e; }}
text {{ fill: #e6e6e6; }}
.group {{ fill: #a9adb5; }}
.ours {{ fill: #6f97ff; }}
}}
</style>
<rect class="page" width="{width}" height="{height}"/>
{drawn}
</svg>
"""
