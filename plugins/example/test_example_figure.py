from harness.testing import check_panel
from example.figure import example


def test_figure():
    check_panel(example)
