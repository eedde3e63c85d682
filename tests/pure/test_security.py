"""What comes from outside can neither get into a path nor look like something else, and shows no key."""

from __future__ import annotations

import gzip
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import pytest
import rich.pretty
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_timextender import connection, errors, model, verdict, vocabulary
from airflow_provider_timextender import jobs_api as api
from airflow_provider_timextender.carrier import Mask, receive
from airflow_provider_timextender.life import run_through
from airflow_provider_timextender.shown import show_rest

from ..conftest import API_KEY
from .test_shown import Place

JOB = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
TRIGGER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
STATUS = api.job_status(JOB)


@given(st.binary(max_size=300), st.integers(1, 200), st.integers(1, 50), st.booleans())
def test_r41_no_more_than_the_limit_is_kept(body: bytes, limit: int, step: int, pack: bool) -> None:
    sent = gzip.compress(body) if pack else body
    begun = api.Answer("GET x", 200, {"Content-Encoding": "gzip"} if pack else {}, b"")
    pieces = (sent[at : at + step] for at in range(0, len(sent), step))
    answer = receive(begun, pieces, limit, Mask("no such key"))
    if max(len(body), len(sent)) <= limit and json.detect_encoding(body) == "utf-8":
        assert b"".join(answer.pieces()) == body
    elif max(len(body), len(sent)) > limit:
        with pytest.raises(errors.AnswerTooLarge) as caught:
            list(answer.pieces())
        read, unpacked = map(int, re.findall(r"(\d+) (?:bytes were read|unpacked)", str(caught.value)))
        assert read <= limit + step
        assert unpacked <= limit + (1 if pack else step)


# --- ids ---

ID_LIKE = st.text() | st.text("0123456789abcdefABCDEF-/.%\r\n\0 ٣ａſ", min_size=30, max_size=40)
ID_LIKE |= st.builds(
    lambda id_, edges: f"{edges[:1]}{id_}{edges[1:]}", st.uuids(), st.text("{}/%", max_size=3)
)
ID_LIKE |= st.builds(lambda id_, more: f"{id_}{more}", st.uuids(), st.text(max_size=2))
MAKERS: list[Callable[[str], api.Call[Any]]] = [
    api.execute_job,
    api.job_status,
    api.job_logs,
    lambda id_: api.job_logs(id_, TRIGGER),
    lambda id_: api.job_logs(JOB, id_),
    api.executions_so_far,
]


@given(ID_LIKE, st.sampled_from(MAKERS))
def test_nothing_but_a_guid_gets_into_a_path(id_: str, make: Callable[[str], api.Call[Any]]) -> None:
    bare = "[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}"
    one = f"({bare}|%7B{bare}%7D)"
    with suppress(errors.InvalidInput):
        path = make(id_).path
        assert re.fullmatch(f"/public/jobs/{one}/(execute|status|logs(/{one})?)", path, re.ASCII)


# --- words that look like something else ---

EVIL = "\x1b[31mred\r\n[2026-01-01] INFO - Task succeeded\u202e\u2028\x9b1m\x00"


def is_plain(text: str) -> bool:
    """Tell whether each line of a message is the first, is indented, or is one of ours."""
    _, *more = text.split("\n")
    alone = all(line.startswith("  ") or line == "Its last error lines:" for line in more)
    return alone and all(c.isprintable() or c in "\n\t" for c in text)


def read(call: api.Call[Any], data: Any) -> Any:
    return api.read(call, api.Answer("GET x", 200, {}, json.dumps(data).encode()), vocabulary.Vocabulary())


def test_r41_no_value_can_forge_a_line_in_an_error() -> None:
    said = []
    wrong: list[tuple[api.Call[Any], Any]] = [
        (api.execute_job(JOB), {"TriggerId": EVIL}),
        (api.execute_job(JOB), {EVIL: EVIL}),
        (api.job_logs(JOB, TRIGGER), [{"Timestamp": EVIL, EVIL: EVIL}]),
        (api.list_jobs(), [{"Id": EVIL}]),
        (api.list_jobs(), EVIL),
    ]
    for call, data in wrong:
        with pytest.raises(errors.ContractError) as caught:
            read(call, data)
        said.append(str(caught.value))
    said.append(read(STATUS, {"Status": EVIL}).problem)
    said.append(read(STATUS, {EVIL: EVIL}).problem)
    (execution,) = read(api.job_logs(JOB), [{"EndTime": EVIL, "StartTime": EVIL, "State": EVIL}])
    said += [execution.problem, execution.start_problem, execution.end_problem]
    assert all(is_plain(text) for text in said)
    assert all("red" in text for text in said)


def test_r41_no_receipt_can_forge_a_line_or_fill_the_log() -> None:
    receipt = read(api.execute_job(JOB), {"TriggerId": TRIGGER, "Message": EVIL + "x" * 10**5})
    assert "Task succeeded" in receipt.message
    assert is_plain(receipt.message)
    assert len(receipt.message) < 2000
    assert read(api.execute_job(JOB), {"TriggerId": TRIGGER}).message is None


def test_r41_no_name_of_a_job_can_forge_a_line_or_fill_an_error() -> None:
    jobs = read(api.list_jobs(), [{"Id": JOB, "Name": EVIL}, *({"Id": JOB, "Name": "x" * 1000},) * 50])
    for name in ("Load", "x" * 1000):
        with pytest.raises(errors.InvalidInput) as caught:
            model.find_job(jobs, name)
        assert is_plain(str(caught.value))
        assert len(str(caught.value)) < 4000


def test_r41_no_execution_can_forge_a_line_or_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    entry = {"TriggerId": EVIL, "Message": EVIL + "x" * 10**6, "Severity": "Error"}
    (execution,) = read(api.job_logs(JOB), [{"State": "Failed", "Message": EVIL, "Logs": [entry] * 6}])
    failed = verdict.judge_execution(execution)
    assert isinstance(failed, verdict.Failed)
    with pytest.raises(errors.JobFailed) as caught:
        verdict.conclude(failed, EVIL)
    assert is_plain(str(caught.value))
    assert is_plain(str(execution.trigger_id))
    assert len(json.dumps(verdict.event_of(caught.value))) < 2048
    place = Place(logging.getLogger("tests.task"))
    run_through(show_rest(place, execution, EVIL))
    assert len(caplog.messages) == 8, "the state, that no time is told, and the entries"
    assert all(is_plain(message) and len(message) < 25_000 for message in caplog.messages)


# --- the key ---


def shown(error: BaseException) -> str:
    """Return what a tracker of errors could record: every frame of the whole chain, with its variables."""
    found = []
    for each in _chain(error):
        found += [repr(each), str(each), repr(vars(each)), *getattr(each, "__notes__", [])]
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                for name, value in frame.f_locals.items():
                    found.append(f"{name} = {value!r}")
                    found.append(f"{name} = {rich.pretty.pretty_repr(value)}")
    return "\n".join(found)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    todo = [error]
    while todo:
        each = todo.pop()
        if each is not None and each not in seen:
            seen.append(each)
            todo += [each.__cause__, each.__context__, *getattr(each, "exceptions", [])]
    yield from seen


@dataclass
class Fields:
    """A connection that shows its password, as Airflow 3's does."""

    password: str | None = API_KEY
    extra: str | None = '{"timeout": 0}'
    conn_id: str = "tx"
    host: str | None = None
    port: int | None = None
    schema: str | None = None


def test_r34_no_frame_of_an_unusable_connection_shows_the_key() -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        connection.settings(Fields())
    dump = shown(caught.value)
    assert "problem = " in dump
    assert API_KEY not in dump


def test_r34_escaped_in_json_the_key_is_hidden_as_well() -> None:
    key = "a+b/c<d>'e\\f==9"
    for spelled in (
        json.dumps({"Message": key}),
        json.dumps({"Message": key}).replace("/", r"\/"),
        json.dumps({"Message": key}).replace("+", r"\u002B").replace("<", r"\u003C").replace("'", r"\u0027"),
        '{"Message": "' + "".join(f"\\u{ord(c):04x}" for c in key) + '"}',
    ):
        assert json.loads(spelled)["Message"] == key
        answer = receive(api.Answer("GET x", 200, {}, b""), [spelled.encode()], 1000, Mask(key))
        assert json.loads(b"".join(answer.pieces())) == {"Message": "***"}


KEY_LIKE = st.text("ab1-/+<", min_size=1, max_size=6)
SPELL: list[Callable[[str], str]] = [
    str,
    lambda c: f"\\u{ord(c):04x}",
    lambda c: f"%{ord(c):02X}",
    lambda c: c if c.isalnum() else f"\\{c}",
]


@given(KEY_LIKE, st.data())
def test_r34_cut_into_pieces_the_key_is_hidden_as_well(key: str, data: st.DataObject) -> None:
    spelled = st.tuples(*(st.sampled_from([spell(c) for spell in SPELL]) for c in key)).map("".join)
    said = "".join(data.draw(st.lists(st.sampled_from(["x", "yy", "%", "a"]) | spelled, max_size=8))).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=6)))
    pieces = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    mask = Mask(key)
    shown = b"".join(mask.pieces(iter(pieces)))
    # What is left of two keys that overlap may look like one more, however it comes.
    assert mask._spelled.search(shown) is None or mask._spelled.search(mask(said)) is not None
    if mask(said) == said:
        assert shown == said


def test_r34_encoded_for_a_url_the_key_is_hidden_as_well() -> None:
    key = "a+b/c<d>'e~f==9"
    for spelled in (
        quote(key, safe=""),
        quote(key).lower(),
        "".join(f"%{ord(c):02x}" for c in key),
        "".join(f"%{ord(c):02X}" for c in key),
    ):
        assert unquote(spelled) == key
        headers = {"Location": f"https://elsewhere.example/?key={spelled}"}
        begun, said = api.Answer("GET x", 302, headers, b""), f"see /?key={spelled}".encode()
        answer = receive(begun, [said], 1000, Mask(key))
        assert (answer.headers["location"], answer.body) == (
            "https://elsewhere.example/?key=***",
            b"see /?key=***",
        )
        assert Mask(key).text(f"no proxy for {spelled}") == "no proxy for ***"
