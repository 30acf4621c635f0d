"""The observational law: capabilities from benchmarks with gaps, components chosen on the ladder, honest errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import LawError, UsageError
from harness.cli import main
from harness.fitting.fit import fit
from harness.testing import check_law
from harness_plugins.laws.capabilities import Space
from harness_plugins.laws.observational import Observational, fit_sigmoids

NAMES = ("knowledge", "code", "sums")


def models(n: int = 40, noise: float = 0.01, seed: int = 0) -> pd.DataFrame:
    """Models with two capabilities, three benchmarks, and a task that takes both of them."""
    rng = np.random.default_rng(seed)
    general, code = rng.uniform(-1, 1, size=n), 0.5 * rng.uniform(-1, 1, size=n)
    scores = 0.5 + np.outer(general, [0.3, 0.1, 0.2]) + np.outer(code, [-0.1, 0.4, 0.0])
    scores += rng.normal(scale=noise, size=scores.shape)
    task = 1 / (1 + np.exp(-(6 * general + 6 * code - 1))) + rng.normal(scale=noise, size=n)
    return pd.DataFrame(scores.clip(0, 1), columns=list(NAMES)).assign(task=task.clip(0, 1), flops=10 ** (21 + general))


def test_the_law_passes_the_check():
    check_law(Observational(NAMES))


def test_gaps_are_filled_as_the_other_scores_say():
    scores = 0.5 + np.outer(np.linspace(-1, 1, 21), [0.3, 0.1, 0.2])
    holes = scores.copy()
    holes[3, 0] = holes[12, 2] = np.nan
    space = Space.of(holes)
    assert space.filled(holes) == pytest.approx(scores, abs=1e-6)
    assert space.explained[0] == pytest.approx(1)
    assert (space.axes[0] > 0).all()
    with pytest.raises(LawError, match="1 models have no benchmark score; leave them out"):
        space.filled(np.full((1, 3), np.nan))


def test_models_without_the_task_take_part_in_gaps_and_components():
    """They were refused, and had to be dropped before; only the sigmoid needs a value."""
    table = models(60)
    known = table.assign(task=table["task"].where(table.index % 3 > 0))
    law = Observational(NAMES, components=2)
    fitted = fit(known, law, value="task", hold_out="index > 49", bootstrap=20)
    everything, scored = Space.of(table.loc[:49, list(NAMES)].to_numpy()), fitted.steps[0]
    assert np.asarray(scored.fitted.state["space"]["centre"]) == pytest.approx(everything.centre)
    assert scored.n == int(known.loc[:49, "task"].notna().sum())
    assert len(fitted.hold_out) == int(known.loc[50:, "task"].notna().sum())
    assert "; R2 0.9" in str(fitted)
    assert "worse than their mean does" not in str(fitted)


def test_the_choice_of_components_is_told_with_digits_and_against_a_constant():
    table = models().assign(task=lambda t: t["task"] * 1e-3)
    notes = Observational(NAMES).fit(table, "task", np.random.default_rng(0)).notes
    assert "0.0000" not in notes[0]
    assert "of a constant" in notes[0]
    noise = table.assign(task=np.random.default_rng(4).uniform(0.4, 0.6, len(table)))
    assert (
        "no better than a constant (R2 < 0)"
        in Observational(NAMES).fit(noise, "task", np.random.default_rng(0)).notes[1]
    )


def test_new_models_do_not_move_the_plane():
    table = models()
    fitted = Observational(NAMES, components=2).fit(table, "task", np.random.default_rng(0))
    strong = table.assign(sums=0.99)
    alone = Observational(NAMES, components=2).predict(fitted, strong.iloc[[0]])
    assert Observational(NAMES, components=2).predict(fitted, strong)[0] == alone[0]


def test_many_sigmoids_at_once_are_the_sigmoids_one_by_one():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(n, k)) for n, k in ((20, 1), (30, 3), (25, 2))]
    y = [0.1 + 0.9 / (1 + np.exp(-(features.sum(axis=1) - 0.5))) for features in x]
    together = fit_sigmoids(x, y)
    for features, target, weights in zip(x, y, together, strict=True):
        assert weights == pytest.approx([-0.5, *[1.0] * features.shape[1], 0.1], rel=1e-3)
        assert fit_sigmoids([features], [target])[0] == pytest.approx(weights, rel=1e-6)


def test_as_many_components_are_chosen_as_the_ladder_asks_for():
    """Two capabilities make the task: one component is not enough, and the ladder without the strong models says so."""
    arguments = {"value": "task", "hold_out": "flops > 10**21.5", "bootstrap": 50}
    fitted = fit(models(), Observational(NAMES), **arguments)
    assert "w2" in fitted.steps[0].parameters
    assert all(set(draw.parameters) == set(fitted.steps[0].parameters) for draw in fitted.steps[0].draws)
    assert "components, chosen on the ladder" in "\n".join(fitted.warnings)
    of_one_component = fit(models(), Observational(NAMES, components=1), **arguments)
    errors = [np.mean([row["error"] ** 2 for row in f.hold_out]) for f in (fitted, of_one_component)]
    assert errors[0] < 0.5 * errors[1]


def test_intervals_hold_new_models_as_often_as_they_say():
    inside = []
    for seed in range(8):
        table = models(60, noise=0.03, seed=seed)
        fitted = fit(table, Observational(NAMES, components=2), value="task", hold_out="index > 39", bootstrap=40)
        inside += [row["inside"] for row in fitted.hold_out]
    assert 0.85 <= np.mean(inside) <= 0.96


def test_what_cannot_be_used_is_said():
    table = models()
    with pytest.raises(LawError, match="needs --option benchmarks=NAME,NAME.*code, flops, knowledge|knowledge, code"):
        fit(table, "observational", value="task", bootstrap=10)
    with pytest.raises(LawError, match="task is both the predicted value and a benchmark"):
        fit(table, Observational((*NAMES, "task")), value="task", bootstrap=10)
    with pytest.raises(LawError, match="knowledge: expected scores from 0 to 1; divide percentages by 100"):
        fit(table.assign(knowledge=lambda t: 100 * t["knowledge"]), Observational(NAMES), value="task", bootstrap=10)
    with pytest.raises(LawError, match="no column 'art'"):
        fit(table, Observational(("art",)), value="task", bootstrap=10)
    with pytest.raises(UsageError, match="components=9: expected auto, or a number from 1 to 5"):
        Observational(NAMES, components=9)
    with pytest.raises(UsageError, match="measure='tokens': expected one of"):
        Observational(measure="tokens")


def test_columns_that_the_law_does_not_use_may_have_gaps():
    table = models()
    fitted = fit(table.assign(flops=table["flops"].where(table.index > 3)), Observational(NAMES, components=2),
                 value="task", bootstrap=20)  # fmt: skip
    assert fitted.steps[0].n == len(table)


def test_the_command_line_takes_benchmarks(tmp_path):
    models().assign(family=["a", "b"] * 20).to_csv(tmp_path / "models.csv", index=False)
    arguments = ["fit", str(tmp_path / "models.csv"), "--law", "observational", "--value", "task", "--bootstrap", "20"]
    options = ["--option", "benchmarks=knowledge,code,sums", "--option", "components=2"]
    done = CliRunner().invoke(main, [*arguments, *options, "-o", str(tmp_path / "fit.json")])
    assert done.exit_code == 0, done.output
    assert "observational: task from knowledge, code, sums" in done.output
    assert "20 of 20 resamples fitted" in done.output
    at = ["--at", "knowledge=0.6", "--at", "code=0.6", "--at", "sums=0.6"]
    assert "| observational |" in CliRunner().invoke(main, ["predict", str(tmp_path / "fit.json"), *at]).output
