"""Identity of cells: whatever bears on numbers changes it, nothing else does; old ones are read."""

import dataclasses
import tomllib
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cider.condition import Condition
from cider.errors import CiderError
from cider.missing import names as protocols
from cider.models import config_class
from cider.models import names as model_names
from cider.spec import RunSpec
from cider_platform.grids import cells as module
from cider_platform.grids.cells import Cell, expand, read_cell
from cider_platform.grids.grid import Grid, find_grid, read_grid, store_grid
from cider_platform.grids.job import ExecutionBlock, read_job
from cider_platform.layout import GridFolder, read_json, write_json_atomic

CONDITIONS = (Condition("rmfm", 0.0), Condition("rmfm", 0.5))
SPEC = RunSpec(text_encoder=dataclasses.replace(RunSpec().text_encoder, source="scratch"))


def cell(spec=SPEC, seeds=(0, 1), conditions=CONDITIONS):
    return Cell({"task": "three_class"}, spec, seeds, conditions)


def all_fields(spec):
    """Return the dotted path, type and value of every field of a spec and its parts."""
    found = []
    for group, hint in get_type_hints(RunSpec).items():
        value = getattr(spec, group)
        if dataclasses.is_dataclass(value):
            hints = get_type_hints(type(value))
            found += [
                (f"{group}.{each.name}", hints[each.name], getattr(value, each.name))
                for each in dataclasses.fields(value)
            ]
        else:
            found.append((group, hint, value))
    return found


def other_value(path, hint, value, number):
    """Return a value of the field's type that is not its own; ``number`` makes it arbitrary."""
    if path == "missing.protocol":
        others = [name for name in protocols() if name not in (value, "smm", "tmfm", "stmfm")]
        return others[number % len(others)]
    if get_origin(hint) is Literal:
        others = [each for each in get_args(hint) if each != value]
        return others[number % len(others)]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 8 * (1 + number)
    if isinstance(value, float):
        return value + (1 + number) / 10_000
    if isinstance(value, tuple):
        return (*value, (1 + number) / 1_000)
    return f"{value}x{number}"


def changed(spec, path, value):
    group, _, name = path.partition(".")
    if not name:
        return dataclasses.replace(spec, **{group: value})
    return dataclasses.replace(
        spec, **{group: dataclasses.replace(getattr(spec, group), **{name: value})}
    )


SPECS = {name: dataclasses.replace(SPEC, model=config_class(name)()) for name in model_names()}
EVERY = [
    pytest.param(name, path, hint, value, id=f"{name}:{path}")
    for name, spec in SPECS.items()
    for path, hint, value in all_fields(spec)
    if path not in ("model", "seed")
]


# Of some fields only few values go with the others' defaults.
ONLY_FITTING = {"selection.metric": "acc3", "model.heads": 2, "text_encoder.heads": 1}


@pytest.mark.parametrize(("model", "path", "hint", "value"), EVERY)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, 40))
def test_change_of_any_field_of_a_spec_changes_the_cell(model, path, hint, value, number):
    spec, wanted = SPECS[model], other_value(path, hint, value, number)
    if path == "missing.kept":  # goes with the protocol smm alone
        smm = dataclasses.replace(spec.missing, protocol="smm", kept="L")
        spec, wanted = dataclasses.replace(spec, missing=smm), "LA"
    wanted = ONLY_FITTING.get(path, wanted)
    other = changed(spec, path, wanted)
    assert cell(other).id != cell(spec).id
    assert set(cell(other).run_ids).isdisjoint(cell(spec).run_ids)


def test_change_of_seeds_model_version_and_conditions_changes_the_cell(monkeypatch):
    before = cell().id
    assert cell(seeds=(0, 2)).id != before
    assert cell(seeds=(0,)).id != before
    assert cell(conditions=CONDITIONS[:1]).id != before
    assert cell(conditions=(*CONDITIONS, Condition("smm", 0.0, "LA"))).id != before
    monkeypatch.setattr(type(SPEC.model), "version", 99)
    assert cell().id != before


JOB = """
[base]
"training.epochs" = 4
missing = "rmm"

[axes]
dataset = ["mosi", "mosei"]
task = ["three_class", "seven_class"]
seed = "0:3"

[evaluate]
protocols = ["own", "none"]
rates = [0.0, 0.5]
"""


def ids(text, **given_):
    found = expand(read_job("demo", tomllib.loads(text), **given_))
    return sorted(each.id for each in found)


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n" + JOB.replace("\n", "  # another\n"),
        JOB.replace("\n\n", "\n\n\n").replace(" = ", "="),
        JOB.replace('"training.epochs" = 4\nmissing = "rmm"', 'missing = "rmm"\ntraining.epochs=4'),
        JOB.replace('"training.epochs"', "'training.epochs'").replace('"rmm"', "'rmm'"),
        JOB.replace("[0.0, 0.5]", "[0.5, 0.0]").replace('"0:3"', "[2, 0, 1]"),
        JOB.replace('["own", "none"]', '["none", "rmm"]'),
        JOB.replace("[0.0, 0.5]", "[0, 0.5]"),
        JOB.replace('dataset = ["mosi", "mosei"]\ntask = ["three_class", "seven_class"]',
                    'task = ["seven_class", "three_class"]\ndataset = ["mosei", "mosi"]'),
        JOB.replace('missing = "rmm"', '"missing.protocol" = "rmm"'),
        JOB + '\n[execution]\nslots = 7\nthreads = 3\ngpus_per_run = 0.5\ndevice = "cuda"\n'
        "progress_timeout = 9.0",
        "\n[execution]\nthreads = 2\n" + JOB,
    ],
)  # fmt: skip
def test_comments_format_order_and_execution_never_change_a_cell(text):
    assert ids(text) == ids(JOB)


def test_every_execution_setting_is_tried_above():
    assert {each.name for each in dataclasses.fields(ExecutionBlock)} == {
        "slots", "threads", "gpus_per_run", "device", "progress_timeout"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"training.epochs" = 4', '"training.epochs" = 5'),
        ('missing = "rmm"', 'missing = "rmfm"'),
        ('"0:3"', '"0:4"'),
        ("[0.0, 0.5]", "[0.0, 0.4]"),
        ('"none"]', '"smm"]'),
    ],
)
def test_change_of_any_block_that_bears_identity_changes_every_cell(before, after):
    assert before in JOB
    assert set(ids(JOB.replace(before, after))).isdisjoint(ids(JOB))


SEARCH = '[base]\ndataset = "mosi"\n[search]\ntrials = 20\nfinal_seeds = "0:2"\n'


@pytest.mark.parametrize(
    ("more", "same_study"),
    [
        ("trials = 20", None),
        ("trials = 30", True),
        ("sampler = 'random'", False),
        ("pruner = 'none'", False),
        ("grace = 2", False),
        ("objective = ['valid/f1']", False),
        ("space = ['optimizer.lr=log:1e-4:1e-2']", False),
        ("seed = 5", False),
        ("final_seeds = '0:3'", True),
    ],
)
def test_change_of_a_search_changes_the_cell_and_what_is_searched_the_study(more, same_study):
    name = more.split(" ")[0]
    lines = [line for line in SEARCH.splitlines() if not line.startswith(f"{name} =")]
    (before,), (after,) = (
        expand(read_job("demo", tomllib.loads(text)))
        for text in (SEARCH, "\n".join([*lines, more]))
    )
    if same_study is None:
        assert (after.id, after.study) == (before.id, before.study)
    else:
        assert after.id != before.id
        assert (after.study == before.study) is same_study


def test_hash_of_a_known_cell_stays_what_it_was():
    """A change here means that stored grids are not recognised: raise SCHEMA, add a migration."""
    known = cell()
    known.__dict__["run_ids"] = ("00112233445566aa", "00112233445566bb")
    assert known.id == "a4a5199af260d33e"


def stored(tmp_path, *cells):
    grid = Grid("demo", cells)
    folder = GridFolder.of(tmp_path, grid.id)
    store_grid(grid, folder)
    return grid, folder


def test_stored_grid_is_read_back_with_the_same_cells(tmp_path):
    (searched,) = expand(read_job("demo", tomllib.loads(SEARCH)))
    grid, folder = stored(tmp_path, cell(), searched)
    again = read_grid(folder)
    assert again.id == grid.id
    assert [each.id for each in again.cells] == [each.id for each in grid.cells]
    assert again.cells[1].study == searched.study
    assert find_grid(tmp_path, "demo").grid_id == grid.id


def test_grid_of_an_older_schema_is_brought_up_to_date_and_keeps_its_runs(tmp_path, monkeypatch):
    """As if a later program hashed more: each step makes a cell of one schema one of the next."""
    grid, folder = stored(tmp_path, cell())
    before = read_json(folder.cells)
    old = {**before, "schema": module.SCHEMA - 2}
    for each in old["cells"]:
        each["tested"] = [[*pair, rate] for rate, *pair in
                          ([r, p, k] for p, r, k in each.pop("conditions"))]  # fmt: skip
        del each["search"]
    write_json_atomic(folder.cells, old)
    monkeypatch.setitem(
        module.MIGRATIONS, module.SCHEMA - 2, lambda values: {**values, "search": None}
    )
    monkeypatch.setitem(
        module.MIGRATIONS,
        module.SCHEMA - 1,
        lambda values: {
            **values, "conditions": [[p, r, k] for p, k, r in values["tested"]]
        },
    )  # fmt: skip
    (migrated,) = read_grid(folder).cells
    assert migrated.id == grid.cells[0].id
    assert migrated.run_ids == grid.cells[0].run_ids
    assert migrated.conditions == CONDITIONS


def test_run_ids_do_not_depend_on_the_schema_of_cells_so_nothing_is_trained_again(monkeypatch):
    before, runs = cell().id, cell().run_ids
    monkeypatch.setattr(module, "SCHEMA", module.SCHEMA + 1)
    assert cell().id != before
    assert cell().run_ids == runs


def test_grid_of_a_newer_schema_is_refused(tmp_path):
    _, folder = stored(tmp_path, cell())
    write_json_atomic(folder.cells, {**read_json(folder.cells), "schema": module.SCHEMA + 1})
    with pytest.raises(CiderError, match="stored under cell schema"):
        read_grid(folder)
    with pytest.raises(CiderError, match="stored under cell schema"):
        read_cell({}, module.SCHEMA + 5)
