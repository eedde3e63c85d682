"""What is sent again, and what is not, with the simulator: on a worker, and from an event loop."""

from __future__ import annotations

import dataclasses
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from airflow_provider_timextender import errors
from airflow_provider_timextender import jobs_api as api
from airflow_provider_timextender.connection import Settings
from airflow_provider_timextender.simulator import Fault, Simulator

from ..conftest import API_KEY
from .calling import CALLERS, Caller
from .test_carrier import STRANGE, chain, dead_port, job_id, raw  # noqa: F401


@pytest.fixture(params=CALLERS)
def make(request: pytest.FixtureRequest, simulator: Simulator) -> Iterator[Callable[..., Caller]]:
    """Make somebody who calls, and calls again: on a worker, and from an event loop."""
    with ExitStack() as made:

        def make(max_unreachable: float = 5, **changes: Any) -> Caller:
            found = Settings(API_KEY, **{"base_url": simulator.url, "timeout": 0.5, **changes})
            return made.enter_context(CALLERS[request.param](found, max_unreachable=max_unreachable))

        yield make


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
    simulator: Simulator, make: Callable[..., Caller], fault: Fault
) -> None:
    simulator.fault("jobs", fault, fault)
    jobs = make().read(api.list_jobs())
    assert [job.name for job in jobs] == ["load"]
    assert simulator.count("jobs") == 3


def test_r14_json_of_another_shape_is_not_asked_for_again(
    simulator: Simulator, make: Callable[..., Caller]
) -> None:
    simulator.fault("jobs", always=Fault("wrong type"))
    with pytest.raises(errors.ContractError, match=r"an object with the members \['value'\]"):
        make().read(api.list_jobs())
    assert simulator.count("jobs") == 1


def test_r09_json_of_another_shape_passes_where_the_right_one_has_come_before(
    simulator: Simulator, make: Callable[..., Caller]
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
def test_r08_a_refusal_is_not_repeated(
    simulator: Simulator, make: Callable[..., Caller], status: int
) -> None:
    simulator.fault("jobs", always=Fault("status", status=status))
    with pytest.raises(errors.Refused) as caught:
        make().read(api.list_jobs())
    assert caught.value.status == status
    assert simulator.count("jobs") == 1


def test_r09_retry_after_is_obeyed(simulator: Simulator, make: Callable[..., Caller]) -> None:
    simulator.fault("jobs", Fault("status", status=429, retry_after="1"))
    make().read(api.list_jobs())
    first, second = (request.at for request in simulator.requests)
    assert second - first >= 1


def test_r09_gives_up_with_the_last_error_after_max_unreachable(
    simulator: Simulator, make: Callable[..., Caller], mocker: Any
) -> None:
    mocker.patch("random.uniform", lambda shortest, longest: longest)  # each pause is 0.01 s
    simulator.fault("jobs", always=Fault("status", status=503, body="in maintenance"))
    with pytest.raises(errors.ServerError, match=r"HTTP 503.*in maintenance"):
        make(max_unreachable=1).read(api.list_jobs())
    assert 2 <= simulator.count("jobs") <= 101


def test_a_retry_after_beyond_the_limit_ends_at_once(
    simulator: Simulator, make: Callable[..., Caller]
) -> None:
    simulator.fault("jobs", Fault("status", status=429, retry_after="3600"))
    with pytest.raises(errors.RateLimited):
        make().read(api.list_jobs())
    assert simulator.count("jobs") == 1


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
    simulator: Simulator, make: Callable[..., Caller], fault: Fault, how: str
) -> None:
    simulator.fault("jobs", always=fault)
    with pytest.raises(errors.TimeXtenderError) as caught:
        getattr(make(max_unreachable=0.05, timeout=0.2), how)(api.list_jobs())
    shown = "".join(traceback.format_exception(caught.value))
    assert API_KEY not in shown
    assert API_KEY[:8] not in shown
    for error in chain(caught.value):
        assert not isinstance(error, requests.RequestException), "it holds the request, with its headers"


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
    simulator: Simulator, make: Callable[..., Caller], fault: Fault, taken: bool
) -> None:
    simulator.fault("execute", dataclasses.replace(fault, taken=taken))
    with pytest.raises(errors.SubmissionUncertain, match="not known whether the job was queued") as caught:
        make().submit(api.execute_job(job_id(simulator)))
    assert not caught.value.retry_helps
    assert simulator.count("execute") == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_r08_a_refused_submission_is_certain(
    simulator: Simulator, make: Callable[..., Caller], status: int
) -> None:
    simulator.fault("execute", Fault("status", status=status))
    with pytest.raises(errors.Refused):
        make().submit(api.execute_job(job_id(simulator)))
    assert simulator.count("execute") == 1


def test_a_rate_limited_submission_is_certain_and_not_sent_again(
    simulator: Simulator, make: Callable[..., Caller]
) -> None:
    simulator.fault("execute", Fault("status", status=429))
    with pytest.raises(errors.RateLimited) as caught:
        make().submit(api.execute_job(job_id(simulator)))
    assert caught.value.retry_helps
    assert simulator.count("execute") == 1


def test_r05_a_submission_is_repeated_while_nothing_can_have_been_sent(
    simulator: Simulator, make: Callable[..., Caller], mocker: Any
) -> None:
    connect = socket.socket.connect
    refusals = iter([True, True])

    def refuse_twice(self: socket.socket, address: Any) -> None:
        if next(refusals, False):
            raise ConnectionRefusedError(111, "Connection refused")
        connect(self, address)

    mocker.patch("socket.socket.connect", refuse_twice)
    make().submit(api.execute_job(job_id(simulator)))
    assert simulator.count("execute") == 1


def test_r05_a_server_that_stays_down_is_unreachable_not_uncertain(
    make: Callable[..., Caller],
    dead_port: int,  # noqa: F811
) -> None:
    carrier = make(max_unreachable=0.05, base_url=f"http://127.0.0.1:{dead_port}")
    with pytest.raises(errors.Unreachable) as caught:
        carrier.submit(api.list_jobs())
    assert caught.value.retry_helps


@pytest.mark.parametrize("raw", STRANGE.values(), ids=list(STRANGE), indirect=True)
def test_r05_a_strange_answer_to_a_submission_is_uncertain(
    make: Callable[..., Caller],
    raw: int,  # noqa: F811
    simulator: Simulator,
) -> None:
    with pytest.raises((errors.SubmissionUncertain, errors.Refused)) as caught:
        make(base_url=f"http://127.0.0.1:{raw}").submit(api.execute_job(job_id(simulator)))
    assert not caught.value.retry_helps
