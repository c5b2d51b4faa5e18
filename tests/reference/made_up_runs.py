"""Finished runs with made-up test numbers, as files on disk; nothing is trained."""

from cider.config import with_field
from cider.spec import DataConfig, RunSpec, SelectionConfig
from cider_platform.layout import RunFolder, write_json_atomic

RATES = (0.0, 0.5, 1.0)
PROVENANCE = {"git": {"commit": "c0ffee", "branch": "b", "dirty": True}, "code_sha256": "code"}


def made_up_spec(seed=1, *, dataset="mosi", rule="validation", **fields):
    """Return a spec of CIDer; ``maci__mcm=False`` sets ``maci.mcm``."""
    spec = RunSpec(
        data=DataConfig(dataset=dataset, content_sha256="0" * 64),
        selection=SelectionConfig(rule=rule),
        seed=seed,
    )
    for path, value in fields.items():
        spec = with_field(spec, path.replace("__", "."), value)
    return spec


def write_made_up_run(results, spec, state="COMPLETE", error="", **result):
    """Write a run's folder and return it."""
    folder = RunFolder.of(results, spec.run_id)
    write_json_atomic(folder.spec, spec.to_dict())
    if state == "COMPLETE":
        values = {"score": 0.7, "metric": spec.selection_metric, "synthetic": False} | result
        write_json_atomic(folder.result, values)
        write_json_atomic(folder.provenance, {"sessions": [PROVENANCE]})
    folder.write_status(state, **({"error": error} if error else {}))
    return folder


def write_row(folder, metrics, protocol="rmfm", rate=0.0, kept=""):
    """Write what an evaluation found under one condition; metrics in [0, 1]."""
    row = {"protocol": protocol, "rate": rate, "kept": kept, "tau": 0.5, "valid": {},
           "test": metrics, "confusion": [[5, 1, 0], [1, 3, 2], [0, 1, 7]]}  # fmt: skip
    name = f"test-{protocol}-{kept or format(rate, 'g')}"
    write_json_atomic(folder.evaluation_file(name), row)


def write_seeds(results, bases, *, rates=RATES, protocols=("rmfm",), kept=(), **fields):
    """Write a run per base value: acc2 falls from it by 0.2 * rate; f1 is 0.01 below.

    Returns:
        The runs' ids, seeds 1, 2, ...
    """
    ids = []
    for seed, base in enumerate(bases, start=1):
        spec = made_up_spec(seed, **fields)
        folder = write_made_up_run(results, spec)
        for protocol in protocols:
            for rate in rates:
                value = base - 0.2 * rate
                write_row(folder, {"acc2": value, "f1": value - 0.01}, protocol, rate)
        for name in kept:
            write_row(folder, {"acc2": base - 0.1, "f1": base - 0.11}, "smm", 0.0, name)
        ids.append(spec.run_id)
    return ids
