"""What the commands do."""

from __future__ import annotations

import json
import logging
import shlex
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_timextender import check as checking
from airflow_provider_timextender import recording
from airflow_provider_timextender.errors import InvalidInput, JobError, JobFailed, TimeXtenderError, about
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.inputs import to_seconds
from airflow_provider_timextender.life import Life, Task, run_through
from airflow_provider_timextender.logs import LogFilter, warn_that_it_runs_on
from airflow_provider_timextender.model import Job, canonical, is_guid, plain
from airflow_provider_timextender.naming import Named, Of
from airflow_provider_timextender.reporting import show
from airflow_provider_timextender.submission import Record, Tries
from airflow_provider_timextender.terminal import (
    Lines,
    ask,
    command,
    results,
    say,
    show_data,
    show_rows,
    track,
    warn,
)
from airflow_provider_timextender.verdict import Run, Waiting
from airflow_provider_timextender.worlds import Worker

CHECK_FOR, CHECK_UP_TO = 120, 64 * 2**20
"""After so many seconds, or so many bytes of logs, a check begins to read no other one."""

START_TIMEOUT, MAX_UNREACHABLE = 600, 900
"""The limits of a wait, in seconds, as the operator has them."""


@command
def jobs(args: Namespace) -> None:
    """List the jobs."""
    found = _hook(args).get_jobs()
    warn(job.problem for job in found)
    show_rows([{"job_name": job.name, "job_id": job.id} for job in found], args.output)


@command
def status(args: Namespace) -> None:
    """Show what one job, or each, is doing now."""
    hook = _hook(args)
    known = hook.get_jobs() if args.job is None else [_job(hook, args.job)]
    names = {canonical(job.id): job.name for job in known}
    found = hook.get_all_job_statuses() if args.job is None else [hook.get_job_status(known[0].id)]
    warn(job.problem for job in known)
    warn(one.problem for one in found)
    show_rows(
        [
            {"job_name": names.get(canonical(one.job_id)), "state": one.state, "job_id": one.job_id}
            for one in found
        ],
        args.output,
    )


@command
def executions(args: Namespace) -> None:
    """List the executions of a job, the newest first."""
    hook = _hook(args)
    found = list(hook.iter_executions([_job(hook, args.job)], logs=False))
    # One without any time is none of the past, so far as anybody knows.
    found.sort(key=lambda e: e.start or e.end or datetime.max.replace(tzinfo=timezone.utc), reverse=True)
    shown = found[: args.limit]
    if len(found) > len(shown):
        say(f"The newest {len(shown)} of {len(found)} executions; --limit shows more.")
    warn(problem for e in shown for problem in (e.problem, e.start_problem, e.end_problem))
    columns = ("start", "end", "duration", "state", "message", "trigger_id")
    show_rows([{name: getattr(e, name) for name in columns} for e in shown], args.output)


@command
def logs(args: Namespace) -> None:
    """Show the log of a job, or of one execution."""
    wanted = LogFilter(min_severity=args.min_severity)
    hook = _hook(args)
    job = _job(hook, args.job)
    columns = ("time", "severity", "message", *(() if args.trigger_id else ("trigger_id",)))
    with about(lambda: Of(job.id, job.name, args.trigger_id)):
        entries = hook.iter_job_logs(job.id, args.trigger_id, wanted=wanted)
        # Airflow shows rows when it has all of them, so that no more of an entry is held than its row.
        rows = [{name: getattr(entry, name) for name in columns} for entry in entries]
    show_rows(rows, args.output)


@command
def run(args: Namespace) -> None:
    """Queue a job as the operator does, and follow the execution if that is asked for."""
    hook = _hook(args)
    interval = to_seconds(args.poll_interval, "--poll-interval")
    default = conf.getfloat("sensors", "default_timeout")
    timeout = default if args.timeout is None else to_seconds(args.timeout, "--timeout")
    job = _job(hook, args.job)
    if not args.yes:
        _ask(hook, job)
    task = Task(
        job=Of(job.id, job.name),
        wait=args.wait,
        if_running="submit",
        interval=interval,
        timeout=timeout,
        start_timeout=START_TIMEOUT,
        max_unreachable=MAX_UNREACHABLE,
        began=datetime.now(timezone.utc),
        since=None,
        decide="Look in TimeXtender whether the load has run before you start it again.",
    )
    world = _Terminal(hook, job)
    life = Life(lambda: task, world)
    try:
        run_through(life.live())
        world.state = "succeeded" if args.wait else "queued"
    except JobError as error:
        world.state = "failed" if isinstance(error, JobFailed) else "never started"
        raise
    except TimeXtenderError as error:
        if life.trigger_id is not None:
            error.args = (f"stopped waiting: {error.reason}",)
            say(_its_log(args, job, life.trigger_id))
        raise
    except KeyboardInterrupt:
        _say_what_runs_on(args, job, life.record, world.log)
        raise
    finally:
        if life.trigger_id is not None:
            row = {
                "job_name": job.name,
                "state": world.state,
                "trigger_id": life.trigger_id,
                "job_id": job.id,
            }
            show_rows([row], args.output)


@command
def check(args: Namespace) -> int:
    """Look at what the API says of the past, and find out what is understood of it."""
    hook = _hook(args)
    with hook.get_conn() as carrier:
        account = checking.Account(carrier.send, hook.settings.vocabulary, hook.settings.timezone)
        jobs = account.choose(args.job or ())
        end = time.monotonic() + CHECK_FOR
        for job in track(jobs, "Reading logs"):
            if time.monotonic() < end and account.size < CHECK_UP_TO:
                account.read_log(job.id)
        report = checking.report(account)
        if chosen := checking.one_to_ask_for(report):
            with suppress(TimeXtenderError):
                account.read_filtered(*chosen)
    looked_at = len(account.logs) + len(account.unread)
    if looked_at < len(jobs):
        within = f"{CHECK_FOR} s and {CHECK_UP_TO // 2**20} MiB"
        say(f"Within {within} the logs of {looked_at} of {len(jobs)} jobs were read; see --job.")
    if args.output in ("json", "yaml"):
        show_data(report.to_dict(hook.settings.base_url), args.output)
    else:
        show(report, results(), f"{hook.settings.base_url} with the key in {hook.settings.api_key_header}")
    if args.record is not None:
        _record(report, Path(args.record), hook.settings.api_key, asked=not args.yes)
    return 1 if report.problems else 0


def _record(report: checking.Report, file: Path, api_key: str, *, asked: bool) -> None:
    """Write a recording, after saying what can be read in it."""
    made = recording.record(report)
    text = json.dumps(made, indent=1)
    if api_key in text:
        raise InvalidInput("The API key would stand in the recording, so that it is not written.")
    readable = recording.readable(made)
    say(f"The recording holds {len(made['answers'])} answers, with other names, messages, ids and times.")
    say(f"To be read in it are the members {', '.join(map(plain, readable['members']))};")
    say(f"the words {', '.join(map(plain, readable['words'])) or '(none)'}; and whole numbers below 1000.")
    if asked:
        ask(f"Write it to {file}?", otherwise="The recording was not written.")
    try:
        file.write_text(text)
    except OSError as error:
        raise InvalidInput(f"The recording cannot be written to {file}: {error.strerror}.") from None
    say(f"Written to {file}.")


# --- the job, and what is said of it ---


class _Hook(TimeXtenderHook):
    # Airflow 3 shows what a hook logs on standard output, which is for the result.
    log: Any = logging.getLogger(__name__)


def _hook(args: Namespace) -> TimeXtenderHook:
    # Whoever sits at a terminal is told at once, and can ask again.
    return _Hook(args.conn_id, max_unreachable=0)


def _job(hook: TimeXtenderHook, typed: str) -> Job:
    return hook.get_job(job_id=typed) if is_guid(typed) else hook.get_job(job_name=typed)


def _called(job: Job) -> str:
    return repr(job.name or job.id)


def _ask(hook: TimeXtenderHook, job: Job) -> None:
    """Ask before a load is started."""

    def question() -> str:
        now = hook.get_job_status(job.id).state or "in a state that is not understood"
        return f"The job {_called(job)} ({job.id}) is {now}. Queue it, which starts a load?"

    ask(question, otherwise="Nothing was started.")


def _its_log(args: Namespace, job: Job, trigger_id: str) -> str:
    program = getattr(args, "program", "airflow timextender")
    return f"Look at it with: {program} logs {shlex.quote(job.name or job.id)} {trigger_id}"


def _say_what_runs_on(args: Namespace, job: Job, record: Record | None, log: logging.Logger) -> None:
    if record is None:
        say("Nothing was started.")
        return
    warn_that_it_runs_on(log, record)
    if record.trigger_id:
        say(_its_log(args, job, record.trigger_id))


class _Terminal(Worker):
    """The world of a life that somebody watches: it has one try, and nothing outlives it.

    :ivar state: what the job was last seen to do.
    """

    lasts = False
    tries = Tries(number=1, most=1, retries=0)

    def __init__(self, hook: TimeXtenderHook, job: Job) -> None:
        log = logging.Logger("timextender", logging.INFO)  # noqa: LOG001 - in no tree that Airflow sets up
        log.addHandler(Lines())
        super().__init__(hook, log)
        self.state = "queued"
        self._job = job

    async def jobs(self) -> Sequence[Job]:
        """Return the one that has been looked up already."""
        return [self._job]

    def recall(self) -> Record | None:
        """Return nothing: there was no try before."""
        return None

    def keep(self, record: Record | None) -> None:
        """Leave the record to the life."""

    def tell(self, of: Named) -> None:
        """Leave that to the line that says that the job is queued."""

    def show_name(self, of: Named) -> None:
        """Leave that to the lines, which all have it."""

    def show(self, run: Run, seen: Waiting) -> None:
        """Remember what the job does."""
        self.state = seen.state
