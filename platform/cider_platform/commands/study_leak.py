"""``study leak``: how much better a study looks to whoever chooses on the test split."""

from __future__ import annotations

from typing import TYPE_CHECKING

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Results, StorageOption, read_storage
from cider_platform.commands.study import Study  # noqa: TC001

if TYPE_CHECKING:
    from cider_platform.evidence.leak import Leak

_MOST_COMMANDS = 10


def leak(
    study: Study, results: Results = None, storage: StorageOption = None, json: Json = False
) -> None:
    """Measure what choosing on the test split would add to a study, or did, and what luck gives.

    It reads the test scores of runs that are frozen and evaluated. Nothing may be chosen by it.

    Example: cider-platform study leak mosei-first
    """
    from cider_platform.evidence.leak import measure_leak
    from cider_platform.output import emit_json
    from cider_platform.roots import results_root

    found = measure_leak(results_root(results), study, read_storage(storage))
    if json:
        emit_json("study.leak", found.to_dict())
    else:
        _print(found)


def _print(found: Leak) -> None:
    from cider_platform.output import emit_table, say
    from cider_platform.tables import number, title

    rows = _rows(found)
    if rows:
        what = f"study {found.study}: {found.objective} at {', '.join(found.conditions)}"
        emit_table(
            ["leak meter", "value"],
            [[name, number(value)] for name, value in rows],
            title=title(what, found.marks),
            right=["value"],
        )
    say(f"{len(found.scores)} of {found.complete} complete runs have test scores for both choices")
    for line in _notes(found):
        say(line)


def _rows(found: Leak) -> list[tuple[str, object]]:
    optimism, chance = found.optimism, found.chance
    rows: list[tuple[str, object]] = []
    if optimism is not None:
        share = optimism.tau_share
        rows += [
            ("test score of the trial that validation chooses", optimism.selected_on_validation),
            ("best test score", optimism.best_on_test),
            ("optimism of choosing on test", optimism.total),
            ("  by the trial", optimism.by_trial),
            ("  by the epoch", optimism.by_epoch),
            ("  by tau", optimism.by_tau),
            ("tau's share", "-" if share is None else f"{share:.0%}"),
        ]
    if chance is not None:
        rows += [
            (f"by the trial, from luck alone with {chance.num_trials} trials", chance.mean),
            ("  of 100 such studies 95 have at most", chance.upper),
            ("  share of such studies with at least what was seen (p)", chance.p),
            ("  a trial's own luck on the test split (SD)", chance.sd),
            ("  correlation of validation and test over trials", chance.correlation),
        ]
    return rows


def _notes(found: Leak) -> list[str]:
    lines = []
    if found.optimism is None:
        lines.append("no optimism is known: the trial that validation chooses is not evaluated")
    elif len(found.scores) < found.complete:
        lines.append("the optimism is at least this: the best on test may be among the others")
    if found.optimism is not None and found.rule == "validation":
        lines.append("by the epoch: not seen, the honest selection keeps the weights of one epoch")
    if found.chance is None:
        lines.append("luck is not known: it takes the predictions of at least two runs")
    if found.missing:
        lines.append(f"missing evaluations: {len(found.missing)}; make them with")
        lines += [f"  {command}" for command in found.missing[:_MOST_COMMANDS]]
    if len(found.missing) > _MOST_COMMANDS:
        lines.append("  ... --json lists all")
    return lines
