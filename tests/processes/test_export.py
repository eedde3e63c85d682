"""An export that is killed shows nothing, and its retry writes what an undisturbed one writes."""

from __future__ import annotations

import filecmp
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from .exporting import Server, Tries, die_after_file, serving, write_log

pytestmark = pytest.mark.long

SIZE = 100_000_000
"""Bytes of the log."""

FILES = ["logs.executions.jsonl", "logs.jsonl"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "log.json"
    write_log(log, SIZE)
    assert 0.9 * SIZE < log.stat().st_size < 1.1 * SIZE
    with serving(log) as server:
        yield server
    log.unlink()


@pytest.fixture(scope="module")
def tries(server: Server) -> Tries:
    return Tries(server.server_port)


@pytest.fixture(scope="module")
def undisturbed(server: Server, tries: Tries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with tries.begin(to(folder)):
        pass
    assert names(folder) == FILES
    assert (folder / "logs.jsonl").stat().st_size > SIZE / 2
    yield folder
    shutil.rmtree(folder)


def to(folder: Path) -> dict[str, str]:
    return {"output_path": str(folder / "logs.jsonl")}


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def retry(tries: Tries, folder: Path, undisturbed: Path) -> None:
    """Let the task be retried, and compare what it writes."""
    with tries.begin(to(folder)) as process:
        pass
    assert process.exitcode == 0
    assert names(folder) == FILES
    assert filecmp.cmpfiles(folder, undisturbed, FILES, shallow=False) == (FILES, [], [])
    shutil.rmtree(folder)


@pytest.mark.parametrize("tenth", range(11))
def test_r44_a_try_that_is_killed_is_made_up_for_by_its_retry(
    server: Server, tries: Tries, undisturbed: Path, tmp_path: Path, tenth: int
) -> None:
    with tries.begin(to(tmp_path)) as process:

        def kill(share: float) -> None:
            if share >= tenth / 10:
                process.kill()

        server.passed = kill
    server.passed = lambda share: None
    assert process.exitcode == -signal.SIGKILL
    assert not set(names(tmp_path)) & set(FILES)
    retry(tries, tmp_path, undisturbed)


def test_r44_a_try_that_is_killed_between_both_files_is_made_up_for(
    tries: Tries, undisturbed: Path, tmp_path: Path
) -> None:
    with tries.begin(to(tmp_path), partial(die_after_file, FILES[0])) as process:
        pass
    assert process.exitcode == -signal.SIGKILL
    first, *left = sorted(names(tmp_path), reverse=True)
    assert first == FILES[0]
    assert len(left) == 1
    retry(tries, tmp_path, undisturbed)
