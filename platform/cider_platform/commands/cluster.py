"""``cluster``: say what is wrong in a cluster file before money is spent."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from cider_platform.commands.options import Json  # noqa: TC001 - typer reads them

app = typer.Typer(help="Check the files that start a cluster.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``check`` a command of its own, however few there are."""


@app.command("check")
def check(
    file: Annotated[
        Path,
        typer.Argument(
            help="A YAML file for ray up, a KubeRay RayCluster or RayJob, or a Slurm script.",
            metavar="FILE",
        ),
    ],
    json: Json = False,
) -> None:
    """Say what is wrong in a cluster file; nothing in it is run, and nothing is started.

    Ray's own schema comes first, then what costs money or fails late.

    Exit code 2 says that there are errors; warnings alone are 0.

    Example: cider-platform cluster check cluster.yaml
    """
    from cider_platform.cluster.files import check_file
    from cider_platform.output import emit_json, emit_table, fail, say

    report = check_file(file)
    errors = sum(each.severity == "error" for each in report.findings)
    if json:
        emit_json("cluster.check", report.to_dict())
    elif report.findings:
        emit_table(
            ["", "finding", "what is wrong, and what to do"],
            [[each.severity, each.code, each.text] for each in report.findings],
        )
    told = f"{file} ({report.kind}, held against {report.validated_by} and our own rules)"
    if errors:
        fail(f"{told}: {errors} error{'s' * (errors > 1)}")
        raise typer.Exit(2)
    say(f"{told}: no errors")
