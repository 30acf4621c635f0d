"""The process that renders fields with jinja2: a template and a document per line of standard input, and the text.

It is run as a program by harness/tasks/jinja_fields.py, and imports nothing of the harness. The sandbox of jinja2 keeps
templates from Python; memory is limited, and the parent ends what takes too long.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from functools import cache
from typing import Any

MOST_MEMORY = 2 << 30  # bytes of address space
MOST_TEXT = 10**7  # characters

# The detokenizer of lm-eval's wikitext, in its order: a text or pattern, and what replaces it.
WIKITEXT: tuple[tuple[str | re.Pattern[str], str], ...] = (
    ("s '", "s'"),
    (re.compile(r"/' [0-9]/"), r"/'[0-9]/"),
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    *((f" {mark} ", f"{mark} ") for mark in ":;.!?,"),
    (re.compile(r"\(\s*([^\)]*?)\s*\)"), r"(\1)"),
    (re.compile(r"\[\s*([^\]]*?)\s*\]"), r"[\1]"),
    (re.compile(r"{\s*([^}]*?)\s*}"), r"{\1}"),
    (re.compile(r"\"\s*([^\"]*?)\s*\""), r'"\1"'),
    (re.compile(r"'\s*([^']*?)\s*'"), r"'\1'"),
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)


def detokenize(text: str) -> str:
    """Return the text of a page of WikiText: spaces around punctuation, brackets and number separators removed."""
    for old, new in WIKITEXT:
        text = text.replace(old, new) if isinstance(old, str) else old.sub(new, text)
    return text


def regex_replace(text: str, pattern: str, new: str, count: int = 0) -> str:
    """Return the text with every match of a regular expression replaced, as lm-eval's filter of this name."""
    return re.sub(pattern, new, text, count=count)


@cache
def environment() -> Any:
    """Return the environment of all templates."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    made.filters |= {"regex_replace": regex_replace, "detokenize": detokenize}
    return made


@cache
def compiled(template: str) -> Any:
    """Return a template, compiled once."""
    return environment().from_string(template)


def answer(template: str, row: dict[str, Any]) -> dict[str, str]:
    """Return the text of a template, or why there is none."""
    try:
        text = compiled(template).render(row)
    except Exception as error:  # a template may raise any error
        return {"error": f"{type(error).__name__}: {error}"}
    return {"text": text} if len(text) <= MOST_TEXT else {"error": f"the text has more than {MOST_TEXT} characters"}


def main() -> None:
    """Answer until standard input ends."""
    sys.path[:] = json.loads(sys.argv[1])
    environment()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(*json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
