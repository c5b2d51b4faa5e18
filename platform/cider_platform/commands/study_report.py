"""What ``study`` tells of a study: its best trial, its table, importance, figures, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Results, StorageOption, read_storage
from cider_platform.commands.study import Study  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna

    from cider_platform.search.ledger import TrialRecord
    from cider_platform.search.why import Explanation

Out = Annotated[Path, typer.Option("--out", help="File to write: .csv, .json or .parquet.")]
Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the figures.")]
Trial = Annotated[int, typer.Argument(help="A trial's number.", metavar="TRIAL")]


def best(
    study: Study, results: Results = None, storage: StorageOption = None, json: Json = False
) -> None:
    """Show the best configuration, its scores, its run, and the command that trains it again.

    Example: cider-platform study best mosei-first
    """
    from cider_platform.output import emit_json

    data = _best(_begun(study, results, storage), results)
    if json:
        emit_json("study.best", data)
    else:
        _print_best(data)


def _begun(name: str, results: Path | None, storage: str | None) -> optuna.Study:
    """Return a study that has begun."""
    from cider.errors import NothingMatchedError
    from cider_platform.roots import results_root
    from cider_platform.search.study import open_study

    found = open_study(results_root(results), name, read_storage(storage))
    if found is None:
        raise NothingMatchedError(f"study {name} has not begun: it has no trials")
    return found


def _best(study: optuna.Study, results: Path | None) -> dict[str, Any]:
    from cider.errors import NothingMatchedError
    from cider_platform.commands.retrain import train_command, train_options, trial_spec
    from cider_platform.layout import RunFolder
    from cider_platform.results import evaluations, marks, read_run
    from cider_platform.roots import results_root
    from cider_platform.search.ledger import counts, pareto, records
    from cider_platform.search.objectives import directions
    from cider_platform.search.racing import best_configuration
    from cider_platform.search.study import objective_names, space_of

    definition = study.user_attrs
    trials = records(study, space_of(definition))
    names = objective_names(definition)
    configuration = best_configuration(trials, minimise=directions(names)[0] == "minimize")
    found = None if configuration is None else configuration.trials[0]
    if configuration is None or found is None or found.run is None:
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts(trials).items()))
        raise NothingMatchedError(
            f"study {study.study_name} has no complete trial yet, it has {states or 'none'}; "
            f"cider-platform study trials {study.study_name} lists them"
        )
    record = read_run(RunFolder.of(results_root(results), found.run))
    spec = trial_spec(definition, found)
    return {
        "study": study.study_name,
        "objectives": names,
        "trial": found.number,
        "value": found.value,
        "values": found.values,
        "scores": configuration.scores,
        "mean": configuration.mean,
        "pareto": [each.number for each in pareto(trials, names)] if len(names) > 1 else [],
        "params": found.params,
        "run": found.run,
        "folder": str(record.folder.root) if record.spec else None,
        "epoch": record.result.get("epoch"),
        "epochs": record.result.get("epochs"),
        "seed": found.seed,
        "marks": marks(spec, record.result),
        "evaluations": evaluations(record),
        "train_options": train_options(spec),
        "train_command": train_command(spec),
    }


def _print_best(data: dict[str, Any]) -> None:
    from cider_platform.output import emit_line, emit_table, say
    from cider_platform.tables import evaluation_table, number, title

    marked = title(f"study {data['study']}: trial {data['trial']}", data["marks"])
    emit_table(
        ["field", "best"],
        [[path, number(value)] for path, value in data["params"].items()],
        title=marked,
        right=["best"],
    )
    values = data["values"] or [data["value"]]
    rows = [[name, number(value)] for name, value in zip(data["objectives"], values, strict=False)]
    if len(data["scores"]) > 1:
        rows.append([f"mean over {len(data['scores'])} seeds", number(data["mean"])])
    if data["pareto"]:
        rows.append(["Pareto set, trials", ", ".join(map(str, data["pareto"]))])
    rows.append(["run", data["run"]])
    if data["folder"]:
        rows += [["epoch", f"{data['epoch']} of {data['epochs']}"], ["files", data["folder"]]]
    else:
        rows.append(["files", "the run's folder is gone"])
    emit_table(["fact", "value"], rows)
    if data["evaluations"]:
        columns, cells = evaluation_table(data["evaluations"])
        heading = title("its validation and sealed-test scores", data["marks"])
        emit_table(columns, cells, title=heading, right=columns[1:])
    elif data["folder"]:
        say(f"not yet evaluated on the sealed test split: cider-platform evaluate {data['run']}")
    say("the command that trains it again, on any machine that has the corpus:")
    emit_line(data["train_command"])


def export(study: Study, out: Out, results: Results = None, storage: StorageOption = None) -> None:
    """Write a table with a row per trial: CSV, JSON or Parquet, as the file's name ends.

    Example: cider-platform study export mosei-first --out trials.csv
    """
    from cider_platform.output import say
    from cider_platform.search.study_export import write_export

    count = write_export(_begun(study, results, storage), out)
    say(f"{count} trials written to {out}")


def importance(
    study: Study, results: Results = None, storage: StorageOption = None, json: Json = False
) -> None:
    """Show which searched fields decide whether a trial is among the best.

    Example: cider-platform study importance mosei-first
    """
    from cider_platform.output import emit_json, emit_table, say
    from cider_platform.results import marks
    from cider_platform.search.importance import importance as importance_of
    from cider_platform.search.study import objective_names
    from cider_platform.tables import title

    found = _begun(study, results, storage)
    told = importance_of(found)
    marked = marks(found.user_attrs.get("base", {}))
    name = objective_names(found.user_attrs)[0]
    if json:
        data = {"study": study, "objective": name, "marks": marked, **told.to_dict()}
        emit_json("study.importance", data)
        return
    emit_table(
        ["field", "share"],
        [[path, f"{share:.1%}"] for path, share in told.fields.items()],
        title=title(f"study {study}: importance for {name}", marked),
        right=["share"],
    )
    say(
        f"{told.evaluator}: how much each field decides whether a trial is among the best "
        f"{told.best} of {told.trials} complete ones; with few trials chance has a large part in it"
    )


def plot(study: Study, out: Folder, results: Results = None, storage: StorageOption = None) -> None:
    """Draw the history, importance, parallel coordinates and slices of a study: PNG and SVG.

    Example: cider-platform study plot mosei-first --out figures
    """
    from cider_platform.output import emit_line, say
    from cider_platform.search.plots import write_plots

    written, left_out = write_plots(_begun(study, results, storage), out)
    for path in written:
        emit_line(str(path))
    for reason in left_out:
        say(reason)


def why(
    study: Study,
    trial: Trial,
    results: Results = None,
    storage: StorageOption = None,
    json: Json = False,
) -> None:
    """Say why a trial failed, was pruned, or stands still, and what to do.

    Example: cider-platform study why mosei-first 12
    """
    from cider_platform.output import emit_json
    from cider_platform.roots import results_root
    from cider_platform.search.ledger import records
    from cider_platform.search.study import space_of
    from cider_platform.search.why import why_trial

    found = _begun(study, results, storage)
    trials = records(found, space_of(found.user_attrs))
    told = why_trial(found, trials, trial, results_root(results))
    command = _command_of(found.user_attrs, trials[trial])
    if json:
        data = {"study": study, "trial": trial, **told.to_dict(), "train_command": command}
        emit_json("why", data)
    else:
        print_why(f"trial {trial} of study {study}", told, command)


def _command_of(definition: dict[str, Any], trial: TrialRecord) -> str | None:
    """Return the command that trains a trial by itself, None if its values do not go together."""
    from cider.errors import UsageError
    from cider_platform.commands.retrain import train_command, trial_spec

    try:
        return train_command(trial_spec(definition, trial))
    except UsageError:
        return None


def print_why(what: str, told: Explanation, command: str | None) -> None:
    """Print an explanation: what happened, what to do, then the facts and the end of the log.

    Args:
        what: the run or trial.
        told: the explanation.
        command: trains it by itself.
    """
    from cider_platform.output import emit_line, emit_table

    emit_line(f"{what} is {told.state}: {told.summary}")
    if told.remedy is not None:
        emit_line(f"what to do: {told.remedy}")
    first = told.first_error
    rows: list[list[object]] = [
        ["cause", told.cause],
        ["memory ran out", "yes" if told.memory_ran_out else None],
        ["first error", None if first is None else f"{first.type}: {first.message}"],
        ["raised at", None if first is None else first.where],
        ["run", told.run],
        ["epochs finished", told.epochs if told.run else None],
        ["began", told.began],
        ["ended", told.ended],
        ["attempts", told.attempts or None],
        ["last on", None if told.host is None else f"{told.host}, process {told.pid}"],
        ["log", told.log_file],
    ]
    emit_table(["", ""], [row for row in rows if row[1] is not None])
    if told.log:
        emit_line("last lines of the log:")
    for line in told.log:
        emit_line(f"  {line}")
    if command is not None:
        emit_line(f"trained by itself: {command}")


def dashboard(
    study: Study,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine; 0 takes a free one.")
    ] = 8080,
    results: Results = None,
    storage: StorageOption = None,
) -> None:
    """Show a study in the browser, as it grows; for looking only. Ctrl-C ends it.

    Needs the package optuna-dashboard.

    Example: cider-platform study dashboard mosei-first
    """
    from cider_platform.layout import StudyFolder
    from cider_platform.output import say
    from cider_platform.roots import results_root
    from cider_platform.search.dashboard import HOST
    from cider_platform.search.dashboard import dashboard as serve

    root = results_root(results)
    with serve(StudyFolder.of(root, study), root, port, read_storage(storage)) as server:
        say(
            f"study {study} at http://{HOST}:{server.server_port}/dashboard, for looking only, on "
            "this machine alone; Ctrl-C ends it"
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("the dashboard has ended; the study is as it was")


COMMANDS: dict[str, Callable[..., None]] = {
    "best": best,
    "export": export,
    "importance": importance,
    "plot": plot,
    "why": why,
    "dashboard": dashboard,
}
"""Name of each further command of ``study`` -> what runs it."""
