"""harness capabilities: lines of families, compute relative to a reference family, most informative models."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import LawError, UsageError
from harness.cli import main
from harness_plugins.analyses.capabilities import capabilities
from harness_plugins.analyses.capability_lines import coordinates, efficiency, equivalents, select

NAMES = ("knowledge", "code", "sums")


def models(noise: float = 0.0) -> pd.DataFrame:
    """Three families on lines of their own in one capability; b needs a fourth of what a needs."""
    rng, rows = np.random.default_rng(0), []
    for family, gain in (("a", 1.0), ("b", 4.0), ("c", 0.5)):
        for flops in np.geomspace(1e20, 1e24, 5):
            skill = 0.1 * np.log10(flops * gain / 1e21) + noise * rng.normal()
            rows.append((family, f"{family}-{np.log10(flops):.0f}", flops, *(0.4 + skill * np.array([1.0, 0.5, 0.8]))))
    return pd.DataFrame(rows, columns=["family", "model", "flops", *NAMES])


def test_compute_is_measured_in_that_of_the_reference_family():
    points, _ = coordinates(models(), NAMES)
    lines = efficiency(points)
    assert lines.theta == pytest.approx(0.1 * np.sqrt(1 + 0.25 + 0.64))
    assert lines.r2 == pytest.approx(1)
    gains = {row["model"]: gain.value for row, _, gain in equivalents(points, lines, "a")}
    assert gains["b-21"] == pytest.approx(4)
    assert gains["c-23"] == pytest.approx(0.5)


def test_intervals_of_gains_hold_the_truth():
    """90 % intervals of the gain of an exact model, over 100 reference lines of five models each."""
    rng, inside, flops = np.random.default_rng(0), 0, np.geomspace(1e20, 1e24, 5)
    for _ in range(100):
        table = pd.DataFrame(
            {"family": "a", "flops": flops, "pc1": 0.3 * np.log10(flops / 1e22) + 0.05 * rng.normal(size=5)}
        )
        model = pd.DataFrame({"family": ["b"], "flops": [1e22], "pc1": 0.3 * np.log10(4)})
        points = pd.concat([table, model], ignore_index=True)
        *_, (_, _, gain) = equivalents(points, efficiency(points), "a")
        inside += gain.low <= 4 <= gain.high
    assert 82 <= inside <= 97


def test_families_of_two_models_and_unknown_compute_have_no_line():
    table = models()
    table.loc[0, "flops"] = np.nan
    points, _ = coordinates(table[table["model"].isin(table["model"][:12])], NAMES)
    lines = efficiency(points)
    assert lines.names == ("a", "b")
    assert lines.n.tolist() == [4, 5]
    assert len(equivalents(points, lines, "a")) == 11
    with pytest.raises(UsageError, match="'c' has no fitted line; expected one of: a, b"):
        equivalents(points, lines, "c")
    with pytest.raises(LawError, match="no family has 3 models of known flops"):
        efficiency(points.groupby("family").head(2))


def test_models_that_have_no_part_in_the_lines_are_counted():
    table = models()
    table.loc[[0, 7], "flops"] = np.nan
    table.loc[14, "family"] = None
    notes = capabilities(table, NAMES)[1].notes
    assert "Excluded from the lines, of 15 models: 2 of unknown flops, 1 of unknown family." in notes
    with pytest.raises(LawError, match="equal in every column"):
        capabilities(pd.concat([models(), models().head(1)]), NAMES)


def test_the_models_that_are_chosen_are_the_best_there_are():
    """Of twelve models the four chosen leave the least variance of all 495 choices of four, within a hundredth."""
    x = np.random.default_rng(0).normal(size=(12, 2))
    design = np.column_stack([np.ones(12), x])

    def variance(rows) -> float:
        chosen_design = design[list(rows)]
        return float(np.trace(np.linalg.inv(chosen_design.T @ chosen_design) @ design.T @ design)) / 3

    chosen, loss = select(x, 4)
    assert loss == pytest.approx(variance(chosen), rel=1e-3)
    assert loss <= 1.01 * min(map(variance, itertools.combinations(range(12), 4)))
    assert select(x, 12)[1] == pytest.approx(1, rel=1e-3)
    with pytest.raises(UsageError, match="2 models to select: expected 3 to 12"):
        select(x, 2)


def test_the_command_prints_its_tables(tmp_path):
    models(0.02).to_csv(tmp_path / "models.csv", index=False)
    arguments = ["capabilities", str(tmp_path / "models.csv"), "--benchmarks", ",".join(NAMES), "--reference", "a"]
    done = CliRunner().invoke(main, [*arguments, "--select", "5", "--components", "1", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "Compute that a needs for the same PC1" in done.output
    assert "factor by which that compute lies outside the fitted range, 1e+20 to 1e+24" in done.output
    assert len((tmp_path / "out" / "selection.csv").read_text().splitlines()) == 6
    with pytest.raises(LawError, match="no column family"):
        capabilities(models().drop(columns="family"), NAMES)
    with pytest.raises(LawError, match="expected 0 to 1"):
        coordinates(100 * models()[list(NAMES)], NAMES)


def test_a_reference_without_a_line_is_named_with_the_families_that_have_one():
    with pytest.raises(UsageError, match="--reference 'd' has no fitted line; expected one of: a, b, c"):
        capabilities(models(0.02), NAMES, reference="d")
