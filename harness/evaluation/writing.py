"""Write cells in a separate thread, so that the engine does not wait for the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from harness.evaluation.scoring import Tally
from harness.store.cells import Store
from harness.store.choice_cells import Records
from harness.store.token_cells import Tokens

MOST = 4  # largest number of cells in the queue; the next one waits until the oldest is written


class CellWriter:
    """Write the records of cells in order. Locks stay with the caller's thread, which acquired them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="write")
        self.under_way: deque[tuple[Tally, Future[None]]] = deque()

    def put(self, tally: Tally, records: Records, tokens: Tokens | None) -> None:
        """Write a cell in the background."""
        self.under_way.append((tally, self.thread.submit(self.store.write, tally.claim.cell, records, tokens)))

    def written(self, *, wait: bool = False) -> Iterator[Tally]:
        """Yield the cells written since the last call; with `wait`, wait for all of them.

        Raises errors of writing. The cells after a failed one are still written if possible, but not yielded.
        """
        while self.under_way and (wait or len(self.under_way) > MOST or self.under_way[0][1].done()):
            tally, future = self.under_way.popleft()
            future.result()
            yield tally
