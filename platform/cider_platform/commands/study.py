"""``study``: list the studies, show one, list its trials."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Results, StorageOption, read_storage

app = typer.Typer(help="List studies, show one, list its trials.", no_args_is_help=True)

Study = Annotated[str, typer.Argument(help="A study's name.", metavar="STUDY")]


@app.command("list")
def list_studies(
    results: Results = None, storage: StorageOption = None, json: Json = False
) -> None:
    """List the studies: those of the results folder, or those of a database."""
    from cider_platform.output import emit_json, emit_table, say
    from cider_platform.results import marks
    from cider_platform.roots import results_root
    from cider_platform.search.ledger import best, counts
    from cider_platform.search.study import read_study, study_names
    from cider_platform.tables import number

    root, database = results_root(results), read_storage(storage)
    rows: list[dict[str, Any]] = []
    for name in study_names(root, database):
        definition, trials = read_study(root, name, database)
        found = best(trials)
        rows.append(
            {
                "study": name,
                "trials": counts(trials),
                "objective": ", ".join(definition.get("objectives", ())) or None,
                "best": None if found is None else found.value,
                "marks": marks(definition.get("base", {})),
            }
        )
    if json:
        emit_json("studies", rows)
        return
    if not rows:
        say(f"no studies in {database or root} yet; cider-platform tune makes one")
        return
    emit_table(
        ["study", "trials", "objective", "best", "marks"],
        [
            [row["study"], _counted(row["trials"]), row["objective"], number(row["best"]),
             ", ".join(row["marks"])]
            for row in rows
        ],
        right=["best"],
    )  # fmt: skip


def _counted(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


@app.command("show")
def show_study(
    study: Study, results: Results = None, storage: StorageOption = None, json: Json = False
) -> None:
    """Show what a study searches and the best it has found."""
    from cider_platform.layout import StudyFolder
    from cider_platform.output import emit_json, emit_table, say
    from cider_platform.results import marks
    from cider_platform.roots import results_root
    from cider_platform.search.ledger import best, counts
    from cider_platform.search.space import axis_from_dict
    from cider_platform.search.study import read_study
    from cider_platform.tables import number, title

    root, database = results_root(results), read_storage(storage)
    definition, trials = read_study(root, study, database)
    found = best(trials)
    folder = StudyFolder.of(root, study).root
    if json:
        emit_json(
            "study",
            {
                "study": study,
                "folder": str(folder),
                "storage": None if database is None else str(database),
                "definition": definition,
                "trials": counts(trials),
                "best": None if found is None else asdict(found),
            },
        )
        return
    marked = title(f"study {study}", marks(definition.get("base", {})))
    emit_table(["state", "trials"], sorted(counts(trials).items()), title=marked)
    axes = [str(axis_from_dict(axis)).partition("=") for axis in definition.get("space", [])]
    chosen = found.params if found is not None else {}
    emit_table(
        ["field", "searched over", "best"],
        [[path, values, number(chosen.get(path))] for path, _, values in axes],
        right=["best"],
    )
    if found is not None:
        say(f"best: trial {found.number}, {definition['objectives'][0]} {number(found.value)}, "
            f"run {found.run}")  # fmt: skip
    say(f"files: {folder}" + (f"; kept in {database}" if database else ""))


@app.command("trials")
def list_trials(
    study: Study, results: Results = None, storage: StorageOption = None, json: Json = False
) -> None:
    """List a study's trials, with states as Optuna names them."""
    from cider_platform.output import emit_json, emit_table
    from cider_platform.progress import said
    from cider_platform.roots import results_root
    from cider_platform.search.study import read_study
    from cider_platform.tables import number

    _, trials = read_study(results_root(results), study, read_storage(storage))
    if json:
        emit_json("study.trials", [asdict(trial) for trial in trials])
        return
    emit_table(
        ["number", "state", "value", "epochs", "run", "params", "error"],
        [
            [each.number, each.state, number(each.value), each.epochs, each.run,
             said(each.params), each.error]
            for each in trials
        ],
        right=["number", "value", "epochs"],
    )  # fmt: skip
