"""Why runs and trials are in the state they are in, from what they leave on disk."""

from dataclasses import replace

import optuna
import pytest
from small_study import ASHA, write_study

from cider.errors import NothingMatchedError
from cider.models.cider.config import Config
from cider.spec import DataConfig, OptimizerConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider_platform.execution.ray_train import train_on_ray
from cider_platform.layout import RunFolder
from cider_platform.lease import hold
from cider_platform.results import read_run
from cider_platform.runs import run_log
from cider_platform.runs.assembly import resolve
from cider_platform.runs.trial import train_run
from cider_platform.search.study import open_study, read_study
from cider_platform.search.why import why_run, why_trial


@pytest.fixture
def spec(runtime):
    tiny = RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(width=8, heads=2, layers=1),
        text_encoder=TextEncoderConfig(width=8, layers=1),
        training=TrainingConfig(epochs=2, batch_size=12),
    )
    return resolve(tiny, runtime)


def folder_of(spec, runtime):
    return RunFolder.of(runtime.results, spec.run_id)


def test_complete_run_has_nothing_wrong(spec, runtime):
    train_on_ray(spec, runtime, train=train_run, listener=lambda _: None)
    told = why_run(read_run(folder_of(spec, runtime)))
    assert told.state == "COMPLETE"
    assert told.summary.startswith("nothing is wrong: complete after 2 epochs, acc2 0.")
    assert (told.cause, told.remedy, told.first_error, told.memory_ran_out) == (None,) * 3 + (
        False,
    )
    assert (told.epochs, told.attempts) == (2, 1)
    assert told.began <= told.ended


def test_run_that_diverged_says_where_and_what_to_do(spec, runtime):
    hot = resolve(replace(spec, optimizer=OptimizerConfig(lr=1e30)), runtime)
    with pytest.raises(Exception, match=r"not finite|NaN"):
        train_on_ray(hot, runtime, train=train_run, listener=lambda _: None)
    told = why_run(read_run(folder_of(hot, runtime)))
    assert (told.state, told.cause) == ("FAILED", "not finite")
    assert told.first_error.type == "cider.errors.TrainingError"
    assert told.first_error.where.startswith("cider/")
    assert "lower optimizer.lr" in told.remedy
    assert told.remedy.endswith("it goes on from its last checkpoint")
    assert told.log[-1].startswith("cider.errors.TrainingError: ")
    assert told.host is not None


def test_run_that_was_killed_goes_on_and_one_that_lives_is_left_alone(spec, runtime):
    folder = folder_of(spec, runtime)
    training = train_run(spec, runtime)
    with hold(folder.lease, "run"), run_log.attempt(folder, "trial 0"):
        next(training)
        told = why_run(read_run(folder))
        assert (told.state, told.remedy, told.ended) == ("RUNNING", None, None)
        assert "1 epochs are finished, the best so far is 0." in told.summary
    training.close()
    folder.log.write_text(folder.log.read_text().splitlines(keepends=True)[0])
    told = why_run(read_run(folder))
    assert told.state == "STOPPED"
    assert told.remedy == "give the same command again: it goes on after epoch 1"


def test_run_whose_worker_was_ended_for_lack_of_memory_says_so(spec, runtime, monkeypatch):
    folder = folder_of(spec, runtime)
    monkeypatch.setattr(run_log, "oom_kills", lambda: 0)
    with run_log.attempt(folder, "trial 0"):
        folder.write_status("RUNNING")
    folder.log.write_text(folder.log.read_text().splitlines(keepends=True)[0])
    monkeypatch.setattr(run_log, "oom_kills", lambda: 1)
    run_log.lost(folder, "Worker exit type: SYSTEM_ERROR")
    told = why_run(read_run(folder))
    assert (told.cause, told.memory_ran_out) == ("out of memory", True)
    assert told.error == "Worker exit type: SYSTEM_ERROR"


def test_failure_of_an_earlier_attempt_is_not_told_of_a_later_one(spec, runtime):
    folder = folder_of(spec, runtime)
    with pytest.raises(MemoryError), run_log.attempt(folder, "trial 0"):
        raise MemoryError
    with pytest.raises(OSError, match="28"), run_log.attempt(folder, "trial 0"):
        raise OSError(28, "No space left on device")
    folder.write_status("FAILED", error="no space")
    told = why_run(read_run(folder))
    assert told.cause == "disk full"
    assert told.attempts == 2


def test_pruned_run_is_no_failure(spec, runtime):
    folder = folder_of(spec, runtime)
    next(train_run(spec, runtime))
    folder.write_status("PRUNED", epoch=1)
    told = why_run(read_run(folder))
    assert told.state == "PRUNED"
    assert told.summary.startswith("a search stopped it")
    assert told.cause is None


def test_run_that_cannot_be_read_says_which_file(spec, runtime):
    folder = folder_of(spec, runtime)
    folder.write_status("COMPLETE")
    folder.spec.write_text("{")
    told = why_run(read_run(folder))
    assert told.state == "UNREADABLE"
    assert "spec.json is not readable JSON" in told.summary


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study with pruned, failed and complete trials."""
    results = tmp_path_factory.mktemp("studied")
    write_study(results, pruner=ASHA, fail_every=6)
    return results


def told_of(results, number):
    study = open_study(results, "demo")
    return why_trial(study, read_study(results, "demo")[1], number, results)


def numbers_in(results, state):
    return [each.number for each in read_study(results, "demo")[1] if each.state == state]


def test_complete_trials_know_their_places(studied):
    complete = numbers_in(studied, "COMPLETE")
    summaries = [told_of(studied, number).summary for number in complete]
    places = sorted(int(text.rpartition("number ")[2].split()[0]) for text in summaries)
    assert places == list(range(1, len(complete) + 1))
    assert all(text.startswith("nothing is wrong: complete after 4 epochs") for text in summaries)


def test_pruned_trials_say_at_which_rung_and_what_they_needed(studied):
    study = open_study(studied, "demo")
    for number in numbers_in(studied, "PRUNED"):
        told, trial = told_of(studied, number), study.trials[number]
        reason = trial.user_attrs["pruned"]
        assert reason["epoch"] == trial.last_step == 2 ** reason["rung"]
        # Trials are told one after another here, so those that were there are known.
        rivals = [
            each for each in study.trials[:number] if trial.last_step in each.intermediate_values
        ]
        values = sorted(
            (each.intermediate_values[trial.last_step] for each in rivals), reverse=True
        )
        assert reason["reached"] == len(rivals) + 1
        assert reason["needed"] == values[max(1, (len(rivals) + 1) // 2) - 1] >= reason["value"]
        assert f"at epoch {reason['epoch']} (rung {reason['rung']})" in told.summary
        assert told.summary.endswith(f"it needed more than {reason['needed']:.4f}")
        assert told.remedy is None


def test_failed_trial_stays_in_its_study(studied):
    told = told_of(studied, numbers_in(studied, "FAIL")[0])
    assert (told.state, told.cause) == ("FAIL", "not finite")
    assert "the failed trial stays in the study" in told.remedy


def test_trial_whose_configuration_was_refused_says_how_to_avoid_it(tmp_path):
    ledger = write_study(tmp_path, total=1)
    ledger.ask(2)
    ledger.fail(1, "model.heads must divide model.width, got 8 and 4")
    told = told_of(tmp_path, 1)
    assert told.cause == "configuration refused"
    assert "--space" in told.remedy


def test_trial_without_a_process_goes_on_with_the_same_command(tmp_path):
    ledger = write_study(tmp_path, total=1)
    ledger.ask(2)
    told = told_of(tmp_path, 1)
    assert told.state == "RUNNING"
    assert "no process trains it now" in told.summary
    assert "the same tune command again" in told.remedy


def test_trial_that_waits_and_trial_that_is_not_there(tmp_path):
    write_study(tmp_path, total=1)
    optuna.load_study(
        study_name="demo", storage=open_study(tmp_path, "demo")._storage
    ).enqueue_trial({})
    assert told_of(tmp_path, 1).summary == "it waits for its turn"
    with pytest.raises(NothingMatchedError, match="has no trial 2; it has 0 to 1"):
        told_of(tmp_path, 2)
