"""What the documentation says about files, targets, settings and tests is so."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_timextender import connection, errors
from airflow_provider_timextender.simulator import Dialect
from airflow_provider_timextender.simulator.faults import KINDS
from airflow_provider_timextender.simulator.server import ROUTES
from docs import snippets
from docs.snippets import PAGES

ROOT = Path(__file__).parents[2]


def rows_below(heading: str) -> list[str]:
    """Return the rows of the table in a section about the simulator."""
    _, _, below = (ROOT / "docs/testing.md").read_text().partition(f"\n## {heading}\n")
    return [row for row in below.partition("\n## ")[0].splitlines() if row.startswith("| `")]


def test_each_kind_of_fault_stands_in_the_table_with_what_it_uses() -> None:
    assert rows_below("Kinds of fault") == [
        f"| `{kind}` | {use.does} | {', '.join(f'`{name}`' for name in use.fields)} |"
        for kind, use in KINDS.items()
    ]


def test_each_trait_of_a_dialect_stands_in_the_table() -> None:
    rows = [row.split("|")[1] for row in rows_below("In another dialect")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == {f.name for f in fields(Dialect)} - {"name"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


EXTRAS = blocks(ROOT / "docs/connection.md", "json")


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_that_is_shown_is_accepted(extra: str) -> None:
    class Fields:
        conn_id = "tx"
        host = port = schema = None
        password = "key"

    given_fields: Any = Fields()
    given_fields.extra = extra
    found = connection.settings(given_fields)
    given = json.loads(extra)
    for words in given.get("vocabulary", {}).get("states", {}).items():
        meaning, spellings = words
        for word in spellings if isinstance(spellings, list) else [spellings]:
            assert found.vocabulary.meaning("states", word) == meaning


def test_the_readmes_connection_is_one() -> None:
    (line,) = re.findall(r"AIRFLOW_CONN_TIMEXTENDER_DEFAULT='(.*)'", (ROOT / "README.md").read_text())
    assert json.loads(line)["conn_type"] == "timextender"


def test_r50_the_pages_show_what_is_in_the_code() -> None:
    stale = [file.name for file, text in snippets.wanted() if file.read_text() != text]
    assert not stale, "run make pages"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_r50_github_shows_what_a_page_shows(page: Path) -> None:
    """It renders no directive and no role, and draws no link to the built page."""
    text = page.read_text()
    directives = [] if page.name == "reference.md" else re.findall(r"^```\{.*", text, re.MULTILINE)
    assert directives + re.findall(r"(?:^|[\s(])\{\w+\}`\w+`", text) == []
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / target).is_file(), target


def test_make_targets_and_options_that_are_shown_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for line in re.findall(r"^make ([\w-]+)", page.read_text(), re.MULTILINE):
            assert re.search(rf"^{line}:", makefile, re.MULTILINE), (page, line)


def test_the_readme_leads_to_each_page_that_github_shows() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", (ROOT / "README.md").read_text()))
    pages = {f"docs/{page.name}" for page in PAGES if page.parent != ROOT}
    assert pages - linked == {"docs/index.md", "docs/reference.md"}


def rows(page: str, begin: str) -> list[list[str]]:
    """Return the cells of each row of a page's tables that begins so."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(begin)]


def test_r31_each_error_has_one_row_that_says_what_to_do_and_quotes_what_is_said() -> None:
    kinds = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
    }
    table = [row for row in rows("troubleshooting.md", "| `") if len(row) == 4]
    named = [row[0].strip("`") for row in table]
    assert sorted(set(named) & kinds) == sorted(kinds)
    assert [name for name in named if name in kinds and named.count(name) > 1] == []
    code = "".join(file.read_text() for file in (ROOT / "airflow_provider_timextender").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a message that takes several lines
    for name, says, *_ in table:
        assert [said for said in re.findall(r"`(.+?)`", says) if said not in code] == [], name


def test_r46_what_the_api_cannot_do_stands_in_one_list_with_what_to_do_instead() -> None:
    page = (ROOT / "docs/limits.md").read_text()
    assert f"has {['five', 'six', 'seven'][len(ROUTES) - 5]} endpoints" in page
    table = [row for row in rows("limits.md", "| ") if row[0] != "people look for"]
    assert all(len(row) == 3 and all(row) for row in table)
    looked_for = " ".join(row[0] for row in table)
    for what in ("Cancel", "Repair", "data sources", "Paging", "Date filters", "Events"):
        assert f"**{what}**" in looked_for, what
    for other in (page for page in PAGES if page.name != "limits.md"):
        for line in other.read_text().split(". "):
            if re.search(r"API\W+(cannot (?!be)|has no )", line):
                assert "limits.md" in line, (other.name, line)


def test_what_the_pages_import_is_in_the_reference() -> None:
    reference = (ROOT / "docs/reference.md").read_text()
    for page in PAGES:
        for module, names in re.findall(
            r"^from airflow_provider_timextender\.(\w+) import ([\w, ]+)$", page.read_text(), re.MULTILINE
        ):
            assert f"airflow_provider_timextender.{module}" in reference, (page.name, module)
            if f"automodule:: airflow_provider_timextender.{module}\n   :members:" in reference:
                continue  # all that is in it
            for name in names.split(", "):
                assert re.search(rf":: {name}$", reference, re.MULTILINE), (page.name, name)


def _numbers(text: str) -> set[str]:
    return {f"R{int(number)}" for number in re.findall(r"R(\d+)\b", text)}


def test_each_guarantee_has_tests_that_carry_its_number_and_the_reverse() -> None:
    tested = set()
    for file in ROOT.glob("tests/**/test_*.py"):
        for name in re.findall(r"def (test_r\d\w+)", file.read_text()):
            tested |= _numbers(name.upper().replace("_", " "))
    page = (ROOT / "docs/guarantees.md").read_text()
    rows = [row.split("|")[1].strip() for row in page.splitlines() if row.startswith("| R")]
    assert sorted(rows) == sorted(tested), "one row for each number"
