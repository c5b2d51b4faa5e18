"""A job: what a job file says, checked. ``[execution]`` alone does not bear identity.

.. code-block:: toml

    [base]
    "training.epochs" = 50

    [axes]
    dataset = ["mosi", "mosei"]
    missing = ["rmfm", "rmm"]
    seed = "0:8"

    [[exclude]]
    dataset = "mosei"
    missing = "rmm"

    [evaluate]
    protocols = ["own", "smm"]
    rates = "0:1:0.1"

    [execution]
    slots = 4
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from cider import missing
from cider.config import check_positive, check_range, field_types, from_dict
from cider.errors import UsageError
from cider.modality import KEPT_SETS
from cider.registry import lookup
from cider_platform.execution.stalls import DEFAULT_SECONDS
from cider_platform.grids.axes import Axis, read_axes, read_exclude
from cider_platform.grids.specs import Value, field_name, flat_fields, seeds_of
from cider_platform.grids.texts import check_job_name, check_values, unknown
from cider_platform.runs.rates import parse_rates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

B = TypeVar("B")

OWN = "own"
"""Stands in ``[evaluate]`` for the protocol, and kept set, that a cell is trained with."""
BLOCKS = ("base", "axes", "exclude", "search", "evaluate", "execution")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBlock:
    """A search in every cell; the best configuration is then trained on fresh seeds."""

    trials: int = 300
    """Total trials of each cell's study. Published: 300."""
    sampler: str = "tpe"
    pruner: str = "asha"
    grace: int | None = None
    """Epochs before which nothing is stopped; none is the pruner's own choice."""
    objective: tuple[str, ...] = ()
    """Names of objectives; none is the score by which runs select their epoch."""
    space: tuple[str, ...] = ()
    """Axes as ``--space`` has them; none is the default space of the model (CIDer: Table II)."""
    seed: int = 1111
    """Of the sampler, and of the runs that are searched with. Published: 1111."""
    final_seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    """Seeds on which the best configuration is trained for the table."""

    def __post_init__(self) -> None:
        check_range("search.trials", self.trials, 1, 1_000_000)
        check_range("search.seed", self.seed, 0, 2**32 - 1)
        if self.seed in self.final_seeds:
            raise UsageError(
                f"search.final_seeds has {self.seed}, the seed that is searched with; the best of "
                "a search is to be trained on seeds it was not chosen by"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateBlock:
    """What every run is evaluated under; changes nothing that is trained."""

    protocols: tuple[str, ...] = (OWN,)
    """Missing protocols, and ``own``."""
    rates: tuple[float, ...] = ()
    """Missing rates; none is rate 0 and the rates that runs select their epoch at."""
    kept: tuple[str, ...] = tuple(KEPT_SETS)
    """Kept sets of ``smm``."""

    def __post_init__(self) -> None:
        for name in self.protocols:
            if name != OWN:
                missing.uses_rate(name)
        if not self.protocols:
            raise UsageError("evaluate.protocols names no protocol; leave it out for the own one")
        for kept in self.kept:
            lookup("kept set in evaluate.kept", kept, dict.fromkeys(KEPT_SETS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionBlock:
    """Where and how runs execute; no number depends on it."""

    slots: int | None = None
    """Runs at a time; none fills the machine."""
    threads: int = 1
    """Cores, and threads, of each run."""
    gpus_per_run: float | None = None
    """Share of a GPU of each run; none is a whole one where there are GPUs."""
    device: str = "auto"
    """``cpu``, ``cuda`` or ``auto``: a GPU if there is one."""
    progress_timeout: float = DEFAULT_SECONDS
    """Seconds without progress after which a run fails."""

    def __post_init__(self) -> None:
        lookup("device in [execution]", self.device, dict.fromkeys(("auto", "cpu", "cuda")))
        check_positive("execution.threads", self.threads)
        check_positive("execution.progress_timeout", self.progress_timeout)
        if self.slots is not None:
            check_positive("execution.slots", self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job, checked field by field; its cells are made by ``cider_platform.grids.cells``."""

    name: str
    base: Mapping[str, Value]
    """Field -> value of every cell, by the names of ``specs.field_name``."""
    axes: tuple[Axis, ...]
    """What differs between cells; the last one varies fastest."""
    seeds: tuple[int, ...]
    """Seeds that every cell is trained with; with a search its final seeds."""
    exclude: tuple[Mapping[str, tuple[str, ...]], ...] = ()
    """Partial assignments whose cells are left out, as texts of values."""
    search: SearchBlock | None = None
    evaluate: EvaluateBlock = field(default_factory=EvaluateBlock)
    execution: ExecutionBlock = field(default_factory=ExecutionBlock)


def read_job(
    name: str,
    document: Mapping[str, Any],
    *,
    axes: Sequence[str] = (),
    settings: Sequence[str] = (),
) -> Job:
    """Return the job that a parsed job file and the command line ask for.

    Args:
        name: the job's name, by which its grids are called.
        document: the parsed TOML.
        axes: ``--axis``: ``NAME=VALUE,VALUE``; replaces an axis, or makes one.
        settings: ``--set``: ``FIELD=VALUE``, for every cell.

    Raises:
        UsageError: for the first key or value that is not allowed; one sentence.
    """
    check_job_name(name)
    for key, block in document.items():
        if key not in BLOCKS:
            raise unknown("block", key, BLOCKS)
        check_values(f"[{key}]", block)
        if key != "exclude" and not isinstance(block, dict):
            raise UsageError(f"[{key}] must be a table, got {block!r}")
    base = flat_fields("[base]", document.get("base", {}))
    found, seeds = read_axes(document.get("axes", {}), axes)
    base, found = _with_settings(base, found, settings)
    if "seed" in base:
        seeds = seeds or tuple(seeds_of("base.seed", base["seed"]))
        base = {path: value for path, value in base.items() if path != "seed"}
    both = [axis.name for axis in found if axis.name in base]
    base = {path: value for path, value in base.items() if path not in both}
    search = _search(document.get("search"), seeds)
    if search is not None:
        seeds = search.final_seeds
    _check_fields(base, found)
    return Job(
        name=name,
        base=base,
        axes=found,
        seeds=seeds or (1111,),
        exclude=read_exclude(document.get("exclude", []), document.get("axes", {}), found),
        search=search,
        evaluate=_evaluate(document.get("evaluate", {})),
        execution=_block(ExecutionBlock, "execution", document.get("execution", {})),
    )


def _with_settings(
    base: Mapping[str, Value], axes: tuple[Axis, ...], settings: Sequence[str]
) -> tuple[dict[str, Value], tuple[Axis, ...]]:
    """Return base and axes with ``--set`` in them: it wins over the file."""
    base = dict(base)
    for text in settings:
        path, equals, value = text.partition("=")
        if not (path and equals):
            raise UsageError(f"--set must be FIELD=VALUE, e.g. training.epochs=3, got {text!r}")
        name = field_name("--set", path)
        if name == "seed":
            raise UsageError(f"seeds are an axis; give --axis seed={value} instead of --set")
        if any(axis.name == name for axis in axes):
            raise UsageError(f"{name} is an axis of this job; give --axis {name}={value} instead")
        base[name] = value
    return base, axes


def _check_fields(base: Mapping[str, Value], axes: tuple[Axis, ...]) -> None:
    """Refuse fields of a model that the job does not use; only then may a name be a slip."""
    names = [axis.name for axis in axes]
    for axis in axes:
        clash = {path for choice in axis.choices for path in choice.values} & {*names} - {axis.name}
        if clash:
            raise UsageError(f"{min(clash)} is both an axis and set by a variant; keep one")
    models = {str(base.get("model", "cider"))}
    for axis in axes:
        if axis.name == "model":
            models = {str(value) for choice in axis.choices for value in choice.values.values()}
    paths = {*base, *(path for axis in axes for choice in axis.choices for path in choice.values)}
    for path in paths:
        if path.startswith("model.") and len(models) == 1:
            field_name("this job", path, *models)


def _search(block: Mapping[str, Any] | None, seeds: Sequence[int]) -> SearchBlock | None:
    if block is None:
        return None
    if seeds:
        raise UsageError(
            "a job with [search] trains its best configurations on search.final_seeds; leave out "
            "the axis seed, and give search.seed for the search itself"
        )
    values = dict(block)
    for name in ("objective", "space"):
        if isinstance(values.get(name), str):
            values[name] = [values[name]]
    if "final_seeds" in values:
        values["final_seeds"] = seeds_of("search.final_seeds", values["final_seeds"])
    return _block(SearchBlock, "search", values)


def _evaluate(block: Mapping[str, Any]) -> EvaluateBlock:
    values = dict(block)
    if isinstance(values.get("rates"), str):
        values["rates"] = parse_rates(values["rates"], "evaluate.rates")
    found = _block(EvaluateBlock, "evaluate", values)
    for rate in found.rates:
        check_range("evaluate.rates", rate, 0.0, 1.0)
    return found


def _block(kind: type[B], where: str, values: Mapping[str, Any]) -> B:
    known = field_types(kind)
    for name in values:
        if name not in known:
            raise unknown(f"key in [{where}]", name, known)
    return from_dict(kind, dict(values), where)
