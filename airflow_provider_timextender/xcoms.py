"""The XComs of a trigger's own task, which a triggerer can read and write (Airflow 3.3 and later)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from airflow.triggers.base import BaseTrigger

from airflow_provider_timextender.shown import SHOWN_KEY

T = TypeVar("T")

TIMEOUT = 60
"""Seconds that an XCom may take."""

CAN_BE_HAD = hasattr(BaseTrigger, "on_kill")
"""Whether a triggerer can push an XCom so that a task gets what was pushed."""


async def push(ti: Any, key: str, value: Any) -> None:
    """Push an XCom of a task.

    :raises TimeoutError: if that takes more than a minute. :raises Exception: that of a custom XCom backend.
    """
    from airflow.sdk.execution_time.xcom import XCom

    await _in_thread(XCom.set, key=key, value=value, **_of(ti))


async def _in_thread(do: Callable[..., T], **arguments: Any) -> T:
    # A custom XCom backend may be slow.
    return await asyncio.wait_for(asyncio.to_thread(do, **arguments), TIMEOUT)


def _of(ti: Any) -> dict[str, Any]:
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}


class InXCom:
    """Keeps what a triggerer shows in a task's log, for the one that takes over after its death.

    A triggerer has no task state store, and Airflow never changes the arguments of a trigger.
    """

    def __init__(self, ti: Any) -> None:
        self._ti = ti

    async def get(self) -> Any:
        """Return what a triggerer has kept in this try of the task.

        A worker removes the XComs of the try before when it starts one; a triggerer that does so leaves them.
        """
        from airflow.sdk.execution_time.xcom import XCom

        kept = await _in_thread(XCom.get_one, key=SHOWN_KEY, **_of(self._ti))
        return kept if kept is not None and kept["try"] == self._ti.try_number else None

    async def set(self, value: dict[str, Any]) -> None:
        """Keep it."""
        await push(self._ti, SHOWN_KEY, {**value, "try": self._ti.try_number})
