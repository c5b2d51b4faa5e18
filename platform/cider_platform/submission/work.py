"""What can be submitted: a grid of a job file, or the evaluation of many runs; checked before."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cider import missing
from cider.config import canonical_json
from cider.errors import UsageError
from cider_platform.grids.cells import expand
from cider_platform.grids.grid import Grid
from cider_platform.grids.job import read_job
from cider_platform.grids.job_files import find_job, read_document
from cider_platform.layout import check_name
from cider_platform.runs.conditions import conditions_of
from cider_platform.runs.rates import parse_rates
from cider_platform.submission.order import JobFile, Order, new_order

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL_RUNS = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A submission before it is sent."""

    key: str
    """The same for the same work: submissions of one key are attempts at it."""
    name: str
    """For people."""
    arguments: tuple[str, ...]
    """Words of the command that the cluster runs."""
    job_file: JobFile | None = None

    def order(self, attempt: int, *, priority: int, most: int) -> Order:
        """Return the order of one attempt."""
        return new_order(self.key, attempt, list(self.arguments), priority=priority, most=most)


def grid_work(
    job: str,
    axes: Sequence[str],
    settings: Sequence[str],
    options: Sequence[str],
    slots: int | None = None,
) -> Work:
    """Return a grid to be submitted; its cells are counted here, its corpora are the cluster's.

    Args:
        job: name of a shipped job, or a path that ends with ``.toml``.
        axes: as ``--axis`` has them.
        settings: as ``--set`` has them.
        options: further words for ``run``.
        slots: runs at a time; None is the job's own number.

    Raises:
        UsageError: for whatever ``run`` would refuse about the job.
    """
    path = find_job(job)
    name, document = read_document(path)
    wanted = read_job(name, document, axes=axes, settings=settings)
    grid = Grid(wanted.name, tuple(expand(wanted)))
    if not (slots or wanted.execution.slots):
        raise UsageError(
            f"how many runs of {name} the cluster carries at a time is not known here; give "
            "--slots, or slots in [execution]"
        )
    file = JobFile(name, path.read_bytes())
    words = ["run", file.file, "--yes", "--address=auto"]
    words += [f"--axis={each}" for each in axes] + [f"--set={each}" for each in settings]
    words += [f"--slots={slots}"] if slots else []
    # Cells and where their results go are what tells submissions apart; slots and device do not.
    where = [word for word in options if word.startswith(("--store", "--results"))]
    return Work(
        key=_key(name, [grid.id, *where]),
        name=name,
        arguments=(*words, *options),
        job_file=file,
    )


def evaluation_work(
    runs: str, protocols: str, rates: str, kept: str, options: Sequence[str]
) -> Work:
    """Return an evaluation of many runs to be submitted.

    Args:
        runs: beginnings of run ids with commas, or ``all``.
        protocols: missing protocols with commas; empty is each run's own.
        rates: as ``--rates`` has them.
        kept: smm's kept set.
        options: further words for ``evaluate-runs``.

    Raises:
        UsageError: for no runs, or a protocol, rate or kept set that does not exist.
    """
    names = [each for each in runs.split(",") if each]
    if not names:
        raise UsageError(
            "submit evaluate needs --runs: beginnings of run ids with commas, or the word all"
        )
    for name in names:
        check_name("run", name)
    wanted = parse_rates(rates)
    for protocol in [each for each in protocols.split(",") if each]:
        missing.uses_rate(protocol)
        conditions_of(protocol, wanted, kept)
    words = ["evaluate-runs", *names, "--address=auto", f"--rates={rates}"]
    words += [f"--missing={protocols}"] if protocols else []
    words += [f"--kept={kept}"] if kept else []
    return Work(
        key=_key("evaluate", [*words, *options]), name="evaluate", arguments=(*words, *options)
    )


def _key(name: str, parts: Sequence[str]) -> str:
    digest = hashlib.sha256(canonical_json(list(parts)).encode()).hexdigest()[:8]
    return check_name("grid", f"{name[:90]}-{digest}")
