"""Drive one grid: search what is to be searched, train what is missing, evaluate; then say so.

One driver at a time, by the grid's lease. Whatever it is stopped by, the same command goes on: run
folders and studies say what is done.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cider.errors import CiderError
from cider_platform.execution import faults
from cider_platform.execution.cluster_watch import ClusterLostError
from cider_platform.execution.sessions import choose_folder, cluster_session, remove_left_folder
from cider_platform.grids.copying import Copying
from cider_platform.grids.grid import Grid, store_grid
from cider_platform.grids.stopping import Stopping
from cider_platform.grids.tasks import Task, tasks_of
from cider_platform.layout import GridFolder, RunFolder, now, write_json_atomic
from cider_platform.lease import hold
from cider_platform.search.driver import drive, forgive

if TYPE_CHECKING:
    from collections.abc import Callable

    from cider.spec import RunSpec
    from cider_platform.execution.capacity import Slots
    from cider_platform.grids.cells import Cell
    from cider_platform.grids.ray_runs import Ended
    from cider_platform.lease import Lease
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.driver import Listener
    from cider_platform.search.tune import Train


class GridListener(Protocol):
    """Whoever shows a grid."""

    def tell(self, line: str) -> None:
        """Show one line: something has happened."""

    def search(self, cell: Cell, number: int, total: int) -> Listener:
        """Return what shows the search of a cell, ``number`` of ``total``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a grid is run; no number depends on it."""

    slots: Slots
    progress_timeout: float
    retry_failed: bool = False
    address: str = ""
    """Of a Ray cluster that runs already; empty starts one on this machine."""
    copy_to: str = ""
    """URI to which runs are copied once they are done, and from which they are fetched first."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How a command left its grid."""

    ran: int = 0
    """Runs that this command trained or evaluated to their end."""
    failed: int = 0
    """Runs and searches that failed under this command."""
    seconds: float = 0.0
    signal_number: int | None = None
    """The signal that ended it early, if one did."""
    errors: list[str] = field(default_factory=list)
    uncopied: str = ""
    """Why not every run was copied; empty if all were, or none was to be."""


def drive_grid(
    grid: Grid,
    runtime: Runtime,
    how: How,
    *,
    train: Train,
    resolve: Callable[[RunSpec, Runtime], RunSpec],
    listener: GridListener,
) -> Outcome:
    """Run what is missing of a grid.

    Args:
        grid: the cells.
        runtime: where and how runs execute, with absolute paths.
        how: how many at a time, and where.
        train: yields the epoch results of a resolved spec; must be importable in workers.
        resolve: fills in a spec; searches need it.
        listener: shows what happens.

    Raises:
        LeaseTakenError: if another living command drives the grid.
        ClusterLostError: if Ray has died.
        CiderError: if the grid cannot be written, e.g. on a full disk.
    """
    folder = GridFolder.of(runtime.results, grid.id)
    started = time.monotonic()
    outcome = Outcome()
    try:
        with hold(folder.lease, f"grid {grid.id}") as lease:
            remove_left_folder(lease.previous)
            folder.cancel.unlink(missing_ok=True)
            store_grid(grid, folder)
            write_json_atomic(folder.execution, _execution(runtime, how))
            with (stopping := Stopping(folder)) as received:
                driver = _Driver(
                    grid, folder, runtime, how, train, listener, outcome, stopping, received
                )
                driver.copy_first()
                driver.search(resolve)
                driver.run(lease)
                driver.copy_last()
            outcome.signal_number = received[0] if received else outcome.signal_number
    except OSError as error:
        raise CiderError(
            f"grid {grid.id} had to stop: {faults.sentence(error, folder.root)}; the same command "
            "then continues it"
        ) from error
    outcome.seconds = time.monotonic() - started
    return outcome


def _execution(runtime: Runtime, how: How) -> dict[str, Any]:
    return {
        "schema": 1,
        "time": now(),
        "device": runtime.device,
        "slots": how.slots.slots,
        "threads": how.slots.cpus_per_trial,
        "gpus_per_run": how.slots.gpus_per_trial,
        "progress_timeout": how.progress_timeout,
        "copy_to": how.copy_to,
    }


@dataclass(slots=True)
class _Driver:
    grid: Grid
    folder: GridFolder
    runtime: Runtime
    how: How
    train: Train
    listener: GridListener
    outcome: Outcome
    stopping: Stopping
    received: list[int]
    failed: set[str] = field(default_factory=set)
    """Runs that failed under this command: not taken up again by it."""
    copies: Copying | None = None

    def copy_first(self) -> None:
        """Fetch the runs that were copied before."""
        if self.how.copy_to:
            self.copies = Copying(self.grid, self.runtime.results, self.how.copy_to, self._note)
            self.copies.fetch()

    def copy_last(self) -> None:
        """Wait for copies, and make those that failed once more."""
        if self.copies is not None:
            self.outcome.uncopied = self.copies.finish()

    def search(self, resolve: Callable[[RunSpec, Runtime], RunSpec]) -> None:
        """Bring the study of every cell that has a search to its total, one after the other."""
        cells = [cell for cell in self.grid.cells if cell.search is not None]
        for number, cell in enumerate(cells, 1):
            if self.received:
                return
            from cider_platform.grids.searches import search_plan, standing  # noqa: PLC0415

            if standing(self.runtime.results, cell).state in ("done", "failed"):
                continue
            self._note(f"search {number} of {len(cells)} begins: {cell.name} (study {cell.study})")
            try:
                found = drive(
                    search_plan(cell, self.how.slots, self.how.progress_timeout),
                    self.runtime,
                    train=self.train,
                    resolve=resolve,
                    listener=self.listener.search(cell, number, len(cells)),
                    address=self.how.address,
                )
            except CiderError as error:
                self._fail(f"the search of {cell.name} failed: {error}")
                continue
            if found.signal_number is not None:
                self.outcome.signal_number = found.signal_number
                self.received.append(found.signal_number)

    def run(self, lease: Lease) -> None:
        """Train and evaluate what is missing; when Ray dies, start it again and go on."""
        deaths = 0
        while not self.received and (tasks := self._tasks()):
            try:
                self._run(tasks, lease)
                return
            except ClusterLostError as error:
                deaths += 1
                forgive(error, deaths)

    def _tasks(self) -> list[Task]:
        tasks = tasks_of(self.grid, self.runtime.results, retry_failed=self.how.retry_failed)
        return [task for task in tasks if task.run not in self.failed]

    def _run(self, tasks: list[Task], lease: Lease) -> None:
        self._note(f"{len(tasks)} runs to do, {self.how.slots.slots} at a time")
        slots = self.how.slots
        place = choose_folder()
        lease.note(folder=str(place))
        total = len(tasks) + self.outcome.ran + self.outcome.failed
        with cluster_session(
            place,
            address=self.how.address,
            cpus=slots.cpus,
            gpus=slots.num_gpus,
            threads=slots.cpus_per_trial,
        ) as watch:
            # Reads the environment when it is imported, so it must be inside the session.
            from cider_platform.grids.ray_runs import run_tasks  # noqa: PLC0415

            self.stopping.listen_again()
            run_tasks(
                tasks,
                self.train,
                self.runtime,
                slots=slots,
                progress_timeout=self.how.progress_timeout,
                check=watch.check,
                should_stop=lambda: bool(self.received),
                on_begin=self._on_begin,
                on_end=lambda ended: self._on_end(ended, total),
            )

    def _on_begin(self, task: Task) -> None:
        self._note(f"run {task.run} begins: {task.what}")

    def _on_end(self, ended: Ended, total: int) -> None:
        task = ended.task
        done = self.outcome.ran + self.outcome.failed + 1
        if ended.error:
            self.failed.add(task.run)
            self._fail(f"run {task.run} failed: {ended.error} [{done} of {total}]")
            return
        self.outcome.ran += 1
        if self.copies is not None:
            self.copies.add(task.run)
        self._note(f"run {task.run} is done{_score(self.runtime, task.run)} [{done} of {total}]")

    def _fail(self, line: str) -> None:
        self.outcome.failed += 1
        self.outcome.errors.append(line)
        self._note(line)

    def _note(self, line: str) -> None:
        with self.folder.log.open("a", encoding="utf-8") as log:
            log.write(f"{now()} {line}\n")
        self.listener.tell(line)


def _score(runtime: Runtime, run: str) -> str:
    from cider_platform.results import read_run  # noqa: PLC0415
    from cider_platform.tables import number  # noqa: PLC0415

    result = read_run(RunFolder.of(runtime.results, run)).result
    if "score" not in result:
        return ""
    return f" after {result.get('epochs', '?')} epochs, {result.get('metric', 'score')} " + number(
        result["score"]
    )
