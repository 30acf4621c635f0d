"""One registry per kind of plugin object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Generic, NamedTuple, TypeVar

from harness.errors import PluginError, UsageError, suggest
from harness.host.origins import Origin, check_for, is_frame_of
from harness.types import (
    Checker,
    EngineType,
    Family,
    Metric,
    Sampler,
    SourceMetric,
    Task,
)
from harness.types.laws import Law

T = TypeVar("T")


class Entry(NamedTuple, Generic[T]):
    """A registered object and the plugin that registered it."""

    value: T
    plugin: str


def singular(kind: str) -> str:
    """Return the singular of a kind: family for families, law for laws."""
    return "family" if kind == "families" else kind.removesuffix("s")


class Source(NamedTuple):
    """Tasks that are created on demand: `resolve(name)` returns them, `list_names()` their names.

    `metrics(task, answers)` and `groups(group, parts)` return the metrics that the source computes itself.
    """

    resolve: Callable[..., Task | Sequence[Task]]
    list_names: Callable[[], Iterable[str]]
    metrics: Callable[..., Sequence[SourceMetric]] | None = None
    groups: Callable[..., Sequence[SourceMetric]] | None = None

    def names(self, prefix: str) -> list[str]:
        """Return the names that the source `prefix` lists; raise PluginError if these are no list of texts."""
        listed = self.list_names()
        names = list(listed) if isinstance(listed, Iterable) and not isinstance(listed, str) else [listed]
        if not all(isinstance(name, str) for name in names):
            raise PluginError(f"source {prefix!r}: list_names() returned {listed!r}; expected a list of texts")
        return names


@dataclass
class Registry(Generic[T]):
    """The registered objects of one kind, by name."""

    kind: str
    entries: dict[str, Entry[T]] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)  # names in other programs -> names here

    def add(self, name: str, value: T, plugin: str) -> None:
        """Register an object under its name; if the name is taken, raise an error that names both plugins."""
        if name in self.entries:
            raise PluginError(
                f"plugin {plugin!r} registers {name!r} in {self.kind}, already registered by "
                f"{self.entries[name].plugin!r}; choose another name, or disable one with -p no:NAME"
            )
        self.entries[name] = Entry(value, plugin)

    def __getitem__(self, name: str) -> T:
        """Return the object of that name; raise UsageError with similar names if there is none."""
        if name not in self.entries:
            raise UsageError(f"there is no {name!r} in {self.kind}; {self.hint(name)}")
        return self.entries[name].value

    def hint(self, name: str) -> str:
        """Return the last part of a message about an unknown name: its name here, or similar names."""
        if name in self.elsewhere:
            return f"the same numbers are called {self.elsewhere[name]!r} here"
        return suggest(name, self.entries, f"harness ls {self.kind}")

    def origin(self, name: str) -> Origin:
        """Return the plugin, kind and name of an object, for messages."""
        return Origin(self.entries[name].plugin, singular(self.kind), name)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))


@dataclass
class Registries:
    """One registry per kind of object."""

    tasks: Registry[Task | str | Path] = field(default_factory=lambda: Registry("tasks"))
    sources: Registry[Source] = field(default_factory=lambda: Registry("sources"))
    families: Registry[Family | str | Path] = field(default_factory=lambda: Registry("families"))
    engines: Registry[EngineType] = field(default_factory=lambda: Registry("engines"))
    metrics: Registry[Metric] = field(default_factory=lambda: Registry("metrics"))
    checkers: Registry[Checker] = field(default_factory=lambda: Registry("checkers"))
    samplers: Registry[Callable[..., Sampler]] = field(default_factory=lambda: Registry("samplers"))
    laws: Registry[Law] = field(default_factory=lambda: Registry("laws"))
    forecasters: Registry[Any] = field(default_factory=lambda: Registry("forecasters"))
    executors: Registry[Callable[..., object]] = field(default_factory=lambda: Registry("executors"))
    reporters: Registry[Callable[..., str]] = field(default_factory=lambda: Registry("reporters"))
    panels: Registry[Callable[..., object]] = field(default_factory=lambda: Registry("panels"))

    def owners(self, kind: str) -> dict[str, str]:
        """Return the plugin that registered each object of a kind (tasks, sources ...), by name."""
        registry: Registry[Any] = getattr(self, kind)
        return {name: entry.plugin for name, entry in registry.entries.items()}

    def origin_of(self, frame: FrameType) -> Origin | None:
        """Return the origin of the law that a frame runs; other objects are marked (see origins)."""
        for name, entry in self.laws.entries.items():
            if any(is_frame_of(frame, law) for law in (entry.value, *getattr(entry.value, "steps", ()))):
                return self.laws.origin(name)
        return None


def find_checker(spec: str, registries: Registries) -> Checker:
    """Return a checker by its name and, if it takes one, its argument after a colon: `regex:PATTERN`.

    Raises UsageError for an unknown name, and for a missing or superfluous argument.
    """
    name, colon, argument = spec.partition(":")
    checker = registries.checkers[name]
    if checker.takes and not argument:
        raise UsageError(f"checker {spec!r}: expected {checker.takes} after a colon, {name}:...")
    if colon and not checker.takes:
        raise UsageError(f"checker {spec!r}: {name} takes no argument after a colon; write {name}")
    if not checker.takes:
        return checker
    return replace(checker, name=spec, check=check_for(checker, argument, registries.checkers.origin(name)), takes="")
