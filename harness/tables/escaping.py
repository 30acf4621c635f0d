"""Text of documents, models and plugins, made safe to print: control and bidirectional characters become visible."""

from __future__ import annotations

import unicodedata

HIDDEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})  # categories that move, hide or reorder other text
JOINERS = frozenset("\u200c\u200d")  # needed to spell Persian, Hindi and emoji; they reorder nothing
NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return text in which every control, bidirectional or invisible character is written as an escape.

    Terminal escapes (ESC, BEL, C1), line separators, lone surrogates and bidirectional overrides change what a reader
    sees of other text, or what a terminal does. Markup of HTML or Markdown is not touched here: the writer of each
    format escapes its own.

    :param lines: keep line feeds and tabs, for text that is shown over several lines.

    >>> printable("a\x1b[31mred\u202e\n")
    'a\\x1b[31mred\\u202e\\n'
    """
    return "".join(_shown(c, keep="\n\t" if lines else "") for c in str(text))


def _shown(character: str, *, keep: str) -> str:
    """Return one character, or its escape."""
    if character in keep or character in JOINERS or unicodedata.category(character) not in HIDDEN:
        return character
    if character in NAMED:
        return NAMED[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
