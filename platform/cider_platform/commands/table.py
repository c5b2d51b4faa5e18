"""Every command of ``cider-platform``: its name, where it stands, its line of help.

The lines are the commands' own; ``tests/cider_platform/test_lazy_commands.py`` compares them.
"""

from __future__ import annotations

from cider_platform.commands.lazy_group import Entry

ENTRIES = (
    Entry(
        "train",
        "cider_platform.commands.train:train",
        "Train one configuration and evaluate it on the sealed test split.",
    ),
    Entry(
        "tune",
        "cider_platform.commands.tune:tune",
        "Search hyperparameters, then evaluate the best configuration on the sealed test split.",
    ),
    Entry(
        "evaluate",
        "cider_platform.commands.evaluate:evaluate",
        "Evaluate finished runs on the sealed test split under missing data.",
    ),
    Entry(
        "evaluate-runs",
        "cider_platform.commands.evaluate_runs:evaluate_runs",
        "Evaluate many finished runs on the sealed test split under missing data, several at "
        "a time.",
    ),
    Entry(
        "predict",
        "cider_platform.commands.predict:predict",
        "Write a run's predictions for a corpus: id, split, probabilities and prediction.",
    ),
    Entry(
        "explain",
        "cider_platform.commands.explain:explain",
        "Show how a run corrects its prediction of an utterance, step by step.",
    ),
    Entry(
        "plan",
        "cider_platform.commands.plan:plan",
        "Say what a grid would take: runs, GPU-hours, wall time at p50 and p90, cost. Runs "
        "nothing.",
    ),
    Entry(
        "run",
        "cider_platform.commands.grids:run",
        "Run a grid: train and evaluate what is missing of a job's cells, then print their table.",
    ),
    Entry(
        "submit",
        "cider_platform.commands.submit:submit",
        "Submit a grid to a Ray cluster: the code and the job file go there, nothing large does.",
    ),
    Entry(
        "status",
        "cider_platform.commands.grids:status",
        "Show what has become of a grid's cells and runs; reading changes nothing.",
    ),
    Entry(
        "cancel",
        "cider_platform.commands.grids:cancel",
        "Stop the command that runs a grid, on this machine or another; nothing that is done "
        "is lost.",
    ),
    Entry(
        "logs",
        "cider_platform.commands.leftovers:logs",
        "Print the log of a run: its attempts, warnings, errors with tracebacks, deaths.",
    ),
    Entry(
        "gc",
        "cider_platform.commands.leftovers:gc",
        "List what finished and dead work has left behind; with --yes, remove it.",
    ),
    Entry(
        "compare",
        "cider_platform.commands.compare:compare",
        "Show a published table: published, ours by the published selection, ours by honest "
        "selection.",
    ),
    Entry(
        "complexity",
        "cider_platform.commands.complexity:complexity",
        "Measure what every model costs: parameters, FLOPs, memory, time of an epoch, latency.",
    ),
    Entry(
        "reproduce",
        "cider_platform.commands.reproduce:reproduce",
        "Reproduce published tables: plan, run what is missing, print ours beside them, report.",
    ),
    Entry(
        "report",
        "cider_platform.commands.report:report",
        "Write finished runs as one page or table: means, curves, differences, the runs "
        "behind them.",
    ),
    Entry(
        "figures",
        "cider_platform.commands.report:figures",
        "Draw finished runs for print, SVG and PNG: curves, areas, SMM, differences, answers.",
    ),
    Entry(
        "doctor",
        "cider_platform.commands.doctor:doctor",
        "Check versions, storage, features, encoder, GPUs, memory, disk, clock and token.",
    ),
    Entry(
        "metrics",
        "cider_platform.commands.lists:metrics",
        "Say what every metric means.",
    ),
    Entry(
        "models",
        "cider_platform.commands.lists:models",
        "List the models, those of installed packages included.",
    ),
    Entry(
        "data",
        "cider_platform.commands.data:app",
        "Import, list, check, re-partition and export corpora of the feature store.",
    ),
    Entry(
        "jobs",
        "cider_platform.commands.jobs:app",
        "List what was submitted to a cluster, look at it, read its log, stop it.",
    ),
    Entry(
        "draw",
        "cider_platform.commands.draw:app",
        "Figures that take a run's model or corpus, SVG and PNG: attention, representations, "
        "words and labels.",
    ),
    Entry(
        "runs",
        "cider_platform.commands.groups:runs_app",
        "List and compare runs, show one, say why it failed, replay its first steps.",
    ),
    Entry(
        "results",
        "cider_platform.commands.copies:app",
        "Copy finished runs and studies to an object store, and fetch them.",
    ),
    Entry(
        "study",
        "cider_platform.commands.groups:study_app",
        "List studies, show one, list its trials.",
    ),
    Entry(
        "checkpoint",
        "cider_platform.commands.checkpoint:app",
        "Import the authors' released weights, or export a run's.",
    ),
    Entry(
        "cluster",
        "cider_platform.commands.cluster:app",
        "Check the files that start a cluster.",
    ),
)
