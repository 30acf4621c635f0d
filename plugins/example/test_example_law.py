from harness.testing import check_law
from example.law import Example


def test_law():
    check_law(Example())
