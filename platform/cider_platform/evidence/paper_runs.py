"""Which runs stand for a published cell: corpus, task, model, training protocol, parts left out.

A published model is looked for under its name in small letters with underscores (``EMT-DLFR`` is
``emt_dlfr``), among the models of this program and of installed packages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cider.published import Cell

_FULL: dict[str, Any] = {
    "maci.mcm": True,
    "maci.counterfactual": True,
    "model.wsam": True,
    "model.fusion": "mct",
}
"""CIDer with all its parts; whether its losses count is for the search to find (0 to 1)."""

_LOSSES = ("loss.reconstruction", "loss.attention", "loss.joint")

ABLATIONS: dict[str, dict[str, Any]] = {
    "w/o recon": {"loss.reconstruction": 0.0},
    "w/o attn": {"loss.attention": 0.0},
    "w/o joint": {"loss.joint": 0.0},
    "w/o MSSD": dict.fromkeys(_LOSSES, 0.0),
    "w/o MCM": {"maci.mcm": False},
    "w/o counterfactual text": {"maci.counterfactual": False},
    "w/o MACI": {"maci.mcm": False, "maci.counterfactual": False},
    "w/o WSAM": {"model.wsam": False},
    "w/o MCT": {"model.fusion": "vanilla"},
}
"""Row of table V -> the fields that leave the part out."""
ABLATION_TABLE = "V"

_TRAINED_FOR = re.compile(r" \(trained for (Traditional )?(\w+)\)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRun:
    """What a run must be to stand for a cell; the seed and all else are free."""

    dataset: str
    alignment: str
    distribution: str
    task: str
    model: str
    protocol: str
    """Training protocol."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the spec that are fixed."""
    positive: tuple[str, ...] = ()
    """Fields that must be above 0: table V takes one part away and keeps the others."""

    def fits(self, spec: Mapping[str, Any]) -> bool:
        """Return whether a run's spec is such a run; its corpus is for the caller to judge.

        Args:
            spec: JSON values by dotted path.
        """
        named = {
            "data.alignment": self.alignment,
            "data.distribution": self.distribution,
            "data.task": self.task,
            "model.name": self.model,
            "missing.protocol": self.protocol,
            **self.fields,
        }
        return all(spec.get(path) == value for path, value in named.items()) and all(
            spec.get(path, 0) > 0 for path in self.positive
        )

    def options(self, *, rule: str, seed: int) -> list[str]:
        """Return the options of ``train`` or ``tune`` that ask for such a run.

        Args:
            rule: ``validation`` or ``published``: how epoch and tau are selected.
            seed: of the training.
        """
        words = [
            *("--dataset", self.dataset, "--alignment", self.alignment),
            *("--distribution", self.distribution, "--task", self.task),
            *("--model", self.model, "--missing", self.protocol),
            *("--selection", rule, "--seed", str(seed)),
        ]
        for path, value in self.fields.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            words += ["--set", f"{path}={text}"]
        return words


def wanted_run(cell: Cell, models: Collection[str]) -> WantedRun | None:
    """Return what runs stand for a cell, or None if there is no such model here.

    Args:
        cell: a published cell.
        models: names of the models there are (``cider.models.names``).

    CIDer and most others are trained once, under rmfm, and tested under every protocol; MPLMM has
    a model per protocol.
    """
    model, protocol, fields = _model(cell)
    if model not in models:
        return None
    positive: tuple[str, ...] = ()
    if cell.table == ABLATION_TABLE:
        positive = tuple(path for path in _LOSSES if fields.get(path) is None)
    return WantedRun(
        dataset=cell.train,
        alignment=cell.alignment,
        distribution=cell.distribution,
        task=cell.task,
        model=model,
        protocol=protocol,
        fields=fields,
        positive=positive,
    )


def published_name(printed: str) -> str:
    """Return the name under which a printed model is looked for here, e.g. ``emt_dlfr``."""
    return re.sub(r"\W+", "_", printed.lower())


def _model(cell: Cell) -> tuple[str, str, dict[str, Any]]:
    """Return model, training protocol and fixed fields of a printed model name."""
    if cell.model in ABLATIONS:
        return "cider", "rmfm", {**_FULL, **ABLATIONS[cell.model]}
    if cell.model == "CIDer":
        return "cider", "rmfm", dict(_FULL)
    name, protocol = cell.model, "rmfm"
    if name.startswith("MPLMM") and cell.protocol != "none" and "+" not in name:
        protocol = cell.protocol if cell.protocol != "smm" else "rmfm"
    if (trained := _TRAINED_FOR.search(name)) is not None:
        protocol = "rmfm_per_modality" if trained[1] else trained[2].lower()
        name = name[: trained.start()]
    name = name.removesuffix(" RMFM")
    has_maci = name.endswith("+MACI")
    slug = published_name(name.removesuffix("+MACI"))
    return slug, protocol, {"maci.mcm": has_maci, "maci.counterfactual": has_maci}
