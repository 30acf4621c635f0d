"""Shapes of curves over scale, sudden rises, the largest size against a law: on curves with known truth."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import Checkpoint, Family, LawError, StoreError, UsageError
from harness.cli import main
from harness.store.points import PointStore
from harness_plugins.analyses.curves import Curve, read_curves
from harness_plugins.analyses.decide import decide
from harness_plugins.analyses.document_scores import read_document_scores
from harness_plugins.analyses.emergence import emergence
from harness_plugins.analyses.trend_tests import trend
from harness_plugins.analyses.trends import trends
from tests.evaluation.test_sampling import draw, make_task
from tests.plugins.ladders import many_sizes


def curve_of(y, error=None, x=None) -> Curve:
    y = np.asarray(y, dtype=np.float64)
    x = np.linspace(18, 22, len(y)) if x is None else x
    points = pd.DataFrame({"flops": 10**x, "acc": y, "size": [f"s{i}" for i in range(len(y))]})
    covariance = None if error is None else np.diag(np.broadcast_to(np.square(error), len(y))).astype(float)
    return Curve("t", "f", "acc", points, x, y, covariance)


@pytest.mark.parametrize(
    ("y", "shape"),
    [
        ([0.2, 0.3, 0.5, 0.6, 0.8], "rises"),
        ([0.8, 0.6, 0.5, 0.3, 0.2], "falls"),
        ([0.6, 0.45, 0.4, 0.5, 0.65], "U-shaped"),
        ([0.2, 0.5, 0.7, 0.6, 0.3], "inverted U"),
        ([0.2, 0.6, 0.9, 0.97, 0.97], "rises"),  # bends, and turns nowhere
        ([0.2, 0.5, 0.35, 0.7, 0.9], "rises, not monotone"),
        ([0.25, 0.26, 0.25, 0.24, 0.26], "undecided"),
        ([0.5] * 5, "constant"),
    ],
)
def test_shapes_are_named(y, shape):
    tested = trend(curve_of(y, 0.01))
    assert tested.shape(tested.tests, 0.05) == shape


def test_without_errors_five_runs_show_a_turn_by_their_scatter_and_hardly_a_direction():
    turned = trend(curve_of([0.6, 0.45, 0.4, 0.5, 0.65], x=np.arange(5.0)))
    assert (turned.u.value, turned.vertex) == (pytest.approx(0.053571, abs=1e-6), pytest.approx(1.86))
    assert turned.shape(turned.tests, 0.05) == "U-shaped"
    assert np.isnan(turned.rho.low)
    rising = trend(curve_of([0.2, 0.3, 0.5, 0.6, 0.8]))
    assert rising.tests[0] == rising.over_runs == pytest.approx(2 / 120)


def test_chance_alone_seldom_makes_a_shape():
    """Curves at chance, with their true errors: 5 % said of each test; corrected for three, few find anything."""
    rng = np.random.default_rng(0)
    trends_of_noise = [trend(curve_of(0.25 + rng.normal(scale=0.02, size=6), 0.02), seed=i) for i in range(80)]
    p = np.array([of_noise.tests for of_noise in trends_of_noise])
    assert (p[:, 0] < 0.05).mean() < 0.12  # Spearman's p from draws
    assert (p[:, 1] < 0.05).mean() < 0.05
    assert (p[:, 2] < 0.05).mean() < 0.1
    shapes = [of_noise.shape(3 * p_values, 0.05) for of_noise, p_values in zip(trends_of_noise, p, strict=True)]
    assert shapes.count("undecided") > 70


def test_documents_that_runs_share_make_steps_clearer(nano_store: PointStore):
    """The error of a step is that of paired differences, as `harness diff` and the points of documents have it."""
    (curve,) = [c for c in read_curves(nano_store, task="nano_birthplace") if c.family == "birch"]
    documents = nano_store.points("nano_birthplace", "birch", metrics=["acc"], unit="document")
    wide = documents.pivot_table(index="doc_id", columns="size", values="value")
    difference = wide["w96l3"] - wide["w64l2"]
    step, error = curve.step(1, 2)
    assert step == pytest.approx(difference.mean())
    assert error == pytest.approx(difference.std() / np.sqrt(len(difference)), rel=0.1)


def test_metrics_of_which_less_is_better_are_turned_round(nano_store: PointStore):
    (curve,) = [c for c in read_curves(nano_store, task="nano_text") if c.family == "birch"]
    assert (curve.y < 0).all()
    assert trend(curve).shape((0, 1, 1), 0.05) == "rises"


def emerging(early: float, draws: int = 400):
    """Accuracy that leaves its floor at the fourth of five sizes, with p_choices that has come `early` by then."""
    rng = np.random.default_rng(0)
    values = {
        "acc": np.array([0.25, 0.25, 0.255, 0.6, 0.9]),
        "p_choices": np.array([0.25, 0.25 + early / 2, 0.25 + early, 0.6, 0.85]),
        "logp_gold": np.array([-9.0, -7.0, -5.0, -3.0, -1.0]),
    }
    noise = {name: rng.normal(scale=0.01, size=(draws, 5)) for name in values}
    return emergence(curve_of(values["acc"], 0.01), {k: v + noise[k] for k, v in values.items()}, values)


def test_a_sudden_accuracy_is_told_from_one_that_hides_a_steady_rise():
    hidden, form = emerging(0.2), emerging(0.0)
    assert (hidden.turn, form.turn) == (3, 3)
    assert hidden.verdict(hidden.p, 0.05) == "hidden by accuracy"
    assert hidden.before["p_choices"].value == pytest.approx(0.2 / 0.6)
    assert hidden.before["p_choices"].low < 1 / 3 < hidden.before["p_choices"].high
    assert form.verdict(form.p, 0.05) == "log-probability first"
    assert form.before["logp_gold"].value == pytest.approx(0.5)
    assert form.verdict({}, 0.05) == "nothing before"
    assert 0.02 < form.resolution < 0.05


def test_a_rise_at_the_second_size_hides_nothing_and_no_rise_is_said():
    values = {"acc": np.array([0.2, 0.5, 0.9])}
    noise = np.random.default_rng(0).normal(scale=0.01, size=(200, 3))
    at_once = emergence(curve_of(values["acc"], 0.01), {"acc": values["acc"] + noise}, values)
    assert at_once.verdict(at_once.p, 0.05) == "rises at once"
    flat = {"acc": np.array([0.25, 0.25, 0.251])}
    assert emergence(curve_of(flat["acc"], 0.01), {"acc": flat["acc"] + noise}, flat).verdict({}, 0.05) == "no rise"


def test_tables_of_points_with_errors_counts_and_without(tmp_path):
    sizes = np.geomspace(7e7, 7e9, 6)
    frame = pd.DataFrame({"params": sizes, "flops": sizes**2, "task": "code", "family": "f", "size": list("abcdef")})
    rate = np.exp(-np.exp(1.4 - 0.2 * np.log(sizes / 7e8)))
    frame["rate"], frame["trials"] = rate, 100_000
    frame["successes"], frame["rate_stderr"] = np.round(1e5 * rate), np.sqrt(rate * (1 - rate) / 1e5)
    tables = {table.name: table for table in trends(frame, metric="rate", bootstrap=50)}
    assert list(tables) == ["trends", "breaks", "pass_until"]
    assert tables["trends"].rows[0][-1] == "rises"
    assert tables["pass_until"].rows[0][-1] == "normal"
    assert tables["pass_until"].rows[0][4].value == pytest.approx(0.2, abs=0.01)
    fallen = frame.assign(rate=[*rate[:5], rate[0]])
    (row,) = next(table for table in trends(fallen, metric="rate", bootstrap=200) if table.name == "breaks").rows
    assert row[-1] == "below"
    assert row[-2].value < 0


def test_bad_points_are_named():
    frame = pd.DataFrame({"flops": [1e18, 1e19, 1e20], "y": [0.1, 0.2, 0.3]})
    with pytest.raises(UsageError, match="pass the column of the scores with --metric; the table has: flops, y"):
        trends(frame)
    with pytest.raises(UsageError, match="points have no column 'params'"):
        trends(frame, metric="y", scale="params")
    with pytest.raises(UsageError, match="no points for task nope"):
        trends(frame, metric="y", task="nope")
    with pytest.raises(UsageError, match="1 of 3 points of , , y have no stderr"):  # all errors were ignored
        trends(frame.assign(y_stderr=[0.01, np.nan, 0.01]), metric="y")
    with pytest.raises(LawError, match="2 runs; a trend test needs 3"):
        trend(curve_of([0.1, 0.2]))


def test_scores_of_two_engines_are_not_mixed(tmp_path, nano_store: PointStore):
    """One of them would be taken for the score, and nobody would know which."""
    store = PointStore(shutil.copytree(nano_store.path, tmp_path / "store"), registries=nano_store.registries)
    cell = store.select("nano_birthplace", "aster")[0]
    other = replace(cell.settings, engine="vllm")
    store.put_settings(other)
    store.write(replace(cell.id, settings=other.digest), store.read(cell.id.name))
    store = PointStore(store.path, registries=nano_store.registries)
    for analysis in (read_curves, decide, lambda store, task: list(read_document_scores(store, task=task))):
        with pytest.raises(StoreError, match=r"aster:w\d\dl2@\d+ has nano_birthplace more than once; select one with"):
            analysis(store, task="nano_birthplace")
    assert len(read_curves(store, task="nano_birthplace", where="engine == 'transformers'")) == 2


def test_rates_of_drawn_texts_have_their_trials(tmp_path):
    """Four sizes that draw texts: rates count successes, no table of choices is asked of them."""
    checkpoints = []
    for number in range(1, 5):
        folder = tmp_path / f"model{number}"
        folder.mkdir()
        (folder / "config.json").write_text(f'{{"number": {number}}}')
        (folder / "model.safetensors").write_bytes(len(b"{}").to_bytes(8, "little") + b"{}")
        checkpoints.append(
            Checkpoint("fam", f"s{number}", 1, 0, str(folder), params=10**number, tokens=5.0, flops=10.0**number)
        )
    task = replace(make_task(), metric="pass_rate")
    summary, store = draw(Family("fam", tuple(checkpoints)), tmp_path / "s", task, sampler="n", options={"n": 30})
    summary.check()
    tables = {table.name: table for table in trends(store, bootstrap=20)}
    assert [row[:4] for row in tables["trends"].rows] == [("texts", "fam", "pass_rate", 4)]
    assert tables["pass_until"].rows[0][2] == 4
    assert tables["emergence"].rows == ()
    with pytest.raises(UsageError, match="no document with choices for task"):
        list(read_document_scores(store))


def test_any_accuracy_may_be_sudden(tmp_path, nano_store: PointStore):
    tables = trends(many_sizes(nano_store, tmp_path / "s"), task="nano_addition", metric="acc_char", bootstrap=20)
    (row,) = [row for row in tables[2].rows if row[1] == "aster"]
    assert row[-1] in {"rises at once", "hidden by accuracy", "log-probability first", "nothing before"}


def test_the_command_prints_three_tables_of_a_store(tmp_path, nano_store: PointStore):
    store = many_sizes(nano_store, tmp_path / "store")
    arguments = ["trends", str(store.path), "--bootstrap", "20", "--correction", "bh", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    rows = {name: pd.read_csv(tmp_path / f"{name}.csv") for name in ("trends", "breaks", "emergence")}
    text = rows["trends"].query("task == 'nano_text' and family == 'aster'").iloc[0]
    assert (text["runs"], text["shape"]) == (10, "rises, not monotone")  # early steps of a larger size
    assert set(rows["emergence"]["task"]) == {"nano_addition", "nano_birthplace", "nano_saying"}
    assert "corrected for 24 tests (bh)" in result.stdout


def test_perplexities_that_only_fall_are_not_an_inverted_u():
    """Without standard errors, the curvature of a curve that levels off was enough for a U-shape."""
    flops = np.geomspace(6e16, 6e22, 6)
    table = pd.DataFrame(
        {"family": "a", "flops": flops, "params": np.sqrt(flops / 600), "ppl": 1e4 * (flops / 1e16) ** -0.5}
    )
    (curve,) = read_curves(table.assign(metric="ppl", value=-table["ppl"]), metric="ppl")
    shown = trend(curve)
    assert shown.tests[1] == 1
    assert shown.shape(shown.tests, 0.1) == "rises"
    turned = table.assign(metric="acc", value=[0.2, 0.4, 0.55, 0.62, 0.4, 0.19])
    (curve,) = read_curves(turned, metric="acc")
    assert trend(curve).shape(trend(curve).tests, 0.1) == "inverted U"
