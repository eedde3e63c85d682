"""LogsOperator puts out only what is new, remembers that in Airflow, and tells it with its asset."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, Asset

from airflow_provider_timextender import files, remembering
from airflow_provider_timextender.errors import OutputRefused
from airflow_provider_timextender.increments import Ledger
from airflow_provider_timextender.inputs import NOT_GIVEN
from airflow_provider_timextender.operators import LogsOperator
from airflow_provider_timextender.simulator import Dialect, Job, Simulator
from airflow_provider_timextender.simulator.world import Execution, Line, World

from ..months import T0, Course, Death, Month, Row, TimeXtender
from .running import SHARES, sqlite_at
from .stand_ins import Store, TaskInstance

LOGS = Asset("timextender_logs")


class Variables:
    """Airflow's Variables, in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def get(self, key: str, default: Any) -> Any:
        return self.kept.get(key, default)

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value

    def delete(self, key: str) -> None:
        del self.kept[key]


@dataclass
class RealTask:
    """The operator against the simulator, with files and a memory that outlive its runs.

    :ivar stores: whether Airflow has state stores, as from 3.3 on.
    :ivar dies_at: the touch of the memory or the files at which the process dies.
    """

    simulator: Simulator
    timextender: TimeXtender
    folder: Path
    stores: bool
    keyed = False
    asset: Store = field(default_factory=Store)
    own: dict[str, Store] = field(default_factory=dict)
    dies_at: int = 0
    touches: int = 0

    def touch(self) -> None:
        self.touches += 1
        if self.touches == self.dies_at:
            raise Death

    def attempt(self, run: str, now: float, *, dies_at: int = 0, unreadable: str = "") -> str:
        self.dies_at, self.touches = dies_at, 0
        self.simulator.world = world_at(self.timextender, now)
        ti = TaskInstance()
        ti.run_id = run
        operator = LogsOperator(
            task_id="t",
            job_ids=list(self.timextender.jobs),
            output_path=str(self.folder / f"{run}.jsonl"),
            incremental=True,
            outlets=[LOGS],
        )
        context: Any = {"ti": ti, "task": operator, "outlet_events": {LOGS: SimpleNamespace(extra={})}}
        if self.stores:
            context["task_state_store"] = self.own.setdefault(run, Store())
            context["asset_state_store"] = {LOGS: self.asset}
        try:
            told = operator.execute(context)
        except AirflowSkipException:
            return "skipped"
        except AirflowFailException as error:
            raise OutputRefused(str(error)) from None
        assert context["outlet_events"][LOGS].extra == told
        return "success"

    def shown(self, run: str) -> Counter[Row]:
        return sum(
            (rows_of(self.folder / name) for name in (f"{run}.jsonl", f"{run}.executions.jsonl")), Counter()
        )

    def union(self) -> Counter[Row]:
        return sum((rows_of(path) for path in self.folder.glob("[!.]*")), Counter())


def rows_of(path: Path) -> Counter[Row]:
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if path.name.endswith(".executions.jsonl"):
        return Counter((row["execution_key"],) for row in rows)
    return Counter((row["execution_key"], row["line"], row["message"]) for row in rows)


def world_at(timextender: TimeXtender, now: float) -> World:
    """Return what the simulator shows at a moment of the month."""
    jobs = {job_id: Job(job_id, id=job_id) for job_id in timextender.jobs}
    world = World(list(jobs.values()))
    for job_id, courses in timextender.jobs.items():
        for course in courses:
            if course.shown <= now:
                world._places[job_id].append(len(world.executions))
                world.executions.append(execution_of(course, jobs[job_id], now))
    return world


def execution_of(course: Course, job: Job, now: float) -> Execution:
    seen = course.seen(job.id, now)
    start = T0.timestamp() + course.start
    return Execution(
        job=job,
        trigger_id=course.trigger_id,
        queued=start,
        started=start,
        ended=seen.end.timestamp() if seen.end else 5e9,
        outcome="succeeded",
        message="Job completed.",
        lines=tuple(
            Line(T0.timestamp() + time, "info", log.message)
            for (time, _), log in zip(course.lines, seen.logs, strict=False)
        ),
    )


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> Callable[[RealTask], None]:
    """A way to let a task die at each touch of its memory and its files."""

    def arrange(task: RealTask) -> None:
        variables = Variables()
        monkeypatch.setattr(remembering, "Variable", variables)
        for place, name in (
            (Variables, "set"),
            (Store, "set"),
            (files.Files, "seen"),
            (files._Local, "finish"),
        ):
            monkeypatch.setattr(place, name, touching(task, getattr(place, name)))

    return arrange


def touching(task: RealTask, real: Callable[..., Any]) -> Callable[..., Any]:
    def touch(*given: Any, **named: Any) -> Any:
        task.touch()
        return real(*given, **named)

    return touch


@pytest.mark.parametrize("seed", range(4))
def test_r44_files_of_some_days_hold_the_whole_truth_and_no_row_twice(
    seed: int, simulator: Simulator, tmp_path: Path, mortal: Callable[[RealTask], None]
) -> None:
    chance = random.Random(seed)
    task = RealTask(simulator, TimeXtender.of(chance, days=6), tmp_path, stores=SHARES and seed % 2 == 0)
    mortal(task)
    month = Month(task, chance, days=6, touches=14)
    month.live()
    assert month.happened.keys() > {"try: success", "try: dead", "try: skipped"}


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Variables:
    monkeypatch.setattr(remembering, "Variable", kept := Variables())
    return kept


def put_out(context: Any, path: Path | str, **arguments: Any) -> dict[str, Any]:
    """Run the operator once, as the run that the path is named after."""
    context["ti"].run_id = Path(path).stem
    given: dict[str, Any] = {"job_name": "load", "incremental": True, "output_path": str(path), **arguments}
    operator = LogsOperator(task_id="t", **given)
    context |= {"task": operator, "outlet_events": {LOGS: SimpleNamespace(extra={"mine": 1})}}
    told: dict[str, Any] = operator.execute(context)
    return told


def test_what_is_new_is_told_with_the_asset_and_nothing_new_skips_the_task(
    simulator: Simulator, tmp_path: Path, context: Any, variables: Variables
) -> None:
    simulator.past("load", ago=60)
    told = put_out(context, tmp_path / "a.jsonl", outlets=[LOGS])
    assert context["outlet_events"][LOGS].extra == {**told, "mine": 1}
    assert len(json.dumps(told)) < 2048
    assert told["rows"] == 4
    with pytest.raises(AirflowSkipException, match="Nothing is new"):
        put_out(context, tmp_path / "b.jsonl", outlets=[LOGS])
    assert context["outlet_events"][LOGS].extra == {"mine": 1}
    simulator.past("load", "failed", ago=30)
    assert put_out(context, tmp_path / "c.jsonl", min_severity="error")["rows"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.executions.jsonl", "a.jsonl", "c.executions.jsonl", "c.jsonl",
    ]  # fmt: skip


def test_r44_of_a_database_only_what_is_new_is_written_and_a_repeat_changes_nothing(
    simulator: Simulator,
    tmp_path: Path,
    context: Any,
    variables: Variables,
    monkeypatch: pytest.MonkeyPatch,
    mocker: Any,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DWH", sqlite_at(tmp_path))
    there: dict[str, Any] = {"output_path": NOT_GIVEN, "output_conn_id": "dwh"}
    simulator.past("load", ago=60)
    assert put_out(context, Path("a"), **there)["rows"] == 4
    with pytest.raises(AirflowSkipException, match="Nothing is new"):
        put_out(context, Path("b"), **there)
    simulator.past("load", "failed", ago=30)
    # The try dies when the rows are there, and before that is remembered.
    mocker.patch.object(Ledger, "completed", side_effect=Death)
    with pytest.raises(Death):
        put_out(context, Path("c"), **there)
    mocker.stopall()
    assert put_out(context, Path("c"), **there)["rows"] == 6
    with sqlite3.connect(tmp_path / "logs.db") as database:
        counts = (
            "SELECT (SELECT count(*) FROM timextender_lines), (SELECT count(*) FROM timextender_executions)"
        )
        assert database.execute(counts).fetchone() == (10, 2)


def test_r44_of_an_object_store_a_try_after_a_death_replaces_what_it_had_put_out(
    simulator: Simulator, s3: Any, context: Any, variables: Variables, mocker: Any
) -> None:
    folder = "s3://store@bucket/new"
    simulator.past("load", ago=60)
    assert put_out(context, f"{folder}/a.jsonl")["rows"] == 4
    with pytest.raises(AirflowSkipException, match="Nothing is new"):
        put_out(context, f"{folder}/b.jsonl")
    simulator.past("load", "failed", ago=30)
    # The try dies when the files can be seen, and before that is remembered.
    mocker.patch.object(Ledger, "completed", side_effect=Death)
    with pytest.raises(Death):
        put_out(context, f"{folder}/c.jsonl")
    mocker.stopall()
    simulator.past("load", ago=20)
    assert put_out(context, f"{folder}/c.jsonl")["rows"] == 6
    assert put_out(context, f"{folder}/d.jsonl")["rows"] == 4
    found = s3.list_objects_v2(Bucket="bucket", Prefix="new/")["Contents"]
    assert [item["Key"] for item in found] == [
        f"new/{name}.{kind}" for name in "acd" for kind in ("executions.jsonl", "jsonl")
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"incremental": "now"}, "incremental is 'now'; it takes true or false"),
        ({"output_path": NOT_GIVEN}, "output_path"),
        ({"trigger_id": "3f2504e0-4f89-11d3-9a0c-0305e82c3301"}, "neither trigger_id nor until"),
        ({"until": "2026-01-01"}, "neither trigger_id nor until"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    arguments: Any, says: str, simulator: Simulator, tmp_path: Path, context: Any
) -> None:
    with pytest.raises(AirflowFailException, match=says):
        put_out(context, tmp_path / "a.jsonl", **arguments)
    assert simulator.count("logs") == 0


def test_r48_a_log_without_times_is_refused_and_names_the_override(
    simulator: Simulator,
    tmp_path: Path,
    context: Any,
    variables: Variables,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator.dialect = Dialect(renamed={"StartTime": "Dawn", "EndTime": "Dusk"})
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json(explained=False))
    simulator.past("load", ago=60)
    says = r"'load': ContractError: incremental needs times.* vocabulary\.fields\.execution\.start and \.end"
    with pytest.raises(AirflowFailException, match=says):
        put_out(context, tmp_path / "a.jsonl")
    assert (list(tmp_path.iterdir()), variables.kept) == ([], {})
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
    assert put_out(context, tmp_path / "a.jsonl")["rows"] == 4


def test_only_one_run_of_the_task_is_active_unless_somebody_says_otherwise() -> None:
    assert LogsOperator(task_id="t", incremental=True).max_active_tis_per_dag == 1
    assert LogsOperator(task_id="t", incremental=True, max_active_tis_per_dag=2).max_active_tis_per_dag == 2
    assert LogsOperator(task_id="t").max_active_tis_per_dag is None
    assert LogsOperator(task_id="t", incremental="{{ params.new }}").max_active_tis_per_dag == 1


def test_a_template_may_say_that_all_is_written(
    simulator: Simulator, tmp_path: Path, context: Any, variables: Variables
) -> None:
    assert "incremental" in LogsOperator.template_fields
    simulator.past("load", ago=60)
    rows = [put_out(context, tmp_path / f"{n}.jsonl", incremental="False")["rows"] for n in range(2)]
    assert rows[0] == rows[1] > 0
    assert not variables.kept


def test_a_job_that_cannot_be_read_is_made_up_for(
    simulator: Simulator, tmp_path: Path, context: Any, variables: Variables
) -> None:
    simulator.past("load", ago=60)
    lost = Job("lost")
    jobs = {"job_name": NOT_GIVEN, "job_names": ["load", "lost"]}
    with pytest.raises(AirflowFailException, match="the others are in"):
        put_out(context, tmp_path / "a.jsonl", **jobs)
    first = rows_of(tmp_path / "a.jsonl")
    assert len(first) == 4
    with pytest.raises(AirflowFailException, match="stays as it is"):
        put_out(context, tmp_path / "a.jsonl", **jobs)
    assert rows_of(tmp_path / "a.jsonl") == first
    simulator.world.jobs[lost.id] = lost
    simulator.past("lost", ago=60)
    assert put_out(context, tmp_path / "a.jsonl", **jobs)["rows"] == 7
    with pytest.raises(AirflowSkipException):
        put_out(context, tmp_path / "b.jsonl", **jobs)


def test_the_memory_moves_from_a_variable_to_the_asset(
    simulator: Simulator, tmp_path: Path, context: Any, variables: Variables
) -> None:
    simulator.past("load", ago=60)
    put_out(context, tmp_path / "a.jsonl", outlets=[LOGS])
    (key,) = variables.kept
    assert key == f"timextender_increment:t.t:{simulator.job('load').id}"
    store = Store()
    context |= {"asset_state_store": {LOGS: store}, "task_state_store": Store()}
    with pytest.raises(AirflowSkipException):
        put_out(context, tmp_path / "b.jsonl", outlets=[LOGS])
    assert (variables.kept, list(store.kept)) == ({}, [key])
    store.kept[key] = {"run": 1}
    with pytest.raises(AirflowFailException, match=rf"'{key}', a state of the task's asset\. Delete it"):
        put_out(context, tmp_path / "b.jsonl", outlets=[LOGS])


def test_a_key_is_never_too_long(context: Any) -> None:
    context["ti"].dag_id = context["ti"].task_id = "a" * 250
    memory = remembering.TaskMemory(context)
    assert len({memory._key(job) for job in "abc"}) == 3
    assert len(memory._key("a")) <= remembering.LONGEST_KEY
