"""What the fault suite shares."""

import pytest
from chaos_harness import Place


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    made.remove()
