"""DAGs for a live Airflow."""

from __future__ import annotations

import os

from airflow.providers.common.compat.sdk import dag

from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.sensors import JobStatusSensor

COUNT = int(os.environ.get("LIVE_TASKS", "12"))


@dag(schedule=None, catchup=False)
def live_many() -> None:
    """Wait for many executions at the same time."""
    ExecuteJobOperator.partial(
        task_id="load", wait_for_completion=True, deferrable=True, poll_interval=2
    ).expand(job_name=[f"job {number}" for number in range(COUNT)])


@dag(schedule=None, catchup=False)
def live_sensor() -> None:
    """Wait with a sensor that starts in the triggerer, with a templated id."""
    execute = ExecuteJobOperator(task_id="execute", job_name="job 0")
    wait = JobStatusSensor(
        task_id="wait",
        job_name="job 0",
        trigger_id="{{ ti.xcom_pull(task_ids='execute') }}",
        deferrable=True,
        poke_interval=1,
    )
    execute >> wait


@dag(schedule=None, catchup=False)
def live_failure() -> None:
    """Wait for a load that fails."""
    ExecuteJobOperator(
        task_id="load",
        job_name="job 0",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=1,
        retries=3,
        retry_delay=1,
    )


live_many()
live_sensor()
live_failure()
