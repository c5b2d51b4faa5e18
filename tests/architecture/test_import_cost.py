"""What an import brings: no torch for listing and help, and no change of global state."""

from __future__ import annotations

import fnmatch
import json
import sys

TORCH_FREE = (
    "cider",
    "cider.behaviour",
    "cider.condition",
    "cider.config",
    "cider.counterfactual",
    "cider.data*",
    "cider.errors",
    "cider.metrics",
    "cider.missing*",
    "cider.modality",
    "cider.models",
    "cider.models.*.config",
    "cider.published*",
    "cider.registry",
    "cider.seeding",
    "cider.significance*",
    "cider.spec",
    "cider_platform",
    "cider_platform.cli",
    "cider_platform.cluster.*",
    "cider_platform.commands*",
    "cider_platform.complexity.variants",
    "cider_platform.runs.conditions",
    "cider_platform.runs.copies",
    "cider_platform.search.dashboard",
    "cider_platform.grids.axes",
    "cider_platform.grids.cells",
    "cider_platform.grids.estimates",
    "cider_platform.grids.grid",
    "cider_platform.grids.job*",
    "cider_platform.grids.leftovers",
    "cider_platform.grids.plan",
    "cider_platform.grids.searches",
    "cider_platform.grids.simulate",
    "cider_platform.grids.specs",
    "cider_platform.grids.states",
    "cider_platform.grids.stopping",
    "cider_platform.grids.table",
    "cider_platform.grids.tasks",
    "cider_platform.grids.texts",
    "cider_platform.evidence",
    "cider_platform.evidence.co*",
    "cider_platform.evidence.ours",
    "cider_platform.evidence.paper_runs",
    "cider_platform.evidence.quantity",
    "cider_platform.evidence.re*",
    "cider_platform.grids.workload",
    "cider_platform.search.importance",
    "cider_platform.layout",
    "cider_platform.search.packing*",
    "cider_platform.search.plots",
    "cider_platform.execution.profiling",
    "cider_platform.progress",
    "cider_platform.runs.rates",
    "cider_platform.report",
    "cider_platform.report.co*",
    "cider_platform.report.data",
    "cider_platform.report.gather",
    "cider_platform.report.model",
    "cider_platform.report.page",
    "cider_platform.report.published",
    "cider_platform.report.tables",
    "cider_platform.report.writers",
    "cider_platform.runs.resolving",
    "cider_platform.results",
    "cider_platform.search.search",
    "cider_platform.search.storage*",
    "cider_platform.search.study*",
    "cider_platform.submission*",
    "cider_platform.tokens",
    "cider_platform.runs.tracking",
    "cider_platform.search.why",
)
TORCH = {
    "cider.data.batch",
    "cider.data.loader",
    # The authors' weights are torch files.
    "cider.data.safe_torch",
    "cider.data.torch_file",
    "cider.data.torch_globals",
}
HEAVY = (
    *("torch", "transformers", "ray", "optuna", "pyarrow", "pandas", "scipy", "sklearn"),
    *("matplotlib", "tensorboardX"),
)

TRAINING_WITHOUT_AN_ENCODER = """
import json, sys
import cider_platform.search.tune_worker, cider_platform.runs.trial
print(json.dumps(sorted({"transformers", "huggingface_hub"} & set(sys.modules))))
"""

IMPORT_EACH = """
import importlib, json, sys
offences = []
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        offences.append(name)
        break
print(json.dumps(offences))
"""

ALL_HELP = """
import contextlib, io, json, sys
from cider_platform.cli import app, main
from typer.main import get_command
heavy = json.loads(sys.argv[1])
def paths(command, path=()):
    yield path
    for name in getattr(command, "commands", ()):
        _, child, _ = command.resolve_command(None, [name])
        yield from paths(child, (*path, name))
found = {}
for command in list(paths(get_command(app))):
    sys.argv = ["cider-platform", *command, "--help"]
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            main()
        except SystemExit as end:
            assert not end.code, (command, end.code)
    assert "Usage" in text.getvalue(), command
    found[" ".join(command)] = [name for name in heavy if name in sys.modules]
print(json.dumps({command: names for command, names in found.items() if names}))
"""

# Other people's modules are imported first: what they do to the process is not ours to judge.
GLOBAL_STATE = """
import importlib, json, logging, os, random, sys
import numpy, torch
theirs, ours = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for name in theirs:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        # A class or function of that module; reading it matters where modules load lazily.
        module, _, attribute = name.rpartition(".")
        getattr(importlib.import_module(module), attribute)
def state():
    return {
        "environment": sorted(os.environ.items()),
        "working folder": os.getcwd(),
        "random": repr(random.getstate()),
        "numpy.random": repr(numpy.random.get_state()),
        "torch seed": torch.initial_seed(),
        "torch generator": torch.get_rng_state().tolist(),
        "torch threads": torch.get_num_threads(),
        "torch dtype": str(torch.get_default_dtype()),
        "log handlers": [repr(handler) for handler in logging.getLogger().handlers],
    }
before, offences = state(), []
for name in ours:
    importlib.import_module(name)
    after = state()
    offences += [f"{name} changes {what}" for what in before if before[what] != after[what]]
    before = after
print(json.dumps(offences))
"""


def test_torch_free_modules_import_no_torch(sources, run_python):
    modules = [source.module for source in sources]
    matched = {pattern: fnmatch.filter(modules, pattern) for pattern in TORCH_FREE}
    assert all(matched.values()), "each pattern names a module that exists"
    names = sorted({name for found in matched.values() for name in found} - TORCH)
    assert set(modules) >= TORCH
    assert run_python(IMPORT_EACH, *names) == []


def test_help_of_every_command_imports_nothing_heavy(run_python):
    assert run_python(ALL_HELP, json.dumps(HEAVY)) == {}


def test_a_training_process_imports_no_transformers_before_it_builds_an_encoder(run_python):
    assert run_python(TRAINING_WITHOUT_AN_ENCODER) == []


def test_importing_every_module_changes_no_global_state(sources, run_python):
    ours = [source.module for source in sources if not source.module.endswith("__main__")]
    theirs = sorted(
        {
            found.module
            for source in sources
            for found in source.imports
            if found.at_runtime and not found.in_function
            if found.module.split(".")[0]
            not in {*sys.stdlib_module_names, "cider", "cider_platform"}
        }
    )
    assert run_python(GLOBAL_STATE, json.dumps(theirs), json.dumps(ours)) == []
