"""Tell of each transfer task when it last succeeded and when it last failed, from logs in a database."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator

from airflow_provider_timextender.operators import LogsOperator

# Transfer tasks are named after their data source here, as in 'Load sales - Orders'.
ENDS = r"Transfer task '(?P<transfer_task>(?P<data_source>[^']+?) - [^']+)' (?P<result>finished|failed)"

# [last loads: begin]
LAST_LOADS = """
SELECT
    data_source,
    transfer_task,
    MAX(CASE WHEN result = 'finished' THEN time END) AS last_success,
    MAX(CASE WHEN result = 'failed' THEN time END) AS last_failure,
    MAX(CASE WHEN result = 'finished' THEN duration END) AS duration
FROM (
    SELECT
        l.data_source, l.transfer_task, l.result, l.time, e.duration,
        ROW_NUMBER() OVER (
            PARTITION BY l.transfer_task, l.result ORDER BY l.time DESC, l.execution_key
        ) AS newest
    FROM timextender_lines AS l
    JOIN timextender_executions AS e ON e.execution_key = l.execution_key
    WHERE l.result IS NOT NULL AND l.time IS NOT NULL
) AS ends
WHERE newest = 1
GROUP BY data_source, transfer_task
ORDER BY transfer_task
"""
# [last loads: end]


@dag(schedule=None, catchup=False, tags=["timextender"])
def example_timextender_last_loads_sql() -> None:
    """Write what the logs tell of transfer tasks to the database, and ask it for the newest ends of each."""
    logs = LogsOperator(task_id="logs", all_jobs=True, message_pattern=ENDS, output_conn_id="warehouse")
    last_loads = SQLExecuteQueryOperator(task_id="last_loads", conn_id="warehouse", sql=LAST_LOADS)
    logs >> last_loads


example_timextender_last_loads_sql()
