"""The groups ``runs`` and ``study``, whose commands stand in several modules, put together."""

from __future__ import annotations

from cider_platform.commands import (
    runs,
    runs_over_seeds,
    runs_significance,
    study,
    study_leak,
    study_report,
)

runs_app = runs.app
runs_app.command("over-seeds")(runs_over_seeds.over_seeds)
runs_app.command("significance")(runs_significance.significance)

study_app = study.app
for name, command in study_report.COMMANDS.items():
    study_app.command(name)(command)
study_app.command("leak")(study_leak.leak)
