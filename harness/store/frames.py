"""Rows and frames of cells: attributes of checkpoints, and choices, samples, documents and points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.metrics.aggregation import Estimate, estimate
from harness.metrics.intervals import Z
from harness.metrics.per_document import Values
from harness.metrics.samples import Samples, Scored
from harness.store.cells import Cell, Store
from harness.store.documents import Docs
from harness.types import Ints, Metric, Scalar, SourceMetric
from harness.types.columns import renamed


def checkpoint_columns(cell: Cell) -> dict[str, Scalar]:
    """Return the attributes of a cell's checkpoint and settings, one column each."""
    known = dict(vars(cell.checkpoint))  # asdict copies deeply, which takes longer than a metric
    features, _, _ = known.pop("features"), known.pop("source"), known.pop("bos")
    adapter = known.pop("adapter")
    how = {"sampling": " ".join(f"{name}={value}" for name, value in cell.settings.sampling.items())}
    return {
        **known,
        **renamed(features, "feature_"),  # refused since 0.2, but a store of 0.1 may have one
        **(how if cell.settings.sampling else {}),
        **({"adapter": adapter} if adapter else {}),
        "task": cell.task,
        "engine": cell.settings.engine,
        "dtype": cell.settings.dtype,
        "settings": cell.id.settings,
        "fingerprint": cell.id.fingerprint,
        "checkpoint": cell.id.checkpoint,
    }


def choice_frame(store: Store, cell: Cell, *, prompts: bool) -> pd.DataFrame:
    """Return one row per choice, with its checkpoint, document and attributes."""
    scores, docs = store.load(cell.id), store.docs(cell.id.fingerprint)
    optional = {"logprob_unconditional": scores.logprob_unconditional, "is_greedy": scores.is_greedy}
    frame = pd.DataFrame(
        {
            "doc_id": scores.doc_ids[scores.doc],
            "group": scores.group[scores.doc],
            "choice": np.arange(len(scores.doc)) - scores.first[scores.doc],
            "is_gold": scores.is_gold,
            "logprob": scores.logprob,
            "n_tokens": scores.n_tokens,
            "n_chars": scores.n_chars,
            "n_bytes": scores.n_bytes,
            "truncated": scores.truncated,
            **{name: column for name, column in optional.items() if column is not None},
            **(docs.prompts if prompts else {}),
        }
    )
    attributes = _attributes(docs, scores.doc).rename(columns=lambda name: f"doc_{name}" if name in frame else name)
    return _labelled(pd.concat([frame, attributes], axis=1), cell)


def token_frame(store: Store, cell: Cell) -> pd.DataFrame:
    """Return one row per token of every choice, with its checkpoint and document."""
    records, tokens = store.read(cell.id.name), store.read_tokens(cell.id.name)
    row = np.repeat(np.arange(len(tokens.counts)), tokens.counts)
    columns = {
        "doc_id": np.array(records.doc_ids)[row],
        "choice": records.choices[row],
        "position": np.arange(len(row)) - (np.cumsum(tokens.counts) - tokens.counts)[row],
        "token_id": tokens.ids,
        "logprob": tokens.logprobs,
    }
    return _labelled(pd.DataFrame(columns), cell)


def sample_frame(store: Store, cell: Cell) -> pd.DataFrame:
    """Return one row per generated text, with its checkpoint, document and attributes."""
    docs = store.docs(cell.id.fingerprint)
    frame = pd.DataFrame(store.read_samples(cell.id.name))
    frame.insert(0, "doc_id", docs.doc_ids[frame["doc"]])
    frame = frame.sort_values(["doc", "sample"], kind="stable", ignore_index=True)
    frame = frame.rename(columns={"seed": "sample_seed"})
    return _labelled(pd.concat([frame.drop(columns="doc"), _attributes(docs, frame["doc"].to_numpy())], axis=1), cell)


@dataclass(frozen=True)
class Valued:
    """A metric of the scores of a cell, with its values per document."""

    metric: Metric
    scores: Scored
    values: Values


def document_frame(store: Store, cell: Cell, measured: Valued) -> pd.DataFrame:
    """Return one row per document; the value of a ratio is that of the single document."""
    metric, scores, columns = measured.metric, measured.scores, measured.values.columns
    value = columns[0] / columns[1] if metric.aggregate in {"ratio", "exp_ratio"} else columns[0]
    frame = pd.DataFrame({"metric": metric.name, "doc_id": scores.doc_ids, "group": scores.group, "value": value})
    docs = store.docs(cell.id.fingerprint)
    return _labelled(pd.concat([frame, _attributes(docs, np.arange(len(scores)))], axis=1), cell)


def point_of(store: Store, cell: Cell, measured: Valued) -> dict[str, Scalar]:
    """Return the point of a metric of one cell."""
    metric, scores, fingerprint = measured.metric, measured.scores, cell.id.fingerprint
    average = store.task_meta[fingerprint]["average"]
    value = estimate(metric, measured.values, store.groups(fingerprint), average)
    return row_of(checkpoint_columns(cell), metric, value, truncated=scores.n_truncated, scores=scores)


def row_of(
    known: Mapping[str, Scalar], metric: Metric, value: Estimate, *, truncated: int, scores: Scored
) -> dict[str, Scalar]:
    """Return a row of points as a dict, because one frame per row is slow.

    `known` are the columns of the checkpoint. `scores` are those of the cell, or of another cell of choices of its
    task, which has the same chance level.
    """
    row = {
        "metric": metric.name,
        **vars(value),
        "truncated": truncated,
        "chance": scores.chance if scores.offers & {"choices", "samples", "references"} else np.nan,
    }
    if isinstance(scores, Samples) and "samples" in metric.needs:
        row |= _counts(scores, row["value"], row["stderr"])
        if metric.name == "pass_rate" and not row["passed"]:
            row["high"] = scores.most
    return {**known} | {f"doc_{name}" if name in known else name: scalar for name, scalar in row.items()}


def source_point(cell: Cell, metric: SourceMetric, scores: Scored) -> dict[str, Scalar]:
    """Return a row of points for a metric of the task's source."""
    known: dict[str, Scalar] = {"metric": metric.name, "value": metric.value, "stderr": metric.stderr, "n": metric.n}
    wide = Z * metric.stderr
    bounds = {"low": metric.value - wide, "high": metric.value + wide, "truncated": scores.n_truncated}
    return checkpoint_columns(cell) | known | bounds | _as_accuracy(metric, scores)


def source_frame(store: Store, cell: Cell, metric: SourceMetric, scores: Scored) -> pd.DataFrame:
    """Return one row per document for a metric of the task's source that has a value for each."""
    columns = {"metric": metric.name, "doc_id": scores.doc_ids, "group": scores.group, "value": metric.values}
    docs = store.docs(cell.id.fingerprint)
    return _labelled(pd.concat([pd.DataFrame(columns), _attributes(docs, np.arange(len(scores)))], axis=1), cell)


def _as_accuracy(metric: SourceMetric, scores: Scored) -> dict[str, Scalar]:
    """Return chance, and what says that a metric of the source of a task is an accuracy: ties, or trials of texts."""
    chance = scores.chance if scores.offers & {"choices", "samples"} else np.nan
    if metric.values is None or not np.isin(metric.values, (0.0, 1.0)).all():
        return {"ties": None, "chance": chance}
    if isinstance(scores, Samples):
        return {"ties": None, "chance": scores.chance, **_trials(metric.n, metric.value, metric.stderr)}
    is_acc = metric.name.endswith(":acc") and "choices" in scores.offers
    return {"ties": int(scores.picks_gold(scores.logprob).tied.sum()) if is_acc else None, "chance": chance}


def frame_of(rows: Sequence[dict[str, Scalar]]) -> pd.DataFrame:
    """Return rows as a frame; missing entries are NaN, and None is kept."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame({name: _column([row.get(name, np.nan) for row in rows]) for name in names})


def _column(values: list[Scalar]) -> pd.Series:
    return pd.Series(values, dtype="object") if any(value is None for value in values) else pd.Series(values)


def _counts(samples: Samples, rate: float, stderr: float) -> dict[str, int]:
    """Return the numbers of drawn and passed samples, and the effective number of trials with their successes.

    Pass rates differ between documents, and sampling until some pass draws most samples of documents with low rates.
    The effective number of trials is that of trials at one rate with the same standard error. It is the number of
    samples if none or all passed.
    """
    drawn, passed = int(samples.drawn.sum()), int(samples.passed.sum())
    return {"drawn": drawn, "passed": passed, **_trials(drawn, rate, stderr)}


def _trials(drawn: int, rate: float, stderr: float) -> dict[str, int]:
    trials = max(round(rate * (1 - rate) / stderr**2), 1) if 0 < rate < 1 and stderr > 0 else drawn
    return {"successes": round(rate * trials), "trials": trials}


def _attributes(docs: Docs, which: Ints) -> pd.DataFrame:
    """Return the attributes of some documents, one row each; reserved names become doc_NAME."""
    rows = [renamed(attributes, "doc_") for attributes in docs.attributes]
    frame: pd.DataFrame = pd.DataFrame(rows).iloc[which].reset_index(drop=True)
    return frame


def _labelled(frame: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Add the columns of the checkpoint before those of the frame."""
    known = checkpoint_columns(cell)
    left = pd.DataFrame({name: [value] * len(frame) for name, value in known.items()})
    clashes = set(left) & set(frame)
    return pd.concat([left, frame.rename(columns={name: f"doc_{name}" for name in clashes})], axis=1)
