"""Encode parts of texts word by word: each distinct word once, and many new words in one text.

Proven cuts (text_cuts.py) give a text the ids of its words, concatenated. Benchmarks repeat their words, so most ids
come from a dictionary. New words are encoded by the library. It needs several times as long for many short texts as for
one long text, so new words are joined to one. Its ids are again those of the words, concatenated, and each word begins
with a token in `Cuts.starts`. If the text has as many of these tokens as words, there are no others, and the ids are
divided before each of them. Otherwise every word is encoded alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise

from harness_plugins.engines.text_cuts import Cuts

Ids = list[int]
MOST_KNOWN = 2**17  # largest number of words in the cache, about 40 MB
LONGEST_KNOWN = 64  # characters; longer words are encoded, but not cached
TOGETHER = 256  # words that are joined to one text
SAMPLE = (
    "a B it's IT'S 0 12 3456789 x.y 'll !? (a) -- _ {[ a\nb a\tb a\r\n\r\nb a\x00b ~ \\n 1a2 a/b? ab'cd'S naïve "
    f"{'x' * LONGEST_KNOWN} 日本 a日b"
).split(" ")


class PartEncoder:
    """Encode texts word by word; `encode` encodes complete texts."""

    def __init__(self, cuts: Cuts, encode: Callable[[list[str]], list[Ids]]) -> None:
        self.cuts, self.encode = cuts, encode
        self.known: dict[str, tuple[int, ...]] = {}  # words that may have a cut on both sides, without a space
        words = cuts.free(SAMPLE)
        self.joins = bool(cuts.starts) and self._encode_joined(words) == self._encode_alone(words)

    def encode_parts(self, texts: Sequence[str], *, first: bool) -> list[Ids]:
        """Encode the first parts of texts, or their later parts, which start at a cut."""
        if not first:
            return self._encode_rests([text[1:] for text in texts])
        split = [self.cuts.pattern.split(text, 1) for text in texts]
        begins = _distinct([head for head, *_ in split], self.encode)
        rests = iter(self._encode_rests([rest for _, *after in split for rest in after]))
        return [begins[head] + next(rests) if after else begins[head] for head, *after in split]

    def _encode_rests(self, texts: Sequence[str]) -> list[Ids]:
        """Encode texts after a cut, without its space."""
        split = [text.split(" ") for text in texts]
        self._learn(set(chain.from_iterable(split)))
        ids = [self._look_up(words) for words in split]
        odd = iter(self._encode_odd([text for text, known in zip(texts, ids, strict=True) if known is None]))
        return [next(odd) if known is None else known for known in ids]

    def _look_up(self, words: Iterable[str]) -> Ids | None:
        try:
            return [*chain.from_iterable(map(self.known.__getitem__, words))]
        except KeyError:  # not every space is a cut, or a word is too long
            return None

    def _encode_odd(self, texts: Sequence[str]) -> list[Ids]:
        """Encode texts that have unknown words, or spaces that are no cuts."""
        split = [self.cuts.split(text) for text in texts]
        others = _distinct((word for words in split for word in words if word not in self.known), self._encode_alone)
        known = self.known
        return [[i for word in words for i in (others[word] if word in others else known[word])] for words in split]

    def _learn(self, words: set[str]) -> None:
        """Encode new words and cache them; the size of the cache is limited."""
        if len(self.known) > MOST_KNOWN:
            self.known.clear()
        new = [word for word in self.cuts.free(words.difference(self.known)) if len(word) <= LONGEST_KNOWN]
        ids = (self._encode_joined if self.joins else self._encode_alone)(new)
        self.known.update(zip(new, map(tuple, ids), strict=True))

    def _encode_alone(self, words: list[str]) -> list[Ids]:
        """Encode words after a cut one by one."""
        return self.encode(words if self.cuts.drops_space else [f" {word}" for word in words])

    def _encode_joined(self, words: list[str]) -> list[Ids]:
        """Encode words that may have a cut on both sides, many in one text."""
        groups = [words[k : k + TOGETHER] for k in range(0, len(words), TOGETHER)]
        ids_of_groups = self._encode_alone([" ".join(group) for group in groups])
        starts, ids = self.cuts.starts, list[Ids]()
        for group, joined in zip(groups, ids_of_groups, strict=True):
            places = [k for k, number in enumerate(joined) if number in starts]
            is_clear = len(places) == len(group) and places[0] == 0
            divided = [joined[begin:end] for begin, end in pairwise([*places, len(joined)])]
            ids += divided if is_clear else self._encode_alone(group)
        return ids


def _distinct(texts: Iterable[str], encode: Callable[[list[str]], list[Ids]]) -> dict[str, Ids]:
    """Encode each distinct text once."""
    listed = sorted(set(texts))
    return dict(zip(listed, encode(listed), strict=True))
