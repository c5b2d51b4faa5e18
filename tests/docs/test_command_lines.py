"""Every ``cider-platform`` command line in a page names a command and options that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from typer.main import get_command

from cider_platform.cli import app

PROGRAM = "cider-platform"
INLINE = re.compile(rf"`({PROGRAM}(?: [^`]*)?)`")


def _fenced_lines(page) -> Iterator[str]:
    for block in page.fenced:
        for line in block.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ")
            if command.split(" ")[0] == PROGRAM:
                yield command


def _inline_lines(page) -> Iterator[str]:
    yield from (" ".join(command.split()) for command in INLINE.findall(page.prose))


def fault_of(line: str, *, whole: bool) -> str | None:
    """Return what is wrong with a command line, or None.

    Args:
        line: ``cider-platform ...``; upper-case words stand for values.
        whole: True if the line can be typed as it stands, so that required values must be there;
            False for a mention in prose, which may stop after the command's name.
    """
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    command = get_command(app)
    context = command.make_context(PROGRAM, [], resilient_parsing=True)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name, *words = words
        if name not in command.commands:
            return f"{name!r} is not one of {', '.join(sorted(command.commands))}"
        _, command, _ = command.resolve_command(context, [name])
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
    context.resilient_parsing = False  # it let the contexts be made without values; now be strict
    if "--help" in words or hasattr(command, "commands"):
        words = [word for word in words if word != "--help"]
        whole = False
    try:
        values, _, _ = command.make_parser(context).parse_args(args=words)
    except Exception as error:  # the parser's own errors, whose class differs between its versions
        return str(error)
    missing = [
        parameter.name
        for parameter in command.params
        if parameter.required and not _given(values.get(parameter.name))
    ]
    return f"lacks {', '.join(missing)}" if whole and missing else None


def _given(value: object) -> bool:
    """Return whether the parser found a value (it marks an absent one with an enum member)."""
    return bool(value) and type(value).__name__ in {"str", "list", "tuple", "bool", "int"}


def test_command_lines_in_fenced_blocks_can_be_typed(pages):
    lines = [(page.name, line) for page in pages for line in _fenced_lines(page)]
    faults = [f"{name}: {line}: {fault_of(line, whole=True)}" for name, line in lines]
    assert lines
    assert not [fault for fault in faults if not fault.endswith(": None")]


def test_command_lines_in_prose_name_commands_and_options_there_are(pages):
    lines = [(page.name, line) for page in pages for line in _inline_lines(page)]
    faults = [f"{name}: {line}: {fault_of(line, whole=False)}" for name, line in lines]
    assert lines
    assert not [fault for fault in faults if not fault.endswith(": None")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cider-platform brew", "'brew' is not one of"),
        ("cider-platform tune --dataset synthetic-mosei --brew", "--brew"),
        ("cider-platform evaluate", "lacks"),
    ],
)
def test_fault_of_a_wrong_command_line_is_named(line, expected):
    assert expected in str(fault_of(line, whole=True))
