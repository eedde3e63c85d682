"""What can go wrong between a client and the API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

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


class Use(NamedTuple):
    """What a kind of fault does, and with what.

    :ivar does: in words. :ivar fields: those of a :class:`Fault` that it uses. :ivar status: unless one is
        given. :ivar statuses: those that may be given. :ivar routes: where it can be; empty for everywhere.
    """

    does: str
    fields: tuple[str, ...]
    status: int = 200
    statuses: range = range(200, 600)
    routes: tuple[str, ...] = ()


KINDS: Mapping[Kind, Use] = {
    "status": Use(
        "a status that is no success", ("status", "body", "retry_after", "taken"), 503, range(300, 600)
    ),
    "reset": Use("the connection breaks", ("taken",)),
    "silence": Use("no answer comes", ("taken",)),
    "html": Use("a web page with status 200", ("taken",)),
    "cut": Use("half of the JSON", ("taken",)),
    "wrong type": Use("an object for an array, and the reverse", ("taken",)),
    "unknown word": Use(
        "one and the same word for all statuses and states",
        ("word",),
        routes=("status", "statuses", "logs", "execution logs"),
    ),
    "redirect": Use("to another address", ("location", "status", "taken"), 302, range(300, 400)),
    "body": Use("this very body", ("body", "status", "taken")),
    "slow": Use("the right answer, late", ("seconds", "taken")),
    "drip": Use("a byte every so often, without an end", ("seconds", "taken")),
}
"""What each kind of fault does: what a :class:`Fault` refuses and the guide's table follow from it."""


@dataclass(frozen=True)
class Fault:
    """One way to spoil an answer. Each kind uses some of the other fields, and refuses the rest.

    :ivar kind: ``status``, ``reset``, ``silence``, ``html``, ``cut``, ``wrong type``, ``unknown word``,
        ``redirect``, ``body``, ``slow`` or ``drip``; the guide says what each does.
    :ivar taken: a request to execute a job takes effect before its answer is spoilt; where an answer is cut,
        of the wrong type or slow it always does.
    :ivar status: of HTTP; ``None`` for the kind's own. :ivar body: text.
    :ivar retry_after: the header's value. :ivar location: that of a redirect, which needs one.
    :ivar word: text, a code or ``None``. :ivar seconds: above 0.
    :raises ValueError: if there is no such kind, or it does not use what is given.
    """

    kind: Kind
    taken: bool = False
    status: int | None = None
    body: str = "The service is unavailable."
    retry_after: str | None = None
    location: str = ""
    word: str | int | None = "Hibernating"
    seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"There is no fault {self.kind!r}; the kinds are {', '.join(KINDS)}.")
        use = KINDS[self.kind]
        given = [field.name for field in fields(self)[1:] if getattr(self, field.name) != field.default]
        if stray := [name for name in given if name not in use.fields]:
            raise ValueError(
                f"A fault of the kind {self.kind!r} does not use {', '.join(stray)}; "
                f"it uses {', '.join(use.fields)}."
            )
        if self.status is not None and self.status not in use.statuses:
            allowed = f"{use.statuses[0]} to {use.statuses[-1]}"
            raise ValueError(f"status is {self.status!r}; {self.kind!r} takes {allowed}.")
        if self.retry_after is not None and not isinstance(self.retry_after, str):
            raise ValueError(f"retry_after is {self.retry_after!r}; it takes text, as a header is.")
        if self.kind == "redirect" and not self.location:
            raise ValueError("A redirect needs a location.")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds is {self.seconds!r}; it takes a number above 0.")

    def refuse_elsewhere(self, route: str, method: str) -> None:
        """Refuse a route whose answers it cannot spoil.

        :raises ValueError: naming the route.
        """
        if (routes := KINDS[self.kind].routes) and route not in routes:
            raise ValueError(f"{self.kind!r} spoils nothing of {route!r}, only of {', '.join(routes)}.")
        if self.taken and method == "GET":
            raise ValueError(f"taken is for 'execute'; the request of {route!r} only reads.")
