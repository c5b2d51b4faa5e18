"""Copies of results: complete runs alone, the state last, in a folder and in a played S3."""

from __future__ import annotations

import json
from types import SimpleNamespace

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileType

from cider.errors import CiderError, UsageError
from cider_platform.layout import RunFolder, StudyFolder, write_json_atomic
from cider_platform.runs import copies
from cider_platform.runs.copies import Place, pull, push

RUN, OTHER = "0123456789abcdef", "fedcba9876543210"


def write_run(results, run_id=RUN, state="COMPLETE"):
    """Write what a run leaves; return its folder."""
    folder = RunFolder.of(results, run_id)
    write_json_atomic(folder.spec, {"data": {"dataset": "mosi"}, "seed": 1})
    write_json_atomic(folder.result, {"score": 0.5})
    folder.best.parent.mkdir()
    folder.best.write_bytes(bytes(range(256)) * 100)
    write_json_atomic(folder.evaluation_file("test-rmfm-0.5"), {"metrics": {}})
    folder.lease.write_text("")
    folder.write_status(state)
    return folder


def write_study(results, name="mosi"):
    folder = StudyFolder.of(results, name)
    write_json_atomic(folder.definition, {"schema": 1})
    folder.journal.write_text("{}\n")
    (folder.tune / "inner").mkdir(parents=True)
    (folder.tune / "inner" / "state.pkl").write_bytes(b"never copied")
    return folder


def contents(folder):
    """Return every file of a folder but the lease, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lease.json"
    }


@pytest.fixture(scope="module")
def object_store():
    """Address of a played S3 on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(params=["file", "s3"])
def uri(request, tmp_path, monkeypatch):
    """URI of an empty place, once in a folder and once in a bucket."""
    if request.param == "file":
        return (tmp_path / "place").as_uri()
    address = request.getfixturevalue("object_store")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = f"bucket-{tmp_path.name.replace('_', '-')}"[:60].lower().strip("-")
    client = boto3.client("s3", endpoint_url=f"http://{address}", region_name="us-east-1")
    client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/cider?region=us-east-1&scheme=http&endpoint_override={address}"


@pytest.fixture
def results(tmp_path):
    write_run(tmp_path / "results")
    write_run(tmp_path / "results", OTHER, "RUNNING")
    write_study(tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.filterwarnings("default")  # of the played store's client
def test_complete_runs_and_studies_go_there_and_come_back_the_same(uri, results, tmp_path):
    there = {each.name: each for each in push(results, Place(uri))}
    assert there[RUN].files == 5
    assert there[OTHER].left == "is STOPPED"
    assert there["mosi"].files == 2

    back = tmp_path / "back"
    fetched = {each.name: each for each in pull(Place(uri), back)}
    assert set(fetched) == {RUN, "mosi"}
    assert contents(back / "runs" / RUN) == contents(results / "runs" / RUN)
    assert contents(back / "studies" / "mosi") == {
        name: content
        for name, content in contents(results / "studies" / "mosi").items()
        if not name.startswith("tune/")
    }
    assert RunFolder.of(back, RUN).is_complete


@pytest.mark.filterwarnings("default")
def test_copying_again_copies_only_what_is_new(uri, results, tmp_path):
    list(push(results, Place(uri)))
    assert [each.files for each in push(results, Place(uri)) if each.name == RUN] == [0]
    folder = RunFolder.of(results, RUN)
    write_json_atomic(folder.evaluation_file("test-rmm-0.1"), {"metrics": {}})
    assert [each.files for each in push(results, Place(uri)) if each.name == RUN] == [2]

    back = tmp_path / "back"
    list(pull(Place(uri), back))
    RunFolder.of(back, RUN).evaluation_file("test-rmm-0.1").unlink()
    assert [each.files for each in pull(Place(uri), back) if each.name == RUN] == [1]
    assert [each.files for each in pull(Place(uri), back)] == [0, 0]


def test_state_is_copied_last_and_a_copy_without_it_does_not_count(results, tmp_path, monkeypatch):
    place = Place((tmp_path / "place").as_uri())
    order = []
    put = Place.put

    def noted(self, source, name):
        order.append(name)
        if len(order) == 3:
            raise CiderError("the network went away")
        return put(self, source, name)

    monkeypatch.setattr(Place, "put", noted)
    with pytest.raises(CiderError, match="went away"):
        list(push(results, place, [RUN]))
    assert not (tmp_path / "place" / "runs" / RUN / "status.json").exists()
    (left,) = pull(place, tmp_path / "back")
    assert left.left == "was not copied to its end"
    assert not (tmp_path / "back" / "runs").exists()

    list(push(results, place, [RUN]))
    assert order[-1] == f"runs/{RUN}/status.json"
    assert [each.left for each in pull(place, tmp_path / "back")] == [""]


def test_half_copied_file_is_copied_again(results, tmp_path):
    place = Place((tmp_path / "place").as_uri())
    list(push(results, place))
    copy = tmp_path / "place" / "runs" / RUN / "checkpoint" / "best.safetensors"
    copy.write_bytes(copy.read_bytes()[:1000])
    assert [each.files for each in push(results, place, [RUN])] == [2]
    assert copy.read_bytes() == RunFolder.of(results, RUN).best.read_bytes()


def test_run_that_is_incomplete_here_is_replaced_but_not_one_in_training(
    results, tmp_path, monkeypatch
):
    place = Place((tmp_path / "place").as_uri())
    list(push(results, place))
    back = tmp_path / "back"
    write_run(back, RUN, "FAILED")
    monkeypatch.setattr(copies, "has_living_owner", lambda lease: True)
    assert [each.left for each in pull(place, back, [RUN])] == ["is being trained here"]
    monkeypatch.undo()
    assert [each.files for each in pull(place, back, [RUN])] == [5]
    assert RunFolder.of(back, RUN).is_complete
    assert [path.name for path in (back / "runs").iterdir()] == [RUN]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("uri", ["s3"], indirect=True)
@pytest.mark.parametrize("name", ["a b", "$(reboot)"])
def test_names_of_an_object_store_that_lead_elsewhere_are_refused(uri, name, tmp_path):
    place = Place(uri)
    with place.files.open_output_stream(f"{place.base}/runs/{RUN}/{name}") as stream:
        stream.write(b"evil")
    with pytest.raises(CiderError, match="is no file of a run"):
        list(pull(place, tmp_path / "back"))
    assert not (tmp_path / "back").exists()


class Listing:
    """A file system whose listing holds one path that no client would write."""

    def __init__(self, path):
        self.path = path

    def get_file_info(self, selector):
        return [
            SimpleNamespace(path=f"{selector.base_dir}/{self.path}", type=FileType.File, size=1)
        ]


@pytest.mark.parametrize("path", ["../../evil", f"{RUN}/../evil", "/etc/passwd", f"{RUN}//x"])
def test_path_that_climbs_out_is_refused(path, tmp_path):
    place = Place((tmp_path / "place").as_uri())
    place.files = Listing(path)
    with pytest.raises(CiderError, match="is no file of a run"):
        list(pull(place, tmp_path / "back"))


def test_hidden_file_in_the_place_is_refused(results, tmp_path):
    place = Place((tmp_path / "place").as_uri())
    list(push(results, place))
    (tmp_path / "place" / "runs" / RUN / ".bashrc").write_text("evil")
    with pytest.raises(CiderError, match="is no file of a run"):
        list(pull(place, tmp_path / "back"))
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("results", "copies go to a URI"),
        ("ftp://host/results", "copies go to a URI"),
        ("s3://KEY:very-secret@bucket/results", "holds a key or password"),
    ],
)
def test_place_that_is_none_is_refused_without_its_secret(uri, told):
    with pytest.raises(UsageError, match=told) as caught:
        Place(uri)
    assert "very-secret" not in str(caught.value)


def test_results_commands_copy_and_fetch(run_cli, results, tmp_path):
    uri = (tmp_path / "place").as_uri()
    code, out, _ = run_cli(
        "results",
        "push",
        uri,
        "--results",
        results,
        "--run",
        RUN[:6],
        "--json",
    )
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == "cider.results.push/1"
    assert [each["name"] for each in document["data"]] == [RUN]
    code, out, err = run_cli("results", "pull", uri, "--results", tmp_path / "back")
    assert code == 0
    assert RUN in out
    assert "1 of 1 copied" in err
    code, _, err = run_cli("results", "pull", f"{uri}/none", "--results", tmp_path / "back")
    assert code == 3
    assert "no run or study" in err
