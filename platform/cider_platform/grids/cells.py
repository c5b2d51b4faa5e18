"""The cells of a grid: one combination of its axes, with its runs and what they are tested on.

A cell's name is a hash of its runs' ids and of the conditions they are evaluated under, so it
changes with everything that changes a number and with nothing else. The hash has a version; what
an older program stored is brought up to date step by step when it is read.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cider import missing
from cider.condition import Condition
from cider.config import canonical_json, from_dict
from cider.errors import CiderError, UsageError
from cider.spec import RunSpec
from cider_platform.grids.job import OWN, EvaluateBlock, Job, SearchBlock
from cider_platform.grids.specs import spec_of
from cider_platform.runs.conditions import conditions_of
from cider_platform.search.space import read_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SCHEMA = 1
"""Version of the hash: raised when what it is over changes, with a step in ``MIGRATIONS``."""

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Schema -> the function that makes a stored cell of it one of the next schema."""

MOST_RUNS = 1_000_000


@dataclass(frozen=True)  # no slots: run ids are computed once
class Cell:
    """One combination of a grid's axes; its specs are resolved, or not yet."""

    values: Mapping[str, str]
    """Axis -> label, in the order of the axes."""
    spec: RunSpec
    """Of every run but for the seed; of a search the base, with the search's seed."""
    seeds: tuple[int, ...]
    conditions: tuple[Condition, ...]
    """What every run is evaluated under."""
    search: SearchBlock | None = None
    """With its space named in full: what the job sets is not searched."""

    @cached_property
    def run_ids(self) -> tuple[str, ...]:
        """Ids of the runs, by seed; a cell with a search knows its runs only after it."""
        return tuple(spec.run_id for spec in self.specs) if self.search is None else ()

    @property
    def specs(self) -> tuple[RunSpec, ...]:
        """Specs of the runs, by seed."""
        return tuple(replace(self.spec, seed=seed) for seed in self.seeds)

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits that name what the cell computes."""
        return _hash(self.identity())

    @property
    def name(self) -> str:
        """The cell for people: its axes and labels."""
        return ", ".join(f"{axis}={text}" for axis, text in self.values.items()) or "the only cell"

    @property
    def study(self) -> str:
        """Name of the study of a cell with a search: equal for every grid with the same search.

        The number of trials is not part of it: a longer search goes on with the shorter one.
        """
        data = self.spec.data
        digest = _hash({"base": self.spec.run_id, "search": {**self._searched(), "trials": 0}})
        return f"{data.dataset}-{data.distribution}-{data.task}-{digest}"

    def identity(self) -> dict[str, Any]:
        """Return what the hash is over, as JSON values."""
        tested = sorted([each.protocol, each.rate, each.kept] for each in self.conditions)
        if self.search is None:
            return {"schema": SCHEMA, "runs": sorted(self.run_ids), "conditions": tested}
        return {
            "schema": SCHEMA,
            "base": self.spec.run_id,
            "search": self._searched(),
            "seeds": sorted(self.seeds),
            "conditions": tested,
        }

    def _searched(self) -> dict[str, Any]:
        assert self.search is not None
        block = self.search
        return {
            "trials": block.trials,
            "sampler": block.sampler,
            "pruner": block.pruner,
            "grace": block.grace,
            "objective": list(block.objective),
            "space": list(block.space),
            "seed": block.seed,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the cell as it is stored; ``read_cell`` reads it back."""
        return {
            "id": self.id,
            "values": dict(self.values),
            "spec": self.spec.to_dict(),
            "seeds": list(self.seeds),
            "runs": list(self.run_ids),
            "conditions": [[each.protocol, each.rate, each.kept] for each in self.conditions],
            "search": None
            if self.search is None
            else {**self._searched(), "final_seeds": list(self.search.final_seeds)},
        }


def read_cell(stored: Mapping[str, Any], schema: int) -> Cell:
    """Return a cell that was stored under this or an older schema.

    Raises:
        CiderError: for a newer schema, or one that no step leads away from.
    """
    values = dict(stored)
    while schema != SCHEMA:
        if schema not in MIGRATIONS:
            raise CiderError(
                f"the grid was stored under cell schema {schema}, this program knows {SCHEMA} and "
                "older ones; use the program that stored it, or start the job again"
            )
        values = MIGRATIONS[schema](values)
        schema += 1
    search = values["search"]
    cell = Cell(
        values=values["values"],
        spec=RunSpec.from_dict(values["spec"]),
        seeds=tuple(values["seeds"]),
        conditions=tuple(Condition(*each) for each in values["conditions"]),
        search=None if search is None else from_dict(SearchBlock, search),
    )
    if search is None:
        # The runs it had, whatever ids this program would give them; and 5,000 hashes are saved.
        cell.__dict__["run_ids"] = tuple(values["runs"])
    return cell


def _hash(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:16]


def expand(job: Job) -> list[Cell]:
    """Return the cells of a job, row-major and without those excluded; nothing is resolved.

    No corpus is opened, so a job can be counted anywhere; identities are those of the resolved
    cells (``resolve_cells``).

    Raises:
        UsageError: for values that do not fit or do not go together, two cells that are the same,
            or no cell at all.
    """
    cells: list[Cell] = []
    for choices in itertools.product(*(axis.choices for axis in job.axes)):
        labels = {axis.name: choice.label for axis, choice in zip(job.axes, choices, strict=True)}
        if any(_matches(labels, partial) for partial in job.exclude):
            continue
        values = dict(job.base)
        for choice in choices:
            values |= choice.values
        cells.append(_cell(job, labels, values))
    if not cells:
        raise UsageError(f"job {job.name} has no cell left: [[exclude]] leaves out all of them")
    if len(cells) * len(job.seeds) > MOST_RUNS:
        raise UsageError(f"job {job.name} has more than {MOST_RUNS:,} runs; split it")
    _check_distinct(cells)
    return cells


def _matches(labels: Mapping[str, str], partial: Mapping[str, tuple[str, ...]]) -> bool:
    # An axis of the file that the command line narrowed away cannot match.
    return all(labels.get(name) in texts for name, texts in partial.items())


def _cell(job: Job, labels: Mapping[str, str], values: Mapping[str, Any]) -> Cell:
    seed = job.seeds[0] if job.search is None else job.search.seed
    try:
        spec = replace(spec_of(values), seed=seed)
        tested = tuple(_conditions(spec, job.evaluate))
        search = job.search
        if search is not None:
            axes = read_space(search.space, spec, values)
            search = replace(search, space=tuple(map(str, axes)))
        return Cell(labels, spec, job.seeds, tested, search)
    except UsageError as error:
        where = ", ".join(f"{axis}={text}" for axis, text in labels.items())
        raise UsageError(f"{error} (cell {where})" if where else str(error)) from None


def _conditions(spec: RunSpec, block: EvaluateBlock) -> Iterator[Condition]:
    """Yield what a cell's runs are evaluated under, each once, in the order of the job."""
    own = spec.missing
    rates = block.rates or tuple(sorted({0.0, *spec.selection.rates}))
    seen: set[Condition] = set()
    for name in block.protocols:
        protocol = own.protocol if name == OWN else name
        if missing.needs_aligned(protocol) and spec.data.alignment != "aligned":
            raise UsageError(
                f"evaluate.protocols has {protocol}, which drops shared time steps and needs "
                f"aligned data, got {spec.data.alignment}"
            )
        kept_sets = (own.kept,) if name == OWN and protocol == "smm" else block.kept
        if protocol == "smm":
            found = [each for kept in kept_sets for each in conditions_of("smm", (), kept)]
        else:
            found = conditions_of(protocol, rates)
        for condition in found:
            if condition not in seen:
                seen.add(condition)
                yield condition


def _check_distinct(cells: Sequence[Cell]) -> None:
    """Refuse two cells that compute the same; compared before they are resolved."""
    known: dict[Any, Cell] = {}
    for cell in cells:
        key = (cell.spec, frozenset(cell.seeds), frozenset(cell.conditions), cell.search)
        first = known.setdefault(key, cell)
        if first is not cell:
            raise UsageError(
                f"two cells are the same: {first.name}, and {cell.name}; exclude one of them"
            )


def resolve_cells(cells: Sequence[Cell], resolve: Callable[[RunSpec], RunSpec]) -> list[Cell]:
    """Return the cells with resolved specs; each corpus and encoder is looked up once.

    Args:
        cells: from ``expand``.
        resolve: fills in what a spec's identity depends on; reads the spec's data and encoder only.

    Raises:
        StoreError: if a corpus or encoder cannot be found.
    """
    known: dict[Any, RunSpec] = {}
    found = []
    for cell in cells:
        key = (cell.spec.data, cell.spec.text_encoder)
        if key not in known:
            known[key] = resolve(cell.spec)
        data, encoder = known[key].data, known[key].text_encoder
        found.append(replace(cell, spec=replace(cell.spec, data=data, text_encoder=encoder)))
    return found
