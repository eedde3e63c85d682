"""Exports into a database: tables of any SQL connection of Airflow, written in one transaction.

SQLAlchemy is imported here, so that this room is imported only where logs are written to a database.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateColumn

from airflow_provider_timextender.errors import InvalidInput
from airflow_provider_timextender.increments import Seen
from airflow_provider_timextender.tables import EXECUTIONS, Column, Row

LINES_TABLE = "timextender_lines"
EXECUTIONS_TABLE = "timextender_executions"

BATCH_ROWS = 400
"""How many rows are replaced at once, at most. A statement names up to four values of each, and SQL Server
takes 2,100."""

BATCH_CHARACTERS = 2_000_000
"""How many characters of text their columns have, about: a message may be of any length."""

MYSQL = ("mysql", "mariadb")

_TEXT = {"mysql": mysql.LONGTEXT(), "mariadb": mysql.LONGTEXT(), "mssql": sa.Unicode()}
"""For a text of any length, where SQLAlchemy's own takes 64 KiB, or none that SQL Server can group by."""

_GUIDS = {"job_id", "execution_key", "trigger_id"}
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""What a database takes for no text, though JSON can hold it."""


def definitions(
    columns: Sequence[Column], dialect: str, schema: str | None = None
) -> tuple[sa.Table, sa.Table]:
    """Return the table of lines and that of executions, as a kind of database defines them.

    :param columns: of the table of lines.
    :param dialect: the kind of database, by SQLAlchemy's name: ``postgresql``, ``mssql``, ``mysql``, ...
    """
    return (
        _table(LINES_TABLE, columns, ("execution_key", "line"), dialect, schema),
        _table(EXECUTIONS_TABLE, EXECUTIONS, ("execution_key",), dialect, schema),
    )


def _table(
    name: str, columns: Iterable[Column], keys: Sequence[str], dialect: str, schema: str | None = None
) -> sa.Table:
    types: dict[str, sa.types.TypeEngine[Any]] = {
        "text": _TEXT.get(dialect, sa.UnicodeText()),
        # MySQL keeps no zone, and of a second only what is asked for.
        "time": mysql.DATETIME(fsp=6) if dialect in MYSQL else sa.DateTime(timezone=True),
        "integer": sa.Integer(),
        "number": sa.Float(53),
    }
    # A key may not be a text of any length.
    kinds = {
        column.name: sa.String(36) if column.name in _GUIDS else types[column.kind] for column in columns
    }
    return sa.Table(
        name,
        sa.MetaData(),
        *(
            sa.Column(name, kind, primary_key=name in keys, autoincrement=False, nullable=name not in keys)
            for name, kind in kinds.items()
        ),
        schema=schema,
    )


class Tables:
    """An output that is two tables of a database; they are created if they are missing.

    All is written in one transaction: nothing of it is seen before it is complete, and nothing is left of it
    if the process dies. A row takes the place of the one with the same key, so that a repeat changes nothing.

    :param conn_id: the Airflow connection, of any type whose hook is a ``DbApiHook``.
    :param schema: where the tables stand; ``None`` for where the connection's user creates tables.
    """

    def __init__(self, conn_id: str, schema: str | None = None) -> None:
        self._conn_id = conn_id
        self._schema = schema
        self._opened = ExitStack()

    @property
    def names(self) -> tuple[str, str]:
        """The names of the table of lines and of that of executions."""
        prefix = f"{self._schema}." if self._schema else ""
        return prefix + LINES_TABLE, prefix + EXECUTIONS_TABLE

    @property
    def where(self) -> str:
        """Where that is, for people."""
        return f"the tables {' and '.join(self.names)} of the connection {self._conn_id!r}"

    def seen(self, where: str) -> Seen:
        """Tell that nothing can be seen, whatever is there: to write a row once more changes nothing."""
        return "nothing"

    def begin(self, columns: Sequence[Column]) -> None:
        """Connect, and create the tables that are missing.

        :param columns: those of the table of lines.
        :raises InvalidInput: if the connection is no database, or a table lacks a column.
        """
        with self._failing():
            engine = _engine(self._conn_id)
            self._opened.callback(engine.dispose)
            lines, executions = definitions(columns, engine.dialect.name, self._schema)
            _provide(lines, engine)
            _provide(executions, engine)
            connection = self._opened.enter_context(engine.connect())
            self._transaction = connection.begin()
            self._lines = _Rows(lines, connection)
            self._executions = _Rows(executions, connection)

    def write_lines(self, rows: Iterable[Row]) -> None:
        """Write the rows of some lines of one execution."""
        with self._failing():
            for row in rows:
                self._lines.put(row)

    def write_execution(self, row: Row) -> None:
        """Write the row of an execution."""
        with self._failing():
            self._executions.put(row)

    def complete(self) -> dict[str, Any]:
        """Let all be seen, and return the names of the tables."""
        with self._failing():
            self._lines.flush()
            self._executions.flush()
            self._transaction.commit()
        self._opened.close()
        return {"tables": list(self.names)}

    def discard(self) -> None:
        """Leave the tables as they were before."""
        self._opened.close()  # which rolls back

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Say where it is that a database refuses something, and not its statement, which is very long."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise RuntimeError(f"Writing to {self.where} failed: {str(error.orig).strip()}") from error.orig


def _engine(conn_id: str) -> sa.engine.Engine:
    from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook

    try:
        connection: Any = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise InvalidInput(f"output_conn_id: {error}.") from None
    try:
        hook = connection.get_hook()
    except AirflowException as error:
        advice = "The provider of the database is to be installed beside Airflow"
        raise InvalidInput(f"The Airflow connection {conn_id!r} cannot be used: {error}. {advice}.") from None
    if not hasattr(hook, "get_sqlalchemy_engine"):
        kind = connection.conn_type
        raise InvalidInput(f"The Airflow connection {conn_id!r} is of type {kind!r}, which is no database.")
    engine: sa.engine.Engine = hook.get_sqlalchemy_engine()
    return engine


def _provide(wanted: sa.Table, engine: sa.engine.Engine) -> None:
    """Create a table if it is missing.

    :raises InvalidInput: if it is there, and lacks a column.
    """
    try:
        with engine.begin() as connection:
            wanted.create(connection, checkfirst=True)
    except sa.exc.DBAPIError:
        if not sa.inspect(engine).has_table(wanted.name, schema=wanted.schema):
            raise
        # Another task has created it at the same time.
    there = {column["name"] for column in sa.inspect(engine).get_columns(wanted.name, schema=wanted.schema)}
    missing = [column for column in wanted.columns if column.name not in there]
    if missing:
        names = ", ".join(column.name for column in missing)
        alter = f"ALTER TABLE {wanted.fullname} ADD"
        add = "; ".join(f"{alter} {CreateColumn(column).compile(engine)}" for column in missing)
        raise InvalidInput(
            f"The table {wanted.fullname} has no column {names}. To add what is missing: {add}"
        )


class _Rows:
    """Rows of a table that take the place of those with the same keys, some at a time."""

    def __init__(self, wanted: sa.Table, connection: sa.engine.Connection) -> None:
        self._table = wanted
        self._connection = connection
        self._keys = list(wanted.primary_key.columns)
        self._with_zone = connection.dialect.name not in MYSQL
        self._waiting: dict[tuple[Any, ...], Row] = {}
        self._characters = 0

    def put(self, row: Row) -> None:
        stored = {name: self._value(value) for name, value in row.items()}
        self._waiting[tuple(stored[key.name] for key in self._keys)] = stored
        self._characters += sum(len(value) for value in stored.values() if isinstance(value, str))
        if len(self._waiting) >= BATCH_ROWS or self._characters >= BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        self._connection.execute(sa.delete(self._table).where(_any_of(self._keys, self._waiting)))
        self._connection.execute(sa.insert(self._table), list(self._waiting.values()))
        self._waiting, self._characters = {}, 0

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value)
        if isinstance(value, datetime) and not self._with_zone:
            return value.replace(tzinfo=None)
        return value


def _any_of(columns: Sequence[sa.Column[Any]], keys: Iterable[tuple[Any, ...]]) -> Any:
    """Return the condition that a row has one of some keys, in what all databases understand."""
    *first, last = columns
    alike = {
        values: [key[-1] for key in group] for values, group in groupby(sorted(keys), lambda key: key[:-1])
    }
    return sa.or_(
        *(
            sa.and_(
                *(column == value for column, value in zip(first, values, strict=True)),
                # Else PostgreSQL reads all lines of an execution from its index, for each batch.
                last.between(ends[0], ends[-1]),
                last.in_(ends),
            )
            for values, ends in alike.items()
        )
    )
