r"""Prove from its text whether a pre-tokenizer's regular expression allows to cut texts before spaces.

A text may be cut before a single space that follows another character if the expression gives the same matches on the
two parts as on the whole. This is proven for expressions with these properties:

- no match contains a character other than white space and, later, a space;
- the only look-around is `(?!\S)`, which is true before a space and at the end of a text;
- nothing else depends on the text before or after the match (no anchors, no look-behind, no atomic groups).

Then the left part alone has all matches that end at or before the cut, and the right part alone has all matches after
it. An expression with any element that this module does not know is not proven.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

WHITE = frozenset("\t\n\r\f\v ")
ESCAPED_CLASSES = {"s": (True, False), "S": (False, True), "d": (False, True), "w": (False, True)}
CONTROLS = {"n", "r", "t", "f", "v"}
PLAIN_ESCAPES = frozenset(r"\.*+?()[]{}|^$/-'\"!#%&,:;<=>@_`~ ")
NO_LOOK = r"(?!\S)"
SEPARATORS = ("Z", "Zs")  # Unicode properties of a space


class NotProvenError(ValueError):
    """The expression contains something that this module does not know."""


@dataclass(frozen=True)
class Atom:
    """Whether a part of an expression can match a space, a character other than white space, or several characters."""

    space: bool
    other: bool
    several: bool = False
    needed: int = 1  # smallest number of characters that it matches


@dataclass(frozen=True)
class RegexFacts:
    """`splits`: the expression always starts a match at a space that follows a character other than white space."""

    splits: bool


def facts_of(pattern: str) -> RegexFacts:
    """Return the proven properties of an expression; raise NotProvenError if it is not proven to allow a cut."""
    reader = _Reader(pattern)
    alternatives = reader.alternatives()
    if reader.left:
        raise NotProvenError(f"unexpected {reader.left[0]!r}")
    for atoms in alternatives:
        _expect_no_space_behind_others(atoms)
    matches_space = any(
        len(atoms) == 1 and atoms[0].space and atoms[0].needed <= 1 and not looks for atoms, looks in reader.whole
    )
    return RegexFacts(matches_space)


def _expect_no_space_behind_others(atoms: list[Atom]) -> None:
    """Raise NotProvenError if a match could contain a space after a character other than white space."""
    other_before = False
    for atom in atoms:
        if atom.space and (other_before or (atom.other and atom.several)):
            raise NotProvenError("a match may contain a space after another character")
        other_before = other_before or atom.other


class _Reader:
    """Parse an expression from the left; `whole` has each outermost alternative and whether it ends in a look-ahead."""

    def __init__(self, pattern: str) -> None:
        self.left = pattern
        self.whole: list[tuple[list[Atom], bool]] = []
        self.depth = 0

    def alternatives(self) -> list[list[Atom]]:
        """Read alternatives up to the end or a closing bracket."""
        alternatives: list[list[Atom]] = []
        while True:
            before = self.left
            atoms = list(self._atoms())
            if not self.depth:
                self.whole.append((atoms, NO_LOOK in before[: len(before) - len(self.left)]))
            alternatives.append(atoms)
            if not self._takes("|"):
                return alternatives

    def _takes(self, text: str) -> bool:
        if self.left.startswith(text):
            self.left = self.left[len(text) :]
            return True
        return False

    def _next(self) -> str:
        if not self.left:
            raise NotProvenError("the expression is incomplete")
        char, self.left = self.left[0], self.left[1:]
        return char

    def _atoms(self) -> Iterator[Atom]:
        while self.left and self.left[0] not in "|)":
            if self._takes(NO_LOOK):
                if self.left and self.left[0] not in "|)":
                    raise NotProvenError("a look-ahead is not at the end")
                continue
            yield self._quantified(self._atom())

    def _atom(self) -> Atom:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == "\\":
            return Atom(*self._escape())
        if char in ".^$*+?{})]":
            raise NotProvenError(f"{char!r} is not supported")
        return Atom(char == " ", char not in WHITE)

    def _quantified(self, atom: Atom) -> Atom:
        for sign, several, needed in (("*", True, 0), ("+", True, atom.needed), ("?", atom.several, 0)):
            if self._takes(sign):
                self._expect_greedy()
                return Atom(atom.space, atom.other, several, needed)
        if self._takes("{"):
            inside, closed, self.left = self.left.partition("}")
            least, _, most = inside.partition(",")
            if not closed or not least.isdecimal() or (most and not most.isdecimal()):
                raise NotProvenError(f"{{{inside} is not known")
            self._expect_greedy()
            return Atom(atom.space, atom.other, inside != "1", int(least) * atom.needed)
        return atom

    def _expect_greedy(self) -> None:
        if self.left[:1] in {"+", "?", "*", "{"}:
            raise NotProvenError("possessive or lazy repetition")

    def _group(self) -> Atom:
        """Parse a group without captures as one atom that covers all its alternatives."""
        if not (self._takes("?:") or self._takes("?i:")) and self.left.startswith("?"):
            raise NotProvenError("a group of another kind")
        self.depth += 1
        atoms = [atom for alternative in self.alternatives() for atom in alternative]
        self.depth -= 1
        if self._next() != ")":
            raise NotProvenError("a group does not end")
        return Atom(any(a.space for a in atoms), any(a.other for a in atoms), several=True)

    def _escape(self) -> tuple[bool, bool]:
        """Return whether an escape can match a space, and a character other than white space."""
        char = self._next()
        if char in "pP":
            return self._property(inverted=char == "P")
        if char in ESCAPED_CLASSES:
            return ESCAPED_CLASSES[char]
        if char in CONTROLS:
            return False, False
        if char in PLAIN_ESCAPES:
            return char == " ", char != " "
        raise NotProvenError(f"\\{char} is not known")

    def _property(self, *, inverted: bool) -> tuple[bool, bool]:
        name = self._next()
        if name == "{":
            name, closed, self.left = self.left.partition("}")
            if not closed:
                raise NotProvenError("a property does not end")
        inverted = inverted != name.startswith("^")
        name = name.removeprefix("^")
        if name[:1] not in {"L", "M", "N", "P", "S", "Z", "C"} or len(name) > 2:
            raise NotProvenError(f"the property {name} is not known")
        if inverted:
            return name not in SEPARATORS, True
        return name in SEPARATORS, name[0] != "Z"

    def _class(self) -> Atom:
        """Parse a character class; parts that are not exact count as everything that they could match."""
        inverted = self._takes("^")
        space = other = all_other = False
        while not self._takes("]"):
            char = self._next()
            if char == "[" or (char + self.left).startswith("&&"):
                raise NotProvenError("a class within a class")
            if char == "\\":
                all_other = all_other or self.left[:1] == "S"
                own_space, own_other = self._escape()
            else:
                own_space, own_other = char == " ", char not in WHITE
            if self.left[:1] == "-" and self.left[1:2] not in {"]", ""}:
                own_space, own_other = self._range(char)
            space, other = space or own_space, other or own_other
        return Atom(not space, not all_other) if inverted else Atom(space, other)

    def _range(self, first: str) -> tuple[bool, bool]:
        """Parse the rest of a range; ranges that contain a space, or start or end with an escape, are not supported."""
        self._next()
        last = self._next()
        if "\\" in {first, last} or not first <= last or first <= " ":
            raise NotProvenError("a range that may contain a space")
        return False, True
