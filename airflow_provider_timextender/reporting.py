"""How the report of a check is shown to people, on a terminal or in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from airflow_provider_timextender.check import TIMES, Report, Word, has_zone
from airflow_provider_timextender.model import plain
from airflow_provider_timextender.verdict import for_people

T = TypeVar("T")

MOST = 100
"""So many words, questions and problems are shown at most: where there are more, they are no words."""

_DECIDING = {"execution.state", "execution.end"}

_COLORS = {"proposed": "yellow", "not found": "red", "unknown": "red"}


def show(report: Report, console: Console, reached: str) -> None:
    """Print a report.

    :param reached: where the API was reached, and how.
    """
    facts = report.reached
    _say(
        console,
        f"Reached {reached}: {facts['jobs']} jobs, {facts['statuses']} statuses, {facts['executions']} "
        f"executions with {facts['log_entries']} log entries in the logs of {len(facts['logs'])} jobs.",
    )
    _print(console, "Members", _fields(report))
    _print(console, "Words", _words(report))
    _print(console, "Logs of jobs", _logs(facts))
    console.print()
    for sentence in _notes(report):
        _say(console, sentence)
    console.print()
    if not report.problems:
        _say(console, "All that was seen is understood.", style="green")
        return
    _say(console, "A task would not understand all of this.", style="red")
    _show_proposals(report, console)
    _show_questions(report, console)
    if unexplained := report.unexplained:
        _say(console, "\nWhat is neither proposed nor asked:", style="bold")
    _say_some(console, unexplained, lambda problem: _say(console, problem, indent=2))


def _say(console: Console, text: str, style: str = "", indent: int = 0) -> None:
    console.print(Padding.indent(Text(text, style=style), indent))


def _say_some(console: Console, things: Sequence[T], say: Callable[[T], None]) -> None:
    for thing in things[:MOST]:
        say(thing)
    if len(things) > MOST:
        _say(console, f"and {len(things) - MOST} more, which --output json shows.", indent=2)


def _print(console: Console, title: str, table: Table) -> None:
    if table.row_count:
        _say(console, f"\n{title}", style="bold")
        console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not table.columns)
    return table


def _add(table: Table, cells: Iterable[object]) -> None:
    texts = [plain(str(cell)) for cell in cells]
    table.add_row(*(Text(text, style=_COLORS.get(text, "")) for text in texts))


def _fields(report: Report) -> Table:
    table = _table("field", "spelling", "known from", "example")
    for entry in report.missing:
        _add(table, (entry, "not found", "", ""))
    for entry, found in report.evidence.found.items():
        example = str(found.example)
        _add(
            table, (entry, found.name, found.known_from, example[:60] + ("..." if len(example) > 60 else ""))
        )
    return table


def _words(report: Report) -> Table:
    table = _table("section", "word", "count", "meaning")
    for word in report.words[:MOST]:
        _add(table, (word.section, word.word, word.count, word.meaning or "unknown"))
    return table


def _logs(facts: Mapping[str, Any]) -> Table:
    table = _table("job", "executions", "size")
    for name, log in facts["logs"].items():
        _add(table, (name, log["executions"], _size(log["bytes"])))
    for name, problem in facts["unread"].items():
        _add(table, (name, "not read", problem))
    return table


def _notes(report: Report) -> Iterator[str]:
    found, account = report.evidence.found, report.account
    seen = {word.meaning for word in report.words if word.section == "states"}
    if report.understood.executions and None not in seen:
        unseen = [end for end in ("succeeded", "failed") if end not in seen]
        yield from (
            f"An execution that {end} has not been seen: its word is not known yet." for end in unseen
        )
    good = [one for one in report.understood.executions if one.state == "succeeded"]
    if doubtful := [one for one in good if any(entry.is_error for entry in one.logs)]:
        yield (
            f"{len(doubtful)} of {len(good)} executions that are taken for a success have error lines in "
            "their logs. Is their word a success?"
        )
    kinds = [kind for kind in ("execution", "log") if f"{kind}.trigger_id" in found]
    if kinds:
        places = {"execution": "executions", "log": "log entries"}
        yield f"The trigger id stands on {' and on '.join(places[kind] for kind in kinds)}."
    if any(entry in found for entry in TIMES):
        bare = [entry for entry in TIMES if entry in found and not has_zone(found[entry].example)]
        newest = max(filter(None, (one.end for one in report.understood.executions)), default=None)
        zone = f"have no zone, and are taken for {account.zone}" if bare else "carry a zone"
        ago = (datetime.now(timezone.utc) - newest).total_seconds() if newest else 0
        yield f"Times {zone}." + (
            f" The newest end is {for_people(abs(ago))} {_direction(ago)}." if newest else ""
        )
    if account.logs:
        largest = max(raw.size for raw in account.logs.values())
        yield (
            f"A task that queues a job downloads its whole log once, here {_size(largest)} at most, and then "
            f"at each look what the log shows of its execution{_filter(report)}"
        )


def _direction(ago: float) -> str:
    return "ago" if ago >= 0 else "ahead: is the time zone right?"


def _filter(report: Report) -> str:
    filtered = report.account.filtered
    if filtered is None:
        return "."
    logs = report.account.logs.values()
    whole = next(raw for raw in logs if filtered.call.path.startswith(f"{raw.call.path}/"))
    return f": {_size(filtered.size)} of {_size(whole.size)} where that was tried."


def _show_proposals(report: Report, console: Console) -> None:
    if not report.evidence.proposals:
        return
    _say(console, "\nProposed, to be pasted into the extra of the connection:", style="bold")
    extra = json.dumps({"vocabulary": report.evidence.vocabulary.to_dict()}, indent=2)
    console.print(extra, soft_wrap=True, markup=False, highlight=False)
    for entry, found in report.evidence.found.items():
        if found.known_from == "proposed":
            _say(console, f"{entry} is {plain(found.name)}: {found.why}.", style="dim", indent=2)
    if not _DECIDING.isdisjoint(report.evidence.proposals):
        said = "State and end decide whether a task is green: compare them with a load that you know."
        _say(console, said, indent=2)


def _show_questions(report: Report, console: Console) -> None:
    if not report.questions:
        return
    _say(console, "\nOnly you can say what these words mean. Add those that you know:", style="bold")

    def ask(word: Word) -> None:
        _say(console, f"{plain(word.word)} ({word.section}, {word.count} times): {word.evidence}", indent=2)
        entries = " or ".join(report.evidence.vocabulary.spellings[word.section])
        answer = json.dumps({"vocabulary": {word.section: {"...": word.word}}})
        _say(console, f"{answer} with {entries} for the dots", style="dim", indent=4)

    _say_some(console, report.questions, ask)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 1024:.1f} KiB"
