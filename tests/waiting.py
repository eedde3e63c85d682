"""How tests wait for what happens elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def comes_true(condition: Callable[[], bool], seconds: float = 60, *, pause: float = 0.05) -> bool:
    """Wait, beside what else the event loop runs, for what comes true elsewhere; but not for ever."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(pause)
    return True
