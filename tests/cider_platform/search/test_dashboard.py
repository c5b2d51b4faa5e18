"""The dashboard: it answers this machine, shows the study as it grows, and changes nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_study import write_study

import cider_platform
from cider.errors import UsageError
from cider_platform.layout import StudyFolder
from cider_platform.search.dashboard import HOST, dashboard


@contextmanager
def serving(results, port=0):
    with dashboard(StudyFolder.of(results, "demo"), results, port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}", server
        finally:
            server.shutdown()
            thread.join()


def asked(url, method="GET", **headers):
    """Return status and body of a request."""
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


@pytest.fixture
def results(tmp_path):
    write_study(tmp_path, total=6)
    return tmp_path


def test_dashboard_shows_the_study_and_follows_it(tmp_path):
    results = tmp_path
    ledger = write_study(results, "demo", total=6)
    with serving(results) as (url, server):
        assert server.server_address[0] == HOST
        status, body = asked(f"{url}/dashboard")
        assert status == 200
        assert b"Optuna Dashboard" in body
        (study,) = json.loads(asked(f"{url}/api/studies")[1])["study_summaries"]
        assert study["study_name"] == "demo"
        trials = f"{url}/api/studies/{study['study_id']}?after=0"
        assert len(json.loads(asked(trials)[1])["trials"]) == 6
        # The search goes on beside it: nothing is locked.
        ledger.ask(7)
        ledger.complete(6, 0.5)
        deadline = time.monotonic() + 30
        while len(found := json.loads(asked(trials)[1])["trials"]) < 7:  # it keeps them for 2 s
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert found[-1]["values"] == [0.5]


def test_nothing_can_be_changed_from_the_dashboard(results):
    journal = StudyFolder.of(results, "demo").journal
    before = journal.read_bytes()
    with serving(results) as (url, _):
        study = json.loads(asked(f"{url}/api/studies")[1])["study_summaries"][0]["study_id"]
        for method, path in [
            ("DELETE", f"/api/studies/{study}"),
            ("POST", f"/api/studies/{study}/rename"),
            ("POST", "/api/trials/0/tell"),
            ("PUT", f"/api/studies/{study}/note"),
        ]:
            status, body = asked(f"{url}{path}", method)
            assert status == 403
            assert "for looking only" in json.loads(body)["reason"]
    assert journal.read_bytes() == before
    assert sorted(path.name for path in journal.parent.iterdir()) == [journal.name]


def test_request_under_another_name_is_refused(results):
    with serving(results) as (url, server):
        assert asked(f"{url}/api/studies", Host="elsewhere.example")[0] == 403
        assert asked(f"{url}/api/studies", Host=f"localhost:{server.server_port}")[0] == 200


def test_port_that_is_taken_is_named(results):
    with (
        serving(results) as (_, server),
        pytest.raises(UsageError, match="is taken; name another"),
        serving(results, server.server_port),
    ):
        raise AssertionError("it served")


def test_without_its_package_the_command_to_install_it_is_told(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with (
        pytest.raises(UsageError, match=r"pip install 'cider-platform\[dashboard\]'"),
        serving(results),
    ):
        raise AssertionError("it served")
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert "optuna-dashboard" in project["optional-dependencies"]["dashboard"][0]


def test_ctrl_c_ends_the_command_and_leaves_nothing(results):
    roots = Path(cider_platform.__path__[0]).parent, Path(__file__).parents[3]
    command = [sys.executable, "-m", "cider_platform", "study", "dashboard", "demo"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--results", str(results)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told = process.stderr.readline()
    assert "for looking only, on this machine alone; Ctrl-C ends it" in told
    url = next(word for word in told.split() if word.startswith("http")).removesuffix("/dashboard,")
    assert asked(f"{url}/api/studies")[0] == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "the study is as it was" in err
    assert [path.name for path in results.iterdir()] == ["studies"]
