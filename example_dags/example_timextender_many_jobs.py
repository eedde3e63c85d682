"""Run several TimeXtender jobs at the same time, between the tasks of other pipelines."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_timextender.operators import ExecuteJobOperator


@dag(schedule=None, catchup=False, tags=["timextender"])
def example_timextender_many_jobs() -> None:
    """Extract, load with as many jobs as the list has, refresh the reports."""

    @task
    def extract() -> list[str]:
        """Stand for what runs before, and tell which jobs have new data."""
        return ["Load sales", "Load finance", "Load stock"]

    load = ExecuteJobOperator.partial(
        task_id="load",
        wait_for_completion=True,
        poll_interval=1,
        map_index_template="{{ task.job_name }}",
    ).expand(job_name=extract())

    @task
    def refresh_reports(trigger_ids: list[str]) -> int:
        """Stand for what runs after all jobs have succeeded."""
        return len(list(trigger_ids))

    refresh_reports(load.output)


example_timextender_many_jobs()
