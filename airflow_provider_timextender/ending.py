"""The start and the end of a task in the triggerer, without any worker (Airflow 3.3 and later).

It can be left out as a whole: tasks then start and end on a worker, as they do before Airflow 3.3.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any, Literal

from airflow.providers.common.compat.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, StartTriggerArgs

from airflow_provider_timextender.inputs import NOT_GIVEN
from airflow_provider_timextender.worlds import backstop
from airflow_provider_timextender.xcoms import CAN_BE_HAD, push

log = logging.getLogger(__name__)

_NAMES = "ds|ds_nodash|ts|ts_nodash|logical_date|data_interval_start|data_interval_end|dag_run|run_id"
_VALUE = r"""(?:'[^'{}]*'|"[^"{}]*"|[\d.]+)"""
_CALL = rf"\(\s*(?:{_VALUE}(?:\s*,\s*{_VALUE})*)?\s*\)"
_EXPRESSION = rf"(?:{_NAMES})(?:\.\w+|\[{_VALUE}\]|{_CALL})*(?:\s*\|\s*\w+(?:{_CALL})?)*"

KNOWN_IN_TRIGGERER = re.compile(rf"[^{{]*(?:\{{\{{\s*{_EXPRESSION}\s*\}}\}}[^{{]*)*")
"""A text whose templates use nothing but what a triggerer knows, which asks for nothing while it renders.

Airflow 3.3.2 never answers a triggerer that asks for an XCom, as ``ti.xcom_pull(task_ids=...)`` does. What is
written in any other way counts as unknown, which only costs a worker for a moment.
"""

SHOWS_NAME = re.compile(r"(?<![.\w])job_name\b")
"""What a template of a mapped task has in it if it shows what :func:`~.worlds.show_name` tells."""


def worker_has_to_tell() -> bool:
    """Tell whether a listener waits for the start or the success of tasks.

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


def end_with(
    task: BaseOperator, returns: Literal["trigger_id", "result"]
) -> Literal["trigger_id", "result", "nothing"] | None:
    """Return what a trigger may end a task with, ``None`` if a worker has something left to do.

    :param returns: what the task returns.
    """
    left_to_do = (
        task.outlets  # their events are sent by a worker
        or task._post_execute_hook is not None
        or getattr(task, "multiple_outputs", False)  # a worker pushes each part of the result, too
        or SHOWS_NAME.search(task.map_index_template or "")  # a worker renders it
        or not type(task).__module__.startswith(__package__)  # a subclass may do more at the end
    )
    if not CAN_BE_HAD or left_to_do or worker_has_to_tell():
        return None
    return returns if task.do_xcom_push else "nothing"


async def can_end_task(trigger: BaseTrigger, result: Mapping[str, Any], ending: str | None) -> bool:
    """Tell whether nothing is left to do for a worker; what the task returns has been pushed then.

    :param ending: what :func:`end_with` has returned.
    """
    ti: Any = trigger.task_instance
    # `dag.test()` runs triggers without their task, and cannot end it from here.
    if ending is None or ti is None:
        return False
    # Where Airflow has started the task here, nobody has asked yet whether tasks are mapped over its
    # result, which a worker has to tell.
    if trigger.task is not None and any(True for _ in trigger.task.iter_mapped_dependants()):
        return False
    # Asked once more, as the wait may have begun where the listener is not installed, or long ago; in a
    # thread, as the first to ask imports all plugins.
    if await asyncio.to_thread(worker_has_to_tell):
        return False
    if ending == "nothing":
        return True
    # Not by the event: Airflow 3 would encode the value once more than a worker does, and would pass by a
    # custom XCom backend.
    try:
        await push(ti, "return_value", result["trigger_id"] if ending == "trigger_id" else dict(result))
    except Exception:
        trigger.log.warning("The task ends on a worker, as its result could not be pushed", exc_info=True)
        return False
    return True


class StartFromTrigger:
    """Tells Airflow, when it asks, whether to start a sensor in the triggerer; a mapped one never is.

    It cannot before Airflow 3.3, which renders templates there; nor if a value depends on what a triggerer
    cannot ask for, as an XCom is; nor if a worker has something to do, or a listener to call.
    """

    def __get__(self, sensor: Any, owner: type) -> bool:
        """Return it."""
        return sensor is not None and sensor.start_trigger_args is not None


class StartTriggerArguments:
    """Tells Airflow what to start in the triggerer, ``None`` for nothing."""

    def __get__(self, sensor: Any, owner: type) -> StartTriggerArgs | None:
        """Return it."""
        if sensor is None or not sensor.deferrable or not _can_start_in_triggerer(sensor):
            return None
        arguments = sensor.trigger_arguments
        if not all(map(_is_known_in_triggerer, arguments.values())) or worker_has_to_tell():
            return None
        return StartTriggerArgs(
            trigger_cls=f"{__package__}.triggers.JobExecutionTrigger",
            trigger_kwargs={**arguments, "end_with": end_with(sensor, "result")},
            next_method="execute_complete",
            timeout=backstop(sensor.timeout),
        )


def _can_start_in_triggerer(sensor: Any) -> bool:
    worker_is_needed = (
        sensor.execution_timeout is not None
        or sensor.on_execute_callback
        or sensor._pre_execute_hook is not None
        or sensor.params  # Airflow 3.3.2 lets the whole triggerer fail if one of them is invalid
        or not type(sensor).__module__.startswith(__package__)
    )
    job_is_missing = all(one is None or one is NOT_GIVEN for one in (sensor.job_id, sensor.job_name))
    missing = (
        job_is_missing or sensor.trigger_id is None or sensor.completed_after is None
    )  # a worker says so
    return hasattr(BaseTrigger, "render_template_fields") and not worker_is_needed and not missing


def _is_known_in_triggerer(value: Any) -> bool:
    if isinstance(value, str):
        return KNOWN_IN_TRIGGERER.fullmatch(value) is not None
    return value is None or isinstance(value, (int, float))
