"""The parts of Airflow that a task touches, so that they can be looked at."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from importlib.util import find_spec
from typing import Any


class Store:
    """A task state store in memory, which survives the tries of a task; it keeps JSON."""

    def __init__(self, *, broken: bool = False) -> None:
        self.kept: dict[str, Any] = {}
        self.broken = broken

    def get(self, key: str, default: Any = None) -> Any:
        return self.kept.get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.broken:
            raise OSError("no space")
        self.kept[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        if self.broken:
            raise OSError("no space")
        self.kept.pop(key, None)


class TaskInstance:
    """The part of a task instance that the operators use; it keeps what they push."""

    map_index = -1
    try_number = 1
    max_tries = 0
    dag_id = task_id = run_id = "t"

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}
        self.start_date = datetime.now(timezone.utc)
        self.first_reschedule: datetime | None = None

    def xcom_push(self, key: str, value: Any) -> None:
        assert key not in self.xcoms, f"R30: {key} is pushed twice"
        self.xcoms[key] = value

    if find_spec("airflow.sdk"):

        def get_first_reschedule_date(self, context: Any) -> Any:
            return self.first_reschedule


def context_of(ti: TaskInstance, store: Store | None = None) -> Any:
    """Return the part of a task's context that is used."""
    return {"ti": ti} if store is None else {"ti": ti, "task_state_store": store}
