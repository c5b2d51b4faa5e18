"""One store of generated corpora for all tests of the generator."""

import pytest

from cider.data.store import FeatureStore
from cider.data.synthetic import ensure


@pytest.fixture(scope="session")
def store_of(tmp_path_factory):
    """Function of (name, alignment, distribution) that returns the opened corpus."""
    root = tmp_path_factory.mktemp("synthetic")

    def open_corpus(name, alignment="unaligned", distribution="iid"):
        return FeatureStore.open(ensure(root, name, alignment, distribution))

    return open_corpus
