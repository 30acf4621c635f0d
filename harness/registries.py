"""One registry per kind of plugin object, validated on registration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Generic, NamedTuple, TypeVar

from harness.errors import PluginError, UsageError, choose, suggest
from harness.hookspecs import Register
from harness.origins import Origin, is_frame_of, mark_checker, mark_engine, mark_metric, marked
from harness.types import (
    PASS_AT,
    Checker,
    EngineType,
    Family,
    InspectCheckpoint,
    Metric,
    OpenEngine,
    Sampler,
    SourceMetric,
    Task,
)
from harness.types.laws import REQUIRED, Law, misspelt

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])
Registrar = Callable[["Registries", str], Register]

NEEDS = (
    "answers",
    "choices",
    "cloze",
    "greedy",
    "one_gold",
    "samples",
    *(f"samples_{k}" for k in PASS_AT),
    "several_gold",
    "text",
    "token_counts",
    "unconditional",
)
UNBOUNDED = (-float("inf"), float("inf"))
AGGREGATES = ("mean", "ratio", "exp_ratio")


class Entry(NamedTuple, Generic[T]):
    """A registered object and the plugin that registered it."""

    value: T
    plugin: str


def singular(kind: str) -> str:
    """Return the singular of a kind: family for families, law for laws."""
    return "family" if kind == "families" else kind.removesuffix("s")


class Source(NamedTuple):
    """Tasks that are created on demand: `resolve(name)` returns them, `list_names()` their names.

    `metrics(task, answers)` returns the metrics that the source computes itself.
    """

    resolve: Callable[..., Task | Sequence[Task]]
    list_names: Callable[[], Iterable[str]]
    metrics: Callable[[Task, Any], Sequence[SourceMetric]] | None = None


@dataclass
class Registry(Generic[T]):
    """The registered objects of one kind, by name."""

    kind: str
    entries: dict[str, Entry[T]] = field(default_factory=dict)

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
            raise UsageError(
                f"there is no {name!r} in {self.kind}; {suggest(name, self.entries, f'harness ls {self.kind}')}"
            )
        return self.entries[name].value

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
    panels: Registry[Callable[..., Any]] = field(default_factory=lambda: Registry("panels"))

    def origin_of(self, frame: FrameType) -> Origin | None:
        """Return the origin of the law that a frame runs; other objects are marked (see origins)."""
        for name, entry in self.laws.entries.items():
            if any(is_frame_of(frame, law) for law in (entry.value, *getattr(entry.value, "steps", ()))):
                return self.laws.origin(name)
        return None


def _path_or(value_type: type, registry: str) -> Registrar:
    """Return a registrar for files (the file or folder gives the name) and for values."""

    def registrar(registries: Registries, plugin: str) -> Register:
        def register(value: object) -> None:
            if not isinstance(value, (value_type, str, Path)):
                raise PluginError(f"{plugin} registers {value!r}; expected a path or a harness.{value_type.__name__}")
            name = value.name if isinstance(value, (Task, Family)) else _file_name(Path(str(value)))
            getattr(registries, registry).add(name, value, plugin)

        return register

    return registrar


def _file_name(path: Path) -> str:
    if not path.exists():
        raise PluginError(f"{path} does not exist; register the path of an existing file or folder")
    return path.parent.name if path.name == "task.yaml" else path.stem


def _sources(registries: Registries, plugin: str) -> Register:
    def register(
        prefix: str,
        resolve: Callable[..., Task | Sequence[Task]],
        list_names: Callable[[], Iterable[str]],
        metrics: Callable[[Task, Any], Sequence[SourceMetric]] | None = None,
    ) -> None:
        origin = Origin(plugin, "source", prefix)
        resolve, list_names = (_callable(resolve, prefix), _callable(list_names, prefix))
        own = marked(_callable(metrics, prefix), origin) if metrics is not None else None
        registries.sources.add(prefix, Source(marked(resolve, origin), marked(list_names, origin), own), plugin)

    return register


def _engines(registries: Registries, plugin: str) -> Register:
    def register(
        name: str,
        open_engine: OpenEngine,
        inspect: InspectCheckpoint,
        preferred: Callable[[], bool] = bool,
        modules: tuple[str, ...] = (),
        install: Callable[[], str] | None = None,
        adapters: bool = False,
    ) -> None:
        functions = (_callable(open_engine, name), _callable(inspect, name), _callable(preferred, name))
        engine = mark_engine(EngineType(name, *functions, modules, install, adapters), Origin(plugin, "engine", name))
        registries.engines.add(name, engine, plugin)

    return register


def make_metric(
    fn: Callable[..., object],
    name: str | None = None,
    needs: str | Sequence[str] = (),
    aggregate: str | Callable[..., object] = "mean",
    higher_is_better: bool = True,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Metric:
    """Return a metric as it is registered; raise PluginError if it is not valid."""
    name = str(name or getattr(fn, "__name__", ""))
    needs = (needs,) if isinstance(needs, str) else tuple(needs)
    unknown = set(needs) - set(NEEDS)
    if unknown:
        raise PluginError(f"metric {name!r} needs {choose(unknown)}; scores may offer: {choose(NEEDS)}")
    if not callable(aggregate) and aggregate not in AGGREGATES:
        raise PluginError(
            f"metric {name!r}: aggregate={aggregate!r}; expected one of {choose(AGGREGATES)}, or a function"
        )
    low, high = bounds
    if not low < high:
        raise PluginError(f"metric {name!r}: bounds={bounds!r}; expected (lowest, highest) possible value")
    return Metric(name, _callable(fn, name), needs, aggregate, higher_is_better, (float(low), float(high)))


def _metrics(registries: Registries, plugin: str) -> Register:
    def register(
        fn: Callable[..., object],
        name: str | None = None,
        needs: str | Sequence[str] = (),
        aggregate: str | Callable[..., object] = "mean",
        higher_is_better: bool = True,
        bounds: tuple[float, float] = UNBOUNDED,
    ) -> None:
        metric = make_metric(fn, name, needs, aggregate, higher_is_better, bounds)
        registries.metrics.add(metric.name, mark_metric(metric, Origin(plugin, "metric", metric.name)), plugin)

    return register


def make_checker(
    name: str,
    check: Callable[..., object],
    version: str = "1",
    executes_code: bool = False,
    prepare: Callable[[], Sequence[str]] | None = None,
    takes: str = "",
) -> Checker:
    """Return a checker as it is registered; raise PluginError if a value is invalid."""
    if not isinstance(name, str) or not name or ":" in name:
        raise PluginError(f"a checker is named {name!r}; expected text without a colon")
    checker = Checker(name, _callable(check, name), version, executes_code, prepare, takes)
    if not isinstance(checker.version, str) or not checker.version:
        raise PluginError(f"checker {name!r}: version={checker.version!r}; expected text, such as '1'")
    if checker.prepare is not None:
        _callable(checker.prepare, f"{name}, prepare=")
    return checker


def _checkers(registries: Registries, plugin: str) -> Register:
    def register(
        name: str,
        check: Callable[..., object],
        version: str = "1",
        executes_code: bool = False,
        prepare: Callable[[], Sequence[str]] | None = None,
        takes: str = "",
    ) -> None:
        checker = make_checker(name, check, version, executes_code, prepare, takes)
        registries.checkers.add(name, mark_checker(checker, Origin(plugin, "checker", name)), plugin)

    return register


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
    return replace(checker, name=spec, check=checker.check(argument), takes="") if checker.takes else checker


def expect_law(law: Any) -> None:
    """Raise a PluginError that says what is missing if an object is not a law."""
    if isinstance(law, type):
        raise PluginError(f"the law {law.__name__} is a class; register an instance: {law.__name__}()")
    kind = "composed" if hasattr(law, "steps") else "procedure" if hasattr(law, "fit") else "formula"
    missing = [attribute for attribute in REQUIRED[kind] if not hasattr(law, attribute)]
    if missing:
        raise PluginError(f"the law {law!r} lacks {choose(missing)}; expected {', '.join(REQUIRED[kind])}")
    if not law.name or not isinstance(law.name, str):
        raise PluginError(f"the law {law!r} has the name {law.name!r}; expected text")
    if isinstance(getattr(law, "features", ()), str):
        raise PluginError(
            f"law {law.name!r}: features = {law.features!r}; expected a tuple of names, ({law.features!r},)"
        )
    for name, meant in misspelt(law, kind):
        raise PluginError(
            f"law {law.name!r} has an attribute {name!r}, which is not in the contract; did you mean {meant!r}? "
            f"Otherwise rename it to _{name}"
        )


def _laws(registries: Registries, plugin: str) -> Register:
    def register(law: Any) -> None:
        expect_law(law)
        registries.laws.add(law.name, law, plugin)

    return register


def expect_forecaster(forecaster: Any) -> None:
    """Raise a PluginError that says what is missing if an object is not a forecaster."""
    if isinstance(forecaster, type):
        raise PluginError(
            f"the forecaster {forecaster.__name__} is a class; register an instance: {forecaster.__name__}()"
        )
    name = getattr(forecaster, "name", None)
    if not name or not isinstance(name, str):
        raise PluginError(f"the forecaster {forecaster!r} has the name {name!r}; expected text")
    if not callable(getattr(forecaster, "draw", None)):
        raise PluginError(f"forecaster {name!r} lacks draw; expected a method draw(batch, rng)")
    untried = getattr(forecaster, "untried", 1.0)
    if not isinstance(untried, (int, float)) or not untried > 0:
        raise PluginError(f"forecaster {name!r}: untried = {untried!r}; expected a number above 0")


def _forecasters(registries: Registries, plugin: str) -> Register:
    def register(forecaster: Any) -> None:
        expect_forecaster(forecaster)
        registries.forecasters.add(forecaster.name, forecaster, plugin)

    return register


def _named(registry: str) -> Registrar:
    """Return a registrar for plain functions under a name."""

    def registrar(registries: Registries, plugin: str) -> Register:
        def register(name: str, function: Callable[..., object]) -> None:
            origin = Origin(plugin, singular(registry), name)
            getattr(registries, registry).add(name, marked(_callable(function, name), origin), plugin)

        return register

    return registrar


def _callable(value: F, name: str) -> F:
    if not callable(value):
        raise PluginError(f"{name!r} is registered with {value!r}, which cannot be called; pass a function")
    return value


REGISTRARS: dict[str, Registrar] = {
    "register_tasks": _path_or(Task, "tasks"),
    "register_sources": _sources,
    "register_families": _path_or(Family, "families"),
    "register_engines": _engines,
    "register_metrics": _metrics,
    "register_checkers": _checkers,
    "register_samplers": _named("samplers"),
    "register_laws": _laws,
    "register_forecasters": _forecasters,
    "register_executors": _named("executors"),
    "register_reporters": _named("reporters"),
    "register_panels": _named("panels"),
}
