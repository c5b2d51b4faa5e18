"""What a submission sends: limits, names, and that nothing of it reaches a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cider
import cider_platform
from cider.errors import CiderError, UsageError
from cider_platform.submission import order as order_module
from cider_platform.submission.entry import STARTED, WAITING, is_waiting
from cider_platform.submission.order import (
    ENTRYPOINT,
    JobFile,
    Order,
    attempt_of,
    code_folders,
    new_order,
)

HOSTILE = [
    "; touch owned",
    "$(touch owned)",
    "`touch owned`",
    "a' || touch owned #",
    'a" && touch owned',
    "a\ntouch owned",
    "{{config}} ${HOME} %s",
    "../../../etc/passwd",
]


def test_order_comes_back_as_it_was_written(tmp_path):
    order = new_order(
        "smoke-1a2b", 3, ["run", "smoke.toml", "--axis", "seed=0:8"], priority=5, most=2
    )
    order.write(tmp_path, JobFile("smoke", b"[base]\n"))
    assert Order.read(tmp_path) == order
    assert order.job == "smoke-1a2b-3"
    assert (tmp_path / "smoke.toml").read_bytes() == b"[base]\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["order.json", "smoke.toml"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"priority": 1001}, "--priority must be -1000 to 1000, got 1001"),
        ({"most": 0}, "--max-concurrent must be at least 1, got 0"),
        ({"arguments": ("runs", "list")}, "a cluster is asked for run or evaluate-runs"),
        ({"arguments": ()}, "a cluster is asked for"),
        ({"job": "a;b"}, "a job name has letters"),
    ],
)
def test_order_that_is_not_allowed_is_refused(change, told):
    with pytest.raises(UsageError, match=told):
        Order(**{"job": "a-1", "arguments": ("run",), **change})


@pytest.mark.parametrize("grid", HOSTILE)
def test_hostile_grid_name_is_refused(grid):
    with pytest.raises(UsageError, match="a grid name has letters"):
        new_order(grid, 1, ["run"])


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "job": "a-1", "arguments": null}',
     '{"schema": 1, "job": "a-1", "arguments": ["run"], "extra": 1}'],
)  # fmt: skip
def test_file_that_is_no_order_is_refused(tmp_path, content):
    (tmp_path / "order.json").write_text(content)
    with pytest.raises(CiderError, match=r"order\.json"):
        Order.read(tmp_path)


def test_large_or_ill_named_job_file_is_refused():
    with pytest.raises(UsageError, match="at most 1,000,000 bytes, this one has 1,000,001"):
        JobFile("a", b"#" * 1_000_001)
    for name in HOSTILE:
        with pytest.raises(UsageError, match="a job name has letters"):
            JobFile(name, b"")


def test_code_is_both_packages_and_is_small():
    assert code_folders() == [Path(each.__path__[0]) for each in (cider, cider_platform)]


def test_code_folder_with_something_large_in_it_is_refused(monkeypatch):
    monkeypatch.setattr(order_module, "LARGEST_CODE_BYTES", 1000)
    with pytest.raises(CiderError, match="only code of at most 1,000 is sent; the largest file is"):
        code_folders()


def test_entry_point_is_constant_and_holds_nothing_a_shell_reads():
    assert ENTRYPOINT == "python -m cider_platform.submission.entry"


def enter(folder, **environment):
    """Run the entry point as the cluster does: a constant text, through a shell."""
    roots = [str(Path(cider_platform.__file__).parents[levels]) for levels in (1, 2)]
    return subprocess.run(
        f"exec {sys.executable} {ENTRYPOINT.partition(' ')[2]}",
        shell=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_argument_arrives_as_one_word_and_no_shell_reads_it(tmp_path, word):
    order = Order(job="a-1", arguments=("run", word, "--brew"))
    order.write(tmp_path)
    (tmp_path / "t").mkdir()
    done = enter(tmp_path, TMPDIR=str(tmp_path / "t"), RAY_ADDRESS="127.0.0.1:1")
    assert done.stdout.splitlines()[0] == STARTED
    assert done.returncode != 0
    assert "--brew" in done.stderr or "run" in done.stderr
    assert not list(tmp_path.glob("**/owned"))


def test_entry_without_an_order_ends_with_a_sentence(tmp_path):
    done = enter(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: order.json is not an order of this program")
    assert "Traceback" not in done.stderr


def test_log_tells_whether_a_job_waits():
    assert is_waiting(f"Running entrypoint\n{WAITING}: 3 ahead\n")
    assert not is_waiting(f"{WAITING}: 3 ahead\n{STARTED}\nepoch 1\n")
    assert not is_waiting("")


def test_attempt_is_read_from_the_name():
    assert attempt_of("smoke-1a2b-12") == 12
    assert attempt_of("smoke") == 0


def test_order_of_another_version_names_it(tmp_path):
    (tmp_path / "order.json").write_text(json.dumps({"schema": 7}))
    with pytest.raises(CiderError, match="schema 7, not 1"):
        Order.read(tmp_path)
