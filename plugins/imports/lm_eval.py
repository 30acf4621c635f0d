"""Read files of lm-evaluation-harness: results as points, samples with log-probabilities as records.

    results_DATE.json           values of metrics of every task, with the model and its settings
    samples_TASK_DATE.jsonl     one line per document: prompts, and the log-probability of each continuation

Samples become records only if they reproduce every document's result that lm-eval recorded. lm-eval's files contain
neither numbers of tokens nor truncation; metrics that need tokens do not apply to these records.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Doc, Task, UsageError
from harness.errors import choose
from harness.files import read_lines

if TYPE_CHECKING:
    import pandas as pd

    from harness.points import Records, Settings

RESULTS = re.compile(r"results_(.+)\.json")
SAMPLES = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\d.+)\.jsonl")
SAMPLE = ("doc_id", "arguments", "filtered_resps", "target")  # what every line of samples has
COMPUTED = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "brier_score", "f1", "mcc", "perplexity"}  # from records
STEP = re.compile(r"step[-_]?(\d+)")


@dataclass(frozen=True)
class Results:
    """One results file: its content, and the content of its samples files by task."""

    path: Path
    content: Mapping[str, Any]
    samples: Mapping[str, tuple[Mapping[str, Any], ...]]

    @property
    def model(self) -> str:
        """Return the name of the model that was passed to lm-eval."""
        return str(self.content.get("model_name") or self.config.get("model_args") or self.path.parent.name)

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the configuration of the lm-eval run."""
        config: Mapping[str, Any] = self.content.get("config") or {}
        return config

    def delimiter(self, task: str) -> str:
        """Return the text that lm-eval puts before every choice of a task."""
        about = (self.content.get("configs") or {}).get(task) or {}
        return "" if self.content.get("chat_template") else str(about.get("target_delimiter", " "))

    def left_out(self, task: str) -> list[str]:
        """Return the metrics of a task that are not computed from the log-probabilities of its choices."""
        values = self.content["results"].get(task) or {}
        names = {key.partition(",")[0] for key in values if "," in key}
        return sorted(name for name in names - COMPUTED if not name.endswith("_stderr"))

    @property
    def rises(self) -> dict[str, bool]:
        """Return, for each metric for which lm-eval states it, whether higher is better."""
        said = (self.content.get("higher_is_better") or {}).values()
        return {
            name: bool(value) for directions in said for name, value in (directions or {}).items() if value is not None
        }


def is_results(content: Any) -> bool:
    """Tell whether a JSON value is a results file of lm-eval."""
    return isinstance(content, dict) and isinstance(content.get("results"), dict)


def read_results(paths: Sequence[Path]) -> list[Results]:
    """Read results files, each with the samples of its folder and date among the paths.

    Raises UsageError for a file of another program, and for samples without their results.
    """
    samples = {path: match for path in paths if (match := SAMPLES.fullmatch(path.name))}
    results, used = [], set[Path]()
    for path in paths:
        if path in samples:
            continue
        content = _json(path)
        if not is_results(content):
            raise UsageError(f"{path} is not a results file of lm-eval: expected an object with results")
        date = RESULTS.fullmatch(path.name)
        tasks = {p: m[1] for p, m in samples.items() if date and p.parent == path.parent and m[2] == date[1]}
        used |= set(tasks)
        results.append(Results(path, content, {task: tuple(_lines(p)) for p, task in tasks.items()}))
    alone = sorted(str(path) for path in set(samples) - used)
    if alone:
        raise UsageError(f"{alone[0]}: samples need the results_*.json of their run; pass both files")
    return results


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}; expected a results file of lm-eval") from error


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield samples, one per line; texts may contain U+2028 and U+0085, at which `splitlines` would cut them."""
    try:
        with path.open(encoding="utf-8") as stream:
            lines = list(read_lines(stream))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}; expected samples of lm-eval, in UTF-8") from error
    for number, line in enumerate(lines, 1):
        try:
            sample = json.loads(line)
        except ValueError as error:
            raise UsageError(
                f"{path}, line {number} of {len(lines)}: {error}; the file may be cut off: copy it again, or "
                "import its results_*.json alone"
            ) from error
        missing = [] if not isinstance(sample, dict) else [name for name in SAMPLE if name not in sample]
        if not isinstance(sample, dict) or missing:
            lack = f"no {choose(missing)}" if missing else f"a JSON {type(sample).__name__}"
            raise UsageError(f"{path}, line {number} of {len(lines)}: {lack}; expected samples of lm-eval")
        yield sample


def points_table(results: Results) -> pd.DataFrame:
    """Return the values of a results file: one row per task and metric, with the known attributes of the model."""
    import pandas as pd

    known = {"model": results.model, "params": results.config.get("model_num_parameters")}
    step = STEP.search(str(results.config.get("model_revision") or "")) or STEP.search(results.model)
    known |= {"step": int(step[1])} if step else {}
    counts = results.content.get("n-samples") or {}
    rows = []
    for task, values in results.content["results"].items():
        n = (counts.get(task) or {}).get("effective")
        for key, value in values.items():
            metric, _, variant = key.partition(",")
            if not variant or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            name = metric if variant == "none" else f"{metric}_{variant.replace('-', '_')}"
            stderr = values.get(f"{metric}_stderr,{variant}")
            error = float(stderr) if isinstance(stderr, (int, float)) else math.nan
            rows.append({**known, "task": task, "metric": name, "value": float(value), "stderr": error, "n": n})
    if not rows:
        raise UsageError(f"{results.path} has no values; expected results with metrics such as 'acc,none'")
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Scored:
    """A task as lm-eval scored it, and its records."""

    task: Task
    records: Records


def scored(results: Results, task: str) -> Scored:
    """Return a task and its records from samples; raise a UsageError with the reason if they have none."""
    from harness.points import Records

    rows = [row for row in results.samples[task] if row.get("filter", "none") == "none"]
    delimiter = results.delimiter(task)
    docs, logprobs, greedy, unconditional = [], [], [], []
    for row in sorted(rows, key=lambda row: int(row["doc_id"])):
        asked = [tuple(str(text) for text in arguments.values()) for arguments in row["arguments"].values()]
        said = [_pair(response) for response in row["filtered_resps"]]
        if not asked or len(asked) != len(said) or {len(pair) for pair in asked} != {2}:
            raise UsageError(f"document {row['doc_id']} has no log-probability of each continuation")
        count = _conditional(asked)
        docs.append(_doc(row, asked[:count], delimiter))
        logprobs += [logprob for logprob, _ in said[:count]]
        greedy += [is_greedy for _, is_greedy in said[:count]]
        unconditional += [logprob for logprob, _ in said[count:]]
        _verify(row, docs[-1], said[:count])
    kinds = {"cloze" if len(doc.choices) == 1 else "choice" for doc in docs}
    if len(kinds) != 1:
        raise UsageError("some documents have one continuation, others have several")
    (kind,) = kinds
    ids = tuple(doc.doc_id for doc in docs for _ in doc.choices)
    counts = [len(doc.choices) for doc in docs]
    records = Records(
        doc_ids=ids,
        choices=np.concatenate([np.arange(n) for n in counts]),
        logprob=np.array(logprobs),
        n_tokens=np.zeros(len(ids), dtype=np.int64),
        truncated=np.zeros(len(ids), dtype=np.bool_),
        logprob_unconditional=np.array(unconditional) if len(unconditional) == len(ids) else None,
        is_greedy=np.array(greedy, dtype=np.bool_),
        provenance=provenance(results),
    )
    metric = "acc" if kind == "choice" else "greedy_match"
    has_unconditional = records.logprob_unconditional is not None
    digest = harness.fingerprint(kind, has_unconditional, docs)
    about = f"as lm-eval {results.content.get('lm_eval_version', '')} scored it"
    return Scored(Task(task, kind, tuple(docs), digest, has_unconditional, metric, "micro", about), records)


def _pair(response: Any) -> tuple[float, bool]:
    """Return (log-probability, is greedy) of one response; raise UsageError for a text."""
    try:
        logprob, is_greedy = response
        return float(logprob), str(is_greedy) == "True"
    except (TypeError, ValueError) as error:
        raise UsageError(f"a response is {str(response)[:40]!r}: expected a log-probability") from error


def _conditional(asked: Sequence[tuple[str, ...]]) -> int:
    """Return the number of requests with a context; for acc_mutual_info, requests without context follow them."""
    half = len(asked) // 2
    alone = half and all(not context for context, _ in asked[half:])
    return half if alone and [c for _, c in asked[:half]] == [c for _, c in asked[half:]] else len(asked)


def _doc(row: Mapping[str, Any], asked: Sequence[tuple[str, ...]], delimiter: str) -> Doc:
    contexts, continuations = zip(*asked, strict=True)
    if len(set(continuations)) == 1 and len(asked) > 1:
        raise UsageError("the choices are in the contexts, and samples do not say which one is correct")
    delimiter = delimiter if len(asked) > 1 and all(text.startswith(delimiter) for text in continuations) else " "
    choices = tuple(text.removeprefix(delimiter) for text in continuations)
    gold = (0,) if len(asked) == 1 else _gold(row, choices)
    shared = contexts[:1] if len(set(contexts)) == 1 else contexts
    return Doc(str(row["doc_id"]), shared, continuations, choices, gold)


def _gold(row: Mapping[str, Any], choices: Sequence[str]) -> tuple[int, ...]:
    """Return the correct choices, which lm-eval gives by number or by text."""
    target = row["target"]
    try:
        target = ast.literal_eval(target) if isinstance(target, str) else target
    except (ValueError, SyntaxError):
        pass  # a text
    named = target if isinstance(target, (list, tuple)) else [target]
    indices = [t if isinstance(t, int) else _position(str(t), choices) for t in named]
    if not indices or not all(t is not None and 0 <= t < len(choices) for t in indices):
        raise UsageError(f"document {row['doc_id']}: the target {row['target']!r} is not one of its choices")
    return tuple(sorted({int(t) for t in indices if t is not None}))


def _position(text: str, choices: Sequence[str]) -> int | None:
    stripped = [choice.strip() for choice in choices]
    return stripped.index(text.strip()) if text.strip() in stripped else None


def _verify(row: Mapping[str, Any], doc: Doc, said: Sequence[tuple[float, bool]]) -> None:
    """Raise UsageError if a document's result does not follow from its log-probabilities."""
    if row.get("acc") is None:
        raise UsageError("samples have no acc, which is needed to verify the log-probabilities and the correct choice")
    logprob = np.array([value for value, _ in said])
    lengths = {
        "acc": [1] * len(said),
        "acc_norm": [len(choice) for choice in doc.choices],
        "acc_bytes": [len(choice.encode()) for choice in doc.choices],
    }
    for name, length in lengths.items():
        with np.errstate(divide="ignore"):  # an empty choice
            recomputed = said[0][1] if len(said) == 1 else int(np.argmax(logprob / length)) in doc.gold
        if row.get(name) is not None and float(row[name]) != float(recomputed):
            raise UsageError(
                f"document {row['doc_id']}: {name} is {row[name]}, but its log-probabilities give {float(recomputed):g}"
            )


def settings(results: Results) -> Settings:
    """Return the settings of records that lm-eval's files state."""
    from harness.points import SAMPLES_ENGINE, Settings

    content = results.content
    return Settings(
        engine=SAMPLES_ENGINE,
        dtype=str(results.config.get("model_dtype") or "unknown").removeprefix("torch."),
        quantisation="unknown",
        bos="unknown",
        max_length=int(content.get("max_length") or 0),
        truncation="lm_eval",
        chat_template=str(content.get("chat_template_sha") or ""),
        system_prompt=str(content.get("system_instruction_sha") or ""),
    )


def identity(results: Results) -> list[str]:
    """Return the identity of the weights: the model, its revision and its commit. Their content is unknown."""
    named = ("model_revision", "model_sha", "model_args")
    return [results.model, *(str(results.config.get(name) or "") for name in named)]


def provenance(results: Results) -> dict[str, Any]:
    """Return the provenance of the scores."""
    content = results.content
    known = {name: content.get(name) for name in ("lm_eval_version", "transformers_version", "git_hash", "date")}
    return {"engine": "lm_eval", "lm_eval": known.pop("lm_eval_version"), "imported_from": results.path.name, **known}
