"""The language of task.yaml."""

from __future__ import annotations

import pytest

from harness import TaskError
from harness.tasks.templates import fill, fill_list

ROW = {
    "q": " Why? ",
    "options": ["cat", "dog"],
    "target": {"text": "x"},
    "n": 3,
    "s": "The _ ran _ off.",
    "none": None,
    "mixed": "Then Mary. ",
    "bracketed": "a [b] c [d]",
    "padded": " x ",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Q:{q}A", "Q: Why? A"),
        ("{q|strip|lower}", "why?"),
        ("{options[1]}-{target.text}-{n}", "dog-x-3"),
        ("{s|before:_}|{s|after:_|strip}", "The |ran _ off."),
        ("{s|replace:_:X}", "The X ran X off."),
        ("{{{n}}}", "{3}"),
        ("plain", "plain"),
        ("{mixed|capitalize}|{mixed|lower_first}", "Then mary. |then Mary. "),
        ("{mixed|slice:5}|{mixed|slice::-2}|{mixed|slice:0:4}", "Mary. |Then Mary|Then"),
        ("{s|before_last: }|{s|after_last: }", "The _ ran _|off."),
        ("{bracketed|drop_brackets}|{bracketed|replace: [b]:. }", "a  c |a.  c [d]"),
        ("{s|period}|{n|period}|{padded|lstrip}", "The _ ran _ off.|3.|x "),
    ],
)
def test_templates_fill(template, text):
    assert fill(template, ROW) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{question}", "no field 'question'; there are: bracketed, mixed, n, none, options"),
        ("{options[7]}", "no field"),
        ("{q|upper}", "no filter 'upper'; "),
        ("{options}", "expected text or a number"),
        ("{none}", "expected text or a number"),
        ("{q", "single '{'"),
        ("{q|before:#}", "'#' is missing in"),
        ("{q|replace:a}", "filter 'replace:a': .* missing 1 required positional argument: 'new'"),
        ("{q|slice:x}", "filter 'slice:x': invalid literal"),
    ],
)
def test_a_template_that_cannot_be_filled_says_why(template, message):
    with pytest.raises(TaskError, match=message.replace("(", r"\(").replace("[", r"\[")):
        fill(template, ROW)


def test_lists_come_from_fields_templates_and_separated_text():
    assert fill_list("options", ROW) == ["cat", "dog"]
    assert fill_list(["{n}", "{q|strip}"], ROW) == ["3", "Why?"]
    assert fill_list("{n}", ROW) == ["3"]
    assert fill_list({"field": "joined", "split": ";"}, {"joined": "a; b;; c;"}) == ["a", "b", "c"]
    with pytest.raises(TaskError, match="expected a list of texts"):
        fill_list("q", ROW)


def test_lists_are_searched_for_and_filled_item_by_item():
    row = {"input": "Which?\n(A) this (B)\n(B) that", "options": [{"text": "Yes"}, {"text": "No"}], "n": 2}
    assert fill_list({"field": "input", "find": r"\n(\([A-Z]\))"}, row) == ["(A)", "(B)"]
    assert fill_list({"field": "options", "each": "{n}: {item.text|lower}"}, row) == ["2: yes", "2: no"]
    assert fill_list({"field": "joined", "split": ";", "each": "{item|period}"}, {"joined": "a; b."}) == ["a.", "b."]
    for wrong in ({"field": "input", "cut": ";"}, {"each": "{item}"}):
        with pytest.raises(TaskError, match="expected field: and any of split:, find:, each:"):
            fill_list(wrong, row)
