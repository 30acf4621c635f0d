"""The child process of the vLLM engine: it answers the messages of its parent with what vllm_serving.py computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness_plugins.engines.processes import Parent
from harness_plugins.engines.vllm_asks import Asked
from harness_plugins.engines.vllm_serving import Vllm


@dataclass
class Worker:
    """Answers the messages of the parent, one after the other."""

    parent: Parent
    vllm: Any = field(init=False)

    def run(self) -> None:
        """Serve until the parent wants an end; what goes wrong is told, and ends the process."""
        try:
            while (message := self.parent.next()) is not None:
                kind, *arguments = message
                getattr(self, f"_{kind}")(*arguments)
            self._end()
        except Closed:
            self._end()
        except BaseException as error:
            self.parent.send(("failed", _kind(error), f"{type(error).__name__}: {error}"))
            raise

    def _end(self) -> None:
        """End vLLM's own processes, and this one without the minutes that some libraries take for it."""
        if hasattr(self, "vllm"):
            self.vllm.engine.engine_core.shutdown()
        os._exit(0)

    def _open(self, folder: str, options: Mapping[str, Any], rows: bool) -> None:
        self.vllm = Vllm(folder, options, rows=rows)
        self.parent.send(("opened", self.vllm.describe()))

    def _swap(self, folder: str) -> None:
        self.parent.send(("swapped", *self.vllm.swap(folder)))

    def _score(self, requests: list[Any], is_last: bool) -> None:
        asked = (request and Asked(*request) for request in self._stream("score", requests, is_last))
        for number, answer in self.vllm.score(asked):
            greedy = None if None in answer.greedy else answer.greedy
            self._tell(number, (answer.logprobs, greedy))

    def _generate(self, requests: list[Any], is_last: bool) -> None:
        for number, *sample in self.vllm.generate(self._stream("generate", requests, is_last)):
            self._tell(number, sample)

    def _tell(self, number: int, result: Any) -> None:
        if self.parent.is_over:
            raise Closed
        self.parent.send(("result", number, result))

    def _stream(self, kind: str, requests: list[Any], is_last: bool) -> Iterator[Any]:
        """Yield the requests of one cell, of which more messages tell until the last; None while none has come."""
        waiting = deque(requests)
        while True:
            while waiting:
                yield waiting.popleft()
            if is_last:
                return
            while self.vllm.held and self.parent.is_silent:
                yield None
            message = self.parent.next()
            if message is None:
                raise Closed
            found, more, is_last = message
            if found != kind:
                raise ValueError(f"{found} in the middle of {kind}")
            waiting.extend(more)


class Closed(Exception):
    """The parent wants an end in the middle of a cell."""


def _kind(error: BaseException) -> str:
    """Return what a parent must know of an error: memory, request (it will fail again), or engine."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        return "memory"
    return "request" if isinstance(error, (TypeError, ValueError)) else "engine"


OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "available memory on node",
    "no available memory for the cache",
    "free memory on device",
)

if __name__ == "__main__":
    Worker(Parent()).run()
