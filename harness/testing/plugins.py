"""Run the conformance checks on all registered objects (`harness plugins --check`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import HarnessError, TaskError, UsageError, suggest
from harness.host import PluginHost
from harness.host.distribution import missing
from harness.host.registries import singular
from harness.tables import Table
from harness.tasks.documents import look_for
from harness.tasks.task_files import read_task_file
from harness.testing.checkers import check_odd_texts
from harness.testing.findings import collected, expect_call
from harness.testing.forecasters import check_forecaster
from harness.testing.laws import check_law, example_points
from harness.testing.metrics import check_metric
from harness.testing.output import check_command, check_panel, check_reporter
from harness.testing.samplers import check_sampler
from harness.testing.tasks import check_family, check_source, check_task
from harness.types import Checker, Checkpoint, Doc, Task
from harness.types.laws import ProcedureLaw, traits

if TYPE_CHECKING:
    import click

CHECKPOINT = Checkpoint("any", "any", None, 0, "")
DOCS = tuple(Doc("0", ("Two and two is",), (" ",), (answer, "other"), (0,)) for answer in ("4", "(A)", "four"))


class NotCheckedError(Exception):
    """An object cannot be checked on this machine; the message says why."""


@dataclass(frozen=True)
class Checked:
    """The result of the checks of one registered object: `failures`, or why it was not checked (`skipped`)."""

    plugin: str
    kind: str
    name: str
    failures: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def result(self) -> str:
        """Return passed, the number of failures, or why the object was not checked."""
        if self.skipped:
            return f"not checked: {self.skipped}"
        return f"{len(self.failures)} failed" if self.failures else "passed"


def check_plugins(
    host: PluginHost, plugins: Sequence[str] = (), *, commands: click.Group | None = None
) -> Iterator[Checked]:
    """Yield the results of the checks of every object of some plugins (default: all).

    `commands` is the click group to which plugins have added commands. Raises UsageError for a plugin that is not
    loaded.
    """
    for name in plugins:
        if name not in host.candidates:
            raise UsageError(f"there is no plugin {name!r}; {suggest(name, host.candidates, 'harness plugins')}")
    for name in plugins:
        if not host.manager.get_hookcallers(host.manager.get_plugin(name)):
            why = "it has no function that is marked with @harness.hookimpl, so it registers nothing"
            yield Checked(name, "plugin", name, failures=(why,))
    for registry, check in CHECKS.items():
        for name, plugin in sorted(host.owners(registry).items()):
            if not plugins or plugin in plugins:
                yield _result(plugin, singular(registry), name, partial(check, host, name))
    for name, plugin in sorted(host.commands.items()):
        if commands is not None and (not plugins or plugin in plugins):
            yield _result(plugin, "command", name, partial(check_command, commands.commands[name]))


def _result(plugin: str, kind: str, name: str, check: Callable[[], object]) -> Checked:
    """Run one check; record any error that it raises as a failure."""
    try:
        with collected(name) as findings:
            try:
                check()
            except NotCheckedError as error:
                return Checked(plugin, kind, name, skipped=str(error))
            except Exception as error:  # `found` records errors of the plugin's code by its own rules
                findings.run(_raise, error)
    except AssertionError as error:
        return Checked(plugin, kind, name, failures=tuple(getattr(error, "failures", (str(error),))))
    return Checked(plugin, kind, name)


def _raise(error: Exception) -> None:
    raise error


def _task(host: PluginHost, name: str) -> None:
    value = host.tasks[name]
    if not isinstance(value, Task):
        file = read_task_file(Path(value))
        if not look_for(file.documents, [file.path.parent]):
            raise NotCheckedError("its documents are not included")
    check_task(value, registries=host)


def _source(host: PluginHost, name: str) -> None:
    resolve, list_names, *_ = host.sources[name]
    names = list_names()
    if isinstance(names, Sequence) and not names:
        raise NotCheckedError("it lists no names to try")
    check_source(resolve, list_names)


def _engine(host: PluginHost, name: str) -> None:
    """Run the checks that need no checkpoint; `check_engine` runs the others."""
    engine = host.engines[name]
    with collected(f"engine {engine.name!r}") as findings:
        findings.run(expect_call, inspect.unwrap(engine.inspect), CHECKPOINT, Path())
        findings.run(expect_call, inspect.unwrap(engine.open_engine), CHECKPOINT, Path())
        findings.run(engine.preferred)
    if absent := missing(engine.modules):
        raise NotCheckedError(f"{', '.join(absent)} is not installed")


def _checker(host: PluginHost, name: str) -> None:
    checker = host.checkers[name]
    if checker.takes or checker.executes_code:
        raise NotCheckedError("it runs programs" if checker.executes_code else f"it takes {checker.takes}")
    doc = next((doc for doc in DOCS if _accepts(checker, doc)), None)
    if doc is None:
        raise NotCheckedError("it accepts none of the example documents")
    with collected(f"checker {checker.name!r}") as findings:
        check_odd_texts(checker, doc, findings)


def _accepts(checker: Checker, doc: Doc) -> bool:
    """Tell whether a checker accepts the answers of a document."""
    try:
        checker.check(doc, doc.choices[0])
    except TaskError:
        return False
    return True


def _law(host: PluginHost, name: str) -> None:
    law = host.laws[name]
    if isinstance(law, ProcedureLaw):
        if not callable(traits(law).example):
            raise NotCheckedError("it has no example() with points to reproduce")
        try:
            law.fit(example_points(law), "y", np.random.default_rng(0))
        except HarnessError as error:
            if traits(law).options:
                raise NotCheckedError(f"it needs options: {error}") from error
    check_law(law)


def _executor(host: PluginHost, name: str) -> None:
    if not callable(host.executors[name]):
        raise AssertionError(f"{host.executors[name]!r} cannot be called")


CHECKS: dict[str, Callable[[PluginHost, str], object]] = {  # of each registry: what checks one of its objects
    "tasks": _task,
    "sources": _source,
    "families": lambda host, name: check_family(host.families[name], registries=host),
    "engines": _engine,
    "metrics": lambda host, name: check_metric(host.metrics[name]),
    "checkers": _checker,
    "samplers": lambda host, name: check_sampler(host.samplers[name]()),
    "laws": _law,
    "forecasters": lambda host, name: check_forecaster(host.forecasters[name]),
    "executors": _executor,
    "reporters": lambda host, name: check_reporter(host.reporters[name]),
    "panels": lambda host, name: check_panel(host.panels[name]),
}


def check_table(results: Sequence[Checked]) -> Table:
    """Return the results of the checks, one row per object, with every failure as a note."""
    rows = tuple((r.plugin, r.kind, r.name, r.result) for r in results)
    failures = [f"{r.plugin}, {r.kind} {r.name}: {failure}" for r in results for failure in r.failures]
    counts = f"{sum(not r.failures and not r.skipped for r in results)} of {len(results)} objects pass their checks, "
    counts += f"{sum(bool(r.skipped) for r in results)} are not checked."
    return Table("checks", "Checks", ("plugin", "kind", "object", "result"), rows, (counts, *failures))
