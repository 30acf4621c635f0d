"""Forward passes of a transformers module: from token ids to log-probabilities (nats) of the scored tokens.

The output head runs on the scored positions only, in float32 like the log-softmax; sums are float64. The plain pass is
the reference: one row per sequence, no mask, no cache. The packed pass reads a batch of trees (packing.py) after their
shared prefix, whose keys and values are cached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import EngineError, Request
from harness.types import Bools, Floats
from harness_plugins.engines.last_block import LastBlock, find_last_block
from harness_plugins.engines.logits import agree, top_and_total
from harness_plugins.engines.packing import Batch, aligned
from harness_plugins.engines.prefixes import Prefix
from harness_plugins.engines.ropes import rope_grows
from harness_plugins.engines.upcast import Float32Head, in_float32

CHUNK = {"cpu": 64, "cuda": 4096}  # rows of logits reduced together; on a CPU as many as fit its cache


@dataclass(frozen=True)
class Row:
    """One sequence to score: continuation `choice` of request `request` in a window."""

    request: int
    choice: int
    ids: tuple[int, ...]
    n_scored: int  # number of scored ids at the end


@dataclass(frozen=True)
class Answer:
    """The result of a pass over n sequences. It may still be computed on the device; `read` waits for it."""

    sums: Any  # (2, n): log-probabilities, and the number of tokens that are not the most probable ones
    logprobs: Any  # (t,): log-probabilities of the scored tokens
    slot: Any  # (t,): the sequence of each, tokens of one sequence in their order

    def read(self) -> tuple[Floats, Bools]:
        """Return the log-probability of each sequence (n,), and whether all its tokens are greedy (n,)."""
        logprobs, misses = self.sums.cpu().numpy()
        return logprobs, misses == 0

    def tokens(self) -> list[Floats]:
        """Return the log-probabilities of the tokens of each sequence (n arrays)."""
        logprobs, slot = self.logprobs.cpu().numpy().astype(np.float64), self.slot.cpu().numpy()
        counts = np.bincount(slot, minlength=self.sums.shape[1])
        return np.split(logprobs[np.argsort(slot, kind="stable")], np.cumsum(counts)[:-1])


def rows_of(requests: Sequence[Request]) -> list[Row]:
    """Return one row per continuation, longest first."""
    rows = [
        Row(i, k, request.context + continuation, len(continuation))
        for i, request in enumerate(requests)
        for k, continuation in enumerate(request.continuations)
    ]
    return sorted(rows, key=lambda row: len(row.ids), reverse=True)


class Forwards:
    """A module with its weights and caches; other weights need another object."""

    def __init__(self, model: Any, device: str, last_block: LastBlock | None = None) -> None:
        self.model, self.device = model, device
        self.last_block = last_block  # of this module with other weights; None if it has not been examined
        self.chunk = CHUNK[device.split(":", maxsplit=1)[0]]
        self.head = Float32Head(model)
        self.gathers = True
        self.vocabulary = max(model.config.get_text_config().vocab_size, _rows_of_embedding(model))
        self.rope_grows = rope_grows(model.config.get_text_config().to_dict())
        self.prefix = Prefix(model, device)
        self.is_misread = device.startswith("cuda") and _has_one_head(model.config.get_text_config())

    @property
    def dtype(self) -> Any:
        """Return the current dtype of the module."""
        return next(tensor.dtype for tensor in self.model.parameters() if tensor.is_floating_point())

    def settle_head(self) -> str:
        """Choose the fastest head that reproduces the module's logits; return why it is not the default one.

        The default head reads the scored positions only, in float32. Both properties are compared with the logits of
        all positions: the first in float32, the second up to the rounding of the module's dtype.
        """
        import torch

        ids = np.random.default_rng(0).integers(self.model.config.get_text_config().vocab_size, size=(2, 12))
        inputs, at = {"input_ids": self._tensor(ids), "use_cache": False}, self._tensor(np.arange(3, 24, 4))
        with torch.inference_mode():
            self._examine_last_block()
            try:
                with in_float32(self.model):
                    self.gathers = self._gathers(inputs, at)
            except Exception:  # a module may raise any error in another precision
                self.gathers = self._gathers(inputs, at)
            why_not = "" if self.gathers else "its head gives different logits for single positions"
            if not self.head.applies:
                return why_not
            expected = self._all_logits(inputs, at)
            self.head.install()
            logits = self._logits(inputs, at)
        if logits.dtype == torch.float32 and agree(logits, expected):
            return why_not
        self.head.remove()
        return f"its head gives different logits in float32 ({str(logits.dtype).removeprefix('torch.')})"

    def _examine_last_block(self) -> None:
        """Find the layers that need the scored positions only, unless they are known from other weights."""

        def logits(ids: Any, places: Any) -> Any:
            return self._logits({"input_ids": ids, "use_cache": False}, places)

        if self.last_block is not None:
            return
        self.last_block = LastBlock()
        with suppress(Exception):  # a module may raise any error for unsupported inputs
            self.last_block = find_last_block(self.model, logits, agree)

    def _gathers(self, inputs: Mapping[str, Any], at: Any) -> bool:
        """Return whether logits of single positions equal those of all; if not, all layers read all positions again."""
        expected = self._all_logits(inputs, at)
        if agree(self._logits(inputs, at), expected):
            return True
        if not self.last_block or not self.last_block.layers:
            return False
        self.last_block = LastBlock()
        is_equal: bool = agree(self._logits(inputs, at), expected)
        return is_equal

    def close(self) -> None:
        """Restore the module."""
        self.head.remove()

    def logits(self, ids: Any, at: Any) -> Any:
        """Return the logits (t, V) of rows of ids (b, n) at flattened positions (t,)."""
        import torch

        with torch.inference_mode():
            return self._logits({"input_ids": self._tensor(ids), "use_cache": False}, self._tensor(at))

    def forget_length(self) -> None:
        """Read one token, by which rotary embeddings that grow with the sequence return to their original state."""
        if self.rope_grows:
            self.logits(np.zeros((1, 1), dtype=np.int64), np.zeros(1, dtype=np.int64))

    def plain(self, rows: Sequence[Row]) -> Answer:
        """Score rows, sorted by decreasing length and padded on the right; a causal model needs no mask for that."""
        width = len(rows[0].ids) - 1  # the last token is never read
        ids = np.zeros((len(rows), width + (self.misreads(width) and not self.rope_grows)), dtype=np.int64)
        at, target, slot = list[int](), list[int](), list[int]()
        for i, row in enumerate(rows):
            ids[i, : len(row.ids) - 1] = row.ids[:-1]
            end = i * ids.shape[1] + len(row.ids) - 1
            at += range(end - row.n_scored, end)
            target += row.ids[-row.n_scored :]
            slot += [i] * row.n_scored
        self.expect_known(ids, target)
        read, *scored = self._upload(ids, *_places(at), target, slot)
        return self._answer({"input_ids": read, "use_cache": False}, scored, len(rows))

    def packed(self, batch: Batch, shared: tuple[int, ...]) -> Answer:
        """Score the choices of a batch of trees, each after the prefix `shared`."""
        import torch

        self.expect_known(batch.ids, batch.target, shared)
        if self.device.startswith("cuda"):
            batch = aligned(batch, len(shared))
        rows = (batch.ids, batch.position, batch.tree, batch.branch)
        ids, position, tree, branch, *scored = self._upload(*rows, *_places(batch.at), batch.target, batch.slot)
        with torch.inference_mode():
            mask = self._mask(tree, branch, len(shared))
        inputs = {"input_ids": ids, "position_ids": position, "attention_mask": mask, "use_cache": False}
        if shared:
            with torch.inference_mode():
                self.prefix.read(shared, self.dtype)
                inputs |= {"past_key_values": self.prefix.cache_for(*batch.ids.shape), "use_cache": True}
        return self._answer(inputs, scored, batch.n_slots)

    def misreads(self, length: int) -> bool:
        """Return whether masked attention of one key-value head reads past `length` tokens (PyTorch issue 191937)."""
        return self.is_misread and length % 32 == 1

    def expect_known(self, *ids: Any) -> None:
        """Raise EngineError for a token id beyond the vocabulary, which would end the process on a GPU."""
        largest = max((int(np.max(part)) for part in ids if len(part)), default=0)
        if largest >= self.vocabulary:
            raise EngineError(
                f"the model has no token {largest}: its vocabulary has {self.vocabulary} tokens; use its own tokenizer"
            )

    def _upload(self, *arrays: Any) -> list[Any]:
        """Return arrays of integers as tensors on the device, with one transfer for all of them."""
        import torch

        whole = [np.asarray(array, dtype=np.int64) for array in arrays]
        flat = torch.from_numpy(np.concatenate([array.ravel() for array in whole]))
        if self.device.startswith("cuda"):
            flat = flat.pin_memory()
        parts = flat.to(self.device, non_blocking=True).split([array.size for array in whole])
        return [part.view(array.shape) for part, array in zip(parts, whole, strict=True)]

    def _tensor(self, array: Any) -> Any:
        import torch

        return torch.as_tensor(array, device=self.device)

    def _mask(self, tree: Any, branch: Any, shared: int) -> Any:
        """Return the attention mask, (b, 1, r, shared + r): 0 for visible tokens, else the lowest number."""
        import torch

        seen = (tree[:, :, None] == tree[:, None, :]).tril_()
        seen &= (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
        mask = torch.full(seen.shape, torch.finfo(self.dtype).min, dtype=self.dtype, device=self.device)
        return torch.nn.functional.pad(mask.masked_fill_(seen, 0), (shared, 0))[:, None]

    def cache_of(self, shared: tuple[int, ...], rows: int) -> Any:
        """Return a cache with `shared` for each row; its forward pass runs once for all batches after it."""
        import torch

        self.expect_known(shared)
        with torch.inference_mode():
            self.prefix.read(shared, self.dtype)
            return self.prefix.cache(rows)

    def _answer(self, inputs: Mapping[str, Any], scored: Sequence[Any], n: int) -> Answer:
        """Return the sums of n slots.

        `scored` are the predicting positions (places,), and for each scored token which of these predicts it, its id,
        and its slot: (t,).
        """
        import torch

        at, which, target, slot = scored
        with torch.inference_mode():
            logits = self._logits(inputs, at)  # (places, V)
            top, total = torch.cat([top_and_total(rows.float()) for rows in logits.split(self.chunk)], 1)
            value = logits[which, target].float()
            below = value < top[which]
            if logits.dtype != torch.float32:  # tied tokens: the first counts
                below = logits.argmax(-1)[which] != target
            logprobs = value - total[which]
            sums = torch.zeros(2, n, dtype=torch.float64, device=self.device)
            sums.index_add_(1, slot, torch.stack([logprobs.double(), below.double()]))
        return Answer(sums, logprobs, slot)

    def _logits(self, inputs: Mapping[str, Any], at: Any) -> Any:
        """Return logits (t, V) at flattened positions; the head reads only these."""
        gathered = []

        def gather(_: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not arguments or arguments[0].dim() != 3:
                return None  # a head with another call signature reads all positions
            gathered.append(True)
            return (arguments[0].flatten(0, 1)[at][None], *arguments[1:])

        head = self.model.get_output_embeddings()
        if head is None or not self.gathers:
            return self._all_logits(inputs, at)
        handle = head.register_forward_pre_hook(gather, prepend=True)
        last_block = self.last_block or LastBlock()
        try:
            with last_block.at(at, inputs["input_ids"].shape):
                logits = self.model(**inputs).logits
        finally:
            handle.remove()
        return logits[0] if gathered else logits.flatten(0, 1)[at]

    def _all_logits(self, inputs: Mapping[str, Any], at: Any) -> Any:
        return self.model(**inputs).logits.flatten(0, 1)[at]


def _has_one_head(config: Any) -> bool:
    """Return whether all attention heads share one head of keys and values."""
    return getattr(config, "num_key_value_heads", 0) == 1 or bool(getattr(config, "multi_query", False))


def _rows_of_embedding(model: Any) -> int:
    """Return the number of rows of the embedding, which config.json may understate; 0 if unknown."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError):
        return 0


def _places(at: Any) -> tuple[Any, Any]:
    """Return the different positions (places,), and which of them each is (t,): one may predict for every choice."""
    places, inverse = np.unique(at, return_inverse=True)
    return places, inverse
