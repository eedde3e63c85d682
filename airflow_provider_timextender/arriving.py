"""JSON that is understood while it arrives, so that its size costs no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_timextender.errors import AnswerTooLarge, InvalidInput

Event = tuple[str, Any]
"""What a JSON text is made of: ``("start_map", None)``, ``("map_key", "Id")``, ``("string", "...")``, ..."""

MAX_OBJECTS = 500_000
"""How many JSON objects and lists may be in memory at the same time: once understood, the smallest take more
than a hundred times their room in an answer."""


class Arriving:
    """A JSON text as a stream of events, and what can be taken off it.

    :ivar events: what is still to come. What breaks the pieces off is raised through them.
    :param pieces: the text in UTF-8.
    :param object_limit: bytes that may come between two calls of :meth:`passed`.
    :raises InvalidInput: if nothing here can read JSON in pieces.
    """

    def __init__(self, pieces: Iterable[bytes], object_limit: int) -> None:
        self._source = _Source(iter(pieces), object_limit)
        self._opened = 0
        # Numbers as the machine has them: ijson 3.6 crashes on integers of more than 4,300 digits otherwise.
        self.events: Iterator[Event] = _parser()(self._source, use_float=True)

    @classmethod
    def again(cls, value: Any) -> Arriving:
        """Return a value that has arrived before, as if it did once more."""
        arriving = cls.__new__(cls)
        arriving._source = _Source(iter(()), 0)
        arriving._opened = 0
        arriving.events = _events_of(value)
        return arriving

    @property
    def size(self) -> int:
        """How many bytes have arrived."""
        return self._source.size

    def passed(self) -> None:
        """Tell that nothing is held of what has come so far."""
        self._source.passed = self._source.size
        self._opened = 0

    def next_value(self) -> Any:
        """Return the value that comes next, whole."""
        return self.value(*next(self.events))

    def value(self, event: str, held: Any) -> Any:
        """Return the value that begins with an event."""
        if event not in ("start_map", "start_array"):
            return held
        self._opened += 1
        if self._opened > MAX_OBJECTS:
            raise AnswerTooLarge(f"it has more than {MAX_OBJECTS} JSON objects and lists")
        return self.members() if event == "start_map" else list(self.items(self.value))

    def items(self, take: Callable[[str, Any], Any]) -> Iterator[Any]:
        """Yield what is made of each item of the list that has begun."""
        for event, held in self.events:
            if event == "end_array":
                return
            yield take(event, held)

    def members(self, take: Callable[[str], Any] | None = None, within: str = "") -> dict[str, Any]:
        """Return the members of the object that has begun, as :func:`members_of`.

        :param take: takes a list off the stream, by the name of its member, and returns what stands for it;
            ``None`` leaves it here. It is asked of lists in objects in the object, too, as ``Log.Items``.
        """
        return members_of(*self._pairs(take, within))

    def objects(self, otherwise: Callable[[Any], Exception]) -> Iterator[tuple[list[str], list[Any], int]]:
        """Yield of each object of the list that has begun the names and the values of its members.

        That is faster than a dict of them, of which most are not needed: see :func:`members_of`. The third is
        how many bytes have arrived.

        :param otherwise: makes the error for an item that is no object.
        """
        source, events = self._source, self.events
        for event, held in events:
            if event != "start_map":
                if event == "end_array":
                    return
                raise otherwise(self.value(event, held))
            names: list[str] = []
            values: list[Any] = []
            for event, name in events:
                if event == "end_map":
                    break
                names.append(name)
                event, held = next(events)
                values.append(held if event == "string" else self.value(event, held))
            source.passed, self._opened = source.size, 0
            yield names, values, source.size

    def _pairs(
        self, take: Callable[[str], Any] | None = None, within: str = ""
    ) -> tuple[list[str], list[Any]]:
        names: list[str] = []
        values: list[Any] = []
        events = self.events
        for event, name in events:
            if event == "end_map":
                break
            names.append(name)
            event, held = next(events)
            values.append(held if event == "string" else self._member(f"{within}{name}", event, held, take))
        return names, values

    def _member(self, name: str, event: str, held: Any, take: Callable[[str], Any] | None) -> Any:
        if take is not None and event == "start_array" and (taken := take(name)) is not None:
            return taken
        if take is not None and event == "start_map" and "." not in name:
            return self.members(take, f"{name}.")
        return self.value(event, held)

    def finish(self) -> None:
        """Read to the end, where nothing but space may come."""
        for _ in self.events:
            self.passed()


def members_of(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Return the members of an object.

    What is told in several ways becomes their list: which one of two states or ids counts is not guessed.
    """
    found = dict(zip(names, values, strict=True))
    if len(found) == len(names):
        return found
    told: dict[str, list[Any]] = {}
    for name, value in zip(names, values, strict=True):
        told.setdefault(name, []).append(value)
    return {name: all_[0] if all_.count(all_[0]) == len(all_) else all_ for name, all_ in told.items()}


class _Source:
    """What is read while it is parsed.

    :ivar size: bytes so far. :ivar passed: how many of them are not held any more.
    """

    def __init__(self, pieces: Iterator[bytes], limit: int) -> None:
        self.size = self.passed = 0
        self._pieces = filter(None, pieces)  # an empty one would look like the end
        self._limit = limit

    def read(self, size: int) -> bytes:
        if not size:  # how a parser asks whether text or bytes come
            return b""
        held = self.size - self.passed
        if held > self._limit:
            raise AnswerTooLarge(f"a single JSON object in it is larger than {self._limit} bytes")
        piece = next(self._pieces, b"")
        self.size += len(piece)
        return piece


def _parser() -> Callable[..., Iterator[Event]]:
    import ijson  # here, as nobody needs it when a DAG is parsed

    try:
        parse: Callable[..., Iterator[Event]] = ijson.get_backend("yajl2_c").basic_parse
    except ImportError as error:
        # The others take thirty times as long, which would look like a slow server.
        raise InvalidInput(
            f"The C backend of ijson is missing ({error}), with which answers are read. Install ijson from a "
            "wheel, or build it with a C compiler at hand: pip install --force-reinstall ijson."
        ) from None
    return parse


def _events_of(value: Any) -> Iterator[Event]:
    if isinstance(value, Mapping):
        yield "start_map", None
        for name, held in value.items():
            yield "map_key", name
            yield from _events_of(held)
        yield "end_map", None
    elif isinstance(value, list):
        yield "start_array", None
        for held in value:
            yield from _events_of(held)
        yield "end_array", None
    else:
        yield "string" if isinstance(value, str) else "other", value
