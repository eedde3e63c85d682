"""Run a TimeXtender job in one task that succeeds or fails with it."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag

from airflow_provider_timextender.operators import ExecuteJobOperator


@dag(schedule=None, catchup=False, tags=["timextender"])
def example_timextender_run_job() -> None:
    """Load sales, and go on only when the load has succeeded."""
    ExecuteJobOperator(
        task_id="load_sales",
        job_name="Load sales",
        wait_for_completion=True,
        poll_interval=1,  # for a demonstration; the default of 30 seconds suits real loads
    )


example_timextender_run_job()
