"""What the commands do in a terminal. Results go to standard output, all else to standard error."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import wraps
from typing import Any, NoReturn

from airflow.cli.simple_table import AirflowConsole
from airflow.providers.common.compat.sdk import conf
from rich.console import Console
from rich.markup import escape

from airflow_provider_timextender.errors import InvalidInput, JobError, JobFailed, TimeXtenderError
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.inputs import to_seconds
from airflow_provider_timextender.life import Life, Task, run_through
from airflow_provider_timextender.logs import LogFilter, warn_that_it_runs_on
from airflow_provider_timextender.model import Job, canonical, is_guid, plain
from airflow_provider_timextender.submission import Record, Tries
from airflow_provider_timextender.verdict import Run, Waiting, for_people
from airflow_provider_timextender.worlds import Worker

COULD_NOT, INTERRUPTED, PIPE_CLOSED = 2, 130, 141
"""Exit statuses; 1 is for a job that has failed or never started. The last two are those of a shell."""

START_TIMEOUT, MAX_UNREACHABLE = 600, 900
"""The limits of a wait, in seconds, as the operator has them."""

_STYLES = {
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
        logging.basicConfig(handlers=[_Lines(logging.WARNING)], force=True)
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
            _say(f"{error}", "red")
            status = 1 if isinstance(error, JobError) else COULD_NOT
        except Exception:  # noqa: BLE001 - Python's own status, 1, would say that the job has failed
            _say(traceback.format_exc())
            status = COULD_NOT
        sys.exit(status)

    return and_exit


@command
def jobs(args: Namespace) -> None:
    """List the jobs."""
    found = _hook(args).get_jobs()
    _warn(job.problem for job in found)
    _show([{"job_name": job.name, "job_id": job.id} for job in found], args.output)


@command
def status(args: Namespace) -> None:
    """Show what one job, or each, is doing now."""
    hook = _hook(args)
    known = hook.get_jobs() if args.job is None else [_job(hook, args.job)]
    names = {canonical(job.id): job.name for job in known}
    found = hook.get_all_job_statuses() if args.job is None else [hook.get_job_status(known[0].id)]
    _warn(job.problem for job in known)
    _warn(one.problem for one in found)
    _show(
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
    found = hook.get_job_logs(_job(hook, args.job).id)
    # One without any time is none of the past, so far as anybody knows.
    found.sort(key=lambda e: e.start or e.end or datetime.max.replace(tzinfo=timezone.utc), reverse=True)
    shown = found[: args.limit]
    if len(found) > len(shown):
        _say(f"The newest {len(shown)} of {len(found)} executions; --limit shows more.")
    _warn(problem for e in shown for problem in (e.problem, e.start_problem, e.end_problem))
    columns = ("start", "end", "duration", "state", "message", "trigger_id")
    _show([{name: getattr(e, name) for name in columns} for e in shown], args.output)


@command
def logs(args: Namespace) -> None:
    """Show the log of a job, or of one execution."""
    wanted = LogFilter(min_severity=args.min_severity)
    hook = _hook(args)
    entries = filter(wanted.wants, hook.iter_job_logs(_job(hook, args.job).id, args.trigger_id))
    columns = ("time", "severity", "message", *(() if args.trigger_id else ("trigger_id",)))
    _show([{name: getattr(entry, name) for name in columns} for entry in entries], args.output)


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
        job_id=job.id,
        job_name=job.name,
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
    world = _Terminal(hook)
    life = Life(lambda: task, world)
    try:
        run_through(life.live())
        world.state = "succeeded" if args.wait else "queued"
    except JobError as error:
        world.state = "failed" if isinstance(error, JobFailed) else "never started"
        raise
    except TimeXtenderError as error:
        if life.trigger_id is not None:
            error.args = (
                f"Stopped waiting for {_called(job)}: {error} {_its_log(args, job, life.trigger_id)}",
            )
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
            _show([row], args.output)


# --- the job, and what is said of it ---


def _hook(args: Namespace) -> TimeXtenderHook:
    # Whoever sits at a terminal is told at once, and can ask again.
    return TimeXtenderHook(args.conn_id, max_unreachable=0)


def _job(hook: TimeXtenderHook, typed: str) -> Job:
    return hook.get_job(job_id=typed) if is_guid(typed) else hook.get_job(job_name=typed)


def _called(job: Job) -> str:
    return repr(job.name or job.id)


def _ask(hook: TimeXtenderHook, job: Job) -> None:
    """Ask before a load is started.

    :raises InvalidInput: if the answer is no, or nobody is there to answer.
    """
    if not sys.stdin.isatty():
        raise InvalidInput(f"To start {_called(job)} without being asked, give --yes. Nothing was started.")
    now = hook.get_job_status(job.id).state or "in a state that is not understood"
    question = f"The job {_called(job)} ({job.id}) is {now}. Queue it, which starts a load? [y/N]"
    _say(question, end=" ")
    answer = sys.stdin.readline()
    if not answer:  # Ctrl-D
        _say("")
    if answer.strip().lower() not in ("y", "yes"):
        raise InvalidInput("Nothing was started.")


def _its_log(args: Namespace, job: Job, trigger_id: str) -> str:
    program = getattr(args, "program", "airflow timextender")
    return f"Look at it with: {program} logs {shlex.quote(job.name or job.id)} {trigger_id}"


def _say_what_runs_on(args: Namespace, job: Job, record: Record | None, log: logging.Logger) -> None:
    if record is None:
        _say("Nothing was started.")
        return
    warn_that_it_runs_on(log, record.job_id, record.trigger_id)
    if record.trigger_id:
        _say(_its_log(args, job, record.trigger_id))


class _Terminal(Worker):
    """The world of a life that somebody watches: it has one try, and nothing outlives it.

    :ivar state: what the job was last seen to do.
    """

    lasts = False
    tries = Tries(number=1, most=1, retries=0)

    def __init__(self, hook: TimeXtenderHook) -> None:
        log = logging.Logger("timextender", logging.INFO)  # noqa: LOG001 - in no tree that Airflow sets up
        log.addHandler(_Lines())
        super().__init__(hook, log)
        self.state = "queued"

    def recall(self) -> Record | None:
        """Return nothing: there was no try before."""
        return None

    def keep(self, record: Record | None) -> None:
        """Leave the record to the life."""

    def tell(self, job_id: str, trigger_id: str) -> None:
        """Leave that to the line that says that the job is queued."""

    def show(self, run: Run, seen: Waiting) -> None:
        """Remember what the job does."""
        self.state = seen.state


# --- what is shown ---


class _Lines(logging.Handler):
    """Shows what is logged, line by line."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage(), _STYLES.get(record.levelname.lower(), ""))


class _Console(AirflowConsole):
    def on_broken_pipe(self) -> None:
        """Raise it again, and do not exit with the status of a job that has failed."""
        raise


def _say(text: str, style: str = "", *, end: str = "\n") -> None:
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    console.print(text, style=style, end=end, soft_wrap=True)


def _warn(problems: Iterable[str | None]) -> None:
    for problem in dict.fromkeys(filter(None, problems)):
        _say(problem, "yellow")


def _show(rows: Sequence[Mapping[str, Any]], output: str) -> None:
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
    style = _STYLES.get(text) if column in ("state", "severity") else None
    return f"[{style}]{text}[/]" if style else text
