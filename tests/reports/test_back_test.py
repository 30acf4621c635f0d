"""Back-tests: every size predicted from the smaller ones by every applicable law, compared with baselines."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import harness
from harness import Fitted, LawError
from harness.cli import main
from harness.fitting.fit_files import PointsFile
from harness.fitting.options import Options
from harness.reports.back_test import back_test
from harness.reports.back_test_files import back_test_file
from harness.store.points import PointStore
from harness.testing import check_law

QUICK = {"bootstrap": 30, "starts": 8}


def ladder(families: int = 2, noise: float = 0.0) -> pd.DataFrame:
    """Losses of six sizes and two checkpoints each, a power law of compute."""
    rng, rows = np.random.default_rng(0), []
    for family in range(families):
        for size, params in enumerate(np.geomspace(1e7, 3e9, 6)):
            for tokens in (10 * params, 20 * params):
                loss = (1.7 + 0.1 * family + 40 * (6 * params * tokens) ** -0.09) * np.exp(noise * rng.normal())
                rows.append((f"f{family}", f"s{size}", params, tokens, 6 * params * tokens, loss))
    return pd.DataFrame(rows, columns=["family", "size", "params", "tokens", "flops", "loss"])


def test_the_law_behind_the_points_wins_against_those_that_know_nothing():
    result = back_test(ladder(noise=0.002), ["power", "line", "last"], value="loss", **QUICK)
    assert [row[0] for row in result.summary().rows] == ["power", "line", "last"]
    errors = result.rows.groupby("law")["error"].apply(lambda e: e.abs().mean())
    assert errors["power"] < 0.5 * errors["line"] < 0.5 * errors["last"]
    assert len(result.rows) == 2 * 3 * 3  # families, sizes 4 to 6, laws


def test_only_smaller_sizes_are_fitted_and_only_the_next_one_is_predicted():
    """Whatever the sizes from k + 1 on measured, the prediction of size k + 1 is the same."""
    table = ladder(1)
    spoilt = table.assign(loss=table["loss"].where(table["size"] < "s3", 99.0))
    plain, again = (back_test(t, ["power"], value="loss", **QUICK).rows for t in (table, spoilt))
    assert plain["target"].tolist() == ["f0:s3", "f0:s4", "f0:s5"]
    assert plain["sizes"].tolist() == [3, 4, 5]
    assert again["predicted"][0] == plain["predicted"][0]
    assert again["predicted"][1] != plain["predicted"][1]
    assert plain["beyond"][0] == pytest.approx((3e9 / 1e7) ** 0.4)  # compute grows as the square of size


def test_predictions_of_a_bounded_metric_are_cut_to_its_range():
    """A power law had CRPS 1e81 and intervals 387 wide on accuracies, which no reader takes for a prediction."""
    table = ladder(1).assign(acc=lambda t: np.linspace(0.3, 0.95, len(t)) ** 2)
    laws = ["broken_power", "line"]
    cut = back_test(table, laws, value="acc", **QUICK).rows
    raw = back_test(table.rename(columns={"acc": "score"}), laws, value="score", **QUICK).rows
    assert cut["low"].min() >= 0
    assert cut[["predicted", "high"]].max().max() <= 1
    assert (cut["crps"] <= 1).all()
    assert raw["high"].max() > 1
    assert (cut["inside"] == raw["inside"]).all()
    in_percent = back_test(table.assign(acc=100 * table["acc"]), ["line"], value="acc", **QUICK).rows
    assert in_percent["predicted"].max() > 1


def test_the_interval_of_a_coverage_counts_families_and_tasks():
    """Predictions of one ladder counted as independent cases."""
    found = back_test(ladder(2, noise=0.002), ["power"], value="loss", **QUICK)
    assert found.scores("power").clusters == 2
    low, high = found.scores("power").coverage_interval
    assert f"[{low:.0%}, {high:.0%}]" in str(found.summary().rows[0][5])


@pytest.mark.soak
def test_laws_that_do_not_apply_are_left_out_and_named():
    """Without tokens there is no law of N and D; an accuracy is beyond laws that only fall, which are flat on it."""
    table = ladder(1).drop(columns="tokens").assign(acc=lambda t: 1 - 0.3 * t["loss"]).drop(columns="loss")
    result = back_test(table, value="acc", **QUICK)
    laws = set(result.rows["law"])
    assert {"sigmoid", "line", "last"} <= laws
    assert not {"chinchilla", "two_step", "observational", "power"} & laws
    assert "power makes no prediction: flat on every ladder" in "\n".join(result.summary().notes)


def test_laws_that_fail_have_the_last_rank():
    """Five parameters and three points: no prediction, and no place in front of those who made one."""
    table = ladder(1).groupby("size").tail(1)
    result = back_test(table, ["chinchilla", "line"], value="loss", **QUICK)
    summary = {row[0]: row for row in result.summary().rows}
    assert summary["chinchilla"][1] == "1 of 3"
    assert summary["line"][1] == "3 of 3"
    assert result.notes[0].startswith(
        "chinchilla makes no prediction: f0 up to size 3: law 'chinchilla' has 5 parameters"
    )
    assert result.notes[0].endswith("(and 1 more)")
    assert summary["chinchilla"][-2] == pytest.approx((1 + 2 * 2) / 3)


def test_a_law_that_says_anything_may_happen_does_not_win():
    """Its median is right and its interval covers everything; a line with a narrow interval ranks higher."""

    class Anything:
        name, features, baseline = "anything", ("flops",), True

        def fit(self, points, value, rng):
            return Fitted({"y": 0.0})

        def predict(self, fitted, points):
            return 1.8 + 1e-9 * points["flops"].to_numpy() ** 0

        def sample(self, fitted, points, rng):
            return np.full(len(points), rng.choice([-50.0, 50.0]))

    table = ladder().groupby(["family", "size"]).tail(1)
    result = back_test(table, [Anything(), "line"], value="loss", **QUICK)
    summary = {row[0]: row for row in result.summary().rows}
    assert summary["anything"][5].startswith("6 of 6")
    assert [row[0] for row in result.summary().rows] == ["line", "anything"]


def test_points_without_names_are_told_apart():
    """Without sizes and steps every point of a family is labelled alike; each is a test of its own all the same."""
    table = ladder().drop(columns="size").query("tokens == 20 * params")
    result = back_test(table, ["line", "last"], value="loss", resample="checkpoints", **QUICK)
    assert len(result.rows) == 2 * 3 * 2
    assert {row[1] for row in result.summary().rows} == {"6 of 6"}
    assert sum(row[-3] for row in result.summary().rows) == 6


def test_too_few_sizes_are_named():
    with pytest.raises(LawError, match="the largest family has 3 sizes; a back-test from 3 sizes needs 4"):
        back_test(ladder().query("params < 2e8"), ["line"], value="loss")
    with pytest.raises(LawError, match=r"no law predicts loss; tried: sigmoid; sigmoid \(.+\)$"):
        back_test(ladder().assign(flops=1e19).assign(loss=np.inf), ["sigmoid"], value="loss")


def test_baselines_pass_the_check():
    from harness_plugins.laws.baselines import Last, Line

    check_law(Line())
    with pytest.raises(AssertionError, match="give points="):
        check_law(Last())


def test_the_last_value_changes_as_it_did_before():
    table = ladder(1).groupby("size").tail(1)
    fitted = harness.fit(table, "last", value="loss", hold_out="largest", bootstrap=2000, resample="checkpoints")
    ends = table["loss"].to_numpy()[:-1]
    assert fitted.hold_out[0]["predicted"] == ends[-1]
    step = np.sqrt(np.mean(np.diff(ends) ** 2))
    width = fitted.hold_out[0]["high"] - fitted.hold_out[0]["low"]
    assert width == pytest.approx(2 * 2.13 * step, rel=0.15)  # Student's t of 4 degrees of freedom, 90 %


def test_the_command_line_prints_and_keeps_both_tables(tmp_path):
    ladder().to_csv(tmp_path / "points.csv", index=False)
    arguments = ["fit", str(tmp_path / "points.csv"), "--back-test", "--value", "loss", "--law", "power,last"]
    arguments += ["--bootstrap", "20", "--starts", "4"]
    done = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "tables")])
    assert done.exit_code == 0, done.output
    assert "| power | 6 of 6" in done.output
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        f"back_test{ending}.{suffix}" for ending in ("", "_predictions") for suffix in ("md", "csv")
    }
    read = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert len(read["back_test_predictions"]["rows"]) == 12
    both = CliRunner().invoke(main, [*arguments, "--hold-out", "largest"])
    assert both.exit_code == 2
    assert "leave out --hold-out" in both.output
    assert "name a law with --law" in CliRunner().invoke(main, arguments[:2]).output


def test_a_store_is_tested_on_all_its_tasks_of_choices(nano_store: PointStore):
    """Two of the store's families have two and three sizes: from two sizes on, birch alone is tested."""
    source, options = PointsFile(nano_store.path), Options(bootstrap=20)
    result = back_test_file(source, ["last", "line"], first=2, options=options, registries=nano_store.registries)
    assert set(result.rows["family"]) == {"birch"}
    assert set(result.rows["task"]) == {"nano_addition", "nano_birthplace", "nano_saying"}
    assert result.value == "acc"
