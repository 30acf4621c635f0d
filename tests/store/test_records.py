"""The store: atomic files, damage found and named, names joined on reading."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import harness
from harness import Checkpoint, DamagedFile, Doc, StoreError, Task
from harness.checkpoints.digests import checkpoint_digest
from harness.files import digest_of
from harness.store.cells import Store
from harness.store.choice_cells import Records
from harness.store.files import pack_table, unpack_table
from harness.store.identity import CellId, Settings
from harness.store.points import PointStore

CHECKPOINT = Checkpoint("fam", "s", 10, 0, "/models/s", params=5, tokens=100.0, features={"width": 4.0})
SETTINGS = Settings("fake", "float64", "none", "auto", 256, "left")
DOCS = (
    Doc("a", ("Q",), (" x", " yy"), ("x", "yy"), (1,), "g1", {"digits": 2}),
    Doc("b", ("R",), (" é", " z", " w"), ("é", "z", "w"), (0, 2), "g2", {"digits": 3}),
)
TASK = Task("tiny", "choice", DOCS, "feed" * 4)
CELL = CellId("c0de" * 4, TASK.fingerprint, SETTINGS.digest)


def records(**columns) -> Records:
    plain = Records(
        doc_ids=("a", "a", "b", "b", "b"),
        choices=np.array([0, 1, 0, 1, 2]),
        logprob=np.array([-1.0, -2.0, -3.0, -4.0, -5.0]),
        n_tokens=np.array([1, 2, 1, 1, 1]),
        truncated=np.zeros(5, dtype=bool),
        provenance={"engine": "fake"},
    )
    return replace(plain, **columns)


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "store", create=True)
    store.put_task(TASK)
    store.put_checkpoint(CELL.checkpoint, CHECKPOINT)
    store.put_settings(SETTINGS)
    store.write(CELL, records())
    return store


def test_what_is_written_is_read(store: Store):
    greedy = np.array([True, False, True, False, True])
    other = replace(CELL, checkpoint="beef" * 4)
    store.write(other, records(is_greedy=greedy, logprob_unconditional=-np.arange(5.0)))
    read = store.read(other.name)
    assert read.doc_ids == records().doc_ids
    assert read.logprob.tolist() == records().logprob.tolist()
    assert read.is_greedy is not None
    assert read.is_greedy.tolist() == greedy.tolist()
    assert read.logprob_unconditional is not None
    assert read.logprob_unconditional.tolist() == [0, -1, -2, -3, -4]
    assert read.provenance == {"engine": "fake"}
    assert store.read(CELL.name).is_greedy is None


def test_scores_are_joined_with_their_documents(store: Store):
    scores = store.load(CELL)
    assert scores.first.tolist() == [0, 2]
    assert scores.is_gold.tolist() == [False, True, True, False, True]
    assert scores.n_chars.tolist() == [1, 2, 1, 1, 1]
    assert scores.n_bytes.tolist() == [1, 2, 2, 1, 1]
    assert scores.group.tolist() == ["g1", "g2"]
    assert store.docs(TASK.fingerprint).attributes == [{"digits": 2}, {"digits": 3}]


def test_a_cell_knows_its_names(store: Store):
    (cell,) = store.cells()
    assert (cell.checkpoint, cell.task, cell.settings) == (CHECKPOINT, "tiny", SETTINGS)


def test_a_renamed_family_leaves_no_old_name(store: Store):
    store.put_checkpoint(CELL.checkpoint, replace(CHECKPOINT, family="renamed"))
    assert [cell.checkpoint.family for cell in store.cells()] == ["renamed"]


def test_a_moved_folder_leaves_one_name(store: Store):
    store.put_checkpoint(CELL.checkpoint, replace(CHECKPOINT, source="/elsewhere/s"))
    assert [cell.checkpoint.source for cell in store.cells()] == ["/elsewhere/s"]


def test_equal_weights_under_two_names_are_both_there(store: Store):
    store.put_checkpoint(CELL.checkpoint, replace(CHECKPOINT, family="twin", source="/twin/s"))
    assert sorted(cell.checkpoint.family for cell in store.cells()) == ["fam", "twin"]


def test_a_renamed_task_and_a_new_attribute_are_taken_over(store: Store):
    docs = tuple(replace(doc, attributes={**doc.attributes, "new": 1}) for doc in DOCS)
    store.put_task(replace(TASK, name="renamed", docs=docs))
    fresh = Store(store.path)
    assert [cell.task for cell in fresh.cells()] == ["renamed"]
    assert fresh.docs(TASK.fingerprint).attributes[0] == {"digits": 2, "new": 1}


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "header"])
def test_a_damaged_file_is_named_and_set_aside(store: Store, damage: str):
    path = store.path / "records" / f"{CELL.name}.parquet"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 8] ^= 1  # inside a column
    path.write_bytes({"flip": content, "truncate": content[:-40], "empty": b"", "header": b"nonsense" * 50}[damage])
    with pytest.raises(DamagedFile, match=f"{CELL.name}.parquet is damaged"):
        store.read(CELL.name)
    assert store.cell_names() == set()
    assert (store.path / "damaged" / "records" / path.name).exists()


def test_every_flipped_byte_of_a_column_is_noticed(store: Store):
    """Parquet's page checksums: if any byte of the data changes, reading never returns wrong numbers."""
    path = store.path / "records" / f"{CELL.name}.parquet"
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    expected = store.read(CELL.name).logprob.tolist()
    for place in range(4, len(content) - footer, 7):
        changed = bytearray(content)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        try:
            assert store.read(CELL.name).logprob.tolist() == expected, place
        except DamagedFile:
            pass


def test_records_of_other_documents_are_damage(store: Store):
    store.write(CELL, records(doc_ids=("a", "a", "b", "b", "x")))
    with pytest.raises(DamagedFile, match="its documents are not those of its task"):
        store.load(CELL)


def test_a_half_written_file_is_not_a_cell(store: Store):
    (store.path / "records" / f".{'0' * 16}-{'1' * 16}-{'2' * 16}.tmp").write_bytes(b"half")
    assert store.cell_names() == {CELL.name}


def test_listing_opens_no_file(store: Store, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a file was opened")

    monkeypatch.setattr("pyarrow.parquet.ParquetFile", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    assert store.cell_names() == {CELL.name}


def test_opening_what_is_no_store_says_so(tmp_path, store: Store):
    with pytest.raises(StoreError, match="is not a store; harness eval"):
        harness.open_store(tmp_path)
    with pytest.raises(StoreError, match="neither empty nor a store"):
        Store(tmp_path, create=True)
    (store.path / "store.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(StoreError, match="has schema 99; this version reads 1 and 2"):
        Store(store.path)


def test_a_store_that_was_killed_or_is_made_by_another_process_is_finished(tmp_path):
    """The mark of a store is written to a file beside it first; a folder with only that in it is not a stranger's."""
    (tmp_path / "records").mkdir()
    (tmp_path / ".store.json.123.tmp").write_text('{"sch')
    assert Store(tmp_path, create=True).cell_names() == set()


def test_reading_a_cell_that_is_not_there_says_so(store: Store):
    with pytest.raises(StoreError, match="is missing; run harness eval again"):
        store.read("nothing")


def test_frames_of_scores_and_points(store: Store):
    opened = PointStore(store.path)
    frame = opened.scores(task="tiny", family="fam")
    assert frame["doc_id"].tolist() == ["a", "a", "b", "b", "b"]
    assert frame["digits"].tolist() == [2, 2, 3, 3, 3]
    assert frame["choice"].tolist() == [0, 1, 0, 1, 2]
    assert set(frame["size"]) == {"s"}
    assert set(frame["width"]) == {4.0}
    points = opened.points(metrics=["acc", "p_vocab"])
    assert points["metric"].tolist() == ["acc", "p_vocab"]
    assert points["value"].tolist() == [0.5, pytest.approx((np.exp(-2) + np.exp(-3) + np.exp(-5)) / 2)]
    assert points["n"].tolist() == [2, 2]
    documents = opened.points(metrics=["acc"], unit="document")
    assert documents["value"].tolist() == [0, 1]
    assert documents["group"].tolist() == ["g1", "g2"]
    assert len(opened.points(unit="choice")) == 5


def test_asking_for_records_that_are_not_there_lists_what_is(store: Store):
    with pytest.raises(StoreError, match="has no records of task .other.; there are: tiny"):
        PointStore(store.path).points(task="other")


def test_a_metric_that_does_not_apply_is_refused_for_a_named_task(store: Store):
    opened = PointStore(store.path)
    with pytest.raises(harness.MetricError, match="'perplexity' needs cloze"):
        opened.points(task="tiny", metrics=["perplexity"])
    with pytest.raises(harness.MetricError, match="the metrics perplexity apply to no task in"):
        opened.points(metrics=["perplexity"])


def test_the_digest_is_of_content_and_not_of_place(tmp_path):
    def folder(name: str, weights: bytes = b"w", **config) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "config.json").write_text(json.dumps(config))
        (path / "model.safetensors").write_bytes(weights)
        (path / "tokenizer.json").write_text("{}")
        return path

    first = folder("a", n_layer=1, transformers_version="5")
    assert checkpoint_digest(first) == checkpoint_digest(folder("b", n_layer=1, transformers_version="6"))
    others = [
        checkpoint_digest(first),
        checkpoint_digest(folder("c", n_layer=2)),
        checkpoint_digest(folder("d", b"v", n_layer=1)),
    ]
    (first / "tokenizer.json").write_text("{ }")
    assert len({*others, checkpoint_digest(first)}) == 4
    (first / "model.safetensors").write_bytes(b"other")
    assert checkpoint_digest(first) not in others


@pytest.mark.parametrize(("rows", "compression"), [(100, "SNAPPY"), (20_000, "ZSTD")])
def test_small_tables_are_not_written_with_zstd(rows, compression):
    """Its start took three quarters of the time of reading a cell of 100 documents."""
    content = pack_table("records/x", {"logprob": np.random.default_rng(0).normal(size=rows)}, {})
    assert pq.ParquetFile(BytesIO(content)).metadata.row_group(0).column(0).compression == compression
    assert len(unpack_table(content, "records/x").table) == rows


def test_names_that_are_stored_are_not_written_again(store):
    """A resumed sweep wrote and synced one file per checkpoint, though nothing had changed."""
    earlier, later = (
        replace(CHECKPOINT, source=source, tokens=tokens) for source, tokens in (("/one", 1.0), ("/two", 2.0))
    )
    store.put_checkpoint(CELL.checkpoint, earlier)
    store.put_checkpoint(CELL.checkpoint, later)
    files = {file: file.stat().st_ino for file in (store.path / "checkpoints").iterdir()}
    store.put_checkpoint(CELL.checkpoint, later)
    assert {file: file.stat().st_ino for file in files} == files


@pytest.mark.parametrize("times", [(1, 2), (2, 1)])
def test_a_copied_store_has_the_corrected_tokens_of_a_checkpoint_that_was_moved(store, times):
    """cp -r, git and object stores keep no times of files, by which the tokens of either place were shown."""
    earlier, later = (
        replace(CHECKPOINT, source=source, tokens=tokens) for source, tokens in (("/one", 1.0), ("/two", 2.0))
    )
    store.put_checkpoint(CELL.checkpoint, earlier)
    Store(store.path).put_checkpoint(CELL.checkpoint, later)
    names = [f"{CELL.checkpoint}-{digest_of(source)}.json" for source in ("/one", "/two")]
    for name, time in zip(names, times, strict=True):
        os.utime(store.path / "checkpoints" / name, (time, time))
    assert Store(store.path).checkpoints[CELL.checkpoint] == [later]


def test_a_resumed_suite_verifies_names_and_bytes_without_decoding_tables(store, monkeypatch):
    other = CellId("0dd0" * 4, TASK.fingerprint, SETTINGS.digest)
    for cell in (CELL, other):
        store.write(cell, records())
    monkeypatch.setattr("harness.store.files.pq.ParquetFile", None)
    store.check(CELL.name)
    monkeypatch.undo()
    first, second = (store.path / "records" / f"{cell.name}.parquet" for cell in (CELL, other))
    second.write_bytes(first.read_bytes())
    with pytest.raises(DamagedFile, match=f"it is records/{CELL.name} under another name"):
        store.check(other.name)
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    with pytest.raises(DamagedFile, match="its bytes have the digest"):
        store.check(CELL.name)


def test_weights_of_the_same_size_and_time_are_read_again(tmp_path):
    """`cp -p` and `rsync -t` keep size and mtime; a digest cache that looked at these alone would be stale."""
    (tmp_path / "config.json").write_text("{}")
    weights, other = tmp_path / "model.safetensors", tmp_path / "other"
    weights.write_bytes(b"one")
    before, stamp = checkpoint_digest(tmp_path), weights.stat()
    weights.write_bytes(b"two")
    os.utime(weights, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    in_place = checkpoint_digest(tmp_path)
    other.write_bytes(b"six")
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(weights)
    assert len({before, in_place, checkpoint_digest(tmp_path)}) == 3


def test_a_digest_is_remembered_while_the_file_is_the_same(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    first, read = checkpoint_digest(tmp_path), list[Path]()
    monkeypatch.setattr("harness.checkpoints.digests._sha256", lambda file: (read.append(file), "0")[1])
    assert checkpoint_digest(tmp_path) == first
    assert read == []
    assert checkpoint_digest(tmp_path, rehash=True) != first
    assert read == [weights]
    weights.touch()  # another mtime
    checkpoint_digest(tmp_path)
    assert read == [weights, weights]


def test_code_that_comes_with_a_checkpoint_is_part_of_its_digest(tmp_path):
    """Only where config.json names it; a training script beside the weights is not."""
    (tmp_path / "model.safetensors").write_bytes(b"one")
    (tmp_path / "config.json").write_text("{}")
    digests = [checkpoint_digest(tmp_path)]
    (tmp_path / "modeling.py").write_text("one")
    assert checkpoint_digest(tmp_path) == digests[0]
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Model"}}')
    digests.append(checkpoint_digest(tmp_path))
    (tmp_path / "modeling.py").write_text("two")
    assert len({*digests, checkpoint_digest(tmp_path)}) == 3


def test_a_folder_without_weights_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(harness.FamilyError, match="has no weights"):
        checkpoint_digest(tmp_path)


def test_every_attribute_of_a_task_comes_back_from_the_store(tmp_path):
    """All but its texts' settings and truncation, which are in the settings of its cells."""
    shown = {"unconditional": True, "metric": "p_choices", "average": "micro", "about": "why", "groups": "clusters"}
    task = replace(TASK, **shown, source={"prefix": "lm_eval", "name": "x"}, origin={"dataset": "org/x"})
    assert set(vars(task)) == {
        "name",
        "kind",
        "docs",
        "fingerprint",
        *shown,
        "source",
        "origin",
        "generation",
        "truncation",
    }
    store = Store(tmp_path / "store", create=True)
    store.put_task(task)
    assert store.task(task.fingerprint) == task
