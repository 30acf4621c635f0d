"""family_skill: partial pooling over families, and intervals of new families that cover."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import LawError, UsageError
from harness.cli import main
from harness.fitting.fit import fit
from harness.testing import check_law
from harness_plugins.laws.families import FamilySkill


def models(rng, families=9, spread=(0.5, 0.2), noise=0.15) -> pd.DataFrame:
    """Three to seven models of each family; the last of each, and all of the last family, are to be predicted."""
    rows = []
    for family in range(families):
        a, b = rng.normal(scale=spread)
        for i in range(int(rng.integers(3, 8))):
            x = 20 + i / 2 + rng.uniform(0, 0.3)
            rows.append((f"f{family}", 10**x, -1 + a + (1 + b) * (x - 21) + noise * rng.normal(), i))
    table = pd.DataFrame(rows, columns=["family", "flops", "z", "i"])
    last = table["i"] == table.groupby("family")["i"].transform("max")
    return table.assign(last=last | (table["family"] == f"f{families - 1}"), y=1 / (1 + np.exp(-table["z"])))


def held(seed: int, draws: int) -> dict[str, list[bool]]:
    """Say which 90 % intervals hold the next model of known families, and the models of a new one."""
    law, rng = FamilySkill(scale="identity"), np.random.default_rng(seed)
    table = models(rng)
    ladder, target = (table[table["last"] == last].reset_index(drop=True) for last in (False, True))
    fitted = law.fit(ladder, "z", rng)
    drawn = [law.sample(resample, target, rng) for resample in islice(law.resamples(ladder, "z", fitted, rng), draws)]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    inside = (low <= target["z"]) & (target["z"] <= high)
    is_new = target["family"] == "f8"
    return {"new": inside[is_new].tolist(), "known": inside[~is_new].tolist()}


def test_the_law_passes_the_check():
    check_law(FamilySkill())


def test_intervals_hold_known_and_new_families():
    """90 % intervals, 12 simulated tables; 150 tables gave 87 % for the next model of known families, 90 % for new."""
    inside = {"known": [], "new": []}
    for seed in range(12):
        for kind, counts in held(seed, 60).items():
            inside[kind] += counts
    assert 0.78 <= np.mean(inside["known"]) <= 0.97
    assert 0.72 <= np.mean(inside["new"]) <= 1.0


def test_pooling_is_nearer_than_lines_of_each_family_by_itself():
    errors = {"pooled": [], "alone": []}
    law = FamilySkill(scale="identity")
    for seed in range(20):
        table = models(np.random.default_rng(seed))
        table = table[table["family"] != "f8"]
        fitted = law.fit(table[~table["last"]], "z", np.random.default_rng(0))
        errors["pooled"] += list(law.predict(fitted, table[table["last"]]) - table["z"][table["last"]])
        for _, family_rows in table.groupby("family"):
            line = np.polyfit(
                np.log10(family_rows["flops"][~family_rows["last"]]), family_rows["z"][~family_rows["last"]], 1
            )
            errors["alone"] += list(
                np.polyval(line, np.log10(family_rows["flops"][family_rows["last"]]))
                - family_rows["z"][family_rows["last"]]
            )
    pooled, alone = (float(np.sqrt(np.mean(np.square(errors[k])))) for k in ("pooled", "alone"))
    assert pooled < 0.92 * alone


def test_a_family_of_one_model_leans_on_the_others_and_a_long_one_on_itself():
    rng, x = np.random.default_rng(0), np.linspace(20, 23, 30)
    table = models(rng, families=12)[["family", "flops", "z"]]
    long = pd.DataFrame({"family": "long", "flops": 10**x, "z": 1 + 2 * (x - 21) + 0.15 * rng.normal(size=30)})
    model = pd.DataFrame({"family": ["one"], "flops": [1e21], "z": [-0.2]})
    table = pd.concat([table, long, model])
    fitted = fit(table, FamilySkill(scale="identity"), value="z", resample="checkpoints", bootstrap=400)
    at = fitted.predict(pd.DataFrame({"flops": 10**21.5, "family": ["long", "one", "new"]}))
    width = (at["high"] - at["low"]).to_numpy()
    assert at["value"][0] == pytest.approx(2.0, abs=0.1)
    assert at["value"][1] > at["value"][2] + 0.3
    assert width[0] < width[1] < width[2]
    assert width[0] == pytest.approx(2 * 1.645 * 0.15, rel=0.25)


def test_scores_keep_to_floor_and_one():
    table = models(np.random.default_rng(0)).assign(acc=lambda t: 0.25 + 0.75 * t["y"])
    fitted = fit(table, FamilySkill(floor=0.25), value="acc", hold_out="last", bootstrap=50)
    low = fitted.predict(pd.DataFrame({"flops": [1e15], "family": ["new"]})).iloc[0]
    assert 0.25 <= low["low"] <= low["value"] < 0.3
    assert fitted.hold_out[0]["family"] == table[table["last"]]["family"].iloc[0]


def test_what_is_doubtful_or_impossible_is_said():
    table = models(np.random.default_rng(0))
    twice = pd.concat([table.assign(step=1), table.assign(step=2)]).assign(size=lambda t: t["i"])
    assert "several checkpoints of one run are treated as independent" in str(fit(twice, "family_skill", value="y"))
    with pytest.raises(LawError, match="found 4 models of 1 families"):
        fit(table[table["family"] == "f0"].head(4), "family_skill", value="y")
    with pytest.raises(LawError, match="expected scores from 0 to 1, found .*; or scale=identity"):
        fit(table, "family_skill", value="z")
    with pytest.raises(LawError, match="no column 'family'"):
        fit(table.drop(columns="family"), "family_skill", value="y")
    with pytest.raises(UsageError, match="scale='probit': expected one of logit, identity"):
        FamilySkill(scale="probit")
    with pytest.raises(UsageError, match="floor=1: expected the chance level"):
        FamilySkill(floor=1)


def test_a_new_family_is_predicted_on_the_command_line(tmp_path):
    models(np.random.default_rng(0)).to_csv(tmp_path / "models.csv", index=False)
    options = ["-o", str(tmp_path / "fit.json"), "--bootstrap", "50"]
    arguments = ["fit", str(tmp_path / "models.csv"), "--law", "family_skill", "--value", "y", *options]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    for family in ("new", "f0"):
        done = CliRunner().invoke(
            main, ["predict", str(tmp_path / "fit.json"), "--flops", "1e23", "--at", f"family={family}"]
        )
        assert f"## Predicted at flops 1e+23, family {family}" in done.output
    wrong = CliRunner().invoke(
        main, ["predict", str(tmp_path / "fit.json"), "--at", "flops=much", "--at", "family=new"]
    )
    assert "flops is missing or not a number" in wrong.output
