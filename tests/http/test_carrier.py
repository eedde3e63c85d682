"""One exchange, over real HTTP where a mock would hide something."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import requests_mock
import trustme
from urllib3 import exceptions as urllib3

from airflow_provider_timextender import errors
from airflow_provider_timextender import jobs_api as api
from airflow_provider_timextender.carrier import CONNECTIONS, Carrier
from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.simulator import Fault, Simulator

from ..conftest import API_KEY
from ..waiting import comes_true
from .calling import CALLERS, Caller

LIST = api.list_jobs()
POST = dataclasses.replace(LIST, method="POST")  # what must not be sent twice, and can be answered like LIST
both = pytest.mark.parametrize("call", [LIST, POST], ids=["read", "submission"])


@pytest.fixture(params=CALLERS)
def make(request: pytest.FixtureRequest, simulator: Simulator) -> Iterator[Callable[..., Caller]]:
    """Make somebody who sends with a carrier of their own: on a worker, and from an event loop."""
    with ExitStack() as made:

        def make(**changes: Any) -> Caller:
            found = Settings(API_KEY, **{"base_url": simulator.url, "timeout": 0.5, **changes})
            return made.enter_context(CALLERS[request.param](found))

        yield make


@pytest.fixture
def make_carrier(simulator: Simulator) -> Iterator[Callable[..., Carrier]]:
    """Make a carrier alone."""
    with ExitStack() as made:

        def make_carrier(**changes: Any) -> Carrier:
            found = Settings(API_KEY, **{"base_url": simulator.url, "timeout": 0.5, **changes})
            return made.enter_context(Carrier(found))

        yield make_carrier


def job_id(simulator: Simulator) -> str:
    return simulator.job("load").id


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port on which surely nobody listens: bound, and never listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# --- what is sent ---


def test_reads_share_one_connection(simulator: Simulator, make: Callable[..., Caller]) -> None:
    with make() as carrier:
        for _ in range(5):
            carrier.send(LIST)
    assert len({request.connection for request in simulator.requests}) == 1


def test_r05_a_submission_does_not_ride_a_kept_connection(
    simulator: Simulator, make: Callable[..., Caller]
) -> None:
    carrier = make()
    carrier.send(LIST)
    receipt = carrier.send(api.execute_job(job_id(simulator)))
    carrier.send(LIST)
    assert receipt.trigger_id == simulator.world.executions[0].trigger_id
    first, second, third = simulator.requests
    assert first.connection == third.connection != second.connection


def test_who_asks_is_said(make: Callable[..., Caller], simulator: Simulator) -> None:
    make().send(LIST)
    headers = simulator.requests[0].headers
    assert headers["User-Agent"].startswith("airflow-provider-timextender/")
    assert headers["Accept"] == "application/json"


@both
def test_r18_every_request_has_a_timeout(
    make: Callable[..., Caller], mocker: Any, call: api.Call[Any]
) -> None:
    sent = mocker.patch("requests.adapters.HTTPAdapter.send", side_effect=requests.ConnectionError("x"))
    with pytest.raises(errors.Unreachable):
        make(timeout=7).send(call)
    assert {call.kwargs["timeout"] for call in sent.call_args_list} == {7}


def test_the_key_goes_into_the_header_that_the_connection_names(
    simulator: Simulator, make: Callable[..., Caller]
) -> None:
    with pytest.raises(errors.Refused, match="HTTP 401"):
        make(api_key_header="X-Other").send(LIST)
    (request,) = simulator.requests
    assert request.headers["X-Other"] == API_KEY
    assert "x-api-key" not in {name.lower() for name in request.headers}


def test_no_credentials_of_a_netrc_are_sent(
    simulator: Simulator, make: Callable[..., Caller], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    make().send(LIST)
    assert "Authorization" not in simulator.requests[0].headers


def test_r34_redirects_are_refused_and_the_key_goes_nowhere_else(
    simulator: Simulator, make: Callable[..., Caller]
) -> None:
    with Simulator(api_key=API_KEY) as elsewhere:
        simulator.fault("jobs", Fault("redirect", location=f"{elsewhere.url}/public/jobs"))
        with pytest.raises(errors.Refused, match=r"redirects to '127\.0\.0\.1:\d+'"):
            make().send(LIST)
        assert elsewhere.requests == []


# --- what comes of it: one request, one error ---


PASSING = {
    "500": (Fault("status", status=500), errors.ServerError),
    "502": (Fault("status", status=502, body="<html>Bad gateway</html>"), errors.ServerError),
    "503": (Fault("status", status=503, body="in maintenance"), errors.ServerError),
    "504": (Fault("status", status=504), errors.ServerError),
    "408": (Fault("status", status=408), errors.ServerError),
    "429": (Fault("status", status=429), errors.RateLimited),
    "reset": (Fault("reset"), errors.Unreachable),
    "silence": (Fault("silence"), errors.Unreachable),
    "html": (Fault("html"), errors.UnreadableAnswer),
    "cut": (Fault("cut"), (errors.Unreachable, errors.UnreadableAnswer)),
}


@pytest.mark.parametrize(("fault", "kind"), PASSING.values(), ids=list(PASSING))
def test_r09_a_passing_fault_is_a_passing_error(
    simulator: Simulator, make: Callable[..., Caller], fault: Fault, kind: Any
) -> None:
    simulator.fault("jobs", fault)
    carrier = make()
    with pytest.raises(kind) as caught:
        carrier.send(LIST)
    assert caught.value.transient
    assert getattr(caught.value, "sent", True)
    assert simulator.count("jobs") == 1, "it is not asked again"
    assert [job.name for job in carrier.send(LIST)] == ["load"]


@pytest.mark.parametrize("taken", [False, True], ids=["lost before", "lost after"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        *[case for name, case in PASSING.items() if name != "429"],
        (Fault("wrong type"), errors.ContractError),
        (Fault("body", body="{}"), errors.ContractError),
    ],
    ids=lambda case: f"{case.kind} {case.status or ''}" if isinstance(case, Fault) else "",
)
def test_r05_of_a_lost_reply_it_is_told_that_the_request_may_have_arrived(
    simulator: Simulator, make: Callable[..., Caller], fault: Fault, kind: Any, taken: bool
) -> None:
    simulator.fault("execute", dataclasses.replace(fault, taken=taken))
    with pytest.raises(kind) as caught:
        make().send(api.execute_job(job_id(simulator)))
    assert getattr(caught.value, "sent", True)
    assert simulator.count("execute") == 1


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 418])
@pytest.mark.parametrize("route", ["jobs", "execute"])
def test_r08_a_refusal_is_told_with_its_status(
    simulator: Simulator, make: Callable[..., Caller], route: str, status: int
) -> None:
    simulator.fault(route, Fault("status", status=status))  # type: ignore[arg-type]
    call: api.Call[Any] = LIST if route == "jobs" else api.execute_job(job_id(simulator))
    with pytest.raises(errors.Refused) as caught:
        make().send(call)
    assert caught.value.status == status
    assert not caught.value.transient
    assert simulator.count(route) == 1  # type: ignore[arg-type]


def test_r09_what_a_server_says_and_asks_for_is_told(
    simulator: Simulator, make: Callable[..., Caller]
) -> None:
    simulator.fault("jobs", Fault("status", status=503, body="in maintenance", retry_after="7"))
    with pytest.raises(errors.ServerError, match=r"HTTP 503.*in maintenance") as caught:
        make().send(LIST)
    assert caught.value.retry_after == 7


def test_r09_json_of_another_shape_may_pass_where_the_right_one_has_come_before(
    simulator: Simulator, make: Callable[..., Caller]
) -> None:
    strange = [Fault("wrong type"), Fault("body", body='{"message": "maintenance"}')]
    simulator.fault("jobs", strange[0])
    carrier = make()
    with pytest.raises(errors.ContractError, match=r"an object with the members \['value'\]") as caught:
        carrier.send(LIST)
    assert not caught.value.transient
    assert len(carrier.send(LIST)) == 1
    assert carrier.understood == {"jobs", "list of jobs"}
    simulator.fault("jobs", *strange)
    for _ in strange:
        with pytest.raises(errors.UnreadableAnswer):
            carrier.send(LIST)
    simulator.fault("status", Fault("wrong type"))
    with pytest.raises(errors.ContractError) as caught:
        carrier.send(api.job_status(job_id(simulator)))
    assert not caught.value.transient, "of this call no right answer has come"


def test_r18_a_silent_server_is_an_error_within_the_timeout(
    simulator: Simulator, make: Callable[..., Caller]
) -> None:
    simulator.fault("jobs", always=Fault("silence"))
    began = time.monotonic()
    with pytest.raises(errors.Unreachable, match=r"no answer.*([Tt]imed out|Timeout)"):
        make(timeout=0.2).send(LIST)
    assert time.monotonic() - began < 10


@both
def test_r05_nobody_listens_so_nothing_was_sent(
    make: Callable[..., Caller], dead_port: int, call: api.Call[Any]
) -> None:
    with pytest.raises(errors.Unreachable, match=r"no answer.*Connection ?[Rr]efused") as caught:
        make(base_url=f"http://127.0.0.1:{dead_port}").send(call)
    assert not caught.value.sent
    assert caught.value.retry_helps


def test_r05_a_server_that_accepts_nobody_has_got_nothing(make: Callable[..., Caller]) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        with pytest.raises(errors.Unreachable, match="timed out") as caught:
            make(base_url=f"http://127.0.0.1:{address[1]}", timeout=0.3).send(POST)
        for each in waiting:
            each.close()
    assert not caught.value.sent


@both
def test_unknown_host_is_unreachable_and_surely_unsent(
    make: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch, call: api.Call[Any]
) -> None:
    def no_such_host(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    with pytest.raises(errors.Unreachable, match="Name or service not known") as caught:
        make(base_url="http://api.invalid").send(call)
    assert not caught.value.sent


def raise_unsent() -> None:
    raise urllib3.NewConnectionError(None, "what the caller is busy with")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "raised",
    [
        requests.exceptions.ChunkedEncodingError("broken off"),
        requests.exceptions.ReadTimeout("broken off"),
        requests.exceptions.ConnectTimeout("broken off"),
        requests.exceptions.SSLError("broken off"),
        requests.exceptions.ConnectionError(urllib3.ProtocolError("x", OSError("broken off"))),
        ConnectionResetError("broken off"),
        ValueError("broken off"),
        ssl.SSLError("broken off"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_r05_what_is_not_surely_unsent_counts_as_sent(make: Callable[..., Caller], raised: Exception) -> None:
    with requests_mock.Mocker() as mock:
        mock.get(requests_mock.ANY, exc=raised)
        try:
            raise_unsent()
        except urllib3.NewConnectionError:
            with pytest.raises(errors.Unreachable, match="broken off") as caught:
                make().send(LIST)
    assert caught.value.sent


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=401, body=f'{{"error": "invalid key {API_KEY}"}}'),
        Fault("status", status=500, body="x" * (495 - 10) + API_KEY),
        Fault("body", body=f"<html>{API_KEY}</html>"),
        Fault("body", body=f'[{{"Id": "{API_KEY}"}}]'),
        Fault("body", body="x" * (495 - 10) + API_KEY),
        Fault("reset"),
        Fault("silence"),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status or ''}",
)
def test_r34_the_key_is_in_no_error_even_if_the_server_quotes_it(
    simulator: Simulator, make: Callable[..., Caller], fault: Fault
) -> None:
    simulator.fault("jobs", always=fault)
    with pytest.raises(errors.TimeXtenderError) as caught:
        make(timeout=0.2).send(LIST)
    shown = "".join(traceback.format_exception(caught.value))
    assert API_KEY not in shown
    assert API_KEY[:8] not in shown
    for error in chain(caught.value):
        assert not isinstance(error, requests.RequestException), "it holds the request, with its headers"


def _say_raw(answer: bytes) -> Iterator[int]:
    """Serve one and the same bytes to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def raw(request: pytest.FixtureRequest) -> Iterator[int]:
    yield from _say_raw(request.param)


BODY = b"Content-Length: 2\r\nConnection: close\r\n\r\n[]"
STRANGE = {
    "bad location": b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n" + BODY,
    "location that is no text": b"HTTP/1.1 302 Found\r\nLocation: http://\xff/\r\n" + BODY,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
    "no status": f"HTTP/1.1 {API_KEY}\r\n".encode() + BODY,
    "no http": f"{API_KEY} says hello\r\n\r\n".encode(),
    "bad chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{API_KEY}\r\n".encode(),
    "bad gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + BODY,
}


@both
@pytest.mark.parametrize("raw", STRANGE.values(), ids=list(STRANGE), indirect=True)
def test_r14_r34_a_strange_answer_is_one_of_our_errors_and_shows_no_key(
    make: Callable[..., Caller], raw: int, call: api.Call[Any]
) -> None:
    with pytest.raises(errors.TimeXtenderError) as caught:
        make(base_url=f"http://127.0.0.1:{raw}").send(call)
    assert not isinstance(caught.value, errors.InvalidInput)
    assert getattr(caught.value, "sent", True)
    assert API_KEY not in str(caught.value)


# --- proxies and certificates ---


class _Recorder(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")

    def do_CONNECT(self) -> None:
        self.server.seen.append(f"CONNECT {self.path}")  # type: ignore[attr-defined]
        self.send_response(403)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def _serve(context: ssl.SSLContext | None = None) -> Iterator[Any]:
    server = HTTPServer(("127.0.0.1", 0), _Recorder)
    server.seen = []  # type: ignore[attr-defined]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy() -> Iterator[Any]:
    yield from _serve()


def test_r36_a_proxy_of_the_connection(make: Callable[..., Caller], proxy: Any) -> None:
    address = f"http://127.0.0.1:{proxy.server_port}"
    carrier = make(base_url="http://api.invalid", proxies={"http": address})
    assert carrier.send(LIST) == []
    assert proxy.seen == ["http://api.invalid/public/jobs"]


def test_r36_https_proxy_and_no_proxy_of_the_environment(
    simulator: Simulator, make: Callable[..., Caller], proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://127.0.0.1:{proxy.server_port}"
    monkeypatch.setenv("HTTPS_PROXY", address)
    monkeypatch.setenv("HTTP_PROXY", address)
    with pytest.raises(errors.Unreachable, match="403"):
        make(base_url="https://api.invalid").send(LIST)
    assert proxy.seen == ["CONNECT api.invalid:443"]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    make().send(LIST)
    assert proxy.seen == ["CONNECT api.invalid:443"]


@both
def test_r05_a_proxy_that_refuses_has_passed_nothing_on(
    make: Callable[..., Caller], proxy: Any, call: api.Call[Any]
) -> None:
    address = f"http://127.0.0.1:{proxy.server_port}"
    with pytest.raises(errors.Unreachable, match="403") as caught:
        make(base_url="https://api.invalid", proxies={"https": address}).send(call)
    assert not caught.value.sent


@both
def test_r05_a_proxy_that_is_not_there_has_passed_nothing_on(
    make: Callable[..., Caller], dead_port: int, call: api.Call[Any]
) -> None:
    for scheme in ("http", "https"):
        proxies = {scheme: f"http://127.0.0.1:{dead_port}"}
        with pytest.raises(errors.Unreachable, match="refused") as caught:
            make(base_url=f"{scheme}://api.invalid", proxies=proxies).send(call)
        assert not caught.value.sent


@pytest.mark.parametrize("address", ["quic://127.0.0.1:1", "socks5://127.0.0.1:1"])
def test_r36_a_proxy_of_a_kind_that_cannot_be_used_is_a_clear_error(
    make: Callable[..., Caller], address: str
) -> None:
    with pytest.raises(errors.InvalidInput, match="Check the host, `proxies` and `verify`"):
        make(base_url="https://api.invalid", proxies={"https": address}).send(POST)


def test_a_ca_bundle_that_is_none_is_a_clear_error(
    make: Callable[..., Caller], https: Any, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("no certificate")
    carrier = make(base_url=f"https://127.0.0.1:{https.server_port}", verify=str(bundle))
    with pytest.raises(errors.InvalidInput, match=r"CA bundle .*ca\.pem' cannot be read"):
        carrier.send(LIST)


def test_a_ca_bundle_that_is_not_there_is_a_clear_error(make: Callable[..., Caller], https: Any) -> None:
    carrier = make(base_url=f"https://127.0.0.1:{https.server_port}", verify="/nonexistent.pem")
    with pytest.raises(errors.InvalidInput, match=r"CA bundle.*nonexistent\.pem"):
        carrier.send(LIST)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def https(authority: trustme.CA) -> Iterator[Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    yield from _serve(context)


@both
def test_r36_a_certificate_that_is_not_trusted_is_a_clear_error_at_once(
    make: Callable[..., Caller], https: Any, call: api.Call[Any]
) -> None:
    carrier = make(base_url=f"https://127.0.0.1:{https.server_port}")
    with pytest.raises(errors.BadCertificate, match=r"not trusted.*Nothing was sent.*`verify`") as caught:
        carrier.send(call)
    assert not caught.value.sent
    assert not caught.value.transient
    assert https.seen == []


def test_r36_a_ca_bundle_or_no_verification(
    make: Callable[..., Caller],
    https: Any,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base_url = f"https://127.0.0.1:{https.server_port}"
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    assert make(base_url=base_url, verify=str(bundle)).send(LIST) == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    assert make(base_url=base_url).send(LIST) == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    with pytest.warns(Warning, match="Unverified HTTPS"):
        assert make(base_url=base_url, verify=False).send(LIST) == []


# --- from an event loop ---


def test_from_an_event_loop_the_same_comes_of_it(
    simulator: Simulator, make_carrier: Callable[..., Carrier], dead_port: int
) -> None:
    async def ask() -> None:
        carrier = make_carrier()
        assert [job.name for job in await carrier.send_in_thread(LIST)] == ["load"]
        with pytest.raises(errors.Refused, match="HTTP 404"):
            await carrier.send_in_thread(api.job_status("3f2504e0-4f89-11d3-9a0c-0305e82c3301"))
        with pytest.raises(errors.Unreachable, match="refused") as caught:
            await make_carrier(base_url=f"http://127.0.0.1:{dead_port}").send_in_thread(LIST)
        assert not caught.value.sent

    asyncio.run(ask())


def test_r20_r21_waiting_calls_share_two_connections_and_hold_up_no_event_loop(
    simulator: Simulator, make_carrier: Callable[..., Carrier]
) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.02)
            ticks += 1

    async def ask() -> None:
        carrier = make_carrier()
        simulator.fault("jobs", *[Fault("silence")] * 4)
        ticking = asyncio.create_task(tick())
        calls = [carrier.send_in_thread(LIST) for _ in range(30)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        ticking.cancel()
        assert sum(isinstance(answer, errors.Unreachable) for answer in answers) == 4
        assert sum(isinstance(answer, list) for answer in answers) == 26

    began = time.monotonic()
    asyncio.run(ask())
    assert time.monotonic() - began > 0.9, "two silences after two"
    assert ticks > 10
    assert simulator.count("jobs") == 30
    assert len({request.connection for request in simulator.requests}) <= CONNECTIONS + 4, (
        "a silent one is closed"
    )


def test_r16_a_cancelled_wait_ends_at_once_and_sends_nothing_more(
    simulator: Simulator, make_carrier: Callable[..., Carrier]
) -> None:
    simulator.fault("jobs", always=Fault("silence"))

    async def ask() -> None:
        carrier = make_carrier(timeout=1)
        waits = [asyncio.create_task(carrier.send_in_thread(LIST)) for _ in range(10)]
        assert await comes_true(lambda: simulator.count("jobs") >= CONNECTIONS, pause=0.01)
        began = time.monotonic()
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert time.monotonic() - began < 0.5
        assert all(wait.cancelled() for wait in waits)
        with pytest.raises(errors.Unreachable):
            await carrier.send_in_thread(LIST)

    asyncio.run(ask())
    assert simulator.count("jobs") == CONNECTIONS + 1


def test_an_answer_for_which_nobody_waits_any_more_does_no_harm(
    simulator: Simulator, make_carrier: Callable[..., Carrier], caplog: pytest.LogCaptureFixture
) -> None:
    simulator.fault("jobs", always=Fault("silence"))
    before, carrier = threading.active_count(), make_carrier(timeout=0.2)

    async def ask() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(carrier.send_in_thread(LIST), 0.05)

    asyncio.run(ask())
    carrier.close()
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before, "its threads end with the request"
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_no_thread_is_started_for_each_call(
    simulator: Simulator, make_carrier: Callable[..., Carrier], mocker: Any
) -> None:
    carrier, threads = make_carrier(), set()

    def send(call: api.Call[Any]) -> Any:
        threads.add(threading.current_thread())
        return Carrier.send(carrier, call)

    async def ask() -> None:
        mocker.patch.object(carrier, "send", send)
        await asyncio.gather(*[carrier.send_in_thread(LIST) for _ in range(30)])
        for _ in range(10):
            await carrier.send_in_thread(LIST)

    asyncio.run(ask())
    assert simulator.count("jobs") == 40
    assert len(threads) <= CONNECTIONS
    assert threading.current_thread() not in threads


def test_a_carrier_that_nobody_closes_leaves_no_thread_behind(simulator: Simulator) -> None:
    before, carrier = set(threading.enumerate()), Carrier(Settings(API_KEY, base_url=simulator.url))
    asyncio.run(carrier.send_in_thread(LIST))
    begun = set(threading.enumerate()) - before
    assert len(begun) == CONNECTIONS
    del carrier
    gc.collect()
    for thread in begun:
        thread.join(10)
        assert not thread.is_alive()


def test_where_no_thread_can_be_started_nothing_is_sent_and_the_next_call_goes_on(
    simulator: Simulator, make_carrier: Callable[..., Carrier], mocker: Any
) -> None:
    async def ask() -> None:
        carrier = make_carrier()
        start = mocker.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start"))
        for _ in range(CONNECTIONS + 1):
            with pytest.raises(errors.Unreachable, match="can't start") as caught:
                await carrier.send_in_thread(LIST)
            assert not caught.value.sent
        assert start.call_count == CONNECTIONS + 1
        mocker.stopall()
        assert [job.name for job in await carrier.send_in_thread(LIST)] == ["load"]

    asyncio.run(ask())
    assert simulator.count("jobs") == 1


ASK_UNTIL_TOLD = """
import asyncio, sys
from airflow_provider_timextender.carrier import Carrier
from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.jobs_api import list_jobs

async def main():
    carrier = Carrier(Settings("key", base_url=sys.argv[1], timeout=60))
    asking = [asyncio.create_task(carrier.send_in_thread(list_jobs())) for _ in range(10)]
    await asyncio.to_thread(sys.stdin.read)
    for each in asking:
        each.cancel()
    carrier.close()

asyncio.run(main())
"""


def test_a_silent_server_does_not_hold_up_the_end_of_a_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [sys.executable, "-c", ASK_UNTIL_TOLD, f"http://127.0.0.1:{silent.getsockname()[1]}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as asking:
            silent.settimeout(30)
            with ExitStack() as accepted:
                for _ in range(CONNECTIONS):
                    connection = accepted.enter_context(silent.accept()[0])
                    assert connection.recv(65536).startswith(b"GET /public/jobs")
                began = time.monotonic()
                asking.communicate(timeout=30)
                assert time.monotonic() - began < 5
    assert asking.returncode == 0
