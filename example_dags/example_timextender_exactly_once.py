"""Run a load exactly once, after whatever runs on its job, whatever breaks on the way."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import dag

from airflow_provider_timextender.operators import ExecuteJobOperator


@dag(schedule=None, catchup=False, tags=["timextender"])
def example_timextender_exactly_once() -> None:
    """Load sales when nobody else does; another try goes on with the load of the one before it."""
    ExecuteJobOperator(
        task_id="load_sales",
        job_name="Load sales",
        wait_for_completion=True,
        deferrable=True,
        if_running="wait",
        retries=1,
        # For a demonstration; the defaults of 30 seconds and 5 minutes suit real loads.
        poll_interval=1,
        retry_delay=timedelta(seconds=1),
    )


example_timextender_exactly_once()
