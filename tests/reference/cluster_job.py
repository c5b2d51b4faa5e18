"""A driver for the cluster tests: trains a few tiny runs as Ray tasks, each exactly once.

Results go to the shared folder of ``CIDER_RESULTS``; a run that is complete there is not trained
again, so the same command goes on where a killed one stopped.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from cider.spec import RunSpec
from cider_platform import lease
from cider_platform.layout import RunFolder
from cider_platform.roots import results_root, store_root
from cider_platform.trial import Runtime, resolve, train_run


def spec_of(seed):
    return {
        "data": {"dataset": "tiny"},
        "model": {"name": "late_fusion", "width": 8},
        "text_encoder": {"width": 8, "layers": 1},
        "training": {"epochs": 6, "batch_size": 8},
        "seed": seed,
    }


def train(seed, pause_seconds=0.0):
    """Train one run unless it is complete; return its id."""
    runtime = Runtime(store_root(), results_root(), threads=1)
    spec = resolve(RunSpec.from_dict(spec_of(seed)), runtime)
    folder = RunFolder.of(runtime.results, spec.run_id)
    folder.root.mkdir(parents=True, exist_ok=True)
    with lease.hold(folder.lease, f"run {spec.run_id}", wait=True):
        if not folder.is_complete:
            for _ in train_run(spec, runtime):
                time.sleep(pause_seconds)
    return spec.run_id


def main():
    import ray

    seeds, pause = int(sys.argv[1]), float(sys.argv[2])
    ray.init()
    remote = ray.remote(num_cpus=1, max_retries=10, scheduling_strategy="SPREAD")(train)
    runs = ray.get([remote.remote(seed, pause) for seed in range(seeds)])
    print(json.dumps(sorted(runs)))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main()
