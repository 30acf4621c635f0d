"""Metrics of texts against references, F1 and MCC: equal to those of the libraries and of lm-eval on real texts."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import harness
from harness import MetricError
from harness.metrics.aggregation import applicable, evaluate
from harness.metrics.per_document import per_document
from harness.metrics.samples import Samples
from harness.testing import check_metric, example_samples, example_scores
from tests.conftest import published

METRICS = ("exact_match", "normalised_match", "token_f1", "rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "chrf")


def samples(texts: list[str], references: list[tuple[str, ...]], first: list[int] | None = None) -> Samples:
    n = len(references)
    answers = np.empty(n, dtype=object)
    answers[:] = references
    return Samples(
        doc_ids=np.array([str(i) for i in range(n)]),
        first=np.arange(n) if first is None else np.array(first),
        outcome=np.full(len(texts), "unjudged"),
        n_tokens=np.ones(len(texts), dtype=np.int64),
        group=np.full(n, None, dtype=object),
        truncated=np.zeros(n, dtype=bool),
        texts=np.array(texts, dtype=object),
        references=answers,
    )


@pytest.fixture(scope="module")
def real() -> Samples:
    """Return sentences of GSM8K's solutions as texts, and those of other questions with some words as references."""
    lines = published("tasks", "gsm8k", "test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:60]]
    texts = [row["answer"].replace("\n", " ") for row in rows]
    rng = np.random.default_rng(0)
    others = [" ".join(word for word in text.split() if rng.random() < 0.8) for text in texts]
    references = [(others[i], texts[(i + 1) % 60]) if i % 3 else (texts[i],) for i in range(60)]
    return samples(texts, references)


def of_lm_eval(path: str):
    """Return a module of lm-eval's tasks."""
    import lm_eval

    file = Path(lm_eval.__file__).parent / "tasks" / path
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), file)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


def test_bleu_and_chrf_of_a_corpus_are_sacrebleus_with_any_number_of_references(host, real):
    import sacrebleu

    pairs = real.compared()
    texts, streams = [t for t, _ in pairs], [[r[k] if k < len(r) else None for _, r in pairs] for k in range(2)]
    expected = {
        "bleu": sacrebleu.corpus_bleu(texts, streams).score,
        "chrf": sacrebleu.corpus_chrf(texts, streams).score,
        "chrf_pp": sacrebleu.corpus_chrf(texts, streams, word_order=2).score,
    }
    for name, value in expected.items():
        estimate = evaluate(host.metrics[name], real)
        assert estimate.value == pytest.approx(value, abs=1e-9), name
        assert 0 < estimate.stderr < 5
        assert estimate.low < estimate.value < estimate.high
    of_documents = per_document(host.metrics["bleu"], real).columns[0]
    sentence_score = sacrebleu.sentence_bleu(texts[1], list(pairs[1][1]), use_effective_order=True).score
    assert of_documents[1] == pytest.approx(sentence_score)


def test_bleu_and_chrf_are_lm_evals(host, real):
    from lm_eval.api import metrics

    pairs = [(references[0], text) for text, references in real.compared()]
    scored = samples([text for _, text in pairs], [(reference,) for reference, _ in pairs])
    for ours, theirs in (("bleu", metrics.bleu), ("chrf", metrics.chrf), ("chrf_pp", metrics.chrfpp)):
        assert evaluate(host.metrics[ours], scored).value == pytest.approx(theirs(pairs), abs=1e-9)


def test_exact_match_is_lm_evals_without_options(host, real):
    from lm_eval.api.metrics import exact_match_hf_evaluate

    pairs = [(text, references[0]) for text, references in real.compared()]
    scored = samples([text for text, _ in pairs], [(reference,) for _, reference in pairs])
    theirs = exact_match_hf_evaluate([text for text, _ in pairs], [reference for _, reference in pairs])
    assert evaluate(host.metrics["exact_match"], scored).value == theirs["exact_match"] == pytest.approx(1 / 3)


def test_words_in_common_are_those_of_squad(host, real):
    qasper = of_lm_eval("qasper/metrics.py")
    texts = [*(t for t, _ in real.compared()), "The answer.", "a", "", "42!"]
    references = [*(r for _, r in real.compared()), ("answer",), ("the", "an"), ("x",), ("42", "17")]
    scored = samples(texts, references)
    f1 = [max(qasper.f1_abstractive([t], [r]) for r in own_) for t, own_ in zip(texts, references, strict=True)]
    assert per_document(host.metrics["token_f1"], scored).columns[0] == pytest.approx(np.array(f1, dtype=float))
    match = [
        any(qasper.normalize_answer(t) == qasper.normalize_answer(r) for r in own_)
        for t, own_ in zip(texts, references, strict=True)
    ]
    assert per_document(host.metrics["normalised_match"], scored).columns[0].tolist() == match


def test_rouge_is_the_packages(host, real):
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(kinds)
    best = [[scorer.score(r, t) for r in of_text] for t, of_text in real.compared()]
    for kind in kinds:
        expected = [max(of_reference[kind].fmeasure for of_reference in of_text) for of_text in best]
        assert per_document(host.metrics[kind], real).columns[0] == pytest.approx(np.array(expected))
        assert evaluate(host.metrics[kind], real).value == pytest.approx(np.mean(expected))


def test_rouge_is_that_of_lm_evals_tasks_with_and_without_stemming(host):
    """truthfulqa_gen takes words as they are, cnn_dailymail their stems; both take the best of several references."""
    texts = ["Dogs are running. Cats sleep", "The houses were painted blue", "nothing", "a cat's tales"]
    scored = samples(
        texts, [("A dog runs. A cat slept",), ("The house was paint", "painted houses"), ("all",), ("cat tale",)]
    )
    plain, stemmed = of_lm_eval("truthfulqa/utils.py").rouge, of_lm_eval("cnn_dailymail/utils.py")
    pairs = scored.compared()
    for kind, name in (("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rougeLsum", "rougeLsum")):
        expected = [max(plain([answer], [text])[kind] for answer in answers) / 100 for text, answers in pairs]
        assert per_document(host.metrics[name], scored).columns[0] == pytest.approx(np.array(expected))
    for kind in ("rouge1", "rouge2", "rougeL"):
        expected = [max(stemmed.calculate_rouge_scores([t], [a])[kind] for a in answers) for t, answers in pairs]
        assert per_document(host.metrics[f"{kind}_stem"], scored).columns[0] == pytest.approx(np.array(expected))
        assert sum(expected) > evaluate(host.metrics[kind], scored).value * 4
    names = {metric.name for metric in applicable(scored, host)}
    assert "rougeL" in names
    assert "rougeL_stem" not in names
    assert "rougeL_stem" in {metric.name for metric in applicable(scored, host, "rougeL_stem")}


def test_several_samples_of_a_document_are_averaged_and_counted_together(host):
    import sacrebleu

    texts = ["the cat sat on the mat", "a dog ran", "the house is blue today", "blue house"]
    scored = samples(texts, [("the cat sat on the mat today",), ("the house is blue",)], first=[0, 2])
    f1 = per_document(host.metrics["token_f1"], scored).columns[0]
    assert f1 == pytest.approx([(2 * 4 / 9 + 0) / 2, (2 * 3 / 7 + 2 * 2 / 5) / 2])
    references = ["the cat sat on the mat today"] * 2 + ["the house is blue"] * 2
    whole = sacrebleu.corpus_bleu(texts, [references]).score
    assert evaluate(host.metrics["bleu"], scored).value == pytest.approx(whole)


@pytest.mark.parametrize("name", [*METRICS, "chrf_pp", "f1", "mcc", "word_perplexity", "byte_perplexity"])
def test_they_keep_what_every_metric_promises(host, name):
    check_metric(host.metrics[name])


def test_f1_and_mcc_are_scikit_learns(host):
    from sklearn.metrics import f1_score, matthews_corrcoef

    two, many = example_scores(80, needs=("two_choices",)), example_scores(80, seed=3)
    for scores, names in ((two, ("f1", "mcc")), (many, ("mcc",))):
        _, gold, chosen = per_document(host.metrics["mcc"], scores).columns
        expected = {"f1": f1_score, "mcc": matthews_corrcoef}
        for name in names:
            estimate = evaluate(host.metrics[name], scores)
            assert estimate.value == pytest.approx(expected[name](gold, chosen))
            assert estimate.low <= estimate.value <= estimate.high
            drawn = np.random.default_rng(0).integers(80, size=(60, 80))
            spread = np.std([expected[name](gold[rows], chosen[rows]) for rows in drawn], ddof=1)
            assert estimate.stderr == pytest.approx(spread, rel=0.3)
    with pytest.raises(MetricError, match="'f1' needs two_choices"):
        per_document(host.metrics["f1"], many)


def test_texts_that_a_checker_judged_are_compared_only_where_asked(host):
    judged = example_samples(10, each=1)
    assert "rougeL" not in {metric.name for metric in applicable(judged, host)}
    assert evaluate(host.metrics["rougeL"], judged).value > 0
    unjudged = samples(["a"], [("a",)])
    assert set(METRICS) <= {metric.name for metric in applicable(unjudged, host)}
    assert "pass_rate" not in {metric.name for metric in applicable(unjudged, host)}


def test_a_package_that_is_missing_is_named_and_its_metrics_are_left_out(host, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(MetricError, match="metric 'bleu' needs sacrebleu: pip install sacrebleu"):
        evaluate(host.metrics["bleu"], samples(["a"], [("a",)]))
    assert "bleu" not in {metric.name for metric in applicable(samples(["a"], [("a",)]), host)}


SUMMARIES = """
kind: generate
documents: docs.jsonl
query: "{q}"
answers: ["{a}"]
checker: reference
metric: rougeL
max_tokens: 8
"""


def test_a_task_with_references_is_evaluated_and_shown_with_its_metric(fake_host, tmp_path):
    folder = tmp_path / "summaries"
    folder.mkdir()
    (folder / "task.yaml").write_text(SUMMARIES)
    rows = [{"q": f"Say {i}.", "a": f"It is {i}."} for i in range(5)]
    (folder / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {"engine": "fake", "registries": fake_host}
    harness.evaluate(["aster:w32l2"], [str(folder)], tmp_path / "s", **asked).check()
    store = harness.open_store(tmp_path / "s", registries=fake_host)
    points = store.points()
    assert set(METRICS) <= set(points["metric"])
    assert points[points["metric"] == "rougeL"]["value"].between(0, 1).all()
    assert "trials" not in points.columns or points["trials"].isna().all()
    families, *_ = harness.compare(store)
    assert families.rows[0][1] == "rougeL"
