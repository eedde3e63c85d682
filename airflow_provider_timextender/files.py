"""Files of logs, on a disk or in an object store: they are seen when they are complete, and not before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from airflow_provider_timextender.errors import InvalidInput, TimeXtenderError
from airflow_provider_timextender.formats import Writer, format_of
from airflow_provider_timextender.increments import Seen
from airflow_provider_timextender.tables import EXECUTIONS, Column, Row

BLOCK = 8 * 1024 * 1024
"""How many bytes are sent to an object store at a time. S3 takes ten thousand of them, which makes 80 GB."""

ON_DISK = ("", "file", "local")
"""The protocols of paths of this machine."""


class File(Protocol):
    """A file that is being written.

    :ivar stream: where to.
    """

    stream: BinaryIO

    def finish(self) -> None:
        """Let it be seen, in place of what may be there under its name."""

    def discard(self) -> None:
        """Leave nothing of it, unless it is to be seen already."""


class Files:
    """The files of an export: one for lines, and one for executions beside it.

    The one for executions is finished first: who sees the lines sees their executions, too.

    :param path: of the one for lines, an Airflow ``ObjectStoragePath``; the other one's name has
        ``.executions`` before the suffix.
    :param task: what tells this run of a task from others, and is the same in each try of it.
    :raises InvalidInput: if no format is known that the name asks for, or what writes it is missing.
    """

    def __init__(self, path: Any, task: Sequence[Any]) -> None:
        self._format = format_of(path.name)
        self._mark = hashlib.sha256(json.dumps(task).encode()).hexdigest()[:12]
        self._paths = _pair(path)
        self._files: list[File] = []
        self._writers: list[Writer] = []

    @property
    def where(self) -> str:
        """Where the lines are, for people."""
        return str(self._paths[1])

    def seen(self, where: str) -> Seen:
        """Tell what can be seen of the files whose lines are somewhere."""
        executions, lines = _pair(type(self._paths[1])(where))
        return "all" if lines.exists() else "a part" if executions.exists() else "nothing"

    def begin(self, columns: Sequence[Column]) -> None:
        """Open both files.

        :raises InvalidInput: if the path can be none of a file.
        """
        for path, its_columns in zip(self._paths, (EXECUTIONS, columns), strict=True):
            file = _Local(Path(path.path), self._mark) if path.protocol in ON_DISK else _Remote(path)
            self._files.append(file)
            self._writers.append(self._format.writer(file.stream, its_columns))

    def write_lines(self, rows: Iterable[Row]) -> None:
        """Write rows of lines."""
        self._writers[1].write(rows)

    def write_execution(self, row: Row) -> None:
        """Write the row of an execution."""
        self._writers[0].write([row])

    def complete(self) -> dict[str, Any]:
        """Let both be seen, and tell where they are, and their size in bytes."""
        for writer in self._writers:
            writer.close()
        size = sum(file.stream.tell() for file in self._files)
        for file in self._files:
            file.finish()
        executions, lines = map(str, self._paths)
        return {"path": lines, "executions_path": executions, "bytes": size}

    def discard(self) -> None:
        """Leave nothing of what is not to be seen yet."""
        for file in self._files:
            file.discard()


def _pair(path: Any) -> tuple[Any, Any]:
    """Return the path of the file for executions, and that of the one for lines, which is given."""
    named = format_of(path.name)
    return path.with_name(f"{named.stem}.executions{named.suffix}"), path


class _Local:
    """A file that has a temporary name beside its own until it is complete.

    That name is the same in each try of a task run, so that a try removes what a killed one has left.
    """

    def __init__(self, path: Path, mark: str) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{mark}.part")
        try:
            self.stream = _opened(path, self._part)
        except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
            raise InvalidInput(
                f"{str(path)!r} cannot be written: {error}. Let output_path name a file in a folder in which "
                "a worker may write."
            ) from None

    def finish(self) -> None:
        self.stream.flush()
        os.fsync(self.stream.fileno())
        if not self._is_ours():
            raise TimeXtenderError(
                f"Another try of this task has begun to write {self._path}, so that this one has given up."
            )
        self._part.replace(self._path)
        self.stream.close()

    def discard(self) -> None:
        if not self.stream.closed:
            if self._is_ours():
                self._part.unlink()
            with contextlib.suppress(OSError):  # what is still to be written may not fit on the disk
                self.stream.close()

    def _is_ours(self) -> bool:
        # After the loss of a worker, the process of the try before may live on for a while.
        try:
            return os.path.samestat(os.fstat(self.stream.fileno()), self._part.stat())
        except FileNotFoundError:
            return False


def _opened(path: Path, part: Path) -> BinaryIO:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    return open(part, "xb", buffering=1024 * 1024)


class _Remote:
    """A file in an object store, which shows it when its upload is complete."""

    def __init__(self, path: Any) -> None:
        # Not path.open(), which tells Airflow's lineage of each single write.
        self.stream: Any = path.fs.open(path.path, "wb", block_size=BLOCK)

    def finish(self) -> None:
        self.stream.close()

    def discard(self) -> None:
        if not self.stream.closed:
            with contextlib.suppress(AttributeError):  # a kind of file that cannot be told
                self.stream.closed = True  # else it is completed when it is not needed any more
            self.stream.discard()
