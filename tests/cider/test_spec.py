"""The spec: identity, typed fields, and the sentence for every wrong value."""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cider.behaviour import DIFFERENCES, with_behaviour
from cider.config import field_types, with_field
from cider.errors import UsageError
from cider.models.late_fusion.config import Config as LateFusion
from cider.spec import DataConfig, MissingConfig, RunSpec, SelectionConfig

GROUPS = [name for name in field_types(RunSpec) if name != "seed"]


def every_field(spec):
    for group in GROUPS:
        for name in field_types(type(getattr(spec, group))):
            yield f"{group}.{name}", getattr(getattr(spec, group), name)
    yield "seed", spec.seed


def another(path, value, expected):
    """Return a legal value of a field other than the one it has."""
    special = {
        "missing.kept": None,  # only with smm, see its own test
        "missing.protocol": "rmm",
        "model.heads": 8,
        "text_encoder.heads": 4,
        "selection.metric": "f1",
        "data.dataset": "mosi",
    }
    if path in special:
        return special[path]
    if hasattr(expected, "__args__") and isinstance(value, str):
        return next(option for option in expected.__args__ if option != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (0.25,)
    if isinstance(value, int):
        return value * 2
    if isinstance(value, float):
        return value / 2 + 0.0625
    return value + "x"


@pytest.mark.parametrize("path", [path for path, _ in every_field(RunSpec())])
def test_every_field_changes_the_run_id(path):
    spec = RunSpec()
    types = dict(field_types(RunSpec))
    group, _, name = path.partition(".")
    expected = types["seed"] if path == "seed" else field_types(type(getattr(spec, group)))[name]
    value = another(path, dict(every_field(spec))[path], expected)
    if value is None:
        changed = dataclasses.replace(spec, missing=MissingConfig(protocol="smm", kept="LA"))
        other = dataclasses.replace(spec, missing=MissingConfig(protocol="smm", kept="L"))
        assert changed.run_id != other.run_id
        return
    changed = with_field(spec, path, value)
    if path.startswith("text_encoder.") and name in ("layers", "width", "heads", "dropout"):
        # These describe the encoder from scratch and only count there.
        assert changed.run_id == spec.run_id
        spec, changed = (
            with_field(each, "text_encoder.source", "scratch") for each in (spec, changed)
        )
    assert changed.run_id != spec.run_id


def test_run_id_is_the_same_in_another_process():
    code = "from cider.spec import RunSpec; print(RunSpec(seed=5).run_id)"
    ids = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert ids == {RunSpec(seed=5).run_id}


def test_run_id_of_known_weights_does_not_depend_on_their_folder():
    spec = with_field(RunSpec(), "text_encoder.weights_sha256", "a" * 64)
    ids = {with_field(spec, "text_encoder.source", name).run_id for name in ("bert", "/a/folder")}
    assert len(ids) == 1


@given(st.permutations(list(RunSpec().to_dict())))
def test_from_dict_of_to_dict_in_any_order_gives_an_equal_spec(order):
    values = RunSpec(seed=7, model=LateFusion(width=8)).to_dict()
    spec = RunSpec.from_dict({name: values[name] for name in order})
    assert spec.to_dict() == values
    assert spec.run_id == RunSpec(seed=7, model=LateFusion(width=8)).run_id


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("model.layer", "2", "unknown field 'model.layer': 'layer' is not one of layers, heads,"),
        ("modle.layers", "2", "'modle' is not one of data, model, text_encoder"),
        ("model.layers", "two", "model.layers must be a whole number, got 'two'"),
        ("model.layers", "2.5", "model.layers must be a whole number, got '2.5'"),
        ("model.layers", "0", "model.layers must be above 0, got 0"),
        ("model.heads", "3", "model.heads must divide model.width, got 3 heads of width 32"),
        (
            "model.attention_dropout",
            "1.5",
            "model.attention_dropout must be in [0.0, 0.95], got 1.5",
        ),
        ("model.wsam", "maybe", "model.wsam must be true or false, got 'maybe'"),
        ("model", "cider", "'model' is a group of fields; set one of model.layers"),
        ("data.task", "binary", "data.task must be one of three_class, seven_class, got 'binary'"),
        ("loss.joint", "nan", "loss.joint must be a number, got 'nan'"),
        ("seed", "-1", "seed must be in [0, 4294967295], got -1"),
        ("selection.rates", "0,2", "selection.rates must be in [0.0, 1.0], got 2.0"),
        ("seed.x", "1", "'seed' has no fields of its own"),
    ],
)
def test_wrong_field_or_value_is_refused_in_a_sentence(path, value, sentence):
    with pytest.raises(UsageError) as caught:
        with_field(RunSpec(), path, value)
    assert sentence in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"missing": MissingConfig(protocol="tmfm")}, "needs aligned data, got unaligned"),
        (
            {"selection": SelectionConfig(metric="acc7")},
            "acc7 needs the task seven_class, got three_class",
        ),
        (
            {"data": DataConfig(task="seven_class"), "selection": SelectionConfig(metric="acc2")},
            "acc2 needs the task three_class, got seven_class",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused(arguments, sentence):
    with pytest.raises(UsageError, match="needs"):
        RunSpec(**arguments)
    with pytest.raises(UsageError) as caught:
        RunSpec(**arguments)
    assert sentence in str(caught.value)


def test_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="unknown model 'cidr'; known: cider, late_fusion"):
        RunSpec.from_dict({"model": {"name": "cidr"}})


def test_behaviours_set_every_difference_and_nothing_else():
    spec = RunSpec()
    released = with_behaviour(spec, "released")
    changed = {
        path
        for (path, a), (_, b) in zip(every_field(spec), every_field(released), strict=True)
        if a != b
    }
    assert changed == {difference.field for difference in DIFFERENCES}
    assert with_behaviour(released, "corrected") == spec


def test_corrected_is_the_default_of_every_difference():
    fields = dict(every_field(RunSpec()))
    assert all(fields[difference.field] == difference.corrected for difference in DIFFERENCES)


def test_behaviour_of_another_model_leaves_out_what_it_does_not_have():
    spec = with_behaviour(RunSpec(model=LateFusion()), "released")
    assert spec.training.clear_gradients is False
    assert spec.model == LateFusion()
