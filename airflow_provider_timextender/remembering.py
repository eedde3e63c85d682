"""Where a task remembers over its runs what its outputs hold: with its asset, or in Airflow Variables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Any, Protocol

from airflow.providers.common.compat.sdk import Asset, Context, Variable, conf

LONGEST_KEY = 250
"""How many characters the key of an Airflow Variable may have."""


class Store(Protocol):
    """Where plain JSON is kept under keys."""

    def get(self, key: str, /) -> Any:
        """Return what is kept; ``None`` if there is nothing."""

    def set(self, key: str, value: Any, /) -> None:
        """Keep a value."""

    def delete(self, key: str, /) -> None:
        """Forget what is kept, if anything is."""


class Variables:
    """Airflow Variables, which every version has."""

    def get(self, key: str, /) -> Any:
        """Return what is kept; ``None`` if there is nothing."""
        text = Variable.get(key, None)
        return None if text is None else json.loads(text)

    def set(self, key: str, value: Any, /) -> None:
        """Keep a value."""
        Variable.set(key, json.dumps(value))

    def delete(self, key: str, /) -> None:
        """Forget what is kept, if anything is."""
        Variable.delete(key)


class TaskMemory:
    """What a task remembers of its outputs, job by job.

    From Airflow 3.3 on, the newest of a job is kept in the state store of the task's first asset among its
    outlets, and what each run has put out in its task state store. Where a task has no such outlet, and
    before 3.3, the newest is kept in a Variable.
    """

    def __init__(self, context: Context) -> None:
        given: Mapping[str, Any] = dict(context)
        ti: Any = given["ti"]
        self._prefix = f"timextender_increment:{ti.dag_id}.{ti.task_id}:"
        self._own: Any = given.get("task_state_store")
        self._assets: Any = given.get("asset_state_store")
        self._outlets = getattr(given.get("task"), "outlets", None) or ()
        self._variables = Variables()

    @cached_property
    def _newest(self) -> Store:
        outlet = next((outlet for outlet in self._outlets if isinstance(outlet, Asset)), None)
        return self._variables if outlet is None or self._assets is None else self._assets[outlet]

    @property
    def owns(self) -> bool:
        """Whether what each run has put out is kept as well."""
        forgets = conf.getboolean("state_store", "clear_on_success", fallback=False)
        return self._own is not None and not forgets

    def place(self, job_id: str) -> str:
        """Return where the newest increment of a job is kept, for people."""
        kind = "an Airflow Variable" if self._newest is self._variables else "a state of the task's asset"
        return f"{self._key(job_id)!r}, {kind}"

    def newest(self, job_id: str) -> Any:
        """Return the newest increment of a job."""
        key = self._key(job_id)
        found = self._newest.get(key)
        if found is None and self._newest is not self._variables:
            # Kept there before the task had an asset, or its Airflow a store for one.
            found = self._variables.get(key)
            if found is not None:
                self._newest.set(key, found)
                self._variables.delete(key)
        return found

    def own(self, job_id: str) -> Any:
        """Return the increment of a job that this run has written."""
        return self._own.get(self._key(job_id)) if self.owns else None

    def forget_own(self, job_id: str) -> None:
        """Forget the increment of a job that this run has written."""
        self._own.delete(self._key(job_id))

    def keep(self, job_id: str, newest: Any, own: Any) -> None:
        """Keep an increment of a job as the newest, and as this run's own."""
        self._newest.set(self._key(job_id), newest)
        if self.owns:
            from airflow.sdk.execution_time.context import NEVER_EXPIRE

            self._own.set(self._key(job_id), own, retention=NEVER_EXPIRE)

    def _key(self, job_id: str) -> str:
        key = f"{self._prefix}{job_id}"
        if len(key) <= LONGEST_KEY:
            return key
        return f"timextender_increment:{blake2b(key.encode()).hexdigest()}"
