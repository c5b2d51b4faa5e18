"""``reproduce``: published tables, from the runs they lack to our numbers beside theirs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

# typer reads annotations, so these are needed when the module is imported.
from cider_platform.commands.options import Address, Json, Results, Store  # noqa: TC001
from cider_platform.report.writers import Format  # noqa: TC001

if TYPE_CHECKING:
    from cider_platform.evidence.comparison import Comparison
    from cider_platform.evidence.reproduce import PaperGrid
    from cider_platform.grids.driver import How, Outcome
    from cider_platform.grids.plan import Planned
    from cider_platform.runs.trial import Runtime

Selection = Literal["both", "published", "validation"]


def reproduce(
    table: Annotated[
        list[str],
        typer.Argument(metavar="TABLE...", help="Tables of the paper, table4 to table22, or all."),
    ],
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CORPUS=NAME",
            help="What stands for a published corpus: mosi=NAME, mosei=NAME, or synthetic-mosi, "
            "synthetic-mosei with their variants; every line then says that its numbers are not "
            "comparable. Default: mosi and mosei of the store, and nothing else.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only rows of this model, as printed; may be given many times."),
    ] = None,
    selection: Annotated[
        Selection,
        typer.Option(
            help="How epoch and tau are chosen: each way is a training of its own. published: on "
            "the test split, as the authors do."
        ),
    ] = "both",
    seeds: Annotated[
        str, typer.Option(help="FIRST:LAST (LAST not included) or a list such as 0,1,2.")
    ] = "0:8",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="A field of every run, e.g. training.epochs=3; may be given many times.",
            show_default=False,
        ),
    ] = None,
    best_found: Annotated[
        bool,
        typer.Option(
            "--best-found",
            help="Where finished runs fit, complete the seeds of the configuration that compare "
            "takes, e.g. the best of a search, instead of the defaults.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask on a terminal.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Take up failed runs too.")
    ] = False,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; default: as many as fit.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto: a GPU if there is one.")] = "auto",
    address: Address = "",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The report; default: the grid's id with .html in this folder.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Default: by the file's ending.", show_default=False),
    ] = None,
    store: Store = None,
    results: Results = None,
    json: Json = False,
) -> None:
    """Reproduce published tables: plan, run what is missing, print ours beside them, report.

    The same command again runs only what is missing. What cannot be run is named with the reason.
    Exit code 3: nothing of the tables can be run here; 100: some runs failed.

    Example: cider-platform reproduce table4 table5 --dry-run
    """
    from cider.errors import NothingMatchedError
    from cider.registry import lookup
    from cider_platform.commands.report import check_out
    from cider_platform.commands.reproduce_display import named, plan_values, show, show_plan
    from cider_platform.evidence.reproduce import tables_of
    from cider_platform.output import emit_json, say
    from cider_platform.roots import results_root, store_root

    tables = tables_of(table)
    printed = _models(tables)
    for name in model or ():
        lookup("model in these tables", name, printed)
    check_out(out, form)
    roots = store_root(store), results_root(results)
    made, corpora = _paper_grid(tables, roots, dataset, model, selection, seeds, settings,
                                best_found=best_found)  # fmt: skip
    runtime, how = _how(roots, slots, device, address, retry_failed=retry_failed)
    planned = _planned(made, runtime, how)
    show_plan(made, planned, corpora, roots[1], as_json=json)
    if made.grid is None:
        raise NothingMatchedError(
            f"nothing of {named(made)} can be run here: {made.blocked[-1].what}: "
            f"{made.blocked[-1].reason}"
        )
    if dry_run:
        if json:
            emit_json("reproduce", {"plan": plan_values(made, planned), "comparisons": []})
        return
    outcome = _run(made, runtime, how, yes=yes)
    found = _comparisons(made, roots[1], corpora, model)
    path = _write_report(made, roots[1], found, out, form)
    if json:
        data = {
            "plan": plan_values(made, planned),
            "comparisons": [each.to_dict() for each in found],
            "report": str(path),
        }
        emit_json("reproduce", data)
    else:
        show(found)
    say(f"report: {path}")
    _end(made, roots[1], outcome)


def _models(tables: list[str]) -> dict[str, str]:
    from cider.published import cells

    return {each.model: each.model for name in tables for each in cells(name)}


def _paper_grid(
    tables: list[str],
    roots: tuple[Path, Path],
    dataset: list[str] | None,
    model: list[str] | None,
    selection: Selection,
    seeds: str,
    settings: list[str] | None,
    *,
    best_found: bool,
) -> tuple[PaperGrid, dict[str, str]]:
    from cider_platform.evidence.ours import RULES, OurRuns
    from cider_platform.evidence.reproduce import paper_grid, read_corpora, read_settings
    from cider_platform.grids.specs import seeds_of
    from cider_platform.results import all_runs

    corpora = read_corpora(dataset or ())
    found = OurRuns(all_runs(roots[1]), corpora=corpora) if best_found else None
    made = paper_grid(
        tables,
        roots[0],
        rules=RULES if selection == "both" else (selection,),
        seeds=seeds_of("--seeds", seeds),
        models=model or (),
        corpora=corpora,
        settings=read_settings(settings or ()),
        found=found,
    )
    return made, corpora


def _how(
    roots: tuple[Path, Path],
    slots: int | None,
    device: str,
    address: str,
    *,
    retry_failed: bool,
) -> tuple[Runtime, How]:
    from cider_platform.commands.grids import how_to_run, read_job_with

    return how_to_run(
        read_job_with("reproduce", {}, None, None),
        roots,
        slots=slots,
        device=device,
        address=address,
        retry_failed=retry_failed,
    )


def _planned(made: PaperGrid, runtime: Runtime, how: How) -> Planned | None:
    import math

    from cider_platform.execution.capacity import usable_cpus
    from cider_platform.grids.estimates import History
    from cider_platform.grids.plan import plan_grid
    from cider_platform.grids.simulate import Cluster, Node
    from cider_platform.grids.workload import Slot

    if made.grid is None:
        return None
    held = how.slots
    slot = Slot(device=runtime.device, cpus=held.cpus_per_trial, gpus=held.gpus_per_trial)
    node = Node(cpus=max(usable_cpus(), held.cpus), gpus=math.ceil(held.slots * slot.gpus))
    return plan_grid(
        made.grid,
        runtime.results,
        Cluster(nodes=(node,), slots=held.slots),
        slot,
        History.read(runtime.results),
        retry_failed=how.retry_failed,
    )


def _run(made: PaperGrid, runtime: Runtime, how: How, *, yes: bool) -> Outcome | None:
    from cider_platform.commands.grid_display import Lines
    from cider_platform.commands.grids import confirm
    from cider_platform.grids.grid import store_grid
    from cider_platform.grids.tasks import tasks_of
    from cider_platform.layout import GridFolder

    assert made.grid is not None
    if not tasks_of(made.grid, runtime.results, retry_failed=how.retry_failed):
        store_grid(made.grid, GridFolder.of(runtime.results, made.grid.id))
        return None
    confirm(yes)
    from cider_platform.grids.driver import drive_grid
    from cider_platform.runs.trial import resolve, train_run

    return drive_grid(made.grid, runtime, how, train=train_run, resolve=resolve, listener=Lines())


def _comparisons(
    made: PaperGrid, results: Path, corpora: dict[str, str], model: list[str] | None
) -> list[Comparison]:
    """Return the tables with the grid's own runs beside them, and no others."""
    from cider.published.tables import COMPLEXITY
    from cider_platform.evidence.comparison import compare_table
    from cider_platform.evidence.ours import OurRuns
    from cider_platform.layout import RunFolder
    from cider_platform.results import read_run

    assert made.grid is not None
    folders = [RunFolder.of(results, run) for cell in made.grid.cells for run in cell.run_ids]
    records = [read_run(folder) for folder in folders if folder.status.is_file()]
    ours = OurRuns(records, corpora=corpora)
    return [
        compare_table(name, ours, models=model or ()) for name in made.tables if name != COMPLEXITY
    ]


def _write_report(
    made: PaperGrid,
    results: Path,
    found: list[Comparison],
    out: Path | None,
    form: Format | None,
) -> Path:
    from cider_platform.commands.report import write_report
    from cider_platform.commands.reproduce_display import named
    from cider_platform.report.data import build
    from cider_platform.report.gather import grid_groups

    assert made.grid is not None
    report = build(named(made), grid_groups(results, made.grid.cells), published=found)
    path = out or Path(f"{made.grid.id}.html")
    write_report(report, path, form)
    return path


def _end(made: PaperGrid, results: Path, outcome: Outcome | None) -> None:
    from cider_platform.commands.grid_display import summary
    from cider_platform.grids.states import cell_states
    from cider_platform.output import say, warn

    assert made.grid is not None
    states = cell_states(made.grid, results)
    say(summary(made.grid, states, outcome))
    if outcome is not None and outcome.signal_number is not None:
        say("stopped; the same command goes on from the running runs' checkpoints")
        raise typer.Exit(128 + outcome.signal_number)
    errors = [run.error for state in states for run in state.runs if run.state == "failed"]
    if errors:
        warn(f"{len(errors)} runs failed; {errors[0]}; --retry-failed takes them up")
        raise typer.Exit(100)
