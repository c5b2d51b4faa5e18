"""The seal on the test split: its labels open only for a run whose configuration is frozen.

Training and search never hold a ``TestPermit``. It is made from the record that ends a training
(``frozen.json``: run id, epoch, tau, hash of the weights), after which nothing can be chosen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cider.errors import SealedTestError

if TYPE_CHECKING:
    from pathlib import Path

    from cider.spec import RunSpec

FROZEN_FILE = "frozen.json"
_NEEDED = ("run_id", "epoch", "weights_sha256")


@dataclass(frozen=True, slots=True)
class TestPermit:
    """Leave to read test labels; ``reason`` is written beside every number made with it."""

    __test__ = False  # the name begins with Test, and pytest would collect it

    run_id: str
    reason: str


def permit_for_frozen_run(run_folder: Path) -> TestPermit:
    """Return leave to evaluate a finished run on the test split.

    Args:
        run_folder: the run's folder, which holds ``frozen.json`` once its training has ended.

    Raises:
        SealedTestError: if the run is not frozen or its record is incomplete.
    """
    path = run_folder / FROZEN_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SealedTestError(
            f"the test split is sealed: run {run_folder.name} is not frozen, it has no "
            f"{FROZEN_FILE}; let its training end first"
        ) from None
    except ValueError:
        raise SealedTestError(f"the test split is sealed: {path} is not readable JSON") from None
    missing = [name for name in _NEEDED if not record.get(name)]
    if missing:
        raise SealedTestError(
            f"the test split is sealed: {path} lacks {', '.join(missing)}; train the run again"
        )
    return TestPermit(str(record["run_id"]), "frozen")


def permit_for_published_selection(spec: RunSpec) -> TestPermit:
    """Return leave to select on the test split, for a spec that asks for exactly that.

    Raises:
        SealedTestError: unless ``selection.rule`` is ``published``.
    """
    if spec.selection.rule != "published":
        raise SealedTestError(
            "the test split is sealed during training and search; choose on validation, or set "
            "selection.rule=published to reproduce the paper's selection on the test split"
        )
    return TestPermit(spec.run_id, "published selection")
