"""A grid whose finished runs are copied to an object store while it goes on, and fetched from it.

For clusters whose disks go away with them: started anew on an empty disk, the same command fetches
what the grid has in the store and runs what is missing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cider.errors import CiderError
from cider_platform.grids.states import cell_specs
from cider_platform.layout import RunFolder
from cider_platform.runs.copies import Place, pull, push_run, push_study

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from cider_platform.grids.grid import Grid


class Copying:
    """Copies of one grid's runs at one URI.

    One thread copies, so that a slow network holds up nothing. A copy that fails is said at once
    and tried again at the end.

    Args:
        grid: the cells.
        results: root of the results.
        uri: as ``cider_platform.runs.copies.Place`` takes it.
        tell: shows one line.

    Raises:
        UsageError: if the URI is of no known kind, or holds a password or key.
        CiderError: if it cannot be reached.
    """

    def __init__(self, grid: Grid, results: Path, uri: str, tell: Callable[[str], None]) -> None:
        self._grid, self._results, self._tell = grid, results, tell
        self._place = Place(uri)
        self._place.sizes("grids")  # a store that cannot be read is found before anything is run
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="copies")
        self._begun: dict[Future[object], str] = {}

    def fetch(self) -> None:
        """Fetch the grid's complete runs that are not here; those of searches are not known yet."""
        runs = sorted(self._runs())
        fetched = (
            [each for each in pull(self._place, self._results, runs) if each.files] if runs else []
        )
        if fetched:
            self._tell(f"{len(fetched)} runs fetched from {self._place.uri}")

    def add(self, run: str) -> None:
        """Copy a run that is done, when its turn comes."""
        folder = RunFolder.of(self._results, run)
        self._begun[self._thread.submit(push_run, folder, self._place)] = run
        for future in [each for each in self._begun if each.done()]:
            name = self._begun.pop(future)
            if isinstance(error := future.exception(), CiderError | OSError):
                self._tell(f"run {name} is not copied yet: {error}")

    def finish(self) -> str:
        """Copy what is still missing; return why something could not be copied, or nothing."""
        self._thread.shutdown(wait=True)
        complete = [
            folder
            for folder in (RunFolder.of(self._results, run) for run in sorted(self._runs()))
            if folder.is_complete
        ]
        studies = [
            folder
            for cell in self._grid.cells
            if cell.search is not None
            and (folder := self._results / "studies" / cell.study).is_dir()
        ]
        try:
            for run in complete:
                push_run(run, self._place)
            for study in studies:
                push_study(study, self._place)
        except (CiderError, OSError) as error:
            return (
                f"not every run is copied: {error}; `results push {self._place.uri}` copies what "
                "is missing"
            )
        self._tell(f"{len(complete)} runs are copied to {self._place.uri}")
        return ""

    def _runs(self) -> set[str]:
        return {
            spec.run_id for cell in self._grid.cells for spec in cell_specs(self._results, cell)
        }
