"""Write the log lines of all jobs of the last week to a file, and a table of the executions beside it."""

from __future__ import annotations

import tempfile
from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_timextender.operators import LogsOperator

FOLDER = f"{tempfile.gettempdir()}/timextender"  # or s3://connection@bucket/timextender, say

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dag(schedule="@daily", start_date=BEGIN, catchup=False, tags=["timextender"])
def example_timextender_export_logs() -> None:
    """Export the logs, and tell which executions have failed."""
    export_logs = LogsOperator(
        task_id="export_logs",
        all_jobs=True,
        since="{{ dag_run.start_date - macros.timedelta(days=7) }}",
        message_pattern="Transfer task '(?P<transfer_task>[^']+)'",
        output_path=f"{FOLDER}/logs.jsonl",
    )

    @task
    def list_failures(exported: dict[str, str]) -> list[str]:
        """Return the jobs whose executions have failed, and when."""
        import json

        from airflow.providers.common.compat.sdk import ObjectStoragePath

        rows = map(json.loads, ObjectStoragePath(exported["executions_path"]).read_text().splitlines())
        return [f"{row['end']} {row['job_name']}" for row in rows if row["state"] == "failed"]

    list_failures(export_logs.output)


example_timextender_export_logs()
