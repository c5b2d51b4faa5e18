"""What the synthetic corpora imitate: sizes, lengths, widths and label priors of the real ones.

Every number is a fact about CMU-MOSI or CMU-MOSEI and says where it comes from, or is marked as
assumed. G is the number of points of the label grid: regression labels are means of a few raters,
so they lie on a grid (fifths in MOSI, thirds in MOSEI), which makes exact posteriors possible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cider.data.labels import class_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPriors:
    """Shares of the classes of both tasks in one split; together they fix the grid's prior."""

    three_class: tuple[float, ...]
    seven_class: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFacts:
    """One real corpus, as far as its synthetic twin imitates it."""

    counts: tuple[int, int, int]
    """Utterances of train, valid and test; CIDer's Table I."""
    widths: dict[str, int]
    """Feature widths: COVAREP audio, Facet vision; CIDer's section IV-B."""
    max_lengths: dict[str, int]
    """Padded lengths of unaligned data; CIDer's section IV-B."""
    label_steps: int
    """Grid points per unit of the label: raters whose whole-number scores are averaged."""
    words_log_mean: float
    """Mean of the logarithm of the number of words, measured on the public transcripts."""
    words_log_std: float
    """Its standard deviation."""
    frames_per_word: dict[str, float]
    """Assumed; the mean is below that of real recordings, which keeps training on CPU cheap."""
    train_priors: dict[str, LabelPriors]
    """Training split of the published IID and OOD partitions."""
    overall: LabelPriors
    """All utterances of the corpus, counted in the public label files."""


def _shares(*counts: int) -> tuple[float, ...]:
    return tuple(count / sum(counts) for count in counts)


CORPORA: dict[str, CorpusFacts] = {
    "mosi": CorpusFacts(
        counts=(1284, 229, 686),
        widths={"audio": 5, "vision": 20},
        max_lengths={"text": 50, "audio": 375, "vision": 500},
        label_steps=5,
        words_log_mean=2.33,  # 2,199 transcripts, median 10 words
        words_log_std=0.62,
        frames_per_word={"audio": 4.0, "vision": 5.0},
        train_priors={
            "iid": LabelPriors(
                three_class=(0.42990655, 0.04127726, 0.5288162),
                seven_class=(
                    0.01869159, 0.15498443, 0.17679128, 0.19314642, 0.17679128, 0.24376947,
                    0.03582555,
                ),
            ),
            "ood": LabelPriors(
                three_class=(0.48753893, 0.04283489, 0.46962616),
                seven_class=(
                    0.03271028, 0.17912772, 0.19859813, 0.1682243, 0.16510904, 0.22274144,
                    0.0334891,
                ),
            ),
        },
        overall=LabelPriors(
            three_class=_shares(1023, 96, 1080),
            seven_class=_shares(80, 385, 404, 403, 379, 463, 85),
        ),
    ),
    "mosei": CorpusFacts(
        counts=(16326, 1871, 4659),
        widths={"audio": 74, "vision": 35},
        max_lengths={"text": 50, "audio": 500, "vision": 500},
        label_steps=3,
        words_log_mean=2.79,  # 22,788 transcripts, median 17 words
        words_log_std=0.65,
        frames_per_word={"audio": 4.0, "vision": 3.0},
        train_priors={
            "iid": LabelPriors(
                three_class=(0.29021195, 0.21683204, 0.492956),
                seven_class=(
                    0.01904937, 0.07993384, 0.12489281, 0.41639104, 0.25217444, 0.09487934,
                    0.01267916,
                ),
            ),
            "ood": LabelPriors(
                three_class=(0.26607865, 0.18253094, 0.5513904),
                seven_class=(
                    0.01708931, 0.07589122, 0.10639471, 0.42527258, 0.26528236, 0.09794194,
                    0.01212789,
                ),
            ),
        },
        overall=LabelPriors(
            three_class=_shares(6583, 4972, 11233),
            seven_class=_shares(405, 1814, 2829, 9518, 5802, 2153, 267),
        ),
    ),
}  # fmt: skip
"""The corpora that have a synthetic twin, by the real corpus's name."""


def label_grid(steps: int) -> np.ndarray:
    """Return the labels that can occur, in rising order.

    Args:
        steps: grid points per unit.

    Returns:
        (G,) float64 in [-3, 3].
    """
    return np.arange(-3 * steps, 3 * steps + 1) / steps


def grid_prior(priors: LabelPriors, grid_G: np.ndarray) -> np.ndarray:
    """Return the probability of each grid point that gives both tasks their class priors.

    A seven-class prior is spread evenly over the class's grid points, but for the middle class: its
    zero has the neutral prior, and its negative and positive points what the other classes leave.

    Returns:
        (G,) float64, sums to 1.

    Raises:
        ValueError: if no grid prior fits both.
    """
    three_G = class_labels(grid_G, "three_class")
    seven_G = class_labels(grid_G, "seven_class")
    prior_G = np.zeros(len(grid_G))
    for side in range(3):
        outer = [k for k in range(7) if k != 3 and np.sign(k - 3) == side - 1]
        for k in outer:
            prior_G[seven_G == k] = priors.seven_class[k] / (seven_G == k).sum()
        inner = (seven_G == 3) & (three_G == side)
        left = priors.three_class[side] - sum(priors.seven_class[k] for k in outer)
        if left < 0:
            raise ValueError(f"three-class and seven-class priors contradict each other: {priors}")
        prior_G[inner] = left / inner.sum()
    return np.asarray(prior_G / prior_G.sum())


def held_out_priors(corpus: CorpusFacts) -> LabelPriors:
    """Return the label priors that an OOD partition leaves to valid and test together.

    A partition moves utterances and makes none: what training has too much of, the rest lacks.
    """
    share = corpus.counts[0] / sum(corpus.counts)
    train = corpus.train_priors["ood"]

    def rest(all_: tuple[float, ...], in_train: tuple[float, ...]) -> tuple[float, ...]:
        return tuple((a - share * t) / (1 - share) for a, t in zip(all_, in_train, strict=True))

    return LabelPriors(
        three_class=rest(corpus.overall.three_class, train.three_class),
        seven_class=rest(corpus.overall.seven_class, train.seven_class),
    )
