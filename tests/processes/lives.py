"""A small stand-in for Airflow: it runs a task's whole life, each part of it in a process that can die.

It keeps what survives a process (the task's state store, its XComs, the number of its try, its deferred
trigger) and does what Airflow does about an end or a death. It shares nothing with the package's own ideas
about it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from types import TracebackType
from typing import IO, Any, Literal

from airflow_provider_timextender.simulator import Execution, Simulator

SHOWN = "timextender_shown"
"""The XCom that a trigger pushes more than once, as nobody else keeps what it has shown."""


class Nursery:
    """The process that all others are forked from. It may be used from many threads."""

    def __init__(self) -> None:
        self._home = TemporaryDirectory(prefix="airflow-timextender-nursery-")
        self._door, theirs = socket.socketpair()
        self._turn = Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.processes.nursery", str(theirs.fileno())],
                cwd=Path(__file__).parents[2],
                env=_clean_environment(self._home.name),
                pass_fds=[theirs.fileno()],
                stdout=subprocess.DEVNULL,
            )
        assert self._door.recv(1), "the nursery did not start"

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._door.close()
        self._process.wait()
        self._home.cleanup()

    def new(self) -> socket.socket:
        """Return the end of a new process."""
        ours, theirs = socket.socketpair()
        with theirs, self._turn:
            socket.send_fds(self._door, [b"!"], [theirs.fileno()])
        return ours


def _clean_environment(home: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AIRFLOW_") and not name.lower().endswith("_proxy")
    }
    return {
        **kept,
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }


@dataclass(frozen=True)
class Boundary:
    """A moment at which a process can die so that it makes a difference.

    :ivar number: from 1 on, over the whole life.
    """

    number: int
    name: str
    process: Literal["worker", "triggerer"]


@dataclass(frozen=True)
class End:
    """How a task, or one try of it, ended.

    :ivar state: ``"died"`` is an end of a try only. :ivar error: the class of what was raised.
    :ivar at: epoch seconds.
    """

    state: Literal["success", "failed", "skipped", "died"]
    returned: Any = None
    error: str = ""
    message: str = ""
    retries: bool = True
    at: float = field(default_factory=time.time, compare=False)


@dataclass
class Try:
    """One try: when it began, and how it ended."""

    number: int
    began: float
    end: End | None = None


class Broken(AssertionError):
    """The stand-in was asked for, or given, what Airflow would not take."""


def never(boundary: Boundary) -> bool:
    """Let everything live."""
    return False


def _line(lines: IO[str]) -> str:
    try:
        return lines.readline()
    except ConnectionResetError:
        return ""


class Life:
    """The life of one task.

    :param arguments: what the operator is given.
    :param dies: asked at each boundary whether the process dies there.
    :param passes: told of each boundary that is passed, to let something happen in the world.
    :param fails: asked after the boundary before each write to Airflow, and each read, whether that fails.
    :param poll: ``"deferrable"`` for a trigger's own poll, or ``"shared poll"``.
    :param derived: whether the operator is derived from the package's, so that no triggerer ends the task.
    :param remembers: whether the store keeps what it is given.
    :param extra: what the connection's extra has besides.
    :param seed: what all that is random in a process is to follow.
    """

    def __init__(
        self,
        nursery: Nursery,
        simulator: Simulator,
        arguments: Mapping[str, Any],
        *,
        retries: int = 0,
        dies: Callable[[Boundary], bool] = never,
        passes: Callable[[Boundary], object] = never,
        fails: Callable[[Boundary], bool] = never,
        poll: str = "deferrable",
        derived: bool = False,
        remembers: bool = True,
        extra: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        self._nursery = nursery
        self.simulator = simulator
        self.api_key = simulator.api_key
        self._arguments = dict(arguments)
        self._retries = self._max_tries = retries
        self.dies = dies
        self.passes = passes
        self._fails = fails
        self._poll = poll
        self._derived = derived
        self._remembers = remembers
        self._extra = dict(extra or {})
        self._seed = seed
        self._processes = 0
        self._clear_number = 0
        self._run_began = datetime.now(timezone.utc)
        self._began = self._run_began
        self._requests = 0
        self._moved = False
        self.tries: list[Try] = []
        self.ends: list[End] = []
        self.clears: list[float] = []
        self.store: dict[str, str] = {}
        self.xcoms: dict[str, Any] = {}
        self.boundaries: list[Boundary] = []
        self.deaths: list[Boundary] = []
        self.history: list[str] = []

    # --- what Airflow does ---

    def run(self) -> End:
        """Run the task until it has ended: anew after a death or an error, as long as a retry is left."""
        while True:
            this = Try(len(self.tries) + 1, time.time())
            self.tries.append(this)
            self.xcoms.clear()
            self._moved = False
            self._began = datetime.now(timezone.utc)
            self._note(f"--- try {this.number} of {self._max_tries + 1}")
            this.end = end = self._try()
            self._note(f"--- {end}")
            may_retry = end.state == "died" or (end.state == "failed" and end.retries)
            if not may_retry or this.number > self._max_tries:
                self.ends.append(end if end.state != "died" else End("failed", error="died", at=end.at))
                return self.ends[-1]

    def clear(self) -> End:
        """Clear the task after its end, and run it again."""
        self._note("--- cleared")
        self.clears.append(time.time())
        self._max_tries = len(self.tries) + self._retries
        self._clear_number += 1
        return self.run()

    def _try(self) -> End:
        resume: Any = None
        while True:
            how, told = self._process("worker", self._worker(resume))
            if how == "return":
                return End("success", returned=told["value"])
            if how == "raise":
                state: Any = "skipped" if told["kind"] == "AirflowSkipException" else "failed"
                return End(state, error=told["kind"], message=told["message"], retries=told["retries"])
            if how == "died":
                return End("died")
            event = self._event(told["trigger"])
            if event["succeeds"]:
                return End("success", returned=self.xcoms.get("return_value"))
            resume = [told["method"], {**told["kwargs"], "event": event["payload"]}]

    def _event(self, trigger: Any) -> Any:
        while True:
            task = {"trigger": trigger, "poll": self._poll, "ti": {"try_number": len(self.tries)}}
            how, told = self._process("triggerer", task)
            if how == "event":
                return told
            # Another triggerer takes over what the one that died was waiting for.
            self._moved = True

    def _worker(self, resume: Any) -> dict[str, Any]:
        return {
            "arguments": {**self._arguments, "retries": self._retries},
            "derived": self._derived,
            "resume": resume,
            "ti": {
                "try_number": len(self.tries),
                "max_tries": self._max_tries,
                "start_date": self._began.isoformat(),
            },
            "dag_run": {"clear_number": self._clear_number, "start_date": self._run_began.isoformat()},
        }

    # --- what a process asks ---

    def _process(
        self, kind: Literal["worker", "triggerer"], task: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        self._processes += 1
        if self._seed is not None:
            task = {**task, "seed": f"{self._seed} {self._processes}"}
        with self._nursery.new() as end, end.makefile("rw", encoding="utf-8") as lines:
            dying = False
            while line := _line(lines):
                self._check_key(line)
                what, told = json.loads(line)
                answer: Any = None
                if what == "task":
                    answer = task
                elif what == "connection":
                    answer = self._connection()
                elif what == "at":
                    answer = dying = self._reach(told["boundary"], kind)
                elif what == "log":
                    self._note(f"[{told['level']}] {told['text']}")
                elif what in ("return", "raise", "defer", "event"):
                    self._note(f"{what} {json.dumps(told)}")
                    return what, told
                elif what == "broken":
                    raise Broken(told["traceback"])
                else:
                    answer = self._keep(what, **told)
                lines.write(json.dumps(answer) + "\n")
                lines.flush()
        if not dying:
            raise Broken(f"a {kind} died unplanned, after {self.boundaries[-1:]}")
        self._note(f"!!! the {kind} dies")
        return "died", {}

    def _keep(self, what: str, key: str, value: Any = None) -> list[Any] | str:
        """Return what is kept, in a list, or why it could not be kept."""
        self._note(f"{what} {key} {json.dumps(value)}")
        if self._fails(self.boundaries[-1]):
            self._note("!!! which fails")
            return f"Airflow could not do {what}."
        if what == "store.get":
            return [json.loads(self.store.get(key, "null"))]
        if what == "xcom.pull":
            return [self.xcoms.get(key)]
        if what == "store.set" and self._remembers:
            self.store[key] = json.dumps(value)
        elif what == "store.delete":
            self.store.pop(key, None)
        elif what == "xcom.push":
            again = self._moved and key == "return_value" and value == self.xcoms.get(key)
            if key in self.xcoms and not again and key != SHOWN:
                raise Broken(f"R30: {key} is pushed twice")
            self.xcoms[key] = value
        return [None]

    def _connection(self) -> dict[str, Any]:
        fields = self.simulator.connection()
        return {**fields, "password": self.api_key, "extra": {**fields["extra"], **self._extra}}

    def _check_key(self, line: str) -> None:
        if self.api_key in line or self.simulator.api_key in line:
            raise Broken("R34: a process shows the API key")

    def _reach(self, name: str, kind: Literal["worker", "triggerer"]) -> bool:
        boundary = Boundary(len(self.boundaries) + 1, name, kind)
        self.boundaries.append(boundary)
        self._note(f"{boundary.number}. {name}")
        self.passes(boundary)
        dies = self.dies(boundary)
        if name.endswith(": before"):
            self._requests = len(self.simulator.requests)
        elif dies and kind == "worker" and name.endswith(": sent"):
            # Who dies now has sent it all; only the simulator may not have read it yet.
            end = time.monotonic() + 5
            while len(self.simulator.requests) == self._requests:
                if time.monotonic() > end:
                    raise Broken(f"{name}, and it did not arrive")
                time.sleep(0.001)
        if dies:
            self.deaths.append(boundary)
        return dies

    def _note(self, text: str) -> None:
        self.history.append(f"{datetime.now():%S.%f} {text}")

    # --- what the world has seen ---

    @property
    def ours(self) -> list[Execution]:
        """The executions that came of the task's requests, oldest first."""
        return [execution for execution in self.simulator.world.executions if execution.by == "api"]

    def doubles(self) -> list[Execution]:
        """Return the executions that should not have been, as the one before them was not undone.

        It is undone if it never starts, if it has failed and another try came, or if somebody has cleared the
        task: after the end of the execution, or when the task did not wait for it.
        """
        waits = bool(self._arguments.get("wait_for_completion"))

        def justified(former: Execution, latter: Execution) -> bool:
            if former.outcome == "never starts":
                return True
            over = former.ended <= latter.queued
            cleared = any(former.queued < at <= latter.queued for at in self.clears)
            tried = any(former.queued < this.began <= latter.queued for this in self.tries)
            return (cleared and (over or not waits)) or (tried and over and former.outcome == "failed")

        return [latter for former, latter in pairwise(self.ours) if not justified(former, latter)]
