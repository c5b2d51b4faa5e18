"""The console script ``cider-platform``: its commands, and what becomes of their errors.

Exit codes: 0 done, 1 failure, 2 usage, 3 nothing matched, 4 a cluster refused access, 5 refused to
protect the test split, 100 some runs failed, 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cider.errors import CiderError
from cider_platform.commands.lazy_group import lazy_group
from cider_platform.commands.table import ENTRIES

app = typer.Typer(
    name="cider-platform",
    cls=lazy_group(ENTRIES),
    help="Search, train and evaluate multimodal emotion recognition under missing data and "
    "distribution shift.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failure, 2 usage, 3 nothing matched, 5 test split protected, "
    "4 access refused, 100 some runs failed, 130 Ctrl-C.",
)


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
        _fail(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        text = str(error).strip().splitlines()
        _fail(f"{type(error).__name__}: {text[0] if text else 'no message'}")
        _fail("this is a fault of the program, not of the input; --debug shows the traceback")
        sys.exit(1)


def _fail(text: str) -> None:
    from cider_platform.output import fail  # noqa: PLC0415 - imports rich, which help may not need

    fail(text)
