"""Every exit code, with the sentence that comes with it and without a traceback."""

import json
import sys

import pytest
from tiny_corpus import write_tiny_corpus

from cider.errors import SealedTestError
from cider.spec import DataConfig, RunSpec
from cider_platform import cli
from cider_platform.layout import RunFolder, write_json_atomic

TINY = (
    "--dataset", "tiny", "--model", "late_fusion", "--epochs", "2", "--device", "cpu",
    "--set", "model.width=8", "--set", "text_encoder.width=8", "--threads", "1",
)  # fmt: skip


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    root = tmp_path_factory.mktemp("roots")
    write_tiny_corpus(root / "store")
    return root


@pytest.fixture
def run_cli(monkeypatch, capsys, roots):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cider-platform", *map(str, arguments)])
        monkeypatch.setenv("CIDER_STORE", str(roots / "store"))
        monkeypatch.setenv("CIDER_RESULTS", str(roots / "results"))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return ended.value.code or 0, captured.out, captured.err

    return run


def train(run_cli, *arguments):
    code, out, err = run_cli("train", *TINY, "--json", *arguments)
    assert code == 0, err
    return json.loads(out)["data"], err


def test_0_train_then_the_same_again_trains_nothing_and_shows_the_same(run_cli):
    first, err = train(run_cli)
    assert "epoch 2" in err
    assert [row["rate"] for row in first["evaluations"]] == [0.0, 0.5]
    assert first["marks"] == ["synthetic"]
    again, err = train(run_cli)
    assert "epoch" not in err
    assert again == first


def test_0_run_is_found_shown_and_evaluated_by_the_beginning_of_its_id(run_cli):
    run_id = train(run_cli)[0]["run"]
    code, out, _ = run_cli("runs", "show", run_id[:6], "--json")
    assert (code, json.loads(out)["data"]["state"]) == (0, "COMPLETE")
    code, out, _ = run_cli("runs", "show", run_id[:6])
    assert code == 0
    assert "synthetic" in out
    code, out, err = run_cli("evaluate", run_id[:6], "--rates", "0:1:0.5", "--json")
    data = json.loads(out)["data"]
    assert code == 0, err
    assert [row["rate"] for row in data["evaluations"]] == [0.0, 0.5, 1.0]
    assert set(data["auilc"]) == set(data["evaluations"][0]["test"])
    code, out, _ = run_cli("evaluate", run_id, "--missing", "smm", "--kept", "LA")
    assert code == 0
    assert "kept LA" in out
    code, out, _ = run_cli("runs", "list", "--dataset", "tiny")
    assert code == 0
    assert run_id in out


def test_1_missing_corpus_says_where_features_come_from(run_cli):
    for command in ("tune", "train"):
        code, out, err = run_cli(command, "--dataset", "mosei")
        assert (code, out) == (1, "")
        for words in ("MMSA", "data import", "--dataset synthetic-mosei"):
            assert words in err


def test_1_failure_of_the_program_is_one_line_and_debug_raises_it(run_cli, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("seven")

    monkeypatch.setattr("cider.models.names", broken)
    code, _, err = run_cli("models")
    assert code == 1
    assert "error: ZeroDivisionError: seven" in err
    assert "--debug" in err
    monkeypatch.setattr(sys, "argv", ["cider-platform", "models", "--debug"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tune", "--set", "model.layer=2"), "known: layers, heads, width"),
        (("train", "--set", "training.epochs=0"), "training.epochs must be above 0"),
        (("tune", "--space", "model.layers=1:4"), "kind must be int"),
        (("tune", "--study", "a/b", *TINY[:-2]), "a study name has letters"),
        (("train", "--task", "five_class"), "five_class"),
        (("tune", "--trials", "0"), "--trials"),
        (("tune", "--no-such-option"), "--no-such-option"),
        (("no-such-command",), "no-such-command"),
        (("evaluate", "abc", "--rates", "0:2:1"), "--rates must be"),
        (("train", "--device", "tpu"), "device must be"),
    ],
)
def test_2_usage_is_refused_with_what_is_allowed(run_cli, arguments, words):
    code, out, err = run_cli(*arguments)
    assert (code, out) == (2, "")
    assert words in " ".join(err.split())


def test_3_nothing_matched(run_cli):
    for arguments in [
        ("runs", "show", "zzzz"),
        ("evaluate", "zzzz"),
        ("runs", "list", "--dataset", "nowhere"),
        ("study", "show", "nowhere"),
    ]:
        code, out, err = run_cli(*arguments)
        assert (code, out) == (3, "")
        assert "error:" in err


def test_5_test_split_stays_sealed_for_a_run_that_is_not_frozen(run_cli, roots):
    spec = RunSpec(data=DataConfig(dataset="tiny"))
    folder = RunFolder.of(roots / "results", spec.run_id)
    write_json_atomic(folder.spec, spec.to_dict())
    folder.write_status("RUNNING")
    code, out, err = run_cli("evaluate", spec.run_id)
    assert (code, out) == (SealedTestError.exit_code, "") == (5, "")
    assert "sealed" in err


def test_130_interrupted_training_says_how_to_go_on(run_cli, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("cider_platform.runs.trial.train_run", interrupted)
    code, out, err = run_cli("train", *TINY, "--seed", "3")
    assert (code, out) == (130, "")
    assert "the same command goes on" in err


def test_nothing_is_written_outside_the_two_roots(run_cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train(run_cli, "--seed", "4")
    assert list(tmp_path.iterdir()) == []
