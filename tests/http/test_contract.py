"""The contract as a document, against the simulator, which states it independently."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import requests
import yaml

from airflow_provider_timextender.simulator import Job, Simulator
from airflow_provider_timextender.simulator.server import ROUTES
from docs import contract

from ..conftest import API_KEY

DOCUMENT = yaml.safe_load(contract.FILE.read_text())

CALLS = [
    (method.upper(), path, set(call["responses"]))
    for path, calls in DOCUMENT["paths"].items()
    for method, call in calls.items()
]

NOBODYS = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"


def test_both_have_the_same_calls() -> None:
    assert {(method, path) for method, path, _ in CALLS} == set(ROUTES.values())


def test_the_simulator_answers_as_the_document_says(tmp_path: Path) -> None:
    document = deepcopy(DOCUMENT)
    for name in contract.OBJECTS:
        # In the API, members that nobody knows do not matter; here they would be ones that have another name.
        document["components"]["schemas"][name]["additionalProperties"] = False
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document))
    jobs = [
        Job("good", duration=0, pickup=0, warnings=1),
        Job("bad", duration=0, pickup=0, outcome="failed"),
        Job("long", duration=600, pickup=0),
    ]
    with Simulator(jobs, api_key=API_KEY) as simulator:
        for job in jobs:
            simulator.run(job.name)
            simulator.run(job.name, by="hand")
        # Positive: how requests are answered that the package never sends, nobody describes.
        options = ["--mode", "positive", "--seed", "1", "--max-examples", "25", "--no-color"]
        options += ["--max-failures", "3", "--url", simulator.url, "--header", f"x-api-key: {API_KEY}"]
        ran = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", file, *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        counts = {route: simulator.count(route) for route in ROUTES}
    print(counts, ran.stdout, ran.stderr)
    assert ran.returncode == 0, ran.stdout
    # To a call that the simulator does not have, its answer is a 404, which the document knows.
    assert min(counts.values()) > 0
    assert sum(counts.values()) > 100


@pytest.mark.parametrize(("method", "path", "answers"), CALLS, ids=lambda part: part if "/" in part else "")
def test_the_simulator_refuses_what_the_document_says(
    simulator: Simulator, method: str, path: str, answers: set[str]
) -> None:
    url = simulator.url + path.format(job_id=NOBODYS, trigger_id=NOBODYS)
    without_key = requests.request(method, url, timeout=5)
    with_key = requests.request(method, url, timeout=5, headers={"x-api-key": API_KEY})
    assert (without_key.status_code, "401" in answers) == (401, True)
    assert with_key.status_code == (404 if "404" in answers else 200)
