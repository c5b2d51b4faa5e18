"""From published tables to one grid: the runs their cells need, and what cannot be run and why.

A grid's runs are content-addressed, so one that another grid or command has trained already is not
trained again: with the default seeds these are the runs of the shipped jobs ``paper_*``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from cider.condition import Condition
from cider.data.datasets import import_command
from cider.data.schema import StoreKey
from cider.data.store import find_store
from cider.data.synthetic import is_synthetic, parse_name
from cider.errors import StoreError, UsageError
from cider.models import names
from cider.published import TABLES, cells, table_name
from cider.published.tables import COMPLEXITY
from cider.spec import RunSpec
from cider_platform.evidence.ours import RULES, OurRuns, Rule
from cider_platform.evidence.paper_runs import WantedRun, wanted_run
from cider_platform.grids.cells import Cell as GridCell
from cider_platform.grids.grid import Grid
from cider_platform.grids.specs import SHORT_NAMES, field_name, spec_of
from cider_platform.runs.resolving import resolve_spec
from cider_platform.search.objectives import AUILC_RATES
from cider_platform.tables import flat

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cider.published import Cell

DEFAULT_SEEDS: tuple[int, ...] = tuple(range(8))
"""Those of the shipped jobs. With fewer than 6, no paired test of two models can reach 0.05."""
ALL = "all"
CORPORA = ("mosi", "mosei")
_FREE = ("encoder",)
"""Fields with short names that a published cell leaves open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """Published cells that cannot be run here."""

    what: str
    """Models or corpora."""
    cells: int
    reason: str
    """Why, and what to do, in one sentence."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"what": self.what, "cells": self.cells, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperGrid:
    """What published tables need."""

    tables: tuple[str, ...]
    """The paper's numbers of them."""
    cells: int
    """Published numbers of the tables, of the models that were asked for."""
    grid: Grid | None
    """All that can be run; None if nothing can."""
    serves: Mapping[str, int]
    """Id of a cell of the grid -> published numbers that it has a part in."""
    blocked: tuple[Blocked, ...]


@dataclass(slots=True)
class _Need:
    """A run that published cells need, but for the seed."""

    wanted: WantedRun
    rule: Rule
    cells: list[Cell]
    seeds: tuple[int, ...]


def tables_of(texts: Iterable[str]) -> list[str]:
    """Return the paper's numbers of tables, each once and in its order; ``all`` is every one.

    Raises:
        UsageError: if the paper has no such table of measurements.
    """
    found = {name for text in texts for name in (TABLES if text == ALL else [table_name(text)])}
    return [name for name in TABLES if name in found]


def read_corpora(texts: Iterable[str]) -> dict[str, str]:
    """Return the dataset that stands for each published corpus, as ``--dataset`` names them.

    Args:
        texts: ``CORPUS=NAME``, or a synthetic name, which says itself what it imitates.

    Raises:
        UsageError: for another corpus than mosi and mosei, or one that is named twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        corpus, equals, dataset = text.partition("=")
        if not equals and is_synthetic(text):
            corpus, dataset = parse_name(text).corpus, text
        elif not equals and text in CORPORA:
            dataset = text
        if corpus not in CORPORA or not dataset:
            raise UsageError(
                "--dataset names what stands for a published corpus: mosi=NAME, mosei=NAME, or a "
                f"synthetic corpus such as synthetic-mosi, got {text!r}"
            )
        if corpus in found:
            raise UsageError(
                f"--dataset names {found[corpus]} and {dataset} for {corpus}; keep one"
            )
        found[corpus] = str(parse_name(dataset)) if is_synthetic(dataset) else dataset
    return {corpus: found.get(corpus, corpus) for corpus in CORPORA}


def beside_other_corpora(corpora: Mapping[str, str]) -> list[str]:
    """Return what must be read with numbers of datasets that stand for published corpora."""
    return [
        f"{dataset} stands in the place of {corpus}"
        + (" and is synthetic" if is_synthetic(dataset) else "")
        + ": its numbers are not comparable with the published ones"
        for corpus, dataset in corpora.items()
        if dataset != corpus
    ]


def read_settings(texts: Iterable[str]) -> dict[str, str]:
    """Return the fields that ``--set`` gives every run.

    Raises:
        UsageError: for a field that there is not, or one that the published cells decide.
    """
    found: dict[str, str] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not (path and equals):
            raise UsageError(f"--set must be FIELD=VALUE, e.g. training.epochs=3, got {text!r}")
        name = field_name("--set", path)
        if name == "seed":
            raise UsageError(f"seeds are given by --seeds, got --set {text}")
        if name in SHORT_NAMES and name not in _FREE:
            raise UsageError(
                f"{name} is decided by the published cells, and by --dataset, --model and "
                f"--selection; got --set {text}"
            )
        found[name] = value
    return found


def paper_grid(
    tables: Sequence[str],
    store: Path,
    *,
    rules: Sequence[Rule] = RULES,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    models: Sequence[str] = (),
    corpora: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    found: OurRuns | None = None,
) -> PaperGrid:
    """Return the grid whose runs the cells of published tables need.

    Args:
        tables: the paper's numbers (``tables_of``).
        store: root of the feature stores; a synthetic corpus is generated on first use.
        rules: selection rules that are wanted; each is trained for itself.
        seeds: of every configuration.
        models: rows as printed; none means all.
        corpora: published corpus -> dataset that stands for it.
        settings: fields of every run, by the names of ``read_settings``.
        found: finished runs: where some fit a cell, theirs is the configuration, and its seeds are
            completed; None takes the defaults everywhere.

    Raises:
        UsageError: for a setting that does not fit, or contradicts what a cell is of.
    """
    places = [each for name in tables for each in cells(name) if not models or each.model in models]
    needs, blocked = _needs(places, rules, tuple(seeds))
    _check_settings(settings or {}, needs)
    made: dict[RunSpec, _Need] = {}
    obstacles: dict[str, list[Cell]] = {}
    named: dict[str, str] = {}
    for need in needs:
        spec = _spec(need, corpora or {}, settings or {}, found)
        obstacle = _obstacle(spec, store)
        if obstacle:
            data = spec.data
            named[obstacle] = f"{data.dataset} ({data.alignment}, {data.distribution})"
            obstacles.setdefault(obstacle, []).extend(need.cells)
        else:
            # Tables share runs: table V's whole model is table IV's.
            known = made.setdefault(replace(resolve_spec(spec, store), seed=0), need)
            known.cells += need.cells if known is not need else []
    blocked += [
        Blocked(what=named[reason], cells=len(_once(each)), reason=reason)
        for reason, each in obstacles.items()
    ]
    grid_cells, serves = _cells(made)
    name = "reproduce_" + ("_".join(_arabic(each) for each in tables) if len(tables) < 4 else "all")
    return PaperGrid(
        tables=tuple(tables),
        cells=len(places),
        grid=Grid(name, tuple(grid_cells)) if grid_cells else None,
        serves=serves,
        blocked=tuple(blocked),
    )


def _arabic(table: str) -> str:
    return f"table{TABLES.index(table) + 4}"


def _once(found: Iterable[Cell]) -> dict[str, Cell]:
    """Return each cell once: both selection rules need it."""
    return {each.address: each for each in found}


def _needs(
    places: Sequence[Cell], rules: Sequence[Rule], seeds: tuple[int, ...]
) -> tuple[list[_Need], list[Blocked]]:
    """Return the runs that cells need, and the cells that no run here can be for."""
    known = names()
    needs: dict[tuple[str, Rule], _Need] = {}
    lacking: Counter[str] = Counter()
    for cell in places:
        wanted = None if cell.table == COMPLEXITY else wanted_run(cell, known)
        if wanted is None:
            lacking[COMPLEXITY if cell.table == COMPLEXITY else cell.model] += 1
            continue
        for rule in rules:
            need = needs.setdefault((repr(wanted), rule), _Need(wanted, rule, [], seeds))
            need.cells.append(cell)
    blocked = []
    if costs := lacking.pop(COMPLEXITY, 0):
        reason = "what a model costs is not measured by runs: cider-platform complexity"
        blocked.append(Blocked(what=f"table {COMPLEXITY}", cells=costs, reason=reason))
    if lacking:
        reason = "no such model here; a package can register it: docs/adding-a-model.md"
        count = sum(lacking.values())
        blocked.append(Blocked(what=", ".join(lacking), cells=count, reason=reason))
    return list(needs.values()), blocked


def _check_settings(settings: Mapping[str, str], needs: Sequence[_Need]) -> None:
    """Refuse a setting that would count nowhere: every run here has that field fixed."""
    for name in settings:
        if needs and all(name in need.wanted.fields for need in needs):
            raise UsageError(
                f"--set {name} would change what the tables' rows are of: every run they need has "
                f"{name}={needs[0].wanted.fields[name]} or another fixed value"
            )


def _spec(
    need: _Need,
    corpora: Mapping[str, str],
    settings: Mapping[str, str],
    found: OurRuns | None,
) -> RunSpec:
    """Return the spec, not yet resolved, of a need's runs but for the seed."""
    wanted = need.wanted
    if found is not None:
        known = found.of(need.cells[0], need.rule)
        if known.runs and known.state in ("measured", "not evaluated"):
            further = (seed for seed in need.seeds if seed not in known.seeds)
            number = max(0, len(need.seeds) - len(known.seeds))
            need.seeds = (*known.seeds, *islice(further, number))
            return RunSpec.from_dict(found.spec_of(known.runs[0]))
    values: dict[str, Any] = {
        **settings,
        "dataset": corpora.get(wanted.dataset, wanted.dataset),
        "alignment": wanted.alignment,
        "distribution": wanted.distribution,
        "task": wanted.task,
        "model": wanted.model,
        "missing": wanted.protocol,
        "selection": need.rule,
        **{field_name("a published cell", path): value for path, value in wanted.fields.items()},
    }
    spec = spec_of(values)
    if not wanted.fits(dict(flat(spec.to_dict()))):
        given = " ".join(f"--set {name}={value}" for name, value in settings.items())
        raise UsageError(f"{given} makes a run that does not stand for {need.cells[0].address}")
    return spec


def _obstacle(spec: RunSpec, store: Path) -> str:
    """Return why runs of a spec cannot be trained here; empty if they can."""
    data = spec.data
    if not is_synthetic(data.dataset):
        try:
            find_store(store, data.dataset, data.alignment, data.distribution, data.task)
        except StoreError:
            task = data.task if data.distribution == "ood" else "any"
            key = StoreKey(
                dataset=data.dataset,
                alignment=data.alignment,
                distribution=data.distribution,
                task=task,
            )
            return f"not in the feature store {store}; import it: {import_command(key)}"
    try:
        resolve_spec(spec, store)
    except (StoreError, UsageError) as error:
        return str(error)
    return ""


def _cells(made: Mapping[RunSpec, _Need]) -> tuple[list[GridCell], dict[str, int]]:
    labels = [_labels(need, spec) for spec, need in made.items()]
    # What all cells have in common says nothing; the model stays, so that a cell has a name.
    shown = [
        name
        for name in (labels[0] if labels else ())
        if name == "model" or len({each[name] for each in labels}) > 1
    ]
    grid_cells, serves = [], {}
    for values, (spec, need) in zip(labels, made.items(), strict=True):
        cell = GridCell(
            values={name: values[name] for name in shown},
            spec=replace(spec, seed=need.seeds[0]),
            seeds=need.seeds,
            conditions=tuple(_conditions(need.cells)),
        )
        grid_cells.append(cell)
        serves[cell.id] = len(_once(need.cells))
    return grid_cells, serves


def _labels(need: _Need, spec: RunSpec) -> dict[str, str]:
    return {
        "model": need.cells[0].model,
        "dataset": spec.data.dataset,
        "alignment": spec.data.alignment,
        "distribution": spec.data.distribution,
        "task": spec.data.task,
        "missing": spec.missing.protocol,
        "selection": spec.selection.rule,
    }


def _conditions(served: Iterable[Cell]) -> list[Condition]:
    """Return what the runs are evaluated under, each once."""
    found: dict[Condition, None] = {}
    needs_complete = False
    for cell in served:
        if cell.kept:
            found[Condition("smm", 0.0, cell.kept)] = None
        elif cell.protocol == "none":
            needs_complete = True
        else:
            rates = AUILC_RATES if cell.rate is None else (cell.rate,)
            found |= dict.fromkeys(Condition(cell.protocol, rate) for rate in rates)
    # Rate 0 of any protocol is the complete input.
    if needs_complete and not any(each.rate == 0 and not each.kept for each in found):
        found[Condition("none", 0.0)] = None
    return list(found)
