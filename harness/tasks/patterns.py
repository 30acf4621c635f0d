"""Regular expressions of others with a time limit: they run in a child process, which is ended when it takes too long.

A pattern such as (a+)+b needs exponential time for some texts, and Python offers no limit.
"""

from __future__ import annotations

from functools import cache

from harness.tasks.children import Child

SECONDS = 5.0  # for one text
CHILD = """
import itertools, json, re, sys
for line in sys.stdin:
    pattern, text, most = json.loads(line)
    matches = [[match[0], *match.groups()] for match in itertools.islice(re.finditer(pattern, text), most)]
    print(json.dumps(matches), flush=True)
"""

Match = list[str | None]  # the whole match, then its groups


@cache
def _finder() -> Child:
    return Child("-I", "-S", "-c", CHILD)


def find_matches(pattern: str, text: str, *, most: int | None = None, seconds: float = SECONDS) -> list[Match]:
    """Return the matches of a regular expression that compiles, as `re.finditer` finds them: whole match and groups.

    `most` keeps the first so many. Raises TimeoutError where that takes longer than so many seconds.

    >>> find_matches("([a-z])([0-9])?", "a1 b")
    [['a1', 'a', '1'], ['b', 'b', None]]
    """
    try:
        matches: list[Match] = _finder().ask([pattern, text, most], seconds)
    except TimeoutError as error:
        _finder().close()
        _finder.cache_clear()
        reason = f"the pattern {pattern!r} took longer than {seconds:g} s on a text of {len(text)} characters"
        raise TimeoutError(f"{reason}; write one in which no repetition is inside another") from error
    return matches
