"""Cells that are measured together have the values that they have alone."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from harness.metrics.per_document import applied
from harness.metrics.stacks import Stack
from harness.testing import example_scores
from harness.types import Metric, PerDoc


@pytest.fixture
def stack():
    """Return three cells of one task."""
    cells = [example_scores(7) for _ in range(3)]
    rng = np.random.default_rng(1)
    joined = {}
    for name in {field.name for field in fields(cells[0])} - {"kind", "clustered", "first", "n_words"}:
        joined[name] = np.concatenate([getattr(cell, name) for cell in cells])
    joined["logprob"] = -rng.exponential(3.0, size=len(joined["logprob"]))
    first = np.concatenate([cells[0].first + i * len(cells[0].logprob) for i in range(3)])
    return Stack(type(cells[0])(kind="choice", first=first, **joined), 3)


def relative(scores):
    """Return a value that depends on the other documents, which a metric must not do."""
    return scores.gold(scores.logprob) - scores.logprob.mean()


def by_name(scores):
    """Return values that are looked up by the document's id, as if it were unique."""
    values = dict(zip(scores.doc_ids, scores.gold(scores.logprob), strict=True))
    return np.array([values[name] for name in scores.doc_ids])


def first_of_few(scores):
    """Refuse more documents than a cell has."""
    if len(scores) > 7:
        raise ValueError(f"{len(scores)} documents")
    return PerDoc(scores.gold(scores.logprob), scores.gold(scores.logprob) < -2)


@pytest.mark.parametrize("function", [relative, by_name, first_of_few])
def test_a_metric_that_needs_its_own_cell_gets_each_cell_alone(stack, function):
    """A metric that looks at other documents must not see those of other checkpoints."""
    metric = Metric("own", function)
    columns, ties = stack.per_document(metric)
    alone = [applied(metric, stack.scores.part(number, 3)) for number in range(3)]
    assert np.array_equal(columns[0], [cell.columns[0] for cell in alone])
    assert ties == [cell.ties for cell in alone]


def test_a_metric_is_called_once_for_all_cells_and_once_for_two_of_them(stack):
    sizes = []

    def counted(scores):
        sizes.append(len(scores))
        return scores.gold(scores.logprob)

    columns, _ = stack.per_document(Metric("counted", counted))
    assert sizes == [21, 7, 7]
    assert np.array_equal(columns[0][1], applied(Metric("counted", counted), stack.scores.part(1, 3)).columns[0])
