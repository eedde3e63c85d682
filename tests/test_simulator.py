"""The simulator, asked with plain ``requests``: the contract as it states it."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

import airflow_provider_timextender.simulator as package
from airflow_provider_timextender.simulator import BLANK_TRIGGER_ID, SHAPES, Fault, Job, Simulator

from .conftest import API_KEY


def ask(simulator: Simulator, path: str, method: str = "GET", **headers: str) -> requests.Response:
    return requests.request(
        method,
        simulator.url + path,
        headers={"x-api-key": API_KEY, **headers},
        timeout=2,
        allow_redirects=False,
    )


def get(simulator: Simulator, path: str) -> Any:
    return ask(simulator, path).json()


def test_the_documented_life_of_an_execution(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup = job.duration = 0.2
    path = f"/public/jobs/{job.id}"
    assert get(simulator, "/public/jobs") == [{"Id": job.id, "Name": "load"}]
    assert get(simulator, f"{path}/status") == {"JobId": job.id, "Status": "Idle"}
    receipt = ask(simulator, f"{path}/execute", "POST").json()
    assert set(receipt) == {"JobId", "Message", "TriggerId"}
    seen: list[str] = []
    while not seen or seen[-1] != "Idle":
        status = get(simulator, f"{path}/status")["Status"]
        if not seen or seen[-1] != status:
            seen.append(status)
    assert seen == ["Pending", "Running", "Idle"]
    assert get(simulator, "/public/jobs/status") == [{"JobId": job.id, "Status": "Idle"}]
    (execution,) = get(simulator, f"{path}/logs/{receipt['TriggerId']}")
    assert execution["State"] == "Success"
    assert execution["TriggerId"] == receipt["TriggerId"]
    assert [line["Severity"] for line in execution["Logs"]] == ["Information"] * 3 + ["Warning"]
    assert get(simulator, f"{path}/logs") == [execution]


def test_idle_again_after_a_failure_and_the_log_tells(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.outcome, job.duration, job.pickup = "failed", 0, 0
    simulator.run("load")
    assert get(simulator, f"/public/jobs/{job.id}/status")["Status"] == "Idle"
    (execution,) = get(simulator, f"/public/jobs/{job.id}/logs")
    assert execution["State"] == "Failed"
    assert execution["Logs"][-1]["Severity"] == "Error"
    assert execution["Logs"][-1]["Message"] == execution["Message"]


def test_log_lag_and_log_at_end(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup, job.duration, job.log_lag, job.log_at_end = 0, 0.1, 0.2, True
    execution = simulator.run("load")
    path = f"/public/jobs/{job.id}/logs/{execution.trigger_id}"
    assert get(simulator, path) == []
    while time.time() < execution.ended + 0.25:
        time.sleep(0.01)
    assert len(get(simulator, path)) == 1


def test_a_job_that_never_starts_stays_idle_and_shows_nothing(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.outcome = "never starts"
    simulator.run("load")
    assert get(simulator, f"/public/jobs/{job.id}/status")["Status"] == "Idle"
    assert get(simulator, f"/public/jobs/{job.id}/logs") == []


def test_executions_by_hand_have_the_blank_trigger_id(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup = 0
    simulator.run("load", by="hand")
    assert get(simulator, f"/public/jobs/{job.id}/logs")[0]["TriggerId"] == BLANK_TRIGGER_ID


def test_executions_know_who_started_them_and_only_those_of_the_api_take_their_turn(
    simulator: Simulator,
) -> None:
    job = simulator.job("load")
    job.outcomes = ["failed"]
    simulator.run("load")
    for _ in range(2):
        ask(simulator, f"/public/jobs/{job.id}/execute", "POST")
    ends = [(execution.by, execution.outcome) for execution in simulator.world.executions]
    assert ends == [("schedule", "succeeded"), ("api", "failed"), ("api", "succeeded")]


def test_two_executions_at_the_same_time(simulator: Simulator) -> None:
    job = simulator.job("load")
    job.pickup, job.duration = 0, 0
    first = simulator.run("load")
    job.duration = 30
    simulator.run("load")
    assert get(simulator, f"/public/jobs/{job.id}/status")["Status"] == "Running"
    assert get(simulator, f"/public/jobs/{job.id}/logs/{first.trigger_id}")[0]["State"] == "Success"
    assert len(get(simulator, f"/public/jobs/{job.id}/logs")) == 2


def test_shapes_differ_and_say_the_same() -> None:
    written = {}
    for shape in SHAPES:
        job = Job("load", pickup=0, duration=0, id="11111111-1111-1111-1111-111111111111")
        with Simulator([job], api_key=API_KEY, shape=shape) as simulator:
            simulator.run("load")
            written[shape] = get(simulator, f"/public/jobs/{job.id}/logs")[0]
    assert written["camel"]["state"] == "succeeded"
    assert "triggerId" not in written["camel"]
    assert "triggerId" in written["camel"]["logs"][0]
    assert written["numeric"]["result_code"] == 1
    assert "trigger_id" not in written["numeric"]["entries"][0]
    assert not written["numeric"]["end_time"].endswith("Z")


def test_a_wrong_key_and_unknown_things(simulator: Simulator) -> None:
    assert ask(simulator, "/public/jobs", **{"x-api-key": "wrong"}).status_code == 401
    assert ask(simulator, "/public/jobs/11111111-1111-1111-1111-111111111111/status").status_code == 404
    assert ask(simulator, "/private").status_code == 404
    assert ask(simulator, "/public/jobs", "POST").status_code == 405 or simulator.count("jobs") == 1


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        (Fault("status", status=429, retry_after="7"), 429, "unavailable"),
        (Fault("status"), 503, "unavailable"),
        (Fault("html"), 200, "<html>"),
        (Fault("wrong type"), 200, '{"value": ['),
        (Fault("redirect", location="https://elsewhere.example/"), 302, ""),
        (Fault("body", body="[]"), 200, "[]"),
        (Fault("body", status=401, body="[]"), 401, "[]"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_faults_that_answer(simulator: Simulator, fault: Fault, status: int, says: str) -> None:
    simulator.fault("jobs", fault)
    answer = ask(simulator, "/public/jobs")
    assert answer.status_code == status
    assert says in answer.text
    assert answer.headers.get("Retry-After") == fault.retry_after
    assert answer.headers.get("Location", "") == fault.location
    assert ask(simulator, "/public/jobs").ok, "once"


def test_cut_json(simulator: Simulator) -> None:
    simulator.fault("jobs", Fault("cut"))
    with pytest.raises(ValueError, match="line 1"):
        get(simulator, "/public/jobs")


@pytest.mark.parametrize("taken", [False, True])
def test_a_reset_before_or_after_the_request_was_taken(simulator: Simulator, taken: bool) -> None:
    simulator.fault("execute", Fault("reset", taken=taken))
    with pytest.raises(requests.ConnectionError):
        ask(simulator, f"/public/jobs/{simulator.job('load').id}/execute", "POST")
    assert len(simulator.world.executions) == taken


def test_silence(simulator: Simulator) -> None:
    simulator.fault("jobs", always=Fault("silence"))
    with pytest.raises(requests.ReadTimeout):
        requests.get(simulator.url + "/public/jobs", timeout=0.1)
    simulator.heal()
    assert ask(simulator, "/public/jobs").ok


def test_unknown_words(simulator: Simulator) -> None:
    simulator.fault("status", Fault("unknown word", word="Napping"))
    assert get(simulator, f"/public/jobs/{simulator.job('load').id}/status")["Status"] == "Napping"


def test_every_request_is_recorded(simulator: Simulator) -> None:
    with requests.Session() as session:
        for _ in range(2):
            session.get(
                simulator.url + "/public/jobs", headers={"x-api-key": API_KEY, "X-Mark": "7"}, timeout=2
            )
    ask(simulator, "/nowhere")
    assert [r.route for r in simulator.requests] == ["jobs", "jobs", "unknown"]
    first, second, third = simulator.requests
    assert (first.method, first.path, first.headers["X-Mark"]) == ("GET", "/public/jobs", "7")
    assert first.connection == second.connection != third.connection
    assert simulator.count("jobs") == 2


def test_it_shares_no_code_with_the_rest_of_the_package() -> None:
    """The contract is stated twice, so that a mistake in one place shows."""
    own = "airflow_provider_timextender.simulator"
    for file in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, file
                module = node.module or ""
                assert not module.startswith("airflow") or module.startswith(own), (file, module)
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("airflow") for alias in node.names), file


def test_as_a_command() -> None:
    command = [sys.executable, "-m", own_module(), "--api-key", "k3y", "--job", "A b", "--fail", "A b"]
    process = subprocess.Popen([*command, "--duration", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split(" at ")[1].split()[0]
        assert process.stdout.readline().startswith("export AIRFLOW_CONN_TIMEXTENDER_DEFAULT='{")
        (job,) = requests.get(f"{url}/public/jobs", headers={"x-api-key": "k3y"}, timeout=5).json()
        assert job["Name"] == "A b"
    finally:
        process.terminate()
    assert process.wait(10) == 0


def test_the_command_refuses_to_fail_an_unknown_job() -> None:
    done = subprocess.run(
        [sys.executable, "-m", own_module(), "--fail", "Lod"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--fail names no job: Lod" in done.stderr


def own_module() -> str:
    return "airflow_provider_timextender.simulator"


def test_the_fixture_for_users(timextender_simulator: Simulator) -> None:
    from airflow_provider_timextender.hooks import TimeXtenderHook

    names = [job.name for job in TimeXtenderHook().get_jobs()]
    assert names == ["Load sales", "Load finance", "Load stock"]
