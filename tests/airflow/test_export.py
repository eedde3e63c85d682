"""LogsOperator writes tables of logs to files, on a disk and in S3, which are seen when they are complete."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, ObjectStoragePath
from pyarrow import parquet

from airflow_provider_timextender import errors, files
from airflow_provider_timextender.hooks import TimeXtenderHook
from airflow_provider_timextender.operators import LogsOperator
from airflow_provider_timextender.simulator import DIALECTS, Dialect, Fault, Job, Simulator

pytestmark = pytest.mark.usefixtures("_task_log")

ROWS = {"load": 10, "other": 5}
"""How many log lines each job has."""


@pytest.fixture(autouse=True)
def _past(simulator: Simulator) -> None:
    """Two jobs that have run: one twice, with a failure, and one by hand."""
    other = Job("other", warnings=2)
    simulator.world.jobs[other.id] = other
    simulator.past("load", ago=7200)
    simulator.past("load", "failed", ago=3600)
    simulator.past("other", by="hand")


def export(path: Any, context: Any, **arguments: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"task_id": "t", "output_path": str(path)}
    if not {"job_id", "job_ids", "job_names", "all_jobs"} & set(arguments):
        defaults["job_name"] = "load"
    told: dict[str, Any] = LogsOperator(**{**defaults, **arguments}).execute(context)
    assert json.loads(json.dumps(told)) == told
    assert len(json.dumps(told)) < 1024
    return told


def lines_of(path: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_r34_a_job_is_written_to_two_files_and_the_result_tells_where_they_are(
    tmp_path: Path, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path, beside = tmp_path / "new/logs.jsonl", tmp_path / "new/logs.executions.jsonl"
    told = export(path, context)
    lines, executions = lines_of(path), lines_of(beside)
    times = sorted(line["time"] for line in lines)
    assert told == {
        "path": str(path),
        "executions_path": str(beside),
        "bytes": path.stat().st_size + beside.stat().st_size,
        "jobs": 1,
        "executions": len(executions),
        "rows": len(lines),
        "first_time": times[0],
        "last_time": times[-1],
    }
    assert names(path.parent) == [beside.name, path.name]
    assert [(e["state"], e["errors"], e["warnings"]) for e in executions] == [
        ("succeeded", 0, 1),
        ("failed", 2, 1),
    ]
    assert {line["execution_key"] for line in lines} == {e["execution_key"] for e in executions}
    assert f"Written to {path}: jobs 1, executions 2, rows 10." in caplog.text
    assert "are taken to be in UTC (assumed" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        ({"job_names": ["other"]}, ["other"]),
        ({"job_names": ["other", "load"]}, ["other", "load"]),
        ({"job_names": ["load"], "job_ids": "ids"}, ["other", "load"]),
        ({"job_id": "id"}, ["load"]),
        ({"all_jobs": True}, ["load", "other"]),
        ({"all_jobs": "true"}, ["load", "other"]),
    ],
)
def test_jobs_are_told_in_several_ways(
    simulator: Simulator, tmp_path: Path, context: Any, arguments: dict[str, Any], jobs: list[str]
) -> None:
    if "job_ids" in arguments:  # one of them by id in upper case, and by name as well
        arguments = {**arguments, "job_ids": [simulator.job(name).id.upper() for name in ("other", "load")]}
    if "job_id" in arguments:
        arguments = {"job_id": simulator.job("load").id}
    path = tmp_path / "logs.jsonl"
    told = export(path, context, **arguments)
    assert (told["jobs"], told["rows"]) == (len(jobs), sum(ROWS[name] for name in jobs))
    assert list(dict.fromkeys(line["job_name"] for line in lines_of(path))) == jobs


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "Give a job id or a job name, .* all_jobs=True"),
        ({"job_name": "load", "output_schema": "logs"}, "output_schema is given without an output_conn_id"),
        ({"job_name": "load", "all_jobs": True}, "; only one of these"),
        ({"job_name": "load", "job_names": ["other"]}, "; only one of these"),
        ({"job_name": None}, "job_name was given, but is None at run time"),
        ({"job_names": None}, "job_names was given, but is None at run time; it takes a list"),
        ({"job_ids": []}, r"job_ids was given, but is \[\] at run time"),
        ({"job_names": "['load']"}, r"job_names was given, but is .* render_template_as_native_obj=True"),
        ({"job_names": ["load", None]}, "job_name was given, but is None at run time"),
        ({"job_ids": ["load"]}, "job id 'load' is not a guid"),
        ({"all_jobs": None}, "all_jobs is None; it takes true or false"),
        ({"all_jobs": True, "trigger_id": "x"}, "Give the one job to which"),
        ({"all_jobs": True, "output_path": None}, "output_path was given, but is None"),
        ({"all_jobs": True, "output_path": "logs.jsonl"}, "it takes an absolute path, or an address"),
        ({"all_jobs": True, "output_path": "/tmp/logs.xml"}, r"ends with \.jsonl"),
        (
            {"all_jobs": True, "output_path": "s4://a/logs.jsonl"},
            r"'s4://a/logs.jsonl'.*Install the provider",
        ),
        (
            {"all_jobs": True, "output_path": "gs://a/logs.jsonl"},
            r"'gs://a/logs.jsonl'.*Install the provider",
        ),
        ({"all_jobs": True, "output_path": f"{__file__}/logs.jsonl"}, "cannot be written: .* exists"),
        ({"all_jobs": True, "state": None}, "state was given, but is None"),
        (
            {"all_jobs": True, "state": "done"},
            "state is 'done'; it takes running, succeeded, failed, or several.$",
        ),
        ({"all_jobs": True, "state": "['failed']"}, "or several. A template .*_as_native_obj=True"),
        ({"all_jobs": True, "since": "yesterday"}, "since is 'yesterday'"),
        ({"all_jobs": True, "since": "2026-01-02", "until": "2026-01-01"}, "after until, '2026-01-01'"),
        ({"all_jobs": True, "min_severity": ["error"]}, r"min_severity is \['error'\]; it takes debug"),
        ({"job_name": "load", "trigger_id": "x"}, "trigger id 'x' is not a guid"),
        ({"all_jobs": True, "message_pattern": "("}, "not a regular expression"),
        ({"all_jobs": True, "message_pattern": "(?P<time>x)"}, "has a group named 'time'"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(
    simulator: Simulator, tmp_path: Path, context: Any, arguments: dict[str, Any], says: str
) -> None:
    operator = LogsOperator(**{"task_id": "t", "output_path": str(tmp_path / "logs.jsonl"), **arguments})
    with pytest.raises(AirflowFailException, match=says):
        operator.execute(context)
    assert not simulator.requests
    assert names(tmp_path) == []


@pytest.mark.parametrize("native", [True, False])
def test_a_template_renders_a_list_where_the_dag_says_so(tmp_path: Path, context: Any, native: bool) -> None:
    with DAG("d", schedule=None, render_template_as_native_obj=native):
        operator = LogsOperator(
            task_id="t",
            job_names="{{ params.names }}",
            state="{{ params.states }}",
            output_path=str(tmp_path / "logs.jsonl"),
        )
    operator.render_template_fields({"params": {"names": ["load", "other"], "states": ["failed"]}})
    if native:
        assert operator.execute(context)["executions"] == 1
    else:
        with pytest.raises(AirflowFailException, match="render_template_as_native_obj=True"):
            operator.execute(context)


@pytest.mark.parametrize("name", ["logs.jsonl", "logs.executions.jsonl"])
@pytest.mark.parametrize("incremental", [True, False])
def test_a_folder_of_the_name_of_a_file_is_refused_before_anything_is_sent(
    simulator: Simulator, tmp_path: Path, context: Any, name: str, incremental: bool
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(AirflowFailException, match=rf"{name}' cannot be written: .*{name} is a folder"):
        export(tmp_path / "logs.jsonl", context, incremental=incremental)
    assert not simulator.requests
    assert names(tmp_path) == [name]


def test_several_jobs_do_not_go_into_an_xcom(simulator: Simulator, context: Any) -> None:
    with pytest.raises(AirflowFailException, match="Give an output_path"):
        LogsOperator(task_id="t", all_jobs=True).execute(context)
    assert not simulator.requests


def test_r48_a_missing_pyarrow_is_told_with_the_extra_before_anything_is_read(
    simulator: Simulator, tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(AirflowFailException, match=r"timextender\[parquet\]"):
        export(tmp_path / "logs.parquet", context)
    assert not simulator.requests


def test_executions_and_lines_are_chosen(simulator: Simulator, tmp_path: Path, context: Any) -> None:
    path = tmp_path / "logs.jsonl"
    _, failed, _ = simulator.world.executions
    by_id = export(path, context, trigger_id=failed.trigger_id)
    assert {line["trigger_id"] for line in lines_of(path)} == {failed.trigger_id}
    by_state = export(path, context, state=["failed"])
    assert by_state == by_id
    since = export(path, context, since=f"{failed_start(failed):%Y-%m-%dT%H:%M:%S}")
    assert since == by_id
    until = export(path, context, until=str(failed_start(failed)), state="running")
    assert (until["executions"], until["rows"], until["first_time"]) == (0, 0, None)
    worst = export(path, context, min_severity="error", message_pattern="column (name )?'(?P<column>.+?)'")
    assert [line["column"] for line in lines_of(path)] == ["CustomerKey"] * 2
    assert (worst["executions"], worst["rows"]) == (2, 2)


def failed_start(execution: Any) -> datetime:
    return datetime.fromtimestamp(int(execution.started), timezone.utc)


def test_a_trigger_id_that_is_not_there_writes_nothing(tmp_path: Path, context: Any) -> None:
    with pytest.raises(errors.ExecutionNotFound):
        export(tmp_path / "logs.jsonl", context, trigger_id="1" * 32)
    assert names(tmp_path) == []


@pytest.mark.parametrize("mine", [True, False])
def test_times_without_an_offset_are_in_the_timezone_of_the_connection(
    simulator: Simulator,
    tmp_path: Path,
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mine: bool,
) -> None:
    path = tmp_path / "logs.jsonl"
    export(path, context)
    right = [line["time"][:19] for line in lines_of(path)]
    simulator.dialect = Dialect(times="naive", timezone="Asia/Tokyo")
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json(explained=mine))
    export(path, context)
    times = [line["time"][:19] for line in lines_of(path)]
    assert (times == right) is mine
    assert ("in Asia/Tokyo." in caplog.text) is mine


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_has_the_same_rows(
    simulator: Simulator, tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    path = tmp_path / "logs.jsonl"
    export(path, context, job_names=["load", "other"])
    right = [(line["message"], line["severity"]) for line in lines_of(path)]
    simulator.dialect = DIALECTS[dialect]
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
    export(path, context, job_names=["load", "other"])
    assert sorted((line["message"], line["severity"]) for line in lines_of(path)) == sorted(right)


# --- what goes wrong ---


def test_a_job_that_is_refused_is_named_at_the_end_and_the_rest_is_written(
    simulator: Simulator, tmp_path: Path, context: Any
) -> None:
    path = tmp_path / "logs.jsonl"
    simulator.fault("logs", Fault("status", status=403, body="Not for you."))
    with pytest.raises(AirflowFailException) as raised:
        export(path, context, job_names=["load", "other", "nobody"])
    said = str(raised.value)
    assert "2 of 3 jobs could not be read; the others are in" in said
    assert "'load': " in said
    assert "Not for you." in said
    assert "'nobody'" in said
    assert {line["job_name"] for line in lines_of(path)} == {"other"}
    assert names(tmp_path) == ["logs.executions.jsonl", "logs.jsonl"]


def test_a_failure_that_may_pass_lets_the_task_be_retried(
    simulator: Simulator, tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimeXtenderHook.__init__, "__kwdefaults__", {"max_unreachable": 0})
    simulator.fault("logs", Fault("html"), always=Fault("status", status=400))
    with pytest.raises(errors.LogsIncomplete, match="nothing is written"):
        export(tmp_path / "logs.jsonl", context, all_jobs=True)
    simulator.heal()
    assert export(tmp_path / "logs.jsonl", context, all_jobs=True)["jobs"] == 2


def test_after_a_failure_the_old_files_are_there_and_no_temporary_one(
    simulator: Simulator, tmp_path: Path, context: Any
) -> None:
    path = tmp_path / "logs.csv"
    export(path, context)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    simulator.fault("logs", always=Fault("status", status=404))
    with pytest.raises(AirflowFailException, match="404"):
        export(path, context)
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


@pytest.mark.parametrize(
    ("renamed", "arguments", "says"),
    [
        ({"Timestamp": "Moment"}, {"since": "2026-01-01"}, "fields.*log.time"),
        ({"Severity": "Weight"}, {"min_severity": "error"}, "fields.*log.severity"),
        ({"State": "Result"}, {"state": "failed"}, "fields.*execution.state"),
    ],
)
def test_r48_a_filter_by_what_no_answer_carries_names_the_override(
    simulator: Simulator,
    tmp_path: Path,
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    renamed: dict[str, str],
    arguments: dict[str, Any],
    says: str,
) -> None:
    simulator.dialect = Dialect(renamed=renamed)
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json(explained=False))
    with pytest.raises(AirflowFailException, match=says):
        export(tmp_path / "logs.jsonl", context, **arguments)
    assert names(tmp_path) == []
    if "state" not in arguments:
        with pytest.raises(AirflowFailException, match=says):  # to an XCom as well
            LogsOperator(task_id="t", job_name="load", **arguments).execute(context)
    monkeypatch.setenv("AIRFLOW_CONN_TIMEXTENDER_DEFAULT", simulator.connection_json())
    assert export(tmp_path / "logs.jsonl", context, **arguments)["rows"]


# --- formats and places ---


def read(path: Any, suffix: str) -> list[dict[str, Any]]:
    content = path.read_bytes()
    if suffix == "parquet":
        with path.open("rb") as file:
            rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
        return rows
    if suffix.endswith(".gz"):
        content = gzip.decompress(content)
    if suffix.startswith("csv"):
        return list(csv.DictReader(content.decode().splitlines()))
    return [json.loads(line) for line in content.splitlines()]


SUFFIXES = ["jsonl", "jsonl.gz", "csv", "csv.gz", "parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffix_tells_the_format(tmp_path: Path, context: Any, suffix: str) -> None:
    plain, path = tmp_path / "plain.jsonl", tmp_path / f"logs.{suffix}"
    export(plain, context)
    export(path, context)
    for beside in ("", ".executions"):
        rows = read(tmp_path / f"logs{beside}.{suffix}", suffix)
        right = lines_of(tmp_path / f"plain{beside}.jsonl")
        assert [row["message"] for row in rows] == [row["message"] for row in right]
        assert [list(row) for row in rows] == [list(row) for row in right]


def keys(client: Any) -> list[str]:
    return [item["Key"] for item in client.list_objects_v2(Bucket="bucket").get("Contents", [])]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_are_written_to_s3(s3: Any, tmp_path: Path, context: Any, suffix: str) -> None:
    path = f"s3://store@bucket/{suffix}/logs.{suffix}"
    told = export(path, context)
    local = export(tmp_path / f"logs.{suffix}", context)
    assert {**local, "path": told["path"], "executions_path": told["executions_path"]} == told
    for name in ("path", "executions_path"):
        assert told[name].startswith("s3://store@bucket/")
        assert ObjectStoragePath(told[name]).read_bytes() == Path(local[name]).read_bytes()


def test_nothing_is_seen_in_s3_of_an_export_that_fails(
    simulator: Simulator, s3: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []

    def fail(self: files.Files) -> dict[str, Any]:
        begun.extend(upload["Key"] for upload in s3.list_multipart_uploads(Bucket="bucket")["Uploads"])
        raise OSError("no route to the store")

    monkeypatch.setattr(files.Files, "complete", fail)
    monkeypatch.setattr(files, "BLOCK", 5 * 1024 * 1024)  # the smallest part that S3 takes
    simulator.job("load").message = "x" * 1_500_000
    for _ in range(5):
        simulator.past("load", "failed")
    before = keys(s3)
    with pytest.raises(OSError, match="no route"):
        export("s3://store@bucket/new/logs.jsonl", context)
    assert "new/logs.jsonl" in begun
    assert keys(s3) == before
    assert not s3.list_multipart_uploads(Bucket="bucket").get("Uploads")
