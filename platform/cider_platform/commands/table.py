"""Every command of ``cider-platform``: its panel of the help, its name, where it stands, its line.

The lines are the commands' own; ``tests/cider_platform/test_lazy_commands.py`` compares them.
"""

from __future__ import annotations

from cider_platform.commands.lazy_group import Entry


def _panel(panel: str, *commands: tuple[str, str, str]) -> tuple[Entry, ...]:
    return tuple(
        Entry(name, f"cider_platform.commands.{place}", line, panel)
        for name, place, line in commands
    )


ENTRIES = (
    *_panel(
        "Data and models",
        (
            "data",
            "data:app",
            "Import, list, check, re-partition and export corpora of the feature store.",
        ),
        (
            "models",
            "lists:models",
            "List the models, those of installed packages included.",
        ),
        (
            "metrics",
            "lists:metrics",
            "Say what every metric means.",
        ),
        (
            "checkpoint",
            "checkpoint:app",
            "Import the authors' released weights, or export a run's.",
        ),
    ),
    *_panel(
        "Train, search, evaluate",
        (
            "train",
            "train:train",
            "Train one configuration and evaluate it on the sealed test split.",
        ),
        (
            "tune",
            "tune:tune",
            "Search hyperparameters, then evaluate the best configuration on the sealed test "
            "split.",
        ),
        (
            "evaluate",
            "evaluate:evaluate",
            "Evaluate finished runs on the sealed test split under missing data.",
        ),
        (
            "evaluate-runs",
            "evaluate_runs:evaluate_runs",
            "Evaluate many finished runs on the sealed test split under missing data, several "
            "at a time.",
        ),
        (
            "predict",
            "predict:predict",
            "Write a run's predictions for a corpus: id, split, probabilities and prediction.",
        ),
        (
            "explain",
            "explain:explain",
            "Show how a run corrects its prediction of an utterance, step by step.",
        ),
        (
            "runs",
            "groups:runs_app",
            "List and compare runs, show one, say why it failed, replay its first steps.",
        ),
        (
            "study",
            "groups:study_app",
            "List studies, show one, list its trials.",
        ),
        (
            "logs",
            "leftovers:logs",
            "Print the log of a run: its attempts, warnings, errors with tracebacks, deaths.",
        ),
    ),
    *_panel(
        "Grids and clusters",
        (
            "plan",
            "plan:plan",
            "Say what a grid would take: runs, GPU-hours, wall time at p50 and p90, cost. Runs "
            "nothing.",
        ),
        (
            "run",
            "grids:run",
            "Run a grid: train and evaluate what is missing of a job's cells, then print their "
            "table.",
        ),
        (
            "submit",
            "submit:submit",
            "Submit a grid to a Ray cluster: the code and the job file go there, nothing large "
            "does.",
        ),
        (
            "status",
            "grids:status",
            "Show what has become of a grid's cells and runs; reading changes nothing.",
        ),
        (
            "cancel",
            "grids:cancel",
            "Stop the command that runs a grid, on this machine or another; nothing that is "
            "done is lost.",
        ),
        (
            "jobs",
            "jobs:app",
            "List what was submitted to a cluster, look at it, read its log, stop it.",
        ),
        (
            "doctor",
            "doctor:doctor",
            "Check versions, storage, features, encoder, GPUs, memory, disk, clock and token.",
        ),
        (
            "cluster",
            "cluster:app",
            "Check the files that start a cluster.",
        ),
        (
            "results",
            "copies:app",
            "Copy finished runs and studies to an object store, and fetch them.",
        ),
        (
            "gc",
            "leftovers:gc",
            "List what finished and dead work has left behind; with --yes, remove it.",
        ),
    ),
    *_panel(
        "Papers",
        (
            "reproduce",
            "reproduce:reproduce",
            "Reproduce published tables: plan, run what is missing, print ours beside them, "
            "report.",
        ),
        (
            "compare",
            "compare:compare",
            "Show a published table: published, ours by the published selection, ours by honest "
            "selection.",
        ),
        (
            "report",
            "report:report",
            "Write finished runs as one page or table: means, curves, differences, the runs "
            "behind them.",
        ),
        (
            "figures",
            "report:figures",
            "Draw finished runs for print, SVG and PNG: curves, areas, SMM, differences, answers.",
        ),
        (
            "draw",
            "draw:app",
            "Figures that take a run's model or corpus, SVG and PNG: attention, "
            "representations, words and labels.",
        ),
        (
            "complexity",
            "complexity:complexity",
            "Measure what every model costs: parameters, FLOPs, memory, time of an epoch, latency.",
        ),
    ),
)
