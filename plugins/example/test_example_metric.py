from harness.testing import check_metric
from example.metric import example


def test_metric():
    check_metric(example, needs=["choices", "one_gold"], higher_is_better=False)
