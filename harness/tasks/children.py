"""A child process that answers questions with a time limit: what hangs or grows in it is ended, and nothing else."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from collections.abc import Sequence
from threading import Lock, Timer
from typing import Any


class Child:
    """A Python program that reads a JSON value per line and answers each with one; one for all threads."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(  # noqa: S603  # a fixed command
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="ascii"
        )
        self.lock = Lock()
        atexit.register(self.close)

    def ask(self, question: Sequence[Any], seconds: float) -> Any:
        """Return the answer; raise TimeoutError where it takes longer, or where the child ended."""
        assert self.process.stdin is not None  # both are pipes
        assert self.process.stdout is not None
        with self.lock:
            timer = Timer(seconds, self.process.kill)
            timer.start()
            try:
                self.process.stdin.write(json.dumps(question) + "\n")
                self.process.stdin.flush()
                answer = self.process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            finally:
                timer.cancel()
        if not answer.endswith("\n"):
            raise TimeoutError(f"no answer within {seconds:g} s")
        return json.loads(answer)

    def close(self) -> None:
        """End the child."""
        atexit.unregister(self.close)
        self.process.kill()
        self.process.communicate()
