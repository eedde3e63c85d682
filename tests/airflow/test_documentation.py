"""What the documentation shows of the package's own code, and of a pool, is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from typing import Any

import pytest
from aiohttp import web
from airflow.models.pool import Pool
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_timextender import model
from airflow_provider_timextender.answers import Parser
from airflow_provider_timextender.arriving import Arriving
from airflow_provider_timextender.errors import JobFailed
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.jobs_api import Call, _path
from airflow_provider_timextender.naming import Of
from airflow_provider_timextender.simulator import Job, Simulator

from ..pure.test_documentation import ROOT, blocks


# [one job: begin]
def one_job(job_id: str) -> Call[model.Job]:
    """One job."""

    def parse(parser: Parser, json: Arriving) -> model.Job:
        return parser.job(parser.object(json.next_value()))

    return Call("GET", _path(job_id), "job", parse)


# [one job: end]


class HookWithOneMore(TimeXtenderHook):
    # [hook method: begin]
    def get_one_job(self, job_id: str) -> model.Job:
        """Return one job, with one request."""
        return self._read(one_job(job_id))

    # [hook method: end]


class SimulatorWithOneMore(Simulator):
    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        self._record("unknown", request)
        return web.json_response(self.dialect.write_jobs([self.job("Load HR")]).data[0])


def test_an_endpoint_more_is_a_call_and_a_line_of_the_hook(monkeypatch):
    with SimulatorWithOneMore([Job("Load HR")]) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        job_id = simulator.job("Load HR").id

        job = HookWithOneMore().get_one_job(job_id)

    assert (job.id, job.name) == (job_id, "Load HR")
    assert [request.path for request in simulator.requests] == [f"/public/jobs/{job_id}"]


def test_r21_the_pool_that_is_recommended_includes_deferred_tasks(airflow_db: None) -> None:
    (command,) = blocks(ROOT / "docs/waiting.md", "bash")
    subprocess.run(shlex.split(f"{sys.executable} -m {command}"), check=True)
    (named,) = re.findall(r'pool="(\w+)"', (ROOT / "docs/waiting.md").read_text())
    pool = Pool.get_pool(named)
    assert pool is not None
    assert (pool.slots, pool.include_deferred) == (8, True)
    Pool.delete_pool(named)


def test_r49_a_callback_reads_the_attributes_of_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = [block for block in blocks(ROOT / "docs/operators.md", "python") if "tell_the_team" in block]
    page: dict[str, Any] = {}
    exec(shown, page)
    failed = JobFailed("no space", start=datetime(2026, 1, 1, tzinfo=timezone.utc))
    for error in (failed.about(Of("1", "Load sales")), AirflowFailException("no"), None):
        page["tell_the_team"]({"exception": error})
    assert capsys.readouterr().out == "Load sales failed: no space (since 2026-01-01 00:00:00+00:00)\n"
