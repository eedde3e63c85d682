"""Whether what the API says is understood, by what it says of the past: nothing is started for that."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from airflow_provider_timextender import jobs_api
from airflow_provider_timextender.answers import LOG_LIMIT
from airflow_provider_timextender.errors import AnswerTooLarge, ContractError, TimeXtenderError
from airflow_provider_timextender.evidence import TRAITS, Evidence
from airflow_provider_timextender.jobs_api import Call, Raw
from airflow_provider_timextender.model import (
    BLANK_GUID,
    Execution,
    Job,
    JobStatus,
    Log,
    canonical,
    find_job,
    is_guid,
    plain,
    short,
)
from airflow_provider_timextender.vocabulary import Vocabulary, is_word

WORDS: Mapping[str, str] = {
    "states": "execution.state",
    "statuses": "status.state",
    "severities": "log.severity",
}
"""Section of the vocabulary -> the field whose words it explains."""

OPTIONAL = ("execution.job_id", "execution.message")
"""Fields without which all is understood."""

_OF_EXECUTIONS = ("execution.state", "execution.start", "execution.end", "execution.logs")
_OF_ENTRIES = ("log.time", "log.severity", "log.message")
TIMES = ("execution.start", "execution.end", "log.time")

_ZONED = re.compile(r":\d\d(\.\d+)?\s*(Z|[+-]\d\d(:?\d\d)?)\s*$|/Date\(", re.IGNORECASE)

_CLOCKS = timedelta(minutes=5)
"""By how much two clocks may differ."""


class Account:
    """What is read of an account, by GETs alone.

    :param send: carries a call.
    :ivar logs: job id -> its log. :ivar unread: job id -> why its log could not be read.
    :ivar filtered: what a log shows if asked for one execution; ``None`` if that was not tried.
    """

    def __init__(self, send: Callable[[Call[Any]], Any], vocabulary: Vocabulary, zone: tzinfo) -> None:
        self._send = send
        self.vocabulary = vocabulary
        self.zone = zone
        self.jobs: Raw[list[Job]] = send(jobs_api.raw(jobs_api.list_jobs()))
        self.statuses: Raw[list[JobStatus]] = send(jobs_api.raw(jobs_api.all_job_statuses()))
        self.logs: dict[str, Raw[list[Execution]]] = {}
        self.unread: dict[str, TimeXtenderError] = {}
        self.filtered: Raw[list[Execution]] | None = None

    def choose(self, wanted: Sequence[str] = ()) -> list[Job]:
        """Return jobs by ids or names, all of them without; none if they are not understood.

        :raises InvalidInput: if there is no such job, or several.
        """
        evidence = Evidence(self.vocabulary, self.zone)
        evidence.add("job", [self.jobs.data])
        try:
            jobs = self.jobs.read(evidence.vocabulary, self.zone)
        except ContractError:
            return []
        by_id = {canonical(job.id): job for job in jobs}
        return [by_id.get(canonical(one)) or find_job(jobs, one) for one in wanted] or jobs

    @property
    def size(self) -> int:
        """How many bytes the logs have that were read."""
        return sum(log.size for log in self.logs.values())

    def read_log(self, job_id: str, limit: int = LOG_LIMIT) -> bool:
        """Read the log of a job, of so many bytes at most, and tell whether it shows something."""
        try:
            log = replace(jobs_api.if_any(jobs_api.job_logs(job_id)), limit=limit)
            self.logs[job_id] = self._send(jobs_api.raw(log))
        except TimeXtenderError as error:
            self.unread[job_id] = error
            return False
        return bool(self.logs[job_id].data)

    def read_filtered(self, job_id: str, trigger_id: str) -> None:
        """Read what the log of a job shows of one execution."""
        self.filtered = self._send(jobs_api.raw(jobs_api.if_any(jobs_api.job_logs(job_id, trigger_id))))

    def understand(self, vocabulary: Vocabulary) -> Understood:
        """Return what the answers say by a vocabulary."""
        problems: list[str] = []

        def read(raw: Raw[list[Any]]) -> list[Any]:
            try:
                return raw.read(vocabulary, self.zone)
            except ContractError as error:
                problems.append(str(error))
                return []

        jobs, statuses = read(self.jobs), read(self.statuses)
        return Understood(jobs, statuses, {job_id: read(raw) for job_id, raw in self.logs.items()}, problems)


@dataclass(frozen=True)
class Understood:
    """Answers by some vocabulary.

    :ivar logs: job id -> executions. :ivar problems: why an answer says nothing at all.
    """

    jobs: list[Job]
    statuses: list[JobStatus]
    logs: Mapping[str, list[Execution]]
    problems: list[str]

    @property
    def executions(self) -> list[Execution]:
        """All executions."""
        return [execution for log in self.logs.values() for execution in log]


def not_understood(account: Account, vocabulary: Vocabulary | None = None) -> list[str]:
    """Return what a task could not understand, each thing once, and what to do about it.

    That there is no execution yet is no problem: a new job has none.

    :param vocabulary: another one than that of the connection.
    """
    vocabulary = vocabulary or account.vocabulary
    seen = account.understand(vocabulary)
    told = [
        *seen.problems,
        *(str(error) for error in account.unread.values() if not isinstance(error, AnswerTooLarge)),
        *(job.problem for job in seen.jobs),
        *(status.problem for status in seen.statuses),
    ]
    for execution in seen.executions:
        told += [execution.start_problem, execution.end_problem]
        if execution.end is not None:  # until then a state may be anything, and is waited on
            told.append(execution.problem)
    entries = [entry for execution in seen.executions for entry in execution.logs]
    told += _without(vocabulary, seen.executions, _OF_EXECUTIONS, but="execution.logs" if entries else "")
    told += _without(vocabulary, entries, _OF_ENTRIES)
    if seen.executions and all(execution.trigger_id is None for execution in seen.executions):
        told.append(vocabulary.missing(seen.executions[0].raw, "execution.trigger_id"))
    words = (vocabulary.member(entry.raw, "log.severity") for entry in entries if entry.severity is None)
    told += [
        vocabulary.unknown(word, "log.severity", "severities")
        for word in dict.fromkeys(word for word in words if is_word(word))
    ]
    told.append(_in_the_future(seen.executions))
    return list(dict.fromkeys(filter(None, told)))


def _without(
    vocabulary: Vocabulary, things: Sequence[Execution | Log], fields: Iterable[str], but: str = ""
) -> Iterator[str]:
    """Say which fields none of several things has, whatever it may be called."""
    for field in fields:
        if things and field != but and not any(vocabulary.has(thing.raw, field) for thing in things):
            members: dict[str, Any] = {name: None for thing in things for name in thing.raw}
            yield vocabulary.missing(members, field)


def _in_the_future(executions: Iterable[Execution]) -> str | None:
    newest = max(filter(None, (execution.end or execution.start for execution in executions)), default=None)
    if newest is None or newest <= datetime.now(timezone.utc) + _CLOCKS:
        return None
    return (
        f"the newest time is {newest.isoformat()}, which is still to come: it is of another time zone. Set "
        '{"timezone": "..."} in the extra of the connection, to Europe/Copenhagen, say.'
    )


@dataclass(frozen=True)
class Word:
    """A word of the API, and what is seen of it.

    :ivar section: of the vocabulary. :ivar meaning: ``None`` if it is in no table.
    :ivar evidence: what may tell a person what it means.
    """

    section: str
    word: str
    count: int
    meaning: str | None
    evidence: str


def words(seen: Understood, vocabulary: Vocabulary) -> list[Word]:
    """Return all words that answers show, those that are not understood first."""
    names = {canonical(job.id): job.name or job.id for job in seen.jobs}
    found: dict[tuple[str, str], list[Any]] = {}

    def note(section: str, thing: Any) -> None:
        word = vocabulary.member(thing.raw, WORDS[section])
        if is_word(word):
            found.setdefault((section, str(word)), []).append(thing)

    for execution in seen.executions:
        note("states", execution)
        for entry in execution.logs:
            note("severities", entry)
    for status in seen.statuses:
        note("statuses", status)
    running = {canonical(job_id) for job_id, log in seen.logs.items() if any(e.end is None for e in log)}
    told: Mapping[str, Callable[[list[Any]], str]] = {
        "states": _about_state,
        "severities": lambda entries: f"for example {short(plain(entries[0].message))}",
        "statuses": lambda statuses: _about_status(statuses, names, running),
    }
    all_words = [
        Word(section, word, len(things), vocabulary.meaning(section, word), told[section](things))
        for (section, word), things in found.items()
    ]
    return sorted(all_words, key=lambda word: (word.meaning is not None, word.section, -word.count))


def _about_state(executions: list[Execution]) -> str:
    ended = [e for e in executions if e.end is not None]
    bad = sum(any(log.is_error for log in e.logs) for e in executions)
    known = any(log.severity for e in executions for log in e.logs)
    last = max(executions, key=lambda e: e.end or e.start or datetime.min.replace(tzinfo=timezone.utc))
    said = last.message or (last.logs[-1].message if last.logs else None)
    when = f" ended {last.end.isoformat(timespec='seconds')}" if last.end else " has no end"
    return (
        f"{len(ended)} of {len(executions)} have an end{f', {bad} have error lines' if known else ''}; "
        f"the last one{when}"
        f"{f' and says {short(plain(said))}' if said else ''}"
    )


def _about_status(statuses: list[JobStatus], names: Mapping[str, str], running: set[str]) -> str:
    ids = [canonical(status.job_id) for status in statuses]
    busy = sum(job_id in running for job_id in ids)
    shown = ", ".join(short(names.get(job_id, job_id)) for job_id in ids[:3])
    more = " and others" if len(ids) > 3 else ""
    return f"of {shown}{more}; {busy} of {len(ids)} show an execution without end"


@dataclass(frozen=True)
class Report:
    """What the check of an account has found.

    :ivar understood: what the answers say by the vocabulary that would explain them.
    :ivar problems: what a task would not understand, and what to do about it; empty if all is understood.
    """

    account: Account
    evidence: Evidence
    understood: Understood
    problems: list[str]
    words: list[Word]

    @property
    def questions(self) -> list[Word]:
        """The words that only a person can explain."""
        return [word for word in self.words if word.meaning is None]

    @property
    def unexplained(self) -> list[str]:
        """The problems that would be left if all proposals and some answer to each question were taken."""
        given = {section: dict(entries) for section, entries in self.evidence.vocabulary.given.items()}
        for section in WORDS:
            answers = tuple(word.word for word in self.questions if word.section == section)
            entry = next(iter(self.evidence.vocabulary.spellings[section]))
            entries = given.setdefault(section, {})
            entries[entry] = (*entries.get(entry, ()), *answers)
        return not_understood(self.account, Vocabulary(given))

    @property
    def missing(self) -> list[str]:
        """The logical fields that were looked for in vain."""
        either = {"execution.trigger_id", "log.trigger_id"}
        wanted = set(TRAITS) - set(OPTIONAL) - (either if either & set(self.evidence.found) else set())
        shown = {kind for kind, objects in self.evidence.objects.items() if objects}
        return [
            entry
            for entry in TRAITS
            if entry in wanted - set(self.evidence.found) and entry.split(".")[0] in shown
        ]

    @property
    def reached(self) -> dict[str, Any]:
        """How much was read, as plain JSON values."""
        seen = self.understood
        called = Counter(job.name for job in seen.jobs)
        names = {
            job.id: (job.name if called[job.name] == 1 else f"{job.name} ({job.id})") if job.name else job.id
            for job in seen.jobs
        }
        return {
            "jobs": len(seen.jobs),
            "statuses": len(seen.statuses),
            "executions": len(seen.executions),
            "log_entries": sum(len(execution.logs) for execution in seen.executions),
            "logs": {
                names.get(job_id, job_id): {"bytes": raw.size, "executions": len(seen.logs[job_id])}
                for job_id, raw in self.account.logs.items()
            },
            "unread": {
                names.get(job_id, job_id): str(error) for job_id, error in self.account.unread.items()
            },
        }

    def to_dict(self, url: str = "") -> dict[str, Any]:
        """Return plain JSON values.

        :param url: where the API was reached.
        """
        by_section: dict[str, dict[str, Any]] = {}
        for word in self.words:
            by_section.setdefault(word.section, {})[word.word] = {
                "count": word.count,
                "meaning": word.meaning,
            }
        return {
            "reached": {"url": url, **self.reached},
            "fields": {
                **{
                    entry: {
                        "spelling": found.name,
                        "known_from": found.known_from,
                        "example": found.example,
                        **({"why": found.why} if found.why else {}),
                    }
                    for entry, found in self.evidence.found.items()
                },
                **{entry: {"spelling": None, "known_from": None, "example": None} for entry in self.missing},
            },
            "words": by_section,
            "vocabulary": self.evidence.vocabulary.to_dict(),
            "questions": [
                {"section": word.section, "word": word.word, "count": word.count, "evidence": word.evidence}
                for word in self.questions
            ],
            "problems": self.problems,
        }


def report(account: Account) -> Report:
    """Return what is understood of an account, what is not, and what would explain it."""
    evidence = Evidence(account.vocabulary, account.zone)
    evidence.add("job", [account.jobs.data])
    evidence.add("status", [account.statuses.data])
    evidence.add_logs(raw.data for raw in account.logs.values())
    seen = account.understand(evidence.vocabulary)
    return Report(account, evidence, seen, not_understood(account), words(seen, evidence.vocabulary))


def one_to_ask_for(report: Report) -> tuple[str, str] | None:
    """Return the job and trigger id of an execution by which it can be seen what the filtered log shows."""
    by_size = sorted(report.understood.logs.items(), key=lambda item: report.account.logs[item[0]].size)
    for job_id, executions in by_size:
        for execution in executions[-1:] if len(executions) > 1 else []:
            id_ = execution.trigger_id
            if id_ and is_guid(id_) and canonical(id_) != BLANK_GUID:
                return job_id, id_
    return None


def has_zone(value: Any) -> bool:
    """Tell whether a time says by itself when it is, wherever it was written."""
    return not isinstance(value, str) or _ZONED.search(value) is not None
