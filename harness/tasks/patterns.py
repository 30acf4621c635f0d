"""Regular expressions of others with a time limit: they run in a child process, which is ended when it takes too long.

A pattern such as (a+)+b needs exponential time for some texts, and Python offers no limit.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from functools import cache
from threading import Lock, Timer

SECONDS = 5.0  # for one text
CHILD = """
import itertools, json, re, sys
for line in sys.stdin:
    pattern, text, most = json.loads(line)
    found = [[match[0], *match.groups()] for match in itertools.islice(re.finditer(pattern, text), most)]
    print(json.dumps(found), flush=True)
"""

Match = list[str | None]  # the whole match, then its groups


class Finder:
    """The child process that searches; one for all threads."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", "-c", CHILD]
        self.process = subprocess.Popen(  # noqa: S603  # a fixed command
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="ascii"
        )
        self.lock = Lock()
        atexit.register(self.close)

    def find(self, question: str, seconds: float) -> list[Match] | None:
        """Return all matches; None where that takes longer."""
        assert self.process.stdin is not None  # both are pipes
        assert self.process.stdout is not None
        with self.lock:
            timer = Timer(seconds, self.process.kill)
            timer.start()
            try:
                self.process.stdin.write(question + "\n")
                self.process.stdin.flush()
                answer = self.process.stdout.readline()
            except BrokenPipeError:
                return None
            finally:
                timer.cancel()
        return json.loads(answer) if answer.endswith("\n") else None

    def close(self) -> None:
        """End the child."""
        atexit.unregister(self.close)
        self.process.kill()
        self.process.communicate()


@cache
def _finder() -> Finder:
    return Finder()


def find_matches(pattern: str, text: str, *, most: int | None = None, seconds: float = SECONDS) -> list[Match]:
    """Return the matches of a regular expression that compiles, as `re.finditer` finds them: whole match and groups.

    `most` keeps the first so many. Raises TimeoutError where that takes longer than so many seconds.

    >>> find_matches("([a-z])([0-9])?", "a1 b")
    [['a1', 'a', '1'], ['b', 'b', None]]
    """
    found = _finder().find(json.dumps([pattern, text, most]), seconds)
    if found is None:
        _finder().close()
        _finder.cache_clear()
        what = f"the pattern {pattern!r} took longer than {seconds:g} s on a text of {len(text)} characters"
        raise TimeoutError(f"{what}; write one in which no repetition is inside another")
    return found
