"""Display of tables, fits, forecasts and stores in a notebook."""

from __future__ import annotations

import harness
from harness.store.points import PointStore
from harness.tables import Measured, Table


def test_a_table_is_shown_with_its_text_escaped():
    table = Table("t", "A <b>", ("doc", "acc"), (("<script>x</script>", Measured(0.5, 0.01)),), ("a & b",))
    shown = table._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;x&lt;/script&gt;" in shown
    assert "<td>0.500 ± 0.010</td>" in shown
    assert "<li>a &amp; b</li>" in shown


def test_a_fit_has_a_short_repr_and_a_report(nano_store: PointStore):
    points = nano_store.points("nano_text", "aster", metrics=["bits_per_byte"])
    fit = harness.fit(points, "line", value="bits_per_byte", hold_out="largest", bootstrap=20)
    assert repr(fit) == "<LawFit line: bits_per_byte from flops, family aster, task nano_text; 5 points, 5 held out>"
    assert fit._repr_html_().startswith("<pre>line: bits_per_byte from flops")


def test_a_store_lists_its_tasks(nano_store: PointStore):
    assert "<td>nano_addition</td><td>13</td><td>0</td>" in nano_store._repr_html_()
