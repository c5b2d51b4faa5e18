"""``tune --address``: a search on a Ray cluster that runs already."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_corpus import write_tiny_corpus
from typer.testing import CliRunner

import cider
import cider_platform
from cider.errors import UsageError
from cider_platform.cli import app

SETTINGS = ["model.width=8", "text_encoder.width=8", "training.batch_size=6", "selection.rates=0,1"]
SEARCH = [
    "tune", "--dataset", "tiny", "--study", "there", "--trials", "3", "--epochs", "2",
    "--sampler", "random", "--pruner", "none", "--final-seeds", "2", "--device", "cpu", "--json",
    *(word for each in SETTINGS for word in ("--set", each)),
    "--space", "optimizer.lr=log:1e-3:1e-1",
]  # fmt: skip


def data_of(root, results, *words):
    """What a search prints, in a process of its own."""
    roots = [Path(module.__path__[0]).parent for module in (cider, cider_platform)]
    done = subprocess.run(
        [sys.executable, "-m", "cider_platform", *SEARCH, *words],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, roots)),
            "CIDER_STORE": str(root / "store"),
            "CIDER_RESULTS": str(root / results),
            "HOME": str(root),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["data"]


@pytest.mark.slow
def test_search_on_a_cluster_ends_as_one_on_this_machine_and_leaves_the_cluster_running(tmp_path):
    import ray

    from cider_platform.execution.sessions import choose_folder, ray_session

    write_tiny_corpus(tmp_path / "store")
    alone = data_of(tmp_path, "alone", "--slots", "1")
    with ray_session(choose_folder(), cpus=2, gpus=0, threads=1):
        address = ray.get_runtime_context().gcs_address
        there = data_of(tmp_path, "there", "--slots", "2", "--address", address)
        assert ray.cluster_resources()["CPU"] == 2
    assert there["trials"] == {"COMPLETE": 3}
    assert there["best"]["run"] == alone["best"]["run"]
    assert there["best"]["evaluations"] == alone["best"]["evaluations"]
    assert there["final_tests"] == alone["final_tests"]
    assert [len(each["seeds"]) for each in there["finals"]] == [2, 2, 2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "cpu"], "give --slots"),
        (["--slots", "2"], "give --device cpu or --device cuda"),
        (["--slots", "2", "--device", "cuda:0"], "got --device cuda:0"),
    ],
)
def test_cluster_of_unknown_machines_needs_slots_and_a_device(tmp_path, words, sentence):
    roots = ["--store", str(tmp_path / "store"), "--results", str(tmp_path / "results")]
    write_tiny_corpus(tmp_path / "store")
    command = ["tune", "--dataset", "tiny", "--address", "auto", *words, *roots]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, UsageError)
    assert sentence in str(result.exception)
