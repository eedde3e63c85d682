"""Write what the pages show of the code, so that GitHub shows it, too: ``make pages``.

What stands between ``<!-- begin: SOURCE -->`` and ``<!-- end -->`` comes from a source: a file, a piece of
one (``FILE: PIECE``, between ``# [PIECE: begin]`` and ``# [PIECE: end]`` in it), or one of :data:`TABLES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from airflow_provider_timextender.databases import definitions
from airflow_provider_timextender.tables import EXECUTIONS, LINES, Column
from airflow_provider_timextender.vocabulary import FIELDS, SEVERITIES, STATES, STATUSES, Names
from docs import charts, contract, pictures

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))

_PART = re.compile(r"(<!-- begin: (.+?) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def spelled(entries: Mapping[str, Names]) -> str:
    """Return a part of the vocabulary as a table in Markdown."""
    lines = ["| entry | documented | assumed |", "|---|---|---|"]
    for entry, names in entries.items():
        documented, assumed = (
            ", ".join(f"`{n}`" for n in spellings) for spellings in (names.documented, names.assumed)
        )
        lines.append(f"| `{entry}` | {documented} | {assumed} |")
    return "\n".join(lines) + "\n"


def columns(table: Iterable[Column]) -> str:
    """Return the columns of a table of logs as a table in Markdown."""
    rows = (f"| `{column.name}` | {column.kind} | {column.meaning} |\n" for column in table)
    return f"| column | kind | what it holds |\n|---|---|---|\n{''.join(rows)}"


def defined() -> str:
    """Return how PostgreSQL defines the tables of an export."""
    kind: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
    statements = (CreateTable(table).compile(dialect=kind) for table in definitions(LINES, "postgresql"))
    text = "\n\n".join(f"{str(statement).strip()};" for statement in statements).replace(", \n", ",\n")
    return f"```sql\n{text.expandtabs(4)}\n```\n"


TABLES: Mapping[str, Callable[[], str]] = {
    "rooms": pictures.rooms,
    "stages": pictures.stages,
    "calls": contract.calls,
    "tables": defined,
    "fields": lambda: spelled(FIELDS),
    "statuses": lambda: spelled(STATUSES),
    "states": lambda: spelled(STATES),
    "severities": lambda: spelled(SEVERITIES),
    "lines": lambda: columns(LINES),
    "executions": lambda: columns(EXECUTIONS),
}


def shown(source: str) -> str:
    """Return what a source stands for, in Markdown."""
    if source in TABLES:
        return f"\n{TABLES[source]()}\n"
    file, _, piece = source.partition(": ")
    code = (ROOT / file).read_text()
    if piece:
        code = dedent(code.split(f"# [{piece}: begin]\n")[1].split(f"# [{piece}: end]")[0])
    # What a reader needs of an example begins with its imports.
    code = code.rpartition("from __future__ import annotations\n")[2]
    return f"```python\n{code.strip()}\n```\n"


def wanted() -> Iterator[tuple[Path, str]]:
    """Yield each file that is made of the code or shows some of it, and what it should be."""
    yield ROOT / "docs/rooms.svg", pictures.picture()
    yield ROOT / "docs/waiting.svg", charts.waiting()
    yield ROOT / "docs/reading-logs.svg", charts.reading_logs()
    yield contract.FILE, contract.text()
    for page in PAGES:
        yield page, _PART.sub(lambda part: part[1] + shown(part[2]), page.read_text())


if __name__ == "__main__":
    for file, text in wanted():
        file.write_text(text)
