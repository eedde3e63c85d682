"""Run a job, and add what is new in the logs of all jobs to a folder of files, one for each run."""

from __future__ import annotations

import tempfile

from airflow.providers.common.compat.sdk import Asset, dag

from airflow_provider_timextender.operators import ExecuteJobOperator, LogsOperator

FOLDER = f"{tempfile.gettempdir()}/timextender"  # or s3://connection@bucket/timextender, say

new_logs = Asset("timextender_new_logs")


@dag(schedule=None, catchup=False, max_active_runs=1, tags=["timextender"])
def example_timextender_new_logs() -> None:
    """Load, then write what no earlier run has written; DAGs that are scheduled on the asset start then."""
    load = ExecuteJobOperator(
        task_id="load_sales", job_name="Load sales", wait_for_completion=True, poll_interval=1
    )

    write_new_logs = LogsOperator(
        task_id="write_new_logs",
        all_jobs=True,
        incremental=True,
        output_path=f"{FOLDER}/new_logs/{{{{ run_id }}}}.jsonl",
        outlets=[new_logs],
    )

    load >> write_new_logs


example_timextender_new_logs()
