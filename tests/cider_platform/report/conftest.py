"""Results roots that reports are made of."""

import pytest
from made_up_runs import made_up_spec, write_made_up_run, write_seeds

WITH = (0.80, 0.82, 0.78, 0.81, 0.79, 0.83, 0.80, 0.82)
WITHOUT = (0.70, 0.73, 0.66, 0.74, 0.70, 0.75, 0.71, 0.70)


@pytest.fixture(scope="session")
def two(tmp_path_factory):
    """Results root with CIDer with and without MCM, 8 seeds, and one run that failed."""
    root = tmp_path_factory.mktemp("two")
    options = {"protocols": ("rmfm", "rmm"), "kept": ("L", "AV")}
    write_seeds(root, WITH, **options)
    write_seeds(root, WITHOUT, maci__mcm=False, **options)
    broken = made_up_spec(99, maci__mcm=False)
    write_made_up_run(root, broken, "FAILED", error="the loss is <b>not</b> finite")
    return root
