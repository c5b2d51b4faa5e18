"""Optuna's dashboard on one study, for looking only.

The dashboard's own server could rename or delete the study, or tell a trial that a search is
training. Here it gets a storage that cannot write, and every request but a reading one is refused,
so a running search is neither locked nor changed. It answers this machine alone.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from cider.errors import CiderError, NothingMatchedError, UsageError
from cider_platform.search.storage import open_rdb
from cider_platform.search.study import open_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from optuna.storages import BaseStorage

    from cider_platform.layout import StudyFolder
    from cider_platform.search.storage import Storage

    Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

HOST = "127.0.0.1"
_NAMES = {HOST, "localhost"}
REFUSAL = "this dashboard is for looking only: nothing is changed from here"


class _ReadOnlyJournal(JournalFileBackend):
    """A journal file that is read as it grows and never written."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:  # noqa: ARG002 - as the base has it
        raise PermissionError(REFUSAL)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the page asks every few seconds."""


@contextmanager
def dashboard(
    folder: StudyFolder, results: Path, port: int, database: Storage | None = None
) -> Iterator[WSGIServer]:
    """Yield a server of a study's dashboard that is bound but not yet serving; close it after.

    Args:
        folder: the study.
        results: root of runs and studies.
        port: on this machine; 0 takes a free one.
        database: what keeps the study; None is the journal in its folder.

    Raises:
        NothingMatchedError: if there is no such study, or it has not begun.
        UsageError: if the dashboard's package is not installed, or the port is taken.
    """
    if open_study(results, folder.name, database) is None:
        raise NothingMatchedError(f"study {folder.name} has not begun; there is nothing to see yet")
    try:
        from optuna_dashboard import wsgi  # noqa: PLC0415 - an optional package
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the dashboard needs the package optuna-dashboard ({error}); install it with "
            "pip install 'cider-platform[dashboard]'"
        ) from None
    storage: BaseStorage
    if database is None:
        storage = JournalStorage(_ReadOnlyJournal(str(folder.journal)))
    else:
        storage = open_rdb(database, reading=True)
    try:
        server = make_server(
            HOST, port, reading(wsgi(storage)), server_class=_Server, handler_class=_Handler
        )
    except OverflowError:
        raise UsageError(f"--port must be from 0 to 65535, got {port}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} of this machine is taken; name another with --port, or 0 for any"
            ) from None
        raise CiderError(f"the dashboard cannot listen on {HOST}:{port}: {error}") from error
    try:
        yield server
    finally:
        server.server_close()


def reading(application: Application) -> Application:
    """Return an application that passes on what only reads, and refuses the rest with a sentence.

    A request must name this machine, too: a web page elsewhere could otherwise have its own name
    lead here and read along.
    """

    def answer(request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        host = str(request.get("HTTP_HOST", "")).rpartition(":")[0] or request.get("HTTP_HOST")
        if request["REQUEST_METHOD"] not in ("GET", "HEAD") or host not in _NAMES:
            start("403 Forbidden", [("Content-Type", "application/json")])
            return [f'{{"reason": "{REFUSAL}"}}'.encode()]
        return application(request, start)

    return answer
