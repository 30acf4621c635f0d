"""The contracts of all plugins.

A plugin is a module (or any object) that implements some of the functions below, each marked with `@harness.hookimpl`.
It is found through the entry-point group `harness`, or loaded for one command with `-p MODULE`, `-p file.py` or
`-p folder/of/package`. Each hook is called once at start, and none is called inside the loop over documents. Names are
unique within a kind: a clash is an error that names both plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("harness")
hookimpl = pluggy.HookimplMarker("harness")

Register = Callable[..., None]


@hookspec
def register_tasks(register: Register) -> None:
    """Offer tasks. Called once at start.

    :param register: `register(task)`, where `task` is the path of a task.yaml, of its folder, or a
        `harness.Task`. The folder's name is the name of the task.

    Minimal implementation::

        @harness.hookimpl
        def register_tasks(register):
            register(Path(__file__).parent / "my_task")
    """


@hookspec
def register_sources(register: Register) -> None:
    """Offer tasks that are created on demand, under a prefix. Called once at start.

    :param register: `register(prefix, resolve, list_names, metrics=None, groups=None)`: `resolve(name)` returns the
        `harness.Task` for `prefix:name`, or a list of tasks, or raises KeyError if there is none. Keyword-only
        parameters of `resolve` receive the options of `harness eval` of their names: limit, num_fewshot, fewshot_seed,
        include_path, chat, system_prompt, multiturn. `list_names()` returns the names for `harness ls tasks`.
        `metrics(task, answers)` returns a list of `harness.SourceMetric` for one cell of a task whose `source` has the
        key `prefix`. `answers` are the `harness.Scores` of the cell, or the texts of each document (a tuple of tuples).
        `groups(group, parts)` returns those of a group that has no cell of its own, or none if a task is missing:
        `group` is an entry of the list `part_of` in the `source` of its tasks, a dict with the group's `name`, and
        `parts` are the pairs (task, answers) of one checkpoint.

    Minimal implementation::

        @harness.hookimpl
        def register_sources(register):
            register("mine", lambda name: TASKS[name], lambda: sorted(TASKS))
    """


@hookspec
def register_families(register: Register) -> None:
    """Offer families of checkpoints. Called once at start.

    :param register: `register(family)`, where `family` is the path of a family file (NAME.toml) or a
        `harness.Family`. The name of the file is the name of the family.

    Minimal implementation::

        @harness.hookimpl
        def register_families(register):
            register(Path(__file__).with_name("aster.toml"))
    """


@hookspec
def register_engines(register: Register) -> None:
    """Offer an engine. Called once at start.

    :param register: `register(name, open_engine, inspect, preferred=bool, modules=(), install=None, adapters=False,
        tokens=False)`.
        `inspect(checkpoint, folder, **options)` returns a `harness.EngineInfo` and reads no weights;
        `open_engine(checkpoint, folder, **options)` is a context manager that yields a `harness.Engine` and
        releases everything at exit; `preferred()` returns True if this engine is the default on this machine.
        `modules` names the required modules; if one cannot be imported, the command stops before the first cell with
        an error that contains the command returned by `install()`. `adapters` is True if the engine adds the weights of
        `checkpoint.adapter`, a folder with a LoRA adapter, to those in `folder`. `tokens` is True if the engine returns
        the log-probabilities of single tokens for requests that ask for them.

    Minimal implementation::

        @harness.hookimpl
        def register_engines(register):
            register("mine", open_engine, inspect)
    """


@hookspec
def register_metrics(register: Register) -> None:
    """Offer metrics. Called once at start.

    :param register: `register(fn, name=None, needs=(), aggregate="mean", higher_is_better=True, bounds=...,
        known_as=(), modules=(), by_name=False)`.
        `fn(scores)` gets a `harness.Scores` and returns one value per document, shape (n,), or, for a ratio, a pair
        (numerators, denominators).
        `needs` lists what the scores must contain: answers (choices or cloze), choices (two or more), two_choices
        (exactly two), cloze (one continuation), text, words (of a text), one_gold, several_gold, unconditional, greedy,
        token_counts (unknown in imported samples). With samples, `fn` gets a `harness.Samples` of texts that a checker
        judged; with references, one that also has the texts and the accepted answers.
        `aggregate` is mean, ratio (sum over sum), exp_ratio (its exponential), or a function of the columns.
        `bounds` is the lowest and highest possible value, such as (0, 1); intervals stay within it.
        `known_as` lists the names of the same numbers in other programs; a user who asks for one of them is told the
        name here. `modules` names the required modules; where one is missing, the metric is left out of tables of all
        metrics, and is an error if it is asked for. With `by_name`, it is computed only if it is asked for or is
        the metric of a task: a slow metric, or a variant of another one.

    Minimal implementation::

        @harness.hookimpl
        def register_metrics(register):
            register(margin, needs=["choices"])
    """


@hookspec
def register_checkers(register: Register) -> None:
    """Offer checkers of generated text. Called once at start.

    :param register: `register(name, check, version="1", executes_code=False, prepare=None, takes="")`.
        `check(doc, text)` returns a `harness.Outcome` for any text, and the same outcome for the same text. Increase
        `version` when outcomes change; samples are then stored in new cells. With `executes_code`, texts are run as
        programs, which users must allow; `prepare()` is called before the first program, verifies the sandbox, raises
        EngineError if it is not safe, and returns notes for the user (strings). `takes` names the argument that a task
        writes after a colon, as in `regex:PATTERN`; `check` is then a function of this argument that returns the
        check.

    Minimal implementation::

        @harness.hookimpl
        def register_checkers(register):
            register("contains", lambda doc, text: Outcome("passed" if doc.choices[0] in text else "failed"))
    """


@hookspec
def register_samplers(register: Register) -> None:
    """Offer samplers, which decide how many samples to draw per document. Called once at start.

    :param register: `register(name, make)`: `make(**options)` returns a `harness.Sampler`. Its attributes, which
        options set, are part of the identity of a cell.

    Minimal implementation::

        @dataclass(frozen=True)
        class UntilOne:
            at_most: int = 100

            def more(self, drawn, passed):
                return ((passed == 0) & (drawn < self.at_most)).astype(int)

        @harness.hookimpl
        def register_samplers(register):
            register("until_one", UntilOne)
    """


@hookspec
def register_laws(register: Register) -> None:
    """Offer a law. Called once at start.

    :param register: `register(law)`: an object with `name`, `features`, `parameters` (name -> (lower, upper)),
        `guess(y, **features)` and `formula(**features, **parameters)`; or with `name` and `steps` (two such laws, the
        second a function of the first's value). The formula must broadcast parameters of shape (R, 1) against
        features of shape (n,) to (R, n). A law may also be a procedure instead of a formula: an object with `name`,
        `features`, `fit(points, value, rng)`, which returns a `harness.Fitted` for a pandas frame, and
        `predict(fitted, points)`, which returns values (n,). `harness.laws.Traits` lists the optional attributes of
        laws (objective, anchors, linear parameters, derived quantities, published starts, source ...); a misspelt one
        is an error.

    Minimal implementation::

        class Exponential:
            name, features = "exponential", ("loss",)
            parameters = {"a": (0, 1), "k": (0, 10), "g": (0, 10)}

            def guess(self, y, loss):
                return {"a": max(y), "k": 1.0, "g": 1.0}

            def formula(self, loss, a, k, g):
                return a - k * numpy.exp(-g * loss)

        @harness.hookimpl
        def register_laws(register):
            register(Exponential())

    A procedure::

        class Nearest:
            name, features = "nearest", ("flops",)

            def fit(self, points, value, rng):
                last = points.sort_values("flops").iloc[-1]
                return harness.Fitted({"y": last[value]})

            def predict(self, fitted, points):
                return numpy.full(len(points), fitted.parameters["y"])
    """


@hookspec
def register_forecasters(register: Register) -> None:
    """Offer a model that takes part in `harness forecast`. Called once at start.

    :param register: `register(forecaster)`: an object with a `name` and `draw(batch, rng)`, which gets a
        `harness.fitting.rungs.Batch` of P ladders with their targets and returns draws of the accuracy of each target,
        shape (P, R, T), without document noise; NaN if it makes no forecast. Its weight depends on the accuracy of its
        forecasts of earlier rungs. The optional `untried` is the relative CRPS assumed before its first forecast
        (default 1; a larger value gives less weight).

    Minimal implementation::

        class Same:
            name = "same"

            def draw(self, batch, rng):
                last = numpy.array([ladder.value[ladder.tops[-1]] for ladder in batch.ladders])
                spread = 0.05 * rng.standard_normal((len(last), 200, batch.targets("params").shape[1]))
                return numpy.clip(last[:, None, None] + spread, 0, 1)

        @harness.hookimpl
        def register_forecasters(register):
            register(Same())
    """


@hookspec
def register_executors(register: Register) -> None:
    """Offer an executor, which runs the cells of a sweep in several processes. Called once at start.

    :param register: `register(name, run)`: `run(sweep, *, workers=None, ...)` does all of a `harness.executors.Sweep`.
        Its keyword arguments are options: workers, gpus_per_worker and address can be given to `harness eval`.
        `harness.executors.drive(sweep, pool)` gives work to a `Pool` of workers, which the executor starts and ends
        with `sweep.spec`, and replaces workers that are lost. A worker runs `harness.executors.serve`.

    Minimal implementation::

        def run(sweep, *, workers=None):
            harness.executors.drive(sweep, MyPool(sweep.spec, workers or 1))

        @harness.hookimpl
        def register_executors(register):
            register("mine", run)
    """


@hookspec
def register_reporters(register: Register) -> None:
    r"""Offer a format for tables. Called once at start.

    :param register: `register(suffix, render)`: `render(tables)` returns the text of a file with that suffix from a
        list of `harness.Table`.

    Minimal implementation::

        @harness.hookimpl
        def register_reporters(register):
            register("txt", lambda tables: "\n".join(table.title for table in tables))
    """


@hookspec
def register_panels(register: Register) -> None:
    """Offer a figure of the HTML report. Called once at start.

    :param register: `register(name, make)`: `make(data)` gets a `harness.ReportData` and returns a `harness.Panel`, or
        None when the store has nothing for it to show.

    Minimal implementation::

        def losses(data):
            axis = {"field": "x", "type": "quantitative", "scale": {"type": "log"}}
            y = {"field": "loss", "type": "quantitative", "title": "Training loss (nats per token)"}
            chart = {"mark": "point", "encoding": {"x": axis, "y": y}}
            rows = data.runs[data.runs["loss"].notna()]
            return harness.Panel("Training loss", "Loss of every checkpoint.", chart, rows, controls=["x"])

        @harness.hookimpl
        def register_panels(register):
            register("losses", losses)
    """


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add sub-commands to the command line. Called once at start, before arguments are parsed.

    :param cli: the click group; add commands with `@cli.command()`. To end with a status other than 0, raise
        a `harness.HarnessError` (1) or `click.exceptions.Exit(status)`; `sys.exit` is reported as an error.

    Minimal implementation::

        @harness.hookimpl
        def register_commands(cli):
            @cli.command()
            def hello():
                click.echo("hello")
    """


HOOKS: Sequence[str] = tuple(name for name in globals() if name.startswith("register_"))
