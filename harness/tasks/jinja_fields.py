"""Fields of a document that jinja2 computes: for what the templates of task.yaml cannot say, such as replacements by
regular expressions, conditions and loops. They are rendered in a child process, in the sandbox of jinja2.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import TaskError
from harness.host.distribution import how_to_install, missing
from harness.tasks.children import Child

SECONDS = 5.0  # for one text


@cache
def _renderer() -> Child:
    program = Path(__file__).with_name("jinja_child.py")
    return Child(str(program), json.dumps([folder for folder in sys.path if folder]))


def render(template: str, row: Mapping[str, Any]) -> str:
    """Return a jinja2 template filled from the fields of a document.

    Beside jinja2's own filters there are `regex_replace(PATTERN, NEW)` and `detokenize` (of WikiText). Raises TaskError
    where jinja2 refuses the template, a field is missing, or the text takes more than 5 s.

    >>> render("{{ q | regex_replace('[0-9]+', '#') | trim }}?", {"q": " 12 of 30 "})
    '# of #?'
    """
    if missing(("jinja2",)):
        raise TaskError(f"the package jinja2 is not installed: {how_to_install('templates')}")
    try:
        answer = _renderer().ask([template, json.loads(json.dumps(dict(row), default=str))], SECONDS)
    except TimeoutError as error:
        _renderer().close()
        _renderer.cache_clear()
        raise TaskError(
            f"jinja: {template!r} took longer than {SECONDS:g} s, or too much memory; simplify it"
        ) from error
    if "error" in answer:
        raise TaskError(f"jinja: {template!r}: {answer['error']}")
    return str(answer["text"])
