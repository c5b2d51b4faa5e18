"""Say in a few lines what a synthetic corpus is and what can be reached on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cider.errors import StoreError

if TYPE_CHECKING:
    from cider.data.schema import Manifest

_PREDICTORS = {
    "best_reachable": "by the best predictor there is",
    "best_from_training": "by the best one for the training distribution",
    "best_without_bias_words": "by that one without regard to bias words",
}
_METRICS = {
    "acc2": "Acc2",
    "acc2_of_best_acc3": "Acc2 at best Acc3",
    "acc3": "Acc3",
    "acc7": "Acc7",
}


def summary(manifest: Manifest) -> list[str]:
    """Return lines of text about a synthetic corpus, for people.

    Raises:
        StoreError: if the corpus was not generated, but imported or re-partitioned.
    """
    generator = manifest.generator
    if generator is None or "best_accuracy" not in generator:
        raise StoreError(f"{manifest.key} was not generated as a synthetic corpus")
    best = generator["best_accuracy"]
    association = ", ".join(f"{split} {a:g}" for split, a in generator["association"].items())
    lines = [
        f"Synthetic: generated from a known model, seed {generator['seed']}, "
        f"scale {generator['scale']:g} of the size of {generator['corpus'].upper()}.",
        f"Association of bias words with the label, relative to training: {association}.",
        f"Reachable on the test split, in percent (standard error "
        f"{100 * best['standard_error']:.1f}), by modalities seen:",
    ]
    shown: list[dict[str, dict[str, float]]] = []
    for predictor, title in _PREDICTORS.items():
        if best[predictor] in shown:  # without a shift two of them are the same
            continue
        shown.append(best[predictor])
        lines.append(f"  {title}")
        for metric, heading in _METRICS.items():
            figures = "  ".join(
                f"{letters} {100 * value:.1f}" for letters, value in best[predictor][metric].items()
            )
            lines.append(f"    {heading:<18} {figures}")
    return lines
