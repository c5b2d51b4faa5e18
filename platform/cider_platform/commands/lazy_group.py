"""A group of commands that imports a command's module only when that command is called.

The group's own help, the completion of its commands' names and the suggestion for a mistyped one
need a name and a line of help for each. They come from a table, so that ``--help`` imports none of
the commands. A test compares the table with what the commands themselves say.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table."""

    name: str
    place: str
    """``module:attribute`` of a function, or of a ``typer.Typer`` that groups several."""
    help: str
    """First paragraph of the command's own help."""
    panel: str
    """Heading under which the group's help has it."""


def load(entry: Entry) -> Any:  # noqa: ANN401 - typer does not export the class of its commands
    """Import a command and return it with its parameters."""
    module, _, attribute = entry.place.partition(":")
    found = getattr(import_module(module), attribute)
    holder = typer.Typer()
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=entry.name, rich_help_panel=entry.panel)
    else:
        holder.command(entry.name, rich_help_panel=entry.panel)(found)
    return get_group(holder).commands[entry.name]


def lazy_group(entries: Iterable[Entry]) -> type[TyperGroup]:
    """Return the class, for ``typer.Typer(cls=...)``, of a group that has these commands."""
    table = {entry.name: entry for entry in entries}

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - typer's own
            super().__init__(**attributes)
            self.commands = {
                name: TyperCommand(name, help=entry.help, rich_help_panel=entry.panel)
                for name, entry in table.items()
            }

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401
            """Return the name that was typed, the command itself, and the words behind it."""
            name, found, rest = super().resolve_command(ctx, args)
            return name, None if name is None or found is None else load(table[name]), rest

    return LazyGroup
