"""The report in a real browser, from disk, without a network; .ci/run runs these."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.fitting.point_source import table_points
from harness.reports.report import write_report
from harness.store.points import PointStore
from tests.reports.browsing import accessibility, browser_path, controls, marks, opened

pytestmark = pytest.mark.browser
WIDTHS = [(1280, False), (390, False), (1280, True), (390, True)]


@pytest.fixture(scope="module")
def page_file(nano_store: PointStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    browser_path()
    return write_report(nano_store, tmp_path_factory.mktemp("report") / "report.html")


@pytest.mark.parametrize(("width", "dark"), WIDTHS)
def test_a_page_is_drawn_without_errors_or_requests(page_file: Path, width: int, dark: bool):
    with opened(page_file, width=width, dark=dark) as (page, faults):
        shown = marks(page)
        assert shown
        assert all(shown.values()), shown
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        titles = page.eval_on_selector_all(".figure", "all => all.map((one) => one.getAttribute('aria-label'))")
        assert all(titles)
        assert "FLOPs" in page.inner_text("#figure-scaling")
        assert faults == []


def test_perplexities_over_decades_have_a_logarithmic_axis(tmp_path: Path):
    flops = np.geomspace(1e16, 1e22, 7)
    points = pd.DataFrame({"family": "f", "flops": flops, "params": np.sqrt(flops / 120), "ppl": 4 + 4e14 / flops**0.5})
    page_file = write_report(table_points(points, name="t"), tmp_path / "report.html", law="line")
    with opened(page_file) as (page, faults):
        assert "Y-axis titled 'ppl' for a log scale" in "".join(
            page.eval_on_selector_all("#figure-scaling [aria-label]", "all => all.map((o) => o.ariaLabel)")
        )
        assert faults == []


def family_colours(page: Any, figure: str) -> dict[str, str]:
    """Return the colour of each family in the legend of a figure."""
    legend = f"#figure-{figure} [class*=role-legend-%s]"
    labels = page.eval_on_selector_all(f"{legend % 'label'} text", "all => all.map((one) => one.textContent)")
    paint = "all => all.map((one) => one.getAttribute('fill') + one.getAttribute('stroke'))"
    return dict(zip(labels, page.eval_on_selector_all(f"{legend % 'symbol'} path", paint), strict=True))


def test_each_of_many_families_has_a_colour_of_its_own_in_every_figure(tmp_path: Path):
    """The ninth family had the colour of the first, and a family chosen alone that of another."""
    flops, names = np.geomspace(1e18, 1e22, 5), [f"f{i:02}" for i in range(14)]
    shared = {"flops": flops, "params": np.sqrt(flops / 120)}
    rows = [{**shared, "family": name, "acc": 0.3 + 0.01 * i + 0.1 * np.arange(5)} for i, name in enumerate(names)]
    points = pd.concat(map(pd.DataFrame, rows))
    page_file = write_report(table_points(points, name="t"), tmp_path / "report.html", law="line")
    with opened(page_file) as (page, faults):
        colours = family_colours(page, "scaling")
        assert set(names) <= set(colours)
        assert len({colours[name] for name in names}) == len(names)
        page.select_option("#control-family", names[12])
        page.wait_for_timeout(200)
        assert family_colours(page, "scaling")[names[12]] == colours[names[12]]
        assert faults == []


def test_points_without_the_axis_are_counted_and_any_name_of_a_family_is_drawn(tmp_path: Path):
    """Points without tokens were missing without a word, and a family named __proto__ broke the heat map."""
    flops = np.geomspace(1e18, 1e22, 5)
    shared = {"flops": flops, "params": np.sqrt(flops / 120), "acc": np.linspace(0.3, 0.8, 5)}
    rows = [{**shared, "family": "__proto__", "tokens": 20 * shared["params"]}, {**shared, "family": "b"}]
    points = pd.concat(map(pd.DataFrame, rows))
    page_file = write_report(table_points(points, name="t"), tmp_path / "report.html", law="line")
    with opened(page_file) as (page, faults):
        assert not page.is_visible("#lost-scaling")
        assert page.locator("#figure-heat_map [aria-roledescription='rect mark']").count() == 2
        assert faults == []
        page.select_option("#control-x", "tokens")
        page.wait_for_timeout(200)
        said = "5 of 10 points have no training tokens and are not drawn: those of b."
        assert page.inner_text("#lost-scaling") == said
        assert faults == []


AT_ONCE = 3  # figures, of three downloads each: Chromium refuses more than ten in a row from one page


def test_every_control_and_button_works(page_file: Path, tmp_path: Path):
    with opened(page_file) as (page, faults):
        figures = list(marks(page))
        assert len(controls(page)) > 10
        assert faults == []
    for begin in range(0, len(figures), AT_ONCE):
        with opened(page_file) as (page, faults):
            for figure in figures[begin : begin + AT_ONCE]:
                expect_downloads(page, figure, tmp_path)
                page.click(f"#panel-{figure} details summary")
                page.locator(f"#table-{figure} tbody tr").first.wait_for(state="attached")  # filled after the click
            assert faults == []


def expect_downloads(page: Any, figure: str, folder: Path) -> None:
    for kind in ("svg", "png", "csv"):
        with page.expect_download() as download:
            page.click(f"#panel-{figure} button[data-save={kind}]")
        saved = folder / f"{figure}.{kind}"
        download.value.save_as(saved)
        assert saved.stat().st_size > 50


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(page_file: Path, dark: bool):
    with opened(page_file, dark=dark) as (page, _):
        assert accessibility(page) == []


def many(checkpoints: int, tasks: int) -> pd.DataFrame:
    """Return a table of simulated families: five of them, each with 20 sizes, on many tasks."""
    rng = np.random.default_rng(0)
    flops = np.geomspace(1e18, 1e23, checkpoints // 5)
    rows = []
    for task in range(tasks):
        for family in range(5):
            value = 0.25 + 0.7 / (1 + np.exp(-1.5 * (np.log10(flops) - 20 - 0.1 * task + 0.2 * family)))
            frame = pd.DataFrame({"flops": flops, "params": np.sqrt(flops / 120), "value": value})
            frame["value"] = np.clip(value + rng.normal(scale=0.01, size=len(flops)), 0, 1)
            rows.append(frame.assign(task=f"task_{task:02}", family=f"family {family}", metric="acc", stderr=0.01))
    table = pd.concat(rows, ignore_index=True)
    return table.assign(size=table["params"].map("{:.2e}".format), tokens=table["flops"] / (6 * table["params"]))


def test_a_hundred_checkpoints_on_fifty_tasks_are_seen_at_once(tmp_path: Path):
    browser_path()
    path = write_report(many(100, 50), tmp_path / "many.html", law="line")
    assert path.stat().st_size < 10e6
    begun = time.perf_counter()
    with opened(path) as (page, faults):
        first = page.evaluate("performance.getEntriesByName('first figure')[0].startTime")
        opened_in = time.perf_counter() - begun
        print(f"{path.stat().st_size / 1e6:.1f} MB, first figure {first:.0f} ms, opened {opened_in:.1f} s")
        assert marks(page)["scaling"] > 0
        assert faults == []
