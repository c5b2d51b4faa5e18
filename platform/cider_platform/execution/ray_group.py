"""Ray Train runs the workers of one training; import it inside a Ray session.

It starts them, joins them to torch's process group, and starts all of them again when one is lost.
Checkpoints are the run's own (``cider_platform.runs.trial``), so a group that is started again goes
on from them, and Ray Train keeps nothing that is read back.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from ray.exceptions import RayActorError
from ray.train import (
    ControllerError,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
    get_context,
)
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from cider.errors import CiderError, TrainingError, WorkerLostError
from cider.training.workers import PATIENCE, Workers

if TYPE_CHECKING:
    from pathlib import Path

    from cider.spec import RunSpec
    from cider_platform.execution.capacity import Group
    from cider_platform.runs.trial import Runtime
    from cider_platform.search.tune import Train

MAX_RESTARTS = 3
"""How often the workers are started again; a machine that loses more is not fit for the run."""
MAX_START_FAILURES = 3
"""How often Ray Train may fail to bring the workers up; its own default is to try for ever."""


def fit(spec: RunSpec, runtime: Runtime, group: Group, *, train: Train, folder: Path) -> None:
    """Train a resolved spec to its end.

    Args:
        spec: what to train.
        runtime: where and how, with absolute paths.
        group: how many workers, and what each of them holds.
        train: yields epoch results, in every worker.
        folder: absolute; Ray Train's own files go there and are never read back.

    Raises:
        CiderError: if the run cannot go on.
    """

    def work() -> str:
        """Train as one of the workers; return why no worker can go on, if it is so."""
        context = get_context()
        device = str(get_device()) if group.gpus else "cpu"
        workers = Workers(context.get_world_rank(), context.get_world_size(), device)
        try:
            for _ in train(spec, replace(runtime, device=device, workers=workers)):
                pass
        except TrainingError as error:
            # All workers find this at once, and would again: starting them again helps nobody.
            return str(error)
        return ""

    # It reports every step of its own at the info level.
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    # Type checkers see the former interface of Ray Train; what runs is the second.
    trainer = TorchTrainer(
        work,  # type: ignore[arg-type]
        # NCCL refuses two workers on one GPU.
        torch_config=TorchConfig(
            backend="nccl" if group.gpus >= 1 else "gloo", timeout_s=int(PATIENCE.total_seconds())
        ),
        scaling_config=ScalingConfig(
            num_workers=group.most if group.least == group.most else (group.least, group.most),  # type: ignore[arg-type]
            use_gpu=group.gpus > 0,
            resources_per_worker={"CPU": group.cpus, "GPU": group.gpus},
        ),
        run_config=RunConfig(
            name=spec.run_id,
            storage_path=str(folder),
            failure_config=FailureConfig(
                max_failures=MAX_RESTARTS,
                controller_failure_limit=MAX_START_FAILURES,  # type: ignore[call-arg]
            ),
        ),
    )
    try:
        result = trainer.fit()
    except WorkerGroupError as error:
        raise CiderError(
            f"the workers of the run ended {MAX_RESTARTS + 1} times, the last time because "
            f"{_reason(error)}; the same command goes on from the run's last checkpoint"
        ) from error
    except (ControllerError, RayActorError) as error:
        raise CiderError(
            f"Ray Train could not keep {group} going: {_last_line(error)}; the same command goes "
            "on from the run's last checkpoint"
        ) from error
    if refusal := result.return_value:  # type: ignore[attr-defined]
        raise TrainingError(refusal)


def _reason(error: WorkerGroupError) -> str:
    """Return what workers died of: losing one another only where nothing else is known."""
    lines = [_last_line(failure) for _, failure in sorted(error.worker_failures.items())]
    other = [line for line in lines if WorkerLostError.__name__ not in line]
    return (other or lines)[0]


def _last_line(error: Exception) -> str:
    # Of a traceback's text that is the error itself.
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
