"""How a command ends and how it speaks: results go to standard output, all else to standard error."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn, TypeVar

from airflow.cli.simple_table import AirflowConsole
from rich import progress
from rich.console import Console
from rich.markup import escape

from airflow_provider_timextender.errors import InvalidInput, JobError, TimeXtenderError
from airflow_provider_timextender.model import plain
from airflow_provider_timextender.verdict import for_people

T = TypeVar("T")

COULD_NOT, INTERRUPTED, PIPE_CLOSED = 2, 130, 141
"""Exit statuses; 1 is for a job that has failed or never started. The last two are those of a shell."""

STYLES = {
    "idle": "dim",
    "queued": "yellow",
    "pending": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "never started": "red",
    "warning": "yellow",
    "error": "red",
    "critical": "bold red",
}
"""How states and severities are shown on a terminal."""


def command(do: Callable[[Namespace], int | None]) -> Callable[[Namespace], NoReturn]:
    """Return a command that ends the process with the status returned, or with that of an error."""

    @wraps(do)
    def and_exit(args: Namespace) -> NoReturn:
        # Airflow logs to standard output (up to 3.2), which is for the result.
        logging.basicConfig(handlers=[Lines(logging.WARNING)], force=True)
        try:
            status = do(args) or 0
            sys.stdout.flush()
        except KeyboardInterrupt:
            status = INTERRUPTED
        except BrokenPipeError:
            # What is left in a buffer has to go somewhere when Python ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(nowhere, stream.fileno())
            status = PIPE_CLOSED
        except TimeXtenderError as error:
            say(f"{error}", "red")
            status = 1 if isinstance(error, JobError) else COULD_NOT
        except Exception:  # noqa: BLE001 - Python's own status, 1, would say that the job has failed
            say(traceback.format_exc())
            status = COULD_NOT
        sys.exit(status)

    return and_exit


class Lines(logging.Handler):
    """Shows what is logged, line by line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one of them."""
        say(record.getMessage(), STYLES.get(record.levelname.lower(), ""))


class _Console(AirflowConsole):
    def on_broken_pipe(self) -> None:
        """Raise it again, and do not exit with the status of a job that has failed."""
        raise


def _aside() -> Console:
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def results() -> Console:
    """Return where results are shown to people."""
    return _Console(emoji=False)


def say(text: str, style: str = "", *, end: str = "\n") -> None:
    """Tell something beside the result."""
    _aside().print(text, style=style, end=end, soft_wrap=True)


def warn(problems: Iterable[str | None]) -> None:
    """Tell what was not understood, each thing once."""
    for problem in dict.fromkeys(filter(None, problems)):
        say(problem, "yellow")


def ask(question: str | Callable[[], str], *, otherwise: str) -> None:
    """Go on only if somebody says yes.

    :param otherwise: what is so if not.
    :raises InvalidInput: if the answer is no, or nobody is there to answer.
    """
    if not sys.stdin.isatty():
        raise InvalidInput(f"To go on without being asked, give --yes. {otherwise}")
    say(f"{question if isinstance(question, str) else question()} [y/N]", end=" ")
    answer = sys.stdin.readline()
    if not answer:  # Ctrl-D
        say("")
    if answer.strip().lower() not in ("y", "yes"):
        raise InvalidInput(otherwise)


def track(items: Sequence[T], doing: str) -> Iterable[T]:
    """Yield items, with a bar of progress on a terminal."""
    console = _aside()
    if not console.is_terminal:
        return items
    return progress.track(items, doing, console=console, transient=True)


def show_data(data: Any, output: str) -> None:
    """Show an object for programs, as ``json`` or ``yaml``."""
    console = _Console(emoji=False)
    (console.print_as_json if output == "json" else console.print_as_yaml)(data)


def show_rows(rows: Sequence[Mapping[str, Any]], output: str) -> None:
    """Show rows as Airflow's own commands do: for people in local time, for programs in ISO 8601 and UTC."""
    cell: Callable[[str, Any], Any] = {"table": _in_table, "plain": _in_words}.get(output, _for_programs)
    shown = [{column: cell(column, value) for column, value in row.items()} for row in rows]
    _Console(emoji=False).print_as(shown, output)


def _for_programs(column: str, value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _in_words(column: str, value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone().isoformat(" ", "seconds")
    if isinstance(value, float):
        return for_people(value)
    return "" if value is None else plain(str(value))


def _in_table(column: str, value: Any) -> str:
    text = escape(_in_words(column, value))
    style = STYLES.get(text) if column in ("state", "severity") else None
    return f"[{style}]{text}[/]" if style else text
