"""Run an example DAG in real Airflow against the simulator, and tell people what happened.

Everything is temporary: the simulator listens on a free port of this machine, and Airflow gets a home, with
a SQLite database, that is deleted at the end. The exit status is 0 only if the DAG run succeeded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_timextender.simulator import DIALECTS, Simulator
from airflow_provider_timextender.simulator.server import example_jobs
from stack import AIRFLOW_3, Died, Stack, until

EXAMPLE_DAGS = Path(__file__).parent / "example_dags"
ON_EVENT = "example_timextender_job_finished"
"""The DAG that an event starts, for which Airflow's components have to run."""

LOGICAL_DATE = "2026-01-01T00:00:00+00:00"

# 2026-01-01T00:00:00.000000Z [info     ] The job is running. [airflow.task....operators.X] loc=...
PROVIDER_LINE = re.compile(r"\S+ \[(\w+)\s*\] (.*?)\s*\[\S*airflow_provider_timextender\S*\]")
TASK_LINE = re.compile(r"\[DAG TEST\] starting task_id=(\S+) map_index=(\S+)")
AIRFLOW_LINE = re.compile(r"\[?\d{4}-\d\d-\d\d[T ]\S+ [\[{]")
AIRFLOW_2_LOGGING = {
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "AIRFLOW__LOGGING__LOG_FORMAT": "%(asctime)s [%(levelname)-9s] %(message)s [%(name)s]",
}
"""Lets Airflow 2 write its lines as Airflow 3 does."""

AS_ABOVE = "  info     The log of the load, as above."
ERROR_LINE = re.compile(r"(airflow_provider_timextender\.errors|airflow\.\S*exceptions)\.\w+: ")


@dataclass(frozen=True)
class DagRun:
    """What became of a DAG run: the state of each task, and all that Airflow printed."""

    succeeded: bool
    states: Mapping[str, str]
    output: str


def environment(home: Path, simulator: Simulator) -> dict[str, str]:
    """Return the environment of an Airflow of its own, whose connection leads to the simulator."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLE_DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        **({} if AIRFLOW_3 else AIRFLOW_2_LOGGING),
        "AIRFLOW_CONN_TIMEXTENDER_DEFAULT": simulator.connection_json(),
        "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": f"{home}/warehouse.db"}),
    }


def run_dag(dag_id: str, env: Mapping[str, str], on_line: Callable[[str], None]) -> DagRun:
    """Run a DAG with Airflow's own commands, handing over each line as it is printed."""
    airflow = [sys.executable, "-m", "airflow"]
    migrated = subprocess.run(
        [*airflow, "db", "migrate"], env=env, capture_output=True, text=True, check=False
    )
    if migrated.returncode:
        raise SystemExit(f"airflow db migrate failed:\n{migrated.stdout}{migrated.stderr}")
    lines = []
    with subprocess.Popen(
        [*airflow, "dags", "test", dag_id, LOGICAL_DATE],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            on_line(line.rstrip("\n"))
    states = subprocess.run(
        [*airflow, "tasks", "states-for-dag-run", dag_id, LOGICAL_DATE, "--output", "json"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    # At debug level, Airflow 2 also writes log lines to it.
    tasks, _ = json.JSONDecoder().raw_decode(states.stdout, states.stdout.index("[{"))
    return DagRun(
        succeeded=process.returncode == 0,
        states={f"{t['task_id']}{_index(t)}": t["state"] for t in tasks},
        output="".join(lines) + states.stdout + states.stderr,
    )


def _index(task: Mapping[str, str]) -> str:
    index = task.get("map_index", "")
    return f" [{index}]" if index not in ("", "-1", None) else ""


def run_on_event(home: Path, simulator: Simulator) -> DagRun:
    """Let a job run outside Airflow, whose components run too, and wait for the DAG run that it starts."""
    connections = {"timextender_default": simulator.connection_json()}
    with Stack(home, EXAMPLE_DAGS, connections, {}) as airflow:
        job = simulator.job("Load sales")
        watched = f"/{job.id}/logs"
        until(
            lambda: any(r.path.endswith(watched) for r in list(simulator.requests)), 60, "a look at the job"
        )
        print(f"  The triggerer watches {job.name!r}.")
        execution = simulator.run(job.name)
        print(f"  The job runs on its own schedule, trigger id {execution.trigger_id}.", flush=True)
        run = until(lambda: airflow.runs(ON_EVENT), 120, "a DAG run")[0]
        path = f"/api/v2/dags/{ON_EVENT}/dagRuns/{run['dag_run_id']}"
        print(f"  Its end has started DAG run {run['dag_run_id']}, with the event", flush=True)
        state = airflow.wait(ON_EVENT, run["dag_run_id"], 120)
        # Airflow 3.3.2 cannot tell the events of a run that has not begun.
        for event in airflow.ask(f"{path}/upstreamAssetEvents")["asset_events"]:
            print(f"  {json.dumps(event['extra'])}")
        tasks = airflow.ask(f"{path}/taskInstances")["task_instances"]
    return DagRun(state == "success", {task["task_id"]: task["state"] for task in tasks}, "")


class Narrator:
    """Prints of Airflow's output what the operators, the sensor and an error say, and each log once."""

    def __init__(self) -> None:
        self._in_error = False
        self._told: set[str] = set()
        self._heading = ""

    def __call__(self, line: str) -> None:
        """Take one line of the output."""
        if match := TASK_LINE.search(line):
            self._heading = f" {match[1]}{_index({'map_index': match[2]})}:"
            self._told.discard(AS_ABOVE)
        if match := PROVIDER_LINE.match(line):
            self._tell(f"  {match[1].lower():<8} {match[2]}", of_log=match[2].startswith("TimeXtender: "))
        if ERROR_LINE.match(line):
            self._in_error = line not in self._told  # Airflow 2 prints an error three times
            self._told.add(line)
        elif AIRFLOW_LINE.match(line):
            self._in_error = False
        if self._in_error:
            print(f"  {line}", flush=True)

    def _tell(self, text: str, *, of_log: bool) -> None:
        if self._heading:
            print(self._heading)
            self._heading = ""
        if of_log and text in self._told:
            text = AS_ABOVE
            if text in self._told:
                return
        self._told.add(text)
        print(text, flush=True)


def main() -> int:
    """Run the demonstration."""
    dags = sorted(path.stem for path in EXAMPLE_DAGS.glob("example_*.py"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--dag", choices=dags, default="example_timextender_sensor_and_logs")
    parser.add_argument("--fail", metavar="JOB", help="a job that the simulator lets fail: 'Load sales', ...")
    parser.add_argument(
        "--dialect", choices=sorted(DIALECTS), default="documented", help="how its answers look"
    )
    arguments = parser.parse_args()
    jobs = example_jobs()
    if arguments.fail and arguments.fail not in [job.name for job in jobs]:
        parser.error(f"--fail: there is no job {arguments.fail!r}, only {[job.name for job in jobs]}")
    for job in jobs:
        job.outcome = "failed" if job.name == arguments.fail else "succeeded"
    if arguments.dag == ON_EVENT and not AIRFLOW_3:
        parser.error(f"--dag {ON_EVENT} needs Airflow 3")
    if arguments.dag == ON_EVENT and arguments.fail:
        parser.error(f"--fail: only a job that succeeds starts {ON_EVENT}")

    with (
        tempfile.TemporaryDirectory(prefix="airflow-timextender-demo-") as home,
        Simulator(jobs, dialect=arguments.dialect) as simulator,
    ):
        simulator.past_days(3)  # for what reads logs
        env = environment(Path(home), simulator)
        print(f"The TimeXtender simulator listens at {simulator.url}. Airflow's home is {home}.")
        os.environ.update(env)
        from airflow_provider_timextender.hooks import TimeXtenderHook

        print("Jobs found:")
        for job_found in TimeXtenderHook().get_jobs():
            print(f"  {job_found.id}  {job_found.name}")
        print(f"DAG {arguments.dag}:", flush=True)
        try:
            if arguments.dag == ON_EVENT:
                run = run_on_event(Path(home), simulator)
            else:
                run = run_dag(arguments.dag, env, Narrator())
        except (Died, TimeoutError) as error:
            raise SystemExit(str(error)) from error
        print("Task states:")
        for task, state in run.states.items():
            print(f"  {task:<20} {state}")
        print(f"Executions queued by Airflow: {simulator.count('execute')}")
        print(f"DAG run: {'success' if run.succeeded else 'FAILED'}")
    return 0 if run.succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
