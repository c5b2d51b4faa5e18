"""What a driver keeps of trials that have ended."""

import pickle

from cider_platform.search.tune_trials import forget, trial_name


def test_ended_trial_keeps_its_number_and_run_and_little_else():
    from ray.tune.experiment import Trial

    config = {"number": 3, "run": "0123", "spec": "x" * 5000, "objectives": ["valid/acc2"]}
    trial = Trial("t", stub=True, config=config, evaluated_params=dict(config), trial_id="id")
    trial.resolve_config_placeholders({})
    numbers = {f"metric{k}": float(k) for k in range(20)}
    for epoch in range(1, 4):
        trial.update_last_result({"training_iteration": epoch, "done": False, **numbers})
    before = len(pickle.dumps([vars(trial.run_metadata), trial.config]))
    forget(trial)
    assert len(pickle.dumps([vars(trial.run_metadata), trial.config])) < before / 5
    assert trial.config == {"number": 3, "run": "0123", "objectives": ["valid/acc2"]}
    assert "x" * 5000 not in str(vars(trial))
    assert trial.last_result["done"] is True
    assert trial_name(trial) == "trial-3-id"
