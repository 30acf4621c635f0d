"""Prove from the steps of a tokenizer where a text can be cut so that its parts can be encoded separately.

A cut is before a single space between two printable ASCII characters. `find_cuts` examines every step of a tokenizer of
the `tokenizers` library. It returns None unless each step is known to treat the two parts like the whole text:

- Added tokens: none can touch the cut, because the characters around it neither start nor end one.
- Normalisation: Unicode forms and lower-casing change each ASCII character independently. Only the first part gets a
  prefix space (`Prepend`), so it is omitted for later parts.
- Pre-tokenisation: a piece ends at the cut, independent of more distant text (regex_proofs.py).
- If nothing splits at spaces (Llama 2), the BPE vocabulary decides: no token contains a space after another character,
  so no merge crosses the cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness_plugins.engines.regex_proofs import NotProvenError, RegexFacts, facts_of

SPACE = "\u2581"  # SentencePiece's mark for a space
PRINTABLE = "".join(map(chr, range(33, 127)))
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # the expression of ByteLevel
ALIKE = {
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Lowercase",
    "StripAccents",
    "BertNormalizer",
}  # these change ASCII characters one by one
Chars = frozenset[str]
BYTE_SPACE = "Ġ"  # what byte-level tokenizers write for a space
DROPS_NOTHING = {"Split", "ByteLevel", "Digits", "Punctuation"}
WORDS = {"WhitespaceSplit", "Whitespace", "BertPreTokenizer"}  # these drop spaces and split there


@dataclass(frozen=True)
class Cuts:
    """The places where a text may be cut, and whether the space there is omitted from the second part.

    A cut is before a single space, between one of the characters `before` and one of `after`. Tokens in `starts` begin
    with a space; empty if it is not proven that these are the first tokens of words (`_starts`).
    """

    before: Chars
    after: Chars
    drops_space: bool = False
    starts: frozenset[int] = frozenset()

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Return an expression that matches the space of every cut; it is found fast, because a space comes first."""
        before, after = (re.escape("".join(sorted(chars))) for chars in (self.before, self.after))
        return re.compile(f" (?<=[{before}] )(?=[{after}])" if before and after else "(?!)")

    def split(self, text: str) -> list[str]:
        """Split a text at all cuts; parts after a cut are without its space."""
        return self.pattern.split(text)

    def free(self, words: Iterable[str]) -> list[str]:
        """Return the words, texts without spaces, that may have a cut on both sides."""
        before, after = self.before, self.after
        return [word for word in words if word and word[0] in after and word[-1] in before]

    def last(self, text: str) -> int:
        """Return the last cut that is valid for any text that follows; 0 if there is none."""
        place = text.rfind(" ", 1, -1)
        while place > 0 and not (text[place - 1] in self.before and text[place + 1] in self.after):
            place = text.rfind(" ", 1, place)
        return max(place, 0)


def find_cuts(tokenizer: str) -> Cuts | None:
    """Return the cuts for a tokenizer in the JSON form of `tokenizers`; None if nothing is proven."""
    steps = json.loads(tokenizer)
    try:
        normalizer = _Normalizer.of(steps["normalizer"])
        splits = _pre_tokenizer_splits(steps["pre_tokenizer"], normalizer)
        _expect_model(steps["model"], normalizer, splits=splits)
        before, after = _free_of_added(steps["added_tokens"], normalizer)
    except NotProvenError:
        return None
    return Cuts(before, after, normalizer.prepends, _starts(steps, normalizer))


@dataclass(frozen=True)
class _Normalizer:
    """Properties of a normaliser: whether it marks spaces, adds a prefix space, and changes letters."""

    marks: bool = False
    prepends: bool = False
    changes: bool = False

    @classmethod
    def of(cls, step: Mapping[str, Any] | None) -> _Normalizer:
        steps = _listed(step, "normalizers")
        kinds = [part["type"] for part in steps]
        marks = [part for part in steps if part["type"] == "Replace"]
        if any(part["pattern"] != {"String": " "} or part["content"] != SPACE for part in marks) or len(marks) > 1:
            raise NotProvenError("the normaliser replaces something other than spaces")
        prepended = [part["prepend"] for part in steps if part["type"] == "Prepend"]
        if prepended not in ([], [SPACE]) or (prepended and not marks):
            raise NotProvenError("the normaliser adds a prefix other than a space")
        if set(kinds) - ALIKE - {"Replace", "Prepend"}:
            raise NotProvenError("the normaliser is not supported")
        return cls(bool(marks), bool(prepended), bool(ALIKE & set(kinds)))


def _listed(step: Mapping[str, Any] | None, name: str) -> Sequence[Mapping[str, Any]]:
    """Return the steps of a sequence, including nested ones."""
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [step]
    if name not in step:
        name = "pretokenizers"
    return [inner for part in step[name] for inner in _listed(part, name)]


def _pre_tokenizer_splits(step: Mapping[str, Any] | None, normalizer: _Normalizer) -> bool:
    """Return whether a piece ends at every cut; raise NotProvenError if a step may depend on text across it."""
    splits = [_step_splits(part, normalizer) for part in _listed(step, "pretokenizers")]
    return any(splits)


def _step_splits(step: Mapping[str, Any], normalizer: _Normalizer) -> bool:
    kind = step["type"]
    if kind == "Split" and step["pattern"] == {"String": " "} and normalizer.marks:
        return False  # no spaces are left
    if kind == "Metaspace":
        if step["replacement"] != SPACE:
            raise NotProvenError("another mark for spaces")
        return bool(step.get("split", True))
    if normalizer.marks:
        raise NotProvenError("spaces are marked before the text is split")
    if kind == "ByteLevel":
        return bool(step.get("use_regex", True)) and facts_of(GPT2).splits
    if kind == "Digits" or (kind == "Punctuation" and step["behavior"] in {"Isolated", "Contiguous"}):
        return False
    if kind in WORDS:
        return True
    if kind == "Split" and step["behavior"] in {"Isolated", "Removed"}:
        pattern = step["pattern"]
        facts: RegexFacts = facts_of(pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"]))
        return bool(facts.splits)
    raise NotProvenError(f"the pre-tokenizer {kind} is not known")


def _expect_model(model: Mapping[str, Any], normalizer: _Normalizer, *, splits: bool) -> None:
    """Raise NotProvenError if the text on one side of a cut may change the tokens of the other side."""
    if model.get("dropout"):
        raise NotProvenError("its merges are random (dropout)")
    if splits:
        return
    vocabulary = model["vocab"]
    if model["type"] != "BPE" or not normalizer.marks or SPACE not in vocabulary:
        raise NotProvenError("nothing splits at spaces")
    if any(SPACE in token.lstrip(SPACE) for token in vocabulary):
        raise NotProvenError("a token contains a space after another character")


def _free_of_added(added: Sequence[Mapping[str, Any]], normalizer: _Normalizer) -> tuple[Chars, Chars]:
    """Return the characters allowed before and after a cut: no added token ends or starts with them.

    A token that is matched in normalised form may occur in either case.
    """
    before, after = set(PRINTABLE), set(PRINTABLE)
    for token in added:
        inside = token["content"].strip(f" {SPACE}")
        if (not inside and len(token["content"]) < 2) or re.search(rf"[\s{SPACE}]", inside.strip()):
            raise NotProvenError("an added token contains a space")
        if not inside.strip():
            continue  # several spaces, or lines and tabs: never a single space between other characters
        for chars, char in ((before, inside[-1]), (after, inside[0])):
            changes = token["normalized"] and normalizer.changes
            chars -= set(PRINTABLE) if changes and not char.isascii() else {char, char.lower(), char.upper()}
    return frozenset(before), frozenset(after)


def _starts(steps: Mapping[str, Any], normalizer: _Normalizer) -> frozenset[int]:
    """Return the tokens that begin with a space if every word of printable ASCII has such a token first; else none.

    No step may drop a space, and the vocabulary must contain its mark, so that the first token begins with it.
    """
    model, splitters = steps["model"], _listed(steps["pre_tokenizer"], "pretokenizers")
    kinds = [step["type"] for step in splitters]
    mark = SPACE if normalizer.marks or kinds == ["Metaspace"] else BYTE_SPACE
    drops = any(step.get("behavior") == "Removed" for step in splitters)
    known = mark == SPACE or (kinds.count("ByteLevel") == 1 and set(kinds) <= DROPS_NOTHING)
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    if model["type"] != "BPE" or affixes or drops or not known or mark not in model["vocab"]:
        return frozenset()
    return frozenset(number for token, number in model["vocab"].items() if token.startswith(mark))
