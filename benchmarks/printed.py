"""What the benchmarks print: a table in Markdown, and on what it was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str]) -> str:
    """Return a table.

    :param left: the columns that hold text; all others hold numbers, which stand to the right.
    """
    lines = [head, *rows]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]

    def written(line: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(head, line, widths, strict=True)
        )
        return f"| {' | '.join(cells)} |"

    rule = ["-" * n if name in left else "-" * (n - 1) + ":" for name, n in zip(head, widths, strict=True)]
    return "\n".join([written(head), written(rule), *map(written, lines[1:])])


def installed_version(package: str) -> str | None:
    """Return the version of a package, ``None`` if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine(packages: Iterable[str]) -> str:
    """Return the system, Python, and which versions of some packages are installed."""
    found = [f"{package} {installed}" for package in packages if (installed := installed_version(package))]
    python = f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    return f"{python}; {', '.join(found)}"
