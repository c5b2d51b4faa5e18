"""The vocabulary of the synthetic corpora: a few hundred English words, one token each.

Ids below 104 are BERT's special tokens and its unused range; words begin at 104, kind after kind.
Frequent words (function words, bias words, negators) are more than 100, sentiment words are rarer
than all of them: the 100 most frequent words of a corpus, from which the counterfactual text takes
its bias words, then hold no sentiment, as in real language.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cider.data.schema import Tokenizer

FIRST_WORD_ID = 104


class WordKind(IntEnum):
    """What a word tells about the label; the order is the order of the ids."""

    FUNCTION_POSITIVE = 0
    FUNCTION_NEGATIVE = 1
    BIAS_POSITIVE = 2
    BIAS_NEGATIVE = 3
    NEGATOR = 4
    TOPIC = 5
    MILD_POSITIVE = 6
    MILD_NEGATIVE = 7
    STRONG_POSITIVE = 8
    STRONG_NEGATIVE = 9


SENTIMENT_KINDS = (
    WordKind.MILD_POSITIVE,
    WordKind.MILD_NEGATIVE,
    WordKind.STRONG_POSITIVE,
    WordKind.STRONG_NEGATIVE,
)
BIAS_KINDS = (
    WordKind.FUNCTION_POSITIVE,
    WordKind.FUNCTION_NEGATIVE,
    WordKind.BIAS_POSITIVE,
    WordKind.BIAS_NEGATIVE,
)
"""Kinds whose association with the label is a property of the split: function words lean a little
with it, bias words much."""

WORDS: dict[WordKind, tuple[str, ...]] = {
    kind: tuple(words.split())
    for kind, words in {
        WordKind.FUNCTION_POSITIVE: """
            the to of i is this so on with be but or like if can at all one from an get more some
            when then would say only which could where also lot thing even over okay been did
            while same between every before around here both back first during under down
            """,
        WordKind.FUNCTION_NEGATIVE: """
            and a that in it for have are we your as just about really what my do going out
            because know how there up them see into other who us than make think way too much its
            has me any still each through after again maybe most were until own off since
            """,
        WordKind.NEGATOR: "not never hardly without",
        WordKind.BIAS_POSITIVE: "you will our people new now",
        WordKind.BIAS_NEGATIVE: "was they he movie had those",
        WordKind.TOPIC: """
            actor album animal answer apple army artist aunt author autumn baby bag band bank basket
            beach bean bed bell bench bicycle bird blanket board boat body bone book border bottle
            box boy branch bread bridge brother brush bucket building bus button cabin cable cake
            camera candle captain car card carpet castle cat chair chapter cheese child church
            circle city class clock cloud coast coat coffee coin college color company computer cook
            corner country cousin cover cow cup curtain customer daughter day desk dinner director
            doctor dog door dream dress driver drum ear earth editor egg election elephant engine
            evening event eye factory family farmer father feather field finger fire fish flag floor
            flower food foot forest fork fruit game garden gate glass glove grass group guitar hair
            hall hand hat head heart hill history horse hospital hotel hour house idea island job
            judge juice key kitchen knife lake lamp language law leaf leg letter library light line
            lion list machine map market meal meeting member mirror money month moon morning mother
            mountain mouse mouth museum music name neck needle nest night nose number ocean office
            orange page paint paper park party pencil person phone picture pilot plant plate player
            pocket poem police president question radio rain ribbon river road roof room rope salt
            school science screen season sentence series sheep ship shirt shoe shop shoulder singer
            sister sky snow soap soldier son song soup spoon spring station stone story street
            student summer sun table teacher team tent theater ticket tower town toy train tree
            truck uncle valley village voice wall water week wheel wind window winter wood worker
            writer yard year
            """,
        WordKind.MILD_POSITIVE: """
            nice good fine decent pleasant useful solid funny enjoyable charming clever fair
            """,
        WordKind.MILD_NEGATIVE: """
            bad dull weak slow odd boring tired silly confusing annoying clumsy bland
            """,
        WordKind.STRONG_POSITIVE: """
            great amazing wonderful loved brilliant excellent superb perfect fantastic awesome
            outstanding magnificent
            """,
        WordKind.STRONG_NEGATIVE: """
            terrible awful horrible hated worst disgusting dreadful useless pathetic appalling
            atrocious unbearable
            """,
    }.items()
}


_FLATNESS = {
    WordKind.FUNCTION_POSITIVE: 200.0,
    WordKind.FUNCTION_NEGATIVE: 200.0,
    WordKind.TOPIC: 40.0,
}
"""Zipf-Mandelbrot offsets, large enough that the rarest function word is more frequent than any
sentiment word; words of the other kinds are equally frequent within their kind."""


def _shares(kind: WordKind) -> np.ndarray:
    """Return how often each word of a kind is used among words of that kind, sum 1."""
    ranks = np.arange(1, len(WORDS[kind]) + 1)
    weights = 1.0 / (ranks + _FLATNESS[kind]) if kind in _FLATNESS else np.ones(len(ranks))
    return np.asarray(weights / weights.sum())


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All words in the order of their ids; W words."""

    words: tuple[str, ...]
    kind_W: np.ndarray
    """int64 (W,): the ``WordKind`` of each word."""
    share_W: np.ndarray
    """float64 (W,): share of each word among the words of its kind."""

    def token_ids(self, words_T: np.ndarray) -> np.ndarray:
        """Return int32 token ids, with start and end token, of word numbers (T,) in [0, W)."""
        tokenizer = self.tokenizer()
        ids = np.empty(len(words_T) + 2, np.int32)
        ids[0], ids[-1] = tokenizer.start, tokenizer.end
        ids[1:-1] = words_T + FIRST_WORD_ID
        return ids

    def text(self, words_T: np.ndarray) -> str:
        """Return the transcript of word numbers."""
        return " ".join(self.words[word] for word in words_T)

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that turns this vocabulary's words into ids."""
        return Tokenizer(
            name="synthetic",
            vocab_size=FIRST_WORD_ID + len(self.words),
            vocabulary_sha256=hashlib.sha256("\n".join(self.words).encode()).hexdigest(),
        )


VOCABULARY = Vocabulary(
    words=tuple(word for kind in WordKind for word in WORDS[kind]),
    kind_W=np.repeat(np.arange(len(WordKind)), [len(WORDS[kind]) for kind in WordKind]),
    share_W=np.concatenate([_shares(kind) for kind in WordKind]),
)
