"""Queue a TimeXtender job, wait for it in a second task, and read its log in a third, also if it failed."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_timextender.operators import ExecuteJobOperator, LogsOperator
from airflow_provider_timextender.sensors import JobStatusSensor


@dag(schedule=None, catchup=False, tags=["timextender"])
def example_timextender_sensor_and_logs() -> None:
    """Execute, wait, read the log; refresh the reports only after a good load."""
    execute = ExecuteJobOperator(task_id="execute", job_name="Load sales")

    wait = JobStatusSensor(
        task_id="wait",
        job_name="Load sales",
        trigger_id="{{ ti.xcom_pull('execute') }}",
        poke_interval=1,
        timeout=3600,
    )

    read_log = LogsOperator(
        task_id="read_log",
        job_name="Load sales",
        trigger_id="{{ ti.xcom_pull('execute') }}",
        trigger_rule="all_done",
    )

    @task
    def refresh_reports() -> None:
        """Stand for what depends on the load; as it is a last task too, the run is red if the load failed."""

    execute >> wait >> [read_log, refresh_reports()]


example_timextender_sensor_and_logs()
