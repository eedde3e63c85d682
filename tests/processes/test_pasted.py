"""The snippets of the documentation, pasted into an empty project, where nothing of this repository is.

They are taken from the built pages, and from the README. Python that begins with the name of a file is
written there; what makes a DAG is run as one, all else as a script; and a shell runs the commands of a page.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest

from airflow_provider_timextender.simulator import Simulator
from docs.snippets import PAGES, ROOT

pytest.importorskip("sphinx", reason="only the environment of the newest Airflow builds the pages")
bs4 = pytest.importorskip("bs4")

pytestmark = pytest.mark.long

FOR_CONTRIBUTORS = {"CONTRIBUTING.md", "architecture.md", "performance.md"}
"""Pages whose snippets are for a clone of the repository, or pieces of the package's own files."""

SHOWN = [page for page in PAGES if page.name not in FOR_CONTRIBUTORS]

SERVES = "python -m airflow_provider_timextender.simulator"
"""The one command that goes on until Ctrl-C."""

FIRST_TEST = "export AIRFLOW_HOME="
"""Begins the commands of the page about testing, which have a test of their own."""

COUNT_JOBS = """
from airflow_provider_timextender.hooks import TimeXtenderHook
print(len(TimeXtenderHook().get_jobs()), "jobs")
"""

BY_HAND = "# by hand: do not copy"
"""Begins what a page shows to advise against it; it needs another provider."""

RUN_EACH = """
import os
import re
import runpy
from pathlib import Path
from urllib.parse import quote

import pytest
from airflow.models import DagBag

FILES = sorted(Path("pasted").glob("*.py"))


@pytest.fixture(autouse=True)
def _connections(timextender_simulator, tmp_path, monkeypatch):
    for job in timextender_simulator.world.jobs.values():
        job.pickup = job.duration = 0.1
        timextender_simulator.run(job.name)  # what a sensor may find to have ended
    timextender_simulator.finish()
    database = quote(str(tmp_path / "warehouse.db"), safe="")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", f"sqlite://{database}")
    for text in {file.read_text() for file in FILES}:
        for name in re.findall(r'"(timextender_\\w+)"', text):
            monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", timextender_simulator.connection_json())


@pytest.mark.parametrize("file", [file for file in FILES if "_dag_" in file.name], ids=str)
def test_dag(file):
    bag = DagBag(file)
    assert not bag.import_errors
    for dag in bag.dags.values():
        assert dag.test().state == "success"
    assert bag.dags


@pytest.mark.parametrize("file", [file for file in FILES if "_script_" in file.name], ids=str)
def test_script(file):
    runpy.run_path(str(file))
"""

QUICKER = """
INTERVALS = {"ExecuteJobOperator": "poll_interval", "JobStatusSensor": "poke_interval"}


def task_policy(task):
    name = INTERVALS.get(getattr(task, "operator_class", type(task)).__name__)
    if name and hasattr(task, "partial_kwargs"):
        task.partial_kwargs[name] = 0.5
    elif name:
        setattr(task, name, 0.5)
"""
"""A policy of Airflow's: between two looks, the test does not wait as long as a reader does."""


@dataclass(frozen=True)
class Project:
    """An empty folder, and how a command is run in it."""

    path: Path
    env: dict[str, str]

    def run(self, *command: str, answers: str = "") -> str:
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.env,
            input=answers,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-8000:]}"
        return done.stdout

    def write(self, file: str, text: str) -> None:
        (self.path / file).parent.mkdir(parents=True, exist_ok=True)
        (self.path / file).write_text(text)


def repository(airflow_home: Path) -> Project:
    """This one, for what makes the wheel and the pages: without what the tests have set."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "PYTEST"))}
    return Project(ROOT, {**env, "AIRFLOW_HOME": str(airflow_home)})


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A virtual environment with the built wheel, a database's provider and pytest, and an Airflow home."""
    path = tmp_path_factory.mktemp("clean")
    tools = repository(path)
    tools.run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(path))
    (wheel,) = path.glob("*.whl")
    uv = str(Path(sys.executable).with_name("uv"))
    tools.run(uv, "venv", "--python", sys.executable, str(path / "env"))
    tools.run(
        uv, "pip", "install", "--compile-bytecode", "--python", str(path / "env/bin/python"),
        "--constraint", "constraints/dev.txt", f"{wheel}[simulator,parquet,sql]", "pytest",
        "apache-airflow-providers-sqlite",
    )  # fmt: skip
    env = {
        "PATH": f"{path}/env/bin:/usr/bin:/bin",
        "HOME": str(path),
        "AIRFLOW_HOME": str(path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    clean = Project(path, env)
    assert "site-packages" in clean.run(
        "python", "-c", "import airflow_provider_timextender as p; print(p.__file__)"
    )
    clean.run("airflow", "db", "migrate")
    return clean


@pytest.fixture
def project(clean: Project, tmp_path: Path) -> Project:
    """An empty project, with an Airflow of its own."""
    copytree(clean.path / "airflow", tmp_path / "airflow")
    home = {"AIRFLOW_HOME": str(tmp_path / "airflow"), "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "pasted")}
    return Project(tmp_path, {**clean.env, **home})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("html")
    repository(path).run(
        sys.executable, "-m", "sphinx", "-b", "html", "-d", f"{path}/doctrees", "docs", str(path)
    )
    return path


def snippets(page: Path, built: Path, language: str) -> Iterator[str]:
    if page.parent == ROOT:
        yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        return
    html = bs4.BeautifulSoup((built / f"{page.stem}.html").read_text(), "html.parser")
    yield from (box.get_text() for box in html.select(f".highlight-{language} pre"))


NAMED = re.compile(r"# (\S+\.py)\n")


def test_r50_the_examples_of_the_page_about_testing_run_in_an_empty_project(
    built: Path, clean: Project, tmp_path: Path
) -> None:
    """Also the database is made by the page's own commands."""
    page = ROOT / "docs/testing.md"
    airflow = {name for name in clean.env if name.startswith("AIRFLOW")}
    project = Project(tmp_path, {name: clean.env[name] for name in clean.env.keys() - airflow})
    for code in snippets(page, built, "python"):
        name = NAMED.match(code)
        assert name, f"no name of a file stands before:\n{code}"
        project.write(name[1], code)
    (commands,) = (text for text in snippets(page, built, "bash") if text.startswith(FIRST_TEST))
    output = project.run("bash", "-euc", commands)
    tests = sum(file.read_text().count("\ndef test_") for file in tmp_path.glob("test_*.py"))
    assert f" {tests} passed" in output, output


def test_r50_each_other_piece_of_python_runs_as_it_is_pasted(built: Path, project: Project) -> None:
    pieces = 0
    for page in SHOWN:
        for number, code in enumerate(snippets(page, built, "python")):
            if not NAMED.match(code) and not code.startswith(BY_HAND):
                kind = "dag" if "@dag(" in code else "script"
                project.write(f"pasted/{page.stem}_{kind}_{number}.py", code)
                pieces += 1
    project.write(
        "conftest.py", 'pytest_plugins = ["airflow_provider_timextender.simulator.pytest_plugin"]\n'
    )
    project.write("test_each.py", RUN_EACH)
    project.write("airflow/config/airflow_local_settings.py", QUICKER)
    output = project.run("pytest")
    assert f" {pieces} passed" in output
    assert pieces > 6


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_r50_the_commands_of_a_page_run(built: Path, project: Project, page: Path) -> None:
    """On a terminal, where yes is the answer to each question.

    Those for a clone are run by other tests, and what is installed is the wheel of this one.
    """
    commands = [
        command
        for command in snippets(page, built, "bash")
        if not command.startswith(("pip install ", "make ", "git clone ", FIRST_TEST))
    ]
    project.write("count_jobs.py", COUNT_JOBS)
    with Simulator() as simulator:
        for job in simulator.world.jobs.values():
            simulator.past(job.name, "failed", ago=7200)
            simulator.past(job.name, ago=3600)
        env = {**project.env, "AIRFLOW_CONN_TIMEXTENDER_DEFAULT": simulator.connection_json()}
        project.write("commands.sh", "".join(c for c in commands if not c.startswith(SERVES)))
        terminal = ("script", "--quiet", "--return", "--command", "bash -eu commands.sh", "/dev/null")
        Project(project.path, env).run(*terminal, answers="y\n" * 9)
    for command in commands:
        if command.startswith(SERVES):
            serves_what_it_prints(project, command)


def serves_what_it_prints(project: Project, command: str) -> None:
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=project.path,
        env=project.env,
        stdout=subprocess.PIPE,
        text=True,
    ) as serving:
        assert serving.stdout is not None
        try:
            exported = next(line for line in serving.stdout if line.startswith("export "))
            counted = project.run("bash", "-euc", f"{exported}\npython count_jobs.py")
        finally:
            serving.send_signal(signal.SIGINT)
    assert "3 jobs" in counted
    assert serving.returncode == 0
