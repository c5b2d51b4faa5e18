"""A trial in its worker: what Ray Tune calls, and what it tells the driver after every epoch."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ray import tune

from cider.errors import WorkerLostError
from cider.spec import RunSpec
from cider_platform.execution.faults import is_out_of_memory, memory_words, sentence
from cider_platform.execution.profiling import Meter, give_back, write_profile
from cider_platform.layout import RunFolder
from cider_platform.lease import hold
from cider_platform.runs import run_log
from cider_platform.runs.evaluation import objective_values
from cider_platform.runs.trial import read_epochs
from cider_platform.search.objectives import parse_objectives
from cider_platform.search.search import Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cider_platform.runs.trial import Runtime
    from cider_platform.search.tune import Train


def run_trial(
    config: dict[str, Any], train: Train, runtime: Runtime, *, num_workers: int = 1
) -> None:
    """Train one trial in a worker, reporting to Tune after every epoch.

    The run's past, if it has one, is reported first and in one message, so that the study knows
    every epoch of it.

    Args:
        config: ``number`` of the trial, ``spec``, the resolved spec as JSON, ``run``, its id as the
            driver knows it, ``objectives``, their names, and ``shape``, what decides its memory.
        train: yields epoch results.
        runtime: where and how to run.
        num_workers: how many processes train it together, this one among them.
    """
    spec = RunSpec.from_dict(json.loads(config["spec"]))
    if spec.run_id != config["run"]:
        text = (
            f"the worker would train run {spec.run_id} where the search asked for {config['run']}: "
            "its code is of another version; end the search and give the same command again"
        )
        _say(Report(history=[], error=text))
        return
    folder = RunFolder.of(runtime.results, spec.run_id)
    # Another trial or command may be training the same configuration: wait, then reuse its run.
    with hold(folder.lease, f"run {spec.run_id}", wait=True):
        past = read_epochs(folder.epochs)
        history = [(epoch["epoch"], epoch["best_score"]) for epoch in past]
        if past:
            is_last = _is_last(spec, past[-1]["epoch"], past[-1]["best_epoch"])
            _say(Report(history=history, is_last=is_last))
        end = Report(history=[])
        try:
            with run_log.attempt(folder, f"trial {config['number']}", in_worker=True):
                for report in _epochs(config["shape"], spec, train, runtime, num_workers):
                    history = report.history
                    _say(report)
                objectives = parse_objectives(config["objectives"], spec)
                is_score = len(objectives) == 1 and objectives[0].is_score_of(spec)
                values = None if is_score else objective_values(folder, runtime, objectives)
            end = Report(history=history[-1:], is_last=True, is_finished=True, values=values)
        except WorkerLostError:
            raise  # as if this process had died: the search starts the trial again
        except Exception as error:
            if is_out_of_memory(error):
                end = Report(history=[], out_of_memory=memory_words(error))
            else:
                end = Report(history=[], error=sentence(error, folder.root))
        finally:
            # Not before: an error's traceback holds what the training held.
            give_back(runtime.device)
    _say(end)


def _epochs(
    shape: str, spec: RunSpec, train: Train, runtime: Runtime, num_workers: int
) -> Iterator[Report]:
    """Train; yield a report after every epoch, with what the trial takes where that is news."""
    meter = Meter(runtime.device, num_workers)
    for result in train(spec, runtime):
        profile = meter.profile(shape, result.epoch, result.seconds)
        if profile is not None:
            write_profile(RunFolder.of(runtime.results, spec.run_id), profile)
        yield Report(
            history=[(result.epoch, result.best_score)],
            is_last=_is_last(spec, result.epoch, result.best_epoch),
            profile=None if profile is None else profile.to_dict(),
        )


def _is_last(spec: RunSpec, epoch: int, best_epoch: int) -> bool:
    training = spec.training
    return epoch >= training.epochs or epoch - best_epoch >= training.patience


def _say(report: Report) -> None:
    tune.report({"report": json.dumps(asdict(report)), "epoch": report.epoch})


def heard(result: dict[str, Any]) -> Report:
    """Return what a worker told, from what Tune passed on."""
    values = json.loads(result["report"])
    return Report(**{**values, "history": [tuple(pair) for pair in values["history"]]})
