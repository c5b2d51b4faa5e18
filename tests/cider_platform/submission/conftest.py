"""What tests of submission share."""

import pytest


@pytest.fixture(autouse=True)
def without_tokens(home):
    """No test of submission finds a token that is not its own."""
    return home
