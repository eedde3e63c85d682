"""Files of logs are seen when they are complete, and nothing is left of those that are not."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_timextender.errors import InvalidInput, TimeXtenderError
from airflow_provider_timextender.files import BLOCK, Files
from airflow_provider_timextender.tables import EXECUTIONS, LINES

ROW = {**{column.name: None for column in (*LINES, *EXECUTIONS)}, "message": "text"}
AS_JSON = json.dumps(ROW, separators=(",", ":")) + "\n"
TASK = ("dag", "task", "run", -1)


class OnDisk:
    """What is used of an ObjectStoragePath."""

    protocol = "file"

    def __init__(self, path: Path) -> None:
        self.path, self.name = str(path), path.name

    def with_name(self, name: str) -> OnDisk:
        return type(self)(Path(self.path).with_name(name))

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"


def begun(path: Path, task: Any = TASK) -> Files:
    files = Files(OnDisk(path), task)
    files.begin(LINES)
    files.write_lines([ROW])
    files.write_execution(ROW)
    return files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_both_are_seen_when_they_are_complete_and_replace_others(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/logs.jsonl"
    files = begun(path)
    assert not [name for name in names(path.parent) if not name.startswith(".")]
    assert files.complete() == {
        "path": f"file://{path}",
        "executions_path": f"file://{path.with_name('logs.executions.jsonl')}",
        "bytes": 2 * len(AS_JSON),
    }
    assert names(path.parent) == ["logs.executions.jsonl", "logs.jsonl"]
    path.write_text("old")
    begun(path).complete()
    assert path.read_text() == AS_JSON
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_the_executions_are_seen_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "logs.csv"
    seen = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    begun(path).complete()
    assert seen == ["logs.executions.csv", "logs.csv"]


def test_nothing_is_left_of_what_is_discarded_and_the_old_stays(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl.gz"
    path.write_text("old")
    begun(path).discard()
    assert names(tmp_path) == ["logs.jsonl.gz"]
    assert path.read_text() == "old"
    files = begun(path)
    files.complete()
    files.discard()
    assert names(tmp_path) == ["logs.executions.jsonl.gz", "logs.jsonl.gz"]


def test_another_try_removes_what_a_killed_one_has_left_and_other_tasks_do_not(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl"
    killed, other = begun(path), begun(path, ("dag", "task", "run", 1))
    left = names(tmp_path)
    assert len(left) == 4
    again = begun(path)
    assert names(tmp_path) == left
    again.complete()
    assert len(names(tmp_path)) == 4
    other.discard()
    killed.discard()
    assert names(tmp_path) == ["logs.executions.jsonl", "logs.jsonl"]


def test_a_try_that_lives_on_does_not_spoil_what_another_writes(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl"
    lives_on = begun(path)
    again = begun(path)
    lives_on.write_lines([{**ROW, "message": "of the old try"}] * 100)
    with pytest.raises(TimeXtenderError, match=r"Another try of this task has begun to write .*logs"):
        lives_on.complete()
    lives_on.discard()
    again.complete()
    assert names(tmp_path) == ["logs.executions.jsonl", "logs.jsonl"]
    assert path.read_text() == AS_JSON


def test_a_format_that_is_not_known_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"logs\.xlsx"):
        Files(OnDisk(tmp_path / "logs.xlsx"), TASK)
    assert names(tmp_path) == []


# --- object stores ---


class Upload:
    """A file of fsspec, as S3's, GCS's and ADLS's are: it is seen when it is closed."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key, self.content, self.closed = store, key, b"", False

    def write(self, data: bytes) -> int:
        self.content += data
        return len(data)

    def tell(self) -> int:
        return len(self.content)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.store.seen[self.key] = self.content

    def discard(self) -> None:
        self.store.aborted.append(self.key)

    def __del__(self) -> None:
        self.close()


class Store:
    """What is used of a file system of fsspec."""

    def __init__(self) -> None:
        self.seen: dict[str, bytes] = {}
        self.aborted: list[str] = []

    def open(self, key: str, mode: str, *, block_size: int) -> Upload:
        assert (mode, block_size) == ("wb", BLOCK)
        return Upload(self, key)


class InStore(OnDisk):
    """A path in an object store."""

    protocol = "s3"
    fs = Store()


def test_an_object_is_seen_when_its_upload_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    monkeypatch.setattr(InStore, "fs", store)
    for suffix in ("jsonl", "csv.gz", "parquet"):
        store.seen.clear()
        files = Files(InStore(Path(f"bucket/logs.{suffix}")), TASK)
        files.begin(LINES)
        files.write_lines([ROW])
        assert not store.seen
        told = files.complete()
        assert list(store.seen) == [f"bucket/logs.executions.{suffix}", f"bucket/logs.{suffix}"]
        assert told["bytes"] == sum(map(len, store.seen.values()))
        files.discard()
    assert not store.aborted


def test_an_upload_that_is_discarded_is_aborted_and_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    monkeypatch.setattr(InStore, "fs", store)
    files = Files(InStore(Path("bucket/logs.jsonl")), TASK)
    files.begin(LINES)
    files.write_lines([ROW])
    files.discard()
    del files
    assert (store.seen, store.aborted) == ({}, ["bucket/logs.executions.jsonl", "bucket/logs.jsonl"])
