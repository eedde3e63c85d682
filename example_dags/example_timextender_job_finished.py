"""Start a DAG when a TimeXtender job has finished, whoever started it (Airflow 3)."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_provider_timextender.triggers import JobFinishedTrigger

sales = Asset(
    "timextender_load_sales",
    watchers=[
        AssetWatcher(
            name="load_sales_succeeded",
            trigger=JobFinishedTrigger(job_names=["Load sales"], states=["succeeded"], poll_interval=2),
        )
    ],
)


@dag(schedule=[sales], catchup=False, tags=["timextender"])
def example_timextender_job_finished() -> None:
    """Refresh the reports once for each load of sales."""

    @task
    def refresh_reports(triggering_asset_events: Any = None) -> list[str]:
        """Stand for what depends on the load, and tell which executions there were."""
        events = (triggering_asset_events or {}).get(sales, [])
        return [event.extra["payload"]["trigger_id"] for event in events]

    refresh_reports()


example_timextender_job_finished()
