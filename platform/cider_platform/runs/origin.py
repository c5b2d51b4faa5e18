"""What is known of where a run's numbers come from, put together from its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cider_platform.layout import read_json
from cider_platform.runs.provenance import sessions_of

if TYPE_CHECKING:
    from cider_platform.results import RunRecord


def origin_of(record: RunRecord) -> dict[str, Any]:
    """Return identity, seeds, sessions and the resolved spec of a run, as JSON values.

    Whatever the files do not say is None; ``sessions`` is empty for a run that was imported, or
    trained before sessions were recorded.
    """
    spec, folder = record.spec, record.folder
    frozen = read_json(folder.frozen) if folder.frozen.is_file() else {}
    encoder = spec.get("text_encoder", {})
    return {
        "run": record.run_id,
        "state": record.state,
        "identity": {
            "corpus_content_sha256": spec.get("data", {}).get("content_sha256"),
            "encoder": encoder.get("source"),
            "encoder_weights_sha256": encoder.get("weights_sha256") or None,
            "weights_sha256": frozen.get("weights_sha256"),
            "epoch": frozen.get("epoch"),
            "frozen": frozen.get("frozen"),
        },
        "seeds": {
            "seed": spec.get("seed"),
            "weights_order_dropout": "streams of the seed (cider.seeding)",
            "masks_of_training": "[seed, epoch, row of the split]",
            "masks_of_evaluation": "[seed, 0, row of the split]"
            if spec.get("missing", {}).get("mask_source") != "released"
            else "1111 for every split and rate, as published",
        },
        "sessions": sessions_of(folder),
        "spec": spec,
    }
