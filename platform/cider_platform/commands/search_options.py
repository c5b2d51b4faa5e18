"""The options of a search: what it proposes, what it looks at, when it stops."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_SEARCH = "Search"

StudyName = Annotated[
    str | None,
    typer.Option(
        "--study",
        metavar="NAME",
        help="Name of the search; default: made of dataset, task, alignment, distribution and "
        "model, so that the same command continues it.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Total trials of the study, those it has included; default: 300 as published, 6 for "
        "synthetic corpora.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
SpaceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--space",
        metavar="PATH=AXIS",
        help="A searched field: PATH=int:LOW:HIGH[:STEP], PATH=float:LOW:HIGH[:STEP], "
        "PATH=log:LOW:HIGH or PATH=choice:A,B,...; may be given many times. Replaces the default "
        "space (Table II); the word default among them keeps it.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
SpaceFile = Annotated[
    Path | None,
    typer.Option(
        "--space-file",
        metavar="FILE.toml",
        help="Searched fields and starting points from a TOML file: a table [space] with "
        "PATH = 'int:1:4', and any number of tables [[start]].",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
Enqueue = Annotated[
    list[str] | None,
    typer.Option(
        "--enqueue",
        metavar="PATH=VALUE,...",
        help="A configuration to try first; fields it leaves out are drawn. May be given many "
        "times.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
ObjectiveOption = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        metavar="NAME",
        help="What is sought: valid/METRIC, valid/METRIC@RATE, valid/auilc/METRIC or parameters "
        "(least); several give the Pareto set. Default: the score that selects a run's epoch.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        min=1,
        help="Seeds that promising configurations are searched on, before new ones are tried; "
        "repeats count as trials.",
        rich_help_panel=_SEARCH,
    ),
]
RaceRule = Annotated[
    Literal["halving", "wilcoxon"],
    typer.Option(
        "--race",
        help="Which configurations get a further seed: the best third, or all that a signed-rank "
        "test has not found worse than the best.",
        rich_help_panel=_SEARCH,
    ),
]
FinalSeeds = Annotated[
    int,
    typer.Option(
        "--final-seeds",
        min=0,
        help="Seeds, none of them searched on, that decide among the three best configurations "
        "at the end; 0 leaves the search's own ranking.",
        rich_help_panel=_SEARCH,
    ),
]
Hours = Annotated[
    float | None,
    typer.Option(
        help="Hours this command may run; the same command goes on later.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
GpuHours = Annotated[
    float | None,
    typer.Option(
        "--gpu-hours",
        help="GPU-hours that all trials of the study may take together.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
Pruner = Annotated[
    Literal["asha", "hyperband", "median", "none"] | None,
    typer.Option(
        help="What stops trials that fall behind; default: asha, or none with objectives that an "
        "epoch's score cannot stand for.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
Grace = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Epochs before which nothing is stopped; default: a twentieth of --epochs.",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
Sampler = Annotated[
    Literal["tpe", "random", "grid", "qmc", "gp", "cmaes", "nsga2"],
    typer.Option(help="What proposes configurations.", rich_help_panel=_SEARCH),
]
NumSlots = Annotated[
    str,
    typer.Option(
        "--slots",
        metavar="auto|N",
        help="Trials at a time; auto: as many as fit, by the memory that the first one takes in "
        "its first epoch, and at most as many as there are cores for.",
        rich_help_panel=_SEARCH,
    ),
]
CpusPerTrial = Annotated[
    int,
    typer.Option(
        min=1, help="Cores, and threads, of each worker of a trial.", rich_help_panel=_SEARCH
    ),
]
WorkersPerTrial = Annotated[
    int,
    typer.Option(
        min=1,
        help="Processes that train one trial together, each on its part of every batch.",
        rich_help_panel=_SEARCH,
    ),
]
GpusPerTrial = Annotated[
    str,
    typer.Option(
        "--gpus-per-trial",
        metavar="auto|SHARE",
        help="Share of a GPU that one trial takes, e.g. 0.25; auto: by the memory that the first "
        "one takes in its first epoch, or a whole one per worker with several workers.",
        rich_help_panel=_SEARCH,
    ),
]
ProgressTimeout = Annotated[
    float,
    typer.Option(
        min=1.0,
        metavar="SECONDS",
        help="A trial that finishes no epoch for so long is ended, and fails.",
        rich_help_panel=_SEARCH,
    ),
]
