"""A plugin that writes down each start and each end that Airflow tells it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


def _write(ti: Any, what: str) -> None:
    with Path(os.environ["LIVE_HEARD"]).open("a") as heard:
        heard.write(f"{ti.run_id} {ti.task_id}[{ti.map_index}] {what}\n")


class Listener:
    @hookimpl
    def on_task_instance_running(self, task_instance: Any) -> None:
        _write(task_instance, "starts")

    @hookimpl
    def on_task_instance_success(self, task_instance: Any) -> None:
        _write(task_instance, "succeeds")

    @hookimpl
    def on_task_instance_failed(self, task_instance: Any) -> None:
        _write(task_instance, "fails")


class ListeningPlugin(AirflowPlugin):
    name = "listening"
    listeners = [Listener()]  # noqa: RUF012
