"""The child process of the vLLM engine: it answers the parent's messages with the results of vllm_serving.py."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness_plugins.engines.memory import ran_out
from harness_plugins.engines.processes import Parent
from harness_plugins.engines.vllm_asks import Asked
from harness_plugins.engines.vllm_serving import Vllm


@dataclass
class Worker:
    """Answer the parent's messages, one after the other."""

    parent: Parent
    vllm: Any = field(init=False)

    def run(self) -> None:
        """Serve until the parent closes the connection; report an error to the parent and end the process."""
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
        """End vLLM's processes, then this process at once: the exit handlers of some libraries take minutes."""
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
        """Yield the requests of one cell, which arrive in several messages; yield None while none has arrived."""
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
            next_kind, more, is_last = message
            if next_kind != kind:
                raise ValueError(f"the parent sent {next_kind} before the last message of {kind}")
            waiting.extend(more)


class Closed(Exception):
    """The parent closed the connection in the middle of a cell."""


def _kind(error: BaseException) -> str:
    """Classify an error for the parent: memory, request (it will fail again), or engine."""
    if ran_out(error):
        return "memory"
    return "request" if isinstance(error, (TypeError, ValueError)) else "engine"


if __name__ == "__main__":
    Worker(Parent()).run()
