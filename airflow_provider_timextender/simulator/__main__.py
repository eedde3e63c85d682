"""``python -m airflow_provider_timextender.simulator``: the API on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import math
import shlex
import signal
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from airflow_provider_timextender.simulator import DIALECTS, Job, Recording, Simulator
from airflow_provider_timextender.simulator.server import example_jobs
from airflow_provider_timextender.simulator.shapes import shaped


def main() -> int:
    """Run the simulator."""
    parser = _parser()
    arguments = parser.parse_args()
    recording = _recording(parser, arguments)
    jobs = [Job(name) for name in arguments.job] if arguments.job else example_jobs()
    jobs = recording.jobs if recording else jobs
    if unknown := set(arguments.fail) - {job.name for job in jobs}:
        parser.error(f"--fail names no job: {', '.join(sorted(unknown))}")
    for job in jobs:
        job.duration = arguments.duration if arguments.duration is not None else job.duration
        job.outcome = "failed" if job.name in arguments.fail else "succeeded"

    with ExitStack() as stack:
        try:
            dialect = recording or shaped(
                DIALECTS[arguments.dialect],
                traits=arguments.shape,
                renamed=arguments.rename,
                words=arguments.word,
            )
            simulator = stack.enter_context(
                Simulator(jobs, api_key=arguments.api_key, dialect=dialect, port=arguments.port)
            )
        except (ValueError, OSError, OverflowError) as error:  # the last is what a port of 70000 is
            parser.error(str(error))
        over = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: over.set())
        if recording is None:
            simulator.past_days(arguments.history)
        connection = simulator.connection_json(explained=not arguments.unexplained)
        print(f"TimeXtender simulator at {simulator.url} with {len(jobs)} jobs. Point Airflow at it:")
        print(f"export AIRFLOW_CONN_TIMEXTENDER_DEFAULT={shlex.quote(connection)}")
        sys.stdout.flush()
        over.wait()
    return 0


def _recording(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Recording | None:
    if arguments.replay is None:
        return None
    if arguments.job or arguments.shape or arguments.rename or arguments.word:
        parser.error("--replay has the jobs and the shape of its recording, and takes no others")
    try:
        return Recording.read(Path(arguments.replay))
    except (ValueError, OSError, RecursionError) as error:
        parser.error(f"--replay {arguments.replay}: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_timextender.simulator",
        description="Play the TimeXtender Jobs API over HTTP on 127.0.0.1.",
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0 (default) for any free port")
    add("--api-key", default="simulated-api-key", help="what clients must send")
    add("--job", action="append", metavar="NAME", help="a job (repeatable); default: examples")
    add("--duration", type=_seconds, metavar="SECONDS", help="how long each execution takes")
    add("--fail", action="append", default=[], metavar="NAME", help="a job that fails")
    add(
        "--history",
        type=_count,
        default=3,
        metavar="N",
        help="how often each job has run before, once a day, every third time with a failure; default 3",
    )
    add("--dialect", choices=sorted(DIALECTS), default="documented", help="how answers look")
    typed: dict[str, Any] = {"action": "append", "default": [], "type": _pair}
    add("--shape", metavar="TRAIT=VALUE", help="a trait that differs, such as times=naive", **typed)
    add("--rename", metavar="MEMBER=NAME", help="a member that is called otherwise: EndTime=Stop", **typed)
    add("--word", metavar="MEANING=WORD", help="another word, or a code: succeeded=Completed", **typed)
    add("--replay", metavar="FILE", help="play what 'airflow timextender check --record FILE' has recorded")
    add(
        "--unexplained",
        action="store_true",
        help="print a connection that does not explain the dialect, to find out what it has to say",
    )
    return parser


def _pair(text: str) -> tuple[str, str]:
    name, _, value = (part.strip() for part in text.partition("="))
    if not (name and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
