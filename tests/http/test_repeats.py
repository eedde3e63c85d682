"""The two carriers, over real HTTP where a mock would hide something: reads over both."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import nullcontext, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
import requests_mock
import trustme

from airflow_provider_timextender import errors
from airflow_provider_timextender import jobs_api as api
from airflow_provider_timextender.client import AsyncClient, Client
from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.simulator import Fault, Simulator

from ..conftest import API_KEY

T = TypeVar("T")


class FromWorker:
    """Lets a test use the carrier of an event loop as it uses the other one."""

    def __init__(self, settings: Settings, *, max_unreachable: float) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = self._run(self._make(settings, max_unreachable))

    @staticmethod
    async def _make(settings: Settings, max_unreachable: float) -> AsyncClient:
        return AsyncClient(settings, max_unreachable=max_unreachable)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def __enter__(self) -> FromWorker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def read(self, call: api.Call[T]) -> T:
        return self._run(self._client.read(call))

    def close(self) -> None:
        if not self._loop.is_closed():
            self._run(self._client.__aexit__(None, None, None))
            self._loop.close()


@pytest.fixture(params=["requests", "aiohttp"])
def make(request: pytest.FixtureRequest, simulator: Simulator) -> Iterator[Callable[..., Any]]:
    """Make a carrier of either kind."""
    made: list[FromWorker] = []

    def make(max_unreachable: float = 5, **changes: Any) -> Any:
        found = Settings(API_KEY, **{"base_url": simulator.url, "timeout": 0.5, **changes})
        if request.param == "requests":
            return Client(found, max_unreachable=max_unreachable)
        made.append(FromWorker(found, max_unreachable=max_unreachable))
        return made[-1]

    yield make
    for carrier in made:
        carrier.close()


@pytest.fixture
def make_worker(simulator: Simulator) -> Callable[..., Client]:
    """Make the carrier that can also submit."""

    def make_worker(max_unreachable: float = 5, **changes: Any) -> Client:
        found = Settings(API_KEY, **{"base_url": simulator.url, "timeout": 0.5, **changes})
        return Client(found, max_unreachable=max_unreachable)

    return make_worker


def job_id(simulator: Simulator) -> str:
    return simulator.job("load").id


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port on which surely nobody listens: bound, and never listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


# --- reads ---


def test_reads_share_one_connection(simulator: Simulator, make: Callable[..., Any]) -> None:
    with make() as carrier:
        for _ in range(5):
            carrier.read(api.list_jobs())
    assert len({request.connection for request in simulator.requests}) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=500),
        Fault("status", status=502, body="<html>Bad gateway</html>"),
        Fault("status", status=503),
        Fault("status", status=429),
        Fault("reset"),
        Fault("silence"),
        Fault("html"),
        Fault("cut"),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status or ''}",
)
def test_r09_a_passing_fault_is_survived(
    simulator: Simulator, make: Callable[..., Any], fault: Fault
) -> None:
    simulator.fault("jobs", fault, fault)
    jobs = make().read(api.list_jobs())
    assert [job.name for job in jobs] == ["load"]
    assert simulator.count("jobs") == 3


def test_r14_json_of_another_shape_is_not_asked_for_again(
    simulator: Simulator, make: Callable[..., Any]
) -> None:
    simulator.fault("jobs", always=Fault("wrong type"))
    with pytest.raises(errors.ContractError, match=r"an object with the members \['value'\]"):
        make().read(api.list_jobs())
    assert simulator.count("jobs") == 1


def test_r09_json_of_another_shape_passes_where_the_right_one_has_come_before(
    simulator: Simulator, make: Callable[..., Any]
) -> None:
    with make() as carrier:
        carrier.read(api.list_jobs())
        simulator.fault("jobs", Fault("wrong type"), Fault("body", body='{"message": "maintenance"}'))
        assert len(carrier.read(api.list_jobs())) == 1
        simulator.fault("status", Fault("wrong type"))
        with pytest.raises(errors.ContractError):
            carrier.read(api.job_status(job_id(simulator)))
    assert simulator.count("jobs") == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418])
def test_r08_a_refusal_is_not_repeated(simulator: Simulator, make: Callable[..., Any], status: int) -> None:
    simulator.fault("jobs", always=Fault("status", status=status))
    with pytest.raises(errors.Refused) as caught:
        make().read(api.list_jobs())
    assert caught.value.status == status
    assert simulator.count("jobs") == 1


def test_r09_retry_after_is_obeyed(simulator: Simulator, make: Callable[..., Any]) -> None:
    simulator.fault("jobs", Fault("status", status=429, retry_after="1"))
    make().read(api.list_jobs())
    first, second = (request.at for request in simulator.requests)
    assert second - first >= 1


def test_r09_gives_up_with_the_last_error_after_max_unreachable(
    simulator: Simulator, make: Callable[..., Any]
) -> None:
    simulator.fault("jobs", always=Fault("status", status=503, body="in maintenance"))
    with pytest.raises(errors.ServerError, match=r"HTTP 503.*in maintenance"):
        make(max_unreachable=0.1).read(api.list_jobs())
    assert 2 <= simulator.count("jobs") <= 11


def test_a_retry_after_beyond_the_limit_ends_at_once(simulator: Simulator, make: Callable[..., Any]) -> None:
    simulator.fault("jobs", Fault("status", status=429, retry_after="3600"))
    with pytest.raises(errors.RateLimited):
        make().read(api.list_jobs())
    assert simulator.count("jobs") == 1


def test_r18_a_silent_server_is_an_error_within_the_timeout(
    simulator: Simulator, make: Callable[..., Any]
) -> None:
    simulator.fault("jobs", always=Fault("silence"))
    began = time.monotonic()
    with pytest.raises(errors.Unreachable, match=r"no answer.*([Tt]imed out|Timeout)"):
        make(max_unreachable=0.1, timeout=0.2).read(api.list_jobs())
    assert time.monotonic() - began < 10


def test_r18_every_request_has_a_timeout(make_worker: Callable[..., Client], mocker: Any) -> None:
    sent = mocker.patch("requests.adapters.HTTPAdapter.send", side_effect=requests.ConnectionError("x"))
    carrier = make_worker(max_unreachable=0.02, timeout=7)
    for carry in (carrier.read, carrier.submit):
        with pytest.raises(errors.TimeXtenderError):
            carry(api.list_jobs())
    assert {call.kwargs["timeout"] for call in sent.call_args_list} == {7}
    assert sent.call_count >= 2


def test_unreachable_names_the_cause(make: Callable[..., Any], dead_port: int) -> None:
    carrier = make(max_unreachable=0.05, base_url=f"http://127.0.0.1:{dead_port}")
    with pytest.raises(errors.Unreachable, match=r"Connection ?[Rr]efused") as caught:
        carrier.read(api.list_jobs())
    assert not caught.value.sent


def test_unknown_host_is_unreachable_and_surely_unsent(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_such_host(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    with pytest.raises(errors.Unreachable, match="Name or service not known") as caught:
        make(max_unreachable=0.05, base_url="http://api.invalid").read(api.list_jobs())
    assert not caught.value.sent


# --- the key ---


def test_r34_redirects_are_refused_and_the_key_goes_nowhere_else(
    simulator: Simulator, make: Callable[..., Any]
) -> None:
    with Simulator(api_key=API_KEY) as elsewhere:
        simulator.fault("jobs", Fault("redirect", location=f"{elsewhere.url}/public/jobs"))
        with pytest.raises(errors.Refused, match=r"redirects to '127\.0\.0\.1:\d+'"):
            make().read(api.list_jobs())
        assert elsewhere.requests == []


def test_the_key_goes_into_the_header_that_the_connection_names(
    simulator: Simulator, make: Callable[..., Any]
) -> None:
    with pytest.raises(errors.Refused, match="HTTP 401"):
        make(api_key_header="X-Other").read(api.list_jobs())
    (request,) = simulator.requests
    assert request.headers["X-Other"] == API_KEY
    assert "x-api-key" not in {name.lower() for name in request.headers}


def test_no_credentials_of_a_netrc_are_sent(
    simulator: Simulator, make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    make().read(api.list_jobs())
    assert "Authorization" not in simulator.requests[0].headers


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
@pytest.mark.parametrize("how", ["read", "submit"])
def test_r34_the_key_is_in_no_error_even_if_the_server_quotes_it(
    simulator: Simulator, make_worker: Callable[..., Client], fault: Fault, how: str
) -> None:
    simulator.fault("jobs", always=fault)
    with pytest.raises(errors.TimeXtenderError) as caught:
        getattr(make_worker(max_unreachable=0.05, timeout=0.2), how)(api.list_jobs())
    shown = "".join(traceback.format_exception(caught.value))
    assert API_KEY not in shown
    assert API_KEY[:8] not in shown
    for error in _chain(caught.value):
        assert not isinstance(error, requests.RequestException), "it holds the request, with its headers"


# --- submissions ---


def test_a_submission_is_sent_once(simulator: Simulator, make_worker: Callable[..., Client]) -> None:
    receipt = make_worker().submit(api.execute_job(job_id(simulator)))
    assert receipt.trigger_id == simulator.world.executions[0].trigger_id
    assert simulator.count("execute") == 1


@pytest.mark.parametrize("taken", [False, True], ids=["lost before", "lost after"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=500),
        Fault("status", status=502, body="<html>Bad gateway</html>"),
        Fault("status", status=504),
        Fault("status", status=408),
        Fault("reset"),
        Fault("silence"),
        Fault("html"),
        Fault("cut"),
        Fault("wrong type"),
        Fault("body", body="{}"),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status or ''}",
)
def test_r05_a_lost_reply_is_uncertain_and_nothing_is_sent_again(
    simulator: Simulator, make_worker: Callable[..., Client], fault: Fault, taken: bool
) -> None:
    simulator.fault("execute", dataclasses.replace(fault, taken=taken))
    with pytest.raises(errors.SubmissionUncertain, match="not known whether the job was queued") as caught:
        make_worker().submit(api.execute_job(job_id(simulator)))
    assert not caught.value.retry_helps
    assert simulator.count("execute") == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_r08_a_refused_submission_is_certain(
    simulator: Simulator, make_worker: Callable[..., Client], status: int
) -> None:
    simulator.fault("execute", Fault("status", status=status))
    with pytest.raises(errors.Refused):
        make_worker().submit(api.execute_job(job_id(simulator)))
    assert simulator.count("execute") == 1


def test_a_rate_limited_submission_is_certain_and_not_sent_again(
    simulator: Simulator, make_worker: Callable[..., Client]
) -> None:
    simulator.fault("execute", Fault("status", status=429))
    with pytest.raises(errors.RateLimited) as caught:
        make_worker().submit(api.execute_job(job_id(simulator)))
    assert caught.value.retry_helps
    assert simulator.count("execute") == 1


def test_r05_a_submission_is_repeated_while_nothing_can_have_been_sent(
    simulator: Simulator, make_worker: Callable[..., Client], mocker: Any
) -> None:
    connect = socket.socket.connect
    refusals = iter([True, True])

    def refuse_twice(self: socket.socket, address: Any) -> None:
        if next(refusals, False):
            raise ConnectionRefusedError(111, "Connection refused")
        connect(self, address)

    mocker.patch("socket.socket.connect", refuse_twice)
    make_worker().submit(api.execute_job(job_id(simulator)))
    assert simulator.count("execute") == 1


def test_r05_a_server_that_stays_down_is_unreachable_not_uncertain(
    make_worker: Callable[..., Client], dead_port: int
) -> None:
    carrier = make_worker(max_unreachable=0.05, base_url=f"http://127.0.0.1:{dead_port}")
    with pytest.raises(errors.Unreachable) as caught:
        carrier.submit(api.list_jobs())
    assert caught.value.retry_helps


def test_r05_a_submission_does_not_ride_a_kept_connection(
    simulator: Simulator, make_worker: Callable[..., Client]
) -> None:
    carrier = make_worker()
    carrier.read(api.list_jobs())
    carrier.submit(api.execute_job(job_id(simulator)))
    first, second = simulator.requests
    assert first.connection != second.connection


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


@pytest.mark.parametrize("raw", STRANGE.values(), ids=list(STRANGE), indirect=True)
def test_r14_r34_a_strange_answer_is_one_of_our_errors_and_shows_no_key(
    make: Callable[..., Any], raw: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(errors.TimeXtenderError) as caught:
        make(max_unreachable=0.05, base_url=f"http://127.0.0.1:{raw}").read(api.list_jobs())
    assert not isinstance(caught.value, errors.InvalidInput)
    assert API_KEY not in str(caught.value)


@pytest.mark.parametrize("raw", STRANGE.values(), ids=list(STRANGE), indirect=True)
def test_r05_a_strange_answer_to_a_submission_is_uncertain(
    make_worker: Callable[..., Client], raw: int, simulator: Simulator
) -> None:
    with pytest.raises((errors.SubmissionUncertain, errors.Refused)) as caught:
        make_worker(base_url=f"http://127.0.0.1:{raw}").submit(api.execute_job(job_id(simulator)))
    assert not caught.value.retry_helps


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


def test_r36_a_proxy_of_the_connection(make: Callable[..., Any], proxy: Any) -> None:
    address = f"http://127.0.0.1:{proxy.server_port}"
    carrier = make(base_url="http://api.invalid", proxies={"http": address})
    assert carrier.read(api.list_jobs()) == []
    assert proxy.seen == ["http://api.invalid/public/jobs"]


def test_r36_https_proxy_and_no_proxy_of_the_environment(
    simulator: Simulator, make: Callable[..., Any], proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://127.0.0.1:{proxy.server_port}"
    monkeypatch.setenv("HTTPS_PROXY", address)
    monkeypatch.setenv("HTTP_PROXY", address)
    with pytest.raises(errors.Unreachable, match="403"):
        make(max_unreachable=0.02, base_url="https://api.invalid").read(api.list_jobs())
    assert set(proxy.seen) == {"CONNECT api.invalid:443"}
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    make().read(api.list_jobs())
    assert set(proxy.seen) == {"CONNECT api.invalid:443"}


def test_r05_a_proxy_that_refuses_has_passed_nothing_on(
    make_worker: Callable[..., Client], proxy: Any, simulator: Simulator
) -> None:
    address = f"http://127.0.0.1:{proxy.server_port}"
    carrier = make_worker(max_unreachable=0.05, base_url="https://api.invalid", proxies={"https": address})
    with pytest.raises(errors.Unreachable, match="403") as caught:
        carrier.submit(api.execute_job(job_id(simulator)))
    assert not caught.value.sent


def test_a_ca_bundle_that_is_none_is_a_clear_error(
    make: Callable[..., Any], https: Any, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("no certificate")
    carrier = make(base_url=f"https://127.0.0.1:{https.server_port}", verify=str(bundle))
    with pytest.raises(errors.InvalidInput, match=r"CA bundle .*ca\.pem' cannot be read"):
        carrier.read(api.list_jobs())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def https(authority: trustme.CA) -> Iterator[Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    yield from _serve(context)


def test_r36_a_certificate_that_is_not_trusted_is_a_clear_error_at_once(
    make_worker: Callable[..., Client], https: Any
) -> None:
    carrier = make_worker(base_url=f"https://127.0.0.1:{https.server_port}")
    for carry in (carrier.read, carrier.submit):
        with pytest.raises(errors.BadCertificate, match=r"not trusted.*Nothing was sent.*`verify`"):
            carry(api.list_jobs())
    assert https.seen == []


def test_r36_a_ca_bundle_or_no_verification(
    make: Callable[..., Any],
    https: Any,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base_url = f"https://127.0.0.1:{https.server_port}"
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    assert make(base_url=base_url, verify=str(bundle)).read(api.list_jobs()) == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    carrier = make(base_url=base_url, verify=False)
    with pytest.warns(Warning, match="Unverified HTTPS") if isinstance(carrier, Client) else nullcontext():
        assert carrier.read(api.list_jobs()) == []


def test_a_ca_bundle_that_is_not_there_is_a_clear_error(make: Callable[..., Any], https: Any) -> None:
    carrier = make(base_url=f"https://127.0.0.1:{https.server_port}", verify="/nonexistent.pem")
    with pytest.raises(errors.InvalidInput, match=r"CA bundle.*nonexistent\.pem"):
        carrier.read(api.list_jobs())


# --- edges that only a mock shows ---


def test_who_asks_is_said(make: Callable[..., Any], simulator: Simulator) -> None:
    make().read(api.list_jobs())
    headers = simulator.requests[0].headers
    assert headers["User-Agent"].startswith("airflow-provider-timextender/")
    assert headers["Accept"] == "application/json"


def test_a_body_that_breaks_off_is_unreachable(make_worker: Callable[..., Client]) -> None:
    with requests_mock.Mocker() as mock:
        mock.get(requests_mock.ANY, exc=requests.exceptions.ChunkedEncodingError("broken off"))
        with pytest.raises(errors.Unreachable, match="broken off") as caught:
            make_worker(max_unreachable=0.02).read(api.list_jobs())
    assert caught.value.sent
