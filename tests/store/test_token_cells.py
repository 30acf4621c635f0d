"""Log-probabilities of single tokens: what is stored, that it adds up to the records, and what is done about damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import harness
from harness import StoreError, UsageError
from harness.evaluation.evaluate import plan_tables
from harness.store.check import check_store

TASKS = ["nano_addition", "nano_saying", "nano_text"]


def run(host, store: Path, tasks=TASKS, **asked):
    asked = {"limit": 4, "engine": "fake", "keep_tokens": True, "registries": host} | asked
    summary = harness.evaluate(["aster:w32l2@1600"], tasks, store, **asked)
    summary.check()
    return harness.open_store(store, registries=host), summary


def test_tokens_of_a_choice_add_up_to_its_record_and_are_those_of_the_continuation(fake_host, tmp_path):
    store, _ = run(fake_host, tmp_path)
    tokens, scores = store.tokens(), store.scores(prompts=True)
    keys = ["task", "doc_id", "choice"]
    sums = tokens.groupby(keys)["logprob"].sum()
    assert len(sums) == len(scores)
    assert sums.to_numpy() == pytest.approx(scores.set_index(keys)["logprob"].loc[sums.index].to_numpy(), rel=1e-6)
    counts = tokens.groupby(keys)["position"].max() + 1
    assert (counts == scores.set_index(keys)["n_tokens"].loc[counts.index]).all()
    (first,) = scores[(scores["task"] == "nano_text")].head(1).to_dict("records")  # longer than one window of 256
    of_document = tokens[(tokens["task"] == "nano_text") & (tokens["doc_id"] == first["doc_id"])]
    assert bytes(of_document["token_id"].tolist()).decode() == first["continuation"]


def test_cells_without_tokens_are_computed_again_only_where_tokens_are_asked_for(fake_host, tmp_path):
    store, summary = run(fake_host, tmp_path, keep_tokens=False)
    with pytest.raises(StoreError, match="no log-probabilities of tokens of any task; harness eval --keep-tokens"):
        store.tokens()
    before = store.scores()
    assert run(fake_host, tmp_path)[1].written == summary.written == 3
    store, again = run(fake_host, tmp_path)
    assert (again.written, again.already_stored) == (0, 3)
    assert store.scores().equals(before)
    assert run(fake_host, tmp_path, keep_tokens=False)[1].already_stored == 3


def test_damaged_tokens_are_set_aside_and_computed_again_where_they_are_asked_for(fake_host, tmp_path):
    store, _ = run(fake_host, tmp_path)
    name = min(store.token_cells.names())
    file = tmp_path / "tokens" / f"{name}.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + b"x" * 9)
    assert [(finding.kind, finding.path) for finding in check_store(tmp_path)] == [
        ("damaged", f"tokens/{name}.parquet")
    ]
    assert run(fake_host, tmp_path, keep_tokens=False)[1].already_stored == 3
    assert not file.exists()
    assert run(fake_host, tmp_path)[1].written == 1
    assert file.read_bytes() == whole


def test_tokens_of_other_records_are_damaged(fake_host, tmp_path):
    store, _ = run(fake_host, tmp_path, ["nano_addition"])
    (name,) = store.cell_names()
    records = store.read(name)
    store.choice_cells.write(name, type(records)(**{**vars(records), "logprob": records.logprob - 0.01}))
    with pytest.raises(StoreError, match="log-probabilities do not add up to those of the records"):
        store.tokens()


def test_a_dry_run_says_how_much_tokens_take(fake_host, tmp_path):
    asked = {"limit": 4, "engine": "fake", "registries": fake_host}
    _, (plan,) = plan_tables(["aster:w32l2@1600"], TASKS, store=tmp_path, keep_tokens=True, **asked)
    store, _ = run(fake_host, tmp_path)
    count = len(store.tokens())
    assert f"Log-probabilities of {count:,} tokens will be kept: {count * 8 / 1e6:,.3g} MB" in " ".join(plan.notes)
    _, (plan,) = plan_tables(["aster:w32l2@1600"], TASKS, **asked)
    assert "will be kept" not in " ".join(plan.notes)


def test_an_engine_without_tokens_is_refused_before_anything_is_computed(host, tmp_path):
    with pytest.raises(UsageError, match="'vllm' returns no log-probabilities of single tokens; leave --keep-tokens"):
        run(host, tmp_path / "s", engine="vllm")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("share", [True, False])
def test_transformers_returns_tokens_whose_sums_are_its_scores(host, tmp_path, share):
    tasks = ["nano_addition", "nano_saying", "nano_text"]
    asked = {"engine": "transformers", "options": {"share": share}, "limit": 6}
    with_tokens, _ = run(host, tmp_path / "a", tasks, **asked)
    without, _ = run(host, tmp_path / "b", tasks, **asked, keep_tokens=False)
    assert with_tokens.scores().equals(without.scores())
    sums = with_tokens.tokens().groupby(["task", "doc_id", "choice"])["logprob"].sum()
    expected = without.scores().set_index(["task", "doc_id", "choice"])["logprob"].loc[sums.index]
    assert np.abs(sums - expected).max() < 1e-9
