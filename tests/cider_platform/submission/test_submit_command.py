"""The command submit until something is sent: what it refuses, and what it asks a cluster for."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cider.errors import UsageError
from cider_platform.cli import app
from cider_platform.submission.work import evaluation_work, grid_work
from cider_platform.tokens import AccessError

HERE = "127.0.0.1:9"


def refusal(*words):
    done = CliRunner().invoke(app, ["submit", *map(str, words)])
    assert done.exit_code != 0
    assert "\n" not in str(done.exception)
    return done.exception


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["smok"], "smoke"),
        (["smoke", "--axis", "brew=a"], "brew"),
        (["smoke", "--set", "training.epochs=many"], "training.epochs"),
        (["smoke", "--store", "store"], "--store must be an absolute path on the cluster"),
        (["smoke", "--results", "../r"], "--results must be an absolute path on the cluster"),
        (["smoke"], "give --slots, or slots in [execution]"),
        (["smoke", "--device", "tpu"], "--device must be cpu, cuda or auto"),
        (["smoke", "--runs", "all"], "--runs has no meaning with a job"),
        (["smoke", "--missing", "rmm"], "--missing has no meaning with a job"),
        (["smoke", "--rates", "0.5"], "--rates has no meaning with a job"),
        (["smoke", "--slots", "1", "--address", "ray://head:1"], "--address must be HOST:PORT"),
        (["evaluate"], "submit evaluate needs --runs"),
        (["evaluate", "--runs", "a;b"], "a run name has letters"),
        (["evaluate", "--runs", "all", "--missing", "brew"], "brew"),
        (["evaluate", "--runs", "all", "--rates", "2"], "--rates"),
        (["evaluate", "--runs", "all", "--axis", "seed=1"], "--axis has no meaning with evaluate"),
    ],
)
def test_what_is_wrong_is_refused_before_a_cluster_is_asked(words, told):
    error = refusal(*words)
    assert isinstance(error, UsageError)
    assert told in str(error)


def test_cluster_elsewhere_is_refused_without_a_token():
    for command in (["submit", "smoke", "--slots", "1"], ["jobs", "list"], ["jobs", "stop", "a"]):
        done = CliRunner().invoke(app, [*command, "--address", "head:8265"])
        assert isinstance(done.exception, AccessError)
        assert done.exception.exit_code == 4


MALICIOUS = {
    "command in a name": '[axes]\nmissing = ["rmfm; touch owned"]',
    "substitution": '[base]\ndataset = "$(touch owned)"',
    "template": '[base]\nmodel = "{{ 7 * 7 }}"',
    "path": '[base]\ndataset = "../../secret"',
    "unknown block": '[run]\ncommand = "touch owned"',
    "unknown key": '[execution]\nentrypoint = "touch owned"',
    "secret key": '[execution]\ntoken = "abc"',
    "no TOML": "import os; os.system('touch owned')",
    "YAML object": "!!python/object/apply:os.system ['touch owned']",
}


@pytest.mark.parametrize("content", MALICIOUS.values(), ids=MALICIOUS)
def test_malicious_job_file_is_refused_and_nothing_is_run(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(content)
    error = refusal("job.toml", "--address", HERE)
    assert isinstance(error, UsageError)
    assert [path.name for path in tmp_path.iterdir()] == ["job.toml"]


@pytest.mark.parametrize("name", ["$(touch owned).toml", "a;b.toml", "-rf.toml", "a b.toml"])
def test_job_file_with_a_hostile_name_is_refused(name, tmp_path):
    (tmp_path / name).write_text("")
    assert isinstance(refusal(tmp_path / name, "--address", HERE), UsageError)


def test_grid_is_asked_for_with_its_arguments_as_separate_words(tmp_path):
    (tmp_path / "mine.toml").write_text("[axes]\nmissing = ['rmfm', 'rmm']\n")
    work = grid_work(
        str(tmp_path / "mine.toml"), ["seed=0:2"], ["training.epochs=3"], ["--device=cpu"], 4
    )
    assert work.arguments == (
        "run", "mine.toml", "--yes", "--address=auto", "--axis=seed=0:2",
        "--set=training.epochs=3", "--slots=4", "--device=cpu",
    )  # fmt: skip
    assert work.job_file.file == "mine.toml"
    assert work.job_file.content == (tmp_path / "mine.toml").read_bytes()
    assert work.key.startswith("mine-")
    order = work.order(2, priority=1, most=3)
    assert (order.job, order.priority, order.most) == (f"{work.key}-2", 1, 3)


def test_dry_run_prints_the_command_of_the_cluster_and_asks_nobody():
    done = CliRunner().invoke(
        app, ["submit", "smoke", "--slots", "3", "--results", "/my results", "--dry-run"]
    )
    assert done.exit_code == 0
    assert done.stdout == (
        "cider-platform run smoke.toml --yes --address=auto --slots=3 '--results=/my results'\n"
    )


def test_same_work_has_the_same_key_and_other_work_another(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[axes]\nmissing = ['rmfm', 'rmm']\n")
    keys = {
        name: grid_work(str(path), axes, [], options, slots).key
        for name, axes, options, slots in [
            ("plain", [], [], 1),
            ("slots", [], ["--device=cpu", "--retry-failed"], 4),
            ("axis", ["missing=rmm"], [], 1),
            ("results", [], ["--results=/r"], 1),
        ]
    }
    path.write_text("# a comment\n\n[axes]\nmissing=['rmfm','rmm']\n[execution]\nslots = 2\n")
    assert grid_work(str(path), [], [], []).key == keys["plain"] == keys["slots"]
    assert len({keys["plain"], keys["axis"], keys["results"]}) == 3


def test_evaluation_is_asked_for_with_its_arguments():
    work = evaluation_work("3fa9,all", "rmm,rmfm", "0,0.5", "", ["--slots=2"])
    assert work.arguments == (
        "evaluate-runs", "3fa9", "all", "--address=auto", "--rates=0,0.5", "--missing=rmm,rmfm",
        "--slots=2",
    )  # fmt: skip
    assert work.job_file is None
