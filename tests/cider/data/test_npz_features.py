"""Large arrays of an npz file are read row by row, and are those that were saved."""

import io
import zipfile

import numpy as np
import pytest

from cider.data.array_on_disk import ArrayOnDisk
from cider.data.npz_features import read_npz
from cider.data.npz_member import ON_DISK_FROM
from cider.data.spool import Spool
from cider.errors import StoreError

ROWS, STEPS = 130, 30


@pytest.fixture
def arrays():
    """Padded vision without lengths, ragged audio with them, and an array that nobody reads."""
    rng = np.random.default_rng(0)
    lengths_N = rng.integers(1, STEPS + 1, ROWS)
    vision_NSF = rng.standard_normal((ROWS, STEPS, 80))
    vision_NSF[np.arange(STEPS) >= lengths_N[:, None]] = 0
    return {
        "audio": rng.standard_normal((lengths_N.sum(), 150), np.float32),
        "vision": vision_NSF,
        "audio_lengths": lengths_N,
        "words": np.array([["not", "read"]], object),
    }


@pytest.fixture(params=[np.savez, np.savez_compressed])
def path(request, arrays, tmp_path):
    request.param(tmp_path / "features.npz", **arrays)
    return tmp_path / "features.npz"


def test_rows_of_large_arrays_are_those_that_were_saved(path, arrays):
    with Spool(path.parent) as spool:
        found = read_npz(path, spool)
        lengths_N = arrays["audio_lengths"]
        starts_N = np.cumsum(lengths_N) - lengths_N
        for name in ("audio", "vision"):
            assert type(found.modalities[name].frames) is ArrayOnDisk
            np.testing.assert_array_equal(found.modalities[name].lengths_N, lengths_N)
        for row in (0, 63, 64, ROWS - 1):
            start, length = starts_N[row], lengths_N[row]
            audio_SF, vision_SF = arrays["audio"][start : start + length], arrays["vision"][row]
            np.testing.assert_array_equal(found.modalities["audio"].row(row), audio_SF)
            wanted = vision_SF[:length].astype(np.float32)
            np.testing.assert_array_equal(found.modalities["vision"].row(row), wanted)
        assert (found.guessed_lengths, found.ignored) == (["vision"], ["words"])
        assert spool.size == arrays["audio"].nbytes + arrays["vision"].nbytes


def test_small_arrays_and_those_in_fortran_order_are_held(tmp_path):
    turned = np.asfortranarray(np.arange(float(ON_DISK_FROM)).reshape(-1, 8))
    np.savez(tmp_path / "f.npz", audio=turned, vision=np.ones((len(turned), 1), np.float32))
    with Spool(tmp_path) as spool:
        found = read_npz(tmp_path / "f.npz", spool)
    assert spool.size == 0
    np.testing.assert_array_equal(found.modalities["audio"].row(77), turned[77:78])


def test_a_damaged_array_is_told_by_its_checksum(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with (
        Spool(path.parent) as spool,
        pytest.raises(StoreError, match=r"features\.npz cannot be read as an npz file"),
    ):
        read_npz(path, spool)


def test_an_array_with_other_bytes_than_its_shape_needs_is_refused(tmp_path):
    whole = io.BytesIO()
    np.save(whole, np.ones((ON_DISK_FROM, 1)))
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("audio.npy", whole.getvalue()[:-8])
    with Spool(tmp_path) as spool, pytest.raises(StoreError, match="audio needs 8388608 bytes"):
        read_npz(tmp_path / "f.npz", spool)
