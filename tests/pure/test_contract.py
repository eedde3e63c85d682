"""The contract as a document: it is whole, valid, and what the package says today."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openapi_spec_validator
import pytest
import yaml

from airflow_provider_timextender.vocabulary import FIELDS, Names, Vocabulary
from docs import contract

DOCUMENT = yaml.safe_load(contract.FILE.read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]
WORDS = [
    (section, schema, meaning, word)
    for section, schema in {
        "statuses": "JobState",
        "states": "ExecutionState",
        "severities": "Severity",
    }.items()
    for meaning, words in Vocabulary().spellings[section].items()
    for word in words
]


def test_the_document_is_what_the_package_says() -> None:
    assert contract.document() == DOCUMENT


def test_it_is_an_openapi_document() -> None:
    openapi_spec_validator.validate(DOCUMENT)


def members(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in contract.OBJECTS:
        for member, said in document["components"]["schemas"][name]["properties"].items():
            assert member == next(iter(said["x-spellings"].values()))[0]
            yield said["x-entry"].removeprefix("fields."), said


def test_each_entry_is_a_member_that_says_how_it_is_known_and_spelled() -> None:
    found = dict(members(DOCUMENT))
    drawn = [entry for entry, names in FIELDS.items() if names.all and not entry.startswith("list.")]
    assert sorted(found) == sorted(drawn)
    for entry, said in found.items():
        names = FIELDS[entry]
        assert said["x-known-from"] == ("documented" if names.documented else "assumed")
        assert said["x-spellings"].get("documented", []) == list(names.documented)
        assert said["x-spellings"].get("assumed", []) == list(names.assumed)
        for spelling in names.documented:
            assert f"{spelling} (documented)" in said["description"]
        for spelling in names.assumed:
            assert f"{spelling} (assumed)" in said["description"]


def test_entries_of_other_objects_and_without_spelling_are_left_out_and_a_new_one_may_be_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    anything = Names(assumed=("Anything",))
    new = {"list.anything": anything, "log.anything": anything, "job.unnamed": Names()}
    monkeypatch.setattr(contract, "FIELDS", {**FIELDS, **new})
    changed = contract.document()
    openapi_spec_validator.validate(changed)
    found = dict(members(changed))
    assert found.keys() - FIELDS.keys() == {"log.anything"}
    assert not found["log.anything"].keys() & {"$ref", "type"}


@pytest.mark.parametrize(("section", "schema", "meaning", "word"), WORDS)
def test_each_word_fits_the_pattern_however_it_is_written(
    section: str, schema: str, meaning: str, word: str
) -> None:
    told = SCHEMAS[schema]["x-words"][meaning]
    assert any(word in words for words in told.values())
    for written in (word, word.upper(), word.title(), word.title().replace(" ", ""), word.replace(" ", "_")):
        assert re.search(SCHEMAS[schema]["pattern"], written)
        assert Vocabulary().meaning(section, written) == meaning


@pytest.mark.parametrize("schema", contract.WORDS)
@pytest.mark.parametrize("word", ["Completed", "idle again", "not running", "3", ""])
def test_another_word_fits_no_pattern(schema: str, word: str) -> None:
    assert not re.search(SCHEMAS[schema]["pattern"], word)


def test_the_page_shows_each_call() -> None:
    assert contract.calls().count("\n") == 2 + sum(map(len, DOCUMENT["paths"].values()))


def test_each_call_server_and_header_says_how_it_is_known() -> None:
    calls = [call for path in DOCUMENT["paths"].values() for call in path.values()]
    for part in (*calls, *DOCUMENT["servers"], DOCUMENT["components"]["securitySchemes"]["key"]):
        assert part["x-known-from"] in ("documented", "assumed"), json.dumps(part)
