from harness import Checkpoint
from harness.testing import check_engine
from example.engine import inspect, open_engine


def test_engine(tmp_path):
    checkpoint = Checkpoint("family", "size", None, 0, str(tmp_path))
    check_engine(open_engine, checkpoint, tmp_path, inspect=inspect, generates=False)
