"""Runs as one table, two runs beside each other, and where a run's numbers come from."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest
from tiny_corpus import write_tiny_corpus

from cider.errors import NothingMatchedError, UsageError
from cider.metrics import METRICS
from cider.models.late_fusion.config import Config
from cider.spec import DataConfig, RunSpec, TextEncoderConfig, TrainingConfig
from cider_platform.fields import run_fields
from cider_platform.layout import RunFolder, read_json, write_json_atomic
from cider_platform.results import all_runs, evaluations, find_run, find_runs, load
from cider_platform.runs import provenance
from cider_platform.runs.assembly import Runtime, resolve
from cider_platform.runs.conditions import conditions_of
from cider_platform.runs.evaluation import evaluate_run
from cider_platform.runs.run_diff import diff_runs
from cider_platform.runs.trial import train_run

SPEC = RunSpec(
    data=DataConfig(dataset="tiny"),
    model=Config(width=8),
    text_encoder=TextEncoderConfig(width=8, layers=1),
    training=TrainingConfig(epochs=2, batch_size=12),
)
CONDITIONS = [
    *conditions_of("rmfm", [0.0, 0.5, 1.0]),
    *conditions_of("rmm", [0.5]),
    *conditions_of("smm", [], "LA"),
]


def train(spec, runtime):
    spec = resolve(spec, runtime)
    for _ in train_run(spec, runtime):
        pass
    return RunFolder.of(runtime.results, spec.run_id)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    root = tmp_path_factory.mktemp("table")
    write_tiny_corpus(root / "store")
    return Runtime(root / "store", root / "results", threads=1)


@pytest.fixture(scope="module")
def folders(runtime):
    """Return three runs: two seeds of one configuration, evaluated, and one of seven classes."""
    seven = DataConfig(dataset="tiny", task="seven_class")
    found = [train(replace(SPEC, seed=seed), runtime) for seed in (1, 2)]
    found.append(train(replace(SPEC, data=seven), runtime))
    for folder in found[:2]:
        evaluate_run(folder, runtime, CONDITIONS)
    evaluate_run(found[2], runtime, CONDITIONS[:1])
    return found


def test_fields_of_a_run_are_what_its_files_say(folders):
    record = find_run(folders[0].root.parents[1], folders[0].run_id)
    rows = {(row["protocol"], row["kept"] or row["rate"]): row for row in evaluations(record)}
    fields = run_fields(record, list(rows.values()))
    assert fields["training.batch_size"] == 12
    assert fields["dataset"] == fields["data.dataset"] == "tiny"
    assert fields["parameters"] == read_json(folders[0].result)["parameters"]
    assert fields["test.acc2@0.5"] == rows["rmfm", 0.5]["test"]["acc2"]
    assert fields["test.rmfm.acc2@1"] == rows["rmfm", 1.0]["test"]["acc2"]
    assert fields["test.rmm.f1@0.5"] == rows["rmm", 0.5]["test"]["f1"]
    assert fields["test.smm.acc3@LA"] == rows["smm", "LA"]["test"]["acc3"]
    assert fields["tau.smm@LA"] == rows["smm", "LA"]["tau"]
    curve = [rows["rmfm", rate]["test"]["acc2"] for rate in (0.0, 0.5, 1.0)]
    area = 0.25 * (curve[0] + 2 * curve[1] + curve[2])
    assert fields["test.auilc.acc2"] == fields["test.rmfm.auilc.acc2"] == pytest.approx(area)
    assert "test.rmm.auilc.acc2" not in fields
    assert not [name for name in run_fields(record) if name.startswith(("test.", "tau."))]


def test_runs_are_loaded_as_one_table_with_conditions_and_order(folders, runtime):
    table = load(runtime.results)
    assert isinstance(table, pa.Table)
    assert len(table) == 3
    assert set(table["run"].to_pylist()) == {folder.run_id for folder in folders}
    chosen = load(runtime.results, where=["task=three_class"], sort="-seed").to_pandas()
    assert chosen["seed"].tolist() == [2, 1]
    assert chosen["test.smm.acc2@LA"].notna().all()
    assert chosen["run"].tolist() == [
        record.run_id for record, _ in find_runs(runtime.results, ["seed<3"], "-seed")
    ]
    with pytest.raises(UsageError, match="load gives runs, evaluations or predictions"):
        load(runtime.results, "rows")


def test_evaluations_are_loaded_as_a_row_per_run_and_condition(folders, runtime):
    frame = load(runtime.results, "evaluations").to_pandas()
    assert len(frame) == 2 * len(CONDITIONS) + 1
    (row,) = frame.query("run == @folders[1].run_id and protocol == 'rmm'").to_dict("records")
    stored = read_json(folders[1].evaluation_file("test-rmm-0.5"))
    assert row["test.acc2"] == stored["test"]["acc2"]
    assert row["masks.test"] == stored["masks"]["test"]
    assert row["seed"] == 2


def test_predictions_are_loaded_and_give_the_reported_metrics(folders, runtime):
    table = load(runtime.results, "predictions", where=["task=three_class", "seed=1"])
    frame = table.to_pandas().query("protocol == 'smm' and kept == 'LA' and split == 'test'")
    row = read_json(folders[0].evaluation_file("test-smm-LA"))
    scores = [
        factual - row["tau"] * other
        for factual, other in zip(
            frame["log_probs"], frame["counterfactual_log_probs"], strict=True
        )
    ]
    assert len(frame) == 12
    for name, value in row["test"].items():
        assert METRICS[name](scores, frame["label"].to_numpy()) == pytest.approx(value, abs=1e-12)
    # Tasks of other numbers of classes fit into one table too.
    both = load(runtime.results, "predictions")
    assert {len(each) for each in both["log_probs"].to_pylist()} == {3, 7}
    assert len(both) == 24 * (2 * len(CONDITIONS) + 1)


def test_predictions_where_there_are_none_are_refused(tmp_path):
    with pytest.raises(NothingMatchedError, match="none of these runs has stored predictions"):
        load(tmp_path, "predictions")
    assert len(load(tmp_path)) == len(load(tmp_path, "evaluations")) == 0


def test_values_of_several_kinds_share_a_column_as_text(tmp_path):
    for number, tau in enumerate([0.5, "unknown"]):
        folder = RunFolder.of(tmp_path, f"run{number}")
        write_json_atomic(folder.spec, {"seed": number})
        write_json_atomic(folder.result, {"tau": tau})
        folder.write_status("COMPLETE")
    assert sorted(load(tmp_path)["tau"].to_pylist()) == ["0.5", "unknown"]


# Two runs


def test_diff_of_two_seeds_names_the_seed_and_counts_who_was_right(folders, runtime):
    first, second = (find_run(runtime.results, folder.run_id) for folder in folders[:2])
    found = diff_runs(first, second)
    assert found["spec"] == [{"field": "seed", "first": 1, "second": 2}]
    assert found["origin"] == []  # one machine, one code
    numbers = {each["number"]: each for each in found["numbers"]}
    score = numbers["score"]
    assert score["difference"] == pytest.approx(second.result["score"] - first.result["score"])
    assert len([name for name in numbers if name.startswith("test acc2")]) == len(CONDITIONS)
    by_condition = {each["condition"]: each for each in found["agreement"]}
    assert len(by_condition) == len(CONDITIONS)
    for condition, each in by_condition.items():
        parts = ("both_right", "first_right", "second_right", "neither_right")
        assert sum(each[part] for part in parts) == each["utterances"] == 12
        # Seeds see other masks, where a mask is drawn at all.
        assert each["same_masks"] == (condition in ("rmfm@0", "rmfm@1", "smm/LA"))
    row = read_json(folders[0].evaluation_file("test-rmfm-0.5"))
    right = by_condition["rmfm@0.5"]["both_right"] + by_condition["rmfm@0.5"]["first_right"]
    assert right / 12 == pytest.approx(row["test"]["acc3"])


def test_diff_of_a_run_with_itself_finds_nothing(folders, runtime):
    record = find_run(runtime.results, folders[0].run_id)
    found = diff_runs(record, record)
    assert found["spec"] == found["origin"] == []
    assert all(each["difference"] == 0 for each in found["numbers"])
    assert all(each["same_answer"] == 12 and each["same_masks"] for each in found["agreement"])


def test_diff_of_other_classes_says_why_answers_do_not_compare(folders, runtime):
    first, third = (find_run(runtime.results, folders[number].run_id) for number in (0, 2))
    found = diff_runs(first, third)
    assert {"field": "data.task", "first": "three_class", "second": "seven_class"} in found["spec"]
    (compared,) = found["agreement"]
    assert compared["utterances"] == 0
    assert "other classes" in compared["why"]


# Origin


def test_every_session_of_a_training_is_recorded_and_changes_no_identity(runtime, tmp_path):
    own = replace(runtime, results=tmp_path)
    spec = resolve(replace(SPEC, training=TrainingConfig(epochs=3, batch_size=12)), own)
    epochs = train_run(spec, own)
    next(epochs)
    epochs.close()
    folder = train(spec, own)
    assert folder.run_id == spec.run_id
    first, second = provenance.sessions_of(folder)
    assert (first["after_epoch"], second["after_epoch"]) == (0, 1)
    assert first["corpus"]["content_sha256"] == spec.data.content_sha256
    assert first["code_sha256"] == provenance.code_sha256()
    assert first["versions"]["torch"].startswith("2")
    assert first["hardware"]["threads"] == 1
    git = first["git"]
    assert git is None or (len(git["commit"]) == 40 and isinstance(git["dirty"], bool))


def test_package_outside_of_a_checkout_has_no_git_state(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "_PACKAGES", (tmp_path, tmp_path))
    provenance.git_state.cache_clear()
    assert provenance.git_state() is None
    provenance.git_state.cache_clear()


# Commands


@pytest.fixture
def command(run_cli, runtime):
    def run(*arguments):
        code, out, err = run_cli(*arguments, "--results", runtime.results)
        assert "Traceback" not in err
        return code, out, err

    return run


def test_list_shows_what_was_asked_about(folders, command):
    asked = ("runs", "list", "--where", "test.acc2@0.5>=0", "--sort=-seed")
    code, out, err = command(*asked, "--json")
    assert code == 0, err
    rows = json.loads(out)["data"]
    assert [row["seed"] for row in rows] == [2, 1]
    assert set(rows[0]["values"]) == {"test.acc2@0.5", "seed"}
    code, out, err = command(*asked, "--limit", "1")
    assert "test.acc2@0.5" in out.splitlines()[0]
    assert folders[1].run_id in out
    assert folders[0].run_id not in out
    assert "1 of 2 runs" in err
    assert command("runs", "list", "--where", "seed=99")[0] == 3
    assert command("runs", "list", "--where", "seed>x")[0] == 2


def test_show_provenance_prints_code_data_and_seeds(folders, command):
    code, out, err = command("runs", "show", folders[0].run_id, "--provenance", "--json")
    assert code == 0, err
    found = json.loads(out)["data"]
    assert found["seeds"]["seed"] == 1
    assert found["identity"]["weights_sha256"] == read_json(folders[0].frozen)["weights_sha256"]
    assert found["sessions"][0]["versions"]["python"]
    code, out, err = command("runs", "show", folders[0].run_id, "--provenance")
    assert "code_sha256" in out
    assert "training.batch_size" in out
    folders[2].provenance.rename(folders[2].root / "elsewhere")
    code, out, err = command("runs", "show", folders[2].run_id, "--provenance")
    assert code == 0
    assert "before provenance was recorded" in err


def test_diff_prints_both_runs(folders, command):
    code, out, err = command("runs", "diff", folders[0].run_id, folders[1].run_id)
    assert code == 0, err
    assert "seed" in out
    assert f"{folders[0].run_id} right" in out
    assert "origin: nothing differs" in err
    code, out, _ = command("runs", "diff", folders[0].run_id, folders[1].run_id, "--json")
    assert json.loads(out)["schema"] == "cider.runs.diff/1"


def test_evaluate_takes_several_runs_protocols_and_kept_sets(folders, command, runtime):
    ids = [folder.run_id for folder in folders[:2]]
    store = ("--store", runtime.store, "--device", "cpu", "--threads", "1")
    options = ("--missing", "rmm,smm", "--missing", "none", "--kept", "LA,V", "--rates", "0.5")
    code, out, err = command("evaluate", *ids, *options, *store, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["schema"] == "cider.evaluations/1"
    assert [each["run"] for each in document["data"]] == ids
    rows = document["data"][0]["evaluations"]
    assert [row["kept"] or row["protocol"] for row in rows] == ["rmm", "LA", "V", "none"]
    code, out, err = command("evaluate", ids[0], "--full", "--rates", "0,1", *store)
    assert code == 0, err
    assert out.count("AUILC of") == 3
    assert len(all_runs(runtime.results)) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--full", "--missing", "rmm"), "--full names every protocol"),
        (("--missing", "tmfm"), "needs aligned data, got a run of unaligned data"),
        (("--missing", "rmfn"), "unknown missing protocol 'rmfn'"),
        (("--missing", "smm", "--kept", "LX"), "unknown kept set 'LX'"),
        (("--kept", "LA"), "only for the protocol smm"),
    ],
)
def test_evaluate_refuses_what_does_not_fit_before_it_begins(folders, command, options, said):
    code, out, err = command("evaluate", folders[0].run_id, *options)
    assert (code, out) == (2, "")
    assert said in err
