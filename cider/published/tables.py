"""Published cells as typed values, in this program's names for tasks, protocols and metrics."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from cider.errors import NothingMatchedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

Unit = Literal["percent", "parameters", "GiB", "s"]

TABLES: tuple[str, ...] = (
    "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI", "XVII",
    "XVIII", "XIX", "XX", "XXI", "XXII",
)  # fmt: skip
"""The paper's numbers of its tables of measurements."""
COMPLEXITY = "VI"
_FIRST = 4
_ARABIC = {str(number): name for number, name in enumerate(TABLES, start=_FIRST)}

_TASKS = {"acc2": "three_class", "f1": "three_class", "acc7": "seven_class"}
_COMPLEXITY_UNITS: dict[str, tuple[str, Unit]] = {
    "parameters_without_text_encoder": ("parameters", "parameters"),
    "gpu_memory_gib": ("gpu_memory", "GiB"),
    "seconds_per_epoch": ("seconds_per_epoch", "s"),
}
"""Column of the CSV -> metric and unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One printed number and what it is of. Table VI has no corpus, protocol or rate: empty."""

    table: str
    """The paper's number of the table, ``IV`` to ``XXII``."""
    model: str
    """As printed, e.g. ``CIDer``, ``EMT-DLFR``, ``w/o MCM``."""
    train: str = ""
    """Corpus that trains: mosi or mosei."""
    test: str = ""
    """Corpus that tests; another one only where the distribution is ``cross_dataset``."""
    task: str = ""
    """three_class (acc2, f1) or seven_class (acc7)."""
    alignment: str = ""
    distribution: str = ""
    """iid, ood or cross_dataset."""
    protocol: str = ""
    """How data is missing in the test: none, rmfm, rmfm_per_modality, rmm, tmfm, stmfm or smm."""
    rate: float | None = None
    """Missing rate; None for an area over all rates, and for smm."""
    kept: str = ""
    """smm only: the modalities that stay."""
    metric: str
    """acc2, f1, acc7; parameters, gpu_memory, seconds_per_epoch in table VI."""
    value: float
    unit: Unit
    decimals: int
    """Digits printed after the point: the number lies within half of the last one."""

    @property
    def is_area(self) -> bool:
        """True for AUILC, the area over the rates 0, 0.1, ..., 1."""
        return bool(self.protocol) and self.rate is None and not self.kept

    @property
    def margin(self) -> float:
        """How far the printed number can be from the measured one by rounding, in its unit."""
        return 0.5 * 10.0**-self.decimals

    @property
    def condition(self) -> str:
        """How data is missing, in short: ``none``, ``rmfm@0.3``, ``rmfm@auilc``, ``smm/LA``."""
        if self.protocol in ("", "none"):
            return self.protocol
        if self.kept:
            return f"{self.protocol}/{self.kept}"
        return f"{self.protocol}@{'auilc' if self.rate is None else f'{self.rate:g}'}"

    @property
    def corpora(self) -> str:
        """``mosi``, or ``mosi>mosei`` where another corpus tests than trains."""
        return self.train if self.train == self.test else f"{self.train}>{self.test}"

    @property
    def address(self) -> str:
        """What ``cell`` finds it by, e.g. ``IV:CIDer:mosi:unaligned:ood:rmfm@auilc:acc2``."""
        parts = (self.corpora, self.alignment, self.distribution, self.condition)
        return ":".join((self.table, self.model, *filter(None, parts), self.metric))


def table_name(text: str) -> str:
    """Return the paper's number of a table, e.g. ``IV`` for table4, 4, IV or "table iv".

    Raises:
        UsageError: if the paper has no such table of measurements.
    """
    name = text.strip().lower().removeprefix("table").strip(" _-").upper()
    name = _ARABIC.get(name, name)
    if name not in TABLES:
        raise UsageError(
            f"unknown table {text!r}; known: table{_FIRST} to table{_FIRST + len(TABLES) - 1} "
            f"({TABLES[0]} to {TABLES[-1]})"
        )
    return name


def cells(table: str) -> tuple[Cell, ...]:
    """Return the cells of a table in the paper's order, row by row.

    Args:
        table: as ``table_name`` takes it.

    Raises:
        UsageError: if there is no such table.
    """
    return _all_cells()[table_name(table)]


def cell(address: str) -> Cell:
    """Return the cell of an address.

    Raises:
        UsageError: if it names no table.
        NothingMatchedError: if the table has no such cell; the message names one that it has.
    """
    table, _, rest = address.partition(":")
    known = {each.address.partition(":")[2]: each for each in cells(table)}
    if rest not in known:
        raise NothingMatchedError(
            f"table {table_name(table)} has no cell {rest!r}; one that it has is "
            f"{next(iter(known))!r}"
        )
    return known[rest]


@cache
def _all_cells() -> dict[str, tuple[Cell, ...]]:
    found: dict[str, list[Cell]] = {name: [] for name in TABLES}
    for each in (*_results(), *_complexity()):
        found[each.table].append(each)
    return {name: tuple(each) for name, each in found.items()}


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = files("cider.published").joinpath(name).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines())


def _results() -> Iterator[Cell]:
    for row in _rows("results.csv"):
        protocol = row["protocol"].lower()
        rate: float | None = None
        if row["missing_rate"] != "auilc" and protocol != "smm":
            rate = float(row["missing_rate"])
        yield Cell(
            table=row["table"],
            model=row["model"],
            train=row["train"],
            test=row["test"],
            task=_TASKS[row["metric"]],
            alignment=row["alignment"],
            # The paper counts its cross-dataset tables as iid.
            distribution=row["distribution"] if row["train"] == row["test"] else "cross_dataset",
            protocol=protocol,
            rate=rate,
            kept=row["kept_modalities"],
            metric=row["metric"],
            value=float(row["value"]),
            unit="percent",
            decimals=_decimals(row["value"]),
        )


def _complexity() -> Iterator[Cell]:
    for row in _rows("complexity.csv"):
        for column, (metric, unit) in _COMPLEXITY_UNITS.items():
            if row[column]:
                yield Cell(
                    table=COMPLEXITY,
                    model=row["model"],
                    metric=metric,
                    value=float(row[column]),
                    unit=unit,
                    decimals=_decimals(row[column]),
                )


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])
