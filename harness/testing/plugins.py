"""Run the conformance checks on all registered objects (`harness plugins --check`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from harness.distribution import missing
from harness.errors import HarnessError, TaskError, UsageError, suggest
from harness.host import PluginHost
from harness.registries import Registry, singular
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
from harness.types import Checker, Checkpoint, Doc, EngineType, Task
from harness.types.laws import Law, ProcedureLaw, traits

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


def check_plugins(host: PluginHost, plugins: Sequence[str] = (), *, commands: Any = None) -> Iterator[Checked]:
    """Yield the results of the checks of every object of some plugins (default: all).

    `commands` is the click group to which plugins have added commands. Raises UsageError for a plugin that is not
    loaded.
    """
    for name in plugins:
        if name not in host.candidates:
            raise UsageError(f"there is no plugin {name!r}; {suggest(name, host.candidates, 'harness plugins')}")
    for registry, check in CHECKS.items():
        own: Registry[Any] = getattr(host, registry)
        for name in own:
            if not plugins or own.entries[name].plugin in plugins:
                yield _checked(host, own, name, check)
    for name, plugin in sorted(host.commands.items()):
        if commands is not None and (not plugins or plugin in plugins):
            yield _result(plugin, "command", name, partial(check_command, commands.commands[name]))


Check = Callable[[PluginHost, str, Any], Any]


def _checked(host: PluginHost, registry: Registry[Any], name: str, check: Check) -> Checked:
    kind, plugin = singular(registry.kind), registry.entries[name].plugin
    return _result(plugin, kind, name, lambda: check(host, name, registry[name]))


def _result(plugin: str, kind: str, name: str, check: Callable[[], Any]) -> Checked:
    """Run one check; record any error that it raises as a failure."""
    try:
        with collected(name) as found:
            try:
                check()
            except NotCheckedError as error:
                return Checked(plugin, kind, name, skipped=str(error))
            except Exception as error:  # `found` records errors of the plugin's code by its own rules
                found.run(_raise, error)
    except AssertionError as error:
        return Checked(plugin, kind, name, failures=tuple(getattr(error, "failures", (str(error),))))
    return Checked(plugin, kind, name)


def _raise(error: Exception) -> None:
    raise error


def _task(host: PluginHost, _: str, value: Any) -> None:
    if not isinstance(value, Task):
        file = read_task_file(Path(value))
        if not look_for(file.documents, [file.path.parent]):
            raise NotCheckedError("its documents are not included")
    check_task(value, registries=host)


def _source(_: PluginHost, __: str, value: Any) -> None:
    resolve, list_names, *_ = value
    if not list(list_names()):
        raise NotCheckedError("it lists no names to try")
    check_source(resolve, list_names)


def _engine(_: PluginHost, __: str, engine: EngineType) -> None:
    """Run the checks that need no checkpoint; `check_engine` runs the others."""
    with collected(f"engine {engine.name!r}") as found:
        found.run(expect_call, inspect.unwrap(engine.inspect), CHECKPOINT, Path())
        found.run(expect_call, inspect.unwrap(engine.open_engine), CHECKPOINT, Path())
        found.run(engine.preferred)
    if absent := missing(engine.modules):
        raise NotCheckedError(f"{', '.join(absent)} is not installed")


def _checker(_: PluginHost, __: str, checker: Checker) -> None:
    if checker.takes or checker.executes_code:
        raise NotCheckedError("it runs programs" if checker.executes_code else f"it takes {checker.takes}")
    doc = next((doc for doc in DOCS if _accepts(checker, doc)), None)
    if doc is None:
        raise NotCheckedError("it accepts none of the example documents")
    with collected(f"checker {checker.name!r}") as found:
        check_odd_texts(checker, doc, found)


def _accepts(checker: Checker, doc: Doc) -> bool:
    """Tell whether a checker accepts the answers of a document."""
    try:
        checker.check(doc, doc.choices[0])
    except TaskError:
        return False
    return True


def _law(_: PluginHost, __: str, law: Law) -> None:
    if isinstance(law, ProcedureLaw):
        if not callable(traits(law).example):
            raise NotCheckedError("it has no example() with points to reproduce")
        try:
            law.fit(example_points(law), "y", np.random.default_rng(0))
        except HarnessError as error:
            if traits(law).options:
                raise NotCheckedError(f"it needs options: {error}") from error
    check_law(law)


def _executor(_: PluginHost, __: str, run: Any) -> None:
    if not callable(run) and not hasattr(run, "run"):
        raise AssertionError(f"{run!r} cannot be called")


CHECKS: dict[str, Check] = {
    "tasks": _task,
    "sources": _source,
    "families": lambda host, _, family: check_family(family, registries=host),
    "engines": _engine,
    "metrics": lambda _, __, metric: check_metric(metric),
    "checkers": _checker,
    "samplers": lambda _, __, make: check_sampler(make()),
    "laws": _law,
    "forecasters": lambda _, __, forecaster: check_forecaster(forecaster),
    "executors": _executor,
    "reporters": lambda _, __, render: check_reporter(render),
    "panels": lambda _, __, make: check_panel(make),
}


def check_table(results: Sequence[Checked]) -> Table:
    """Return the results of the checks, one row per object, with every failure as a note."""
    rows = tuple((r.plugin, r.kind, r.name, r.result) for r in results)
    failures = [f"{r.plugin}, {r.kind} {r.name}: {failure}" for r in results for failure in r.failures]
    counts = f"{sum(not r.failures and not r.skipped for r in results)} of {len(results)} objects pass their checks, "
    counts += f"{sum(bool(r.skipped) for r in results)} are not checked."
    return Table("checks", "Checks", ("plugin", "kind", "object", "result"), rows, (counts, *failures))
