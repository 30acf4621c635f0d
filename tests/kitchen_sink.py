"""A plugin that implements every hook."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import click
import numpy as np

import harness
from harness.testing import inspect_fake, open_fake

DOC = harness.Doc("0", ("1+1=",), ("2", "3"), ("2", "3"), (0,))
TASK = harness.Task("sink_task", "choice", (DOC,), "f" * 16)


@harness.hookimpl
def register_tasks(register):
    register(TASK)


@harness.hookimpl
def register_sources(register):
    register("sink", {"one": TASK}.__getitem__, lambda: ["one"])


@harness.hookimpl
def register_families(register):
    register(
        harness.Family("sink_family", (harness.Checkpoint("sink_family", "s", 1, 0, "hub:org/name@main"),), "none")
    )


@contextmanager
def open_loudly(checkpoint, folder, **options):
    with open_fake(checkpoint, folder, **options) as engine:
        yield engine


@harness.hookimpl
def register_engines(register):
    register("sink_engine", open_loudly, inspect_fake)


def spread(scores):
    """Return the distance between the best and the worst choice, nats."""
    return scores.max(scores.logprob) + scores.max(-scores.logprob)


@harness.hookimpl
def register_metrics(register):
    register(spread, needs=["choices"])


@harness.hookimpl
def register_checkers(register):
    register("sink_checker", lambda doc, text: harness.Outcome("passed" if text in doc.choices else "failed"))


@dataclass(frozen=True)
class UntilOne:
    """Samples until one passes."""

    at_most: int = 100

    def more(self, drawn, passed):
        return ((passed == 0) & (drawn < self.at_most)).astype(int)


@harness.hookimpl
def register_samplers(register):
    register("sink_sampler", UntilOne)


class Linear:
    """y = a + b log10 C: a line."""

    name = "sink_law"
    features = ("flops",)
    parameters = {"a": (-10.0, 10.0), "b": (-10.0, 10.0)}
    example = {"a": 0.5, "b": 0.1}

    def guess(self, y, flops):
        return {"a": float(y.mean()), "b": 0.0}

    def formula(self, flops, a, b):
        return a + b * np.log10(flops)


@harness.hookimpl
def register_laws(register):
    register(Linear())


class Halfway:
    """Half way from the last value to 1, give or take."""

    name = "sink_forecaster"

    def draw(self, batch, rng):
        last = np.array([ladder.value[ladder.tops[-1]] for ladder in batch.ladders])[:, None, None]
        spread = rng.standard_normal((len(last), 100, batch.targets("params").shape[1]))
        return np.clip((1 + last) / 2 + 0.1 * spread, 0, 1)


@harness.hookimpl
def register_forecasters(register):
    register(Halfway())


@harness.hookimpl
def register_executors(register):
    register("sink_executor", lambda *_: None)


@harness.hookimpl
def register_reporters(register):
    register("sink", lambda tables: "\n".join(table.name for table in tables))


@harness.hookimpl
def register_panels(register):
    chart = {"mark": "point", "encoding": {"x": {"field": "x", "type": "quantitative", "scale": {}}}}
    register("sink_panel", lambda data: harness.Panel("Sink", "Runs.", chart, data.runs, controls=["x"]))


@harness.hookimpl
def register_commands(cli):
    @cli.command()
    def sink():
        """Say that the sink is there."""
        click.echo("the sink is there")
