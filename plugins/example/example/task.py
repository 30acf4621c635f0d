"""The task `example`: task.yaml and docs.jsonl beside this file."""

from pathlib import Path

import harness


@harness.hookimpl
def register_tasks(register):
    """Register the task; its name is that of the folder."""
    register(Path(__file__).with_name("task.yaml"))
