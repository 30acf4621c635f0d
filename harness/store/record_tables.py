"""The cells of a task and a family, and tables of what they hold: choices, tokens, generated texts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.errors import StoreError
from harness.store.cells import Cell
from harness.store.frames import choice_frame, sample_frame, token_frame
from harness.store.groups import GroupedStore
from harness.store.point_frames import KEYS, what_is_missing, with_all_columns
from harness.store.subsets import Subset


class RecordStore(GroupedStore):
    """A store that returns the records of selected cells as pandas frames."""

    def select(self, task: str | None = None, family: str | None = None) -> list[Cell]:
        """Return the cells of a task and a family (None: all); raise StoreError if there are none.

        Subsets of tasks are included only by name, because their means are not those of the tasks.
        """
        chosen = self.selected(task, family)
        if chosen:
            return chosen
        if why_not := self.why_no_cells(task):
            raise StoreError(f"{self.path}: {why_not}")
        if len(self._imported(task, family, None)):
            raise StoreError(
                f"{self.path} has imported points of task {task or '(any)'} and family {family or '(any)'}, but no "
                "records of documents; import samples that have log-probabilities, or evaluate the task"
            )
        raise StoreError(f"{self.path} {what_is_missing(self.cells(), task, family)}")

    def selected(self, task: str | None = None, family: str | None = None) -> list[Cell]:
        """Return the cells of a task and a family, or none; see `select`."""
        wanted = [c for c in self.cells() if (Subset.MARK not in c.task if task is None else c.task == task)]
        return [c for c in wanted if family in (None, c.checkpoint.family)]

    def scores(self, task: str | None = None, family: str | None = None, *, prompts: bool = False) -> pd.DataFrame:
        """Return one row per choice of every document, with checkpoint, task, group and attributes.

        `prompts` adds the text as scored: context, continuation and answer (`harness.printable` makes them
        safe to print). Raises StoreError for tasks with generated text, which `samples` returns.
        """
        cells = [cell for cell in self.select(task, family) if not self.is_sampled(cell.id)]
        if not cells:
            raise StoreError(f"{task or 'every task of the store'} generates text and scores no choices; see samples()")
        frames = [choice_frame(self, cell, prompts=prompts) for cell in cells]
        return pd.concat(frames, ignore_index=True).sort_values([*KEYS, "task"], kind="stable", ignore_index=True)

    def tokens(self, task: str | None = None, family: str | None = None) -> pd.DataFrame:
        """Return one row per token of the continuations: doc_id, choice, position, token_id, logprob (nats, float32).

        The tokens of a choice add up to its `logprob` in `scores`. Raises StoreError where no cell has them: they are
        stored by `harness eval --keep-tokens`.
        """
        cells = [cell for cell in self.select(task, family) if self.token_cells.has(cell.id.name)]
        if not cells:
            raise StoreError(
                f"{self.path} has no log-probabilities of tokens of {task or 'any task'}; harness eval --keep-tokens "
                "stores them"
            )
        return pd.concat([token_frame(self, cell) for cell in cells], ignore_index=True)

    def samples(self, task: str | None = None, family: str | None = None) -> pd.DataFrame:
        """Return one row per generated text: doc_id, sample, sample_seed, text, n_tokens, finish, outcome, detail.

        Raises StoreError if there are none.
        """
        cells = [cell for cell in self.select(task, family) if self.is_sampled(cell.id)]
        if not cells:
            raise StoreError(f"{task or 'every task of the store'} scores choices and generates no text; see scores()")
        return pd.concat([sample_frame(self, cell) for cell in cells], ignore_index=True)

    def _imported(self, task: str | None, family: str | None, metrics: Sequence[str] | None) -> pd.DataFrame:
        """Return the points without cells of a task, a family and metrics (None: all)."""
        frame = with_all_columns(self.without_cells)
        for column, wanted in (("task", task), ("family", family)):
            if wanted is not None and not frame.empty:
                frame = frame[frame[column] == wanted]
        return frame if metrics is None or frame.empty else frame[frame["metric"].isin(metrics)]

    @property
    def without_cells(self) -> pd.DataFrame:
        """All points without a cell of this store, possibly none: imported ones, and those of groups of tasks."""
        frames = [frame for frame in (self.imported, self.group_points()) if not frame.empty]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
