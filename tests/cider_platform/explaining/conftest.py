"""Real runs of the tiny corpus that are looked into."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tiny_corpus import write_tiny_corpus

from cider.behaviour import with_behaviour
from cider.spec import RunSpec
from cider_platform.explaining.opened import OpenedRun
from cider_platform.layout import RunFolder
from cider_platform.runs.trial import Runtime, resolve, train_run


def train(runtime, behaviour="corrected", **fields):
    """Train a tiny run and return its folder."""
    values = {
        "data": {"dataset": "tiny", "alignment": "aligned"},
        "model": {"name": "cider", "width": 8, "layers": 2, "heads": 2},
        "text_encoder": {"width": 8, "layers": 1},
        "training": {"epochs": 1, "batch_size": 5},
    }
    for group, inner in fields.items():
        # Another model has other fields.
        values[group] = inner if "name" in inner else {**values.get(group, {}), **inner}
    spec = resolve(with_behaviour(RunSpec.from_dict(values), behaviour), runtime)
    list(train_run(spec, runtime))
    return RunFolder.of(runtime.results, spec.run_id)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folders of tiny runs by what they are, and their runtime."""
    folder = tmp_path_factory.mktemp("explaining")
    write_tiny_corpus(folder / "store", alignment="aligned")
    write_tiny_corpus(folder / "store")
    runtime = Runtime(folder / "store", folder / "results", threads=1)
    return SimpleNamespace(
        runtime=runtime,
        full=train(runtime),
        without_mcm=train(runtime, maci={"mcm": False}),
        plain=train(
            runtime,
            model={"fusion": "vanilla"},
            maci={"counterfactual": False},
            loss={"reconstruction": 0.0, "attention": 0.0, "joint": 0.0},
        ),
        unaligned=train(runtime, data={"dataset": "tiny", "alignment": "unaligned"}),
        released=train(
            runtime,
            "released",
            data={"alignment": "unaligned", "task": "seven_class"},
            model={"name": "cider", "width": 8, "layers": 1, "heads": 2, "wsam": False},
        ),
        late=train(
            runtime,
            data={"alignment": "unaligned"},
            model={"name": "late_fusion", "width": 8},
        ),
        roots=("--store", runtime.store, "--results", runtime.results,
               "--device", "cpu", "--threads", "1"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def opened(tiny):
    """The full run, opened."""
    return OpenedRun(tiny.full, tiny.runtime)


@pytest.fixture(scope="session")
def shifted(tmp_path_factory):
    """Runs of a small synthetic corpus, IID and OOD, and their runtime."""
    folder = tmp_path_factory.mktemp("shifted")
    runtime = Runtime(folder / "store", folder / "results", threads=1)
    runs = [
        train(
            runtime,
            data={"dataset": "synthetic-mosi-x0.1", "distribution": distribution},
            model={"name": "late_fusion", "width": 8},
            training={"batch_size": 64},
        )
        for distribution in ("iid", "ood")
    ]
    return SimpleNamespace(
        runtime=runtime,
        iid=runs[0],
        ood=runs[1],
        roots=("--store", runtime.store, "--results", runtime.results,
               "--device", "cpu", "--threads", "1"),
    )  # fmt: skip
