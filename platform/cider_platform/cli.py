"""The console script ``cider-platform``: its commands, and what becomes of their errors.

Exit codes: 0 done, 1 failure, 2 usage, 3 nothing matched, 4 a cluster refused access, 5 refused to
protect the test split, 100 some runs failed, 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cider.errors import CiderError
from cider_platform.commands import (
    checkpoint,
    cluster,
    compare,
    complexity,
    copies,
    data,
    doctor,
    draw,
    evaluate,
    evaluate_runs,
    explain,
    grids,
    jobs,
    leftovers,
    lists,
    plan,
    predict,
    report,
    reproduce,
    runs,
    runs_over_seeds,
    runs_significance,
    study,
    study_leak,
    study_report,
    submit,
    train,
    tune,
)
from cider_platform.output import fail

app = typer.Typer(
    name="cider-platform",
    help="Search, train and evaluate multimodal emotion recognition under missing data and "
    "distribution shift.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failure, 2 usage, 3 nothing matched, 5 test split protected, "
    "4 access refused, 100 some runs failed, 130 Ctrl-C.",
)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("tune")(tune.tune)
app.command("evaluate")(evaluate.evaluate)
app.command("evaluate-runs")(evaluate_runs.evaluate_runs)
app.command("predict")(predict.predict)
app.command("explain")(explain.explain)
app.command("plan")(plan.plan)
app.command("run")(grids.run)
app.command("submit")(submit.submit)
app.add_typer(jobs.app, name="jobs")
app.command("status")(grids.status)
app.command("cancel")(grids.cancel)
app.command("logs")(leftovers.logs)
app.command("gc")(leftovers.gc)
app.command("compare")(compare.compare)
app.command("complexity")(complexity.complexity)
app.command("reproduce")(reproduce.reproduce)
app.command("report")(report.report)
app.command("figures")(report.figures)
app.add_typer(draw.app, name="draw")
runs.app.command("over-seeds")(runs_over_seeds.over_seeds)
runs.app.command("significance")(runs_significance.significance)
app.add_typer(runs.app, name="runs")
app.add_typer(copies.app, name="results")
for name, command in study_report.COMMANDS.items():
    study.app.command(name)(command)
study.app.command("leak")(study_leak.leak)
app.add_typer(study.app, name="study")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(cluster.app, name="cluster")
app.command("doctor")(doctor.doctor)
app.command("metrics")(lists.metrics)
app.command("models")(lists.models)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

        try:
            found = version("cider-platform")
        except PackageNotFoundError:  # run from a checkout that is not installed
            found = "not installed"
        typer.echo(f"cider-platform {found}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")
    ] = False,
) -> None:
    """Take the options that every command has."""


def main() -> None:
    """Run the command line; never show a traceback unless ``--debug`` asks for it."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        app([each for each in arguments if each != "--debug"], prog_name="cider-platform")
    except CiderError as error:
        if debug:
            raise
        fail(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        text = str(error).strip().splitlines()
        fail(f"{type(error).__name__}: {text[0] if text else 'no message'}")
        fail("this is a fault of the program, not of the input; --debug shows the traceback")
        sys.exit(1)
