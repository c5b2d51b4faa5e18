"""What a search maximises or minimises, by name: ``valid/acc2``, ``valid/auilc/acc2``, ...

=====================  =========  ==================================================================
name                   direction  value
=====================  =========  ==================================================================
``valid/METRIC``       maximise   mean over the rates a run selects its epoch at; of the metric
                                  it selects by, the selected epoch's own score
``valid/METRIC@RATE``  maximise   at one missing rate of the run's protocol
``valid/auilc/METRIC`` maximise   area under the metric over the rates 0, 0.1, ..., 1
``parameters``         minimise   number of the model's parameters without the text encoder
=====================  =========  ==================================================================

All are of the frozen run's selected epoch and read the validation split only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean as mean
from typing import TYPE_CHECKING, Literal

from cider.errors import UsageError
from cider.metrics import auilc, metrics_of_task
from cider_platform.runs.conditions import ALL_RATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cider.spec import RunSpec

PARAMETERS = "parameters"
AUILC_RATES = ALL_RATES
_FORMS = "valid/METRIC, valid/METRIC@RATE, valid/auilc/METRIC or parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One quantity a search looks at."""

    name: str
    """As written in the study."""
    metric: str = ""
    """Name of a validation metric; empty for ``parameters``."""
    rates: tuple[float, ...] | None = None
    """Missing rates it is measured at; None means those the run selects its epoch at."""
    is_area: bool = False

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """As Optuna names it."""
        return "maximize" if self.metric else "minimize"

    def is_score_of(self, spec: RunSpec) -> bool:
        """Return whether it is the very score by which the run selects its epoch."""
        return self.metric == spec.selection_metric and self.rates is None

    def value(self, found: Sequence[Mapping[str, float | None]], parameters: int) -> float:
        """Return its value.

        Args:
            found: validation metrics under every condition it looks at, in the order of the rates.
            parameters: the model's number of parameters.
        """
        if not self.metric:
            return float(parameters)
        known = [each[self.metric] for each in found]
        values = [math.nan if value is None else value for value in known]
        if self.is_area:
            assert self.rates is not None
            return auilc(self.rates, values)
        return mean(values)


def parse_objective(text: str, spec: RunSpec) -> Objective:
    """Read an objective's name and check it against the spec.

    Raises:
        UsageError: if it is no objective, names a metric that the task does not have, or a rate
            outside 0 to 1 or of a protocol that has none.
    """
    if text == PARAMETERS:
        return Objective(name=text)
    kind, slash, rest = text.partition("/")
    if kind != "valid" or not slash:
        raise UsageError(f"an objective is {_FORMS}, got {text!r}")
    is_area = rest.startswith("auilc/")
    metric, at, rate_text = rest.removeprefix("auilc/").partition("@")
    known = metrics_of_task(spec.data.task)
    if metric not in known:
        raise UsageError(
            f"objective {text!r}: the task {spec.data.task} has the metrics {', '.join(known)}; "
            f"got {metric!r}"
        )
    if (is_area or at) and spec.missing.protocol in ("none", "smm"):
        raise UsageError(
            f"objective {text!r}: the protocol {spec.missing.protocol} has no missing rates; use "
            f"valid/{metric}"
        )
    if is_area and at:
        raise UsageError(f"objective {text!r}: an area is over all rates; leave out @{rate_text}")
    rates = AUILC_RATES if is_area else (_rate(text, rate_text),) if at else None
    return Objective(name=text, metric=metric, rates=rates, is_area=is_area)


def parse_objectives(names: Sequence[str], spec: RunSpec) -> tuple[Objective, ...]:
    """Read a search's objectives; none named means the score by which runs select their epoch.

    Raises:
        UsageError: as ``parse_objective``, and if one is named twice.
    """
    found = [parse_objective(name, spec) for name in names or [f"valid/{spec.selection_metric}"]]
    twice = next((each.name for each in found if found.count(each) > 1), None)
    if twice is not None:
        raise UsageError(f"objective {twice!r} is named twice; keep one")
    return tuple(found)


def directions(names: Sequence[str]) -> list[Literal["maximize", "minimize"]]:
    """Return the direction of every objective of a stored study."""
    return ["minimize" if name == PARAMETERS else "maximize" for name in names]


def _rate(text: str, rate: str) -> float:
    try:
        value = float(rate)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(f"objective {text!r}: a missing rate is from 0 to 1, got {rate!r}")
    return value
