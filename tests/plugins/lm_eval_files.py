"""Results and samples that the installed lm-eval writes, for a shipped checkpoint and two small tasks."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from harness.checkpoints.families import locate, select
from harness.host import default_host

TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/sums.jsonl}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{q}}}}"
{rest}
"""
CHOICE = """doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
metric_list: [{metric: acc}, {metric: acc_norm}]"""
CLOZE = """doc_to_target: "{{' ' + choices[0]}}"
metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}, {metric: acc}]"""


def write_results(folder: Path) -> Path:
    """Evaluate with lm-eval and return the folder of its files."""
    tasks = folder / "tasks"
    tasks.mkdir()
    rows = [{"q": f"{i} + {i + 1} =", "choices": [str(2 * i + k) for k in (1, 2, 3)], "gold": 0} for i in range(12)]
    (tasks / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind, rest in (("sums", "multiple_choice", CHOICE), ("cloze", "loglikelihood", CLOZE)):
        (tasks / f"{name}.yaml").write_text(TASK.format(name=name, kind=kind, folder=tasks, rest=rest))
    _, weights = locate(select("aster:w32l2@100", default_host())[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lm_eval
        from lm_eval.loggers import EvaluationTracker
        from lm_eval.tasks import TaskManager

        tracker = EvaluationTracker(output_path=str(folder / "out"))
        results = lm_eval.simple_evaluate(
            model="hf", model_args=f"pretrained={weights},dtype=float32,max_length=256", tasks=["sums", "cloze"],
            task_manager=TaskManager(include_path=str(tasks), include_defaults=False), log_samples=True, batch_size=4,
            device="cpu", evaluation_tracker=tracker, bootstrap_iters=0,
        )  # fmt: skip
        samples = results.pop("samples")
        tracker.save_results_aggregated(results, samples)
        for name, task_samples in samples.items():
            tracker.save_results_samples(name, task_samples)
    return folder / "out"
