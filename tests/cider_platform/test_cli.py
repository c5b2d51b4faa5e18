"""The command line as a person meets it: help, options, what is printed where."""

import json
import subprocess
import sys
import time

import pytest

from cider.errors import UsageError
from cider.spec import RunSpec
from cider_platform.commands.options import SpecOptions, build_spec
from cider_platform.commands.tune import study_name
from cider_platform.runs.rates import parse_rates
from cider_platform.search.search import dataset_defaults
from cider_platform.tables import seconds


def options(**changes):
    values = {
        "dataset": "mosei",
        "scale": None,
        "alignment": "unaligned",
        "distribution": "iid",
        "task": "three_class",
        "model": "cider",
        "missing": "rmfm",
        "kept": "",
        "behaviour": "corrected",
        "encoder": "",
        "seed": 1111,
        "epochs": None,
        "settings": [],
        "maci": None,
        "selection": "validation",
    }
    return SpecOptions(**(values | changes))


def test_help_is_there_within_a_moment():
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "cider_platform", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("data", "train", "tune", "evaluate", "runs", "study", "checkpoint", "metrics"):
        assert command in done.stdout
    # 0.3 s on an idle machine; a test run beside it makes that longer.
    assert time.monotonic() - started < 5


def test_help_of_tune_says_what_happens_by_default(run_cli):
    code, out, _ = run_cli("tune", "-h")
    text = " ".join(out.replace("\u2502", " ").split())
    assert code == 0
    assert f"{dataset_defaults('mosei').trials} as published" in text
    assert f"{dataset_defaults('synthetic-mosei').trials} for synthetic" in text
    epochs = dataset_defaults("synthetic-mosei").fields["training.epochs"]
    assert f"{epochs} for synthetic" in text


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("0:1:0.1", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ("0:1:0.3", [0.0, 0.3, 0.6, 0.9]),
        ("0.5:0.5:1", [0.5]),
        ("0,0.3,0.7", [0.0, 0.3, 0.7]),
        ("1", [1.0]),
        ("0.5,0.5", [0.5]),
    ],
)
def test_rates_are_ranges_with_both_ends_or_lists(text, rates):
    assert parse_rates(text) == rates


@pytest.mark.parametrize("text", ["", "0:1", "0:1:0", "1:0:0.1", "0:2:0.5", "a", "-0.1", "0,nan"])
def test_rates_that_are_neither_are_refused(text):
    with pytest.raises(UsageError, match="--rates must be"):
        parse_rates(text)


def test_options_alone_give_the_published_spec():
    spec = build_spec(options())
    assert spec == RunSpec.from_dict({"data": {"dataset": "mosei"}})


def test_set_comes_after_every_option_and_fields_may_only_fit_together():
    spec = build_spec(
        options(
            epochs=5,
            maci=False,
            behaviour="released",
            settings=[
                "training.epochs=7",
                "training.clear_gradients=true",
                "missing.protocol=smm",
                "missing.kept=LA",
                "model.heads=5",
                "model.width=40",
            ],
        )
    )
    assert (spec.training.epochs, spec.training.clear_gradients) == (7, True)
    assert (spec.missing.protocol, spec.missing.kept) == ("smm", "LA")
    assert (spec.model.heads, spec.model.width) == (5, 40)
    assert spec.model.positions == "batch_index"
    assert (spec.maci.mcm, spec.maci.counterfactual) == (False, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": ["model.layers"]}, "must be PATH=VALUE"),
        ({"settings": ["model.layer=2"]}, "unknown field 'model.layer'; known: layers, heads"),
        ({"settings": ["layers=2"]}, "unknown field 'layers'"),
        ({"settings": ["model.layers=two"]}, "model.layers must be a whole number, got 'two'"),
        ({"settings": ["model.layers.x=2"]}, "has no fields of its own"),
        ({"settings": ["model.name=late_fusion"]}, "--model NAME"),
        ({"model": "cidre"}, "unknown model 'cidre'; known: cider"),
        ({"missing": "rmfn"}, "unknown missing protocol 'rmfn'"),
        ({"missing": "smm"}, "missing.kept must be one of"),
        ({"missing": "stmfm"}, "needs aligned data"),
        ({"scale": 0.5}, "--scale is only for synthetic"),
        ({"dataset": "synthetic-moseo"}, "unknown synthetic corpus"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_a_sentence(changes, message):
    with pytest.raises(UsageError) as refused:
        build_spec(options(**changes))
    assert message in str(refused.value)


def test_scale_and_seed_are_part_of_the_default_name_of_a_study():
    spec = build_spec(options(dataset="synthetic-mosi", scale=0.5, seed=7))
    assert study_name(spec) == "synthetic-mosi-x0.5-three_class-unaligned-iid-cider-seed7"


def test_scale_is_what_the_option_says_or_the_name_or_else_the_corpus_own():
    def name(dataset, scale=None):
        return build_spec(options(dataset=dataset, scale=scale)).data.dataset

    assert name("synthetic-mosei") == "synthetic-mosei"
    assert name("synthetic-mosei-s3") == "synthetic-mosei-s3"
    assert name("synthetic-mosei-x0.2") == "synthetic-mosei-x0.2"
    assert name("synthetic-mosei", 0.5) == "synthetic-mosei-x0.5"
    assert name("mosei") == "mosei"


def test_lists_are_json_on_stdout_and_tables_without(run_cli, tmp_path):
    for command, schema in [
        (("models",), "cider.models/1"),
        (("metrics",), "cider.metrics/1"),
        (("runs", "list", "--results", tmp_path), "cider.runs/1"),
        (("study", "list", "--results", tmp_path), "cider.studies/1"),
    ]:
        code, out, _ = run_cli(*command, "--json")
        assert code == 0
        assert json.loads(out)["schema"] == schema
    code, out, err = run_cli("runs", "list", "--results", tmp_path)
    assert (code, out) == (0, "")
    assert "no runs in" in err


def test_models_are_named_with_what_they_are(run_cli):
    _, out, _ = run_cli("models")
    assert "late_fusion" in out
    assert "cider" in out


def test_version_is_printed(run_cli):
    code, out, _ = run_cli("--version")
    assert code == 0
    assert out.startswith("cider-platform ")


@pytest.mark.parametrize(
    ("value", "text"), [(3.4, "3 s"), (185, "3 min 05 s"), (7620.0, "2 h 07 min")]
)
def test_durations_read_as_people_say_them(value, text):
    assert seconds(value) == text
