import hashlib

import pytest

from cider.data.hashing import file_sha256
from cider.errors import StoreError


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_file_sha256_of_any_size_equals_hashlib(tmp_path, size):
    path = tmp_path / "a file"
    path.write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))

    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_file_sha256_with_progress_reports_up_to_the_whole_file(tmp_path):
    path = tmp_path / "features.pkl"
    path.write_bytes(bytes(3 * 2**20))
    seen = []

    file_sha256(path, lambda done, total: seen.append((done, total)))

    assert seen == sorted(seen)
    assert seen[-1] == (3 * 2**20, 3 * 2**20)


def test_file_sha256_of_a_missing_file_or_folder_names_it(tmp_path):
    with pytest.raises(StoreError, match=r"no file .*absent"):
        file_sha256(tmp_path / "absent")
    with pytest.raises(StoreError, match="folder"):
        file_sha256(tmp_path)
