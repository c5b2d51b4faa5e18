"""doctor: what each machine says of itself, and how the answers of several are judged."""

from __future__ import annotations

import copy
import http.server
import json
import threading
from dataclasses import asdict

import pytest
from tiny_corpus import write_tiny_corpus

from cider.errors import CiderError
from cider_platform.cluster import outside
from cider_platform.cluster.diagnosis import Expected, judge, outside_check
from cider_platform.cluster.probe import Probe, Question, source_hash
from cider_platform.tokens import AccessError

GIB = 2**30


def node(name, **changes):
    """Return the facts of a node with which all is well."""
    return {
        "name": name,
        "host": f"host-{name}",
        "python": "3.12.3",
        "versions": {"ray": "2.60.0", "torch": "2.13.0", "cider-platform": "0.1.0"},
        "code": "0123456789abcdef",
        "cpus": 8,
        "memory_bytes": 30 * GIB,
        "gpus": [{"name": "A10G", "memory_bytes": 24 * GIB, "free_bytes": 23 * GIB}],
        "token": {"mode": "token", "found": True, "fault": ""},
        "results": {"path": "/srv/results", "free_bytes": 100 * GIB, "fault": ""},
        "store": {"path": "/srv/store", "free_bytes": 100 * GIB, "fault": ""},
        "corpora": {"mosi/unaligned-iid": {"content_sha256": "ab" * 32, "fault": ""}},
        "encoders": {"bert": {"sha256": "cd" * 32, "fault": ""}},
        "wrote": "",
        "seen": ["one", "two", "three"],
        "clock_seconds": 0.1,
        "clock_error": 0.01,
        "ray_gpus": 1.0,
        **changes,
    }


@pytest.fixture
def nodes():
    return [node("one"), node("two"), node("three")]


KNOCKS = {"one": 401, "two": 0, "three": 0}


def faults(found, /, **expected):
    checks = judge(found, Expected(**{"dashboard": KNOCKS, **expected}))
    return {each.name: each.faults for each in checks if each.faults}


def test_nodes_that_are_alike_have_no_fault(nodes):
    assert faults(nodes, nodes=3) == {}


CHANGES = [
    (("python",), "3.11.7", "versions", "python is 3.12.3 on most nodes, but two has 3.11.7"),
    (("versions", "torch"), "2.12.0", "versions", "torch is 2.13.0"),
    (("versions", "cider-platform"), "0.0.9", "versions", "cider-platform is 0.1.0"),
    (("code",), "fedcba9876543210", "versions", "code of cider-platform"),
    (("wrote",), "Read-only file system", "storage", "two cannot write /srv/results: Read-only"),
    (("seen",), ["two"], "storage", "two does not see at /srv/results what one, three wrote"),
    (("corpora",), {}, "features", "mosi/unaligned-iid is not in the store on two"),
    (("corpora", "mosi/unaligned-iid", "content_sha256"), "ef" * 32, "features", "efefefefefef"),
    (("corpora", "mosi/unaligned-iid", "fault"), "lacks train.arrow", "features", "train.arrow"),
    (("encoders", "bert", "fault"), "no such encoder", "encoder", "two: no such encoder"),
    (("encoders", "bert", "sha256"), "ef" * 32, "encoder", "encoder bert is different"),
    (("gpus",), [], "gpu", "Ray hands out 1 GPUs on two, but torch sees 0"),
    (("ray_gpus",), 0.0, "gpu", "torch sees 1 GPUs on two, but Ray hands out 0"),
    (("memory_bytes",), GIB, "memory", "two has 1.0 GiB"),
    (("results", "free_bytes"), GIB, "disk", "/srv/results on two has 1.0 GiB free"),
    (("token", "mode"), "", "token", "two runs Ray without a token"),
    (("token", "fault"), "is open to every user", "token", "two: is open"),
    (("clock_seconds",), -7.0, "clock", "two differs by -7.0 s"),
]


@pytest.mark.parametrize(("path", "value", "check", "told"), CHANGES)
def test_node_that_differs_is_named_with_what_to_do(path, value, check, told, nodes):
    changed = copy.deepcopy(nodes)
    place = changed[1]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    found = faults(changed)
    assert set(found) == {check}
    assert told in found[check][0]
    assert ";" in found[check][0] or "fault" in path


def test_clock_that_may_be_right_within_its_error_is_no_fault(nodes):
    nodes[1] |= {"clock_seconds": 5.0, "clock_error": 4.0}
    assert faults(nodes) == {}


def test_dashboard_that_answers_without_token_is_a_fault_and_so_is_none(nodes):
    (told,) = faults(nodes, dashboard={"one": 401, "two": 200})["token"]
    assert "answers two without a token" in told
    (told,) = faults(nodes, dashboard={"one": 0, "two": 0})["token"]
    assert "no dashboard answers" in told


def test_node_that_does_not_answer_or_is_not_there_is_a_fault(nodes):
    found = faults([*nodes, {"name": "four", "fault": "No module named 'cider_platform'"}], nodes=5)
    assert found == {"nodes": found["nodes"]}
    assert "four did not answer: No module named" in found["nodes"][0]
    assert "4 of 5 nodes" in found["nodes"][1]


def test_machine_outside_must_have_the_heads_ray_and_code_but_not_its_python(nodes):
    here = {"python": "3.11.7", "ray": "2.60.0", "code of cider-platform": "0123456789abcdef"}
    assert outside_check(nodes, here).is_well
    (told,) = outside_check(nodes, {**here, "ray": "2.59.0"}).faults
    assert "ray is 2.60.0 on the head and 2.59.0 here" in told


@pytest.fixture
def probe(tmp_path):
    """Function that makes a probe over a store with one tiny corpus."""
    corpus = write_tiny_corpus(tmp_path / "store")

    def make(**changes):
        folders = {"store": str(tmp_path / "store"), "results": str(tmp_path / "results")}
        question = Question(nonce=".doctor-1", **{**folders, **changes})
        return Probe(asdict(question))

    make.corpus = corpus
    return make


def test_probe_tells_the_corpora_by_their_content_and_what_of_them_is_missing(probe, tmp_path):
    (name, values), *others = probe().facts()["corpora"].items()
    assert not others
    assert len(values["content_sha256"]) == 64
    assert values["fault"] == ""
    folder = tmp_path / "store" / name
    next(folder.glob("*train*.arrow")).unlink()
    assert "lacks" in probe().facts()["corpora"][name]["fault"]
    asked = probe(datasets=("mosei",)).facts()["corpora"]
    assert asked == {"mosei": {"fault": "is not in the store"}}


def test_probe_with_verify_sees_a_changed_byte(probe, tmp_path):
    (name,) = probe().facts()["corpora"]
    path = next((tmp_path / "store" / name).glob("*train*.arrow"))
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert probe().facts()["corpora"][name]["fault"] == ""
    assert "has changed" in probe(verify=True).facts()["corpora"][name]["fault"]


def test_probe_sees_what_others_wrote_to_the_same_folder_and_tidies_up(probe, tmp_path):
    one, two, apart = probe(), probe(), probe(results=str(tmp_path / "other"))
    assert [one.write("10.0.0.1"), two.write("10.0.0.2"), apart.write("apart")] == [""] * 3
    assert one.look() == two.look() == ["10.0.0.1", "10.0.0.2"]
    assert apart.look() == ["apart"]
    one.tidy()
    assert list((tmp_path / "results").iterdir()) == []


def test_probe_says_why_it_cannot_write(probe, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in probe(results=str(tmp_path / "file")).write("one")


def test_source_hash_is_of_16_digits_and_the_same_again():
    assert len(source_hash()) == 16
    assert source_hash() == source_hash()


@pytest.fixture
def closed_page():
    """Address of a server that answers 401 to everybody."""

    class Closed(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

        def log_message(self, *arguments):
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_knock_returns_the_status_or_zero(probe, closed_page):
    assert probe().knock(closed_page) == 401
    assert probe().knock("http://127.0.0.1:1/") == 0


def test_answer_of_the_head_is_found_among_what_else_a_job_prints():
    document = json.dumps({"schema": "cider.doctor/1", "data": {"nodes": [], "checks": []}})
    indented = json.dumps(json.loads(document), indent=2)
    assert outside._document(f"ray said {{}}\n{indented}\nerror: 1 thing") == {
        "nodes": [],
        "checks": [],
    }
    with pytest.raises(CiderError, match="No module named"):
        outside._document("python: No module named cider_platform")


@pytest.mark.usefixtures("home")
def test_doctor_of_this_machine_is_zero_or_one(run_cli, probe, tmp_path):
    folders = ("--store", tmp_path / "store", "--results", tmp_path / "results")
    # The tiny corpus names an encoder that is nowhere, so it is told which one to look for.
    code, out, _ = run_cli("doctor", *folders, "--encoder", "scratch", "--json")
    document = json.loads(out)
    assert document["schema"] == "cider.doctor/1"
    assert {
        each["check"]: each["faults"] for each in document["data"]["checks"] if not each["well"]
    } == {}
    assert code == 0
    code, out, err = run_cli("doctor", *folders, "--encoder", "scratch", "--dataset", "mosei")
    assert code == 1
    assert "corpus mosei is not in the store on here" in out
    assert "1 thing to put right" in err


@pytest.mark.usefixtures("home")
def test_doctor_of_a_cluster_elsewhere_without_token_is_refused():
    with pytest.raises(AccessError, match="no token"):
        outside.ask_head("http://192.0.2.1:8265", [])
