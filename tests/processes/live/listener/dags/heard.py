"""A DAG for a live Airflow with a listener."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.sensors import JobStatusSensor


@dag(schedule=None, catchup=False)
def live_heard() -> None:
    """Wait in each way in which a task can start and end."""
    for task_id in ("worker", "deferrable"):
        ExecuteJobOperator(
            task_id=task_id,
            job_name=task_id,
            wait_for_completion=True,
            deferrable=task_id == "deferrable",
            poll_interval=1,
        )
    # Without a listener, it would start in the triggerer.
    JobStatusSensor(
        task_id="sensor",
        trigger_id="{{ dag_run.conf.trigger_id }}",
        job_name="sensor",
        deferrable=True,
        poke_interval=1,
    )


live_heard()
