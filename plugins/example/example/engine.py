"""The engine `example`, which only scores. Replace `next_logprobs` with your model."""

import hashlib
from contextlib import contextmanager

import numpy as np

import harness

VOCABULARY = 257  # bytes, and one token for the beginning and end of text


class Tokenizer:
    """Every byte is a token."""

    bos_id, eos_id, prefix_ids = 256, 256, (256,)

    def encode_batch(self, texts):
        """Return the token ids of texts, without any special token."""
        return [list(text.encode()) for text in texts]


class Example:
    """An engine that serves one checkpoint at a time."""

    def __init__(self, checkpoint, folder):
        self.swap(checkpoint, folder)

    def next_logprobs(self, ids):
        """Return the log-probability of every next token (VOCABULARY,), nats, after the tokens `ids`."""
        digest = hashlib.sha256(f"{self.label} {ids[-1]}".encode()).digest()
        logits = np.random.default_rng(list(digest)).normal(size=VOCABULARY)
        return logits - np.logaddexp.reduce(logits)

    def score(self, requests):
        """Yield the scores of requests: for each continuation its log-probability, and whether it is greedy."""
        for request in requests:
            scored = [self.continuation(request.context, ids) for ids in request.continuations]
            logprobs, greedy = zip(*scored, strict=True)
            yield harness.ChoiceScore(request.key, np.array(logprobs), np.array(greedy))

    def continuation(self, context, ids):
        """Return (nats, is greedy) of one continuation after a context, both token ids."""
        rows = [self.next_logprobs((*context, *ids[:i])) for i in range(len(ids))]
        greedy = all(row.argmax() == token for row, token in zip(rows, ids, strict=True))
        return sum(row[token] for row, token in zip(rows, ids, strict=True)), greedy

    def generate(self, requests):
        """Raise EngineError, because this engine does not generate text."""
        raise harness.EngineError("engine example scores only; choose another engine for tasks of kind: generate")

    def swap(self, checkpoint, folder):
        """Serve another checkpoint, whose files are in `folder`."""
        self.label = checkpoint.label

    def prefetch(self, checkpoint, folder):
        """Start reading the checkpoint of the next swap, or do nothing."""

    def describe(self):
        """Return the provenance that is stored with every cell: versions, device, options."""
        return {"engine": "example", "version": "0.1.0"}


def inspect(checkpoint, folder):
    """Return properties that need no weights. Further keyword arguments are options (-O NAME=VALUE)."""
    return harness.EngineInfo(dtype="float64", max_length=2048, load_tokenizer=Tokenizer, shape="example")


@contextmanager
def open_engine(checkpoint, folder):
    """Open the engine; release everything after `yield`."""
    yield Example(checkpoint, folder)


@harness.hookimpl
def register_engines(register):
    """Register the engine. `modules=("package",)` would name packages that it needs."""
    register("example", open_engine, inspect)
