from pathlib import Path

import example
from harness.testing import check_task


def test_task():
    task = check_task(Path(example.__file__).with_name("task.yaml"))
    assert len(task.docs) == 3
