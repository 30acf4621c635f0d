"""harness browse: documents across checkpoints, and texts that attack the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from harness import StoreError, UsageError
from harness.cli import main
from harness.reports.documents import document_rows, read_documents
from harness.reports.report import write_report
from harness.store.choice_cells import Records
from harness.store.identity import CellId, Settings
from harness.store.points import PointStore
from harness.types import Checkpoint, Doc, Task

EVIL = "<script>document.title='run'</script>\x1b[2J\x1b]0;owned\x07\x9b31m\u202egpj[red]bold[/red]"
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # line feeds separate lines


@pytest.fixture
def evil_store(tmp_path: Path) -> PointStore:
    """A store of two families whose documents, answers and names hold markup and terminal escapes."""
    store = PointStore(tmp_path / "store", create=True)
    docs = tuple(
        Doc(f"d{i}{EVIL}", (f"{EVIL} {i}",), (EVIL, " b"), (EVIL, "b"), (0,), attributes={"answer": "x"})
        for i in range(6)
    )
    task, settings = Task("evil", "choice", docs, "e" * 16), Settings("none", "float32", "", "never", 8, "left")
    store.put_task(task)
    store.put_settings(settings)
    rng = np.random.default_rng(0)
    for number in range(6):
        family, size = f"f{number % 2}{EVIL}", f"s{number // 2}"
        flops, digest = 1e18 * 10 ** (number // 2), f"{number:016x}"
        checkpoint = Checkpoint(family, size, 1, 0, digest, params=10**6 * (number // 2 + 1), tokens=1e9, flops=flops)
        store.put_checkpoint(digest, checkpoint)
        ones = np.ones(12, dtype=np.int64)
        ids, choices = tuple(np.repeat([d.doc_id for d in docs], 2)), np.tile([0, 1], 6)
        store.write(
            CellId(digest, task.fingerprint, settings.digest),
            Records(ids, choices, -rng.exponential(2, 12), ones, ones == 0),
        )
    return store


def browsed(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["browse", *arguments], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_document_with_markup_and_terminal_escapes_is_shown_not_run(evil_store: PointStore):
    listed = browsed(str(evil_store.path))
    shown = browsed(str(evil_store.path), "--doc", f"d0{EVIL}", "--all-steps")
    for text in (listed, shown):
        assert not ACTS.search(text)
    assert "<script>" in shown
    assert "\\x1b[2J\\x1b]0;owned\\x07\\x9b31m\\u202egpj[red]bold[/red]" in shown.replace("\n", "")


@pytest.mark.soak
def test_the_report_shows_the_same_documents_and_runs_none_of_their_text(evil_store: PointStore, tmp_path: Path):
    page = write_report(evil_store, tmp_path / "r.html").read_text(encoding="utf-8")
    body = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "<script>document" not in page
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", body)
    assert "\\\\u202egpj" in page  # in the data of the figure, escaped
    assert "documents" in re.findall(r'id="panel-(\w+)"', page)


def test_scores_come_with_their_prompts_where_they_are_asked_for(evil_store: PointStore, nano_store: PointStore):
    frame = evil_store.scores(prompts=True)
    assert frame["context"].iloc[0] == f"{EVIL} 0"
    assert frame[["continuation", "answer"]].iloc[1].tolist() == [" b", "b"]
    assert frame["doc_answer"].tolist() == ["x"] * len(frame)  # an attribute of that name
    plain, asked = (nano_store.scores("nano_birthplace", "aster", prompts=p) for p in (False, True))
    assert asked.drop(columns=["context", "continuation", "answer"]).equals(plain)


def test_margins_and_picks_are_those_of_the_metric(nano_store: PointStore):
    (documents,) = read_documents(nano_store, task="nano_birthplace")
    acc = nano_store.points("nano_birthplace", metrics=["acc"])
    keys = ["family", "size", "step"]
    expected = documents.checkpoints.merge(acc, on=keys)["value"]
    assert documents.right.mean(axis=1) == pytest.approx(expected.to_numpy())
    assert ((documents.margins > 0) == documents.right).all()
    assert (
        documents.right
        == np.array([[documents.choices(n)["is_gold"].iloc[p] for n, p in enumerate(row)] for row in documents.picks])
    ).all()


def test_documents_are_sorted_by_what_is_asked(nano_store: PointStore):
    (documents,) = read_documents(nano_store, task="nano_birthplace")
    first = documents.order("disagreement")[0]
    assert 0 < documents.right[documents.finals][:, first].mean() < 1
    assert documents.margins[documents.finals].mean(axis=0).argmin() == documents.order("hardest")[0]
    still = documents.right.all(axis=0) | ~documents.right.any(axis=0)
    assert (documents.measure("flips")[still] == 0).all()
    assert documents.measure("flips").max() > 0
    with pytest.raises(UsageError, match="'longest'; expected one of disagreement, flips, hardest"):
        documents.order("longest")


def test_rows_for_the_report_have_a_row_per_document_and_last_checkpoint(nano_store: PointStore):
    documents = read_documents(nano_store)
    rows = document_rows(documents, sort="hardest", count=2)
    assert len(rows) == 2 * 5 * len(documents)
    assert set(rows["label"]) == {f"aster:w{w}@1600" for w in ("32l2", "64l2")} | {
        f"birch:w{w}@1600" for w in ("32l2", "64l2", "96l3")
    }


def test_what_is_not_there_is_said(nano_store: PointStore):
    with pytest.raises(StoreError, match="nano_text: tasks without choices"):
        read_documents(nano_store, task="nano_text")
    with pytest.raises(UsageError, match="'step < 0' selects 0 of"):
        read_documents(nano_store, where="step < 0")
    for arguments, said in (
        (["--doc", "0"], "choose one with --task"),
        (["--task", "nano_birthplace", "--doc", "x"], "has no document 'x'"),
    ):
        result = CliRunner().invoke(main, ["browse", str(nano_store.path), *arguments])
        assert result.exit_code == 2
        assert said in result.stderr


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_no_line_is_wider_than_the_terminal(nano_store: PointStore, width: str):
    arguments = ["browse", str(nano_store.path), "--sort", "flips", "--n", "3"]
    for extra in ([], ["--task", "nano_birthplace", "--doc", "7", "--all-steps"]):
        result = CliRunner().invoke(main, [*arguments, *extra], env={"COLUMNS": width})
        assert result.exit_code == 0, result.output
        assert max(map(len, result.stdout.splitlines())) <= int(width)
