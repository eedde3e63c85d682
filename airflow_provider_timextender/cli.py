"""What ``airflow timextender`` takes. Loaded at every ``airflow`` command, it imports nothing heavy."""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_YES,
    ActionCommand,
    Arg,
    GroupCommand,
    lazy_load_command,
    positive_int,
)

_CONNECTION = Arg(
    ("--conn-id",),
    help="The Airflow connection (default: timextender_default)",
    default="timextender_default",
)
_JOB = Arg(("job",), metavar="JOB", help="The name of a job, or its id")


def _command(name: str, help_: str, *args: Arg) -> ActionCommand:
    """Return the command that a function of that name in ``commands`` carries out."""
    function = lazy_load_command(f"{__package__}.commands.{name}")
    return ActionCommand(name, help_, function, (*args, _CONNECTION, ARG_OUTPUT))


def get_commands() -> list[GroupCommand]:
    """Return the group of commands, as Airflow asks for it (3.2 and later)."""
    return [
        GroupCommand(
            name="timextender",
            help="Run TimeXtender jobs, and read what became of them",
            subcommands=(
                _command(
                    "check",
                    "Find out what of the API is understood, and what to set in the connection",
                    Arg(
                        ("--job",),
                        action="append",
                        metavar="JOB",
                        help="A job whose log is read (repeatable; default: all)",
                    ),
                    Arg(
                        ("--record",),
                        metavar="FILE",
                        help="Record the answers for a bug report, with other names, ids, messages and times",
                    ),
                    ARG_YES,
                ),
                _command("jobs", "List the jobs"),
                _command(
                    "status",
                    "Show what one job, or each, is doing now",
                    Arg(
                        ("job",), metavar="JOB", nargs="?", help="The name of a job, or its id (default: all)"
                    ),
                ),
                _command(
                    "executions",
                    "List the executions of a job, the newest first",
                    _JOB,
                    Arg(
                        ("--limit",),
                        type=positive_int(allow_zero=False),
                        default=20,
                        help="How many are shown at most (default: 20)",
                    ),
                ),
                _command(
                    "logs",
                    "Show the log of a job, or of one execution",
                    _JOB,
                    Arg(
                        ("trigger_id",), metavar="TRIGGER_ID", nargs="?", help="The execution (default: all)"
                    ),
                    Arg(("--min-severity",), help="debug, info, warning, error or critical"),
                ),
                _command(
                    "run",
                    "Queue a job, which starts a load",
                    _JOB,
                    Arg(("--wait",), action="store_true", help="Wait for the end of the execution"),
                    Arg(
                        ("--timeout",),
                        metavar="SECONDS",
                        help="How long to wait (default: [sensors] default_timeout, which is seven days)",
                    ),
                    Arg(
                        ("--poll-interval",),
                        metavar="SECONDS",
                        default=30,
                        help="How long between two looks (default: 30)",
                    ),
                    ARG_YES,
                ),
            ),
        )
    ]
