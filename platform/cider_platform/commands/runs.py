"""``runs``: list runs, compare two, show one, say why it is as it is, replay its first steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Json, Results, Store  # noqa: TC001

if TYPE_CHECKING:
    from cider_platform.results import RunRecord

app = typer.Typer(
    help="List and compare runs, show one, say why it failed, replay its first steps.",
    no_args_is_help=True,
)

Run = Annotated[str, typer.Argument(help="A run's id, or the beginning of it.", metavar="RUN")]
COLUMNS = ("run", "state", "dataset", "task", "alignment", "distribution", "model", "seed")


@app.command("list")
def list_runs(
    dataset: Annotated[str | None, typer.Option(help="Only runs of this corpus.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only RUNNING, STOPPED, COMPLETE, FAILED or PRUNED runs.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="FIELD=VALUE, or with !=, >, <, >=, <= or ~ (contains); may be given many times, "
            "then all must hold, e.g. dataset=mosi or 'test.acc2@0.5>0.7'.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="FIELD", help="Smallest first, -FIELD: largest first; default: latest first."
        ),
    ] = "",
    limit: Annotated[
        int, typer.Option(min=0, help="Most runs to list; 0: all of them.", show_default=False)
    ] = 0,
    results: Results = None,
    json: Json = False,
) -> None:
    """List runs, the latest first, or those that meet conditions.

    Fields are the columns, any field of the spec (training.batch_size), of the result (parameters,
    valid.acc2@0.5) and sealed-test numbers (test.acc2@0.5, test.rmm.acc2@0.5, test.auilc.acc2).

    Example: cider-platform runs list --where dataset=mosi --sort=-test.acc2@0.5
    """
    from cider.errors import NothingMatchedError
    from cider_platform.output import emit_json, say
    from cider_platform.results import find_runs
    from cider_platform.roots import results_root
    from cider_platform.runs.query import parse_where

    root = results_root(results)
    conditions = list(where or [])
    found = find_runs(root, conditions, sort)
    if dataset is not None:
        found = [each for each in found if each[0].summary()["dataset"] == dataset]
    if state is not None:
        found = [each for each in found if each[0].state == state.upper()]
    if not found and (dataset or state or conditions):
        raise NothingMatchedError(f"no run in {root} matches")
    asked = dict.fromkeys([*(each.field for each in parse_where(conditions)), sort.lstrip("-")])
    rows = [
        {**record.summary(), "values": {name: fields.get(name) for name in asked if name}}
        for record, fields in found[: limit or None]
    ]
    if json:
        emit_json("runs", rows)
    elif not rows:
        say(f"no runs in {root} yet; cider-platform train or tune makes some")
    else:
        _print_runs(rows)
        cut = f"{len(rows)} of " if len(rows) < len(found) else ""
        say(f"{cut}{len(found)} runs in {root}")


def _print_runs(rows: list[dict[str, Any]]) -> None:
    from cider_platform.output import emit_table
    from cider_platform.tables import number

    columns = [*COLUMNS, "epochs", "metric", "score"]
    # What was asked about is shown, unless it is a column already.
    extra = [name for name in rows[0]["values"] if name not in (*columns, "marks")]
    emit_table(
        [*columns, *extra, "marks"],
        [
            [
                *(row[name] for name in columns[:-1]),
                number(row["score"]),
                *(number(row["values"][name]) for name in extra),
                ", ".join(row["marks"]),
            ]
            for row in rows
        ],
        right=("epochs", "score", *extra),
    )


@app.command("show")
def show_run(
    run: Run,
    provenance: Annotated[
        bool,
        typer.Option(
            "--provenance",
            help="Show where its numbers come from instead: code and its git state, libraries, "
            "hardware, corpus and encoder by hash, seeds.",
        ),
    ] = False,
    results: Results = None,
    json: Json = False,
) -> None:
    """Show one run: its state, configuration, scores and files."""
    from cider_platform.output import emit_json
    from cider_platform.results import evaluations, find_run
    from cider_platform.roots import results_root

    record = find_run(results_root(results), run)
    if provenance:
        _show_provenance(record, as_json=json)
    elif json:
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


def _show_provenance(record: RunRecord, *, as_json: bool) -> None:
    from cider_platform.output import emit_json, emit_table, say, warn
    from cider_platform.runs.origin import origin_of
    from cider_platform.tables import flat, number

    found = origin_of(record)
    if as_json:
        emit_json("provenance", found)
        return
    say(f"run {record.run_id} in {record.folder.root}")
    if not found["sessions"]:
        warn(
            "it was trained before provenance was recorded, or imported: what its spec says is all"
        )
    for title in ("identity", "seeds"):
        emit_table([title, ""], [[name, number(value)] for name, value in flat(found[title])])
    for session in found["sessions"]:
        epoch = session["after_epoch"]
        where = "from the beginning" if epoch == 0 else f"after epoch {epoch}"
        cells = [[name, value] for name, value in flat(session) if name != "after_epoch"]
        emit_table(["trained", where], cells)
    emit_table(["field", "value"], [[path, value] for path, value in flat(found["spec"])])


@app.command("diff")
def diff(
    first: Annotated[str, typer.Argument(help="A run's id, or the beginning of it.", metavar="A")],
    second: Annotated[str, typer.Argument(help="The other run's.", metavar="B")],
    results: Results = None,
    json: Json = False,
) -> None:
    """Compare two runs: fields that differ, numbers side by side, answers utterance by utterance.

    Utterances are compared under every condition that both were evaluated under.

    Example: cider-platform runs diff 1a2b 3c4d
    """
    from cider_platform.output import emit_json
    from cider_platform.results import find_run
    from cider_platform.roots import results_root
    from cider_platform.runs.run_diff import diff_runs

    root = results_root(results)
    found = diff_runs(find_run(root, first), find_run(root, second))
    if json:
        emit_json("runs.diff", found)
    else:
        _print_diff(found)


def _print_diff(found: dict[str, Any]) -> None:
    from cider_platform.output import emit_table, say
    from cider_platform.tables import number

    left, right = found["runs"]
    for title in ("spec", "origin"):
        rows = [[each["field"], each["first"], each["second"]] for each in found[title]]
        if rows:
            emit_table([title, left, right], rows)
        else:
            say(f"{title}: nothing differs")
    columns = ["number", left, right, "difference"]
    cells = [
        [each["number"], *(number(each[name]) for name in ("first", "second", "difference"))]
        for each in found["numbers"]
    ]
    emit_table(columns, cells, right=columns[1:])
    compared = [each for each in found["agreement"] if each["utterances"]]
    for each in found["agreement"]:
        if not each["utterances"]:
            say(f"{each['condition']}: {each['why']}")
    if compared:
        columns = [name.replace("_", " ") for name in compared[0]]
        columns = [name.replace("first", left).replace("second", right) for name in columns]
        emit_table(columns, [list(each.values()) for each in compared], right=columns[1:])


@app.command("why")
def explain_run(run: Run, results: Results = None, json: Json = False) -> None:
    """Say why a run failed, was pruned, or stands still, and what to do."""
    from cider_platform.commands.retrain import train_command
    from cider_platform.commands.study_report import print_why
    from cider_platform.output import emit_json
    from cider_platform.results import find_run
    from cider_platform.roots import results_root
    from cider_platform.search.why import why_run

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
    from cider_platform.results import find_run
    from cider_platform.roots import results_root, store_root
    from cider_platform.runs.replay import replay, sentence

    folder = find_run(results_root(results), run).folder
    found = replay(folder, store_root(store), device=device, threads=threads)
    if json:
        emit_json("replay", {"run": folder.run_id, **asdict(found)})
    text = sentence(folder.run_id, found)
    if found.outcome == "different":
        fail(text)
        raise typer.Exit(1)
    say(text)
