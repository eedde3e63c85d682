"""How a message tells of a job: its name comes first, as people use it, and the ids come last."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class Named(Protocol):
    """Of which job something is told, and of which execution; what is not known is ``None`` or empty."""

    @property
    def job_id(self) -> str | None: ...  # noqa: D102

    @property
    def job_name(self) -> str | None: ...  # noqa: D102

    @property
    def trigger_id(self) -> str | None: ...  # noqa: D102


class Of(NamedTuple):
    """No more than that."""

    job_id: str | None = None
    job_name: str | None = None
    trigger_id: str | None = None


def called(of: Named) -> str:
    """Return what a job is called: its name, or its id if that is all that is known."""
    return f"TimeXtender job {short(of.job_name) if of.job_name else _spelt(of.job_id)}"


def said(what: str, of: Named, joint: str = ": ") -> str:
    """Return a message as people read it: the job's name, what there is to say, and the ids.

    :param joint: what stands between the name and the rest.
    """
    if not (of.job_name or of.job_id):
        return what
    ids = {"job id": of.job_name and of.job_id, "trigger id": of.trigger_id}
    told = ", ".join(f"{kind} {_spelt(id_)}" for kind, id_ in ids.items() if id_)
    between = "\n  " if "\n" in what else " "
    return f"{called(of)}{joint}{what}{f'{between}({told})' if told else ''}"


def _spelt(id_: Any) -> str:
    """Return an id as it is; what people took for one may be of any length, and of several lines."""
    text = str(id_)
    return text if len(text) <= 40 and text.isprintable() else short(id_)


def short(value: Any) -> str:
    """Return a value as it is shown in a message: its repr, cut off after 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
