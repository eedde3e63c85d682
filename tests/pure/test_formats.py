"""The formats of files: what is written is read back equal, whatever the rows hold."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from airflow_provider_timextender import formats
from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.formats import SUFFIXES, format_of
from airflow_provider_timextender.tables import EXECUTIONS, LINES, Column, Row

TEXT = st.text(
    st.characters(exclude_categories=["Cs"])
)  # the parser lets no half of a surrogate pair through
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXT,
    "integer": st.integers(0, 2**63 - 1),
    "number": st.floats(0, 1e9),
    "time": st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(timezone.utc)),
}


def rows_of(columns: Iterable[Column]) -> st.SearchStrategy[list[Row]]:
    """Return rows as there may be: each value, or None."""
    return st.lists(st.fixed_dictionaries({c.name: st.none() | KINDS[c.kind] for c in columns}), max_size=3)


def written(rows: Iterable[Row], suffix: str, columns: tuple[Column, ...] = LINES) -> bytes:
    stream = io.BytesIO()
    writer = format_of(f"logs{suffix}").writer(stream, columns)
    for row in rows:
        writer.write([row])
    writer.close()
    return stream.getvalue()


def from_json_lines(content: bytes, columns: tuple[Column, ...]) -> list[Row]:
    return [with_times(json.loads(line), columns) for line in content.split(b"\n")[:-1]]


def from_csv(content: bytes, columns: tuple[Column, ...]) -> list[Row]:
    types = {"text": pyarrow.string(), "integer": pyarrow.int64(), "number": pyarrow.float64()}
    table = arrow_csv.read_csv(
        io.BytesIO(content),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types={c.name: types.get(c.kind, pyarrow.timestamp("us", tz="UTC")) for c in columns},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    assert table.column_names == [column.name for column in columns]
    rows: list[Row] = table.to_pylist()
    return rows


def from_parquet(content: bytes, columns: tuple[Column, ...]) -> list[Row]:
    table = parquet.read_table(io.BytesIO(content))
    kinds = {"string": "text", "int64": "integer", "double": "number", "timestamp[us, tz=UTC]": "time"}
    assert [(field.name, kinds[str(field.type)]) for field in table.schema] == [
        (c.name, c.kind) for c in columns
    ]
    rows: list[Row] = table.to_pylist()
    return rows


def with_times(row: Row, columns: Iterable[Column]) -> Row:
    times = {c.name for c in columns if c.kind == "time"}
    return {name: datetime.fromisoformat(v) if name in times and v else v for name, v in row.items()}


READERS: dict[str, Callable[[bytes, tuple[Column, ...]], list[Row]]] = {
    "jsonl": from_json_lines,
    "csv": from_csv,
    "parquet": from_parquet,
}


@pytest.mark.parametrize("columns", [LINES, EXECUTIONS], ids=["lines", "executions"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=50)
@given(data=st.data())
def test_what_is_written_is_read_back_equal(
    suffix: str, columns: tuple[Column, ...], data: st.DataObject
) -> None:
    rows = data.draw(rows_of(columns))
    content = written(rows, suffix, columns)
    if suffix.endswith(".gz"):
        assert content[3:8] == bytes(5), "neither a name nor the time is in it"
        content = gzip.decompress(content)
    assert READERS[suffix.split(".")[1]](content, columns) == rows
    assert written(rows, suffix, columns) == written(rows, suffix, columns)


ROW: Row = {
    **dict.fromkeys((column.name for column in LINES), "x"),
    "line": 1,
    "time": datetime(2026, 11, 2, 5, tzinfo=timezone.utc),
    "message": 'Line "1",\nline 2',
}


def test_csv_is_read_by_the_standard_library() -> None:
    (head, row) = csv.reader(io.StringIO(written([ROW], ".csv").decode(), newline=""), strict=True)
    assert dict(zip(head, row, strict=True)) == {
        **ROW, "line": "1", "time": "2026-11-02T05:00:00+00:00"
    }  # fmt: skip


@pytest.mark.parametrize(("columns", "rows", "groups"), [(LINES, 5, 3), (LINES, 0, 0)])
def test_a_row_group_has_so_many_rows_at_most(
    columns: tuple[Column, ...], rows: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "GROUP_ROWS", 2)
    file = parquet.ParquetFile(io.BytesIO(written([ROW] * rows, ".parquet", columns)))
    assert (file.num_row_groups, file.metadata.num_rows) == (groups, rows)


class Nowhere(io.RawIOBase):
    """Takes bytes and keeps none."""

    size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_r44_rows_take_no_more_memory_when_there_are_many(suffix: str) -> None:
    def many(count: int) -> Iterator[Row]:
        return ({**ROW, "line": line, "message": "x" * 10_000} for line in range(count))

    peaks = []
    for count in (2_000, 20_000):
        tracemalloc.start()
        stream = Nowhere()
        writer = format_of(f"logs{suffix}").writer(stream, LINES)  # type: ignore[arg-type]
        writer.write(many(count))
        writer.close()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert stream.size > 100_000
    assert peaks[1] < peaks[0] + 1_000_000
    assert peaks[1] < 3 * formats.GROUP_TEXT


@pytest.mark.parametrize("name", ["logs", "logs.json", "logs.parquet.gz", ".jsonl", "logs.gz", ""])
def test_a_name_without_a_format_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"ends with \.jsonl, \.jsonl\.gz, \.csv, \.csv\.gz, \.parquet"):
        format_of(name)


def test_a_name_is_parted_in_stem_and_suffix() -> None:
    assert format_of("a.b.CSV.gz") == ("a.b", ".csv.gz")


def test_without_pyarrow_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InvalidInput, match=r"airflow-provider-timextender\[parquet\]"):
        format_of("logs.parquet")
    format_of("logs.jsonl.gz")
