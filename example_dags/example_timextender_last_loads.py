"""Tell of each transfer task when it last succeeded and when it last failed, from logs in Parquet files."""

from __future__ import annotations

import tempfile
from typing import Any

from airflow.providers.common.compat.sdk import ObjectStoragePath, dag, task

from airflow_provider_timextender.operators import LogsOperator

FOLDER = f"{tempfile.gettempdir()}/timextender"  # or s3://connection@bucket/timextender, say

# Transfer tasks are named after their data source here, as in 'Load sales - Orders'.
ENDS = r"Transfer task '(?P<transfer_task>(?P<data_source>[^']+?) - [^']+)' (?P<result>finished|failed)"


@dag(schedule=None, catchup=False, tags=["timextender"])
def example_timextender_last_loads() -> None:
    """Write what the logs tell of transfer tasks to files, and the newest ends of each to another one."""
    logs = LogsOperator(
        task_id="logs",
        all_jobs=True,
        message_pattern=ENDS,
        output_path=f"{FOLDER}/loads.parquet",
    )

    @task
    def last_loads(written: dict[str, Any]) -> str:
        """Write a row for each transfer task, and return the path of the file."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        def read(path: str, columns: list[str]) -> Any:
            with ObjectStoragePath(path).open("rb") as file:
                return pq.read_table(file, columns=columns)

        tasks = ["data_source", "transfer_task"]
        ends = read(written["path"], [*tasks, "result", "time", "execution_key"])
        durations = read(written["executions_path"], ["execution_key", "duration"])
        ends = ends.join(durations, "execution_key").sort_by(
            [("time", "ascending"), ("execution_key", "descending")]
        )
        newest = ends.group_by([*tasks, "result"], use_threads=False).aggregate(
            [("time", "last"), ("duration", "last")]
        )

        def ended(result: str, names: dict[str, str]) -> Any:
            chosen = newest.filter(pc.field("result") == result)
            return chosen.select([*tasks, *names]).rename_columns([*tasks, *names.values()])

        succeeded = ended("finished", {"time_last": "last_success", "duration_last": "duration"})
        failed = ended("failed", {"time_last": "last_failure"})
        table = succeeded.join(failed, tasks, join_type="full outer").sort_by("transfer_task")
        path = ObjectStoragePath(written["path"]).with_name("last_loads.parquet")
        with path.open("wb") as file:
            pq.write_table(table.select([*tasks, "last_success", "last_failure", "duration"]), file)
        return str(path)

    last_loads(logs.output)


example_timextender_last_loads()
