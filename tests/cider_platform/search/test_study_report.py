"""What ``study`` tells of a study: best, export, importance, figures, and the way back to a run."""

import csv
import json
import shlex

import optuna
import pyarrow.parquet as pq
import pytest
from small_study import ASHA, SPACE, write_study
from tiny_corpus import write_tiny_corpus

from cider.behaviour import with_behaviour
from cider.errors import NothingMatchedError, UsageError
from cider.models.cider.config import Config
from cider.spec import (
    DataConfig,
    MissingConfig,
    RunSpec,
    SelectionConfig,
    TextEncoderConfig,
    TrainingConfig,
)
from cider_platform.commands.options import SpecOptions, build_spec
from cider_platform.commands.retrain import train_command, train_options
from cider_platform.commands.train import train
from cider_platform.layout import RunFolder, StudyFolder
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.evaluation import conditions_of, evaluate_run
from cider_platform.runs.trial import train_run
from cider_platform.search.importance import FEWEST_TRIALS, importance
from cider_platform.search.ledger import Ledger, best, records
from cider_platform.search.search import Report, Search
from cider_platform.search.space import parse_axis
from cider_platform.search.study import define, open_storage, open_study, read_study, space_of
from cider_platform.search.study_export import export_rows


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results root with a study ``demo`` that has complete, pruned and failed trials."""
    root = tmp_path_factory.mktemp("results")
    write_study(root, total=40, pruner=ASHA | {"grace": 2}, fail_every=8)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Results root with a study ``real`` whose two trials were trained; and the base spec."""
    root = tmp_path_factory.mktemp("trained")
    write_tiny_corpus(root / "store")
    runtime = Runtime(root / "store", root / "results", threads=1)
    tiny = RunSpec(
        data=DataConfig(dataset="tiny"),
        model=Config(width=8, heads=2, layers=1),
        text_encoder=TextEncoderConfig(width=8, layers=1),
        training=TrainingConfig(epochs=1, batch_size=12),
    )
    spec = resolve(tiny, runtime)
    space = (parse_axis("optimizer.lr=log:1e-3:1e-1"), parse_axis("model.layers=choice:1,2"))
    definition = define(spec, space, sampler="random", pruner={"name": "none"})
    ledger = Ledger(open_storage(StudyFolder.of(runtime.results, "real")), "real", definition)
    search = Search(
        ledger, spec, total=2, results=runtime.results, resolve=lambda each: each,
        listener=lambda _: None,
    )  # fmt: skip
    while (job := search.next_job()) is not None:
        history = [(each.epoch, each.best_score) for each in train_run(job.spec, runtime)]
        search.on_report(job.number, Report(history=history, is_finished=True))
    found = best(ledger.trials())
    evaluate_run(RunFolder.of(runtime.results, found.run), runtime, conditions_of("rmfm", [0.5]))
    return runtime


def test_best_shows_configuration_scores_run_and_the_command_that_trains_it(run_cli, trained):
    found = best(read_study(trained.results, "real")[1])
    code, out, _ = run_cli("study", "best", "real", "--results", trained.results, "--json")
    data = json.loads(out)["data"]
    assert code == 0
    assert (data["trial"], data["value"], data["params"]) == (
        found.number,
        found.value,
        found.params,
    )
    assert data["folder"] == str(RunFolder.of(trained.results, found.run).root)
    assert [row["rate"] for row in data["evaluations"]] == [0.5]
    assert (data["marks"], data["epochs"]) == (["synthetic"], 1)

    code, out, err = run_cli("study", "best", "real", "--results", trained.results)
    assert "study real: trial" in out
    assert "[synthetic]" in out
    assert data["run"] in out
    assert out.splitlines()[-1] == data["train_command"]
    assert "trains it again" in err


def test_command_of_the_best_trial_means_the_very_same_run(run_cli, trained):
    _, out, _ = run_cli("study", "best", "real", "--results", trained.results, "--json")
    data = json.loads(out)["data"]
    code, out, err = run_cli(
        *shlex.split(data["train_command"])[1:],
        *("--store", trained.store, "--results", trained.results, "--device", "cpu", "--json"),
    )
    assert code == 0, err
    assert json.loads(out)["data"]["run"] == data["run"]


@pytest.mark.parametrize(
    "spec",
    [
        RunSpec(),
        with_behaviour(RunSpec(data=DataConfig(dataset="mosi", alignment="aligned")), "released"),
        RunSpec(
            data=DataConfig(dataset="mosei", distribution="ood", task="seven_class"),
            missing=MissingConfig(protocol="smm", kept="LA"),
            selection=SelectionConfig(rule="published"),
            text_encoder=TextEncoderConfig(source="a folder/with 'quotes'", fine_tune=False),
            seed=7,
        ),
        RunSpec.from_dict({"model": {"name": "late_fusion"}, "selection": {"rates": [0.1, 0.3]}}),
    ],
)
def test_train_options_lead_back_to_the_spec(spec):
    words = shlex.split(train_command(spec.to_dict()))
    assert words[:2] == ["cider-platform", "train"]
    given = {"settings": []}
    for name, value in zip(words[2::2], words[3::2], strict=True):
        if name == "--set":
            given["settings"].append(value)
        else:
            given[name.removeprefix("--")] = value
    given["seed"] = int(given.get("seed", 1111))
    defaults = dict(zip(train.__code__.co_varnames, train.__defaults__, strict=False))
    names = [name for name in SpecOptions.__dataclass_fields__ if name != "settings"]
    options = SpecOptions(**({name: defaults[name] for name in names} | given))
    assert build_spec(options) == spec


def test_released_behaviour_is_named_rather_than_spelt_out():
    spec = with_behaviour(RunSpec(data=DataConfig(dataset="mosi")), "released")
    assert train_options(spec.to_dict()) == ["--dataset", "mosi", "--behaviour", "released"]


def test_best_of_a_study_whose_runs_were_removed_still_says_how_to_train_it(run_cli, results):
    code, out, _ = run_cli("study", "best", "demo", "--results", results)
    assert code == 0
    assert "the run's folder is gone" in out
    assert "--set optimizer.lr=" in out.splitlines()[-1]


def test_study_without_a_complete_trial_has_no_best(run_cli, tmp_path):
    write_study(tmp_path, total=1, fail_every=1)
    code, out, err = run_cli("study", "best", "demo", "--results", tmp_path)
    assert (code, out) == (3, "")
    assert "no complete trial yet, it has 1 FAIL" in err


@pytest.mark.parametrize(
    "command",
    [("best", "x"), ("importance", "x"), ("why", "x", 0), ("export", "x", "--out", "x.csv"),
     ("plot", "x", "--out", "x"), ("dashboard", "x")],
)  # fmt: skip
def test_study_that_is_not_there_is_refused_by_every_command(run_cli, tmp_path, command):
    code, out, err = run_cli("study", *command, "--results", tmp_path)
    assert (code, out) == (3, "")
    assert "no study 'x'" in err


def test_study_that_has_not_begun_is_refused_by_a_sentence(run_cli, tmp_path):
    folder = StudyFolder.of(tmp_path, "empty")
    open_storage(folder)
    assert run_cli("study", "best", "empty", "--results", tmp_path)[0] == 3
    code, _, err = run_cli("study", "dashboard", "empty", "--results", tmp_path)
    assert code == 3
    assert "has not begun" in err


def test_export_has_a_row_per_trial_and_a_column_per_field(run_cli, results, tmp_path):
    files = {kind: tmp_path / f"trials.{kind}" for kind in ("csv", "json", "parquet")}
    for file in files.values():
        code, out, err = run_cli("study", "export", "demo", "--results", results, "--out", file)
        assert (code, out) == (0, "")
        assert f"40 trials written to {file}" in err
    document = json.loads(files["json"].read_text())
    rows = document["trials"]
    assert (document["schema"], document["study"]) == ("cider.study.export/1", "demo")
    table = pq.read_table(files["parquet"])
    assert table.to_pylist() == rows
    assert table.schema.metadata[b"study"] == b"demo"
    with files["csv"].open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["number"] for row in read] == [str(row["number"]) for row in rows]
    assert float(read[0]["params.optimizer.lr"]) == rows[0]["params.optimizer.lr"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in files.values()
    )


def test_exported_rows_are_what_the_study_has(results):
    study = open_study(results, "demo")
    rows, trials = export_rows(study), records(study, space_of(study.user_attrs))
    assert [row["state"] for row in rows] == [trial.state for trial in trials]
    for row, trial in zip(rows, trials, strict=True):
        assert {
            f"params.{path}": value for path, value in trial.params.items()
        }.items() <= row.items()
        assert row["value"] == trial.value
        assert (row["seconds"], row["repeats"]) == (trial.seconds, trial.repeats)
        assert row["began"].endswith("+00:00")
        assert row["marks"] == "synthetic"
        assert (row["error"] is not None) == (trial.state == "FAIL")


def test_export_in_an_unknown_format_writes_nothing(run_cli, results, tmp_path):
    file = tmp_path / "trials.xlsx"
    code, _, err = run_cli("study", "export", "demo", "--results", results, "--out", file)
    assert code == 2
    assert "must end with .csv, .json, .parquet, got 'trials.xlsx'" in err
    assert not file.exists()


def test_importance_finds_the_field_that_counts_and_names_its_evaluator(run_cli, tmp_path):
    write_study(tmp_path, total=60)
    code, out, _ = run_cli("study", "importance", "demo", "--results", tmp_path, "--json")
    data = json.loads(out)["data"]
    assert code == 0
    assert (data["evaluator"], data["trials"], data["best"]) == ("PED-ANOVA", 60, 6)
    assert next(iter(data["fields"])) == "optimizer.lr"
    assert data["fields"]["optimizer.lr"] > 0.4
    assert sum(data["fields"].values()) == pytest.approx(1)
    assert set(data["fields"]) == {axis.path for axis in SPACE}
    _, out, err = run_cli("study", "importance", "demo", "--results", tmp_path)
    assert "[synthetic]" in out.splitlines()[0]
    assert "PED-ANOVA" in err


def test_importance_of_too_few_or_equal_trials_is_refused_by_a_sentence(tmp_path):
    write_study(tmp_path, "few", total=FEWEST_TRIALS - 1)
    with pytest.raises(NothingMatchedError, match="at least 10 complete trials, study few has 9"):
        importance(open_study(tmp_path, "few"))
    equal = optuna.create_study(direction="maximize")
    for _ in range(12):
        trial = equal.ask()
        trial.suggest_float("x", 0, 1)
        equal.tell(trial, 0.5)
    with pytest.raises(NothingMatchedError, match="as good as each other"):
        importance(equal)


def test_importance_of_one_of_several_objectives_looks_at_that_one():
    study = optuna.create_study(directions=["maximize", "minimize"])
    for step in range(40):
        trial = study.ask()
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        study.tell(trial, [x, y + 1e-6 * step])
    assert next(iter(importance(study, objective=0).fields)) == "x"
    assert next(iter(importance(study, objective=1).fields)) == "y"


def test_why_prints_what_happened_what_to_do_and_a_command(run_cli, results):
    failed = next(t.number for t in read_study(results, "demo")[1] if t.state == "FAIL")
    code, out, _ = run_cli("study", "why", "demo", failed, "--results", results)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith(f"trial {failed} of study demo is FAIL: it failed: the loss is not")
    assert lines[1].startswith("what to do: the model diverged")
    assert lines[-1].startswith("trained by itself: cider-platform train --dataset")
    code, out, _ = run_cli("study", "why", "demo", failed, "--results", results, "--json")
    document = json.loads(out)
    assert document["schema"] == "cider.why/1"
    assert document["data"]["cause"] == "not finite"
    assert lines[-1].endswith(document["data"]["train_command"])
    assert run_cli("study", "why", "demo", 99, "--results", results)[0] == 3


def test_why_of_a_run_says_the_same_of_a_run(run_cli, trained):
    run = read_study(trained.results, "real")[1][0].run
    code, out, _ = run_cli("runs", "why", run[:8], "--results", trained.results)
    assert code == 0
    assert out.startswith(f"run {run} is COMPLETE: nothing is wrong")
    _, out, _ = run_cli("runs", "why", run, "--results", trained.results, "--json")
    assert json.loads(out)["data"]["run"] == run


def test_values_that_do_not_go_together_have_no_command(run_cli, tmp_path):
    space = (parse_axis("model.heads=choice:3,7"), parse_axis("optimizer.lr=log:1e-4:1e-2"))
    with pytest.raises(UsageError, match="heads must divide"):
        Config(heads=7)
    write_study(tmp_path, total=1, space=space, fail_every=1)
    code, out, _ = run_cli("study", "why", "demo", 0, "--results", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["data"]["train_command"] is None
