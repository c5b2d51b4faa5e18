"""A grid's runs are copied as they end, and fetched on an empty disk."""

import pytest
from small_grid import Place

from cider.errors import CiderError, UsageError
from cider_platform.grids.copying import Copying
from cider_platform.grids.job import read_job
from cider_platform.layout import RunFolder

JOB = """
[axes]
dataset = ["tiny"]
missing = ["rmfm", "rmm"]
[evaluate]
rates = [0.5]
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A place whose grid is done, and the grid."""
    place = Place(tmp_path_factory.mktemp("place"), epochs=1)
    grid = place.grid(JOB)
    assert set(place.run_inline(grid).values()) == {""}
    return place, grid


def runs_of(grid):
    return sorted(spec.run_id for cell in grid.cells for spec in cell.specs)


def test_runs_that_were_copied_are_fetched_on_an_empty_disk(done, tmp_path):
    place, grid = done
    uri, told = f"file://{tmp_path}/copies", []
    copying = Copying(grid, place.results, uri, told.append)
    first, second = runs_of(grid)
    copying.add(first)
    assert copying.finish() == ""
    assert told == [f"2 runs are copied to {uri}"]
    copied = tmp_path / "copies" / "runs"
    assert sorted(each.name for each in copied.iterdir()) == [first, second]

    anew = Copying(grid, tmp_path / "results", uri, told.append)
    anew.fetch()
    assert told[1:] == [f"2 runs fetched from {uri}"]
    for run in (first, second):
        here, there = (RunFolder.of(root, run) for root in (place.results, tmp_path / "results"))
        assert there.is_complete
        assert there.best.read_bytes() == here.best.read_bytes()
    anew.fetch()
    assert anew.finish() == ""
    assert told[2:] == [f"2 runs are copied to {uri}"]


def test_runs_of_other_grids_are_not_fetched(done, tmp_path):
    place, grid = done
    uri = f"file://{tmp_path}/copies"
    Copying(grid, place.results, uri, print).finish()
    narrow = place.grid(JOB.replace(', "rmm"', ""))
    Copying(narrow, tmp_path / "results", uri, print).fetch()
    assert [each.name for each in (tmp_path / "results" / "runs").iterdir()] == runs_of(narrow)


def test_copy_that_fails_is_told_and_made_at_the_end(done, tmp_path):
    place, grid = done
    uri, told = f"file://{tmp_path}/copies", []
    copying = Copying(grid, place.results, uri, told.append)
    (tmp_path / "copies").write_text("in the way")
    first, second = runs_of(grid)
    copying.add(first)
    copying._thread.submit(int).result()  # the copy has been tried
    copying.add(second)
    assert len(told) == 1
    assert told[0].startswith(f"run {first} is not copied yet: {uri} cannot be used")
    error = copying.finish()
    assert error.startswith(f"not every run is copied: {uri} cannot be used")
    assert error.endswith(f"`results push {uri}` copies what is missing")
    (tmp_path / "copies").unlink()
    assert Copying(grid, place.results, uri, told.append).finish() == ""


def test_job_file_cannot_send_results_away():
    with pytest.raises(UsageError, match="copy_to"):
        read_job("demo", {"execution": {"copy_to": "s3://bucket/x"}})


@pytest.mark.parametrize(
    ("uri", "told"),
    [("ftp://host/x", "copies go to a URI of"), ("s3://me:secret@bucket/x", "holds a key")],
)
def test_uri_that_does_not_serve_is_refused(done, tmp_path, uri, told):
    place, grid = done
    with pytest.raises(UsageError, match=told) as caught:
        Copying(grid, place.results, uri, print)
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_grid_on_an_empty_disk_runs_nothing_that_was_copied(tmp_path):
    place = Place(tmp_path / "place", epochs=1)
    job, uri = place.write("demo", JOB), f"file://{tmp_path}/copies"
    first = place.command("run", job, "--copy-to", uri, "--json")
    assert first["ran"] == 2
    place.results.rename(tmp_path / "gone")
    again = place.command("run", job, "--copy-to", uri, "--json")
    assert again["ran"] == 0
    assert again["rows"] == first["rows"]
    (tmp_path / "copies").rename(tmp_path / "elsewhere")
    (tmp_path / "copies").write_text("in the way")
    place.results.rename(tmp_path / "gone too")
    place.command("run", job, "--copy-to", uri, code=1)
    assert "cannot be used" in (place.root / "messages").read_text()


def test_place_that_cannot_be_read_is_found_before_anything_is_run(done, tmp_path):
    place, grid = done
    with pytest.raises(CiderError, match="cannot be used"):
        Copying(grid, place.results, f"file://{tmp_path}/a/../../\0", print)
