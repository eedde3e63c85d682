"""The formats of a file of rows: JSON Lines, CSV and Parquet, written row by row."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, BinaryIO, NamedTuple, Protocol

from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.naming import short
from airflow_provider_timextender.tables import Column, Row

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
"""How the name of a file ends tells its format."""

GROUP_ROWS = 10_000
"""How many rows a row group of a Parquet file has at most."""

GROUP_TEXT = 8 * 1024 * 1024
"""How many characters of messages a row group has, about, at most: it is in memory until it is written."""


class Writer(Protocol):
    """Writes rows to a stream, which it does not close."""

    def write(self, rows: Iterable[Row]) -> None:
        """Write some more rows."""

    def close(self) -> None:
        """Write what ends the file."""


class Format(NamedTuple):
    """What the name of a file says of its rows.

    :ivar stem: the name without the suffix. :ivar suffix: one of :data:`SUFFIXES`.
    """

    stem: str
    suffix: str

    def writer(self, stream: BinaryIO, columns: Sequence[Column]) -> Writer:
        """Return a writer of rows with some columns."""
        kind, _, packed = self.suffix[1:].partition(".")
        return _Packed(stream, _WRITERS[kind], columns) if packed else _WRITERS[kind](stream, columns)


def format_of(name: str) -> Format:
    """Return the format that the name of a file asks for.

    :raises InvalidInput: if it ends with none of :data:`SUFFIXES`, or what writes the format is missing.
    """
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    if suffix is None or len(name) == len(suffix):
        raise InvalidInput(
            f"The name of the file is {short(name)}; it takes a name that ends with {', '.join(SUFFIXES)}, "
            "which tells the format."
        )
    if suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise InvalidInput(
                f"pyarrow, which writes Parquet files, is missing ({error}). Install it with the extra: "
                "pip install 'airflow-provider-timextender[parquet]'. JSON Lines and CSV need none."
            ) from None
    return Format(name[: -len(suffix)], suffix)


class _JsonLines:
    """An object a line, in UTF-8; times are ISO 8601."""

    def __init__(self, stream: BinaryIO, columns: Sequence[Column]) -> None:
        self._put = stream.write
        self._encode = json.JSONEncoder(
            ensure_ascii=False, check_circular=False, separators=(",", ":"), default=datetime.isoformat
        ).encode

    def write(self, rows: Iterable[Row]) -> None:
        put, encode = self._put, self._encode
        for row in rows:
            put(f"{encode(row)}\n".encode())

    def close(self) -> None:
        pass


class _Csv:
    """RFC 4180 in UTF-8 with a header; text is quoted, and what is not known is nothing between commas."""

    # Not the standard library's, which cannot tell an empty text from none before Python 3.12.

    def __init__(self, stream: BinaryIO, columns: Sequence[Column]) -> None:
        self._put = stream.write
        names = [column.name for column in columns]
        self._values = itemgetter(*names)
        self._put(f"{','.join(map(_cell, names))}\r\n".encode())

    def write(self, rows: Iterable[Row]) -> None:
        put, values = self._put, self._values
        for row in rows:
            put(f"{','.join(map(_cell, values(row)))}\r\n".encode())

    def close(self) -> None:
        pass


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return '"{}"'.format(value.replace('"', '""'))
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime) else repr(value)


class _Parquet:
    """Typed columns, in row groups that are written as they are full."""

    def __init__(self, stream: BinaryIO, columns: Sequence[Column]) -> None:
        import pyarrow
        from pyarrow import parquet

        types = {
            "text": pyarrow.string(),
            "integer": pyarrow.int64(),
            "number": pyarrow.float64(),
            "time": pyarrow.timestamp("us", tz="UTC"),
        }
        self._schema = pyarrow.schema([(column.name, types[column.kind]) for column in columns])
        self._batch = pyarrow.RecordBatch.from_pylist
        self._file = parquet.ParquetWriter(stream, self._schema)
        self._rows: list[Row] = []
        self._text = 0

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._rows.append(row)
            self._text += len(row["message"] or "")
            if len(self._rows) >= GROUP_ROWS or self._text >= GROUP_TEXT:
                self._end_group()

    def _end_group(self) -> None:
        if self._rows:
            self._file.write_batch(self._batch(self._rows, schema=self._schema))
        self._rows.clear()
        self._text = 0

    def close(self) -> None:
        self._end_group()
        self._file.close()


class _Packed:
    """What another writer writes, with gzip; the same rows make the same bytes."""

    def __init__(self, stream: BinaryIO, kind: _Kind, columns: Sequence[Column]) -> None:
        packed = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0)
        # Each write to it costs more than it does to a buffer.
        self._stream = io.BufferedWriter(packed, 256 * 1024)
        self._writer = kind(self._stream, columns)
        self.write = self._writer.write

    def close(self) -> None:
        self._writer.close()
        self._stream.close()


_Kind = Callable[[BinaryIO, Sequence[Column]], Writer]

_WRITERS: dict[str, _Kind] = {"jsonl": _JsonLines, "csv": _Csv, "parquet": _Parquet}
