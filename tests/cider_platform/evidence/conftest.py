"""Made-up finished runs with made-up evaluations."""

from __future__ import annotations

import pytest

from cider.config import with_field
from cider.spec import DataConfig, RunSpec, SelectionConfig
from cider_platform.layout import RunFolder, write_json_atomic

RATES = [step / 10 for step in range(11)]


class MadeUp:
    """Writes run folders below a results root."""

    def __init__(self, results):
        self.results = results

    def run(self, seed=1, *, rule="validation", score=0.7, synthetic=False, state="COMPLETE",
            data=None, imported=False, **fields):  # fmt: skip
        """Write a run of CIDer on mosi, unaligned, ood, three classes; return its id."""
        wanted = {"dataset": "mosi", "distribution": "ood", "content_sha256": "0" * 64}
        spec = RunSpec(
            data=DataConfig(**wanted | (data or {})),
            selection=SelectionConfig(rule=rule),
            seed=seed,
        )
        for path, value in fields.items():
            spec = with_field(spec, path.replace("__", "."), value)
        folder = RunFolder.of(self.results, spec.run_id)
        write_json_atomic(folder.spec, spec.to_dict())
        result = {"score": score, "metric": spec.selection_metric, "synthetic": synthetic}
        if imported:
            result |= {"score": None, "imported_from": {"file": "theirs.pt"}}
        write_json_atomic(folder.result, result)
        folder.write_status(state)
        return spec.run_id

    def evaluate(self, run, metrics, protocol="rmfm", rates=(0.0,), kept=""):
        """Write a run's test metrics, the same at every rate; in [0, 1]."""
        folder = RunFolder.of(self.results, run)
        for rate in rates:
            name = f"test-{protocol}-{kept or f'{rate:g}'}"
            row = {"protocol": protocol, "rate": rate, "kept": kept, "tau": 0.5, "valid": {},
                   "test": metrics}  # fmt: skip
            write_json_atomic(folder.evaluation_file(name), row)

    def seeds(self, values, **options):
        """Write a run per value with its AUILC of acc2 and f1 at that value; return their ids."""
        ids = []
        for seed, value in enumerate(values, start=1):
            ids.append(self.run(seed, **options))
            self.evaluate(ids[-1], {"acc2": value, "f1": value}, rates=RATES)
        return ids


@pytest.fixture
def made_up(tmp_path):
    return MadeUp(tmp_path / "results")


__all__ = ["RATES", "MadeUp"]
