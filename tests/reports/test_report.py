"""The HTML report and single figures: self-contained, escaped, with the panels of plugins."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import harness
from harness import Panel, PluginError, UsageError
from harness.cli import main
from harness.host import load_plugins
from harness.reports.report import collect, write_report
from harness.reports.task_figure import plot_task
from harness.store.points import PointStore
from harness_plugins.panels.scaling import scaling

PANELS = [
    *("scaling", "choices", "metrics", "forecasts", "loss_to_accuracy", "heat_map", "predictions", "capability_space"),
    "documents",
]


def data_of(page: str) -> dict[str, Any]:
    """Return the data that a page holds."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    return dict(json.loads(match[1]))


@pytest.fixture(scope="module")
def data(nano_store: PointStore) -> harness.ReportData:
    return collect(nano_store, law="sigmoid", hold_out="largest")


@pytest.fixture(scope="module")
def page(nano_store: PointStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_report(nano_store, tmp_path_factory.mktemp("report") / "report.html")
    assert path.stat().st_size < 3e6
    return path.read_text(encoding="utf-8")


def test_a_page_needs_no_network(page: str):
    """Nothing is fetched: the policy of the page forbids it, and no element names another file."""
    assert "default-src 'none'" in page
    page = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=\"(?!data:)", page)


def test_all_figures_are_there_with_text_alternatives(page: str):
    panels = data_of(page)["panels"]
    assert list(panels) == PANELS
    for name in panels:
        assert re.search(rf'id="figure-{name}" role="img" aria-label="[^"]+"', page)


def test_points_of_the_page_are_those_of_the_store(page: str, data: harness.ReportData):
    columns = data_of(page)["panels"]["scaling"]["columns"]
    kinds = [columns["kind"]["words"][code] for code in columns["kind"]["codes"]]
    assert {"measured", "held out", "law"} == set(kinds)
    shown = data.points
    shown = shown[shown["shown"]]
    assert sum(kind != "law" for kind in kinds) == len(shown)
    assert columns["value"][: len(shown)] == pytest.approx(shown["value"].tolist(), rel=1e-5)


def test_the_mean_of_the_gold_choice_is_the_metric_of_that_name(nano_store: PointStore):
    data = collect(nano_store, law="sigmoid", hold_out="largest", task="nano_birthplace")
    gold = data.choices[data.choices["choice"] == "gold"].set_index("label")["value"]
    metric = data.points[data.points["metric"] == "logp_gold"].set_index("label")["value"]
    assert gold.to_dict() == pytest.approx(metric.to_dict())


def test_a_law_of_two_steps_is_drawn_as_it_is_fitted(nano_store: PointStore):
    data = collect(nano_store, law="two_step", hold_out="largest", task="nano_birthplace")
    aster = data.curves[data.curves["family"] == "aster"]
    points = nano_store.points(task="nano_birthplace", metrics=["acc", "logp_gold"])
    points = points[points["family"] == "aster"]
    fit = harness.fit(points, "two_step", value="acc", hold_out="largest", store=nano_store)
    assert aster["value"].tolist() == pytest.approx(fit.predict(flops=aster["flops"].tolist())["value"].tolist())


def test_names_with_markup_are_shown_and_not_run(nano_store: PointStore, tmp_path: Path):
    store = PointStore(shutil.copytree(nano_store.path, tmp_path / "store"), registries=nano_store.registries)
    for digest, checkpoints in dict(store.checkpoints).items():
        for checkpoint in checkpoints:
            store.put_checkpoint(digest, replace(checkpoint, family=f"</script><b>\u202e{checkpoint.family}"))
    page = write_report(store, tmp_path / "r.html", title="<i>mine</i>").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "<i>mine" not in page
    assert "&lt;i&gt;mine" in page
    families = data_of(page)["panels"]["scaling"]["columns"]["family"]["words"]
    assert {"</script><b>\\u202easter", "</script><b>\\u202ebirch"} == set(families)
    assert "\u202e" not in page


def losses(data: harness.ReportData) -> Panel:
    chart = {"mark": "point", "encoding": {"x": {"field": "x", "type": "quantitative", "scale": {}}}}
    return Panel("Training loss", "Loss of every checkpoint.", chart, data.runs, controls=["x"])


def host_with(make: Any) -> harness.PluginHost:
    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_panels(register: harness.Register) -> None:
            register("losses", make)

    host = load_plugins()
    host.add(Plugin, "theirs")
    return host


def few_points() -> pd.DataFrame:
    """Return a small wide table: one family of five sizes."""
    flops = np.geomspace(1e18, 1e20, 5)
    table = pd.DataFrame(
        {"family": "ash", "flops": flops, "params": np.sqrt(flops / 120), "acc": np.linspace(0.3, 0.6, 5)}
    )
    return table.assign(acc_stderr=0.01)


def test_a_panel_of_a_plugin_is_shown_with_its_name(tmp_path: Path):
    page = write_report(few_points(), tmp_path / "r.html", law="line", registries=host_with(losses)).read_text("utf-8")
    assert "Training loss" in page
    assert "(plugin theirs)" in page
    assert "losses" in data_of(page)["panels"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda data: 1 / 0, "ZeroDivisionError"),
        (lambda data: sys.exit(0), r"panel 'losses' of plugin 'theirs' failed: .*called sys.exit\(0\)"),
        (lambda data: "a figure", "expected a harness.Panel"),
        (lambda data: replace(losses(data), chart={}), "has no chart"),
        (lambda data: replace(losses(data), controls=["zoom"]), "there are: family, level, metric, task, x"),
    ],
)
def test_a_panel_that_fails_is_named(tmp_path: Path, make, said):
    with pytest.raises(PluginError, match=said):
        write_report(few_points(), tmp_path / "r.html", law="line", registries=host_with(make))
    assert not (tmp_path / "r.html").exists()


def test_an_unknown_law_is_refused_before_anything_is_fitted(nano_store: PointStore):
    with pytest.raises(UsageError, match="there is no law 'sigmoidal'"):
        collect(nano_store, law="sigmoidal", hold_out="largest")


@pytest.mark.parametrize("suffix", ["svg", "png", "json"])
def test_one_task_is_drawn_to_a_file(nano_store: PointStore, tmp_path: Path, suffix: str):
    path = tmp_path / f"figure.{suffix}"
    asked = ["plot", str(nano_store.path), "--task", "nano_addition", "-o", str(path)]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.stderr
    content = path.read_bytes()
    if suffix == "png":
        assert content.startswith(b"\x89PNG")
    else:
        text = content.decode()
        assert "Training compute (FLOPs)" in text
        assert "aster" in text
        assert "held out" in text


def test_a_figure_of_another_format_is_refused(nano_store: PointStore, tmp_path: Path):
    asked = ["plot", str(nano_store.path), "--task", "nano_addition", "-o", str(tmp_path / "figure.gif")]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 2
    assert "expected one of svg, png, pdf, html, json" in result.stderr


def test_a_table_is_reported_and_drawn_where_a_store_is(tmp_path: Path):
    """A wide table of benchmarks: each column is a task; columns have the names of others."""
    rng, flops = np.random.default_rng(0), np.geomspace(1e18, 1e22, 8)
    columns = {"C": flops, "n": np.sqrt(flops / 120)}
    for name, k in (("arc", 1), ("piqa", 0.7)):
        columns[name] = 0.25 + 0.6 / (1 + (1e20 / flops) ** k) + rng.normal(scale=0.005, size=8)
    pd.DataFrame(columns).assign(family="ash").to_csv(tmp_path / "points.csv", index=False)
    table = str(tmp_path / "points.csv")
    renames = ["--map", "C=flops", "--map", "n=params"]
    for asked in (
        ["report", table, *renames, "--metric", "arc", "--metric", "piqa", "-o", str(tmp_path / "r.html")],
        ["plot", table, *renames, "--task", "arc", "-o", str(tmp_path / "f.json")],
    ):
        result = CliRunner().invoke(main, asked)
        assert result.exit_code == 0, result.output
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Scaling report of points.csv" in page
    panels = data_of(page)["panels"]
    assert {"scaling", "forecasts", "back_test", "heat_map"} <= set(panels)
    assert panels["scaling"]["columns"]["task"]["words"] == ["arc", "piqa"]
    assert "arc" in (tmp_path / "f.json").read_text()


@pytest.mark.parametrize(
    ("table", "metrics", "said"),
    [
        ({"flops": [1e18]}, [], "no column is a benchmark; name the columns"),
        ({"flops": [1e18], "acc": [0.5]}, ["f1"], "'f1' names no column; columns are: acc, flops"),
        ({"acc": [0.5]}, ["acc"], "t.csv has no params, tokens, flops or loss; columns are"),
        ({"flops": [1e18], "metric": ["acc"], "value": [0.5]}, ["f1"], "the table has no metric f1; it has: acc"),
    ],
)
def test_a_table_without_what_a_report_needs_is_refused(tmp_path: Path, table, metrics, said):
    pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
    asked = [word for metric in metrics for word in ("--metric", metric)]
    result = CliRunner().invoke(main, ["report", str(tmp_path / "t.csv"), *asked, "-o", str(tmp_path / "r.html")])
    assert result.exit_code == 2
    assert said in result.stderr


def test_table_options_are_refused_for_a_store(nano_store: PointStore, tmp_path: Path):
    result = CliRunner().invoke(
        main, ["report", str(nano_store.path), "--metric", "acc", "-o", str(tmp_path / "r.html")]
    )
    assert result.exit_code == 2
    assert "--metric is for tables" in result.stderr


def test_the_page_says_why_a_law_was_not_fitted(page: str):
    assert "sigmoid: nano_birthplace, birch: law" in page
    assert "has 4 parameters" in page


def test_the_law_from_loss_to_accuracy_goes_through_its_points(nano_store: PointStore, data: harness.ReportData):
    rows = data.two_steps
    assert set(rows["kind"]) == {"measured", "held out", "law"}
    measured = rows[(rows["kind"] != "law") & (rows["task"] == "nano_birthplace")].set_index("label")
    points = nano_store.points("nano_birthplace", metrics=["logp_gold"])
    assert measured["task_loss"].sum() == pytest.approx(-points["value"].sum())
    law = rows[rows["kind"] == "law"]
    assert ((law["low_90"] <= law["high_90"]) & (law["low_95"] <= law["low_50"])).all()


def test_forecasts_of_the_report_have_their_measurements(data: harness.ReportData):
    rows = data.forecasts
    assert set(rows["kind"]) <= {"forecast of the largest", "forecast"}
    held = rows[rows["kind"] == "forecast of the largest"]
    assert held["measured"].notna().all()
    assert (held["low_90"] <= held["value"]).all()
    assert (held["value"] <= held["high_90"]).all()


def test_values_over_many_decades_are_drawn_on_a_logarithmic_axis():
    """Perplexities from 4e6 to 4 below a band up to 1e11 were a flat line."""
    flops = np.geomspace(1e16, 1e22, 7)
    perplexity = pd.DataFrame(
        {"family": "f", "flops": flops, "params": np.sqrt(flops / 120), "ppl": 4 + 4e14 * flops**-0.5}
    )
    scales = {}
    for name, shown in (
        ("ppl", perplexity),
        ("acc", perplexity.assign(acc=np.linspace(0.01, 0.9, 7)).drop(columns="ppl")),
    ):
        layers = plot_task(shown, name, law="line").to_dict()["layer"]
        scales[name] = {layer["encoding"]["y"]["scale"].get("type") for layer in layers}
    assert scales["ppl"] == {"log"}
    assert scales["acc"] == {None}
    panel = scaling(collect(perplexity.assign(acc=np.linspace(0.01, 0.9, 7)), law="line", hold_out="largest"))
    assert panel.decades == ["ppl"]
    of_task = panel.rows[panel.rows["task"] == "ppl"]
    measured = of_task[of_task["kind"] != "law"]["value"]
    assert of_task["low_90"].min() >= measured.min() / 10
    assert of_task["high_90"].max() <= measured.max() * 10


def test_a_law_without_a_band_is_noted():
    """Points of one run have no degree of freedom; the figure had no band, without a word."""
    said = list[str]()
    plot_task(few_points().assign(size="1b", params=1e9), "acc", law="line", hold_out="flops > 9e19", note=said.append)
    assert "line: acc, ash: no interval is drawn: 4 points of one run" in " ".join(said)


def test_a_law_of_flops_is_not_drawn_over_tokens_that_all_sizes_share():
    """Its curve was a vertical line at the tokens of the last checkpoints, and at the params of the smallest size."""
    params, steps = np.geomspace(1e8, 1e10, 5), np.array([1, 2, 4, 8])
    points = pd.DataFrame([{"family": "f", "params": n, "size": f"{n:g}", "step": s} for n in params for s in steps])
    points = points.assign(tokens=4e10 * points["step"]).assign(
        flops=lambda table: 6 * table["params"] * table["tokens"]
    )
    points["ppl"] = 2 + 1e3 * points["flops"] ** -0.2
    said = list[str]()
    for x, drawn in (("tokens", 0), ("params", len(params))):
        chart = plot_task(points, "ppl", law="power", x=x, note=said.append)
        curve = chart.data[chart.data["kind"] == "law"]
        assert curve["x"].nunique() == len(curve)
        assert bool(len(curve)) == bool(drawn)
    assert curve["x"].between(1e8 * 0.99, 1e10 * 1.01).all()
    assert [note for note in said if "FLOPs, which do not follow from tokens" in note]
