"""Databases that keep studies: their URLs, whose secrets are never shown, and how they are opened.

A study is kept in Optuna's journal in the study's folder, or in any database that Optuna's
``RDBStorage`` takes. Every error of a database ends as one sentence here, with the URL masked.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from cider.errors import CiderError, NothingMatchedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "CIDER_STORAGE"
EXAMPLES = (
    "sqlite:////folder/studies.db, postgresql://user:password@host/database or "
    "mysql://user:password@host/database"
)
MASK = "***"
_SECRET = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)
# Module that a kind of database needs -> what pip calls it, where the names differ.
_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
_CONNECT_SECONDS = 10
_TIMED_DRIVERS = ("psycopg", "psycopg2", "mysqldb", "pymysql")
"""Drivers that take ``connect_timeout``, in seconds."""
_SQLITE_SECONDS = 60
"""How long a write waits for another process's."""
_READING = ("SELECT", "PRAGMA", "SHOW", "SET", "WITH", "BEGIN", "COMMIT", "ROLLBACK", "DESCRIBE")


class StorageError(CiderError):
    """A database cannot be reached, or keeps something else."""


@dataclass(frozen=True, slots=True, repr=False)
class Storage:
    """A database that keeps studies; as text it never shows a secret."""

    url: URL

    @classmethod
    def parse(cls, text: str) -> Storage:
        """Return the database that a URL names; nothing is opened.

        A relative path of an SQLite file is made absolute.

        Raises:
            UsageError: if the text is no URL of a database, or names one that is not kept.
        """
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            raise UsageError(
                f"--storage (or {VARIABLE}) must be the URL of a database, such as {EXAMPLES}; got "
                f"{_without_secrets(text)!r}"
            ) from None
        if url.get_backend_name() == "sqlite":
            if url.database in (None, "", ":memory:") or "mode=memory" in text:
                raise UsageError(
                    f"--storage {text!r} names a database in memory, which would be gone with the "
                    "command; name a file: sqlite:////folder/studies.db"
                )
            if not str(url.database).startswith("file:"):
                url = url.set(database=str(Path(str(url.database)).expanduser().absolute()))
        return cls(url)

    @property
    def identity(self) -> str:
        """The URL without its secrets: the same database, whatever the password is."""
        kept = {name: value for name, value in self.url.query.items() if not _SECRET.search(name)}
        # A URL replaces a password by None only when it is made anew.
        bare = URL.create(
            self.url.drivername,
            self.url.username,
            None,
            self.url.host,
            self.url.port,
            self.url.database,
            kept,
        )
        return bare.render_as_string(hide_password=False)

    def __str__(self) -> str:
        query = {
            name: MASK if _SECRET.search(name) else value for name, value in self.url.query.items()
        }
        return self.url.set(query=query).render_as_string(hide_password=True)

    def __repr__(self) -> str:
        return f"Storage({self})"

    def without_secrets(self, text: str) -> str:
        """Return a text of somebody else's, e.g. a driver's error, with this URL's secrets out."""
        values = [str(self.url.password or "")]
        for name, value in self.url.query.items():
            if _SECRET.search(name):
                values += [value] if isinstance(value, str) else list(value)
        for secret in filter(None, values):
            text = text.replace(secret, MASK)
        return _without_secrets(text) if "://" in text else text


def _without_secrets(text: str) -> str:
    """Return a text that may be a broken URL without anything that could be a password."""
    return re.sub(r"(//)?[^\s]*@", rf"\g<1>{MASK}@", text.partition("?")[0])


def open_rdb(storage: Storage, *, reading: bool = False) -> RDBStorage:
    """Return Optuna's storage of a database.

    Args:
        storage: the database.
        reading: True creates nothing and lets nothing be written.

    Raises:
        UsageError: if the kind of database is unknown or its driver is not installed.
        StorageError: if it cannot be reached, or has not the tables of this Optuna.
        NothingMatchedError: if it is to be read and has no studies.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with telling(storage):
        if reading:
            _check_tables(storage)
        opened = RDBStorage(
            storage.url.render_as_string(hide_password=False),
            engine_kwargs=_engine_options(storage),
            skip_table_creation=reading,
        )
        if reading:
            sqlalchemy.event.listen(opened.engine, "before_cursor_execute", _refuse_writing)
        return opened


def _engine_options(storage: Storage) -> dict[str, Any]:
    # What a failed statement was to write stays out of error messages.
    options: dict[str, Any] = {"hide_parameters": True}
    if storage.url.get_backend_name() == "sqlite":
        return {**options, "connect_args": {"timeout": _SQLITE_SECONDS}}
    options["pool_pre_ping"] = True  # a connection that the server closed meanwhile is made anew
    is_timed = storage.url.get_driver_name() in _TIMED_DRIVERS
    if is_timed and "connect_timeout" not in storage.url.query:
        options["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
    return options


def _check_tables(storage: Storage) -> None:
    """Raise ``NothingMatchedError`` if a database that is to be read keeps no studies."""
    database = str(storage.url.database)
    is_file = storage.url.get_backend_name() == "sqlite" and not database.startswith("file:")
    if is_file and not Path(database).is_file():
        raise NothingMatchedError(f"no studies: there is no database {storage}")
    engine = sqlalchemy.create_engine(storage.url, **_engine_options(storage))
    try:
        if not sqlalchemy.inspect(engine).has_table("studies"):
            raise NothingMatchedError(f"no studies: the database {storage} keeps none")
    finally:
        engine.dispose()


def _refuse_writing(
    connection: object,  # noqa: ARG001
    cursor: object,  # noqa: ARG001
    statement: str,
    *more: object,  # noqa: ARG001
) -> None:
    if statement.split(maxsplit=1)[0].upper() not in _READING:
        raise PermissionError("this database was opened for looking only")


@contextlib.contextmanager
def telling(storage: Storage) -> Iterator[None]:
    """Turn errors of a database into one sentence without secrets.

    Raises:
        UsageError: if the kind of database is unknown or its driver is not installed.
        StorageError: for everything else that goes wrong with it.
    """
    # ``from None``: what a driver says may have the URL in it, and a traceback would show it.
    try:
        yield
    except NoSuchModuleError:
        raise UsageError(
            f"--storage names an unknown kind of database, {storage.url.drivername!r}; use one "
            f"such as {EXAMPLES}"
        ) from None
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = _reason(error)
        raise StorageError(
            f"the database {storage} failed: {storage.without_secrets(reason)}; see that it runs "
            "and may be written, then give the same command again"
        ) from None
    except ImportError as error:
        missing = getattr(error.__cause__ or error, "name", None)
        if not missing:
            raise
        package = _PACKAGES.get(missing, missing)
        raise UsageError(
            f"the database {storage} needs the package {package}, which is not installed: pip "
            f"install '{package}'"
        ) from None
    except RuntimeError as error:
        found = re.search(r"table schema \(set up by optuna ([^)]*)\)", str(error))
        if found is None:
            raise
        raise StorageError(
            f"the database {storage} has the tables of Optuna {found[1]}, which Optuna "
            f"{version('optuna')} does not read; use the Optuna that made it, or another database "
            "(optuna storage upgrade changes the tables for all who use them)"
        ) from None


def _reason(error: BaseException) -> str:
    """Return the first line of what the driver said."""
    original: BaseException | None = error
    while original is not None and getattr(original, "orig", None) is None:
        original = original.__cause__
    text = str(error if original is None else getattr(original, "orig", error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
