"""Hostile servers, hostile words, and a curious reader of tracebacks."""

from __future__ import annotations

import copy
import dataclasses
import errno
import gzip
import json
import re
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import chain, repeat
from typing import Any, NoReturn

import pytest
import trustme

from airflow_provider_timextender import answers, arriving, errors, logs
from airflow_provider_timextender import jobs_api as api
from airflow_provider_timextender.carrier import ERROR_LIMIT
from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.logs import LastLines
from airflow_provider_timextender.simulator import Simulator

from ..conftest import API_KEY
from ..pairwise import pairwise
from ..pure.test_security import EVIL, is_plain, shown
from .calling import CALLERS, Caller

JOB = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
TRIGGER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
STATUS = api.job_status(JOB)
MIB = 1024 * 1024


@dataclass
class Server:
    """What a server of bytes has got, and how much of its answer it got rid of."""

    port: int
    heard: list[bytes] = field(default_factory=list)
    sent: int = 0


Answer = Callable[[], Iterable[bytes]]


@contextmanager
def serving(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Say the same to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(listening.getsockname()[1])

        def serve() -> None:
            with suppress(OSError):
                while True:
                    accepted, _ = listening.accept()
                    with suppress(OSError), accepted:
                        accepted.settimeout(10)
                        talk(accepted)

        def talk(accepted: socket.socket) -> None:
            with context.wrap_socket(accepted, server_side=True) if context else accepted as talking:
                server.heard.append(talking.recv(65536))
                for piece in answer():
                    talking.sendall(piece)
                    server.sent += len(piece)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        assert not thread.is_alive(), "somebody still reads"


@contextmanager
def carrier(kind: str, port: int, *, scheme: str = "http", **changes: Any) -> Iterator[Caller]:
    found = Settings(API_KEY, **{"base_url": f"{scheme}://127.0.0.1:{port}", "timeout": 5, **changes})
    with CALLERS.get(kind, Caller)(found) as made:
        yield made


def failure(kind: str, port: int, call: api.Call[Any] = STATUS, **changes: Any) -> errors.TimeXtenderError:
    """Return the error that a call ends in: a read, on a worker or from an event loop, or a submission."""
    with carrier(kind, port, **changes) as made, pytest.raises(errors.TimeXtenderError) as caught:
        made.submit(call) if kind == "submission" else made.read(call)
    return caught.value


both = pytest.mark.parametrize("kind", ["worker", "event loop"])
all_ways = pytest.mark.parametrize("kind", ["worker", "event loop", "submission"])


# --- how much is read ---


def say(head: bytes, piece: bytes = b"", times: int | None = None) -> Answer:
    """Say a head, and a piece so many times, or for ever."""
    more = repeat(piece, 0) if not piece else repeat(piece) if times is None else repeat(piece, times)
    return lambda: chain([b"HTTP/1.1 " + head], copy.copy(more))


def packed(encoding: bytes, wbits: int, piece: bytes) -> Answer:
    """Say a piece again and again, in a compressed stream without an end."""
    packer = zlib.compressobj(9, wbits=wbits)
    head = packer.compress(b"[") + packer.flush(zlib.Z_FULL_FLUSH)
    packer.compress(piece)
    packer.flush(zlib.Z_FULL_FLUSH)  # from here on, the same piece becomes the same bytes
    again = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    return say(b"200 OK\r\nContent-Encoding: " + encoding + b"\r\n\r\n" + head, again * 50)


SPACES = b" " * 65536
CHUNK = b"10000\r\n" + SPACES + b"\r\n"
ENDLESS = {
    "100 MB": say(b"200 OK\r\nContent-Length: 104857600\r\n\r\n", SPACES, 1600),
    "no end": say(b"200 OK\r\n\r\n", SPACES),
    "chunks without an end": say(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNK),
    "one chunk without an end": say(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n", SPACES),
    "gzip bomb": packed(b"gzip", 31, b" " * MIB),
    "gzip of nothing": packed(b"GZip", 31, b""),
    "deflate bomb": packed(b"deflate", 15, b" " * MIB),
    "gzip twice": packed(b"gzip, gzip", 31, b" " * MIB),
}


@contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """Measure how many bytes Python takes at most meanwhile."""
    tracemalloc.start()
    most: list[int] = []
    try:
        yield lambda: most[0]
    finally:
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


@all_ways
@pytest.mark.parametrize("answer", ENDLESS.values(), ids=list(ENDLESS))
def test_r41_an_answer_is_read_up_to_a_limit(kind: str, answer: Answer) -> None:
    with memory() as peak, serving(answer) as server:
        error = failure(kind, server.port)
    # What cannot be JSON is not read on for long.
    is_json = "deflate" not in str(error) and r"\x" not in str(error)
    says = "is larger than 1048576 bytes, the limit for this call" if is_json else "is not JSON"
    assert says in str(error)
    expected = errors.AnswerTooLarge if is_json else errors.UnreadableAnswer
    assert type(error) is (errors.SubmissionUncertain if kind == "submission" else expected)
    assert f"{STATUS.path}" in str(error)
    assert len(str(error)) < 1500
    assert peak() < 8 * MIB
    assert server.sent < 30 * MIB, "the connection is closed, and not read to its end"


@both
def test_r41_an_unpacked_log_is_limited_as_well(kind: str) -> None:
    call = api.job_logs(JOB)
    with memory() as peak, serving(packed(b"gzip", 31, b" " * MIB)) as server:
        error = failure(kind, server.port, call)
    assert "a single JSON object in it is larger than 4194304 bytes" in str(error)
    assert type(error) is errors.AnswerTooLarge
    assert peak() < 4 * MIB


ENTRY = b'{"Severity":"Information","Timestamp":"2026-01-01T00:00:00Z","Message":"' + b"m" * 300 + b'"},'


@both
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b'[{"Logs":[', ENTRY * 200),
        (b"[", b'{"TriggerId":"x","Logs":[' + ENTRY * 50 + b"{}]},"),
        (b"[", b'{"State":"Succeeded","End":"2026-01-01","Logs":[' + ENTRY * 50 + b"{}]},"),
        (b"[", b'{"TriggerId":"x","More":"' + b"m" * 300_000 + b'"},'),
    ],
    ids=["one execution", "many", "many that have ended", "large ones"],
)
@pytest.mark.parametrize(
    "keep",
    [None, LastLines(TRIGGER), LastLines(None, datetime(2000, 1, 1, tzinfo=timezone.utc))],
    ids=["nothing", "last lines", "last lines since a moment"],
)
def test_r44_a_log_passes_in_little_memory_and_not_for_ever(
    kind: str, head: bytes, piece: bytes, keep: answers.Keep | None
) -> None:
    call = dataclasses.replace(api.job_logs(JOB, keep=keep), limit=48 * MIB)
    with memory() as peak, serving(say(b"200 OK\r\n\r\n" + head, piece)) as server:
        error = failure(kind, server.port, call)
    assert "is larger than 50331648 bytes, the limit for this call" in str(error)
    assert peak() < 6 * MIB


@pairwise(
    answer=ENDLESS,
    status={"503": b"503 Sorry", "302": b"302 Found\r\nLocation: /elsewhere"},
    kind=["worker", "event loop"],
)
def test_r14_of_an_error_only_the_beginning_is_read(kind: str, status: bytes, answer: Answer) -> None:
    def fail() -> Iterable[bytes]:
        said = iter(answer())
        yield next(said).replace(b"200 OK", status)
        yield from said

    with memory() as peak, serving(fail) as server:
        error = failure(kind, server.port, api.job_logs(JOB))
    assert type(error) is (errors.ServerError if status.startswith(b"503") else errors.Refused)
    assert f"HTTP {status[:3].decode()}" in str(error)
    assert peak() < 4 * MIB
    assert server.sent < 10 * MIB


ENDLESS_HEADERS = {
    "many": say(b"200 OK\r\n", b"X-Header: value\r\n"),
    "a long one": say(b"200 OK\r\nX-Header: ", SPACES),
    "a long status line": say(b"200 ", SPACES),
    "go on": say(b"100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": say(b"103 Early Hints\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "chunk size": say(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 65536),
    "trailers": say(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Header: value\r\n"),
}


@all_ways
@pytest.mark.parametrize("answer", ENDLESS_HEADERS.values(), ids=list(ENDLESS_HEADERS))
def test_r18_headers_without_an_end_are_an_error_in_time(kind: str, answer: Answer) -> None:
    began = time.monotonic()
    with memory() as peak, serving(answer) as server:
        error = failure(kind, server.port, timeout=0.3)
        assert time.monotonic() - began < 60, "it does not go on for ever"
    assert isinstance(error, (errors.Unreachable, errors.ServerError, errors.SubmissionUncertain))
    assert isinstance(error, errors.SubmissionUncertain) is (kind == "submission")
    assert len(str(error)) < 1500
    assert peak() < 8 * MIB


def drops(head: bytes, drop: bytes) -> Answer:
    def fall() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n" + head
        while True:
            time.sleep(0.05)
            yield drop

    return fall


DROPS = {
    "of a body": drops(b"\r\n", b" "),
    "of a body of known length": drops(b"Content-Length: 100000\r\n\r\n", b" "),
    "of chunks": drops(b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "of a header": drops(b"X-Header: ", b"x"),
}


@all_ways
@pytest.mark.parametrize("answer", DROPS.values(), ids=list(DROPS))
def test_r18_an_answer_in_drops_is_an_error_after_four_timeouts(kind: str, answer: Answer) -> None:
    began = time.monotonic()
    with serving(answer) as server:
        error = failure(kind, server.port, timeout=0.5)
        assert 1.9 < time.monotonic() - began < 30
        server.heard.clear()
    assert "imeout" in str(error) or "timed out" in str(error)
    assert type(error) is (errors.SubmissionUncertain if kind == "submission" else errors.Unreachable)


# --- what is read ---


def whole(body: bytes, headers: bytes = b"") -> Answer:
    return say(b"200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), headers, body))


def test_a_full_disk_is_not_told_as_an_error_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logs, "TemporaryFile", full)
    lines = b",".join([b'{"Message": "%s"}' % (b"x" * 1000)] * 5000)
    call = api.each_execution(JOB, keep=logs.WantedLines(logs.LogFilter()))
    with serving(whole(b'[{"Logs": [%s]}]' % lines)) as server, carrier("worker", server.port) as made:
        with pytest.raises(errors.TimeXtenderError, match=r"No space left.*TMPDIR") as failed:
            list(made.carrier.stream(call))
        assert not failed.value.transient


def test_r09_what_an_answer_says_before_it_breaks_off_has_been_understood() -> None:
    begun = b'[{"Logs": []}, {"Pad": "%s"' % (b" " * 200_000)
    cut = say(b"200 OK\r\nContent-Length: 999999\r\n\r\n" + begun)
    with serving(cut) as server, carrier("worker", server.port) as made:
        with pytest.raises(errors.Unreachable):
            list(made.carrier.stream(api.each_execution(JOB, keep=None)))
        assert made.understood == {"log"}


GZIP = b"Content-Encoding: gzip\r\n"
IDLE = b'{"Status": "idle"}'


@both
@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"x-gzip"])
def test_gzip_is_asked_for_and_understood(kind: str, encoding: bytes) -> None:
    body = whole(gzip.compress(IDLE), b"Content-Encoding: " + encoding + b"\r\n")
    with serving(body) as server, carrier(kind, server.port) as made:
        assert made.read(STATUS).state == "idle"
    (asked,) = re.findall(rb"(?i)accept-encoding: (.*?)\r\n", server.heard[0])
    assert asked == b"gzip"


@both
def test_other_words_for_no_encoding_do_no_harm(kind: str) -> None:
    body = whole(IDLE, b"Content-Encoding: utf-8\r\n")
    with serving(body) as server, carrier(kind, server.port) as made:
        assert made.read(STATUS).state == "idle"


BROKEN = {
    "gzip that breaks off": (whole(gzip.compress(IDLE)[:-4], GZIP), "its gzip breaks off"),
    "no gzip": (whole(IDLE, GZIP), "its gzip is broken"),
    "gzip and more": (whole(gzip.compress(IDLE) * 2, GZIP), "something follows its gzip"),
    "deflate": (whole(zlib.compress(IDLE), b"Content-Encoding: deflate\r\n"), "is not JSON"),
    "too little": (say(b"200 OK\r\nContent-Length: 100\r\n\r\n" + IDLE), "no answer"),
    "too much": (say(b"200 OK\r\nContent-Length: 5\r\n\r\n" + IDLE), "is not JSON|no answer"),
    "less than nothing": (say(b"200 OK\r\nContent-Length: -5\r\n\r\n{"), "is not JSON|no answer"),
    "no length": (say(b"200 OK\r\nContent-Length: 0x5\r\n\r\n{"), "is not JSON|no answer"),
    "no chunk": (say(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"), "no answer"),
    "half a chunk": (say(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n{"), "no answer"),
    "a negative chunk": (
        say(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}"),
        "no answer|is not JSON",
    ),
    "latin-1": (whole('{"Status": "gel\xf6st"}'.encode("latin-1")), "is not JSON"),
    "deep": (whole(b"[" * 10**6), "is nested too deep"),
    "a huge number": (whole(b'{"Status": ' + b"1" * 10**6 + b"}"), "is not JSON"),
    "no member ends": (whole(b'{"' * 1000), "is not JSON"),
    "many objects": (
        whole(b"[" + b"{}," * (arriving.MAX_OBJECTS + 1) + b"{}]"),
        "more than 500000 JSON objects",
    ),
}


@all_ways
@pytest.mark.parametrize("broken", BROKEN.values(), ids=list(BROKEN))
def test_r14_a_broken_answer_is_a_clear_error(kind: str, broken: tuple[Answer, str]) -> None:
    answer, says = broken
    call = dataclasses.replace(STATUS, limit=4 * MIB)
    with serving(answer) as server:
        error = failure(kind, server.port, call)
    assert re.search(says, str(error))
    assert len(str(error)) < 1500
    assert isinstance(
        error,
        errors.SubmissionUncertain
        if kind == "submission"
        else (errors.AnswerTooLarge if "objects" in says else errors.UnreadableAnswer, errors.Unreachable),
    )


@both
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be"])
def test_any_unicode_is_understood(kind: str, encoding: str) -> None:
    body = json.dumps({"Status": "idle", "Job": "Müller"}, ensure_ascii=False).encode(encoding)
    with serving(whole(body)) as server, carrier(kind, server.port) as made:
        assert made.read(STATUS).state == "idle"


@both
def test_a_kept_connection_is_used_again_after_gzip_and_errors(kind: str, simulator: Simulator) -> None:
    port = int(simulator.url.rpartition(":")[2])
    with carrier(kind, port) as made:
        for _ in range(2):
            made.read(api.list_jobs())
            with pytest.raises(errors.Refused):
                made.read(STATUS)
    assert len({request.connection for request in simulator.requests}) == 1


@both
def test_r34_nothing_of_an_answer_is_in_the_next_request(kind: str) -> None:
    body = whole(IDLE, b"Set-Cookie: a=b; Path=/\r\nConnection: close\r\n")
    with serving(body) as server, carrier(kind, server.port) as made:
        made.read(STATUS)
        made.read(STATUS)
    first, second = server.heard
    assert first == second


# --- certificates ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context_of(authority: trustme.CA, *names: str, **dates: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **dates).configure_cert(context)
    return context


YESTERDAY = datetime.now(timezone.utc) - timedelta(days=1)


@all_ways
@pytest.mark.parametrize("wrong", ["authority", "host", "date"])
def test_r36_a_wrong_certificate_is_a_clear_error_and_no_key_is_sent(
    kind: str, wrong: str, authority: trustme.CA, tmp_path: Any
) -> None:
    bundle = tmp_path / "ca.pem"
    (trustme.CA() if wrong == "authority" else authority).cert_pem.write_to_path(str(bundle))
    context = context_of(
        authority,
        "elsewhere.example" if wrong == "host" else "127.0.0.1",
        **{"not_before": YESTERDAY - timedelta(1), "not_after": YESTERDAY} if wrong == "date" else {},
    )
    with serving(whole(IDLE), context) as server:
        error = failure(kind, server.port, scheme="https", verify=str(bundle))
    assert isinstance(error, errors.BadCertificate)
    assert re.search(r"is not trusted.*(unable to get|doesn't match|not valid for|expired)", str(error))
    assert server.heard == []


@all_ways
@pytest.mark.parametrize(
    "answer", [say(b"400 Bad Request\r\n\r\n"), say(b""), lambda: []], ids=["http", "half", "nothing"]
)
def test_r05_what_fails_before_tls_stands_was_not_sent(kind: str, answer: Answer) -> None:
    with serving(answer) as server:
        error = failure(kind, server.port, scheme="https")
    assert isinstance(error, errors.Unreachable)
    assert not error.sent
    assert all(heard.startswith(b"\x16\x03") for heard in server.heard), "only the hello of TLS"
    assert API_KEY.encode() not in b"".join(server.heard)


# --- redirects ---


@pairwise(
    to=["/public/jobs", "{}/public/jobs", "https:{}", "//[", "file:///etc/passwd"],
    status=[300, 301, 302, 303, 305, 307, 308],
    kind=["worker", "event loop", "submission"],
)
def test_r34_no_redirect_is_followed(kind: str, status: int, to: str) -> None:
    with serving(whole(IDLE)) as elsewhere:
        location = to.format(f"http://127.0.0.1:{elsewhere.port}").encode()
        answer = say(b"%d Gone\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n" % (status, location))
        with serving(answer) as server:
            error = failure(kind, server.port)
        assert len(server.heard) == 1
        assert elsewhere.heard == []
    assert isinstance(error, errors.Refused)
    assert error.status == status
    assert "redirects are not followed" in str(error)


# --- words that look like something else ---


@both
@pytest.mark.parametrize("status", [200, 302, 401, 418, 429, 503])
def test_r41_no_body_can_forge_a_log_line(kind: str, status: int) -> None:
    body = EVIL.encode()
    answer = say(b"%d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
    with serving(answer) as server:
        error = failure(kind, server.port)
    assert "Task succeeded" in str(error)
    assert is_plain(str(error))


@both
@pytest.mark.parametrize(
    "said",
    [
        say(b"403 \x1b[31mred\x9b\r\n\r\n"),
        say(b"302 X\r\nLocation: //\x1b[31m\xe2\x80\xae/\r\nContent-Length: 0\r\n\r\n"),
        say(b"401 X\r\nRetry-After: \x1b[31m\r\nContent-Length: 0\r\n\r\n"),
        lambda: [b"\x1b[31mHTTP/1.1 200 OK\r\n\r\n"],
        lambda: [b"HTTP/\x1b[31m 200 OK\r\n\r\n"],
        say(b"\x1b[31m OK\r\n\r\n"),
        say(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\x1b[31m\r\n"),
        say(b"200 OK\r\n\x1b[31m: x\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_r41_no_header_can_forge_a_log_line(kind: str, said: Answer) -> None:
    with serving(said) as server:
        assert is_plain(str(failure(kind, server.port)))


@both
def test_r41_no_proxy_can_forge_a_log_line_or_show_its_password(kind: str) -> None:
    with serving(say(b"403 \x1b[31mred\r\n\r\n")) as server:
        proxies = {"https": f"http://me:pass-w0rd@127.0.0.1:{server.port}"}
        error = failure(kind, 1, scheme="https", proxies=proxies)
    assert "403" in str(error)
    assert is_plain(str(error))
    assert "pass-w0rd" not in shown(error)


# --- the key ---


QUOTED = json.dumps({"error": f"no such key: {API_KEY}"}).encode()
ESCAPED = QUOTED.replace(b"K3y", rb"\u004b3\u0079").replace(b"-", rb"\-").replace(b"tx", rb"\u0074x")
KEEP = b"Content-Length: %d\r\n\r\n%s"
FAILURES: dict[str, Answer] = {
    "refused": say(b"401 X\r\n" + KEEP % (len(QUOTED), QUOTED)),
    "fails": say(b"500 X\r\n" + KEEP % (len(QUOTED), QUOTED)),
    "escaped": say(b"500 X\r\n" + KEEP % (len(ESCAPED), ESCAPED)),
    "not json": whole(b"<html>" + QUOTED),
    "not json, packed": whole(gzip.compress(b"<html>" + QUOTED), GZIP),
    "not json, long": whole(QUOTED * 5000),
    "not json, utf-16": whole(("<html>" + QUOTED.decode()).encode("utf-16")),
    "not our json": whole(b"[" + QUOTED + b"]"),
    "not our json, long": whole(json.dumps([API_KEY] * 10000).encode()),
    "cut": say(b"200 OK\r\nContent-Length: 1000\r\n\r\n" + QUOTED),
    "too large": say(b"200 OK\r\n\r\n", QUOTED * 100),
    "cut within the key": say(b"503 X\r\n\r\n", b" " * (ERROR_LIMIT - 10) + API_KEY.encode() * 9, 1),
    "broken gzip": whole(QUOTED, GZIP),
    "redirect": say(b"302 X\r\nLocation: http://%s/\r\n" % API_KEY.encode() + KEEP % (0, b"")),
    "header": say(b"500 X\r\nX-Key: %s\r\n" % API_KEY.encode() + KEEP % (0, b"")),
    "reason": say(b"500 %s\r\n" % API_KEY.encode() + KEEP % (0, b"")),
    "no http": lambda: [API_KEY.encode() + b" says hello\r\n\r\n"],
    "no status": say(API_KEY.encode() + b" OK\r\n\r\n"),
    "no chunk": say(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + API_KEY.encode() + b"\r\n"),
    "no length": say(b"200 OK\r\nContent-Length: " + API_KEY.encode() + b"\r\n\r\n"),
    "nothing": lambda: [],
    "drops": drops(b"X-Key: " + API_KEY.encode(), b"x"),
}


@all_ways
@pytest.mark.parametrize("answer", FAILURES.values(), ids=list(FAILURES))
def test_r34_no_frame_of_an_error_shows_the_key(kind: str, answer: Answer) -> None:
    with serving(answer) as server:
        error = failure(kind, server.port, timeout=0.2)
    assert API_KEY.encode() in server.heard[0], "the key was sent"
    dump = shown(error)
    assert any(name in dump for name in ("settings", "self = ", "world = ")), "there are frames of ours"
    assert API_KEY not in dump
    assert API_KEY[:9] not in dump


@all_ways
def test_r34_no_frame_of_an_error_before_anything_is_sent_shows_the_key(kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for changes in (
            {},
            {"scheme": "https", "verify": "/nonexistent.pem"},
            {"proxies": {"http": f"http://me:{API_KEY}@127.0.0.1:{port}"}},
        ):
            assert API_KEY not in shown(failure(kind, port, **changes))
