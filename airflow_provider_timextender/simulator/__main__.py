"""``python -m airflow_provider_timextender.simulator``: the API on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading

from airflow_provider_timextender.simulator import DIALECTS, Job, Simulator
from airflow_provider_timextender.simulator.server import example_jobs


def main() -> int:
    """Run the simulator."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_timextender.simulator",
        description="Play the TimeXtender Jobs API over HTTP on 127.0.0.1.",
    )
    parser.add_argument("--port", type=int, default=0, help="0 (default) for any free port")
    parser.add_argument("--api-key", default="simulated-api-key", help="what clients must send")
    parser.add_argument("--dialect", choices=sorted(DIALECTS), default="documented", help="how answers look")
    parser.add_argument(
        "--job", action="append", metavar="NAME", help="a job (repeatable); default: examples"
    )
    parser.add_argument("--duration", type=float, metavar="SECONDS", help="how long each execution takes")
    parser.add_argument("--fail", action="append", default=[], metavar="NAME", help="a job that fails")
    arguments = parser.parse_args()

    jobs = [Job(name) for name in arguments.job] if arguments.job else example_jobs()
    if twins := {job.name for job in jobs if [one.name for one in jobs].count(job.name) > 1}:
        parser.error(f"--job names twice: {', '.join(sorted(twins))}")
    if unknown := set(arguments.fail) - {job.name for job in jobs}:
        parser.error(f"--fail names no job: {', '.join(sorted(unknown))}")
    for job in jobs:
        job.duration = arguments.duration if arguments.duration is not None else job.duration
        job.outcome = "failed" if job.name in arguments.fail else "succeeded"

    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with Simulator(
        jobs, api_key=arguments.api_key, dialect=arguments.dialect, port=arguments.port
    ) as simulator:
        print(f"TimeXtender simulator at {simulator.url} with {len(jobs)} jobs. Point Airflow at it:")
        print(f"export AIRFLOW_CONN_TIMEXTENDER_DEFAULT={shlex.quote(simulator.connection_json())}")
        sys.stdout.flush()
        over.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
