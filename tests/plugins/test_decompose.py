"""From log-probability to accuracy: correlations of documents, where they drop, and laws of every choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import LawError, UsageError
from harness.cli import main
from harness.store.points import PointStore
from harness_plugins.analyses.choice_laws import accuracy, fit_choices, predict_accuracy
from harness_plugins.analyses.decompose import decompose
from harness_plugins.analyses.document_scores import DocumentScores, over_documents, read_document_scores
from harness_plugins.analyses.predictability import correlation_by_chance, correlations, predictability_lost
from tests.plugins.ladders import many_sizes


def document_scores_of(store: PointStore, task: str, family: str) -> DocumentScores:
    return next(read_document_scores(store, task=task, family=family))


def made_up(steps: dict[str, np.ndarray]) -> DocumentScores:
    n, m = next(iter(steps.values())).shape
    points = pd.DataFrame({"flops": np.geomspace(1e18, 1e22, m), "size": list("abcdefgh"[:m]), "seed": 0})
    return DocumentScores("made_up", "f", points, np.log10(points["flops"].to_numpy()), steps, np.arange(n))


def test_steps_of_a_store_are_its_metrics_document_by_document(nano_store: PointStore):
    documents = document_scores_of(nano_store, "nano_birthplace", "aster")
    assert list(documents.steps) == ["logp_gold", "p_vocab", "p_choices", "brier", "acc"]
    points = nano_store.points("nano_birthplace", "aster", metrics=["acc", "brier"], unit="document")
    last = points[(points["size"] == "w64l2") & (points["step"] == 1600)]
    assert documents.points.iloc[-1][["size", "step"]].tolist() == ["w64l2", 1600]
    assert documents.steps["acc"][:, -1].tolist() == last[last["metric"] == "acc"]["value"].tolist()
    assert documents.steps["brier"][:, -1].tolist() == (-last[last["metric"] == "brier"]["value"]).tolist()
    assert len(set(documents.runs)) == 2


def test_a_table_of_documents_gives_what_the_store_gives(nano_store: PointStore):
    steps = ["logp_gold", "p_choices", "brier", "acc"]
    long = nano_store.points("nano_birthplace", "aster", metrics=steps, unit="document")
    keys = ["family", "size", "step", "seed", "params", "flops", "task", "doc_id"]
    table = long.pivot_table(index=keys, columns="metric", values="value").reset_index()
    (of_table,), expected = (
        list(read_document_scores(table.sample(frac=1, random_state=0))),
        document_scores_of(nano_store, "nano_birthplace", "aster"),
    )
    for mine, theirs in zip(
        correlations(of_table), [s for s in correlations(expected) if s.name in steps], strict=True
    ):
        assert mine.name == theirs.name
        assert sorted(mine.rho["kendall"]) == pytest.approx(sorted(theirs.rho["kendall"]))


def test_documents_that_a_checkpoint_lacks_are_left_out_and_doubles_refused():
    table = pd.DataFrame({"params": [1.0, 2, 3] * 3, "doc_id": list("aaabbbccc"), "acc": [0, 1, 1] * 3})
    (documents,) = read_document_scores(table.drop(index=4), scale="params")
    assert documents.steps["acc"].shape == (2, 3)
    assert documents.left_out == 1
    with pytest.raises(UsageError, match="doc_id is missing in 3 of 9 rows"):
        list(read_document_scores(table.assign(doc_id=table["doc_id"].where(table["doc_id"] != "c")), scale="params"))
    with pytest.raises(UsageError, match="duplicate document c at params 3"):
        list(read_document_scores(pd.concat([table, table.tail(1)]), scale="params"))
    with pytest.raises(UsageError, match="has no column flops; its columns: acc, doc_id, params"):
        list(read_document_scores(table))
    with pytest.raises(UsageError, match="no column of the steps logp_gold, p_vocab"):
        list(read_document_scores(table.drop(columns="acc"), scale="params"))


def test_the_step_that_loses_the_relation_is_named():
    """300 documents whose log-probability rises with scale; the mass on wrong choices has nothing to do with it."""
    rng, x = np.random.default_rng(0), np.linspace(0, 1, 6)
    gold = 3 * x + rng.normal(scale=0.1, size=(300, 6))
    choices = 0.3 * x + rng.normal(size=(300, 6))
    loss = predictability_lost(made_up({"logp_gold": gold, "p_vocab": np.exp(gold), "p_choices": choices}))
    assert loss.at == ("p_choices",)
    assert (loss.falls["p_vocab"].low, loss.falls["p_vocab"].high) == (0, 0)
    assert loss.falls["p_choices"].low > 0.3
    assert (loss.agree, loss.ladders) == (6, 6)


def test_nothing_is_lost_where_all_turn_right_once_though_ties_lower_the_correlation():
    """Accuracy that turns once has |rho| = 0.87 at best; documents that are right everywhere have none to lose."""
    x = np.linspace(0, 1, 6)
    gold = x + np.linspace(0, 1, 60)[:, None]
    turns = (gold > 0.8).astype(float)
    loss = predictability_lost(made_up({"logp_gold": gold, "acc": turns}))
    assert loss.at == ()
    assert loss.relative == {"logp_gold": pytest.approx(1), "acc": pytest.approx(1)}
    everywhere = predictability_lost(made_up({"logp_gold": gold, "acc": np.ones((60, 6))}))
    assert everywhere.at == ()
    assert np.isnan(everywhere.falls["acc"].value)


@pytest.mark.soak
def test_noise_alone_is_seldom_called_a_loss():
    """Two steps that are equally noisy: in about one of ten, and no more, a fall is claimed."""
    claims = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        steps = {name: rng.normal(size=(60, 5)) + np.linspace(0, 2, 5) for name in ("logp_gold", "p_choices")}
        claims.append(bool(predictability_lost(made_up(steps)).at))
    assert np.mean(claims) < 0.1


def test_chance_correlations_of_few_checkpoints_are_large():
    mean, strong = correlation_by_chance(np.arange(4.0))
    assert (mean, strong) == (pytest.approx(0.5), pytest.approx(8 / 24))
    assert correlation_by_chance(np.arange(17.0))[1] < 0.01


def test_groups_of_documents_count_as_one():
    values = np.repeat(np.random.default_rng(0).normal(size=10), 5)
    alone, grouped = (
        over_documents(values, np.arange(50), 0.9),
        over_documents(values, np.repeat(np.arange(10), 5), 0.9),
    )
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def simulated(documents: DocumentScores, logprob: np.ndarray) -> DocumentScores:
    """Return six runs whose choices have these log-probabilities (6, m), over two decades of scale."""
    points = pd.DataFrame({"params": 10.0 ** np.arange(6), "size": list("abcdef"), "seed": 0})
    scores = tuple(replace(documents.scores[0], logprob=checkpoint_logprob) for checkpoint_logprob in logprob)
    return replace(documents, x=np.linspace(-1, 1, 6), points=points, scores=scores)


def test_laws_of_choices_give_back_what_they_made(nano_store: PointStore):
    """Choices that follow -ln p = e^(a + b x) exactly are predicted exactly, and with no width."""
    documents = document_scores_of(nano_store, "nano_birthplace", "birch")
    a, b = np.random.default_rng(1).normal(scale=1.5, size=(2, len(documents.scores[0].logprob)))
    exact = -np.exp(a + b * np.linspace(-1, 1, 6)[:, None])
    joint = predict_accuracy(simulated(documents, exact))
    assert joint.predicted.value == joint.measured == accuracy(exact[-1], documents.scores[0])
    assert joint.last == accuracy(exact[-2], documents.scores[0]) != joint.measured
    assert joint.predicted.high - joint.predicted.low == pytest.approx(0, abs=1e-12)
    assert joint.inside


def test_the_interval_of_accuracy_holds_what_comes(nano_store: PointStore):
    """Noisy choices on ladders of five runs: 90 % said; between 80 and 100 % of 60 ladders hold it."""
    documents = document_scores_of(nano_store, "nano_birthplace", "birch")
    inside = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(scale=0.5, size=(2, len(documents.scores[0].logprob)))
        noise = rng.normal(scale=0.3, size=(6, len(a)))
        ladder = simulated(documents, -np.exp(a + b * np.linspace(-1, 1, 6)[:, None] + noise))
        inside.append(predict_accuracy(ladder, bootstrap=200).inside)
    assert 0.8 <= np.mean(inside) < 1
    assert predict_accuracy(ladder, bootstrap=200).predicted.high < 1


def test_too_little_for_laws_of_choices_is_said():
    with pytest.raises(LawError, match="2 checkpoints of 2 runs: laws of choices need 3 checkpoints of 2 runs"):
        fit_choices(np.arange(2.0), -np.ones((2, 4)), np.arange(2))


def test_the_command_prints_three_tables_of_a_store(tmp_path, nano_store: PointStore):
    store = many_sizes(nano_store, tmp_path / "store")
    arguments = ["decompose", str(store.path), "--task", "nano_birthplace", "--family", "aster", "--bootstrap", "50"]
    result = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = {name: pd.read_csv(tmp_path / f"{name}.csv") for name in ("steps", "lost", "joint")}
    assert rows["steps"]["step"].tolist() == ["logp_gold", "p_vocab", "p_choices", "brier", "acc"]
    assert rows["lost"]["without one run"].str.endswith("of 10").all()
    joint = rows["joint"].iloc[0]
    assert joint["target"] == "w64l2s1600@1600"
    assert joint["joint low"] <= joint["joint"] <= joint["joint high"]
    assert abs(joint["joint"] - joint["measured"]) < 0.2
    assert "Mean absolute error of the rows with all four predictions (1)" in result.stdout


def test_the_command_prints_two_tables_of_a_table(tmp_path, nano_store: PointStore):
    table = tmp_path / "items.csv"
    pd.DataFrame({"params": [1, 2, 3] * 2, "doc_id": list("aaabbb"), "acc": [0, 1, 1, 0, 0, 1]}).to_csv(table)
    short = CliRunner().invoke(main, ["decompose", str(table), "--scale", "params", "--format", "csv"])
    assert short.exit_code == 0, short.output
    assert "joint" not in short.stdout
    text = CliRunner().invoke(main, ["decompose", str(nano_store.path), "--task", "nano_text"])
    assert text.exit_code == 2
    assert "no document with choices for task nano_text" in text.stderr


def test_tables_of_a_ladder_that_is_too_short_say_so(nano_store: PointStore):
    tables = decompose(nano_store, task="nano_birthplace", where="step == 1600", bootstrap=20)
    assert any("aster: 2 checkpoints; expected 3 or more" in note for note in tables[1].notes)
    assert any("laws of choices need 3 checkpoints" in note for note in tables[2].notes)
