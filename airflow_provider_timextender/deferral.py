"""What the operator and the sensor share: their hook, and how they wait in the triggerer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator, Context

from airflow_provider_timextender.ending import end_with
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.inputs import to_seconds
from airflow_provider_timextender.life import Limits
from airflow_provider_timextender.shown import SHOWN_KEY, Shown
from airflow_provider_timextender.verdict import Run
from airflow_provider_timextender.worlds import backstop


class DefersMixin(BaseOperator):
    """Has a hook, and can wait in the triggerer.

    A success also ends the task there if nothing is left to do on a worker.
    """

    deferrable: bool = False
    timextender_conn_id: str
    max_unreachable: float

    @cached_property
    def hook(self) -> TimeXtenderHook:
        """The hook for the connection."""
        patience = to_seconds(self.max_unreachable, "max_unreachable")
        return TimeXtenderHook(self.timextender_conn_id, max_unreachable=patience)

    def defer_to_trigger(
        self,
        context: Context,
        run: Run,
        limits: Limits,
        shown: Shown,
        *,
        known_key: bool,
        returns: Literal["trigger_id", "result"] | None,
    ) -> NoReturn:
        """Defer, with limits that count from when the run was asked for.

        :param shown: what the task's log shows of the execution.
        :param returns: what the task returns after a success; ``None`` if a worker has to go on then.
        """
        # Imported here, as nobody needs it when a DAG is parsed.
        from airflow_provider_timextender.triggers import JobExecutionTrigger

        ti: Any = context["ti"]
        deadline = ti.start_date + self.execution_timeout if self.execution_timeout else None
        timeout = (limits.end - run.asked_at).total_seconds()
        # A worker has to tell how many tasks are mapped over the result.
        in_dag = self.has_dag()  # type: ignore[no-untyped-call]
        maps = in_dag and ti.map_index < 0 and any(True for _ in self.iter_mapped_dependants())
        self.defer(
            trigger=JobExecutionTrigger(
                timextender_conn_id=self.timextender_conn_id,
                job_id=run.job_id,
                job_name=run.job_name,
                known_job=True,
                trigger_id=run.trigger_id,
                completed_after=run.completed_after.isoformat() if run.completed_after else None,
                asked_at=run.asked_at.isoformat(),
                start_timeout=run.start_timeout,
                poll_interval=limits.interval,
                timeout=timeout,
                execution_deadline=deadline.isoformat() if deadline else None,
                max_unreachable=limits.max_unreachable,
                known_key=known_key,
                resumed=run.resumed or run.active_at is not None,
                shown=shown.to_dict() if shown.count else None,
                end_with=None if maps or returns is None else end_with(self, returns),
            ),
            method_name="execute_complete",
            timeout=backstop(timeout),
        )

    def resume_execution(
        self, next_method: str, next_kwargs: Mapping[str, Any] | None, context: Context
    ) -> Any:
        """Resume after an event, or after Airflow has lost or ended the wait, which is told like an event."""
        self._take_over_shown(context)
        event = (next_kwargs or {}).get("event")
        if next_method == "__fail__":
            told = next_kwargs or {}
            if told.get("traceback"):
                self.log.error("The trigger ended with an error:\n%s", "".join(told["traceback"]))
            timed_out = "timeout" in str(told.get("error")).lower()
            event = {
                "job_id": self._pushed(context, "job_id"),
                "job_name": self._pushed(context, "job_name"),
                "trigger_id": self._pushed(context, "trigger_id", unknown="not known"),
                "error": "WaitTimeout" if timed_out else "TriggerLost",
                "message": f"Airflow ended the wait: {told.get('error')}.",
            }
            next_method = "execute_complete"
        return getattr(self, next_method)(context, event)

    def _take_over_shown(self, context: Context) -> None:
        """Keep for another try which lines a trigger has shown, as Airflow deletes XComs before that."""
        store: Any = context.get("task_state_store")
        if store is None or (shown := self._pushed(context, SHOWN_KEY)) is None:
            return
        try:
            store.set(SHOWN_KEY, shown)
        except Exception:
            self.log.warning("Could not keep which lines were shown", exc_info=True)

    def _pushed(self, context: Context, key: str, *, unknown: str | None = None) -> Any:
        ti: Any = context["ti"]
        try:
            return ti.xcom_pull(task_ids=self.task_id, key=key, map_indexes=ti.map_index)
        except Exception:
            self.log.warning("Could not pull the XCom %s", key, exc_info=True)
            return unknown
