"""Wait for many TimeXtender jobs at the same time without holding a worker slot."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag

from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.sensors import JobStatusSensor


@dag(schedule=None, catchup=False, tags=["timextender"])
def example_timextender_deferrable() -> None:
    """Load sales and finance in the triggerer's care, then wait until nothing runs on stock."""
    load = ExecuteJobOperator.partial(
        task_id="load",
        wait_for_completion=True,
        deferrable=True,
        poll_interval=1,
    ).expand(job_name=["Load sales", "Load finance"])

    wait_for_stock = JobStatusSensor(
        task_id="wait_for_stock", job_name="Load stock", deferrable=True, poke_interval=1
    )

    load >> wait_for_stock


example_timextender_deferrable()
