"""The command line, but runs that are loaded have a look-up in place of their text encoder.

For ``robustness_evaluation.py --encoder none --commands``: everything else is what a user types.
"""

from __future__ import annotations

import specs

from cider_platform.cli import main
from cider_platform.runs.evaluation import FrozenRun

_load = FrozenRun.__init__


def _load_without_encoder(run: FrozenRun, *args: object) -> None:
    _load(run, *args)
    specs.leave_encoder_out(run.model)


if __name__ == "__main__":
    FrozenRun.__init__ = _load_without_encoder
    main()
