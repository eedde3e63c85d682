"""``python -m airflow_provider_timextender ...``: the commands, on every Airflow."""

from __future__ import annotations

import argparse

from airflow_provider_timextender.cli import get_commands


def make_parser() -> argparse.ArgumentParser:
    """Return what ``airflow timextender`` understands."""
    (group,) = get_commands()
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_timextender", description=group.help)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in group.subcommands:
        subparser = commands.add_parser(command.name, help=command.help, description=command.help)
        for argument in command.args:
            argument.add_to_parser(subparser)
        subparser.set_defaults(func=command.func, program=parser.prog)
    return parser


def main() -> None:
    """Run one command; it ends the process."""
    arguments = make_parser().parse_args()
    arguments.func(arguments)


if __name__ == "__main__":
    main()
