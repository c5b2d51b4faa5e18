"""A study on disk made without training: its values follow from two of its fields."""

import math
import random

from optuna.storages import InMemoryStorage

from cider.spec import RunSpec
from cider_platform.layout import StudyFolder
from cider_platform.search.ledger import Ledger
from cider_platform.search.space import TABLE_II, parse_axis
from cider_platform.search.study import define, open_storage

SPACE = (*TABLE_II, parse_axis("optimizer.lr=log:1e-4:1e-2"))
ASHA = {"name": "asha", "grace": 1, "reduction": 2}


def write_study(results, name="demo", *, total=24, space=SPACE, pruner=None, fail_every=0):
    """Write a study below ``results``; the learning rate counts most, the first field nothing.

    Args:
        results: root of runs and studies.
        name: of the study.
        total: trials.
        space: what is searched; must have ``optimizer.lr``.
        pruner: name and options; None stops nothing.
        fail_every: every so many trials one fails; 0 is none.
    """
    folder = StudyFolder.of(results, name)
    definition = define(RunSpec(), space, sampler="random", pruner=pruner or {"name": "none"})
    ledger = Ledger(InMemoryStorage(), name, definition)
    rng = random.Random(1)
    while (proposal := ledger.ask(total)) is not None:
        number, values = proposal.number, proposal.values
        ledger.note(number, run=f"{number:016x}", seed=1111)
        if fail_every and number % fail_every == fail_every - 1:
            ledger.fail(number, "the loss is not finite (total=nan); lower optimizer.lr")
            continue
        good = 0.6 - 0.2 * abs(math.log10(values["optimizer.lr"]) + 3)
        for epoch in range(1, 5):
            value = good * (1 - math.exp(-epoch)) + rng.gauss(0, 0.001)
            if ledger.report(number, epoch, value) and epoch < 4:
                ledger.prune(number)
                break
        else:
            ledger.complete(number, value)
    # Written at once: a journal waits for the disk at every one of a trial's many events.
    stored = Ledger(open_storage(folder), name, definition)
    stored._study.add_trials(ledger._study.get_trials())
    return stored
