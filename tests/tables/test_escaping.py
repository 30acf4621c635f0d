"""Text of documents on a terminal and in a page: escapes are shown, never executed."""

from __future__ import annotations

import pytest

from harness import printable

ATTACKS = {
    "ESC": ("\x1b[2Jgone", "\\x1b[2Jgone"),
    "BEL": ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    "C1": ("\x9b31mred", "\\x9b31mred"),
    "backspace": ("no\x08\x08yes", "no\\x08\\x08yes"),
    "carriage return": ("wrong\rright", "wrong\\rright"),
    "override": ("\u202egpj.exe", "\\u202egpj.exe"),
    "isolate": ("\u2066a\u2069", "\\u2066a\\u2069"),
    "line separator": ("a\u2028b\u0085c", "a\\u2028b\\x85c"),
    "surrogate": ("\ud800", "\\ud800"),
    "tag": ("\U000e0041", "\\U000e0041"),
    "zero width space": ("a\u200bb", "a\\u200bb"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_characters_that_act_are_shown(name: str):
    given, shown = ATTACKS[name]
    assert printable(given) == shown
    assert printable(given, lines=True) == shown
    assert printable(shown) == shown


def test_ordinary_text_is_unchanged():
    text = "2 + 3 = 5, «naïve», 数学, العربية, 👩‍🔬, a\u00a0b <script> [red] | \\"
    assert printable(text) == text


def test_line_feeds_are_kept_where_text_has_lines():
    assert printable("a\n\tb\r\n", lines=True) == "a\n\tb\\r\n"
    assert printable("a\n\tb") == "a\\n\\tb"
    assert printable(3.5) == "3.5"
