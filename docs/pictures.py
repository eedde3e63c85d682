"""What `architecture.md` shows of the code, drawn from the code.

The rooms of the package and the arrows between them, the reason of each room, and the moves of a submission;
`snippets.py` writes them into the page.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from html import escape
from itertools import pairwise
from pathlib import Path

from airflow_provider_timextender.submission import MOVES

PACKAGE = Path(__file__).parents[1] / "airflow_provider_timextender"

LAYERS: Mapping[str, tuple[str, ...]] = {
    "a terminal": ("__main__", "cli", "commands", "reporting", "terminal"),
    "Airflow's side": (
        "operators", "remembering", "sensors", "triggers", "watching", "deferral", "ending", "xcoms",
        "polling", "hooks", "reading", "databases",
    ),
    "the worlds": ("worlds", "carrier"),
    "the life": ("life",),
    "data and rules": (
        "recording", "check", "evidence", "connection", "exporting", "files", "formats", "increments",
        "inputs", "logs", "shown", "tables", "submission", "verdict", "jobs_api", "answers", "arriving",
        "vocabulary", "model", "errors", "naming", "provider_info",
    ),
    "the other side of the wire": ("simulator",),
}  # fmt: skip
"""The rooms by layer, the uppermost first: no arrow goes up."""

Arrows = Mapping[str, Mapping[str, bool]]
"""Who imports whom; true if only when it is needed, inside of a function."""


# --- what is so ---


def arrows() -> Arrows:
    """Return what the rooms import of each other at run time, which leaves out what is for type checkers."""
    return {
        room: {other: late for other, late in _imports(room, PACKAGE.name) if other != room}
        for rooms in LAYERS.values()
        for room in rooms
    }


def airflow_in(room: str) -> set[str]:
    """Return what a room imports of Airflow at run time, wherever in its files."""
    return {name for name, _ in _imports(room, "airflow")}


def _imports(room: str, package: str) -> Iterator[tuple[str, bool]]:
    for file in sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]:
        tree = ast.parse(file.read_text())
        seen_by_all = set(tree.body)
        # Those that are late come first, so that whoever makes a dict of it keeps what is not.
        for node in sorted(_at_run_time(tree), key=lambda node: node in seen_by_all):
            for name in _names(node):
                top, _, rest = name.partition(".")
                if top == package and rest and not rest.startswith("__"):
                    yield rest.partition(".")[0], node not in seen_by_all


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_run_time(child)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        if node.module == PACKAGE.name:
            return [f"{node.module}.{alias.name}" for alias in node.names]
        return [f"{node.module}.*"]
    return []


def reasons() -> Iterator[tuple[str, str, str]]:
    """Yield each layer, room, and the first sentence of its docstring."""
    for layer, rooms in LAYERS.items():
        for room in rooms:
            file = PACKAGE / f"{room}.py"
            source = file if file.is_file() else PACKAGE / room / "__init__.py"
            said = ast.get_docstring(ast.parse(source.read_text())) or ""
            yield layer, room, said.splitlines()[0]


def not_implied(all_arrows: Arrows) -> Arrows:
    """Return the arrows without those that follow from others."""
    return {
        room: {
            other: late
            for other, late in others.items()
            if not any(other in _reached(between, all_arrows) for between in others if between != other)
        }
        for room, others in all_arrows.items()
    }


def _reached(room: str, all_arrows: Arrows) -> set[str]:
    found: set[str] = set()
    todo = [room]
    while todo:
        news = all_arrows[todo.pop()].keys() - found
        found |= news
        todo += news
    return found


# --- how it is drawn ---

WIDTH, ROW, BOX, MARGIN = 760, 54, 28, 12
LETTER = 7.9
"""The width of a letter in a box."""


def picture() -> str:
    """Return the rooms as SVG."""
    all_arrows = arrows()
    shown, rows = not_implied(all_arrows), _rows(all_arrows)
    across = _across(rows, shown)
    height = (max(rows.values()) + 1) * ROW + 2 * MARGIN
    top = {room: height - MARGIN - (row + 1) * ROW + (ROW - BOX) / 2 for room, row in rows.items()}
    drawn = [*_bands(rows, height)]
    for room, others in shown.items():
        for other, late in others.items():
            drawn.append(_arrow(room, other, late, rows, across, top))
    drawn += [_box(room, across[room], top[room]) for room in rows]
    return _SVG.format(width=WIDTH, height=height, drawn="\n".join(drawn))


def _rows(all_arrows: Arrows) -> dict[str, int]:
    """Return the row of each room, from below: above all that it imports, and above all lower layers.

    :raises ValueError: if an arrow goes up or round.
    """
    rows: dict[str, int] = {}
    for rooms in reversed(list(LAYERS.values())):
        floor = max(rows.values(), default=-1) + 1
        left = set(rooms)
        up = {
            f"{room} to {other}" for room in rooms for other in all_arrows[room].keys() - left - rows.keys()
        }
        if up:
            raise ValueError(f"These arrows go up: {', '.join(sorted(up))}.")
        while left:
            ready = {room for room in left if not left & all_arrows[room].keys()}
            if not ready:
                raise ValueError(f"These rooms import each other: {', '.join(sorted(left))}.")
            for room in sorted(ready):
                rows[room] = max([floor, *(rows[other] + 1 for other in all_arrows[room])])
            left -= ready
    return rows


Stop = tuple[str, str, int] | str
"""A room, or where an arrow between two rooms passes a row."""


def _stops(room: str, other: str, rows: Mapping[str, int]) -> list[Stop]:
    return [room, *((room, other, row) for row in range(rows[room] - 1, rows[other], -1)), other]


def _across(rows: Mapping[str, int], shown: Arrows) -> dict[Stop, float]:
    """Return how far to the right each room and each passing arrow is: near to what it is linked with."""
    linked: dict[Stop, list[Stop]] = defaultdict(list)
    in_row: dict[int, list[Stop]] = defaultdict(list)
    for room, row in rows.items():
        in_row[row].append(room)
    for room, others in shown.items():
        for other in others:
            stops = _stops(room, other, rows)
            for stop in stops[1:-1]:
                in_row[int(stop[2])].append(stop)
            for above, below in pairwise(stops):
                linked[above].append(below)
                linked[below].append(above)
    middle = (WIDTH + LABELS) / 2
    across: dict[Stop, float] = {}
    for stops in in_row.values():
        across |= {stop: middle + 90 * (n - (len(stops) - 1) / 2) for n, stop in enumerate(stops)}
    for number in range(60):
        for row in sorted(in_row, reverse=number % 2 == 0):
            wanted = {stop: _mean([across[o] for o in linked[stop]], middle) for stop in in_row[row]}
            across |= _apart(wanted)
    return across


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _apart(wanted: Mapping[Stop, float]) -> dict[Stop, float]:
    """Return places that do not overlap, in the order of those wanted and around the same middle."""
    order = sorted(wanted, key=lambda stop: (wanted[stop], str(stop)))
    placed: dict[Stop, float] = {}
    free = LABELS + 0.0
    for stop in order:
        half = _half(stop)
        placed[stop] = max(wanted[stop], free + half)
        free = placed[stop] + half + 30
    shift = _mean(list(wanted.values()), 0) - _mean(list(placed.values()), 0)
    shift = max(shift, LABELS + _half(order[0]) - placed[order[0]])
    shift = min(shift, WIDTH - MARGIN - _half(order[-1]) - placed[order[-1]])
    return {stop: at + shift for stop, at in placed.items()}


def _half(stop: Stop) -> float:
    return len(_label(stop)) * LETTER / 2 + 10 if isinstance(stop, str) else 4


LABELS = 150
"""How much of the width the names of the layers take."""


def _label(room: str) -> str:
    return f"{room}.py" if (PACKAGE / f"{room}.py").is_file() else f"{room}/"


def _bands(rows: Mapping[str, int], height: float) -> Iterator[str]:
    for number, (layer, rooms) in enumerate(LAYERS.items()):
        used = [rows[room] for room in rooms]
        y = height - MARGIN - (max(used) + 1) * ROW
        tall = (max(used) - min(used) + 1) * ROW
        if number % 2 == 0:
            yield f'<rect class="band" x="0" y="{y}" width="{WIDTH}" height="{tall}"/>'
        for line, words in enumerate(_lines(layer)):
            yield f'<text class="layer" x="12" y="{y + 24 + 16 * line}">{escape(words)}</text>'


def _lines(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > 16:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _arrow(
    room: str,
    other: str,
    late: bool,
    rows: Mapping[str, int],
    across: Mapping[Stop, float],
    top: Mapping[str, float],
) -> str:
    stops = _stops(room, other, rows)
    points = [(across[room], top[room] + BOX)]
    for stop in stops[1:-1]:
        y = top[room] + (rows[room] - int(stop[2])) * ROW
        points += [(across[stop], y), (across[stop], y + BOX)]
    points.append((across[other], top[other] - 1))
    path = f"M{points[0][0]:.0f},{points[0][1]:.0f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        half = (y0 + y1) / 2
        path += f" C{x0:.0f},{half:.0f} {x1:.0f},{half:.0f} {x1:.0f},{y1:.0f}"
    kind = "arrow late" if late else "arrow"
    return f'<path class="{kind}" d="{path}" marker-end="url(#head)"/>'


def _box(room: str, x: float, y: float) -> str:
    half = _half(room)
    return (
        f'<rect class="room" x="{x - half:.0f}" y="{y:.0f}" width="{2 * half:.0f}" height="{BOX}" rx="5"/>'
        f'<text class="room" x="{x:.0f}" y="{y + 19:.0f}">{escape(_label(room))}</text>'
    )


_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" role="img"
 aria-label="The files of the package by layer, with an arrow from each to those that it imports">
<style>
.page {{ fill: #fff; }}
.band {{ fill: #f3f5f8; }}
rect.room {{ fill: #fff; stroke: #6b6f76; }}
text {{ fill: #000; font-size: 13px; font-family: sans-serif; }}
text.room {{ font-family: monospace; text-anchor: middle; }}
text.layer {{ fill: #5a5c63; font-style: italic; }}
.arrow {{ fill: none; stroke: #0a4bff; stroke-width: 1.3; }}
.late {{ stroke-dasharray: 5 4; }}
marker path {{ fill: #0a4bff; }}
</style>
<rect class="page" width="{width}" height="{height:.0f}"/>
<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">
<path d="M0,0.5 L8,4 L0,7.5 z"/></marker></defs>
{drawn}
</svg>
"""


def rooms() -> str:
    """Return the reason of each room as a table in Markdown."""
    lines, before = ["| file | what it is for |", "|---|---|"], ""
    for layer, room, reason in reasons():
        if layer != before:
            lines.append(f"| *{layer}* | |")
        lines.append(f"| `{_label(room)}` | {reason} |")
        before = layer
    return "\n".join(lines) + "\n"


def stages() -> str:
    """Return the moves of a submission as a table in Markdown."""
    lines = ["| from | by | to |", "|---|---|---|"]
    lines += [f"| {_stage(m.before)} | {m.by} | {_stage(m.after)} |" for m in MOVES]
    return "\n".join(lines) + "\n"


def _stage(stage: str | None) -> str:
    return f"`{stage}`" if stage else "nothing kept"
