"""Tables: rounding to two digits of the error, formats, comparison."""

from __future__ import annotations

import json
import math

import pytest

from harness import UsageError, printable
from harness.host import PluginHost
from harness.tables import Measured, Range, Table, differences, measured, read_csv, rounded, text

TABLE = Table(
    "families",
    "Side by side",
    ("task", "acc", "FLOPs", "n", "inside"),
    (
        ("a_b", Measured(0.96834, 0.0087), Range(1.234e14, 1.0e14, math.inf), 400, True),
        ("c|d", Measured(1.0, 0.0), None, 7, None),
    ),
    ("a note",),
)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.96834, 0.0087, "0.9683 ± 0.0087"),
        (12.3456, 0.123, "12.35 ± 0.12"),
        (1234.5, 120, "1230 ± 120"),
        (1.0, 0.0, "1 ± 0"),
        (0.5, math.nan, "0.5 ± ?"),
        (-3.6362, 0.0999, "-3.636 ± 0.100"),
    ],
)
def test_values_are_rounded_to_two_digits_of_their_error(value, error, text):
    assert measured(value, error) == text


def test_ranges_and_other_cells():
    assert str(Range(0.5, 0.42, 0.61)) == "0.500 [0.420, 0.610]"
    assert str(Range(0.99999999, 0.9999999, 1.0)) == "1.0000 ± <0.0001"
    assert str(Range(1.0, 1.0, 1.0)) == "1 ± <0.001"
    assert str(Range(1.2e20, 1.2e20, 1.2e20)) == "1.2e+20 ± <1e+17"
    assert str(Range(0.5, math.nan, math.nan)) == "0.5 [?]"
    assert [text(cell) for cell in (None, True, False, 0.0, 1e-17, 1.5e17, math.nan, "x", 3)] == [
        "-", "yes", "no", "0", "0", "1.5e+17", "-", "x", "3",
    ]  # fmt: skip
    assert rounded(1.2e14, 3e12) == "1.2e+14"


def test_markdown(host: PluginHost):
    assert host.reporters["md"]([TABLE]).splitlines() == [
        "## Side by side",
        "",
        "| task | acc             | FLOPs                 | n   | inside |",
        "|------|-----------------|-----------------------|-----|--------|",
        "| a_b  | 0.9683 ± 0.0087 | 1.23e+14 [1e+14, inf] | 400 | yes    |",
        "| c\\|d | 1 ± 0           | -                     | 7   | -      |",
        "",
        "- a note",
    ]


def test_csv_gives_errors_and_bounds_columns_of_their_own(host: PluginHost, tmp_path):
    content = host.reporters["csv"]([TABLE])
    assert content == (
        "task,acc,acc stderr,FLOPs,FLOPs low,FLOPs high,n,inside\n"
        "a_b,0.96834,0.0087,123400000000000.0,100000000000000.0,,400,True\n"
        "c|d,1.0,0.0,,,,7,\n"
    )
    (tmp_path / "t.csv").write_text(content)
    assert list(differences(TABLE, read_csv(tmp_path / "t.csv"))) == []


def test_json(host: PluginHost):
    families = json.loads(host.reporters["json"]([TABLE]))["families"]
    assert families["rows"][0] == {
        "task": "a_b", "acc": 0.96834, "acc stderr": 0.0087, "FLOPs": 1.234e14, "FLOPs low": 1e14, "FLOPs high": None,
        "n": 400, "inside": True,
    }  # fmt: skip
    assert families["notes"] == ["a note"]


def test_latex(host: PluginHost):
    lines = host.reporters["tex"]([TABLE]).splitlines()
    assert lines[0] == "% Side by side"
    assert lines[1] == r"\begin{tabular}{lllll}"
    assert lines[5] == r"a\_b & 0.9683 $\pm$ 0.0087 & 1.23e+14 [1e+14, inf] & 400 & yes \\"
    assert lines[-1] == "% a note"


def test_cells_that_differ_are_named(host: PluginHost, tmp_path):
    content = (
        host.reporters["csv"]([TABLE]).replace("0.96834", "0.9675").replace("123400000000000.0", "123500000000000.0")
    )
    (tmp_path / "t.csv").write_text(content)
    assert list(differences(TABLE, read_csv(tmp_path / "t.csv"))) == []
    (tmp_path / "t.csv").write_text(content.replace("0.9675", "0.9672").replace(",7,", ",8,"))
    assert list(differences(TABLE, read_csv(tmp_path / "t.csv"))) == [
        "families, row 1 (a_b 0.96834), acc: 0.96834; expected 0.9672",
        "families, row 2 (c|d 1.0), n: 7; expected 8",
    ]
    (tmp_path / "t.csv").write_text("task,acc\n")
    assert "columns" in next(differences(TABLE, read_csv(tmp_path / "t.csv")))
    with pytest.raises(UsageError, match="expected a table written by harness compare -o"):
        read_csv(tmp_path / "none.csv")


def test_missing_rows_are_said(host: PluginHost, tmp_path):
    (tmp_path / "t.csv").write_text("\n".join(host.reporters["csv"]([TABLE]).splitlines()[:2]) + "\n")
    assert list(differences(TABLE, read_csv(tmp_path / "t.csv"))) == ["families: 2 rows; expected 1"]


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (("0.0399", "0.0416"), False),  # both are printed as 0.04
        (("0.0399", "0.0599"), True),
        (("2.81e+14", "2.82e+14"), False),
        (("2.81e+14", "2.83e+14"), True),
    ],
)
def test_intervals_may_differ_in_the_last_printed_digit(tmp_path, change, differs):
    rows = (("a", "b", Range(0.98, 0.0399, 1.0), 0.5), ("a", "c", Range(2e14, 1.5e14, 2.81e14), 0.25))
    table = Table("t", "", ("task", "family", "predicted", "x"), rows)
    columns, flat = table.flat()
    lines = [columns, *([str(v) for v in row] for row in flat)]
    text = "\n".join(map(",".join, lines)).replace(str(float(change[0])), str(float(change[1])))
    (tmp_path / "t.csv").write_text(text + "\n")
    assert bool(list(differences(table, read_csv(tmp_path / "t.csv")))) == differs


HOSTILE = "\x1b[2J\x9b1m\u202e\ud800\r\nfake | row <script>"


@pytest.mark.parametrize("suffix", ["md", "csv", "json", "tex"])
def test_text_of_others_is_shown_and_not_obeyed(host: PluginHost, tmp_path, suffix):
    table = Table("t", HOSTILE, ("task", HOSTILE), ((HOSTILE, 1.0),), (HOSTILE,))
    content = host.reporters[suffix]([table])
    assert printable(content, lines=True) == content
    assert not any(line.startswith("fake") for line in content.splitlines())
    if suffix == "json":
        assert json.loads(content)["t"]["rows"] == [{"task": HOSTILE, HOSTILE: 1.0}]
    if suffix == "md":
        assert "\\<script>" in content
        assert " <script>" not in content
    if suffix == "csv":
        (tmp_path / "t.csv").write_text(content)
        escaped = Table("t", "", ("task", printable(HOSTILE)), table.rows)
        assert list(differences(escaped, read_csv(tmp_path / "t.csv"))) == []


def test_ends_of_an_interval_may_differ_by_one_step():
    """A forecast's ends are whole documents: rounding in the last digit of a score can move one by a document."""
    columns = ("forecast",)
    table = Table("t", "T", columns, ((Range(0.99, 0.98, 1.0, step=1 / 400),),))
    names = ["forecast", "forecast low", "forecast high"]
    assert list(table.flat()[0]) == names
    assert list(differences(table, (names, [["0.99", "0.9775", "1.0"]]))) == []
    (line,) = differences(table, (names, [["0.99", "0.975", "1.0"]]))
    assert "forecast low: 0.98; expected 0.975" in line
