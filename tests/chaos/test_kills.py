"""SIGKILL at seeded random moments: workers, drivers, Ray's node manager and head.

After every campaign the same command has brought the study to its end, and nothing is lost, done
twice or left behind.
"""

import pytest
from chaos_driver import Options
from chaos_harness import Campaign, states_on_disk, undisturbed
from chaos_training import EPOCH_SECONDS
from tiny_corpus import write_tiny_corpus

from cider.spec import RunSpec
from cider_platform.layout import RunFolder, read_json
from cider_platform.lease import has_living_owner

pytestmark = pytest.mark.chaos

SLOW_EPOCHS = {EPOCH_SECONDS: "0.15"}


def check_nothing_is_left(place, trials):
    assert place.left() == ([], [])
    assert list(place.home.iterdir()) == []
    for trial in trials:
        folder = RunFolder.of(place.results, trial["run"])
        assert not has_living_owner(folder.lease)  # a worker may be killed after its last word
        # What the worker wrote down is what it trained: the folder's name is the hash of it.
        assert RunSpec.from_dict(read_json(folder.spec)).run_id == trial["run"]


@pytest.mark.parametrize(
    ("checkpoint_every", "plan"),
    [
        (1, {"worker": 8, "driver": 2, "raylet": 1, "head": 1}),
        (3, {"worker": 6, "driver": 1, "early driver": 1, "raylet": 1}),
    ],
)
def test_study_on_one_slot_ends_as_the_undisturbed_one(place, checkpoint_every, plan, capsys):
    options = Options(
        root=str(place.root), study="one", total=40, checkpoint_every=checkpoint_every
    )
    campaign = Campaign(place, options, seed=checkpoint_every, plan=plan, environment=SLOW_EPOCHS)
    trials = campaign.run()
    assert len(campaign.kills) == sum(plan.values())
    assert trials == undisturbed(options)
    assert {trial["state"] for trial in trials} == {"COMPLETE", "PRUNED"}
    assert states_on_disk(place.results, trials) == [trial["state"] for trial in trials]
    redone = campaign.redone(trials)
    check_nothing_is_left(place, trials)
    with capsys.disabled():
        print(f"\none slot, a checkpoint every {checkpoint_every} epochs: {campaign.summary()}; "
              f"{redone} of {sum(trial['epochs'] for trial in trials)} epochs redone")  # fmt: skip


def test_study_on_two_slots_accounts_for_every_trial_once(place, capsys):
    plan = {"worker": 9, "driver": 1, "early driver": 1, "raylet": 1, "head": 1}
    options = Options(root=str(place.root), study="two", total=60, slots=2)
    campaign = Campaign(place, options, seed=7, plan=plan, environment=SLOW_EPOCHS)
    trials = campaign.run()
    assert len(campaign.kills) == sum(plan.values())
    assert [trial["number"] for trial in trials] == list(range(60))
    assert {trial["state"] for trial in trials} == {"COMPLETE", "PRUNED"}
    assert len({trial["run"] for trial in trials}) == 60
    assert states_on_disk(place.results, trials) == [trial["state"] for trial in trials]
    assert all(trial["epochs"] == 9 for trial in trials if trial["state"] == "COMPLETE")
    redone = campaign.redone(trials)
    check_nothing_is_left(place, trials)
    with capsys.disabled():
        print(f"\ntwo slots: {campaign.summary()}; {redone} epochs redone")


def test_study_with_the_real_training_ends_as_the_undisturbed_one(place, capsys):
    write_tiny_corpus(place.root / "store")
    plan = {"worker": 4, "driver": 1, "raylet": 1, "head": 1}
    options = Options(root=str(place.root), study="real", total=12, epochs=30, real=True)
    campaign = Campaign(place, options, seed=11, plan=plan)
    trials = campaign.run()
    assert len(campaign.kills) == sum(plan.values())
    assert trials == undisturbed(options)
    assert states_on_disk(place.results, trials) == [trial["state"] for trial in trials]
    check_nothing_is_left(place, trials)
    folders = [
        (
            RunFolder.of(place.results, trial["run"]),
            RunFolder.of(place.root / "undisturbed", trial["run"]),
        )
        for trial in trials
    ]
    for disturbed, whole in folders:
        before, after = read_json(whole.fingerprint), read_json(disturbed.fingerprint)
        assert after["steps"] == before["steps"]
        if whole.is_complete:
            assert (
                read_json(disturbed.frozen)["weights_sha256"]
                == read_json(whole.frozen)["weights_sha256"]
            )
    with capsys.disabled():
        print(f"\nreal training: {campaign.summary()}")


def test_worker_killed_too_often_fails_its_trial_alone(place):
    options = Options(
        root=str(place.root), study="deaths", total=4, pruner=False,
        sampler="random", space=["loss.joint=choice:0,0.5", "optimizer.lr=log:1e-4:1e-1"],
    )  # fmt: skip
    campaign = Campaign(
        place, options, seed=0, plan={},
        environment={"CHAOS_FAULTS": '{"0.5": "die"}'},
    )  # fmt: skip
    trials = campaign.run()
    for trial in trials:
        if trial["params"]["loss.joint"] == 0.5:
            assert trial["state"] == "FAIL"
            assert trial["error"].startswith("its worker process died 3 times")
            # It went on from the checkpoint of epoch 1 and died in epoch 2 each time.
            assert campaign.computed(trial["run"]) == [1, 2, 2, 2]
            assert RunFolder.of(place.results, trial["run"]).state == "FAILED"
        else:
            assert (trial["state"], trial["error"]) == ("COMPLETE", None)
    assert {trial["state"] for trial in trials} == {"FAIL", "COMPLETE"}
    assert place.left() == ([], [])
