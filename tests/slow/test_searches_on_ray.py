"""Whole searches on Ray by the command line: slots, several objectives, seeds, a final ranking.

A minute or two; run with ``-m slow``.
"""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest
from tiny_corpus import write_tiny_corpus

import cider
import cider_platform
from cider_platform.search.fresh_seeds import FIRST_FRESH_SEED
from cider_platform.search.study import read_study

pytestmark = pytest.mark.slow

COMMON = (
    "--dataset", "tiny", "--device", "cpu", "--epochs", "2", "--json",
    "--set", "model.width=8", "--set", "text_encoder.width=8", "--set", "training.batch_size=6",
)  # fmt: skip
SPACE = ("--space", "model.layers=int:1:3", "--space", "optimizer.lr=log:1e-3:1e-1")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    write_tiny_corpus(root)
    return root


@pytest.fixture
def tune(store, tmp_path):
    """Function of (name of a results folder, options) that searches; returns the result."""

    def run(results, *options):
        roots = [Path(module.__path__[0]).parent for module in (cider, cider_platform)]
        done = subprocess.run(
            [
                sys.executable, "-m", "cider_platform", "tune", *COMMON, "--store", store,
                "--results", tmp_path / results, *options,
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))},
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["data"]

    return run


def test_random_search_on_one_and_on_four_slots_has_the_same_results(tune, tmp_path):
    options = ("--study", "s", "--sampler", "random", "--pruner", "none", "--trials", "10", *SPACE)
    tune("one", *options, "--slots", "1")
    tune("four", *options, "--slots", "4")
    one, four = (read_study(tmp_path / name, "s")[1] for name in ("one", "four"))
    assert {trial.state for trial in one} == {"COMPLETE"}
    assert one == four
    assert len({trial.run for trial in one}) == 10


def test_several_objectives_end_in_a_pareto_set(tune, tmp_path):
    data = tune(
        "results", "--study", "s", "--sampler", "nsga2", "--trials", "8", "--slots", "2", *SPACE,
        "--objective", "valid/acc2@0.0", "--objective", "parameters",
        "--objective", "valid/auilc/acc2",
    )  # fmt: skip
    assert data["objectives"] == ["valid/acc2@0.0", "parameters", "valid/auilc/acc2"]
    trials = read_study(tmp_path / "results", "s")[1]
    signs = (1, -1, 1)
    values = {
        trial.number: [sign * value for sign, value in zip(signs, trial.values, strict=True)]
        for trial in trials
    }
    dominated = {
        number
        for number, mine in values.items()
        for other in values.values()
        if other != mine and all(a >= b for a, b in zip(other, mine, strict=True))
    }
    assert {each["trial"] for each in data["pareto"]} == set(values) - dominated
    # More layers are more parameters, whatever else is drawn.
    layers = sorted((t.params["model.layers"], t.values[1]) for t in trials)
    assert all(b[1] > a[1] for a, b in pairwise(layers) if b[0] > a[0])


def test_final_ranking_is_on_seeds_that_were_never_searched_on(tune, tmp_path):
    options = (
        "--study", "s", "--trials", "6", "--slots", "2", "--pruner", "none", "--seeds", "2",
        "--final-seeds", "3",
        *SPACE,
    )  # fmt: skip
    data = tune("results", *options)
    trials = read_study(tmp_path / "results", "s")[1]
    searched = {trial.seed for trial in trials}
    assert len(searched) == 2
    fresh = {1111 + FIRST_FRESH_SEED + number for number in range(3)}
    assert not fresh & searched
    assert all(set(each["seeds"]) == fresh for each in data["finals"])
    means = [each["mean"] for each in data["finals"]]
    assert means == sorted(means, reverse=True)
    assert data["finals"][0]["mean"] == pytest.approx(mean(data["finals"][0]["scores"]))
    assert {row["seeds"] for row in data["final_tests"]} == {3}
    assert tune("results", *options) | {"seconds": 0} == data | {"seconds": 0}
