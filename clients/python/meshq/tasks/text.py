"""Tasks on text."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final, TypedDict

from meshq.worker import InvalidInput

_SENTENCE_END: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
_WORD: Final = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
# The words that every English text is full of say nothing about this one.
_STOP_WORDS: Final = frozenset(
    """
    a about after all also an and any are as at be because been before but by can could did do does for
    from had has have he her his how i if in into is it its just more most my no not of on one only or
    other our out over she so some such than that the their them then there these they this those to up
    was we were what when where which while who will with would you your
    """.split()  # noqa: SIM905 - read as prose
)


class WordCount(TypedDict):
    """The result of `word_count`."""

    word_count: int


class Summary(TypedDict):
    """The result of `text_summarization`.

    Attributes:
        summary: The chosen sentences, joined.
        sentences: How many were chosen.
        total_sentences: How many the text has.
    """

    summary: str
    sentences: int
    total_sentences: int


def word_count(text: str) -> WordCount:
    """Count the words of a text: what stands between spaces.

    Args:
        text: The text.
    """
    return {"word_count": len(text.split())}


def text_summarization(text: str, sentences: int = 3) -> Summary:
    """Choose the sentences that say most about a text, and keep them in its order.

    A sentence scores the mean frequency of its words within the text, so that long sentences are not
    preferred; words that every text is full of do not count.

    Args:
        text: The text.
        sentences: How many sentences to choose at most; at least 1.
    """
    if sentences < 1:
        raise InvalidInput(f"sentences: must be at least 1, not {sentences}")
    found = split_sentences(text)
    frequencies = Counter(word for sentence in found for word in _telling_words(sentence))
    by_score = sorted(range(len(found)), key=lambda index: (-_score(found[index], frequencies), index))
    chosen = sorted(by_score[:sentences])
    return {
        "summary": " ".join(found[index] for index in chosen),
        "sentences": len(chosen),
        "total_sentences": len(found),
    }


def split_sentences(text: str) -> list[str]:
    """The sentences of a text; they end with a full stop, a question mark or an exclamation mark."""
    spaced = _SENTENCE_END.sub(lambda end: f"{end.group().rstrip()}\n", " ".join(text.split()))
    return [sentence for sentence in spaced.split("\n") if sentence]


def _telling_words(sentence: str) -> list[str]:
    words = (match.group().casefold() for match in _WORD.finditer(sentence))
    return [word for word in words if word not in _STOP_WORDS]


def _score(sentence: str, frequencies: Counter[str]) -> float:
    words = _telling_words(sentence)
    return sum(frequencies[word] for word in words) / len(words) if words else 0.0
