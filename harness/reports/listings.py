"""Tables of what plugins offer, one per kind of object; the plugins themselves; and the prompts of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import Parameter, signature
from itertools import islice
from pathlib import Path
from typing import Any

from harness.checkpoints.families import find_family
from harness.errors import UsageError, suggest
from harness.fitting.laws import describe
from harness.host import PluginHost
from harness.host.distribution import missing
from harness.host.registries import Registry
from harness.tables import Cell, Table, printable
from harness.tasks.documents import look_for
from harness.tasks.task_files import TaskFile, read_task_file
from harness.types import Checker, Doc, Metric, Task

BOUNDARY = "┃"
SLOW = 0.3  # seconds to load a plugin, from which a note says so


def listing(kind: str, host: PluginHost) -> Table:
    """Return the table of one kind of thing."""
    columns, rows = LISTS[kind](host)
    return Table(kind, kind.capitalize(), columns, tuple(rows))


Listed = tuple[tuple[str, ...], list[tuple[Cell, ...]]]


def _families(host: PluginHost) -> Listed:
    families = [find_family(name, host) for name in host.families]
    rows: list[tuple[Cell, ...]] = [
        (f.name, ", ".join(dict.fromkeys(c.size for c in f.checkpoints)), len(f.checkpoints), f.about) for f in families
    ]
    return ("family", "sizes", "checkpoints", "about"), rows


def _tasks(host: PluginHost) -> Listed:
    rows: list[tuple[Cell, ...]] = []
    for name in host.tasks:
        value = host.tasks[name]
        task = value if isinstance(value, Task) else read_task_file(Path(value))
        kind = task.kind if isinstance(task, Task) else task.prompt.kind
        rows.append((name, kind, task.metric, "shipped" if isinstance(task, Task) else _origin(task), task.about))
    for prefix in host.sources:
        rows += [(f"{prefix}:{name}", "", "", "", "") for name in host.sources[prefix].names(prefix)]
    return ("task", "kind", "metric", "documents", "about"), rows


def _origin(file: TaskFile) -> str:
    """Say where the documents of a task come from."""
    if look_for(file.documents, [file.path.parent]):
        return "shipped"
    return "--data or hub" if file.hub else "--data"


def _laws(host: PluginHost) -> Listed:
    laws = [describe(host.laws[name]) for name in host.laws]
    columns = ("law", "features", "parameters", "about")
    return columns, [tuple(", ".join(v) if isinstance(v, list) else v for v in law.values()) for law in laws]


def _metrics(host: PluginHost) -> Listed:
    metrics: list[Metric] = [host.metrics[name] for name in host.metrics]
    rows: list[tuple[Cell, ...]] = [
        (
            m.name,
            ", ".join(m.needs),
            "higher" if m.higher_is_better else "lower",
            (m.fn.__doc__ or "").strip().split("\n")[0],
        )
        for m in metrics
    ]
    return ("metric", "needs", "better", "about"), rows


def _checkers(host: PluginHost) -> Listed:
    checkers: list[Checker] = [host.checkers[name] for name in host.checkers]
    rows: list[tuple[Cell, ...]] = [
        (
            f"{c.name}:{c.takes.split()[-1].upper()}" if c.takes else c.name,
            c.version,
            "yes" if c.executes_code else "no",
            (c.check.__doc__ or "").strip().split("\n")[0],
        )
        for c in checkers
    ]
    return ("checker", "version", "executes code", "about"), rows


def _engines(host: PluginHost) -> Listed:
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            host.engines.entries[name].plugin,
            ", ".join(f"{module} is missing" for module in missing(host.engines[name].modules)) or "yes",
        )
        for name in host.engines
    ]
    return ("engine", "plugin", "installed"), rows


def _samplers(host: PluginHost) -> Listed:
    rows: list[tuple[Cell, ...]] = [
        (name, _signature(host.samplers[name]), host.samplers.entries[name].plugin, _about(host.samplers[name]))
        for name in host.samplers
    ]
    return ("sampler", "options", "plugin", "about"), rows


def _signature(make: Callable[..., object]) -> str:
    """Return the options of a function with their defaults; nothing where they cannot be read."""
    try:
        return ", ".join(str(p).partition(":")[0] + _default(p) for p in signature(make).parameters.values())
    except (TypeError, ValueError):
        return ""


def _default(parameter: Parameter) -> str:
    return "" if parameter.default is Parameter.empty else f"={parameter.default!r}"


def _sources(host: PluginHost) -> Listed:
    rows: list[tuple[Cell, ...]] = [
        (f"{name}:NAME", len(host.sources[name].names(name)), host.sources.entries[name].plugin, _about(resolve))
        for name in host.sources
        for resolve in [host.sources[name].resolve]
    ]
    return ("source", "listed names", "plugin", "about"), rows


def _named(registry: str, column: str) -> Callable[[PluginHost], Listed]:
    """Return a lister of objects of which a name, a plugin and a docstring are known."""

    def lister(host: PluginHost) -> Listed:
        objects: Registry[Any] = getattr(host, registry)
        return (column, "plugin", "about"), [
            (name, objects.entries[name].plugin, _about(objects[name])) for name in objects
        ]

    return lister


def _about(value: object) -> str:
    """Return the first line of `about` or of the docstring of an object, or of its class."""
    doc = getattr(value, "about", "") or value.__doc__ or ""
    return doc.strip().split("\n")[0]


LISTS = {
    "families": _families,
    "tasks": _tasks,
    "laws": _laws,
    "metrics": _metrics,
    "checkers": _checkers,
    "engines": _engines,
    "samplers": _samplers,
    "sources": _sources,
    "executors": _named("executors", "executor"),
    "reporters": _named("reporters", "format"),
    "panels": _named("panels", "panel"),
    "forecasters": _named("forecasters", "forecaster"),
}


def plugin_table(host: PluginHost, names: Sequence[str] = ()) -> Table:
    """Return the table of some plugins (default: all). Raises UsageError for one that is not there."""
    infos = [info for info in host.plugins() if not names or info.name in names]
    for name in set(names) - {info.name for info in infos}:
        raise UsageError(f"there is no plugin {name!r}; {suggest(name, host.candidates, 'harness plugins')}")
    rows = tuple(
        (
            info.name,
            info.distribution or "-",
            info.version or "-",
            ", ".join(info.hooks),
            round(1000 * info.seconds),
            info.error or "-",
        )
        for info in infos
    )
    slow = [f"{i.name} takes {i.seconds:.1f} s to load in every command" for i in infos if i.seconds > SLOW]
    notes = [f"{line}: import heavy libraries inside the functions that use them." for line in slow]
    columns = ("plugin", "distribution", "version", "hooks", "load (ms)", "error")
    return Table("plugins", "Plugins", columns, rows, tuple(notes))


def prompts(task: Task, n: int) -> str:
    """Return the exact prompts of the first documents; `┃` stands between context and continuation."""
    head = f"{task.name}: {task.kind}, {len(task.docs)} documents, metric {task.metric}, fingerprint {task.fingerprint}"
    head = printable(head)
    return "\n".join([head, *(line for doc in islice(task.docs, n) for line in _prompt_lines(doc))])


def _prompt_lines(doc: Doc) -> Iterator[str]:
    group = f" ({doc.group})" if doc.group else ""
    attributes = "".join(f", {name} {value}" for name, value in doc.attributes.items())
    yield "\n" + printable(f"document {doc.doc_id}{group}{attributes}")
    if len(doc.contexts) == 1:
        yield _visible(doc.contexts[0]) + BOUNDARY
    for k in range(len(doc.choices)):
        context, continuation = doc.prompt(k)
        before = _visible(context) if len(doc.contexts) > 1 else ""
        yield f"  {'*' if k in doc.gold else ' '} {k} {before}{BOUNDARY}{_visible(continuation)}{BOUNDARY}"


def _visible(text: str) -> str:
    """Show ends of lines, tabs, and the boundary sign where the text itself contains it."""
    marked = text.replace("\t", "⇥").replace("\n", "⏎\n").replace(BOUNDARY, f"\\u{ord(BOUNDARY):04x}")
    return printable(marked, lines=True)
