"""What ``protocols.safetensors`` records, one test per recorded thing, whatever the folder holds.

Names inside are ``<alignment>/<task>/<protocol>/<rate or kept set>/<split>/...`` for masks and
texts, ``<alignment>/<task>/bias_words...`` and ``metrics/<task>/...``; ``assets/golden/README.md``
describes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from cider.modality import PerModality

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

PROTOCOLS = "protocols.safetensors"

# Fixture name: the last part of the recorded names it stands for.
ENDINGS = {
    "recorded_mask": "/text_keep",
    "recorded_text": "/text_ids_counterfactual",
    "recorded_words": "/bias_words",
    "recorded_metrics": "/labels",
}


def recorded_names(folder: Path, ending: str) -> list[str]:
    """Return the recorded names with an ending, without it."""
    path = folder / PROTOCOLS
    if not path.exists():
        return []
    with safe_open(path, "numpy") as file:
        names = sorted(name for name in file.keys() if name.endswith(ending))  # noqa: SIM118
    return [name.removesuffix(ending) for name in names]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = metafunc.config.getoption("golden_dir")
    for fixture, ending in ENDINGS.items():
        if fixture in metafunc.fixturenames:
            names = recorded_names(folder, ending)
            reason = f"{folder / PROTOCOLS} is absent or records nothing of this kind"
            skipped = pytest.param("", id="none", marks=pytest.mark.skip(reason=reason))
            metafunc.parametrize(fixture, names or [skipped])


@dataclass(frozen=True)
class Recordings:
    """Everything in ``protocols.safetensors`` and ``protocols.json``."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]

    def split(self, alignment: str, split: str) -> dict[str, np.ndarray]:
        """Return the recorded corpus's arrays of a split by their names in the feature file."""
        prefix = f"{alignment}/data/{split}/"
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def token_ids(self, alignment: str, split: str) -> np.ndarray:
        """Return padded token ids, int (N, T)."""
        return self.split(alignment, split)["text_bert"][:, 0].astype("int64")

    def lengths(self, alignment: str, split: str) -> PerModality[np.ndarray]:
        data = self.split(alignment, split)
        text = data["text_bert"][:, 1].sum(axis=1).astype("int64")
        return PerModality(text, data.get("audio_lengths", text), data.get("vision_lengths", text))

    def pad_to(self, alignment: str, split: str) -> PerModality[int]:
        data = self.split(alignment, split)
        return PerModality(
            data["text_bert"].shape[2], data["audio"].shape[1], data["vision"].shape[1]
        )


@pytest.fixture(scope="session")
def recordings(golden_dir: Path) -> Recordings:
    path = golden_dir / PROTOCOLS
    if not path.exists():
        pytest.skip(f"{path} is absent")
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return Recordings(load_file(path), facts)
