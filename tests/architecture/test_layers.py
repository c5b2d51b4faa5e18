"""Imports point one way: science knows nothing of engineering, a layer only those below it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

# The longest prefix that fits a module decides. A layer imports its own and lower ones.
LAYERS = {
    "cider": 0,
    "cider.condition": 0,
    "cider.config": 0,
    "cider.errors": 0,
    "cider.modality": 0,
    "cider.registry": 0,
    "cider.seeding": 0,
    "cider.behaviour": 1,
    "cider.models": 1,  # names and configurations; the networks stand in layer 4
    "cider.spec": 1,
    "cider.counterfactual": 2,
    "cider.data": 2,
    "cider.metrics": 2,
    "cider.missing": 2,
    "cider.missing_released": 2,
    "cider.published": 2,
    "cider.significance": 2,
    "cider.views": 2,
    "cider.modules": 3,
    "cider.losses": 4,
    "cider.models.emotion": 4,
    "cider.models.interface": 4,
    "cider.training": 5,
    "cider_platform": 6,
}
NETWORK = re.compile(r"cider\.models\.\w+\.(?!config\b)\w+")
NETWORK_LAYER = 4
CONFIG = re.compile(r"cider\.models\.\w+\.config")

# Library -> modules that may import it; a pattern covers a folder.
ENGINEERING = {
    "click": (),
    "matplotlib": (
        "search.plots",
        "report.figures",
        "explaining.draw_*",
        "figure_files",
    ),
    "mlflow": ("runs.tracking",),
    "optuna": (
        "commands.study_report",
        "search.dashboard",
        "search.database",
        "search.importance",
        "search.journal",
        "search.ledger",
        "search.plots",
        "search.pruning",
        "search.samplers",
        "search.starts",
        "search.stopping",
        "search.storage",
        "search.study",
        "search.study_export",
        "search.why",
    ),
    "optuna_dashboard": ("search.dashboard",),
    "ray": (
        *(
            "execution.ray_gang",
            "execution.ray_group",
            "search.tune",
            "execution.ray_train",
            "search.tune_worker",
            "search.tune_trials",
        ),
        *("cluster.*", "grids.ray_runs", "execution.sessions", "submission.client"),
    ),
    "rich": ("output", "progress"),
    "sqlalchemy": ("search.database", "search.storage", "search.storage_lease"),
    "tensorboardX": ("runs.tracking",),
    "typer": ("cli", "commands.*"),
}

# Library that only some installations have -> the extra that brings it; imported when it is used.
OPTIONAL = {"mlflow": "mlflow", "optuna_dashboard": "dashboard", "sklearn": "figures"}


def _layer(module: str) -> int | None:
    """Return the layer of a module of ours, or None; ``cider.x.name`` may name an object of it."""
    if NETWORK.match(module):
        return NETWORK_LAYER
    parts = module.split(".")
    prefixes = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    return next((LAYERS[prefix] for prefix in prefixes if prefix in LAYERS), None)


def _top(module: str) -> str:
    return module.split(".")[0]


def _normal(distribution: str) -> str:
    return distribution.lower().replace("_", "-")


def test_layers_every_entry_names_a_module_and_every_module_has_an_entry(sources):
    modules = {source.module for source in sources}
    assert set(LAYERS) <= modules
    unlisted = [
        module
        for module in modules
        if module.startswith("cider.") and _layer(module) == 0 and module not in LAYERS
    ]
    assert not unlisted, f"give these a layer: {unlisted}"


def test_imports_of_science_name_no_engineering_library(sources):
    offences = [
        f"{source.module}:{found.line} imports {found.module}"
        for source in sources
        if _top(source.module) == "cider"
        for found in source.imports
        if _top(found.module) in {"cider_platform", *ENGINEERING}
    ]
    assert not offences


def test_engineering_libraries_are_imported_where_they_belong(sources):
    offences = [
        f"{source.module}:{found.line} imports {found.module}"
        for source in sources
        for found in source.imports
        if _top(found.module) in ENGINEERING
        if not any(
            fnmatch(source.module, f"cider_platform.{place}")
            for place in ENGINEERING[_top(found.module)]
        )
    ]
    assert not offences


def test_imports_of_a_layer_name_no_higher_layer(sources):
    offences = [
        f"{source.module}:{found.line} (layer {_layer(source.module)}) imports {found.module}"
        for source in sources
        for found in source.imports
        if found.at_runtime and _layer(found.module) is not None
        # build() of a model's configuration imports the model: the one local import upward.
        if not (found.in_function and CONFIG.fullmatch(source.module))
        if _layer(found.module) > _layer(source.module)
    ]
    assert not offences


def test_imports_of_blocks_name_no_configuration(sources):
    """Blocks take plain numbers; only a model reads its configuration.

    The text encoder is the one block that users choose by name, so it has a configuration.
    """
    allowed = {("cider.modules.text", "cider.spec.TextEncoderConfig")}
    offences = [
        f"{source.module}:{found.line} imports {found.module}"
        for source in sources
        if source.module.startswith("cider.modules.")
        for found in source.imports
        if found.module.startswith(("cider.spec", "cider.models", "cider.behaviour"))
        if (source.module, found.module) not in allowed
    ]
    assert not offences


def test_permit_to_read_test_labels_is_made_by_the_seal_alone(sources):
    """Everything else must ask the seal, which looks at the frozen record or the spec."""
    offences = [
        f"{source.module}:{node.lineno}"
        for source in sources
        if source.module != "cider.data.seal"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and "TestPermit" in ast.unparse(node.func)
    ]
    assert not offences


def test_third_party_imports_are_declared_dependencies(sources, root: Path):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {_normal(re.split(r"[\[<>=]", name)[0]) for name in project["dependencies"]}
    extras = project["optional-dependencies"]
    providers = packages_distributions()
    offences = [
        f"{source.module}:{found.line} imports {found.module}"
        for source in sources
        for found in source.imports
        if _top(found.module) not in {*sys.stdlib_module_names, "cider", "cider_platform"}
        if not (found.in_function and OPTIONAL.get(_top(found.module)) in extras)
        if not declared & {_normal(name) for name in providers.get(_top(found.module), ())}
    ]
    assert not offences
