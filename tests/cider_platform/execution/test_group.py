"""A training by several workers: what is asked for, what is told, and the real thing with Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_corpus import write_tiny_corpus

import cider
import cider_platform
from cider.errors import UsageError
from cider.training.trainer import EpochResult
from cider_platform.commands.options import SpecOptions, build_spec
from cider_platform.execution.capacity import choose_group, choose_slots, usable_cpus
from cider_platform.execution.group import Follower
from cider_platform.layout import RunFolder
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.evaluation import conditions_of, evaluate_run
from cider_platform.runs.trial import read_epochs, train_run

# What is asked for


def test_group_is_the_number_asked_for_or_what_there_is_room_for():
    fixed = choose_group("3", "cpu", threads=2)
    assert (fixed.least, fixed.most, fixed.cpus, fixed.gpus) == (3, 3, 2, 0.0)
    assert str(fixed) == "3 workers with 2 cores each"
    wide = choose_group("1:10000", "cpu", threads=1)
    assert (wide.least, wide.most) == (1, usable_cpus())
    assert choose_group("2", "cpu").cpus == max(1, usable_cpus() // 2)


def test_group_on_gpus_gets_a_whole_one_each_unless_told_otherwise():
    whole = choose_group("2", "cuda", threads=1, num_gpus=2)
    assert whole.gpus == 1.0
    assert str(whole) == "2 workers with 1 core and 1 GPU each"
    assert choose_group("2", "cuda", gpus_per_worker=0.5, num_gpus=1).gpus == 0.5
    # Cores of the machine are enough for eight, its GPUs for three.
    assert choose_group("1:8", "cuda", threads=1, num_gpus=3).most <= 3


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("0", "cpu"), {}, "got '0'"),
        (("two", "cpu"), {}, "must be a number of at least 1, or LEAST:MOST"),
        (("4:2", "cpu"), {}, "LEAST not above MOST"),
        (("2:", "cpu"), {}, "got '2:'"),
        (("2", "cuda"), {"num_gpus": 1}, "2 workers with 1 GPUs each need more than the 1"),
        (("2", "cuda:1"), {"num_gpus": 2}, "got device 'cuda:1'; use --device cuda"),
        (("2", "cpu"), {"gpus_per_worker": 1.0}, "the device is cpu; add --device cuda"),
        (("1", "cuda"), {"gpus_per_worker": 1.0, "num_gpus": 1}, "is for several workers"),
    ],
)
def test_group_that_cannot_be_is_refused_in_a_sentence(arguments, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose_group(*arguments, **options)


def test_slots_of_trials_with_several_workers_take_cores_and_gpus_for_all_of_them():
    slots = choose_slots("cpu", slots=3, cpus_per_trial=2, workers=4)
    assert (slots.cpus, slots.gpus_per_trial) == (24, 0.0)
    assert choose_slots("cpu", workers=usable_cpus()).slots == 1
    on_gpu = choose_slots("cuda", slots=1, num_gpus=2, workers=2)
    assert (on_gpu.gpus_per_trial, on_gpu.gpus_per_worker) == (2.0, 1.0)
    with pytest.raises(UsageError, match="--workers-per-trial must be at least 1"):
        choose_slots("cpu", workers=0)


# What is told


def test_follower_tells_every_epoch_once_and_of_workers_started_again(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "run")
    heard, notices = [], []
    write(folder, started="before", epochs=1)
    follower = Follower(folder, heard.append, notices.append)
    write(folder, started="first", epochs=3)
    follower.look()
    write(folder, started="second", epochs=2)  # a restart cuts what the checkpoint does not know
    follower.look()
    write(folder, started="second", epochs=4)
    follower.look()
    assert [result.epoch for result in heard] == [2, 3, 4]
    assert notices == [
        "workers were started again, now 2; the run goes on from its last checkpoint"
    ]


def write(folder, started, epochs):
    """Write what a run's first worker would."""
    folder.write_status("RUNNING", started=started, workers=2)
    results = [
        EpochResult(
            epoch=epoch,
            train={},
            valid={"acc2": 0.5, "f1": float("nan")},
            score=0.5,
            tau=0.0,
            best_score=0.5,
            best_epoch=1,
            is_best=epoch == 1,
            seconds=1.0,
        )
        for epoch in range(1, epochs + 1)
    ]
    folder.epochs.write_text("".join(json.dumps(each.to_dict()) + "\n" for each in results))


# The real thing

SETTINGS = [
    "model.width=8", "model.layers=1", "text_encoder.width=8", "text_encoder.dropout=0",
    *(f"model.{name}_dropout=0" for name in ("attention", "embedding", "output", "relu",
                                             "residual")),
    "training.batch_size=5", "training.gradient_clip=0.5",
]  # fmt: skip
EPOCHS = 4


def train_by_command(root, *arguments, settings=SETTINGS):
    """Run ``train`` as a user would; return exit code, stdout and stderr."""
    roots = [Path(module.__path__[0]).parent for module in (cider, cider_platform)]
    home = root / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [
            sys.executable, "-m", "cider_platform", "train", "--dataset", "tiny", "--device", "cpu",
            "--epochs", str(EPOCHS), "--json",
            *(word for each in settings for word in ("--set", each)), *arguments,
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, roots)),
            "CIDER_STORE": str(root / "store"),
            "CIDER_RESULTS": str(root / "results"),
            "HOME": str(home),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )  # fmt: skip
    assert list(home.iterdir()) == []
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def root(tmp_path):
    write_tiny_corpus(tmp_path / "store")
    return tmp_path


def spec_of(root, runtime):
    """Return what the command trains."""
    spec = build_spec(
        SpecOptions(
            dataset="tiny", scale=None, alignment="unaligned", distribution="iid",
            task="three_class", model="cider", missing="rmfm", kept="", behaviour="corrected",
            encoder="", seed=1111, epochs=EPOCHS, settings=SETTINGS, maci=None,
            selection="validation",
        )
    )  # fmt: skip
    return resolve(spec, runtime)


def test_train_with_two_workers_of_ray_train_gives_the_run_of_one(root):
    code, out, errors = train_by_command(root, "--workers", "2", "--threads", "1")
    assert code == 0, errors
    assert "2 workers with 1 core each" in errors
    alone = Runtime(root / "store", root / "alone", threads=1)
    spec = spec_of(root, alone)
    for _ in train_run(spec, alone):
        pass
    data = json.loads(out)["data"]
    assert data["run"] == spec.run_id
    together = RunFolder.of(root / "results", spec.run_id)
    folder = RunFolder.of(alone.results, spec.run_id)
    for there, here in zip(read_epochs(together.epochs), read_epochs(folder.epochs), strict=True):
        assert there["train"] == pytest.approx(here["train"], abs=1e-5)
        assert (there["valid"], there["tau"]) == (here["valid"], here["tau"])
        assert f"epoch {here['epoch']}: acc2 {here['score']:.4f}" in errors
    rows = evaluate_run(folder, alone, conditions_of("rmfm", [0.0, 0.5]))
    assert [row["test"] for row in data["evaluations"]] == [row["test"] for row in rows]
    assert json.loads(together.result.read_text())["workers"] == 2
    assert together.is_complete
    assert not together.last.exists()


@pytest.mark.slow
def test_run_that_cannot_go_on_ends_all_workers_at_once_with_its_sentence(root):
    settings = [*SETTINGS, "optimizer.lr=1e30", "training.gradient_clip=0"]
    code, out, errors = train_by_command(root, "--workers", "2", settings=settings)
    assert (code, out) == (1, "")
    assert "the loss is not finite" in errors
    assert "started again" not in errors
    assert "Traceback" not in errors
    (folder,) = (RunFolder(path) for path in (root / "results" / "runs").iterdir())
    assert "not finite" in folder.read_status()["error"]
