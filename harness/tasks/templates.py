"""The small language of task.yaml: templates such as "Question: {question|strip}" filled from a document's fields.

A field is a name with optional steps into it: {choices[0]}, {target.text}. Filters (FILTERS) follow after bars, left to
right, with arguments after colons: {sentence|before:_|strip}. {{ and }} are braces. Templates contain no Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TypeGuard

from harness.errors import TaskError, suggest
from harness.tasks.patterns import find_matches
from harness.types import Json, JsonObject

Row = JsonObject

MOST_TEXT = 10**7  # characters that a template may grow to

SLOT = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
LIST_KEYS = {"field", "split", "find", "each"}
STEP = re.compile(r"\[([^\]]*)\]|\.([^.\[\]]+)|([^.\[\]]+)")


def _cut(text: str, mark: str, side: int, *, last: bool = False) -> str:
    if mark not in text:
        raise TaskError(f"{mark!r} is missing in {text!r}")
    return (text.rsplit(mark, 1) if last else text.split(mark, 1))[side]


def _slice(text: str, start: str, stop: str = "") -> str:
    return text[int(start) if start else None : int(stop) if stop else None]


def _replace(text: str, old: str, new: str) -> str:
    _expect_short(len(text) + text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


def _expect_short(length: int) -> None:
    if length > MOST_TEXT:
        raise TaskError(f"the text has more than {MOST_TEXT} characters; shorten the template or the document")


def _drop_brackets(text: str) -> str:
    """Remove [...] within lines, in time that grows with the text alone: re.sub would try every bracket to the end."""
    return "\n".join(map(_drop_in_line, text.split("\n")))


def _drop_in_line(line: str) -> str:
    parts, place = list[str](), 0
    while 0 <= (start := line.find("[", place)) < (end := line.find("]", start)):
        parts.append(line[place:start])
        place = end + 1
    return "".join(parts) + line[place:]


FILTERS: dict[str, Callable[..., str]] = {
    "strip": str.strip,
    "lstrip": str.lstrip,
    "lower": str.lower,
    "lower_first": lambda text: text[:1].lower() + text[1:],
    "capitalize": str.capitalize,
    "before": lambda text, mark: _cut(text, mark, 0),
    "after": lambda text, mark: _cut(text, mark, 1),
    "before_last": lambda text, mark: _cut(text, mark, 0, last=True),
    "after_last": lambda text, mark: _cut(text, mark, 1, last=True),
    "replace": _replace,
    "slice": _slice,
    "drop_brackets": _drop_brackets,
    "period": lambda text: text if text.endswith(".") else text + ".",
}


def look_up(path: str, row: Row) -> Json:
    """Return the value of a field: `name`, `name[0]`, `name.key`; raise TaskError with the available fields."""
    if path in row:
        return row[path]
    value: Json = row
    for index, key, name in STEP.findall(path.strip()):
        step = index or key or name
        try:
            value = _inside(value, step)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise TaskError(f"a document has no field {path.strip()!r}; {suggest(path.strip(), row)}") from error
    return value


def _inside(value: Json, step: str) -> Json:
    if not isinstance(value, (list, Mapping)):
        raise TypeError(f"a {type(value).__name__} has no fields")
    inner: Json = value[int(step)] if isinstance(value, list) else value[step]
    return inner


def fill(template: str, row: Row) -> str:
    """Fill a template from the fields of a document.

    >>> fill("Q: {question|strip}", {"question": " Why? "})
    'Q: Why?'
    >>> fill("{sentence|before:_}{options[1]}", {"sentence": "The _ ran.", "options": ["cat", "dog"]})
    'The dog'
    """

    length = len(template)

    def replace(match: re.Match[str]) -> str:
        nonlocal length
        if match[1] is None:
            return _brace(match[0], template)
        path, *filters = match[1].split("|")
        text = _filtered(look_up(path, row), filters, path)
        length += len(text)
        _expect_short(length)
        return text

    return SLOT.sub(replace, template)


def _brace(text: str, template: str) -> str:
    if len(text) == 1:
        raise TaskError(f"template {template!r}: a single {text!r}; write {text * 2!r} for a brace")
    return text[0]


def _filtered(value: Json, filters: list[str], path: str) -> str:
    if isinstance(value, (list, dict)) or value is None:
        raise TaskError(f"field {path!r} is {value!r}; expected text or a number")
    text = _as_text(value, path)
    for item in filters:
        text = _apply(item, text)
    return text


def _as_text(value: Json, path: str) -> str:
    if isinstance(value, float) and not isfinite(value):
        raise TaskError(f"field {path!r} is {value}; expected text or a number")
    try:
        return str(value)
    except ValueError as error:  # a whole number of thousands of digits
        raise TaskError(f"field {path!r} has a number with too many digits: {error}") from error


def _apply(item: str, text: str) -> str:
    name, *arguments = item.split(":")
    if name.strip() not in FILTERS:
        raise TaskError(f"there is no filter {name!r}; {suggest(name, FILTERS)}")
    try:
        return FILTERS[name.strip()](text, *arguments)
    except TaskError:
        raise
    except (TypeError, ValueError) as error:
        raise TaskError(f"filter {item!r}: {error}") from error


def fill_list(form: Json, row: Row) -> list[str]:
    r"""Return a list of texts.

    `form` is the name of a field with a list, a template, a list of templates, or a table: {field: NAME}, the
    field's text cut by split: ";" or searched by find: REGEX, each item filled into each: TEMPLATE as {item}.

    >>> fill_list({"field": "input", "find": r"\([A-Z]\)"}, {"input": "Which? (A) this (B) that"})
    ['(A)', '(B)']
    >>> fill_list({"field": "options", "each": "{item.text|lower}"}, {"options": [{"text": "Yes"}, {"text": "No"}]})
    ['yes', 'no']
    """
    if isinstance(form, str) and "{" not in form:
        return _texts(look_up(form, row), form)
    if isinstance(form, dict):
        return _from_field(form, row)
    templates = [form] if isinstance(form, str) else form
    if not is_texts(templates):
        raise TaskError(f"found {form!r}; expected the name of a field, templates, or a table with field:")
    return [fill(template, row) for template in templates]


def is_texts(value: Json) -> TypeGuard[list[str] | tuple[str, ...]]:
    """Return whether a value is a list of texts."""
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _from_field(form: JsonObject, row: Row) -> list[str]:
    keys = {name: value for name, value in form.items() if isinstance(value, str) and value}
    if "field" not in keys or set(form) - LIST_KEYS or len(keys) < len(form):
        raise TaskError(f"expected field: and any of split:, find:, each:, with text; found {dict(form)!r}")
    items = look_up(keys["field"], row)
    if "split" in keys:
        items = [part.strip() for part in str(items).split(keys["split"]) if part.strip()]
    if "find" in keys:
        items = _find(keys["find"], str(items))
    if not isinstance(items, list) or "each" not in keys:
        return _texts(items, keys["field"])
    return [fill(keys["each"], {**row, "item": item}) for item in items]


def _find(pattern: str, text: str) -> list[str]:
    """Return what re.findall does for patterns with at most one group."""
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise TaskError(f"find: {pattern!r}: {error}; expected a regular expression of Python") from error
    if groups > 1:
        raise TaskError(f"find: {pattern!r} has {groups} groups; expected one at most, write (?:...) for the others")
    try:
        return [match[groups] or "" for match in find_matches(pattern, text)]
    except TimeoutError as error:
        raise TaskError(f"find: {error}") from error


def _texts(value: Json, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, (str, int, float)) for item in value):
        raise TaskError(f"field {name!r} is {value!r}; expected a list of texts")
    return [_as_text(item, name) for item in value]
