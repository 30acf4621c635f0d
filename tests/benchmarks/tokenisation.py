"""Tokenisation of real tasks: every text whole, against parts that are encoded once.

    python -m tests.benchmarks.tokenisation > results/benchmarks/tokenisation.md

Documents of four benchmarks (the folder of published data) with tokenizers of the kinds that language models use,
trained on some of these texts, and the tokenizer of the nano families. Both ways run in turn, each with a tokenizer
that was just loaded, in one thread, after a garbage collection; the median ratio of CPU seconds of REPEATS pairs is
shown. All ids are compared. The CPU seconds of the `tokenizers` library alone are shown too. The rest of the time is
bookkeeping, which whole texts need in part, too.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from unittest import mock

from harness import Task
from harness.evaluation.bos_and_truncation import Encoder
from harness.evaluation.tokens import encode_task
from harness.host import default_host
from harness.tables import Table
from harness.tasks.finding import find_task
from harness_plugins.engines.tokenizers import HFTokenizer
from tests.benchmarks.throughput import processor
from tests.conftest import REPOSITORY, published
from tests.plugins import small_tokenizers

os.environ["TOKENIZERS_PARALLELISM"] = "false"
REPEATS, DOCUMENTS, VOCABULARY = 5, 2000, 16_000
TASKS = ("mmlu", "mmlu_0shot", "arc_easy", "piqa")
KINDS = ("gpt2", "llama 3", "llama 2")


class Timed(HFTokenizer):
    """A tokenizer that counts the CPU seconds of the library."""

    library = 0.0

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode whole texts."""
        return self._timed(super().encode_batch, list(texts))

    def _encode_alone(self, texts: list[str]) -> list[list[int]]:
        return self._timed(super()._encode_alone, texts)

    def _timed(self, encode: Callable[[list[str]], list[list[int]]], texts: list[str]) -> list[list[int]]:
        begun = time.process_time()
        encoded = encode(texts)
        self.library += time.process_time() - begun
        return encoded


class Whole:
    """A tokenizer that encodes every text whole."""

    def __init__(self, inner: HFTokenizer) -> None:
        self.inner, self.bos_id, self.eos_id, self.prefix_ids = inner, inner.bos_id, inner.eos_id, inner.prefix_ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts."""
        return self.inner.encode_batch(texts)


def tasks() -> dict[str, Task]:
    """Return the first documents of every task; of MMLU, whole subjects."""
    by_name = {}
    for name in TASKS:
        task = find_task(name, default_host(), published("tasks", name.removesuffix("_0shot")))
        by_name[name] = replace(task, docs=task.docs[:DOCUMENTS])
    return by_name


def tokenizers(folder: Path, texts: Sequence[str]) -> dict[str, Path]:
    """Return the folders of tokenizers."""
    nano = next((REPOSITORY / "plugins" / "nano" / "weights").rglob("tokenizer.json")).parent
    with mock.patch.object(small_tokenizers, "TOKENS", VOCABULARY):
        made = {kind: small_tokenizers.save(small_tokenizers.PROVEN[kind](texts), folder / kind) for kind in KINDS}
    return {"nano": nano, **made}


@dataclass(frozen=True)
class Compared:
    """Medians of one task and tokenizer: CPU milliseconds per document, whole and in parts."""

    tokens: int
    whole: float
    whole_library: float
    parts: float
    library: float
    ratio: float


def compare(task: Task, tokenizer: Path) -> Compared:
    """Return tokens read and medians; raise where ids differ."""
    pairs = []
    for _ in range(REPEATS):
        pair, encoded = [], []
        for kind in (Whole, lambda inner: inner):
            inner = Timed(str(tokenizer))
            inner.library = 0.0
            encoder = Encoder(kind(inner), 10**9)
            gc.collect()  # objects of earlier runs are not visited while this one is timed
            begun = time.process_time()
            encoded.append(encode_task(task, encoder))
            pair += [time.process_time() - begun, inner.library]
        pairs.append((*pair, pair[0] / pair[2]))
        if encoded[0].requests != encoded[1].requests:
            raise SystemExit(f"{task.name}: ids differ")
    *seconds, ratio = map(median, zip(*pairs, strict=True))
    return Compared(encoded[0].total_tokens, *(1000 * each / len(task.docs) for each in seconds), ratio)


def main() -> None:
    """Print the table."""
    tried = tasks()
    docs = [*tried["arc_easy"].docs, *tried["mmlu_0shot"].docs]
    texts = [text for doc in docs for text in (*doc.contexts, *doc.choices)]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for kind, folder in tokenizers(Path(temporary), texts).items():
            for name, task in tried.items():
                one = compare(task, folder)
                times = (one.whole, one.whole_library, one.parts, one.library)
                texts_of = (f"{each:.2f}" for each in times)
                rows.append((kind, name, len(task.docs), one.tokens, *texts_of, f"{one.ratio:.1f}"))
                print(*rows[-1], file=sys.stderr)
    columns = (
        "tokenizer",
        "task",
        "documents",
        "tokens, contexts once a choice",
        "CPU ms per document, whole",
        "in the library, whole",
        "CPU ms per document, parts",
        "in the library, parts",
        "times faster",
    )
    notes = (
        f"{processor()}; Python {platform.python_version()}, tokenizers {version('tokenizers')}.",
        f"`python -m tests.benchmarks.tokenisation`; medians of {REPEATS}; all ids are those of whole texts.",
        "Contexts with two choices gain less than those with four; what requests cost is the same both ways.",
    )
    table = Table("tokenisation", "Tokenisation in parts, against whole texts", columns, tuple(rows), notes)
    print(default_host().reporters["md"]([table]))


if __name__ == "__main__":
    main()
