"""``runs``: list the runs, show one, say why it is as it is, train its first steps again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Results, Store  # noqa: TC001

if TYPE_CHECKING:
    from cider_platform.results import RunRecord

app = typer.Typer(
    help="List runs, show one, say why it failed, replay its first steps.", no_args_is_help=True
)

Run = Annotated[str, typer.Argument(help="A run's id, or the beginning of it.", metavar="RUN")]
COLUMNS = ("run", "state", "dataset", "task", "alignment", "distribution", "model", "seed")


@app.command("list")
def list_runs(
    dataset: Annotated[str | None, typer.Option(help="Only runs of this corpus.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only RUNNING, STOPPED, COMPLETE, FAILED or PRUNED runs.")
    ] = None,
    results: Results = None,
    json: Json = False,
) -> None:
    """List runs, the latest first."""
    from cider.errors import NothingMatchedError
    from cider_platform.output import emit_json, emit_table, say
    from cider_platform.results import all_runs
    from cider_platform.roots import results_root
    from cider_platform.tables import number

    root = results_root(results)
    rows = [run.summary() for run in all_runs(root)]
    if dataset is not None:
        rows = [row for row in rows if row["dataset"] == dataset]
    if state is not None:
        rows = [row for row in rows if row["state"] == state.upper()]
    if not rows and (dataset or state):
        raise NothingMatchedError(f"no run in {root} matches")
    if json:
        emit_json("runs", rows)
        return
    if not rows:
        say(f"no runs in {root} yet; cider-platform train or tune makes some")
        return
    emit_table(
        [*COLUMNS, "epochs", "metric", "score", "marks"],
        [
            [*(row[name] for name in COLUMNS), row["epochs"], row["metric"], number(row["score"]),
             ", ".join(row["marks"])]
            for row in rows
        ],
        right=("epochs", "score"),
    )  # fmt: skip
    say(f"{len(rows)} runs in {root}")


@app.command("show")
def show_run(run: Run, results: Results = None, json: Json = False) -> None:
    """Show one run: its state, configuration, scores and files."""
    from cider_platform.output import emit_json
    from cider_platform.results import evaluations, find_run
    from cider_platform.roots import results_root

    record = find_run(results_root(results), run)
    if json:
        emit_json(
            "run",
            {
                **record.summary(),
                "status": record.status,
                "spec": record.spec,
                "result": record.result,
                "evaluations": evaluations(record),
            },
        )
    else:
        _print_run(record)


@app.command("why")
def explain_run(run: Run, results: Results = None, json: Json = False) -> None:
    """Say why a run failed, was pruned, or stands still, and what to do."""
    from cider_platform.commands.retrain import train_command
    from cider_platform.commands.study_report import print_why
    from cider_platform.output import emit_json
    from cider_platform.results import find_run
    from cider_platform.roots import results_root
    from cider_platform.why import why_run

    record = find_run(results_root(results), run)
    told = why_run(record)
    command = train_command(record.spec) if record.spec else None
    if json:
        emit_json("why", {**told.to_dict(), "train_command": command})
    else:
        print_why(f"run {record.run_id}", told, command)


def _print_run(record: RunRecord) -> None:
    from cider_platform.output import emit_table, say
    from cider_platform.results import evaluations
    from cider_platform.tables import evaluation_table, flat, number

    summary = record.summary()
    say(f"run {record.run_id} in {record.folder.root}")
    rows = [
        [name, ", ".join(value) if isinstance(value, list) else value]
        for name, value in summary.items()
        if name not in ("run", "folder", "score") and value not in (None, [])
    ]
    if summary["score"] is not None:
        split = "test" if "published selection" in summary["marks"] else "validation"
        rows.append([f"{split} {summary['metric']}", number(summary["score"])])
    emit_table(["fact", "value"], rows)
    emit_table(["field", "value"], [[path, value] for path, value in flat(record.spec)])
    tested = evaluations(record)
    if tested:
        columns, cells = evaluation_table(tested)
        emit_table(columns, cells, title="sealed test", right=columns[1:])


@app.command("replay")
def replay_run(
    run: Run,
    store: Store = None,
    results: Results = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda or cuda:N; default: what the run was trained on.", show_default=False
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="CPU threads; default: as many as the run.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Train a run's first steps again, apart, and compare their losses with those it recorded.

    On the same machine they are identical to the last digit, elsewhere equal within rounding.

    Exit code 1 says that they are different: code, libraries or corpus have changed.

    Example: cider-platform runs replay 1a2b3c4d
    """
    from dataclasses import asdict

    from cider_platform.output import emit_json, fail, say
    from cider_platform.replay import replay, sentence
    from cider_platform.results import find_run
    from cider_platform.roots import results_root, store_root

    folder = find_run(results_root(results), run).folder
    found = replay(folder, store_root(store), device=device, threads=threads)
    if json:
        emit_json("replay", {"run": folder.run_id, **asdict(found)})
    text = sentence(folder.run_id, found)
    if found.outcome == "different":
        fail(text)
        raise typer.Exit(1)
    say(text)
