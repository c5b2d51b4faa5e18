"""``metrics`` and ``models``: what the numbers mean, and which models there are."""

from __future__ import annotations

from cider_platform.commands.options import Json  # noqa: TC001 - typer reads annotations


def metrics(json: Json = False) -> None:
    """Say what every metric means."""
    from cider.metrics import DEFINITIONS
    from cider_platform.output import emit_json, emit_table

    if json:
        emit_json("metrics", DEFINITIONS)
    else:
        emit_table(["metric", "definition"], sorted(DEFINITIONS.items()))


def models(json: Json = False) -> None:
    """List the models, those of installed packages included."""
    from cider.models import config_class, names
    from cider_platform.output import emit_json, emit_table

    about = {name: (config_class(name).__doc__ or "").strip().splitlines() for name in names()}
    lines = {name: text[0] if text else "" for name, text in about.items()}
    if json:
        emit_json("models", lines)
    else:
        emit_table(["model", "what it is"], sorted(lines.items()))
