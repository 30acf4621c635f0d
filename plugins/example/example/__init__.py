"""The plugin `example`: a law, a metric, a task, an engine, a command and a figure of the report."""

from example.command import register_commands
from example.engine import register_engines
from example.figure import register_panels
from example.law import register_laws
from example.metric import register_metrics
from example.task import register_tasks

__all__ = [
    "register_commands",
    "register_engines",
    "register_laws",
    "register_metrics",
    "register_panels",
    "register_tasks",
]
