"""Run a whole Airflow 3 on this machine against the simulator, to look at in a browser, until Ctrl-C.

Nothing of it is left: each component ends with this process, and all files lie in a directory that is then
deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from airflow_provider_timextender.simulator import Job, Simulator
from stack import AIRFLOW_3, Died, Stack, Stopped

EXAMPLE_DAGS = Path(__file__).parent / "example_dags"
FIRST = "example_timextender_deferrable"
"""The DAG that is started once, so that there is something to see."""

BY_THEMSELVES = {"Load sales": 60, "Load stock": 240}
"""The jobs that run on a schedule of their own, and after how many seconds each."""


def jobs() -> list[Job]:
    """Return the jobs that the example DAGs name, as long as real ones feel."""
    return [
        Job("Load sales", pickup=2, duration=20, warnings=1),
        # The first fails, so that a failure is among what there is to see.
        Job("Load finance", pickup=4, duration=40, outcomes=["failed", "succeeded", "succeeded"] * 1000),
        Job("Load stock", pickup=4, duration=90, lines=5),
    ]


def connection(simulator: Simulator) -> dict[str, Any]:
    """Return the connection with its port apart: the Test of Airflow 3.3.2 fails if a saved one has none."""
    host, _, port = simulator.url.rpartition(":")
    return simulator.connection() | {"host": host, "port": int(port)}


def look(airflow: str, simulator: str) -> str:
    """Return what people are told when all runs."""
    return f"""\
Airflow    {airflow}  (nobody has to log in)
Simulator  {simulator}
  Load sales     20 s; also runs by itself each minute
  Load finance   40 s; the first execution fails, and each third after it
  Load stock     90 s; also runs by itself each four minutes

Look at
  {airflow}/dags/{FIRST}
    runs now: two loads wait without a worker, then one succeeds and one fails, and its log says why
  {airflow}/dags/example_timextender_job_finished
    starts by itself when Load sales has succeeded, whoever started it
  {airflow}/dags
    the other examples, which Trigger starts; files in {EXAMPLE_DAGS.name}/ that are changed are read again
  {airflow}/connections
    the connection to the simulator, and Test

Ctrl-C ends all of it."""


def run(simulator: Simulator, airflow: Stack) -> NoReturn:
    """Start jobs when their time has come, until Airflow raises :class:`Stopped` or :class:`Died`."""
    due = dict.fromkeys(BY_THEMSELVES, time.monotonic())
    while True:
        airflow.check()
        for name, period in BY_THEMSELVES.items():
            if time.monotonic() >= due[name]:
                simulator.run(name)
                due[name] += period
        time.sleep(0.5)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=0, help="of Airflow; 0 (default) for any free one")
    arguments = parser.parse_args()
    if not AIRFLOW_3:
        parser.error("this needs Airflow 3")
    caught: list[int] = []

    def catch(number: int, _: FrameType | None) -> None:
        # No exception: it could come between a process's start and its entry in the list of those to end.
        if not caught:
            with suppress(OSError):
                os.write(sys.stdout.fileno(), b"\nAirflow ends.\n")
        caught.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, catch)
    with (
        tempfile.TemporaryDirectory(prefix="airflow-timextender-up-") as home,
        Simulator(jobs()) as simulator,
    ):
        try:
            airflow = Stack(
                Path(home),
                EXAMPLE_DAGS,
                {
                    "timextender_default": json.dumps(connection(simulator)),
                    "warehouse": json.dumps({"conn_type": "sqlite", "host": f"{home}/warehouse.db"}),
                },
                {"PYTHONDONTWRITEBYTECODE": "1", "AIRFLOW__CORE__TEST_CONNECTION": "Enabled"},
                port=arguments.port,
                over=lambda: bool(caught),
            )
        except (OSError, OverflowError) as error:
            parser.error(f"--port {arguments.port}: {error}. Name another: make up PORT=8081")
        print("Airflow starts, which takes half a minute.", flush=True)
        try:
            with airflow:
                airflow.trigger(FIRST)
                print(look(airflow.url, simulator.url), flush=True)
                run(simulator, airflow)
        except Stopped:
            return 0
        except (Died, TimeoutError) as error:
            print(error, file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
