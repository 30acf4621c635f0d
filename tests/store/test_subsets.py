"""Subsets of tasks: only selected documents are scored, under a separate name, and only for identical documents."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import harness
from harness import Subset, UsageError
from harness.host import PluginHost
from harness.store.subsets import load_subsets, save_subsets, take
from harness.tasks.finding import find_task


@pytest.fixture
def subset(host: PluginHost) -> Subset:
    task = find_task("nano_job", host, limit=6)
    picked = tuple(task.docs[i].doc_id for i in (4, 1, 3))
    return Subset("nano_job", task.fingerprint, 6, "random", "acc", 0, picked, (1 / 6, 1 / 5, 1 / 4), (1, 1, 1))


def test_a_subset_is_a_task_of_its_own(host: PluginHost, subset: Subset):
    """Documents keep the order of the task, so that two ways to the same set share a cell."""
    whole = find_task("nano_job", host, limit=6)
    part = take(whole, subset)
    assert [doc.doc_id for doc in part.docs] == [whole.docs[i].doc_id for i in (1, 3, 4)]
    assert part.name.startswith("nano_job#random-3-")
    assert part.fingerprint != whole.fingerprint
    turned = take(whole, replace(subset, doc_ids=subset.doc_ids[::-1], by="random"))
    assert (turned.name, turned.fingerprint) == (part.name, part.fingerprint)


def test_other_documents_are_refused(host: PluginHost, subset: Subset):
    with pytest.raises(UsageError, match="6 other documents .* here 7, .* use the --limit and --data"):
        take(find_task("nano_job", host, limit=7), subset)


def test_a_task_without_a_subset_is_not_scored_whole(tmp_path, host: PluginHost, subset: Subset):
    with pytest.raises(UsageError, match="there are subsets for nano_job, but not for nano_flag; pass the same tasks"):
        harness.evaluate(["aster:w32l2@last"], ["nano_flag"], tmp_path / "s", subset=[subset], registries=host)


def test_subsets_are_read_as_they_were_kept(tmp_path, subset: Subset):
    path = tmp_path / "subset.json"
    save_subsets([subset], path)
    assert load_subsets(path) == [subset]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": [0.5, 0.0, 0.5]}, r"3 documents \(3 different ones\) of 6, 3 probabilities"),
        ({"q": [0.5]}, "1 probabilities"),
        ({"doc_ids": ["a", "a", "b"]}, "2 different ones"),
        ({"colour": "red"}, "found the keys by, colour, doc_ids"),
    ],
)
def test_what_is_no_subset_is_refused(tmp_path, subset: Subset, change, message):
    path = tmp_path / "subset.json"
    save_subsets([subset], path)
    path.write_text(json.dumps([json.loads(path.read_text())[0] | change]))
    with pytest.raises(UsageError, match=message):
        load_subsets(path)


def test_a_file_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("remember")
    with pytest.raises(UsageError, match=r"notes.txt: .*; expected a file written by harness choose -o"):
        load_subsets(path)
    path.write_text("[]")
    with pytest.raises(UsageError, match="0 subsets; expected one or more"):
        load_subsets(path)
