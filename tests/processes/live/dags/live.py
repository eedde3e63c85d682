"""DAGs for a live Airflow."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.sensors import JobStatusSensor
from airflow_provider_timextender.triggers import JobFinishedTrigger

COUNT = int(os.environ.get("LIVE_TASKS", "12"))
CRASHES = 5


@dag(schedule=None, catchup=False)
def live_many() -> None:
    """Wait for many executions at the same time."""
    load = ExecuteJobOperator.partial(
        task_id="load", wait_for_completion=True, deferrable=True, poll_interval=2
    ).expand(job_name=[f"job {number}" for number in range(COUNT)])

    @task
    def pull(trigger_ids: Any) -> list[str]:
        """Tell what a task gets of those that ended in the triggerer."""
        return list(trigger_ids)

    pull(load.output)


@dag(schedule=None, catchup=False)
def live_pool() -> None:
    """Wait for several executions, of which a pool lets two run at the same time."""
    ExecuteJobOperator.partial(
        task_id="load", wait_for_completion=True, deferrable=True, poll_interval=1, pool="two"
    ).expand(job_name=[f"job {number}" for number in range(4)])


@dag(schedule=None, catchup=False)
def live_sensor() -> None:
    """Wait with sensors that start in the triggerer and on a worker."""
    execute = ExecuteJobOperator(task_id="execute", job_name="job 0")
    for_execution = JobStatusSensor(
        task_id="for_execution",
        job_name="job 0",
        trigger_id="{{ ti.xcom_pull(task_ids='execute') }}",
        deferrable=True,
        poke_interval=1,
    )
    for_idle = JobStatusSensor(
        task_id="for_idle",
        job_name="{{ dag_run.conf.get('job', 'job 0') }}",
        deferrable=True,
        poke_interval=1,
    )
    execute >> [for_execution, for_idle]


@dag(schedule=None, catchup=False)
def live_failure() -> None:
    """Wait for a load that fails."""
    ExecuteJobOperator(
        task_id="load", job_name="job 1", wait_for_completion=True, deferrable=True, poll_interval=1
    )


@dag(schedule=None, catchup=False)
def live_crash() -> None:
    """Queue jobs on workers that die right after it, and others that do not."""
    for deferrable in (False, True):
        name = "deferrable" if deferrable else "worker"
        ExecuteJobOperator.partial(
            task_id=name,
            wait_for_completion=True,
            deferrable=deferrable,
            poll_interval=1,
            start_timeout=5,
            retries=2,
            retry_delay=timedelta(seconds=1),
        ).expand(job_name=[f"{name} {number}" for number in range(CRASHES)])


@dag(schedule=None, catchup=False)
def live_lines() -> None:
    """Wait for loads that tell something every two seconds."""
    for where in ("worker", "triggerer"):
        ExecuteJobOperator(
            task_id=where,
            job_name=f"lines {where}",
            wait_for_completion=True,
            deferrable=where == "triggerer",
            poll_interval=1,
        )


@dag(schedule=None, catchup=False)
def live_retry() -> None:
    """Run a job that fails once, in a task that is retried, and that somebody clears after its success."""
    ExecuteJobOperator(
        task_id="load",
        job_name="retried",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=1,
        retries=1,
        retry_delay=timedelta(seconds=1),
    )


watched = Asset(
    "live_watched",
    watchers=[
        AssetWatcher(name="finished", trigger=JobFinishedTrigger(job_names=["watched"], poll_interval=1))
    ],
)


@dag(schedule=[watched], catchup=False, max_active_runs=16)
def live_watched() -> None:
    """Tell which executions started this run."""

    @task
    def tell(triggering_asset_events: Any = None) -> list[str]:
        return [event.extra["payload"]["trigger_id"] for event in triggering_asset_events[watched]]

    tell()


live_many()
live_pool()
live_sensor()
live_failure()
live_crash()
live_lines()
live_retry()
live_watched()
