"""The page about results: its program prints what it says, its fields are those of a run."""

from __future__ import annotations

import re

import pytest
from tiny_corpus import write_tiny_corpus

from cider.models.late_fusion.config import Config
from cider.spec import DataConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider_platform.layout import RunFolder
from cider_platform.results import find_runs
from cider_platform.runs.conditions import conditions_of
from cider_platform.runs.evaluation import evaluate_run
from cider_platform.runs.trial import Runtime, resolve, train_run


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return a results root with two seeds of a tiny run, evaluated at three rates."""
    root = tmp_path_factory.mktemp("two")
    write_tiny_corpus(root / "store")
    runtime = Runtime(root / "store", root / "results", threads=1)
    for seed in (1, 2):
        spec = RunSpec(
            data=DataConfig(dataset="tiny"),
            model=Config(width=8),
            text_encoder=TextEncoderConfig(width=8, layers=1),
            training=TrainingConfig(epochs=1, batch_size=24),
            seed=seed,
        )
        spec = resolve(spec, runtime)
        assert len(list(train_run(spec, runtime))) == 1
        folder = RunFolder.of(runtime.results, spec.run_id)
        evaluate_run(folder, runtime, conditions_of("rmfm", [0.0, 0.5, 1.0]))
    return runtime.results


@pytest.fixture
def section(root):
    """Function of a heading; returns the text below it."""
    text = (root / "docs" / "results.md").read_text(encoding="utf-8")
    return lambda heading: re.search(rf"^## {heading}\n(.*?)(?=^## )", text, re.M | re.S)[1]


def test_results_page_shows_what_its_program_prints(section, results, capsys, monkeypatch):
    monkeypatch.setenv("CIDER_RESULTS", str(results))
    text = section("In a notebook")
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    (printed,) = re.findall(r"^```text\n(.*?)^```", text, re.M | re.S)
    exec(compile(program, "docs/results.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_results_page_names_fields_that_a_run_has(section, results):
    cells = re.findall(r"^\| (`.*?`[^|]*) \|", section("Asking for runs"), re.M)
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    (record, fields), *_ = find_runs(results, evaluated=True)
    assert set(record.summary()) <= named
    # Fields of CIDer and of other protocols, which these runs do not have.
    others = ("rmm", "smm", "none", "model.layers")
    asked = [name for name in named - set(record.summary()) if not any(o in name for o in others)]
    assert {"test.acc2@0.5", "test.auilc.acc2", "training.batch_size"} <= set(asked)
    assert set(asked) <= set(fields)
