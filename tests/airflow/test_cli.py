"""The commands in a terminal: what they show, where, and with which status they end."""

from __future__ import annotations

import inspect
import io
import json
import logging
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from airflow.providers_manager import ProvidersManager

from airflow_provider_timextender import cli, commands
from airflow_provider_timextender.__main__ import make_parser
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.life import Life
from airflow_provider_timextender.operators import ExecuteJobOperator
from airflow_provider_timextender.simulator import Fault, Job, Recording, Simulator

from ..conftest import API_KEY, after_submission, shows_key
from ..pure.test_documentation import ROOT
from ..shapes import SHAPES, give_a_past

MODULE = [sys.executable, "-m", "airflow_provider_timextender"]
GROUP = [sys.executable, "-m", "airflow", "timextender"]
NOBODY = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
needs_group = pytest.mark.skipif(
    not hasattr(ProvidersManager, "cli_command_functions"),
    reason="before Airflow 3.2 a provider adds no commands",
)


class Ran(NamedTuple):
    """How a command ended, and what it showed."""

    status: Any
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command, run in this process through the parser of ``python -m``."""
    # A command sets it up for its process.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def run(*words: str) -> Ran:
        capsys.readouterr()
        try:
            arguments = make_parser().parse_args(words)
            arguments.func(arguments)
        except SystemExit as ended:
            return Ran(ended.code, *capsys.readouterr())
        raise AssertionError("A command ends the process.")

    return run


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulator with a job that succeeds and one that fails."""
    jobs = [
        Job("Load sales", duration=0.3, pickup=0.1, warnings=1),
        Job("Load finance", duration=0.3, pickup=0.1, outcome="failed"),
    ]
    with Simulator(jobs, api_key=API_KEY) as simulator:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
        yield simulator


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


# --- the definitions ---


def test_the_group_imports_nothing_but_itself() -> None:
    script = (
        "import sys, airflow.cli.cli_config, airflow_provider_timextender\n"
        "seen = set(sys.modules)\n"
        "from airflow_provider_timextender.cli import get_commands\n"
        "get_commands()\n"
        "print('loaded:', *sorted(set(sys.modules) - seen))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("loaded:")]
    assert line == "loaded: airflow_provider_timextender.cli"


def test_each_command_has_a_function_and_each_can_be_asked_where_and_how() -> None:
    (group,) = cli.get_commands()
    for one in group.subcommands:
        assert callable(getattr(commands, one.name))
        flags = [flag for argument in one.args for flag in argument.flags]
        assert {"--conn-id", "--output"} <= set(flags)


def test_what_is_not_given_is_as_the_hook_and_the_operator_have_it() -> None:
    arguments = make_parser().parse_args(["run", "Load sales"])
    operator = inspect.signature(ExecuteJobOperator.__init__).parameters
    assert arguments.conn_id == TimeXtenderHook.default_conn_name
    assert arguments.poll_interval == operator["poll_interval"].default
    assert operator["start_timeout"].default == commands.START_TIMEOUT
    assert operator["max_unreachable"].default == commands.MAX_UNREACHABLE
    assert operator["if_running"].default == "submit"


def test_what_the_page_shows_can_be_typed_and_what_can_be_typed_it_names() -> None:
    page = (ROOT / "docs/cli.md").read_text().replace("\\\n", "")
    shown = re.findall(r"^(?:\$ )?airflow timextender (.+?)(?: \|.*)?$", page, re.MULTILINE)
    assert len(shown) > 5
    for words in shown:
        make_parser().parse_args(shlex.split(words))
    (group,) = cli.get_commands()
    for one in group.subcommands:
        assert f"| `{one.name}" in page
        for flag in (flag for argument in one.args for flag in argument.flags if flag.startswith("--")):
            assert f"`{flag}" in page


# --- reading ---


def test_jobs_and_their_states_in_each_form(two: Simulator, command: Command) -> None:
    sales, finance = two.job("Load sales").id, two.job("Load finance").id
    two.job("Load finance").pickup, two.job("Load finance").duration = 0, 600
    two.run("Load finance")
    rows = [{"job_name": "Load sales", "job_id": sales}, {"job_name": "Load finance", "job_id": finance}]
    assert json.loads(command("jobs", "--output", "json").out) == rows
    assert yaml.safe_load(command("jobs", "--output", "yaml").out) == rows
    plain = command("jobs", "--output", "plain").out.splitlines()
    assert [line.split() for line in plain[1:]] == [["Load", "sales", sales], ["Load", "finance", finance]]
    table = command("status").out
    assert "Load sales   | idle    | " in table
    assert "Load finance | running | " in table
    for typed in ("Load sales", sales, sales.upper()):
        (row,) = json.loads(command("status", typed, "-o", "json").out)
        assert row == {"job_name": "Load sales", "state": "idle", "job_id": sales}
    assert two.count("execute") == 0


def test_r48_an_unknown_key_of_the_extra_is_told_beside_the_result(
    two: Simulator, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**two.connection(), "extra": {"vocablary": {}}}
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps(fields))
    ran = command("jobs", "--output", "json")
    assert len(json.loads(ran.out)) == 2
    assert "unknown key 'vocablary', which is ignored. Did you mean 'vocabulary'?" in ran.err


def test_executions_come_newest_first_in_local_time_and_in_utc_for_programs(
    two: Simulator, command: Command, new_york: None
) -> None:
    job = two.job("Load finance")
    job.duration = 200
    old, new = (two.world.queue(job, at(when)) for when in ("2026-01-05T10:00", "2026-07-05T10:00"))
    ran = command("executions", "Load finance")
    lines = ran.out.splitlines()[2:4]
    assert lines[0].startswith(
        "2026-07-05 06:00:00-04:00 | 2026-07-05 06:03:20-04:00 | 3 min 20 s | failed |"
    )
    assert lines[1].startswith("2026-01-05 05:00:00-05:00 | ")
    assert [line.rsplit("| ", 1)[1].strip() for line in lines] == [new.trigger_id, old.trigger_id]
    assert (ran.status, ran.err) == (0, "")

    ran = command("executions", job.id, "--limit", "1", "--output", "json")
    (row,) = json.loads(ran.out)
    assert (row["start"], row["duration"]) == ("2026-07-05T10:00:00.100000+00:00", "200.0")
    assert "column 'CustomerKey' does not exist" in row["message"]
    assert ran.err == "The newest 1 of 2 executions; --limit shows more.\n"


def test_one_that_runs_stands_above_what_is_over(two: Simulator, command: Command) -> None:
    job = two.job("Load sales")
    two.past("Load sales")
    job.duration = 3600
    running = two.world.queue(job, time.time() - 60)
    rows = json.loads(command("executions", "Load sales", "-o", "json").out)
    assert (rows[0]["trigger_id"], rows[0]["state"], rows[0]["end"]) == (running.trigger_id, "running", None)


def test_logs_of_a_job_of_an_execution_and_of_a_severity(two: Simulator, command: Command) -> None:
    first, second = (two.past("Load finance", "failed", ago=ago) for ago in (60, 30))
    rows = json.loads(command("logs", "Load finance", "-o", "json").out)
    assert {row["trigger_id"] for row in rows} == {first.trigger_id, second.trigger_id}
    rows = json.loads(
        command("logs", "Load finance", second.trigger_id, "--min-severity", "error", "-o", "json").out
    )
    assert [list(row) for row in rows] == [["time", "severity", "message"]] * 2
    assert {row["severity"] for row in rows} == {"error"}
    assert command("logs", "Load sales").out == "No data found\n"
    assert json.loads(command("logs", "Load sales", "-o", "json").out) == []


def test_what_is_not_understood_is_shown_as_nothing_and_said(two: Simulator, command: Command) -> None:
    two.fault("statuses", Fault("unknown word"))
    ran = command("status", "--output", "json")
    assert [row["state"] for row in json.loads(ran.out)] == [None, None]
    assert "Hibernating" in ran.err
    two.past("Load sales", ago=60)
    two.fault("logs", Fault("unknown word"))
    assert "Hibernating" in command("executions", "Load sales").err


@pytest.mark.parametrize("output", ["table", "plain"])
def test_no_message_forges_what_is_shown(two: Simulator, command: Command, output: str) -> None:
    job = two.job("Load sales")
    job.message = "[red]red[/red] [/] :warning: \x1b[31m\r\nsucceeded \\"
    two.past("Load sales", ago=60)
    shown = command("executions", "Load sales", "--output", output).out
    assert "[red]red[/red] [/] :warning: \\x1b[31m" in shown
    assert "\x1b" not in shown
    assert not [line for line in shown.splitlines() if line.startswith("succeeded")]


# --- running ---


def test_run_without_waiting_is_a_receipt(two: Simulator, command: Command) -> None:
    ran = command("run", "Load sales", "--yes", "--output", "json")
    (row,) = json.loads(ran.out)
    assert row == {
        "job_name": "Load sales",
        "state": "queued",
        "trigger_id": two.world.executions[0].trigger_id,
        "job_id": two.job("Load sales").id,
    }
    assert (ran.status, two.count("execute")) == (0, 1)
    assert "TimeXtender job 'Load sales': queued." in ran.err


def test_run_and_wait_shows_the_way_and_the_log(two: Simulator, command: Command) -> None:
    ran = command("run", "Load sales", "--yes", "--wait", "--poll-interval", "0.1", "-o", "json")
    assert ran.status == 0
    assert json.loads(ran.out)[0]["state"] == "succeeded"
    for part in ("queued", "pending", "running", "succeeded", "Orders' finished.", "2 rows were truncated."):
        assert part in ran.err
    assert two.count("execute") == 1


def test_a_job_that_fails_is_status_1(two: Simulator, command: Command) -> None:
    ran = command("run", "Load finance", "--yes", "--wait", "--poll-interval", "0.1", "-o", "json")
    assert ran.status == 1
    assert json.loads(ran.out)[0]["state"] == "failed"
    assert "failed" in ran.err
    assert ran.err.count("Invalid column name 'CustomerKey'.") == 2, "in the log, and in the error"


def test_a_job_that_never_starts_is_status_1(
    two: Simulator, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "START_TIMEOUT", 0.3)
    two.job("Load sales").outcome = "never starts"
    ran = command("run", "Load sales", "--yes", "--wait", "--poll-interval", "0.1", "-o", "json")
    assert (ran.status, json.loads(ran.out)[0]["state"]) == (1, "never started")


def test_a_wait_that_is_over_says_how_to_look_again(two: Simulator, command: Command) -> None:
    two.job("Load sales").duration = 60
    ran = command(
        "run", "Load sales", "--yes", "--wait", "--poll-interval", "0.1", "--timeout", "0.5", "-o", "json"
    )
    (row,) = json.loads(ran.out)
    assert (ran.status, row["state"]) == (2, "running")
    *_, hint, last = ran.err.splitlines()
    assert last.startswith("TimeXtender job 'Load sales': stopped waiting: it was not over after 0.5 s.")
    assert hint.endswith(f"python -m airflow_provider_timextender logs 'Load sales' {row['trigger_id']}")


def test_a_lost_answer_is_made_up_for_as_in_a_task(
    two: Simulator, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "START_TIMEOUT", 1)
    two.fault("execute", Fault("reset", taken=True))
    ran = command("run", "Load sales", "--yes", "--wait", "--poll-interval", "0.1", "-o", "json")
    assert (ran.status, two.count("execute")) == (0, 1)
    assert json.loads(ran.out)[0]["trigger_id"] == two.world.executions[0].trigger_id


def test_an_unknown_fate_is_told_in_the_words_of_a_terminal(two: Simulator, command: Command) -> None:
    two.fault("logs", always=Fault("body", body="[1]"))
    two.fault("execute", Fault("reset", taken=True))
    ran = command("run", "Load sales", "--yes", "--poll-interval", "0.1")
    assert (ran.status, ran.out, two.count("execute")) == (2, "", 1)
    assert "Look in TimeXtender whether the load has run before you start it again." in ran.err
    assert "task" not in ran.err


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "starts"), [("y\n", 1), ("Yes\n", 1), ("n\n", 0), ("\n", 0), ("", 0)])
def test_run_asks_before_it_starts_a_load(
    two: Simulator, command: Command, monkeypatch: pytest.MonkeyPatch, answer: str, starts: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Keyboard(answer))
    ran = command("run", "Load sales", "--output", "json")
    assert "The job 'Load sales' (" in ran.err
    assert ") is idle. Queue it, which starts a load? [y/N] " in ran.err
    assert two.count("execute") == starts
    assert ran.status == (0 if starts else 2)
    assert bool(ran.out) == bool(starts)
    assert ("Nothing was started." in ran.err) != bool(starts)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_says_that_the_job_runs_on(two: Simulator, command: Command) -> None:
    after_submission(two, lambda: os.kill(os.getpid(), signal.SIGINT))
    two.job("Load sales").duration = 60
    ran = command("run", "Load sales", "--yes", "--wait", "-o", "json")
    assert ran.status == 130
    assert "was not stopped: the API has no way to." in ran.err


def test_ctrl_c_before_the_request_says_that_nothing_was_started(
    two: Simulator, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Life, "live", interrupt)
    ran = command("run", "Load sales", "--yes")
    assert (ran.status, ran.out, ran.err) == (130, "", "Nothing was started.\n")


# --- what goes wrong ---


@pytest.mark.usefixtures("airflow_db")  # of which Airflow 2 says that it is missing
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["jobs", "--conn-id", "nope"], "`nope` isn't defined"),
        (["status", "Load Sales"], "Did you mean 'Load finance', 'Load sales'?"),
        (["status", NOBODY], "no job with the id"),
        (["executions", ""], "job_name was given, but is ''"),
        (["logs", "Load sales", "123"], "The trigger id '123' is not a guid"),
        (["logs", "Load sales", NOBODY], "TimeXtender job 'Load sales': its log shows no execution"),
        (["logs", "Load sales", "--min-severity", "loud"], "'loud'"),
        (["run", "Load sale", "--yes"], "Did you mean"),
        (["run", "Load sales"], "give --yes. Nothing was started."),
        (["run", "Load sales", "--yes", "--poll-interval", "soon"], "--poll-interval is 'soon'"),
        (["run", "Load sales", "--yes", "--timeout", "-1"], "--timeout is '-1'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    two: Simulator, command: Command, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    ran = command(*words)
    assert (ran.status, ran.out, two.count("execute")) == (2, "", 0)
    assert says in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("words", [["jobs", "more"], ["executions", "x", "--limit", "0"], ["sing"], []])
def test_words_that_are_no_command_are_status_2(command: Command, words: list[str]) -> None:
    ran = command(*words)
    assert (ran.status, ran.out) == (2, "")
    assert "error: " in ran.err


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"host": "http://127.0.0.1:1"}, "Connection refused"),
        ({"password": "another"}, "HTTP 401. The API key was refused."),
        ({"password": ""}, "there is no API key"),
        ({"extra": {"timeout": -30}}, "timeout is -30"),
    ],
    ids=["unreachable", "key", "no key", "extra"],
)
def test_a_connection_that_does_not_work_is_one_line_and_status_2(
    two: Simulator, command: Command, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], says: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps({**two.connection(), **fields}))
    for words in (["jobs"], ["status"], ["logs", "Load sales"], ["run", "Load sales", "--yes"]):
        ran = command(*words)
        assert (ran.status, ran.out) == (2, "")
        assert says in ran.err
        assert ran.err.count("\n") == 1


def test_a_passing_error_is_told_at_once(two: Simulator, command: Command) -> None:
    two.fault("jobs", Fault("status", status=503))
    ran = command("jobs")
    assert (ran.status, two.count("jobs")) == (2, 1)
    assert "HTTP 503" in ran.err


def test_what_nobody_thought_of_does_not_say_that_the_job_failed(
    two: Simulator, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Life, "live", lambda life: 1 / 0)
    ran = command("run", "Load sales", "--yes")
    assert ran.status == 2
    assert "ZeroDivisionError" in ran.err


# --- in processes of their own ---


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "TERM": "xterm-256color", "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO", **more}


def test_python_m_shows_nothing_but_the_result_on_standard_output(two: Simulator) -> None:
    done = subprocess.run(
        [*MODULE, "jobs", "--output", "json"], capture_output=True, text=True, check=True, env=environment()
    )
    assert [row["job_name"] for row in json.loads(done.stdout)] == ["Load sales", "Load finance"]
    assert not shows_key(done.stdout + done.stderr)


@needs_group
@pytest.mark.parametrize(("name", "status"), [("Load sales", 0), ("Load finance", 1)])
def test_airflow_timextender_run(two: Simulator, name: str, status: int) -> None:
    words = ["run", name, "--wait", "--yes", "--poll-interval", "0.1", "--output", "json"]
    done = subprocess.run(
        [*GROUP, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status
    assert json.loads(done.stdout)[0]["state"] == ("failed" if status else "succeeded")
    assert f"TimeXtender job '{name}': queued." in done.stderr
    assert "Traceback" not in done.stderr
    assert not shows_key(done.stdout + done.stderr)


def test_ctrl_c_in_a_terminal_ends_the_wait_and_not_the_job(two: Simulator) -> None:
    two.job("Load sales").duration = 600
    words = ["run", "Load sales", "--wait", "--yes", "--poll-interval", "0.1"]
    with subprocess.Popen(
        [*MODULE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "is running" in line:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    trigger_id = two.world.executions[0].trigger_id
    assert process.returncode == 130
    assert "Its execution runs on" in err
    assert err.splitlines()[-1].endswith(f"logs 'Load sales' {trigger_id}")
    assert "Traceback" not in err
    assert trigger_id in out
    assert two.world.status(two.job("Load sales"), time.time()) == "running"


@pytest.mark.parametrize("output", ["table", "json", "plain"])
def test_a_closed_pipe_ends_quietly(two: Simulator, output: str) -> None:
    ours, its = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [*MODULE, "jobs", "--output", output],
        stdout=its,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    os.close(its)
    assert done.returncode == 141
    assert "BrokenPipe" not in done.stderr
    assert "Traceback" not in done.stderr


def on_a_terminal(*words: str, columns: int = 120, **more: str) -> str:
    """Return what a command shows on a terminal."""
    ours, its = pty.openpty()
    # Rich goes by these before it asks the terminal.
    size = {"COLUMNS": str(columns), "LINES": "50"}
    with subprocess.Popen(
        [*MODULE, *words], stdin=its, stdout=its, stderr=subprocess.DEVNULL, env=environment(**size, **more)
    ):
        os.close(its)
        shown = b""
        try:
            while more_shown := os.read(ours, 4096):
                shown += more_shown
        except OSError:  # Linux: the other side is closed
            pass
    os.close(ours)
    return shown.decode()


def test_states_are_in_colour_on_a_terminal_that_has_some(two: Simulator) -> None:
    two.past("Load finance", "failed", ago=60)
    words = ("executions", "Load finance")
    assert "\x1b[31mfailed\x1b[0m" in on_a_terminal(*words)
    assert "\x1b[31m" not in on_a_terminal(*words, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(*words, TERM="dumb")


def test_a_narrow_terminal_is_wide_enough(two: Simulator) -> None:
    execution = two.past("Load finance", "failed", ago=60)
    shown = on_a_terminal("logs", "Load finance", execution.trigger_id, columns=44, TERM="dumb")
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 44
    assert "CustomerKey" in shown


@needs_group
def test_airflow_lists_the_group() -> None:
    assert shutil.which("airflow", path=os.path.dirname(sys.executable))
    done = subprocess.run([*GROUP, "--help"], capture_output=True, text=True, check=True)
    (group,) = cli.get_commands()
    for one in group.subcommands:
        assert one.help in done.stdout


# --- check ---


@pytest.fixture
def otherwise(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """An account of another shape, with a past, whose connection explains nothing."""
    jobs = [Job("Load sales"), Job("Load finance"), Job("Load stock")]
    with Simulator(jobs, api_key=API_KEY, dialect=SHAPES["six ways"]) as simulator:
        give_a_past(simulator)
        fields = simulator.connection(explained=False)
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", json.dumps(fields))
        yield simulator


def test_r47_check_tells_people_what_to_paste_and_what_to_answer(
    otherwise: Simulator, command: Command
) -> None:
    ran = command("check")
    assert ran.status == 1
    assert f"Reached {otherwise.url} with the key in x-api-key: 3 jobs, 3 statuses, 10 executions" in ran.out
    pasted = ran.out[ran.out.index('{\n  "vocabulary"') : ran.out.index("\n}\n") + 2]
    assert json.loads(pasted)["vocabulary"]["fields"]["execution.end"] == "stop"
    assert re.search(r"states +Completed +6 +unknown", ran.out)
    assert '{"vocabulary": {"states": {"...": "Completed"}}}' in ran.out
    assert "Times have no zone, and are taken for UTC." in ran.out
    assert "0.8 KiB of 2." in ran.out, "the filter has been tried"
    assert not ran.err
    assert otherwise.count("execute") == 0


def test_r47_check_for_programs(otherwise: Simulator, command: Command) -> None:
    ran = command("check", "--output", "json", "--job", "Load stock")
    told = json.loads(ran.out)
    assert ran.status == 1
    assert {"reached", "fields", "words", "vocabulary", "questions", "problems"} == set(told)
    assert told["reached"]["url"] == otherwise.url
    assert list(told["reached"]["logs"]) == ["Load stock"]
    assert told["fields"]["execution.end"]["known_from"] == "proposed"
    assert yaml.safe_load(command("check", "--output", "yaml", "--job", "Load stock").out) == told


def test_r47_check_is_status_0_if_all_is_understood(two: Simulator, command: Command) -> None:
    two.past("Load sales")
    ran = command("check")
    assert ran.status == 0
    assert "All that was seen is understood." in ran.out
    assert "failed" in ran.out.partition("not been seen")[0]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("status", status=401), "API key was refused"),
        (Fault("reset"), "no answer"),
        (Fault("html"), "JSON"),
    ],
    ids=lambda value: "",
)
def test_r47_check_is_status_2_if_it_could_not_look(
    two: Simulator, command: Command, fault: Fault, says: str
) -> None:
    two.fault("jobs", always=fault)
    ran = command("check")
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(("limit", "read"), [("CHECK_FOR", 0), ("CHECK_UP_TO", 1)])
def test_check_reads_logs_for_no_longer_and_no_more_than_it_may(
    two: Simulator, command: Command, monkeypatch: pytest.MonkeyPatch, limit: str, read: int
) -> None:
    monkeypatch.setattr(commands, limit, read)
    ran = command("check")
    assert f"the logs of {read} of 2 jobs were read" in ran.err
    assert two.count("logs") == read


def test_r34_check_records_what_may_be_shown(
    otherwise: Simulator, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recording.json"
    ran = command("check", "--record", str(file))
    assert ran.status == 2
    assert "give --yes. The recording was not written." in ran.err
    assert f"Reached {otherwise.url}" in ran.out, "what was found is not lost"
    assert not file.exists()
    ran = command("check", "--record", str(file), "--yes")
    assert ran.status == 1
    assert "the words Completed, CompletedWithErrors," in ran.err.replace("\n", " ")
    assert not shows_key(file.read_text())
    ran = command("check", "--record", str(tmp_path), "--yes")
    assert ran.status == 2
    assert "cannot be written" in ran.err
    assert command("check", "--record", "", "--yes").status == 2
    recording = Recording.read(file)
    with Simulator(recording.jobs, dialect=recording) as replayed:
        monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", replayed.connection_json())
        assert '"execution.end": "stop"' in command("check").out


def test_what_is_nested_too_deep_is_told(two: Simulator, command: Command, tmp_path: Path) -> None:
    two.fault("statuses", always=Fault("body", body="[" * 800 + "]" * 800))
    ran = command("check", "--record", str(tmp_path / "recording.json"), "--yes")
    assert ran.status == 2
    assert "nested too deep" in ran.err
    assert "Traceback" not in ran.err


def test_what_stays_readable_in_a_recording_cannot_forge_a_line(
    two: Simulator, command: Command, tmp_path: Path
) -> None:
    statuses = [
        {"JobId": job.id, "Status": "\x1b[2Jgone", "\x1b[1mbold": 1} for job in two.world.jobs.values()
    ]
    two.fault("statuses", always=Fault("body", body=json.dumps(statuses)))
    ran = command("check", "--record", str(tmp_path / "recording.json"), "--yes")
    assert r"\x1b[2Jgone" in ran.err
    assert r"\x1b[1mbold" in ran.err
    assert "\x1b" not in ran.err + ran.out
