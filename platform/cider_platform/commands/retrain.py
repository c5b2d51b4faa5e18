"""The ``train`` command that computes a given run again, from its spec."""

from __future__ import annotations

import inspect
import shlex
from typing import TYPE_CHECKING, Any, get_args

from cider.behaviour import Behaviour
from cider.spec import RunSpec
from cider_platform.commands.options import SpecOptions, build_spec
from cider_platform.commands.train import train
from cider_platform.search.space import apply
from cider_platform.tables import flat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cider_platform.search.ledger import TrialRecord

# Filled in from the corpus and the encoder when a run is resolved.
_RESOLVED = ("data.content_sha256", "text_encoder.weights_sha256")


def train_options(spec: Mapping[str, Any]) -> list[str]:
    """Return the options of ``train`` that lead to a spec, as command line words.

    Args:
        spec: a resolved spec as JSON values.

    Returns:
        Options by name where the value is not the default, then a ``--set`` for every other field.
        Of the two behaviours the one that leaves less to set is taken.
    """
    return min((_options(spec, behaviour) for behaviour in get_args(Behaviour)), key=len)


def train_command(spec: Mapping[str, Any]) -> str:
    """Return ``cider-platform train ...`` for a spec, quoted for a shell."""
    return shlex.join(["cider-platform", "train", *train_options(spec)])


def trial_spec(definition: Mapping[str, Any], trial: TrialRecord) -> dict[str, Any]:
    """Return the spec that a trial of a study trains, as JSON values.

    Args:
        definition: the study's user attributes.
        trial: one of its trials; its values must go together.

    Raises:
        UsageError: if they do not.
    """
    seed = {} if trial.seed is None else {"seed": trial.seed}
    base = RunSpec.from_dict({**definition["base"], **seed})
    return apply(base, trial.params).to_dict()


def _options(spec: Mapping[str, Any], behaviour: str) -> list[str]:
    data = spec["data"]
    named = {
        "dataset": data["dataset"],
        "alignment": data["alignment"],
        "distribution": data["distribution"],
        "task": data["task"],
        "model": spec["model"]["name"],
        "missing": spec["missing"]["protocol"],
        "kept": spec["missing"]["kept"],
        "behaviour": behaviour,
        "encoder": spec["text_encoder"]["source"],
        "seed": spec["seed"],
        "selection": spec["selection"]["rule"],
    }
    built = build_spec(SpecOptions(scale=None, epochs=None, maci=None, **named)).to_dict()
    there, wanted = dict(flat(built)), dict(flat(dict(spec)))
    words = ["--dataset", data["dataset"]]
    defaults = inspect.signature(train).parameters
    for name, value in named.items():
        if name != "dataset" and value != defaults[name].default:
            words += [f"--{name}", str(value)]
    for path, value in wanted.items():
        if path not in _RESOLVED and (path not in there or _text(there[path]) != _text(value)):
            words += ["--set", f"{path}={_text(value)}"]
    return words


def _text(value: object) -> str:
    """Return a JSON value as ``--set`` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return repr(value) if isinstance(value, float) else str(value)
