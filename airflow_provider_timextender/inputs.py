"""Values that people type or templates render, checked before anything is sent."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_timextender.api import parse_time
from airflow_provider_timextender.errors import InvalidInput


def to_seconds(value: Any, what: str) -> float:
    """Return a positive, finite number of seconds, from a number, its text, or a ``timedelta``.

    :raises InvalidInput: for anything else.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidInput(f"{what} is {value!r}; it takes a number of seconds above 0.")
    return seconds


def to_time(value: datetime | str | None, what: str) -> datetime | None:
    """Return a time in UTC; without an offset it is taken as UTC. Blank text counts as not given.

    :raises InvalidInput: for text that is no ISO 8601 time.
    """
    if value is None or value == "":
        return None
    time = parse_time(value.isoformat() if isinstance(value, datetime) else value)
    if time is None:
        raise InvalidInput(f"{what} is {value!r}, which is not an ISO 8601 time.")
    return time
