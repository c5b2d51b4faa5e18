"""Ray Train runs one training: the same worker body in this process now, in many workers later.

``num_workers=0`` is Ray Train's local mode: the body runs in this very process, no cluster is
started, errors arrive as themselves, and the cost is the import of ``ray.train`` (measured: 4 s to
import, under 1 ms to run; a worker group of one costs 10 to 20 s per run).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from cider.spec import RunSpec
from cider_platform.layout import RunFolder
from cider_platform.lease import hold
from cider_platform.runs import run_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from cider.training.trainer import EpochResult
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.tune import Train


def train_on_ray(
    spec: RunSpec, runtime: Runtime, *, train: Train, listener: Callable[[EpochResult], None]
) -> RunFolder:
    """Train a resolved spec to its end and return the run's folder.

    Args:
        spec: what to train.
        runtime: where and how.
        train: yields epoch results; goes on from the run's checkpoint.
        listener: told of every epoch.

    Raises:
        LeaseTakenError: if another living process trains the same run.
        CiderError: if the run cannot go on.
    """
    folder = RunFolder.of(runtime.results, spec.run_id)

    def worker(config: dict[str, Any]) -> None:
        for result in train(RunSpec.from_dict(config["spec"]), runtime):
            listener(result)

    # Local mode says at every start that it is local mode.
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    trainer = TorchTrainer(
        worker,
        train_loop_config={"spec": spec.to_dict()},
        scaling_config=ScalingConfig(num_workers=0, use_gpu=runtime.device.startswith("cuda")),
    )
    with hold(folder.lease, f"run {spec.run_id}"), run_log.attempt(folder, "train"):
        trainer.fit()
    return folder
