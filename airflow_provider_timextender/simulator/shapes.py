"""A dialect from what is typed on a command line: its traits, names and words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from airflow_provider_timextender.simulator.dialects import Dialect, Word, choices

Typed = Iterable[tuple[str, str]]
"""Names, and what is typed for each."""


def shaped(dialect: Dialect, *, traits: Typed, renamed: Typed, words: Typed) -> Dialect:
    """Return a dialect that differs from another.

    :param traits: names of traits and their values, without regard to case.
    :param renamed: standard names of members and what stands instead.
    :param words: meanings and their words; ``running`` is a status and a state, and either alone with its
        section before it: ``states.running``. A whole number is a code.
    :raises ValueError: naming what is possible.
    """
    changed: dict[str, Any] = {name: _value(name, text) for name, text in traits}
    changed |= _words(dialect, words)
    return replace(dialect, name="custom", renamed={**dialect.renamed, **dict(renamed)}, **changed)


def _value(trait: str, text: str) -> Any:
    possible = {**choices(), "timezone": ()}
    if trait not in possible:
        raise ValueError(f"There is no trait {trait!r}; there is {', '.join(possible)}.")
    return next((value for value in possible[trait] if str(value).lower() == text.lower()), text)


def _words(dialect: Dialect, words: Typed) -> dict[str, dict[str, Word]]:
    sections: dict[str, dict[str, Word]] = {
        "statuses": dict(dialect.statuses),
        "states": dict(dialect.states),
        "severities": dict(dialect.severities),
    }
    for named, word in words:
        section, _, meaning = named.rpartition(".")
        told = [table for name, table in sections.items() if meaning in table and section in ("", name)]
        if not told:
            possible = ", ".join(f"{name}.{entry}" for name, table in sections.items() for entry in table)
            raise ValueError(f"There is no word for {named!r}; there is {possible}.")
        for table in told:
            table[meaning] = int(word) if re.fullmatch(r"-?\d+", word) else word
    for name, table in sections.items():
        if len({str(word).lower() for word in table.values()}) < len(table):
            raise ValueError(f"Two of the {name} have the same word: {table}.")
    return sections
