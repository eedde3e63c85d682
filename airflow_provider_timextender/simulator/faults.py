"""What can go wrong between a client and the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "status",
    "reset",
    "silence",
    "html",
    "cut",
    "wrong type",
    "unknown word",
    "redirect",
    "body",
    "slow",
    "drip",
]


@dataclass(frozen=True)
class Fault:
    """One way to spoil an answer.

    :ivar kind: ``status`` (an error status), ``reset`` (the connection breaks), ``silence`` (no answer
        comes), ``html`` (a web page with status 200), ``cut`` (half of the JSON), ``wrong type`` (an object
        for an array and the reverse), ``unknown word`` (for statuses and states), ``redirect``, ``body``
        (this very body), ``slow`` (the right answer, ``seconds`` later), ``drip`` (a byte
        every so many ``seconds``).
    :ivar taken: the request takes effect before its answer is spoilt.
    :ivar status: for ``status`` (503 unless given), ``redirect`` (302) and ``body`` (200).
    :ivar body: for ``status`` and ``body``.
    :ivar retry_after: for ``status``: the header's value. :ivar location: for ``redirect``.
    :ivar word: for ``unknown word``. :ivar seconds: for ``slow`` and ``drip``.
    """

    kind: Kind
    taken: bool = False
    status: int | None = None
    body: str = "The service is unavailable."
    retry_after: str | None = None
    location: str = ""
    word: str | int | None = "Hibernating"
    seconds: float = 2.0
