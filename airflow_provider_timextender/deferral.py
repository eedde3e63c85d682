"""What the operator and the sensor share about waiting in the triggerer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_timextender.model import iso
from airflow_provider_timextender.polling import backstop
from airflow_provider_timextender.verdict import Run

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)


def worker_has_to_tell() -> bool:
    """Tell whether a listener waits for the start or the success of tasks (Airflow 3.3 and later).

    Airflow calls it where a worker starts and ends a task (`finalize` in apache/airflow,
    task-sdk/src/airflow/sdk/execution_time/task_runner.py), and not where a trigger ends one
    (`handle_event_submit` in airflow-core/src/airflow/models/trigger.py). Failed and skipped tasks end on a
    worker anyway.
    """
    from airflow.sdk.listener import get_listener_manager

    try:
        hook = get_listener_manager().hook
    except Exception:
        # One listener that does not fit this Airflow hides the others; a worker is never wrong.
        log.warning("It cannot be told whether a listener waits for tasks", exc_info=True)
        return True
    return any((hook.on_task_instance_running.get_hookimpls(), hook.on_task_instance_success.get_hookimpls()))


class DefersMixin(BaseOperator):
    """Waits in the triggerer, where a success also ends the task if nothing is left to do on a worker."""

    deferrable: bool
    timextender_conn_id: str

    def defer_to_trigger(
        self,
        context: Context,
        run: Run,
        *,
        poll_interval: float,
        timeout: float,
        max_unreachable: float,
        known_key: bool,
        returns: Literal["trigger_id", "result"] | None,
        method_name: str = "execute_complete",
    ) -> NoReturn:
        """Defer, with limits that count from when the run was asked for.

        :param returns: what the task returns after a success; ``None`` if a worker has to go on then.
        """
        # Imported here, as nobody needs it when a DAG is parsed.
        from airflow_provider_timextender.triggers import JobExecutionTrigger

        ti: Any = context["ti"]
        deadline = ti.start_date + self.execution_timeout if self.execution_timeout else None
        # A worker has to tell how many tasks are mapped over the result.
        in_dag = self.has_dag()  # type: ignore[no-untyped-call]
        maps = in_dag and ti.map_index < 0 and any(True for _ in self.iter_mapped_dependants())
        self.defer(
            trigger=JobExecutionTrigger(
                timextender_conn_id=self.timextender_conn_id,
                job_id=run.job_id,
                trigger_id=run.trigger_id,
                completed_after=iso(run.completed_after),
                asked_at=iso(run.asked_at),
                start_timeout=run.start_timeout,
                poll_interval=poll_interval,
                timeout=timeout,
                execution_deadline=iso(deadline),
                max_unreachable=max_unreachable,
                known_key=known_key,
                resumed=run.resumed or run.active_at is not None,
                end_with=None if maps or returns is None else self.end_with(returns),
            ),
            method_name=method_name,
            timeout=backstop(timeout),
        )

    def end_with(
        self, returns: Literal["trigger_id", "result"]
    ) -> Literal["trigger_id", "result", "nothing"] | None:
        """Return what a trigger may end the task with, ``None`` if a worker has something left to do."""
        from airflow.triggers.base import BaseTrigger

        # Before Airflow 3.3 no triggerer can push an XCom so that a task gets what was pushed.
        possible = hasattr(BaseTrigger, "on_kill")
        left_to_do = (
            self.outlets  # their events are sent by a worker
            or self._post_execute_hook is not None
            or getattr(self, "multiple_outputs", False)  # a worker pushes each part of the result, too
            or not type(self).__module__.startswith(__package__)  # a subclass may do more at the end
        )
        if not possible or left_to_do or worker_has_to_tell():
            return None
        return returns if self.do_xcom_push else "nothing"

    def resume_execution(
        self, next_method: str, next_kwargs: Mapping[str, Any] | None, context: Context
    ) -> Any:
        """Resume after an event, or after Airflow has lost or ended the wait, which is told like an event."""
        event = (next_kwargs or {}).get("event")
        if next_method == "__fail__":
            told = next_kwargs or {}
            if told.get("traceback"):
                self.log.error("The trigger ended with an error:\n%s", "".join(told["traceback"]))
            timed_out = "timeout" in str(told.get("error")).lower()
            event = {
                "job_id": self._pushed(context, "job_id"),
                "trigger_id": self._pushed(context, "trigger_id", unknown="not known"),
                "error": "WaitTimeout" if timed_out else "TriggerLost",
                "message": f"Airflow ended the wait: {told.get('error')}.",
            }
            next_method = "execute_complete"
        return getattr(self, next_method)(context, event)

    def _pushed(self, context: Context, key: str, *, unknown: str | None = None) -> Any:
        ti: Any = context["ti"]
        try:
            return ti.xcom_pull(task_ids=self.task_id, key=key, map_indexes=ti.map_index)
        except Exception:
            self.log.warning("Could not pull the XCom %s", key, exc_info=True)
            return unknown
