"""lm-eval's tasks in both programs, side by side: the same JSON, and the seconds of each.

    python -m tests.benchmarks.lm_eval_parity > results/parity/lm_eval.md

Both load the model and the task, evaluate, aggregate and write lm-eval's JSON, in one process, after a task to warm up.
lm-eval runs with the fastest of the batch sizes of BATCH_SIZES. Standard errors that lm-eval bootstraps are made of 200
resamples in both. The second table compares a task of lm-eval with the native task of the same documents.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import harness
from harness.checkpoints.families import locate, select
from harness.host import PluginHost, default_host
from harness.tables import Table
from tests import lm_eval_cases as cases
from tests.benchmarks.throughput import processor, versions
from tests.conftest import published

MODEL = "aster:w128l4@1600"
BATCH_SIZES = (1, 16)
CASES: tuple[Callable[[], cases.Case], ...] = (
    lambda: cases.arc_easy(400),
    lambda: cases.mmlu(4),
    lambda: cases.lambada(400),
    lambda: cases.gsm8k(24),
    lambda: cases.bbh(60),
    lambda: cases.hellaswag(200),
    lambda: cases.boolq(200),
    lambda: cases.winogrande(200),
    lambda: cases.wikitext(8),
    lambda: cases.mixed(200),
)
COLUMNS = (
    "task", "output type", "documents", "answers", "largest difference, nats", "relative", "metrics equal",
    "lm-eval, s", "harness, s", "ratio",
)  # fmt: skip


def model_of(case: cases.Case, batch_size: int) -> Callable[[], Any]:
    """Return what loads lm-eval's model of the checkpoint."""

    def load() -> Any:
        from lm_eval.models.huggingface import HFLM

        _, weights = locate(select(MODEL, default_host())[0])
        settings = {"dtype": "float32", "max_length": cases.MAX_LENGTH, "batch_size": batch_size, "device": "cpu"}
        return HFLM(pretrained=str(weights), add_bos_token=case.add_bos, **settings)

    return load


def measure(case: cases.Case, host: PluginHost) -> tuple[object, ...]:
    """Return a row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case.write(folder)
        seconds = {}
        for size in BATCH_SIZES:
            seconds[cases.theirs(case, folder, model_of(case, size), folder / f"theirs-{size}")] = size
        fastest = min(seconds)
        own_seconds = cases.ours(case, folder, MODEL, folder / "ours", host=host)
        result = cases.compare(folder / f"theirs-{seconds[fastest]}", folder / "ours")
    for difference in result.differences[:20]:
        print(f"{case.name}: {difference}", file=sys.stderr)
    equal = "yes" if not result.differences else f"no: {len(result.differences)} differences"
    return (
        case.name, case.output_type, result.documents, result.choices, result.largest, result.relative, equal,
        round(fastest, 1), round(own_seconds, 1), round(fastest / own_seconds, 2),
    )  # fmt: skip


def beside_native(host: PluginHost, n: int = 1000, repeats: int = 3) -> tuple[object, ...]:
    """Return the seconds of arc_easy as a native task and as lm-eval's, of the same documents."""
    case, times = cases.arc_easy(n), {"arc_easy": list[float](), "lm_eval:arc_easy": list[float]()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case.write(folder)
        for i in range(repeats + 1):
            for task, seconds in times.items():
                begin = time.perf_counter()
                settings = {"limit": n, "options": {"max_length": cases.MAX_LENGTH}, "data": published("tasks")}
                prompting = {"include_path": [str(folder)]} if ":" in task else {}
                store = folder / f"{task.replace(':', '-')}-{i}"
                harness.evaluate([MODEL], [task], store, registries=host, prompting=prompting, **settings).check()
                seconds.append(time.perf_counter() - begin)
    native, theirs = (median(seconds[1:]) for seconds in times.values())
    return "arc_easy", n, round(native, 2), round(theirs, 2), round(100 * (theirs / native - 1), 1)


def main(names: Sequence[str]) -> None:
    """Measure all cases, or those of some names, and print the tables."""
    host = default_host()
    measure(cases.boolq(2), host)  # imports
    chosen = [case for make in CASES if (case := make()).name in names or not names]
    rows = tuple(measure(case, host) for case in chosen)
    notes = (
        f"{MODEL}, float32; {processor()}; {versions()}.",
        "Compared: every answer, filtered answer, metric, standard error, hash and setting that lm-eval writes.",
        "Tolerance: 1e-4 nats or 3e-7 relative, whichever is larger.",
        "Documents of hellaswag, boolq, winogrande and wikitext are made up in the schema of the data set.",
        "mixed is a group of boolq and lambada_openai, with an aggregate of accuracies and one of perplexities.",
    )
    columns = ("task", "documents", "native, s", "lm_eval:, s", "slower, %")
    tables = [
        Table("parity", "lm-eval and the harness", COLUMNS, rows, notes),
        Table("native", "A task of lm-eval and the native one", columns, (beside_native(host),), ()),
    ]
    print(host.reporters["md"](tables))


if __name__ == "__main__":
    main(sys.argv[1:])
