"""The search space: how it is written, what fits, what cannot be searched."""

import pytest

from cider.config import with_field
from cider.errors import UsageError
from cider.models import config_class, names
from cider.spec import RunSpec
from cider_platform.search.space import (
    TABLE_II,
    apply,
    axis_from_dict,
    default_space,
    parse_axis,
    read_space,
)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("model.layers=int:1:4", (1, 4)),
        ("loss.joint=float:0:0.5:0.1", (0.0, 0.5)),
        ("optimizer.lr=log:0.0001:0.01", (1e-4, 1e-2)),
        ("model.heads=choice:1,2,4,8", (1, 2, 4, 8)),
        ("model.wsam=choice:true,false", (True, False)),
        ("model.fusion=choice:mct,vanilla", ("mct", "vanilla")),
    ],
)
def test_axis_text_and_json_read_back_the_same(text, ends):
    axis = parse_axis(text)
    assert axis.ends() == ends
    assert axis_from_dict(axis.to_dict()) == axis
    assert parse_axis(str(axis)) == axis
    assert read_space([text], RunSpec()) == (axis,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.layers", "must be path=int"),
        ("model.layers=1:4", "kind must be int"),
        ("model.layers=int:4", "must be path=int"),
        ("model.layers=int:4:1", "lower end must be below"),
        ("model.layers=int:1:2.5", "whole numbers"),
        ("model.layers=int:1:four", "not a number"),
        ("loss.joint=float:0:nan", "not a number"),
        ("loss.joint=float:0:1:2", "step must be above 0"),
        ("optimizer.lr=log:0:1", "above 0"),
        ("optimizer.lr=log:1:2:1", "must be path=int"),
        ("model.heads=choice:4", "at least two different"),
        ("model.heads=choice:4,4", "at least two different"),
        ("model.heads=choice:4,5", "heads must divide"),
        ("model.output_dropout=float:0:1.5", "output_dropout must be in"),
        ("model.nothing=int:1:2", "'nothing' is not one of"),
        ("model.layers=float:1:4", "whole number"),
        ("model=choice:cider,late_fusion", "group of fields"),
        ("data.task=choice:three_class,seven_class", "cannot be searched"),
        ("selection.rule=choice:validation,published", "cannot be searched"),
        ("missing.protocol=choice:rmfm,rmm", "cannot be searched"),
        ("text_encoder.weights_sha256=choice:a,b", "cannot be searched"),
    ],
)
def test_axis_that_does_not_fit_is_refused_in_a_sentence(text, message):
    with pytest.raises(UsageError, match=message):
        read_space([text], RunSpec())


def test_default_space_of_cider_is_table_ii_without_what_was_set():
    spec = RunSpec()
    assert read_space([], spec) == TABLE_II
    paths = [axis.path for axis in read_space([], spec, fixed=["model.layers", "seed"])]
    assert len(paths) == len(TABLE_II) - 1
    assert "model.layers" not in paths


@pytest.mark.parametrize("name", names())
def test_default_space_of_every_model_fits_its_fields(name):
    spec = RunSpec(model=config_class(name)())
    space = read_space([], spec)
    assert space == default_space(spec)
    for axis in space:
        for end in axis.ends():
            assert with_field(spec, axis.path, end)


def test_word_default_adds_to_the_default_space_and_a_named_field_replaces_its_axis():
    axes = read_space(["default", "model.layers=int:1:2", "optimizer.lr=log:1e-4:1e-2"], RunSpec())
    assert len(axes) == len(TABLE_II) + 1
    assert next(axis for axis in axes if axis.path == "model.layers").high == 2


def test_field_that_is_set_and_searched_or_searched_twice_is_refused():
    with pytest.raises(UsageError, match="both set and searched"):
        read_space(["model.layers=int:1:2"], RunSpec(), fixed=["model.layers"])
    with pytest.raises(UsageError, match="twice"):
        read_space(["model.layers=int:1:2", "model.layers=int:1:3"], RunSpec())
    with pytest.raises(UsageError, match="empty"):
        read_space([], RunSpec(), fixed=[axis.path for axis in TABLE_II])


def test_stepped_values_have_no_binary_rounding_so_equal_configurations_share_a_run():
    axis = parse_axis("loss.joint=float:0:1:0.1")
    assert axis.value(3 * 0.1) == 0.3
    spec = RunSpec()
    assert (
        apply(spec, {"loss.joint": axis.value(3 * 0.1)}).run_id
        == apply(spec, {"loss.joint": 0.3}).run_id
    )
